"""data/benchmarks.py: official layouts made here, scores by hand, and what a user gets wrong.

    python -m pytest tests/data/test_benchmarks.py

Images are painted and known by number; see conftest.py beside this file.
"""

import dataclasses
import json
import os
import shutil
from math import comb, nan
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import eval as ev
import lift
import train
from data import benchmarks
from data.common import BadInput
from data.files.runs import read_run
from data.images import read
from data.images.formats import Columns
from data.images.read import names_and_texts
from data.world import shapes
from data.world.colours import UNSEEN
from data.world.shapes import CATEGORIES
from tests.conftest import evaluated
from tests.data.conftest import captions_csv, fails, folders, looks_sane, paint
from tests.data.images.example_data import tar
from tests.test_eval import WINOGROUND

pytestmark = pytest.mark.usefixtures("own_folder")

# --------------------------------------------------------------------------------------------------
# SugarCrepe.

# Of each category: (number of the image, true caption, false caption).
ITEMS = {
    "add_obj": [(1, "left", "right"), (2, "left", "right"), (2, "right", "left")],
    "add_att": [(2, "right", "even")],
    "replace_obj": [(1, "even", "even")],
    "replace_att": [(1, "right", "left"), (2, "left", "even")],
    "replace_rel": [(1, "left", "nan")],
    "swap_obj": [(1, "nan", "right")],
    "swap_att": [(1, "left", "even"), (1, "even", "left")],
}
WORDS = {"left": [0.75, 0.25], "right": [0.25, 0.75], "even": [0.5, 0.5], "nan": [nan, nan]}


def sugarcrepe(items):
    """Write the seven files, with gaps in their keys as the official ones have, and the images."""
    Path("sc").mkdir()
    for category in CATEGORIES:
        entries = {}
        for i, (number, true, false) in enumerate(items[category]):
            name = f"{number:012}.jpg"
            entry = {"filename": name, "caption": true, "negative_caption": false}
            entries[str(7 * i + 3)] = entry
            paint(f"val2017/{name}", number)
        Path(f"sc/{category}.json").write_text(json.dumps(entries, indent=4))
    paint("val2017/000000000009.jpg", 9)  # one that no entry names


def test_sugarcrepe_by_hand(trained, known):
    sugarcrepe(ITEMS)
    seen = known({1: [1.0, 0.0], 2: [0.0, 1.0]}, WORDS)
    task = benchmarks.sugarcrepe("sc", 32, "val2017")
    result = ev.evaluate(ev.Run(trained), task).scores
    shares = [2 / 3, 1, 0, 0, 0, 0, 1 / 2]  # a tie is wrong, and so is NaN on either side
    compositional = result["compositional"]
    assert [compositional[category] for category in CATEGORIES] == pytest.approx(shares)
    # The mean is over categories, whatever their size.
    assert compositional["mean"] == pytest.approx(sum(shares) / 7)
    assert set(result["chance"]["compositional"].values()) == {0.5}
    assert result["counts"] == {"images": 2, "false captions": 11}
    assert sorted(seen) == [1, 2]  # each image once, however many entries name it


def test_a_collapsed_model_scores_nothing(trained, known):
    sugarcrepe(ITEMS)
    known({1: [0.6, 0.8], 2: [0.6, 0.8]}, dict.fromkeys(WORDS, [0.1, 0.3]))
    result = ev.evaluate(ev.Run(trained), benchmarks.sugarcrepe("sc", 32, "val2017"))
    assert set(result.scores["compositional"].values()) == {0.0}


def change(category, **fields):
    """Set fields of the first entry of a file; None removes one."""
    path = Path(f"sc/{category}.json")
    content = json.loads(path.read_text())
    entry = next(iter(content.values()))
    for field, value in fields.items():
        entry[field] = value
        if value is None:
            del entry[field]
    path.write_text(json.dumps(content))


# fmt: off
SPOILT_SUGARCREPE = [
    (lambda: Path("val2017/000000000002.jpg").unlink(),
     ["val2017/000000000002.jpg", "no such file"]),
    (lambda: Path("val2017/000000000002.jpg").write_bytes(b"none"),
     ["val2017/000000000002.jpg", "cannot identify"]),
    (lambda: Path("sc/swap_obj.json").unlink(),
     ["sc/swap_obj.json", "no such file"]),
    # Without entries of one category, the mean would be of six.
    (lambda: Path("sc/swap_obj.json").write_text("{}"),
     ["sc/swap_obj.json", "no entries"]),
    (lambda: Path("sc/swap_obj.json").write_text('{"0": {'),
     ["sc/swap_obj.json", "JSONDecodeError"]),
    (lambda: Path("sc/swap_obj.json").write_bytes(b'{"\xff'),
     ["sc/swap_obj.json", "UnicodeDecodeError"]),
    (lambda: Path("sc/swap_obj.json").write_text('"words"'),
     ["sc/swap_obj.json"]),
    (lambda: change("add_att", negative_caption=None),
     ["sc/add_att.json", "'negative_caption'"]),
    (lambda: change("add_att", filename=None),
     ["sc/add_att.json", "'filename'"]),
    (lambda: change("add_att", caption=["a list"]),
     ["sc/add_att.json", "caption is not a text"]),
    (lambda: change("add_att", filename=3),
     ["sc/add_att.json", "filename is not a text"]),
]
# fmt: on


