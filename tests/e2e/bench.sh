#!/bin/sh
# cria bench: every benchmark at small sizes on the CPU. Its JSON holds numbers that belong together; bytes
# and pairs are those of closed forms; what it does not understand it refuses before it measures.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

# holds WHAT EXPRESSION: of the rows of the last command's JSON, in Python
holds() {
    expect "$1: $2" "$(python3 - "$work/out" "$2" <<'PYTHON' 2>&1
import json, math, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
def near(a, b, tolerance=1e-4): return abs(a - b) <= tolerance * abs(b)
def pick(**want): return [r for r in rows if all(r[k] == v for k, v in want.items())]
print(eval(sys.argv[2]))
PYTHON
    )" True
}

# ---- gemm ------------------------------------------------------------------------------------------

run "$cria" bench gemm T=64 --json
expect_status 'gemm' 0
holds 'gemm' 'len(rows) == 5 * 3 and {r["shape"] for r in rows} == {"qkv", "o", "gate-up", "down", "head"}'
holds 'gemm' 'all(near(r["tflops"] * r["ms"], 2e-9 * r["T"] * r["N"] * r["M"]) for r in rows)'
holds 'gemm' 'all(near(r["of_peak"], 100 * r["tflops"] / r["gemm_tflops"], 1e-3) for r in rows)'
holds 'gemm' 'all(near(r["gbytes_s"] * r["ms"], 4e-6 * (64 * (r["N"] + r["M"]) + r["N"] * r["M"]))
              for r in rows if r["pass"] == "fwd")'
run "$cria" bench gemm "$config" shape=gate-up,head pass=wgrad --json
holds 'gemm of a configuration' '[(r["T"], r["N"], r["M"]) for r in rows] == [(64, 64, 16), (64, 4096, 16)]'
run "$cria" bench gemm T=64 shape=o pass=fwd_fp8,dgrad_fp8,wgrad_fp8,cast_fp8 --json
expect_status 'gemm in FP8' 0
holds 'gemm in FP8' '[r["pass"] for r in rows] == ["fwd_fp8", "dgrad_fp8", "wgrad_fp8", "cast_fp8"]'
holds 'gemm in FP8' 'all(near(r["gbytes_s"] * r["ms"], 1e-6 * b) for r, b in zip(rows, [64 * 256 * 5 + 65536, 64 * 256 * 5 + 65536, 64 * 512 + 8 * 65536, 64 * 256 * 10]))'
run "$cria" bench gemm T=64 shape=o
expect 'gemm: lines for people' "$(grep -c '^o ' "$work/out")" 3

# ---- attention -------------------------------------------------------------------------------------

run "$cria" bench attention S=192,2x96 heads=2/1 D=32 window=16 --json
expect_status 'attention' 0
holds 'attention' 'len(rows) == 2 * 4 and all(r["device"] == "cpu" for r in rows)'
holds 'attention' '[r["area"] for r in pick(mask="causal")] == [192 * 193 / 2, 2 * 96 * 97 / 2]'
holds 'attention' '[r["area"] for r in pick(mask="full")] == [192 ** 2, 2 * 96 ** 2]'
holds 'attention' 'pick(mask="window", tokens="192")[0]["area"] == 17 * 192 - 16 * 17 / 2'
holds 'attention' 'all(near(r["fwd_tflops"] * r["fwd_ms"], 4e-9 * r["area"] * 2 * 32) for r in rows)'
holds 'attention' 'all(near(r["bwd_tflops"] * r["bwd_ms"], 1e-8 * r["area"] * 2 * 32) for r in rows)'
run "$cria" bench attention S=4k D=8 heads=1/1 mask=document --json
# 623 = int(100 * 40 ** 0.4963) and so on: torch.manual_seed(0); torch.rand(6)
holds 'documents' 'rows[0]["area"] == sum(n * (n + 1) // 2 for n in (623, 1701, 138, 162, 310, 1037, 125))'

# ---- a recorded table ------------------------------------------------------------------------------

