"""Small models for the tests, with weights from a seed. No file is read."""

import torch
from torch import Tensor, nn

from data.files.llm import LlamaConfig

from .numbers import normal


def config(kv_heads: int = 2, depth: int = 2, qk_norm: bool = False) -> LlamaConfig:
    """A Llama of two blocks: width 32, four heads of width 8."""
    return LlamaConfig(
        vocab=64,
        width=32,
        depth=depth,
        heads=4,
        kv_heads=kv_heads,
        head_dim=8,
        mlp_width=48,
        eps=1e-5,
        rope_theta=1e4,
        rope_divisors=1.0,
        qkv_bias=False,
        o_bias=False,
        mlp_bias=False,
        qk_norm=qk_norm,
    )


def filled(module: nn.Module, seed: int, size: float = 0.3) -> nn.Module:
    """The module with all its parameters drawn anew; vectors of norms near 1."""
    with torch.no_grad():
        for number, (name, parameter) in enumerate(module.named_parameters()):
            drawn = normal(*parameter.shape, seed=1000 * seed + number) * size
            parameter.copy_(drawn + 1 if "norm" in name and name.endswith("weight") else drawn)
    return module


def angles(length: int, width: int, theta: float = 100.0) -> tuple[Tensor, Tensor]:
    """cos and sin (L, d) for `rotate`, as Llama.forward makes them."""
    exponent = torch.arange(0, width, 2).float() / width
    angle = torch.outer(torch.arange(length).float(), theta**-exponent).repeat(1, 2)
    return angle.cos(), angle.sin()
