#!/bin/sh
# Every function that a header of src/ declares is called by another file: of the program, of cuda/ or of
# the tests. One that only its own file calls is static there, one that nobody calls is deleted.
set -u
CDPATH='' cd -- "$(dirname -- "$0")/../.." || exit 3
build=${BUILD:-build}
failures=0
objects="$build/src/main.o $build/libcria.a"

# shellcheck disable=SC2086 # words
called=$(nm -u $objects | awk '$1 == "U" { print $2 }' | sort -u)
defined=$(nm --defined-only "$build/libcria.a" | awk '$2 == "T" { print $3 }' | sort -u)
[ "$(echo "$defined" | wc -l)" -ge 200 ] || { echo "FAIL: found only these functions: $defined" && exit 1; }
for name in $(printf '%s\n' "$called" "$called" "$defined" | sort | uniq -u); do
    grep -qw "$name" src/*/*.h || continue
    grep -qrw "$name" cuda tests --include='*.[ch]' --include='*.cu' --include='*.cuh' && continue
    failures=$((failures + 1))
    echo "FAIL: $(grep -lw "$name" src/*/*.h): no other file calls $name()"
done
[ $failures = 0 ] && echo "$(echo "$defined" | wc -l) functions"
