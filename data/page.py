"""A white page that grows downwards: words, pictures, ticks and crosses, drawn with Pillow."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, FAINT, GOOD, BAD = (25, 25, 30), (120, 120, 130), (0, 115, 75), (190, 40, 20)
COLOURS = (31, 90, 200), (214, 110, 20), (20, 140, 100), (150, 60, 160), (90, 90, 90)
MARGIN, THUMB, LINE = 30, 112, 20


class Page:
    """A growing white page; `y` is where the next thing goes."""

    def __init__(self, width, height=20_000):
        self.width, self.inside = width, width - 2 * MARGIN
        self.picture = Image.new("RGB", (width, height), "white")  # cut off in the end
        self.pen, self.y = ImageDraw.Draw(self.picture), MARGIN

    def text(self, x, y, words, colour=INK, size=15, width=None, lines=12):
        """Draw words, wrapped to a width in pixels and at most so many lines; returns the y below them."""
        font, rows = ImageFont.load_default(size), [""]
        for word in words[:2000].split():
            whole = not width or self.pen.textlength(word, font) <= width
            for part in (
                [f" {word}"] if whole else [" ", *word]
            ):  # (a longer one is broken anywhere: Chinese has no spaces)
                longer = (rows[-1] + part).lstrip()
                if width and rows[-1] and self.pen.textlength(longer, font) > width:
                    rows.append(part.lstrip())
                else:
                    rows[-1] = longer
        for row in [*rows[: lines - 1], rows[lines - 1] + " ..."] if len(rows) > lines else rows:
            self.pen.text((x, y), row, colour, font)
            y += int(size * 1.35)
        return y

    def mark(self, x, y, good):
        """A tick in a disc or a cross in a square: told apart by shape as well as by colour."""
        if good:
            self.pen.ellipse([x, y, x + 15, y + 15], fill=GOOD)
            self.pen.line([x + 4, y + 8, x + 7, y + 11, x + 12, y + 4], "white", 2)
        else:
            self.pen.rectangle([x, y, x + 15, y + 15], fill=BAD)
            self.pen.line([x + 4, y + 4, x + 11, y + 11], "white", 2)
            self.pen.line([x + 4, y + 11, x + 11, y + 4], "white", 2)

    def thumb(self, x, y, pixels):
        self.picture.paste(
            Image.fromarray(np.ascontiguousarray(pixels)).resize((THUMB, THUMB), Image.LANCZOS),
            (x, y),
        )

    def heading(self, title, words):
        self.y = self.text(MARGIN, self.y + 25, title, size=22, width=self.inside, lines=3) + 2
        self.y = (
            self.text(MARGIN, self.y, words, FAINT, width=self.inside) if words else self.y
        ) + 12

    def answer(self, x, y, good, cosine, words, width, digits=2):
        """A caption with its mark and its cosine, wrapped to a width in pixels; returns the y below it."""
        self.mark(x, y + 2, good)
        self.text(x + 22, y, f"{cosine:.{digits}f}")
        indent = 45 + 9 * digits
        return self.text(x + indent, y, words, width=width - indent) + 3

    def save(self, path):
        self.picture.crop((0, 0, self.width, self.y + MARGIN)).save(path)
