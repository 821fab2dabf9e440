"""docs/course: holes, the grader and what attacks it, the forms, a sample of the wrong solutions.

python -m pytest tests/test_course.py
"""

import ast
import csv
import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch

from data.common import BadInput
from docs.course import (
    check,
    experiments,
    forms,
    grade,
    handout,
    make,
    measure,
    notebook,
    others,
    verify,
    worker,
    written,
)
from docs.course.holes import (
    CourseError,
    find,
    functions_of,
    punch,
    read_tasks,
    source_of,
    transplant,
)
from docs.course.mutants import MUTANTS, mutated
from docs.course.student import Wrong, make_job, same
from docs.course.worker import explain
from tests.experiments import course_misses

ROOT = Path(__file__).parent.parent
COURSE = ROOT / "docs/course"
TASKS = read_tasks()
UNITS = sorted({task.unit for task in TASKS})


def hole_of(task) -> ast.AST:
    return find(source_of(ROOT, task.file), task.name)


# --------------------------------------------------------------------------------------------------
# Holes.


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_a_hole_keeps_signature_and_docstring_and_says_its_task(task):
    source = source_of(ROOT, task.file)
    holed = punch(source, {task.name: f"task {task.id}: write it"})
    before, after = find(source, task.name), find(holed, task.name)
    if "[" in task.name:
        kept = {k.arg: ast.unparse(k.value) for k in after.keywords}
        assert kept.keys() == {k.arg for k in before.keywords}
        assert {v for name, v in kept.items() if name != "paper"} == {"..."}
        return
    assert ast.get_docstring(after) == ast.get_docstring(before)
    # Of a class each method is a hole.
    for full, empty in zip(functions_of(before), functions_of(after), strict=True):
        assert empty.name == full.name
        assert ast.unparse(empty.args) == ast.unparse(full.args)
        if full.name != "__init__":
            assert ast.unparse(empty.returns) == ast.unparse(full.returns)
        assert ast.get_docstring(empty) == ast.get_docstring(full)
        *_, last = empty.body
        assert ast.unparse(last) == f"raise NotImplementedError('task {task.id}: write it')"
        assert len(empty.body) == 1 + (ast.get_docstring(full) is not None)
    # Nothing else changes, and putting the body back gives the source.
    assert transplant(holed, source, task.name) == source
    assert transplant(source, holed, task.name) == holed


def test_the_cell_of_a_class_marks_each_method():
    """What is between two marks is what punch takes out. The cell goes back into the file."""
    for task in (task for task in TASKS if isinstance(hole_of(task), ast.ClassDef)):
        cell = forms.solution_cell(task)
        source = source_of(ROOT, task.file)
        back = transplant(source, notebook.as_file(cell, task), task.name)
        assert ast.dump(ast.parse(back)) == ast.dump(ast.parse(source))
        says = 'raise NotImplementedError("write it")'
        released = re.sub(r"# BEGIN SOLUTION\n.*?# END SOLUTION", says, cell, flags=re.S)
        assert released.count(says) == len(functions_of(hole_of(task))) == 2
        assert released in punch(source, {task.name: "write it"})


WORK = '''
import math


def half(x):
    """Half of x."""
    return x / 2


class Box:
    def size(self) -> int:
        return 3


TABLE = {"a": dict(paper="P", x=1), "b": dict(paper="Q", x=2)}
'''


def test_helpers_come_along_and_nothing_else_does():
    theirs = WORK.replace("import math", "import math\nimport os as system\nTWO = 2\n")
    theirs = theirs.replace("return x / 2", "return divided(x)").replace("return 3", "return 4")
    theirs += "\n\ndef divided(x):\n    return x / TWO\n"
    names = {}
    exec(transplant(WORK, theirs, "half"), names)
    assert names["half"](6) == 3 and "system" in names
    assert names["Box"]().size() == 3  # an edit outside the hole
    theirs = WORK.replace("return 3", "return self.more()\n\n    def more(self):\n        return 5")
    names = {}
    exec(transplant(WORK, theirs, "Box.size"), names)
    assert names["Box"]().size() == 5
    # Where the hole is the class, all of it comes along, and an edit of a function does not.
    names = {}
    theirs = theirs.replace("class Box", "class Box(Exception)").replace("x / 2", "x / 4")
    exec(transplant(WORK, theirs, "Box"), names)
    assert names["Box"]().size() == 5 and issubclass(names["Box"], Exception)
    assert names["half"](6) == 3
    names = {}
    exec(transplant(WORK, WORK.replace("x=2", "x=7").replace("x=1", "x=9"), "TABLE[b]"), names)
    assert names["TABLE"] == {"a": {"paper": "P", "x": 1}, "b": {"paper": "Q", "x": 7}}


@pytest.mark.parametrize(
    "change, says",
    [
        (("def half", "def hulf"), "half is not there"),
        (("return x / 2", "return x /"), "line 7: invalid syntax"),
        (("import math", "import math\0"), "null bytes"),
        (("def half(x)", "class half"), "half is not there"),
    ],
)
def test_a_file_without_the_hole_is_told(change, says):
    with pytest.raises(CourseError, match=says):
        transplant(WORK, WORK.replace(*change), "half")


# --------------------------------------------------------------------------------------------------
# Tests of the units.


def test_every_listed_test_is_there_and_every_test_is_listed():
    for unit in UNITS:
        for kind, listed in (("test", "visible"), ("hidden", "hidden")):
            tree = ast.parse((COURSE / f"tests/{kind}_unit{unit}.py").read_text())
            there = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
            there = [name for name in there if name.startswith("test_")]
            wanted = [name for task in TASKS if task.unit == unit for name in getattr(task, listed)]
            assert sorted(there) == sorted(wanted), f"{kind} tests of unit {unit}"
    assert all(task.visible and task.hidden for task in TASKS)
    for unit in UNITS:
        assert sum(task.points for task in TASKS if task.unit == unit) == 10


# Comparisons that are closer than 1e-4, and why they hold on any processor.
CLOSE = {
    ("hidden_unit1.py", 1e-5),  # products of two numbers, and one number
    ("hidden_unit5.py", 1e-7),  # floats of Python
}


