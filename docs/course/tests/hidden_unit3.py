"""Unit 3, the frozen language model: the tests that only the grader has."""

import math

import torch

import llm_text
from data.vectors import StoredRows
from llm_text import Attention, RMSNorm

from ..student import differ, holds, refuses, same
from .models import angles, config, filled
from .numbers import normal
from .test_unit3 import TOO_MANY, cone, covariance

# ---- RMSNorm


def test_rms_norm_of_small_numbers(student):
    """eps stands inside the root, so zeros stay zeros and small vectors stay small"""
    norm = RMSNorm(4, 1e-2)
    found = student.llm_text.RMSNorm.forward(norm, torch.full((1, 4), 0.1))
    same(found, torch.full((1, 4), 0.1 / math.sqrt(0.02)), "x / sqrt(0.01 + eps), eps = 0.01")
    zeros = student.llm_text.RMSNorm.forward(norm, torch.zeros(1, 4))
    same(zeros, torch.zeros(1, 4), "zeros stay zeros, and no NaN")


def test_rms_norm_divides_in_float32(student):
    """bfloat16 goes in and out, and the mean square is that of float32"""
    norm, x = RMSNorm(64, 1e-6).bfloat16(), normal(3, 64, seed=31).bfloat16()
    exact = x.float() / x.float().pow(2).mean(-1, keepdim=True).sqrt()
    for weight, words in (
        (torch.ones(64), "a division in float32 gives"),
        (
            normal(64, seed=39),
            "come out if the quotient is brought back to the input's dtype before g multiplies it",
        ),
    ):
        norm.weight.data = weight.bfloat16()
        found = student.llm_text.RMSNorm.forward(norm, x)
        why = "the result should have the input's dtype"
        holds(getattr(found, "sent_as", "") == "bfloat16", why)
        # A number between two of bfloat16 may go to the other one on another CPU: a few may differ.
        wanted = (exact.bfloat16() * norm.weight.data).float()
        off = (found - wanted).abs() > 1e-6
        why = f"{int(off.sum())} of {off.numel()} numbers are not those that {words}"
        holds(off.float().mean() < 0.05, why)


# ---- rotary position embedding


def test_rotate_all_heads(student):
    """A whole batch of heads, each pair of elements by itself"""
    x = normal(2, 3, 5, 8, seed=32)
    cos, sin = angles(5, 8)
    complex_x = torch.complex(x[..., :4], x[..., 4:])
    turned = complex_x * torch.complex(cos[:, :4], sin[:, :4])
    wanted = torch.cat([turned.real, turned.imag], dim=-1)
    why = (
        "taken as complex numbers x_i + i x_(i + d/2), the pairs should be multiplied by e^(i a), "
        "in every head and at every position"
    )
    same(student.llm_text.rotate(x, cos, sin), wanted, why)


# ---- grouped-query attention


def naive(module: Attention, x: torch.Tensor, cos, sin, visible) -> torch.Tensor:
    """Attention with one loop for each head, each query and each key."""
    B, L, _ = x.shape
    per_kv = module.heads // module.kv_heads
    q, k, v = (
        getattr(module, f"{name}_proj")(x).view(B, L, -1, module.head_dim).transpose(1, 2)
        for name in "qkv"
    )
    q = llm_text.rotate(module.q_norm(q), cos, sin)
    k = llm_text.rotate(module.k_norm(k), cos, sin)
    out = torch.zeros(B, L, module.heads * module.head_dim)
    for h in range(module.heads):
        g = h // per_kv
        scores = q[:, h] @ k[:, g].mT / math.sqrt(module.head_dim)
        if visible is None:
            hidden = torch.ones(L, L, dtype=torch.bool).triu(1)
        else:
            hidden = ~visible[:, 0].expand(B, L, L)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out[..., h * module.head_dim : (h + 1) * module.head_dim] = weights @ v[:, g]
    return module.o_proj(out)


@torch.no_grad()
def test_attention_against_loops(student):
    """Causal and with a mask, it equals attention written with loops"""
    visible = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()[:, None, None, :]
    for kv_heads in (1, 2, 4):
        module, x = filled(Attention(config(kv_heads)), seed=33), normal(2, 5, 32, seed=34)
        for mask in (None, visible):
            found = student.llm_text.Attention.forward(module, x, *angles(5, 8), mask)
            wanted = naive(module, x, *angles(5, 8), mask)
            kind = "causal" if mask is None else "masked"
            why = (
                f"{kind} attention of 4 heads with {kv_heads} of keys and values: in each head "
                "softmax(q k^T / sqrt(d)) v, with q and k turned and v not, and o_proj at the end"
            )
            same(found, wanted, why, atol=2e-4)


