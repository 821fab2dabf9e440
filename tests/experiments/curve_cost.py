"""What the validation curve costs beside training. Prints the table of docs/results/curve_cost.md.

    python -m tests.experiments.curve_cost              # a minute on one free core
    python -m tests.experiments.curve_cost --rounds 1   # a quick look

train.py chooses `--val-frequency` so that the curve should take about 2 % of the time. For that it
assumes that to score an image takes a third of the time that it takes to train on one. Here both
are measured, with one thread and the settings of the demo: images of 64 pixels, batches of 128, 256
validation and 256 training images in the curve. Training and scoring of all rows take turns. Time
is that of the processor, which other work on the machine disturbs less than the clock's. A number
is the median of the rounds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from typing import NamedTuple

import torch

import lift
import train
from data.common import BadInput, exit_status, parse_flags
from data.train_log import score_batch

STEPS = 2  # of training, in each round
DEMO_IMAGES = 20_000  # for which the interval of the curve is computed


class Row(NamedTuple):
    """A kind of run. The first two are the demo's, the others have smaller patches."""

    model: str
    method: str


ROWS = [Row(model, method) for model in ("nano/16", "micro/8") for method in ("lift", "clip")]


class Seconds(NamedTuple):
    """Of one image."""

    training: float
    scoring: float


def demo_job(row: Row, folder: str) -> train.Job:
    """A run with the demo's settings and fewer images, ready for its first step."""
    return train.set_up(
        train.Config(
            method=row.method,
            model=row.model,
            train_num_samples=1024,
            device="cpu",
            out=f"{folder}/{row.model}-{row.method}",
        )
    )


def step_of(job: train.Job, batch: train.Batch) -> None:
    train.training_step(job.model, job.optimizer, batch, job.cfg.lr, job.cfg)


def measure(job: train.Job, batches: list[train.Batch]) -> Seconds:
    """Some steps of training, then the curve once. The batches are there already."""
    begun = time.process_time()
    for batch in batches:
        step_of(job, batch)
    trained = time.process_time()
    loss_of = lift.METHODS[job.cfg.method].loss
    for batch in job.curve_batches.values():
        score_batch(job.model, loss_of, batch, bf16=False)
    scored = time.process_time()
    n_trained = sum(len(batch.images) for batch in batches)
    n_scored = sum(len(batch.images) for batch in job.curve_batches.values())
    return Seconds((trained - begun) / n_trained, (scored - trained) / n_scored)


def measure_all(rounds: int) -> dict[Row, list[Seconds]]:
    """All rows, one after the other, and then all again. The first round does not count."""
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        jobs = {row: demo_job(row, folder) for row in ROWS}
        batches = {row: [job.batches(step) for step in range(STEPS)] for row, job in jobs.items()}
        for number in range(1 + rounds):
            for row, job in jobs.items():
                seconds = measure(job, batches[row])
                if number > 0:
                    found[row].append(seconds)
    return found


def share_of_curve(cost: float) -> float:
    """The time of the demo's curve as a share of its training.

    cost  the time to score an image, divided by the time to train on one
    """
    cfg = train.sized(train.Config(), DEMO_IMAGES, train.MAX_CURVE)
    return 2 * train.MAX_CURVE * cost / (cfg.val_frequency * cfg.batch_size)


def report(found: dict[Row, list[Seconds]]) -> str:
    """The table. The range is that of the rounds."""
    lines = [
        "| model | method | training, ms an image | scoring, ms an image | scoring / training "
        "| range | time of the curve |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, seconds in found.items():
        training = statistics.median(one.training for one in seconds)
        scoring = statistics.median(one.scoring for one in seconds)
        ratios = [one.scoring / one.training for one in seconds]
        lines.append(
            f"| {row.model} | {row.method} | {1000 * training:.2f} | {1000 * scoring:.2f} "
            f"| {scoring / training:.2f} | {min(ratios):.2f} to {max(ratios):.2f} "
            f"| {share_of_curve(scoring / training):.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each row is measured")
    args = parse_flags(parser)
    if args.rounds < 1:
        raise BadInput(f"--rounds {args.rounds}: give 1 or more")
    torch.set_num_threads(1)
    print(report(measure_all(args.rounds)))


if __name__ == "__main__":
    sys.exit(exit_status(main))
