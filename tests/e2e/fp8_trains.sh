#!/bin/sh
# precision: fp8. The same bits in every repetition, after a resume, with recomputation and with ZeRO on
# or off; the loss of bf16 within what 8 bits cost, on every backend; FP8 and bf16 take turns on
# --resume; the log says how operands fared; what cannot be is one sentence.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

losses() { logged "$1" loss >"$work/$2"; } # RUN FILE
bits() { # RUN FILE
    logged "$1" loss grad_norm weights_crc >"$work/$2"
}

train 1 whole precision=fp8 run.save_every=8
expect_status 'fp8' 0
bits whole whole.curve
expect 'steps logged' "$(wc -l <"$work/whole.curve")" 20
train 1 twice precision=fp8 memory.recompute=layer parallel.zero=0
bits twice twice.curve
expect_same 'fp8 twice, then with recompute layer and zero 0' twice.curve whole.curve
mkdir "$work/parts"
cp "$work/whole/step_00000008.safetensors" "$work/parts"
train 1 parts precision=fp8 --resume auto
bits parts parts.curve
tail -n 12 "$work/whole.curve" >"$work/tail.curve"
expect_same 'fp8 resumed at step 8' parts.curve tail.curve

train 1 plain run.save_every=8
losses plain plain.curve
losses whole fp8.curve
expect 'fp8 differs from bf16' "$(cmp -s "$work/plain.curve" "$work/fp8.curve" && echo same)" ''
expect_close 'fp8 against bf16' fp8.curve plain.curve 20 2e-3
for way in 'first_bf16=1' 'last_bf16=1' 'gradients=e4m3' 'head=true'; do
    train 1 "$way" precision=fp8 "fp8.$way"
    expect_status "fp8.$way" 0
    losses "$way" way.curve
    expect "fp8.$way changes the run" "$(cmp -s "$work/way.curve" "$work/fp8.curve" && echo same)" ''
    expect_close "fp8.$way against bf16" way.curve plain.curve 20 2e-3
done
# A scale is of the tokens of a rank, so that other ranks have other roundings.
ranks() { # RANKS OPTION...
    n=$1
    shift
    train "$n" ranks-bf16 run.steps=5 "$@"
    losses ranks-bf16 ranks-bf16.curve
    train "$n" ranks-fp8 precision=fp8 run.steps=5 "$@"
    expect_status "$n ranks, $*" 0
    losses ranks-fp8 ranks-fp8.curve
    expect "$n ranks, $*: fp8 differs from bf16" "$(cmp -s "$work/ranks-fp8.curve" "$work/ranks-bf16.curve" && echo same)" ''
    expect_close "$n ranks, $*, against bf16" ranks-fp8.curve ranks-bf16.curve 5 2e-3
    rm -r "$work/ranks-bf16" "$work/ranks-fp8"
}
ranks 2 parallel.cp=2 parallel.backend=ring
ranks 2 parallel.cp=2 parallel.backend=magi data.mask=document
ranks 2 parallel.cp=2 parallel.backend=ulysses
ranks 4 parallel.cp=2 parallel.backend=allgather

# The masters are fp32 in either precision: one goes on where the other stopped.
take_turns() { # PRECISION NEXT RUN: of the first one
    mkdir "$work/$1-$2"
    cp "$work/$3/step_00000008.safetensors" "$work/$1-$2"
    train 1 "$1-$2" "precision=$2" --resume auto
    expect_status "$1, then $2" 0
    expect "$1, then $2: is said" "$(grep -c "precision $1 -> $2" "$work/err")" 1
    losses "$1-$2" turn.curve
    losses plain plain.curve
    tail -n 12 "$work/plain.curve" >"$work/tail.curve"
    expect_close "$1, then $2, against bf16" turn.curve tail.curve 12 2e-3
}
take_turns bf16 fp8 plain
take_turns fp8 bf16 whole

fp8_field() { sed -n "s/.*\"qkv\":{.*\"$1\":{\"saturated\":\([0-9.e+-]*\),\"absmax\":\([0-9.e+-]*\),\"zeros\":\([0-9.e+-]*\)}.*/\1 \2 \3/p" "$work/whole/log.jsonl"; }
for operand in input weight gradient; do
    expect "$operand: shares of a step" "$(fp8_field $operand | awk '$1 > 0 && $1 < 0.1 && $2 > 0 && $3 < 0.2' | wc -l)" 20
done
expect 'bf16 has no such field' "$(grep -c '"saturated"' "$work/plain/log.jsonl")" 0

run "$cria" train "$config" "run.dir=$work/no" precision=fp8 model.ffn=40
expect_status 'a width that is no multiple of 16' 2
expect 'a width that is no multiple of 16: message' \
    "$(grep -c 'precision: found fp8 with model.ffn = 40, expected a multiple of 16' "$work/err")" 1
run "$cria" train "$config" "run.dir=$work/no" precision=fp8 fp8.first_bf16=1 fp8.last_bf16=1
expect_status 'no layer left' 2
