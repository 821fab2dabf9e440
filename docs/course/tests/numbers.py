"""Numbers for the tests: always the same, and in float32 or float64 as the test says."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random numbers of mean 0 and deviation 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def unit(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random vectors of length 1 along the last dimension."""
    return F.normalize(normal(*shape, seed=seed, dtype=torch.float64), dim=-1).to(dtype)


def cross_entropy(logits: list[float], right: int) -> float:
    """- log softmax(logits)[right], of a few plain numbers."""
    largest = max(logits)
    return largest + math.log(sum(math.exp(v - largest) for v in logits)) - logits[right]
