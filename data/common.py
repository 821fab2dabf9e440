"""Data and files: pictures and captions, built in (shapes.py) or a user's own (readers.py), model files, caches, reports.

This file holds what all parts share: the one exception that means "the input is at fault, not the program", the
wrapper that turns it into one line and exit status 2 (every command ends in `sys.exit(data.common.run(main))`), signals, the
place of the cache, and the device.
"""

import errno
import os
import signal
import struct
import sys
from contextlib import contextmanager
from pathlib import Path

import torch


class BadInput(ValueError):
    """A file, flag or caption that cannot be used. The message says what, where and what to do, on one line."""


def printable(text):
    """A name or a reason on one line, as far as a terminal can show it."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


@contextmanager
def interpreting(path):
    """What goes wrong while a file is being made sense of is the file's fault, said in one line that names it.

    Not its fault, and passed through: memory that is full, a file that may not be read, code that is unfinished.
    """
    try:
        yield
    except BadInput as error:
        if str(error).startswith(
            (f"{path}:", f"{path}/")
        ):  # said already, or by a file in this folder
            raise
        raise BadInput(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise BadInput(f"{error.filename}: no such file") from error
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise BadInput(
            f"{path}: truncated, corrupt or of another kind ({type(error).__name__}: {error}); name the "
            "right file, or make or fetch it again"
        ) from error


def run(main):
    """Call main(); return its exit status. Bad input gives one line on stderr and status 2, never a traceback.

    OSError is input too: a file that is not there, a folder that may not be written, a disk that is full.
    """
    try:
        return main() or 0
    except (BadInput, OSError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        print(
            "error: "
            + " ".join(str(error).split())
            + (
                f"; free some space for the run folder and for the cache in {cache_dir()} (or set LIFT_CACHE), then run "
                "again or --resume: what was finished is kept"
                if full
                else ""
            ),
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


@contextmanager
def stop_signals():
    """Ctrl-C and SIGTERM, while training: collected, so that the step ends and is saved. A second one kills."""
    caught = []

    def catch(number, frame):
        caught.append(number)
        signal.signal(number, before[number])

    before = {s: signal.signal(s, catch) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def cache_dir():
    """The folder for downloads, caption vectors and decoded pictures: $LIFT_CACHE, or ~/.cache/lift."""
    return Path(os.environ.get("LIFT_CACHE") or Path.home() / ".cache" / "lift")


def pick_device(name="auto"):
    """A device's name, or "auto" -> torch.device; BadInput for one that is not there."""
    try:
        device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
        )
        torch.zeros(1, device=device).item()  # (the device of shapes only has no numbers)
        return device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"--device {name} cannot be used here ({reason}); try --device cpu"
        ) from error
