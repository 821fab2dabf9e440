"""Train every combination of some flags, and choose the best setting on validation images.

    python -m data.sweep --method lift,clip --lr 1e-3,3e-3 --seed 0,1,2 --out runs/s
    python -m data.sweep ... --jobs 2     # two runs at a time, which share the cores
    python -m data.sweep ... --test       # at the end, the best setting on the test images, too

The flags are those of train.py, with commas between values. A run is a process of train.py in a
folder of its own: runs/s/method=lift,lr=0.001,seed=0 is named by the flags that vary. Then eval.py
--split val scores it. The same command again goes on where the sweep stopped, and a flag that
varies may get more values. The table goes to OUT/sweep.md, and a line for each run to
OUT/sweep.jsonl.

The score that chooses is R@1 on validation images, the mean of both directions and over the seeds.
It is not the loss: the losses of two methods, or of two batch sizes, have different units. The test
images have no part in the choice. A setting of which a run failed is not chosen: its other seeds
may have been the lucky ones.

This module stands above train.py. On a first reading skip it.
"""

import argparse
import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock

import numpy as np
import torch

import train
from data.benchmarks import check_validation, held_out
from data.common import (
    BadInput,
    exit_status,
    flag_of,
    interpreting,
    locked,
    parse_flags,
    replacing,
    stop_signals,
)
from data.files.runs import read_run
from data.images.formats import Columns
from data.world import shapes

ROOT = Path(__file__).parents[1]

# --------------------------------------------------------------------------------------------------
# Several processes at a time. tests/experiments/claims.py runs its rows by this part, too.


class Children:
    """Python programs in processes of their own, which a signal to this process ends cleanly.

    threads  of each process; None: as many as torch takes by itself
    folder   where they run; None: where this process does
    """

    def __init__(self, threads: int | None = None, folder: Path | None = None):
        self.folder = folder
        self.environment = dict(os.environ)
        if threads:
            self.environment["OMP_NUM_THREADS"] = str(threads)
        self.stop: list[int] = []  # the signals that came
        self.running: list[subprocess.Popen] = []
        self.lock = Lock()  # of the list of those that run

    def call(self, *argv: str, log: Path | None = None, given: str | None = None) -> str:
        """Run Python with these arguments -> its output. Several threads may call at once.

        log    the file that its stderr is appended to
        given  its input

        BadInput with the last line of its stderr if it fails; SystemExit if a signal ended it.
        """
        with open(log, "a+b") if log else TemporaryFile() as said:
            start = said.seek(0, os.SEEK_END)
            with self.lock:
                if self.stop:
                    raise SystemExit(128 + self.stop[0])
                child = subprocess.Popen(
                    [sys.executable, *argv],
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    text=True,
                    # Ctrl-C in a terminal reaches all processes of a session, and train.py does not
                    # save after a second signal. So only this process gets it, and passes it on.
                    start_new_session=True,
                )
                self.running.append(child)
            output, _ = child.communicate(given)
            with self.lock:
                self.running.remove(child)
            if child.returncode == 0:
                return output
            if self.stop:
                raise SystemExit(128 + self.stop[0])
            said.seek(start)
            lines = said.read().decode(errors="replace").strip().splitlines()
        message = lines[-1] if lines else "failed without a word"
        if child.returncode < 0:  # as when the memory is full
            message = f"ended by signal {-child.returncode} ({message})"
        raise BadInput(message)

    def run_all(self, tasks: Sequence[Callable[[], object]], jobs: int) -> None:
        """Call functions that use `call`, `jobs` of them at a time.

        After the first error or a signal nothing new begins. An error is raised when what has
        begun has ended. A signal ends it: train.py saves, and SystemExit is raised.
        """
        try:
            with stop_signals() as self.stop, ThreadPoolExecutor(jobs) as pool:
                left = {pool.submit(task) for task in tasks}
                try:
                    while left and not self.stop:
                        done, left = wait(left, timeout=0.1, return_when=FIRST_EXCEPTION)
                        for task in done:
                            task.result()
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)
                    if self.stop:
                        print("stopping; what runs saves first", file=sys.stderr)
                        self.each(subprocess.Popen.terminate)
        except KeyboardInterrupt:  # the second signal
            self.each(subprocess.Popen.kill)
            raise
        if self.stop:
            raise SystemExit(128 + self.stop[0])

    def each(self, act: Callable[[subprocess.Popen], None]) -> None:
        """Do something to every process that runs."""
        with self.lock:
            for child in self.running:
                act(child)


