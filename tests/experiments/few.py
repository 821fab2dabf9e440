"""A few hundred captioned images, as a newcomer has them: one style of emoji as a plain csv.

    pip install resvg-py
    python -m data.world.emoji emoji
    python -m tests.experiments.few emoji few
    python train.py --data few/captions.csv --out runs/few/lift-0      # and other seeds and flags
    python eval.py runs/few/lift-0
    python -m tests.experiments.spread runs/few/lift-0 runs/few/lift-1 runs/few/lift-2

The second line fetches the emoji of data/world/emoji.py. The third writes into the folder `few`:

    captions.csv   600 images of the style noto for training, 70 for validation and 160 for testing,
                   with a column `split`; no concept is in two splits
    others.csv     the concepts of emoji/train.tar in two other styles, for another run: --init-from
                   takes its weights

A caption is the emoji's name, such as "woman farmer". Seed 0 draws which concepts are taken.
"""

import csv
import random
import sys
from pathlib import Path

from data.common import BadInput, exit_status
from data.images.shards import read_samples

STYLE = "noto"
COUNTS = {"train": 600, "val": 70, "test": 160}


def write_images(tar: Path, folder: Path, split: str) -> list[tuple[str, str, str]]:
    """Write the images of a shard into a folder -> rows (image, caption, split)."""
    if not tar.is_file():
        raise BadInput(f"{tar}: no such file; make it with python -m data.world.emoji {tar.parent}")
    rows = []
    for sample in read_samples(tar):
        name = f"images/{sample.key}.png"
        content = sample.tar.extractfile(sample.files[".png"]).read()
        (folder / name).write_bytes(content)
        rows.append((name, sample.text(".txt").strip(), split))
    return rows


def write_table(path: Path, rows: list[tuple[str, str, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption", "split"), *rows])
    print(f"wrote {path}: {len(rows)} images")


def main() -> None:
    if len(sys.argv) != 3:
        raise BadInput("usage: python -m tests.experiments.few EMOJI OUT")
    emoji, out = map(Path, sys.argv[1:])
    (out / "images").mkdir(parents=True, exist_ok=True)

    mine, others = [], []
    for split, count in COUNTS.items():
        rows = write_images(emoji / f"{split}.tar", out, split)
        own = [row for row in rows if f"/{STYLE}_" in row[0]]
        others += [row for row in rows if row not in own and split != "test"]
        random.Random(0).shuffle(own)
        mine += sorted(own[:count])
    write_table(out / "captions.csv", mine)
    write_table(out / "others.csv", others)


if __name__ == "__main__":
    sys.exit(exit_status(main))
