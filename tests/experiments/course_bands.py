"""Which wrong answers of the course do the bands of its experiments find?

    python -m tests.experiments.course_bands > docs/results/course_bands.md

A student whose function is wrong may still get a model that trains. So each wrong answer of
docs/course/mutants.py is put into the code, and the unit's experiment is begun, up to the step of
the band that compares seed by seed. The number of the unchanged code comes first. A wrong answer is
found if its run stops with an error, or if its number is farther away than the band allows.

What is not found here does not change these runs at all, or hardly. The tests of the grader catch
all of them (docs/results/course_check.md).
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from docs.course.experiments import DAMAGED, Band, read_bands, read_score
from docs.course.holes import read_tasks, source_of
from docs.course.make import ROOT, project_files
from docs.course.mutants import MUTANTS, mutated

UNITS = (1, 2, 4, 5)  # those with a band that compares seed by seed, or counts parameters
PATIENCE = 240  # seconds for a run to reach its step


def reach_of(band: Band) -> float:
    """How far from ours a number of the same seed may be."""
    return band.same_seed or band.reach


def numbers_of(bands: list[Band], code: Path) -> list[float | str]:
    """The bands' numbers in one run of this code, with the first seed; or what stopped the run."""
    (command,) = {command for band in bands for command in band.commands}
    out = code / "runs/now"
    shutil.rmtree(out, ignore_errors=True)
    words = command.replace(bands[0].run, str(out)).replace("SEED", str(bands[0].seeds[0]))
    log = code / "output.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *shlex.split(words)[1:]], cwd=code, stdout=output, stderr=output
        )
    begun = time.monotonic()
    # A number of the last step is there at the end only.
    at_the_end = any(band.score.endswith("the end") for band in bands)
    while True:
        ended = process.poll() is not None
        try:
            numbers = [read_score(out, band.score) for band in bands]
        except DAMAGED:
            numbers = []
        if ended or numbers and not at_the_end or time.monotonic() - begun > PATIENCE:
            break
        time.sleep(0.5)
    process.kill()
    process.wait()
    if numbers and not (ended and process.returncode):
        return numbers
    last = log.read_text().strip().splitlines()[-1]
    return [f"stops: {last[:60]}" if ended else f"no such step after {PATIENCE} s"] * len(bands)


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
        bands = [band for band in read_bands(unit) if band.same_seed or band.score.endswith("at 0")]
        with tempfile.TemporaryDirectory() as name:
            code = Path(name)
            for path in project_files():
                (code / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, code / path)
            ours = numbers_of(bands, code)
            print(f"\nUnit {unit}:\n")
            for band, number in zip(bands, ours, strict=True):
                print(f"- {band.what}: {number:.7g}, to within {reach_of(band):g}")
            print("\n| task | wrong answer | numbers | found |\n|---|---|---|---|", flush=True)
            for mutant in (mutant for mutant in MUTANTS if mutant.task in tasks):
                file = tasks[mutant.task].file
                source = source_of(ROOT, file)
                (code / file).write_text(mutated(source, tasks[mutant.task], mutant))
                theirs = numbers_of(bands, code)
                (code / file).write_text(source)
                is_found = False
                for band, number, right in zip(bands, theirs, ours, strict=True):
                    stopped = isinstance(number, str)
                    is_found |= stopped or not abs(number - right) <= reach_of(band)
                found += is_found
                others += not is_found
                shown = ", ".join(
                    x if isinstance(x, str) else f"{x:.7g}" for x in dict.fromkeys(theirs)
                )
                verdict = "yes" if is_found else "no"
                print(f"| {mutant.task} | {mutant.wrong} | {shown} | {verdict} |", flush=True)
    print(f"\n{found} of {found + others} wrong answers are found.")


if __name__ == "__main__":
    main()
