"""data/images/formats.py: every format, pair by pair; and what goes wrong.

python -m pytest tests/data/images/test_formats.py
"""

import csv

import pytest
from PIL import Image

from data.common import BadInput
from data.images.formats import Columns, Record, join_by_name, open_spec
from data.images.pack import pack
from data.images.read import captions_of, read_images
from tests.data.images.example_data import (
    ALL_FORMATS,
    contents,
    image_file,
    pairs,
    put,
    write_list,
)


@pytest.mark.parametrize("make", ALL_FORMATS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("split", ["train", "test"])
def test_pair_by_pair_and_packed(make, split, tmp_path, capsys):
    made = make(tmp_path / "in")
    spec, columns = str(made.spec), made.columns
    wanted = made.test if split == "test" else made.train
    images = read_images(spec, split, 8, columns, whole=True)
    assert pairs(images) == wanted and images.skipped == ()
    assert capsys.readouterr().err.count(f"{len(wanted)} images of 12 x 9 pixels") == 1

    for out in ("one", "two"):
        pack(spec, tmp_path / out, 8, split, columns)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    packed = read_images(str(tmp_path / "one"), split, 8, whole=True)
    assert pairs(packed) == wanted and packed.names == images.names
    assert (packed.digests == images.digests).all()


def test_records_of_one_name_are_joined_in_the_order_of_first_appearance():
    """The example of the docstring, in shards: the place of the first one counts."""
    records = [
        Record("1.png", ["a dog"], ("a.tar", 512, 9)),
        Record("2.png", ["a cat"], ("a.tar", 1024, 9)),
        Record("1.png", ["a brown dog"], ("a.tar", 2048, 9)),
        Record("2.png", ["a cat", "two"], ("a.tar", 4096, 9)),
    ]
    assert join_by_name(iter(records)) == [
        Record("1.png", ["a dog", "a brown dog"], ("a.tar", 512, 9)),
        Record("2.png", ["a cat", "a cat", "two"], ("a.tar", 1024, 9)),
    ]
    assert join_by_name([]) == []


# --------------------------------------------------------------------------------------------------
# Tables.


@pytest.fixture
def photos(tmp_path):
    """Twenty-four images of one colour in a folder; number i is (10 i, 0, 200)."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(24):
        Image.new("RGB", (40, 30), (10 * i, 0, 200)).save(folder / f"{i}.png")
    return folder


def write_csv(path, rows, delimiter=",", encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return str(path)


def photo_rows(header=("filepath", "title")):
    return [header] + [(f"photos/{i}.png", f"image {i}, with a comma") for i in range(24)]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize(
    "header", [("filepath", "title"), ("image", "caption"), ("Image", " Caption ")]
)
def test_csv_pairs(photos, tmp_path, delimiter, header):
    file = write_csv(tmp_path / "list.txt", photo_rows(header), delimiter, encoding="utf-8-sig")
    images = read_images(file, "train", 16, whole=True)
    assert len(images) == 24 and images.pixels([3, 4]).shape == (2, 16, 16, 3)
    for i in range(24):
        assert images.captions[i] == [f"image {i}, with a comma"]
        assert (images.pixels([i])[0] == (10 * i, 0, 200)).all()


def test_named_columns_and_separator(photos, tmp_path):
    rows = [("id", "photo,raw", "words")]
    rows += [(i, f"photos/{i}.png", f"w {i}") for i in range(24)]
    file = write_csv(tmp_path / "a.csv", rows, ";")
    columns = Columns(";", "photo,raw", "words")
    assert read_images(file, "train", 16, columns, whole=True).captions[5] == ["w 5"]
    assert captions_of(file, "train", columns) == read_images(file, "train", 16, columns).captions


def test_several_rows_are_several_captions(photos, tmp_path):
    rows = photo_rows() + [("photos/2.png", "again\nin two  lines")]
    images = read_images(write_csv(tmp_path / "a.csv", rows), "train", 16, whole=True)
    assert len(images) == 24
    assert images.captions[2] == ["image 2, with a comma", "again in two lines"]


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "empty"),
        ("filepath,title\n", "without rows"),
        ("a,b\n1,2\n", "columns found, separated by ',', are a, b"),
        ("filepath;words\nx;y\n", "separated by ';', are filepath, words"),
        (
            "filepath,title\nnowhere.png,x\n",
            "none of its 1 entries.*nowhere.png: no such file.*relative to the file",
        ),
        ("filepath,title\nx.png,\n", "none of its 1 entries.*line 2: no title"),
        (b"filepath,title\nx.png,\xff\xfe\n", "not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\0\0\0", "not UTF-8"),
        (b"filepath,title\na\0b,c\n", "none of its"),
        ("filepath,title\nx.png,a dog, a cat\n", "line 2: more fields than columns"),
        ('filepath,title\nx.png,"a lone quote\ny.png,b\n', "after line 1: not a readable csv"),
    ],
    ids=str,
)
def test_bad_csv(tmp_path, text, says):
    file = put(tmp_path / "bad.csv", text)
    with pytest.raises(BadInput, match=says) as error:
        read_images(str(file), "train", 16)
    assert str(tmp_path) in str(error.value)


# --------------------------------------------------------------------------------------------------
# Folders and json files.


def test_folder(photos):
    for i in range(24):
        (photos / f"{i}.txt").write_text(f"image {i}\n\nor number {i}\n")
    (photos / "deep").mkdir()
    Image.new("L", (9, 9)).save(photos / "deep" / "x.JPG", format="jpeg")
    (photos / "deep" / "x.txt").write_text("a black one")
    images = read_images(str(photos), "train", 16, whole=True)
    assert len(images) == 25 and ["a black one"] in images.captions
    i = images.names.index("7.png")
    assert images.captions[i] == ["image 7", "or number 7"]
    assert (images.pixels([i])[0] == (70, 0, 200)).all()


def test_a_long_json_list(tmp_path):
    """All objects come, each with its number, and in order."""
    rows = [{"image": f"{i}.png", "caption": "x" * (i % 97)} for i in range(40_000)]
    put(tmp_path / "a.json", rows)
    unusable = []
    records = list(open_spec(str(tmp_path / "a.json"), "train", unusable).records)
    assert records == [Record(r["image"], [r["caption"]]) for r in rows if r["caption"]]
    without = [f"{tmp_path / 'a.json'} object {i + 1}" for i in range(0, 40_000, 97)]
    assert unusable == [(name, "no image or no caption") for name in without]


# --------------------------------------------------------------------------------------------------
# What users get wrong.

IMAGE_1 = '{"image": "1.png", "caption": "x"}'
COCO_IMAGE = {"id": 1, "file_name": "1.png"}


@pytest.mark.parametrize(
    "file, content, columns, says",
    [
        (
            "a.csv",
            "image,caption\n1.png,x",
            {"csv_separator": ";"},
            "no column filepath or image.*separated by ';', are image,caption",
        ),
        (
            "a.csv",
            "image,caption\n1.png,x",
            {"csv_separator": "ab"},
            "--csv-separator 'ab' is not one character",
        ),
        ("a.csv", "caption,image\n1.png,x", {}, "columns of images and captions look exchanged"),
        (
            "a.csv",
            "image,caption\n/home/her/1.png,x",
            {},
            "no such file.*a path of another machine\\? .*--image-root",
        ),
        ("a.csv", "image,caption\n1.PNG,x", {}, "1.PNG: no such file"),
        ("a.csv", "image,caption\n1.png,  \n", {}, "line 2: no caption"),
        ("a.csv", "image,caption\n1.png\n", {}, "line 2: no caption"),
        ("a.csv", "image,caption\n1.png,x".encode("utf-16"), {}, "not UTF-8"),
        ("a.csv", b"image,caption\n1.png,caf\xe9", {}, "not UTF-8"),
        (
            "a.jsonl",
            b'{"image": "1.png", "caption": "caf\xe9"}',
            {},
            "a.jsonl: truncated, corrupt.*utf-8",
        ),
        ("a.jsonl", IMAGE_1 + '\n{"image": "1.', {}, "a.jsonl: line 2 is no JSON"),
        ("a.jsonl", '["image"]', {}, "line 1 is no object"),
        ("a.jsonl", '{"image": "1.png"}', {}, "no field title.* in line 1; its fields are image"),
        ("a.jsonl", '{"image": null, "caption": "x"}', {}, "line 1: no image or no caption"),
        (
            "a.jsonl",
            '{"image": "1.png", "caption": {"en": "x"}}',
            {},
            "line 1: no image or no caption",
        ),
        (
            "a.jsonl",
            '{"image": "1.png", "caption": [[], 3, null, ""]}',
            {},
            "line 1: no image or no caption",
        ),
        ("a.jsonl", "", {}, "a jsonl file, but empty"),
        ("a.jsonl", "[" * 100_000, {}, "RecursionError"),
        ("a.json", "", {}, "a.json: truncated, corrupt"),
        ("a.json", {}, {}, "no schema that is known"),
        ("a.json", [], {}, "a json list, but empty"),
        ("a.json", "[" * 100_000, {}, "RecursionError"),
        ("a.json", '[{"image": "1.png"', {}, "a.json: truncated, corrupt.*line 1 column 19"),
        ("a.json", ["1.png"], {}, "object 1 is no object"),
        ("a.json", "null", {}, "no schema"),
        ("a.json", {"images": {"a": {}}}, {}, "no schema"),
        (
            "a.json",
            f"{IMAGE_1}\n{IMAGE_1}",
            {},
            "more than one JSON value.*name it .jsonl",
        ),
        (
            "a.json",
            {"images": [COCO_IMAGE], "annotations": [{"id": 1, "caption": "x"}]},
            {},
            "an entry without 'image_id'",
        ),
        (
            "instances.json",
            {"images": [COCO_IMAGE], "annotations": [{"image_id": 1, "bbox": []}]},
            {},
            "an entry without 'caption', which COCO's captions must have",
        ),
        (
            "a.json",
            {"images": [COCO_IMAGE], "annotations": [{"image_id": "1", "caption": "x"}]},
            {},
            "1.png: no caption",
        ),
        (
            "a.json",
            {"images": [{"id": 1, "file_name": 5}], "annotations": []},
            {},
            "an entry is not as in COCO's captions",
        ),
        (
            "a.json",
            {"images": [{"id": 1, "file_name": None}], "annotations": None},
            {},
            "an entry is not as in COCO's captions",
        ),
        (
            "a.json",
            {"images": [None], "annotations": []},
            {},
            "an entry is not as in COCO's captions",
        ),
        (
            "a.json",
            {"images": [{"filename": "1.png", "sentences": [{"raw": "x"}]}]},
            {},
            "an entry without 'split', which Karpathy's split must have",
        ),
        (
            "a.json",
            {"images": [{"filename": "1.png", "split": "train", "sentences": None}]},
            {},
            "an entry is not as in Karpathy's split",
        ),
        (
            "a.json",
            {"images": [{"filename": "1.png", "split": "val", "sentences": [{"raw": "x"}]}]},
            {},
            "no image of the split train",
        ),
        ("a.tar", "", {}, "cut off or damaged .empty file"),
        ("a.tar", b"\x1f\x8b" + bytes(600), {}, "cut off or damaged"),
        ("a.tar.gz", b"\x1f\x8b", {}, "compressed shards cannot be read in place; decompress them"),
        ("a.tgz", b"\x1f\x8b", {}, "compressed shards"),
    ],
    ids=lambda value: None,
)
def test_lists_that_cannot_be_read(tmp_path, file, content, columns, says):
    put(tmp_path / "1.png", image_file(1))
    spec = str(put(tmp_path / file, content))
    with pytest.raises(BadInput, match=says) as error:
        read_images(spec, "train", 8, Columns(**columns), whole=True)
    assert str(tmp_path / file) in str(error.value)


def test_bad_specifications(tmp_path):
    for spec, says in (
        (str(tmp_path), "no images in this folder"),
        ("nowhere.csv", "no such file or folder"),
        ("shape", "no such file or folder; --data takes shapes"),
    ):
        with pytest.raises(BadInput, match=says):
            read_images(spec, "train", 16)
    Image.new("RGB", (8, 8)).save(tmp_path / "alone.png")
    with pytest.raises(BadInput, match="no .txt file of the same name"):
        read_images(str(tmp_path), "train", 16)


def test_long_odd_captions_are_kept(tmp_path):
    put(tmp_path / "1.png", image_file(1))
    for text in (
        " ".join(f"word{i}" for i in range(10_000)),
        'a "quote", a;semi\tcolon',
        "ünï 🦊 \u202e back",
        "'; drop table",
    ):
        for kind in ("csv", "jsonl", "json"):
            spec = write_list(kind, tmp_path, ["1.png"], [text])
            images = read_images(str(spec), "train", 8, whole=True)
            assert images.captions == [[" ".join(text.split())]]
