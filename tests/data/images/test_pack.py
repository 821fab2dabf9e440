"""data/images/pack.py: what a pack holds; killed, begun again, twice at once, damaged.

python -m pytest tests/data/images/test_pack.py
"""

import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data.common import BadInput, exit_status
from data.images import pack as pack_module
from data.images.pack import count_whole_records, open_folder, pack, read_records
from data.images.read import read_images, smallest_size
from tests.data.images.example_data import contents, image_file, pairs, put, tar, tsv

ROOT = Path(__file__).parents[3]


def test_what_a_pack_holds(tmp_path):
    made = tsv(tmp_path)
    packed, unusable = pack(str(made.spec), tmp_path / "out", 8)
    assert unusable == [] and packed.skipped == []
    assert packed.images.shape == (6, 8, 8, 3)
    assert packed.index["width"].tolist() == [12] * 6 and packed.index["height"].tolist() == [9] * 6
    assert sorted(contents(tmp_path / "out")) == [
        "images.u8",
        "index",
        "pack.json",
        "records.jsonl",
        "skipped.jsonl",
        "unusable.jsonl",
    ]
    content = json.loads((tmp_path / "out/pack.json").read_text())
    assert re.fullmatch("[0-9a-f]{24}", content.pop("job"))
    assert content == {"format": 2, "size": 8, "images": 6, "records": 6}
    records = read_records(tmp_path / "out")
    assert {record.name: record.captions for record in records} == made.train
    assert smallest_size(str(tmp_path / "out")) == 8


def test_what_a_pack_leaves_out_is_listed(many, tmp_path):
    packed, unusable = pack(many, tmp_path / "out", 8)
    assert packed.skipped == [
        ["1.png", "cannot be read (cannot identify image file)"],
        ["5.png", "no such file"],
        ["9.png", "cannot be read (cannot identify image file)"],
    ]
    assert [reason for _, reason in unusable] == ["no caption"] and "line 5" in unusable[0][0]
    lines = (tmp_path / "out/unusable.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [list(entry) for entry in unusable]
    with pytest.raises(BadInput, match="3 of 11 entries cannot be used, more than 5%"):
        read_images(str(tmp_path / "out"), "train", 8)


# --------------------------------------------------------------------------------------------------
# Stopped and begun again.


def test_whole_records_by_hand():
    """The example of the docstring, and ends."""
    index = np.array([True, True, False, True])
    assert count_whole_records(index, 3, 1) == 4
    assert count_whole_records(index, 3, 0) == 2
    assert count_whole_records(index, 1, 1) == 1
    assert count_whole_records(index, 0, 9) == 0
    assert count_whole_records(index, 2, 1) == 3
    assert count_whole_records(index[:0], 5, 5) == 0


@pytest.mark.parametrize("number", (errno.EIO, errno.EMFILE))
def test_what_is_the_machines_fault_is_no_images_fault(many, tmp_path, monkeypatch, number):
    """A read that fails in passing stops the packing, which goes on later. No image is left out."""
    failed = []

    def open_or_fail(path, mode):
        if Path(path).name == "7.png" and not failed:
            failed.append(path)
            raise OSError(number, os.strerror(number))
        return open(path, mode)

    monkeypatch.setattr(pack_module, "open", open_or_fail, raising=False)
    with pytest.raises(OSError, match=os.strerror(number)):
        pack(many, tmp_path / "out", 8)
    pack(many, tmp_path / "out", 8)
    monkeypatch.undo()
    pack(many, tmp_path / "whole", 8)
    assert failed and contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("seed", range(30))
def test_killed_at_some_points_and_begun_again(stopped, tmp_path, seed):
    """Each file cut off somewhere, as by a kill or a power cut. See also test_any_input.py."""
    spec, folder, whole = stopped
    shutil.copytree(folder, tmp_path / "out")
    r = random.Random(seed)
    for path in sorted((tmp_path / "out").iterdir()):
        if path.name != "pack.part" and r.random() < 0.7:
            os.truncate(path, r.randint(0, path.stat().st_size))
    pack(spec, tmp_path / "out", 8)
    assert contents(tmp_path / "out") == whole


def test_killed_between_the_last_two_steps(stopped):
    spec, folder, whole = stopped
    os.replace(folder / "pack.part", folder / "pack.json")
    pack(spec, folder, 8)
    assert contents(folder) == whole


def test_a_kill_never_lets_other_images_in(stopped, tmp_path, monkeypatch):
    """If the mark were written again, a kill in between could leave an empty one."""
    spec, folder, whole = stopped

    def stop_writing(path, text):
        open(path, "w").close()
        raise KeyboardInterrupt

    def stop_before_the_end(*paths):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Path, "write_text", stop_writing)
        patch.setattr(os, "replace", stop_before_the_end)
        pack(spec, folder, 8)
    other = str(put(tmp_path / "in/b.csv", "image,caption\n0.png,zero\n2.png,two\n"))
    with pytest.raises(BadInput, match="an unfinished pack of other images"):
        pack(other, folder, 8)
    pack(spec, folder, 8)
    assert contents(folder) == whole


