"""Who throws what away? How far apart texts are, and what pictures' features still tell. Reproduces docs/results/apart.md.

    python -m tests.apart runs/demo/lift runs/demo/clip

cosine   between a true caption and its false one, in the text space that a run trained with: 1 is "the same"
right    how often the picture is nearer to the true one
probe    share of test pictures of which ridge regression on the image tower's output (4,000 training pictures) names the first
         object's shape, colour or size, or the first relation
"""

import argparse
import sys

import numpy as np
import torch

import eval as ev
from data import benchmarks
from data.common import run
from data.images import read as readers
from data.world import shapes


@torch.no_grad()
def features(r, split, count):
    """(features of the tower (N, D), scenes) of pictures of two objects or more."""
    pictures = readers.read_images(r.cfg["data"], split, r.cfg["image_size"], count)
    rows = [i for i, scene in enumerate(pictures.scenes) if len(scene.things) > 1]
    head, r.model.image_head = r.model.image_head, torch.nn.Identity()
    made = torch.cat(
        [r.encode_images(pictures.take(rows[i : i + 256])) for i in range(0, len(rows), 256)]
    )
    r.model.image_head = head
    return made, [pictures.scenes[i] for i in rows]


def probe(train, test, labels):
    """Accuracy of ridge regression to one-hot labels. labels: (of train, of test)."""
    kinds = sorted(set(labels[0]))
    hot = torch.eye(len(kinds))[[kinds.index(x) for x in labels[0]]]
    mean, x, y = train.mean(0), train - train.mean(0), hot - hot.mean(0)
    weights = torch.linalg.solve(x.T @ x + 1e-3 * len(x) * x.var() * torch.eye(x.shape[1]), x.T @ y)
    guess = ((test - mean) @ weights + hot.mean(0)).argmax(1)
    return np.mean([kinds[g] == label for g, label in zip(guess, labels[1])]), max(
        map(labels[1].count, kinds)
    ) / len(labels[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+")
    runs = [r.embed(benchmarks.captions(r.cfg)) for r in map(ev.Run, parser.parse_args().runs)]
    kinds = np.array([kind for _, kind, *_ in runs[0].task.negatives])
    print(
        "| false caption | "
        + " | ".join(f"{r.folder.name}: cosine | right" for r in runs)
        + " |\n|---|"
        + "---|---|" * len(runs)
    )
    for kind in shapes.CATEGORIES:
        cells = [
            f"{(r.true * r.false).sum(1)[kinds == kind].mean():.3f} | {r.right.numpy()[kinds == kind].mean():.1%}"
            for r in runs
        ]
        print(f"| {kind} | {' | '.join(cells)} |")
    asked = {
        "shape": lambda s: s.things[0].shape,
        "colour": lambda s: s.things[0].colour,
        "size": lambda s: s.things[0].size,
        "relation": lambda s: s.relations[0],
    }
    both = [
        [features(r, split, count) for split, count in (("train", 4000), ("test", 0))] for r in runs
    ]
    print(
        "\n| probe of the image tower | always the commonest | "
        + " | ".join(r.folder.name for r in runs)
        + " |\n|---|---|"
        + "---|" * len(runs)
    )
    for name, ask in asked.items():
        found = [
            probe(a, b, [[ask(s) for s in scenes] for scenes in (p, q)]) for (a, p), (b, q) in both
        ]
        print(
            f"| first {'object: ' * (name != 'relation')}{name} | {found[0][1]:.1%} | {' | '.join(f'{x:.1%}' for x, _ in found)} |"
        )


if __name__ == "__main__":
    sys.exit(run(main))
