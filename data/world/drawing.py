"""How a scene looks: from the symbols of shapes.py to pixels.

Read shapes.py first. It says what a scene is, and which words there are. This file needs no more of
a scene than its things, their positions, its background and its key.

    draw(scene)               # PIL image, RGB, 64 x 64
    draw(scene, drawing=1)    # another drawing of the same scene, some pixels away
    layout(scene, drawing=1)  # where that drawing puts the centres of the things

A *drawing* is one rendering of a scene. Its number decides how far the group of things is from the
centre, how large the gaps are, and which part of the background is seen. All drawings show the same
facts.

All lengths are in pixels of an image of side 64, called units. Other sides scale them.
"""

from functools import cache
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from data.world.colours import RGB_OF

# --------------------------------------------------------------------------------------------------
# What the words look like.

SIDE = 64
FINE = 4  # sprites are drawn this many times larger, then shrunk, which smooths their edges

# In units: how far a group of things may stand from the middle of the image.
JITTER = 4
# In units. A large and a medium thing side by side need at most 53 of the 64.
RADIUS = {"large": 14.5, "medium": 10.5, "small": 7.5}


class Ground(NamedTuple):
    """The look of a background: a colour, and boxes of another colour in each cell of 16 x 16."""

    colour: tuple[int, int, int]
    mark: tuple[int, int, int]
    boxes: list[tuple[int, int, int, int]]  # x, y, width, height


# fmt: off
GROUNDS = {
    "plain":  Ground((190, 190, 200), (190, 190, 200), []),
    "grass":  Ground((120, 190,  90), ( 85, 160,  60), [(2, 3, 1, 4), (7, 9, 1, 4), (12, 2, 1, 4),
                                                        (4, 12, 1, 3), (14, 11, 1, 3)]),
    "sand":   Ground((228, 205, 150), (200, 170, 110), [(1, 2, 1, 1), (6, 5, 1, 1), (11, 1, 1, 1),
                                                        (3, 10, 1, 1), (9, 12, 1, 1)]),
    "water":  Ground((150, 190, 235), (105, 150, 215), [(0, 3, 5, 1), (8, 5, 5, 1), (3, 9, 5, 1),
                                                        (11, 13, 5, 1)]),
    "brick":  Ground((190, 110,  90), (225, 205, 190), [(0, 0, 16, 1), (0, 8, 16, 1), (0, 0, 1, 8),
                                                        (8, 8, 1, 8)]),
    "wood":   Ground((190, 150, 105), (150, 108,  70), [(3, 0, 1, 16), (8, 0, 1, 16),
                                                        (14, 0, 1, 16)]),
    "velvet": Ground(( 55,  50,  95), (110, 100, 165), [(3, 4, 1, 1), (11, 2, 1, 1), (7, 11, 1, 1),
                                                        (14, 13, 1, 1)]),
    "snow":   Ground((226, 236, 246), (185, 202, 225), [(3, 1, 1, 3), (2, 2, 3, 1), (11, 9, 1, 3),
                                                        (10, 10, 3, 1)]),
}
# fmt: on


# --------------------------------------------------------------------------------------------------
# Sprites: one image of each thing, made once per size of the image.