def test_packed_again_it_stays_as_it_is(many, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert command(monkeypatch, many, out, "--size", "8") == 0
    whole = contents(out)
    first = capsys.readouterr().out
    # Nothing is decoded again, also where a kill left the mark of an unfinished pack.
    monkeypatch.setattr(pack_module, "decode", None)
    for mark in ("", "unfinished"):
        if mark:
            put(out / mark, json.loads(whole["pack.json"])["job"])
        assert command(monkeypatch, many, out, "--size", "8") == 0
        again = capsys.readouterr().out
        assert again == first.replace(" packed;", " were packed before, and are the same;")
        assert contents(out) == whole


@pytest.mark.parametrize(
    "change, difference",
    [
        (lambda rows, folder: rows.pop(), "there are 11, not 10"),
        (lambda rows, folder: rows.append("5.png,again\n"), "the captions of 5.png have changed"),
        (lambda rows, folder: rows.insert(1, rows.pop()), "number 1 is 0.png, not 11.png"),
        (
            lambda rows, folder: put(folder / "2.png", image_file(3)),
            "their files have changed, or lie in another folder",
        ),
        (None, "they have 8 pixels, not 16"),
    ],
)
def test_a_finished_pack_of_other_images_is_refused(many, tmp_path, change, difference):
    out = tmp_path / "out"
    pack(many, out, 8)
    whole = contents(out)
    if change:
        rows = Path(many).read_text().splitlines(True)
        change(rows, Path(many).parent)
        Path(many).write_text("".join(rows))
    message = f"out: a finished pack of other images: {difference}; remove it, or name another"
    with pytest.raises(BadInput, match=message):
        pack(many, out, 8 if change else 16)
    assert contents(out) == whole


@pytest.mark.slow
def test_a_killed_child_is_gone_on_with(tmp_path):
    """python -m data.images.pack, and a real SIGKILL when the first images are on disk."""
    members = []
    for i in range(1500):
        broken = i % 100 == 7
        content = b"no image" if broken else image_file(i % 25, size=(64, 64))
        members += [(f"{i}.png", content), (f"{i}.txt", f"it is {i}")]
    spec, out = str(tar(tmp_path / "a.tar", members)), tmp_path / "out"
    index = out / "index"
    command = [sys.executable, "-m", "data.images.pack", spec, str(out), "--size", "128"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        while child.poll() is None and not (index.is_file() and index.stat().st_size):
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert child.returncode == -signal.SIGKILL and 0 < index.stat().st_size < 1500 * 16
    assert (out / "unfinished").is_file() and not (out / "pack.json").exists()
    with pytest.raises(BadInput, match="an unfinished pack of other images, or of another size"):
        pack(spec, out, 64)
    pack(spec, out, 128)
    pack(spec, tmp_path / "whole", 128)
    assert contents(out) == contents(tmp_path / "whole")


def test_two_at_once(many, tmp_path):
    """flock tells open files apart, not processes; so threads show what two processes do."""

    def attempt(spec, out):
        try:
            pack(spec, out, 8)
            return spec
        except BadInput as error:
            return str(error)

    other = str(put(tmp_path / "in/b.csv", "image,caption\n0.png,zero\n2.png,two\n"))
    alone = {}
    for spec in (many, other):
        pack(spec, tmp_path / Path(spec).name, 8)
        alone[spec] = contents(tmp_path / Path(spec).name)
    readable = (0, 2, 4, 6, 8, 10, 11)
    rows = "".join(f"{i}.png,{i}\n" for i in readable)
    good = str(put(tmp_path / "in/c.csv", "image,caption\n" + rows))

    with ThreadPoolExecutor(4) as pool:
        for i in range(10):
            out = tmp_path / f"out{i}"
            outs = [out] * 4
            answers = pool.map(attempt, [many, other, many, other], outs)
            # One of the two is packed, and is there for the other one who wants it.
            *same, third, fourth = sorted(answers, key=lambda text: "a finished pack" in text)
            assert same[0] == same[1] and contents(out) == alone[same[0]]
            assert third == fourth and "a finished pack of other images: there are" in third
        for images in pool.map(lambda _: read_images(good, "train", 8, whole=True), range(4)):
            assert pairs(images) == {f"{i}.png": [str(i)] for i in readable}


# --------------------------------------------------------------------------------------------------
# Damaged, or of another version.

WHOLE = {"format": 2, "size": 8, "images": 6, "records": 6, "job": ""}
FORMAT_1 = {"format": 1, "size": 8, "pictures": 6, "records": 6}


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("pack.json", "", "pack.json: truncated, corrupt"),
        ("pack.json", "[1]", "pack.json: truncated, corrupt"),
        (
            "pack.json",
            WHOLE | {"format": 3},
            "another version of this project; remove the folder and pack again",
        ),
        (
            "pack.json",
            FORMAT_1,
            "another version of this project; remove the folder and pack again",
        ),
        ("pack.json", WHOLE | {"size": "8"}, "corrupt"),
        ("pack.json", WHOLE | {"size": 8.0}, "no whole numbers"),
        ("pack.json", WHOLE | {"images": ["x"]}, "no whole numbers"),
        (
            "pack.json",
            WHOLE | {"images": 5},
            "images.u8 has 1152 bytes, not 960; remove the folder",
        ),
        ("images.u8", None, "images.u8: no such file"),
        ("images.u8", b"short", "images.u8 has 5 bytes, not 1152"),
        ("index", None, "index: no such file"),
        ("index", b"\0" * 96, "index counts other than 6 images"),
        ("index", b"\0" * 95, "index has 95 bytes"),
        ("skipped.jsonl", b"\xff\n", "corrupt"),
        ("skipped.jsonl", b"[1]\n", "corrupt"),
        ("skipped.jsonl", None, "skipped.jsonl: no such file"),
        ("records.jsonl", b"", "records.jsonl has 0 lines for 6"),
        ("records.jsonl", b'["0.png", ["x"]]\n', "has 1 lines for 6 records"),
        ("records.jsonl", b"\xff\n" * 6, "corrupt"),
        ("records.jsonl", b"[]\n" * 6, "corrupt"),
        ("records.jsonl", b'["0.png", 7]\n' * 6, "line 1 is no name with a list of captions"),
        ("records.jsonl", b'["0.png", [true]]\n' * 6, "line 1 is no name with a list of captions"),
        ("records.jsonl", b'["0.png", []]\n' * 6, "line 1 is no name with a list of captions"),
        ("records.jsonl", None, "records.jsonl: no such file"),
    ],
)
def test_a_damaged_pack(tmp_path, name, content, says):
    tsv(tmp_path)
    out = tmp_path / "out"
    pack(str(tmp_path / "a.tsv"), out, 8)
    message = "images of 8 pixels; --image-size 16 was asked for. Use --image-size 8, or pack again"
    with pytest.raises(BadInput, match=message):
        read_images(str(out), "train", 16)
    if content is None:
        (out / name).unlink()
    else:
        put(out / name, content)
    with pytest.raises(BadInput, match=says) as error:
        read_images(str(out), "train", 8)
    assert str(out) in str(error.value)