@pytest.mark.parametrize("spoil, words", SPOILT_SUGARCREPE)
def test_sugarcrepe_names_what_is_wrong(spoil, words):
    sugarcrepe(ITEMS)
    spoil()
    with pytest.raises(BadInput) as error:
        benchmarks.sugarcrepe("sc", 16, "val2017")
    assert all(word in str(error.value) for word in words), error.value


def test_sugarcrepe_from_the_command_line(trained, command, monkeypatch):
    sugarcrepe(ITEMS)
    n_embedded, encode = [], lift.TwoTower.encode_image

    def encode_image(self, images, **settings):
        n_embedded.append(len(images))
        return encode(self, images, **settings)

    monkeypatch.setattr(lift.TwoTower, "encode_image", encode_image)
    # Captions that are hard to draw.
    long = "two\nlines, 猫在沙滩上 🐱 " * 40
    change("add_obj", caption=long, negative_caption="word " * 10_000)
    status, out, err = command(
        trained, "--sugarcrepe", "sc", "--images", "val2017", "--device", "cpu"
    )
    assert status == 0, err
    assert "| compositional swap_att | 50.0 |" in out
    assert "2 images, 11 false captions" in out
    [path] = Path(trained).glob("eval-sugarcrepe-sc-*.json")
    result = json.loads(path.read_text())
    assert set(result["compositional"]) == {*CATEGORIES, "mean"}
    assert not Path(trained, "eval.json").exists()
    assert sum(n_embedded) == 2  # another one lies in the folder
    looks_sane(path.with_name(path.name.replace("eval", "report")).with_suffix(".png"))

    # Without --images, the current folder does not take its place.
    fails(command(trained, "--sugarcrepe", "sc"), "--images", "val2017")
    fails(command(trained, "--sugarcrepe", "sc", "--images", "none"), "--images none")
    fails(command(trained, "--sugarcrepe", "none", "--images", "val2017"), "none/add_obj.json")


# --------------------------------------------------------------------------------------------------
# Winoground.


