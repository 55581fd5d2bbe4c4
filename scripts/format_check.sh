#!/bin/sh
# format_check.sh: C and CUDA are formatted as .clang-format says (`make
# format-check`). Names the files that are not. Major versions of clang-format
# differ in details: with another than the one the tree is formatted with, nothing
# is checked.
set -u
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 3
. scripts/env.sh
[ $# = 0 ] || mistake "unknown argument $1: there are none"
version=14

found=$(clang-format --version 2>/dev/null | sed -n 's/.*version \([0-9]*\).*/\1/p')
if [ "$found" != $version ]; then
    echo "not checked: clang-format is ${found:-not here}, the tree is formatted with $version"
    exit 0
fi
if output=$(find src cuda tests \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
    xargs -0 -P "$cores" -n 16 clang-format --dry-run -Werror 2>&1); then
    echo formatted
    exit 0
fi
files=$(echo "$output" | sed -n 's/^\([^: ]*\):[0-9]*:[0-9]*: error: code should be.*/\1/p' | sort -u)
echo "${files:-$output}" | sed 's/^/not formatted, see clang-format -i: /'
exit 1
