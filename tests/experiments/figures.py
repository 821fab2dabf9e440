"""Draw the figures of the documentation, in docs/figures: SVG files, and one PNG.

    python -m tests.experiments.figures                          # all of them, in half a minute
    python -m tests.experiments.figures --only lift method-ape   # some of them, by name

    lift          the idea: one tower is trained, the other one reads each caption once
    method-NAME   what a paper trains and what it freezes, made from lift.METHODS
    batch         the pairs of one batch, from the example of batches.find_duplicates
    flow          the way of one image and one caption through the files
    cosines       cosines between captions: raw, centred, whitened; reads the language model
    power         what LIFT learns from vectors whitened to three powers, from its log
    curves        the loss of two runs, from log.jsonl in each; needs the runs of `make demo`
    composition   twelve questions with two answers, from eval.json in each; needs the same runs
    examples      four images, two in colours never seen, and the captions that are found (a PNG)

Each SVG has a white panel of its own, so that it can be read on a light and on a dark page. The
numbers that are drawn also stand in the figure as text.

The helpers come first, then one function per figure.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

import torch
import torch.nn.functional as F
from torch import Tensor

import lift
from data.batches import find_duplicates
from data.benchmarks import held_out
from data.captions import DistinctCaptions
from data.common import BadInput, exit_status, interpreting
from data.page import Page
from data.report import flat, retrieved
from data.world.shapes import caption, make_scenes
from eval import Run, evaluate
from llm_text import TextSource, text_reader, whitening

FOLDER = Path("docs/figures")
DEMO_RUNS = (Path("runs/demo/lift"), Path("runs/demo/lift_ridge"), Path("runs/demo/clip"))

# Lengths are in pixels. GitHub shows a README about 830 pixels wide. A wider drawing shrinks there,
# and its text with it: no text may be lower than SMALL as it is shown.
SMALL = 13
NORMAL = 14
TITLE = 18
LINE = 1.4  # from one line of text to the next, in heights of the text
MARGIN = 20
PADDING = 6  # between a box and its text
STROKE = 1.6  # width of lines
ARROW = 9  # length of an arrow's head
DASHES = {"stroke_dasharray": "6 4"}


class Paint(NamedTuple):
    """The colours of a shape."""

    fill: str
    line: str


INK = "#1f2328"
FAINT = "#57606a"
PALE = "#d0d7de"  # frames and grids
WHITE = "#ffffff"
# All kinds of colour vision tell orange from blue. What is frozen also has a snowflake.
TRAINED = Paint("#fde6cf", "#b04e08")
FROZEN = Paint("#dcebf8", "#1f68ad")
DATA = Paint("#f3f4f6", "#7d8590")
PLAIN = Paint(WHITE, INK)
EMPTY = Paint(WHITE, DATA.line)
BLANK = Paint(WHITE, "none")
POSITIVE = Paint("#d5efe5", "#00795a")
BAND = Paint("#f8f9fb", PALE)
GROUND = Paint("#efe9da", DATA.line)  # the background of example images
BLUE, RED, GREEN = "#2f6fd0", "#cf2f2f", "#3d8f4e"  # the things in them
RUN_COLOURS = ("#006b50", "#d08a00", "#a356b8")  # of each run
TWO_COLOURS = RUN_COLOURS[::2]

# --------------------------------------------------------------------------------------------------
# Helpers: text, boxes, arrows.

Point = tuple[float, float]


def text_width(words: str, size: float, bold: bool = False) -> float:
    """About how wide a text is at most, in pixels: that of the wide font DejaVu Sans.

    Nobody knows which sans-serif font a reader has, so the estimate must not be too small.
    """
    width = 0.0
    for letter in words:
        if letter in " ijlfrtI.,:;'!|()[]/-":
            width += 0.4
        elif letter in "mwMW@%":
            width += 0.98
        else:
            width += 0.65
    return width * size * (1.15 if bold else 1)


def polar(centre: Point, radius: float, angle: float) -> Point:
    """The point at a distance and an angle from a centre."""
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)


def path_of(points: Sequence[Point]) -> str:
    """Points as SVG writes them."""
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points)


class Place(NamedTuple):
    """A rectangle: its upper left corner, its width and its height."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def centre_x(self) -> float:
        return self.x + self.width / 2

    @property
    def centre_y(self) -> float:
        return self.y + self.height / 2


