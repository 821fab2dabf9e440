"""Formats: how your own images and captions may lie on the disk. Read this first to bring data.

    what you name (SPEC)              what it is                          described at
    captions.csv, captions.tsv        a table, one caption per row        read_csv
    captions.jsonl                    one JSON object per line            read_objects
    list.json                         a list of such objects              read_objects
    captions_train2017.json           COCO's captions                     read_coco
    dataset_flickr8k.json             Karpathy's splits                   read_karpathy
    FOLDER                            images with .txt files beside them  read_folder
    FOLDER of folders                 images of classes, without texts    read_classes
    cc-{000..329}.tar                 WebDataset's shards                 read_shards
    FOLDER of .tar files              the same                            read_shards

    python train.py --data SPEC
    python -m data.images.read SPEC            # list the images' names
    python -m data.images.pack SPEC OUT        # decode all images once

open_spec finds out from the name, and from what is inside, which of them it is. Each format becomes
a sequence of Records: an image's name and its captions. Several rows of one image are its several
captions. No image is opened here: read.py does that, with pack.py.

An entry that cannot be used, for example a row without a caption, goes into a list with its reason,
and read.py tells the user. A file that cannot be read at all raises BadInput.
"""

import argparse
import csv
import json
import os
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

from data.common import BadInput, flag_of, interpreting
from data.images.shards import DAMAGED, MAX_TEXT_BYTES, Sample, expand_braces, read_samples
from data.world import shapes

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")

# Columns or fields with one of these names are taken, the first of them that the file has. Small
# and capital letters are alike. Another name: --csv-img-key, --csv-caption-key.
IMAGE_KEYS = ("filepath", "image", "file_name", "path", "image_path")
CAPTION_KEYS = ("title", "caption", "text")

