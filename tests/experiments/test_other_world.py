"""tests/experiments/other_world.py: the images show what the captions say.

python -m pytest tests/experiments/test_other_world.py
"""

import sys
from random import Random

import numpy as np
import pytest
import torch

from data.common import BadInput
from data.files.llm import fetch_default, read_llm
from data.texts import read_texts
from tests.experiments import other_world as world


def scenes(count: int, **kind) -> list[world.Scene]:
    rng = Random(0)
    return [world.make_scene(rng, **kind) for _ in range(count)]


@pytest.mark.real_llm
def test_new_colours_share_no_token_with_training():
    _, tokenizer, _ = read_llm(fetch_default())
    texts = {world.caption(scene) for scene in scenes(3000, is_new=False)}
    seen = {token for text in texts for token in tokenizer.encode(f" {text}")}
    for colour in world.KNOWN:
        assert seen >= set(tokenizer.encode(f" {colour}")), colour
    for colour in world.NEW:
        assert not seen & set(tokenizer.encode(f" {colour}")), colour


def test_captions_by_hand():
    scene = world.Scene(("amber", "dark red"), ("box", "arrow"), "over")
    assert world.caption(scene) == "an amber box over a dark red arrow"
    other_end = world.from_the_other_end(scene)
    assert world.caption(other_end) == "a dark red arrow under an amber box"
    assert world.from_the_other_end(other_end) == scene
    false = world.with_opposite_relation(scene)
    assert world.caption(false) == "an amber box under a dark red arrow"


def test_things_stand_where_the_caption_says():
    """A ball and a box in red and blue: where is more red, and where more blue?"""
    rng = Random(1)
    for relation in world.RELATIONS:
        for _ in range(5):
            scene = world.Scene(("red", "blue"), ("ball", "box"), relation)
            pixels = np.asarray(world.draw(scene, rng)).astype(int)
            assert pixels.shape == (64, 64, 3)
            is_red = pixels[..., 0] - pixels[..., 2] > 100
            is_blue = pixels[..., 2] - pixels[..., 0] > 100
            # Nothing is cut off at an edge: the outermost pixels are grey.
            edge = np.concatenate([pixels[[0, -1]].reshape(-1, 3), pixels[:, 0], pixels[:, -1]])
            assert (np.ptp(edge, axis=1) == 0).all()
            (red_y, red_x), (blue_y, blue_x) = (np.argwhere(m).mean(0) for m in (is_red, is_blue))
            holds = {
                "to the left of": red_x < blue_x - 10,
                "to the right of": red_x > blue_x + 10,
                "over": red_y < blue_y - 10,
                "under": red_y > blue_y + 10,
            }
            assert [name for name, is_so in holds.items() if is_so] == [relation]
    assert all(world.OPPOSITE[world.OPPOSITE[relation]] == relation for relation in world.RELATIONS)


def test_the_larger_thing_is_named_first():
    for first, ratio in (("any", (0.6, 1.6)), ("larger", (1.5, 4))):
        for seed in range(10):
            scene = world.Scene(("red", "blue"), ("box", "box"), "over")
            pixels = np.asarray(world.draw(scene, Random(seed), first)).astype(int)
            red = (pixels[..., 0] - pixels[..., 2] > 100).sum()
            blue = (pixels[..., 2] - pixels[..., 0] > 100).sum()
            assert ratio[0] < red / blue < ratio[1], first


def test_either_thing_may_be_larger():
    scene = world.Scene(("red", "blue"), ("box", "box"), "over")
    is_larger = []
    for seed in range(40):
        pixels = np.asarray(world.draw(scene, Random(seed), "sizes")).astype(int)
        difference = pixels[..., 0] - pixels[..., 2]
        is_larger.append((difference > 100).sum() > (difference < -100).sum())
    assert 10 < sum(is_larger) < 30


def test_scenes():
    known, new = scenes(500, is_new=False), scenes(500, is_new=True)
    assert {colour for scene in known for colour in scene.colours} <= set(world.KNOWN)
    assert {scene.colours[0] for scene in new} == set(world.NEW)
    assert {scene.colours[1] for scene in new} <= set(world.KNOWN)
    for scene in known + new:
        assert world.look_different(*scene.colours)
        assert scene.things[0] != scene.things[1]

    order = list(world.THINGS).index
    is_sorted = [order(scene.things[0]) < order(scene.things[1]) for scene in known]
    assert 0.4 < np.mean(is_sorted) < 0.6
    for scene in scenes(100, is_new=False, first="listed"):
        assert order(scene.things[0]) < order(scene.things[1])


