"""Vectors that a frozen tower made once."""

import fcntl
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.batches import Crops, on_device
from data.common import BadInput, cache_dir, interpreting, printable
from data.files.runs import load_tensors, save_tensors
from data.images.formats import SUFFIXES
from data.images.pack import locked
from data.images.read import decode_files


class StoredRows:
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


class CaptionVectors:
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
        """DistinctCaptions -> vectors (N, ...) float16, on the CPU; what is not cached is embedded first, with a bar."""
        return self.rows(texts)[:]

    def rows(self, texts):
        """DistinctCaptions -> StoredRows, one a text."""
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
        return StoredRows(torch.from_numpy(records["vector"]), torch.from_numpy(rows))

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


class OutsideVectors:
    """Vectors that somebody else's encoder made: FILE.npy, and beside it FILE.txt whose line i names row i.

    A row is a caption's vector, named by its words, or a picture's, named by its path as `python -m data.images.read` lists
    it; of (D,), or with one vector a view (V, D), or one a token (L, D), zeros after the last. Looked up by name, so
    no order can go wrong. Called with names, it gives their rows, (N, ...) float32.
    """

    cut, frozen_parameters = 0.0, 0

    def __init__(self, path, ndim=None):
        names = Path(path).with_suffix(".txt")
        with interpreting(path):
            self.vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(self.vectors, np.ndarray):
                raise BadInput("not one array; save it with numpy.save")
        with interpreting(names):
            lines = names.read_text("utf-8", "surrogatepass").removesuffix("\n").split("\n")
        if (
            self.vectors.ndim not in ((ndim,) if ndim else (2, 3))
            or self.vectors.dtype.kind != "f"
            or len(lines) != len(self.vectors)
        ):
            raise BadInput(
                f"{path}: {self.vectors.dtype} of shape {self.vectors.shape} for the {len(lines)} lines of {names}; "
                f"floating-point vectors{f' in {ndim} dimensions' if ndim else ''} are wanted, one row a line"
            )
        self.path, self.row = path, {line: i for i, line in enumerate(lines)}
        if len(self.row) < len(lines):
            raise BadInput(f"{names} has the same line twice; a name stands for one row")
        first = [self.vectors[:100].tobytes(), *lines[:100]]  # more rows may be added later
        self.fingerprint = hashlib.blake2b(
            repr(first).encode("utf-8", "surrogatepass"), digest_size=12
        ).hexdigest()

    def __call__(self, names):
        if missing := [name for name in names if name not in self.row]:
            raise BadInput(
                f"{self.path} has no row for {missing[0]!r} ({len(missing)} of {len(names)} are missing); the "
                "names that are needed: python -m data.images.read SPEC"
            )
        rows = np.array(self.vectors[[self.row[name] for name in names]], np.float32)
        bad = ~np.isfinite(rows).reshape(len(rows), -1).all(1) | ~rows.reshape(len(rows), -1).any(1)
        if bad.any():
            raise BadInput(
                f"{self.path}: row {names[int(bad.argmax())]!r} is not finite, or all zero"
            )
        return torch.from_numpy(rows)

    rows = __call__


class ImageViews:
    """CaptionedImages for an image tower that is frozen: (indices, step) -> (B, D), one of several vectors of each, drawn anew.

    The tower reads --image-views crops of each picture once, into a file in the cache; or --image-features has them.
    """

    def __init__(self, pictures, cfg, device, tower):
        self.seed, self.device, what = cfg.seed, device, hashlib.blake2b(digest_size=12)
        if cfg.image_features:
            named = OutsideVectors(cfg.image_features)
            self.vectors, self.fingerprint = named(pictures.names), named.fingerprint
            if self.vectors.ndim == 2:  # one view
                self.vectors = self.vectors[:, None]
            return
        views = cfg.image_views if cfg.crop_scale < 1 else 1  # without crops all are the same
        for name, tensor in tower.state_dict().items():
            what.update(name.encode() + tensor.cpu().numpy().tobytes())
        what.update(
            json.dumps([3, cfg.model, views, cfg.crop_scale, cfg.image_size, cfg.seed]).encode()
            + pictures.digests.tobytes()
        )
        self.fingerprint = what.hexdigest()
        shape, path = (
            (len(pictures), views, tower.width),
            cache_dir() / "views" / f"{self.fingerprint}.f32",
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            look, part = Crops(pictures, cfg, device), path.with_suffix(f".{os.getpid()}.part")
            try:
                with open(
                    part, "wb"
                ) as f:  # (not through a memory map: a full disk would kill the process)
                    for i in tqdm(
                        range(0, len(pictures), 256),
                        desc="reading pictures",
                        unit="batch",
                        dynamic_ncols=True,
                        disable=None,
                    ):
                        which = np.arange(i, min(i + 256, len(pictures)))
                        with torch.no_grad():
                            seen = [
                                tower(look(which, i * views + v)).float().cpu()
                                for v in range(views)
                            ]
                        f.write(torch.stack(seen, dim=1).numpy().tobytes())
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
        self.vectors = torch.from_numpy(np.memmap(path, np.float32, "c", shape=shape))

    def __call__(self, which, step):
        view = np.random.default_rng((self.seed, step, 1)).integers(
            self.vectors.shape[1], size=len(which)
        )
        return on_device(self.vectors[which, view], self.device)  # (B, D)


def folder_vectors(folder, image_size, embed, model):
    """(paths, vectors (N, D)) of the pictures under a folder, made by embed(CaptionedImages) -> (n, D).

    They are kept in the cache, by the bytes of the file `model`: only what is new or changed is read again.
    """
    files = {
        str(p.relative_to(folder)): [p.stat().st_mtime_ns, p.stat().st_ctime_ns, p.stat().st_size]
        for p in sorted(folder.rglob("*"))
        if p.suffix.lower() in SUFFIXES and p.is_file()
    }
    if not files:
        raise BadInput(f"{folder}: no folder with pictures (looked for {', '.join(SUFFIXES)})")
    key = hashlib.blake2b(
        model.read_bytes() + str(folder.resolve()).encode(), digest_size=12
    ).hexdigest()
    with locked(cache_dir() / "search") as place:
        kept = place / f"{key}.pt"
        known = load_tensors(kept) if kept.is_file() else {}
        new = [name for name, stat in files.items() if name not in known or known[name][0] != stat]
        if new:
            pictures, unusable = decode_files(new, folder, image_size)
            known |= {
                name: [files[name], None] for name in new
            }  # what cannot be read is not tried again until it changes
            known |= {
                name: [files[name], vector]
                for name, vector in zip(pictures.names, embed(pictures) if len(pictures) else [])
            }
            for name, reason in unusable[:5]:
                print(f"skipped {printable(name)}: {printable(reason)}", file=sys.stderr)
            save_tensors({name: known[name] for name in files}, kept)
    names = [name for name in files if known[name][1] is not None]
    if not names:
        raise BadInput(f"{folder}: none of its {len(files)} pictures can be read")
    print(
        f"{folder}: {len(names)} pictures, {len(files) - len(names)} more cannot be read; read now: {len(new)}",
        file=sys.stderr,
    )
    return [folder / name for name in names], torch.stack([known[name][1] for name in names])
