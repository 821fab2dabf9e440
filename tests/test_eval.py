"""eval.py: every metric against cases by hand or a direct definition. Ties and NaN never help.

    python -m pytest tests/test_eval.py

Tests of whole benchmarks stand in tests/data/test_benchmarks.py.
"""

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from itertools import permutations
from math import nan
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import eval as ev
import train
from data import benchmarks, report
from data.common import BadInput
from data.files.export import export
from data.images.formats import Columns
from data.images.read import read_images
from data.report import flat
from data.world import shapes
from tests.conftest import evaluated

# --------------------------------------------------------------------------------------------------
# Retrieval.


def test_ranks_by_hand():
    image = torch.eye(3)
    text = torch.tensor([[1.0, 0, 0], [0.2, 0.1, 0.9], [0, 1.0, 0], [0.5, 0.6, 0.4]])
    image_of_caption = torch.tensor([0, 0, 1, 2])  # image 0 has two captions
    i2t, t2i = ev.retrieval_ranks(image, text, image_of_caption, chunk=2)
    # Image 2 sees caption 1 at 0.9 before its own at 0.4. Caption 1 sees image 2 first, caption 3
    # sees 1, 0, 2.
    assert i2t.tolist() == [0, 0, 1]
    assert t2i.tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize("chunk", [1, 2, 512])
def test_the_example_of_the_docstring(chunk):
    cosines = torch.tensor(
        [[0.5, 0.7, 0.8, 0.5, 0.1], [0.6, 0.2, 0.6, 0.6, 0.1], [0.3, 0.4, 0.2, 0.3, 0.9]]
    )
    i2t, t2i = ev.retrieval_ranks(
        torch.eye(3),
        cosines.T,
        torch.tensor([0, 0, 1, 2, 2]),
        torch.tensor([0, 1, 2, 0, 3]),
        chunk=chunk,
    )
    assert i2t.tolist() == [1, 2, 0]
    assert t2i.tolist() == [1, 0, 1, 1, 0]


def test_equal_captions_are_right_wherever_they_are():
    image = torch.eye(3)
    # The captions of images 0 and 1 are equal, and yet embedded apart.
    text = torch.stack([image[1], image[0], image[2]])
    i2t, t2i = ev.retrieval_ranks(image, text, torch.arange(3), torch.tensor([0, 0, 1]))
    assert i2t.tolist() == t2i.tolist() == [0, 0, 0]
    assert ev.retrieval_ranks(image, text, torch.arange(3))[0].tolist() == [2, 2, 0]


def test_ranks_equal_sorting_a_full_matrix():
    generator = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(50, 8, generator=generator), dim=1)
    text = F.normalize(torch.randn(130, 8, generator=generator), dim=1)
    # The first 50 captions see to it that every image has one.
    others = torch.randint(50, (80,), generator=generator)
    image_of_caption = torch.cat([torch.arange(50), others])
    scores = (image @ text.T).numpy()
    i2t, t2i = ev.retrieval_ranks(image, text, image_of_caption, chunk=11)
    for i in range(50):
        order = np.argsort(-scores[i])
        assert i2t[i] == min(np.flatnonzero(image_of_caption.numpy()[order] == i))
    for t in range(130):
        assert t2i[t] == list(np.argsort(-scores[:, t])).index(int(image_of_caption[t]))


@pytest.mark.parametrize("value", [1.0, nan])
def test_collapsed_and_nan_models_score_nothing(value):
    same = torch.full((20, 4), value)
    i2t, t2i = ev.retrieval_ranks(same, same, torch.arange(20))
    assert i2t.tolist() == t2i.tolist() == [19] * 20
    assert not ev.compositional(same, same, same).any()
    assert not ev.zeroshot(same, same[:5], torch.arange(20) % 5).any()


def test_one_nan_caption_is_wrong_and_does_not_help_others():
    image = torch.eye(3)
    text = image.clone()
    text[1] = nan
    i2t, t2i = ev.retrieval_ranks(image, text, torch.arange(3))
    assert i2t.tolist() == [1, 2, 1] and t2i.tolist() == [0, 2, 0]


