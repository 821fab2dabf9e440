"""data/world/emoji.py: what its shards hold, that splits share nothing, and unusable packages.

    python -m pytest tests/data/world/test_emoji.py

The packages are made on the spot: every icon is a plane of one colour that stands for its style and
code points.
"""

import base64
import hashlib
import os
import re
import sys
import tarfile

import pytest
from PIL import Image

from data.common import BadInput, exit_status
from data.world import emoji
from data.world.icon_shards import SEEN_STYLES
from tests.data.world.tiny_packages import colour, pack, read

# resvg_py is a package of requirements-test.txt: the project itself runs without it.
pytest.importorskip("resvg_py")
pytestmark = pytest.mark.reference

THINGS = [(f"1F4{i:02X}", f"thing number {i}", 3, 30) for i in range(64)]
PEOPLE = [
    ("1F33E", "sheaf of rice", 3, 30),
    ("1F468-200D-1F33E", "man farmer", 1, 20),
    ("1F469-200D-1F33E", "woman farmer", 1, 20),
    ("1F9DC", "merperson", 1, 20),
    ("1F9DC-200D-2640-FE0F", "mermaid", 1, 20),
    ("1F9DC-200D-2642-FE0F", "merman", 1, 20),
    ("1F468", "man", 1, 20),
    ("1F469-200D-1F9B0", "woman: red hair", 1, 20),
    ("1F475", "old woman", 1, 20),
    ("1F468-200D-1F466", "family: man, boy", 1, 20),
    ("1F469-200D-1F467", "family: woman, girl", 1, 20),
    ("1F6B6", "person walking", 1, 20),
    ("1F6B6-200D-2642-FE0F-200D-27A1-FE0F", "man walking: facing right", 1, 20),
    ("1F9BD", "manual wheelchair", 3, 30),
    ("1F466", "boy", 1, 20),
    ("1F469-200D-1F9BD-200D-27A1-FE0F", "woman in manual wheelchair: facing right", 1, 20),
    ("1F934", "prince", 1, 20),
    ("1F478", "princess", 1, 20),
]
TURNED = [
    ("2B05-FE0F", "left arrow", 8, 31),
    ("2197-FE0F", "up-right arrow", 8, 31),
    ("1F550", "one o’clock", 8, 31),
    ("1F566", "eleven-thirty", 8, 31),
    ("0031-FE0F-20E3", "keycap: 1", 8, 31),
    ("0032-FE0F-20E3", "keycap: 2", 8, 31),
]
NOT_SHOWN = [("1F3FB", "light skin tone", 2, 21), ("1F1EE-1F1F6", "flag: Iraq", 9, 98)]
GROUPS = {
    "groups": {
        "1": "people-body",
        "2": "component",
        "3": "animals-nature",
        "8": "symbols",
        "9": "flags",
    },
    "subgroups": {
        "20": "person",
        "21": "skin-tone",
        "30": "animal",
        "31": "sign",
        "98": "country-flag",
    },
}
SKIN = "1f468-1f3fb-200d-1f33e"


def icon(style, code):
    return {"body": f'<rect width="32" height="32" fill="rgb{colour(style, code)}"/>'}


def code_of(hexcode):
    return hexcode.lower().replace("-fe0f", "")


def names(**changes):
    """emojibase-data's files."""
    entries = [{"label": "regional indicator I", "hexcode": "1F1EE", "version": 0}]
    for hexcode, label, group, subgroup in THINGS + PEOPLE + TURNED + NOT_SHOWN:
        entries.append(
            {
                "label": label,
                "hexcode": hexcode,
                "group": group,
                "subgroup": subgroup,
                "tags": ["beast", label.upper(), f"no {hexcode}"],
            }
        )
    entries[-1]["skins"] = [
        {
            "label": "man farmer: light skin tone",
            "hexcode": SKIN.upper(),
            "group": 1,
            "subgroup": 20,
        }
    ]
    return {"en/data.json": entries, "meta/groups.json": GROUPS, **changes}


