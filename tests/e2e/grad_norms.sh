#!/bin/sh
# log.grad_norms: the squares of the parts add up to the square of the whole norm, and every part is the same for
# all numbers of ranks, with and without ZeRO; nothing else of a run changes.
. tests/e2e/lib.sh
python=${PYTHON:-python3}
train 1 plain run.steps=3
expect_status plain 0
train 1 one run.steps=3 log.grad_norms=true log.tensorboard=true
expect_status one 0
train 1 untied run.steps=3 log.grad_norms=true model.tie_embeddings=false
expect_status untied 0
train 4 dp4 run.steps=3 log.grad_norms=true
expect_status dp4 0
train 2 zero0 run.steps=3 log.grad_norms=true parallel.zero=0
expect_status zero0 0
train 2 cp2 run.steps=3 log.grad_norms=true parallel.cp=2 memory.recompute=layer
expect_status cp2 0
for run in plain one; do logged $run loss grad_norm weights_crc >"$work/$run.curve"; done
expect_same 'the run' one.curve plain.curve
expect 'nothing unasked' "$(grep -c grad_norms\": "$work/plain/log.jsonl")" 1 # the key
expect 'TensorBoard' "$(cat "$work"/one/events* | grep -aq grad-norm/gate_up && echo there)" there
cat >"$work/check.py" <<'END'
import json, math, sys
names = ["embedding", "qkv", "o", "gate_up", "down", "norms", "head"]


def steps(run):
    return [r for r in map(json.loads, open(f"{sys.argv[1]}/{run}/log.jsonl")) if r["kind"] == "step"]


for run in "one", "untied", "dp4", "zero0", "cp2":
    records = steps(run)
    assert len(records) == 3
    for record, one in zip(records, steps("one")):
        parts = record["grad_norms"]
        assert list(parts) == names, parts
        whole = math.sqrt(sum(x * x for x in parts.values()))
        assert math.isclose(whole, record["grad_norm"], rel_tol=1e-9), (run, whole, record)
        assert all(x > 0 for name, x in parts.items() if name != "head"), parts
        assert (parts["head"] > 0) == (run == "untied"), parts
        for name in names if run != "untied" else []:
            assert math.isclose(parts[name], one["grad_norms"][name], rel_tol=1e-4), (run, name, parts, one)
END
run "$python" "$work/check.py" "$work"
expect_status 'parts of the norm' 0
