"""Formats: what a user brings -> records (see records.py). Recognised by what is there.

    captions.csv, .tsv     a header; columns filepath or image, and title or caption; the delimiter is found
    captions.jsonl         the same fields, an object a line; a caption may be a list
    a folder               pictures with a .txt file of the same name beside each: a caption a line
    a folder of folders    ImageFolder: no texts at all; the caption is LIFT's prompt with the folder's name
    captions_*.json        COCO's: images and annotations
    dataset_*.json         Karpathy's splits of Flickr8k, Flickr30k and COCO; restval belongs to train
    list.json              ALBEF's and LilT's: a list of objects with image and caption (one, or a list)
    cc-{000..329}.tar      WebDataset: KEY.jpg with KEY.txt or KEY.json; :: joins several; or a folder of .tar files

Several rows of one picture are its several captions.
"""

import csv
import itertools
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data.common import BadInput, interpreting
from data.world import shapes

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
IMAGE_KEYS, CAPTION_KEYS = ("filepath", "image", "file_name"), ("title", "caption", "text")
PROMPT = "It is a photo of a {}"  # LIFT's only one
COLUMNS = (
    "--csv-separator",
    "--csv-img-key",
    "--csv-caption-key",
    "--image-root",
)  # flags of every command that reads data
LONGEST = (
    1 << 24
)  # characters of an object in a json list; what is longer is no list of captions, but broken
PROTOCOL = (
    5  # captions of a test picture that count in COCO's and Flickr's protocol; some have more
)


class Source(NamedTuple):
    what: str  # in words
    records: Iterator  # of records, once
    root: Path  # the folder that their names are relative to
    has_splits: bool = False


def open_spec(spec, split, bad, separator="", image_key="", caption_key="", image_root=""):
    """A specification -> Source. BadInput for what is none.

    bad is a list that takes (name, reason) of every entry that cannot be used, while the iterator runs.
    """
    path, keys = (
        Path(spec),
        (
            (image_key,) if image_key else IMAGE_KEYS,
            (caption_key,) if caption_key else CAPTION_KEYS,
        ),
    )
    shards = (
        sorted(path.glob("*.tar"))
        if path.is_dir()
        else braces(spec)
        if re.search(r"\.tar(::|$)", spec)
        else []
    )
    if re.search(r"\.(tar\.\w+|tgz)(::|$)", spec) and not path.is_dir():
        raise BadInput(
            f"{spec}: compressed shards cannot be read in place; decompress them to .tar"
        )
    if shards:
        if missing := [shard for shard in shards if not Path(shard).is_file()]:
            raise BadInput(
                f"{missing[0]}: no such file ({len(missing)} of {len(shards)} shards are missing)"
            )
        return Source(
            f"{len(shards)} tar shards", read_shards(shards, keys[1], bool(caption_key), bad), path
        )
    if path.is_dir():
        return Source(*read_folder(path, bad), path)
    if not path.is_file():
        raise BadInput(
            f"{spec}: no such file or folder; --data takes {', '.join(shapes.WORLDS)}, a csv, tsv, jsonl or json file, "
            ".tar shards, or a folder of pictures"
        )
    suffix = path.suffix.lower()
    if suffix == ".json":
        return read_json(path, split, keys, image_root, bad)
    kind = (
        ("a jsonl file", from_objects(json_lines(path), path, keys, bad))
        if suffix == ".jsonl"
        else read_csv(path, separator, keys, bad)
    )
    return Source(*kind, Path(image_root or path.parent))


# ---------------------------------------------------------------------------------------------------------------
# Files with a row, or an object, a caption.


def read_csv(path, separator, keys, bad):
    """csv or tsv -> (what, records)."""
    with interpreting(path), open(path, "rb") as f:
        raw = f.readline()
    try:
        header = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    if not header.strip():
        raise BadInput(f"{path}: the file is empty; its first line must name the columns")
    separator = separator.replace("\\t", "\t") or max(",\t;|", key=header.count)
    if len(separator) != 1:
        raise BadInput(f"{path}: --csv-separator {separator!r} is not one character")
    try:
        columns = next(csv.reader([header], delimiter=separator, strict=True))
    except csv.Error as error:
        raise BadInput(
            f"{path}: its first line is not readable as the names of columns ({error})"
        ) from None
    image, text = (
        column(
            path,
            columns,
            *key,
            f"; the columns found, separated by {separator!r}, are {', '.join(columns)}",
        )
        for key in zip(keys, ("--csv-img-key", "--csv-caption-key"))
    )
    return f"a table separated by {separator!r}, columns {image} and {text}", csv_records(
        path, separator, image, text, bad
    )


