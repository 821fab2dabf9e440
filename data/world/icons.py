"""Icons: a set of captioned images from four openly licensed sets of icons, built where it is used.

    python -m data.world.icons OUT [--size 64] [--held-out phosphor] [--packages FOLDER] [--seed 0]

Words used here, besides those of icon_shards.py. A *hand* is one set of icons: one npm package, by
the same authors. A hand has one style or several, such as outlined and filled. A *concept* is one
name, such as "bell off", in whatever hand or style it is drawn. Its *stem* is the word that says
what is drawn: "bell".

    caption        bell off, an icon for alert, mute and silence
    long_caption   anchor: a mechanical device that prevents a vessel from moving

The caption is the name with up to MAX_TAGS tags, those first that most hands give. So it does not
tell whose hand drew the image. The long caption is the definition in WordNet where the name is a
noun there. A noun of several meanings gets the one whose definition shares most words with the
tags. Any other concept has its caption as long caption.

Left out are brands, letters, numbers, arrows, and what a package calls deprecated. So are names
with a number or the word "variant", because these tell drawings apart and not things.

Names of one stem form a group: bell, bell off, bell plus. Stems of one meaning share a group. These
are plurals, and stems of which one names an icon that has the other as its other name. A whole
group is in one split, whichever hands draw it.

This is not perfect. A thing that two hands call by unrelated names may be in two splits, and a
definition may be of another meaning than the drawing.

False captions come from the same group. The name of the false caption has the same stem and differs
by one word, and the same style draws it in another way. Each line of false_captions.jsonl is

    {"image": "test.tar/mdi_bell-off", "true": "bell off, ...", "false": "bell plus, ...",
     "category": "replace"}

The category says what leads from the true name to the false one: to add, remove or replace a word.
An image has at most one false caption of each category. Images of train.tar have none.

`npm pack` fetches the packages on first use, or --packages names a folder that holds them. A
package of the version that was tested must have the hash that is written here. The package resvg_py
turns icons into images (pip install resvg-py). The licence of every package lies beside the shards,
and NOTICE lists them.
"""

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data.common import BadInput, exit_status, interpreting, parse_flags
from data.world.icon_shards import (
    TARS,
    Concept,
    Icons,
    all_or_none,
    check_place,
    check_renderer,
    share_of,
    split_of,
    write_tars,
)
from data.world.npm import Package, find_package, read_package
from data.world.wordnet import PACKAGE as WORDNET

# hand: its npm package, in the version that was tested
# fmt: off
HANDS = {
    "tabler": Package("@tabler/icons", "3.52.0",
        "sha512-dldKlJNfO/gZnGLcIY0X2EFFKIMGwL/rEvTqglvBgAPFiwj9pZOCN5V3Sf0Gyjq6"
        "foX4VQmLdOmsS4w5FdWKAw=="),
    "phosphor": Package("@phosphor-icons/core", "2.1.1",
        "sha512-v4ARvrip4qBCImOE5rmPUylOEK4iiED9ZyKjcvzuezqMaiRASCHKcRIuvvxL/twv"
        "LpkfnEODCOJp5dM4eZilxQ=="),
    "lucide": Package("lucide-static", "1.62.0",
        "sha512-WBZA/m2PvkFpMGHDtsBck5P2A9G4ehLlYu4GwwICcmEm1BvYVgj00lCDxKRWLlbM"
        "lOibLaiwdQ88G5pHkSWgwA=="),
    "mdi": Package("@mdi/svg", "7.4.47",
        "sha512-WQ2gDll12T9WD34fdRFgQVgO8bag3gavrAgJ0frN4phlwdJARpE6gO1YvLEMJR0K"
        "Kgoc+/Ea/A0Pp11I00xBvw=="),
}
# fmt: on

# hand: {style: the file of a name in it}. mdi writes the style into the name.
STYLES = {
    "tabler": {
        "tabler": "icons/outline/{}.svg",
        "tabler-filled": "icons/filled/{}.svg",
    },
    "phosphor": {
        "phosphor": "assets/regular/{}.svg",
        "phosphor-thin": "assets/thin/{}-thin.svg",
        "phosphor-light": "assets/light/{}-light.svg",
        "phosphor-bold": "assets/bold/{}-bold.svg",
        "phosphor-fill": "assets/fill/{}-fill.svg",
        "phosphor-duotone": "assets/duotone/{}-duotone.svg",
    },
    "lucide": {
        "lucide": "icons/{}.svg",
    },
    "mdi": {
        "mdi": "svg/{}.svg",
        "mdi-outline": "svg/{}-outline.svg",
    },
}

