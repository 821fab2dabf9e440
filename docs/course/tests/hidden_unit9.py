"""Unit 9, your own row: the tests that only the grader has."""

import torch

from ..student import apply, gradients, holds
from .numbers import normal
from .test_unit9 import loss_of, pairs


def test_own_loss_of_other_batches(student):
    """Batches of 1, 3 and 40; better pairs cost less"""
    for n in (1, 3, 40):
        near, far = (loss_of(student, *pairs(seed=23, n=n, noise=noise)) for noise in (0.1, 3.0))
        why = (
            f"a batch of {n}: pairs that are near each other cost {near:.4f}, pairs that are not "
            f"{far:.4f}; near pairs should cost less"
        )
        holds(near < far if n > 1 else near <= far, why)


def test_own_head_of_other_sizes(student):
    """Widths 192 and 64, a single image, and a gradient for its input"""
    head = student.own.own_head(192, 64)
    found = apply(student, head, normal(1, 192, seed=25))
    shape = getattr(found, "shape", None)
    holds(shape == (1, 64), f"own_head(192, 64) makes {shape} of (1, 192), and should make (1, 64)")
    holds(bool(found.isfinite().all()), "the feature of a single image is not finite")
    why = "the head's output wants no gradient: nothing in the head is trained"
    holds(getattr(found, "wants_gradient", False), why)


def test_own_row_makes_a_model(student):
    """The row in the table of methods: the scale, and what is trained"""
    row = student.own.own_row()
    why = f"the scale starts at {row['scale']}, and limit_scale keeps it in [1, 100]"
    holds(1 <= row["scale"] <= 100, why)
    why = f"trains is {row['trains']}: it should name `visual` and `image_head`"
    holds({"visual", "image_head"} <= set(row["trains"]), why)
    _, found = gradients(student.own.own_loss, *pairs(seed=27), torch.tensor(20.0), None)
    holds(bool(found[0].isfinite().all()), "the gradient with respect to the images is not finite")
