"""A small Vision Transformer. (Dosovitskiy et al. 2021, arXiv 2010.11929)

Modules carry timm's names (patch_embed.proj, blocks.0.attn.qkv, ...). Two things differ from the textbook:
the mean of the patches is the output, unless a class token is asked for; and position embeddings start at std 0.5 instead of
0.02: beside patch projections of std about 0.6 the usual start is invisible to the first blocks.
"""

import torch
import torch.nn.functional as F
from torch import nn

from data.common import BadInput

# name: (patch side in pixels, width, blocks, heads). Image size is free; it fixes the number of patches. "-clip" behind a name
# makes CLIP's own tower (to load its weights): a norm before the blocks, eps 1e-5; "-quickgelu" OpenAI's, with their activation.
SIZES = {
    "micro/8": (8, 128, 4, 4),
    "micro/16": (16, 192, 4, 6),
    "Ti/16": (16, 192, 12, 3),
    "S/16": (16, 384, 12, 6),
    "B/16": (16, 768, 12, 12),
    "B/32": (32, 768, 12, 12),
    "L/14": (14, 1024, 24, 16),
}
KINDS = ("", "-clip", "-quickgelu")


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


class PatchEmbed(nn.Module):
    """Cut the picture into squares and project each: a convolution whose stride is its kernel, as reshape + Linear."""

    def __init__(self, patch, width):
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(3 * patch * patch, width)

    def forward(self, x):  # (B, 3, H, W)
        return self.proj(
            F.pixel_unshuffle(x, self.patch).flatten(2).mT.contiguous()
        )  # (B, N, 3 p p) -> (B, N, D)


class Attention(nn.Module):
    """Multi-head self-attention, (B, N, D) -> (B, N, D)."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        B, N, D = x.shape
        q, k, v = (
            self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        )  # 3 x (B, H, N, d)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).reshape(B, N, D))


class MLP(nn.Module):
    """Two linear layers, four times as wide between them, (B, N, D) -> (B, N, D)."""

    def __init__(self, width, activation):
        super().__init__()
        self.fc1, self.fc2, self.activation = (
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
            activation,
        )

    def forward(self, x):
        return self.fc2(self.activation(self.fc1(x)))


class Block(nn.Module):
    """Pre-LN transformer block; CLIP's text transformer uses it too, causally."""

    def __init__(self, width, heads, causal=False, eps=1e-6, activation=F.gelu):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads, causal)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = MLP(width, activation)
        self.adapter1 = self.adapter2 = nn.Identity()  # LilT puts something here (lift.py)

    def forward(self, x):
        x = x + self.attn(self.norm1(self.adapter1(x)))
        return x + self.mlp(self.norm2(self.adapter2(x)))


class ViT(nn.Module):
    """CaptionedImages (B, 3, S, S), normalised -> features (B, width).

    size        a key of SIZES, exactly, with one of KINDS behind it
    image_size  side S in pixels, a multiple of the patch side
    pool        "avg": mean of the patch tokens, as LIFT does (no class token then); "tok": a class token
    """

    def __init__(self, size="micro/8", image_size=64, pool="avg"):
        super().__init__()
        name, *kind = size.split("-", 1)
        if name not in SIZES or size[len(name) :] not in KINDS:
            raise BadInput(
                f"model {size!r} is unknown; choose one of {', '.join(SIZES)}, for CLIP's weights with {' or '.join(KINDS[1:])}"
            )
        if pool not in ("avg", "tok"):
            raise BadInput(f"pool {pool!r} is unknown; choose avg or tok")
        patch, width, depth, heads = SIZES[name]
        eps, activation = 1e-5 if kind else 1e-6, quick_gelu if kind == ["quickgelu"] else F.gelu
        if image_size % patch:
            raise BadInput(
                f"image size {image_size} is not a multiple of the patch side {patch} of {size}"
            )
        self.width, self.pool = width, pool
        tokens = (image_size // patch) ** 2 + (pool == "tok")
        self.patch_embed = PatchEmbed(patch, width)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02) if pool == "tok" else None
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, width) * 0.5)
        self.norm_pre = nn.LayerNorm(width, eps) if kind else nn.Identity()
        self.blocks = nn.Sequential(
            *(Block(width, heads, eps=eps, activation=activation) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width, eps)
        init_linears(self)

    def forward(self, images):
        x = self.patch_embed(images)  # (B, N, D)
        if self.pool == "tok":
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # (B, 1 + N, D)
        x = self.norm(self.blocks(self.norm_pre(x + self.pos_embed)))  # (B, N, D)
        return x[:, 0] if self.pool == "tok" else x.mean(1)


def init_linears(module):
    """Weights uniform with variance 2 / (fan in + fan out) (Glorot & Bengio 2010), biases zero."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
