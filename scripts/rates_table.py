#!/usr/bin/env python3
"""Prints README's table of attention rates.

    scripts/rates_table.py [RATES.jsonl ...] [--check README.md]

It is made from the lines that `cria bench attention --json` printed. Several
lines of one case are several measurements: the table shows the range."""
import json
import pathlib
import sys

from runlog import Parser, fail

root = pathlib.Path(__file__).resolve().parent.parent


def span(values, form):
    low, high = form % min(values), form % max(values)
    return low if low == high else f"{low} to {high}"


def table(paths):
    cases = {}
    for path in paths:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            key = (row["device"], row["state"], row["heads"], row["D"], row["mask"], int(row["tokens"]))
            cases.setdefault(key, []).append(row)
    lines = ["| heads, D | mask | tokens | forward, TFLOP/s | share | backward, TFLOP/s | share |",
             "|---|---|---:|---:|---:|---:|---:|"]
    for (_, _, heads, D, mask, tokens), rows in cases.items():
        cells = [f"{heads}, {D}", mask, f"{tokens // 1024}k"]
        for way in ("fwd", "bwd"):
            cells.append(span([r[way + "_tflops"] for r in rows], "%.0f"))
            cells.append(span([r[way + "_of_gemm"] for r in rows], "%.0f") + " %")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = Parser(__doc__)
    parser.add_argument("rates", nargs="*", type=pathlib.Path, help="default: tests/results/rates-*.jsonl")
    parser.add_argument("--check", type=pathlib.Path, metavar="README", help="exit with 1 unless it holds the table")
    args = parser.parse_args()
    paths = args.rates or sorted((root / "tests/results").glob("rates-*.jsonl"))
    try:
        text = table(paths)
        if args.check and text not in args.check.read_text():
            sys.exit(f"rates_table.py: {args.check} does not hold the table of {', '.join(map(str, paths))}:\n{text}")
    except (OSError, ValueError, KeyError) as error:
        fail(f"{error!r}: expected lines of cria bench attention --json")
    if not args.check:
        print(text)


if __name__ == "__main__":
    main()
