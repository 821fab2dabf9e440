"""The numbers behind the comments of llm_text.py and vit.py: the sink, the cone, the positions.

    python -m tests.experiments.cone    # docs/results/cone.md; less than a minute

All are of the default model and the built-in world. Nothing is trained, and no seed is drawn but
that of the image tower's weights.
"""

import sys

import torch
import torch.nn.functional as F

from data.common import exit_status
from data.images.pixels import normalize_pixels
from data.images.read import read_images
from data.world import shapes
from llm_text import FrozenLLM, load_llm, whitening
from train import Config
from vit import ViT


def captions(n_scenes: int) -> list[str]:
    """The distinct captions of the first training scenes."""
    scenes = shapes.make_scenes("train", n_scenes)
    return list(dict.fromkeys(shapes.caption(scene) for scene in scenes))


def norms_after(llm: FrozenLLM, texts: list[str], layer: int) -> tuple[float, float]:
    """The mean norm of the first token's state after a block, and that of all other tokens."""
    first, others = [], []
    for start in range(0, len(texts), 32):
        ids, mask = llm.tokenize(texts[start : start + 32])
        norms = llm(ids, mask, layer).norm(dim=-1)  # (B, L)
        first.append(norms[:, 0])
        others.append(norms[:, 1:][mask[:, 1:]])
    return float(torch.cat(first).mean()), float(torch.cat(others).mean())


def mean_cosine(vectors: torch.Tensor) -> float:
    """The mean cosine of two different vectors of (N, D)."""
    unit = F.normalize(vectors, dim=-1)
    n = len(unit)
    mean = float(((unit @ unit.T).sum() - n) / (n * (n - 1)))
    return round(mean, 2) + 0.0  # 0.0 in place of -0.0


def main() -> None:
    torch.manual_seed(0)
    rows = []
    llm = load_llm()
    few, many = captions(200), captions(1500)
    for layer in (10, 15):
        first, others = norms_after(llm, few, layer)
        rows += [(f"norm of the first token after block {layer}", f"{first:.0f}")]
        rows += [(f"norm of the other tokens after block {layer}", f"{others:.0f}")]

    vectors = llm.encode(few)
    mean = vectors.mean(0)
    to_mean = F.cosine_similarity(vectors, mean[None]).mean()
    rows += [
        ("cosine of two captions", f"{mean_cosine(vectors):.2f}"),
        ("the same, centred", f"{mean_cosine(vectors - mean):.2f}"),
        ("cosine of a caption and the mean vector", f"{to_mean:.2f}"),
    ]

    vectors = llm.encode(many)
    centre, directions = whitening(vectors, 256, power=0)
    deviations = ((vectors - centre) @ directions).std(0)  # the largest first
    variance = (vectors - centre).var(0).sum()
    share = deviations[:8].square().sum() / variance
    rows += [
        ("share of the variance in 8 directions", f"{share:.0%}"),
        ("deviation along the 256th direction", f"{deviations[-1]:.2f}"),
        ("largest element of a vector", f"{vectors.abs().max():.0f}"),
    ]

    # How much the projections of an image's patches differ at the start, with random weights.
    default = Config()
    tower = ViT(default.model, default.image_size)
    images = read_images("shapes", "train", default.image_size, num_samples=200)
    pixels = normalize_pixels(torch.from_numpy(images.pixels(range(len(images)))))
    with torch.no_grad():
        patches = tower.patch_embed(pixels)  # (B, N, D)
    spread = (patches - patches.mean(1, keepdim=True)).std()
    rows += [("deviation of patches within an image", f"{spread:.2f}")]

    print("| what | number |\n|---|---|")
    for what, number in rows:
        print(f"| {what} | {number} |")


if __name__ == "__main__":
    sys.exit(exit_status(main))