def test_tests_never_assert_and_do_not_compare_float32_too_closely():
    """`python -O` removes asserts. Another processor adds float32 in another order."""
    close = set()
    for path in COURSE.glob("tests/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), path
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "same":
                given = [k.value for k in node.keywords if k.arg == "atol"] + node.args[3:]
                close |= {(path.name, one.value) for one in given if one.value < 1e-4}
    assert close == CLOSE


def test_there_is_another_right_answer_for_each_hole():
    assert {task.id for task in TASKS} - others.ANSWERS.keys() == {"4.4"}
    for unit, file in {(task.unit, task.file) for task in TASKS}:
        here = [task for task in TASKS if (task.unit, task.file) == (unit, file)]
        compile(others.answered(source_of(ROOT, file), here), file, "exec")


def test_there_are_three_wrong_answers_for_each_hole():
    for task in TASKS:
        mine = [mutant for mutant in MUTANTS if mutant.task == task.id]
        assert len(mine) >= 3, task.id
        source = source_of(ROOT, task.file)
        for mutant in mine:
            assert mutated(source, task, mutant) != source
    assert len({(m.task, m.wrong) for m in MUTANTS}) == len(MUTANTS) >= 90


# --------------------------------------------------------------------------------------------------
# The grader. It runs in a process of its own: it forks before it imports the project.

GRADE_ALL = """
import json, sys
from pathlib import Path
from docs.course import grade
from docs.course.holes import read_tasks

grader = grade.Grader(seconds=1)
for job in sys.argv[1:]:
    ids, folder = job.split(":", 1)
    tasks = [task for task in read_tasks() if task.id in ids.split(",")]
    outcomes = grader.grade(tasks, Path(folder), stop_at_first=True)
    print("RESULT", json.dumps([outcome.entry() for outcome in outcomes]), flush=True)
grader.close()
"""


def graded(folders: list[Path], ids: list[str]) -> list[list[dict]]:
    """The results of some submissions, each for some tasks, such as "1.2,1.3"."""
    jobs = [f"{tasks}:{folder}" for tasks, folder in zip(ids, folders, strict=True)]
    done = subprocess.run(
        [sys.executable, "-c", GRADE_ALL, *jobs],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert len(lines) == len(folders), done.stderr
    return [json.loads(line.removeprefix("RESULT")) for line in lines]


def with_body(body: str, name: str = "cosine_loss", rest: str = "") -> str:
    """lift.py whose function has another body."""
    source = (ROOT / "lift.py").read_text()
    raised = f'raise NotImplementedError("{name}")'
    holed = punch(source, {name: name})
    assert raised in holed
    return holed.replace(raised, body.replace("\n", "\n    ")) + rest


RIGHT = "1 - (image_features.float() * text_features.float()).sum(-1).mean()"
RESULTS = {"tests": [{"number": "1.2", "score": 2, "max_score": 2, "status": "passed"}]}
ATTACKS = {
    "an endless loop": "while True:\n    pass",
    "leaving": "import sys\nsys.exit(0)",
    "leaving at once": "import os\nos._exit(0)",
    "printing results": f"print({json.dumps(RESULTS)!r})\nreturn None",
    "patching torch": "import builtins, torch\ntorch.allclose = lambda *a, **k: True\n"
    "torch.Tensor.__eq__ = lambda *a: True\nbuiltins.bool = lambda x: True\nreturn 0.0",
    "patching the worker": "import sys\n"
    "for name, module in list(sys.modules.items()):\n"
    "    if name.endswith('course.worker'):\n"
    "        module.encode = lambda value: {'v': True}\nreturn None",
    "a sham answer": "import gc, json, socket\n"
    "for one in gc.get_objects():\n"
    "    if isinstance(one, socket.socket) and one.fileno() >= 0:\n"
    "        text = json.dumps({'passed': True, 'value': {'v': 'ready'}}).encode()\n"
    "        one.sendall(len(text).to_bytes(8, 'little') + text)\nreturn None",
    "an endless answer": "import gc, socket\n"
    "for one in gc.get_objects():\n"
    "    if isinstance(one, socket.socket) and one.fileno() >= 0:\n"
    "        one.sendall((2**60).to_bytes(8, 'little'))\nreturn None",
    "too much memory": "return torch.ones(2**31).sum()",
    "climbing up the stack": "import sys\nframe = sys._getframe()\n"
    "while frame:\n    frame.f_locals['score'] = 2\n    frame = frame.f_back\nreturn None",
}


@pytest.fixture
def submissions(tmp_path):
    """write(name, text of lift.py) -> the folder of a submission"""

    def write(name: str, text: str) -> Path:
        folder = tmp_path / name.replace(" ", "-")
        (folder / "unit1").mkdir(parents=True)
        (folder / "unit1/lift.py").write_text(text)
        return folder

    return write


def test_a_message_shows_lines_of_the_student_only(tmp_path):
    """The tested file is the reference with one hole filled. The rest of it answers other tasks."""
    task = next(task for task in TASKS if task.name == "cosine_loss")
    graded_file = tmp_path / "lift.py"
    graded_file.write_text(with_body("mine = 1\nreturn mine + other(image_features)"))
    job = make_job(task, graded_file, ROOT, tmp_path)
    lines = graded_file.read_text().splitlines()
    wanted = ["    mine = 1", "    return mine + other(image_features)"]
    assert [lines[number - 1] for number in job["lines"]] == wanted

    source = "def answer(x):\n    return x + None\n\n\ndef mine(x):\n    return answer(x)\n"
    graded_file.write_text(source)
    names = {}
    exec(compile(source, graded_file, "exec"), names)
    for own, says in (([6], "\nin mine: return answer(x)"), ([], "")):
        with pytest.raises(TypeError) as error:
            names["mine"](1)
        said = explain(error.value, job | {"lines": own})
        assert said == f"TypeError: {error.value}{says}"


@pytest.mark.slow
def test_only_right_code_scores(submissions):
    """The reference has all points; attacks, an empty file and the hand-out itself have none."""
    here = [task for task in TASKS if task.unit == 1]
    texts = {
        "right": with_body(f"return {RIGHT}"),
        "empty": "",
        "the hand-out": verify.punched((ROOT / "lift.py").read_text(), here),
        "a loop above": "while True: pass",
        # A helper's line runs when the file is imported.
        "leaving at import": with_body(f"return {RIGHT}", rest="\n\nimport os\nX = os._exit(0)\n"),
        # What is tested is the submission's own: it says these words.
        "own words": with_body("mine = 'these words'\nraise KeyError(mine)"),
    }
    texts |= {name: with_body(body) for name, body in ATTACKS.items()}
    folders = [submissions(name, text) for name, text in texts.items()]
    # Another function of the same file is looked at as well in some cases.
    both = ("right", "empty", "the hand-out", "leaving at once", "patching torch")
    ids = ["1.2,1.3" if name in both else "1.2" for name in texts]
    results = dict(zip(texts, graded(folders, ids), strict=True))
    said = {name: result[0]["output"] for name, result in results.items()}

    assert [entry["score"] for entry in results["right"]] == [2, 2]
    assert {entry["status"] for entry in results["right"]} == {"passed"}
    for name, result in results.items():
        if name != "right":
            assert result[0]["score"] == 0 and result[0]["status"] == "failed", name
    # One bad function costs nothing elsewhere.
    for name in ("leaving at once", "patching torch"):
        assert results[name][1]["score"] == 2, name
    for name in ("empty", "the hand-out"):
        assert results[name][1]["score"] == 0, name
    assert said["the hand-out"] == "not written yet (task 1.2: write cosine_loss)"
    assert "not tested: lift.py: cosine_loss is not there" in said["empty"]
    assert "KeyError: 'these words'" in said["own words"]
    assert "is there a loop that does not end?" in said["an endless loop"]
    assert "the other tests of this task did not run" in said["an endless loop"]
    assert "SystemExit" in said["leaving"]
    assert "ended before the answer" in said["leaving at once"]
    assert "ended before the answer" in said["leaving at import"]
    assert "it printed:" in said["printing results"]
    assert "more than" in said["an endless answer"]


@pytest.mark.slow
def test_memory_that_a_function_keeps(tmp_path):
    """150 MB are no harm; 400 MB, in pieces, are too many; and all it gets leaves room for us."""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("NOT TESTED, how much memory a function may keep: there is no /proc here")
    hoarding = verify.hoarding((ROOT / "lift.py").read_text(), [t for t in TASKS if t.unit == 1])
    text = hoarding
    for name, mb in (("cosine_loss", 400), ("limit_scale", 150)):
        first = find(text, name).body[1]  # behind the docstring
        keep = f'kept = [b"x" * 2**20 for _ in range({mb})]'
        lines = text.splitlines(keepends=True)
        lines.insert(first.lineno - 1, f"{' ' * first.col_offset}{keep}\n")
        text = "".join(lines)
    (tmp_path / "unit1").mkdir()
    (tmp_path / "unit1/lift.py").write_text(text)
    words, peak = verify.cost_of_grading(tmp_path, [1])
    tests = json.loads((tmp_path / "results.json").read_text())["tests"]
    said = {test["number"]: test["output"] for test in tests}
    assert [test["score"] for test in tests[:3]] == [0, 0, 2], said
    assert int(re.search(r"MemoryError: kept (\d+) MB", said["1.1"])[1]) > 200
    assert "MemoryError" in said["1.2"]
    assert 400 * 1024**2 < peak < verify.GRADESCOPE, words


@pytest.fixture
def open_folder():
    """A folder that other users may enter. Those of tmp_path lie in one that is closed to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


ANOTHER_USER = """
import os
from pathlib import Path

def attempt(what, *args):
    try:
        what(*args)
        return "done"
    except OSError as error:
        return type(error).__name__

secret, public = Path({folder!r}, "secret"), Path({folder!r}, "public")
raise KeyError(
    os.getuid(),
    os.geteuid(),
    os.getgid(),
    os.getgroups(),
    attempt(public.read_text),
    attempt(secret.read_text),
    attempt(public.write_text, "mine"),
    attempt(os.kill, os.getppid(), 0),
    attempt(os.setuid, 0),
)
""".strip()


@pytest.mark.slow
def test_where_the_grader_is_root_the_worker_is_another_user(submissions, open_folder):
    """It reads what all may read, and nothing else; it writes nothing, and kills nobody."""
    if not worker.can_be_another_user():
        where = f"and another user cannot enter {worker.closed_folder()}" * (os.geteuid() == 0)
        pytest.skip(f"NOT TESTED, the worker as another user: user {os.geteuid()} {where}")
    for name, mode in (("secret", 0o600), ("public", 0o644)):
        (open_folder / name).write_text("ours")
        (open_folder / name).chmod(mode)
    body = ANOTHER_USER.format(folder=str(open_folder))
    (entry,) = graded([submissions("user", with_body(body))], ["1.2"])[0]
    refused = ["PermissionError"] * 4
    expected = (*[worker.USER] * 3, [], "done", *refused)
    assert f"KeyError: {expected}" in entry["output"], entry["output"]
    assert (open_folder / "public").read_text() == "ours"


def test_the_tested_file_has_the_submission_s_function(submissions):
    text = with_body("return 'my own'")
    task = next(task for task in TASKS if task.id == "1.2")
    tested = grade.tested_source(submissions("source", text), task, 2, ROOT)
    assert ast.dump(find(tested, task.name)) == ast.dump(find(text, task.name))


def test_a_link_to_the_reference_is_no_submission(tmp_path):
    task = next(task for task in TASKS if task.id == "1.2")
    (tmp_path / "unit1").symlink_to(ROOT)
    with pytest.raises(CourseError, match="unit1/lift.py is not in the submission"):
        grade.find_file(tmp_path, task, 2)
    (tmp_path / "unit1").unlink()
    (tmp_path / "unit1").mkdir()
    (tmp_path / "unit1/lift.py").symlink_to(ROOT / "lift.py")
    with pytest.raises(CourseError, match="unit1/lift.py is not in the submission"):
        grade.find_file(tmp_path, task, 2)


def test_a_submission_may_be_wrapped_in_folders(tmp_path):
    inner = tmp_path / "student-main/homework"
    (inner / "unit1").mkdir(parents=True)
    (tmp_path / "__MACOSX").mkdir()
    assert grade.root_of(tmp_path) == inner
    (inner / "unit2").mkdir()
    assert grade.root_of(tmp_path) == inner
    empty = tmp_path / "empty"
    empty.mkdir()
    assert grade.root_of(empty) == empty
    # A name that only begins like a unit's is no unit.
    inner = tmp_path / "other/unit1-alice"
    (inner / "unit1").mkdir(parents=True)
    assert grade.root_of(tmp_path / "other") == inner


def test_logs_are_read_and_compared_with_bands(tmp_path):
    def log(name: str, text: str) -> None:
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "log.jsonl").write_text(text)

    def start(seed: int) -> str:
        return json.dumps({"config": {"seed": seed}, "step": 0}) + "\n"

    # Seed 0 has 5.1629 and seed 1 has 5.0744. A run with another seed, or with none, has the band.
    log("five-0", start(0) + '{"step": 1, "loss": 5.16305}\n{"step": 5, "loss": 1}\n')
    log("five-1", start(1) + '{"step": 1, "loss": 5.102}\n')
    log("five-12", start(12) + '{"step": 1, "loss": 5.102}\n')
    log("five-2", '{"step": 1, "loss": 4.7}\n')
    log("five", "no log\n")
    log("five-4", '{"step": 1, "loss": 1' + 400 * "0" + "}\n")  # more than a float holds
    log("five_other-2", '{"step": 1, "loss": 5.1}\n')
    log("five-3", '{"step": 7, "loss": 5.1}\n')
    (entry,) = experiments.entries(tmp_path, 1)
    assert entry["max_score"] == 0 and entry["status"] == "failed"
    lines = entry["output"].splitlines()
    what = "loss at the first step"
    assert lines == [
        f"five-0: {what}: 5.1631, inside 5.1626 to 5.1632",
        f"five-1: {what}: 5.102, OUTSIDE 5.0741 to 5.0747, on a CPU",
        f"five-12: {what}: 5.102, inside 4.85 to 5.36",
        f"five-2: {what}: 4.7, OUTSIDE 4.85 to 5.36, on a CPU",
        "five-0: loss at the fifth step: 1, OUTSIDE 4.8543 to 4.8549, on a CPU",
        "no log of: LIFT with the cosine loss, loss at the fifth step (runs/cos-SEED)",
        "no log of: logit scale after 20 steps that are far too large (runs/falls-SEED)",
    ]
    nothing = experiments.entries(tmp_path, 2)[0]["output"].splitlines()
    assert nothing and all(line.startswith("no log of: ") for line in nothing)

    for seed, share in enumerate((0.5, 0.6, 0.7)):
        run = tmp_path / f"runs/own-{seed}"
        run.mkdir()
        (run / "eval.json").write_text(json.dumps({"compositional": {"mean": share}}))
        (run / "log.jsonl").write_text('{"step": 1, "seconds": 9.5}\n{"step": 2, "seconds": 600}\n')
        board = experiments.leaderboard(tmp_path)
        assert board == ([] if seed < 2 else [{"name": board[0]["name"], "value": 60.0}])
    # One run over the budget does not count, and two are too few.
    (run / "log.jsonl").write_text('{"step": 2, "seconds": 601}\n')
    assert experiments.leaderboard(tmp_path) == []


def test_printed_numbers_are_read_and_compared_with_bands(tmp_path):
    """The first number behind the words; the seed is in the file's name, where there is one."""
    runs = tmp_path / "runs"
    runs.mkdir()
    row = "| mean | 10 | raw | {} | 0.092 | 0.000 | 0.006 | |\n"
    what = "mean after block 10, raw, own"

    def verdicts(unit: int, what: str) -> list[str]:
        (entry,) = experiments.entries(tmp_path, unit)
        return [line for line in entry["output"].splitlines() if what in line]

    (runs / "pooling.log").write_text(row.format("0.714"))
    assert verdicts(3, what) == [f"pooling.log: {what}: 0.714, inside 0.711 to 0.717"]
    (runs / "pooling.log").write_text(row.format("0.362"))
    assert verdicts(3, what) == [f"pooling.log: {what}: 0.362, OUTSIDE 0.711 to 0.717"]
    for unreadable in ("", "| mean | 10 | raw |\n", row.format("none")):
        (runs / "pooling.log").write_text(unreadable)
        assert verdicts(3, what) == [f"no log of: {what} (no number in pooling.log)"]
    (runs / "pooling.log").unlink()
    assert verdicts(3, what) == [f"no log of: {what} (runs/pooling.log)"]
    (runs / "pooling.log").write_text(row.format("0.714"))

    # A run that was not scored is named, too.
    (runs / "patch8-0").mkdir()
    (runs / "patch8-0" / "log.jsonl").write_text("{}")
    (line,) = verdicts(2, "patch 8")
    assert line.endswith("(eval.py has not scored patch8-0)"), line

    # A number for comparison is never outside.
    (runs / "rate-8e-3-0").mkdir()
    (runs / "rate-8e-3-0" / "log.jsonl").write_text('{"step": 200, "loss": 0.9}\n')
    (line,) = verdicts(5, "8e-3")
    assert line.startswith("rate-8e-3-0: loss after 200 steps at the rate 8e-3: 0.9, for compar")
    assert line.endswith("Our seeds 0, 1, 2 had 0.5209, 0.6099, 0.6581"), line

    # Seed 1 is compared with ours of seed 1. A file without a seed has the band.
    (band,) = (b for b in experiments.read_bands(8) if b.what == "tuning, loss of the first step")
    ours = dict(zip(band.seeds, band.values, strict=True))
    words = "loss of the first step: {}\nloss of the last step: 0.1\n"
    (runs / "adapter-1.log").write_text(words.format(ours[1]))
    (runs / "adapter-2.log").write_text(words.format(ours[1]))
    (runs / "adapter.log").write_text(words.format(ours[1]))
    said = ["OUTSIDE" in line for line in verdicts(8, band.what)]
    assert said == [False, True, False]


def test_bands_are_those_of_their_values():
    """Three seeds or more, and the log has their values."""
    for band in experiments.read_bands():
        assert len(band.values) == len(band.seeds) >= 3
        assert band.low <= min(band.values) <= max(band.values) <= band.high, band.what
        text = (ROOT / band.log).read_text()
        assert all(f"{value}" in text for value in band.values), band.what


def test_each_band_is_missed_by_a_wrong_answer():
    """The log has a wrong solution outside each band, and none outside a number for comparison."""
    log = (ROOT / "docs/results/course_misses.md").read_text()
    rows = [tuple(line.strip("| ").split(" | ")) for line in log.splitlines() if "| " in line]
    missed = {(row[0], row[1]): row for row in rows if row[-1] == "yes"}
    for band in experiments.read_bands():
        row = missed.get((str(band.unit), band.what))
        assert (row is None) == band.beside, (band.unit, band.what)
        if row is not None:
            low, high = band.limits(band.seeds[0])
            assert row[2] == f"{low:.9g} to {high:.9g}", band.what
            assert "stops" in row[4] or not low <= float(row[4]) <= high, band.what


def test_the_wrong_answers_that_are_tried_are_there():
    for unit, trials in course_misses.TRIALS.items():
        assert {band.run for band in experiments.read_bands(unit)} >= set(trials)
        for trial in trials.values():
            for task, words in trial.wrong:
                assert course_misses.wrong_answer(task, words).task.startswith(f"{unit}.")


def test_a_run_folder_has_one_command():
    """measure.py keeps the runs of all units in one folder, as one does in the project."""
    command_of = {}
    for band in experiments.read_bands():
        for command in band.commands:
            folder = re.search(r"--out (\S+)", command)
            if folder:
                assert command_of.setdefault(folder[1], command) == command


def test_a_band_is_the_mean_and_three_deviations():
    def band(values, score, **others):
        return experiments.Band(1, "x", (), "runs/x", score, (0, 1, 2), values, **others)

    loss = band((1.0, 1.1, 1.2), "log: loss at 1")  # mean 1.1, deviation 0.1
    assert (loss.low, loss.high) == (0.8, 1.4)
    # Rounded outwards.
    loss = band((1.0, 1.1, 1.215), "log: loss at 1")
    assert (loss.low, loss.high) == (0.78, 1.43)
    # At least the reach, and between 0 and the largest.
    share = band((99.0, 99.1, 99.2), "retrieval i2t R@1", reach=2.0, largest=100.0)
    assert (share.low, share.high) == (97.1, 100.0)
    assert band((0.5, 0.5, 0.5), "retrieval i2t R@1", reach=2.0).low == 0
    (scored,) = (b for b in experiments.read_bands(2) if b.what.startswith("patch 8"))
    assert (scored.reach, scored.largest) == (2.0, 100.0)


def test_other_bands_are_measured_by_running_the_commands(tmp_path, monkeypatch, capsys):
    """Each command once for each seed; a stopped measurement goes on; a failure is said."""
    script = tmp_path / "train.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "seed, out = int(sys.argv[1]), pathlib.Path(sys.argv[3])\n"
        "out.mkdir()  # fails where the command is run twice\n"
        "entry = {'step': 50, 'loss': 1 + seed / 1000}\n"
        "(out / 'log.jsonl').write_text(json.dumps(entry))\n"
        "print('the number is', 1 + seed / 1000)\n"
    )
    row = {
        "unit": 2,
        "what": "loss at step 50",
        "commands": [f"python {script} SEED --out runs/x-SEED"],
        "run": "runs/x-SEED",
        "score": "log: loss at 50",
        "seeds": [0, 1, 2],
        "values": [9, 9, 9],
        "same_seed": 0.005,
        "wrong": "of our seeds",
    }
    bands = [experiments.band_of(row | {"what": what}) for what in ("one", "two")]
    # What is printed goes to a file, as in a shell.
    command = f"python {script} SEED --out runs/y-SEED > runs/y-SEED.log"
    printed = {"commands": [command], "run": "runs/y-SEED.log", "score": "printed: number is"}
    bands.append(experiments.band_of(row | printed | {"what": "three"}))
    ours = experiments.read_bands
    monkeypatch.setattr(measure, "read_bands", lambda path=None: ours(path=path) if path else bands)
    out = tmp_path / "my bands"
    # A command that was stopped has left a folder, in which it cannot be run again.
    (tmp_path / f"my bands-runs/x-{measure.drawn_seeds(2027)[1]}").mkdir(parents=True)
    # What was measured of another unit before stays.
    of_another = experiments.band_of(row | {"unit": 1, "what": "zero"})
    out.write_text(measure.in_toml(of_another))
    command = ["measure", "--units", "2", "--seed", "2027", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    for _ in range(2):
        measure.main()
        assert f"--seed 2027 --units 2 --bands {out}" in capsys.readouterr().out
    edition = experiments.Edition(2027, out)
    seeds = edition.run_seeds(2)
    assert seeds == measure.drawn_seeds(2027) and len(set(seeds)) == 3 and min(seeds) > 2
    assert [band.what for band in ours(1, out)] == ["zero"]
    found = experiments.read_bands(2, out)
    assert [band.what for band in found] == ["one", "two", "three"]
    for band in found:
        assert band.values == tuple(round(1 + seed / 1000, 3) for seed in seeds)
        assert not band.wrong and band.same_seed == 0.005
    # A unit that was not measured has no band here, and the seeds of before.
    assert experiments.read_bands(4, out) == [] and edition.run_seeds(4) == (0, 1, 2)
    script.write_text("raise SystemExit(3)")
    monkeypatch.setattr(sys, "argv", [*command[:3], "--seed", "1", "--out", str(out)])
    with pytest.raises(
        BadInput, match="this command failed; its last lines stand in .*commands.log"
    ):
        measure.main()


def test_a_run_is_stopped_as_a_student_stops_it(tmp_path):
    """At the step that the command names. It is an error if the run is not stopped there."""
    (tmp_path / "train.py").write_text(
        "import pathlib, signal, sys, time\n"
        "run, last = pathlib.Path(sys.argv[-1]), int(sys.argv[1])\n"
        "run.mkdir()\n"
        "def stop(*_): (run / 'stopped').touch(); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, stop)\n"
        "log = (run / 'log.jsonl').open('a', buffering=1)\n"
        "for step in range(1, last):\n"
        '    print(f\'{{"step": {step}, "loss": 1}}\', file=log)\n'
        "    time.sleep(0.1)\n"
    )
    command = "python train.py {} --out runs/x-SEED  # Ctrl-C at step 5"
    runs = tmp_path / "my runs"
    measure.run_commands((command.format(1000),), 7, runs, code=tmp_path)
    assert (runs / "x-7/stopped").exists()
    assert '"step": 5,' in (runs / "x-7/log.jsonl").read_text()
    with pytest.raises(BadInput, match="this command failed"):
        measure.run_commands((command.format(4),), 8, runs, code=tmp_path)


def test_seeds_that_are_compared_come_before_others(tmp_path):
    """A unit has bands of other seeds, too: its texts name those whose numbers are compared."""
    rows = [
        "unit = 1\nwhat = 'wide'\nseeds = [0, 1, 2]\nvalues = [1, 2, 3]",
        "unit = 1\nwhat = 'exact'\nseeds = [5, 6, 7]\nvalues = [1, 2, 3]\nsame_seed = 0.1",
    ]
    rest = "commands = []\nrun = 'runs/x-SEED'\nscore = 'log: loss at 1'\n"
    for order in (rows, rows[::-1]):
        path = tmp_path / "bands.toml"
        path.write_text("\n".join(f"[[band]]\n{row}\n{rest}" for row in order))
        assert experiments.Edition(0, path).run_seeds(1) == (5, 6, 7)
    # Two seeds are too few, and each needs a value.
    for wrong in ("seeds = [0, 1]\nvalues = [1, 2]", "seeds = [0, 1, 2]\nvalues = [1, 2]"):
        path.write_text(f"[[band]]\nunit = 1\nwhat = 'x'\n{wrong}\n{rest}")
        with pytest.raises(handout.CourseError, match="unit 1, x: there must be a value for each"):
            experiments.read_bands(path=path)


def test_bands_that_would_be_removed_are_refused(tmp_path):
    out = tmp_path / "course"
    out.mkdir()
    (out / "made_by.txt").write_text("make course")
    inside = out / "bands.toml"
    inside.write_text(experiments.BANDS.read_text())
    with pytest.raises(make.CourseError, match="lies in --out"):
        make.make(out, [1], experiments.Edition(0, inside))
    assert inside.exists()
    # A file that lacks a chosen unit is refused, too, before anything is removed.
    few = tmp_path / "few.toml"
    few.write_text("\n".join(measure.in_toml(band) for band in experiments.read_bands(2)))
    with pytest.raises(make.CourseError, match="has no band of unit 1"):
        make.make(out, [1, 2], experiments.Edition(0, few))
    assert inside.exists()


def test_a_text_has_the_seeds_of_its_edition():
    text = "--lr 2e-3 --seed 0 --out runs/rate-2e-3-0 and `--seed\n1`, `five-1`, runs/x-2/y 1.6e-2"
    assert handout.with_seeds(text, (0, 1, 2)) == text
    # The heads 0, 1, 2 of unit 3 are no seeds, and the row of unit 9 is one of seeds.
    table = "| seeds | 0, 1, 2 |\nthe heads 0, 1, 2 share keys"
    found = handout.with_seeds(table, (70, 71, 72))
    assert found == "| seeds | 70, 71, 72 |\nthe heads 0, 1, 2 share keys"
    assert handout.with_seeds(text, (70, 71, 72)) == (
        "--lr 2e-3 --seed 70 --out runs/rate-2e-3-70 and `--seed\n71`, `five-71`, runs/x-72/y "
        "1.6e-2"
    )


def test_a_grader_that_has_to_run_code_as_root_says_so(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for folder, says in ((Path("/closed"), "cannot enter /closed, where Python is"), (None, "")):
        monkeypatch.setattr(worker, "closed_folder", lambda folder=folder: folder)
        grade.warn_of_root()
        warning = capsys.readouterr().err
        assert says in warning and bool(says) == bool(warning)


def test_no_tests_are_an_error(submissions, monkeypatch):
    task = next(task for task in TASKS if task.id == "1.2")
    nothing = task.__class__(**vars(task) | {"visible": (), "hidden": ()})
    with pytest.raises(CourseError, match="task 1.2 has no tests"):
        grade.collect(nothing)
    renamed = task.__class__(**vars(task) | {"visible": ("test_of_nothing",)})
    with pytest.raises(CourseError, match="the test test_of_nothing is not there"):
        grade.collect(renamed)
    with pytest.raises(CourseError, match="there is no unit 77"):
        read_tasks(units=[77])


@pytest.mark.slow
def test_a_sample_of_wrong_answers_is_caught(submissions, tmp_path):
    """One wrong solution of each unit. `make course-check` takes all of them."""
    chosen = {}
    for mutant in MUTANTS:
        chosen.setdefault(mutant.task.split(".")[0], mutant)
    folders, ids = [], []
    for number, mutant in enumerate(chosen.values()):
        task = next(task for task in TASKS if task.id == mutant.task)
        folder = verify.write_submission(tmp_path / str(number), [task])
        text = mutated(source_of(ROOT, task.file), task, mutant)
        (folder / f"unit{task.unit}" / task.file).write_text(text)
        folders.append(folder)
        ids.append(task.id)
    for mutant, result in zip(chosen.values(), graded(folders, ids), strict=True):
        (entry,) = result
        assert entry["score"] == 0 and "NO  " in entry["output"], mutant.wrong
        assert "not tested" not in entry["output"], mutant.wrong


# --------------------------------------------------------------------------------------------------
# What `make course` writes.


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The course with units 1, 4 and 9, written once."""
    out = tmp_path_factory.mktemp("course") / "course"
    make.make(out, [1, 4, 9], experiments.Edition(5))
    return out


def run_in(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def test_a_message_names_the_first_difference():
    """Of a large tensor a message shows the first six numbers, and these may agree."""
    wanted = torch.zeros(2, 4)
    found = wanted.clone()
    found[1, 2] = float("nan")
    says = r"^why\nthe first difference is at \[1, 2\]: nan, expected 0.0$"
    with pytest.raises(Wrong, match=says):
        same(found, wanted, "why")
    same(found, found, "why")


def run_autograder(home: Path, python: str) -> subprocess.CompletedProcess:
    """Grade the submission in Gradescope's folders below `home`, by this Python."""
    program = str(home / "source/run_autograder")
    return run_in(home, "bash", program, AUTOGRADER=str(home), PYTHON=python)


@pytest.mark.slow
def test_gradescope_s_form_in_its_folders(built, tmp_path):
    """setup.sh and run_autograder at the root; the layout and the keys of Gradescope."""
    source, submission = tmp_path / "source", tmp_path / "submission"
    with zipfile.ZipFile(built / "gradescope.zip") as archive:
        assert {"setup.sh", "run_autograder"} <= set(archive.namelist())
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
        archive.extractall(source)
    assert modes["run_autograder"] & 0o111 and modes["setup.sh"] & 0o111
    for name in ("setup.sh", "run_autograder"):
        assert run_in(source, "bash", "-n", name).returncode == 0
    # Some tasks are right, one is not, and one file is missing.
    (submission / "unit1").mkdir(parents=True)
    (submission / "unit1/lift.py").write_text(with_body("return image_features.sum()"))
    done = run_autograder(tmp_path, sys.executable)
    assert re.match(r"8 of 30 points, \d+ s", done.stdout), done.stdout + done.stderr
    results = json.loads((tmp_path / "results/results.json").read_text())
    tests = {test["number"]: test for test in results["tests"]}
    assert [tests[n]["score"] for n in ("1.1", "1.2", "1.3", "9.1")] == [6, 0, 2, 0]
    for test in results["tests"]:
        assert set(test) == {
            *("score", "max_score", "status", "name", "number", "output", "visibility")
        }
        assert test["status"] == ("passed" if test["score"] == test["max_score"] > 0 else "failed")
    assert "unit9/own.py is not in the submission" in tests["9.1"]["output"]
    assert results["leaderboard"] == [] and results["execution_time"] > 0
    # Without Python there is a result as well: nothing.
    done = run_autograder(tmp_path, "/none")
    assert json.loads((tmp_path / "results/results.json").read_text())["score"] == 0


# What a function tries while it is tested: a line of its output for each attempt.
ATTACK_ON_FILES = """
import json, os, shutil
from pathlib import Path
home = Path({home!r})

def attempt(name, what, *args):
    try:
        what(*args)
        print(name, "done", flush=True)
    except OSError as error:
        print(name, "refused", flush=True)

attempt("results:", (home / "results/results.json").write_text, {fake!r})
attempt("tests:", shutil.rmtree, home / "source/course/tests")
return 0.0
""".strip()


@pytest.mark.slow
def test_writing_results_and_deleting_tests_earn_nothing(built, open_folder):
    """The real results.json and the real tests, in Gradescope's folders.

    Where the worker is another user, both are refused. Where it is the grader's user, both are
    done. The verdicts are the same: the tests were read before, and results.json is written anew.
    """
    source, unit = open_folder / "source", open_folder / "submission/unit1"
    with zipfile.ZipFile(built / "gradescope.zip") as archive:
        archive.extractall(source)
    everything = [{"number": task.id, "score": task.points} for task in TASKS]
    fake = json.dumps({"tests": everything, "score": 30, "fake": True})
    unit.mkdir(parents=True)
    body = ATTACK_ON_FILES.format(home=str(open_folder), fake=fake)
    (unit / "lift.py").write_text(with_body(body))
    done = run_autograder(open_folder, sys.executable)
    assert "8 of 30 points" in done.stdout, done.stdout + done.stderr
    results = json.loads((open_folder / "results/results.json").read_text())
    scores = {test["number"]: test["score"] for test in results["tests"]}
    # The attack is in 1.2. The right functions before and after it have their points.
    assert [scores[number] for number in ("1.1", "1.2", "1.3", "9.1")] == [6, 0, 2, 0]
    assert "fake" not in results
    (said,) = (test["output"] for test in results["tests"] if test["number"] == "1.2")
    is_other = worker.can_be_another_user()
    verdict = "refused" if is_other else "done"
    assert f"results: {verdict}\n" in said and f"tests: {verdict}\n" in said, said
    assert (source / "course/tests/hidden_unit1.py").is_file() == is_other


@pytest.mark.slow
def test_what_a_student_sees(built, tmp_path):
    """The hand-out is not written yet, then wrong, then right; then it is packed."""
    student = tmp_path / "student"
    shutil.copytree(built / "student", student)
    for pattern in ("hidden_*", "mutants*", "wrong*", "rubric*", "others*", "written*"):
        assert not list(student.rglob(pattern)), pattern
    # Links of the glossary lead to itself or to the web, and the tour finds the finished code.
    links = re.findall(r"\]\(([^)]+)\)", (student / "glossary.md").read_text())
    assert len(links) > 100 and all(re.match("#|https:", link) for link in links)
    first_cell = json.loads((student / "tour.ipynb").read_text())["cells"][1]["source"]
    said = run_in(student, sys.executable, "-c", "".join(first_cell)).stdout
    assert "'lift.py'" in said, said

    def check(*words):
        done = run_in(student, sys.executable, "-m", "course.check", *words)
        return done.returncode, done.stdout + done.stderr

    status, said = check("1")
    assert status == 1 and "1.1  info_nce: not written yet" in said
    assert "0 of 3 tasks pass these tests" in said
    lift = student / "unit1/lift.py"
    assert "cross_entropy(logits" not in lift.read_text(), "the docstring gives task 1.1 away"
    lift.write_text(with_body("return 1 - (image_features @ text_features.T).mean()"))
    status, said = check("1", "--task", "1.2")
    assert status == 1 and "Each image is compared with its own caption only" in said
    shutil.copy(ROOT / "lift.py", lift)
    status, said = check("1")
    assert status == 0 and "3 of 3 tasks pass these tests" in said, said
    assert "no runs yet" in said and "Your teacher has more tests" in said, said
    status, said = check("1", "--task", "1")
    assert status == 2 and said == "error: there is no task 1; choose from 1.1, 1.2, 1.3\n"
    # Tests that a notebook brings along, and a folder that has none.
    (tmp_path / "hidden_unit1.py").write_text("")
    status, said = check("1", "--tests", str(tmp_path))
    assert status == 2 and "hidden_unit1.py lists no tests as HIDDEN" in said, said
    status, said = check("3")
    assert status == 2 and said == "error: there is no unit 3; choose from [1, 4, 9]\n"

    run = student / "unit1/runs/five-0"
    run.mkdir(parents=True)
    steps = ({"step": 1, "loss": 5.1}, {"step": 5, "loss": 4.86})
    (run / "log.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    (run / "checkpoint.pt").write_text("large")
    fallen_run = student / "unit1/runs/falls-0"
    fallen_run.mkdir()
    (fallen_run / "log.jsonl").write_text('{"step": 20, "scale": 1.0}')
    cosine_run = student / "unit1/runs/cos-0"
    cosine_run.mkdir()
    (cosine_run / "log.jsonl").write_text('{"step": 5, "loss": 0.92}')
    (student / "unit1/curve.png").write_text("a drawing")
    (student / "unit1/runs/table.log").write_text("| pooling | layer |\n")
    status, said = check("1", "--submit")
    assert status == 0 and "7 files; hand this in, or complete it first" in said, said
    for title in ("Your answer", "What you measured", "Help"):
        assert f"missing: unit1/answers.md: '{title}' still says (write here)" in said, said
    assert "no log of" not in said
    # The text repeats these runs with three seeds, and scores them.
    assert "missing: unit1: log.jsonl in runs/five-SEED: 1 of 3 seeds\n" in said, said
    assert "missing: unit1: eval.json in runs/five-SEED: 0 of 3 seeds\n" in said, said
    assert "runs/cos" not in said and "runs/falls" not in said
    status, said = check("1")
    assert "five-0: loss at the first step: 5.1, inside" in said, said
    with zipfile.ZipFile(student / "submission-unit1.zip") as archive:
        names = sorted(archive.namelist())
    logs = [f"unit1/runs/{run}-0/log.jsonl" for run in ("cos", "falls", "five")]
    logs.append("unit1/runs/table.log")
    assert names == ["unit1/answers.md", "unit1/curve.png", "unit1/lift.py", *logs]


def test_what_is_handed_in_is_what_the_commands_make(tmp_path):
    """Each run and each file of the commands of a text is missed, and no other one."""
    for unit in UNITS:
        tasks = [task for task in TASKS if task.unit == unit]
        home = tmp_path / f"unit{unit}"
        (home / "runs").mkdir(parents=True)
        assert check.lacking(home, unit) == []  # no text: nothing is known
        (home / "README.md").write_text(handout.unit_text(unit, tasks, experiments.Edition(5)))
        made = {name for name, _ in check.made_by((home / "README.md").read_text())}
        assert made >= {band.run for band in experiments.read_bands(unit)}
        assert made >= set(check.REPEATED.get(unit, ()))
        missing = check.lacking(home, unit)
        assert {re.search(r"runs/[^:]+", line)[0] for line in missing} == made
        for name, file in check.made_by((home / "README.md").read_text()):
            for seed in (0, 1, 2):
                path = home / name.replace("SEED", str(seed))
                if file:
                    path.mkdir(exist_ok=True)
                    path = path / file.replace("*", "captions-0a1b2c")
                path.write_text("{}")
        assert check.lacking(home, unit) == []
        # A run whose name only begins alike is another one.
        if unit == 4:
            (home / "runs/lift-2").rename(home / "runs/lift_other-2")
            assert check.lacking(home, unit) == []
            for seed in (0, 1):
                shutil.rmtree(home / f"runs/lift-{seed}")
            lines = ["eval.json in runs/lift-SEED", "log.jsonl in runs/lift-SEED"]
            assert check.lacking(home, unit) == lines
        if unit == 9:
            (home / "runs/own-1/eval.json").rename(home / "runs/own-1/eval-split-val.json")
            assert check.lacking(home, unit) == ["eval.json in runs/own-SEED: 2 of 3 seeds"]


def test_an_answer_that_is_not_written_is_missing(tmp_path, capsys):
    tasks = [task for task in TASKS if task.unit == 3]
    sheet = tmp_path / "unit3/answers.md"
    sheet.parent.mkdir()

    def missed(text: str) -> list[str]:
        sheet.write_text(text)
        assert check.submit(tasks, tmp_path, tmp_path / "s.zip") == 0
        begin = "missing: unit3/answers.md: "
        lines = capsys.readouterr().out.splitlines()
        return [line.removeprefix(begin) for line in lines if line.startswith(begin)]

    titles = ("Your answer", "What you measured", "Help")
    empty = handout.sheet(3, experiments.Edition(0))
    assert missed(empty) == [f"{title!r} still says (write here)" for title in titles]
    nothing = [f"{title!r} is empty" for title in titles]
    assert missed("") == missed(empty.replace("(write here)", "")) == nothing
    assert missed(empty.replace("(write here)", "None.")) == []
    head, _, tail = empty.rpartition("(write here)")
    assert missed(head.replace("(write here)", "1 + 1 = 2") + tail) == ["'Help' is empty"]


def test_the_course_is_complete_and_depends_on_the_seed(built, tmp_path, capsys):
    for name in ("student", "nbgrader", "otter", "classroom", "teacher"):
        assert (built / name).is_dir()
    page = (built / "handout.html").read_text()
    assert "<h1>Unit 1" in page and "{question" not in page and "<table>" in page
    for unit in (1, 4, 9):
        folder = built / f"student/unit{unit}"
        answers = (folder / "answers.md").read_text()
        assert answers.startswith(f"# Unit {unit}: your answer")
        text = (folder / "README.md").read_text()
        for figure in re.findall(r"\]\((docs/[^)]*)\)", text):
            assert (folder / figure).is_file()
    flow = (built / "classroom/.github/workflows/classroom.yml").read_text()
    assert flow.count("autograding-command-grader@v1") == 10
    for number in ("1.1", "9.3"):
        assert f"TASK={number}" in flow
    # The reporter reads the variable NAME_RESULTS of each step that `runners` names, in capitals.
    runners = re.search(r"runners: (.*)", flow)[1].split(",")
    assert len(runners) == 10
    for name in runners:
        assert f"        id: {name}\n" in flow
        assert f'  {name.upper()}_RESULTS: "${{{{steps.{name}.outputs.result}}}}"\n' in flow
    # In a notebook a method's cell does not show its class. So the words above it do.
    for form in ("nbgrader/source", "otter"):
        cells = json.loads((built / form / "unit4/unit4.ipynb").read_text())["cells"]
        (words,) = (cell["source"] for cell in cells if "# Task 4.2" in cell["source"])
        assert "class TwoTower" in words and "requires_grad_(is_trained)" in words
        assert "super().train(mode)" not in words
    assert not re.search(r'src="(?!data:)', page), "the page would fetch something"
    # A student who forgets `make setup`, or has an environment elsewhere.
    done = run_in(built / "student", "make", "check", "UNIT=1", "VENV=nowhere")
    assert done.returncode == 2 and "run 'make setup' first" in done.stdout, done.stdout
    other = tmp_path / "other"
    make.make(other, [1], experiments.Edition(6))
    sheets = [(folder / "student/unit1/answers.md").read_text() for folder in (built, other)]
    assert sheets[0] != sheets[1]
    again = tmp_path / "again"
    make.make(again, [1], experiments.Edition(6))
    for path in other.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(other)).read_bytes(), path
    # A file that has no bands, or is not there, removes nothing.
    for name, says in (("made_by.txt", "is no file of bands"), ("nothing", "there is no file")):
        with pytest.raises(CourseError, match=says):
            make.make(other, [1], experiments.Edition(6, other / name))
    assert (other / "made_by.txt").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(CourseError, match="is not empty and no course"):
        make.make(tmp_path / "mine", [1], experiments.Edition(0))
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def texts_below(folder: Path) -> dict[str, str]:
    """The text of each file of a folder, and of each file in its archives."""
    texts = {}
    for path in folder.rglob("*"):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    texts[f"{path.name}/{name}"] = archive.read(name).decode(errors="replace")
        elif path.is_file():
            texts[path.relative_to(folder).as_posix()] = path.read_text(errors="replace")
    return texts


def test_what_only_the_teacher_may_read_is_in_no_other_file(built):
    """Samples stand in teacher/ alone. Answers are in the notebooks of nbgrader and otter as well,
    which take them out for students.
    """
    texts = texts_below(built)
    page = texts.pop("teacher/answers.md")
    given = {name: text for name, text in texts.items() if not name.startswith("teacher/")}
    for name in ("student/unit1/answers.md", "handout.html", "gradescope.zip/course/grade.py"):
        assert name in given
    for question in written.read_questions():
        filled = written.filled(question, 5)
        # Of a sample its first words, which have no number and look the same in every format.
        begins = question["sample"].strip()[:40]
        assert begins in filled["sample"] and begins == html.escape(begins)
        # Of an answer the longest piece that looks the same in every format.
        answer = max(re.findall(r"[\w ,.]+", filled["answer"]), key=len)
        assert len(answer) >= 40
        if question["unit"] in (1, 4, 9):
            assert begins in page and answer in page
        for name, text in given.items():
            assert begins not in text, name
            assert answer not in text or name.startswith(("nbgrader/", "otter/")), name


# --------------------------------------------------------------------------------------------------
# The forms, with the real packages. They are in docs/course/requirements-forms.txt and not in
# requirements-test.txt: with them come a hundred others.


def name_of_cell(text: str) -> str:
    """What a cell defines: info_nce, LoRA, or METHODS_lift, which only a comment names."""
    found = re.search(r"(?m)^(?:def |class |# )?(\w+)", text)
    return found[1] if found else ""


def fill_in(path: Path, master: Path) -> None:
    """Write the solutions of a master notebook into a released one, cell by cell."""
    bodies = {}
    for cell in json.loads(master.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and "BEGIN SOLUTION" in text:
            bodies[name_of_cell(text)] = text
    released = json.loads(path.read_text())
    for cell in released["cells"]:
        name = name_of_cell("".join(cell["source"]))
        if cell["cell_type"] == "code" and name in bodies:
            cell["source"] = bodies.pop(name)
    assert not bodies, f"no cells for {bodies.keys()}"
    path.write_text(json.dumps(released))


@pytest.fixture(scope="module")
def all_units(tmp_path_factory):
    """The course with all units, written once."""
    out = tmp_path_factory.mktemp("all") / "course"
    make.make(out, None, experiments.Edition(5))
    return out


def each_unit_with(module: str, program: str):
    """Marks of a test that takes each unit, and is skipped where a program is not installed."""
    is_missing = importlib.util.find_spec(module) is None

    def mark(test):
        test = pytest.mark.parametrize("unit", [f"unit{unit}" for unit in UNITS])(test)
        reason = f"NOT TESTED with {program}: it is not installed"
        test = pytest.mark.skipif(is_missing, reason=reason)(test)
        return pytest.mark.reference(pytest.mark.slow(test))

    return mark


def run_program(name: str, *words: str, folder: Path) -> None:
    """Run nbgrader or otter. nbgrader calls alembic, which lies beside this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", name, *words],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def solutions_of(master: Path) -> list[str]:
    """The longest line of each body in a master notebook: none of them may be released."""
    lines = []
    for cell in json.loads(master.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and "BEGIN SOLUTION" in text:
            for rest in text.split("# BEGIN SOLUTION\n")[1:]:
                lines.append(max(rest.split("# END SOLUTION")[0].splitlines(), key=len).strip())
    return lines


def shown(path: Path) -> str:
    """All that a student reads in a notebook."""
    return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])


@each_unit_with("nbgrader", "nbgrader")
def test_nbgrader_takes_its_form(unit, all_units, tmp_path):
    """generate, submit solved and unsolved, autograde: all points of the code, and none.

    The other 10 of the 20 points are given by hand.
    """
    course = tmp_path / "nb"
    (course / "source").mkdir(parents=True)
    shutil.copytree(all_units / "nbgrader/source" / unit, course / "source" / unit)
    shutil.copy(all_units / "nbgrader/nbgrader_config.py", course)
    nbgrader = partial(run_program, "nbgrader", folder=course)

    nbgrader("generate_assignment", unit)
    released = course / "release" / unit
    text = shown(released / f"{unit}.ipynb")
    solutions = solutions_of(course / "source" / unit / f"{unit}.ipynb")
    assert solutions and "HIDDEN" not in text
    assert not [line for line in solutions if line in text]
    assert "YOUR CODE HERE" in text and "YOUR ANSWER HERE" in text
    for who in ("solved", "empty"):
        target = course / "submitted" / who / unit
        shutil.copytree(released, target)
        if who == "solved":
            fill_in(target / f"{unit}.ipynb", course / "source" / unit / f"{unit}.ipynb")
    nbgrader("autograde", unit)
    nbgrader("export")
    with open(course / "grades.csv") as file:
        rows = list(csv.DictReader(file))
    scores = {row["student_id"]: float(row["score"]) for row in rows}
    assert scores == {"solved": 10.0, "empty": 0.0}
    assert {float(row["max_score"]) for row in rows} == {20.0}


@each_unit_with("otter", "otter-grader")
def test_otter_takes_its_form(unit, all_units, tmp_path):
    """otter assign runs all tests on the solutions; otter run grades a solved and an empty one."""
    master = tmp_path / unit
    shutil.copytree(all_units / "otter" / unit, master)
    points = re.findall(r"^points: (\d+)$", shown(master / f"{unit}.ipynb"), re.M)
    assert sum(map(int, points)) == 20
    otter = partial(run_program, "otter", folder=tmp_path)

    otter("assign", f"{unit}/{unit}.ipynb", "dist")
    text = shown(tmp_path / f"dist/student/{unit}.ipynb")
    solutions = solutions_of(master / f"{unit}.ipynb")
    assert solutions and "HIDDEN = " not in text
    assert not [line for line in solutions if line in text]
    (archive,) = (tmp_path / "dist/autograder").glob("*.zip")
    for who, wanted in (("solved", 10.0), ("empty", 0.0)):
        target = tmp_path / who
        shutil.copytree(tmp_path / "dist/student", target)
        notebook = target / f"{unit}.ipynb"
        if who == "solved":
            fill_in(notebook, master / f"{unit}.ipynb")
        otter("run", "-a", str(archive), "-o", str(target), str(notebook))
        results = json.loads((target / "results.json").read_text())
        assert sum(test.get("score") or 0 for test in results["tests"]) == wanted, who
