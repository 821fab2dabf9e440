"""Grade a submission: every task by itself, in the reference, by tests that the code cannot reach.

    python -m course.grade --submission DIR --results results.json [--units 1,2]

For each task the tested file is the reference with one hole filled by the submission. So a mistake
in one hole costs the points of that hole and of no other. A task's points are given when all its
tests hold.

results.json is Gradescope's. It is written with 0 points before anything of the submission is read,
and again after every test. What is protected, and what is not, is said in teacher/README.md.
"""

import argparse
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import experiments
from .holes import HERE, CourseError, Task, read_tasks, source_of, transplant

REFERENCE = HERE / "reference" if (HERE / "reference").is_dir() else HERE.parent.parent
TOTAL_SECONDS = 500  # Gradescope stops after 600


@dataclass
class Outcome:
    """How one task went."""

    task: Task
    max_tests: int
    lines: list[str] = field(default_factory=list)  # one or more for each test
    passed: int = 0
    failed: int = 0
    note: str = "not tested yet"  # what stands in place of tests that did not run
    written: bool = True  # False: the hole is still open

    @property
    def score(self) -> int:
        return self.task.points if self.passed == self.max_tests else 0

    def entry(self) -> dict:
        """The task in Gradescope's form."""
        is_done = self.score == self.task.points
        return {
            "number": self.task.id,
            "name": f"{self.task.name} ({self.task.file})",
            "score": self.score,
            "max_score": self.task.points,
            "status": "passed" if is_done else "failed",
            "output": "\n".join([*self.lines, *([self.note] if self.note else [])]),
            "visibility": "visible",
        }


# --------------------------------------------------------------------------------------------------
# Tests.


def collect(task: Task) -> list[Callable]:
    """The functions that test a task. CourseError unless each listed one is there."""
    found = []
    for kind, names in (("test", task.visible), ("hidden", task.hidden)):
        if not names:
            continue
        module = importlib.import_module(f"{__package__}.tests.{kind}_unit{task.unit}")
        for name in names:
            test = getattr(module, name, None)
            if not callable(test) or not test.__doc__:
                raise CourseError(f"task {task.id}: the test {name} is not there")
            found.append(test)
    if not found:
        raise CourseError(f"task {task.id} has no tests")
    return found


def title_of(test: Callable) -> str:
    return test.__doc__.strip().splitlines()[0].rstrip(".")


# --------------------------------------------------------------------------------------------------
# The submission.


def root_of(folder: Path) -> Path:
    """Where a submission begins: many programs pack a folder, and not what is in it."""
    while True:
        inside = [path for path in folder.glob("[!._]*") if not path.is_symlink()]
        is_wrapped = len(inside) == 1 and inside[0].is_dir()
        if not is_wrapped or re.fullmatch(r"unit\d+|data", inside[0].name):
            return folder
        folder = inside[0]


def find_file(submission: Path, task: Task, n_units: int) -> Path:
    """Where a submission has the file of a task. With one unit, its folder may be left out."""
    places = [submission / f"unit{task.unit}" / task.file]
    if n_units == 1:
        places += [submission / task.file, submission / Path(task.file).name]
    for place in places:
        # A link could lead to the reference. What is graded is the submission's own.
        if place.is_file() and place.resolve().is_relative_to(submission.resolve()):
            if place.stat().st_size > 1_000_000:
                raise CourseError(f"{task.file} has more than a megabyte")
            return place
    raise CourseError(f"unit{task.unit}/{task.file} is not in the submission")


def tested_source(submission: Path, task: Task, n_units: int, reference: Path) -> str:
    """The reference's file with the submission's hole. CourseError in one line for the student."""
    path = find_file(submission, task, n_units)
    try:
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        source = transplant(source_of(reference, task.file), text, task.name)
        compile(source, task.file, "exec")
    except UnicodeDecodeError:
        raise CourseError(f"{task.file} is no text in UTF-8") from None
    except CourseError as error:
        raise CourseError(f"{task.file}: {error}") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CourseError(f"{task.file}: {error}") from None
    return source


# --------------------------------------------------------------------------------------------------
# Grading.


