"""data/vectors.py: the file of vectors under kills, exceptions and company; its three users.

python -m pytest tests/data/test_vectors.py
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vit
from data.batches import Crops
from data.captions import DistinctCaptions
from data.common import BadInput
from data.files.tensors import read_safetensors, write_safetensors
from data.images.pixels import normalize_pixels
from data.images.read import read_images
from data.vectors import (
    CaptionVectors,
    ImageViews,
    OutsideVectors,
    StoredRows,
    VectorStore,
    folder_vectors,
    key_of,
    outside_views,
    read_views,
)
from llm_text import load_llm
from tests.tiny_llm import write_tiny_llm

ROOT = Path(vit.__file__).parent
CPU = torch.device("cpu")

# --------------------------------------------------------------------------------------------------
# The file.

NUMBERS = [f"number {i}" for i in range(40)]


def vector_of(text):
    seed = int.from_bytes(key_of(text)[:6], "big")
    return np.random.default_rng(seed).normal(size=(2, 3))


def ask(store, texts, seen=None, fail_at=None):
    """Fill a store with vector_of the texts, three at a time; collect what had to be made."""

    def make(missing):
        for start in range(0, len(missing), 3):
            places = missing[start : start + 3]
            if fail_at is not None and start >= fail_at:
                raise RuntimeError("pulled the plug")
            if seen is not None:
                seen.extend(texts[place] for place in places)
            vectors = np.stack([vector_of(texts[place]) for place in places])
            yield places, vectors, ["7" in texts[place] for place in places]

    return store.fill([key_of(text) for text in texts], make, "making", "text")


def assert_holds(store, texts):
    vectors, rows, flags = store.read([key_of(text) for text in texts])
    assert flags.tolist() == ["7" in text for text in texts]
    for text, row in zip(texts, rows, strict=True):
        assert torch.equal(vectors[row], torch.from_numpy(vector_of(text)).to(vectors.dtype))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_each_key_is_made_once_and_found_again(tmp_path, dtype):
    path, seen = tmp_path / "new folder" / "x.records", []
    asked = NUMBERS[3:9] + NUMBERS + NUMBERS[::-1] + ["\ud800 x", ""]
    assert ask(VectorStore(path, (2, 3), dtype), asked, seen) == 42
    assert seen == [*dict.fromkeys(asked)]  # each once, in the order of first appearance
    store = VectorStore(path, (2, 3), dtype)
    assert_holds(store, asked)
    assert ask(store, asked[::-1], seen) == 0 and len(seen) == 42
    assert ask(store, ["more", *asked], seen) == 1 and seen[-1] == "more"
    assert_holds(store, ["more", *asked])
    assert path.stat().st_size == 43 * (15 + 1 + 6 * np.dtype(dtype).itemsize)


def test_keys_may_end_with_zero_bytes(tmp_path):
    store = VectorStore(tmp_path / "x", (1,), np.float32)
    keys = [bytes(15), b"a" + bytes(14), b"a" * 14 + b"\0", b"a" * 15]
    store.fill(keys, lambda missing: [(missing, missing[:, None], missing > 5)], "", "")
    vectors, rows, _ = store.read(keys[::-1])
    assert vectors[rows].flatten().tolist() == [3, 2, 1, 0]


def test_nothing_is_made_where_nothing_is_missing(tmp_path):
    store = VectorStore(tmp_path / "x", (2, 3), np.float32)
    assert store.fill([], None, "", "") == 0
    vectors, rows, flags = store.read([])
    assert vectors[rows].shape == (0, 2, 3) and len(flags) == 0
    ask(store, NUMBERS)
    assert store.fill([key_of(text) for text in NUMBERS], None, "", "") == 0


def test_what_takes_long_is_said_where_no_bar_shows(tmp_path, capsys):
    store = VectorStore(tmp_path / "x", (1,), np.float32)
    keys = [key_of(f"{i}") for i in range(10_001)]

    def make(missing):
        yield missing, missing[:, None], missing > 5

    store.fill(keys[:5000], make, "making numbers", "number")
    assert capsys.readouterr().err == ""  # seconds
    store.fill(keys, make, "making numbers", "number")
    assert capsys.readouterr().err == "making numbers: 5001 are not in the cache\n"


def test_a_file_that_was_cut_at_any_byte_is_completed(tmp_path):
    """A kill or a full disk may end the file anywhere, also within a record."""
    store, size = VectorStore(tmp_path / "x", (2, 3), np.float16), 16 + 2 * 6
    texts = NUMBERS[:12]
    ask(store, texts)
    whole = store.path.read_bytes()
    assert len(whole) == 12 * size
    for cut in range(len(whole) + 1):
        store.path.write_bytes(whole[:cut])
        seen = []
        assert ask(store, texts, seen) == len(seen) == 12 - cut // size
        assert store.path.read_bytes() == whole, cut


def test_what_was_made_before_an_exception_is_kept(tmp_path):
    store, rest = VectorStore(tmp_path / "x", (2, 3), np.float32), []
    with pytest.raises(RuntimeError, match="plug"):
        ask(store, NUMBERS, fail_at=12)
    assert ask(store, NUMBERS, rest) == 28 and rest == NUMBERS[12:]
    assert_holds(store, NUMBERS)


def test_rows_are_read_when_they_are_asked_for():
    table = torch.arange(24.0).view(4, 3, 2)
    rows = StoredRows(table, torch.tensor([2, 0, 2]))
    assert len(rows) == 3 and torch.equal(rows[:], table[[2, 0, 2]])
    assert torch.equal(rows[torch.tensor([1])], table[[0]])
    table[:, 2] = 0
    table[0, 1] = 0
    assert rows[:].shape == (3, 3, 2)
    padded = StoredRows(table, torch.tensor([2, 0, 2]), has_padding=True)
    assert padded[:].shape == (3, 2, 2) and padded[1:2].shape == (1, 1, 2)


# --------------------------------------------------------------------------------------------------
# Captions. `llm` reads bytes and has three blocks of width 32.

# A string, so that another process can make the same captions (see WRITER).
CAPTION = "f'caption number {i} shows ' + 'very ' * (i % 7) + 'few dogs'"


def captions(a, b):
    return [eval(CAPTION) for i in range(a, b)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_llm(tmp_path_factory.mktemp("three_blocks"), depth=3)


@pytest.fixture
def llm(folder):
    return load_llm(folder)


def count(llm, monkeypatch, fail_after=None):
    """Return a list that collects how many captions are read at once."""
    seen, batches = [], type(llm).batches

    def counting(*args):
        for batch in batches(llm, *args):
            if len(seen) == fail_after:
                raise RuntimeError("pulled the plug")
            seen.append(len(batch[0]))
            yield batch

    monkeypatch.setattr(llm, "batches", counting)
    return seen


def is_half(cached, live):
    """Equal but for float16's rounding."""
    return torch.equal(cached, live.half())


