"""Trained runs on disk."""

import io
import json
import os
from pathlib import Path

import torch

from data.common import BadInput, interpreting
from data.files.tensors import read_safetensors

RUN_KEYS = (
    "config",
    "step",
    "text_fingerprint",
    "image_fingerprint",
)  # what is kept of a run beside its weights


def load_tensors(path):
    """torch.load of plain tensors, numbers and strings; BadInput for anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise BadInput(f"{path}: damaged, or more than tensors ({type(error).__name__})") from None


def save_tensors(what, path):
    """torch.save that leaves the old file or the new one, never half of one."""
    part, buffer = path.with_suffix(".part"), io.BytesIO()
    torch.save(what, buffer)  # (straight to a file, torch turns "disk full" into an obscure error)
    try:
        with open(part, "wb") as f:
            f.write(buffer.getbuffer())
            f.flush()
            os.fsync(f.fileno())
    except OSError:
        part.unlink(missing_ok=True)
        raise
    os.replace(part, path)


def read_run(folder):
    """The checkpoint of a run folder, or of what data/export.py made of one, as a dict of plain tensors, numbers and strings."""
    path = Path(folder)
    try:
        if path.suffix == ".safetensors":
            meta, tensors = read_safetensors(path)
            with interpreting(path):
                checkpoint = json.loads(meta["lift"]) | {
                    "model": {name: stored.decode() for name, stored in tensors.items()}
                }
        else:
            path /= "checkpoint.pt"
            checkpoint = load_tensors(path)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(
            f"{path}: no such file; {folder} is not the folder of a trained run"
        ) from None
    if not isinstance(checkpoint, dict) or not {*RUN_KEYS, "model"} <= set(checkpoint):
        raise BadInput(
            f"{path}: a checkpoint of another program, or of an older version of this one; train again"
        )
    return checkpoint
