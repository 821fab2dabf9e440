"""train.py: order, schedule and crops as pure functions; stop and resume; bad input; and that learning is learning.

python -m pytest tests/test_train.py
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import lift
import train
import vit
from data.batches import Batches
from data.captions import DistinctCaptions
from data.common import BadInput, stop_signals
from data.images import pixels
from data.images import read as readers
from data.images.pixels import random_crops
from data.vectors import ImageViews
from data.world import shapes
from llm_text import load_llm
from tests.conftest import embedded

COMMAND = [sys.executable, str(Path(train.__file__))]


def arguments(config):
    return [a for k, v in config.items() for a in (f"--{k.replace('_', '-')}", str(v))]


def state(run):
    checkpoint = lift.read_run(run)
    flat = dict(checkpoint["model"])
    for i, values in checkpoint["optimizer"]["state"].items():
        flat |= {f"optimizer.{i}.{k}": v for k, v in values.items()}
    return flat


def assert_same(a, b):
    assert a.keys() == b.keys()
    different = [k for k in a if not torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k]))]
    assert not different


def test_schedule():
    cfg = train.Config(lr=1.0, warmup=10)
    lrs = [train.lr_at(s, 110, cfg) for s in range(110)]
    assert lrs[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert lrs[10] == pytest.approx(1.0) and lrs[60] == pytest.approx(0.5) and 0 < lrs[109] < 1e-3
    assert (
        train.lr_at(0, 20, train.Config(lr=1.0, warmup=500)) == 0.5
    )  # warm-up is a tenth of a short run


def test_crops_keep_what_they_say():
    gradient = torch.linspace(0, 1, 64).view(1, 1, 1, 64).expand(400, 3, 64, 64)
    out = random_crops(gradient, 0.25, torch.Generator().manual_seed(0))
    width = out[:, 0, 0, -1] - out[:, 0, 0, 0]  # share of the width that is kept
    height = random_crops(gradient.transpose(2, 3), 0.25, torch.Generator().manual_seed(0))[
        :, 0, [0, -1], 0
    ].diff()[:, 0]
    area = width * height
    assert 0.2 < area.min() < 0.35 and area.max() > 0.8
    assert width.min() > 0.4 and (width / height).max() < 4 / 3 + 0.1
    assert (out[:, 0, 0] - out[:, 0, 40]).abs().max() < 1e-5  # upright, and no flips:
    assert (width > 0).all()
    same = random_crops(gradient, 0.25, torch.Generator().manual_seed(0))
    assert torch.equal(out, same)


@pytest.mark.parametrize("smallest", (0.6, 0.9, 0.99))
def test_no_crop_is_smaller_than_was_asked_for(smallest):
    sides = []
    for shape in (
        (1, 1, 1, 64),
        (1, 1, 64, 1),
    ):  # a gradient from left to right, then one from top to bottom
        out = random_crops(
            torch.linspace(0, 1, 64).view(shape).expand(400, 3, 64, 64),
            smallest,
            torch.Generator().manual_seed(0),
        )
        sides.append(out[:, 0, -1, -1] - out[:, 0, 0, 0])
    area = sides[0] * sides[1]
    assert (
        smallest - 1e-3 < area.min() < smallest + 0.03
        and max(side.max() for side in sides) < 1 + 1e-4
    )
    assert area.max() > 0.97  # and none is larger than the picture


def starts(method, small):
    """Flags for the rows that start from a pretrained tower: here a random one, in a file."""
    if lift.METHODS[method].image == "scratch":
        return {}
    path = Path(small["out"]).parent / "tower.pt"
    if not path.exists():
        torch.manual_seed(1)
        torch.save(vit.ViT(small["model"], small["image_size"]).state_dict(), path)
    return {"image_weights": str(path)}


def test_batches_are_a_function_of_seed_and_step():
    pictures = readers.read_images("shapes", "train", 8, 50, caption_key="paraphrase")

    texts = DistinctCaptions(pictures.captions)

    def batches(**more):
        return Batches(
            pictures,
            texts,
            torch.arange(len(texts)),
            lambda which, step: torch.from_numpy(pictures.pixels(which)),
            train.Config(batch_size=16, **more),
            torch.device("cpu"),
        )

    one, two = batches(), batches()
    assert one.steps_per_epoch == 3
    for step in (7, 2, 0):  # in any order
        assert all(torch.equal(a, b) for a, b in zip(one(step), two(step)))
    seen = {}
    for step in range(3):
        images, captions, duplicates = one(step)
        for image, caption, row in zip(images, captions, duplicates):
            owners = [i for i in range(50) if (pictures.pixels([i])[0] == image.numpy()).all()]
            assert any(
                texts[caption] in pictures.captions[i] for i in owners
            )  # pictures keep their own captions
            seen[owners[0]] = seen.get(owners[0], 0) + 1
        which = one.epoch(0)[0][step * 16 :][:16]
        for i in range(16):
            for j in range(16):  # any caption that is true of both makes the pair no negative
                shared = captions[j] in texts.of(which[i]) or captions[i] in texts.of(which[j])
                assert duplicates[i, j] == (shared or bool((images[i] == images[j]).all()))
    assert len(seen) == 48 and set(seen.values()) == {1}  # each picture once an epoch
    assert not torch.equal(one(0)[1], one(3)[1])  # another epoch, another order
    said = {}
    for step in range(36):  # over the epochs each picture shows several of its captions
        for picture, caption in zip(
            one.epoch(step // 3)[0][step % 3 * 16 :][:16], one(step)[1].tolist()
        ):
            said.setdefault(int(picture), set()).add(caption)
    assert min(map(len, said.values())) >= 2 and all(
        said[i] <= set(texts.of(i).tolist()) for i in said
    )
    assert not torch.equal(one(0)[1], batches(seed=1)(0)[1])


def test_the_fingerprint_covers_all_that_a_run_learns_from():
    def fingerprint(text="t", look="v", captions="c", digest=1, inputs=0.0, views=0.0, **foreign):
        cfg = SimpleNamespace(**{"text_features": "", "image_features": ""} | foreign)
        return Batches.data_fingerprint(
            SimpleNamespace(
                look=SimpleNamespace(fingerprint=look, vectors=torch.tensor([views])),
                texts=SimpleNamespace(fingerprint=captions),
                pictures=SimpleNamespace(digests=np.array([digest], np.uint64)),
                inputs=torch.tensor([inputs]),
                cfg=cfg,
            ),
            text,
        )

    assert fingerprint() == fingerprint(
        inputs=1.0, views=1.0
    )  # (the cache's content: its own fingerprint says it)
    others = [
        fingerprint(**one)
        for one in (
            {},
            {"text": "x"},
            {"look": "x"},
            {"captions": "x"},
            {"digest": 2},
            {"text_features": "f", "inputs": 1.0},
            {"text_features": "f", "inputs": 2.0},
            {"image_features": "f", "views": 3.0},
            {"image_features": "f", "views": 4.0},
        )
    ]
    assert len(set(others)) == len(others)


def test_the_first_signal_is_collected_and_the_second_gets_through():
    got = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop == [signal.SIGTERM] and not got
            os.kill(os.getpid(), signal.SIGTERM)
            assert got == [signal.SIGTERM] and stop == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(got) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_long_captions_are_drawn_in_the_share_asked_for():
    pictures = readers.read_images("shapes", "train", 8, 64, caption_key="paraphrase")

    texts = DistinctCaptions(pictures.captions)
    for share in (0.0, 0.3, 1.0):
        batches = Batches(
            pictures,
            texts,
            torch.arange(len(texts)),
            lambda which, step: torch.zeros(1),
            train.Config(batch_size=64, long_share=share),
            torch.device("cpu"),
        )
        said = {}
        for step in range(100):
            for i, text in zip(batches.epoch(step)[0], batches(step)[1]):
                said.setdefault(int(i), []).append(texts[text])
        longest = [sorted(captions, key=len)[-1] for captions in pictures.captions]
        hits = sum(text == longest[i] for i in said for text in said[i])
        assert hits / 6400 == pytest.approx(share, abs=0.02)
        for i, captions in enumerate(pictures.captions):  # the others all come, too
            assert share == 1 or set(captions) - {longest[i]} == set(said[i]) - {longest[i]}


def test_views_of_a_frozen_tower_are_its_vectors_of_crops_read_once(monkeypatch, tmp_path):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path))
    pictures, cpu = readers.read_images("shapes", "train", 32, 40), torch.device("cpu")
    torch.manual_seed(0)
    tower = vit.ViT("micro/16", 32).eval()

    def views(tower, **flags):
        cfg = train.Config(
            method="ape", image_weights="x", image_size=32, model="micro/16", **flags
        )
        return ImageViews(pictures, cfg, cpu, tower)

    plain = views(tower)
    with torch.no_grad():
        assert plain.vectors.shape == (40, 1, 192)  # without crops one view is all there is
        assert torch.allclose(
            plain(np.arange(40), 5),
            tower(pixels.normalize_pixels(torch.from_numpy(pictures.images))),
            atol=1e-5,
        )
    several = views(tower, crop_scale=0.5, image_views=3)
    assert several.vectors.shape == (40, 3, 192)
    assert (torch.stack([torch.pdist(v) for v in several.vectors]) > 1e-3).all()  # all crops differ
    assert all(
        torch.cosine_similarity(v, p, dim=1).mean() > 0.5
        for v, p in zip(several.vectors, plain.vectors)
    )  # of one picture
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
    monkeypatch.setattr(tower, "forward", None)  # from now on it is read from the cache
    again = views(tower, crop_scale=0.5, image_views=3)
    assert torch.equal(again.vectors, several.vectors) and again.fingerprint == several.fingerprint
    monkeypatch.undo()
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path))
    others = [
        views(tower, **{"crop_scale": 0.5, "image_views": 3, **change})
        for change in ({"crop_scale": 0.6}, {"image_views": 2}, {"seed": 1}, {})
    ]
    tower.norm.bias.data[0] += 0.1
    others.append(views(tower, crop_scale=0.5, image_views=3))
    pictures = pictures.take(np.arange(39))
    others.append(views(tower, crop_scale=0.5, image_views=3))
    assert (
        len({v.fingerprint for v in others}) == 6 and others[3].fingerprint == several.fingerprint
    )
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    "flags, says",
    [
        ({"method": "lit"}, "starts from a pretrained image tower; name one with --image-weights"),
        ({"method": "clip", "image_weights": "x"}, "starts from scratch"),
        ({"method": "lift", "image_features": "x"}, "starts from scratch"),
        ({"method": "llm2clip", "image_features": "x"}, "goes with --method lit or an ape row"),
        ({"method": "ape", "image_features": "x", "image_weights": "y"}, "without --image-weights"),
        ({"method": "ape", "image_features": "x", "unlock": "all"}, "and --unlock"),
        ({"method": "lit", "image_weights": "x", "llm_adapter": "x"}, "tokenizer only"),
        ({"method": "x"}, "--method 'x' is unknown"),
        ({"method": "clip", "text_features": "x"}, "goes with --method lift"),
        ({"text_features": "x", "llm": "y"}, "without --llm"),
        ({"text_features": "x", "llm_adapter": "y"}, "without --llm"),
    ],
)
def test_flags_that_contradict_each_other(flags, says):
    with pytest.raises(BadInput, match=says):
        train.Config(**flags)


def test_the_share_that_is_trained_is_printed(small, capsys):
    small |= starts("ape", small)
    train.train(train.Config(method="ape", **small))
    said = capsys.readouterr().err
    head, llm = (
        3 * (32 * 32 + 32) + 32 * 192 + 192,
        sum(p.numel() for p in load_llm(small["llm"]).parameters()),
    )
    tower = sum(p.numel() for p in vit.ViT("micro/16", 32).parameters())
    assert (
        f"visual 0 of {tower:,}, text_head {head:,} of {head:,}, logit_scale 1 of 1, the LLM behind the cached captions 0 of {llm:,}"
        in said
    )
    assert (
        f"in all {head + 1:,} of {head + tower + llm + 1:,} ({(head + 1) / (head + tower + llm + 1):.2%})"
        in said
    )


@pytest.mark.parametrize("method", ["lift", "clip", "ape", "lilt"])
def test_stop_and_resume_equals_one_run_bit_for_bit(small, tmp_path, method, monkeypatch):
    small |= starts(method, small) | {"crop_scale": 0.8}
    train.train(train.Config(method=method, **small))
    whole = state(small["out"])
    half = {**small, "out": str(tmp_path / "half")}
    saves = []

    def stop_after_second(what, path, save=train.save_tensors):
        save(what, path)
        saves.append(what["step"])
        if what["step"] == 4:
            raise KeyboardInterrupt  # as good as a kill: nothing after this save is kept

    monkeypatch.setattr(train, "save_tensors", stop_after_second)
    with pytest.raises(KeyboardInterrupt):
        train.train(train.Config(method=method, **half))
    monkeypatch.undo()
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))
    assert saves == [2, 4] and lift.read_run(half["out"])["step"] == 4
    train.train(train.from_cli(["--resume", half["out"]]))
    assert_same(state(half["out"]), whole)


def test_sigterm_saves_and_says_how_to_go_on(small, tmp_path):
    long = {**small, "steps": 5000, "save_frequency": 5000}
    process = subprocess.Popen([*COMMAND, *arguments(long)], stderr=subprocess.PIPE, text=True)
    log = Path(small["out"]) / "log.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < 4:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert f"python train.py --resume {small['out']}" in said and "Traceback" not in said
    step = lift.read_run(small["out"])["step"]
    assert 0 < step < 5000 and f"stopped after step {step} of 5000" in said


def test_sigkill_in_the_middle_of_a_save_keeps_the_old_checkpoint(small):
    train.train(train.Config(**{**small, "steps": 2}))
    before = state(small["out"])
    code = f"""
