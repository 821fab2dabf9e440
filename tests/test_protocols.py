"""Tests of the field, search, classify: official layouts made on the spot, scores by hand, and what a user gets wrong.

CaptionedImages are of one colour, whose red value is ten times their number; embeddings are looked up by that number and by the words, so
a picture or a caption that is taken for another changes a score.

    python -m pytest tests/test_benchmarks.py
"""

import itertools
import json
import os
import sys
from math import comb, exp, nan
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import eval as ev
import lift
import train
from data import benchmarks, page, search
from data.common import BadInput, run
from data.report import curves, report
from data.world.shapes import CATEGORIES
from tests.conftest import embedded


def paint(path, number=0):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), (10 * number, 0, 0)).save(path)
    return path


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trained(small):
    train.train(train.Config(method="clip", **small))
    return small["out"]


@pytest.fixture
def known(monkeypatch):
    """Call it with the vectors of pictures, by number, and of texts; returns a list that takes the number of every picture embedded."""
    seen = []

    def use(of_pictures, of_texts):
        def encode_images(self, pictures):
            numbers = [round(int(p[0, 0, 0]) / 10) for p in pictures.pixels(range(len(pictures)))]
            seen.extend(numbers)
            return torch.tensor([of_pictures[n] for n in numbers])

        monkeypatch.setattr(ev.Run, "encode_images", encode_images)
        monkeypatch.setattr(
            ev.Run, "encode_texts", lambda self, texts: torch.tensor([of_texts[t] for t in texts])
        )
        return seen

    return use


@pytest.fixture
def command(monkeypatch, capsys):
    """eval.py with these arguments -> (exit status, stdout, stderr)."""

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["eval.py", *map(str, argv)])
        capsys.readouterr()
        return run(ev.main), *capsys.readouterr()

    return call


def fails(result, *words):
    """One line on stderr that has these words, exit status 2, no score."""
    status, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and "Traceback" not in err and err.splitlines()[-1:] == lines and not out, (
        status,
        out,
        err,
    )
    assert all(word in lines[0] for word in words), lines[0]


def looks_sane(path, width=1400):
    with Image.open(path) as picture:
        assert picture.width == width and 200 < picture.height < 19_000
        assert len(picture.convert("L").getcolors()) > 10  # not a white page


# ---------------------------------------------------------------------------------------------------------------
# SugarCrepe.


def sugarcrepe(items):
    """{kind: [(number, true, false)]} -> the seven files, with gaps in their keys, as the official ones have."""
    Path("sc").mkdir()
    for kind in CATEGORIES:
        entries = {
            str(7 * i + 3): {
                "filename": f"{number:012}.jpg",
                "caption": true,
                "negative_caption": false,
            }
            for i, (number, true, false) in enumerate(items[kind])
        }
        Path(f"sc/{kind}.json").write_text(json.dumps(entries, indent=4))
        for number, *_ in items[kind]:
            paint(f"val2017/{number:012}.jpg", number)
    paint("val2017/000000000009.jpg", 9)  # one that nobody asks for


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


def test_sugarcrepe_by_hand(trained, known):
    sugarcrepe(ITEMS)
    seen = known({1: [1.0, 0.0], 2: [0.0, 1.0]}, WORDS)
    result = ev.Run(trained).embed(benchmarks.sugarcrepe("sc", 32, "val2017")).scores()
    shares = [2 / 3, 1, 0, 0, 0, 0, 1 / 2]  # a tie is wrong, and so is NaN on either side
    assert [result["compositional"][kind] for kind in CATEGORIES] == pytest.approx(shares)
    assert result["compositional"]["mean"] == pytest.approx(
        sum(shares) / 7
    )  # of kinds, whatever their size
    assert set(result["chance"]["compositional"].values()) == {0.5} and result["counts"] == {
        "pictures": 2,
        "false captions": 11,
    }
    assert sorted(seen) == [1, 2]  # each once, however often it is asked for


def test_a_collapsed_model_scores_nothing(trained, known):
    sugarcrepe(ITEMS)
    known({1: [0.6, 0.8], 2: [0.6, 0.8]}, dict.fromkeys(WORDS, [0.1, 0.3]))
    assert set(
        ev.Run(trained)
        .embed(benchmarks.sugarcrepe("sc", 32, "val2017"))
        .scores()["compositional"]
        .values()
    ) == {0.0}