def mean_and_deviation(values: Sequence[float]) -> str:
    """The mean, and the standard deviation over seeds (N - 1 below the root) if there are several.

    >>> mean_and_deviation([50, 70]), mean_and_deviation([25])
    ('60.0 ± 14.1', '25.0')
    """
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation}"


# --------------------------------------------------------------------------------------------------
# The runs of a sweep.


@dataclass
class Run:
    """One combination."""

    name: str  # of its folder: the flags that vary, "method=lift,lr=0.001,seed=0"
    setting: str  # the same without the seed
    seed: int
    config: train.Config
    words: list[str]  # the command line of train.py, without a folder: "--method=lift", ...
    folder: Path
    scores: dict = field(default_factory=dict)  # on validation images, in per cent
    test: dict = field(default_factory=dict)  # the same on test images
    error: str = ""  # why it failed

    @property
    def log(self) -> Path:
        return self.folder / "train.log"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train every combination of some flags, and choose the best setting on "
        "validation images.",
        allow_abbrev=False,
        usage="python -m data.sweep --flag value,value ... --out FOLDER   (--help lists the flags)",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the runs and of the table")
    add("--jobs", type=int, default=1, help="runs at a time (default: 1); they share the cores")
    add("--test", action="store_true", help="score the best setting on the test images, too")
    theirs = parser.add_argument_group("flags of train.py, with commas between values")
    for f in fields(train.Config):
        if f.name in ("out", "resume"):
            continue
        kind = {"action": argparse.BooleanOptionalAction} if f.type is bool else {}
        theirs.add_argument(
            flag_of(f.name), default=argparse.SUPPRESS, help=f.metadata["help"], **kind
        )
    return parser


def values_of(name: str, given: str | bool) -> list[str | bool]:
    """The values of a flag. Commas in braces belong to a name of shards.

    --csv-separator may be a comma itself, and --report-to holds a list.

    >>> values_of("lr", "1e-3,3e-3"), values_of("data", "a.csv,x{a,b}.tar")
    (['1e-3', '3e-3'], ['a.csv', 'x{a,b}.tar'])
    """
    if isinstance(given, bool) or name in ("csv_separator", "report_to"):
        return [given]
    return re.split(r",(?![^{}]*})", given)


def word_of(name: str, value: object) -> str:
    """A flag with its value, as train.py takes it.

    >>> word_of("batch_size", 64), word_of("torchcompile", False)
    ('--batch-size=64', '--no-torchcompile')
    """
    flag = flag_of(name)
    if isinstance(value, bool):
        return flag if value else flag.replace("--", "--no-")
    return f"{flag}={value}"


