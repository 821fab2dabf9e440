"""Does what the demo shows hold in another world? Other drawings, other words, from a csv file.

    python -m tests.experiments.other_world make runs/world        # 22,400 small images, csv files
    python train.py --data runs/world/train.csv --val-data runs/world/test.csv --out runs/lift
    python -m tests.experiments.other_world score runs/world runs/lift
    python -m tests.experiments.other_world text runs/world        # distances between captions

docs/results/other_world.md has what came out.

No setting was chosen in this world, on purpose. It has nothing of the built-in one but what it
asks. Things have other shapes, a dark edge and a light from above, the background is a gradient.
Colour words and colours are those of the survey of colour names by XKCD (public domain). A caption
names two things with their colours and the relation, and no size and no texture.

Which of the two things is named first? In the built-in world it is the larger one. Here --first
says it:

any      either of them. Both are alike in size
sizes    either of them. One is larger than the other
listed   that which is earlier in THINGS. To know it, one must see what the things are
larger   the larger one, as in the built-in world. Captions do not name the size

`score` asks 800 images with known colours, and 800 whose first thing has a colour of NEW, a word
that no training caption has. --split val asks 800 others with known colours. A few test scenes are
training scenes, too; no question is asked with a training caption.

i2t, t2i     R@1: the share of images that find their caption among the 800, and the other way
relation     a false caption names the opposite relation
colours      a false caption exchanges the two colours
things       a false caption exchanges the two things, and leaves the colours where they are
new i2t      R@1 among the captions of the 800 images with new words
new two-way  a false caption names another colour of NEW, which looks different

The last of these and `relation`, `colours` and `things` are asked in three ways: worded as in
training; with both captions told from the other end; and "both ends", where the features of both
true captions are added, and those of both false ones. There it does not help to know which word, or
which thing first, is usual for an image. With --first listed or larger the false caption of
`colours` or `things` may break the order of naming. With listed, `things` can be won without
looking.
"""

import argparse
import csv
import sys
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from data.common import BadInput, exit_status, parse_flags
from data.images.read import read_images
from data.world.colours import APART, lab, parse
from eval import Run, compositional, retrieval_ranks
from llm_text import TextReader, TextSource, text_reader, whitening

KNOWN = parse(
    """
    red e50000, green 15b01a, blue 0343df, yellow ffff14, orange f97306, purple 7e1e9c
    pink ff81c0, brown 653700, grey 929591, white ffffff, black 000000, cyan 00ffff
    teal 029386, tan d1b26f, turquoise 06c2ac, maroon 650021, navy 01153e, olive 6e750e
    lime aaff32, violet 9a0eea, lavender c79fef, gold dbb40c, salmon ff796c, beige e6daa6
    coral fc5a50, crimson 8c000f, indigo 380282, aqua 13eac9, mustard ceb301, rust a83c09
    plum 580f41, burgundy 610023, lilac cea2fd, khaki aaa662, silver c5c9c7, cream ffffc2
    mint 9ffeb0, taupe b9a281, rose cf6275, charcoal 343837, emerald 01a049, amber feb308
    bronze a87900, copper b66325
    dark red 840000, dark green 033500, dark blue 00035b, dark yellow d5b60a
    dark orange c65102, dark purple 35063e, dark pink cb416b, dark brown 341c02
    dark grey 363737, dark teal 014d4e, light red ff474c, light green 96f97b
    light blue 95d0fc, light yellow fffe7a, light orange fdaa48, light purple bf77f6
    light pink ffd1df, light brown ad8150, light grey d8dcd6, light teal 90e4c1
    pale red d9544d, pale green c7fdb5, pale blue d0fefe, pale yellow ffff84
    pale orange ffa756, pale purple b790d4, pale pink ffcfdc, pale brown b1916e
    pale teal 82cbb2, bright red ff000d, bright green 01ff07, bright blue 0165fc
    bright yellow fffd01, bright orange ff5b00, bright purple be03fd, bright pink fe01b1
    bright teal 01f9c6, deep red 9a0200, deep green 02590f, deep blue 040273
    deep orange dc4d01, deep purple 36013f, deep pink cb0162, deep brown 410200
    deep teal 00555a
    """
)
# No token of these stands in a training caption: tests/experiments/test_other_world.py.
NEW = parse(
    """
    scarlet be0119, ruby ca0147, cherry cf0234, magenta c20078, mauve ae7181
    periwinkle 8e82fe, cobalt 1e488f, sapphire 2138ab, cerulean 0485d1, jade 1fa774
    moss 769958, ochre bf9005, peach ffb07c, apricot ffb16d, tangerine ff9408, lemon fdff52
    wine 80013f, mahogany 4a0100, eggplant 380835, chestnut 742802, canary fdff63
    coffee a6814c, pistachio c0fa8b, sage 87ae73
    """
)
RGB_OF = KNOWN | NEW
LAB_OF = {colour: lab(rgb) for colour, rgb in RGB_OF.items()}