# --------------------------------------------------------------------------------------------------
# Composition and classification.


def test_compositional_is_strict():
    image = torch.tensor([[1.0, 0.0]] * 3)
    true = torch.tensor([[0.9, 0], [0.5, 0], [0.1, 0]])
    false = torch.tensor([[0.8, 0], [0.5, 0], [0.2, 0]])
    assert ev.compositional(image, true, false).tolist() == [True, False, False]


def test_differences_of_rounding_are_ties():
    image = torch.eye(2)[[0, 0]]
    for difference, is_right in ((5e-7, False), (5e-6, True)):
        better = torch.tensor([[0.5, 0.0], [0.5 - difference, 0.0]])
        assert bool(ev.compositional(image, better, better.flip(0))[0]) == is_right
        i2t, t2i = ev.retrieval_ranks(image[:1], better, torch.tensor([0, 0]), torch.arange(2))
        assert int(i2t[0]) == 0 and t2i.tolist() == [0, 0]  # both captions are right
        is_correct = torch.tensor([[True, False]])
        rank = ev.rank_of_best((image @ better.T)[:1], is_correct)
        assert rank.tolist() == [0 if is_right else 1]
        assert bool(ev.zeroshot(image[:1], better, torch.tensor([0]))[0]) == is_right
        text = torch.tensor([[0.5, 0.5 - difference], [0.5 - difference, 0.5]])
        assert bool(ev.winoground(torch.eye(2), text)[0][0]) == is_right


def test_zeroshot_normalises_averages_normalises():
    vectors = {"a x": [3.0, 0], "the x": [0, 1.0], "a y": [-1.0, 0], "the y": [-5.0, 0]}
    fake = SimpleNamespace(encode_texts=lambda prompts: torch.tensor([vectors[p] for p in prompts]))
    features = ev.Run.class_features(fake, ["x", "y"], ["a {}", "the {}"])
    assert torch.allclose(features, torch.tensor([[0.5**0.5, 0.5**0.5], [-1.0, 0.0]]))
    image = torch.tensor([[0.0, 1.0], [-1.0, 0.2]])
    assert ev.zeroshot(image, features, torch.tensor([0, 1])).tolist() == [True, True]
    assert ev.zeroshot(image, features, torch.tensor([1, 0])).tolist() == [False, False]


# --------------------------------------------------------------------------------------------------
# Winoground.

# Images are (1, 0) and (0, 1), so a caption's vector is its scores with both. In a row: caption 0's
# vector, caption 1's; text, image and group score.
WINOGROUND = [
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
    text = torch.tensor([vector for first, second, *_ in WINOGROUND for vector in (first, second)])
    image = torch.eye(2).repeat(len(WINOGROUND), 1)
    _, _, *columns = zip(*WINOGROUND, strict=True)
    for hits, column in zip(ev.winoground(image, text), columns, strict=True):
        assert hits.tolist() == [bool(hit) for hit in column]
    same = torch.full((2 * 9, 5), 0.3)
    assert not any(hits.any() for hits in ev.winoground(same, same))


def test_winoground_chance_is_that_of_scores_in_any_order():
    orders = torch.tensor(list(permutations(range(4)))).float().view(-1, 2)
    scores = ev.winoground(torch.eye(2).repeat(24, 1), orders)
    assert [hits.float().mean().item() for hits in scores] == pytest.approx([1 / 4, 1 / 4, 1 / 6])


# --------------------------------------------------------------------------------------------------
# Intervals.


def test_interval_covers_and_respects_groups():
    hits = np.array([1, 0] * 200)
    low, high = ev.interval(hits)
    assert low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.004)
    assert high == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.004)
    # Four hundred captions that agree within twenty images are twenty observations.
    low, high = ev.interval(np.repeat([1, 0] * 10, 20), np.repeat(np.arange(20), 20))
    assert high - low > 0.3


