"""Why does CLIP not learn relations? Because its batch does not ask. This is the control.

    python -m tests.experiments.reversed together --method clip --out runs/together
    python -m tests.experiments.reversed apart --method clip --out runs/apart
    python eval.py runs/together runs/apart                       # docs/results/reversed.md

Both runs train on the same images: each scene, and the same scene with its first relation reversed.
Only the batches differ:

    together  a scene and its reverse are always in one batch: to tell their captions apart, a
              model must read the relation
    apart     the images come in any order, as in train.py

All other flags are those of train.py, but for --csv-caption-key and --val-data.
"""

import sys
from dataclasses import replace

import numpy as np

import train
from data.batches import Batches
from data.common import BadInput, exit_status
from data.images.read import (
    DRAWINGS_PER_SCENE,
    CaptionedImages,
    PlannedImage,
    draw_planned,
    scene_captions,
)
from data.world.shapes import Scene, make_scenes, replace_relation


def scenes_and_reverses(count: int, world: str) -> list[Scene]:
    """The first `count` training scenes that have a relation, each followed by its reverse."""
    # One scene in six has a single thing.
    scenes = [s for s in make_scenes("train", count * 3 // 2, world=world) if s.relations][:count]
    both = []
    for scene in scenes:
        reverse = replace_relation(scene)[0]
        both += [scene, replace(reverse, key=f"{scene.key}/reversed")]
    return both


def read_pairs(cfg: train.Config) -> CaptionedImages:
    """Images 2 i and 2 i + 1 are a scene and its reverse; see train.read_training_images."""
    n_scenes = (cfg.train_num_samples or 20_000) // DRAWINGS_PER_SCENE
    planned = []
    for drawing in range(DRAWINGS_PER_SCENE):
        for scene in scenes_and_reverses(n_scenes // 2, cfg.data):
            planned.append(PlannedImage(scene, drawing, scene_captions(scene, "short")))
    return draw_planned(planned, cfg.image_size, "drawing scenes and their reverses")


class PairedBatches(Batches):
    """Batches in which images 2 i and 2 i + 1 stand side by side."""

    def epoch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, number))
        first = 2 * rng.permutation(len(self.images) // 2)
        order = np.stack([first, first + 1], axis=1).flatten()  # (N,)
        return order, rng.random(len(self.images))


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in ("together", "apart"):
        raise BadInput(
            "usage: python -m tests.experiments.reversed together|apart [flags of train.py]"
        )
    cfg = train.from_cli(sys.argv[2:])
    if cfg.data not in ("shapes", "shapes-few") or cfg.batch_size % 2:
        raise BadInput("this control wants --data shapes or shapes-few, and an even --batch-size")
    train.read_training_images = read_pairs
    if sys.argv[1] == "together":
        train.Batches = PairedBatches
    train.train(cfg)


if __name__ == "__main__":
    sys.exit(exit_status(main))
