"""Weights of image towers."""

import math
import re
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F

from data.common import BadInput, interpreting
from data.files.runs import load_tensors
from data.files.tensors import mismatch, read_safetensors
from data.images.pixels import PIXEL_NORMS

# ---------------------------------------------------------------------------------------------------------------
# Weights of others. Modules here carry timm's names already; Hugging Face's ViT and DeiT have these.

HF_NAMES = {
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
    # and its CLIPVisionModel these
    r"embeddings\.patch_embedding\.": "patch_embed.proj.",
    r"embeddings\.class_embedding": "cls_token",
    r"embeddings\.position_embedding\.weight": "pos_embed",
    r"encoder\.layers\.": "blocks.",
    r"self_attn\.out_proj": "attn.proj",
    r"layer_norm(\d)": r"norm\1",
    r"^pre_layr?norm\.": "norm_pre.",
    r"^post_layernorm\.": "norm.",
}
HF_QKV = re.compile(
    r"(.*)(?:attention\.attention\.(query|key|value)|self_attn\.([qkv])_proj)\.(weight|bias)"
)
# What an image tower has no use for: heads made for labels, CLIP's projection, its text side, and numbers of positions.
DROPPED = r"(head|head_dist|fc_norm|pooler|classifier|pre_logits|visual_projection|text_projection|text_model|logit_scale)\b|.*position_ids$"


def timm_names(state):
    """A checkpoint's tensors by timm's names: a run's own, timm's, or those of Hugging Face's ViT, DeiT and CLIP vision models."""
    if any(name.startswith("visual.") for name in state):  # a run of this project
        return {
            name.removeprefix("visual."): t
            for name, t in state.items()
            if name.startswith("visual.")
        }
    state, parts = (
        {re.sub(r"^(module|vit|deit|vision_model)\.", "", name): t for name, t in state.items()},
        defaultdict(dict),
    )
    for name in [*state]:
        if found := HF_QKV.fullmatch(name):
            block, *which, kind = found.groups()
            parts[f"{block}attn.qkv.{kind}"][next(filter(None, which))[0]] = state.pop(name)
    state |= {name: torch.cat([own[part] for part in "qkv"]) for name, own in parts.items()}
    for theirs, ours in HF_NAMES.items():
        state = {re.sub(theirs, ours, name): t for name, t in state.items()}
    if "norm_pre.weight" in state:  # CLIP's patches have no bias
        state.setdefault("patch_embed.proj.bias", torch.zeros_like(state["norm_pre.weight"]))
    for name, dims in (
        ("cls_token", (1, 1, -1)),
        ("pos_embed", (1, -1, state["pos_embed"].shape[-1])),
    ):
        if name in state:
            state[name] = state[name].reshape(dims)
    return {name: t for name, t in state.items() if not re.match(DROPPED, name)}


def read_vit(path):
    """{timm's name: tensor} of a ViT: a run folder, or a .safetensors, .pth or .pt file in timm's or Hugging Face's layout."""
    path = Path(path)
    if path.is_dir():
        path /= (
            "checkpoint.pt"
            if (path / "checkpoint.pt").is_file() or not (path / "model.safetensors").is_file()
            else "model.safetensors"
        )
    with interpreting(path):
        if path.suffix == ".safetensors":
            state = {name: stored.decode() for name, stored in read_safetensors(path)[1].items()}
        else:
            state = load_tensors(path)
            state = state.get("model", state.get("state_dict", state))
        return timm_names(state)


@torch.no_grad()
def load_vit(tower, path, norm="clip"):
    """Fill a vit.ViT from a file or run folder that read_vit knows.

    norm, a key of pixels.PIXEL_NORMS, says how the file's makers normalised pixels; where that is not CLIP's way, the
    patch projection is changed so that it sees from pixels normalised in CLIP's way what it saw before.
    Positions of another image size are resized as a picture would be (bicubic, antialiased). Raises BadInput for a
    file that cannot be read, and where a name is missing or unknown or a shape differs.
    """
    state, wanted = read_vit(path), tower.state_dict()
    with interpreting(path):
        if "patch_embed.proj.weight" in state:  # a convolution elsewhere, a linear layer here
            state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
        if "pos_embed" in state and state["pos_embed"].shape[1] != wanted["pos_embed"].shape[1]:
            extra = int("cls_token" in state)
            grid = state["pos_embed"][:, extra:].float()
            old, new = (
                math.isqrt(n) for n in (grid.shape[1], wanted["pos_embed"].shape[1] - extra)
            )
            if not old or old * old != grid.shape[1]:
                raise BadInput(
                    f"pos_embed has {grid.shape[1]} patch positions, which make no square"
                )
            grid = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)  # (1, D, old, old)
            grid = (
                F.interpolate(grid, (new, new), mode="bicubic", antialias=True)
                .flatten(2)
                .transpose(1, 2)
            )
            state["pos_embed"] = torch.cat(
                [state["pos_embed"][:, :extra], grid], dim=1
            )  # (1, extra + new * new, D)
        if wrong := mismatch(state, tower, "--model, --image-size and --image-pool want"):
            raise BadInput(wrong)
        if not all(bool(t.isfinite().all()) for t in state.values()):
            raise BadInput("some of its weights are not finite")
        (our_mean, our_std), (mean, std) = (
            torch.tensor(PIXEL_NORMS[name]).double() for name in ("clip", norm)
        )
        kernel = state["patch_embed.proj.weight"].double().unflatten(1, (3, -1))  # (D, 3, pixels)
        state["patch_embed.proj.bias"] = state["patch_embed.proj.bias"].double() + (
            kernel * ((our_mean - mean) / std)[:, None]
        ).sum((1, 2))
        state["patch_embed.proj.weight"] = (kernel * (our_std / std)[:, None]).flatten(1)
        tower.load_state_dict(state)
