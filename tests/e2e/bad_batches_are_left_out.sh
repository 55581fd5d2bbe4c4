#!/bin/sh
# A spike of the loss, and a gradient that arrives broken: told, stopped at or left out, the same on
# any number of ranks, and resumed over to the bit. What a second run of the step puts right is as if
# nothing had happened.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

# Counting to 16 for ever, but for two samples of noise, which come in steps 218 and 235.
python3 - "$work/spiky.bin" <<'END'
import array, random, sys
random.seed(1)
tokens = [1 + i % 16 for i in range(2000 * 32 + 1)]
for sample in (17, 100, 200, 300, 400, 500, 600, 700):
    tokens[sample * 32:(sample + 1) * 32] = [random.randrange(4096) for _ in range(32)]
array.array("H", tokens).tofile(open(sys.argv[1], "wb"))
END
spiky="data.train=$work/spiky.bin data.eod=-1 batch.micro=4 run.steps=240 optim.lr=1e-2"
records() { sed -n "s/^{\"kind\":\"$2\",\"step\":\([0-9]*\),.*/\1/p" "$work/$1/log.jsonl" | tr '\n' ' '; }
bits() { logged "$1" loss grad_norm lr tokens weights_crc >"$work/$1.curve"; }

# shellcheck disable=SC2086 # words
train_spiky() { # RANKS RUN ARGUMENT...
    n=$1 name=$2
    shift 2
    train "$n" "$name" $spiky "$@"
}

# ---- spikes ----------------------------------------------------------------------------------------

train_spiky 2 skip run.spike_z=20 run.on_spike=skip run.save_every=110
expect_status 'skip' 0
expect 'skip: steps' "$(records skip skip)" '218 235 '
expect 'skip: samples' "$(grep '"kind":"skip","step":218' "$work/skip/log.jsonl" |
    sed 's/.*"samples":\([^]]*]\).*/\1/')" '[1736,1737,1738,1739,1740,1741,1742,1743]'
same='and the same when run again'
expect_warning skip "step 218: .*, $same; the update is left out: rank 0: highest in samples 1736, 1737, 1738, 1739, 2"
weights_at() { logged skip weights_crc | sed -n "s/^$1 //p"; }
for step in 218 235; do
    expect "skip: weights after step $step" "$(weights_at $step)" "$(weights_at $((step - 1)))"
done
expect 'weights after step 219 move on' "$([ "$(weights_at 219)" != "$(weights_at 218)" ] && echo yes)" yes
bits skip

from() { mkdir "$work/$1" && cp "$work/skip/step_00000$2.safetensors" "$work/$1"; } # RUN STEP
from parts 220
train_spiky 2 parts run.spike_z=20 run.on_spike=skip --resume auto
expect_status 'resume between the spikes' 0
bits parts && tail -n 20 "$work/skip.curve" >"$work/tail.curve"
expect_same 'resume between the spikes' parts.curve tail.curve
expect 'resume between the spikes: tensors' "$(tensors parts 240)" "$(tensors skip 240)"

for other in '1 batch.micro=2' '4 parallel.cp=2 parallel.backend=ring'; do
    from other 110
    # shellcheck disable=SC2046,SC2086 # words
    train_spiky ${other%% *} other run.spike_z=20 run.on_spike=skip --resume auto \
        $(echo "$other" | cut -s -d ' ' -f 2-)
    expect "ranks $other: steps left out" "$(records other skip)" '218 235 '
    rm -rf "$work/other"
done

from off 110
train_spiky 2 off --resume auto
from warn 110
train_spiky 2 warn run.spike_z=20 --resume auto
expect_status 'warn' 0
expect 'warn: records' "$(records warn spike)" '218 '
expect_warning warn 'step 218: loss 1\.[0-9]* is 9[0-9]\.[0-9] standard deviations above its mean 0\.00[0-9]*$'
bits off && bits warn
expect_same 'warn changes nothing' warn.curve off.curve

