#!/bin/sh
# Checkpoints are written while training goes on: the files are those that are written while it
# waits; a disk that is slow, full, broken, or whose machine dies costs no earlier checkpoint.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

mpicc -D_GNU_SOURCE -shared -fPIC -Wall -Wextra -o "$work/slow_disk.so" tests/e2e/slow_disk.c
expect 'mpicc slow_disk.c: exit status' $? 0
# A preloaded library comes before the sanitizers' own, where cria is built with one.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0"
export DISK_TROUBLE="$work/trouble" DISK_MODE DISK_AFTER=0 DISK_RANK=0
# troubled COMMAND...: on such a disk
troubled() { LD_PRELOAD=$work/slow_disk.so "$@"; }

records() { sed -n "/\"kind\":\"$1\"/p" "$run/log.jsonl" 2>/dev/null | wc -l; }
snapshots() { [ "$(records snapshot)" -ge "$1" ]; }
saves() { [ "$(records save)" -ge "$1" ]; }
last_snapshot() { sed -n 's/.*"kind":"snapshot","step":\([0-9]*\),.*/\1/p' "$run/log.jsonl" | tail -n 1; }
finished() { find "$run" -name 'step_*.safetensors' | wc -l; }
unfinished() { find "$run" -name '*.tmp' | wc -l; }
checked() { # WHAT: every checkpoint of the run is whole
    for file in "$run"/step_*.safetensors; do
        run "$cria" check "$file"
        expect_status "$1: $file" 0
    done
}

# ---- the same files ------------------------------------------------------------------------------

# All of a checkpoint but how it was written: the key, and what depends on its length.
content() { # FILE
    header=$(od -An -t u8 -N 8 "$1") || return
    head -c $((header + 8)) "$1" | tail -c +9 | tr -s ' ' | tr ',' '\n' |
        sed 's/save_async: [a-z]*/save_async: ./; s/"header_crc":"[0-9a-f]*"//; s/ *$//'
    tail -c "+$((header + 9))" "$1" | cksum
}
crcs() { # KIND: of the weights, at the steps that are saved
    sed -n "s/.*\"kind\":\"$1\",\"step\":\([0-9]*\),.*\"weights_crc\":\"\([0-9a-f]*\)\".*/\1 \2/p" \
        "$run/log.jsonl"
}
both() { # RANKS STEPS ARGUMENT...: the run twice; its folder, which is in the file, is the same
    ranks=$1 steps=$2 what="$1 ranks, $3"
    shift 2
    for async in true false; do
        train "$ranks" same run.steps="$steps" run.save_every=1 run.save_async=$async "$@"
        expect_status "$what, save_async=$async" 0
        expect "$what, save_async=$async: saves" "$(records save)" "$steps"
        crcs step >"$work/steps.crcs"
        crcs save >"$work/saves.crcs"
        expect_same "$what, save_async=$async: CRC of the weights" saves.crcs steps.crcs
        [ $async = true ] && expect "$what: snapshots" "$(records snapshot)" $((steps - 1))
        [ $async = true ] || expect "$what: snapshots" "$(records snapshot)" 0
        mv "$run" "$work/$async"
    done
    for file in "$work"/true/step_*.safetensors; do
        content "$file" >"$work/file.true"
        content "$work/false/${file##*/}" >"$work/file.false"
        expect_same "$what: ${file##*/}" file.true file.false
    done
    rm -r "$work/true" "$work/false"
}
both 1 6 parallel.cp=1
both 2 6 parallel.cp=2
both 4 6 parallel.cp=1
# 77 MB of state, more than the small copy through which it is written while training waits
both 1 2 model.vocab=50000 model.hidden=128 model.head_dim=16 batch.global=1 batch.micro=1

DISK_MODE=memory
touch "$work/trouble"
troubled train 2 poor run.steps=3 run.save_every=1
expect_status 'without memory for a copy' 0
expect 'without memory for a copy: warnings' "$(grep -c 'GiB to spare' "$work/err")" 1
expect 'without memory for a copy: snapshots' "$(records snapshot)" 0
checked 'without memory for a copy'

