"""data/world/drawing.py: the image shows what the scene says.

python -m pytest tests/data/world/test_drawing.py
"""

from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageChops

from data.world import drawing, shapes
from data.world.colours import BASIC, RGB_OF

SCENES = [
    scene for world in shapes.WORLDS for scene in shapes.make_scenes("test", 300, world=world)
]


def test_every_word_has_a_look():
    assert list(drawing.RADIUS) == list(shapes.SIZES)
    assert list(drawing.GROUNDS) == list(shapes.BACKGROUNDS)
    with pytest.raises(ValueError, match="hexagon"):
        drawing.outline("hexagon", 1.0)


def test_drawings_are_deterministic_and_differ():
    scene = shapes.make_scenes("train", 1)[0]
    first = drawing.draw(scene, 0)
    assert first.size == (64, 64)
    assert first.tobytes() == drawing.draw(scene, 0).tobytes()
    assert first.tobytes() != drawing.draw(scene, 1).tobytes()
    assert drawing.draw(scene, 0, side=96).size == (96, 96)


def test_the_image_shows_what_the_scene_says():
    """At every thing's centre (a ring's rim) is its colour or its mark's; all inside the frame."""
    for scene in SCENES[:300]:
        pixels = np.asarray(drawing.draw(scene, 1)).astype(int)
        centres = drawing.layout(scene, 1)
        radii = [drawing.RADIUS[thing.size] for thing in scene.things]
        for thing, (x, y), r in zip(scene.things, centres, radii, strict=True):
            assert r <= x <= 64 - r and r <= y <= 64 - r
            rows = slice(int(y - r / 2), int(y + r / 2) + 1)
            columns = slice(int(x - r), int(x + r) + 1)
            patch = pixels[rows, columns].reshape(-1, 3)
            distance = np.abs(patch - RGB_OF[thing.colour]).sum(1)
            assert distance.min() < 60, (thing, scene.key)
        for a in range(len(radii)):  # things do not touch
            for b in range(a):
                (xa, ya), (xb, yb) = centres[a], centres[b]
                assert max(abs(xa - xb), abs(ya - yb)) >= radii[a] + radii[b]


def test_textures_and_backgrounds_are_visible():
    for colour in BASIC:
        for shape in shapes.SHAPES:
            looks = [
                drawing.sprite(shapes.Thing("small", texture, colour, shape), 64).convert("RGB")
                for texture in shapes.TEXTURES
            ]
            for i, one in enumerate(looks):
                for other in looks[:i]:
                    assert np.asarray(ImageChops.difference(one, other)).max() > 60
    grounds = [
        np.asarray(drawing.ground_tile(name, 64)).mean((0, 1)) for name in shapes.BACKGROUNDS
    ]
    distances = [np.abs(a - b).sum() for i, a in enumerate(grounds) for b in grounds[:i]]
    assert min(distances) > 25


def covered(thing, **changes):
    """How many pixels a thing covers in an image of side 64."""
    alpha = np.asarray(drawing.sprite(replace(thing, **changes), 64))[..., 3]
    return (alpha / 255).sum()


def test_every_attribute_is_drawn():
    """Change one attribute of a scene and its image changes. Sizes and shapes have their areas."""
    scene = next(s for s in SCENES if len(s.things) == 1 and s.background == "grass")
    thing = scene.things[0]

    def image_of(scene):
        return np.asarray(drawing.draw(scene)).astype(int)

    for attribute, values in (
        ("shape", shapes.SHAPES),
        ("colour", list(BASIC)),
        ("texture", shapes.TEXTURES),
        ("size", shapes.SIZES),
        ("background", shapes.BACKGROUNDS),
    ):
        if attribute == "background":
            edited = [replace(scene, background=value) for value in values]
        else:
            edited = [replace(scene, things=(replace(thing, **{attribute: v}),)) for v in values]
        images = [image_of(s) for s in edited]
        for i, a in enumerate(images):
            changed = [(np.abs(a - b).sum(2) > 40).sum() for b in images[:i]]
            assert all(number > 8 for number in changed), attribute

    circles = [covered(thing, size=size, shape="circle") for size in shapes.SIZES]
    assert circles == pytest.approx([np.pi * r**2 for r in drawing.RADIUS.values()], rel=0.05)
    square = covered(thing, size="large", shape="square")
    assert square == pytest.approx((2 * 0.85 * 14.5) ** 2, rel=0.05)
