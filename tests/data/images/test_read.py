"""data/images/read.py: what is read, held out, left out and listed; the built-in worlds.

python -m pytest tests/data/images/test_read.py
"""

import csv
import os
import shutil
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from data.common import BadInput, exit_status
from data.images import read
from data.images.formats import Columns
from data.images.pack import pack
from data.images.read import (
    captions_of,
    decode_files,
    decode_files_in_order,
    read_images,
    without_copies,
)
from data.vectors import OutsideVectors
from data.world import shapes
from data.world.shapes import WORLDS
from tests.data.files.examples import refused, within
from tests.data.images.example_data import (
    animation,
    image_file,
    png,
    png_chunk,
    put,
    saved,
    tar,
)


@pytest.fixture
def photos(tmp_path):
    """Sixty images of one colour in a folder; number i is (4 i, 0, 200)."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(60):
        Image.new("RGB", (40, 30), (4 * i, 0, 200)).save(folder / f"{i}.png")
    return folder


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("filepath", "title"), *rows])
    return str(path)


def photo_rows(count=60):
    return [(f"photos/{i}.png", f"image {i}, with a comma") for i in range(count)]


# --------------------------------------------------------------------------------------------------
# Held out, left out.


def test_held_out_tenth_is_by_content(photos, tmp_path):
    for i in range(200):
        Image.new("RGB", (8, 8), (i, 255 - i, 7)).save(photos / f"n{i}.png")
        Image.new("RGB", (8, 8), (i, 255 - i, 7)).save(photos / f"copy{i}.png")
    names = [f"{kind}{i}.png" for i in range(200) for kind in ("n", "copy")]
    file = write_csv(tmp_path / "a.csv", [(f"photos/{name}", name) for name in names])
    splits = ("train", "val", "test")
    train, val, test = (read_images(file, split, 8) for split in splits)
    assert len(train) + len(val) + len(test) == 400 and 10 < len(test) < 80 and 10 < len(val) < 80
    # A copy stays with its original.
    digests = [set(images.digests.tolist()) for images in (train, val, test)]
    assert len(set.union(*digests)) == sum(map(len, digests))
    # After the split every image still has its own caption.
    for side in (train, val, test):
        for i, name in enumerate(side.names):
            name = name.split("/")[-1]
            number = int(name.strip("copyn.g"))
            assert side.captions[i] == [name]
            assert (side.pixels([i])[0] == (number, 255 - number, 7)).all()
    # Whatever the pixels are shrunk to.
    assert read_images(file, "test", 16).names == test.names
    assert read_images(file, "test", 8, num_samples=5).names == test.names[:5]
    for split, images in (("train", train), ("test", test)):
        assert captions_of(file, split) == images.captions
    # With fewer images held out.
    for choice in ({"whole": True}, {"train_on_val": True}, {"num_samples": 5}):
        more = read_images(file, "train", 8, **choice).captions
        assert captions_of(file, "train", **choice) == more != train.captions


def test_the_held_out_images_are_those_of_all_versions(tmp_path):
    """Otherwise a run would be scored on images that it was trained on."""
    for i in range(60):
        put(tmp_path / f"{i}.ppm", b"P6 1 1 255\n" + bytes([i, i, i]))
    rows = [(f"{i}.ppm", f"number {i}") for i in range(60)]
    test = read_images(write_csv(tmp_path / "a.csv", rows), "test", 8)
    assert test.names == ["34.ppm", "39.ppm", "50.ppm", "57.ppm"]


def test_without_copies_each_image_is_there_once_with_all_captions(tmp_path, capsys):
    for i, name in ((1, "a"), (2, "b"), (1, "c"), (3, "d"), (2, "e"), (1, "f")):
        put(tmp_path / f"{name}.png", image_file(i))
    rows = [(f"{name}.png", f"it is {name}") for name in "abcdef"]
    images = read_images(write_csv(tmp_path / "a.csv", rows), "train", 8, whole=True)
    once = without_copies(images)
    assert "3 images are copies of others; each is shown once" in capsys.readouterr().err
    assert once.names == ["a.png", "b.png", "d.png"]
    assert once.captions == [
        ["it is a", "it is c", "it is f"],
        ["it is b", "it is e"],
        ["it is d"],
    ]
    assert once.pixels([0, 1, 2])[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert without_copies(once) is once
    # The images that were read are as before.
    assert images.captions == [[f"it is {name}"] for name in "abcdef"]


def test_broken_images_are_named_counted_and_limited(photos, tmp_path, capsys):
    whole = (photos / "1.png").read_bytes()
    (photos / "1.png").write_bytes(whole[: len(whole) // 2])
    (photos / "2.png").unlink()
    file = write_csv(tmp_path / "a.csv", photo_rows())
    images = read_images(file, "train", 16, whole=True)
    err = capsys.readouterr().err
    skipped = [entry.split(": ")[0] for entry in images.unusable]
    assert skipped == ["photos/1.png", "photos/2.png"]
    assert len(images) == 58 and "photos/1.png" in err
    assert "photos/2.png: no such file" in err and "skipped 2 of 60" in err
    assert images.captions[1] == ["image 3, with a comma"]
    assert (images.pixels([1])[0] == (12, 0, 200)).all()
    assert len(read_images(file, "train", 16, whole=True)) == 58  # and from the cache
    for i in range(5, 9):
        (photos / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(BadInput, match="6 of 60 entries cannot be used, more than 5%"):
        read_images(file, "train", 16, whole=True)


def test_a_changed_image_is_read_again(photos, tmp_path):
    file = write_csv(tmp_path / "a.csv", photo_rows())
    read_images(file, "train", 16, whole=True)
    Image.new("RGB", (41, 30), (1, 2, 3)).save(photos / "0.png")
    assert (read_images(file, "train", 16, whole=True).pixels([0])[0] == (1, 2, 3)).all()


def test_files_without_captions(photos, tmp_path):
    (photos / "2.png").write_bytes(b"no image")
    images, skipped = decode_files(["3.png", "2.png", "1.png", "3.png"], photos, 8)
    assert images.names == ["3.png", "1.png"] and images.captions == [[], []]
    assert images.pixels([0, 1])[:, 0, 0, 0].tolist() == [12, 4]
    assert [name for name, _ in skipped] == ["2.png"]
    images = decode_files_in_order(["3.png", "1.png", "3.png"], photos, 8)
    assert images.names == ["3.png", "1.png", "3.png"]
    assert images.pixels([0, 1, 2])[:, 0, 0, 0].tolist() == [12, 4, 12]
    with pytest.raises(BadInput, match="2.png: cannot be read .*1 such images.; a score needs all"):
        decode_files_in_order(["3.png", "2.png"], photos, 8)


@pytest.mark.parametrize(
    "name, content, wanted",
    [
        ("a.JpG", saved("RGB", "jpeg", (50, 0, 200)), (50, 0, 200)),
        ("a.jpg", saved("RGB", "png", (50, 0, 200)), (50, 0, 200)),
        ("a.jpg", saved("CMYK", "jpeg", (0, 255, 255, 0)), (255, 0, 0)),
        ("a.png", saved("P", "png", 0), None),
        ("a.gif", saved("P", "gif", 0, transparency=0), (255, 255, 255)),
        ("a.png", saved("I;16", "png", 50 << 8), (50, 50, 50)),
        ("a.GIF", animation(), (50, 0, 200)),
        ("a.png", saved("RGB", "png", (50, 0, 200), (1, 1)), (50, 0, 200)),
        ("a.bmp", saved("RGB", "bmp", (50, 0, 200), (1, 3000)), (50, 0, 200)),
        ("a.webp", saved("RGBA", "webp", (0, 0, 0, 0), lossless=True), (255,) * 3),
        ("a.png", png(9, 9, png_chunk(b"IDAT", zlib.compress(bytes(30_000_000)))), (0, 0, 0)),
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
def test_images_that_can_be_read(tmp_path, name, content, wanted):
    put(tmp_path / name, content)
    spec = put(tmp_path / "a.csv", f"image,caption\n{name},x")
    images = read_images(str(spec), "train", 8, whole=True)
    assert wanted is None or np.abs(images.pixels([0])[0] - np.array(wanted)).max() <= 4


# pytest undoes the filter in data/images/pack.py.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "cannot identify image file"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read"),
        (image_file(1)[:50], "cannot be read"),
        (image_file(1, "jpeg", (200, 200))[:400], "cannot be read"),
        (png(30_000, 30_000), "cannot be read .*exceeds limit"),
        (png(11_000, 10_000), "has 11000 x 10000 pixels, more than 100 million"),
        (png(0, 5), "cannot be read"),
        (
            png(9, 9, png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(30_000_000)))),
            "cannot be read .*too large",
        ),
        (png(9, 9, png_chunk(b"IDAT", b"no zlib")), "cannot be read"),
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
def test_images_that_cannot(tmp_path, content, says):
    put(tmp_path / "a.png", content)
    for spec in (
        put(tmp_path / "a.csv", "image,caption\na.png,x"),
        tar(tmp_path / "a.tar", {"a.png": content, "a.txt": "x"}),
    ):
        with pytest.raises(BadInput, match=f"none of its 1 entries.*{says}"):
            read_images(str(spec), "train", 8)


def test_only_regular_files_of_a_sensible_size_are_read(tmp_path):
    """A pipe would never end, and a device would fill the memory."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("/dev/zero")
    put(tmp_path / "huge.png", image_file(0))
    os.truncate(tmp_path / "huge.png", 500_000_001)  # a hole: it takes no room on the disk
    put(tmp_path / "good.png", image_file(3))
    names = ["pipe.png", "folder.png", "link.png", "/dev/zero", "huge.png", "good.png"]
    with within(10):
        images, skipped = decode_files(names, tmp_path, 8)
    assert images.names == ["good.png"]
    reasons = ["no regular file"] * 4 + ["has 500,000,001 bytes, more than 500,000,000"]
    assert [reason for _, reason in skipped] == reasons


