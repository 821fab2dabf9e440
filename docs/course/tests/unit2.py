"""Unit 2, the vision transformer: tests of the forward methods in vit.py.

A test of a module puts modules of its own inside it. So a mistake in an inner one costs no points
here. Numbers are float64.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

import vit


def numbers(*shape, seed):
    """Random numbers, the same in every run, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def fill(module, seed):
    """Give a module random weights, in float64."""
    module.double().requires_grad_(False)
    for i, parameter in enumerate(module.parameters()):
        parameter.copy_(numbers(*parameter.shape, seed=1000 * seed + i) / 3)
    return module


def same(one, other, tolerance=1e-4):
    return one.shape == other.shape and bool(((one - other).abs() <= tolerance).all())


# --------------------------------------------------------------------------------------------------
# 2.1 PatchEmbed.forward


def convolved(patches, images):
    """What PatchEmbed should give: a convolution whose stride equals its kernel."""
    kernel = patches.proj.weight.unflatten(1, (3, patches.patch, patches.patch))  # (D, 3, p, p)
    out = F.conv2d(images, kernel, patches.proj.bias, stride=patches.patch)  # (B, D, S/p, S/p)
    return out.flatten(2).mT  # (B, N, D)


def test_patches_equal_a_convolution_with_stride():
    patches, images = fill(vit.PatchEmbed(2, 5), 1), numbers(2, 3, 6, 6, seed=1)
    y = patches(images)
    assert y.shape == (2, 9, 5), f"9 patches of 5 numbers are (2, 9, 5), not {tuple(y.shape)}"
    expected = convolved(patches, images)
    assert not same(y.sum(1), expected.sum(1)) or same(y, expected), (
        "the patches are right, but in the wrong order: row by row, and from left to right in each"
    )
    assert same(y, expected), (
        "the result is not that of a convolution with stride p: the row of a patch holds its "
        "numbers in the order channel, row, column"
    )


