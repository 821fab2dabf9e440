"""Which wrong solutions of the course do the bands of its experiments find?

    python -m tests.experiments.course_bands > docs/results/course_bands.md

A student whose function is wrong may still get a model that trains. So each wrong solution of
docs/course/mutants.py is put into the code, and the unit's experiment is run, until the numbers are
there that are compared one by one: with that of the same seed, or because nothing in them is drawn.
The numbers of the unchanged code come first. A wrong solution is found if its run stops with an
error, or if a number is farther away than the band allows.

What is not found here does not change these runs at all, or hardly. The tests of the grader catch
all of them (docs/results/course_check.md).
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from docs.course.experiments import DAMAGED, Band, read_bands, read_score
from docs.course.holes import read_tasks, source_of
from docs.course.make import EXTRA, ROOT, project_files
from docs.course.measure import run_commands, split_command
from docs.course.mutants import MUTANTS, mutated

UNITS = (1, 2, 3, 4, 5, 6, 7, 8)  # those with a number that is compared by itself
# Tuning for 30 steps takes five minutes, and 25 wrong solutions two hours.
SHORTER = {8: ("--steps 30", "--steps 5")}
PATIENCE = 1200  # seconds for a command to bring its numbers


def is_compared(band: Band) -> bool:
    """Whether a band is about one number: that of the same seed, or one that no seed changes.

    The accuracy at the end of unit 2's run is left out: its runs are stopped at step 20.
    """
    return bool(band.same_seed) or band.is_constant and not band.score.endswith("the end")


def compared_runs(unit: int) -> list[tuple[list[Band], list[str]]]:
    """For each run of a unit: its bands that are compared, and its commands, with the first seed.

    The functions of the unit count in a run's last command only. The others are run once.
    """
    bands = [band for band in read_bands(unit) if is_compared(band)]
    runs = []
    for run in dict.fromkeys(band.run for band in bands):
        of_run = [band for band in bands if band.run == run]
        seed = str(of_run[0].seeds[0])
        # The longest list: a band of the log needs no eval.py.
        commands = [
            command.replace("SEED", seed).replace(*SHORTER.get(unit, ("", "")))
            for command in max((band.commands for band in of_run), key=len)
        ]
        runs.append(([replace(band, run=run.replace("SEED", seed)) for band in of_run], commands))
    return runs


def numbers_so_far(bands: list[Band], code: Path) -> list[float | None]:
    """The number of each band; None where the run has not brought it yet."""
    numbers = []
    for band in bands:
        try:
            numbers.append(read_score(code / band.run, band.score))
        except DAMAGED:
            numbers.append(None)
    return numbers


def is_off(band: Band, number: float | None, right: float) -> bool:
    """Whether a number is farther from ours than it may be. NaN is."""
    return number is not None and not abs(number - right) <= band.within


def numbers_of(
    bands: list[Band], command: str, code: Path, ours: list[float] | None = None
) -> tuple[list[float | None], str]:
    """The bands' numbers after one command in this code, and what stopped it, if something did.

    The command is stopped when all numbers are there, or when one is off beside ours.
    """
    run = code / bands[0].run
    words, file, _ = split_command(command)
    if "--resume" in words:
        # Each goes on from the same stop.
        stopped = run.with_name(f"{run.name}.stopped")
        if stopped.exists():
            shutil.rmtree(run)
            shutil.copytree(stopped, run)
        else:
            shutil.copytree(run, stopped)
    elif file:
        run.unlink(missing_ok=True)
    elif words[0] == "eval.py":
        (run / "eval.json").unlink(missing_ok=True)
    elif run.exists():
        shutil.rmtree(run)

    log, errors = code / (file or "output.txt"), code / "errors.txt"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as output, errors.open("w") as error_output:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=code,
            stdout=output,
            stderr=error_output,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    begun = time.monotonic()
    # A number of the last step is there at the end only: before, it is that of another step.
    at_the_end = any(band.score.endswith("the end") for band in bands)
    while True:
        ended = process.poll() is not None
        numbers = numbers_so_far(bands, code)
        is_done = None not in numbers
        if ours:
            is_done |= any(map(is_off, bands, numbers, ours))
        if ended or is_done and not at_the_end or time.monotonic() - begun > PATIENCE:
            break
        time.sleep(0.5)
    process.kill()
    process.wait()
    if ended and process.returncode:
        last = (errors.read_text().strip() or "no words").splitlines()[-1]
        return numbers, f"stops: {last[:60]}"
    return numbers, "" if is_done else f"no number after {PATIENCE} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--units", default=",".join(map(str, UNITS)))
    parser.add_argument("--tasks", default="", help="such as 5.1,5.3 (default: all of the units)")
    args = parser.parse_args()
    found, others = 0, 0
    for unit in map(int, args.units.split(",")):
        chosen = args.tasks.split(",") if args.tasks else None
        tasks = {task.id: task for task in read_tasks(units=[unit])}
        tasks = {name: task for name, task in tasks.items() if not chosen or name in chosen}
        runs = compared_runs(unit)
        with tempfile.TemporaryDirectory() as name:
            code = Path(name)
            for path in (*project_files(), *EXTRA.get(unit, ())):
                (code / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, code / path)
            first = tuple(dict.fromkeys(c for _, commands in runs for c in commands[:-1]))
            with contextlib.redirect_stdout(sys.stderr):
                run_commands(first, 0, code / "runs", code)
            print(f"\nUnit {unit}:\n")
            right = []  # our numbers, run by run
            for bands, commands in runs:
                ours, problem = numbers_of(bands, commands[-1], code)
                assert not problem, problem
                right.append(ours)
                for band, number in zip(bands, ours, strict=True):
                    print(f"- {band.what}: {number:.7g}, to within {band.within:g}")
            print("\n| task | wrong solution | numbers | found |\n|---|---|---|---|", flush=True)
            for mutant in (mutant for mutant in MUTANTS if mutant.task in tasks):
                file = tasks[mutant.task].file
                source = source_of(ROOT, file)
                (code / file).write_text(mutated(source, tasks[mutant.task], mutant))
                seen, is_found = [], False
                for (bands, commands), ours in zip(runs, right, strict=True):
                    theirs, problem = numbers_of(bands, commands[-1], code, ours)
                    seen += [f"{x:.7g}" for x in theirs if x is not None]
                    is_found = bool(problem) or any(map(is_off, bands, theirs, ours))
                    if is_found:
                        break
                (code / file).write_text(source)
                found += is_found
                others += not is_found
                shown = problem or ", ".join(seen)
                verdict = "yes" if is_found else "no"
                print(f"| {mutant.task} | {mutant.wrong} | {shown} | {verdict} |", flush=True)
    print(f"\n{found} of {found + others} wrong solutions are found.")


if __name__ == "__main__":
    main()
