"""A trained run as one file: its weights and its configuration, or its image tower by timm's names.

python -m data.files.export runs/lift model.safetensors           # lift.load("model.safetensors") takes it like the run's folder
python -m data.files.export runs/lift tower.safetensors --tower   # for timm, or for --image-weights
"""

import argparse
import json
import math
import sys

from data.common import BadInput, run
from data.files.runs import RUN_KEYS, read_run
from data.files.tensors import write_safetensors


def export(folder, path, tower_only=False):
    """Write a run to one .safetensors file, which `load` takes like a run folder; or its image tower by timm's names.

    timm's: VisionTransformer with global_pool "avg", no class token and no fc_norm (or "token"), for pixels normalised as CLIP's.
    """
    checkpoint = read_run(folder)
    said, state = {key: checkpoint[key] for key in RUN_KEYS}, checkpoint["model"]
    if tower_only:
        state = {
            name.removeprefix("visual."): tensor
            for name, tensor in state.items()
            if name.startswith("visual.")
        }
        kernel = state["patch_embed.proj.weight"]
        side = math.isqrt(kernel.shape[1] // 3)
        state["patch_embed.proj.weight"] = kernel.unflatten(
            1, (3, side, side)
        )  # a convolution's, (D, 3, p, p)
    write_safetensors(
        path, state, {"format": "pt"} if tower_only else {"format": "pt", "lift": json.dumps(said)}
    )


def main():
    parser = argparse.ArgumentParser(
        description="Export a run to one file, which lift.load takes like the run's folder."
    )
    parser.add_argument("run", help="run folder")
    parser.add_argument("out", help="file to write, .safetensors")
    parser.add_argument(
        "--tower", action="store_true", help="the image tower alone, by timm's names"
    )
    args = parser.parse_args()
    if not args.out.endswith(".safetensors"):
        raise BadInput(f"{args.out}: name a .safetensors file")
    export(args.run, args.out, args.tower)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    sys.exit(run(main))
