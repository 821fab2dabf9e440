"""Images decoded once: any specification -> a folder whose pixels are memory-mapped.

    python -m data.images.pack SPEC OUT --size 224
    python train.py --data OUT --image-size 224

OUT holds, for M records of which N have an image that can be used, at S pixels per side:

    records.jsonl    one line per record: ["dogs/1.jpg", ["a dog on a sofa", "a dog, asleep"]]
    images.u8        (N, S, S, 3) uint8, one image after the other
    index            (M,) of INDEX, 16 bytes each: digest, width and height; digest 0: no image
    skipped.jsonl    one line per record without an image: ["dogs/2.jpg", "no such file"]
    unusable.jsonl   one line per entry that is no record: ["a.csv line 7", "no caption"]
    pack.json        sizes, counts, and the fingerprint of what is packed. It is written last: with
                     it, the folder is whole
    unfinished       there until then: the fingerprint

Packing that was killed goes on where it stopped. Packing done twice writes the same bytes, and a
folder that is whole stays as it is.

read.read_images makes such a folder too, without the captions, in the cache. So a set of images is
decoded once for each size. If a file or the list changes, all are decoded again.
"""

import argparse
import errno
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from data.common import (
    BadInput,
    check_place,
    check_regular,
    exit_status,
    interpreting,
    locked,
    parse_flags,
    printable,
    progress,
    replacing,
    select,
)
from data.images.formats import (
    Columns,
    Record,
    add_column_flags,
    join_by_name,
    name_idle_flags,
    open_spec,
)
from data.images.pixels import MAX_BYTES, image_digest, open_image, to_square

FORMAT = 2  # of the folder, in pack.json

# One entry per record. Width and height are those of the file. Digest 0: there is no image.
INDEX = np.dtype([("digest", np.uint64), ("width", np.uint32), ("height", np.uint32)])

# Records between two points from which packing can go on.
CHUNK = 512

# Errors of the machine and not of one image: packing stops, and can go on later.
MACHINE_ERRORS = (
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
)


# --------------------------------------------------------------------------------------------------
# One image.


class Decoded(NamedTuple):
    pixels: np.ndarray  # (S, S, 3) uint8
    digest: int  # of the file's bytes, never 0
    width: int  # of the file's image
    height: int


def decode(record: Record, root: Path, size: int) -> Decoded | str:
    """Read and decode a record's image, or say in words why it cannot be used.

    An error of the machine is raised: the next attempt may succeed.
    """
    # Read the file's bytes, or the part of a shard.
    path, first, length = record.inside or (root / record.name, 0, None)
    try:
        check_regular(path)
        if length is None:
            length = os.stat(path).st_size
        if length > MAX_BYTES:
            return f"has {length:,} bytes, more than {MAX_BYTES:,}"
        with open(path, "rb") as file:
            file.seek(first)
            content = file.read(length)
    except BadInput:
        return "no regular file"
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:  # ValueError: the name holds a zero byte
        if getattr(error, "errno", None) in MACHINE_ERRORS:
            raise
        return f"cannot be read ({error})"

    try:
        with open_image(io.BytesIO(content)) as image:
            return Decoded(to_square(image, size), image_digest(content) or 1, *image.size)
    except MemoryError:
        raise
    except BadInput as error:
        return str(error)
    except Exception as error:
        # Pillow raises a dozen types of errors for broken files. A message may end with an address
        # in memory, which would make two packs differ. It is cut off.
        return f"cannot be read ({str(error).split(' <')[0]})"


def fingerprint(records: Sequence[Record], root: Path, size: int) -> str:
    """A hash that changes when any of the images does: of names, dates and sizes of the files.

    The files are not read for it.
    """
    h = hashlib.blake2b(json.dumps([FORMAT, size, str(root)]).encode(), digest_size=12)
    last_file, stats = None, []
    for name, _, inside in records:
        file = inside[0] if inside else root / name
        # Records of one shard follow each other: ask once.
        if file != last_file:
            last_file = file
            try:
                status = os.stat(file)
                stats = [status.st_mtime_ns, status.st_ctime_ns, status.st_size]
            except (OSError, ValueError):
                stats = []
        h.update(json.dumps([name, inside, stats]).encode())
    return h.hexdigest()


# --------------------------------------------------------------------------------------------------
# A folder of decoded images, made in steps that a kill or a power cut may interrupt anywhere.