def test_a_specification_that_is_a_pipe_or_a_device_is_refused(tmp_path):
    for name in ("a.csv", "a.jsonl", "a.json", "a.tar"):
        os.mkfifo(tmp_path / name)
        with refused(tmp_path / name, "no such file"):
            read_images(str(tmp_path / name), "train", 8)
    with refused("/dev/zero", "no such file"):
        read_images("/dev/zero", "train", 8)


# --------------------------------------------------------------------------------------------------
# The built-in worlds.


def captions_of_kind(kind):
    return Columns(csv_caption_key=kind)


@pytest.mark.slow
def test_shapes_splits_share_no_caption():
    train, test = (
        read_images("shapes-simple", split, 8, num_samples=count)
        for split, count in (("train", 4000), ("test", 300))
    )
    train_captions = {caption for captions in train.captions for caption in captions}
    assert not train_captions & {caption for captions in test.captions for caption in captions}
    assert all("/test/" in name for name in test.names)
    with pytest.raises(BadInput, match="distinct captions in its test split, not 9000"):
        read_images("shapes-simple", "test", 8, num_samples=9000)


def test_drawings_of_a_scene_share_its_captions():
    images = read_images("shapes", "train", 32, num_samples=10)
    assert len(images) == 10
    assert images.captions[0] == images.captions[1] != images.captions[2]
    assert images.scenes[0] is images.scenes[1]
    # Of the last scene only one drawing is left.
    assert read_images("shapes", "train", 8, num_samples=7).names == images.names[:7]
    assert len(set(images.names)) == 10 == len(set(images.digests.tolist()))
    paraphrases = read_images("shapes", "train", 32, captions_of_kind("paraphrase"), 8)
    assert len(paraphrases.captions[0]) >= 4
    mixed = read_images("shapes", "test", 32, captions_of_kind("mixed"), 8)
    assert len(mixed.captions[0]) == 2
    paraphrased, reworded = (
        read_images("shapes-pairs", "test", 32, captions_of_kind(kind), 8)
        for kind in ("paraphrase", "reworded")
    )
    for scene, texts, fewer in zip(
        paraphrased.scenes, paraphrased.captions, reworded.captions, strict=True
    ):
        assert [text for text in texts if text not in fewer] == [shapes.reversed_order(scene)]
        assert fewer[0] == shapes.caption(scene) and len(fewer) == 4
    with pytest.raises(BadInput, match="caption key 'title' is unknown in the built-in world"):
        read_images("shapes", "train", 16, captions_of_kind("title"), 4)