def test_the_cache_embeds_each_caption_once(llm, tmp_path, monkeypatch):
    seen, texts = count(llm, monkeypatch), captions(0, 30)
    asked = texts[3:9] + texts + texts[::-1] + ["\ud800 x"]
    first = CaptionVectors(llm, folder=tmp_path)(asked)
    assert sum(seen) == 31 and is_half(first, llm.encode(asked))
    seen.clear()
    again = CaptionVectors(llm, folder=tmp_path)
    assert torch.equal(again(asked), first) and sum(seen) == 0
    more = again(texts[:2] + captions(50, 52))
    assert sum(seen) == 2 and is_half(more, llm.encode(texts[:2] + captions(50, 52)))
    assert again([]).shape == CaptionVectors(llm, folder=tmp_path / "new")([]).shape == (0, 32)
    llm.model.layers[0].mlp.down_proj.weight.data.fill_(1e9)
    with pytest.raises(BadInput, match="finite"):
        again(["a new caption"])


def test_the_cache_reads_the_distinct_captions_of_images(llm, tmp_path):
    distinct = DistinctCaptions([captions(0, 3), captions(1, 5)])
    rows, cut_share = CaptionVectors(llm, folder=tmp_path).read(distinct)
    assert len(rows) == 5 and cut_share == 0
    assert is_half(rows[torch.tensor([4, 0])], llm.encode([captions(4, 5)[0], captions(0, 1)[0]]))


