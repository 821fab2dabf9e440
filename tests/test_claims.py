"""tests/claims.py: what is run again, what is not, and what the table says. No training here.

python -m pytest tests/test_claims.py
"""

import json
import shutil
from pathlib import Path

import pytest

from data.common import BadInput
from tests.experiments import claims


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """A runner whose commands only write what train.py, eval.py and llm_text.py leave."""
    monkeypatch.setattr(
        claims,
        "RUNS",
        {
            "supervised": "--method supervised",
            "a": "--method ape --image-weights {supervised}",
            "b": "--method lift --llm-adapter {adapter}",
            "c": "--method lift --text-features {sentences}",
        },
    )
    (tmp_path / "work").mkdir()

    def make():
        runner, ran = claims.Runner(tmp_path / "claims.jsonl", tmp_path / "work"), []

        def command(script, *argv, given=None):
            if script == "-m":
                ran.append(argv[0])
                return (
                    Path(argv[1]).write_text(given) if argv[0] == "tests.sentences" else "a text\n"
                )
            folder = Path(argv[argv.index("--out") + 1] if "--out" in argv else argv[0])
            ran.append((script, folder.name.removeprefix("part-")))
            if script == "llm_text.py":
                folder.write_bytes(b"adapter")
                return "before: 12.5% of 80 held\nafter:  50.0% of 80 held"
            if script == "train.py":
                assert not folder.exists()
                assert all(
                    Path(x).exists() for x in argv if "/" in x and x != str(folder)
                )  # what it starts from
                folder.mkdir()
                (folder / "checkpoint.pt").touch()
                log = [{"trained": 1, "parameters": 4}, {"step": 3}]
                (folder / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
            else:
                scores = {
                    "run": "x",
                    "ci95": 0,
                    "chance": 0,
                    "compositional": {"mean": 0.25 + 0.5 * len(runner.lines)},
                }
                (folder / "eval.json").write_text(json.dumps(scores))

        runner.command, runner.ran = command, ran
        return runner

    return make


def test_starts_come_first_and_nothing_is_run_twice(runner):
    one = runner()
    one.ensure("a", 7)
    assert one.ran == [
        ("train.py", "supervised-7"),
        ("eval.py", "supervised-7"),
        ("train.py", "a-7"),
        ("eval.py", "a-7"),
    ]
    assert [x["name"] for x in one.lines] == ["supervised", "a"] and not (
        one.work / "a-7" / "checkpoint.pt"
    ).exists()
    one.ensure("b", 7)
    assert one.ran[4] == ("llm_text.py", "adapter-7.safetensors")
    assert (one.lines[2]["cra_before"], one.lines[2]["cra_after"], one.lines[2]["pool"]) == (
        0.125,
        0.5,
        80,
    )
    two = runner()  # another day
    for name in ("a", "b", "supervised", "adapter"):
        two.ensure(name, 7)
    assert two.ran == [] and two.lines == one.lines


def test_a_start_that_is_gone_is_made_again_and_counted_once(runner):
    one = runner()
    one.ensure("a", 0)
    shutil.rmtree(one.work / "supervised-0")
    two = runner()
    two.ensure("supervised", 0)
    assert len(two.ran) == 2 and two.lines == one.lines == runner().lines


def test_what_the_sentence_encoder_reads_is_what_the_readers_list(runner):
    one = runner()
    one.ensure("c", 0)
    assert one.ran == ["data.readers", "tests.sentences", ("train.py", "c-0"), ("eval.py", "c-0")]
    assert (one.work / "sentences-0.npy").read_text() == "a text\n" and one.lines[0][
        "flags"
    ] == "--method lift --text-features {data.readers shapes --texts}"
    one.ensure("sentences", 0)
    assert len(one.ran) == 4 and len(one.lines) == 1


def test_another_recipe_of_a_start_is_another_run(runner, monkeypatch):
    runner().ensure("a", 0)
    monkeypatch.setitem(claims.RUNS, "supervised", "--method supervised --epochs 8")
    two = runner()
    two.ensure("a", 0)
    assert (
        len(two.ran) == 4
        and two.lines[-1]["flags"]
        == "--method ape --image-weights {--method supervised --epochs 8}"
    )


def test_a_command_that_fails_is_one_line_and_no_result(tmp_path):
    with pytest.raises(BadInput, match="train.py --method x: .*invalid choice"):
        claims.Runner(tmp_path / "claims.jsonl", tmp_path).command("train.py", "--method", "x")


def test_the_table_has_mean_and_deviation_of_the_present_recipes(runner, capsys, monkeypatch):
    one = runner()
    for seed in (0, 1):
        one.ensure("a", seed)
    claims.table([*one.lines, {**one.lines[1], "flags": "older", "compositional": {"mean": 9}}])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| a |"))
    assert row.startswith("| a | 2 | 25.00% |") and "125.0 ± 70.7" in row  # 0.75 and 1.75


def test_what_is_interrupted_does_not_pass_for_done(runner):
    """A start that is known from another day, but was broken off when it had to be made again."""
    runner().ensure("supervised", 7)
    two = runner()
    made = two.work / "supervised-7"
    shutil.rmtree(made)

    def broken(script, *argv):
        Path(argv[argv.index("--out") + 1]).mkdir()
        raise KeyboardInterrupt

    whole, two.command = two.command, broken
    with pytest.raises(KeyboardInterrupt):
        two.ensure("supervised", 7)
    assert not made.exists()
    two.command = whole
    assert (two.ensure("supervised", 7) / "checkpoint.pt").exists()