def column(path, found, wanted, flag, more):
    for name in found:
        if name.strip().lower() in [w.lower() for w in wanted]:
            return name
    raise BadInput(
        f"{path}: no {'column' if 'column' in more else 'field'} {' or '.join(wanted)}{more}; name yours with {flag}"
        + (
            " (or is this the first row? Then put a line image,caption above it)"
            if any(Path(name).suffix.lower() in SUFFIXES for name in found)
            else ""
        )
    )


def csv_records(path, separator, image, text, bad):
    with open(path, encoding="utf-8-sig", newline="") as f:
        rows = csv.DictReader(
            f, delimiter=separator, strict=True
        )  # (not strict, a lone quote swallows the rest)
        count = 0
        try:
            for row in rows:
                count += 1
                name, words = (row[image] or "").strip(), " ".join((row[text] or "").split())
                if None in row:
                    bad.append(
                        (
                            f"{path} line {rows.line_num}",
                            "more fields than columns; a caption that holds the "
                            "separator must be quoted",
                        )
                    )
                elif name and words:
                    yield [name, [words]]
                else:
                    bad.append(
                        (f"{path} line {rows.line_num}", f"no {image if not name else text}")
                    )
        except UnicodeDecodeError as error:
            raise BadInput(
                f"{path}: not UTF-8 ({error.reason} after line {rows.line_num}); save it as UTF-8"
            ) from None
        except csv.Error as error:
            raise BadInput(
                f"{path} after line {rows.line_num}: not a readable csv file ({error}); a field that begins with a "
                "quote must end with one, and quotes inside are doubled"
            ) from None
        if not count:
            raise BadInput(f"{path}: a header without rows")


