"""data/common.py: signals, precision; the errors are tested beside the commands that print them.

python -m pytest tests/data/test_common.py
"""

import os
import re
import signal
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from data.common import (
    BadInput,
    check_place,
    check_regular,
    exit_status,
    interpreting,
    pick_device,
    pick_dtype,
    select,
    stop_signals,
    trains_in_bf16,
)


def test_what_is_wrong_in_a_file_becomes_one_line_and_other_errors_pass():
    for error in (EOFError("no data"), SyntaxError("invalid"), KeyError("x"), ValueError("a\nb")):
        with (
            pytest.raises(BadInput, match="^x.npy: truncated, corrupt") as caught,
            interpreting("x.npy"),
        ):
            raise error
        assert "\n" not in str(caught.value)
    # A full memory, torch's own too, unfinished code, a file that may not be read.
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        NotImplementedError(),
        PermissionError("x.npy"),
    ):
        with pytest.raises(type(error)) as caught, interpreting("x.npy"):
            raise error
        assert caught.value is error


def test_a_place_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    check_place("--out", tmp_path / "new" / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="--out .*file/x/y: .*file is a file and no folder"):
        check_place("--out", tmp_path / "file/x/y")
    # Root may write everywhere, so the answer of the system is made up.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    (tmp_path / "there").mkdir()
    check_place("--out", tmp_path / "there")
    with pytest.raises(BadInput, match="is not writable"):
        check_place("--out", tmp_path / "x/y")


def test_the_device_is_the_first_that_is_there(monkeypatch):
    asked, current = [], []

    def zeros(n, device):
        asked.append(device)
        return SimpleNamespace(item=lambda: 0, device=torch.device(device, 0))

    monkeypatch.setattr(torch, "zeros", zeros)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for cuda, mps, wanted in ((1, 1, "cuda"), (0, 1, "mps"), (0, 0, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: bool(cuda))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: bool(mps))
        device = pick_device()
        assert device.type == wanted == asked[-1] and device.index == 0
        assert pick_device("cpu").type == "cpu"
    # Threads may have other current GPUs, so the GPU has its number.
    assert current == [torch.device("cuda:0")]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB). Tried to allocate 1 GB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 4000000000000000000 bytes. Error code 12 (Cannot)"
        ),
        MemoryError(),
    ],
)
def test_full_memory_is_one_line_with_advice(error, capsys):
    def fill():
        raise error

    assert exit_status(fill) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "memory is full" in said and "--accum-freq 2" in said
    wanted = "of Python" if isinstance(error, MemoryError) else "allocate memory|out of memory"
    assert re.search(rf"full \(.*({wanted})", said)


def test_other_errors_of_torch_are_not_bad_input():
    def wrong():
        raise RuntimeError("The size of tensor a (2) must match the size of tensor b (3)")

    with pytest.raises(RuntimeError, match="size of tensor"):
        exit_status(wrong)


def test_what_an_apple_gpu_cannot_compute_is_one_line(capsys):
    def missing():
        raise NotImplementedError(
            "The operator 'aten::x' is not currently implemented for the MPS device. If you want "
            "this op to be added, please comment. As a temporary fix, set PYTORCH_..."
        )

    assert exit_status(missing) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "'aten::x'" in said and "PYTORCH_ENABLE_MPS_FALLBACK=1" in said

    def unfinished():
        raise NotImplementedError("task 1.1")

    with pytest.raises(NotImplementedError, match=r"task 1\.1"):
        exit_status(unfinished)


def test_only_a_regular_file_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(BadInput, match=f"{path}: no regular file"):
            check_regular(path)
    (tmp_path / "file").touch()
    check_regular(tmp_path / "file")
    check_regular(tmp_path / "nowhere")  # whoever opens it says so


@dataclass
class Lengths:
    count: int = 1
    name: str = ""


def test_settings_of_another_type_are_refused():
    settings = {"count": 3, "name": "x", "more": None}
    assert select(Lengths, settings) == Lengths(3, "x")
    for change, says in (
        ({"count": True}, "the setting count is True, not of type int"),
        ({"count": 3.0}, "the setting count is 3.0"),
        ({"name": None}, "the setting name is None, not of type str"),
    ):
        with pytest.raises(BadInput, match=says):
            select(Lengths, settings | change)
    with pytest.raises(BadInput, match="the setting name is missing"):
        select(Lengths, {"count": 3})


def test_the_first_signal_is_collected_and_the_second_gets_through():
    got = []
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {n: signal.signal(n, lambda number, frame: got.append(number)) for n in kinds}
    try:
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop == [signal.SIGTERM] and not got
            os.kill(os.getpid(), signal.SIGTERM)
            assert got == [signal.SIGTERM] and stop == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(got) == 2
        # The second one may be another signal.
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop == [signal.SIGTERM] and len(got) == 2
            os.kill(os.getpid(), signal.SIGINT)
            assert got == [signal.SIGTERM] * 2 + [signal.SIGINT] and stop == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_auto_is_bfloat16_only_where_the_device_has_it(monkeypatch):
    cpu = torch.device("cpu")
    for able, name in (({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert pick_dtype("auto", cpu) == name
        assert pick_dtype("float32", cpu) == "float32"
        assert pick_dtype("bfloat16", cpu) == "bfloat16"


def test_training_takes_bfloat16_by_itself_only_on_a_gpu_that_has_it(monkeypatch):
    """A GPU such as the T4 computes it as well, by emulation, and slowly."""
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    for has_it in (True, False):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation, has_it=has_it: has_it or including_emulation,
        )
        assert trains_in_bf16("auto", gpu) == has_it
        assert trains_in_bf16("amp_bf16", gpu) and not trains_in_bf16("fp32", gpu)
    assert not trains_in_bf16("auto", cpu)
    assert trains_in_bf16("amp_bf16", cpu) and not trains_in_bf16("fp32", cpu)
