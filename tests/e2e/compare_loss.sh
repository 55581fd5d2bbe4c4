#!/bin/sh
# compare_loss.sh: the script that trains a set and compares the curves: its table and picture, what it
# runs again and what not, and what it refuses.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

compare() { run scripts/compare_loss.py "$config" --binary "$cria" --out "$work/set" "$@"; }
starts() { cat "$work"/set/*/log.jsonl | grep -c '"kind":"head"'; }
# refused WHAT TEXT: the last command was a mistake, said with TEXT
refused() {
    expect_status "$1" 2
    expect "$1: '$2' on stderr" "$(grep -cF -- "$2" "$work/err")" 1
}

compare --cp 1,2 --ranks 2 --steps 3 --noise batch.micro=1 optim.lr=2e-2
expect_status 'a set of four' 0
table=$work/set/compare.md
expect 'rows of the table' "$(grep -c '^| .*| *2 | *3 |' "$table")" 4
head -n 10 "$work/out" >"$work/printed"
expect_same 'the table is printed' printed set/compare.md
expect 'difference of cp1 to itself' "$(awk -F '|' '/^\| cp1  / { print $6 $7 + 0 }' "$table")" \
    '  0.0e+00 0'
expect 'losses that differ by more than rounding' \
    "$(awk -F '|' '/^\| (ring|magi) cp2/ && $6 + 0 <= 1e-5 { n++ } END { print 2 - n }' "$table")" 0
expect 'the picture' "$(head -c 4 "$work/set/compare.png" | tail -c 3)" PNG
expect 'folders' "$(cd "$work/set" && echo */)" 'cp1-batch.micro=1/ cp1/ magi-cp2/ ring-cp2/'
expect 'the override reached every run' "$(cat "$work"/set/*/config.yaml | grep -cF 'lr: 0.02')" 4
expect 'starts' "$(starts)" 4

compare --cp 1,2 --ranks 2 --steps 3 --noise batch.micro=1 optim.lr=2e-2
expect_status 'the same again' 0
expect 'starts after the same again' "$(starts)" 4
expect 'runs said to be done' "$(grep -c 'done before' "$work/err")" 4

# The schedule is constant, so that more steps continue what is there; magi has to start anew.
rm "$work"/set/magi-cp2/step_*
compare --cp 1,2 --ranks 2 --steps 5 --drop-checkpoints optim.lr=2e-2
expect_status 'more steps' 0
expect 'starts for more steps' "$(starts)" 7
expect 'runs resumed for more steps' "$(cat "$work"/set/*/log.jsonl | grep -c '"resumed":"')" 2
expect 'rows with five steps' "$(grep -c '^| .*| *2 | *5 |' "$table")" 3
expect 'checkpoints left' "$(find "$work/set" -name 'step_*' | wc -l)" 1

# Only draw: what is there, no more steps than asked for.
compare --no-run --cp 2 --backends ring,ulysses,magi --steps 4 --json
expect_status 'no run' 0
expect 'starts after no run' "$(starts)" 7
expect 'what is not there' "$(grep -c 'ulysses-cp2 has no steps: left out' "$work/err")" 1
mv "$work/out" "$work/table.json"
run python3 -c 'import json, sys
table = json.load(open(sys.argv[1]))
print(table["base"], *[(r["run"], r["steps"], r["max_diff"] < 1e-5) for r in table["runs"]])' \
    "$work/table.json"
expect 'the table as JSON' "$(cat "$work/out")" "ring cp2 ('ring cp2', 4, True) ('magi cp2', 4, True)"

# Fewer steps than the warm-up of the file: it is cut to fit.
for schedule in cosine:0:3 linear:0:3 wsd:7:0 wsd:0:2; do
    kind=${schedule%%:*} decay=${schedule#*:}
    sed "s/schedule: constant/schedule: $kind # of 9\n  warmup_steps: 12\n  decay_steps: ${decay%:*}/" "$config" >"$work/warm.yaml"
    rm -rf "$work/warm"
    run scripts/compare_loss.py "$work/warm.yaml" --binary "$cria" --out "$work/warm" --cp 1 --steps 3
    expect_status "a warm-up of 12 steps, $schedule" 0
    expect "said of the warm-up, $schedule" "$(grep -c "optim.warmup_steps is ${decay#*:} in these runs of 3 steps" "$work/err")" 1
    expect "warm-up, $schedule" "$(sed -n 's/ *warmup_steps: //p' "$work/warm/cp1/config.yaml")" "${decay#*:}"
done
run scripts/compare_loss.py "$work/warm.yaml" --binary "$cria" --out "$work/warm" --cp 1 --steps 3 optim.warmup_steps=4
refused 'a warm-up of the command line' 'holds a run of another set'

compare --cp 1,2 --ranks 2 --steps 5 optim.lr=1e-2
refused 'other overrides in the same folder' 'holds a run of another set'
compare --cp 1
refused 'no steps' '--steps is needed'
compare --cp 1,3 --ranks 4 --steps 3
refused 'cp that does not divide the ranks' 'not a multiple of cp 3'
compare --cp 0 --steps 3
refused 'cp 0' "found '0'"
compare --backends rings --steps 3
refused 'an unknown backend' "found 'rings'"
compare --steps 3 parallel.cp=2
refused 'a key of the set' 'parallel.cp is set by --cp'
mkdir -p "$work/set/magi-cp4" && touch "$work/set/magi-cp4/precious"
compare --cp 4 --backends magi --steps 3
refused 'a folder of somebody else' 'holds something else'
rm -r "$work/set/magi-cp4"
compare --cp 4 --backends magi --steps 3 model.layers=none
refused 'what cria refuses' 'model.layers'
run scripts/compare_loss.py "$work/nowhere.yaml" --binary "$cria" --steps 3
refused 'no configuration' 'nowhere.yaml is not there'
run scripts/compare_loss.py "$config" --binary "$work/cria" --steps 3
expect_status 'no binary' 3
