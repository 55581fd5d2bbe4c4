#!/usr/bin/env python3
"""Follows the log of a run into Weights & Biases or MLflow.

    scripts/track.py RUN [--to wandb|mlflow] [--project NAME]

RUN is the run.dir, on any machine that sees it; training needs nothing of this.
Numbers of steps (train/...), evaluations (eval/loss), saves and samples go
there as they are logged, with the configuration. What was sent is noted in
RUN/track-wandb.json: started again after anything, it goes on with the same run
from there. It ends when the last step was logged, or when nothing was for
--idle seconds; with --once after what is there. Steps that a resumed run takes
again are sent again.

Servers, keys and offline work are set as these packages have it: `wandb login`,
WANDB_MODE=offline (then `wandb sync RUN/wandb/offline-run-*`, with --append
after a restart), MLFLOW_TRACKING_URI.

Exit status: 0 the run has ended, or --once; 2 a mistake; 3 a package is missing
or the server fails; 4 interrupted. After 3 and 4 the same command goes on."""

import errno
import fcntl
import html
import importlib
import json
import os
import pathlib
import signal
import time
import uuid

from runlog import Parser, fail, flat, say


# ---- where numbers go ----------------------------------------------------------------------------
# Each has: run_id, send(step, {name: number}), text(step, text), finish().


class Wandb:
    def __init__(self, package, args, run_id, config):
        self.package, self.run_id = package, run_id or uuid.uuid4().hex
        self.run = package.init(project=args.project, id=self.run_id, name=args.run.resolve().name, dir=str(args.run),
                                resume="allow", config=config)
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")  # its own steps cannot go back, as resumed runs do

    def send(self, step, values):
        self.run.log({"step": step, **values})

    def text(self, step, text):
        self.send(step, {"sample": self.package.Html(f"<p>{html.escape(text)}</p>")})

    def finish(self):
        self.run.finish()


class Mlflow:
    def __init__(self, package, args, run_id, config):
        self.package = package
        package.set_experiment(args.project)
        run = package.start_run(run_id=run_id) if run_id else package.start_run(run_name=args.run.resolve().name)
        self.run_id = run.info.run_id
        if not run_id:  # these cannot be changed
            items = list(flat(config).items())
            for i in range(0, len(items), 100):
                package.log_params(dict(items[i:i + 100]))

    def send(self, step, values):
        self.package.log_metrics(values, step=step)

    def text(self, step, text):
        self.package.log_text(text, f"samples/step_{step:08d}.txt")

    def finish(self):
        self.package.end_run()


TRACKERS = {"wandb": Wandb, "mlflow": Mlflow}


def parts(record):
    """(key, number) of all numbers: sets/web/loss, by_position/16."""
    for key, value in record.items():
        if key == "by_position":
            yield from ((f"{key}/{end}", loss) for end, loss, _ in value if loss is not None)
        elif isinstance(value, dict):
            yield from ((f"{key}/{name}", number) for name, number in parts(value))
        elif type(value) in (int, float):
            yield key, value


def send(tracker, record):
    kind, step = record.get("kind"), record.get("step")
    if kind == "sample":
        tracker.text(step, record["prompt"] + record["text"])
        return
    prefix = {"step": "train", "eval": "eval", "save": "save"}.get(kind, "guard" if "outcome" in record else None)
    if prefix:
        numbers = {f"{prefix}/{key}": value for key, value in parts(record)}
        numbers.pop(f"{prefix}/step", None)
        if numbers:
            tracker.send(step, numbers)


# ---- what was sent -------------------------------------------------------------------------------


