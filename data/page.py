"""A white page that grows downwards: words, images, ticks and crosses, drawn with Pillow."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Colours are (red, green, blue).
INK = (25, 25, 30)
FAINT = (120, 120, 130)
GOOD = (0, 115, 75)
BAD = (190, 40, 20)
# One colour per run. After the fifth run they begin again.
COLOURS = ((31, 90, 200), (214, 110, 20), (20, 140, 100), (150, 60, 160), (90, 90, 90))

# Lengths are in pixels.
MARGIN = 30
THUMBNAIL = 112  # side of a small image
LINE = 20  # height of a line of text of the usual size


class Page:
    """A white page. `y` is where the next thing goes, `inside` the width between the margins."""

    def __init__(self, width: int, height: int = 20_000):
        self.width = width
        self.inside = width - 2 * MARGIN
        self.image = Image.new("RGB", (width, height), "white")  # `save` cuts it off below `y`
        self.pen = ImageDraw.Draw(self.image)
        self.y = MARGIN

    def text(
        self,
        x: int,
        y: int,
        words: str,
        colour: tuple[int, int, int] = INK,
        size: int = 15,
        width: int | None = None,
        lines: int = 12,
    ) -> int:
        """Draw words, wrapped to a width, on so many lines at most. Returns the y below them."""
        font = ImageFont.load_default(size)
        rows = self.wrap(words, font, width)
        if len(rows) > lines:
            rows = [*rows[: lines - 1], rows[lines - 1] + " ..."]
        for row in rows:
            self.pen.text((x, y), row, colour, font)
            y += int(size * 1.35)
        return y

    def wrap(self, words: str, font: ImageFont.ImageFont, width: int | None) -> list[str]:
        """Break words into rows that are no wider than `width`; None: one row."""
        rows = [""]
        # More than 2,000 characters never fit on the lines that are drawn.
        for word in words[:2000].split():
            # A word that is wider than a row may be broken anywhere: Chinese has no spaces.
            if width is None or self.pen.textlength(word, font) <= width:
                pieces = [f" {word}"]
            else:
                pieces = [" ", *word]
            for piece in pieces:
                longer = (rows[-1] + piece).lstrip()
                is_full = width is not None and self.pen.textlength(longer, font) > width
                if is_full and rows[-1]:
                    rows.append(piece.lstrip())
                else:
                    rows[-1] = longer
        return rows

    def mark(self, x: int, y: int, is_correct: bool) -> None:
        """A tick in a disc or a cross in a square: told apart by shape as well as by colour."""
        if is_correct:
            self.pen.ellipse([x, y, x + 15, y + 15], fill=GOOD)
            self.pen.line([x + 4, y + 8, x + 7, y + 11, x + 12, y + 4], "white", 2)
        else:
            self.pen.rectangle([x, y, x + 15, y + 15], fill=BAD)
            self.pen.line([x + 4, y + 4, x + 11, y + 11], "white", 2)
            self.pen.line([x + 4, y + 11, x + 11, y + 4], "white", 2)

    def thumbnail(self, x: int, y: int, pixels: np.ndarray, side: int = THUMBNAIL) -> None:
        """A small image with its corner at (x, y). pixels: (S, S, 3) uint8."""
        image = Image.fromarray(np.ascontiguousarray(pixels))
        self.image.paste(image.resize((side, side), Image.LANCZOS), (x, y))

    def heading(self, title: str, words: str = "") -> None:
        """A title, and words that say what is below it. Moves `y`."""
        self.y = self.text(MARGIN, self.y + 25, title, size=22, width=self.inside, lines=3) + 2
        if words:
            self.y = self.text(MARGIN, self.y, words, FAINT, width=self.inside)
        self.y += 12

    def answer(
        self,
        x: int,
        y: int,
        is_correct: bool,
        cosine: float,
        words: str,
        width: int,
        digits: int = 2,
    ) -> int:
        """A caption with its mark and its cosine, wrapped to a width. Returns the y below it."""
        self.mark(x, y + 2, is_correct)
        self.text(x + 22, y, f"{cosine:.{digits}f}")
        indent = 45 + 9 * digits
        return self.text(x + indent, y, words, width=width - indent) + 3

    def save(self, path: str | Path) -> None:
        self.image.crop((0, 0, self.width, self.y + MARGIN)).save(path)
