#!/bin/sh
# optim.z_loss: logged apart from the loss, which stays cross entropy; the same for all numbers of ranks and
# backends, and bit for bit after a resume; it goes with FP8; evaluations are without it; it may change on
# --resume, which says so.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

bits() { logged "$1" loss z_loss grad_norm weights_crc >"$work/$2"; } # RUN FILE
value() { logged "$2" "$3" | sed -n "s/^$1 //p"; }                    # STEP RUN KEY
evals() { sed -n 's/.*"kind":"eval","step":0,"loss":\([^,]*\),.*/\1/p' "$work/$1/log.jsonl"; }

on='optim.z_loss=1e-2'
train 1 plain run.eval_every=20 data.val=data/sotu_val.bin run.save_every=8
expect_status 'without' 0
expect 'without: no field' "$(grep -c '"z_loss":' "$work/plain/log.jsonl")" 1 # the key
train 1 whole "$on" run.eval_every=20 data.val=data/sotu_val.bin run.save_every=8 log.tensorboard=true
expect_status 'with' 0
expect 'the first loss' "$(value 1 whole loss)" "$(value 1 plain loss)"
expect 'the first norm is another one' "$([ "$(value 1 whole grad_norm)" = "$(value 1 plain grad_norm)" ] && echo same)" ''
expect 'the first evaluation' "$(evals whole)" "$(evals plain)"
# Weights near 0 give every id nearly the same probability: lse is log 4096, whose square times 0.01 is 0.6918.
expect 'the first z-loss' "$(value 1 whole z_loss | awk '{ printf "%.2f", $1 }')" 0.69
expect 'TensorBoard' "$(cat "$work"/whole/events* | grep -aq z-loss && echo there)" there
train 1 twice optim.z_loss=2e-2 run.steps=1
expect 'twice the coefficient' "$(value 1 twice z_loss | awk -v once="$(value 1 whole z_loss)" \
    '{ print ($1 / once > 1.99999 && $1 / once < 2.00001) }')" 1
# What is minimised goes down.
expect 'the last z-loss against that of the run without' "$(value 20 whole z_loss | awk -v first="$(value 1 whole z_loss)" \
    '{ print ($1 < 0.97 * first) }')" 1

bits whole whole.bits
train 1 again "$on" memory.recompute=layer parallel.zero=0
bits again again.bits
expect_same 'recompute layer, zero 0' again.bits whole.bits
mkdir "$work/parts"
cp "$work/whole/step_00000008.safetensors" "$work/parts"
train 1 parts "$on" --resume auto
bits parts parts.bits
tail -n 12 "$work/whole.bits" >"$work/tail.bits"
expect_same 'resumed at step 8' parts.bits tail.bits

mkdir "$work/turned"
cp "$work/plain/step_00000008.safetensors" "$work/turned"
train 1 turned "$on" --resume auto
expect_status 'switched on by a resume' 0
expect_warning 'switched on by a resume' 'optim.z_loss 0 -> 0.01'
expect 'switched on by a resume: the step' "$(value 9 turned loss)" "$(value 9 plain loss)"
bits turned turned.bits
expect 'switched on by a resume: steps with it' "$(grep -vc missing "$work/turned.bits")" 12

logged whole loss z_loss grad_norm >"$work/whole.curve"
ranks() { # RANKS OPTION...
    n=$1
    shift
    train "$n" ranks "$on" "$@"
    expect_status "$n ranks, $*" 0
    logged ranks loss z_loss grad_norm >"$work/ranks.curve"
    expect_close "$n ranks, $*" ranks.curve whole.curve 20
    rm -r "$work/ranks"
}
ranks 2
ranks 1 memory.lm_head_chunk=24 batch.micro=1
for backend in $(backends); do ranks 2 parallel.cp=2 "parallel.backend=$backend"; done
ranks 4 parallel.cp=2

train 1 fp8 "$on" precision=fp8 fp8.head=true
expect_status 'fp8' 0
logged fp8 loss z_loss >"$work/fp8.curve"
logged whole loss z_loss >"$work/whole.curve"
expect_close 'fp8 against bf16' fp8.curve whole.curve 20 5e-3

run "$cria" train "$config" "run.dir=$work/no" optim.z_loss=-1
expect_refused 'a negative coefficient' 2 'optim.z_loss'
