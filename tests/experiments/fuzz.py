"""Damage a file of every kind in many ways, and count what its reader says.

    python -m tests.experiments.fuzz --cases 20000 --seed 0

A reader must refuse a damaged file with one line (BadInput), or read it. Every other exception,
more than 5 seconds and more than 1 GB of memory are failures. The table on stdout counts them, and
the exit status is 1 if there is one. Each failure is kept in a folder, with the command that
repeats it. The last result is docs/results/fuzz.md. It needs Linux, for its limits of time and
memory.

A new kind of file is one line of KINDS in tests/experiments/fuzz_kinds.py.
"""

import argparse
import contextlib
import io
import json
import math
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import vit
from data.common import BadInput, exit_status
from tests.experiments.fuzz_kinds import KINDS

SECONDS = 5
GIGABYTE = 1 << 30

# --------------------------------------------------------------------------------------------------
# Damage.

ODD_BYTES = [b"\0", b"\xff", b"\x7f", b"\x80", b"\n", b'"', b",", b"[", b"9", b"-", b"e9"]
ODD_NUMBERS = [0, 1, 255, 1 << 15, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 64) - 1]
ODD_VALUES = [None, True, False, -1, 0, 2, 1.5, -0.1, 1e999, math.nan, 1 << 31, 10**30]
ODD_VALUES += ["", "x", "\ud800", "9", "../x", [], {}, [[]], [1], {"x": 1}, ["x", None]]
ODD_TENSORS = [torch.ones(3), torch.tensor(1), torch.ones(0, 3), torch.full((2, 2), math.nan)]
ODD_TENSORS += [torch.ones(2, 2).to_sparse(), torch.ones(2, device="meta"), torch.ones(2).cfloat()]


def damage_bytes(content, rng):
    """Flip bits, put odd bytes or numbers in, cut the end off, take a slice out or repeat it."""
    content = bytearray(content)
    # Headers are where most can happen, so half of all damage is near the beginning.
    size = rng.choice([len(content), min(len(content), 300)])
    place = rng.randrange(max(1, size))
    end = place + rng.choice([1, 2, 4, 8, 30, 1000])
    way = rng.randrange(6)
    if way == 0:
        for _ in range(rng.choice([1, 1, 3, 20])):
            if content:
                content[rng.randrange(max(1, size))] ^= 1 << rng.randrange(8)
    elif way == 1:
        odd = rng.choice(ODD_BYTES)
        content[place : place + len(odd)] = odd
    elif way == 2:
        n_bytes, order = rng.choice([2, 4, 8]), rng.choice(["little", "big"])
        number = rng.choice(ODD_NUMBERS) % (1 << 8 * n_bytes)
        content[place : place + n_bytes] = number.to_bytes(n_bytes, order)
    elif way == 3:
        del content[place:]
    elif way == 4:
        del content[place:end]
    else:
        content[place:place] = content[place:end]
    return bytes(content)


def damage_value(value, rng):
    """A value of nested lists and dicts, with one of its parts changed, left out or repeated."""
    is_inner = isinstance(value, (dict, list)) and len(value) and rng.random() < 0.85
    if not is_inner:
        of_same_kind = ODD_TENSORS if isinstance(value, torch.Tensor) else ODD_VALUES
        return rng.choice(rng.choice([ODD_VALUES, of_same_kind]))
    value = value.copy()
    place = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    way = rng.random()
    if way < 0.1:
        del value[place]
    elif way < 0.15 and isinstance(value, dict):
        value[rng.choice(["x", f"{place} "])] = value.pop(place)
    elif way < 0.15:
        value.insert(place, value[place])
    else:
        value[place] = damage_value(value[place], rng)
    return value


def damage_contents(path, rng):
    """As damage_value, for a file whose contents are such values."""
    if path.suffix == ".json":
        path.write_text(json.dumps(damage_value(json.loads(path.read_text()), rng)))
    elif path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        place = rng.randrange(max(1, len(lines)))
        lines[place:place] = [json.dumps(damage_value(json.loads(lines.pop(place)), rng))]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix in (".pt", ".pth"):
        torch.save(damage_value(torch.load(path, weights_only=True), rng), path)
    elif path.suffix == ".safetensors":
        content = path.read_bytes()
        (length,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + length])
        # An exported run keeps its configuration as JSON within the JSON.
        metadata = header.get("__metadata__", {})
        if "lift" in metadata and rng.random() < 0.8:
            metadata["lift"] = json.dumps(damage_value(json.loads(metadata["lift"]), rng))
        else:
            header = damage_value(header, rng)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def damage(folder, pattern, rng):
    """Damage one of the files that fit the pattern."""
    path = rng.choice(sorted(path for path in folder.glob(pattern) if path.is_file()))
    has_values = path.suffix in (".json", ".jsonl", ".pt", ".pth", ".safetensors")
    if has_values and path.stat().st_size and rng.random() < 0.6:
        damage_contents(path, rng)
    else:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))


