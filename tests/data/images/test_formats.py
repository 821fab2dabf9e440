"""data/formats.py, pack.py, records.py: every format in its official layout, read pair by pair; and all that goes wrong.

    python -m pytest tests/test_formats.py

Picture number i is of one colour, (10 i, 0, 200), and its name ends in i; so names, captions and pixels prove that they
belong together.
"""

import csv
import errno
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import data.common
from data.common import BadInput
from data.images import formats, pack, records
from data.images import read as readers

some = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(
        os, "fsync", lambda file: None
    )  # (no test pulls the plug; a disk takes its time for each)


def colour(i):
    return np.array((10 * i, 0, 200))


def picture(i, kind="png", size=(12, 9)):
    file = io.BytesIO()
    Image.new("RGB", size, tuple(colour(i).tolist())).save(file, kind)
    return file.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )
    return path


def tar(path, members):
    """{name: bytes or text, or a TarInfo} -> a tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items() if isinstance(members, dict) else members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                file.addfile(content)
            else:
                content, info = (
                    content if isinstance(content, bytes) else content.encode(),
                    tarfile.TarInfo(name),
                )
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


def pairs(pictures):
    """{name: captions}, once every picture is seen to have the colour that its name says."""
    for i, name in enumerate(pictures.names):
        number = int(re.findall(r"\d+", name)[-1]) % 1000
        assert np.abs(pictures.pixels([i])[0] - colour(number)).max() <= 4, (
            name
        )  # (JPEG is not exact)
    assert len(set(pictures.names)) == len(pictures)
    return dict(zip(pictures.names, pictures.captions))


# ---------------------------------------------------------------------------------------------------------------
# The formats, in their official layouts. Each makes one under a folder: (specification, flags, {name: captions} of each split).


def tsv(folder):
    """open_clip's: tab, filepath, title."""
    rows = [
        (put(folder / f"img/{i}.png", picture(i)).relative_to(folder), f'number {i}, "quoted"')
        for i in range(6)
    ]
    with open(folder / "a.tsv", "w", newline="") as f:
        csv.writer(f, delimiter="\t").writerows(
            [("filepath", "title"), *rows, (rows[2][0], "again")]
        )
    return (
        folder / "a.tsv",
        {},
        {f"img/{i}.png": [f'number {i}, "quoted"', "again"][: 1 + (i == 2)] for i in range(6)},
    )


def jsonl(folder):
    for i in range(6):
        put(folder / f"{i}.png", picture(i))
    lines = [
        {
            "image": f"{i}.png",
            "caption": f"it is  {i}" if i % 2 else [f"it is {i}", f"or\n{i}", ""],
            "more": None,
        }
        for i in range(6)
    ]
    put(folder / "a.JSONL", "\ufeff" + "\n\n".join(map(json.dumps, lines)))
    return (
        folder / "a.JSONL",
        {},
        {f"{i}.png": [f"it is {i}"] if i % 2 else [f"it is {i}", f"or {i}"] for i in range(6)},
    )


def texts(folder):
    for i in range(6):
        put(folder / f"deep.er/{i}.JPG", picture(i, "jpeg"))
        put(folder / f"deep.er/{i}.{'txt' if i % 2 else 'TXT'}", f"\ufeffit is {i}\r\n\r\nor {i}\n")
    return folder, {}, {f"deep.er/{i}.JPG": [f"it is {i}", f"or {i}"] for i in range(6)}


def imagefolder(folder):
    for i in range(6):
        put(folder / f"{['great_dane', 'cat'][i % 2]}/n{i}.JPEG", picture(i, "jpeg"))
    put(folder / "README.txt", "no caption")
    return (
        folder,
        {},
        {
            f"{['great_dane', 'cat'][i % 2]}/n{i}.JPEG": [
                f"It is a photo of a {['great dane', 'cat'][i % 2]}"
            ]
            for i in range(6)
        },
    )


def coco(folder):
    """cocodataset.org: annotations/captions_val2017.json beside val2017; annotations in no order."""
    notes = [
        {"image_id": 900 + i, "id": 10 * k + i, "caption": f"number {i}, caption {k}.\n"}
        for k in range(6)
        for i in range(6)
    ]
    for i in range(6):
        put(folder / f"val2017/{i:012}.jpg", picture(i, "jpeg"))
    put(
        folder / "annotations/captions_val2017.json",
        {
            "info": {},
            "licenses": [],
            "annotations": notes,
            "images": [
                {
                    "license": 1,
                    "file_name": f"{i:012}.jpg",
                    "coco_url": "",
                    "height": 9,
                    "width": 12,
                    "id": 900 + i,
                }
                for i in reversed(range(6))
            ],
        },
    )
    every = {f"{i:012}.jpg": [f"number {i}, caption {k}." for k in range(6)] for i in range(6)}
    return (
        folder / "annotations/captions_val2017.json",
        {},
        every,
        {name: captions[:5] for name, captions in every.items()},
    )


def karpathy(i, split, count, **more):
    return {
        "filename": f"x_{i}.jpg",
        "imgid": i,
        "split": split,
        **more,
        "sentences": [
            {"raw": f" number {i}, caption {k} .", "tokens": ["number"], "imgid": i, "sentid": k}
            for k in range(count)
        ],
    }


