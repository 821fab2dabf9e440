"""A small world of coloured shapes, drawn with Pillow: no download, deterministic in (split, seed, index).

A scene is one to three objects on a background. An object has a shape, a colour, a texture and a size; each next
object stands left of, right of, above or below the one before. Two rules let a viewer of the picture decide the
caption: objects are named from the largest to the smallest, and the sizes, shapes and colours in a scene all
differ. (Without them a caption could name either object first, and what a regression target then says of the
relation is the mean of "left of" and "right of".) A plain texture and a plain background go unsaid.

Train, val and test share every shape and colour but no *pair of objects*: where a red circle meets a blue square in
training, the two meet in no test scene. An object that is alone counts as paired with its background.

    scenes = make_scenes("test", 1000)      # symbolic scenes with distinct captions
    draw(scenes[0], view=0)                 # PIL image, 64 x 64
    caption(scenes[0])                      # "a large striped red circle left of a small blue square on grass"
    paraphrases(scenes[0]), long_caption(scenes[0])
    negatives(scenes[0])                    # {"swap_att": "...", ...}: SugarCrepe's categories, false of the picture

    python -m data.world.shapes sheet.png         # twelve scenes with all their captions, to look at
"""

import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.common import BadInput, run

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "diamond", "ring")
COLOURS = {
    "red": (220, 35, 35),
    "yellow": (250, 220, 30),
    "green": (25, 130, 45),
    "blue": (40, 70, 220),
    "purple": (130, 50, 170),
    "white": (250, 250, 250),
    "black": (20, 20, 20),
    "brown": (125, 75, 35),
    "orange": (255, 140, 0),
    "cyan": (40, 205, 215),
    "pink": (255, 135, 190),
    "grey": (130, 130, 130),
}
TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES = {"large": 14.5, "medium": 10.5, "small": 7.5}  # radius in pixels of a picture of side 64
# name: (ground colour, colour of its pattern, pattern as boxes (x, y, width, height) in a cell of 16 x 16)
BACKGROUNDS = {
    "plain": ((190, 190, 200), (190, 190, 200), []),
    "grass": (
        (120, 190, 90),
        (85, 160, 60),
        [(2, 3, 1, 4), (7, 9, 1, 4), (12, 2, 1, 4), (4, 12, 1, 3), (14, 11, 1, 3)],
    ),
    "sand": (
        (228, 205, 150),
        (200, 170, 110),
        [(1, 2, 1, 1), (6, 5, 1, 1), (11, 1, 1, 1), (3, 10, 1, 1), (9, 12, 1, 1)],
    ),
    "water": (
        (150, 190, 235),
        (105, 150, 215),
        [(0, 3, 5, 1), (8, 5, 5, 1), (3, 9, 5, 1), (11, 13, 5, 1)],
    ),
    "brick": (
        (190, 110, 90),
        (225, 205, 190),
        [(0, 0, 16, 1), (0, 8, 16, 1), (0, 0, 1, 8), (8, 8, 1, 8)],
    ),
    "wood": ((190, 150, 105), (150, 108, 70), [(3, 0, 1, 16), (8, 0, 1, 16), (14, 0, 1, 16)]),
    "velvet": (
        (55, 50, 95),
        (110, 100, 165),
        [(3, 4, 1, 1), (11, 2, 1, 1), (7, 11, 1, 1), (14, 13, 1, 1)],
    ),
    "snow": (
        (226, 236, 246),
        (185, 202, 225),
        [(3, 1, 1, 3), (2, 2, 3, 1), (11, 9, 1, 3), (10, 10, 3, 1)],
    ),
}
RELATIONS = {
    "left of": (-1, 0),
    "right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}  # y grows downwards
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
CATEGORIES = (
    "add_obj",
    "add_att",
    "replace_obj",
    "replace_att",
    "replace_rel",
    "swap_obj",
    "swap_att",
)
SPLITS = ("train", "val", "test")  # (val: no command reads it; for your own trials)

# The dial of difficulty: numbers of colours, textures and backgrounds, and of objects in a scene. InfoNCE asks for
# log2(batch) bits. The simple world has little more, so every fact counts; the rich one has plenty to tell scenes
# apart by, and a model may never need to look at shapes and relations.
WORLDS = {
    "shapes": (6, 2, 4, (1, 2, 2, 2, 2, 3)),
    "shapes-simple": (8, 1, 1, (2,)),
    "shapes-rich": (12, 4, 8, (1, 2, 2, 2, 2, 3)),
    "shapes-pairs": (12, 4, 8, (2,)),
}


@dataclass(frozen=True)
class Thing:
    size: str
    texture: str
    colour: str
    shape: str


@dataclass(frozen=True)
class Scene:
    """things from the largest to the smallest; relations[i] says how things[i] stands to things[i + 1]."""

    things: tuple
    relations: tuple
    background: str
    key: str = ""  # names the scene's random stream: views and negatives are drawn from it

    def positions(self):
        """Cells of the things, (x, y) as whole steps from the first one."""
        cells = [(0, 0)]
        for relation in self.relations:
            dx, dy = RELATIONS[relation]
            cells.append((cells[-1][0] - dx, cells[-1][1] - dy))
        return cells


KINDS = [(colour, shape) for colour in COLOURS for shape in SHAPES]


@lru_cache(1)
def pair_splits():
    """(96 + 8, 96 + 8) symmetric: the split (0 train, 1 val, 2 test) of every pair of kinds, and of kind and background."""
    n = len(KINDS) + len(BACKGROUNDS)
    table = np.random.default_rng(0).choice(3, (n, n), p=(0.8, 0.1, 0.1))
    return np.triu(table) + np.triu(table, 1).T


def classes(world):
    """(names, templates) to classify single objects by: "red circle", ..., and prompts with every size and ground."""
    n_colours, _, n_backgrounds, _ = WORLDS[world]
    grounds = ["" if g == "plain" else f" on {g}" for g in list(BACKGROUNDS)[:n_backgrounds]]
    return (
        [f"{colour} {shape}" for colour, shape in KINDS[: n_colours * len(SHAPES)]],
        [f"a {size} {{}}{ground}" for size in SIZES for ground in grounds],
    )


def make_scene(split, seed, index, world="shapes"):
    """Scene number `index` of a split: a pure function of its arguments."""
    n_colours, n_textures, n_backgrounds, counts = WORLDS[world]
    key = f"{world}/{split}/{seed}/{index}"
    rng = Random(key)
    allowed = pair_splits() == SPLITS.index(split)
    n_kinds = n_colours * len(SHAPES)
    count, ground = rng.choice(counts), rng.randrange(n_backgrounds)
    while True:  # draw objects one by one, each meeting those before only in pairs of this split; restart if stuck
        kinds = []
        while len(kinds) < count:
            choices = [
                k
                for k in range(n_kinds)
                if (count > 1 or allowed[k, len(KINDS) + ground])
                and all(
                    allowed[k, j] and KINDS[k][0] != KINDS[j][0] and KINDS[k][1] != KINDS[j][1]
                    for j in kinds
                )
            ]
            if not choices:
                break
            kinds.append(rng.choice(choices))
        if len(kinds) == count:
            break
    sizes = sorted(rng.sample(list(SIZES), count), key=list(SIZES).index)
    things = tuple(
        Thing(size, rng.choice(TEXTURES[:n_textures]), *KINDS[kind])
        for size, kind in zip(sizes, kinds)
    )
    relations = []
    for _ in range(count - 1):
        relations.append(rng.choice(turns(relations)))
    return Scene(things, tuple(relations), list(BACKGROUNDS)[ground], key)


def turns(relations):
    """What the next relation may be: any at first, then across the last one, so that three objects form a corner."""
    return [
        r for r in RELATIONS if not relations or r not in (relations[-1], OPPOSITE[relations[-1]])
    ]


def make_scenes(split, count, seed=0, world="shapes"):
    """The first `count` scenes of a split with distinct captions, in order of their index."""
    if world not in WORLDS or split not in SPLITS:
        raise BadInput(
            f"world {world!r} or split {split!r} is unknown; choose from {', '.join(WORLDS)} and "
            f"{', '.join(SPLITS)}"
        )
    scenes, seen, index, found = [], set(), 0, 0
    while len(scenes) < count:
        scene = make_scene(split, seed, index, world)
        if (text := caption(scene)) not in seen:
            seen.add(text)
            scenes.append(scene)
            found = index
        elif index > found + 50_000:
            raise BadInput(
                f"{world} has about {len(scenes)} distinct captions in its {split} split, not {count}; ask for "
                "fewer pictures"
            )
        index += 1
    return scenes


# ---------------------------------------------------------------------------------------------------------------
# What is said of a scene.


def phrase(thing, article="a "):
    return article + " ".join(
        w for w in (thing.size, thing.texture, thing.colour, thing.shape) if w != "plain"
    )


def caption(scene):
    """The short caption: every fact of the scene but what is plain."""
    text = phrase(scene.things[0])
    for i, (relation, thing) in enumerate(zip(scene.relations, scene.things[1:])):
        text += f"{', which is' if i else ''} {relation} {phrase(thing)}"
    return text + ("" if scene.background == "plain" else f" on {scene.background}")


def paraphrases(scene):
    """Other ways to say the same, all true: the things in reverse order (the hard one), then in other words."""
    far = {
        "left of": "to the left of",
        "right of": "to the right of",
        "above": "over",
        "below": "under",
    }
    other = {"large": "big", "medium": "mid-sized", "small": "little"}
    things, relations, plain = scene.things, scene.relations, scene.background == "plain"

    def loosely(t):
        return f"a {other[t.size]} {t.shape}, {t.colour}" + (
            f" and {t.texture}" if t.texture != "plain" else ""
        )

    texts = []
    if relations:
        back = replace(
            scene, things=things[::-1], relations=tuple(OPPOSITE[r] for r in relations[::-1])
        )
        texts.append(caption(back))
    texts.append(
        ("" if plain else f"on {scene.background}, ")
        + "there is "
        + phrase(things[0])
        + "".join(f" {far[r]} {phrase(t)}" for r, t in zip(relations, things[1:]))
    )
    texts.append(
        loosely(things[0])
        + "".join(f", {far[r]} {loosely(t)}" for r, t in zip(relations, things[1:]))
        + ("" if plain else f", seen on {scene.background}")
    )
    texts.append(
        " ".join(
            [phrase(t) + "." for t in things]
            + [
                f"the {a.shape} is {r} the {b.shape}."
                for a, r, b in zip(things, relations, things[1:])
            ]
            + ([] if plain else [f"{scene.background} all around."])
        )
    )
    return texts


def long_caption(scene):
    """A dense caption of 60 to 150 words: every fact of the scene, each said in a sentence of its own."""
    rng = Random(scene.key + "/long")
    things, count = (
        scene.things,
        ("one object", "two objects", "three objects")[len(scene.things) - 1],
    )
    verb = "is" if len(things) == 1 else "are"
    ground = (
        "a plain background without any pattern"
        if scene.background == "plain"
        else scene.background
    )
    text = [
        rng.choice(
            [
                f"This picture shows {count}, drawn on {ground}.",
                f"There {verb} {count} here, on {ground}.",
            ]
        )
    ]
    for i, t in enumerate(things):
        rank = (
            ("The first and largest of them", "The next in size", "The last and smallest")[i]
            if len(things) > 1
            else "The only thing to be seen"
        )
        surface = (
            "its surface is plain, without any pattern"
            if t.texture == "plain"
            else f"its surface is {t.texture}"
        )
        text.append(
            rng.choice(
                [
                    f"{rank} is a {t.size} {t.shape}; its colour is {t.colour} and {surface}.",
                    f"{rank} is a {t.shape} of {t.size} size, coloured {t.colour}, and {surface}.",
                ]
            )
        )
    for a, relation, b in zip(things, scene.relations, things[1:]):
        text.append(
            f"The {a.colour} {a.shape} stands {relation} the {b.colour} {b.shape}, so that, seen the other way "
            f"round, the {b.shape} is {OPPOSITE[relation]} the {a.shape}."
        )
    if len(things) == 1:
        text.append(
            f"Nothing stands beside it, neither left nor right of it, and nothing is above or below the "
            f"{things[0].colour} {things[0].shape}."
        )
    text.append(
        f"Everything around {'it' if len(things) == 1 else 'them'} is {ground}, and apart from what was named "
        "there is nothing else in the whole picture."
    )
    return " ".join(text)


def is_true(claim, scene):
    """Whether a claim, itself written as a Scene, may be read as true of a scene; what is plain in it claims nothing.

    True if the claim's things can be matched with different things of the scene such that all that is said holds.
    Between things that are not neighbours a relation counts as true when it holds along its axis, even aslant.
    """
    if claim.background not in ("plain", scene.background):
        return False
    cells = scene.positions()

    def fits(said, seen):
        return (said.size, said.colour, said.shape) == (
            seen.size,
            seen.colour,
            seen.shape,
        ) and said.texture in ("plain", seen.texture)

    def holds(relation, a, b):  # a and b are indices of the scene's things
        return sum(v * (p - q) for v, p, q in zip(RELATIONS[relation], cells[a], cells[b])) > 0

    return any(
        all(fits(said, scene.things[i]) for said, i in zip(claim.things, match))
        and all(holds(r, a, b) for r, a, b in zip(claim.relations, match, match[1:]))
        for match in permutations(range(len(scene.things)), len(claim.things))
    )


def negatives(scene):
    """One false caption in each of SugarCrepe's categories that the scene allows: {category: text}.

    Each is the caption of an edited scene, so it is as natural as a true one and obeys the same naming rule. One
    object has nothing to swap; three take no fourth; where all is textured, no attribute can be added.
    (Hsieh et al. 2023, arXiv 2306.14610)
    """
    rng = Random(scene.key + "/negatives")
    things, n = scene.things, len(scene.things)
    world = scene.key.split("/")[0] or "shapes"
    n_colours, n_textures, n_backgrounds, _ = WORLDS[world]
    textures, grounds = TEXTURES[1:n_textures], list(BACKGROUNDS)[1:n_backgrounds]
    new_colours = [c for c in list(COLOURS)[:n_colours] if c not in {t.colour for t in things}]
    new_shapes = [s for s in SHAPES if s not in {t.shape for t in things}]

    def edit(i, **changes):
        return replace(scene, things=(*things[:i], replace(things[i], **changes), *things[i + 1 :]))

    def swap(i, what):  # things i and i + 1 exchange one attribute
        a, b = getattr(things[i], what), getattr(things[i + 1], what)
        swapped = edit(i, **{what: b})
        return replace(
            swapped,
            things=(
                *swapped.things[: i + 1],
                replace(things[i + 1], **{what: a}),
                *things[i + 2 :],
            ),
        )

    edits = {category: [] for category in CATEGORIES}
    for size in SIZES:
        if n < 3 and size not in {t.size for t in things}:
            new = Thing(
                size,
                rng.choice(TEXTURES[:n_textures]),
                rng.choice(new_colours),
                rng.choice(new_shapes),
            )
            more = tuple(sorted((*things, new), key=lambda t: list(SIZES).index(t.size)))
            edits["add_obj"].append(
                replace(
                    scene,
                    things=more,
                    relations=(*scene.relations, rng.choice(turns(scene.relations))),
                )
            )
    edits["add_att"] += [
        edit(i, texture=t) for i in range(n) if things[i].texture == "plain" for t in textures
    ]
    edits["add_att"] += [
        replace(scene, background=g) for g in grounds if scene.background == "plain"
    ]
    for i in range(n):
        edits["replace_obj"] += [edit(i, shape=s) for s in new_shapes]
        edits["replace_att"] += [edit(i, colour=c) for c in new_colours]
        edits["replace_att"] += [
            edit(i, texture=t) for t in textures if things[i].texture not in ("plain", t)
        ]
    for i, relation in enumerate(scene.relations):
        turned = (*scene.relations[:i], OPPOSITE[relation], *scene.relations[i + 1 :])
        edits["replace_rel"].append(replace(scene, relations=turned))
        edits["swap_obj"].append(swap(i, "shape"))
        edits["swap_att"].append(swap(i, "colour"))
        if things[i].texture != things[i + 1].texture:
            edits["swap_att"].append(swap(i, "texture"))
    chosen = {category: rng.choice(some) for category, some in edits.items() if some}
    return {
        category: caption(false) for category, false in chosen.items() if not is_true(false, scene)
    }


# ---------------------------------------------------------------------------------------------------------------
# Drawing.


def _outline(shape, r):
    """Corners of a shape of radius r around (0, 0), for those that are polygons."""
    if shape == "square":
        return [
            (-0.85 * r, -0.85 * r),
            (0.85 * r, -0.85 * r),
            (0.85 * r, 0.85 * r),
            (-0.85 * r, 0.85 * r),
        ]
    if shape == "triangle":
        return [(0, -r), (r, 0.8 * r), (-r, 0.8 * r)]
    if shape == "diamond":
        return [(0, -r), (0.7 * r, 0), (0, r), (-0.7 * r, 0)]
    if shape == "cross":
        a, b = r / 3, 0.95 * r
        return [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
    if shape == "star":
        angles = np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2, 0.45 * r, 1.05 * r)
        return list(zip(radii * np.sin(angles), -radii * np.cos(angles)))
    t = np.linspace(0, 2 * np.pi, 40)  # heart
    return list(
        zip(
            r / 16.5 * 16 * np.sin(t) ** 3,
            -r / 16 * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)),
        )
    )


