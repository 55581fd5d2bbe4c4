#!/bin/sh
# two_gpus.sh [-n RANKS] [-t SECONDS] [-d TOKENS.bin] [-r RING.py] [-q] [-c] OUT: what two GPUs of one host give, in
# less than 9 minutes. In parts:
#
#   cp      cria bench cp: every runtime, 8k, 32k and 128k tokens; causal, documents, window   OUT/cp.jsonl
#   torch   RING.py under torchrun, such as PyTorch's context_parallel                         OUT/torch.txt
#   step    cria bench step of the example 1B in bf16 and FP8: dp, every runtime, documents, as between two hosts
#           (by NCCL's sockets); of a 3B at 32k tokens                                         OUT/step.jsonl
#   loss    200 steps of fp8-study.yaml on TOKENS.bin (nanoGPT's format, GPT-2 ids), cp        OUT/loss/
#
# and OUT/summary.md. jobs.sh says how parts share SECONDS (-t, 520). -q: a rehearsal, some jobs of each part,
# shortened. -c: on the CPU, tiny. Exit status 1 when not all that was asked for is there.
set -u
# shellcheck source=tests/results/jobs.sh
. "$(dirname -- "$0")/jobs.sh"

each=$((8 / n)) # thousands of tokens a rank of the shortest case

part cp 38
if [ -n "$quick" ]; then
    attention 40 64 32/8 "$each" causal,document,window
else
    two="$each $((4 * each))" long=$((16 * each))
    attention 40 64 32/8 "$two" causal,document
    attention 40 128 24/8 "$two" causal,document
    attention 30 64 32/8 "$two $long" window backend=ring,magi
    attention 30 128 24/8 "$two $long" window backend=ring,magi
    attention 40 128 64/8 "$two" causal,document backend=ring,magi
    attention 20 64 32/32 "$each" causal,document
    attention 20 128 24/24 "$each" causal,document
    attention 20 64 32/8 "$long" document backend=ring,magi
    attention 20 128 24/8 "$long" document backend=ring,magi
    # one call on one device takes up to half a minute
    attention 20 64 32/8 "$long" causal alone=no backend=ring,magi
    attention 20 128 24/8 "$long" causal alone=no backend=ring,magi
fi

part torch 49
torch_ring

part step 92
train_step "1B bf16, dp $n" 1 none 1 ${few:+"$few"}
train_step "1B bf16, cp $n magi" "$n" magi 1 ${few:+"$few"}
if [ -z "$quick" ]; then
    for backend in ring allgather ulysses; do train_step "1B bf16, cp $n $backend" "$n" $backend 1 steps=2; done
    train_step "1B bf16, cp $n magi, micro-batch 2" "$n" magi 2 steps=2
    for backend in magi ring; do
        train_step "1B bf16, cp $n $backend, documents" "$n" "$backend" 1 data.mask=document steps=2
    done
    hosts="env HOST_RANKS=1 tests/share_gpus.sh $n"
    train_step "1B bf16, cp $n magi, every rank a host" "$n" magi 1 parallel.transport=nccl steps=2 micro_steps=2
    hosts=''
fi
train_step "1B fp8, dp $n" 1 none 1 precision=fp8 ${few:+"$few"}
train_step "1B fp8, cp $n magi" "$n" magi 1 precision=fp8 ${few:+"$few"}
if [ -z "$quick" ]; then
    train_step "1B fp8, cp $n ring" "$n" ring 1 precision=fp8 steps=2
    config=configs/llama-3b.yaml
    for run in bf16-magi fp8-magi bf16-ring; do
        train_step "3B ${run%-*}, 32k tokens, cp $n ${run#*-}" "$n" "${run#*-}" 1 model.seq_len=32768 data.mask=causal \
            micro_steps=1 "precision=${run%-*}" steps=2
    done
fi

part loss 100
steps=200
[ -z "$quick" ] || steps=10
if [ -z "$tokens" ]; then
    note 'curves' 'no tokens (-d)' 0
else
    config=tests/results/fp8-study.yaml
    [ $device = cuda ] || config=tests/e2e/micro.yaml
    for run in bf16-magi fp8-magi fp8-ring; do
        job "cp $n, $run, $steps steps" train_curve "$run-cp$n" $steps "parallel.cp=$n" "parallel.backend=${run#*-}" \
            "precision=${run%-*}"
    done
fi

if [ $device = cuda ]; then
    set -- "one GPU, bf16=tests/results/curves/fp8-study-bf16.jsonl" "one GPU, fp8=tests/results/curves/fp8-study-fp8.jsonl"
fi
summary "$@"
exit $incomplete
