"""What students run: does my code hold, and pack what I hand in.

    make check UNIT=1              python -m course.check 1
    make check UNIT=1 TASK=1.2     python -m course.check 1 --task 1.2
    make submit                    python -m course.check --submit
    make submit UNIT=1             python -m course.check 1 --submit

The same grader runs as on the teacher's side, in the same way, with the tests that students have.
"""

import argparse
import ast
import importlib
import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

from .experiments import said_of_logs
from .grade import Grader, Outcome
from .holes import HERE, CourseError, Task, read_tasks

LARGEST = 5_000_000  # bytes of a file that is packed
LOGS = ("runs/**/log.jsonl", "runs/**/eval*.json", "runs/**/*.log")
DRAWINGS = ("*.png", "*.jpg", "*.pdf", "*.svg")  # in the unit's folder itself
# Runs that a unit's text repeats with three seeds.
REPEATED = {1: ("runs/five-SEED",), 9: ("runs/own-SEED", "runs/lift-SEED")}


def show(outcome: Outcome) -> None:
    """One task, in words."""
    task = outcome.task
    if not outcome.written:
        print(f"{task.id}  {task.name}: not written yet")
        return
    if outcome.passed == outcome.max_tests:
        verdict = "all tests hold"
    else:
        verdict = f"{outcome.passed} of {outcome.max_tests} tests hold"
    print(f"{task.id}  {task.name} in {task.file}: {verdict}")
    for line in outcome.lines:
        print(f"     {line.replace(chr(10), chr(10) + '     ')}")
    if outcome.note:
        print(f"     {outcome.note}")


def check(tasks: list[Task], folder: Path, whole_units: bool) -> int:
    """Test some tasks and print what holds. The exit status is 0 if everything does.

    whole_units  also compare the logs of the units' experiments with the bands
    """
    grader = Grader()
    shown = set()

    def progress(outcomes: list[Outcome]) -> None:
        # Each task is shown as soon as it is done.
        for outcome in outcomes:
            begun = outcome.passed + outcome.failed
            is_done = begun == outcome.max_tests or outcome.note not in ("", "not tested yet")
            if is_done and outcome.task.id not in shown:
                shown.add(outcome.task.id)
                show(outcome)

    try:
        outcomes = grader.grade(tasks, folder, progress)
    finally:
        grader.close()
    if whole_units:
        for unit in sorted({task.unit for task in tasks}):
            print(f"\nThe experiment of unit {unit}, beside our own runs:")
            home = folder / f"unit{unit}"
            lines = said_of_logs(home, unit)[0] if (home / "runs").is_dir() else ["no runs yet"]
            for line in lines:
                print(f"     {line}")
    done = sum(outcome.passed == outcome.max_tests for outcome in outcomes)
    print(f"\n{done} of {len(outcomes)} tasks pass these tests.")
    if whole_units:
        print("Your teacher has more tests, and the runs of the experiment test more.")
    return 0 if done == len(outcomes) else 1


