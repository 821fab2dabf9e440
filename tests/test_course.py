"""docs/course: holes, the grader, what it withstands, and the forms of the course.

python -m pytest tests/test_course.py
"""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs/course"))

import grade  # noqa: E402
import holes  # noqa: E402
import make  # noqa: E402

SOURCE = '''"""A module."""


def double(x: int) -> int:
    """Twice x."""
    # Add it to itself.
    return x + x


class Box:
    @staticmethod
    def half(x: float) -> float:
        return x / 2
'''

TESTS = """
import vit


def test_of_three():
    assert vit.double(3) == 6, "twice three is six"


def test_of_minus_two():
    assert vit.double(-2) == -4, "the sign is lost"


def test_half():
    assert vit.Box.half(3) == 1.5, "the rest is lost"
"""

TASKS = [
    holes.Task("1.1", 1, "vit.py", "double", 3, ["test_of_three"], ["test_of_minus_two"]),
    holes.Task("1.2", 1, "vit.py", "Box.half", 2, ["test_half"], []),
]


@pytest.fixture
def graded(tmp_path):
    """graded(function in the place of `double`) -> results of a small course with two holes"""
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference/vit.py").write_text(SOURCE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/unit1.py").write_text(TESTS)
    told = []

    def run(double, tasks=TASKS, seconds=5):
        answers = grade.answers_in(tmp_path / "reference", TASKS) | {"1.1": double}
        return grade.grade(
            tasks,
            answers,
            tmp_path / "reference",
            tmp_path / "tests",
            seconds=seconds,
            tell=lambda results: told.append(json.loads(json.dumps(results))),
        )

    run.told = told
    run.folder = tmp_path
    return run


def test_a_hole_keeps_signature_and_docstring():
    punched = holes.punch(SOURCE, TASKS)
    assert 'raise NotImplementedError("task 1.1: write double")' in punched
    assert '"""Twice x."""' in punched and "x + x" not in punched and "Add it" not in punched
    assert "@staticmethod" in punched and "x / 2" not in punched
    ast.parse(punched)
    back = holes.put(punched, "double", holes.function_in(SOURCE, "double"))
    back = holes.put(back, "Box.half", holes.function_in(SOURCE, "Box.half"))
    assert back == SOURCE
    # Inside the holes students may write what they want, outside they may not.
    assert holes.outside(punched, TASKS) == holes.outside(SOURCE, TASKS)
    assert holes.outside(SOURCE.replace("A module", "Another"), TASKS) != holes.outside(
        SOURCE, TASKS
    )
    with pytest.raises(LookupError, match="not one function triple"):
        holes.find(SOURCE, "triple")


def test_right_and_wrong_answers(graded):
    right = graded("def double(x):\n    return 2 * x\n")
    assert [result["score"] for result in right] == [3, 2]
    wrong = graded("def double(x):\n    return 2 * abs(x)\n")
    assert [result["score"] for result in wrong] == [0, 2]
    assert wrong[0]["output"] == "yes: of three\n0 of 1 more tests pass, which you do not have"
    wrong = graded("def double(x):\n    return x\n")
    assert "no: of three: twice three is six" in wrong[0]["output"]
    wrong = graded("def double(x):\n    return y\n")
    assert "NameError: name 'y' is not defined (vit.py, line 5: return y)" in wrong[0]["output"]
    # Results stand there before the first test, with 0 points, and after every hole.
    assert [result["score"] for result in graded.told[0]] == [0, 0]
    assert [result["score"] for result in graded.told[1]] == [3, 0]
    assert all(result.keys() >= {"name", "number", "max_score", "status"} for result in right)


@pytest.mark.parametrize(
    "body",
    [
        "raise NotImplementedError('task 1.1')",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "exit()",
        "import json; print(json.dumps(['passed', '']))\n    return 0",
        # What the grader hears through: write to every open file that there may be.
        'import os\n    for f in range(3, 50):\n        try: os.write(f, b\'["", ""]\')\n'
        "        except OSError: pass\n    os._exit(0)",
        "import glob, os\n    for f in glob.glob('../**', recursive=True):\n"
        "        try: os.remove(f)\n        except OSError: pass\n    return 0",
        "import vit, sys\n    sys.modules['vit'].double = lambda x: x\n    return 0",
        "return bytearray(3 << 30)",
        "raise KeyboardInterrupt",
    ],
)
def test_what_is_no_answer_earns_nothing(graded, body):
    results = graded(f"def double(x):\n    {body}\n")
    assert [result["score"] for result in results] == [0, 2]
    again = graded("def double(x):\n    return 2 * x\n")  # nothing was spoilt
    assert [result["score"] for result in again] == [3, 2]


def test_an_endless_loop_ends(graded):
    results = graded("def double(x):\n    while True: pass\n", seconds=1)
    assert [result["score"] for result in results] == [0, 2]
    assert "took longer than 1 s: does a loop never end?" in results[0]["output"]


def test_a_process_that_is_left_behind_is_killed(graded):
    """Also one that holds the pipe open."""

    def count():
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        return listed.count("test_course.py")

    before = count()
    body = "import os, time\n    if os.fork() == 0:\n        time.sleep(60)\n    return 2 * x"
    results = graded(f"def double(x):\n    {body}\n", seconds=2)
    assert results[1]["score"] == 2
    assert count() == before


def test_a_test_that_does_not_exist_is_an_error(graded):
    """Else a hole without a test would pass."""
    tasks = [TASKS[0]._replace(visible=["test_of_four"])]
    with pytest.raises(LookupError, match="test_of_four"):
        graded("def double(x):\n    return 2 * x\n", tasks)


