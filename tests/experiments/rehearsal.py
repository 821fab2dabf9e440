"""Many captions and two processes on this machine: reading, a kill, going on, training.

    python -m tests.experiments.scale --rehearse FOLDER                    # 1,000,000 captions
    python -m tests.experiments.scale --rehearse FOLDER --captions 20000   # a quick look

The captions are random words. What reads them is a random language model of one block, but of the
default model's width 576. So a record has its real size, 1,168 bytes. The images are black. Four
things happen, one after the other:

    alone   one process reads the first twentieth of the captions
    killed  two processes, by torchrun, read all of them; the second one is killed (SIGKILL) when a
            third has been read, and torchrun then ends the first
    again   the same command once more: it goes on, and then trains some steps from the file
    check   does the file hold every caption once, is what was read before the kill still there, and
            is a sample of 1,000 what one process computes in this moment? All to the bit

Memory is what /proc says of each process. RssAnon is what belongs to the process alone. VmHWM, the
high-water mark, also counts the pages of files that it has looked at. The system takes these back
when it needs them.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from data.common import BadInput, pick_dtype
from data.vectors import CaptionVectors, key_of
from llm_text import load_llm
from tests.experiments.bench_data import WORDS, random_captions, write_pack
from tests.tiny_llm import write_tiny_llm

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
WIDTH = 576  # of SmolLM2-135M
RECORD = 16 + 2 * WIDTH  # bytes
SAMPLE = 1000
FLAGS = """
    --model micro/8 --image-size 8 --batch-size 256 --steps 200 --log-every-n-steps 20
    --val-frequency 0 --device cpu
"""


@dataclass
class Peak:
    """The most memory of one process, in GB."""

    private: float = 0.0  # RssAnon, sampled
    resident: float = 0.0  # VmHWM, which the system keeps itself

    def look(self, pid: int) -> None:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        if "VmHWM" in status:  # a process that has just ended has none
            self.private = max(self.private, int(status["RssAnon"].split()[0]) / 1e6)
            self.resident = max(self.resident, int(status["VmHWM"].split()[0]) / 1e6)


@dataclass
class Watched:
    """What was seen of a run while it went on."""

    status: int = 0
    read: int = 0  # new records
    # Seconds after the start, at which something was first seen.
    first: float = 0.0  # new records
    last: float = 0.0  # the last new record
    steps: float = 0.0  # log.jsonl: training begins
    end: float = 0.0
    cpu: float = 0.0  # seconds that all processes computed between `first` and `last`
    reading: dict[int, Peak] = field(default_factory=dict)  # by rank: until training begins
    training: dict[int, Peak] = field(default_factory=dict)  # by rank: after that


def ranks_of(process: subprocess.Popen) -> dict[int, int]:
    """{rank: pid} of the processes that torchrun has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = {}
    for pid in map(int, children):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ranks |= {int(entry[5:]): pid for entry in environment if entry.startswith(b"RANK=")}
    return ranks


