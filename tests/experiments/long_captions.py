"""Do long captions keep apart what short ones keep apart? The frozen text side alone, no training.

    python -m tests.experiments.long_captions    # docs/results/long_captions.md

One fact of a test scene is changed. The true and the false scene are told in a short caption each,
and in a long one each. The table has the mean cosine of the two vectors, after centring and
whitening as LIFT does it: on training captions of the same kind, short ones or both kinds. 1 means
that no image side can tell the two scenes apart.
"""

import argparse
import sys

import torch.nn.functional as F

from data.common import exit_status, parse_flags
from data.world.shapes import (
    caption,
    is_true,
    long_caption,
    make_scenes,
    replace_attribute,
    replace_object,
    replace_relation,
    swap_attributes,
    swap_objects,
)
from lift import LLMVectors
from llm_text import TextSource, text_reader

EDITS = {
    "replace_obj": replace_object,
    "replace_att": replace_attribute,
    "replace_rel": replace_relation,
    "swap_obj": swap_objects,
    "swap_att": swap_attributes,
}


def pairs_of(kind: str, count: int) -> list[tuple]:
    """(true scene, false scene) for the first `count` test scenes that this edit makes false."""
    pairs = []
    for scene in make_scenes("test", 800):
        false = [edited for edited in EDITS[kind](scene) if not is_true(edited, scene)]
        if len(scene.things) == 2 and false:
            pairs.append((scene, false[0]))
    return pairs[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--scenes", type=int, default=100, help="test scenes for each edit")
    args = parse_flags(parser)
    read = text_reader("vectors", TextSource(context_length=160), "cpu")
    train = make_scenes("train", 10_000)
    short = [caption(scene) for scene in train]
    trained_on = {caption: short, long_caption: short + [long_caption(scene) for scene in train]}
    towers = {
        tell: LLMVectors(None, *LLMVectors.fit(read(texts), 256, 0.5))
        for tell, texts in trained_on.items()
    }

    print("| changed | scenes | short captions | long captions |\n|---|---|---|---|")
    for kind in EDITS:
        pairs = pairs_of(kind, args.scenes)
        cells = []
        for tell, tower in towers.items():
            true = F.normalize(tower(read([tell(scene) for scene, _ in pairs])), dim=-1)  # (N, D)
            false = F.normalize(tower(read([tell(scene) for _, scene in pairs])), dim=-1)
            cells.append(f"{(true * false).sum(-1).mean().item():.3f}")
        print(f"| {kind} | {len(pairs)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(exit_status(main))
