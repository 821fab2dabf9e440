"""Emoji: a captioned picture set from openly licensed drawings, built where it is used.

    python -m data.world.emoji OUT [--size 64] [--styles noto twemoji ...] [--held-out openmoji] [--packages FOLDER] [--seed 0]

The drawings (SVG) come from npm packages, one a style, names and keywords from another: `npm pack` fetches them on first use,
or --packages names their folder. They are read as streams, and nothing is unpacked. A drawing and a name belong together by
their code points; resvg_py draws (pip install resvg-py). Building twice gives the same bytes:

    train.tar, val.tar, test.tar   about 80, 8 and 12 % of the concepts, in all styles but the held-out one
    style.tar, both.tar            the held-out style: of the concepts of train.tar, and of those of test.tar
    LICENSES.tsv, README.md        whose drawings they are, and how the files were made

A tar is a WebDataset shard of KEY.png, KEY.txt (the name) and KEY.json (caption; long_caption, the name and keywords;
category, concept, group, style); KEY is the style and the code points. A concept is one emoji. Left out are all tones of skin
but the neutral one, swatches of skin and hair, and flags of countries and regions with the letters that spell them: they
differ by a name that must be known, not by a thing to be seen. What differs only in gender, age, family, hair or direction is
one group, and so are all clock faces and all keycaps. No group is in two splits, so that no test picture is a training
picture turned round; a hash of the group's name chooses its split. Where a set has one picture for two groups, the first
group keeps it.
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
from hashlib import blake2b
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from data.common import BadInput, cache_dir, interpreting, run
from data.images.read import MAX_UNREADABLE

STYLES = {
    "noto": ("@iconify-json/noto", "1.2.9"),
    "twemoji": ("@iconify-json/twemoji", "1.2.5"),
    "openmoji": ("@iconify-json/openmoji", "1.2.29"),
    "fluent-emoji-flat": ("@iconify-json/fluent-emoji-flat", "1.2.6"),
}
NAMES = ("emojibase-data", "17.0.0")
TARS = {
    "train.tar": "train",
    "val.tar": "val",
    "test.tar": "test",
    "style.tar": "train",
    "both.tar": "test",
}  # their splits
FILES = (*TARS, "LICENSES.tsv", "README.md")
LEFT_OUT = {"component", "country-flag", "subdivision-flag"}
# Words that tell the variants of one drawing apart, and words that say by themselves which group a concept is in.
VARIANTS = set(
    """man men woman women person people adult male female boy girl old older left right up down leftwards rightwards
    upwards downwards waxing waning first last next and with of""".split()
)
KINDS = {
    "o’clock": "clock",
    "thirty": "clock",
    "family": "family",
    "claus": "claus",
    "prince": "royal",
    "princess": "royal",
}
LICENCES = """style\tpackage\tversion\tlicence\turl\tauthor
names\temojibase-data\t{}\tMIT\thttps://www.npmjs.com/package/emojibase-data\tMiles Johnson
names\tCLDR, in emojibase-data\t\tUnicode-3.0\thttps://www.unicode.org/license.txt\tUnicode, Inc.
"""
README = """# Emoji: captioned pictures, {size} x {size}

    python -m data.world.emoji OUT --size {size} --styles {styles} --held-out {held_out} --seed {seed}

{lines}

style.tar shows the concepts of train.tar, both.tar those of test.tar; train, val and test share no caption. The drawings are
others' work, reduced to pixels on white: `LICENSES.tsv` says whose, and by which licence each may be passed on.
"""


def find_package(name, version, folder):
    """The .tgz of a package: from a user's folder, in any version, or from the cache, where npm puts it on first use."""
    stem = name.removeprefix("@").replace("/", "-")
    if folder:
        if len(found := list(Path(folder).glob(f"{stem}-[0-9]*.tgz"))) != 1:
            raise BadInput(
                f"{folder}: {len(found) or 'no'} files {stem}-VERSION.tgz where one is needed; to fetch it: "
                f"npm pack {name}@{version}"
            )
        return found[0]
    target = cache_dir() / "npm" / f"{stem}-{version}.tgz"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        print(f"fetching {name} {version} into {target.parent}", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=target.parent) as tmp:
            try:
                subprocess.run(
                    ["npm", "pack", f"{name}@{version}", "--loglevel=error", "--fetch-retries=1"],
                    cwd=tmp,
                    check=True,
                    capture_output=True,
                    text=True,
                )
            except (FileNotFoundError, subprocess.CalledProcessError) as error:
                reason = " ".join(
                    (getattr(error, "stderr", "") or str(error)).replace("npm error", "").split()
                )[:160]
                raise BadInput(
                    f"npm could not fetch {name}@{version} ({reason}); install Node.js and connect to the network "
                    "once, or name a folder that holds the packages with --packages"
                ) from error
            os.replace(Path(tmp) / target.name, target)
    return target


