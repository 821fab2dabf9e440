"""Real images: LIFT against CLIP on captioned emoji, with concepts and a drawing style held out.

    python -m tests.experiments.emoji64 SHARDS            # three seeds each
    python -m tests.experiments.emoji64 SHARDS --table    # no run: the table of these shards' runs
                                                          # in docs/results/emoji64.jsonl

SHARDS is a folder with train.tar, val.tar and test.tar, as python -m data.world.emoji makes them.

Both methods train on train.tar without the held-out style. An image has two captions: its name, and
its name with keywords. They are scored by names alone, and each test set has its own gallery:
unseen concepts in seen styles (all, and the style noto alone), seen concepts in the unseen style,
and both unseen. Both methods have the same images, captions, samples, image tower and crops.
`clip 3e-3` has another learning rate.
"""

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data.common import BadInput, exit_status
from data.sweep import mean_and_deviation
from tests.experiments.claims import ROOT, commit, read_lines

HELD_OUT = "openmoji"  # the style that is not trained on

COMMON = (
    "--image-size 64 --model micro/8 --crop-scale 0.6 --epochs 60 --batch-size 128 --lr 1e-3 "
    "--context-length 64"
)
# Text space, loss, tower and length are LIFT's best by val.tar, one seed (docs/results/LOG.md).
# CLIP has the same where it can. Its second run asks whether a higher learning rate, the last --lr,
# is better for it. The runs in the log had full whitening, the default of their time: today
# `--flags "--whiten-power 1"` gives it. The flags here are those by which the log knows its runs.
RUNS = {
    "lift_cos": f"--method lift_cos --pool prompt --whiten 128 {COMMON}",
    "clip": f"--method clip {COMMON}",
    "clip 3e-3": f"--method clip {COMMON} --lr 3e-3",
}


class TestSet(NamedTuple):
    """A shard, and which of its images: those whose names have only words seen in training?"""

    shard: str
    words_are_seen: bool | None  # None: either


SETS = {
    "unseen concepts, seen styles": TestSet("concepts", None),
    "of these, noto": TestSet("noto", None),
    "of these, every word seen": TestSet("concepts", True),
    "of these, some word never seen": TestSet("concepts", False),
    "seen concepts, unseen style": TestSet("style", None),
    "both unseen": TestSet("both", None),
    "validation, as the first": TestSet("val", None),
}

# --------------------------------------------------------------------------------------------------
# Shards by what is seen in training.


def prepare(source: Path, out: Path) -> None:
    """Sort the samples of three shards into six: train, val, concepts, noto, style and both.

    The folder gets its name when all of it is written.
    """
    part = out.with_suffix(".part")
    part.mkdir(parents=True, exist_ok=True)

    def is_seen(style):
        return style != HELD_OUT

    def is_unseen(style):
        return style == HELD_OUT

    def is_noto(style):
        return style == "noto"

    name = ("caption",)
    copy(source, "train", part / "train.tar", is_seen, ("caption", "long_caption"))
    copy(source, "val", part / "val.tar", is_seen, name)
    copy(source, "test", part / "concepts.tar", is_seen, name)
    copy(source, "test", part / "noto.tar", is_noto, name)
    copy(source, "train", part / "style.tar", is_unseen, name)
    copy(source, "test", part / "both.tar", is_unseen, name)
    part.rename(out)


def copy(
    source: Path,
    origin: str,
    target: Path,
    is_wanted: Callable[[str], bool],
    captions: Iterable[str],
) -> None:
    """Copy the samples of wanted styles from one shard to another, with one caption per line.

    data.world.emoji keeps the held-out style in shards of its own, style.tar and both.tar. Where
    the source has a shard of the target's name, that one is read.
    """
    if (source / target.name).is_file():
        origin = target.stem
    with tarfile.open(source / f"{origin}.tar") as shard, tarfile.open(target, "w") as written:
        files = {member.name: shard.extractfile(member).read() for member in shard}
        for file in sorted(files):
            key, _, suffix = file.partition(".")
            if suffix != "json":
                continue
            about = json.loads(files[file])
            if not is_wanted(about["style"]):
                continue
            text = "\n".join(about[caption] for caption in captions)
            for end, content in (("png", files[f"{key}.png"]), ("txt", text.encode())):
                member = tarfile.TarInfo(f"{key}.{end}")
                member.size = len(content)
                written.addfile(member, io.BytesIO(content))


# --------------------------------------------------------------------------------------------------
# Training and scoring.


def words_of(captions: Iterable[str]) -> set[str]:
    return set(re.findall(r"\w+", " ".join(captions).lower()))