LICENCES = [f"LICENSE-{source}.txt" for source in (*HANDS, "wordnet")]
FILES = (*TARS, "false_captions.jsonl", *LICENCES, "NOTICE", "README.md")

MAX_TAGS = 5

# What is left out. Categories are those of the packages, in small letters. A hand's brands say
# nothing of another hand's drawings: one has the company's apple, another has the fruit.
BRANDS = {"brand", "brand / logo"}
SIGNS = {"arrow", "arrows", "letters", "numbers", "alpha / numeric"}
# fmt: off
WORDS_LEFT_OUT = {
    "arrow", "arrows", "chevron", "chevrons", "caret", "carets", "corner", "move",
    "letter", "letters", "number", "numbers", "numeric", "alphabet", "alphabetical",
    "logo", "microsoft", "playstation", "xbox", "nintendo",
    "variant",
}

# A stem is the first word that is none of these: a frame around what is drawn, or its kind. So
# "circle check", "check circle" and "check" have one stem. So have "device laptop" and "laptop".
FRAMES = {
    "circle", "square", "box", "octagon", "hexagon", "triangle", "diamond", "rectangle", "rounded",
    "rhombus", "pentagon",
}
KINDS = {"device", "food", "fruit", "weather", "ball"}
# fmt: on

README = """# Icons: captioned images, {size} x {size}

    python -m data.world.icons OUT {flags}

{lines}

style.tar shows the concepts of train.tar, both.tar those of test.tar; train, val and test share no
group. The images and captions are made from others' work: `NOTICE` says whose.
"""

NOTICE = """The images in this folder are icons of other authors, reduced to {size} x {size}
pixels on white. The captions are made of the names and tags of these icons, and of definitions of
WordNet.

{sources}
"""


# --------------------------------------------------------------------------------------------------
# Reading the sets of icons.


class Entry(NamedTuple):
    """What a hand says of one of its icons."""

    name: str  # "bell-off"
    tags: list[str]
    other_names: list[str]
    categories: list[str]  # in small letters


def read_tabler(content: bytes) -> list[Entry]:
    """icons.json: {"bell-off": {"tags": ["mute", ...], "category": "System", ...}, ...}"""
    return [
        Entry(name, [str(tag) for tag in icon["tags"]], [], [icon["category"].lower()])
        for name, icon in json.loads(content).items()
    ]


def read_phosphor(content: bytes) -> list[Entry]:
    """dist/index.mjs, a program that holds a list of

    { name: "bell-slash", categories: [e.SYSTEM], tags: ["*new*", "mute"], ... }
    """
    icons = re.findall(
        r'\bname: "([^"]+)".*?\bcategories: \[(.*?)\].*?\btags: \[(.*?)\]', content.decode(), re.S
    )
    entries = []
    for name, categories, tags in icons:
        # Tags in stars speak of the package's history.
        words = [tag for tag in re.findall(r'"([^"]*)"', tags) if not tag.startswith("*")]
        entries.append(Entry(name, words, [], re.findall(r"\.(\w+)", categories.lower())))
    return entries


def read_lucide(content: bytes) -> list[Entry]:
    """tags.json: {"bell-off": ["mute", ...], ...}. Old names of icons do not stand in it."""
    return [Entry(name, tags, [], []) for name, tags in json.loads(content).items()]


def read_mdi(content: bytes) -> list[Entry]:
    """meta.json: [{"name": "bell-off-outline", "aliases": ["notifications-off-outline"],

    "tags": ["Notification"], "deprecated": false, ...}, ...]
    """
    entries = []
    for icon in json.loads(content):
        if not icon["deprecated"]:
            name, *other_names = (
                name.removesuffix("-outline") for name in (icon["name"], *icon["aliases"])
            )
            categories = [tag.lower() for tag in icon["tags"]]
            # "Files / Folders" are two tags.
            tags = [word for tag in categories for word in re.split(r" [/+] ", tag)]
            entries.append(Entry(name, [*other_names, *tags], other_names, categories))
    return entries


# hand: the file that describes its icons, and how to read it
DESCRIPTIONS = {
    "tabler": ("icons.json", read_tabler),
    "phosphor": ("dist/index.mjs", read_phosphor),
    "lucide": ("tags.json", read_lucide),
    "mdi": ("meta.json", read_mdi),
}


