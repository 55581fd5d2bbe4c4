#!/usr/bin/env python3
"""Texts -> token files that cria (and nanoGPT, llm.c, Megatron-LM) trains on, on all cores.

    scripts/prepare_openwebtext.py --tokenizer gpt2 --val 0.0005 --out data/openwebtext/ 'owt/*.parquet'
    scripts/prepare_openwebtext.py --tokenizer Llama-3.2-1B/tokenizer.json --bos 128000 --eod 128001 \\
        --format megatron --out data/openwebtext/llama_openwebtext_text_document 'owt/*.parquet'
    scripts/prepare_openwebtext.py --tokenizer data/tokenizer.json --bos none --eod 0 --val 0.05 \\
        --out data/mine mine.txt

Inputs are parquet, .jsonl, .jsonl.gz, .jsonl.zst (a document is the column or field --text) and .txt,
.txt.gz, .txt.zst (a document is a file); quoted patterns are expanded and sorted. Empty texts are left
out. Each document becomes [bos] tokens [eod]; what the tokenizer itself would add is not added, and
the text of a special token, such as "<|endoftext|>", is tokenized as the text that it is.

Tokenizers: "gpt2" (tiktoken fetches it), a .tiktoken file of GPT-2's ranks, a Hugging Face
tokenizer.json, Llama 3's tokenizer.model, or "bytes" (ids 0 to 255 are the bytes of UTF-8, 256 ends a
document; needs no package). GPT-2 ends documents with 50256 and begins them with nothing; for the
others but bytes --bos and --eod must be said, as ids or "none".

Formats (data/README.md): nanogpt OUT.bin; megatron OUT.bin and OUT.idx; llmc OUT_000000.bin ..., where
the eod comes in front as llm.c has it. --val 0.0005 holds out that share of the documents, chosen by a
hash of their text: OUT_train and OUT_val. Where so few documents are given that none or all would be
held out, the last share of the text of each is, cut at a line; the output says so. With an OUT that
ends in / the names are OUT/train and OUT/val.

Finished blocks of documents are kept in OUT.parts: a run that was interrupted goes on from there when
the same command is given again. The output does not depend on --workers. Nothing has its final name
before everything is written, and a file that is there is replaced only with --force.

Documents are cut for tokenizing where that changes no token, which is known of GPT-2's, Llama 3's and
the bundled tokenizer: a text of any size then takes some 350 MB a worker. With other tokenizer.json
the longest document takes 150 bytes of memory a character.

Exit status: 0 done; 2 a mistake in the command or the input; 3 the environment failed (disk, memory, a
killed worker, a package or download that is missing); 4 interrupted. After 3 and 4 the same command
goes on.
"""
import argparse
import array
import collections
import concurrent.futures
import concurrent.futures.process
import fcntl
import glob
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
import zlib
from pathlib import Path

from prepare_formats import FORMATS, LLMC_SHARD, little_endian
from prepare_texts import SEGMENT, Bad, Failure, Reader, clear, is_val, os_failure, sound, where
from prepare_tokenizers import encode_all, load_tokenizer

BLOCK_BYTES = 4 << 20  # of text in a block, at least: the unit of work and of resuming
FEW = 1000  # documents at most of which --val may hold out the last share each
PARTS_VERSION = 2
# Processes are what runs beside each other here; threads of the package tokenizers would come on top.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


# ---- blocks --------------------------------------------------------------------------------------
# A block is a list of segments (place, text, side, begins, ends), which are documents or pieces of large ones;
# the side is train or val, or None where the hash of the text, which is all of a document, decides.


def document_segments(document, settings, bad):
    """The segments of a document, which is one document on each side that it is split into."""
    share, longest = settings["val"], settings["segment"]
    whole, size = settings["split"] != "text", len(getattr(document, "text", ""))
    if whole and 0 < size and (longest is None or size <= longest):
        yield document.place, document.text, None, True, True
        return
    if not document.sound(bad):
        return
    if whole:
        sides = [("val" if share and document.is_val(share) else "train", document)]
    else:
        sides = zip(("train", "val"), document.split(share))
    for side, part in sides:
        last = None
        for text in part.segments(longest) if part else ():
            if last is not None:
                yield part.place, last[0], side, last[1], False
            last = text, last is None
        if last:
            yield part.place, last[0], side, last[1], True


