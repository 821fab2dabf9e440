"""Kill it at any moment, start it again: is all there, and is it the same? Counts what is not.

    python -m tests.experiments.kills --rounds 20 --seed 0       # docs/results/kills.md
    python -m tests.experiments.kills --rounds 20 --kinds training,pack

Each round begins with an empty folder. Its processes are started and killed (SIGKILL) one to three
times, each at a random moment. Then they are started once more and come to their end. What is then
in the folder must be what a process leaves that nobody killed, bit for bit.

    kind           its processes
    training       train.py on 64 images, a checkpoint after every step; --resume goes on
    captions       the language model reads 600 captions into the cache
    captions two   two such processes at once, with 400 captions each, of which 200 are the same
    pack           data.images.pack on 2,000 images
    pack two       two such processes at once, with one folder

Prints a table and exits with status 1 if anything is wrong:

    kills      processes that were killed before they came to their end
    lost       rounds after which something is missing: a step, a caption, a file
    different  rounds after which all is there, but not the same
    errors     rounds in which a process that nobody killed ended with an error

Processes are forked from this one, which has imported everything. So a kill meets their work, and
not their start.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import train
from data.common import BadInput, run
from data.files.runs import read_run
from data.images import pack
from data.images.formats import Columns
from data.images.read import captions_of
from data.vectors import CaptionVectors, key_of
from llm_text import FrozenLLM, load_llm
from tests.tiny_llm import write_tiny_llm

Writer = Callable[[Path], None]  # works in the folder of a round, and goes on where one was killed


class Kind(NamedTuple):
    writers: list[Writer]  # one per process
    # What a folder holds: {what: its content}, where equal contents are equal bit for bit.
    contents: Callable[[Path], dict]


# --------------------------------------------------------------------------------------------------
# Training.

STEPS = 30
FLAGS = f"""
    --data shapes-simple --train-num-samples 64 --device cpu --model micro/16 --image-size 32
    --batch-size 16 --whiten 8 --context-length 200 --crop-scale 0.8 --epochs 1000 --steps {STEPS}
    --log-every-n-steps 1 --save-frequency 1