class Drawing:
    """An SVG image that grows element by element. What is drawn later lies above.

    title, description  in words, for readers who cannot see it
    """

    def __init__(self, width: int, height: int, title: str, description: str):
        self.width = width
        self.height = height
        self.lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" role="img">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(description)}</desc>",
        ]
        # The white panel: the colours above it do not depend on the page.
        panel = Place(0.5, 0.5, width - 1, height - 1)
        self.rectangle(panel, Paint(WHITE, PALE), stroke_width=1, rx=10)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*self.lines, "</svg>"]) + "\n", "utf-8")

    def add(self, tag: str, content: str = "", **attributes: object) -> None:
        """One SVG element. Underscores in the names of attributes become hyphens."""
        words = [f"<{tag}"]
        for name, value in attributes.items():
            if isinstance(value, float):
                value = f"{value:.2f}".rstrip("0").rstrip(".")
            words.append(f"{name.replace('_', '-')}={quoteattr(str(value))}")
        self.lines.append(" ".join(words) + f">{content}</{tag}>")

    # ---- Text.

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = SMALL,
        colour: str = INK,
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """One line of text. y is its middle; x is its "start", its "middle" or its "end".

        ValueError for a text that may leave the drawing.
        """
        width = text_width(words, size, bold)
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        if left < 0 or left + width > self.width:
            raise ValueError(f"{words!r} may leave the drawing")
        weight = {"font_weight": "bold"} if bold else {}
        self.add(
            "text",
            escape(words),
            x=float(x),
            y=float(y + 0.35 * size),
            font_size=size,
            fill=colour,
            text_anchor=anchor,
            **weight,
        )

    def text_in(
        self, place: Place, lines: Sequence[str], size: float = SMALL, heading: float = 0
    ) -> None:
        """Lines of text in the middle of a place. With `heading`, the first is bold, of that size.

        ValueError for a line that may be too wide. So a change of words cannot spoil a drawing
        without anybody noticing.
        """
        sizes = [heading or size] + [size] * (len(lines) - 1)
        y = place.centre_y - LINE * sum(sizes) / 2
        for i, (words, line_size) in enumerate(zip(lines, sizes, strict=True)):
            bold = bool(heading) and i == 0
            if text_width(words, line_size, bold) > place.width - 2 * PADDING:
                raise ValueError(f"{words!r} may be too wide for its box")
            y += LINE * line_size
            self.text(
                place.centre_x, y - LINE * line_size / 2, words, line_size, INK, "middle", bold
            )

    # ---- Shapes.

    def rectangle(self, place: Place, paint: Paint, **attributes: object) -> None:
        shape = {"stroke_width": STROKE, "rx": 6} | attributes
        x, y, width, height = (float(number) for number in place)
        self.add(
            "rect",
            x=x,
            y=y,
            width=width,
            height=height,
            fill=paint.fill,
            stroke=paint.line,
            **shape,
        )

    def box(
        self,
        place: Place,
        paint: Paint,
        lines: Sequence[str],
        size: float = SMALL,
        heading: float = NORMAL,
        strip: str = "",
        strip_paint: Paint = FROZEN,
    ) -> None:
        """A rectangle with text. What is painted as frozen gets a snowflake in its corner.

        strip  words for a part of their own at the bottom
        """
        self.rectangle(place, paint)
        upper = place
        if strip:
            strip_place = Place(place.x, place.bottom - 24, place.width, 24)
            upper = place._replace(height=place.height - 24)
            self.round_below(strip_place, strip_paint)
            self.text_in(strip_place, (strip,))
        self.text_in(upper, lines, size, heading)
        if paint == FROZEN:
            self.snowflake((place.right - 13, place.y + 13))

    def round_below(self, place: Place, paint: Paint) -> None:
        """A rectangle whose lower corners are round: the strip of a box."""
        x, y, width, height = place
        path = f"M{x:g} {y:g}h{width:g}v{height - 6:g}a6 6 0 0 1 -6 6h{12 - width:g}"
        path += "a6 6 0 0 1 -6 -6z"
        self.add("path", d=path, fill=paint.fill, stroke=paint.line, stroke_width=STROKE)

    def circle(self, centre: Point, radius: float, paint: Paint, stroke_width: float = 0) -> None:
        x, y = centre
        self.add(
            "circle",
            cx=float(x),
            cy=float(y),
            r=float(radius),
            fill=paint.fill,
            stroke=paint.line,
            stroke_width=float(stroke_width),
        )

    def star(self, centre: Point, radius: float, colour: str) -> None:
        """A star with five points."""
        points = []
        for corner in range(10):
            distance = radius if corner % 2 == 0 else 0.42 * radius
            points.append(polar(centre, distance, math.pi * corner / 5 - math.pi / 2))
        self.add("polygon", points=path_of(points), fill=colour)

    def snowflake(self, centre: Point, radius: float = 7.5) -> None:
        """Six arms, each with two twigs. It marks what is frozen."""
        path = ""
        for arm in range(6):
            angle = math.pi * (arm / 3 + 1 / 6)
            fork = polar(centre, 0.5 * radius, angle)
            path += f"M{path_of([centre, polar(centre, radius, angle)])}"
            for turn in (-0.42, 0.42):
                path += f"M{path_of([fork, polar(centre, 0.9 * radius, angle + turn)])}"
        self.add(
            "path",
            d=path,
            fill="none",
            stroke=FROZEN.line,
            stroke_width=1.3,
            stroke_linecap="round",
        )

    def disk(self, place: Place, paint: Paint) -> None:
        """A cylinder: something that is kept on disk."""
        x, right = place.x, place.right
        depth = 0.16 * place.width
        top, bottom = place.y + depth, place.bottom - depth
        arc = f"A{place.width / 2:g} {depth:g} 0 0"
        path = f"M{x:g} {top:g}{arc} 1 {right:g} {top:g}V{bottom:g}{arc} 1 {x:g} {bottom:g}Z"
        path += f"M{x:g} {top:g}{arc} 0 {right:g} {top:g}"
        self.add("path", d=path, fill=paint.fill, stroke=paint.line, stroke_width=STROKE)

    # ---- Lines.

    def line(self, points: Sequence[Point], colour: str = INK, **attributes: object) -> None:
        shape = {"stroke_width": STROKE, "stroke_linejoin": "round"} | attributes
        self.add("polyline", points=path_of(points), fill="none", stroke=colour, **shape)

    def arrow(self, points: Sequence[Point], colour: str = INK, **attributes: object) -> None:
        """A line through some points, with a head at the last one."""
        (x, y), tip = points[-2:]
        angle = math.atan2(tip[1] - y, tip[0] - x)
        base = polar(tip, -ARROW, angle)
        self.line([*points[:-1], base], colour, **attributes)
        sides = [polar(base, 0.45 * ARROW, angle + turn) for turn in (-math.pi / 2, math.pi / 2)]
        self.add("polygon", points=path_of([tip, *sides]), fill=colour)

    def arrows_right(self, y: float, edges: Sequence[float]) -> None:
        """Arrows at one height, from the 1st to the 2nd edge, the 3rd to the 4th, and so on."""
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            self.arrow([(start + 3, y), (end - 3, y)])

    # ---- Legends.

    def legend(
        self, x: float, y: float, items: Sequence[tuple[Paint, str]], size: float = SMALL
    ) -> None:
        """Small squares, each with its words, from left to right. y is their middle."""
        for paint, words in items:
            self.rectangle(Place(x, y - 10, 20, 20), paint, rx=4)
            if paint == FROZEN:
                self.snowflake((x + 10, y), 7)
            self.text(x + 28, y, words, size)
            x += 28 + text_width(words, size) + 20


# --------------------------------------------------------------------------------------------------
# The idea, and the methods.

LEGEND = ((TRAINED, "trained"), (FROZEN, "frozen: no gradient"), (DATA, "data"))


def example_image(drawing: Drawing, place: Place) -> None:
    """An image of the built-in world, in a square: a large blue circle above a small red star."""
    x, y, side, _ = place
    drawing.rectangle(place, GROUND, rx=4)
    drawing.circle((x + 0.45 * side, y + 0.35 * side), 0.24 * side, Paint(BLUE, "none"))
    drawing.star((x + 0.58 * side, y + 0.79 * side), 0.15 * side, RED)


