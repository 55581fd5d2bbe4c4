#!/bin/sh
# cp8.sh [-n RANKS] [-t SECONDS] [-d TOKENS.bin] [-r RING.py] [-q] [-c] OUT: what context parallelism gives
# on the GPUs of one host, in less than 9 minutes on eight of them. In parts:
#
#   check   gpu_comm and gpu_cp on all ranks                                             OUT/check.txt
#   cp      cria bench cp: every runtime, 1k to 64k tokens a rank, causal and documents  OUT/cp.jsonl
#   step    cria bench step of the example 1B: dp; ring and magi, micro-batch 1 and 8    OUT/step.jsonl
#   loss    100 steps on TOKENS.bin (nanoGPT's format, GPT-2 ids): ring and magi         OUT/loss/
#   torch   RING.py under torchrun, such as PyTorch's context_parallel                   OUT/torch.txt
#
# and OUT/summary.md, beside MagiAttention's published figures. jobs.sh says how parts share SECONDS (-t, 520). All
# ranks are one group. -n: RANKS, else as many as there are GPUs. -q: a rehearsal, some jobs of each part, shortened.
# -c: on the CPU, tiny. Exit status 1 when not all that was asked for is there.
set -u
# shellcheck source=tests/results/jobs.sh
. "$(dirname -- "$0")/jobs.sh"

steps=100 lists=8
[ -z "$quick" ] || steps=10 lists=1

part check $((${quick:-0} ? 25 : 10))
if [ $device = cpu ]; then
    job mpi_comm on_ranks 60 mpi_comm >>"$out/check.txt"
else
    job gpu_comm on_ranks 60 gpu_comm >>"$out/check.txt"
    job gpu_cp on_ranks 60 gpu_cp $lists >>"$out/check.txt"
fi

part cp 60
attention 60 128 64/8 8 causal,document # what is published
if [ -n "$quick" ]; then
    attention 30 64 32/8 '1 4' causal,document
else
    attention 40 64 32/8 '1 4' causal,document
    attention 40 128 24/8 '1 4' causal,document
    attention 40 128 64/8 '1 4' causal,document
    attention 40 64 32/8 16 causal,document
    attention 40 128 24/8 16 causal,document
    attention 60 128 64/8 16 causal,document
    attention 40 64 32/8 64 document
    attention 40 128 24/8 64 document
    attention 40 128 64/8 64 document
    # one call on one device takes up to half a minute
    attention 60 64 32/8 64 causal alone=no
    attention 60 128 24/8 64 causal alone=no backend=ring,magi
fi

part step 78
train_step "dp $n, micro-batch 1" 1 none 1 ${few:+"$few"}
train_step "cp $n magi, micro-batch 8" "$n" magi 8 ${few:+"$few"}
if [ -z "$quick" ]; then
    train_step "cp $n ring, micro-batch 8" "$n" ring 8
    train_step "cp $n magi, micro-batch 1" "$n" magi 1 steps=3
    train_step "cp $n ring, micro-batch 1" "$n" ring 1 steps=3
    train_step "cp $n magi, micro-batch 8, documents" "$n" magi 8 data.mask=document
    train_step "cp $n ring, micro-batch 8, documents" "$n" ring 8 data.mask=document
fi

part loss 94
if [ -z "$tokens" ]; then
    note 'curves' 'no tokens (-d)' 0
else
    [ "$device" = cpu ] || set -- "data.val=$tokens" data.format=nanogpt data.eod=50256 data.split= data.order=cria \
        batch.micro=8
    for backend in ring magi; do
        job "cp $n $backend, $steps steps" train_curve "$backend-cp$n" $steps "parallel.cp=$n" "parallel.backend=$backend" "$@"
    done
    job 'picture' scripts/compare_loss.py $config --no-run --cp "$n" --backends ring,magi --steps $steps \
        --out "$out/loss" >>"$out/log.txt" 2>&1
fi

part torch 100
torch_ring

# shellcheck disable=SC2119 # the arguments are of the curves
summary
exit $incomplete