# scaled FACTOR: the rows of $work/rows with shares times FACTOR
scaled() {
    python3 -c 'import json, sys
for line in open(sys.argv[1]):
    row = json.loads(line)
    row.update({k: v * float(sys.argv[2]) for k, v in row.items() if k.endswith("_of_gemm")})
    print(json.dumps(row | {"fwd_spread": 0, "bwd_spread": 0}))' "$work/rows" "$1" >"$work/table"
}
case='S=64 heads=1/1 D=8 mask=causal,full device=cpu'
# shellcheck disable=SC2086 # words
"$cria" bench attention $case --json >"$work/rows"
scaled 1e-6
# shellcheck disable=SC2086
run "$cria" bench attention $case --baseline "$work/table"
expect_status 'faster than the table' 0
expect 'shares compared' "$(grep -c '^  [fb]wd_of_gemm: .* recorded ' "$work/out")" 4
scaled 1e6
# shellcheck disable=SC2086
run "$cria" bench attention $case --baseline "$work/table" --json
expect_status 'slower than the table' 3
holds 'slower than the table' 'len(rows) == 2'
expect 'what is told' "$(cat "$work/err")" "cria: error: 4 of 4 shares are worse than $work/table"
run "$cria" bench attention S=96 heads=1/1 D=8 mask=causal --baseline "$work/table"
expect_status 'no such case in the table' 3
echo '{"fwd_of_gemm":' >"$work/table"
run "$cria" bench gemm T=64 shape=o --baseline "$work/table"
expect_status 'a table that is none' 2

# ---- step ------------------------------------------------------------------------------------------

for ranks in 1 2; do
    run mpirun -n $ranks "$cria" bench step "$config" data.train=nowhere.bin parallel.cp=$ranks \
        parallel.backend=magi data.mask=document steps=1 --json
    expect_status "step on $ranks" 0
    holds "step on $ranks" 'len(rows) == 1 and rows[0]["world"] == '$ranks
    holds "step on $ranks" 'near(sum(rows[0]["phases"].values()), rows[0]["metered_ms"])'
    holds "step on $ranks" 'all(x >= 0 for x in rows[0]["phases"].values())'
    holds "step on $ranks" 'all(rows[0]["phases"][k] > 0 for k in ("gemm_fwd", "gemm_bwd", "attention_fwd",
                            "attention_bwd", "other", "optimizer", "data"))'
    holds "step on $ranks" '(rows[0]["phases"]["comm_exposed"] > 0 and rows[0]["transfer"] > 0) == '$((ranks == 2))
    holds "step on $ranks" '0 < rows[0]["micro_host_ms"] <= rows[0]["micro_ms"]'
    holds "step on $ranks" 'near(rows[0]["tok_s"] * rows[0]["ms"], 1e3 * rows[0]["tokens"])'
    holds "step on $ranks" 'all(floor > 0 for floor in rows[0]["floors"].values())'
    holds "step on $ranks" 'rows[0]["attention_fwd_tflops"] > 0 and rows[0]["attention_bwd_tflops"] > 0'
done