# --------------------------------------------------------------------------------------------------
# Whole runs.


@pytest.mark.parametrize("method", ["clip", "lift"])
def test_features_are_those_of_each_image_and_text_in_their_order(small, method):
    """In batches of 3, as one by one."""
    train.train(train.Config(method=method, **{**small, "steps": 1}))
    run = ev.Run(small["out"])
    images = read_images("shapes", "test", 32, num_samples=8)
    texts = [text for (text,) in images.captions]
    with torch.no_grad():
        pixels = [run.transform(Image.fromarray(images.pixels([i])[0]))[None] for i in range(8)]
        image = torch.cat([run.model.encode_image(one, normalize=True) for one in pixels])
        text = torch.cat([run.model.encode_text(run.tokenize([t]), normalize=True) for t in texts])
    assert torch.allclose(run.encode_images(images, batch=3), image, atol=1e-5)
    assert torch.allclose(run.encode_texts(texts, batch=3), text, atol=1e-3)
    assert torch.pdist(image).min() > 1e-3 and torch.pdist(text).min() > 1e-2


def test_a_task_reads_all_its_texts_together_and_each_once(small):
    """One progress bar, and the cache of captions is opened once: it may hold millions."""
    train.train(train.Config(method="clip", **{**small, "steps": 1}))
    run = ev.Run(small["out"])
    images = read_images("shapes", "test", 32, num_samples=2)
    both = [tuple(benchmarks.Negative(0, "r", f"{end} yes", f"{end} no") for end in "ab")]
    few = {"data": "x", "images": images, "class_names": ["one", "two"], "labels": torch.arange(2)}
    further = benchmarks.Task(**few, templates=["{}", "a {}"], classified=range(2))
    task = benchmarks.Task(
        **few,
        templates=["the {}"],
        classified=range(2),
        captions=["same", "same"],
        image_of_caption=torch.arange(2),
        caption_ids=torch.zeros(2, dtype=torch.int64),
        reworded=range(2),
        other_words={"short": ["s", "same"]},
        negatives=[benchmarks.Negative(1, "swap_obj", "same", "other")],
        both_ends={"r": both},
        further={"more": further},
    )
    asked = []
    read = run.tokenize.read
    run.tokenize.read = lambda texts: asked.append(list(texts)) or read(texts)
    ev.evaluate(run, task)
    texts = ["same", "s", "other", "a yes", "a no", "b yes", "b no"]
    texts += ["the one", "the two", "one", "a one", "two", "a two"]
    assert len(asked) == 1
    assert sorted(asked[0]) == sorted(texts)
    # Asked again, in another order and twice: the same features, and nothing is read.
    found = run.encode_texts(["other", "same", "other"])
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])
    assert torch.allclose(found[:1], ev.Run(small["out"]).encode_texts(["other"]), atol=1e-5)
    assert len(asked) == 1
    task.winoground_captions = ("w", "x", "same", "z")
    assert set(task.texts()) == {*texts, "w", "x", "z"}


