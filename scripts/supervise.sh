#!/bin/sh
# supervise.sh [OPTION...] COMMAND...: runs a training command again and again
# until it is done.
#
#   scripts/supervise.sh -d runs/llama-1b \
#       mpirun -n 8 build/cria train configs/llama-1b.yaml
#
# It adds --resume auto to the command, and goes by its exit status:
#   0       all steps are done: ends with 0. With -d only if the last checkpoint
#           is there: some MPIs lose the status of a rank that was killed
#   2       a mistake in the input, which another start would only repeat: ends
#           with 2
#   4       stopped and saved, as by run.time_limit_minutes: starts again at once,
#           or with -s ends with 4
#   others  the environment failed (3), a rank was killed: starts again after a
#           pause that doubles with each failure in a row; after too many of them
#           ends with 3
#
#   -d DIR      the run's run.dir: a new checkpoint there begins the count of
#               failures anew, and that of the last step is the end
#   -n FAILURES in a row after which it gives up (5)
#   -w SECONDS  the first pause (10); none is longer than 600
#   -s          ends with 4 when the command was stopped, for batch systems that
#               start the job again
#
# SIGTERM and SIGINT go to the command as SIGTERM, which saves and stops, and it
# ends with the status of that. Open MPI's mpirun kills the ranks two seconds
# after SIGTERM: it gets SIGUSR2 instead, on which cria saves and stops as well.
# SIGUSR1 goes to the command as it is, which saves and goes on. After SIGUSR2,
# which does not go to it, it is not started again.
set -u

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
usage() {
    say "$*; --help lists the options"
    exit 2
}
is_count() { case $1 in '' | *[!0-9]*) return 1 ;; esac; }

dir='' most=5 first_pause=10 ends_when_stopped=''
case ${1-} in
    -h | --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    --?*) usage "unknown option $1" ;;
esac
while getopts :d:n:w:s option; do
    case $option in
        d) dir=$OPTARG ;;
        n) most=$OPTARG ;;
        w) first_pause=$OPTARG ;;
        s) ends_when_stopped=1 ;;
        :) usage "-$OPTARG needs a value" ;;
        *) usage "unknown option -$OPTARG" ;;
    esac
done
shift $((OPTIND - 1))
[ $# != 0 ] || usage 'which command?'
for count in "$most" "$first_pause"; do
    is_count "$count" || usage "found '$count', expected a number"
done

# A checkpoint to start from belongs into run.dir: named here it would be taken again at each start.
resumes='' previous=''
for argument; do
    case "$previous $argument" in
        *' --resume') ;;
        '--resume auto' | *' --resume=auto') resumes=1 ;;
        '--resume '* | *' --resume='*) usage '--resume auto only: put the checkpoint into run.dir' ;;
    esac
    previous=$argument
done
[ -n "$resumes" ] || set -- "$@" --resume auto

newest() {
    last=''
    for file in "$dir"/step_*.safetensors; do [ ! -e "$file" ] || last=$file; done
    echo "$last"
}

# Sets missing to what a run that has ended with status 0 lacks of its end. MPICH 4.2's mpirun ends with 0 at
# times when a rank was killed.
look_for_end() {
    missing=''
    steps=$(sed -n 's/^  steps: \([0-9]*\)$/\1/p' "$dir/config.yaml" 2>/dev/null | head -n 1)
    saved=$(newest | sed 's/.*step_0*\([0-9]*\)\.safetensors$/\1/')
    [ "${saved:-0}" -ge "${steps:-0}" ] || missing="the newest checkpoint is of step ${saved:-0} of $steps"
}

# ---- signals ---------------------------------------------------------------------------------------

stop_signal=TERM
case ${1##*/} in
    mpirun* | mpiexec*) ! "$1" --version 2>/dev/null | grep -q 'Open MPI\|OpenRTE\|PRRTE' || stop_signal=USR2 ;;
esac
child='' stopping='' pausing=''
# shellcheck disable=SC2317 # called by the traps
pass_on() { [ -z "$child" ] || kill "-$1" "$child" 2>/dev/null || true; }
trap 'stopping=1; pass_on $stop_signal' TERM INT
trap '[ -n "$pausing" ] || pass_on USR1' USR1
trap 'stopping=1; [ -z "$pausing" ] || pass_on $stop_signal' USR2

# start COMMAND...: runs it to its end, however many signals come meanwhile. Sets status.
start() {
    "$@" &
    child=$!
    [ -z "$stopping" ] || pass_on $stop_signal
    while :; do
        status=0
        wait "$child" 2>/dev/null || status=$?
        kill -0 "$child" 2>/dev/null || break
    done
    if [ "$status" -gt 128 ]; then # of the command, or of a signal that came as it ended
        again=0
        wait "$child" 2>/dev/null || again=$?
        [ "$again" = 127 ] || status=$again
    fi
    child=''
}

# ---- until it is done ------------------------------------------------------------------------------

failures=0 pause=$first_pause
while :; do
    before=$([ -z "$dir" ] || newest)
    start "$@"
    if [ "$status" = 0 ] && [ -n "$dir" ]; then
        look_for_end
        [ -z "$missing" ] || { say "exit status 0, but $missing: taken for 3" && status=3; }
    fi
    case $status in
        0 | 2) break ;;
        126 | 127) say "$1 cannot be run"; status=2; break ;;
    esac
    [ -z "$stopping" ] || break
    if [ -n "$dir" ] && [ "$(newest)" != "$before" ]; then failures=0 pause=$first_pause; fi
    if [ "$status" = 4 ]; then
        [ -z "$ends_when_stopped" ] || break
        say 'stopped and saved; starting again'
        continue
    fi
    failures=$((failures + 1))
    if [ $failures -gt "$most" ]; then
        say "exit status $status, the last of $failures failures in a row: giving up"
        status=3
        break
    fi
    say "exit status $status, failure $failures of $most; starting again in $pause s"
    pausing=1
    start sleep "$pause"
    pausing='' status=3
    [ -z "$stopping" ] || break
    pause=$((pause * 2 < 600 ? pause * 2 : 600))
done
exit "$status"