def change(kind, **fields):
    """Set fields of the first entry of a file; None removes one."""
    path = Path(f"sc/{kind}.json")
    content = json.loads(path.read_text())
    entry = next(iter(content.values()))
    entry.update(fields)
    for field in [field for field, value in fields.items() if value is None]:
        del entry[field]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "spoil, words",
    [
        (
            lambda: Path("val2017/000000000002.jpg").unlink(),
            ["val2017/000000000002.jpg", "no such file"],
        ),
        (
            lambda: Path("val2017/000000000002.jpg").write_bytes(b"none"),
            ["val2017/000000000002.jpg", "cannot identify"],
        ),
        (lambda: Path("sc/swap_obj.json").unlink(), ["sc/swap_obj.json", "no such file"]),
        (
            lambda: Path("sc/swap_obj.json").write_text("{}"),
            ["sc/swap_obj.json", "no entries"],
        ),  # or the mean would be of six kinds
        (
            lambda: Path("sc/swap_obj.json").write_text('{"0": {'),
            ["sc/swap_obj.json", "JSONDecodeError"],
        ),
        (
            lambda: Path("sc/swap_obj.json").write_bytes(b'{"\xff'),
            ["sc/swap_obj.json", "UnicodeDecodeError"],
        ),
        (lambda: Path("sc/swap_obj.json").write_text('"words"'), ["sc/swap_obj.json"]),
        (
            lambda: change("add_att", negative_caption=None),
            ["sc/add_att.json", "'negative_caption'"],
        ),
        (lambda: change("add_att", filename=None), ["sc/add_att.json", "'filename'"]),
        (lambda: change("add_att", caption=["a list"]), ["sc/add_att.json", "caption is no text"]),
        (lambda: change("add_att", filename=3), ["sc/add_att.json", "filename is no text"]),
    ],
)
def test_sugarcrepe_names_what_is_wrong(spoil, words):
    sugarcrepe(ITEMS)
    spoil()
    with pytest.raises(BadInput) as error:
        benchmarks.sugarcrepe("sc", 16, "val2017")
    assert all(word in str(error.value) for word in words), error.value


def test_sugarcrepe_from_the_command_line(trained, command, monkeypatch):
    sugarcrepe(ITEMS)
    pictures, encode = [], lift.TwoTower.encode_image
    monkeypatch.setattr(
        lift.TwoTower,
        "encode_image",
        lambda self, x, **more: pictures.append(len(x)) or encode(self, x, **more),
    )
    change(
        "add_obj", caption="two\nlines, 猫在沙滩上 🐱 " * 40, negative_caption="word " * 10_000
    )  # for the drawing code
    status, out, err = command(
        trained, "--sugarcrepe", "sc", "--images", "val2017", "--device", "cpu"
    )
    assert (
        status == 0
        and "| compositional swap_att | 50.0 |" in out
        and "2 pictures, 11 false captions" in out
    ), err
    result = json.loads(Path(trained, "eval-sugarcrepe-sc.json").read_text())
    assert (
        set(result["compositional"]) == {*CATEGORIES, "mean"}
        and not Path(trained, "eval.json").exists()
    )
    assert sum(pictures) == 2  # (another one lies in the folder)
    looks_sane(Path(trained, "report-sugarcrepe-sc.png"))
    fails(
        command(trained, "--sugarcrepe", "sc"), "--images", "val2017"
    )  # not the current folder in its place
    fails(command(trained, "--sugarcrepe", "sc", "--images", "none"), "--images none")
    fails(command(trained, "--sugarcrepe", "none", "--images", "val2017"), "none/add_obj.json")


# ---------------------------------------------------------------------------------------------------------------
# Winoground.


# pictures are (1, 0) and (0, 1), so a caption's vector is its scores with both: caption 0's, caption 1's; text, image, group
EXAMPLES = [
    ([0.9, 0.1], [0.2, 0.8], 1, 1, 1),
    ([0.5, 0.8], [0.4, 0.9], 1, 0, 0),
    ([0.5, 0.4], [0.8, 0.9], 0, 1, 0),
    ([0.5, 0.1], [0.5, 0.9], 0, 1, 0),
    ([0.5, 0.5], [0.2, 0.9], 1, 0, 0),
    ([0.1, 0.9], [0.8, 0.2], 0, 0, 0),
    ([nan, 0.1], [0.2, 0.8], 0, 0, 0),
    ([0.9, 0.1], [0.2, nan], 0, 0, 0),
]