class Log:
    """log.jsonl from the byte on that was not sent yet."""

    def __init__(self, folder, to):
        self.path, self.note = folder / "log.jsonl", folder / f"track-{to}.json"
        if not self.path.is_file():
            fail(f"{folder} has no log.jsonl; is it the run.dir of a run that has started?")
        try:
            self.file = open(self.path, "rb")
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                fail(f"{self.path} is followed by another process")
            if not hasattr(self, "file"):
                fail(f"cannot read {self.path}: {error.strerror}")
        try:
            note = json.loads(self.note.read_text()) if self.note.exists() else {"run": None, "offset": 0}
            self.run_id, self.offset = note["run"], int(note["offset"])
        except (OSError, ValueError, KeyError, TypeError):
            fail(f"{self.note} is damaged: delete it to send the log anew, as another run")
        if self.path.stat().st_size < self.offset:
            fail(f"{self.path} is shorter than what was sent of it: delete {self.note.name} there to send it anew")

    def records(self, begin=None):
        """(record, the byte behind it) of the whole lines from `begin` on."""
        at = self.offset if begin is None else begin
        self.file.seek(at)
        for line in self.file:
            if not line.endswith(b"\n"):  # is being written
                return
            at += len(line)
            try:
                record = json.loads(line)
            except ValueError:  # cut by a crash
                continue
            if isinstance(record, dict):
                yield record, at

    def sent(self, offset, run_id):
        self.offset = offset
        temporary = self.note.with_suffix(".tmp")
        temporary.write_text(json.dumps({"run": run_id, "offset": offset}) + "\n")
        os.replace(temporary, self.note)


def is_last(record, steps):
    return record.get("kind") == "step" and record["step"] >= steps


def follow(args, log, tracker):
    """Sends what comes until the run has ended, with the number of steps that its last start has said."""
    done, steps, quiet_since = False, 0, time.monotonic()
    for record, at in log.records(0):  # what was sent before
        if at > log.offset:
            break
        steps = record["config"]["run"]["steps"] if record.get("kind") == "head" else steps
        done = is_last(record, steps) or done and record.get("kind") != "head"
    while True:
        before = log.offset
        for i, (record, at) in enumerate(log.records()):
            if record.get("kind") == "head":
                steps, done = record["config"]["run"]["steps"], False
            done = done or is_last(record, steps)
            send(tracker, record)
            log.offset = at
            if i % 100 == 99:
                log.sent(at, tracker.run_id)
        if log.offset != before:
            log.sent(log.offset, tracker.run_id)
            quiet_since = time.monotonic()
        elif done or time.monotonic() - quiet_since > args.idle:
            break
        if args.once:
            break
        time.sleep(args.every)
    if not done and not args.once:
        say(f"nothing was logged for {args.idle:g} s; the same command goes on")


def main():
    parser = Parser(__doc__)
    add = parser.add_argument
    add("run", metavar="RUN", type=pathlib.Path, help="a run.dir")
    add("--to", choices=TRACKERS, default="wandb", help="default: wandb")
    add("--project", default="cria", metavar="NAME", help="project, or experiment of MLflow (default: cria)")
    add("--once", action="store_true", help="send what is there, and end")
    add("--every", type=float, default=5, metavar="SECONDS", help="between two looks at the log (default: 5)")
    add("--idle", type=float, default=3600, metavar="SECONDS", help="without a new line end (default: 3600)")
    args = parser.parse_args()
    log = Log(args.run, args.to)
    head = next((record for record, _ in log.records(0) if record.get("kind") == "head"), None)
    if head is None:
        fail(f"{log.path} has no record of a start yet")
    try:
        package = importlib.import_module(args.to)
    except ImportError:
        fail(f"this needs the package {args.to}: python3 -m pip install {args.to}", 3)

    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    tracker = None
    try:
        tracker = TRACKERS[args.to](package, args, log.run_id, head["config"])
        log.sent(log.offset, tracker.run_id)
        follow(args, log, tracker)
        tracker.finish()
    except KeyboardInterrupt:
        if tracker:
            log.sent(log.offset, tracker.run_id)
            tracker.finish()
        fail("interrupted; the same command goes on", 4)
    except Exception as error:  # of the packages, which have many
        if tracker:
            log.sent(log.offset, tracker.run_id)
        fail(f"{args.to}: {type(error).__name__}: {str(error).partition(chr(10))[0]}; the same command goes on", 3)
    print(f"{args.run}: sent to {args.to}, run {tracker.run_id}")


if __name__ == "__main__":
    main()
