#!/bin/sh
# cria eval: the numbers of the log's own evaluation after that step, on any ranks and backend, also where the
# batch could not be shared; as text and as JSON; what is refused. Writes nothing.
# shellcheck disable=SC2086 # words
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

val='data.val=data/sotu_val.bin run.eval_sequences=6'
train 2 run run.steps=8 run.save_every=4 run.eval_every=4 $val
expect_status 'a run' 0
find "$work/run" -type f -exec cksum {} + | sort >"$work/before"

# "STEP LOSS ...": all members but those of the file
of() { sed -n '/^{"kind":"eval","step":'"$1"',/s/\(,"path":"[^"]*","weights_crc":"[0-9a-f]*"\)*}$//p' "$2"; }
loss() { sed -n "s/^{\"kind\":\"eval\",\"step\":$1,.*\"loss\":\([0-9.]*\),\"tokens\":\([0-9]*\),\"ppl.*/$1 \1 \2/p" "$2" | head -n 1; }
evaluate() { # RANKS CHECKPOINT ARGUMENT...
    ranks=$1 file=$2
    shift 2
    run mpirun -n "$ranks" "$cria" eval "$file" $config $val --json "$@"
}

for step in 4 8; do
    evaluate 2 "$work/run/step_0000000$step.safetensors"
    expect_status "step $step" 0
    of $step "$work/run/log.jsonl" >"$work/expected"
    of $step "$work/out" >"$work/found"
    expect_same "step $step" found expected
    expect "step $step: lines" "$(grep -c . "$work/out") $(cat "$work/err")" '1 '
    expect "step $step: file" "$(sed 's/.*"path":"\([^"]*\)","weights_crc":"\([0-9a-f]*\)".*/\1 \2/' "$work/out")" \
        "$work/run/step_0000000$step.safetensors $("$cria" check "$work/run/step_0000000$step.safetensors" |
            sed -n 's/^  cria.weights_crc *//p')"
done

# A folder is its newest checkpoint; other ranks, backends and masks of the ranks' making.
loss 8 "$work/run/log.jsonl" >"$work/expected"
for how in '1 run.eval_every=4' '3 batch.micro=1' '4 parallel.cp=2 parallel.backend=ring' '4 parallel.cp=4 parallel.zero=0'; do
    evaluate ${how%% *} "$work/run" ${how#* }
    expect_status "on $how" 0
    loss 8 "$work/out" >"$work/found"
    expect_close "on $how" found expected 1
done

run "$cria" eval "$work/run" $config $val
expect_status 'text' 0
expect 'text' "$(cat "$work/out")" "$(awk -v crc="$("$cria" check "$work/run" | sed -n 's/^  cria.weights_crc *//p')" -v run="$work/run" '{
    printf "%s/step_00000008.safetensors: step 8, weights %s\n  %-16s loss %.4f, perplexity %.6g, over %d tokens", run, crc, "all", $2, exp($2), $3 }' \
    "$work/expected")"
run mpirun -n 2 "$cria" eval "$work/run" $config data.val="{web: data/sotu_val.bin, books: data/sotu_train.bin}" run.eval_sequences=4
expect_status 'two sets' 0
expect 'two sets' "$(sed -n 's/^  \([a-z]*\) *loss .*, perplexity .*tokens$/\1/p' "$work/out" | tr '\n' ' ')" 'web books all '

find "$work/run" -type f -exec cksum {} + | sort >"$work/after"
expect_same 'files' after before

# ---- refused ---------------------------------------------------------------------------------------

refused() { # WHAT TEXT ARGUMENT...
    what=$1 text=$2
    shift 2
    run mpirun -n 2 "$cria" eval "$@"
    expect_refused "$what" 2 "$text"
}
refused 'no configuration' 'cria eval: missing CONFIG; usage: cria eval CHECKPOINT|DIR CONFIG' "$work/run"
refused 'no data' 'there is nothing to evaluate on: data.val is empty' "$work/run" $config
refused 'another model' 'is a checkpoint of another model than the configuration asks for: model.ffn 32 -> 48' \
    "$work/run" $config $val model.ffn=48
refused 'no checkpoint' 'README.md: not a safetensors file' README.md $config $val
refused 'a folder without one' 'there is no checkpoint in data' data $config $val
refused 'a missing set' "cannot open token file $work/none.bin" "$work/run" $config data.val="$work/none.bin"
cp "$work/run/step_00000008.safetensors" "$work/damaged"
printf 'damaged!' | dd of="$work/damaged" bs=1 seek=$(($(wc -c <"$work/damaged") - 64)) conv=notrunc 2>/dev/null
refused 'a damaged file' "$work/damaged is damaged: tensor 'optim.v." "$work/damaged" $config $val
