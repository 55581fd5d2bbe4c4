#!/usr/bin/env python3
"""Writes what lies beside it: two small tokenizers, and cases.json, what the package `tokenizers` makes of
odd texts and of random ids. tests/test_tokenizer.c compares cria with it.

    python3 -m venv VENV && VENV/bin/pip install tokenizers==0.23.3
    VENV/bin/python tests/golden/tokenizers/make.py            # writes the files
    VENV/bin/python tests/golden/tokenizers/make.py --check    # does it again, compares

llama3.json cuts words as Llama 3 does and puts a token in front; digits.json cuts digits, puts a space in front
of words, and has merges as strings. Texts have no character newer than Unicode 14: which are letters and digits
is told by the PCRE2 that cria is built with, and that of Debian 12 and Ubuntu 24.04 knows no newer ones.
(Python 3.11, whose unicodedata is that of Unicode 14.)"""

import json
import pathlib
import random
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from prepare_tokenizers import LLAMA3_PATTERN  # noqa: E402

TEXTS = [
    "", " ", "\n", "Gentlemen of the Senate", " leading  and  trailing ", "tabs\t\tand\r\nlines\n\n\n",
    "it's 1,234.5 , isn't it ?  don't !", "IT'S THEY'LL we'Ve x'ſ 'd'D", "naïve café ÀÉÎ", "日本語のテキスト",
    "العربية", "עברית", "हिन्दी", "e\u0301 is not \u00e9, \u212b is not \u00c5", "\ufb01 ligature \u01c5 \u2160\u00bd\u0663",
    "😀👩\u200d👩\u200d👧 \U0001f3f4\U000e0067\u200d", "zero\u200bwidth\ufeffmarks\u00ad", "\x01\x07\x1b[2J\x7f\x9b\x85\x0b\x0c\x1c",
    "\u2028\u2029\u00a0\u3000\u180e\u1680", "a" * 300, "x=1;\n\tif (a<b) { c++; } // done", "\U0010ffff\ue000\ud7ff\ufffe",
    "<s> </s> <unk> [CLS] <|im_start|>", "a<|endoftext|>b<|begin_of_text|><|begin_of_text|>\n", "<tool><tool>s <tool",
    "the UnitedStates, UnitedStates", "12345678901234567890 ١٢٣٤٥ ²³", "\r\n\r\n \r \n  x", "   \u00a0 y  ",
]
ALPHABET = " \t\r\n'sStTdDlLrReEvVmM0123456789aZ.,;!?<|>[]()éßſﬁǅⅠ½٣²日本語のहिन्دعـשפ\u0301\u200d\u200b\u00a0\u3000\u180e\u0085\u2028\u1680😀🏴\U00010400\U0001d7d8\U0001e900"


def words(seed, count):
    """Texts of characters from ALPHABET and from all of Unicode 14."""
    draw = random.Random(seed)
    assigned = [c for c in map(chr, range(1, 0x110000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]
    for _ in range(count):
        size = draw.randint(1, 60)
        yield "".join(draw.choice(ALPHABET if draw.random() < 0.8 else assigned) for _ in range(size))


def train(pre_tokenizer, added):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=640, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=added, show_progress=False)
    sample = Tokenizer.from_file(str(ROOT / "data/tokenizer.json"))
    ids = memoryview((ROOT / "data/sotu_val.bin").read_bytes()).cast("H")[:4000]
    tokenizer.train_from_iterator([sample.decode(list(ids)), *TEXTS, *words(1, 200)], trainer)
    return tokenizer


def llama3():
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated"),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = train(pre, ["<|begin_of_text|>", "<|endoftext|>"])
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)])])
    content = json.loads(tokenizer.to_str())
    content["model"]["ignore_merges"] = True
    content["model"]["vocab"]["ĠUnitedStates"] = len(content["model"]["vocab"])  # no merges lead to it
    return content


def digits():
    pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=True)])
    tokenizer = train(pre, ["<s>"])
    tokenizer.add_tokens([AddedToken("<tool>"), AddedToken("<tool>s"), AddedToken("<", normalized=False)])
    content = json.loads(tokenizer.to_str())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    return content


def cases(tokenizer, seed):
    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=False)

    draw = random.Random(seed)
    result = []
    for text in [*TEXTS, *words(seed, 60)]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        result.append({"text": text, "ids": ids, "marked": tokenizer.encode(text).ids, "decoded": decode(ids)})
    for _ in range(60):  # most of it no UTF-8
        ids = [draw.randrange(300 if draw.random() < 0.9 else 640) for _ in range(draw.randint(1, 24))]
        if "\0" not in decode(ids):
            result.append({"ids": ids, "decoded": decode(ids)})
    return result


def dump(value, **how):
    return json.dumps(value, ensure_ascii=True, **how) + "\n"


def main():
    made = {"llama3.json": dump(llama3()), "digits.json": dump(digits())}
    tokenizers = {f"tests/golden/tokenizers/{name}": Tokenizer.from_str(text) for name, text in made.items()}
    tokenizers["data/tokenizer.json"] = Tokenizer.from_file(str(ROOT / "data/tokenizer.json"))
    all_cases = {path: cases(tokenizer, seed) for seed, (path, tokenizer) in enumerate(tokenizers.items(), 2)}
    made["cases.json"] = dump(all_cases, separators=(",", ":"))
    for name, text in made.items():
        path = HERE / name
        if "--check" not in sys.argv:
            path.write_text(text)
        elif path.read_text() != text:
            sys.exit(f"{path} differs from what this script makes")
        print(f"{path}: {len(text)} bytes")


if __name__ == "__main__":
    main()
