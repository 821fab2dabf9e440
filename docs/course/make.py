"""Make the course: what students get, what grades it, and what the teacher keeps.

    make course                                          # all of it, in build/course
    python docs/course/make.py --units 1,3 --seed 2027   # some units, other numbers
    python docs/course/make.py --check                   # reference, empty answers, wrong answers

Everything comes from the sources of this repository, so it is never out of date.

    build/course/student/         one folder per unit: the project with the holes of that unit
    build/course/gradescope.zip   setup.sh, run_autograder, the reference, all tests
    build/course/nbgrader/        one notebook per unit, with nbgrader's marks
    build/course/otter/           one notebook per unit for otter assign
    build/course/classroom/       the student's folder with a workflow of GitHub Classroom
    build/course/handout.html     the texts of all units
    build/course/teacher/         answers, bands, wrong answers
"""

import argparse
import base64
import json
import math
import random
import re
import resource
import shutil
import sys
import tempfile
import textwrap
import time
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import grade
from holes import Task, body_of, function_in, outside, punch, put, read_tasks

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# What a student's copy of the project holds. Its tests stay here: they hold the answers, too.
PROJECT = ("vit.py", "llm_text.py", "lift.py", "train.py", "eval.py", "data", "LICENSE")
PROJECT += ("requirements.txt",)


class Course:
    """The units that are asked for, with their tasks, texts and numbers."""

    def __init__(self, units: Sequence[int] | None, seed: int):
        tasks = read_tasks(HERE / "tasks.toml")
        known = sorted(int(path.stem.removeprefix("unit")) for path in HERE.glob("unit*.md"))
        self.units = list(units or known)
        for unit in self.units:
            if unit not in known:
                raise SystemExit(f"error: there is no unit {unit}; there are {known}")
        self.tasks = [task for task in tasks if task.unit in self.units]
        self.seed = seed
        self.bands = tomllib.loads((HERE / "bands.toml").read_text()).get("unit", [])
        self.written = tomllib.loads((HERE / "written.toml").read_text()).get("question", [])

    def of_unit(self, unit: int) -> list[Task]:
        return [task for task in self.tasks if task.unit == unit]

    def question(self, unit: int) -> dict:
        """One written question of the unit, and its numbers, by the seed."""
        rng = random.Random(f"{self.seed} {unit}")
        questions = [question for question in self.written if question["unit"] == unit]
        if not questions:
            raise SystemExit(f"error: written.toml has no question for unit {unit}")
        chosen = rng.choice(questions)
        numbers = {}
        for name, values in chosen.get("draw", {}).items():
            numbers[name] = rng.choice(values)
        if "formula" in chosen:
            value = eval(chosen["formula"], {"math": math, **numbers})
            numbers["value"] = f"{value:.4g}"
        # Only what was drawn is filled in: other braces are part of the text.
        return {
            key: re.sub(r"{(\w+)}", lambda m: str(numbers.get(m[1], m[0])), text)
            for key, text in chosen.items()
            if isinstance(text, str)
        } | {"points": chosen["points"], "rubric": chosen.get("rubric", [])}

    def text(self, unit: int) -> str:
        """The text of a unit, with its tasks, its band and its question."""
        rows = ["| task | function | file | points |", "|---|---|---|---|"]
        for task in self.of_unit(unit):
            rows.append(f"| {task.id} | `{task.name}` | `{task.file}` | {task.points} |")
        question = self.question(unit)
        parts = {
            "{tasks}": "\n".join(rows) if len(rows) > 2 else "This unit has no holes.",
            "{band}": self.band(unit),
            "{question}": f"{question['question']} ({question['points']} points)",
        }
        text = (HERE / f"unit{unit}.md").read_text()
        for mark, part in parts.items():
            text = text.replace(mark, part)
        return text

    def band(self, unit: int) -> str:
        """What the experiment of a unit should show."""
        rows = [band for band in self.bands if band["unit"] == unit]
        if not any(band.get("measured", True) for band in rows):
            return "Not measured yet: compare your result with those of others."
        lines = ["| score | from | to | log |", "|---|---|---|---|"]
        for band in rows:
            if band.get("measured", True):
                lines.append(
                    f"| {band['metric']} | {band['low']} | {band['high']} | {band['log']} |"
                )
        return "\n".join(lines)


