"""vit.py against transformers' ViT with the same weights, and its size table.

python -m pytest tests/test_vit.py
"""

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from PIL import Image

import vit
from data.common import BadInput
from data.files.vit import load_vit
from data.images.pixels import PIXEL_NORMS, normalize_pixels


def copy_from_hf(ours, theirs):
    """Fill our ViT from a transformers ViTModel: conv kernel -> Linear rows, q, k, v -> one matrix."""
    state = theirs.state_dict()
    ours.cls_token.data = state["embeddings.cls_token"]
    ours.pos_embed.data = state["embeddings.position_embeddings"]
    ours.patch_embed.proj.weight.data = state[
        "embeddings.patch_embeddings.projection.weight"
    ].flatten(1)
    ours.patch_embed.proj.bias.data = state["embeddings.patch_embeddings.projection.bias"]
    ours.norm.load_state_dict({k: state[f"layernorm.{k}"] for k in ("weight", "bias")})
    for block, layer in zip(ours.blocks, theirs.layers, strict=True):
        a = layer.attention
        for kind in ("weight", "bias"):
            parts = [getattr(p, kind).data for p in (a.q_proj, a.k_proj, a.v_proj)]
            getattr(block.attn.qkv, kind).data = torch.cat(parts)
        block.attn.proj.load_state_dict(a.o_proj.state_dict())
        block.norm1.load_state_dict(layer.layernorm_before.state_dict())
        block.norm2.load_state_dict(layer.layernorm_after.state_dict())
        block.mlp.fc1.load_state_dict(layer.mlp.fc1.state_dict())
        block.mlp.fc2.load_state_dict(layer.mlp.fc2.state_dict())


@pytest.mark.reference
def test_equals_transformers(monkeypatch):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    monkeypatch.setitem(vit.SIZES, "test/8", (8, 48, 3, 4))
    config = transformers.ViTConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=192,
        image_size=40,
        patch_size=8,
        layer_norm_eps=1e-6,
    )
    theirs = transformers.ViTModel(config, add_pooling_layer=False).eval()
    for p in theirs.parameters():  # zero biases and unit norms would hide a swapped or missing one
        p.data.add_(torch.randn_like(p) * 0.2)
    ours = vit.ViT("test/8", 40, pool="tok")
    copy_from_hf(ours, theirs)
    images = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        wanted = theirs(images).last_hidden_state
        assert torch.allclose(tokens(ours, images), wanted, atol=1e-5)
        assert torch.allclose(ours(images), wanted[:, 0], atol=1e-5)


def tokens(model, images):
    """All tokens after the last norm, (B, N, D)."""
    seen = []
    hook = model.norm.register_forward_hook(lambda module, given, made: seen.append(made))
    model(images)
    hook.remove()
    return seen[0]


def test_average_pool_is_the_mean_of_normed_patches():
    model = vit.ViT("micro/16", 64)
    images = torch.randn(2, 3, 64, 64)
    assert tokens(model, images).shape == (2, 16, 192)
    assert torch.allclose(model(images), tokens(model, images).mean(1))


def test_published_sizes():
    """Parameters of timm's models without their classifiers (5.7, 22.1, 86.6 M with 1000 classes)."""
    for size, count in {"Ti/16": 5_524_416, "S/16": 21_665_664, "B/16": 85_798_656}.items():
        with torch.device("meta"):
            assert sum(p.numel() for p in vit.ViT(size, 224, "tok").parameters()) == count


def test_positions_are_strong_beside_patches():
    """The reason for a deviation of 0.5: at 0.02 they are 3 % as strong as the patches."""
    model = vit.ViT("micro/16", 64)
    patches = model.patch_embed(torch.randn(8, 3, 64, 64))
    assert 0.3 < model.pos_embed.std() / patches.std() < 3


@pytest.mark.parametrize(
    "arguments", [("micro", 64), ("b/16", 224), ("micro/16", 60), ("micro/16", 64, "mean")]
)
def test_bad_sizes(arguments):
    with pytest.raises(ValueError, match="is unknown|no multiple"):
        vit.ViT(*arguments)


# ---------------------------------------------------------------------------------------------------------------
# Weights of others.


@pytest.fixture
def hf(monkeypatch):
    """make(image_size) -> a random transformers ViTForImageClassification, of the size test/8."""
    monkeypatch.setitem(vit.SIZES, "test/8", (8, 48, 3, 4))

    def make(
        kind=transformers.ViTForImageClassification, config=transformers.ViTConfig, image_size=40
    ):
        torch.manual_seed(0)
        model = kind(
            config(
                hidden_size=48,
                num_hidden_layers=3,
                num_attention_heads=4,
                intermediate_size=192,
                image_size=image_size,
                patch_size=8,
                layer_norm_eps=1e-6,
                num_labels=5,
            )
        ).eval()
        for p in model.parameters():
            p.data.add_(torch.randn_like(p) * 0.2)
        return model

    return make


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
        safetensors.torch.save_file(state, path)
    else:
        torch.save({wrap: state, "epoch": 3} if wrap else state, path)
    return path


@pytest.mark.parametrize(
    "form", ["ViT", "ViT classifier", "timm.safetensors", "timm.pth", "deit.pth"]
)
def test_weights_of_others_give_their_outputs(hf, tmp_path, form):
    theirs = hf()
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
def test_pixels_normalised_in_another_way_give_the_same(hf, tmp_path, norm):
    hf()
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


@pytest.mark.parametrize("kind, act", [("-clip", "gelu"), ("-quickgelu", "quick_gelu")])
def test_clips_own_tower(monkeypatch, tmp_path, kind, act):
    """transformers' CLIPVisionModel, alone and within a CLIPModel's file."""
    monkeypatch.setitem(vit.SIZES, "test/8", (8, 48, 3, 4))
    torch.manual_seed(0)
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
    with pytest.raises(BadInput, match="norm_pre"):
        load_vit(plain, folder)


@pytest.mark.parametrize("pixels", [72, 24])
def test_positions_are_resized_as_images_are(hf, tmp_path, pixels):
    """Channel by channel like Pillow's bicubic, larger or smaller; the class token's stays."""
    hf()
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
        ({"cls_token": None}, "cls_token has shape none"),
        ({"pos_embed": torch.ones(1, 18, 48)}, "make no square"),
        ({"pos_embed": torch.ones(1, 1, 48)}, "make no square"),
        ({"norm.weight": torch.full((48,), float("nan"))}, "not finite"),
        ({"head_dist.weight": torch.ones(5, 48)}, ""),
    ],
)
def test_weights_that_do_not_fit_are_refused(hf, tmp_path, changes, says):
    hf()
    donor, tower = vit.ViT("test/8", 40, "tok"), vit.ViT("test/8", 40, "tok")
    path = timm_file(tmp_path / "x.pth", donor)
    state = {n: t for n, t in {**torch.load(path), **changes}.items() if t is not None}
    torch.save(state, path)
    if not says:
        return load_vit(tower, path)  # a second classifier is left out like the first
    with pytest.raises(BadInput, match=f"x.pth: .*{says}"):
        load_vit(tower, path)


def test_files_that_are_no_weights_are_refused(tmp_path):
    tower = vit.ViT("micro/16", 32)
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("empty.pth", "cut.safetensors", "list.pth", "nowhere.pth", "nowhere.safetensors"):
        with pytest.raises(BadInput, match=name):
            load_vit(tower, tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match="checkpoint.pt: no such file"):
        load_vit(tower, tmp_path / "folder")
