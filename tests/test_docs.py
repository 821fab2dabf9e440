"""README.md, the pages of docs/ and the course's texts: links, commands, examples and numbers.

    python -m pytest tests/test_docs.py

A page may say only what is there. Links lead somewhere. Commands name programs and flags that
exist. Examples print what the page says. Numbers in tables are those of the logs in docs/results.
"""

import contextlib
import doctest
import importlib.util
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import eval as evaluation
import train
from tests.experiments import claims

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs/results"
UNITS = sorted((ROOT / "docs/course").glob("unit*.md"))
PAGES_OF_DOCS = [*sorted((ROOT / "docs").glob("*.md")), *UNITS]
PAGES = [*sorted(ROOT.glob("*.md")), *PAGES_OF_DOCS]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
every_page_of_docs = pytest.mark.parametrize("page", PAGES_OF_DOCS, ids=lambda page: page.name)

PLUS_MINUS = re.compile(r"\d+\.\d ± \d+\.\d")


# --------------------------------------------------------------------------------------------------
# Reading Markdown.


class Page(NamedTuple):
    """The lines of a page, sorted."""

    prose: list[str]  # everything outside code blocks, tables and headings included
    code: list[str]  # lines of code blocks, indented or between fences
    python: list[str]  # whole blocks between ```python and ```


def read_page(path: Path) -> Page:
    """Sort the lines of a page. A block without a fence is indented by four spaces."""
    prose, code, python = [], [], []
    fence = None  # the language of the block that is open
    in_list = False
    for line in path.read_text().splitlines():
        if line.lstrip().startswith("```"):
            if fence is None:
                fence = line.strip().removeprefix("```")
                if fence == "python":
                    python.append("")
            else:
                fence = None
        elif fence == "python":
            python[-1] += line + "\n"
        elif fence is not None or (line.startswith("    ") and not in_list):
            code.append(line)
        else:
            prose.append(line)
            # Indented lines below a point of a list belong to it.
            in_list = bool(re.match(r"\s*([-*]|\d+\.) ", line)) or (in_list and line != "")
    return Page(prose, code, python)


