"""data/files/vit.py: weights of timm's and Hugging Face's towers give the same outputs.

python -m pytest tests/data/files/test_vit.py
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import vit
from data.common import BadInput
from data.files.tensors import write_safetensors
from data.files.vit import load_vit
from data.images.pixels import PIXEL_NORMS, normalize_pixels
from tests.test_vit import copy_from_hf


@pytest.fixture(autouse=True)
def small_size(monkeypatch):
    """A size of its own: patches of 8 pixels, width 48, 3 blocks, 4 heads."""
    monkeypatch.setitem(vit.SIZES, "test/8", (8, 48, 3, 4))
    torch.manual_seed(0)


@pytest.fixture
def hf():
    """A random ViTForImageClassification of transformers, of the size test/8 and 40 pixels."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=192,
        image_size=40,
        patch_size=8,
        layer_norm_eps=1e-6,
        num_labels=5,
    )
    model = transformers.ViTForImageClassification(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return model


def timm_file(path, tower, wrap=None, **changes):
    """A file as timm writes it: a convolution's kernel, and a classifier."""
    state = {
        **tower.state_dict(),
        "head.weight": torch.ones(5, 48),
        "head.bias": torch.ones(5),
    } | changes
    if state["patch_embed.proj.weight"].ndim == 2:
        state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].view(-1, 3, 8, 8)
    if path.suffix == ".safetensors":
        write_safetensors(path, state, {})
    else:
        torch.save({wrap: state, "epoch": 3} if wrap else state, path)
    return path


@pytest.mark.reference
@pytest.mark.parametrize(
    "form", ["ViT", "ViT classifier", "timm.safetensors", "timm.pth", "deit.pth"]
)
def test_weights_of_others_give_their_outputs(hf, tmp_path, form):
    theirs = hf
    if form.startswith("ViT"):
        (theirs if "classifier" in form else theirs.vit).save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    else:
        donor = vit.ViT("test/8", 40, "tok")
        copy_from_hf(donor, theirs.vit)
        path = timm_file(tmp_path / form, donor, "model" if form.startswith("deit") else None)
    ours, images = vit.ViT("test/8", 40, "tok"), torch.randn(2, 3, 40, 40)
    load_vit(ours, path)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs.vit(images).last_hidden_state[:, 0], atol=1e-4)


@pytest.mark.parametrize("norm", ["imagenet", "half"])
def test_pixels_normalised_in_another_way_give_the_same(tmp_path, norm):
    donor, ours = vit.ViT("test/8", 40, "tok"), vit.ViT("test/8", 40, "tok")
    path = timm_file(tmp_path / "x.pth", donor)
    load_vit(ours, path, PIXEL_NORMS[norm], PIXEL_NORMS["clip"])
    pixels = torch.randint(
        0, 256, (2, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in PIXEL_NORMS[norm])
    with torch.no_grad():
        wanted = donor((pixels.permute(0, 3, 1, 2) / 255 - mean) / std)
        assert torch.allclose(ours(normalize_pixels(pixels)), wanted, atol=1e-4)
        assert not torch.allclose(donor(normalize_pixels(pixels)), wanted, atol=1e-2)


@pytest.mark.reference
@pytest.mark.parametrize("kind, act", [("-clip", "gelu"), ("-quickgelu", "quick_gelu")])
def test_clips_own_tower(tmp_path, kind, act):
    """transformers' CLIPVisionModel, alone and within a CLIPModel's file."""
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192)
    vision, text = (
        dict(**sizes, image_size=40, patch_size=8, hidden_act=act),
        dict(**sizes, vocab_size=99),
    )
    both = transformers.CLIPModel(
        transformers.CLIPConfig(vision_config=vision, text_config=text)
    ).eval()
    for p in both.parameters():
        p.data.add_(torch.randn_like(p) * 0.2)
    images = torch.randn(2, 3, 40, 40)
    for model, folder in ((both, tmp_path / "both"), (both.vision_model, tmp_path / "vision")):
        model.save_pretrained(folder)
        ours = vit.ViT("test/8" + kind, 40, "tok")
        load_vit(ours, folder)
        with torch.no_grad():
            assert torch.allclose(ours(images), both.vision_model(images).pooler_output, atol=1e-4)
    plain = vit.ViT("test/8", 40, "tok")
    with pytest.raises(BadInput, match="have a norm before the blocks.*-clip"):
        load_vit(plain, folder)
    path = timm_file(tmp_path / "x.pth", plain)
    with pytest.raises(BadInput, match="have no norm before the blocks"):
        load_vit(vit.ViT("test/8" + kind, 40, "tok"), path)


@pytest.mark.parametrize("pixels", [72, 24])
def test_positions_are_resized_as_images_are(tmp_path, pixels):
    """Channel by channel like Pillow's bicubic, larger or smaller; the class token's stays."""
    donor, ours = vit.ViT("test/8", 40, "tok"), vit.ViT("test/8", pixels, "tok")
    load_vit(ours, timm_file(tmp_path / "x.pth", donor))
    side, grid = pixels // 8, donor.pos_embed[0, 1:].detach().view(5, 5, 48).numpy()
    for c in range(48):
        wanted = np.asarray(Image.fromarray(grid[:, :, c]).resize((side, side), Image.BICUBIC))
        assert np.allclose(
            ours.pos_embed[0, 1:, c].detach().view(side, side).numpy(), wanted, atol=1e-4
        )
    assert torch.equal(ours.pos_embed[0, 0], donor.pos_embed[0, 0])


