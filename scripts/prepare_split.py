"""prepare_split.py: cuts the bytes of a .txt file into documents, for prepare.py."""

SEPARATOR = "<|endoftext|>"
LONGEST = 1 << 16  # bytes of a line; a text cut by size is cut within longer ones
WAYS = {"file": "one document (--split-on cuts it)", "blank": "cut at blank lines", "page": "cut at form feeds"}


def way_of(start):
    """--split-on auto: TEXT or file, by the first bytes of the file."""
    return SEPARATOR if SEPARATOR.encode() in map(bytes.strip, start.splitlines()) else "file"


def describe(way):
    if way.isdigit():
        return f"cut at the first line end behind every {way} bytes"
    return WAYS.get(way, f"cut at lines of {way}")


def read_lines(stream, longest):
    """Lines, of which longer ones come in pieces that end where a character does."""
    while line := stream.readline(longest):
        while not line.endswith(b"\n") and (following := stream.peek(1)[:1]) and following[0] & 0xC0 == 0x80:
            line += stream.read(1)
        yield line


def cutter(way):
    """Of a line and the bytes that its document has before it: ([(end of a document, bytes after it that
    belong to none), ...], start of the next document or more of this one)."""
    if way == "page":
        def at_form_feeds(line, _):
            *ends, rest = line.split(b"\f")
            return [(end, 1) for end in ends], rest
        return at_form_feeds
    if way.isdigit():
        def at_size(line, size):
            ends = size + len(line) >= int(way) and (line.endswith(b"\n") or len(line) >= LONGEST)
            return ([(line, 0)], b"") if ends else ([], line)
        return at_size
    separator = b"" if way == "blank" else way.encode()
    return lambda line, _: ([(b"", len(line))], b"") if line.strip() == separator else ([], line)


def split(stream, way):
    """(its first byte, bytes) of each document. Line ends around one are left out, unless size cuts."""
    longest, around = (max(int(way), LONGEST), b"") if way.isdigit() else (-1, b"\r\n")
    cut, begin, document = cutter(way), 0, bytearray()

    def finished():
        return begin + len(document) - len(document.lstrip(around)), bytes(document.strip(around))

    for line in read_lines(stream, longest):
        ends, rest = cut(line, len(document))
        for end, skipped in ends:
            document += end
            yield finished()
            begin += len(document) + skipped
            document.clear()
        document += rest
    yield finished()
