#!/bin/sh
# data.mask prefix_lm and slices train alike on one rank and on two, with every backend, whatever
# batch.micro is, and differ from causal. Slices that say what another mask says give its bits.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

expect 'backends are listed' "$(backends | grep -c 'ring.*ulysses')" 1
cat >"$work/list" <<'SLICES'
0 8 0 8 FULL        # a prompt, seen by itself
8 20 0 20 CAUSAL    # a first answer
20 32 0 8 FULL      # and a second one, which does not see the first
20 32 20 32 CAUSAL
SLICES
echo '0 32 0 32 CAUSAL' >"$work/causal_slices"
train 1 causal run.steps=10
curve causal causal.curve
train 1 as_slices run.steps=10 data.mask=slices data.mask_file="$work/causal_slices"
expect_status 'causal as slices' 0
for name in causal as_slices; do logged $name loss grad_norm weights_crc >"$work/$name.bits"; done
expect_same 'causal as slices' as_slices.bits causal.bits

for mask in prefix_lm slices; do
    settings="run.steps=10 data.mask=$mask data.prefix=12"
    [ $mask = prefix_lm ] || settings="run.steps=10 data.mask=$mask data.mask_file=$work/list"
    # shellcheck disable=SC2086 # words
    train 1 $mask $settings
    expect_status "$mask, one rank" 0
    curve $mask $mask.curve
    cmp -s "$work/$mask.curve" "$work/causal.curve"
    expect "$mask is not causal (cmp)" $? 1
    # shellcheck disable=SC2086
    train 1 $mask.micro $settings batch.micro=1
    curve $mask.micro found.curve
    expect_close "$mask, batch.micro 1" found.curve $mask.curve 10
    for backend in $(backends); do
        # shellcheck disable=SC2086
        train 2 $mask.$backend $settings parallel.cp=2 parallel.backend=$backend
        expect_status "$mask, $backend on two ranks" 0
        curve "$mask.$backend" found.curve
        expect_close "$mask, $backend on two ranks" found.curve $mask.curve 10
    done
done

run "$cria" train "$config" data.mask=slices data.mask_file="$work/nowhere"
expect_refused 'a file that is not there' 2 'nowhere'
echo '0 33 0 33 CAUSAL' >"$work/long"
run "$cria" train "$config" data.mask=slices data.mask_file="$work/long"
expect_refused 'a slice behind the sequence' 2 'the slice ends at 33, beyond a sequence of 32 tokens'
