"""A small world of coloured shapes with captions: no download, and the same on every machine.

This file makes scenes out of words and says true and false things about them. drawing.py makes
images of them. A scene is a pure function of its split, seed and number.

A scene is one to three things on a background. A thing has a size, a texture, a colour and a shape.
Each next thing stands left of, right of, above or below the one before. For example:

    scene = make_scenes("test", 41)[40]

    Scene(
        things=(
            Thing("medium", "plain", "hot pink", "star"),
            Thing("small", "striped", "brown", "diamond"),
        ),
        relations=("right of",),  # where the first thing stands
        background="grass",
        key="shapes/test/0/40",
    )

caption(scene) says all of it, but not what is plain:

    a medium hot pink star right of a small striped brown diamond on grass

other_words(scene) and long_caption(scene) say the same in other words. negatives(scene) says what
is false of this scene. Each false caption is one edit away from the true one, but for add_obj: a
new thing that is larger than the others comes first, and then another relation may stand between
those. The edits are those of the benchmark SugarCrepe (Hsieh et al. 2023, arXiv 2306.14610), which
has seven categories and says object for thing:

    add_obj      a large dark cyan cross right of a medium hot pink star, which is above a small
                 striped brown diamond on grass
    add_att      a medium striped hot pink star right of a small striped brown diamond on grass
    replace_obj  a medium hot pink star right of a small striped brown ring on grass
    replace_att  a medium sky blue star right of a small striped brown diamond on grass
    replace_rel  a medium hot pink star left of a small striped brown diamond on grass
    swap_obj     a medium hot pink diamond right of a small striped brown star on grass
    swap_att     a medium striped hot pink star right of a small brown diamond on grass

Two rules let a viewer of the image tell which caption is the right one:
  - Things are named from the largest to the smallest.
  - The sizes, the shapes and the colours in a scene all differ.
Without them a caption could name either thing first. The same image would then be "left of" in one
caption and "right of" in another, and a loss that moves an image to its caption's vector would
teach the mean of the two.

Train, val and test share every shape and every colour, but no pair of things. Where a red circle
meets a blue square in training, the two meet in no test scene. A thing that is alone is in the test
too, but never with a size, a texture and a background that it has together in training.

The colours of two worlds are in no training caption of the others: "shapes-unseen" has words of
which training knows no part, "shapes-compounds" has new pairs of known words (colours.py).

    python -m data.world.shapes sheet.png    # twelve scenes with all their captions, to look at
"""

import re
import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.common import BadInput, exit_status
from data.world.colours import BASIC, COMPOUNDS, NAMED, RGB_OF, UNSEEN, are_apart, stands_out
from data.world.drawing import GROUNDS, draw