def read_blocks(reader, settings, bad):
    """Lists of segments of BLOCK_BYTES characters or more together; the same whoever works on them."""
    block, size = [], 0
    for document in reader.documents():
        for segment in document_segments(document, settings, bad):
            block.append(segment)
            size += len(segment[1])
            if size >= settings["block"]:
                yield block
                block, size = [], 0
    if block:
        yield block


# ---- one block: OUT.parts/000123 -----------------------------------------------------------------
# JSON line {"train": [lengths], "val": [lengths], "joined": sides whose first document continues the last one
# of the part before, "left_out": documents, "crc": of the ids}, then the ids of the training documents, then
# those held out. Documents have their bos and eod already.


def part_path(parts, number):
    return parts / f"{number:08d}"


worker = None  # of this process: (settings, tokenizer or None: not loaded yet)


def start_worker(settings):
    """Signals are for the main process, and a worker does not outlive it."""
    global worker
    worker = settings, None
    for number in signal.SIGINT, signal.SIGHUP:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def tokenize_block(task):
    global worker
    number, segments = task
    settings, tokenizer = worker
    try:
        if tokenizer is None:
            worker = settings, tokenizer = settings, load_tokenizer(settings["tokenizer"])
        return write_part(number, segments, settings, tokenizer)
    except MemoryError:
        raise Failure(f"no memory for block {number}, from {where(segments[0][0])} on: use fewer --workers",
                      3) from None
    except OverflowError:
        raise Failure(f"block {number}, from {where(segments[0][0])} on, has an id that does not fit the "
                      f"{array.array(settings['type']).itemsize} bytes of the format") from None


def checked_segments(segments, settings):
    """Those whose text is Unicode, with their sides; and how many others were left out."""
    bad, good = Bad(settings["bad"]), []
    for place, text, side, begins, ends in segments:
        text = sound(text, place, bad)
        if text:
            if side is None:
                side = "val" if settings["val"] and is_val(text, settings["val"]) else "train"
            good.append((place, text, side, begins, ends))
    return good, bad.left_out


def write_part(number, segments, settings, tokenizer):
    bos, eod, first = settings["bos"], settings["eod"], settings["eod_first"]
    before = ([eod] if first and eod is not None else []) + ([bos] if bos is not None else [])
    after = [eod] if not first and eod is not None else []
    lengths, ids, joined = {"train": [], "val": []}, {s: array.array(settings["type"]) for s in ("train", "val")}, []
    segments, left_out = checked_segments(segments, settings)
    encoded = encode_all(tokenizer, [s[1] for s in segments], lambda i: where(segments[i][0]))
    for (_, _, side, begins, ends), tokens in zip(segments, encoded):
        size = len(ids[side])
        for part in before if begins else [], tokens, after if ends else []:
            ids[side].extend(part)
        size = len(ids[side]) - size
        if begins or not lengths[side]:
            joined += [] if begins else [side]
            lengths[side].append(size)
        else:
            lengths[side][-1] += size
    body = little_endian(ids["train"]) + little_endian(ids["val"])
    head = json.dumps({**lengths, "joined": joined, "left_out": left_out, "crc": zlib.crc32(body)})
    path = part_path(Path(settings["parts"]), number)
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_bytes(head.encode() + b"\n" + body)
        temporary.rename(path)
    except OSError as error:
        raise os_failure(f"cannot write {path}", error) from None
    return sum(lengths["train"]) + sum(lengths["val"])


def read_part(path, id_bytes):
    """{side: (lengths, ids, joined)}, and how many documents were left out."""
    try:
        head, body = path.read_bytes().split(b"\n", 1)
        head = json.loads(head)
        if zlib.crc32(body) != head["crc"]:
            raise ValueError
    except ValueError:
        path.unlink()
        raise Failure(f"{path} was damaged and is deleted: give the same command again, which makes it anew", 3) \
            from None
    cut = id_bytes * sum(head["train"])
    bodies = {"train": body[:cut], "val": body[cut:]}
    return {side: (head[side], ids, side in head["joined"]) for side, ids in bodies.items()}, head["left_out"]


