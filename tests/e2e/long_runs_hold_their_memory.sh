#!/bin/sh
# Two ranks under documents, whose plans change with every batch. Over many steps memory, open files and
# shared memory stay what they are. A rank that stands still or is killed ends the job and
# leaves nothing in /dev/shm; --resume auto goes on to the bits of a run left alone. With DEVICE=cuda, as
# tests/run_gpu.sh runs it, on two GPUs: 2,000 steps, GPU memory too, and the same training whether keys and
# values are copied from memory to memory or go through NCCL.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"
bundle=${BUILD:-build}
[ ! -x "$bundle/mpiexec" ] || mpirun() { "$bundle/mpiexec" "$@"; } # a host without MPI

device=${DEVICE:-cpu}
common="device=$device data.mask=document parallel.cp=2 optim.schedule=constant run.save_every=20 run.keep_last=2"
steps=300 from=120 limit=512 # KiB that a process may grow by
if [ "$device" = cuda ]; then
    config=configs/tiny.yaml steps=2000 from=300 limit=4096
    common="$common batch.global=2 run.eval_every=0"
fi
# freed memory is kept for a while there
! grep -qs fsanitize "${BUILD:-build}/flags" || limit=1000000

# ---- memory ----------------------------------------------------------------------------------------

# Of each rank: KiB of its own, open files, mappings of shared memory. The least of some readings, as
# checkpoints come and go.
measure() {
    while read -r pid; do
        for _ in 1 2 3 4 5; do
            echo "$(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status")" \
                "$(find "/proc/$pid/fd" -type l | wc -l)" "$(grep -c ' /dev/shm/' "/proc/$pid/maps")"
            sleep 0.05
        done | awk '{ for (i = 1; i <= 3; i++) if (NR == 1 || $i < least[i]) least[i] = $i }
            END { print least[1], least[2], least[3] }'
    done <"$work/pids"
}
on_gpus() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits; } # MiB, a line each

# grown BEFORE AFTER COLUMN: the most that any line's value has grown by
grown() {
    paste -d ' ' "$work/$1" "$work/$2" | awk -v at="$3" '{ d = $(NF / 2 + at) - $at; if (NR == 1 || d > most) most = d }
        END { print (NF >= 2 ? most : "unknown") }'
}
expect_at_most() { # WHAT FOUND LIMIT
    checks=$((checks + 1))
    [ "$2" -le "$3" ] 2>/dev/null || problem "$1: found $2, expected at most $3"
}

nothing_shared() { [ -z "$(find /dev/shm -maxdepth 1 -name 'cria-*' 2>/dev/null)" ]; }
expect_nothing_shared() { # others' runs come and go, too
    checks=$((checks + 1))
    wait_for nothing_shared
}

soak() { # BACKEND
    # shellcheck disable=SC2086 # words
    start 2 "$1" $common "parallel.backend=$1" run.steps=1000000 run.log_every=10 run.save_every=100 \
        data.val=data/sotu_val.bin run.eval_every=100 run.eval_sequences=4
    for at in $from $steps; do
        while [ "$(steps_logged)" -lt $((at / 10)) ]; do
            wait_for steps_done $(($(steps_logged) + 1)) || return
        done
        measure >"$work/host.$at"
        [ "$device" = cpu ] || on_gpus >"$work/gpus.$at"
    done
    [ "$device" = cpu ] || expect "$1: ranks that copy directly" \
        "$(xargs -I{} grep -l '/dev/shm/cria-' '/proc/{}/maps' <"$work/pids" | wc -l)" 2
    kill_ranks TERM
    ended
    expect_status "$1: stopped by a signal" 4
    expect_at_most "$1: KiB grown from step $from to $steps" "$(grown "host.$from" "host.$steps" 1)" $limit
    expect "$1: files opened" "$(grown "host.$from" "host.$steps" 2)" 0
    expect "$1: shared memory mapped" "$(grown "host.$from" "host.$steps" 3)" 0
    peak=$(logged "$1" mem_gib | awk -v from="$from" '$1 == from { a = $2 } { b = $2 } END { print int((b - a) * 1024) }')
    expect_at_most "$1: MiB the peak has grown by" "$peak" 2
    echo "$1: KiB, files, shared mappings of the ranks at step $from, $steps:" \
        "$(paste -s -d , "$work/host.$from"), $(paste -s -d , "$work/host.$steps")"
    [ "$device" = cpu ] && return
    # the driver gives memory in pieces of 2 MiB, the pool for band lists in 32
    expect_at_most "$1: MiB grown on a GPU" "$(grown "gpus.$from" "gpus.$steps" 1)" 32
    echo "$1: MiB on the GPUs: $(paste -s -d , "$work/gpus.$from"), $(paste -s -d , "$work/gpus.$steps")"
}

for backend in magi ring; do soak $backend || exit 1; done
expect_nothing_shared

# ---- faults ----------------------------------------------------------------------------------------

exact="$common run.deterministic=true run.watchdog_seconds=5 parallel.backend=magi"
all_gone() {
    while read -r pid; do
        [ ! -e "/proc/$pid" ] || grep -qs '^State:[[:space:]]*Z' "/proc/$pid/status" || return
    done <"$work/pids"
}
for fault in STOP KILL; do
    logged=$(run=$work/faults && steps_logged)
    # shellcheck disable=SC2086
    start 2 faults $exact run.steps=1000000 --resume auto
    wait_for steps_done $((logged + 35)) || exit 1
    kill -$fault "$(rank_pid 1)"
    ended
    wait_for all_gone
    [ $fault = KILL ] || expect_status 'a rank that stands still' 3
    expect_nothing_shared
done
last=$(($(newest_step) + 25))
# shellcheck disable=SC2086
train 2 faults $exact run.steps=$last --resume auto
expect_status 'the last resume' 0
expect 'starts that resumed' "$(grep -c '^resumed ' "$work/out")" 1
# shellcheck disable=SC2086
train 2 alone $exact run.steps=$last
expect_status 'the same steps in one go' 0
for run in faults alone; do logged $run loss grad_norm weights_crc >"$work/$run.curve"; done
expect "steps of a run left alone" "$(wc -l <"$work/alone.curve")" "$last"
expect_same "$last steps with faults" faults.curve alone.curve
expect 'tensors at the end' "$(tensors faults "$last")" "$(tensors alone "$last")"

# ---- transports ------------------------------------------------------------------------------------

[ "$device" = cpu ] && exit
gentle='optim.lr=2e-4 optim.min_lr=2e-5' # at ten times that a rounding grows a thousandfold in 30 steps
for backend in ring magi ulysses; do
    for transport in auto nccl; do
        # shellcheck disable=SC2086
        train 2 $transport $exact $gentle parallel.backend=$backend parallel.transport=$transport run.steps=30 \
            run.save_every=0
        expect_status "$backend, $transport" 0
        logged $transport loss grad_norm weights_crc >"$work/$transport.curve"
        logged $transport loss >"$work/$transport.loss"
        rm -r "${work:?}/$transport"
    done
    # magi's forward is one attention call with direct copies, several through NCCL, which round differently
    if [ $backend = magi ]; then
        expect_close 'magi: direct against NCCL' auto.loss nccl.loss 30 1e-3
    else
        expect "$backend: steps" "$(wc -l <"$work/auto.curve")" 30
        expect_same "$backend: direct against NCCL" auto.curve nccl.curve
    fi
done
