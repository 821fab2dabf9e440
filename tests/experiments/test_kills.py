"""tests/experiments/kills.py: it finds what is lost or different; a round of each kind.

python -m pytest tests/experiments/test_kills.py
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.experiments.kills import Kind, play

ROOT = Path(__file__).parents[2]


def write_lines(folder, first, last):
    """Ten lines, with time to be killed between them."""
    for i in range(first, last):
        with open(folder / "lines", "a") as file:
            file.write(f"{i}\n")
        time.sleep(0.02)


def starts_again(folder):
    write_lines(folder, 0, 10)


def goes_on(folder):
    there = (folder / "lines").read_text().split() if (folder / "lines").exists() else []
    write_lines(folder, len(there), 10)


def thinks_it_is_done(folder):
    if not (folder / "lines").exists():
        write_lines(folder, 0, 10)


def complains(folder):
    if (folder / "lines").exists():
        raise ValueError("there is something already")
    write_lines(folder, 0, 10)


def lines_of(folder):
    """{line: how often it is there}"""
    lines = (folder / "lines").read_text().split()
    return {line: lines.count(line) for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize(
    "writer, end",
    [
        (goes_on, "same"),
        (starts_again, "different"),
        (thinks_it_is_done, "lost"),
        (complains, "errors"),
    ],
)
def test_each_end_is_found(writer, end, capsys):
    counts = play(Kind(writer, [writer], lines_of), 6, random.Random(0))
    assert counts["rounds"] == 6 and counts["kills"] >= 1
    said = capsys.readouterr().err
    if end == "same":
        assert counts["same"] == 6 and not said
    else:
        # A kill before the first line does no harm.
        assert counts[end] >= 1 and counts[end] + counts["same"] == 6
        assert said.count(f": {end}: ") == counts[end]


@pytest.mark.slow
def test_killed_processes_lose_nothing(tiny_llm_folder):
    """A round of three kinds, with a random language model."""
    kinds = ["training", "captions two", "pack two"]
    command = [sys.executable, "-m", "tests.experiments.kills", "--rounds", "1"]
    command += ["--llm", str(tiny_llm_folder), "--kinds", ",".join(kinds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    _, _, *rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == kinds
    assert all(row[3:] == ["1", "0", "0", "0"] for row in rows)
