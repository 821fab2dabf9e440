"""Check the course: right answers get all points, an empty hand-in none, wrong solutions fail.

    make course-check                        # all of it; prints a table
    python -m docs.course.verify --units 1   # of some units

The tests of a mutant's own task are run until one fails. For all other tasks there is nothing to
run: the tested file is the same, letter by letter, as with the reference's own submission, and this
is compared. So no mutant can cost another hole's points.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from .grade import Grader, tested_source
from .holes import HERE, CourseError, Task, punch, read_tasks, says_of, source_of
from .mutants import MUTANTS, Mutant, mutated
from .others import answered

ROOT = HERE.parent.parent
GRADESCOPE = 768 * 1024**2  # bytes of memory that Gradescope gives by default


def write_submission(folder: Path, tasks: list[Task], change=lambda source, tasks: source) -> Path:
    """The files that a student would hand in: those of the project, changed."""
    for unit in {task.unit for task in tasks}:
        for file in {task.file for task in tasks if task.unit == unit}:
            here = [task for task in tasks if (task.unit, task.file) == (unit, file)]
            target = folder / f"unit{unit}" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(change(source_of(ROOT, file), here))
    return folder


# A function that keeps all the memory it gets, for long enough to be seen.
HOARDER = """\
import time
kept, size = [], 2**24
while size > 2**16:
    try:
        kept.append(b"x" * size)
    except MemoryError:
        size //= 2
time.sleep(0.5)
raise MemoryError(f"kept {sum(map(len, kept)) // 2**20} MB")
"""


def hoarding(source: str, tasks: list[Task]) -> str:
    """The source in which the first hole that is no entry keeps all memory, in each file."""
    task = next((task for task in tasks if "[" not in task.name), None)
    if task is None:
        return source
    hole = f'raise NotImplementedError("{says_of(task)}")'
    lines = punch(source, {task.name: says_of(task)}).splitlines(keepends=True)
    return "".join(
        textwrap.indent(HOARDER, line.split("raise")[0]) if line.strip() == hole else line
        for line in lines
    )


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


def cost_of_grading(folder: Path, units: list[int]) -> tuple[str, int]:
    """Grade as Gradescope does, in a process of its own -> (time and memory in words, peak bytes).

    Where there is no /proc, the peak is 0.
    """
    command = [sys.executable, "-m", f"{__package__}.grade", "--submission", str(folder)]
    command += ["--results", str(folder / "results.json"), "--units", ",".join(map(str, units))]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_of(process.pid))
        time.sleep(0.1)
    seconds = time.monotonic() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    memory = f"{peak / 1024**2:.0f} MB" if peak else "unknown (no /proc here)"
    words = (
        f"{seconds:.0f} s, of which {cpu:.0f} s of processor time in the grader itself; peak "
        f"memory of all its processes {memory}"
    )
    return words, peak


def memory_of(pid: int) -> int:
    """Bytes of a process and all below it. Pages that several share are counted once (Linux)."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = 1024 * int(line.split()[1])
        for thread in Path(f"/proc/{pid}/task").iterdir():
            children = (thread / "children").read_text().split()
            total += sum(memory_of(int(child)) for child in children)
    except OSError:  # it has ended, or this is no Linux
        pass
    return total


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check the course's grader.")
    parser.add_argument("--units", help="such as 1,2 (default: all)")
    args = parser.parse_args(argv)
    grader = None
    try:
        units = [int(number) for number in args.units.split(",")] if args.units else None
        tasks = read_tasks(units=units)
        grader = Grader(ROOT)
        with tempfile.TemporaryDirectory() as name:
            return check(grader, tasks, Path(name))
    except (CourseError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if grader:
            grader.close()


def check(grader: Grader, tasks: list[Task], folder: Path) -> int:
    """Print what the grader says of everything. The exit status is 0 if all is as it should be."""
    bad = 0
    for words, change, share in (
        ("the reference", lambda source, tasks: source, 1),
        ("right answers in other words", answered, 1),
        ("the hand-out as it is", punched, 0),
        ("an empty folder", None, 0),
    ):
        submission = folder / words.replace(" ", "-")
        submission.mkdir()
        if change:
            write_submission(submission, tasks, change)
        outcomes = grader.grade(tasks, submission)
        score = sum(outcome.score for outcome in outcomes)
        most = sum(outcome.task.points for outcome in outcomes)
        print(f"{words}: {score} of {most} points")
        for outcome in outcomes:
            if outcome.score != share * outcome.task.points:
                print(f"    {outcome.task.id}: {outcome.score} points\n{outcome.entry()['output']}")
                bad += 1
    units = sorted({task.unit for task in tasks})
    print(f"grading the reference once: {cost_of_grading(folder / 'the-reference', units)[0]}")
    words, peak = cost_of_grading(write_submission(folder / "hoarding", tasks, hoarding), units)
    print(f"grading functions that keep all the memory they get: {words}")
    if peak > GRADESCOPE:
        print("    this is more than the 768 MB of Gradescope")
        bad += 1

    print("\n| task | wrong solution | caught by |\n|---|---|---|")
    ids = {task.id for task in tasks}
    chosen = [mutant for mutant in MUTANTS if mutant.task in ids]
    for mutant in chosen:
        caught = check_mutant(grader, mutant, tasks, folder / "mutant")
        bad += not caught
        print(f"| {mutant.task} | {mutant.wrong} | {caught or 'NOTHING'} |", flush=True)
    for task in tasks:
        if sum(mutant.task == task.id for mutant in chosen) < 3:
            print(f"task {task.id} has fewer than three wrong solutions")
            bad += 1
    print(f"\n{len(chosen)} wrong solutions for {len(tasks)} holes; {bad} problems")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