def test_a_pack_of_the_first_format_is_refused_whole_and_unfinished(tmp_path):
    """Such a folder has pictures.jsonl in place of records.jsonl."""
    tsv(tmp_path)
    spec, out = str(tmp_path / "a.tsv"), tmp_path / "out"
    pack(spec, out, 8)
    (out / "records.jsonl").rename(out / "pictures.jsonl")
    put(out / "pack.json", FORMAT_1)
    message = "pack.json: packed by another version .*; remove the folder and pack again"
    with pytest.raises(BadInput, match=message):
        read_images(str(out), "train", 8)
    with pytest.raises(BadInput, match=message):
        open_folder(out)
    with pytest.raises(BadInput, match=message):
        pack(spec, out, 8)
    (out / "pack.json").unlink()
    put(out / "unfinished", "0123456789abcdef01234567")
    with pytest.raises(BadInput, match="an unfinished pack of other images"):
        pack(spec, out, 8)


# --------------------------------------------------------------------------------------------------
# The command.


def command(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["x", *map(str, args)])
    return exit_status(pack_module.main)


def test_the_command_says_one_line(tmp_path, monkeypatch, capsys):
    tsv(tmp_path)
    put(tmp_path / "full/x", "x")
    put(tmp_path / "bad.csv", "image,caption\nimg/0.png,\n")
    put(tmp_path / "gone.csv", "image,caption\ngone.png,x\n")
    for args, says in (
        (("nowhere.csv", tmp_path / "o"), "nowhere.csv: no such file or folder"),
        ((tmp_path / "a.tsv", tmp_path / "o", "--size", "0"), "--size 0 is out of range"),
        ((tmp_path / "a.tsv", tmp_path / "full"), "full is not empty"),
        (
            (tmp_path / "a.tsv", tmp_path / "full/x"),
            "x is a file and no folder; name another place",
        ),
        (
            (tmp_path / "bad.csv", tmp_path / "o"),
            "nothing in it can be used; the first of 1 entries: .*no caption",
        ),
        (
            (tmp_path / "gone.csv", tmp_path / "o2"),
            "none of its 1 images can be used; the first: gone.png: no such file",
        ),
        ((tmp_path / "full", tmp_path / "o"), "no images in this folder"),
    ):
        assert command(monkeypatch, *args) == 2
        err = capsys.readouterr().err
        assert err.splitlines()[-1].startswith("error: ")
        assert re.search(says, err) and "Traceback" not in err
    assert not (tmp_path / "o").exists()
    assert command(monkeypatch, tmp_path / "a.tsv", tmp_path / "good", "--size", "8") == 0
    message = "6 images of 8 pixels packed; 0 entries and 0 images skipped"
    assert message in capsys.readouterr().out


def test_the_command_says_what_it_left_out(many, tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, many, tmp_path / "out", "--size", "8") == 0
    out, err = capsys.readouterr()
    assert (
        f"1 entries and 3 images skipped, the images listed in {tmp_path}/out/skipped.jsonl" in out
    )
    assert "line 5: no caption" in err and "skipped 5.png: no such file" in err


def test_no_space_is_seen_before_and_gone_on_after(tmp_path, monkeypatch, capsys):
    tsv(tmp_path)
    with monkeypatch.context() as patch:
        usage = shutil._ntuple_diskusage(10**9, 10**9, 6 * 8 * 8 * 3 - 1)
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        assert command(patch, tmp_path / "a.tsv", tmp_path / "out", "--size", "8") == 2
    assert "6 images of 8 pixels need 0.0 MB" in capsys.readouterr().err
    pack(str(tmp_path / "a.tsv"), tmp_path / "out", 8)
    pack(str(tmp_path / "a.tsv"), tmp_path / "two", 8)
    assert contents(tmp_path / "out") == contents(tmp_path / "two")
