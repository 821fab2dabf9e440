"""Unit 7, little data: tests of TokenMean, APE's head and its controls, and LLMTokens in lift.py.

A test of a head puts this file's TokenMean, and this file's MLP, in place of the student's. So a
mistake there costs no points here.
"""

from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

import lift


def numbers(*shape, seed):
    """Random numbers, the same in every run, float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(one, other, tolerance=1e-4):
    return one.shape == other.shape and bool(((one - other).abs() <= tolerance).all())


def captions(lengths, width, L, seed):
    """Tokens (B, L, width) of captions of these lengths, with zeros behind them."""
    tokens = numbers(len(lengths), L, width, seed=seed)
    return tokens * (torch.arange(L) < torch.tensor(lengths)[:, None])[..., None]


# --------------------------------------------------------------------------------------------------
# 7.1 TokenMean.forward


def mean_by_loops(net, tokens):
    rows = []
    for caption in tokens:
        real = [net(token) for token in caption if token.abs().max() > 0]
        rows.append(torch.stack(real).mean(0) if real else 0 * net(caption[0]))
    return torch.stack(rows)


def test_token_mean_by_hand():
    tokens = torch.tensor([[[1.0], [3.0], [0.0]], [[2.0], [4.0], [9.0]]])
    mean = lift.TokenMean(nn.Identity())(tokens)
    assert mean.shape == (2, 1), f"one vector per caption: (2, 1), but yours is {tuple(mean.shape)}"
    assert same(mean, torch.tensor([[2.0], [5.0]])), (
        f"the means are 2 and 5, but yours are {mean[:, 0].tolist()}: zeros are padding, which "
        "counts neither in the sum nor in the number of tokens"
    )
    net = nn.Linear(1, 1)
    nn.init.ones_(net.weight)
    nn.init.constant_(net.bias, 100.0)
    mean = lift.TokenMean(net)(tokens)
    assert same(mean, torch.tensor([[102.0], [105.0]])), (
        f"with a network that adds 100, the means are 102 and 105, but yours are "
        f"{mean[:, 0].tolist()}: the network makes 100 of padding, and that must not be summed"
    )


def test_more_padding_changes_nothing():
    net, tokens = nn.Linear(4, 3), captions([2, 5, 3], 4, 5, seed=1)
    wider = F.pad(tokens, (0, 0, 0, 7))
    assert same(lift.TokenMean(net)(wider), lift.TokenMean(net)(tokens)), (
        "seven more places of padding change the result: divide by the number of real tokens"
    )


def test_a_network_on_tokens_is_not_one_on_their_mean():
    tokens = torch.tensor([[[1.0], [-1.0]], [[0.5], [-0.5]]])
    mean = lift.TokenMean(nn.ReLU())(tokens)
    assert not same(mean, torch.zeros(2, 1)), (
        "the network was given the mean of the tokens: it must be given each token, and the mean "
        "comes after it"
    )
    assert same(mean, torch.tensor([[0.5], [0.25]])), (
        "the mean of what the network makes is .5, .25"
    )


def test_a_caption_without_tokens_becomes_zeros():
    tokens = captions([0, 3], 4, 5, seed=2)
    mean = lift.TokenMean(nn.Linear(4, 3))(tokens)
    assert bool(mean.isfinite().all()), "a caption without any real token gives NaN: 0 / 0"
    assert same(mean[0], torch.zeros(3)), "a caption without any real token becomes zeros"


def test_a_token_may_hold_zeros():
    tokens = torch.tensor([[[0.0, 5.0], [1.0, -1.0], [0.0, 0.0]]])
    mean = lift.TokenMean(nn.Identity())(tokens)
    assert same(mean, torch.tensor([[0.5, 2.0]])), (
        f"the mean of (0, 5) and (1, -1) is (0.5, 2), but yours is {mean[0].tolist()}: a token is "
        "padding if ALL its numbers are zero, not if one is, nor if they add up to zero"
    )


def test_token_mean_of_half_precision():
    net, tokens = nn.Linear(4, 3), captions([2, 5], 4, 5, seed=3).half()
    mean = lift.TokenMean(net)(tokens)
    assert mean.dtype == torch.float32 and same(mean, mean_by_loops(net, tokens.float())), (
        "the cache keeps tokens in float16: make them float32 before the network reads them"
    )


def test_the_network_sees_the_whole_caption():
    shapes = []

    class Net(nn.Module):
        def forward(self, x):
            shapes.append(tuple(x.shape))
            return x.cumsum(1)  # a token learns of those before it

    tokens = captions([3, 2], 4, 5, seed=4)
    mean = lift.TokenMean(Net())(tokens)
    expected = torch.stack([tokens[i, :n].cumsum(0).mean(0) for i, n in enumerate((3, 2))])
    assert shapes == [(2, 5, 4)], (
        f"the network must be given all tokens of the captions at once, (B, L, d_in), not {shapes}"
    )
    assert same(mean, expected), "a network whose tokens look at each other gives a wrong mean"


# --------------------------------------------------------------------------------------------------
# 7.2 deep_mlp


def linears(net):
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear)]


def mlp_by_hand(layers, x):
    for layer in layers[:-1]:
        x = F.gelu(x @ layer.weight.T + layer.bias)
    return x @ layers[-1].weight.T + layers[-1].bias


def test_deep_mlp_has_four_layers():
    sizes = [(layer.in_features, layer.out_features) for layer in linears(lift.deep_mlp(6, 4))]
    assert sizes == [(6, 6), (6, 6), (6, 6), (6, 4)], (
        f"there are four linear layers, of the language model's width up to the last one, which "
        f"gives d_out: (6, 6) three times, then (6, 4); yours are {sizes}"
    )


def test_deep_mlp_by_hand():
    net, x = lift.deep_mlp(6, 4), 3 * numbers(5, 6, seed=10)
    assert same(net(x), mlp_by_hand(linears(net), x)), (
        "between two linear layers stands a GELU, and none behind the last one"
    )


def test_deep_mlp_of_other_widths():
    for d_in, d_out in ((1, 1), (3, 8), (16, 2)):
        net, x = lift.deep_mlp(d_in, d_out), 3 * numbers(2, 4, d_in, seed=d_in)
        y = net(x)
        assert y.shape == (2, 4, d_out), f"(2, 4, {d_in}) must become (2, 4, {d_out})"
        assert len(linears(net)) == 4 and same(y, mlp_by_hand(linears(net), x)), (
            f"the network of widths {d_in} and {d_out} is wrong: four linear layers, three GELUs"
        )


# --------------------------------------------------------------------------------------------------
# Stand-ins for the heads' tests.


class TokenMean(nn.Module):
    """What the student's TokenMean should be."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, tokens):
        is_real = (tokens.abs().sum(-1) > 0).float()[..., None]
        return (self.net(tokens) * is_real).sum(1) / is_real.sum(1).clamp_min(1)


