"""data/images/formats.py: every format, pair by pair; and what goes wrong.

python -m pytest tests/data/images/test_formats.py
"""

import csv
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

import data.images.formats
from data.common import BadInput
from data.images.formats import (
    CAPTION_KEYS,
    IMAGE_KEYS,
    Columns,
    Record,
    join_by_name,
    open_spec,
    split_rows,
)
from data.images.pack import pack
from data.images.read import captions_of, read_images
from tests.data.images import example_data
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
    assert pairs(images) == wanted and images.unusable == ()
    said = capsys.readouterr().err
    assert said.count(f"{len(wanted)} images of 12 x 9 pixels") == 1 and "no effect" not in said

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


def test_flags_that_cannot_be_right_are_refused(tmp_path):
    path = str(put(tmp_path / "a.csv", "filepath,title\nx.png,a\n"))
    both = Columns(csv_img_key="title", csv_caption_key="title")
    with pytest.raises(BadInput, match="the column title is named for images and for captions"):
        open_spec(path, "train", [], both)
    with pytest.raises(BadInput, match="are filepath,title, so --csv-separator may be wrong"):
        open_spec(path, "train", [], Columns(csv_separator=";"))


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
        ("image,caption,caption\nx.png,a,b\n", "2 columns are called caption; rename them"),
        (b"PK\x03\x04,title\n", "no table, but a zip file"),
        (b"\x1f\x8b\x08,title\n", "no table, but a gzip file; unpack it"),
        (b"PAR1\x15\x04\x15\n", "a parquet file; write it as csv"),
        ("caption\nx\n", r"are caption; name yours with --csv-img-key$"),
        ("filepath,title\nhttp://x/1.png,x\n", "nothing is downloaded"),
        ("filepath,title\nimages\\1.png,x\n", "a path of Windows"),
        ("image,caption\nx.png,a\n".encode("utf-16"), "not UTF-8"),
        (
            "filepath,title\nnowhere.png,x\n",
            "none of its 1 entries.*nowhere.png: no such file.*relative to the file",
        ),
        ("filepath,title\nx.png,\n", "none of its 1 entries.*line 2: no title"),
        (b"filepath,title\nx.png,\xff\xfe\n", "not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\0\0\0", "not UTF-8"),
        (b"filepath,title\na\0b,c\n", "none of its"),
        ("filepath,title\nx.png,a dog, a cat\n", "line 2: more fields than columns"),
        (
            'filepath,title\nx.png,"a lone quote\n',
            "none of its 1 entries .* line 2: not readable .unexpected end of data.; a field that",
        ),
        ('filepath,"title\nx.png,b\n', "its first line is not readable as the names of columns"),
    ],
    ids=str,
)
def test_bad_csv(tmp_path, text, says):
    file = put(tmp_path / "bad.csv", text)
    with pytest.raises(BadInput, match=says) as error:
        read_images(str(file), "train", 16)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    "separator, lines, rows",
    [
        # CC3M's: a quote that is never closed, or closed in another row.
        (
            "\t",
            ['"a dog\t1.png\n', "\r\n", 'a 24" dog\t2.png\r\n', '"so" it is\t3.png'],
            [(1, ['"a dog', "1.png"]), (3, ['a 24" dog', "2.png"]), (4, ['"so" it is', "3.png"])],
        ),
        # Quoted as csv.writer and pandas do it.
        ("\t", ['"a ""dog"",\there"\t1.png\n'], [(1, ['a "dog",\there', "1.png"])]),
        ("\t", ['1.png\t"two\n', 'lines"\n'], [(1, ["1.png", '"two']), (2, ['lines"'])]),
        # The example of the docstring.
        (
            ",",
            ['1.png,"a dog,\n', 'asleep"\n', "2.png,a cat\n"],
            [(2, ["1.png", "a dog,\nasleep"]), (3, ["2.png", "a cat"])],
        ),
        # What an open quote took is read again, and may be quoted rightly.
        (
            ";",
            ['1;"a\n', "2;b\n", '3;"c;\n', 'd"\n', '4;"e" f\n', '5;"g'],
            [
                (1, "not readable (';' expected after '\"'"),
                (2, ["2", "b"]),
                (4, ["3", "c;\nd"]),
                (5, "not readable (';' expected after '\"'"),
                (6, "not readable (unexpected end of data"),
            ],
        ),
        (",", [], []),
    ],
)
def test_rows_by_hand(separator, lines, rows):
    found = [
        (number, fields.split(")")[0] if isinstance(fields, str) else fields)
        for number, fields in split_rows(lines, separator)
    ]
    assert found == rows


