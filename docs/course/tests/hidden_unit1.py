"""Unit 1, contrast: the tests that only the grader has."""

import math

import torch

from ..student import after, gradients, holds, same
from .numbers import unit


def exact(z: torch.Tensor, t: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """InfoNCE in float64, written in another way."""
    logits = scale.double() * z.double() @ t.double().T
    right = logits.diagonal()
    return ((logits.logsumexp(1) + logits.logsumexp(0)) / 2 - right).mean()


def test_info_nce_of_a_larger_batch(student):
    """A batch of 64, at the scale at which training starts"""
    z, t = unit(64, 32, seed=21), unit(64, 32, seed=22)
    scale = torch.tensor(1 / 0.07)
    found, grads = gradients(student.lift.info_nce, z, t, scale)
    inputs = [one.double().requires_grad_() for one in (z, t, scale)]
    wanted = exact(*inputs)
    wanted.backward()
    same(found, wanted.detach(), "64 random pairs at scale 14.3: mean of rows and columns", 1e-3)
    for name, one, ours in zip(("images", "captions", "scale"), grads, inputs, strict=True):
        holds(one is not None, f"there is no gradient with respect to the {name}")
        same(one, ours.grad, f"the gradient with respect to the {name}", atol=1e-3)


def test_info_nce_keeps_duplicates_out_of_both_softmaxes(student):
    """A duplicate that is as near as the right one changes nothing in either direction"""
    z, t = unit(5, 16, seed=23), unit(5, 16, seed=24)
    t[3], z[3] = t[1], z[1]
    duplicates = torch.eye(5, dtype=torch.bool)
    duplicates[1, 3] = duplicates[3, 1] = True
    with_them = student.lift.info_nce(z, t, torch.tensor(8.0), duplicates)
    # Pair 3 costs what pair 1 costs, and stands in the denominators of the other three as well.
    logits = 8 * z.double() @ t.double().T
    masked = logits.masked_fill(duplicates & ~torch.eye(5, dtype=torch.bool), -math.inf)
    wanted = ((masked.logsumexp(1) + masked.logsumexp(0)) / 2 - logits.diagonal()).mean()
    same(
        with_them,
        wanted,
        "pairs 1 and 3 are equal, and marked. In the rows 1 and 3 and in the columns 1 and 3 the "
        "cells (1, 3) and (3, 1) must be left out of the softmax, and no others",
    )


def test_cosine_loss_of_a_larger_batch(student):
    """A batch of 64: the loss, its gradient, and its independence of the scale"""
    z, t = unit(64, 32, seed=27), unit(64, 32, seed=28)
    found, (gradient, *_) = gradients(student.lift.cosine_loss, z, t, torch.tensor(9.0))
    wanted = 1 - (z.double() * t.double()).sum(1).mean()
    same(found, wanted, "64 pairs: 1 minus the mean cosine. The scale that is given has no effect")
    why = (
        "the gradient of an image is minus its caption over B. The features have length 1 already: "
        "do not divide by their lengths again"
    )
    same(gradient, -t / 64, why, atol=1e-5)


def test_limit_scale_in_place(student):
    """It changes the tensor that it is given, far outside the limits, and gives nothing back"""
    for value, wanted in ((-50.0, 0.0), (50.0, math.log(100))):
        result, (found,) = after(student.lift.limit_scale, torch.nn.Parameter(torch.tensor(value)))
        same(found, wanted, f"the logarithm {value} should become {wanted:.4f}", atol=1e-5)
        why = "the scale wants no gradient any more: change its value, and leave it a parameter"
        holds(getattr(found, "wants_gradient", False), why)
    holds(result is None, "the function changes its argument and gives nothing back")
