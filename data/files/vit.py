"""Weights of pretrained image towers: read, renamed, resized, and put into a vit.ViT.

The modules of vit.py carry timm's names. Hugging Face's ViT, DeiT and CLIP vision models hold the
same numbers under other names, so those are translated.
"""

import json
import math
import re
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.common import BadInput, interpreting
from data.files.runs import load_tensors, run_file
from data.files.tensors import mismatch, read_safetensors

PixelNorm = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each colour

# --------------------------------------------------------------------------------------------------
# Names.

# What may stand before all names of a checkpoint.
PREFIX = re.compile(r"^(module|vit|deit|vision_model)\.")

# Pieces of Hugging Face's names -> timm's. They are replaced one after the other, in this order.
HF_NAMES = {
    # ViT and DeiT
    r"embeddings\.patch_embeddings\.projection": "patch_embed.proj",
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.position_embeddings": "pos_embed",
    r"encoder\.layer\.": "blocks.",
    r"attention\.output\.dense": "attn.proj",
    r"intermediate\.dense": "mlp.fc1",
    r"\.output\.dense": ".mlp.fc2",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"^layernorm\.": "norm.",
    # CLIPVisionModel
    r"embeddings\.patch_embedding\.": "patch_embed.proj.",
    r"embeddings\.class_embedding": "cls_token",
    r"embeddings\.position_embedding\.weight": "pos_embed",
    r"encoder\.layers\.": "blocks.",
    r"self_attn\.out_proj": "attn.proj",
    r"layer_norm(\d)": r"norm\1",
    r"^pre_layr?norm\.": "norm_pre.",
    r"^post_layernorm\.": "norm.",
}
# Queries, keys and values are three tensors there and one here. First ViT's and DeiT's names, then
# CLIP's: groups are (block, query | key | value, weight | bias) and (block, q | k | v, ...).
HF_QKV = (
    re.compile(r"(.*)attention\.attention\.(query|key|value)\.(weight|bias)"),
    re.compile(r"(.*)self_attn\.([qkv])_proj\.(weight|bias)"),
)
# What a tower has no use for: heads made for labels, CLIP's projection and text side, and the
# numbers 0, 1, 2, ... of the positions. A head with other parts is not left out. SigLIP's head
# makes one vector of the patches. Without it the vectors would be wrong.
UNUSED = re.compile(
    r"(head|head_dist|fc_norm|classifier|visual_projection|text_projection)\.(weight|bias)$"
    r"|(pooler|pre_logits|text_model|logit_scale)\b|.*position_ids$"
)


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors by timm's names.

    state  of a run of this project, of timm, or of Hugging Face's ViT, DeiT or CLIP vision model
    """
    # In a run of this project the image tower is called "visual" and has timm's names already.
    tower = {
        name.removeprefix("visual."): tensor
        for name, tensor in state.items()
        if name.startswith("visual.")
    }
    if tower:
        return tower

    state = {PREFIX.sub("", name): tensor for name, tensor in state.items()}
    state = join_qkv(state)
    for pattern, name_here in HF_NAMES.items():
        state = {re.sub(pattern, name_here, name): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not UNUSED.match(name)}

    # CLIP's patch projection has no bias. Its class token and positions lack the batch dimension.
    if "norm_pre.weight" in state:
        zeros = torch.zeros_like(state["norm_pre.weight"])
        state.setdefault("patch_embed.proj.bias", zeros)
    if "cls_token" in state:
        state["cls_token"] = state["cls_token"].reshape(1, 1, -1)
    if "pos_embed" not in state:
        some = ", ".join([*list(state)[:3], *(["..."] if len(state) > 3 else [])])
        raise BadInput(f"no vision transformer: it has no pos_embed, but {some or 'nothing'}")
    if not state["pos_embed"].numel():
        raise ValueError("pos_embed is empty")
    state["pos_embed"] = state["pos_embed"].reshape(1, -1, state["pos_embed"].shape[-1])
    return state


def join_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put each block's queries, keys and values, in this order, into one tensor "attn.qkv"."""
    joined = {}
    pieces = defaultdict(dict)  # {name of the one tensor: {"q": ..., "k": ..., "v": ...}}
    for name, tensor in state.items():
        match = HF_QKV[0].fullmatch(name) or HF_QKV[1].fullmatch(name)
        if match:
            block, which, parameter = match.groups()
            pieces[f"{block}attn.qkv.{parameter}"][which[0]] = tensor
        else:
            joined[name] = tensor
    for name, piece in pieces.items():
        if not piece["q"].shape == piece["k"].shape == piece["v"].shape != ():
            raise ValueError(f"{name}: queries, keys and values have different shapes, or none")
        joined[name] = torch.cat([piece["q"], piece["k"], piece["v"]])
    return joined


# --------------------------------------------------------------------------------------------------
# Files.


def read_vit(path: str | Path) -> dict[str, Tensor]:
    """The weights of a ViT by timm's names. BadInput for a file that cannot be read.

    path  a run folder, a Hugging Face folder, or a .safetensors, .pth or .pt file
    """
    path = Path(path)
    if path.is_dir():
        of_run, weights = run_file(path), path / "model.safetensors"
        path = weights if weights.is_file() and not of_run.is_file() else of_run
    with interpreting(path):
        if path.suffix == ".safetensors":
            _, tensors = read_safetensors(path)
            return timm_names({name: stored.decode() for name, stored in tensors.items()})
        state = load_tensors(path)
        if isinstance(state, dict):
            state = state.get("model", state.get("state_dict", state))
        if not isinstance(state, dict):
            raise BadInput(f"holds a {type(state).__name__} and no dictionary of tensors")
        return timm_names(state)


