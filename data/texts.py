"""Texts that belong together: what the language model is tuned on (llm_text.py --tune).

    images with several captions     what train.py --data takes (data/images/read.py)
    a table of pairs of texts        read_table

    read_texts(spec) -> (texts for training, texts that are held out)

A csv or tsv file is a table of pairs if its first line names a column `first` or `second`. All else
is a data specification of images.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from data.captions import Related
from data.common import BadInput
from data.images.formats import Columns, clean_captions, read_header, table_rows
from data.images.pixels import image_digest
from data.images.read import HELD_OUT, captions_of
from data.world.shapes import WORLDS


def read_texts(spec: str, csv_caption_key: str = "") -> tuple[list[Related], list[Related]]:
    """What a specification has for training, and what is held out of it.

    csv_caption_key  of images only, as in train.py; of a built-in world "" means paraphrase

    BadInput where a file cannot be used, or where there are not two of them for training.
    """
    path = Path(spec)
    if path.suffix.lower() in (".csv", ".tsv") and path.is_file():
        separator, columns = read_header(path)
        if {"first", "second"} & set(columns):
            return read_table(path, separator, columns)

    # The captions of each image. A user's images themselves are looked at only to know which of
    # them can be read and which are held out.
    key = csv_caption_key or ("paraphrase" if spec in WORLDS else "")
    training, held_out = (
        captions_of(spec, split, Columns(csv_caption_key=key)) for split in ("train", "test")
    )
    several = [tuple(captions) for captions in held_out if len(captions) > 1]
    return (
        images_with_two_captions(spec, training),
        [Related(captions, frozenset(captions)) for captions in several],
    )


def images_with_two_captions(spec: str, captions: list[list[str]]) -> list[Related]:
    """The distinct captions of each image that has two or more; equal images count once."""
    several = set()
    for captions_of_image in captions:
        distinct = tuple(dict.fromkeys(captions_of_image))
        if len(distinct) > 1:
            several.add(distinct)
    if len(several) < 2:
        raise BadInput(
            f"{spec}: tuning needs images that have two captions or more (built-in: "
            "--csv-caption-key paraphrase, reworded or mixed), or a csv file with the columns "
            "first,second"
        )
    # A set has no order of its own, and the draw must not depend on one.
    return [Related(texts, frozenset(texts)) for texts in sorted(several)]


# --------------------------------------------------------------------------------------------------
# Tables of pairs.


class Row(NamedTuple):
    """A row of a table of pairs."""

    first: str
    second: str
    group: str  # "": none is named
    hard: str  # "": none is named


def read_table(
    path: Path, separator: str, columns: list[str]
) -> tuple[list[Related], list[Related]]:
    """A table of pairs of texts -> (one Related per row for training, one per held-out group).

        first,second,group,hard
        crimson,a deep and vivid red color,red-1,a bright reddish-orange color
        crimson,ruby,red-1,scarlet
        azure,a light shade of blue,blue-1,

    first, second  two texts that say the same
    group          optional: rows of one group say the same, too
    hard           optional: a hard negative, which is a text near to these two, but false

    Training asks for the second text by the first one, or the other way round, as chance has it. So
    `hard` must be false of both. Rows with an equal text are in one group, whether one is named or
    not; `hard` joins none. Other columns are ignored.

    Whole groups are held out: about a tenth, by a hash of the text that comes first in the alphabet
    of all texts of the group. Of a held-out group the first row is taken, so that no text has two
    right answers. These rows come in the order of the hashes: the first of them are a fair sample.
    A hard negative that is a text of a held-out group is left out: training sees no such text.

    BadInput for a row without both texts, and for fewer than two groups for training.
    """
    for column in ("first", "second"):
        if column not in columns:
            found = ", ".join(columns)
            raise BadInput(
                f"{path}: no column {column}; a table of pairs has the columns first and second, "
                f"and may have group and hard; found, separated by {separator!r}: {found}"
            )
    rows = read_rows(path, separator)
    groups = groups_of(rows)

    # The texts of each group, and the groups that are held out, each with its hash.
    texts = {}
    for row, group in zip(rows, groups, strict=True):
        texts.setdefault(group, set()).update((row.first, row.second))
    texts = {group: frozenset(texts_of_group) for group, texts_of_group in texts.items()}
    digests = {group: image_digest(min(texts[group]).encode()) for group in texts}
    held_out = {group for group, digest in digests.items() if digest % HELD_OUT == 0}
    held_out_texts = set().union(*(texts[group] for group in held_out))

    training = []
    first_rows = {}  # held-out group -> its first row
    for row, group in zip(rows, groups, strict=True):
        hard = "" if row.hard in held_out_texts else row.hard
        related = Related((row.first, row.second), texts[group], hard)
        if group in held_out:
            first_rows.setdefault(group, related)
        else:
            training.append(related)

    largest = max(Counter(groups).values())
    print(
        f"{path}: a table of pairs: {len(rows)} rows in {len(texts)} groups (at most {largest} "
        f"rows in one), {len(held_out)} groups held out (a tenth, by a hash); "
        f"{sum(bool(related.hard) for related in training)} of {len(training)} rows for training "
        "have a hard negative",
        file=sys.stderr,
    )
    if len(texts) - len(held_out) < 2:
        raise BadInput(
            f"{path}: tuning needs two groups of texts or more, and here are {len(texts)}, of "
            f"which {len(held_out)} are held out; rows of one group, or with an equal text, are one"
        )
    return training, [first_rows[group] for group in sorted(held_out, key=digests.get)]


def read_rows(path: Path, separator: str) -> list[Row]:
    """All rows, their texts with single spaces. BadInput for the first one that is not whole."""
    rows = []
    for line, fields in table_rows(path, separator):
        # table_rows says under None why a row cannot be used.
        if None in fields:
            raise BadInput(f"{path} line {line}: {fields[None]}")
        values = [" ".join(clean_captions(fields.get(name))) for name in Row._fields]
        row = Row(*values)
        if not row.first or not row.second:
            raise BadInput(f"{path} line {line}: no {'second' if row.first else 'first'} text")
        if row.first == row.second:
            raise BadInput(f"{path} line {line}: both texts are the same; remove the row")
        rows.append(row)
    return rows


def groups_of(rows: list[Row]) -> list[int]:
    """The group of each row, as the number of one of its rows.

    Two rows are in one group if they name the same group, or share a text, or if a chain of such
    rows connects them. Each row points to another one of its group, or to itself. Who follows the
    pointers comes to the row that stands for the group. (This is called union-find.)
    """
    pointers = list(range(len(rows)))

    def end_of(i: int) -> int:
        while pointers[i] != i:
            pointers[i] = pointers[pointers[i]]  # a short cut for the next one who comes this way
            i = pointers[i]
        return i

    row_with = {}  # a text, or a group's name -> the first row that has it
    for i, row in enumerate(rows):
        keys = [("text", row.first), ("text", row.second)]
        if row.group:
            keys.append(("group", row.group))
        for key in keys:
            pointers[end_of(i)] = end_of(row_with.setdefault(key, i))
    return [end_of(i) for i in range(len(rows))]
