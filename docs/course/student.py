"""What the tests of the units use: the student's code from afar, and comparisons with words.

A test is a function of one argument, `student`. The first line of its docstring says in words what
it holds; that line is what students see.

    def test_towers(student):
        \"\"\"Exchanging images and captions leaves the loss.\"\"\"
        there = student.lift.info_nce(z, t, scale)
        back = student.lift.info_nce(t, z, scale)
        same(there, back, "the loss changes when images and captions change places: ...")

`student.lift.info_nce` runs in another process (worker.py). Tensors and modules go there and
numbers come back. A test never calls the student's code in any other way, and asserts nothing but
by `same` and `holds`. What it computes itself, it computes with the reference.
"""

import json
import os
import pickle
import time
from pathlib import Path

import torch
from torch import Tensor

from .holes import source_of
from .worker import Remote, Workers, decode, kill, receive, send

SHOWN = 6  # numbers of a tensor in a message
SECONDS = 8  # for all calls of one test together
START_SECONDS = 25  # to import the tested file


class Wrong(AssertionError):  # noqa: N818  (it is the student's answer that is wrong)
    """A test does not hold. The message is for the student."""


class StudentError(RuntimeError):
    """The student's code raised an error, ended its process, or took too long.

    kinds  names of the error's class and of those above it, where the code raised one
    """

    def __init__(self, message: str, kinds: object = ()):
        super().__init__(message)
        self.kinds = kinds if isinstance(kinds, list) else []


class TimeUp(StudentError):  # noqa: N818
    """The third of these."""


OUT_OF_TIME = "no answer within {} seconds: is there a loop that does not end?"


# --------------------------------------------------------------------------------------------------
# Comparisons.


def holds(condition: object, why: str) -> None:
    """Wrong(why) unless the condition is true. `why` says what was seen and where to look."""
    if not bool(condition):
        raise Wrong(why)


def same(found: object, wanted: object, why: str, atol: float = 1e-4) -> None:
    """Wrong(why) unless two results agree, with the two values where they are short.

    For float32 atol is at least 1e-4: another processor adds in another order.
    """
    if found is None:
        raise Wrong("nothing came back: is a `return` missing?")
    if not isinstance(found, (Tensor, int, float, list, tuple)):
        raise Wrong(f"{why}\ngot {found!r}, not numbers")
    try:
        ours, theirs = torch.as_tensor(wanted).double(), torch.as_tensor(found).double()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{why}\ngot {short(found)}, not a tensor") from None
    if ours.shape != theirs.shape:
        got = f"the shape is {tuple(theirs.shape)} and should be {tuple(ours.shape)}"
        raise Wrong(f"{why}\n{got}")
    wrong = ~torch.isclose(theirs, ours, rtol=0, atol=atol, equal_nan=True)
    if wrong.any():
        message = why
        # The first numbers, which are all that `short` shows, may agree.
        if wrong.flatten()[:SHOWN].any():
            message += f"\ngot {short(theirs)}, expected {short(ours)}"
        if ours.numel() > SHOWN:
            place = tuple(wrong.nonzero()[0].tolist())
            got, expected = (round(float(values[place]), 4) for values in (theirs, ours))
            message += f"\nthe first difference is at {list(place)}: {got}, expected {expected}"
        raise Wrong(message)


def differ(one: object, other: object, why: str, by: float = 1e-3) -> None:
    """Wrong(why) unless two results differ by more than `by` somewhere."""
    same(one, one, why)
    gap = (torch.as_tensor(one).double() - torch.as_tensor(other).double()).abs().max()
    holds(gap > by, why)


def refuses(call: "Name", *args, why: str, error: str = "BadInput") -> None:
    """Wrong(why) unless the call raises an error of this name, or one of a subclass."""
    try:
        call(*args)
    except StudentError as problem:
        if "NotImplementedError" in problem.kinds:
            raise
        holds(error in problem.kinds, f"{why}\ngot another error: {problem}")
        return
    raise Wrong(f"{why}\ngot no error")


def short(value: object) -> str:
    """A value in a line. Of a large tensor, its shape and its first numbers."""
    if not isinstance(value, Tensor):
        return repr(value)[:100]
    numbers = [round(number, 4) for number in value.flatten()[:SHOWN].tolist()]
    if value.ndim == 0:
        return str(numbers[0])
    more = ", ..." if value.numel() > SHOWN else ""
    return f"{', '.join(map(str, numbers))}{more} (shape {tuple(value.shape)})"


# --------------------------------------------------------------------------------------------------
# The student's code.


