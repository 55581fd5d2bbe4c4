#!/bin/sh
# timeout: 600
# scripts/prepare_openwebtext.py: the same bytes from every kind of input, for any number of workers, after
# being killed, and through every format and cria data pack; one sentence for every mistake, nothing
# finished lost. Bytes are the ids; with the Python packages tokenizers and tiktoken their ids as well.
. tests/e2e/lib.sh
python=${PYTHON:-python3}
mkdir "$work/in"

# Texts of 0 to 3000 characters, 400 documents.
"$python" - "$work/in" <<'PY'
import gzip, json, random, sys
random.seed(1)
words = "the congress of united states and people shall provide for peace war commerce\n é 1898 ".split(" ")
texts = [" ".join(random.choices(words, k=random.randrange(500))) for _ in range(400)]
lines = "".join(json.dumps({"text": t, "n": 1}) + "\n" for t in texts)
open(sys.argv[1] + "/a.jsonl", "w").write(lines)
gzip.open(sys.argv[1] + "/b.jsonl.gz", "wt").write(lines)
for i, text in enumerate(texts):
    open(f"{sys.argv[1]}/t{i:03d}.txt", "w").write(text)
open(sys.argv[1] + "/one.text", "w").write("\n".join(texts))
PY
cp "$work/in/one.text" "$work/one.txt"

# Small blocks, so that there are many. HOOK is Python that runs in a worker before block `number`.
cat >"$work/small.py" <<'PY'
import os, sys, time
sys.path.insert(0, "scripts")
import prepare_blocks as p
import prepare_openwebtext as script
p.BLOCK_BYTES = int(os.environ.get("BLOCK", 5000))
tokenize_block = p.tokenize_block
def hooked(task):
    number = task[0]
    exec(os.environ.get("HOOK", ""))
    return tokenize_block(task)
p.tokenize_block = hooked
if __name__ == "__main__":
    script.main(script.__doc__, val=0)
PY
small() { run "$python" -B "$work/small.py" "$@"; }
prepare() { small --tokenizer bytes --workers 2 "$@"; }
same() { # WHAT FILE FILE
    checks=$((checks + 1))
    cmp "$work/$2" "$work/$3" || problem "$1: $2 and $3 differ"
}
# refused WHAT STATUS TEXT: the last command said TEXT in one line
refused() {
    before=$failures
    expect "$1: exit status" "$status" "$2"
    expect "$1: lines that say '$3'" "$(grep -v '^tokenized\|^few' "$work/err" | grep -c '') $(grep -cF -- "$3" "$work/err")" '1 1'
    [ $failures = "$before" ] || show_output
}

