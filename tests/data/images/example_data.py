"""Small data sets in every format, as their authors lay them out, and what they must be read as.

Image number i is of one colour, (10 i, 0, 200), and its name ends in i. So names, captions and
pixels prove that they belong together.
"""

import csv
import io
import json
import re
import struct
import tarfile
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.images.formats import Columns

# --------------------------------------------------------------------------------------------------
# Files.


def colour(i):
    return np.array((10 * i, 0, 200))


def image_file(i, kind="png", size=(12, 9)):
    """The bytes of image number i."""
    file = io.BytesIO()
    Image.new("RGB", size, tuple(colour(i).tolist())).save(file, kind)
    return file.getvalue()


def saved(mode, kind, value, size=(9, 9), **more):
    """The bytes of an image of another mode."""
    file = io.BytesIO()
    Image.new(mode, size, value).save(file, kind, **more)
    return file.getvalue()


def animation():
    """A GIF of two frames, of which the second is green."""
    file = io.BytesIO()
    green = Image.new("RGB", (9, 9), (0, 255, 0))
    Image.new("RGB", (9, 9), (50, 0, 200)).save(file, "gif", save_all=True, append_images=[green])
    return file.getvalue()


def png_chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(width, height, *chunks):
    """A PNG file that claims this size, whatever is in it."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + png_chunk(b"IEND", b"")


def put(path, content):
    """Write bytes, a text, or a value as JSON, and make the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, (bytes, str)):
        content = json.dumps(content)
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content)
    return path


def tar(path, members):
    """{name: bytes, text or TarInfo}, or a list of such pairs -> a tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items() if isinstance(members, dict) else members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                file.addfile(content)
                continue
            if isinstance(content, str):
                content = content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pairs(images):
    """{name: captions}, once every image is seen to have the colour that its name says."""
    for i, name in enumerate(images.names):
        number = int(re.findall(r"\d+", name)[-1]) % 1000
        # JPEG is not exact.
        assert np.abs(images.pixels([i])[0] - colour(number)).max() <= 4, name
    assert len(set(images.names)) == len(images)
    return dict(zip(images.names, images.captions, strict=True))


def write_list(kind, folder, names, captions):
    """Names and captions as a csv, jsonl or json file, or as shards."""
    rows = [{"image": n, "caption": c} for n, c in zip(names, captions, strict=True)]
    if kind == "csv":
        with open(folder / "a.csv", "w", newline="", encoding="utf-8") as file:
            table = [("image", "caption"), *zip(names, captions, strict=True)]
            csv.writer(file).writerows(table)
        return folder / "a.csv"
    if kind == "jsonl":
        return put(folder / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    if kind == "json":
        return put(folder / "a.json", rows)
    members = []
    for i, row in enumerate(rows):
        members.append((row["image"] + ".png", image_file(i)))
        members.append((row["image"] + ".json", json.dumps({"caption": row["caption"]})))
    return tar(folder / "a.tar", members)


# --------------------------------------------------------------------------------------------------
# The formats, in their official layouts. Each function makes one under a folder.


class Made(NamedTuple):
    spec: object  # what --data is to name
    columns: Columns
    train: dict  # {name: captions} that must be read
    test: dict


def made(spec, wanted, **columns):
    return Made(spec, Columns(**columns), wanted, wanted)


def tsv(folder):
    """open_clip's: tab, filepath, title."""
    rows = []
    for i in range(6):
        path = put(folder / f"img/{i}.png", image_file(i))
        rows.append((path.relative_to(folder), f'number {i}, "quoted"'))
    with open(folder / "a.tsv", "w", newline="") as file:
        table = [("filepath", "title"), *rows, (rows[2][0], "again")]
        csv.writer(file, delimiter="\t").writerows(table)
    wanted = {f"img/{i}.png": [f'number {i}, "quoted"'] for i in range(6)}
    wanted["img/2.png"].append("again")
    return made(folder / "a.tsv", wanted)


def jsonl(folder):
    lines, wanted = [], {}
    for i in range(6):
        name = put(folder / f"{i}.png", image_file(i)).name
        caption = f"it is  {i}" if i % 2 else [f"it is {i}", f"or\n{i}", ""]
        wanted[name] = [f"it is {i}"] if i % 2 else [f"it is {i}", f"or {i}"]
        lines.append({"image": name, "caption": caption, "more": None})
    put(folder / "a.JSONL", "\ufeff" + "\n\n".join(map(json.dumps, lines)))
    return made(folder / "a.JSONL", wanted)


def texts(folder):
    for i in range(6):
        put(folder / f"deep.er/{i}.JPG", image_file(i, "jpeg"))
        suffix = "txt" if i % 2 else "TXT"
        put(folder / f"deep.er/{i}.{suffix}", f"\ufeffit\u2028is {i}\r\n\r\nor {i}\n")
    return made(folder, {f"deep.er/{i}.JPG": [f"it is {i}", f"or {i}"] for i in range(6)})


def imagefolder(folder):
    wanted = {}
    for i in range(6):
        class_folder = ["great_dane", "cat"][i % 2]
        name = f"{class_folder}/n{i}.JPEG"
        put(folder / name, image_file(i, "jpeg"))
        wanted[name] = [f"It is a photo of a {['great dane', 'cat'][i % 2]}"]
    put(folder / "README.txt", "no caption")
    return made(folder, wanted)


