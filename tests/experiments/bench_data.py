"""How fast images come in, and how much memory many captions take. Writes docs/results/data.md.

    python -m tests.experiments.bench_data FOLDER                  # FOLDER: empty scratch space
    python -m tests.experiments.bench_data FOLDER --rows 100000    # a quick look

Speed: random JPEG files of 640 x 480 pixels, as a csv, as tar shards, and packed at 224 pixels.
They are decoded or read once each.

Memory: the peak of a process of its own, minus that of one that imports the same and does nothing.
The pages of memory-mapped files count apart. The system takes them back when it needs them.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
# fmt: off
WORDS = [
    "a", "the", "of", "large", "small", "red", "green", "blue", "striped", "dog", "cat", "circle",
    "star", "boat", "house", "tree", "on", "in", "under", "left", "right", "above", "below",
]
# fmt: on

# --------------------------------------------------------------------------------------------------
# Memory. The programs that are measured: BEGIN, one of the others, END.

BEGIN = """
import sys, threading, time
from pathlib import Path

private = resident = 0

def watch():
    global private, resident
    while True:
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        private = max(private, int(status["RssAnon"].split()[0]))
        resident = max(resident, int(status["VmHWM"].split()[0]))
        time.sleep(0.01)

threading.Thread(target=watch, daemon=True).start()

import torch
from data.batches import Batches, Crops
from data.captions import DistinctCaptions, TokenIds
from data.files.llm import read_llm
from data.images.read import read_images
"""

READ = """
images = read_images(sys.argv[1], "train", 8, whole=True, train_on_val=True)
assert sum(len(captions) for captions in images.captions) == int(sys.argv[2])
"""

BATCHES = (
    READ
    + """
cpu = torch.device("cpu")
captions = DistinctCaptions(images.captions)
_, tokenizer, _ = read_llm(Path(sys.argv[3]))
inputs, cut_share = TokenIds(tokenizer, 77, "").read(captions)
crops = Crops(images, 1.0, 0, cpu)
batches = Batches(images, captions, inputs, crops, batch_size=1024, seed=0, long_share=None,
                  device=cpu)
for step in range(20):
    batches(step)
