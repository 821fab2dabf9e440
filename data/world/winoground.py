"""Winoground with drawn images: two images, and two captions made of the same words.

    python -m data.world.winoground OUT [--examples 400]
    python eval.py runs/lift --winoground OUT

An example is a test scene of the built-in world, and the same scene after two neighbouring things
have exchanged their shapes, their colours or their textures. Both scenes are drawn, at the same
places and on the same ground. So nothing but the exchange tells the images apart, and the captions
differ in the order of their words only. A model that takes captions for bags of words scores 0.

Only the form of the files and the scores are those of Winoground (Thrush et al. 2022, arXiv
2204.03162). Its photographs and captions are not here: you must ask its authors for them.

OUT gets examples.jsonl, one example in a line, and the folder images. The first scene of an example
is a test scene. The second one may show a pair of things that meets in training, because an
exchange makes new pairs. With 400 examples no caption is one of the 20,000 training captions.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from random import Random

from data.common import BadInput, exit_status, parse_flags
from data.world.drawing import draw
from data.world.shapes import Scene, caption, make_scenes, swap_attributes, swap_objects

SIDE = 128  # of the images, in pixels; eval.py scales them to what the run was trained on


def exchanged(scene: Scene) -> Scene | None:
    """The scene after one exchange; None where there is one thing only."""
    edits = [*swap_objects(scene), *swap_attributes(scene)]
    return Random(f"{scene.key}/winoground").choice(edits) if edits else None


def build(out: Path, count: int) -> None:
    """Write a folder of `count` examples. BadInput if it is there already."""
    if out.exists():
        raise BadInput(f"{out} exists already; choose another name, or remove it")
    # A folder that is there is whole: what a stopped command left has another name.
    unfinished = out.with_name(f"{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "images").mkdir(parents=True)
    # Scenes of one thing have nothing to exchange: more scenes than examples are needed.
    pairs = [(scene, exchanged(scene)) for scene in make_scenes("test", 2 * count)]
    pairs = [pair for pair in pairs if pair[1]][:count]
    lines = []
    for number, pair in enumerate(pairs):
        example = {"id": number}
        for i, scene in enumerate(pair):
            name = f"ex_{number}_img_{i}"
            draw(scene, side=SIDE).save(unfinished / "images" / f"{name}.png")
            example |= {f"image_{i}": name, f"caption_{i}": caption(scene)}
        lines.append(json.dumps(example) + "\n")
    (unfinished / "examples.jsonl").write_text("".join(lines))
    unfinished.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write a test in the form of Winoground, with drawn images."
    )
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--examples", type=int, default=400, help="how many (default %(default)s)")
    args = parse_flags(parser)
    if not 1 <= args.examples <= 10_000:
        raise BadInput(f"--examples {args.examples} is out of range; it lies between 1 and 10000")
    build(args.out, args.examples)
    print(
        f"wrote {args.out}: {args.examples} examples; "
        f"next: python eval.py runs/lift --winoground {args.out}"
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