def flickr8k(folder):
    splits = ["train", "val", "test", "train", "test", "train"]
    for i in range(6):
        put(folder / f"Flicker8k_Dataset/x_{i}.jpg", picture(i, "jpeg"))
    put(
        folder / "dataset_flickr8k.json",
        {"dataset": "flickr8k", "images": [karpathy(i, s, 5) for i, s in enumerate(splits)]},
    )
    return (
        folder / "dataset_flickr8k.json",
        {},
        *(
            {f"x_{i}.jpg": [f"number {i}, caption {k} ." for k in range(5)] for i in which}
            for which in ([0, 3, 5], [2, 4])
        ),
    )


def karpathy_coco(folder):
    splits = ["train", "restval", "val", "test", "train", "test"]
    where = ["train2014" if s == "train" else "val2014" for s in splits]
    for i in range(6):
        put(folder / f"coco/{where[i]}/x_{i}.jpg", picture(i, "jpeg"))
    put(
        folder / "json/dataset_coco.json",
        {
            "dataset": "coco",
            "images": [
                karpathy(i, s, 6, filepath=where[i], cocoid=70 + i) for i, s in enumerate(splits)
            ],
        },
    )
    return (
        folder / "json/dataset_coco.json",
        {},
        *(
            {
                f"{where[i]}/x_{i}.jpg": [f"number {i}, caption {k} ." for k in range(count)]
                for i in which
            }
            for which, count in (([0, 1, 4], 6), ([3, 5], 5))
        ),
    )


def albef(folder):
    """data/coco_train.json, paths relative to a root that the user names; a row a caption, or a list of captions."""
    for i in range(6):
        put(folder / f"pics/val2014/{i}.jpg", picture(i, "jpeg"))
    rows = [
        {
            "image": f"val2014/{i}.jpg",
            "caption": [f"list {i}", f"of {i}"] if i % 2 else f"text {i}",
            "image_id": f"coco_{i}",
        }
        for i in range(6)
    ]
    put(
        folder / "coco_train.json",
        rows + [{"caption": "late", "image": "val2014/0.jpg", "image_id": "coco_0"}],
    )
    return (
        folder / "coco_train.json",
        {"image_root": str(folder / "pics")},
        {
            f"val2014/{i}.jpg": [f"list {i}", f"of {i}"]
            if i % 2
            else [f"text {i}"] + ["late"] * (i == 0)
            for i in range(6)
        },
    )


def shards(folder):
    """Ranges, alternatives, two sources; a folder and dots in the key's path, suffixes in capitals, .cls files between."""
    for i in range(6):
        tar(
            folder / f"{'ab'[i // 3]}-{i % 3 + 9:03}.tar",
            {
                f"v1.0/k_{i}.cls": "7",
                f"v1.0/k_{i}.{'JPG' if i % 2 else 'jpg'}": picture(i, "jpeg"),
                f"v1.0/k_{i}.TXT": f"number {i}\nor {i}\n",
            },
        )
    return (
        f"{folder}/a-{{009..010}}.tar::{folder}/{{a-011,b-009}}.tar::{folder}/b-{{010..011}}.tar",
        {},
        {
            f"{'ab'[i // 3]}-{i % 3 + 9:03}.tar/v1.0/k_{i}": [f"number {i}", f"or {i}"]
            for i in range(6)
        },
    )


def shards_json(folder):
    """img2dataset's: .jpg, .json, .txt; a field that is named wins over .txt. A folder of shards."""
    for s in range(2):
        tar(
            folder / f"0000{s}.tar",
            [
                (f"{s}000{i}.{suffix}", content)
                for i in range(3 * s, 3 * s + 3)
                for suffix, content in (
                    ("jpg", picture(i, "jpeg")),
                    ("json", json.dumps({"alt": [f"alt {i}", 7, f"or {i}"], "key": "k"})),
                    ("txt", "not this"),
                )
            ],
        )
    put(folder / "sizes.json", {"00000.tar": 3})
    return (
        folder,
        {"caption_key": "alt"},
        {f"0000{i // 3}.tar/{i // 3}000{i}": [f"alt {i}", f"or {i}"] for i in range(6)},
    )


def shards_fields(folder):
    """No .txt: the usual fields of .json."""
    tar(
        folder / "a.tar",
        [
            (f"{i}.{suffix}", content)
            for i in range(6)
            for suffix, content in (
                (
                    "json",
                    json.dumps({"url": "u", ["title", "caption", "text"][i % 3]: f"it is {i}"}),
                ),
                ("png", picture(i)),
            )
        ],
    )
    return folder / "a.tar", {}, {f"a.tar/{i}": [f"it is {i}"] for i in range(6)}


