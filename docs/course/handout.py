"""Texts of the course: units filled in, sheets for answers, one page of HTML.

The units' texts (unitN.md) have three places to fill in: their table of tasks, which is that of
tasks.toml, {band:N}, and {question:N}.
"""

import base64
import html as escape
import re
from pathlib import Path

from . import written
from .experiments import Edition, read_bands
from .holes import HERE, CourseError, Task

FIGURES = HERE.parent / "figures"
WHAT = "A course on contrastive learning with frozen encoders"


# --------------------------------------------------------------------------------------------------
# A unit's text.

# Before the numbers of each unit.
ABOUT_BANDS = """\
These are our numbers, with our seeds. A *band* is where we expect your number. Where a seed stands
in brackets, your run with that seed must have our number, to within what is said. A number *for
comparison* has no band. The numbers are from CPUs with x86 processors: where there is a GPU, and on
a Mac, add `--device cpu`. On other processors OUTSIDE proves nothing. If `make check` says OUTSIDE,
look first at the flags, the seed and the device, and then at your code. If all is right there, run
two more seeds, and write down all three numbers. Then a number outside costs no points."""


def unit_text(unit: int, tasks: list[Task], edition: Edition) -> str:
    """A unit's text with its tasks, bands and question. CourseError where something is missing."""
    path = HERE / f"unit{unit}.md"
    if not path.is_file():
        raise CourseError(f"docs/course/unit{unit}.md is missing: each unit has a text")
    text = path.read_text()
    rows = ["| task | what you write | file | points |", "|---|---|---|---|"]
    for task in tasks:
        if task.unit == unit:
            rows.append(f"| {task.id} | `{task.name}` | `{task.file}` | {task.points} |")
    lines, in_tasks, done = [], False, False
    for line in text.splitlines():
        if line.startswith("## "):
            in_tasks = line == "## The tasks"
        if in_tasks and line.startswith("|"):
            if not done:
                lines += rows
            done = True
        else:
            lines.append(line)
    if not done:
        raise CourseError(f"docs/course/unit{unit}.md has no table below '## The tasks'")
    text = "\n".join(lines) + "\n"
    bands = (
        "\n".join(f"- {band.in_words()}" for band in read_bands(unit, edition.bands))
        or "This experiment has no band."
    )
    bands = f"{ABOUT_BANDS}\n\n{bands}"
    question = written.question_for(unit, edition.seed)["question"]
    text = with_seeds(text, edition.run_seeds(unit))
    text = text.replace(f"{{band:{unit}}}", bands).replace(f"{{question:{unit}}}", question)
    left = re.search(r"\{(band|question):[^}]*\}", text)
    if left:
        raise CourseError(f"docs/course/unit{unit}.md: {left[0]} cannot be filled in")
    return text


def with_seeds(text: str, seeds: tuple[int, ...]) -> str:
    """A text whose commands have the seeds 0, 1 and 2, with other ones in their place.

    A row of a table that begins with "seeds" lists them all. Other numbers stay as they are.
    """

    def other(found: re.Match) -> str:
        return found[1] + str(seeds[int(found[2])])

    text = re.sub(r"(--seed\s+)([012])\b", other, text)
    text = re.sub(r"(runs/[\w.-]+-|`five-)([012])\b", other, text)
    return text.replace("| seeds | 0, 1, 2 |", f"| seeds | {', '.join(map(str, seeds))} |")


def figures_of(text: str) -> list[str]:
    """The names of the figures that a text shows."""
    return re.findall(r"\]\(\.\./figures/([\w.-]+)\)", text)


def sheet(unit: int, edition: Edition) -> str:
    """Where a student writes the answer."""
    question = written.question_for(unit, edition.seed)
    seeds = ", ".join(f"`--seed {number}`" for number in edition.run_seeds(unit))
    return (
        f"# Unit {unit}: your answer\n\n## The written question ({question['points']} points)\n\n"
        f"{question['question']}\n\n## Your answer\n\n(write here)\n\n"
        f"## What you measured\n\n5 points: 2 for logs that belong to the commands; 2 for the "
        f'table, with the spread where there are several seeds, and for what else "Hand in" names; '
        f"1 for the sentences that the text asks for, or for one on what surprised you, or on a "
        f"number outside its band. A log that does not fit its command: 0 for all.\n\n"
        f"Where the text repeats a run with several seeds, take {seeds}.\n\n"
        f"Commands, seeds, a table, and what surprised you:\n\n(write here)\n\n"
        f'## Help\n\n"None" is an answer. Leaving this empty costs 1 point of the written answer. '
        f"Help that is used and not named: 0 for the written answer.\n\nWrite here which solutions "
        f"you looked at, and what you understood by them, and which language models you asked, and "
        f"for what:\n\n"
        f"(write here)\n"
    )


