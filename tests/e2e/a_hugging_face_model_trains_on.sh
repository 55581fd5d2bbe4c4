#!/bin/sh
# Weights leave a run as a Hugging Face directory and come back as the same weights, from which two
# ranks train on.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

weights_of() { "$cria" check "$1" | sed -n 's/.*cria.weights_crc *//p'; }

train 2 first run.steps=2 batch.micro=1
expect_status 'a run' 0
first=$(newest)
run "$cria" export "$first" "$work/hf" --dtype=fp32 --shard-bytes 100000
expect_status 'export' 0
expect 'files' "$(find "$work/hf" -name '*.safetensors' | wc -l)" 2
run "$cria" export "$first" "$work/hf"
expect_status 'export to the same directory' 2

mkdir "$work/second"
run "$cria" import "$work/hf" "$work/second/step_00000000.safetensors"
expect_status 'import' 0
expect 'weights' "$(weights_of "$work/second/step_00000000.safetensors")" "$(weights_of "$first")"
train 2 second run.steps=2 batch.micro=1 --resume auto
expect_status 'a run from imported weights' 0
expect 'steps of that run' "$(newest_step)" 2

run "$cria" export "$first" "$work/bf16"
expect_status 'export as bf16' 0
run "$cria" import "$work/bf16" "$work/bf16.safetensors"
expect_status 'import of bf16' 0
run "$cria" export "$work/bf16.safetensors" "$work/again"
expect_status 'export of that' 0
run diff -r "$work/bf16" "$work/again"
expect_status 'the two directories' 0

for wrong in 'export' "export $first" "export $first $work/x --dtype fp16" 'import a b c' \
    "export $first $work/x --shard-bytes 0" "export $work/missing $work/x" "import $work/missing $work/x"; do
    # shellcheck disable=SC2086 # words
    run "$cria" $wrong
    expect_status "cria $wrong" 2
done
