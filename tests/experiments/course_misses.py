"""Is each band of the course missed by a wrong solution?

    python -m tests.experiments.course_misses > docs/results/course_misses.md

A band that every wrong solution meets tells a student nothing. So for a band a wrong solution of
docs/course/mutants.py is put into the code, and the commands of the band are run to their end, with
the first of our seeds. It is a band only if the number is outside. Else, and where nothing was
tried, bands.toml calls the number one for comparison (`beside`).

course_bands.py asks the other way round: whether each wrong solution misses some band.
"""

import argparse
import os
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from data.common import BadInput, cache_dir, exit_status, parse_flags
from docs.course.experiments import DAMAGED, Band, read_bands, read_score
from docs.course.holes import read_tasks, source_of
from docs.course.make import EXTRA, ROOT, project_files
from docs.course.measure import run_commands
from docs.course.mutants import MUTANTS, Mutant, mutated


class Trial(NamedTuple):
    """Wrong solutions for the bands of one run, tried in turn until each band is missed."""

    wrong: tuple[tuple[str, str], ...]  # (task, words), as in mutants.py
    right: int = 0  # so many of the first commands are run once, with the unchanged code


# unit: {run of bands.toml: what is tried}
TRIALS = {
    1: {
        "runs/five-SEED": Trial((("1.1", "one direction only"),)),
        "runs/cos-SEED": Trial((("1.2", "the sum over the batch"),)),
        "runs/falls-SEED": Trial((("1.3", "only an upper limit"),)),
    },
    2: {
        "runs/overfit-SEED": Trial(
            (
                ("2.4", "no positions"),
                ("2.3", "the norm after the sum"),
                ("2.2", "softmax over the queries"),
                ("2.1", "reshaped without moving a pixel"),
                ("2.2", "divided by the root of D"),
            )
        ),
        "runs/token-SEED": Trial((("2.4", "the class token stands last"),)),
        "runs/patch8-SEED": Trial((("2.4", "no positions"),)),
        "runs/patch16-SEED": Trial((("2.4", "no positions"),)),
    },
    3: {"runs/pooling.log": Trial((("3.1", "no root"),))},
    4: {
        "runs/norms-SEED": Trial((("4.1", "norms are weights only"), ("4.3", "everything decays"))),
        "runs/sigmoid-SEED": Trial(
            (("4.1", "GOES_WITH is not used"), ("4.3", "position embeddings decay"))
        ),
        "runs/lilt-SEED": Trial((("4.1", "one of two adapters"),), right=1),
        "runs/llm2clip-SEED": Trial(
            (("4.3", "no share of the rate"), ("4.3", "the scale is forgotten")), right=1
        ),
        "runs/lift-SEED": Trial((("4.4", "one matrix as head"), ("4.4", "the cosine loss"))),
    },
    5: {
        "runs/several-SEED": Trial((("5.4", "the share is not used"),)),
        "runs/crops-SEED": Trial((("5.2", "crops are flipped"),)),
        "runs/rate-2e-3-SEED": Trial((("5.1", "warm-up begins at 0"),)),
        "runs/stopped-SEED": Trial((("5.6", "the optimizer starts anew"),), right=1),
        "runs/rate-8e-3-SEED": Trial(
            (("5.1", "without the half"), ("5.1", "warm-up is not limited to a tenth"))
        ),
        "runs/rate-3.2e-2-SEED": Trial(
            (("5.1", "without the half"), ("5.1", "warm-up is not limited to a tenth"))
        ),
    },
    6: {
        "runs/lookup-SEED": Trial(
            (
                ("6.1", "counted from 1"),
                ("6.3", "not behind counts as right"),
                ("6.4", "ties help"),
                ("6.6", "the spread of answers in place of that of means"),
            ),
            right=2,
        ),
        "runs/winoground-SEED.log": Trial(
            (("6.5", "text and image are exchanged"), ("6.5", "group is either")), right=2
        ),
        "runs/captions-SEED.log": Trial(
            (("6.1", "the worst right answer counts"), ("6.2", "caption i belongs to image i")),
            right=1,
        ),
        "runs/lift-SEED": Trial((("6.3", "the wrong one is preferred"),), right=1),
        "runs/clip-SEED": Trial(
            (("6.3", "any image of the batch"), ("6.1", "counted from 1")), right=1
        ),
    },
    7: {
        "runs/five-ape-SEED": Trial(
            (("7.2", "one linear layer"), ("7.1", "the network on the mean")), right=1
        ),
        "runs/five-ape_transformer-SEED": Trial((("7.3", "a block of the whole width"),), right=1),
        "runs/five-ape_lookup-SEED": Trial((("7.4", "an MLP"),), right=1),
        "runs/ape-SEED": Trial(
            (("7.1", "the network on the mean"), ("7.2", "one linear layer")), right=1
        ),
    },
    8: {
        "runs/five-lilt-SEED": Trial((("8.2", "no residual"),), right=1),
        "runs/adapter-SEED.log": Trial((("8.3", "the diagonal is masked, too"),)),
    },
}


