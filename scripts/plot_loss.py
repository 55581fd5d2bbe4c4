#!/usr/bin/env python3
"""Draws loss, learning rate and gradient norm of one or more runs from their log.jsonl.

    scripts/plot_loss.py RUN...  [--out FILE]

RUN is a directory that holds log.jsonl, or such a file. The picture goes to RUN/loss.png of the first.
Training loss is drawn raw (faint) and smoothed; dots are evaluations on held-out data."""

import argparse
import json
import math
import os
import pathlib
import sys

GRAY = "0.35"
COLORS = ["#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#db2777", "#4b5563"]


def fail(sentence):
    sys.exit(f"plot_loss: {sentence}")


def import_pyplot():
    """Debian's own Python has Debian's matplotlib; the first python3 in PATH may be another one."""
    try:
        import matplotlib
    except ImportError:
        debian = "/usr/bin/python3"
        if sys.prefix != "/usr" and os.access(debian, os.X_OK):
            os.execv(debian, [debian, *sys.argv])
        fail("needs matplotlib: apt-get install python3-matplotlib, or pip install matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    return plt


class Run:
    """steps and evals: {step: record}. A record that goes back in time is a resumed run: it replaces
    everything that the log said from that step on."""

    def __init__(self, path):
        self.log = path / "log.jsonl" if path.is_dir() else path
        self.folder = self.log.parent
        self.steps, self.evals, self.replayed = {}, {}, []
        if not self.log.is_file():
            fail(f"{path} has no log.jsonl; is it the run.dir of a run that has started?")
        lines = self.log.read_text(errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                self.add(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                if line.strip() and number < len(lines):  # the last may be just being written
                    print(f"plot_loss: skipped {self.log}:{number}, not a log record",
                          file=sys.stderr)
        if not self.steps:
            fail(f"{self.log} has no step records yet")

    def add(self, record):
        kind = record.get("kind")
        if kind == "step":
            step = int(record["step"])
            values = {key: number(record[key]) for key in ("loss", "grad_norm", "lr")}
            if self.steps and step <= max(self.steps):
                self.replayed.append(step)
                self.steps = {s: r for s, r in self.steps.items() if s < step}
                self.evals = {s: r for s, r in self.evals.items() if s < step}
            self.steps[step] = values
        elif kind == "eval":
            self.evals[int(record["step"])] = number(record["loss"])

    def series(self, key):
        return list(self.steps), [record[key] for record in self.steps.values()]

    def summary(self):
        x, loss = self.series("loss")
        text = f"{self.folder}: step {x[-1]}, training loss {loss[0]:.3f} -> {loss[-1]:.3f}"
        if self.evals:
            first, *_, last = [*self.evals.values()] * 2
            text += f", held-out loss {first:.3f} -> {last:.3f}"
        if self.replayed:
            text += ", replayed from step " + ", ".join(map(str, self.replayed))
        return text


def number(value):
    """JSON has no NaN: a log may say null."""
    return math.nan if value is None else float(value)


def smooth(values, window):
    """Exponential moving average, without the pull of its start."""
    keep, total, weight, out = 1 - 1 / window, 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            total, weight = keep * total + value, keep * weight + 1
            value = total / weight
        out.append(value)
    return out


def labels(runs):
    """The shortest ends of the paths that tell the runs apart."""
    parts = [run.folder.resolve().parts for run in runs]
    depth = 1
    while depth < max(map(len, parts)) and len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    return [str(pathlib.Path(*p[-depth:])) for p in parts]


def draw(plt, runs, out):
    plt.rcParams.update({
        "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left", "axes.edgecolor": GRAY,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "0.92",
        "axes.axisbelow": True, "xtick.color": GRAY, "ytick.color": GRAY, "legend.frameon": False})
    figure = plt.figure(figsize=(10, 7), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(2.2, 1))
    top = figure.add_subplot(grid[0, :])
    lower = {key: figure.add_subplot(grid[1, i], sharex=top)
             for i, key in enumerate(("lr", "grad_norm"))}

    for i, (run, label) in enumerate(zip(runs, labels(runs))):
        color = COLORS[i % len(COLORS)]
        x, loss = run.series("loss")
        window = max(1, len(loss) // 50)
        if window > 1:
            top.plot(x, loss, color=color, alpha=0.25, linewidth=0.8)
        top.plot(x, smooth(loss, window), color=color, linewidth=1.8, label=f"{label}, training")
        if run.evals:
            at, held_out = zip(*run.evals.items())
            top.plot(at, held_out, "o--", color=color, markersize=5, linewidth=1,
                     markerfacecolor="white", label=f"{label}, held out ({held_out[-1]:.3f})")
        for key, axes in lower.items():
            axes.plot(*run.series(key), color=color, linewidth=1.2)

    top.set(title="Loss", ylabel="cross entropy per token (nats)", xlabel="step")
    top.legend()
    top.xaxis.get_major_locator().set_params(integer=True)
    lower["lr"].set(title="Learning rate", xlabel="step")
    lower["lr"].yaxis.set_major_formatter("{x:g}")
    lower["lr"].set_ylim(bottom=0)
    lower["grad_norm"].set(title="Gradient norm", xlabel="step")
    norms = [n for run in runs for n in run.series("grad_norm")[1] if n > 0]
    if norms and max(norms) > 20 * min(norms):
        lower["grad_norm"].set_yscale("log")
    else:
        lower["grad_norm"].set_ylim(bottom=0)
    try:
        figure.savefig(out, dpi=130)
    except (OSError, ValueError) as error:
        fail(f"cannot write {out}: {error}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", metavar="FILE", type=pathlib.Path)
    args = parser.parse_args()
    plt = import_pyplot()
    runs = [Run(path) for path in args.runs]
    out = args.out or runs[0].folder / "loss.png"
    draw(plt, runs, out)
    for run in runs:
        print(run.summary())
    print(f"The picture is {out}")


if __name__ == "__main__":
    main()
