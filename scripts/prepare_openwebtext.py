#!/usr/bin/env python3
"""Texts -> token files that cria (and nanoGPT, llm.c, Megatron-LM) trains on, on all cores.

    scripts/prepare_openwebtext.py --tokenizer gpt2 --out data/openwebtext/train 'owt/*.parquet'
    scripts/prepare_openwebtext.py --tokenizer Llama-3.2-1B/tokenizer.json --bos 128000 --eod 128001 \\
        --format megatron --out data/openwebtext/llama_openwebtext_text_document 'owt/*.parquet'

Inputs are parquet, .jsonl, .jsonl.gz, .jsonl.zst (a document is the column or field --text) and .txt,
.txt.gz, .txt.zst (a document is a file); quoted patterns are expanded and sorted. Empty texts are left
out. Each document becomes [bos] tokens [eod]; what the tokenizer itself would add is not added.

Tokenizers: "gpt2" (tiktoken fetches it), a .tiktoken file of GPT-2's ranks, a Hugging Face
tokenizer.json, or Llama 3's tokenizer.model. GPT-2 ends documents with 50256 and begins them with
nothing; for the others --bos and --eod must be said, as ids or "none".

Formats (data/README.md): nanogpt OUT.bin; megatron OUT.bin and OUT.idx; llmc OUT_000000.bin ..., where
the eod comes in front as llm.c has it. --val 0.0005 holds out that share of the documents, chosen by a
hash of their text: OUT_train and OUT_val.

Finished blocks of documents are kept in OUT.parts: a run that was interrupted goes on from there. The
output does not depend on --workers. Nothing has its final name before everything is written.
"""
import argparse
import base64
import collections
import contextlib
import glob
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import struct
import sys
import time
import zlib
from array import array
from pathlib import Path

BLOCK_BYTES = 4 << 20  # of text in a block, at least: the unit of work and of resuming
GPT2_EOD = 50256
# The splitting patterns of OpenAI's GPT-2 (openai_public.py of tiktoken) and Meta's Llama 3
# (tokenizer.py of llama3).
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPECIALS = 256
LLMC_SHARD = 100_000_000
IDX_CODES = {"H": 8, "i": 4}  # Megatron's codes of uint16 and int32, by array type


def need(package):
    try:
        return __import__(package)
    except ImportError:
        sys.exit(f"this needs the package {package}: python3 -m pip install {package}")


# ---- tokenizers ----------------------------------------------------------------------------------


class Tiktoken:
    def __init__(self, encoding):
        self.encoding = encoding
        self.vocab = encoding.n_vocab

    def encode(self, texts):
        return self.encoding.encode_ordinary_batch(texts, num_threads=1)


class HuggingFace:
    def __init__(self, path):
        self.tokenizer = need("tokenizers").Tokenizer.from_file(path)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.vocab = self.tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, texts):
        return [e.ids for e in self.tokenizer.encode_batch(texts, add_special_tokens=False)]


def load_ranks(path):
    """A line for each token: base64, then its rank."""
    with open(path, "rb") as lines:
        pairs = (line.split() for line in lines if line.strip())
        return {base64.b64decode(token): int(rank) for token, rank in pairs}


