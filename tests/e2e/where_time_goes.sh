#!/bin/sh
# Step records say where the time of a step goes on every rank: phases follow each other without gaps, and a
# rank that computes slowly is named, others are not.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

# On one rank least, median and most are the same, and all phases together what the clock says. A save and an
# evaluation are in the record after them.
train 1 one log.phases=true run.steps=12 run.log_every=4 run.save_every=5 data.val=data/sotu_val.bin run.eval_every=6 run.keep_last=9
expect_status 'one rank' 0
expect 'phases of one rank' "$(python3 - "$run/log.jsonl" <<'PYTHON'
import json, sys
steps = [r for r in map(json.loads, open(sys.argv[1])) if r["kind"] == "step"]
names = "data forward backward cp_exposed grad_reduce optimizer weight_gather wait save eval other".split()
for r in steps:
    p = r["phase_ms"]
    if list(p) != names:
        print("step", r["step"], "has the phases", list(p))
    for name, v in p.items():
        if not 0 <= v["min"] == v["median"] == v["max"] or v["rank"] != 0:
            print("step", r["step"], name, v)
    if r["step"] == 4:  # no save or evaluation since step 1; writing the record of step 1 is in `other` alone
        every = sum(v["max"] for v in p.values())
        if every < 0.9 * r["ms"] or every - p["other"]["max"] > 1.05 * r["ms"]:
            print("step 4 takes", r["ms"], "ms, its phases", p)
    if p["forward"]["max"] == 0 or p["backward"]["max"] == 0 or p["optimizer"]["max"] == 0:
        print("step", r["step"], "computes nothing:", p)
    if (p["eval"]["max"] > 0) != (r["step"] in (1, 8)) or (p["save"]["max"] == 0) and r["step"] >= 8:
        print("step", r["step"], "eval or save:", p)
print(len(steps), "records")
PYTHON
)" '4 records'

train 1 off run.steps=2 run.profile_from=1
expect_status 'without log.phases' 0
expect 'a profile of the CPU' "$(cat "$work/err")" 'cria: warning: run.profile_from is for GPUs: on the CPU nothing is profiled'
expect 'without log.phases: phases' "$(grep -c phase_ms "$run/log.jsonl")" 0

# Rank 1 begins every parallel region late: it computes, and the others wait for it.
with_faults 'call=GOMP_parallel,rank=1,do=2' train 3 slow log.phases=true run.steps=20 batch.global=6 run.save_every=0
expect_status 'a slow rank' 0
expect 'a slow rank: records' "$(grep '"kind":"slow"' "$run/log.jsonl" | sed 's/,"node.*//')" '{"kind":"slow","step":20,"rank":1'
expect 'a slow rank: warning' "$(grep -c "^cria: warning.*: rank 1 on node $(hostname) stays behind: it computes " "$work/err")" 1
expect 'a slow rank: the slowest forward' "$(python3 - "$run/log.jsonl" <<'PYTHON'
import json, sys
steps = [r for r in map(json.loads, open(sys.argv[1])) if r["kind"] == "step"]
print(sum(r["phase_ms"]["forward"]["rank"] == 1 for r in steps) >= 15)
PYTHON
)" True
