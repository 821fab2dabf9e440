"""README.md: the files it names are there, its training commands parse, its numbers are those of its logs.

    python -m pytest tests/test_readme.py
"""

import json
import re
import shlex
from pathlib import Path

import train

ROOT = Path(train.__file__).parent
README = (ROOT / "README.md").read_text()


def test_files_and_commands():
    assert "@@" not in README
    for path in re.findall(r"`([\w/]+\.(?:py|md|log|jsonl))`|\((docs/[\w./]+)\)", README):
        name = "".join(path)
        assert (ROOT / name).exists() or (ROOT / "docs/results" / name).exists(), name
    commands = re.findall(r"^    python train\.py(.*?)(?:#.*)?$", README, re.M)
    assert len(commands) >= 4
    for words in map(shlex.split, commands):
        if "--help" not in words:
            train.from_cli(words)


def test_demo_table_is_the_log_s():
    log = (ROOT / "docs/results/demo.log").read_text().replace("runs/demo/", "")
    rows = [line for line in README.splitlines() if line.startswith(("| retrieval", "| compositional", "| zeroshot"))]
    assert len([row for row in rows if "[" in row and row in log]) == 15


def test_seed_table_is_the_runs_means():
    runs = [json.loads(line) for line in (ROOT / "docs/results/seeds.jsonl").read_text().splitlines()]
    for method, column in (("lift", 0), ("clip", 1)):
        means = [100 * r["compositional"]["mean"] for r in runs if r["method"] == method]
        row = next(line for line in README.splitlines() if line.startswith("| compositional mean") and "±" in line)
        assert len(means) == 3 and row.split("|")[2 + column].strip().startswith(f"{sum(means) / 3:.1f} ±")