# A column or field of this name says which split a row is of, in one of the words below. restval is
# Karpathy's: images of COCO's validation set that he took neither for val nor for test.
SPLIT_KEY = "split"
SPLITS = {
    "train": "train",
    "restval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}

# The caption of an image that has only a class. It is the one prompt of LIFT, language-image
# alignment with a fixed text encoder (Yang et al. 2025).
PROMPT = "It is a photo of a {}"

# Test images of COCO and Flickr are scored with five captions each. Some have six or seven.
TEST_CAPTIONS = 5


# --------------------------------------------------------------------------------------------------
# What the formats have in common.


class Record(NamedTuple):
    """One image and its captions."""

    name: str  # of its file, relative to the source's root; or SHARD/KEY inside a shard
    captions: list[str]  # one or more, none empty, with single spaces
    inside: tuple[str, int, int] | None = None  # the shard, the image's first byte, its size


class Source(NamedTuple):
    """An opened specification."""

    description: str  # in words, for messages
    records: Iterator[Record]  # can be gone through once; several may have one name
    root: Path  # the folder that the names are relative to
    has_splits: bool = False  # it says itself which images are for training and which for testing
    follows: tuple[str, ...] = ()  # the fields of Columns that it uses


@dataclass(frozen=True)
class Columns:
    """What the user tells about a file's layout. Empty: find out."""

    csv_separator: str = ""
    csv_img_key: str = ""
    csv_caption_key: str = ""
    image_root: str = ""

    @property
    def image_keys(self) -> tuple[str, ...]:
        return (self.csv_img_key,) if self.csv_img_key else IMAGE_KEYS

    @property
    def caption_keys(self) -> tuple[str, ...]:
        return (self.csv_caption_key,) if self.csv_caption_key else CAPTION_KEYS


def add_column_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of every command that reads data: one per field of Columns."""
    for flag in ("--csv-separator", "--csv-img-key", "--csv-caption-key", "--image-root"):
        parser.add_argument(flag, default="", help="as in train.py")


Unusable = list[tuple[str, str]]  # (name, reason) of each entry that cannot be used


def open_spec(
    spec: str,
    split: str,
    unusable: Unusable,
    columns: Columns = Columns(),  # noqa: B008  (it is frozen)
) -> Source:
    """Find out what a specification is, and open it. BadInput if it is nothing that is known.

    split     "train", "val" or "test": of a file that has splits
    unusable  takes what cannot be used, partly while the records are gone through
    """
    if columns.image_root and not os.path.isdir(columns.image_root):
        raise BadInput(f"--image-root {columns.image_root}: no such folder")
    path = Path(spec)
    # Path.is_dir refuses very long lists of shards.
    is_folder = os.path.isdir(path)
    if is_folder:
        shards = [str(shard) for shard in sorted(path.glob("*.tar"))]
    else:
        if re.search(r"\.(tar\.\w+|tgz)(::|$)", spec):
            raise BadInput(
                f"{spec}: compressed shards cannot be read in place; decompress them to .tar"
            )
        shards = expand_braces(spec) if re.search(r"\.tar(::|$)", spec) else []
    if shards:
        return read_shards(shards, columns, unusable)
    if is_folder:
        return read_folder(path, unusable)
    if not os.path.isfile(path):
        raise BadInput(
            f"{spec}: no such file or folder; --data takes {', '.join(shapes.WORLDS)}, a csv, tsv, "
            "jsonl or json file, .tar shards, or a folder of images"
        )
    if path.suffix.lower() == ".json":
        return read_json(path, split, columns, unusable)
    if path.suffix.lower() == ".jsonl":
        return read_objects("a jsonl file", json_lines(path), path, split, columns, unusable)
    return read_csv(path, split, columns, unusable)


def name_idle_flags(
    spec: str, description: str, follows: tuple[str, ...], columns: Columns
) -> None:
    """Name the flags that were given and have no effect on a specification.

    description, follows  those of its Source
    """
    for name, value in vars(columns).items():
        if value and name not in follows:
            print(f"note: {flag_of(name)} has no effect on {spec}, {description}", file=sys.stderr)


def join_by_name(records: Iterable[Record]) -> list[Record]:
    """Records of one name become one, with the captions of all, in the order of first appearance.

    >>> join_by_name([Record("1.png", ["a dog"]), Record("2.png", ["a cat"]),
    ...               Record("1.png", ["a brown dog"])])
    [Record(name='1.png', captions=['a dog', 'a brown dog'], inside=None),
     Record(name='2.png', captions=['a cat'], inside=None)]
    """
    first_of = {}  # name -> its first record
    for record in records:
        first = first_of.setdefault(record.name, record)
        if first is not record:
            first.captions.extend(record.captions)
    return list(first_of.values())


def lines_of(text: str) -> list[str]:
    """The lines of a text. Not splitlines(): it ends a line at U+2028, U+0085 and others, too.

    >>> lines_of("a dog\\u2028asleep\\r\\na cat")
    ['a dog\\u2028asleep', 'a cat']
    """
    return re.split(r"\r\n|\r|\n", text)


def table_reader(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    """The rows of a table. A blank may stand between the separator and a quote."""
    blank = separator != "\t"
    return csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=blank)


def clean_captions(texts: object) -> list[str]:
    """A caption, or a list of captions -> those that are texts and not empty, with single spaces.

    >>> clean_captions(["a  dog ", None, ""])
    ['a dog']
    """
    captions = []
    for text in texts if isinstance(texts, list) else [texts]:
        words = text.split() if isinstance(text, str) else []
        if words:
            captions.append(" ".join(words))
    return captions


# --------------------------------------------------------------------------------------------------
# Tables and lists: one row, or one object, per caption.


def read_csv(path: Path, split: str, columns: Columns, unusable: Unusable) -> Source:
    """A table with one caption per row, as open_clip takes it. The first line names the columns.

        filepath,title
        dogs/1.jpg,a dog on a sofa
        dogs/1.jpg,"a dog, asleep"

    The separator may be a comma, a tab, a semicolon or a bar: the one that is most frequent in the
    first line. A field that holds it is quoted: see split_rows. Paths are relative to the file's
    folder. A column `split` is followed: see keyed_records.
    """
    separator, found = read_header(path, columns.csv_separator)
    where = f"; the columns found, separated by {separator!r}, are {', '.join(found)}"
    if len(found) == 1 and columns.csv_separator:
        where += ", so --csv-separator may be wrong"
    keys = choose_keys(path, "column", found, columns, where)
    for name in keys:
        if name and found.count(name) > 1:
            raise BadInput(f"{path}: {found.count(name)} columns are called {name}; rename them")
    rows = ((f"line {line}", row) for line, row in table_rows(path, separator))
    description = f"a table separated by {separator!r}, columns {keys.image} and {keys.caption}"
    source = keyed_source(description, rows, path, keys, split, columns, unusable)
    return source._replace(follows=("csv_separator", *source.follows))


def read_header(path: Path, separator: str = "") -> tuple[str, list[str]]:
    """The separator of a table, which is found out if it is "", and the names of its columns."""
    with interpreting(path), open(path, "rb") as file:
        first_line = file.readline()
    if first_line.startswith(b"PK\x03\x04"):
        raise BadInput(f"{path}: no table, but a zip file; unpack it")
    if first_line.startswith(b"\x1f\x8b"):
        raise BadInput(f"{path}: no table, but a gzip file; unpack it")
    if first_line.startswith(b"PAR1"):
        raise BadInput(f"{path}: no table of text, but a parquet file; write it as csv first")
    try:
        header = first_line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); if it is a table, save it "
            "as UTF-8"
        ) from None
    if not header.strip():
        raise BadInput(f"{path}: the file is empty; its first line must name the columns")

    # A shell passes \t as two characters.
    separator = separator.replace("\\t", "\t") or max(",\t;|", key=header.count)
    if len(separator) != 1:
        raise BadInput(f"{path}: --csv-separator {separator!r} is not one character")
    try:
        return separator, next(table_reader([header], separator))
    except (csv.Error, ValueError) as error:  # ValueError: a separator that can be none
        raise BadInput(
            f"{path}: its first line is not readable as the names of columns ({error})"
        ) from None


def table_rows(path: Path, separator: str) -> Iterator[tuple[int, dict[str | None, str | None]]]:
    """The rows of a table -> (the number of the row's last line, {column: field}).

    A row that is too short has None in its last columns. One that cannot be used has the reason
    under the column None.
    """
    number = 1  # of the last line that was read
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = split_rows(file, separator)
        try:
            _, columns = next(rows)
            for number, fields in rows:  # noqa: B007  (the message below needs it)
                if isinstance(fields, str):
                    row = {None: fields}
                else:
                    row = dict(zip_longest(columns, fields[: len(columns)]))
                    if len(fields) > len(columns):
                        row[None] = (
                            "more fields than columns; a text that holds the separator "
                            f"{separator!r} must be quoted"
                        )
                yield number, row
        except UnicodeDecodeError as error:
            raise BadInput(
                f"{path} line {line_not_utf8(path)}: not UTF-8 ({error.reason}); save it as UTF-8"
            ) from None
    if number == 1:
        raise BadInput(f"{path}: a header without rows")


def line_not_utf8(path: Path) -> int:
    """The number of the first line that is not UTF-8. A text file is decoded many lines at once."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise ValueError(f"{path}: all of it is UTF-8")


def split_rows(lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str] | str]]:
    """The lines of a table -> (the number of a row's last line, its fields), without empty rows.

    A field that begins with a quote ends with one, and quotes inside it are doubled. Such a field
    may hold the separator and, where that is no tab, the ends of lines.

    A line whose quotes are not like this does no harm to the lines behind it. If the separator is a
    tab, it is read as it is: most tsv files, such as CC3M's, do not quote, and a quote is a
    character like any other. Otherwise it has a reason in place of fields.

    >>> list(split_rows(['"a dog\\t1.png\\n', '"a ""cat"" sat"\\t2.png\\n'], "\\t"))
    [(1, ['"a dog', '1.png']), (2, ['a "cat" sat', '2.png'])]
    >>> list(split_rows(['1.png,"a dog,\\n', 'asleep"\\n', '2.png,a cat\\n'], ","))
    [(2, ['1.png', 'a dog,\\nasleep']), (3, ['2.png', 'a cat'])]
    """
    lines = iter(lines)
    ahead = deque()  # lines that an open quote took, though they are rows of their own
    number = 0

    def take(taken: list[str]) -> Iterator[str]:
        """The lines that one row may have. They are also put into `taken`."""
        while line := ahead.popleft() if ahead else next(lines, ""):
            taken.append(line)
            yield line
            if separator == "\t":
                return

    while True:
        taken = []
        try:
            fields = next(table_reader(take(taken), separator))
        except StopIteration:
            return
        except csv.Error as error:
            # The first line is to blame. The others are read again.
            ahead.extendleft(reversed(taken[1:]))
            line = taken[0].rstrip("\r\n")
            taken = [line]
            if separator == "\t":
                fields = line.split(separator)
            else:
                fields = (
                    f"not readable ({error}); a field that begins with a quote must end with one, "
                    "and quotes inside are doubled"
                )
        number += len(taken)
        if fields:
            yield number, fields