def load_tokenizer(name):
    if name.endswith(".json"):
        return HuggingFace(name)
    tiktoken = need("tiktoken")
    if name == "gpt2":
        return Tiktoken(tiktoken.get_encoding("gpt2"))
    ranks = load_ranks(name)
    if len(ranks) == GPT2_EOD:
        return Tiktoken(
            tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks,
                              special_tokens={"<|endoftext|>": GPT2_EOD}, explicit_n_vocab=50257)
        )
    specials = {f"<|special_{i}|>": len(ranks) + i for i in range(LLAMA3_SPECIALS)}
    return Tiktoken(
        tiktoken.Encoding("llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens=specials)
    )


# ---- reading texts -------------------------------------------------------------------------------


@contextlib.contextmanager
def open_text(path):
    """The bytes of a file, decompressed."""
    if path.endswith(".gz"):
        stream = gzip.open(path, "rb")
    elif path.endswith(".zst"):
        raw = open(path, "rb")
        stream = io.BufferedReader(need("zstandard").ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    else:
        stream = open(path, "rb")
    with stream:
        yield stream


def read_jsonl(path, field):
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)[field]
            except (ValueError, KeyError, TypeError) as error:
                sys.exit(f"{path}, line {number}: {error!r}; expected an object with the field {field!r} (--text)")


def read_parquet(path, column):
    need("pyarrow")
    import pyarrow.parquet as parquet

    file = parquet.ParquetFile(path)
    if column not in file.schema_arrow.names:
        sys.exit(f"{path} has no column {column!r}, but {file.schema_arrow.names} (--text)")
    for batch in file.iter_batches(batch_size=1024, columns=[column]):
        yield from batch.column(0).to_pylist()


def read_documents(path, field):
    name = path.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        yield from read_parquet(path, field)
    elif name.endswith((".jsonl", ".json")):
        yield from read_jsonl(path, field)
    elif name.endswith(".txt"):
        with open_text(path) as stream:
            yield stream.read().decode("utf-8")
    else:
        sys.exit(f"{path}: expected .parquet, .jsonl or .txt, the latter two also .gz or .zst")


def read_blocks(paths, field):
    """Lists of texts of BLOCK_BYTES or more together; the same whoever works on them."""
    block, size = [], 0
    for path in paths:
        for text in read_documents(path, field):
            if not isinstance(text, str):
                sys.exit(f"{path}: found {text!r:.60}, expected a text (--text)")
            if not text:
                continue
            block.append(text)
            size += len(text)
            if size >= BLOCK_BYTES:
                yield block
                block, size = [], 0
    if block:
        yield block


# ---- one block: OUT.parts/000123 -----------------------------------------------------------------
# JSON line {"train": [lengths], "val": [lengths], "crc": of the ids}, then the ids of the training
# documents, then those held out. Documents have their bos and eod already.


def part_path(parts, number):
    return parts / f"{number:08d}"


def is_val(text, share):
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2.0**64


def little_endian(ids):
    if sys.byteorder == "big":
        ids.byteswap()
    return ids.tobytes()


worker = None  # of this process: (settings, tokenizer)


def start_worker(settings):
    global worker
    worker = settings, load_tokenizer(settings["tokenizer"])


def tokenize_block(task):
    number, texts = task
    settings, tokenizer = worker
    bos, eod, first = settings["bos"], settings["eod"], settings["eod_first"]
    lengths, ids = {"train": [], "val": []}, {"train": array("I"), "val": array("I")}
    for text, tokens in zip(texts, tokenizer.encode(texts)):
        side = "val" if is_val(text, settings["val"]) else "train"
        before = ([eod] if first and eod is not None else []) + ([bos] if bos is not None else [])
        after = [eod] if not first and eod is not None else []
        document = before + tokens + after
        ids[side].extend(document)
        lengths[side].append(len(document))
    if settings["type"] == "H":
        ids = {side: array("H", values) for side, values in ids.items()}
    body = little_endian(ids["train"]) + little_endian(ids["val"])
    head = json.dumps({**lengths, "crc": zlib.crc32(body)})
    path = part_path(Path(settings["parts"]), number)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(head.encode() + b"\n" + body)
    temporary.rename(path)
    return sum(lengths["train"]) + sum(lengths["val"])


def read_part(path, id_bytes):
    head, body = path.read_bytes().split(b"\n", 1)
    head = json.loads(head)
    if zlib.crc32(body) != head["crc"]:
        sys.exit(f"{path} is damaged; delete it and run again")
    cut = id_bytes * sum(head["train"])
    return {"train": (head["train"], body[:cut]), "val": (head["val"], body[cut:])}


# ---- the formats ---------------------------------------------------------------------------------


class Output:
    """Files under temporary names; commit() renames them."""

    def __init__(self, prefix, settings):
        self.prefix, self.type = prefix, settings["type"]
        self.id_bytes = array(self.type).itemsize
        self.files, self.tokens, self.documents = [], 0, 0

    def open(self, path):
        self.files.append(path)
        return open(path + ".tmp", "wb")

    def close_file(self, file):
        file.flush()
        os.fsync(file.fileno())
        file.close()

    def add(self, lengths, body):
        self.tokens += sum(lengths)
        self.documents += len(lengths)

    def commit(self):
        self.finish()
        for path in self.files:
            os.rename(path + ".tmp", path)
        return f"{', '.join(self.files[:4])}{' ...' if len(self.files) > 4 else ''}: " \
               f"{self.tokens:,} tokens, {self.documents:,} documents"


class NanoGPT(Output):
    def __init__(self, prefix, settings):
        super().__init__(prefix, settings)
        self.bin = self.open(f"{prefix}.bin")

    def add(self, lengths, body):
        super().add(lengths, body)
        self.bin.write(body)

    def finish(self):
        self.close_file(self.bin)


class Megatron(NanoGPT):
    def __init__(self, prefix, settings):
        super().__init__(prefix, settings)
        self.lengths = array("i")

    def add(self, lengths, body):
        super().add(lengths, body)
        self.lengths.extend(lengths)

    def finish(self):
        super().finish()
        n, pointers, at = len(self.lengths), array("q"), 0
        for length in self.lengths:
            pointers.append(at)
            at += length * self.id_bytes
        with self.open(f"{self.prefix}.idx") as idx:
            idx.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, IDX_CODES[self.type], n, n + 1))
            for numbers in self.lengths, pointers, array("q", range(n + 1)):
                idx.write(little_endian(numbers))
            idx.flush()
            os.fsync(idx.fileno())


