"""data/processes.py: several processes compute what one computes.

python -m pytest tests/data/test_processes.py

torchrun starts this very file, too: then it is the program of each process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

import lift
import train
from data import processes
from data.common import BadInput
from data.vectors import VectorStore
from tests.test_lift import IDS, as_float64, distance, in_float64, make_model
from tests.test_train import arguments, assert_same, state

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
B = 8  # images of a batch


def start(n_processes, program, *argv):
    """Start a program in several processes; a subprocess.Popen."""
    return subprocess.Popen(
        [*TORCHRUN, str(n_processes), str(program), *map(str, argv)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(n_processes, program, *argv):
    """Run it to its end; what it said."""
    process = start(n_processes, program, *argv)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def test_one_process_is_rank_0_and_sends_nothing():
    rows = torch.randn(3, 2)
    assert (processes.rank(), processes.count(), processes.largest(7)) == (0, 1, 7)
    assert processes.gather(rows) is rows
    assert train.own_rows(5) == slice(0, 5)


@pytest.mark.parametrize("gpu", ["", "cuda", "mps"])
def test_processes_exchange_tensors_of_the_cpu_and_of_cuda(gpu, monkeypatch):
    """PyTorch alone would choose for the GPU only, where there is one."""
    opened, closed = [], []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu == "cuda")
    monkeypatch.setattr(torch._C, "_get_accelerator", lambda: torch.device(gpu or "cpu"))
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend="undefined", **_: opened.append(backend)
    )
    monkeypatch.setattr(dist, "destroy_process_group", lambda: closed.append(True))
    with processes.joined():
        pass
    backends = dist.BackendConfig(dist.Backend(opened[0])).get_device_backend_map()
    assert backends["cpu"] == "gloo"
    assert gpu != "cuda" or backends["cuda"] == "nccl"
    # A signal ends a run with SystemExit. The group has to end then, too.
    with pytest.raises(SystemExit), processes.joined():
        raise SystemExit(130)
    assert len(closed) == 2


def test_weights_that_lie_in_columns_are_sent_in_rows(monkeypatch):
    """NCCL refuses others. The matrix of LIFT's whitening is one."""
    model = torch.nn.Linear(3, 2)
    model.weight.data = torch.zeros(3, 2).T
    monkeypatch.setattr(processes, "count", lambda: 2)

    def broadcast(tensor, rank):
        assert tensor.is_contiguous() and rank == 0
        tensor.fill_(7)

    monkeypatch.setattr(dist, "broadcast", broadcast)
    processes.copy_from_first(model)
    assert all((parameter == 7).all() for parameter in model.parameters())


def test_a_batch_that_cannot_be_shared_is_told(monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 3)
    monkeypatch.setattr(processes, "rank", lambda: 1)
    assert train.own_rows(6) == slice(2, 4)
    with pytest.raises(BadInput, match="cannot share a batch of 7 images alike.*--batch-size 6"):
        train.own_rows(7)
    with pytest.raises(BadInput, match="3 processes for batches of 2 images; start fewer"):
        train.own_rows(2)


def test_processes_that_have_read_different_images_are_told(monkeypatch):
    processes.check_same(b"the same")
    monkeypatch.setattr(processes, "gather", lambda mine: torch.cat([mine, mine]))
    processes.check_same(b"the same")
    monkeypatch.setattr(processes, "gather", lambda mine: torch.cat([mine, mine + 1]))
    with pytest.raises(BadInput, match="have read different images"):
        processes.check_same(b"the same")


def test_a_machine_with_a_cache_of_its_own_is_told(tmp_path, monkeypatch):
    """There, process 0 of another machine cannot join what this process has written."""
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "rank", lambda: 1)
    store = VectorStore(tmp_path / "x.records", (2,), np.float32)

    def make(missing):
        yield missing, np.zeros((len(missing), 2)), [False] * len(missing)

    # With two processes `largest` would wait for the other one.
    monkeypatch.setattr(processes, "largest", lambda number=0: number)
    with pytest.raises(BadInput, match="x.records lacks what other processes.*LIFT_CACHE"):
        store.fill([bytes([i]) * 15 for i in range(4)], make, "reading", "row")


# --------------------------------------------------------------------------------------------------
# Gradients.


def gradients_of(m, inputs, duplicates, loss_of, n_pieces):
    """A dict of gradients, and the loss. n_pieces 0: plainly, by loss.backward()."""
    m.zero_grad()
    if n_pieces:
        _, loss = lift.backward_in_pieces(m, loss_of, inputs, duplicates, n_pieces, nullcontext())
    else:
        loss = loss_of(**m(*inputs), duplicates=duplicates)
        loss.backward()
    found = {name: p.grad.clone() for name, p in m.named_parameters() if p.grad is not None}
    return found, loss.item()


