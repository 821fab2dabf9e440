"""Icons become shards of captioned images. The sets of icons, emoji.py and icons.py, share this.

Words used here. A *concept* is a thing that is drawn, with its captions. A *style* is one way to
draw concepts. An *icon* is the vector drawing (SVG, scalable vector graphics) of a concept in a
style. Concepts that look alike form a *group*, and a whole group is in one split.

    train.tar, val.tar, test.tar   about 80, 8 and 12 % of the groups, in all styles but some
    style.tar                      the concepts of train.tar in the styles that are held out
    both.tar                       the concepts of test.tar in the styles that are held out

A tar is a WebDataset shard. Each image has three members: KEY.png, KEY.txt (the caption), and
KEY.json (caption, long_caption, category, concept, group, style). KEY is the style and the code of
the concept. Building twice gives the same bytes.
"""

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from data.common import BadInput, progress

# file: the split whose concepts it shows
SEEN_STYLES = {"train.tar": "train", "val.tar": "val", "test.tar": "test"}
HELD_OUT_STYLES = {"style.tar": "train", "both.tar": "test"}
TARS = SEEN_STYLES | HELD_OUT_STYLES

# More unusable icons than this share mean that a package is damaged, so the build stops.
MAX_UNUSABLE = 0.05


# --------------------------------------------------------------------------------------------------
# Concepts and splits.


@dataclass(frozen=True)
class Concept:
    """What a KEY.json says of an image, but for the style, and the split that the image is in."""

    code: str  # names it in keys
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


Icons = Mapping[str, Mapping[str, str]]  # {style: {code of a concept: SVG}}


def share_of(text: str, seed: int) -> float:
    """A number in [0, 1) that the text and the seed alone decide. It is spread evenly."""
    value = blake2b(f"{seed}/{text}".encode(), digest_size=8).digest()
    return int.from_bytes(value, "big") / 2**64


def split_of(group: str, seed: int) -> str:
    """The split of a group. Its name and the seed alone decide it, whatever other groups exist."""
    share = share_of(group, seed)
    if share < 0.80:
        return "train"
    return "val" if share < 0.88 else "test"


def plan(
    tar: str,
    concepts: Sequence[Concept],
    icons: Icons,
    styles: Sequence[str],
    held_out: Sequence[str],
) -> list[tuple[str, Concept]]:
    """Which (style, concept) a tar will show.

    styles    of train.tar, val.tar and test.tar
    held_out  of style.tar and both.tar. A concept that only these draw is left out everywhere.
    """
    samples = []
    for concept in concepts:
        is_drawn = any(concept.code in icons[style] for style in styles)
        if concept.split != TARS[tar] or not is_drawn:
            continue
        for style in held_out if tar in HELD_OUT_STYLES else styles:
            if concept.code in icons[style]:
                samples.append((style, concept))
    return samples


# --------------------------------------------------------------------------------------------------
# Drawing and writing.


def check_renderer() -> None:
    """BadInput where nothing can draw. It is asked before anything is fetched."""
    try:
        import resvg_py  # noqa: F401
    except ImportError:
        raise BadInput(
            "resvg_py, which draws the images, is not installed: pip install resvg-py"
        ) from None


def render(svg: str, size: int) -> bytes:
    """An icon as a PNG file: size x size, RGB on white. ValueError says why it cannot be drawn."""
    import resvg_py

    # A link to anything but a part of the same icon might show any image of this machine.
    if re.search(r"href\s*=\s*[\"'](?!#)", svg):
        raise ValueError("it shows another file")
    png = resvg_py.svg_to_bytes(resized(svg, size), background="white", skip_system_fonts=True)
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(out, "PNG")
    return out.getvalue()


def resized(svg: str, size: int) -> str:
    """An icon whose width and height are `size`. What is drawn keeps its shape, by the viewBox."""

    def replace(tag: re.Match) -> str:
        others = re.sub(r"""(?<![\w-])(width|height)\s*=\s*("[^"]*"|'[^']*')""", "", tag[1])
        return f'<svg width="{size}" height="{size}"{others}>'

    return re.sub(r"<svg\b([^>]*)>", replace, svg, count=1)


def write_tar(
    path: Path,
    samples: Sequence[tuple[str, Concept]],
    icons: Icons,
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


def write_tars(
    parts: Mapping[str, Path],
    concepts: Sequence[Concept],
    icons: Icons,
    styles: Sequence[str],
    held_out: Sequence[str],
    size: int,
) -> tuple[dict[str, list[tuple[str, Concept]]], list[str]]:
    """Write TARS -> ({tar: the (style, concept) in it}, lines that say what they hold).

    parts  {tar: where to write it}
    size   pixels per side

    BadInput where too many icons cannot be drawn.
    """
    shown = {}
    lines = []
    failed = []
    tried = 0
    owners = {}
    for tar in TARS:
        samples = plan(tar, concepts, icons, styles, held_out)
        shown[tar], failed_here = write_tar(parts[tar], samples, icons, size, owners)
        failed += failed_here
        tried += len(samples)
        codes = {concept.code for _, concept in shown[tar]}
        drawn_by = ", ".join(dict.fromkeys(style for style, _ in shown[tar]))
        lines.append(
            f"{tar}: {len(shown[tar])} images of {len(codes)} concepts, drawn by {drawn_by}"
        )

    if len(failed) > MAX_UNUSABLE * tried or not tried:
        first = failed[0] if failed else "none is there"
        raise BadInput(
            f"{len(failed)} of {tried} icons cannot be used at --size {size}, more than "
            f"{MAX_UNUSABLE:.0%}; the first: {first}; try another --size, or fetch the "
            "packages again"
        )
    if failed:
        lines.append(f"skipped {len(failed)} of {tried} icons: {', '.join(failed)}")
    return shown, lines


# --------------------------------------------------------------------------------------------------
# All files or none.


def check_place(out: Path, files: Sequence[str]) -> None:
    """BadInput where a file is in the way. It is asked before anything is fetched."""
    for file in files:
        if (out / file).exists():
            raise BadInput(f"{out / file} is there already; remove it, or name another folder")


@contextmanager
def all_or_none(out: Path, files: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Yield {file: where to write it}. When the block ends, all of them move to the folder `out`.

    After an error, none is left.
    """
    parts = {file: out / f"{file}.part" for file in files}
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield parts
        for file, part in parts.items():
            os.replace(part, out / file)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