def test_an_open_quote_in_a_tsv_is_a_part_of_the_caption(tmp_path):
    """Each caption begins with one, and the first is longer than the csv module allows."""
    words = ["x" * 200_000] + [f"caption {i}" for i in range(20_000)]
    lines = [f'"{word}\t{i}.png\n' for i, word in enumerate(words)]
    file = put(tmp_path / "a.tsv", "title\tfilepath\n" + "".join(lines))
    unusable = []
    records = list(open_spec(str(file), "train", unusable).records)
    assert records == [Record(f"{i}.png", [f'"{word}']) for i, word in enumerate(words)]
    assert unusable == []


def test_an_open_quote_in_a_csv_costs_its_own_row(tmp_path):
    lines = [f"{i}.png,number {i}\n" for i in range(1000)]
    lines[7] = '7.png,"number 7\n'
    lines[900] = '900.png,"number 900, says "me"\n'
    file = put(tmp_path / "a.csv", "image,caption\n" + "".join(lines))
    unusable = []
    records = list(open_spec(str(file), "train", unusable).records)
    assert records == [
        Record(f"{i}.png", [f"number {i}"]) for i in range(1000) if i not in (7, 900)
    ]
    reason = (
        "not readable (',' expected after '\"'); a field that begins with a quote must end with "
        "one, and quotes inside are doubled"
    )
    assert unusable == [(f"{file} line 9", reason), (f"{file} line 902", reason)]


def test_the_names_of_columns_are_those_of_the_docs(photos, tmp_path):
    page = " ".join((Path(__file__).parents[3] / "docs/data.md").read_text().split())
    for part, names in (("image", IMAGE_KEYS), ("caption", CAPTION_KEYS)):
        listed = re.search(rf"The column of the {part} may be called (.*?)\.", page)[1]
        assert tuple(re.findall(r"`(\w+)`", listed)) == names

    # Each of them is understood, and the first one is taken.
    for i, image_key in enumerate(IMAGE_KEYS):
        for j, caption_key in enumerate(CAPTION_KEYS):
            header = [*IMAGE_KEYS[:i:-1], image_key, *CAPTION_KEYS[:j:-1], caption_key]
            row = ["not this"] * len(header)
            row[header.index(image_key)], row[-1] = "photos/1.png", "this"
            for spec in (
                write_csv(tmp_path / "a.csv", [header, row]),
                put(tmp_path / "a.json", [dict(zip(header, row, strict=True))]),
            ):
                images = read_images(str(spec), "train", 8, whole=True)
                assert images.names == ["photos/1.png"] and images.captions == [["this"]]

    file = write_csv(tmp_path / "a.csv", [("a", "b"), ("c", "d")])
    with pytest.raises(BadInput, match=f"no column {' or '.join(IMAGE_KEYS)};"):
        read_images(file, "train", 8)


# --------------------------------------------------------------------------------------------------
# A column of splits.


def write_splits(kind, folder, rows):
    """Rows (name, caption, split) as a file of this kind, and an image of each name."""
    for i in range(12):
        put(folder / f"{i}.png", image_file(i))
    keys = ("image", "caption", "split")
    objects = [dict(zip(keys, row, strict=True)) for row in rows]
    if kind == "json":
        return put(folder / "a.json", objects)
    if kind == "jsonl":
        return put(folder / "a.jsonl", "\n".join(map(json.dumps, objects)))
    return write_csv(folder / f"a.{kind}", [keys, *rows], "," if kind == "csv" else "\t")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json"])