def test_winoground_by_hand():
    text = torch.tensor([vector for first, second, *_ in EXAMPLES for vector in (first, second)])
    for got, wanted in zip(
        ev.winoground(torch.eye(2).repeat(len(EXAMPLES), 1), text), list(zip(*EXAMPLES))[2:]
    ):
        assert got.tolist() == [bool(w) for w in wanted]
    same = torch.full((2 * 9, 5), 0.3)
    assert not any(hits.any() for hits in ev.winoground(same, same))


def test_winoground_chance_is_that_of_scores_in_any_order():
    orders = torch.tensor(list(itertools.permutations(range(4)))).float().view(-1, 2)
    shares = [
        hits.float().mean().item() for hits in ev.winoground(torch.eye(2).repeat(24, 1), orders)
    ]
    assert shares == pytest.approx([1 / 4, 1 / 4, 1 / 6])


def winoground(folder, examples=EXAMPLES):
    for i in range(len(examples)):
        for side in (0, 1):
            paint(f"{folder}/images/ex_{i}_img_{side}.png", 1 + side)
    lines = [
        json.dumps(
            {
                "id": i,
                "image_0": f"ex_{i}_img_0",
                "image_1": f"ex_{i}_img_1",
                "caption_0": f"{i}\u2028some words",
                "caption_1": f"{i} words some",
                "tag": "Object",
            },
            ensure_ascii=False,
        )
        for i in range(len(examples))
    ]
    Path(folder, "examples.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("folder", ["wino", "wino/data"])
def test_winoground_files_by_hand(folder, trained, known):
    winoground(folder)
    texts = {
        words: vector
        for i, (first, second, *_) in enumerate(EXAMPLES)
        for words, vector in ((f"{i}\u2028some words", first), (f"{i} words some", second))
    }
    seen = known({1: [1.0, 0.0], 2: [0.0, 1.0]}, texts)
    result = ev.Run(trained).embed(benchmarks.winoground("wino", 32)).scores()
    assert (
        result["winoground"] == {"text": 3 / 8, "image": 3 / 8, "group": 1 / 8}
        and result["counts"]["examples"] == 8
    )
    assert result["chance"]["winoground"] == {"text": 0.25, "image": 0.25, "group": 1 / 6}
    assert len(seen) == 16


def test_a_picture_may_come_again():
    winoground("wino", EXAMPLES[:2])
    path = Path("wino/examples.jsonl")
    path.write_text(
        path.read_text().replace("ex_1_img_0", "ex_0_img_1.png")
    )  # (with its ending, too)
    task = benchmarks.winoground("wino", 16)
    assert list(task.images.names) == [
        "ex_0_img_0.png",
        "ex_0_img_1.png",
        "ex_0_img_1.png",
        "ex_1_img_1.png",
    ]
    assert task.images.pixels(range(4))[:, 0, 0, 0].tolist() == [10, 20, 20, 20] and task.couples[
        1::2
    ] == ["0 words some", "1 words some"]


@pytest.mark.parametrize(
    "line, words",
    [
        ("", ["no examples"]),
        ("{", ["JSONDecodeError"]),
        ("{}", ["'image_0'"]),
        ("[1]", ["TypeError"]),
        ('{"image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "a"}', ["'caption_1'"]),
        (
            '{"image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "a", "caption_1": null}',
            ["caption_1 is no text"],
        ),
    ],
)
def test_winoground_names_what_is_wrong(line, words):
    winoground("wino", EXAMPLES[:1])
    Path("wino/examples.jsonl").write_text(line)
    with pytest.raises(BadInput) as error:
        benchmarks.winoground("wino", 16)
    assert all(word in str(error.value) for word in ["wino/examples.jsonl", *words])


def test_winoground_from_the_command_line(trained, command):
    winoground("wino/data", EXAMPLES[:3])
    status, out, err = command(trained, "--winoground", "wino/", "--report", "w.png")
    assert (
        status == 0 and "| winoground group | 16.7 |" in out and "6 pictures, 3 examples" in out
    ), err
    assert set(
        json.loads(Path(trained, "eval-winoground-wino.json").read_text())["winoground"]
    ) == {"text", "image", "group"}
    looks_sane("w.png")
    Path("wino/data/images/ex_2_img_1.png").unlink()
    fails(command(trained, "--winoground", "wino"), "ex_2_img_1", "no such file")
    fails(command(trained, "--winoground", "none"), "none/examples.jsonl")


# ---------------------------------------------------------------------------------------------------------------
# ImageFolder.


def folders(**classes):
    """class=numbers of its pictures -> an ImageFolder."""
    for name, numbers in classes.items():
        for number in numbers:
            paint(f"z/{name}/{number}.png", number)
    return "z"


def test_zeroshot_by_hand(trained, known):
    """Prompts are one-hot in six classes, so a picture's vector is its scores."""
    folders(
        big_dog=[1, 2, 3], cat=[4], f=[8], e=[7], d=[6], c=[5]
    )  # sorted: big_dog, c, cat, d, e, f
    Path("z/loose.txt").write_text("not a class")
    Path("z/empty").mkdir()
    names = ["big dog", "c", "cat", "d", "e", "f"]
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
        {f"It is a photo of a {name}": row for name, row in zip(names, torch.eye(6).tolist())},
    )
    result = ev.Run(trained).embed(benchmarks.imagefolder("z", 32)).scores()
    # big dog 1 and 3 right, 2 third; cat last of six; c ties, so second; d right; e is NaN, so last; f right
    assert result["zeroshot"] == {
        "top1": 4 / 8,
        "top5": 6 / 8,
        "mean_per_class": pytest.approx((2 / 3 + 0 + 0 + 1 + 0 + 1) / 6),
    }
    assert result["chance"]["zeroshot"] == {"top1": 1 / 6, "top5": 5 / 6, "mean_per_class": 1 / 6}
    assert result["counts"] == {"pictures": 8, "classified": 8, "classes": 6} and sorted(
        seen
    ) == list(range(1, 9))
    assert set(result["ci95"]["zeroshot"]) == set(result["zeroshot"])