from stop 110
train_spiky 2 stop run.spike_z=20 run.on_spike=stop run.save_every=217 --resume auto
expect_error 'stop' 3 "$same; nothing was written: rank 0: highest in samples 1736"
expect 'stop: records' "$(records stop stop)" '218 '
expect 'stop: newest checkpoint' "$(newest_step)" 217
train_spiky 2 stop run.spike_z=20 run.on_spike=skip run.save_every=217 --resume auto
expect 'stop, then skip: tensors' "$(tensors stop 240)" "$(tensors skip 240)"

# ---- broken messages -------------------------------------------------------------------------------

mpicc -shared -fPIC -Wall -Wextra -o "$work/corrupting.so" tests/e2e/corrupting_mpi.c
expect 'mpicc corrupting_mpi.c: exit status' $? 0
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0"
# Rank 1 sends 131,072 bytes once at the start (weights), and twice a step: gradients, then weights.
corrupted() { # FIRST LAST VALUE RUN ARGUMENT...
    first=$1 last=$2 value=$3
    shift 3
    LD_PRELOAD=$work/corrupting.so CORRUPT_BYTES=131072 CORRUPT_FIRST=$first CORRUPT_LAST=$last \
        CORRUPT_TO=$value train 2 "$@"
}
train 2 right
bits right

corrupted 10 10 nan once
expect_refused 'one broken message' 3 'step 5: loss '
expect 'one broken message: sentence' "$(sed 's/[0-9][0-9.]*/N/g' "$work/err")" "cria: error: step N: loss N, \
gradient norm nan; run again it was N, gradient norm N: a fault of the hardware that came and went; nothing was \
written, --resume auto continues"
corrupted 10 10 nan redo run.on_nonfinite=skip
expect_status 'one broken message, skip' 0
expect 'one broken message, skip: records' "$(records redo redo)$(records redo skip)" '5 '
bits redo
expect_same 'run again, as if nothing had happened' redo.curve right.curve
expect 'run again: tensors' "$(tensors redo 20)" "$(tensors right 20)"

# A gradient that is finite, and far too large.
train 2 longer run.steps=30
bits longer
corrupted 50 50 1e4 large run.steps=30 run.spike_norm=10 run.on_spike=skip
expect_status 'one large message' 0
expect 'one large message: records' "$(records large redo)$(records large skip)" '25 '
expect_warning large 'step 25: loss [0-9.]*, gradient norm [0-9.]* is [0-9.]* times its mean [0-9.]*; run again it was'
bits large
expect_same 'a large message, as if nothing had happened' large.curve longer.curve
corrupted 50 50 1e4 large2 run.steps=30 run.on_spike=skip
expect 'one large message, no guard: records' "$(records large2 redo)$(records large2 skip)" ''
corrupted 50 51 1e4 large3 run.steps=30 run.spike_norm=10 run.on_spike=skip
expect 'two large messages: records' "$(records large3 redo)$(records large3 skip)" '25 '
expect_warning large3 "$same; the update is left out: rank "

corrupted 10 11 nan twice run.on_nonfinite=skip
expect_status 'two broken messages, skip' 0
expect 'two broken messages, skip: records' "$(records twice skip)" '5 '
expect_warning 'two broken messages, skip' "$same; the update is left out: its micro-batches one by one gave finite"

corrupted 10 1000 nan forever run.on_nonfinite=skip run.max_skips=3
expect_error 'broken messages for ever' 3 '4 updates in a row would be left out, run.max_skips is 3'
expect 'broken messages for ever: records' "$(records forever skip)$(records forever stop)" '5 6 7 8 '

# Weights that one rank received otherwise: found before the next save, or by run.check_every.
corrupted 11 11 0.5 weights run.save_every=2 run.check_every=1
expect_refused 'broken weights' 3 'step 5: the ranks no longer agree: the checksum of model.'
expect 'broken weights: newest checkpoint' "$(newest_step)" 4
# In step 6 the weights, all of them, come anew. What rank 0 made of the wrong ones nobody sees.
corrupted 11 11 0.5 unchecked run.check_every=0 run.save_every=5
expect_status 'broken weights, unchecked' 0
corrupted 11 11 0.5 saved run.check_every=1000 run.save_every=5
expect_refused 'broken weights at a save' 3 'step 5: the ranks no longer agree'
expect 'broken weights at a save: checkpoints' "$(newest)" ''