def draw_features(
    drawing: Drawing, x: float, ys: tuple[float, float], paints: tuple[Paint, Paint], size: float
) -> None:
    """The feature z of the image above, the feature t of the caption below, and their cosine."""
    radius = 1.15 * size
    middle = sum(ys) / 2
    drawing.line([(x, ys[0]), (x, middle - 0.85 * size)])
    drawing.line([(x, middle + 0.85 * size), (x, ys[1])])
    drawing.text(x, middle, "cosine", size, anchor="middle")
    for letter, y, paint in zip("zt", ys, paints, strict=True):
        drawing.circle((x, y), radius, paint, STROKE)
        drawing.text(x, y, letter, size, anchor="middle", bold=True)


def lift_figure() -> Drawing:
    """LIFT: an image tower learns to fit the vectors of a frozen language model."""
    drawing = Drawing(
        900,
        346,
        "LIFT",
        "An image goes through a ViT and a head, both trained, and becomes z. A caption goes "
        "through a frozen language model that reads it once. Its vector is kept on disk, whitened, "
        "and becomes t. The loss InfoNCE compares all z with all t of a batch. Its gradient "
        "reaches the image side only.",
    )
    size, heading = 15, 16  # shown at 830 / 900 of that
    above, below, height = 76, 200, 88  # upper edges of the two rows, and their height
    ys = (above + height / 2, below + height / 2)  # their middles
    words = Place(MARGIN, below, 150, height)
    image = Place(words.centre_x - height / 2, above, height, height)
    tower = Place(200, above, 206, height)
    head = Place(436, above, 190, height)
    disk = Place(434, below + 8, 54, height - 16)
    whitened = Place(516, below, 110, height)
    loss = Place(730, above, 150, below + height - above)
    feature_x = 678

    # Above: the image side, all of it trained. Below: the text side, whose vectors wait on disk.
    drawing.text(image.centre_x, above - 15, "image", size, anchor="middle")
    drawing.text(words.centre_x, below - 15, "caption", size, anchor="middle")
    example_image(drawing, image)
    drawing.box(tower, TRAINED, ("ViT", "trained", "from scratch"), size, heading)
    drawing.box(head, TRAINED, ("head", "2-layer MLP,", "trained"), size, heading)
    drawing.box(words, DATA, ("a large blue", "circle above a", "small red star"), size, 0)
    lines = ("language model", "frozen, reads each", "caption once")
    drawing.box(tower._replace(y=below), FROZEN, lines, size, 15)
    drawing.disk(disk, FROZEN)
    drawing.text(disk.centre_x, disk.centre_y + 5, "disk", size, anchor="middle")
    drawing.box(whitened, FROZEN, ("whitening", "fitted once"), size, 15)

    # The features, what compares them, and the arrows from left to right.
    draw_features(drawing, feature_x, ys, (TRAINED, FROZEN), heading)
    drawing.box(loss, PLAIN, ("InfoNCE", "over the batch", "of B pairs"), size, heading)
    last = (feature_x - 18, feature_x + 18, loss.x)
    drawing.arrows_right(ys[0], (image.right, tower.x, tower.right, head.x, head.right, *last))
    edges = (words.right, tower.x, tower.right, disk.x, disk.right, whitened.x, whitened.right)
    drawing.arrows_right(ys[1], (*edges, *last))

    # The gradient goes back to what is trained, and nowhere else.
    top = 42
    trunk = [(loss.centre_x, above - 3), (loss.centre_x, top), (tower.centre_x, top)]
    drawing.arrow([*trunk, (tower.centre_x, above - 3)], TRAINED.line, **DASHES)
    drawing.arrow([(head.centre_x, top), (head.centre_x, above - 3)], TRAINED.line, **DASHES)
    drawing.text(feature_x, top - 15, "gradient", size, TRAINED.line, "middle")
    drawing.legend(MARGIN, 320, LEGEND, size)
    return drawing


NAMES = {  # of the papers' methods, keys of lift.METHODS
    "clip": "CLIP",
    "lit": "LiT",
    "ape": "APE",
    "lilt": "LilT",
    "llm2clip": "LLM2CLIP",
    "lift": "LIFT",
}
IMAGE_STARTS = {"scratch": "from scratch", "pretrained": "pretrained"}
HEADS = {
    lift.projection: ("projection",),
    lift.projection_with_bias: ("projection", "with bias"),
    lift.mlp: ("2-layer MLP",),
    lift.adaptor: ("adaptor", "residual blocks"),
    lift.ape: ("MLP", "on each token,", "then their mean"),
}
LOSSES = {lift.info_nce: "InfoNCE"}


class TowerWords(NamedTuple):
    """A tower in words."""

    name: str
    start: str  # where its weights come from
    before: str = ""  # what is done before training, to the model or to its vectors


TEXT_TOWERS = {
    lift.TextTransformer: TowerWords("text transformer", "from scratch"),
    lift.LLMVectors: TowerWords("language model", "pretrained", "whitening, fitted once"),
    lift.RawVectors: TowerWords("language model", "pretrained", "tuned on captions first"),
    lift.LLMTokens: TowerWords("language model", "pretrained", "scaling, fitted once"),
    lift.LiveLLM: TowerWords("language model", "pretrained, first blocks"),
}


def draw_tower(drawing: Drawing, place: Place, method: lift.Method, part: str) -> bool:
    """One tower of a method: the part "visual" or "text". Returns whether all of it is frozen."""
    words = TEXT_TOWERS[method.text]
    reads = "reads each caption once"
    if part == "visual":
        words = TowerWords("ViT", IMAGE_STARTS[method.image])
        reads = "reads each image once"

    # All of it is trained.
    if part in method.trains:
        trained = "trained"
        if part == "visual" and method.image_lr_share != 1:
            trained = f"trained at {method.image_lr_share:g} of the rate"
        drawing.box(place, TRAINED, (words.name, words.start, trained))
        return False

    # Parts of it are trained: they get a strip of their own. Then it runs in every step.
    kinds = [kind for kind in ("norms", "biases", "adapters") if kind in method.trains]
    if kinds:
        strip = f"trained: {', '.join(kinds)}"
        drawing.box(place, FROZEN, (words.name, words.start), strip=strip, strip_paint=TRAINED)
        return False

    drawing.box(place, FROZEN, (words.name, words.start, reads), strip=words.before)
    return True