class Grader:
    """Grades submissions, one after the other, in one process.

    Make it before anything of the project is imported: the processes in which a submission runs are
    forked from here, and must not have the reference's functions in their memory.
    """

    def __init__(self, reference: Path = REFERENCE, seconds: float | None = None):
        from .worker import Workers, public_copy  # torch takes two seconds to import

        self.reference = reference
        self.seconds = seconds  # for a test, where the test itself does not say; None: the usual
        self.workers = Workers()
        sys.path.insert(0, str(reference))
        self.folder = Path(tempfile.mkdtemp(prefix="course-"))
        self.folder.chmod(0o755)
        self.readable = public_copy(reference, self.folder / "reference")

    def close(self) -> None:
        self.workers.close()
        sys.path.remove(str(self.reference))
        shutil.rmtree(self.folder, ignore_errors=True)

    def grade(
        self,
        tasks: list[Task],
        submission: Path,
        progress: Callable[[list[Outcome]], None] = lambda outcomes: None,
        stop_at_first: bool = False,
    ) -> list[Outcome]:
        """Grade some tasks. `progress` is called before the first test and after each one.

        stop_at_first  run no more tests of a task than it takes to fail

        CourseError where there are no tasks, or where a test that tasks.toml lists is not there.
        """
        outcomes = [Outcome(task, len(task.visible) + len(task.hidden)) for task in tasks]
        progress(outcomes)
        if not tasks:
            raise CourseError("there are no tasks to grade")
        tests_of = {task.id: collect(task) for task in tasks}
        deadline = time.monotonic() + TOTAL_SECONDS
        n_units = len({task.unit for task in tasks})
        for outcome in outcomes:
            task = outcome.task
            try:
                source = tested_source(submission, task, n_units, self.reference)
            except CourseError as error:
                outcome.note = f"not tested: {error}"
                progress(outcomes)
                continue
            graded = self.folder / f"task{task.id}" / Path(task.file).name
            graded.parent.mkdir(exist_ok=True)
            graded.write_text(source)
            graded.parent.chmod(0o755)
            graded.chmod(0o644)
            outcome.note = ""
            for test in tests_of[task.id]:
                if time.monotonic() > deadline:
                    outcome.note = "stopped: the whole submission took too long"
                else:
                    self.run_test(test, outcome, graded)
                progress(outcomes)
                if outcome.note or (stop_at_first and outcome.failed):
                    break
        return outcomes

    def run_test(self, test: Callable, outcome: Outcome, graded: Path) -> None:
        """Run one test in a worker of its own, and note how it went."""
        from .student import Student, StudentError, TimeUp, Wrong, make_job, printed

        scratch = Path(tempfile.mkdtemp(dir=self.folder))
        scratch.chmod(0o777)
        descriptor, name = tempfile.mkstemp(dir=self.folder)
        os.unlink(name)  # only we and the worker have it
        student = None
        problem = None
        try:
            job = make_job(outcome.task, graded, self.readable, scratch)
            student = Student(self.workers, job, descriptor, getattr(test, "seconds", self.seconds))
            test(student)
        except Wrong as wrong:
            problem = str(wrong)
        except TimeUp as error:
            problem = str(error)
            outcome.note = "the other tests of this task did not run"
        except StudentError as error:
            problem = str(error)
            if problem.startswith("NotImplementedError: task "):
                outcome.note = f"not written yet ({problem.splitlines()[0].split(': ', 1)[1]})"
                outcome.written = False
        except Exception as error:  # what came back is of a kind that the test did not expect
            problem = f"what came back cannot be used ({type(error).__name__}: {error})"
        finally:
            if student is not None:
                student._close()
            prints = printed(descriptor)
            os.close(descriptor)
            shutil.rmtree(scratch, ignore_errors=True)
        if problem is None:
            outcome.passed += 1
            outcome.lines.append(f"ok  {title_of(test)}")
            return
        outcome.failed += 1
        if outcome.written:
            if prints:
                problem += f"\nit printed: {prints[-500:]}"
            indented = problem.replace("\n", "\n    ")
            outcome.lines.append(f"NO  {title_of(test)}\n    {indented}")


# --------------------------------------------------------------------------------------------------
# Gradescope.


def write_results(
    path: Path, outcomes: list[Outcome], begun: float, output: str = "", logs: Path | None = None
) -> None:
    """Write results.json whole or not at all. logs: the submission, whose logs are shown, too."""
    tests, board = [outcome.entry() for outcome in outcomes], []
    if logs:
        units = sorted({outcome.task.unit for outcome in outcomes})
        for unit in units:
            folder = logs / f"unit{unit}"
            if not folder.is_dir() and len(units) == 1:
                folder = logs
            tests += experiments.entries(folder, unit)
            board += experiments.leaderboard(folder) if unit == 9 else []
    results = {
        "tests": tests,
        "leaderboard": board,
        "execution_time": round(time.monotonic() - begun, 1),
        "stdout_visibility": "hidden",
        "output": output,
    }
    if not outcomes:  # Gradescope wants a score where there are no tests
        results["score"] = 0
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(results, indent=1))
    os.replace(unfinished, path)


def warn_of_root() -> None:
    """Say so where the grader is root and cannot let the student's code be somebody else."""
    from .worker import closed_folder  # torch takes two seconds to import

    if os.geteuid() == 0 and closed_folder():
        print(
            f"warning: the student's code runs as root, because another user cannot enter "
            f"{closed_folder()}, where Python is; use a Python of the system",
            file=sys.stderr,
        )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Grade a submission as Gradescope wants it.")
    parser.add_argument("--submission", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--units", help="numbers of units, such as 1,2,5 (default: all there are)")
    args = parser.parse_args(argv)
    begun = time.monotonic()
    submission = root_of(args.submission)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    # 0 points come first, so that there is a result whatever happens next.
    write_results(args.results, [], begun, "The grader did not start. Tell your teacher.")
    tasks = []
    try:
        units = [int(number) for number in args.units.split(",")] if args.units else None
        tasks = read_tasks(units=units)
        grader = Grader()
        warn_of_root()
        try:
            outcomes = grader.grade(
                tasks, submission, lambda done: write_results(args.results, done, begun)
            )
        finally:
            grader.close()
    except CourseError as error:
        empty = [Outcome(task, 1, note=f"the grader stopped: {error}") for task in tasks]
        write_results(args.results, empty, begun, f"The grader stopped: {error}")
        print(f"error: {error}", file=sys.stderr)
        return 2
    score = sum(outcome.score for outcome in outcomes)
    most = sum(outcome.task.points for outcome in outcomes)
    write_results(args.results, outcomes, begun, logs=submission)
    print(f"{score} of {most} points, {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