@pytest.mark.parametrize("kind", ["", "short", "paraphrase", "reworded", "long", "mixed"])
def test_captions_of_a_world_come_as_with_its_images_and_nothing_is_drawn(kind, monkeypatch):
    monkeypatch.setattr(read, "WORLD_SIZE", {"train": 30, "test": 10})
    columns = captions_of_kind(kind)
    for world in WORLDS:
        for split in ("train", "test"):
            wanted = read_images(world, split, 8, columns).captions
            with monkeypatch.context() as patch:
                patch.setattr(read, "draw", None)
                assert captions_of(world, split, columns) == wanted
            assert len(wanted) == (30 if split == "train" else 10)


# --------------------------------------------------------------------------------------------------
# The list of names and texts.


def listed(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["read", *map(str, args)])
    return exit_status(read.main)


def test_a_pack_is_listed_at_its_own_size(photos, tmp_path, monkeypatch, capsys):
    file = write_csv(tmp_path / "a.csv", photo_rows())
    pack(file, tmp_path / "packed", 24)
    assert listed(monkeypatch, tmp_path / "packed") == 0
    names = capsys.readouterr().out.splitlines()
    assert sorted(names) == sorted(name for name, _ in photo_rows())
    assert captions_of(str(tmp_path / "packed"), "test") == captions_of(file, "test")


