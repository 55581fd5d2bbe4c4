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

# The section that import prints makes the model of a run that goes on; data.eod is a comment there.
# `cria check` prints the same.
rm "$work/bf16.safetensors"
run "$cria" import "$work/bf16" "$work/bf16.safetensors"
sed -n '/^model:/,$p' "$work/out" | grep -v '^#' >"$work/model.yaml"
expect 'comments of the section' "$(grep -c '^# ' "$work/out")" 2
run "$cria" check "$work/bf16.safetensors"
sed -n '/^model:/,$p' "$work/out" >"$work/checked.yaml"
expect_same 'the section of check' checked.yaml model.yaml
{
    cat "$work/model.yaml"
    sed '/^model:/,/^[a-z]/{/^model:/d;/^ /d;}' "$config"
} >"$work/pasted.yaml"
run "$cria" train "$work/pasted.yaml" "run.dir=$work/pasted" run.steps=1 --resume "$work/bf16.safetensors"
expect_status 'a run with the pasted section' 0

# Faults of the machine can be tried again, paths that cannot exist cannot.
for fault in 'call=open,path=config.json,do=EIO' 'call=open,path=model.safetensors,do=ESTALE' \
    'call=open,path=model.safetensors,do=EMFILE' 'call=read,path=config.json,do=EIO'; do
    with_faults "$fault" run "$cria" import "$work/bf16" "$work/x.safetensors"
    expect_status "import, $fault" 3
done
with_faults 'call=open,path=config.json,do=EACCES' run "$cria" import "$work/bf16" "$work/x.safetensors"
expect_status 'import, EACCES' 2
mkdir "$work/empty"
with_faults "call=readdir,path=$work/empty,do=EIO" run "$cria" export "$first" "$work/empty"
expect_error 'export, readdir' 3 "cannot export to $work/empty: listing it: Input/output error"
with_faults "call=opendir,path=$work/empty,do=EMFILE" run "$cria" export "$first" "$work/empty"
expect_error 'export, opendir' 3 'Too many open files'
for path in "$work/no/where" "$first/x"; do
    run "$cria" export "$first" "$path"
    expect_refused "export to $path" 2 "cannot export to $path: "
    run "$cria" import "$work/bf16" "$path"
    expect_refused "import to $path" 2 "$path"
done

# What no key holds goes through runs: the length, bos, pad, and further ends.
cp -r "$work/bf16" "$work/kept"
sed -i -e 's/"bos_token_id": null/"bos_token_id": 1/' -e 's/"eos_token_id": 260/"eos_token_id": [260, 5, 6]/' \
    -e 's/"max_position_embeddings": 32/"max_position_embeddings": 131072/' \
    -e 's/"pretraining_tp": 1/"pad_token_id": 2, "pretraining_tp": 1/' "$work/kept/config.json"
mkdir "$work/third"
run "$cria" import "$work/kept" "$work/third/step_00000000.safetensors"
expect_status 'import of ids' 0
train 2 third run.steps=1 --resume auto
expect_status 'a run from it' 0
train 1 third run.steps=2 --resume auto
expect_status 'a run from that' 0
run "$cria" export "$(newest)" "$work/fourth"
expect_status 'export of that' 0
config_of() { tr -d '\n ' <"$1/config.json" | sed 's/,"torch_dtype.*//; s/,"pretraining_tp":1//'; }
expect 'config.json' "$(config_of "$work/fourth")" "$(config_of "$work/kept")"
