"""Real pictures: LIFT against CLIP on captioned emoji, concepts and a drawing style held out.

    python -m tests.emoji64 SHARDS                    # three seeds each; SHARDS: train.tar, val.tar, test.tar (as data.emoji makes them)
    python -m tests.emoji64 SHARDS --table            # nothing run: the table of these shards' runs in docs/results/emoji64.jsonl

Trained on train.tar without the held-out style; a picture's captions are its name, and its name with keywords. Scored by
names alone, each set with its own gallery: unseen concepts in seen styles (all, and noto alone), seen concepts in the unseen
style, both unseen. Both methods have the same pictures, captions, samples, image tower and crops; `clip 3e-3` has a rate of its own.
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
from pathlib import Path

import numpy as np

from data import benchmarks
from data.common import BadInput, run
from data.images import read as readers
from tests.experiments import claims

ROOT, STYLE = Path(__file__).parent.parent, "openmoji"
COMMON = "--image-size 64 --model micro/8 --crop-scale 0.6 --epochs 60 --batch-size 128 --lr 1e-3 --context-length 64"
RUNS = {  # text space, loss, tower and length are LIFT's best by val.tar, one seed (docs/results/LOG.md); CLIP has the same where it can
    "lift_cos": f"--method lift_cos --pool prompt --whiten 128 {COMMON}",
    "clip": f"--method clip {COMMON}",
    "clip 3e-3": f"--method clip {COMMON} --lr 3e-3",  # (the last --lr counts) is a higher rate better for CLIP?
}
SETS = {  # shard, whether training captions have every word of their names (None: either)
    "unseen concepts, seen styles": ("concepts", None),
    "of these, noto": ("noto", None),
    "of these, every word seen": ("concepts", True),
    "of these, some word never seen": ("concepts", False),
    "seen concepts, unseen style": ("style", None),
    "both unseen": ("both", None),
    "validation, as the first": ("val", None),
}


def prepare(source, out):
    """Shards by what is seen: train, val, concepts (and of these noto), style, both."""
    part = out.with_suffix(".part")
    part.mkdir(parents=True, exist_ok=True)
    seen, unseen = (lambda style: style != STYLE), (lambda style: style == STYLE)
    for target, origin, drawn, captions in (
        ("train", "train", seen, ("caption", "long_caption")),
        ("val", "val", seen, ("caption",)),
        ("concepts", "test", seen, ("caption",)),
        ("noto", "test", lambda style: style == "noto", ("caption",)),
        ("style", "train", unseen, ("caption",)),
        ("both", "test", unseen, ("caption",)),
    ):
        if (
            source / f"{target}.tar"
        ).is_file():  # data.emoji keeps the held-out style in shards of its own
            origin = target
        with (
            tarfile.open(source / f"{origin}.tar") as shard,
            tarfile.open(part / f"{target}.tar", "w") as written,
        ):
            files = {member.name: shard.extractfile(member).read() for member in shard}
            for name in sorted(files):
                key, _, suffix = name.partition(".")
                if suffix == "json" and drawn(json.loads(files[name])["style"]):
                    value = json.loads(files[name])
                    for end, content in (
                        ("png", files[f"{key}.png"]),
                        ("txt", "\n".join(value[c] for c in captions).encode()),
                    ):
                        member = tarfile.TarInfo(f"{key}.{end}")
                        member.size = len(content)
                        written.addfile(member, io.BytesIO(content))
    part.rename(out)


def score(folder, data, trial=False):
    """{set: {way: [R@1, R@10, median rank], gallery sizes}} of a run. A name counts once, however many styles draw it."""
    import torch

    import eval as ev

    def words(captions):
        return set(re.findall(r"\w+", " ".join(captions).lower()))

    found, runs = {}, {}
    seen = words(
        text
        for captions in readers.read_images(
            str(data / "train.tar"), "train", 64, whole=True
        ).captions
        for text in captions
    )
    for name, (shard, known) in SETS.items():
        if trial and shard != "val":  # what is chosen must not see the tests
            continue
        if shard not in runs:
            r = runs[shard] = ev.Run(folder)
            r.embed(benchmarks.captions(r.cfg, str(data / f"{shard}.tar")))
        r, task = runs[shard], runs[shard].task
        rows = [
            i for i, own in enumerate(task.images.captions) if known in (None, words(own) <= seen)
        ]
        names = list(dict.fromkeys(text for i in rows for text in task.images.captions[i]))
        first = [task.texts.index(text) for text in names]
        scores = r.image[rows] @ r.text[first].T  # (pictures, names)
        own = torch.tensor(
            [[text in task.images.captions[i] for text in names] for i in rows]
        )  # (copies have several)
        found[name] = {"pictures": len(rows), "names": len(names)}
        for way, ranks in (
            ("i2t", ev.rank_of_best(scores, own)),
            ("t2i", ev.rank_of_best(scores.T, own.T)),
        ):
            ranks = ranks.numpy()
            found[name][way] = [
                float((ranks < 1).mean()),
                float((ranks < 10).mean()),
                float(np.median(ranks) + 1),
            ]
    return found


def table(lines):
    print(
        "| test set: pictures, names | run | seeds | i2t R@1 | R@10 | median rank | t2i R@1 | R@10 | median rank |\n|"
        + "---|" * 9
    )
    for name in SETS:
        for run_name, flags in RUNS.items():
            mine = [
                x["scores"][name] for x in lines if (x["name"], x["flags"]) == (run_name, flags)
            ]
            if mine:
                values = np.array([[*x["i2t"], *x["t2i"]] for x in mine]) * ([100, 100, 1] * 2)
                spread = (
                    [f" ± {s:.1f}" for s in values.std(0, ddof=1)] if len(mine) > 1 else [""] * 6
                )
                cells = " | ".join(f"{m:.1f}{s}" for m, s in zip(values.mean(0), spread))
                print(
                    f"| {name}: {mine[0]['pictures']}, {mine[0]['names']} | {run_name} | {len(mine)} | {cells} |"
                )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--work", type=Path, default=ROOT / "runs/emoji64")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/emoji64.jsonl")
    parser.add_argument("--only", nargs="+", default=list(RUNS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--flags", default="", help="more flags of train.py, for a trial")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if not (args.shards / "train.tar").is_file():
        raise BadInput(
            f"{args.shards}: no train.tar in it; name the folder that python -m data.world.emoji made"
        )
    shards = hashlib.blake2b(
        b"".join(file.read_bytes() for file in sorted(args.shards.glob("*.tar"))), digest_size=6
    ).hexdigest()
    lines = (
        [json.loads(line) for line in args.out.read_text().splitlines()]
        if args.out.exists()
        else []
    )
    lines, data = (
        [line for line in lines if line["shards"] == shards],
        args.work / f"data-{shards}",
    )  # runs on other shards are not these
    if not args.table and not data.exists():
        prepare(args.shards, data)
    for seed in () if args.table else args.seeds:
        for name in args.only:
            flags, folder = (
                f"{RUNS[name]} {args.flags}".strip(),
                args.work / f"{name}{re.sub(r'[ /]', '', args.flags)}-{seed}",
            )
            if any((x["name"], x["seed"], x["flags"]) == (name, seed, flags) for x in lines):
                continue
            shutil.rmtree(
                folder, ignore_errors=True
            )  # of a run that was interrupted, or had other flags
            commit = claims.commit()
            subprocess.run(
                [
                    sys.executable,
                    "train.py",
                    "--data",
                    str(data / "train.tar"),
                    "--val-data",
                    str(data / "val.tar"),
                    *flags.split(),
                    "--seed",
                    str(seed),
                    "--device",
                    "cpu",
                    "--out",
                    str(folder),
                ],
                cwd=ROOT,
                check=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            final = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
            lines.append(
                {
                    "name": name,
                    "seed": seed,
                    "flags": flags,
                    "commit": commit,
                    "shards": shards,
                    "scores": score(folder, data, bool(args.flags)),
                    "final": final,
                }
            )
            with open(args.out, "a") as f:
                f.write(json.dumps(lines[-1]) + "\n")
            print(name, seed, lines[-1]["scores"])
    table(lines)


if __name__ == "__main__":
    sys.exit(run(main))
