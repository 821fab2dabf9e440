"""What the tests of benchmarks, reports and search share: painted images, and runs that know them.

An image is of one colour, whose red value is ten times its number. A run that is made to know them
looks its features up, by that number and by the words. So an image or a caption that is taken for
another one changes a score.
"""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from data.common import exit_status


def paint(path, number=0):
    """Write the image with this number, and the folders above it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), (10 * number, 0, 0)).save(path)
    return path


def captions_csv(captions):
    """{number of an image: [(caption, ...)]} -> a.csv, and the images."""
    rows = ["filepath,title"]
    for number, own in captions.items():
        paint(f"{number}.png", number)
        rows += [f'{number}.png,"{caption}"' for caption, *_ in own]
    Path("a.csv").write_text("\n".join(rows) + "\n")
    return "a.csv"


def folders(**classes):
    """class=[numbers of its images] -> an ImageFolder."""
    for name, numbers in classes.items():
        for number in numbers:
            paint(f"z/{name}/{number}.png", number)
    return "z"


def fails(result, *words):
    """One line on stderr that has these words, exit status 2, nothing on stdout."""
    status, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and "Traceback" not in err, result
    assert err.splitlines()[-1:] == lines and not out, result
    assert all(word in lines[0] for word in words), lines[0]


def looks_sane(path, width=1400):
    with Image.open(path) as image:
        assert image.width == width and 200 < image.height < 19_000
        assert len(image.convert("L").getcolors()) > 10  # not a white page


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """The test runs in an empty folder, with a cache of its own."""
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trained(small):
    """The folder of a small run."""
    import train

    train.train(train.Config(method="clip", **small))
    return small["out"]


@pytest.fixture
def known(monkeypatch):
    """Call it with the features of images, by number, and of texts: then every run has these.

    Returns a list that takes the number of every image that is embedded.
    """
    import eval as ev

    seen = []

    def give(image_features, text_features):
        def encode_images(self, images):
            pixels = images.pixels(range(len(images)))
            numbers = [round(int(image[0, 0, 0]) / 10) for image in pixels]
            seen.extend(numbers)
            return torch.tensor([image_features[number] for number in numbers])

        def encode_texts(self, texts):
            return torch.tensor([text_features[text] for text in texts])

        monkeypatch.setattr(ev.Run, "encode_images", encode_images)
        monkeypatch.setattr(ev.Run, "encode_texts", encode_texts)
        return seen

    return give


@pytest.fixture
def command(monkeypatch, capsys):
    """eval.py with these arguments -> (exit status, stdout, stderr)."""
    import eval as ev

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["eval.py", *map(str, argv)])
        capsys.readouterr()
        status = exit_status(ev.main)
        return status, *capsys.readouterr()

    return call