def stand_in_mlp(d_in, d_out):
    return nn.Sequential(nn.Linear(d_in, d_out), nn.Tanh())


def head(make, d_in, d_out):
    with mock.patch.multiple(lift, TokenMean=TokenMean, deep_mlp=stand_in_mlp):
        return make(d_in, d_out)


# --------------------------------------------------------------------------------------------------
# 7.3 ape


def test_apes_head_reads_each_token():
    net, tokens = head(lift.ape, 6, 4), captions([2, 5], 6, 5, seed=20)
    layers = linears(net)
    assert len(layers) == 1 and any(isinstance(part, nn.Tanh) for part in net.modules()), (
        "APE's head is what deep_mlp gives, inside TokenMean"
    )
    y = net(tokens)
    assert y.shape == (2, 4), f"one vector per caption: (2, 4), but yours is {tuple(y.shape)}"
    expected = mean_by_loops(lambda token: layers[0](token).tanh(), tokens)
    assert same(y, expected), "the network is applied to each token, and then the mean is taken"


def test_apes_head_takes_both_widths():
    for d_in, d_out in ((3, 9), (8, 2)):
        (layer,) = linears(head(lift.ape, d_in, d_out))
        assert (layer.in_features, layer.out_features) == (d_in, d_out), (
            "deep_mlp takes the width of a token first, then the shared dimension"
        )


# --------------------------------------------------------------------------------------------------
# 7.4 ape_transformer


