#!/bin/sh
# One flipped bit anywhere in a checkpoint (its length, metadata, padding, tensors), one cut anywhere,
# one byte too many: cria check refuses it, and --resume auto says why it takes the one before.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

train 2 run run.steps=4 run.save_every=2
expect_status 'a run' 0
newer=step_00000004.safetensors
run "$cria" check "$run/$newer"
expect_status 'the checkpoint' 0

# Copies of it, each damaged at a place that the seed chooses; a line "FILE WHAT" for each.
seed=$(od -An -t u4 -N 4 /dev/urandom | tr -d ' ')
echo "seed $seed"
mkdir "$work/bad"
python3 - "$run/$newer" "$work/bad" "$seed" >"$work/list" <<'END'
import random, sys
data = open(sys.argv[1], "rb").read()
random.seed(int(sys.argv[3]))
tensors = 8 + int.from_bytes(data[:8], "little")
json_end = len(data[:tensors].rstrip())
places = {"length": (0, 8), "metadata": (8, 3000), "end-of-header": (json_end - 1, tensors),
          "tensors": (tensors, len(data)), "last-bytes": (len(data) - 8, len(data)),
          "anywhere": (0, len(data))}


def put(name, content, what):
    open(f"{sys.argv[2]}/{name}", "wb").write(content)
    print(name, what)


for place, (begin, end) in places.items():
    for i in range(8):
        at, bit = random.randrange(begin, end), random.randrange(8)
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        put(f"{place}.{i}", flipped, f"bit {bit} of byte {at} flipped")
    at = random.randrange(begin, end)
    put(f"{place}.cut", data[:at], f"cut to {at} bytes")
put("longer", data + b"x", "one byte more")
END
expect 'damaged files' "$(wc -l <"$work/list")" 55

while read -r file what; do
    run "$cria" check "$work/bad/$file"
    expect_refused "cria check: $file: $what" 2 "$work/bad/$file"
done <"$work/list"

good=$work/run
for file in length.0 metadata.0 end-of-header.0 tensors.0 anywhere.cut longer; do
    rm -rf "$work/again"
    cp -r "$good" "$work/again"
    cp "$work/bad/$file" "$work/again/$newer"
    what="$(grep "^$file " "$work/list")"
    train 2 again run.steps=5 --resume auto
    expect_status "$what: --resume auto" 0
    expect "$what: checkpoint taken" "$(sed -n 's/^resumed \([^ ]*\): step 2,.*/\1/p' "$work/out")" \
        "$work/again/step_00000002.safetensors"
    expect_warning "$what" "passed over: $work/again/$newer.* [a-z]+.* "
done
