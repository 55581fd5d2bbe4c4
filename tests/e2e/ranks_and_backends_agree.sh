#!/bin/sh
# Loss and gradient norm of 20 steps are the same within 1e-5 for every (dp, cp) and backend, under
# causal and document masks; with cp = 1 every backend gives the bits of `none`.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

for mask in causal document; do
    document=''
    [ $mask = causal ] || document='data.reset_positions=true data.eod_mask_loss=true'
    settings="data.mask=$mask $document"
    # shellcheck disable=SC2086 # words
    train 1 $mask $settings parallel.backend=none
    expect_status "$mask, one rank" 0
    curve $mask $mask.curve
    logged $mask loss grad_norm weights_crc >"$work/none.bits"

    for backend in $(backends); do
        # shellcheck disable=SC2086
        train 1 $mask.$backend $settings parallel.backend=$backend
        logged "$mask.$backend" loss grad_norm weights_crc >"$work/backend.bits"
        expect_same "$mask, $backend with cp 1 against none" backend.bits none.bits

        for grid in '1 2' '2 2' '1 4'; do
            dp=${grid% *} cp=${grid#* }
            what="$mask, $backend, dp $dp, cp $cp"
            # shellcheck disable=SC2086
            train $((dp * cp)) $mask.$backend.$dp.$cp $settings parallel.backend=$backend \
                parallel.cp="$cp"
            expect_status "$what" 0
            curve "$mask.$backend.$dp.$cp" found.curve
            expect_close "$what" found.curve $mask.curve 20
        done
    done
    for dp in 2 4; do
        # shellcheck disable=SC2086
        train $dp $mask.$dp $settings
        expect_status "$mask, dp $dp" 0
        curve $mask.$dp found.curve
        expect_close "$mask, dp $dp" found.curve $mask.curve 20
    done
done

# Names of this machine that MPICH takes for two nodes: plans are then made in two levels.
hosts='-launcher fork -hosts localhost:2,127.0.0.1:2'
# shellcheck disable=SC2086
if mpirun $hosts -n 2 true 2>/dev/null; then
    for backend in ring magi; do
        train 4 nodes.$backend $settings parallel.cp=4 parallel.backend=$backend
        expect_status "document, $backend on two nodes" 0
        curve nodes.$backend found.curve
        expect_close "document, $backend on two nodes" found.curve document.curve 20
        grep -q '"ranks_per_node":2,' "$work/nodes.$backend/log.jsonl"
        expect "ranks of a node in the head record ($backend)" $? 0
    done
fi
hosts=''

# Rank 1 on another type of CPU, whose libm rounds otherwise: each rank keeps all weights, and they stay
# equal to the bit, which is compared at every step.
for zero in 0 1; do
    with_faults 'call=cos,rank=1,do=skew; call=pow,rank=1,do=skew' train 2 libm.$zero optim.schedule=cosine \
        run.check_every=1 parallel.zero=$zero
    expect_status "zero=$zero, a libm that rounds otherwise on rank 1" 0
done

cmp -s "$work/causal.curve" "$work/document.curve"
expect 'documents make a difference (cmp)' $? 1
