"""Emoji: a set of captioned images from openly licensed icons, built where it is used.

    python -m data.world.emoji OUT [--size 64] [--styles noto twemoji ...] [--held-out openmoji]
                                   [--packages FOLDER] [--seed 0]

Words used here. A *concept* is one emoji, such as "woman farmer". A *style* is one set of icons. An
*icon* is the vector drawing (SVG, scalable vector graphics) of a concept in a style.

The icons come from npm packages, one per style. Names and keywords come from another package.
`npm pack` fetches them on first use, or --packages names a folder that holds them. A package of the
version that was tested must have the hash that is written here. They are read as streams; nothing
is unpacked. An icon and a name belong together by their Unicode code points. The package resvg_py
turns icons into images (pip install resvg-py). Building twice gives the same bytes:

    train.tar, val.tar, test.tar   about 80, 8 and 12 % of the concepts, in all styles but one
    style.tar                      the concepts of train.tar in the style that is held out
    both.tar                       the concepts of test.tar in the style that is held out
    LICENSES.tsv, README.md        whose icons they are, and how the files were made

A tar is a WebDataset shard. Each image has three members: KEY.png, KEY.txt (the name), and KEY.json
(caption; long_caption, which is the name and the keywords; category, concept, group, style). KEY is
the style and the code points.

Some emoji are left out, because they differ by a name that must be known, not by a thing that can
be seen: all tones of skin but the neutral one, swatches of skin and hair, flags of countries and
regions, and the letters that spell flags.

Concepts that differ only in gender, age, family, hair or direction form one *group*. So do all
clock faces, and all keycaps. No group is in two splits, so no test image is a training image turned
round. A hash of the group's name chooses its split. Where a style has one image for two groups, the
first group keeps it.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from data.common import BadInput, exit_status, interpreting, parse_flags
from data.world.icon_shards import (
    TARS,
    Concept,
    all_or_none,
    check_place,
    check_renderer,
    split_of,
    write_tars,
)
from data.world.npm import Package, find_package, read_json

# style: its npm package, in the version that was tested
# fmt: off
STYLES = {
    "noto": Package("@iconify-json/noto", "1.2.9",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jf"
        "rTAeI3rcKF0mqHYeZVAuaw=="),
    "twemoji": Package("@iconify-json/twemoji", "1.2.5",
        "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXz"
        "AWU9yNLlj41WU6/mvgALsw=="),
    "openmoji": Package("@iconify-json/openmoji", "1.2.29",
        "sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qw"
        "nq1OqksEmaDGTCmZ5nFKJQ=="),
    "fluent-emoji-flat": Package("@iconify-json/fluent-emoji-flat", "1.2.6",
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7"
        "yNGWqQYvuaSYM1M4fRXlUw=="),
}
NAMES = Package("emojibase-data", "17.0.0",
    "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpy"
    "hBNEC0m2SEmItljHsTygjA==")
# fmt: on

FILES = (*TARS, "LICENSES.tsv", "README.md")

LEFT_OUT = {"component", "country-flag", "subdivision-flag"}  # categories of emojibase-data

# Words that tell the variants of one icon apart. They are no part of a group's name.
# fmt: off
VARIANTS = {
    "man", "men", "woman", "women", "person", "people", "adult", "male", "female", "boy", "girl",
    "old", "older", "left", "right", "up", "down", "leftwards", "rightwards", "upwards",
    "downwards", "waxing", "waning", "first", "last", "next", "and", "with", "of",
}
# fmt: on

# Words that say by themselves which group a concept is in.
GROUP_OF_WORD = {
    "o’clock": "clock",
    "thirty": "clock",
    "family": "family",
    "claus": "claus",
    "prince": "royal",
    "princess": "royal",
}

README = """# Emoji: captioned images, {size} x {size}

    python -m data.world.emoji OUT {flags}

{lines}

