#!/bin/sh
# run_gpu.sh [RESULTS.md]: every test that needs a GPU, on as many GPUs as there are (1, 2, 4, 8 ranks). The
# programs are those of build/, or of a bundle whose env.sh was sourced. Prints a table line for each,
# and "N passed, N failed" at the end; with an argument, writes the table there too. Exit status 3: no GPU.
# PARTS, words of kernels, rates, ranks, training and sanitizer, runs only these; without it all run, in 15 minutes.
set -u
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 3
. scripts/env.sh
build=${BUILD:-build}
if ! command -v gpu_ops >/dev/null; then PATH="$PWD/$build:$PWD/$build/tests:$PATH"; fi
command -v gpu_ops >/dev/null || fail 'no GPU tests are built: make check-gpu'
run=$(command -v mpiexec || command -v mpirun) || fail 'there is no mpiexec'
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')
[ "$gpus" -gt 0 ] || fail 'these tests need an NVIDIA GPU, of which nvidia-smi -L shows none'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
table=${1:-$work/table.md}
passed=0 failed=0
parts=${PARTS:-kernels rates ranks training sanitizer}
for part in $parts; do
    case $part in
        kernels | rates | ranks | training | sanitizer) ;;
        *) mistake "PARTS has the unknown word $part" ;;
    esac
done

{
    echo "# make check-gpu"
    echo
    echo "$(date -u +%Y-%m-%d), $gpus x $(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1), $(cria version | paste -sd ';')"
    echo
    echo "| test | result | seconds |"
    echo "|---|---|---:|"
} | tee "$table"

# note TITLE STATUS SECONDS PASSED FAILED
note() {
    passed=$((passed + $4)) failed=$((failed + $5))
    verdict="$4 passed"
    [ "$5" = 0 ] || verdict="$4 passed, **$5 failed**"
    [ "$2" != 124 ] || verdict="$verdict (over its time)"
    echo "| $1 | $verdict | $3 |" | tee -a "$table"
    [ "$5" = 0 ] || { grep -a FAIL "$work/log" | head -n 15; tail -n 5 "$work/log"; } | sed 's/^/    /'
}

