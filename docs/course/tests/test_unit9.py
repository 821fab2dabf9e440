"""Unit 9, your own row: the tests that students have."""

import math

import torch

from ..student import Student, apply, differ, get, gradients, holds, same, state
from .numbers import normal, unit

MOST = 300_000  # numbers that a head may have


def pairs(seed: int, n: int = 8, noise: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of images and captions: right pairs are near each other."""
    t = unit(n, 16, seed=seed)
    z = torch.nn.functional.normalize(t + noise * unit(n, 16, seed=seed + 1), dim=-1)
    return z, t


def loss_of(student: Student, z: torch.Tensor, t: torch.Tensor, duplicates=None) -> float:
    found = student.own.own_loss(z, t, torch.tensor(10.0), duplicates)
    holds(isinstance(found, torch.Tensor) and found.ndim == 0, f"got {found!r}, not a scalar")
    holds(math.isfinite(found), f"the loss is {float(found)}")
    return float(found)


def test_own_loss_prefers_right_pairs(student):
    """Right pairs cost less than exchanged ones"""
    z, t = pairs(seed=1)
    holds(loss_of(student, z, t) < loss_of(student, z, t.roll(1, 0)), "exchanged pairs cost less")


def test_own_loss_of_a_permuted_batch(student):
    """The order of the batch does not matter"""
    z, t = pairs(seed=3)
    order = torch.tensor([2, 0, 1, 7, 5, 6, 4, 3])
    same(loss_of(student, z[order], t[order]), loss_of(student, z, t), "pairs in another order")


def test_own_loss_pulls_images_to_captions(student):
    """A step against the gradient brings images nearer to their captions"""
    z, t = pairs(seed=5)
    _, (gradient, *_) = gradients(student.own.own_loss, z, t, torch.tensor(10.0), None)
    holds(gradient is not None, "there is no gradient with respect to the images")
    before, after = (z * t).sum(1).mean(), ((z - 0.1 * gradient) * t).sum(1).mean()
    holds(after > before, "a small step makes images and captions less alike")


def test_own_head_fits(student):
    """It maps (B, 128) to (B, 256), and is within its budget"""
    head = student.own.own_head(128, 256)
    found = apply(student, head, normal(3, 128, seed=7))
    holds(
        getattr(found, "shape", None) == (3, 256), f"the shape is {getattr(found, 'shape', None)}"
    )
    differ(found[0], found[1], "two images get the same feature")
    count = sum(tensor.numel() for tensor in state(student, head)["tensors"].values())
    holds(0 < count <= MOST, f"the head has {count} numbers; from 1 to {MOST} are allowed")


def test_own_row_is_comparable(student):
    """The text side is LIFT's, and head and loss are your own"""
    row = student.own.own_row()
    holds(isinstance(row, dict) and "trains" in row, f"got {row!r}, not a lift.Method")
    holds(row["text"] == "lift.LLMVectors", f"the text tower is {row['text']}")
    holds("text" not in row["trains"], "the language model is frozen")
    holds(row["image"] == "scratch", "the image tower starts from scratch")
    holds(row["image_head"] == "own.own_head", f"the head is {row['image_head']}")
    holds(row["loss"] == "own.own_loss", f"the loss is {row['loss']}")


def test_own_row_overfits(student):
    """It learns 64 random pairs by heart, and exactly what it declares has changed"""
    found = student.own.overfit()
    holds(
        found["found"] >= 0.9,
        f"after 60 steps {found['found']:.0%} of the images find their captions; the loss went "
        f"from {found['losses'][0]:.2f} to {found['losses'][-1]:.2f}",
    )
    children = {name.split(".")[0] for name in found["changed"]}
    holds({"visual", "image_head"} <= children, f"only {', '.join(sorted(children))} learned")
    left = sorted(set(found["declared"]) - set(found["changed"]) - {"logit_scale"})
    holds(not left, f"declared as trained, but never changed: {', '.join(left[:3])}")


test_own_row_overfits.seconds = 40


def test_paper_of_the_row(student):
    """It says whose idea it is"""
    holds(len(student.own.own_row()["paper"]) > 3, "name the paper, or yourself")
    holds("lift" in get(student.lift.METHODS), "the row `lift` is still in the table")
