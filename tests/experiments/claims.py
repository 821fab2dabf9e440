"""The papers' claims at the size that two CPU cores allow.

    python -m tests.experiments.claims                    # all runs, three seeds, two at a time:
                                                          # hours on 2 cores
    python -m tests.experiments.claims --only few/ape     # runs whose name begins so
    python -m tests.experiments.claims --table            # no run: the table of what is in the file
    python -m tests.experiments.claims --check --seeds 0  # known runs again: same scores today?

Every run is one line of docs/results/claims.jsonl. A run is a command line of train.py and one of
eval.py, as a user would type them, after those of what it starts from. A run that is in the file
already is not made again. A change of its flags makes it another run. A change of the code does not
make it another run. So --check makes known runs once more, and compares their scores.
"""

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from data.common import BadInput, exit_status
from data.sweep import Children, mean_and_deviation

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results/claims.jsonl"

# --------------------------------------------------------------------------------------------------
# The runs, by name: flags of train.py. What stands in {braces} is made first, once per seed. Where
# a flag stands twice, the last one counts. The flags are how claims.jsonl knows a run, so they are
# never reworded.

# Nine in ten captions are long ones, of 60 to 150 words. Every test is on short ones.
LONG = "--csv-caption-key mixed --long-share 0.9 --context-length 160"
FROM = "--image-weights {supervised}"
FEW = "--train-num-samples 512 --batch-size 128 --epochs 1000 --steps 150"
MANY = "--steps 150"
SHORT = "--context-length 32"
# Which block of the language model APE reads was chosen on validation images (ape_blocks.md).
APE = SHORT + " --layer 10"
LAST = SHORT + " --layer 30"
LILT = "--method lilt --layer 3 --context-length 32 --batch-size 64 --steps 150 --lr 1e-3 " + FROM
LILT_FEW = "--train-num-samples 512 --epochs 1000"
LLM2CLIP = "--method llm2clip --steps 150 --lr 3e-3 " + FROM
ADAPTER = "--llm-adapter {adapter}"

RUNS = {
    # the towers that others start from
    "supervised": "--method supervised --epochs 8",
    # LIFT and CLIP on long captions; their runs on short ones are the demo's
    "long/lift": f"--method lift {LONG}",
    "long/clip": f"--method clip {LONG}",
    # APE against LiT and CLIP, with few images and with many
    "few/ape": f"--method ape {FEW} {APE} {FROM}",
    "few/lit": f"--method lit {FEW} {SHORT} {FROM}",
    "few/ape_lookup": f"--method ape_lookup {FEW} {SHORT} {FROM}",
    "few/clip": f"--method clip {FEW} {SHORT}",
    "many/ape": f"--method ape {MANY} {APE} {FROM}",
    "many/lit": f"--method lit {MANY} {SHORT} {FROM}",
    "many/ape_lookup": f"--method ape_lookup {MANY} {SHORT} {FROM}",
    "many/clip": f"--method clip {MANY} {SHORT}",
    # LilT: what is trained, with many images and with few. Each has a rate of its own, chosen on
    # validation images (lilt_rates.md). Where no name of a rate stands, it is 1e-3.
    "many/lilt adapters+layernorm": f"{LILT} --unlock adapters+layernorm",
    "many/lilt all": f"{LILT} --unlock all",
    "few/lilt adapters+layernorm": f"{LILT} --unlock adapters+layernorm {LILT_FEW}",
    "many/lilt layernorm 3e-3": f"{LILT} --unlock layernorm --lr 3e-3",
    "many/lilt bitfit 3e-3": f"{LILT} --unlock bitfit --lr 3e-3",
    "many/lilt heads 3e-3": f"{LILT} --unlock heads --lr 3e-3",
    "few/lilt layernorm 3e-3": f"{LILT} --unlock layernorm {LILT_FEW} --lr 3e-3",
    "few/lilt all 3e-4": f"{LILT} --unlock all {LILT_FEW} --lr 3e-4",
    # LLM2CLIP: the text tower is CLIP's own, the raw and the caption-tuned language model
    "llm2clip/own text": f"--method clip_pretrained --steps 150 --lr 3e-3 {FROM}",
    "llm2clip/raw": LLM2CLIP,
    "llm2clip/tuned": f"{LLM2CLIP} {ADAPTER}",
    # LIFT: other text encoders
    "short/lift last token": "--method lift --pool last --layer 10",
    "short/lift sentence encoder": "--method lift --text-features {sentences}",
    # APE: its controls, and which augmentation matters
    "few/ape_transformer": f"--method ape_transformer {FEW} {APE} {FROM}",
    "few/ape one crop": f"--method ape {FEW} {APE} {FROM} --crop-scale 0.6 --image-views 1",
    "few/ape eight crops": f"--method ape {FEW} {APE} {FROM} --crop-scale 0.6 --image-views 8",
    "few/ape paraphrases": f"--method ape {FEW} {APE} {FROM} --csv-caption-key paraphrase",
    "many/ape_transformer": f"--method ape_transformer {MANY} {APE} {FROM}",
}

