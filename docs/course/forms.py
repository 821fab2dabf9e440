"""The course in the forms of nbgrader, otter and GitHub Classroom.

nbgrader and otter take notebooks. A notebook has the text of a unit, one cell for each hole, and a
cell that asks course.notebook.check for the verdict. The hole's body stands between `# BEGIN
SOLUTION` and `# END SOLUTION`, which both programs take out. In a class each method has these
marks.
"""

import ast
import json
import shutil
from pathlib import Path

from . import handout, written
from .experiments import Edition
from .holes import (
    HERE,
    CourseError,
    Task,
    find,
    first_line,
    functions_of,
    header_end,
    parse,
    source_of,
)
from .notebook import name_in_notebook

ROOT = HERE.parent.parent

BEFORE = """\
# The project, and `check`. {note}
import sys

sys.path[:0] = [".", "course/reference"]
{imports}
from course.notebook import check
"""

IN_A_NOTEBOOK = """
## In this notebook

Each function has a cell below, and the cell behind it says which tests hold. The files of the text
are in `course/reference`, where nothing is missing. So run the commands of the experiment there,
after `cd course/reference`. You hand in this notebook alone. Where the text asks for a file of
code, its cells are meant. Where it asks for a log or an `eval.json`, paste the last line of the
log, or the scores, under "What you measured". Put a drawing there as an image.
"""

MEASURED = """\
### What you measured

5 points: 2 for last lines of logs that belong to the commands; 2 for the table, with the spread
where there are several seeds, and for what else "Hand in" names; 1 for the sentences that the text
asks for, or for one on what surprised you, or on a number outside its band. A line that does not
fit its command: 0 for all. Keep the folder `course/reference/runs`: your teacher may ask for a log.
"""

# Stands in place of a model answer: nobody can know what a student measures.
AS_RUBRIC = "teacher/rubric.md says what earns these points."

HELP = """
Behind your answer write **Help**: solutions that you looked at, and what you understood by them;
language models that you asked, and for what. "None" is an answer. Leaving this out costs 1 point.
Help that is used and not named: 0 for the written answer.
"""


# --------------------------------------------------------------------------------------------------
# Cells.


