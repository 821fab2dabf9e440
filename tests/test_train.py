"""train.py: order, schedule and crops as pure functions; stop and resume; bad input; and that it
learns.

python -m pytest tests/test_train.py
"""

import copy
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import lift
import train
import vit
from data import benchmarks, train_log
from data.benchmarks import held_out
from data.captions import DistinctCaptions
from data.common import BadInput, exit_status
from data.files.runs import read_run
from data.images.formats import Columns
from data.images.pixels import PIXEL_NORMS
from data.images.read import CaptionedImages, names_and_texts, read_images, scene_captions
from data.world import shapes
from data.world.drawing import draw
from eval import Run, retrieval_ranks
from llm_text import lda_map, load_llm, scatter_within, whitening
from tests.conftest import evaluated, ridge_by_least_squares

COMMAND = [sys.executable, str(Path(train.__file__))]


def arguments(config):
    return [a for k, v in config.items() for a in (f"--{k.replace('_', '-')}", str(v))]


def state(run):
    checkpoint = read_run(run)
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


def starts(method, small):
    """Flags for methods that start from a pretrained tower, here a random one, or from a run."""
    if lift.METHODS[method].image == "scratch":
        return {}
    if lift.METHODS[method].image == "run":
        parent = str(Path(small["out"]).parent / "parent")
        if not Path(parent).exists():
            train.train(train.Config(**{**small, "out": parent}))
        return {"init_from": parent}
    path = Path(small["out"]).parent / "tower.pt"
    if not path.exists():
        torch.manual_seed(1)
        torch.save(vit.ViT(small["model"], small["image_size"]).state_dict(), path)
    return {"image_weights": str(path)}


def test_the_fingerprint_covers_all_that_a_run_learns_from():
    def fingerprint(
        text="t", look="v", captions="c", digest=1, inputs=0.0, views=0.0, labels="", **foreign
    ):
        return train.hash_of_data(
            SimpleNamespace(**{"text_features": "", "image_features": ""} | foreign),
            SimpleNamespace(digests=np.array([digest], np.uint64)),
            SimpleNamespace(
                fingerprint=text,
                captions=SimpleNamespace(fingerprint=captions),
                inputs=torch.tensor([inputs]),
                label_fingerprint=labels,
            ),
            SimpleNamespace(fingerprint=look, vectors=torch.tensor([views])),
        )

    # What the cache holds is known by its fingerprint. Only vectors from elsewhere are hashed.
    assert fingerprint() == fingerprint(inputs=1.0, views=1.0)
    others = [
        fingerprint(**one)
        for one in (
            {},
            {"text": "x"},
            {"look": "x"},
            {"captions": "x"},
            {"digest": 2},
            {"labels": "x"},
            {"text_features": "f", "inputs": 1.0},
            {"text_features": "f", "inputs": 2.0},
            {"image_features": "f", "views": 3.0},
            {"image_features": "f", "views": 4.0},
        )
    ]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    "flags, says",
    [
        ({"method": "lit"}, "starts from a pretrained image tower; name one with --image-weights"),
        ({"method": "clip", "image_weights": "x"}, "starts from scratch"),
        ({"method": "lift_ridge"}, "made of a run of --method lift; name it with --init-from"),
        ({"method": "lift_ridge", "init_from": "x", "unlock": "all"}, "leave --unlock out"),
        (
            {"method": "lift_ridge", "init_from": "x", "image_weights": "y"},
            "starts from a run; leave --image-weights and",
        ),
        ({"method": "lift", "image_features": "x"}, "starts from scratch"),
        (
            {"method": "llm2clip", "image_features": "x"},
            "goes with --method lit, ape, .*, and",
        ),
        ({"method": "ape", "image_features": "x", "image_weights": "y"}, "without --image-weights"),
        ({"method": "ape", "image_features": "x", "unlock": "all"}, "and --unlock"),
        ({"method": "lit", "image_weights": "x", "llm_adapter": "x"}, "tokenizer only"),
        ({"method": "x"}, "--method 'x' is unknown"),
        (
            {"method": "clip", "text_features": "x"},
            "goes with --method lift, .*llm2clip, .*, and",
        ),
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
        f"visual 0 of {tower:,}, text_head {head:,} of {head:,}, logit_scale 1 of 1, the LLM "
        f"behind the cached captions 0 of {llm:,}" in said
    )
    assert (
        f"in all {head + 1:,} of {head + tower + llm + 1:,} "
        f"({(head + 1) / (head + tower + llm + 1):.2%})" in said
    )


@pytest.mark.parametrize("method", ["lift", "clip", "superlift", "ape", "lilt"])
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
    assert saves == [2, 4] and read_run(half["out"])["step"] == 4
    train.train(train.from_cli(["--resume", half["out"]]))
    assert_same(state(half["out"]), whole)
    # What it has cost counts from the first start.
    costs = [read_run(folder)["cost"] for folder in (small["out"], half["out"])]
    assert [cost["images"] for cost in costs] == [6 * 16, 6 * 16]
    one, other = [{k: v for k, v in cost.items() if "seconds" not in k} for cost in costs]
    assert one == other and all(cost["training_seconds"] > 0 for cost in costs)
    assert 0 < one["trained_parameters"] <= one["parameters"]


@pytest.mark.slow
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
    step = read_run(small["out"])["step"]
    assert 0 < step < 5000 and f"stopped after step {step} of 5000" in said


@pytest.mark.slow
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
        BadInput, match="the loss is nan .* at step 6; stopped. What was saved before is kept"
    ):
        train.train(train.Config(**small))
    checkpoint = read_run(small["out"])
    assert checkpoint["step"] == 4 and all(
        torch.isfinite(p).all() for p in checkpoint["model"].values()
    )


def test_log_has_config_versions_and_what_a_person_reads(small, capsys):
    metrics = train.train(train.Config(**small))
    first, *entries = map(json.loads, (Path(small["out"]) / "log.jsonl").read_text().splitlines())
    assert first["config"]["llm"] == small["llm"] and first["torch"] == torch.__version__
    assert first["skipped"] == []
    curve = entries.pop(-2)  # of the validation curve; the last line is of the last step
    assert [e["step"] for e in entries] == [1, 2, 4, 6] and entries[-1] == metrics
    assert curve["step"] == 6 and {"val", "train"} < curve.keys()
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


def run_command(monkeypatch, *args):
    """Run train.py with these arguments, in this process -> its exit status."""
    monkeypatch.setattr(sys, "argv", ["train.py", *args])
    try:
        return exit_status(train.main)
    except SystemExit as stop:  # from argparse
        return stop.code


@pytest.mark.slow
def test_the_program_ends_with_status_2():
    """The same as below, once as a program of its own."""
    command = [*COMMAND, "--data", "nowhere.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: nowhere.csv: no such file")


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
        (["--whiten", "500"], "--whiten"),
        (["--accum-freq", "200"], "a batch of 16 has not so many images"),
        (["--text-map", "lda"], "in shapes no image has two"),
        (["--text-map", "lda", "--map-caption-key", "x"], "--map-caption-key x: caption key 'x'"),
        (["--text-map", "lda", "--map-caption-key", "short"], "short: these captions are those of"),
        (["--text-map", "lda", "--map-caption-key", "long"], "long: no image has two such"),
        (["--layer", "9"], "block 9 does not exist"),
        (["--device", "cuda:9"], "try --device cpu"),
        (["--val-data", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--text-width", "33", "--method", "clip"], "cannot be shared"),
        (["--method", "lit", "--image-weights", "nowhere"], "nowhere: no such"),
        (["--llm-adapter", "nowhere"], "nowhere: no such"),
        (["--batch-size", "0"], "--batch-size 0 is out of range"),
    ],
)
def test_bad_flags_are_one_line_and_status_2(small, args, says, monkeypatch, capsys):
    base = {k: v for k, v in small.items() if "--" + k.replace("_", "-") not in args}
    if "--resume" in args:
        base = {}
    status = run_command(monkeypatch, *arguments(base), *args)
    said = capsys.readouterr().err
    assert status == 2 and says in said
    assert said.strip().splitlines()[-1].startswith(("error: ", "train.py: error: "))


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