def read_objects(
    description: str,
    objects: Iterable[tuple[str, object]],
    path: Path,
    split: str,
    columns: Columns,
    unusable: Unusable,
) -> Source:
    """JSON objects with an image, and with a caption or a list of captions.

    One object per line, in a file NAME.jsonl:

        {"image": "dogs/1.jpg", "caption": "a dog on a sofa"}
        {"image": "dogs/2.jpg", "caption": ["a dog on grass", "a brown dog runs"]}

    Or one list of them, in a file NAME.json, as in the files of ALBEF (align before fuse, Li et al.
    2021):

        [{"image": "dogs/1.jpg", "caption": "a dog on a sofa"},
         {"image": "dogs/2.jpg", "caption": ["a dog on grass", "a brown dog runs"]}]

    A field `split` is followed: see keyed_records. Other fields are ignored. Paths are relative to
    the file's folder, or to --image-root.

    objects  pairs of (where in the file, value)
    """
    wanted = f"{' or '.join(columns.image_keys)} and {' or '.join(columns.caption_keys)}"
    checked = only_objects(objects, path, wanted)
    first = next(checked, None)
    if first is None:
        return Source(description, iter(()), path.parent)
    # The first object says what the fields are called.
    where, fields = first
    found = f" in {where}; its fields are {', '.join(fields)}"
    keys = choose_keys(path, "field", list(fields), columns, found)
    return keyed_source(description, chain([first], checked), path, keys, split, columns, unusable)


