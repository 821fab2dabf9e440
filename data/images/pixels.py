"""Pixels: from an image of any kind to a square of bytes, and from there to an image tower's input.

    PIL image  --to_square-->  (S, S, 3) uint8  --normalize_pixels-->  (B, 3, S, S) float32
                               kept on disk       --random_crops-->    the same shape, in training

Every image file that a user brings is opened by `open_image`.

Needs nothing of the project but data/common.py. Letters of shapes: B images of a batch, S pixels
per side.
"""

import functools
import hashlib
import math
import warnings
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from data.common import BadInput, check_regular

# Mean and standard deviation of red, green and blue, as the image towers of other projects expect
# them. The towers here take CLIP's (contrastive language-image pre-training), as in open_clip.
PIXEL_NORMS = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}

# What Pillow may open. EPS is left out: Pillow would start another program to read it.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
# Larger files are a mistake: the largest photos have some tens of megabytes.
MAX_BYTES = 500_000_000
# More pixels are a mistake or an attack: a file of a few bytes can claim any size. Pillow warns of
# images that are smaller than that, which would only be noise here.
MAX_PIXELS = 100_000_000
# A side of more pixels takes long to decode, however few pixels there are. JPEG allows no more.
MAX_SIDE = 65_535
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def open_image(file: str | Path | BinaryIO) -> Image.Image:
    """Open an image of one of the FORMATS. Its pixels are read later, when they are asked for.

    BadInput for a pipe or a device, and for too many pixels or too long a side; Pillow's own
    errors, of a dozen types, for what is no image.
    """
    if isinstance(file, (str, Path)):
        check_regular(file)
        if Path(file).exists() and Path(file).stat().st_size > MAX_BYTES:
            raise BadInput(f"has more than {MAX_BYTES:,} bytes")
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 10**6} million"
        raise BadInput(f"has {width} x {height} pixels, more than {limit}")
    if max(width, height) > MAX_SIDE:
        raise BadInput(f"has {width} x {height} pixels, more than {MAX_SIDE} on a side")
    return image


def to_square(image: Image.Image, size: int) -> np.ndarray:
    """PIL image -> uint8 (size, size, 3): upright, RGB on white, the centre, scaled to size.

    The short side is scaled to `size` (bicubic). What is left over of the long side is cut off, the
    same on both ends. ValueError for an image of floating-point or 32-bit numbers, whose range is
    not known.
    """
    # Pillow may hold 16 bits of a PNG or PPM file in 32. In other files the 32 bits are meant.
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise ValueError("an image of 32-bit numbers has no known range")
    # A camera that was held on its side says so in the EXIF data (exchangeable image file format).
    with suppress(SyntaxError):  # EXIF data that cannot be read say nothing
        image = ImageOps.exif_transpose(image)
    # Some formats name one number or colour that is transparent.
    transparent = image.info.get("transparency")
    # 16 bits per pixel: keep the upper 8. convert() would turn all that is not dark into white.
    if image.mode.startswith("I"):
        numbers = np.asarray(image)
        if numbers.min() < 0 or numbers.max() > 65535:
            raise ValueError("an image of 32-bit numbers has no known range")
        image = Image.fromarray((numbers >> 8).astype(np.uint8))
        if transparent is not None:
            image.putalpha(Image.fromarray(numbers != transparent))
    elif isinstance(transparent, tuple) and max(transparent) > 255:
        # Pillow has kept the upper 8 bits of each pixel, but all 16 of this colour.
        image.info["transparency"] = tuple(number >> 8 for number in transparent)
    if image.mode == "F":
        raise ValueError("an image of floating-point numbers has no known range")

    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(ImageOps.fit(image.convert("RGB"), (size, size), Image.BICUBIC))


@functools.cache
def clip_norm(device: torch.device) -> tuple[Tensor, Tensor]:
    """CLIP's mean and standard deviation of a pixel, (3, 1, 1) each.

    They are kept: to make them anew for each batch, a GPU would have to wait.
    """
    return tuple(torch.tensor(rgb, device=device).view(3, 1, 1) for rgb in PIXEL_NORMS["clip"])


def normalize_pixels(images: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) -> float32 (B, 3, S, S) on the same device, normalised as for CLIP.

        (pixel / 255 - mean) / standard deviation        for each of red, green and blue

    Pixels of photos then have a mean near 0 and a spread near 1.
    """
    mean, deviation = clip_norm(images.device)
    # In place: a batch of photos is large, and each copy of it takes time.
    return images.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(deviation)


def image_digest(content: bytes | np.ndarray) -> int:
    """64 bits that stand for one image. `content`: its file's bytes, or its pixels if drawn here.

    Two images of a set of a million have the same digest by accident about once in forty million
    such sets.
    """
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def random_crops(images: Tensor, smallest: float, draws: Tensor) -> Tensor:
    """A random rectangle of each image, scaled to the whole square: (B, 3, S, S) -> the same shape.

    smallest  the smallest share of the area that is kept: it is drawn from [smallest, 1]
    draws     (4, B) random numbers d_0 to d_3 in [0, 1): for the area, the ratio, x and y

    The rectangle's width divided by its height is drawn from [3/4, 4/3], evenly in its logarithm,
    as in the papers. With sides as shares of the image's side:

        area = smallest + (1 - smallest) d_0        ratio = (4/3)^(2 d_1 - 1)
        width = sqrt(area ratio)                    height = sqrt(area / ratio)
        centre = ( (2 d_2 - 1) (1 - width), (2 d_3 - 1) (1 - height) )

    A side that would be longer than the image is cut to 1, so less is kept than was drawn. Where
    less than `smallest` would be left, the other side is made longer, until the area is `smallest`.
    The centre is that of the final sides, in an image that goes from -1 to 1. So the place is drawn
    evenly from all where the rectangle fits. F.affine_grid and F.grid_sample cut it out, by theta =
    ((width, 0, centre x), (0, height, centre y)) for each image: corners are not aligned, pixels between two others are interpolated linearly, and beyond the edge the
    nearest pixel counts. The images are never flipped: a caption may say left or right.
    """
    device = images.device
    area, ratio, x, y = draws.to(device)  # (B,) each
    area = smallest + (1 - smallest) * area
    ratio = torch.exp((2 * ratio - 1) * math.log(4 / 3))

    # Sides as shares of the image's side: width * height = area, width / height = ratio.
    width = (area * ratio).sqrt().clamp_max(1)
    height = (area / ratio).sqrt().clamp_max(1)
    # Where one side was cut and less than `smallest` would be left, the other one is made longer.
    width = torch.maximum(width, smallest / height).clamp_max(1)
    height = torch.maximum(height, smallest / width)

    # affine_grid maps each place of the output to a place of the input. Both run from -1 to 1.
    # x and y in [0, 1) say where between the two edges the rectangle lies.
    theta = torch.zeros(len(images), 2, 3, device=device)
    theta[:, 0, 0] = width
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (2 * x - 1) * (1 - width)
    theta[:, 1, 2] = (2 * y - 1) * (1 - height)
    grid = F.affine_grid(theta, images.shape, align_corners=False)  # (B, S, S, 2)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)  # bilinear
