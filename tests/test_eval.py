"""eval.py: every metric against hand-computed cases or a direct O(N^2) definition; ties and NaN never help.

python -m pytest tests/test_eval.py
"""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import eval as ev
import train
from data.world import shapes
from tests.conftest import embedded


def test_ranks_by_hand():
    image = torch.eye(3)
    text = torch.tensor([[1.0, 0, 0], [0.2, 0.1, 0.9], [0, 1.0, 0], [0.5, 0.6, 0.4]])
    owner = torch.tensor([0, 0, 1, 2])  # picture 0 has two captions
    i2t, t2i = ev.retrieval_ranks(image, text, owner, chunk=2)
    # picture 2 sees caption 1 at 0.9 before its own at 0.4; caption 1 sees picture 2 first, caption 3 sees 1, 0, 2
    assert i2t.tolist() == [0, 0, 1]
    assert t2i.tolist() == [0, 1, 0, 2]


def test_equal_words_are_right_wherever_they_are():
    image = torch.eye(3)
    text = torch.stack(
        [image[1], image[0], image[2]]
    )  # pictures 0 and 1 share their words, embedded apart
    i2t, t2i = ev.retrieval_ranks(image, text, torch.arange(3), torch.tensor([0, 0, 1]))
    assert i2t.tolist() == t2i.tolist() == [0, 0, 0]
    assert ev.retrieval_ranks(image, text, torch.arange(3))[0].tolist() == [2, 2, 0]


def test_ranks_equal_sorting_a_full_matrix():
    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (50, 130))
    owner = torch.cat([torch.arange(50), torch.randint(50, (80,), generator=generator)])
    scores = (image @ text.T).numpy()
    i2t, t2i = ev.retrieval_ranks(image, text, owner, chunk=7)
    for i in range(50):
        order = np.argsort(-scores[i])
        assert i2t[i] == min(np.flatnonzero(owner.numpy()[order] == i))
    for j in range(130):
        assert t2i[j] == list(np.argsort(-scores[:, j])).index(int(owner[j]))


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_collapsed_and_nan_models_score_nothing(value):
    same = torch.full((20, 4), value)
    i2t, t2i = ev.retrieval_ranks(same, same, torch.arange(20))
    assert i2t.tolist() == t2i.tolist() == [19] * 20
    assert not ev.compositional(same, same, same).any()
    assert not ev.zeroshot(same, same[:5], torch.arange(20) % 5).any()


def test_one_nan_caption_is_wrong_and_does_not_help_others():
    image = torch.eye(3)
    text = image.clone()
    text[1] = float("nan")
    i2t, t2i = ev.retrieval_ranks(image, text, torch.arange(3))
    assert i2t.tolist() == [1, 2, 1] and t2i.tolist() == [0, 2, 0]


def test_compositional_is_strict():
    image = torch.tensor([[1.0, 0.0]] * 3)
    true, false = (
        torch.tensor([[0.9, 0], [0.5, 0], [0.1, 0]]),
        torch.tensor([[0.8, 0], [0.5, 0], [0.2, 0]]),
    )
    assert ev.compositional(image, true, false).tolist() == [True, False, False]


def test_zeroshot_normalises_averages_normalises():
    vectors = {"a x": [3.0, 0], "the x": [0, 1.0], "a y": [-1.0, 0], "the y": [-5.0, 0]}
    r = SimpleNamespace(encode_texts=lambda prompts: torch.tensor([vectors[p] for p in prompts]))
    features = ev.Run.class_features(r, ["x", "y"], ["a {}", "the {}"])
    assert torch.allclose(features, torch.tensor([[0.5**0.5, 0.5**0.5], [-1.0, 0.0]]))
    image = torch.tensor([[0.0, 1.0], [-1.0, 0.2]])
    assert ev.zeroshot(image, features, torch.tensor([0, 1])).tolist() == [True, True]
    assert ev.zeroshot(image, features, torch.tensor([1, 0])).tolist() == [False, False]


def test_interval_covers_and_respects_groups():
    hits = np.array([1, 0] * 200)
    low, high = ev.interval(hits)
    assert low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.01) and high == pytest.approx(
        0.5 + 1.96 * 0.5 / 20, abs=0.01
    )
    # four hundred captions that agree within twenty pictures are twenty observations
    low, high = ev.interval(np.repeat([1, 0] * 10, 20), np.repeat(np.arange(20), 20))
    assert high - low > 0.3


