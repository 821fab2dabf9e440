"""Pixels: any picture -> a square of uint8, and from there to what an image tower takes."""

import hashlib
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

PIXEL_NORMS = {  # mean and standard deviation of pixels; ours is CLIP's, as in open_clip
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


# What Pillow may take for a picture. (Not EPS, for which it starts another program.)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


def to_square(image, size):
    """PIL image -> uint8 (size, size, 3): upright (EXIF), RGB on white, short side to `size` (bicubic), centre crop."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("a picture of floating-point numbers has no known range")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(ImageOps.fit(image.convert("RGB"), (size, size), Image.BICUBIC))


def normalize_pixels(images):
    """uint8 (B, S, S, 3) -> float32 (B, 3, S, S), normalised; on the images' device."""
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in PIXEL_NORMS["clip"])
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


def digest(content):
    """64 bits that stand for a picture: for its file's bytes, or for its pixels."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def random_crops(images, smallest, generator):
    """Random resized crops, bilinear, on the device. images (B, 3, S, S) -> (B, 3, S, S).

    Each keeps a share in [smallest, 1] of the area, at an aspect ratio in [3/4, 4/3], as in the papers; no flips:
    left and right mean something.
    """
    B, device = len(images), images.device
    area, ratio, x, y = torch.rand(4, B, generator=generator).to(device)  # (B,) each
    area = smallest + (1 - smallest) * area
    ratio = torch.exp((2 * ratio - 1) * math.log(4 / 3))
    w, h = (area * ratio).sqrt().clamp_max(1), (area / ratio).sqrt().clamp_max(1)
    w = torch.maximum(w, smallest / h).clamp_max(
        1
    )  # where one side was too long the other makes up for it
    h = torch.maximum(h, smallest / w)
    theta = torch.zeros(B, 2, 3, device=device)  # output corner -> input position, in [-1, 1]
    theta[:, 0, 0], theta[:, 1, 1] = w, h
    theta[:, 0, 2], theta[:, 1, 2] = (2 * x - 1) * (1 - w), (2 * y - 1) * (1 - h)
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