def json_lines(path):
    """A jsonl file -> its objects, with the number of the line."""
    with interpreting(path), open(path, encoding="utf-8-sig") as f:
        for number, line in enumerate(f, 1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except ValueError as error:
                    raise BadInput(f"line {number} is no JSON object ({error})") from None


def json_list(path):
    """A json file that is one list -> its objects, with their number, read as they come: such lists can be huge."""
    decoder, number, gap = json.JSONDecoder(), 0, re.compile(r"\s*,?\s*")
    with interpreting(path), open(path, encoding="utf-8-sig") as f:
        text, at = f.read(1 << 20).lstrip(), 1  # (after the bracket)
        while True:
            at = gap.match(text, at).end()
            if text.startswith("]", at):
                return
            try:
                value, at = decoder.raw_decode(text, at)
            except ValueError as error:
                if len(text) - at > LONGEST or not (more := f.read(1 << 20)):
                    raise BadInput(
                        f"object {number + 1} of the list is cut off or no JSON ({getattr(error, 'msg', error)})"
                    ) from None
                text, at = text[at:] + more, 0
                continue
            number += 1
            yield f"object {number}", value


def from_objects(objects, path, keys, bad):
    """Objects with an image and a caption, or a list of captions -> records."""
    image = text = None
    for where, value in objects:
        if not isinstance(value, dict):
            raise BadInput(
                f"{path}: {where} is no object with {' or '.join(keys[0])} and {' or '.join(keys[1])}"
            )
        if image is None:  # the first says what the fields are called
            image, text = (
                column(path, list(value), *key, f" in {where}; its fields are {', '.join(value)}")
                for key in zip(keys, ("--csv-img-key", "--csv-caption-key"))
            )
        name, captions = value.get(image), clean(value.get(text))
        if isinstance(name, str) and name.strip() and captions:
            yield [name.strip(), captions]
        else:
            bad.append((f"{path} {where}", f"no {image} or no {text}"))


def clean(texts):
    """A caption, or a list of captions -> those that are texts and not empty, with single spaces."""
    texts = texts if isinstance(texts, list) else [texts]
    return [words for text in texts if isinstance(text, str) and (words := " ".join(text.split()))]


def read_json(path, split, keys, image_root, bad):
    """A json file of whatever schema -> Source."""
    with interpreting(path), open(path, encoding="utf-8-sig") as f:
        if f.read(4096).lstrip()[:1] == "[":
            return Source(
                "a json list",
                from_objects(json_list(path), path, keys, bad),
                Path(image_root or path.parent),
            )
        f.seek(0)
        try:
            content = json.load(f)
        except json.JSONDecodeError as error:
            if error.msg == "Extra data":
                raise BadInput(
                    f"more than one JSON value (line {error.lineno}); if it holds an object a line, name it .jsonl"
                ) from None
            raise
        images, what = (
            content.get("images") if isinstance(content, dict) else None,
            "COCO's captions",
        )
        images = images if isinstance(images, list) else []
        try:
            if images and "annotations" in content:
                captions = {}
                for note in content["annotations"]:
                    captions.setdefault(note["image_id"], []).append(note["caption"])
                records = [
                    [image["file_name"].strip(), clean(captions.get(image["id"], []))]
                    for image in images
                ]
            elif images and "sentences" in images[0]:
                wanted = ("train", "restval") if split == "train" else ("test",)
                what = f"Karpathy's split, {' and '.join(wanted)}"
                records = [
                    [
                        str(Path(image.get("filepath", "")) / image["filename"]),
                        clean([s["raw"] for s in image["sentences"]]),
                    ]
                    for image in images
                    if image["split"] in wanted
                ]
            else:
                raise BadInput(
                    "no schema that is known: COCO's (images, annotations), Karpathy's (images with sentences), or a list of "
                    f"objects with {' or '.join(keys[0])} and {' or '.join(keys[1])}"
                )
        except KeyError as error:
            raise BadInput(
                f"an entry without {error}, which {what.split(',')[0]} must have"
            ) from None
        except (AttributeError, TypeError) as error:
            raise BadInput(f"an entry is not as in {what.split(',')[0]} ({error})") from None
        if not records:
            raise BadInput(f"no picture of the split {split}")
    bad += [(name, "no caption") for name, captions in records if not captions]
    last = PROTOCOL if split == "test" else None
    return Source(
        what,
        ([name, captions[:last]] for name, captions in records if captions),
        find_root(path, records[0][0], image_root),
        "sentences" in images[0],
    )


def find_root(path, name, image_root):
    """Where the pictures of a COCO or Karpathy file are: --image-root, or a folder beside or above it that has the first."""
    if image_root:
        return Path(image_root)
    above = path.absolute().parent.parent
    beside = (
        p for up in (path.absolute().parent, above) for p in sorted(up.iterdir()) if p.is_dir()
    )
    return next(
        (root for root in itertools.chain([path.parent, above], beside) if (root / name).is_file()),
        path.parent,
    )


# ---------------------------------------------------------------------------------------------------------------
# Folders and shards.


def read_folder(path, bad):
    """A folder -> (what, records). Sub-folders count."""
    pictures = sorted(
        p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("._")
    )
    if not pictures:
        raise BadInput(f"{path}: no pictures in this folder (looked for {', '.join(SUFFIXES)})")
    texts = {p.with_suffix(""): p for p in path.rglob("*") if p.suffix.lower() == ".txt"}
    if any(
        p.parent == path or p.with_suffix("") in texts for p in pictures
    ):  # (an ImageFolder may have a README.txt)
        return "a folder of pictures with .txt files", folder_records(path, pictures, texts, bad)
    names = [p.relative_to(path) for p in pictures]
    if {name.parts[0] for name in names} <= {"train", "val", "test"}:
        raise BadInput(
            f"{path}: holds splits, not classes; name one of them, and another with --val-data"
        )
    return (
        f"an ImageFolder of {len({name.parts[0] for name in names})} classes",
        ([str(name), [PROMPT.format(class_name(name.parts[0]))]] for name in names),
    )


def class_name(folder):
    return " ".join(folder.replace("_", " ").split())


def folder_records(path, pictures, texts, bad):
    for picture in pictures:
        name = str(picture.relative_to(path))
        if picture.with_suffix("") not in texts:
            bad.append((name, "no .txt file of the same name beside it"))
            continue
        try:
            if captions := clean(
                texts[picture.with_suffix("")].read_text("utf-8-sig").splitlines()
            ):
                yield [name, captions]
            else:
                bad.append((name, "its .txt file is empty"))
        except UnicodeDecodeError:
            bad.append((name, "its .txt file is not UTF-8"))
        except OSError as error:
            bad.append((name, f"its .txt file cannot be read ({error.strerror})"))


def braces(spec):
    """x{08..10}.tar::y{a,b}.tar -> x08.tar, x09.tar, x10.tar, ya.tar, yb.tar"""
    if "::" in spec:
        return [shard for part in spec.split("::") for shard in braces(part)]
    if not (found := re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", spec)):
        return [spec]
    low, high, words = found.groups()
    middle = (
        words.split(",")
        if words
        else [str(i).zfill(len(low)) for i in range(int(low), int(high) + 1)]
    )
    return [
        full
        for part in middle
        for full in braces(spec[: found.start()] + part + spec[found.end() :])
    ]


def read_shards(shards, caption_keys, field, bad):
    """WebDataset's shards, in order -> records. Nothing is unpacked: a record says where in the shard its picture lies.

    A sample is a run of files with the same name up to the first dot. Its captions: of KEY.txt, a line each; without one, or
    where `field` says that a field was named, of KEY.json.
    """
    shards = [Path(shard) for shard in shards]
    short = len({shard.name for shard in shards}) == len(shards)
    for shard in shards:
        begin, seen = f"{shard.name if short else shard}/", set()
        try:
            with tarfile.open(shard, "r:") as tar:
                for key, members in itertools.groupby(
                    tar_members(tar), lambda m: re.match(r"(.*/)?[^/.]*", m.name, re.DOTALL)[0]
                ):
                    files = [
                        member for member in members if member.isfile()
                    ]  # (a link is none: what it points to is not followed)
                    parts = {member.name[len(key) :].lower(): member for member in files}
                    twice = key in seen or len(parts) < len(files)
                    picture = next((parts[suffix] for suffix in SUFFIXES if suffix in parts), None)
                    captions = sample_captions(tar, parts, caption_keys, field)
                    if picture and captions and not twice:
                        yield [
                            begin + key,
                            captions,
                            str(shard.absolute()),
                            picture.offset_data,
                            picture.size,
                        ]
                    else:
                        bad.append(
                            (
                                begin + key,
                                "this key comes twice"
                                if twice
                                else "no caption"
                                if picture
                                else "no picture",
                            )
                        )
                    seen.add(key)
            with open(shard, "rb") as f:
                f.seek(-min(1024, shard.stat().st_size), 2)
                if any(f.read()):
                    raise tarfile.ReadError("it lacks the zeros that end a tar file")
        except (
            tarfile.TarError,
            EOFError,
            ArithmeticError,
            LookupError,
            ValueError,
        ) as error:  # (tarfile does not say all in its own)
            bad.append((str(shard), f"cut off or damaged ({error}); what came before is used"))


def tar_members(tar):
    for member in tar:
        if member.size < 0:
            raise tarfile.ReadError("a file of negative size")  # (which would lead back, for ever)
        if not member.isdir() and not Path(member.name).name.startswith(
            "._"
        ):  # (what macOS puts beside each file)
            yield member


def sample_captions(tar, parts, caption_keys, field):
    """The captions of one sample; [] where there are none, or none that can be read."""

    def content(suffix):
        return tar.extractfile(parts[suffix]).read().decode("utf-8-sig")

    try:
        if ".txt" in parts and not field:
            return clean(content(".txt").splitlines())
        value = json.loads(content(".json")) if ".json" in parts else {}
        return clean(next((value[key] for key in caption_keys if key in value), []))
    except (ValueError, TypeError, RecursionError):
        return []
