#!/bin/sh
# A failure that only one rank sees, here of MPI itself, ends the whole job at once with that rank's
# sentence and exit status 3, not after the watchdog's time with a guess. The checkpoints stay whole.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

mpicc -shared -fPIC -Wall -Wextra -o "$work/broken.so" tests/e2e/broken_mpi.c
expect 'mpicc broken_mpi.c: exit status' $? 0
# A preloaded library comes before the sanitizers' own, where cria is built with one.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0"
# wherever in a step or a save that is
for after in 90 131 172; do
    for rank in 0 1; do
        rm -rf "$work/broken"
        LD_PRELOAD=$work/broken.so BROKEN_RANK=$rank BROKEN_AFTER=$after \
            train 2 broken run.steps=1000000 run.save_every=1 run.keep_last=2 run.watchdog_seconds=20
        what="send $after of rank $rank fails"
        expect_status "$what" 3
        expect "$what: sentences" "$(grep -c '^cria: error' "$work/err")" 1
        expect "$what: sentence" "$(grep '^cria: error' "$work/err" | sed 's/rank [01] of its.*/.../
            s/failed on.*/.../')" "cria: error (rank $rank): MPI send to ..."
        for file in "$run"/step_*.safetensors; do
            [ -e "$file" ] || continue
            run "$cria" check "$file"
            expect_status "$what: $file" 0
        done
    done
done