# Floors, from a micro-batch of 2 sequences of 32 tokens, 2 layers: every op of ops.def that ran has one, and
# rates times floors are closed forms. 5 norms of 64 rows of 16; adamw without the padding behind the norms.
for recompute in none layer; do
    run "$cria" bench step "$config" steps=1 micro_steps=1 memory.recompute=$recompute --json
    expect_status "floors, recompute $recompute" 0
    holds 'floors' 'rows[0]["ops"].keys() - rows[0]["floors"].keys() <= {"event_wait", "attn_work_create"}'
    bytes='rows[0]["copy_gbytes_s"] * 1e6 * rows[0]["floors"]'
    flops='rows[0]["gemm_tflops"] * 1e9 * rows[0]["floors"]'
    again=$([ $recompute = layer ] && echo 1 || echo 0) # all layers but the last run their forward twice
    holds 'bytes of a floor' "near(${bytes}['rmsnorm_fwd'], (5 + 2 * $again) * 4 * (129 * 16 + 64))"
    holds 'bytes of a floor' "near(${bytes}['swiglu_fwd'], (2 + $again) * 4 * 3 * 64 * 32)"
    holds 'bytes of a floor' "near(${bytes}['adamw'], 28 * (4096 * 16 + 2 * (16 * 64 + 16 * 32 + 3 * 16 * 32) + 5 * 16))"
    holds 'FLOPs of attention' "near(rows[0]['attention_fwd_tflops'] * 1e9 * rows[0]['ops']['attention_fwd'],
                                     (2 + $again) * 4 * 2 * 32 * 33 / 2 * 8 * 4)"
    holds 'FLOPs of attention' "near(rows[0]['attention_bwd_tflops'] * 1e9 * (rows[0]['ops']['attention_bwd'] +
                                     rows[0]['ops']['attention_delta']), 2 * 10 * 2 * 32 * 33 / 2 * 8 * 4)"
    holds 'FLOPs of attention' "${flops}['attention_bwd'] > 0.999 * 2 * 10 * 2 * 32 * 33 / 2 * 8 * 4"
done
run "$cria" bench step "$config" steps=1 micro_steps=1 precision=fp8 --json
expect_status 'FP8' 0
holds 'FP8: its products are rows of their own' '{"linear_fwd", "linear_fwd_fp8", "linear_dgrad_fp8", "linear_wgrad_fp8", "fp8_cast"} <= rows[0]["ops"].keys()'
# those of 2 layers; the largest is gate and up, 64 rows of 16 to 64
holds 'FP8: floors' "rows[0]['gemm_fp8_tflops'] * 1e9 * rows[0]['floors']['linear_wgrad_fp8'] > 0.999 * 2 * 2 * 64 * (16 * 32 + 16 * 16 + 3 * 16 * 32)"
run mpirun -n 2 "$cria" bench step "$config" steps=1 micro_steps=1
expect_status 'step, dp 2' 0
expect 'step: floors for people' "$(grep -cE '^  swiglu_fwd +[0-9.]+ ms +[0-9.]+ %( +[0-9.]+){2}$' "$work/out")" 1
expect 'step: ranks' "$(grep -c '^2 x cpu = dp 2 x cp 1 ' "$work/out")" 1

# ---- cp --------------------------------------------------------------------------------------------

run mpirun -n 2 "$cria" bench cp S=256 D=32 heads=4/2 mask=causal,window --json --timeline "$work/cp.svg"
expect_status 'cp' 0
holds 'cp' '[r["backend"] for r in rows] == ["none", "ring", "magi", "allgather", "ulysses"] * 2'
holds 'cp' 'all(r["area"] == 256 * 257 / 2 for r in pick(mask="causal"))'
holds 'cp' 'all(near(r["fwd_tflops_gpu"] * r["fwd_ms"], 4e-9 * r["area"] * 4 * 32 / r["cp"]) for r in rows)'
holds 'cp' 'all(near(r["bwd_of_one"], 50 * n["bwd_ms"] / r["bwd_ms"]) for n in pick(backend="none")
            for r in pick(mask=n["mask"], cp=2))'
# a shard of keys and values one way: 128 rows of 2 x 2 x 32 floats; its gradient the other way
holds 'cp' '[(r["fwd_mib"], r["bwd_mib"]) for r in pick(backend="ring")] == [(0.0625, 0.125)] * 2'
holds 'cp' 'pick(backend="magi", mask="window")[0]["fwd_mib"] < 0.0625'
holds 'cp' 'all((r["fwd_exposed_ms"] > 0) == (r["cp"] == 2) for r in rows)'
run python3 -c "import sys, xml.dom.minidom as x; print(len(x.parse(sys.argv[1]).getElementsByTagName('rect')))" \
    "$work/cp.svg"
expect_status 'the timeline is XML' 0
expect 'the timeline has bars' "$(($(cat "$work/out") > 2 * 4 * 2 * 4))" 1

