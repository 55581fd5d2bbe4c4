# lib.sh: sourced by the tests of the whole program. A test runs cria on micro.yaml in a folder of its
# own and compares what it finds with what it expects; after a difference it goes on, and ends with
# exit status 1. BUILD names the folder of the build.
# shellcheck shell=sh disable=SC2034 # variables are used where this is sourced
set -u
CDPATH='' cd -- "$(dirname -- "$0")/../.." || exit 3
# Open MPI's mpirun takes twice this time to end a job in which a rank has failed (scripts/env.sh).
export OMPI_MCA_odls_base_sigkill_timeout="${OMPI_MCA_odls_base_sigkill_timeout:-0}"
export OMPI_MCA_orte_execute_quiet=1 # Open MPI's mpirun does not tell again what cria has told
. scripts/env.sh
cria=${BUILD:-build}/cria
config=tests/e2e/micro.yaml
[ -x "$cria" ] || fail "$cria is not there: run make first"
export OMP_NUM_THREADS=1 # many ranks on few cores

work=$(mktemp -d "${TMPDIR:-/tmp}/cria-e2e.XXXXXX") || exit 3
checks=0 failures=0 job='' mounted=''
finish() {
    result=$?
    [ -z "$job" ] || kill_ranks KILL
    [ -z "$mounted" ] || umount "$mounted"
    rm -rf "$work"
    [ $result != 77 ] || exit 77 # skipped
    echo "$checks checks, $failures failed"
    [ $result != 0 ] || [ $failures != 0 ] || [ $checks = 0 ] || exit 0
    exit 1
}
trap finish EXIT
trap 'exit 130' INT TERM

# ---- running -------------------------------------------------------------------------------------

# train RANKS RUN [ARGUMENT...]: with run.dir=$work/RUN, to its end. Sets status; the output is in
# $work/out and $work/err.
train() {
    start "$@"
    ended
}

# start RANKS RUN [ARGUMENT...]: the same in the background: mpirun's process id is in job, those of the
# ranks are in $work/pids. hosts: further arguments of mpirun.
start() {
    rm -f "$work/pids"
    ranks=$1 run=$work/$2
    shift 2
    # shellcheck disable=SC2016 # expanded by the ranks' shell
    # shellcheck disable=SC2086 # words
    mpirun ${hosts:-} -n "$ranks" sh -c 'echo $$ >>"$0" && exec "$@"' "$work/pids" \
        "$cria" train "$config" "run.dir=$run" "$@" >"$work/out" 2>"$work/err" </dev/null &
    job=$!
}
ended() {
    status=0
    wait "$job" 2>/dev/null || status=$?
    job=''
    drop_oversubscribed
}
# run COMMAND...: any other command
run() {
    status=0
    "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
    drop_oversubscribed
}
# The warning that depends on the cores of the machine; it is left in $work/oversubscribed.
drop_oversubscribed() {
    crowded='^cria: warning.*: oversubscribed: '
    grep "$crowded" "$work/err" >"$work/oversubscribed" || return 0
    sed -i "/$crowded/d" "$work/err"
}

# with_faults RULES COMMAND...: with the library of tests/e2e/faults.c, which explains the rules, preloaded.
# COMMAND may be a function of this file, such as train.
with_faults() {
    if [ ! -e "$work/faults.so" ]; then
        mpicc -D_GNU_SOURCE -shared -fPIC -Wall -Wextra -o "$work/faults.so" tests/e2e/faults.c -ldl || exit 3
    fi
    export LD_PRELOAD="$work/faults.so" FAULTS="$1" # kept out of this shell: it opens files, too
    export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0"
    shift
    "$@"
    unset LD_PRELOAD FAULTS
}

is_open_mpi() { mpirun --version 2>&1 | grep -q 'Open MPI'; }
# stop_mpirun: asks the job that runs to save and to stop, through mpirun. Open MPI's passes SIGUSR2 on; after
# SIGTERM it kills the ranks and returns 1.
stop_mpirun() { if is_open_mpi; then kill -USR2 "$job"; else kill -TERM "$job"; fi; }
rank_pid() { sed -n "$(($1 + 1))p" "$work/pids"; } # in order of starting, which is any
kill_ranks() {
    # shellcheck disable=SC2046 # a list of process ids
    kill "-$1" $(cat "$work/pids") 2>/dev/null || true
}

# wait_for COMMAND...: until it succeeds. A failure after 300 seconds, or 60 after the end of the job that
# was started: far more than it takes, so that it only ends a hang.
wait_for() {
    left=6000
    until "$@"; do
        left=$((left - 1))
        [ $left -lt 1200 ] || ! job_ended || left=1200
        [ $left -gt 0 ] || { problem "waited too long for: $*"; return 1; }
        sleep 0.05
    done
}
job_ended() {
    [ -n "$job" ] || return
    [ ! -e "/proc/$job" ] || grep -qs '^State:[[:space:]]*Z' "/proc/$job/status"
}
# steps_done N: the job has logged N steps or more
steps_done() { [ "$(steps_logged)" -ge "$1" ]; }
steps_logged() { grep -c '"kind":"step"' "$run/log.jsonl" 2>/dev/null || [ -e "$run/log.jsonl" ] || echo 0; }