def combinations(given: dict[str, str | bool], out: Path) -> list[Run]:
    """Every combination of the flags that are given, in the order of train.py's flags.

    BadInput names the first one that train.py would refuse. Flags that have no effect are named on
    stderr, each once.
    """
    values = {
        f.name: values_of(f.name, given[f.name]) for f in fields(train.Config) if f.name in given
    }
    varying = [name for name, several in values.items() if len(several) > 1]
    runs, notes = {}, io.StringIO()
    for combination in product(*values.values()):
        flags = dict(zip(values, combination, strict=True))
        try:
            with contextlib.redirect_stderr(notes):
                config = train.from_cli([word_of(*flag) for flag in flags.items()])
                check_validation(asdict(config), config.data)
        except BadInput as error:
            named = folder_name(flags, varying)
            raise BadInput(f"{named}: {error}" if named else str(error)) from None
        # As train.py understands them: 1e-3 and 0.001 are the same.
        flags = {name: getattr(config, name) for name in flags}
        name = folder_name(flags, varying)
        if name in runs:
            raise BadInput(f"two runs would be called {name}; give each value once")
        setting = folder_name(flags, [other for other in varying if other != "seed"]) or "as given"
        words = [word_of(*flag) for flag in flags.items()]
        runs[name] = Run(name or "run", setting, config.seed, config, words, out / (name or "run"))
    for note in dict.fromkeys(notes.getvalue().splitlines()):
        print(note, file=sys.stderr)
    return list(runs.values())


def folder_name(flags: dict[str, object], varying: Sequence[str]) -> str:
    """The flags that vary, as the name of a folder; empty where none does.

    >>> flags = {"lr": 0.001, "data": "few/a.csv", "steps": 9, "seed": 0}
    >>> folder_name(flags, ["lr", "data", "seed"])
    'lr=0.001,data=few-a.csv,seed=0'
    """
    parts = [f"{name.replace('_', '-')}={flags[name]}" for name in varying]
    return re.sub(r"[^\w.,=+-]", "-", ",".join(parts))


def keep_flags(one: Run) -> None:
    """Write down what a run is made with. BadInput where its folder holds another run.

    Flags that a resumed run may change are left out; see train.FREE_ON_RESUME.
    """
    free = {flag_of(name) for name in train.FREE_ON_RESUME}
    free.add("--no-torchcompile")
    flags = shlex.join(word for word in one.words if word.split("=")[0] not in free) + "\n"
    path = one.folder / "flags.txt"
    with interpreting(path):
        known = path.read_text() if path.exists() else ""
    if known != flags and (known or (one.folder / "checkpoint.pt").exists()):
        was = f"with {known.strip()}" if known else "by no sweep"
        raise BadInput(f"{one.folder} was made {was}; remove it, or choose another --out")
    one.folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(flags.encode())


def check_validation_images(one: Run) -> None:
    """BadInput where a user's files hold no validation images. Better now than after training."""
    if one.config.data not in shapes.WORLDS:
        held_out(asdict(one.config), one.config.data, split="val")


def make(one: Run, children: Children) -> None:
    """Train what is left of a run, and score it on validation images. An error stays with it."""
    checkpoint = one.folder / "checkpoint.pt"
    try:
        words = [*one.words, f"--out={one.folder}"]
        is_finished = False
        if checkpoint.exists():
            with interpreting(checkpoint):
                state = read_run(checkpoint)
                is_finished = state["step"] >= state["total"]
            # What it began with, it has learned from already.
            words = [word for word in one.words if not word.startswith("--init-from")]
            words += [f"--resume={one.folder}"]
        if not is_finished:
            check_validation_images(one)
            children.call(str(ROOT / "train.py"), *words, log=one.log)
        one.scores = evaluated(one, "val", children)
    except (BadInput, OSError) as error:
        one.error = str(error)


def evaluated(one: Run, split: str, children: Children) -> dict:
    """What eval.py says of a finished run: R@1 in per cent, its training time, the test's size.

    It is asked if it was not asked since the run was saved for the last time.
    """
    answer = one.folder / ("eval-split-val.json" if split == "val" else "eval.json")
    saved = (one.folder / "checkpoint.pt").stat().st_mtime_ns
    if not answer.exists() or answer.stat().st_mtime_ns < saved:
        words = [str(one.folder), "--split", split, "--device", one.config.device]
        children.call(str(ROOT / "eval.py"), *words, log=one.log)
    with interpreting(answer):
        scores = json.loads(answer.read_text())
        i2t, t2i = (100 * scores["retrieval"][way]["R@1"] for way in ("i2t", "t2i"))
        seconds = scores["cost"]["training_seconds"]
        counts = scores["counts"]
    of_both = (i2t + t2i) / 2
    return {"i2t": i2t, "t2i": t2i, "mean": of_both, "training_seconds": seconds, "counts": counts}


