#!/bin/sh
# tests/results/cp8.sh, which measures eight GPUs in one call: here two ranks on the CPU. A job that fails
# or is over its time is in the summary, the others are not harmed, and no process is left. Then two_gpus.sh, likewise.
if grep -qs fsanitize "${BUILD:-build}/flags"; then
    echo 'skipped: the limits are of programs without sanitizers'
    exit 0
fi
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

mkdir "$work/bin"
cat >"$work/bin/torchrun" <<'TORCHRUN'
#!/bin/sh
shift 3 # --nproc_per_node N --no-python
exec "$@"
TORCHRUN
chmod +x "$work/bin/torchrun"
PATH=$work/bin:$PATH
measure() { # SECONDS RING.py
    run env "CP8_TEST=$work" sh tests/results/cp8.sh -n 2 -c -q -t "$1" -d data/sotu_train.bin -r "$2" "$work/cp8"
    sed -n '/^## Jobs/,$s/^| \([a-z]\{2,\}\) | \([^|]*\) | \([^|]*\) | [0-9]* |$/\1: \2: \3/p' "$work/cp8/summary.md" |
        grep -v '^part' >"$work/jobs"
}
# rows TITLE: of the summary's section
rows() { sed -n "/^## $1/,/^## /s/^| [^-]/&/p" "$work/cp8/summary.md" | tail -n +2 | grep -c ''; }

echo 'import sys; print("torch ring: 1 ms"); sys.exit(5)' >"$work/fails.py"
measure 200 "$work/fails.py"
expect_status 'a part that fails' 1
expect 'jobs that are ok' "$(grep -c ': ok$' "$work/jobs")" 8
expect 'the others' "$(grep -v ': ok$' "$work/jobs")" 'torch: ring: **failed (5)**'
expect 'rows of attention' "$(rows Attention)" 8 # three sizes, two masks; two published rows
expect 'rows of training' "$(rows Training)" 2
expect 'rows of curves' "$(rows Loss)" 2
expect 'difference of the curves' "$(grep -c '^magi-cp2 and ring-cp2 differ by at most .* over [1-9][0-9][0-9]* steps' \
    "$work/cp8/summary.md")" 1
expect 'what PyTorch printed' "$(grep -c '^    torch ring: 1 ms$' "$work/cp8/summary.md")" 1
expect 'the picture' "$(head -c 4 "$work/cp8/loss/compare.png" | tail -c 3)" PNG
expect 'checkpoints' "$(find "$work/cp8" -name '*.safetensors*')" ''

echo "import time; time.sleep(450)" >"$work/sleeps.py"
begin=$(date +%s)
measure 9 "$work/sleeps.py"
expect_status 'too little time' 1
expect "ended before the sleeping job would have (took $(($(date +%s) - begin)) s)" $(($(date +%s) - begin < 450)) 1
expect 'jobs' "$(grep -c . "$work/jobs")" 9
expect 'jobs that ended in other ways' "$(grep -vcE ': (ok|\*\*over its time\*\*|\*\*no time left\*\*)$' "$work/jobs")" 0
expect 'jobs without their time' "$(($(grep -c '\*\*' "$work/jobs") > 0))" 1
expect 'processes left' "$(grep -ls "CP8_TEST=$work" /proc/[0-9]*/environ)" ''

run sh tests/results/two_gpus.sh -n 2 -c -q -d data/sotu_train.bin "$work/cp8"
expect_status 'two_gpus.sh' 0
expect 'its rows of attention' "$(rows Attention)" 5 # three masks; two published rows
expect 'its rows of training' "$(rows Training)" 4
expect 'its rows of curves' "$(rows Loss)" 3
