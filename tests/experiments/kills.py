"""Kill it at any moment, start it again: is all there, and is it the same? Counts what is not.

    python -m tests.experiments.kills --rounds 20 --seed 0               # docs/results/kills.md
    python -m tests.experiments.kills --rounds 20 --kinds training,pack

Each round begins with an empty folder. Its processes are started and killed (SIGKILL) once or
twice, each at a random moment. Then they are started once more and come to their end. What the
folder then holds must be what one process leaves that nobody kills, bit for bit.

    kind           its processes
    training       train.py on 64 images, with a checkpoint after every step
    captions       the language model reads 400 captions into the cache
    captions two   two such processes at once, with 300 captions each, of which 200 are the same
    pack           data.images.pack on 1,500 images
    pack two       two such processes at once, with one folder

Prints a table, and exits with status 1 if any round does not end well:

    kills      processes that were killed before they came to their end
    same       rounds that end well
    lost       rounds after which something is missing: a step, a caption, a file
    different  rounds after which all is there, but not the same
    errors     rounds in which a process ended with an error of its own

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

import train
from data.common import BadInput, exit_status, pick_dtype
from data.files.runs import read_run
from data.images import pack
from data.images.formats import Columns
from data.images.read import captions_of
from data.vectors import CaptionVectors, key_of
from llm_text import FrozenLLM, load_llm
from tests.tiny_llm import write_tiny_llm

Writer = Callable[[Path], None]  # works in the folder of a round, and goes on where one was killed


class Kind(NamedTuple):
    alone: Writer  # does the whole work
    writers: list[Writer]  # do it together, each in a process of its own
    contents: Callable[[Path], dict]  # {what: its content} of a folder, to be compared


# --------------------------------------------------------------------------------------------------
# Training.

STEPS = 15
FLAGS = f"""
    --data shapes-simple --train-num-samples 64 --device cpu --model micro/16 --image-size 32
    --batch-size 16 --whiten 8 --context-length 200 --crop-scale 0.8 --epochs 1000 --steps {STEPS}
    --log-every-n-steps 1 --save-frequency 1 --val-frequency 4
