"""data/sweep.py: which runs there are, what is kept, what is chosen, and how a sweep is stopped.

    python -m pytest tests/data/test_sweep.py

Most tests train nothing: a function stands for the processes of train.py and eval.py.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

import eval as evaluation
from data import sweep
from data.common import BadInput, exit_status
from data.files.runs import read_run
from tests.data.images.example_data import image_file, tar


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """data.sweep with these words, in an empty folder -> (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["sweep", *words, "--out", "s"])
        capsys.readouterr()
        return exit_status(sweep.main), *capsys.readouterr()

    return call


@pytest.fixture
def fake(monkeypatch):
    """In place of processes: what they were asked, and R@1 by folder and split.

    A run of 10 steps saves after 10, or where `ends_at` says so. Those in `fails` end with an
    error.
    """
    monkeypatch.setattr(sweep, "read_run", lambda f: json.loads(f.read_text()))

    class Fake:
        asked = []
        n_images = 80  # among which the runs are asked
        scores = {}  # {(folder's name, split): (i2t, t2i)}
        fails = {}  # {folder's name: message}

        def call(self, script, *words, log=None, given=None):
            program = Path(script).name
            if program == "train.py":
                last = words[-1]  # --out=FOLDER or --resume=FOLDER
                folder = Path(last.split("=", 1)[1])
                Fake.asked.append((program, folder.name, *words[:-1], last.split("=")[0]))
                if folder.name in Fake.fails:
                    Path(log).write_text("what train.py said")
                    raise BadInput(Fake.fails[folder.name])
                (folder / "checkpoint.pt").write_text('{"step": 10, "total": 10}')
            else:
                folder, split = Path(words[0]), words[2]
                Fake.asked.append((program, folder.name, split))
                i2t, t2i = Fake.scores.get((folder.name, split), (0.5, 0.5))
                ways = {"i2t": {"R@1": i2t}, "t2i": {"R@1": t2i}}
                scores = {"retrieval": ways, "cost": {"training_seconds": 7}}
                n_negatives = sum(map(ord, folder.name))  # a run's own; R@1 does not ask them
                scores["counts"] = {"images": Fake.n_images, "captions": 2 * Fake.n_images}
                scores["counts"]["false captions"] = n_negatives
                name = "eval-split-val.json" if split == "val" else "eval.json"
                (folder / name).write_text(json.dumps(scores))

    monkeypatch.setattr(sweep.Children, "call", Fake.call)
    monkeypatch.setattr(sweep, "check_validation_images", lambda one: None)
    Fake.asked, Fake.scores, Fake.fails, Fake.n_images = [], {}, {}, 80
    return Fake


def rows(text):
    return [line for line in text.splitlines() if line.startswith("| ")][1:]


def test_every_combination_is_one_run_named_by_what_varies(tmp_path):
    given = {"seed": "0,1", "lr": "1e-3,3e-3", "method": "lift,clip", "steps": "60"}
    runs = sweep.combinations(given, tmp_path)
    assert len(runs) == 8 == len({one.name for one in runs})
    assert runs[0].name == "method=lift,lr=0.001,seed=0"
    assert runs[-1].words == ["--method=clip", "--steps=60", "--lr=0.003", "--seed=1"]
    assert runs[-1].setting == "method=clip,lr=0.003" and runs[-1].seed == 1
    assert runs[-1].folder == tmp_path / "method=clip,lr=0.003,seed=1"
    (alone,) = sweep.combinations({"lr": "1e-3"}, tmp_path)
    assert (alone.folder, alone.setting) == (tmp_path / "run", "as given")
    # The one flag whose value may be a comma.
    given = {"csv_separator": ",", "data": "a.csv", "torchcompile": False}
    (alone,) = sweep.combinations(given, tmp_path)
    assert alone.words == ["--data=a.csv", "--csv-separator=,", "--no-torchcompile"]


