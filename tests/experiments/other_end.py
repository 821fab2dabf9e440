"""Why does CLIP find captions that are told from the other end more often than LIFT does?

    python -m tests.experiments.other_end runs/demo/lift runs/demo/clip  # docs/results/other_end.md

Test scenes with two things. Each image looks for its text among the texts of all these scenes. It
does so four times, and each time all texts have another form. For example:

own             a large red star left of a small blue ring
reversed        a small blue ring right of a large red star     also true
order alone     a small blue ring left of a large red star      false
relation alone  a large red star right of a small blue ring     false

Training captions name the larger thing first. So "left of" is said of exactly those images with two
things whose larger thing stands left. A model that has learned the word with the relation looks for
a text with "left of". In `reversed` the right text says "right of". Two more questions ask whether
this is what happens:

true before false  Is `reversed`, which is true, nearer than `order alone`, which is false? Only the
                   relation word differs. The same is asked with the own caption's features in the
                   place of the image's: an image tower that does its training task perfectly would
                   choose in this way.
without the word   R@1 of `reversed`, when all texts are left out that say the relation word of the
                   image's own caption; and when as many others are left out, drawn at random

The usual word of an image is the relation word of its own caption. It helps in the first of these
questions, and not in the second. The third is about colours:

own, true before false  Is `own`, which is true, nearer than `relation alone`, which is false?
both ends               The features of both true forms are added, and those of both false ones. Is
                        the first sum nearer? The usual word is in both sums.
colours                 Own, other end and both ends, with another false caption: the two colours
                        are exchanged

The larger thing of a scene is named first, so a text says by its size words what comes first.
--sizes changes these words in all texts: "left out", or "exchanged" between the two things, which
makes all texts false of the image.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from data.benchmarks import held_out
from data.common import exit_status
from data.world.shapes import OPPOSITE, SIZES, Scene, caption
from eval import Run, compositional


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


SIZES_OF_TEXTS = ("kept", "left out", "exchanged")


def with_colours_exchanged(scene: Scene) -> Scene:
    """A false scene of two things."""
    first, second = scene.things
    return replace(
        scene, things=(replace(first, colour=second.colour), replace(second, colour=first.colour))
    )


def told(scene: Scene, sizes: str) -> str:
    """The caption of a scene with two things; sizes: "kept", "left out" or "exchanged"."""
    if sizes == "exchanged":
        first, second = scene.things
        scene = replace(
            scene, things=(replace(first, size=second.size), replace(second, size=first.size))
        )
    text = caption(scene)
    if sizes == "left out":
        text = " ".join(word for word in text.split() if word not in SIZES)
    return text


def recall(image: Tensor, text: Tensor, left_out: Tensor | None = None) -> float:
    """R@1: how often text i is nearer to image i than all other texts on offer. A tie is wrong.

    image, text  (N, D) features of unit length
    left_out     (N, N) bool: texts that an image is not offered; never its own one
    """
    cosines = image @ text.T  # (N, N)
    own = cosines.diagonal().clone()
    cosines.fill_diagonal_(-2)
    if left_out is not None:
        cosines[left_out] = -2
    return (cosines.amax(1) < own - 1e-6).double().mean().item()


def misleading(relations: Sequence[str], said: Sequence[str]) -> Tensor:
    """(N, N) bool: does text j say the relation word of image i's own caption?

    relations  N words, those of the images' own captions
    said       N words, those of the texts
    """
    return torch.tensor([[word == relation for word in said] for relation in relations])


def as_many_at_random(left_out: Tensor) -> Tensor:
    """(N, N) bool: as many places in each row, drawn at random, and never those of the diagonal."""
    chance = torch.rand(left_out.shape, generator=torch.Generator().manual_seed(0))
    chance.fill_diagonal_(2)
    return chance.argsort(1).argsort(1) < left_out.sum(1, keepdim=True)


def numbers_of(trained: Run, sizes: str = "kept") -> list[float]:
    """The numbers of one run, in %, in the order of the table."""
    task = held_out(trained.config)
    which = [i for i, scene in enumerate(task.images.scenes) if len(scene.things) == 2]
    scenes = [task.images.scenes[i] for i in which]
    image = trained.encode_images(task.images)[which]  # (N, D)
    text = {
        form: trained.encode_texts([told(forms(scene)[form], sizes) for scene in scenes])
        for form in forms(scenes[0])
    }
    numbers = [recall(image, features) for features in text.values()]

    for features in (image, text["own"]):
        hits = compositional(features, text["reversed"], text["order alone"])
        numbers.append(hits.double().mean().item())

    relations = [scene.relations[0] for scene in scenes]
    left_out = misleading(relations, [OPPOSITE[relation] for relation in relations])
    for some in (left_out, as_many_at_random(left_out)):
        numbers.append(recall(image, text["reversed"], some))

    true, false = text["own"] + text["reversed"], text["relation alone"] + text["order alone"]
    own, other = (
        trained.encode_texts(
            [told(with_colours_exchanged(forms(scene)[form]), sizes) for scene in scenes]
        )
        for form in ("own", "reversed")
    )
    for right, wrong in (
        (text["own"], text["relation alone"]),
        (true, false),
        (text["own"], own),
        (text["reversed"], other),
        (true, own + other),
    ):
        numbers.append(compositional(image, right, wrong).double().mean().item())
    return [100 * number for number in numbers]


COLUMNS = (
    *("own", "reversed", "order alone", "relation alone"),
    *("true before false", "the same, own caption as image"),
    *("without the word", "without as many others", "own, true before false", "both ends"),
    *("colours, own", "colours, other end", "colours, both ends"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--sizes", choices=SIZES_OF_TEXTS, default="kept")
    args = parser.parse_args()
    print(f"| run | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for folder in args.runs:
        cells = " | ".join(f"{number:.1f}" for number in numbers_of(Run(folder), args.sizes))
        print(f"| {folder} | {cells} |", flush=True)


if __name__ == "__main__":
    sys.exit(exit_status(main))
