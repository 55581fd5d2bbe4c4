#!/bin/sh
# cria generate: the greedy tokens of transformers from a Hugging Face directory and from a checkpoint
# made of it; text by the tokenizer that the run's configuration names; one sentence for what cannot be.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

# Prompt and continuation, as make_hf.py got them from transformers.
greedy() {
    python3 - "$1/expected.safetensors" <<'END'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
size, = struct.unpack("<Q", data[:8])
begin, end = json.loads(data[8:8 + size])["greedy"]["data_offsets"]
print(*struct.unpack("<32i", data[8 + size + begin:8 + size + end]))
END
}
generate() { run "$cria" generate "$@"; }

for model in hf_untied hf_tied; do
    greedy tests/golden/$model >"$work/expected"
    prompt=$(cut -d ' ' -f 1-16 "$work/expected")
    run "$cria" import tests/golden/$model "$work/$model.safetensors"
    for path in tests/golden/$model "$work/$model.safetensors"; do
        generate "$path" --ids --prompt "$prompt" --tokens 16 --temperature 0 --device cpu
        expect_status "$path" 0
        expect_same "$path" out expected
    done
done
model=$work/hf_untied.safetensors

# A run that knows its tokenizer says words; the same seed says the same.
train 1 run run.steps=2 data.tokenizer=data/tokenizer.json data.eod=0
generate "$run" --prompt 'We the people' --tokens 20 --seed 1
expect_status 'text of a run' 0
cp "$work/out" "$work/first"
expect 'the text begins with the prompt' "$(head -c 13 "$work/out")" 'We the people'
expect 'and goes on' "$([ "$(wc -c <"$work/out")" -gt 20 ] && echo yes)" yes
generate "$(newest)" --prompt='We the people' --tokens 20 --seed 1
expect_same 'the same seed' out first
generate "$run" --prompt 'We the people' --tokens 20 --seed 2
expect 'another seed' "$(cmp -s "$work/out" "$work/first" && echo same)" ''
generate "$run" --tokens 4
expect_status 'without a prompt' 0
generate "$run" --ids --prompt '1 2' --tokens 3
expect 'ids' "$(wc -w <"$work/out")" 5

# An export takes the tokenizer of the run along, and says the same.
generate "$run" --prompt 'We the people' --tokens 8 --temperature 0 --device cpu
cp "$work/out" "$work/first"
run_dir=$run
run "$cria" export "$run_dir" "$work/exported" --dtype fp32
expect_status 'export of a run' 0
expect 'its tokenizer' "$(cmp "$work/exported/tokenizer.json" data/tokenizer.json 2>&1) $(
    grep -c '"eos_token": "<|endoftext|>"' "$work/exported/tokenizer_config.json")" ' 1'
generate "$work/exported" --prompt 'We the people' --tokens 8 --temperature 0 --device cpu
expect_same 'text of the export' out first
run "$cria" import "$work/exported" "$work/imported.safetensors"
expect_status 'import of the export' 0
train 1 moved run.steps=1 data.tokenizer="$work/exported/tokenizer.json"
rm "$work/exported/tokenizer.json"
run "$cria" export "$run" "$work/without"
expect_status 'export without its tokenizer' 0
expect_warning 'export without its tokenizer' 'gets no tokenizer: data.tokenizer .*: No such file'
run=$run_dir

# Texts during training change nothing in it, and are the same again.
words='run.steps=6 run.sample_every=4 run.sample_tokens=20 data.tokenizer=data/tokenizer.json data.eod=0'
samples() { grep '^{"kind":"sample"' "$work/$1/log.jsonl"; }
train 2 silent run.steps=6 data.eod=0 parallel.cp=2
# shellcheck disable=SC2086 # words
for name in talking again; do
    train 2 $name $words run.sample_prompt='We the' parallel.cp=2
    expect_status "$name" 0
    expect "$name: lines on the console" "$(grep -c '^sample at step [46] | We the' "$work/out")" 2
    samples $name >"$work/$name.samples"
done
logged silent weights_crc >"$work/silent.crc"
logged talking weights_crc >"$work/talking.crc"
expect_same 'weights' talking.crc silent.crc
expect 'records' "$(grep -c '"prompt":"We the","text":"..*","tokens":20}' "$work/talking.samples")" 2
expect_same 'the texts again' again.samples talking.samples
# shellcheck disable=SC2086 # words
train 1 documents $words
expect 'texts without a prompt' "$(samples documents | grep -c '"prompt":"",')" 2

# ---- one sentence ----
refuse_run() { # TEXT KEY=VALUE...
    text=$1
    shift
    # shellcheck disable=SC2086 # words
    train 2 refused $words "$@"
    expect_error "run: $*" 2 "$text"
}
refuse_run 'run.sample_every: found 4 without data.tokenizer' data.tokenizer=
refuse_run 'run.sample_every: found 4 without run.sample_prompt and data.eod' data.eod=-1
refuse_run 'missing.json: cannot open this tokenizer' data.tokenizer=missing.json
refuse_run 'run.sample_prompt: it has 79 tokens' "run.sample_prompt=$(printf '%040d' 0 | sed 's/0/0 /g')"

refuse() { # TEXT ARGUMENT...
    text=$1
    shift
    generate "$@"
    expect_refused "cria generate $*" 2 "$text"
}
refuse 'does not tell its tokenizer (data.tokenizer)' "$model"
refuse 'tokenizer.json: cannot open this tokenizer' tests/golden/hf_untied
refuse 'the prompt has the token id' "$model" --prompt 'people' --tokenizer data/tokenizer.json
refuse 'a prompt of 2 tokens and 31 new ones are more than the 32' "$work/run" --ids --prompt '1 2' --tokens 31
refuse 'a prompt of 33 tokens and 1 new ones' "$work/run" --ids --prompt "$(seq -s ' ' 33)"
refuse 'the prompt is '\''one two'\'', expected token ids' "$work/run" --ids --prompt 'one two'
refuse 'not UTF-8 at byte 1' "$work/run" --prompt "$(printf 'a\377')"
refuse "--temperature: found '-1', expected a number from 0" "$work/run" --temperature -1
refuse "--top-p: found '2', expected a number from 0 to 1" "$work/run" --top-p 2
refuse "--prompt: found '', expected TEXT; without --prompt the model begins by itself" "$work/run" --prompt=
refuse "--tokens: found '0', expected an integer from 1" "$work/run" --tokens 0
refuse "--device: found 'tpu', expected auto, cpu or cuda" "$work/run" --device tpu
refuse 'there is no checkpoint in' "$work"
refuse 'missing CHECKPOINT|DIR'
refuse 'is not a checkpoint that cria wrote' tests/golden/case1.safetensors

cp -r tests/golden/hf_untied "$work/other"
sed -i 's/"llama"/"gpt_neox"/' "$work/other/config.json"
refuse 'gpt_neox' "$work/other" --ids
cp tests/golden/hf_untied/config.json "$work/other"
printf '\377\377\377\377' | dd of="$work/other/model.safetensors" bs=1 conv=notrunc status=none \
    seek="$(($(wc -c <"$work/other/model.safetensors") - 4))"
refuse 'holds NaN or infinity at element' "$work/other" --ids --device cpu
printf x | dd of="$model" bs=1 conv=notrunc status=none seek=60000
generate "$model" --ids
expect_error 'a damaged checkpoint' 2 CRC
