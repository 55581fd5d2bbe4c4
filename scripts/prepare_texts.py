"""prepare_texts.py: the documents of parquet, .jsonl and .txt files, for prepare.py.

A document is a Text, or, where it is a large .txt file, a FileText that is never in memory as a whole.
Both are handed on in segments, which are cut only where the splitting patterns of GPT-2 and Llama 3
end a piece anyway: the tokens of the segments are then those of the document."""
import codecs
import contextlib
import errno
import gzip
import hashlib
import io
import json
import re
import sys
import zlib

from prepare_split import describe, split, way_of
from runlog import say

SEGMENT = 1 << 20  # characters, about; tokenizers take some 150 bytes of memory for each
WARNINGS = 20  # documents with mistakes that are named one by one

# Behind a letter that a space and a letter follow, and behind a line break between characters that
# are no white space, both patterns begin a new piece, whatever stands further off.
CUT = re.compile(r"[A-Za-z](?= [A-Za-z])|[!-~\w]\n(?=[!-~\w])")


class Failure(Exception):
    """Ends the script: a sentence, and the exit status (2 a mistake in the input, 3 the environment)."""

    def __init__(self, sentence, status=2):
        super().__init__(sentence, status)
        self.sentence, self.status = sentence, status


MISTAKES = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP}


def os_failure(what, error):
    return Failure(f"{what}: {error.strerror or error}", 2 if error.errno in MISTAKES else 3)


def need(package):
    try:
        return __import__(package)
    except ImportError:
        raise Failure(f"this needs the package {package}: python3 -m pip install {package}", 3) from None


def clear():
    """Removes the line of the progress."""
    return "\r\033[K" if sys.stderr.isatty() else ""


# ---- bytes of files ------------------------------------------------------------------------------


class ZstdStream(io.RawIOBase):
    """Decompresses frame after frame; unlike zstandard's own reader it notices a cut file."""

    def __init__(self, path):
        self.decompressor = need("zstandard").ZstdDecompressor()
        self.file, self.frame, self.ready = open(path, "rb"), None, b""

    def readable(self):
        return True

    def fill(self):
        data = self.file.read(1 << 14)
        if not data and self.frame:
            raise EOFError("the last frame is not complete")
        out = []
        while data:
            self.frame = self.frame or self.decompressor.decompressobj()
            out.append(self.frame.decompress(data))
            data = self.frame.unused_data if self.frame.eof else b""
            if self.frame.eof:
                self.frame = None
        self.ready = b"".join(out)
        return bool(self.ready) or self.file.peek(1) != b"" or self.frame is not None

    def readinto(self, buffer):
        while not self.ready and self.fill():
            pass
        n = min(len(buffer), len(self.ready))
        buffer[:n], self.ready = self.ready[:n], self.ready[n:]
        return n

    def close(self):
        self.file.close()
        super().close()


@contextlib.contextmanager
def open_text(path):
    """The bytes of a file, decompressed; what reading it finds wrong becomes a Failure."""
    try:
        if path.endswith(".gz"):
            stream = gzip.open(path, "rb")
        elif path.endswith(".zst"):
            stream = io.BufferedReader(ZstdStream(path))
        else:
            stream = open(path, "rb")
        with stream:
            yield stream
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise damaged(path, error) from None
        raise os_failure(f"cannot read {path}", error) from None
    except (EOFError, zlib.error) as error:
        raise damaged(path, error) from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise damaged(path, error) from None
        raise


def damaged(path, error):
    return Failure(f"{path} is cut or damaged: {error}; fetch it again")


# ---- documents -----------------------------------------------------------------------------------


def where(place):
    path, unit, number = place
    return f"{path}, {unit} {number}" if unit else path


