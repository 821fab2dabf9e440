"""Who throws what away? How far apart false captions are, and what images' features still tell.

    python -m tests.experiments.apart runs/demo/lift runs/demo/clip    # docs/results/apart.md

cosine  between a true caption and its false one, in the text space that a run trained with; 1 means
        "the same"
right   how often the image is nearer to the true one
probe   share of test images of which ridge regression on the image tower's output names the first
        thing's shape, colour or size, or the first relation; it learns from 4,000 training images
"""

import argparse
import sys

import numpy as np
import torch
import torch.nn.functional as F

from data.benchmarks import Result, held_out
from data.common import exit_status
from data.images.pixels import normalize_pixels
from data.images.read import read_images
from data.world.shapes import CATEGORIES, Scene
from eval import Run, evaluate

# question: the right answer for a scene
QUESTIONS = {
    "first object: shape": lambda scene: scene.things[0].shape,
    "first object: colour": lambda scene: scene.things[0].colour,
    "first object: size": lambda scene: scene.things[0].size,
    "first relation": lambda scene: scene.relations[0],
}


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
    train: torch.Tensor, test: torch.Tensor, train_labels: list[str], test_labels: list[str]
) -> tuple[float, float]:
    """Accuracy of ridge regression to one-hot labels, and of always naming the commonest label.

    W = (X^T X + lambda I)^-1 X^T Y     X: centred training features, Y: centred one-hot labels
    """
    kinds = sorted(set(train_labels))
    one_hot = torch.eye(len(kinds))[[kinds.index(label) for label in train_labels]]
    x = train - train.mean(0)
    y = one_hot - one_hot.mean(0)
    ridge = 1e-3 * len(x) * x.var() * torch.eye(x.shape[1])
    weights = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
    guesses = ((test - train.mean(0)) @ weights + one_hot.mean(0)).argmax(1)

    is_right = [kinds[guess] == label for guess, label in zip(guesses, test_labels, strict=True)]
    commonest = max(test_labels.count(kind) for kind in kinds)
    return np.mean(is_right), commonest / len(test_labels)


def caption_table(results: list[Result]) -> None:
    """Print cosine and right, one row per category of false captions."""
    titles = [f"{result.folder.name}: cosine | right" for result in results]
    print(f"| false caption | {' | '.join(titles)} |")
    print("|---|" + "---|---|" * len(results))
    for category in CATEGORIES:
        cells = []
        for result in results:
            rows = [negative.category == category for negative in result.task.negatives]
            cosine = (result.true * result.false).sum(1)[rows].mean()
            right = result.is_correct.numpy()[rows].mean()
            cells.append(f"{cosine:.3f} | {right:.1%}")
        print(f"| {category} | {' | '.join(cells)} |")


def probe_table(runs: list[Run]) -> None:
    """Print the probe's accuracy, one row per question."""
    train = [tower_features(trained, "train", 4000) for trained in runs]
    test = [tower_features(trained, "test", 0) for trained in runs]
    names = [trained.folder.name for trained in runs]
    print(f"\n| probe of the image tower | always the commonest | {' | '.join(names)} |")
    print("|---|---|" + "---|" * len(runs))
    for question, answer in QUESTIONS.items():
        cells = []
        for (x, scenes), (x_test, test_scenes) in zip(train, test, strict=True):
            labels = [answer(scene) for scene in scenes]
            test_labels = [answer(scene) for scene in test_scenes]
            accuracy, commonest = probe(x, x_test, labels, test_labels)
            cells.append(f"{accuracy:.1%}")
        print(f"| {question} | {commonest:.1%} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+")
    runs = [Run(folder) for folder in parser.parse_args().runs]
    caption_table([evaluate(trained, held_out(trained.config)) for trained in runs])
    probe_table(runs)


if __name__ == "__main__":
    sys.exit(exit_status(main))
