"""Where the time of a training step goes. Prints the table of docs/results/profile_step.md.

    python -m tests.experiments.profile_step   # about 2 minutes on one free core

torch.profiler looks at ten training steps of each kind, with one thread, after two that do not
count. The demo's steps are those of train.py. The others are CLIP's steps of bench.py, whose ratio
to open_clip misses its aim. A share is the own time of all operations of a kind, without the
operations that they call, divided by the own time of all operations.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from data.common import exit_status, parse_flags
from tests.experiments import bench
from tests.experiments.curve_cost import Row, demo_job, step_of

STEPS = 10

# A kind of operation, and words of which one stands in the operation's name. The first kind counts.
KINDS = {
    "optimizer": ("adam", "optimizer", "foreach", "linalg_vector_norm"),
    "attention": ("attention",),
    "matrix products": ("::mm", "::addmm", "::bmm", "::baddbmm", "convolution"),
    "norms and activations": ("norm", "gelu", "softmax", "relu", "tanh"),
    "copies": ("copy", "::cat", "clone", "::stack"),
}
REST = "the rest"


def kind_of(name: str) -> str:
    """The kind of an operation, by its name: "aten::mm" -> "matrix products"."""
    for kind, words in KINDS.items():
        if any(word in name.lower() for word in words):
            return kind
    return REST


def shares(step: Callable[[], object]) -> dict[str, float]:
    """{kind of operation: its share of the time of ten steps}"""
    for _ in range(2):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(STEPS):
            step()
    times = Counter()
    for event in found.key_averages():
        times[kind_of(event.key)] += event.self_cpu_time_total
    return {kind: times[kind] / times.total() for kind in (*KINDS, REST)}


def demo_step(method: str, folder: str) -> Callable[[], object]:
    """A training step of the demo's run, again and again with the same batch."""
    job = demo_job(Row("nano/16", method), folder)
    batch = job.batches(0)
    return lambda: step_of(job, batch)


def report(found: dict[str, dict[str, float]]) -> str:
    """The table: a row for each kind of operation, a column for each kind of step."""
    lines = [f"| operations | {' | '.join(found)} |", "|---" * (1 + len(found)) + "|"]
    for kind in (*KINDS, REST):
        cells = [f"{100 * one[kind]:.0f} %" for one in found.values()]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parse_flags(argparse.ArgumentParser(description=__doc__.split("\n")[0]))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = {f"{m.upper()}, demo": shares(demo_step(m, folder)) for m in ("lift", "clip")}
    for tower in bench.FULL.towers:
        found[f"CLIP, {tower.name}"] = shares(bench.our_step("clip", tower))
    print(report(found))


if __name__ == "__main__":
    sys.exit(exit_status(main))
