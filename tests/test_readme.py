"""README.md: the files it names are there, its training commands parse, its numbers are those of its logs.

python -m pytest tests/test_readme.py
"""

import json
import re
import shlex
from pathlib import Path

import train
from tests.experiments import claims, emoji64

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
    rows = [
        line
        for line in README.splitlines()
        if line.startswith(("| retrieval", "| compositional", "| zeroshot"))
    ]
    assert len([row for row in rows if "[" in row and row in log]) == 15


def test_claims_are_the_runs_numbers(capsys):
    claims.table(
        [json.loads(line) for line in (ROOT / "docs/results/claims.jsonl").read_text().splitlines()]
    )
    table, file = capsys.readouterr().out, (ROOT / "docs/results/claims.md").read_text()
    assert table.strip() in file
    section = README[README.index("## The claims, tested") : README.index("## Real pictures")]
    numbers = re.findall(r"\d+\.\d ± \d+\.\d", section)
    assert len(numbers) > 30 and all(number in table for number in numbers)


def test_the_emoji_table_is_the_log_s(capsys):
    emoji64.table(
        [
            json.loads(line)
            for line in (ROOT / "docs/results/emoji64.jsonl").read_text().splitlines()
        ]
    )
    table = capsys.readouterr().out
    section = README[README.index("## Real pictures") : README.index("## By hand")]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) >= 12 and all(row in table.splitlines() for row in rows)
    assert table.strip() in (ROOT / "docs/results/emoji64.md").read_text()
    assert all(number in table for number in re.findall(r"\d+\.\d ± \d+\.\d", section))


def test_operations_are_those_of_the_table():
    flops = (ROOT / "docs/results/flops.md").read_text()
    for saved, passes in (("-14.9%", "59"), ("-43.7%", "56")):
        assert (
            f"| {saved} |" in flops
            and f"| {passes} |" in flops
            and saved.replace("%", " %") in README
            and passes in README
        )