def check_config(tower: nn.Module, path: Path) -> None:
    """BadInput where a Hugging Face config.json asks for something else than a vit.ViT computes.

    The weights do not show how many heads there are, nor which activation.
    """
    with interpreting(path):
        config = json.loads(path.read_text(encoding="utf-8"))
        config = config.get("vision_config", config)  # of a whole CLIP
        activation = tower.blocks[0].mlp.activation.__name__  # "gelu" or "quick_gelu"
        for key, wanted in (
            ("hidden_act", activation),
            ("num_attention_heads", tower.blocks[0].attn.heads),
        ):
            if config.get(key, wanted) != wanted:
                raise BadInput(
                    f"{key} is {config[key]!r}, and --model has {wanted!r}; name another --model"
                )


@torch.no_grad()
def load_vit(
    tower: nn.Module,
    path: str | Path,
    norm: PixelNorm | None = None,
    norm_here: PixelNorm | None = None,
) -> None:
    """Fill a vit.ViT from a file or folder that read_vit knows.

    norm       mean and deviation of the pixels that the weights were trained on
    norm_here  those of the pixels that the tower will get; None of both: they are the same

    Positions of another image size are resized. BadInput for a file that cannot be read, where a
    name is missing or unknown, and where a shape differs.
    """
    state = read_vit(path)
    with interpreting(path):
        here = tower.state_dict()
        if ("cls_token" in state) != ("cls_token" in here):
            pool = "tok" if "cls_token" in state else "avg"
            raise BadInput(f"these weights want --image-pool {pool}")
        if ("norm_pre.weight" in state) != ("norm_pre.weight" in here):
            what = "a" if "norm_pre.weight" in state else "no"
            raise BadInput(
                f"these weights have {what} norm before the blocks, as CLIP's towers do; the names "
                "of such towers end in -clip or -quickgelu (--model)"
            )
        if "patch_embed.proj.weight" in state:  # a convolution elsewhere, a linear layer here
            state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
        if "pos_embed" in state:
            n_extra = 1 if "cls_token" in state else 0
            state["pos_embed"] = resized_positions(
                state["pos_embed"], tower.state_dict()["pos_embed"].shape[1], n_extra
            )
        # The method LilT puts adapters into the tower before its weights come. A file without them
        # leaves them as they start.
        for name, tensor in tower.state_dict().items():
            if ".adapter1." in name or ".adapter2." in name:
                state.setdefault(name, tensor)
        problem = mismatch(state, tower, "--model, --image-size and --image-pool want")
        if problem:
            raise BadInput(problem)
        folder = Path(path) if Path(path).is_dir() else Path(path).parent
        config_file = folder / "config.json"
        if config_file.is_file():
            check_config(tower, config_file)
        for name, tensor in state.items():
            if not tensor.is_floating_point() or not tensor.isfinite().all():
                raise BadInput(f"its weights {name} are not finite, or no floating-point numbers")
        if norm != norm_here:
            change_pixel_norm(state, norm, norm_here)
        tower.load_state_dict(state)


def resized_positions(positions: Tensor, count: int, n_extra: int) -> Tensor:
    """Position embeddings (1, n_extra + old * old, D) -> (1, count, D).

    They are resized like an image, bicubic and antialiased. The first n_extra, of a class token,
    belong to no place and stay.
    """
    if positions.shape[1] == count:
        return positions
    extra, grid = positions[:, :n_extra], positions[:, n_extra:].float()
    old = math.isqrt(grid.shape[1])
    new = math.isqrt(count - n_extra)
    if not old or not new or old * old != grid.shape[1]:
        raise BadInput(
            f"pos_embed has {grid.shape[1]} patch positions, which make no square of {new} x {new}"
        )
    grid = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)  # (1, D, old, old)
    grid = F.interpolate(grid, (new, new), mode="bicubic", antialias=True)  # (1, D, new, new)
    return torch.cat([extra, grid.flatten(2).transpose(1, 2)], dim=1)


def change_pixel_norm(state: dict[str, Tensor], norm: PixelNorm, norm_here: PixelNorm) -> None:
    """Change the patch projection, in place, for pixels that are normalised in another way.

        x = (pixel - mean) / std                what the projection W x + b was trained on
        y = (pixel - mean_here) / std_here      what it will get
        x = (std_here / std) y + (mean_here - mean) / std

    So W (std_here / std) and b + W (mean_here - mean) / std make the same numbers of y. All means
    and deviations are one number per colour.
    """
    mean, std = torch.tensor(norm).double()  # 2 x (3,)
    mean_here, std_here = torch.tensor(norm_here).double()
    kernel = state["patch_embed.proj.weight"].double().unflatten(1, (3, -1))  # (D, 3, p p)
    shift = ((mean_here - mean) / std)[:, None]  # (3, 1)
    bias = state["patch_embed.proj.bias"].double()  # (D,)
    state["patch_embed.proj.bias"] = bias + (kernel * shift).sum((1, 2))
    state["patch_embed.proj.weight"] = (kernel * (std_here / std)[:, None]).flatten(1)
