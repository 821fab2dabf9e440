"""How fast pictures come in, and how much memory many captions take. Writes Markdown (docs/results/data.md).

    python -m tests.bench_data FOLDER                  # FOLDER: scratch space, 3 GB for ten million rows
    python -m tests.bench_data FOLDER --rows 100000    # a quick look

Speed: random 640 x 480 JPEG files as a csv, as tar shards, and packed at 224 pixels, decoded or read once each.
Memory: peaks of a process of its own, minus those of one that imports the same and does nothing. The pages of mapped files
count apart: the system takes them back when it needs them.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
WORDS = "a the of large small red green blue striped dog cat circle star boat house tree on in under left right above below".split()

BEGIN = """
import sys, threading, time
import numpy as np, torch
own = whole = 0
def watch():
    global own, whole
    while True:
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        own, whole = (max(a, int(status[b].split()[0])) for a, b in ((own, "RssAnon"), (whole, "VmHWM")))
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
from data.images import read as readers
from data.batches import Batches, Crops
from data.captions import DistinctCaptions
import lift, train
"""
END = "\ntime.sleep(0.1)\nprint(own / 1e6, whole / 1e6)"
CSV = """
pictures = readers.read_images(sys.argv[1], "train", 8, whole=True)
assert sum(map(len, pictures.captions)) == int(sys.argv[2])
"""
PACK = """
pictures = readers.read_images(sys.argv[1], "train", 8, whole=True)
assert len(pictures) == int(sys.argv[2])
"""
TRAIN = (
    PACK
    + """
cfg = train.Config(method="clip", image_size=8, batch_size=1024)
texts = DistinctCaptions(pictures.captions)
inputs = lift.TokenIds(cfg, "cpu").rows(texts)
batches = Batches(pictures, texts, inputs, Crops(pictures, cfg, torch.device("cpu")), cfg, torch.device("cpu"))
for step in range(20):
    batches(step)
"""
)


def process(code, *argv):
    """(GB of its own, GB with mapped pages of files, both at their peak; seconds) of a Python process."""
    begun = time.time()
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code + END, *map(str, argv)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return *map(float, done.stdout.split()), time.time() - begun


def memory(folder, rows):
    rng = np.random.default_rng(0)

    def captions():
        for i in range(0, rows, 100_000):
            for j, words in enumerate(rng.integers(0, len(WORDS), (min(100_000, rows - i), 9))):
                yield f"{' '.join(WORDS[w] for w in words)} {i + j}"  # 55 letters, all different

    pack, table = folder / "pack", folder / "table.csv"
    pack.mkdir(parents=True, exist_ok=True)
    for i in range(1000):
        Image.new("RGB", (8, 8), (i % 256, i // 256, 0)).save(folder / f"{i}.png")
    with open(table, "w") as f, open(pack / "pictures.jsonl", "w") as g:
        f.write("filepath,title\n")
        for i, text in enumerate(captions()):
            f.write(f"{i % 1000}.png,{text}\n")
            g.write(json.dumps([f"{i // 1000:05d}/{i:08d}.jpg", [text]]) + "\n")
    with open(pack / "images.u8", "wb") as f:
        f.truncate(rows * 8 * 8 * 3)
    from data.images.pack import INDEX

    index = np.zeros(rows, INDEX)
    index["digest"], index["width"], index["height"] = np.arange(1, rows + 1), 640, 480
    index.tofile(pack / "index")
    (pack / "skipped.jsonl").write_text("")
    (pack / "pack.json").write_text(
        json.dumps({"format": 1, "size": 8, "pictures": rows, "records": rows})
    )
    del index
    own, whole, _ = process("")
    print(
        f"\n| {rows:,} captions, all different | GB above the {own:.2f} of the imports | with files' pages, above {whole:.2f} | seconds |\n"
        "|---|---|---|---|"
    )
    for what, code, path in (
        (
            f"a csv of {table.stat().st_size / 1e9:.2f} GB, 1,000 pictures, read and grouped",
            CSV,
            table,
        ),
        ("a pack of as many pictures, opened", PACK, pack),
        ("the same, all captions as CLIP's tokens, 20 batches", TRAIN, pack),
    ):
        peak, mapped, seconds = process(code, path, rows)
        print(f"| {what} | {peak - own:.2f} | {mapped - whole:.2f} | {seconds:.0f} |", flush=True)


def speed(folder, count):
    rng, pictures = np.random.default_rng(0), folder / "jpeg"
    pictures.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = Image.fromarray(
            rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        )  # blurred noise compresses like a photo
        noise.resize((640, 480), Image.BICUBIC).effect_spread(3).save(
            pictures / f"{i}.jpg", quality=90
        )
    (folder / "jpeg.csv").write_text(
        "filepath,title\n" + "".join(f"jpeg/{i}.jpg,picture {i}\n" for i in range(count))
    )
    with tarfile.open(folder / "jpeg.tar", "w") as tar:
        for i in range(count):
            (folder / "text").write_text(f"picture {i}")
            tar.add(pictures / f"{i}.jpg", f"{i:05d}.jpg")
            tar.add(folder / "text", f"{i:05d}.txt")
    from data.images import pack
    from data.images import read as readers

    print(
        f"\n| {count} JPEG pictures of 640 x 480 (mean {sum(p.stat().st_size for p in pictures.iterdir()) / count / 1e3:.0f} kB), read at 224 "
        "| pictures a second |\n|---|---|"
    )
    for what, spec in (
        ("csv and JPEG files, decoded", folder / "jpeg.csv"),
        ("tar shard, decoded", folder / "jpeg.tar"),
    ):
        begun = time.time()
        pack.pack(str(spec), folder / f"packed-{spec.suffix[1:]}", 224)
        print(
            f"| {what}, {os.cpu_count()} threads | {count / (time.time() - begun):.0f} |",
            flush=True,
        )
    packed = readers.read_images(str(folder / "packed-csv"), "train", 224, whole=True)
    begun, steps = time.time(), 20
    for _ in range(steps):
        packed.pixels(rng.integers(0, len(packed), 256))
    print(f"| packed, random batches of 256 | {256 * steps / (time.time() - begun):.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--pictures", type=int, default=2000)
    args = parser.parse_args()
    if args.folder.exists() and any(args.folder.iterdir()):
        raise SystemExit(f"{args.folder} is not empty")
    os.environ["LIFT_CACHE"] = str(args.folder / "cache")
    os.environ["TMPDIR"] = str(args.folder)
    speed(args.folder / "speed", args.pictures)
    memory(args.folder / "memory", args.rows)


if __name__ == "__main__":
    main()