def winoground(folder, examples=WINOGROUND):
    """Write these examples of WINOGROUND and their images, 1 and 2 of each."""
    lines = []
    for i in range(len(examples)):
        for side in (0, 1):
            paint(f"{folder}/images/ex_{i}_img_{side}.png", 1 + side)
        example = {
            "id": i,
            "image_0": f"ex_{i}_img_0",
            "image_1": f"ex_{i}_img_1",
            "caption_0": f"{i}\u2028some words",
            "caption_1": f"{i} words some",
            "tag": "Object",
        }
        lines.append(json.dumps(example, ensure_ascii=False))
    Path(folder, "examples.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("folder", ["wino", "wino/data"])
def test_winoground_files_by_hand(folder, trained, known):
    winoground(folder)
    texts = {}
    for i, (first, second, *_) in enumerate(WINOGROUND):
        texts[f"{i}\u2028some words"] = first
        texts[f"{i} words some"] = second
    seen = known({1: [1.0, 0.0], 2: [0.0, 1.0]}, texts)
    result = ev.evaluate(ev.Run(trained), benchmarks.winoground("wino", 32)).scores
    assert result["winoground"] == {"text": 3 / 8, "image": 3 / 8, "group": 1 / 8}
    assert result["counts"]["examples"] == 8
    assert result["chance"]["winoground"] == {"text": 0.25, "image": 0.25, "group": 1 / 6}
    assert len(seen) == 16


def test_an_image_may_come_again():
    winoground("wino", WINOGROUND[:2])
    path = Path("wino/examples.jsonl")
    # This name has its ending, too.
    path.write_text(path.read_text().replace("ex_1_img_0", "ex_0_img_1.png"))
    task = benchmarks.winoground("wino", 16)
    assert list(task.images.names) == [
        "ex_0_img_0.png",
        "ex_0_img_1.png",
        "ex_0_img_1.png",
        "ex_1_img_1.png",
    ]
    assert task.images.pixels(range(4))[:, 0, 0, 0].tolist() == [10, 20, 20, 20]
    assert task.winoground_captions[1::2] == ["0 words some", "1 words some"]


# fmt: off
SPOILT_WINOGROUND = [
    ("", ["no examples"]),
    ("{", ["JSONDecodeError"]),
    ("{}", ["'image_0'"]),
    ("[1]", ["TypeError"]),
    ('{"image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "a"}',
     ["'caption_1'"]),
    ('{"image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "a", "caption_1": null}',
     ["caption_1 is not a text"]),
]
# fmt: on


@pytest.mark.parametrize("line, words", SPOILT_WINOGROUND)
def test_winoground_names_what_is_wrong(line, words):
    winoground("wino", WINOGROUND[:1])
    Path("wino/examples.jsonl").write_text(line)
    with pytest.raises(BadInput) as error:
        benchmarks.winoground("wino", 16)
    assert all(word in str(error.value) for word in ["wino/examples.jsonl", *words])


def test_winoground_from_the_command_line(trained, command):
    winoground("wino/data", WINOGROUND[:3])
    status, out, err = command(trained, "--winoground", "wino/", "--report", "w.png")
    assert status == 0, err
    assert "| winoground group | 16.7 |" in out
    assert "6 images, 3 examples" in out
    [path] = Path(trained).glob("eval-winoground-wino-*.json")
    result = json.loads(path.read_text())
    assert set(result["winoground"]) == {"text", "image", "group"}
    looks_sane("w.png")
    Path("wino/data/images/ex_2_img_1.png").unlink()
    fails(command(trained, "--winoground", "wino"), "ex_2_img_1", "no such file")
    fails(command(trained, "--winoground", "none"), "none/examples.jsonl")


# --------------------------------------------------------------------------------------------------
# ImageFolder.


def test_zeroshot_by_hand(trained, known):
    """Prompts are one-hot in six classes, so an image's vector is its scores."""
    # Sorted: big_dog, c, cat, d, e, f.
    folders(big_dog=[1, 2, 3], cat=[4], f=[8], e=[7], d=[6], c=[5])
    Path("z/loose.txt").write_text("not a class")
    Path("z/empty").mkdir()
    names = ["big dog", "c", "cat", "d", "e", "f"]
    prompts = [f"It is a photo of a {name}" for name in names]
    seen = known(
        {
            1: [0.9, 0, 0, 0, 0, 0],
            2: [0.5, 0.4, 0.6, 0.7, 0, 0],
            3: [0.9, 0.8, 0, 0, 0, 0],
            4: [0.9, 0.8, 0.1, 0.7, 0.6, 0.5],
            5: [0, 0.2, 0, 0, 0.2, 0],
            6: [0.1, 0, 0.3, 0.5, 0.2, 0.4],
            7: [nan] * 6,
            8: [0, 0, 0, 0, 0.0, 0.1],
        },
        dict(zip(prompts, torch.eye(6).tolist(), strict=True)),
    )
    result = ev.evaluate(ev.Run(trained), benchmarks.imagefolder("z", 32)).scores
    # The big dogs 1 and 3 are right, 2 comes third. cat is last of six. c ties, so it is second.
    # d is right. e is NaN, so it is last. f is right.
    assert result["zeroshot"] == {
        "top1": 4 / 8,
        "top5": 6 / 8,
        "mean_per_class": pytest.approx((2 / 3 + 0 + 0 + 1 + 0 + 1) / 6),
    }
    assert result["chance"]["zeroshot"] == {"top1": 1 / 6, "top5": 5 / 6, "mean_per_class": 1 / 6}
    assert result["counts"] == {"images": 8, "classified": 8, "classes": 6}
    assert sorted(seen) == list(range(1, 9))
    assert set(result["ci95"]["zeroshot"]) == set(result["zeroshot"])


def test_class_names():
    folders(b__c=[1], a_=[2], Z=[3], **{".hidden": [4]})
    names = Path("names.txt")
    assert benchmarks.imagefolder("z", 16).class_names == ["Z", "a", "b c"]
    names.write_text("\ufeffzebra\r\nan apple\n\nbee_c\n", encoding="utf-8")
    assert benchmarks.imagefolder("z", 16, names).class_names == ["zebra", "an apple", "bee_c"]
    # ImageNet's list for a part of its folders.
    names.write_text("n0\tnobody\nb__c\tbee, or sea\nZ\tzebra\na_\tapple\n")
    task = benchmarks.imagefolder("z", 16, names)
    assert task.class_names == ["zebra", "apple", "bee, or sea"]
    assert task.labels.tolist() == [0, 1, 2]
    assert list(task.images.names) == ["Z/3.png", "a_/2.png", "b__c/1.png"]


@pytest.mark.parametrize(
    "content, words",
    [
        ("one\ntwo\n", ["names.txt", "2 names for the 3 folders"]),
        ("1\n2\n3\n4\n", ["4 names for the 3 folders"]),
        ("Z\tzebra\na_\tapple\n", ["names.txt", "b__c"]),
        ("same\nother\nsame\n", ["'same'"]),
        ("", ["names.txt"]),
        ("Z\tone\na_\ttwo\nb__c\tone\n", ["'one'"]),
        ("Z\tzebra\na_\tapple\nb__c\n", ["names.txt", "'b__c' has no name behind a tab"]),
        ("Z\tzebra\na_\tapple\nb__c\tbee\nZ\tzoo\n", ["names.txt", "twice"]),
        (None, ["names.txt", "no such file"]),
    ],
)
def test_class_names_that_do_not_fit(content, words):
    folders(b__c=[1], a_=[2], Z=[3])
    if content is not None:
        Path("names.txt").write_text(content)
    with pytest.raises(BadInput) as error:
        benchmarks.imagefolder("z", 16, "names.txt")
    assert all(word in str(error.value) for word in words), error.value


def test_folders_that_are_no_classes():
    def two_of_one_name():
        paint("z/a_b/1.png")
        paint("z/a b/1.png")
        paint("z/a/1.png")

    for make, words in (
        (lambda: None, "no such folder"),
        (lambda: folders(a=[1]), "1 folder"),
        (two_of_one_name, "'a b'"),
    ):
        make()
        with pytest.raises(BadInput, match=words):
            benchmarks.imagefolder("z", 16)


def test_sub_folders_upper_case_and_a_folder_that_is_called_like_an_image():
    paint("z/a/deep/er/1.JPEG", 1)
    paint("z/a/2.PNG", 2)
    paint("z/b/3.Tif", 3)
    Path("z/b/x.png").mkdir()
    Path("z/b/._3.Tif").write_bytes(b"macOS")
    task = benchmarks.imagefolder("z", 16)
    assert list(task.images.names) == ["a/2.PNG", "a/deep/er/1.JPEG", "b/3.Tif"]
    assert task.labels.tolist() == [0, 0, 1]
    assert task.class_names == ["a", "b"]


def test_templates():
    path = Path("t.txt")
    for wrong in ("no braces\n", "a {}\ntwo {} {}\n", "", "\n \n"):
        path.write_text(wrong)
        with pytest.raises(BadInput, match="t.txt"):
            benchmarks.read_templates(path)
    path.write_text("a {} {of} {x\n\na {}.\n")  # other braces are words
    prompts = []

    def encode_texts(texts):
        prompts.extend(texts)
        return torch.ones(len(texts), 2)

    fake = SimpleNamespace(encode_texts=encode_texts)
    ev.Run.class_features(fake, ["{0}", "b"], benchmarks.read_templates(path))
    assert prompts == ["a {0} {of} {x", "a {0}.", "a b {of} {x", "a b."]


def test_zeroshot_from_the_command_line(trained, command):
    folders(big_dog=[1, 2, 3], cat=[4], bird=[5])
    Path("t.txt").write_text("a {}\nthe {}\n")
    Path("n.txt").write_text("bird\ta parrot\nbig_dog\ta wolf\ncat\ta lion\nworm\ta worm\n")
    status, out, err = command(
        trained, "--zeroshot", "z", "--templates", "t.txt", "--classnames", "n.txt"
    )
    assert status == 0, err
    assert "| zeroshot mean_per_class | 33.3 |" in out
    assert "5 classified, 3 classes" in out and "so few" in out
    [path] = Path(trained).glob("eval-zeroshot-z-*.json")
    result = json.loads(path.read_text())
    # Of three classes, five guesses hold the right one: no top-5.
    assert set(result["zeroshot"]) == {"top1", "mean_per_class"}
    looks_sane(path.with_name(path.name.replace("eval", "report")).with_suffix(".png"))
    os.chdir("z")
    # The current folder has a name, too. Two spellings of one question have one file.
    for folder in (".", "../z"):
        assert command(trained, "--zeroshot", folder)[0] == 0
    assert len(list(Path(trained).glob("eval-zeroshot-z-*.json"))) == 2
    assert len(list(Path(trained).glob("eval*.json"))) == 2
    os.chdir("..")
    for flag, file, words in (
        ("--templates", "n.txt", "{}"),
        ("--templates", "none", "none: no such file"),
        ("--classnames", "none", "none"),
        ("--report", "x.txt", "--report x.txt"),
        ("--report", "none/x.png", "--report none/x.png"),
    ):
        fails(command(trained, "--zeroshot", "z", flag, file), words)
    fails(command("z", "--zeroshot", "z"), "z/checkpoint.pt", "not the folder of a trained run")
    Path("z/cat/broken.jpg").write_bytes(b"none")
    fails(command(trained, "--zeroshot", "z"), "z/cat/broken.jpg")


# --------------------------------------------------------------------------------------------------
# Retrieval with one to six captions per image.

# Of images 1, 2, ...: each caption and its scores with all four.
CAPTIONS = {
    1: [("same", [0.9, 0.1, 0.2, 0.3])],
    2: [("one", [0.2, 0.5, 0.6, 0.1]), ("two", [0.0, 0.4, 0.4, 0.1])],
    3: [
        ("a", [0.95, 0.0, 0.7, 0.0]),
        ("b", [0.0, 0.0, 0.3, 0.0]),
        ("c", [0.3] * 4),
        ("d", [0.0, 0.0, 0.1, 0.2]),
        ("e", [0.0, 0.0, 0.8, 0.0]),
        ("f", [0.9, 0.9, 0.1, 0.9]),
    ],
    4: [("same", [0.9, 0.1, 0.2, 0.3]), ("nan", [nan] * 4)],
}
DISTINCT = ["same", "one", "two", "a", "b", "c", "d", "e", "f", "nan"]


def test_retrieval_by_hand(trained, known):
    texts = dict(pair for captions in CAPTIONS.values() for pair in captions)
    seen = known(dict(zip(CAPTIONS, torch.eye(4).tolist(), strict=True)), texts)
    result = evaluated(trained, captions_csv(CAPTIONS))
    task = result.task
    i2t, t2i = ev.retrieval_ranks(
        result.image, result.text, task.image_of_caption, task.caption_ids
    )
    # Image 1: its 0.9 comes after a, f (a tie) and nan. Image 2: after f and nan. Image 3: after
    # nan. Image 4 has a NaN of its own, so it comes after all eight others.
    assert i2t.tolist() == [3, 2, 1, 8]
    # "same" is right for 1 and 4. There are ties in "two" and "c".
    assert t2i.tolist() == [0, 1, 1, 1, 0, 3, 1, 0, 3, 0, 3]

    scores = result.scores
    assert scores["retrieval"]["i2t"] == {"R@1": 0, "R@5": 3 / 4, "R@10": 1}
    assert scores["retrieval"]["t2i"]["R@1"] == 4 / 11
    # One caption per image: same, one, a, same.
    assert scores["one_caption"]["i2t"]["R@1"] == 3 / 4
    assert scores["one_caption"]["t2i"]["R@1"] == 2 / 4
    assert scores["counts"] == {"images": 4, "captions": 11} and sorted(seen) == [1, 2, 3, 4]
    # The captions of one image are drawn together for the interval.
    grouped = ev.interval(t2i < 1, task.image_of_caption)
    assert scores["ci95"]["retrieval"]["t2i"]["R@1"] == grouped != ev.interval(t2i < 1)

    # Chance: the right captions are 2, 2, 6 and 3 of 11. For "same" two of four images are right.
    chance = scores["chance"]["retrieval"]
    assert chance["i2t"]["R@1"] == pytest.approx((2 + 2 + 6 + 3) / 4 / 11)
    assert chance["t2i"]["R@1"] == pytest.approx((2 * 2 + 9) / 4 / 11)
    misses = sum(comb(11 - r, 5) for r in (2, 2, 6, 3)) / 4 / comb(11, 5)
    assert chance["i2t"]["R@5"] == pytest.approx(1 - misses)
    assert chance["t2i"]["R@5"] == chance["i2t"]["R@10"] == 1
    one_caption = scores["chance"]["one_caption"]
    assert one_caption["i2t"]["R@1"] == pytest.approx((2 + 1 + 1 + 2) / 4 / 4)


def test_false_captions_that_lie_beside_the_images(trained, known, capsys):
    """Each category is a score of its own; lines about other images are not taken."""
    captions = {1: [("a", [1.0, 0.0])], 2: [("b", [0.0, 1.0])], 3: [("c", [0.6, 0.8])]}
    texts = dict(pair for some in captions.values() for pair in some)
    texts |= {"x": [0.8, 0.6], "like b": [0.0, 1.0], "like c": [0.6, 0.8]}
    known({1: [1.0, 0.0], 2: [0.0, 1.0], 3: [0.6, 0.8]}, texts)
    data = captions_csv(captions)
    lines = [
        ("1.png", "a", "x", "add"),  # 1.0 against 0.8: right
        ("2.png", "b", "like b", "add"),  # a tie is wrong
        ("3.png", "x", "like c", "replace"),  # 0.96 against 1.0: wrong
        ("3.png", "c", "a", "replace"),  # right
        ("9.png", "c", "a\u2028b", "replace"),  # no end of a line
        ("1.png", "x", "a", "add"),  # the "false" one is its own caption
    ]
    keys = ("image", "true", "false", "category")
    objects = [dict(zip(keys, line, strict=True)) for line in lines]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in objects)
    Path("false_captions.jsonl").write_text(text)
    scores = evaluated(trained, data).scores
    assert scores["false_captions"] == {"add": 0.5, "replace": 0.5}
    assert scores["chance"]["false_captions"] == {"add": 0.5, "replace": 0.5}
    # Both of "replace" are of one image, so there is nothing to draw from.
    assert scores["ci95"]["false_captions"]["replace"] == [0.5, 0.5]
    assert "compositional" not in scores and scores["counts"]["false captions"] == 4
    # What is not taken is counted, and where nothing is taken, the names that would be are shown.
    said = capsys.readouterr().err
    assert "4 false captions of these images; 1 of other images, such as 9.png; 1 left out" in said
    Path("false_captions.jsonl").write_text(text.split("\n")[4])
    evaluated(trained, data)
    said = capsys.readouterr().err
    assert "0 false captions of these images; 1 of other images, such as 9.png; these " in said

    for line in (
        b"{",
        b'{"image": "1.png"}',
        b'{"image": "1.png", "true": "a", "false": "x", "category": "add more"}',
        b'{"image": "1.png", "true": "a", "false": "x", "category": "add\\tmore"}',
        b'{"image": "1.png", "true": null, "false": "x", "category": "add"}',
    ):
        Path("false_captions.jsonl").write_bytes(text.encode() + line + b"\n\n")
        with pytest.raises(BadInput, match="false_captions.jsonl line 7: "):
            evaluated(trained, data)
    Path("false_captions.jsonl").write_bytes(b"\xe9")
    with pytest.raises(BadInput, match="false_captions.jsonl: "):
        evaluated(trained, data)