# Corners of each thing, between -1 and 1. A ball has none.
THINGS = {
    "ball": [],
    "box": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "tent": [(0, -1), (1, 0.8), (-1, 0.8)],
    "arrow": [(-1, -0.35), (0.1, -0.35), (0.1, -0.9), (1, 0), (0.1, 0.9), (0.1, 0.35), (-1, 0.35)],
    "house": [(0, -1), (1, -0.1), (0.7, -0.1), (0.7, 0.9), (-0.7, 0.9), (-0.7, -0.1), (-1, -0.1)],
    "bolt": [(0.3, -1), (-0.8, 0.2), (-0.1, 0.2), (-0.3, 1), (0.8, -0.2), (0.1, -0.2)],
    "cup": [(-1, -0.8), (1, -0.8), (0.6, 0.9), (-0.6, 0.9)],
    "flag": [(-0.9, -1), (1, -0.5), (-0.6, 0.05), (-0.6, 1), (-0.9, 1)],
}
# Where the second thing stands, seen from the first one: (x, y), y downwards.
RELATIONS = {
    "to the left of": (1, 0),
    "to the right of": (-1, 0),
    "over": (0, 1),
    "under": (0, -1),
}
OPPOSITE = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "over": "under",
    "under": "over",
}

SIDE = 64
FINE = 4  # things are drawn this many times larger, then shrunk, which smooths their edges
# Radii of both things, in pixels of the finished image. With "larger" they have this order, with
# "sizes" either one.
RADII = {"any": (11, 11), "sizes": (13, 9), "listed": (11, 11), "larger": (13, 9)}
TRAIN, TEST = 20_000, 800  # images


class Scene(NamedTuple):
    """Two things with their colours, and where the second stands, seen from the first."""

    colours: tuple[str, str]
    things: tuple[str, str]
    relation: str


def caption(scene: Scene) -> str:
    first, second = (
        f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {thing}"
        for colour, thing in zip(scene.colours, scene.things, strict=True)
    )
    return f"{first} {scene.relation} {second}"


def from_the_other_end(scene: Scene) -> Scene:
    """The same scene, told from the second thing. It is true as well."""
    return scene._replace(
        colours=scene.colours[::-1],
        things=scene.things[::-1],
        relation=OPPOSITE[scene.relation],
    )


def with_opposite_relation(scene: Scene) -> Scene:
    """A false scene."""
    return scene._replace(relation=OPPOSITE[scene.relation])


def look_different(first: str, second: str) -> bool:
    return np.linalg.norm(LAB_OF[first] - LAB_OF[second]) > APART


def make_scene(rng: Random, is_new: bool, first: str = "any") -> Scene:
    """A scene at random. With is_new the first thing has a colour of NEW. first: as --first."""
    while True:
        colours = rng.choice(list(NEW if is_new else KNOWN)), rng.choice(list(KNOWN))
        if look_different(*colours):
            things = rng.sample(list(THINGS), 2)
            if first == "listed":
                things.sort(key=list(THINGS).index)
            return Scene(colours, tuple(things), rng.choice(list(RELATIONS)))


def draw(scene: Scene, rng: Random, first: str = "any") -> Image.Image:
    """One image of a scene. The pair stands in the middle, at most 4 pixels away from it."""
    side = SIDE * FINE
    # The background goes from one grey to another, from the top to the bottom.
    shades = np.linspace(rng.uniform(90, 230), rng.uniform(90, 230), side)
    image = Image.fromarray(np.repeat(shades[:, None], side, 1).astype(np.uint8)).convert("RGB")

    radii = RADII[first]
    if first == "sizes":
        radii = rng.sample(radii, 2)
    step = np.array(RELATIONS[scene.relation]) * (sum(radii) / 2 + rng.uniform(1, 2))
    # A little aside, across the line between both.
    aside = (step == 0) * rng.uniform(-3, 3)
    middle = np.array([rng.uniform(-4, 4), rng.uniform(-4, 4)]) + SIDE / 2
    centres = (middle - step - aside, middle + step + aside)
    for i, (colour, thing) in enumerate(zip(scene.colours, scene.things, strict=True)):
        mask = Image.new("L", (side, side))
        pen = ImageDraw.Draw(mask)
        x, y = centres[i] * FINE
        r = radii[i] * FINE * rng.uniform(0.85, 1)
        if thing == "ball":
            pen.ellipse([x - r, y - r, x + r, y + r], fill=255)
        else:
            pen.polygon([(x + r * a, y + r * b) for a, b in THINGS[thing]], fill=255)
        # The light comes from above: the colour is up to a tenth darker at the lower end.
        light = 1 - 0.1 * np.clip((np.arange(side) - y + r) / (2 * r), 0, 1)
        face = light[:, None, None] * np.array(RGB_OF[colour])  # (side, 1, 3)
        face = np.broadcast_to(face, (side, side, 3)).astype(np.uint8)
        # A dark edge of one pixel: the thing in dark, and on it the thing without its outermost
        # pixel.
        inside = (
            mask.resize((SIDE, SIDE), Image.BOX)
            .resize((side, side))
            .point(lambda value: 255 if value > 250 else 0)
        )
        image.paste((30, 30, 30), mask=mask)
        image.paste(Image.fromarray(face), mask=inside)
    return image.resize((SIDE, SIDE), Image.BOX)