def weights_of(net):
    return sum(p.numel() for p in net.parameters() if p.ndim == 2)


def inner(d_in, d_out):
    """What ape_transformer puts into TokenMean."""
    net = head(lift.ape_transformer, d_in, d_out)
    assert isinstance(net, TokenMean), "the head is a TokenMean around the network"
    torch.manual_seed(0)
    for parameter in net.parameters():
        parameter.data = torch.randn_like(parameter) / 3
    return net.net


def test_first_control_is_causal():
    net, x = inner(16, 4), numbers(2, 5, 16, seed=30)
    changed = x.clone()
    changed[:, 3] += 1
    before, after = net(x), net(changed)
    assert before.shape == (2, 5, 4), f"(2, 5, 16) must become (2, 5, 4), not {tuple(before.shape)}"
    assert same(before[:, :3], after[:, :3]), (
        "token 3 was changed, and the output of an earlier token with it: tokens look at those "
        "before them only (this also keeps padding out)"
    )


def test_first_control_has_as_many_weights_as_three_layers():
    d_in, d_out = 64, 16
    found = weights_of(head(lift.ape_transformer, d_in, d_out))
    expected = 3 * d_in * d_in + d_in * d_in // 2 + d_in // 2 * d_out
    assert 0.9 * expected < found < 1.1 * expected, (
        f"the control has {found} weights in matrices, not about {expected}: one block of half the "
        "width, a layer that leads to this width, and one that leads from it to d_out"
    )


def test_first_control_of_other_widths():
    for d_in, d_out in ((6, 3), (24, 5), (48, 48)):
        y = inner(d_in, d_out)(numbers(1, 4, d_in, seed=d_in))
        assert y.shape == (1, 4, d_out) and bool(y.isfinite().all()), (
            f"with the widths {d_in} and {d_out} the output is wrong: the number of heads must "
            "divide half the width"
        )
    blocks = [part for part in inner(24, 5).modules() if isinstance(part, lift.Block)]
    assert len(blocks) == 1 and blocks[0].width == 12, "there is one block, of half the width"


def test_first_control_looks_at_the_tokens_before():
    net, x = inner(16, 4), numbers(2, 5, 16, seed=31)
    changed = x.clone()
    changed[:, 1] += 1
    assert not same(net(x)[:, 4], net(changed)[:, 4], 1e-5), (
        "token 1 was changed, and token 4 does not notice: this control asks what looking at other "
        "tokens brings"
    )


# --------------------------------------------------------------------------------------------------
# 7.5 token_mean


def test_second_control_is_linear():
    net, tokens = head(lift.token_mean, 6, 4), captions([2, 5], 6, 5, seed=40)
    y = net(tokens)
    assert y.shape == (2, 4), f"one vector per caption: (2, 4), but yours is {tuple(y.shape)}"
    means = torch.stack([tokens[0, :2].mean(0), tokens[1].mean(0)])
    assert same(y, means @ linears(net)[0].weight.T), (
        "the second control is the mean of linearly mapped tokens: one matrix, nothing else"
    )


def test_second_control_has_one_matrix():
    net = head(lift.token_mean, 6, 4)
    assert [tuple(p.shape) for p in net.parameters()] == [(4, 6)], (
        "the only parameter is the matrix (d_out, d_in): no bias, no second layer"
    )


# --------------------------------------------------------------------------------------------------
# 7.6 LLMTokens.forward


def test_tokens_are_centred_and_scaled():
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([2.0, 10.0])
    y = lift.LLMTokens(lift.Sizes(), mean, std)(torch.tensor([[[3.0, 8.0], [1.0, -2.0]]]))
    assert same(y, torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])), (
        f"(3, 8) with the mean (1, -2) and the deviations (2, 10) becomes (1, 1), but yours is "
        f"{y[0, 0].tolist()}: subtract the mean, then divide by the standard deviation"
    )


