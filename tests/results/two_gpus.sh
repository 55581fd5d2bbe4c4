#!/bin/sh
# two_gpus.sh [-n RANKS] [-t SECONDS] [-d TOKENS.bin] [-r RING.py] [-q] [-c] OUT: what two GPUs of one host give, in
# less than 9 minutes. In parts:
#
#   cp      cria bench cp: every runtime, 8k, 32k and 128k tokens; causal, documents, window   OUT/cp.jsonl
#   torch   RING.py under torchrun, such as PyTorch's context_parallel                         OUT/torch.txt
#   step    cria bench step of the example 1B in bf16 and FP8: dp, every runtime, both micro-batches; likewise as
#           between two hosts, by NCCL's sockets; a 3B at 32k tokens                           OUT/step.jsonl
#   loss    200 steps of fp8-study.yaml on TOKENS.bin (nanoGPT's format, GPT-2 ids), cp        OUT/loss/
#
# and OUT/summary.md. jobs.sh says how parts share SECONDS (-t, 520). -q: a rehearsal, some jobs of each part,
# shortened. -c: on the CPU, tiny. Exit status 1 when not all that was asked for is there.
set -u
# shellcheck source=tests/results/jobs.sh
. "$(dirname -- "$0")/jobs.sh"

each=$((8 / n)) # thousands of tokens a rank of the shortest case

part cp 50
if [ -n "$quick" ]; then
    attention 40 64 32/8 "$each" causal,document,window
else
    attention 60 64 32/8 "$each $((4 * each))" causal,document,window
    attention 60 128 24/8 "$each $((4 * each))" causal,document,window
    attention 60 128 64/8 "$each $((4 * each))" causal,document
    attention 30 64 32/32 "$each $((4 * each))" causal,document backend=ring,magi,ulysses
    attention 30 128 24/24 "$each $((4 * each))" causal,document backend=ring,magi,ulysses
    attention 30 64 32/8 $((16 * each)) document,window backend=ring,magi
    attention 30 128 24/8 $((16 * each)) document,window backend=ring,magi
    attention 40 64 32/8 $((16 * each)) causal alone=no backend=ring,magi
    attention 40 128 24/8 $((16 * each)) causal alone=no backend=ring,magi
fi

part torch 66
torch_ring

part step 92
dp_and_cp() { # PRECISION
    train_step "1B $1, dp $n" 1 none 1 "precision=$1" ${few:+"$few"}
    for backend in magi ring allgather ulysses; do
        [ -z "$quick" ] || [ $backend = magi ] || continue
        train_step "1B $1, cp $n $backend" "$n" $backend 1 "precision=$1" steps=2 ${few:+"$few"}
    done
}
dp_and_cp bf16
if [ -z "$quick" ]; then
    for backend in magi ring; do
        train_step "1B bf16, cp $n $backend, micro-batch 2" "$n" $backend 2 steps=2
        train_step "1B bf16, cp $n $backend, documents" "$n" "$backend" 1 data.mask=document steps=2
        hosts="env HOST_RANKS=1 tests/share_gpus.sh $n"
        train_step "1B bf16, cp $n $backend, every rank a host" "$n" "$backend" 1 parallel.transport=nccl steps=2
        hosts=''
    done
fi
dp_and_cp fp8
if [ -z "$quick" ]; then
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
