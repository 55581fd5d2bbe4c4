#!/usr/bin/env python3
"""Writes one HTML page about one or more runs, from their log.jsonl.

    scripts/report.py RUN... [--out FILE]

RUN is a directory that holds log.jsonl, or such a file. The page has loss and
evaluations, gradient norm, learning rate, speed, memory, the phases of a step
where the log has them, samples, and the configuration with what differs between
the runs. It needs nothing else, no network, and no package to make it; runs are
shown and hidden by their boxes. It goes to RUN/report.html of the first.

Curves of training loss and gradient norm are the mean of a fiftieth of the
steps, centred on the step; the values themselves are drawn faintly."""

import math
import os
import pathlib
import re
import statistics
from xml.sax.saxutils import escape

from runlog import COLORS, NoRun, Parser, Run, fail, flat, half_window, labels, number, smooth
from svgchart import Chart, Stack, short

DARK = ["#7aa2f7", "#f7768e", "#5fd3a4", "#e0af68", "#bb9af7", "#5cc8e6", "#f5a3d0", "#a9b1c6"]
PARTS = ["#64748b", "#2563eb", "#7c3aed", "#dc2626", "#ea580c", "#059669", "#0891b2", "#facc15", "#a16207", "#db2777",
         "#9ca3af"]  # of a step; on either background
MOST_ROWS = 200  # of a table of steps
STYLE = """
:root { --back: #ffffff; --text: #1f2328; --soft: #5b6470; --rule: #d8dde3; --mark: #fff3c4; }
body { background: var(--back); color: var(--text); font: 15px/1.45 system-ui, sans-serif; margin: 0 auto;
  max-width: 1320px; padding: 16px 24px 48px; }
h1 { font-size: 22px; } h2 { font-size: 17px; margin: 32px 0 8px; }
p, summary { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--rule); padding: 3px 14px 3px 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, .config td, .config th { text-align: left; }
th { color: var(--soft); font-weight: 500; }
.config td { white-space: normal; overflow-wrap: anywhere; max-width: 340px; font-family: ui-monospace, monospace; font-size: 13px; }
.differs td { background: var(--mark); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 20px; }
svg { width: 100%; height: auto; }
svg .title { fill: var(--text); font-size: 15px; font-weight: 600; }
svg .tick { fill: var(--soft); font-size: 12px; font-weight: 400; }
svg .grid { stroke: var(--rule); fill: none; } svg .axis { stroke: var(--soft); fill: none; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } svg .faint { stroke-width: 1; opacity: 0.3; }
svg .dot { fill: var(--back); stroke-width: 2; }
blockquote { border-left: 3px solid var(--rule); margin: 8px 0; padding: 2px 12px; white-space: pre-wrap; max-width: 900px; }
blockquote b { font-weight: 600; }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 8px; }
"""
DARK_STYLE = "--back: #15181e; --text: #e3e7ee; --soft: #9aa5b4; --rule: #343b46; --mark: #4a3f18;"


# ---- HTML ----------------------------------------------------------------------------------------

def text(value):
    """Text of XML, which has no control characters."""
    printable = re.sub("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", str(value))
    return escape(printable, {'"': "&quot;"})