def only_objects(
    values: Iterable[tuple[str, object]], path: Path, wanted: str
) -> Iterator[tuple[str, dict]]:
    """The same pairs. BadInput for a value that is no object."""
    for where, value in values:
        if not isinstance(value, dict):
            raise BadInput(f"{path}: {where} is no object with {wanted}")
        yield where, value


def json_lines(path: Path) -> Iterator[tuple[str, object]]:
    """A file with one JSON value per line -> ("line 1", value), ... Empty lines are left out."""
    with interpreting(path), open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                raise BadInput(f"line {number} is no JSON object ({error})") from None
            yield f"line {number}", value


class Keys(NamedTuple):
    """Which columns or fields of a file are used."""

    image: str
    caption: str
    split: str  # "": the file has no splits


def choose_keys(path: Path, kind: str, found: list[str], columns: Columns, where: str) -> Keys:
    """Which of the columns or fields of a file hold the image, the caption and the split.

    kind   "column" or "field"
    where  for the message: which were found where
    """
    found_as = {key.strip().lower(): key for key in reversed(found)}
    chosen = []
    for wanted, flag in (
        (columns.image_keys, "--csv-img-key"),
        (columns.caption_keys, "--csv-caption-key"),
    ):
        # A name as it is written comes before one in other letters.
        fitting = [key for key in wanted if key in found]
        fitting += [found_as[key.lower()] for key in wanted if key.lower() in found_as]
        if not fitting:
            hint = ""
            if any(Path(key).suffix.lower() in SUFFIXES for key in found):
                hint = " (or is this the first row? Then put a line image,caption above it)"
            raise BadInput(
                f"{path}: no {kind} {' or '.join(wanted)}{where}; name yours with {flag}{hint}"
            )
        chosen.append(fitting[0])
    if chosen[0] == chosen[1]:
        raise BadInput(
            f"{path}: the {kind} {chosen[0]} is named for images and for captions; name two with "
            "--csv-img-key and --csv-caption-key"
        )
    return Keys(*chosen, split=found_as.get(SPLIT_KEY, ""))


