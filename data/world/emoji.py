"""Emoji: a set of captioned images from openly licensed icons, built where it is used.

    python -m data.world.emoji OUT [--size 64] [--styles noto twemoji ...] [--held-out openmoji]
                                   [--packages FOLDER] [--seed 0]

Words used here. A *concept* is one emoji, such as "woman farmer". A *style* is one set of icons. An
*icon* is the vector drawing (SVG, scalable vector graphics) of a concept in a style.

The icons come from npm packages, one per style. Names and keywords come from another package.
`npm pack` fetches them on first use, or --packages names a folder that holds them. They are read as
streams; nothing is unpacked. An icon and a name belong together by their Unicode code points. The
package resvg_py turns icons into images (pip install resvg-py). Building twice gives the same
bytes:

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
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from data.common import BadInput, cache_dir, interpreting, progress, run

# style: its npm package and the version that was tested
STYLES = {
    "noto": ("@iconify-json/noto", "1.2.9"),
    "twemoji": ("@iconify-json/twemoji", "1.2.5"),
    "openmoji": ("@iconify-json/openmoji", "1.2.29"),
    "fluent-emoji-flat": ("@iconify-json/fluent-emoji-flat", "1.2.6"),
}
NAMES = ("emojibase-data", "17.0.0")

# file: the split whose concepts it shows
SEEN_STYLES = {"train.tar": "train", "val.tar": "val", "test.tar": "test"}
HELD_OUT_STYLE = {"style.tar": "train", "both.tar": "test"}
TARS = SEEN_STYLES | HELD_OUT_STYLE
FILES = (*TARS, "LICENSES.tsv", "README.md")

# More unusable icons than this share mean that a package is damaged, so the build stops.
MAX_UNUSABLE = 0.05

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
# Packages.


def find_package(name: str, version: str, folder: str) -> Path:
    """The .tgz file of a package: from the user's folder, in any version, or else from the cache.

    npm fetches it into the cache on first use. BadInput where it is not there or cannot be fetched.
    """
    stem = name.removeprefix("@").replace("/", "-")
    if folder:
        files = list(Path(folder).glob(f"{stem}-[0-9]*.tgz"))
        if len(files) != 1:
            raise BadInput(
                f"{folder}: {len(files) or 'no'} files {stem}-VERSION.tgz where one is needed; to "
                f"fetch it: npm pack {name}@{version}"
            )
        return files[0]
    path = cache_dir() / "npm" / f"{stem}-{version}.tgz"
    if not path.is_file():
        fetch_package(name, version, path)
    return path


def fetch_package(name: str, version: str, path: Path) -> None:
    """Let npm fetch a package. It is moved to `path` when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetching {name} {version} into {path.parent}", file=sys.stderr)
    command = ["npm", "pack", f"{name}@{version}", "--loglevel=error", "--fetch-retries=1"]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            output = getattr(error, "stderr", "") or str(error)
            reason = " ".join(output.replace("npm error", "").split())[:160]
            raise BadInput(
                f"npm could not fetch {name}@{version} ({reason}); install Node.js and connect to "
                "the network once, or name a folder that holds the packages with --packages"
            ) from error
        os.replace(Path(folder) / path.name, path)


def read_package(path: Path, *files: str) -> list:
    """The parsed JSON of some files of a package, in the order of their names here."""
    contents = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                # npm packs one folder; its name does not matter.
                file = member.name.partition("/")[2]
                if member.isfile() and file in files:
                    contents[file] = json.load(tar.extractfile(member))
    # tarfile, zlib and json raise half a dozen types of errors for a damaged file.
    except Exception as error:
        raise BadInput(
            f"{path}: cannot be read as an npm package ({error}); remove it and fetch it again"
        ) from error
    for file in files:
        if file not in contents:
            raise BadInput(
                f"{path}: no {file} in it; this is another package, or damaged: remove it and "
                "fetch it again"
            )
    return [contents[file] for file in files]