FINE = 4  # sprites are drawn this many times larger and shrunk, which smooths their edges


@lru_cache(None)
def _sprite(thing, side):
    """RGBA picture of one thing, for pictures of `side` pixels."""
    unit = side / 64 * FINE  # pixels of the large drawing per pixel of a picture of side 64
    r = SIZES[thing.size] * unit
    half = int(np.ceil(SIZES[thing.size] * side / 64)) + 1  # of the sprite, in final pixels
    box = 2 * half * FINE
    mask = Image.new("L", (box, box))
    draw = ImageDraw.Draw(mask)
    centre = box / 2
    if thing.shape in ("circle", "ring"):
        draw.ellipse([centre - r, centre - r, centre + r, centre + r], fill=255)
        if thing.shape == "ring":
            draw.ellipse([centre - r / 2, centre - r / 2, centre + r / 2, centre + r / 2], fill=0)
    else:
        draw.polygon([(centre + x, centre + y) for x, y in _outline(thing.shape, r)], fill=255)
    colour = np.array(COLOURS[thing.colour])
    light = colour @ (0.3, 0.6, 0.1) > 105
    mark = tuple(
        int(c) for c in (colour * 0.35 if light else colour * 0.35 + 165)
    )  # dark on light, light on dark
    face = Image.new("RGB", (box, box), COLOURS[thing.colour])
    draw = ImageDraw.Draw(face)
    step = 4 * unit
    lines = np.arange(-8, 9) * step + centre
    for i, y in enumerate(lines):
        if thing.texture == "striped":
            draw.rectangle([0, y - step / 4, box, y + step / 4 - 1], fill=mark)
        for j, x in enumerate(lines):
            if thing.texture == "dotted":
                draw.ellipse(
                    [x - 0.3 * step, y - 0.3 * step, x + 0.3 * step, y + 0.3 * step], fill=mark
                )
            if thing.texture == "checkered" and (i + j) % 2:
                draw.rectangle([x, y, x + step - 1, y + step - 1], fill=mark)
    face.putalpha(mask)
    return face.resize((2 * half, 2 * half), Image.BOX)


