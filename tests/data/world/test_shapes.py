"""data/world/shapes.py: captions are read back from their words and held against scene and image.

    python -m pytest tests/data/world/test_shapes.py

The reader below shares no code with shapes.is_true: it parses words and looks at where the things
were drawn.
"""

import re
from itertools import permutations

import numpy as np
import pytest

from data.common import BadInput
from data.files.llm import fetch_default, read_llm
from data.world import colours, drawing, shapes

SCENES = [
    scene for world in shapes.WORLDS for scene in shapes.make_scenes("test", 300, world=world)
]
PHRASE = re.compile(
    r"a (large|medium|small) (?:(striped|dotted|checkered) )?"
    rf"({'|'.join(shapes.COLOURS)}) ({'|'.join(shapes.SHAPES)})"
)
RELATION = re.compile("left of|right of|above|below")
# relation: (axis, sign of the difference between the two centres)
AXIS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def parse(text):
    """A caption in the short form -> (things, relations between neighbours, background or None)."""
    things = PHRASE.findall(text)
    relations = RELATION.findall(text)
    background = re.search(r" on (\w+)$", text)
    assert len(relations) == len(things) - 1
    return things, relations, background and background[1]


def true_of_image(text, scene):
    """Does some way to match the words with the drawn things make everything in the text true?"""
    things, relations, background = parse(text)
    if background and background != scene.background:
        return False
    drawn = scene.things
    centres = drawing.layout(scene, drawing=1)

    def looks(number, thing):
        size, texture, colour, shape = thing
        there = drawn[number]
        return (there.size, there.colour, there.shape) == (size, colour, shape) and texture in (
            "",
            there.texture,
        )

    def stands(relation, first, second):
        axis, sign = AXIS[relation]
        return sign * (centres[first][axis] - centres[second][axis]) > 3

    for match in permutations(range(len(drawn)), len(things)):
        if all(map(looks, match, things)) and all(map(stands, relations, match, match[1:])):
            return True
    return False


def radii_of(things):
    return [drawing.RADIUS[size] for size, *_ in things]


def test_short_captions_are_true_and_say_everything():
    for scene in SCENES:
        text = shapes.caption(scene)
        assert true_of_image(text, scene), text
        things, relations, background = parse(text)
        assert things == [
            (t.size, t.texture.replace("plain", ""), t.colour, t.shape) for t in scene.things
        ]
        assert (background or "plain") == scene.background
        assert relations == list(scene.relations)


def test_the_example_at_the_head_of_the_file():
    scene = shapes.make_scenes("test", 41)[40]
    assert scene == shapes.Scene(
        things=(
            shapes.Thing("medium", "plain", "hot pink", "star"),
            shapes.Thing("small", "striped", "brown", "diamond"),
        ),
        relations=("right of",),
        background="grass",
        key="shapes/test/0/40",
    )
    text = " ".join(shapes.__doc__.split())
    assert f"what is plain: {shapes.caption(scene)} other_words" in text
    false_captions = shapes.negatives(scene)
    assert list(false_captions) == list(shapes.CATEGORIES)
    for category, false in false_captions.items():
        assert f"{category} {false} " in text, category
    listed = " ".join(shapes.other_words.__doc__.split())
    for kind, text in shapes.other_words(scene).items():
        assert f" {kind} {text} " in listed
    true, false = shapes.half_truth(scene)
    assert f'"{true}", "{false}"' in " ".join(shapes.half_truth.__doc__.split())


def test_the_larger_is_named_first_and_no_two_things_share_a_word():
    for scene in SCENES:
        radii = [drawing.RADIUS[t.size] for t in scene.things]
        assert radii == sorted(radii, reverse=True)
        for attribute in ("size", "shape", "colour"):
            assert len({getattr(t, attribute) for t in scene.things}) == len(scene.things)


def test_every_negative_is_false_of_the_image():
    count = dict.fromkeys(shapes.CATEGORIES, 0)
    for scene in SCENES:
        for category, text in shapes.negatives(scene).items():
            assert not true_of_image(text, scene), (category, shapes.caption(scene), text)
            count[category] += 1
            # No negative is told by a broken rule of naming.
            radii = radii_of(parse(text)[0])
            assert radii == sorted(radii, reverse=True)
    assert min(count.values()) > 300

    always = {"replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att", "add_obj"}
    two_things = [s for s in SCENES if len(s.things) == 2 and s.key.startswith("shapes-rich/")]
    assert all(always <= shapes.negatives(scene).keys() for scene in two_things)


