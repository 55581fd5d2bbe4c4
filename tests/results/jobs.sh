# jobs.sh: sourced by the scripts here that measure the GPUs of a host in one call.
# shellcheck shell=sh disable=SC2034,SC2317 # used by those scripts; functions are called through job
#
# A script has options -n RANKS, -t SECONDS, -d TOKENS.bin, -r RING.py, -q, -c and one argument, OUT. It is made of
# parts, and these of jobs. Each part may use the time until its share of SECONDS ends, so that what one leaves
# is for those behind it and none takes theirs; jobs that are over their time are killed, those that find none
# left are not begun. summary writes OUT/summary.md. What runs is that of build/, or of a bundle whose env.sh
# was sourced.
usage() {
    echo "usage: ${0##*/} [-n RANKS] [-t SECONDS] [-d TOKENS.bin] [-r RING.py] [-q] [-c] OUT" >&2
    exit 2
}
n='' seconds=520 tokens='' ring='' quick='' device=cuda
while getopts n:t:d:r:qc option; do
    case $option in
        n) n=$OPTARG ;;
        t) seconds=$OPTARG ;;
        d) tokens=$(realpath -- "$OPTARG") ;;
        r) ring=$(realpath -- "$OPTARG") ;;
        q) quick=1 ;;
        c) device=cpu ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# = 1 ] || usage
mkdir -p -- "$1" && out=$(CDPATH='' cd -- "$1" && pwd) || exit 3
shift
CDPATH='' cd -- "$(dirname -- "$0")/../.." || exit 3
. scripts/env.sh
build=${BUILD:-build}
command -v cria >/dev/null || PATH="$(realpath "$build"):$(realpath "$build/tests"):$PATH"
command -v cria >/dev/null || fail 'cria is not built: make all gpu-tests'
mpiexec=$(command -v mpiexec || command -v mpirun) || fail 'there is no mpiexec'
[ -n "$n" ] || n=$(nvidia-smi -L | wc -l)
[ "$n" -ge 1 ] 2>/dev/null || usage
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > n ? cores / n : 1))}"
# The model of the steps, and the unit of the lengths of attention.
config=configs/llama-1b-example.yaml k=k few=${quick:+steps=1}
if [ $device = cpu ]; then config=tests/e2e/micro.yaml k=00; fi

work=$(mktemp -d) start=$(date +%s)
trap 'rm -rf "$work"' EXIT
trap 'reap; exit 130' INT TERM
rm -rf "$out/check.txt" "$out/cp.jsonl" "$out/step.jsonl" "$out/loss" "$out/torch.txt" "$out/summary.md" "$out/log.txt"
incomplete=0 hosts=''
: >"$work/jobs"
: >"$work/pids"

# part NAME PERCENT: may use the time until that share of all ends
part() {
    part=$1 part_end=$((start + seconds * $2 / 100))
    echo "== $part, until $((part_end - start)) s"
}
left() { echo $((part_end - $(date +%s))); }

# note JOB RESULT SECONDS
note() {
    echo "| $part | $1 | $2 | $3 |" >>"$work/jobs"
    echo "$part: $1: $2 ($3 s)"
    case $2 in '**'*) incomplete=1 ;; esac
}

# Kills what may be left of the ranks, and waits: their memory is needed.
reap() {
    while read -r pid; do kill -KILL "$pid" 2>/dev/null; done <"$work/pids"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        alive=''
        while read -r pid; do
            [ ! -e "/proc/$pid" ] || grep -qs '^State:[[:space:]]*Z' "/proc/$pid/status" || alive=1
        done <"$work/pids"
        [ -n "$alive" ] || break
        sleep 0.5
    done
    : >"$work/pids"
}

# within LIMIT COMMAND...: killed after LIMIT seconds, or when the part's time is over
within() {
    limit=$1
    [ "$limit" -lt "$(left)" ] || limit=$(left)
    shift
    timeout -s KILL "$limit" "$@" 2>>"$out/log.txt" </dev/null
}
# on_ranks LIMIT COMMAND...: within LIMIT, on all ranks, each started by $hosts where that is set
on_ranks() {
    limit=$1
    shift
    # shellcheck disable=SC2016,SC2086 # expanded by the ranks' shell; words
    within "$limit" "$mpiexec" -n "$n" sh -c 'echo $$ >>"$0" && exec "$@"' "$work/pids" $hosts "$@"
}