FORMATS = [
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


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("split", ["train", "test"])
def test_pair_by_pair_and_packed(make, split, tmp_path, capsys):
    spec, more, *want = make(tmp_path / "in")
    want = want[-1 if split == "test" else 0]
    got = readers.read_images(str(spec), split, 8, whole=True, **more)
    assert pairs(got) == want and got.skipped == ()
    assert capsys.readouterr().err.count(f"{len(want)} pictures of 12 x 9 pixels") == 1
    for out in ("one", "two"):
        columns = [
            more.get(key, "") for key in ("separator", "image_key", "caption_key", "image_root")
        ]
        pack.pack(str(spec), tmp_path / out, 8, split, *columns)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    packed = readers.read_images(str(tmp_path / "one"), split, 8, whole=True)
    assert (
        pairs(packed) == want
        and list(packed.names) == list(got.names)
        and (packed.digests == got.digests).all()
    )


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_tar_read_in_place_equals_the_same_tar_unpacked(tmp_path):
    members = [
        (f"{'abc'[i % 3]}/k{i}{suffix}", content)
        for i in range(9)
        for suffix, content in ((".png", picture(i)), (".txt", f"number {i}\nor {i}"))
    ]
    with tarfile.open(tar(tmp_path / "x.tar", members)) as file:
        file.extractall(tmp_path / "x", filter="data")
    inside, outside = (
        readers.read_images(str(tmp_path / name), "train", 8, whole=True) for name in ("x.tar", "x")
    )
    assert pairs(inside) == {
        f"x.tar/{name[:-4]}": captions for name, captions in pairs(outside).items()
    }
    order = [list(inside.names).index(f"x.tar/{name[:-4]}") for name in outside.names]
    assert (inside.digests[order] == outside.digests).all() and (
        inside.pixels(order) == outside.pixels(np.arange(9))
    ).all()


def test_shards_of_one_name_in_two_folders(tmp_path):
    for i, side in enumerate("ab"):
        tar(
            tmp_path / side / "0.tar",
            {
                f"k{i}.png": picture(i),
                f"k{i}.txt": side,
                "same9.png": picture(9),
                "same9.txt": side,
            },
        )
    got = readers.read_images(f"{tmp_path}/{{a,b}}/0.tar", "train", 8, whole=True)
    assert sorted(pairs(got).values()) == [["a"], ["a"], ["b"], ["b"]]


def test_a_path_with_tar_in_it_is_no_shard(tmp_path):
    put(tmp_path / "my.target/1.png", picture(1))
    spec = put(tmp_path / "my.target/a.csv", "image,caption\n1.png,one")
    assert pairs(readers.read_images(str(spec), "train", 8, whole=True)) == {"1.png": ["one"]}


def test_a_long_json_list(tmp_path):
    """Several blocks long, so that objects, numbers and commas fall on every place of a block's end."""
    rows = [{"image": f"{i}.png", "caption": "x" * (i % 97)} for i in range(40_000)]
    put(tmp_path / "a.json", json.dumps(rows, indent=1))
    assert [value for _, value in formats.json_list(tmp_path / "a.json")] == rows


# ---------------------------------------------------------------------------------------------------------------
# Packing: killed, begun again, twice at once.


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A table of 11 pictures, of which 3 cannot be read and one has no caption; three points to go on from."""
    monkeypatch.setattr(pack, "CHUNK", 4)
    for i in range(12):
        put(tmp_path / f"in/{i}.png", b"no picture" if i in (1, 9) else picture(i))
    (tmp_path / "in/5.png").unlink()
    return str(
        put(
            tmp_path / "in/a.csv",
            "image,caption\n"
            + "".join(f"{i}.png,{'' if i == 3 else f'it is {i}'}\n" for i in range(12)),
        )
    )


@pytest.fixture
def stopped(many, tmp_path, monkeypatch):
    """(specification, a folder as it is one moment before the end, the finished folder's bytes)."""
    pack.pack(many, tmp_path / "whole", 8)
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
        pack.pack(many, tmp_path / "stopped", 8)
    with pytest.raises(
        BadInput, match="packing was not finished; run python -m data.images.pack again"
    ):
        readers.read_images(str(tmp_path / "stopped"), "train", 8)
    return many, tmp_path / "stopped", contents(tmp_path / "whole")


@pytest.mark.parametrize("number", (errno.EIO, errno.EMFILE))
def test_what_is_the_machines_fault_is_no_pictures_fault(many, tmp_path, monkeypatch, number):
    """A read that fails in passing stops the packing, which then goes on; it does not leave the picture out for ever."""
    real, failed = Path.read_bytes, []

    def read(path):
        if path.name == "7.png" and not failed:
            failed.append(path)
            raise OSError(number, os.strerror(number))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(OSError, match=os.strerror(number)):
        pack.pack(many, tmp_path / "out", 8)
    pack.pack(many, tmp_path / "out", 8)
    monkeypatch.undo()
    pack.pack(many, tmp_path / "whole", 8)
    assert failed and contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_a_pack_leaves_out_is_listed(many, tmp_path):
    _, _, skipped, unusable = pack.pack(many, tmp_path / "out", 8)
    assert skipped == [
        ["1.png", "cannot be read (cannot identify image file)"],
        ["5.png", "no such file"],
        ["9.png", "cannot be read (cannot identify image file)"],
    ]
    assert [reason for _, reason in unusable] == ["no caption"] and "line 5" in unusable[0][0]
    assert [json.loads(row) for row in open(tmp_path / "out/unusable.jsonl")] == [
        list(row) for row in unusable
    ]
    with pytest.raises(BadInput, match="3 of 11 entries cannot be used, more than 5%"):
        readers.read_images(str(tmp_path / "out"), "train", 8)


@some
@given(
    keep=st.fixed_dictionaries(
        {
            name: st.one_of(st.none(), st.integers(0, 2000))
            for name in (
                "index",
                "images.u8",
                "skipped.jsonl",
                "pictures.jsonl",
                "unusable.jsonl",
                "unfinished",
            )
        }
    )
)
def test_killed_at_any_point_and_begun_again(stopped, tmp_path, keep):
    """Each file cut off wherever it may be: as a kill leaves it, or a machine that lost power."""
    spec, folder, whole = stopped
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    shutil.copytree(folder, tmp_path / "out")
    for name, length in keep.items():
        if length is not None:
            os.truncate(tmp_path / "out" / name, min(length, (folder / name).stat().st_size))
    pack.pack(spec, tmp_path / "out", 8)
    assert contents(tmp_path / "out") == whole


def test_killed_between_the_last_two_steps(stopped, tmp_path):
    spec, folder, whole = stopped
    os.replace(folder / "pack.json.new", folder / "pack.json")
    pack.pack(spec, folder, 8)
    assert contents(folder) == whole


def test_a_killed_child_is_gone_on_with(tmp_path):
    """python -m data.images.pack, and a real SIGKILL when the first pictures are on disk."""
    members = [
        (f"{i}.{suffix}", content)
        for i in range(1500)
        for suffix, content in (
            ("png", b"no picture" if i % 100 == 7 else picture(i % 25, size=(64, 64))),
            ("txt", f"it is {i}"),
        )
    ]
    spec, out = str(tar(tmp_path / "a.tar", members)), tmp_path / "out"
    command = [sys.executable, "-m", "data.images.pack", spec, str(out), "--size", "128"]
    with subprocess.Popen(
        command, cwd=Path(pack.__file__).parent.parent, stderr=subprocess.PIPE, text=True
    ) as child:
        while child.poll() is None and not (
            (out / "index").is_file() and (out / "index").stat().st_size
        ):
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert child.returncode == -signal.SIGKILL and 0 < (out / "index").stat().st_size < 1500 * 16
    assert (out / "unfinished").is_file() and not (out / "pack.json").exists()
    with pytest.raises(BadInput, match="an unfinished pack of other pictures, or of another size"):
        pack.pack(spec, out, 64)
    pack.pack(spec, out, 128)
    pack.pack(spec, tmp_path / "whole", 128)
    assert contents(out) == contents(tmp_path / "whole")


def test_two_at_once(many, tmp_path):
    """flock tells open files apart, not processes; so threads show what two processes do."""

    def attempt(spec, out):
        try:
            pack.pack(spec, out, 8)
            return spec
        except BadInput as error:
            return str(error)

    other = str(put(tmp_path / "in/b.csv", "image,caption\n0.png,zero\n2.png,two\n"))
    alone = {}
    for spec in (many, other):
        pack.pack(spec, tmp_path / Path(spec).name, 8)
        alone[spec] = contents(tmp_path / Path(spec).name)
    with ThreadPoolExecutor(4) as pool:
        for i in range(10):
            out = tmp_path / f"out{i}"
            said = pool.map(lambda spec: attempt(spec, out), [many, other, many, other])
            first, *rest = sorted(said, key=lambda text: "not empty" in text)
            assert contents(out) == alone[first] and all(
                "is not empty; remove it" in text for text in rest
            )
        good = str(
            put(
                tmp_path / "in/c.csv",
                "image,caption\n" + "".join(f"{i}.png,{i}\n" for i in (0, 2, 4, 6, 8, 10, 11)),
            )
        )
        for got in pool.map(lambda _: readers.read_images(good, "train", 8, whole=True), range(4)):
            assert pairs(got) == {f"{i}.png": [str(i)] for i in (0, 2, 4, 6, 8, 10, 11)}


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("pack.json", "", "pack.json: truncated, corrupt"),
        ("pack.json", "[1]", "pack.json: truncated, corrupt"),
        ("pack.json", '{"format": 2, "size": 8, "pictures": 6, "records": 6}', "another version"),
        ("pack.json", '{"format": 1, "size": "8", "pictures": 6, "records": 6}', "corrupt"),
        (
            "pack.json",
            '{"format": 1, "size": 8, "pictures": 5, "records": 6}',
            "images.u8 has 1152 bytes, not 960; remove the folder",
        ),
        ("images.u8", None, "images.u8: no such file"),
        ("images.u8", b"short", "images.u8 has 5 bytes, not 1152"),
        ("index", None, "index: no such file"),
        ("index", b"\0" * 96, "index does not speak of 6 pictures"),
        ("index", b"\0" * 95, "index has 95 bytes"),
        ("skipped.jsonl", b"\xff\n", "corrupt"),
        ("skipped.jsonl", b"[1]\n", "corrupt"),
        ("skipped.jsonl", None, "skipped.jsonl: no such file"),
        ("pictures.jsonl", b"", "pictures.jsonl has 0 lines for 6"),
        ("pictures.jsonl", b'["0.png", ["x"]]\n', "has 1 lines for 6 records"),
        ("pictures.jsonl", b"\xff\n" * 6, "corrupt"),
        ("pictures.jsonl", b"[]\n" * 6, "corrupt"),
        ("pictures.jsonl", None, "pictures.jsonl: no such file"),
    ],
)
def test_a_damaged_pack(tmp_path, name, content, says):
    _, _, want = tsv(tmp_path)
    pack.pack(str(tmp_path / "a.tsv"), tmp_path / "out", 8)
    with pytest.raises(
        BadInput,
        match="pictures of 8 pixels; --image-size 16 was asked for. Use --image-size 8, or pack again",
    ):
        readers.read_images(str(tmp_path / "out"), "train", 16)
    (tmp_path / "out" / name).unlink() if content is None else put(tmp_path / "out" / name, content)
    with pytest.raises(BadInput, match=says) as error:
        readers.read_images(str(tmp_path / "out"), "train", 8)
    assert str(tmp_path / "out") in str(error.value)