def plain(text: str) -> str:
    """The words of a cell or heading as a reader sees them, without links and marks."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return text.replace("`", "").replace("**", "").replace("\\|", "|").strip()


def cells_of(line: str) -> list[str]:
    return [plain(cell) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def tables_of(lines: list[str]) -> list[list[list[str]]]:
    """All tables of a page: lists of rows, which are lists of cells. The first is the header."""
    tables = []
    in_table = False
    for line in lines:
        if not line.startswith("|"):
            in_table = False
            continue
        if not in_table:
            tables.append([])
            in_table = True
        is_rule = set(line) <= set("|-: ")
        if not is_rule:
            tables[-1].append(cells_of(line))
    return tables


def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    anchors = set()
    for line in read_page(path).prose:
        heading = re.match(r"#+ (.*)", line)
        if heading:
            name = re.sub(r"[^\w\- ]", "", plain(heading[1]).lower()).replace(" ", "-")
            twin = 1
            anchor = name
            while anchor in anchors:
                anchor = f"{name}-{twin}"
                twin += 1
            anchors.add(anchor)
    return anchors


def sections_of(lines: list[str], heading: str) -> dict[str, list[str]]:
    """{words of a heading of this depth, such as "##": the lines below it}"""
    sections = {}
    lines_of_section = None
    for line in lines:
        if line.startswith(heading + " "):
            lines_of_section = sections.setdefault(plain(line.removeprefix(heading)), [])
        elif lines_of_section is not None:
            lines_of_section.append(line)
    return sections


# --------------------------------------------------------------------------------------------------
# Links and form.


@every_page
def test_every_link_leads_somewhere(page):
    text = re.sub(r"`[^`]*`", "", "\n".join(read_page(page).prose))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue  # another site
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors_of(file), f"{page.name}: {target} names no heading"


@every_page_of_docs
def test_tables_are_small_and_lines_short(page):
    prose = read_page(page).prose
    for line in prose:
        assert line.startswith(("|", "!", "#")) or len(line) <= 120, f"{page.name}: {line}"
    for table in tables_of(prose):
        for row in table:
            assert len(row) == len(table[0]) <= 5, f"{page.name}: {row}"
            for cell in row:
                assert len(cell) <= 40, f"{page.name}: {cell}"


@every_page
def test_files_and_names_in_them_are_there(page):
    # The course's tables of tasks are compared with tasks.toml, in test_course_texts.py.
    lines = [line for line in read_page(page).prose if not re.match(r"\| \d\.\d+ \|", line)]
    text = " ".join(lines)
    for file in re.findall(r"`((?:\w+/)*\w+\.py)`", text):
        is_there = any((ROOT / folder / file).is_file() for folder in ("", "data", "docs/course"))
        assert is_there, f"{page.name}: {file}"
    # "`info_nce` in `lift.py`"
    for name, file in re.findall(r"`([\w.]+)` in\s+`((?:\w+/)*\w+\.py)`", text):
        words = set(re.findall(r"\w+", (ROOT / file).read_text()))
        assert name.split(".")[-1] in words, f"{page.name}: {name} in {file}"


# --------------------------------------------------------------------------------------------------
# Commands.


def commands_of(page: Path) -> list[list[str]]:
    """The commands python and make in a page's code, inline code included: lists of words."""
    parts = read_page(page)
    lines = "\n".join(line.strip() for line in parts.code).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`(python [^`]*|make [^`]*)`", "\n".join(parts.prose))
    commands = []
    for line in lines:
        if not re.search(r"\b(python|make) ", line):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;>")
        lexer.whitespace_split = True
        command = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;>"):
                # own.py is a student's file, in the folder of unit 9.
                if command and command[0] in ("python", "make") and "own.py" not in command:
                    commands.append(command)
                command = []
            else:
                command.append(word)
    return commands


def program_of(command: list[str]) -> tuple[list[str], list[str]]:
    """["python", "-m", "data.search", "x"] -> (["-m", "data.search"], ["x"])"""
    length = 3 if command[1] == "-m" else 2
    return command[1:length], command[length:]


def file_of(program: list[str]) -> Path:
    """The file of ["train.py"] or of ["-m", "data.images.pack"]."""
    if program[0] == "-m":
        return (ROOT / program[1].replace(".", "/")).with_suffix(".py")
    return ROOT / program[0]


def is_project(program: list[str]) -> bool:
    return program[0] != "-m" or program[1].split(".")[0] in ("data", "tests", "train", "eval")


def test_there_are_commands_to_test():
    """Otherwise a mistake in commands_of would pass for a page without mistakes."""
    data, measurements = (
        commands_of(ROOT / f"docs/{name}.md") for name in ("data", "measurements")
    )
    assert len(data) >= 12 and len(measurements) >= 12
    packing = "python -m data.images.pack cc3m-{00000..00331}.tar /big/cc3m --size 224"
    assert packing.split() in data
    assert ["python", "-m", "tests.experiments.sentences", "runs/minilm.npy"] in data
    assert ["make", "demo"] in measurements
    # A command of two lines is one.
    assert any(command[-2:] == ["--out", "runs/icons/lift-0"] for command in data)


@every_page
def test_every_command_names_a_program(page):
    targets = re.findall(r"^([\w\-./$()]+):", (ROOT / "Makefile").read_text(), re.M)
    for command in commands_of(page):
        if command[0] == "make":
            for word in command[1:]:
                name = word.replace(".venv/", "$(VENV)/")
                pattern = "$(VENV)/%" if name.startswith("$(VENV)/") else name
                assert "=" in word or pattern in targets or pattern == "$(VENV)/%", command
            continue
        program, _ = program_of(command)
        if is_project(program):
            assert file_of(program).is_file(), f"{page.name}: {' '.join(command)}"
        else:
            assert importlib.util.find_spec(program[1]), f"{page.name}: {' '.join(command)}"


@every_page
def test_training_and_evaluation_accept_their_commands(page):
    """What is shown is accepted, and no flag is shown that has no effect."""
    for command in commands_of(page):
        if command[0] != "python":
            continue
        program, words = program_of(command)
        if {"--help", "--resume", "--init-from"} & set(words):
            continue
        complaints = io.StringIO()
        with contextlib.redirect_stderr(complaints):
            try:
                if program == ["train.py"]:
                    train.from_cli(words)
                elif program == ["eval.py"] and words:
                    evaluation.build_parser().parse_args(words)
            except (SystemExit, ValueError) as error:
                raise AssertionError(f"{command}: {complaints.getvalue()}{error}") from None
        assert not complaints.getvalue(), f"{command}: {complaints.getvalue()}"


@pytest.mark.slow
def test_every_flag_is_known():
    """A command's flags are in its program's --help; a flag alone in a text, in some program's."""
    known = {}  # program, as a text -> its flags
    for page in PAGES:
        for command in commands_of(page):
            if command[0] != "python":
                continue
            program, words = program_of(command)
            flags = {word.split("=")[0] for word in words if word.startswith("--")}
            if not flags or not is_project(program):
                continue
            name = " ".join(program)
            if name not in known:
                known[name] = flags_of(program)
            assert flags <= known[name], f"{page.name}: {flags - known[name]} of {name}"
    assert len(known) >= 8

    everywhere = set().union(*known.values())
    for page in PAGES:
        text = "\n".join(read_page(page).prose)
        for flag in re.findall(r"`(--[a-z][\w-]*)[^`]*`", text):
            assert flag in everywhere, f"{page.name}: {flag}"


def flags_of(program: list[str]) -> set[str]:
    """The flags in a program's --help."""
    done = subprocess.run(
        [sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", done.stdout))


# --------------------------------------------------------------------------------------------------
# Examples.


def test_the_examples_of_evaluation_print_what_the_page_says():
    blocks = read_page(ROOT / "docs/evaluation.md").python
    examples = doctest.DocTestParser().get_doctest(
        "\n".join(blocks), {}, "docs/evaluation.md", "docs/evaluation.md", 0
    )
    assert len(examples.examples) >= 25
    complaints = io.StringIO()
    runner = doctest.DocTestRunner()
    runner.run(examples, out=complaints.write)
    assert not runner.summarize(verbose=False).failed, complaints.getvalue()


@pytest.mark.slow
def test_a_run_from_python_works_as_shown(small, monkeypatch, capsys):
    """The blocks that load a run, with a run of a few steps in its place."""
    monkeypatch.chdir(ROOT)
    train.train(train.Config(**small))
    capsys.readouterr()
    count = 0
    for page in PAGES:
        for block in read_page(page).python:
            if "lift.load(" in block:
                block = re.sub(r'lift\.load\("[^"]*"\)', f"lift.load({small['out']!r})", block)
                exec(compile(block, str(page), "exec"), {})
                assert re.match(r"tensor\(\[\[.*\]\]\)", capsys.readouterr().out)
                count += 1
    assert count


# --------------------------------------------------------------------------------------------------
# Numbers.


def results_of_claims() -> dict[str, dict[str, str]]:
    """{run of a table of docs/claims.md: {column: cell}}, from the logs."""
    table, *_ = tables_of((RESULTS / "claims.md").read_text().splitlines())
    found = {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}

    # The demo, by its log with three seeds.
    _, summary = tables_of((RESULTS / "demo_seeds.md").read_text().splitlines())
    columns = {
        "retrieval i2t R@1": "i2t R@1",
        "retrieval t2i R@1": "t2i R@1",
        "compositional mean": "mean of 7",
        "compositional replace_rel": "replace_rel",
        "compositional replace_obj": "replace_obj",
        "zeroshot top1": "zero-shot",
    }
    for place, run in enumerate(("LIFT", "LIFT + matrix", "CLIP"), 1):
        found[run] = {columns[row[0]]: row[place] for row in summary if row[0] in columns}

    # Two runs of the course.
    course = tables_of((RESULTS / "course.md").read_text().splitlines())
    (scores,) = (table for table in course if "mean of seven" in table[0])
    of_run = {row[0]: row[1:5] for row in scores}
    header = ("i2t R@1", "t2i R@1", "mean of 7", "replace_rel")
    for run, name in (
        ("LIFT, cosine loss", "lift_cos"),
        ("LIFT, tuned", "LIFT, LLM tuned for 60 steps"),
    ):
        found[run] = dict(zip(header, of_run[name], strict=True))
    return found


def test_the_results_are_those_of_their_runs(capsys, monkeypatch):
    """The tables are what the experiment prints of the .jsonl files."""
    text = (RESULTS / "claims.md").read_text()
    lines = claims.read_lines(RESULTS / "claims.jsonl")
    claims.table(lines)
    assert capsys.readouterr().out.strip() in text
    claims.differences(lines)
    assert capsys.readouterr().out.strip() in text

    # The recipes of the older runs are gone from the code. Each name has one in the file.
    text = (RESULTS / "claims_before.md").read_text()
    lines = claims.read_lines(RESULTS / "claims_before.jsonl")
    names = re.findall(r"^\| (\S+(?: \S+)*) \| [13] \|", text, re.M)
    assert {line["name"] for line in lines} == {*names, "adapter"}
    monkeypatch.setattr(claims, "RUNS", {line["name"]: line["flags"] for line in lines})
    monkeypatch.setattr(claims, "RUNS", {name: claims.RUNS[name] for name in names})
    monkeypatch.setattr(claims, "recipe", claims.RUNS.get)
    claims.table(lines)
    assert capsys.readouterr().out.strip().split("\n\n")[0] in text


@every_page
def test_every_mean_and_deviation_is_in_a_log(page):
    names = ("claims.md", "LOG.md", "demo_seeds.md", "text_map.md", "icons_runs.md")
    names += ("four_epochs.md", "text_matrix.md", "adapter.md", "claims_before.md")
    names += (
        "other_end.md",
        "reversed.md",
        "few.md",
        "best.md",
        "sweep.md",
        "course.md",
        "labels.md",
        "emoji_runs.md",
        "winoground.md",
        "paraphrases.md",
        "sigmoid.md",
        "crossed.md",
        "other_world.md",
    )
    logs = "".join((RESULTS / name).read_text() for name in names)
    for number in PLUS_MINUS.findall(page.read_text()):
        assert number in logs, f"{page.name}: {number}"


# Words of docs/claims.md for columns of docs/results/claims.md
COLUMN_OF = {"composition": "mean of 7", "relations": "replace_rel", "shapes": "replace_obj"}


def test_the_tables_of_claims_are_the_log_s():
    results = results_of_claims()
    cells = 0
    for table in tables_of(read_page(ROOT / "docs/claims.md").prose):
        if table[0][0] != "run":
            continue
        for row in table[1:]:
            for column, cell in list(zip(table[0], row, strict=True))[1:]:
                expected = results[row[0]][COLUMN_OF.get(column, column)]
                assert cell == expected, f"{row[0]}, {column}: {cell}, not {expected}"
                cells += 1
    assert cells > 100


def test_the_table_of_operations_is_the_log_s():
    tables = {table[0][0]: table for table in tables_of(read_page(ROOT / "docs/claims.md").prose)}
    # The same numbers, with a space before the per cent sign.
    (operations,) = tables_of((RESULTS / "flops.md").read_text().splitlines())
    header = operations[0]
    expected = []
    for row in operations[1:]:
        values = dict(zip(header, row, strict=True))
        sizes = f"{values['sizes']}, {values['caption tokens']}"
        saved = values["LIFT against CLIP"].replace("%", " %")
        expected.append([sizes, saved, values["passes until LIFT is cheaper"]])
    assert tables["sizes, tokens of a caption"][1:] == expected


def test_each_claim_has_one_verdict():
    marks = ("holds", "holds in part", "does not hold", "not shown")
    prose = read_page(ROOT / "docs/claims.md").prose
    sections = sections_of(prose, "##")
    (overview,) = (table for table in tables_of(prose) if table[0][-1] == "verdict")
    assert [row[0] for row in overview[1:]] == [str(number) for number in range(1, 16)]
    for number, paper, _, mark in overview[1:]:
        titles = [title for title in sections if title.startswith(f"{number}. ")]
        assert len(titles) == 1 and titles[0].startswith(f"{number}. {paper}: ")
        verdicts = [line for line in sections[titles[0]] if line.startswith("**Verdict")]
        assert verdicts == [f"**Verdict: {mark}.**"] and mark in marks


def test_loose_numbers_of_the_defaults_are_those_of_the_code():
    """Numbers in sentences and examples, which no table holds."""
    docs = {page.stem: page.read_text() for page in (ROOT / "docs").glob("*.md")}
    assert train.Config().lr == 1.4e-3 and all(
        "1.4e-3" in docs[name] for name in ("glossary", "methods", "evaluation")
    )
    (last,) = set(re.findall(r"^step (\d+)/\1 \|", (RESULTS / "demo.log").read_text(), re.M))
    assert f"| epochs | {train.EPOCHS}, or as many as" in docs["data"]
    assert f"The default is {train.EPOCHS}\nepochs" in docs["glossary"]
    assert f'"step": {last}, ' in docs["evaluation"] and f"step 50/{last} |" in docs["evaluation"]
    (shown,) = re.findall(r"^ {4}(step 50/\d+ \| .*) \| \.\.\.$", docs["evaluation"], re.M)
    assert shown in (RESULTS / "demo.log").read_text()


def test_the_verdicts_of_readme_are_those_of_claims():
    sections = sections_of(read_page(ROOT / "docs/claims.md").prose, "##")
    verdict_at = {}  # anchor -> mark
    for title, lines in sections.items():
        for mark in re.findall(r"^\*\*Verdict: (.*)\.\*\*$", "\n".join(lines), re.M):
            anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            verdict_at[anchor] = mark
    rows = re.findall(
        r"\(docs/claims\.md#([\w-]+)\) *\| *([^|]*?) *\|", (ROOT / "README.md").read_text()
    )
    assert len(verdict_at) == 15 and dict(rows).keys() <= verdict_at.keys()
    for anchor, mark in rows:
        assert mark == verdict_at[anchor], f"README.md: {anchor}: {mark}, not {verdict_at[anchor]}"


def test_the_table_of_three_seeds_is_the_log_s():
    """Mean and standard deviation, worked out again from the nine columns of demo_seeds.md."""
    scores, summary = tables_of((RESULTS / "demo_seeds.md").read_text().splitlines())
    of_row = {}
    for row in scores[1:]:
        values = [float(cell.split()[0]) for cell in row[2:]]
        of_row[row[0]] = [
            (np.mean(v), np.std(v, ddof=1)) for v in (values[:3], values[3:6], values[6:])
        ]
    for name, *cells in summary[1:]:
        for cell, (mean, deviation) in zip(cells, of_row[name], strict=True):
            # The log's numbers are rounded to 0.1 already.
            shown = [float(number) for number in cell.split(" ± ")]
            assert shown == pytest.approx([mean, deviation], abs=0.11), name
    # The page shows some of its rows.
    lines = sections_of(read_page(ROOT / "docs/evaluation.md").prose, "###")
    shown, *_ = tables_of(lines["The demo with three seeds"])
    assert shown[0] == summary[0] and len(shown) > 10
    assert all(row in summary for row in shown)


def rows_of_demo() -> list[list[str]]:
    """The rows of demo.log: words, chance, and the three runs."""
    tables = tables_of((RESULTS / "demo.log").read_text().splitlines())
    return [row for table in tables for row in table[1:] if len(row) == 5]


def rows_of_seeds() -> list[list[str]]:
    """The same of demo_seeds.md, with the means over its seeds."""
    scores, summary = tables_of((RESULTS / "demo_seeds.md").read_text().splitlines())
    return [[*s[:2], *m[1:]] for s, m in zip(scores[1:], summary[1:], strict=True)]


@pytest.mark.parametrize(
    "name, log, rows",
    [("README.md", rows_of_seeds(), 7), ("docs/evaluation.md", rows_of_demo(), 15)],
)
def test_the_demo_s_table_is_the_log_s(name, log, rows):
    """Each row of a table with the columns of the demo has the numbers of one row of the log.

    A row may be named in other words. But where it has words of the log ("i2t", "R@1"), they must
    be those of the row with its numbers. Intervals may be left out.
    """
    columns = ["chance", "lift", "lift + matrix", "clip"]
    vocabulary = {word for row in log for word in row[0].split()}

    found = 0
    for table in tables_of(read_page(ROOT / name).prose):
        header = [cell.lower() for cell in table[0]]
        if not set(columns) <= set(header):
            continue
        places = [header.index(column) for column in columns]
        for row in table[1:]:
            words = {word for word in re.findall(r"[\w@]+", row[0]) if word in vocabulary}
            numbers = [row[place].rstrip(" %") for place in places]
            fitting = [
                logged
                for logged in log
                if words <= set(logged[0].split())
                and all(
                    agrees(shown, there) for shown, there in zip(numbers, logged[1:], strict=True)
                )
            ]
            assert fitting, f"{name}: {row}"
            found += 1
    assert found >= rows


def agrees(shown: str, logged: str) -> bool:
    """Is a number the logged one? Its interval may be left out, and a 0 behind the point."""
    value = logged.split(" [")[0]
    return shown in (logged, value, value.removesuffix(".0"))


def test_speed_and_memory_are_those_of_the_log():
    logged = tables_of((RESULTS / "data.md").read_text().splitlines())
    speed, one_million, three_million = logged
    shown = {table[0][0]: table for table in tables_of(read_page(ROOT / "docs/data.md").prose)}
    assert shown["2,000 JPEG images, 640 x 480, at 224"][1:] == speed[1:]
    memory = shown["GB above the imports"]
    assert memory[0][1:] == ["1 million captions", "3 million captions"]
    for row, one, three in zip(memory[1:], one_million[1:], three_million[1:], strict=True):
        assert row[1:] == [one[1], three[1]] and row[0][:5] == one[0][:5]


def test_the_table_of_icons_is_the_log_s():
    log = (RESULTS / "icons.md").read_text()
    page = (ROOT / "docs/data.md").read_text()
    (table,) = (t for t in tables_of(page.splitlines()) if t[0][-1] == "drawn by")
    assert [row[0] for row in table[1:]] == re.findall(r"^- (\w+\.tar): ", log, re.M)
    for tar, images, concepts, _ in table[1:]:
        logged = re.search(rf"^- {tar}: (\d+) images of (\d+) concepts", log, re.M).groups()
        assert [n.replace(",", "") for n in (images, concepts.split()[0])] == list(logged)
    for words in ("{} images of\n{} concepts", "For {} of {} names", "has {} lines"):
        pattern = re.escape(words).replace(r"\{\}", r"([\d,]+)")
        for number in re.search(pattern, page).groups():
            assert re.search(rf"\b{number.replace(',', '')}\b", log), number