@pytest.mark.slow
def test_own_data_is_scored_on_its_held_out_part(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p").mkdir()
    rows = ["image,caption"]
    for i in range(120):
        Image.new("RGB", (40, 40), (2 * i, 255 - i, i)).save(f"p/{i}.png")
        rows.append(f"p/{i}.png,number {i}")
    rows.append("p/gone.png,gone")
    Path("a.csv").write_text("\n".join(rows) + "\n")
    train.train(train.Config(**{**small, "data": "a.csv"}))
    train.train(train.Config(**{**small, "data": "a.csv", "out": "other", "image_size": 16}))

    # About a tenth is held out, the same tenth for every run and however the file is spelled.
    names = list(evaluated(small["out"]).task.images.names)
    assert 3 < len(names) < 40
    for spelling in ("a.csv", "./a.csv", str(tmp_path / "a.csv")):
        assert len(evaluated(small["out"], spelling).task.images) == len(names)
    assert list(evaluated("other").task.images.names) == names

    # The same images by another name: all are scored, and the result says that many were seen.
    Path("b.csv").write_text(Path("a.csv").read_text().replace("image,caption", "file,words"))
    columns = Columns(csv_img_key="file", csv_caption_key="words")
    result = evaluated(small["out"], "b.csv", columns)
    assert len(result.task.images) == 120
    assert result.scores["trained_on"] == small["train_num_samples"]
    assert result.scores["weights"] == "checkpoint.pt"
    assert result.scores["counts"]["skipped"] == 1
    words = f"TRAINED ON {small['train_num_samples']} OR MORE OF THESE 120 IMAGES"
    assert words in report.table([result.scores]).split("\n")[0]
    scores = evaluated(small["out"], "a.csv").scores
    assert scores["trained_on"] == 0 and scores["counts"]["skipped"] == 1
    assert "TRAINED" not in report.table([scores])
    # An exported run knows it, too.
    export(small["out"], tmp_path / "run.safetensors")
    again = evaluated(tmp_path / "run.safetensors", "b.csv", columns)
    assert again.scores["trained_on"] == result.scores["trained_on"]
    assert again.folder == tmp_path / "run.safetensors-scores"


def texts_true_of(scene):
    """Every true text that the tests of the built-in world ask for, of one scene."""
    texts = [shapes.caption(scene), *shapes.other_words(scene).values()]
    if "/single/" in scene.key:
        thing = scene.things[0]
        _, templates = shapes.classes("shapes")
        texts += [t.replace("{}", f"{thing.colour} {thing.shape}") for t in templates]
    return texts


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--templates t.txt", "--templates has no effect here; .* --zeroshot or --classify"),
        ("--classnames n.txt --classify a.jpg x,y", "--classnames has no effect with --classify"),
        ("--zeroshot d --images i", "--images has no effect with --zeroshot; .* --sugarcrepe"),
        ("--search d dog --csv-img-key path", "--csv-img-key has no effect with --search"),
        ("--classify a.jpg x,y --report r.png", "--report has no effect with --classify"),
        ("--zeroshot d --split val", "--split val cannot be given with --zeroshot"),
        ("--zeroshot d --templates t.txt --classnames n.txt", ""),
        ("--classify a.jpg x,y --templates t.txt", ""),
        ("--data d --split val --csv-img-key path", ""),
    ],
)
def test_a_flag_that_the_question_does_not_use_is_refused(flags, said):
    """Else the scores would be those of another question than the user meant."""
    args = ev.build_parser().parse_args(["runs/x", *flags.split()])
    if not said:
        return ev.check_flags(args)
    with pytest.raises(BadInput, match=said):
        ev.check_flags(args)


def test_names_of_files_fit_on_a_disk():
    """A name may have 255 bytes. One of these letters has three."""
    args = ev.build_parser().parse_args(["runs/x", "--data", "数" * 82])
    assert len(f"eval{ev.name_of_files(args)}-split-val.json".encode()) <= 255


def test_the_interval_of_zero_shot_is_about_other_images_of_the_same_classes():
    """Two classes, eight of ten right in each: other images would not all give the same."""
    labels = torch.arange(2).repeat_interleave(10)
    guess = torch.where(torch.arange(20) % 10 < 8, labels, 1 - labels)
    scores = ev.zeroshot_scores(torch.eye(2)[guess], torch.eye(2), labels, [1])
    low, high = scores["zeroshot top1"].ci95
    assert scores["zeroshot top1"].value == 0.8 and low < 0.7 and high > 0.9