def coco(folder):
    """cocodataset.org: annotations/captions_val2017.json beside val2017; notes in no order."""
    notes, images = [], []
    for k in range(6):
        for i in range(6):
            caption = f"number {i}, caption {k}.\n"
            notes.append({"image_id": 900 + i, "id": 10 * k + i, "caption": caption})
    for i in reversed(range(6)):
        name = f"{i:012}.jpg"
        put(folder / "val2017" / name, image_file(i, "jpeg"))
        image = {"license": 1, "file_name": name, "coco_url": "", "height": 9, "width": 12}
        images.append(image | {"id": 900 + i})
    content = {"info": {}, "licenses": [], "annotations": notes, "images": images}
    spec = put(folder / "annotations/captions_val2017.json", content)
    every = {f"{i:012}.jpg": [f"number {i}, caption {k}." for k in range(6)] for i in range(6)}
    first_five = {name: captions[:5] for name, captions in every.items()}
    return Made(spec, Columns(), every, first_five)


def karpathy_entry(i, split, n_captions, **more):
    sentences = [
        {"raw": f" number {i}, caption {k} .", "tokens": ["number"], "imgid": i, "sentid": k}
        for k in range(n_captions)
    ]
    return {"filename": f"x_{i}.jpg", "imgid": i, "split": split, **more, "sentences": sentences}


def karpathy_captions(i, n_captions):
    return [f"number {i}, caption {k} ." for k in range(n_captions)]


def flickr8k(folder):
    entries = []
    for i, split in enumerate(["train", "val", "test", "train", "test", "train"]):
        put(folder / f"Flicker8k_Dataset/x_{i}.jpg", image_file(i, "jpeg"))
        entries.append(karpathy_entry(i, split, 5))
    spec = put(folder / "dataset_flickr8k.json", {"dataset": "flickr8k", "images": entries})
    train = {f"x_{i}.jpg": karpathy_captions(i, 5) for i in (0, 3, 5)}
    test = {f"x_{i}.jpg": karpathy_captions(i, 5) for i in (2, 4)}
    return Made(spec, Columns(), train, test)


def karpathy_coco(folder):
    entries, names = [], []
    for i, split in enumerate(["train", "restval", "val", "test", "train", "test"]):
        where = "train2014" if split == "train" else "val2014"
        names.append(f"{where}/x_{i}.jpg")
        put(folder / "coco" / names[i], image_file(i, "jpeg"))
        entries.append(karpathy_entry(i, split, 6, filepath=where, cocoid=70 + i))
    spec = put(folder / "json/dataset_coco.json", {"dataset": "coco", "images": entries})
    train = {names[i]: karpathy_captions(i, 6) for i in (0, 1, 4)}
    test = {names[i]: karpathy_captions(i, 5) for i in (3, 5)}
    return Made(spec, Columns(), train, test)


def albef(folder):
    """coco_train.json: paths relative to a root that the user names; one caption, or a list."""
    rows, wanted = [], {}
    for i in range(6):
        name = f"val2014/{i}.jpg"
        put(folder / "pics" / name, image_file(i, "jpeg"))
        wanted[name] = [f"list {i}", f"of {i}"] if i % 2 else [f"text {i}"]
        caption = [f"list {i}", f"of {i}"] if i % 2 else f"text {i}"
        rows.append({"image": name, "caption": caption, "image_id": f"coco_{i}"})
    rows.append({"caption": "late", "image": "val2014/0.jpg", "image_id": "coco_0"})
    wanted["val2014/0.jpg"].append("late")
    spec = put(folder / "coco_train.json", rows)
    return made(spec, wanted, image_root=str(folder / "pics"))


def shards(folder):
    """Ranges, alternatives, two sources; folders and dots in keys, .TXT and .JPG, .cls between."""
    wanted = {}
    for i in range(6):
        name = f"{'ab'[i // 3]}-{i % 3 + 9:03}.tar"
        members = {
            f"v1.0/k_{i}.cls": "7",
            f"v1.0/k_{i}.{'JPG' if i % 2 else 'jpg'}": image_file(i, "jpeg"),
            f"v1.0/k_{i}.TXT": f"number {i}\nor {i}\n",
        }
        tar(folder / name, members)
        wanted[f"{name}/v1.0/k_{i}"] = [f"number {i}", f"or {i}"]
    sources = ("a-{009..010}.tar", "{a-011,b-009}.tar", "b-{010..011}.tar")
    return made("::".join(f"{folder}/{source}" for source in sources), wanted)


def shards_json(folder):
    """img2dataset's: .jpg, .json, .txt; a field that is named wins over .txt. A folder of tars."""
    wanted = {}
    for s in range(2):
        members = []
        for i in range(3 * s, 3 * s + 3):
            fields = {"alt": [f"alt {i}", 7, f"or {i}"], "key": "k"}
            members.append((f"{s}000{i}.jpg", image_file(i, "jpeg")))
            members.append((f"{s}000{i}.json", json.dumps(fields)))
            members.append((f"{s}000{i}.txt", "not this"))
            wanted[f"0000{s}.tar/{s}000{i}"] = [f"alt {i}", f"or {i}"]
        tar(folder / f"0000{s}.tar", members)
    put(folder / "sizes.json", {"00000.tar": 3})
    return made(folder, wanted, csv_caption_key="alt")


def shards_fields(folder):
    """No .txt: the usual fields of .json, in small or capital letters."""
    members = []
    for i in range(6):
        field = ["title", "Caption", "TEXT"][i % 3]
        members.append((f"{i}.json", json.dumps({"url": "u", field: f"it is {i}"})))
        members.append((f"{i}.png", image_file(i)))
    spec = tar(folder / "a.tar", members)
    return made(spec, {f"a.tar/{i}": [f"it is {i}"] for i in range(6)})


ALL_FORMATS = [
    tsv,
    jsonl,
    texts,
    imagefolder,
    coco,
    flickr8k,
    karpathy_coco,
    albef,
    shards,
    shards_json,
    shards_fields,
]
