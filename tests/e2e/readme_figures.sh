#!/bin/sh
# The README's rates of attention are those recorded in tests/results, which make check-gpu holds new builds to.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

run scripts/rates_table.py --check README.md
expect_status 'the table of rates in README.md' 0
run scripts/rates_table.py
expect 'rows of the table' "$(grep -c '^| [0-9]*/[0-9]*, ' "$work/out")" \
    "$(cat tests/results/rates-*.jsonl | sed 's/.*"D":\([0-9]*\),"heads":"\([^"]*\)","mask":"\([^"]*\)","tokens":"\([0-9]*\)".*/\1 \2 \3 \4/' | sort -u | wc -l)"
sed 's/| 32\/8, 64 | causal | 8k | [0-9]*/| 32\/8, 64 | causal | 8k | 999/' README.md >"$work/changed.md"
run scripts/rates_table.py --check "$work/changed.md"
expect_status 'another figure is found' 1