def make_split(folder: Path, split: str, count: int, first: str) -> None:
    """Draw a split's images into FOLDER/SPLIT/, and write FOLDER/SPLIT.csv beside it."""
    rng = Random(f"other world, {split}")
    (folder / split).mkdir(parents=True)
    with open(folder / f"{split}.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["image", "caption", "colour 1", "colour 2", "thing 1", "thing 2", "relation"]
        )
        for number in range(count):
            scene = make_scene(rng, split == "new", first)
            name = f"{split}/{number:05}.png"
            draw(scene, rng, first).save(folder / name)
            rows.writerow([name, caption(scene), *scene.colours, *scene.things, scene.relation])


def write_pairs(folder: Path) -> None:
    """FOLDER/pairs.csv: pairs of texts for llm_text.py --tune, of the training scenes.

    A caption and the same told from the other end say the same. The hard negative, with the
    opposite relation, is told from either end.
    """
    rng = Random("other world, pairs")
    with open(folder / "pairs.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["first", "second", "hard"])
        for scene in read_scenes(folder / "train.csv"):
            other_end = from_the_other_end(scene)
            false = with_opposite_relation(rng.choice([scene, other_end]))
            rows.writerow([caption(scene), caption(other_end), caption(false)])


def read_scenes(path: Path) -> list[Scene]:
    with open(path, newline="") as file:
        return [
            Scene(
                (row["colour 1"], row["colour 2"]),
                (row["thing 1"], row["thing 2"]),
                row["relation"],
            )
            for row in csv.DictReader(file)
        ]


def scores(trained: Run, folder: Path, split: str) -> dict[str, float]:
    """The scores of one run, in %. See the head of this file. New words are asked with "test"."""
    seen = {caption(scene) for scene in read_scenes(folder / "train.csv")}
    found = {}

    def features_of(name: str) -> tuple[list[Scene], Tensor]:
        """Scenes, and the features (N, D) of their images."""
        scenes = read_scenes(folder / f"{name}.csv")
        images = read_images(str(folder / f"{name}.csv"), "test", SIDE, whole=True)
        place = {file: i for i, file in enumerate(images.names)}
        order = [place[f"{name}/{i:05}.png"] for i in range(len(scenes))]
        return scenes, trained.encode_images(images)[order]

    def find(scenes: list[Scene], image: Tensor) -> list[float]:
        """R@1 from image to text, and from text to image."""
        texts = [caption(scene) for scene in scenes]
        ids = torch.tensor([texts.index(text) for text in texts])
        text = trained.encode_texts(texts)
        ranks = retrieval_ranks(image, text, torch.arange(len(texts)), ids)
        return [(rank < 1).double().mean().item() for rank in ranks]

    def ask(name: str, image: Tensor, true: list[Scene], false: list[Scene]) -> None:
        """How often is the true caption nearer than the false one? No caption of training is asked.

        Also when both are told from the other end, and when both tellings count together.
        """
        features = []  # of the true captions, of the false ones, and so from the other end
        is_asked = torch.ones(len(true), dtype=torch.bool)
        for turn in (lambda scene: scene, from_the_other_end):
            for some in (true, false):
                texts = [caption(turn(scene)) for scene in some]
                is_asked &= torch.tensor([text not in seen for text in texts])
                features.append(trained.encode_texts(texts))
        own, own_false, other, other_false = features
        for kind, right, wrong in (
            ("", own, own_false),
            (", other end", other, other_false),
            (", both ends", own + other, own_false + other_false),
        ):
            hits = compositional(image, right, wrong)
            found[name + kind] = hits[is_asked].double().mean().item()

    scenes, image = features_of(split)
    found["i2t"], found["t2i"] = find(scenes, image)
    ask("relation", image, scenes, [with_opposite_relation(s) for s in scenes])
    ask("colours", image, scenes, [s._replace(colours=s.colours[::-1]) for s in scenes])
    ask("things", image, scenes, [s._replace(things=s.things[::-1]) for s in scenes])

    if split == "test":
        scenes, image = features_of("new")
        found["new i2t"] = find(scenes, image)[0]
        rng = Random("other world, false colours")
        false = []
        for scene in scenes:
            first, second = scene.colours
            others = [c for c in NEW if look_different(c, first) and look_different(c, second)]
            false.append(scene._replace(colours=(rng.choice(others), second)))
        ask("new two-way", image, scenes, false)
    return {name: 100 * value for name, value in found.items()}


def mean_cosine(vectors: Tensor) -> float:
    """Of all pairs of different rows of (n, k)."""
    total = F.normalize(vectors, dim=1).sum(0).square().sum().item()  # each row with itself: 1
    return (total - len(vectors)) / (len(vectors) * (len(vectors) - 1))


def text_vectors(
    read: TextReader, folder: Path, directions: int = 256
) -> tuple[list[Scene], list[Tensor]]:
    """The test scenes, and the vectors (N, k) of four captions of each, in LIFT's text space.

    True, false by its relation; true and false from the other end. So the first and the last have
    the same word, and so have the two others. The vectors have unit length after the whitening that
    `train.py` does by default.
    """
    training = [caption(scene) for scene in read_scenes(folder / "train.csv")]
    mean, matrix = whitening(read(training), directions)
    scenes = read_scenes(folder / "test.csv")
    turned = [from_the_other_end(scene) for scene in scenes]
    vectors = []
    for true in (scenes, turned):
        for some in (true, [with_opposite_relation(scene) for scene in true]):
            raw = read([caption(scene) for scene in some]).float()
            vectors.append(F.normalize((raw - mean) @ matrix, dim=-1))
    return scenes, vectors


def text_effects(scenes: list[Scene], vectors: list[Tensor]) -> dict[str, tuple[float, float]]:
    """What makes captions of one scene differ: {effect: two numbers}.

        mean + (+-1) word + (+-1) order + (+-1) truth      the vector of one of the four captions

    word   which of both words it is
    order  which thing comes first
    truth  what is left: is the caption true? It takes both, the word and the order

    First number: the squared length, times four, mean over scenes. So much two captions are apart
    that differ in this alone. Two captions of different scenes have about 2. Second number: the
    mean cosine of this effect in two scenes with the same relation. Is it one direction for all
    scenes (1), or another one in each (0)?
    """
    true, false, true_2, false_2 = vectors
    effects = {
        "word": (true + false_2 - true_2 - false) / 4,
        "order": (true + false - true_2 - false_2) / 4,
        "truth": (true + true_2 - false - false_2) / 4,
    }
    places = [
        [i for i, scene in enumerate(scenes) if scene.relation == relation]
        for relation in RELATIONS
    ]
    return {
        name: (
            4 * effect.square().sum(1).mean().item(),
            sum(mean_cosine(effect[some]) for some in places) / len(places),
        )
        for name, effect in effects.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=["make", "score", "text"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--first", choices=list(RADII), default="any", help="for make: see above")
    parser.add_argument("--split", choices=["test", "val"], default="test", help="for score")
    args = parse_flags(parser)
    if args.what == "make":
        if args.folder.exists():
            raise BadInput(f"{args.folder} exists; name another folder, or remove it")
        for split, count in (("train", TRAIN), ("val", TEST), ("test", TEST), ("new", TEST)):
            make_split(args.folder, split, count, args.first)
        write_pairs(args.folder)
        return
    if args.what == "text":
        read = text_reader("vectors", TextSource(), "cpu")
        scenes, vectors = text_vectors(read, args.folder)
        for name, (distance, cosine) in text_effects(scenes, vectors).items():
            print(f"| {name} | {distance:.3f} | {cosine:.2f} |")
        # Which thing comes first, an image may not show. Then the mean of both true captions is
        # the most that an image side can know.
        true, false, true_2, _ = vectors
        hits = compositional(true + true_2, true, false)
        print(f"the mean of both true captions: relation {100 * hits.float().mean():.1f}")
        return
    if not args.runs:
        raise BadInput("score asks runs; name one or more behind the folder")
    for number, name in enumerate(args.runs):
        found = scores(Run(name), args.folder, args.split)
        if number == 0:
            print(f"| run | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
        print(f"| {name} | {' | '.join(f'{x:.1f}' for x in found.values())} |", flush=True)


if __name__ == "__main__":
    sys.exit(exit_status(main))
