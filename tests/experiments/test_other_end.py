"""tests/experiments/other_end.py: which forms are true, and what misleads."""

import pytest
import torch

from data.world.shapes import is_true, make_scenes
from tests.experiments.other_end import forms, scores


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


def test_a_model_that_goes_by_the_relation_word_is_misled():
    """Four scenes, two with each relation. Their texts say the opposite."""
    relations = ["left of", "left of", "right of", "right of"]
    said = ["right of", "right of", "left of", "left of"]
    scene = torch.eye(4)
    left = torch.tensor([1.0, 1, -1, -1])[:, None]  # what the image's own caption says
    image = torch.cat([scene, left], 1)

    # Who knows the scene alone finds all.
    text = torch.cat([scene, 0 * left], 1)
    assert scores(image, text, relations, said) == (1.0, 1.0, 0.0)
    # Who goes by the word finds a text that has it. Among texts with the same word all is found.
    text = torch.cat([scene, -left], 1)
    assert scores(image, text, relations, said) == (0.0, 1.0, 1.0)
    # A tie is wrong. Whoever is nearest then, two of the four texts say the image's word.
    r_at_1, among_same, misled = scores(0 * image, text, relations, said)
    assert (r_at_1, among_same) == (0.0, 0.0) and misled == pytest.approx(0.5)