"""
# What the log says of a step, but for times and memory.
LOGGED = ("loss", "ln_batch", "accuracy", "scale", "lr", "grad_norm")


def training(folder: Path) -> Kind:
    """A small run, with a random language model. folder: for the model"""
    tiny_llm = write_tiny_llm(folder)

    def write(folder: Path) -> None:
        os.environ["LIFT_CACHE"] = str(folder / "cache")
        out = folder / "run"
        if not (out / "checkpoint.pt").exists():
            train.train(train.from_cli([*FLAGS.split(), "--llm", str(tiny_llm), "--out", str(out)]))
        # The kill may have come after the last step.
        elif read_run(out)["step"] < STEPS:
            train.train(train.from_cli(["--resume", str(out)]))

    return Kind([write], contents_of_run)


def contents_of_run(folder: Path) -> dict:
    """The checkpoint's tensors and counts, and what the log says of each step."""
    checkpoint = read_run(folder / "run")
    contents = {"step": checkpoint["step"], "images": checkpoint["cost"]["images"]}
    for name, tensor in checkpoint["model"].items():
        contents[name] = tensor.numpy().tobytes()
    contents["learning rates"] = json.dumps(checkpoint["optimizer"]["param_groups"])
    for number, state in checkpoint["optimizer"]["state"].items():
        for name, tensor in state.items():
            contents[f"optimizer {number} {name}"] = tensor.numpy().tobytes()

    # A step after the last checkpoint is done again, and stands in the log twice. Both lines must
    # say the same.
    for line in (folder / "run/log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "config" not in entry:
            said = [entry[name] for name in LOGGED]
            if contents.setdefault(f"log {entry['step']}", said) != said:
                contents[f"log {entry['step']}"] = "two lines that differ"
    return contents


# --------------------------------------------------------------------------------------------------
# The cache of captions.


def captions(llm: FrozenLLM, parts: list[slice]) -> Kind:
    """One process per part of 600 captions, each of which is read once by the language model."""
    of_images = captions_of("shapes", "train", Columns(csv_caption_key="paraphrase"), 600)
    texts = list(dict.fromkeys(text for of_image in of_images for text in of_image))[:600]

    def writer(part: slice) -> Writer:
        def write(folder: Path) -> None:
            CaptionVectors(llm, folder=folder / "captions").read(texts[part])

        return write

    def contents(folder: Path) -> dict:
        store = CaptionVectors(llm, folder=folder / "captions").store
        records = store.records()
        size = store.path.stat().st_size
        vector_of = {record["key"].tobytes(): record.tobytes() for record in records}
        contents = {text: vector_of[key_of(text)] for text in texts if key_of(text) in vector_of}
        # Each caption once, and nothing else.
        contents["bytes"] = size
        return contents

    return Kind([writer(part) for part in parts], contents)


# --------------------------------------------------------------------------------------------------
# A pack.


def packing(folder: Path, processes: int) -> Kind:
    """A table of 2,000 images, of which a few cannot be read. folder: for the images"""
    folder.mkdir(exist_ok=True)
    rows = ["image,caption"]
    rng = np.random.default_rng(0)
    for i in range(2000):
        rows.append(f"{i}.png,{'' if i % 90 == 3 else f'number {i}'}")
        pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        if i % 70 == 5:
            (folder / f"{i}.png").write_bytes(b"no image")
    (folder / "a.csv").write_text("\n".join(rows) + "\n")

    def write(out: Path) -> None:
        sys.argv = ["pack", str(folder / "a.csv"), str(out / "pack"), "--size", "64"]
        pack.main()

    def contents(out: Path) -> dict:
        return {path.name: path.read_bytes() for path in (out / "pack").iterdir()}

    return Kind([write] * processes, contents)


# --------------------------------------------------------------------------------------------------
# Rounds.


def start(writer: Writer, folder: Path) -> multiprocessing.Process:
    """Let a process of its own write. What it says goes to folder/said."""

    def work() -> None:
        with open(folder / "said", "a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        sys.exit(run(lambda: writer(folder)))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def finish(kind: Kind, folder: Path) -> bool:
    """Let all writers come to their end at the same time. Did all succeed?"""
    processes = [start(writer, folder) for writer in kind.writers]
    for process in processes:
        process.join()
    return all(process.exitcode == 0 for process in processes)


def kill_all(kind: Kind, folder: Path, seconds: float, rng: random.Random) -> tuple[int, bool]:
    """Start all writers, and kill each at a moment of its own. (how many were killed, an error?)"""
    processes = [start(writer, folder) for writer in kind.writers]
    begun = time.time()
    moments = sorted((rng.uniform(0, seconds), i) for i in range(len(processes)))
    for moment, i in moments:
        time.sleep(max(0, begun + moment - time.time()))
        processes[i].kill()
    for process in processes:
        process.join()
    killed = [process.exitcode == -9 for process in processes]
    succeeded = [process.exitcode == 0 for process in processes]
    return sum(killed), not all(k or s for k, s in zip(killed, succeeded, strict=True))


def play(kind: Kind, rounds: int, rng: random.Random) -> Counter:
    """So many rounds of one kind -> how many of them had which end, and the number of kills."""
    counts = Counter(rounds=rounds)
    with tempfile.TemporaryDirectory() as name:
        begun = time.time()
        if not finish(kind, Path(name)):
            raise BadInput(f"without a kill it fails: {(Path(name) / 'said').read_text()}")
        seconds = time.time() - begun
        wanted = kind.contents(Path(name))
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            failed = False
            for _ in range(rng.randint(1, 3)):
                kills, error = kill_all(kind, folder, seconds, rng)
                counts["kills"] += kills
                failed |= error
            failed |= not finish(kind, folder)
            try:
                found = kind.contents(folder)
            except (OSError, ValueError):  # a file that is not there, or not whole
                found = {}
            lacks = sorted(wanted.keys() - found.keys())
            differs = [what for what in found if found[what] != wanted.get(what)]
            end = "errors" if failed else "lost" if lacks else "different" if differs else "same"
            counts[end] += 1
            if end != "same":
                last_words = (folder / "said").read_text().splitlines()[-1:]
                print(
                    f"round {number}: {end}; of {len(wanted)} {len(lacks)} are lost {lacks[:3]}, "
                    f"{len(differs)} differ {differs[:3]}; {last_words}",
                    file=sys.stderr,
                )
    return counts


KINDS = ("training", "captions", "captions two", "pack", "pack two")
COLUMNS = ("rounds", "kills", "same", "lost", "different", "errors")


def play_all(kinds: list[str], rounds: int, seed: int, llm: FrozenLLM) -> dict[str, Counter]:
    """Rounds of some kinds -> {kind: its counts}."""
    counts = {}
    with tempfile.TemporaryDirectory() as name:
        for kind in kinds:
            made = {
                "training": lambda: training(Path(name)),
                "captions": lambda: captions(llm, [slice(0, 600)]),
                "captions two": lambda: captions(llm, [slice(0, 400), slice(200, 600)]),
                "pack": lambda: packing(Path(name) / "images", 1),
                "pack two": lambda: packing(Path(name) / "images", 2),
            }[kind]()
            counts[kind] = play(made, rounds, random.Random(f"{seed} {kind}"))
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="of each kind (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    parser.add_argument(
        "--kinds", default=",".join(KINDS), help="which, with commas between them (all)"
    )
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise BadInput(f"--kinds {unknown[0]!r} is unknown; choose of {', '.join(KINDS)}")

    # Forked processes must not wait for threads that they do not have.
    torch.set_num_threads(1)
    counts = play_all(kinds, args.rounds, args.seed, load_llm())
    print(f"| kind | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for kind, count in counts.items():
        print(f"| {kind} | {' | '.join(str(count[column]) for column in COLUMNS)} |")
    return int(any(count["same"] < count["rounds"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(run(main))