class Oracle:
    """In the place of a run. A feature has a place for each word, and for each pair of a word and
    its number in the text, so a caption is nearest to itself. An image's feature is that of its own
    caption, which `answers` may change first.
    """

    def __init__(self, folder, answers=lambda text: text):
        self.folder, self.answers = folder, answers
        self.places = {}

    def encode_texts(self, texts):
        features = torch.zeros(len(texts), 2000)
        for row, text in enumerate(texts):
            for number, word in enumerate(text.split()):
                features[row, self.places.setdefault(word, len(self.places))] = 1
                features[row, self.places.setdefault((word, number), len(self.places))] = 1
        return torch.nn.functional.normalize(features, dim=1)

    def encode_images(self, images):
        texts = {}
        for split in ("test", "new"):
            lines = world.read_scenes(self.folder / f"{split}.csv")
            texts |= {f"{split}/{i:05}.png": world.caption(s) for i, s in enumerate(lines)}
        return self.encode_texts([self.answers(texts[name]) for name in images.names])


def small_world(tmp_path, monkeypatch):
    """The folder of a world with few images, made by the command."""
    monkeypatch.setattr(world, "TRAIN", 30)
    monkeypatch.setattr(world, "TEST", 40)
    folder = tmp_path / "world"
    monkeypatch.setattr(sys, "argv", ["other_world", "make", str(folder)])
    world.main()
    return folder


def test_scores(tmp_path, monkeypatch):
    folder = small_world(tmp_path, monkeypatch)
    with pytest.raises(BadInput, match="exists"):
        world.main()
    monkeypatch.setattr(sys, "argv", ["other_world", "score", str(folder)])
    with pytest.raises(BadInput, match="one or more"):
        world.main()

    # Pairs for tuning say the same, and the hard negative does not.
    training, held_out = read_texts(str(folder / "pairs.csv"))
    captions = {world.caption(scene) for scene in world.read_scenes(folder / "train.csv")}
    assert {related.texts[0] for related in training} | {r.texts[0] for r in held_out} == captions
    for related in training:
        first, second = related.texts[:2]
        assert first.split()[-1] in second and first != second
        assert related.hard not in (first, second)

    found = world.scores(Oracle(folder), folder, "test")
    assert {value for name, value in found.items() if "," not in name} == {100.0}

    def without_relation(text):
        for relation in world.RELATIONS:
            text = text.replace(relation, "-" + " -" * relation.count(" "))
        return text

    blind = world.scores(Oracle(folder, without_relation), folder, "test")
    assert blind["relation"] == blind["relation, both ends"] == 0  # a tie is wrong
    assert blind["colours"] == blind["things"] == blind["new two-way"] == 100


def test_knowing_the_usual_word_is_not_enough(tmp_path, monkeypatch):
    """An image side that knows the word of its caption, and nothing else of it."""
    folder = small_world(tmp_path, monkeypatch)

    class Bag(Oracle):
        def encode_texts(self, texts):
            words = [text.replace("to the ", "").split() for text in texts]
            features = torch.zeros(len(texts), 2000)
            for row, some in enumerate(words):
                for word in some:
                    features[row, self.places.setdefault(word, len(self.places))] += 1
            return torch.nn.functional.normalize(features, dim=1)

    found = world.scores(Bag(folder), folder, "test")
    assert found["relation"] == 100
    assert found["relation, other end"] == found["relation, both ends"] == 0


def test_effects_of_a_made_up_text_space(tmp_path, monkeypatch):
    """The vector of a caption is built of its scene, its word, its order and its truth."""
    folder = small_world(tmp_path, monkeypatch)
    signs = {}
    for split in ("train", "test"):
        for number, scene in enumerate(world.read_scenes(folder / f"{split}.csv")):
            for order, one in ((1, scene), (-1, world.from_the_other_end(scene))):
                for truth, told in ((1, one), (-1, world.with_opposite_relation(one))):
                    signs[world.caption(told)] = (split, number, order * truth, order, truth)

    def read(texts):
        vectors = torch.zeros(len(texts), 100)
        for row, text in enumerate(texts):
            split, number, *three = signs[text]
            # A tenth, two tenths and three tenths of the length of what all captions share.
            vectors[row, :3] = torch.tensor(three) * torch.tensor([0.1, 0.2, 0.3])
            vectors[row, 3 + number] = 1
        return vectors

    monkeypatch.setattr(world, "whitening", lambda vectors, k: (0.0, torch.eye(100)))
    effects = world.text_effects(*world.text_vectors(read, folder))
    length = 1 + 0.1**2 + 0.2**2 + 0.3**2
    for name, share in (("word", 0.1), ("order", 0.2), ("truth", 0.3)):
        assert effects[name] == pytest.approx((4 * share**2 / length, 1), abs=1e-5)
    assert world.mean_cosine(torch.eye(5)) == pytest.approx(0, abs=1e-6)
    assert world.mean_cosine(torch.tensor([[1.0, 0], [3, 0], [-1, 0]])) == pytest.approx(-1 / 3)