def test_own_data_is_scored_on_its_held_out_part(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p").mkdir()
    for i in range(120):
        Image.new("RGB", (40, 40), (2 * i, 255 - i, i)).save(f"p/{i}.png")
    Path("a.csv").write_text(
        "image,caption\n"
        + "".join(f"p/{i}.png,number {i}\n" for i in range(120))
        + "p/gone.png,gone\n"
    )
    train.train(train.Config(**{**small, "data": "a.csv"}))
    train.train(train.Config(**{**small, "data": "a.csv", "out": "other", "image_size": 16}))
    held_out = len(embedded(small["out"]).task.images)
    assert 3 < held_out < 40
    for spelling in ("a.csv", "./a.csv", str(tmp_path / "a.csv")):
        assert len(embedded(small["out"], spelling).task.images) == held_out
    assert list(embedded("other").task.images.names) == list(
        embedded(small["out"]).task.images.names
    )
    Path("b.csv").write_text(Path("a.csv").read_text().replace("image,caption", "file,words"))
    columns = ("", "file", "words")
    assert len(embedded(small["out"], "b.csv", columns).task.images) == 120
    for data, known in (
        ("a.csv", None),
        ("b.csv", small["train_num_samples"]),
    ):  # the same pictures by another name: said, at least
        counts = embedded(small["out"], data, columns if data == "b.csv" else ("",) * 4).scores()[
            "counts"
        ]
        assert counts.get("or more of the pictures trained on") == known and counts["skipped"] == 1


def test_a_model_that_knows_all_scores_all(small):
    """Embeddings that are one-hot in the class, the owner: every score must be 1, or labels and owners are mixed up."""
    train.train(train.Config(**small))
    e = embedded(small["out"])
    names, _ = shapes.classes("shapes")
    e.image = e.text = torch.eye(len(e.image))
    e.true, e.false = (
        e.image[[i for i, *_ in e.task.negatives]],
        torch.zeros(len(e.task.negatives), len(e.image)),
    )
    e.encode_texts = lambda prompts: torch.zeros(len(prompts), len(e.image))
    scores = e.scores()
    assert (
        scores["retrieval"]["i2t"]["R@1"]
        == scores["retrieval"]["t2i"]["R@1"]
        == scores["compositional"]["mean"]
        == 1.0
    )
    e.encode_texts = lambda prompts: torch.stack(
        [torch.eye(len(names))[names.index(" ".join(p.split()[2:4]))] for p in prompts]
    )
    e.image = torch.stack(
        [
            torch.eye(len(names))[names.index(f"{s.things[0].colour} {s.things[0].shape}")]
            for s in e.task.images.scenes
        ]
    )
    e.text, e.true, e.false = (
        e.image,
        e.image[[i for i, *_ in e.task.negatives]],
        e.image[[i for i, *_ in e.task.negatives]],
    )
    assert e.scores()["zeroshot"]["top1"] == 1.0 and e.scores()["compositional"]["mean"] == 0.0


def test_scores_report_and_command(small, tmp_path):
    """The whole of eval.py on two tiny runs: the promised keys, the intervals around them, a picture."""
    runs = []
    for method in ("lift", "clip"):
        runs.append(str(tmp_path / method))
        train.train(train.Config(method=method, **{**small, "out": runs[-1]}))
    done = subprocess.run(
        [sys.executable, Path(ev.__file__), *runs, "--device", "cpu"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for folder in runs:
        result = json.loads((Path(folder) / "eval.json").read_text())
        assert result["counts"]["pictures"] == 800
        paths = (
            [("retrieval", way, f"R@{k}") for way in ("i2t", "t2i") for k in (1, 5, 10)]
            + [("zeroshot", "top1")]
            + [
                ("compositional", kind)
                for kind in (
                    "add_obj",
                    "add_att",
                    "replace_obj",
                    "replace_att",
                    "replace_rel",
                    "swap_obj",
                    "swap_att",
                    "mean",
                )
            ]
        )
        for path in paths:
            value, interval, chance = result, result["ci95"], result["chance"]
            for key in path:
                value, interval, chance = value[key], interval[key], chance[key]
            assert 0 <= interval[0] <= value <= interval[1] <= 1 and 0 < chance < 1
        assert result["chance"]["retrieval"]["i2t"]["R@10"] == pytest.approx(10 / 800)
        assert f"| {folder} |" in done.stdout
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width == 1400 and picture.height > 1000