"""
# What the log says of a step that is different each time: times and memory.
NOT_COMPARED = ("images_per_second", "data_wait", "memory_gb", "eta_seconds", "seconds")


def training(folder: Path) -> Kind:
    """A small run, with a random language model, which is written to `folder`."""
    tiny_llm = write_tiny_llm(folder)

    def write(folder: Path) -> None:
        os.environ["LIFT_CACHE"] = str(folder / "cache")
        out = folder / "run"
        if not (out / "checkpoint.pt").exists():
            train.train(train.from_cli([*FLAGS.split(), "--llm", str(tiny_llm), "--out", str(out)]))
        # A kill may have come after the last step.
        elif read_run(out)["step"] < STEPS:
            train.train(train.from_cli(["--resume", str(out)]))

    return Kind(write, [write], contents_of_run)


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
        if "config" in entry:
            continue
        what = f"log {entry['step']}{' validation' if 'val' in entry else ''}"
        said = {name: value for name, value in entry.items() if name not in NOT_COMPARED}
        if contents.setdefault(what, said) != said:
            contents[what] = "two lines that differ"
    return contents


# --------------------------------------------------------------------------------------------------
# The cache of captions.


def captions(llm: FrozenLLM, parts: list[slice]) -> Kind:
    """400 captions, of which each process reads a part."""
    of_images = captions_of("shapes", "train", Columns(csv_caption_key="paraphrase"), 400)
    texts = list(dict.fromkeys(text for of_image in of_images for text in of_image))[:400]

    def writer(part: slice) -> Writer:
        def write(folder: Path) -> None:
            CaptionVectors(llm, folder=folder / "captions").read(texts[part])

        return write

    def contents(folder: Path) -> dict:
        store = CaptionVectors(llm, folder=folder / "captions").store
        records = {record["key"].tobytes(): record.tobytes() for record in store.records()}
        found = {text: records[key_of(text)] for text in texts if key_of(text) in records}
        # Each caption is there once, and nothing else is.
        return found | {"bytes": store.path.stat().st_size}

    return Kind(writer(slice(None)), [writer(part) for part in parts], contents)


# --------------------------------------------------------------------------------------------------
# A pack.


def packing(folder: Path, processes: int) -> Kind:
    """A table of 1,500 images, which are written to `folder`. A few cannot be read."""
    rows = ["image,caption"]
    for i in range(1500):
        rows.append(f"{i}.png,{'' if i % 90 == 3 else f'number {i}'}")
        if i % 70 != 5:
            Image.new("RGB", (24, 24), (i % 256, i // 256, 0)).save(folder / f"{i}.png")
    (folder / "a.csv").write_text("\n".join(rows) + "\n")

    def write(out: Path) -> None:
        sys.argv = ["pack", str(folder / "a.csv"), str(out / "pack"), "--size", "64"]
        pack.main()

    def contents(out: Path) -> dict:
        return {path.name: path.read_bytes() for path in (out / "pack").iterdir()}

    return Kind(write, [write] * processes, contents)


# --------------------------------------------------------------------------------------------------
# Rounds.


def start(writer: Writer, folder: Path) -> multiprocessing.Process:
    """Let a process of its own write. What it says goes to folder/said."""

    def work() -> None:
        with open(folder / "said", "a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        sys.exit(exit_status(lambda: writer(folder)))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def let_write(writers: list[Writer], folder: Path, moments: Sequence[float] = ()) -> list[int]:
    """Let writers work at the same time -> the exit status of each; of one that was killed -9.

    moments  seconds after which each of them is killed. Without moments none is
    """
    processes = [start(writer, folder) for writer in writers]
    begun = time.time()
    for moment, i in sorted((moment, i) for i, moment in enumerate(moments)):
        time.sleep(max(0, begun + moment - time.time()))
        processes[i].kill()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def play(kind: Kind, rounds: int, rng: random.Random) -> Counter:
    """So many rounds of one kind -> {column of the table: number}."""
    # What is wanted, and how long it takes.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.time()
        if let_write([kind.alone], folder) != [0]:
            raise BadInput(f"without a kill it fails: {(folder / 'said').read_text()}")
        seconds = time.time() - begun
        wanted = kind.contents(folder)

    counts = Counter(rounds=rounds)
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            statuses = []
            for _ in range(rng.randint(1, 2)):
                moments = [rng.uniform(0, seconds) for _ in kind.writers]
                statuses += let_write(kind.writers, folder, moments)
            counts["kills"] += statuses.count(-9)
            last_statuses = let_write(kind.writers, folder)
            end, about = compare(kind, folder, wanted)
            if any(last_statuses) or set(statuses) - {0, -9}:
                end, about = "errors", (folder / "said").read_text()
            counts[end] += 1
            if end != "same":
                print(f"round {number}: {end}: {about}", file=sys.stderr)
    return counts


def compare(kind: Kind, folder: Path, wanted: dict) -> tuple[str, str]:
    """How a round ended, as a column of the table, and what is wrong, in words."""
    try:
        found = kind.contents(folder)
    except (OSError, ValueError) as error:  # a file that is not there, or not whole
        return "lost", str(error)
    lost = sorted(wanted.keys() - found.keys())
    if lost:
        return "lost", f"{len(lost)} of {len(wanted)}, such as {lost[0]}"
    different = [what for what in found if found[what] != wanted.get(what)]
    if different:
        return "different", f"{len(different)} of {len(wanted)}, such as {different[0]}"
    return "same", ""


KINDS = ("training", "captions", "captions two", "pack", "pack two")
COLUMNS = ("rounds", "kills", "same", "lost", "different", "errors")


def make_kind(kind: str, folder: Path, llm: FrozenLLM) -> Kind:
    """One of KINDS. What it needs is written to `folder`."""
    if kind == "training":
        return training(folder)
    if kind == "captions":
        return captions(llm, [slice(0, 400)])
    if kind == "captions two":
        return captions(llm, [slice(0, 300), slice(100, 400)])
    return packing(folder, processes=1 if kind == "pack" else 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--rounds", type=int, default=10, help="of each kind (%(default)s)")
    add("--seed", type=int, default=0, help="of the moments (%(default)s)")
    add("--kinds", default=",".join(KINDS), help="which, with commas between them (all)")
    add("--llm", help="what reads the captions (default: SmolLM2-135M-Instruct)")
    add("--llm-dtype", default="auto", help="auto, float32 or bfloat16, as in train.py")
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise BadInput(f"--kinds {unknown[0]!r} is unknown; choose of {', '.join(KINDS)}")

    # A forked process has no other threads than the one that works.
    torch.set_num_threads(1)
    dtype = pick_dtype(args.llm_dtype, torch.device("cpu"))
    llm = load_llm(args.llm, dtype=getattr(torch, dtype))
    print(f"| kind | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}", flush=True)
    all_same = True
    for kind in kinds:
        with tempfile.TemporaryDirectory() as name:
            rng = random.Random(f"{args.seed} {kind}")
            counts = play(make_kind(kind, Path(name), llm), args.rounds, rng)
        cells = [str(counts[column]) for column in COLUMNS]
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)
        all_same &= counts["same"] == args.rounds
    return 0 if all_same else 1


if __name__ == "__main__":
    sys.exit(exit_status(main))