# run_ended: the run's folder is no longer locked by a process, such as one whose mpirun was killed
run_ended() { flock -n "$run/.lock" true; }
newest() { find "$run" -name 'step_*.safetensors' | sort | tail -n 1; } # checkpoint of the last run
newest_step() { newest | sed 's/.*step_0*\([0-9]*\)\.safetensors/\1/'; }

# ---- reading -------------------------------------------------------------------------------------

# Those for several ranks.
backends() { "$cria" config parallel.backend | sed -n 's/.*one of none, \([a-z, ]*\);.*/\1/p' | tr -d ,; }

# A line for each step of a log: step, then the values of the keys. Where a step was run twice the
# later line counts.
logged() { # RUN KEY...
    log=$work/$1/log.jsonl
    shift
    awk -v keys="$*" '
        BEGIN { n = split(keys, key, " ") }
        /^{"kind":"step"/ && match($0, /"step":[0-9]+/) {
            step = substr($0, RSTART + 7, RLENGTH - 7)
            line[step] = step
            for (i = 1; i <= n; i++) {
                at = index($0, "\"" key[i] "\":")
                value = substr($0, at + length(key[i]) + 3)
                sub(/[,}].*/, "", value)
                line[step] = line[step] " " (at ? value : "missing")
            }
        }
        END { for (step in line) print line[step] }' "$log" | sort -n
}
curve() { logged "$1" loss grad_norm >"$work/$2"; } # RUN FILE

# Of all weights and moments: the bytes behind the header, which starts with its length.
tensors() { # RUN STEP
    file=$(printf '%s/%s/step_%08d.safetensors' "$work" "$1" "$2")
    header=$(od -An -t u8 -N 8 "$file") || return
    tail -c "+$((header + 9))" "$file" | cksum
}

# ---- judging -------------------------------------------------------------------------------------

problem() {
    failures=$((failures + 1))
    echo "FAIL: $*"
}
# What the last command printed, to understand a failure.
show_output() {
    for stream in out err; do
        [ ! -s "$work/$stream" ] || tail -n 12 "$work/$stream" | sed "s/^/      $stream: /"
    done
}

expect() { # WHAT FOUND EXPECTED
    checks=$((checks + 1))
    [ "$2" = "$3" ] && return
    problem "$1: found '$2', expected '$3'"
}

# expect_status WHAT N: of the last command
expect_status() {
    before=$failures
    expect "$1: exit status" "$status" "$2"
    [ $failures = "$before" ] || show_output
}

# expect_same WHAT FILE FILE: two texts that are not empty
expect_same() {
    checks=$((checks + 1))
    [ -s "$work/$2" ] || problem "$1: $2 is empty"
    diff "$work/$2" "$work/$3" >"$work/diff" && return
    problem "$1: found (<) is not what is expected (>):"
    head -n 10 "$work/diff"
}

# expect_close WHAT FOUND EXPECTED ROWS [TOLERANCE]: two curves of that many steps, relative
expect_close() {
    checks=$((checks + 1))
    message=$(awk -v rows="$4" -v tolerance="${5:-1e-5}" '
        NR == FNR { for (i = 2; i <= NF; i++) expected[$1, i] = $i; next }
        {
            n++
            for (i = 2; i <= NF; i++) {
                e = expected[$1, i]
                d = $i - e
                if (d < 0) d = -d
                # not "d > ...": whatever is not a number fails, too
                if (!($i ~ /^[0-9.e+-]+$/ && e > 0 && d <= tolerance * e) && !shown++)
                    printf "step %s: found %s, expected %s within %g", $1, $0, e, tolerance
            }
        }
        END { if (n != rows) printf "found %d steps, expected %d", n, rows }' "$work/$3" "$work/$2")
    [ -z "$message" ] || problem "$1: $message"
}

# expect_error WHAT STATUS TEXT: the last command ended with this status and one sentence, beside what
# warnings there are, that holds TEXT
expect_error() {
    before=$failures
    expect "$1: exit status" "$status" "$2"
    expect "$1: 'cria: error: ...$3...' on stderr" "$(grep -c '^cria: error' "$work/err") $(
        grep '^cria: error: ' "$work/err" | grep -cF -- "$3")" '1 1'
    [ $failures = "$before" ] || show_output
}

# expect_warning WHAT PATTERN: the last command printed one warning that matches
expect_warning() { expect "$1: warning '$2'" "$(grep '^cria: warning' "$work/err" | grep -cE -- "$2")" 1; }

# expect_refused WHAT STATUS TEXT: the last command ended with this status and one sentence on stderr,
# printed once, that holds TEXT
expect_refused() {
    before=$failures
    expect "$1: exit status" "$status" "$2"
    expect "$1: lines on stderr" "$(grep -c '' "$work/err")" 1
    expect "$1: 'cria: error: ...$3...' on stderr" \
        "$(grep '^cria: error: ' "$work/err" | grep -cF -- "$3")" 1
    [ $failures = "$before" ] || show_output
}
