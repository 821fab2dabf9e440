"""What a run says of itself while it trains: its size, its machine, its log, its validation curve.

`RunLog` writes one line of log.jsonl after some steps (log_line is the same for a person), and one
for each entry of the validation curve. On a first reading skip this file.

Letters of shapes: B pairs of a batch.
"""

import importlib.util
import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from data import processes
from data.batches import Batch
from data.common import BadInput


def count_parameters(model: nn.Module, frozen_parameters: int) -> tuple[str, int, int]:
    """(trained parameters by part, in words; how many are trained; how many there are).

    frozen_parameters are those of the language model behind the cached captions.
    """
    words, all_trained, everything = [], 0, 0
    counts = []
    for name, part in model.named_children():
        sizes = [(p.numel(), p.requires_grad) for p in part.parameters()]
        trained = sum(size for size, is_trained in sizes if is_trained)
        counts.append((name, trained, sum(size for size, _ in sizes)))
    for name, parameter in model.named_parameters(recurse=False):  # logit_scale, logit_bias
        counts.append((name, int(parameter.requires_grad), 1))
    counts.append(("the LLM behind the cached captions", 0, frozen_parameters))
    for name, trained, size in counts:
        if size:
            words.append(f"{name} {trained:,} of {size:,}")
        all_trained += trained
        everything += size
    total = f"in all {all_trained:,} of {everything:,} ({all_trained / everything:.2%})"
    return f"{', '.join(words)}; {total}", all_trained, everything


def machine(device: torch.device) -> dict:
    """What a run is computed with, for its log."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name()
    elif device.type == "mps":
        name = "Apple GPU"
    else:
        name = platform.processor() or platform.machine()
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": name,
    }


def memory_gb(device: torch.device) -> float:
    """Peak memory in GB: of the GPU's allocator, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    if device.type == "mps":  # what the driver holds: it seldom gives memory back
        return torch.mps.driver_allocated_memory() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def score_batch(model: nn.Module, loss_of: Callable, batch: Batch, bf16: bool) -> dict[str, float]:
    """The loss of a batch, and R@1 both ways among its pairs. Nothing is learned.

    i2t  is from image to text, t2i from text to image; see batch_accuracy
    best_wrong  a caption's cosine with the nearest image that is not its own: the median over the
                captions; best_wrong_of_half looks at the first half of the images only
    """
    images, texts, duplicates, label_tokens = batch
    with torch.no_grad():
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            # Not model(...): that would compile it once more, for a batch of this size.
            features = model.forward(images, texts, label_tokens)
        loss = loss_of(**features, duplicates=duplicates)
    image, text = features["image_features"], features["text_features"]
    wrong = (text.float() @ image.float().T).masked_fill(duplicates.T, -1)  # (B, B)
    return {
        "pairs": len(image),
        "loss": loss.item(),
        "i2t": batch_accuracy(image, text, duplicates),
        "t2i": batch_accuracy(text, image, duplicates.T),
        "best_wrong": wrong.amax(1).median().item(),
        "best_wrong_of_half": wrong[:, : math.ceil(len(image) / 2)].amax(1).median().item(),
    }


def curve_line(entry: dict, total: int) -> str:
    """An entry of the validation curve as a person reads it."""
    words = [f"step {entry['step']}/{total}"]
    for name, what in (("val", "validation"), ("train", "training")):
        one = entry[name]
        words.append(
            f"{what}: loss {one['loss']:.3f}, R@1 {one['i2t']:.1%} i2t, {one['t2i']:.1%} t2i"
        )
    return " | ".join(words) + f" ({entry['val']['pairs']} pairs each)"


def merit(entry: dict) -> tuple[float, float]:
    """By what two entries of the validation curve are compared: R@1 both ways, then the loss.

    The loss alone would choose badly. When a run knows its training images by heart it is too sure
    of its wrong answers, which costs much loss. It may find more right ones all the same.
    (docs/results/best.md)
    """
    val = entry["val"]
    return val["i2t"] + val["t2i"], -val["loss"]


def learned_by_heart(curve: list[dict]) -> str:
    """What to say of a run whose validation loss rose by more than 5 %. Empty if it did not.

    curve  entries of the validation curve, in order
    """
    if not curve:
        return ""
    lowest = min(curve, key=lambda entry: entry["val"]["loss"])
    last, best = curve[-1], max(curve, key=merit)
    if last["val"]["loss"] <= 1.05 * lowest["val"]["loss"]:
        return ""

    def recall(entry):
        return (entry["val"]["i2t"] + entry["val"]["t2i"]) / 2

    return (
        f"note: the run learns its images by heart. The validation loss was lowest at step "
        f"{lowest['step']} ({lowest['val']['loss']:.2f}) and is {last['val']['loss']:.2f} now. "
        f"R@1 of validation images was {recall(lowest):.1%} at that step, is {recall(last):.1%} "
        f"now, and was best at step {best['step']} ({recall(best):.1%}). See docs/data.md"
    )


