#!/bin/sh
# A rank that stands still ends the job within run.watchdog_seconds and some: exit status 3, and a
# sentence that says where the others wait for it.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

start 2 stuck run.steps=1000000 run.watchdog_seconds=5
wait_for steps_done 3
kill -STOP "$(rank_pid 1)"
begin=$(date +%s)
ended
seconds=$(($(date +%s) - begin))
expect_status 'one of two ranks stopped' 3
expect "ended after 5 s, not before (took $seconds s)" $((seconds >= 4)) 1
expect 'errors of cria on stderr' "$(grep -c '^cria: error' "$work/err")" 1
step=$(($(steps_logged) + 1))
expect 'the sentence' "$(sed -n "s/no progress for [0-9]* s in phase '[a-z ]*' of/N/p" "$work/err" |
    sed 's/rank [01]/R/')" \
    "cria: error (R): N step $step: a rank is dead or stuck; ending the job (run.watchdog_seconds).\
 --resume auto continues from the last checkpoint"
stuck_is_gone() { ! kill -0 "$(rank_pid 1)" 2>/dev/null; }
wait_for run_ended
wait_for stuck_is_gone

# Work that goes on is left alone, although the run takes longer than the limit.
train 2 busy run.steps=1000000 run.watchdog_seconds=5 run.time_limit_minutes=0.12
expect_status 'a run that is longer than the limit' 4