@pytest.mark.parametrize("name, value", [("seed", []), ("lr", "x"), ("steps", True), ("out", 5)])
def test_values_of_another_type_are_refused(name, value):
    """The configuration of a damaged run may hold them."""
    with pytest.raises(BadInput, match=f"--{name} .* is not of type"):
        train.Config(**{name: value})


def test_the_loop_passes_duplicates_steps_the_rate_and_clamps(small, monkeypatch):
    seen = []

    def spy(**features):
        if features["image_features"].requires_grad:  # not where the validation curve is drawn
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
    )  # 16 scenes in 64 images: some batch holds a caption twice
    assert rates == pytest.approx([train.lr_at(i, 12, cfg) for i in range(12)])
    assert 1.0 <= metrics["scale"] <= 100.0001 and abs(metrics["scale"] - 1 / 0.07) > 3


def gradient_norm(optimizer):
    """Of all parameters together."""
    gradients = [p.grad.flatten() for g in optimizer.param_groups for p in g["params"]]
    return torch.cat(gradients).norm().item()


def test_the_optimizer_gets_its_flags_and_the_methods_share_of_the_rate(small, monkeypatch):
    """None of the values is a default."""
    groups, step = [], torch.optim.AdamW.step

    def spy(optimizer):
        groups.append([dict(group) for group in optimizer.param_groups])
        step(optimizer)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    small |= starts("llm2clip", small)
    flags = {"lr": 3e-3, "beta1": 0.7, "beta2": 0.6, "eps": 1e-3, "wd": 0.3, "steps": 2}
    cfg = train.Config(**{**small, **flags}, method="llm2clip")
    train.train(cfg)
    assert len(groups) == 2
    for i, at_step in enumerate(groups):
        assert {group["weight_decay"] for group in at_step} == {0.3, 0.0}
        for group in at_step:
            assert group["betas"] == (0.7, 0.6) and group["eps"] == 1e-3
        # The image tower learns at a tenth of the rate.
        rates = {group["lr"] for group in at_step}
        full = train.lr_at(i, 2, cfg)
        assert sorted(rates) == pytest.approx([0.1 * full, full])


def test_gradients_are_clipped_to_the_norm_that_was_asked_for(small, monkeypatch):
    norms, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda o: (norms.append(gradient_norm(o)), step(o))[1]
    )
    for clip in (0.01, 0.0):
        folder = f"{small['out']}-{clip}"
        cfg = {**small, "out": folder, "grad_clip_norm": clip, "steps": 1}
        logged = train.train(train.Config(**cfg))["grad_norm"]  # before it is clipped
        assert logged > 0.1
        assert norms.pop() == pytest.approx(clip or logged, rel=1e-3)


def test_each_step_has_its_own_gradient(small, monkeypatch):
    """With the rate 0 nothing changes, so the gradient of a step is that of its batch alone."""
    norms, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda o: (norms.append(gradient_norm(o)), step(o))[1]
    )
    # All 16 images are in every batch, in another order.
    flags = {"lr": 0.0, "grad_clip_norm": 0.0, "train_num_samples": 16, "whiten": 4, "steps": 3}
    cfg = {**small, **flags}
    train.train(train.Config(**cfg))
    assert len(norms) == 3 and norms == pytest.approx([norms[0]] * 3, rel=1e-3)


def test_a_rate_of_0_and_an_idle_share_are_said(small, capsys):
    train.train(train.Config(**{**small, "lr": 0.0, "steps": 1, "long_share": 0.9}))
    said = capsys.readouterr().err
    assert "warning: with --lr 0 the weights stay as they are" in said
    assert "note: --long-share has no effect: no image has two captions" in said


def test_a_run_that_stopped_before_its_first_save_is_called_so(tmp_path):
    (tmp_path / "log.jsonl").write_text("{}\n")
    for read in (train.last_checkpoint, read_run):
        with pytest.raises(BadInput, match="stopped before it was saved; give its first command"):
            read(tmp_path)


def test_the_seed_decides_the_first_weights(small):
    weights = []
    for i, seed in enumerate((5, 5, 6)):
        flags = {"seed": seed, "out": f"{small['out']}-{i}", "lr": 0.0, "steps": 1}
        train.train(train.Config(**{**small, **flags}))
        weights.append(read_run(flags["out"])["model"]["visual.pos_embed"])
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    "flags, steps", [({"epochs": 3, "steps": 0}, 12), ({"epochs": 3, "steps": 5}, 5)]
)
def test_a_run_has_its_epochs_but_no_more_than_its_steps(small, flags, steps):
    """Of 64 images in batches of 16."""
    assert train.train(train.Config(**{**small, **flags}))["step"] == steps


