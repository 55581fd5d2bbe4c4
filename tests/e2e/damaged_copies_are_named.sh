#!/bin/sh
# Before the first step the ranks of a context-parallel group copy a pattern from each other: one that arrives
# damaged ends the run and names the pair; run.check_hardware=false goes without. The check changes no bit of a run.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

mpicc -shared -fPIC -Wall -Wextra -o "$work/corrupting.so" tests/e2e/corrupting_mpi.c
expect 'mpicc corrupting_mpi.c: exit status' $? 0
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0"
# The first message of 64 KiB from rank 1: its pattern to rank 0, or with 4 ranks and cp 2 likewise.
damaged() { # RANKS RUN ARGUMENT...
    LD_PRELOAD=$work/corrupting.so CORRUPT_BYTES=65536 CORRUPT_FIRST=1 CORRUPT_LAST=1 CORRUPT_TO=0.125 train "$@"
}

damaged 2 run run.steps=2 parallel.cp=2
expect_refused 'a damaged copy' 3 "rank 0 from rank 1 on node $(uname -n): a pattern copied between their memories came out wrong; leave the node out"
expect 'a damaged copy: steps' "$(steps_logged)" 0
damaged 4 grid run.steps=2 parallel.cp=2
expect_refused 'a damaged copy of a group' 3 'rank 0 from rank 1 on node'
damaged 2 data run.steps=2 # no context parallelism, no copies
expect_status 'cp 1' 0

train 2 checked run.steps=3 parallel.cp=2
expect_status 'checked' 0
expect 'checked: warnings' "$(cat "$work/err")" ''
train 2 unchecked run.steps=3 parallel.cp=2 run.check_hardware=false
expect_status 'unchecked' 0
for run in checked unchecked; do logged $run loss grad_norm weights_crc >"$work/$run.bits"; done
expect_same 'with and without the check' checked.bits unchecked.bits