# --------------------------------------------------------------------------------------------------
# What comes out.


def settings_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """{setting: its runs, one per seed}"""
    settings = {}
    for one in runs:
        settings.setdefault(one.setting, []).append(one)
    return settings


def complete_settings(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The settings of which no run has failed."""
    return {
        setting: seeds
        for setting, seeds in settings_of(runs).items()
        if not any(one.error for one in seeds)
    }


def differing_questions(runs: Sequence[Run]) -> list[str]:
    """Flags that vary and decide which validation images or captions are asked about."""
    names = ["data", "val_data"]
    if any(one.config.data not in shapes.WORLDS for one in runs):
        names += [f.name for f in fields(Columns)]
    return [name for name in names if len({getattr(one.config, name) for one in runs}) > 1]


def changed_data(runs: Sequence[Run]) -> str:
    """A sentence if two runs were asked about different numbers of images or captions, else "".

    A run that has ended is not made again. So the files behind --data may have changed since.
    """
    scored = [one for one in runs if one.scores]
    # Only what R@1 asks: a built-in world's false captions follow from what a run was trained on.
    asked = [
        f"{one.scores['counts']['images']} images and {one.scores['counts']['captions']} captions"
        for one in scored
    ]
    for one, of_this in zip(scored[1:], asked[1:], strict=True):
        if of_this != asked[0]:
            return (
                f"No best setting: {scored[0].name} was asked about {asked[0]}, and {one.name} "
                f"about {of_this}. If the data changed in between, remove the folders of the older "
                "runs, and give the command again."
            )
    return ""


def best_of(runs: Sequence[Run]) -> str | None:
    """The setting with the best validation score, of those whose runs have all finished.

    None where there is none, and where the settings were not asked the same questions. Of two that
    are equal the first one.
    """
    if differing_questions(runs) or changed_data(runs):
        return None
    means = {
        setting: np.mean([one.scores["mean"] for one in seeds])
        for setting, seeds in complete_settings(runs).items()
    }
    return max(means, key=means.get, default=None)


def table(runs: Sequence[Run]) -> str:
    """One row per setting: mean and standard deviation over the seeds that finished."""
    best = best_of(runs)
    lines = [
        "| setting | seeds | i2t R@1 | t2i R@1 | mean of both | training, s | |",
        "|---|---|---|---|---|---|---|",
    ]
    for setting, seeds in settings_of(runs).items():
        finished = [one.scores for one in seeds if not one.error]
        cells = [
            mean_and_deviation([scores[key] for scores in finished]) if finished else ""
            for key in ("i2t", "t2i", "mean")
        ]
        time = f"{np.mean([s['training_seconds'] for s in finished]):.0f}" if finished else ""
        n_failed = len(seeds) - len(finished)
        mark = f"{n_failed} failed" if n_failed else ""
        if setting == best and len(settings_of(runs)) > 1:
            mark = "**best**"
        lines.append(f"| {setting} | {len(finished)} | {' | '.join(cells)} | {time} | {mark} |")
    return "\n".join(lines)


def why_failed(one: Run) -> str:
    """The error of a run, with its log where it has one."""
    return f"{one.error} ({one.log})" if Path(one.log).exists() else one.error


def summary(runs: Sequence[Run], command: str) -> str:
    """The text of sweep.md."""
    parts = [
        f"    {command}",
        "R@1 on validation images, in per cent: mean and standard deviation over the seeds.",
        table(runs),
    ]
    best = best_of(runs)
    differing = differing_questions(runs)
    if differing:
        flags = ", ".join(flag_of(name) for name in differing)
        parts.append(f"No best setting: they differ in {flags}, and so in their questions.")
    elif changed_data(runs):
        parts.append(changed_data(runs))
    elif best:
        n_settings = len(complete_settings(runs))
        if n_settings > 1:
            parts.append(
                f"Best of {n_settings} settings by the mean of both: {best}. The test "
                "images had no part in the choice. As the best of several, its score is a little "
                "too high."
            )
        tests = [one.test for one in settings_of(runs)[best] if one.test]
        if tests:
            i2t, t2i = (mean_and_deviation([t[key] for t in tests]) for key in ("i2t", "t2i"))
            parts.append(f"{best}, on the test images: i2t R@1 {i2t}, t2i R@1 {t2i}.")
    failed = [f"- {one.name} failed: {why_failed(one)}" for one in runs if one.error]
    if failed:
        parts.append("\n".join(failed))
    return "\n\n".join(parts) + "\n"


def write(runs: Sequence[Run], command: str, out: Path) -> None:
    """Print the table, and write sweep.md and sweep.jsonl."""
    text = summary(runs, command)
    lines = []
    for one in runs:
        line = {"run": one.name, "setting": one.setting, "seed": one.seed}
        line |= {"flags": shlex.join(one.words), "failed": one.error}
        line |= {"val": one.scores} if one.scores else {}
        line |= {"test": one.test} if one.test else {}
        lines.append(json.dumps(line) + "\n")
    for name, content in (("sweep.md", text), ("sweep.jsonl", "".join(lines))):
        with replacing(out / name) as file:
            file.write(content.encode())
    print(f"\n{text}\nwrote {out / 'sweep.md'} and {out / 'sweep.jsonl'}")


def main() -> int:
    given = vars(parse_flags(build_parser()))
    out, jobs, asks_test = (given.pop(name) for name in ("out", "jobs", "test"))
    if jobs < 1:
        raise BadInput(f"--jobs {jobs} is out of range; at least one run is made at a time")
    command = f"python -m data.sweep {shlex.join(sys.argv[1:])}"
    runs = combinations(given, out)
    if asks_test and differing_questions(runs):
        raise BadInput("--test needs one best setting; these differ in their validation images")

    # A second sweep of this folder waits until the first has ended.
    with locked(out):
        for one in runs:
            keep_flags(one)
        print(f"{len(runs)} runs, {jobs} at a time, in {out}", file=sys.stderr)
        children = Children(max(1, torch.get_num_threads() // jobs) if jobs > 1 else None)
        ended = []

        def make_and_tell(one: Run) -> None:
            make(one, children)
            ended.append(one)
            says = f"failed: {why_failed(one)}"
            if not one.error:
                says = (
                    f"validation R@1 {one.scores['i2t']:.1f} % i2t, {one.scores['t2i']:.1f} % t2i, "
                    f"{one.scores['training_seconds']:.0f} s of training"
                )
            print(f"{len(ended)}/{len(runs)} {one.name}: {says}", file=sys.stderr)

        def test(one: Run) -> None:
            one.test = evaluated(one, "test", children)

        try:
            children.run_all([partial(make_and_tell, one) for one in runs], jobs)
            try:
                best = best_of(runs)
                if asks_test and best:
                    tested = settings_of(runs)[best]
                    children.run_all([partial(test, one) for one in tested], jobs)
            finally:  # also where eval.py fails on the test images
                write(runs, command, out)
        except SystemExit:
            print(
                f"stopped; {len(ended)} of {len(runs)} runs are done, and those that had begun go "
                f"on from their last checkpoint; go on with: {command}",
                file=sys.stderr,
            )
            raise
    if asks_test and not best:
        print("--test: there is no best setting, so no test images were asked", file=sys.stderr)
        return 1
    return 1 if any(one.error for one in runs) else 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
