#!/bin/sh
# timeout: 1200
# With AddressSanitizer, LeakSanitizer and UBSan: the parsers' tests and corpora, two ranks that train,
# save, resume and stop, and the ends that errors take. Builds BUILD/asan; make check-long runs every
# test there.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

build=${BUILD:-build}
if ! grep -q fsanitize "$build/flags"; then
    build=$build/asan
    programs='test_json test_config test_config_mistakes test_tokens test_safetensors'
    for fuzz in tests/fuzz/fuzz_*.c; do
        fuzz=${fuzz##*/fuzz_}
        programs="$programs replay_${fuzz%.c}"
    done
    # -O1 halves the time; not the jobs and variables of a make that runs this test
    # shellcheck disable=SC2046,SC2086 # words
    if ! env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -j"$cores" GPU=0 CFLAGS=-O1 \
        SANITIZE=address,undefined BUILD="$build" "$build/cria" \
        $(printf "$build/tests/%s " $programs) >"$work/make" 2>&1; then
        tail -n 20 "$work/make"
        fail 'the build with sanitizers failed'
    fi
    for program in $programs; do
        run "$build/tests/$program" "tests/fuzz/corpus/${program#replay_}"
        expect_status "$program" 0
    done
fi

cria=$build/cria
# MPICH leaks; see the file
export ASAN_OPTIONS="${ASAN_OPTIONS:-fast_unwind_on_malloc=0}"
export LSAN_OPTIONS="${LSAN_OPTIONS:-suppressions=tests/mpi.supp:print_suppressions=0}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"

for backend in $(backends); do
    train 2 "$backend" run.steps=3 run.save_every=2 parallel.cp=2 parallel.backend="$backend" \
        data.mask=document data.val=data/sotu_val.bin run.eval_every=2 run.eval_sequences=3 \
        log.tensorboard=true
    expect_status "$backend" 0
    expect "$backend: stderr" "$(cat "$work/err")" ''
done
train 3 magi run.steps=4 --resume auto data.mask=document batch.global=6 memory.recompute=layer parallel.zero=0
expect_status 'resumed on three ranks' 0
train 2 ring run.steps=1000000 run.time_limit_minutes=0.03 --resume auto data.mask=document
expect_status 'stopped by the time limit' 4
run "$cria" check "$work/ring/step_00000003.safetensors"
expect_status 'check' 0

train 2 refused model.vocab=300
expect_refused 'ids beyond the vocabulary' 2 'but model.vocab is 300'
train 2 refused model.layer=3
expect_refused 'unknown key' 2 'did you mean model.layers?'
train 2 refused --resume README.md
expect_refused 'no checkpoint' 2 'not a safetensors file'
train 2 huge run.steps=1000 model.init_std=10 optim.lr=100 optim.clip=0
expect_refused 'numbers that grow without limit' 3 'that is not finite, samples'
run "$cria" config
expect_status 'config' 0
