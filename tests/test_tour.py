"""docs/tour.py, the guided tour, and the notebook that is made of it.

    python -m pytest tests/test_tour.py

The notebook holds the same cells as the file, and what each of them printed or showed. One test
runs the cells with the real language model.
"""

import ast
import json
from pathlib import Path

import pytest

from docs.course.tour_notebook import NOTEBOOK, SOURCE, cells_of

ROOT = Path(__file__).parent.parent


def code_cells() -> list[str]:
    return [cell.text for cell in cells_of(SOURCE.read_text()) if cell.kind == "code"]


def test_cells_are_found():
    source = (
        '# %% [markdown]\n# # Title\n#\n# text\n\n# %%\nx = 1\n\n\n# %%\n"""# %% is no cell"""\n'
    )
    cells = cells_of(source)
    assert cells == [
        ("markdown", "# Title\n\ntext"),
        ("code", "x = 1"),
        ("code", '"""# %% is no cell"""'),
    ]
    with pytest.raises(ValueError, match="before the first"):
        cells_of("x = 1\n# %%\n")


def test_the_notebook_has_the_cells_of_the_tour():
    """Otherwise: python -m docs.course.tour_notebook"""
    notebook = json.loads(NOTEBOOK.read_text())
    made = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert made == cells_of(SOURCE.read_text())
    assert len(code_cells()) >= 15


def test_the_notebook_is_executed_and_names_no_machine():
    notebook = json.loads(NOTEBOOK.read_text())
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"], f"cell {number} shows nothing"
            types = {output["output_type"] for output in cell["outputs"]}
            assert types <= {"stream", "execute_result"}, f"cell {number}: {types}"
            assert cell["execution_count"]
    # A picture is shown where a cell ends with one.
    pictures = [
        cell
        for cell in notebook["cells"]
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    ]
    ends = [ast.unparse(ast.parse(text).body[-1]) for text in code_cells()]
    assert len(pictures) == sum(end.startswith(("row_of", "drawn(")) for end in ends) >= 8


@pytest.mark.slow
@pytest.mark.real_llm
def test_the_tour_runs(llm, monkeypatch, capsys):
    """The cells, one after the other, as in a notebook. `llm` makes it skip without a network."""
    monkeypatch.chdir(ROOT)
    names = {"__name__": "tour"}
    for number, text in enumerate(code_cells()):
        tree = ast.parse(text)
        last = tree.body.pop()
        exec(compile(tree, f"cell {number}", "exec"), names)
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
            assert shown is None or min(shown.size) >= 48
        else:
            exec(compile(ast.Module([last], []), f"cell {number}", "exec"), names)
    said = capsys.readouterr().out
    # What is done by hand equals what the project's code does, and training works.
    assert said.count("True") >= 6 and "False" not in said
    assert names["loss"].item() < 1
    assert (names["i2t"] < 10).float().mean() > 2 * 10 / 64