def keyed_source(
    description: str,
    entries: Iterable[tuple[str, dict]],
    path: Path,
    keys: Keys,
    split: str,
    columns: Columns,
    unusable: Unusable,
) -> Source:
    """The source of a table's rows, or of JSON objects, whose keys are known."""
    if keys.split:
        description = f"split {split} of {description}"
    return Source(
        description,
        keyed_records(entries, path, keys, split, unusable),
        Path(columns.image_root or path.parent),
        has_splits=bool(keys.split),
        follows=("csv_img_key", "csv_caption_key", "image_root"),
    )


def keyed_records(
    entries: Iterable[tuple[str, dict]], path: Path, keys: Keys, split: str, unusable: Unusable
) -> Iterator[Record]:
    """The records of one split of a table or of JSON objects. Without splits, all records.

    entries  pairs of (where in the file, {column or field: value}); see table_rows for None

    An entry whose split is not known is of no use, and counts as one of training. BadInput for an
    image that is in two splits.
    """
    split_of = {}  # name -> the split that its first entry has
    unknown = set()  # words of splits that are not known
    for where, entry in entries:
        name = entry.get(keys.image)
        name = name.strip() if isinstance(name, str) else ""
        captions = clean_captions(entry.get(keys.caption))
        own_split = split
        if keys.split:
            word = str(entry.get(keys.split))
            own_split = SPLITS.get(word.strip().lower())
            if not own_split:
                unknown.add(word)
        if None in entry:
            reason = entry[None]
        elif not name:
            reason = f"no {keys.image}"
        elif not captions:
            reason = f"no {keys.caption}"
        elif not own_split:
            reason = (
                f"{keys.split} {entry.get(keys.split)!r} is none of {', '.join(SPLITS)} (to have "
                f"splits ignored, rename {keys.split})"
            )
        else:
            if keys.split and split_of.setdefault(name, own_split) != own_split:
                raise BadInput(
                    f"{path}: {name} is in two splits, {split_of[name]} and, in {where}, "
                    f"{own_split}; an image must be in one"
                )
            if own_split == split:
                yield Record(name, captions)
            continue
        if (own_split or "train") == split:
            unusable.append((f"{path} {where}", reason))

    # Without validation images a run is not watched. That is no mistake.
    if split_of and split not in (*split_of.values(), "val"):
        found = ", ".join(sorted({*split_of.values(), *unknown}))
        raise BadInput(
            f"{path}: no image of the split {split}; {keys.split} has {found}, and "
            f"{', '.join(SPLITS)} are known (to have splits ignored, rename {keys.split})"
        )


# --------------------------------------------------------------------------------------------------
# JSON files.


def read_json(path: Path, split: str, columns: Columns, unusable: Unusable) -> Source:
    """A json file: a list of objects (read_objects), COCO's captions, or Karpathy's splits.

    The whole file is in memory at once.
    """
    with interpreting(path):
        content = load_json(path)
        if isinstance(content, list):
            objects = ((f"object {number}", value) for number, value in enumerate(content, 1))
            return read_objects("a json list", objects, path, split, columns, unusable)

        # COCO's files and Karpathy's both have a list of images. COCO's have annotations beside it,
        # and in Karpathy's each image has its sentences.
        images = content.get("images") if isinstance(content, dict) else None
        images = images if isinstance(images, list) else []
        schema = description = "COCO's captions"
        try:
            if images and "annotations" in content:
                records = read_coco(content)
            elif images and "sentences" in images[0]:
                schema = "Karpathy's split"
                description = f"{schema}, {split}"
                records = read_karpathy(content, split)
            else:
                raise BadInput(
                    "no schema that is known: COCO's (images, annotations), Karpathy's (images "
                    f"with sentences), or a list of objects with {' or '.join(columns.image_keys)} "
                    f"and {' or '.join(columns.caption_keys)}"
                )
        except KeyError as error:
            raise BadInput(f"an entry without {error}, which {schema} must have") from None
        except (AttributeError, TypeError) as error:
            raise BadInput(f"an entry is not as in {schema} ({error})") from None
        if not records and split != "val":
            raise BadInput(f"no image of the split {split}")

    unusable += [(record.name, "no caption") for record in records if not record.captions]
    last = TEST_CAPTIONS if split == "test" else None
    return Source(
        description,
        (Record(name, captions[:last]) for name, captions, _ in records if captions),
        find_root(path, records[0].name if records else "", columns.image_root),
        has_splits="sentences" in images[0],
        follows=("image_root",),
    )


