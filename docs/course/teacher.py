"""What only the teacher gets: how to use the course, rubric, bands, answers, wrong solutions."""

import json
from pathlib import Path

from . import written
from .experiments import Edition, read_bands
from .holes import Task
from .mutants import MUTANTS

README = """# For the teacher

## On day one

1. Hand out `student/` (as a zip, or as a repository).
2. Choose how to grade. The commands stand in the project's folder, after `source
   .venv/bin/activate`.
   - **Gradescope**: a programming assignment; upload `gradescope.zip`. The default limits are
     enough: 768 MB, half a core, 10 minutes. `setup.sh` installs Python 3.11 and PyTorch for the
     CPU when the image is built; grading needs no network. One assignment for each unit is best,
     because each has its own deadline. Build each one: `python -m docs.course.make --seed N --units
     3 --out build/unit3`, and upload `build/unit3/gradescope.zip`. Take the same N as for
     `student/`. The grader gives 10 points for each unit in the zip. You add two parts of 5 points
     by hand for each unit: the measured numbers and the written answer, by the lines of
     `rubric.md`. Students upload the zip that `make submit UNIT=3` makes. The lines "logs of the
     experiment" have no points. They are red where a log is missing or a number is outside.
   - **GitHub Classroom**: make a template repository of `classroom/`. Students hand in with `git
     add`, `git commit` and `git push`, logs and answers too. Read below what it does not protect.
   - **nbgrader**: `python -m pip install -r docs/course/requirements-forms.txt`, then
     `cd build/course/nbgrader`, and `nbgrader generate_assignment unitN` for unit N. Hand out
     `release/unitN`. The folder `source/` has the solutions and the answers: never hand it out.
   - **otter**: install the same file. Then `cd build/course`, and `otter assign
     otter/unitN/unitN.ipynb dist/unitN`. Hand out `dist/unitN/student`, and never `otter/`.
3. Decide the rules, and tell students in week one. A suggestion: a unit is due a week after its
   lesson. A late one loses 2 of 20 points a day, for three days. The last submission before the
   deadline counts. If a file cannot be read or has another name, the student may hand it in again
   within two days, with no other change. All units weigh the same.
4. Read `rubric.md`. Run the experiments of your units once on your own machine, in the project's
   folder and not in `student/`: `python -m docs.course.measure --units 1,2` runs those of the units
   1 and 2 with the seeds 0, 1 and 2, and writes `build/bands-0.toml`. All units take about four
   hours of one core. By hand: `mkdir -p runs`, then the commands of `bands.md`, with a number for
   SEED. Where a command stands several times, run it once. `bands.md` lists only the runs whose
   numbers are compared; the texts list all. Compare your numbers with those of `bands.md`. If yours
   lie outside, build with your own bands: add `--units 1,2 --bands build/bands-0.toml` to
   `docs.course.make`, with all units that you measured.

A unit is worth 20 points: 10 for code, which the grader gives, 5 for measured numbers with their
logs, and 5 for the written answer, which you give. So 40 students mean 80 parts that you read in
each unit. For each written question `answers.md` has a sample of a weak answer, with the points
that it earns. Graders who give it their own points first see where they differ.

## A unit in a week

How many hours a student needs is not measured. A plan for one lesson of 90 minutes:

| where | what |
|---|---|
| lesson, 45 minutes | the idea and the equations at the board, one small case by hand |
| lesson, 30 minutes | `make setup` in the first week; then the first task together, and `make check` |
| lesson, 15 minutes | the traps, and the question of the week before |
| at home | the other tasks, the experiment, the written answer |

Let students hand in as often as they like. Gradescope shows them what a hidden test found.

## What is protected, and how

- **A task's points are given when all its tests hold.** The tested file is the reference with the
  student's function in the place of ours. So nothing else in the submission counts, and a wrong
  function costs its own task only. A file that Python cannot read, as with a missing bracket, costs
  all tasks of this file. `make check` shows that before the deadline.
- **The student's code runs in another process than the tests.** It gets arguments and gives numbers
  back, as JSON. The tests compare these numbers where no line of the student's ever runs. So a
  print of results, `sys.exit(0)`, a patched `torch.allclose`, a test that the submission deletes or
  rewrites, or a walk up the stack changes no verdict.
- **results.json** has 0 points before anything is read, and is written again after every test, by
  the grader's process.
- **Limits**: 8 seconds for a test (20 for the one that resumes a run and the one that makes a step
  of `train.py`, 40 for the one that trains a row), 25 to import a file, 448 MB of data, 10 MB for a
  file. After a test that ran out of time the others of its task do not run. After 500 seconds
  everything stops.
- **Another user**: where the grader is root, as on Gradescope, the student's processes are a user
  that owns nothing. They cannot write results.json, and cannot read the hidden tests or kill the
  grader. If Python lies in a folder that other users cannot enter, the student's processes are
  root, and the grader warns.

## What is not protected

- The solutions are public. Whoever pastes the reference passes. So the code earns only half of the
  points. The model answers are public, too: `python -m docs.course.written --seed N` prints them
  for any seed. Choose a seed of your own, and do not publish it. Some questions have few numbers or
  none (3a, 4c, 6a, 7a, 8a), and 9a is always the same. Where an answer repeats the model answer,
  let its author explain it aloud.
- In unit 9 the example `course/own.py`, handed in as it is, gets all 10 points. Compare first:
  `diff course/own.py SUBMISSION/unit9/own.py`. A row with the three functions of the example gets 0
  points for code.
- A function may look at its arguments and give back known numbers, test by test. That is harder
  than the task.
- **GitHub Classroom** runs the tests that students have, with the grader that lies in their
  repository. A student who changes a file in `course/` or `.github/` can get all points. No hidden
  test runs there. Take its points as a first look. For the marks clone the repositories, and run
  `python -m course.grade --submission REPOSITORY --results results.json` in the unzipped
  `gradescope.zip`.
- Where the grader is not root, as on a laptop, the student's process is the same user. It can read
  the hidden tests, kill the grader, or overwrite results.json after it has ended. What it writes or
  deletes while the grader runs changes no verdict: the tests are read before, and results.json is
  written again.
- The limit of memory holds for each process of a student, and not for memory that several share. So
  whoever means to can still use up the machine's memory. That costs the student's own points only:
  results.json stays as it was after the last test.
- In the forms of nbgrader and otter the notebook runs in one kernel, and the cells that ask for a
  verdict run in it. A student can replace the function `check` there. The verdict itself comes from
  the isolated processes, but the kernel is trusted to pass it on. If it matters, grade with `python
  -m course.grade`.
- In these two forms the experiments of the units 1 to 8 run with the reference. Their numbers say
  nothing about the student's code.
- In unit 9 the row is trained where the student's code is, so "64 pairs by heart" is what that
  process says.
- Logs are what students say they are. Ask for commands and seeds, and run the best of the
  leaderboard again.

## If something goes wrong

`python -m course.grade --submission DIR --results results.json` in the unzipped `gradescope.zip`
grades a submission anywhere. `make course-check` in the repository shows that the reference gets
all points, an empty submission none, and that each wrong solution of `wrong_solutions.md` is
caught.
"""