def read_hand(hand: str, packages: str | Path) -> tuple[list[Entry], Icons, str, bytes]:
    """A hand's entries, its icons in all styles, its line of NOTICE, and its licence.

    Brands are in neither the entries nor the icons.
    """
    path = find_package(HANDS[hand], packages)
    description, read = DESCRIPTIONS[hand]
    drawings = "|".join(file.format("[^/]+") for file in STYLES[hand].values())
    files = read_package(path, "package.json", "LICENSE", description, also=drawings)
    with interpreting(path):
        entries = [e for e in read(files[description]) if BRANDS.isdisjoint(e.categories)]
        if not entries:
            raise BadInput(f"no icons in {description}")
        names = dict.fromkeys(entry.name for entry in entries)
        icons = {}
        for style, file in STYLES[hand].items():
            drawn = [name for name in names if file.format(name) in files]
            icons[style] = {name: without_name(files[file.format(name)].decode()) for name in drawn}
        package = json.loads(files["package.json"])
        notice = notice_of(hand, package, package["license"], "drawings, names and tags")
    return entries, icons, notice, files["LICENSE"]


def without_name(svg: str) -> str:
    """An icon without its name in it, so that two names of one drawing have equal icons."""
    return re.sub(r'\s(id|class)="[^"]*"', "", svg)


def notice_of(source: str, package: dict, licence: str, what: str) -> str:
    """The line of NOTICE that says what was taken from a package, and its licence."""
    address = f"https://www.npmjs.com/package/{package['name']}"
    return (
        f"{source}: {what} of {package['name']} {package['version']}, {licence}, "
        f"see LICENSE-{source}.txt; {address}"
    )


# --------------------------------------------------------------------------------------------------
# WordNet.


def read_wordnet(packages: str | Path) -> tuple[dict[str, list[str]], str, bytes]:
    """{noun: definitions, the most frequent meaning first}, the line of NOTICE, and the licence.

    Proper names are left out: "crane" is a bird and a machine, and not Stephen Crane.
    """
    path = find_package(WORDNET, packages)
    index, data = "dict/index.noun", "dict/data.noun"
    files = read_package(path, "package.json", "LICENSE", index, data)
    with interpreting(path):
        # place: (its words, its definition). A line is
        #     02012849 05 n 01 crane 0 005 @ 02000954 n 0000 ... | large long-necked wading bird
        meanings = {}
        for line in files[data].decode().splitlines():
            if not line.startswith(" "):  # the licence
                fields, _, gloss = line.partition(" | ")
                place, _, _, count, *words = fields.split(" ")
                # Examples stand in quotes behind the definition.
                definition = re.split('[;:] "', gloss)[0].strip()
                meanings[place] = (words[: 2 * int(count, 16) : 2], definition)

        # A line is:  crane n 5 5 @ ~ #m #p -c 5 3 10946564 03126385 02012849 ...
        definitions = {}
        for line in files[index].decode().splitlines():
            if not line.startswith(" "):
                noun, _, count, *fields = line.split()
                found = [meanings[place] for place in fields[-int(count) :]]
                definitions[noun] = [definition for words, definition in found if noun in words]
        package = json.loads(files["package.json"])
        # package.json names the licence of the program around the data.
        notice = notice_of("wordnet", package, "WordNet 3.0 licence", "definitions")
    return definitions, notice, files["LICENSE"]


# --------------------------------------------------------------------------------------------------
# Concepts: what is left out, groups, captions.


def is_left_out(name: str) -> bool:
    """Does a name have a word that stands for a sign, or that tells two drawings of a thing apart?

    A single letter is a sign, but x is a mark as in "bell-x".
    """
    return any(
        word in WORDS_LEFT_OUT or re.search(r"\d", word) or (len(word) == 1 and word != "x")
        for word in name.split("-")
    )


def stem_of(name: str) -> str:
    """The word that says what is drawn.

    bell-off -> bell, circle-check -> check, device-laptop -> laptop, food-off -> food
    """
    words = name.split("-")
    return next((word for word in words if word not in FRAMES | KINDS | {"off"}), words[0])


def groups_of(names: Iterable[str], synonyms: Iterable[tuple[str, str]]) -> dict[str, str]:
    """{name: its group}. A group has the name of the first of its stems in the alphabet.

    synonyms  pairs of names of one icon. Pairs with another name than those given are passed over.
    """
    stem = {name: stem_of(name) for name in names}
    same = [(stem[one], stem[other]) for one, other in synonyms if one in stem and other in stem]
    stems = set(stem.values())
    same += [(word, word + "s") for word in sorted(stems) if word + "s" in stems]

    # Join the groups of each pair: `leads_to` leads from a stem towards the first of its group.
    leads_to = {word: word for word in stems}

    def first_of(word: str) -> str:
        while leads_to[word] != word:
            word = leads_to[word]
        return word

    for pair in same:
        first, last = sorted(map(first_of, pair))
        leads_to[last] = first
    return {name: first_of(word) for name, word in stem.items()}


