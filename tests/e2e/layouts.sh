#!/bin/sh
# The program in src/ckpt/LAYOUT.md reads a checkpoint, and the page names each tensor and entry of one; the mask of
# src/attn/MASK_FILES.md is what it draws.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

page=src/ckpt/LAYOUT.md
train 2 run run.steps=2 model.tie_embeddings=false
expect_status 'a run' 0
checkpoint=$(newest)
awk '/^```/ { on = /python/; next } on' $page >"$work/reader.py"
run python3 "$work/reader.py" "$checkpoint"
expect_status "the reader of $page" 0
expect 'what it says first' "$(head -n 1 "$work/out")" 'step 2 tokens 512'
expect 'tensors' "$(grep -c greatest "$work/out")" 63
expect 'an embedding' "$(grep -c '^model.embed_tokens.weight \[4096, 16\] greatest 0\.' "$work/out")" 1

cp "$checkpoint" "$work/bad.safetensors"
printf 'xxxx' | dd of="$work/bad.safetensors" bs=1 seek=$(($(wc -c <"$checkpoint") - 100)) conv=notrunc 2>/dev/null
run python3 "$work/reader.py" "$work/bad.safetensors"
expect_status 'the reader on a damaged file' 1
expect 'the damaged tensor' "$(grep -c 'optim.v.lm_head.weight is damaged' "$work/err")" 1

cat >"$work/names.py" <<'END'
import json, pathlib, re, struct, sys, zlib

page, path = sys.argv[1:]
rows = re.findall(r"(?m)^\| `([^`]+)` \| ([^\n]*) \|$", pathlib.Path(page).read_text())
rows = dict(rows)
data = pathlib.Path(path).read_bytes()
length, = struct.unpack("<Q", data[:8])
text = data[8:8 + length]
header = json.loads(text)
entries = header.pop("__metadata__")
size = {"H": 8, "K": 4, "D": 4, "C": 16, "F": 32, "V": 4096}
seen = set()
def row(name):
    name = re.sub(r"^crc\..*", "crc.NAME", re.sub(r"^optim\.(.)\..*", r"optim.\1.NAME", name))
    return re.sub(r"layers\.\d+\.", "layers.N.", name)
for name in [*header, *entries]:
    seen.add(row(name))
    if row(name) not in rows:
        print(f"{page} does not explain {row(name)}: add the line \"| `{row(name)}` | what it is |\"")
for name, tensor in header.items():
    if name.startswith("optim."):
        if tensor["shape"] != header[name[8:]]["shape"]:
            print(name, "has another shape than its weight")
        continue
    dims = re.match(r"\[([^]]*)\]", rows.get(row(name), "[]"))[1].split(", ")
    shape = []
    for dim in dims:
        n = 1
        for letter in dim.split():
            n *= size[letter]
        shape.append(n)
    if shape != tensor["shape"] or tensor["dtype"] != "F32":
        print(f"{page}: {name} is {tensor['dtype']} {tensor['shape']}, not {shape}")
written = set(re.findall(r'"(cria\.[a-z_]+)"', "".join(p.read_text() for p in pathlib.Path("src").rglob("*.[ch]"))))
for name in written - set(rows) - seen:
    print(f"{page} does not explain {name}: add the line \"| `{name}` | what it is |\"")
for name in set(rows) - seen - written:
    print(f"{page} explains {name}, which the checkpoint does not have")
zeroed = text.replace(f'"header_crc":"{entries["header_crc"]}"'.encode(), b'"header_crc":"00000000"', 1)
weights = b"".join(data[8 + length + t["data_offsets"][0]:8 + length + t["data_offsets"][1]]
                   for name, t in header.items() if not name.startswith("optim."))
for name, found in ("header_crc", zeroed), ("cria.weights_crc", weights):
    if entries[name] != f"{zlib.crc32(found):08x}":
        print(name, "is not what the page says")
skipped, in_a_row, n, *numbers = entries["cria.guard"].split()
if int(n) != 2 or len(numbers) != 4:
    print("cria.guard is not what the page says")
if length % 64 != 56 or 12 * 137296 + 8 + length != len(data):
    print("the file's size", length, len(data))
END
run python3 "$work/names.py" $page "$checkpoint"
expect_status "names and checksums of $page" 0
expect "names and checksums of $page" "$(cat "$work/out")" ''
grep -v '^| .cria.samples. ' $page >"$work/page.md"
run python3 "$work/names.py" "$work/page.md" "$checkpoint"
expect 'an entry without a line' "$(grep -c 'does not explain cria.samples: add the line' "$work/out")" 1

page=src/attn/MASK_FILES.md
sed -n 's/^    \([0-9]* [0-9]* [0-9]* [0-9]* [A-Z_].*\)/\1/p' $page >"$work/mask.txt"
sed -n 's/^        [0-9] \([x. ]*\)$/\1/p' $page >"$work/drawn"
cat >"$work/mask.py" <<'END'
import sys
sees = [["."] * 8 for _ in range(8)]
for line in open(sys.argv[1]):
    q0, q1, k0, k1, kind = line.split("#")[0].split()
    q0, q1, k0, k1 = map(int, (q0, q1, k0, k1))
    for q in range(q0, q1):
        for k in range(k0, k1):
            if kind == "FULL" or k - k0 <= q - q0 + (k1 - k0) - (q1 - q0):
                sees[q][k] = "x"
print(*(" ".join(row) for row in sees), sep="\n")
END
run python3 "$work/mask.py" "$work/mask.txt"
expect_same "the mask drawn in $page" out drawn
run "$cria" plan "$config" --mask-file "$work/mask.txt" model.seq_len=8 batch.micro=1 --ranks 2 parallel.cp=2 --json
expect_status 'a plan of it' 0
expect 'pairs of its plan' "$(sed 's/.*"area":\([0-9]*\),"imbalance.*/\1/' "$work/out")" "$(tr -cd x <"$work/drawn" | wc -c)"
