#!/bin/sh
# Evaluation: named sets against each alone, bits per byte against the bytes of the decoded text, losses by
# position against shorter sequences and a count, and all of it for several ranks and backends.
. tests/e2e/lib.sh
python=${PYTHON:-python3}
common='run.steps=1 run.eval_every=1 batch.global=4 data.tokenizer=data/tokenizer.json'

# cut NAME FIRST TOKENS: ids of data/sotu_val.bin
cut_ids() { tail -c "+$((2 * $2 + 1))" data/sotu_val.bin | head -c "$((2 * $3))" >"$work/$1.bin"; }
cut_ids web 0 1025
cut_ids books 3000 289
for i in 0 1 2 3; do cut_ids "start$i" "$((32 * i))" 17; done
# ids of one byte pair each: text, the end of a document (id 0, special), text
printf '\5\0\0\0\7\0' >"$work/marked.bin"
printf '\5\0\0\0' >"$work/special.bin"
printf '\0\0\7\0' >"$work/text.bin"

val() { # RUN ARGUMENT...: with the sets
    run_name=$1 n=$2
    shift 2
    # shellcheck disable=SC2086 # words
    train "$n" "$run_name" $common "$@"
    expect_status "$run_name" 0
}
sets="data.val={web: $work/web.bin, books: [$work/books.bin]}"
val both 1 "$sets" log.tensorboard=true
expect 'console' "$(grep '^eval at step 1' "$work/out" | sed 's/[0-9][0-9]*\.[0-9]*/N/g' | awk 'length > 99 { print "too long" } { print }')" \
    'eval at step 1 | loss N N bits/byte over 1312 held-out tokens
eval at step 1 | web: loss N N bits/byte over 1024 held-out tokens
eval at step 1 | books: loss N N bits/byte over 288 held-out tokens'
for tag in 'lm loss validation/web' 'bits per byte validation/books' 'lm loss validation ppl'; do
    expect "TensorBoard: $tag" "$(cat "$work"/both/events* | grep -aq "$tag" && echo there)" there
done
val web 1 "data.val=$work/web.bin"
val books 1 "data.val=$work/books.bin"
val all 1 "$sets" run.eval_sequences=0
val some 1 "$sets" run.eval_sequences=7
val document 1 "$sets" data.mask=document
val untold 1 "$sets" data.tokenizer= run.steps=1
val dp2 2 "$sets" run.eval_sequences=7
val magi2 2 "$sets" parallel.cp=2 data.mask=document parallel.chunk_size=4
val magi4 4 "$sets" parallel.cp=4
val ring2 2 "$sets" parallel.cp=2 parallel.backend=ring
val halves 1 model.seq_len=16 "data.val={a: $work/start0.bin, b: $work/start1.bin, c: $work/start2.bin, d: $work/start3.bin}"
val four 1 "data.val={web: $work/web.bin}" run.eval_sequences=4
val marked 1 model.seq_len=1 "data.val={marked: $work/marked.bin, special: $work/special.bin, text: $work/text.bin}"

cat >"$work/check.py" <<'END'
import array, json, math, sys
work = sys.argv[1]
T = 32


def evaluation(run, step=0):
    for line in open(f"{work}/{run}/log.jsonl"):
        record = json.loads(line)
        if record["kind"] == "eval" and record["step"] == step:
            return record


def ids(name):
    out = array.array("H")
    out.frombytes(open(f"{work}/{name}.bin", "rb").read())
    return out


def check(what, good, *shown):
    print("ok" if good else "bad:", what, *([] if good else shown))


def close(what, a, b, tolerance=1e-5):
    check(what, abs(a - b) <= tolerance * abs(b), a, b)


def leaves(x):
    return [leaf for v in x for leaf in leaves(v)] if isinstance(x, list) else [x]


# the byte-level alphabet of GPT-2
chars = [*range(33, 127), *range(161, 173), *range(174, 256)]
byte = {chr(c): c for c in chars}
byte.update({chr(256 + i): c for i, c in enumerate(c for c in range(256) if c not in chars)})
vocabulary = json.load(open("data/tokenizer.json"))["model"]["vocab"]
text = {i: bytes(byte[c] for c in word) for word, i in vocabulary.items() if word != "<|endoftext|>"}