def test_held_out_images_are_not_trained_on(small, tmp_path, capsys):
    """Unless --val-data names others."""
    rows = ["image,caption"]
    for i in range(60):
        Image.new("RGB", (8, 8), (4 * i, 0, 9)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,number {i}")
    for name, end in (("a.csv", None), ("b.csv", 3)):
        (tmp_path / name).write_text("\n".join(rows[:end]) + "\n")
    small |= {"data": str(tmp_path / "a.csv"), "train_num_samples": 0}
    trained = train.read_training_images(train.Config(**small)).names
    held_out = read_images(small["data"], "test", 32).names
    assert len(held_out) > 2 and not set(trained) & set(held_out)
    assert len(trained) + len(held_out) == 60
    small["val_data"] = str(tmp_path / "b.csv")
    capsys.readouterr()
    assert len(train.read_training_images(train.Config(**small))) == 60
    assert "no image is held out" not in capsys.readouterr().err
    few = train.Config(**{**small, "data": small["val_data"], "val_data": ""})
    train.read_training_images(few)
    assert "no image is held out for testing" in capsys.readouterr().err
    small["train_num_samples"] = 20
    assert len(train.read_training_images(train.Config(**small))) == 20


@pytest.mark.parametrize("flags, power", [({"whiten_power": 0.3}, 0.3), ({}, 0.5)])
def test_whitening_gets_its_flags(small, flags, power):
    """The run keeps the power that it used, so that a resumed run may be told the same."""
    job = train.set_up(train.Config(**{**small, **flags, "whiten": 5}))
    mean, matrix = whitening(job.batches.inputs, 5, power)
    assert torch.equal(job.model.text.mean, mean) and torch.equal(job.model.text.matrix, matrix)
    assert job.cfg.whiten_power == power


def test_a_pretrained_tower_and_the_shared_space_get_their_flags(small, monkeypatch):
    loaded = []
    monkeypatch.setattr(train, "load_vit", lambda tower, *args: loaded.append(args))
    small |= {**starts("llm2clip", small), "image_norm": "imagenet", "embed_dim": 24}
    model = train.set_up(train.Config(method="llm2clip", **small)).model
    norms = [PIXEL_NORMS[name] for name in ("imagenet", "clip")]  # the tower's, and ours
    assert set(loaded) == {(small["image_weights"], *norms)}
    assert model.image_head.weight.shape[0] == 24


def test_batches_and_crops_get_their_flags(small, monkeypatch):
    made = {}

    def spy(name):
        kind = getattr(train, name)

        def make(*args, **kwargs):
            made.setdefault(name, (args, kwargs))  # the first is for training
            return kind(*args, **kwargs)

        monkeypatch.setattr(train, name, make)

    spy("Batches"), spy("Crops")
    flags = {"seed": 7, "crop_scale": 0.7, "long_share": 0.3, "batch_size": 8, "steps": 1}
    train.train(train.Config(**{**small, **flags}))
    _, settings = made["Batches"]
    found = {name: settings[name] for name in ("batch_size", "seed", "long_share")}
    assert found == {"batch_size": 8, "seed": 7, "long_share": 0.3}
    assert made["Crops"][0][1:3] == (0.7, 7)


@pytest.mark.parametrize("moved_to, wanted", [(9.0, 100.0), (-3.0, 1.0), (2.0, math.exp(2))])
def test_the_scale_stays_between_1_and_100(small, monkeypatch, moved_to, wanted):
    def move(optimizer):
        (scale,) = [p for g in optimizer.param_groups for p in g["params"] if p.ndim == 0]
        scale.data.fill_(moved_to)

    monkeypatch.setattr(torch.optim.AdamW, "step", move)
    metrics = train.train(train.Config(**{**small, "steps": 1}))
    assert metrics["scale"] == pytest.approx(wanted, rel=1e-5)


def test_the_accuracy_of_the_log_takes_duplicates_for_right():
    image = torch.eye(3)
    text = torch.eye(3)[[0, 2, 0]]  # the nearest captions are 0 (or 2), none but 0, and 1
    duplicates = torch.eye(3, dtype=torch.bool)
    assert train_log.batch_accuracy(image, text, duplicates) == pytest.approx(1 / 3)
    duplicates[1, 2] = duplicates[2, 1] = True
    assert train_log.batch_accuracy(image, text, duplicates) == pytest.approx(2 / 3)


def test_other_views_of_a_frozen_tower_are_kept_apart(small):
    """Whatever decides the crops is part of the fingerprint of the tower's vectors."""
    images = read_images("shapes", "train", 32, num_samples=4)
    torch.manual_seed(0)
    tower = vit.ViT(small["model"], 32).requires_grad_(False)
    base = {**small, **starts("ape", small), "method": "ape", "crop_scale": 0.5}
    changes = ({}, {"crop_scale": 0.6}, {"image_views": 2}, {"seed": 1}, {"crop_scale": 1.0})
    prints = []
    for change in changes:
        cfg = train.Config(**{**base, **change})
        views = train.open_image_inputs(cfg, images, tower, torch.device("cpu"))
        prints.append(views.fingerprint)
    assert len(set(prints)) == len(prints)


def test_a_gradient_that_is_not_finite_stops_before_the_save(small, monkeypatch):
    def spoilt(**features):
        loss = lift.info_nce(**features)
        return loss + torch.sqrt(loss * 0)  # finite, with an infinite slope

    monkeypatch.setitem(lift.METHODS, "lift", replace(lift.METHODS["lift"], loss=spoilt))
    with pytest.raises(BadInput, match="gradient's norm nan at step"):
        train.train(train.Config(**{**small, "steps": 2, "save_frequency": 1}))
    assert not (Path(small["out"]) / "checkpoint.pt").exists()


def test_a_model_that_no_memory_holds_is_refused(small):
    with pytest.raises(BadInput, match="too large for the memory of this machine"):
        train.train(
            train.Config(**{**small, "method": "clip", "embed_dim": 10**6, "text_width": 10**6})
        )


def test_weights_that_are_not_finite_are_never_saved(small, monkeypatch):
    """Loss and gradient are those before the step, and the step itself may spoil a weight."""

    class Spoilt(torch.optim.AdamW):
        def step(self):
            super().step()
            self.param_groups[0]["params"][0].data.fill_(torch.nan)

    optimizer = lambda cfg, model: Spoilt(train.parameter_groups(model, cfg.wd))  # noqa: E731
    monkeypatch.setattr(train, "make_optimizer", optimizer)
    with pytest.raises(BadInput, match="the weights are not finite after step 1"):
        train.train(train.Config(**{**small, "steps": 1}))
    assert not (Path(small["out"]) / "checkpoint.pt").exists()


def test_a_run_keeps_the_precision_that_auto_took(small, monkeypatch):
    for name, bf16 in (("fp32", False), ("amp_bf16", True)):
        monkeypatch.setattr(train, "trains_in_bf16", lambda precision, device, b=bf16: b)
        cfg = train.Config(**{**small, "steps": 1, "out": f"{small['out']}-{name}"})
        train.train(cfg)
        saved = torch.load(f"{cfg.out}/checkpoint.pt")
        assert cfg.precision == "auto" and saved["config"]["precision"] == name


@pytest.mark.parametrize("method", ["lift", "clip"])
def test_a_run_in_pieces_has_the_losses_of_a_plain_one(small, tmp_path, monkeypatch, method):
    asked = []

    def in_pieces(*args, real=lift.backward_in_pieces):
        asked.append(args[4])
        return real(*args)

    monkeypatch.setattr(lift, "backward_in_pieces", in_pieces)
    losses = []
    for n_pieces in (1, 4):
        out = tmp_path / str(n_pieces)
        more = {"method": method, "out": str(out), "accum_freq": n_pieces, "log_every_n_steps": 1}
        train.train(train.Config(**small | more))
        entries = [json.loads(line) for line in (out / "log.jsonl").open()]
        losses.append([entry["loss"] for entry in entries if "loss" in entry])
    assert asked == [4] * 6 and len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)


@pytest.mark.parametrize("n_pieces", [1, 2])
def test_in_bfloat16_the_gradient_of_the_loss_is_in_float32(small, monkeypatch, n_pieces):
    """Only the towers' passes are rounded, forward and backward."""
    seen = []

    def loss_of(image_features, text_features, logit_scale, duplicates):
        seen[:] = [image_features, text_features, logit_scale, duplicates]
        image_features.retain_grad()
        return lift.info_nce(*seen)

    monkeypatch.setitem(lift.METHODS, "clip", replace(lift.METHODS["clip"], loss=loss_of))
    monkeypatch.setattr(train, "trains_in_bf16", lambda precision, device: True)
    more = {"method": "clip", "steps": 1, "accum_freq": n_pieces, "val_frequency": 0}
    train.train(train.Config(**{**small, **more}))

    image, text, scale, duplicates = (tensor.detach().clone() for tensor in seen)
    image.requires_grad_()
    lift.info_nce(image, text, scale, duplicates).backward()
    assert torch.allclose(seen[0].grad, image.grad, rtol=1e-5, atol=1e-8)


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
    images = read_images("shapes", "train", 32, num_samples=64)
    images.captions[5] = ["another caption"]
    monkeypatch.setattr(train, "read_images", lambda *a, **k: images)
    with pytest.raises(BadInput, match="not what it was"):
        train.train(other)


@pytest.mark.parametrize("flag", ["--resume", "--init-from"])
def test_a_run_of_another_version_is_refused_in_one_line(small, flag):
    train.train(train.Config(**small))
    path = Path(small["out"]) / "checkpoint.pt"
    saved = torch.load(path, weights_only=True)
    more = saved["config"] | {"gone": 1}
    fewer = {name: value for name, value in saved["config"].items() if name != "text_map"}
    for config, name in ((more, "gone"), (fewer, "text_map")):
        torch.save(saved | {"config": config}, path)
        with pytest.raises(BadInput, match=f"made by another version .* flag {name}"):
            train.from_cli([flag, small["out"]])


def test_a_damaged_optimizer_is_refused_in_one_line(small):
    """It would be found in the first step only, or never."""
    train.train(train.Config(**small | {"steps": 4}))
    path = Path(small["out"]) / "checkpoint.pt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["step"] = 2
    for change in (
        lambda state: state[0].update(exp_avg=torch.ones(3)),
        lambda state: state[0].update(exp_avg="x"),
        lambda state: state[0].update(step=torch.tensor(True)),
        lambda state: state[0].pop("exp_avg_sq"),
        lambda state: state.update({9999: state[0]}),
        lambda state: state.update({0: None}),
    ):
        damaged = copy.deepcopy(checkpoint)
        change(damaged["optimizer"]["state"])
        torch.save(damaged, path)
        with pytest.raises(BadInput, match="checkpoint.pt: (damaged|truncated, corrupt)") as told:
            train.train(train.from_cli(["--resume", small["out"]]))
        assert "\n" not in str(told.value)
    # What the groups of parameters say follows from the configuration.
    checkpoint["optimizer"]["param_groups"] = None
    torch.save(checkpoint, path)
    assert train.train(train.from_cli(["--resume", small["out"]]))["step"] == 4


@pytest.mark.slow
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


@pytest.mark.slow
def test_compiled_and_bf16_training_follow_the_eager_one(small, tmp_path, monkeypatch):
    """One graph without breaks, the names of the uncompiled model; bfloat16 within its rounding."""
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