def rubric(tasks: list[Task], edition: Edition) -> str:
    lines = [
        "# Rubric",
        "",
        "How to read a line: a line of 2 points may earn 1 for half of it. A line of 1 point asks "
        "for all that",
        'it names, unless it says "or". A wrong number costs its own line only: what follows from '
        "it rightly",
        "keeps its points. Other words and another right way earn the same.",
        "",
    ]
    for unit in sorted({task.unit for task in tasks}):
        here = [task for task in tasks if task.unit == unit]
        question = written.question_for(unit, edition.seed)
        lines += [
            f"## Unit {unit}",
            "",
            "| part | points | given by |",
            "|---|---|---|",
            *(f"| {task.id} `{task.name}` | {task.points} | the grader |" for task in here),
            "| measured numbers, with commands, seeds and logs | 5 | you |",
            f"| the written answer ({question['id']}) | {question['points']} | you |",
            "",
            "Measured numbers: 2 for logs (in a notebook: their last lines) that belong to the "
            "commands; 2 for the "
            "table, with the spread where",
            'there are several seeds, and for what else "Hand in" names, such as a count or a '
            "drawing; 1 for the sentences that",
            "the text asks for, or for one on what surprised, or on a number outside its band. A "
            "log that does not fit its command: 0 for this part.",
            "",
            "Help: an empty section costs 1 point of the written answer. Help that is used and not "
            "named: 0 for the written answer.",
            "",
            "The written answer:",
            "",
            *(f"- {line}" for line in question["rubric"]),
            "",
        ]
    return "\n".join(lines)