def table(head, rows, name="", row_names=()):
    """Cells are text already."""
    lines = [f'<div class="wide"><table class="{name}">',
             "<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    for i, row in enumerate(rows):
        row_name = f' class="{row_names[i]}"' if row_names and row_names[i] else ""
        lines.append(f"<tr{row_name}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    return "\n".join([*lines, "</table></div>"])


def form(value, pattern):
    return format(value, pattern) if value is not None and math.isfinite(value) else "-"


def style(count):
    def colors(palette):
        return "\n".join(f".r{i} {{ stroke: {palette[i % len(palette)]}; }} "
                         f".swatch.r{i} {{ background: {palette[i % len(palette)]}; }}" for i in range(count))
    hidden = "\n".join(f"body:has(#show{i}:not(:checked)) .line.r{i}, body:has(#show{i}:not(:checked)) .dot.r{i} "
                       "{ display: none; }" for i in range(count))
    areas = "\n".join(f".area.p{i} {{ fill: {color}; }}" for i, color in enumerate(PARTS))
    return (f"{STYLE}{areas}\n{colors(COLORS)}\n{hidden}\n@media (prefers-color-scheme: dark) {{ :root {{ {DARK_STYLE} "
            f"color-scheme: dark; }}\n{colors(DARK)} }}\n")


# ---- sections ------------------------------------------------------------------------------------

def median(values):
    finite = [v for v in values if math.isfinite(v)]
    return statistics.median(finite) if finite else None


def overview(runs, names):
    head = ["run", "steps", "training loss", "held-out loss", "tokens", "tok/s", "MFU", "memory", "weights", "ranks",
            "dp x cp", "device", "cria"]
    rows = []
    for i, (run, name) in enumerate(zip(runs, names)):
        last, about = run.steps[run.last()], run.head
        memory = [v for v in run.series("mem_gib")[1] if math.isfinite(v)]
        mfu = median(run.series("mfu")[1][1:])
        config = about.get("config", {}).get("run", {})
        rows.append([
            f'<label><input type="checkbox" id="show{i}" checked="checked"/> <span class="swatch r{i}"></span>'
            f"{text(name)}</label>",
            f"{run.last()} of {config.get('steps', '?')}", form(last["loss"], ".6g"),
            form([*run.evals.values()][-1], ".6g") if run.evals else "-", form(number(last.get("tokens")), ",.0f"),
            form(median(run.series("tok_s")[1][1:]), ",.0f"), "-" if mfu is None else f"{100 * mfu:.1f} %",
            f"{max(memory):.4g} GiB" if memory else "-", short(about.get("parameters", 0)),
            text(about.get("world", "-")), text(f"{about.get('dp', '-')} x {about.get('cp', '-')}"),
            text(about.get("device", "-")), text(about.get("version", "-"))])
    return table(head, rows)


def charts(runs):
    norms = [n for run in runs for n in run.series("grad_norm")[1] if math.isfinite(n) and n > 0]
    log_norm = bool(norms) and max(norms) > 20 * min(norms)
    made = {"loss": Chart("Loss", "nats per token; circles: held out"),
            "grad_norm": Chart("Gradient norm", "before clipping", log=log_norm, zero=not log_norm),
            "lr": Chart("Learning rate", zero=True), "tok_s": Chart("Speed", "tokens/s, all ranks", zero=True),
            "mfu": Chart("MFU", "share of the peak", zero=True),
            "mem_gib": Chart("Memory", "GiB at most, rank 0", zero=True),
            "data_ms": Chart("Waiting for data", "ms of a step", zero=True)}
    for i, run in enumerate(runs):
        for key, chart in made.items():
            x, y = run.series(key)
            if key in ("loss", "grad_norm") and half_window(len(y)):
                chart.line(i, x, y, faint=True)
                y = smooth(y, half_window(len(y)))
            chart.line(i, x, y)
        made["loss"].dot(i, [*run.evals], [*run.evals.values()])
    if not any(y > 0 for _, y in made["data_ms"].finite()):
        del made["data_ms"]
    return '<div class="charts">' + "\n".join(f"<div>{svg}</div>" for c in made.values() if (svg := c.svg())) + "</div>"


def phases(runs, names):
    """Where the time of a step goes: over the steps the median of the ranks, and a table with the slowest rank."""
    found = [(run, name) for run, name in zip(runs, names) if run.parts("phase_ms", "median")]
    if not found:
        return ""
    pictures, rows = [], {}
    for run, name in found:
        middle, most, rank = (run.parts("phase_ms", of) for of in ("median", "max", "rank"))
        steps = [step for step, record in run.steps.items() if record.get("phase_ms")]
        pictures.append(f"<div>{Stack(f'Phases, {name}', 'ms of a step, median of the ranks', steps, middle).svg()}</div>")
        for part in middle:
            often = max(set(rank[part]), key=rank[part].count)
            cells = [form(median(middle[part]), ",.4g"), form(median(most[part]), ",.4g"),
                     f"{often:.0f} ({100 * rank[part].count(often) / len(rank[part]):.0f} %)"]
            rows.setdefault(part, {})[name] = cells
    head = ["phase, ms", *(f"{text(name)}: {word}" for _, name in found for word in ("median", "slowest", "which rank"))]
    body = [[text(part), *(cell for _, name in found for cell in cells.get(name, ["-"] * 3))]
            for part, cells in rows.items()]
    slow = "".join(f"<p>{text(name)}, step {step}: {text(said)}</p>\n" for run, name in found
                   for step, said in run.slow.items())
    return '<div class="charts">' + "\n".join(pictures) + f"</div>\n{table(head, body)}\n{slow}"


def parts_of_steps(runs, names, key):
    """A table of a field that is an object of numbers: the median of each."""
    found = [{part: median(values) for part, values in run.parts(key).items()} for run in runs]
    parts = [p for p in dict.fromkeys(p for f in found for p in f) if any(f.get(p) for f in found)]
    if not parts:
        return ""
    return table(["", *map(text, names)], [[text(p), *(form(f.get(p), ",.4g") for f in found)] for p in parts])


def held_out(runs, names):
    """The last evaluation: of all, and of each set with a name."""
    rows = []
    for run, name in zip(runs, names):
        all_of = {"all": run.held_out, **run.held_out.get("sets", {})} if "ppl" in run.held_out else {}
        rows += [[text(name), text(part), *(form(number(found.get(key)), ".6g") for key in ("loss", "ppl", "bpb")),
                  form(number(found.get("tokens")), ",.0f")] for part, found in all_of.items()]
    return table(["run", "set", "loss", "perplexity", "bits per byte", "tokens"], rows) if rows else ""


def by_position(runs, names):
    """The last evaluation: loss of tokens with fewer than so many tokens of context."""
    found = [{end: loss for end, loss, _ in run.held_out.get("by_position", [])} for run in runs]
    ends = sorted({end for losses in found for end in losses})
    rows = [[f"below {end:,}", *(form(number(losses.get(end)), ".6g") for losses in found)] for end in ends]
    return table(["tokens of context", *map(text, names)], rows) if rows else ""


def samples(runs, names):
    out = []
    for run, name in zip(runs, names):
        for step, (prompt, sample) in run.samples.items():
            out.append(f"<p>{text(name)}, step {step}</p>\n<blockquote><b>{text(prompt)}</b>{text(sample)}</blockquote>")
    return "\n".join(out)


def configuration(runs, names):
    all_of = [flat(run.head.get("config", {})) for run in runs]
    keys = list(dict.fromkeys(key for config in all_of for key in config))
    rows = [[text(key), *(text(config.get(key, "-")) for config in all_of)] for key in keys]
    differs = ["differs" if len(set(row[1:])) > 1 else "" for row in rows]
    order = sorted(range(len(rows)), key=lambda i: not differs[i])
    return table(["key", *map(text, names)], [rows[i] for i in order], "config", [differs[i] for i in order])


def numbers(run):
    keys = {"loss": ".6g", "grad_norm": ".5g", "lr": ".4g", "tokens": ",.0f", "ms": ",.5g", "tok_s": ",.0f", "mem_gib": ".4g"}
    every = math.ceil(len(run.steps) / MOST_ROWS)
    chosen = [step for i, step in enumerate(run.steps) if i % every == 0 or step == run.last()]
    rows = [[step, *(form(number(run.steps[step].get(key)), pattern) for key, pattern in keys.items()),
             form(run.evals.get(step), ".6g")] for step in chosen]
    return table(["step", "loss", "grad norm", "lr", "tokens", "ms", "tok/s", "GiB", "held-out loss"], rows)


def page(runs):
    names = labels(runs)
    sections = [("", overview(runs, names)), ("Curves", charts(runs)),
                ("Phases of a step", phases(runs, names)),
                ("Bytes that rank 0 sends in a step, median", parts_of_steps(runs, names, "comm_bytes")),
                ("Held-out loss of the last evaluation", held_out(runs, names)), ("The same by context", by_position(runs, names)),
                ("Samples", samples(runs, names)), ("Configuration", configuration(runs, names)),
                ("Numbers", "\n".join(f"<details><summary>{text(n)}</summary>{numbers(r)}</details>"
                                      for r, n in zip(runs, names)))]
    title = text(", ".join(names))
    body = "\n".join((f"<h2>{head}</h2>\n" if head else "") + content for head, content in sections if content)
    return (f'<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml" lang="en"><head><meta charset="utf-8"/>\n'
            f'<meta name="viewport" content="width=device-width"/><title>{title}</title>\n'
            f"<style>{style(len(runs))}</style></head>\n<body>\n<h1>{title}</h1>\n{body}\n</body></html>\n")


def main():
    parser = Parser(__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=pathlib.Path, help="a run.dir, or its log.jsonl")
    parser.add_argument("--out", metavar="FILE", type=pathlib.Path, help="default: report.html in the first RUN")
    args = parser.parse_args()
    try:
        runs = [Run(path) for path in args.runs]
    except NoRun as reason:
        fail(reason)
    out = args.out or runs[0].folder / "report.html"
    temporary = out.with_name(out.name + ".tmp")
    try:
        temporary.write_text(page(runs), encoding="utf-8")
        os.replace(temporary, out)
    except OSError as error:
        fail(f"cannot write {out}: {error.strerror}", 3)
    print(f"The page is {out}")


if __name__ == "__main__":
    main()
