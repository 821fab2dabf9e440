"""The papers' claims at the size that two CPU cores allow. Every run is a line of docs/results/claims.jsonl.

    python -m tests.claims                     # all runs, three seeds, two at a time: hours on 2 cores
    python -m tests.claims --only lift clip    # runs whose name begins so
    python -m tests.claims --table             # nothing run: the table of what is in the file

A run is a command line of train.py and one of eval.py, as a user would type them, after those of what it starts from. A run that is in the file already is
not run again; a change of its flags makes it another run.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np

from data.common import BadInput, run

ROOT = Path(__file__).parent.parent
# Two objects in a rich world: many more bits than a batch needs to tell pictures apart. 930 steps.
PAIRS = "--data shapes-pairs --model micro/16 --image-size 64 --train-num-samples 24000 --epochs 10 --lr 1e-3"
# Nine in ten captions are long ones (60 to 150 words); every test is on short ones. All else as built in: 312 steps, rate 3e-3.
LONG = "--csv-caption-key mixed --long-share 0.9 --context-length 160"
FROM = "--image-weights {supervised}"
FEW, MANY = "--train-num-samples 512 --batch-size 128 --epochs 1000 --steps 150", "--steps 150"
APE = "--context-length 32"
LILT = "--method lilt --layer 3 --context-length 32 --batch-size 64 --steps 150 --lr 1e-3 " + FROM
LLM2CLIP = "--method llm2clip --steps 150 --lr 3e-3 " + FROM
ADAPTER = "--llm-adapter {adapter}"

# name: flags of train.py. What stands in {braces} is made first, once a seed.
RUNS = {
    # LIFT: composition
    "pairs/lift": f"--method lift {PAIRS}",
    "pairs/clip": f"--method clip {PAIRS}",
    # the towers that others start from
    "supervised": "--method supervised --epochs 8",
    # LIFT: short and long captions, cosine loss, encoders
    "short/lift": "--method lift",
    "short/clip": "--method clip",
    "long/lift": f"--method lift {LONG}",
    "long/clip": f"--method clip {LONG}",
    "short/lift_cos": "--method lift_cos",
    # APE against LiT and CLIP, by the number of pictures
    **{f"few/{m}": f"--method {m} {FEW} {APE} {FROM}" for m in ("ape", "lit", "ape_lookup")},
    "few/clip": f"--method clip {FEW} {APE}",
    **{f"many/{m}": f"--method {m} {MANY} {APE} {FROM}" for m in ("ape", "lit", "ape_lookup")},
    "many/clip": f"--method clip {MANY} {APE}",
    # LilT: what is trained, by the number of pictures
    **{
        f"many/lilt {u}": f"{LILT} --unlock {u}"
        for u in ("layernorm", "bitfit", "adapters+layernorm", "all")
    },
    **{
        f"few/lilt {u}": f"{LILT} --unlock {u} --train-num-samples 512 --epochs 1000"
        for u in ("layernorm", "adapters+layernorm", "all")
    },
    # and at other rates (the last --lr counts): full training may want a lower one than a few parameters do
    **{
        f"many/lilt {u} {rate}": f"{LILT} --unlock {u} --lr {rate}"
        for u in ("layernorm", "bitfit", "adapters+layernorm", "all")
        for rate in ("3e-4", "3e-3")
    },
    **{
        f"few/lilt {u} {rate}": f"{LILT} --unlock {u} --train-num-samples 512 --epochs 1000 --lr {rate}"
        for u in ("layernorm", "adapters+layernorm", "all")
        for rate in ("3e-4", "3e-3")
    },
    # LLM2CLIP: the text tower is CLIP's own, the raw and the caption-tuned language model
    "llm2clip/own text": f"--method clip_pretrained --steps 150 --lr 3e-3 {FROM}",
    "llm2clip/raw": LLM2CLIP,
    "llm2clip/tuned": f"{LLM2CLIP} {ADAPTER}",
    "short/lift tuned": f"--method lift {ADAPTER}",
    "short/lift not whitened": "--method lift --whiten 0",
    "short/lift last token": "--method lift --pool last --layer 10",
    "short/lift sentence encoder": "--method lift --text-features {sentences}",
    # LIFT: larger batches for CLIP, at equal samples
    "pairs/clip batch 1024": f"--method clip {PAIRS} --batch-size 1024",
    # APE: its controls, and which augmentation matters
    "few/ape_transformer": f"--method ape_transformer {FEW} {APE} {FROM}",
    "few/ape one crop": f"--method ape {FEW} {APE} {FROM} --crop-scale 0.6 --image-views 1",
    "few/ape eight crops": f"--method ape {FEW} {APE} {FROM} --crop-scale 0.6 --image-views 8",
    "few/ape paraphrases": f"--method ape {FEW} {APE} {FROM} --csv-caption-key paraphrase",
    "many/ape_transformer": f"--method ape_transformer {MANY} {APE} {FROM}",
}
TUNE = "--tune shapes --layer 10 --steps 150"
SENTENCES = "data.readers shapes --texts"  # what the sentence encoder reads (tests/sentences.py)
STARTS = {
    "supervised": "",
    "adapter": ".safetensors",
    "sentences": ".npy",
}  # what other runs start from; a folder or a file


def recipe(name):
    """A run's flags, with those of what it starts from: two runs with one recipe are the same run."""
    flags = {**RUNS, "adapter": TUNE, "sentences": SENTENCES}[name]
    return re.sub(r"{(\w+)}", lambda m: "{" + recipe(m[1]) + "}", flags)


