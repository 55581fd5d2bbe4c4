#!/bin/sh
# The same run twice, an interrupted and resumed run, recompute and ZeRO on or off: the same bits.
# Resumed by another number of ranks, or another way to share attention: the same curve within 1e-5.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

curve_and_bits() { # RUN FILE: all that is not a matter of speed
    logged "$1" loss grad_norm lr tokens weights_crc >"$work/$2"
}

for n in 1 2; do
    train $n whole$n run.save_every=8
    expect_status "$n ranks, 20 steps" 0
    curve_and_bits whole$n whole$n.curve
    expect "$n ranks, steps logged" "$(wc -l <"$work/whole$n.curve")" 20
    expect "$n ranks, steps without a checksum" "$(grep -c missing "$work/whole$n.curve")" 0

    train $n twice$n run.save_every=8
    curve_and_bits twice$n twice$n.curve
    expect_same "$n ranks, the same run twice" twice$n.curve whole$n.curve
    expect "$n ranks, tensors of the same run twice" "$(tensors twice$n 20)" "$(tensors whole$n 20)"

    mkdir "$work/parts$n"
    cp "$work/whole$n/step_00000008.safetensors" "$work/parts$n"
    train $n parts$n --resume auto
    expect_status "$n ranks, resumed at step 8" 0
    curve_and_bits parts$n parts$n.curve
    tail -n 12 "$work/whole$n.curve" >"$work/tail.curve"
    expect_same "$n ranks, curve of steps 9 to 20 after a resume" parts$n.curve tail.curve
    expect "$n ranks, tensors after a resume" "$(tensors parts$n 20)" "$(tensors whole$n 20)"

    train $n zero$n parallel.zero=0 memory.recompute=layer
    curve_and_bits zero$n zero$n.curve
    expect_same "$n ranks, zero 0 and recompute against zero 1 and none" zero$n.curve whole$n.curve
    expect "$n ranks, tensors with zero 0 and recompute" "$(tensors zero$n 20)" \
        "$(tensors whole$n 20)"
done

train 2 plain parallel.cp=2
curve_and_bits plain plain.curve
train 2 recompute parallel.cp=2 memory.recompute=layer
curve_and_bits recompute recompute.curve
expect_same 'cp 2, recompute layer against none' recompute.curve plain.curve

# Without checkpoints nothing is resumed, and at the end nothing is left to do.
train 1 fresh run.steps=2 --resume auto
expect_status '--resume auto in a new folder' 0
curve_and_bits fresh fresh.curve
head -n 2 "$work/whole1.curve" >"$work/head.curve"
expect_same '--resume auto in a new folder' fresh.curve head.curve
train 2 whole2 --resume auto
expect_status 'resume of a run that is done' 0
curve_and_bits whole2 done.curve
expect_same 'log after the resume of a run that is done' done.curve whole2.curve

curve whole1 whole.curve
tail -n 12 "$work/whole.curve" >"$work/tail.curve"
elsewhere() { # FROM RANKS ARGUMENT...: step 8 of run FROM goes on under other settings
    from=$1 ranks=$2
    shift 2
    what="resume of $from on $ranks ranks with $*"
    rm -rf "$work/other"
    train "$ranks" other --resume "$work/$from/step_00000008.safetensors" "$@"
    expect_status "$what" 0
    curve other other.curve
    expect_close "$what" other.curve tail.curve 12
}
train 4 whole4 run.save_every=8 parallel.cp=4 parallel.backend=ring
elsewhere whole1 4 parallel.cp=1
elsewhere whole4 2 parallel.cp=1
elsewhere whole4 4 parallel.cp=2 parallel.backend=magi
elsewhere whole2 2 parallel.cp=2 parallel.backend=allgather batch.micro=1
elsewhere whole4 1 parallel.zero=0 memory.recompute=layer
