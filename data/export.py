"""A trained run as one file: its weights and its configuration, or its image tower by timm's names.

    python -m data.export runs/lift model.safetensors           # lift.load("model.safetensors") takes it like the run's folder
    python -m data.export runs/lift tower.safetensors --tower   # for timm, or for --image-weights
"""

import argparse
import json
import math
import sys
from pathlib import Path

from data import BadInput, interpreting, run
from data.models import load_tensors
from data.weights import read_safetensors, write_safetensors

WANTED = ("config", "step", "text_fingerprint", "image_fingerprint", "model")


def read_checkpoint(folder):
    """The checkpoint of a run folder, or of what `export` made of one, as a dict of plain tensors, numbers and strings."""
    path = Path(folder)
    try:
        if path.suffix == ".safetensors":
            meta, tensors = read_safetensors(path)
            with interpreting(path):
                checkpoint = json.loads(meta["lift"]) | {"model": {name: stored.decode() for name, stored in tensors.items()}}
        else:
            path /= "checkpoint.pt"
            checkpoint = load_tensors(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; {folder} is not the folder of a trained run") from None
    if not isinstance(checkpoint, dict) or not set(WANTED) <= set(checkpoint):
        raise BadInput(f"{path}: a checkpoint of another program, or of an older version of this one; train again")
    return checkpoint


def export(folder, path, tower_only=False):
    """Write a run to one .safetensors file, which `load` takes like a run folder; or its image tower by timm's names.

    timm's: VisionTransformer with global_pool "avg", no class token and no fc_norm (or "token"), for pixels normalised as CLIP's.
    """
    checkpoint = read_checkpoint(folder)
    said, state = {key: checkpoint[key] for key in WANTED[:-1]}, checkpoint["model"]
    if tower_only:
        state = {name.removeprefix("visual."): tensor for name, tensor in state.items() if name.startswith("visual.")}
        kernel = state["patch_embed.proj.weight"]
        side = math.isqrt(kernel.shape[1] // 3)
        state["patch_embed.proj.weight"] = kernel.unflatten(1, (3, side, side))  # a convolution's, (D, 3, p, p)
    write_safetensors(path, state, {"format": "pt", "lift": json.dumps(said)})


def main():
    parser = argparse.ArgumentParser(description="Export a run to one file, which lift.load takes like the run's folder.")
    parser.add_argument("run", help="run folder")
    parser.add_argument("out", help="file to write, .safetensors")
    parser.add_argument("--tower", action="store_true", help="the image tower alone, by timm's names")
    args = parser.parse_args()
    if not args.out.endswith(".safetensors"):
        raise BadInput(f"{args.out}: name a .safetensors file")
    export(args.run, args.out, args.tower)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    sys.exit(run(main))
