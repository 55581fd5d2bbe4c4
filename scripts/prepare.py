#!/usr/bin/env python3
"""Texts -> token files that cria (and nanoGPT, llm.c, Megatron-LM) trains on.

    scripts/prepare.py mine.txt --tokenizer data/tokenizer.json --out data/mine
    scripts/prepare.py 'owt/*.parquet' --tokenizer gpt2 --val 0.0005 \\
        --out data/openwebtext/

Inputs are .txt, .jsonl (a document is the field --text) and .parquet (the
column --text); the first two also .gz or .zst. Of a folder all such files are
taken, quoted patterns are expanded; both are sorted. The lines to paste into a
configuration, and a command that trains, are printed at the end.

A .txt file is cut into documents as --split-on says:
  auto   at lines of <|endoftext|> where the first MiB has one, else not at all
         (the default)
  file   not at all
  blank  at blank lines
  page   at form feeds
  N      at the first line end behind every N bytes
  TEXT   at lines that hold this text and nothing else
Empty documents are left out. Each becomes [bos] tokens [eod]; the text of a
special token, such as "<|endoftext|>", is tokenized as the text that it is.

Tokenizers: a tokenizer.json of Hugging Face, "gpt2" (tiktoken fetches it), a
.tiktoken file of GPT-2's ranks, Llama 3's tokenizer.model, or "bytes" (ids 0
to 255 are the bytes of UTF-8, 256 ends a document; needs no package). Which
ids begin and end documents is known of these, and of a tokenizer.json by the
usual names (<|endoftext|>, <|end_of_text|>, </s>; <|begin_of_text|>, <s>); of
another --bos and --eod must be given, as ids or "none".

Formats (data/README.md): nanogpt OUT.bin; megatron OUT.bin and OUT.idx; llmc
OUT_000000.bin ..., where the eod comes in front as llm.c has it. --val 0.05
holds out that share of the documents, chosen by a hash of their text:
OUT_train and OUT_val. Where so few documents are given that none or all would
be held out, the last share of the text of each is, cut at a line; the output
says so. With an OUT that ends in / the names are OUT/train and OUT/val.

Finished blocks of documents are kept in OUT.parts: a run that was interrupted
goes on from there when the same command is given again. The output does not
depend on --workers. Nothing has its final name before everything is written,
and a file that is there is replaced only with --force.

Documents are cut for tokenizing where that changes no token, which is known of
GPT-2's, Llama 3's and the bundled tokenizer: a text of any size then takes some
350 MB a worker. With other tokenizer.json the longest document takes 150 bytes
of memory a character.

Exit status: 0 done; 2 a mistake in the command or the input; 3 the environment
failed (disk, memory, a killed worker, a package or download that is missing);
4 interrupted. After 3 and 4 the same command goes on."""
import glob
import hashlib
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import prepare_blocks
from prepare_blocks import assemble, tokenize
from prepare_formats import FORMATS, LLMC_SHARD
from prepare_parts import Parts
from prepare_texts import SEGMENT, Bad, Failure, Reader, clear, os_failure, readable
from prepare_tokenizers import load_tokenizer
from runlog import Parser, fail

FEW = 1000  # documents at most of which --val may hold out the last share each
PARTS_VERSION = 3


# ---- what to do ----------------------------------------------------------------------------------


def files_of(folder):
    """Those of its files that hold texts; not the blocks of this script, nor what is hidden."""
    paths = []
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not f.endswith(".parts"))
        paths += [os.path.join(top, name) for name in sorted(names) if readable(name) and not name.startswith(".")]
    if not paths:
        raise Failure(f"{folder} is a directory that holds no .txt, .jsonl or .parquet file")
    return paths


def expand(patterns):
    paths = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern, recursive=True)) if not os.path.exists(pattern) else [pattern]
        if not found:
            raise Failure(f"no file matches {pattern}" if glob.has_magic(pattern) else f"{pattern} is not there")
        for path in found:
            paths += files_of(path) if os.path.isdir(path) else [path]
    return paths


def special_ids(args, tokenizer):
    """{"bos": id or None, "eod": id or None}: as the options say, else as the tokenizer is known."""
    known = {"bos": tokenizer.bos if tokenizer.bos is not None else "none" if tokenizer.eod is not None else None,
             "eod": tokenizer.eod}
    ids = {}
    for name, value in known.items():
        value = getattr(args, name) or (None if value is None else str(value))
        if value is None:
            raise Failure(f"--{name}: expected an id or none; this tokenizer has {tokenizer.vocab} ids, and none of a "
                          f"usual name that {'begins' if name == 'bos' else 'ends'} documents")
        if value != "none" and not (re.fullmatch("[0-9]+", value) and int(value) < tokenizer.vocab):
            raise Failure(f"--{name}: found {value}, expected none or an id below {tokenizer.vocab}")
        ids[name] = None if value == "none" else int(value)
    return ids


def choose(args, tokenizer):
    """Everything that the output depends on: it names the parts, so that only equal runs go on."""
    ids = special_ids(args, tokenizer)
    narrow = tokenizer.vocab < 65500  # as Megatron decides
    args.format = args.format or ("nanogpt" if narrow else "megatron")
    if args.format == "nanogpt" and not narrow:
        raise Failure(f"nanogpt has 16 bits for an id, the tokenizer {tokenizer.vocab} ids: use --format megatron or llmc")
    for name, value, good, expected in (("val", args.val, 0 <= args.val < 1, "0 or a share below 1"),
                                        ("shard", args.shard, args.shard >= 1, "a number of tokens from 1"),
                                        ("workers", args.workers, args.workers >= 1, "a number of processes from 1")):
        if not good:
            raise Failure(f"--{name}: found {value}, expected {expected}")
    if args.split_on.isdigit() and int(args.split_on) < 1 or not args.split_on:
        raise Failure(f"--split-on: found '{args.split_on}', expected auto, file, blank, page, a number from 1, or a text")
    block = prepare_blocks.BLOCK_BYTES
    segment = min(SEGMENT, block) if tokenizer.cuts else None
    settings = {**ids, "eod_first": args.format == "llmc", "val": args.val, "block": block,
                "segment": segment, "type": "H" if narrow else "i" if args.format == "megatron" else "I",
                "text": args.text, "split_on": args.split_on, "shard": args.shard, "tokenizer": args.tokenizer,
                "version": PARTS_VERSION}
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


