"""Unit 7, little data: the tests that only the grader has."""

import torch
from torch import nn

import lift

from ..student import apply, same, state
from .models import filled
from .numbers import normal
from .test_unit7 import alone, parameters_of


def test_token_mean_of_many(student):
    """Captions of 0 to 7 tokens, in bfloat16, through an MLP; a zero in a token is no padding"""
    net = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 4))
    head, tokens = lift.TokenMean(filled(net, seed=21)), normal(8, 7, 6, seed=22).bfloat16()
    for i in range(8):
        tokens[i, i:] = 0
    tokens[5, 1, :5] = 0
    found = student.lift.TokenMean.forward(head, tokens)
    why = (
        "captions of 0 to 7 tokens in bfloat16: a token is padding only if all its numbers are 0, "
        "and the network gets float32"
    )
    same(found, head(tokens).detach(), why)


def test_ape_with_the_same_weights(student):
    """With its weights, the reference's head gives the same features"""
    head, tokens = student.lift.ape(8, 5), normal(3, 6, 8, seed=23)
    tokens[1, 2:] = 0
    ours = lift.ape(8, 5)
    tensors = list(state(student, head)["tensors"].values())
    for parameter, tensor in zip(ours.parameters(), tensors, strict=True):
        parameter.data = tensor
    why = (
        "with the same weights APE's head should give this: `deep_mlp` on each token, then the mean"
    )
    same(apply(student, head, tokens), ours(tokens).detach(), why)


def test_ape_transformer_with_the_same_weights(student):
    """It has the sizes of the docstring, and with its weights the reference gives the same"""
    head, tokens = student.lift.ape_transformer(24, 6), normal(3, 5, 24, seed=24)
    tokens[1, 3:] = 0
    ours = lift.ape_transformer(24, 6)
    wanted = sum(parameter.numel() for parameter in ours.parameters())
    why = "parameters of a head from 24 to 6: two layers, one block of half the width, one norm"
    same(parameters_of(student, head), wanted, why)
    tensors = list(state(student, head)["tensors"].values())
    for parameter, tensor in zip(ours.parameters(), tensors, strict=True):
        parameter.data = tensor
    found = apply(student, head, tokens)
    why = (
        "with the same weights: linear, causal block with gcd(half, 8) heads, LayerNorm, linear, "
        "and then the mean of the real tokens"
    )
    same(found, ours(tokens).detach(), why)


def test_token_mean_ignores_padding(student):
    """Captions of different lengths"""
    head, tokens = student.lift.ape_lookup(8, 5), normal(2, 6, 8, seed=25)
    tokens[1, 2:] = 0
    found = apply(student, head, tokens)
    why = "a caption of two tokens and four places of padding: the mean of the two mapped tokens"
    same(found[1:], alone(student, head, tokens[1:, :2]).mean(0, keepdim=True), why)


def test_fit_of_large_numbers(student):
    """Numbers near 3,000 that differ by 0.5: sums in float64"""
    tokens = 3000 + 0.5 * normal(300, 20, 4, seed=26)
    mean, deviation = student.lift.LLMTokens.fit(tokens)
    exact = tokens.double().flatten(0, 1)
    why = "of numbers near 3,000 that vary by 0.5: sum in float64, or mean^2 swallows the variance"
    same(mean, exact.mean(0), f"the mean {why}", atol=1e-2)
    same(deviation, exact.std(0, correction=0), f"the deviation {why}", atol=5e-3)


def test_fit_of_more_than_a_thousand(student):
    """12,000 captions: all of them count, each token alike"""
    # They are more than `chunks` gives at a time.
    tokens = normal(12000, 3, 2, seed=27) + torch.linspace(0, 4, 12000)[:, None, None]
    tokens[:800, 1:] = 0
    mean, deviation = student.lift.LLMTokens.fit(tokens)
    real = tokens.double().flatten(0, 1)
    real = real[(real != 0).any(-1)]
    why = (
        "of 12,000 captions, some of one token: all pieces count, and each real token counts alike"
    )
    same(mean, real.mean(0), f"the mean {why}", atol=1e-3)
    same(deviation, real.std(0, correction=0), f"the deviation {why}", atol=1e-3)
