#!/bin/sh
# What cria prints: commands whose output cannot be written end with status 3; training goes on while
# nobody reads its console, and when the reader has gone; what libraries print stays out of stdout.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

# ---- commands ----------------------------------------------------------------------------------

run "$cria" train "$config" "run.dir=$work/model" run.steps=1
expect_status 'a checkpoint to look at' 0
checkpoint=$work/model/step_00000001.safetensors

# unwritable COMMAND...: refused with stdout on a full disk, and closed
unwritable() {
    rm -rf "$work/hf"
    status=0
    "$cria" "$@" >/dev/full 2>"$work/err" </dev/null || status=$?
    expect_refused "$* on a full disk" 3 'cannot write to stdout: No space left on device'
    rm -rf "$work/hf"
    status=0
    "$cria" "$@" >&- 2>"$work/err" </dev/null || status=$?
    expect_refused "$* without stdout" 3 'cannot write to stdout: Bad file descriptor'
}
unwritable version
unwritable --help
unwritable config
unwritable plan "$config" --json
unwritable check "$checkpoint"
unwritable export "$checkpoint" "$work/hf"
unwritable data inspect data/sotu_val.bin
unwritable data pack --force --to nanogpt --out "$work/packed" data/sotu_val.bin
unwritable train "$config" --dry-run
unwritable bench gemm device=cpu T=64 shape=o

{ "$cria" config 2>"$work/err"; } | head -n 1 >"$work/out"
expect 'cria config | head: lines' "$(grep -c . "$work/out")" 1
expect 'cria config | head: stderr' "$(cat "$work/err")" ''

# ---- training ----------------------------------------------------------------------------------

steps=200 # whose lines are more than the pipe below or a terminal holds
warning='cria: warning: nobody reads stdout'

# went_on WHAT: the run has ended well, with every step in its log
went_on() {
    expect "$1: exit status" "$status" 0
    expect "$1: steps in log.jsonl" "$(steps_logged)" $steps
    expect "$1: checkpoint" "$(newest_step)" $steps
}
mkfifo "$work/pipe"
exec 9<>"$work/pipe" # so that it has a reader, which never reads
python3 -c 'import fcntl; fcntl.fcntl(9, 1031, 16384)' # F_SETPIPE_SZ

run=$work/full status=0
"$cria" train "$config" "run.dir=$run" run.steps=$steps >"$work/pipe" 2>"$work/err" 9<&- || status=$?
went_on 'a pipe that nobody reads'
expect 'a pipe that nobody reads: warnings' "$(grep -c "^$warning" "$work/err")" 1

run=$work/both status=0
"$cria" train "$config" "run.dir=$run" run.steps=$steps >"$work/pipe" 2>&1 9<&- || status=$?
went_on 'a pipe for both streams'

# Two ranks: they end, and mpirun once it can write.
run=$work/ranks
mpirun -n 2 "$cria" train "$config" "run.dir=$run" run.steps=$steps >"$work/pipe" 2>&1 9<&- </dev/null &
job=$!
steps_are_done() { [ -d "$run" ] && [ "$(newest_step)" = $steps ]; }
wait_for steps_are_done
cat <&9 >"$work/out" &
reader=$!
ended
went_on 'two ranks on a pipe that nobody reads'
kill $reader

# Read again: the gap is marked, and the lines after it are there.
run=$work/again
"$cria" train "$config" "run.dir=$run" run.steps=1000000 run.log_every=1 >"$work/pipe" 2>"$work/err" 9<&- &
job=$! && echo $job >"$work/pids"
wait_for grep -q "^$warning" "$work/err"
cat <&9 >"$work/out" &
reader=$!
wait_for grep -q '^([0-9]* lines are missing here' "$work/out"
kill -TERM "$job"
ended
expect_status 'a pipe that is read again' 4
last=$(steps_logged)
wait_for grep -q "^step *$last/" "$work/out"
expect 'a pipe that is read again: torn lines' "$(sed -n '/^step/,$p' "$work/out" |
    grep -vE '^(step +[0-9]+/1000000 .* eta [0-9dhms]+|saved .*|\([0-9]* lines are missing.*)$')" ''
kill $reader
exec 9<&-

# A terminal that is not read, as with Ctrl-S
run=$work/terminal status=0
python3 - "$cria" train "$config" "run.dir=$run" run.steps=$steps <<'PYTHON' >"$work/out" 2>"$work/err" || status=$?
import os, pty, subprocess, sys
master, slave = pty.openpty()
sys.exit(subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave).returncode)
PYTHON
went_on 'a terminal that nobody reads'

# The progress bar is for terminals: that of mpirun, too, but not what mpirun's output is passed to.
cat >"$work/on_terminal.py" <<'PYTHON'
import os, pty, sys
shown = b""
def keep(fd):
    global shown
    part = os.read(fd, 65536)
    shown += part
    return part
status = pty.spawn(sys.argv[1:], keep, lambda fd: b"")
print(f"\nexit {os.waitstatus_to_exitcode(status)}, bars: {shown.count(b'] 100%')}")
PYTHON
bars() { # EXPECTED COMMAND, which has the path of run.dir as $0
    rm -rf "$work/bars"
    NO_COLOR=1 python3 "$work/on_terminal.py" sh -c "$2" "$work/bars" </dev/null >"$work/out" 2>&1
    expect "bars of $2" "$(tail -n 1 "$work/out")" "exit 0, bars: $1"
    expect "colors of $2" "$(grep -c "$(printf '\033\\[[0-9]*m')" "$work/out")" 0
}
one="$cria train $config run.dir=\$0 run.steps=2"
bars 1 "$one"
bars 1 "mpirun -n 2 $one"
bars 0 "mpirun -n 2 $one | cat"

# A reader that leaves
run=$work/head
{
    status=0
    "$cria" train "$config" "run.dir=$run" run.steps=$steps 2>"$work/err" || status=$?
    echo $status >"$work/status"
} | head -n 1 >"$work/out"
status=$(cat "$work/status")
went_on 'cria train | head'
expect 'cria train | head: stderr' "$(sed 's/:.*goes on without/: ... goes on without/' "$work/err" | cut -c -50)" \
    'cria: ... goes on without the lines that cannot be'

run=$work/closed status=0
"$cria" train "$config" "run.dir=$run" run.steps=$steps >&- 2>"$work/err" </dev/null || status=$?
went_on 'training without stdout'

# ---- libraries ---------------------------------------------------------------------------------

# Without /sys, as in a plain chroot, UCX and hwloc complain while MPI starts.
if unshare -m sh -c 'mount -t tmpfs tmpfs /sys' 2>/dev/null; then
    # shellcheck disable=SC2016
    run unshare -m sh -c 'mount -t tmpfs tmpfs /sys && exec "$@"' sh \
        mpirun -n 2 "$cria" bench step "$config" steps=1 --json
    expect_status 'bench step without /sys' 0
    cp "$work/out" "$work/json"
    run python3 -c 'import json, sys; [json.loads(line) for line in open(sys.argv[1])]' "$work/json"
    expect_status 'its output is JSON' 0
else
    echo 'no file system can be mounted here: a machine without /sys is not tried'
fi
