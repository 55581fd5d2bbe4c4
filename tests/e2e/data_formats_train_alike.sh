#!/bin/sh
# The same tokens train the same whatever file they come from: packed into every format, compressed, in
# one file or by a pattern; and Megatron's order and split are the same on any number of ranks.
. tests/e2e/lib.sh

pack() { # NAME ARGUMENT...
    name=$1
    shift
    run "$cria" data pack --out "$work/$name" "$@"
    expect_status "cria data pack of $name" 0
}
# curve_of NAME RANKS ARGUMENT...
curve_of() {
    name=$1 ranks=$2
    shift 2
    rm -rf "${work:?}/$name"
    train "$ranks" "$name" "$@"
    expect_status "$name" 0
    curve "$name" "$name.curve"
}

pack raw --to nanogpt data/sotu_val.bin
pack zipped --to nanogpt --gzip data/sotu_val.bin
pack shards --to llmc --eod none data/sotu_val.bin
pack pair --to megatron --eod 0 data/sotu_val.bin
curve_of plain 1 "data.train=$work/raw.bin" data.format=auto
for file in zipped.bin.gz shards.bin pair.idx 'z*.gz'; do
    curve_of other 1 "data.train=$work/$file" data.format=auto
    expect_same "trained on $file" other.curve plain.curve
done

# With documents: the index says what the id says.
curve_of by_id 1 "data.train=$work/raw.bin" data.format=nanogpt data.eod=0 data.mask=document
curve_of by_index 2 "data.train=$work/pair" data.format=megatron data.mask=document
expect_close 'documents by the index' by_index.curve by_id.curve "$(grep -c '' "$work/by_id.curve")"

# Evaluation data from the split.
megatron="data.format=megatron data.order=megatron data.split=7,3,0 data.val=[] run.eval_every=2"
# shellcheck disable=SC2086 # a list of arguments
curve_of order1 1 "data.train=$work/pair.bin" $megatron
evaluated=$(grep -c '"kind":"eval"' "$work/order1/log.jsonl")
expect 'evaluations' "$((evaluated > 0))" 1
# shellcheck disable=SC2086
curve_of order2 2 "data.train=$work/pair.bin" $megatron
expect_close "Megatron's order on two ranks" order2.curve order1.curve "$(grep -c '' "$work/order1.curve")"

train 1 bad "data.train=$work/raw.bin" data.format=auto data.order=megatron
expect_refused 'an order without an index' 2 "data.order megatron needs the document index"
