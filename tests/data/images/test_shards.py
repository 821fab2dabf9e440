"""data/images/shards.py, and shards as formats.py reads them: whole, cut off, damaged, hostile.

python -m pytest tests/data/images/test_shards.py
"""

import tarfile

import numpy as np
import pytest

import data.images.pack
import data.images.shards
from data.common import BadInput
from data.images.formats import open_spec
from data.images.pack import decode, pack
from data.images.read import read_images
from data.images.shards import expand_braces
from tests.data.images.example_data import image_file, pairs, put, tar


def test_braces():
    assert expand_braces("x.tar") == ["x.tar"]
    assert expand_braces("x{08..10}.tar::y{a,b}.tar") == [
        "x08.tar",
        "x09.tar",
        "x10.tar",
        "ya.tar",
        "yb.tar",
    ]
    assert expand_braces("{a,b}/{0..1}.tar") == ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]
    assert expand_braces("{2..1}.tar") == []


def test_a_tar_read_in_place_equals_the_same_tar_unpacked(tmp_path):
    members = []
    for i in range(9):
        key = f"{'abc'[i % 3]}/k{i}"
        members += [(f"{key}.png", image_file(i)), (f"{key}.txt", f"number {i}\nor {i}")]
    with tarfile.open(tar(tmp_path / "x.tar", members)) as file:
        file.extractall(tmp_path / "x", filter="data")
    inside = read_images(str(tmp_path / "x.tar"), "train", 8, whole=True)
    outside = read_images(str(tmp_path / "x"), "train", 8, whole=True)
    wanted = {f"x.tar/{name[:-4]}": captions for name, captions in pairs(outside).items()}
    assert pairs(inside) == wanted
    order = [inside.names.index(f"x.tar/{name[:-4]}") for name in outside.names]
    assert (inside.digests[order] == outside.digests).all()
    assert (inside.pixels(order) == outside.pixels(np.arange(9))).all()


def test_shards_of_one_name_in_two_folders(tmp_path):
    for i, side in enumerate("ab"):
        members = {f"k{i}.png": image_file(i), f"k{i}.txt": side}
        tar(tmp_path / side / "0.tar", members | {"same9.png": image_file(9), "same9.txt": side})
    images = read_images(f"{tmp_path}/{{a,b}}/0.tar", "train", 8, whole=True)
    assert sorted(pairs(images).values()) == [["a"], ["a"], ["b"], ["b"]]


def test_a_path_with_tar_in_it_is_no_shard(tmp_path):
    put(tmp_path / "my.target/1.png", image_file(1))
    spec = put(tmp_path / "my.target/a.csv", "image,caption\n1.png,one")
    assert pairs(read_images(str(spec), "train", 8, whole=True)) == {"1.png": ["one"]}


def test_missing_shards_are_all_counted(tmp_path):
    tar(tmp_path / "a-0.tar", {})
    with pytest.raises(BadInput, match="a-1.tar: no such file .2 of 3 shards are missing"):
        read_images(f"{tmp_path}/a-{{0..2}}.tar", "train", 8)
    with pytest.raises(BadInput, match="1 tar shards, but empty"):
        read_images(f"{tmp_path}/a-0.tar", "train", 8)


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
def test_a_shard_that_is_cut_off_is_refused(tmp_path, cut, left):
    """Nobody knows how many samples are lost. What comes before the cut is read rightly.

    Each sample is a header and a block of .txt, a header and a block of .png: 2048 bytes.
    """
    members = []
    for i in range(4):
        members += [(f"{i}.txt", f"it is {i}"), (f"{i}.png", image_file(i))]
    whole = tar(tmp_path / "a.tar", members).read_bytes()
    put(tmp_path / "a.tar", whole[:cut])
    records = []
    with pytest.raises(BadInput, match=r"a\.tar: cut off or damaged .*; fetch or make it again"):
        for record in open_spec(str(tmp_path / "a.tar"), "train", []).records:
            records.append(record)
    assert [record.captions for record in records] == [[f"it is {i}"] for i in range(left)]
    for record in records:
        _, offset, size = record.inside
        assert whole[offset : offset + size] == image_file(int(record.name[-1]))


