"""Pixels: any picture -> a square of uint8, and from there to what an image tower takes."""

import hashlib

import numpy as np
import torch
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
