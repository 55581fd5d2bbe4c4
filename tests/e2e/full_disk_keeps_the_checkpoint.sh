#!/bin/sh
# A checkpoint that does not fit costs the run (exit status 3, one sentence) but no file: on a full
# file system of 2 MiB, where one can be mounted, and when a rank may not write such a long file.
if [ "$(id -u)" != 0 ] && [ -z "${E2E_NAMESPACE-}" ] && unshare -rm true 2>/dev/null; then
    E2E_NAMESPACE=1 exec unshare -rm sh "$0" # where an ordinary user may mount
fi
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

files() { find "$run" -type f ! -name .lock ! -name log.jsonl -exec cksum {} + | sort; }

mkdir "$work/disk"
if mount -t tmpfs -o size=2m tmpfs "$work/disk" 2>/dev/null; then
    mounted=$work/disk
    train 2 disk/run run.save_every=5
    expect_refused 'the third checkpoint' 3 'available; free some or lower run.keep_last'
    expect 'newest checkpoint on the full disk' "$(newest_step)" 10
    expect 'unfinished files on the full disk' "$(find "$run" -name '*.tmp')" ''
    run "$cria" check "$(newest)"
    expect_status 'newest checkpoint on the full disk' 0

    run=$mounted/run
    rm "$run/step_00000005.safetensors"
    train 2 disk/run run.save_every=0 --resume auto
    expect_status 'resume with space for one more' 0
    train 1 whole
    expect 'steps logged' "$(steps_logged)" 20
    run=$mounted/run
    logged disk/run loss >"$work/full.curve"
    logged whole loss >"$work/whole.curve"
    expect_close 'curve' full.curve whole.curve 20

    dd if=/dev/zero of="$mounted/filler" bs=4k 2>/dev/null
    files >"$work/before"
    train 2 disk/new
    expect_refused 'a new run on the full disk' 3 'No space left on device'
    train 2 disk/run run.steps=21 --resume auto
    expect_refused 'resume on the full disk' 3 'No space left on device'
    files >"$work/after"
    expect_same 'the old run on the full disk' after before
else
    echo 'no file system can be mounted here: only the limit on the size of files is tested'
fi

train 2 limited run.steps=5
expect_status 'five steps without a limit' 0
for victim in 0 1; do
    what="a limit on the size of files, process $victim"
    rm "$run/config.yaml"
    start 2 limited run.steps=1000000 run.log_every=1000000 --resume auto
    wait_for test -e "$run/config.yaml"
    files >"$work/before"
    prlimit --pid "$(rank_pid $victim)" --fsize=262144
    kill_ranks USR1
    ended
    expect_refused "$what" 3 'File too large; earlier checkpoints are untouched'
    files >"$work/after"
    expect_same "$what: files" after before
done
