"""Readers: a data specification -> CaptionedImages, decoded once into uint8 arrays.

    shapes, shapes-simple, shapes-rich, shapes-pairs   the built-in worlds (shapes.py)
    a csv, tsv, jsonl or json file, .tar shards, a folder of pictures   see formats.py
    a folder that `python -m data.images.pack` made

A picture that cannot be read is skipped, counted and named; more than 5 % of them stop the run.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.common import BadInput, cache_dir, interpreting, printable, run
from data.images.formats import COLUMNS, SUFFIXES, open_spec
from data.images.pack import decode_all, fingerprint, locked, open_folder
from data.images.pixels import digest
from data.images.records import Lines, gather, read_lines
from data.world import shapes

MAX_UNREADABLE = 0.05


@dataclass
class CaptionedImages:
    """N pictures, each with one or more captions."""

    images: np.ndarray  # (M, S, S, 3) uint8, in memory or memory-mapped; M >= N
    rows: np.ndarray  # (N,) which of them
    captions: list | Lines  # N lists of texts, none empty
    names: list | Lines  # N paths as the file has them, or keys of scenes
    digests: np.ndarray  # (N,) uint64: equal for equal pictures
    scenes: list = None  # N shapes.Scene, for the built-in world
    skipped: tuple = ()  # "name: reason" of every entry that could not be used

    def __len__(self):
        return len(self.rows)

    def pixels(self, which):
        """uint8 (n, S, S, 3) of the pictures at an array of indices."""
        return self.images[self.rows[which]]

    def take(self, which):
        """The pictures at an array of indices, without copying their pixels."""

        def pick(values):
            return values.take(which) if isinstance(values, Lines) else [values[i] for i in which]

        return CaptionedImages(
            self.images,
            self.rows[which],
            pick(self.captions),
            pick(self.names),
            self.digests[which],
            self.scenes and pick(self.scenes),
            self.skipped,
        )


def read_images(
    spec,
    split,
    image_size,
    num_samples=0,
    separator="",
    image_key="",
    caption_key="",
    image_root="",
    whole=False,
):
    """Read one split ("train" or "test") of a data specification. See the head of this file.

    num_samples  pictures at most (0: all; for the built-in world: 20,000 to train on, 800 to test)
    separator, image_key, caption_key, image_root   as in formats.open_spec
    whole        take all of a user's data; otherwise a tenth of it, chosen by content, is the test split (Karpathy's
                 files have their own)
    caption_key  for the built-in world: short (default), paraphrase, long, or mixed
    """
    if spec in shapes.WORLDS:
        return _shapes(spec, split, image_size, num_samples, caption_key)
    unusable, folder = [], Path(spec)
    if (folder / "unfinished").is_file():
        raise BadInput(
            f"{spec}: packing was not finished; run python -m data.images.pack again, it goes on where it stopped"
        )
    if (folder / "pack.json").is_file():
        with interpreting(folder / "pictures.jsonl"):
            what, records = "a pack", read_lines(folder / "pictures.jsonl")
    else:
        source = open_spec(spec, split, unusable, separator, image_key, caption_key, image_root)
        what, records, whole = source.what, gather(source.records), whole or source.has_splits
        job = fingerprint(records, source.root, image_size)
        folder = cache_dir() / "pictures" / job
        with locked(folder):
            decode_all(records, source.root, image_size, folder, job)
    images, index, skipped = open_folder(folder)
    if len(images) and images.shape[1] != image_size:
        raise BadInput(
            f"{spec}: pictures of {images.shape[1]} pixels; --image-size {image_size} was asked for. Use --image-size "
            f"{images.shape[1]}, or pack again"
        )
    if len(index) != len(records):
        raise BadInput(
            f"{folder}: pictures.jsonl has {len(records)} lines for {len(index)} records; remove the folder and pack again"
        )
    with interpreting(folder):
        counts = np.fromiter(map(len, records.field(1)), int, len(records))
    unusable += skipped
    total = len(records) + len(unusable) - len(skipped)
    for name, reason in unusable[:5]:
        print(f"skipped {printable(name)}: {printable(reason)}", file=sys.stderr)
    if unusable:
        print(f"{spec}: skipped {len(unusable)} of {total} entries", file=sys.stderr)
        first = f"the first: {printable(unusable[0][0])}: {printable(unusable[0][1])}"
        if not len(images):
            raise BadInput(
                f"{spec}: none of its {total} entries can be used; {first}{_hint(unusable, records)}"
            )
        if len(unusable) > MAX_UNREADABLE * total:
            raise BadInput(
                f"{spec}: {len(unusable)} of {total} entries cannot be used, more than {MAX_UNREADABLE:.0%}; {first}"
                f"{_hint(unusable, records)}"
            )
    if not total:
        raise BadInput(f"{spec}: {what}, but empty")
    good = np.flatnonzero(index["digest"])
    records, index, counts = records.take(good), index[good], counts[good]
    sizes = [f"{f(index['width'])} x {f(index['height'])}" for f in (np.min, np.max)]
    print(
        f"{spec}: {what}: {len(records)} pictures of {' to '.join(dict.fromkeys(sizes))} pixels, {counts.sum()} captions "
        f"({' to '.join(map(str, dict.fromkeys([counts.min(), counts.max()])))} a picture)",
        file=sys.stderr,
    )
    pictures = CaptionedImages(
        images, np.arange(len(records)), records.field(1), records.field(0), index["digest"]
    )
    if not whole:
        held_out = pictures.digests % 10 == 0
        rows = np.flatnonzero(held_out if split == "test" else ~held_out)
        if split == "train":
            print(
                f"{spec}: {held_out.sum() or 'none'} of them held out for eval.py (a tenth, by a hash of the picture); others: --val-data",
                file=sys.stderr,
            )
        if not len(rows):
            raise BadInput(
                f"{spec}: {len(pictures)} pictures are too few to hold a tenth out; train with --val-data"
            )
        pictures = pictures.take(rows)
    if 0 < num_samples < len(pictures):
        pictures = pictures.take(np.arange(num_samples))
    pictures.skipped = tuple(f"{name}: {reason}" for name, reason in unusable)
    return pictures


def without_copies(pictures):
    """Each picture once, with the captions of all its copies: a search that finds a copy is not wrong."""
    _, first, group = np.unique(pictures.digests, return_index=True, return_inverse=True)
    if len(first) == len(pictures):
        return pictures
    print(
        f"{len(pictures) - len(first)} pictures are copies of others; each is shown once",
        file=sys.stderr,
    )
    captions = [[] for _ in first]
    for own, i in zip(pictures.captions, group):
        captions[i] += own
    order = np.argsort(first)
    kept = pictures.take(first[order])
    kept.captions = [captions[i] for i in order]
    return kept


def decode_files(names, root, image_size):
    """Files under `root` -> (CaptionedImages, without captions, of those that can be read; [[name, why not]] of the others)."""
    records = gather([name, [""]] for name in dict.fromkeys(names))
    job = fingerprint(records, root, image_size)
    with locked(cache_dir() / "pictures" / job) as folder:
        decode_all(records, root, image_size, folder, job)
    images, index, skipped = open_folder(folder)
    good = np.flatnonzero(index["digest"])
    return CaptionedImages(
        images,
        np.arange(len(good)),
        [[]] * len(good),
        list(records.field(0).take(good)),
        index["digest"][good],
    ), skipped


def decode_files_in_order(names, root, image_size):
    """The same, in the order of the names, of which each may come again; BadInput if any of them cannot be read."""
    pictures, skipped = decode_files(names, root, image_size)
    if skipped:
        raise BadInput(
            f"{root / skipped[0][0]}: {skipped[0][1]} ({len(skipped)} such pictures); a score needs all of them"
        )
    row = {name: i for i, name in enumerate(pictures.names)}
    return pictures.take([row[name] for name in names])


def _hint(unusable, records):
    """What is probably wrong where pictures are not found."""
    if unusable[0][1] != "no such file" or not len(records):
        return ""
    name, captions = records[0][:2]
    if Path(captions[0]).suffix.lower() in SUFFIXES:
        return " (the columns of pictures and captions look exchanged: --csv-img-key, --csv-caption-key)"
    if Path(name).is_absolute():
        return " (a path of another machine? make paths relative to a folder, and name it with --image-root)"
    return " (paths are relative to the file; another folder: --image-root)"


VIEWS = 4  # training pictures of one scene


def _shapes(world, split, image_size, num_samples, caption_key):
    """The built-in world: 4 views of each training scene, one of each test scene."""
    says = {
        "": lambda s: [shapes.caption(s)],
        "short": lambda s: [shapes.caption(s)],
        "paraphrase": lambda s: [shapes.caption(s), *shapes.paraphrases(s)],
        "long": lambda s: [shapes.long_caption(s)],
        "mixed": lambda s: [shapes.caption(s), shapes.long_caption(s)],
    }
    if caption_key not in says:
        raise BadInput(
            f"caption key {caption_key!r} is unknown in the built-in world; choose one of "
            f"{', '.join(filter(None, says))}"
        )
    views = VIEWS if split == "train" else 1
    count = num_samples or (20_000 if split == "train" else 800)
    scenes = shapes.make_scenes(split, -(-count // views), world=world)  # (rounded up)
    captions = [says[caption_key](s) for s in scenes]
    images = np.empty((count, image_size, image_size, 3), np.uint8)
    for i in tqdm(
        range(count),
        desc=f"drawing {split} pictures",
        unit="picture",
        dynamic_ncols=True,
        disable=None,
    ):
        images[i] = np.asarray(shapes.draw(scenes[i // views], i % views, image_size))
    return CaptionedImages(
        images,
        np.arange(count),
        [captions[i // views] for i in range(count)],
        [f"{scenes[i // views].key}/{i % views}" for i in range(count)],
        np.array([digest(p) for p in images], np.uint64),
        [scenes[i // views] for i in range(count)],
    )


def main():
    parser = argparse.ArgumentParser(
        description="List what --image-features (pictures' names) or --text-features (every text "
        "that training and evaluation ask for) must have, a line each."
    )
    parser.add_argument("data", help="as train.py's --data")
    parser.add_argument("--texts", action="store_true", help="list texts (default: pictures)")
    for flag in COLUMNS:
        parser.add_argument(flag, default="", help="as in train.py")
    parser.add_argument("--train-num-samples", type=int, default=0, help="as in train.py")
    args = parser.parse_args()
    listed = {}
    for split in ("train", "test"):
        built_in_test = (
            split == "test" and args.data in shapes.WORLDS
        )  # evaluation asks for short captions there
        pictures = read_images(
            args.data,
            split,
            8,
            args.train_num_samples if split == "train" else 0,
            args.csv_separator,
            args.csv_img_key,
            "" if built_in_test else args.csv_caption_key,
            args.image_root,
        )
        lines = list(pictures.names)
        if args.texts:
            lines = [text for captions in pictures.captions for text in captions]
            if split == "test" and pictures.scenes:
                lines += [
                    text for scene in pictures.scenes for text in shapes.negatives(scene).values()
                ]
                names, templates = shapes.classes(args.data)
                lines += [template.format(name) for name in names for template in templates]
        listed |= dict.fromkeys(lines)
    sys.stdout.buffer.write(
        "".join(f"{name}\n" for name in listed).encode("utf-8", "surrogatepass")
    )


if __name__ == "__main__":
    sys.exit(run(main))