def choose_tags(name: str, tags_of_hands: Iterable[Sequence[str]]) -> list[str]:
    """At most MAX_TAGS tags that add a word to the name, those first that most hands give."""
    count = Counter()
    for tags in tags_of_hands:
        # Each tag of a hand counts once, in the order of the hand.
        texts = [" ".join(re.split(r"[\s_-]+", tag.lower())) for tag in tags]
        count.update(list(dict.fromkeys(texts)))
    words_of_name = set(name.split("-"))
    added = [tag for tag in count if not words_of_name.issuperset(tag.split())]
    return sorted(added, key=lambda tag: -count[tag])[:MAX_TAGS]


def caption_of(name: str, tags: Sequence[str]) -> str:
    """A name and its tags -> "bell off, an icon for alert, mute and silence"."""
    caption = f"{name.replace('-', ' ')}, an icon"
    if tags:
        *others, last = tags
        caption += f" for {', '.join(others)} and {last}" if others else f" for {last}"
    return caption


def definition_of(name: str, tags: Iterable[str], definitions: dict[str, list[str]]) -> str:
    """ "anchor: a mechanical device ...", or "" where WordNet has no such noun.

    Of several definitions it is the one that shares most words with the tags, as in Lesk's method
    (1986), and of these the first.
    """
    found = definitions.get(name.replace("-", "_"))
    if not found:
        return ""
    words = {word for tag in tags for word in re.findall(r"\w{4,}", tag)}
    best = max(found, key=lambda text: len(words.intersection(re.findall(r"\w{4,}", text))))
    return f"{name.replace('-', ' ')}: {best}"


def make_concepts(
    entries_of_hands: Sequence[Sequence[Entry]], definitions: dict[str, list[str]], seed: int
) -> list[Concept]:
    """All concepts of all hands, without those left out, sorted by name."""
    all_entries = [entry for entries in entries_of_hands for entry in entries]
    signs = {entry.name for entry in all_entries if not SIGNS.isdisjoint(entry.categories)}
    names = {entry.name for entry in all_entries if not is_left_out(entry.name)} - signs
    groups = groups_of(
        names, [(entry.name, other) for entry in all_entries for other in entry.other_names]
    )

    # A hand may have several entries of one name, an outlined icon and a filled one.
    tags_of_hands = {name: [] for name in names}
    categories = defaultdict(list)
    for entries in entries_of_hands:
        tags = defaultdict(list)
        for entry in entries:
            tags[entry.name] += entry.tags
            categories[entry.name] += entry.categories
        for name in names & tags.keys():
            tags_of_hands[name].append(tags[name])

    concepts = []
    for name in sorted(names):
        tags = choose_tags(name, tags_of_hands[name])
        caption = caption_of(name, tags)
        long_caption = definition_of(name, tags, definitions) or caption
        category = next(iter(categories[name]), "")
        split = split_of(groups[name], seed)
        concepts.append(Concept(name, caption, long_caption, category, groups[name], split))
    return concepts


# --------------------------------------------------------------------------------------------------
# False captions.


# (how many words of the true name are missing, how many others are added): category
EDITS = {(0, 1): "add", (1, 0): "remove", (1, 1): "replace"}


def edit_of(true: str, false: str) -> str:
    """What makes a name false: "add", "remove" or "replace" a word besides the stem, or "".

    true            false              edit
    bell            bell-off           add
    bell-off        bell               remove
    bell-off        bell-plus          replace
    bell-off        bell-ring-plus     ""
    """
    missing = Counter(true.split("-")) - Counter(false.split("-"))
    added = Counter(false.split("-")) - Counter(true.split("-"))
    return EDITS.get((missing.total(), added.total()), "")


def false_captions(
    samples: Sequence[tuple[str, Concept]], icons: Icons, concepts: Sequence[Concept], seed: int
) -> list[tuple[str, Concept, str, Concept]]:
    """(style, concept, category, the concept whose caption is false) of each sample and category.

    Where several variants are of one category, a hash chooses.
    """
    of_stem = defaultdict(list)
    for concept in concepts:
        of_stem[stem_of(concept.code)].append(concept)

    found = []
    for style, concept in samples:
        variants = defaultdict(list)  # category: concepts
        for other in of_stem[stem_of(concept.code)]:
            # What this style draws in the same way, or does not draw, may be true of the image.
            drawing = icons[style].get(other.code)
            if drawing and drawing != icons[style][concept.code]:
                variants[edit_of(concept.code, other.code)].append(other)
        for category in EDITS.values():
            if variants[category]:
                shares = [share_of(f"{concept.code}/{v.code}", seed) for v in variants[category]]
                chosen = variants[category][shares.index(min(shares))]
                found.append((style, concept, category, chosen))
    return found