def test_a_column_of_splits_is_followed(kind, tmp_path, capsys):
    words = ["train", "val", "test", "Train ", "valid", "TEST"]
    words += ["restval", "validation", "train", "dev", "train", "train"]
    rows = [(f"{i}.png", f"it is {i}", word) for i, word in enumerate(words)]
    rows += [("3.png", "again", "train"), ("2.png", "again", "test")]
    # What cannot be used counts in its own split.
    rows += [("", "no image", "test"), ("7.png", "", "val")]
    spec = str(write_splits(kind, tmp_path, rows))
    for split, numbers, unusable in (("train", (0, 3, 6, 8, 10, 11), 0), ("test", (2, 5), 1)):
        wanted = {f"{i}.png": [f"it is {i}"] for i in numbers}
        wanted["3.png" if split == "train" else "2.png"].append("again")
        lacking = []
        source = open_spec(spec, split, lacking)
        assert source.has_splits and join_by_name(source.records) == [
            Record(name, captions) for name, captions in wanted.items()
        ]
        assert len(lacking) == unusable
    # Nothing else is held out of the training rows.
    for whole in (False, True):
        images = read_images(spec, "train", 8, whole=whole)
        assert pairs(images) == {
            "0.png": ["it is 0"],
            "3.png": ["it is 3", "again"],
            **{f"{i}.png": [f"it is {i}"] for i in (6, 8, 10, 11)},
        }
    said = capsys.readouterr().err
    assert f"{spec}: split train of a" in said and "held out" not in said


def test_a_row_without_a_known_split_is_skipped_and_counts_in_training(tmp_path, capsys):
    rows = [(f"{i % 6}.png", f"caption {i}", "train") for i in range(40)]
    rows += [("9.png", "a typing error", "tset"), ("10.png", "cut off"), ("11.png", "held", "test")]
    # Its captions hold the separator, so nobody knows where its split is.
    rows += [("10.png", "one", "two", "test")]
    spec = str(write_splits("csv", tmp_path, rows[:40]))
    write_csv(tmp_path / "a.csv", [("image", "caption", "split"), *rows])
    with pytest.raises(BadInput, match="3 of 9 entries .* line 42: split 'tset' is none of train"):
        read_images(spec, "train", 8)
    said = capsys.readouterr().err
    assert "line 43: split None is none of" in said and "line 45: more fields than colu" in said
    assert pairs(read_images(spec, "test", 8)) == {"11.png": ["held"]}


@pytest.mark.parametrize(
    "words, split, says",
    [
        (
            ["fold1", "fold2"],
            "train",
            "none of its 2 entries.*line 2: split 'fold1' is none of train, restval, .*, test .to "
            "have splits ignored, rename split.",
        ),
        (["fold1", "fold2"], "test", "split test of a table .*, but empty"),
        (["", ""], "train", "none of its 2 entries.*line 2: split '' is none of train"),
        (
            ["val", "val"],
            "test",
            "a.csv: no image of the split test; split has val, and train, .*to have splits",
        ),
        (
            ["train", "dev"],
            "test",
            "no image of the split test; split has train, val, and .*to have",
        ),
        (["test", "test"], "train", "no image of the split train; split has test, and .*to have"),
        (["training", "val"], "train", "no image of the split train; split has training, val, and"),
        (
            ["train", "test", "test"],
            "train",
            "a.csv: 0.png is in two splits, train and, in line 4, test; an image must be in one",
        ),
    ],
)
def test_splits_that_cannot_be_followed(tmp_path, words, split, says):
    rows = [(f"{i % 2}.png", "a caption", word) for i, word in enumerate(words)]
    spec = write_splits("csv", tmp_path, rows)
    with pytest.raises(BadInput, match=says) as error:
        read_images(str(spec), split, 8)
    assert str(error.value).startswith(str(tmp_path / "a.csv"))


# --------------------------------------------------------------------------------------------------
# Folders and json files.


@pytest.mark.parametrize("splits", [("train", "test"), ("Train", "valid"), ("training", "cat")])
def test_a_folder_of_splits_is_no_folder_of_classes(tmp_path, splits):
    for i, split in enumerate(splits):
        put(tmp_path / f"{split}/{i}.png", image_file(i))
    if "cat" in splits:
        assert len(read_images(str(tmp_path), "train", 8, whole=True)) == 2
        return
    with pytest.raises(BadInput, match="holds splits, not classes"):
        read_images(str(tmp_path), "train", 8, whole=True)


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