def test_padding_stays_zero():
    tower = lift.LLMTokens(lift.Sizes(), torch.full((4,), 5.0), torch.full((4,), 2.0))
    tokens = captions([2, 4, 0], 4, 6, seed=50)
    y = tower(tokens)
    assert y.shape == tokens.shape, "the shape must stay (B, L, width)"
    is_padding = (tokens == 0).all(-1)
    assert bool((y[is_padding] == 0).all()), (
        "padding must stay zero: centred, it would become minus the mean, and TokenMean would take "
        "it for a token"
    )
    assert same(y[~is_padding], (tokens[~is_padding] - 5) / 2), "real tokens are centred and scaled"


def test_tokens_of_half_precision():
    mean, std = 80 + numbers(4, seed=51), torch.full((4,), 0.1)
    tokens = (80 + captions([3, 3], 4, 3, seed=52)).half()
    y = lift.LLMTokens(lift.Sizes(), mean, std)(tokens)
    assert y.dtype == torch.float32 and same(y, (tokens.float() - mean) / std, 1e-2), (
        "the cache keeps tokens in float16: make them float32 first"
    )
    tokens = torch.tensor([[[0.0, 3.0, 0.0, 0.0]]])
    assert same(lift.LLMTokens(lift.Sizes(), mean, std)(tokens), (tokens - mean) / std, 1e-2), (
        "a token with some zeros is no padding"
    )


# --------------------------------------------------------------------------------------------------
# 7.7 LLMTokens.fit


def test_statistics_by_hand():
    tokens = torch.tensor(
        [[[1.0, 10.0], [3.0, 10.5], [0.0, 0.0]], [[5.0, 9.5], [0.0, 0.0], [0, 0]]]
    )
    mean, std = lift.LLMTokens.fit(tokens, 0)
    assert same(mean, torch.tensor([3.0, 10.0])), (
        f"the mean of the three real tokens is (3, 10), but yours is {mean.tolist()}: padding does "
        "not count, and every token counts the same"
    )
    expected = torch.tensor([8 / 3, 1 / 6]).sqrt()
    assert same(std, expected, 1e-3), (
        f"the standard deviations are {expected.tolist()}, but yours are {std.tolist()}: the root "
        "of the mean square distance from the mean, for each dimension"
    )
    assert mean.dtype == std.dtype == torch.float32, "mean and deviation are float32"


def test_statistics_do_not_count_padding():
    tokens = 5 + numbers(20, 6, 4, seed=60)
    tokens = tokens * (torch.arange(6) < 1 + torch.arange(20)[:, None] % 6)[..., None]
    real = tokens.flatten(0, 1)
    real = real[(real != 0).any(-1)]
    for wider in (tokens, F.pad(tokens, (0, 0, 0, 9))):
        mean, std = lift.LLMTokens.fit(wider, 0)
        assert same(mean, real.mean(0), 1e-3) and same(std, real.std(0, correction=0), 1e-3), (
            "the statistics are those of the real tokens of all captions: padding does not count"
        )


class Stored:
    """Tokens in a file: they have a length and slices, and nothing else."""

    def __init__(self, tokens):
        self.tokens = tokens

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, rows):
        assert isinstance(rows, slice), "read tokens in slices: they may be a file"
        return self.tokens[rows]


def test_statistics_of_many_captions():
    tokens = numbers(2500, 3, 4, seed=61) * torch.tensor([1.0, 10, 0.1, 3]) + 2
    tokens = (tokens + torch.linspace(0, 4, 2500)[:, None, None]).half()
    mean, std = lift.LLMTokens.fit(Stored(tokens), 0)
    real = tokens.double().flatten(0, 1)
    assert same(mean, real.mean(0).float(), 1e-2) and same(std, real.std(0).float(), 1e-2), (
        "the statistics of 2,500 captions in float16 are wrong: add up all chunks, in float64"
    )


def test_statistics_of_a_constant_dimension():
    tokens = numbers(50, 4, 3, seed=62)
    tokens[..., 1], tokens[..., 2] = 70.1, 0.0
    mean, std = lift.LLMTokens.fit(tokens, 0)
    assert bool(std.isfinite().all()) and bool((std > 0).all()), (
        f"a dimension that never changes has the deviation {std[1:].tolist()}: rounding can make its "
        "variance negative, and dividing by 0 gives no number; set a least variance"
    )
    assert float(std[1]) < 1e-2, "the deviation of a constant is small"
