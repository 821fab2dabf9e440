"""A small Vision Transformer: an image becomes one vector.

    image (3, S, S)  ->  square patches  ->  N vectors  ->  transformer  ->  mean  ->  (D,)

After Dosovitskiy et al. 2021, arXiv 2010.11929. Read this file first. It needs torch and nothing
else, so you can copy it into a project of your own. On a first reading skip the class token and
CLIP's variants: the default tower uses neither.

Modules carry the names of the library timm (patch_embed.proj, blocks.0.attn.qkv, ...). By these
names data/files/vit.py loads timm's weights. Two choices differ from the textbook:

- The output is the mean of the patch vectors, as in LIFT (arXiv 2506.04209). A class token is an
  option.
- Position embeddings start with the standard deviation 0.5, not the usual 0.02. They are added to
  the projections of the patches, whose standard deviation within an image is 0.66
  (docs/results/cone.md). Beside that 0.02 is small. With 0.5 a small tower learns sooner where
  things stand (docs/results/positions.md).

Letters of shapes: B images in a batch, S pixels per side, p pixels per side of a patch,
P = (S / p)^2 patches, N vectors of an image, D width, H heads, d = D / H width of a head. N is P,
or P + 1 with a class token.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# name: (side of a patch in pixels, width, blocks, heads). The image size is free: it only sets how
# many patches there are. The sizes from Ti to L are those of the papers. The first three are ours:
# they train in minutes on a CPU.
SIZES = {
    "nano/16": (16, 128, 4, 4),
    "micro/8": (8, 128, 4, 4),
    "micro/16": (16, 192, 4, 6),
    "Ti/16": (16, 192, 12, 3),
    "S/16": (16, 384, 12, 6),
    "B/16": (16, 768, 12, 12),
    "B/32": (32, 768, 12, 12),
    "L/14": (14, 1024, 24, 16),
}
# How a size may end, as in "B/32-clip". "-clip" is CLIP's own tower: it has one more norm before
# the blocks, and another eps. "-quickgelu" is OpenAI's first release of it, which has another
# activation, too. Both serve to load weights.
KINDS = ("", "-clip", "-quickgelu")


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), the approximation of GELU that OpenAI's CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


class PatchEmbed(nn.Module):
    """Cut each image into patches and map each patch to a vector: (B, 3, S, S) -> (B, P, D).

    Other code writes this as a convolution whose stride equals its kernel. It is the same thing:
    every patch is one row of 3 p p numbers, and one linear layer maps all rows. Patches come in
    reading order, the top row of patches first. Within a patch the colour comes first, then the
    row, then the column.
    """

    def __init__(self, patch: int, width: int):
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(3 * patch * patch, width)

    def forward(self, x: Tensor) -> Tensor:
        B, colours, S, _ = x.shape
        p, n = self.patch, S // self.patch
        # Pixel row i is row i % p of a patch in patch row i // p. The same holds for columns. So
        # two sides become four, and no number moves.
        x = x.view(B, colours, n, p, n, p)
        # First the place of a patch, then what it holds. This copies every number once.
        x = x.permute(0, 2, 4, 1, 3, 5).reshape(B, n * n, colours * p * p)  # (B, P, 3 p p)
        return self.proj(x)  # (B, P, D)


class Attention(nn.Module):
    """Multi-head self-attention, (B, N, D) -> (B, N, D). (Vaswani et al. 2017, arXiv 1706.03762)

        head = softmax(q k^T / sqrt(d)) v

    Each head mixes the N vectors by weights of its own. With `causal`, position i sees only the
    positions up to i. CLIP's text transformer (lift.py) needs that.

    qkv   D -> 3 D: the queries of all heads, then the keys, then the values. In each of the three
          the d numbers of head 0 come first, then those of head 1, and so on
    proj  D -> D, on the outputs of all heads side by side
    """

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, N, D = x.shape
        # One matrix product makes queries, keys and values of all heads.
        qkv = self.qkv(x).view(B, N, 3, self.heads, D // self.heads)  # (B, N, 3, H, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 x (B, H, N, d)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)  # (B, H, N, d)
        # Put the heads side by side again, and let one linear layer mix them.
        return self.proj(y.transpose(1, 2).reshape(B, N, D))


class MLP(nn.Module):
    """Two linear layers with four times the width between them, for each position by itself."""

    def __init__(self, width: int, activation: Callable):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D)
        return self.fc2(self.activation(self.fc1(x)))


class Block(nn.Module):
    """One transformer block. The norms stand before attention and MLP ("pre-norm"):

        x' = x  + attention(norm1(x))                    x comes in, y goes out
        y  = x' + mlp(norm2(x'))

    adapter1 and adapter2 are places for the method LilT (lift.py). With LilT norm1 reads
    adapter1(x), and norm2 reads adapter2(x'). The x and the x' to the left of the plus do not go
    through an adapter. Without LilT both adapters do nothing.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        causal: bool = False,
        eps: float = 1e-6,
        activation: Callable = F.gelu,
    ):
        super().__init__()
        self.width = width
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads, causal)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = MLP(width, activation)
        self.adapter1 = nn.Identity()
        self.adapter2 = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D)
        x = x + self.attn(self.norm1(self.adapter1(x)))
        x = x + self.mlp(self.norm2(self.adapter2(x)))
        return x


