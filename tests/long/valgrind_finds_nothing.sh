#!/bin/sh
# timeout: 7200
# Under valgrind, which sees uninitialised bytes: all that reads files of others, with every corpus,
# and one rank that trains, saves, resumes, checks, exports and imports.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/../e2e/lib.sh"

build=${BUILD:-build}
if ! command -v valgrind >/dev/null || grep -q fsanitize "$build/flags"; then
    echo 'no valgrind here, or a build with sanitizers, which it cannot run: nothing is tested'
    checks=1
    exit 0
fi
under() { run valgrind -q --error-exitcode=9 "$@"; }

for program in test_json test_config test_config_mistakes test_tokens test_safetensors test_checkpoint \
    test_megatron test_gzip test_pack test_hf test_hf_config test_mask test_guard; do
    under --leak-check=full "$build/tests/$program"
    expect_status "$program" 0
done
for fuzz in tests/fuzz/fuzz_*.c; do
    name=${fuzz##*/fuzz_}
    name=${name%.c}
    under --leak-check=full "$build/tests/replay_$name" "tests/fuzz/corpus/$name"
    expect_status "replay_$name" 0
done

trained() { # WHAT [ARGUMENT...]
    what=$1
    shift
    under "$cria" train "$config" run.dir="$work/run" run.save_every=2 data.mask=document \
        data.val=data/sotu_val.bin run.eval_every=2 run.eval_sequences=2 log.tensorboard=true "$@"
    expect_status "$what" 0
}
trained 'training' run.steps=3
trained 'resumed' run.steps=5 --resume auto parallel.zero=0 memory.recompute=layer
under "$cria" check "$work/run/step_00000005.safetensors"
expect_status 'check' 0
under "$cria" export "$work/run/step_00000005.safetensors" "$work/hf"
expect_status 'export' 0
under "$cria" import "$work/hf" "$work/imported.safetensors"
expect_status 'import' 0