def test_ridge_is_solved_for_and_not_trained(small, capsys):
    """One pass over 64 pairs gives the matrix of all 64, and a run as whole as any other."""
    small |= starts("ridge", small) | {"steps": 4, "method": "ridge"}
    train.train(train.Config(**small))
    assert "no training step" in capsys.readouterr().err
    model, transform, tokenize = lift.load(small["out"])
    images = read_images("shapes", "train", 32, num_samples=64)
    pixels = torch.stack([transform(Image.fromarray(images.pixels([i])[0])) for i in range(64)])
    with torch.no_grad():
        X = model.visual(pixels)
        T = model.encode_text(tokenize([c for (c,) in images.captions]), normalize=True)
    wanted = ridge_by_least_squares(X, T)
    assert torch.allclose(model.image_head.weight.T.double(), wanted, atol=1e-4)
    assert evaluated(small["out"]).scores["step"] == 0
    with pytest.raises(BadInput, match="is finished .0 of 0 steps"):
        train.train(train.from_cli(["--resume", small["out"]]))


def test_a_matrix_is_solved_for_on_the_text_side_of_a_run(small, capsys):
    """Text vectors of 64 pairs -> their images' features. The run that it is made of stays."""
    small |= {"steps": 4, "whiten": 8}
    flags = small | starts("lift_ridge", small) | {"method": "lift_ridge"}
    train.train(train.Config(**flags))
    assert "no training step" in capsys.readouterr().err
    parent, solved = lift.load(flags["init_from"])[0], lift.load(small["out"])[0]
    for name, weight in parent.state_dict().items():
        assert torch.equal(solved.state_dict()[name], weight), name
    images = read_images("shapes", "train", 32, num_samples=64)
    transform, tokenize = lift.load(small["out"])[1:]
    pixels = torch.stack([transform(Image.fromarray(images.pixels([i])[0])) for i in range(64)])
    with torch.no_grad():
        X = parent.encode_text(tokenize([c for (c,) in images.captions]))
        Y = parent.encode_image(pixels, normalize=True)
    wanted = ridge_by_least_squares(X, Y, share=0.2)
    assert torch.allclose(solved.text_head.weight.T.double(), wanted, atol=1e-5)
    # It costs what the run before it cost, and has more parameters.
    before, now = (
        evaluated(flags["init_from"]).scores["cost"],
        evaluated(small["out"]).scores["cost"],
    )
    assert now["training_seconds"] == before["training_seconds"] > 0
    assert now["parameters"] - before["parameters"] == 8 * 8
    with pytest.raises(BadInput, match="is finished .0 of 0 steps"):
        train.train(train.from_cli(["--resume", small["out"]]))


def test_a_run_that_cannot_get_a_matrix_is_told(small, tmp_path):
    clip = {**small, "method": "clip", "out": str(tmp_path / "clip")}
    train.train(train.Config(**clip))
    flags = {**small, "method": "lift_ridge", "init_from": clip["out"]}
    says = "is a run of --method clip; --method lift_ridge needs one of lift, "
    with pytest.raises(BadInput, match=says):
        train.train(train.Config(**flags))
    with pytest.raises(BadInput, match=says):
        train.from_cli(["--method", "lift_ridge", "--init-from", clip["out"]])


def test_a_run_with_a_matrix_has_the_settings_of_its_run(small, tmp_path):
    """The matrix is solved from the images that the run was trained on, with nothing trained."""
    parent = {
        **small,
        "unlock": "all",
        "train_num_samples": 40,
        "seed": 3,
        "out": str(tmp_path / "p"),
    }
    train.train(train.Config(**parent))
    command = ["--method", "lift_ridge", "--init-from", parent["out"], "--out", small["out"]]
    cfg = train.from_cli(command)
    kept = {name: value for name, value in parent.items() if name not in ("out", "unlock")}
    assert {name: getattr(cfg, name) for name in kept} == kept
    assert (cfg.method, cfg.unlock, cfg.init_from) == ("lift_ridge", "", parent["out"])
    assert train.train(cfg)["step"] == 0
    # A run with a matrix may get another one, and needs no --method.
    cfg = train.from_cli(["--init-from", small["out"], "--out", str(tmp_path / "again")])
    assert (cfg.method, cfg.init_from) == ("lift_ridge", small["out"])
    # What the text vectors are mapped by is that of the run, too.
    for flags in (["--whiten", "4"], ["--whiten-power", "1"], ["--text-map", "lda"]):
        with pytest.raises(BadInput, match=f"{flags[0]} .*leave {flags[0]} out"):
            train.from_cli([*command, *flags])


def test_vectors_of_zeros_give_no_matrix():
    with pytest.raises(BadInput, match="all vectors are zero"):
        lift.Ridge(2, 2).solve([(torch.zeros(3, 2), torch.ones(3, 2))])


def test_where_nothing_can_be_told_apart_nothing_is_trained(own):
    """The loss would be 0, and the accuracy 100 %."""
    with pytest.raises(BadInput, match="a batch of one image"):
        train.train(train.Config(**own | {"batch_size": 1}))
    rows = Path("a.csv").read_text().splitlines()
    same = [rows[0], *(row.split(",")[0] + ",a colour" for row in rows[1:])]
    Path("a.csv").write_text("\n".join(same) + "\n")
    with pytest.raises(BadInput, match="all training captions are the same"):
        train.train(train.Config(**own))


def test_ridge_can_be_where_training_starts(small, tmp_path):
    small |= starts("ridge", small) | {"method": "ridge", "steps": 4}
    train.train(train.Config(**small))
    solved = lift.load(small["out"])[0]
    tuned = {**small, "unlock": "layernorm", "lr": 1e-9, "out": str(tmp_path / "tuned")}
    assert train.train(train.Config(**tuned))["step"] == 4
    start = lift.load(tuned["out"])[0]
    assert torch.allclose(start.image_head.weight, solved.image_head.weight, atol=1e-5)
    assert not torch.equal(start.image_head.weight, solved.image_head.weight)


def put_in_place_of_data(monkeypatch, read):
    """Let training and evaluation read other images."""
    monkeypatch.setattr(train, "read_images", read)
    monkeypatch.setattr(benchmarks, "read_images", read)


def learn(small, images, monkeypatch, method, **changes):
    """Train on given images until they are known by heart; R@1 both ways on the same images."""
    put_in_place_of_data(monkeypatch, lambda *a, **k: images)
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
    cfg |= starts(method, cfg) | {"method": method}
    train.train(train.Config(**cfg))
    return evaluated(cfg["out"]).scores["retrieval"]


# What needs more than 150 steps, or another rate, to know 64 pairs by heart: the starting tower is
# random, the language model tiny.
SLOWER = {
    "llm2clip": {"lr": 1e-2, "steps": 300},
    "ape": {"lr": 1e-2, "steps": 400},
    "sharelock": {"lr": 1e-2, "steps": 400},
    "ape_transformer": {"lr": 1e-2, "steps": 400},
    "ape_lookup": {"lr": 3e-2, "steps": 800},
    "clip": {"steps": 200},
    "clip_sigmoid": {"steps": 400},
    "lit": {"steps": 400},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [name for name in lift.METHODS if name != "supervised"]
)  # of that one, captions have no features to retrieve by
def test_64_pairs_are_overfitted(small, monkeypatch, method):
    scenes = shapes.make_scenes("train", 64, world="shapes-few")
    store = np.stack([np.asarray(draw(s, 0, 32)) for s in scenes])
    images = CaptionedImages(
        store,
        np.arange(64),
        [[shapes.caption(s)] for s in scenes],
        [s.key for s in scenes],
        np.arange(64).astype(np.uint64),
    )
    scores = learn(small, images, monkeypatch, method, **SLOWER.get(method, {}))
    assert scores["i2t"]["R@1"] == scores["t2i"]["R@1"] == 1.0


