#!/usr/bin/env python3
"""Makes the bundled sample: texts -> byte-level BPE -> nanoGPT token files.

    scripts/make_sample.py SPEECHES [--out data]
    scripts/make_sample.py --decode data/sotu_val.bin 80

SPEECHES is a folder of YEAR_*.txt files. --decode prints the text of the first
80 tokens.

Output: sotu_train.bin, sotu_val.bin (raw little-endian uint16 ids, id 0 after
each document) and tokenizer.json. The same input and the same version of
`tokenizers` give the same bytes.
"""
import array
import sys
from pathlib import Path

from runlog import Parser, fail, package_missing


def arguments():
    parser = Parser(__doc__)
    parser.add_argument("speeches", type=Path, nargs="?", help="folder of YEAR_*.txt files, UTF-8")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "data",
                        help="folder of the result; default: data")
    parser.add_argument("--max-bytes", type=int, default=1536 * 1024 - 16384, help="of the three files together")
    parser.add_argument("--decode", nargs=2, metavar=("FILE", "N"), help="print N tokens of FILE as text")
    return parser


try:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
except ImportError as error:
    package_missing(error, arguments(), "tokenizers==0.23.3")

VOCAB = 4096
END = "<|endoftext|>"  # id 0
LONGEST = 16384  # tokens; longer speeches (most of 1900-1912) would push other years out
VAL_EVERY = 11  # of the chosen speeches in order of date, one in so many is held out


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    assert tokenizer.get_vocab_size() == VOCAB and tokenizer.token_to_id(END) == 0
    return tokenizer


def spread_order(n):
    """0..n-1 so that every prefix is spread evenly: the bit-reversed numbers below n."""
    bits = (n - 1).bit_length()
    reverse = (int(format(i, f"0{bits}b")[::-1], 2) for i in range(1 << bits))
    return [i for i in reverse if i < n]


def choose(lengths, budget):
    """Speeches spread over the years whose tokens fit the budget, in order of date."""
    chosen = []
    for i in spread_order(len(lengths)):
        if lengths[i] <= min(LONGEST, budget):
            budget -= lengths[i]
            chosen.append(i)
    return sorted(chosen)


def write_ids(path, documents):
    ids = array.array("H", [i for document in documents for i in document])
    if sys.byteorder == "big":
        ids.byteswap()
    path.write_bytes(ids.tobytes())
    return len(ids)


def make(speeches, out, max_bytes):
    files = sorted(speeches.glob("*.txt"))
    if len(files) < 2:
        fail(f"{speeches} holds {len(files)} .txt files; a folder of speeches is needed")
    texts = [f.read_text(encoding="utf-8").strip() for f in files]
    tokenizer = train_tokenizer(texts)
    tokenizer.encode_special_tokens = True  # the text of END in a speech is text
    documents = [encoding.ids + [0] for encoding in tokenizer.encode_batch(texts)]
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    budget = (max_bytes - (out / "tokenizer.json").stat().st_size) // 2
    chosen = choose([len(d) for d in documents], budget)
    val = chosen[VAL_EVERY // 2 :: VAL_EVERY]
    train = [i for i in chosen if i not in val]
    for name, part in ("sotu_train.bin", train), ("sotu_val.bin", val):
        tokens = write_ids(out / name, [documents[i] for i in part])
        size = sum(len(texts[i].encode()) for i in part)
        print(f"{name}: {len(part)} speeches, {tokens} tokens, {size / (tokens - len(part)):.3f} bytes a token")
        print("  " + " ".join(files[i].stem.split("_")[0] for i in part))


def decode(path, n):
    tokenizer = Tokenizer.from_file(str(path.parent / "tokenizer.json"))
    ids = array.array("H", path.read_bytes()[: 2 * n])
    if sys.byteorder == "big":
        ids.byteswap()
    print(tokenizer.decode(list(ids), skip_special_tokens=False))


def main():
    parser = arguments()
    args = parser.parse_args()
    if args.decode:
        decode(Path(args.decode[0]), int(args.decode[1]))
    elif args.speeches:
        make(args.speeches, args.out, args.max_bytes)
    else:
        parser.error("name a folder of speeches, or --decode FILE N")


if __name__ == "__main__":
    main()