def load_json(path: Path) -> object:
    with open(path, encoding="utf-8-sig") as file:
        try:
            return json.load(file)
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":
                raise
            raise BadInput(
                f"more than one JSON value (line {error.lineno}); if it holds one object per line, "
                "name it .jsonl"
            ) from None


def read_coco(content: dict) -> list[Record]:
    """COCO (Common Objects in Context), captions_train2017.json: images, and notes on them.

        {"images": [{"id": 9, "file_name": "000000000009.jpg"}, ...],
         "annotations": [{"image_id": 9, "caption": "a dog on a sofa"},
                         {"image_id": 9, "caption": "a dog, asleep"}, ...]}

    The images are looked for in folders beside the file and above it, or in --image-root.
    """
    captions = {}
    for note in content["annotations"]:
        captions.setdefault(note["image_id"], []).append(note["caption"])
    return [
        Record(image["file_name"].strip(), clean_captions(captions.get(image["id"], [])))
        for image in content["images"]
    ]


def read_karpathy(content: dict, split: str) -> list[Record]:
    """Karpathy's splits of Flickr8k, Flickr30k and COCO: each image says which split it is in.

        {"images": [{"filename": "9.jpg", "filepath": "val2014", "split": "restval",
                     "sentences": [{"raw": "a dog on a sofa"}, {"raw": "a dog, asleep"}]},
                    ...]}

    Only COCO's images have a filepath. Training takes train and restval. The images are looked for
    as COCO's are.
    """
    records = []
    for image in content["images"]:
        if SPLITS.get(image["split"]) == split:
            name = str(Path(image.get("filepath", "")) / image["filename"])
            captions = clean_captions([sentence["raw"] for sentence in image["sentences"]])
            records.append(Record(name, captions))
    return records


def find_root(path: Path, name: str, image_root: str) -> Path:
    """Where the images of a COCO or Karpathy file are: in the first folder that has image `name`.

    The folders are the file's own, the one above it, and all that lie in these two. --image-root
    names another one.
    """
    if image_root:
        return Path(image_root)
    folder = path.absolute().parent
    above = folder.parent
    beside = (
        child for parent in (folder, above) for child in sorted(parent.iterdir()) if child.is_dir()
    )
    for root in chain([path.parent, above], beside):
        if (root / name).is_file():
            return root
    return path.parent


# --------------------------------------------------------------------------------------------------
# Folders.


def read_folder(path: Path, unusable: Unusable) -> Source:
    """Images with a .txt file of the same name beside each, with one caption per line.

        FOLDER/dogs/1.jpg
        FOLDER/dogs/1.txt       a dog on a sofa
                                a dog, asleep

    Folders inside it count. A folder without such .txt files may be one of classes: read_classes.
    """
    images = [
        file
        for file in sorted(path.rglob("*"))
        # macOS puts a file ._1.jpg beside 1.jpg.
        if file.suffix.lower() in SUFFIXES and not file.name.startswith("._")
    ]
    if not images:
        raise BadInput(f"{path}: no images in this folder (looked for {', '.join(SUFFIXES)})")
    texts = {
        file.with_suffix(""): file for file in path.rglob("*") if file.suffix.lower() == ".txt"
    }
    # Any .txt file is not enough: a folder of classes may have a README.txt.
    has_texts = any(image.with_suffix("") in texts for image in images)
    if has_texts or any(image.parent == path for image in images):
        records = folder_records(path, images, texts, unusable)
        return Source("a folder of images with .txt files", records, path)
    return read_classes(path, [image.relative_to(path) for image in images])


def folder_records(
    path: Path, images: list[Path], texts: dict[Path, Path], unusable: Unusable
) -> Iterator[Record]:
    """The records of read_folder.

    texts  path of a .txt file without its suffix -> path of the file
    """
    for image in images:
        name = str(image.relative_to(path))
        text_file = texts.get(image.with_suffix(""))
        if text_file is None:
            unusable.append((name, "no .txt file of the same name beside it"))
            continue
        if not text_file.is_file() or text_file.stat().st_size > MAX_TEXT_BYTES:
            unusable.append((name, "its .txt file is no regular file, or too long"))
            continue
        try:
            captions = clean_captions(lines_of(text_file.read_text("utf-8-sig")))
        except UnicodeDecodeError:
            unusable.append((name, "its .txt file is not UTF-8"))
        except OSError as error:
            unusable.append((name, f"its .txt file cannot be read ({error.strerror})"))
        else:
            if captions:
                yield Record(name, captions)
            else:
                unusable.append((name, "its .txt file is empty"))