@pytest.mark.parametrize(
    "words, says",
    [
        ("--lrr 1e-3", "unrecognized arguments: --lrr; did you mean --lr?"),
        ("--lr 1e-3,x --seed 0,1", "lr=x,seed=0: argument --lr: invalid float value: 'x'"),
        ("--method lift,lit", "method=lit: --method lit starts from a pretrained image tower"),
        ("--method clip --lr 2", "error: --lr 2.0 is out of range"),
        ("--lr 1e-3,0.001", "two runs would be called lr=0.001; give each value once"),
        ("--data a.csv --val-frequency 0,9", "val-frequency=0: --split val: with --val-frequency"),
        ("--jobs 0", "--jobs 0 is out of range"),
        ("--resume x", "unrecognized arguments: --resume"),
        ("--data shapes,shapes-pairs --test", "--test needs one best setting"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_runs(words, says, command, fake):
    status, out, err = command(*words.split())
    assert status == 2 and not out and says in err
    assert [line for line in err.splitlines() if "note:" not in line][1:] == []
    assert not Path("s").exists() and not fake.asked


def test_flags_without_effect_are_told_once(command, fake):
    _, _, err = command("--method", "clip,lift", "--whiten", "8,16", "--seed", "0,1")
    assert err.count("--whiten has no effect: no vectors are whitened, not with --method clip") == 1


def test_the_best_setting_is_that_of_the_validation_images(command, fake):
    for lr, seed, val, test in (
        ("0.001", 0, (0.50, 0.60), (0.9, 0.9)),
        ("0.001", 1, (0.70, 0.80), (0.9, 0.9)),
        ("0.003", 0, (0.90, 0.40), (0.1, 0.2)),
        ("0.003", 1, (0.80, 0.60), (0.3, 0.2)),
    ):
        name = f"lr={lr},seed={seed}"
        fake.scores |= {(name, "val"): val, (name, "test"): test}
    words = ("--lr", "1e-3,3e-3", "--seed", "0,1")
    status, out, err = command(*words)
    # By hand: means 55 and 75, so 65 and 20 / sqrt(2); then 65 and 70, so 67.5 and 5 / sqrt(2).
    assert status == 0 and rows(out) == [
        "| lr=0.001 | 2 | 60.0 ± 14.1 | 70.0 ± 14.1 | 65.0 ± 14.1 | 7 |  |",
        "| lr=0.003 | 2 | 85.0 ± 7.1 | 50.0 ± 14.1 | 67.5 ± 3.5 | 7 | **best** |",
    ]
    assert "4/4 lr=0.003,seed=1: validation R@1 80.0 % i2t, 60.0 % t2i" in err
    assert {asked[2] for asked in fake.asked if asked[0] == "eval.py"} == {"val"}
    assert rows(Path("s/sweep.md").read_text()) == rows(out)
    lines = [json.loads(line) for line in Path("s/sweep.jsonl").read_text().splitlines()]
    assert [line["run"] for line in lines][1] == "lr=0.001,seed=1"
    assert (
        lines[1]["val"]["mean"] == pytest.approx(75) and lines[1]["flags"] == "--lr=0.001 --seed=1"
    )
    assert not any("test" in line for line in lines)

    # Test images are asked about at the end, of the best setting alone. Nothing is trained again.
    fake.asked.clear()
    status, out, _ = command(*words, "--test")
    assert status == 0 and "lr=0.003, on the test images: i2t R@1 20.0 ± 14.1, t2i R@1 20.0" in out
    assert fake.asked == [("eval.py", f"lr=0.003,seed={seed}", "test") for seed in (0, 1)]


def test_a_run_that_fails_is_named_and_its_setting_is_not_chosen(command, fake):
    fake.fails = {"lr=0.003,seed=0": "error: the loss is nan"}
    fake.scores = {("lr=0.003,seed=1", "val"): (0.9, 0.9)}
    words = ("--lr", "1e-3,3e-3", "--seed", "0,1")
    status, out, err = command(*words)
    assert status == 1 and rows(out) == [
        "| lr=0.001 | 2 | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 | 7 | **best** |",
        "| lr=0.003 | 1 | 90.0 | 90.0 | 90.0 | 7 | 1 failed |",
    ]
    says = "lr=0.003,seed=0 failed: error: the loss is nan (s/lr=0.003,seed=0/train.log)"
    assert f"- {says}" in out and says.replace(" failed", ": failed") in err
    assert "Best of" not in out  # one setting has finished: there was no choice
    line = json.loads(Path("s/sweep.jsonl").read_text().splitlines()[2])
    assert line["failed"] == "error: the loss is nan" and "val" not in line
    # It is tried again, alone.
    fake.fails, fake.asked[:] = {}, []
    assert command(*words)[0] == 0
    assert [asked[:2] for asked in fake.asked] == [
        ("train.py", "lr=0.003,seed=0"),
        ("eval.py", "lr=0.003,seed=0"),
    ]


def test_what_is_finished_is_kept_and_the_rest_goes_on(command, fake, tmp_path):
    parent = {"config": {}, "step": 10, "total": 10}
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent" / "checkpoint.pt").write_text(json.dumps(parent))
    words = ("--seed", "0,1,2", "--steps", "10", "--device", "cpu")
    command(*words)
    assert fake.asked[0] == (
        *("train.py", "seed=0", "--steps=10", "--device=cpu", "--seed=0", "--out"),
    )
    # One was stopped in the middle, and one was saved after it had been scored.
    Path("s/seed=0/checkpoint.pt").write_text('{"step": 4, "total": 10}')
    saved = Path("s/seed=1/eval-split-val.json").stat().st_mtime_ns + 1_000_000
    os.utime("s/seed=1/checkpoint.pt", ns=(saved, saved))
    fake.asked.clear()
    # Another device may go on with it, and a fourth seed is new.
    status, out, _ = command("--seed", "0,1,2,3", "--steps", "10")
    assert status == 0 and rows(out)[0].startswith("| as given | 4 |")
    assert fake.asked == [
        ("train.py", "seed=0", "--steps=10", "--seed=0", "--resume"),
        ("eval.py", "seed=0", "val"),
        ("eval.py", "seed=1", "val"),
        ("train.py", "seed=3", "--steps=10", "--seed=3", "--out"),
        ("eval.py", "seed=3", "val"),
    ]
    # Other flags are another run, also where train.py would take the flag from the checkpoint.
    for others in (("--steps", "20"), ()):
        status, _, err = command("--seed", "0,1", *others)
        assert status == 2 and "s/seed=0 was made with --steps=10 --seed=0; remove it" in err
    # A damaged checkpoint is the failure of one run.
    Path("s/seed=1/checkpoint.pt").write_text("{}")
    status, out, _ = command("--seed", "0,1,2", "--steps", "10")
    assert status == 1 and "- seed=1 failed: s/seed=1/checkpoint.pt: truncated, corrupt or" in out
    Path("s/seed=0/flags.txt").unlink()
    status, _, err = command(*words)
    assert status == 2 and "s/seed=0 was made by no sweep" in err


def test_settings_with_other_validation_images_have_no_best(command, fake):
    status, out, _ = command("--data", "shapes,shapes-pairs")
    assert status == 0 and "best**" not in out and "No best setting: they differ in --data" in out
    status, out, _ = command("--csv-caption-key", "short,long")
    assert status == 0 and "**best**" in out  # a built-in world asks the same of both
    status, out, _ = command("--data", "a.csv", "--csv-caption-key", "x,y")
    assert status == 0 and "they differ in --csv-caption-key" in out


def test_without_validation_images_no_run_begins(command, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep.Children, "call", lambda *args, **kwargs: pytest.fail("a run began"))
    members = [(f"{i}.txt", f"it is {i}") for i in range(3)]
    tar(tmp_path / "a.tar", [*members, *((f"{i}.png", image_file(i)) for i in range(3))])
    status, out, _ = command("--data", "a.tar", "--lr", "1e-3,3e-3")
    assert status == 1 and out.count("failed: --split val: a.tar has no validation images") == 2


def test_runs_of_data_that_changed_in_between_have_no_best(command, fake):
    status, out, _ = command("--lr", "1e-3,3e-3", "--seed", "0,1")
    assert status == 0 and "**best**" in out
    fake.n_images = 40  # the file behind --data is shorter now
    status, out, _ = command("--lr", "1e-3,3e-3", "--seed", "0,1,2")
    assert status == 0 and "**best**" not in out
    said = "lr=0.001,seed=0 was asked about 80 images and 160 captions, and lr=0.001,seed=2 about"
    assert f"No best setting: {said} 40 images and 80 captions" in out
    status, out, err = command("--lr", "1e-3,3e-3", "--seed", "0,1,2", "--test")
    assert status == 1 and "--test: there is no best setting" in err
    assert {asked[2] for asked in fake.asked if asked[0] == "eval.py"} == {"val"}


# --------------------------------------------------------------------------------------------------
# Processes.


def test_a_process_that_fails_says_its_own_last_line(tmp_path):
    children, log = sweep.Children(threads=3), tmp_path / "log"
    code = "import os; print(os.environ['OMP_NUM_THREADS'], input())"
    assert children.call("-c", code, given="x") == "3 x\n"
    for number in (1, 2):
        with pytest.raises(BadInput, match=f"^error: {number}$"):
            children.call("-c", f"import sys; sys.exit('a\\nerror: {number}')", log=log)
    assert log.read_text() == "a\nerror: 1\na\nerror: 2\n"
    with pytest.raises(BadInput, match="^failed without a word$"):
        children.call("-c", "raise SystemExit(1)", log=log)
    with pytest.raises(BadInput, match="^ended by signal 9 "):
        children.call("-c", "import os; os.kill(os.getpid(), 9)")


def test_so_many_at_a_time_and_an_error_begins_no_more(tmp_path):
    children = sweep.Children()
    at_once, most, begun = set(), [], []

    def task(number):
        begun.append(number)
        at_once.add(number)
        most.append(len(at_once))
        time.sleep(0.05)
        at_once.remove(number)
        if number == 4:
            raise BadInput("four")

    children.run_all([lambda n=n: task(n) for n in range(4)], jobs=2)
    assert sorted(begun) == [0, 1, 2, 3] and max(most) == 2
    with pytest.raises(BadInput, match="four"):
        children.run_all([lambda n=n: task(n) for n in range(4, 50)], jobs=2)
    assert len(begun) < 20


def test_a_signal_ends_what_runs_and_begins_nothing(tmp_path):
    """The processes save when they are told to end. A signal to the terminal is told once."""
    before = signal.getsignal(signal.SIGINT)
    children = sweep.Children()
    code = """
import signal, sys, time
from pathlib import Path
def save(number, frame):
    Path(sys.argv[1] + ".saved").touch()
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, save)
Path(sys.argv[1]).touch()
time.sleep(20)
"""

    def interrupt():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    tasks = [lambda n=n: children.call("-c", code, str(tmp_path / str(n))) for n in range(4)]
    with pytest.raises(SystemExit) as ended:
        children.run_all(tasks, jobs=2)
    thread.join()
    assert ended.value.code == 128 + signal.SIGINT and not children.running
    assert {path.name for path in tmp_path.iterdir()} == {"0", "0.saved", "1", "1.saved"}
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_two_real_runs_are_stopped_and_gone_on_with(small, command, monkeypatch):
    """On images in a file: the built-in world's 800 validation scenes would take longer."""
    table = ["filepath,title"]
    for i in range(200):
        Image.new("RGB", (32, 32), (i, 0, 255 - i)).save(f"{i}.png")
        table.append(f"{i}.png,number {i}")
    Path("a.csv").write_text("\n".join(table) + "\n")
    small |= {"data": "a.csv", "model": "nano/16", "method": "clip", "steps": 60, "batch_size": 8}
    small |= {"seed": "0,1", "save_frequency": 1000}
    del small["out"], small["whiten"], small["train_num_samples"]
    words = [word for k, v in small.items() for word in (f"--{k.replace('_', '-')}", str(v))]

    # train.py runs in processes. eval.py runs here, without a drawing, which saves time.
    call, here = sweep.Children.call, threading.Lock()

    def call_or_evaluate(children, script, *argv, log):
        if not script.endswith("eval.py"):
            return call(children, script, *argv, log=log)
        with here, monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [script, *argv])
            patch.setattr(evaluation, "report", lambda results, target: None)
            assert exit_status(evaluation.main) == 0

    monkeypatch.setattr(sweep.Children, "call", call_or_evaluate)

    log = Path("s/seed=0/log.jsonl")

    def interrupt():
        while not log.exists() or '"loss"' not in log.read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(SystemExit) as ended:
        command(*words)
    thread.join()
    assert ended.value.code == 128 + signal.SIGTERM and not Path("s/sweep.md").exists()
    step = read_run(log.parent)["step"]
    assert 0 < step < 60 and not Path("s/seed=1/checkpoint.pt").exists()

    # The first goes on, and the second begins.
    status, out, err = command(*words, "--jobs", "2")
    assert status == 0 and "| as given | 2 |" in out and "2/2 seed=" in err, (out, err)
    assert [read_run(f"s/seed={seed}")["step"] for seed in (0, 1)] == [60, 60]
    said = Path("s/seed=0/train.log").read_text()
    assert f"stopped after step {step} of 60" in said
    assert f"going on after step {step} of 60" in said
