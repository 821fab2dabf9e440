"""Does LIFT's quality follow its text encoder? How far encoders keep captions apart.

    python -m tests.experiments.encoders [ADAPTER.safetensors]    # docs/results/encoders.md

The encoders are those of the claims' short/ rows. CRA, caption retrieval accuracy, says how often
the caption of a test scene finds the same scene told from its other end, in a pool of 800. Then
comes the mean cosine between a true caption and its false one; 1 means "the same". All is in the
space that LIFT trains towards: the default, 256 directions of the training captions, whitened to
the power 1/2, and beside it a space that is only centred.
"""

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F

from data.common import exit_status
from data.vectors import CaptionVectors
from data.world import shapes
from llm_text import caption_retrieval, load_llm, whitening
from tests.experiments import sentences

SPACES = {"centred": 0, "whitened": 256}  # name: directions


def make_encoders(adapters: list[str]) -> dict[str, Callable[[list[str]], torch.Tensor]]:
    """{name: function from N texts to vectors (N, D)}"""
    encoders = {
        "raw, mean after block 10": CaptionVectors(load_llm(), "mean", 10),
        "raw, last token after block 10": CaptionVectors(load_llm(), "last", 10),
        "sentence encoder": lambda texts: torch.from_numpy(sentences.embed(texts)),
    }
    for adapter in adapters:
        tuned = CaptionVectors(load_llm(adapter=adapter), "mean", 10)
        encoders["tuned, mean after block 10"] = tuned
    return encoders


def main() -> None:
    encoders = make_encoders(sys.argv[1:])

    # Texts: captions to fit the space, true captions and paraphrases of test scenes, false ones.
    train_texts = [shapes.caption(scene) for scene in shapes.make_scenes("train", 10_000)]
    scenes = shapes.make_scenes("test", 800)
    true_texts = [shapes.caption(scene) for scene in scenes]
    other_end_texts = [shapes.paraphrases(scene)[0] for scene in scenes]
    scene_of_false, category_of_false, false_texts = [], [], []
    for i, scene in enumerate(scenes):
        for category, text in shapes.negatives(scene).items():
            scene_of_false.append(i)
            category_of_false.append(category)
            false_texts.append(text)
    categories = [c for c in shapes.CATEGORIES if c in category_of_false]

    print(f"| encoder | space | CRA | {' | '.join(categories)} |")
    print("|---|---|---|" + "---|" * len(categories))
    for name, encode in encoders.items():
        train = encode(train_texts).float()
        vectors = [encode(texts).float() for texts in (true_texts, other_end_texts, false_texts)]
        for space, directions in SPACES.items():
            mean, matrix = whitening(train, directions)
            true, other_end, false = (F.normalize((x - mean) @ matrix, dim=1) for x in vectors)
            cosines = (true[scene_of_false] * false).sum(1)
            cells = [f"{caption_retrieval(true, other_end):.1%}"]
            for category in categories:
                rows = [other == category for other in category_of_false]
                cells.append(f"{cosines[rows].mean():.2f}")
            print(f"| {name} | {space} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(exit_status(main))
