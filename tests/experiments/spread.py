"""Mean and standard deviation over seeds, from the eval.json of runs that eval.py has scored.

    python -m tests.experiments.spread runs/seeds/lift-0 runs/seeds/lift-1 runs/seeds/clip-0 ...

Runs whose names differ only in the number after the last hyphen are one column. The output is a
Markdown table, in per cent.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from data.common import BadInput, exit_status, interpreting
from data.report import flat


def spread(folders: list[str]) -> str:
    """The table of these run folders. The deviation has N - 1 below the root, N: runs."""
    columns = {}  # name: [{score: its value} of each seed]
    tests = {}  # name: what its first run was asked
    seeds = set()  # (name, seed) of each run
    for folder in folders:
        path = Path(folder) / "eval.json"
        if not path.is_file():
            raise BadInput(f"{path}: no such file; run python eval.py {folder} first")
        name, hyphen, seed = Path(folder).name.rpartition("-")
        if not hyphen or not seed.isdecimal():
            raise BadInput(f"{folder}: a run's name must end in a hyphen and its seed, as lift-0")
        with interpreting(path):
            scores = json.loads(path.read_text())
            values = {score: 100.0 * flat(scores)[score] for score in flat(scores["chance"])}
            test = [scores["data"], scores["counts"]["images"]]
        if (name, int(seed)) in seeds:
            raise BadInput(f"{folder}: there is another run called {name} with this seed")
        seeds.add((name, int(seed)))
        if test != tests.setdefault(name, test):
            raise BadInput(f"{path}: other images than those of the first run called {name}")
        columns.setdefault(name, []).append(values)
        if values.keys() != columns[name][0].keys():
            raise BadInput(f"{path}: other scores than those of the first run called {name}")

    headings = [f"{name}, {len(runs)} seeds" for name, runs in columns.items()]
    lines = [f"| score, in % | {' | '.join(headings)} |", "|---|" + "---|" * len(columns)]
    for score in dict.fromkeys(score for runs in columns.values() for score in runs[0]):
        cells = []
        for runs in columns.values():
            values = [values[score] for values in runs if score in values]
            deviation = np.std(values, ddof=1) if len(values) > 1 else float("nan")
            cells.append(f"{np.mean(values):.1f} ± {deviation:.1f}" if values else "")
        lines.append(f"| {score} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", help="run folders, named NAME-SEED")
    print(spread(parser.parse_args().runs))


if __name__ == "__main__":
    sys.exit(exit_status(main))