def test_negatives_change_what_their_category_says():
    for scene in SCENES:
        things, relations, background = parse(shapes.caption(scene))
        for category, text in shapes.negatives(scene).items():
            false_things, false_relations, false_background = parse(text)
            if category == "add_obj":
                assert len(false_things) == len(things) + 1 and set(things) < set(false_things)
                continue
            pairs = list(zip(things, false_things, strict=True))
            if category == "add_att":
                added = sum(not true[1] and bool(false[1]) for true, false in pairs)
                added += background is None and false_background is not None
                assert added == 1 and false_relations == relations
            elif category == "replace_rel":
                changed = [a != b for a, b in zip(relations, false_relations, strict=True)]
                assert false_things == things and sum(changed) == 1
            elif category.startswith("swap"):
                for i in (1, 2, 3):  # texture, colour, shape
                    assert sorted(t[i] for t in things) == sorted(t[i] for t in false_things)
                assert false_things != things and false_relations == relations
                shapes_moved = [t[3] for t in things] != [t[3] for t in false_things]
                assert shapes_moved == (category == "swap_obj")
            else:
                assert sum(true != false for true, false in pairs) == 1
                assert false_relations == relations


def test_paraphrases_are_true_and_different():
    strict_words = {
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
            assert true_of_image(texts[0], scene)
            assert parse(texts[0])[0] == parse(shapes.caption(scene))[0][::-1]
        for text in texts[-3:]:
            for loose, strict in strict_words.items():
                text = text.replace(f"{loose} ", f"{strict} ")
            for thing in scene.things:
                for word in (thing.size, thing.colour, thing.shape, thing.texture):
                    assert word == "plain" or word in text, text
            assert scene.background in (*text.replace(",", "").split(), "plain")
            assert RELATION.findall(text) == list(scene.relations)


def test_long_captions_have_60_to_150_words_and_every_fact():
    for scene in SCENES:
        text = shapes.long_caption(scene)
        assert 60 <= len(text.split()) <= 170
        for thing in scene.things:
            words = (thing.size, thing.colour, thing.shape, thing.texture)
            assert all(word in text for word in words)
        assert scene.background in text
        for i, relation in enumerate(scene.relations):
            a, b = scene.things[i], scene.things[i + 1]
            assert f"The {a.colour} {a.shape} stands {relation} the {b.colour} {b.shape}" in text
            assert f"the {b.shape} is {shapes.OPPOSITE[relation]} the {a.shape}" in text


def pairs_in(scene):
    """The pairs of kinds that meet in a scene; of a single thing, its looks and the background."""
    kinds = [(thing.colour, thing.shape) for thing in scene.things]
    if len(kinds) == 1:
        return {(kinds[0], scene.things[0].size, scene.things[0].texture, scene.background)}
    return {frozenset((a, b)) for i, a in enumerate(kinds) for b in kinds[i + 1 :]}


def test_splits_share_kinds_but_no_pair_of_things():
    seen = {}
    for split in shapes.SPLITS:
        seen[split] = set().union(*map(pairs_in, shapes.make_scenes(split, 2000)))
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["val"]
    assert not seen["val"] & seen["test"]

    # Kinds are shared, alone and in company.
    alone = {s: {pair[0] for pair in seen[s] if isinstance(pair, tuple)} for s in seen}
    assert len(alone["train"]) > 150 and len(alone["test"]) > 150
    in_company = {s: [p for p in seen[s] if isinstance(p, frozenset)] for s in seen}
    for part in (0, 1):  # every colour, every shape
        words = {s: {kind[part] for pair in in_company[s] for kind in pair} for s in seen}
        assert words["test"] == words["train"]


@pytest.mark.parametrize(
    "rgb, wanted",  # from the standard IEC 61966-2-1 and CIE 1976, to 0.1
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.2, 80.1, 67.2)),
        ((0, 0, 255), (32.3, 79.2, -107.9)),
    ],
)
def test_colours_in_lab(rgb, wanted):
    assert colours.lab(rgb) == pytest.approx(wanted, abs=0.1)


def test_things_can_be_told_apart_and_seen():
    for scene in SCENES:
        places = [shapes.COLOURS.index(thing.colour) for thing in scene.things]
        apart = colours.are_apart()[np.ix_(places, places)]
        assert (apart | np.eye(len(places), dtype=bool)).all()
        ground = drawing.GROUNDS[scene.background].colour
        assert all(colours.stands_out(thing.colour, ground) for thing in scene.things)


def test_a_wrong_colour_can_be_told_from_all_that_are_in_the_image():
    n_new = 0
    for scene in SCENES[::5]:
        places = [shapes.COLOURS.index(thing.colour) for thing in scene.things]
        for text in shapes.negatives(scene).values():
            new = {colour for *_, colour, _ in parse(text)[0]} - {t.colour for t in scene.things}
            n_new += len(new)
            for colour in new:
                assert colours.are_apart()[shapes.COLOURS.index(colour), places].all(), text
    assert n_new > 400


