"""A GPU computes what the CPU computes. On a machine without one these tests are skipped.

python -m pytest tests/test_gpu.py -m gpu
"""

import json
from pathlib import Path

import pytest
import torch

import lift
import llm_text
import train
from data.common import pick_device
from data.files.runs import read_run
from tests.test_lift import IDS, ROWS, make_model
from vit import Block

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpu():
    """The GPU: CUDA's or Apple's."""
    device = pick_device("auto")
    if device.type == "cpu":
        pytest.skip("NOT TESTED on a GPU: this machine has none")
    # A run allows TF32 from its first step on, for the rest of the process.
    torch.set_float32_matmul_precision("highest")
    return device


def gradients_on(device, name, llm):
    """The loss of a batch of four, of which two pairs match by accident, and the gradient of every
    parameter, on the CPU."""
    model, texts = make_model(name, llm)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model.to(device)
    texts, ids = texts.repeat(2, *[1] * (texts.ndim - 1)), IDS.repeat(2, 1)
    features = model(images.to(device), texts.to(device), ids.to(device))
    duplicates = torch.eye(2, dtype=torch.bool, device=device).repeat(2, 2)
    loss = lift.METHODS[name].loss(**features, duplicates=duplicates)
    if loss.requires_grad:
        loss.backward()
    gradients = {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients


@pytest.mark.parametrize("name", ROWS)
def test_loss_and_gradients_are_those_of_the_cpu(gpu, name, tiny_llm_folder):
    wanted_loss, wanted = gradients_on("cpu", name, tiny_llm_folder)
    loss, gradients = gradients_on(gpu, name, tiny_llm_folder)
    assert loss == pytest.approx(wanted_loss, rel=1e-4)
    assert gradients.keys() == wanted.keys()
    for parameter, gradient in wanted.items():
        largest = gradient.abs().max().item()
        assert torch.allclose(gradients[parameter], gradient, atol=1e-3 * largest), parameter


@pytest.mark.parametrize("causal", [True, False])
def test_attention_of_heads_of_width_64_is_that_of_the_cpu(gpu, causal):
    """The tiny models above have narrow heads. GPUs have kernels of their own for this width."""
    torch.manual_seed(0)
    block = Block(192, 3, causal=causal)
    x = torch.randn(2, 17, 192)
    wanted = block(x)
    found = block.to(gpu)(x.to(gpu)).cpu()
    assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("pool", ["mean", "last", "tokens"])
def test_the_language_model_reads_alike(gpu, pool, tiny_llm_folder):
    texts = ["a red star", "a blue ring above a green square", "a star"]
    vectors = []
    for device in ("cpu", gpu):
        llm = llm_text.load_llm(tiny_llm_folder, device)
        vectors.append([v.cpu() for _, v, _ in llm.batches(texts, pool)])
    for one, other in zip(*vectors, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def losses_of(small, **more):
    cfg = train.Config(**small | {"log_every_n_steps": 1} | more)
    train.train(cfg)
    lines = Path(cfg.out, "log.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


@pytest.mark.parametrize("method", ["lift", "clip"])
def test_a_run_has_the_losses_of_the_cpu(gpu, method, small, tmp_path):
    """Also in bfloat16, where the numbers have two to three digits, and compiled."""

    def run_on(device, name, **more):
        # Of itself a GPU would read the captions in bfloat16.
        more |= {"method": method, "device": str(device), "llm_dtype": "float32"}
        return losses_of(small, out=str(tmp_path / name), **more)

    wanted = run_on("cpu", "cpu", precision="fp32")
    plain = {"torchcompile": False, "precision": "fp32"}
    assert run_on(gpu, "gpu", **plain) == pytest.approx(wanted, rel=1e-2)
    assert run_on(gpu, "pieces", **plain, accum_freq=4) == pytest.approx(wanted, rel=1e-2)
    if gpu.type == "cuda":
        bf16 = run_on(gpu, "bf16", torchcompile=False, precision="amp_bf16")
        assert bf16 == pytest.approx(wanted, rel=0.1)
        compiled = run_on(gpu, "compiled", torchcompile=True, precision="fp32")
        assert compiled == pytest.approx(wanted, rel=1e-2)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(gpu, small, tmp_path, monkeypatch):
    def settings(name):
        return small | {"out": str(tmp_path / name), "device": str(gpu), "torchcompile": False}

    whole = losses_of(settings("whole"))
    saved = train.save_tensors

    def stop(state, path):
        saved(state, path)
        if state["step"] == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_tensors", stop)
    with pytest.raises(KeyboardInterrupt):
        losses_of(settings("half"))
    monkeypatch.setattr(train, "save_tensors", saved)
    train.train(train.from_cli(["--resume", str(tmp_path / "half"), "--device", str(gpu)]))
    assert read_run(tmp_path / "half")["step"] == 6
    again = [
        json.loads(line)["loss"]
        for line in (tmp_path / "half" / "log.jsonl").read_text().splitlines()
        if "loss" in json.loads(line)
    ]
    assert again[-1] == pytest.approx(whole[-1], rel=1e-3)
