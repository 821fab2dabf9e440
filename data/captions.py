"""Captions as the text towers take them: the cache, where the frozen LLM reads each distinct one once, ever; and token ids."""

import fcntl
import hashlib
import json
import os
import tempfile
from array import array
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data import BadInput, cache_dir, interpreting
from data.models import digest, fetch_default, read_llm


class Rows:
    """Some rows of a memory-mapped tensor, read when they are asked for."""

    def __init__(self, table, rows):
        self.table, self.rows = table, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, which):
        got = self.table[self.rows[which]]
        if got.ndim == 3 and len(
            got
        ):  # token features: only as many columns as the longest caption here has
            got = got[:, : int((got != 0).any(-1).any(0).nonzero().max()) + 1]
        return got


class Ragged:
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


def parts(rows, size=10_000):
    """All rows of a tensor, Rows or Ragged, some at a time: they may be larger than memory."""
    return (rows[i : i + size] for i in range(0, len(rows), size))


class CaptionCache:
    """Caption -> vector, on disk, each distinct caption embedded once: LIFT's whole text tower at training time.

    $LIFT_CACHE/captions/FINGERPRINT.records, where the fingerprint covers all that changes a vector: weights,
    tokenizer, pooling, prompt, layer, maximal length, dtype. The file is an array that grows by appending:

        key     15 bytes of the caption's hash
        cut     1 byte, whether the caption was longer than max_length
        vector  (width,) float16; with pool "tokens" (max_length, width), see llm_text.all_tokens

    A run that is killed leaves at worst a part of a record, which the next one cuts off, and goes on from there.
    Calling it is the `tokenize` of a model whose text tower is frozen: texts -> (N, ...) float16 tensor. `rows` is the
    same without reading: training reads a batch at a time from the memory-mapped file.
    """

    def __init__(self, llm, pool="mean", layer=None, max_length=77, folder=None):
        self.llm, self.pool, self.layer, self.max_length = (
            llm,
            pool,
            llm.pool_layer(pool, layer),
            max_length,
        )
        what = json.dumps(llm.settings(pool, self.layer, max_length), sort_keys=True)
        self.fingerprint = hashlib.blake2b(what.encode(), digest_size=12).hexdigest()
        self.file = Path(folder or cache_dir() / "captions") / f"{self.fingerprint}.records"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        shape = (max_length, llm.width) if pool == "tokens" else (llm.width,)
        self.record = np.dtype([("key", "S15"), ("cut", "?"), ("vector", np.float16, shape)])
        self.frozen_parameters = sum(p.numel() for p in llm.parameters())

    def __call__(self, texts):
        """Texts -> vectors (N, ...) float16, on the CPU; what is not cached is embedded first, with a bar."""
        return self.rows(texts)[:]

    def rows(self, texts):
        """Texts -> Rows, one a text."""
        keys = np.fromiter(
            (
                hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=15).digest()
                for t in texts
            ),
            "S15",
            len(texts),
        )
        with open(self.file, "ab") as f:
            fcntl.flock(f, fcntl.LOCK_EX)  # another process waits here, then finds the work done
            size = os.fstat(f.fileno()).st_size  # (not f.tell(), which is older than the lock)
            f.truncate(size - size % self.record.itemsize)
            new = np.flatnonzero(self._find(keys) < 0)
            new = new[np.sort(np.unique(keys[new], return_index=True)[1])]  # each once
            with tqdm(
                total=len(new),
                desc="embedding captions",
                unit="caption",
                dynamic_ncols=True,
                disable=None if len(new) else True,
            ) as bar:
                for i in range(0, len(new), 100_000):  # (in parts: not all texts as Python objects)
                    part = new[i : i + 100_000]
                    self._embed(keys[part], [texts[j] for j in part], f, bar)
        records, rows = self._records(), self._find(keys)
        self.cut = (
            float(records["cut"][rows].mean()) if len(rows) else 0.0
        )  # share of these captions that was cut
        return Rows(torch.from_numpy(records["vector"]), torch.from_numpy(rows))

    def _find(self, keys):
        """The row of each key in the file, int64; -1 where there is none. (numpy drops trailing zero bytes, from both alike.)"""
        known = self._records()["key"]
        if not len(known):
            return np.full(len(keys), -1)
        order = np.argsort(known)
        row = order[np.searchsorted(known, keys, sorter=order).clip(max=len(known) - 1)]
        return np.where(known[row] == keys, row, -1)

    def _records(self):
        """All whole records, memory-mapped: another process may be writing the next one."""
        n = (
            self.file.stat().st_size // self.record.itemsize
        )  # (mode c: torch wants memory that it could write to)
        return np.memmap(self.file, self.record, "c", shape=n) if n else np.empty(0, self.record)

    def _embed(self, keys, texts, f, bar):
        for batch, vectors, cut in self.llm.batches(texts, self.pool, self.layer, self.max_length):
            records = np.zeros(len(batch), self.record)
            records["key"], records["cut"] = keys[batch], cut
            vectors = vectors.half().cpu().numpy()
            records["vector"][(slice(None), *map(slice, vectors.shape[1:]))] = (
                vectors  # (tokens: as many as there are)
            )
            if not np.isfinite(records["vector"]).all():
                raise BadInput(
                    f"the vectors after layer {self.layer} are not finite in float16; choose another "
                    "--pool or --layer"
                )
            f.write(records.tobytes())
            f.flush()
            bar.update(len(batch))


END, PAD = (
    -1,
    -2,
)  # beside the LLM's token ids; being in the training captions' ids, both get rows of their own


class TokenIds:
    """Texts -> (N, L) int64: the LLM's tokens, then END, then PAD. Of the LLM only the tokenizer is used."""

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
        """Texts -> Ragged, one row a text, in a file that goes with the process; the share that was cut is then in `cut`."""
        lengths, cuts = array("i"), 0
        cache_dir().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache_dir()) as file:
            for i in range(
                0, len(texts), 10_000
            ):  # (in parts: millions of captions are never all Python objects)
                lists, cut = self.tokenizer.lists(
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
        return Ragged(torch.from_numpy(values), torch.frombuffer(lengths, dtype=torch.int32), PAD)

    def __call__(self, texts):
        return self.rows(texts)[:]
