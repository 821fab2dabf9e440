"""A step in pieces: memory, time of the second pass, processes. Writes docs/results/pieces.md.

    python -m tests.experiments.pieces            # about 15 minutes on 2 cores
    python -m tests.experiments.pieces --rounds 1
    python -m tests.experiments.pieces --precision-only --rounds 5    # prints the last table alone

Each row is some runs of train.py, in processes of their own: `--accum-freq K`, or torchrun. Rows
that are compared take turns. A number is the median of the rounds, and of each round it is the
median of the steps after the first. Memory is the largest of any round: the peak of a process, of
the first one where there are two, with all that Python and the images take.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import torch

from data.common import BadInput, exit_status, parse_flags

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results/pieces.md"


class Row(NamedTuple):
    """Runs of one kind."""

    method: str
    batch: int
    pieces: int  # for each process
    processes: int = 1
    threads: int = 1  # of each process
    precision: str = "fp32"
    model: str = "Ti/16"
    steps: int = 4


class Measured(NamedTuple):
    images_per_second: float
    gigabytes: float


# Larger and larger batches in pieces of 256 images, then one batch in more and more pieces.
MEMORY = [Row("clip", 256 * k, k) for k in (1, 2, 4, 8)] + [Row("clip", 2048, k) for k in (1, 2, 4)]
TIME = [Row(method, 256, k) for method in ("clip", "lift") for k in (1, 2, 4)]
PROCESSES = [
    Row(method, 256, 1, processes, threads)
    for method in ("clip", "lift")
    for processes, threads in ((1, 1), (1, 2), (2, 1))
]
# The tower and the batch of the demo, then wider towers. Two threads, as train.py takes itself.
PRECISION = [
    Row(method, batch, 1, 1, 2, precision, model, steps)
    for model, batch, steps in (("nano/16", 128, 24), ("micro/16", 128, 12), ("Ti/16", 256, 4))
    for method in ("clip", "lift")
    for precision in ("fp32", "amp_bf16")
]


def measure(row: Row) -> Measured:
    """Run train.py once."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        command = ["train.py", "--method", row.method, "--batch-size", str(row.batch)]
        command += ["--accum-freq", str(row.pieces), "--steps", str(row.steps), "--out", str(out)]
        command += ["--model", row.model, "--precision", row.precision, "--val-frequency", "0"]
        command += ["--train-num-samples", "2048", "--log-every-n-steps", "1"]
        if row.processes > 1:
            start = ["-m", "torch.distributed.run", "--standalone"]
            command = [*start, "--nproc-per-node", str(row.processes), *command]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": str(row.threads)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise BadInput(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
        entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in entries if "loss" in entry]
    speed = statistics.median(entry["images_per_second"] for entry in steps[1:])
    return Measured(speed, steps[-1]["memory_gb"])


def measure_all(rows: list[Row], rounds: int) -> dict[Row, Measured]:
    """All rows, one after the other, and then all again."""
    found = defaultdict(list)
    for number in range(rounds):
        for row in rows:
            found[row].append(measure(row))
            print(f"round {number + 1} of {rounds}: {row} {found[row][-1]}", file=sys.stderr)
    return {
        row: Measured(
            statistics.median(one.images_per_second for one in several),
            max(one.gigabytes for one in several),
        )
        for row, several in found.items()
    }


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def report(found: dict[Row, Measured]) -> str:
    """The four tables."""
    memory = table(
        ["method", "batch", "pieces", "peak memory, GB"],
        [[r.method, str(r.batch), str(r.pieces), f"{found[r].gigabytes:.1f}"] for r in MEMORY],
    )
    time = []
    for row in TIME:
        whole = found[row._replace(pieces=1)].images_per_second
        speed = found[row].images_per_second
        time.append([row.method, str(row.pieces), f"{speed:.0f}", f"{whole / speed:.2f}"])
    processes = []
    for row in PROCESSES:
        one = found[row._replace(processes=1, threads=1)].images_per_second
        speed = found[row].images_per_second
        cells = [row.method, str(row.processes), str(row.threads), f"{speed:.0f}"]
        processes.append([*cells, f"{speed / one:.2f}"])
    return "\n\n".join(
        (
            memory,
            table(["method", "pieces", "images per second", "time of a step, one piece = 1"], time),
            table(
                ["method", "processes", "threads of each", "images per second", "speed, first = 1"],
                processes,
            ),
            precision_table(found),
        )
    )


def precision_table(found: dict[Row, Measured]) -> str:
    rows = []
    for row in PRECISION:
        full = found[row._replace(precision="fp32")].images_per_second
        speed = found[row].images_per_second
        cells = [row.model, row.method, row.precision, f"{speed:.0f}"]
        rows.append([*cells, f"{speed / full:.2f}"])
    return table(["model", "method", "precision", "images per second", "speed, fp32 = 1"], rows)


HEAD = """# A step in pieces: memory, time, processes

Written by `python -m tests.experiments.pieces`. Image tower Ti/16 at 64 pixels, 4 steps, seed 0,
{rounds} rounds, torch {torch}, {cores} cores of {machine}. The first table says how much memory a \
step takes:
pieces of 256 images, then one batch in more pieces. The second says what the second pass costs, \
with
a batch of 256. The third shares such a batch among processes. The last trains in bfloat16 on this \
CPU,
with two threads: `nano/16` and its batch of 128 are those of the demo.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each row is measured")
    parser.add_argument("--precision-only", action="store_true", help="print the last table alone")
    args = parse_flags(parser)
    if args.rounds < 1:
        raise BadInput(f"--rounds {args.rounds}: give 1 or more")
    if args.precision_only:
        print(precision_table(measure_all(PRECISION, args.rounds)))
        return
    found = measure_all(MEMORY, 1) | measure_all(
        list(dict.fromkeys([*TIME, *PROCESSES, *PRECISION])), args.rounds
    )
    head = HEAD.format(
        rounds=args.rounds,
        torch=torch.__version__,
        cores=os.cpu_count(),
        machine=platform.processor() or platform.machine(),
    )
    RESULTS.write_text(head + report(found) + "\n", encoding="utf-8")
    print(f"wrote {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
