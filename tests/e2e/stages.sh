#!/bin/sh
# stages: a run through three changes (mixture; length, angles, mask; batch and learning rate), killed at
# chosen moments and resumed, has the bits of one that was left alone, and so have branches with stages of
# their own; other ranks agree. Its samples are those that data/README.md defines, computed again in Python.
# shellcheck disable=SC2086 # words
. tests/e2e/lib.sh

at() { printf '%s/%s/step_%08d.safetensors' "$work" "$1" "$2"; }
first='{from: 5, data.train: [{path: data/sotu_val.bin, weight: 1}, {path: data/sotu_train.bin, weight: 3}], optim.lr: 1e-3}'
second='{from_tokens: 2560, model: {seq_len: 64, rope_theta: 1e6}, data.mask: document, batch.micro: 1}'
third='{from: 15, batch.global: 16, optim.lr: 5e-4}'
stages="stages=[$first, $second, $third]"
common='run.save_every=1 run.eval_every=5 run.eval_sequences=8 data.val=data/sotu_val.bin'

# ---- one run ---------------------------------------------------------------------------------------

train 2 whole $common "$stages"
expect_status 'a run in stages' 0
for moment in 6 13 16; do # behind a begin, inside a stage, behind another begin
    with_faults "call=pwrite,path=step_000000$(printf %02d $moment),do=kill" train 2 killed $common "$stages" --resume auto
    wait_for run_ended
    expect "killed in the save of step $moment: newest" "$(newest_step)" $((moment - 1))
done
train 2 killed $common "$stages" --resume auto
expect_status 'killed three times' 0
for run in whole killed; do
    logged $run loss grad_norm lr tokens weights_crc >"$work/$run.steps"
    grep '"kind":"eval"' "$work/$run/log.jsonl" | sort -u >"$work/$run.evals"
    grep '"kind":"stage"' "$work/$run/log.jsonl" | sort -u >"$work/$run.stages"
done
expect_same 'killed: steps' killed.steps whole.steps
expect_same 'killed: evaluations' killed.evals whole.evals
expect_same 'killed: begins of stages' killed.stages whole.stages
expect 'killed: tensors' "$(tensors killed 20)" "$(tensors whole 20)"
expect 'begins of stages' "$(sed 's/.*"step":\([0-9]*\),"stage":"\(.*\)","tokens":\([0-9]*\),"sample":\([0-9]*\),.*/\1 \2 \3 \4/' \
    "$work/whole.stages" | sort -n | tr '\n' ';')" '5 stages[0] 1280 0;10 stages[1] 2560 0;15 stages[2] 5120 40;'
# 8 x 32 tokens, then 8 x 64 and 16 x 64
seq 20 | awk '{ n += $1 <= 10 ? 256 : $1 <= 15 ? 512 : 1024; lr = $1 <= 5 ? 0.002 : $1 <= 15 ? 0.001 : 0.0005
    print $1, lr, n }' >"$work/expected"
logged whole lr tokens >"$work/found"
expect_same 'learning rates and tokens' found expected

# Attention across ranks, by two backends, and one rank alone.
curve whole whole.curve
train 1 one "$stages"
curve one found
expect_close 'one rank' found whole.curve 20
for backend in magi ring; do
    train 4 $backend "$stages" parallel.cp=2 parallel.backend=$backend
    curve $backend found
    expect_close "4 ranks, $backend" found whole.curve 20
done

# ---- what a checkpoint of it says ------------------------------------------------------------------

for step in 4 12; do "$cria" check "$(at whole $step)" | awk '$1 ~ /^(seq_len|rope_theta):/ { print $2 }' | tr '\n' ' '; done >"$work/found"
expect 'cria check: the model of the stage' "$(cat "$work/found")" '32 500000 64 1000000 '
run "$cria" eval --json "$(at whole 15)" $config "$stages" $common
expect_status 'cria eval' 0
grep '"kind":"eval","step":15,' "$work/whole.evals" | cut -c1-80 >"$work/expected"
cut -c1-80 "$work/out" >"$work/found"
expect_same 'cria eval: of the stage' found expected

