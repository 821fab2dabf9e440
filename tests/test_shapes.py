"""data/shapes.py: what captions say is read back from their words and held against the scene and the picture.

    python -m pytest tests/test_shapes.py

The reader below shares no code with shapes.is_true: it parses words and looks at where the things were drawn.
"""

import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from PIL import ImageChops

from data.common import BadInput
from data.world import shapes

SCENES = [s for world in shapes.WORLDS for s in shapes.make_scenes("test", 300, world=world)]
PHRASE = re.compile(
    rf"a (large|medium|small) (?:(striped|dotted|checkered) )?({'|'.join(shapes.COLOURS)}) ({'|'.join(shapes.SHAPES)})"
)
AXIS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def parse(text):
    """A caption in the short form -> (things, relations between neighbours, background)."""
    things = PHRASE.findall(text)
    relations = re.findall(r"left of|right of|above|below", text)
    ground = re.search(r" on (\w+)$", text)
    assert len(relations) == len(things) - 1
    return things, relations, ground and ground[1]


def true_of_picture(text, scene):
    """Does some way to match the words with the drawn things make all that is said true?"""
    things, relations, ground = parse(text)
    if ground and ground != scene.background:
        return False
    drawn, where = scene.things, shapes.layout(scene, view=1)
    for match in permutations(range(len(drawn)), len(things)):
        same = all(
            (drawn[i].size, drawn[i].colour, drawn[i].shape) == (size, colour, shape)
            and texture in ("", drawn[i].texture)
            for i, (size, texture, colour, shape) in zip(match, things)
        )
        if same and all(
            sign * (where[a][axis] - where[b][axis]) > 3
            for (axis, sign), a, b in zip((AXIS[r] for r in relations), match, match[1:])
        ):
            return True
    return False


def test_short_captions_are_true_and_say_everything():
    for scene in SCENES:
        text = shapes.caption(scene)
        assert true_of_picture(text, scene), text
        things, relations, ground = parse(text)
        assert things == [
            (t.size, t.texture.replace("plain", ""), t.colour, t.shape) for t in scene.things
        ]
        assert (ground or "plain") == scene.background and relations == list(scene.relations)


def test_the_larger_is_named_first_and_nothing_is_said_twice():
    for scene in SCENES:
        radii = [shapes.SIZES[t.size] for t in scene.things]
        assert radii == sorted(radii, reverse=True)
        for what in ("size", "shape", "colour"):
            assert len({getattr(t, what) for t in scene.things}) == len(scene.things)


def test_every_negative_is_false_of_the_picture():
    count = dict.fromkeys(shapes.CATEGORIES, 0)
    for scene in SCENES:
        for kind, text in shapes.negatives(scene).items():
            assert not true_of_picture(text, scene), (kind, shapes.caption(scene), text)
            count[kind] += 1
            radii = [shapes.SIZES[size] for size, *_ in parse(text)[0]]
            assert radii == sorted(
                radii, reverse=True
            )  # no negative is told by its broken naming rule
    assert min(count.values()) > 300
    several = [s for s in SCENES if len(s.things) == 2 and s.key.startswith("shapes-rich/")]
    assert all(
        {"replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att", "add_obj"}
        <= shapes.negatives(s).keys()
        for s in several
    )


def test_negatives_change_what_their_category_says():
    for scene in SCENES:
        (things, relations, ground), n = parse(shapes.caption(scene)), len(scene.things)
        for kind, text in shapes.negatives(scene).items():
            others, relations2, ground2 = parse(text)
            colours, shapes_, textures = (
                [sorted(t[i] for t in side) for side in (things, others)] for i in (2, 3, 1)
            )
            if kind == "add_obj":
                assert len(others) == n + 1 and set(things) < set(others)
            elif kind == "add_att":
                added = sum(not a[1] and bool(b[1]) for a, b in zip(things, others)) + (
                    ground is None and ground2 is not None
                )
                assert added == 1 and relations2 == relations
            elif kind == "replace_rel":
                assert others == things and sum(a != b for a, b in zip(relations, relations2)) == 1
            elif kind.startswith("swap"):
                assert (
                    colours[0] == colours[1]
                    and shapes_[0] == shapes_[1]
                    and textures[0] == textures[1]
                )
                assert others != things and relations2 == relations
                assert ([t[3] for t in things] != [t[3] for t in others]) == (kind == "swap_obj")
            else:
                assert sum(a != b for a, b in zip(things, others)) == 1 and relations2 == relations


def test_paraphrases_are_true_and_different():
    other = {
        "big": "large",
        "mid-sized": "medium",
        "little": "small",
        "to the left of": "left of",
        "over": "above",
        "to the right of": "right of",
        "under": "below",
    }
    for scene in SCENES:
        texts = shapes.paraphrases(scene)
        assert len(set(texts) | {shapes.caption(scene)}) == len(texts) + 1 and len(texts) >= 3
        if scene.relations:
            assert (
                true_of_picture(texts[0], scene)
                and parse(texts[0])[0] == parse(shapes.caption(scene))[0][::-1]
            )
        for text in texts[-3:]:
            for loose, strict in other.items():
                text = text.replace(f"{loose} ", f"{strict} ")
            for t in scene.things:
                assert all(
                    text.count(w) >= 1
                    for w in (t.size, t.colour, t.shape, t.texture)
                    if w != "plain"
                ), text
            assert scene.background in (*text.replace(",", "").split(), "plain")
            assert [r for r in re.findall(r"left of|right of|above|below", text)] == list(
                scene.relations
            )