def compare(m, whole, loss_of):
    """The gradients of this process's share, joined, beside those of the whole batch.

    The largest difference of the loss and of the gradients, for one piece and for two, and how far
    off the gradients would be without the mask of pairs that match. Then the whole batch's.
    """
    # Image 1 and caption 6 match: one is in the first process, the other in the second.
    duplicates = torch.eye(B, dtype=torch.bool)
    duplicates[1, 6] = duplicates[6, 1] = True
    rows = train.own_rows(B)
    own = tuple(tensor[rows] for tensor in whole)
    wanted, wanted_loss = gradients_of(m, whole, duplicates, loss_of, 0)
    without_mask, _ = gradients_of(m, whole, torch.eye(B).bool(), loss_of, 0)
    losses, gradients = [], []
    for n_pieces in (1, 2):
        found, loss = gradients_of(m, own, duplicates, loss_of, n_pieces)
        assert found.keys() == wanted.keys()
        losses.append(abs(loss - wanted_loss) / wanted_loss)
        gradients.append(distance(found, wanted))
    return [max(losses), max(gradients), distance(without_mask, wanted)], wanted


def program(folder, llm):
    """In each process: compare the gradients of the shares, joined, with the whole batch's."""
    with processes.joined():
        group = weakref.ref(dist.group.WORLD)
        worst = {}
        for name, method in lift.METHODS.items():
            if not method.trains:
                continue
            m, texts = make_model(name, llm)
            which = torch.arange(B) % 2
            whole = torch.randn(B, 3, 32, 32), texts[which], IDS[which]
            single, in_float32 = compare(m, whole, method.loss)
            with in_float64():
                double, exact = compare(m.double(), tuple(map(as_float64, whole)), method.loss)
            worst[name] = {"float32": single, "float64": double}
            worst[name]["rounding"] = distance(in_float32, exact)
        state = torch.cat([parameter.detach().flatten() for parameter in m.parameters()])
        torch.manual_seed(processes.rank())
        other = torch.nn.Linear(3, 2)
        processes.copy_from_first(other)
        result = {
            "worst": worst,
            "same_weights": other.weight.tolist(),
            "same_model": float(state.sum()),
            "largest": processes.largest(5 * processes.rank()),
            "read": read_together(folder),
        }
        path = Path(folder, f"{processes.rank()}.json")
    # A group that lives on has threads, and now and then they abort the process at its end.
    result["group_has_ended"] = group() is None
    path.write_text(json.dumps(result))


def read_together(folder):
    """Fill a store by all processes; how many records this one made, and whether all are right."""
    store = VectorStore(Path(folder, "x.records"), (2,), np.float32)
    keys = [bytes([i]) * 15 for i in range(41)]
    made = []

    def make(missing):
        for place in missing:
            made.append(int(place))
            yield np.array([place]), np.array([[place, -place]], np.float32), [place % 3 == 0]

    n_missing = store.fill(keys, make, "reading", "row")
    vectors, rows, flags = store.read(keys)
    right = torch.tensor([[i, -i] for i in range(41)], dtype=torch.float32)
    assert torch.equal(vectors[torch.from_numpy(rows)], right)
    assert flags.tolist() == [i % 3 == 0 for i in range(41)]
    return n_missing, made


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path, tiny_llm_folder):
    """For every method, with one piece for each process and with two. They share the reading."""
    # A run that was killed has left records: one in its own file, two and a half in another's.
    store = VectorStore(tmp_path / "x.records", (2,), np.float32)
    records = np.zeros(3, store.record)
    records["key"] = np.array([bytes([i]) * 15 for i in (40, 0, 7)], "V15")
    records["vector"] = [(40, -40), (0, 0), (7, -7)]
    records["flag"] = [False, True, False]
    store.path.write_bytes(records[:1].tobytes())
    (tmp_path / "x.1.part").write_bytes(records[1:].tobytes() + b"half")

    finish(2, __file__, tmp_path, tiny_llm_folder)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for name, found in first["worst"].items():
        # In float64 sums are rounded to 1e-16. A difference that is no rounding would be seen here.
        loss, gradient, without_mask = found["float64"]
        assert loss < 1e-13 and gradient < 1e-13, name
        if name not in ("lift_cos", "supervised"):
            assert without_mask > 1e-4, name  # the pair that matches is seen
        # In float32 the rows are summed in another order, and both ways are rounded. How much the
        # CPU decides: "rounding" is how far the whole batch's own gradient is from that in float64.
        loss, gradient, _ = found["float32"]
        assert loss < 1e-6 and gradient < 4 * found["rounding"], name
    assert len(first["worst"]) == sum(bool(m.trains) for m in lift.METHODS.values())
    assert first["group_has_ended"] and second["group_has_ended"]
    assert first["same_weights"] == second["same_weights"]
    assert first["largest"] == second["largest"] == 5
    # Nothing twice, and nothing that was there.
    assert first["read"][0] == second["read"][0] == 38
    assert sorted(first["read"][1] + second["read"][1]) == [
        i for i in range(41) if i not in (0, 7, 40)
    ]
    assert len(first["read"][1]) == 19 and not list(tmp_path.glob("*.part"))