def test_a_file_that_is_missing_or_no_python_costs_its_own_points(tmp_path):
    (tmp_path / "unit1").mkdir()
    answers = grade.answers_in(tmp_path, TASKS)
    assert answers["1.1"] == "! vit.py is not there"
    (tmp_path / "unit1/vit.py").write_text("def double(x:\n")
    assert answers.keys() == grade.answers_in(tmp_path, TASKS).keys()
    assert grade.answers_in(tmp_path, TASKS)["1.1"].startswith("! vit.py, line 1:")
    (tmp_path / "unit1/vit.py").write_text("def double(x): return x\n")
    answers = grade.answers_in(tmp_path, TASKS)
    assert answers["1.1"] == "def double(x): return x\n" and answers["1.2"].startswith("! vit.py:")


def test_the_modules_under_test_are_those_of_the_submission(graded, monkeypatch):
    """Not those of an installed solution, nor those that the grader itself has imported."""
    other = graded.folder / "other"
    other.mkdir()
    (other / "vit.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(other))
    import vit  # noqa: F401

    results = graded("def double(x):\n    return x\n")
    assert results[0]["score"] == 0


# --------------------------------------------------------------------------------------------------
# The real course.


@pytest.fixture(scope="module")
def course():
    return make.Course(None, 0)


def test_every_hole_is_there_and_every_text_is_filled(course):
    for unit in course.units:
        text = course.text(unit)
        assert not re.search(r"{(tasks|band|question)}", text), unit
    for task in course.tasks:
        source = (ROOT / task.file).read_text()
        assert "raise NotImplementedError" in holes.punch(source, [task]), task.id
    listed = {mutant["task"] for mutant in make.read_mutants()}
    assert listed <= {task.id for task in course.tasks}
    for mutant in make.read_mutants():
        (task,) = (task for task in course.tasks if task.id == mutant["task"])
        ast.parse(textwrap.dedent(make.wrong_answer(task, mutant)))


@pytest.mark.slow
def test_the_reference_has_all_points_and_some_wrong_answers_lose_theirs(tmp_path):
    """Of three units. make course-check tries all of them."""
    course = make.Course([1, 3, 6], 0)
    reference = tmp_path / "reference"
    make.copy_project(reference)
    right = grade.answers_in(reference, course.tasks)
    full = {task.id: task.points for task in course.tasks}
    assert make.points_by_task(course.tasks, right, reference) == full
    # One wrong answer and one empty answer of each unit.
    for unit in course.units:
        of_unit = {task.id: task for task in course.of_unit(unit)}
        mutants = [mutant for mutant in make.read_mutants() if mutant["task"] in of_unit]
        if not mutants:
            continue
        task = of_unit[mutants[-1]["task"]]
        punched = holes.punch((ROOT / task.file).read_text(), [task])
        for answer in (
            make.wrong_answer(task, mutants[-1]),
            holes.function_in(punched, task.name),
        ):
            answers = right | {task.id: answer}
            assert not make.points_by_task([task], answers, reference)[task.id], mutants[-1]


@pytest.mark.slow
def test_the_forms_of_the_course(tmp_path):
    """Made by the command; the student checks unit 1; Gradescope's form grades in its own folders."""
    out = tmp_path / "course"
    command = [sys.executable, str(ROOT / "docs/course/make.py"), "--out", str(out)]
    command += ["--units", "1,6"]
    subprocess.run(command, check=True, capture_output=True)
    student = out / "student"
    done = subprocess.run(
        [sys.executable, str(student / "course/grade.py"), "--check", "1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "not written yet (task 1.1: write" in done.stdout
    tests = (student / "course/tests/unit1.py").read_text()
    for task in make.Course([1], 0).tasks:
        assert all(f"def {name}()" in tests for name in task.visible)
        assert not any(name in tests for name in task.hidden)
    hidden = (student / "course/tasks.toml").read_text()
    assert '"test_' in hidden and "hidden = []" in hidden

    for page in student.glob("unit*.md"):
        for link in re.findall(r"\]\(([^)#:]+)[)#]", page.read_text()):
            assert (student / link).exists(), (page.name, link)

    base = tmp_path / "autograder"
    for name in ("source", "submission/unit1", "results"):
        (base / name).mkdir(parents=True)
    with zipfile.ZipFile(out / "gradescope.zip") as file:
        assert {"setup.sh", "run_autograder"} <= set(file.namelist())
        file.extractall(base / "source")
    # A right answer to unit 1 and nothing else.
    (base / "submission/unit1/lift.py").write_bytes((ROOT / "lift.py").read_bytes())
    subprocess.run(
        ["bash", str(base / "source/run_autograder")],
        check=True,
        env=os.environ
        | {
            "AUTOGRADER_DIR": str(base),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
    )
    results = json.loads((base / "results/results.json").read_text())
    points = {test["number"]: test["score"] for test in results["tests"]}
    for task in make.Course([1, 6], 0).tasks:
        assert points[task.id] == (task.points if task.unit == 1 else 0), task.id
    assert results["score"] == sum(points.values())
    assert results["leaderboard"] == [{"name": "points", "value": results["score"]}]

    for path in out.glob("nbgrader/source/*/*.ipynb"):
        notebook = json.loads(path.read_text())
        ids = [cell["metadata"]["nbgrader"]["grade_id"] for cell in notebook["cells"]]
        assert len(set(ids)) == len(ids)
        sources = "\n".join(cell["source"] for cell in notebook["cells"])
        assert sources.count("### BEGIN SOLUTION") == sources.count("### END SOLUTION") > 0
    workflow = (out / "classroom/.github/workflows/classroom.yml").read_text()
    assert "make check UNIT=1" in workflow and "autograding-grading-reporter@v1" in workflow
    assert "<h1>" in (out / "handout.html").read_text()
    assert (out / "teacher/answers.md").exists()
