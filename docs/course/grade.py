"""Grade answers: put them into the reference, and run the tests of each hole.

    python course/grade.py --check 1           a student: the visible tests of unit 1, in words
    python course/grade.py --submission DIR --results results.json      Gradescope

Of a submission only the functions that are holes are taken. They are put into a copy of the
reference, so a mistake in one unit costs nothing in another, and nobody's tests can be changed.

Every test runs in a process of its own: with a limit of time and of memory, and as the user
`nobody` where this process may choose. A test has passed if that process says so at its end, by a
pipe and with a random number. So to print, to write results.json, to delete the tests, to exit or
to loop for ever earns nothing. It is no prison: the student's code and the test share a process,
and somebody who attacks the grader on purpose can win. The functions are short. Read them.
"""

import argparse
import compileall
import contextlib
import importlib.util
import json
import os
import resource
import secrets
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from holes import Task, find, function_in, outside, put, read_tasks

SECONDS = 20  # of one test
GIGABYTES = (
    0.5  # of data that a test may take, beside the 0.2 that torch takes; Gradescope has 0.768
)
MODULES = ("vit", "llm_text", "lift", "train", "eval", "data")
# The libraries are imported here, once. The processes of the tests are copies of this one.
LIBRARIES = ("numpy", "PIL.Image", "tqdm", "tiktoken")


class Outcome(NamedTuple):
    """What came out of one test."""

    name: str
    error: str  # empty: passed


# --------------------------------------------------------------------------------------------------
# One test.


def run_test(tree: Path, tests: Path, name: str, task: Task, seconds: float = SECONDS) -> Outcome:
    """Run one test on the modules in `tree`, in a process of its own."""
    token = secrets.token_hex(16)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        # Nothing else of this process stays open: no results, no other test's pipe.
        os.closerange(3, send)
        os.closerange(send + 1, 1024)
        try:
            error = run_here(tree, tests, name, task)
            os.write(send, json.dumps([token, error]).encode()[:60_000])
        finally:
            os._exit(0)
    os.close(send)
    said = b""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and select.select([receive], [], [], left)[0]:
        more = os.read(receive, 65_536)
        if not more:
            break
        said += more
    os.close(receive)
    took_too_long = time.monotonic() >= end
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        told, error = json.loads(said)
        if told == token:
            return Outcome(name, error)
    except ValueError:
        pass
    if took_too_long:
        return Outcome(name, f"took longer than {seconds:g} s: does a loop never end?")
    return Outcome(name, "the process ended before the test did: exit, or too much memory")


def run_here(tree: Path, tests: Path, name: str, task: Task) -> str:
    """In the new process: give privileges up, run the test -> what is wrong, or nothing."""
    os.setsid()
    code = compile(tests.read_text(), tests.name, "exec")
    limit = data_size() + int(GIGABYTES * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    os.chdir(tree)
    for module in list(sys.modules):
        if module.split(".")[0] in MODULES:
            del sys.modules[module]
    sys.path.insert(0, str(tree))
    torch.manual_seed(0)
    try:
        space = {"__name__": "course_tests"}
        exec(code, space)
        module = sys.modules[task.file.removesuffix(".py").replace("/", ".")]
        if not Path(module.__file__).is_relative_to(tree):
            return f"{task.file} was not read from the submission"
        space[name]()
    except AssertionError as error:
        return str(error) or "wrong"
    except NotImplementedError as error:
        return f"not written yet ({error})"
    except BaseException as error:  # SystemExit, too
        return f"{type(error).__name__}: {error}{place_in(error, tree)}"
    return ""


def data_size() -> int:
    """Bytes of data that this process has already. 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData"))


def place_in(error: BaseException, tree: Path) -> str:
    """The last line of the student's code that an error came through."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(tree))
    ]
    if not frames:
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno}: {frames[-1].line})"


# --------------------------------------------------------------------------------------------------
# A submission.


def answers_in(folder: Path, tasks: Sequence[Task]) -> dict[str, str]:
    """{id of a task: its function as the student wrote it, or a line that begins with "!"}

    A file lies in the folder of its unit, or directly in the submission.
    """
    answers = {}
    for task in tasks:
        paths = [folder / f"unit{task.unit}" / task.file, folder / task.file]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            answers[task.id] = f"! {task.file} is not there"
            continue
        try:
            answers[task.id] = function_in(path.read_text(encoding="utf-8"), task.name)
        except SyntaxError as error:
            answers[task.id] = f"! {task.file}, line {error.lineno}: {error.msg}"
        except (LookupError, ValueError) as error:
            answers[task.id] = f"! {task.file}: {error}"
    return answers


def build(reference: Path, tree: Path, tasks: Sequence[Task], answers: dict[str, str]) -> None:
    """Copy the reference to `tree`, with the answers in the places of its functions."""
    shutil.copytree(reference, tree)
    for task in tasks:
        answer = answers[task.id]
        path = tree / task.file
        if answer.startswith("!"):
            answer = "def gone(*arguments, **more):\n    raise NotImplementedError\n"
        path.write_text(put(path.read_text(), task.name, answer))
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def check_listed(tests: Path, tasks: Sequence[Task]) -> None:
    """LookupError where a listed test does not exist: nothing passes because nothing ran."""
    for task in tasks:
        source = (tests / f"unit{task.unit}.py").read_text()
        for name in (*task.visible, *task.hidden):
            find(source, name)


