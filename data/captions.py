"""The caption cache: the frozen LLM reads each distinct caption once, ever."""

import fcntl
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data import BadInput, cache_dir


class Rows:
    """Some rows of a memory-mapped tensor, read when they are asked for."""

    def __init__(self, table, rows):
        self.table, self.rows = table, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, which):
        got = self.table[self.rows[which]]
        if got.ndim == 3 and len(got):  # token features: only as many columns as the longest caption here has
            got = got[:, :int((got != 0).any(-1).any(0).nonzero().max()) + 1]
        return got


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
        self.llm, self.pool, self.layer, self.max_length = llm, pool, llm.pool_layer(pool, layer), max_length
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
        hashes = [hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=15).digest() for t in texts]
        keys = np.array(hashes, "S15").tolist()  # (numpy drops trailing zero bytes, from those in the file too)
        with open(self.file, "ab") as f:
            fcntl.flock(f, fcntl.LOCK_EX)  # another process waits here, then finds the work done
            size = os.fstat(f.fileno()).st_size  # (not f.tell(), which is older than the lock)
            f.truncate(size - size % self.record.itemsize)
            known = set(self._records()["key"].tolist())
            if new := {key: text for key, text in zip(keys, texts) if key not in known}:
                self._embed(list(new), list(new.values()), f)
        records = self._records()
        row = {key: i for i, key in enumerate(records["key"].tolist())}
        rows = [row[key] for key in keys]
        self.cut = float(records["cut"][rows].mean()) if rows else 0.0  # share of these captions that was cut
        return Rows(torch.from_numpy(records["vector"]), torch.tensor(rows, dtype=torch.int64))

    def _records(self):
        """All whole records, memory-mapped: another process may be writing the next one."""
        n = self.file.stat().st_size // self.record.itemsize  # (mode c: torch wants memory that it could write to)
        return np.memmap(self.file, self.record, "c", shape=n) if n else np.empty(0, self.record)

    def _embed(self, keys, texts, f):
        with tqdm(total=len(texts), desc="embedding captions", unit="caption", dynamic_ncols=True, disable=None) as bar:
            for batch, vectors, cut in self.llm.batches(texts, self.pool, self.layer, self.max_length):
                records = np.zeros(len(batch), self.record)
                records["key"] = [keys[i] for i in batch]
                records["cut"] = cut
                vectors = vectors.half().cpu().numpy()
                records["vector"][(slice(None), *map(slice, vectors.shape[1:]))] = vectors  # (tokens: as many as there are)
                if not np.isfinite(records["vector"]).all():
                    raise BadInput(f"the vectors after layer {self.layer} are not finite in float16; choose another "
                                   "--pool or --layer")
                f.write(records.tobytes())
                f.flush()
                bar.update(len(batch))
