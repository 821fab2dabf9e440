"""WebDataset's shards: tar files with samples in them, read in place. Nothing is unpacked.

A sample is a run of files whose names are equal up to the first dot, its key:

    cc-000.tar
        000001.jpg   \\
        000001.txt    > one sample, with the key 000001
        000001.json  /
        000002.jpg   ...

Read formats.py first. It says what of a sample is the image and what are the captions. This file
knows tar files only.
"""

import re
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

# Longer captions of one image are a mistake.
MAX_TEXT_BYTES = 10_000_000

# What tarfile raises for a file that is cut off or damaged: not all of it is a TarError.
DAMAGED = (tarfile.TarError, EOFError, ArithmeticError, LookupError, ValueError)


class Sample(NamedTuple):
    """Files of one key in an open tar file."""

    key: str
    files: dict[str, tarfile.TarInfo]  # by suffix in small letters: ".jpg", ".txt"
    is_repeated: bool  # the key, or one of its suffixes, came before: what belongs to what?
    tar: tarfile.TarFile

    def text(self, suffix: str) -> str:
        """The content of a file. ValueError if it is too long or not UTF-8."""
        member = self.files[suffix]
        if member.size > MAX_TEXT_BYTES:
            raise ValueError(f"{member.name} has {member.size} bytes")
        return self.tar.extractfile(member).read().decode("utf-8-sig")

    def place(self, suffix: str) -> tuple[int, int]:
        """Where in the shard a file's content lies: (its first byte, the number of bytes)."""
        member = self.files[suffix]
        return member.offset_data, member.size


def expand_braces(spec: str) -> list[str]:
    """The paths that a specification of shards stands for.

    >>> expand_braces("x{08..10}.tar::y{a,b}.tar")
    ['x08.tar', 'x09.tar', 'x10.tar', 'ya.tar', 'yb.tar']
    """
    if "::" in spec:
        paths = []
        for source in spec.split("::"):
            paths += expand_braces(source)
        return paths

    # The first pair of braces: a range of numbers, or words between commas.
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", spec)
    if not found:
        return [spec]
    first, last, words = found.groups()
    if words:
        choices = words.split(",")
    else:
        # Numbers have at least as many digits as the first one: 08, 09, 10.
        choices = [str(i).zfill(len(first)) for i in range(int(first), int(last) + 1)]

    # What stands behind may have braces too.
    before, after = spec[: found.start()], spec[found.end() :]
    return [path for choice in choices for path in expand_braces(before + choice + after)]


def read_samples(shard: Path) -> Iterator[Sample]:
    """The samples of a tar file in order. One of DAMAGED once it comes to where the file is cut."""
    seen = set()
    with tarfile.open(shard, "r:") as tar:
        for key, group in groupby(members(tar), sample_key):
            # Links and devices are not followed: a link could point out of the shard.
            regular = [member for member in group if member.isfile()]
            files = {member.name[len(key) :].lower(): member for member in regular}
            is_repeated = key in seen or len(files) < len(regular)
            yield Sample(key, files, is_repeated, tar)
            seen.add(key)

    # tarfile takes a file that is cut between two members for a whole one.
    with open(shard, "rb") as file:
        file.seek(-min(1024, shard.stat().st_size), 2)
        if any(file.read()):
            raise tarfile.ReadError("it lacks the zeros that end a tar file")


def sample_key(member: tarfile.TarInfo) -> str:
    """v1.0/n07.seg.png -> v1.0/n07: folders, and the file's name up to its first dot."""
    return re.match(r"(.*/)?[^/.]*", member.name, re.DOTALL)[0]


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """What is in a tar file, but for folders, and for the ._ files that macOS puts beside each."""
    for member in tar:
        # A negative size would lead back to the same place, and so on for ever.
        if member.size < 0:
            raise tarfile.ReadError("a file of negative size")
        if not member.isdir() and not Path(member.name).name.startswith("._"):
            yield member
