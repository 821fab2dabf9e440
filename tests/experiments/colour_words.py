"""How well does the language model itself know which colour a word names?

    python -m tests.experiments.colour_words             # docs/results/colour_words.md

No image and no training. Each colour word is read in a few short texts, and its vector is the mean
over them. Ridge regression from the vectors of the colours that training has to their L*a*b* values
guesses the colours that training never had. Then the question of `unseen_words.two_way` is asked:
given one of two new colours, which of two new words names it? The penalty is chosen on the known
colours, each guessed from the others.

Many known colours have relatives, such as "dark blue" and "light blue", from which they are easily
guessed. So those that share no token with another one are asked among themselves as well. They say
whether the new words are harder than others. The last row has the vectors of all rows side by side.

This is easier than what LIFT is asked: there is one thing, nothing but its colour matters, and the
colour itself is known exactly.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from data.common import exit_status, parse_flags
from data.world.colours import BASIC, NAMED, RGB_OF, UNSEEN, lab
from llm_text import TextSource, load_llm, text_reader

TEXTS = (
    "a {} thing",
    "the colour {}",
    "a {} circle",
    "a {} car on the road",
    "she wore a {} dress",
    "{} paint",
    "a small {} square above a large circle",
)
KNOWN = (*BASIC, *NAMED)
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # shares of the mean of the kernel's diagonal
BLOCKS = [
    *[("mean", block) for block in (4, 7, 10, 15, 20, 25, 30)],
    *[("last", block) for block in (15, 30)],
    *[("prompt", block) for block in (20, 25, 27, 30)],
]
SOURCES = [TextSource(layer=block, pool=pool, llm_dtype="float32") for pool, block in BLOCKS]


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


def without_relatives(words: Sequence[str]) -> list[int]:
    """The places of the words that share no token with another one."""
    tokenizer = load_llm().tokenizer
    tokens = [set(tokenizer.encode(f" {word}")) for word in words]
    counts = Counter(token for some in tokens for token in some)
    return [i for i, some in enumerate(tokens) if all(counts[token] == 1 for token in some)]


def vectors_of(source: TextSource, words: Sequence[str]) -> Tensor:
    """The vector of each word, the mean over TEXTS, (n, D) float64."""
    read = text_reader("vectors", source, "cpu")
    return torch.stack([read([text.format(w) for w in words]) for text in TEXTS]).double().mean(0)


def colours_of(words: Sequence[str]) -> Tensor:
    """What the words name, (n, 3) in L*a*b*."""
    return torch.tensor(np.stack([lab(RGB_OF[word]) for word in words]))


def scores(known: Tensor, new: Tensor, alone: list[int]) -> tuple[float, float, float, float]:
    """Right of two, in %, and the penalty, from vectors of KNOWN (n, D) and of UNSEEN (m, D).

    known colours, each guessed from the others; those of them that are `alone`, without relatives,
    asked among themselves; new ones
    """
    colours = colours_of(KNOWN)

    def from_the_others(share: float) -> Tensor:
        found = []
        for i in range(len(known)):
            rest = torch.arange(len(known)) != i
            found.append(guess(known[rest], colours[rest], known[i : i + 1], share))
        return torch.cat(found)

    share = max(PENALTIES, key=lambda share: right_of_two(from_the_others(share), colours))
    guesses = from_the_others(share)
    of_new = right_of_two(guess(known, colours, new, share), colours_of(UNSEEN))
    of_all = right_of_two(guesses, colours)
    return 100 * of_all, 100 * right_of_two(guesses[alone], colours[alone]), 100 * of_new, share


def main() -> None:
    parse_flags(argparse.ArgumentParser(description=__doc__.split("\n")[0]))
    alone = without_relatives(KNOWN)
    print(f"| pooling, block | {len(KNOWN)} known colours, each left out |", end="")
    print(f" {len(alone)} of them without relatives | {len(UNSEEN)} new colours | penalty |")
    print("|---|---|---|---|---|")

    def print_row(name: str, known: Tensor, new: Tensor) -> None:
        of_all, of_alone, of_new, share = scores(known, new, alone)
        print(f"| {name} | {of_all:.1f} | {of_alone:.1f} | {of_new:.1f} | {share:g} |", flush=True)

    # For the last row all vectors stand side by side. Each source is scaled, so that its vectors
    # are on average 1 from their mean.
    all_known, all_new = [], []
    for source in SOURCES:
        known, new = vectors_of(source, KNOWN), vectors_of(source, UNSEEN)
        print_row(f"{source.pool}, {source.layer}", known, new)
        length = (known - known.mean(0)).norm(dim=1).mean()
        all_known.append(known / length)
        all_new.append(new / length)
    print_row("all of these", torch.cat(all_known, 1), torch.cat(all_new, 1))


if __name__ == "__main__":
    sys.exit(exit_status(main))
