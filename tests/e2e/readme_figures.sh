#!/bin/sh
# The rates of attention in tests/results/README.md are those recorded beside it, which make check-gpu holds new builds
# to, and the first picture of README.md is what its command draws.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

run scripts/rates_table.py --check tests/results/README.md
expect_status 'the table of rates' 0
run scripts/rates_table.py
expect 'rows of the table' "$(grep -c '^| [0-9]*/[0-9]*, ' "$work/out")" \
    "$(cat tests/results/rates-*.jsonl | sed 's/.*"D":\([0-9]*\),"heads":"\([^"]*\)","mask":"\([^"]*\)","tokens":"\([0-9]*\)".*/\1 \2 \3 \4/' | sort -u | wc -l)"
sed 's/| 32\/8, 64 | causal | 8k | [0-9]*/| 32\/8, 64 | causal | 8k | 999/' tests/results/README.md >"$work/changed.md"
run scripts/rates_table.py --check "$work/changed.md"
expect_status 'another figure is found' 1

command=$(sed -n 's|^    build/cria \(plan .*\) --svg plan.svg$|\1|p' README.md)
# shellcheck disable=SC2086 # words
run "$cria" $command --svg "$work/plan.svg"
expect_status 'the picture is drawn' 0
cmp -s "$work/plan.svg" tests/results/plan-4-ranks.svg
expect 'tests/results/plan-4-ranks.svg is what the command in README.md draws' $? 0
