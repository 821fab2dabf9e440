"""Unit 2, the vision transformer: the tests that students have."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from vit import Attention, Block, PatchEmbed, ViT

from ..student import after, differ, same
from .models import filled
from .numbers import normal

# ---- patches


def test_patches_of_two_colours(student):
    """An image of four patches: each patch becomes one row, in reading order"""
    embed = PatchEmbed(2, 12)
    embed.proj.weight.data, embed.proj.bias.data = torch.eye(12), torch.zeros(12)
    image = torch.zeros(1, 3, 4, 4)
    for number, (i, j) in enumerate(((0, 0), (0, 2), (2, 0), (2, 2))):
        image[:, :, i : i + 2, j : j + 2] = number + 1
    found = student.vit.PatchEmbed.forward(embed, image)
    wanted = torch.arange(1.0, 5.0).view(1, 4, 1).expand(1, 4, 12)
    why = (
        "row 1 should be the patch top left, 2 top right, 3 bottom left, 4 bottom right, and all "
        "numbers of a row come from its patch. Is the image cut, and not only reshaped?"
    )
    same(found, wanted, why)


@torch.no_grad()
def test_patches_are_a_strided_convolution(student):
    """It equals a convolution whose stride is its kernel"""
    embed, images = filled(PatchEmbed(4, 10), seed=1), normal(2, 3, 12, 12, seed=2)
    kernel = embed.proj.weight.view(10, 3, 4, 4)
    wanted = F.conv2d(images, kernel, embed.proj.bias, stride=4).flatten(2).mT
    found = student.vit.PatchEmbed.forward(embed, images)
    same(
        found,
        wanted,
        "the 3 p p numbers of a patch stand in another order than in the weights: colour first, "
        "then the row in the patch, then the column",
    )


# ---- attention


def test_attention_of_equal_positions(student):
    """Equal vectors attend equally: all outputs are equal"""
    attention = filled(Attention(16, 4, causal=False), seed=3)
    x = normal(1, 1, 16, seed=4).expand(1, 5, 16).contiguous()
    found = student.vit.Attention.forward(attention, x)
    why = (
        "five equal vectors give unequal outputs. Each output is a mean of the values, and these "
        "are equal. Are positions and heads mixed up by a view or a reshape without a transpose?"
    )
    same(found, found[:, :1].expand(1, 5, 16), why)


def test_attention_follows_a_permutation(student):
    """Permuting the positions permutes the outputs"""
    attention, x = filled(Attention(16, 4, causal=False), seed=5), normal(2, 6, 16, seed=6)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    one = student.vit.Attention.forward(attention, x)
    other = student.vit.Attention.forward(attention, x[:, order])
    why = (
        "the positions came in another order, and the outputs did not follow. Without `causal`, "
        "attention knows no order. Is a mask applied, or are positions and heads mixed up?"
    )
    same(other, one[:, order], why)


def test_attention_is_causal_when_asked(student):
    """With `causal`, a later position never changes an earlier output"""
    attention, x = filled(Attention(16, 4, causal=True), seed=7), normal(1, 6, 16, seed=8)
    other = x.clone()
    other[:, 3] += 1
    one, two = (student.vit.Attention.forward(attention, each) for each in (x, other))
    why = (
        "position 3 was changed, and an earlier output changed, too: is `self.causal` used, are "
        "scores of later positions -inf before the softmax, and is the softmax over the keys?"
    )
    same(two[:, :3], one[:, :3], why)
    why = "position 3 was changed, and the output of position 5 stayed: it should see 0 to 5"
    differ(two[:, 5], one[:, 5], why)


def test_each_head_attends_by_itself(student):
    """What one head reads changes nothing that another head gives"""
    attention, x = filled(Attention(8, 2, causal=False), seed=9), normal(1, 5, 8, seed=10)
    attention.proj.weight.data, attention.proj.bias.data = torch.eye(8), torch.zeros(8)
    one = student.vit.Attention.forward(attention, x)
    attention.qkv.weight.data[4:8] += 1.0  # queries of the second head
    two = student.vit.Attention.forward(attention, x)
    same(
        two[..., :4],
        one[..., :4],
        "queries of head 1 were changed, and head 0 gives another output. The first D numbers of "
        "qkv are the queries, and of these the first d belong to head 0",
    )
    why = "queries of head 1 were changed, and its output stayed: where in qkv are its queries?"
    differ(two[..., 4:], one[..., 4:], why)


def test_attention_by_hand(student):
    """Two positions, two heads of width 2: the numbers, written out"""
    a = 2**0.5 * math.log(3)  # divided by sqrt(2), it is log 3: the weights are 3/4 and 1/4
    attention = Attention(4, 2, causal=False)
    of_first = [1, 0, 0, 1, a, 0, 0, 0, 4, 0, 4, 4]  # query, key and value of position 0
    of_second = [1, 0, 0, 0, 0, 0, 0, a, 0, 8, 0, 8]
    attention.qkv.weight.data = torch.zeros(12, 4)
    attention.qkv.weight.data[:, :2] = torch.tensor([of_first, of_second]).T
    attention.qkv.bias.data.zero_()
    attention.proj.weight.data, attention.proj.bias.data = torch.eye(4).flip(0), torch.ones(4)
    x = torch.eye(4)[None, :2]
    found = student.vit.Attention.forward(attention, x)
    why = (
        "head 0 has the scores (log 3, 0) for both positions, head 1 has (0, log 3) and (0, 0), "
        "all divided by sqrt(d) already. Heads give (3 2 1 7) and (3 2 2 6). Then proj turns the "
        "order and adds 1. qkv gives queries, keys and values, in this order. Is each head divided "
        "by the root of its own d, and is the softmax over the keys?"
    )
    same(found, torch.tensor([[[8.0, 2, 3, 4], [7.0, 3, 3, 4]]]), why)
    attention.causal = True
    found = student.vit.Attention.forward(attention, x)
    why = "the same with `causal`: position 0 sees itself only, so its heads give (4 0 4 4). "
    why += "With nan, position 0 does not even see itself"
    same(found, torch.tensor([[[5.0, 5, 1, 5], [7.0, 3, 3, 4]]]), why)


# ---- block


def test_block_of_zeros_is_the_identity(student):
    """If attention and MLP give zeros, the block gives back its input"""
    block, x = filled(Block(16, 4), seed=11), normal(2, 5, 16, seed=12)
    for layer in (block.attn.proj, block.mlp.fc2):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    why = "attention and MLP give zeros here, and the output is not x: each is ADDED to its input"
    same(student.vit.Block.forward(block, x), x, why)


def test_block_adds_the_mlp_of_the_norm(student):
    """With attention switched off, it is x + mlp(norm2(x))"""
    block, x = filled(Block(16, 4), seed=13), normal(2, 5, 16, seed=14)
    block.attn.proj.weight.data.zero_()
    block.attn.proj.bias.data.zero_()
    found = student.vit.Block.forward(block, x)
    h = F.layer_norm(x, (16,), block.norm2.weight, block.norm2.bias, 1e-6)
    h = F.gelu(h @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
    wanted = x + h @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
    why = "attention gives zeros here. x + mlp(norm2(x)): norm2 before the MLP, none on the sum"
    same(found, wanted.detach(), why, 5e-4)


def test_block_with_adapters(student):
    """Norms, attention, MLP and adapters in their order; the input stays as it was"""
    block, x = filled(Block(16, 4), seed=21), normal(2, 5, 16, seed=22)
    block.adapter1, block.adapter2 = (filled(nn.Linear(16, 16), seed=s) for s in (23, 24))
    found, args = after(student.vit.Block.forward, block, x)
    wanted = x + block.attn(block.norm1(block.adapter1(x)))
    wanted = wanted + block.mlp(block.norm2(block.adapter2(wanted)))
    why = (
        "here the adapters are linear layers: x = x + attention(norm1(adapter1(x))), and then x = "
        "x + mlp(norm2(adapter2(x)))"
    )
    same(found, wanted.detach(), why, 5e-4)
    same(args[1], x, "the input itself was changed: `x += ...` does that, and breaks the gradient")


# ---- the whole tower


def test_vit_forgets_the_order_of_patches(student):
    """Permuting the patches with their positions leaves the mean"""
    tower, images = filled(ViT("micro/8", 32), seed=15, size=0.05), normal(2, 3, 32, 32, seed=16)
    one = student.vit.ViT.forward(tower, images)
    # Patches 0 and 5 change places, and so do their position vectors.
    moved = images.clone()
    moved[:, :, 0:8, 0:8], moved[:, :, 8:16, 8:16] = (
        images[:, :, 8:16, 8:16],
        images[:, :, 0:8, 0:8],
    )
    alone = student.vit.ViT.forward(tower, moved)
    positions = tower.pos_embed.data.clone()
    tower.pos_embed.data[:, [0, 5]] = positions[:, [5, 0]]
    both = student.vit.ViT.forward(tower, moved)
    why = (
        "two patches changed places, and their position embeddings with them, and the output "
        "changed. Is it the mean over all patches?"
    )
    same(both, one, why)
    why = "two patches changed places and the output stayed: are position embeddings added?"
    differ(alone, one, why)


def test_vit_reads_the_class_token(student):
    """With a class token, its vector is the output"""
    tower = filled(ViT("micro/16", 32, "tok"), seed=17, size=0.05)
    images = normal(2, 3, 32, 32, seed=18)
    found = student.vit.ViT.forward(tower, images)
    same(found.shape[1:], [192], "one vector of width 192 per image should come back")
    last = tower.blocks[-1]
    for layer in (last.attn.proj, last.mlp.fc2):
        layer.weight.data.zero_()
    tower.blocks = tower.blocks[-1:]
    found = student.vit.ViT.forward(tower, images)
    same(
        found[0],
        found[1],
        "here no block mixes positions, so the class token is the same for all images, and so "
        "should be the output. With the pool `tok` the token stands first, and is read at the end",
    )


@torch.no_grad()
def test_vit_with_the_same_weights(student):
    """With its weights the reference gives the same, with a class token and without"""
    images = normal(2, 3, 32, 32, seed=20)
    for size, pool in (("micro/16", "avg"), ("micro/16-clip", "tok")):
        tower = filled(ViT(size, 32, pool), seed=19, size=0.1)
        tower.blocks = tower.blocks[:1]
        found = student.vit.ViT.forward(tower, images)
        why = (
            f"{size}, pool {pool}, against the reference. Positions are added once, to the class "
            "token as well. Then come norm_pre, blocks, norm, and the mean or the class token last"
        )
        same(found, tower(images), why, 1e-3)
