"""data/search.py: what is found, by hand; only what is new is read; what a user gets wrong.

python -m pytest tests/data/test_search.py
"""

import os
from math import exp
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import eval as ev
import train
from data import page, search
from data.common import BadInput
from data.images.pixels import image_digest
from tests.data.conftest import fails, looks_sane, paint

pytestmark = pytest.mark.usefixtures("own_folder")

IMAGES = {1: [1.0, 0.0], 2: [0.8, 0.6], 3: [0.0, 1.0], 4: [-1.0, 0.0], 5: [0.6, 0.8]}
QUERIES = {"east": [1.0, 0.0], "north": [0.0, 1.0]}


def nearest(run, folder, queries, k=8):
    found, _ = search.nearest(
        folder,
        queries,
        run.encode_images,
        run.encode_texts,
        run.config["image_size"],
        run.model_path,
        k,
    )
    return found


def found(run, k=8):
    """{query: [(name of the file, cosine)]} of the folder p."""
    answers = {}
    for query, hits in nearest(run, "p", list(QUERIES), k):
        answers[query] = [(path.name, round(cosine, 4)) for path, cosine in hits]
    return answers


def test_search_finds_and_reads_only_what_is_new(trained, known, capsys):
    seen = known(IMAGES, QUERIES)
    for name, number in (("a.png", 1), ("b.PNG", 2), ("deep/c.bmp", 3)):
        paint(f"p/{name}", number)
    Path("p/broken.jpg").write_bytes(b"none")
    Path("p/notes.txt").write_text("not an image")
    Path("p/folder.png").mkdir()
    Path("p/._a.png").write_bytes(b"macOS")
    run = ev.Run(trained)
    answers = {
        "east": [("a.png", 1.0), ("b.PNG", 0.8), ("c.bmp", 0.0)],
        "north": [("c.bmp", 1.0), ("b.PNG", 0.6), ("a.png", 0.0)],
    }
    assert found(run) == answers and sorted(seen) == [1, 2, 3]
    err = capsys.readouterr().err
    assert "skipped broken.jpg" in err and "3 images, 1 more cannot be read" in err
    assert nearest(run, "p", ["north"])[0][1][0][0] == Path("p/deep/c.bmp")

    # Nothing is read twice, nor is the broken one tried again.
    seen.clear()
    assert found(run) == found(ev.Run(trained)) == answers and not seen
    assert "read now: 0" in capsys.readouterr().err

    # One is changed. It is as large as before, so the time must tell. Another one is new.
    paint("p/a.png", 4)
    os.utime("p/a.png", (1, 1))
    paint("p/new.jpg", 5)
    assert found(run, k=2) == {
        "east": [("b.PNG", 0.8), ("new.jpg", 0.6)],
        "north": [("c.bmp", 1.0), ("new.jpg", 0.8)],
    }
    assert sorted(seen) == [4, 5]

    # Some are removed, then the broken one is mended.
    Path("p/new.jpg").unlink()
    Path("p/broken.jpg").unlink()
    assert found(run)["east"] == [("b.PNG", 0.8), ("c.bmp", 0.0), ("a.png", -1.0)]
    assert sorted(seen) == [4, 5]
    paint("p/broken.jpg", 1)
    assert found(run)["east"][0] == ("broken.jpg", 1.0)


