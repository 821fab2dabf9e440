"""What all parts share: one-line errors, signals, the cache's place, devices, progress bars, locks.

Read this file only when you want to know how a mistake in the input becomes one clear line. Every
command ends in `sys.exit(exit_status(main))`, and every function says `raise BadInput(...)` where a
file, a flag or a caption cannot be used.
"""

import argparse
import difflib
import errno
import fcntl
import os
import signal
import struct
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor
from tqdm import tqdm

# --------------------------------------------------------------------------------------------------
# Errors.


class BadInput(ValueError):  # noqa: N818  (it names what is wrong: the input)
    """A file, flag or caption that cannot be used. The message says what, where and what to do."""


def printable(text: object) -> str:
    """A name or a reason on one line, as far as a terminal can show it."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


@contextmanager
def interpreting(path: str | Path) -> Iterator[None]:
    """Blame the file at `path` for what goes wrong inside the `with` block, in one line.

    Some errors are not the file's fault and pass through: full memory, a file that may not be
    read, code that is unfinished.
    """
    try:
        yield
    except BadInput as error:
        # The message may name the file already, or a file inside this folder.
        if str(error).startswith((f"{path}:", f"{path}/")):
            raise
        raise BadInput(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise BadInput(f"{error.filename}: no such file") from error
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        RecursionError,
        SyntaxError,  # this and TokenError come from numpy, for the header of a .npy file
        TypeError,
        ValueError,
        struct.error,
        tokenize.TokenError,
    ) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(
            f"{path}: truncated, corrupt or of another kind ({reason}); name the right file, or "
            "make or fetch it again"
        ) from error


def check_place(flag: str, path: str | Path) -> None:
    """BadInput where a file or folder that a flag names cannot be made or written.

    flag  what the message begins with; it may also be other words
    """
    nearest = Path(path).absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise BadInput(f"{flag} {path}: {nearest} is a file and no folder; name another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise BadInput(f"{flag} {path}: {nearest} is not writable; name another place")


def check_regular(path: str | Path) -> None:
    """BadInput where the path names a folder, a pipe or a device.

    To read a pipe could take for ever, and a device such as /dev/zero would fill the memory.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise BadInput(f"{path}: no regular file; name a file on the disk")