# --------------------------------------------------------------------------------------------------
# Words. drawing.py says what each looks like. Their order counts: a world uses the first ones.

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "diamond", "ring")
COLOURS = tuple(RGB_OF)
TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES = ("large", "medium", "small")
BACKGROUNDS = ("plain", "grass", "sand", "water", "brick", "wood", "velvet", "snow")
RELATIONS = {  # where the first thing stands as seen from the second one; y grows downwards
    "left of": (-1, 0),
    "right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

CATEGORIES = (  # of false captions, as SugarCrepe names them
    "add_obj",
    "add_att",
    "replace_obj",
    "replace_att",
    "replace_rel",
    "swap_obj",
    "swap_att",
)
SPLITS = ("train", "val", "test")  # val is for choosing settings: eval.py --split val


class World(NamedTuple):
    """Which words a world uses, and how many things its scenes have."""

    colours: tuple[str, ...]
    textures: int  # how many of the TEXTURES, from the first
    backgrounds: int  # how many of the BACKGROUNDS, from the first
    things: tuple[int, ...]  # a scene has one of these numbers; each entry is equally likely


# The dial of difficulty. The contrastive loss InfoNCE (information noise-contrastive estimation)
# asks for log2(batch size) bits about an image: enough to tell it from the rest of its batch. A
# scene of the simple world has little more, so every fact counts. A scene of the rich world has
# plenty, so a model may never need to look at shapes and relations.
FEW = tuple(BASIC)
MANY = (*BASIC, *NAMED)
# fmt: off
WORLDS = {
    #                         colours           textures  backgrounds  things
    "shapes":           World(MANY,                    2,           4, (1, 2, 2, 2, 2, 3)),
    "shapes-few":       World(FEW[:6],                 2,           4, (1, 2, 2, 2, 2, 3)),
    "shapes-simple":    World(FEW[:8],                 1,           1, (2,)),
    "shapes-rich":      World(FEW,                     4,           8, (1, 2, 2, 2, 2, 3)),
    "shapes-pairs":     World(FEW,                     4,           8, (2,)),
    "shapes-unseen":    World(tuple(UNSEEN),           2,           4, (2,)),
    "shapes-compounds": World(tuple(COMPOUNDS),        2,           4, (2,)),
}
# fmt: on


# --------------------------------------------------------------------------------------------------
# Scenes.


@dataclass(frozen=True)
class Thing:
    """One of the SIZES, TEXTURES, COLOURS and SHAPES each."""

    size: str
    texture: str
    colour: str
    shape: str


@dataclass(frozen=True)
class Scene:
    """Things from the largest to the smallest, and how each stands to the next one."""

    things: tuple[Thing, ...]
    relations: tuple[str, ...]  # relations[i] says where things[i] is, seen from things[i + 1]
    background: str
    key: str = ""  # WORLD/SPLIT/SEED/NUMBER: names the random streams of drawings and negatives

    def positions(self) -> list[tuple[int, int]]:
        """Cells (x, y) of the things, in whole steps from the first one."""
        cells = [(0, 0)]
        for relation in self.relations:
            dx, dy = RELATIONS[relation]
            x, y = cells[-1]
            cells.append((x - dx, y - dy))
        return cells


# A kind is a colour and a shape. The kinds of one colour stand together.
KINDS = [(colour, shape) for colour in COLOURS for shape in SHAPES]


@cache
def pair_splits() -> np.ndarray:
    """The split of every pair of kinds: int, symmetric, indices into SPLITS.

    Rows and columns are KINDS. 80 % of the pairs are for training.
    """
    n = len(KINDS)
    table = np.random.default_rng(0).choice(3, (n, n), p=(0.8, 0.1, 0.1)).astype(np.int8)
    return np.triu(table) + np.triu(table, 1).T


def split_of_single(thing: Thing, background: str) -> str:
    """The split of a thing that is alone, by its looks and the background together.

    Of five places on a wheel one is for test and one for val. Every kind has some of each, because
    it turns the wheel by its own number.
    """
    place = SIZES.index(thing.size) + TEXTURES.index(thing.texture) + BACKGROUNDS.index(background)
    place += KINDS.index((thing.colour, thing.shape))
    return {0: "test", 1: "val"}.get(place % 5, "train")


@cache
def may_meet(split: str, colours: tuple[str, ...]) -> np.ndarray:
    """Which kinds may stand in one scene of a split: bool (K, K), over all kinds of the colours.

    Their pair is in the split, their shapes differ, and their colours can be told apart.
    """
    places = [COLOURS.index(colour) for colour in colours]
    n_shapes = len(SHAPES)
    kinds = np.concatenate([np.arange(n_shapes) + place * n_shapes for place in places])  # (K,)
    in_split = pair_splits()[np.ix_(kinds, kinds)] == SPLITS.index(split)
    apart = are_apart()[np.ix_(kinds // n_shapes, kinds // n_shapes)]
    other_shape = (kinds % n_shapes)[:, None] != kinds % n_shapes
    return in_split & apart & other_shape


@cache
def visible_kinds(colours: tuple[str, ...], background: str) -> np.ndarray:
    """Which kinds of the colours stand out from a background: bool (K,)."""
    ground = GROUNDS[background].colour
    return np.repeat([stands_out(colour, ground) for colour in colours], len(SHAPES))


def classes(world: str) -> tuple[list[str], list[str]]:
    """Names and templates to classify single things by.

    The names are "red circle" and so on, with the first twelve colours of the world. The templates
    are prompts with every size and background, such as "a small {} on grass".
    """
    limits = WORLDS[world]
    names = [f"{colour} {shape}" for colour in limits.colours[:12] for shape in SHAPES]
    endings = ["" if b == "plain" else f" on {b}" for b in BACKGROUNDS[: limits.backgrounds]]
    templates = [f"a {size} {{}}{ending}" for size in SIZES for ending in endings]
    return names, templates


def single_scenes(split: str, world: str, per_class: int) -> list[Scene]:
    """Scenes with one thing, the same number of each of the world's classes.

    A class's scenes differ in size, texture and background, as far as its share of the split goes.
    Then they begin again, in other drawings.
    """
    limits = WORLDS[world]
    scenes = []
    for name in classes(world)[0]:
        colour, shape = name.rsplit(" ", 1)
        looks = []
        for background in BACKGROUNDS[: limits.backgrounds]:
            if stands_out(colour, GROUNDS[background].colour):
                for size in SIZES:
                    for texture in TEXTURES[: limits.textures]:
                        thing = Thing(size, texture, colour, shape)
                        if split_of_single(thing, background) == split:
                            looks.append((thing, background))
        for i in range(per_class):
            thing, background = looks[i % len(looks)]
            scenes.append(Scene((thing,), (), background, f"{world}/{split}/single/{name} {i}"))
    return scenes


def make_scene(split: str, seed: int, index: int, world: str = "shapes") -> Scene:
    """Scene number `index` of a split. The arguments alone decide it."""
    limits = WORLDS[world]
    key = f"{world}/{split}/{seed}/{index}"
    rng = Random(key)
    count = rng.choice(limits.things)
    while True:
        background = BACKGROUNDS[rng.randrange(limits.backgrounds)]
        kinds = choose_kinds(rng, split, count, limits.colours, background)
        sizes = sorted(rng.sample(SIZES, count), key=SIZES.index)
        things = []
        for size, kind in zip(sizes, kinds, strict=True):
            texture = rng.choice(TEXTURES[: limits.textures])
            things.append(Thing(size, texture, *kind))
        if count > 1 or split_of_single(things[0], background) == split:
            break

    relations = []
    for _ in range(count - 1):
        relations.append(rng.choice(next_relations(relations)))
    return Scene(tuple(things), tuple(relations), background, key)


def choose_kinds(
    rng: Random, split: str, count: int, colours: tuple[str, ...], background: str
) -> list[tuple[str, str]]:
    """Choose `count` kinds of these colours that may meet in this split, before this background."""
    visible = visible_kinds(colours, background)
    # Choose them one by one. Where no kind is left that may meet all those before, begin again.
    while True:
        chosen = []
        choices = np.flatnonzero(visible)
        while len(choices) and len(chosen) < count:
            chosen.append(int(rng.choice(choices)))
            choices = choices[may_meet(split, colours)[chosen[-1]][choices]]
        if len(chosen) == count:
            return [(colours[k // len(SHAPES)], SHAPES[k % len(SHAPES)]) for k in chosen]


def next_relations(relations: Sequence[str]) -> list[str]:
    """What the next relation may be.

    The first one is free. The second one goes across it, so that three things form a corner.
    """
    if not relations:
        return list(RELATIONS)
    last = relations[-1]
    return [relation for relation in RELATIONS if relation not in (last, OPPOSITE[last])]


def make_scenes(split: str, count: int, seed: int = 0, world: str = "shapes") -> list[Scene]:
    """The first `count` scenes of a split that have different captions, in order of their number.

    BadInput for an unknown world or split, and where a world has fewer captions than that.
    """
    if world not in WORLDS or split not in SPLITS:
        raise BadInput(
            f"world {world!r} or split {split!r} is unknown; choose from {', '.join(WORLDS)} and "
            f"{', '.join(SPLITS)}"
        )
    scenes = []
    captions = set()
    index = 0
    last_new = 0
    while len(scenes) < count:
        scene = make_scene(split, seed, index, world)
        text = caption(scene)
        if text not in captions:
            captions.add(text)
            scenes.append(scene)
            last_new = index
        elif index > last_new + 50_000:
            raise BadInput(
                f"{world} has about {len(scenes)} distinct captions in its {split} split, not "
                f"{count}; ask for fewer images"
            )
        index += 1
    return scenes


# --------------------------------------------------------------------------------------------------
# True captions.


def phrase(thing: Thing) -> str:
    """A thing in words: "a small striped red triangle"."""
    words = (thing.size, thing.texture, thing.colour, thing.shape)
    return "a " + " ".join(word for word in words if word != "plain")


def caption(scene: Scene) -> str:
    """The short caption: every fact of the scene, but not what is plain."""
    text = phrase(scene.things[0])
    for i, relation in enumerate(scene.relations):
        comma = ", which is" if i > 0 else ""
        text += f"{comma} {relation} {phrase(scene.things[i + 1])}"
    if scene.background != "plain":
        text += f" on {scene.background}"
    return text


# Other words for the same.
OTHER_RELATION = {
    "left of": "to the left of",
    "right of": "to the right of",
    "above": "over",
    "below": "under",
}
OTHER_SIZE = {"large": "big", "medium": "mid-sized", "small": "little"}
# fmt: off
SYNONYMS = {
    "large": "huge", "medium": "middle-sized", "small": "tiny", "striped": "stripy",
    "circle": "disc", "square": "box", "triangle": "three-cornered shape", "cross": "plus sign",
    "heart": "love heart", "diamond": "rhombus", "ring": "hoop", "star": "starry shape",
    "left of": "on the left of", "right of": "on the right of", "above": "higher than",
    "below": "beneath", "grass": "a lawn", "sand": "a beach", "water": "the sea",
}
# fmt: on


def other_words(scene: Scene) -> dict[str, str]:
    """Other ways to say the same, all true: {form: text}. For the scene at the head of this file:

    reversed   a small striped brown diamond left of a medium hot pink star on grass
    there_is   on grass, there is a medium hot pink star to the right of a small striped brown
               diamond
    loosely    a mid-sized star, hot pink, to the right of a little diamond, brown and striped,
               seen on grass
    sentences  a medium hot pink star. a small striped brown diamond. the star is right of the
               diamond. grass all around.
    synonyms   a middle-sized hot pink starry shape on the right of a tiny stripy brown rhombus on
               a lawn

    The first one is the hard one: order and relation are both turned round. A scene with one thing
    has no other end.
    """
    texts = {
        "there_is": there_is(scene),
        "loosely": loosely(scene),
        "sentences": in_sentences(scene),
        "synonyms": in_synonyms(scene),
    }
    return {"reversed": reversed_order(scene)} | texts if scene.relations else texts


def paraphrases(scene: Scene, without: Sequence[str] = ()) -> list[str]:
    """What training may see of other_words: all but the synonyms, which are for tests only.

    without  further forms that are left out
    """
    left_out = ("synonyms", *without)
    return [text for form, text in other_words(scene).items() if form not in left_out]


def in_synonyms(scene: Scene) -> str:
    text = caption(scene)
    for word, synonym in SYNONYMS.items():
        text = re.sub(rf"\b{word}\b", synonym, text)
    return text


def reversed_order(scene: Scene) -> str:
    relations = tuple(OPPOSITE[relation] for relation in reversed(scene.relations))
    return caption(replace(scene, things=scene.things[::-1], relations=relations))


def there_is(scene: Scene) -> str:
    start = "" if scene.background == "plain" else f"on {scene.background}, "
    text = f"{start}there is {phrase(scene.things[0])}"
    for relation, thing in zip(scene.relations, scene.things[1:], strict=True):
        text += f" {OTHER_RELATION[relation]} {phrase(thing)}"
    return text


def loosely(scene: Scene) -> str:
    def describe(thing: Thing) -> str:
        surface = "" if thing.texture == "plain" else f" and {thing.texture}"
        return f"a {OTHER_SIZE[thing.size]} {thing.shape}, {thing.colour}{surface}"

    text = describe(scene.things[0])
    for relation, thing in zip(scene.relations, scene.things[1:], strict=True):
        text += f", {OTHER_RELATION[relation]} {describe(thing)}"
    if scene.background != "plain":
        text += f", seen on {scene.background}"
    return text


def in_sentences(scene: Scene) -> str:
    sentences = [f"{phrase(thing)}." for thing in scene.things]
    for i, relation in enumerate(scene.relations):
        first, second = scene.things[i], scene.things[i + 1]
        sentences.append(f"the {first.shape} is {relation} the {second.shape}.")
    if scene.background != "plain":
        sentences.append(f"{scene.background} all around.")
    return " ".join(sentences)


def long_caption(scene: Scene) -> str:
    """A dense caption of 60 to 150 words: every fact of the scene has a sentence of its own.

    These texts are data. They say "picture" because the runs in docs/results were trained on them.
    """
    rng = Random(f"{scene.key}/long")
    things = scene.things
    is_single = len(things) == 1
    if scene.background == "plain":
        ground = "a plain background without any pattern"
    else:
        ground = scene.background

    # How many things, on which background.
    count = ("one object", "two objects", "three objects")[len(things) - 1]
    verb = "is" if is_single else "are"
    openings = [
        f"This picture shows {count}, drawn on {ground}.",
        f"There {verb} {count} here, on {ground}.",
    ]
    sentences = [rng.choice(openings)]

    # Each thing with its size, shape, colour and texture.
    if is_single:
        subjects = ["The only thing to be seen"]
    else:
        subjects = ["The first and largest of them", "The next in size", "The last and smallest"]
    for subject, thing in zip(subjects, things, strict=False):
        if thing.texture == "plain":
            surface = "its surface is plain, without any pattern"
        else:
            surface = f"its surface is {thing.texture}"
        size, colour, shape = thing.size, thing.colour, thing.shape
        variants = [
            f"{subject} is a {size} {shape}; its colour is {colour} and {surface}.",
            f"{subject} is a {shape} of {size} size, coloured {colour}, and {surface}.",
        ]
        sentences.append(rng.choice(variants))

    # Each relation, seen from both ends.
    for i, relation in enumerate(scene.relations):
        first, second = things[i], things[i + 1]
        sentences.append(
            f"The {first.colour} {first.shape} stands {relation} the {second.colour} "
            f"{second.shape}, so that, seen the other way round, the {second.shape} is "
            f"{OPPOSITE[relation]} the {first.shape}."
        )
    if is_single:
        sentences.append(
            "Nothing stands beside it, neither left nor right of it, and nothing is above or below "
            f"the {things[0].colour} {things[0].shape}."
        )

    around = "it" if is_single else "them"
    sentences.append(
        f"Everything around {around} is {ground}, and apart from what was named there is nothing "
        "else in the whole picture."
    )
    return " ".join(sentences)


# --------------------------------------------------------------------------------------------------
# False captions. Each is the caption of an edited scene. So it is as natural as a true one, and it
# obeys the same rule of naming. Those that add something are longer than the true one, and can be
# told by that without looking at the image.


def is_true(claim: Scene, scene: Scene) -> bool:
    """May a claim, itself written as a scene, be read as true of a scene?

    It is true if its things can be matched with different things of the scene such that everything
    holds that is claimed. What is plain in the claim claims nothing. Between things that are no
    neighbours, a relation holds where it holds along its axis, even if they stand aslant.
    """
    if claim.background not in ("plain", scene.background):
        return False
    cells = scene.positions()

    def describes(claimed: Thing, thing: Thing) -> bool:
        same_size_and_kind = replace(claimed, texture=thing.texture) == thing
        return same_size_and_kind and claimed.texture in ("plain", thing.texture)

    def holds(relation: str, first: int, second: int) -> bool:
        dx, dy = RELATIONS[relation]
        x = cells[first][0] - cells[second][0]
        y = cells[first][1] - cells[second][1]
        return dx * x + dy * y > 0

    # match[i] is the number of the scene's thing that claim.things[i] is taken for.
    for match in permutations(range(len(scene.things)), len(claim.things)):
        things_fit = all(
            describes(claimed, scene.things[number])
            for claimed, number in zip(claim.things, match, strict=True)
        )
        relations_hold = all(
            holds(relation, match[i], match[i + 1]) for i, relation in enumerate(claim.relations)
        )
        if things_fit and relations_hold:
            return True
    return False


def half_truth(scene: Scene, forbidden: Set[str] = frozenset()) -> tuple[str, str] | None:
    """A short true caption, and the same with one wrong detail more. (arXiv 2602.23906)

    "a medium hot pink star", "a medium hot pink star on sand".
    The false one is the longer one, and in its form more like the image's own caption. A model
    that likes such a form takes it.

    forbidden  as in `negatives`; None where all details are forbidden
    """
    rng = Random(f"{scene.key}/half truth")
    first = scene.things[0]
    grounds = BACKGROUNDS[1 : world_of(scene).backgrounds]
    details = [f"on {ground}" for ground in grounds if ground != scene.background]
    # Or a thing that is not there. It is the smaller one, because the larger one is named first.
    smaller = SIZES[SIZES.index(first.size) + 1 :]
    if smaller:
        for _ in range(3):
            colour, shape = rng.choice(unused_colours(scene)), rng.choice(unused_shapes(scene))
            absent = Thing(rng.choice(smaller), "plain", colour, shape)
            details.append(f"{rng.choice(list(RELATIONS))} {phrase(absent)}")
    rng.shuffle(details)
    false = [f"{phrase(first)} {detail}" for detail in details]
    allowed = [text for text in false if text not in forbidden]
    return (phrase(first), allowed[0]) if allowed else None


def negatives(scene: Scene, forbidden: Set[str] = frozenset()) -> dict[str, str]:
    """One false caption in each of the CATEGORIES that the scene allows: {category: text}.

    forbidden  texts that must not be taken: the training captions, so that none is known as true
    """
    edited = false_scenes(scene, forbidden)
    return {category: caption(false) for category, false in edited.items()}


# The categories that say where a thing stands, or which attribute is whose.
BOTH_ENDS = ("replace_rel", "swap_obj", "swap_att")


def from_both_ends(
    scene: Scene, forbidden: Set[str] = frozenset()
) -> dict[str, tuple[tuple[str, str], tuple[str, str]]]:
    """True and false captions, each told from both ends: {category: (two true, two false)}.

    The categories are those of BOTH_ENDS that the scene allows, and the false scenes are those of
    `negatives`. For the scene at the head of this file, in short: "star right of diamond" and
    "diamond left of star" are true, "star left of diamond" and "diamond right of star" are false.

    Training captions name the larger thing first. So an image shows which relation word its caption
    has, and which of two shapes comes first. Here each side has both words and both orders. With
    three things this is not so: the middle one keeps its place from both ends. So only scenes with
    two things are asked about.

    forbidden  as in `negatives`, from both ends; a category whose false text it holds is left out
    """
    both = {}
    if len(scene.things) != 2:
        return both
    true = (caption(scene), reversed_order(scene))
    for category, edited in false_scenes(scene, forbidden).items():
        false = (caption(edited), reversed_order(edited))
        if category in BOTH_ENDS and false[1] not in forbidden:
            both[category] = (true, false)
    return both


def false_scenes(scene: Scene, forbidden: Set[str] = frozenset()) -> dict[str, Scene]:
    """One false scene in each of the CATEGORIES that the scene allows, whose caption may be taken.

    One thing has nothing to swap. Three things take no fourth. Where nothing is plain, no attribute
    can be added.
    """
    rng = Random(f"{scene.key}/negatives")
    edits = {
        "add_obj": add_object(scene, rng),
        "add_att": add_attribute(scene),
        "replace_obj": replace_object(scene),
        "replace_att": replace_attribute(scene),
        "replace_rel": replace_relation(scene),
        "swap_obj": swap_objects(scene),
        "swap_att": swap_attributes(scene),
    }
    chosen = {}
    for category, edited_scenes in edits.items():
        rng.shuffle(edited_scenes)
        for edited in edited_scenes:
            if caption(edited) not in forbidden and not is_true(edited, scene):
                chosen[category] = edited
                break
    return chosen


# Each of the seven functions below lists all edited scenes of one category. Each docstring says
# what the category tests, and shows the edit in the example at the head of this file.


def add_object(scene: Scene, rng: Random) -> list[Scene]:
    """add_obj: one thing more. Is every thing that the caption names in the image?

    "a medium hot pink star ..." -> "a large dark cyan cross right of a medium hot pink star, ..."
    """
    if len(scene.things) == 3:
        return []
    limits = world_of(scene)
    sizes = {thing.size for thing in scene.things}
    edited = []
    for size in SIZES:
        if size in sizes:
            continue
        texture = rng.choice(TEXTURES[: limits.textures])
        colour = rng.choice(unused_colours(scene))
        shape = rng.choice(unused_shapes(scene))
        things = (*scene.things, Thing(size, texture, colour, shape))
        things = tuple(sorted(things, key=lambda thing: SIZES.index(thing.size)))
        relations = (*scene.relations, rng.choice(next_relations(scene.relations)))
        edited.append(replace(scene, things=things, relations=relations))
    return edited


def add_attribute(scene: Scene) -> list[Scene]:
    """add_att: one attribute more. Is every attribute that the caption names in the image?

    "a medium hot pink star" -> "a medium striped hot pink star"
    """
    limits = world_of(scene)
    edited = []
    for i, thing in enumerate(scene.things):
        if thing.texture == "plain":
            for texture in TEXTURES[1 : limits.textures]:
                edited.append(edit_thing(scene, i, texture=texture))
    if scene.background == "plain":
        for background in BACKGROUNDS[1 : limits.backgrounds]:
            edited.append(replace(scene, background=background))
    return edited


def replace_object(scene: Scene) -> list[Scene]:
    """replace_obj: another shape. Is it this kind of thing?

    "a small striped brown diamond" -> "a small striped brown ring"
    """
    edited = []
    for i in range(len(scene.things)):
        for shape in unused_shapes(scene):
            edited.append(edit_thing(scene, i, shape=shape))
    return edited


def replace_attribute(scene: Scene) -> list[Scene]:
    """replace_att: another colour or texture. Does the thing look like this?

    "a medium hot pink star" -> "a medium sky blue star"
    """
    limits = world_of(scene)
    edited = replace_colour(scene)
    for i, thing in enumerate(scene.things):
        for texture in TEXTURES[1 : limits.textures]:
            if thing.texture not in ("plain", texture):
                edited.append(edit_thing(scene, i, texture=texture))
    return edited


def replace_colour(scene: Scene) -> list[Scene]:
    """Every scene in which one thing has another colour, one that no thing has."""
    colours = unused_colours(scene)
    return [edit_thing(scene, i, colour=c) for i in range(len(scene.things)) for c in colours]


def replace_relation(scene: Scene) -> list[Scene]:
    """replace_rel: the opposite relation. Do the things stand like this?

    "right of a small striped brown diamond" -> "left of a small striped brown diamond"
    """
    edited = []
    for i, relation in enumerate(scene.relations):
        relations = (*scene.relations[:i], OPPOSITE[relation], *scene.relations[i + 1 :])
        edited.append(replace(scene, relations=relations))
    return edited


def swap_objects(scene: Scene) -> list[Scene]:
    """swap_obj: two shapes change places. Which shape is where?

    A bag of words cannot tell: both captions have the same words.
    "hot pink star right of a ... brown diamond" -> "hot pink diamond right of a ... brown star"
    """
    return [swap(scene, i, "shape") for i in range(len(scene.relations))]


def swap_attributes(scene: Scene) -> list[Scene]:
    """swap_att: two colours or textures change places. Which belongs to which shape?

    Again both captions have the same words.
    "hot pink star right of a small striped brown ..." -> "striped hot pink star right of a small
    brown ..."
    """
    edited = []
    for i in range(len(scene.relations)):
        edited.append(swap(scene, i, "colour"))
        if scene.things[i].texture != scene.things[i + 1].texture:
            edited.append(swap(scene, i, "texture"))
    return edited


def edit_thing(scene: Scene, i: int, **changes: str) -> Scene:
    """The scene with other attributes of thing number i."""
    things = list(scene.things)
    things[i] = replace(things[i], **changes)
    return replace(scene, things=tuple(things))


def swap(scene: Scene, i: int, attribute: str) -> Scene:
    """The scene after things i and i + 1 have exchanged one attribute."""
    first = getattr(scene.things[i], attribute)
    second = getattr(scene.things[i + 1], attribute)
    edited = edit_thing(scene, i, **{attribute: second})
    return edit_thing(edited, i + 1, **{attribute: first})


def world_of(scene: Scene) -> World:
    """The world that a scene's key names."""
    return WORLDS[scene.key.split("/")[0] or "shapes"]


def unused_colours(scene: Scene) -> list[str]:
    """Colours of the scene's world that can be told from all those in it."""
    seen = [COLOURS.index(thing.colour) for thing in scene.things]
    apart = are_apart()[seen].all(0)  # one for each of COLOURS
    return [colour for colour in world_of(scene).colours if apart[COLOURS.index(colour)]]


def unused_shapes(scene: Scene) -> list[str]:
    """Shapes that no thing in the scene has."""
    seen = {thing.shape for thing in scene.things}
    return [shape for shape in SHAPES if shape not in seen]


# --------------------------------------------------------------------------------------------------
# To look at.


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].endswith(".png"):
        raise BadInput("usage: python -m data.world.shapes OUT.png")
    path = sys.argv[1]
    height = 225  # of each row, in pixels
    sheet = Image.new("RGB", (1400, 12 * height), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for row, scene in enumerate(make_scenes("test", 12)):
        top = height * row + 10
        sheet.paste(draw(scene, side=192), (10, top))
        sheet.paste(draw(scene, drawing=1), (210, top))
        lines = [caption(scene)]
        lines += [f"= {text}" for text in paraphrases(scene)]
        lines += [f"{category}: {text}" for category, text in negatives(scene).items()]
        pen.text((290, top), "\n".join(lines), fill="black", font=font)
    sheet.save(path)
    print(
        f"wrote {path}: twelve test scenes in two drawings; = marks other true captions, the rest "
        "are false ones by category"
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
