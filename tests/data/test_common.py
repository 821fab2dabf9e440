"""data/common.py: signals, precision; the errors are tested beside the commands that print them.

python -m pytest tests/data/test_common.py
"""

import os
import signal

import torch

from data.common import pick_dtype, stop_signals


def test_the_first_signal_is_collected_and_the_second_gets_through():
    got = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop == [signal.SIGTERM] and not got
            os.kill(os.getpid(), signal.SIGTERM)
            assert got == [signal.SIGTERM] and stop == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(got) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_auto_is_bfloat16_only_where_the_device_has_it(monkeypatch):
    cpu = torch.device("cpu")
    for able, name in (({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert pick_dtype("auto", cpu) == name
        assert pick_dtype("float32", cpu) == "float32"
        assert pick_dtype("bfloat16", cpu) == "bfloat16"