def test_one_caption_per_image_is_its_first(trained, known):
    captions = {1: [("a", [1.0, 0.0]), ("b", [0.0, 0.9])], 2: [("c", [0.5, 0.1])]}
    texts = dict(pair for some in captions.values() for pair in some)
    known({1: [1.0, 0.0], 2: [0.0, 1.0]}, texts)
    scores = evaluated(trained, captions_csv(captions)).scores
    # With a and c, image 2 finds c, but c is nearer to image 1. With b in the place of c, both find
    # each other.
    assert scores["one_caption"]["i2t"]["R@1"] == 1
    assert scores["one_caption"]["t2i"]["R@1"] == 1 / 2


def test_chance_is_what_blind_embeddings_score(trained, known):
    known(dict.fromkeys(CAPTIONS, [0.0] * 4), dict.fromkeys(DISTINCT, [0.0] * 4))
    result = evaluated(trained, captions_csv(CAPTIONS))
    task = result.task
    generator, hits, draws = torch.Generator().manual_seed(0), torch.zeros(3), 1500
    for _ in range(draws):  # scores in a random order
        text = torch.rand(11, 4, generator=generator)
        i2t, t2i = ev.retrieval_ranks(torch.eye(4), text, task.image_of_caption, task.caption_ids)
        some = [(i2t < 1).float().mean(), (i2t < 5).float().mean(), (t2i < 1).float().mean()]
        hits += torch.stack(some)
    chance = result.scores["chance"]["retrieval"]
    wanted = [chance["i2t"]["R@1"], chance["i2t"]["R@5"], chance["t2i"]["R@1"]]
    assert (hits / draws).tolist() == pytest.approx(wanted, abs=0.02)