def drawings(style, icons=(), chars=(), **changes):
    """The files of a style. icons: {code: icon} that differ from the plain ones; None: no icon."""
    codes = [code_of(e[0]) for e in THINGS + PEOPLE + TURNED + NOT_SHOWN] + [SKIN, "1f1ee"]
    drawn = {code: icon(style, code) for code in codes} | dict(icons)
    drawn = {f"icon-{code}": body for code, body in drawn.items() if body}
    return {
        "icons.json": {
            "prefix": style,
            "width": 32,
            "height": 32,
            "icons": drawn,
            "aliases": {"another-name": {"parent": "icon-1f400"}},
        },
        "chars.json": {code: f"icon-{code}" for code in codes} | dict(chars),
        "info.json": {
            "name": style,
            "author": {"name": f"{style}'s authors", "url": f"https://example.org/{style}"},
            "license": {
                "title": "?",
                "spdx": f"{style}-licence",
                "url": "https://example.org/licence",
            },
        },
        **changes,
    }


@pytest.fixture
def packages(tmp_path):
    folder = tmp_path / "packages"
    folder.mkdir()
    pack(folder, "emojibase-data", names())
    for style, (name, *_) in emoji.STYLES.items():
        pack(folder, name, drawings(style))
    # This one is not wanted, though its name begins as noto's.
    pack(folder, "@iconify-json/noto-v1", {"icons.json": {}})
    return folder


@pytest.fixture
def built(packages, tmp_path):
    """({tar: samples}, the lines that build returns)."""
    lines = emoji.build(tmp_path / "out", 16, packages=packages)
    return {tar: read(tmp_path / "out" / tar) for tar in emoji.TARS}, lines


def concepts(samples):
    return {about["concept"] for _, _, about in samples.values()}


def test_every_sample_is_of_its_concept(built):
    labels = {
        code_of(hexcode): (hexcode, label, group)
        for hexcode, label, group, _ in THINGS + PEOPLE + TURNED
    }
    for tar, samples in built[0].items():
        assert samples, tar
        for key, (image, text, about) in samples.items():
            hexcode, label, group = labels[about["concept"]]
            assert key == f"{about['style']}_{about['concept']}"
            assert (image.mode, image.size) == ("RGB", (16, 16))
            assert image.getpixel((8, 8)) == colour(about["style"], about["concept"])
            assert text == about["caption"] == label
            # The name itself is no keyword.
            assert about["long_caption"] == f"{label}: beast, no {hexcode}"
            categories = {
                1: "people-body/person",
                3: "animals-nature/animal",
                8: "symbols/sign",
            }
            assert about["category"] == categories[group]
            fields = ["caption", "long_caption", "category", "concept", "group", "style"]
            assert list(about) == fields


def test_skin_tones_swatches_and_flags_are_left_out(built):
    shown = set().union(*(concepts(built[0][tar]) for tar in SEEN_STYLES))
    assert shown == {code_of(hexcode) for hexcode, *_ in THINGS + PEOPLE + TURNED}


def test_no_group_is_in_two_splits(built):
    groups = {}
    captions = {}
    count = {}
    for tar, split in emoji.TARS.items():
        count[tar] = len(concepts(built[0][tar]))
        for _, text, about in built[0][tar].values():
            groups.setdefault(about["group"], set()).add((split, about["concept"]))
            captions.setdefault(text, set()).add(split)
    assert all(len({split for split, _ in members}) == 1 for members in groups.values())
    assert all(len(splits) == 1 for splits in captions.values())
    codes = {frozenset(code for _, code in members) for members in groups.values()}
    together = [
        ("1f33e", "1f468-200d-1f33e", "1f469-200d-1f33e"),
        ("1f934", "1f478"),
        ("1f9dc", "1f9dc-200d-2640", "1f9dc-200d-2642"),
        ("1f9bd", "1f469-200d-1f9bd-200d-27a1"),
        ("1f468", "1f469-200d-1f9b0", "1f475", "1f466"),
        ("1f468-200d-1f466", "1f469-200d-1f467"),
        ("2b05", "2197"),
        ("1f6b6", "1f6b6-200d-2642-200d-27a1"),
        ("1f550", "1f566"),
        ("0031-20e3", "0032-20e3"),
    ]
    alone = {frozenset([code_of(thing[0])]) for thing in THINGS}
    assert codes == {frozenset(group) for group in together} | alone
    assert count["train.tar"] > 50 and count["val.tar"] + count["test.tar"] > 8


def test_splits_are_of_their_sizes_and_follow_the_seed_alone():
    entries = [
        {"label": f"a {i}", "hexcode": f"{i:05X}", "group": 3, "subgroup": 30} for i in range(5000)
    ]

    def splits(entries, seed):
        return {c.code: c.split for c in emoji.read_concepts(entries, GROUPS, seed)}

    first = splits(entries, 0)
    for split, share in (("train", 0.80), ("val", 0.08), ("test", 0.12)):
        assert abs(list(first.values()).count(split) / 5000 - share) < 0.02
    # A concept stays in its split, whatever other concepts there are, and in whatever order.
    again = splits(entries[::-2], 0)
    assert again == {code: first[code] for code in again}
    assert first != splits(entries, 1)