# ---------------------------------------------------------------------------------------------------------------
# Whatever bytes and texts.


def refused_or_read(spec, **more):
    """CaptionedImages, or None where there is one line that says why not."""
    try:
        return readers.read_images(str(spec), "train", 8, whole=True, **more)
    except BadInput as error:
        assert len(str(error)) < 5000 and "\n" not in str(error)
    except OSError:  # (a name too long for the system: one line too, see data.common.run)
        return None


def write_list(kind, folder, names, captions):
    """Names and captions as whatever format."""
    rows = [{"image": name, "caption": caption} for name, caption in zip(names, captions)]
    if kind == "csv":
        with open(folder / "a.csv", "w", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows([("image", "caption"), *zip(names, captions)])
        return folder / "a.csv"
    if kind == "jsonl":
        return put(folder / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    if kind == "json":
        return put(folder / "a.json", rows)
    return tar(
        folder / "a.tar",
        [
            (name + suffix, content)
            for i, (name, caption) in enumerate(zip(names, captions))
            for suffix, content in (
                (".png", picture(i)),
                (".json", json.dumps({"caption": caption})),
            )
        ],
    )


file_names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0."), min_size=1, max_size=40
).filter(lambda name: len(name.encode()) < 200)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "shards"])
@some
@given(names=st.lists(file_names, min_size=1, max_size=4, unique=True), draw=st.data())
def test_any_text_survives_or_is_refused_in_one_line(kind, tmp_path, names, draw):
    """Read and packed. A text of nothing but blanks counts as none; other blanks become one; the rest is as it was."""
    text = st.text(st.characters(exclude_categories=["Cs"] if kind == "csv" else []), max_size=200)
    captions = draw.draw(st.lists(text, min_size=len(names), max_size=len(names)))
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    (tmp_path / "in").mkdir()
    for i, name in enumerate(names):
        (tmp_path / "in" / name).write_bytes(picture(i))
    spec = write_list(kind, tmp_path / "in", names, captions)
    if got := refused_or_read(spec):
        begin = "a.tar/" if kind == "shards" else ""
        assert dict(zip(got.names, got.captions)) == {
            begin + name: [" ".join(c.split())] for name, c in zip(names, captions)
        }
        assert all(
            np.abs(got.pixels([i])[0] - colour(names.index(name[len(begin) :]))).max() == 0
            for i, name in enumerate(got.names)
        )
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        pack.pack(str(spec), tmp_path / "out", 8)
        packed = readers.read_images(str(tmp_path / "out"), "train", 8, whole=True)
        assert list(packed.names) == list(got.names) and list(packed.captions) == list(got.captions)
    else:  # only for blanks around a name, or a caption of nothing else
        assert any(name != name.strip() for name in names) or not all(c.strip() for c in captions)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "tar"])