both, web, books = evaluation("both", 1), evaluation("web", 1), evaluation("books", 1)
for name, alone in ("web", web), ("books", books):
    for key in "loss", "tokens", "bpb", "ppl", "by_position":
        check(f"{name}: {key} as alone", both["sets"][name][key] == alone[key], both["sets"][name][key], alone[key])
    check(f"{name}: no sets", "sets" not in alone)
close("all: loss", both["loss"], (web["loss"] * 1024 + books["loss"] * 288) / 1312, 1e-12)
check("all: tokens", both["tokens"] == 1312)
close("all: perplexity", both["ppl"], math.exp(both["loss"]), 1e-8)
for name, record, tokens in ("web", web, 1024), ("books", books, 288):
    labels = ids(name)[1:tokens + 1]
    check(f"{name}: no special token", 0 not in labels)
    decoded = b"".join(text[i] for i in labels)
    close(f"{name}: bits per byte", record["bpb"], record["loss"] * tokens / math.log(2) / len(decoded), 1e-6)
check("all of a set is more than 4 x batch.global", evaluation("all")["tokens"] == 1312)
check("a number of sequences", evaluation("some")["tokens"] == 2 * 7 * T)
check("without a tokenizer", "bpb" not in json.dumps(evaluation("untold")))

marked = evaluation("marked")["sets"]
check("a special token is in the loss", marked["marked"]["tokens"] == 2)
close("a special token is in no bit", marked["marked"]["bpb"],
      marked["text"]["loss"] / math.log(2) / len(text[7]), 1e-6)
check("and alone has none", "bpb" not in marked["special"])

# by position
halves, four = evaluation("halves"), evaluation("four")
check("ends", [row[0] for row in four["by_position"]] == [16, 32] and [row[0] for row in halves["by_position"]] == [16])
close("loss of the first half", four["by_position"][0][1], halves["loss"], 1e-6)
for run, documents in ("both", False), ("document", True):
    count, data = [0, 0], ids("web")
    for first in range(0, 1024, T):
        begin = first
        for s in range(first, first + T):
            if documents and s > first and data[s - 1] == 260:
                begin = s
            count[s - begin >= 16] += 1
    record = evaluation(run)["sets"]["web"]
    rows = record["by_position"]
    check(f"{run}: tokens by position", [row[2] for row in rows] == count, rows, count)
    close(f"{run}: their loss", sum(row[1] * row[2] for row in rows), record["loss"] * 1024, 1e-6)

for run, one in ("dp2", "some"), ("magi2", "document"), ("magi4", "both"), ("ring2", "both"):
    for step in 0, 1:
        found, expected = evaluation(run, step), evaluation(one, step)
        for a, b in (found, expected), *((found["sets"][n], expected["sets"][n]) for n in found["sets"]):
            for key in "loss", "bpb", "tokens", "by_position":
                for x, y in zip(leaves([a[key]]), leaves([b[key]]), strict=True):
                    close(f"{run}: {key}", x, y)
END
"$python" "$work/check.py" "$work" >"$work/judged" 2>&1
expect 'values: exit status' "$?" 0
expect 'values: good ones' "$([ "$(grep -c '^ok' "$work/judged")" -gt 100 ] && echo many)" many
expect 'values: bad ones' "$(grep -v '^ok' "$work/judged" | head -n 5)" ''

# ---- mistakes --------------------------------------------------------------------------------------

mistake() { # TEXT VALUE [ARGUMENT...]
    text=$1 value=$2
    shift 2
    # shellcheck disable=SC2086 # words
    train 1 refused $common "data.val=$value" "$@"
    expect_error "data.val=$value" 2 "$text"
    expect "data.val=$value: run.dir" "$([ -e "$work/refused" ] && echo made)" ''
}
mistake 'data.val: found the set web twice, expected each name once' "{web: a.bin, web: b.bin}"
mistake 'data.val: found no file in the set web, expected one or more' "{web: []}"
mistake 'data.val: found no file in the set web, expected one or more' "{web: }"
mistake "found 'a b', expected the name of a set" "{a b: a.bin}"
mistake "found 'path', expected the name of a set" "{path: a.bin}"
mistake "data.val: books: cannot open token file $work/none.bin" "{web: $work/web.bin, books: $work/none.bin}"
mistake 'found weights on 1 of 2 files of the set web' "{web: [{path: a, weight: 1}, b], books: c}"
mistake "$work/none.json" "$work/web.bin" "data.tokenizer=$work/none.json"