# --------------------------------------------------------------------------------------------------
# Runs.


@pytest.mark.slow
def test_a_run_of_two_processes_is_stopped_and_goes_on(small):
    """It equals one that was not stopped, bit for bit, and a run of one process to 1e-3."""
    flags = arguments(small | {"steps": 40, "accum_freq": 2, "crop_scale": 0.5, "val_frequency": 0})
    finish(2, "train.py", *flags)
    whole = state(small["out"])
    losses = losses_of(small["out"])

    folder = Path(small["out"])
    folder.rename(folder.with_name("whole"))
    process = start(2, "train.py", *flags)
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    # As a batch system does it: to torchrun, which passes it on, and to all of its processes.
    for pid in (process.pid, *children_of(process)):
        os.kill(pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    stopped = torch.load(folder / "checkpoint.pt")["step"]
    assert f"stopped after step {stopped} of 40, saved" in said and 0 < stopped < 40
    with_one = shutil.copytree(folder, folder.with_name("with_one"))
    finish(2, "train.py", "--resume", folder)
    assert_same(whole, state(folder))

    # One process goes on where two have stopped. It takes the rows in another order, so the last
    # bits of its sums differ.
    train.train(train.from_cli(["--resume", str(with_one)]))
    entries = entries_of(with_one)
    assert [e["processes"] for e in entries if "processes" in e] == [2, 1]
    resumed = losses_of(with_one)
    assert {step: resumed[step] for step in losses} == pytest.approx(losses, abs=1e-3)

    # One process, and the batch as a whole. It starts at the same weights.
    folder.rename(folder.with_name("resumed"))
    train.train(train.Config(**small | {"steps": 40, "crop_scale": 0.5, "val_frequency": 0}))
    assert losses_of(folder) == pytest.approx(losses, abs=1e-3)
    assert entries_of(folder)[0]["processes"] == 1


@pytest.mark.slow
def test_two_processes_go_on_where_one_has_stopped(small, monkeypatch):
    """The losses are those of one process that has not stopped, to 1e-3."""
    folder = Path(small["out"])
    half = folder.with_name("half")
    save = train.save_tensors

    def save_and_keep(what, path):
        save(what, path)
        if what["step"] == 20:
            shutil.copytree(folder, half)

    monkeypatch.setattr(train, "save_tensors", save_and_keep)
    train.train(train.Config(**small | {"steps": 40, "crop_scale": 0.5, "val_frequency": 0}))
    said = finish(2, "train.py", "--resume", half)
    assert "going on after step 20 of 40" in said
    assert [e["processes"] for e in entries_of(half) if "processes" in e] == [1, 2]
    losses, resumed = losses_of(folder), losses_of(half)
    assert {step: resumed[step] for step in losses} == pytest.approx(losses, abs=1e-3)


def children_of(process):
    """Numbers of the processes that torchrun has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(child) for child in children.split()]


def entries_of(folder):
    return [json.loads(line) for line in (Path(folder) / "log.jsonl").open()]


def losses_of(folder):
    """{step: loss}. A resumed run also logs the first step after its start."""
    return {entry["step"]: entry["loss"] for entry in entries_of(folder) if "loss" in entry}


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_and_what_was_saved_is_whole(small):
    flags = arguments(small | {"steps": 2000})
    process = start(2, "train.py", *flags)
    folder = Path(small["out"])
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(children_of(process)[-1], signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    own = [line for line in said.splitlines() if line.startswith("error: ")]
    assert process.returncode != 0
    assert len(own) == 1
    assert own[0].startswith("error: another process has ended, or cannot be reached (")
    assert own[0].endswith("); go on with --resume")
    step = torch.load(folder / "checkpoint.pt")["step"]
    assert 0 < step < 2000 and step % 2 == 0
    assert state(folder)


if __name__ == "__main__":
    program(*sys.argv[1:])