def policy() -> str:
    """What the course's page says of public solutions, and of help from language models."""
    text = (HERE / "README.md").read_text()
    start = text.find("## Public solutions\n")
    if start < 0:
        raise CourseError("docs/course/README.md has no section on public solutions")
    return text[start:]


def glossary() -> str:
    """The project's glossary. Links to pages that students do not have become plain words."""
    text = (HERE.parent / "glossary.md").read_text()
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)[^)]+\)", r"\1", text)


def readme(tasks: list[Task]) -> str:
    """The first page of student/."""
    units = sorted({task.unit for task in tasks})
    titles = {}
    for unit in units:
        path = HERE / f"unit{unit}.md"
        titles[unit] = path.read_text().splitlines()[0].lstrip("# ") if path.is_file() else unit
    listed = "\n".join(f"- `unit{unit}/`: {titles[unit]}" for unit in units)
    first = units[0]
    return f"""# {WHAT}

{listed}

## Begin

    make setup                # once: PyTorch and four small packages
    make check UNIT={first}         # which tests hold, in seconds

On Linux without a GPU this setup saves a download of several GB:

    make setup PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

Python 3.11 or newer is needed, on Linux, macOS, or Windows with WSL2. An environment that you have
already can be named in place of the setup. Say it once: `export VENV=/path/to/it`.

Two more files are for reading. `tour.ipynb` follows one image and one caption through the whole
project. Its results are stored in it, so it need not be run. To run it, install `notebook` in the
environment. It shows parts of the units 1, 2 and 3, so close it before you write. `glossary.md`
explains the words.

## Each unit

1. Read `unit{first}/README.md`.
2. In the unit's folder, some functions end in `raise NotImplementedError("task {first}.1: ...")`.
   Write their bodies. Signature and docstring say what comes in and what goes out. Where a task is
   a row of a table, replace each `...` by a value. You may add functions, constants and imports.
   Nothing else that you change is graded.
3. `make check UNIT={first}` says which tests hold, and compares your logs with our bands. `make
   check UNIT={first} TASK={first}.1` takes one task. Your teacher has a few more tests. Begin with
   the first `NO`: the next ones may have the same cause. The last line of make, `Error 1`, only
   says that not all tests hold.
4. Run the experiment in a second terminal, because `make` needs this folder. Begin there with
   `cd unit{first}` and `source ../.venv/bin/activate`, or activate your own environment. Then all
   commands of the text work as they stand. On a machine with a GPU, and on a Mac, add
   `--device cpu` to those of `train.py`, `eval.py`, `llm_text.py` and `own.py`. Runs go to
   `unit{first}/runs`. The first run fetches the language model, 98 MB, and keeps it for all units.
5. Write your answer into `unit{first}/answers.md`. A drawing is saved beside it, as png or pdf.
6. `make submit` packs code, logs, drawings and answers of all units into `submission.zip`. `make
   submit UNIT={first}` packs those of one into `submission-unit{first}.zip`. It says which runs of
   the text's commands are not there, which of their scores, and which sections of `answers.md` are
   empty.

Files that a text calls `docs/...` or `tests/...`, and that are not in the unit's folder, are those
of the project that this course is made from. So are pages and claims that `glossary.md` names in
brackets. They say where a number comes from. No task needs them.

The code of each unit stands alone: in its folder only its own functions are missing. Each task
stands alone, too: the tests of a task use the finished code for everything else. A run of the
experiment stops at a function that is not written yet.

## The solutions

`course/reference` has the finished code, because the grader needs it: the tests of a task run with
the finished code around your function. The folders of the other units have it, too, as far as it is
not missing there. So tasks of later units stand finished in the folders of earlier ones: do not
read them. Look at a solution after you have tried.

{policy()}"""


# --------------------------------------------------------------------------------------------------
# Markdown -> HTML, as much of it as the units use.

STYLE = """
body { font: 17px/1.55 Georgia, serif; color: #19191e; max-width: 44em; margin: 2em auto;
       padding: 0 1em }
h1 { margin-top: 3em; page-break-before: always } h1:first-of-type { page-break-before: avoid }
pre, code { font: 0.85em/1.45 monospace }
pre { background: #f5f5f2; padding: 0.7em 1em; overflow-x: auto }
table { border-collapse: collapse }
td, th { border-top: 1px solid #ccc; padding: 0.25em 0.8em; text-align: left }
img { max-width: 100% } nav a { display: block }
/* Paper does not scroll: equations and commands are small enough for their longest line. */
@media print { body { font-size: 11pt; margin: 0; max-width: none }
pre { font-size: 7.5pt; white-space: pre-wrap } pre, img, tr { break-inside: avoid }
h2, h3 { break-after: avoid } }
"""


