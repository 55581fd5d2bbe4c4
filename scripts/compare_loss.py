#!/usr/bin/env python3
"""Trains one configuration with several context-parallel backends, compares the
loss curves.

    scripts/compare_loss.py CONFIG --steps N [--cp 1,2,4]
        [--backends ring,magi] [key=value ...]

cp = 1 is trained once and is what the others are compared with (without it: the
first run of the set). Each run has a folder in OUT. A run that is there with
all its steps is not run again, one that was interrupted is resumed; so the same
command continues after anything. At the end OUT holds compare.png (all curves,
and below their differences) and compare.md (the table, also printed). Where N
is too small for the warm-up of CONFIG, the warm-up is cut to fit, and that is
said.

Exit status: 0, or that of the run that failed (2 mistake, 3 environment, 4
stopped and saved); what is there is drawn all the same."""

import argparse
import datetime
import hashlib
import json
import math
import os
import pathlib
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys

from compare_picture import BACKENDS, differences, draw, sentence
from runlog import NoRun, Parser, Run, fail, import_pyplot, say

OWN_KEYS = {"run.dir": "--out", "run.steps": "--steps", "parallel.cp": "--cp",
            "parallel.backend": "--backends"}
ENV = pathlib.Path(__file__).resolve().parent / "env.sh"
STEP_LINE = re.compile(r"step +(\d+)/\d+ loss (\S+) .*?(\S+) tok/s ")


class Member:
    """One run of the set."""

    def __init__(self, args, cp, backend, noise=()):
        self.cp, self.backend, self.ranks, self.noise = cp, backend, args.ranks or cp, noise
        self.label = " ".join([f"{backend} cp{cp}" if cp > 1 else "cp1", *noise])
        self.folder = args.out / self.label.replace(" ", "-")
        given = ["run.log_every=1", *args.shortened, *args.overrides, *noise]
        chosen = {key_of(o): o for o in given}  # each key once, the last one counts
        self.overrides = [*chosen.values(), f"parallel.cp={cp}", f"parallel.backend={backend}"]
        self.run = None

    def read(self, steps=math.inf):
        try:
            self.run = Run(self.folder)
            self.run.steps = {s: r for s, r in self.run.steps.items() if s <= steps}
        except NoRun:
            self.run = None

    def has(self, steps):
        return self.run is not None and self.run.last() >= steps


def key_of(override):
    return override.partition("=")[0]


# ---- arguments -----------------------------------------------------------------------------------

def setting(args, key, default):
    """Of optim, as the command line or the file says it; the file is not parsed, only searched."""
    given = [o.partition("=")[2] for o in args.overrides if key_of(o) == f"optim.{key}"]
    text = re.sub(r"(?m)(^|\s)#.*", "", args.config.read_text(errors="replace"))
    found = given[-1:] or re.findall(rf"\b{key}: *([\w.+-]+)", text)
    return found[0] if found else default


def shorten(args):
    """A run of fewer steps than the schedule of the file needs: overrides that make the schedule fit."""
    try:
        kind = setting(args, "schedule", "cosine")
        warmup, decay = (int(setting(args, key, 0)) for key in ("warmup_steps", "decay_steps"))
    except (OSError, ValueError):
        return []  # cria says what is wrong
    most = {"constant": warmup, "wsd": args.steps}.get(kind, decay or args.steps)
    new = {}
    if kind == "wsd":
        if decay > args.steps:
            new["decay_steps"] = decay = args.steps
        most = args.steps - (decay or math.ceil(args.steps / 10))
    if warmup > most:
        new["warmup_steps"] = most
    given = set(map(key_of, args.overrides))
    new = {f"optim.{key}": value for key, value in new.items() if f"optim.{key}" not in given}
    for key, value in new.items():
        say(f"{key} is {value} in these runs of {args.steps} steps, which are too short for that of {args.config}")
    return [f"{key}={value}" for key, value in new.items()]


def counts(text):
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"expected numbers from 1 on like 1,2,4, found '{text}'")
    return sorted({int(word) for word in text.split(",")})


def count(text):
    if len(counts(text)) != 1 or "," in text:
        raise argparse.ArgumentTypeError(f"expected one number, found '{text}'")
    return int(text)


def backends(text):
    for name in text.split(","):
        if name not in BACKENDS:
            raise argparse.ArgumentTypeError(f"expected some of {','.join(BACKENDS)}, found '{name}'")
    return list(dict.fromkeys(text.split(",")))


def override(text):
    if not re.match(r"[a-z_.]+=", text):
        raise argparse.ArgumentTypeError(f"'{text}' has not the form key=value")
    if key_of(text) in OWN_KEYS:
        raise argparse.ArgumentTypeError(f"{key_of(text)} is set by {OWN_KEYS[key_of(text)]}")
    return text