class Llmc(Output):
    def __init__(self, prefix, settings):
        super().__init__(prefix, settings)
        self.shard_tokens = settings["shard"]
        self.shard, self.count = None, 0

    def add(self, lengths, body):
        super().add(lengths, body)
        at = 0
        for length in lengths:
            if self.shard and self.count >= self.shard_tokens:
                self.close_shard()
            if not self.shard:
                self.shard = self.open(f"{self.prefix}_{len(self.files):06d}.bin")
                self.shard.write(bytes(1024))
            end = at + length * self.id_bytes
            self.shard.write(body[at:end])
            self.count += length
            at = end

    def close_shard(self):
        magic, version = (20240520, 1) if self.type == "H" else (20240801, 7)
        self.shard.seek(0)
        self.shard.write(struct.pack("<iii", magic, version, self.count))
        self.close_file(self.shard)
        self.shard, self.count = None, 0

    def finish(self):
        if self.shard:
            self.close_shard()


FORMATS = {"nanogpt": NanoGPT, "megatron": Megatron, "llmc": Llmc}


# ---- the whole -----------------------------------------------------------------------------------


def expand(patterns):
    paths = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern, recursive=True)) if not os.path.exists(pattern) else [pattern]
        if not found:
            sys.exit(f"no file matches {pattern}")
        paths += found
    return paths


def choose(args):
    """Everything that the output depends on: it names the parts, so that only equal runs go on."""
    tokenizer = load_tokenizer(args.tokenizer)
    gpt2 = tokenizer.vocab == 50257
    policy = {"bos": args.bos or ("none" if gpt2 else None), "eod": args.eod or (str(GPT2_EOD) if gpt2 else None)}
    for name, value in policy.items():
        if value is None:
            sys.exit(f"--{name}: expected an id or none; this tokenizer has {tokenizer.vocab} ids, and which "
                     f"of them {'begins' if name == 'bos' else 'ends'} documents is not for this script to guess "
                     f"(Llama 3: --bos 128000 --eod 128001)")
        if value != "none" and not (value.isdigit() and int(value) < tokenizer.vocab):
            sys.exit(f"--{name}: found {value}, expected none or an id below {tokenizer.vocab}")
        policy[name] = None if value == "none" else int(value)
    narrow = tokenizer.vocab < 65500  # as Megatron decides
    if args.format == "nanogpt" and not narrow:
        sys.exit(f"nanogpt has 16 bits for an id, the tokenizer {tokenizer.vocab} ids: use --format megatron or llmc")
    if not 0 <= args.val < 1:
        sys.exit(f"--val: found {args.val}, expected 0 or a share below 1")
    settings = {**policy, "eod_first": args.format == "llmc", "val": args.val, "block": BLOCK_BYTES,
                "type": "H" if narrow else "i" if args.format == "megatron" else "I", "text": args.text,
                "shard": args.shard, "tokenizer": args.tokenizer}
    if os.path.exists(args.tokenizer):
        settings["tokenizer_sha256"] = hashlib.sha256(Path(args.tokenizer).read_bytes()).hexdigest()
    return settings