@pytest.mark.slow
def test_several_captions_from_the_command_line(small, command):
    runs = [str(Path("long" * 20, method)) for method in ("lift", "clip", "supervised")]
    for out in runs:
        train.train(train.Config(method=Path(out).name, **{**small, "out": out}))
    status, out, err = command(*runs, "--data", captions_csv(CAPTIONS))
    assert status == 0, err
    assert "| one_caption t2i R@10 | 100.0 |" in out
    assert "4 images, 11 captions" in out
    for folder in runs:
        [path] = Path(folder).glob("eval-a-*.json")
        assert {"retrieval", "one_caption", "counts"} < set(json.loads(path.read_text()))
    report = path.name.replace("eval", "report").replace(".json", ".png")
    looks_sane(Path("long" * 20, report), 200 + 450 * 3)
    # A single image.
    one = captions_csv({1: [("one thing",)]})
    assert command(runs[0], "--data", one, "--report", "r.webp")[0] == 0
    assert "one_caption" not in json.loads(Path(runs[0], path.name).read_text())
    # Another file of the same name has a file of its own.
    Path("elsewhere").mkdir()
    Path("elsewhere/a.csv").write_text("filepath,title\n../1.png,one thing\n")
    assert command(runs[0], "--data", "elsewhere/a.csv")[0] == 0
    assert len(list(Path(runs[0]).glob("eval-a-*.json"))) == 2