style.tar shows the concepts of train.tar, both.tar those of test.tar; train, val and test share no
caption. The icons are others' work, reduced to pixels on white: `LICENSES.tsv` says whose, and by
which licence each may be passed on.
"""


# --------------------------------------------------------------------------------------------------
# Concepts: names, keywords, groups, splits.


def code_of(hexcode: str) -> str:
    """Code points as a key: "2B05-FE0F" -> "2b05".

    FE0F only asks for a coloured icon, and some styles leave it out.
    """
    return hexcode.lower().replace("-fe0f", "")


def group_of(code: str, names: dict[str, str]) -> str:
    """The group of a concept, which is what is left of its name without VARIANTS.

    Where its code points contain a plainer emoji, that one's name is taken. The last two have
    a word that names their group.

        code               name            plainer emoji   group
        1f475              old woman                       person
        1f469-200d-1f33e   woman farmer    sheaf of rice   sheaf rice
        1f9dc-200d-2640    mermaid         merperson       merperson
        1f550              one o’clock                     clock
        1f478              princess                        royal
    """
    words = words_of(names[code])
    for word in words:
        if word in GROUP_OF_WORD:
            return GROUP_OF_WORD[word]

    # Cut off "man, woman or person joined to" in front, and "female", "male" or "facing right"
    # behind.
    plainer = re.sub("^1f(468|469|9d1)-200d-|-200d-(2640|2642|27a1)", "", code)
    if plainer in names:
        words = words_of(names[plainer])
    return " ".join(word for word in words if word not in VARIANTS) or "person"


def words_of(name: str) -> list[str]:
    """The words of a name, without what a colon adds: "family: man, boy" -> ["family"]."""
    return re.findall(r"[\w’]+", name.lower().partition(":")[0])


def read_concepts(entries: list[dict], meta: dict, seed: int) -> list[Concept]:
    """The concepts that emojibase-data describes, without those left out, sorted by code.

    entries, meta  its en/data.json and meta/groups.json
    """
    shown = {}
    categories = {}
    for entry in entries:
        # Only the letters that spell flags have no group.
        if "group" not in entry:
            continue
        group = meta["groups"][str(entry["group"])]
        subgroup = meta["subgroups"][str(entry["subgroup"])]
        if LEFT_OUT.isdisjoint((group, subgroup)):
            code = code_of(entry["hexcode"])
            shown[code] = entry
            categories[code] = f"{group}/{subgroup}"

    names = {code: entry["label"] for code, entry in shown.items()}
    concepts = []
    for code in sorted(shown):
        name = names[code]
        tags = [tag for tag in shown[code].get("tags", []) if tag.lower() != name.lower()]
        long_caption = f"{name}: {', '.join(tags)}" if tags else name
        group = group_of(code, names)
        split = split_of(group, seed)
        concepts.append(Concept(code, name, long_caption, categories[code], group, split))
    return concepts


# --------------------------------------------------------------------------------------------------
# Reading: names and icons, with their licences. A licence is a row of LICENSES.tsv.

LICENCE_COLUMNS = ("style", "package", "version", "licence", "url", "author")


def read_names(packages: str, seed: int) -> tuple[list[Concept], list[tuple[str, ...]]]:
    """All concepts, and the licences of their names and keywords."""
    path = find_package(NAMES, packages)
    with interpreting(path):
        package, entries, meta = read_json(path, "package.json", "en/data.json", "meta/groups.json")
        concepts = read_concepts(entries, meta, seed)
        home = "https://www.npmjs.com/package/emojibase-data"
        unicode = "https://www.unicode.org/license.txt"
        licences = [
            ("names", "emojibase-data", package["version"], "MIT", home, "Miles Johnson"),
            ("names", "CLDR, in emojibase-data", "", "Unicode-3.0", unicode, "Unicode, Inc."),
        ]
    return concepts, licences


def read_style(style: str, packages: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The icons of a style, {code: SVG}, and their licence."""
    path = find_package(STYLES[style], packages)
    with interpreting(path):
        package, info, sheet, names_by_code = read_json(
            path, "package.json", "info.json", "icons.json", "chars.json"
        )
        # What an icon does not say itself, such as its size, the whole sheet says.
        icons = {
            code_of(code): svg_of(sheet | sheet["icons"][name])
            for code, name in names_by_code.items()
            if name in sheet["icons"]
        }
        licence = info["license"]
        author = f"{info['author']['name']}, {info['author']['url']}"
        row = (
            style,
            package["name"],
            package["version"],
            licence["spdx"],
            licence["url"],
            author,
        )
    return icons, row


