"""data/common.py: signals; the errors are tested beside the commands that print them.

python -m pytest tests/data/test_common.py
"""

import os
import signal

from data.common import stop_signals


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
