"""Trained runs on disk: checkpoints, written whole or not at all, and read back."""

import io
import json
from pathlib import Path

import torch

from data.common import BadInput, interpreting, replacing
from data.files.tensors import read_safetensors

# What is kept of a run beside its weights. Files of data/files/export.py hold it, too.
RUN_KEYS = ("config", "step", "text_fingerprint", "image_fingerprint", "cost")

# A tensor that every run keeps beside its weights: digests of the images it was trained on, the
# smallest 10,000 of them, (n,) int64.
SEEN = "seen"


def load_tensors(path: Path):
    """torch.load of plain tensors, numbers and strings. BadInput for anything else.

    With weights_only no file can run code of its own.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise BadInput(f"{path}: damaged, or more than tensors ({type(error).__name__})") from None


def save_tensors(contents, path: Path) -> None:
    """torch.save. The old file or the new one is left, never half of one."""
    # Saved to memory first: straight to a file, torch turns a full disk into an obscure error.
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    with replacing(path) as file:
        file.write(buffer.getbuffer())


def read_run(folder: str | Path) -> dict:
    """The checkpoint of a run folder, or of a file that data/files/export.py made of one.

    A dict of plain tensors, numbers and strings: "model" holds the weights, and RUN_KEYS and SEEN
    are the rest.
    BadInput for what is no run.
    """
    path = Path(folder)
    try:
        if path.suffix == ".safetensors":
            metadata, tensors = read_safetensors(path)
            with interpreting(path):
                checkpoint = json.loads(metadata["lift"])
                checkpoint["model"] = {name: stored.decode() for name, stored in tensors.items()}
                if SEEN in tensors:
                    checkpoint[SEEN] = checkpoint["model"].pop(SEEN)
        else:
            path /= "checkpoint.pt"
            checkpoint = load_tensors(path)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(
            f"{path}: no such file; {folder} is not the folder of a trained run"
        ) from None
    if not isinstance(checkpoint, dict) or not {*RUN_KEYS, SEEN, "model"} <= set(checkpoint):
        raise BadInput(
            f"{path}: a checkpoint of another program, or of an older version of this one; train "
            "again"
        )
    return checkpoint
