"""data/world/winoground.py: two images, and two captions made of the same words."""

import json

import numpy as np
import pytest
from PIL import Image

from data.benchmarks import winoground
from data.common import BadInput
from data.world.drawing import draw
from data.world.shapes import caption, is_true, make_scenes
from data.world.winoground import build, exchanged


def words(text):
    return sorted(text.replace(",", "").split())


def test_an_exchange_keeps_the_words_and_makes_both_captions_false():
    kinds = set()
    for scene in make_scenes("test", 200):
        other = exchanged(scene)
        assert (other is None) == (len(scene.things) == 1)
        if other:
            assert words(caption(other)) == words(caption(scene))
            assert caption(other) != caption(scene)
            assert not is_true(other, scene) and not is_true(scene, other)
            pairs = zip(scene.things, other.things, strict=True)
            changed = {name for a, b in pairs for name in vars(a) if vars(a)[name] != vars(b)[name]}
            assert len(changed) == 1
            kinds.add((*changed, len(scene.things)))
    # Each kind of exchange comes with two things and with three.
    assert kinds == {(name, n) for name in ("shape", "colour", "texture") for n in (2, 3)}


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
    scenes = [scene for scene in make_scenes("test", 10) if exchanged(scene)][:5]
    shown = [each for scene in scenes for each in (scene, exchanged(scene))]
    assert task.winoground_captions == [caption(scene) for scene in shown]
    for i, scene in enumerate(shown):
        name = f"out/images/ex_{i // 2}_img_{i % 2}.png"
        assert np.array_equal(Image.open(tmp_path / name), draw(scene, side=128))


def test_a_folder_that_is_there_is_not_written_to(tmp_path):
    with pytest.raises(BadInput, match="exists already"):
        build(tmp_path, 5)