@dataclass
class OpenFiles:
    """The three files that grow while images are decoded."""

    images: BinaryIO
    skipped: BinaryIO
    index: BinaryIO


def decode_all(records: Sequence[Record], root: Path, size: int, folder: Path, job: str) -> None:
    """Decode the images of all records into a folder, or go on where that stopped.

    folder  exists, and this process has its lock (common.locked)
    job     fingerprint of what it is to hold. BadInput if the folder is begun with another one

    The index is written last in every chunk, so a killed process leaves at worst some images and
    reasons that the index does not count yet. They are cut off and made again.
    """
    begun = folder / "unfinished"
    if (folder / "pack.json").is_file():
        # Whole. A kill between the last two steps leaves the mark.
        begun.unlink(missing_ok=True)
        return
    mark(folder, job)
    check_space(len(records), size, folder)

    # Mode "a+" keeps what is there, and writes behind it.
    with (
        open(folder / "images.u8", "a+b") as images,
        open(folder / "skipped.jsonl", "a+b") as skipped,
        open(folder / "index", "a+b") as index,
    ):
        files = OpenFiles(images, skipped, index)
        n_done = cut_to_whole_records(files, size)
        decode_rest(records, n_done, root, size, files)
        # On the disk, and not only on its way there, before pack.json says that all is whole.
        for file in (images, skipped, index):
            os.fsync(file.fileno())
        n_images = os.fstat(images.fileno()).st_size // (size * size * 3)

    counts = {"size": size, "images": n_images, "records": len(records)}
    with replacing(folder / "pack.json") as file:
        file.write(json.dumps({"format": FORMAT, **counts, "job": job}).encode())
    begun.unlink()


def mark(folder: Path, job: str) -> None:
    """Mark a folder as begun. BadInput if it was begun with other images."""
    begun = folder / "unfinished"
    found = begun.read_bytes() if begun.is_file() else b""
    # A kill may have cut the mark off, before there were any images: its beginning is enough.
    if not job.encode().startswith(found):
        raise BadInput(
            f"{folder}: an unfinished pack of other images, or of another size; remove it, or name "
            "another folder"
        )
    # A whole mark stays. Written again and cut off, it would let other images in.
    if found != job.encode():
        begun.write_text(job)


def check_space(count: int, size: int, folder: Path) -> None:
    """BadInput if the disk has no room for the images that are not there yet."""
    images = folder / "images.u8"
    needed = count * size * size * 3
    there = images.stat().st_size if images.is_file() else 0
    free = shutil.disk_usage(folder).free
    if needed - there > free:
        raise BadInput(
            f"{count} images of {size} pixels need {needed / 1e6:,.1f} MB in {folder}, which has "
            f"{free / 1e6:,.1f} MB; choose a smaller size, or pack them where there is room "
            "(python -m data.images.pack SPEC OUT)"
        )


def cut_to_whole_records(files: OpenFiles, size: int) -> int:
    """Cut the three files off behind the last record that all of them have, and count the records.

    The index says of each record whether it has an image or a reason why not. After a power cut the
    index may be on the disk while a part of the other files is not.
    """
    # Count what is whole in each file.
    n_images = files.images.seek(0, os.SEEK_END) // (size * size * 3)
    files.skipped.seek(0)
    reasons = [line for line in files.skipped.read().splitlines(True) if line.endswith(b"\n")]
    n_entries = files.index.seek(0, os.SEEK_END) // INDEX.itemsize
    files.index.seek(0)
    entries = np.frombuffer(files.index.read(n_entries * INDEX.itemsize), INDEX)
    has_image = entries["digest"] > 0

    # Keep the records that all files have.
    n_done = count_whole_records(has_image, n_images, len(reasons))
    n_kept = int(has_image[:n_done].sum())
    files.images.truncate(n_kept * size * size * 3)
    files.skipped.truncate(sum(len(line) for line in reasons[: n_done - n_kept]))
    files.index.truncate(n_done * INDEX.itemsize)
    return n_done