def inline(text: str) -> str:
    """Words with code, links, bold and italics."""
    # Code comes out first and goes in last: no mark inside it means anything.
    codes = []

    def take_out(code: re.Match) -> str:
        codes.append(f"<code>{escape.escape(code[1])}</code>")
        return f"\0{len(codes) - 1}\0"

    text = escape.escape(re.sub(r"`([^`]+)`", take_out, text), quote=False).replace("\\|", "|")
    text = re.sub(r"!\[([^\]]*)\]\(([^)]+)\)", lambda found: image(found[1], found[2]), text)
    text = re.sub(r"\[([^\]]+)\]\((https?:[^)]+)\)", r'<a href="\2">\1</a>', text)
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)  # a page that is not here
    text = re.sub(r"\*\*(\S[^*]*)\*\*", r"<b>\1</b>", text)
    text = re.sub(r"(?<![\w*])\*(\S[^*]*?)\*(?![\w*])", r"<i>\1</i>", text)
    return re.sub(r"\0(\d+)\0", lambda found: codes[int(found[1])], text)


def image(words: str, target: str) -> str:
    """A figure inside the page, so that the page is one file."""
    path = FIGURES / Path(target).name
    if not path.is_file():
        raise CourseError(f"the figure {target} is not there")
    kind = "svg+xml" if path.suffix == ".svg" else path.suffix[1:]
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{words}" src="data:image/{kind};base64,{content}">'


def to_html(text: str) -> str:
    """Headings, paragraphs, lists, tables, indented and fenced code."""
    out = []
    for block in blocks(text):
        first = block[0]
        if first.startswith("#"):
            level = len(first) - len(first.lstrip("#"))
            out.append(f"<h{level}>{inline(first[level:].strip())}</h{level}>")
        elif first.startswith("```"):
            out.append(f"<pre>{escape.escape(chr(10).join(block[1:]).removesuffix('```'))}</pre>")
        elif first.startswith("    "):
            code = "\n".join(line[4:] for line in block).rstrip()
            out.append(f"<pre>{escape.escape(code)}</pre>")
        elif first.startswith("|"):
            rows = [
                re.split(r"(?<!\\)\|", line.strip().strip("|"))
                for line in block
                if set(line) - set("|-: ")
            ]
            cells = ["".join(f"<td>{inline(cell.strip())}</td>" for cell in row) for row in rows]
            out.append("<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>")
        elif re.match(r"(-|\d+\.) ", first):
            kind = "ul" if first.startswith("-") else "ol"
            items = re.split(r"^(?:-|\d+\.) ", "\n".join(block), flags=re.M)[1:]
            listed = "".join(f"<li>{inline(' '.join(item.split()))}</li>" for item in items)
            out.append(f"<{kind}>{listed}</{kind}>")
        else:
            out.append(f"<p>{inline(' '.join(line.strip() for line in block))}</p>")
    return "\n".join(out)


def blocks(text: str) -> list[list[str]]:
    """The lines of a page, block by block. A blank line ends a block, but not inside code."""
    found, block, kind = [], [], ""
    for line in text.splitlines():
        if kind == "fence":
            block.append(line)
            if line.startswith("```"):
                kind = ""
                found.append(block)
                block = []
            continue
        new = "fence" if line.startswith("```") else "heading" if line.startswith("#") else ""
        if not new:
            new = (
                "code" if line.startswith("    ") else "table" if line.startswith("|") else "words"
            )
        is_list = bool(re.match(r"(-|\d+\.) ", line))
        if not line.strip():
            if kind == "code":
                block.append("")
            elif block:
                found.append(block)
                block, kind = [], ""
            continue
        if kind == "list" and (is_list or line.startswith("  ")) or is_list:
            new = "list"
        if block and (new != kind or new in ("heading", "fence")):
            found.append(block)
            block = []
        block.append(line)
        kind = new
    return [one for one in [*found, block] if any(line.strip() for line in one)]


def html(units: list[int], tasks: list[Task], edition: Edition) -> str:
    """All units as one page, to read and to print."""
    body = "\n".join(to_html(unit_text(unit, tasks, edition)) for unit in units)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{WHAT}</title>\n'
        f"<style>{STYLE}</style>\n{body}\n</html>\n"
    )