def output_names(args):
    folder = args.out.endswith("/")
    if args.val:
        return {side: args.out + ("" if folder else "_") + side for side in ("train", "val")}
    return {"train": args.out + ("train" if folder else "")}


def advice(args, settings, vocab, outputs):
    """What to paste into a configuration, and a command that trains at once."""
    path = {side: output.pattern() for side, output in zip(("train", "val"), outputs)}
    tokenizer = args.tokenizer if args.tokenizer.endswith(".json") else ""
    eod = -1 if settings["eod"] is None else settings["eod"]
    values = {"data.train": path["train"], "data.val": path.get("val", "[]"), "data.format": args.format,
              "data.eod": eod, "data.tokenizer": tokenizer, "model.vocab": vocab,
              "run.dir": f"runs/{os.path.basename(args.out.rstrip('/'))}"}
    if not tokenizer:
        values["run.sample_every"] = 0
    print("\nFor the configuration:")
    for section in "data", "model":
        print(f"  {section}:")
        for key, value in values.items():
            if key.startswith(section):
                print(f"    {key.partition('.')[2]}: {value if value != '' else repr('')}")
    command = ["build/cria train configs/tiny.yaml", *(shlex.quote(f"{key}={value}") for key, value in values.items())]
    print("To train a small model on it:\n  " + " \\\n    ".join(command))


def run(args):
    paths = expand(args.inputs)
    tokenizer = load_tokenizer(args.tokenizer)
    settings = choose(args, tokenizer)
    bad = Bad(args.bad)
    reader = Reader(paths, args.text, Bad(args.bad, quiet=True), settings["segment"], args.split_on)
    kind, prefixes = FORMATS[args.format], output_names(args)
    parts = Parts(Path(args.out + ("train" if args.out.endswith("/") else "") + ".parts"))
    try:
        manifest = {**settings, "inputs": [[path, os.path.getsize(path)] for path in paths]}
        parts.open(manifest, args.force)
        for path in [p for prefix in prefixes.values() for p in kind.existing(prefix)]:
            if not args.force and not parts.committing.exists():
                raise Failure(f"{path} is there already: choose another --out, or replace it with --force")
        settings |= {"split": "documents", "parts": str(parts.folder), "bad": args.bad}
        notes = []
        if args.val:
            settings["split"], count = choose_split(reader, args.val)
        if settings["split"] == "text":
            notes.append(f"few documents ({count}): the last {100 * args.val:g} % of the text of each is held out")
            print(*notes, file=sys.stderr)
        reader.bad = bad
        blocks = tokenize(reader, settings, parts.folder, args.workers)
        outputs, left_out = assemble(blocks, settings, parts.folder, kind, prefixes)
        parts.committing.touch()
        for output in outputs:
            print(output.commit())
        if left_out + bad.left_out:
            notes.append(f"{left_out + bad.left_out:,} documents with mistakes were left out")
        print(*reader.notes(), *notes, sep="\n")
        advice(args, settings, tokenizer.vocab, outputs)
        if args.keep_parts:
            parts.committing.unlink()
        else:
            shutil.rmtree(parts.folder)
            parts.lock = None
    finally:
        parts.close()


def parse(doc, val):
    parser = Parser(doc)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="a file, a folder, or a quoted pattern")
    add("--tokenizer", required=True, metavar="NAME", help="tokenizer.json, gpt2, .tiktoken, tokenizer.model or bytes")
    add("--out", required=True, help="path of the output without .bin")
    add("--format", choices=FORMATS, help="default: nanogpt, or megatron where ids need more than 16 bits")
    add("--split-on", default="auto", metavar="WHAT",
        help="cuts .txt files into documents: auto, file, blank, page, N or TEXT (default: auto)")
    add("--bos", metavar="ID", help="before each document; an id or none (default: the tokenizer's)")
    add("--eod", metavar="ID", help="after each document (llmc: before); an id or none (default: the tokenizer's)")
    add("--val", type=float, default=val, metavar="SHARE",
        help=f"of the documents (or of the text of a few) held out (default: {val:g})")
    add("--text", default="text", metavar="NAME", help="column or field of the text (default: text)")
    add("--shard", type=int, default=LLMC_SHARD, metavar="N", help=f"tokens of an llmc shard (default: {LLMC_SHARD})")
    add("--bad", choices=("stop", "skip", "replace"), default="stop",
        help="documents with mistakes, such as a line that is not JSON: stop (the default), skip them, or put U+FFFD "
             "where they are not Unicode")
    add("--workers", type=int, default=os.cpu_count(), metavar="N", help="processes (default: all cores)")
    add("--force", action="store_true", help="replace output and blocks that are there")
    add("--keep-parts", action="store_true", help="do not delete OUT.parts at the end")
    return parser.parse_intermixed_args()


def main(doc=__doc__, val=0.05):
    args = parse(doc, val)

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
    print(clear(), end="", file=sys.stderr)
    fail(sentence, status)


if __name__ == "__main__":
    main()
