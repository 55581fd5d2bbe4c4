#!/bin/sh
# timeout: 7200
# lint.sh: the linters of scripts/lint.sh, and clang-tidy in src/ with what .clang-tidy leaves out, find
# nothing. (`make lint`)
set -u
CDPATH='' cd -- "$(dirname -- "$0")/../.." || exit 3
. scripts/env.sh
failures=0

scripts/lint.sh || failures=1
if command -v clang-tidy >/dev/null; then
    flags="$(sed -n 's/^BASE *:= //p' Makefile) $(mpicc -show | grep -oE -- ' -I[^ ]+')"
    # shellcheck disable=SC2086 # words
    printf '%s\n' src/*.c src/*/*.c |
        xargs -P "$cores" -I '{}' clang-tidy --quiet '{}' -- $flags 2>/dev/null ||
        failures=$((failures + 1))
else
    echo 'not checked: clang-tidy is not here'
fi
[ $failures = 0 ]
