"""Unit 7, little data: the tests that students have."""

import torch
from torch import nn

import lift
from data.vectors import StoredRows
from vit import Block

from ..student import Student, apply, differ, holds, same, state
from .models import filled
from .numbers import normal

# ---- TokenMean


def test_token_mean_by_hand(student):
    """The network doubles each token; the mean is over real tokens only; tokens in float16"""
    net = nn.Linear(2, 2, bias=False)
    net.weight.data = 2 * torch.eye(2)
    tokens = torch.tensor([[[1.0, -1.0], [0.0, 2.0], [0.0, 0.0]]]).half()
    found = student.lift.TokenMean.forward(lift.TokenMean(net), tokens)
    why = (
        "tokens (1 -1), (0 2) and padding (0 0), and the network doubles: the mean of (2 -2) and "
        "(0 4). A token is padding only if all its numbers are 0"
    )
    same(found, torch.tensor([[1.0, 1.0]]), why)


def test_padding_leaves_no_trace(student):
    """More padding changes nothing, although the network has a bias"""
    head, tokens = lift.TokenMean(filled(nn.Linear(4, 3), seed=1)), normal(2, 5, 4, seed=2)
    tokens[1, 3:] = 0
    longer = torch.cat([tokens, torch.zeros(2, 6, 4)], dim=1)
    one, two = (student.lift.TokenMean.forward(head, each) for each in (tokens, longer))
    why = (
        "six places of padding were added, and the result changed. The network turns zeros into "
        "its bias, so what it makes of padding must not be added, and only real tokens are counted"
    )
    same(two, one, why)


def test_the_network_comes_before_the_mean(student):
    """An MLP on tokens is not an MLP on their mean"""
    net = nn.Sequential(filled(nn.Linear(3, 3), seed=3, size=2.0), nn.GELU())
    tokens = torch.stack([normal(3, seed=4), -normal(3, seed=4)])[None]  # their mean is zero
    found = student.lift.TokenMean.forward(lift.TokenMean(net), tokens)
    why = (
        "the mean of f(h) is wanted, not f of the mean: each token goes through the network by "
        "itself"
    )
    same(found, net(tokens).mean(1).detach(), why)


@torch.no_grad()
def test_the_network_gets_all_places(student):
    """A network that looks back sees every place before, padding as well"""
    head, tokens = (
        lift.TokenMean(filled(Block(8, 2, causal=True), seed=11)),
        normal(2, 5, 8, seed=12),
    )
    tokens[:, 0], tokens[1, 3:] = 0, 0  # the first row of a caption is zeros
    found = student.lift.TokenMean.forward(head, tokens)
    y = head.net(tokens)
    wanted = torch.stack([y[0, 1:].mean(0), y[1, 1:3].mean(0)])
    why = (
        "the network is a causal block, and the first row is zeros. It gets all places at once, "
        "(B, L, d_in), in their order, and padding is left out of the mean only"
    )
    same(found, wanted, why, atol=5e-4)


def test_a_caption_of_unknown_words(student):
    """A caption without a real token becomes zeros, and not NaN"""
    head = lift.TokenMean(filled(nn.Linear(4, 3), seed=5))
    found = student.lift.TokenMean.forward(head, torch.zeros(1, 4, 4))
    why = "a caption without a real token should become zeros: divide by 1 where there are none"
    same(found, torch.zeros(1, 3), why)


# ---- heads


def parameters_of(student: Student, head: object) -> int:
    tensors = state(student, head)["tensors"]
    return sum(tensor.numel() for tensor in tensors.values())


def alone(student: Student, head: object, tokens: torch.Tensor) -> torch.Tensor:
    """What a head makes of each token of one caption, as a caption of its own."""
    return apply(student, head, tokens[0][:, None, :])


def test_ape_reads_each_token_by_itself(student):
    """APE's head: the feature of a caption is the mean of those of its tokens"""
    head, tokens = student.lift.ape(8, 5), normal(1, 4, 8, seed=6)
    found = apply(student, head, tokens)
    why = (
        "the feature of a caption of four tokens should be the mean of the features of the four "
        "tokens alone: no token looks at another one"
    )
    same(found, alone(student, head, tokens).mean(0, keepdim=True), why)


def test_ape_is_an_mlp(student):
    """It is not linear, and has four linear layers"""
    head, tokens = student.lift.ape(8, 5), normal(1, 1, 8, seed=7)
    bend = apply(student, head, tokens) + apply(student, head, -tokens)
    middle = 2 * apply(student, head, 1e-6 * tokens)
    why = "f(x) + f(-x) = 2 f(0), so the head is linear. APE's network is `deep_mlp`"
    differ(bend, middle, why, by=1e-5)
    wanted = 3 * (8 * 8 + 8) + 8 * 5 + 5
    why = "parameters of a head from 8 to 5: three layers 8 x 8 and one 8 x 5, with biases"
    same(parameters_of(student, head), wanted, why)