def test_long_captions_have_60_to_150_words_and_every_fact():
    for scene in SCENES:
        text = shapes.long_caption(scene)
        assert 60 <= len(text.split()) <= 150
        for t in scene.things:
            assert all(w in text for w in (t.size, t.colour, t.shape, t.texture))
        assert scene.background in text
        for a, r, b in zip(scene.things, scene.relations, scene.things[1:]):
            assert f"The {a.colour} {a.shape} stands {r} the {b.colour} {b.shape}" in text
            assert f"the {b.shape} is {shapes.OPPOSITE[r]} the {a.shape}" in text


def pairs(scene):
    kinds = [(t.colour, t.shape) for t in scene.things]
    return (
        {frozenset((a, b)) for i, a in enumerate(kinds) for b in kinds[i + 1 :]}
        if len(kinds) > 1
        else {(*kinds, scene.background)}
    )


def test_splits_share_kinds_but_no_pair_of_objects():
    seen = {
        split: set().union(*(pairs(s) for s in shapes.make_scenes(split, 2000)))
        for split in shapes.SPLITS
    }
    assert (
        not seen["train"] & seen["test"]
        and not seen["train"] & seen["val"]
        and not seen["val"] & seen["test"]
    )
    alone = {
        split: {kind for kind, _ in (p for p in seen[split] if isinstance(p, tuple))}
        for split in seen
    }
    assert (
        len(alone["train"]) == 48 and len(alone["test"]) > 10
    )  # kinds are shared, alone and in company
    assert set().union(*(p for p in seen["test"] if isinstance(p, frozenset))) <= alone["train"]


def test_deterministic_in_seed_and_index():
    a, b = shapes.make_scenes("train", 50), shapes.make_scenes("train", 80)[:50]
    assert a == b and a != shapes.make_scenes("train", 50, seed=1)
    assert len({shapes.caption(s) for s in shapes.make_scenes("test", 1000)}) == 1000
    one, two = shapes.draw(a[0], 0), shapes.draw(a[0], 0)
    assert one.tobytes() == two.tobytes() != shapes.draw(a[0], 1).tobytes() and one.size == (64, 64)
    assert shapes.draw(a[0], 0, side=96).size == (96, 96)
    with pytest.raises(BadInput):
        shapes.make_scenes("test", 1, world="shape")


def test_the_picture_shows_what_the_scene_says():
    """At every thing's centre (a ring's rim) its colour or its pattern's; everything inside the frame."""
    for scene in SCENES[:300]:
        pixels = np.asarray(shapes.draw(scene, 1)).astype(int)
        for t, (x, y) in zip(scene.things, shapes.layout(scene, 1)):
            r = shapes.SIZES[t.size]
            assert r <= x <= 64 - r and r <= y <= 64 - r
            patch = pixels[
                int(y - r / 2) : int(y + r / 2) + 1, int(x - r) : int(x + r) + 1
            ].reshape(-1, 3)
            assert np.abs(patch - shapes.COLOURS[t.colour]).sum(1).min() < 60, (t, scene.key)
        for a in range(len(scene.things)):  # things do not touch
            for b in range(a):
                (xa, ya), (xb, yb) = (shapes.layout(scene, 1)[i] for i in (a, b))
                assert (
                    max(abs(xa - xb), abs(ya - yb))
                    >= shapes.SIZES[scene.things[a].size] + shapes.SIZES[scene.things[b].size]
                )


def test_textures_and_backgrounds_are_visible():
    for thing in (
        shapes.Thing("small", "plain", c, s) for c in shapes.COLOURS for s in shapes.SHAPES
    ):
        looks = [
            shapes._sprite(shapes.replace(thing, texture=t), 64).convert("RGB")
            for t in shapes.TEXTURES
        ]
        for i, a in enumerate(looks):
            for b in looks[:i]:
                assert np.asarray(ImageChops.difference(a, b)).max() > 60
    grounds = [np.asarray(shapes._ground(g, 64)).mean((0, 1)) for g in shapes.BACKGROUNDS]
    assert min(np.abs(a - b).sum() for i, a in enumerate(grounds) for b in grounds[:i]) > 25


def test_every_attribute_is_drawn():
    """Change one attribute of a scene and its picture changes; a larger size covers more; shapes have their areas."""
    scene = next(s for s in SCENES if len(s.things) == 1 and s.background == "grass")
    thing = scene.things[0]

    def look(**changes):
        things = (replace(thing, **{k: v for k, v in changes.items() if k != "background"}),)
        return np.asarray(
            shapes.draw(
                replace(scene, things=things, background=changes.get("background", "grass"))
            )
        ).astype(int)

    for what, values in (
        ("shape", shapes.SHAPES),
        ("colour", shapes.COLOURS),
        ("texture", shapes.TEXTURES),
        ("size", shapes.SIZES),
        ("background", shapes.BACKGROUNDS),
    ):
        looks = [look(**{what: v}) for v in values]
        for i, a in enumerate(looks):
            assert all((np.abs(a - b).sum(2) > 40).sum() > 8 for b in looks[:i]), what
    covered = [
        (np.asarray(shapes._sprite(replace(thing, size=s, shape="circle"), 64))[..., 3] / 255).sum()
        for s in shapes.SIZES
    ]
    assert covered == pytest.approx([np.pi * r**2 for r in shapes.SIZES.values()], rel=0.05)
    square = (
        np.asarray(shapes._sprite(replace(thing, size="large", shape="square"), 64))[..., 3] / 255
    ).sum()
    assert square == pytest.approx((2 * 0.85 * 14.5) ** 2, rel=0.05)
