"""data/readers.py: what users bring, well formed and not. Every error is one line that says what, where, what to do.

python -m pytest tests/test_readers.py
"""

import csv
import shutil
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import lift
import train
from data.common import BadInput
from data.images import pixels
from data.images import read as readers
from tests.conftest import embedded


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    """Twenty-four one-coloured pictures in a sub-folder; number i is (10 i, 0, 200)."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(24):
        Image.new("RGB", (40, 30), (10 * i, 0, 200)).save(folder / f"{i}.png")
    return folder


def write(path, rows, delimiter=",", encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as f:
        csv.writer(f, delimiter=delimiter).writerows(rows)
    return str(path)


def rows(header=("filepath", "title"), n=24):
    return [header] + [(f"photos/{i}.png", f"picture {i}, with a comma") for i in range(n)]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize(
    "header", [("filepath", "title"), ("image", "caption"), ("Image", " Caption ")]
)
def test_csv_pairs(photos, tmp_path, delimiter, header):
    file = write(tmp_path / "list.txt", rows(header), delimiter, encoding="utf-8-sig")
    data = readers.read_images(file, "train", 16, whole=True)
    assert len(data) == 24 and data.pixels([3, 4]).shape == (2, 16, 16, 3)
    for i in range(24):
        assert data.captions[i] == [f"picture {i}, with a comma"]
        assert (data.pixels([i])[0] == (10 * i, 0, 200)).all()


def test_named_columns_and_separator(photos, tmp_path):
    file = write(
        tmp_path / "a.csv",
        [("id", "photo,raw", "words")] + [(i, f"photos/{i}.png", f"w {i}") for i in range(24)],
        ";",
    )
    assert readers.read_images(
        file, "train", 16, separator=";", image_key="photo,raw", caption_key="words", whole=True
    ).captions[5] == ["w 5"]


def test_several_rows_are_several_captions(photos, tmp_path):
    file = write(tmp_path / "a.csv", rows() + [("photos/2.png", "again\nin two  lines")])
    data = readers.read_images(file, "train", 16, whole=True)
    assert len(data) == 24 and data.captions[2] == ["picture 2, with a comma", "again in two lines"]


def test_folder(photos):
    for i in range(24):
        (photos / f"{i}.txt").write_text(f"picture {i}\n\nor number {i}\n")
    (photos / "deep").mkdir()
    Image.new("L", (9, 9)).save(photos / "deep" / "x.JPG", format="jpeg")
    (photos / "deep" / "x.txt").write_text("a black one")
    data = readers.read_images(str(photos), "train", 16, whole=True)
    assert len(data) == 25 and ["a black one"] in data.captions
    i = list(data.names).index("7.png")
    assert (
        data.captions[i] == ["picture 7", "or number 7"]
        and (data.pixels([i])[0] == (70, 0, 200)).all()
    )


def test_held_out_tenth_is_by_content(photos, tmp_path):
    for i in range(200):
        Image.new("RGB", (8, 8), (i, 255 - i, 7)).save(photos / f"n{i}.png")
        Image.new("RGB", (8, 8), (i, 255 - i, 7)).save(photos / f"copy{i}.png")
    names = [f"{kind}{i}.png" for i in range(200) for kind in ("n", "copy")]
    file = write(tmp_path / "a.csv", [("image", "caption")] + [(f"photos/{n}", n) for n in names])
    train, test = (readers.read_images(file, split, 8) for split in ("train", "test"))
    assert len(train) + len(test) == 400 and 10 < len(test) < 80
    assert not set(train.digests.tolist()) & set(
        test.digests.tolist()
    )  # a copy stays with its original
    for side in (train, test):  # and after the split every picture still has its own caption
        for i, name in enumerate(side.names):
            number = int(name.split("/")[-1].strip("copyn.g"))
            assert (
                side.captions[i] == [name.split("/")[-1]]
                and (side.pixels([i])[0] == (number, 255 - number, 7)).all()
            )
    assert list(readers.read_images(file, "test", 16).names) == list(
        test.names
    )  # whatever the pixels are shrunk to
    assert list(readers.read_images(file, "test", 8, num_samples=5).names) == list(test.names)[:5]


def test_fit_turns_crops_and_flattens():
    tall = Image.new("RGB", (20, 40), "white")
    tall.paste((255, 0, 0), (0, 0, 20, 20))  # red above white
    exif = tall.getexif()
    exif[0x0112] = 6  # the camera was held on its side: red belongs on the right
    tall.info["exif"] = exif.tobytes()
    upright = pixels.to_square(tall, 16)
    assert upright.shape == (16, 16, 3) and upright.dtype == np.uint8
    assert (upright[:, 12:] == (255, 0, 0)).all() and (upright[:, :4] == 255).all()
    wide = Image.new("RGB", (48, 16), "blue")
    wide.paste((0, 255, 0), (16, 0, 32, 16))
    assert (pixels.to_square(wide, 16)[:, 1:-1] == (0, 255, 0)).all()  # the centre
    assert (
        pixels.to_square(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), 8) == 255
    ).all()  # transparent is white
    deep = Image.fromarray(np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8))
    assert (
        np.abs(pixels.to_square(deep, 8)[..., 0] - np.linspace(0, 255, 64).reshape(8, 8)).max() < 2
    )
    with pytest.raises(ValueError, match="no known range"):
        pixels.to_square(Image.new("F", (9, 9)), 8)
    for mode in ("L", "P", "CMYK", "1", "LA", "I;16", "I"):
        assert pixels.to_square(Image.new(mode, (9, 9)), 8).shape == (8, 8, 3)


def test_broken_pictures_are_named_counted_and_limited(photos, tmp_path, capsys):
    for i in range(24, 60):
        Image.new("RGB", (8, 8), (i, i, i)).save(photos / f"{i}.png")
    whole = (photos / "1.png").read_bytes()
    (photos / "1.png").write_bytes(whole[: len(whole) // 2])
    (photos / "2.png").unlink()
    file = write(tmp_path / "a.csv", rows(n=60))
    data = readers.read_images(file, "train", 16, whole=True)
    said = capsys.readouterr().err
    assert [s.split(": ")[0][-12:] for s in data.skipped] == ["photos/1.png", "photos/2.png"]
    assert (
        len(data) == 58
        and "photos/1.png" in said
        and "photos/2.png: no such file" in said
        and "skipped 2 of 60" in said
    )
    assert (
        data.captions[1] == ["picture 3, with a comma"]
        and (data.pixels([1])[0] == (30, 0, 200)).all()
    )
    assert len(readers.read_images(file, "train", 16, whole=True)) == 58  # and from the cache
    for i in range(5, 9):
        (photos / f"{i}.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match="6 of 60 entries cannot be used, more than 5%"):
        readers.read_images(file, "train", 16, whole=True)


def test_a_changed_picture_is_read_again(photos, tmp_path):
    file = write(tmp_path / "a.csv", rows())
    readers.read_images(file, "train", 16, whole=True)
    Image.new("RGB", (41, 30), (1, 2, 3)).save(photos / "0.png")
    assert (readers.read_images(file, "train", 16, whole=True).pixels([0])[0] == (1, 2, 3)).all()


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
    file = tmp_path / "bad.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match=says) as error:
        readers.read_images(str(file), "train", 16)
    assert str(tmp_path) in str(error.value)


def test_bad_specifications(tmp_path):
    for spec, says in (
        (str(tmp_path), "no pictures in this folder"),
        ("nowhere.csv", "no such file or folder"),
        ("shape", "no such file or folder; --data takes shapes"),
    ):
        with pytest.raises(BadInput, match=says):
            readers.read_images(spec, "train", 16)
    Image.new("RGB", (8, 8)).save(tmp_path / "alone.png")
    with pytest.raises(BadInput, match="no .txt file of the same name"):
        readers.read_images(str(tmp_path), "train", 16)
    with pytest.raises(BadInput, match="caption key 'title' is unknown"):
        readers.read_images("shapes", "train", 16, 4, caption_key="title")


def test_shapes_splits_share_no_caption():
    train, test = (
        readers.read_images("shapes-simple", split, 8, n)
        for split, n in (("train", 4000), ("test", 300))
    )
    assert not {c for p in train.captions for c in p} & {c for p in test.captions for c in p}
    assert all("/test/" in name for name in test.names)
    with pytest.raises(BadInput, match="distinct captions in its test split, not 9000"):
        readers.read_images("shapes-simple", "test", 8, 9000)


def test_shapes_views_share_their_caption():
    data = readers.read_images("shapes", "train", 32, 10)
    assert (
        len(data) == 10
        and data.captions[0] == data.captions[3] != data.captions[4]
        and data.scenes[0] is data.scenes[3]
    )
    assert (
        len(readers.read_images("shapes", "train", 32, 8, caption_key="paraphrase").captions[0])
        >= 4
    )
    assert len(readers.read_images("shapes", "test", 32, 8, caption_key="mixed").captions[0]) == 2


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=300))
def test_any_text_is_read_or_refused_in_one_line(tmp_path, text):
    file = tmp_path / "any.csv"
    file.write_text("filepath,title\n" + text, encoding="utf-8", errors="surrogatepass", newline="")
    try:
        readers.read_images(str(file), "train", 8)
    except BadInput as error:
        assert "any.csv" in str(error)


def named(path, names, vectors):
    np.save(path, vectors)
    path.with_suffix(".txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return path


def test_the_list_holds_all_that_training_and_evaluation_ask_for(
    small, tmp_path, capsys, monkeypatch
):
    """Somebody else's encoder: list the names, make the vectors, train and score with neither LLM nor image tower."""
    for flags, ask in ((["--texts"], "text"), ([], "image")):
        monkeypatch.setattr(sys, "argv", ["readers", "shapes", "--train-num-samples", "64", *flags])
        readers.main()
        names = capsys.readouterr().out.splitlines()
        shape = (len(names), 24) if ask == "text" else (len(names), 3, 16)
        rng = np.random.default_rng(1)
        named(tmp_path / f"{ask}.npy", names, rng.normal(size=shape).astype(np.float32))
    del small["llm"]
    monkeypatch.setattr(lift, "load_llm", None)  # nobody calls it
    train.train(train.Config(**small, text_features=str(tmp_path / "text.npy")))
    assert "zeroshot" in embedded(small["out"]).scores()
    monkeypatch.undo()
    small |= {
        "llm": "",
        "out": str(tmp_path / "ape"),
        "image_features": str(tmp_path / "image.npy"),
    }
    np.save(tmp_path / "tokens.npy", np.load(tmp_path / "text.npy")[:, None].repeat(2, 1))
    shutil.copy(tmp_path / "text.txt", tmp_path / "tokens.txt")
    train.train(train.Config(method="ape", **small, text_features=str(tmp_path / "tokens.npy")))
    e = embedded(small["out"])
    vectors = readers.OutsideVectors(tmp_path / "image.npy")(e.task.images.names)[:, 0]
    assert torch.allclose(
        e.image, torch.nn.functional.normalize(vectors, dim=1), atol=1e-6
    )  # used unchanged
    with pytest.raises(BadInput, match="cannot read another picture"):
        e.model.encode_image(torch.zeros(1, 3, 32, 32))
