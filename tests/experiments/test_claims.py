"""tests/experiments/claims.py: what is run again, what is not, and what the table says.

    python -m pytest tests/experiments/test_claims.py

Nothing is trained here: the commands only write what train.py, eval.py and llm_text.py leave.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest

from data.common import BadInput
from tests.experiments import claims

RUNS = {
    "supervised": "--method supervised",
    "a": "--method ape --image-weights {supervised}",
    "b": "--method lift --llm-adapter {adapter}",
    "c": "--method lift --text-features {sentences}",
}


class FakeRunner(claims.Runner):
    """A runner that notes in `ran` which commands it was to run."""

    def __init__(self, out, work, check=False):
        super().__init__(out, work, check)
        self.ran = []

    def command(self, script, *argv, given=None):
        if script == "-m":
            return self.run_module(*argv, given=given)
        folder = Path(argv[argv.index("--out") + 1] if "--out" in argv else argv[0])
        self.ran.append((script, folder.name.removeprefix("part-")))
        if script == "llm_text.py":
            folder.write_bytes(b"adapter")
            return "before: 12.5% of 80 held\nafter:  50.0% of 80 held"
        if script == "train.py":
            self.train(folder, argv)
        else:
            self.evaluate(folder)
        return ""

    def run_module(self, module, *argv, given):
        self.ran.append(module)
        if module == "tests.experiments.sentences":
            Path(argv[0]).write_text(given)
        return "a text\n"

    def train(self, folder, argv):
        assert not folder.exists()
        # What it starts from is there.
        assert all(Path(x).exists() for x in argv if "/" in x and x != str(folder))
        folder.mkdir()
        (folder / "checkpoint.pt").touch()
        log = [{"trained": 1, "parameters": 4}, {"step": 3}]
        (folder / "log.jsonl").write_text("\n".join(map(json.dumps, log)))

    def evaluate(self, folder):
        mean = 0.25 + 0.5 * len(self.lines)
        scores = {"run": "x", "ci95": 0, "chance": 0, "compositional": {"mean": mean}}
        (folder / "eval.json").write_text(json.dumps(scores))


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """runner() makes a FakeRunner that knows what those before it have kept."""
    monkeypatch.setattr(claims, "RUNS", dict(RUNS))
    monkeypatch.setattr(claims, "COMPARED", ())
    (tmp_path / "work").mkdir()
    return lambda: FakeRunner(tmp_path / "claims.jsonl", tmp_path / "work")


def test_starts_come_first_and_nothing_is_run_twice(runner):
    one = runner()
    one.ensure("a", 7)
    assert one.ran == [
        ("train.py", "supervised-7"),
        ("eval.py", "supervised-7"),
        ("train.py", "a-7"),
        ("eval.py", "a-7"),
    ]
    assert [x["name"] for x in one.lines] == ["supervised", "a"]
    assert not (one.work / "a-7" / "checkpoint.pt").exists()

    one.ensure("b", 7)
    assert one.ran[4] == ("llm_text.py", "adapter-7.safetensors")
    adapter = one.lines[2]
    assert (adapter["cra_before"], adapter["cra_after"], adapter["pool"]) == (0.125, 0.5, 80)

    another_day = runner()
    for name in ("a", "b", "supervised", "adapter"):
        another_day.ensure(name, 7)
    assert another_day.ran == [] and another_day.lines == one.lines


def test_the_command_makes_each_row_with_every_seed(runner, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(claims, "Runner", FakeRunner)
    flags = ["--out", str(tmp_path / "claims.jsonl"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", ["claims", "--only", "a", "--seeds", "3", "4", *flags])
    claims.main()
    made = {(line["name"], line["seed"]) for line in runner().lines}
    names = ("supervised", "a", "adapter")  # "a" begins both
    assert made == {(name, seed) for name in names for seed in (3, 4)}
    assert "| a | 2 | 25.00% |" in capsys.readouterr().out


def test_a_check_makes_known_runs_again_and_says_what_differs(
    runner, tmp_path, monkeypatch, capsys
):
    """The mean is 0.25 in the first line of a file, and 0.75 in the second."""
    first = runner()
    first.ensure("a", 0)
    before = first.out.read_bytes()
    kept = first.work / "supervised-0" / "checkpoint.pt"

    def check(*flags):
        monkeypatch.setattr(claims, "Runner", FakeRunner)
        places = ["--out", str(tmp_path / "claims.jsonl"), "--work", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", ["claims", "--check", *flags, *places])
        capsys.readouterr()
        claims.main()

    # Two lines are known, so the mean of each run that is made today is 1.25.
    with pytest.raises(BadInput, match="some scores differ"):
        check("--seeds", "0")
    said = capsys.readouterr().out.splitlines()
    assert sorted(said) == [
        "a seed 0: 1 of 1 scores differ: compositional mean 75.00 -> 125.00",
        "supervised seed 0: 1 of 1 scores differ: compositional mean 25.00 -> 125.00",
    ]
    # A check leaves the file and what other runs start from as they were.
    assert first.out.read_bytes() == before and kept.exists()

    lines = [json.loads(line) for line in before.splitlines()]
    for line in lines:
        line["compositional"]["mean"] = 1.25
    first.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    check("--only", "supervised")
    assert "supervised seed 0: 1 scores equal\n" in capsys.readouterr().out

    with pytest.raises(BadInput, match="nothing was checked"):
        check("--seeds", "7")


def test_a_start_with_other_scores_is_no_error_without_a_check(runner, tmp_path, monkeypatch):
    one = runner()
    one.ensure("supervised", 3)
    shutil.rmtree(one.work / "supervised-3")
    monkeypatch.setattr(claims, "Runner", FakeRunner)
    places = ["--out", str(one.out), "--work", str(one.work)]
    monkeypatch.setattr(sys, "argv", ["claims", "--only", "a", "--seeds", "3", *places])
    claims.main()


def test_times_and_counts_are_no_scores():
    line = {"seed": 1, "seconds": 2.5, "cost": {"training_seconds": 0.5}, "cra_after": 0.75}
    line |= {"final": {"loss": 1.5}, "retrieval": {"i2t": {"R@1": 0.5, "n": 3}}}
    assert claims.all_scores(line) == {"cra_after": 0.75, "retrieval i2t R@1": 0.5}
    assert claims.compare({"seed": 1}, line) == (False, "no score to compare")
    less = {**line, "retrieval": {}}
    gone = "1 of 2 scores differ: retrieval i2t R@1 50.00 -> nan"
    assert claims.compare(line, less) == (False, gone)
    assert claims.compare(less, line) == (True, "1 scores equal")


def test_a_start_that_is_gone_is_made_again_and_counted_once(runner):
    one = runner()
    one.ensure("a", 0)
    shutil.rmtree(one.work / "supervised-0")
    two = runner()
    two.ensure("supervised", 0)
    assert len(two.ran) == 2 and two.lines == one.lines == runner().lines


def test_the_sentence_encoder_reads_what_the_module_lists(runner):
    one = runner()
    one.ensure("c", 0)
    assert one.ran == [
        "data.images.read",
        "tests.experiments.sentences",
        ("train.py", "c-0"),
        ("eval.py", "c-0"),
    ]
    assert (one.work / "sentences-0.npy").read_text() == "a text\n"
    # The name of this recipe in claims.jsonl: another one would make the known runs others.
    flags = "--method lift --text-features {data.readers shapes --texts}"
    assert one.lines[0]["flags"] == flags
    one.ensure("sentences", 0)
    assert len(one.ran) == 4 and len(one.lines) == 1


def test_every_known_run_has_a_recipe_of_today():
    known = {(x["name"], x["flags"]) for x in claims.read_lines(claims.RESULTS)}
    assert len(known) >= 20
    today = {(name, claims.recipe(name)) for name in (*claims.RUNS, "adapter")}
    assert known <= today


def test_another_recipe_of_a_start_is_another_run(runner, monkeypatch):
    runner().ensure("a", 0)
    monkeypatch.setitem(claims.RUNS, "supervised", "--method supervised --epochs 8")
    two = runner()
    two.ensure("a", 0)
    assert len(two.ran) == 4
    flags = "--method ape --image-weights {--method supervised --epochs 8}"
    assert two.lines[-1]["flags"] == flags


@pytest.mark.slow
def test_a_command_that_fails_is_one_line_and_no_result(tmp_path):
    with pytest.raises(BadInput, match="train.py --method x: .*invalid choice"):
        claims.Runner(tmp_path / "claims.jsonl", tmp_path).command("train.py", "--method", "x")


def test_the_table_has_mean_and_deviation_of_the_present_recipes(runner, capsys):
    one = runner()
    for seed in (0, 1):
        one.ensure("a", seed)
    older = {**one.lines[1], "flags": "older", "compositional": {"mean": 9}}
    claims.table([*one.lines, older])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| a |"))
    assert row.startswith("| a | 2 | 25.00% |") and "125.0 ± 70.7" in row  # 0.75 and 1.75


def test_differences_are_taken_within_each_seed(monkeypatch, capsys):
    """The scores go up and down together: 30, 50 and 70 against 20, 41 and 57."""
    monkeypatch.setattr(claims, "RUNS", {"a": "--x", "b": "--y", "c": "--z"})
    monkeypatch.setattr(claims, "COMPARED", (("a", "b"), ("a", "c")))
    monkeypatch.setattr(claims, "COLUMNS", {"mean": ("compositional", "mean")})
    lines = [
        {"name": name, "flags": flags, "seed": seed, "compositional": {"mean": score}}
        for name, flags, scores in (("a", "--x", {2: 0.7, 0: 0.3, 1: 0.5}),)
        for seed, score in scores.items()
    ]
    lines += [
        {"name": "b", "flags": "--y", "seed": seed, "compositional": {"mean": score}}
        for seed, score in ((0, 0.2), (1, 0.41), (2, 0.57))
    ]
    # Of `c` one seed is missing, so it is not compared.
    lines += [{**line, "name": "c", "flags": "--z"} for line in lines[:2]]
    claims.differences(lines)
    # 10, 9 and 13
    assert capsys.readouterr().out.splitlines()[2:] == ["| a - b | 3 | 10.7 ± 2.1 |"]


def test_what_is_interrupted_does_not_pass_for_done(runner):
    """A start that is known from another day, but was broken off when it was made again."""
    runner().ensure("supervised", 7)
    two = runner()
    made = two.work / "supervised-7"
    shutil.rmtree(made)

    def broken(script, *argv):
        Path(argv[argv.index("--out") + 1]).mkdir()
        raise KeyboardInterrupt

    two.command = broken
    with pytest.raises(KeyboardInterrupt):
        two.ensure("supervised", 7)
    assert not made.exists()
    del two.command
    assert (two.ensure("supervised", 7) / "checkpoint.pt").exists()