# ---- what to do ----------------------------------------------------------------------------------


def expand(patterns):
    paths = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern, recursive=True)) if not os.path.exists(pattern) else [pattern]
        if not found:
            raise Failure(f"no file matches {pattern}")
        paths += found
    for path in paths:
        if os.path.isdir(path):
            raise Failure(f"{path} is a directory: name its files, such as '{path.rstrip('/')}/*.txt'")
    return paths


def choose(args, tokenizer):
    """Everything that the output depends on: it names the parts, so that only equal runs go on."""
    known = tokenizer.eod is not None
    policy = {"bos": args.bos or ("none" if known else None), "eod": args.eod or (str(tokenizer.eod) if known else None)}
    for name, value in policy.items():
        if value is None:
            raise Failure(f"--{name}: expected an id or none; this tokenizer has {tokenizer.vocab} ids, and which "
                          f"of them {'begins' if name == 'bos' else 'ends'} documents is not for this script to guess "
                          f"(Llama 3: --bos 128000 --eod 128001)")
        if value != "none" and not (re.fullmatch("[0-9]+", value) and int(value) < tokenizer.vocab):
            raise Failure(f"--{name}: found {value}, expected none or an id below {tokenizer.vocab}")
        policy[name] = None if value == "none" else int(value)
    narrow = tokenizer.vocab < 65500  # as Megatron decides
    if args.format == "nanogpt" and not narrow:
        raise Failure(f"nanogpt has 16 bits for an id, the tokenizer {tokenizer.vocab} ids: use --format megatron or llmc")
    for name, value, good, expected in (("val", args.val, 0 <= args.val < 1, "0 or a share below 1"),
                                        ("shard", args.shard, args.shard >= 1, "a number of tokens from 1"),
                                        ("workers", args.workers, args.workers >= 1, "a number of processes from 1")):
        if not good:
            raise Failure(f"--{name}: found {value}, expected {expected}")
    segment = min(SEGMENT, BLOCK_BYTES) if tokenizer.cuts else None
    settings = {**policy, "eod_first": args.format == "llmc", "val": args.val, "block": BLOCK_BYTES,
                "segment": segment, "type": "H" if narrow else "i" if args.format == "megatron" else "I",
                "text": args.text, "shard": args.shard, "tokenizer": args.tokenizer, "version": PARTS_VERSION}
    if os.path.exists(args.tokenizer):
        settings["tokenizer_sha256"] = hashlib.sha256(Path(args.tokenizer).read_bytes()).hexdigest()
    return settings


def choose_split(reader, share):
    """documents: a hash draws those that are held out. text: it would draw none or all, as there are
    only a few; the last share of each is held out."""
    sides, count, parts = set(), 0, False
    for document in reader.documents():
        if not document.sound(reader.bad):
            continue
        count += 1
        if count <= FEW and not parts:
            parts = all(document.split(share))
        sides.add(document.is_val(share))
        if len(sides) == 2:
            return "documents", count
    if count == 0:
        raise Failure("the inputs hold no text")
    if count > FEW:
        raise Failure(f"--val {share}: {'all' if True in sides else 'none'} of {count:,} documents would be held out; "
                      "choose another share")
    if not parts:
        raise Failure(f"--val {share}: the text is too short to hold out a part of it")
    return "text", count


# ---- OUT.parts -----------------------------------------------------------------------------------

NAMES = {"bos": "--bos", "eod": "--eod", "eod_first": "--format", "type": "--format", "val": "--val",
         "text": "--text", "shard": "--shard", "tokenizer": "--tokenizer", "tokenizer_sha256": "--tokenizer",
         "inputs": "inputs"}