# --------------------------------------------------------------------------------------------------
# What students get.


def copy_project(folder: Path) -> None:
    """The project, as a folder of its own."""
    folder.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in PROJECT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy(source, folder / name)


def copy_with_holes(folder: Path, tasks: Sequence[Task]) -> None:
    """The project without the bodies of these functions."""
    copy_project(folder)
    for file in sorted({task.file for task in tasks}):
        path = folder / file
        path.write_text(punch(path.read_text(), [task for task in tasks if task.file == file]))


def visible_tests(source: str, tasks: Sequence[Task]) -> str:
    """A unit's tests without the hidden ones."""
    for task in tasks:
        for name in task.hidden:
            source = put(source, name, "")
    return re.sub(r"\n{4,}", "\n\n\n", source)


STUDENT_MAKE = """\
# make setup           an environment with what the course needs (torch: a few hundred MB)
# make check UNIT=1    which identities hold in your answers to unit 1, and which do not
# make submit          submission.zip: your files, your logs and your written answers
PYTHON ?= python3
PIP_FLAGS ?=

setup:
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet $(PIP_FLAGS) -r unit{first}/requirements.txt

check:
	@.venv/bin/python course/grade.py --check $(UNIT)

submit:
	.venv/bin/python -c "{submit}"

.PHONY: setup check submit
"""

# In one line, because a Makefile has no here-documents.
SUBMIT = (
    "import pathlib, zipfile; "
    "z = zipfile.ZipFile('submission.zip', 'w', zipfile.ZIP_DEFLATED); "
    "names = {files}; "
    "paths = [p for n in names for p in pathlib.Path().glob(n) if p.is_file()]; "
    "[z.write(p) for p in paths]; z.close(); "
    "print('wrote submission.zip:', len(paths), 'files')"
)

STUDENT_README = """\
# The course

Read `unitN.md`, write the bodies of the functions that it names in `unitN/`, and check them:

    make setup
    make check UNIT={first}

`make setup` is needed once. On Linux without a GPU, save a large download with
`make setup PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"`.

- Every folder `unitN` is the whole project, in which only the functions of unit N are missing. So a
  mistake in one unit costs nothing in another.
- Write inside the functions only. The grader takes these functions, and nothing else.
- Run the unit's experiment inside `unitN`, with `../.venv/bin/python`. It leaves `runs/`.
- Write your answer to the question into `answers/unitN.md`.
- `make submit` packs the functions' files, the logs of your runs and your answers.
"""