prepare --workers 1 --out "$work/one" "$work/in/a.jsonl"
expect_status 'one worker' 0
expect 'the ids' "$(od -An -tu2 -N 12 "$work/one.bin")" "$(printf '%s' "$(
    "$python" -c 'import json, sys
text = next(t for t in (json.loads(line)["text"] for line in open(sys.argv[1])) if t)
print("".join(f"{byte:6d}" for byte in text.encode()[:6]), end="")' "$work/in/a.jsonl")")"
prepare --workers 4 --out "$work/four" "$work/in/b.jsonl.gz"
same 'four workers' four.bin one.bin
prepare --out "$work/text" "$work/in/t*.txt"
same 'a file a document' text.bin one.bin

# ---- killed --------------------------------------------------------------------------------------

HOOK='if number == 20: os.kill(os.getpid(), 9)' prepare --out "$work/killed" "$work/in/a.jsonl"
refused 'a worker is killed' 3 'a worker process was killed'
finished=$(find "$work/killed.parts" -name '000000??' | wc -l)
expect 'finished blocks of a killed worker' "$((finished > 9 && finished < 40))" 1
touch -d '2001-01-01' "$work/killed.parts/00000003"
prepare --keep-parts --out "$work/killed" "$work/in/a.jsonl"
expect_status 'after a killed worker' 0
same 'after a killed worker' killed.bin one.bin
expect 'finished blocks made again' "$(find "$work/killed.parts" -name 00000003 -newermt 2002-01-01)" ''

# The script itself: its workers end, too, and the next start goes on.
slow() { # in the background, its process id in job; a worker sleeps in block 9
    rm -f "$work/workers"
    HOOK="open('$work/workers', 'a').write(f'{os.getpid()}\n')
if number == 9: time.sleep(600)" "$python" -B "$work/small.py" --tokenizer bytes --workers 2 --out "$work/stopped" \
        "$work/in/a.jsonl" >"$work/slow" 2>&1 &
    job=$!
    cp /dev/null "$work/pids" # for kill_ranks
    wait_for test -s "$work/workers"
    wait_for test -e "$work/stopped.parts/00000010"
}
workers_gone() { # none runs
    sort -u "$work/workers" | while read -r pid; do ! kill -0 "$pid" 2>/dev/null || return 1; done
}
slow
kill -9 "$job"
ended
wait_for workers_gone
slow
prepare --out "$work/stopped" "$work/in/a.jsonl"
refused 'two at once' 2 'in use by another run'
kill -TERM "$job"
ended
mv "$work/slow" "$work/err"
refused 'SIGTERM' 4 'interrupted; the same command goes on'
wait_for workers_gone
prepare --out "$work/stopped" "$work/in/a.jsonl"
same 'after being killed and stopped' stopped.bin one.bin

# What a power failure can leave.
rm "$work"/killed.bin "$work"/killed.parts/0000001?
: >"$work/killed.parts/00000099.tmp"
: >"$work/killed.parts/00000005"
prepare --keep-parts --out "$work/killed" "$work/in/a.jsonl"
refused 'a damaged part' 3 'was damaged and is deleted'
prepare --keep-parts --out "$work/killed" "$work/in/a.jsonl"
same 'after a damaged part' killed.bin one.bin

# ---- what is there -------------------------------------------------------------------------------

prepare --bos 1 --out "$work/killed" "$work/in/a.jsonl"
refused 'parts of other settings' 2 'other settings or inputs (--bos)'
prepare --keep-parts --out "$work/killed" "$work/in/a.jsonl"
refused 'a finished output' 2 'killed.bin is there already'
prepare --bos 1 --out "$work/killed" --force "$work/in/a.jsonl"
expect_status 'force' 0
expect 'the id in front with --force' "$(od -An -tu2 -N 2 "$work/killed.bin")" '     1'
expect 'parts after --force' "$([ -e "$work/killed.parts" ] || echo none)" none
prepare --format llmc --shard 9000 --out "$work/shards" "$work/in/a.jsonl"
prepare --format llmc --shard 90000 --out "$work/shards" "$work/in/a.jsonl"
refused 'finished shards' 2 'shards_000000.bin is there already'
prepare --format llmc --shard 90000 --out "$work/shards" --force "$work/in/a.jsonl"
expect 'shards of before' "$(find "$work" -maxdepth 1 -name 'shards_*.bin' | wc -l)" "$(($(wc -c <"$work/one.bin") / 2 / 90000 + 1))"
mkdir "$work/mine.parts" && touch "$work/mine.parts/precious"
prepare --out "$work/mine" "$work/in/a.jsonl"
refused 'a folder of somebody else' 2 'holds something else'

# The other formats hold the same documents.
for format in megatron llmc; do
    prepare --format $format --shard 9000 --out "$work/$format" "$work/in/a.jsonl"
    expect_status "$format" 0
    run "$cria" data pack --to nanogpt --eod 256 --out "$work/from_$format" "$work/$format*.bin"
    expect_status "cria data pack from $format" 0
    same "from $format" from_$format.bin one.bin
done
prepare --bos 1 --val 0.1 --format megatron --out "$work/cut" "$work/in/a.jsonl"
run "$cria" data inspect "$work/cut_train.bin" "$work/cut_val.idx"
expect_status 'cria data inspect' 0
expect 'documents of both parts' "$(awk '/documents/ { n += $2 } END { print n }' "$work/out")" \
    "$(grep -vc '"text": ""' "$work/in/a.jsonl")"

# ---- one text ------------------------------------------------------------------------------------

# Cut at a line near the last 5 %, in one piece or in many, each part a document; the output says so.
for block in 100 5000 4000000; do
    BLOCK=$block prepare --val 0.05 --out "$work/b$block/" "$work/one.txt"
    expect_status "a single text, block $block" 0
    expect 'said of a single text' "$(grep -c 'few documents (1): the last 5 % of the text' "$work/out")" 1
    same 'train of a single text' b$block/train.bin b100/train.bin
    same 'val of a single text' b$block/val.bin b100/val.bin
done
"$python" - "$work" <<'PY' || problem 'a single text: train and val are not its two parts'
import array, sys
sides = []
for side in "train", "val":
    ids = array.array("H")
    ids.frombytes(open(f"{sys.argv[1]}/b100/{side}.bin", "rb").read())
    assert ids.pop() == 256 and ids.count(256) == 0
    sides.append(bytes(list(ids)))
text = open(sys.argv[1] + "/one.txt", "rb").read()
assert b"".join(sides) == text and sides[0].endswith(b"\n")
assert 0.045 * len(text) < len(sides[1]) < 0.07 * len(text)
PY
BLOCK=300 prepare --format megatron --out "$work/single" "$work/one.txt"
run "$cria" data inspect "$work/single.bin"
expect 'documents of a text in many blocks' "$(awk '/documents/ { print $2 }' "$work/out")" 1
BLOCK=300 prepare --format llmc --shard 9000 --out "$work/single" "$work/one.txt"
expect 'shards of a text in many blocks' "$(ls "$work"/single_*.bin)" "$work/single_000000.bin"
printf 'x' >"$work/x.txt"
prepare --val 0.5 --out "$work/x" "$work/x.txt"
refused 'a text too short to be cut' 2 'too short to hold out'

# ---- mistakes ------------------------------------------------------------------------------------
# mistake WHAT STATUS TEXT INPUT [ARGUMENT...]: and nothing is left that would block the next start
mistake() {
    what=$1 code=$2 text=$3 input=$4
    shift 4
    prepare --out "$work/m" "$@" "$input"
    refused "$what" "$code" "$text"
    expect "$what: what is left" "$(find "$work" -maxdepth 1 -name 'm.*' -o -maxdepth 1 -name 'm_*')" ''
}
mistake 'no input' 2 'none.jsonl is not there' "$work/none.jsonl"
mistake 'no input of a pattern' 2 'no file matches' "$work/none*.jsonl"
mkdir "$work/empty"
mistake 'an empty folder' 2 'holds no .txt, .jsonl or .parquet file' "$work/empty"
mistake 'no tokenizer.json' 2 'there is no such file' "$work/one.txt" --tokenizer "$work/tokenizer.json"
mistake 'a directory as tokenizer' 2 'is a directory' "$work/one.txt" --tokenizer "$work"
mistake 'another kind of file' 2 'expected .parquet, .jsonl or .txt' "$work/in/one.text"
mistake 'an eod that is none' 2 'found 257, expected none or an id below 257' "$work/one.txt" --eod 257
mistake 'an empty shard' 2 '--shard: found 0' "$work/one.txt" --shard 0
mistake 'no worker' 2 '--workers: found 0' "$work/one.txt" --workers 0
mistake 'a column that is not there' 2 "a.jsonl, line 1: found the fields text, n, expected" "$work/in/a.jsonl" --text body
: >"$work/empty.txt"
mistake 'an empty input' 2 'the inputs hold no text' "$work/empty.txt"
mistake 'an empty input, split' 2 'the inputs hold no text' "$work/empty.txt" --val 0.1
head -c 30000 "$work/in/b.jsonl.gz" >"$work/cut.jsonl.gz"
BLOCK=4000000 mistake 'a cut .gz' 2 'cut.jsonl.gz is cut or damaged' "$work/cut.jsonl.gz"
printf '{"text": "a"}\n{"txt": "b"}\n' >"$work/bad.jsonl"
mistake 'a line without text' 2 'bad.jsonl, line 2' "$work/bad.jsonl"
printf '{"text": "a"}\n{"text": 5}\n' >"$work/bad.jsonl"
mistake 'a number' 2 'bad.jsonl, line 2: found 5, expected a text' "$work/bad.jsonl"
printf '{"text": "a"}\n\n{"text": \n' >"$work/bad.jsonl"
mistake 'no JSON' 2 'bad.jsonl, line 3: not JSON' "$work/bad.jsonl"
printf '[{"text": "a"},\n{"text": "b"}]\n' >"$work/bad.jsonl"
mistake 'a JSON array' 2 'bad.jsonl, line 1: ' "$work/bad.jsonl"
printf '{"text": "fine"}\n{"text": "half a pair \\ud800"}\n{"text": "fine"}\n' >"$work/half.jsonl"
mistake 'half a surrogate pair' 2 'half.jsonl, line 2: \ud800 at character 12' "$work/half.jsonl"
mistake 'half a surrogate pair, split' 2 'half.jsonl, line 2' "$work/half.jsonl" --val 0.1
{ cat "$work/one.txt"; printf 'caf\351 noir'; } >"$work/latin.txt" # read in pieces
bytes=$(wc -c <"$work/one.txt")
mistake 'a text that is not UTF-8' 2 "latin.txt: byte $((bytes + 3)), 0xe9, is not UTF-8" "$work/latin.txt"
mkdir "$work/file.parts.d" && : >"$work/file"
prepare --out "$work/file/x" "$work/one.txt"
refused 'a folder that is a file' 2 'Not a directory'

# What --bad says: half a pair and bytes that are not UTF-8.
prepare --bad skip --out "$work/skip" "$work/half.jsonl" "$work/latin.txt"
expect_status 'skip' 0
expect 'left out' "$(grep -c '^2 documents with mistakes were left out' "$work/out")" 1
expect 'size without them' "$(wc -c <"$work/skip.bin")" 20
prepare --bad replace --out "$work/replace" "$work/half.jsonl"
expect 'U+FFFD' "$(od -An -tu2 -j $((2 * (5 + 12))) -N 6 "$work/replace.bin")" '   239   191   189'

# The corrected command goes on, whatever the failed one had said.
prepare --text body --out "$work/own" "$work/in/a.jsonl"
prepare --out "$work/own" "$work/in/b.jsonl.gz"
expect_status 'a corrected command' 0
same 'a corrected command' own.bin one.bin

# ---- tokenizers ----------------------------------------------------------------------------------

prepare --tokenizer data/tokenizer.json --out "$work/x" "$work/in/a.jsonl"
if [ $status = 3 ]; then
    refused 'no package' 3 'needs the package tokenizers'
    echo "not tested with tokenizers: $python has no such package"
else
    expect_status 'ids of a usual name' 0
    sed 's/"<|endoftext|>"/"<|over|>"/' data/tokenizer.json >"$work/over.json"
    prepare --tokenizer "$work/over.json" --out "$work/over" "$work/in/a.jsonl"
    refused 'ids of no usual name' 2 'expected an id or none'
    hf() { small --tokenizer data/tokenizer.json --bos none --eod 0 --workers 2 "$@"; }
    printf '{"text": "how <|endoftext|> is written"}\n{"text": "two"}\n' >"$work/special.jsonl"
    hf --out "$work/special" "$work/special.jsonl"
    run "$cria" data inspect --eod 0 "$work/special.bin"
    expect 'documents with the text of a special token' "$(awk '/documents/ { print $2 }' "$work/out")" 2
    BLOCK=4000000 hf --out "$work/hf1" "$work/one.txt"
    BLOCK=2000 hf --out "$work/hf2" "$work/one.txt"
    same 'a text in segments, tokenizers' hf2.bin hf1.bin
    hf --out "$work/y" "$work/half.jsonl"
    refused 'half a surrogate pair, tokenizers' 2 'half.jsonl, line 2'
    sed 's/"<|endoftext|>"/"the"/' data/tokenizer.json >"$work/the.json"
    small --tokenizer "$work/the.json" --bos none --eod 0 --out "$work/x" "$work/one.txt"
    refused 'text that gives a special id' 2 "the special id"
    echo '{}' >"$work/no.json"
    small --tokenizer "$work/no.json" --bos none --eod 0 --out "$work/x" "$work/one.txt"
    refused 'no tokenizer.json' 2 'is not a tokenizer.json'
fi

# Llama 3's way: 256 bytes, some merges and what fills it up to 128,000; "<|end_of_text|>" is text.
"$python" - "$work/model" <<'PY'
import base64, sys
tokens = [bytes([i]) for i in range(256)] + [b" the", b"th", b"he", b"end"]
tokens += [b"\0\0" + i.to_bytes(3, "big") for i in range(128000 - len(tokens))]
open(sys.argv[1], "w").writelines(f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate(tokens))
PY
printf '{"text": "the <|end_of_text|> <|special_1|>"}\n' >"$work/special.jsonl"
small --tokenizer "$work/model" --workers 1 --out "$work/llama" "$work/special.jsonl"
if [ $status = 3 ]; then
    refused 'no package' 3 'needs the package tiktoken'
    echo "not tested with tiktoken: $python has no such package"
else
    run "$cria" data inspect "$work/llama.bin"
    expect 'documents, llama' "$(awk '/documents/ { print $2 }' "$work/out")" 1
    expect 'special ids of a text' "$(od -An -v -w4 -td4 "$work/llama.bin" | awk '$1 >= 128000' | wc -l)" 2
    model() { # TEXT: $work/no.model is refused so
        small --tokenizer "$work/no.model" --bos none --eod 0 --out "$work/x" "$work/one.txt"
        refused 'no tokenizer.model' 2 "$1"
    }
    head -n 300 "$work/model" >"$work/no.model"
    model 'has 300 ranks'
    tail -n 300 "$work/model" >"$work/no.model"
    model 'is cut'
    { cat "$work/model"; echo 'x y z'; } >"$work/no.model"
    model 'no.model, line 128001'
    run env TIKTOKEN_CACHE_DIR= https_proxy=http://127.0.0.1:1 "$python" -B scripts/prepare_openwebtext.py \
        --tokenizer gpt2 --out "$work/x" "$work/one.txt"
    refused 'gpt2 without a network' 3 'tiktoken cannot fetch'
fi