def write_false_captions(
    path: Path,
    shown: dict[str, list[tuple[str, Concept]]],
    icons: Icons,
    concepts: Sequence[Concept],
    seed: int,
) -> int:
    """Write the false captions of all shards but train.tar. Returns how many there are.

    shown  {tar: the (style, concept) in it}
    """
    lines = []
    for tar, samples in shown.items():
        if tar == "train.tar":
            continue
        for style, concept, category, other in false_captions(samples, icons, concepts, seed):
            line = {
                "image": f"{tar}/{style}_{concept.code}",
                "true": concept.caption,
                "false": other.caption,
                "category": category,
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), "utf-8")
    return len(lines)


# --------------------------------------------------------------------------------------------------
# All of it.


def build(
    out: str | Path,
    size: int = 64,
    held_out: str = "phosphor",
    packages: str | Path = "",
    seed: int = 0,
) -> list[str]:
    """Write FILES into a folder, all or none of them. Returns lines that say what they hold.

    size      pixels per side
    held_out  the hand of style.tar and both.tar; all others draw train, val and test
    packages  a folder with the packages' .tgz files; "": npm fetches them
    seed      of the splits and of the choice of false captions

    BadInput where a hand is unknown, a file is in the way, a package is missing or damaged, or too
    many icons cannot be drawn.
    """
    out = Path(out)
    if held_out not in HANDS:
        raise BadInput(f"--held-out {held_out!r} is unknown; choose from {', '.join(HANDS)}")
    check_place(out, FILES)
    check_renderer()

    # Read all hands and WordNet.
    entries_of_hands, icons, notices, licences = [], {}, [], []
    for hand in HANDS:
        entries, icons_of_hand, notice, licence = read_hand(hand, packages)
        entries_of_hands.append(entries)
        icons |= icons_of_hand
        notices.append(notice)
        licences.append(licence)
    definitions, notice, licence = read_wordnet(packages)
    notices.append(notice)
    licences.append(licence)

    concepts = make_concepts(entries_of_hands, definitions, seed)
    lines = [describe(concepts)]
    for style, icons_of_style in icons.items():
        count = sum(concept.code in icons_of_style for concept in concepts)
        lines.append(f"{style}: draws {count} of {len(concepts)} concepts")

    seen_styles = [style for hand in HANDS if hand != held_out for style in STYLES[hand]]
    with all_or_none(out, FILES) as parts:
        shown, lines_of_tars = write_tars(
            parts, concepts, icons, seen_styles, list(STYLES[held_out]), size
        )
        lines += lines_of_tars

        count = write_false_captions(parts["false_captions.jsonl"], shown, icons, concepts, seed)
        lines.append(f"false_captions.jsonl: {count} lines")

        for file, licence in zip(LICENCES, licences, strict=True):
            parts[file].write_bytes(licence)
        parts["NOTICE"].write_text(NOTICE.format(size=size, sources="\n".join(notices)), "utf-8")
        flags = f"--size {size} --held-out {held_out} --seed {seed}"
        list_of_lines = "\n".join(f"- {line}" for line in lines)
        readme = README.format(size=size, flags=flags, lines=list_of_lines)
        parts["README.md"].write_text(readme, "utf-8")
    return lines


def describe(concepts: Sequence[Concept]) -> str:
    """How many concepts and groups there are, the largest group, and how many definitions."""
    groups = Counter(concept.group for concept in concepts)
    (_, largest), *_ = groups.most_common(1)
    defined = sum(concept.long_caption != concept.caption for concept in concepts)
    return (
        f"{len(concepts)} concepts in {len(groups)} groups of at most {largest}, "
        f"{defined} with a definition"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Build a set of captioned images from openly licensed icons."
    )
    add = parser.add_argument
    add("out", help="folder to write into")
    add("--size", type=int, default=64, help="pixels per side (default 64)")
    add(
        "--held-out",
        default="phosphor",
        help=f"the hand of style.tar and both.tar: {', '.join(HANDS)} (default phosphor)",
    )
    add(
        "--packages",
        default="",
        help="folder with the packages' .tgz files (default: npm fetches them)",
    )
    add("--seed", type=int, default=0, help="of the splits (default 0)")
    args = parse_flags(parser)
    lines = build(args.out, args.size, args.held_out, args.packages, args.seed)
    print(*lines, sep="\n")
    print(
        f"wrote {args.out}; next: python train.py --data {args.out}/train.tar "
        f"--val-data {args.out}/test.tar --image-size {args.size} --epochs 30 --out runs/icons"
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
