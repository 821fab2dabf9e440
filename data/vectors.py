"""Vectors that a frozen tower made once: the idea of this project, and its only cache of vectors.

A tower that is not trained gives the same vector whenever it reads the same caption or image. So it
reads each of them once, and the vector is kept on disk. From then on a caption *is* its vector.

One kind of file serves all (VectorStore). It is an array of records that grows at its end:

    | key       | flag   | vector                    | key       | flag   | vector          | ...
    | 15 bytes  | 1 byte | shape x 2 or 4 bytes      |           |        |                 |
    |<------------------ record 0 ----------------->|<------------- record 1 ------------->|

    user            tower               folder     key: hash of       flag: true if   vector
    CaptionVectors  language model      captions/  caption            it was cut      (D,), (L, D)
                                                                                      float16
    read_views      image tower         views/     image's number     (not used)      (V, D) float32
    folder_vectors  image tower + head  search/    name, times and    it cannot be    (D,) float32
                                                   size of the file   read

(L, D) is one vector per token, and (V, D) one per view.

The folders lie in $LIFT_CACHE (default ~/.cache/lift). A file is named after a fingerprint, a hash
of everything else that decides the vectors: weights, tokenizer, pooling, crops, seed. So another
tower has another file, and an old file is never wrong.

OutsideVectors is for vectors that somebody else's tower made.

On a first reading, skip `folder_vectors`, `OutsideVectors`, and what `fill` does for processes.
Letters of shapes: N captions or images, B those of a batch, D length of a vector, L tokens, V views
of an image, M records of a file.
"""

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import processes
from data.common import (
    BadInput,
    cache_dir,
    check_regular,
    chunks,
    interpreting,
    printable,
    progress,
    to_device,
)

# --------------------------------------------------------------------------------------------------
# The file.


def key_of(text: str) -> bytes:
    """15 bytes that stand for a text. The text may hold halves of Unicode pairs (surrogates)."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=15).digest()


class VectorStore:
    """A file of records (key, flag, vector), to which missing ones are added. See above.

    shape, dtype  of one vector

    A process that is killed leaves at worst a part of a record. The next one cuts it off and goes
    on from there. Two runs may share a file: one writes, the other waits, then finds the work done.
    The processes of one run share the work. Each writes a file of its own, and process 0 joins
    these at the end (data/processes.py).
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type[np.floating]):
        self.path = path
        self.record = np.dtype([("key", "V15"), ("flag", "?"), ("vector", dtype, shape)])

    def records(self) -> np.ndarray:
        """All whole records (M,), memory-mapped. Another process may be writing the next one."""
        size = self.path.stat().st_size if self.path.exists() else 0
        count = size // self.record.itemsize
        if not count:
            return np.empty(0, self.record)
        # Mode "c" means copy on write. torch wants memory that it could write to.
        return np.memmap(self.path, self.record, "c", shape=count)

    def fill(
        self,
        keys: Sequence[bytes],
        make: Callable[[np.ndarray], Iterable[tuple[np.ndarray, np.ndarray, Sequence[bool]]]],
        description: str,
        unit: str,
    ) -> int:
        """See to it that every key has a record, and return how many were missing.

        BadInput where processes of one run do not see the same file, as on machines that share no
        folder.

        make  is called with the missing keys' places in `keys`, each key once and in order. It
              yields (places, vectors, flags) of some of them at a time, as soon as they are made.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rank = processes.rank()
        with open(self.path, "ab") as whole:
            # Process 0 keeps other runs out. Closing the file opens the lock.
            if rank == 0:
                fcntl.flock(whole, fcntl.LOCK_EX)
                self._join(whole)  # what a killed run has left
            processes.wait()  # for process 0

            known = set(self.records()["key"].tolist())
            missing = []
            for place, key in enumerate(keys):
                if key not in known:
                    known.add(key)
                    missing.append(place)
            processes.wait()  # until all have looked: now they may write
            if not missing:
                return 0

            # Where no bar shows, say what takes long. A few are made in seconds.
            if len(missing) > 5000 and rank == 0 and not sys.stderr.isatty():
                print(f"{description}: {len(missing)} are not in the cache", file=sys.stderr)
            mine = np.array_split(np.array(missing, np.int64), processes.count())[rank]
            own_path = self.path if rank == 0 else self._part(rank)
            with (
                open(own_path, "ab") as own,
                progress(description=description, unit=unit, total=len(mine)) as bar,
            ):
                for places, vectors, flags in make(mine) if len(mine) else ():
                    records = np.zeros(len(places), self.record)
                    records["key"] = np.array([keys[place] for place in places], "V15")
                    records["flag"] = flags
                    records["vector"] = vectors
                    own.write(records.tobytes())
                    own.flush()
                    bar.update(len(places))

            processes.wait()  # until all have written
            if rank == 0:
                self._join(whole)
            processes.wait()  # until all records are in one file
        if len(self.records()) < len(known):
            raise BadInput(
                f"{self.path} lacks what other processes have written; set LIFT_CACHE to a folder "
                "that all machines share"
            )
        return len(missing)

    def _part(self, rank: int | str) -> Path:
        """The file that a process other than 0 writes to."""
        return self.path.with_suffix(f".{rank}.part")

    def _join(self, whole: BinaryIO) -> None:
        """Cut off what is no whole record, and add the other processes' files at the end."""
        size = os.fstat(whole.fileno()).st_size
        whole.truncate(size - size % self.record.itemsize)
        for path in sorted(self.path.parent.glob(self._part("*").name)):
            with open(path, "rb") as part:
                # The last record may not be whole.
                while records := part.read(10_000 * self.record.itemsize):
                    whole.write(records[: len(records) - len(records) % self.record.itemsize])
            whole.flush()
            path.unlink()

    def read(self, keys: Sequence[bytes]) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """N keys, all of which have a record -> vectors, rows, flags.

        vectors  (M, *shape) of all records, memory-mapped: only what is indexed is read
        rows     (N,) int64: vectors[rows[i]] is the vector of keys[i]
        flags    (N,) bool
        """
        records = self.records()
        row_of = {key: row for row, key in enumerate(records["key"].tolist())}
        rows = np.array([row_of[key] for key in keys], np.int64)
        return torch.from_numpy(records["vector"]), rows, records["flag"][rows]


