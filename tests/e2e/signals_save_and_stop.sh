#!/bin/sh
# SIGTERM, SIGINT and the time limit save and end with exit status 4, whoever is signalled: one rank,
# all, or mpirun; SIGUSR1 saves and goes on.
#
# MPICH's mpirun (hydra) passes signals on to every rank and returns the bitwise or of the ranks' exit
# statuses: 4 when all return 4, and so it can be told from 3, 2 and 0 in a Slurm script. (A rank that
# dies from signal N makes it N.) Signalled itself it now and then returns 0, so a script that signals
# mpirun looks at the log; what the ranks do is the same.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

# stopped WHAT SENTENCE: the job has ended as a stopped one, with a checkpoint of its last step
stopped() {
    ended
    [ "$status" = 0 ] && [ "${3-}" = hydra ] || expect_status "$1" 4
    last=$(sed -n 's/^step *\([0-9]*\)\/.*/\1/p' "$work/out" | tail -n 1)
    expect "$1: step of the newest checkpoint" "$(newest_step)" "$last"
    expect "$1: stderr" "$(cat "$work/err")" \
        "cria: stopped after step $last as asked ($2); --resume auto continues"
    run "$cria" check "$(newest)"
    expect_status "$1: the checkpoint" 0
}
long() { # RUN: a job with far more steps to do, which has done some
    start 2 "$1" run.steps=1000000 run.watchdog_seconds=60
    wait_for steps_done 3
}

long one && kill -TERM "$(rank_pid 1)"
stopped 'SIGTERM to one rank' signal

long all && kill_ranks TERM
stopped 'SIGTERM to all ranks' signal

long mpirun && kill -TERM "$job"
stopped 'SIGTERM to mpirun' signal hydra

# As scancel does: every process of the job at once, and hydra passes its own on to the ranks as well.
long job && { kill -TERM "$job"; kill_ranks TERM; }
stopped 'SIGTERM to mpirun and all ranks' signal hydra

long int && kill_ranks INT
stopped 'SIGINT' signal

# Before the first step is done: nothing to lose yet, but the way of ending is the same.
start 2 early run.steps=1000000
wait_for test -e "$run/config.yaml" && kill_ranks TERM
stopped 'SIGTERM before the first step' signal

saved() { [ -n "$(newest)" ]; }
long user && kill -USR1 "$(rank_pid 0)"
wait_for saved
first=$(newest)
wait_for steps_done $(($(newest_step) + 5))
kill_ranks TERM
stopped 'SIGTERM after SIGUSR1' signal
expect 'checkpoints after SIGUSR1 and SIGTERM' \
    "$(find "$run" -name 'step_*' | sort | tr '\n' ' ')" "$first $(newest) "

start 2 limit run.steps=1000000 run.time_limit_minutes=0.02
stopped 'run.time_limit_minutes' run.time_limit_minutes
