"""data/world/winoground.py: two images, and two captions made of the same words."""

import json

import numpy as np
import pytest
from PIL import Image

from data.benchmarks import winoground
from data.common import BadInput
from data.world.shapes import caption, is_true, make_scenes
from data.world.winoground import build, exchanged


def test_an_exchange_keeps_the_words_and_makes_both_captions_false():
    for scene in make_scenes("test", 200):
        other = exchanged(scene)
        if len(scene.things) == 1:
            assert other is None
        if other is None:
            continue
        assert sorted(caption(other).split()) == sorted(caption(scene).split())
        assert caption(other) != caption(scene)
        assert not is_true(other, scene) and not is_true(scene, other)


def test_nothing_but_the_exchange_tells_the_images_apart(tmp_path):
    build(tmp_path / "out", 20)
    examples = [json.loads(line) for line in (tmp_path / "out/examples.jsonl").open()]
    assert [example["id"] for example in examples] == list(range(20))
    for example in examples:
        images = [
            np.asarray(Image.open(tmp_path / f"out/images/{example[f'image_{i}']}.png"))
            for i in range(2)
        ]
        differs = (images[0] != images[1]).any(axis=2)
        assert differs.any()
        # The ground is the same, and it fills the corner of the image.
        assert not differs[:4, :4].any()


def test_it_is_read_as_winoground_is(tmp_path):
    build(tmp_path / "out", 5)
    task = winoground(tmp_path / "out", image_size=32)
    assert len(task.images) == len(task.winoground_captions) == 10


def test_a_folder_that_is_there_is_not_written_to(tmp_path):
    with pytest.raises(BadInput, match="exists already"):
        build(tmp_path, 5)
