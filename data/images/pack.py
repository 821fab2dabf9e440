"""CaptionedImages decoded once: any specification -> a folder that trains at once, from memory-mapped pixels.

    python -m data.images.pack SPEC OUT --size 224

OUT holds pictures.jsonl (a record a line), images.u8 (N, S, S, 3), index (16 bytes a record), skipped.jsonl and
unusable.jsonl (what is left out, and why), and pack.json, which is written last. Killed and begun again, packing goes on
where it stopped; done twice, it writes the same bytes. The same folder, without the captions, is what readers.read_images makes
under the cache for pictures that nobody packed.
"""

import argparse
import errno
import hashlib
import io
import json
import os
import shutil
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.common import BadInput, interpreting, locked, printable, run
from data.images.formats import COLUMNS, open_spec
from data.images.pixels import FORMATS, digest, to_square
from data.images.records import gather, line

CHUNK = 512  # pictures between two points from which packing can go on
INDEX = np.dtype(
    [("digest", np.uint64), ("width", np.uint32), ("height", np.uint32)]
)  # of the picture as it was; digest 0: skipped
PASSING = (
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
)  # the machine's fault, not the picture's
MAX_PIXELS = 100_000_000  # more is a mistake or a bomb: a small file can claim any size
warnings.filterwarnings(
    "ignore", category=Image.DecompressionBombWarning
)  # (Pillow's own, for less than that)


def decode(record, root, size):
    """(pixels (S, S, 3) uint8, digest, width, height) of a record's picture, or the reason why there are none."""
    name, _, *inside = record
    try:
        if inside:
            file, offset, length = inside
            with open(file, "rb") as f:
                f.seek(offset)
                content = f.read(length)
        else:
            content = (root / name).read_bytes()
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:  # (ValueError: a NUL in the path)
        if getattr(error, "errno", None) in PASSING:
            raise
        return f"cannot be read ({error})"
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS // 10**6} million"
            return to_square(image, size), digest(content) or 1, *image.size
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # Pillow raises a dozen types for a broken file; each is this picture's fault
        return f"cannot be read ({str(error).split(' <')[0]})"  # (not an object's address in memory: two packs would differ)


def fingerprint(records, root, size):
    """A hash that changes when any of the pictures does: of names, dates and sizes, not of what is in the files."""
    stats, h = {}, hashlib.blake2b(json.dumps([3, size, str(root)]).encode(), digest_size=12)
    for name, _, *inside in records:
        file = inside[0] if inside else root / name
        if file not in stats:
            try:
                s = os.stat(file)
                stats = {
                    file: [s.st_mtime_ns, s.st_ctime_ns, s.st_size]
                }  # (the last only: shards come in a row)
            except (OSError, ValueError):
                stats = {file: []}
        h.update(json.dumps([name, inside, stats[file]]).encode())
    return h.hexdigest()


def check_job(folder, job):
    begun = folder / "unfinished"
    if begun.is_file() and not job.encode().startswith(
        begun.read_bytes()
    ):  # (begins with: a kill may have cut it off)
        raise BadInput(
            f"{folder}: an unfinished pack of other pictures, or of another size; remove it, or name another folder"
        )


def decode_all(records, root, size, folder, job):
    """Decode the pictures of all records into a folder that is locked, or go on where that stopped; see the head of this file.

    job is what the folder must hold if it is begun already: BadInput if it is another one.
    """
    begun, paths = (
        folder / "unfinished",
        [folder / name for name in ("images.u8", "skipped.jsonl", "index")],
    )
    if (folder / "pack.json").is_file():
        begun.unlink(missing_ok=True)  # (killed between the last two steps)
        return
    check_job(folder, job)
    need, free = len(records) * size * size * 3, shutil.disk_usage(folder).free
    if need - (paths[0].stat().st_size if paths[0].is_file() else 0) > free:
        raise BadInput(
            f"{len(records)} pictures of {size} pixels need {need / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB; "
            "choose a smaller size, or pack them where there is room (python -m data.images.pack SPEC OUT)"
        )
    begun.write_text(job)
    with ExitStack() as stack:
        images, skipped, index = (stack.enter_context(open(path, "a+b")) for path in paths)
        have, length = (
            images.tell() // (size * size * 3),
            index.tell() // INDEX.itemsize * INDEX.itemsize,
        )
        index.seek(0)
        skipped.seek(0)
        is_good = np.frombuffer(index.read(length), INDEX)["digest"] > 0
        reasons = [
            reason for reason in skipped.read().splitlines(keepends=True) if reason.endswith(b"\n")
        ]
        # as far as all three go: a machine that lost power may have kept the index, but not all that it speaks of
        done = int(((is_good.cumsum() <= have) & ((~is_good).cumsum() <= len(reasons))).sum())
        good = int(is_good[:done].sum())
        index.truncate(done * INDEX.itemsize)
        images.truncate(good * size * size * 3)
        skipped.truncate(sum(map(len, reasons[: done - good])))
        pool = stack.enter_context(ThreadPoolExecutor(os.cpu_count()))
        bar = stack.enter_context(
            tqdm(
                total=len(records),
                initial=done,
                desc="decoding pictures",
                unit="picture",
                dynamic_ncols=True,
                disable=None,
            )
        )
        for start in range(done, len(records), CHUNK):
            chunk = [records[i] for i in range(start, min(start + CHUNK, len(records)))]
            entries = np.zeros(len(chunk), INDEX)
            for i, got in enumerate(pool.map(lambda record: decode(record, root, size), chunk)):
                if isinstance(got, str):
                    skipped.write(line([chunk[i][0], got]))
                else:
                    images.write(got[0].tobytes())
                    entries[i] = got[1:]
                bar.update()
            for file, content in (
                (images, b""),
                (skipped, b""),
                (index, entries.tobytes()),
            ):  # the index last: it says what is there
                file.write(content)
                file.flush()
        os.fsync(images.fileno())
        good = os.fstat(images.fileno()).st_size // (size * size * 3)
    (folder / "pack.json.new").write_text(
        json.dumps({"format": 1, "size": size, "pictures": good, "records": len(records)})
    )
    os.replace(folder / "pack.json.new", folder / "pack.json")
    begun.unlink()