@some
@given(content=st.binary(max_size=3000) | st.text('[]{}",:\n\t 01ae', max_size=60).map(str.encode))
def test_any_bytes(suffix, tmp_path, content):
    refused_or_read(put(tmp_path / f"a.{suffix}", content))


words = st.sampled_from(
    [
        "images",
        "annotations",
        "sentences",
        "raw",
        "split",
        "train",
        "test",
        "filename",
        "filepath",
        "file_name",
        "id",
        "image_id",
        "caption",
        "image",
        "0.png",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
entry = st.fixed_dictionaries(
    {},
    optional={
        "id": values,
        "file_name": words | values,
        "filename": words | values,
        "filepath": values,
        "split": words | values,
        "sentences": st.lists(st.fixed_dictionaries({"raw": values})) | values,
    },
)
note = st.fixed_dictionaries({}, optional={"image_id": values, "caption": words | values})


@settings(some, max_examples=150)
@given(
    content=values
    | st.fixed_dictionaries(
        {"images": st.lists(entry, max_size=3)},
        optional={"annotations": st.lists(note, max_size=3) | values},
    )
    | st.lists(
        st.fixed_dictionaries({}, optional={"image": words | values, "caption": words | values}),
        max_size=3,
    )
)
def test_json_of_any_other_schema(tmp_path, content):
    put(tmp_path / "0.png", picture(0))
    refused_or_read(put(tmp_path / "a.json", content))
    refused_or_read(
        put(
            tmp_path / "a.jsonl",
            "\n".join(map(json.dumps, content if isinstance(content, list) else [content])),
        )
    )


@settings(some, max_examples=150)
@given(
    block=st.sampled_from([0, 2, 4, 6]),
    at=st.sampled_from([0, 100, 124, 136, 156, 157, 257, 345, 483]),
    content=st.binary(max_size=60),
)
def test_tar_headers_of_any_bytes(tmp_path, block, at, content):
    """The checksum is right, so that tarfile believes what the header says."""
    whole = bytearray(
        tar(
            tmp_path / "a.tar",
            {"0.png": picture(0), "0.txt": "zero", "1.png": picture(1), "1.txt": "one"},
        ).read_bytes()
    )
    header = whole[512 * block : 512 * block + 512]
    header[at : at + len(content)] = content[: 512 - at]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    whole[512 * block : 512 * block + 512] = header
    put(tmp_path / "a.tar", bytes(whole))
    refused_or_read(tmp_path / "a.tar")


@pytest.mark.parametrize("size", [-1536, 1 << 80], ids=["negative", "huge"])
def test_a_tar_whose_file_has_an_impossible_size(tmp_path, size):
    """A negative one leads back to the file before, and so on for ever; a huge one is no tarfile.TarError."""
    whole = bytearray(
        tar(tmp_path / "a.tar", {"0.txt": "zero", "0.png": picture(0), "1.txt": "one"}).read_bytes()
    )
    header = whole[2048:2560]
    header[124:136], header[148:156] = (
        (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True),
        b" " * 8,
    )
    header[148:156] = b"%06o\0 " % sum(header)
    whole[2048:2560] = header
    bad = []
    got = formats.open_spec(str(put(tmp_path / "a.tar", bytes(whole))), "train", bad).records
    assert len(list(got)) <= 1 and "cut off or damaged" in bad[-1][1]


rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "ü\n", "\ud800", "e", "f"]) | st.text(max_size=3),
        st.lists(
            st.sampled_from(["", "x", "longer", "\u2028"]) | st.text(max_size=5),
            min_size=1,
            max_size=3,
        ),
    ),
    max_size=12,
)