"""
)

END = """
time.sleep(0.1)
print(private / 1e6, resident / 1e6)
"""


class Peak(NamedTuple):
    private: float  # GB that belong to the process alone
    resident: float  # GB with the pages of memory-mapped files
    seconds: float


def measure(program: str, *argv: object) -> Peak:
    """Run a program in a Python process of its own."""
    begun = time.time()
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program + END, *map(str, argv)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    private, resident = done.stdout.split()
    return Peak(float(private), float(resident), time.time() - begun)


def random_captions(count: int) -> Iterator[str]:
    """Captions of about 55 letters, all different."""
    rng = np.random.default_rng(0)
    number = 0
    while number < count:
        for words in rng.integers(0, len(WORDS), (min(100_000, count - number), 9)):
            yield f"{' '.join(WORDS[word] for word in words)} {number}"
            number += 1


def write_table(folder: Path, rows: int) -> Path:
    """A csv of so many rows, and its 1,000 images."""
    for i in range(1000):
        Image.new("RGB", (8, 8), (i % 256, i // 256, 0)).save(folder / f"{i}.png")
    with open(folder / "table.csv", "w") as file:
        file.write("filepath,title\n")
        for i, caption in enumerate(random_captions(rows)):
            file.write(f"{i % 1000}.png,{caption}\n")
    return folder / "table.csv"


def write_pack(folder: Path, rows: int) -> Path:
    """A pack of so many black images, as data/images/pack.py would write it."""
    from data.images.pack import FORMAT, INDEX, json_line

    folder.mkdir()
    with open(folder / "records.jsonl", "wb") as file:
        for i, caption in enumerate(random_captions(rows)):
            file.write(json_line([f"{i // 1000:05d}/{i:08d}.jpg", [caption]]))
    with open(folder / "images.u8", "wb") as file:
        file.truncate(rows * 8 * 8 * 3)
    index = np.zeros(rows, INDEX)
    index["digest"] = np.arange(1, rows + 1)
    index["width"] = 640
    index["height"] = 480
    index.tofile(folder / "index")
    (folder / "skipped.jsonl").write_text("")
    content = {"format": FORMAT, "size": 8, "images": rows, "records": rows, "job": ""}
    (folder / "pack.json").write_text(json.dumps(content))
    return folder


def memory(folder: Path, rows: int, llm: Path) -> None:
    """Print the table of memory. llm: the language model whose tokenizer is used."""
    folder.mkdir(parents=True)
    table = write_table(folder, rows)
    pack = write_pack(folder / "pack", rows)
    imports = measure("")
    print(
        f"\n| {rows:,} captions, all different | GB above the {imports.private:.2f} of the imports "
        f"| with files' pages, above {imports.resident:.2f} | seconds |\n|---|---|---|---|"
    )
    size = table.stat().st_size / 1e9
    for what, program, path in (
        (f"a csv of {size:.2f} GB, 1,000 images, read and grouped", READ, table),
        ("a pack of as many images, opened", READ, pack),
        ("the same, all captions as CLIP's tokens, 20 batches", BATCHES, pack),
    ):
        peak = measure(program, path, rows, llm)
        private = peak.private - imports.private
        resident = peak.resident - imports.resident
        print(f"| {what} | {private:.2f} | {resident:.2f} | {peak.seconds:.0f} |", flush=True)


# --------------------------------------------------------------------------------------------------
# Speed.


def write_photos(folder: Path, count: int) -> None:
    """Images that compress like photos: noise, blurred. As files with a csv, and as a shard."""
    rng = np.random.default_rng(0)
    photos = folder / "jpeg"
    photos.mkdir(parents=True)
    lines = ["filepath,title\n"]
    with tarfile.open(folder / "jpeg.tar", "w") as tar:
        for i in range(count):
            noise = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            photo = noise.resize((640, 480), Image.BICUBIC).effect_spread(3)
            photo.save(photos / f"{i}.jpg", quality=90)
            (folder / "text").write_text(f"image {i}")
            tar.add(photos / f"{i}.jpg", f"{i:05d}.jpg")
            tar.add(folder / "text", f"{i:05d}.txt")
            lines.append(f"jpeg/{i}.jpg,image {i}\n")
    (folder / "jpeg.csv").write_text("".join(lines))


def speed(folder: Path, count: int) -> None:
    """Print the table of speeds."""
    from data.images.pack import pack
    from data.images.read import read_images

    write_photos(folder, count)
    size = sum(path.stat().st_size for path in (folder / "jpeg").iterdir()) / count
    print(
        f"\n| {count} JPEG images of 640 x 480 (mean {size / 1e3:.0f} kB), read at 224 "
        "| images per second |\n|---|---|"
    )
    for what, spec in (
        ("csv and JPEG files, decoded", folder / "jpeg.csv"),
        ("tar shard, decoded", folder / "jpeg.tar"),
    ):
        begun = time.time()
        pack(str(spec), folder / f"packed-{spec.suffix[1:]}", 224)
        per_second = count / (time.time() - begun)
        print(f"| {what}, {os.cpu_count()} threads | {per_second:.0f} |", flush=True)

    images = read_images(str(folder / "packed-csv"), "train", 224, whole=True, train_on_val=True)
    rng = np.random.default_rng(0)
    begun = time.time()
    steps = 20
    for _ in range(steps):
        images.pixels(rng.integers(0, len(images), 256))
    per_second = 256 * steps / (time.time() - begun)
    print(f"| packed, random batches of 256 | {per_second:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=3_000_000, help="captions; 0: no memory table")
    parser.add_argument("--images", type=int, default=2000, help="JPEG files; 0: no speed table")
    args = parser.parse_args()
    if args.folder.exists() and any(args.folder.iterdir()):
        raise SystemExit(f"{args.folder} is not empty")

    # The language model comes from the user's cache. What is measured goes into another one.
    from data.files.llm import fetch_default

    llm = fetch_default()
    os.environ["LIFT_CACHE"] = str(args.folder / "cache")
    if args.images:
        speed(args.folder / "speed", args.images)
    if args.rows:
        memory(args.folder / "memory", args.rows, llm)


if __name__ == "__main__":
    main()
