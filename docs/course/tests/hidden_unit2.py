"""Unit 2, the vision transformer: the tests that only the grader has."""

import math

import torch
from torch import nn

from vit import Attention, Block, PatchEmbed, ViT

from ..student import same
from .models import filled
from .numbers import normal


@torch.no_grad()
def test_patches_of_many_images(student):
    """Three images of nine patches each, cut by loops"""
    embed, images = filled(PatchEmbed(4, 7), seed=31), normal(3, 3, 12, 12, seed=32)
    rows = [
        images[:, :, i : i + 4, j : j + 4].reshape(3, 48)
        for i in range(0, 12, 4)
        for j in range(0, 12, 4)
    ]
    wanted = embed.proj(torch.stack(rows, dim=1))
    why = "patches in reading order; in each the colour first, then the row, then the column"
    same(student.vit.PatchEmbed.forward(embed, images), wanted, why)


@torch.no_grad()
def naive(module: Attention, x: torch.Tensor) -> torch.Tensor:
    """Attention with a loop over the heads."""
    B, N, D = x.shape
    d = D // module.heads
    q, k, v = (x @ module.qkv.weight.T + module.qkv.bias).split(D, dim=-1)
    out = []
    for h in range(module.heads):
        part = slice(h * d, (h + 1) * d)
        scores = q[..., part] @ k[..., part].mT / math.sqrt(d)
        if module.causal:
            scores = scores.masked_fill(torch.ones(N, N, dtype=torch.bool).triu(1), -torch.inf)
        out.append(scores.softmax(-1) @ v[..., part])
    return module.proj(torch.cat(out, dim=-1))


def test_attention_against_loops(student):
    """It equals attention with a loop over heads, causal and not"""
    for causal in (False, True):
        module, x = filled(Attention(24, 3, causal), seed=33, size=0.5), normal(2, 7, 24, seed=34)
        found = student.vit.Attention.forward(module, x)
        why = f"three heads of width 8, causal = {causal}: softmax(q k^T / sqrt(8)) v in each head"
        same(found, naive(module, x), why, atol=5e-4)


@torch.no_grad()
def test_block_with_everything(student):
    """Norms, attention, MLP and adapters, in their order"""
    block, x = filled(Block(16, 4), seed=35), normal(2, 5, 16, seed=36)
    block.adapter1, block.adapter2 = (filled(nn.Linear(16, 16), seed=s) for s in (37, 38))
    found = student.vit.Block.forward(block, x)
    wanted = x + naive(block.attn, block.norm1(block.adapter1(x)))
    wanted = wanted + block.mlp(block.norm2(block.adapter2(wanted)))
    why = (
        "with adapters it should be x + attention(norm1(adapter1(x))), then x + "
        "mlp(norm2(adapter2(x)))"
    )
    same(found, wanted, why, atol=5e-4)


@torch.no_grad()
def test_vit_with_everything(student):
    """Class token or mean, CLIP's norm before the blocks or none"""
    images = normal(2, 3, 32, 32, seed=39)
    for size, pool in (("micro/16", "avg"), ("micro/16", "tok"), ("micro/16-clip", "tok")):
        tower = filled(ViT(size, 32, pool), seed=40, size=0.1)
        tower.blocks = tower.blocks[:2]
        found = student.vit.ViT.forward(tower, images)
        x = tower.patch_embed(images)
        if pool == "tok":
            x = torch.cat([tower.cls_token.expand(2, -1, -1), x], dim=1)
        x = tower.norm_pre(x + tower.pos_embed)
        for block in tower.blocks:
            x = block(x)
        x = tower.norm(x)
        wanted = x[:, 0] if pool == "tok" else x.mean(1)
        why = (
            f"{size}, pool {pool}: class token where there is one, + positions, norm_pre, blocks, "
            "norm, then class token or mean"
        )
        same(found, wanted, why, atol=1e-3)
