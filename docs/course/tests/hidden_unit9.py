"""Unit 9, your own row: the tests that only the grader has."""

import torch

from ..student import apply, gradients, holds, same
from .numbers import normal
from .test_unit9 import loss_of, pairs


def test_own_loss_does_not_push_duplicates_apart(student):
    """Two equal pairs that are marked as duplicates get no gradient from each other"""
    z, t = pairs(seed=21, n=2, noise=0.0)
    z[1], t[1] = z[0], t[0]
    duplicates = torch.ones(2, 2, dtype=torch.bool)
    costs = loss_of(student, z, t, duplicates)
    alone = loss_of(student, z[:1], t[:1])
    same(costs, alone, "two equal pairs, marked, cost what one of them costs", atol=1e-3)


def test_own_loss_of_other_batches(student):
    """Batches of 1, 3 and 40; better pairs cost less"""
    for n in (1, 3, 40):
        near, far = (loss_of(student, *pairs(seed=23, n=n, noise=noise)) for noise in (0.1, 3.0))
        holds(near < far if n > 1 else near <= far, f"with {n} pairs, {near} against {far}")


def test_own_head_of_other_sizes(student):
    """Widths 192 and 64, a single image, and a gradient for its input"""
    head = student.own.own_head(192, 64)
    found = apply(student, head, normal(1, 192, seed=25))
    holds(getattr(found, "shape", None) == (1, 64), f"the shape is {getattr(found, 'shape', None)}")
    holds(bool(found.isfinite().all()), "not finite")
    holds(getattr(found, "wants_gradient", False), "nothing in the head is trained")


def test_own_row_makes_a_model(student):
    """The row in the table of methods: the scale, and what is trained"""
    row = student.own.own_row()
    holds(1 <= row["scale"] <= 100, f"the scale starts at {row['scale']}")
    holds({"visual", "image_head"} <= set(row["trains"]), f"it trains {row['trains']}")
    _, found = gradients(student.own.own_loss, *pairs(seed=27), torch.tensor(20.0), None)
    holds(bool(found[0].isfinite().all()), "the gradient is not finite")
