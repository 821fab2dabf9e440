"""Methods side by side over seeds: same data, image tower, batch, steps and rate. Reproduces docs/results/seeds.*

    python -m tests.seeds --methods lift clip --seeds 0 1 2 --out docs/results/seeds.jsonl [-- TRAIN FLAGS]

One JSON line a run (the run's whole eval.json and training time), then a Markdown table of mean and standard
deviation over seeds. About 2 minutes a run on 2 cores with the defaults. A run that is already in the file is not
run again.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import eval as ev
import train
from data import run


def table(lines):
    methods = list(dict.fromkeys(line["method"] for line in lines))
    paths = [("retrieval", way, "R@1") for way in ("i2t", "t2i")] + [("compositional", k) for k in lines[0]["compositional"]]
    paths.append(("zeroshot", "top1"))
    print("| score, % | " + " | ".join(f"{m} ({sum(x['method'] == m for x in lines)} seeds)" for m in methods) + " |")
    print("|---|" + "---|" * len(methods))

    def cell(path, method):
        values = []
        for line in lines:
            if line["method"] == method:
                value = line
                for key in path:
                    value = value[key]
                values.append(100 * value)
        return f"{np.mean(values):.1f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.1f}"

    for path in paths:
        print(f"| {' '.join(path)} | " + " | ".join(cell(path, m) for m in methods) + " |")
    seconds = {m: np.mean([line["train_seconds"] for line in lines if line["method"] == m]) for m in methods}
    print("| training steps, s | " + " | ".join(f"{seconds[m]:.0f}" for m in methods) + " |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--methods", nargs="+", default=["lift", "clip"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("docs/results/seeds.jsonl"))
    parser.add_argument("flags", nargs="*", help="after --: flags for every run, as train.py takes them")
    args = parser.parse_args()
    args.out.touch()
    lines = [json.loads(line) for line in args.out.read_text().splitlines()]
    for seed in args.seeds:
        for method in args.methods:
            if any((line["method"], line["seed"], line["flags"]) == (method, seed, args.flags) for line in lines):
                continue
            with tempfile.TemporaryDirectory() as folder:
                cfg = train.from_cli(["--method", method, "--seed", str(seed), "--out", f"{folder}/run", *args.flags])
                train.train(cfg)
                log = [json.loads(x) for x in (Path(cfg.out) / "log.jsonl").read_text().splitlines()]
                e = ev.Embedded(cfg.out)
                line = {**e.scores(), "seed": seed, "flags": args.flags, "train_seconds": log[-1]["seconds"],
                        "final": log[-1], "versions": {k: log[0][k] for k in ("torch", "device", "threads")},
                        "date": time.strftime("%Y-%m-%d")}
            del line["run"]
            lines.append(line)
            with open(args.out, "a") as f:
                f.write(json.dumps(line) + "\n")
    table([line for line in lines if line["flags"] == args.flags and line["method"] in args.methods])


if __name__ == "__main__":
    sys.exit(run(main))
