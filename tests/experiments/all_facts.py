"""What would LIFT score if its image side had every fact of a scene, and only had to combine them?

    python -m tests.experiments.all_facts                # docs/results/all_facts.md
    python -m tests.experiments.all_facts --layer 7      # with another block's vectors

In place of the image tower stands a description of the scene in numbers: for each thing its colour
in L*a*b* (a space in which distances are about as the eye sees them), shape, size and texture, then
the relation and the background. Ridge regression from these numbers to the text features plays the
part of training. So nothing is hard to see. What is still wrong comes from the text vectors, or
from what a sum over facts cannot say. It is an estimate and no bound: an image side that is not
linear may do better.

The scenes have two things. Unseen colours are found as LIFT finds them: the description of a new
colour is near those of known colours, so its feature is near theirs. How far a known colour counts
as alike is a free choice, so several are shown.
"""

import argparse
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.benchmarks import false_captions, new_colours
from data.common import exit_status, parse_flags
from data.world.colours import BASIC, NAMED, RGB_OF, lab
from data.world.shapes import (
    BACKGROUNDS,
    CATEGORIES,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    caption,
    make_scenes,
)
from eval import compositional, retrieval_ranks
from lift import LLMVectors, Ridge, text_ridge
from llm_text import TextSource, text_reader

CENTRES = np.stack([lab(RGB_OF[colour]) for colour in (*BASIC, *NAMED)])  # (83, 3)
REACHES = (12.0, 25.0, 50.0)  # known colours nearer than this count as alike, in units of L*a*b*


def one_hot(word: str, words) -> np.ndarray:
    return np.eye(len(words))[list(words).index(word)]


def describe(scene: Scene, reach: float) -> np.ndarray:
    """Every fact of a scene of two things, in numbers. reach: see REACHES."""
    facts = [one_hot(scene.relations[0], RELATIONS), one_hot(scene.background, BACKGROUNDS), [1.0]]
    for thing in scene.things:
        colour = lab(RGB_OF[thing.colour])
        likeness = np.exp(-((CENTRES - colour) ** 2).sum(1) / (2 * reach**2))
        facts += [likeness / likeness.sum(), colour / 50, one_hot(thing.shape, SHAPES)]
        facts += [one_hot(thing.size, SIZES), one_hot(thing.texture, TEXTURES)]
    return np.concatenate(facts)


def scenes_of_two(split: str, count: int) -> list[Scene]:
    """Of the first `count` scenes of a split those with two things."""
    return [scene for scene in make_scenes(split, count) if len(scene.things) == 2]


def scores(
    reach: float, power: float, with_matrix: bool, source: TextSource, split: str
) -> dict[str, float]:
    """{score: %} of one text side: whitening to `power`, with or without the matrix."""
    train = scenes_of_two("train", 10_000)
    test = scenes_of_two(split, 800)
    unseen = new_colours("shapes-unseen", 16, split)  # its images are not looked at
    read = text_reader("vectors", source, "cpu")
    vectors = read([caption(scene) for scene in train])
    tower = LLMVectors(None, *LLMVectors.fit(vectors, 256, power))
    matrix = torch.nn.Identity()

    def text(captions) -> Tensor:
        return F.normalize(matrix(tower(read(captions))), dim=-1)

    # "Training": the best guess of a caption's feature from the facts.
    facts = torch.tensor(np.stack([describe(scene, reach) for scene in train])).float()
    wanted = F.normalize(tower(vectors), dim=-1)
    image_side = Ridge(facts.shape[1], wanted.shape[1])
    image_side.solve([(facts, wanted)])

    def image(scenes) -> Tensor:
        described = torch.tensor(np.stack([describe(scene, reach) for scene in scenes])).float()
        return F.normalize(image_side(described), dim=-1)

    if with_matrix:
        solved = text_ridge(wanted.shape[1], wanted.shape[1])
        solved.solve([(tower(vectors), F.normalize(image_side(facts), dim=-1))])
        matrix = solved

    with torch.no_grad():
        new = image(unseen.images.scenes)
        true = text([negative.true for negative in unseen.negatives])
        false = text([negative.false for negative in unseen.negatives])
        found = {"unseen_words two_way": compositional(new, true, false)}
        own = torch.arange(len(new))
        found["unseen_words i2t"] = retrieval_ranks(new, text(unseen.captions), own)[0] < 1
        known = image(test)
        captions = [caption(scene) for scene in test]
        found["retrieval i2t R@1"] = (
            retrieval_ranks(known, text(captions), torch.arange(len(known)))[0] < 1
        )
        negatives = false_captions(test, set())
        for kind in CATEGORIES:
            of_kind = [n for n in negatives if n.category == kind]
            found[f"compositional {kind}"] = compositional(
                known[[n.image for n in of_kind]],
                text([n.true for n in of_kind]),
                text([n.false for n in of_kind]),
            )
    return {name: 100 * hits.float().mean().item() for name, hits in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--split", choices=["val", "test"], default="val", help="which scenes")
    parser.add_argument(
        "--layer", type=int, default=0, help="block of the language model (0: its own)"
    )
    args = parse_flags(parser)
    source = TextSource(layer=args.layer)
    columns = {}
    for power in (0.5, 0.0, 1.0):
        for with_matrix in (False, True):
            name = f"power {power:g}{', matrix' if with_matrix else ''}"
            columns[name] = scores(25.0, power, with_matrix, source, args.split)
    print("Known colours count as alike up to 25:\n")
    print_table(columns)
    print("\nThe power 0.5 with the matrix, and other reaches:\n")
    print_table({f"{r:g}": scores(r, 0.5, True, source, args.split) for r in REACHES})


def print_table(columns: dict[str, dict[str, float]]) -> None:
    print(f"| score, in % | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name in next(iter(columns.values())):
        print(f"| {name} | {' | '.join(f'{one[name]:.1f}' for one in columns.values())} |")


if __name__ == "__main__":
    sys.exit(exit_status(main))