def exit_status(main: Callable[[], int | None]) -> int:
    """Call main() and return its exit status. Bad input gives one line on stderr and status 2.

    OSError is input too: a file that is not there, a folder that may not be written, a full disk.
    So are an operation that Apple's GPUs lack, and memory that is full. Ctrl-C gives status 130.
    """
    try:
        return main() or 0
    except (BadInput, OSError) as error:
        message = " ".join(str(error).split())
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            message += (
                f"; free some space there, or in the cache {cache_dir()} (LIFT_CACHE names "
                "another), then run again. What was saved before is kept"
            )
        print(f"error: {message}", file=sys.stderr)
        return 2
    except NotImplementedError as error:
        # torch names the operation in its first sentence.
        reason = str(error).split(". ")[0]
        if "MPS" not in reason:
            raise
        print(
            f"error: {reason}; set PYTORCH_ENABLE_MPS_FALLBACK=1, or try --device cpu",
            file=sys.stderr,
        )
        return 2
    except (RuntimeError, MemoryError) as error:
        sentences = " ".join(str(error).split()).split(". ")
        about = [s for s in sentences if "out of memory" in s or "allocate memory" in s]
        if not about and not isinstance(error, MemoryError):
            raise
        print(
            f"error: the memory is full ({''.join(about[:1]) or 'of Python'}); take a smaller "
            "--batch-size, --model or --image-size, or in training --accum-freq 2. What was saved "
            "is kept",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def flag_of(name: str) -> str:
    """A field's name as a flag: "text_map" -> "--text-map"."""
    return "--" + name.replace("_", "-")


def parse_flags(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """parser.parse_args(argv). BadInput for wrong flags; it says what a misspelt one should be."""

    def refuse(message: str):
        raise BadInput(f"{message} (--help lists the flags)")

    parser.error = refuse
    args, unknown = parser.parse_known_args(argv)
    for word in unknown:
        flag = word.split("=")[0]
        known = [known for known in parser._option_string_actions if known.startswith("--")]
        similar = difflib.get_close_matches(flag, known, n=1)
        if flag.startswith("-") and similar:
            parser.error(f"unrecognized arguments: {word}; did you mean {similar[0]}?")
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


@contextmanager
def stop_signals(patient: bool = False) -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM, so that training ends its step and saves. A second one kills.

    patient  a second one does not kill: torchrun may pass on one that this process has got itself,
             and it kills by itself what has not ended 30 s later

    Yields a list, empty at first, which takes the numbers of the signals that came.
    """
    caught = []

    def catch(number, frame):
        # The first signal is noted. The old handlers come back for the second one.
        caught.append(number)
        if not patient:
            restore()

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {s: signal.signal(s, catch) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        restore()


# --------------------------------------------------------------------------------------------------
# Places, devices, progress bars, locks, files that are replaced whole.


def cache_dir() -> Path:
    """The folder for downloads, vectors and decoded images: $LIFT_CACHE, or ~/.cache/lift."""
    return Path(os.environ.get("LIFT_CACHE") or Path.home() / ".cache" / "lift")


DEVICES = "cpu, cuda, mps (Apple's GPUs), or auto: a GPU if there is one"


def pick_device(name: str = "auto") -> torch.device:
    """A device's name, or "auto" -> torch.device. BadInput for one that is not there."""
    try:
        if name == "auto" and torch.cuda.is_available():
            name = "cuda"
        elif name == "auto":
            name = "mps" if torch.backends.mps.is_available() else "cpu"
        # Try it once. Some devices exist by name only, and the one called "meta" has no numbers.
        number = torch.zeros(1, device=name)
        number.item()
        # "cuda" is the current GPU, and which one that is may differ between threads. So from here
        # on it has its number: cuda:0.
        if number.device.type == "cuda":
            torch.cuda.set_device(number.device)
        return number.device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"--device {name} cannot be used here ({reason}); try --device cpu"
        ) from error


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor. To a GPU it goes through pinned memory, so that the program does not wait."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def pick_dtype(name: str, device: torch.device) -> str:
    """The name of a precision, or "auto" -> "float32" or "bfloat16".

    "auto" takes bfloat16 where the device has instructions of its own for it. There it is faster.
    Elsewhere it would be slower than float32.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        is_native = device.type == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bfloat16" if is_native else "float32"


def trains_in_bf16(precision: str, device: torch.device) -> bool:
    """Whether a step of train.py runs under bfloat16 autocast; precision is the flag's value.

    "auto" takes it on a GPU that has bfloat16. On a CPU it is faster with large towers only, and
    slower with the demo's (docs/results/pieces.md).
    """
    if precision != "auto":
        return precision == "amp_bf16"
    return device.type == "cuda" and pick_dtype("auto", device) == "bfloat16"


def progress(
    iterable: Iterable | None = None,
    *,
    description: str,
    unit: str,
    total: int | None = None,
    initial: int = 0,
) -> tqdm:
    """A progress bar on stderr. It shows on a terminal only."""
    return tqdm(
        iterable,
        desc=description,
        unit=unit,
        total=total,
        initial=initial,
        dynamic_ncols=True,
        disable=None,  # tqdm's way to say: only where stderr is no terminal
    )


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Make a folder and keep it for this process alone. Another one waits here, then goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(lock)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file anew: the old file or the new one is left on the disk, never half of one.

    Yields an open file beside `path`. When the block ends, it takes the place of `path`.
    """
    unfinished = path.with_suffix(".part")
    try:
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError:  # a full disk, for example
        unfinished.unlink(missing_ok=True)
        raise


# --------------------------------------------------------------------------------------------------
# Two small helpers.


def chunks(rows, size: int = 10_000) -> Iterator:
    """All rows of anything that has a length and slices, `size` at a time.

    The rows may be a file that is larger than memory.
    """
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def select(cls: type, settings: Mapping):
    """Build a dataclass from those entries of `settings` that are its fields.

    select(Sizes, {"model": "S/16", "image_size": 224, "lr": 1e-3, ...}) leaves lr out: Sizes has
    no such field. BadInput where an entry is missing or of another type than its field.
    """
    values = {}
    for field in fields(cls):
        if field.name not in settings:
            raise BadInput(f"the setting {field.name} is missing")
        value = values[field.name] = settings[field.name]
        if type(value) is not field.type:
            raise BadInput(
                f"the setting {field.name} is {value!r}, not of type {field.type.__name__}"
            )
    return cls(**values)
