#!/bin/sh
# cp8.sh [-n RANKS] [-t SECONDS] [-d TOKENS.bin] [-r RING.py] [-q] [-c] OUT: what context parallelism gives
# on the GPUs of one host, in less than 9 minutes on eight of them. In parts:
#
#   check   gpu_comm and gpu_cp on all ranks                                             OUT/check.txt
#   cp      cria bench cp: every runtime, 1k to 64k tokens a rank, causal and documents  OUT/cp.jsonl
#   step    cria bench step of the example 1B: dp; ring and magi, micro-batch 1 and 8    OUT/step.jsonl
#   loss    100 steps on TOKENS.bin (nanoGPT's format, GPT-2 ids): ring and magi         OUT/loss/
#   torch   RING.py under torchrun, such as PyTorch's context_parallel                   OUT/torch.txt
#
# and OUT/summary.md, beside MagiAttention's published figures. Each part may use the time until its share
# of SECONDS (-t, 520) ends, so that what one leaves is for those behind it and none takes theirs; jobs
# that are over their time are killed, those that find none left are not begun. All ranks are one group.
# -n: RANKS, else as many as there are GPUs. -q: a rehearsal, some jobs of each part, shortened. -c: on the CPU,
# tiny. What ran is that of build/, or of a bundle whose env.sh was sourced. Exit status 1 when not all
# that was asked for is there.
# shellcheck disable=SC2317 # functions are called through job
set -u
usage() {
    echo 'usage: cp8.sh [-n RANKS] [-t SECONDS] [-d TOKENS.bin] [-r RING.py] [-q] [-c] OUT' >&2
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
CDPATH='' cd -- "$(dirname -- "$0")/../.." || exit 3
. scripts/env.sh
build=${BUILD:-build}
command -v cria >/dev/null || PATH="$(realpath "$build"):$(realpath "$build/tests"):$PATH"
command -v cria >/dev/null || fail 'cria is not built: make all gpu-tests'
mpiexec=$(command -v mpiexec || command -v mpirun) || fail 'there is no mpiexec'
[ -n "$n" ] || n=$(nvidia-smi -L | wc -l)
[ "$n" -ge 1 ] 2>/dev/null || usage
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > n ? cores / n : 1))}"

work=$(mktemp -d) start=$(date +%s)
trap 'rm -rf "$work"' EXIT
trap 'reap; exit 130' INT TERM
rm -rf "$out/check.txt" "$out/cp.jsonl" "$out/step.jsonl" "$out/loss" "$out/torch.txt" "$out/summary.md" "$out/log.txt"
incomplete=0
: >"$work/jobs"
: >"$work/pids"