def with_hidden(task: Task, folder: Path) -> Task:
    """The task with the hidden tests of a file hidden_unitN.py in place of the visible ones.

    The list HIDDEN in the file names those that test this task. The file itself is imported later,
    when the processes for the student's code have been made.
    """
    tests = importlib.import_module(f"{__package__}.tests")
    tests.__path__.append(str(folder))
    names = ()
    for node in ast.parse((folder / f"hidden_unit{task.unit}.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "HIDDEN":
            names = tuple(ast.literal_eval(node.value))
    if not names:
        raise CourseError(f"{folder}: hidden_unit{task.unit}.py lists no tests as HIDDEN")
    return replace(task, visible=(), hidden=names)


def made_by(text: str) -> set[tuple[str, str]]:
    """What the commands of a unit's text make: (run, file in it), or (file, "").

    Names have SEED for the seed. Commands stand in lines that begin with four spaces. An adapter is
    left out: it is too large to hand in.
    """
    code = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    made = []
    for command in code.replace("\\\n", " ").splitlines():
        made += [(name, "log.jsonl") for name in re.findall(r"--out (runs/\S+)", command)]
        if re.search(r"\beval\b", command):
            # Flags ask for other scores, which have a file of their own.
            asked, flags, _ = command.partition(" --")
            scores = "eval-*.json" if flags else "eval.json"
            made += [(name, scores) for name in re.findall(r"runs/\S+", asked)]
        made += [(name, "") for name in re.findall(r"(?:>|\| tee) (runs/\S+)", command)]
    return {
        (re.sub(r"-\d+(?=$|\.log$)", "-SEED", name), file)
        for name, file in made
        if not name.endswith(".safetensors")
    }


def lacking(home: Path, unit: int) -> list[str]:
    """Runs and files that the commands of a unit's text make, and that are not there."""
    text = home / "README.md"
    lines = []
    for name, file in sorted(made_by(text.read_text()) if text.is_file() else ()):
        # "runs/lift-SEED": lift, lift-0 and lift-1 are meant, and lift_cos-0 is not.
        wanted = re.escape(name.removeprefix("runs/")).replace(r"\-SEED", r"(-\w+)?")
        found = [path for path in home.glob("runs/*") if re.fullmatch(wanted, path.name)]
        count = sum(any(path.glob(file)) if file else path.is_file() for path in found)
        most = 3 if name in REPEATED.get(unit, ()) else 1
        if count < most:
            what = f"{file} in {name}" if file else name
            lines.append(what + (f": {count} of {most} seeds" if most > 1 else ""))
    return lines


def submit(tasks: list[Task], folder: Path, target: Path) -> int:
    """Pack the files with holes, answers, drawings, and the logs of runs. Says what is missing."""
    missing = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for unit in sorted({task.unit for task in tasks}):
            home = folder / f"unit{unit}"
            files = sorted({home / task.file for task in tasks if task.unit == unit})
            logs = [path for name in (*LOGS, *DRAWINGS) for path in sorted(home.glob(name))]
            lines, _ = said_of_logs(home, unit)
            missing += [f"unit{unit}: {line}" for line in lines if line.startswith("no log")]
            # What no band has named. Runs that are wanted with three seeds always stay: a band does
            # not count seeds.
            missing += [
                f"unit{unit}: {line}"
                for line in lacking(home, unit)
                if not any(f"({line.split()[-1]})" in one for one in lines)
            ]
            sheet = home / "answers.md"
            written = sheet.read_text(errors="replace") if sheet.is_file() else ""
            titles = ("Your answer", "What you measured", "Help")
            # Only the sheet's own headings divide it. A student may have others.
            parts = re.split(rf"^## ({'|'.join(titles)})[ \t]*$", written, flags=re.M)
            sections = dict(zip(parts[1::2], parts[2::2], strict=True))
            for title in titles if sheet.is_file() else ():
                text = sections.get(title, "").strip()
                if "(write here)" in text:
                    missing.append(f"unit{unit}/answers.md: {title!r} still says (write here)")
                elif not text or text.endswith(":"):  # the sheet's own words there end with a colon
                    missing.append(f"unit{unit}/answers.md: {title!r} is empty")
            for path in [*files, sheet, *logs]:
                name = path.relative_to(folder).as_posix()
                if not path.is_file():
                    missing.append(name)
                elif path.stat().st_size > LARGEST:
                    missing.append(f"{name}: larger than {LARGEST:,} bytes")
                else:
                    archive.write(path, name)
        count = len(archive.namelist())
    for line in missing:
        print(f"missing: {line}")
    what_now = "hand this in, or complete it first" if missing else "hand this in"
    print(f"wrote {target}: {count} files; {what_now}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Test your code, or pack what you hand in.")
    parser.add_argument("unit", type=int, nargs="?", help="number of a unit")
    parser.add_argument("--task", help="only this task, such as 1.2")
    parser.add_argument("--submit", action="store_true", help="pack what you hand in")
    parser.add_argument("--tests", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=HERE.parent, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        tasks = read_tasks(units=[args.unit] if args.unit else None)
        if args.submit:
            name = f"submission-unit{args.unit}.zip" if args.unit else "submission.zip"
            return submit(tasks, args.folder, args.folder / name)
        if args.task:
            ids = ", ".join(task.id for task in tasks)
            tasks = [task for task in tasks if task.id == args.task]
            if not tasks:
                raise CourseError(f"there is no task {args.task}; choose from {ids}")
        if args.tests:  # a notebook's hidden tests
            tasks = [with_hidden(task, args.tests) for task in tasks]
        return check(tasks, args.folder, whole_units=not (args.task or args.tests))
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
