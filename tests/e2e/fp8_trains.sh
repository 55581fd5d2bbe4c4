#!/bin/sh
# precision: fp8. The same bits in every repetition, after a resume, with recomputation and with ZeRO on
# or off; the loss of bf16 within what 8 bits cost, on every backend; FP8 and bf16 take turns on
# --resume; the log says how operands fared; what cannot be is one sentence.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

bits() { # RUN FILE
    logged "$1" loss grad_norm weights_crc >"$work/$2"
}

train 1 whole precision=fp8 run.save_every=8
expect_status 'fp8' 0
bits whole whole.curve
expect 'steps logged' "$(wc -l <"$work/whole.curve")" 20
train 1 twice precision=fp8 memory.recompute=layer parallel.zero=0
bits twice twice.curve
expect_same 'fp8 twice, then with recompute layer and zero 0' twice.curve whole.curve
mkdir "$work/parts"
cp "$work/whole/step_00000008.safetensors" "$work/parts"
train 1 parts precision=fp8 --resume auto
bits parts parts.curve
tail -n 12 "$work/whole.curve" >"$work/tail.curve"
expect_same 'fp8 resumed at step 8' parts.curve tail.curve

train 1 plain run.save_every=8
curve plain plain.curve
curve whole fp8.curve
expect 'fp8 differs from bf16' "$(cmp -s "$work/plain.curve" "$work/fp8.curve" && echo same)" ''
expect_close 'fp8 against bf16' fp8.curve plain.curve 2e-3
for way in 'first_bf16=1' 'last_bf16=1' 'gradients=e4m3' 'head=true'; do
    train 1 "$way" precision=fp8 "fp8.$way"
    expect_status "fp8.$way" 0
    curve "$way" way.curve
    expect "fp8.$way changes the run" "$(cmp -s "$work/way.curve" "$work/fp8.curve" && echo same)" ''
    expect_close "fp8.$way against bf16" way.curve plain.curve 2e-3
done
for way in '2 parallel.cp=2 parallel.backend=ring' '2 parallel.cp=2 parallel.backend=magi data.mask=document' \
    '2 parallel.cp=2 parallel.backend=ulysses' '4 parallel.cp=2 parallel.backend=allgather'; do
    # shellcheck disable=SC2086 # words
    train $way-run precision=fp8
    expect_status "$way" 0
done

# The masters are fp32 in either precision: one goes on where the other stopped.
for turn in 'bf16 fp8 plain' 'fp8 bf16 whole'; do
    set -- $turn
    mkdir "$work/$1-$2"
    cp "$work/$3/step_00000008.safetensors" "$work/$1-$2"
    train 1 "$1-$2" "precision=$2" --resume auto
    expect_status "$1, then $2" 0
    expect "$1, then $2: is said" "$(grep -c "precision $1 -> $2" "$work/err")" 1
    curve "$1-$2" turn.curve
    curve plain plain.curve
    tail -n 12 "$work/plain.curve" >"$work/tail.curve"
    expect_close "$1, then $2, against bf16" turn.curve tail.curve 2e-3
done

# Two layers of four products each: 8 products a micro-batch of 64 tokens, 4 of them a step
expect 'elements counted' "$(sed -n 's/.*"fp8":{.*"input":{"absmax":\([0-9.e+-]*\),"zeros":\([0-9.e+-]*\),.*/\1 \2/p' \
    "$work/whole/log.jsonl" | awk '$1 > 0 && $2 >= 0 && $2 < 0.2' | wc -l)" 20
expect 'bf16 has no such field' "$(grep -c '"fp8":{"qkv"' "$work/plain/log.jsonl")" 0

run "$cria" train "$config" "run.dir=$work/no" precision=fp8 model.ffn=40
expect_status 'a width that is no multiple of 16' 2
expect 'a width that is no multiple of 16: message' \
    "$(grep -c 'precision: found fp8 with model.ffn = 40, expected a multiple of 16' "$work/err")" 1
run "$cria" train "$config" "run.dir=$work/no" precision=fp8 fp8.first_bf16=1 fp8.last_bf16=1
expect_status 'no layer left' 2