@settings(some, max_examples=120)
@given(rows=rows, ask=st.data())
def test_records_against_a_plain_model(tmp_path, rows, ask):
    model = {}
    for name, captions in rows:
        model.setdefault(name, []).extend(captions)
    model = [[name, captions] for name, captions in model.items()]
    lines = records.gather([list(row) for row in rows])
    assert len(lines) == len(model) and list(lines) == model
    assert list(lines.field(0)) == [name for name, _ in model] and list(lines.field(1)) == [
        captions for _, captions in model
    ]
    (tmp_path / "lines").write_bytes(b"".join(map(records.line, lines)))
    assert list(records.read_lines(tmp_path / "lines")) == model
    for wrong in (len(model), -len(model) - 1):
        with pytest.raises(IndexError):
            lines[wrong]
    if model:
        index = st.integers(-len(model), len(model) - 1)
        assert lines[i := ask.draw(index)] == model[i] and lines.field(1)[i] == model[i][1]
        which = np.array(ask.draw(st.lists(index, max_size=5)), int)
        taken, again = (
            lines.take(which),
            np.array(ask.draw(st.permutations(range(len(which)))), int),
        )
        assert list(taken) == [model[i] for i in which] and list(taken.take(again).field(0)) == [
            model[which[i]][0] for i in again
        ]

    captions = [captions for _, captions in model]
    texts, distinct = (
        records.DistinctCaptions(lines.field(1)),
        list(dict.fromkeys(text for own in captions for text in own)),
    )
    assert list(texts) == distinct and len(texts) == len(distinct)
    for i, own in enumerate(captions):
        assert [distinct[n] for n in texts.of(i)] == sorted(own, key=len)
    assert [distinct[n] for n in texts.number] == [
        text for own in captions for text in sorted(own, key=len)
    ]
    assert texts.fingerprint == records.DistinctCaptions(captions).fingerprint
    if len(captions) > 1 and captions[0] != captions[1]:
        assert (
            texts.fingerprint
            != records.DistinctCaptions(captions[1::-1] + captions[2:]).fingerprint
        )
        assert (
            texts.fingerprint
            != records.DistinctCaptions([captions[0] + captions[1], *captions[2:]]).fingerprint
        )


# ---------------------------------------------------------------------------------------------------------------
# What users get wrong.


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(width, height, *chunks):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def saved(mode, name, value, size=(9, 9), **more):
    file = io.BytesIO()
    Image.new(mode, size, value).save(file, name, **more)
    return file.getvalue()


def frames():
    file, other = io.BytesIO(), [Image.new("RGB", (9, 9), (0, 255, 0))]
    Image.new("RGB", (9, 9), (50, 0, 200)).save(file, "gif", save_all=True, append_images=other)
    return file.getvalue()


@pytest.mark.parametrize(
    "name, content, wanted",
    [
        ("a.JpG", saved("RGB", "jpeg", (50, 0, 200)), (50, 0, 200)),
        ("a.jpg", saved("RGB", "png", (50, 0, 200)), (50, 0, 200)),
        ("a.jpg", saved("CMYK", "jpeg", (0, 255, 255, 0)), (255, 0, 0)),
        ("a.png", saved("P", "png", 0), None),
        ("a.gif", saved("P", "gif", 0, transparency=0), (255, 255, 255)),
        ("a.png", saved("I;16", "png", 50 << 8), (50, 50, 50)),
        ("a.GIF", frames(), (50, 0, 200)),
        ("a.png", saved("RGB", "png", (50, 0, 200), (1, 1)), (50, 0, 200)),
        ("a.bmp", saved("RGB", "bmp", (50, 0, 200), (1, 3000)), (50, 0, 200)),
        ("a.webp", saved("RGBA", "webp", (0, 0, 0, 0), lossless=True), (255,) * 3),
        ("a.png", png(9, 9, chunk(b"IDAT", zlib.compress(bytes(30_000_000)))), (0, 0, 0)),
    ],
    ids=[
        "jpg",
        "png called jpg",
        "cmyk",
        "palette",
        "transparent",
        "16 bits",
        "animated",
        "1 x 1",
        "narrow",
        "clear",
        "IDAT bomb",
    ],
)
def test_pictures_that_can_be_read(tmp_path, name, content, wanted):
    put(tmp_path / name, content)
    got = readers.read_images(
        str(put(tmp_path / "a.csv", f"image,caption\n{name},x")), "train", 8, whole=True
    )
    assert wanted is None or np.abs(got.pixels([0])[0] - np.array(wanted)).max() <= 4


@pytest.mark.filterwarnings(
    "ignore::PIL.Image.DecompressionBombWarning"
)  # (pytest undoes data/pack.py's own filter)
@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "cannot identify image file"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read"),
        (picture(1)[:50], "cannot be read"),
        (picture(1, "jpeg", (200, 200))[:400], "cannot be read"),
        (png(30_000, 30_000), "cannot be read .*exceeds limit"),
        (png(11_000, 10_000), "has 11000 x 10000 pixels, more than 100 million"),
        (png(0, 5), "cannot be read"),
        (
            png(9, 9, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(30_000_000)))),
            "cannot be read .*too large",
        ),
        (png(9, 9, chunk(b"IDAT", b"no zlib")), "cannot be read"),
        (saved("F", "tiff", 0.5), "no known range"),
    ],
    ids=[
        "empty",
        "8 bytes",
        "cut png",
        "cut jpeg",
        "30,000",
        "11,000",
        "0 wide",
        "zTXt bomb",
        "no zlib",
        "float",
    ],
)
def test_pictures_that_cannot(tmp_path, content, says):
    put(tmp_path / "a.png", content)
    for spec in (
        put(tmp_path / "a.csv", "image,caption\na.png,x"),
        tar(tmp_path / "a.tar", {"a.png": content, "a.txt": "x"}),
    ):
        with pytest.raises(BadInput, match=f"none of its 1 entries.*{says}"):
            readers.read_images(str(spec), "train", 8)


