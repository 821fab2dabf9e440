"""Captions as the text towers take them: the cache, where the frozen LLM reads each distinct one once, ever; and token ids."""

import hashlib
import tempfile
from array import array
from pathlib import Path

import numpy as np
import torch

from data.common import cache_dir, interpreting
from data.files.llm import digest, fetch_default, read_llm
from data.images.records import hash64


class PaddedIds:
    """Sequences of token ids of many lengths, padded with `pad` when they are asked for: (n, longest of all) int64."""

    def __init__(self, values, lengths, pad):
        self.values, self.lengths, self.pad = values, lengths, pad  # (tokens,) int32, (N,) int32
        self.ends, self.longest = lengths.cumsum(0), int(lengths.max())

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, which):
        lengths, ends, column = (
            self.lengths[which, None],
            self.ends[which, None],
            torch.arange(self.longest),
        )  # (n, 1), (n, 1), (L,)
        return torch.where(
            column < lengths,
            self.values[(ends - lengths + column).clamp_max(len(self.values) - 1)],
            self.pad,
        ).long()


def chunks(rows, size=10_000):
    """All rows of a tensor, StoredRows or PaddedIds, some at a time: they may be larger than memory."""
    return (rows[i : i + size] for i in range(0, len(rows), size))


END, PAD = (
    -1,
    -2,
)  # beside the LLM's token ids; being in the training captions' ids, both get rows of their own


class TokenIds:
    """DistinctCaptions -> (N, L) int64: the LLM's tokens, then END, then PAD. Of the LLM only the tokenizer is used."""

    frozen_parameters = 0

    def __init__(self, cfg, device):
        self.context_length, path = (
            cfg.context_length,
            Path(cfg.llm) if cfg.llm else fetch_default(),
        )
        with interpreting(path):
            self.tokenizer = read_llm(path)[1]
            self.fingerprint = digest(path) + (
                digest(Path(cfg.llm_adapter)) if cfg.llm_adapter else ""
            )

    def rows(self, texts):
        """DistinctCaptions -> PaddedIds, one row a text, in a file that goes with the process; the share that was cut is then in `cut`."""
        lengths, cuts = array("i"), 0
        cache_dir().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache_dir()) as file:
            for i in range(
                0, len(texts), 10_000
            ):  # (in parts: millions of captions are never all Python objects)
                lists, cut = self.tokenizer.encode_all(
                    [texts[j] for j in range(i, min(i + 10_000, len(texts)))],
                    max_length=self.context_length - 1,
                )
                cuts += sum(cut)
                for ids in lists:
                    lengths.append(len(ids) + 1)
                    file.write(array("i", [*ids, END]))
            file.flush()
            values = np.memmap(file, np.int32, "c")
        self.cut = cuts / len(lengths)
        return PaddedIds(
            torch.from_numpy(values), torch.frombuffer(lengths, dtype=torch.int32), PAD
        )

    def __call__(self, texts):
        return self.rows(texts)[:]


class DistinctCaptions:
    """The distinct captions among many pictures' captions, a sequence in the order in which they come first.

    number  (captions,) int64: the place in this sequence of every picture's captions; of one picture, the longest is last
    starts  (N + 1,): picture i has number[starts[i]:starts[i + 1]]
    """

    def __init__(self, captions):
        self.captions, keys, lengths, counts = captions, array("Q"), array("I"), array("I")
        for own in captions:
            counts.append(len(own))
            lengths.extend(map(len, own))
            keys.extend(map(hash64, own))
        counts, keys = np.frombuffer(counts, np.uint32), np.frombuffer(keys, np.uint64)
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        _, self.first, number = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(self.first)  # numpy has them by their hash
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        owner = np.repeat(np.arange(len(counts)), counts)
        self.first, self.number = (
            self.first[order],
            rank[number][np.lexsort((np.frombuffer(lengths, np.uint32), owner))],
        )
        self.fingerprint = hashlib.blake2b(
            keys.tobytes() + counts.tobytes(), digest_size=12
        ).hexdigest()

    def __len__(self):
        return len(self.first)

    def __getitem__(self, i):
        at = self.first[i]
        picture = int(np.searchsorted(self.starts, at, "right")) - 1
        return self.captions[picture][at - self.starts[picture]]

    def of(self, picture):
        """The numbers of one picture's captions, the longest last."""
        return self.number[self.starts[picture] : self.starts[picture + 1]]
