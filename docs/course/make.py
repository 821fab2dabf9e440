"""Make the course from the sources: hand-outs, graders, the teacher's notes.

    make course                                       # everything, into build/course
    python -m docs.course.make --units 1,2,5          # some units
    python -m docs.course.make --seed 2027            # other numbers in the written questions
    python -m docs.course.make --bands FILE           # other seeds in the experiments: measure.py

    build/course/
      student/        what students get: README.md, Makefile, tour, glossary, course/, and a folder
                      for each unit
      gradescope.zip  for Gradescope
      nbgrader/       a course folder of nbgrader, with source notebooks
      otter/          master notebooks for `otter assign`
      classroom/      a template repository for GitHub Classroom
      handout.html    the texts of all units, to read and to print
      teacher/        rubric, bands of the experiments, answers, wrong solutions, how to use it all

A unit's folder holds the whole project with the holes of this unit only. So it runs by itself, its
experiment needs no other unit, and a student reads the real code around the hole. The folders of
other units, and course/reference, therefore hold its solution: the project is public, and the
course does not pretend otherwise (teacher/README.md).
"""

import argparse
import json
import shutil
import sys
import zipfile
from pathlib import Path

from data.common import BadInput, exit_status, parse_flags

from . import forms, handout, teacher
from .experiments import BANDS, Edition, read_bands
from .holes import HERE, CourseError, Task, punch, read_tasks, says_of, source_of

ROOT = HERE.parent.parent
# The grader, and what its tests need. Generator, mutants and texts stay with the teacher.
GRADER = ("__init__.py", "holes.py", "worker.py", "student.py", "grade.py", "check.py", "own.py")
GRADER += ("experiments.py", "notebook.py")
HELPERS = ("__init__.py", "numbers.py", "models.py")
# What a unit needs beside the project's own files.
EXTRA = {3: ("tests/__init__.py", "tests/experiments/__init__.py", "tests/experiments/pooling.py")}


def project_files() -> list[Path]:
    """The Python files of the project itself, as paths below ROOT, without tests and docs."""
    found = [*ROOT.glob("*.py"), *ROOT.glob("data/**/*.py")]
    return sorted(path.relative_to(ROOT) for path in found)


def copy(name: str | Path, target: Path) -> None:
    to = target / name
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / name, to)