def method_figure(name: str) -> Drawing:
    """What one method trains, made from its entry of lift.METHODS."""
    method = lift.METHODS[name]
    drawing = Drawing(
        700,
        314,
        NAMES[name],
        f"{NAMES[name]}, {method.paper}. The image tower starts as: {method.image}. The text tower "
        f"is {method.text.__name__} of lift.py. Trained: {', '.join(method.trains)}.",
    )
    drawing.text(MARGIN, 30, NAMES[name], TITLE, bold=True)
    drawing.text(700 - MARGIN, 30, method.paper, SMALL, FAINT, "end")

    # Two rows: data, tower, head. Then the features and the loss.
    above, below, height = 56, 166, 94
    ys = (above + height / 2, below + height / 2)
    data = Place(MARGIN, 0, 80, 52)
    tower = Place(128, 0, 206, height)
    head = Place(362, 0, 134, 68)
    loss = Place(578, above, 102, below + height - above)
    feature_x = 537
    feature_paints = []
    for y, words, part, head_part, head_kind in (
        (ys[0], "image", "visual", "image_head", method.image_head),
        (ys[1], "caption", "text", "text_head", method.text_head),
    ):
        data_place, tower_place, head_place = (
            place._replace(y=y - place.height / 2) for place in (data, tower, head)
        )
        drawing.box(data_place, DATA, (words,), heading=0)
        is_frozen = draw_tower(drawing, tower_place, method, part)
        if head_kind is lift.no_head:
            drawing.rectangle(head_place, EMPTY, **DASHES)
            drawing.text_in(head_place, ("no head",))
        else:
            is_trained = head_part in method.trains
            drawing.box(head_place, TRAINED if is_trained else FROZEN, HEADS[head_kind])
            is_frozen = is_frozen and not is_trained
        feature_paints.append(FROZEN if is_frozen else TRAINED)
        edges = (data.right, tower.x, tower.right, head.x, head.right, feature_x - 16)
        drawing.arrows_right(y, (*edges, feature_x + 16, loss.x))

    draw_features(drawing, feature_x, ys, tuple(feature_paints), NORMAL)
    drawing.box(loss, PLAIN, (LOSSES[method.loss], "over", "the batch"))
    drawing.legend(MARGIN, 288, LEGEND)
    return drawing


# --------------------------------------------------------------------------------------------------
# One batch.


class Example(NamedTuple):
    """An image of the example in the docstring of find_duplicates."""

    captions: tuple[str, ...]  # the one that was drawn comes first
    digest: int
    shape: str
    colour: str


BATCH = (
    Example(("a red star", "a star"), 11, "star", RED),
    Example(("a blue ring",), 22, "ring", BLUE),
    Example(("a star",), 33, "star", GREEN),
    Example(("a ring in blue",), 22, "ring", BLUE),
)


def batch_duplicates() -> Tensor:
    """The mask of the example, (B, B) bool, as training makes it."""
    distinct = DistinctCaptions([list(image.captions) for image in BATCH])
    captions_of_image = [torch.from_numpy(distinct.of_image(i)) for i in range(len(BATCH))]
    drawn = torch.tensor([distinct.texts.index(image.captions[0]) for image in BATCH])
    digests = torch.tensor([image.digest for image in BATCH])
    return find_duplicates(captions_of_image, drawn, digests)


def batch_figure() -> Drawing:
    """The pairs of one batch: positive, negative, masked."""
    duplicates = batch_duplicates()
    numbers = range(len(BATCH))
    pairs = [(i, j) for i in numbers for j in numbers]
    masked_pairs = [(i, j) for i, j in pairs if i != j and duplicates[i, j]]
    drawing = Drawing(
        700,
        456,
        "The pairs of one batch",
        "A table with four images as rows and four captions as columns. The diagonal holds the "
        f"positive pairs. These pairs are masked: {', '.join(map(str, masked_pairs))}. All others "
        "are negatives.",
    )
    hatch = (
        '<pattern id="hatch" width="8" height="8" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate(45)"><rect width="8" height="8" fill="{WHITE}"/>'
        f'<rect width="2" height="8" fill="{DATA.line}"/></pattern>'
    )
    drawing.add("defs", hatch)
    masked = Paint("url(#hatch)", DATA.line)
    left, top, width, height = 252, 76, 107, 68  # corner of the table, size of a cell

    # Above and on the left: captions and images.
    for i, image in enumerate(BATCH):
        x = left + width * (i + 0.5)
        drawing.text(x, 34, f"caption {i}", NORMAL, anchor="middle", bold=True)
        drawing.text(x, 56, image.captions[0], SMALL, FAINT, "middle")

        y = top + height * (i + 0.5)
        drawing.rectangle(Place(MARGIN, y - 25, 50, 50), GROUND, rx=4)
        if image.shape == "star":
            drawing.star((MARGIN + 25, y + 1), 18, image.colour)
        else:
            drawing.circle((MARGIN + 25, y), 13, Paint("none", image.colour), 8)
        drawing.text(84, y - 11, f"image {i}", NORMAL, bold=True)
        drawing.text(84, y + 11, ", ".join(image.captions), SMALL, FAINT)

    # The cells. The diagonal comes last, so that its frames lie above.
    for i, j in sorted(pairs, key=lambda pair: pair[0] == pair[1]):
        cell = Place(left + width * j, top + height * i, width, height)
        if i == j:
            drawing.rectangle(cell, POSITIVE, rx=0)
            drawing.text_in(cell, ("positive",), heading=SMALL)
        elif (i, j) in masked_pairs:
            drawing.rectangle(cell, masked, rx=0)
            label = Place(cell.x + 16, cell.centre_y - 12, width - 32, 24)
            drawing.rectangle(label, BLANK, rx=4)
            drawing.text_in(label, ("masked",))
        else:
            drawing.rectangle(cell, EMPTY, rx=0)
            drawing.text(cell.centre_x, cell.centre_y, "negative", SMALL, FAINT, "middle")

    y = top + len(BATCH) * height + 36
    legend = (
        (POSITIVE, "positive: pulled together"),
        (EMPTY, "negative: pushed apart"),
        (masked, "masked: left out"),
    )
    drawing.legend(MARGIN, y, legend)
    words = "Masked: image 0 also has caption 2, and images 1 and 3 are the same image."
    drawing.text(MARGIN, y + 38, words, NORMAL)
    return drawing


# --------------------------------------------------------------------------------------------------
# The way through the files.