def test_ape_transformer_looks_back(student):
    """The first control: tokens look at those before them, and never ahead"""
    head, tokens = student.lift.ape_transformer(24, 6), normal(1, 3, 24, seed=8)
    block = Block(12, 4)
    wanted = 24 * 12 + 12 + sum(p.numel() for p in block.parameters()) + 24 + 12 * 6 + 6
    why = (
        "parameters of a head from 24 to 6: a layer 24 x 12, a block of width 12, a LayerNorm, and "
        "a layer 12 x 6, both layers with biases"
    )
    same(parameters_of(student, head), wanted, why)
    other = tokens.clone()
    other[:, 2] += 1
    # The mean of three tokens, and of the first two: what differs is the third one's share.
    sums = [3 * apply(student, head, each) for each in (tokens, other)]
    first_two = 2 * apply(student, head, tokens[:, :2])
    thirds = [each - first_two for each in sums]
    same(tuple(first_two.shape), (1, 6), "one feature of 6 numbers per caption should come back")
    order = torch.tensor([1, 0, 2])
    swapped = 3 * apply(student, head, tokens[:, order])
    why = (
        "exchanging two tokens changes nothing. Either no token sees another one, or each sees all "
        "of them: is there a causal block?"
    )
    differ(swapped, sums[0], why)
    differ(thirds[0], thirds[1], "the last token was changed, and the feature stayed")


def test_token_mean_head_is_linear(student):
    """The second control: one matrix on each token, no bias, then the mean"""
    head, tokens = student.lift.ape_lookup(8, 5), normal(2, 4, 8, seed=9)
    (matrix,) = [t for t in state(student, head)["tensors"].values() if t.ndim == 2] or [None]
    holds(matrix is not None, "the head should have one matrix")
    same(parameters_of(student, head), 40, "parameters of a head from 8 to 5: 8 x 5, and no bias")
    found = apply(student, head, tokens)
    same(found, tokens.mean(1) @ matrix.T, "the feature should be the mean of the mapped tokens")


# ---- LLMTokens.fit


def test_fit_leaves_padding_out(student):
    """Mean and standard deviation of the real tokens"""
    tokens = torch.tensor([[[1.0, -1.0], [3.0, 12.0]], [[0.0, 10.0], [0.0, 0.0]]])
    found = student.lift.LLMTokens.fit(tokens)
    why = "two tensors should come back: mean and standard deviation"
    holds(isinstance(found, list) and len(found) == 2, why)
    kinds = [getattr(one, "sent_as", "no tensor") for one in found]
    holds(kinds == ["float32"] * 2, f"mean and deviation should be float32, and are {kinds}")
    why = "the mean of the real tokens (1 -1), (3 12), (0 10); the fourth, (0 0), is padding"
    same(found[0], torch.tensor([4 / 3, 7.0]), why)
    wanted = torch.tensor([(14 / 9) ** 0.5, (98 / 3) ** 0.5])
    why = "the deviation is the ROOT of the variance, E[h^2] - E[h]^2, over the real tokens"
    same(found[1], wanted, why)


def test_fit_of_a_constant_dimension(student):
    """A dimension that never varies must not be divided by zero; one that hardly varies stays"""
    tokens = normal(5, 4, 3, seed=10)
    tokens[..., 1] = 2.0
    tokens[..., 2] *= 0.01
    _, deviation = student.lift.LLMTokens.fit(tokens)
    why = "a dimension varies by about 0.01 only, and its deviation should be just that"
    same(deviation[2], tokens[..., 2].std(correction=0), why, atol=1e-3)
    why = f"a dimension that never varies has the deviation {float(deviation[1])}: give it 1e-6"
    holds(5e-7 < deviation[1] < 2e-6, why)


def test_fit_of_slices_in_half_precision(student):
    """Captions of a cache: slices in float16, each as long as its longest caption"""
    tokens = (300 + 2 * normal(1100, 3, 2, seed=13)).half()
    tokens[1000:, 1:] = 0  # the captions from 1,000 on have one token
    cache = StoredRows(tokens, torch.arange(1100), has_padding=True)
    mean, deviation = student.lift.LLMTokens.fit(cache)
    real = torch.cat([tokens[:1000].flatten(0, 1), tokens[1000:, 0]]).double()
    why = (
        "of 1,100 captions in float16, near 300. Only len(inputs) and inputs[a:b] work, and a "
        "slice is as long as its longest caption. The squares are too large for float16"
    )
    same(mean, real.mean(0), f"the mean {why}", atol=1e-2)
    same(deviation, real.std(0, correction=0), f"the deviation {why}", atol=5e-3)
