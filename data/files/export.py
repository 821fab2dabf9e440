"""A trained run as one file: its weights and its configuration, or its image tower alone.

    python -m data.files.export runs/lift model.safetensors
    python -m data.files.export runs/lift tower.safetensors --tower

`lift.load` takes the first file like the run's folder. The second holds the image tower by the
names of the library timm, for timm itself or for --image-weights.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from torch import Tensor

from data.common import BadInput, check_place, exit_status, parse_flags
from data.files.runs import RUN_KEYS, SEEN, read_run
from data.files.tensors import write_safetensors


def export(folder: str | Path, path: str | Path, tower_only: bool = False) -> None:
    """Write the run in `folder` to the .safetensors file `path`.

    tower_only  only the image tower, as timm's VisionTransformer with global_pool "avg", without
                class token and fc_norm (or with global_pool "token"). It takes pixels normalised
                as CLIP does.
    """
    checkpoint = read_run(folder)
    metadata = {"format": "pt"}
    state = checkpoint["model"]
    if tower_only:
        state = image_tower(state)
    else:
        metadata["lift"] = json.dumps({key: checkpoint[key] for key in RUN_KEYS})
        state = state | {SEEN: checkpoint[SEEN]}
    write_safetensors(path, state, metadata)


def image_tower(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image tower's weights, from those of a whole run, as timm names and shapes them."""
    tower = {}
    for name, tensor in state.items():
        if name.startswith("visual."):
            tower[name.removeprefix("visual.")] = tensor
    if "patch_embed.proj.weight" not in tower:
        raise BadInput("this run has no image tower of its own: it took --image-features")
    if any(".adapter1." in name or ".adapter2." in name for name in tower):
        raise BadInput("this image tower has LilT's adapters, for which timm has no place")
    # timm's patch projection is a convolution: (D, 3 p p) becomes (D, 3, p, p).
    kernel = tower["patch_embed.proj.weight"]
    side = math.isqrt(kernel.shape[1] // 3)
    tower["patch_embed.proj.weight"] = kernel.unflatten(1, (3, side, side))
    return tower


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Export a run to one file, which lift.load takes like the run's folder."
    )
    parser.add_argument("run", help="run folder")
    parser.add_argument("out", help="file to write, .safetensors")
    parser.add_argument(
        "--tower", action="store_true", help="the image tower alone, by timm's names"
    )
    args = parse_flags(parser)
    if not args.out.endswith(".safetensors"):
        raise BadInput(f"{args.out}: name a .safetensors file")
    check_place("the folder", Path(args.out).absolute().parent)
    export(args.run, args.out, args.tower)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