def write(path: Path, text: str, executable: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if executable:
        path.chmod(0o755)


def tasks_toml(tasks: list[Task], hidden: bool) -> str:
    """The tasks as a file of their own. A list of strings is the same in JSON and TOML."""
    rows = []
    for task in tasks:
        rows.append("[[task]]")
        for name, value in vars(task).items():
            if name == "hidden" and not hidden:
                value = ()
            rows.append(
                f"{name} = {json.dumps(list(value) if isinstance(value, tuple) else value)}"
            )
        rows.append("")
    return "\n".join(rows)


def write_grader(target: Path, tasks: list[Task], bands: Path, hidden: bool) -> None:
    """The package `course`: grader, tests, tasks and the reference."""
    for name in GRADER:
        write(target / name, (HERE / name).read_text())
    write(target / "bands.toml", bands.read_text())
    units = sorted({task.unit for task in tasks})
    tests = [*HELPERS, *(f"test_unit{unit}.py" for unit in units)]
    tests += [f"hidden_unit{unit}.py" for unit in units] if hidden else []
    for name in tests:
        write(target / "tests" / name, (HERE / "tests" / name).read_text())
    write(target / "tasks.toml", tasks_toml(tasks, hidden))
    for path in project_files():
        copy(path, target / "reference")


def write_unit(target: Path, unit: int, tasks: list[Task], edition: Edition) -> None:
    """A unit's folder: the project with this unit's holes, the text, and the questions."""
    text = handout.unit_text(unit, tasks, edition)
    for path in project_files():
        copy(path, target)
    for name in EXTRA.get(unit, ()):
        copy(name, target)
    for file in sorted({task.file for task in tasks}):
        names = {task.name: says_of(task) for task in tasks if task.file == file}
        write(target / file, punch(source_of(ROOT, file), names))
    for name in handout.figures_of(text):
        copy(f"docs/figures/{name}", target)
    write(target / "README.md", text.replace("](../figures/", "](docs/figures/"))
    write(target / "answers.md", handout.sheet(unit, edition))


MAKEFILE = """\
# make setup           the environment: PyTorch and four small packages
# make check UNIT=N    which tests of unit N hold, in seconds; TASK=N.2 takes its second task
# make submit          pack code, logs and answers; UNIT=N packs those of unit N
#
# Where the packages of requirements.txt are installed already: make check UNIT=N VENV=FOLDER
#
# On Linux PyPI's torch is the CUDA build (several GB). Without a GPU, save the download with
#   make setup PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=

setup:
\ttest -d $(VENV) || $(PYTHON) -m venv $(VENV)
\t$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \\
\t\t-r requirements.txt

check submit: $(VENV)/bin/python

$(VENV)/bin/python:
\t@echo "there is no environment in $(VENV): run 'make setup' first, or name one: VENV=FOLDER"; \\
\t\texit 2

check:
\t@$(VENV)/bin/python -m course.check $(UNIT) $(if $(TASK),--task $(TASK))

submit:
\t@$(VENV)/bin/python -m course.check $(UNIT) --submit

.PHONY: setup check submit
"""


def write_student(target: Path, tasks: list[Task], edition: Edition) -> None:
    units = sorted({task.unit for task in tasks})
    write_grader(target / "course", tasks, edition.bands, hidden=False)
    for unit in units:
        here = [task for task in tasks if task.unit == unit]
        write_unit(target / f"unit{unit}", unit, here, edition)
    write(target / "Makefile", MAKEFILE)
    copy("requirements.txt", target)
    copy("LICENSE", target)
    write(target / "README.md", handout.readme(tasks))
    write(target / "tour.ipynb", (ROOT / "docs/tour.ipynb").read_text())
    write(target / "glossary.md", handout.glossary())
    write(
        target / ".gitignore",
        ".venv/\n__pycache__/\n**/runs/*/checkpoint.pt\n**/runs/*.safetensors\nsubmission*.zip\n",
    )


def zip_folder(folder: Path, target: Path) -> None:
    """Zip a folder's contents, with their permissions and without times: the same every time."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                info = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                info.external_attr = (path.stat().st_mode & 0xFFFF) << 16
                archive.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)


SETUP = """\
#!/usr/bin/env bash
# Gradescope runs this once, as root, when it builds the image (Ubuntu 22.04).
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive # no package may ask a question
apt-get update
apt-get install -y python3.11 python3.11-venv
python3.11 -m venv /autograder/venv
/autograder/venv/bin/pip install --no-cache-dir -r /autograder/source/requirements.txt \\
    --extra-index-url https://download.pytorch.org/whl/cpu
"""

RUN = """\
#!/usr/bin/env bash
# Gradescope runs this for each submission, as root. AUTOGRADER and PYTHON are for trying it out.
set -uo pipefail
home="${AUTOGRADER:-/autograder}"
python="${PYTHON:-$home/venv/bin/python}"
mkdir -p "$home/results"
# 0 points come first: if anything goes wrong, this is what stays.
echo '{"score": 0, "output": "The grader did not start. Tell your teacher."}' \\
    > "$home/results/results.json"
# The processes in which a submission runs are another user. They may not read the hidden tests.
chmod 700 "$home/source" "$home/results"
cd "$home/source" || exit
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
"$python" -m course.grade --submission "$home/submission" --results "$home/results/results.json"
"""


def write_gradescope(target: Path, tasks: list[Task], bands: Path, scratch: Path) -> None:
    write_grader(scratch / "course", tasks, bands, hidden=True)
    write(scratch / "setup.sh", SETUP, executable=True)
    write(scratch / "run_autograder", RUN, executable=True)
    copy("requirements.txt", scratch)
    zip_folder(scratch, target)
    shutil.rmtree(scratch)


def make(out: Path, units: list[int] | None, edition: Edition) -> None:
    """Write the course. What stood in `out` before is removed, if it was a course."""
    tasks = read_tasks(units=units)
    # What is wrong with the bands stops here, before anything is removed.
    measured = {band.unit for band in read_bands(path=edition.bands)}
    lacking = {band.unit for band in read_bands()} & {task.unit for task in tasks} - measured
    if lacking:
        raise CourseError(
            f"{edition.bands} has no band of unit {min(lacking)}; measure it "
            "(docs.course.measure), or leave it out (--units)"
        )
    if edition.bands.resolve().is_relative_to(out.resolve()):
        raise CourseError(
            f"--bands {edition.bands} lies in --out {out}, which is made anew; move it"
        )
    mark = out / "made_by.txt"
    if out.exists():
        if any(out.iterdir()) and not mark.is_file():
            raise CourseError(f"--out {out} is not empty and no course; choose another folder")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    chosen = sorted({task.unit for task in tasks})
    write(mark, f"make course: units {chosen}, seed {edition.seed}\n")
    write_student(out / "student", tasks, edition)
    write_gradescope(out / "gradescope.zip", tasks, edition.bands, out / "gradescope")
    forms.write_nbgrader(out / "nbgrader", tasks, edition)
    forms.write_otter(out / "otter", tasks, edition)
    forms.write_classroom(out / "classroom", out / "student", tasks)
    write(out / "handout.html", handout.html(chosen, tasks, edition))
    teacher.write(out / "teacher", tasks, edition)
    print(f"wrote {out}: units {', '.join(map(str, chosen))}, seed {edition.seed}; begin with")
    print(f"    {out / 'teacher/README.md'}   and   {out / 'student/README.md'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--units", default="", help="such as 1,2,5 (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the questions' numbers (0)")
    parser.add_argument("--bands", type=Path, default=BANDS, help="bands of the experiments")
    parser.add_argument("--out", type=Path, default=ROOT / "build/course", help="folder to write")
    args = parse_flags(parser)
    try:
        units = [int(number) for number in args.units.split(",") if number] or None
    except ValueError:
        raise BadInput(f"--units {args.units} is no list of numbers, such as 1,2,5") from None
    try:
        make(args.out, units, Edition(args.seed, args.bands))
    except CourseError as error:
        raise BadInput(str(error)) from None


if __name__ == "__main__":
    sys.exit(exit_status(main))