def test_search_says_what_was_trained_on_when_nothing_fits_and_how_to_ask(trained, known, capsys):
    known(IMAGES, QUERIES | {"west": [-1.0, 0.0]})
    content = paint("p/a.png", 1).read_bytes()
    paint("p/b.png", 3)
    run = ev.Run(trained)
    # What the run itself knows: its captions, and how near its validation captions come.
    assert len(run.captions) == 3 and run.curve[-1]["val"]["best_wrong"] < 1

    digest = np.array([image_digest(content)], np.uint64)
    run.seen_digests = torch.from_numpy(digest.view(np.int64))
    run.captions = ["a red circle"]
    # To 1, 0.2 is missing with 8 images, and 0.4 with 4 images. So with two images it is 0.8.
    scores = {"pairs": 8, "best_wrong": 0.8, "best_wrong_of_half": 0.6, "t2i": 0.8}
    run.curve = [{"val": scores}]
    args = SimpleNamespace(search=["p", "east", "west"], report="drawn.png")
    ev.search_or_classify(run, args)
    out = capsys.readouterr().out
    east, west = out.split("\nwest\n")
    assert "  1.000  p/a.png  (trained on)\n  0.000  p/b.png\n" in east and "fits" not in east
    assert west.startswith("  probably nothing fits: captions of other images come as near (0.200)")
    assert "word a query as they are:\n  a red circle\n" in west and "good enough" not in out

    # A run that finds few of its validation images, or has none, does not say what fits.
    for run.curve in ([{"val": scores | {"t2i": 0.79}}], []):
        ev.search_or_classify(run, args)
        out = capsys.readouterr().out
        assert "nothing fits:" not in out and "not known to be good enough" in out


def test_a_limit_of_chance_stays_below_a_cosine_of_one():
    scores = {"pairs": 256, "best_wrong": 0.8, "best_wrong_of_half": 0.75, "t2i": 0.9}
    limits = [search.nearest_by_chance(scores, n) for n in (1, 128, 256, 512, 10**6)]
    assert limits == sorted(limits) and limits[1:3] == pytest.approx([0.75, 0.8])
    assert limits[3] == pytest.approx(1 - 0.2 * 0.8) and limits[-1] < 1