import os, sys; sys.path.insert(0, {str(Path(train.__file__).parent)!r})
import torch, train
from pathlib import Path
path = Path({small["out"]!r}) / "checkpoint.pt"
def killed(fd):
    os.ftruncate(fd, os.fstat(fd).st_size // 2)
    os.kill(os.getpid(), 9)
os.fsync = killed
train.save_tensors({{"step": 99, "weights": torch.zeros(1000)}}, path)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert (Path(small["out"]) / "checkpoint.part").stat().st_size > 2000
    assert_same(state(small["out"]), before)
    train.save_tensors({}, Path(small["out"]) / "checkpoint.pt")  # the next save cleans up
    assert not (Path(small["out"]) / "checkpoint.part").exists()


def test_nan_stops_and_keeps_the_last_good_checkpoint(small, monkeypatch):
    good = lift.METHODS["lift"].loss
    calls = []

    def spoilt(**arguments):
        calls.append(1)
        return good(**arguments) * (math.nan if len(calls) > 4 else 1)

    monkeypatch.setitem(lift.METHODS, "lift", replace(lift.METHODS["lift"], loss=spoilt))
    with pytest.raises(
        BadInput, match="the loss is nan .* at step 6; stopped. The last good checkpoint is kept"
    ):
        train.train(train.Config(**small))
    checkpoint = lift.read_run(small["out"])
    assert checkpoint["step"] == 4 and all(
        torch.isfinite(p).all() for p in checkpoint["model"].values()
    )


def test_log_has_config_versions_and_what_a_person_reads(small, capsys):
    metrics = train.train(train.Config(**small))
    first, *entries = map(json.loads, (Path(small["out"]) / "log.jsonl").read_text().splitlines())
    assert first["config"]["llm"] == small["llm"] and first["torch"] == torch.__version__
    assert first["skipped"] == []
    assert [e["step"] for e in entries] == [1, 2, 4, 6] and entries[-1] == metrics
    assert {
        "loss",
        "ln_batch",
        "accuracy",
        "scale",
        "lr",
        "grad_norm",
        "images_per_second",
        "data_wait",
        "memory_gb",
        "eta_seconds",
    } <= metrics.keys()
    said = capsys.readouterr().err
    assert "step 6/6 | loss" in said and "ln B 2.77" in said and "0.0% cut at 200 tokens" in said


def run(*args, **env):
    return subprocess.run(
        [*COMMAND, *args], capture_output=True, text=True, env={**os.environ, **env}
    )


@pytest.mark.parametrize(
    "args, says",
    [
        (["--data", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--image-size", "30"], "not a multiple of the patch side"),
        (["--llm", "nowhere.gguf"], "nowhere.gguf: no such file"),
        (["--resume", "nowhere"], "not the folder of a trained run"),
        (["--lr", "high"], "invalid float"),
        (["--learning-rate", "1"], "unrecognized arguments"),
        (["--method", "clipp"], "invalid choice"),
        (["--whiten", "500"], "--whiten can be at most 15 here"),
        (["--layer", "9"], "layer 9 does not exist"),
        (["--device", "cuda:9"], "try --device cpu"),
        (["--val-data", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--text-width", "33", "--method", "clip"], "cannot be shared"),
        (["--method", "lit", "--image-weights", "nowhere"], "nowhere: no such"),
        (["--llm-adapter", "nowhere"], "nowhere: no such"),
        (["--batch-size", "0"], "--batch-size 0 is out of range"),
    ],
)
def test_bad_flags_are_one_line_and_status_2(small, args, says):
    base = {k: v for k, v in small.items() if "--" + k.replace("_", "-") not in args}
    if "--resume" in args:
        base = {}
    done = run(*arguments(base), *args)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr, (
        done.stderr
    )
    assert done.stderr.strip().splitlines()[-1].startswith(("error: ", "train.py: error: "))


@pytest.mark.parametrize(
    "name, value",
    [
        ("lr", math.nan),
        ("steps", -1),
        ("crop_scale", 2.0),
        ("log_every_n_steps", 0),
        ("whiten", -3),
        ("epochs", 0),
        ("seed", -1),
        ("out", "elsewhere"),
    ],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(BadInput, match=name.replace("_", "-")):
        train.Config(**{"resume": "runs/x" if name == "out" else "", name: value})


def test_the_loop_passes_duplicates_steps_the_rate_and_clamps(small, monkeypatch):
    seen = []

    def spy(**features):
        seen.append(features["duplicates"])
        return lift.info_nce(**features)

    rates, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda o: (rates.append(o.param_groups[0]["lr"]), step(o))[1]
    )
    monkeypatch.setitem(lift.METHODS, "lift", replace(lift.METHODS["lift"], loss=spy))
    cfg = train.Config(**{**small, "lr": 1.0, "steps": 12})
    metrics = train.train(cfg)
    assert any(
        (d.sum() > len(d)) for d in seen
    )  # 16 scenes in 64 pictures: some batch holds a caption twice
    assert rates == pytest.approx([train.lr_at(i, 12, cfg) for i in range(12)])
    assert 1.0 <= metrics["scale"] <= 100.0001 and abs(metrics["scale"] - 1 / 0.07) > 3


def test_a_gradient_that_is_not_finite_stops_before_the_save(small, monkeypatch):
    def spoilt(**features):
        loss = lift.info_nce(**features)
        return loss + torch.sqrt(loss * 0)  # finite, with an infinite slope

    monkeypatch.setitem(lift.METHODS, "lift", replace(lift.METHODS["lift"], loss=spoilt))
    with pytest.raises(BadInput, match="gradient's norm nan at step"):
        train.train(train.Config(**{**small, "steps": 2, "save_frequency": 1}))
    assert not (Path(small["out"]) / "checkpoint.pt").exists()


def test_a_run_is_never_overwritten_nor_resumed_as_another(small, monkeypatch):
    train.train(train.Config(**{**small, "steps": 2}))
    with pytest.raises(BadInput, match="already holds a run"):
        train.train(train.Config(**small))
    with pytest.raises(BadInput, match="made with --seed 0, not 7"):
        train.train(train.from_cli(["--resume", small["out"], "--seed", "7"]))
    with pytest.raises(BadInput, match="made with --steps 2, not 6"):
        train.train(train.Config(**{**small, "resume": small["out"]}))
    assert train.from_cli(["--resume", small["out"], "--device", "cpu"]).image_size == 32
    other = train.from_cli(["--resume", small["out"]])
    pictures = readers.read_images("shapes", "train", 32, 64)
    pictures.captions[5] = ["another caption"]
    monkeypatch.setattr(readers, "read", lambda *a, **k: pictures)
    with pytest.raises(BadInput, match="not what it was"):
        train.train(other)


def test_full_disk_is_one_line(small):
    """Every byte a run writes may fail; here the checkpoint's."""
    done = subprocess.run(
        [
            "bash",
            "-c",
            "ulimit -f 200; " + " ".join([*COMMAND, *arguments({**small, "model": "micro/8"})]),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert (
        "File too large" in done.stderr.splitlines()[-1]
        and not (Path(small["out"]) / "checkpoint.pt").exists()
    )


def test_compiled_and_bf16_training_follow_the_eager_one(small, tmp_path, monkeypatch):
    """In one graph (no breaks), with the names of the uncompiled model; bfloat16 within its rounding."""
    eager = train.train(train.Config(**small))
    half = train.train(
        train.Config(**{**small, "out": str(tmp_path / "half"), "precision": "amp_bf16"})
    )
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda m: compile_(m, backend="aot_eager", fullgraph=True)
    )
    compiled = train.train(
        train.Config(**{**small, "out": str(tmp_path / "compiled"), "torchcompile": True})
    )
    assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-3)
    assert half["loss"] == pytest.approx(eager["loss"], rel=0.1) and half["loss"] != eager["loss"]
    assert state(str(tmp_path / "compiled")).keys() == state(small["out"]).keys()


def learn(small, pictures, monkeypatch, method, **changes):
    """Train on given pictures until they are known by heart; R@1 both ways on the same pictures."""
    monkeypatch.setattr(readers, "read", lambda *a, **k: pictures)
    changes |= starts(method, small) | {"method": method}
    cfg = {
        **small,
        "batch_size": 64,
        "steps": 150,
        "lr": 2e-3,
        "warmup": 10,
        "crop_scale": 1.0,
        "save_frequency": 1000,
        "log_every_n_steps": 1000,
        "whiten": 30,
        **changes,
    }
    train.train(train.Config(**cfg))
    e = embedded(cfg["out"])
    return e.scores()["retrieval"]


# What needs more than 150 steps, or another rate, to know 64 pairs by heart: the starting tower is random, the LLM tiny.
SLOWER = {
    "llm2clip": {"lr": 1e-2, "steps": 300},
    "ape": {"lr": 1e-2, "steps": 400},
    "ape_transformer": {"lr": 1e-2, "steps": 400},
    "ape_lookup": {"lr": 3e-2, "steps": 800},
    "clip": {"steps": 200},
}


@pytest.mark.parametrize(
    "method", [m for m in lift.METHODS if m != "supervised"]
)  # (labels are no space to retrieve in)
def test_64_pairs_are_overfitted(small, monkeypatch, method):
    scenes = shapes.make_scenes("train", 64)
    images = np.stack([np.asarray(shapes.draw(s, 0, 32)) for s in scenes])
    pictures = readers.CaptionedImages(
        images,
        np.arange(64),
        [[shapes.caption(s)] for s in scenes],
        [s.key for s in scenes],
        np.arange(64).astype(np.uint64),
    )
    scores = learn(small, pictures, monkeypatch, method, **SLOWER.get(method, {}))
    assert scores["i2t"]["R@1"] == scores["t2i"]["R@1"] == 1.0


def test_shuffled_captions_stay_at_chance_on_held_out_pictures(small, monkeypatch):
    """Nothing but the pairing may carry information from pictures to captions."""
    order = np.random.default_rng(0).permutation(256)
    train_set, test_set = (
        readers.read_images("shapes-simple", split, 32, n)
        for split, n in (("train", 256), ("test", 200))
    )
    shuffled = readers.CaptionedImages(
        train_set.images,
        train_set.rows,
        [train_set.captions[i] for i in order],
        train_set.names,
        train_set.digests,
    )
    monkeypatch.setattr(
        readers, "read", lambda spec, split, *a, **k: shuffled if split == "train" else test_set
    )
    cfg = {
        **small,
        "batch_size": 64,
        "steps": 60,
        "lr": 2e-3,
        "whiten": 30,
        "log_every_n_steps": 1000,
    }
    train.train(train.Config(**cfg))
    r = embedded(cfg["out"]).scores()["retrieval"]["i2t"]
    assert r["R@10"] < 0.05 + 3 * math.sqrt(
        0.05 * 0.95 / 200
    )  # chance is 10 / 200; three standard errors