def commit():
    """The commit of the code, with -dirty behind it where a .py file differs from it."""
    name = subprocess.run(
        ["git", "describe", "--always"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return (
        name
        + "-dirty"
        * subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "*.py"], cwd=ROOT).returncode
    )


class Runner:
    def __init__(self, out, work):
        self.out, self.work, self.lock, self.locks = out, work, Lock(), {}
        self.lines = [json.loads(x) for x in out.read_text().splitlines()] if out.exists() else []

    def command(self, *argv, given=None):
        done = subprocess.run(
            [sys.executable, *argv],
            cwd=ROOT,
            capture_output=True,
            text=True,
            input=given,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if done.returncode:
            raise BadInput(
                f"{' '.join(argv)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}"
            )
        return done.stdout

    def keep(self, line):
        with self.lock:
            if self.known(
                line["name"], line["seed"], line["flags"]
            ):  # made again, because others start from it
                return
            self.lines.append(line)
            with open(self.out, "a") as f:
                f.write(json.dumps(line) + "\n")
        print(f"{time.strftime('%H:%M:%S')} {line['name']} seed {line['seed']}", flush=True)

    def known(self, name, seed, flags):
        return any((x["name"], x["seed"], x["flags"]) == (name, seed, flags) for x in self.lines)

    def ensure(self, name, seed):
        """The folder or file that a run left, made if it is not there."""
        seed = 0 if name == "sentences" else seed  # (nothing is drawn)
        with self.lock:
            lock = self.locks.setdefault((name, seed), Lock())
        with lock:
            flags = recipe(name)
            folder = (
                self.work
                / f"{name.replace('/', '-').replace(' ', '-')}-{seed}{STARTS.get(name, '')}"
            )
            if self.known(name, seed, flags) and (folder.exists() or name not in STARTS):
                return folder
            if name == "sentences":
                if not folder.exists():
                    self.command(
                        "-m",
                        "tests.sentences",
                        str(folder),
                        given=self.command("-m", *SENTENCES.split()),
                    )
                return folder
            part = folder.with_name(
                f"part-{folder.name}"
            )  # (renamed when it is whole: what is interrupted must not pass for done)
            for left in (part, folder):
                shutil.rmtree(left, ignore_errors=True)
            begun, made = time.time(), commit()  # (of the code that runs now, not when it ends)
            if name == "adapter":
                said = self.command(
                    "llm_text.py", *flags.split(), "--seed", str(seed), "--out", str(part)
                )
                part.rename(folder)
                before, after = (
                    re.search(rf"{w}: +([\d.]+)% of (\d+)", said).groups()
                    for w in ("before", "after")
                )
                self.keep(
                    {
                        "name": name,
                        "seed": seed,
                        "flags": flags,
                        "pool": int(after[1]),
                        "cra_before": float(before[0]) / 100,
                        "cra_after": float(after[0]) / 100,
                        "seconds": time.time() - begun,
                        "commit": made,
                    }
                )
                return folder
            filled = [
                str(self.ensure(word[1:-1], seed)) if word[0] == "{" else word
                for word in RUNS[name].split()
            ]
            self.command(
                "train.py", *filled, "--seed", str(seed), "--out", str(part), "--device", "cpu"
            )
            self.command("eval.py", str(part), "--device", "cpu")
            part.rename(folder)
            scores = json.loads((folder / "eval.json").read_text())
            log = [json.loads(x) for x in (folder / "log.jsonl").read_text().splitlines()]
            for key in ("run", "ci95", "chance"):
                del scores[key]
            self.keep(
                {
                    "name": name,
                    "seed": seed,
                    "flags": flags,
                    **scores,
                    "trained": log[0]["trained"],
                    "parameters": log[0]["parameters"],
                    "final": log[-1],
                    "commit": made,
                }
            )
            if name not in STARTS:
                (folder / "checkpoint.pt").unlink()
            return folder


COLUMNS = {
    "i2t R@1": ("retrieval", "i2t", "R@1"),
    "t2i R@1": ("retrieval", "t2i", "R@1"),
    "mean of 7": ("compositional", "mean"),
    **{k: ("compositional", k) for k in ("replace_obj", "replace_rel", "swap_obj", "swap_att")},
    "zero-shot": ("zeroshot", "top1"),
}


def table(lines):
    """Mean and standard deviation over seeds, a row a run."""
    print(
        "| run | seeds | trained | "
        + " | ".join(COLUMNS)
        + " |\n|---|---|---|"
        + "---|" * len(COLUMNS)
    )
    for name in RUNS:
        mine = [x for x in lines if x["name"] == name and x["flags"] == recipe(name)]
        if not mine:
            continue
        cells = []
        for path in COLUMNS.values():
            values = []
            for value in mine:
                for key in path:
                    value = value.get(key, {})
                values += [] if value == {} else [100 * value]
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}" if values else "")
        print(
            f"| {name} | {len(mine)} | {mine[0]['trained'] / mine[0]['parameters']:.2%} | {' | '.join(cells)} |"
        )
    tuned = [x for x in lines if x["name"] == "adapter" and x["flags"] == TUNE]
    if tuned:
        before, after = ([100 * x[f"cra_{when}"] for x in tuned] for when in ("before", "after"))
        spread = f" ± {np.std(after, ddof=1):.1f}" if len(after) > 1 else ""
        print(
            f"\nCaption retrieval accuracy, %, pool of {tuned[0]['pool']}, seeds: {len(tuned)}: {np.mean(before):.1f} raw, "
            f"{np.mean(after):.1f}{spread} after `llm_text.py {TUNE}`"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--only", nargs="+", default=[""], help="names of runs begin with one of these"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/claims.jsonl")
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / "runs/claims",
        help="where runs are kept that others start from",
    )
    parser.add_argument(
        "--table", action="store_true", help="print the table of what is in the file, run nothing"
    )
    args = parser.parse_args()
    runner = Runner(args.out, args.work)
    if not args.table:
        args.work.mkdir(parents=True, exist_ok=True)
        names = [name for name in (*RUNS, "adapter") if name.startswith(tuple(args.only))]
        with ThreadPoolExecutor(args.jobs) as pool:
            try:
                for done in [
                    pool.submit(runner.ensure, name, seed) for name in names for seed in args.seeds
                ]:
                    done.result()
            finally:  # after an error, what has not begun would only fail too
                pool.shutdown(cancel_futures=True)
    table(runner.lines)


if __name__ == "__main__":
    sys.exit(run(main))