# --------------------------------------------------------------------------------------------------
# Many cases.

OUTCOMES = ("refused", "read the same", "read otherwise", "other exception", "slow", "memory")


class Slow(BaseException):
    """No Exception, so that no reader takes it for damage."""


@contextlib.contextmanager
def limits():
    """Within the block: 5 seconds of time, 1 GB of memory beside what is used now, no warnings."""

    def stop(number, frame):
        raise Slow

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIGABYTE, before[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcome_of(read, folder, whole):
    """(one of OUTCOMES, what was raised or None). `whole` is what the undamaged file gives."""
    os.environ["LIFT_CACHE"] = str(folder / "cache")
    try:
        with limits(), contextlib.redirect_stderr(io.StringIO()):
            found = read(folder)
    except Slow as error:
        return "slow", error
    except MemoryError as error:
        return "memory", error
    except (BadInput, OSError) as error:  # data.common.exit_status makes one line of both
        has_name = not isinstance(error, OSError) or error.filename
        is_clear = has_name and 0 < len(str(error)) < 2000
        return ("refused" if is_clear else "other exception"), error
    except Exception as error:
        return ("memory" if "alloc" in str(error) else "other exception"), error
    return ("read the same" if repr(found) == repr(whole) else "read otherwise"), None


def fuzz(cases, seed, kept, first=0):
    """Counts of (kind, outcome). Each failure goes into a folder below `kept`."""
    counts = Counter()
    with (
        tempfile.TemporaryDirectory() as temporary,
        mock.patch.dict(os.environ),
        mock.patch.dict(vit.SIZES, {"fuzz/8": (8, 16, 1, 2)}),
        # A damaged configuration may ask for the default language model.
        mock.patch("llm_text.fetch_default", no_model),
    ):
        whole = {}  # what each undamaged file gives
        for case in range(first, first + cases):
            kind = list(KINDS)[case % len(KINDS)]
            make, read, pattern = KINDS[kind]
            good, bad = Path(temporary) / "good" / kind, Path(temporary) / "bad"
            if kind not in whole:
                good.mkdir(parents=True)
                os.environ["LIFT_CACHE"] = str(good / "cache")
                with contextlib.redirect_stderr(io.StringIO()):
                    make(good)
                    whole[kind] = read(good)
            damaged_copy(good, bad, pattern, seed, case)
            outcome, error = outcome_of(read, bad, whole[kind])
            counts[kind, outcome] += 1
            if outcome in OUTCOMES[3:]:
                keep = Path(kept) / f"{kind} {seed} {case}"
                damaged_copy(good, keep, pattern, seed, case)
                command = f"python -m tests.experiments.fuzz --seed {seed} --first {case} --cases 1"
                lines = traceback.format_exception(error)
                (keep / "failure.txt").write_text(f"{outcome}: {command}\n\n{''.join(lines)}")
    return counts


def damaged_copy(good, bad, pattern, seed, case):
    shutil.rmtree(bad, ignore_errors=True)
    shutil.copytree(good, bad)
    damage(bad, pattern, random.Random(f"{seed} {case}"))


def no_model():
    raise BadInput("no default model here")


def table(counts):
    """As Markdown, one row per kind of file."""
    kinds = [kind for kind in KINDS if any(counts[kind, outcome] for outcome in OUTCOMES)]
    lines = [f"| file | cases | {' | '.join(OUTCOMES)} |", "|---|" + "---|" * (len(OUTCOMES) + 1)]
    for name, members in [*((kind, [kind]) for kind in kinds), ("all", kinds)]:
        row = [sum(counts[kind, outcome] for kind in members) for outcome in OUTCOMES]
        lines.append(f"| {name} | {sum(row)} | {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Damage files and count what their readers say.")
    parser.add_argument("--cases", type=int, default=20_000, help="damaged files")
    parser.add_argument("--seed", type=int, default=0, help="of all damage")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--kept", default="runs/fuzz", help="folder for failures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    counts = fuzz(args.cases, args.seed, args.kept, args.first)
    print(table(counts))
    n_failures = sum(counts[kind, outcome] for kind in KINDS for outcome in OUTCOMES[3:])
    if n_failures:
        print(f"{n_failures} failures are kept in {args.kept}", file=sys.stderr)
    return int(n_failures > 0)


if __name__ == "__main__":
    sys.exit(exit_status(main))