def link(kind, target):
    info = tarfile.TarInfo()
    info.type = kind
    info.linkname = target
    return info


def test_a_shard_writes_nothing_and_follows_nothing(tmp_path):
    """Names that lead elsewhere are only names. Links, pipes and devices are no images."""
    put(tmp_path / "secret.png", image_file(9))
    members = []
    for i, name in enumerate(("../../up0", str(tmp_path / "abs1"), "./dot2", "a/../b3")):
        members += [(f"{name}.png", image_file(i)), (f"{name}.txt", f"it is {i}")]
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    for i, kind in enumerate(kinds):
        members.append((f"l{i}.png", link(kind, str(tmp_path / "secret.png"))))
        members.append((f"l{i}.txt", "a link"))
    members += [
        ("alone.png", link(tarfile.SYMTYPE, "/etc/passwd")),
        ("t.png", image_file(4)),
        ("t.txt", link(tarfile.SYMTYPE, "dot2.txt")),
    ]
    spec = str(tar(tmp_path / "in/a.tar", members))
    before = set(tmp_path.rglob("*"))
    packed, unusable = pack(spec, tmp_path / "out", 8)
    assert [reason for _, reason in unusable] == ["no image"] * 6 + ["no caption"]
    assert not packed.skipped
    out = tmp_path / "out"
    assert set(tmp_path.rglob("*")) - before == {out, *out.iterdir()}
    images = read_images(str(out), "train", 8, whole=True)
    assert list(pairs(images).values()) == [[f"it is {i}"] for i in range(4)]


def test_a_key_that_comes_twice_is_counted_not_mixed(tmp_path):
    first = [("k1.png", image_file(1)), ("k1.txt", "first")]
    other = [("k2.png", image_file(2)), ("k2.txt", "other")]
    second = [("k1.png", image_file(3)), ("k1.txt", "second")]
    for members, wanted in (
        (first + other + second, {"a.tar/k1": ["first"], "a.tar/k2": ["other"]}),
        (first + second + other, {"a.tar/k2": ["other"]}),
    ):
        unusable = []
        records = open_spec(str(tar(tmp_path / "a.tar", members)), "train", unusable).records
        assert {record.name: record.captions for record in records} == wanted
        assert unusable == [("a.tar/k1", "this key comes twice")]


def test_a_text_or_an_image_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(data.images.shards, "MAX_TEXT_BYTES", 9)
    monkeypatch.setattr(data.images.pack, "MAX_BYTES", len(image_file(0)))
    members = {"0.png": image_file(0), "0.txt": "nine char", "1.png": image_file(1)}
    members |= {"1.txt": "ten charac", "2.png": image_file(0) + b"more", "2.txt": "two"}
    unusable = []
    source = open_spec(str(tar(tmp_path / "a.tar", members)), "train", unusable)
    first, third = source.records
    assert first.captions == ["nine char"] and unusable == [("a.tar/1", "no caption")]
    assert decode(first, source.root, 8).width == 12
    assert "bytes, more than" in decode(third, source.root, 8)


@pytest.mark.parametrize("size", [-1536, 1 << 80], ids=["negative", "huge"])
def test_a_tar_whose_file_has_an_impossible_size(tmp_path, size):
    """A negative one leads back to the file before, for ever; a huge one is no tarfile.TarError."""
    members = {"0.txt": "zero", "0.png": image_file(0), "1.txt": "one"}
    whole = bytearray(tar(tmp_path / "a.tar", members).read_bytes())
    header = whole[2048:2560]
    sign = b"\xff" if size < 0 else b"\x80"
    header[124:136] = sign + size.to_bytes(11, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)  # the checksum is right: tarfile believes it
    whole[2048:2560] = header
    records = open_spec(str(put(tmp_path / "a.tar", bytes(whole))), "train", []).records
    with pytest.raises(BadInput, match="cut off or damaged"):
        list(records)