@pytest.mark.parametrize(
    "code, group",
    [
        ("1f475", "person"),
        ("1f469-200d-1f33e", "sheaf rice"),
        ("1f9dc-200d-2640", "merperson"),
        ("1f550", "clock"),
        ("1f478", "royal"),
    ],
)
def test_the_examples_of_group_of(code, group):
    labels = {code_of(hexcode): label for hexcode, label, *_ in PEOPLE + TURNED}
    assert emoji.group_of(code, labels) == group
    assert re.search(rf"{code} .* {group}\n", emoji.group_of.__doc__)


@pytest.mark.parametrize("held_out", ["openmoji", "noto"])
def test_held_out_style(packages, tmp_path, held_out):
    alone, absent = (code_of(THINGS[i][0]) for i in (3, 4))
    # One concept has an icon of the held-out style only. One style lacks another concept.
    for style, (name, *_) in emoji.STYLES.items():
        gone = [alone] * (style != held_out) + [absent] * (style == "fluent-emoji-flat")
        pack(packages, name, drawings(style, dict.fromkeys(gone)))
    emoji.build(tmp_path / "out", 16, held_out=held_out, packages=packages)
    data = {tar: read(tmp_path / "out" / tar) for tar in emoji.TARS}
    for tar, samples in data.items():
        styles = {about["style"] for _, _, about in samples.values()}
        if tar in ("style.tar", "both.tar"):
            assert styles == {held_out}
        else:
            assert styles == set(emoji.STYLES) - {held_out}
    assert concepts(data["style.tar"]) == concepts(data["train.tar"])
    assert concepts(data["both.tar"]) == concepts(data["test.tar"])
    keys = {key for samples in data.values() for key in samples}
    assert not any(key.endswith(f"_{alone}") for key in keys)
    assert f"twemoji_{absent}" in keys and f"fluent-emoji-flat_{absent}" not in keys


def test_styles_can_be_chosen(packages, tmp_path):
    (packages / "iconify-json-noto-1.0.7.tgz").unlink()  # not wanted, so not needed
    emoji.build(tmp_path / "out", 8, styles=["twemoji", "twemoji"], packages=packages)
    for tar, style in (("train.tar", "twemoji"), ("style.tar", "openmoji")):
        assert {about["style"] for _, _, about in read(tmp_path / "out" / tar).values()} == {style}
        with tarfile.open(tmp_path / "out" / tar) as shard:
            assert len(shard.getnames()) == len(set(shard.getnames()))


def test_building_twice_gives_the_same_bytes(packages, tmp_path, monkeypatch):
    emoji.build(tmp_path / "one", 16, packages=packages)
    monkeypatch.setattr("time.time", lambda: 2e9)
    data = names()
    data["en/data.json"].reverse()
    pack(packages, "emojibase-data", data)
    emoji.build(tmp_path / "two", 16, packages=packages)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted(emoji.FILES)
    for file in emoji.FILES:
        one, two = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        assert one == two, file
    with tarfile.open(tmp_path / "one" / "train.tar") as tar:
        members = tar.getmembers()
    owners = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members}
    assert owners == {(0, 0, 0, "", "", 0o644)}
    assert [m.name.partition(".")[2] for m in members[:6]] == ["json", "png", "txt"] * 2