def test_a_pixel_reaches_its_own_patch_only():
    patches, images = fill(vit.PatchEmbed(4, 6), 2), numbers(1, 3, 12, 12, seed=2)
    before = patches(images)
    for row, column in ((0, 0), (3, 4), (6, 1), (11, 11)):
        changed = images.clone()
        changed[0, :, row, column] += 1
        is_changed = ((patches(changed) - before).abs() > 1e-9).any(-1)[0].nonzero()[:, 0].tolist()
        own = 3 * (row // 4) + column // 4
        assert is_changed == [own], (
            f"the pixel in row {row}, column {column} belongs to patch {own}, but it changes the "
            f"patches {is_changed}: a reshape mixes pixels of different patches"
        )


def test_patches_of_other_sizes():
    for p, S, D in ((1, 3, 2), (3, 9, 4), (8, 16, 7), (16, 16, 3)):
        patches, images = fill(vit.PatchEmbed(p, D), p), numbers(3, 3, S, S, seed=p)
        assert same(patches(images), convolved(patches, images)), (
            f"with patches of {p} pixels in images of {S} the result is not that of a convolution"
        )


def test_each_image_has_its_own_patches():
    patches, images = fill(vit.PatchEmbed(2, 5), 3), numbers(4, 3, 4, 4, seed=3)
    alone = torch.cat([patches(images[i : i + 1]) for i in range(4)])
    assert same(patches(images), alone), "the patches of an image change with the rest of the batch"


# --------------------------------------------------------------------------------------------------
# 2.2 Attention.forward


def attention_by_hand(attention, x, heads, causal=False):
    """The same with one loop for each sum."""
    B, N, D = x.shape
    d = D // heads
    all_q, all_k, all_v = (x @ attention.qkv.weight.T + attention.qkv.bias).split(D, dim=-1)
    y = torch.zeros_like(x)
    for b in range(B):
        for h in range(heads):
            own = slice(h * d, (h + 1) * d)
            q, k, v = all_q[b, :, own], all_k[b, :, own], all_v[b, :, own]
            for i in range(N):
                seen = i + 1 if causal else N
                weights = (k[:seen] @ q[i] / math.sqrt(d)).softmax(0)
                y[b, i, own] = weights @ v[:seen]
    return y @ attention.proj.weight.T + attention.proj.bias


def test_one_head_by_hand():
    attention = fill(vit.Attention(4, heads=1, causal=False), 10)
    x = numbers(2, 3, 4, seed=10)
    y = attention(x)
    assert y.shape == x.shape, (
        f"the shape must stay {tuple(x.shape)}, but yours is {tuple(y.shape)}"
    )
    assert same(y, attention_by_hand(attention, x, 1)), (
        "the output of one head is wrong: softmax(q k^T / sqrt(d)) v, with the softmax over the "
        "keys. The 3 D outputs of qkv are queries, keys and values, in this order; proj comes last"
    )


def test_equal_patches_have_equal_outputs():
    attention = fill(vit.Attention(8, heads=2, causal=False), 11)
    x = numbers(1, 1, 8, seed=11).expand(1, 5, 8)
    y = attention(x)
    assert same(y, y[:, :1].expand(1, 5, 8)), (
        "equal patches must have equal outputs: heads and positions are mixed, or the order is "
        "causal where it must not be"
    )
    v = x @ attention.qkv.weight[16:].T + attention.qkv.bias[16:]
    assert same(y, v @ attention.proj.weight.T + attention.proj.bias), (
        "among equal patches the mean of the values is the value itself: the weights of a softmax "
        "over the keys add up to 1"
    )


def test_permuting_the_patches_permutes_the_outputs():
    attention = fill(vit.Attention(8, heads=4, causal=False), 12)
    x = numbers(2, 6, 8, seed=12)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    assert same(attention(x[:, order]), attention(x)[:, order]), (
        "when the patches change places, their outputs must change places with them, and nothing "
        "else: attention does not know positions"
    )


def test_causal_attention_never_looks_ahead():
    attention = fill(vit.Attention(8, heads=2, causal=True), 13)
    x = numbers(2, 6, 8, seed=13)
    changed = x.clone()
    changed[:, 3] += 1
    before, after = attention(x), attention(changed)
    assert same(before[:, :3], after[:, :3]), (
        "with `causal`, position 3 was changed, and the output of an earlier position with it"
    )
    assert not same(before[:, 4:], after[:, 4:], 1e-3), (
        "with `causal`, position 3 was changed, and later outputs stayed: position i sees all "
        "positions up to i"
    )


def test_heads_by_hand():
    for heads, D, N in ((2, 8, 5), (4, 8, 3), (3, 12, 7), (1, 6, 1)):
        attention = fill(vit.Attention(D, heads, causal=False), 20 + heads)
        x = numbers(2, N, D, seed=20 + heads)
        assert same(attention(x), attention_by_hand(attention, x, heads)), (
            f"the output of {heads} heads of width {D // heads} is wrong: each head reads its own d "
            "of the D queries, keys and values, and is scaled by its own width"
        )


def test_causal_heads_by_hand():
    for heads, D, N in ((2, 8, 5), (4, 8, 3)):
        attention = fill(vit.Attention(D, heads, causal=True), 30 + heads)
        x = numbers(2, N, D, seed=30 + heads)
        assert same(attention(x), attention_by_hand(attention, x, heads, causal=True)), (
            f"the causal output of {heads} heads is wrong: position i sees itself and those before"
        )


def test_attention_of_each_image_alone():
    attention = fill(vit.Attention(8, heads=2, causal=False), 40)
    x = numbers(4, 2, 8, seed=40)
    alone = torch.cat([attention(x[i : i + 1]) for i in range(4)])
    assert same(attention(x), alone), (
        "the output of an image changes with the images beside it in the batch"
    )


# --------------------------------------------------------------------------------------------------
# 2.3 Block.forward


def block_of(width, seed):
    """A block with linear layers in place of attention and MLP."""
    block = vit.Block(width, heads=1)
    block.attn, block.mlp = nn.Linear(width, width), nn.Linear(width, width)
    return fill(block, seed)


def normed(norm, x):
    centred = x - x.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return centred / deviation * norm.weight + norm.bias


def block_by_hand(block, x, adapter1=lambda x: x, adapter2=lambda x: x):
    x = x + block.attn(normed(block.norm1, adapter1(x)))
    return x + block.mlp(normed(block.norm2, adapter2(x)))


def test_block_by_hand():
    block, x = block_of(4, 50), numbers(2, 3, 4, seed=50)
    y = block(x)
    after_attention = x + block.attn(normed(block.norm1, x))
    assert y.shape == x.shape, (
        f"the shape must stay {tuple(x.shape)}, but yours is {tuple(y.shape)}"
    )
    assert not same(y, after_attention + block.mlp(normed(block.norm2, x))), (
        "the MLP reads the block's input: it must read what attention has added to"
    )
    assert same(y, block_by_hand(block, x)), (
        "the block is wrong: x + attn(norm1(x)), and then this plus mlp(norm2(this)). The norms "
        "stand before attention and MLP, and their input itself is what they are added to"
    )


def test_block_without_weights_changes_nothing():
    block, x = block_of(6, 51), 5 + numbers(2, 3, 6, seed=51)
    for layer in (block.attn, block.mlp):
        layer.weight.zero_()
        layer.bias.zero_()
    assert same(block(x), x), (
        "where attention and MLP give zeros, x must come out as it went in: the path around them "
        "has no norm"
    )


def test_block_of_other_numbers():
    for seed in (52, 53, 54):
        block, x = block_of(8, seed), 1 + 3 * numbers(3, 4, 8, seed=seed)
        assert same(block(x), block_by_hand(block, x)), (
            "the block is wrong for other numbers: norm1 goes with attention, norm2 with the MLP"
        )


def test_block_puts_adapters_before_the_norms():
    block, x = block_of(6, 55), numbers(2, 3, 6, seed=55)
    block.adapter1, block.adapter2 = fill(nn.Linear(6, 6), 56), fill(nn.Linear(6, 6), 57)
    assert same(block(x), block_by_hand(block, x, block.adapter1, block.adapter2)), (
        "the adapters are wrong: adapter1 stands before norm1, adapter2 before norm2, and neither "
        "changes what attention and MLP are added to"
    )


# --------------------------------------------------------------------------------------------------
# 2.4 ViT.forward


class Mix(nn.Module):
    """In place of the blocks: each position learns of all others, whatever their order."""

    def __init__(self, width):
        super().__init__()
        self.own, self.rest = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + (self.own(x) + self.rest(x.mean(1, keepdim=True))).tanh()


class Patches(nn.Module):
    """In place of PatchEmbed: a convolution."""

    def __init__(self, patch, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, patch, patch)

    def forward(self, x):
        return self.conv(x).flatten(2).mT


def vit_of(size, image_size, pool, seed):
    model = vit.ViT(size, image_size, pool)
    model.patch_embed = Patches(model.patch_embed.patch, model.width)
    model.blocks = nn.Sequential(Mix(model.width))
    return fill(model, seed)


def vit_by_hand(model, images):
    x = model.patch_embed(images)
    if model.pool == "tok":
        x = torch.cat([model.cls_token.repeat(len(images), 1, 1), x], 1)
    x = x + model.pos_embed
    if isinstance(model.norm_pre, nn.LayerNorm):
        x = normed(model.norm_pre, x)
    x = normed(model.norm, model.blocks(x))
    return x[:, 0] if model.pool == "tok" else x.sum(1) / x.shape[1]


def test_vit_by_hand():
    model, images = vit_of("nano/16", 32, "avg", 60), numbers(2, 3, 32, 32, seed=60)
    y = model(images)
    assert y.shape == (2, 128), f"one vector per image: (2, 128), but yours is {tuple(y.shape)}"
    assert same(y, vit_by_hand(model, images)), (
        "the output is wrong: patches, plus position embeddings, then the blocks, then the norm, "
        "and then the mean over the patches"
    )


def test_permuting_patches_with_their_positions_leaves_the_mean():
    model, images = vit_of("nano/16", 32, "avg", 61), numbers(2, 3, 32, 32, seed=61)
    before = model(images)
    order = torch.tensor([2, 0, 3, 1])
    tiles = images.unflatten(2, (2, 16)).unflatten(4, (2, 16))  # (B, 3, 2, 16, 2, 16)
    tiles = tiles.permute(0, 1, 2, 4, 3, 5).flatten(2, 3)[:, :, order]  # (B, 3, 4, 16, 16)
    shuffled = tiles.unflatten(2, (2, 2)).permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)
    model.pos_embed.copy_(model.pos_embed[:, order])
    assert same(model(shuffled), before), (
        "when patches and their position embeddings change places together, the mean must stay: "
        "take it over all patches"
    )