# check TITLE SECONDS COMMAND...: a program that ends with "N passed, N failed", or with its status only
check() {
    title=$1 limit=$2
    shift 2
    begin=$(date +%s)
    timeout -k 5 "$limit" "$@" >"$work/log" 2>&1
    status=$?
    counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$work/log" | tail -n 1)
    good=${counts% *} bad=${counts#* }
    if [ -z "$counts" ]; then good=$((status == 0)) bad=$((status != 0)); fi
    if [ $status != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
    note "$title" $status $(($(date +%s) - begin)) "$good" "$bad"
}

# train NAME RANKS key=value...: the tiny model on GPUs, 50 steps. More ranks than GPUs share them. HOST_RANKS as
# tests/share_gpus.sh says.
train() {
    name=$1 ranks=$2 share=''
    shift 2
    [ "$ranks" -le "$gpus" ] && [ -z "${HOST_RANKS:-}" ] || share="tests/share_gpus.sh $gpus"
    # shellcheck disable=SC2086 # words
    timeout -k 5 90 "$run" -n "$ranks" $share cria train configs/tiny.yaml device=cuda "run.dir=$work/$name" run.steps=50 \
        run.log_every=1 run.eval_every=0 run.save_every=0 run.deterministic=true "$@" >"$work/log" 2>&1
}
losses() { sed -n 's/.*"kind":"step","step":\([0-9]*\),"loss":\([^,]*\),.*/\1 \2/p' "$work/$1/log.jsonl"; }
checksums() { sed -n 's/.*"kind":"step","step":\([0-9]*\),.*"weights_crc":"\([0-9a-f]*\)".*/\1 \2/p' "$work/$1/log.jsonl"; }

# agrees TITLE NAME RANKS key=value...: its losses against those of one rank, within 1e-3 over 50 steps. At a
# tenth of the demo's learning rate: there a model whose weights differ by one rounding of bf16 stays within
# 5e-5 (CPU), at the demo's own it drifts off by 1e-2.
agrees() {
    title=$1 name=$2 begin=$(date +%s)
    shift
    train "$@"
    status=$?
    losses "$name" >"$work/found"
    worst=$(losses "one_$mask" | paste -d ' ' - "$work/found" | awk 'NF == 4 && $1 == $3 { d = $4 / $2 - 1; d = d < 0 ? -d : d
        if ($1 <= 20 && d > early) early = d; if (d > all) all = d; n++ }
        END { printf "%d %.1e %.1e %d", n, early, all, n == 50 && all <= 1e-3 }')
    # shellcheck disable=SC2086 # four words
    set -- $worst
    ok=$(($4 == 1 && status == 0))
    note "$title: loss differs by $2 over 20 steps, $3 over $1" $status $(($(date +%s) - begin)) $ok $((1 - ok))
}
same_bits() {
    title=$1 ok=0
    checksums "$2" >"$work/a"
    checksums "$3" >"$work/b"
    [ "$(wc -l <"$work/a")" = "$4" ] && cmp -s "$work/a" "$work/b" && ok=1
    note "$title" 0 0 $ok $((1 - ok))
}

# One GPU: ops, the model and attention against independent computations
part_kernels() {
    check 'every op against the CPU' 180 gpu_ops
    check 'ops of FP8 against the CPU' 120 gpu_fp8
    if [ -x "$build/ptx/tests/gpu_ops" ]; then # a bundle has no room for them
        check 'every op, compiled by the driver as for other GPUs' 180 "$build/ptx/tests/gpu_ops"
        check 'portable attention, compiled likewise' 180 "$build/ptx/tests/gpu_attention" test portable
    fi
    check 'whole model against the CPU' 180 gpu_model
    check 'models that GPUs cannot run are refused, others run' 120 env DEVICE=cuda "BUILD=$(dirname "$(command -v cria)")" \
        tests/e2e/gpu_limits.sh
    check 'band attention against fp64' 300 gpu_attention test
    for D in 64 128; do
        check "attention, D = $D, the same bits for 20 s" 60 gpu_attention soak 20 $D
    done
    if python3 -c 'import torch' 2>/dev/null; then
        check "attention's error against fp64 beside cuDNN's" 300 scripts/check_attention_error.py
    fi
}

# One GPU: rates of attention, as shares of the rate of a product, against those in the repository
part_rates() {
    recorded=tests/results/rates-$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1 | tr ' ' '-').jsonl
    if [ -f "$recorded" ]; then
        check 'rates of attention against the recorded ones' 120 cria bench attention S=8k,32k mask=causal,document \
            "--baseline=$recorded"
    fi
}

# NCCL and the runtimes of context parallelism, on all numbers of ranks
part_ranks() {
    for n in 1 2 4 8; do
        [ "$n" -le $((4 * gpus)) ] || continue
        if [ "$n" -le "$gpus" ]; then
            check "NCCL on $n" 120 "$run" -n "$n" gpu_comm
            check "runtimes against dense attention on $n" 300 "$run" -n "$n" gpu_cp
        else
            check "NCCL, $n ranks that share $gpus" 180 "$run" -n "$n" tests/share_gpus.sh "$gpus" gpu_comm
            check "runtimes against dense attention, likewise" 300 "$run" -n "$n" tests/share_gpus.sh "$gpus" gpu_cp 0 small
        fi
    done
    if [ "$gpus" -ge 2 ]; then
        check 'NCCL, two ranks that are hosts to it' 180 env HOST_RANKS=1 "$run" -n 2 tests/share_gpus.sh "$gpus" gpu_comm
        check 'runtimes against dense attention, likewise' 300 env HOST_RANKS=1 "$run" -n 2 tests/share_gpus.sh "$gpus" gpu_cp 0 small
        check 'two ranks for long, stopped, killed, resumed; direct copies against NCCL' 180 env DEVICE=cuda \
            "BUILD=$(dirname "$(command -v cria)")" tests/e2e/long_runs_hold_their_memory.sh
    else
        echo '| NCCL between ranks that are hosts to it, a GPU each | not run: there is one GPU | |' | tee -a "$table"
    fi
}

# Runs of the tiny model: repeated, resumed, on several ranks
part_training() {
    train one 1
    train again 1
    same_bits 'the same run twice, to the bit' one again 50
    train part 1 run.time_limit_minutes=0 run.save_every=20 run.keep_last=0
    rm -f "$work/part/step_00000050.safetensors" "$work/part/step_00000040.safetensors"
    sed -i '/"step":\(2[1-9]\|[345][0-9]\),/d' "$work/part/log.jsonl"
    train part 1 --resume auto
    same_bits 'resumed at step 20, to the bit' one part 50
    train recompute 1 memory.recompute=layer
    same_bits 'layers computed again, to the bit' one recompute 50
    for n in 2 3 4 8; do
        [ "$n" -le $((4 * gpus)) ] || continue
        train "zero1-$n" "$n" batch.global=24 parallel.zero=1 run.steps=20
        train "zero0-$n" "$n" batch.global=24 parallel.zero=0 run.steps=20
        same_bits "ZeRO on and off on $n ranks, to the bit" "zero1-$n" "zero0-$n" 20
    done
    gentle='optim.lr=2e-4 optim.min_lr=2e-5'
    for mask in causal document; do
        # shellcheck disable=SC2086 # two words
        train "one" 1 "data.mask=$mask" "run.dir=$work/one_$mask" $gentle
        for n in 2 4 8; do
            [ "$n" -le "$gpus" ] || continue
            # shellcheck disable=SC2086
            agrees "$mask mask, dp $n" "$mask-dp$n" "$n" "data.mask=$mask" $gentle
            for backend in ring magi allgather ulysses; do
                # the model has 2 kv heads for ulysses to share out
                [ $backend != ulysses ] || [ "$n" = 2 ] || continue
                # shellcheck disable=SC2086
                agrees "$mask mask, cp $n $backend" "$mask-$backend$n" "$n" "data.mask=$mask" "parallel.cp=$n" \
                    "parallel.backend=$backend" $gentle
            done
            # As between hosts: NCCL takes every rank for one and finds sockets only.
            export HOST_RANKS=1
            for backend in ring magi; do
                # shellcheck disable=SC2086
                agrees "$mask mask, cp $n $backend, every rank a host" "$mask-hosts-$backend$n" "$n" "data.mask=$mask" \
                    "parallel.cp=$n" "parallel.backend=$backend" parallel.transport=nccl $gentle
            done
            unset HOST_RANKS
        done
    done
}

# compute-sanitizer
part_sanitizer() {
    if command -v compute-sanitizer >/dev/null; then
        check 'memcheck: ops' 120 compute-sanitizer --tool memcheck --error-exitcode 1 gpu_ops S=33
        check 'racecheck: ops' 120 compute-sanitizer --tool racecheck --error-exitcode 1 gpu_ops C=200
        # racecheck does not follow mbarriers, which order everything in the attention kernels
        check 'memcheck: attention' 120 compute-sanitizer --tool memcheck --error-exitcode 1 gpu_attention group sm90-small-64
    fi
}

for part in $parts; do "part_$part"; done
echo
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
