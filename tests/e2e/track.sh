#!/bin/sh
# scripts/track.py with stand-ins for the packages wandb and mlflow: every record arrives once with its numbers,
# also when the script or the run is killed and started again; it ends with the run.
. tests/e2e/lib.sh

mkdir "$work/modules"
cat >"$work/modules/wandb.py" <<'PY'
import json, os
def write(*words):
    with open(os.environ["SENT"], "a") as out:
        out.write(json.dumps(words) + "\n")
class Html(str):
    pass
class Run:
    def define_metric(self, name, step_metric=None):
        pass
    def log(self, values):
        if values["step"] == int(os.environ.get("FAIL_AT", 0)):
            raise RuntimeError("the server is away\nwith a second line")
        write("log", values)
    def finish(self):
        write("finish")
def init(project, id, name, dir, resume, config):
    write("init", project, id, name, resume, config["run"]["steps"])
    return Run()
PY
cat >"$work/modules/mlflow.py" <<'PY'
import types
from wandb import write
def set_experiment(name):
    write("experiment", name)
def start_run(run_id=None, run_name=None):
    write("start", run_id, run_name)
    return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id or "new"))
def log_params(values):
    assert len(values) <= 100
    write("params", values)
def log_metrics(values, step):
    write("log", {"step": step, **values})
def log_text(text, path):
    write("text", path, text)
def end_run():
    write("finish")
PY
export PYTHONPATH="$work/modules" PYTHONDONTWRITEBYTECODE=1
track() { run env SENT="$work/sent" timeout 60 scripts/track.py "$@"; }
sent() { grep -c "^\[\"$1\"" "$work/sent"; }
steps() { # that were sent, in order
    python3 -c 'import json, sys
print(*[w[1]["step"] for w in map(json.loads, open(sys.argv[1])) if w[0] == "log" and "train/loss" in w[1]])' "$work/sent"
}
refused() { # WHAT STATUS TEXT
    expect_status "$1" "$2"
    expect "$1: '$3' in one line" "$(grep -c '' "$work/err") $(grep -cF -- "$3" "$work/err")" '1 1'
}

train 1 a run.steps=4 run.log_every=1 run.eval_every=2 run.sample_every=0
expect_status 'a run' 0
log=$work/a/log.jsonl
cp "$log" "$work/whole"
echo '{"kind":"eval","step":4,"loss":5.5,"tokens":64,"by_position":[[16,6,32],[32,5,32]],"sets":{"web":{"loss":5.25,"bpb":2}}}' >>"$work/whole"
echo '{"kind":"sample","step":4,"prompt":"a <","text":"b","tokens":1}' >>"$work/whole"

# The log as it grows: its start, half a line more, then all of it.
head -n 3 "$work/whole" >"$log"
printf '{"kind":"step","st' >>"$log"
track "$work/a" --once --project p
expect_status 'the start of a log' 0
expect 'lines of the start' "$(sent log) $(sent finish)" '2 1'
id=$(sed -n 's/.*"run": "\([0-9a-f]*\)".*/\1/p' "$work/a/track-wandb.json")
expect 'how the run was opened' "$(sed -n 1p "$work/sent")" "[\"init\", \"p\", \"$id\", \"a\", \"allow\", 4]"
cp "$work/whole" "$log"
run env FAIL_AT=4 SENT="$work/sent" scripts/track.py "$work/a" --once
refused 'a server that fails' 3 'wandb: RuntimeError: the server is away; the same command goes on'
track "$work/a" --every 0.05
expect_status 'to the end of the run' 0
expect 'starts with the same id' "$(sent init) $(grep -c "\"init\".*$id" "$work/sent")" '3 3'
expect 'steps' "$(steps)" '1 2 3 4'
expect 'a sample is text' "$(grep -c '<p>a &lt;b</p>' "$work/sent")" 1
python3 - "$work" <<'PY' || problem 'numbers that were sent are not those of the log'
import json, sys
records = [json.loads(line) for line in open(sys.argv[1] + "/whole")]
sent = [w[1] for w in map(json.loads, open(sys.argv[1] + "/sent")) if w[0] == "log"]
for prefix, kind, keys in ("train", "step", ("loss", "lr", "tok_s")), ("eval", "eval", ("loss",)), ("save", "save", ("seconds",)):
    expected = [[r["step"], *(r[k] for k in keys)] for r in records if r["kind"] == kind]
    found = [[v["step"], *(v[f"{prefix}/{k}"] for k in keys)] for v in sent if f"{prefix}/{keys[0]}" in v]
    assert expected and expected == found, (kind, expected, found)
assert all("train/comm_bytes/kv" in v for v in sent if "train/loss" in v)
assert [(v["eval/by_position/16"], v["eval/sets/web/loss"], v["eval/sets/web/bpb"]) for v in sent if v.get("eval/loss") == 5.5] == [(6, 5.25, 2)]
PY
lines=$(wc -l <"$work/sent")
track "$work/a"
expect_status 'a run that was sent' 0
expect 'sent of it again' "$(($(wc -l <"$work/sent") - lines))" 2 # init and finish

# Killed while it waits for a run that goes on; two at once.
: >"$work/sent"
head -n 5 "$work/whole" | sed 's/"steps": 4/"steps": 6/' >"$log"
rm "$work/a/track-wandb.json"
SENT="$work/sent" scripts/track.py "$work/a" --every 0.05 >/dev/null 2>&1 &
job=$!
cp /dev/null "$work/pids"
wait_for grep -qs '"offset": [1-9]' "$work/a/track-wandb.json"
track "$work/a"
refused 'two at once' 2 'is followed by another process'
kill -TERM "$job"
ended
expect 'interrupted: exit status' "$status" 4
expect 'interrupted: finished' "$(sent finish)" 1
track "$work/a" --every 0.05 --idle 0.2
expect_status 'a run that says nothing more' 0
expect 'said of it' "$(grep -c 'nothing was logged for 0.2 s' "$work/err")" 1

# MLflow
: >"$work/sent"
cp "$work/whole" "$log"
track "$work/a" --to mlflow --once
expect_status 'mlflow' 0
expect 'mlflow: steps' "$(steps)" '1 2 3 4'
expect 'mlflow: a sample' "$(grep -c '"text", "samples/step_00000004.txt", "a <b"' "$work/sent")" 1
params=$(sent params)
track "$work/a" --to mlflow --once
expect 'mlflow: the same run' "$(grep -c '"start", "new", null' "$work/sent")" 1
expect 'mlflow: parameters once' "$(sent params)" "$params"

# Mistakes
mkdir "$work/empty"
track "$work/empty"
refused 'no log' 2 'has no log.jsonl'
: >"$work/empty/log.jsonl"
track "$work/empty"
refused 'an empty log' 2 'has no record of a start yet'
echo '{' >"$work/a/track-wandb.json"
track "$work/a" --once
refused 'a damaged note' 2 'is damaged: delete it'
echo '{"run": "x", "offset": 99999999}' >"$work/a/track-wandb.json"
track "$work/a" --once
refused 'another log' 2 'is shorter than what was sent of it'
rm "$work/a/track-wandb.json" "$work/modules/wandb.py"
echo 'raise ImportError("no wandb")' >"$work/modules/wandb.py"
track "$work/a" --once
refused 'no package' 3 'python3 -m pip install wandb'