# --------------------------------------------------------------------------------------------------
# Which images are held out, and how their files are read.


def test_flags_reach_what_they_are_for(trained, command):
    captions_csv({n: [(f"number {n}",)] for n in range(1, 9)})
    text = Path("a.csv").read_text().replace("filepath,title", "file,words")
    Path("a.csv").write_text(text.replace(",", ";"))
    fails(command(trained, "--data", "a.csv"), "a.csv")
    flags = ["--csv-separator", ";", "--csv-img-key", "file", "--csv-caption-key", "words"]
    flags += ["--image-root", "."]
    status, out, err = command(trained, "--data", "a.csv", *flags)
    assert status == 0 and "8 images, 8 captions" in out, err
    Path("bad.txt").write_text("no place for a name\n")
    fails(
        command(trained, "--classify", "1.png", "dog,cat", "--templates", "bad.txt"),
        "bad.txt",
        "no place",
    )
    fails(command(trained, trained, "--search", ".", "x", "--report", "x.png"), "--report x.png")
    fails(command(trained, "--device", "meta"), "--device meta cannot be used")


def test_copies_are_shown_once_with_the_captions_of_all(trained):
    captions_csv({n: [(f"number {n}",)] for n in range(1, 5)})
    paint("copy.png", 2)
    Path("a.csv").write_text(Path("a.csv").read_text() + "copy.png,the second once more\n")
    task = evaluated(trained, "a.csv").task
    assert len(task.images) == 4
    assert task.captions == [
        "number 1",
        "number 2",
        "the second once more",
        "number 3",
        "number 4",
    ]
    assert task.image_of_caption.tolist() == [0, 1, 1, 2, 3]

    # A copy with the same caption asks nothing new.
    paint("again.png", 1)
    Path("a.csv").write_text(Path("a.csv").read_text() + "again.png,number 1\n")
    assert evaluated(trained, "a.csv").task.captions == task.captions


