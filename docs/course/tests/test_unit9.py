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
    right, exchanged = loss_of(student, z, t), loss_of(student, z, t.roll(1, 0))
    why = (
        f"right pairs cost {right:.4f}, and with captions moved by one place {exchanged:.4f}: "
        "right pairs should cost less. Is a sign wrong?"
    )
    holds(right < exchanged, why)


def test_own_loss_of_a_permuted_batch(student):
    """The order of the batch does not matter"""
    z, t = pairs(seed=3)
    order = torch.tensor([2, 0, 1, 7, 5, 6, 4, 3])
    why = (
        "the pairs came in another order, and the loss changed: no place in the batch may count "
        "more than another one"
    )
    same(loss_of(student, z[order], t[order]), loss_of(student, z, t), why)


def test_own_loss_pulls_images_to_captions(student):
    """A step against the gradient brings images nearer to their captions"""
    z, t = pairs(seed=5)
    _, (gradient, *_) = gradients(student.own.own_loss, z, t, torch.tensor(10.0), None)
    why = (
        "there is no gradient with respect to the images, so the image side learns nothing: "
        "detached?"
    )
    holds(gradient is not None, why)
    before, after = (z * t).sum(1).mean(), ((z - 0.1 * gradient) * t).sum(1).mean()
    why = (
        f"a step against the gradient takes the mean cosine of right pairs from "
        f"{float(before):.4f} to {float(after):.4f}: it should grow"
    )
    holds(after > before, why)


def test_own_loss_does_not_push_duplicates_apart(student):
    """Two equal pairs that are marked as duplicates get no gradient from each other"""
    z, t = pairs(seed=21, n=2, noise=0.0)
    z[1], t[1] = z[0], t[0]
    duplicates = torch.ones(2, 2, dtype=torch.bool)
    costs = loss_of(student, z, t, duplicates)
    alone = loss_of(student, z[:1], t[:1])
    why = (
        "two equal pairs that are marked as duplicates should cost what one pair alone costs: "
        "neither is a negative of the other. Is `duplicates` used?"
    )
    same(costs, alone, why, atol=1e-3)


def test_own_head_fits(student):
    """It maps (B, 128) to (B, 256), and is within its budget"""
    head = student.own.own_head(128, 256)
    found = apply(student, head, normal(3, 128, seed=7))
    shape = getattr(found, "shape", None)
    holds(
        shape == (3, 256), f"own_head(128, 256) makes {shape} of (3, 128), and should make (3, 256)"
    )
    why = "two images get the same feature: does the head use its input?"
    differ(found[0], found[1], why)
    count = sum(tensor.numel() for tensor in state(student, head)["tensors"].values())
    holds(
        0 < count <= MOST, f"own_head(128, 256) has {count} numbers; from 1 to {MOST} are allowed"
    )


def test_own_row_is_comparable(student):
    """The text side is LIFT's, and head and loss are your own"""
    row = student.own.own_row()
    holds(isinstance(row, dict) and "trains" in row, f"got {row!r}, not a lift.Method")
    why = f"text is {row['text']}: rows are comparable only with LIFT's, lift.LLMVectors"
    holds(row["text"] == "lift.LLMVectors", why)
    holds("text" not in row["trains"], "trains names `text`, and the text side should stay frozen")
    why = f"image is {row['image']!r}: the image tower should start from scratch, as LIFT's does"
    holds(row["image"] == "scratch", why)
    why = f"image_head is {row['image_head']}: the row should have your own_head"
    holds(row["image_head"] == "own.own_head", why)
    holds(
        row["loss"] == "own.own_loss", f"loss is {row['loss']}: the row should have your own_loss"
    )


def test_own_row_overfits(student):
    """It learns 64 random pairs by heart, and exactly what it declares has changed"""
    found = student.own.overfit()
    holds(
        found["found"] >= 0.9,
        f"after 60 steps {found['found']:.0%} of the images find their captions; the loss went "
        f"from {found['losses'][0]:.2f} to {found['losses'][-1]:.2f}",
    )
    children = {name.split(".")[0] for name in found["changed"]}
    why = (
        f"only {', '.join(sorted(children)) or 'nothing'} has changed: image tower and head should "
        "learn, see `trains`"
    )
    holds({"visual", "image_head"} <= children, why)
    left = sorted(set(found["declared"]) - set(found["changed"]) - {"logit_scale"})
    holds(not left, f"declared as trained, but never changed: {', '.join(left[:3])}")


test_own_row_overfits.seconds = 40


def test_paper_of_the_row(student):
    """It says whose idea it is"""
    why = "`paper` is too short: say whose idea it is, a paper's or your own"
    holds(len(student.own.own_row()["paper"]) > 3, why)
    holds("lift" in get(student.lift.METHODS), "the row `lift` is gone from the table")
