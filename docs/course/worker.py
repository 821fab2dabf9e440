"""The process in which a student's code runs. It computes; it never judges.

    grader   --call: a name and arguments-->   worker
    grader   <--numbers, as JSON------------   worker

The tests run in the grader's process, to which no line of a student's ever comes. The worker has
the student's function in the place of ours, calls it, and sends numbers back. So the student may
patch torch, leave with sys.exit(0), print what looks like results, or walk up the stack: whatever
happens here, only right numbers pass a test.

What comes from the grader is unpickled, because the grader is trusted. What goes to it is JSON,
because the worker is not.

Each worker is forked from a process that has imported torch already. That takes 10 ms in place of
two seconds. It is forked before the grader imports anything of the project, so that no function of
ours is in its memory.
"""

import base64
import ctypes
import importlib
import importlib.util
import json
import math
import os
import pickle
import resource
import signal
import socket
import stat
import struct
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

# Bytes that a worker may have as data. torch takes 200 MB of them at once, and the reference passes
# the hungriest test (6.2) with 256 MB in all. With 640 MB a worker that keeps all it gets and
# the grader beside it would not fit into 768 MB (docs/results/course.md).
MEMORY = 448 * 1024**2
FILE_SIZE = 10 * 1024**2  # bytes of a file that it may write
CPU_SECONDS = 60  # of processor time; the grader's own clock is stricter
LARGEST = 16 * 1024**2  # bytes of an answer
USER = 61234  # where the grader is root, workers are this user, who owns nothing
DTYPES = ("float64", "float32", "float16", "int64", "int32", "uint8", "bool")


# --------------------------------------------------------------------------------------------------
# Messages: eight bytes with the length, then the content.


def send(connection: socket.socket, content: bytes) -> None:
    connection.sendall(struct.pack("<Q", len(content)) + content)