def count_whole_records(has_image: np.ndarray, n_images: int, n_reasons: int) -> int:
    """How many records, from the first one on, have all that the index says they have.

    has_image   (n,) bool: record i has an image in images.u8; otherwise a line in skipped.jsonl
    n_images    how many images are in images.u8, n_reasons how many lines in skipped.jsonl

    >>> index = np.array([True, True, False, True])
    >>> count_whole_records(index, n_images=3, n_reasons=1)   # all is there
    4
    >>> count_whole_records(index, n_images=3, n_reasons=0)   # record 2 has lost its reason
    2
    >>> count_whole_records(index, n_images=1, n_reasons=1)   # record 1 has lost its image
    1
    """
    images_needed = np.cumsum(has_image)  # (n,) by the records up to this one: 1 2 2 3
    reasons_needed = np.cumsum(~has_image)  # 0 0 1 1
    is_whole = (images_needed <= n_images) & (reasons_needed <= n_reasons)
    return int(is_whole.sum())


def decode_rest(
    records: Sequence[Record], n_done: int, root: Path, size: int, files: OpenFiles
) -> None:
    """Decode records[n_done:] with one thread per core, and write chunk after chunk."""
    bar = progress(description="decoding images", unit="image", total=len(records), initial=n_done)
    with bar, ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(n_done, len(records), CHUNK):
            chunk = records[start : start + CHUNK]
            entries = np.zeros(len(chunk), INDEX)
            results = threads.map(lambda record: decode(record, root, size), chunk)
            for i, result in enumerate(results):
                if isinstance(result, Decoded):
                    files.images.write(result.pixels.tobytes())
                    entries[i] = (result.digest, result.width, result.height)
                else:
                    files.skipped.write(json_line([chunk[i].name, result]))
                bar.update()
            # The index last: what it counts is there.
            files.images.flush()
            files.skipped.flush()
            files.index.write(entries.tobytes())
            files.index.flush()