# ---- jobs ------------------------------------------------------------------------------------------

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
on_ranks() {
    limit=$1
    shift
    # shellcheck disable=SC2016 # expanded by the ranks' shell
    within "$limit" "$mpiexec" -n "$n" sh -c 'echo $$ >>"$0" && exec "$@"' "$work/pids" "$@"
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

# ---- parts -----------------------------------------------------------------------------------------

config=configs/llama-1b-example.yaml steps=100 lists=8 k=k
if [ $device = cpu ]; then
    config=tests/e2e/micro.yaml k=00
fi
[ -z "$quick" ] || steps=10 lists=1

part check $((${quick:-0} ? 25 : 10))
if [ $device = cpu ]; then
    job mpi_comm on_ranks 60 mpi_comm >>"$out/check.txt"
else
    job gpu_comm on_ranks 60 gpu_comm >>"$out/check.txt"
    job gpu_cp on_ranks 60 gpu_cp $lists >>"$out/check.txt"
fi

# attention LIMIT D HEADS TOKENS MASKS [SETTING...]: TOKENS a rank, in thousands (hundreds on the CPU)
attention() {
    limit=$1 D=$2 heads=$3 masks=$5 S=''
    for thousands in $4; do S=$S,$((thousands * n))$k; done
    shift 5
    [ $device = cuda ] || heads=$((2 * n))/$n D=$((D / 8))
    job "D=$D, $heads, S=${S#,}, $masks${*:+, $*}" on_ranks "$limit" cria bench cp "D=$D" "heads=$heads" "S=${S#,}" \
        "mask=$masks" "device=$device" --json "$@" >>"$out/cp.jsonl"
}
part cp 60
attention 60 128 64/8 8 causal,document # what is published
if [ -n "$quick" ]; then
    attention 30 64 32/8 '1 4' causal,document
else
    attention 40 64 32/8 '1 4' causal,document
    attention 40 128 24/8 '1 4' causal,document
    attention 40 128 64/8 '1 4' causal,document
    attention 40 64 32/8 16 causal,document
    attention 40 128 24/8 16 causal,document
    attention 60 128 64/8 16 causal,document
    attention 40 64 32/8 64 document
    attention 40 128 24/8 64 document
    attention 40 128 64/8 64 document
    # one call on one device takes up to half a minute
    attention 60 64 32/8 64 causal alone=no
    attention 60 128 24/8 64 causal alone=no backend=ring,magi
fi

# train_step NAME CP BACKEND MICRO [SETTING...]: all of a global batch of 16
train_step() {
    name=$1 cp=$2 backend=$3 micro=$4
    shift 4
    micro_steps=$((16 * cp / n / micro))
    [ $micro_steps -ge 1 ] || micro_steps=1
    job "$name" on_ranks 45 cria bench step $config "parallel.cp=$cp" "parallel.backend=$backend" "batch.micro=$micro" \
        "micro_steps=$micro_steps" "$@" --json >"$work/step"
    sed "s|^{|{\"what\":\"$name\",|" "$work/step" >>"$out/step.jsonl"
}
part step 78
few=${quick:+steps=1}
train_step "dp $n, micro-batch 1" 1 none 1 ${few:+"$few"}
train_step "cp $n magi, micro-batch 8" "$n" magi 8 ${few:+"$few"}
if [ -z "$quick" ]; then
    train_step "cp $n ring, micro-batch 8" "$n" ring 8
    train_step "cp $n magi, micro-batch 1" "$n" magi 1 steps=3
    train_step "cp $n ring, micro-batch 1" "$n" ring 1 steps=3
    train_step "cp $n magi, micro-batch 8, documents" "$n" magi 8 data.mask=document
    train_step "cp $n ring, micro-batch 8, documents" "$n" ring 8 data.mask=document
fi

# Ends the run when it has its steps: a regular end would write a checkpoint of 15 GB.
train_curve() { # RUN BACKEND
    folder=$out/loss/$1 backend=$2
    shift 2
    [ "$device" = cpu ] || set -- "data.val=$tokens" data.format=nanogpt data.eod=50256 data.split= data.order=cria \
        batch.micro=8
    on_ranks 60 cria train "$config" "device=$device" "run.dir=$folder" run.steps=100000 run.log_every=1 \
        run.eval_every=0 run.save_every=0 "parallel.cp=$n" "parallel.backend=$backend" "data.train=$tokens" "$@" \
        >>"$out/log.txt" &
    trained=$! have=0
    while [ "${have:-0}" -lt "$steps" ] && kill -0 "$trained" 2>/dev/null; do
        sleep 0.2
        have=$(grep -cs '"kind":"step"' "$folder/log.jsonl")
    done
    reap
    ended=0
    wait "$trained" || ended=$?
    [ "${have:-0}" -ge "$steps" ] || return "$ended"
}
part loss 94
if [ -z "$tokens" ]; then
    note 'curves' 'no tokens (-d)' 0
else
    for backend in ring magi; do
        job "cp $n $backend, $steps steps" train_curve "$backend-cp$n" $backend
    done
    job 'picture' scripts/compare_loss.py $config --no-run --cp "$n" --backends ring,magi --steps $steps \
        --out "$out/loss" >>"$out/log.txt" 2>&1
fi

part torch 100
if [ -z "$ring" ]; then
    note 'ring' 'no script (-r)' 0
else
    # shellcheck disable=SC2016 # expanded by the ranks' shell
    job 'ring' within 120 torchrun --nproc_per_node "$n" --no-python sh -c 'echo $$ >>"$0" && exec "$@"' \
        "$work/pids" python3 "$ring" >>"$out/torch.txt"
fi

# ---- the summary -----------------------------------------------------------------------------------

cat >"$work/summary.py" <<'END'
import json, pathlib, statistics, sys

out, jobs, title, n, config = pathlib.Path(sys.argv[1]), *sys.argv[2:6]
BACKENDS = ("ring", "magi", "allgather", "ulysses")
# TFLOP/s per GPU, forward and backward, 64k tokens on 8 H100s, 64/8 heads, D=128: MagiAttention's
# benchmark pages, read off their charts (within 1). Its documents have other lengths.
PUBLISHED = {"causal": ("421/432", "645/529", "602/516", "602/582"),
             "document": ("89/97", "459/360", "288/179", "278/332")}


def lines(path):
    """The objects in a file; what was being written when its job was killed is none."""
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            yield json.loads(line)
        except ValueError:
            pass


def table(head, rows):
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |")
    print()


def number(value, form=".0f", factor=1):
    return None if value is None else format(value * factor, form)


def attention():
    found, notes = {}, {}
    for r in lines(out / "cp.jsonl"):
        key = int(r["tokens"]), r["D"], r["heads"], r["mask"]
        cell = None if r["fwd_ms"] is None else f"{r['fwd_tflops_gpu']:.3g}/{r['bwd_tflops_gpu']:.3g}"
        found.setdefault(key, {})[r["backend"]] = cell or r["note"]
        if r["backend"] == "magi" and cell:
            notes[key] = f"{r['fwd_exposed_ms'] / r['fwd_ms']:.0%}, {r['bwd_exposed_ms'] / r['bwd_ms']:.0%}"
    print("## Attention of one layer, TFLOP/s per GPU over allowed pairs, forward/backward\n")
    rows = []
    for key in sorted(found, key=lambda k: (k[1], k[2], k[3], k[0])):
        tokens, D, heads, mask = key
        rows.append((f"{mask}, {heads} heads, D={D:.0f}", f"{tokens:,}", found[key].get("none"),
                     *(found[key].get(b) for b in BACKENDS), notes.get(key)))
    for mask, cells in PUBLISHED.items():
        rows.append((f"published, 8 H100: {mask}, 64/8 heads, D=128", "65,536", None, *cells, None))
    table(("mask, heads", "tokens", "one GPU", *BACKENDS, "magi: exposed"), rows)


def steps():
    rows = list(lines(out / "step.jsonl"))
    base = rows[0]["tok_s"] if rows and rows[0]["cp"] == 1 else None
    print(f"## Training, {config}, global batch 16\n")
    table(("", "tok/s", "per GPU", "of dp", "MFU", "GiB", "exposed transfers"),
          [(r["what"], number(r["tok_s"], ",.0f"), number(r["tok_s_gpu"], ",.0f"),
            number(base and r["tok_s"] / base, ".0%"), number(r["mfu"], ".1%"), number(r["mem_gib"], ".1f"),
            number(r["phases"]["comm_exposed"] / r["metered_ms"], ".1%")) for r in rows])


def curves():
    print("## Loss curves on real text\n")
    losses, rows = {}, []
    for backend in ("ring", "magi"):
        records = [r for r in lines(out / "loss" / f"{backend}-cp{n}" / "log.jsonl") if r["kind"] == "step"]
        losses[backend] = {r["step"]: r["loss"] for r in records}
        if records:
            rows.append((backend, records[-1]["step"], f"{records[0]['loss']:.4f}",
                         f"{records[-1]['loss']:.4f}", f"{statistics.median(r['tok_s'] for r in records):,.0f}"))
    table(("", "steps", "first loss", "last loss", "tok/s"), rows)
    common = sorted(losses["ring"].keys() & losses["magi"].keys())
    if common:
        worst = max(abs(losses["ring"][s] - losses["magi"][s]) for s in common)
        half = max(abs(losses["ring"][s] - losses["magi"][s]) for s in common[:(len(common) + 1) // 2])
        print(f"Ring and magi differ by at most {worst:.1e} over {len(common)} steps, {half:.1e} over the first half.\n")


print(f"# {title}\n")
attention()
steps()
curves()
text = out / "torch.txt"
if text.is_file():
    print("## PyTorch\n")
    print("".join(f"    {line}\n" for line in text.read_text().splitlines()))
print("## Jobs\n")
table(("part", "job", "result", "seconds"), [line.strip("| ").split(" | ") for line in open(jobs).read().splitlines()])
END
gpu=$device
[ $device = cpu ] || gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
python3 "$work/summary.py" "$out" "$work/jobs" "Context parallelism on $n x $gpu, $(date -u +%Y-%m-%d), $(cria version |
    head -n 1), $(($(date +%s) - start)) s" "$n" "$config" >"$out/summary.md" || fail 'the summary could not be made'
cat "$out/summary.md"
exit $incomplete
