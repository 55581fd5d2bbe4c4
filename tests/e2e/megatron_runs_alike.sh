#!/bin/sh
# With data.order megatron every evaluation takes the next samples, as Megatron-LM's do, also after a
# resume and on two ranks; the learning rate of the log is that of Megatron's scheduler. Weights stand
# still here, so that a loss tells the samples.
. tests/e2e/lib.sh

run "$cria" data pack --to megatron --eod 0 --out "$work/pair" data/sotu_val.bin
expect_status 'cria data pack' 0
# evaluate RANKS NAME ARGUMENT...: $work/NAME.evals has a line "step loss" for each evaluation
evaluate() {
    ranks=$1 name=$2
    shift 2
    train "$ranks" "$name" "data.train=$work/pair" data.format=megatron data.order=megatron data.split=7,3,0 \
        data.eod=0 optim.lr=0 optim.weight_decay=0 "$@"
    expect_status "$name" 0
    sed -n 's/^{"kind":"eval","step":\([0-9]*\),"loss":\([0-9.]*\).*/\1 \2/p' "$work/$name/log.jsonl" >"$work/$name.evals"
}
# means NAME STEP...: of the losses of these evaluations
means() {
    awk -v steps=" $(echo "$@" | cut -d ' ' -f 2-) " 'index(steps, " " $1 " ") { sum += $2; n++ } END { printf "%.4f", sum / n }' \
        "$work/$1.evals"
}

# All ask for 32 samples, on which the order depends.
evaluate 1 each run.steps=7 run.eval_every=2 run.eval_sequences=8 run.save_every=3
expect 'evaluations' "$(awk '{ printf "%s ", $1 }' "$work/each.evals")" '0 2 4 6 7 '
expect 'different losses after step 0' "$(tail -n +2 "$work/each.evals" | cut -d ' ' -f 2 | sort -u | wc -l)" 4
expect 'the loss at step 0 is that of the first evaluation' "$(means each 0)" "$(means each 2)"
evaluate 1 first run.steps=7 run.eval_every=7 run.eval_sequences=16
expect 'the first two' "$(means each 2 4)" "$(means first 7)"
evaluate 1 last run.steps=3 run.eval_every=2 run.eval_sequences=16
expect 'the last two' "$(means each 6 7)" "$(means last 3)"
evaluate 2 ranks run.steps=7 run.eval_every=2 run.eval_sequences=8
for step in 0 2 4 6 7; do
    expect "two ranks, step $step" "$(means ranks $step)" "$(means each $step)"
done
evaluate 1 resumed run.steps=7 run.eval_every=2 run.eval_sequences=8 \
    --resume "$work/each/step_00000003.safetensors"
tail -n 3 "$work/each.evals" >"$work/each.last"
expect_same 'after a resume' resumed.evals each.last

# More than the part has: Megatron begins another epoch of it.
evaluate 1 epochs run.steps=2 run.eval_every=1 run.eval_sequences=1000
expect 'tokens of an evaluation beyond an epoch' "$(grep -c '"kind":"eval".*"tokens":32000[,}]' "$work/epochs/log.jsonl")" 3

# data.order cria: always the same ones.
train 1 same "data.train=$work/pair" data.split=7,3,0 data.format=megatron run.steps=2 run.eval_every=1 optim.lr=0 \
    optim.weight_decay=0
expect 'losses with data.order cria' "$(grep '"kind":"eval"' "$work/same/log.jsonl" | sed 's/.*"loss":\([^,]*\).*/\1/' |
    sort -u | wc -l)" 1

train 1 lr run.steps=4 optim.schedule=cosine optim.lr=6e-5 optim.warmup_steps=430 optim.decay_steps=430000 \
    optim.schedule_start=0
logged lr lr >"$work/found"
printf '1 0\n2 1.39534884e-07\n3 2.79069767e-07\n4 4.18604651e-07\n' >"$work/expected"
expect_same "Megatron's learning rates" found expected