@pytest.mark.slow
def test_a_model_that_knows_all_scores_all(small):
    """Features that say which image it is: every score must be 1, or something is mixed up.

    Then texts that say nothing: every score must be 0.
    """
    train.train(train.Config(**small))
    run = ev.Run(small["out"])
    task = benchmarks.held_out(run.config)
    tasks = [task, *task.further.values()]
    names = [name for one in tasks for name in one.images.names]
    number_of = {name: number for number, name in enumerate(names)}
    assert len(number_of) == len(names)
    vector_of = defaultdict(lambda: torch.zeros(len(names)))
    for one in tasks:
        for name, scene in zip(one.images.names, one.images.scenes, strict=True):
            # What is said of one thing may be true of several images, too: it counts half.
            half_truth = shapes.half_truth(scene)
            weight_of = {half_truth[0]: 0.5} if half_truth else {}
            weight_of |= dict.fromkeys(texts_true_of(scene), 1.0)
            for text, weight in weight_of.items():
                vector_of[text][number_of[name]] = weight

    def encode_images(images):
        return torch.eye(len(names))[[number_of[name] for name in images.names]]

    def encode_texts(texts):
        return torch.nn.functional.normalize(torch.stack([vector_of[t] for t in texts]), dim=1)

    run.encode_images, run.encode_texts = encode_images, encode_texts
    scores = ev.evaluate(run, task).scores
    asked = flat(scores["chance"])
    assert set(NEW_SCORES) < set(asked)
    assert {path: flat(scores)[path] for path in asked} == dict.fromkeys(asked, 1.0)

    run.encode_texts = lambda texts: torch.ones(len(texts), len(names))
    scores = ev.evaluate(run, task).scores
    assert {path: flat(scores)[path] for path in asked} == dict.fromkeys(asked, 0.0)

    # Who knows the relation words of an image's own caption, and nothing else, answers the question
    # of the relation in the usual order, and not from both ends. Who takes them for the opposite
    # words answers it from the other end only.
    words = ["left of", "right of", "above", "below"]

    def relation_words(texts):
        return torch.tensor([[float(text.count(word)) for word in words] for text in texts])

    run.encode_texts = relation_words
    for order, usual in ([0, 1, 2, 3], 1), ([1, 0, 3, 2], 0):
        known = relation_words([captions[0] for captions in task.images.captions])[:, order]
        run.encode_images = lambda images, known=known: known
        scores = ev.evaluate(run, replace(task, further={}, class_names=())).scores
        assert scores["compositional"]["replace_rel"] == usual
        assert scores["both_ends"]["replace_rel"] == 0


NEW_SCORES = [
    "half_truth",
    *[f"unseen_words {kind}" for kind in ("two_way", "i2t", "t2i")],
    *[f"unseen_compounds {kind}" for kind in ("two_way", "i2t", "t2i")],
    *[f"other_words {kind}" for kind in ("own", "reversed", "there_is", "loosely")],
    *[f"other_words {kind}" for kind in ("sentences", "synonyms")],
    *[f"both_ends {kind}" for kind in shapes.BOTH_ENDS],
]


