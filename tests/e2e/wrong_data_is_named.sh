#!/bin/sh
# Data that were not meant are named for what they are: files that hold no ids, ids of another width, an
# eod that never occurs, another vocabulary, evaluation data without a target. What changes under a run
# does not harm it, and a killed run leaves nothing in TMPDIR.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

make_ids() { # FILE TYPE COUNT EXPRESSION of i: an array of python's type
    python3 -c "import array; array.array('$2', [$4 for i in range($3)]).tofile(open('$work/$1', 'wb'))"
}

# ---- files that hold no ids ------------------------------------------------------------------------

cp README.md "$work/text.bin"
gzip -c README.md >"$work/text.gz"
train 1 model run.steps=1
checkpoint=$work/model/step_00000001.safetensors
while IFS='|' read -r file what; do
    train 2 refused "data.train=$file"
    expect_refused "train on $file" 2 "$file is $what"
    train 1 refused "data.val=$file" run.eval_every=1 data.format=nanogpt
    expect_refused "evaluate on $file" 2 "$file is $what"
    run "$cria" data inspect "$file"
    expect_refused "inspect $file" 2 "$file is $what"
    run "$cria" data pack --to megatron --eod 1 --out "$work/packed" "$file"
    expect_refused "pack $file" 2 "$file is $what"
done <<END
$work/text.bin|text, expected token ids (nanogpt, megatron or llmc); scripts/prepare.py turns it
$work/text.gz|text, compressed with gzip, expected token ids
$checkpoint|a safetensors file (weights or a checkpoint), expected token ids
data/tokenizer.json|text (JSON), expected token ids
END
expect 'files left by pack' "$(find "$work" -name 'packed*')" ''

# ---- ids of another width, an eod that they cannot hold ---------------------------------------------

make_ids wide.bin I 9000 '128001 if i % 50 == 0 else i * 7919 % 128000'
wide="data.train=$work/wide.bin model.vocab=128256 data.eod=128001 data.mask=document"
# shellcheck disable=SC2086 # words
train 1 refused $wide
expect_refused '32-bit ids' 2 "wide.bin looks like 32-bit ids"
# shellcheck disable=SC2086
train 1 refused $wide data.format=nanogpt
expect_error '32-bit ids as uint16' 2 'data.eod is 128001, which cannot occur'
run "$cria" data inspect --eod 128001 --vocab 128256 data/sotu_val.bin
expect_refused 'inspect with an eod that uint16 cannot hold' 2 '--eod is 128001, which cannot occur'
run "$cria" data inspect --eod 50256 --vocab 5000 data/sotu_val.bin
expect_refused 'inspect with an eod beyond the vocabulary' 2 'expected an id below --vocab 5000'
run "$cria" data inspect --eod 3 data/sotu_val.bin
expect_status 'inspect with an eod that does not occur' 0
expect 'inspect: note' "$(grep -c 'id 3 does not occur' "$work/out")" 1

# ---- one warning each, from one rank ----------------------------------------------------------------

warned() { # WHAT PATTERN ARGUMENT...
    what=$1 pattern=$2
    shift 2
    rm -rf "$work/warned"
    train 2 warned run.steps=1 "$@"
    expect_status "$what" 0
    expect_warning "$what" "$pattern"
    expect "$what: lines on stderr" "$(grep -c '' "$work/err")" 1
}
make_ids even.bin H 100000 '2 * (i * 7919 % 2000)'
warned 'eod that does not occur, document mask' \
    'data.eod 261, needed for data.mask document, does not occur in the 100000 tokens of' \
    "data.train=$work/even.bin" data.eod=261 data.mask=document
warned 'eod that does not occur, the rest' 'needed for data.reset_positions and data.eod_mask_loss, does' \
    "data.train=$work/even.bin" data.eod=261 data.reset_positions=true data.eod_mask_loss=true
warned 'ids far below the vocabulary' 'the largest id in the first 650962 tokens .* is 409[0-9], far below' \
    model.vocab=50257
warned 'a vocabulary beyond uint16' 'the ids of .* are uint16, at most 65535' model.vocab=65600
head -c 2000 data/sotu_train.bin >"$work/few.bin"
rm -rf "$work/warned"
train 1 warned "data.train=$work/few.bin" run.steps=4000 --dry-run
expect_warning 'thousands of epochs' 'the run is 1032 epochs of data.train, whose files hold 1000 tokens'
make_ids eods.bin H 2000 260
rm -rf "$work/warned"
train 2 warned run.steps=2 run.eval_every=1 "data.val=$work/eods.bin" data.eod_mask_loss=true
expect_status 'evaluation without a target' 0
expect_warning 'evaluation without a target' 'the evaluation data have no target'
expect 'evaluation without a target: records' "$(grep -c '"kind":"eval"' "$work/warned/log.jsonl")" 0

# ---- what changes, what is left ---------------------------------------------------------------------

# An index of 16,000 documents, which the ranks share: 128 KB.
make_ids many.bin H 200000 '3 + i % 90 if i % 12 else 2'
run "$cria" data pack --to megatron --eod 2 --out "$work/pair" "$work/many.bin"
expect_status 'a pair' 0
export TMPDIR="$work/tmp"
mkdir "$TMPDIR"
left() { find "$TMPDIR" -name 'cria-*' | wc -l; }
long="data.train=$work/pair data.mask=document data.order=megatron run.steps=20000 run.log_every=1"
# shellcheck disable=SC2086
start 2 kept $long
wait_for steps_done 3
expect 'files in TMPDIR during a run' "$(left)" 0
truncate -s 100 "$work/pair.idx"
wait_for steps_done "$(($(steps_logged) + 50))"
kill_ranks TERM
ended
expect_status 'a run whose index was cut' 4
kill_ranks KILL
expect 'files in TMPDIR after it' "$(left)" 0

# A process that dies while the others wait for it leaves a file, which the next start deletes.
run "$cria" data pack --to megatron --eod 2 --force --out "$work/pair" "$work/many.bin"
with_faults 'call=flock,path=tmp/cria-,nth=2,do=kill' train 1 killed run.steps=1 "data.train=$work/pair"
expect 'files of a killed start' "$(left)" 1
train 1 next run.steps=1 "data.train=$work/pair" data.order=megatron
expect_status 'the start after it' 0
expect 'files after the next start' "$(left)" 0