def read_classes(path: Path, names: list[Path]) -> Source:
    """An ImageFolder, as torchvision calls it: one folder per class, no texts at all.

        FOLDER/great_dane/1.jpg     It is a photo of a great dane
        FOLDER/great_dane/2.jpg     It is a photo of a great dane
        FOLDER/cat/deep/3.jpg       It is a photo of a cat

    The caption is LIFT's prompt with the class's name.
    """
    classes = {name.parts[0] for name in names}
    if {name.lower() for name in classes} <= set(SPLITS):
        raise BadInput(
            f"{path}: holds splits, not classes; name one of them, and another with --val-data"
        )
    records = (Record(str(name), [PROMPT.format(class_name(name.parts[0]))]) for name in names)
    return Source(f"an ImageFolder of {len(classes)} classes", records, path)


def class_name(folder_name: str) -> str:
    """great_dane -> great dane"""
    return " ".join(folder_name.replace("_", " ").split())


# --------------------------------------------------------------------------------------------------
# Shards.


def read_shards(shards: list[str], columns: Columns, unusable: Unusable) -> Source:
    """WebDataset's tar files: an image, and beside it KEY.txt with one caption per line.

        cc-000.tar:  000001.jpg
                     000001.txt       a dog on a sofa
                     000002.jpg  ...

    Without a .txt, the captions are those of KEY.json, as img2dataset writes it:

        {"caption": "a dog on a sofa", "url": "..."}

    --csv-caption-key names a field of KEY.json, which then wins over KEY.txt. Several sources are
    joined by two colons: a-{00..09}.tar::b-{00..04}.tar
    """
    missing = [shard for shard in shards if not Path(shard).is_file()]
    if missing:
        raise BadInput(
            f"{missing[0]}: no such file ({len(missing)} of {len(shards)} shards are missing)"
        )
    records = shard_records([Path(shard) for shard in shards], columns, unusable)
    # No name is relative to anything: each record says in which shard its image lies.
    return Source(f"{len(shards)} tar shards", records, Path(), follows=("csv_caption_key",))


def shard_records(shards: list[Path], columns: Columns, unusable: Unusable) -> Iterator[Record]:
    """The samples of all shards, in order. A record says where in its shard the image lies."""
    # Names begin with the shard's name, or with its path where two shards have one name.
    have_own_names = len({shard.name for shard in shards}) == len(shards)
    for shard in shards:
        prefix = shard.name if have_own_names else str(shard)
        try:
            for sample in read_samples(shard):
                name = f"{prefix}/{sample.key}"
                image = next((suffix for suffix in SUFFIXES if suffix in sample.files), None)
                captions = sample_captions(sample, columns)
                if sample.is_repeated:
                    reason = "this key comes twice"
                elif image is None:
                    reason = "no image"
                elif not captions:
                    reason = "no caption"
                else:
                    place = (str(shard.absolute()), *sample.place(image))
                    yield Record(name, captions, place)
                    continue
                unusable.append((name, reason))
        except DAMAGED as error:
            # How many samples are lost is not known, so they cannot be counted as unusable.
            raise BadInput(
                f"{shard}: cut off or damaged ({error}); fetch or make it again, or leave it out"
            ) from None


def sample_captions(sample: Sample, columns: Columns) -> list[str]:
    """The captions of one sample. Empty if there are none, or none that can be read."""
    try:
        if ".txt" in sample.files and not columns.csv_caption_key:
            return clean_captions(lines_of(sample.text(".txt")))
        if ".json" not in sample.files:
            return []
        fields = json.loads(sample.text(".json"))
        values = {name.lower(): value for name, value in fields.items()}
        for key in columns.caption_keys:
            if key.lower() in values:
                return clean_captions(values[key.lower()])
        return []
    except (ValueError, TypeError, AttributeError, RecursionError):
        return []
