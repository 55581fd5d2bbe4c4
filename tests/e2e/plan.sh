#!/bin/sh
# cria plan: what it says before a run is what the run then does: memory, and the bytes of keys, values
# and their gradients that a rank sends. Its JSON and its picture are read by another program's reader.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

# value PATH: of the last command's JSON, e.g. plan.per_rank.0.area
value() {
    python3 - "$work/out" "$1" <<'PYTHON'
import json, sys
x = json.load(open(sys.argv[1]))
for part in sys.argv[2].split('.'):
    x = x[int(part)] if isinstance(x, list) else x[part]
print(x)
PYTHON
}

# One micro-batch a step, so that the first step is what the plan is for. micro.yaml: 2 layers, rows of
# 2 x 4 heads x 4 values of 4 bytes.
for backend in ring magi allgather; do
    settings="batch.global=2 run.steps=1 data.mask=document parallel.cp=4 parallel.backend=$backend"
    what="$backend on 4 ranks"
    # shellcheck disable=SC2086 # words
    run "$cria" plan "$config" $settings --json
    expect_status "$what: plan" 0
    expect "$what: documents" "$(value mask.source)" 'first micro-batch'
    kv=$(($(value plan.per_rank.0.send_rows) * 128 * 2 * 2)) # forward and backward
    dkv=$(($(value plan.per_rank.0.recv_rows) * 128 * 2))
    memory=$(value memory.bytes_per_rank)
    # shellcheck disable=SC2086
    train 4 $backend $settings
    expect_status "$what: train" 0
    logged $backend kv dkv >"$work/sent"
    expect "$what: bytes of kv and dkv sent by rank 0" "$(cat "$work/sent")" "1 $kv $dkv"
    expect "$what: memory in MiB" "$(sed -n 's/^  total *//p' "$work/out")" \
        "$(awk -v bytes="$memory" 'BEGIN { printf "%.1f", bytes / 1048576 }')"
done

run "$cria" plan "$config" parallel.cp=8 data.train=nowhere.bin --ranks 16 --svg "$work/plan.svg"
expect_status 'without data' 0
expect 'without data: world' "$(grep -c '16 ranks on CPUs (fp32) = dp 2 x cp 8 (magi)' "$work/out")" 1
run python3 -c "import sys, xml.dom.minidom as x; print(len(x.parse(sys.argv[1]).getElementsByTagName('path')))" \
    "$work/plan.svg"
expect_status 'the picture is XML' 0
expect 'the picture has paths' "$(($(cat "$work/out") > 8))" 1

run "$cria" plan "$config" parallel.cp=4 data.train=nowhere.bin data.mask=document --backends ulysses,magi,ring \
    --svg "$work/plans.svg"
expect_status 'three backends' 0
expect 'three backends in one picture' "$(grep -oE '(ulysses|magi|ring) over 4 ranks' "$work/plans.svg" | tr '\n' ' ')" \
    'ulysses over 4 ranks magi over 4 ranks ring over 4 ranks '
expect 'lines between documents' "$(grep -c 'stroke-opacity' "$work/plans.svg")" 3
run "$cria" plan "$config" parallel.cp=8 data.train=nowhere.bin --backends ring,ulysses --svg "$work/plans.svg"
expect_refused 'a backend that cannot run' 2 "--backends: found 'ulysses'"
run "$cria" plan "$config" parallel.cp=4 data.train=nowhere.bin --backends ring,bell --svg "$work/plans.svg"
expect_refused 'no backend' 2 "--backends: found 'bell'"
run "$cria" plan "$config" parallel.cp=4 data.train=nowhere.bin --backends ring,magi
expect_refused 'backends without a picture' 2 '--backends picks what --svg FILE draws'

run "$cria" plan "$config" parallel.cp=4096 model.seq_len=1048576 batch.global=2 data.train=nowhere.bin
expect_status '4,096 ranks' 0

# No data, and kv_heads that ulysses cannot share out: neither is a failure of the command, and neither of
# their messages appears under one that is.
run "$cria" plan "$config" parallel.cp=8 data.train=nowhere.bin --svg "$work/nowhere/plan.svg"
expect_refused 'a picture that cannot be written' 2 'error: cannot write the picture'

run "$cria" plan "$config" parallel.cp=4 --ranks 6
expect_refused 'ranks that cp does not divide' 2 'parallel.cp: found 4 on 6 ranks'
run "$cria" plan "$config" --ranks many
expect_refused 'no number' 2 "--ranks: found 'many', expected an integer from 1"
run "$cria" plan "$config" --svg
expect_refused 'no value' 2 '--svg: its value is missing, expected FILE'
run "$cria" plan "$config" --josn
expect_refused 'unknown option' 2 'unknown option --josn; did you mean --json?'
