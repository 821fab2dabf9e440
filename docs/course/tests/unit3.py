"""Unit 3, the frozen language model: tests of rotate, RMSNorm, Attention, two poolings and whitening
in llm_text.py.

A test of Attention puts a rotation of its own in place of `rotate`, and a norm of torch in place of
RMSNorm. So a mistake there costs no points here.
"""

import math
from unittest import mock

import torch
from torch import nn

import llm_text
from data.common import BadInput
from data.files.llm import LlamaConfig


def numbers(*shape, seed, dtype=torch.float64):
    """Random numbers, the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def same(one, other, tolerance=1e-4):
    return one.shape == other.shape and bool(
        ((one.double() - other.double()).abs() <= tolerance).all()
    )


def angles(L, d, theta=100.0):
    """cos and sin of the angles m theta^(-2i / d), (L, d) each, float64."""
    frequency = theta ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    a = torch.outer(torch.arange(L, dtype=torch.float64), frequency).repeat(1, 2)
    return a.cos(), a.sin()


def turned(x, cos, sin):
    """What `rotate` should give, with one line for each half."""
    h = x.shape[-1] // 2
    first = x[..., :h] * cos[..., :h] - x[..., h:] * sin[..., :h]
    second = x[..., h:] * cos[..., h:] + x[..., :h] * sin[..., h:]
    return torch.cat([first, second], -1)


# --------------------------------------------------------------------------------------------------
# 3.1 rotate


def test_rotate_by_hand():
    # One pair, turned by a right angle at position 1: (3, 4) becomes (-4, 3).
    x = torch.tensor([[[[3.0, 4.0], [3.0, 4.0]]]], dtype=torch.float64)  # (1, 1, 2, 2)
    cos = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    y = llm_text.rotate(x, cos, 1 - cos)
    assert y.shape == x.shape, (
        f"the shape must stay {tuple(x.shape)}, but yours is {tuple(y.shape)}"
    )
    assert not same(y[0, 0, 1], torch.tensor([4.0, -3.0])), (
        "(3, 4) is turned in the wrong direction: a right angle makes (-4, 3) of it; check the signs"
    )
    assert same(y[0, 0, 1], torch.tensor([-4.0, 3.0])), (
        f"a right angle makes (-4, 3) of (3, 4), but yours gives {y[0, 0, 1].tolist()}: check which "
        "half is multiplied by cos, and which by sin"
    )


def test_scores_depend_on_the_distance_only():
    cos, sin = angles(9, 8)
    q = numbers(8, seed=1).expand(1, 1, 9, 8)  # the same query at every position
    k = numbers(8, seed=2).expand(1, 1, 9, 8)
    scores = (llm_text.rotate(q, cos, sin) @ llm_text.rotate(k, cos, sin).mT)[0, 0]  # (9, 9)
    for distance in range(-8, 9):
        diagonal = scores.diagonal(distance)
        assert same(diagonal, diagonal[:1].expand_as(diagonal)), (
            "the product of a query at m and a key at n changes when both move on together: each "
            "pair (x_i, x_{i + d/2}) must be turned by its own angle, as a whole"
        )
    assert not same(scores[0, :2], scores[0, :1].expand(2), 1e-3), (
        "the product of a query and a key does not change with their distance: nothing is rotated"
    )


def test_position_0_is_not_turned():
    cos, sin = angles(3, 8)
    x = numbers(2, 3, 3, 8, seed=3)
    y = llm_text.rotate(x, cos, sin)
    assert same(y[:, :, 0], x[:, :, 0]), (
        "at position 0 all angles are 0, so nothing may change: cos and sin may be exchanged"
    )
    assert not same(y[:, :, 1], x[:, :, 1], 1e-3), "the token at position 1 is not turned at all"


def test_rotate_turns_each_pair_by_its_own_angle():
    for d, theta in ((4, 10.0), (8, 100.0), (64, 1e4)):
        cos, sin = angles(5, d, theta)
        x = numbers(2, 3, 5, d, seed=d)
        assert same(llm_text.rotate(x, cos, sin), turned(x, cos, sin)), (
            f"with the width {d}, element i belongs to element i + {d // 2}: split each head into "
            "its first and second half, not into even and odd elements, and check the signs"
        )


def test_rotate_keeps_lengths():
    cos, sin = angles(7, 6)
    x = numbers(1, 2, 7, 6, seed=4)
    y = llm_text.rotate(x, cos, sin)
    assert same(y.norm(dim=-1), x.norm(dim=-1)), "a rotation changes no length, but yours does"
    assert same(llm_text.rotate(y, cos, -sin), x), (
        "turned forth and back by the same angle, a vector must be what it was"
    )


# --------------------------------------------------------------------------------------------------
# 3.2 RMSNorm.forward


def test_rms_norm_by_hand():
    norm = llm_text.RMSNorm(2, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 10.0]))
    y = norm(torch.tensor([[3.0, 4.0]]))
    root = math.sqrt((9 + 16) / 2)
    assert same(y, torch.tensor([[3 / root, 40 / root]]), 1e-4), (
        f"(3, 4) with the weights (1, 10) becomes ({3 / root:.3f}, {40 / root:.3f}), but yours is "
        f"{y[0].tolist()}: divide by the root of the mean of the squares, then multiply by weight"
    )


def test_rms_norm_forgets_the_length():
    norm = llm_text.RMSNorm(16, eps=1e-12)
    x = numbers(3, 16, seed=5, dtype=torch.float32)
    y = norm(x)
    assert same(norm(5 * x), y, 1e-4), "five times the input must give the same output"
    assert same(y.pow(2).mean(-1), torch.ones(3), 1e-4), (
        "the mean of the squares of each output must be 1: the root of the MEAN of the squares is "
        "what divides, not that of their sum"
    )


def test_rms_norm_keeps_the_mean():
    norm = llm_text.RMSNorm(8, eps=1e-6)
    y = norm(torch.full((1, 8), 7.0))
    assert same(y, torch.ones(1, 8), 1e-4), (
        "equal numbers become ones: the mean is not subtracted, unlike in a LayerNorm"
    )


def test_rms_norm_of_each_token_alone():
    norm = llm_text.RMSNorm(8, eps=1e-6)
    x = numbers(2, 5, 8, seed=6, dtype=torch.float32) * torch.tensor([1.0, 10, 100, 3, 7])[:, None]
    expected = torch.cat([norm(x[:, i : i + 1]) for i in range(5)], 1)
    assert same(norm(x), expected, 1e-4), (
        "the output of a token changes with the tokens beside it: take the mean over the last "
        "dimension only"
    )


def test_rms_norm_divides_in_float32():
    norm = llm_text.RMSNorm(64, eps=1e-6).bfloat16()
    x = (1000 * numbers(4, 64, seed=7)).bfloat16()
    y = norm(x)
    assert y.dtype == torch.bfloat16, f"bfloat16 goes in, so bfloat16 comes out, not {y.dtype}"
    exact = x.double() / x.double().pow(2).mean(-1, keepdim=True).sqrt()
    error = (y.double() - exact).abs() / exact.abs()  # one rounding to bfloat16 is 1 / 256 at most
    assert error.max() < 0.0045, "divide in float32, and round to the input's type at the end only"


def test_rms_norm_of_zeros():
    y = llm_text.RMSNorm(4, eps=1e-2)(torch.zeros(2, 4))
    assert same(y, torch.zeros(2, 4)), "zeros must stay zeros: add eps before the root is taken"
    y = llm_text.RMSNorm(4, eps=3.0)(torch.ones(1, 4))
    assert same(y, torch.full((1, 4), 0.5), 1e-4), (
        "eps belongs under the root: with eps = 3, ones become 1 / sqrt(1 + 3)"
    )


# --------------------------------------------------------------------------------------------------
# 3.3 Attention.forward


def attention_of(heads, kv_heads, d=4, width=12, seed=10, qk_norm=False):
    """A random Attention in float64."""
    config = LlamaConfig(
        vocab=9,
        width=width,
        depth=1,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=d,
        mlp_width=8,
        eps=1e-6,
        rope_theta=100.0,
        rope_divisors=1.0,
        qkv_bias=False,
        o_bias=False,
        mlp_bias=False,
        qk_norm=qk_norm,
    )
    attention = llm_text.Attention(config).double()
    for i, parameter in enumerate(attention.parameters()):
        parameter.data = numbers(*parameter.shape, seed=seed + i)
    if qk_norm:
        # torch's own norm: RMSNorm is another task.
        attention.q_norm = nn.RMSNorm(d, 1e-6).double()
        attention.k_norm = nn.RMSNorm(d, 1e-6).double()
        attention.q_norm.weight.data = numbers(d, seed=seed + 20)
        attention.k_norm.weight.data = numbers(d, seed=seed + 21)
    return attention


@torch.no_grad()
def attend(attention, x, cos=None, sin=None, visible=None):
    """The student's forward, with this file's rotation. Without cos and sin nothing is turned."""
    if cos is None:
        cos = torch.ones(x.shape[1], attention.head_dim, dtype=x.dtype)
        sin = torch.zeros_like(cos)
    with mock.patch.object(llm_text, "rotate", turned):
        return attention(x, cos, sin, visible)


@torch.no_grad()
def attention_by_hand(attention, x, cos=None, sin=None, sees=None):
    """The same with one loop for each sum. sees (B, L, L): which token sees which."""
    B, L, _ = x.shape
    H, K, d = attention.heads, attention.kv_heads, attention.head_dim
    sees = torch.ones(L, L).tril().bool().expand(B, L, L) if sees is None else sees
    y = torch.zeros(B, L, H * d, dtype=x.dtype)
    for b in range(B):
        for h in range(H):
            g = h // (H // K)  # whose keys head h reads
            q = attention.q_norm((x[b] @ attention.q_proj.weight.T)[:, h * d : (h + 1) * d])
            k = attention.k_norm((x[b] @ attention.k_proj.weight.T)[:, g * d : (g + 1) * d])
            v = (x[b] @ attention.v_proj.weight.T)[:, g * d : (g + 1) * d]
            if cos is not None:
                q, k = turned(q, cos, sin), turned(k, cos, sin)
            scores = (q @ k.T / math.sqrt(d)).masked_fill(~sees[b], -torch.inf)
            y[b, :, h * d : (h + 1) * d] = scores.softmax(1) @ v
    return y @ attention.o_proj.weight.T


def test_grouped_queries_by_hand():
    attention, x = attention_of(heads=4, kv_heads=2), numbers(2, 5, 12, seed=30) / 4
    y = attend(attention, x)
    assert y.shape == x.shape, (
        f"the shape must stay {tuple(x.shape)}, but yours is {tuple(y.shape)}"
    )
    assert same(y, attention_by_hand(attention, x)), (
        "the output of four heads over two heads of keys is wrong: the heads 0 and 1 read keys 0, "
        "the heads 2 and 3 read keys 1; the scores are divided by sqrt(d); and the heads stand side "
        "by side again before o_proj"
    )


def test_grouped_queries_equal_repeated_keys():
    """Two heads of keys for four of queries = four heads of keys, each of the two stored twice."""
    grouped, full = attention_of(heads=4, kv_heads=2), attention_of(heads=4, kv_heads=4)
    for name in ("q_proj", "o_proj"):
        getattr(full, name).weight.data = getattr(grouped, name).weight.data
    for name in ("k_proj", "v_proj"):
        weight = getattr(grouped, name).weight.data.view(2, 4, 12)  # (K, d, D)
        getattr(full, name).weight.data = weight.repeat_interleave(2, 0).reshape(16, 12)
    x = numbers(1, 6, 12, seed=31) / 4
    assert same(attend(grouped, x), attend(full, x)), (
        "keys that are shared must give what repeated keys give: head h of the queries reads head "
        "h // (H / K) of the keys, so neighbours share"
    )


def test_a_later_token_never_changes_an_earlier_output():
    attention, x = attention_of(heads=4, kv_heads=2), numbers(2, 6, 12, seed=32) / 4
    before = attend(attention, x)
    changed = x.clone()
    changed[:, 4] += 1
    after = attend(attention, changed)
    assert same(before[:, :4], after[:, :4]), (
        "token 4 was changed, and the output of an earlier token with it: without `visible` each "
        "token sees itself and those before it"
    )
    assert not same(before[:, 5], after[:, 5], 1e-4), (
        "token 4 was changed, and the output of token 5 stayed: a token sees all those before it"
    )


def test_padding_is_never_read():
    attention, x = attention_of(heads=4, kv_heads=2), numbers(2, 6, 12, seed=33) / 4
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    changed = x.clone()
    changed[0, 4:] = 5.0
    before = attend(attention, x, visible=mask[:, None, None, :])
    after = attend(attention, changed, visible=mask[:, None, None, :])
    assert same(before[0, :4], after[0, :4]) and same(before[1], after[1]), (
        "what stands at places of padding changed the output of a token: `visible` says which keys "
        "may be read"
    )


def test_queries_and_keys_are_rotated():
    attention, x = attention_of(heads=4, kv_heads=2), numbers(2, 5, 12, seed=34) / 4
    cos, sin = angles(5, 4)
    assert same(attend(attention, x, cos, sin), attention_by_hand(attention, x, cos, sin)), (
        "the output with positions is wrong: queries and keys are rotated, both, and the values "
        "are not"
    )


def test_grouped_queries_of_other_sizes():
    for heads, kv_heads, d in ((1, 1, 6), (3, 3, 4), (6, 2, 2), (4, 1, 8)):
        attention = attention_of(heads, kv_heads, d=d, seed=40 + heads)
        x = numbers(3, 7, 12, seed=50 + heads) / 4
        cos, sin = angles(7, d)
        assert same(attend(attention, x, cos, sin), attention_by_hand(attention, x, cos, sin)), (
            f"{heads} heads of queries over {kv_heads} of keys, each {d} wide, give a wrong output: "
            "use head_dim, not D / H, and let neighbouring heads share keys"
        )


def test_queries_and_keys_are_normalised_before_they_are_rotated():
    attention = attention_of(heads=4, kv_heads=2, qk_norm=True)
    x, (cos, sin) = numbers(2, 5, 12, seed=60), angles(5, 4)
    assert same(attend(attention, x, cos, sin), attention_by_hand(attention, x, cos, sin)), (
        "q_norm and k_norm are wrong: each head of each query and key is normalised by itself, "
        "and before it is rotated"
    )


def test_visible_tokens_are_seen_from_both_sides():
    attention, x = attention_of(heads=4, kv_heads=2), numbers(2, 6, 12, seed=61) / 4
    cos, sin = angles(6, 4)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]]).bool()
    y = attend(attention, x, cos, sin, mask[:, None, None, :])
    expected = attention_by_hand(attention, x, cos, sin, mask[:, None, :].expand(2, 6, 6))
    assert same(y[0, :4], expected[0, :4]) and same(y[1, :5], expected[1, :5]), (
        "with `visible` the order is not causal: each token sees all tokens of its text, also those "
        "behind it"
    )


def test_attention_reads_each_text_alone():
    attention, x = attention_of(heads=6, kv_heads=3, d=2), numbers(4, 3, 12, seed=62) / 4
    together = attend(attention, x)
    alone = torch.cat([attend(attention, x[i : i + 1]) for i in range(4)])
    assert same(together, alone), (
        "the output of a text changes with the texts beside it in the batch: a dimension was "
        "reshaped where it should have been transposed"
    )


# --------------------------------------------------------------------------------------------------
# 3.4 mean_token


def test_mean_token_by_hand():
    # The first token is the start token. The last place of the first caption is padding.
    h = torch.tensor([[[90.0], [1.0], [3.0], [50.0]], [[80.0], [2.0], [4.0], [9.0]]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    mean = llm_text.mean_token(h, mask)
    assert mean.shape == (2, 1), f"one vector per caption: (B, D), but yours is {tuple(mean.shape)}"
    assert same(mean, torch.tensor([[2.0], [5.0]]), 1e-4), (
        f"the means are 2 and 5, but yours are {mean[:, 0].tolist()}: neither the first token "
        "counts nor padding, not in the sum and not in the number of tokens"
    )


def test_mean_token_does_not_read_padding():
    h = numbers(3, 6, 4, seed=70, dtype=torch.float32)
    lengths = torch.tensor([2, 4, 6])
    mask = torch.arange(6) < lengths[:, None]
    wider = torch.cat([h, torch.full((3, 5, 4), 1e3)], 1)
    wide_mask = torch.cat([mask, torch.zeros(3, 5, dtype=torch.bool)], 1)
    assert same(llm_text.mean_token(wider, wide_mask), llm_text.mean_token(h, mask), 1e-4), (
        "more padding changes the mean: divide by the number of real tokens, not by the width"
    )


def test_mean_token_of_other_lengths():
    h = numbers(5, 9, 3, seed=71, dtype=torch.float32)
    h[:, 0] = 1e3
    lengths = [2, 9, 5, 3, 7]
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    expected = torch.stack([h[i, 1:n].mean(0) for i, n in enumerate(lengths)])
    assert same(llm_text.mean_token(h, mask), expected, 1e-4), (
        "each caption has its own number of tokens, and the start token is none of them"
    )


def test_mean_token_of_half_precision():
    h = (numbers(2, 50, 8, seed=72) + 3).bfloat16()
    mask = torch.ones(2, 50, dtype=torch.bool)
    mean = llm_text.mean_token(h, mask)
    assert mean.dtype == torch.float32, f"the vectors are float32, not {mean.dtype}"
    assert same(mean, h[:, 1:].double().mean(1), 1e-3), "sum in float32, not in bfloat16"


# --------------------------------------------------------------------------------------------------
# 3.5 last_token


def test_last_token_by_hand():
    h = torch.tensor([[[90.0], [1.0], [3.0], [50.0]], [[80.0], [2.0], [4.0], [9.0]]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    last = llm_text.last_token(h, mask)
    assert last.shape == (2, 1), f"one vector per caption: (B, D), but yours is {tuple(last.shape)}"
    assert last[0, 0] != 50, "the last place is padding: take the last place where mask is true"
    assert same(last, torch.tensor([[3.0], [9.0]])), (
        f"the last tokens are 3 and 9, but yours are {last[:, 0].tolist()}: places count from 0"
    )


def test_last_token_does_not_read_padding():
    h = numbers(3, 6, 4, seed=80, dtype=torch.float32)
    mask = torch.arange(6) < torch.tensor([2, 4, 6])[:, None]
    wider = torch.cat([h, torch.full((3, 5, 4), 1e3)], 1)
    wide_mask = torch.cat([mask, torch.zeros(3, 5, dtype=torch.bool)], 1)
    assert same(llm_text.last_token(wider, wide_mask), llm_text.last_token(h, mask)), (
        "more padding changes the last token: it stands at the end of each caption, not of the batch"
    )


def test_last_token_of_other_lengths():
    h = numbers(5, 9, 3, seed=81, dtype=torch.float32)
    lengths = [1, 9, 5, 3, 7]
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    expected = torch.stack([h[i, n - 1] for i, n in enumerate(lengths)])
    assert same(llm_text.last_token(h, mask), expected), "each caption ends at a place of its own"


def test_last_token_of_half_precision():
    h = numbers(2, 5, 8, seed=82).bfloat16()
    last = llm_text.last_token(h, torch.ones(2, 5, dtype=torch.bool))
    assert last.dtype == torch.float32, f"the vectors are float32, not {last.dtype}"
    assert same(last, h[:, -1]), "the last token's state itself is the vector: nothing is added"


# --------------------------------------------------------------------------------------------------
# 3.6 whitening


def cone(N, D, seed):
    """Vectors with a large mean, and with directions of very different strength, (N, D) float32."""
    x = numbers(N, D, seed=seed) * 2.0 ** -torch.arange(D, dtype=torch.float64)
    turn = torch.linalg.qr(numbers(D, D, seed=seed + 1))[0]
    return (x @ turn + 5 * numbers(D, seed=seed + 2)).float()


def mapped(x, mean, matrix):
    return (x.double() - mean.double()) @ matrix.double()


def covariance_of(t):
    return t.T.cov(correction=0)


def test_whitened_covariance_is_the_identity():
    x = cone(200, 6, seed=90)
    mean, matrix = llm_text.whitening(x, 4, power=1.0)
    assert matrix.shape == (6, 4), f"the matrix is (D, k) = (6, 4), not {tuple(matrix.shape)}"
    assert mean.dtype == matrix.dtype == torch.float32, "mean and matrix are float32"
    t = mapped(x, mean, matrix)
    assert same(t.mean(0), torch.zeros(4), 1e-3), (
        "the whitened vectors have no mean of 0: subtract the captions' mean"
    )
    off = covariance_of(t) - covariance_of(t).diag().diag()
    assert off.abs().max() < 1e-2, (
        "the whitened directions are correlated: the columns of the matrix are eigenvectors of the "
        "covariance (is a matrix transposed, or the mean left in the covariance?)"
    )
    assert same(covariance_of(t), torch.eye(4), 1e-2), (
        f"the whitened variances are {[round(v, 3) for v in covariance_of(t).diag().tolist()]}, not "
        "1: divide each eigenvector by its standard deviation, the root of its eigenvalue"
    )


def test_a_power_of_a_half():
    x = cone(200, 6, seed=93)
    sigma = torch.linalg.eigvalsh(covariance_of(x.double())).flip(0).sqrt()
    t = mapped(x, *llm_text.whitening(x, 4))
    variance = covariance_of(t).diag().sort(descending=True).values
    assert same(variance / sigma[:4], torch.ones(4), 1e-2), (
        "with the power 1/2, the variance along a direction must become sigma, its standard "
        "deviation before: the matrix is V diag(sigma^-a), and sigma^2 is the eigenvalue"
    )


def test_zero_directions_only_centre():
    x = cone(50, 6, seed=96)
    mean, matrix = llm_text.whitening(x, 0)
    assert same(mean, x.double().mean(0), 1e-4), "the mean is the mean of all captions"
    assert same(matrix, torch.eye(6)), "with 0 directions the matrix is the identity"


def test_the_strongest_directions_are_kept():
    # Along the three axes the standard deviations are 1, 100 and 10.
    x = numbers(500, 3, seed=99).float() * torch.tensor([1.0, 100.0, 10.0])
    _, matrix = llm_text.whitening(x, 1, power=0.0)
    assert abs(float(matrix[1, 0].abs()) - 1) < 1e-2, (
        "the direction that is kept is not the strongest one: eigh sorts from small to large"
    )


def test_too_many_directions_are_refused():
    for x, k in ((cone(50, 6, seed=100), 7), (cone(5, 6, seed=103), 5)):
        refused = False
        try:
            llm_text.whitening(x, k)
        except BadInput as error:
            refused = "--whiten" in str(error)
        assert refused, (
            f"{len(x)} captions of width 6 have no {k} directions: raise BadInput that names "
            "--whiten. N captions vary around their mean in N - 1 directions at most"
        )


def test_whitening_of_other_powers():
    x = cone(300, 5, seed=106)
    sigma = torch.linalg.eigvalsh(covariance_of(x.double())).flip(0).sqrt()
    for power in (0.0, 0.25, 0.8, 1.0):
        t = mapped(x, *llm_text.whitening(x, 5, power))
        variance = covariance_of(t).diag().sort(descending=True).values
        assert same(variance / sigma ** (2 - 2 * power), torch.ones(5), 2e-2), (
            f"with the power {power} the variances must become sigma^(2 - 2a)"
        )
        assert same(t.mean(0), torch.zeros(5), 1e-3), "the mean of the fitted captions must be 0"


def test_whitening_knows_only_the_captions_that_it_is_given():
    """All of them, each as often as the others: the order does not matter, and a copy does not."""
    x = cone(60, 5, seed=109) + torch.linspace(0, 3, 60)[:, None]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    mean, matrix = llm_text.whitening(x, 3, 1.0)
    for name, other in (("shuffled", x[order]), ("repeated", torch.cat([x, x]))):
        mean_2, matrix_2 = llm_text.whitening(other, 3, 1.0)
        assert same(mean_2, mean, 1e-3) and same(matrix_2 @ matrix_2.T, matrix @ matrix.T, 1e-2), (
            f"the result changes when the captions are {name}: all captions count alike, and the "
            "covariance is divided by N"
        )
    t = mapped(x, mean, matrix)
    assert same(covariance_of(t), torch.eye(3), 1e-2), (
        "the covariance of the fitted captions is not the identity: all of them must be used"
    )


class Stored:
    """Vectors in a file: they have a length and slices, and nothing else."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        assert isinstance(rows, slice), "read vectors in slices: they may be a file"
        return self.x[rows]


