"""Who throws what away? How far apart false captions are, and what images' features still tell.

    python -m tests.experiments.apart runs/demo/lift runs/demo/clip    # docs/results/apart.md

cosine  between a true caption and its false one, in the text space that a run trained with; 1 means
        "the same"
right   how often the image is nearer to the true one
probe   share of test images of which ridge regression on the image tower's output names a fact of
        the first thing, or the first relation; it learns from 4,000 training images
of two  how often the probe prefers the right answer to that of the false captions: the same fact of
        the second thing, or the opposite relation
"""

import argparse
import sys

import numpy as np
import torch
import torch.nn.functional as F

from data.benchmarks import Negative, Result, held_out
from data.common import exit_status
from data.images.pixels import normalize_pixels
from data.images.read import read_images
from data.world.shapes import CATEGORIES, OPPOSITE, TEXTURES, Scene
from eval import Run, evaluate

FACTS = ("shape", "colour", "texture", "size", "relation")


def answers(scene: Scene, fact: str) -> tuple[str, str]:
    """(what is so, what a false caption says in its place) of the first thing or relation."""
    if fact == "relation":
        return scene.relations[0], OPPOSITE[scene.relations[0]]
    first, second = (getattr(thing, fact) for thing in scene.things[:2])
    return first, second


def kind_of(negative: Negative) -> str:
    """The category of a false caption. Exchanged colours and exchanged textures are two kinds."""
    if negative.category != "swap_att":
        return negative.category
    rests = [[w for w in text.split() if w not in TEXTURES] for text in negative[2:]]
    return "swap_att, textures" if rests[0] == rests[1] else "swap_att, colours"


KINDS = (*CATEGORIES[:-1], "swap_att, colours", "swap_att, textures")


@torch.no_grad()
def tower_features(trained: Run, split: str, count: int) -> tuple[torch.Tensor, list[Scene]]:
    """(features of the image tower (N, D), scenes) of images with two things or more."""
    config = trained.config
    images = read_images(config["data"], split, config["image_size"], num_samples=count)
    rows = [i for i, scene in enumerate(images.scenes) if len(scene.things) > 1]
    features = []
    for start in range(0, len(rows), 256):
        pixels = torch.from_numpy(images.pixels(rows[start : start + 256]))
        features.append(F.normalize(trained.model.visual(normalize_pixels(pixels)), dim=-1))
    return torch.cat(features), [images.scenes[i] for i in rows]


def probe(
    train: torch.Tensor,
    test: torch.Tensor,
    train_labels: list[str],
    test_labels: list[str],
    other_labels: list[str],
) -> tuple[float, float, float]:
    """Ridge regression to one-hot labels -> how often it names the label, prefers it to the other
    label, and how often the commonest label is right. A question with two answers needs two labels
    that differ and that training has.

    W = (X^T X + lambda I)^-1 X^T Y     X: centred training features, Y: centred one-hot labels
    """
    kinds = sorted(set(train_labels))
    one_hot = torch.eye(len(kinds))[[kinds.index(label) for label in train_labels]]
    x = train - train.mean(0)
    y = one_hot - one_hot.mean(0)
    ridge = 1e-3 * len(x) * x.var() * torch.eye(x.shape[1])
    weights = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
    scores = (test - train.mean(0)) @ weights + one_hot.mean(0)  # (N, labels)

    is_right = []
    is_preferred = []
    for row, label, other in zip(scores, test_labels, other_labels, strict=True):
        is_right.append(kinds[row.argmax()] == label)
        if label != other and other in kinds:
            is_preferred.append((row[kinds.index(label)] > row[kinds.index(other)]).item())
    commonest = max(test_labels.count(kind) for kind in kinds)
    return np.mean(is_right), np.mean(is_preferred), commonest / len(test_labels)


def caption_table(results: list[Result]) -> None:
    """Print cosine and right, one row per category of false captions."""
    titles = [f"{result.folder.name}: cosine | right" for result in results]
    print(f"| false caption | {' | '.join(titles)} |")
    print("|---|" + "---|---|" * len(results))
    for kind in KINDS:
        cells = []
        for result in results:
            rows = [kind_of(negative) == kind for negative in result.task.negatives]
            cosine = (result.true * result.false).sum(1)[rows].mean()
            right = result.is_correct.numpy()[rows].mean()
            cells.append(f"{cosine:.3f} | {right:.1%}")
        print(f"| {kind} | {' | '.join(cells)} |")


def probe_table(runs: list[Run]) -> None:
    """Print the probe's accuracy, one row per question."""
    train = [tower_features(trained, "train", 4000) for trained in runs]
    test = [tower_features(trained, "test", 0) for trained in runs]
    titles = [f"{trained.folder.name} | of two" for trained in runs]
    print(f"\n| probe of the image tower | always the commonest | {' | '.join(titles)} |")
    print("|---|---|" + "---|---|" * len(runs))
    for fact in FACTS:
        cells = []
        for (x, scenes), (x_test, test_scenes) in zip(train, test, strict=True):
            labels = [answers(scene, fact)[0] for scene in scenes]
            test_labels, others = zip(*(answers(scene, fact) for scene in test_scenes), strict=True)
            accuracy, of_two, commonest = probe(x, x_test, labels, test_labels, others)
            cells.append(f"{accuracy:.1%} | {of_two:.1%}")
        print(f"| {fact} | {commonest:.1%} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+")
    runs = [Run(folder) for folder in parser.parse_args().runs]
    caption_table([evaluate(trained, held_out(trained.config)) for trained in runs])
    probe_table(runs)


if __name__ == "__main__":
    sys.exit(exit_status(main))
