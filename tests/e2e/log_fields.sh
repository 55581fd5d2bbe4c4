#!/bin/sh
# src/metrics/FIELDS.md has a line for each field, kind and tag that the sources write and that the log of a run has,
# and none for what they do not write. A failure says which line to add or take out.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

# Every kind that a healthy run has, a spike that is only told, and a second start.
stages='stages=[{from: 10, optim.lr: 1e-3}]'
train 2 run "$stages" log.phases=true run.steps=30 precision=fp8 optim.z_loss=1e-4 run.spike_norm=0.9 data.val=data/sotu_val.bin run.eval_every=15 run.eval_sequences=8 \
    run.save_every=15 run.sample_every=15 run.sample_tokens=2 data.tokenizer=data/tokenizer.json log.tensorboard=true
expect_status 'a run' 0
train 2 run "$stages" log.phases=true run.steps=31 precision=fp8 optim.lr=1e-3 --resume auto
expect_status 'a second start' 0

cat >"$work/fields.py" <<'END'
import fnmatch, glob, json, pathlib, re, sys

page, run = sys.argv[1:]
problems, rows, title = [], {}, None
for line in pathlib.Path(page).read_text().splitlines():
    if line.startswith("## "):
        title = line[3:]
    elif line.startswith("| `"):
        for name in re.findall(r"`([^`]+)`", line.split("|")[1]):
            for kind in title.split(", "):
                rows.setdefault(kind, []).append(name)

written = {}  # kind or sink: names
def wrote(kind, name, where):
    written.setdefault(kind, set()).add(name)
    if not any(fnmatch.fnmatchcase(name, row) for row in rows.get(kind, [])):
        titles = [t for t in re.findall(r"(?m)^## (.*)", pathlib.Path(page).read_text()) if kind in t.split(", ")]
        problems.append(f"{where} has '{name}' of '{kind}', which {page} does not explain: add the line "
                        f"\"| `{name}` | what it is |\" under \"## {titles[0] if titles else kind}\"")

def walk(kind, value, prefix, where):
    for key, member in value.items():
        if key != "kind" or prefix:
            wrote(kind, prefix + key, where)
        if isinstance(member, dict) and key != "config" and list(member) != ["min", "median", "max", "rank"]:
            walk(kind, member, f"{prefix}{key}.", where)

for number, line in enumerate(open(f"{run}/log.jsonl"), 1):
    record = json.loads(line)
    walk(record["kind"], record, "", f"line {number} of a run's log.jsonl")

# The sources: every field that a function names, of the kinds with which it begins a record.
def strings(text):
    return re.findall(r'(?:number|text|head_text)\(&?\w+, "(\w+)"', text) + re.findall(r'\\"(\w+)\\":', text)
def functions(path):
    text = re.sub(r"/\*.*?\*/", "", pathlib.Path(path).read_text(), flags=re.S)
    return re.findall(r"(?ms)^[a-zA-Z][^\n;{]*\([^;{]*\{\n.*?^\}", text)
for path in ["src/train/run.c", *glob.glob("src/metrics/*.c")]:
    for text in functions(path):
        kinds = re.findall(r'begin\("(\w+)"', text) + re.findall(r'\\"kind\\":\\"(\w+)\\"', text)
        kinds += re.findall(r'= \{"(\w+)", "\w+"\}', text) if "begin(names" in text else []
        if not kinds and re.search(r"\bbegin\(", text) and not re.search(r"\bStrBuf begin\(", text):
            problems.append(f"{path}: a record whose kind tests/e2e/log_fields.sh cannot read: {text.splitlines()[0]}")
        for kind in kinds:
            for name in {*strings(text), "step"} - {"kind"}:
                if not any(row.endswith(f".{name}") for row in rows.get(kind, [])):
                    wrote(kind, name, path)
for path in glob.glob("src/metrics/*.c"):
    for tag in re.findall(r'put_(?:scalar|scalar_of|text)\(&?\w+, "([^"]+)"', pathlib.Path(path).read_text()):
        wrote("TensorBoard", tag, path)
for name in re.findall(r"(?m)^    X\([A-Z_]+, (\w+)\)", pathlib.Path("src/ops/phases.h").read_text()):
    for which in "median", "max":
        wrote("TensorBoard", f"phase/{name}-{which}", "src/metrics/tensorboard.c")

for kind in rows:
    if kind not in written:
        problems.append(f"{page} explains '{kind}', which no run and no source has: take its section out")
        continue
    for name in rows[kind]:
        tag = kind == "TensorBoard" and "*" in name  # the sources build it; looked for in the events below
        if not tag and not fnmatch.filter(written[kind], name):
            problems.append(f"{page} explains '{name}' of '{kind}', which nothing writes: take its line out")
    if len(rows[kind]) != len(set(rows[kind])):
        problems.append(f"{page}: a name stands twice under '{kind}'")
events = b"".join(pathlib.Path(path).read_bytes() for path in glob.glob(f"{run}/**/events.out.tfevents.*", recursive=True))
for tag in rows.get("TensorBoard", []):
    if tag.split("*")[0].encode() not in events and tag != "mfu":  # of a CPU it is not known
        problems.append(f"a run's TensorBoard events do not have the tag '{tag}' of {page}")
text = pathlib.Path(page).read_text()
for sink in re.findall(r"(?m)^    X\((\w+), \"(?:true|false)\"", pathlib.Path("src/config/config.h").read_text()):
    if f"log.{sink}" not in text:
        problems.append(f"{page} does not name log.{sink}: add a section that says what it writes")
print(*dict.fromkeys(problems), sep="\n")
print(sum(map(len, written.values())), file=sys.stderr)
END
# page FILE: what is wrong with it
page() { run python3 "$work/fields.py" "$1" "$work/run"; }
page src/metrics/FIELDS.md
expect_status 'the check' 0
expect 'src/metrics/FIELDS.md' "$(cat "$work/out")" ''
expect 'names that were found' "$([ "$(cat "$work/err")" -ge 70 ] || cat "$work/err")" ''

# The check itself finds what is missing, and what is too much.
missing() { # WHAT SED-SCRIPT TEXT
    sed "$2" src/metrics/FIELDS.md >"$work/page.md"
    page "$work/page.md"
    expect "$1 is found" "$(grep -cF -- "$3" "$work/out" | sed 's/^[1-9].*/yes/')" yes
}
# shellcheck disable=SC2016 # backquotes of Markdown
{
    missing 'a field of a step without a line' '/^| `ms` /d' "has 'ms' of 'step'"
    missing 'a member without a line' '/^| `comm_bytes.dkv` /d' "has 'comm_bytes.dkv' of 'step'"
    missing 'a field of a guard without a line' '/^| `found` /d' 'under "## spike, redo, skip, stop"'
    missing 'a kind without a section' 's/^## snapshot/## snapshots/' "'seconds' of 'snapshot'"
    missing 'a field of the start without a line' '/^| `resumed` /d' "has 'resumed' of 'head'"
    missing 'a tag without a line' '/^| `lm loss validation` /d' "has 'lm loss validation' of 'TensorBoard'"
    missing 'a line too much' 's/^| `ms` .*/&\n| `furlongs` | none |/' "explains 'furlongs' of 'step', which nothing writes"
    missing 'a log without a word' 's/log\.tensorboard//g' 'does not name log.tensorboard'
}
