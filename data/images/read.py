"""Read images with captions: a data specification -> CaptionedImages.

    shapes, shapes-few, shapes-simple and others         the built-in worlds (data/world/shapes.py)
    a csv, tsv, jsonl or json file, .tar shards, folder  what you bring (data/images/formats.py)
    a folder that python -m data.images.pack made        the same, decoded (data/images/pack.py)

    SPEC --open_spec--> records --decode_all--> a folder of pixels --read_images--> CaptionedImages
         (formats.py)            (pack.py)       in the cache                      of one split

Pixels of a user's images stay on the disk, memory-mapped; those of a built-in world are drawn into
memory. Names and captions are plain lists in memory. That serves data sets of several million
pairs: three million take 1.3 GB, and 1.8 GB once the captions are tokens (docs/results/data.md).

An image that cannot be read is skipped, counted and named. More than 5 % of them stop the run. Of a
pack only images count: entries without a caption were named when it was packed.

    python -m data.images.read SPEC             # list the names of all images
    python -m data.images.read SPEC --texts     # list all texts that the text tower is asked for
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.common import (
    BadInput,
    cache_dir,
    exit_status,
    locked,
    parse_flags,
    printable,
    progress,
    select,
)
from data.images.formats import (
    SUFFIXES,
    Columns,
    Record,
    Unusable,
    add_column_flags,
    join_by_name,
    name_idle_flags,
    open_spec,
)
from data.images.pack import Packed, decode_all, fingerprint, open_folder, read_records
from data.images.pixels import image_digest
from data.world import shapes
from data.world.drawing import draw

MAX_UNUSABLE = 0.05  # a share of the entries; more stop the run
HELD_OUT = 10  # of users' data, one image in so many is for testing, and one for validation
MIN_VAL = 10  # fewer validation images would say nothing, and are trained on
SMALL = 8  # pixels per side where only names or captions are wanted: decoding is fastest then

# Training sees two drawings of each scene, so that it must learn what they have in common. More
# scenes with fewer drawings teach more. With two drawings of 10,000 scenes 89 of 100 images found
# their caption with LIFT, with four drawings of 5,000 scenes 80 (docs/results/LOG.md).
DRAWINGS_PER_SCENE = 2
WORLD_SIZE = {"train": 20_000, "val": 800, "test": 800}  # images, unless the user says how many


@dataclass
class CaptionedImages:
    """N images, each with one or more captions."""

    store: np.ndarray  # (M, S, S, 3) uint8, in memory or memory-mapped; M >= N
    rows: np.ndarray  # (N,) where in the store each image is
    captions: list[list[str]]  # of N images, none empty
    names: list[str]  # of N images: paths as the user's file has them, or keys of scenes
    digests: np.ndarray  # (N,) uint64: equal for equal images
    scenes: list[shapes.Scene] | None = None  # of N images of a built-in world
    unusable: tuple[str, ...] = ()  # "name: reason" of every entry that could not be used

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, which: Sequence[int] | np.ndarray) -> np.ndarray:
        """The pixels of n images, by their numbers: (n, S, S, 3) uint8."""
        return self.store[self.rows[which]]

    def take(self, which: Sequence[int] | np.ndarray) -> "CaptionedImages":
        """n images, by their numbers. Their pixels are not copied."""

        def pick(values):
            return [values[i] for i in which]

        return CaptionedImages(
            self.store,
            self.rows[which],
            pick(self.captions),
            pick(self.names),
            self.digests[which],
            pick(self.scenes) if self.scenes else self.scenes,
            self.unusable,
        )


def read_images(
    spec: str,
    split: str,
    image_size: int,
    columns: Columns = Columns(),  # noqa: B008  (it is frozen)
    num_samples: int = 0,
    whole: bool = False,
    train_on_val: bool = False,
) -> CaptionedImages:
    """Read one split, "train", "val" or "test", of a data specification. See the head of this file.

    columns      how to read a user's file. For a built-in world, csv_caption_key names a kind of
                 captions: see scene_captions
    num_samples  at most so many images. 0: all; of a built-in world 20,000 or 800
    whole        hold nothing of a user's data out for testing: all of it is the test split. Without
                 this a tenth is, chosen by what is in the files. Files that have splits of their
                 own keep them
    train_on_val hold nothing of it out for validation. Without this another tenth is

    The validation split may be empty: see choose_split.

    BadInput if nothing can be read, or more than 5 % of the entries cannot be used.
    """
    if spec in shapes.WORLDS:
        return draw_world(spec, split, image_size, num_samples, columns.csv_caption_key)

    opened = open_images(spec, split, image_size, columns)
    if split != "val":
        name_idle_flags(spec, opened.description, opened.follows, columns)
    # A validation split of the file's own may be empty. Otherwise these messages came already,
    # with the training images.
    if split != "val" or (opened.has_splits and opened.total):
        report_unusable(spec, opened)
    images = usable_images(opened.records, opened.packed, opened.unusable)
    if split != "val":
        report_images(spec, opened, images)

    if not opened.has_splits:
        images = choose_split(spec, split, images, whole, train_on_val)
    if 0 < num_samples < len(images):
        images = images.take(np.arange(num_samples))
    return images


def captions_of(
    spec: str,
    split: str,
    columns: Columns = Columns(),  # noqa: B008  (it is frozen)
    num_samples: int = 0,
    whole: bool = False,
    train_on_val: bool = False,
) -> list[list[str]]:
    """The captions of one split: what read_images(...).captions would be, with these arguments.

    For a built-in world no image is drawn. A scene's captions come once per drawing, as they come
    with images. A user's images are decoded, though at a small size: which of them cannot be read
    and which are held out is only known from their files' content.
    """
    if spec in shapes.WORLDS:
        planned = plan_world(spec, split, num_samples, columns.csv_caption_key)
        return [image.captions for image in planned]
    images = read_images(
        spec, split, smallest_size(spec), columns, num_samples, whole, train_on_val
    )
    return images.captions


def smallest_size(spec: str) -> int:
    """The image size at which a specification is read fastest: of a pack, the size it has."""
    folder = Path(spec)
    # Path.is_file refuses very long lists of shards.
    if os.path.isfile(folder / "pack.json"):
        return open_folder(folder).images.shape[1]
    return SMALL


# --------------------------------------------------------------------------------------------------
# What users bring.


class Opened(NamedTuple):
    """A specification whose images are decoded."""

    description: str  # in words, for messages
    records: list[Record]  # M, each of another name
    packed: Packed  # pixels of those that have an image, and an index of all M
    unusable: Unusable  # entries that are no records, then records without an image
    total: int  # entries and records
    has_splits: bool
    follows: tuple[str, ...]  # the fields of Columns that it uses


def open_images(spec: str, split: str, image_size: int, columns: Columns) -> Opened:
    """Open a pack, or decode all images of anything else into a folder in the cache."""
    unusable = []
    has_splits, follows = False, ()
    folder = Path(spec)
    if os.path.isfile(folder / "unfinished"):
        raise BadInput(
            f"{spec}: packing was not finished; run python -m data.images.pack again, it goes on "
            "where it stopped"
        )
    if os.path.isfile(folder / "pack.json"):
        description = "a pack"
        packed = open_folder(folder)
        records = read_records(folder)
    else:
        source = open_spec(spec, split, unusable, columns)
        description, has_splits, follows = source.description, source.has_splits, source.follows
        records = join_by_name(source.records)
        packed = decode_in_cache(records, source.root, image_size)

    size = packed.images.shape[1]
    if len(packed.images) and size != image_size:
        raise BadInput(
            f"{spec}: images of {size} pixels; --image-size {image_size} was asked for. Use "
            f"--image-size {size}, or pack again"
        )
    if len(packed.index) != len(records):
        raise BadInput(
            f"{spec}: records.jsonl has {len(records)} lines for {len(packed.index)} records; "
            "remove the folder and pack again"
        )
    total = len(records) + len(unusable)
    unusable += [(name, reason) for name, reason in packed.skipped]
    return Opened(description, records, packed, unusable, total, has_splits, follows)


def decode_in_cache(records: list[Record], root: Path, image_size: int) -> Packed:
    """Decode the images of all records, unless the cache has them already."""
    # The folder's name changes when a file does: what is in it is never out of date.
    job = fingerprint(records, root, image_size)
    with locked(cache_dir() / "images" / job) as folder:
        decode_all(records, root, image_size, folder, job)
    return open_folder(folder)


def report_unusable(spec: str, opened: Opened) -> None:
    """Tell the user what is left out. BadInput if it is too much."""
    unusable, total = opened.unusable, opened.total
    for name, reason in unusable[:5]:
        print(f"skipped {printable(name)}: {printable(reason)}", file=sys.stderr)
    if unusable:
        more = ", of which the first five are named" if len(unusable) > 5 else ""
        print(f"{spec}: skipped {len(unusable)} of {total} entries{more}", file=sys.stderr)
        name, reason = unusable[0]
        first = f"the first: {printable(name)}: {printable(reason)}{hint(opened)}"
        if not len(opened.packed.images):
            raise BadInput(f"{spec}: none of its {total} entries can be used; {first}")
        if len(unusable) > MAX_UNUSABLE * total:
            raise BadInput(
                f"{spec}: {len(unusable)} of {total} entries cannot be used, more than "
                f"{MAX_UNUSABLE:.0%}; {first}"
            )
    if not total:
        raise BadInput(f"{spec}: {opened.description}, but empty")


def hint(opened: Opened) -> str:
    """What is probably wrong where images are not found."""
    _, reason = opened.unusable[0]
    if reason != "no such file" or not opened.records:
        return ""
    name, captions, _ = opened.records[0]
    if Path(captions[0]).suffix.lower() in SUFFIXES:
        return (
            " (the columns of images and captions look exchanged: --csv-img-key, --csv-caption-key)"
        )
    if name.startswith(("http://", "https://")):
        return " (nothing is downloaded: fetch the images first, for example with img2dataset)"
    if "\\" in name:
        return " (a path of Windows? write / in place of \\)"
    if Path(name).is_absolute():
        return (
            " (a path of another machine? make paths relative to a folder, and name it with "
            "--image-root)"
        )
    return " (paths are relative to the file; another folder: --image-root)"


def usable_images(
    records: Sequence[Record], packed: Packed, unusable: Unusable = ()
) -> CaptionedImages:
    """The records that have an image. The store has their pixels in the same order."""
    rows = np.flatnonzero(packed.index["digest"])
    usable = [records[i] for i in rows]
    return CaptionedImages(
        packed.images,
        np.arange(len(usable)),
        [record.captions for record in usable],
        [record.name for record in usable],
        packed.index["digest"][rows],
        unusable=tuple(f"{name}: {reason}" for name, reason in unusable),
    )


def report_images(spec: str, opened: Opened, images: CaptionedImages) -> None:
    """Tell the user how many images there are, of which sizes, with how many captions."""
    index = opened.packed.index[opened.packed.index["digest"] > 0]
    smallest = f"{index['width'].min()} x {index['height'].min()}"
    largest = f"{index['width'].max()} x {index['height'].max()}"
    counts = [len(captions) for captions in images.captions]
    print(
        f"{spec}: {opened.description}: {len(images)} images of {from_to(smallest, largest)} "
        f"pixels, {sum(counts)} captions ({from_to(min(counts), max(counts))} per image)",
        file=sys.stderr,
    )


def from_to(first: object, last: object) -> str:
    """1, 5 -> 1 to 5; but 5, 5 -> 5"""
    return f"{first}" if first == last else f"{first} to {last}"


def choose_split(
    spec: str, split: str, images: CaptionedImages, whole: bool, train_on_val: bool
) -> CaptionedImages:
    """Those images of a user's data that are for training, validation or testing.

    The digest of an image's file decides. So a copy stays with its original, and the same images
    are held out whatever their order, their names, or the others beside them. Test images make the
    scores of eval.py. Validation images make the curve that is drawn while a run trains, and
    settings are chosen by them. Where they would be fewer than MIN_VAL there are none.

    whole, train_on_val  as in read_images
    """
    remainder = images.digests % HELD_OUT
    is_test = remainder == 0
    is_val = remainder == 1
    if whole:
        is_test[:] = False
    if train_on_val or is_val.sum() < MIN_VAL:
        is_val[:] = False

    if split == "train" and not whole and not is_test.any():
        print(
            f"note: {spec}: no image is held out for testing, so few there are; eval.py will need "
            "other images (--data)",
            file=sys.stderr,
        )
    if split == "train":
        words = []
        for is_out, what in ((is_test, "for eval.py"), (is_val, "for validation")):
            if is_out.any():
                words.append(f"{is_out.sum()} {what}")
        if words:
            note = "a tenth" if whole else "a tenth each; other test images: --val-data"
            print(
                f"{spec}: held out by a hash of the image: {', '.join(words)} ({note})",
                file=sys.stderr,
            )
    chosen = {"train": ~is_test & ~is_val, "val": is_val, "test": is_test}[split]
    if whole and split == "test":
        chosen[:] = True
    if split != "val" and not chosen.any():
        raise BadInput(
            f"{spec}: {len(images)} images are too few to hold a tenth out; train with --val-data"
        )
    return images.take(np.flatnonzero(chosen))


def without_copies(images: CaptionedImages) -> CaptionedImages:
    """Each image once, with the captions of all its copies.

    A search that finds a copy is then not counted as wrong.
    """
    place_of = {}  # digest -> place in the two lists
    kept = []  # numbers of images
    captions = []
    for i, digest in enumerate(images.digests.tolist()):
        if digest not in place_of:
            place_of[digest] = len(kept)
            kept.append(i)
            captions.append([])
        captions[place_of[digest]] += images.captions[i]
    if len(kept) == len(images):
        return images
    print(
        f"{len(images) - len(kept)} images are copies of others; each is shown once",
        file=sys.stderr,
    )
    images = images.take(kept)
    images.captions = captions
    return images


# --------------------------------------------------------------------------------------------------
# Image files without captions.


def decode_files(
    names: Iterable[str], root: Path, image_size: int
) -> tuple[CaptionedImages, list[list[str]]]:
    """Files under `root` -> the images that can be read, and [name, reason] of the others.

    A name that comes several times is read once. The images have no captions.
    """
    records = [Record(name, []) for name in dict.fromkeys(names)]
    packed = decode_in_cache(records, root, image_size)
    return usable_images(records, packed), packed.skipped


def decode_files_in_order(names: Sequence[str], root: Path, image_size: int) -> CaptionedImages:
    """One image per name, in the order of the names, which may repeat. They have no captions.

    BadInput if any of them cannot be read.
    """
    images, skipped = decode_files(names, root, image_size)
    if skipped:
        name, reason = skipped[0]
        raise BadInput(
            f"{root / name}: {reason} ({len(skipped)} such images); a score needs all of them"
        )
    place_of = {name: i for i, name in enumerate(images.names)}
    return images.take([place_of[name] for name in names])


# --------------------------------------------------------------------------------------------------
# The built-in worlds.

CAPTION_KINDS = ("short", "paraphrase", "reworded", "long", "mixed")


class PlannedImage(NamedTuple):
    """An image of a built-in world that is not drawn yet."""

    scene: shapes.Scene
    drawing: int  # which drawing of the scene
    captions: list[str]


def plan_world(world: str, split: str, num_samples: int, kind: str) -> list[PlannedImage]:
    """All images of one split: some drawings of each training scene, one of each test scene."""
    if kind not in ("", *CAPTION_KINDS):
        raise BadInput(
            f"caption key {kind!r} is unknown in the built-in world; choose one of "
            f"{', '.join(CAPTION_KINDS)}"
        )
    count = num_samples or WORLD_SIZE[split]
    n_drawings = DRAWINGS_PER_SCENE if split == "train" else 1
    planned = []
    for scene in shapes.make_scenes(split, ceil(count / n_drawings), world=world):
        captions = scene_captions(scene, kind)
        planned += [PlannedImage(scene, drawing, captions) for drawing in range(n_drawings)]
    # The last scene may have fewer drawings.
    return planned[:count]


def scene_captions(scene: shapes.Scene, kind: str) -> list[str]:
    """The captions of a scene, of one of the CAPTION_KINDS. See the head of shapes.py.

    short        the caption; "" means the same
    paraphrase   the caption, and the same in other words
    reworded     as paraphrase, but no text that begins with another thing: none of `reversed`
    long         the long caption
    mixed        the caption and the long one
    """
    if kind == "paraphrase":
        return [shapes.caption(scene), *shapes.paraphrases(scene)]
    if kind == "reworded":
        return [shapes.caption(scene), *shapes.paraphrases(scene, without=["reversed"])]
    if kind == "long":
        return [shapes.long_caption(scene)]
    if kind == "mixed":
        return [shapes.caption(scene), shapes.long_caption(scene)]
    return [shapes.caption(scene)]


def draw_world(
    world: str, split: str, image_size: int, num_samples: int, kind: str
) -> CaptionedImages:
    """Draw one split of a built-in world. See read_images and scene_captions."""
    planned = plan_world(world, split, num_samples, kind)
    return draw_planned(planned, image_size, f"drawing {split} images")


def draw_scenes(scenes: Sequence[shapes.Scene], image_size: int) -> CaptionedImages:
    """One drawing of each scene, with its short caption."""
    planned = [PlannedImage(scene, 0, scene_captions(scene, "short")) for scene in scenes]
    return draw_planned(planned, image_size, "drawing single things")


def draw_planned(planned: list[PlannedImage], image_size: int, description: str) -> CaptionedImages:
    pixels = np.empty((len(planned), image_size, image_size, 3), np.uint8)
    bar = progress(planned, description=description, unit="image")
    for i, image in enumerate(bar):
        pixels[i] = np.asarray(draw(image.scene, image.drawing, image_size))
    return CaptionedImages(
        pixels,
        np.arange(len(planned)),
        [image.captions for image in planned],
        [f"{image.scene.key}/{image.drawing}" for image in planned],
        np.array([image_digest(image) for image in pixels], np.uint64),
        [image.scene for image in planned],
    )


# --------------------------------------------------------------------------------------------------
# The command.


def names_and_texts(
    spec: str, columns: Columns, num_samples: int
) -> tuple[dict[str, None], dict[str, None]]:
    """All names of images, and all texts, that training and evaluation ask for, each once."""
    names, texts = {}, {}
    is_built_in = spec in shapes.WORLDS
    size = smallest_size(spec)

    parts = [read_images(spec, "train", size, columns, num_samples)]
    if is_built_in:
        # With outside vectors there is no curve of validation images. Evaluation asks for short
        # captions, whatever training had.
        columns = replace(columns, csv_caption_key="")
    else:
        parts.append(read_images(spec, "val", size, columns))
    test = read_images(spec, "test", size, columns)
    for images in (*parts, test):
        names |= dict.fromkeys(images.names)
        for captions in images.captions:
            texts |= dict.fromkeys(captions)

    # It also asks for false captions, and for prompts with the names of classes.
    if is_built_in:
        for scene in test.scenes:
            texts |= dict.fromkeys(shapes.negatives(scene).values())
        class_names, templates = shapes.classes(spec)
        for name in class_names:
            texts |= dict.fromkeys(template.format(name) for template in templates)
    return names, texts


def main() -> None:
    parser = argparse.ArgumentParser(
        description="List what --image-features (images' names) or --text-features (every text "
        "that training and evaluation ask for) must have, one per line."
    )
    parser.add_argument("data", help="as train.py's --data")
    parser.add_argument("--texts", action="store_true", help="list texts (default: images)")
    add_column_flags(parser)
    parser.add_argument("--train-num-samples", type=int, default=0, help="as in train.py")
    args = parse_flags(parser)

    columns = select(Columns, vars(args))
    names, texts = names_and_texts(args.data, columns, args.train_num_samples)
    lines = "".join(f"{line}\n" for line in (texts if args.texts else names))
    # Scraped texts hold halves of Unicode pairs (surrogates), which print() refuses.
    sys.stdout.buffer.write(lines.encode("utf-8", "surrogatepass"))


if __name__ == "__main__":
    sys.exit(exit_status(main))