def wrong_answer(task: str, words: str) -> Mutant:
    """The wrong solution of mutants.py with these words. ValueError unless there is one."""
    (found,) = [mutant for mutant in MUTANTS if (mutant.task, mutant.wrong) == (task, words)]
    return found


def number_in(runs: Path, band: Band) -> float | None:
    """The band's number, rounded as those of bands.toml; None where there is none."""
    try:
        return round(read_score(runs / band.run.removeprefix("runs/"), band.score), 4)
    except DAMAGED:
        return None


def try_run(unit: int, name: str, trial: Trial, code: Path, work: Path) -> None:
    """Print a row for each band of the run `name`, with the wrong solution and its number.

    BadInput where a run ends without an error and without the number.
    """
    bands = [band for band in read_bands(unit) if band.run == name]
    seed = bands[0].seeds[0]
    commands = max((band.commands for band in bands), key=len)
    right = work / "right"
    with redirect_stdout(sys.stderr):
        run_commands(commands[: trial.right], seed, right, code)

    open_bands = [replace(band, run=name.replace("SEED", str(seed))) for band in bands]
    for number, (task_id, words) in enumerate(trial.wrong):
        (task,) = [task for task in read_tasks(units=[unit]) if task.id == task_id]
        source = source_of(ROOT, task.file)
        (code / task.file).write_text(mutated(source, task, wrong_answer(task_id, words)))
        runs = work / f"{Path(name).stem}-{number}"
        shutil.copytree(right, runs)
        stop = ""
        try:
            with redirect_stdout(sys.stderr):
                run_commands(commands, seed, runs, code)
        except BadInput:
            stop = "a command stops"
        (code / task.file).write_text(source)
        still_open = []
        for band in open_bands:
            low, high = band.limits(seed)
            value = number_in(runs, band)
            if value is None and not stop:
                raise BadInput(f"{runs} has no number of: {band.what}")
            if value is None:
                shown, is_missed = stop, True
            else:
                shown, is_missed = f"{value:.7g}", not low <= value <= high
            verdict = "yes" if is_missed else "no"
            print(
                f"| {unit} | {band.what} | {low:.9g} to {high:.9g} | {task_id} {words} | {shown} "
                f"| {verdict} |",
                flush=True,
            )
            if not is_missed:
                still_open.append(band)
        open_bands = still_open
        if not open_bands:
            break
    for band in open_bands:
        print(f"not missed: unit {unit}, {band.what}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--units", default=",".join(map(str, TRIALS)))
    parser.add_argument("--runs", default="", help="such as runs/five-SEED (default: all)")
    args = parse_flags(parser)
    print("| unit | number | band | wrong solution | its number | missed |")
    print("|---|---|---|---|---|---|", flush=True)
    for unit in map(int, args.units.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            code, cache = Path(folder) / "code", Path(folder) / "cache"
            for path in (*project_files(), *EXTRA.get(unit, ())):
                (code / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, code / path)
            # Vectors that wrong code writes must not stay in the user's cache.
            shutil.copytree(cache_dir(), cache, copy_function=os.symlink)
            os.environ["LIFT_CACHE"] = str(cache)
            for name, trial in TRIALS[unit].items():
                if not args.runs or name in args.runs.split(","):
                    work = Path(folder) / Path(name).stem
                    (work / "right").mkdir(parents=True)
                    try_run(unit, name, trial, code, work)
            del os.environ["LIFT_CACHE"]


if __name__ == "__main__":
    sys.exit(exit_status(main))