@pytest.mark.slow
def test_runs_that_hold_out_different_images_are_not_compared(small, command):
    for name in ("a", "b"):
        rows = ["filepath,title"]
        rows += [f"{paint(f'{name}/{i}.png', i)},{i}" for i in range(1, 9)]
        Path(f"{name}.csv").write_text("\n".join(rows) + "\n")
        settings = {"data": f"{name}.csv", "val_data": f"{name}.csv", "out": f"run_{name}"}
        train.train(train.Config(method="clip", **{**small, **settings}))
    fails(command("run_a", "run_b"), "hold out different images", "run_a: a.csv", "run_b: b.csv")
    assert command("run_a", "run_b", "--data", "a.csv")[0] == 0


def test_own_data_in_another_column(small):
    captions_csv({n: [(f"number {n}",)] for n in range(1, 9)})
    header, *lines = Path("a.csv").read_text().splitlines()
    rows = [f"{header},other", *(f"{line},word {i}" for i, line in enumerate(lines))]
    Path("a.csv").write_text("\n".join(rows) + "\n")
    settings = {"data": "a.csv", "val_data": "a.csv", "csv_caption_key": "other"}
    train.train(train.Config(method="clip", **{**small, **settings}))
    # Read as train.py read it, unless another column is named. A path may be written in two ways.
    assert evaluated(small["out"]).task.captions[0] == "word 0"
    shutil.copyfile("a.csv", "b.csv")
    config = read_run(small["out"])["config"] | {"data": "b.csv"}
    for name in ("a.csv", "./a.csv"):
        assert benchmarks.held_out(config, name).captions[0] == "word 0", name
    columns = Columns(csv_caption_key="title")
    assert evaluated(small["out"], "a.csv", columns).task.captions[0] == "number 1"


def test_runs_that_know_no_other_images(small, command):
    """--image-features: vectors by name, so an image without one is an error, not a guess."""
    captions_csv({n: [(f"number {n}",)] for n in range(1, 21)})
    names = [f"{n}.png" for n in range(1, 21)]
    np.save("v.npy", np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32))
    Path("v.txt").write_text("\n".join(names) + "\n")
    settings = {"data": "a.csv", "val_data": "a.csv", "image_features": "v.npy", "out": "given"}
    train.train(train.Config(method="lit", **{**small, **settings}))
    assert command("given")[0] == 0
    folders(cat=[1], dog=[2])
    paint("p/a.png")
    fails(command("given", "--zeroshot", "z"), "v.npy has no row for 'cat/1.png'")
    fails(command("given", "--search", "p", "x"), "v.npy has no row for 'a.png'")
    fails(command("given", "--classify", "p/a.png", "a,b"), "--image-features")


# --------------------------------------------------------------------------------------------------
# The built-in world.