@pytest.mark.parametrize(
    "file, content, more, says",
    [
        (
            "a.csv",
            "image,caption\n1.png,x",
            {"separator": ";"},
            "no column filepath or image.*separated by ';', are image,caption",
        ),
        (
            "a.csv",
            "image,caption\n1.png,x",
            {"separator": "ab"},
            "--csv-separator 'ab' is not one character",
        ),
        ("a.csv", "caption,image\n1.png,x", {}, "columns of pictures and captions look exchanged"),
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
        (
            "a.jsonl",
            '{"image": "1.png", "caption": "x"}\n{"image": "1.',
            {},
            "a.jsonl: line 2 is no JSON",
        ),
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
        ("a.json", '[{"image": "1.png"', {}, "object 1 of the list is cut off"),
        ("a.json", ["1.png"], {}, "object 1 is no object"),
        ("a.json", "null", {}, "no schema"),
        ("a.json", {"images": {"a": {}}}, {}, "no schema"),
        (
            "a.json",
            '{"image": "1.png", "caption": "x"}\n{"image": "1.png", "caption": "x"}',
            {},
            "more than one JSON value.*name it .jsonl",
        ),
        (
            "a.json",
            {
                "images": [{"id": 1, "file_name": "1.png"}],
                "annotations": [{"id": 1, "caption": "x"}],
            },
            {},
            "an entry without 'image_id'",
        ),
        (
            "instances.json",
            {
                "images": [{"id": 1, "file_name": "1.png"}],
                "annotations": [{"image_id": 1, "bbox": []}],
            },
            {},
            "an entry without 'caption', which COCO's captions must have",
        ),
        (
            "a.json",
            {
                "images": [{"id": 1, "file_name": "1.png"}],
                "annotations": [{"image_id": "1", "caption": "x"}],
            },
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
            "no picture of the split train",
        ),
        ("a.tar", "", {}, "cut off or damaged .empty file"),
        ("a.tar", b"\x1f\x8b" + bytes(600), {}, "cut off or damaged"),
        ("a.tar.gz", b"\x1f\x8b", {}, "compressed shards cannot be read in place; decompress them"),
        ("a.tgz", b"\x1f\x8b", {}, "compressed shards"),
    ],
    ids=lambda value: None,
)
def test_lists_that_cannot_be_read(tmp_path, file, content, more, says):
    put(tmp_path / "1.png", picture(1))
    with pytest.raises(BadInput, match=says) as error:
        readers.read_images(str(put(tmp_path / file, content)), "train", 8, whole=True, **more)
    assert str(tmp_path / file) in str(error.value)


def test_missing_shards_are_all_counted(tmp_path):
    tar(tmp_path / "a-0.tar", {})
    with pytest.raises(BadInput, match="a-1.tar: no such file .2 of 3 shards are missing"):
        readers.read_images(f"{tmp_path}/a-{{0..2}}.tar", "train", 8)
    with pytest.raises(BadInput, match="1 tar shards, but empty"):
        readers.read_images(f"{tmp_path}/a-0.tar", "train", 8)


def test_long_odd_captions_are_kept(tmp_path):
    put(tmp_path / "1.png", picture(1))
    for text in (
        " ".join(f"word{i}" for i in range(10_000)),
        'a "quote", a;semi\tcolon',
        "ünï 🦊 \u202e back",
        "'; drop table",
    ):
        for kind in ("csv", "jsonl", "json"):
            spec = write_list(kind, tmp_path, ["1.png"], [text])
            assert list(readers.read_images(str(spec), "train", 8, whole=True).captions) == [
                [" ".join(text.split())]
            ]


@pytest.mark.parametrize(
    "cut, left",
    [
        (0, 0),
        (100, 0),
        (600, 0),
        (1024, 0),
        (1536, 0),
        (2048, 1),
        (2100, 1),
        (2600, 1),
        (3072, 1),
        (4096, 2),
        (8000, 3),
    ],
)
def test_a_shard_that_is_cut_off_is_used_and_counted(tmp_path, cut, left):
    """Each sample is a header and a block of .txt, a header and a block of .png: 2048 bytes."""
    members = [
        (f"{i}.{suffix}", content)
        for i in range(4)
        for suffix, content in (("txt", f"it is {i}"), ("png", picture(i)))
    ]
    whole = tar(tmp_path / "a.tar", members).read_bytes()
    put(tmp_path / "a.tar", whole[:cut])
    bad = []
    got = list(formats.open_spec(str(tmp_path / "a.tar"), "train", bad).records)
    assert [row[1] for row in got] == [
        [f"it is {i}"] for i in range(left)
    ] and "cut off or damaged" in bad[-1][1]
    for name, _, file, offset, size in got:
        assert whole[offset : offset + size] == picture(int(name[-1]))


def link(kind, target):
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


