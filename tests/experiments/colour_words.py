"""How well does the language model itself know which colour a word names?

    python -m tests.experiments.colour_words             # docs/results/colour_words.md

No image and no training. Each colour word is read in a few short texts, and its vector is the mean
over them. Ridge regression from the vectors of the colours that training has to their L*a*b* values
guesses the colours that training never had. Then the question of `unseen_words.two_way` is asked:
given one of two new colours, which of two new words names it? The penalty is chosen on the known
colours, each guessed from the others.

This is easier than what LIFT is asked: there is one thing, nothing but its colour matters, and the
colour itself is known exactly.
"""

import argparse
import sys

import numpy as np
import torch
from torch import Tensor

from data.common import parse_flags, run
from data.world.colours import BASIC, NAMED, RGB_OF, UNSEEN
from llm_text import TextSource, text_inputs

from .all_facts import lab

TEXTS = (
    "a {} thing",
    "the colour {}",
    "a {} circle",
    "a {} car on the road",
    "she wore a {} dress",
    "{} paint",
    "a small {} square above a large circle",
)
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # shares of the mean of the kernel's diagonal
SOURCES = [TextSource(layer=layer) for layer in (4, 7, 10, 15, 20, 30)]
SOURCES += [TextSource(layer=layer, pool="last") for layer in (15, 30)]


def right_of_two(guesses: Tensor, colours: Tensor) -> float:
    """The share of pairs (colour i, another word j) in which word i's guess is the nearer one.

    guesses  (n, 3) what each word is taken for, in L*a*b*
    colours  (n, 3) what it names
    """
    distances = torch.cdist(colours, guesses)
    others = ~torch.eye(len(colours), dtype=torch.bool)
    return (distances.diagonal()[:, None] < distances)[others].float().mean().item()


def guess(known: Tensor, colours: Tensor, new: Tensor, share: float) -> Tensor:
    """Ridge regression with a free mean, from vectors (n, D) to colours (n, 3); for new (m, D)."""
    mean, offset = known.mean(0), colours.mean(0)
    kernel = (known - mean) @ (known - mean).T
    kernel += share * kernel.diagonal().mean() * torch.eye(len(known))
    weights = torch.linalg.solve(kernel, colours - offset)
    return (new - mean) @ (known - mean).T @ weights + offset


def scores(source: TextSource) -> tuple[float, float, float]:
    """Right of two, in %: known colours, each guessed from the others; new ones; and the penalty."""
    read = text_inputs("vectors", source, "cpu")

    def vectors(words) -> Tensor:
        return torch.stack([read([t.format(w) for w in words]) for t in TEXTS]).double().mean(0)

    def colours_of(words) -> Tensor:
        return torch.tensor(np.stack([lab(RGB_OF[word]) for word in words]))

    known, colours = vectors((*BASIC, *NAMED)), colours_of((*BASIC, *NAMED))

    def left_out(share: float) -> float:
        found = []
        for i in range(len(known)):
            rest = torch.arange(len(known)) != i
            found.append(guess(known[rest], colours[rest], known[i : i + 1], share))
        return right_of_two(torch.cat(found), colours)

    share = max(PENALTIES, key=left_out)
    new = right_of_two(guess(known, colours, vectors(UNSEEN), share), colours_of(UNSEEN))
    return 100 * left_out(share), 100 * new, share


def main() -> None:
    parse_flags(argparse.ArgumentParser(description=__doc__.split("\n")[0]))
    print("| pooling, block | known colours, each left out | new colours | penalty |")
    print("|---|---|---|---|")
    for source in SOURCES:
        known, new, share = scores(source)
        print(
            f"| {source.pool}, {source.layer} | {known:.1f} | {new:.1f} | {share:g} |", flush=True
        )


if __name__ == "__main__":
    sys.exit(run(main))
