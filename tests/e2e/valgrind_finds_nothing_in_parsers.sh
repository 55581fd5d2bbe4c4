#!/bin/sh
# What reads files of others, under valgrind: it sees uninitialised bytes, which sanitizers do not.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

build=${BUILD:-build}
if ! command -v valgrind >/dev/null || grep -q fsanitize "$build/flags"; then
    echo 'no valgrind here, or a build with sanitizers, which it cannot run: nothing is tested'
    checks=1
    exit 0
fi
for program in test_json test_config test_config_mistakes test_tokens replay_config replay_tokens \
    replay_checkpoint replay_mask; do
    if [ ! -x "$build/tests/$program" ]; then
        problem "$build/tests/$program is not there: run make tests first"
        continue
    fi
    run valgrind -q --error-exitcode=9 --leak-check=full "$build/tests/$program" \
        "tests/fuzz/corpus/${program#replay_}"
    expect_status "$program" 0
done