# ---- past and future -------------------------------------------------------------------------------

copy() { rm -rf "${work:?}/again" && mkdir "$work/again" && cp "$(at whole "$1")" "$work/again"; }
copy 12
train 2 again $common "stages=[$first, {from: 9, model.seq_len: 64}, $third]" --resume auto
expect_refused 'a changed past' 2 'stages that were taken stay as they were; put them back, and change those from step 12 on'
train 2 again $common --resume auto
expect_refused 'no stages' 2 'in its 12 steps, the configuration has []: stages that were taken'
train 2 again $common "stages=[$first, $second, {from: 12, optim.lr: 3e-4}]" --resume auto
expect_status 'a changed future' 0
expect_warning 'a changed future' 'changed since .*: stages \[.*\] -> \[.*\]; the learning rate of the next step is 0.0003, it would have been 0.001$'
expect 'a changed future: learning rates' "$(logged again lr | awk '{ print $2 }' | sort -u)" 0.0003
train 2 early "stages=[{from: 3, optim.lr: 1}]" --resume "$(at whole 4)"
expect_refused 'a stage before the checkpoint' 2 'the run took the stages [] in its 4 steps, the configuration has [{"from": 3'

# ---- branches --------------------------------------------------------------------------------------

parent=$(at whole 12)
back='{from: 14, model.seq_len: 32, data.train: [data/sotu_train.bin]}'
for branch in "cool stages=[$first, $second, {from: 12, optim.lr: 1e-4}]" "back stages=[$first, $second, $back]"; do
    name=${branch%% *} own=${branch#* }
    train 2 "$name" run.steps=18 "$own" --from "$parent"
    expect_status "the branch $name" 0
    with_faults 'call=pwrite,path=step_00000015,do=kill' train 2 "$name-killed" run.steps=18 run.save_every=1 "$own" --from "$parent" --resume auto
    wait_for run_ended
    train 2 "$name-killed" run.steps=18 run.save_every=1 "$own" --from "$parent" --resume auto
    expect_status "the branch $name, killed" 0
    expect "the branch $name, killed: tensors" "$(tensors "$name-killed" 18)" "$(tensors "$name" 18)"
done
expect 'branches: learning rates' "$(logged cool lr | tail -n 1) $(logged back lr | tail -n 1)" '18 0.0001 18 0.001'
expect 'branches: tokens' "$(logged cool tokens | tail -n 1) $(logged back tokens | tail -n 1)" '18 6656 18 5632'
train 2 other run.steps=18 "stages=[$first]" --from "$parent"
expect_refused 'a branch without its past' 2 'in its 12 steps, the configuration has [{"from": 5, '

# ---- samples ---------------------------------------------------------------------------------------

# In the last stage each source of the first ones goes on where it was, in its own shuffle.
order="stages=[$first, $second, $back, {from: 17, data.train: [{path: data/sotu_val.bin, weight: 1}, {path: data/sotu_train.bin, weight: 1}]}]"
cat >"$work/order.py" <<'PY'
import json, os
from sample_order import permute

SEED, TRAIN, VAL = 1234, "data/sotu_train.bin", "data/sotu_val.bin"
# (first step, steps, sequences a step, T, [(file, share)]); a stage that only goes on has no line of its own
orders = [(1, 5, 8, 32, [(TRAIN, 1)]), (6, 5, 8, 32, [(VAL, 1), (TRAIN, 3)]), (11, 4, 8, 64, [(VAL, 1), (TRAIN, 3)]),
          (15, 3, 8, 32, [(TRAIN, 1)]), (18, 3, 8, 32, [(VAL, 1), (TRAIN, 1)])]


taken, numbers = {}, {}  # by file and T: samples; number of its shuffle
for first, steps, global_, T, sources in orders:
    fresh = [s for s in sources if (s[0], T) not in taken]
    used = [n for n in numbers.values()]
    for file, _ in fresh:
        numbers[file, T] = max(used, default=-1) + 1
        used.append(numbers[file, T])
        taken[file, T] = 0
    for i in range(steps * global_):
        at = 0  # of two sources the first takes a sample when its share of i + 1 samples is a whole one more
        if len(sources) == 2:
            share, all_ = sources[0][1], sources[0][1] + sources[1][1]
            at = 0 if (i + 1) * share // all_ > i * share // all_ else 1
        file = sources[at][0]
        S = (os.path.getsize(file) // 2 - 1) // T
        epoch, n = divmod(taken[file, T], S)
        taken[file, T] += 1
        k = permute(S, SEED, 2**57 ^ (numbers[file, T] << 32 ^ epoch), n)
        print(json.dumps([first + i // global_, file, k * T, T + 1]))
PY
PYTHONPATH=tests/e2e python3 -B "$work/order.py" >"$work/expected"
"$cria" data order "$config" "$order" --step 1:20 --json | python3 -c '
import json, sys
for line in sys.stdin:
    sample = json.loads(line)
    (piece,) = sample["pieces"]
    print(json.dumps([sample["step"], piece["file"], piece["begin"], piece["tokens"]]))' >"$work/found"
expect_same 'samples of five orders' found expected
expect 'the mixture, one in four' "$(awk -F'[][, ]+' '$2 > 5 && $2 <= 10 { n[$3]++ } END { for (f in n) print f, n[f] }' "$work/found" | sort | tr '\n' ' ')" \
    '"data/sotu_train.bin" 30 "data/sotu_val.bin" 10 '
expect 'no sequence of 32 twice' "$(awk -F'[][, ]+' '$5 == 33' "$work/found" | cut -d, -f2- | sort | uniq -d)" ''

# ---- a ramp of the batch ---------------------------------------------------------------------------

train 2 ramp batch.global=8 batch.micro=1 batch.ramp.from=2 batch.ramp.step=2 batch.ramp.tokens=600 run.steps=9
expect_status 'a ramp' 0
# rises at 200, 400 and 600 tokens
expect 'a ramp: tokens' "$(logged ramp tokens | awk '{ print $2 }' | tr '\n' ' ')" '64 128 192 256 384 512 704 960 1216 '
train 1 ramped batch.micro=1 "stages=[{from: 4, batch.global: 4}, {from: 6, batch.global: 6}, {from: 7, batch.global: 8}]" batch.global=2 run.steps=9
curve ramp ramp.curve
curve ramped ramped.curve
expect_close 'a ramp: the same as stages' ramp.curve ramped.curve 9

# ---- before a run ----------------------------------------------------------------------------------

run "$cria" plan "$config" "$stages" --ranks 2 --json
expect 'plan: steps' "$(grep -o '"from":[0-9]*,"steps":[0-9]*,"tokens":[0-9]*' "$work/out" | tr -dc '0-9,\n' | tr '\n' ' ')" \
    '0,5,1280 5,5,1280 10,5,2560 15,5,5120 '
run "$cria" plan configs/stages-example.yaml --ranks 8
expect_status 'plan of the example' 0
expect 'plan of the example: stages' "$(grep -cE '^ +[0-9]+ \.\. [0-9]+ .* (hours|days) ' "$work/out")" 3
train 2 dry "$stages" --dry-run
expect 'dry run: stages' "$(grep -cE '^ +[0-9]+ \.\. [0-9]+ ' "$work/out")" 4
expect 'dry run: folder' "$(ls "$work/dry" 2>&1)" "ls: cannot access '$work/dry': No such file or directory"
train 2 none "stages=[{from: 5, data.train: missing.bin}]"
expect_refused 'no such file' 2 'stages[0]: cannot open token file missing.bin'
train 3 none parallel.cp=3 parallel.backend=ring model.seq_len=48 "stages=[{from: 5, model.seq_len: 32}]" batch.micro=1
expect_refused 'a length that cp does not divide' 2 'stages[0]: model.seq_len: found 32 x batch.micro 1 = 32 tokens with backend ring'
