#!/bin/sh
# Resuming under another configuration: another model is refused, other batches need consent, every other
# change of the course is named with what it does, and what changes no result is not spoken of. The data go
# on where they were, also with another batch size.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

files() { find "$run" -type f ! -name .lock -exec cksum {} + | sort; }
resumed() { sed -n 's/^resumed \([^ ]*\): step .*/\1/p' "$work/out"; }

train 2 run run.steps=4 run.save_every=4
expect_status 'a run' 0
base=$(newest)
files >"$work/before"

# ---- another model -----------------------------------------------------------------------------------

# Shapes that do not fit, and those that do; the last two changes are of one kind.
for change in 'heads 8 16' 'kv_heads 4 2' 'head_dim 4 8' 'rope_theta 500000 10000' 'norm_eps 1e-05 0.001' \
    'rope_scaling.factor 1 8' 'layers 2 3' 'ffn 32 48' 'vocab 4096 5000' 'tie_embeddings true false'; do
    # shellcheck disable=SC2086 # words
    set -- $change
    train 2 run run.steps=6 "model.$1=$3" --resume auto
    expect_refused "model.$1" 2 "$base is a checkpoint of another model than the configuration asks for: \
model.$1 $2 -> $3; a run goes on"
done
train 2 run run.steps=6 model.heads=4 model.kv_heads=2 model.head_dim=8 --resume "$base"
expect_refused 'heads of twice the width' 2 'model.heads 8 -> 4, model.kv_heads 4 -> 2, model.head_dim 4 -> 8'
files >"$work/after"
expect_same 'another model: files' after before

# ---- other batches -----------------------------------------------------------------------------------

for change in 'run.seed 1234 7' 'model.seq_len 32 16' 'data.mask causal document' 'data.window 0 5' \
    'data.reset_positions false true' 'data.eod_mask_loss false true'; do
    # shellcheck disable=SC2086
    set -- $change
    train 2 run run.steps=6 "$1=$3" --resume auto
    expect_refused "$1" 2 "$base: $1 $2 -> $3: later batches would not be those of the run; put back what has \
changed, or set run.allow_data_change=true"
done
train 2 run run.steps=6 data.split=9,1,0 --resume auto
expect_refused 'data.split' 2 "$base: data.split \"\" -> \"9,1,0\": later batches"
files >"$work/after"
expect_same 'other batches: files' after before
train 2 allowed run.steps=6 data.mask=document model.seq_len=16 run.allow_data_change=true --resume "$base"
expect_status 'run.allow_data_change' 0
expect_warning 'run.allow_data_change' \
    'later batches are not those of the run: model.seq_len 32 -> 16, data.mask causal -> document'
