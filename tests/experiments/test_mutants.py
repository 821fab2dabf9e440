"""tests/experiments/mutants.py: the list fits the code, and survivors are found.

python -m pytest tests/experiments/test_mutants.py
"""

import re
import sys

import pytest

from data.common import BadInput, exit_status
from tests.experiments import mutants
from tests.experiments.mutants import MUTANTS, ROOT, Mutant, copy_project, survives


def test_every_wrong_edit_fits_the_code():
    """Who changes a line that is listed must change the list as well."""
    for mutant in MUTANTS:
        text = (ROOT / mutant.file).read_text()
        assert text.count(mutant.old) == 1, f"{mutant.file} has not once: {mutant.old}"
        assert mutant.new != mutant.old
        file, name = re.match(r"(.*)::(\w+)", mutant.test).groups()
        assert f"def {name}(" in (ROOT / file).read_text(), mutant.test
        assert "|" not in mutant.wrong + mutant.test  # it would end a cell of the table
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS) >= 60


# A project of two files, whose tests start in no time.
WORK = """
def half(x):
    return x / 2


def double(x):
    return 2 * x
"""
TESTS = """
from work import double, half


def test_half():
    assert half(4) == 2


def test_double():
    assert double(2) == 4
"""
CAUGHT = Mutant("work.py", "x / 2", "x * 2", "test_work.py::test_half", "twice in place of half")
SURVIVOR = Mutant("work.py", "2 * x", "2 + x", "test_work.py::test_double", "sum for product")


def write_tiny_project(folder):
    (folder / "work.py").write_text(WORK)
    (folder / "test_work.py").write_text(TESTS)


def test_a_wrong_edit_is_caught_or_survives_and_is_taken_back(tmp_path):
    write_tiny_project(tmp_path)
    assert not survives(CAUGHT, tmp_path)
    assert survives(SURVIVOR, tmp_path)  # 2 + 2 is 2 * 2, too
    assert (tmp_path / "work.py").read_text() == WORK


@pytest.mark.parametrize(
    "change, says",
    [
        ({"old": "x / 3"}, "work.py has 0 times 'x / 3', not once"),
        ({"old": "return"}, "work.py has 2 times 'return', not once"),
        ({"test": "test_work.py::test_third"}, "test_work.py::test_third does not run"),
        ({"new": "x /"}, "test_half does not run with 'x /'"),  # no Python: nothing is collected
    ],
)
def test_edits_and_tests_that_do_not_exist_are_told(tmp_path, change, says):
    write_tiny_project(tmp_path)
    with pytest.raises(BadInput, match=re.escape(says)):
        survives(CAUGHT._replace(**change), tmp_path)
    assert (tmp_path / "work.py").read_text() == WORK


def test_the_command_prints_each_edit_and_fails_where_one_survives(monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["mutants", *arguments])
        return exit_status(mutants.main), *capsys.readouterr()

    monkeypatch.setattr(mutants, "MUTANTS", [CAUGHT, SURVIVOR])
    monkeypatch.setattr(mutants, "copy_project", write_tiny_project)
    monkeypatch.setattr(mutants, "survives", lambda mutant, folder: mutant is SURVIVOR)
    monkeypatch.setattr(mutants, "pytest_status", lambda folder, tests: 0)
    status, out, _ = command()
    assert status == 1 and out.splitlines()[2:] == [
        "| work.py | twice in place of half | `test_work.py::test_half` | yes |",
        "| work.py | sum for product | `test_work.py::test_double` | NO |",
        "",
        "2 wrong edits, 1 survived",
    ]
    status, out, _ = command("--only", "half")
    assert status == 0 and out.endswith("1 wrong edits, 0 survived\n")
    status, out, err = command("--only", "third")
    assert status == 2 and not out and "--only third: no wrong edit" in err

    # Where a test fails by itself, it catches nothing.
    monkeypatch.setattr(mutants, "pytest_status", lambda folder, tests: 1)
    status, out, err = command()
    assert status == 2 and not out and "do not all pass" in err


@pytest.mark.slow
def test_some_of_the_list_are_caught(tmp_path):
    copy_project(tmp_path)
    for wrong in ("the longest caption is not the last", "crops lie on the diagonal only"):
        (mutant,) = (mutant for mutant in MUTANTS if mutant.wrong == wrong)
        assert not survives(mutant, tmp_path)