@lru_cache(None)
def _ground(background, side):
    """The background's pattern over twice the picture's side; views cut out a part of it."""
    base, mark, boxes = BACKGROUNDS[background]
    tile = Image.new("RGB", (128, 128), base)
    draw = ImageDraw.Draw(tile)
    for cx in range(0, 128, 16):
        for cy in range(0, 128, 16):
            for x, y, w, h in boxes:
                draw.rectangle([cx + x, cy + y, cx + x + w - 1, cy + y + h - 1], fill=mark)
    return tile.resize((2 * side, 2 * side), Image.BOX if side < 64 else Image.NEAREST)


def layout(scene, view=0):
    """Centres of the things, (n, 2) in pixels of a picture of side 64, jittered from view to view."""
    rng = Random(f"{scene.key}/{view}")
    radii = [SIZES[t.size] for t in scene.things]
    centres = [(0.0, 0.0)]
    for i, relation in enumerate(scene.relations):
        dx, dy = RELATIONS[relation]
        gap = radii[i] + radii[i + 1] + rng.uniform(1, 3)
        aside = rng.uniform(-2, 2)
        x, y = centres[-1]
        centres.append(
            (x - dx * gap + (aside if dx == 0 else 0), y - dy * gap + (aside if dy == 0 else 0))
        )
    out = []
    for axis in (0, 1):  # shift the whole group to a random place where all of it is inside
        low = min(c[axis] - r for c, r in zip(centres, radii))
        high = max(c[axis] + r for c, r in zip(centres, radii))
        shift = rng.uniform(1 - low, 63 - high)
        out.append([c[axis] + shift for c in centres])
    return list(zip(*out))