# --------------------------------------------------------------------------------------------------
# Captions.


class StoredRows:
    """Some rows of a memory-mapped table, read when they are asked for: rows[which] -> (n, ...).

    has_padding  the rows are token vectors (L, D) with zeros behind a caption's last token. Columns
                 that are zero in all rows asked for are left out.
    """

    def __init__(self, table: Tensor, rows: Tensor, has_padding: bool = False):
        self.table = table
        self.rows = rows
        self.has_padding = has_padding

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Tensor) -> Tensor:
        read = self.table[self.rows[which]]
        if self.has_padding and len(read):
            is_used = (read != 0).any(-1).any(0)  # (L,)
            read = read[:, : int(is_used.nonzero().max()) + 1]
        return read


class CaptionVectors:
    """Text reader of the kinds "vectors" and "tokens": the frozen language model reads once.

    llm             llm_text.FrozenLLM
    pool, layer     how hidden states become a vector, after which block (None: the pooling's own)
    context_length  tokens at most; what is longer is cut
    folder          where the file lies, in place of the cache

    In training these rows stand for the language model: it does not run any more. Vectors are
    kept in float16: a caption of the default model then takes 1.2 kB.
    """

    def __init__(
        self,
        llm,
        pool: str = "mean",
        layer: int | None = None,
        context_length: int = 77,
        folder: str | Path | None = None,
    ):
        self.llm = llm
        self.pool = pool
        self.layer = llm.pool_layer(pool, layer)
        self.context_length = context_length
        self.frozen_parameters = llm.n_parameters

        settings = json.dumps(llm.settings(pool, self.layer, context_length), sort_keys=True)
        self.fingerprint = hashlib.blake2b(settings.encode(), digest_size=12).hexdigest()
        path = Path(folder or cache_dir() / "captions") / f"{self.fingerprint}.records"
        shape = (context_length, llm.width) if pool == "tokens" else (llm.width,)
        self.store = VectorStore(path, shape, np.float16)

    def read(self, texts: Sequence[str]) -> tuple[StoredRows, float]:
        """N texts -> their vectors as N rows, and the share of texts that were cut.

        What is not in the file is read by the language model first, with a progress bar.
        """
        keys = [key_of(text) for text in texts]

        def make(missing):
            # The model turns all texts that it is given into tokens before it reads the first one.
            # So it gets 100,000 at a time.
            for places in chunks(missing, 100_000):
                some = [texts[place] for place in places]
                for batch, vectors, was_cut in self.llm.batches(
                    some, self.pool, self.layer, self.context_length
                ):
                    yield places[batch], self._to_record(vectors), was_cut

        self.store.fill(keys, make, description="reading captions", unit="caption")
        vectors, rows, was_cut = self.store.read(keys)
        cut_share = float(was_cut.mean()) if len(texts) else 0.0
        return StoredRows(vectors, torch.from_numpy(rows), self.pool == "tokens"), cut_share

    def still_matches(self, fingerprint: str) -> bool:
        """Are the vectors those that had this fingerprint?"""
        return self.fingerprint == fingerprint

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N texts -> vectors (N, D), or (N, L, D) with pool "tokens"; float16, on the CPU."""
        rows, _ = self.read(texts)
        return rows[:]

    def _to_record(self, vectors: Tensor) -> np.ndarray:
        """float32 vectors of a batch -> float16, filled up with zeros to context_length tokens."""
        vectors = vectors.half().cpu()
        if not vectors.isfinite().all():
            raise BadInput(
                f"the vectors after block {self.layer} are not finite in float16; choose another "
                "--pool or --layer"
            )
        if self.pool == "tokens":
            # Where the batch was padded further than that, this cuts its zeros off.
            vectors = F.pad(vectors, (0, 0, 0, self.context_length - vectors.shape[1]))
        return vectors.numpy()


# --------------------------------------------------------------------------------------------------
# Images that a frozen tower sees.


class ImageViews:
    """Image inputs of a frozen image tower: (indices (B,), step) -> vectors (B, D).

    With `rows` only these rows of the batch are taken.

    vectors      (N, V, D): V views of each image. In every step one of them is drawn anew.
    fingerprint  of what made them
    """

    def __init__(self, vectors: Tensor, fingerprint: str, seed: int, device: torch.device):
        self.vectors = vectors
        self.fingerprint = fingerprint
        self.seed = seed
        self.device = device

    def __call__(self, indices: np.ndarray, step: int, rows: slice = slice(None)) -> Tensor:
        # The 1 keeps this stream apart from that of an epoch's order, which is (seed, epoch). A 0
        # would not: numpy ignores zeros at the end.
        rng = np.random.default_rng((self.seed, step, 1))
        view = rng.integers(self.vectors.shape[1], size=len(indices))  # (B,)
        return to_device(self.vectors[indices[rows], view[rows]], self.device)


def read_views(
    tower: nn.Module,
    crops: Callable[[np.ndarray, int], Tensor],
    digests: np.ndarray,
    n_views: int,
    settings: list,
    seed: int,
    device: torch.device,
) -> ImageViews:
    """Let a frozen image tower read n_views random crops of each image, once.

    tower     the tower; tower.width is D
    crops     (indices of images, step) -> crops (B, 3, S, S) on the device (data/batches.py)
    digests   (N,) uint64, one per image
    settings  what else decides the crops; together with tower and digests it makes the fingerprint
    seed      of the draw in training
    """
    h = hashlib.blake2b(digest_size=12)
    for name, tensor in tower.state_dict().items():
        h.update(name.encode() + tensor.cpu().numpy().tobytes())
    # The 3 is the version of what is done here: raise it when other vectors come from the same.
    h.update(json.dumps([3, *settings]).encode() + digests.tobytes())
    fingerprint = h.hexdigest()
    N = len(digests)

    def make(missing):
        # A crop depends on its place in its batch, so batches always begin at the same images. A
        # batch that an earlier process did not finish is read again as a whole. Of it only the
        # missing vectors are kept.
        is_missing = np.zeros(N, bool)
        is_missing[missing] = True
        for start in range(0, N, 256):
            batch = np.arange(start, min(start + 256, N))
            new = is_missing[batch]
            if not new.any():
                continue
            views = []
            for v in range(n_views):
                # start * n_views + v is a number that no other view and batch has. It stands in the
                # place of a step.
                with torch.no_grad():
                    views.append(tower(crops(batch, start * n_views + v)).float().cpu())
            vectors = torch.stack(views, dim=1)  # (B, V, D)
            yield batch[new], vectors[new].numpy(), np.zeros(new.sum(), bool)

    path = cache_dir() / "views" / f"{fingerprint}.records"
    store = VectorStore(path, (n_views, tower.width), np.float32)
    keys = [key_of(str(i)) for i in range(N)]
    store.fill(keys, make, description="reading images", unit="image")
    # A file that one process filled is in order: record i is image i, and its vectors are used as
    # they lie on the disk. A file that was damaged, or that several processes filled, has another
    # order. Then all vectors are copied into memory, in the order of the images.
    vectors, rows, _ = store.read(keys)
    if not np.array_equal(rows, np.arange(len(vectors))):
        vectors = vectors[rows]
    return ImageViews(vectors, fingerprint, seed, device)


def folder_vectors(
    folder: Path, image_size: int, embed: Callable, width: int, model_path: Path
) -> tuple[list[Path], Tensor]:
    """The images under a folder, for search -> (paths of N images, vectors (N, width) float32).

    embed       CaptionedImages -> vectors (n, width)
    model_path  the file that embed's weights come from: its bytes are part of the fingerprint

    Only what is new or changed is read. An image that cannot be read is not tried again until its
    file changes. The first five are named when they are tried. BadInput if there is no image, or
    none that can be read.
    """
    # Imported here, so that `lift.load` does not load the readers of images.
    from data.images.formats import SUFFIXES
    from data.images.read import decode_files

    names = []
    keys = []
    for path in sorted(folder.rglob("*")):
        # macOS puts a file ._1.jpg beside 1.jpg.
        is_image = path.suffix.lower() in SUFFIXES and not path.name.startswith("._")
        if is_image and path.is_file():
            name, stat = str(path.relative_to(folder)), path.stat()
            names.append(name)
            keys.append(
                key_of(json.dumps([name, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size]))
            )
    if not names:
        raise BadInput(f"{folder}: no folder with images (looked for {', '.join(SUFFIXES)})")

    named = set()  # of what cannot be read; the reason is known when it is tried, and not later

    def make(missing):
        images, unreadable = decode_files([names[place] for place in missing], folder, image_size)
        place_of = {names[place]: place for place in missing}
        if len(images):
            places = np.array([place_of[name] for name in images.names])
            yield places, embed(images).numpy(), np.zeros(len(places), bool)
        for name, reason in unreadable[:5]:
            print(f"skipped {printable(name)}: {printable(reason)}", file=sys.stderr)
            named.add(name)
        if unreadable:
            places = np.array([place_of[name] for name, _ in unreadable])
            yield places, np.zeros((len(places), width)), np.ones(len(places), bool)

    h = hashlib.blake2b(model_path.read_bytes(), digest_size=12)
    h.update(str(folder.resolve()).encode("utf-8", "surrogateescape"))
    store = VectorStore(cache_dir() / "search" / f"{h.hexdigest()}.records", (width,), np.float32)
    n_new = store.fill(keys, make, description="reading images", unit="image")

    vectors, rows, is_unreadable = store.read(keys)
    readable = np.flatnonzero(~is_unreadable)
    for place in np.flatnonzero(is_unreadable)[:5]:
        if names[place] not in named:
            print(f"skipped {printable(names[place])}: it could not be read", file=sys.stderr)
    if not len(readable):
        raise BadInput(f"{folder}: none of its {len(names)} images can be read")
    print(
        f"{folder}: {len(readable)} images, {len(names) - len(readable)} more cannot be read; "
        f"read now: {n_new}",
        file=sys.stderr,
    )
    return [folder / names[place] for place in readable], vectors[rows[readable]]


# --------------------------------------------------------------------------------------------------
# Vectors from outside.


class OutsideVectors:
    """Vectors that somebody else's tower made: FILE.npy, and FILE.txt whose line i names row i.

    ndim  the array's dimensions; None allows 2 and 3

    A row belongs to a caption and is named by its words, or to an image and is named by its path,
    as `python -m data.images.read` lists it. Rows are found by name, so their order does not
    matter. A row is one vector (D,), or one per view (V, D), or one per token (L, D) with zeros
    behind the last. For captions, this class is a text reader like CaptionVectors.
    """

    frozen_parameters = 0  # nobody knows

    def __init__(self, path: str | Path, ndim: int | None = None):
        self.path = path
        names_path = Path(path).with_suffix(".txt")
        for file in (path, names_path):
            check_regular(file)
        with interpreting(path):
            self.vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(self.vectors, np.ndarray):
                raise BadInput("not one array; save it with numpy.save")
        with interpreting(names_path):
            text = names_path.read_text("utf-8-sig", "surrogatepass")
            lines = text.removesuffix("\n").split("\n")

        wanted = (2, 3) if ndim is None else (ndim,)
        is_float = self.vectors.dtype.kind == "f"
        if self.vectors.ndim not in wanted or not is_float or len(lines) != len(self.vectors):
            in_dimensions = "" if ndim is None else f" in {ndim} dimensions"
            raise BadInput(
                f"{path}: {self.vectors.dtype} of shape {self.vectors.shape} for the {len(lines)} "
                f"lines of {names_path}; floating-point vectors{in_dimensions} are wanted, one row "
                "per line"
            )
        self.row_of = {line: i for i, line in enumerate(lines)}
        if len(self.row_of) < len(lines):
            raise BadInput(f"{names_path} has the same line twice; a name stands for one row")

    @cached_property
    def fingerprint(self) -> str:
        """The number of rows, and a hash of all names and vectors."""
        return self.fingerprint_of(len(self.vectors))

    def fingerprint_of(self, n_rows: int) -> str:
        """The fingerprint that the file had when it ended after n_rows rows."""
        names = list(self.row_of)[:n_rows]  # in the order of the rows
        h = hashlib.blake2b(json.dumps([self.vectors.dtype.str, names]).encode(), digest_size=12)
        for rows in chunks(self.vectors[:n_rows]):
            h.update(rows.tobytes())
        return f"{n_rows} {h.hexdigest()}"

    def still_matches(self, fingerprint: str) -> bool:
        """Did the file have this fingerprint? More rows may have been added since."""
        n_rows, *_ = fingerprint.split() or [""]
        return n_rows.isdecimal() and self.fingerprint_of(int(n_rows)) == fingerprint

    def __call__(self, names: Sequence[str]) -> Tensor:
        """N names -> their rows, (N, ...) float32. BadInput for a name without a usable row."""
        missing = [name for name in names if name not in self.row_of]
        if missing:
            raise BadInput(
                f"{self.path} has no row for {missing[0]!r} ({len(missing)} of {len(names)} are "
                "missing); python -m data.images.read SPEC lists the names of images that are "
                "needed, and with --texts the captions"
            )
        rows = np.array(self.vectors[[self.row_of[name] for name in names]], np.float32)
        numbers = rows.reshape(len(rows), -1)
        is_usable = np.isfinite(numbers).all(1) & numbers.any(1)
        if not is_usable.all():
            bad = names[int(is_usable.argmin())]
            raise BadInput(f"{self.path}: row {bad!r} is not finite, or all zero")
        return torch.from_numpy(rows)

    def read(self, texts: Sequence[str]) -> tuple[Tensor, float]:
        """N texts -> their rows, and the share of texts that were cut, which nobody knows: 0."""
        return self(texts), 0.0


def outside_views(
    path: str | Path, names: Sequence[str], seed: int, device: torch.device
) -> ImageViews:
    """The vectors of images by name, from a file (N, D), or (N, V, D) with V views of each."""
    outside = OutsideVectors(path)
    vectors = outside(names)
    if vectors.ndim == 2:
        vectors = vectors[:, None]  # one view
    return ImageViews(vectors, outside.fingerprint, seed, device)
