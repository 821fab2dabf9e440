"""data/images/pixels.py: squares, crops, digests.

python -m pytest tests/data/images/test_pixels.py
"""

import numpy as np
import pytest
import torch
from PIL import Image

from data.images.pixels import image_digest, normalize_pixels, random_crops, to_square


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
    for number in (-5, 200_000):
        with pytest.raises(ValueError, match="32-bit"):
            to_square(Image.new("I", (9, 9), number), 8)
    for mode in ("L", "P", "CMYK", "1", "LA", "I;16", "I"):
        assert to_square(Image.new(mode, (9, 9)), 8).shape == (8, 8, 3)


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


def test_the_digest_of_an_image_is_what_it_has_always_been():
    """It decides which images are held out: another one would test on training images."""
    assert image_digest(b"") == 13020603013274838756
    assert image_digest(b"abc") == image_digest(np.frombuffer(b"abc", np.uint8))
    assert image_digest(b"abc") != image_digest(b"abd") and image_digest(b"abc") < 2**64


def test_crops_keep_what_they_say():
    gradient = torch.linspace(0, 1, 64).view(1, 1, 1, 64).expand(400, 3, 64, 64)
    out = random_crops(gradient, 0.25, torch.Generator().manual_seed(0))
    width = out[:, 0, 0, -1] - out[:, 0, 0, 0]  # share of the width that is kept
    turned = random_crops(gradient.transpose(2, 3), 0.25, torch.Generator().manual_seed(0))
    height = turned[:, 0, -1, 0] - turned[:, 0, 0, 0]
    area = width * height
    assert 0.2 < area.min() < 0.35 and area.max() > 0.8
    assert width.min() > 0.4 and (width / height).max() < 4 / 3 + 0.1
    assert (out[:, 0, 0] - out[:, 0, 40]).abs().max() < 1e-5  # upright
    assert (width > 0).all()  # no flips
    same = random_crops(gradient, 0.25, torch.Generator().manual_seed(0))
    assert torch.equal(out, same)


@pytest.mark.parametrize("smallest", (0.6, 0.9, 0.99))
def test_no_crop_is_smaller_than_was_asked_for(smallest):
    sides = []
    # A gradient from left to right, then one from top to bottom.
    for shape in ((1, 1, 1, 64), (1, 1, 64, 1)):
        gradient = torch.linspace(0, 1, 64).view(shape).expand(400, 3, 64, 64)
        out = random_crops(gradient, smallest, torch.Generator().manual_seed(0))
        sides.append(out[:, 0, -1, -1] - out[:, 0, 0, 0])
    area = sides[0] * sides[1]
    assert smallest - 1e-3 < area.min() < smallest + 0.03
    assert max(side.max() for side in sides) < 1 + 1e-4
    assert area.max() > 0.97  # and none is larger than the image


def test_the_rectangle_may_lie_anywhere_in_the_image():
    """On an image whose pixels are their own coordinates: they say where a crop was taken."""
    line = (2 * torch.arange(64) + 1) / 64 - 1  # from edge to edge it runs from -1 to 1
    image = torch.stack([line.expand(64, 64), line[:, None].expand(64, 64), torch.zeros(64, 64)])
    crops = random_crops(image.expand(2000, -1, -1, -1), 0.25, torch.Generator().manual_seed(0))
    places = []
    for along in (crops[:, 0, 32], crops[:, 1, :, 32]):  # x from left to right, y downwards
        # The pixels at the edge of a crop may be those of the image's edge, so look further inside.
        side = (along[:, 47] - along[:, 16]) / (line[47] - line[16])
        centre = (along[:, 31] + along[:, 32]) / 2
        room = 1 - side  # how far the centre may go to either side
        places.append((centre / room)[room > 0.01])
    for place in places:
        # Its places are spread evenly from one end of the room to the other.
        evenly = torch.linspace(-1, 1, len(place))
        assert (place.sort().values - evenly).abs().max() < 0.07
        assert place.abs().max() < 1.001
    n = min(map(len, places))
    assert abs(torch.corrcoef(torch.stack([places[0][:n], places[1][:n]]))[0, 1]) < 0.05
