"""prepare_parts.py: OUT.parts, the folder of finished blocks, for prepare.py.

A part is a JSON line {"train": [lengths], "val": [lengths], "joined": sides whose first document continues the last
one of the part before, "left_out": documents, "crc": of the ids}, then the ids of the training documents, then those
held out. Documents have their bos and eod already."""
import fcntl
import json
import re
import shutil
import zlib

from prepare_texts import Failure

NAMES = {"bos": "--bos", "eod": "--eod", "eod_first": "--format", "type": "--format", "val": "--val",
         "text": "--text", "split_on": "--split-on", "shard": "--shard", "tokenizer": "--tokenizer", "tokenizer_sha256": "--tokenizer",
         "inputs": "inputs"}


def part_path(parts, number):
    return parts / f"{number:08d}"


def read_part(path, id_bytes):
    """{side: (lengths, ids, joined)}, and how many documents were left out."""
    try:
        head, body = path.read_bytes().split(b"\n", 1)
        head = json.loads(head)
        if zlib.crc32(body) != head["crc"]:
            raise ValueError
    except ValueError:
        path.unlink()
        raise Failure(f"{path} was damaged and is deleted: give the same command again, which makes it anew", 3) \
            from None
    cut = id_bytes * sum(head["train"])
    bodies = {"train": body[:cut], "val": body[cut:]}
    return {side: (head[side], ids, side in head["joined"]) for side, ids in bodies.items()}, head["left_out"]


class Parts:
    """The folder of finished blocks, locked."""

    def __init__(self, folder):
        self.folder, self.settings, self.lock = folder, folder / "settings.json", None
        self.committing = folder / "committing"  # there while outputs get their final names

    def own(self):
        return [p for p in self.folder.iterdir()
                if re.fullmatch(r"\d{8}(\.tmp)?|settings\.json(\.tmp)?|committing|lock", p.name)]

    def finished(self):
        return [p for p in self.own() if re.fullmatch(r"\d{8}", p.name)]

    def open(self, manifest, force):
        """Finished blocks stay if they are of the same settings and inputs, or nothing may be there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if len(self.own()) < sum(1 for _ in self.folder.iterdir()):
            raise Failure(f"{self.folder} holds something else: move it away, or choose another --out")
        self.lock = open(self.folder / "lock", "a")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.lock.close()
            self.lock = None
            raise Failure(f"{self.folder} is in use by another run of this script") from None
        try:
            old = json.loads(self.settings.read_text())
        except (OSError, ValueError):
            old = {}
        if old != manifest:
            finished = self.finished()
            if finished and not force:
                names = sorted({NAMES.get(key, "version of this script") for key in {*old, *manifest}
                                if old.get(key) != manifest.get(key)})
                raise Failure(f"{self.folder} holds {len(finished)} finished blocks of a run with other settings or "
                              f"inputs ({', '.join(names)}); finish that one, or discard them with --force")
            for path in self.own():
                if path.name != "lock":
                    path.unlink()
            temporary = self.settings.with_suffix(".json.tmp")
            temporary.write_text(json.dumps(manifest, indent=1))
            temporary.rename(self.settings)

    def close(self):
        """Without a finished block the folder goes, and blocks nobody."""
        if self.lock:
            if not self.finished():
                shutil.rmtree(self.folder)
            self.lock.close()