def test_a_shard_writes_nothing_and_follows_nothing(tmp_path, monkeypatch):
    """Names that lead elsewhere are only names; links, pipes and devices are no pictures, and counted."""
    put(tmp_path / "secret.png", picture(9))
    members = [
        (name + suffix, content)
        for i, name in enumerate(("../../up0", str(tmp_path / "abs1"), "./dot2", "a/../b3"))
        for suffix, content in ((".png", picture(i)), (".txt", f"it is {i}"))
    ]
    for i, kind in enumerate(
        (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    ):
        members += [
            (f"l{i}.png", link(kind, str(tmp_path / "secret.png"))),
            (f"l{i}.txt", "a link"),
        ]
    members += [
        ("alone.png", link(tarfile.SYMTYPE, "/etc/passwd")),
        ("t.png", picture(4)),
        ("t.txt", link(tarfile.SYMTYPE, "dot2.txt")),
    ]
    spec, before = str(tar(tmp_path / "in/a.tar", members)), sorted(tmp_path.rglob("*"))
    _, _, skipped, unusable = pack.pack(spec, tmp_path / "out", 8)
    assert [reason for _, reason in unusable] == ["no picture"] * 6 + ["no caption"] and not skipped
    assert set(tmp_path.rglob("*")) - set(before) == {
        tmp_path / "out",
        *(tmp_path / "out").iterdir(),
    }
    got = readers.read_images(str(tmp_path / "out"), "train", 8, whole=True)
    assert list(pairs(got).values()) == [[f"it is {i}"] for i in range(4)]


def test_a_key_that_comes_twice_is_counted_not_mixed(tmp_path):
    two = [
        ("k1.png", picture(1)),
        ("k1.txt", "first"),
        ("k2.png", picture(2)),
        ("k2.txt", "other"),
        ("k1.png", picture(3)),
        ("k1.txt", "second"),
    ]
    for members, want in (
        (two, {"k1": ["first"], "k2": ["other"]}),
        (two[:2] + two[4:] + two[2:4], {"k2": ["other"]}),
    ):
        bad = []
        got = formats.open_spec(str(tar(tmp_path / "a.tar", members)), "train", bad).records
        assert {name: captions for name, captions, *_ in got} == {
            f"a.tar/{name}": captions for name, captions in want.items()
        }
        assert bad == [("a.tar/k1", "this key comes twice")]


def command(monkeypatch, module, *args):
    monkeypatch.setattr(sys, "argv", ["x", *map(str, args)])
    return data.common.run(module.main)


def test_the_command_says_one_line(tmp_path, monkeypatch, capsys):
    tsv(tmp_path)
    put(tmp_path / "full/x", "x")
    put(tmp_path / "bad.csv", "image,caption\nimg/0.png,\n")
    put(tmp_path / "gone.csv", "image,caption\ngone.png,x\n")
    for args, says in (
        (("nowhere.csv", tmp_path / "o"), "nowhere.csv: no such file or folder"),
        ((tmp_path / "a.tsv", tmp_path / "o", "--size", "0"), "--size 0 is out of range"),
        ((tmp_path / "a.tsv", tmp_path / "full"), "full is not empty"),
        ((tmp_path / "a.tsv", tmp_path / "full/x"), "x is a file; name a folder"),
        (
            (tmp_path / "bad.csv", tmp_path / "o"),
            "nothing in it can be used; the first of 1 entries: .*no caption",
        ),
        (
            (tmp_path / "gone.csv", tmp_path / "o2"),
            "none of its 1 pictures can be used; the first: gone.png: no such file",
        ),
        ((tmp_path / "full", tmp_path / "o"), "no pictures in this folder"),
    ):
        assert command(monkeypatch, pack, *args) == 2
        said = capsys.readouterr().err
        assert (
            said.splitlines()[-1].startswith("error: ")
            and re.search(says, said)
            and "Traceback" not in said
        )
    assert not (tmp_path / "o").exists()
    assert command(monkeypatch, pack, tmp_path / "a.tsv", tmp_path / "good", "--size", "8") == 0
    assert (
        "6 pictures of 8 pixels packed; 0 entries and 0 pictures skipped" in capsys.readouterr().out
    )


def test_no_space_is_seen_before_and_gone_on_after(tmp_path, monkeypatch, capsys):
    tsv(tmp_path)
    with monkeypatch.context() as m:
        m.setattr(
            shutil,
            "disk_usage",
            lambda path: shutil._ntuple_diskusage(10**9, 10**9, 6 * 8 * 8 * 3 - 1),
        )
        assert command(m, pack, tmp_path / "a.tsv", tmp_path / "out", "--size", "8") == 2
    assert "6 pictures of 8 pixels need 0.0 GB" in capsys.readouterr().err
    pack.pack(str(tmp_path / "a.tsv"), tmp_path / "out", 8)
    pack.pack(str(tmp_path / "a.tsv"), tmp_path / "two", 8)
    assert contents(tmp_path / "out") == contents(tmp_path / "two")


def test_halves_of_characters_can_be_listed(tmp_path, monkeypatch, capsysbinary):
    """Scraped captions hold halves of emoji; the list of texts must still be one that --text-features reads."""
    for i in range(25):
        put(tmp_path / f"{i}.png", picture(i))
    spec = put(
        tmp_path / "a.json",
        [{"image": f"{i}.png", "caption": f"half \ud83d {i}"} for i in range(25)],
    )
    assert command(monkeypatch, readers, spec, "--texts") == 0
    listed = capsysbinary.readouterr().out
    (tmp_path / "v.txt").write_bytes(listed)
    np.save(tmp_path / "v.npy", np.ones((25, 2)))
    assert readers.OutsideVectors(tmp_path / "v.npy")(["half \ud83d 3"]).tolist() == [[1, 1]]
