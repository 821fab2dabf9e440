"""The probe of an image tower, and the kinds of false captions that it is compared with.

python -m pytest tests/experiments/test_apart.py
"""

import torch

from data.benchmarks import false_captions
from data.world.shapes import make_scenes
from tests.experiments import apart


def test_the_probe_names_what_the_features_hold_and_nothing_else():
    """Three labels. In half of the dimensions stands the label, and in the others noise."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(3, (600,), generator=generator)
    labels = ["abc"[i] for i in numbers]
    others = ["bca"[i] for i in numbers]
    noise = torch.randn(600, 3, generator=generator)
    held = torch.cat([torch.eye(3)[numbers], 0.1 * noise], dim=1)

    accuracy, of_two, commonest = apart.probe(
        held[:400], held[400:], labels[:400], labels[400:], others[400:]
    )
    assert accuracy == of_two == 1
    assert commonest == max(labels[400:].count(x) for x in "abc") / 200

    accuracy, of_two, _ = apart.probe(
        noise[:400], noise[400:], labels[:400], labels[400:], others[400:]
    )
    assert abs(accuracy - 1 / 3) < 0.1 and abs(of_two - 1 / 2) < 0.1


def test_equal_answers_are_no_question_with_two_answers():
    x = torch.eye(2).repeat(10, 1)
    labels = ["a", "b"] * 10
    # Where the other thing has the same fact, or one that no first thing has, nothing can be
    # preferred. Of the rest all are right.
    accuracy, of_two, _ = apart.probe(x, x[:4], labels, labels[:4], ["a", "a", "c", "b"])
    assert (accuracy, of_two) == (1, 1)


def test_exchanged_colours_and_exchanged_textures_are_told_apart():
    scenes = make_scenes("val", 60)
    kinds = set()
    for negative in false_captions(scenes, set()):
        kind = apart.kind_of(negative)
        kinds.add(kind)
        if kind.startswith("swap_att"):
            things = scenes[negative.image].things
            # Where textures change places, each colour stays with its shape.
            stay = all(f"{thing.colour} {thing.shape}" in negative.false for thing in things)
            assert stay == (kind == "swap_att, textures")
    assert kinds == {*apart.KINDS, "half_truth"}