def read_package(path, *files):
    """The json of some files of a package, in their order."""
    found = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                file = member.name.partition("/")[2]  # npm packs one folder
                if member.isfile() and file in files:
                    found[file] = json.load(tar.extractfile(member))
    except Exception as error:  # tarfile, zlib and json raise half a dozen types for a damaged file
        raise BadInput(
            f"{path}: cannot be read as an npm package ({error}); remove it and fetch it again"
        ) from error
    if missing := [file for file in files if file not in found]:
        raise BadInput(
            f"{path}: no {missing[0]} in it; this is another package, or damaged: remove it and fetch it again"
        )
    return [found[file] for file in files]


def code_of(hexcode):
    """Code points as a key, without the sign that asks for a coloured drawing: some sets leave it out."""
    return hexcode.lower().replace("-fe0f", "")


def group_of(code, names):
    """What is left of a concept's name, or of the name of the plainer emoji in its code points, without VARIANTS.

    A woman farmer is written as woman and sheaf of rice, a mermaid as merperson and female sign.
    """
    plain = re.sub(
        "^1f(468|469|9d1)-200d-|-200d-(2640|2642|27a1)", "", code
    )  # someone and ...; female, male, facing right
    own, words = (
        re.findall(r"[\w’]+", names.get(c, names[code]).lower().partition(":")[0])
        for c in (code, plain)
    )
    kinds = [KINDS[word] for word in own if word in KINDS]
    return (
        kinds[0] if kinds else " ".join(word for word in words if word not in VARIANTS) or "person"
    )


def read_concepts(entries, meta, seed):
    """emojibase-data -> [(split, {caption, long_caption, category, concept, group})], by code points."""
    concepts, placed = {}, []
    for entry in entries:
        if "group" in entry:  # the letters that spell flags have none
            category = (
                meta["groups"][str(entry["group"])],
                meta["subgroups"][str(entry["subgroup"])],
            )
            if LEFT_OUT.isdisjoint(category):
                code, name = code_of(entry["hexcode"]), entry["label"]
                words = ", ".join(
                    tag for tag in entry.get("tags", []) if tag.lower() != name.lower()
                )
                concepts[code] = {
                    "caption": name,
                    "long_caption": f"{name}: {words}" if words else name,
                    "category": "/".join(category),
                    "concept": code,
                }
    names = {code: concept["caption"] for code, concept in concepts.items()}
    for code in sorted(concepts):
        group = group_of(code, names)
        share = (
            int.from_bytes(blake2b(f"{seed}/{group}".encode(), digest_size=8).digest(), "big")
            / 2**64
        )
        split = "train" if share < 0.80 else "val" if share < 0.88 else "test"
        placed.append((split, concepts[code] | {"group": group}))
    return placed


def draw(icon, size):
    """An icon as PNG, size x size, RGB on white. ValueError says why it cannot be drawn."""
    import resvg_py

    if re.search(r"href\s*=\s*[\"'](?!#)", icon["body"]):
        raise ValueError("it shows another file")  # which might be any picture on this machine
    box = [
        icon.get(*side) for side in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    ]  # (the format's defaults)
    png = resvg_py.svg_to_bytes(
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{size}" height="{size}" '
        f'viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>',
        background="white",
        skip_system_fonts=True,
    )
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(out, "PNG")
    return out.getvalue()


def write_tar(path, samples, size, owners):
    """Draw [(style, icon, concept)] into a shard. owners: {(style, png): group}, of all shards so far.

    Returns [(style, code points)] of what is in it and ["key (why)"] of what is not.
    """
    done, failed = [], []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for style, icon, concept in tqdm(
            samples, desc=f"drawing {path.stem}", unit="picture", dynamic_ncols=True, disable=None
        ):
            key = f"{style}_{concept['concept']}"
            try:
                png = draw(icon, size)
                if (
                    owners.setdefault((style, png), concept["group"]) != concept["group"]
                ):  # a slip of the set's;
                    raise ValueError(
                        f"the same picture as {owners[style, png]}"
                    )  # they may be in two splits
            except (ValueError, OSError) as error:
                failed.append(f"{key} ({error})")
                continue
            about = json.dumps(concept | {"style": style}, ensure_ascii=False).encode()
            for suffix, content in (
                ("json", about),
                ("png", png),
                ("txt", concept["caption"].encode()),
            ):
                member = tarfile.TarInfo(
                    f"{key}.{suffix}"
                )  # dated 1970, owned by nobody: the same bytes everywhere
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            done.append((style, concept["concept"]))
    return done, failed


