"""Check the course: the reference gets everything, an empty hand-in nothing, every mutant is caught.

    make course-check                        # all of it; prints a table
    python -m docs.course.verify --units 1   # of some units

The tests of a mutant's own task are run until one fails. For all other tasks there is nothing to
run: the tested file is the same, letter by letter, as with the reference's own submission, and this
is compared. So no mutant can cost another hole's points.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .grade import Grader, tested_source
from .holes import HERE, CourseError, Task, punch, read_tasks, says_of, source_of
from .mutants import MUTANTS, Mutant, mutated

ROOT = HERE.parent.parent


def write_submission(folder: Path, tasks: list[Task], change=lambda source, tasks: source) -> Path:
    """The files that a student would hand in: those of the project, changed."""
    for unit in {task.unit for task in tasks}:
        for file in {task.file for task in tasks if task.unit == unit}:
            here = [task for task in tasks if (task.unit, task.file) == (unit, file)]
            target = folder / f"unit{unit}" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(change(source_of(ROOT, file), here))
    return folder


def punched(source: str, tasks: list[Task]) -> str:
    return punch(source, {task.name: says_of(task) for task in tasks})


def check_mutant(grader: Grader, mutant: Mutant, tasks: list[Task], folder: Path) -> str:
    """What catches a mutant: the title of the first test that fails. "" where nothing does."""
    (task,) = (task for task in tasks if task.id == mutant.task)
    source = source_of(ROOT, task.file)
    write_submission(folder, tasks)
    (folder / f"unit{task.unit}" / task.file).write_text(mutated(source, task, mutant))
    for other in tasks:
        if other is not task:
            found = tested_source(folder, other, 2, ROOT)
            if found != source_of(ROOT, other.file):
                raise CourseError(f"{mutant.wrong!r} of task {task.id} changes task {other.id}")
    (outcome,) = grader.grade([task], folder, stop_at_first=True)
    if outcome.note.startswith("not tested"):
        raise CourseError(f"{mutant.wrong!r} of task {task.id}: {outcome.note}")
    failed = [line for line in outcome.lines if line.startswith("NO")]
    if not failed:
        return ""
    title, _, problem = failed[0][4:].partition("\n")
    # An edit that is no Python, or names what is not there, would prove nothing.
    for error in ("SyntaxError", "NameError", "UnboundLocalError"):
        if problem.strip().startswith(error):
            raise CourseError(f"{mutant.wrong!r} of task {task.id}: {problem.strip()}")
    return title


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check the course's grader.")
    parser.add_argument("--units", help="such as 1,2 (default: all)")
    args = parser.parse_args(argv)
    units = [int(number) for number in args.units.split(",")] if args.units else None
    bad = 0
    tasks = read_tasks(units=units)
    grader = Grader(ROOT)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for words, change, share in (
                ("the reference", lambda source, tasks: source, 1),
                ("the hand-out as it is", punched, 0),
                ("an empty folder", None, 0),
            ):
                submission = folder / words.replace(" ", "-")
                submission.mkdir()
                if change:
                    write_submission(submission, tasks, change)
                begun = time.monotonic()
                outcomes = grader.grade(tasks, submission)
                score = sum(outcome.score for outcome in outcomes)
                most = sum(outcome.task.points for outcome in outcomes)
                print(f"{words}: {score} of {most} points, {time.monotonic() - begun:.0f} s")
                if score != share * most:
                    bad += 1
                    for outcome in outcomes:
                        if outcome.score != share * outcome.task.points:
                            print(f"  {outcome.entry()}")
            print("\n| task | wrong answer | caught by |\n|---|---|---|")
            ids = {task.id for task in tasks}
            count = 0
            for mutant in MUTANTS:
                if mutant.task in ids:
                    caught = check_mutant(grader, mutant, tasks, folder / "mutant")
                    bad += not caught
                    count += 1
                    print(f"| {mutant.task} | {mutant.wrong} | {caught or 'NOTHING'} |", flush=True)
            print(f"\n{count} wrong answers, {bad} problems")
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        grader.close()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
