#!/bin/sh
# scripts/prepare.py: README's lines from a text to a trained model that writes, as they stand there; the
# command that the script prints; folders, and what cuts a text into documents.
. tests/e2e/lib.sh
python=${PYTHON:-python3}
root=$PWD
project=$work/project
mkdir -p "$project/data" "$project/texts/more.parts" "$work/bin"
ln -s "$root/scripts" "$root/configs" "$project"
ln -s "$root/${BUILD:-build}" "$project/build"
cp data/tokenizer.json "$project/data"
cat README.md CONTRIBUTING.md >"$project/mine.txt"
printf '#!/bin/sh\nexec %s "$@"\n' "$(command -v "$python")" >"$work/bin/python3"
chmod +x "$work/bin/python3"
export PATH="$work/bin:$PATH" PYTHONDONTWRITEBYTECODE=1
cd "$project" || exit 3

short='run.steps=5 optim.warmup_steps=2 run.eval_every=5 run.sample_every=0'
# shell LINE: of README or of the script's output; training ends after 5 steps
# shellcheck disable=SC2016
shell() { run sh -c "case \$0 in *'cria train'*) eval \"\$0 $short\" ;; *) eval \"\$0\" ;; esac" "$1"; }
trained() { # WHAT RUN
    expect "$1: steps" "$(grep -c '"kind":"step"' "$2/log.jsonl")" 5
    expect "$1: held-out loss" "$(grep -c '"kind":"eval".*"loss":[0-9]' "$2/log.jsonl")" 2
}

# ---- README's lines ------------------------------------------------------------------------------

sed -n '/^## Your own text/,/^## [^Y]/s/^    //p' "$root/README.md" >"$work/lines"
expect 'lines in README' "$(wc -l <"$work/lines")" 4
if python3 -c 'import tokenizers' 2>/dev/null; then
    sed 1d "$work/lines" >"$work/commands"
    while read -r line; do
        shell "$line"
        expect_status "$line" 0
        case $line in
            scripts*) cp "$work/out" "$work/prepared" ;;
        esac
    done <"$work/commands"
    expect 'README: generated text' "$([ "$(wc -w <"$work/out")" -gt 5 ] || cat "$work/out")" ''
    trained README runs/mine
    expect 'what was printed' "$(grep -cx ' *\(train: data/mine_train.bin\|val: data/mine_val.bin\|eod: 0\|vocab: 4096\|tokenizer: data/tokenizer.json\)' \
        "$work/prepared")" 5
else
    echo "not tested: README's lines, for which $python has no package tokenizers"
fi

# ---- without a package ---------------------------------------------------------------------------

run scripts/prepare.py mine.txt --tokenizer bytes --out data/bytes
expect_status 'bytes' 0
expect 'said of one text' "$(grep -c 'mine.txt: one document (\|few documents (1): the last 5 %' "$work/out")" 2
shell "$(sed -n '/^To train/,$p' "$work/out" | sed 1d)"
expect_status 'the printed command' 0
trained 'the printed command' runs/bytes
# A text ends where the model draws the end of a document, which depends on the CPU's arithmetic: several seeds.
: >"$work/ids"
for seed in 0 1 2 3 4 5 6 7; do
    run build/cria generate runs/bytes --ids --prompt '84 104 101' --tokens 8 --seed "$seed"
    expect_status 'ids of bytes' 0
    cat "$work/out" >>"$work/ids"
done
expect 'prompt, then ids that are bytes' "$(awk '{ for (i = 4; i <= NF; i++) if ($i < 0 || $i > 256) bad = 1 }
    /^84 104 101( |$)/ { texts++ } NF > longest { longest = NF } END { print texts, bad + 0, (longest > 6) }' "$work/ids")" '8 0 1'

# ---- documents -----------------------------------------------------------------------------------

printf 'one\n\n\ntwo\ntwo\n \n<|endoftext|>\nthree\fthree\n' >t.txt
# cut WAY DOCUMENT...: as bytes, a newline printed as ~
cut() {
    way=$1
    shift
    run scripts/prepare.py t.txt --tokenizer bytes --val 0 --split-on "$way" --out t --force
    expect_status "split on $way" 0
    expect "split on $way" "$(od -An -v -w2 -tu2 t.bin | awk '{ printf $1 == 256 ? "|" : $1 == 10 ? "~" : $1 == 12 ? "^" : "%c", $1 }')" "$1"
}
cut auto 'one~~~two~two~ |three^three|'
cut file 'one~~~two~two~ ~<|endoftext|>~three^three~|'
cut blank 'one|two~two|<|endoftext|>~three^three|'
cut page 'one~~~two~two~ ~<|endoftext|>~three|three|'
cut '<|endoftext|>' 'one~~~two~two~ |three^three|'
cut 9 'one~~~two~|two~ ~<|endoftext|>~|three^three~|'

# A folder: sorted, without what is hidden, blocks of the script, or files of other kinds.
printf 'b' >texts/b.txt
printf '{"text": "a"}\n' | gzip >texts/a.jsonl.gz
mkdir texts/sub texts/.git
printf 'c' >texts/sub/c.txt
cp texts/b.txt texts/.hidden.txt
cp texts/b.txt texts/.git/x.txt
cp texts/b.txt texts/more.parts/settings.json
cp texts/b.txt texts/picture.png
run scripts/prepare.py texts --tokenizer bytes --val 0 --out folder
expect_status 'a folder' 0
expect 'a folder' "$(od -An -v -w2 -tu2 folder.bin | awk '{ printf $1 == 256 ? "|" : "%c", $1 }')" 'a|b|c|'

# ---- mistakes ------------------------------------------------------------------------------------
mistake() { # WHAT STATUS TEXT ARGUMENT...
    what=$1 code=$2 text=$3
    shift 3
    run scripts/prepare.py --out m "$@"
    expect "$what: exit status" "$status" "$code"
    expect "$what: '$text' in one line" "$(grep -c '' "$work/err") $(grep -cF -- "$text" "$work/err")" '1 1'
    expect "$what: what is left" "$(find . -name 'm.*' -o -name 'm_*')" ''
}
mistake 'no such file' 2 'none.txt is not there' --tokenizer bytes none.txt
mistake 'no tokenizer' 2 '--tokenizer' t.txt
mistake 'an option that is not known' 2 'unknown option --splt' --tokenizer bytes --splt blank t.txt
mistake 'an empty separator' 2 '--split-on: found' --tokenizer bytes --split-on '' t.txt
printf 'fine\n\ncaf\351\n' >latin.txt
mistake 'not UTF-8' 2 'latin.txt, document 2: byte 9, 0xe9, is not UTF-8' --tokenizer bytes --split-on blank latin.txt
mkdir "$work/modules"
echo 'raise ImportError("no module named tokenizers")' >"$work/modules/tokenizers.py"
export PYTHONPATH="$work/modules"
mistake 'no package' 3 'python3 -m pip install tokenizers' --tokenizer data/tokenizer.json t.txt