def make_student(course: Course, folder: Path) -> None:
    """The student's folder."""
    grader = folder / "course"
    (grader / "tests").mkdir(parents=True)
    digests = {}
    for unit in course.units:
        tasks = course.of_unit(unit)
        copy_with_holes(folder / f"unit{unit}", tasks)
        for file in sorted({task.file for task in tasks}):
            in_file = [task for task in tasks if task.file == file]
            punched = (folder / f"unit{unit}" / file).read_text()
            digests[f"{unit}/{file}"] = outside(punched, in_file)
        if tasks:
            source = (HERE / f"tests/unit{unit}.py").read_text()
            (grader / f"tests/unit{unit}.py").write_text(visible_tests(source, tasks))
        text = course.text(unit)
        # What the texts link to lies beside them, in `docs`.
        text = text.replace("](../../", "](").replace("](../", "](docs/")
        (folder / f"unit{unit}.md").write_text(text)
    ignore = shutil.ignore_patterns("course", "tour.*")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=ignore)
    for name in ("CONTRIBUTING.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("grade.py", "holes.py"):
        shutil.copy(HERE / name, grader)
    (grader / "tasks.toml").write_text(tasks_text(course.tasks, hidden=False))
    (grader / "outside.json").write_text(json.dumps(digests, indent=1))
    (folder / "answers").mkdir()
    for unit in course.units:
        (folder / f"answers/unit{unit}.md").write_text(f"# Unit {unit}\n")
    files = {f"unit{task.unit}/{task.file}" for task in course.tasks}
    globs = [*sorted(files), "unit*/runs/**/log.jsonl", "unit*/runs/**/eval*.json", "answers/*.md"]
    first = course.units[0]
    submit = SUBMIT.replace("{files}", str(globs))
    (folder / "Makefile").write_text(STUDENT_MAKE.format(first=first, submit=submit))
    (folder / "README.md").write_text(STUDENT_README.format(first=first))


def tasks_text(tasks: Sequence[Task], hidden: bool = True) -> str:
    """Tasks as tasks.toml, with or without the names of hidden tests."""
    lines = []
    for task in tasks:
        entry = task._asdict() | ({} if hidden else {"hidden": []})
        lines += ["[[task]]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items()), ""]
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------
# Forms of the grader.

SETUP = """\
#!/usr/bin/env bash
# Gradescope runs this once, as root and with a network, when the image is built.
set -euo pipefail
pip3 install uv
uv venv --python 3.12 /autograder/venv
uv pip install --python /autograder/venv/bin/python \\
    --extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match \\
    -r /autograder/source/reference/requirements.txt
"""

RUN = """\
#!/usr/bin/env bash
# Gradescope runs this for every submission.
BASE="${AUTOGRADER_DIR:-/autograder}"
PYTHON="$BASE/venv/bin/python"
[ -x "$PYTHON" ] || PYTHON=python3
exec "$PYTHON" "$BASE/source/course/grade.py" \\
    --submission "$BASE/submission" --results "$BASE/results/results.json"
"""


def make_grader(course: Course, folder: Path) -> None:
    """The grader as a folder: the reference, all tests, setup.sh and run_autograder."""
    copy_project(folder / "reference")
    (folder / "course/tests").mkdir(parents=True)
    for name in ("grade.py", "holes.py"):
        shutil.copy(HERE / name, folder / "course")
    (folder / "course/tasks.toml").write_text(tasks_text(course.tasks))
    for unit in sorted({task.unit for task in course.tasks}):
        shutil.copy(HERE / f"tests/unit{unit}.py", folder / "course/tests")
    for name, text in (("setup.sh", SETUP), ("run_autograder", RUN)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def zip_folder(folder: Path, path: Path) -> None:
    """Everything under a folder, at the root of a zip file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for inner in sorted(folder.rglob("*")):
            if inner.is_file():
                file.write(inner, inner.relative_to(folder))


def make_classroom(course: Course, student: Path, folder: Path) -> None:
    """The student's folder with a workflow that runs the visible tests of each unit."""
    shutil.copytree(student, folder)
    steps, runners = [], []
    for unit in course.units:
        points = sum(task.points for task in course.of_unit(unit))
        if not points:
            continue
        steps.append(
            f"      - name: unit {unit}\n        id: unit{unit}\n"
            "        uses: classroom-resources/autograding-command-grader@v1\n"
            f"        with:\n          test-name: unit {unit}\n"
            "          setup-command: make setup\n"
            f"          command: make check UNIT={unit}\n"
            f"          timeout: 10\n          max-score: {points}\n"
        )
        runners.append(f"unit{unit}")
    env = "".join(
        f"          {name.upper()}_RESULTS: ${{{{ steps.{name}.outputs.result }}}}\n"
        for name in runners
    )
    workflow = (
        "name: autograding\non: [push]\npermissions:\n  checks: write\n  actions: read\n"
        "  contents: read\njobs:\n  grade:\n    runs-on: ubuntu-latest\n    steps:\n"
        "      - uses: actions/checkout@v4\n      - uses: actions/setup-python@v5\n"
        '        with:\n          python-version: "3.12"\n'
        + "".join(steps)
        + "      - uses: classroom-resources/autograding-grading-reporter@v1\n        env:\n"
        + env
        + f"        with:\n          runners: {','.join(runners)}\n"
    )
    path = folder / ".github/workflows/classroom.yml"
    path.parent.mkdir(parents=True)
    path.write_text(workflow)


# --------------------------------------------------------------------------------------------------
# Notebooks.


def cell(kind: str, text: str, **nbgrader) -> dict:
    """A cell of a notebook, with nbgrader's metadata of version 3."""
    made = {"cell_type": kind, "metadata": {}, "source": text, "id": nbgrader["grade_id"]}
    made["metadata"]["nbgrader"] = {
        "schema_version": 3,
        "grade": False,
        "solution": False,
        "locked": True,
        "task": False,
        **nbgrader,
    }
    if kind == "code":
        made |= {"execution_count": None, "outputs": []}
    return made


NOTEBOOK_SETUP = """\
# The project lies beside this notebook, in the folder `project`.
import os, sys, warnings
sys.path.insert(0, os.path.abspath("project"))
warnings.simplefilter("ignore")  # nbgrader takes what stands on stderr for an error
import torch
import {modules}
import course_tests
torch.manual_seed(0)
"""


def make_notebook(course: Course, unit: int, folder: Path) -> None:
    """One assignment of nbgrader: source/unitN/unitN.ipynb, the project and the tests."""
    tasks = course.of_unit(unit)
    copy_with_holes(folder / "project", tasks)
    all_tests = (HERE / f"tests/unit{unit}.py").read_text()
    (folder / "course_tests.py").write_text(visible_tests(all_tests, tasks))
    modules = sorted({task.file.removesuffix(".py").replace("/", ".") for task in tasks})
    cells = [
        cell("markdown", course.text(unit), grade_id=f"text-{unit}"),
        cell("code", NOTEBOOK_SETUP.format(modules=", ".join(modules)), grade_id=f"setup-{unit}"),
    ]
    for task in tasks:
        module = task.file.removesuffix(".py").replace("/", ".")
        name = f"task-{task.id.replace('.', '-')}"
        source = textwrap.dedent(function_in((ROOT / task.file).read_text(), task.name))
        last = task.name.split(".")[-1]
        # The function sees the names of its module, as in the file.
        cells.append(
            cell(
                "code",
                f"globals().update({{k: v for k, v in vars({module}).items() if k[:2] != '__'}})",
                grade_id=f"{name}-names",
            )
        )
        cells.append(
            cell("code", solution_marked(source), grade_id=name, solution=True, locked=False)
        )
        tests = "\n".join(f"course_tests.{test}()" for test in task.visible)
        hidden = "\n".join(hidden_test(all_tests, test) for test in task.hidden)
        text = (
            f"{module}.{task.name} = {last}\n{tests}\n### BEGIN HIDDEN TESTS\n{hidden}\n"
            "### END HIDDEN TESTS"
        )
        cells.append(cell("code", text, grade_id=f"{name}-tests", grade=True, points=task.points))
    question = course.question(unit)
    cells.append(cell("markdown", question["question"], grade_id=f"question-{unit}"))
    cells.append(
        cell(
            "markdown",
            "Your answer.",
            grade_id=f"answer-{unit}",
            grade=True,
            solution=True,
            locked=False,
            points=question["points"],
        )
    )
    notebook = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (folder / f"unit{unit}.ipynb").write_text(json.dumps(notebook, indent=1))


def hidden_test(tests: str, name: str) -> str:
    """Lines that define a test among the visible ones and call it: students' files have it not."""
    return f"exec({function_in(tests, name)!r}, vars(course_tests))\ncourse_tests.{name}()"


def solution_marked(function: str) -> str:
    """A function whose body stands between nbgrader's marks."""
    name = re.search(r"def (\w+)", function)[1]
    start, _, indent = body_of(function, name)
    lines = function.rstrip().splitlines()
    lines.insert(start, f"{indent}### BEGIN SOLUTION")
    lines.append(f"{indent}### END SOLUTION")
    return "\n".join(lines)


def raw(text: str) -> dict:
    return {"cell_type": "raw", "metadata": {}, "source": text}


def plain(kind: str, text: str) -> dict:
    made = {"cell_type": kind, "metadata": {}, "source": text}
    return made | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def make_otter(course: Course, unit: int, folder: Path) -> None:
    """A master notebook for `otter assign unitN.ipynb dist`, with tests that raise exceptions."""
    tasks = course.of_unit(unit)
    copy_with_holes(folder / "project", tasks)
    all_tests = (HERE / f"tests/unit{unit}.py").read_text()
    (folder / "course_tests.py").write_text(visible_tests(all_tests, tasks))
    modules = sorted({task.file.removesuffix(".py").replace("/", ".") for task in tasks})
    config = (
        f"# ASSIGNMENT CONFIG\nname: unit{unit}\nfiles:\n  - project\n  - course_tests.py\n"
        "tests:\n  ok_format: false\n"
    )
    cells = [
        raw(config),
        plain("markdown", course.text(unit)),
        plain("code", NOTEBOOK_SETUP.format(modules=", ".join(modules))),
    ]
    for task in tasks:
        module = task.file.removesuffix(".py").replace("/", ".")
        last = task.name.split(".")[-1]
        name = f"task_{task.id.replace('.', '_')}"
        source = textwrap.dedent(function_in((ROOT / task.file).read_text(), task.name))
        cells += [
            plain(
                "code",
                f"globals().update({{k: v for k, v in vars({module}).items() if k[:2] != '__'}})",
            ),
            raw(f"# BEGIN QUESTION\nname: {name}\npoints: {task.points}"),
            plain("markdown", f"**Task {task.id}.** Write `{task.name}`."),
            raw("# BEGIN SOLUTION"),
            # otter's mark has one sign, nbgrader's has three.
            plain("code", solution_marked(source).replace("###", "#")),
            raw("# END SOLUTION"),
            raw("# BEGIN TESTS"),
        ]
        for hidden, tests in ((False, task.visible), (True, task.hidden)):
            for test in tests:
                call = hidden_test(all_tests, test) if hidden else f"course_tests.{test}()"
                code = (
                    f"def {test}({last}):\n    import course_tests\n    import {module}\n"
                    f"    {module}.{task.name} = {last}\n" + textwrap.indent(call, "    ") + "\n"
                )
                cells.append(plain("code", ("# HIDDEN\n" if hidden else "") + code))
        cells += [raw("# END TESTS"), raw("# END QUESTION")]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}
    (folder / f"unit{unit}.ipynb").write_text(json.dumps(notebook, indent=1))


# --------------------------------------------------------------------------------------------------
# The texts, and what the teacher keeps.


def make_handout(course: Course, path: Path) -> None:
    """The texts of all units on one page."""
    try:
        import markdown
    except ImportError:
        raise SystemExit("error: the hand-out needs the package markdown: make course") from None
    text = "\n\n".join(course.text(unit) for unit in course.units)
    for name in set(re.findall(r"\]\(\.\./figures/([\w.-]+\.svg)\)", text)):
        drawing = (ROOT / "docs/figures" / name).read_text()
        picture = "data:image/svg+xml;base64," + base64.b64encode(drawing.encode()).decode()
        text = text.replace(f"](../figures/{name})", f"]({picture})")
    body = markdown.markdown(text, extensions=["tables", "fenced_code"])
    style = "max-width: 46em; margin: 2em auto; font: 17px/1.5 sans-serif; padding: 0 1em"
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>The course</title>'
        f'<body style="{style}">{body}</body></html>\n'
    )


def make_teacher(course: Course, folder: Path) -> None:
    """Model answers with rubrics, and the solutions of all holes."""
    folder.mkdir()
    lines = [f"# Answers, seed {course.seed}", ""]
    for unit in course.units:
        question = course.question(unit)
        lines += [f"## Unit {unit}: {question['points']} points", "", question["question"], ""]
        lines += [question["answer"], ""]
        lines += [f"- {line}" for line in question["rubric"]] + [""]
    (folder / "answers.md").write_text("\n".join(lines))
    lines = ["# Solutions", ""]
    for task in course.tasks:
        source = textwrap.dedent(function_in((ROOT / task.file).read_text(), task.name))
        lines += [f"## {task.id} `{task.name}` ({task.file})", "", "```python", source.rstrip()]
        lines += ["```", ""]
    (folder / "solutions.md").write_text("\n".join(lines))
    for name in ("bands.toml", "mutants.toml", "README.md"):
        shutil.copy(HERE / name, folder)


# --------------------------------------------------------------------------------------------------
# Wrong answers.


def read_mutants() -> list[dict]:
    return tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]


