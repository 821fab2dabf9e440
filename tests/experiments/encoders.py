"""Does LIFT's quality follow its text encoder? How far the encoders of the claims' short/ rows keep captions apart.

    python -m tests.encoders [ADAPTER.safetensors]     # writes Markdown (docs/results/encoders.md)

CRA      how often a test scene's caption finds the same scene told from its other end, in a pool of 800
cosine   between a true caption and its false one: 1 is "the same"
Each in the space that LIFT trains towards: centred, or whitened to 128 directions of the training captions.
"""

import sys

import torch
import torch.nn.functional as F

from data.common import run
from data.vectors import CaptionVectors
from data.world import shapes
from llm_text import caption_retrieval, load_llm, whitening
from tests.experiments import sentences


def main():
    encoders = {
        "raw, mean after block 10": CaptionVectors(load_llm(), "mean", 10),
        "raw, last token after block 10": CaptionVectors(load_llm(), "last", 10),
        "sentence encoder": lambda texts: torch.from_numpy(sentences.embed(texts)),
    }
    for adapter in sys.argv[1:]:
        encoders["tuned, mean after block 10"] = CaptionVectors(
            load_llm(adapter=adapter), "mean", 10
        )
    fitted = list({shapes.caption(scene) for scene in shapes.make_scenes("train", 5000)})
    scenes = shapes.make_scenes("test", 800)
    own, other = [shapes.caption(s) for s in scenes], [shapes.paraphrases(s)[0] for s in scenes]
    false = [
        (i, kind, text) for i, s in enumerate(scenes) for kind, text in shapes.negatives(s).items()
    ]
    kinds = [k for k in shapes.CATEGORIES if any(kind == k for _, kind, _ in false)]
    print(
        "| encoder | space | CRA | " + " | ".join(kinds) + " |\n|---|---|---|" + "---|" * len(kinds)
    )
    for name, encode in encoders.items():
        train, first, second, wrong = (
            encode(texts).float() for texts in (fitted, own, other, [text for *_, text in false])
        )
        for space, k in (("centred", 0), ("whitened", 128)):
            mean, matrix = whitening(train, k)
            a, b, c = (F.normalize((x - mean) @ matrix, dim=1) for x in (first, second, wrong))
            cosines = (a[[i for i, *_ in false]] * c).sum(1)
            cells = (f"{cosines[[kind == k for _, kind, _ in false]].mean():.2f}" for k in kinds)
            print(
                f"| {name} | {space} | {caption_retrieval(a, b):.1%} | {' | '.join(cells)} |",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(run(main))