class ViT(nn.Module):
    """Images (B, 3, S, S), float, normalised as CLIP does -> vectors (B, D).

        x = norm_pre(patches + positions)                norm_pre: only CLIP's tower has it
        y = norm(blocks(x))
        output = the mean of y over the patches, or y at the class token

    size        a key of SIZES, with one of KINDS behind it
    image_size  S, a multiple of the patch's side
    pool        "avg": the mean of the patch vectors; "tok": a class token, read at the end. It
                stands before the patches and has a position of its own

    Raises ValueError for a size or pool that does not exist, and for an image size that is no
    multiple of the patch's side.
    """

    def __init__(self, size: str = "nano/16", image_size: int = 64, pool: str = "avg"):
        super().__init__()
        name = size.split("-")[0]
        kind = size[len(name) :]  # "", "-clip" or "-quickgelu"
        if name not in SIZES or kind not in KINDS:
            raise ValueError(f"model {size!r} is unknown; choose one of {', '.join(SIZES)}")
        if pool not in ("avg", "tok"):
            raise ValueError(f"pool {pool!r} is unknown; choose avg or tok")
        patch, width, depth, heads = SIZES[name]
        if image_size % patch:
            raise ValueError(f"image size {image_size} is no multiple of {size}'s patch, {patch}")
        eps = 1e-5 if kind else 1e-6  # CLIP's norms have the first one, timm's the second
        activation = quick_gelu if kind == "-quickgelu" else F.gelu

        self.width = width
        self.pool = pool
        self.patch_embed = PatchEmbed(patch, width)
        N = (image_size // patch) ** 2
        if pool == "tok":
            self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
            N += 1
        else:
            self.cls_token = None
        # Attention does not know where a patch was. These learned vectors tell it.
        self.pos_embed = nn.Parameter(torch.randn(1, N, width) * 0.5)
        self.norm_pre = nn.LayerNorm(width, eps) if kind else nn.Identity()
        blocks = [Block(width, heads, eps=eps, activation=activation) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width, eps)
        init_linears(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images)  # (B, P, D)
        if self.pool == "tok":
            # The class token stands first. It is the same for all images until attention fills it.
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # (B, P + 1, D)
        x = self.norm_pre(x + self.pos_embed)  # (B, N, D)
        x = self.norm(self.blocks(x))  # (B, N, D)
        return x[:, 0] if self.pool == "tok" else x.mean(1)  # (B, D)


def init_linears(module: nn.Module) -> None:
    """Start every linear layer in `module`: biases at zero, weights uniform with variance
    2 / (inputs + outputs), so that signals keep their size. (Glorot & Bengio 2010)"""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