# APE on the last block of the language model. Then: does APE need tokens, and a network?
# `sharelock` averages the tokens before the network, and `ridge` trains no network. Both
# read the same block as `ape`, and by default at most 256 directions, a quarter of the captions if
# that is less, each divided by a power of its spread. APE's head reads all 576 numbers of a token.
# "whole" leaves the mean of the tokens as it is, but for its centre.
for size, flags in (("few", FEW), ("many", MANY)):
    for method in ("ape", "ape_transformer"):
        RUNS[f"{size}/{method} last block"] = f"--method {method} {flags} {LAST} {FROM}"
    for method in ("sharelock", "ridge"):
        RUNS[f"{size}/{method}"] = f"--method {method} {flags} {SHORT} {FROM}"
        RUNS[f"{size}/{method} whole"] = f"--method {method} {flags} {SHORT} --whiten 0 {FROM}"

# Runs that docs/claims.md compares, whose image towers start from the same one where the seed is
# the same. So the difference within a seed says more than the two means: see `differences`.
COMPARED = (
    ("llm2clip/raw", "llm2clip/own text"),
    ("llm2clip/tuned", "llm2clip/own text"),
    ("many/lilt adapters+layernorm", "many/lilt all"),
    ("many/lilt layernorm 3e-3", "many/lilt all"),
    ("many/lilt bitfit 3e-3", "many/lilt all"),
    ("many/lilt heads 3e-3", "many/lilt all"),
    ("many/lilt layernorm 3e-3", "many/lilt heads 3e-3"),
    ("many/lilt bitfit 3e-3", "many/lilt heads 3e-3"),
    ("few/lilt adapters+layernorm", "few/lilt all 3e-4"),
    ("few/lilt layernorm 3e-3", "few/lilt all 3e-4"),
    ("few/ape", "few/lit"),
    ("many/ape", "many/lit"),
    ("few/ape", "few/ape_lookup"),
    ("many/ape", "many/ape_lookup"),
    ("few/ape", "few/ape_transformer"),
    ("many/ape", "many/ape_transformer"),
    ("few/ape one crop", "few/ape"),
    ("few/ape eight crops", "few/ape"),
    ("few/ape eight crops", "few/ape one crop"),
    ("few/ape paraphrases", "few/ape"),
    ("few/ape", "few/ape last block"),
    ("many/ape", "many/ape last block"),
    ("few/ape", "few/sharelock whole"),
    ("many/ape", "many/sharelock whole"),
    ("few/sharelock", "few/ridge"),
    ("many/sharelock", "many/ridge"),
)

TUNE = "--tune shapes --layer 10 --steps 150"  # flags of llm_text.py, for an adapter

# What the sentence encoder reads: the built-in world's texts, listed by a module. The first line is
# the name of this recipe in claims.jsonl, from when the module was called data.readers. It stays,
# because runs with another name would count as others than the known ones. The second line is the
# command today, which lists the same texts.
SENTENCES = "data.readers shapes --texts"
LIST_TEXTS = ("-m", "data.images.read", "shapes", "--texts")