def test_vit_knows_where_a_patch_is():
    model, images = vit_of("nano/16", 32, "avg", 62), numbers(1, 3, 32, 32, seed=62)
    turned = images.roll(16, dims=3)  # the left and the right patches change places
    assert not same(model(turned), model(images), 1e-3), (
        "the output stays when patches change places: the position embeddings are missing"
    )


def test_vit_with_a_class_token():
    model, images = vit_of("nano/16", 32, "tok", 63), numbers(3, 3, 32, 32, seed=63)
    y = model(images)
    assert y.shape == (3, 128), f"one vector per image: (3, 128), but yours is {tuple(y.shape)}"
    assert same(y, vit_by_hand(model, images)), (
        "the output of a class token is wrong: the token stands before the patches, gets the first "
        "position embedding, and its own vector is what comes out"
    )


def test_vit_of_other_sizes():
    for size, S, pool in (("micro/8", 24, "avg"), ("micro/8", 8, "tok"), ("nano/16", 48, "avg")):
        model, images = vit_of(size, S, pool, 64), 2 + numbers(2, 3, S, S, seed=64)
        assert same(model(images), vit_by_hand(model, images)), (
            f"the output of {size} with images of {S} pixels and the pool {pool} is wrong"
        )


def test_vit_with_clips_norm_before_the_blocks():
    for pool in ("avg", "tok"):
        model, images = vit_of("nano/16-clip", 32, pool, 65), numbers(2, 3, 32, 32, seed=65)
        assert same(model(images), vit_by_hand(model, images)), (
            "with CLIP's variant the output is wrong: norm_pre comes after the position embeddings "
            "and before the blocks"
        )


def test_vit_of_each_image_alone():
    for pool in ("avg", "tok"):
        model, images = vit_of("nano/16", 32, pool, 66), numbers(4, 3, 32, 32, seed=66)
        alone = torch.cat([model(images[i : i + 1]) for i in range(4)])
        assert same(model(images), alone), (
            "the output of an image changes with the images beside it: the mean is over the "
            "patches of one image"
        )