class Parts:
    """The folder of finished blocks, locked."""

    def __init__(self, folder):
        self.folder, self.settings, self.lock = folder, folder / "settings.json", None
        self.committing = folder / "committing"  # there while outputs get their final names

    def own(self):
        return [p for p in self.folder.iterdir()
                if re.fullmatch(r"\d{8}(\.tmp)?|settings\.json(\.tmp)?|committing|lock", p.name)]

    def finished(self):
        return [p for p in self.own() if re.fullmatch(r"\d{8}", p.name)]

    def open(self, manifest, force):
        """Finished blocks stay if they are of the same settings and inputs, or nothing may be there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if len(self.own()) < sum(1 for _ in self.folder.iterdir()):
            raise Failure(f"{self.folder} holds something else: move it away, or choose another --out")
        self.lock = open(self.folder / "lock", "a")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.lock.close()
            self.lock = None
            raise Failure(f"{self.folder} is in use by another run of this script") from None
        try:
            old = json.loads(self.settings.read_text())
        except (OSError, ValueError):
            old = {}
        if old != manifest:
            finished = self.finished()
            if finished and not force:
                names = sorted({NAMES.get(key, "version of this script") for key in {*old, *manifest}
                                if old.get(key) != manifest.get(key)})
                raise Failure(f"{self.folder} holds {len(finished)} finished blocks of a run with other settings or "
                              f"inputs ({', '.join(names)}); finish that one, or discard them with --force")
            for path in self.own():
                if path.name != "lock":
                    path.unlink()
            temporary = self.settings.with_suffix(".json.tmp")
            temporary.write_text(json.dumps(manifest, indent=1))
            temporary.rename(self.settings)

    def close(self):
        """Without a finished block the folder goes, and blocks nobody."""
        if self.lock:
            if not self.finished():
                shutil.rmtree(self.folder)
            self.lock.close()


# ---- the work ------------------------------------------------------------------------------------


def show(progress, shown):
    """Each second on a terminal, else a line a minute."""
    now = time.monotonic()
    if now - shown < (1 if sys.stderr.isatty() else 60):
        return shown
    print(f"{clear()}{progress}", end="" if clear() else "\n", file=sys.stderr, flush=True)
    return now


def tokenize(reader, settings, parts, workers):
    """Makes the parts that are missing; returns how many there are in all."""
    blocks = 0

    def missing():
        nonlocal blocks
        for number, segments in enumerate(read_blocks(reader, settings, reader.bad)):
            blocks = number + 1
            if not part_path(parts, number).exists():
                yield number, segments

    begin, tokens, done = time.monotonic(), 0, 0
    shown = begin
    pool = concurrent.futures.ProcessPoolExecutor(workers, initializer=start_worker, initargs=(settings,))
    try:
        # a bounded number of blocks is under way, so that reading does not run ahead into memory
        waiting = collections.deque()
        for task in missing():
            waiting.append(pool.submit(tokenize_block, task))
            while len(waiting) > 2 * workers:
                tokens += waiting.popleft().result()
                done += 1
                shown = show(f"{done} blocks, {tokens / 1e6:.0f} M tokens, "
                             f"{tokens / 1e6 / (time.monotonic() - begin):.2f} M/s", shown)
        while waiting:
            tokens += waiting.popleft().result()
    except concurrent.futures.process.BrokenProcessPool:
        raise Failure("a worker process was killed, perhaps by the system for want of memory; finished blocks are "
                      "kept: give the same command again, with fewer --workers", 3) from None
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    if blocks == 0:
        raise Failure("the inputs hold no text")
    seconds = time.monotonic() - begin
    print(f"{clear()}tokenized {tokens:,} tokens in {seconds:.1f} s ({tokens / 1e6 / seconds:.2f} M/s)"
          f" on {workers} workers", file=sys.stderr)
    return blocks


def assemble(blocks, settings, parts, kind, prefixes):
    """The outputs of all parts, complete but under temporary names; and the documents left out."""
    id_bytes, left_out = array.array(settings["type"]).itemsize, 0
    sides = {}
    try:
        for side, prefix in prefixes.items():
            sides[side] = kind(prefix, settings)
        for number in range(blocks):
            part, n = read_part(part_path(parts, number), id_bytes)
            left_out += n
            for side, output in sides.items():
                output.add(*part[side])
        for side, output in sides.items():
            if output.tokens == 0:
                raise Failure(f"there is no document for the {side} part")
            output.finish()
    except BaseException:
        for output in sides.values():
            output.discard()
        raise
    return list(sides.values()), left_out


def output_names(args):
    folder = args.out.endswith("/")
    if args.val:
        return {side: args.out + ("" if folder else "_") + side for side in ("train", "val")}
    return {"train": args.out + ("train" if folder else "")}


def run(args):
    paths = expand(args.inputs)
    tokenizer = load_tokenizer(args.tokenizer)
    settings = choose(args, tokenizer)
    bad = Bad(args.bad)
    reader = Reader(paths, args.text, Bad(args.bad, quiet=True), settings["segment"])
    kind, prefixes = FORMATS[args.format], output_names(args)
    parts = Parts(Path(args.out + ("train" if args.out.endswith("/") else "") + ".parts"))
    try:
        manifest = {**settings, "inputs": [[path, os.path.getsize(path)] for path in paths]}
        parts.open(manifest, args.force)
        for path in [p for prefix in prefixes.values() for p in kind.existing(prefix)]:
            if not args.force and not parts.committing.exists():
                raise Failure(f"{path} is there already: choose another --out, or replace it with --force")
        settings |= {"split": "documents", "parts": str(parts.folder), "bad": args.bad}
        if args.val:
            settings["split"], count = choose_split(reader, args.val)
        if settings["split"] == "text":
            note = f"few documents ({count}): the last {100 * args.val:g} % of the text of each is held out"
            print(note, file=sys.stderr)
        reader.bad = bad
        blocks = tokenize(reader, settings, parts.folder, args.workers)
        outputs, left_out = assemble(blocks, settings, parts.folder, kind, prefixes)
        parts.committing.touch()
        for output in outputs:
            print(output.commit())
        if settings["split"] == "text":
            print(note)
        if left_out + bad.left_out:
            print(f"{left_out + bad.left_out:,} documents with mistakes were left out")
        if args.keep_parts:
            parts.committing.unlink()
        else:
            shutil.rmtree(parts.folder)
            parts.lock = None
    finally:
        parts.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="FILE", help="or a quoted pattern")
    add("--tokenizer", required=True, help="gpt2, bytes, .tiktoken, tokenizer.json or tokenizer.model")
    add("--out", required=True, help="path of the output without .bin")
    add("--format", choices=FORMATS, default="nanogpt", help="default: nanogpt")
    add("--bos", metavar="ID", help="before each document; an id or none")
    add("--eod", metavar="ID", help="after each document (llmc: before); an id or none")
    add("--val", type=float, default=0, metavar="SHARE", help="of the documents (or of the text of a few) held out")
    add("--text", default="text", metavar="NAME", help="column or field of the text (default: text)")
    add("--shard", type=int, default=LLMC_SHARD, metavar="N", help=f"tokens of an llmc shard (default: {LLMC_SHARD})")
    add("--bad", choices=("stop", "skip", "replace"), default="stop",
        help="documents with mistakes, such as a line that is not JSON: stop (the default), skip them,\n"
             "or put U+FFFD where they are not Unicode")
    add("--workers", type=int, default=os.cpu_count(), metavar="N", help="processes (default: all cores)")
    add("--force", action="store_true", help="replace output and blocks that are there")
    add("--keep-parts", action="store_true", help="do not delete OUT.parts at the end")
    args = parser.parse_args()

    def interrupt(*_):
        raise KeyboardInterrupt

    for number in signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, interrupt)
    try:
        run(args)
        return
    except Failure as failure:
        sentence, status = failure.sentence, failure.status
    except KeyboardInterrupt:
        sentence, status = "interrupted; the same command goes on from the finished blocks", 4
    except OSError as error:
        failure = os_failure(f"cannot write {error.filename or args.out}", error)
        sentence, status = failure.sentence, failure.status
    print(f"{clear()}prepare_openwebtext: {sentence}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
