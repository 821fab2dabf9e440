"""Trained runs on disk: checkpoints, written whole or not at all, and read back."""

import io
import json
from pathlib import Path

import torch
from torch import Tensor

from data.common import BadInput, check_regular, interpreting, replacing
from data.files.tensors import WRITTEN_KINDS, read_safetensors

# What is kept of a run beside its weights. Files of data/files/export.py hold it, too.
RUN_KEYS = {
    "config": dict,
    "step": int,
    "text_fingerprint": str,
    "image_fingerprint": str,
    "cost": dict,
    "curve": list,
    "captions": list,
}
CURVE_KEYS = ("pairs", "loss", "i2t", "t2i", "best_wrong", "best_wrong_of_half")
COST_KEYS = ("trained_parameters", "parameters", "caption_seconds", "training_seconds", "images")
# A checkpoint.pt also holds these. Training goes on with them.
MORE_KEYS = {"data_fingerprint": str, "optimizer": dict, "total": int}

# A tensor that every run keeps beside its weights: digests of the images it was trained on, the
# smallest 10,000 of them, (n,) int64.
SEEN = "seen"


def load_tensors(path: Path):
    """torch.load of plain tensors, numbers and strings. BadInput for anything else.

    With weights_only no file can run code of its own.
    """
    check_regular(path)
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        # A full memory is not the file's fault, nor is a file that is missing or may not be read.
        # An OSError that names no file is the file's fault: a wrong offset in it led torch to a
        # place that does not exist.
        if isinstance(error, MemoryError) or getattr(error, "filename", None):
            raise
        raise BadInput(
            f"{path}: damaged, or more than tensors ({type(error).__name__}); name another file, "
            "or make it again"
        ) from None
    with interpreting(path):
        check_dense(contents)
    return contents


def check_dense(contents: object) -> None:
    """BadInput for a tensor that is sparse, quantized or without numbers, at any depth."""
    if isinstance(contents, Tensor):
        is_strided = contents.layout is torch.strided and not contents.is_nested
        if not is_strided or contents.is_quantized or contents.device.type != "cpu":
            raise BadInput("holds a tensor that is no plain table of numbers; save it as one")
    elif isinstance(contents, dict):
        check_dense(list(contents.values()))
    elif isinstance(contents, (list, tuple)):
        for content in contents:
            check_dense(content)


def save_tensors(contents, path: Path) -> None:
    """torch.save. The old file or the new one is left, never half of one."""
    # Saved to memory first: straight to a file, torch turns a full disk into an obscure error.
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    with replacing(path) as file:
        file.write(buffer.getbuffer())


def run_file(run: str | Path) -> Path:
    """The file that a run is read from.

    run  a run folder, which stands for its best.pt (train.py --save-best) or else its
         checkpoint.pt; or one such file, or a file that data/files/export.py made
    """
    path = Path(run)
    if path.suffix in (".pt", ".safetensors") and not path.is_dir():
        return path
    best = path / "best.pt"
    return best if best.is_file() else path / "checkpoint.pt"


def why_no_run(folder: str | Path) -> str:
    """Words for a message: why this folder has no weights."""
    if (Path(folder) / "log.jsonl").is_file():
        return "the run stopped before it was saved; give its first command again"
    return f"{folder} is not the folder of a trained run"


def read_run(run: str | Path) -> dict:
    """What a run is: its weights, and what must be known to use them. run: as in run_file.

    A dict of plain tensors, numbers and strings: "model" holds the weights, and RUN_KEYS and SEEN
    are the rest. BadInput for what is no run.
    """
    path = run_file(run)
    try:
        if path.suffix == ".safetensors":
            metadata, tensors = read_safetensors(path)
            with interpreting(path):
                if "lift" not in metadata:
                    raise BadInput(
                        "holds no run; if it is an image tower, give it to --image-weights"
                    )
                checkpoint = json.loads(metadata["lift"])
                checkpoint["model"] = {name: stored.decode() for name, stored in tensors.items()}
                if SEEN in tensors:
                    checkpoint[SEEN] = checkpoint["model"].pop(SEEN)
        else:
            checkpoint = load_tensors(path)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{path}: no such file; {why_no_run(run)}") from None
    if not isinstance(checkpoint, dict) or not {*RUN_KEYS, SEEN, "model"} <= set(checkpoint):
        raise BadInput(
            f"{path}: a checkpoint of another program, or of an older version of this one; train "
            "again"
        )
    problem = damage_in(checkpoint)
    if problem:
        raise BadInput(f"{path}: damaged: {problem}; export it again, or train again")
    return checkpoint


def damage_in(checkpoint: dict) -> str | None:
    """Which part of a run is not what it must be, in words. None if all are.

    Whether the weights fit the configuration is asked where a model is made of them
    (data.files.tensors.mismatch).
    """
    for key, wanted in (RUN_KEYS | MORE_KEYS | {SEEN: Tensor, "model": dict}).items():
        if key in checkpoint and not isinstance(checkpoint[key], wanted):
            return f"{key} is of type {type(checkpoint[key]).__name__}, not {wanted.__name__}"
    for key in COST_KEYS:
        if type(checkpoint["cost"].get(key)) not in (int, float):
            return f"its cost has no number for {key}"
    if not all(is_entry(entry) for entry in checkpoint["curve"]):
        return "an entry of its validation curve lacks a number, or counts no pairs"
    for name, tensor in checkpoint["model"].items():
        is_tensor = isinstance(tensor, Tensor) and tensor.dtype in WRITTEN_KINDS
        if not isinstance(name, str) or not is_tensor or not tensor.isfinite().all():
            return f"the weight {name!r} is no tensor of finite numbers"
    return None


def is_entry(entry: object) -> bool:
    """Has an entry of the validation curve all of CURVE_KEYS, as numbers, of one pair or more?"""
    try:
        numbers = [entry[part][key] for part in ("val", "train") for key in CURVE_KEYS]
    except (LookupError, TypeError):
        return False
    return all(type(number) in (int, float) for number in numbers) and entry["val"]["pairs"] > 0