def sound(text, place, bad):
    """The text if it is Unicode. Half of a surrogate pair, which JSON can hold, is not: U+FFFD takes
    its place, the document is left out (None) or the script ends, as --bad says."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return bad.text(place, f"\\u{ord(text[error.start]):04x} at character {error.start} is half of a "
                        "surrogate pair, which is no character",
                        lambda: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return text


class Bad:
    """What --bad says about documents with mistakes, and how many were left out."""

    def __init__(self, policy, quiet=False):
        self.policy, self.left_out, self.warned = policy, 0, WARNINGS if quiet else 0

    def text(self, place, mistake, replace=None):
        if self.policy == "stop" or self.policy == "replace" and not replace:
            hint = "--bad replace puts U+FFFD there, --bad skip" if replace else "--bad skip"
            raise Failure(f"{where(place)}: {mistake}; {hint} leaves the document out")
        self.warned += 1
        if self.warned <= WARNINGS:
            what = "U+FFFD takes its place" if self.policy == "replace" else "the document is left out"
            print(clear(), end="", file=sys.stderr)
            say(f"warning: {where(place)}: {mistake}: {what}"
                f"{' (further ones are not named)' if self.warned == WARNINGS else ''}")
        if self.policy == "replace":
            return replace()
        self.left_out += 1
        return None


def in_share(digest, share):
    return int.from_bytes(digest, "little") < share * 2.0**64


def new_digest(data=b""):
    return hashlib.blake2b(data, digest_size=8)


def is_val(text, share):
    return in_share(new_digest(text.encode()).digest(), share)


def segments(chunks, longest):
    """Cuts a text that comes in chunks into pieces of about `longest` characters."""
    text, seen = "", 0  # no cut is before `seen`
    for chunk in chunks:
        text += chunk
        while len(text) >= longest:
            at = 0
            for begin in (max(seen, len(text) - 4096), seen):
                for match in CUT.finditer(text, begin):
                    at = match.end()
                if at:
                    break
            if not at:
                seen = max(0, len(text) - 2)  # what stands there may become a cut with what follows
                break
            yield text[:at]
            text, seen = text[at:], 0
    if text:
        yield text


def split_point(size, share, read):
    """Where the last share of a document of so many bytes begins: at a line if one begins near by, else
    at a space, else at a character. read(begin, end) gives its bytes. 0: it is too short."""
    held = max(1, round(size * share))
    point = size - held
    if point < 1:
        return 0
    near = min(point, max(256, min(held // 4, 1 << 16)))
    before = read(point - near, point + 1)
    line = before.rfind(b"\n", max(0, near - held // 4), near)
    space = before.rfind(b" ", max(0, near - 256))
    if line >= 0:
        return point - near + line + 1
    if space >= 0 and point - near + space > 0:
        return point - near + space
    while point > 0 and before[near] & 0xC0 == 0x80:
        point, near = point - 1, near - 1
    return point


class Text:
    """A document in memory."""

    def __init__(self, place, text):
        self.place, self.text = place, text

    def sound(self, bad):
        self.text = sound(self.text, self.place, bad)
        return bool(self.text)

    def is_val(self, share):
        return is_val(self.text, share)

    def split(self, share):
        """What is trained on, and what is held out, either of which may be None."""
        data = self.text.encode()
        at = split_point(len(data), share, lambda begin, end: data[begin:end])
        if at == 0:
            return [self, None]
        return [Text(self.place, part.decode()) for part in (data[:at], data[at:])]

    def segments(self, longest):
        if longest is None or len(self.text) <= longest:
            return iter((self.text,))
        return segments((self.text[i:i + longest] for i in range(0, len(self.text), longest)), longest)


class FileText:
    """A .txt file, or bytes begin to end of it, read anew each time."""

    def __init__(self, path, errors="strict", begin=0, end=None):
        self.path, self.errors, self.begin, self.end = path, errors, begin, end
        self.place, self.digest = (path, None, 0), None

    def pieces(self):
        """(text, its bytes in the file)"""
        at, rest = self.begin, b""
        with open_text(self.path) as stream:
            skip(stream, self.begin)
            while True:
                left = SEGMENT if self.end is None else min(SEGMENT, self.end - at - len(rest))
                data = rest + stream.read(left)
                final = len(data) == len(rest)
                try:
                    text, used = codecs.utf_8_decode(data, self.errors, final)
                except UnicodeDecodeError as error:
                    raise NotUtf8(not_utf8(error, at)) from None
                yield text, used
                if final:
                    return
                at, rest = at + used, data[used:]

    def sound(self, bad):
        """Reads it through: the size, the digest and whether it is UTF-8."""
        digest, self.size = new_digest(), 0
        try:
            for text, used in self.pieces():
                digest.update(text.encode())
                self.size += used
        except NotUtf8 as failure:
            self.errors = bad.text(self.place, failure.sentence, lambda: "replace")
            return self.errors is not None and self.sound(bad)
        self.digest = digest.digest()
        return True

    def is_val(self, share):
        return in_share(self.digest, share)

    def split(self, share):
        def read(begin, end):
            with open_text(self.path) as stream:
                skip(stream, begin)
                return stream.read(end - begin)
        at = split_point(self.size, share, read)
        if at == 0:
            return [self, None]
        return [FileText(self.path, self.errors, 0, at), FileText(self.path, self.errors, at)]

    def segments(self, longest):
        return segments((text for text, _ in self.pieces()), longest)


def skip(stream, count):
    while count > 0:
        data = stream.read(min(count, SEGMENT))
        if not data:
            return
        count -= len(data)


class NotUtf8(Failure):
    pass


def not_utf8(error, base=0):
    return f"byte {base + error.start}, 0x{error.object[error.start]:02x}, is not UTF-8 ({error.reason})"


# ---- reading files -------------------------------------------------------------------------------


SUFFIXES = ".parquet", ".jsonl", ".json", ".txt"


def kind_of(path):
    """Its suffix without that of the compression, or None: not a file of texts."""
    name = path.removesuffix(".gz").removesuffix(".zst")
    return next((s for s in SUFFIXES if (path if s == ".parquet" else name).endswith(s)), None)


def readable(path):
    return kind_of(path) is not None


class Reader:
    """The documents of files. longest: characters of a segment; None: documents must not be cut.
    split_on: what ends a document of a .txt file, as --split-on of prepare.py has it."""

    def __init__(self, paths, field, bad, longest, split_on):
        self.paths, self.field, self.bad, self.longest, self.split_on = paths, field, bad, longest, split_on
        self.ways = {}  # of .txt files: how they were cut into documents

    def documents(self):
        """Each document that has a text. Whether it is sound the caller asks."""
        readers = {".parquet": self.parquet, ".jsonl": self.jsonl, ".json": self.jsonl, ".txt": self.txt}
        for path in self.paths:
            if not readable(path):
                raise Failure(f"{path}: expected .parquet, .jsonl or .txt, the latter two also .gz or .zst")
            yield from readers[kind_of(path)](path)

    def notes(self):
        """How .txt files became documents."""
        ways = {}
        for path, way in self.ways.items():
            ways.setdefault(way, []).append(path)
        return [f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}: {way}"
                for way, paths in ways.items()]

    def checked(self, place, text):
        """Text, unless it is empty or none."""
        if isinstance(text, str):
            if text:
                yield Text(place, text)
        else:
            self.bad.text(place, f"found {text!r:.60}, expected a text in {self.field!r} (--text)")

    def jsonl(self, path):
        number = 0
        try:
            with open_text(path) as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield from self.line((path, "line", number), line)
        except Failure as failure:
            if "cut or damaged" in failure.sentence:
                failure = Failure(f"{failure.sentence} (line {number} is the last that can be read)")
            raise failure from None

    def line(self, place, line):
        expected = f"expected an object with the field {self.field!r} (--text)"
        try:
            value = json.loads(line)
        except UnicodeDecodeError as error:
            self.bad.text(place, f"byte {error.start} of the line is not UTF-8")
            return
        except json.JSONDecodeError as error:
            self.bad.text(place, f"not JSON at column {error.colno} ({error.msg}), {expected}")
            return
        except (ValueError, RecursionError) as error:
            self.bad.text(place, f"not JSON that can be read ({error}), {expected}")
            return
        if not isinstance(value, dict):
            self.bad.text(place, f"found {value!r:.40}, {expected}")
        elif self.field not in value:
            self.bad.text(place, f"found the fields {', '.join(value)!s:.80}, {expected}")
        else:
            yield from self.checked(place, value[self.field])

    def parquet(self, path):
        arrow = need("pyarrow")
        import pyarrow.parquet as parquet

        row = 0
        try:
            file = parquet.ParquetFile(path)
            if self.field not in file.schema_arrow.names:
                raise Failure(f"{path} has no column {self.field!r}, but {file.schema_arrow.names} (--text)")
            for batch in file.iter_batches(batch_size=1024, columns=[self.field]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    yield from self.checked((path, "row", row), text)
        except OSError as error:
            if error.errno is not None:
                raise os_failure(f"cannot read {path}", error) from None
            raise damaged(f"{path}, behind row {row},", error) from None
        except (arrow.ArrowException, UnicodeDecodeError) as error:
            raise damaged(f"{path}, behind row {row},", str(error).partition("\n")[0]) from None

    def txt(self, path):
        with open_text(path) as stream:
            data = stream.read(max(SEGMENT, self.longest or 0) + 1)
            way = way_of(data) if self.split_on == "auto" else self.split_on
            self.ways[path] = describe(way)
            if way == "file" and self.longest is not None and len(data) > self.longest:
                yield FileText(path)
                return
            if way == "file":
                yield from self.text_of((path, None, 0), 0, data + stream.read())
                return
        with open_text(path) as stream:
            for number, (begin, data) in enumerate(split(stream, way), 1):
                yield from self.text_of((path, "document", number), begin, data)

    def text_of(self, place, begin, data):
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            text = self.bad.text(place, not_utf8(error, begin), lambda: data.decode("utf-8", "replace"))
        if text:
            yield Text(place, text)
