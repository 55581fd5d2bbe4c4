#!/bin/sh
# scripts/report.py: a page that is XML, needs nothing else, holds the numbers of the logs and what differs
# between two runs, also of a log as a crash, a resume and NaN leave it.
. tests/e2e/lib.sh

a=$work/first b=$work/second
mkdir "$a" "$b"
train 1 first log.phases=true run.steps=3 run.log_every=1 run.eval_every=2
expect_status 'a run' 0
{
    sed -n 1p "$a/log.jsonl" | sed 's/"seed": [0-9]*/"seed": 4321/'
    for step in $(seq 1 1500); do
        printf '{"kind":"step","step":%d,"loss":%s,"grad_norm":%d,"lr":1e-3,"tok_s":%d,"phase_ms":{"forward":%s,"wait":%s}}\n' \
            "$step" "$([ "$step" = 700 ] && echo null || echo "$((2000 - step)).5")" "$((step % 90 + 1))" "$((5000 + step))" \
            '{"min":10,"median":12.5,"max":20.5,"rank":3}' "{\"min\":0,\"median\":3,\"max\":4,\"rank\":$((step % 5 / 3))}"
        [ "$step" != 900 ] || echo '{"kind":"slow","step":900,"rank":3,"node":"a","found":"rank 3 on <a> stays behind"}'
    done
    echo '{"kind":"sample","step":1500,"prompt":"none","text":"lost","tokens":4}'
    echo '{"kind":"step","step":1499,"loss":7.125,"grad_norm":1,"lr":1e-3}'
    echo '{"kind":"eval","step":1499,"loss":6,"tokens":64,"ppl":403,"by_position":[[16,7,32],[32,5,32]],"sets":{"web":{"loss":6,"tokens":64,"ppl":403,"bpb":1.5}}}'
    printf '%s\n' '{"kind":"sample","step":1499,"prompt":"<b> & ","text":"a \u0001\ud800 model\n]]>","tokens":4}'
    printf '{"kind":"step","step":15'
} >"$b/log.jsonl"

run scripts/report.py "$a" "$b/log.jsonl"
expect_status 'two runs' 0
expect 'where the page is' "$(cat "$work/out")" "The page is $a/report.html"
cat >"$work/look.py" <<'PY'
import json, re, sys
import xml.etree.ElementTree as tree
page = open(sys.argv[1], encoding="utf-8").read()
html = "{http://www.w3.org/1999/xhtml}"
svg = "{http://www.w3.org/2000/svg}"
root = tree.fromstring(page)
cells = [[ "".join(c.itertext()).strip() for c in row] for row in root.iter(html + "tr")]
for record in map(json.loads, open(sys.argv[2])):
    if record["kind"] == "step":
        row = next(r for r in cells if r[0] == str(record["step"]) and len(r) == 9)
        assert row[1:3] == [f"{record['loss']:.6g}", f"{record['grad_norm']:.5g}"], (row, record)
    if record["kind"] == "eval" and record["step"] > 0:
        assert any(r[0] == str(record["step"]) and r[-1] == f"{record['loss']:.6g}" for r in cells), record
overview = {row[0]: row for row in cells[1:3]}
assert list(overview) == ["first", "second"] and overview["second"][1].startswith("1499") and overview["second"][2] == "7.125", overview
differs = [[c.text for c in row] for row in root.iter(html + "tr") if row.get("class") == "differs"]
assert [row[0] for row in differs] == ["run.seed"] and differs[0][2] == "4321", differs
rows = {row[0]: row[1:] for row in cells}
assert rows["phase, ms"] == [f"{run}: {what}" for run in ("first", "second") for what in ("median", "slowest", "which rank")]
assert rows["forward"][3:] == ["12.5", "20.5", "3 (100 %)"] and rows["wait"][3:] == ["3", "4", "0 (60 %)"]
assert float(rows["forward"][0]) > 0 and rows["forward"][2] == "0 (100 %)" and rows["data"][3:] == ["-"] * 3, rows
assert ["second, step 900: rank 3 on <a> stays behind"] == [p.text for p in root.iter(html + "p") if "behind" in p.text]
assert ["second", "all", "6", "403", "-", "64"] in cells and ["second", "web", "6", "403", "1.5", "64"] in cells
assert ["below 32", "-", "5"] in cells
quotes = ["".join(q.itertext()) for q in root.iter(html + "blockquote")]
assert quotes == ["<b> & a \ufffd\ufffd model\n]]>"], quotes
pictures = list(root.iter(svg + "svg"))
titles = [p.find(svg + "title").text for p in pictures]
assert titles[:5] == ["Loss", "Gradient norm", "Learning rate", "Speed", "Memory"], titles
assert titles[-2:] == ["Phases, first", "Phases, second"] and [a.get("class") for a in pictures[-1].iter(svg + "path") if "area" in a.get("class")] == \
    ["area p0", "area p1"], titles
legend = [t.text for t in pictures[-1].iter(svg + "text")][-2:]
assert legend == ["forward", "wait"], legend
for line in root.iter(svg + "path"):
    for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", line.get("d")):
        assert 60 <= float(x) <= 640 and 30 <= float(y) <= 262, line.attrib
lines = [p for p in pictures[0].iter(svg + "path") if "line" in p.get("class")]
assert [p.get("class") for p in lines] == ["line r0", "line r1 faint", "line r1"], [p.attrib for p in lines]
assert lines[1].get("d").count("M") == 2 and len(lines[1].get("d")) < 20000  # a gap at step 700
assert not re.search(r"(src|href)=|https?://(?!www\.w3\.org/)|@import|url\(", page)
PY
run python3 -B "$work/look.py" "$a/report.html" "$a/log.jsonl"
expect_status 'what the page holds' 0

refused() { # WHAT TEXT
    expect_status "$1" 2
    expect "$1: '$2' in one line" "$(grep -c '' "$work/err") $(grep -cF -- "$2" "$work/err")" '1 1'
}
mkdir "$work/empty"
run scripts/report.py "$work/empty"
refused 'a folder without a log' 'has no log.jsonl'
sed -n 1p "$a/log.jsonl" >"$work/empty/log.jsonl"
run scripts/report.py "$work/empty"
refused 'a log without steps' 'has no step records yet'
expect 'what is left' "$(ls "$work/empty")" log.jsonl
run scripts/report.py "$a" --out "$work/none/x.html"
expect_status 'a folder that is not there' 3