def test_new_colours_are_in_no_training_caption():
    words = {word for s in shapes.make_scenes("train", 3000) for word in shapes.caption(s).split()}
    assert not words & set(colours.UNSEEN)
    trained = {*colours.BASIC, *colours.NAMED}
    for compound in colours.COMPOUNDS:
        assert compound not in trained and set(compound.split()) <= words


@pytest.mark.real_llm
def test_unseen_colours_share_no_token_with_training():
    _, tokenizer, _ = read_llm(fetch_default())

    def tokens(texts):
        lists, _ = tokenizer.encode_all(texts)
        return {token for ids in lists for token in ids}

    trained = tokens([shapes.caption(scene) for scene in shapes.make_scenes("train", 10_000)])
    unseen = {colour: tokens([f"a {colour}"]) - tokens(["a"]) for colour in colours.UNSEEN}
    assert {colour: new & trained for colour, new in unseen.items() if new & trained} == {}
    assert tokens(["dark pink"]) & trained  # so that this test can fail


def test_half_truths_begin_with_the_truth():
    n_pairs = 0
    for scene in SCENES:
        pair = shapes.half_truth(scene)
        if pair:
            n_pairs += 1
            true, false = pair
            assert true_of_image(true, scene) and not true_of_image(false, scene)
            assert false.startswith(true + " ")
            radii = radii_of(parse(false)[0])
            assert radii == sorted(radii, reverse=True)
            other = shapes.half_truth(scene, forbidden={false})
            assert other is None or other[1] != false
    assert n_pairs == len(SCENES)


def test_both_ends_are_the_false_captions_and_the_same_told_from_the_other_end():
    n_asked = 0
    for scene in SCENES[::5]:
        negatives = shapes.negatives(scene)
        both = shapes.from_both_ends(scene)
        has_two = len(scene.things) == 2
        assert set(both) == (set(negatives) & set(shapes.BOTH_ENDS) if has_two else set())
        for category, (true, false) in both.items():
            n_asked += 1
            assert true == (shapes.caption(scene), shapes.other_words(scene)["reversed"])
            assert false[0] == negatives[category]
            for text, turned in (true, false):
                assert true_of_image(text, scene) == true_of_image(turned, scene) == (text in true)
                assert sorted(text.split()) != sorted(turned.split())  # the relation word changes
            # The same shape comes first, and the same relation word stands there, in one true text
            # and in one false one. So no usual order and no usual word tells them apart.
            for words in (shapes.SHAPES, shapes.RELATIONS):
                first = re.compile(rf"\b({'|'.join(words)})\b")
                true_words, false_words = (
                    sorted(first.search(text)[0] for text in pair) for pair in (true, false)
                )
                assert true_words == false_words
            allowed = shapes.from_both_ends(scene, forbidden={false[1]}).values()
            assert all(false_pair[1] != false[1] for _, false_pair in allowed)
    assert n_asked > 400


def test_forbidden_captions_are_not_taken():
    for scene in SCENES[:300]:
        first = shapes.negatives(scene)
        again = shapes.negatives(scene, forbidden=set(first.values()))
        assert not set(again.values()) & set(first.values())


def test_three_things_form_a_corner():
    count = 0
    for scene in SCENES:
        if len(scene.things) == 3:
            first, second = scene.relations
            assert {AXIS[first][0], AXIS[second][0]} == {0, 1}
            count += 1
    assert count > 100


def test_classes_are_named_by_colour_and_shape():
    names, templates = shapes.classes("shapes")
    assert len(names) == len(set(names)) == 96 and names[0] == "red circle"
    backgrounds = ["", " on grass", " on sand", " on water"]
    wanted = [f"a {size} {{}}{end}" for size in ("large", "medium", "small") for end in backgrounds]
    assert templates == wanted


def test_every_class_has_the_same_number_of_single_scenes():
    names, _ = shapes.classes("shapes")
    trained = {shapes.caption(scene) for scene in shapes.make_scenes("train", 10_000)}
    scenes = shapes.single_scenes("test", "shapes", 3)
    kinds = [f"{scene.things[0].colour} {scene.things[0].shape}" for scene in scenes]
    assert kinds == [name for name in names for _ in range(3)]
    assert not {shapes.caption(scene) for scene in scenes} & trained
    assert len({scene.key for scene in scenes}) == len(scenes)


def test_deterministic_in_seed_and_index():
    scenes = shapes.make_scenes("train", 50)
    assert scenes == shapes.make_scenes("train", 80)[:50]
    assert scenes != shapes.make_scenes("train", 50, seed=1)
    assert len({shapes.caption(s) for s in shapes.make_scenes("test", 1000)}) == 1000
    with pytest.raises(BadInput):
        shapes.make_scenes("test", 1, world="shape")


def test_the_sheet(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["shapes", str(tmp_path / "sheet.png")])
    shapes.main()
    assert (tmp_path / "sheet.png").stat().st_size > 100_000
    assert "twelve test scenes" in capsys.readouterr().out
