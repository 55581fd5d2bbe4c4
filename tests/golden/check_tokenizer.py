#!/usr/bin/env python3
"""Holds the tokenizer of an export against the tokenizer it was made of, in the transformers that is
installed (no PyTorch needed).

    python3 -m venv VENV && VENV/bin/pip install transformers tokenizers tiktoken blobfile protobuf
    build/cria export CKPT DIR --tokenizer data/tokenizer.json
    VENV/bin/python tests/golden/check_tokenizer.py DIR [--specials]

AutoTokenizer must give, for texts in many scripts, with odd spaces, control characters and broken
emoji, the ids that `tokenizers` or `tiktoken` give for the same file without special tokens, and the
texts back; eos_token_id must be config.json's, no id beyond vocab_size may exist, and neither the
tokenizer nor the configuration may log a warning. --specials: the names of special tokens in a text
are those tokens.

No difference with transformers 4.57.6 and 5.24.0 for data/tokenizer.json, its vocab.json and merges.txt,
and Llama 3's tokenizer.model (of the package llama-models)."""

import argparse
import base64
import logging
import pathlib
import sys

import transformers
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as hf_logging

TEXTS = [
    "", " ", "\n", "Gentlemen of the Senate", " leading  and  trailing ", "tabs\t\tand\r\nlines\n\n\n",
    "it's 1,234.5 , isn't it ?  don't !", "naïve café ÀÉÎ", "日本語のテキスト", "العربية", "עברית", "हिन्दी",
    "e\u0301 is not \u00e9, \u212b is not \u00c5", "\ufb01 ligature", "😀👩‍👩‍👧 \U0001f3f4\U000e0067\u200d",
    "zero\u200bwidth\ufeffmarks\u00ad", "\x00\x07\x1b[2J\x7f\x9b", "\u2028\u2029\u00a0\u3000", "a" * 300,
    "<s> </s> <unk> [CLS] <|im_start|>", "x=1;\n\tif (a<b) { c++; } // done", "\U0010ffff\ue000",
]


class Warnings(logging.Handler):
    found = []

    def emit(self, record):
        self.found.append(record.getMessage())


def read_ranks(path):
    with open(path, "rb") as lines:
        return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}


def reference(directory):
    """The ids of a text by the package that the file is written for."""
    if (directory / "tokenizer.json").exists():
        from tokenizers import Tokenizer
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    if (directory / "vocab.json").exists():
        from tokenizers import ByteLevelBPETokenizer
        tokenizer = ByteLevelBPETokenizer(str(directory / "vocab.json"), str(directory / "merges.txt"))
        return lambda text: tokenizer.encode(text).ids
    import tiktoken
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
    import prepare_tokenizers as prepare
    encoding = tiktoken.Encoding("llama3", pat_str=prepare.LLAMA3_PATTERN, special_tokens={},
                                 mergeable_ranks=read_ranks(directory / "tokenizer.model"))
    return encoding.encode_ordinary


def check(directory, specials):
    hf_logging.set_verbosity_warning()
    hf_logging.get_logger("transformers").addHandler(Warnings())
    config = AutoConfig.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    # 5 looks for a SentencePiece model first, and tells that it found none
    found = [w for w in Warnings.found if "Falling back to TikToken" not in w]
    assert not found, found

    hf_logging.set_verbosity_error()  # one text is longer than the model
    encode = reference(directory)
    for text in TEXTS:
        inputs = tokenizer(text)
        assert inputs["input_ids"] == encode(text), (text, inputs["input_ids"], encode(text))
        assert set(inputs) == {"input_ids", "attention_mask"}, set(inputs)
        assert tokenizer.decode(inputs["input_ids"]) == text, (text, tokenizer.decode(inputs["input_ids"]))

    eos = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    assert tokenizer.eos_token_id == eos, (tokenizer.eos_token_id, eos)
    assert tokenizer.bos_token_id in (None, config.bos_token_id) or config.bos_token_id is None
    assert len(tokenizer) <= config.vocab_size, (len(tokenizer), config.vocab_size)
    assert max(tokenizer.get_vocab().values()) < config.vocab_size
    assert tokenizer.model_max_length == config.max_position_embeddings
    if specials:
        for token, number in tokenizer.get_added_vocab().items():
            assert tokenizer(f"a{token}b")["input_ids"].count(number) == 1, (token, number)
            assert tokenizer.decode([number]) == token
    print(f"transformers {transformers.__version__}: {type(tokenizer).__name__}, {len(tokenizer)} ids, "
          f"eos {tokenizer.eos_token} {tokenizer.eos_token_id}, bos {tokenizer.bos_token}: "
          f"{len(TEXTS)} texts are equal")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--specials", action="store_true")
    arguments = parser.parse_args()
    check(arguments.directory, arguments.specials)
