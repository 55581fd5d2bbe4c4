#!/bin/sh
# A run.dir that can no longer be written: exit status 3 and one sentence, no file lost
# or changed, and the run goes on once it can be written again.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

if [ "$(id -u)" = 0 ]; then # who may write anywhere unless that is given up
    printf '#!/bin/sh\nexec setpriv --bounding-set=-dac_override,-dac_read_search,-fowner "%s" "$@"\n' \
        "$(realpath "$cria")" >"$work/cria"
    chmod +x "$work/cria"
    cria=$work/cria
fi
files() { find "$run" -type f ! -name .lock ! -name log.jsonl -exec cksum {} + | sort; }

train 2 run run.steps=4 run.save_every=2
expect_status 'a run' 0
files >"$work/before"

start 2 run run.steps=1000000 run.save_every=0 --resume auto
wait_for steps_done 7
files >"$work/before"
chmod a-w "$run"
kill_ranks USR1
ended
expect_refused 'a save' 3 'Permission denied; earlier checkpoints are untouched'
files >"$work/after"
expect_same 'a save: files' after before

train 2 run run.steps=6 --resume auto
expect_refused 'a resume' 3 "cannot write $run/config.yaml: Permission denied"
files >"$work/after"
expect_same 'a resume: files' after before

chmod u+w "$run"
train 2 run run.steps=6 --resume auto
expect_status 'a resume when it can be written' 0
expect 'resumed at' "$(sed -n 's/^resumed .*: step \([0-9]*\), .*/\1/p' "$work/out")" 4
train 2 whole run.steps=6
expect 'tensors' "$(tensors run 6)" "$(tensors whole 6)"