def build(out, size=64, styles=(), held_out="openmoji", packages="", seed=0):
    """Write FILES into a folder, all or none of them. Returns lines that say what they hold."""
    out, styles = (
        Path(out),
        list(dict.fromkeys(style for style in styles or STYLES if style != held_out)),
    )
    if unknown := [style for style in (*styles, held_out) if style not in STYLES]:
        raise BadInput(f"style {unknown[0]!r} is unknown; choose from {', '.join(STYLES)}")
    if not styles:
        raise BadInput(
            f"--styles names none besides {held_out}, which is held out; name another, or change --held-out"
        )
    if there := [out / file for file in FILES if (out / file).exists()]:
        raise BadInput(f"{there[0]} is there already; remove it, or name another folder")
    try:
        import resvg_py  # noqa: F401
    except ImportError:
        raise BadInput(
            "resvg_py, which draws the pictures, is not installed: pip install resvg-py"
        ) from None
    with interpreting(path := find_package(*NAMES, packages)):
        package, *sheets = read_package(path, "package.json", "en/data.json", "meta/groups.json")
        concepts, icons, licences = (
            read_concepts(*sheets, seed),
            {},
            LICENCES.format(package["version"]),
        )
    for style in (*styles, held_out):
        with interpreting(path := find_package(*STYLES[style], packages)):
            package, info, sheet, chars = read_package(
                path, "package.json", "info.json", "icons.json", "chars.json"
            )
            drawn = {
                code_of(code): sheet | sheet["icons"][name]
                for code, name in chars.items()
                if name in sheet["icons"]
            }
            icons[style] = {
                c["concept"]: drawn[c["concept"]] for _, c in concepts if c["concept"] in drawn
            }
            licence, author = info["license"], info["author"]
            licences += "\t".join(
                (
                    style,
                    package["name"],
                    package["version"],
                    licence["spdx"],
                    licence["url"],
                    f"{author['name']}, {author['url']}\n",
                )
            )
    lines = [f"{style}: draws {len(icons[style])} of {len(concepts)} concepts" for style in icons]
    parts, failed, tried, owners = {file: out / f"{file}.part" for file in FILES}, [], 0, {}
    out.mkdir(parents=True, exist_ok=True)
    try:
        for tar, split in TARS.items():
            samples = [
                (style, icons[style][c["concept"]], c)
                for its, c in concepts
                if its == split
                and any(
                    c["concept"] in icons[style] for style in styles
                )  # not the held-out one alone
                for style in (styles if tar == f"{split}.tar" else [held_out])
                if c["concept"] in icons[style]
            ]
            done, bad = write_tar(parts[tar], samples, size, owners)
            failed, tried = failed + bad, tried + len(samples)
            lines.append(
                f"{tar}: {len(done)} pictures of {len({concept for _, concept in done})} concepts, drawn by "
                f"{', '.join(dict.fromkeys(style for style, _ in done))}"
            )
        if len(failed) > MAX_UNREADABLE * tried or not tried:
            raise BadInput(
                f"{len(failed)} of {tried} icons cannot be used at --size {size}, more than {MAX_UNREADABLE:.0%}; "
                f"the first: {[*failed, 'none is there'][0]}; try another --size, or fetch the packages again"
            )
        if failed:
            lines.append(f"skipped {len(failed)} of {tried} icons: {', '.join(failed)}")
        parts["LICENSES.tsv"].write_text(licences, "utf-8")
        parts["README.md"].write_text(
            README.format(
                size=size,
                styles=" ".join(styles),
                held_out=held_out,
                seed=seed,
                lines="\n".join(f"- {line}" for line in lines),
            ),
            "utf-8",
        )
        for file, part in parts.items():
            os.replace(part, out / file)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return lines


def main():
    parser = argparse.ArgumentParser(
        description="Build a captioned picture set from openly licensed emoji."
    )
    parser.add_argument("out", help="folder to write into")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default 64)")
    parser.add_argument(
        "--styles",
        nargs="+",
        default=[],
        help=f"of train, val and test (default all of {', '.join(STYLES)})",
    )
    parser.add_argument(
        "--held-out",
        default="openmoji",
        help="the style of style.tar and both.tar (default openmoji)",
    )
    parser.add_argument(
        "--packages",
        default="",
        help="folder with the packages' .tgz files (default: npm fetches them)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the splits (default 0)")
    args = parser.parse_args()
    print(*build(**vars(args)), sep="\n")
    print(
        f"wrote {args.out}; next: python train.py --data {args.out}/train.tar --val-data {args.out}/test.tar --image-size "
        f"{args.size} --epochs 30 --out runs/emoji"
    )


if __name__ == "__main__":
    sys.exit(run(main))