def bands(units: list[int], edition: Edition) -> str:
    lines = ["# Bands of the experiments", ""]
    lines += [
        "A band is the mean of our seeds and three standard deviations to each side, but at least "
        "two points where a score",
        "is in %. With three seeds the deviation is not known well itself. Where *same seed* is "
        "named, a run with one of our",
        "seeds is compared with our number of that seed. For each band of the project's own seeds "
        "a wrong solution was tried.",
        "Its number was outside the band, or further from ours of the same seed than is allowed "
        "(docs/results/course_misses.md).",
        "",
    ]
    for unit in units:
        lines += [f"## Unit {unit}", ""]
        if not read_bands(unit, edition.bands):
            lines += ["No band: no number of this unit is that of a run with a seed.", ""]
        for band in read_bands(unit, edition.bands):
            lines += [f"**{band.what}**", "", *(f"    {command}" for command in band.commands), ""]
            values = ", ".join(f"{value:.9g}" for value in band.values)
            seeds = ", ".join(map(str, band.seeds))
            limits = f"band {band.low:.9g} to {band.high:.9g}"
            if band.beside:
                limits = "for comparison, no band"
            lines.append(
                f"Seeds {seeds}: {values}; mean {round(band.mean, 4):.9g}, "
                f"spread {round(band.spread, 3):g}; {limits} ({band.log})."
            )
            if band.same_seed:
                lines.append(f"Same seed: to within {band.same_seed:g}, on a CPU.")
            if band.wrong:
                lines.append(f"A wrong solution: {band.wrong}.")
            lines.append("")
    return "\n".join(lines)


def answers(units: list[int], seed: int) -> str:
    """All written questions of the units, with the seed's numbers; that of the hand-out first."""
    lines = [f"# Written questions and answers, seed {seed}", ""]
    for unit in units:
        chosen = written.question_for(unit, seed)["id"]
        questions = [q for q in written.read_questions() if q["unit"] == unit]
        for question in sorted(questions, key=lambda q: q["id"] != chosen):
            shown = written.filled(question, seed)
            note = ", in this hand-out" if question["id"] == chosen else ""
            lines += [
                f"## {shown['id']} ({shown['points']} points{note})",
                "",
                shown["question"],
                "",
            ]
            lines.append(written.for_teacher(shown))
    return "\n".join(lines)


def mutants(tasks: list[Task]) -> str:
    lines = ["# Wrong solutions that the tests catch", "", "| task | function | wrong solution |"]
    lines.append("|---|---|---|")
    for task in tasks:
        for mutant in MUTANTS:
            if mutant.task == task.id:
                lines.append(f"| {task.id} | `{task.name}` | {mutant.wrong} |")
    return "\n".join(lines) + "\n"


def write(target: Path, tasks: list[Task], edition: Edition) -> None:
    units = sorted({task.unit for task in tasks})
    target.mkdir(parents=True)
    pages = {
        "README.md": README,
        "rubric.md": rubric(tasks, edition),
        "bands.md": bands(units, edition),
        "answers.md": answers(units, edition.seed),
        "wrong_solutions.md": mutants(tasks),
        "bands.toml": edition.bands.read_text(),
        "tasks.json": json.dumps([vars(task) for task in tasks], indent=1) + "\n",
    }
    for name, text in pages.items():
        (target / name).write_text(text, encoding="utf-8")