def receive(connection: socket.socket, deadline: float = math.inf) -> bytes:
    """The next message. EOFError where the other side is gone, ValueError for too long a one.

    TimeoutError where it is not there at the deadline (by time.monotonic), also where it comes in
    drops.
    """

    def exactly(count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            if deadline < math.inf:
                connection.settimeout(max(0.01, deadline - time.monotonic()))
            part = connection.recv(min(count - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    (length,) = struct.unpack("<Q", exactly(8))
    if length > LARGEST:
        raise ValueError(f"the answer has {length} bytes, more than {LARGEST}")
    return exactly(length)


# --------------------------------------------------------------------------------------------------
# Values as JSON. What has no form of its own stays in the worker, and the grader gets its number.

KEPT = []  # in the worker: objects that the grader may name again


class Remote:
    """In the grader: an object that the worker keeps, such as a module. Arguments may hold it."""

    def __init__(self, number: int, type: str):
        self.number = number
        self.type = type

    def __reduce__(self):
        return kept, (self.number,)

    def __repr__(self) -> str:
        return f"an object of type {self.type}"


def kept(number: int) -> object:
    return KEPT[number]


def encode(value: object) -> object:
    """A value of the worker as JSON."""
    if value is None or isinstance(value, (bool, str)):
        return {"v": value}
    if value is ...:
        return {"v": "..."}
    if isinstance(value, (int, float)):
        return {"v": value} if math.isfinite(value) else {"f": str(value)}
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        tensor = value.detach().cpu().contiguous()
        if dtype == "bfloat16":
            tensor = tensor.float()
        content = base64.b64encode(tensor.numpy().tobytes()).decode()
        return {"t": [dtype, list(tensor.shape), value.requires_grad], "b": content}
    if isinstance(value, (np.ndarray, np.generic)):
        return encode(torch.from_numpy(np.array(value)))
    if isinstance(value, (list, tuple)):
        return {"l": [encode(one) for one in value]}
    if isinstance(value, dict):
        return {"d": [[encode(key), encode(one)] for key, one in value.items()]}
    if is_dataclass(value) and not isinstance(value, type):
        return {"d": [[encode(f.name), encode(getattr(value, f.name))] for f in fields(value)]}
    if hasattr(value, "__qualname__"):  # a function or a class
        return {"v": f"{value.__module__}.{value.__qualname__}"}
    KEPT.append(value)
    return {"r": [len(KEPT) - 1, type(value).__name__]}


def decode(form: dict) -> object:
    """What `encode` wrote, in the grader. Any error here is the worker's fault."""
    if "v" in form:
        return form["v"]
    if "f" in form:
        return float(form["f"])
    if "l" in form:
        return [decode(one) for one in form["l"]]
    if "d" in form:
        return {decode(key): decode(one) for key, one in form["d"]}
    if "r" in form:
        return Remote(int(form["r"][0]), str(form["r"][1]))
    dtype, shape, wants_gradient = form["t"]
    kind = "float32" if dtype == "bfloat16" else dtype
    if kind not in DTYPES:
        raise ValueError(f"a tensor of {dtype}")
    numbers = np.frombuffer(base64.b64decode(form["b"]), kind).reshape(shape)
    tensor = torch.from_numpy(numbers.copy())
    tensor.wants_gradient = bool(wants_gradient)
    tensor.sent_as = dtype
    return tensor


# --------------------------------------------------------------------------------------------------
# The worker.


def load(module: str, file: str, reference: str) -> None:
    """Make `module` the tested file, and all other modules those of the reference."""
    sys.path[:0] = [reference]
    parts = module.split(".")
    for depth in range(1, len(parts)):
        importlib.import_module(".".join(parts[:depth]))
    spec = importlib.util.spec_from_file_location(module, file)
    sys.modules[module] = loaded = importlib.util.module_from_spec(spec)
    if len(parts) > 1:
        setattr(sys.modules[".".join(parts[:-1])], parts[-1], loaded)
    spec.loader.exec_module(loaded)


def resolve(name: str) -> object:
    """The object of a name such as "vit.Attention.forward"; `name` begins with a module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        with suppress(ModuleNotFoundError):
            found = importlib.import_module(".".join(parts[:length]))
            for part in parts[length:]:
                found = getattr(found, part)
            return found
    raise NameError(name)


def answer(kind: str, target: object, args: tuple, kwargs: dict) -> dict:
    """Do what the grader asks.

    call       the function of that name, or the kept object, with these arguments
    gradients  the same for a scalar result; and its gradient with respect to each tensor of floats
    after      the same; and what the arguments are afterwards
    autocast   the same as call, where autocast makes products of float32 numbers bfloat16
    state      of a module: its parameters and buffers, which want gradients, which are in training
    get        the value of a name
    keep       the arguments, to be named in later calls
    """
    if kind == "keep":
        KEPT.extend(args)
        first = len(KEPT) - len(args)
        return {"value": {"l": [{"r": [first + i, type(a).__name__]} for i, a in enumerate(args)]}}
    target = resolve(target) if isinstance(target, str) else target
    if kind == "get":
        return {"value": encode(target)}
    if kind == "state":
        return {"value": encode(state_of(target))}
    if kind == "gradients":
        wanted = [one for one in args if isinstance(one, Tensor) and one.is_floating_point()]
        for one in wanted:
            one.requires_grad_()
        value = target(*args, **kwargs)
        value.backward()
        return {"value": encode(value), "more": encode([one.grad for one in wanted])}
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        value = target(*args, **kwargs)
    out = {"value": encode(value)}
    if kind == "after":
        out["more"] = encode([state_of(one) for one in args])
    return out


def state_of(value: object) -> object:
    if isinstance(value, nn.Module):
        return {
            "tensors": dict(value.state_dict()),
            "trained": [name for name, p in value.named_parameters() if p.requires_grad],
            "training": [name for name, part in value.named_modules() if part.training],
        }
    if isinstance(value, torch.optim.Optimizer):
        groups = [
            {key: one for key, one in group.items() if key != "params"}
            | {"n": len(group["params"])}
            for group in value.param_groups
        ]
        return {"groups": groups, "moments": value.state_dict()["state"]}
    return value


def explain(error: BaseException, job: dict) -> str:
    """One error in a few lines: what, and which line of the student's.

    The tested file is the reference with one hole filled. A line of the reference may be the answer
    to another task, so it is not shown.
    """
    text = "".join(traceback.format_exception_only(error)).strip()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == job["file"] and frame.lineno in job["lines"]:
            return f"{text}\nin {frame.name}: {frame.line}"
    return text


def serve(connection: socket.socket, job: dict) -> None:
    """Load the tested file and answer calls until the grader hangs up."""
    try:
        load(job["module"], job["file"], job["reference"])
        send(connection, json.dumps({"value": {"v": "ready"}}).encode())
    except BaseException as error:  # sys.exit, too, is no way to leave
        send(connection, json.dumps({"error": explain(error, job)}).encode())
        return
    while True:
        try:
            request = receive(connection)
        except EOFError:
            return
        torch.manual_seed(0)
        try:
            reply = answer(*pickle.loads(request))
        except BaseException as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            reply = {"error": explain(error, job), "kinds": kinds}
        send(connection, json.dumps(reply).encode())


def closed_folder() -> Path | None:
    """A folder above Python's own modules or torch's that another user cannot enter, if any."""
    for file in (os.__file__, torch.__file__, sys.prefix):
        for folder in Path(file).resolve().parents:
            if not folder.stat().st_mode & stat.S_IXOTH:
                return folder
    return None


def can_be_another_user() -> bool:
    return os.geteuid() == 0 and closed_folder() is None


def confine(scratch: str) -> None:
    """Limits, a folder to be in, and where possible another user."""
    os.setsid()
    os.chdir(scratch)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    if can_be_another_user():
        resource.setrlimit(resource.RLIMIT_NPROC, (32, 32))
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
    os.environ.clear()
    os.environ.update(HOME=scratch, LIFT_CACHE=scratch, PATH="/usr/bin:/bin", TMPDIR=scratch)


# --------------------------------------------------------------------------------------------------
# The process that has imported torch, from which workers are forked.


class Workers:
    """Start workers. Make this before anything of the project is imported."""

    def __init__(self):
        # What the project imports, so that each worker need not.
        import PIL.Image  # noqa: F401
        import PIL.ImageOps  # noqa: F401
        import tiktoken  # noqa: F401
        import tqdm  # noqa: F401

        torch.set_num_threads(1)
        sys.stdout.flush()
        sys.stderr.flush()
        self.connection, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.connection.close()
            try:
                fork_workers(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def start(self, job: dict, prints: int) -> tuple[int, socket.socket]:
        """A new worker -> (its process id, the connection to it). prints: a file for its output."""
        ours, theirs = socket.socketpair()
        content = json.dumps(job).encode()
        socket.send_fds(self.connection, [content], [theirs.fileno(), prints])
        theirs.close()
        pid = int(self.connection.recv(32))
        return pid, ours

    def close(self) -> None:
        self.connection.close()
        os.waitpid(self.pid, 0)


def fork_workers(control: socket.socket) -> None:
    """Fork a worker for each job that comes, until the grader hangs up."""
    # glibc keeps freed memory for later, more or less of it by chance. So a right answer could fail
    # by its limit now and then. With this, blocks of 64 kB and more go back at once. (-3 is
    # M_MMAP_THRESHOLD.) Other C libraries have no mallopt.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(-3, 2**16)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that ended workers vanish
    while True:
        content, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 2)
        if not content:
            return
        pid = os.fork()
        if pid:
            for descriptor in descriptors:
                os.close(descriptor)
            control.sendall(str(pid).encode())
            continue
        control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            job = json.loads(content)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(descriptors[1], 1)
            os.dup2(descriptors[1], 2)
            os.close(descriptors[1])
            confine(job["scratch"])
            serve(socket.socket(fileno=descriptors[0]), job)
        finally:
            sys.stdout.flush()
            os._exit(0)


def kill(pid: int) -> None:
    """End a worker and all processes of its session that it has not moved elsewhere."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def public_copy(folder: Path, target: Path) -> Path:
    """Copy the Python files of the reference to where another user may read them."""
    for path in [*folder.glob("*.py"), *folder.glob("data/**/*.py")]:
        to = target / path.relative_to(folder)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes())
        to.chmod(0o644)
    for path in [target, *(one for one in target.rglob("*") if one.is_dir())]:
        path.chmod(0o755)
    return target
