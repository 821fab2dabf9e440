"""tests/experiments/other_end.py: which forms are true, and what misleads."""

import torch
import torch.nn.functional as F

from data.world.shapes import SIZES, is_true, make_scenes
from tests.experiments.other_end import (
    SIZES_OF_TEXTS,
    as_many_at_random,
    forms,
    misleading,
    recall,
    told,
    with_colours_exchanged,
)


def test_two_of_the_four_forms_are_true():
    scenes = [scene for scene in make_scenes("test", 60) if len(scene.things) == 2]
    assert len(scenes) > 30
    for scene in scenes:
        true = {name: is_true(told, scene) for name, told in forms(scene).items()}
        assert true == {
            "own": True,
            "reversed": True,
            "order alone": False,
            "relation alone": False,
        }


def test_exchanged_colours_are_false():
    for scene in make_scenes("test", 60):
        if len(scene.things) == 2:
            false = with_colours_exchanged(scene)
            assert not is_true(false, scene) and with_colours_exchanged(false) == scene
            assert not is_true(forms(false)["reversed"], scene)


def test_sizes_are_left_out_or_exchanged():
    (scene, *_) = (s for s in make_scenes("test", 60) if len(s.things) == 2)
    first, second = (thing.size for thing in scene.things)
    kept, left_out, exchanged = (told(scene, how).split() for how in SIZES_OF_TEXTS)
    assert [word for word in kept if word in SIZES] == [first, second]
    assert left_out == [word for word in kept if word not in SIZES] and len(left_out) < len(kept)
    assert [word for word in exchanged if word in SIZES] == [second, first]
    assert [word for word in exchanged if word not in SIZES] == left_out


def test_a_model_that_goes_by_the_relation_word_is_misled():
    """Four scenes, two with each relation. Their texts say the opposite."""
    left_out = misleading(["l", "l", "r", "r"], ["r", "r", "l", "l"])
    assert left_out.int().tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]
    scene = torch.eye(4)
    left = torch.tensor([1.0, 1, -1, -1])[:, None]  # what the image's own caption says
    image = F.normalize(torch.cat([scene, left], 1), dim=1)

    # Who knows the scene alone finds all.
    text = F.normalize(torch.cat([scene, 0 * left], 1), dim=1)
    assert recall(image, text) == 1
    # Who goes by the word finds a text that has it, unless none is offered.
    text = F.normalize(torch.cat([scene, -left], 1), dim=1)
    assert recall(image, text) == 0 and recall(image, text, left_out) == 1
    # A tie is wrong.
    assert recall(0 * image, text) == 0


def test_as_many_are_left_out_and_never_the_own_one():
    left_out = torch.rand(50, 50, generator=torch.Generator().manual_seed(1)) < 0.3
    left_out.fill_diagonal_(False)
    others = as_many_at_random(left_out)
    assert torch.equal(others.sum(1), left_out.sum(1)) and not others.diagonal().any()
    assert not torch.equal(others, left_out)