def flow_figure() -> Drawing:
    """Which file does what to one image and one caption."""
    drawing = Drawing(
        830,
        796,
        "The way of one image and one caption through the files",
        "Once, before training: data/images/read.py reads images and captions. data/captions.py "
        "finds the distinct captions, llm_text.py reads each once, data/vectors.py keeps the "
        "vectors on disk. In every step: data/batches.py draws images and captions. vit.py and the "
        "head in lift.py turn images into z, lift.py whitens vectors to t and computes the loss, "
        "train.py makes the step. After training: eval.py scores the run.",
    )
    # Three bands, one below the other.
    for y, height, words in (
        (20, 322, "once, before training"),
        (356, 302, "in every step of training"),
        (672, 104, "after training"),
    ):
        band = Place(MARGIN, y, 830 - 2 * MARGIN, height)
        drawing.rectangle(band, BAND, stroke_width=1, rx=8)
        drawing.text(band.centre_x, y + 20, words, NORMAL, FAINT, "middle", bold=True)
    left, right = 2 * MARGIN, 830 - 2 * MARGIN
    wide = right - left

    # Once: both are read, and each distinct caption becomes a vector.
    image = Place(84, 54, 62, 62)
    words = Place(213, 54, 190, 62)
    reader = Place(left, 146, wide, 56)
    distinct = Place(222, 242, 172, 84)
    reads = Place(422, 242, 168, 84)
    keeps = Place(618, 242, 172, 84)
    example_image(drawing, image)
    drawing.box(words, DATA, ("“a large blue circle", "above a small red star”"), heading=0)
    lines = (
        "data/images/read.py",
        "every image becomes a square of pixels; its captions stay text",
    )
    drawing.box(reader, PLAIN, lines)
    drawing.box(distinct, PLAIN, ("data/captions.py", "finds the", "distinct captions"))
    drawing.box(reads, FROZEN, ("llm_text.py", "the language model", "reads each once"))
    drawing.box(keeps, FROZEN, ("data/vectors.py", "keeps one vector", "of each on disk"))

    # In every step: from a batch to a loss, and back to what is trained.
    batches = Place(left, 396, wide, 56)
    tower = Place(left, 494, 150, 60)
    head = Place(218, 494, 150, 60)
    loss = Place(432, 494, 148, 60)
    whitened = Place(640, 494, 150, 60)
    step = Place(left, 588, wide, 56)
    lines = ("data/batches.py", "draws B images, one caption of each, and marks duplicates")
    drawing.box(batches, PLAIN, lines)
    drawing.box(tower, TRAINED, ("vit.py", "image tower"))
    drawing.box(head, TRAINED, ("lift.py", "head"))
    drawing.box(loss, PLAIN, ("lift.py", "InfoNCE"))
    drawing.box(whitened, FROZEN, ("lift.py", "whitening"))
    drawing.box(step, PLAIN, ("train.py", "gradient, then one step of the optimizer"))

    # Afterwards.
    scores = Place(left, 710, wide, 52)
    drawing.box(scores, PLAIN, ("eval.py", "scores held-out images: eval.json and report.png"))

    # Arrows down, each with its words on its right.
    image_x, caption_x, vector_x = image.centre_x, words.centre_x, keeps.centre_x
    for x, y0, y1, label, label_y in (
        (image_x, image.bottom, reader.y, "", 0),
        (caption_x, words.bottom, reader.y, "", 0),
        (image_x, reader.bottom, batches.y, "pixels", 376),
        (caption_x, reader.bottom, distinct.y, "captions", 222),
        (vector_x, keeps.bottom, batches.y, "vectors", 376),
        (image_x, batches.bottom, tower.y, "images", 472),
        (loss.centre_x, batches.bottom, loss.y, "mask", 472),
        (vector_x, batches.bottom, whitened.y, "vectors", 472),
        (loss.centre_x, loss.bottom, step.y, "loss", 570),
        (loss.centre_x, step.bottom, scores.y, "checkpoint.pt", 690),
    ):
        drawing.arrow([(x, y0 + 2), (x, y1 - 2)])
        if label:
            drawing.text(x + 9, label_y, label, SMALL, FAINT)

    # Arrows between the boxes of a row, and the gradient.
    drawing.arrows_right(reads.centre_y, (distinct.right, reads.x, reads.right, keeps.x))
    drawing.arrows_right(tower.centre_y, (tower.right, head.x, head.right, loss.x))
    drawing.arrow([(whitened.x - 3, loss.centre_y), (loss.right + 3, loss.centre_y)])
    drawing.text((head.right + loss.x) / 2, loss.centre_y - 13, "z", SMALL, FAINT, "middle")
    drawing.text((loss.right + whitened.x) / 2, loss.centre_y - 13, "t", SMALL, FAINT, "middle")
    for part in (tower, head):
        drawing.arrow(
            [(part.centre_x, step.y - 2), (part.centre_x, part.bottom + 2)], TRAINED.line, **DASHES
        )
    middle = (tower.centre_x + head.centre_x) / 2
    drawing.text(middle, 571, "gradient", SMALL, TRAINED.line, "middle")
    return drawing


# --------------------------------------------------------------------------------------------------
# Cosines between captions.


def cosines_between(vectors: Tensor) -> Tensor:
    """N vectors (N, D) -> the cosines of all pairs of two of them, (N (N - 1) / 2,)."""
    unit = F.normalize(vectors, dim=1)
    first, second = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.T)[first, second]


def caption_cosines() -> dict[str, Tensor]:
    """{what was done to the vectors: cosines between captions}, by the default language model.

    1,500 captions of the built-in world give the mean and the matrix. 200 of them are compared.
    llm_text.whitening tells the same numbers.
    """
    texts = [caption(scene) for scene in make_scenes("train", 1500)]
    vectors = text_reader("vectors", TextSource(), "cpu")(texts).float()  # (1500, 576)
    mean, matrix = whitening(vectors, 256)
    compared = vectors[:200]
    return {
        "as the language model gives them": cosines_between(compared),
        "after centring": cosines_between(compared - mean),
        "after whitening to the power 1/2": cosines_between((compared - mean) @ matrix),
    }


