#!/bin/sh
# configs/KEYS.md is what the program prints of its table of keys, a line for each.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

run "$cria" config --markdown
expect_status 'cria config --markdown' 0
cmp -s "$work/out" configs/KEYS.md
expect "configs/KEYS.md is current (build/cria config --markdown >configs/KEYS.md)" $? 0
grep -c '^| `' "$work/out" >"$work/lines"
run "$cria" config
expect 'lines' "$(cat "$work/lines")" "$(grep -c '^  [a-z]' "$work/out")"
run "$cria" config optim --markdown
expect_refused 'a section as a page' 2 "--markdown is of all keys: found 'optim' beside it"