# ---- a slow disk ---------------------------------------------------------------------------------

DISK_MODE=hold DISK_AFTER=7 # in the middle of the file
rm "$work/trouble"
held() { # RUN: a job whose first checkpoint, asked for by a signal, is held up half-written
    touch "$work/trouble"
    troubled start 2 "$1" run.steps=1000000
    wait_for steps_done 3
    kill -USR1 "$(rank_pid 1)"
    wait_for snapshots 1
    at=$(last_snapshot)
}

held on
wait_for steps_done $((at + 20))
expect 'checkpoints while the disk holds' "$(finished)" 0
expect 'unfinished files while the disk holds' "$(unfinished)" 1
rm "$work/trouble"
wait_for saves 1
expect 'the checkpoint when the disk goes on' "$(newest_step)" "$at"
kill_ranks TERM
ended
expect_status 'stopped after that' 4
checked 'when the disk goes on'
train 2 alone run.steps="$at"
expect "tensors of step $at, written while training went on" "$(tensors on "$at")" \
    "$(tensors alone "$at")"

held stopped
kill_ranks TERM
wait_for grep -q "waits until that of step $at is written" "$work/out"
expect 'checkpoints at SIGTERM while the disk holds' "$(finished)" 0
rm "$work/trouble"
ended
expect_status 'SIGTERM while the disk holds' 4
expect 'checkpoints after SIGTERM while the disk held' "$(finished)" 2
expect 'unfinished files after SIGTERM while the disk held' "$(unfinished)" 0
checked 'SIGTERM while the disk held'

train 2 killed run.steps=5
start_again() { troubled start 2 killed run.steps=1000000 --resume auto; }
touch "$work/trouble"
start_again
wait_for steps_done 8
kill -USR1 "$(rank_pid 0)"
wait_for snapshots 1
kill_ranks KILL
ended
wait_for run_ended
expect 'the checkpoint after kill -9' "$(newest_step)" 5
expect 'unfinished files after kill -9' "$(unfinished)" 1
checked 'kill -9'
rm "$work/trouble"
train 2 killed run.steps=9 --resume auto
expect_status 'resume after kill -9' 0
expect 'unfinished files after the resume' "$(unfinished)" 0
train 2 whole run.steps=9
expect 'tensors after the resume' "$(tensors killed 9)" "$(tensors whole 9)"

# Every write is a sign of life for the watchdog.
DISK_MODE=nap
touch "$work/trouble"
troubled train 2 slow run.steps=2 run.watchdog_seconds=4
expect_status 'a save that is slower than the watchdog' 0
seconds=$(sed -n 's/.*"kind":"save",.*"seconds":\([0-9]*\)\..*"snap.*/\1/p' "$run/log.jsonl")
expect "a save of $seconds s is slower than the watchdog" $((seconds >= 5)) 1
rm "$work/trouble"

# One that does not move at all is not waited for.
DISK_MODE=hold
touch "$work/trouble"
troubled train 2 stuck run.steps=2 run.watchdog_seconds=4
expect_status 'a disk that is stuck' 3
# one rank may end the job before the other has told
expect 'a disk that is stuck: phase' "$(($(grep -c "in phase 'checkpoint' of step 2" "$work/err") > 0))" 1
rm "$work/trouble"

# ---- a broken disk -------------------------------------------------------------------------------

for DISK_MODE in full sync; do
    for DISK_RANK in 0 1; do
        what="$DISK_MODE disk of rank $DISK_RANK"
        rm -rf "$work/broken"
        troubled start 2 broken run.steps=1000000 run.save_every=5 run.keep_last=2
        wait_for saves 2
        touch "$work/trouble"
        ended
        rm "$work/trouble"
        expect_refused "$what" 3 "rank $DISK_RANK: cannot save $run/step_"
        expect "$what: untouched" "$(grep -c 'earlier checkpoints are untouched' "$work/err")" 1
        expect "$what: unfinished files" "$(unfinished)" 0
        expect "$what: checkpoints" "$(finished)" 2
        checked "$what"
    done
done
