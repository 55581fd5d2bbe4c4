#!/bin/sh
# Dependencies point one way: a file of src/ includes only rooms of its own level or below, and rooms
# of one level do not include each other in a circle. No CUDA header in src/, MPI, libyaml and PCRE2 in one
# file each, every op of the Ops table has its reference in src/cpu/, and structs of functions are
# initialized by name.
set -u
CDPATH='' cd -- "$(dirname -- "$0")/../.." || exit 3
failures=0
problem() {
    failures=$((failures + 1))
    echo "FAIL: $*"
}

# A room is a folder of src/; main.c is one by itself.
room() {
    case $1 in
        */*) echo "${1%%/*}" ;;
        *) echo "${1%.[ch]}" ;;
    esac
}
level() {
    case $1 in
        base) echo 0 ;;
        config) echo 1 ;;
        attn) echo 2 ;;
        ops) echo 3 ;;
        comm | cpu | data | text) echo 4 ;;
        cp) echo 5 ;;
        model | optim | ckpt | hf) echo 6 ;;
        session) echo 7 ;;
        health | metrics | report) echo 8 ;;
        train | bench) echo 9 ;;
        cli) echo 10 ;;
        main) echo 11 ;;
        *) echo unknown ;;
    esac
}

# "includer included" for every include of a file of the project, as paths below src/
edges() {
    grep -H '^ *# *include "' src/*.[ch] src/*/*.[ch] | sed 's|^src/||; s|: *# *include||' |
        tr -d '"' | while read -r from to; do
        case $to in
            ../*) to=${to#../} ;;
            */*) ;;
            *) [ ! -f "src/${from%/*}/$to" ] || to=${from%/*}/$to ;;
        esac
        echo "$from $to"
    done
}

pairs=$(edges)
[ "$(echo "$pairs" | wc -l)" -ge 100 ] || problem "found only these includes: $pairs"
between=$(echo "$pairs" | while read -r from to; do
    a=$(room "$from") b=$(room "$to")
    [ -f "src/$to" ] || b=missing
    [ "$a" = "$b" ] || echo "$a $b $from $to"
done)

bad=$(echo "$between" | while read -r a b from to; do
    up=$(level "$a") down=$(level "$b")
    case "$up $down" in
        *unknown*) echo "src/$from includes $to: no level is known of $a or $b (see level())" ;;
        *) [ "$up" -ge "$down" ] || echo "src/$from (level $up) includes $to (level $down)" ;;
    esac
done)
[ -z "$bad" ] || problem "includes against the order of levels:
$bad"
circle=$(echo "$between" | cut -d ' ' -f 1,2 | sort -u | tsort 2>&1 >/dev/null)
[ -z "$circle" ] || problem "rooms that include each other in a circle: $circle"

cuda=$(grep -nE '# *include *[<"](cuda|cublas|nccl|nvml|nvToolsExt|\.\./cuda/)' src/*.[ch] src/*/*.[ch])
[ -z "$cuda" ] || problem "CUDA headers in src/: $cuda"
mpi=$(grep -lE '# *include <mpi.h>' src/*.[ch] src/*/*.[ch])
[ "$mpi" = src/comm/mpi_private.h ] || problem "mpi.h: found in '$mpi', expected in src/comm/mpi_private.h"
yaml=$(grep -lE '# *include <yaml.h>' src/*.[ch] src/*/*.[ch])
[ "$yaml" = src/config/yaml_text.h ] || problem "yaml.h: found in '$yaml', expected in src/config/yaml_text.h"
pcre2=$(grep -lE '# *include <pcre2.h>' src/*.[ch] src/*/*.[ch])
[ "$pcre2" = src/text/split.c ] || problem "pcre2.h: found in '$pcre2', expected in src/text/split.c"
# base.c's is for memory that has run out
exits=$(grep -lE '(^|[^_a-z])exit\(' src/*.c src/*/*.c | tr '\n' ' ')
[ "$exits" = 'src/base/base.c ' ] || problem "exit(): found in '$exits', expected in src/base/base.c"

prints=$(grep -lE '^[^"*]*(^|[^_a-z])(printf|puts|putchar)\(|^[^"*]*\<stdout\>' src/*.c src/*/*.c | tr '\n' ' ')
[ "$prints" = '' ] || problem "stdout is written by '$prints', expected output_print() everywhere"

# The reference of each op is in one file; that each has one, the linker sees.
ops=$(sed -n 's/^OP([A-Za-z0-9]*, \([a-z0-9_]*\),.*/\1/p' src/ops/ops.def)
[ "$(echo "$ops" | wc -l)" -ge 20 ] || problem "found only these ops in src/ops/ops.def: $ops"
for op in $ops; do
    file=$(grep -lE "^[A-Za-z].*[ *]cpu_$op\(" src/cpu/*.c)
    case $file in
        src/cpu/*.c) ;;
        *) problem "cpu_$op: defined in '$file', expected in one file of src/cpu/" ;;
    esac
done

# Structs of functions are initialized by name: two neighbours of one type could be swapped unnoticed.
for table in 'metrics/sink.h Sink' 'comm/comm.h CommTable' 'cp/runtime.h CpTable' 'ops/ops.h Ops'; do
    message=$(printf '#include "%s"\nconst %s by_position = {NULL, NULL};\n' "${table% *}" "${table#* }" |
        gcc -std=c11 -D_GNU_SOURCE -Isrc -fsyntax-only -Werror=designated-init -x c - 2>&1)
    case $message in
        *designated_init*) ;;
        *) problem "${table#* } (src/${table% *}) can be initialized by position: add FIELDS_BY_NAME" ;;
    esac
done

[ $failures = 0 ] && echo "$(echo "$pairs" | wc -l) includes, $(echo "$ops" | wc -l) ops"
