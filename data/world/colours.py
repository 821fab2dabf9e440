"""The colour words of the built-in worlds, and which colours a viewer can tell apart.

    BASIC      twelve common colours. All worlds have them or the first of them, but for the two
               worlds of COMPOUNDS and of UNSEEN.
    NAMED      colours by the names of CSS (Cascading Style Sheets, the web's standard). The world
               "shapes" has them, too.
    COMPOUNDS  names that no training caption has, made of words that training captions have
    UNSEEN     names that share no word and no token with any short caption of training, nor with
               its paraphrases. No image tower learns them. They can be found only by likeness: if
               the text vectors of "crimson" and of "red" are alike, an image of something crimson
               may find "crimson".

The values of BASIC are our own. The others are those of CSS, and where CSS has no such name, those
of the survey of colour names by XKCD (public domain). "orange" of BASIC and "dark orange" of NAMED
are the same colour, so no image tells these two names apart.
"""

from functools import cache

import numpy as np

RGB = tuple[int, int, int]


def parse(table: str) -> dict[str, RGB]:
    """Lines of "name hex, name hex" -> {name: (red, green, blue)}."""
    colours = {}
    for entry in table.replace("\n", ",").split(","):
        if entry.strip():
            *words, value = entry.split()
            colours[" ".join(words)] = tuple(bytes.fromhex(value))
    return colours


BASIC = parse(
    """
    red dc2323, yellow fadc1e, green 19822d, blue 2846dc, purple 8232aa, white fafafa,
    black 141414, brown 7d4b23, orange ff8c00, cyan 28cdd7, pink ff87be, grey 828282
    """
)
NAMED = parse(
    """
    aqua 00ffff, aquamarine 7fffd4, azure f0ffff, bisque ffe4c4, chartreuse 7fff00
    chocolate d2691e, cornsilk fff8dc, fuchsia ff00ff, indigo 4b0082, ivory fffff0
    linen faf0e6, moccasin ffe4b5, orchid da70d6, peru cd853f, plum dda0dd, sienna a0522d
    silver c0c0c0, tan d2b48c, thistle d8bfd8, tomato ff6347, wheat f5deb3
    antique white faebd7, cadet blue 5f9ea0, cornflower blue 6495ed, dark blue 00008b
    dark cyan 008b8b, dark green 006400, dark grey a9a9a9, dark orange ff8c00
    dark orchid 9932cc, dark red 8b0000, dark sea green 8fbc8f, dark slate blue 483d8b
    dark slate grey 2f4f4f, deep pink ff1493, deep sky blue 00bfff, dim grey 696969
    dodger blue 1e90ff, fire brick b22222, forest green 228b22, green yellow adff2f
    honeydew f0fff0, hot pink ff69b4, indian red cd5c5c, lawn green 7cfc00
    lemon chiffon fffacd, light blue add8e6, light cyan e0ffff, light green 90ee90
    light pink ffb6c1, light sea green 20b2aa, light sky blue 87cefa, light slate grey 778899
    light steel blue b0c4de, light yellow ffffe0, midnight blue 191970
    misty rose ffe4e1, orange red ff4500, pale green 98fb98, peach puff ffdab9
    powder blue b0e0e6, rosy brown bc8f8f, royal blue 4169e1, saddle brown 8b4513
    sea green 2e8b57, sky blue 87ceeb, slate blue 6a5acd, slate grey 708090
    spring green 00ff7f, steel blue 4682b4, yellow green 9acd32
    """
)
COMPOUNDS = parse(
    """
    dark pink cb416b, light purple bf77f6, dark purple 35063e, light orange fdaa48
    light brown ad8150, dark yellow d5b60a, pale blue d0fefe, pale pink ffcfdc
    pale yellow ffff84, deep blue 040273, deep green 02590f, pale purple b790d4
    deep red 9a0200, dark brown 341c02, pale orange ffa756
    """
)
UNSEEN = parse(
    """
    crimson dc143c, maroon 800000, navy 000080, teal 008080, turquoise 40e0d0, olive 808000
    khaki f0e68c, lavender e6e6fa, violet ee82ee, coral ff7f50, salmon fa8072, beige f5f5dc
    gold ffd700, lime 00ff00, mustard ceb301, burgundy 610023, amber feb308, emerald 01a049
    mint 9ffeb0, lilac cea2fd, charcoal 343837, cream ffffc2, rust a83c09, bronze a87900
    """
)

RGB_OF = BASIC | NAMED | COMPOUNDS | UNSEEN  # every colour word, in this order


def lab(rgb) -> np.ndarray:
    """sRGB (..., 3) in 0 to 255 -> CIELAB (..., 3): equal distances look about equally large.

    The standard's formulas, for daylight D65. L is in 0 to 100.
    """
    c = np.asarray(rgb, float) / 255
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    to_xyz = np.array(
        [
            [0.4124, 0.3576, 0.1805],
            [0.2126, 0.7152, 0.0722],
            [0.0193, 0.1192, 0.9505],
        ]
    )
    xyz = linear @ to_xyz.T / (0.9505, 1.0, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lightness = 116 * f[..., 1] - 16
    a = 500 * (f[..., 0] - f[..., 1])
    b = 200 * (f[..., 1] - f[..., 2])
    return np.stack([lightness, a, b], axis=-1)


APART = 25  # in CIELAB; 2.3 is a difference that can just be seen side by side


@cache
def are_apart() -> np.ndarray:
    """Which pairs of colours can be told apart: bool (n, n), both in the order of RGB_OF.

    The colours of things in one scene are apart. So are two colours in which a false caption
    differs from the true one.
    """
    colours = lab(list(RGB_OF.values()))  # (n, 3)
    distance = np.linalg.norm(colours[:, None] - colours, axis=-1)
    return distance > APART


def stands_out(colour: str, ground: RGB) -> bool:
    """Can a colour be told from the colour of a background?"""
    return bool(np.linalg.norm(lab(RGB_OF[colour]) - lab(ground)) > APART)