def score(folder: Path, data: Path, is_trial: bool = False) -> dict:
    """Score a run on all test sets -> {set: {"i2t": [R@1, R@10, median rank], "t2i": ..., sizes}}.

    i2t is image to text, t2i text to image. A name counts once in a gallery, however many styles
    draw it. A trial is scored on the validation set only: a choice must not see the tests.
    """
    from data.benchmarks import held_out
    from data.images.read import read_images
    from eval import Run, rank_of_best

    seen_words = set()
    for captions in read_images(
        str(data / "train.tar"), "train", 64, whole=True, train_on_val=True
    ).captions:
        seen_words |= words_of(captions)

    trained = Run(folder)
    embedded = {}  # shard: (task, image features, text features)
    scores = {}
    for set_name, (shard, words_are_seen) in SETS.items():
        if is_trial and shard != "val":
            continue
        if shard not in embedded:
            task = held_out(trained.config, str(data / f"{shard}.tar"))
            image = trained.encode_images(task.images)
            text = trained.encode_texts(task.captions)
            embedded[shard] = (task, image, text)
        task, image, text = embedded[shard]

        # The images of this set, and the gallery: their names, each once.
        rows = []
        for i, captions in enumerate(task.images.captions):
            if words_are_seen is None or words_are_seen == (words_of(captions) <= seen_words):
                rows.append(i)
        names = list(dict.fromkeys(name for i in rows for name in task.images.captions[i]))
        first = [task.captions.index(name) for name in names]

        # Copies of one image have several names, all of which are right.
        similarity = image[rows] @ text[first].T  # (images, names)
        is_right = torch.tensor([[name in task.images.captions[i] for name in names] for i in rows])
        scores[set_name] = {
            "pictures": len(rows),  # the key of runs that are known already
            "names": len(names),
            "i2t": summary(rank_of_best(similarity, is_right)),
            "t2i": summary(rank_of_best(similarity.T, is_right.T)),
        }
    return scores


def summary(ranks: torch.Tensor) -> list[float]:
    """Ranks from 0 -> [R@1, R@10, median rank from 1]."""
    ranks = ranks.numpy()
    return [float((ranks < 1).mean()), float((ranks < 10).mean()), float(np.median(ranks) + 1)]


def train(folder: Path, data: Path, flags: str, seed: int) -> None:
    """Train one run on one thread, in place of what an interrupted run may have left."""
    shutil.rmtree(folder, ignore_errors=True)
    # The list of runs is older than validation images that are held out of train.tar.
    command = [sys.executable, "train.py", "--val-frequency", "0"]
    command += ["--data", str(data / "train.tar"), "--val-data", str(data / "val.tar")]
    command += [*flags.split(), "--seed", str(seed), "--device", "cpu", "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


# --------------------------------------------------------------------------------------------------
# The table.


def table(lines: list[dict]) -> None:
    """Print mean and standard deviation over seeds, one row per test set and run."""
    print(
        "| test set: pictures, names | run | seeds | i2t R@1 | R@10 | median rank "
        "| t2i R@1 | R@10 | median rank |"
    )
    print("|" + "---|" * 9)
    for set_name in SETS:
        for run_name, flags in RUNS.items():
            scores = [
                line["scores"][set_name]
                for line in lines
                if (line["name"], line["flags"]) == (run_name, flags)
            ]
            if not scores:
                continue
            # Recall in per cent, ranks as they are.
            values = np.array([[*s["i2t"], *s["t2i"]] for s in scores]) * ([100, 100, 1] * 2)
            cells = [mean_and_deviation(column) for column in values.T]
            sizes = f"{scores[0]['pictures']}, {scores[0]['names']}"
            print(f"| {set_name}: {sizes} | {run_name} | {len(scores)} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("shards", type=Path)
    add("--work", type=Path, default=ROOT / "runs/emoji64")
    add("--out", type=Path, default=ROOT / "docs/results/emoji64.jsonl")
    add("--only", nargs="+", default=list(RUNS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--flags", default="", help="more flags of train.py, for a trial")
    add("--table", action="store_true")
    args = parser.parse_args()
    if not (args.shards / "train.tar").is_file():
        raise BadInput(
            f"{args.shards}: no train.tar in it; name the folder that python -m data.world.emoji "
            "made"
        )

    # Runs on other shards are not these runs.
    tars = sorted(args.shards.glob("*.tar"))
    content = b"".join(file.read_bytes() for file in tars)
    shards = hashlib.blake2b(content, digest_size=6).hexdigest()
    lines = [line for line in read_lines(args.out) if line["shards"] == shards]
    if args.table:
        table(lines)
        return

    data = args.work / f"data-{shards}"
    if not data.exists():
        prepare(args.shards, data)
    for seed in args.seeds:
        for name in args.only:
            flags = f"{RUNS[name]} {args.flags}".strip()
            if any((x["name"], x["seed"], x["flags"]) == (name, seed, flags) for x in lines):
                continue
            folder = args.work / f"{name}{re.sub(r'[ /]', '', args.flags)}-{seed}"
            code = commit()  # of the code that runs now, not when it ends
            train(folder, data, flags, seed)
            line = {
                "name": name,
                "seed": seed,
                "flags": flags,
                "commit": code,
                "shards": shards,
                "scores": score(folder, data, is_trial=bool(args.flags)),
                "final": read_lines(folder / "log.jsonl")[-1],
            }
            lines.append(line)
            with open(args.out, "a") as file:
                file.write(json.dumps(line) + "\n")
            print(name, seed, line["scores"])
    table(lines)


if __name__ == "__main__":
    sys.exit(exit_status(main))
