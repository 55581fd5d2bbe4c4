#!/bin/sh
# What CONTRIBUTING.md, the folders' README.md and README.md's tour name is there: files, make targets,
# commands, programs, keys, functions and other identifiers, in `code spans` and indented lines. X in a
# path stands for any name. A recipe has at most 15 lines, a folder's README.md at most 40.
set -u
CDPATH='' cd -- "$(dirname -- "$0")/../.." || exit 3
failures=0 names=0
problem() {
    failures=$((failures + 1))
    echo "FAIL: $*"
}
work=$(mktemp -d) || exit 3
trap 'rm -rf "$work"' EXIT

find src cuda tests \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) ! -path '*/corpus/*' -exec cat {} + >"$work/code"
grep -oE '[A-Za-z_][A-Za-z0-9_]*' "$work/code" | sort -u >"$work/identifiers"
grep -oE '[A-Za-z_][A-Za-z0-9_]*\(' "$work/code" | sort -u >"$work/functions"
sed -n 's/^    [A-Z]*(\([a-z0-9_.]*\),.*/\1/p; s/^        \([a-z0-9_]*\.[a-z0-9_.]*\), .*/\1/p' src/config/keys.c >"$work/keys"
printf '%s\n' tests/*.* tests/*/*.sh >"$work/tests"

# path PATH: does it exist, with X for any name?
path() {
    # shellcheck disable=SC2046 # a pattern
    set -- $(echo "$1" | sed 's|\<X\>|*|; s|_X\>|_*|; s|\<X\.|*.|')
    [ -e "$1" ]
}
make_words() {
    for word in "$@"; do
        case $word in
            -*) ;;
            T=word) ;;
            T=*) grep -qF "${word#T=}" "$work/tests" || return 1 ;;
            *=*) grep -q "^${word%%=*} *?=" Makefile || return 1 ;;
            build/*.o) word=${word#build/} && { [ -f "${word%.o}.c" ] || [ -f "${word%.o}.cu" ]; } || return 1 ;;
            *) grep -qE "^$word:.*##" Makefile || return 1 ;;
        esac
    done
}
command_words() {
    grep -qE "\.name = \"$1(\"| ${2:-})" src/cli/*.c || return 1
    shift
    for word in "$@"; do
        case $word in
            */*) [ -e "$word" ] || return 1 ;;
            *.*=*) grep -qx "${word%%=*}" "$work/keys" || return 1 ;;
            [a-z]*=*) grep -q "\"${word%%=*}\"" src/bench/*.c || return 1 ;;
        esac
    done
}
# there TEXT: is what it names there? What it does not recognize, it accepts.
there() {
    # shellcheck disable=SC2086 # words
    set -- $1
    if [ "$1" = mpirun ] && [ $# -gt 3 ]; then shift 3; fi
    case $1 in
        make) shift && make_words "$@" ;;
        cria | build/cria) [ $# = 1 ] || { shift && command_words "$@"; } ;;
        build/tests/*) [ -f "tests/${1##*/}.c" ] || [ -f "tests/${1##*/}.cu" ] ;;
        mpirun | build/*) ;;
        -* | *=* | *:*) ;;
        */* | *.[ch] | *.cu | *.cuh | *.md | *.sh | *.yaml | .[a-z]*) path "$1" ;;
        *'()') grep -qxF "${1%)}" "$work/functions" ;;
        *[!A-Za-z0-9_.]*) ;;
        *.*) grep -qx "$1" "$work/keys" ;;
        *) [ $# != 1 ] || grep -qx "$1" "$work/identifiers" || grep -qE "^$1:.*##" Makefile ;;
    esac
}
# check NAME: what the text on stdin, of the file NAME, says
check() {
    cat >"$work/text"
    awk '{ n = gsub(/`/, "") } n % 2 { print FNR }' "$work/text" >"$work/open"
    [ ! -s "$work/open" ] || problem "$1: code spans go on behind the end of their lines: $(tr '\n' ' ' <"$work/open")"
    awk -F '`' '{ for (i = 2; i < NF; i += 2) print $i }
        /^    (make|mpirun|build\/cria|scripts\/)/ { sub(/ *#.*/, ""); sub(/^ */, ""); print }' "$work/text" |
        sort -u >"$work/spans"
    while read -r span; do
        names=$((names + 1))
        there "$span" || problem "$1 names '$span', which is not there"
    done <"$work/spans"
}

for file in CONTRIBUTING.md configs/README.md cuda/README.md src/README.md src/*/README.md tests/README.md; do
    # shellcheck disable=SC2094 # its name, and its text
    check "$file" <"$file"
    [ "$file" = CONTRIBUTING.md ] || [ "$(wc -l <"$file")" -le 40 ] || problem "$file has more than 40 lines"
done
sed -n '/^## A tour of the source/,/^## Limits/p' README.md >"$work/tour"
check 'README.md (tour)' <"$work/tour"

for recipe in 'A mask' 'A context-parallel backend' 'An op' 'A key' 'A log sink' 'A kernel'; do
    lines=$(awk -v title="### $recipe" '$0 == title { on = 1; next } /^##/ { on = 0 } on && NF { n++ } END { print n + 0 }' CONTRIBUTING.md)
    [ $((lines >= 1 && lines <= 15)) = 1 ] || problem "CONTRIBUTING.md, '$recipe': $lines lines, expected 1 to 15"
done
[ $names -ge 200 ] || problem "only $names names were found"

# The test itself: what is not there is found missing.
for absent in src/attn/nowhere.c 'make nothing' 'build/cria nothing' 'no_function()' NoSuchType run.nothing \
    'make check T=test_nothing' build/tests/test_nothing; do
    ! there "$absent" || problem "'$absent' was taken to be there"
done
[ $failures = 0 ] && echo "$names names"