def test_class_names():
    folders(b__c=[1], a_=[2], Z=[3])
    names = Path("names.txt")
    assert benchmarks.imagefolder("z", 16).names == ["Z", "a", "b c"]
    names.write_text("\ufeffzebra\r\nan apple\n\nbee_c\n", encoding="utf-8")
    assert benchmarks.imagefolder("z", 16, names).names == ["zebra", "an apple", "bee_c"]
    names.write_text(
        "n0\tnobody\nb__c\tbee, or sea\nZ\tzebra\na_\tapple\n"
    )  # ImageNet's list for a part of its folders
    task = benchmarks.imagefolder("z", 16, names)
    assert task.names == ["zebra", "apple", "bee, or sea"] and task.labels.tolist() == [0, 1, 2]
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
    for make, words in (
        (lambda: None, "no such folder"),
        (lambda: folders(a=[1]), "1 folder"),
        (lambda: paint("z/a_b/1.png") and paint("z/a b/1.png") and paint("z/a/1.png"), "'a b'"),
    ):
        make()
        with pytest.raises(BadInput, match=words):
            benchmarks.imagefolder("z", 16)


def test_sub_folders_upper_case_and_a_folder_that_is_called_like_a_picture():
    paint("z/a/deep/er/1.JPEG", 1)
    paint("z/a/2.PNG", 2)
    paint("z/b/3.Tif", 3)
    Path("z/b/x.png").mkdir()
    task = benchmarks.imagefolder("z", 16)
    assert (
        list(task.images.names) == ["a/2.PNG", "a/deep/er/1.JPEG", "b/3.Tif"]
        and task.labels.tolist() == [0, 0, 1]
        and task.names == ["a", "b"]
    )


def test_templates():
    path = Path("t.txt")
    for wrong in ("no braces\n", "a {}\ntwo {} {}\n", "", "\n \n"):
        path.write_text(wrong)
        with pytest.raises(BadInput, match="t.txt"):
            benchmarks.read_templates(path)
    path.write_text("a {} {of} {x\n\na {}.\n")  # other braces are words
    asked = []
    ev.Run.class_features(
        SimpleNamespace(
            encode_texts=lambda prompts: asked.extend(prompts) or torch.ones(len(prompts), 2)
        ),
        ["{0}", "b"],
        benchmarks.read_templates(path),
    )
    assert asked == ["a {0} {of} {x", "a {0}.", "a b {of} {x", "a b."]


