#!/bin/sh
# A rank that stands still, wherever that is from the first file it reads to the end of MPI, ends the job
# within run.watchdog_seconds and some: exit status 3, and one sentence that says where it stands and for
# whom it waits. A job that was suspended goes on.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

wrong_step=': a rank is dead or stuck; ending the job (run.watchdog_seconds). --resume auto continues from the last checkpoint'

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
# The rank waited for is named unless this one stands in a collective of MPI's own, or sends.
expect 'the sentence' "$(sed -n "s/no progress for [0-9]* s in phase '[a-z ]*' of/N/p" "$work/err" |
    sed 's/(rank 0)\(.*\) rank 1 /(rank A)\1 rank B /; s/(rank 1)\(.*\) rank 0 /(rank A)\1 rank B /' |
    sed "s/(rank [01])/(rank A)/; s/, waiting for rank B on host $(uname -n): /: /")" \
    "cria: error (rank A): N step $step$wrong_step"
stuck_is_gone() { ! kill -0 "$(rank_pid 1)" 2>/dev/null; }
wait_for run_ended
wait_for stuck_is_gone

# Work that goes on is left alone, although the run takes longer than the limit.
train 2 busy run.steps=1000000 run.watchdog_seconds=5 run.time_limit_minutes=0.12
expect_status 'a run that is longer than the limit' 4

# Slow is not stuck: a compressed file is read once to its end, by one rank, while the other waits.
gzip -c data/sotu_train.bin >"$work/slow.bin.gz" && touch "$work/is_slow"
{ until [ -e "$work/slow.bin.gz.index" ]; do sleep 0.1; done; rm "$work/is_slow"; } &
slow="call=pread,path=slow.bin.gz,while=$work/is_slow,do=500"
with_faults "$slow" train 2 slow "data.train=$work/slow.bin.gz" run.steps=1 run.watchdog_seconds=3
expect_status 'data that take longer than the limit to open' 0
begin=$(stat -c %Y "$work/slow.bin.gz") end=$(stat -c %Y "$work/slow.bin.gz.index")
expect "they took $((end - begin)) s" $((end - begin >= 4)) 1

# ---- where it can stand still ------------------------------------------------------------------

# stands WHAT RULES PHASE [SENTENCES]: a job of two ranks with these faults ends with that phase
stands() {
    rm -rf "$work/stands"
    with_faults "$2" train 2 stands run.watchdog_seconds=4
    expect_status "$1" 3
    expect "$1: the sentence" "$(grep -c "^cria: error .*no progress for .* in phase '$3'.*: a rank" "$work/err")" \
        "${4:-1}"
}
stands 'MPI_Init of one rank hangs' 'call=MPI_Init_thread,rank=1,do=hang' 'starting MPI'
stands 'MPI_Finalize of one rank hangs' 'call=MPI_Finalize,rank=1,do=hang' 'ending MPI'
# Once all ranks are there, the run is over, and as it ended is what counts.
rm -rf "$work/over"
with_faults 'call=MPI_Finalize,rank=1,do=hang' train 2 over run.watchdog_seconds=600
is_open_mpi && as_it_ended=1 || as_it_ended=0 # of a rank that Open MPI has not seen end
expect_status 'MPI_Finalize of one rank hangs, all is done' "$as_it_ended"
expect 'MPI_Finalize of one rank hangs, all is done: saved' "$(newest_step)" 20
stands 'the configuration of one rank cannot be read' 'call=open,path=micro.yaml,rank=1,do=hang' 'starting MPI'
stands 'the data of one rank cannot be opened' 'call=open,path=sotu_train,rank=1,do=hang' 'opening data'
stands 'a log that nobody reads' 'call=write,path=log.jsonl,nth=4,do=hang' '[a-z ]*'
# both ranks come to tell, as neither can end the other
stands 'MPI_Abort hangs, too' 'call=MPI_Abort,do=hang; call=open,path=sotu_train,rank=1,do=hang' \
    'opening data' 2

# Nothing but the limit and the reading of the configuration: one rank, no MPI
with_faults 'call=open,path=sotu_train,do=hang' run "$cria" train "$config" "run.dir=$work/one" run.watchdog_seconds=2
expect_refused 'one rank' 3 "in phase 'opening data': a rank is dead or stuck"

# ---- a console and a log that nobody reads -----------------------------------------------------

mkfifo "$work/pipe"
exec 9<>"$work/pipe"
python3 -c 'import os; os.set_blocking(9, False); os.write(9, bytes(1 << 20)); os.set_blocking(9, True)'
status=0
LD_PRELOAD='' "$cria" train "$config" "run.dir=$work/silent" >"$work/pipe" 2>&1 9<&- || status=$?
expect_status 'a full pipe for both streams' 0

mkdir "$work/fifo" && mkfifo "$work/fifo/log.jsonl"
exec 8<>"$work/fifo/log.jsonl"
python3 -c 'import os; os.set_blocking(8, False); os.write(8, bytes(1 << 20)); os.set_blocking(8, True)'
status=0
"$cria" train "$config" "run.dir=$work/fifo" run.watchdog_seconds=2 >"$work/pipe" 2>&1 8<&- 9<&- || status=$?
expect_status 'a log and a console that nobody reads' 3
exec 8<&- 9<&-

# ---- suspended, orphaned -----------------------------------------------------------------------

# As by scontrol suspend, or Ctrl-Z: longer than the limit; the ranks wake one after the other.
start 2 suspended run.steps=1000000 run.watchdog_seconds=4
wait_for steps_done 3
kill_ranks STOP
sleep 8
kill -CONT "$(rank_pid 0)"
sleep 1
kill -CONT "$(rank_pid 1)"
wait_for steps_done $(($(steps_logged) + 5))
sleep 2
kill_ranks TERM
ended
expect_status 'a suspended job goes on' 4
expect 'a suspended job goes on: errors' "$(grep -c '^cria: error' "$work/err")" 0

# Without hydra's process on the host nobody else would end the ranks.
if mpirun --version 2>&1 | grep -q HYDRA; then
    start 2 orphans run.steps=1000000 run.watchdog_seconds=600
    wait_for steps_done 3
    kill -KILL "$(sed 's/.*) //' "/proc/$(rank_pid 0)/stat" | cut -d ' ' -f 2)"
    wait_for run_ended
    ended
fi
# A run that no mpirun started does not mind the end of its shell.
# shellcheck disable=SC2016
sh -c '"$0" train "$1" "run.dir=$2" run.steps=1000000 >/dev/null 2>&1 & echo $!' "$cria" "$config" \
    "$work/alone" >"$work/pids"
run=$work/alone job=$(cat "$work/pids")
wait_for steps_done 3
sleep 3
expect 'a run whose shell has ended: alive' "$(kill -0 "$job" && echo yes)" yes
kill -TERM "$job"
wait_for run_ended
job=''
expect 'a run whose shell has ended: saved' "$(newest_step)" "$(steps_logged)"