def test_halves_of_characters_can_be_listed(tmp_path, monkeypatch, capsysbinary):
    """Scraped captions hold halves of emoji. --text-features must be able to read the list."""
    for i in range(25):
        put(tmp_path / f"{i}.png", image_file(i))
    rows = [{"image": f"{i}.png", "caption": f"half \ud83d {i}"} for i in range(25)]
    assert listed(monkeypatch, put(tmp_path / "a.json", rows), "--texts") == 0
    (tmp_path / "v.txt").write_bytes(capsysbinary.readouterr().out)
    np.save(tmp_path / "v.npy", np.ones((25, 2)))
    assert OutsideVectors(tmp_path / "v.npy")(["half \ud83d 3"]).tolist() == [[1, 1]]


def write_vectors(path, names, vectors):
    np.save(path, vectors)
    path.with_suffix(".txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


@pytest.mark.slow
def test_the_list_holds_all_that_training_and_evaluation_ask_for(
    small, tmp_path, capsys, monkeypatch
):
    """Somebody else's encoder: list the names, make the vectors, train, score. No LLM, no tower."""
    import llm_text
    import train
    from eval import Run
    from tests.conftest import evaluated

    for flags, kind in ((["--texts"], "text"), ([], "image")):
        assert listed(monkeypatch, "shapes", "--train-num-samples", 64, *flags) == 0
        names = capsys.readouterr().out.splitlines()
        shape = (len(names), 24) if kind == "text" else (len(names), 3, 16)
        vectors = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        write_vectors(tmp_path / f"{kind}.npy", names, vectors)
    del small["llm"]
    with monkeypatch.context() as patch:
        patch.setattr(llm_text, "load_llm", None)  # nobody calls it
        train.train(train.Config(**small, text_features=str(tmp_path / "text.npy")))
        assert "zeroshot" in evaluated(small["out"]).scores

    small |= {
        "llm": "",
        "out": str(tmp_path / "ape"),
        "image_features": str(tmp_path / "image.npy"),
    }
    np.save(tmp_path / "tokens.npy", np.load(tmp_path / "text.npy")[:, None].repeat(2, 1))
    shutil.copy(tmp_path / "text.txt", tmp_path / "tokens.txt")
    train.train(train.Config(method="ape", **small, text_features=str(tmp_path / "tokens.npy")))
    result = evaluated(small["out"])
    vectors = OutsideVectors(tmp_path / "image.npy")(result.task.images.names)[:, 0]
    unit = torch.nn.functional.normalize(vectors, dim=1)
    assert torch.allclose(result.image, unit, atol=1e-6)  # used unchanged
    with pytest.raises(BadInput, match="cannot read another image"):
        Run(small["out"]).model.encode_image(torch.zeros(1, 3, 32, 32))


def test_a_list_of_shards_may_be_longer_than_a_file_name(tmp_path):
    shards = [tmp_path / f"{number:03}{'x' * 100}.tar" for number in range(40)]
    for number, path in enumerate(shards):
        tar(path, {f"{number}.png": image_file(number), f"{number}.txt": f"number {number}"})
    spec = "::".join(map(str, shards))
    assert len(spec) > 4096
    images = read_images(spec, "test", 8, whole=True)
    assert sorted(images.captions) == sorted([f"number {number}"] for number in range(40))
