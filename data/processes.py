"""Several processes that train one model: everything of torch.distributed.

    torchrun --nproc-per-node 2 train.py ...

torchrun starts train.py that many times. Each process has a rank, from 0, and computes its rows of
every batch: on a GPU of its own, or on its share of the CPU's cores. All of them hold the same
model and take the same steps. Process 0 alone writes and speaks. Started by `python`, there is one
process, of rank 0, and these functions change nothing. Then you need not read this file.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import timedelta

import torch
import torch.distributed as dist

# PyTorch imports this module at the first step of an optimizer. The module keeps the group of
# processes that exists at its import for ever, as the default of an argument. Then the group's
# threads never end, and now and then one of them aborts the process at its end. So import it while
# there is no group.
import torch.distributed.nn.functional
from torch import Tensor, nn

from data.common import BadInput

LOST = "another process has ended, or cannot be reached"


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def count_here() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if dist.is_initialized() else 1


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, for the length of the `with` block.

    BadInput where another process ends before its time. With plain `python` nothing happens.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    # Each takes a GPU of its own, where there are as many.
    if int(os.environ["LOCAL_RANK"]) < torch.cuda.device_count():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Tensors on GPUs go by NCCL, others by Gloo. To wait for long is no error: a process may read
    # captions for hours. A process that has ended is noticed at once.
    backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backends, timeout=timedelta(days=7))
    # Only process 0 speaks.
    with redirect_stderr(open(os.devnull, "w") if rank() > 0 else sys.stderr):  # noqa: SIM115
        try:
            yield
        except (BadInput, OSError, RuntimeError) as error:
            # Often all processes fail alike. Then process 0 speaks first, and torchrun ends the
            # others.
            time.sleep(10 if rank() > 0 else 0)
            if isinstance(error, RuntimeError) and ("gloo" in str(error) or "NCCL" in str(error)):
                reason = str(error).strip().splitlines()[0]
                raise BadInput(f"{LOST} ({reason}); go on with --resume") from error
            raise
        finally:
            # At the end, and after a signal, when all of them have saved. But not after an error:
            # the others may be in the middle of an exchange.
            if not isinstance(sys.exception(), Exception):
                dist.destroy_process_group()


def gather(mine: Tensor) -> Tensor:
    """The rows (b, ...) of each process -> the rows (B, ...) of all, by their ranks."""
    if count() == 1:
        return mine
    parts = list(mine.new_empty(count(), *mine.shape))
    dist.all_gather(parts, mine.contiguous())
    return torch.cat(parts)


def add_gradients(model: nn.Module) -> None:
    """Give each parameter the sum of its gradients in all processes."""
    for parameter in model.parameters():
        if parameter.grad is not None and count() > 1:
            dist.all_reduce(parameter.grad)


def copy_from_first(model: nn.Module) -> None:
    """Give every process the weights of process 0."""
    if count() > 1:
        for tensor in model.state_dict().values():
            in_order = tensor.contiguous()  # NCCL takes no matrix that lies in columns
            dist.broadcast(in_order, 0)
            tensor.copy_(in_order)


def largest(number: int) -> int:
    """The largest of the numbers of all processes. Each waits here for the others."""
    return int(gather(torch.tensor([number])).max())


def wait() -> None:
    """Wait here for the other processes."""
    largest(0)


def check_same(content: bytes) -> None:
    """BadInput where processes have read different data: each would wait for what never comes."""
    number = int.from_bytes(hashlib.blake2b(content, digest_size=7).digest())
    if len(gather(torch.tensor([number])).unique()) > 1:
        raise BadInput("the processes have read different images; did a file change? start again")
