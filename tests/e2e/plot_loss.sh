#!/bin/sh
# plot_loss.sh: the plot script reads a log as a crash and a resume leave it.
set -eu
dir="build/tests/plot loss"
rm -rf "$dir" && mkdir -p "$dir"

step() { printf '{"kind":"step","step":%d,"loss":%s,"grad_norm":1.5,"lr":%s}\n' "$1" "$2" "$3"; }
{
    echo '{"kind":"head","world":2}'
    echo '{"kind":"eval","step":0,"loss":8.3,"tokens":4096}'
    step 1 8.0 1e-4
    step 2 7.5 2e-4
    step 3 1.0 3e-4 # this one and its evaluation are lost with the crash
    echo '{"kind":"eval","step":3,"loss":1.1,"tokens":4096}'
    printf '{"kind":"step","st'
    echo '{"kind":"head","world":4}'
    step 2 7.0 2e-4
    step 3 null 3e-4
    step 4 6.5 4e-4
    echo '{"kind":"eval","step":4,"loss":6.9,"tokens":4096}'
    printf '{"kind":"step","step":5,"loss":9'
} >"$dir/log.jsonl"

expect() { grep -qF "$1" "$dir/out" || { echo "expected: $1, found:" && cat "$dir/out" && exit 1; }; }
refuse() { if scripts/plot_loss.py "$@" >"$dir/out" 2>&1; then echo "accepted: $*" && exit 1; fi; }

scripts/plot_loss.py "$dir" >"$dir/out" 2>&1
expect "$dir: step 4, training loss 8.000 -> 6.500, held-out loss 8.300 -> 6.900, replayed from step 2"
expect "skipped $dir/log.jsonl:7,"
expect "The picture is $dir/loss.png"
[ "$(head -c 4 "$dir/loss.png" | tail -c 3)" = PNG ]

scripts/plot_loss.py "$dir" "$dir/log.jsonl" --out "$dir/two.svg" >"$dir/out" 2>&1
grep -q '<svg' "$dir/two.svg"

# Smoothing neither lags nor moves the ends.
python3 -B - <<'PY'
import math, sys
sys.path.insert(0, "scripts")
from runlog import smooth
line = [3 * x + 1.0 for x in range(20)]
assert all(abs(a - b) < 1e-9 for a, b in zip(smooth(line, 4), line))
assert smooth([1, 5, 3], 1) == [1, 3, 3]
gap = smooth([1, math.nan, 3, 5, 7], 1)
assert gap[0] == 1 and math.isnan(gap[1]) and gap[2:] == [4, 5, 7], gap
PY

refuse "$dir/nowhere"
expect 'has no log.jsonl'
echo '{"kind":"head"}' >"$dir/log.jsonl"
refuse "$dir"
expect 'has no step records yet'
