"""prepare_tokenizers.py: texts to ids by tiktoken, Hugging Face tokenizers or bytes, for
prepare.py. Nothing is added to a text, and the text of a special token stays text."""
import base64
import json
import os

from prepare_texts import SEGMENT, Failure, need, os_failure

GPT2_EOD = 50256
# The splitting patterns of OpenAI's GPT-2 (openai_public.py of tiktoken) and Meta's Llama 3
# (tokenizer.py of llama3).
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_RANKS, LLAMA3_SPECIALS = 128000, 256
EOD_NAMES = "<|endoftext|>", "<|end_of_text|>", "</s>"
BOS_NAMES = "<|begin_of_text|>", "<s>"


class Bytes:
    """UTF-8's bytes are the ids; 256 ends a document. Needs no package."""

    vocab, bos, eod, cuts = 257, None, 256, True

    def encode(self, texts):
        return [text.encode() for text in texts]


class Tiktoken:
    cuts = True  # segments of prepare_texts have the tokens of the whole

    def __init__(self, encoding, bos, eod):
        self.encoding, self.bos, self.eod = encoding, bos, eod
        self.vocab = encoding.n_vocab

    def encode(self, texts):
        return self.encoding.encode_ordinary_batch(texts, num_threads=1)


class HuggingFace:
    def __init__(self, path):
        tokenizers = need("tokenizers")
        try:
            self.tokenizer = tokenizers.Tokenizer.from_file(path)
        except Exception as error:  # the package raises nothing more special
            raise Failure(f"--tokenizer {path} is not a tokenizer.json of Hugging Face: {error}") from None
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.vocab = self.tokenizer.get_vocab_size(with_added_tokens=True)
        content = json.loads(self.tokenizer.to_str())
        self.cuts = splits_as_known(content)
        specials = [t for t in content["added_tokens"] if t["special"]]
        ids = {t["content"]: t["id"] for t in specials}
        self.bos, self.eod = (next((ids[n] for n in names if n in ids), None) for names in (BOS_NAMES, EOD_NAMES))
        self.keep_specials_text(path, specials)

    def keep_specials_text(self, path, specials):
        try:
            self.tokenizer.encode_special_tokens = True
        except AttributeError:
            raise Failure("the package tokenizers is too old to take special tokens in texts as text: "
                          "python3 -m pip install --upgrade tokenizers", 3) from None
        for token in specials:
            if token["content"] and token["id"] in self.encode([token["content"]])[0]:
                raise Failure(f"--tokenizer {path} makes the special id {token['id']} of the text "
                              f"{token['content']!r}: documents that hold it could not be told from those "
                              "that end there")

    def encode(self, texts):
        return [e.ids for e in self.tokenizer.encode_batch(texts, add_special_tokens=False)]


def splits_as_known(content):
    """Does this tokenizer.json split texts by one of the two patterns above, and change nothing before?"""
    def byte_level(part, regex):
        return part["type"] == "ByteLevel" and not part["add_prefix_space"] and part["use_regex"] == regex

    def known(part):
        return part["type"] == "Split" and part["behavior"] == "Isolated" and not part["invert"] and \
            part["pattern"].get("Regex") in (GPT2_PATTERN, LLAMA3_PATTERN)

    split = content["pre_tokenizer"] or {"type": None}
    parts = split["pretokenizers"] if split["type"] == "Sequence" else [split]
    splits = len(parts) == 1 and byte_level(parts[0], True) or \
        len(parts) == 2 and known(parts[0]) and byte_level(parts[1], False)
    return splits and not content["normalizer"] and content["model"]["type"] == "BPE" and \
        all(token["special"] for token in content["added_tokens"])


def load_ranks(path):
    """A line for each token: base64, then its rank."""
    ranks, number = {}, 0
    try:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    token, rank = line.split()
                    ranks[base64.b64decode(token, validate=True)] = int(rank)
    except OSError as error:
        raise os_failure(f"cannot read --tokenizer {path}", error) from None
    except ValueError:
        raise Failure(f"--tokenizer {path}, line {number}: expected a token in base64 and its rank, as in "
                      ".tiktoken files and Llama 3's tokenizer.model (of other models name tokenizer.json)") \
            from None
    if sorted(ranks.values()) != list(range(len(ranks))) or len(ranks) < 256:
        raise Failure(f"--tokenizer {path} is cut: its {len(ranks)} ranks are not 0, 1, 2, ...")
    return ranks


def load_gpt2(tiktoken):
    try:
        return Tiktoken(tiktoken.get_encoding("gpt2"), None, GPT2_EOD)
    except Exception as error:  # of requests, urllib3, tiktoken
        raise Failure(f"--tokenizer gpt2: tiktoken cannot fetch GPT-2's vocabulary ({type(error).__name__}); "
                      "without a network name a file with its ranks, such as r50k_base.tiktoken, or let "
                      "TIKTOKEN_CACHE_DIR name a folder that tiktoken has filled elsewhere", 3) from None


def load_tokenizer(name):
    """--tokenizer: has vocab, bos and eod (None: not known), cuts, and encode(texts)."""
    if name == "bytes":
        return Bytes()
    if name == "gpt2":
        return load_gpt2(need("tiktoken"))
    if os.path.isdir(name):
        raise Failure(f"--tokenizer {name} is a directory: name the file in it, tokenizer.json or tokenizer.model")
    if not os.path.exists(name):
        raise Failure(f"--tokenizer {name}: there is no such file; expected gpt2, bytes, or the path of a "
                      "tokenizer.json, a .tiktoken file or Llama 3's tokenizer.model")
    if name.endswith(".json"):
        return HuggingFace(name)
    tiktoken = need("tiktoken")
    ranks = load_ranks(name)
    if len(ranks) == GPT2_EOD:
        return Tiktoken(
            tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks,
                              special_tokens={"<|endoftext|>": GPT2_EOD}, explicit_n_vocab=50257),
            None, GPT2_EOD
        )
    if len(ranks) != LLAMA3_RANKS:
        raise Failure(f"--tokenizer {name} has {len(ranks)} ranks, GPT-2 {GPT2_EOD} and Llama 3 {LLAMA3_RANKS}: by which "
                      "pattern it splits texts is not known (of other models name tokenizer.json)")
    specials = {f"<|special_{i}|>": len(ranks) + i for i in range(LLAMA3_SPECIALS)}
    return Tiktoken(
        tiktoken.Encoding("llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens=specials),
        len(ranks), len(ranks) + 1
    )


def encode_all(tokenizer, texts, where):
    """Ids of each text, a mebibyte of texts at a time. where(i) names text i."""
    batch, size, first = [], 0, 0
    for i, text in enumerate(texts):
        batch.append(text)
        size += len(text)
        if size >= SEGMENT or i + 1 == len(texts):
            yield from encode_batch(tokenizer, batch, lambda k: where(first + k))
            batch, size, first = [], 0, i + 1


def encode_batch(tokenizer, texts, where):
    try:
        return tokenizer.encode(texts)
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the packages' Rust code is no Exception
        sentence = str(error).partition("\n")[0]
    for i, text in enumerate(texts):
        try:
            tokenizer.encode([text])
        except (MemoryError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise Failure(f"{where(i)}: the tokenizer fails on this text: "
                          f"{type(error).__name__} {str(error).partition(chr(10))[0]}") from None
    raise Failure(f"{where(0)} and what follows: the tokenizer fails on these texts together: {sentence}")