class Student:
    """One worker with one tested file. Names are attributes: student.vit.Attention.forward(...)."""

    def __init__(self, workers: Workers, job: dict, prints: int, seconds: float | None = None):
        self._seconds = seconds or SECONDS
        self._pid, self._connection = workers.start(job, prints)
        self._deadline = time.monotonic() + START_SECONDS
        try:
            self._receive()
        except StudentError:
            self._close()
            raise
        self._deadline = time.monotonic() + self._seconds

    def __getattr__(self, name: str) -> "Name":
        if name.startswith("_"):
            raise AttributeError(name)
        return Name(self, name)

    def _ask(self, kind: str, target: object, args: tuple = (), kwargs: dict | None = None) -> dict:
        content = pickle.dumps((kind, target, args, kwargs or {}))
        self._connection.settimeout(max(0.01, self._deadline - time.monotonic()))
        try:
            send(self._connection, content)
        except TimeoutError:
            raise TimeUp(OUT_OF_TIME.format(self._seconds)) from None
        except OSError as error:
            raise StudentError(f"the process of your code is gone ({error})") from None
        return self._receive()

    def _receive(self) -> dict:
        try:
            reply = json.loads(receive(self._connection, self._deadline))
        except TimeoutError:
            raise TimeUp(OUT_OF_TIME.format(self._seconds)) from None
        except EOFError:
            raise StudentError(
                "the process of your code ended before the answer: sys.exit, too much memory, or "
                "a crash"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise StudentError(f"what came back cannot be read: {error}") from None
        if "error" in reply:
            raise StudentError(str(reply["error"])[:1500], reply.get("kinds"))
        return reply

    def _close(self) -> None:
        self._connection.close()
        kill(self._pid)


class Name:
    """A name in the worker, such as lift.info_nce. Calling it runs it there."""

    def __init__(self, student: Student, name: str):
        self._student = student
        self._name = name

    def __getattr__(self, part: str) -> "Name":
        if part.startswith("_"):
            raise AttributeError(part)
        return Name(self._student, f"{self._name}.{part}")

    def __call__(self, *args, **kwargs):
        return read(self._student._ask("call", self._name, args, kwargs)["value"])


def read(form: object) -> object:
    """What came back, as values. StudentError where it is malformed."""
    try:
        return decode(form)
    except Exception as error:
        raise StudentError(f"what came back cannot be read: {error}") from None


def apply(student: Student, kept: Remote, *args) -> object:
    """Call an object that the worker keeps, such as a head that the student's function made."""
    if not isinstance(kept, Remote):
        raise Wrong(f"got {short(kept)}, where a module was expected")
    return read(student._ask("call", kept, args)["value"])


def gradients(name: Name, *args, **kwargs) -> tuple[Tensor, list[Tensor | None]]:
    """The result of a call, a scalar, and its gradient with respect to each tensor of floats."""
    reply = name._student._ask("gradients", name._name, args, kwargs)
    return read(reply["value"]), read(reply["more"])


def after(name: Name, *args, **kwargs) -> tuple[object, list]:
    """The result of a call, and the arguments as they are afterwards (see worker.state_of)."""
    reply = name._student._ask("after", name._name, args, kwargs)
    return read(reply["value"]), read(reply["more"])


def under_autocast(name: Name, *args, **kwargs) -> object:
    """The result of a call under autocast to bfloat16, as train.py makes it on a GPU."""
    return read(name._student._ask("autocast", name._name, args, kwargs)["value"])


def state(student: Student, kept: Remote) -> dict:
    """Tensors, trained parameters and parts in training of a module that the worker keeps."""
    if not isinstance(kept, Remote):
        raise Wrong(f"got {short(kept)}, where a module was expected")
    return read(student._ask("state", kept)["value"])


def keep(student: Student, *objects) -> list[Remote]:
    """Send objects to the worker and name them in later calls. What is done to them lasts."""
    return read(student._ask("keep", None, objects)["value"])


def get(name: Name) -> object:
    """The value of a name, such as student.lift.METHODS."""
    return read(name._student._ask("get", name._name)["value"])


def printed(descriptor: int) -> str:
    """The end of what the student's code printed into a file of ours."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, 2000, max(0, size - 2000)).decode(errors="replace").strip()


def make_job(task, graded: Path, reference: Path, scratch: Path) -> dict:
    """What a worker is told. "lines" are those of the tested file that the reference has not."""
    ours = set(source_of(reference, task.file).splitlines())
    lines = enumerate(graded.read_text().splitlines(), 1)
    return {
        "lines": [number for number, line in lines if line not in ours],
        "module": task.module,
        "file": str(graded),
        "reference": str(reference),
        "scratch": str(scratch),
    }
