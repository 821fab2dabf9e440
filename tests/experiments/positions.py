"""How strong must position embeddings start? Writes the table of docs/results/positions.md.

    python -m tests.experiments.positions            # three seeds: about 40 minutes on one core
    python -m tests.experiments.positions --seeds 0  # a quick look

A small ViT and a linear layer learn to name the relation of two objects (left of, right of, above,
below; chance 25 %) from images of the world `shapes-pairs`, with labels and nothing else. Only the
standard deviation with which the position embeddings start differs between the runs.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from data.images.pixels import normalize_pixels
from data.images.read import read_images
from data.world.shapes import RELATIONS
from vit import ViT

WORLD, SIZE, IMAGES, BATCH, EPOCHS, RATE = "shapes-pairs", 64, 12_000, 256, 6, 1e-3


def relations(images):
    """The relation of each image's two objects, (N,) int64, as a place in RELATIONS."""
    names = list(RELATIONS)
    return torch.tensor([names.index(scene.relations[0]) for scene in images.scenes])


def accuracies(std, seed, train_set, test_set):
    """Test accuracy after each epoch, of a classifier whose positions start with this deviation."""
    torch.manual_seed(seed)
    tower = ViT("micro/16", SIZE)
    tower.pos_embed.data *= std / 0.5  # they start at 0.5
    head = nn.Linear(tower.width, len(RELATIONS))
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.05)
    steps = EPOCHS * (len(train_set) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    labels, test_labels = relations(train_set), relations(test_set)

    found = []
    for epoch in range(EPOCHS):
        order = np.random.default_rng((seed, epoch)).permutation(len(train_set))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            indices = order[start : start + BATCH]
            images = normalize_pixels(torch.from_numpy(train_set.pixels(indices)))
            loss = F.cross_entropy(head(tower(images)), labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            images = normalize_pixels(torch.from_numpy(test_set.pixels(np.arange(len(test_set)))))
            guesses = head(tower(images)).argmax(1)
        found.append(100 * (guesses == test_labels).float().mean().item())
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    train_set = read_images(WORLD, "train", SIZE, num_samples=IMAGES)
    test_set = read_images(WORLD, "test", SIZE)
    heads = " | ".join(f"epoch {epoch + 1}" for epoch in range(EPOCHS))
    print(f"| standard deviation of positions | {heads} |\n|---|{'---|' * EPOCHS}")
    for std in (0.02, 0.1, 0.5, 1.0):
        runs = np.array([accuracies(std, seed, train_set, test_set) for seed in seeds])
        cells = [f"{run.mean():.1f} ± {run.std(ddof=min(1, len(run) - 1)):.1f}" for run in runs.T]
        print(f"| {std} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