expect 'run.allow_data_change: the log' "$(grep -c '"kind":"head".*"changed":"[^"]*data.mask causal' \
    "$run/log.jsonl")" 1
expect 'tokens counted on' "$(logged allowed tokens | tr '\n' ' ')" '5 1152 6 1280 '

# ---- another course ----------------------------------------------------------------------------------

train 2 longer run.steps=8 --resume "$base"
expect_status 'more steps' 0
expect 'more steps: said' "$(grep '^changed' "$work/out")" "changed since $base: run.steps 4 -> 8"
expect 'more steps: warnings' "$(cat "$work/err")" ''
train 2 other run.steps=6 optim.lr=1e-3 optim.beta2=0.99 run.spike_z=5 --resume "$base"
expect_warning 'another learning rate' "changed since $base: run.steps 4 -> 6, run.spike_z 0 -> 5, optim.lr \
0.002 -> 0.001, optim.beta2 0.95 -> 0.99; the learning rate of the next step is 0.001, it would have been 0.002\$"
train 2 cosine run.steps=16 optim.schedule=cosine run.time_limit_minutes=0.0001
expect_status 'a schedule' 4
train 2 cosine run.steps=20 optim.schedule=cosine run.time_limit_minutes=0.0001 --resume auto
expect_warning 'a stretched schedule' 'run.steps 16 -> 20, optim.decay_steps 16 -> 20; the learning rate of the '\
'next step is 0.001951, it would have been 0.001924$'
# How a result is computed, what is reported and where things lie is nobody's business.
train 1 silent run.steps=4 run.save_every=2
run=$work/silent
rm "$run/step_00000004.safetensors"
train 2 silent run.steps=4 run.save_every=1 run.keep_last=9 run.log_every=2 run.watchdog_seconds=99 batch.micro=1 \
    parallel.zero=0 memory.recompute=layer log.tensorboard=true model.init_std=1 data.eod=5 data.val=data/sotu_val.bin \
    run.check_every=1 data.format=nanogpt model.rope_scaling.high=5 --resume auto
expect_status 'what changes no result' 0
expect 'what changes no result: said' "$(grep -c '^changed' "$work/out") $(cat "$work/err")" '0 '
curve silent silent.curve
curve run run.curve
sed -i '/^4 /!d' "$work/silent.curve" "$work/run.curve"
expect_close 'what changes no result' silent.curve run.curve 1

# ---- the position in the data ------------------------------------------------------------------------

# losses RUN: the mean loss over batches of 8 sequences, from the runs' mean losses of smaller or larger ones
losses() {
    logged "$1" loss | awk -v size="$2" -v first="$3" '
        { sum += $2 * size; n += size }
        n >= 16 { printf "%s %.5f\n", first++, sum / n; sum = n = 0 }'
}
frozen='optim.lr=0 optim.weight_decay=0'
# shellcheck disable=SC2086
train 2 even $frozen run.steps=8 # samples 0 to 63
expect_status 'batches of 8' 0
losses even 8 1 >"$work/even.losses"
# shellcheck disable=SC2086
train 2 size $frozen run.steps=2 run.save_every=2
for global in 4 16; do
    rm -rf "$work/part"
    mkdir "$work/part"
    cp "$work/size/step_00000002.safetensors" "$work/part"
    # shellcheck disable=SC2086
    train 2 part $frozen run.steps=$((2 + 48 / global)) batch.global=$global --resume auto
    expect_status "batch.global 8 -> $global" 0
    expect_warning "batch.global 8 -> $global" "batch.global 8 -> $global; its batch begins with sample 16\$"
    losses part $global 2 >"$work/part.losses"
    tail -n 3 "$work/even.losses" >"$work/tail.losses"
    expect_close "batch.global 8 -> $global: samples 16 to 63" part.losses tail.losses 3
    run "$cria" check "$work/part"
    expect "batch.global 8 -> $global: samples" "$(sed -n 's/^ *cria.samples *//p' "$work/out")" 64
done
# And back, in a run of three sizes: steps 3 of 16 samples, 4 to 7 of 8
# shellcheck disable=SC2086
train 2 sizes $frozen run.steps=3 batch.global=16 --resume "$work/size"
# shellcheck disable=SC2086
train 2 sizes $frozen run.steps=7 --resume auto
expect_status 'back to 8' 0
logged sizes loss | awk '
    NR == 1 { printf "2 %.5f\n", $2; next }
    { sum += $2 }
    NR % 2 == 1 { printf "%d %.5f\n", 2 + NR / 2, sum / 2; sum = 0 }' >"$work/sizes.losses"
tail -n 3 "$work/even.losses" >"$work/tail.losses"
expect_close 'back to 8: samples 16 to 63' sizes.losses tail.losses 3

# ---- imported weights --------------------------------------------------------------------------------

run "$cria" export "$base" "$work/hf" --dtype=fp32
run "$cria" import "$work/hf" "$work/imported.safetensors"
expect_status 'import' 0
train 2 mine run.steps=2 --resume "$work/imported.safetensors"
expect_status 'imported weights' 0
expect 'imported weights: said' "$(grep -c '^changed' "$work/out") $(cat "$work/err")" '0 '
train 2 theirs run.steps=2 model.rope_theta=10000 --resume "$work/imported.safetensors"
expect_refused 'imported weights of another model' 2 'model.rope_theta 500000 -> 10000'
train 2 theirs run.steps=2 --resume "$work/hf/model.safetensors"
expect_refused 'weights that were not imported' 2 'a Hugging Face model becomes a checkpoint by cria import'
