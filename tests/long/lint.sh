#!/bin/sh
# timeout: 7200
# lint.sh: clang-tidy finds nothing in src/, with what .clang-tidy leaves out, and cppcheck nothing in
# src/ and tests/. (`make lint`)
set -u
CDPATH='' cd -- "$(dirname -- "$0")/../.." || exit 3
. scripts/env.sh
failures=0

if command -v cppcheck >/dev/null; then
    # It does not know C11's _Noreturn, and so not that REQUIRE ends a path.
    cppcheck -q -j"$cores" --std=c11 --library=posix,openmp -D_GNU_SOURCE \
        '-D_Noreturn=__attribute__((noreturn))' -Isrc -Itests --enable=warning,performance \
        --suppressions-list=tests/cppcheck.supp --error-exitcode=1 src tests ||
        failures=$((failures + 1))
else
    echo 'no cppcheck here: nothing is checked'
fi
if command -v clang-tidy >/dev/null; then
    flags="$(sed -n 's/^BASE *:= //p' Makefile) $(mpicc -show | grep -oE -- ' -I[^ ]+')"
    # shellcheck disable=SC2086 # words
    printf '%s\n' src/*.c src/*/*.c |
        xargs -P "$cores" -I '{}' clang-tidy --quiet '{}' -- $flags 2>/dev/null ||
        failures=$((failures + 1))
else
    echo 'no clang-tidy here: nothing is checked'
fi
[ $failures = 0 ]