# --------------------------------------------------------------------------------------------------
# Concepts: names, keywords, groups, splits.


@dataclass(frozen=True)
class Concept:
    """One emoji, as a KEY.json describes it, and the split that it is in."""

    code: str
    caption: str
    long_caption: str
    category: str
    group: str
    split: str

    def describe(self, style: str) -> dict[str, str]:
        """The content of KEY.json."""
        return {
            "caption": self.caption,
            "long_caption": self.long_caption,
            "category": self.category,
            "concept": self.code,
            "group": self.group,
            "style": style,
        }


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


def split_of(group: str, seed: int) -> str:
    """The split of a group. Its name and the seed alone decide it, whatever other groups exist."""
    value = blake2b(f"{seed}/{group}".encode(), digest_size=8).digest()
    share = int.from_bytes(value, "big") / 2**64  # uniform in [0, 1)
    if share < 0.80:
        return "train"
    return "val" if share < 0.88 else "test"


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
    path = find_package(*NAMES, packages)
    with interpreting(path):
        package, entries, meta = read_package(
            path, "package.json", "en/data.json", "meta/groups.json"
        )
        concepts = read_concepts(entries, meta, seed)
        home = "https://www.npmjs.com/package/emojibase-data"
        unicode = "https://www.unicode.org/license.txt"
        licences = [
            ("names", "emojibase-data", package["version"], "MIT", home, "Miles Johnson"),
            ("names", "CLDR, in emojibase-data", "", "Unicode-3.0", unicode, "Unicode, Inc."),
        ]
    return concepts, licences


def read_style(style: str, packages: str) -> tuple[dict[str, dict], tuple[str, ...]]:
    """The icons of a style, {code: icon}, and their licence."""
    path = find_package(*STYLES[style], packages)
    with interpreting(path):
        package, info, sheet, names_by_code = read_package(
            path, "package.json", "info.json", "icons.json", "chars.json"
        )
        # What an icon does not say itself, such as its size, the whole sheet says.
        icons = {
            code_of(code): sheet | sheet["icons"][name]
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


# --------------------------------------------------------------------------------------------------
# Drawing and writing.


def render(icon: dict, size: int) -> bytes:
    """An icon as a PNG file: size x size, RGB on white. ValueError says why it cannot be drawn."""
    import resvg_py

    # A link to anything but a part of the same icon might show any image of this machine.
    if re.search(r"href\s*=\s*[\"'](?!#)", icon["body"]):
        raise ValueError("it shows another file")
    # The defaults are those of the packages' format.
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = icon.get("width", 16), icon.get("height", 16)
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{size}" height="{size}" viewBox="{left} {top} {width} {height}">'
        f"{icon['body']}</svg>"
    )
    png = resvg_py.svg_to_bytes(svg, background="white", skip_system_fonts=True)
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(out, "PNG")
    return out.getvalue()


def plan(
    tar: str,
    concepts: list[Concept],
    icons: dict[str, dict[str, dict]],
    styles: Sequence[str],
    held_out: str,
) -> list[tuple[str, Concept]]:
    """Which (style, concept) a tar will show. icons: {style: {code: icon}}.

    A concept that only the held-out style draws is left out everywhere.
    """
    samples = []
    for concept in concepts:
        is_drawn = any(concept.code in icons[style] for style in styles)
        if concept.split != TARS[tar] or not is_drawn:
            continue
        for style in [held_out] if tar in HELD_OUT_STYLE else styles:
            if concept.code in icons[style]:
                samples.append((style, concept))
    return samples