def open_folder(folder):
    """What decode_all left: (images (N, S, S, 3), index (records,), [[name, why it was skipped]])."""
    with interpreting(folder / "pack.json"):
        said = json.loads((folder / "pack.json").read_text())
        size, good, count = said["size"], said["pictures"], said["records"]
        if said["format"] != 1:
            raise BadInput("a pack of another version; pack again")
    with interpreting(folder):
        for name, wanted in (
            ("images.u8", good * size * size * 3),
            ("index", count * INDEX.itemsize),
        ):
            if (folder / name).stat().st_size != wanted:
                raise BadInput(
                    f"{name} has {(folder / name).stat().st_size} bytes, not {wanted}; remove the folder and begin again"
                )
        images = np.memmap(folder / "images.u8", np.uint8, "r") if good else np.empty(0, np.uint8)
        images = images.reshape(good, size, size, 3)
        index = np.memmap(folder / "index", INDEX, "r") if count else np.empty(0, INDEX)
        if (index["digest"] > 0).sum() != good:
            raise BadInput(
                f"index does not speak of {good} pictures; remove the folder and begin again"
            )
        return (
            images,
            index,
            [
                [name, why]
                for name, why in map(
                    json.loads, (folder / "skipped.jsonl").read_bytes().splitlines()
                )
            ],
        )


def pack(spec, out, size, split="train", *columns):
    """Pack one split of a specification into the folder `out`; returns what open_folder gives."""
    out, unusable = Path(out), []
    source = open_spec(spec, split, unusable, *columns)
    records = gather(source.records)
    if not len(records):
        raise BadInput(
            f"{spec}: {source.what}, but nothing in it can be used"
            + (
                f"; the first of {len(unusable)} entries: "
                f"{printable(unusable[0][0])}: {printable(unusable[0][1])}"
                if unusable
                else ""
            )
        )
    job, begun = fingerprint(records, source.root, size), out / "unfinished"
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file; name a folder to make")
    with locked(out):
        if not begun.is_file() and any(out.iterdir()):
            raise BadInput(f"{out} is not empty; remove it, or name another folder")
        check_job(out, job)
        begun.write_text(job)
        for name, lines in (("unusable.jsonl", unusable), ("pictures.jsonl", records)):
            with open(out / name, "wb") as f:
                for record in tqdm(
                    lines, desc=f"writing {name}", unit="line", dynamic_ncols=True, disable=None
                ):
                    f.write(line(record[:2]))
        decode_all(records, source.root, size, out, job)
    return *open_folder(out), unusable


def main():
    parser = argparse.ArgumentParser(
        description="Decode pictures once into a folder that train.py and eval.py read at once.",
        usage="python -m data.images.pack SPEC OUT [--flag value ...]   (--help lists the flags)",
    )
    parser.add_argument("data", help="as train.py's --data")
    parser.add_argument("out", help="folder to make; an unfinished one is gone on with")
    parser.add_argument(
        "--size",
        type=int,
        default=224,
        help="side of the pictures in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        default="train",
        choices=["train", "test"],
        help="of a file that has splits (Karpathy's)",
    )
    for flag in COLUMNS:
        parser.add_argument(flag, default="", help="as in train.py")
    args = parser.parse_args()
    if args.size < 1:
        raise BadInput(f"--size {args.size} is out of range; it is at least 1")
    images, index, skipped, unusable = pack(
        args.data,
        args.out,
        args.size,
        args.split,
        args.csv_separator,
        args.csv_img_key,
        args.csv_caption_key,
        args.image_root,
    )
    for name, reason in (unusable + skipped)[:5]:
        print(f"skipped {printable(name)}: {printable(reason)}", file=sys.stderr)
    if not len(images):
        raise BadInput(
            f"{args.data}: none of its {len(skipped)} pictures can be used; the first: {printable(skipped[0][0])}: "
            f"{printable(skipped[0][1])}; remove {args.out}"
        )
    print(
        f"{args.out}: {len(images)} pictures of {args.size} pixels packed; {len(unusable)} entries and {len(skipped)} pictures skipped"
        f"{f', the pictures listed in {args.out}/skipped.jsonl' if skipped else ''}; next: python train.py --data {args.out} "
        f"--image-size {args.size}"
    )


if __name__ == "__main__":
    sys.exit(run(main))