def cell(kind: str, text: str, number: int, metadata: dict | None = None) -> dict:
    """A cell of a notebook, format 4.5. kind: code, markdown or raw."""
    made = {
        "cell_type": kind,
        "id": f"cell-{number}",
        "metadata": metadata or {},
        "source": text.rstrip("\n"),
    }
    return made | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def notebook(cells: list[tuple]) -> str:
    """A notebook of (kind, text) or (kind, text, metadata)."""
    contents = {
        "cells": [cell(one[0], one[1], i, *one[2:]) for i, one in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(contents, indent=1) + "\n"


def solution_cell(task: Task) -> str:
    """The hole as a function or class of the notebook, with each body between the two marks."""
    source = source_of(ROOT, task.file)
    lines = source.splitlines()
    node = find(source, task.name)
    name = name_in_notebook(task)
    if "[" in task.name:
        segment = lines[node.lineno - 1 : node.end_lineno]
        segment[0] = segment[0][node.col_offset :]
        text = "\n".join([f"{name} = {segment[0]}", *(line[4:] for line in segment[1:])])
        # The whole assignment is taken out, so a comment says what it looks like.
        arguments = ", ".join(f"{keyword.arg}=..." for keyword in node.keywords)
        hint = f"# {name} = {ast.unparse(node.func)}({arguments})"
        return f"{hint}\n# BEGIN SOLUTION\n{text}\n# END SOLUTION\n"
    functions = functions_of(node)
    # From the end to the beginning, so that the line numbers stay true.
    for function in reversed(functions):
        indent = " " * (function.col_offset + 4)
        lines.insert(function.end_lineno, f"{indent}# END SOLUTION")
        lines.insert(header_end(function), f"{indent}# BEGIN SOLUTION")
    taken = lines[first_line(node) - 1 : node.end_lineno + 2 * len(functions)]
    # Decorators and lines of a method lose the indent of the class.
    text = "\n".join(line[node.col_offset :] for line in taken) + "\n"
    short = task.name.split(".")[-1]
    return text.replace(f"def {short}(", f"def {name}(", 1)


def before(tasks: list[Task]) -> str:
    modules = sorted({task.module for task in tasks if task.file != "own.py"})
    imports = [f"from {module} import *  # noqa: F403" for module in modules]
    if any(task.file == "own.py" for task in tasks):
        imports += ["import lift", "import torch", "from dataclasses import replace"]
        imports += ["from torch import Tensor, nn"]
    note = "Names of the project are those of its finished code."
    return BEFORE.format(note=note, imports="\n".join(imports))


def class_of(task: Task) -> str:
    """The class of a method, from its first line to the end of __init__."""
    source = source_of(ROOT, task.file)
    name = task.name.split(".")[0]
    (node,) = [one for one in parse(source).body if getattr(one, "name", None) == name]
    ends = [one.end_lineno for one in node.body if getattr(one, "name", "") == "__init__"]
    # A class without __init__ says what it holds in its docstring.
    end = ends[0] if ends else node.body[0].end_lineno
    return "\n".join(source.splitlines()[first_line(node) - 1 : end])


def words_of(task: Task) -> str:
    """What stands above the cell of a task. A method's cell does not show its class: this does."""
    points = f"{task.points} point{'s' if task.points > 1 else ''}"
    words = f"### Task {task.id}\n\n`{task.name}` of `{task.file}`, {points}."
    name = name_in_notebook(task)
    if name != task.name:
        words += f" Here it is called `{name}`."
    if "." in task.name:
        words += f" Its class begins so:\n\n```python\n{class_of(task)}\n```"
    return words


def hidden_text(task: Task) -> str:
    """The file of hidden tests as a string of the notebook's cell; HIDDEN names the task's own."""
    text = (HERE / "tests" / f"hidden_unit{task.unit}.py").read_text()
    if "'''" in text:
        raise CourseError(f"hidden_unit{task.unit}.py holds three single quotes")
    return f"r'''{text}\n\nHIDDEN = {list(task.hidden)}\n'''"


def files_beside(target: Path, unit: int, tasks: list[Task], edition: Edition) -> str:
    """Put grader, figures and experiment beside a notebook -> the unit's text with the figures."""
    from .make import EXTRA, copy, write_grader  # make imports this module

    write_grader(target / "course", tasks, edition.bands, hidden=False)
    for name in EXTRA.get(unit, ()):
        copy(name, target / "course/reference")
    text = handout.unit_text(unit, tasks, edition)
    for name in handout.figures_of(text):
        (target / "figures").mkdir(exist_ok=True)
        shutil.copyfile(handout.FIGURES / name, target / "figures" / name)
    text = text.replace("](../figures/", "](figures/") + IN_A_NOTEBOOK
    if any(task.file == "own.py" for task in tasks):
        text += "Before that, copy `course/own.py` there, and put your own functions into it.\n"
    else:
        text += "They run our functions there, not yours.\n"
    return text


# --------------------------------------------------------------------------------------------------
# nbgrader: metadata of version 3. Folders course/source/ASSIGNMENT/NOTEBOOK.ipynb.


def metadata(grade_id: str, points: int | None = None, **switches: bool) -> dict:
    """What nbgrader keeps of a cell: grade, solution, locked, task, and points if it is graded."""
    made = {"schema_version": 3, "grade_id": grade_id}
    for name in ("grade", "solution", "locked", "task"):
        made[name] = switches.get(name, False)
    return {"nbgrader": made | ({"points": points} if points is not None else {})}


def write_nbgrader(target: Path, tasks: list[Task], edition: Edition) -> None:
    """A course folder: nbgrader_config.py and source/unitN/unitN.ipynb."""
    target.mkdir(parents=True)
    (target / "nbgrader_config.py").write_text(
        'c = get_config()\nc.CourseDirectory.course_id = "contrast"\n'
        "c.ExecutePreprocessor.timeout = 300\n"
    )
    for unit in sorted({task.unit for task in tasks}):
        here = [task for task in tasks if task.unit == unit]
        folder = target / "source" / f"unit{unit}"
        folder.mkdir(parents=True)
        text = files_beside(folder, unit, here, edition)
        question = written.question_for(unit, edition.seed)
        locked = {"locked": True}
        cells = [
            ("markdown", text, metadata("text", **locked)),
            ("code", before(here), metadata("before", **locked)),
        ]
        for task in here:
            name = task.id.replace(".", "-")
            asks = (
                f'check("{task.id}")\n# BEGIN HIDDEN TESTS\n'
                f'check("{task.id}", hidden={hidden_text(task)})\n# END HIDDEN TESTS\n'
            )
            cells += [
                ("markdown", words_of(task), metadata(f"words-{name}", **locked)),
                ("code", solution_cell(task), metadata(f"task-{name}", solution=True)),
                ("code", asks, metadata(f"test-{name}", task.points, grade=True, **locked)),
            ]
        cells += [
            ("markdown", MEASURED),
            (
                "markdown",
                f"### BEGIN SOLUTION\n{AS_RUBRIC}\n### END SOLUTION",
                metadata("measured", 5, grade=True, solution=True),
            ),
            ("markdown", f"### The written question\n\n{question['question']}\n{HELP}"),
            (
                "markdown",
                f"### BEGIN SOLUTION\n{question['answer']}\n### END SOLUTION",
                metadata("answer", question["points"], grade=True, solution=True),
            ),
        ]
        (folder / f"unit{unit}.ipynb").write_text(notebook(cells))


# --------------------------------------------------------------------------------------------------
# otter: raw cells mark what is what; tests raise exceptions.


def write_otter(target: Path, tasks: list[Task], edition: Edition) -> None:
    """One folder for each unit, with a master notebook for `otter assign`."""
    for unit in sorted({task.unit for task in tasks}):
        here = [task for task in tasks if task.unit == unit]
        folder = target / f"unit{unit}"
        folder.mkdir(parents=True)
        text = files_beside(folder, unit, here, edition)
        shutil.copyfile(ROOT / "requirements.txt", folder / "requirements.txt")
        question = written.question_for(unit, edition.seed)
        files = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "requirements.txt"
        )
        config = [
            "# ASSIGNMENT CONFIG",
            f"name: unit{unit}",
            "requirements: requirements.txt",
            "export_cell: false",
            "tests:",
            "    ok_format: false",
            "files:",
            *(f"    - {name}" for name in files),
        ]
        cells = [("raw", "\n".join(config)), ("markdown", text), ("code", before(here))]
        for task in here:
            name = f"task_{task.id.replace('.', '_')}"
            visible = f'def test_{name}(check):\n    check("{task.id}")\n'
            hidden = (
                f"# HIDDEN\ndef test_{name}_hidden(check):\n"
                f'    check("{task.id}", hidden={hidden_text(task)})\n'
            )
            cells += [
                ("raw", f"# BEGIN QUESTION\nname: {name}\npoints: {task.points}"),
                ("markdown", words_of(task)),
                ("raw", "# BEGIN SOLUTION"),
                ("code", solution_cell(task)),
                ("raw", "# END SOLUTION"),
                ("raw", "# BEGIN TESTS"),
                ("code", visible),
                ("code", hidden),
                ("raw", "# END TESTS"),
                ("raw", "# END QUESTION"),
            ]
        cells += [
            ("raw", "# BEGIN QUESTION\nname: measured\nmanual: true\npoints: 5"),
            ("markdown", MEASURED),
            ("raw", "# BEGIN SOLUTION"),
            ("markdown", AS_RUBRIC),
            ("raw", "# END SOLUTION"),
            ("raw", "# END QUESTION"),
            ("raw", f"# BEGIN QUESTION\nname: answer\nmanual: true\npoints: {question['points']}"),
            ("markdown", f"### The written question\n\n{question['question']}\n{HELP}"),
            ("raw", "# BEGIN SOLUTION"),
            ("markdown", question["answer"]),
            ("raw", "# END SOLUTION"),
            ("raw", "# END QUESTION"),
        ]
        (folder / f"unit{unit}.ipynb").write_text(notebook(cells))


# --------------------------------------------------------------------------------------------------
# GitHub Classroom: the student's folder as a template repository, and one step for each task.


def write_classroom(target: Path, student: Path, tasks: list[Task]) -> None:
    """A template repository: student/ with .github/workflows/classroom.yml."""
    shutil.copytree(student, target)
    steps, ids = [], []
    for task in tasks:
        # The reporter reads the variable ID_RESULTS, with the step's id in capitals. So no hyphens.
        name = f"task_{task.id.replace('.', '_')}"
        ids.append(name)
        steps += [
            f"      - name: {task.id} {task.name}",
            f"        id: {name}",
            "        uses: classroom-resources/autograding-command-grader@v1",
            "        with:",
            f'          test-name: "{task.id} {task.name}"',
            f'          command: "make check UNIT={task.unit} TASK={task.id}"',
            "          timeout: 5",
            f"          max-score: {task.points}",
        ]
    results = [
        f'          {name.upper()}_RESULTS: "${{{{steps.{name}.outputs.result}}}}"' for name in ids
    ]
    flow = [
        "# One step for each task, with its points. The tests are those that students have.",
        "name: Autograding Tests",
        "on: [push, workflow_dispatch]",
        "",
        "permissions:",
        "  checks: write",
        "  actions: read",
        "  contents: read",
        "",
        "jobs:",
        "  run-autograding-tests:",
        "    runs-on: ubuntu-latest",
        "    timeout-minutes: 20",
        "    if: github.actor != 'github-classroom[bot]'",
        "    steps:",
        "      - uses: actions/checkout@v5",
        "      - uses: actions/setup-python@v6",
        "        with:",
        '          python-version: "3.11"',
        "      - run: make setup",
        "        env:",
        "          PIP_FLAGS: --extra-index-url https://download.pytorch.org/whl/cpu",
        *steps,
        "      - name: report",
        "        uses: classroom-resources/autograding-grading-reporter@v1",
        "        env:",
        *results,
        "        with:",
        f"          runners: {','.join(ids)}",
    ]
    path = target / ".github/workflows/classroom.yml"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(flow) + "\n")
