#!/bin/sh
# timeout: 7200
# With ThreadSanitizer: the threads that load data, write checkpoints, watch, and drive MPI beside
# training. Not OpenMP's, whose barriers it cannot see in gcc's library: there is one of them.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/../e2e/lib.sh"

build=${BUILD:-build}/tsan
programs='test_loader test_share test_checkpoint'
ranked='mpi_comm mpi_cp mpi_checkpoint mpi_agree'
# shellcheck disable=SC2046,SC2086 # words
if ! env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -j"$cores" GPU=0 CFLAGS=-O1 SANITIZE=thread \
    BUILD="$build" "$build/cria" $(printf "$build/tests/%s " $programs $ranked) >"$work/make" 2>&1; then
    tail -n 20 "$work/make"
    fail 'the build with ThreadSanitizer failed'
fi

cria=$build/cria
export TSAN_OPTIONS=suppressions=tests/tsan.supp:print_suppressions=0
export UCX_MEM_MMAP_HOOK_MODE=none # see the file
for program in $programs; do
    run "$build/tests/$program"
    expect_status "$program" 0
done
for program in $ranked; do
    run mpirun -n 2 "$build/tests/$program"
    expect_status "$program" 0
done

for backend in $(backends); do
    train 2 "$backend" run.steps=6 run.save_every=2 parallel.cp=2 parallel.backend="$backend" \
        data.mask=document data.val=data/sotu_val.bin run.eval_every=3 run.eval_sequences=3
    expect_status "$backend" 0
    expect "$backend: stderr" "$(cat "$work/err")" ''
done
train 3 magi run.steps=8 --resume auto batch.global=6 parallel.cp=1 memory.recompute=layer
expect_status 'resumed on three ranks' 0
train 2 spikes run.steps=30 run.spike_z=0.1 run.on_spike=skip run.max_skips=1000 run.check_every=5
expect_status 'steps run again and left out' 0
train 2 ring run.steps=1000000 run.save_every=10 run.time_limit_minutes=0.05 --resume auto
expect_status 'stopped by the time limit' 4