@torch.no_grad()
def test_attention_norms_queries_and_keys(student):
    """Where there are norms of queries and keys (Qwen3), they are applied before turning"""
    module, x = filled(Attention(config(qk_norm=True)), seed=35), normal(1, 5, 32, seed=36)
    found = student.llm_text.Attention.forward(module, x, *angles(5, 8), None)
    why = "q_norm and k_norm act on each head's queries and keys, before these are turned"
    same(found, naive(module, x, *angles(5, 8), None), why, atol=2e-4)


# ---- pooling


def test_mean_token_in_half_precision(student):
    """The mean of 200 bfloat16 states is computed in float32"""
    h = (normal(1, 200, 4, seed=37) + 3).bfloat16()
    mask = torch.ones(1, 200, dtype=torch.bool)
    found = student.llm_text.mean_token(h, mask)
    why = "200 states in bfloat16: the sum must be in float32, or its last digits are lost"
    same(found, h[:, 1:].float().mean(1), why, atol=1e-3)


def test_last_token_of_each_caption(student):
    """Captions of every length from 1 to 6"""
    h = normal(6, 6, 4, seed=38)
    mask = torch.arange(6) < torch.arange(1, 7)[:, None]
    found = student.llm_text.last_token(h, mask)
    why = "caption i has i + 1 tokens, so its last one stands at place i"
    same(found, h[torch.arange(6), torch.arange(6)], why)
    half = student.llm_text.last_token(h.bfloat16(), mask)
    holds(getattr(half, "sent_as", "") == "float32", "the vector should be float32")


# ---- whitening


def test_whitening_of_every_power(student):
    """The variances are sigma^(2 - 2a) for the powers 0, 1/2 and 1; the default is 1/2"""
    x = cone(80, seed=41)
    sigma = torch.linalg.eigvalsh(covariance(x)).flip(0)[:5].sqrt()
    for power in (0.0, 0.5, 1.0):
        mean, matrix = student.llm_text.whitening(x, 5, power)
        found = covariance((x - mean) @ matrix).diagonal()
        why = f"the variances of t at power a = {power} should be sigma^(2 - 2a)"
        same(found, sigma ** (2 - 2 * power), why, atol=0.02)
    default = student.llm_text.whitening(x, 5)[1]
    half = student.llm_text.whitening(x, 5, 0.5)[1]
    same(default.abs(), half.abs(), "the power that is not given is 1/2", atol=1e-3)


def test_whitening_of_two_halves(student):
    """The statistics are those of all captions, however different the two halves are"""
    x = torch.cat([cone(40, seed=42), 3 * cone(40, seed=43)])
    mean, matrix = student.llm_text.whitening(x, 4, 1.0)
    t = (x - mean) @ matrix
    same(covariance(t), torch.eye(4), "whitening was fitted on a part of the captions", atol=5e-3)
    other = (cone(40, seed=42) - mean) @ matrix
    why = "the first 40 captions alone have the identity as covariance: only they were looked at"
    differ(covariance(other), torch.eye(4), why, by=0.05)


def test_whitening_of_rows_of_a_file(student):
    """Vectors as in training: they have a length and slices, but no shape"""
    table = cone(90, seed=48).half()
    numbers = torch.arange(90).flip(0)[:80]
    mean, matrix = student.llm_text.whitening(StoredRows(table, numbers), 4, 1.0)
    x = table[numbers].double()
    why = (
        "the vectors are rows of a file, in float16: only len(vectors) and vectors[a:b] work. "
        "`chunks` reads them in pieces"
    )
    same(mean, x.mean(0), f"the mean. Here {why}", atol=1e-2)
    t = (x - mean.double()) @ matrix.double()
    same(covariance(t), torch.eye(4), f"the covariance of t with the power 1. Here {why}", 5e-3)


def test_whitening_refuses_an_empty_direction(student):
    """Captions that vary in two directions only cannot be whitened to three"""
    x = normal(40, 2, seed=46) @ normal(2, 6, seed=47)
    refuses(student.llm_text.whitening, x, 3, why=TOO_MANY)
    large = "A direction is empty if its variance is a billionth of the largest one, or less"
    refuses(student.llm_text.whitening, 1e4 * x, 3, why=f"{TOO_MANY}. {large}")
