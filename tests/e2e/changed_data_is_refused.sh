#!/bin/sh
# Resuming on other data than the checkpoint's would train on other batches without a word: it is
# refused, exit status 2, for files that changed, grew, were renamed or joined by others, until
# run.allow_data_change says that it is meant.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

data=$work/tokens.bin
head -c 40000 data/sotu_train.bin >"$data"
train 2 kept "data.train=$data" run.steps=4 run.save_every=2
expect_status 'a run' 0
cp -r "$work/kept" "$work/before"

# changed WHAT TEXT [ARGUMENT...]: the data have changed
changed() {
    what=$1 text=$2
    shift 2
    train 2 kept "data.train=$data" run.steps=6 --resume auto "$@"
    expect_refused "$what" 2 "$text"
    expect "$what: a way on" "$(grep -c 'put back what has changed.*run.allow_data_change=true' \
        "$work/err")" 1
    run diff -r -x .lock "$work/kept" "$work/before"
    expect_status "$what: files" 0
}
was='where it had "tokens.bin 40000 '
head -c 40000 data/sotu_val.bin >"$data"
changed 'other content' "$was"
head -c 40008 data/sotu_train.bin >"$data"
changed 'appended tokens' 'found "tokens.bin 40008 '
head -c 39000 data/sotu_train.bin >"$data"
changed 'fewer tokens' 'found "tokens.bin 39000 '
head -c 40000 data/sotu_train.bin >"$data"
cp "$data" "$work/more.bin"
changed 'another file' 'found "more.bin 40000 ' "data.train=[$data, $work/more.bin]"
rm "$data"
train 2 kept "data.train=$data" run.steps=6 --resume auto
expect_refused 'no file' 2 "cannot open token file $data"

# Put back, in another place, it is the same.
head -c 40000 data/sotu_train.bin >"$data"
mkdir "$work/elsewhere" && mv "$data" "$work/elsewhere"
train 2 kept "data.train=$work/elsewhere/tokens.bin" run.steps=6 --resume auto
expect_status 'moved data' 0

head -c 40008 data/sotu_train.bin >"$data"
train 2 kept "data.train=$data" run.steps=8 --resume auto run.allow_data_change=true
expect_status 'run.allow_data_change=true' 0
expect 'a warning' "$(grep -c '^cria: warning.*found "tokens.bin 40008 ' "$work/err")" 1
train 2 kept "data.train=$data" run.steps=10 --resume auto
expect_status 'the new data from then on' 0