def test_licences_are_the_packages(built, tmp_path):
    table = (tmp_path / "out" / "LICENSES.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in table.splitlines()]
    assert rows[0] == ["style", "package", "version", "licence", "url", "author"]
    assert {len(row) for row in rows} == {6}
    for style, (name, *_) in emoji.STYLES.items():
        assert [
            style,
            name,
            "1.0.7",
            f"{style}-licence",
            "https://example.org/licence",
            f"{style}'s authors, https://example.org/{style}",
        ] in rows
    assert ["names", "emojibase-data", "1.0.7", "MIT"] in [row[:4] for row in rows]
    assert "Unicode-3.0" in {row[3] for row in rows} and len(rows) == 7


def test_what_it_prints_is_what_is_there(packages, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    arguments = ["emoji", str(out), "--size", "16", "--packages", str(packages)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert exit_status(emoji.main) == 0
    printed = capsys.readouterr().out
    assert (
        f"train.py --data {out}/train.tar --val-data {out}/test.tar --image-size 16 --epochs 30 "
        "--out runs/emoji" in printed
    )
    readme = (out / "README.md").read_text("utf-8")
    for tar in emoji.TARS:
        samples = read(out / tar)
        line = f"{tar}: {len(samples)} images of {len(concepts(samples))} concepts"
        assert line in printed and line in readme
    total = len(THINGS + PEOPLE + TURNED)
    assert f"noto: draws {total} of {total} concepts" in printed
    flags = re.search(r"python -m data\.world\.emoji OUT (.*)", readme)[1]
    assert flags == "--size 16 --styles noto twemoji fluent-emoji-flat --held-out openmoji --seed 0"


def test_white_below_and_beside(packages, tmp_path):
    """An empty icon is white. A wide one has white above and below. An icon's own corner counts."""
    empty, wide, moved = (code_of(THINGS[i][0]) for i in range(3))
    body = icon("noto", wide)["body"]
    changed = {
        empty: {"body": ""},
        wide: {"body": body.replace('height="32"', 'height="16"'), "height": 16},
        moved: {"body": body, "left": 16},
    }
    pack(packages, "@iconify-json/noto", drawings("noto", changed))
    emoji.build(tmp_path / "out", 16, packages=packages)
    images = {}
    for tar in SEEN_STYLES:
        images |= {key: sample[0] for key, sample in read(tmp_path / "out" / tar).items()}
    white = (255, 255, 255)
    assert images[f"noto_{empty}"].getcolors() == [(256, white)]
    column = [images[f"noto_{wide}"].getpixel((8, y)) for y in range(16)]
    assert column == [white] * 4 + [colour("noto", wide)] * 8 + [white] * 4
    row = [images[f"noto_{moved}"].getpixel((x, 8)) for x in range(16)]
    assert row == [colour("noto", wide)] * 8 + [white] * 8


def test_links_within_an_icon(packages, tmp_path):
    code = code_of(THINGS[0][0])
    body = f'<g id="a">{icon("noto", code)["body"]}</g><use xlink:href="#a"/>'
    pack(packages, "@iconify-json/noto", drawings("noto", {code: {"body": body}}))
    assert "skipped" not in " ".join(emoji.build(tmp_path / "out", 16, packages=packages))


def test_what_cannot_be_drawn_is_skipped_and_named(packages, tmp_path):
    """A broken icon, one that would show a file of this machine, and one icon of two names."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "private.png")
    broken, spy, double, other = (code_of(THINGS[i][0]) for i in range(4))
    changed = {
        broken: {"body": "<rect"},
        spy: {"body": f"<image href = '{tmp_path}/private.png' width='32' height='32'/>"},
        double: icon("noto", other),
    }
    pack(packages, "@iconify-json/noto", drawings("noto", changed))
    lines = emoji.build(tmp_path / "out", 16, packages=packages)
    line = next(line for line in lines if line.startswith("skipped"))
    keys = {key for tar in emoji.TARS for key in read(tmp_path / "out" / tar)}
    assert f"noto_{broken} (" in line and f"noto_{spy} (it shows another file)" in line
    assert not {f"noto_{broken}", f"noto_{spy}"} & keys and f"twemoji_{broken}" in keys

    # Of the two with one icon, one is kept. Which one, the order of the shards decides.
    twins = {f"noto_{double}": "thing number 3", f"noto_{other}": "thing number 2"}
    named = [f"{key} (the same image as {group})" in line for key, group in twins.items()]
    assert named.count(True) == 1
    assert len(set(twins) & keys) == 1 and "skipped 3 of " in line


def test_variants_may_share_an_icon(packages, tmp_path):
    shared = {"1f9dc": icon("noto", 0), "1f9dc-200d-2640": icon("noto", 0)}
    pack(packages, "@iconify-json/noto", drawings("noto", shared))
    assert "skipped" not in " ".join(emoji.build(tmp_path / "out", 16, packages=packages))


def refused(tmp_path, size=16, **flags):
    """The one line that a build ends with; that it leaves nothing behind is checked here."""
    with pytest.raises(BadInput) as error:
        emoji.build(tmp_path / "out", size, **flags)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    return str(error.value)


def test_too_many_that_cannot_be_drawn(packages, tmp_path):
    broken = {code_of(thing[0]): {"body": "<rect"} for thing in THINGS[:30]}
    pack(packages, "@iconify-json/noto", drawings("noto", broken))
    message = refused(tmp_path, packages=packages)
    assert re.search(r"30 of \d+ icons cannot be used.*more than 5%.*noto_1f4..", message)
    assert "cannot be used at --size 0" in refused(tmp_path, 0, packages=packages)


def test_a_folder_in_use_is_left_alone(packages, tmp_path):
    for file in ("train.tar", "LICENSES.tsv"):
        folder = tmp_path / file
        folder.mkdir()
        (folder / file).write_text("mine")
        with pytest.raises(BadInput, match=f"{folder}/{file} is there already; remove it"):
            emoji.build(folder, 16, packages=packages)
        assert [p.name for p in folder.iterdir()] == [file]
        assert (folder / file).read_text() == "mine"


def test_unknown_styles(packages, tmp_path):
    for flags, message in (
        ({"styles": ["notto"]}, "'notto' is unknown; choose from noto, twemoji"),
        ({"held_out": "emoji1"}, "'emoji1' is unknown"),
        ({"styles": ["openmoji"]}, "none besides openmoji"),
    ):
        assert message in refused(tmp_path, packages=packages, **flags)


def test_packages_that_are_something_else(packages, tmp_path):
    path = packages / "iconify-json-twemoji-1.0.7.tgz"
    whole = path.read_bytes()
    unreadable = f"{path}: cannot be read as an npm package"
    for content in (
        b"<html>not found</html>",
        b"",
        whole[: len(whole) // 2],
        whole[:500] + b"?" * 100 + whole[600:],
    ):
        path.write_bytes(content)
        assert unreadable in refused(tmp_path, packages=packages)

    files = drawings("twemoji")
    del files["icons.json"]
    pack(packages, "@iconify-json/twemoji", files)
    assert f"{path}: no icons.json in it" in refused(tmp_path, packages=packages)
    pack(packages, "@iconify-json/twemoji", files, raw=[("package/icons.json", b'{"icons": ')])
    assert unreadable in refused(tmp_path, packages=packages)

    another_kind = "truncated, corrupt or of another kind"
    pack(packages, "@iconify-json/twemoji", {**files, "icons.json": {"prefix": "twemoji"}})
    message = refused(tmp_path, packages=packages)
    assert f"{path}: {another_kind} (KeyError: 'icons')" in message
    pack(packages, "@iconify-json/twemoji", drawings("twemoji"))
    pack(packages, "emojibase-data", names(**{"en/data.json": [{"group": 1}]}))
    message = refused(tmp_path, packages=packages)
    assert f"emojibase-data-1.0.7.tgz: {another_kind}" in message


def test_missing_renderer(packages, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    monkeypatch.setattr(sys, "argv", ["emoji", str(tmp_path / "out"), "--packages", str(packages)])
    assert exit_status(emoji.main) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("error: resvg_py") and "pip install resvg-py" in message


def test_the_packages_are_fetched_and_checked(packages, tmp_path, npm_script, monkeypatch):
    """npm fetches the pinned versions, and one whose hash is another one ends the build."""
    all_packages = [emoji.NAMES, *emoji.STYLES.values()]
    for package in all_packages:
        os.rename(packages / f"{package.stem}-1.0.7.tgz", packages / package.file)
    npm_script(
        f'echo "$1 $2" >> {tmp_path}/asked\n'
        'file=$(echo "$2.tgz" | sed "s/^@//; s,/,-,; s/@/-/")\n'
        f'cp "{packages}/$file" . && echo "$file"\n'
    )
    assert "its sha512 is not that of emojibase-data 17.0.0" in refused(tmp_path)
    assert "its sha512 is not that of emojibase-data" in refused(tmp_path, packages=packages)

    def pinned(package):
        digest = hashlib.sha512((packages / package.file).read_bytes()).digest()
        return package._replace(integrity=f"sha512-{base64.b64encode(digest).decode()}")

    monkeypatch.setattr(emoji, "NAMES", pinned(emoji.NAMES))
    styles = {style: pinned(package) for style, package in emoji.STYLES.items()}
    monkeypatch.setattr(emoji, "STYLES", styles)
    emoji.build(tmp_path / "one", 8)
    wanted = [f"pack {package.name}@{package.version}" for package in all_packages]
    assert sorted((tmp_path / "asked").read_text().splitlines()) == sorted(wanted)