def parse():
    parser = Parser(__doc__)
    add = parser.add_argument
    add("config", metavar="CONFIG", type=pathlib.Path, help="a YAML file")
    add("overrides", metavar="key=value", nargs="*", type=override, help="for every run")
    add("--steps", metavar="N", type=count, help="of each run (with --no-run: draw no more)")
    add("--cp", metavar="N,N", type=counts, default=[1, 2, 4], help="degrees; default: 1,2,4")
    add("--backends", metavar="NAME,NAME", type=backends, default=["ring", "magi"],
        help=f"for cp > 1, of {','.join(BACKENDS)}")
    add("--ranks", metavar="R", type=count, help="of every run, dp = R / cp; default: R = cp, dp = 1")
    add("--noise", metavar="key=value", type=override, action="append", default=[],
        help="cp = 1 once more with this, which only changes the order of "
             "sums, e.g. batch.micro=2: how far rounding alone leads")
    add("--out", metavar="DIR", type=pathlib.Path, help="default: runs/compare-CONFIG")
    add("--binary", metavar="PATH", default="build/cria", help="default: build/cria")
    add("--mpirun", metavar="CMD", type=shlex.split, default=["mpirun"],
        help="with options: --mpirun 'mpiexec --bind-to none'")
    add("--no-run", action="store_true", help="only draw what is there")
    add("--drop-checkpoints", action="store_true", help="delete those of a run with all its steps")
    add("--json", action="store_true", help="print the table as JSON")
    args = parser.parse_intermixed_args()
    args.out = args.out or pathlib.Path("runs") / f"compare-{args.config.stem}"
    if not args.steps and not args.no_run:
        parser.error("--steps is needed: how long is each run?")
    for cp in args.cp:
        if args.ranks and args.ranks % cp:
            parser.error(f"--ranks {args.ranks} is not a multiple of cp {cp}")
    if args.noise and 1 not in args.cp:
        parser.error("--noise repeats cp = 1, which --cp does not list")
    return args


# ---- running -------------------------------------------------------------------------------------

def check_tools(args):
    if not args.config.is_file():
        fail(f"{args.config} is not there")
    if not os.access(args.binary, os.X_OK):
        fail(f"{args.binary} is not there: run make first, or name it with --binary", 3)
    if not args.mpirun or not shutil.which(args.mpirun[0]):
        fail(f"{' '.join(args.mpirun)} is not there: name it with --mpirun", 3)


def steps_are_free(run):
    """The learning rate of a step does not depend on the number of steps."""
    optim, steps = run.head["config"]["optim"], run.head["config"]["run"]["steps"]
    return optim["schedule"] == "constant" or optim["schedule"] != "wsd" and \
        optim["decay_steps"] != steps


def check_same(member, wanted, note):
    """What the folder holds must have been made by the same arguments, or curves of different things
    would be compared."""
    if not note.is_file():
        if any(member.folder.glob("*")):
            fail(f"{member.folder} holds something else: move it away, or choose another --out")
        return
    if not member.run:
        return
    try:
        found = dict(json.loads(note.read_text()))
    except (ValueError, TypeError):
        fail(f"{note} was not written by this script: remove {member.folder}, or choose another --out")
    if steps_are_free(member.run):
        found["steps"] = wanted["steps"]
    for key, value in wanted.items():
        if found.get(key) != value:
            fail(f"{member.folder} holds a run of another set, its {key}: {found.get(key)}, now: "
                 f"{value}; remove it, or choose another --out")


def show(text, last):
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="\n" if last else "", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def follow(member, steps, lines, output):
    """Passes on the progress of a run, and what it complains about."""
    for line in lines:
        output.write(line)
        output.flush()
        if match := STEP_LINE.search(line):
            step = int(match[1])
            if sys.stderr.isatty() or step % math.ceil(steps / 5) == 0 or step == steps:
                show(f"{member.label}: step {step}/{steps} | loss {match[2]} | {match[3]} tok/s",
                     step == steps)
        elif line.startswith("cria: "):
            show(f"{member.label}: {line.strip()}", True)


