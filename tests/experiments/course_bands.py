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

UNITS = (1, 2, 5)  # those with a band that compares seed by seed
PATIENCE = 240  # seconds for a run to reach its step


def number_of(band: Band, code: Path) -> float | str:
    """The band's number of a run of this code, with the first seed; or what stopped the run."""
    (command,) = band.commands
    out = code / "runs/now"
    shutil.rmtree(out, ignore_errors=True)
    words = command.replace(band.run, str(out)).replace("SEED", str(band.seeds[0]))
    log = code / "output.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *shlex.split(words)[1:]], cwd=code, stdout=output, stderr=output
        )
    begun = time.monotonic()
    while True:
        ended = process.poll() is not None
        try:
            value = read_score(out, band.score)
        except DAMAGED:
            value = None
        # A number of the last step is there at the end only.
        is_there = value is not None and not band.score.endswith("the end")
        if is_there or ended or time.monotonic() - begun > PATIENCE:
            break
        time.sleep(0.5)
    process.kill()
    process.wait()
    if is_there or value is not None and ended and not process.returncode:
        return value
    if not ended:
        return f"no such step after {PATIENCE} s"
    last = log.read_text().strip().splitlines()[-1]
    return f"stops: {last[:60]}"


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
        bands = [band for band in read_bands(unit) if band.same_seed]
        with tempfile.TemporaryDirectory() as name:
            code = Path(name)
            for path in project_files():
                (code / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, code / path)
            ours = [number_of(band, code) for band in bands]
            print(f"\nUnit {unit}:\n")
            for band, value in zip(bands, ours, strict=True):
                print(f"- {band.what}: {value:.4f}, to within {band.same_seed}")
            print("\n| task | wrong answer | number | found |\n|---|---|---|---|", flush=True)
            for mutant in (mutant for mutant in MUTANTS if mutant.task in tasks):
                file = tasks[mutant.task].file
                source = source_of(ROOT, file)
                (code / file).write_text(mutated(source, tasks[mutant.task], mutant))
                for band, value in zip(bands, ours, strict=True):
                    theirs = number_of(band, code)
                    is_number = isinstance(theirs, float)
                    is_found = not is_number or not abs(theirs - value) <= band.same_seed
                    if is_found:
                        break
                (code / file).write_text(source)
                found += is_found
                others += not is_found
                shown = f"{theirs:.4f}" if is_number else theirs
                verdict = "yes" if is_found else "no"
                print(f"| {mutant.task} | {mutant.wrong} | {shown} | {verdict} |", flush=True)
    print(f"\n{found} of {found + others} wrong answers are found.")


if __name__ == "__main__":
    main()