def wrong_answer(task: Task, mutant: dict) -> str:
    """The task's function with a wrong edit. ValueError where the edit does not fit."""
    source = function_in((ROOT / task.file).read_text(), task.name)
    if source.count(mutant["old"]) != 1:
        raise ValueError(f"{task.id} has not once: {mutant['old']}")
    return source.replace(mutant["old"], mutant["new"])


def points_by_task(tasks: Sequence[Task], answers: dict[str, str], reference: Path) -> dict:
    results = grade.grade(tasks, answers, reference, HERE / "tests")
    return {result["number"]: result["score"] for result in results}


def check_course(course: Course) -> int:
    """Grade the reference, an empty submission, and every wrong answer. The table is printed.

    0 if the reference gets all points, the empty submission none, and every wrong answer costs the
    points of its task and of no other.
    """
    problems = []
    begun = time.time()
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference"
        copy_project(reference)
        right = grade.answers_in(reference, course.tasks)
        full = {task.id: task.points for task in course.tasks}
        if points_by_task(course.tasks, right, reference) != full:
            problems.append("the reference does not get all points")
        seconds = time.time() - begun
        empty = {
            task.id: function_in(punch((ROOT / task.file).read_text(), [task]), task.name)
            for task in course.tasks
        }
        if any(points_by_task(course.tasks, empty, reference).values()):
            problems.append("an empty submission gets points")

        print("| task | wrong answer | points lost |\n|---|---|---|")
        of = {task.id: task for task in course.tasks}
        n_mutants = 0
        for mutant in read_mutants():
            if mutant["task"] not in of:
                continue
            n_mutants += 1
            task = of[mutant["task"]]
            answers = right | {task.id: wrong_answer(task, mutant)}
            unit = course.of_unit(task.unit)
            found = points_by_task(unit, answers, reference)
            lost = [other.id for other in unit if found[other.id] < other.points]
            print(f"| {task.id} | {mutant['wrong']} | {', '.join(lost) or 'none'} |", flush=True)
            if lost != [task.id]:
                problems.append(f"{task.id}, {mutant['wrong']}: costs {lost or 'nothing'}")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(
        f"\n{len(course.tasks)} tasks, {n_mutants} wrong answers. Grading the reference took "
        f"{seconds:.0f} s; the largest process had {memory:.2f} GB."
    )
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", help="such as 1,2,5 (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the written questions' numbers")
    parser.add_argument("--out", type=Path, default=ROOT / "build/course")
    parser.add_argument("--check", action="store_true", help="grade reference and wrong answers")
    args = parser.parse_args()
    units = [int(unit) for unit in args.units.split(",")] if args.units else None
    course = Course(units, args.seed)
    if args.check:
        return check_course(course)

    if args.out.exists():
        shutil.rmtree(args.out)
    args.out.mkdir(parents=True)
    make_student(course, args.out / "student")
    make_classroom(course, args.out / "student", args.out / "classroom")
    with tempfile.TemporaryDirectory() as folder:
        make_grader(course, Path(folder))
        zip_folder(Path(folder), args.out / "gradescope.zip")
    for unit in course.units:
        if course.of_unit(unit):
            make_notebook(course, unit, args.out / f"nbgrader/source/unit{unit}")
            make_otter(course, unit, args.out / f"otter/unit{unit}")
    make_handout(course, args.out / "handout.html")
    make_teacher(course, args.out / "teacher")
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