def test_in_a_folder_of_many_images_no_limit_is_known(monkeypatch, tmp_path, capsys):
    """Four times as many as the validation images, and one more."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    scores = {"pairs": 8, "best_wrong": 0.8, "best_wrong_of_half": 0.6, "t2i": 0.9}
    for n_images, says in ((32, "probably nothing fits"), (33, "Among so many images it is not")):
        found = [("red", [(tmp_path / "a.png", 0.0)])], n_images
        monkeypatch.setattr(search, "nearest", lambda *_, found=found: found)
        args = ("p", ["red"], None, None, 8, None, torch.zeros(0, dtype=torch.int64), [], scores)
        search.search(*args, tmp_path / "drawn.png")
        assert says in capsys.readouterr().out


@pytest.mark.slow
def test_search_never_uses_another_runs_vectors(small):
    # The same names, sizes and times in two folders.
    for number in range(6):
        for folder, red in (("p", 4 * number), ("q", 24 - 4 * number)):
            os.utime(paint(f"{folder}/{number}.bmp", red), (1, 1))
    for out, seed in (("one", 0), ("two", 1), ("one", 2)):  # the last takes the first one's place
        Path(out, "checkpoint.pt").unlink(missing_ok=True)
        train.train(train.Config(method="clip", **{**small, "out": out, "seed": seed}))
        run = ev.Run(out)
        with torch.no_grad():
            query = run.model.encode_text(run.tokenize(["a red circle"]), normalize=True)[0]
        for folder in ("p", "q", "p"):
            ((_, hits),) = nearest(run, folder, ["a red circle"])
            direct = {}
            for path in Path(folder).iterdir():
                with torch.no_grad():
                    image = run.transform(Image.open(path))[None]
                    direct[path] = float(run.model.encode_image(image, normalize=True)[0] @ query)
            cosines = [cosine for _, cosine in hits]
            assert cosines == sorted(cosines, reverse=True)
            assert dict(hits) == pytest.approx(direct, abs=1e-5)


@pytest.mark.slow
def test_search_from_the_command_line(trained, command):
    paint("p/a.png", 1)
    paint("p/sub/B.JPG", 20)
    paint(b"p/odd\nname \xff.png".decode("utf-8", "surrogateescape"), 9)
    queries = ["a red circle", "猫 " * 300, "x" * 400, "two\nlines"]
    status, out, err = command(trained, "--search", "p", *queries)
    assert status == 0, err
    assert "a red circle\n" in out and "p/sub/B.JPG" in out and "p/odd?name ?.png" in out
    out.encode("utf-8")  # as a terminal does
    looks_sane(Path(trained, "search.png"), 2 * page.MARGIN + 8 * (page.THUMBNAIL + 14))

    # The last of many queries is drawn, not cut off.
    many = [f"number {i}" for i in range(130)]
    assert command(trained, "--search", "p", *many, "--report", "many.png")[0] == 0
    with Image.open("many.png") as image:
        last = image.crop((0, image.height - 190, 400, image.height))
        assert len(last.convert("L").getcolors()) > 10

    Path("empty").mkdir()
    paint("broken/a.png").write_bytes(b"none")
    fails(command(trained, "--search", "p"), "what to look for")
    fails(command(trained, "--search", "p", ""), "''")
    fails(command(trained, "--search", "empty", "x"), "empty: no folder with images")
    fails(command(trained, "--search", "none", "x"), "none: no folder with images")
    fails(command(trained, "--search", "p", "x", "--report", "x.txt"), "--report x.txt")
    for _ in range(2):  # from the cache, too
        fails(command(trained, "--search", "broken", "x"), "none of its 1 images can be read")


def test_classify(trained, command, known):
    paint("a.PNG", 5)
    status, out, err = command(trained, "--classify", "a.PNG", "dog, big cat ,{x},")
    assert status == 0, err
    shares = {}
    for line in out.splitlines():
        share, name = line.split("%  ")
        shares[name] = float(share)
    assert set(shares) == {"dog", "big cat", "{x}"}
    assert list(shares.values()) == sorted(shares.values(), reverse=True)

    run = ev.Run(trained)

    def name_image(names, templates):
        scale = run.model.logit_scale.exp().item()
        return search.name_image(
            "a.PNG", names, templates, run.encode_file, run.class_features, scale
        )

    shares = [share for _, share in name_image(["dog", "big cat", "bird"], ["a {}", "the {}"])]
    assert sum(shares) == pytest.approx(1) and shares == sorted(shares, reverse=True)

    # By hand: a softmax over the scaled cosines.
    known({}, {"a x": [1.0, 0.0], "a y": [0.6, 0.8]})
    run.model.encode_image = lambda images, normalize: torch.tensor([[0.0, 1.0]])
    run.model.logit_scale.data.fill_(torch.tensor(10.0).log())
    assert name_image(["x", "y"], ["a {}"]) == [
        ("y", pytest.approx(1 / (1 + exp(-8)))),
        ("x", pytest.approx(1 / (1 + exp(8)), rel=1e-4)),
    ]

    Path("broken.jpg").write_bytes(b"none")
    for path, names, words in (
        ("broken.jpg", "a,b", "broken.jpg: cannot be read"),
        ("none.jpg", "a,b", "none.jpg"),
        (".", "a,b", "cannot be read"),
        ("a.PNG", "", "names"),
        ("a.PNG", " , ", "names"),
    ):
        fails(command(trained, "--classify", path, names), words)


def test_a_query_without_any_known_word_is_refused(tmp_path):
    """All images would be equally near to it, at 0."""
    features = torch.tensor([[0.6, 0.8], [0.0, 0.0]])
    with pytest.raises(BadInput, match="knows no word of 'zebra'"):
        search.nearest(tmp_path, ["star", "zebra"], None, lambda texts: features, 16, tmp_path)


def test_names_that_a_run_cannot_tell_apart_are_refused(tmp_path):
    features = torch.tensor([[0.6, 0.8], [0.6, 0.8]])
    with pytest.raises(BadInput, match="cannot tell 'zebra' from 'yak'"):
        search.name_image(
            tmp_path, ["zebra", "yak"], [], lambda path: features[0], lambda *_: features, 1.0
        )
