"""data/images/pixels.py: squares, crops, digests.

python -m pytest tests/data/images/test_pixels.py
"""

import io
import math
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from data.common import BadInput
from data.images.pixels import (
    PIXEL_NORMS,
    image_digest,
    normalize_pixels,
    open_image,
    random_crops,
    to_square,
)
from tests.data.files.examples import refused
from tests.data.images.example_data import png, png_chunk


def test_to_square_turns_crops_and_flattens():
    tall = Image.new("RGB", (20, 40), "white")
    tall.paste((255, 0, 0), (0, 0, 20, 20))  # red above white
    exif = tall.getexif()
    exif[0x0112] = 6  # the camera was held on its side: red belongs on the right
    tall.info["exif"] = exif.tobytes()
    upright = to_square(tall, 16)
    assert upright.shape == (16, 16, 3) and upright.dtype == np.uint8
    assert (upright[:, 12:] == (255, 0, 0)).all() and (upright[:, :4] == 255).all()

    wide = Image.new("RGB", (48, 16), "blue")
    wide.paste((0, 255, 0), (16, 0, 32, 16))
    assert (to_square(wide, 16)[:, 1:-1] == (0, 255, 0)).all()  # the centre
    clear = Image.new("RGBA", (9, 9), (255, 0, 0, 0))
    assert (to_square(clear, 8) == 255).all()  # transparent is white

    # 16 bits per pixel
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    wanted = np.linspace(0, 255, 64).reshape(8, 8)
    assert np.abs(to_square(Image.fromarray(ramp), 8)[..., 0] - wanted).max() < 2
    with pytest.raises(ValueError, match="no known range"):
        to_square(Image.new("F", (9, 9)), 8)
    for number in (-5, 200, 200_000):
        with pytest.raises(ValueError, match="32-bit"):
            to_square(Image.new("I", (9, 9), number), 8)
    for mode in ("L", "P", "CMYK", "1", "LA", "I;16"):
        assert to_square(Image.new(mode, (9, 9)), 8).shape == (8, 8, 3)


def test_exif_data_that_cannot_be_read_say_nothing():
    image = Image.new("RGB", (9, 9), "blue")
    image.info["exif"] = b"Exif\0\0no TIFF"
    assert (to_square(image, 8) == (0, 0, 255)).all()