def cpu_seconds(pid: int) -> float:
    """Seconds that a process has computed. What others do on the machine does not count."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def count_records(cache: Path) -> int:
    """Whole records in the files of all processes. While they are joined some count twice."""
    files = [*cache.glob("captions/*.records"), *cache.glob("captions/*.part")]
    return sum(file.stat().st_size // RECORD for file in files)


def run_and_watch(
    command: list[str],
    cache: Path,
    out: Path,
    n_captions: int,
    when: Callable[[int, dict[int, int]], None] = lambda records, ranks: None,
) -> Watched:
    """Run train.py to its end. when(records, {rank: pid}) is called five times a second."""
    seen = Watched()
    log = open(f"{out}.said", "a")  # noqa: SIM115  (the process writes to it)
    begun = time.time()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"LIFT_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stdout=log,
        stderr=log,
    )
    before = most = count_records(cache)
    cpu = {}  # by rank; what a process that was killed had computed still counts
    while process.poll() is None:
        now = time.time() - begun
        try:
            ranks = {0: process.pid} if "train.py" in command[:2] else ranks_of(process)
            peaks = seen.training if seen.steps else seen.reading
            for rank, pid in ranks.items():
                peaks.setdefault(rank, Peak()).look(pid)
            cpu |= {rank: cpu_seconds(pid) for rank, pid in ranks.items()}
            records = min(count_records(cache), n_captions)
        except (FileNotFoundError, ProcessLookupError):  # ended, or joined, in this moment
            continue
        if records > most:
            most, seen.last = records, now
            if not seen.first:
                seen.first, cpu_before = now, sum(cpu.values())
            seen.cpu = sum(cpu.values()) - cpu_before
        if (out / "log.jsonl").exists():
            seen.steps = seen.steps or now
        when(records, ranks)
        time.sleep(0.2)
    seen.status = process.returncode
    seen.read = most - before
    seen.end = time.time() - begun
    return seen


def merges_of(words: list[str]) -> list[tuple[str, str]]:
    """Merges by which a tokenizer makes one token of a blank and a word: " dog" by " d", " do"."""
    pairs = {}  # a dict, because words that begin alike share merges
    for word in words:
        for i, letter in enumerate(word):
            pairs["\u0120" + word[:i], letter] = None  # U+0120 stands for the blank
    return list(pairs)


def rehearse(folder: Path, n_captions: int) -> None:
    """Do all of it, and print the tables. BadInput where a check fails."""
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder} is not empty")
    torch.set_num_threads(1)
    (folder / "llm").mkdir(parents=True)
    llm = write_tiny_llm(folder / "llm", depth=1, width=WIDTH, merges=merges_of(WORDS))
    pack = write_pack(folder / "pack", n_captions)
    # With other images for the test, no image of the pack is held out.
    test = write_pack(folder / "test", 10)
    flags = [*FLAGS.split(), "--llm", llm, "--data", pack, "--val-data", test]

    # ---- One process.
    alone = run_and_watch(
        [sys.executable, "train.py", *map(str, flags), "--out", str(folder / "alone")]
        + ["--train-num-samples", str(n_captions // 20)],
        folder / "cache_alone",
        folder / "alone",
        n_captions // 20,
    )
    check(alone.status == 0, f"one process ended with {alone.status}, see {folder}/alone.said")

    # ---- Two processes, of which one is killed.
    cache, out = folder / "cache", folder / "two"
    command = [*TORCHRUN, "2", "train.py", *map(str, flags), "--out", str(out)]

    def kill_second(records: int, ranks: dict[int, int]) -> None:
        if records > n_captions / 3 and 1 in ranks:
            os.kill(ranks[1], signal.SIGKILL)

    killed = run_and_watch(command, cache, out, n_captions, kill_second)
    kept = count_records(cache)
    check(killed.status != 0, "a run whose process was killed ended with status 0")
    check(0 < kept < n_captions, f"{kept} captions had been read at the kill")
    (whole,) = cache.glob("captions/*.records")
    before = [  # what each file holds, without a record that is not whole
        file.read_bytes()[: file.stat().st_size // RECORD * RECORD]
        for file in (whole, *cache.glob("captions/*.part"))
    ]
    digests = [(len(held), hashlib.blake2b(held).digest()) for held in before]
    del before

    # ---- The same once more.
    again = run_and_watch(command, cache, out, n_captions)
    check(again.status == 0, f"the second start ended with {again.status}, see {out}.said")
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    check(entries[0]["processes"] == 2 and len(losses) > 2, "it did not train in two processes")

    # ---- Check. The file begins with what the killed run had read.
    with open(whole, "rb") as file:
        for size, digest in digests:
            same = hashlib.blake2b(file.read(size)).digest() == digest
            check(same, "records of the killed run are not what they were")
    texts = list(random_captions(n_captions))
    places = np.random.default_rng(1).choice(n_captions, min(SAMPLE, n_captions), replace=False)
    sample = [texts[place] for place in places]
    dtype = getattr(torch, pick_dtype("auto", torch.device("cpu")))
    here = CaptionVectors(load_llm(llm, dtype=dtype), folder=folder / "sample")
    here.read(sample)
    compare(CaptionVectors(here.llm, folder=cache / "captions"), here, texts, sample)

    print(
        f"{n_captions:,} captions, {whole.stat().st_size / 1e9:.2f} GB of records. {kept:,} had "
        "been read at the kill, and none of them was read again.\n"
    )
    report({"one": alone, "two, killed": killed, "two, again": again}, entries[-1]["step"])
    print(
        f"\nTraining: loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last, "
        f"{entries[-1]['images_per_second']:,.0f} images per second."
    )


def report(runs: dict[str, Watched], n_steps: int) -> None:
    """Print the tables of time and memory. A look every 0.2 seconds sees no shorter time."""
    print(f"| seconds | {' | '.join(runs)} |\n|---|{'---|' * len(runs)}")
    for what, of in (
        ("captions read", lambda run: f"{run.read:,}"),
        ("captions per second", lambda run: f"{run.read / max(0.2, run.last - run.first):,.0f}"),
        ("the same, of one core", lambda run: f"{run.read / max(0.2, run.cpu):,.0f}"),
        ("start to first caption", lambda run: f"{run.first:.0f}"),
        ("reading", lambda run: f"{run.last - run.first:.0f}"),
        ("last caption to first step", lambda run: between(run.last, run.steps)),
        (f"{n_steps} steps", lambda run: between(run.steps, run.end)),
    ):
        print(f"| {what} | {' | '.join(map(of, runs.values()))} |")

    print("\n| memory in GB, and with files | before training | training |\n|---|---|---|")
    for name, run in runs.items():
        for rank in sorted(run.reading):
            cells = [
                f"{peaks[rank].private:.2f}, {peaks[rank].resident:.2f}" if peaks else ""
                for peaks in (run.reading, run.training)
            ]
            print(f"| {name}, process {rank} | {' | '.join(cells)} |")


def between(begin: float, end: float) -> str:
    """Seconds, where both moments were seen."""
    return f"{end - begin:.0f}" if begin and end > begin else ""


def compare(two: CaptionVectors, here: CaptionVectors, texts: list[str], sample: list[str]) -> None:
    """Does a file hold each text once, and of a sample the records that are in another file?"""
    records = two.store.records()
    keys = records["key"].tolist()
    check(len(keys) == len(texts), f"{len(keys)} records for {len(texts)} captions")
    row_of = {key: row for row, key in enumerate(keys)}
    check(len(row_of) == len(keys), f"{len(keys) - len(row_of)} captions were read twice")
    own = {record["key"].tobytes(): record.tobytes() for record in here.store.records()}
    for text in sample:
        row = row_of.get(key_of(text))
        check(row is not None, f"{text!r} is missing")
        check(records[row].tobytes() == own[key_of(text)], f"{text!r} has another record")


def check(is_right: bool, otherwise: str) -> None:
    if not is_right:
        raise BadInput(otherwise)
