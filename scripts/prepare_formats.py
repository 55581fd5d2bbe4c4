"""prepare_formats.py: ids to nanoGPT, Megatron-LM and llm.c files (data/README.md), for
prepare.py."""
import glob
import os
import struct
import sys
from array import array
from pathlib import Path

from prepare_texts import Failure

LLMC_SHARD = 100_000_000
IDX_CODES = {"H": 8, "i": 4}  # Megatron's codes of uint16 and int32, by array type
INT32_MAX = 2**31 - 1


def little_endian(ids):
    if sys.byteorder == "big":
        ids.byteswap()
    return ids.tobytes()


class Output:
    """Files under temporary names; finish() completes them, commit() renames them."""

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

    def add(self, lengths, body, joined):
        """Documents with their ids; joined: the first one continues the last one of before."""
        self.tokens += sum(lengths)
        self.documents += len(lengths) - joined

    def commit(self):
        for path in set(self.existing(self.prefix)) - set(self.files):
            os.unlink(path)  # shards of an output that had more of them
        for path in self.files:
            os.rename(path + ".tmp", path)
        return f"{', '.join(self.files[:4])}{' ...' if len(self.files) > 4 else ''}: " \
               f"{self.tokens:,} tokens, {self.documents:,} documents"

    def pattern(self):
        """What a configuration calls the output."""
        return f"{self.prefix}.bin"

    def discard(self):
        for path in self.files:
            Path(path + ".tmp").unlink(missing_ok=True)


class NanoGPT(Output):
    @staticmethod
    def existing(prefix):
        """What is there of an output with this name."""
        return [path for path in (f"{prefix}.bin",) if os.path.lexists(path)]

    def __init__(self, prefix, settings):
        super().__init__(prefix, settings)
        self.bin = self.open(f"{prefix}.bin")

    def add(self, lengths, body, joined):
        super().add(lengths, body, joined)
        self.bin.write(body)

    def finish(self):
        self.close_file(self.bin)


class Megatron(NanoGPT):
    @staticmethod
    def existing(prefix):
        return [path for path in (f"{prefix}.bin", f"{prefix}.idx") if os.path.lexists(path)]

    def __init__(self, prefix, settings):
        super().__init__(prefix, settings)
        self.lengths = array("i")

    def add(self, lengths, body, joined):
        super().add(lengths, body, joined)
        if joined:
            lengths = [self.lengths.pop() + lengths[0], *lengths[1:]]
        if max(lengths, default=0) > INT32_MAX:
            raise Failure(f"a document of {max(lengths):,} tokens is longer than the index of a Megatron file can "
                          "say (2^31 - 1): use --format nanogpt, or cut the text")
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
    @staticmethod
    def existing(prefix):
        return sorted(glob.glob(glob.escape(prefix) + "_[0-9]" + "[0-9]" * 5 + ".bin"))

    def pattern(self):
        return f"{self.prefix}_*.bin"

    def __init__(self, prefix, settings):
        super().__init__(prefix, settings)
        self.shard_tokens = settings["shard"]
        self.shard, self.count = None, 0

    def add(self, lengths, body, joined):
        super().add(lengths, body, joined)
        at = 0
        for i, length in enumerate(lengths):
            if self.shard and self.count >= self.shard_tokens and not (joined and i == 0):
                self.close_shard()
            if not self.shard:
                self.shard = self.open(f"{self.prefix}_{len(self.files):06d}.bin")
                self.shard.write(bytes(1024))
            end = at + length * self.id_bytes
            self.shard.write(body[at:end])
            self.count += length
            if self.count > INT32_MAX:
                raise Failure(f"{self.files[-1]} would hold {self.count:,} tokens, and llm.c counts them in 31 bits: "
                              "use a smaller --shard, or --format megatron")
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
