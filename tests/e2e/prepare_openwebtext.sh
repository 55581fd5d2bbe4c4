#!/bin/sh
# scripts/prepare_openwebtext.py: the same bytes from every kind of input, for any number of workers,
# after being killed, and through every format and cria data pack. Needs the Python package tokenizers;
# without it there is nothing to test and that is said.
. tests/e2e/lib.sh
python=${PYTHON:-python3}
if ! "$python" -c 'import tokenizers' 2>/dev/null; then
    echo "skipped: $python has no package tokenizers"
    checks=1
    exit
fi

# Texts: words of the tokenizer's language, 400 documents of 0 to 3000 characters.
"$python" - "$work" <<'PY'
import gzip, json, random, sys
random.seed(1)
words = "the congress of united states and people shall provide for peace war commerce\n é 1898 ".split(" ")
texts = [" ".join(random.choices(words, k=random.randrange(500))) for _ in range(400)]
lines = "".join(json.dumps({"text": t, "n": 1}) + "\n" for t in texts)
open(sys.argv[1] + "/a.jsonl", "w").write(lines)
gzip.open(sys.argv[1] + "/b.jsonl.gz", "wt").write(lines)
for i, text in enumerate(texts):
    open(f"{sys.argv[1]}/t{i:03d}.txt", "w").write(text)
PY

# Small blocks, so that there are many.
prepare() {
    run "$python" -B -c "import sys; sys.path.insert(0, 'scripts'); import prepare_openwebtext as p
p.BLOCK_BYTES = 5000; p.main()" --tokenizer data/tokenizer.json "$@"
}
same() { # WHAT FILE FILE
    checks=$((checks + 1))
    cmp "$work/$2" "$work/$3" || problem "$1: $2 and $3 differ"
}
refused() { # WHAT TEXT
    expect "$1: exit status" "$status" 1
    grep -qF -- "$2" "$work/err" || { problem "$1: nothing says '$2'"; show_output; }
}

prepare --bos none --eod 0 --workers 1 --out "$work/one" "$work/a.jsonl"
expect_status 'one worker' 0
prepare --bos none --eod 0 --workers 4 --out "$work/four" "$work/b.jsonl.gz"
same 'four workers' four.bin one.bin
prepare --bos none --eod 0 --out "$work/text" "$work/t*.txt"
same 'a file a document' text.bin one.bin

# A killed run leaves finished blocks and no output; the next one goes on from them.
prepare --bos none --eod 0 --workers 2 --keep-parts --out "$work/killed" "$work/a.jsonl"
rm "$work"/killed.bin "$work"/killed.parts/0000001?
: >"$work/killed.parts/00000099.tmp"
touch -d '2001-01-01' "$work/killed.parts/00000003"
prepare --bos none --eod 0 --workers 2 --keep-parts --out "$work/killed" "$work/a.jsonl"
same 'after being killed' killed.bin one.bin
expect 'finished blocks made again' "$(find "$work/killed.parts" -name 00000003 -newermt 2002-01-01)" ''
prepare --bos 1 --eod 0 --out "$work/killed" "$work/a.jsonl"
refused 'parts of other settings' 'other settings or inputs'

# The other formats hold the same documents.
for format in megatron llmc; do
    prepare --bos none --eod 0 --format $format --shard 9000 --out "$work/$format" "$work/a.jsonl"
    expect_status "$format" 0
    run "$cria" data pack --to nanogpt --eod 0 --out "$work/from_$format" "$work/$format*.bin"
    expect_status "cria data pack from $format" 0
    same "from $format" from_$format.bin one.bin
done
prepare --bos 1 --eod 0 --val 0.1 --format megatron --out "$work/cut" "$work/a.jsonl"
run "$cria" data inspect "$work/cut_train.bin" "$work/cut_val.idx"
expect_status 'cria data inspect' 0
expect 'documents of both parts' "$(awk '/documents/ { n += $2 } END { print n }' "$work/out")" \
    "$(grep -vc '"text": ""' "$work/a.jsonl")"

prepare --out "$work/x" "$work/a.jsonl"
refused 'no policy' 'expected an id or none'
prepare --bos none --eod 0 --out "$work/x" "$work/none.jsonl"
refused 'no input' 'no file matches'
printf '{"text": "a"}\n{"txt": "b"}\n' >"$work/bad.jsonl"
prepare --bos none --eod 0 --out "$work/x" "$work/bad.jsonl"
refused 'a line without text' 'bad.jsonl, line 2'
