"""runlog.py: shared by the scripts: how they end, reading log.jsonl, a matplotlib to draw with."""

import argparse
import json
import math
import os
import pathlib
import re
import sys

GRAY = "0.35"
COLORS = ["#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#db2777", "#4b5563"]


def say(sentence):
    print(f"{pathlib.Path(sys.argv[0]).stem}: {sentence}", file=sys.stderr)


def fail(sentence, status=2):
    say(sentence)
    sys.exit(status)


class Parser(argparse.ArgumentParser):
    """Help within 80 columns; a mistake in the command is one sentence and exit status 2."""

    def __init__(self, doc):
        super().__init__(description=doc,
                         formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=80))

    def error(self, message):
        known = self._option_string_actions
        unknown = [word for word in sys.argv[1:] if re.match("--?[a-zA-Z]", word)
                   and not any(option.startswith(word.partition("=")[0]) for option in known)]
        fail(f"{f'unknown option {unknown[0]}' if unknown else message}; --help lists the options")


def package_missing(error, parser, install):
    """Called for an ImportError. Help, and what is wrong with the command, needs no package."""
    parser.parse_args()
    fail(f"the package {error.name} is missing: python3 -m pip install {install}", 3)


def import_pyplot():
    """Debian's own Python has Debian's matplotlib; the first python3 in PATH may be another one, and
    then the script starts anew. Call it before doing anything else."""
    try:
        import matplotlib
    except ImportError:
        debian = "/usr/bin/python3"
        if sys.prefix != "/usr" and os.access(debian, os.X_OK):
            os.execv(debian, [debian, *sys.argv])
        fail("needs matplotlib: apt-get install python3-matplotlib, or pip install matplotlib", 3)
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({
        "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left", "axes.edgecolor": GRAY,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "0.92",
        "axes.axisbelow": True, "xtick.color": GRAY, "ytick.color": GRAY, "legend.frameon": False})
    return plt


def save_picture(figure, out):
    try:
        figure.savefig(out, dpi=130)
    except (OSError, ValueError) as error:
        fail(f"cannot write {out}: {error}", 3)


class NoRun(Exception):
    """There is nothing to read; the sentence says what is missing."""


class Run:
    """steps and evals: {step: record}; head: the last start's. A record that goes back in time is a
    resumed run: it replaces everything that the log said from that step on."""

    def __init__(self, path):
        self.log = path / "log.jsonl" if path.is_dir() else path
        self.folder = self.log.parent
        self.head, self.steps, self.evals, self.samples, self.replayed = {}, {}, {}, {}, []
        self.slow = {}  # {step: a sentence about a rank that stays behind}
        self.held_out = {}  # the last evaluation's record
        self.held_out_tokens = None  # of an evaluation
        if not self.log.is_file():
            raise NoRun(f"{path} has no log.jsonl; is it the run.dir of a run that has started?")
        lines = self.log.read_text(errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                self.add(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                if line.strip() and number < len(lines):  # the last may be just being written
                    say(f"skipped {self.log}:{number}, not a log record")
        if not self.steps:
            raise NoRun(f"{self.log} has no step records yet")

    def add(self, record):
        kind = record.get("kind")
        if kind == "head":
            self.head = record
        elif kind == "step":
            step = int(record["step"])
            for key in "loss", "grad_norm", "lr":
                record[key] = number(record[key])
            if self.steps and step <= self.last():
                self.replayed.append(step)
                for past in self.steps, self.evals, self.samples, self.slow:
                    for later in [s for s in past if s >= step]:
                        del past[later]
            self.steps[step] = record
        elif kind == "eval":
            self.evals[int(record["step"])] = number(record["loss"])
            self.held_out_tokens = record.get("tokens")
            self.held_out = record
        elif kind == "sample":
            self.samples[int(record["step"])] = str(record["prompt"]), str(record["text"])
        elif kind == "slow":
            self.slow[int(record["step"])] = str(record["found"])

    def last(self):
        return next(reversed(self.steps))

    def series(self, key):
        return list(self.steps), [number(record.get(key)) for record in self.steps.values()]


    def parts(self, key, of=None):
        """{part: values by step} of a field that is an object of numbers, or of objects that have a number `of`."""
        out = {}
        for record in self.steps.values():
            for part, value in (record.get(key) or {}).items():
                out.setdefault(part, []).append(number(value if of is None else value[of]))
        return out


def number(value):
    """JSON has no NaN: a log may say null."""
    return math.nan if value is None else float(value)


def flat(config, prefix=""):
    """{key: text} of all keys."""
    out = {}
    for key, value in config.items():
        nested = isinstance(value, dict)
        out |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: str(value)}
    return out


def half_window(n):
    """smooth() takes so many values on each side, a fiftieth of n in all."""
    return n // 100


def smooth(values, half):
    """The mean of each value and of `half` of them on each side, at the ends of as many as both sides have: a
    straight line stays what it is. What is not finite is left out."""
    sums, counts = [0.0], [0]
    for value in values:
        finite = math.isfinite(value)
        sums.append(sums[-1] + (value if finite else 0))
        counts.append(counts[-1] + finite)
    out = []
    for i, value in enumerate(values):
        reach = min(half, i, len(values) - 1 - i)
        a, b = i - reach, i + reach + 1
        out.append((sums[b] - sums[a]) / (counts[b] - counts[a]) if math.isfinite(value) else value)
    return out


def labels(runs):
    """The shortest ends of the paths that tell the runs apart."""
    parts = [(run.folder if run.log.name == "log.jsonl" else run.log.with_suffix("")).resolve().parts for run in runs]
    depth = 1
    while depth < max(map(len, parts)) and len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    return [str(pathlib.Path(*p[-depth:])) for p in parts]


def draw_loss(axes, run, color, label, half, **line):
    """Training loss: the mean of `half` steps on each side, and behind it, faintly, the values themselves."""
    x, loss = run.series("loss")
    if half:
        axes.plot(x, loss, color=color, alpha=0.3, linewidth=0.8, zorder=1)
    axes.plot(x, smooth(loss, half), color=color, label=label, **{"linewidth": 1.6, **line})


def explain_smoothing(axes, half):
    """An entry of the legend for the faint lines of draw_loss()."""
    if half:
        axes.plot([], [], color=GRAY, alpha=0.4, linewidth=0.8, label=f"faint: each step; strong: mean of {2 * half + 1} "
                  "steps around it")
