"""For notebooks: test what a cell defines. `check("1.1")` runs the grader and shows what it says.

The cell's text is taken from the kernel's history, put into the reference in place of ours, and
tested in processes of its own (grade.py). The function in the kernel is not called. So a cell must
have been run before it is checked.

A method is written as a function whose name has the class before it: Attention_forward for
Attention.forward. A whole class is written as a class. The row of a table is an assignment:
METHODS_lift = Method(...).
"""

import ast
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .holes import HERE, CourseError, Task, read_tasks


def name_in_notebook(task: Task) -> str:
    """info_nce, Attention_forward, LoRA, METHODS_lift"""
    return task.name.replace(".", "_").replace("[", "_").removesuffix("]")


def defining_cell(cells: list[str], name: str) -> str:
    """The last cell that defines a name. Lines for IPython alone (%, !) are left out."""
    for cell in reversed(cells):
        text = "\n".join(line for line in cell.splitlines() if not line.startswith(("%", "!")))
        try:
            nodes = ast.parse(text).body
        except SyntaxError:
            continue
        for node in nodes:
            targets = [getattr(t, "id", None) for t in getattr(node, "targets", [])]
            if getattr(node, "name", None) == name or name in targets:
                return text
    raise CourseError(f"no cell that was run defines {name}")


def as_file(cell: str, task: Task) -> str:
    """A cell as the file that a student of the folders would have: the hole under its own name."""
    name = name_in_notebook(task)
    if "." not in task.name and "[" not in task.name:
        return cell
    lines = cell.splitlines(keepends=True)
    (node,) = [
        n
        for n in ast.parse(cell).body
        if getattr(n, "name", None) == name
        or name in [getattr(t, "id", None) for t in getattr(n, "targets", [])]
    ][-1:]
    own = "".join(lines[node.lineno - 1 : node.end_lineno])
    if "[" in task.name:
        table, key = task.name.removesuffix("]").split("[")
        new = f"{table} = {{{key!r}: {ast.get_source_segment(cell, node.value)}}}\n"
    else:
        class_name, method = task.name.split(".")
        own = own.replace(f"def {name}(", f"def {method}(", 1)
        new = f"class {class_name}:\n" + "".join(f"    {line}" for line in own.splitlines(True))
    lines[node.lineno - 1 : node.end_lineno] = [new + "\n"]
    return "".join(lines)


def check(task_id: str, hidden: str | None = None) -> None:
    """Test a task of this notebook. AssertionError, with the grader's words, unless all tests hold.

    hidden  the text of a file of hidden tests, which then run in place of the visible ones
    """
    from IPython import get_ipython

    (task,) = (task for task in read_tasks() if task.id == task_id)
    cell = defining_cell(get_ipython().user_ns["In"], name_in_notebook(task))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"unit{task.unit}" / task.file
        path.parent.mkdir(parents=True)
        path.write_text(as_file(cell, task))
        command = [sys.executable, "-m", f"{__package__}.check", str(task.unit)]
        command += ["--task", task_id, "--folder", folder]
        if hidden is not None:
            (Path(folder) / f"hidden_unit{task.unit}.py").write_text(hidden)
            command += ["--tests", folder]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        done = subprocess.run(
            command, cwd=HERE.parent, env=environment, capture_output=True, text=True
        )
    words = (done.stdout + done.stderr).strip()
    if done.returncode:
        raise AssertionError(words)
    print(words)