def test_a_text_that_is_a_pipe_or_too_long_is_left_out(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(data.images.formats, "MAX_TEXT_BYTES", 9)
    put(tmp_path / "f" / "0.png", image_file(0))
    put(tmp_path / "f" / "0.txt", "nine char")
    put(tmp_path / "f" / "1.png", image_file(1))
    put(tmp_path / "f" / "1.txt", "ten charac")
    put(tmp_path / "f" / "2.png", image_file(2))
    os.mkfifo(tmp_path / "f" / "2.txt")
    unusable = []
    records = open_spec(str(tmp_path / "f"), "train", unusable).records
    assert [record.name for record in records] == ["0.png"]
    assert unusable == [
        (f"{i}.png", "its .txt file is no regular file, or too long") for i in (1, 2)
    ]


def test_a_long_json_list(tmp_path):
    """All objects come, each with its number, and in order."""
    rows = [{"image": f"{i}.png", "caption": "x" * (i % 97)} for i in range(40_000)]
    put(tmp_path / "a.json", rows)
    unusable = []
    records = list(open_spec(str(tmp_path / "a.json"), "train", unusable).records)
    assert records == [Record(r["image"], [r["caption"]]) for r in rows if r["caption"]]
    without = [f"{tmp_path / 'a.json'} object {i + 1}" for i in range(0, 40_000, 97)]
    assert unusable == [(name, "no caption") for name in without]


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
        ("a.jsonl", '{"image": null, "caption": "x"}', {}, "line 1: no image$"),
        (
            "a.jsonl",
            '{"image": "1.png", "caption": {"en": "x"}}',
            {},
            "line 1: no caption$",
        ),
        (
            "a.jsonl",
            '{"image": "1.png", "caption": [[], 3, null, ""]}',
            {},
            "line 1: no caption$",
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


def test_a_blank_may_stand_before_a_quote(tmp_path):
    rows = "".join(f'{i}.png, "a dog, asleep"\n' for i in range(9))
    file = put(tmp_path / "a.csv", f"filepath, title\n{rows}")
    for i in range(9):
        put(tmp_path / f"{i}.png", image_file(i))
    images = read_images(str(file), "test", 8, whole=True)
    assert images.captions == [["a dog, asleep"]] * 9


@pytest.mark.parametrize(
    "make, columns, idle",
    [
        (example_data.tsv, Columns("\t", "filepath", "title", "."), []),
        (example_data.jsonl, Columns("\t", "image", "caption", "."), ["--csv-separator"]),
        (
            example_data.flickr8k,
            Columns("\t", "a", "b", "."),
            ["--csv-separator", "--csv-img-key", "--csv-caption-key"],
        ),
        (
            example_data.texts,
            Columns("\t", "a", "b", "."),
            ["--csv-separator", "--csv-img-key", "--csv-caption-key", "--image-root"],
        ),
        (example_data.imagefolder, Columns(image_root="."), ["--image-root"]),
        (
            example_data.shards_json,
            Columns("\t", "a", "alt", "."),
            ["--csv-separator", "--csv-img-key", "--image-root"],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_flags_that_a_format_does_not_follow_are_named(
    make, columns, idle, tmp_path, capsys, monkeypatch
):
    spec = str(make(tmp_path / "in").spec)
    # --image-root is ".": the folder of the images, where the format has one.
    photos = tmp_path / "in/Flicker8k_Dataset"
    monkeypatch.chdir(photos if photos.is_dir() else tmp_path / "in")
    read_images(spec, "train", 8, columns, whole=True)
    said = capsys.readouterr().err
    assert re.findall(rf"note: (\S+) has no effect on {re.escape(spec)}, ", said) == idle

    pack(spec, tmp_path / "pack", 8, "train", columns)
    assert re.findall(r"note: (\S+) has no effect", capsys.readouterr().err) == idle
    read_images(str(tmp_path / "pack"), "train", 8, Columns(csv_img_key="a"), whole=True)
    assert "note: --csv-img-key has no effect on" in capsys.readouterr().err


def test_a_folder_for_images_that_is_not_there_is_told(photos, tmp_path):
    file = write_csv(tmp_path / "list.csv", photo_rows())
    with pytest.raises(BadInput, match="^--image-root /none: no such folder"):
        read_images(file, "train", 16, Columns(image_root="/none"), whole=True)