@pytest.mark.slow
def test_scores_report_and_command(small, tmp_path):
    """All of eval.py on two tiny runs: the promised keys, intervals around scores, a drawing."""
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
    paths = [("retrieval", way, f"R@{k}") for way in ("i2t", "t2i") for k in (1, 5, 10)]
    paths += [("zeroshot", "top1"), *[tuple(path.split()) for path in NEW_SCORES]]
    paths += [
        ("compositional", category)
        for category in (
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
    for folder in runs:
        result = json.loads((Path(folder) / "eval.json").read_text())
        assert result["counts"]["images"] == 800
        for path in paths:
            value, interval, chance = result, result["ci95"], result["chance"]
            for key in path:
                value, interval, chance = value[key], interval[key], chance[key]
            assert 0 <= interval[0] <= value <= interval[1] <= 1 and 0 < chance < 1
        assert result["chance"]["retrieval"]["i2t"]["R@10"] == pytest.approx(10 / 800)
        assert f"| {folder} |" in done.stdout
        assert f"{result['cost']['trained_parameters']:,} " in done.stdout
    with Image.open(tmp_path / "report.png") as image:
        assert image.width == 1400 and image.height > 1000


def test_an_interval_is_of_the_mean_over_questions_and_not_over_groups():
    """Ten images with one caption, which is found, and ten with nine, of which none is."""
    groups = np.repeat(np.arange(20), [1] * 10 + [9] * 10)
    low, high = ev.interval(groups < 10, groups)
    assert 0.02 < low < 0.1 < high < 0.3


def test_the_interval_of_the_mean_of_composition():
    scores = ev.compositional_scores(["add_obj"] * 400, [True, False] * 200)
    wanted = [0.5 - 1.96 * 0.5 / 20, 0.5 + 1.96 * 0.5 / 20]
    assert scores["compositional mean"].ci95 == pytest.approx(wanted, abs=0.006)


def test_a_caption_that_an_image_has_twice_is_one_right_answer_twice():
    """Copies of an image bring their captions along, and these may be equal."""
    number = torch.tensor([0, 0, 1])
    text = torch.eye(2)[number]
    scores = ev.retrieval_scores("r", torch.eye(2), text, number, number)
    assert scores["r i2t R@1"].chance == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert scores["r t2i R@1"].chance == pytest.approx(1 / 2)


def test_runs_with_other_captions_of_the_same_images_are_not_compared():
    images = SimpleNamespace(names=["1.png"])
    tasks = [SimpleNamespace(images=images, captions=[c], data="a.csv") for c in ("a dog", "a cat")]
    runs = [SimpleNamespace(folder=f) for f in "ab"]
    ev.check_same_images(runs, [tasks[0], tasks[0]])
    with pytest.raises(BadInput, match="hold out different images"):
        ev.check_same_images(runs, tasks)


def test_the_interval_of_single_things_is_about_other_classes_too():
    labels = torch.arange(2).repeat_interleave(10)
    run = SimpleNamespace(
        encode_images=lambda images: torch.eye(2)[[0] * 20],  # class 0 is right, class 1 is not
        class_features=lambda names, templates: torch.eye(2),
    )
    task = benchmarks.Task("x", None, labels=labels, class_names=["a", "b"])
    assert ev.further_scores("zeroshot", run, task)["zeroshot top1"].ci95 == [0, 1]


def test_an_interval_of_words_covers_what_other_words_would_have_given():
    """Simulated: a word is easy or hard, and a question about two words depends on both."""
    rng = np.random.default_rng(0)
    covered, covered_by_questions = 0, 0
    for _ in range(200):
        words = rng.integers(0, 24, (400, 2))
        ease = rng.normal(size=24)[words].sum(1)
        hits = ease + rng.normal(size=400) > 0  # over all words and questions half of them
        low, high = ev.interval_of_words(hits, words, resamples=200)
        covered += low <= 0.5 <= high
        low, high = ev.interval(hits, resamples=200)
        covered_by_questions += low <= 0.5 <= high
    assert covered / 200 > 0.88 and covered_by_questions / 200 < 0.6
    # With one word for each question it is the interval of groups.
    assert ev.interval_of_words(hits, words[:, :1]) == ev.interval(hits, words[:, 0])


def test_the_intervals_of_new_colours_are_about_other_colours_too():
    """All images of one colour are right, and none of the other. They do not stand in order."""
    words = (torch.arange(20) % 2)[:, None]
    vectors = torch.cat([torch.eye(20), -torch.eye(20)], dim=1)  # of each image's own caption
    negatives = [benchmarks.Negative(i, "two_way", f"{i}", f"{i} not") for i in range(20)]
    run = SimpleNamespace(
        encode_images=lambda images: torch.where(words == 0, vectors, -vectors),
        encode_texts=lambda texts: torch.stack(
            [vectors[int(t.split()[0])] * (0 if "not" in t else 1) for t in texts]
        ),
    )
    numbers = torch.arange(20)
    texts = [f"{i}" for i in range(20)]
    task = benchmarks.Task("x", None, texts, numbers, numbers, negatives=negatives)
    task.words_of_image = task.words_of_negative = words
    scores = ev.further_scores("new", run, task)
    assert list(scores) == ["new two_way", "new i2t", "new t2i"]
    for one in scores.values():
        assert one.value == 0.5 and one.ci95 == [0, 1]