# job NAME COMMAND...: with its result in the table; its output goes where this one's goes
job() {
    name=$1 begin=$(date +%s)
    shift
    if [ "$(left)" -lt 3 ]; then
        note "$name" '**no time left**' 0 >&2
        return
    fi
    echo "== $part: $name" >>"$out/log.txt"
    status=0
    "$@" || status=$?
    [ $status = 0 ] || reap
    : >"$work/pids"
    case $status in
        0) result=ok ;;
        124 | 137) result='**over its time**' ;;
        *) result="**failed ($status)**" ;;
    esac
    note "$name" "$result" $(($(date +%s) - begin)) >&2
}

# attention LIMIT D HEADS TOKENS MASKS [SETTING...]: TOKENS a rank, in thousands (hundreds on the CPU)
attention() {
    limit=$1 D=$2 heads=$3 masks=$5 S=''
    for thousands in $4; do S=$S,$((thousands * n))$k; done
    shift 5
    [ $device = cuda ] || heads=$((2 * n))/$n D=$((D / 8))
    job "D=$D, $heads, S=${S#,}, $masks${*:+, $*}" on_ranks "$limit" cria bench cp "D=$D" "heads=$heads" "S=${S#,}" \
        "mask=$masks" "device=$device" --json "$@" >>"$out/cp.jsonl"
}
# train_step NAME CP BACKEND MICRO [SETTING...]: at most 16 sequences a step
train_step() {
    name=$1 cp=$2 backend=$3 micro=$4
    shift 4
    micro_steps=$((16 * cp / n / micro))
    [ $micro_steps -ge 1 ] || micro_steps=1
    job "$name" on_ranks 60 cria bench step "$config" "parallel.cp=$cp" "parallel.backend=$backend" "batch.micro=$micro" \
        "micro_steps=$micro_steps" "$@" --json >"$work/step"
    sed "s|^{|{\"what\":\"$name\",\"config\":\"$config\",|" "$work/step" >>"$out/step.jsonl"
}

# train_curve RUN STEPS [SETTING...]: ends the run when it has its steps, as a regular end would write a checkpoint
train_curve() {
    folder=$out/loss/$1 wanted=$2
    shift 2
    on_ranks 60 cria train "$config" "device=$device" "run.dir=$folder" run.steps=100000 run.log_every=1 \
        run.eval_every=0 run.save_every=0 "data.train=$tokens" "$@" >>"$out/log.txt" &
    trained=$! have=0
    while [ "${have:-0}" -lt "$wanted" ] && kill -0 "$trained" 2>/dev/null; do
        sleep 0.2
        have=$(grep -cs '"kind":"step"' "$folder/log.jsonl")
    done
    reap
    ended=0
    wait "$trained" || ended=$?
    [ "${have:-0}" -ge "$wanted" ] || return "$ended"
}

# PyTorch's context_parallel, or what RING.py measures
torch_ring() {
    if [ -z "$ring" ]; then
        note 'ring' 'no script (-r)' 0
    else
        # shellcheck disable=SC2016 # expanded by the ranks' shell
        job 'ring' within 120 torchrun --nproc_per_node "$n" --no-python sh -c 'echo $$ >>"$0" && exec "$@"' \
            "$work/pids" python3 "$ring" >>"$out/torch.txt"
    fi
}

# summary [NAME=LOG.jsonl...]: with the losses of other runs beside
summary() {
    gpu=$device
    [ $device = cpu ] || gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
    python3 tests/results/summary.py "$out" "$work/jobs" "Context parallelism on $n x $gpu, $(date -u +%Y-%m-%d), $(cria version |
        head -n 1), $(($(date +%s) - start)) s" "$@" >"$out/summary.md" || fail 'the summary could not be made'
    cat "$out/summary.md"
}
