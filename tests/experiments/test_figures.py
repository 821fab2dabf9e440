"""The drawn figures show the code as it is: what a method trains, and what a batch masks.

python -m pytest tests/experiments/test_figures.py
"""

import pytest

from data.common import BadInput
from tests.experiments import figures

# These need neither a language model nor a trained run.
DRAWN = ("lift", "batch", "flow", "power", *figures.METHOD_FIGURES)


@pytest.mark.parametrize("name", DRAWN)
def test_the_stored_figure_is_what_the_command_draws(name, tmp_path):
    drawn = tmp_path / "figure.svg"
    figures.make_figure(name, ()).save(drawn)
    assert drawn.read_text() == (figures.FOLDER / f"{name}.svg").read_text()


def test_runs_that_are_not_there_are_told_in_one_line(tmp_path):
    with pytest.raises(BadInput, match="no such file; make it"):
        figures.make_figure("curves", (tmp_path / "lift", tmp_path / "clip"))