def test_a_list_of_shards_may_be_longer_than_a_name(trained):
    shards = [f"{'x' * 20}{number}" for number in range(20)]
    for number, shard in enumerate(shards):
        image = Path(paint(f"{number}.png", number)).read_bytes()
        tar(Path(f"{shard}.tar"), {f"{number}.png": image, f"{number}.txt": "a thing"})
    config = read_run(trained)["config"]
    assert len(benchmarks.held_out(config, f"{{{','.join(shards)}}}.tar").images) == 20


def test_split_val_asks_the_same_of_validation_scenes(monkeypatch):
    monkeypatch.setattr(read, "WORLD_SIZE", {"train": 64, "val": 20, "test": 20})
    config = dataclasses.asdict(train.Config(image_size=16, model="micro/16"))
    for split in ("test", "val"):
        task = benchmarks.held_out(config, split=split)
        tasks = [task, *task.further.values()]
        assert list(task.further) == ["zeroshot", "unseen_words", "unseen_compounds"]
        keys = [scene.key for one in tasks for scene in one.images.scenes]
        assert len(keys) == 20 + 1056 + 20 + 20 and all(f"/{split}/" in key for key in keys)
    with pytest.raises(BadInput, match="a.csv is not what the run was trained on"):
        benchmarks.held_out(config, "a.csv", split="val")
    with pytest.raises(BadInput, match="list no validation scenes"):
        benchmarks.held_out(config | {"text_features": "a.npy"}, split="val")


def test_a_run_s_own_file_that_is_not_there_is_named_as_such():
    config = dataclasses.asdict(train.Config(data="nowhere.csv"))
    with pytest.raises(BadInput, match="The run's own flags name nowhere.csv.*--data"):
        benchmarks.held_out(config)
    with pytest.raises(
        BadInput, match="elsewhere.csv: no such file or folder; .* or a folder of images$"
    ):
        benchmarks.held_out(config, "elsewhere.csv")


def test_split_val_goes_with_no_other_test(trained, command):
    fails(command(trained, "--split", "val", "--zeroshot", "z"), "--split val")


def test_flags_for_files_are_refused_in_a_built_in_world():
    """Else a wrong column would pass unseen, and the scores would get a name of their own."""
    config = dataclasses.asdict(train.Config())
    for columns in (Columns(csv_img_key="nonsense"), Columns(image_root="/nope")):
        with pytest.raises(BadInput, match="shapes is a built-in world: .*only --csv-caption-key"):
            benchmarks.held_out(config, "", columns)


def test_no_false_caption_is_one_of_training():
    config = {
        "data": "shapes",
        "val_data": "",
        "image_size": 8,
        "train_num_samples": 4000,
        "csv_caption_key": "",
        **dict.fromkeys(("csv_separator", "csv_img_key", "image_root"), ""),
        **dict.fromkeys(("image_features", "text_features"), ""),
    }
    task = benchmarks.held_out(config)
    seen = {shapes.caption(scene) for scene in shapes.make_scenes("train", 1000)}
    # Without the rule there would be some.
    free = [text for s in task.images.scenes for text in shapes.negatives(s).values()]
    assert seen & set(free)
    assert not seen & {negative.false for negative in task.negatives}
    assert task.kind == "test" and benchmarks.held_out(config, split="val").kind == "validation"
    assert set(task.further) == {"zeroshot", "unseen_words", "unseen_compounds"}
    zeroshot = task.further["zeroshot"]
    assert torch.bincount(zeroshot.labels).tolist() == [11] * 96
    unseen = task.further["unseen_words"]
    colour_of = {}  # number -> colour
    for negative, words in zip(unseen.negatives, unseen.words_of_negative.tolist(), strict=True):
        true, false = set(negative.true.split()), set(negative.false.split())
        assert true ^ false <= set(UNSEEN) and len(true ^ false) == 2
        for word, colour in zip(words, (*(true - false), *(false - true)), strict=True):
            assert colour_of.setdefault(word, colour) == colour
    assert len(set(colour_of.values())) == len(colour_of)
    for text, words in zip(unseen.captions, unseen.words_of_image.tolist(), strict=True):
        assert set(text.split()) & set(UNSEEN) == {colour_of[word] for word in words}
    assert {len(texts) for texts in task.other_words.values()} == {len(task.reworded)}

    # A run that was trained on the new colours is not asked whether it knows words never seen.
    task = benchmarks.held_out(config | {"data": "shapes-unseen"}, "shapes")
    assert set(task.further) == {"zeroshot", "unseen_compounds"}

    # Whoever brings vectors has those that data.images.read lists.
    _, texts = names_and_texts("shapes", Columns(), 16)
    task = benchmarks.held_out(config | {"text_features": "vectors.npy"})
    assert set(task.further) == {"zeroshot"} and not task.other_words
    assert {text for n in task.negatives for text in (n.true, n.false)} <= set(texts)