run mpirun -n 3 "$cria" bench cp S=96 D=8 heads=4/2 mask=causal backend=ulysses,magi overlap_degree=0,1 --json
expect_status 'cp on 3' 0
holds 'cp on 3' '[r["stages"] for r in pick(backend="magi")] == [1, 2]'
holds 'cp on 3' 'pick(backend="ulysses")[0]["fwd_ms"] is None and "must divide" in pick(backend="ulysses")[0]["note"]'

run mpirun -n 2 "$cria" bench cp S=64 D=8 mask=document backend=ring alone=no --json
expect_status 'cp without one device' 0
holds 'cp without one device' '[(r["backend"], r["fwd_of_one"]) for r in rows] == [("ring", None)]'
holds 'cp without one device' 'rows[0]["area"] == 64 * 65 / 2 and rows[0]["fwd_tflops_gpu"] > 0'

# ---- what it refuses -------------------------------------------------------------------------------

refused() { # TEXT ARGUMENT...
    text=$1
    shift
    run "$cria" bench "$@"
    expect_refused "bench $*" 2 "$text"
    expect "bench $*: stdout" "$(cat "$work/out")" ''
}
refused "cria bench: the command behind it is missing, expected attention, gemm, cp or step"
refused "found 'speed', expected" speed
refused "what is 's=8'? It takes D= heads= S=" attention s=8
refused 'unknown option --fast' cp --fast
refused "what is 'model.layers=2'?" attention model.layers=2
refused "S=0: found '0', expected tokens" attention S=0
refused "S=1k,x: found 'x', expected tokens" attention S=1k,x
refused "heads=3/2: found '3/2', expected query heads/kv heads" attention heads=3/2
refused "mask=blue: found 'blue', expected one of causal, document, full" cp mask=blue
refused "mask=slices: found 'slices', expected one of causal, document, full, prefix_lm, window" attention mask=slices
refused 'did you mean mask=?' attention maks=causal
refused "device=tpu: expected auto, cpu or cuda" gemm device=tpu
refused 'missing CONFIG' step
refused 'model.heads' step "$config" model.heads=0
refused 'nowhere.yaml' gemm nowhere.yaml
refused 'expected one that divides the 1 ranks' cp cp=2
refused "cp=0: found '0', expected a number from 1 to" cp cp=0
refused "overlap_degree=9: found '9', expected a number from 0 to 8, or auto" cp overlap_degree=9
refused "overlap_degree=0,64: found '64'" cp overlap_degree=0,64
refused "chunk_size=-1: found '-1'" cp chunk_size=-1
refused "D=64,1025: found '1025', expected a number from 1 to 1024" attention D=64,1025
refused "heads=2048/1: found '2048/1', expected query heads/kv heads" attention heads=2048/1
refused "heads=0/0: found '0/0'" cp heads=0/0
refused "S=1024m: found '1024m', expected tokens" attention S=1024m
refused "S=32768x32k: found '32768x32k'" attention S=32768x32k
refused "S=18446744073709551617: found" attention S=18446744073709551617
refused "T=9223372036854775807m: found" gemm T=9223372036854775807m
refused "T=: found ''" gemm T=
refused "T=1e3: found '1e3'" gemm T=1e3
refused "T=64,: found ''" gemm T=64,
refused 'found more than 16 values' gemm T=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17
refused 'window=16,32: found more than 1 value' attention window=16,32
refused 'alone=yes,no: found more than 1 value' cp alone=yes,no
refused 'cp=1,2: found more than 1 value' cp cp=1,2
refused 'steps=1,2: found more than 1 value' step "$config" steps=1,2
refused "steps=0: found '0'" step "$config" steps=0
refused "micro_steps=65537: found '65537', expected a number from 1 to 65536" step "$config" micro_steps=65537
refused "--timeline: found '', expected FILE" cp --timeline=
refused "cannot write the picture $work/nowhere/cp.svg" cp S=64 D=8 --timeline "$work/nowhere/cp.svg"
refused '--timeline: its value is missing, expected FILE' cp --timeline
run mpirun -n 2 "$cria" bench cp mask=blue
expect_refused 'cp on 2 ranks' 2 "found 'blue'"
