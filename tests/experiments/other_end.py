"""Why does CLIP find captions that are told from the other end more often than LIFT does?

    python -m tests.experiments.other_end runs/demo/lift runs/demo/clip    # docs/results/other_end.md

Test scenes with two things. Each image looks for its text among the texts of all these scenes. It
does so four times, and each time all texts have another form. For example:

own             a large red star left of a small blue ring
reversed        a small blue ring right of a large red star     also true
order alone     a small blue ring left of a large red star      false
relation alone  a large red star right of a small blue ring     false

Training captions name the larger thing first. So for them "left of" in the caption and the larger
thing at the left of the image are one and the same. A model that has learned this looks for a text
with "left of". In `reversed` the right text says "right of".

R@1             how often the image finds its text
same relation   the same, among the scenes with the same relation only: all their texts have the
                same relation words, so these words cannot decide
misled          the share of wrong finds that say the relation word of the image's own caption
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from data.benchmarks import held_out
from data.common import run
from data.world.shapes import OPPOSITE, Scene, caption
from eval import Run, retrieval_ranks


def forms(scene: Scene) -> dict[str, Scene]:
    """The four forms of a scene with two things, each as the scene that its caption describes."""
    order = scene.things[::-1]
    relations = tuple(OPPOSITE[relation] for relation in scene.relations)
    return {
        "own": scene,
        "reversed": replace(scene, things=order, relations=relations),
        "order alone": replace(scene, things=order),
        "relation alone": replace(scene, relations=relations),
    }


def is_found(image: Tensor, text: Tensor) -> Tensor:
    """(N,) bool: is text i nearer to image i than all other texts? image, text: (N, D)"""
    ranks, _ = retrieval_ranks(image, text, torch.arange(len(text)))
    return ranks < 1


def scores(
    image: Tensor, text: Tensor, relations: Sequence[str], said: Sequence[str]
) -> tuple[float, float, float]:
    """R@1, R@1 among scenes with the same relation, and the share of misled wrong finds.

    image, text  (N, D) features; text i is that of image i
    relations    N words, those of the images' own captions
    said         N words, those of the texts
    """
    found = is_found(image, text)

    # Each relation's images among themselves.
    found_among_same = torch.zeros(len(text), dtype=torch.bool)
    for relation in set(relations):
        rows = torch.tensor([i for i, other in enumerate(relations) if other == relation])
        found_among_same[rows] = is_found(image[rows], text[rows])

    nearest = (image @ text.T).argmax(1).tolist()  # (N,)
    wrong = [i for i, is_right in enumerate(found.tolist()) if not is_right]
    misled = [said[nearest[i]] == relations[i] for i in wrong]
    share = sum(misled) / len(misled) if misled else 0.0
    return found.double().mean().item(), found_among_same.double().mean().item(), share


def rows_of(trained: Run) -> list[str]:
    """The table's rows of one run."""
    task = held_out(trained.config)
    which = [i for i, scene in enumerate(task.images.scenes) if len(scene.things) == 2]
    scenes = [task.images.scenes[i] for i in which]
    image = trained.encode_images(task.images)[which]  # (N, D)
    relations = [scene.relations[0] for scene in scenes]
    rows = []
    for form in forms(scenes[0]):
        told = [forms(scene)[form] for scene in scenes]
        text = trained.encode_texts([caption(scene) for scene in told])
        of_form = scores(image, text, relations, [scene.relations[0] for scene in told])
        cells = " | ".join(f"{100 * score:.1f}" for score in of_form)
        rows.append(f"| {trained.folder} | {form} | {cells} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+")
    print("| run | form of all texts | R@1 | same relation | misled |\n|---|---|---|---|---|")
    for folder in parser.parse_args().runs:
        print("\n".join(rows_of(Run(folder))), flush=True)


if __name__ == "__main__":
    sys.exit(run(main))