def test_the_cache_in_its_default_place_and_the_share_that_was_cut(llm, tmp_path, monkeypatch):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path))
    texts = ["a", "a", "a dog", *captions(0, 9)]
    for _ in range(2):  # embedded, then read
        cache = CaptionVectors(llm, context_length=9)
        assert is_half(cache(texts), llm.encode(texts, max_length=9))
        assert cache.store.path.parent == tmp_path / "captions"
        _, cut_share = cache.read(texts)
        longer = np.mean([len(llm.tokenizer.encode(text)) > 9 for text in texts])
        assert cut_share == pytest.approx(longer) == 9 / 12
        rows, cut_share = cache.read(texts[:2])
        assert len(rows) == 2 and cut_share == 0
        assert cache.read([])[1] == 0


def test_the_fingerprint_covers_all_that_decides_a_vector(folder, llm, tmp_path):
    """Whatever changes a vector changes the place where it is kept."""

    def other_weights(path):
        meta, stored = read_safetensors(path)
        tensors = {name: tensor.decode() for name, tensor in stored.items()}
        tensors["model.norm.weight"] += 1
        write_safetensors(path, tensors, meta)

    def other_config(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": 1.0}))

    def other_tokenizer(path):
        content = json.loads(path.read_text())
        ids = content["model"]["vocab"]
        ids["a"], ids["b"] = ids["b"], ids["a"]
        path.write_text(json.dumps(content))

    others = [load_llm(folder, dtype=torch.bfloat16)]
    for file, change in (
        ("model.safetensors", other_weights),
        ("config.json", other_config),
        ("tokenizer.json", other_tokenizer),
    ):
        change(shutil.copytree(folder, tmp_path / f"another {file}") / file)
        others.append(load_llm(tmp_path / f"another {file}"))
    texts, place = captions(0, 5), tmp_path / "cache"
    caches = [
        CaptionVectors(llm, folder=place, **settings)
        for settings in (
            {"pool": "mean"},
            {"pool": "last"},
            {"pool": "prompt"},
            {"layer": 2},
            {"layer": 3},
            {"context_length": 8},
        )
    ]
    caches += [CaptionVectors(other, "last", folder=place) for other in others]
    for cache in caches * 2:  # written, then read beside all the others
        live = cache.llm.encode(texts, cache.pool, cache.layer, cache.context_length)
        assert is_half(cache(texts), live)
    assert len({cache.fingerprint for cache in caches}) == len(caches)
    assert len({cache.store.path for cache in caches}) == len(caches)
    assert CaptionVectors(load_llm(folder), folder=place).fingerprint == caches[0].fingerprint
    # After block 1 is where the mean reads anyway.
    assert CaptionVectors(llm, layer=1, folder=place).fingerprint == caches[0].fingerprint


def test_the_cache_after_a_cut_at_any_byte(llm, tmp_path, monkeypatch):
    seen, texts, r = count(llm, monkeypatch), captions(0, 40), random.Random(13)
    cache = CaptionVectors(llm, folder=tmp_path)
    want, size = cache(texts).float(), 16 + 2 * llm.width
    path = cache.store.path
    whole = path.read_bytes()
    assert len(whole) == 40 * size
    cuts = [0, 1, 15, 16, 17, size - 1, size, size + 1, 40 * size]
    for cut in cuts + [r.randint(0, 40 * size) for _ in range(40)]:
        path.write_bytes(whole[:cut])
        seen.clear()
        assert is_half(cache(texts[::-1]).flip(0), want), cut
        assert sum(seen) == 40 - cut // size and path.stat().st_size == 40 * size, cut


def test_the_cache_keeps_what_was_done_before_an_exception(llm, tmp_path, monkeypatch):
    texts, cache = captions(0, 60), CaptionVectors(llm, folder=tmp_path)
    done = count(llm, monkeypatch, fail_after=2)
    with pytest.raises(RuntimeError, match="plug"):
        cache(texts)
    rest = count(llm, monkeypatch)
    vectors = cache(texts)
    assert sum(rest) == 60 - sum(done) < 60 and is_half(vectors, llm.encode(texts))


def test_the_cache_reads_while_another_process_is_writing(llm, tmp_path, monkeypatch):
    """Once the lock is open, another process may have written half a record."""
    cache, texts = CaptionVectors(llm, folder=tmp_path), captions(0, 5)
    cache(texts)
    records = cache.store.records

    def then_half_a_record():
        found = records()
        with open(cache.store.path, "ab") as f:
            f.write(b"1234567")
        return found

    with monkeypatch.context() as m:
        m.setattr(cache.store, "records", then_half_a_record)
        assert is_half(cache(texts), llm.encode(texts))
    assert is_half(cache(captions(0, 6)), llm.encode(captions(0, 6)))


WRITER = f"""
import itertools, sys, time
sys.path.insert(0, {str(ROOT)!r})
import llm_text
from data.vectors import CaptionVectors
llm_text.torch.set_num_threads(1)
folder, cache, first, last, stop = sys.argv[1:]
llm = llm_text.load_llm(folder)
forward, batch = llm.forward, itertools.count()

# Slow enough to be caught in the middle. However busy the machine is, `stop` batches are the end.
def slow(*args):
    time.sleep(0.02) if next(batch) < int(stop) else sys.stdin.readline()
    return forward(*args)

llm.forward = slow
print("ready", flush=True), sys.stdin.readline()
CaptionVectors(llm, folder=cache)([{CAPTION} for i in range(int(first), int(last))])
"""


@contextmanager
def within(seconds):
    """Fail if the body takes longer."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"took more than {seconds} s"))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@pytest.mark.slow
def test_killed_and_concurrent_writers(folder, llm, tmp_path, monkeypatch):
    """SIGKILL in the middle, then two processes at once on what was left, then this one."""
    cache = CaptionVectors(llm, folder=tmp_path)
    file, size = cache.store.path, 16 + 2 * llm.width
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, folder, tmp_path, *part],
            stdin=subprocess.PIPE,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for part in (("0", "300", "6"), ("0", "200", "999"), ("100", "300", "999"))
    ]
    for w in writers:
        assert w.stdout.readline() == "ready\n", w.stderr.read()
    writers[0].stdin.write("\n"), writers[0].stdin.flush()
    with within(60):
        while not file.exists() or file.stat().st_size <= 40 * size:
            time.sleep(0.01)
    writers[0].kill(), writers[0].communicate()
    left = file.read_bytes()
    assert 40 < len(left) // size < 250
    for w in writers[1:]:
        w.stdin.write("\n"), w.stdin.flush()
    for w in writers[1:]:
        _, err = w.communicate(timeout=60)
        assert w.returncode == 0, err
    blob = file.read_bytes()
    assert blob.startswith(left[: len(left) // size * size])
    keys = {blob[i : i + 15] for i in range(0, len(blob), size)}
    assert len(blob) == 300 * size and len(keys) == 300  # each caption was embedded once
    seen = count(llm, monkeypatch)
    vectors = cache(captions(0, 301))
    assert sum(seen) == 1 and is_half(vectors, llm.encode(captions(0, 301)))


def test_token_features_are_cached_with_zeros_as_padding(llm, tmp_path):
    cache = CaptionVectors(llm, "tokens", context_length=20, folder=tmp_path)
    texts = ["a red circle", "x", "a very very very very long caption"]
    rows, cut_share = cache.read(texts)
    ids, mask = llm.tokenize(texts, 20)
    wanted = llm(ids, mask, layer=1) * mask[..., None]  # a third of the three blocks
    wanted[:, 0] = 0  # what stands before every caption is left out
    assert torch.allclose(rows[:].float(), wanted, atol=2e-3) and rows[:].shape == (3, 20, 32)
    assert rows[torch.tensor([1])].shape == (1, 3, 32)  # only as long as what is read
    assert rows[torch.tensor([1, 0])].shape == (2, 14, 32)
    assert torch.equal(rows[torch.tensor([0])], rows[:][:1, :14])
    assert torch.equal(cache(texts), rows[:]) and rows[:].dtype == torch.float16
    assert len(rows) == 3 and cut_share == pytest.approx(1 / 3)


# --------------------------------------------------------------------------------------------------
# Views of images.


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return vit.ViT("micro/16", 32).eval()


def views_of(images, tower, crop_scale=1.0, n_views=4, seed=0, crops=None):
    """As train.py makes them."""
    n_views = n_views if crop_scale < 1 else 1
    settings = ["micro/16", n_views, crop_scale, 32, seed]
    crops = crops or Crops(images, crop_scale, seed, CPU)
    return read_views(tower, crops, images.digests, n_views, settings, seed, CPU)


def test_views_of_a_frozen_tower_are_its_vectors_of_crops_read_once(monkeypatch, tmp_path, tower):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path))
    images = read_images("shapes", "train", 32, num_samples=40)
    plain = views_of(images, tower)
    with torch.no_grad():
        assert plain.vectors.shape == (40, 1, 192)  # without crops one view is all there is
        whole = normalize_pixels(torch.from_numpy(images.pixels(np.arange(40))))
        assert torch.allclose(plain(np.arange(40), 5), tower(whole), atol=1e-5)
    several = views_of(images, tower, crop_scale=0.5, n_views=3)
    assert several.vectors.shape == (40, 3, 192)
    assert (torch.stack([torch.pdist(v) for v in several.vectors]) > 1e-3).all()  # all crops differ
    assert all(
        torch.cosine_similarity(v, p, dim=1).mean() > 0.5
        for v, p in zip(several.vectors, plain.vectors, strict=True)
    )  # of one image
    which, seen = np.array([3, 17]), set()
    for step in range(30):
        got = several(which, step)
        assert torch.equal(got, several(which, step))
        seen |= {
            (j, v)
            for j in range(2)
            for v in range(3)
            if torch.equal(got[j], several.vectors[which[j], v])
        }
    assert seen == {(j, v) for j in range(2) for v in range(3)}
    with monkeypatch.context() as m:
        m.setattr(tower, "forward", None)  # from now on it is read from the cache
        again = views_of(images, tower, crop_scale=0.5, n_views=3)
    assert torch.equal(again.vectors, several.vectors) and again.fingerprint == several.fingerprint
    others = [
        views_of(images, tower, **{"crop_scale": 0.5, "n_views": 3, **change})
        for change in ({"crop_scale": 0.6}, {"n_views": 2}, {"seed": 1}, {})
    ]
    tower.norm.bias.data[0] += 0.1
    others.append(views_of(images, tower, crop_scale=0.5, n_views=3))
    images = images.take(np.arange(39))
    others.append(views_of(images, tower, crop_scale=0.5, n_views=3))
    assert (
        len({v.fingerprint for v in others}) == 6 and others[3].fingerprint == several.fingerprint
    )
    assert len(list((tmp_path / "views").iterdir())) == 7


def test_views_are_completed_after_a_kill_with_the_same_vectors(monkeypatch, tmp_path, tower):
    """Batches of crops begin where they always begin, also where half a batch is there."""
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path))
    images = read_images("shapes", "train", 32, num_samples=300)
    whole = views_of(images, tower, crop_scale=0.5, n_views=2).vectors.clone()
    (file,) = (tmp_path / "views").iterdir()
    blob = file.read_bytes()
    size = 16 + 4 * 2 * 192
    assert len(blob) == 300 * size
    real = Crops(images, 0.5, 0, CPU)
    first, second = [(0, 0), (0, 1)], [(256, 512), (256, 513)]  # (first image of the batch, step)
    for cut, wanted in (
        (0, first + second),
        (100 * size + 3, first + second),
        (256 * size, second),
        (299 * size, second),
        (300 * size, []),
    ):
        file.write_bytes(blob[:cut])
        asked = []

        def crops(which, step, asked=asked):
            asked.append((which[0], step))
            return real(which, step)

        again = views_of(images, tower, crop_scale=0.5, n_views=2, crops=crops)
        assert torch.equal(again.vectors, whole) and asked == wanted
        assert file.read_bytes() == blob


def test_views_of_a_damaged_file_are_not_those_of_other_images(monkeypatch, tmp_path, tower):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path))
    images = read_images("shapes", "train", 32, num_samples=10)
    whole = views_of(images, tower, crop_scale=0.5, n_views=2).vectors.clone()
    (file,) = (tmp_path / "views").iterdir()
    size = 16 + 4 * 2 * 192
    file.write_bytes(file.read_bytes()[3 * size :])  # the first three images are lost
    assert torch.equal(views_of(images, tower, crop_scale=0.5, n_views=2).vectors, whole)


# --------------------------------------------------------------------------------------------------
# A folder of images, for search.


def paint(path, red):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path)


def test_a_folder_is_read_once_and_what_changed_again(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))
    folder, weights, read = tmp_path / "p", tmp_path / "weights", []
    weights.write_bytes(b"one")

    def embed(images):
        reds = images.pixels(np.arange(len(images)))[:, 0, 0, 0]
        read.append(sorted(reds.tolist()))
        return torch.from_numpy(reds).float()[:, None] * torch.tensor([1.0, 2.0])

    def ask(where=folder):
        read.clear()
        paths, vectors = folder_vectors(where, 8, embed, 2, weights)
        assert vectors.dtype == torch.float32 and torch.equal(vectors[:, 1], 2 * vectors[:, 0])
        reds = vectors[:, 0].tolist()
        return {str(p.relative_to(where)): v for p, v in zip(paths, reds, strict=True)}

    for red, name in ((10, "a.png"), (20, "b.PNG"), (30, "deep/c.bmp")):
        paint(folder / name, red)
    (folder / "broken.jpg").write_bytes(b"none")
    (folder / "notes.txt").write_text("no image")
    (folder / "folder.png").mkdir()
    want = {"a.png": 10, "b.PNG": 20, "deep/c.bmp": 30}
    assert ask() == want and read == [[10, 20, 30]]
    err = capsys.readouterr().err
    assert "skipped broken.jpg: " in err
    assert f"{folder}: 3 images, 1 more cannot be read; read now: 4" in err

    assert ask() == want and not read  # nor is the broken one tried again
    err = capsys.readouterr().err
    assert "skipped broken.jpg: it could not be read" in err
    assert "3 images, 1 more cannot be read; read now: 0" in err

    paint(folder / "a.png", 40)  # as large as before, so the time must tell
    os.utime(folder / "a.png", (1, 1))
    paint(folder / "broken.jpg", 0)  # mended
    (folder / "b.PNG").unlink()
    assert ask() == {"a.png": 40, "broken.jpg": 0, "deep/c.bmp": 30} and read == [[0, 40]]
    os.rename(folder / "a.png", folder / "e.png")
    assert ask() == {"broken.jpg": 0, "deep/c.bmp": 30, "e.png": 40} and read == [[40]]

    shutil.copytree(folder, tmp_path / "q")  # another folder, other weights: other vectors
    assert len(ask(tmp_path / "q")) == 3 and read == [[0, 30, 40]]
    weights.write_bytes(b"two")
    assert len(ask()) == 3 and read == [[0, 30, 40]]
    assert len(list((tmp_path / "cache" / "search").iterdir())) == 3


def test_folders_without_images_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "weights").touch()
    (tmp_path / "p").mkdir()
    with pytest.raises(BadInput, match="p: no folder with images"):
        folder_vectors(tmp_path / "p", 8, None, 2, tmp_path / "weights")
    (tmp_path / "p" / "a.png").write_bytes(b"none")
    for _ in range(2):  # from the cache, too
        with pytest.raises(BadInput, match="p: none of its 1 images can be read"):
            folder_vectors(tmp_path / "p", 8, None, 2, tmp_path / "weights")


# --------------------------------------------------------------------------------------------------
# Vectors from outside.


def named(path, names, vectors):
    np.save(path, vectors)
    path.with_suffix(".txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return path


def test_outside_vectors_are_found_by_name(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16)
    found = OutsideVectors(named(tmp_path / "v.npy", ["a b", "ü", "c"], vectors))
    want = vectors[[2, 0, 2]].astype(np.float32).tolist()
    rows, cut_share = found.read(["c", "a b", "c"])
    assert found(["c", "a b", "c"]).tolist() == rows.tolist() == want and cut_share == 0
    assert found(["ü"]).dtype == torch.float32 and found.frozen_parameters == 0
    other = OutsideVectors(named(tmp_path / "w.npy", ["ü", "a b", "c"], vectors))
    assert found.fingerprint != other.fingerprint
    with pytest.raises(BadInput, match="v.npy has no row for 'd' \\(1 of 2 are missing\\)"):
        found(["c", "d"])


@pytest.mark.parametrize(
    "names, vectors, says",
    [
        (["a"], np.zeros((2, 3)), "1 lines"),
        (["a", "b"], np.zeros(2), "shape"),
        (["a", "b"], np.zeros((2, 3), int), "int64"),
        (["a", "b"], np.array([[1.0], [np.nan]]), "row 'b' is not finite"),
        (["a", "b"], np.array([[0.0], [1.0]]), "row 'a' is not finite, or all zero"),
        (["a", "a"], np.ones((2, 3)), "same line twice"),
        (["a", "b"], np.array([{}, {}]), "corrupt"),
    ],
)
def test_outside_vectors_that_cannot_be_used(tmp_path, names, vectors, says):
    with pytest.raises(BadInput, match=says):
        OutsideVectors(named(tmp_path / "v.npy", names, vectors))(names)


def test_outside_vectors_of_another_kind(tmp_path):
    path = named(tmp_path / "v.npy", ["a"], np.ones((1, 3)))
    assert OutsideVectors(path, 2)(["a"]).shape == (1, 3)
    with pytest.raises(BadInput, match="in 3 dimensions"):
        OutsideVectors(path, 3)
    np.savez(tmp_path / "v.npz", a=np.ones(3))
    with pytest.raises(BadInput, match="v.npz: not one array"):
        OutsideVectors(tmp_path / "v.npz")


def test_more_rows_may_be_added_but_no_others_put_in_their_place(tmp_path):
    names, vectors = [str(i) for i in range(300)], np.random.default_rng(0).normal(size=(300, 4))
    path = tmp_path / "v.npy"
    before = OutsideVectors(named(path, names[:200], vectors[:200])).fingerprint
    assert OutsideVectors(named(path, names, vectors)).still_matches(before)
    # Every row counts, the last one, too, and its name.
    changed = vectors.copy()
    changed[199] += 1
    assert not OutsideVectors(named(path, names, changed)).still_matches(before)
    other_names = [*names[:199], "another", *names[200:]]
    assert not OutsideVectors(named(path, other_names, vectors)).still_matches(before)
    assert not OutsideVectors(named(path, names[:150], vectors[:150])).still_matches(before)


def test_outside_vectors_without_their_files(tmp_path):
    with pytest.raises(BadInput, match="v.npy: no such file"):
        OutsideVectors(tmp_path / "v.npy")
    np.save(tmp_path / "v.npy", np.zeros((1, 2)))
    with pytest.raises(BadInput, match="v.txt: no such file"):
        OutsideVectors(tmp_path / "v.npy")


def test_outside_vectors_with_a_damaged_header_are_refused_in_one_line(tmp_path):
    path = named(tmp_path / "v.npy", ["a", "b"], np.ones((2, 3), np.float32))
    good = path.read_bytes()
    for content in (
        b"",
        good[:7],
        good[:60],
        good.replace(b"False", b"[alse"),  # numpy: tokenize.TokenError
        good.replace(b"<f4", b"<,4"),  # numpy: SyntaxError
        good.replace(b"(2, 3)", b"(2,-3)"),
        good.replace(b"(2, 3)", b"(2,99)"),
    ):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="v.npy: truncated, corrupt") as refused:
            OutsideVectors(path)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("suffix", [".npy", ".txt"])
def test_outside_vectors_from_a_pipe_are_refused(tmp_path, suffix):
    path = named(tmp_path / "v.npy", ["a"], np.ones((1, 3)))
    path.with_suffix(suffix).unlink()
    os.mkfifo(path.with_suffix(suffix))
    with within(10), pytest.raises(BadInput, match=f"v{suffix}: no regular file"):
        OutsideVectors(path)


def test_outside_views_are_one_or_several_of_each_image(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    names, which = ["a", "b", "c", "d"], np.array([2, 0])
    one = outside_views(named(tmp_path / "one.npy", names, vectors[:, 0]), ["d", "b"], 0, CPU)
    assert one.vectors.shape == (2, 1, 2)
    assert one(np.array([1]), 7).tolist() == [vectors[1, 0].tolist()]
    path = named(tmp_path / "three.npy", names, vectors)
    three = outside_views(path, names, 0, CPU)
    assert three.fingerprint == OutsideVectors(path).fingerprint != one.fingerprint
    drawn = torch.stack([three(which, step)[0] for step in range(30)])
    assert len(drawn.unique(dim=0)) == 3
    assert {tuple(v) for v in drawn.tolist()} == {tuple(v) for v in vectors[2].tolist()}


def test_a_part_of_the_views_is_those_rows_of_the_whole():
    vectors = torch.arange(120.0).view(20, 3, 2)
    views = ImageViews(vectors, "", 0, torch.device("cpu"))
    whole = views(np.arange(20), 5)
    for part in (slice(0, 10), slice(10, 20)):
        assert torch.equal(views(np.arange(20), 5, part), whole[part])