def draw(scene, view=0, side=64):
    """The picture of a scene: PIL RGB of side x side. ImageViews differ in place and background offset."""
    rng = Random(f"{scene.key}/{view}/draw")
    x, y = rng.randrange(side), rng.randrange(side)
    picture = _ground(scene.background, side).crop((x, y, x + side, y + side))
    for thing, (cx, cy) in zip(scene.things, layout(scene, view)):
        sprite = _sprite(thing, side)
        half = sprite.width // 2
        picture.paste(sprite, (round(cx * side / 64) - half, round(cy * side / 64) - half), sprite)
    return picture


def main():
    if len(sys.argv) != 2 or not sys.argv[1].endswith(".png"):
        raise BadInput("usage: python -m data.world.shapes OUT.png")
    sheet = Image.new("RGB", (1400, 12 * 225), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for row, scene in enumerate(make_scenes("test", 12)):
        sheet.paste(draw(scene, 0, 192), (10, 225 * row + 10))
        sheet.paste(draw(scene, 1), (210, 225 * row + 10))
        lines = [
            caption(scene),
            *(f"= {p}" for p in paraphrases(scene)),
            *(f"{k}: {v}" for k, v in negatives(scene).items()),
        ]
        pen.text((290, 225 * row + 10), "\n".join(lines), fill="black", font=font)
    sheet.save(sys.argv[1])
    print(
        f"wrote {sys.argv[1]}: twelve test scenes in two views; = marks other true captions, the rest are false ones by kind"
    )


if __name__ == "__main__":
    sys.exit(run(main))
