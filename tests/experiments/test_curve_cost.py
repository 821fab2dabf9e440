"""tests/experiments/curve_cost.py: what its table says.

python -m pytest tests/experiments/test_curve_cost.py
"""

from types import SimpleNamespace

import pytest

import train
from tests.experiments import curve_cost
from tests.experiments.curve_cost import Row, Seconds


def test_the_table_has_medians_and_the_range_of_the_rounds():
    seconds = [Seconds(0.004, 0.001), Seconds(0.002, 0.001), Seconds(0.004, 0.009)]
    last = curve_cost.report({Row("nano/16", "lift"): seconds}).splitlines()[-1]
    # The curve has 512 images, and trains 67 batches of 128 between: 512 / 4 / 8576 is 1.5 %.
    assert last == "| nano/16 | lift | 4.00 | 1.00 | 0.25 | 0.25 to 2.25 | 1.5% |"
    assert curve_cost.share_of_curve(1 / 3) == pytest.approx(0.02, abs=2e-4)


def test_times_are_those_of_one_image(monkeypatch):
    clock = iter((10.0, 12.0, 13.0))
    monkeypatch.setattr(curve_cost.time, "process_time", lambda: next(clock))
    trained, scored = [], []
    monkeypatch.setattr(
        train, "training_step", lambda model, optimizer, batch, *_: trained.append(batch)
    )
    monkeypatch.setattr(
        curve_cost, "score_batch", lambda model, loss_of, batch, bf16: scored.append(batch)
    )
    four, five = (SimpleNamespace(images=[0] * count) for count in (4, 5))
    job = SimpleNamespace(
        model=None,
        optimizer=None,
        cfg=train.Config(),
        curve_batches={"val": five, "train": five},
    )
    assert curve_cost.measure(job, [four, four]) == Seconds(2 / 8, 1 / 10)
    assert trained == [four, four] and scored == [five, five]
