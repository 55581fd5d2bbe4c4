#!/bin/sh
# cria data order prints what data/README.md defines: its formulas are computed again here, in Python and
# from that text, for both orders, several files, weights, epochs, parts and evaluations.
. tests/e2e/lib.sh

cat >"$work/order.py" <<'PY'
import glob, gzip, json, math, struct, sys
from sample_order import permute

config = json.loads(sys.argv[1])  # T, G, seed, order, sources [[path, weight]], split, steps, eval
T, G, seed = config["T"], config["G"], config["seed"]


class Cria:
    def __init__(self, shuffle):
        self.shuffle, self.sources = shuffle, []
        for path, _ in config["sources"]:
            files = []
            for name in sorted(glob.glob(path)):
                if not name.endswith(".index"):
                    size = len((gzip.open if name.endswith(".gz") else open)(name, "rb").read())
                    files.append((name, (size // 2 - 1) // T))
            self.sources.append(files)
        self.counts = [sum(k for _, k in files) for files in self.sources]
        weights = [w for _, w in config["sources"]]
        unit = 10 ** math.floor(15 - math.log10(sum(weights))) if any(weights) else 0
        self.shares = [max(1, round(w * unit)) if unit else S for w, S in zip(weights, self.counts)]

    def pieces(self, n):
        a, z = 0, len(self.sources)
        while z - a > 1:
            m = a + (z - a) // 2
            L, A = sum(self.shares[a:m]), sum(self.shares[a:z])
            l = n * L // A
            if (n + 1) * L // A > l:
                z, n = m, l
            else:
                a, n = m, n - l
        S = self.counts[a]
        e, k = divmod(n, S)
        if self.shuffle:
            k = permute(S, seed, 2**57 ^ (2**32 * a ^ e), k)
        for name, count in self.sources[a]:
            if k < count:
                return [[name, k * T, T + 1]]
            k -= count


class Mt:
    """MT19937 by init_genrand."""

    def __init__(self, seed):
        self.state = [seed]
        for i in range(1, 624):
            self.state.append((1812433253 * (self.state[-1] ^ self.state[-1] >> 30) + i) % 2**32)
        self.at = 624

    def next(self):
        s = self.state
        if self.at == 624:
            for i in range(624):
                y = s[i] & 0x80000000 | s[(i + 1) % 624] & 0x7FFFFFFF
                s[i] = s[(i + 397) % 624] ^ y >> 1 ^ (0x9908B0DF if y & 1 else 0)
            self.at = 0
        y = s[self.at]
        self.at += 1
        y ^= y >> 11
        y ^= y << 7 & 0x9D2C5680
        y ^= y << 15 & 0xEFC60000
        return y ^ y >> 18

    def shuffle(self, a):
        for i in range(len(a) - 1, 0, -1):
            while (j := self.next() % 2 ** i.bit_length()) > i:
                pass
            a[i], a[j] = a[j], a[i]
        return a


class MegatronFile:
    def __init__(self, path, part, N):
        self.name = path + ".bin"
        data = open(path + ".idx", "rb").read()
        n = struct.unpack_from("<Q", data, 18)[0]
        self.lengths = struct.unpack_from(f"<{n}i", data, 34)
        self.starts = [0]
        for length in self.lengths:
            self.starts.append(self.starts[-1] + length)
        b, e = 0, n
        if config["split"]:
            shares = [float(x) for x in config["split"].split(",")]
            border = [0.0]
            for share in shares:
                border.append(border[-1] + share / sum(shares))
            b, e = (round(border[part + i] * n) for i in (0, 1))
        tokens = self.starts[e] - self.starts[b]
        E = 1 if N is None else -(-(N * T + 1) // tokens)
        M, before = (E * tokens - 1) // T, ((E - 1) * tokens - 1) // T
        apart = E > 1 and N - before < math.floor(0.80 * ((tokens - 1) // T))
        mt, sequences = Mt(seed), list(range(b, e))
        if apart:
            self.stream = mt.shuffle(sequences * (E - 1)) + mt.shuffle(sequences)
            self.order = mt.shuffle(list(range(before))) + mt.shuffle(list(range(before, M)))
        else:
            self.stream, self.order = mt.shuffle(sequences * E), mt.shuffle(list(range(M)))
        self.M, self.apart, self.E = M, apart, E

    def pieces(self, i):
        token, left, out = T * self.order[i % self.M], T + 1, []
        for sequence in self.stream:
            n = self.lengths[sequence]
            if token < n and left:
                take = min(n - token, left)
                out.append([self.name, self.starts[sequence] + token, take])
                token, left = 0, left - take
            elif left == T + 1:
                token -= n
        return out


class Megatron:
    def __init__(self, part, N):
        weights = [w for _, w in config["sources"]]
        total = sum(weights)
        self.weights = [w / total for w in weights] if total else weights
        asked = [math.ceil(math.ceil(N * w) * 1.005) if total else N if len(weights) == 1 else None for w in self.weights]
        if len(weights) == 1 and not (total and config["split"]):
            asked = [N]
        self.files = [MegatronFile(path, part, n) for (path, _), n in zip(config["sources"], asked)]
        if not total:
            self.weights = [f.M / sum(f.M for f in self.files) for f in self.files]
        self.given, self.list = [0] * len(self.files), []

    def pieces(self, n):
        if len(self.files) == 1:
            return self.files[0].pieces(n)
        for i in range(len(self.list), n + 1):
            behind = [w * max(i, 1) - g for w, g in zip(self.weights, self.given)]
            f = behind.index(max(behind))
            self.list.append((f, self.given[f]))
            self.given[f] += 1
        f, k = self.list[n]
        return self.files[f].pieces(k)


every, sequences = config.get("eval", [0, 0])
if config["order"] == "cria":
    data = Cria(shuffle=not every)
else:
    U = -(-sequences // G) * G if every else 0
    data = Megatron(1 if every else 0, (config["steps"] // every + 1) * U if every else config["steps"] * G)
expected = []
for step in range(1 - bool(every), config["steps"] + 1):
    if not every:
        samples = range((step - 1) * G, step * G)
    elif step % every and step != config["steps"]:
        continue
    elif config["order"] == "cria":
        samples = range(min(sequences, sum(data.counts)))
    else:
        before = max(0, step // every - (step % every == 0)) * U
        samples = range(before, before + sequences)
    expected += [[step, n, data.pieces(n)] for n in samples]

found = []
for line in sys.stdin:
    sample = json.loads(line)
    pieces = sample["pieces"]
    if config["order"] == "megatron":
        for p in pieces:
            f = next(f for f in data.files if f.name == p["file"])
            assert f.starts[p["document"]] + p["offset"] == p["begin"] and p["offset"] < f.lengths[p["document"]], p
    found.append([sample["step"], sample["sample"], [[p["file"], p["begin"], p["tokens"]] for p in pieces]])
assert len(found) == len(expected) > 0, (len(found), len(expected))
for f, e in zip(found, expected):
    assert f == e, f"found {f}, expected {e}"
print(len(found), "samples", *(f"{f.E}{'a' if f.apart else ''}" for f in getattr(data, "files", [])))
PY

# check WHAT PRINTED STEPS ORDER SOURCES SPLIT SEED EVAL ARGUMENT...: of T 16 and G 4; SOURCES as JSON; PRINTED is
# what the Python above says at the end
check() {
    what=$1 printed=$2 steps=$3 order=$4 sources=$5 split=$6 seed=$7 eval=$8
    shift 8
    last=1 first=1
    [ "$eval" = null ] || first=0
    [ "$steps" = 1 ] || last=$steps
    run "$cria" data order tests/e2e/micro.yaml model.seq_len=16 batch.global=4 "run.steps=$steps" "run.seed=$seed" \
        "data.order=$order" "data.split=$split" --step "$first:$last" --json "$@"
    expect_status "$what" 0
    mv "$work/out" "$work/found"
    [ "$eval" = null ] || eval=",\"eval\":$eval"
    checks=$((checks + 1))
    message=$(PYTHONPATH=tests/e2e python3 -B "$work/order.py" "{\"T\":16,\"G\":4,\"seed\":$seed,\"order\":\"$order\",\"sources\":$sources,
        \"split\":\"$split\",\"steps\":$steps${eval#null}}" <"$work/found" 2>&1 | tail -n 1)
    [ "$message" = "$printed" ] || problem "$what: found '$message', expected '$printed'"
}

cd "$work" || exit 3
python3 - <<'PY'
import array, gzip
for name, n in ("a.bin", 500), ("b1.bin", 16), ("b2.bin", 17), ("b3.bin", 777), ("c.bin", 160):
    array.array("H", [i % 4000 for i in range(n)]).tofile(open(name, "wb"))
gzip.open("c.bin.gz", "wb").write(open("c.bin", "rb").read())
PY
ln -s "$OLDPWD/tests" tests
ln -s "$OLDPWD/data" data
case $cria in /*) ;; *) cria=$OLDPWD/$cria ;; esac

# 31 + 49 + 9 samples an epoch.
files='data.train=[a.bin, b?.bin, c.bin.gz]' three='[["a.bin",0],["b?.bin",0],["c.bin.gz",0]]'
check 'three sources' '400 samples' 100 cria "$three" '' 1234 null "$files"
check 'a large seed' '400 samples' 100 cria "$three" '' 9007199254740991 null "$files"
check 'weights' '400 samples' 100 cria '[["a.bin",0.7],["b?.bin",2],["c.bin.gz",0.003]]' '' 7 null \
    'data.train=[{path: a.bin, weight: 0.7}, {path: b?.bin, weight: 2}, {path: c.bin.gz, weight: 0.003}]'
check 'one sample an epoch' '8 samples' 2 cria '[["b2.bin",0]]' '' 1 null data.train=b2.bin
check 'evaluations' '28 samples' 7 cria '[["a.bin",0]]' '' 1 '[3,7]' data.train=b3.bin data.val=a.bin run.eval_every=3 \
    run.eval_sequences=7 --eval

# A document ends at each of the most frequent tokens; one ends a sequence of several in m2.
for pack in m1:data/sotu_val.bin:260 m2:b3.bin:7; do
    name=${pack%%:*} pack=${pack#*:}
    head -c 20000 "${pack%:*}" >part.bin
    run "$cria" data pack --to megatron --eod "${pack#*:}" --out "$name" part.bin
    expect_status "cria data pack of $name" 0
done
one='[["m1",0]]' both='[["m1",0.3],["m2",0.7]]'
blend='data.train=[{path: m1, weight: 0.3}, {path: m2, weight: 0.7}]'
check 'Megatron, one epoch' '400 samples 1' 100 megatron "$one" '' 1234 null data.train=m1 data.format=megatron
check 'Megatron, the last epoch apart' '800 samples 2a' 200 megatron "$one" '' 1234 null data.train=m1 data.format=megatron
check 'Megatron, two epochs' '1240 samples 2' 310 megatron "$one" '' 4294967295 null data.train=m1 data.format=megatron
check 'Megatron, a split' '800 samples 2a' 200 megatron "$one" 94,5,1 7 null data.train=m1 data.format=megatron
check 'Megatron, a blend' '400 samples 1 6' 100 megatron "$both" '' 1234 null "$blend" data.format=megatron
check 'Megatron, files without weights' '80 samples 1 1' 20 megatron '[["m1",0],["m2",0]]' '' 5 null 'data.train=[m1, m2]' \
    data.format=megatron
check 'Megatron, evaluations' '50 samples 2' 7 megatron "$one" 90,5,5 9 '[2,10]' data.train=m1 data.format=megatron \
    run.eval_every=2 run.eval_sequences=10 --eval

run "$cria" data order tests/e2e/micro.yaml run.steps=3 --step 2
expect 'the text' "$(awk 'NR > 1 && $1 == 2 && $4 == 33 && NF == 7' "$work/out" | wc -l) $(wc -l <"$work/out")" '8 9'
run "$cria" data order tests/e2e/micro.yaml run.steps=3 --step 4
expect_refused 'a step beyond the run' 2 'expected steps from 1 to run.steps 3'
run "$cria" data order tests/e2e/micro.yaml --step 2:1x
expect_refused 'no steps' 2 'expected a step N or steps N:M'
run "$cria" data order tests/e2e/micro.yaml --eval
expect_refused 'no evaluation' 2 'makes no evaluations'
run "$cria" data order tests/e2e/micro.yaml data.val=a.bin run.eval_every=3 --eval --step 1:2
expect_refused 'none at these steps' 2 'there is no evaluation'
run "$cria" data order tests/e2e/micro.yaml data.train=none.bin
expect_refused 'no data' 2 'none.bin'