def png_of_16_bits(pixels, *chunks):
    """(H, W, 1 or 3) uint16 -> the bytes of a PNG file. Pillow cannot write three colours so."""
    height, width, colours = pixels.shape
    size = struct.pack(">IIBBBBB", width, height, 16, 0 if colours == 1 else 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    content = [png_chunk(b"IHDR", size), *chunks, png_chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(content) + png_chunk(b"IEND", b"")


def square_of(content, size=8):
    with open_image(io.BytesIO(content)) as image:
        return to_square(image, size)


@pytest.mark.parametrize("colours", [1, 3])
def test_16_bits_are_turned_and_flattened_as_8_bits_are(colours):
    rng = np.random.default_rng(0)
    upper = rng.integers(0, 200, (8, 8, colours), dtype=np.uint16)
    pixels = upper << 8 | rng.integers(0, 256, (8, 8, colours), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    turned = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    # One number, or one colour, is transparent: here that of the first pixel.
    clear = png_chunk(b"tRNS", pixels[0, 0].astype(">u2").tobytes())

    in_8_bits = Image.fromarray(np.broadcast_to(upper, (8, 8, 3)).astype(np.uint8))
    in_8_bits = in_8_bits.transpose(Image.Transpose.ROTATE_270)
    assert (square_of(png_of_16_bits(pixels, turned)) == np.asarray(in_8_bits)).all()
    in_8_bits.putpixel((7, 0), (255, 255, 255))  # the first pixel is at the right now, and white
    assert (square_of(png_of_16_bits(pixels, turned, clear)) == np.asarray(in_8_bits)).all()
    # The image itself keeps what it says.
    with open_image(io.BytesIO(png_of_16_bits(pixels, turned, clear))) as image:
        before = dict(image.info)
        to_square(image, 8)
        assert image.info == before


# pytest undoes the filter in data/images/pixels.py.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_long_side_is_refused_before_it_is_decoded():
    empty = png_chunk(b"IDAT", b"")
    for width, height in ((1, 99_000_000), (65_536, 1)):
        with pytest.raises(BadInput, match=f"{width} x {height} pixels, more than 65535 on a side"):
            open_image(io.BytesIO(png(width, height, empty)))
    assert open_image(io.BytesIO(png(1, 65_535, empty))).size == (1, 65_535)


def test_an_image_from_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with refused(tmp_path / "pipe.png", "no regular file"):
        open_image(tmp_path / "pipe.png")


def test_eps_is_refused():
    """Pillow would start another program to read it."""
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "EPS")
    assert Image.open(file).format == "EPS"
    with pytest.raises(UnidentifiedImageError):
        open_image(file)


def test_normalized_pixels_by_hand():
    images = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    images[0, 0, 1] = torch.tensor([255, 0, 51])  # above on the right
    out = normalize_pixels(images)
    assert out.shape == (1, 3, 2, 2) and out.dtype == torch.float32
    wanted = [
        (1 - 0.48145466) / 0.26862954,
        -0.4578275 / 0.26130258,
        (0.2 - 0.40821073) / 0.27577711,
    ]
    assert out[0, :, 0, 1].tolist() == pytest.approx(wanted, rel=1e-5)
    assert out[0, 0, 1, 0].item() == pytest.approx(-0.48145466 / 0.26862954, rel=1e-5)


def test_the_norms_of_other_towers():
    """ImageNet's mean and deviation, as torchvision and timm have them, and one half."""
    assert PIXEL_NORMS["imagenet"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert PIXEL_NORMS["half"] == ((0.5,) * 3, (0.5,) * 3)


def test_the_digest_of_an_image_is_what_it_has_always_been():
    """It decides which images are held out: another one would test on training images."""
    assert image_digest(b"") == 13020603013274838756
    assert image_digest(b"abc") == image_digest(np.frombuffer(b"abc", np.uint8))
    assert image_digest(b"abc") != image_digest(b"abd") and image_digest(b"abc") < 2**64


def draws(count):
    return torch.rand(4, count, generator=torch.Generator().manual_seed(0))


def test_crops_keep_what_they_say():
    gradient = torch.linspace(0, 1, 64).view(1, 1, 1, 64).expand(400, 3, 64, 64)
    out = random_crops(gradient, 0.25, draws(400))
    width = out[:, 0, 0, -1] - out[:, 0, 0, 0]  # share of the width that is kept
    turned = random_crops(gradient.transpose(2, 3), 0.25, draws(400))
    height = turned[:, 0, -1, 0] - turned[:, 0, 0, 0]
    area = width * height
    assert 0.2 < area.min() < 0.35 and area.max() > 0.8
    assert width.min() > 0.4 and (width / height).max() < 4 / 3 + 0.1
    assert (out[:, 0, 0] - out[:, 0, 40]).abs().max() < 1e-5  # upright
    assert (width > 0).all()  # no flips


@pytest.mark.parametrize("smallest", (0.6, 0.9, 0.99))
def test_no_crop_is_smaller_than_was_asked_for(smallest):
    sides = []
    # A gradient from left to right, then one from top to bottom.
    for shape in ((1, 1, 1, 64), (1, 1, 64, 1)):
        gradient = torch.linspace(0, 1, 64).view(shape).expand(400, 3, 64, 64)
        out = random_crops(gradient, smallest, draws(400))
        sides.append(out[:, 0, -1, -1] - out[:, 0, 0, 0])
    area = sides[0] * sides[1]
    assert smallest - 1e-3 < area.min() < smallest + 0.03
    assert max(side.max() for side in sides) < 1 + 1e-4
    assert area.max() > 0.97  # and none is larger than the image


@pytest.fixture
def rectangles():
    """Sides and centres of 2,000 crops, (2, 2000) each: of x, from left to right, and of y.

    The image's pixels are their own coordinates, which say where a crop was taken. From edge to
    edge they run from -1 to 1. A side is a share of the image's.
    """
    line = (2 * torch.arange(64) + 1) / 64 - 1
    image = torch.stack([line.expand(64, 64), line[:, None].expand(64, 64), torch.zeros(64, 64)])
    crops = random_crops(image.expand(2000, -1, -1, -1), 0.25, draws(2000))
    along = torch.stack([crops[:, 0, 32], crops[:, 1, :, 32]])  # (2, 2000, 64)
    # The pixels at the edge of a crop may be those of the image's edge, so look further inside.
    side = (along[..., 47] - along[..., 16]) / (line[47] - line[16])
    return side, (along[..., 31] + along[..., 32]) / 2


def assert_spread_evenly(numbers, low, high):
    evenly = torch.linspace(low, high, len(numbers))
    assert (numbers.sort().values - evenly).abs().max() < 0.04 * (high - low)


def test_the_rectangle_may_lie_anywhere_in_the_image(rectangles):
    side, centre = rectangles
    room = 1 - side  # how far the centre may go to either side
    free = (room > 0.01).all(0)
    place = (centre / room)[:, free]
    for axis in (0, 1):
        assert_spread_evenly(place[axis], -1, 1)
        assert place[axis].abs().max() < 1.001
    assert abs(torch.corrcoef(place)[0, 1]) < 0.05  # one does not decide the other


def test_the_area_and_the_form_of_the_rectangle_are_drawn_evenly(rectangles):
    """Of rectangles of less than half of the area, which no edge of the image cuts off."""
    side, _ = rectangles
    area = side.prod(0)
    small = area < 0.5
    assert small.float().mean().item() == pytest.approx(1 / 3, abs=0.03)  # 1/4 to 1 are drawn
    assert_spread_evenly(area[small], 0.25, 0.5)
    assert_spread_evenly((side[0] / side[1])[small].log(), -math.log(4 / 3), math.log(4 / 3))


def test_an_image_is_scaled_as_pillow_does_it_bicubic():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    wanted = np.asarray(image.resize((16, 16), Image.BICUBIC))
    assert (to_square(image, 16) == wanted).all()