def cosines_figure() -> Drawing:
    """Three histograms above one axis."""
    cosines_of = caption_cosines()
    drawing = Drawing(
        700,
        582,
        "Cosines between captions",
        "Three histograms of the cosine between two captions: as the language model gives their "
        "vectors, after centring, after whitening. Mean and range stand above each.",
    )
    left, right, height, n_bins = 40, 660, 84, 100
    bases = (200, 350, 500)  # of the histograms

    def x_of(cosine: float) -> float:
        return left + (right - left) * (cosine + 1) / 2

    drawing.text(MARGIN, 30, "How alike are the vectors of two captions?", TITLE, bold=True)
    words = "All pairs of 200 captions. Below each histogram: the mean, and the middle 90 %."
    drawing.text(MARGIN, 58, words, SMALL, FAINT)
    for tick in (-1, -0.5, 0, 0.5, 1):
        for base in bases:
            drawing.line([(x_of(tick), base - height), (x_of(tick), base)], PALE, stroke_width=1)
        drawing.text(x_of(tick), bases[-1] + 32, f"{tick:g}", SMALL, FAINT, "middle")
    drawing.text(x_of(0), bases[-1] + 56, "cosine", anchor="middle")

    for base, (words, cosines) in zip(bases, cosines_of.items(), strict=True):
        low, high = cosines.quantile(torch.tensor([0.05, 0.95])).tolist()
        mean = float(cosines.mean())
        numbers = f"mean {mean:z.2f}, middle 90 % from {low:.2f} to {high:.2f}"
        drawing.text(left, base - height - 20, words, NORMAL, bold=True)
        drawing.text(right, base - height - 20, numbers, anchor="end")

        # The bars. The highest one has the same height in each histogram.
        counts = torch.histc(cosines, n_bins, -1, 1)
        shares = counts / counts.max()
        width = 2 / n_bins  # of a bar, in cosines
        for i, share in enumerate(shares.tolist()):
            bar = Place(x_of(-1 + i * width), base - height * share, 6.2, height * share)
            if share:
                drawing.rectangle(bar, Paint(FROZEN.line, WHITE), stroke_width=0.5, rx=0)
        drawing.line([(left, base), (right, base)], stroke_width=1)
        drawing.line([(x_of(low), base + 11), (x_of(high), base + 11)], stroke_width=3)
        drawing.line([(x_of(mean), base + 5), (x_of(mean), base + 17)], stroke_width=2)
    return drawing


# --------------------------------------------------------------------------------------------------
# What the power of whitening does to learning.

POWER_LOG = Path("docs/results/whiten_power.md")
POWER_SCORES = {  # as the log calls them, and as the figure does
    "compositional replace_rel": "relations",
    "retrieval i2t R@1": "retrieval, R@1",
    "compositional swap_att": "exchanged attributes",
    "unseen_words i2t": "new words, R@1",
}


