"""Measure the bands of the experiments with seeds of your own: another year, other numbers.

    python -m docs.course.measure --seed 2027 --units 1,2    # draws seeds, runs, writes bands
    python -m docs.course.make --seed 2027 --units 1,2 --bands build/bands-2027.toml

It runs the commands that students run, one after the other, and reads the numbers of bands.toml
from their logs. A command that has ended is not run again, so a stopped measurement can be started
again. What a stopped command left is removed first. All nine units took 3.8 hours of one core, with
other work beside it, when unit 8 tuned for 60 steps (docs/results/course_2027.md).
"""

import argparse
import json
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from data.common import BadInput, exit_status, parse_flags

from .experiments import Band, is_no_score, read_bands, read_score
from .holes import HERE

ROOT = HERE.parent.parent
SAVED = ("unit", "what", "commands", "run", "score", "seeds", "values", "reach", "largest")
SAVED += ("same_seed", "log", "beside")


def drawn_seeds(seed: int) -> tuple[int, ...]:
    """The three seeds of the runs: 0, 1, 2 for the seed 0, else three between 3 and 999."""
    return tuple(random.Random(f"runs/{seed}").sample(range(3, 1000), 3)) if seed else (0, 1, 2)


def split_command(command: str) -> tuple[list[str], str, int]:
    """The words behind "python"; the file behind ">", or ""; the step of "# Ctrl-C at", or 0."""
    words = shlex.split(command, comments=True)[1:]
    stop = re.search(r"# Ctrl-C at step (\d+)", command)
    words, file = (words[:-2], words[-1]) if ">" in words else (words, "")
    return words, file, int(stop[1]) if stop else 0


def stop_at(step: int, process: subprocess.Popen, run: Path) -> bool:
    """Send Ctrl-C once the run's log has this step -> whether the run stopped, and was saved."""
    log = run / "log.jsonl"
    while process.poll() is None:
        if log.exists() and f'"step": {step},' in log.read_text():
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.1)
    return process.wait() == 128 + signal.SIGINT


def run_commands(commands: tuple[str, ...], seed: int, runs: Path, code: Path = ROOT) -> None:
    """Run those of the commands that are not done yet. BadInput if one of them fails.

    "COMMAND > FILE" writes what the command prints to a file, as in a shell. A command that ends
    with "# Ctrl-C at step N" is stopped there.

    runs  the folder that is meant by runs/ in the commands
    code  where train.py is
    """
    runs.mkdir(parents=True, exist_ok=True)
    log, done = runs / "commands.log", runs / "done.txt"
    for command in commands:
        command = command.replace("SEED", str(seed))
        if done.exists() and command in done.read_text().splitlines():
            continue
        # Runs go below `runs`, and so does a file that is named behind ">".
        words, file, stop = split_command(command)
        words = [word.replace("runs/", f"{runs}/") for word in words]
        run = Path(words[words.index("--out") + 1]) if "--out" in words else None
        if run and run.is_dir():
            shutil.rmtree(run)
        elif run and run.is_file():  # an adapter, which --tune does not write over
            run.unlink()
        begun = time.monotonic()
        with log.open("a") as output:
            output.write(f"$ {command}\n")
            output.flush()
            to_file = (runs / file.removeprefix("runs/")).open("w") if file else nullcontext(output)
            with to_file as printed:
                process = subprocess.Popen(
                    [sys.executable, *words], cwd=code, stdout=printed, stderr=output
                )
            try:
                succeeded = stop_at(stop, process, run) if stop else process.wait() == 0
            finally:
                process.kill()  # nothing happens where it has ended
                process.wait()
        if not succeeded:
            raise BadInput(f"this command failed; its last lines stand in {log}: {command}")
        with done.open("a") as output:
            output.write(f"{command}\n")
        print(f"{time.monotonic() - begun:5.0f} s  {command}", flush=True)


def measured(band: Band, seeds: tuple[int, ...], runs: Path) -> Band:
    """The band with the numbers of these seeds."""
    digits = 4 if is_no_score(band.score) else 1
    values = []
    for seed in seeds:
        folder = runs / band.run.removeprefix("runs/").replace("SEED", str(seed))
        run_commands(band.commands, seed, runs)
        values.append(round(read_score(folder, band.score), digits))
    return replace(band, seeds=seeds, values=tuple(values), log=f"{runs}/commands.log", wrong="")


def in_toml(band: Band) -> str:
    """One [[band]]. Strings, numbers and lists are the same in JSON and TOML."""
    known = {name: getattr(band, name) for name in SAVED}
    lines = [
        f"{name} = {json.dumps(value)}" for name, value in known.items() if value != float("inf")
    ]
    return "\n".join(["[[band]]", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--units", default="", help="such as 1,2 (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="draws the seeds of the runs (0)")
    parser.add_argument("--out", type=Path, help="file to write (build/bands-SEED.toml)")
    args = parse_flags(parser)
    out = (args.out or ROOT / f"build/bands-{args.seed}.toml").resolve()
    runs = out.with_name(f"{out.stem}-runs")
    try:
        units = {int(number) for number in args.units.split(",") if number}
    except ValueError:
        raise BadInput(f"--units {args.units} is no list of numbers, such as 1,2") from None
    chosen = [band for band in read_bands() if not units or band.unit in units]
    if not chosen:
        raise BadInput(f"--units {args.units}: bands.toml has no band of these units")
    # Bands of other units that were measured before stay.
    units = {band.unit for band in chosen}
    known = (
        [band for band in read_bands(path=out) if band.unit not in units] if out.exists() else []
    )
    for band in chosen:
        band = measured(band, drawn_seeds(args.seed), runs)
        print(f"unit {band.unit}: {band.in_words()}", flush=True)
        known.append(band)
        # Written after each band: a stopped measurement loses nothing.
        known.sort(key=lambda band: band.unit)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("\n".join(map(in_toml, known)))
    units_flag = f" --units {args.units}" if args.units else ""
    print(f"next: python -m docs.course.make --seed {args.seed}{units_flag} --bands {out}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