class RunLog:
    """The log of a run, what it has cost so far, and its validation curve.

    folder      of the run
    first       the first line of the log
    total       steps of the run
    batch_size  images of a step
    cost        {key: number} of all that was spent before
    curve       entries of the validation curve before, in order
    report_to   as train.py's flag

    Only the first process writes to the log. (data/processes.py) What the others write is dropped.
    """

    def __init__(
        self,
        folder: Path,
        first: dict,
        total: int,
        batch_size: int,
        cost: dict,
        curve: list[dict],
        report_to: str,
    ):
        is_writer = processes.rank() == 0
        log_path = folder / "log.jsonl" if is_writer else os.devnull
        self.log = open(log_path, "a", buffering=1)  # noqa: SIM115  (open for the whole run)
        self.log.write(json.dumps(first) + "\n")
        self.last = first  # the last entry of a step; the first line of the log where there is none
        self.reports = open_reports(report_to, folder, first["config"]) if is_writer else []
        self.total = total
        self.batch_size = batch_size
        self.cost = cost
        self.curve = curve
        # `since`, `n_images` and `waited` count from the last entry of a step.
        self.begun = self.since = time.time()
        self.n_images, self.waited = 0, 0.0

    def count(self, waited: float) -> None:
        """One more step is done. waited: seconds that it waited for its batch."""
        self.n_images += self.batch_size
        self.waited += waited

    def add_scores(self, scores: dict[str, dict], step: int, bar: tqdm) -> bool:
        """Add an entry of the validation curve, and return whether it is the best so far."""
        entry = {"step": step, **scores}
        self.curve.append(entry)
        bar.write(curve_line(entry, self.total), file=sys.stderr)
        self._write(entry)
        return merit(entry) == max(merit(entry) for entry in self.curve)

    def add_step(
        self, numbers: dict[str, float], step: int, device: torch.device, bar: tqdm
    ) -> None:
        """Add an entry of a step, and what the steps since the last one have cost."""
        now = time.time()
        seconds = now - self.since
        speed = self.n_images / seconds
        entry = {
            "step": step,
            **numbers,
            "ln_batch": math.log(self.batch_size),
            "images_per_second": speed,
            "data_wait": self.waited / seconds,
            "memory_gb": memory_gb(device),
            "eta_seconds": (self.total - step) * self.batch_size / speed,
            "seconds": now - self.begun,
        }
        self.cost["training_seconds"] += seconds
        self.cost["images"] += self.n_images
        bar.write(log_line(entry, self.total), file=sys.stderr)
        self._write(entry)
        self.since, self.n_images, self.waited = time.time(), 0, 0.0
        self.last = entry

    def _write(self, entry: dict) -> None:
        self.log.write(json.dumps(entry) + "\n")
        for report in self.reports:
            report(entry["step"], numbers_in(entry))


def check_reports(report_to: str) -> None:
    """BadInput where --report-to names what is unknown, or what is not installed."""
    for name in filter(None, report_to.split(",")):
        if name not in ("tensorboard", "wandb"):
            raise BadInput(f"--report-to {name} is unknown; choose tensorboard, wandb or both")
        if importlib.util.find_spec(name) is None:
            raise BadInput(f"--report-to {name}: not installed; pip install {name}")


def open_reports(report_to: str, out: Path, config: dict) -> list[Callable[[int, dict], None]]:
    """A function (step, {name: number}) for each program that --report-to names.

    TensorBoard's files lie in the run's folder. Weights & Biases shows the run in its project
    "lift".
    """
    reports = []
    if "tensorboard" in report_to.split(","):
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(out / "tensorboard")

        def write(step, numbers):
            for name, number in numbers.items():
                writer.add_scalar(name, number, step)
            writer.flush()

        reports.append(write)
    if "wandb" in report_to.split(","):
        import wandb

        # A run that is resumed is another one there, of the same name.
        try:
            run = wandb.init(project="lift", name=out.name, dir=out, config=config)
        except wandb.Error as error:
            raise BadInput(f"--report-to wandb: {error}") from error
        reports.append(lambda step, numbers: run.log(numbers, step=step))
    return reports


def numbers_in(entry: dict) -> dict[str, float]:
    """An entry of log.jsonl as one table: {"val": {"loss": 3}} becomes {"val/loss": 3}."""
    numbers = {}
    for name, value in entry.items():
        inner = value if isinstance(value, dict) else {"": value}
        numbers |= {f"{name}/{key}".rstrip("/"): number for key, number in inner.items()}
    del numbers["step"]
    return numbers


def batch_accuracy(image_features: Tensor, text_features: Tensor, duplicates: Tensor) -> float:
    """Share of images whose nearest caption of the batch is right. A duplicate is right, too.

    For the log only: unlike the scores of eval.py, it does not count a tie as wrong.
    """
    cosines = image_features.float() @ text_features.float().T  # (B, B)
    nearest = cosines.argmax(1, keepdim=True)  # (B, 1)
    return duplicates.gather(1, nearest).float().mean().item()


def log_line(entry: dict, total: int) -> str:
    """An entry of the log as a person reads it."""
    return (
        "step {step}/{total} | loss {loss:.3f} (ln B {ln_batch:.2f}) | acc {accuracy:.1%} | "
        "scale {scale:.1f} | lr {lr:.1e} | grad {grad_norm:.2f} | {images_per_second:.0f} img/s | "
        "wait {data_wait:.0%} | {memory_gb:.1f} GB | eta {eta_seconds:.0f} s"
    ).format(total=total, **entry)