def grade_task(
    task: Task, tree: Path, tests: Path, answer: str, only_visible: bool, seconds: float
) -> dict:
    """The result of one hole, in Gradescope's words. All of its tests must pass."""
    names = task.visible if only_visible else [*task.visible, *task.hidden]
    if answer.startswith("!"):
        outcomes = [Outcome(name, answer[2:]) for name in names]
    else:
        file = tests / f"unit{task.unit}.py"
        outcomes = [run_test(tree, file, name, task, seconds) for name in names]
    lines = []
    for outcome in outcomes[: len(task.visible)]:
        says = outcome.name.removeprefix("test_").replace("_", " ")
        lines.append(f"no: {says}: {outcome.error}" if outcome.error else f"yes: {says}")
    hidden = outcomes[len(task.visible) :]
    if hidden:
        held = sum(not outcome.error for outcome in hidden)
        lines.append(f"{held} of {len(hidden)} more tests pass, which you do not have")
    passed = bool(outcomes) and not any(outcome.error for outcome in outcomes)
    return {
        "number": task.id,
        "name": f"{task.id} {task.name} ({task.file})",
        "score": task.points if passed else 0,
        "max_score": task.points,
        "status": "passed" if passed else "failed",
        "output": "\n".join(lines),
        "visibility": "visible",
    }


def grade(
    tasks: Sequence[Task],
    answers: dict[str, str],
    reference: Path,
    tests: Path,
    only_visible: bool = False,
    seconds: float = SECONDS,
    tell=lambda results: None,
) -> list[dict]:
    """Grade all holes. `tell` is called with the results before the first test and after each hole.

    Holes that are not graded yet have 0 points.
    """
    prepare()
    check_listed(tests, tasks)
    # Compiled once. The processes of the tests may write nothing, and would compile it each time.
    compileall.compile_dir(reference, quiet=2)
    results = [
        {
            "number": task.id,
            "name": f"{task.id} {task.name} ({task.file})",
            "score": 0,
            "max_score": task.points,
            "status": "failed",
            "output": "not graded: the grader was stopped before",
            "visibility": "visible",
        }
        for task in tasks
    ]
    tell(results)
    for unit in sorted({task.unit for task in tasks}):
        of_unit = [task for task in tasks if task.unit == unit]
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            tree = Path(folder).resolve() / "tree"
            build(reference, tree, of_unit, answers)
            for task in of_unit:
                result = grade_task(task, tree, tests, answers[task.id], only_visible, seconds)
                results[tasks.index(task)] = result
                tell(results)
    return results


def prepare() -> None:
    """Import the libraries, so that every test has them at once."""
    torch.set_num_threads(1)
    for name in LIBRARIES:
        if importlib.util.find_spec(name.split(".")[0]):
            importlib.import_module(name)


def write_results(path: Path, results: list[dict], seconds: float) -> None:
    """results.json as Gradescope reads it."""
    points = sum(result["score"] for result in results)
    contents = {
        "score": points,
        "execution_time": round(seconds, 1),
        "tests": results,
        "leaderboard": [{"name": "points", "value": points}],
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(contents, indent=1))
    part.replace(path)


# --------------------------------------------------------------------------------------------------
# The commands.


def check(unit: int, here: Path) -> int:
    """A student's check: the visible tests of a unit, on the files as they are."""
    tasks = [task for task in read_tasks(here / "course/tasks.toml") if task.unit == unit]
    if not tasks:
        print(f"error: there is no unit {unit} with tasks here", file=sys.stderr)
        return 2
    folder = here / f"unit{unit}"
    originals = json.loads((here / "course/outside.json").read_text())
    for file in sorted({task.file for task in tasks}):
        in_file = [task for task in tasks if task.file == file]
        try:
            changed = outside((folder / file).read_text(), in_file) != originals[f"{unit}/{file}"]
        except (SyntaxError, LookupError):
            continue  # the tests say so
        if changed:
            print(f"note: {file} is changed outside of the holes; only the holes are graded")
    answers = answers_in(here, tasks)
    results = grade(tasks, answers, folder, here / "course/tests", only_visible=True)
    for result in results:
        print(f"\n{result['name']}: {result['status']}\n{result['output']}")
    passed = sum(result["status"] == "passed" for result in results)
    print(f"\n{passed} of {len(results)} holes pass their visible tests")
    return 0 if passed == len(results) else 1


def main() -> int:
    here = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", type=int, metavar="UNIT", help="a student's check of one unit")
    parser.add_argument("--submission", type=Path, help="folder of the submission")
    parser.add_argument("--results", type=Path, help="results.json")
    args = parser.parse_args()
    if args.check:
        return check(args.check, here)
    if not args.submission or not args.results:
        parser.error("give --check UNIT, or --submission and --results")
    begun = time.time()
    tasks = read_tasks(here / "course/tasks.toml")

    def tell(results):
        write_results(args.results, results, time.time() - begun)

    answers = answers_in(args.submission, tasks)
    grade(tasks, answers, here / "reference", here / "course/tests", tell=tell)
    return 0


if __name__ == "__main__":
    sys.exit(main())
