"""tests/experiments/fuzz.py: a sample of its cases, and that it sees what it looks for.

python -m pytest tests/experiments/test_fuzz.py
"""

import random
import time

import numpy as np
import pytest

from data.common import BadInput
from tests.experiments import fuzz
from tests.experiments.fuzz_kinds import KINDS


@pytest.mark.slow
def test_a_sample_of_damaged_files_is_refused_in_one_line_or_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = fuzz.fuzz(300, seed=0, kept=tmp_path / "kept")
    failures = [path.read_text() for path in tmp_path.glob("kept/*/failure.txt")]
    assert not failures, failures[0]
    for kind in KINDS:
        assert sum(counts[kind, outcome] for outcome in fuzz.OUTCOMES) == 300 // len(KINDS), kind


@pytest.mark.slow
def test_an_undamaged_copy_is_read_the_same(monkeypatch, tmp_path):
    """So what is refused is refused for its damage."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fuzz, "damage", lambda folder, pattern, rng: None)
    counts = fuzz.fuzz(len(KINDS), seed=0, kept=tmp_path / "kept")
    assert counts == {(kind, "read the same"): 1 for kind in KINDS}


def raised(error):
    def read(folder):
        raise error

    return read


def too_much(folder):
    return np.empty(2 * fuzz.GIGABYTE, np.uint8)


@pytest.mark.parametrize(
    "read, outcome",
    [
        (lambda folder: "as it was", "read the same"),
        (lambda folder: "another", "read otherwise"),
        (raised(BadInput("x.csv: no caption")), "refused"),
        (raised(FileNotFoundError(2, "No such file", "x.csv")), "refused"),
        (raised(OSError(22, "Invalid argument")), "other exception"),
        (raised(KeyError("x")), "other exception"),
        (raised(BadInput("x" * 3000)), "other exception"),
        (too_much, "memory"),
        (lambda folder: time.sleep(60), "slow"),
    ],
)
def test_every_outcome_is_known(read, outcome, tmp_path, monkeypatch):
    monkeypatch.setenv("LIFT_CACHE", "")
    if outcome == "slow":
        monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    assert fuzz.outcome_of(read, tmp_path, "as it was")[0] == outcome


def test_a_failure_is_kept_with_the_command_that_repeats_it(tmp_path, monkeypatch):
    def make(folder):
        (folder / "a.txt").write_text("good" * 9)

    def read(folder):
        if (folder / "a.txt").read_text(errors="replace") != "good" * 9:
            raise KeyError("damaged")

    monkeypatch.setattr(fuzz, "KINDS", {"text": (make, read, "*.txt")})
    counts = fuzz.fuzz(5, seed=7, kept=tmp_path)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert len(kept) == counts["text", "other exception"] > 0
    message = (tmp_path / kept[0] / "failure.txt").read_text()
    case = kept[0].split()[-1]
    assert f"--seed 7 --first {case} --cases 1" in message and "KeyError: 'damaged'" in message
    with pytest.raises(KeyError):
        read(tmp_path / kept[0])
    assert "| text | 5 |" in fuzz.table(counts)


def test_a_part_of_a_value_is_changed_and_the_value_itself_is_not():
    value = {"a": [1, {"b": 2}], "c": "x"}
    others = [fuzz.damage_value(value, random.Random(seed)) for seed in range(200)]
    assert value == {"a": [1, {"b": 2}], "c": "x"}
    assert sum(repr(other) != repr(value) for other in others) > 180
    assert len({repr(other) for other in others}) > 50