def test_a_runs_tower_goes_on_in_another(small, tmp_path):
    import lift
    import train

    train.train(train.Config(method="supervised", **small))
    trained = lift.load(small["out"])[0].visual
    tower = vit.ViT("micro/16", 32)
    load_vit(tower, small["out"])
    assert all(
        torch.equal(a, b)
        for a, b in zip(tower.state_dict().values(), trained.state_dict().values(), strict=True)
    )
    train.train(
        train.Config(
            method="ape", **small | {"out": str(tmp_path / "ape"), "image_weights": small["out"]}
        )
    )
    again = vit.ViT("micro/16", 32)  # of a locked tower, which the run carries along unchanged
    load_vit(again, tmp_path / "ape")
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), trained.state_dict().values(), strict=True)
    )
    larger = vit.ViT("micro/16", 48)
    load_vit(larger, small["out"])
    assert larger.pos_embed.shape == (1, 9, 192)
    flat = torch.ones(1, 1, 192)  # positions that are all alike stay so
    torch.save({**trained.state_dict(), "pos_embed": flat.expand(1, 4, 192)}, tmp_path / "flat.pt")
    load_vit(larger, tmp_path / "flat.pt")
    assert torch.allclose(larger.pos_embed, flat.expand(1, 9, 192), atol=1e-5)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"blocks.0.norm1.weight": None}, "blocks.0.norm1.weight has shape none"),
        ({"extra": torch.ones(2)}, "extra has shape"),
        ({"norm.weight": torch.ones(47)}, r"norm.weight has shape \(47,\), .* want \(48,\)"),
        ({"cls_token": None}, "these weights want --image-pool avg"),
        ({"pos_embed": torch.ones(1, 18, 48)}, "make no square"),
        ({"pos_embed": torch.ones(1, 1, 48)}, "make no square"),
        ({"norm.weight": torch.full((48,), float("nan"))}, "not finite"),
        ({"norm.weight": torch.ones(48, dtype=torch.int64)}, "no floating-point numbers"),
        ({"norm.weight": torch.ones(48).to_sparse()}, "no plain table of numbers"),
        ({"pos_embed": torch.ones(1, 26, 0)}, "pos_embed is empty"),
        # SigLIP's head makes one vector of the patches: it is a part of the tower.
        ({"head.probe": torch.ones(1, 1, 48)}, "head.probe has shape"),
        ({"head_dist.weight": torch.ones(5, 48)}, ""),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, changes, says):
    donor, tower = vit.ViT("test/8", 40, "tok"), vit.ViT("test/8", 40, "tok")
    path = timm_file(tmp_path / "x.pth", donor)
    state = {n: t for n, t in {**torch.load(path), **changes}.items() if t is not None}
    torch.save(state, path)
    if not says:
        return load_vit(tower, path)  # a second classifier is left out like the first
    with pytest.raises(BadInput, match=f"x.pth: .*{says}"):
        load_vit(tower, path)


@pytest.mark.reference
def test_queries_keys_and_values_of_different_shapes_are_refused(hf, tmp_path):
    state = hf.state_dict()
    key = next(name for name in state if name.endswith("key.weight") or "k_proj.weight" in name)
    state[key] = torch.zeros(48, 32)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(BadInput, match="different shapes|has shape none"):
        load_vit(vit.ViT("test/8", 40, "tok"), tmp_path / "x.pth")


@pytest.mark.parametrize(
    "config, says",
    [
        ({"hidden_act": "gelu", "num_attention_heads": 4}, ""),
        ({"architecture": "vit_base_patch16_224"}, ""),
        # OpenAI's CLIP: --model wants the ending -quickgelu.
        ({"vision_config": {"hidden_act": "quick_gelu"}}, "'quick_gelu', and --model has 'gelu'"),
        ({"num_attention_heads": 3}, "num_attention_heads is 3, and --model has 4"),
        ([1], "corrupt"),
    ],
)
def test_a_config_that_asks_for_another_computation_is_refused(tmp_path, config, says):
    """The weights of such a tower have the same names and shapes."""
    timm_file(tmp_path / "model.safetensors", vit.ViT("test/8", 40, "tok"))
    (tmp_path / "config.json").write_text(json.dumps(config))
    tower = vit.ViT("test/8", 40, "tok")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        if not says:
            load_vit(tower, path)
            continue
        with pytest.raises(BadInput, match=f"config.json: .*{says}"):
            load_vit(tower, path)


def test_files_that_are_no_weights_are_refused(tmp_path):
    tower = vit.ViT("micro/16", 32)
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (tmp_path / "short.safetensors").write_bytes(b"hello")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"conv1.weight": torch.zeros(8, 3, 7, 7)}, tmp_path / "resnet.pth")
    for name, says in (
        ("empty.pth", ""),
        ("cut.safetensors", "truncated: its header runs past its end"),
        ("short.safetensors", "truncated: its header runs past its end"),
        ("list.pth", "holds a list and no dictionary of tensors"),
        ("resnet.pth", "no vision transformer: it has no pos_embed, but conv1.weight"),
        ("nowhere.pth", ""),
        ("nowhere.safetensors", ""),
    ):
        with pytest.raises(BadInput, match=f"{name}.*{says}"):
            load_vit(tower, tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match="checkpoint.pt: no such file"):
        load_vit(tower, tmp_path / "folder")