def test_zeroshot_from_the_command_line(trained, command):
    folders(big_dog=[1, 2, 3], cat=[4], bird=[5])
    Path("t.txt").write_text("a {}\nthe {}\n")
    Path("n.txt").write_text("bird\ta parrot\nbig_dog\ta wolf\ncat\ta lion\nworm\ta worm\n")
    status, out, err = command(
        trained, "--zeroshot", "z", "--templates", "t.txt", "--classnames", "n.txt"
    )
    assert (
        status == 0
        and "| zeroshot mean_per_class | 33.3 |" in out
        and "5 classified, 3 classes" in out
        and "so few" in out
    ), err
    assert set(json.loads(Path(trained, "eval-zeroshot-z.json").read_text())["zeroshot"]) == {
        "top1",
        "top5",
        "mean_per_class",
    }
    looks_sane(Path(trained, "report-zeroshot-z.png"))
    os.chdir("z")
    assert command(trained, "--zeroshot", ".")[0] == 0  # the current folder has a name, too
    assert [p.name for p in Path(trained).glob("eval*.json")] == ["eval-zeroshot-z.json"]
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


# ---------------------------------------------------------------------------------------------------------------
# Retrieval with one to six captions a picture.


CAPTIONS = {  # of picture 1, 2, ...: words and their scores with all four
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


def captions_csv(captions):
    rows = [f'{number}.png,"{words}"' for number, own in captions.items() for words, *_ in own]
    Path("a.csv").write_text("\n".join(["filepath,title", *rows]) + "\n")
    for number in captions:
        paint(f"{number}.png", number)
    return "a.csv"


def test_retrieval_by_hand(trained, known):
    texts = dict(pair for own in CAPTIONS.values() for pair in own)
    seen = known({number: row for number, row in zip(CAPTIONS, torch.eye(4).tolist())}, texts)
    e = embedded(trained, captions_csv(CAPTIONS))
    i2t, t2i = ev.retrieval_ranks(e.image, e.text, e.task.owner, e.task.wording)
    # picture 1: its .9 comes after a, f (a tie) and nan; 2: f, nan; 3: nan; 4 has a NaN of its own, so it is after all eight others
    assert i2t.tolist() == [3, 2, 1, 8]
    # "same" is right for 1 and 4; ties in two and c
    assert t2i.tolist() == [0, 1, 1, 1, 0, 3, 1, 0, 3, 0, 3]
    result = e.scores()
    assert (
        result["retrieval"]["i2t"] == {"R@1": 0, "R@5": 3 / 4, "R@10": 1}
        and result["retrieval"]["t2i"]["R@1"] == 4 / 11
    )
    assert (
        result["one_caption"]["i2t"]["R@1"] == 3 / 4
        and result["one_caption"]["t2i"]["R@1"] == 2 / 4
    )  # same, one, a, same
    assert result["counts"] == {"pictures": 4, "captions": 11} and sorted(seen) == [1, 2, 3, 4]
    # chance: the right captions are 2, 2, 6 and 3 of 11; the right pictures two of four for "same"
    chance = result["chance"]["retrieval"]
    assert chance["i2t"]["R@1"] == pytest.approx((2 + 2 + 6 + 3) / 4 / 11) and chance["t2i"][
        "R@1"
    ] == pytest.approx((2 * 2 + 9) / 4 / 11)
    assert chance["i2t"]["R@5"] == pytest.approx(
        1 - sum(comb(11 - c, 5) for c in (2, 2, 6, 3)) / 4 / comb(11, 5)
    )
    assert chance["t2i"]["R@5"] == chance["i2t"]["R@10"] == 1
    assert result["chance"]["one_caption"]["i2t"]["R@1"] == pytest.approx((2 + 1 + 1 + 2) / 4 / 4)


def test_chance_is_what_blind_embeddings_score(trained, known):
    known(
        dict.fromkeys(CAPTIONS, [0.0] * 4),
        dict.fromkeys("same one two a b c d e f nan".split(), [0.0] * 4),
    )
    e = embedded(trained, captions_csv(CAPTIONS))
    generator, hits, draws = torch.Generator().manual_seed(0), torch.zeros(3), 1500
    for _ in range(draws):  # scores in a random order
        i2t, t2i = ev.retrieval_ranks(
            torch.eye(4), torch.rand(11, 4, generator=generator), e.task.owner, e.task.wording
        )
        hits += torch.stack(
            [(i2t < 1).float().mean(), (i2t < 5).float().mean(), (t2i < 1).float().mean()]
        )
    chance = e.scores()["chance"]["retrieval"]
    assert (hits / draws).tolist() == pytest.approx(
        [chance["i2t"]["R@1"], chance["i2t"]["R@5"], chance["t2i"]["R@1"]], abs=0.02
    )


def test_several_captions_from_the_command_line(small, command):
    runs = [str(Path("long" * 20, method)) for method in ("lift", "clip", "supervised")]
    for out in runs:
        train.train(train.Config(method=Path(out).name, **{**small, "out": out}))
    status, out, err = command(*runs, "--data", captions_csv(CAPTIONS))
    assert (
        status == 0
        and "| one_caption t2i R@10 | 100.0 |" in out
        and "4 pictures, 11 captions" in out
    ), err
    for folder in runs:
        assert {"retrieval", "one_caption", "counts"} < set(
            json.loads(Path(folder, "eval-a.json").read_text())
        )
    looks_sane(Path("long" * 20, "report-a.png"), 200 + 450 * 3)
    assert (
        command(runs[0], "--data", captions_csv({1: [("one thing",)]}), "--report", "r.webp")[0]
        == 0
    )  # one picture
    assert "one_caption" not in json.loads(Path(runs[0], "eval-a.json").read_text())


def test_curves_of_a_log_that_was_stopped_by_nan_resumed_and_killed():
    drawn = []
    for more in (
        "",
        '{"step": 5, "loss": NaN}\n{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.5}\n{"step": 3, "lo',
    ):
        Path("log.jsonl").write_text(
            '{"config": {}, "step": 0}\n{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.5}\n' + more
        )
        sheet = page.Page(1400, 600)
        curves(sheet, [SimpleNamespace(folder=Path("."))], ["a run"])
        drawn.append(sheet.picture.tobytes())
    assert drawn[0] == drawn[1] and len(set(drawn[0])) > 10


def test_a_model_of_nan_is_drawn_and_scores_nothing(trained, known):
    known(
        {number: [nan] * 4 for number in CAPTIONS},
        dict.fromkeys("same one two a b c d e f nan".split(), [nan] * 4),
    )
    e = embedded(trained, captions_csv(CAPTIONS))
    result = e.scores()
    assert result["retrieval"]["i2t"]["R@1"] == result["retrieval"]["t2i"]["R@1"] == 0
    report([e], [result], "r.png")
    looks_sane("r.png")


# ---------------------------------------------------------------------------------------------------------------
# Search and classify.


COLOURS = {1: [1.0, 0.0], 2: [0.8, 0.6], 3: [0.0, 1.0], 4: [-1.0, 0.0], 5: [0.6, 0.8]}
QUERIES = {"east": [1.0, 0.0], "north": [0.0, 1.0]}


def found(r, k=8):
    return {
        query: [(path.name, round(cosine, 4)) for path, cosine in hits]
        for query, hits in search.nearest(r, "p", list(QUERIES), k)
    }


def test_search_finds_and_reads_only_what_is_new(trained, known, capsys):
    seen = known(COLOURS, QUERIES)
    for name, number in (("a.png", 1), ("b.PNG", 2), ("deep/c.bmp", 3)):
        paint(f"p/{name}", number)
    Path("p/broken.jpg").write_bytes(b"none")
    Path("p/notes.txt").write_text("no picture")
    Path("p/folder.png").mkdir()
    r = ev.Run(trained)
    answers = {
        "east": [("a.png", 1.0), ("b.PNG", 0.8), ("c.bmp", 0.0)],
        "north": [("c.bmp", 1.0), ("b.PNG", 0.6), ("a.png", 0.0)],
    }
    assert found(r) == answers and sorted(seen) == [1, 2, 3]
    assert (
        "skipped broken.jpg" in (err := capsys.readouterr().err)
        and "3 pictures, 1 more cannot be read" in err
    )
    assert search.nearest(r, "p", ["north"])[0][1][0][0] == Path("p/deep/c.bmp")
    seen.clear()
    assert (
        found(r) == found(ev.Run(trained)) == answers and not seen
    )  # nor is the broken one tried again
    assert "read now: 0" in capsys.readouterr().err
    paint("p/a.png", 4)  # changed; as large as before, so the time must tell
    os.utime("p/a.png", (1, 1))
    paint("p/new.jpg", 5)
    assert found(r, k=2) == {
        "east": [("b.PNG", 0.8), ("new.jpg", 0.6)],
        "north": [("c.bmp", 1.0), ("new.jpg", 0.8)],
    }
    assert sorted(seen) == [4, 5]
    Path("p/new.jpg").unlink()
    Path("p/broken.jpg").unlink()
    assert found(r)["east"] == [("b.PNG", 0.8), ("c.bmp", 0.0), ("a.png", -1.0)] and sorted(
        seen
    ) == [4, 5]
    paint("p/broken.jpg", 1)  # mended
    assert found(r)["east"][0] == ("broken.jpg", 1.0)


def test_search_never_uses_another_runs_vectors(small):
    for number in range(6):
        for folder, red in (
            ("p", 4 * number),
            ("q", 24 - 4 * number),
        ):  # the same names, sizes and times in another folder
            os.utime(paint(f"{folder}/{number}.bmp", red), (1, 1))
    for out, seed in (("one", 0), ("two", 1), ("one", 2)):  # the last takes the first one's place
        Path(out, "checkpoint.pt").unlink(missing_ok=True)
        train.train(train.Config(method="clip", **{**small, "out": out, "seed": seed}))
        r = ev.Run(out)
        for folder in ("p", "q", "p"):
            ((_, hits),) = search.nearest(r, folder, ["a red circle"])
            with torch.no_grad():
                query = r.model.encode_text(r.tokenize(["a red circle"]), normalize=True)[0]
                direct = {
                    p: float(
                        r.model.encode_image(r.transform(Image.open(p))[None], normalize=True)[0]
                        @ query
                    )
                    for p in Path(folder).iterdir()
                }
            assert [cosine for _, cosine in hits] == sorted(
                (cosine for _, cosine in hits), reverse=True
            )
            assert dict(hits) == pytest.approx(direct, abs=1e-5)


def test_search_from_the_command_line(trained, command):
    paint("p/a.png", 1)
    paint("p/sub/B.JPG", 20)
    paint(b"p/odd\nname \xff.png".decode("utf-8", "surrogateescape"), 9)
    queries = ["a red circle", "猫 " * 300, "x" * 400, "two\nlines"]
    status, out, err = command(trained, "--search", "p", *queries)
    assert (
        status == 0
        and "a red circle\n" in out
        and "p/sub/B.JPG" in out
        and "p/odd?name ?.png" in out
    ), err
    out.encode("utf-8")  # (what a terminal does)
    looks_sane(Path(trained, "search.png"), 2 * page.MARGIN + 8 * (page.THUMB + 14))
    many = [f"number {i}" for i in range(130)]
    assert command(trained, "--search", "p", *many, "--report", "many.png")[0] == 0
    with Image.open("many.png") as picture:  # the last of many is drawn, not cut off
        assert (
            len(
                picture.crop((0, picture.height - 190, 400, picture.height))
                .convert("L")
                .getcolors()
            )
            > 10
        )
    Path("empty").mkdir()
    paint("broken/a.png").write_bytes(b"none")
    fails(command(trained, "--search", "p"), "what to look for")
    fails(command(trained, "--search", "p", ""), "''")
    fails(command(trained, "--search", "empty", "x"), "empty: no folder with pictures")
    fails(command(trained, "--search", "none", "x"), "none: no folder with pictures")
    fails(command(trained, "--search", "p", "x", "--report", "x.txt"), "--report x.txt")
    for _ in range(2):  # from the cache, too
        fails(command(trained, "--search", "broken", "x"), "none of its 1 pictures can be read")


def test_classify(trained, command, known):
    paint("a.PNG", 5)
    status, out, err = command(trained, "--classify", "a.PNG", "dog, big cat ,{x},")
    shares = {line.split("  ")[-1]: float(line.split("%")[0]) for line in out.splitlines()}
    assert (
        status == 0
        and set(shares) == {"dog", "big cat", "{x}"}
        and list(shares.values()) == sorted(shares.values(), reverse=True)
    ), err
    r = ev.Run(trained)
    pairs = search.name_picture(r, "a.PNG", ["dog", "big cat", "bird"], ["a {}", "the {}"])
    assert sum(share for _, share in pairs) == pytest.approx(1) and [s for _, s in pairs] == sorted(
        (s for _, s in pairs), reverse=True
    )
    # by hand: a softmax over the scaled cosines
    known({}, {"a x": [1.0, 0.0], "a y": [0.6, 0.8]})
    r.model.encode_image = lambda images, normalize: torch.tensor([[0.0, 1.0]])
    r.model.logit_scale.data.fill_(torch.tensor(10.0).log())
    assert search.name_picture(r, "a.PNG", ["x", "y"], ["a {}"]) == [
        ("y", pytest.approx(1 / (1 + exp(-8)))),
        ("x", pytest.approx(1 / (1 + exp(8)), rel=1e-4)),
    ]
    Path("broken.jpg").write_bytes(b"none")
    for path, names, words in (
        ("broken.jpg", "a,b", "broken.jpg: cannot be read"),
        ("none.jpg", "a,b", "none.jpg"),
        (".", "a,b", "cannot be read"),
        ("a.PNG", "", "names"),
        ("a.PNG", " , ", "names"),
    ):
        fails(command(trained, "--classify", path, names), words)


def test_flags_reach_what_they_are_for(trained, command):
    captions_csv({n: [(f"number {n}",)] for n in range(1, 9)})
    Path("a.csv").write_text(
        Path("a.csv").read_text().replace("filepath,title", "file,words").replace(",", ";")
    )
    fails(command(trained, "--data", "a.csv"), "a.csv")
    flags = (
        "--csv-separator",
        ";",
        "--csv-img-key",
        "file",
        "--csv-caption-key",
        "words",
        "--image-root",
        ".",
    )
    status, out, err = command(trained, "--data", "a.csv", *flags)
    assert status == 0 and "8 pictures, 8 captions" in out, err
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
    task = embedded(trained, "a.csv").task
    assert len(task.images) == 4 and task.texts == [
        "number 1",
        "number 2",
        "the second once more",
        "number 3",
        "number 4",
    ]
    assert task.owner.tolist() == [0, 1, 1, 2, 3]


def test_runs_that_hold_out_different_pictures_are_not_compared(small, command):
    for name in ("a", "b"):
        Path(f"{name}.csv").write_text(
            "filepath,title\n"
            + "".join(f"{paint(f'{name}/{i}.png', i)},{i}\n" for i in range(1, 9))
        )
        train.train(
            train.Config(
                method="clip",
                **{**small, "data": f"{name}.csv", "val_data": f"{name}.csv", "out": f"run_{name}"},
            )
        )
    fails(command("run_a", "run_b"), "hold out different pictures", "run_a: a.csv", "run_b: b.csv")
    assert command("run_a", "run_b", "--data", "a.csv")[0] == 0


def test_own_data_in_another_column(small):
    captions_csv({n: [(f"number {n}",)] for n in range(1, 9)})
    lines = Path("a.csv").read_text().splitlines()
    Path("a.csv").write_text(
        "\n".join(
            ["filepath,title,other", *(f"{line},word {i}" for i, line in enumerate(lines[1:]))]
        )
        + "\n"
    )
    train.train(
        train.Config(
            method="clip",
            **{**small, "data": "a.csv", "val_data": "a.csv", "csv_caption_key": "title"},
        )
    )
    assert embedded(small["out"]).task.texts[0] == "number 1"
    assert embedded(small["out"], "a.csv", ("", "", "other", "")).task.texts[0] == "word 0"


def test_runs_that_know_no_other_pictures(small, command):
    """--image-features: vectors by name, so a picture without one is an error, not a guess."""
    names = captions_csv({n: [(f"number {n}",)] for n in range(1, 21)}) and [
        f"{n}.png" for n in range(1, 21)
    ]
    np.save("v.npy", np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32))
    Path("v.txt").write_text("\n".join(names) + "\n")
    train.train(
        train.Config(
            method="lit",
            **{
                **small,
                "data": "a.csv",
                "val_data": "a.csv",
                "image_features": "v.npy",
                "out": "given",
            },
        )
    )
    assert command("given")[0] == 0
    folders(cat=[1], dog=[2])
    paint("p/a.png")
    fails(command("given", "--zeroshot", "z"), "v.npy has no row for 'cat/1.png'")
    fails(command("given", "--search", "p", "x"), "v.npy has no row for 'a.png'")
    fails(command("given", "--classify", "p/a.png", "a,b"), "--image-features")


@pytest.mark.parametrize(
    "words",
    [
        "猫" * 3000,
        "🐱 " * 3000,
        "word " * 10_000,
        "x" * 10_000,
        "two\nlines\r\nand\ttabs\u2028" * 9,
        "",
        "\udcff",
    ],
)
def test_any_caption_is_drawn_inside_its_width(words):
    sheet = page.Page(400)
    below = sheet.text(10, 10, words, width=200)
    assert 10 <= below - 20 <= 12 * 20
    ink = sheet.picture.convert("L").point(lambda v: 255 * (v < 200)).getbbox()
    assert (
        not ink or ink[2] <= 10 + 200 + 25 and ink[3] <= below + 5
    )  # (25: the dots of what is cut off)