def train(args, member):
    """Exit status of the run; 0 when there was nothing to do."""
    wanted = {"configuration": hashlib.sha256(args.config.read_bytes()).hexdigest()[:16],
              "overrides": sorted(member.overrides), "ranks": member.ranks, "steps": args.steps}
    note = member.folder / "compare.json"
    member.read()
    check_same(member, wanted, note)
    if member.has(args.steps):
        show(f"{member.label}: done before, by cria {member.run.head['version']}", True)
        return 0
    try:
        member.folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(wanted, indent=1) + "\n")
        output = open(member.folder / "output.txt", "a")
    except OSError as error:
        fail(f"cannot write in {member.folder}: {error.strerror}", 3)
    cores = len(os.sched_getaffinity(0))
    environment = {"OMP_NUM_THREADS": str(max(1, cores // member.ranks)), **os.environ}
    command = ["sh", "-c", '. "$0" && exec "$@"', ENV, *args.mpirun, "-n", str(member.ranks),
               args.binary, "train", args.config, f"run.dir={member.folder}",
               f"run.steps={args.steps}", *member.overrides, "--resume", "auto"]
    with output, subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as job:
        signal.signal(signal.SIGTERM, lambda *_: job.terminate())
        try:
            follow(member, args.steps, job.stdout, output)
        except KeyboardInterrupt:  # the ranks got it too: they save and stop
            follow(member, args.steps, job.stdout, output)
    status = job.returncode
    member.read()
    if status == 0 and not member.has(args.steps):  # some mpiruns lose the status after a signal
        status = 4
    if status == 4:
        show("the same command continues", True)
    elif status != 0:
        show(f"{member.label}: exit status {status}; its output is in {output.name}", True)
    return status


def run_set(args, members):
    check_tools(args)
    for member in members:
        status = train(args, member)
        if status != 0:
            return status if 0 < status < 128 else 3
        if args.drop_checkpoints:
            for path in member.folder.glob("step_*.safetensors"):
                path.unlink()
    return 0


# ---- comparing -----------------------------------------------------------------------------------

def row(member, base):
    run, diff = member.run, [abs(d) for d in differences(member.run, base.run).values()]
    rates = run.series("tok_s")[1]
    return {"run": member.label, "ranks": run.head.get("world", member.ranks), "steps": max(run.steps),
            "final_loss": run.steps[max(run.steps)]["loss"],
            "max_diff": max(diff, default=None), "mean_diff": statistics.fmean(diff) if diff else None,
            # The first step of a run is not like the others.
            "tok_s": statistics.median(rates[1:] or rates)}


def describe(args, members, base):
    heads = [m.run.head for m in members]
    made = max(m.run.log.stat().st_mtime for m in members)
    parts = [args.config, *args.overrides,
             *sorted({f"cria {head.get('version')}" for head in heads}),
             *sorted({str(head.get("device")) for head in heads}), datetime.date.fromtimestamp(made)]
    return f"{', '.join(map(str, parts))}. Absolute differences of the loss to {base.label}."


def markdown(title, rows):
    def cell(key, value):
        if value is None:
            return "-"
        form = {"final_loss": ".6f", "max_diff": ".1e", "mean_diff": ".1e", "tok_s": ",.0f"}
        return format(value, form.get(key, ""))
    table = [[key.replace("_", " ").replace("tok s", "tok/s") for key in rows[0]],
             *([cell(key, value) for key, value in r.items()] for r in rows)]
    width = [max(map(len, column)) for column in zip(*table)]
    lines = ["| " + " | ".join(text.ljust(w) if i == 0 else text.rjust(w)
                               for i, (text, w) in enumerate(zip(line, width))) + " |"
             for line in table]
    lines.insert(1, "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":"
                                   for i, w in enumerate(width)) + "|")
    return "\n".join([title, "", *lines])


def main():
    args = parse()
    plt = import_pyplot()
    args.shortened = shorten(args) if not args.no_run else []
    members = [Member(args, cp, name) for cp in args.cp
               for name in (args.backends if cp > 1 else ["none"])]
    if args.noise:
        members.insert(1, Member(args, 1, "none", args.noise))
    status = 0 if args.no_run else run_set(args, members)

    for member in members:
        member.read(args.steps or math.inf)
        if args.no_run and not member.run:
            say(f"{member.folder} has no steps: left out")
    members = [m for m in members if m.run]
    if not members:
        fail("there is nothing to draw", status or 2)
    base, table, picture = members[0], args.out / "compare.md", args.out / "compare.png"
    rows = [row(member, base) for member in members]
    text = markdown(describe(args, members, base), rows) + f"\n\n{sentence(members, base)}"
    draw(plt, args, members, base, picture)
    try:
        table.write_text(text + "\n")
    except OSError as error:
        fail(f"cannot write {table}: {error.strerror}", 3)
    if args.json:
        print(json.dumps({"title": text.partition("\n")[0], "base": base.label, "runs": rows,
                          "picture": str(picture)}, indent=1))
    else:
        print(f"{text}\n\nThe picture is {picture}, the table {table}")
    sys.exit(status)


if __name__ == "__main__":
    main()