def outline(shape: str, r: float) -> list[tuple[float, float]]:
    """Corners of a shape of radius r around (0, 0). A circle and a ring have none."""
    if shape == "square":
        a = 0.85 * r
        return [(-a, -a), (a, -a), (a, a), (-a, a)]
    if shape == "triangle":
        return [(0, -r), (r, 0.8 * r), (-r, 0.8 * r)]
    if shape == "diamond":
        return [(0, -r), (0.7 * r, 0), (0, r), (-0.7 * r, 0)]
    if shape == "cross":
        a = r / 3
        b = 0.95 * r
        upper_right = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
        lower_left = [(a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
        return upper_right + lower_left
    if shape == "star":
        # Ten corners, far from the centre and near to it in turn.
        number = np.arange(10)
        angle = number * np.pi / 5
        distance = np.where(number % 2, 0.45 * r, 1.05 * r)
        return list(zip(distance * np.sin(angle), -distance * np.cos(angle), strict=True))
    if shape == "heart":
        t = np.linspace(0, 2 * np.pi, 40)
        x = r / 16.5 * 16 * np.sin(t) ** 3
        y = -r / 16 * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
        return list(zip(x, y, strict=True))
    raise ValueError(f"shape {shape!r} has no outline")


def mark_colour(colour: str) -> tuple[int, ...]:
    """The colour of a thing's stripes, dots or fields: dark on a light thing, light on a dark."""
    rgb = np.array(RGB_OF[colour])
    brightness = rgb @ (0.3, 0.6, 0.1)  # the eye sees green best and blue least
    mark = rgb * 0.35 if brightness > 105 else rgb * 0.35 + 165
    return tuple(int(channel) for channel in mark)


def paint_texture(
    pen: ImageDraw.ImageDraw, texture: str, mark: tuple[int, ...], box: int, step: float
) -> None:
    """Paint a texture over a square of `box` pixels. Stripes and dots repeat every `step`
    pixels, fields every two steps.
    """
    lines = np.arange(-8, 9) * step + box / 2
    for i, y in enumerate(lines):
        if texture == "striped":
            pen.rectangle([0, y - step / 4, box, y + step / 4 - 1], fill=mark)
        for j, x in enumerate(lines):
            if texture == "dotted":
                r = 0.3 * step
                pen.ellipse([x - r, y - r, x + r, y + r], fill=mark)
            elif texture == "checkered" and (i + j) % 2:
                pen.rectangle([x, y, x + step - 1, y + step - 1], fill=mark)


@cache
def sprite(thing, side: int) -> Image.Image:
    """One thing, alone on a transparent square: PIL RGBA, for images of `side` pixels."""
    unit = side / SIDE * FINE  # pixels of the large drawing in one unit
    r = RADIUS[thing.size] * unit
    half = int(np.ceil(RADIUS[thing.size] * side / SIDE)) + 1  # of the sprite, in final pixels
    box = 2 * half * FINE
    centre = box / 2

    # The mask is white where the thing is.
    mask = Image.new("L", (box, box))
    pen = ImageDraw.Draw(mask)
    if thing.shape in ("circle", "ring"):
        pen.ellipse([centre - r, centre - r, centre + r, centre + r], fill=255)
        if thing.shape == "ring":
            pen.ellipse([centre - r / 2, centre - r / 2, centre + r / 2, centre + r / 2], fill=0)
    else:
        pen.polygon([(centre + x, centre + y) for x, y in outline(thing.shape, r)], fill=255)

    # The face is the thing's colour with its texture, over the whole square.
    face = Image.new("RGB", (box, box), RGB_OF[thing.colour])
    mark = mark_colour(thing.colour)
    paint_texture(ImageDraw.Draw(face), thing.texture, mark, box, step=4 * unit)

    face.putalpha(mask)
    return face.resize((2 * half, 2 * half), Image.BOX)


@cache
def ground_tile(background: str, side: int) -> Image.Image:
    """A background over twice the side of an image. A drawing cuts its own part out of it."""
    ground = GROUNDS[background]
    tile = Image.new("RGB", (2 * SIDE, 2 * SIDE), ground.colour)
    pen = ImageDraw.Draw(tile)
    for left in range(0, 2 * SIDE, 16):
        for top in range(0, 2 * SIDE, 16):
            for x, y, width, height in ground.boxes:
                corner = (left + x, top + y)
                opposite = (left + x + width - 1, top + y + height - 1)
                pen.rectangle([corner, opposite], fill=ground.mark)
    # Lines of one pixel must not get lost where the image becomes smaller.
    return tile.resize((2 * side, 2 * side), Image.BOX if side < SIDE else Image.NEAREST)


# --------------------------------------------------------------------------------------------------
# A scene.


def layout(scene, drawing: int = 0) -> list[tuple[float, float]]:
    """Centres (x, y) of a scene's things in units, jittered from drawing to drawing.

    Things never touch, and all of each thing is inside the image. The group stands in the middle,
    at most JITTER units away. So "left of" is also "in the left half". A small vision transformer
    reads absolute places early, from its position embeddings, and places relative to another thing
    late. With groups anywhere in the image, the demo's towers were still at chance in relations
    when they stopped (docs/results/LOG.md).
    """
    rng = Random(f"{scene.key}/{drawing}")
    radii = [RADIUS[thing.size] for thing in scene.things]

    # Go from each thing to the next: by the two radii and a gap along the axis of the relation, and
    # a little aside on the other axis.
    centres = [(0.0, 0.0)]
    cells = scene.positions()
    for i in range(1, len(cells)):
        step_x = cells[i][0] - cells[i - 1][0]
        step_y = cells[i][1] - cells[i - 1][1]
        distance = radii[i - 1] + radii[i] + rng.uniform(1, 3)
        aside = rng.uniform(-2, 2)
        x, y = centres[-1]
        if step_x:
            centres.append((x + step_x * distance, y + aside))
        else:
            centres.append((x + aside, y + step_y * distance))

    # Then move the whole group to the middle, and a little aside. All of it stays inside.
    shifts = []
    for axis in (0, 1):
        low = min(centre[axis] - r for centre, r in zip(centres, radii, strict=True))
        high = max(centre[axis] + r for centre, r in zip(centres, radii, strict=True))
        shift = SIDE / 2 - (low + high) / 2 + rng.uniform(-JITTER, JITTER)
        shifts.append(min(max(shift, 1 - low), SIDE - 1 - high))
    return [(x + shifts[0], y + shifts[1]) for x, y in centres]


def draw(scene, drawing: int = 0, side: int = SIDE) -> Image.Image:
    """One drawing of a shapes.Scene: PIL RGB, side x side."""
    rng = Random(f"{scene.key}/{drawing}/draw")
    left = rng.randrange(side)
    top = rng.randrange(side)
    image = ground_tile(scene.background, side).crop((left, top, left + side, top + side))
    for thing, (x, y) in zip(scene.things, layout(scene, drawing), strict=True):
        stamp = sprite(thing, side)
        half = stamp.width // 2
        corner = (round(x * side / SIDE) - half, round(y * side / SIDE) - half)
        image.paste(stamp, corner, stamp)
    return image