def scores_by_power(directions: int) -> tuple[list[str], dict[str, list[float]]]:
    """(powers, {name of a score: its value for each power}) from the log's table."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in POWER_LOG.read_text().splitlines()
        if line.startswith("| ")
    ]
    columns = [i for i, cell in enumerate(rows[0]) if cell.endswith(f", {directions}")]
    values = {row[0]: [float(row[i]) for i in columns] for row in rows[1:]}
    powers = [rows[0][i].split(",")[0] for i in columns]
    return powers, {name: values[score] for score, name in POWER_SCORES.items()}


def power_figure() -> Drawing:
    """Four scores of LIFT against the power of whitening."""
    powers, scores = scores_by_power(256)
    told = [f"{name} {', '.join(map(str, values))}" for name, values in scores.items()]
    drawing = Drawing(
        700,
        508,
        "What the power of whitening does to learning",
        f"Four lines over the powers {', '.join(powers)}, in per cent: {'; '.join(told)}.",
    )
    plot = Place(70, 84, 420, 230)
    colours = (*RUN_COLOURS, INK)

    def point(number: int, score: float) -> Point:
        x = plot.x + plot.width * number / (len(powers) - 1)
        return x, plot.bottom - plot.height * score / 100

    drawing.text(MARGIN, 30, "What the power of whitening does to learning", TITLE, bold=True)
    words = "LIFT in per cent, one run for each power, 256 directions, validation scenes"
    drawing.text(MARGIN, 58, words, SMALL, FAINT)
    for score in range(0, 101, 20):
        _, y = point(0, score)
        drawing.line([(plot.x, y), (plot.right, y)], PALE, stroke_width=1)
        drawing.text(plot.x - 10, y, str(score), SMALL, FAINT, "end")
    for number, power in enumerate(powers):
        drawing.text(point(number, 0)[0], plot.bottom + 17, power, SMALL, FAINT, "middle")
    drawing.text(
        plot.centre_x, plot.bottom + 42, "power: 0 centres, 1 whitens fully", anchor="middle"
    )

    for values, colour in zip(scores.values(), colours, strict=True):
        points = [point(number, score) for number, score in enumerate(values)]
        drawing.line(points, colour, stroke_width=2.4)
        for x, y in points:
            drawing.circle((x, y), 3.5, Paint(colour, WHITE), 0.8)
    ends = [point(0, values[-1])[1] for values in scores.values()]
    for y, name, colour in zip(moved_apart(ends, 20), scores, colours, strict=True):
        drawing.text(plot.right + 12, y, name, SMALL, colour, bold=True)

    # The same in numbers.
    y = plot.bottom + 84
    drawing.line([(MARGIN, y - 18), (700 - MARGIN, y - 18)], PALE, stroke_width=1)
    drawing.text(MARGIN, y, "power", SMALL, FAINT)
    for i, power in enumerate(powers):
        drawing.text(280 + 75 * i, y, power, SMALL, FAINT, "end")
    for (name, values), colour in zip(scores.items(), colours, strict=True):
        y += 22
        drawing.text(MARGIN, y, name, SMALL, colour, bold=True)
        for i, score in enumerate(values):
            drawing.text(280 + 75 * i, y, f"{score:.1f}", SMALL, INK, "end")
    return drawing


# --------------------------------------------------------------------------------------------------
# Runs: the losses of two, and how two or three choose between captions.

# By the name of the folder. Others keep theirs.
RUN_NAMES = {"lift": "LIFT", "lift_ridge": "LIFT + matrix", "clip": "CLIP"}


def run_name(folder: Path) -> str:
    return RUN_NAMES.get(folder.name, folder.name)


def read_run_file(path: Path) -> str:
    """The text of a file of a run. BadInput, with what to do, where it is missing."""
    if not path.is_file():
        raise BadInput(
            f"{path}: no such file; make it (make demo), name other runs (--runs), or draw other "
            "figures (--only)"
        )
    return path.read_text()


def read_log(folder: Path) -> list[dict]:
    """The entries of log.jsonl that have a loss, by step; of equal steps the last."""
    path = folder / "log.jsonl"
    entries = {}
    with interpreting(path):
        for line in read_run_file(path).splitlines():
            entry = json.loads(line)
            if "loss" in entry:
                entries[entry["step"]] = entry
        if len(entries) < 2:
            raise BadInput("a curve needs two entries with a loss; train for longer")
    return [entries[step] for step in sorted(entries)]


def read_scores(folder: Path, names: Iterable[str]) -> dict[str, tuple[float, float, float]]:
    """{name of a score: (value, low, high)} from eval.json, in per cent."""
    path = folder / "eval.json"
    with interpreting(path):
        scores = json.loads(read_run_file(path))
        values, intervals = flat(scores), flat(scores["ci95"])
        return {name: tuple(100 * v for v in (values[name], *intervals[name])) for name in names}


def ticks(highest: float, at_most: int) -> list[float]:
    """Round numbers from 0 on, equally far apart, of which the last is the first above `highest`.

    >>> ticks(312, at_most=7)
    [0, 50, 100, 150, 200, 250, 300, 350]
    """
    power = 10 ** math.floor(math.log10(highest / at_most))
    distance = next(d * power for d in (1, 2, 5, 10) if highest <= d * power * at_most)
    count = math.ceil(highest / distance)
    return [distance * i for i in range(count + 1)]


def moved_apart(positions: Sequence[float], distance: float) -> list[float]:
    """Positions of labels, moved down where one is nearer than `distance` to the one above it."""
    moved = list(positions)
    order = sorted(range(len(moved)), key=lambda i: moved[i])
    for above, below in zip(order, order[1:], strict=False):
        moved[below] = max(moved[below], moved[above] + distance)
    return moved


def spread_out(entries: Sequence[dict], at_most: int) -> list[dict]:
    """Some entries at equal distances, the first and the last among them."""
    count = min(at_most, len(entries))
    return [entries[round(i * (len(entries) - 1) / (count - 1))] for i in range(count)]


def curves_figure(runs: Sequence[Path]) -> Drawing:
    """The losses of two runs by step, of the first and of the last one that are named."""
    runs = (runs[0], runs[-1])
    logs = [read_log(folder) for folder in runs]
    names = [run_name(folder) for folder in runs]
    ln_batch = logs[0][-1]["ln_batch"]
    last = max(log[-1]["step"] for log in logs)
    losses = ticks(max(entry["loss"] for log in logs for entry in log), 7)
    told = [
        f"{name} from {log[0]['loss']:.2f} to {log[-1]['loss']:.2f}"
        for name, log in zip(names, logs, strict=True)
    ]
    drawing = Drawing(
        700,
        494,
        "Loss in training",
        f"Two curves of the loss by step: {' and '.join(told)}. A dashed line at {ln_batch:.2f} is "
        "the loss of a guess.",
    )
    plot = Place(70, 64, 520, 266)

    def point(step: float, loss: float) -> Point:
        return plot.x + plot.width * step / last, plot.bottom - plot.height * loss / losses[-1]

    # The axes.
    drawing.text(MARGIN, 30, "Loss in training", TITLE, bold=True)
    drawing.text(700 - MARGIN, 30, "dashed: ln B, the loss of a guess", SMALL, FAINT, "end")
    for loss in losses:
        _, y = point(0, loss)
        drawing.line([(plot.x, y), (plot.right, y)], PALE, stroke_width=1)
        drawing.text(plot.x - 10, y, f"{loss:g}", SMALL, FAINT, "end")
    for step in ticks(last, 7):
        if step <= last:
            x, y = point(step, 0)
            drawing.line([(x, y), (x, y + 5)], stroke_width=1)
            drawing.text(x, y + 17, f"{step:g}", SMALL, FAINT, "middle")
    drawing.line([(plot.x, plot.bottom), (plot.right, plot.bottom)], stroke_width=1)
    drawing.text(plot.centre_x, plot.bottom + 42, "step of training", anchor="middle")
    turned = f"translate(28 {plot.centre_y:g}) rotate(-90)"
    drawing.add(
        "text", "loss: InfoNCE", font_size=SMALL, fill=INK, text_anchor="middle", transform=turned
    )

    # What guessing costs, and the curves: circles mark the first run, squares the second.
    guess = point(last, ln_batch)
    drawing.line([(plot.x, guess[1]), guess], **DASHES)
    for number, (log, colour) in enumerate(zip(logs, TWO_COLOURS, strict=True)):
        points = [point(entry["step"], entry["loss"]) for entry in log]
        drawing.line(points, colour, stroke_width=2.4)
        for x, y in points:
            mark = Place(x - 3.5, y - 3.5, 7, 7)
            round_corner = 3.5 if number == 0 else 0
            drawing.rectangle(mark, Paint(colour, WHITE), stroke_width=0.8, rx=round_corner)

    # Each line has its name at its end.
    ends = [guess[1], *(point(last, log[-1]["loss"])[1] for log in logs)]
    labels = (f"ln B = {ln_batch:.2f}", *names)
    for y, label, colour in zip(moved_apart(ends, 20), labels, (INK, *TWO_COLOURS), strict=True):
        drawing.text(plot.right + 12, y, label, SMALL, colour, bold=colour != INK)

    # The same in numbers.
    shown = [entry["step"] for entry in spread_out(logs[0], 8)]
    y = plot.bottom + 84
    drawing.line([(MARGIN, y - 18), (700 - MARGIN, y - 18)], PALE, stroke_width=1)
    drawing.text(MARGIN, y, "step", SMALL, FAINT)
    for i, step in enumerate(shown):
        drawing.text(150 + 75 * i, y, str(step), SMALL, FAINT, "end")
    for log, name, colour in zip(logs, names, TWO_COLOURS, strict=True):
        y += 24
        drawing.text(MARGIN, y, name, SMALL, colour, bold=True)
        loss_at = {entry["step"]: entry["loss"] for entry in log}
        for i, step in enumerate(shown):
            if step in loss_at:
                drawing.text(150 + 75 * i, y, f"{loss_at[step]:.2f}", SMALL, INK, "end")
    return drawing


# Every question with two answers, and its score in eval.json.
CHOICES = {
    "compositional add_obj": "object added",
    "compositional add_att": "attribute added",
    "compositional replace_obj": "object replaced",
    "compositional replace_att": "attribute replaced",
    "compositional replace_rel": "relation replaced",
    "compositional swap_obj": "objects exchanged",
    "compositional swap_att": "attributes exchanged",
    "both_ends replace_rel": "relation, both ends",
    "both_ends swap_att": "attributes, both ends",
    "half_truth": "half-truths",
    "unseen_words two_way": "colours never seen",
    "unseen_compounds two_way": "new pairs of words",
}
MEAN = "compositional mean"


def composition_figure(runs: Sequence[Path]) -> Drawing:
    """How often the true caption wins against a false one, for twelve kinds, two or three runs."""
    scores = [read_scores(folder, (*CHOICES, MEAN)) for folder in runs]
    names = [run_name(folder) for folder in runs]
    means = [f"{name} {one[MEAN][0]:.1f}" for name, one in zip(names, scores, strict=True)]
    drawing = Drawing(
        760,
        884,
        "False captions of twelve kinds",
        "Bars with 95 % intervals: how often an image is nearer to its true caption than to a "
        f"false one, for {', '.join(names)}. Chance is 50. Mean of the first seven kinds: "
        f"{', '.join(means)}.",
    )
    plot = Place(196, 94, 390, 696)
    group, thickness = plot.height / len(CHOICES), 17 if len(runs) == 2 else 14
    colours = TWO_COLOURS if len(runs) == 2 else RUN_COLOURS

    def x_of(score: float) -> float:
        return plot.x + plot.width * score / 100

    # Title, legend and axis.
    words = "Is the true caption nearer than the false one?"
    drawing.text(MARGIN, 30, words, TITLE, bold=True)
    drawing.legend(plot.x, 68, [(Paint(c, c), n) for c, n in zip(colours, names, strict=True)])
    drawing.text(760 - MARGIN, 68, "%, and 95 % interval", SMALL, FAINT, "end")
    for tick in (0, 25, 50, 75, 100):
        drawing.line([(x_of(tick), plot.y), (x_of(tick), plot.bottom)], PALE, stroke_width=1)
        drawing.text(x_of(tick), plot.bottom + 17, f"{tick}", SMALL, FAINT, "middle")
    drawing.text(x_of(50), plot.bottom + 42, "% of images; 50 is chance", anchor="middle")
    words = f"mean of the first seven: {', '.join(means)}"
    drawing.text(760 - MARGIN, plot.bottom + 68, words, anchor="end")

    # One group of bars per kind.
    for row, (category, words) in enumerate(CHOICES.items()):
        middle = plot.y + group * (row + 0.5)
        name = category.removeprefix("compositional ").removeprefix("both_ends ").split()[0]
        drawing.text(plot.x - 12, middle - 10, words, anchor="end")
        drawing.text(plot.x - 12, middle + 10, f"({name})", SMALL, FAINT, "end")
        for i, (run_scores, colour) in enumerate(zip(scores, colours, strict=True)):
            value, low, high = run_scores[category]
            y = middle + (i - (len(runs) - 1) / 2) * (thickness + 2)  # the middle of the bar
            bar = Place(plot.x, y - thickness / 2, x_of(value) - plot.x, thickness)
            drawing.rectangle(bar, Paint(colour, "none"), rx=0)
            draw_interval(drawing, x_of(low), x_of(high), y)
            drawing.text(
                760 - MARGIN, y, f"{value:.1f} [{low:.1f}, {high:.1f}]", SMALL, anchor="end"
            )
    drawing.line([(plot.x, plot.y), (plot.x, plot.bottom)], stroke_width=1)
    drawing.line([(x_of(50), plot.y - 4), (x_of(50), plot.bottom)], **DASHES)
    return drawing


def draw_interval(drawing: Drawing, low: float, high: float, y: float) -> None:
    """A horizontal line with a stroke at each end, on white so that it shows on a bar."""
    for colour, width in ((WHITE, 4.0), (INK, STROKE)):
        drawing.line([(low, y), (high, y)], colour, stroke_width=width)
        for end in (low, high):
            drawing.line([(end, y - 4), (end, y + 4)], colour, stroke_width=width)


# --------------------------------------------------------------------------------------------------
# The command line.

FIGURES = {
    "lift": lift_figure,
    "batch": batch_figure,
    "flow": flow_figure,
    "cosines": cosines_figure,
    "power": power_figure,
}
METHOD_FIGURES = {f"method-{name}": name for name in NAMES}
RUN_FIGURES = {"curves": curves_figure, "composition": composition_figure}
# Those about runs come last: where there are no runs, all others have been drawn by then.
ALL_FIGURES = (*FIGURES, *METHOD_FIGURES, *RUN_FIGURES, "examples")


def save_examples(runs: Sequence[Path], path: Path, data: str = "") -> None:
    """Test images and the nearest captions of the first and the last run, as in report.png.

    data  other images with captions; "": the runs' own test images

    report.png is 1,400 pixels wide. This page is hardly wider than a README, so little shrinks.
    """
    loaded = [Run(folder) for folder in (runs[0], runs[-1])]
    results = [evaluate(one, held_out(one.config, data)) for one in loaded]
    page = Page(980)
    page.y = -20  # no space above the first heading
    further = [result.task.further.get("unseen_words") for result in results]
    # Other data than the world of the demo have no such images. There, more of their own are shown.
    retrieved(page, results, examples=2 if all(further) else 8)
    if all(further):
        unseen = [evaluate(one, task) for one, task in zip(loaded, further, strict=True)]
        title = "And with colour words that no training caption had?"
        retrieved(page, unseen, examples=2, title=title)
    page.save(path)


def make_figure(name: str, runs: Sequence[Path]) -> Drawing:
    """One figure by its name. The runs are for the figures that compare them."""
    if name in RUN_FIGURES:
        return RUN_FIGURES[name](runs)
    if name in METHOD_FIGURES:
        return method_figure(METHOD_FIGURES[name])
    return FIGURES[name]()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog=f"figures: {', '.join(ALL_FIGURES)}"
    )
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", choices=ALL_FIGURES, help="draw these figures only")
    add("--runs", nargs="+", type=Path, default=DEMO_RUNS, help="two or three runs to compare")
    add("--data", default="", help="images of the figure `examples` (default: the runs' own)")
    add("--out", type=Path, default=FOLDER, help="folder of the figures (%(default)s)")
    args = parser.parse_args()
    if not 2 <= len(args.runs) <= 3:
        raise BadInput(f"--runs names two or three runs, not {len(args.runs)}")
    for name in args.only or ALL_FIGURES:
        if name == "examples":
            path = args.out / "examples.png"
            save_examples(args.runs, path, args.data)
        else:
            path = args.out / f"{name}.svg"
            make_figure(name, args.runs).save(path)
        print(path)


if __name__ == "__main__":
    sys.exit(exit_status(main))