def prepare_parts(parts, settings, paths):
    """The folder of parts, which must be of the same settings and inputs if it is there already."""
    manifest = {**settings, "inputs": [[path, os.path.getsize(path)] for path in paths]}
    file = parts / "settings.json"
    if file.exists():
        if json.loads(file.read_text()) != manifest:
            sys.exit(f"{parts} is of a run with other settings or inputs; finish that one, or delete the folder")
    else:
        parts.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(manifest, indent=1))


def tokenize(paths, settings, parts, workers):
    """Makes the parts that are missing; returns how many there are in all."""
    blocks = 0

    def missing():
        nonlocal blocks
        for number, texts in enumerate(read_blocks(paths, settings["text"])):
            blocks = number + 1
            if not part_path(parts, number).exists():
                yield number, texts

    begin, tokens, done, shown = time.monotonic(), 0, 0, 0
    with multiprocessing.Pool(workers, start_worker, (settings,)) as pool:
        # a bounded number of blocks is under way, so that reading does not run ahead into memory
        waiting = collections.deque()
        for task in missing():
            waiting.append(pool.apply_async(tokenize_block, (task,)))
            while len(waiting) > 2 * workers:
                tokens += waiting.popleft().get()
                done += 1
                if time.monotonic() - shown > 1:
                    shown = time.monotonic()
                    print(f"\r{done} blocks, {tokens / 1e6:.0f} M tokens, "
                          f"{tokens / 1e6 / (shown - begin):.2f} M/s", end="", file=sys.stderr, flush=True)
        while waiting:
            tokens += waiting.popleft().get()
    seconds = time.monotonic() - begin
    print(f"\rtokenized {tokens:,} tokens in {seconds:.1f} s ({tokens / 1e6 / seconds:.2f} M/s)"
          f" on {workers} workers", file=sys.stderr)
    return blocks


def assemble(blocks, settings, parts, args):
    kind, id_bytes = FORMATS[args.format], array(settings["type"]).itemsize
    sides = {"train": kind(args.out + "_train", settings), "val": kind(args.out + "_val", settings)} \
        if args.val else {"train": kind(args.out, settings)}
    for number in range(blocks):
        part = read_part(part_path(parts, number), id_bytes)
        for side, output in sides.items():
            output.add(*part[side])
    for side, output in sides.items():
        if output.tokens == 0:
            sys.exit(f"there is no document for the {side} part")
    for output in sides.values():
        print(output.commit())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="FILE", help="or a quoted pattern")
    parser.add_argument("--tokenizer", required=True, help="gpt2, .tiktoken, tokenizer.json or tokenizer.model")
    parser.add_argument("--out", required=True, help="path of the output without .bin")
    parser.add_argument("--format", choices=FORMATS, default="nanogpt")
    parser.add_argument("--bos", metavar="ID", help="before each document; an id or none")
    parser.add_argument("--eod", metavar="ID", help="after each document (llmc: before); an id or none")
    parser.add_argument("--val", type=float, default=0, metavar="SHARE", help="of the documents held out")
    parser.add_argument("--text", default="text", help="column or field of the text (default: text)")
    parser.add_argument("--shard", type=int, default=LLMC_SHARD, metavar="N", help="tokens of an llmc shard")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    parser.add_argument("--keep-parts", action="store_true", help="do not delete OUT.parts at the end")
    args = parser.parse_args()
    paths = expand(args.inputs)
    settings = choose(args)
    parts = Path(args.out + ".parts")
    prepare_parts(parts, settings, paths)
    settings["parts"] = str(parts)
    blocks = tokenize(paths, settings, parts, max(1, args.workers))
    if blocks == 0:
        sys.exit("the inputs hold no text")
    assemble(blocks, settings, parts, args)
    if not args.keep_parts:
        shutil.rmtree(parts)


if __name__ == "__main__":
    main()
