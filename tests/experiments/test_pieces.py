"""tests/experiments/pieces.py: what its tables compare.

python -m pytest tests/experiments/test_pieces.py
"""

from tests.experiments import pieces
from tests.experiments.pieces import MEMORY, PRECISION, PROCESSES, TIME, Measured, Row


def test_the_tables_compare_with_the_row_of_one_piece_and_one_process():
    found = {}
    for row in (*MEMORY, *TIME, *PROCESSES, *PRECISION):
        # In two pieces a step takes twice as long. Two processes or threads are 1.5 times as fast.
        speed = 100 / row.pieces * (1.5 if row.processes * row.threads > 1 else 1)
        speed *= 2 if row.model == "nano/16" else 1
        speed *= 0.8 if row.precision == "amp_bf16" else 1
        found[row] = Measured(speed, row.batch / row.pieces / 256)
    memory, time, processes, precision = pieces.report(found).split("\n\n")
    assert "| clip | 2048 | 8 | 1.0 |" in memory and "| clip | 2048 | 2 | 4.0 |" in memory
    assert "| lift | 4 | 25 | 4.00 |" in time and "| clip | 1 | 100 | 1.00 |" in time
    assert (
        "| lift | 2 | 1 | 150 | 1.50 |" in processes
        and "| lift | 1 | 2 | 150 | 1.50 |" in processes
    )
    assert "| nano/16 | lift | amp_bf16 | 240 | 0.80 |" in precision
    assert "| Ti/16 | clip | fp32 | 150 | 1.00 |" in precision


def test_rows_take_turns_and_the_median_counts(monkeypatch):
    asked = []
    speeds = iter((1.0, 10.0, 3.0, 30.0, 2.0, 50.0))

    def measure(row):
        asked.append(row.method)
        return Measured(next(speeds), len(asked))

    monkeypatch.setattr(pieces, "measure", measure)
    one, other = Row("clip", 8, 1), Row("lift", 8, 1)
    found = pieces.measure_all([one, other], 3)
    assert asked == ["clip", "lift"] * 3
    assert found == {one: Measured(2.0, 5), other: Measured(30.0, 6)}
