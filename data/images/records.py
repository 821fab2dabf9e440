"""Records without Python objects: ten million of them are one file of JSON lines, each parsed when it is asked for.

A record is [name, captions] of one picture, or [name, captions, file, offset, size] where the picture lies inside a tar
shard. Names are as the user's file has them, relative to its folder.
"""

import hashlib
import json
import os
import tempfile
from array import array

import numpy as np

from data.common import cache_dir


class Lines:
    """A sequence of records, or with `part` of one field of each; one that has several lines joins their captions."""

    def __init__(self, block, bounds, order=None, heads=None, which=None, part=None):
        self.block, self.bounds = (
            block,
            bounds,
        )  # (bytes,) uint8; (lines + 1,): line i is block[bounds[i]:bounds[i + 1]]
        self.order, self.heads = (
            order,
            heads,
        )  # record i has the lines order[heads[i]:heads[i + 1]] (None: line i alone)
        self.which, self.part = which, part  # a selection of records (None: all)

    def __len__(self):
        return len(
            self.which
            if self.which is not None
            else self.bounds[1:]
            if self.heads is None
            else self.heads[1:]
        )

    def __getitem__(self, i):
        i = range(len(self))[i]  # (negative numbers; IndexError, which ends a loop)
        i = i if self.which is None else self.which[i]
        lines = (i,) if self.heads is None else self.order[self.heads[i] : self.heads[i + 1]]
        first, *more = (
            json.loads(self.block[self.bounds[line] : self.bounds[line + 1]].tobytes())
            for line in lines
        )
        for record in more:
            first[1] += record[1]
        return first if self.part is None else first[self.part]

    def take(self, which):
        """The records at an array of indices."""
        which = (np.arange(len(self)) if self.which is None else self.which)[
            which
        ]  # (negative numbers, and none too many)
        return Lines(self.block, self.bounds, self.order, self.heads, which, self.part)

    def field(self, part):
        """The same records' names (0) or captions (1)."""
        return Lines(self.block, self.bounds, self.order, self.heads, self.which, part)


def line(record):
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def hash64(text):
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


def gather(records):
    """An iterable of records -> Lines, in a file that goes with the process. Records of one name become one."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    keys, bounds = array("Q"), array("q", [0])
    with tempfile.TemporaryFile(dir=cache_dir()) as file:
        for record in records:
            keys.append(hash64(record[0]))
            bounds.append(bounds[-1] + file.write(line(record)))
        file.flush()
        block = np.memmap(file, np.uint8, "r") if keys else np.empty(0, np.uint8)
    bounds = np.frombuffer(bounds, np.int64)
    _, first, group = np.unique(
        np.frombuffer(keys, np.uint64), return_index=True, return_inverse=True
    )
    if len(first) == len(keys):
        return Lines(block, bounds)
    order = np.argsort(first[group], kind="stable")  # in the order in which names came first
    heads = np.flatnonzero(np.diff(first[group][order], prepend=-1, append=len(keys)))
    return Lines(block, bounds, order, heads)


def read_lines(path):
    """Lines of a file that `line` wrote."""
    block = np.memmap(path, np.uint8, "r") if os.path.getsize(path) else np.empty(0, np.uint8)
    ends = [
        np.flatnonzero(block[i : i + (1 << 24)] == 10) + (i + 1)
        for i in range(0, len(block), 1 << 24)
    ]
    return Lines(block, np.concatenate([[0], *ends]))
