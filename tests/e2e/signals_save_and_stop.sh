#!/bin/sh
# SIGTERM, SIGINT, SIGHUP, SIGXCPU, SIGUSR2 and the time limit save and end with exit status 4, whoever is
# signalled: one rank, all, or mpirun; SIGUSR1 saves and goes on. Before the first step there is nothing to
# save, and a request ends the job at once.
#
# Open MPI's mpirun passes SIGUSR2 on; after SIGTERM it sends one to the ranks, kills them after a time, and
# returns 1. MPICH's mpirun (hydra) passes all signals on to every rank and returns the bitwise or of the ranks' exit
# statuses: 4 when all return 4, and so it can be told from 3, 2 and 0 in a Slurm script. (A rank that
# dies from signal N makes it N.)
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

# stopped WHAT SENTENCE: the job has ended as a stopped one, with a checkpoint of its last step
stopped() {
    ended
    expect_status "$1" 4
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

long mpirun && stop_mpirun
stopped 'a signal to mpirun' signal
if is_open_mpi; then
    export OMPI_MCA_odls_base_sigkill_timeout=20 # until SIGTERM, and again until SIGKILL
    long open_mpi && kill -TERM "$job"
    export OMPI_MCA_odls_base_sigkill_timeout=0
    ended
    expect_status "SIGTERM to Open MPI's mpirun" 1
    expect "SIGTERM to Open MPI's mpirun: step of the newest checkpoint" "$(newest_step)" "$(steps_logged)"
    expect "SIGTERM to Open MPI's mpirun: sentence" "$(grep -v 'nobody reads stdout' "$work/err")" \
        "cria: stopped after step $(steps_logged) as asked (signal); --resume auto continues"
fi

# As scancel does: every process of the job at once, and mpirun passes its own on to the ranks as well.
long job && { stop_mpirun; kill_ranks TERM; }
stopped 'a signal to mpirun and all ranks' signal

for signal in INT HUP XCPU USR2; do
    long $signal && kill_ranks $signal
    stopped "SIG$signal" signal
done

# What hydra makes of the status after it has passed a signal on must not depend on luck.
for round in 1 2 3 4 5; do
    start 1 single run.steps=1000000
    wait_for steps_done 3 && stop_mpirun
    stopped "a signal to mpirun -n 1, round $round" signal
    rm -r "$run"
done

# As under nohup, the end of the terminal is ignored.
run=$work/nohup
# shellcheck disable=SC2016
sh -c 'trap "" HUP; exec "$0" "$@"' "$cria" train "$config" "run.dir=$run" run.steps=1000000 \
    >"$work/out" 2>"$work/err" </dev/null &
job=$! && echo $job >"$work/pids"
wait_for steps_done 3 && kill -HUP "$job"
wait_for steps_done $(($(steps_logged) + 5)) && kill -TERM "$job"
stopped 'SIGTERM after an ignored SIGHUP' signal

# Before the first step is done: nothing to lose yet, but the way of ending is the same.
start 2 early run.steps=1000000
wait_for test -e "$run/config.yaml" && kill_ranks TERM
stopped 'SIGTERM before the first step' signal

# ended_early WHAT: with nothing saved, and no sentence but one
ended_early() {
    ended
    expect_status "$1" 4
    expect "$1: stderr" "$(grep -v UCX "$work/err")" \
        'cria: stopped before the first step as asked (signal); --resume auto starts again from the newest checkpoint'
    expect "$1: steps" "$(grep -c '^step' "$work/out")" 0
}
# waits RULES: a job of two ranks in which one stands still as the rules say
waits() {
    rm -rf "$work/early" "$work/hangs"
    FAULTS_HANG=$work/hangs with_faults "$1" start 2 early run.watchdog_seconds=600
    wait_for test -e "$work/hangs"
    sleep 1 # the other one is on its way
}
for call in path=sotu_train,call=open call=MPI_Init_thread; do
    waits "$call,rank=1,do=hang" && stop_mpirun
    ended_early "$call hangs, a signal to mpirun"
    waits "$call,rank=0,do=hang" && kill -HUP "$(rank_pid 1)"
    ended_early "$call hangs, SIGHUP to one rank"
done

# A command that has ended with a mistake, but whose ranks still wait for each other, has told all.
rm -rf "$work/hangs"
FAULTS_HANG=$work/hangs with_faults 'call=MPI_Finalize,rank=1,do=hang' start 2 mistaken model.vocab=300
wait_for test -e "$work/hangs" && kill_ranks TERM
ended
expect_refused 'SIGTERM after a mistake' 2 'but model.vocab is 300'

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