# What other runs start from, and the ending of its file; a run's folder has none.
STARTS = {"supervised": "", "adapter": ".safetensors", "sentences": ".npy"}


def recipe(name: str) -> str:
    """A run's flags, with those of what it starts from. Two runs of one recipe are the same run.

    >>> recipe("few/lit")
    '--method lit ... --image-weights {--method supervised --epochs 8}'
    """
    flags = {**RUNS, "adapter": TUNE, "sentences": SENTENCES}[name]
    return re.sub(r"{(\w+)}", lambda match: "{" + recipe(match[1]) + "}", flags)


# --------------------------------------------------------------------------------------------------
# Making the runs.


def read_lines(path: Path) -> list[dict]:
    """The runs of a .jsonl file; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def all_scores(line: dict, place: str = "") -> dict[str, float]:
    """Each score of a run by its place, as "retrieval i2t R@1". Times and counts are no scores.

    >>> all_scores({"zeroshot": {"top1": 0.5}, "cost": {"images": 3}, "seed": 0})
    {'zeroshot top1': 0.5}
    """
    scores = {}
    for key, value in line.items():
        if isinstance(value, dict):
            if key not in ("cost", "final", "counts"):
                scores |= all_scores(value, f"{place} {key}".strip())
        elif isinstance(value, float) and not key.startswith("second"):
            scores[f"{place} {key}".strip()] = value
    return scores


def compare(before: dict, now: dict) -> tuple[bool, str]:
    """Are all scores of a run's line the same today? And the answer in words.

    A score that is gone differs. Scores that only today's run has do not count.
    """
    before, now = all_scores(before), all_scores(now)
    other = [place for place in before if before[place] != now.get(place)]
    if not before:
        return False, "no score to compare"
    if not other:
        return True, f"{len(before)} scores equal"
    pairs = [f"{x} {100 * before[x]:.2f} -> {100 * now.get(x, math.nan):.2f}" for x in other]
    return False, f"{len(other)} of {len(before)} scores differ: {', '.join(pairs)}"


def commit() -> str:
    """The commit of the code, with -dirty behind it where a .py file differs from it."""
    describe = ["git", "describe", "--always"]
    name = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    differs = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "*.py"], cwd=ROOT).returncode
    return f"{name}-dirty" if differs else name


class Runner:
    """Makes runs that are not in the file `out`, and keeps what others start from in `work`.

    Several threads may ask at once. Each run is made by the first that asks; the others wait.
    """

    def __init__(self, out: Path, work: Path, check: bool = False):
        self.out = out
        self.work = work
        self.lines = read_lines(out)
        self.check = check  # make known runs again, and compare
        self.same = True  # no score of a run that was made again differs
        self.lock = Lock()  # of the lines and of the next
        self.locks: dict[tuple[str, int], Lock] = {}  # one per run
        self.children = Children(threads=1, folder=ROOT)

    def command(self, *argv: str, given: str | None = None) -> str:
        """Run Python with these arguments on one thread -> its output. BadInput if it fails."""
        try:
            return self.children.call(*argv, given=given)
        except BadInput as error:
            raise BadInput(f"{' '.join(argv)}: {error}") from error

    def known(self, name: str, seed: int, flags: str) -> dict | None:
        """The line of a run, or None."""
        for line in self.lines:
            if (line["name"], line["seed"], line["flags"]) == (name, seed, flags):
                return line
        return None

    def keep(self, line: dict) -> None:
        """Append a run to the file. One that is known is compared with its line instead.

        A check appends nothing.
        """
        with self.lock:
            known = self.known(line["name"], line["seed"], line["flags"])
            if known:
                is_same, verdict = compare(known, line)
                self.same = self.same and is_same
                print(f"{line['name']} seed {line['seed']}: {verdict}", flush=True)
                return
            if self.check:
                print(f"{line['name']} seed {line['seed']}: not in {self.out.name}", flush=True)
                return
            self.lines.append(line)
            with open(self.out, "a") as file:
                file.write(json.dumps(line) + "\n")
        print(f"{time.strftime('%H:%M:%S')} {line['name']} seed {line['seed']}", flush=True)

    def ensure(self, name: str, seed: int) -> Path:
        """The folder or file that a run left. It is made if it is not there."""
        if name == "sentences":
            seed = 0  # nothing is drawn at random
        with self.lock:
            lock = self.locks.setdefault((name, seed), Lock())
        with lock:
            place = name.replace("/", "-").replace(" ", "-")
            path = self.work / f"{place}-{seed}{STARTS.get(name, '')}"
            is_there = path.exists() or (name not in STARTS and not self.check)
            if name == "sentences":
                if not path.exists():
                    self.make_sentences(path)
            elif not is_there or not (self.check or self.known(name, seed, recipe(name))):
                self.make(name, seed, path)
        return path

    def make_sentences(self, path: Path) -> None:
        """Vectors of the sentence encoder. They are no run, so nothing is kept of them."""
        texts = self.command(*LIST_TEXTS)
        self.command("-m", "tests.experiments.sentences", str(path), given=texts)

    def make(self, name: str, seed: int, path: Path) -> None:
        """Make a run or an adapter, and keep its scores.

        It gets its name when it is whole: what is interrupted must not pass for done.
        """
        part = path.with_name(f"part-{path.name}")
        for left_over in (part, path):
            shutil.rmtree(left_over, ignore_errors=True)
            left_over.unlink(missing_ok=True)  # an adapter is a file
        # The commit is that of the code that runs now, not of the code when the run ends.
        line = {"name": name, "seed": seed, "flags": recipe(name)}
        code = commit()
        if name == "adapter":
            scores = self.tune_adapter(part, seed)
        else:
            scores = self.train_and_score(name, part, seed)
        part.rename(path)
        self.keep({**line, **scores, "commit": code})
        if name not in STARTS:
            (path / "checkpoint.pt").unlink()

    def tune_adapter(self, part: Path, seed: int) -> dict:
        """Tune an adapter -> its caption retrieval accuracy before and after."""
        begun = time.time()
        flags = [*TUNE.split(), "--seed", str(seed), "--out", str(part)]
        output = self.command("llm_text.py", *flags)
        before = re.search(r"before: +([\d.]+)% of (\d+)", output)
        after = re.search(r"after: +([\d.]+)% of (\d+)", output)
        return {
            "pool": int(after[2]),
            "cra_before": float(before[1]) / 100,
            "cra_after": float(after[1]) / 100,
            "seconds": time.time() - begun,
        }

    def train_and_score(self, name: str, part: Path, seed: int) -> dict:
        """Train a run after what it starts from -> what eval.json and log.jsonl say of it."""
        flags = []
        for word in RUNS[name].split():
            starts_from_another = word[0] == "{"
            flags.append(str(self.ensure(word[1:-1], seed)) if starts_from_another else word)
        flags += ["--seed", str(seed), "--out", str(part), "--device", "cpu"]
        self.command("train.py", *flags)
        self.command("eval.py", str(part), "--device", "cpu")

        scores = json.loads((part / "eval.json").read_text())
        for key in ("run", "ci95", "chance"):
            del scores[key]
        log = read_lines(part / "log.jsonl")
        return {
            **scores,
            "trained": log[0]["trained"],
            "parameters": log[0]["parameters"],
            # A run without steps has the first entry only, which holds flags and no scores.
            "final": log[-1] if "loss" in log[-1] else {},
        }


# --------------------------------------------------------------------------------------------------
# The table.

# column: where its score stands in a run's line
COLUMNS = {
    "i2t R@1": ("retrieval", "i2t", "R@1"),  # image to text
    "t2i R@1": ("retrieval", "t2i", "R@1"),  # text to image
    "mean of 7": ("compositional", "mean"),
    "replace_obj": ("compositional", "replace_obj"),
    "replace_rel": ("compositional", "replace_rel"),
    "swap_obj": ("compositional", "swap_obj"),
    "swap_att": ("compositional", "swap_att"),
    "zero-shot": ("zeroshot", "top1"),
}


def scores_at(lines: list[dict], path: Iterable[str]) -> list[float]:
    """The scores of runs at one place, in per cent, of those that have it."""
    scores = []
    for line in lines:
        value = line
        for key in path:
            value = value.get(key, {})
        if value != {}:
            scores.append(100 * value)
    return scores


def runs_of(name: str, lines: list[dict]) -> list[dict]:
    """The lines of a run, in the order of its seeds."""
    runs = [line for line in lines if (line["name"], line["flags"]) == (name, recipe(name))]
    return sorted(runs, key=lambda line: line["seed"])


def differences(lines: list[dict]) -> None:
    """Print how much higher the scores of one run are than those of another, within each seed.

    In each cell: mean and standard deviation of the differences.
    """
    print(f"| difference | seeds | {' | '.join(COLUMNS)} |")
    print("|---|---|" + "---|" * len(COLUMNS))
    for higher, lower in COMPARED:
        ours, theirs = runs_of(higher, lines), runs_of(lower, lines)
        if not ours or [line["seed"] for line in ours] != [line["seed"] for line in theirs]:
            continue
        cells = []
        for path in COLUMNS.values():
            pairs = zip(scores_at(ours, path), scores_at(theirs, path), strict=True)
            cells.append(mean_and_deviation([a - b for a, b in pairs]))
        print(f"| {higher} - {lower} | {len(ours)} | {' | '.join(cells)} |")


def table(lines: list[dict]) -> None:
    """Print mean and standard deviation over seeds, one row per run."""
    print(f"| run | seeds | trained | {' | '.join(COLUMNS)} |")
    print("|---|---|---|" + "---|" * len(COLUMNS))
    for name in RUNS:
        runs = runs_of(name, lines)
        if not runs:
            continue
        cells = []
        for path in COLUMNS.values():
            scores = scores_at(runs, path)
            cells.append(mean_and_deviation(scores) if scores else "")
        trained = f"{runs[0]['trained'] / runs[0]['parameters']:.2%}"
        print(f"| {name} | {len(runs)} | {trained} | {' | '.join(cells)} |")

    adapters = [line for line in lines if (line["name"], line["flags"]) == ("adapter", TUNE)]
    if adapters:
        before = scores_at(adapters, ["cra_before"])
        after = scores_at(adapters, ["cra_after"])
        print(
            f"\nCaption retrieval accuracy, %, pool of {adapters[0]['pool']}, seeds: "
            f"{len(adapters)}: {np.mean(before):.1f} raw, {mean_and_deviation(after)} after "
            f"`llm_text.py {TUNE}`"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", default=[""], help="names of runs begin with one of these")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--jobs", type=int, default=2, help="runs at a time, one thread each")
    add("--out", type=Path, default=RESULTS)
    add(
        "--work",
        type=Path,
        default=ROOT / "runs/claims",
        help="where runs are kept that others start from",
    )
    add("--check", action="store_true", help="make known runs again; say which scores differ")
    add("--table", action="store_true", help="print the table of what is in the file, run nothing")
    args = parser.parse_args()
    if args.check:  # in a folder of its own, so that everything is made again
        args.work = args.work / "check"
        shutil.rmtree(args.work, ignore_errors=True)
    runner = Runner(args.out, args.work, args.check)
    if not args.table:
        args.work.mkdir(parents=True, exist_ok=True)
        names = [name for name in (*RUNS, "adapter") if name.startswith(tuple(args.only))]
        jobs = [
            partial(runner.ensure, name, seed)
            for name in names
            for seed in args.seeds
            if not args.check or runner.known(name, seed, recipe(name))
        ]
        runner.children.run_all(jobs, args.jobs)
        if args.check and not jobs:
            raise BadInput("no run of these names and seeds is known; nothing was checked")
        if args.check and not runner.same:
            raise BadInput("some scores differ from those in the file")
    table(runner.lines)
    print()
    differences(runner.lines)


if __name__ == "__main__":
    sys.exit(exit_status(main))