def svg_of(icon: dict) -> str:
    """An icon as a package of iconify describes it -> SVG."""
    # The defaults are those of the packages' format.
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = icon.get("width", 16), icon.get("height", 16)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


# --------------------------------------------------------------------------------------------------
# All of it.


def chosen_styles(styles: Sequence[str], held_out: str) -> list[str]:
    """The styles of train, val and test: those named, or all, each once and without held_out."""
    chosen = [style for style in dict.fromkeys(styles or STYLES) if style != held_out]
    for style in (*chosen, held_out):
        if style not in STYLES:
            raise BadInput(f"style {style!r} is unknown; choose from {', '.join(STYLES)}")
    if not chosen:
        raise BadInput(
            f"--styles names none besides {held_out}, which is held out; name another, or change "
            "--held-out"
        )
    return chosen


def build(
    out: str | Path,
    size: int = 64,
    styles: Sequence[str] = (),
    held_out: str = "openmoji",
    packages: str | Path = "",
    seed: int = 0,
) -> list[str]:
    """Write FILES into a folder, all or none of them. Returns lines that say what they hold.

    size      pixels per side
    styles    of train, val and test; none named: all but held_out
    packages  a folder with the packages' .tgz files; "": npm fetches them
    seed      of the splits

    BadInput where a style is unknown, a file is in the way, a package is missing or damaged, or too
    many icons cannot be drawn.
    """
    out = Path(out)
    styles = chosen_styles(styles, held_out)
    check_place(out, FILES)
    check_renderer()

    # Read the names, then the icons of each style.
    concepts, licences = read_names(packages, seed)
    icons = {}
    lines = []
    for style in (*styles, held_out):
        all_icons, licence = read_style(style, packages)
        licences.append(licence)
        icons[style] = {c.code: all_icons[c.code] for c in concepts if c.code in all_icons}
        lines.append(f"{style}: draws {len(icons[style])} of {len(concepts)} concepts")

    with all_or_none(out, FILES) as parts:
        _, lines_of_tars = write_tars(parts, concepts, icons, styles, [held_out], size)
        lines += lines_of_tars

        rows = [LICENCE_COLUMNS, *licences]
        table = "".join("\t".join(row) + "\n" for row in rows)
        parts["LICENSES.tsv"].write_text(table, "utf-8")
        flags = f"--size {size} --styles {' '.join(styles)} --held-out {held_out} --seed {seed}"
        list_of_lines = "\n".join(f"- {line}" for line in lines)
        readme = README.format(size=size, flags=flags, lines=list_of_lines)
        parts["README.md"].write_text(readme, "utf-8")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Build a set of captioned images from openly licensed emoji."
    )
    add = parser.add_argument
    add("out", help="folder to write into")
    add("--size", type=int, default=64, help="pixels per side (default 64)")
    add(
        "--styles",
        nargs="+",
        default=[],
        help=f"of train, val and test, from {', '.join(STYLES)} (default: all but the one held "
        "out)",
    )
    add(
        "--held-out",
        default="openmoji",
        help="the style of style.tar and both.tar (default openmoji)",
    )
    add(
        "--packages",
        default="",
        help="folder with the packages' .tgz files (default: npm fetches them)",
    )
    add("--seed", type=int, default=0, help="of the splits (default 0)")
    args = parse_flags(parser)
    lines = build(args.out, args.size, args.styles, args.held_out, args.packages, args.seed)
    print(*lines, sep="\n")
    print(
        f"wrote {args.out}; next: python train.py --data {args.out}/train.tar "
        f"--val-data {args.out}/test.tar --image-size {args.size} --epochs 30 --out runs/emoji"
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
