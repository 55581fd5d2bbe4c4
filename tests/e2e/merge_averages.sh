#!/bin/sh
# cria merge: the average against fp64 arithmetic elsewhere, to the bit; what else the file holds; what
# takes it; what is refused, and leaves nothing behind.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

at() { printf '%s/%s/step_%08d.safetensors' "$work" "$1" "$2"; }

cat >"$work/average.py" <<'END'
"""average.py MERGED WEIGHTS FILE...: whether every value is the weighted mean, rounded once"""
import array, json, struct, sys

def read(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + n])
    meta = header.pop("__metadata__")
    return meta, {k: array.array("f", data[8 + n :][slice(*v["data_offsets"])]) for k, v in header.items()}

merged, weights, paths = sys.argv[1], [float(w) for w in sys.argv[2].split(",")], sys.argv[3:]
(meta, found), parents = read(merged), [read(p) for p in paths]
values = wrong = 0
for name, tensor in found.items():
    for i, x in enumerate(tensor):
        mean = 0.0
        for w, (_, t) in zip(weights, parents):
            mean += w * t[name][i]
        values += 1
        wrong += array.array("f", [mean / sum(weights)])[0] != x
print(values, "values,", wrong, "wrong,", len(found), "tensors")
listed = json.loads(meta["cria.merged"])
print([(p["step"], p["weights_crc"], p["weight"]) for p in listed] ==
      [(int(m["cria.step"]), m["cria.weights_crc"], w / sum(weights)) for w, (m, _) in zip(weights, parents)],
      [p["path"] for p in listed] == paths)
last = max(parents, key=lambda p: int(p[0]["cria.step"]))[0]
kept = [k for k in last if not k.startswith("crc.")]
print([k for k in kept if meta.get(k) != last[k]], sorted(set(meta) - set(last)))
END
averages() { # WHAT MERGED WEIGHTS FILE...
    what=$1
    shift
    python3 "$work/average.py" "$@" >"$work/found" 2>&1
    values=$((3 * (4096 * 16 + 2 * (16 * 32 + 2 * 16 * 16 + 32 * 16 + 3 * 16 * 32 + 2 * 16) + 16)))
    expect "$what: values" "$(sed -n 1p "$work/found")" "$values values, 0 wrong, 60 tensors"
    expect "$what: parents" "$(sed -n 2p "$work/found")" 'True True'
    expect "$what: other entries" "$(sed -n 3p "$work/found")" \
        "['header_crc', 'cria.weights_crc'] ['cria.merged']"
}

train 2 run run.steps=12 run.save_every=4
expect_status 'a run' 0

run "$cria" merge "$work/uniform.safetensors" "$(at run 4)" "$(at run 12)" "$(at run 8)"
expect_status 'merge' 0
expect 'merge: said' "$(cat "$work/out")" \
    "merged 3 checkpoints as $work/uniform.safetensors: step 12, $(wc -c <"$work/uniform.safetensors") bytes"
averages 'merge' "$work/uniform.safetensors" 1,1,1 "$(at run 4)" "$(at run 12)" "$(at run 8)"
run "$cria" check "$work/uniform.safetensors"
expect_status 'check' 0
expect 'check: parents' "$(grep -cE "^  (average of|and)  *$work/run/step_000000(04|08|12).safetensors: step \
[0-9]+, weights [0-9a-f]{8}, share 0.333333\$" "$work/out")" 3

# A folder is its newest checkpoint; shares are divided by their sum.
run "$cria" merge "$work/weighted.safetensors" "$(at run 4)" "$work/run" --weights 0.5,1.5
expect_status 'merge --weights' 0
averages 'merge --weights' "$work/weighted.safetensors" 0.5,1.5 "$(at run 4)" "$(at run 12)"

run "$cria" export "$work/weighted.safetensors" "$work/hf"
expect_status 'export' 0
run "$cria" generate "$work/weighted.safetensors" --ids --prompt '1 2' --tokens 2 --device cpu
expect_status 'generate' 0

# ---- refused ---------------------------------------------------------------------------------------

train 1 wider run.steps=1 model.ffn=48
refused() { # WHAT STATUS TEXT ARGUMENT...
    what=$1 code=$2 text=$3
    shift 3
    run "$cria" merge "$@"
    expect_refused "$what" "$code" "$text"
    expect "$what: files" "$(find "$work" -name 'out*.safetensors*')" ''
}
out=$work/out.safetensors a=$(at run 4) b=$(at run 8)
refused 'one checkpoint' 2 'cria merge: missing CHECKPOINT|DIR; usage: cria merge OUT' "$out" "$a"
refused 'another model' 2 "$a and $(at wider 1) are of different models: model.ffn 32 -> 48" "$out" "$a" "$(at wider 1)"
refused 'a file twice' 2 "$a is named twice, the second time as $work/run/../run/step" \
    "$out" "$a" "$b" "$work/run/../run/step_00000004.safetensors"
refused 'no checkpoint' 2 'README.md: not a safetensors file' "$out" "$a" README.md
refused 'a model of the hub' 2 "$work/hf/model.safetensors cannot be verified" "$out" "$a" "$work/hf/model.safetensors"
refused 'a missing file' 2 "cannot open $work/none" "$out" "$a" "$work/none"
refused 'no folder for it' 2 "there is no folder $work/none" "$work/none/out.safetensors" "$a" "$b"
refused 'too few weights' 2 "--weights: found 1 of them in '2', expected 2" "$out" "$a" "$b" --weights 2
refused 'too many weights' 2 "--weights: found more than 2 in '1,2,3'" "$out" "$a" "$b" --weights 1,2,3
for weights in 1,x 1,0 1,-1 inf,1 nan,1 1,,2 1e308,1e308; do
    refused "weights $weights" 2 "--weights: found '$weights', expected numbers above 0" "$out" "$a" "$b" --weights $weights
done
cksum "$work/uniform.safetensors" >"$work/before"
run "$cria" merge "$work/uniform.safetensors" "$a" "$b"
expect_refused 'an existing file' 2 "$work/uniform.safetensors exists; name another checkpoint"
cksum "$work/uniform.safetensors" >"$work/after"
expect_same 'an existing file' after before

cp "$b" "$work/damaged"
printf 'damaged!' | dd of="$work/damaged" bs=1 seek=$(($(wc -c <"$b") - 64)) conv=notrunc 2>/dev/null
refused 'a damaged file' 2 "$work/damaged is damaged: tensor 'optim.v." "$out" "$a" "$work/damaged"
with_faults 'call=pwrite,path=out.safetensors,nth=3,do=ENOSPC' run "$cria" merge "$out" "$a" "$b"
expect_refused 'a full disk' 3 "cannot save $out"
expect 'a full disk: files' "$(find "$work" -name 'out*.safetensors*')" ''
