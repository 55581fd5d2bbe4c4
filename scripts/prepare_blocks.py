"""prepare_blocks.py: documents to finished blocks of ids on all cores, and those to the output, for
prepare.py."""
import array
import collections
import concurrent.futures.process
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import zlib
from pathlib import Path

from prepare_formats import little_endian
from prepare_parts import part_path, read_part
from prepare_texts import Bad, Failure, clear, is_val, os_failure, sound, where
from prepare_tokenizers import encode_all, load_tokenizer

BLOCK_BYTES = 4 << 20  # of text in a block, at least: the unit of work and of resuming
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


# ---- one block ---------------------------------------------------------------------------------

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
