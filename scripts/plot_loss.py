#!/usr/bin/env python3
"""Draws loss, learning rate and gradient norm of one or more runs from their
log.jsonl.

    scripts/plot_loss.py RUN...  [--out FILE]

RUN is a directory that holds log.jsonl, or such a file. The picture goes to
RUN/loss.png of the first. Training loss is drawn as it is (faint) and as the
mean of a fiftieth of the steps around each step; circles are evaluations on
held-out data."""

import pathlib

from runlog import COLORS, NoRun, Parser, Run, draw_loss, explain_smoothing, fail, half_window, \
    import_pyplot, labels, save_picture


def summary(run):
    x, loss = run.series("loss")
    text = f"{run.folder}: step {x[-1]}, training loss {loss[0]:.3f} -> {loss[-1]:.3f}"
    if run.evals:
        first, *_, last = [*run.evals.values()] * 2
        text += f", held-out loss {first:.3f} -> {last:.3f}"
    if run.replayed:
        text += ", replayed from step " + ", ".join(map(str, run.replayed))
    return text


def draw(plt, runs, out):
    figure = plt.figure(figsize=(10, 7), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(2.2, 1))
    top = figure.add_subplot(grid[0, :])
    lower = {key: figure.add_subplot(grid[1, i], sharex=top)
             for i, key in enumerate(("lr", "grad_norm"))}

    half = half_window(max(len(run.steps) for run in runs))
    for i, (run, label) in enumerate(zip(runs, labels(runs))):
        color = COLORS[i % len(COLORS)]
        draw_loss(top, run, color, f"{label}, training", half)
        if run.evals:
            at, held_out = zip(*run.evals.items())
            tokens = f" on {run.held_out_tokens:,.0f} tokens" if run.held_out_tokens else ""
            top.plot(at, held_out, "o", color=color, markersize=6, markeredgewidth=1.5, markerfacecolor="white",
                     label=f"{label}, held out{tokens}: {held_out[-1]:.3f} at step {at[-1]}")
        for key, axes in lower.items():
            axes.plot(*run.series(key), color=color, linewidth=1.2)

    top.set(title="Loss", ylabel="cross entropy per token (nats)", xlabel="step")
    explain_smoothing(top, half)
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
    save_picture(figure, out)


def main():
    parser = Parser(__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=pathlib.Path, help="a run.dir, or its log.jsonl")
    parser.add_argument("--out", metavar="FILE", type=pathlib.Path, help="default: loss.png in the first RUN")
    args = parser.parse_args()
    plt = import_pyplot()
    try:
        runs = [Run(path) for path in args.runs]
    except NoRun as reason:
        fail(reason)
    out = args.out or runs[0].folder / "loss.png"
    draw(plt, runs, out)
    for run in runs:
        print(summary(run))
    print(f"The picture is {out}")


if __name__ == "__main__":
    main()
