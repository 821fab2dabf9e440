"""data/report.py and data/page.py: trees and tables, what is drawn of odd runs, any caption inside
its width.

    python -m pytest tests/data/test_report.py
"""

import json
from math import nan
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data import page
from data.report import confusion_lines, curves, flat, fooled, read_log, report, table, tree
from tests.conftest import evaluated
from tests.data.conftest import captions_csv, looks_sane

pytestmark = pytest.mark.usefixtures("own_folder")


def test_flat_and_tree():
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    leaves = flat(nested)
    assert leaves == {"a b": 1, "a c d": 2, "e": 3} and list(leaves) == ["a b", "a c d", "e"]
    assert tree(leaves) == nested


def test_a_table_by_hand():
    one = {"run": "one", "a": {"b": 0.25}, "ci95": {"a": {"b": [0.1, 0.5]}}}
    two = {"run": "two", "a": {"b": 1.0}, "ci95": {"a": {"b": None}}}
    for scores in (one, two):
        scores |= {"chance": {"a": {"b": 0.125}}, "counts": {"images": 4}, "trained_on": 0}
    assert table([one, two]).split("\n") == [
        "| score, in % [95 % interval] | chance | one | two |",
        "|---|---|---|---|",
        "| a b | 12.5 | 25.0 [10.0, 50.0] | 100.0 |",
    ]
    two["trained_on"] = 3
    header = "| chance | one | two (TRAINED ON 3 OR MORE OF THESE 4 IMAGES) |"
    assert table([one, two]).split("\n")[0].endswith(header)


def test_confusions_by_hand():
    names = ["a", "b", "c", "d"]
    # Four images of a: one right, two taken for b, one for c. Two of b: one taken for d. c is
    # right. d has no image.
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    guesses = torch.tensor([0, 1, 1, 2, 1, 3, 2])
    lines = [
        "a: 25 % right, most often taken for b (50 %)",
        "b: 50 % right, most often taken for d (50 %)",
    ]
    assert confusion_lines(labels, guesses, names) == lines
    assert confusion_lines(labels, guesses, names, most=1) == lines[:1]
    assert confusion_lines(labels, labels, names) == []


def test_curves_of_a_log_that_was_stopped_by_nan_resumed_and_killed():
    drawn = []
    begun = '{"config": {}, "step": 0}\n{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.5}\n'
    again = '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.5}\n{"step": 3, "lo'
    for more in ("", '{"step": 5, "loss": NaN}\n' + again):
        Path("log.jsonl").write_text(begun + more)
        sheet = page.Page(1400, 600)
        curves(sheet, [SimpleNamespace(run="a run", folder=Path("."))])
        drawn.append(sheet.image.tobytes())
    assert drawn[0] == drawn[1] and len(set(drawn[0])) > 10
    # A line of the validation curve is another line, and no loss of training.
    val = {"loss": 2.75, "i2t": 0.25, "t2i": 0.75}
    train = {"loss": 2.0, "i2t": 0.5, "t2i": 1.0}
    watched = json.dumps({"step": 2, "val": val, "train": train}) + "\n"
    Path("log.jsonl").write_text(begun + watched)
    assert read_log(Path("log.jsonl")) == ([(1, 3), (2, 2.5)], [(2, 2.75)], [(2, 75)], [(2, 50)])
    # With it R@1 has a chart of its own, beside that of the loss.
    sheet = page.Page(1400, 600)
    curves(sheet, [SimpleNamespace(run="a run", folder=Path("."))])
    assert sheet.image.tobytes() not in drawn


def test_a_damaged_line_of_a_log_is_left_out():
    lines = [b'{"step": 1, "loss": 3.0}', b'{"step": 2, "loss": null}', b"\xff", b'{"step": "3"}']
    Path("log.jsonl").write_bytes(b"\n".join([*lines, b'{"step": "4", "loss": 2}']))
    assert read_log(Path("log.jsonl")).loss == [(1, 3), (4, 2)]


def test_a_model_of_nan_is_drawn_and_scores_nothing(trained, known):
    captions = {1: [("same",)], 2: [("one",), ("two",)], 3: [("a",)], 4: [("same",), ("nan",)]}
    texts = [caption for some in captions.values() for caption, *_ in some]
    known(dict.fromkeys(captions, [nan] * 4), dict.fromkeys(texts, [nan] * 4))
    result = evaluated(trained, captions_csv(captions))
    retrieval = result.scores["retrieval"]
    assert retrieval["i2t"]["R@1"] == retrieval["t2i"]["R@1"] == 0
    report([result], "r.png")
    looks_sane("r.png")


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
    ink = sheet.image.convert("L").point(lambda v: 255 * (v < 200)).getbbox()
    dots = 25  # the width of " ...", which stands behind what is cut off
    assert not ink or ink[2] <= 10 + 200 + dots and ink[3] <= below + 5


def test_runs_that_were_asked_different_false_captions_share_a_page():
    """A run on vectors from outside is asked fewer of them, or none."""

    def result(run, *categories):
        negatives = [SimpleNamespace(category=c, image=0, true="a", false="b") for c in categories]
        images = SimpleNamespace(pixels=lambda numbers: np.zeros((len(numbers), 8, 8, 3), np.uint8))
        vectors = torch.ones(len(negatives), 4) / 2
        return SimpleNamespace(
            run=run,
            folder=Path(run),
            task=SimpleNamespace(negatives=negatives, images=images, kind="test"),
            image=torch.ones(1, 4) / 2,
            true=vectors,
            false=vectors,
            is_correct=torch.zeros(len(negatives), dtype=torch.bool) if negatives else None,
        )

    more, fewer, none = result("more", "add", "half_truth"), result("fewer", "add"), result("none")
    heights = []
    for results in ([more, fewer, none], [none, fewer, more]):
        sheet = page.Page(1400)
        fooled(sheet, results)
        heights.append(sheet.y)
    sheet = page.Page(1400)
    fooled(sheet, [more, more, more])
    assert heights == [sheet.y] * 2