@pytest.mark.slow
def test_shuffled_captions_stay_at_chance_on_held_out_images(small, monkeypatch):
    """Nothing but the pairing may carry information from images to captions."""
    order = np.random.default_rng(0).permutation(256)
    train_set = read_images("shapes-simple", "train", 32, num_samples=256)
    test_set = read_images("shapes-simple", "test", 32, num_samples=200)
    shuffled = CaptionedImages(
        train_set.store,
        train_set.rows,
        [train_set.captions[i] for i in order],
        train_set.names,
        train_set.digests,
    )
    put_in_place_of_data(
        monkeypatch, lambda spec, split, *a, **k: shuffled if split == "train" else test_set
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
    r = evaluated(cfg["out"]).scores["retrieval"]["i2t"]
    assert r["R@10"] < 0.05 + 3 * math.sqrt(
        0.05 * 0.95 / 200
    )  # chance is 10 / 200; three standard errors


@pytest.mark.parametrize(
    "flags, idle",
    [
        ({"method": "clip"}, {"whiten", "pool", "layer", "llm_dtype", "image_norm", "image_views"}),
        ({"method": "clip"}, {"text_map", "whiten_power"}),
        ({"method": "lift", "whiten": 0}, {"text_map", "whiten_power"}),
        ({"method": "lift"}, {"text_width", "text_depth", "text_heads", "embed_dim"}),
        ({"method": "lift"}, {"map_caption_key"}),
        ({"method": "lift", "text_map": "lda", "whiten": 0}, {"map_caption_key"}),
        ({"method": "lift", "text_features": "x"}, {"pool", "layer", "context_length"}),
        ({"method": "ape", "image_weights": "x"}, {"pool", "whiten", "embed_dim"}),
        ({"method": "lit", "image_features": "x"}, {"model", "image_pool", "crop_scale"}),
        ({"method": "ridge", "image_weights": "x"}, {"lr", "wd", "precision", "embed_dim"}),
        ({"method": "lilt", "image_weights": "x"}, {"pool", "llm_dtype", "image_views"}),
    ],
)
def test_flags_without_effect_are_known(flags, idle):
    assert idle <= train.flags_without_effect(train.Config(**flags)).keys()


@pytest.mark.parametrize(
    "flags, read",
    [
        ({"method": "clip"}, {"text_width", "embed_dim", "context_length"}),
        ({"method": "lift"}, {"whiten", "pool", "layer", "llm_dtype", "context_length", "model"}),
        ({"method": "lift"}, {"text_map", "whiten_power"}),
        ({"method": "lift", "text_map": "lda"}, {"map_caption_key"}),
        ({"method": "lilt", "image_weights": "x"}, {"layer", "embed_dim", "image_norm", "lr"}),
        ({"method": "ridge", "image_weights": "x", "unlock": "all"}, {"lr", "wd", "warmup"}),
        ({"method": "ape_lookup", "image_weights": "x"}, {"embed_dim", "image_norm"}),
        (
            {"method": "ape", "image_weights": "x", "crop_scale": 0.5},
            {"image_views", "crop_scale", "layer"},
        ),
        ({"method": "superlift", "text_features": "x"}, {"context_length", "whiten"}),
        ({"data": "x.csv"}, {"csv_separator", "csv_img_key", "image_root"}),
    ],
)
def test_flags_with_effect_are_not_called_idle(flags, read):
    assert not read & train.flags_without_effect(train.Config(**flags)).keys()


def test_with_whiten_0_there_is_no_map_to_choose(small):
    train.train(train.Config(**small | {"whiten": 0, "text_map": "lda", "steps": 1}))


def test_the_map_of_a_run_follows_the_captions_of_one_image(small):
    """--text-map lda: the text tower is what Fisher's problem gives for the training captions."""
    small |= {"csv_caption_key": "paraphrase", "text_map": "lda"}
    train.train(train.Config(**small))
    model, _, tokenize = lift.load(small["out"])
    lists = [
        scene_captions(s, "paraphrase") for s in shapes.make_scenes("train", 32)
    ]  # of 64 images
    captions = DistinctCaptions(lists)
    vectors = tokenize(list(captions)).float()
    within = scatter_within(vectors, captions)
    # Between captions of one image it leaves less than one in each direction, most of all it leaves
    # nothing larger: S was made 1, but for what was added to S.
    left = model.text.matrix.T @ within.float() @ model.text.matrix
    assert 0.01 < torch.linalg.eigvalsh(left).max() < 1
    by_hand = whitening(vectors, 8, 0.0, lda_map(within))
    assert torch.allclose(model.text.matrix.abs(), by_hand[1].abs(), rtol=0.02, atol=1e-4)


def test_the_map_may_follow_other_captions_than_those_of_training(small):
    """--map-caption-key: the map of a run with five wordings, and training on one of them."""
    train.train(train.Config(**small | {"csv_caption_key": "reworded", "text_map": "lda"}))
    five, *_ = lift.load(small["out"])
    small |= {"out": small["out"] + "-short", "text_map": "lda", "map_caption_key": "reworded"}
    train.train(train.Config(**small))
    one, *_ = lift.load(small["out"])
    assert torch.equal(one.text.matrix, five.text.matrix)
    assert torch.equal(one.text.mean, five.text.mean)
    log = (Path(small["out"]) / "log.jsonl").read_text().splitlines()
    config = json.loads(log[0])["config"]
    assert config["csv_caption_key"] == "" and config["map_caption_key"] == "reworded"
    distinct = {shapes.caption(s) for s in shapes.make_scenes("train", 32)}
    kept = read_run(small["out"])
    assert set(kept["captions"]) <= distinct
    # A run that begins with it has its map, and does not ask for these captions.
    with pytest.raises(BadInput, match="--map-caption-key mixed: the text vectors are mapped as"):
        train.from_cli(
            f"--init-from {small['out']} --data shapes --map-caption-key mixed --out x".split()
        )


def test_the_map_of_own_data_follows_the_images_that_are_trained_on(small, tmp_path, monkeypatch):
    """Also where none of them is held out. What reading costs is counted, and the number of
    directions follows these captions."""
    lines = []
    for i in range(80):
        Image.new("RGB", (32, 32), (i, 99, 7)).save(tmp_path / f"{i}.png")
        texts = [f"number {i}", f"the one that is called {i}"]
        lines.append(json.dumps({"image": f"{i}.png", "caption": f"this is {i}", "also": texts}))
    (tmp_path / "a.jsonl").write_text("\n".join(lines[:70]))
    (tmp_path / "test.jsonl").write_text("\n".join(lines[70:]))
    read = []
    original = train.read_captions

    def read_captions(captions_of_images, *readers):
        read.append(captions_of_images)
        return replace(original(captions_of_images, *readers), seconds=1.0)

    monkeypatch.setattr(train, "read_captions", read_captions)
    del small["whiten"]
    small |= {"data": str(tmp_path / "a.jsonl"), "val_data": str(tmp_path / "test.jsonl")}
    small |= {"train_num_samples": 0, "val_frequency": 0}
    train.train(train.Config(**small, text_map="lda", map_caption_key="also"))
    captions, map_captions = read
    numbers = [caption.split()[-1] for (caption,) in captions]
    assert numbers == [texts[0].split()[-1] for texts in map_captions] and len(numbers) == 70
    run = read_run(small["out"])
    assert run["cost"]["caption_seconds"] == 2
    # A quarter of these captions would be 33, but the vectors have 32 numbers only.
    assert run["config"]["whiten"] == 32 > len(numbers) // 4


@pytest.mark.parametrize("asked", ["auto", "float32", "bfloat16"])
def test_a_run_keeps_the_precision_that_its_captions_were_read_in(small, asked, monkeypatch):
    """Not "auto": another machine would find other vectors under the same name."""
    monkeypatch.setattr(
        train, "pick_dtype", lambda name, device: {"auto": "bfloat16"}.get(name, name)
    )
    train.train(train.Config(**small, llm_dtype=asked))
    kept = read_run(small["out"])["config"]["llm_dtype"]
    assert kept == ("bfloat16" if asked == "auto" else asked)
    # From Python it goes on with what it has, too, where "auto" would choose otherwise.
    other = {"auto": "float32" if kept == "bfloat16" else "bfloat16"}
    monkeypatch.setattr(train, "pick_dtype", lambda name, device: other.get(name, name))
    longer = {**small, "out": "", "resume": small["out"]}
    with pytest.raises(BadInput, match="is finished"):
        train.train(train.Config(**longer, llm_dtype="auto"))
    monkeypatch.setattr(
        train, "pick_dtype", lambda name, device: "float32" if name == "auto" else name
    )
    cfg = train.from_cli(["--resume", small["out"]])
    assert cfg.llm_dtype == kept
    _, _, tokenize = lift.load(small["out"])
    assert str(tokenize.llm.dtype) == f"torch.{kept}"


def test_few_captions_are_whitened_to_a_quarter_of_their_number(capsys):
    cfg = train.Config()
    assert train.directions_for(cfg, 5000, 576) == 256
    assert train.directions_for(cfg, 5000, 32) == 32  # narrow vectors of another encoder
    assert capsys.readouterr().err == ""
    assert train.directions_for(cfg, 100, 576) == 25
    # With very few captions a quarter would be too few to tell them apart.
    found = [train.directions_for(cfg, n, 576) for n in (65, 63, 32, 11, 4, 3, 2, 1)]
    assert found == [16, 16, 16, 5, 2, 0, 0, 0]
    said = capsys.readouterr().err
    assert "100 distinct captions are few, so their vectors are whitened to 25 directions" in said
    assert "3 distinct captions are few, so their vectors are only centred" in said
    assert train.directions_for(cfg, 1024, 576) == 256 and capsys.readouterr().err == ""
    assert train.directions_for(train.Config(whiten=40), 100, 576) == 40
    assert capsys.readouterr().err == ""


def test_a_given_flag_without_effect_is_named(capsys):
    train.from_cli(["--method", "clip", "--whiten", "64", "--batch-size", "8"])
    said = capsys.readouterr().err
    assert said.count("note:") == 1 and "--whiten has no effect: no vectors are whitened" in said
    train.from_cli(["--method", "lift", "--whiten", "64"])
    assert "note:" not in capsys.readouterr().err


def test_a_new_flag_stands_in_a_section_of_the_help(capsys):
    with pytest.raises(SystemExit):
        train.from_cli(["--help"])
    said = capsys.readouterr().out
    for section in ("method:", "data:", "image tower:", "text tower:", "optimisation:", "run:"):
        assert f"\n{section}\n" in said


# --------------------------------------------------------------------------------------------------
# Defaults that follow the size of the data, and the validation curve.


def test_defaults_follow_the_size_of_the_data():
    def decided(n_images, n_curve=256, **flags):
        cfg = train.sized(train.Config(**flags), n_images, n_curve)
        return cfg.epochs, cfg.crop_scale, cfg.val_frequency

    # 1,024 images are scored in the time of 256 trained ones: 2 % are 50 times as many.
    assert decided(20_000) == (5, 1.0, 67)
    # 560 images are four steps of 128: 75 epochs make 300 steps.
    assert decided(560, 60, data="a.csv") == (75, 0.6, 16)
    assert decided(4_999, data="a.csv")[:2] == (8, 0.6)
    assert decided(5_000, data="a.csv")[1] == 1.0
    # A built-in world is never cropped by default: it has as many images as one asks for.
    assert decided(560)[:2] == (75, 1.0)
    assert decided(560, data="a.csv", method="lit", image_features="x.npy")[1] == 1.0
    # Fewer images than a batch has.
    assert decided(50, data="a.csv")[0] == 300
    # What is given stays. --steps alone means so many.
    assert decided(560, data="a.csv", epochs=7, crop_scale=0.9, val_frequency=5) == (7, 0.9, 5)
    assert decided(560, steps=1000)[0] == 250
    # Without a curve it is not 0: that would mean to train on validation images.
    assert decided(560, 0)[2] == 1


@pytest.fixture
def own(small, tmp_path, monkeypatch):
    """Settings of a run on 150 images of a user's, in the file a.csv of the current folder."""
    monkeypatch.chdir(tmp_path)
    rows = ["image,caption"]
    for i in range(150):
        Image.new("RGB", (40, 40), (i, 255 - i, 3 * i % 256)).save(f"{i}.png")
        rows.append(f"{i}.png,number {i}")
    Path("a.csv").write_text("\n".join(rows) + "\n")
    small = {key: value for key, value in small.items() if key not in ("epochs", "whiten")}
    return {**small, "data": "a.csv", "train_num_samples": 0}


def test_training_validation_and_test_images_are_apart(own, capsys):
    def names(split, **flags):
        return set(read_images("a.csv", split, 32, **flags).names)

    parts = [names(split) for split in ("train", "val", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 150 and len(parts[1]) >= 10
    assert names("train", train_on_val=True) == parts[0] | parts[1]
    assert names("train", whole=True) == parts[0] | parts[2]
    assert names("test", whole=True) == set.union(*parts)
    assert names("val", whole=True) == parts[1]
    # Too few to say anything: nothing is held out for validation.
    few = Path("a.csv").read_text().splitlines()[:60]
    Path("a.csv").write_text("\n".join(few) + "\n")
    assert not names("val") and len(names("train") | names("test")) == 59

    # A run learns from the first part only, and choosing settings looks at the second.
    Path("a.csv").write_text("\n".join([*few, *(f"{i}.png,number {i}" for i in range(59, 150))]))
    train.train(train.Config(**own))
    seen = set(read_run(own["out"])["seen"].numpy().view(np.uint64))
    assert seen == set(read_images("a.csv", "train", 32).digests)
    task = held_out(read_run(own["out"])["config"], split="val")
    assert set(task.images.names) == parts[1]
    train.train(train.Config(**{**own, "val_frequency": 0, "out": "all"}))
    assert len(read_run("all")["seen"]) == len(parts[0] | parts[1])
    with pytest.raises(BadInput, match="may have been trained on them"):
        held_out(read_run("all")["config"], split="val")


@pytest.mark.parametrize("method", ["lift", "clip", "superlift", "lit", "ape"])
def test_the_validation_curve_is_what_evaluation_says_and_changes_nothing(own, method, tmp_path):
    own |= starts(method, own) | {"method": method, "steps": 4, "crop_scale": 0.8}
    train.train(train.Config(**own, val_frequency=3))
    log = [json.loads(line) for line in Path(own["out"], "log.jsonl").read_text().splitlines()]
    curve = [entry for entry in log if "val" in entry]
    assert [entry["step"] for entry in curve] == [3, 4]
    assert curve[0]["val"] != curve[1]["val"]

    # The same as eval.py finds with the last weights. There a tie is wrong, here no two tie.
    run = Run(own["out"])
    images = read_images("a.csv", "val", 32)
    assert curve[1]["val"]["pairs"] == len(images)
    features = run.encode_images(images), run.encode_texts([c for (c,) in images.captions])
    i2t, t2i = retrieval_ranks(*features, torch.arange(len(images)))
    assert curve[1]["val"]["i2t"] == pytest.approx((i2t < 1).float().mean().item(), abs=0.07)
    assert curve[1]["val"]["t2i"] == pytest.approx((t2i < 1).float().mean().item(), abs=0.07)

    # Another interval: the same weights, bit for bit.
    train.train(train.Config(**{**own, "out": "other"}, val_frequency=100))
    one, other = (state(folder) for folder in (own["out"], "other"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_learning_by_heart_is_said():
    def entry(step, loss, recall=0.0):
        val = {"loss": loss, "i2t": recall, "t2i": recall / 2}
        return {"step": step, "val": val}

    assert train_log.learned_by_heart([]) == ""
    assert train_log.learned_by_heart([entry(10, 3.0), entry(20, 2.0)]) == ""
    assert train_log.learned_by_heart([entry(10, 2.0), entry(20, 2.09)]) == ""
    assert train_log.learned_by_heart([entry(10, 0.0), entry(20, 0.0)]) == ""
    said = train_log.learned_by_heart(
        [entry(10, 3.0), entry(20, 2.0, 0.2), entry(30, 2.4, 0.4), entry(40, 2.5, 0.3)]
    )
    assert "lowest at step 20 (2.00) and is 2.50 now" in said
    assert "was 15.0% at that step, is 22.5% now, and was best at step 30 (30.0%)" in said


def test_the_best_weights_are_kept_and_read(small, monkeypatch, capsys):
    """By R@1 of validation images, then by their loss. A run goes on from its last step."""
    recalls = iter((0.1, 0.4, 0.3, 0.4, 0.2, 0.3, 0.3, 0.4, 0.2, 0.3))
    losses = iter((1.0, 2.0, 0.5, 2.4, 0.6, 1.2, 0.3, 2.2, 0.4, 0.1))
    scored = train.score_batch

    def score(model, loss_of, batch, bf16):
        # The validation images are scored first, then as many training images.
        score.calls += 1
        scores = scored(model, loss_of, batch, bf16)
        if score.calls % 2:
            recall = next(recalls)
            scores |= {"loss": next(losses), "i2t": recall - 0.1, "t2i": 0.1}
        return scores

    score.calls = 0
    monkeypatch.setattr(train, "score_batch", score)
    cfg = train.Config(**small | {"method": "clip", "val_frequency": 1, "save_best": True})
    train.train(cfg)
    out = Path(small["out"])
    assert read_run(out)["step"] == read_run(out / "best.pt")["step"] == 2
    assert read_run(out / "checkpoint.pt")["step"] == 6
    assert not (out / "best.part").exists()

    capsys.readouterr()
    best = Run(out)
    assert (best.step, best.model_path) == (2, out / "best.pt")
    said = capsys.readouterr().err
    assert f"{out}: reading best.pt, of step 2, where R@1 of validation images was best" in said
    assert Run(out / "checkpoint.pt").step == 6
    assert "best.pt" not in capsys.readouterr().err

    # To go on means from the last step.
    with pytest.raises(BadInput, match=r"is finished \(6 of 6 steps\)"):
        train.train(replace(cfg, resume=str(out), out=""))
    # A run that was stopped before its last step remembers what was best.
    checkpoint = torch.load(out / "best.pt")
    torch.save(checkpoint, out / "checkpoint.pt")
    with pytest.raises(BadInput, match="already holds a run"):
        train.train(cfg)
    train.train(replace(cfg, resume=str(out), out=""))
    assert read_run(out / "best.pt")["step"] == 2
    assert read_run(out / "checkpoint.pt")["step"] == 6


def test_best_weights_need_validation_images(small):
    with pytest.raises(BadInput, match="--save-best chooses by validation images"):
        train.Config(save_best=True, val_frequency=0)


def test_the_log_goes_to_other_programs_too(small, monkeypatch):
    """Every number of log.jsonl, with its step. Neither program is needed for anything else."""
    sent = {"wandb": [], "tensorboard": []}
    board = ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = lambda folder: SimpleNamespace(
        add_scalar=lambda name, number, step: sent["tensorboard"].append((name, number, step)),
        flush=lambda: None,
    )
    wandb = ModuleType("wandb")
    wandb.init = lambda **settings: SimpleNamespace(
        log=lambda numbers, step: sent["wandb"].extend((k, n, step) for k, n in numbers.items())
    )
    wandb.Error = OSError
    for name, module in (("wandb", wandb), ("tensorboard", board)):
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    more = {"val_frequency": 3, "report_to": "tensorboard,wandb"}
    train.train(train.Config(**small | more))

    lines = Path(small["out"], "log.jsonl").read_text().splitlines()
    wanted = []
    for entry in map(json.loads, lines[1:]):
        for name, value in entry.items():
            if isinstance(value, dict):
                wanted += [(f"{name}/{key}", n, entry["step"]) for key, n in value.items()]
            elif name != "step":
                wanted.append((name, value, entry["step"]))
    assert sent["wandb"] == sent["tensorboard"] == wanted
    assert len({step for _, _, step in wanted}) == 5  # 1, 2, 3, 4 and 6

    # Somebody who is not logged in gets one line.
    def refuse(**settings):
        raise wandb.Error("No API key configured")

    wandb.init = refuse
    with pytest.raises(BadInput, match="^--report-to wandb: No API key configured"):
        train.train(train.Config(**small | more | {"out": small["out"] + "2"}))


def test_a_program_for_the_log_that_is_not_there_is_told(small, monkeypatch):
    monkeypatch.setattr(train_log.importlib.util, "find_spec", lambda name: None)
    for names, says in (
        ("wandb", "--report-to wandb: not installed; pip install wandb"),
        ("tensorbord", "--report-to tensorbord is unknown"),
    ):
        with pytest.raises(BadInput, match=says):
            train.train(train.Config(**small | {"report_to": names}))
    assert not Path(small["out"]).exists()


def test_few_steps_are_warned_of(small, capsys):
    train.train(train.Config(**small))
    assert "warning: 6 steps teach little" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["lift", "clip", "superlift"])
def test_a_new_run_begins_with_the_weights_of_another(own, method, tmp_path, capsys):
    """On other images and captions, with what the first run made of its captions."""
    shapes_run = {**own, "data": "shapes", "train_num_samples": 64, "method": method}
    train.train(train.Config(**shapes_run))
    old = read_run(own["out"])["model"]
    argv = ["--init-from", own["out"], "--out", "new", "--lr", "1e-12", "--steps", "2"]
    cfg = train.from_cli([*argv, "--data", "a.csv", "--device", "cpu"])
    # The model is the other run's, the length of training and the images are not.
    assert (cfg.method, cfg.model, cfg.image_size) == (method, "micro/16", 32)
    assert (cfg.epochs, cfg.batch_size, cfg.train_num_samples) == (None, 128, 0)
    train.train(cfg)
    new = read_run("new")["model"]
    assert all(torch.allclose(new[name], old[name], atol=1e-6) for name in old)
    # It knows the images of both.
    seen = set(read_run("new")["seen"].tolist())
    assert set(read_run(own["out"])["seen"].tolist()) < seen
    # A run that began so goes on without the other run's folder.
    shutil.rmtree(own["out"])
    with pytest.raises(BadInput, match="is finished"):
        train.train(train.from_cli(["--resume", "new"]))


@pytest.mark.parametrize("method", ["lift", "clip"])
def test_a_run_that_began_with_another_goes_on_as_if_never_stopped(own, method, monkeypatch):
    """Its vocabulary, its matrix and the images that it knows are those of the other run, too."""
    train.train(train.Config(**own | {"data": "shapes", "train_num_samples": 64, "method": method}))
    argv = ["--init-from", own["out"], "--data", "a.csv", "--steps", "4", "--save-frequency", "2"]
    argv += ["--lr", "1e-3", "--device", "cpu"]
    train.train(train.from_cli([*argv, "--out", "whole"]))

    def stop_after_the_first(contents, path, save=train.save_tensors):
        save(contents, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "save_tensors", stop_after_the_first)
        train.train(train.from_cli([*argv, "--out", "stopped"]))
    assert read_run("stopped")["step"] == 2
    shutil.rmtree(own["out"])
    train.train(train.from_cli(["--resume", "stopped"]))
    whole, resumed = read_run("whole"), read_run("stopped")
    assert torch.equal(whole["seen"], resumed["seen"])
    assert_same(whole["model"], resumed["model"])


def test_weights_to_begin_with_must_fit(small, tmp_path):
    train.train(train.Config(**small))
    argv = ["--init-from", small["out"], "--data", "shapes", "--train-num-samples", "64"]
    argv += ["--out", str(tmp_path / "new"), "--device", "cpu", "--steps", "1"]
    outside = str(tmp_path / "x.npy")
    np.save(outside, np.ones((1, 32), np.float32))
    (tmp_path / "x.txt").write_text("a red star\n")
    for flags, says in (
        (["--model", "nano/16"], "--init-from .* this run wants"),
        (["--pool", "last"], "trained on other vectors of captions"),
        (["--layer", "2"], "trained on other vectors of captions"),
        (["--text-features", outside, "--llm", ""], "trained on other vectors of captions"),
        (["--resume", small["out"]], "choose one"),
    ):
        with pytest.raises(BadInput, match=says):
            train.train(train.from_cli([*argv, *flags]))
    with pytest.raises(BadInput, match="name its images with --data"):
        train.from_cli(argv[:2])


def test_validation_images_that_were_trained_on_are_left_out(own, capsys):
    """Copies in a file's own splits, and images of the run whose weights were taken."""
    rows = Path("a.csv").read_text().splitlines()
    splits = ["split", *["train"] * 100, *["val"] * 50]
    for i in (100, 101, 102):  # a copy of a validation image among those for training
        shutil.copy(f"{i}.png", f"{i - 100}.png")
    lines = [f"{row},{split}" for row, split in zip(rows, splits, strict=True)]
    Path("a.csv").write_text("\n".join(lines) + "\n")
    train.train(train.Config(**own))
    said = capsys.readouterr().err
    assert "3 validation images were trained on and are left out" in said
    assert "(47 pairs each)" in said

    # With few validation images there is no curve, and none with images that are not there.
    for split_of_last, says in (
        ("test", "only 9 images for it"),
        ("val", "none of its 50 entries"),
    ):
        lines[113:] = [f"{row},{split_of_last}" for row in rows[113:]]
        if says.startswith("none"):
            lines[101:] = [f"gone{row},val" for row in rows[101:]]
        Path("a.csv").write_text("\n".join(lines) + "\n")
        train.train(train.Config(**{**own, "out": says[:4]}))
        said = capsys.readouterr().err
        assert "note: no validation curve" in said and says in said and "pairs each" not in said
        # Nobody asked for that: it is no --val-frequency 0.
        assert read_run(says[:4])["config"]["val_frequency"] > 0


def test_the_curve_is_of_images_from_everywhere_in_the_file(own, monkeypatch):
    monkeypatch.setattr(train, "MAX_CURVE", 10)
    images = train.read_val_images(train.Config(**own), np.empty(0, np.uint64))
    everything = read_images("a.csv", "val", 32)
    assert len(images) == 10 < len(everything)
    assert set(images.names) != set(everything.names[:10])


def test_a_resumed_run_keeps_its_curve(own):
    train.train(train.Config(**{**own, "steps": 4, "val_frequency": 1}))
    checkpoint = read_run(own["out"])
    assert [entry["step"] for entry in checkpoint["curve"]] == [1, 2, 3, 4]
    checkpoint["step"], checkpoint["curve"] = 3, checkpoint["curve"][:3]
    torch.save(checkpoint, Path(own["out"], "checkpoint.pt"))
    train.train(train.from_cli(["--resume", own["out"]]))
    assert [entry["step"] for entry in read_run(own["out"])["curve"]] == [1, 2, 3, 4]


def test_the_list_for_outside_vectors_has_validation_images(own):
    names, texts = names_and_texts("a.csv", Columns(), 50)
    for split in ("val", "test"):
        images = read_images("a.csv", split, 32)
        assert set(images.names) <= names.keys()
        assert {caption for captions in images.captions for caption in captions} <= texts.keys()


def test_a_longer_schedule_says_how_to_go_on(small):
    train.train(train.Config(**small))
    for flag in ("--epochs", "--steps"):
        with pytest.raises(BadInput, match=f"{flag} .*depends on it.*--init-from"):
            train.train(train.from_cli(["--resume", small["out"], flag, "200"]))


def test_mistakes_are_found_before_an_image_is_read(small, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "read_images", lambda *a, **k: pytest.fail("read an image"))
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    wrong = str(tmp_path / "x.npy")  # without its x.txt
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    for flags in (
        {"llm": str(broken)},
        {"llm": "HuggingFaceTB/SmolLM2-135M"},
        {"llm_adapter": str(broken)},
        {"layer": 9},
        {"method": "lit", "image_weights": str(broken)},
        {"method": "lit", "image_features": wrong},
        {"text_features": wrong, "llm": ""},
        {"init_from": str(tmp_path)},
    ):
        with pytest.raises(BadInput):
            train.train(train.Config(**{**small, **flags}))


def test_without_a_compiler_the_reason_is_told(small, tmp_path):
    """In a process of its own: torch looks for a compiler once."""
    environment = {**os.environ, "CXX": "/none", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [*COMMAND, *arguments(small), "--torchcompile"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "--torchcompile does not work here" in done.stderr.splitlines()[-1]


def test_where_nobody_asked_a_model_is_compiled_on_cuda_if_that_works(monkeypatch, capsys):
    def broken(function):
        raise RuntimeError("Python.h: no such file")

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(torch, "zeros", lambda n, device: None)
    assert not train.compiles(None, torch.device("cpu")) and not capsys.readouterr().err
    assert not train.compiles(None, torch.device("cuda"))
    assert "not used (Python.h: no such file)" in capsys.readouterr().err
    with pytest.raises(BadInput, match="Python.h.*--no-torchcompile"):
        train.compiles(True, torch.device("cuda"))
    monkeypatch.setattr(torch, "compile", lambda function: lambda x: x)
    assert train.compiles(None, torch.device("cuda"))
    assert not train.compiles(False, torch.device("cuda"))


def test_a_place_for_the_run_is_looked_at_before_the_data(small, tmp_path):
    (tmp_path / "file").touch()
    for out, says in ((tmp_path / "file", "is a file; name a folder"), ("file/x", "no folder")):
        with pytest.raises(BadInput, match=says):
            train.train(train.Config(**{**small, "data": "no.csv", "out": str(tmp_path / out)}))


def test_a_run_begins_from_one_whose_text_side_takes_the_same(small, tmp_path):
    train.train(train.Config(**small))
    flags = {**small, "method": "clip", "init_from": small["out"], "out": str(tmp_path / "x")}
    with pytest.raises(BadInput, match="is a run of --method lift, .*; leave --method out"):
        train.train(train.Config(**flags))


def test_processes_do_not_share_a_gpu(monkeypatch):
    monkeypatch.setattr(train.processes, "count", lambda: 2)
    monkeypatch.setattr(train.processes, "count_here", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def check(name, asked):
        train.check_machine(torch.device(name), asked)

    check("cpu", "auto")
    with pytest.raises(BadInput, match="2 processes for 1 GPUs"):
        check("cuda:0", "cuda")
    with pytest.raises(BadInput, match="one process only"):
        check("mps:0", "auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    # pick_device always says which GPU it is.
    check("cuda:0", "cuda")
    check("cuda:1", "auto")
    with pytest.raises(BadInput, match="cuda:1 is one GPU for all processes; give --device cuda"):
        check("cuda:1", "cuda:1")
    monkeypatch.setattr(train.processes, "count", lambda: 1)
    monkeypatch.setattr(train.processes, "count_here", lambda: 1)
    check("cuda:1", "cuda:1")


def test_no_validation_image_is_one_that_was_trained_on(own):
    everything = read_images("a.csv", "val", 32)
    seen = np.sort(everything.digests[:4])
    images = train.read_val_images(train.Config(**own), seen)
    assert len(images) == len(everything) - 4 and not np.isin(images.digests, seen).any()


def test_images_of_the_curve_are_not_cropped_and_both_batches_are_their_own(own, monkeypatch):
    made, kind = [], train.Crops
    monkeypatch.setattr(train, "Crops", lambda *a: made.append((a[1], a[0].names)) or kind(*a))
    scored, score = [], train.score_batch
    monkeypatch.setattr(train, "score_batch", lambda *a: scored.append(a[2]) or score(*a))
    train.train(train.Config(**{**own, "steps": 1, "crop_scale": 0.5}))
    assert [scale for scale, _ in made] == [0.5, 1.0]
    val, training = scored
    assert not torch.equal(val[0], training[0]) and not torch.equal(val[1], training[1])


@pytest.mark.parametrize(
    "name, value",
    [("batch_size", 8), ("crop_scale", 0.5), ("long_share", 0.5), ("lr", 1e-2), ("wd", 0.1)],
)
def test_what_decides_a_run_may_not_change_on_resuming(small, name, value):
    train.train(train.Config(**{**small, "steps": 2}))
    flag = "--" + name.replace("_", "-")
    with pytest.raises(BadInput, match=f"made with {flag} "):
        train.train(train.from_cli(["--resume", small["out"], flag, str(value)]))


def test_ridge_reads_as_many_batches_as_there_would_be_steps(small, monkeypatch):
    read, solve = [], lift.Ridge.solve
    monkeypatch.setattr(
        lift.Ridge,
        "solve",
        lambda head, pairs: solve(head, [p for p in pairs if not read.append(1)]),
    )
    small |= starts("ridge", small) | {"steps": 0, "epochs": 2, "method": "ridge"}
    train.train(train.Config(**small))
    assert len(read) == 2 * 4


def test_digests_of_seen_images_are_in_order():
    images = SimpleNamespace(digests=np.array([3, 1, 2], np.uint64))
    assert train.seen_digests(images, None).tolist() == [1, 2, 3]