def json_line(value: object) -> bytes:
    """One line of a .jsonl file. Texts may hold halves of Unicode pairs (surrogates)."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


# --------------------------------------------------------------------------------------------------
# A whole folder.


class Packed(NamedTuple):
    """What decode_all left in a folder."""

    images: np.ndarray  # (N, S, S, 3) uint8, memory-mapped
    index: np.ndarray  # (M,) of INDEX
    skipped: list[list[str]]  # [name, reason] of the records without an image
    job: str  # fingerprint of what was packed


def open_folder(folder: Path) -> Packed:
    """Open a folder that decode_all finished. BadInput if it is damaged."""
    with interpreting(folder / "pack.json"):
        content = json.loads((folder / "pack.json").read_text())
        if content["format"] != FORMAT:
            raise BadInput(
                "packed by another version of this project; remove the folder and pack again "
                "(python -m data.images.pack)"
            )
        size, n_images, n_records = content["size"], content["images"], content["records"]
        job = content["job"]
        if not all(type(number) is int for number in (size, n_images, n_records)):
            raise ValueError("its size and counts are no whole numbers")
    with interpreting(folder):
        for name, wanted in (
            ("images.u8", n_images * size * size * 3),
            ("index", n_records * INDEX.itemsize),
        ):
            found = (folder / name).stat().st_size
            if found != wanted:
                raise BadInput(
                    f"{name} has {found} bytes, not {wanted}; remove the folder and begin again"
                )

        # An empty file cannot be memory-mapped.
        images, index = np.empty(0, np.uint8), np.empty(0, INDEX)
        if n_images:
            images = np.memmap(folder / "images.u8", np.uint8, "r")
        if n_records:
            index = np.memmap(folder / "index", INDEX, "r")
        if (index["digest"] > 0).sum() != n_images:
            raise BadInput(
                f"index counts other than {n_images} images; remove the folder and begin again"
            )

        skipped = []
        for line in (folder / "skipped.jsonl").read_bytes().splitlines():
            name, reason = json.loads(line)
            skipped.append([name, reason])
    return Packed(images.reshape(n_images, size, size, 3), index, skipped, job)


def are_texts(captions: object) -> bool:
    """Is it a list of one text or more?"""
    is_list = isinstance(captions, list) and len(captions) > 0
    return is_list and all(isinstance(caption, str) for caption in captions)


def read_records(folder: Path) -> list[Record]:
    """The records of a pack. BadInput if they are damaged."""
    records = []
    path = folder / "records.jsonl"
    with interpreting(path), open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            name, captions = json.loads(line)
            if not isinstance(name, str) or not are_texts(captions):
                raise BadInput(f"line {number} is no name with a list of captions; pack again")
            records.append(Record(name, captions))
    return records


def pack(
    spec: str,
    out: str | Path,
    size: int,
    split: str = "train",
    columns: Columns = Columns(),  # noqa: B008  (it is frozen)
) -> tuple[Packed, list[tuple[str, str]]]:
    """Pack one split of a specification into the folder `out`, or go on with it.

    A folder that is whole stays as it is. Returns what is in it, and (name, reason) of each entry
    that is no record. BadInput if nothing can be used, or if the folder holds something else.
    """
    out = Path(out)
    unusable = []
    source = open_spec(spec, split, unusable, columns)
    records = join_by_name(source.records)
    name_idle_flags(spec, source.description, source.follows, columns)
    if not records:
        message = f"{spec}: {source.description}, but nothing in it can be used"
        if unusable:
            name, reason = unusable[0]
            message += (
                f"; the first of {len(unusable)} entries: {printable(name)}: {printable(reason)}"
            )
        raise BadInput(message)
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file; name a folder to make")

    job = fingerprint(records, source.root, size)
    with locked(out):
        if (out / "pack.json").is_file():
            difference = difference_of(out, records, size, job)
            if difference:
                raise BadInput(
                    f"{out}: a finished pack of other images: {difference}; remove it, or name "
                    "another folder"
                )
        else:
            if any(out.iterdir()) and not (out / "unfinished").is_file():
                raise BadInput(f"{out} is not empty; remove it, or name another folder")
            mark(out, job)
            write_lines(out / "unusable.jsonl", unusable)
            write_lines(out / "records.jsonl", [record[:2] for record in records])
        decode_all(records, source.root, size, out, job)
    return open_folder(out), unusable


def difference_of(folder: Path, records: Sequence[Record], size: int, job: str) -> str:
    """What a finished pack has that is not asked for, in words. "": nothing."""
    packed = open_folder(folder)
    found = read_records(folder)
    # A pack without images does not know their size. Its fingerprint does.
    if len(packed.images) and packed.images.shape[1] != size:
        return f"they have {packed.images.shape[1]} pixels, not {size}"
    if len(found) != len(records):
        return f"there are {len(found)}, not {len(records)}"
    for number, (old, new) in enumerate(zip(found, records, strict=True), 1):
        if old.name != new.name:
            return f"number {number} is {printable(old.name)}, not {printable(new.name)}"
        if old.captions != new.captions:
            return f"the captions of {printable(old.name)} have changed"
    if packed.job != job:
        return "their files have changed, or lie in another folder"
    return ""


def write_lines(path: Path, values: Iterable) -> None:
    with open(path, "wb") as file:
        for value in progress(values, description=f"writing {path.name}", unit="line"):
            file.write(json_line(value))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Decode images once into a folder that train.py and eval.py read without "
        "decoding.",
        usage="python -m data.images.pack SPEC OUT [--flag value ...]   (--help lists the flags)",
    )
    parser.add_argument("data", help="as train.py's --data")
    parser.add_argument("out", help="folder to make; an unfinished one is continued")
    parser.add_argument(
        "--size",
        type=int,
        default=224,
        help="side of the images in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        default="train",
        choices=["train", "test"],
        help="of a file that has splits",
    )
    add_column_flags(parser)
    args = parse_flags(parser)
    if args.size < 1:
        raise BadInput(f"--size {args.size} is out of range; it is at least 1")

    columns = select(Columns, vars(args))
    was_finished = (Path(args.out) / "pack.json").is_file()
    if not was_finished:
        check_place("the pack", args.out)
    packed, unusable = pack(args.data, args.out, args.size, args.split, columns)
    n_images, n_skipped = len(packed.images), len(packed.skipped)
    for name, reason in (unusable + packed.skipped)[:5]:
        print(f"skipped {printable(name)}: {printable(reason)}", file=sys.stderr)
    if not n_images:
        name, reason = packed.skipped[0]
        raise BadInput(
            f"{args.data}: none of its {n_skipped} images can be used; the first: "
            f"{printable(name)}: {printable(reason)}; remove {args.out}"
        )
    packed_when = "were packed before, and are the same" if was_finished else "packed"
    list_of_skipped = f", the images listed in {args.out}/skipped.jsonl" if n_skipped else ""
    print(
        f"{args.out}: {n_images} images of {args.size} pixels {packed_when}; {len(unusable)} "
        f"entries and {n_skipped} images skipped{list_of_skipped}; next: python train.py --data "
        f"{args.out} --image-size {args.size}"
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