def write_tar(
    path: Path,
    samples: list[tuple[str, Concept]],
    icons: dict[str, dict[str, dict]],
    size: int,
    owners: dict[tuple[str, bytes], str],
) -> tuple[list[tuple[str, Concept]], list[str]]:
    """Draw samples into a shard -> (those that are in it, ["key (why)"] of those that are not).

    owners  {(style, png): group} of all shards so far; new ones are added. Where a style has the
            same image for two groups by mistake, the two might be in different splits.
    """
    done = []
    failed = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for style, concept in progress(samples, description=f"drawing {path.stem}", unit="image"):
            key = f"{style}_{concept.code}"
            try:
                png = render(icons[style][concept.code], size)
                owner = owners.setdefault((style, png), concept.group)
                if owner != concept.group:
                    raise ValueError(f"the same image as {owner}")
            except (ValueError, OSError) as error:
                failed.append(f"{key} ({error})")
                continue
            about = json.dumps(concept.describe(style), ensure_ascii=False)
            add_file(tar, f"{key}.json", about.encode())
            add_file(tar, f"{key}.png", png)
            add_file(tar, f"{key}.txt", concept.caption.encode())
            done.append((style, concept))
    return done, failed


def add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a member that is dated 1970 and owned by nobody, so that it has the same bytes always."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


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


def check_place_and_renderer(out: Path) -> None:
    """BadInput where a file is in the way, or where nothing can draw."""
    for file in FILES:
        if (out / file).exists():
            raise BadInput(f"{out / file} is there already; remove it, or name another folder")
    try:
        import resvg_py  # noqa: F401
    except ImportError:
        raise BadInput(
            "resvg_py, which draws the images, is not installed: pip install resvg-py"
        ) from None


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
    check_place_and_renderer(out)

    # Read the names, then the icons of each style.
    concepts, licences = read_names(packages, seed)
    icons = {}
    lines = []
    for style in (*styles, held_out):
        all_icons, licence = read_style(style, packages)
        licences.append(licence)
        icons[style] = {c.code: all_icons[c.code] for c in concepts if c.code in all_icons}
        lines.append(f"{style}: draws {len(icons[style])} of {len(concepts)} concepts")

    # Everything is written beside its place first, and moved there when all of it is whole.
    parts = {file: out / f"{file}.part" for file in FILES}
    out.mkdir(parents=True, exist_ok=True)
    try:
        failed = []
        tried = 0
        owners = {}
        for tar in TARS:
            samples = plan(tar, concepts, icons, styles, held_out)
            done, failed_here = write_tar(parts[tar], samples, icons, size, owners)
            failed += failed_here
            tried += len(samples)
            shown = {concept.code for _, concept in done}
            drawn_by = ", ".join(dict.fromkeys(style for style, _ in done))
            lines.append(f"{tar}: {len(done)} images of {len(shown)} concepts, drawn by {drawn_by}")

        if len(failed) > MAX_UNUSABLE * tried or not tried:
            first = failed[0] if failed else "none is there"
            raise BadInput(
                f"{len(failed)} of {tried} icons cannot be used at --size {size}, more than "
                f"{MAX_UNUSABLE:.0%}; the first: {first}; try another --size, or fetch the "
                "packages again"
            )
        if failed:
            lines.append(f"skipped {len(failed)} of {tried} icons: {', '.join(failed)}")

        rows = [LICENCE_COLUMNS, *licences]
        table = "".join("\t".join(row) + "\n" for row in rows)
        parts["LICENSES.tsv"].write_text(table, "utf-8")
        flags = f"--size {size} --styles {' '.join(styles)} --held-out {held_out} --seed {seed}"
        list_of_lines = "\n".join(f"- {line}" for line in lines)
        readme = README.format(size=size, flags=flags, lines=list_of_lines)
        parts["README.md"].write_text(readme, "utf-8")

        for file, part in parts.items():
            os.replace(part, out / file)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
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
        help=f"of train, val and test (default all of {', '.join(STYLES)})",
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
    args = parser.parse_args()
    lines = build(args.out, args.size, args.styles, args.held_out, args.packages, args.seed)
    print(*lines, sep="\n")
    print(
        f"wrote {args.out}; next: python train.py --data {args.out}/train.tar "
        f"--val-data {args.out}/test.tar --image-size {args.size} --epochs 30 --out runs/emoji"
    )


if __name__ == "__main__":
    sys.exit(run(main))