def test_whitening_reads_in_chunks():
    x = (cone(20_500, 4, seed=112) + torch.linspace(0, 1, 20_500)[:, None]).half()
    mean, matrix = llm_text.whitening(Stored(x), 3, 1.0)
    t = mapped(x, mean, matrix)
    assert same(t.mean(0), torch.zeros(3), 1e-2) and same(covariance_of(t), torch.eye(3), 1e-2), (
        "20,500 captions in float16 are whitened wrongly: add up all chunks, in float64"
    )


def test_whitening_of_flat_vectors_is_refused():
    x = cone(100, 6, seed=115)
    x[:, 4:] = x[:, :2]  # six numbers, but four directions
    llm_text.whitening(x, 4)
    refused = False
    try:
        llm_text.whitening(x, 5)
    except BadInput as error:
        refused = "--whiten" in str(error)
    assert refused, (
        "the captions vary in four directions only: a fifth one would be rounding noise that is "
        "blown up. Raise BadInput that names --whiten"
    )


def test_whitening_with_differences_within_an_image():
    x = cone(200, 5, seed=118)
    half = numbers(5, 5, seed=121)
    within = half @ half.T
    strength = torch.linalg.eigvalsh(within).mean()
    U, s, _ = torch.linalg.svd(within + strength * torch.eye(5))
    even = U @ (1 / s.sqrt()).diag() @ U.T
    mean, matrix = llm_text.whitening(x, 2, 0.0, within)
    assert same(mean, x.double().mean(0), 1e-3), "`within` does not change the mean"
    # The two strongest directions after the map, and the map before them.
    V = torch.linalg.svd(covariance_of(x.double() @ even))[0][:, :2]
    expected = even @ V
    assert same(matrix @ matrix.T, expected @ expected.T, 1e-3), (
        "with `within` the matrix is wrong: the vectors are mapped by (S + s I)^(-1/2) first, so "
        "the covariance is taken after this map, and the matrix has the map in front"
    )
