"""Make docs/tour.ipynb of docs/tour.py: the same cells, executed, with what they print and show.

    pip install -r docs/course/requirements-tour.txt   # beside requirements.txt
    python -m docs.course.tour_notebook                         # a minute

docs/tour.py is the source. A line that begins with "# %%" begins a cell. Where "[markdown]" stands
behind it, the cell is text. The notebook is a product and is never edited.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "docs/tour.py"
NOTEBOOK = ROOT / "docs/tour.ipynb"


class Cell(NamedTuple):
    kind: str  # "code" or "markdown"
    text: str


def cells_of(source: str) -> list[Cell]:
    """The cells of a file in percent format. Text before the first cell is an error."""
    before, *parts = re.split(r"^# %%", source, flags=re.M)
    if before.strip():
        raise ValueError("there is text before the first line '# %%'")
    cells = []
    for part in parts:
        mark, _, text = part.partition("\n")
        text = text.strip("\n")
        if mark.strip() == "[markdown]":
            lines = [re.sub(r"^# ?", "", line) for line in text.splitlines()]
            cells.append(Cell("markdown", "\n".join(lines)))
        else:
            cells.append(Cell("code", text))
    return cells


def main() -> None:
    # Only this command needs them. The tests import cells_of.
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    for number, (kind, text) in enumerate(cells_of(SOURCE.read_text())):
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        notebook.cells.append(make(text, id=f"cell-{number}"))
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": ROOT}}).execute()

    # What is in the file depends on the cells alone: no times, no version of this machine's Python.
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code" and not cell.outputs:
            raise SystemExit(f"error: this cell shows nothing:\n{cell.source}")
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                raise SystemExit(f"error: this cell complains: {output.text}")
            # A picture in words, with its address in memory, tells nobody anything.
            if "image/png" in output.get("data", {}):
                output.data = {"image/png": output.data["image/png"]}
    NOTEBOOK.write_text(nbformat.writes(notebook) + "\n")
    print(f"wrote {NOTEBOOK}")


if __name__ == "__main__":
    sys.exit(main())
