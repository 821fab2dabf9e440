"""lift.py: losses against hand-computed values, heads, the text tower against transformers, frozen means frozen.

    python -m pytest tests/test_lift.py
"""

import copy
import math
import shutil
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image

import lift
import train
import vit
from data import BadInput


def cross_entropy(row, i):
    return -row[i] + math.log(sum(math.exp(v) for v in row))


# Three unit vectors a side whose cosines have unequal rows and columns, so that neither direction stands for both.
IMAGE = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
TEXT = torch.tensor([[1.0, 0.0], [-0.6, 0.8], [0.0, -1.0]])
COSINE = [[1.0, -0.6, 0.0], [0.6, 0.28, -0.8], [0.8, 0.0, -0.6]]


def test_info_nce_by_hand():
    scale = 3.0
    rows = [[scale * c for c in row] for row in COSINE]
    columns = [list(c) for c in zip(*rows)]
    i2t = sum(cross_entropy(rows[i], i) for i in range(3)) / 3
    t2i = sum(cross_entropy(columns[i], i) for i in range(3)) / 3
    assert abs(i2t - t2i) > 0.1  # or one direction could pass for both
    assert lift.info_nce(IMAGE, TEXT, torch.tensor(scale)).item() == pytest.approx((i2t + t2i) / 2, abs=1e-6)


def test_info_nce_leaves_duplicates_out():
    torch.manual_seed(0)
    image, text = (F.normalize(torch.randn(4, 8), dim=1) for _ in range(2))
    text[2] = text[0]  # the same caption twice
    duplicates = torch.eye(4, dtype=torch.bool)
    duplicates[0, 2] = duplicates[2, 0] = True
    logits = (10 * image @ text.T).tolist()
    allowed = [[j for j in range(4) if j == i or not duplicates[i, j]] for i in range(4)]
    wanted = sum(cross_entropy([logits[i][j] for j in allowed[i]], allowed[i].index(i))
                 + cross_entropy([logits[j][i] for j in allowed[i]], allowed[i].index(i)) for i in range(4)) / 8
    assert lift.info_nce(image, text, torch.tensor(10.0), duplicates).item() == pytest.approx(wanted, abs=1e-5)
    assert lift.info_nce(image, text, torch.tensor(10.0)).item() > wanted + 0.1


def test_info_nce_is_float32_under_autocast():
    torch.manual_seed(0)
    image, text = (F.normalize(torch.randn(64, 32), dim=1) for _ in range(2))
    exact = lift.info_nce(image, text, torch.tensor(100.0))
    with torch.autocast("cpu", torch.bfloat16):
        assert lift.info_nce(image, text, torch.tensor(100.0)).item() == exact.item()


def test_info_nce_at_the_start():
    """Random features: ln B + scale^2 / 2D."""
    torch.manual_seed(0)
    image, text = (F.normalize(torch.randn(1024, 512), dim=1) for _ in range(2))
    loss = lift.info_nce(image, text, torch.tensor(1 / 0.07)).item()
    assert loss == pytest.approx(math.log(1024) + (1 / 0.07) ** 2 / 1024, abs=0.06)


def test_cosine_loss_by_hand():
    assert lift.cosine_loss(IMAGE, TEXT).item() == pytest.approx(1 - (1.0 + 0.28 - 0.6) / 3, abs=1e-6)


def text_tower(cls):
    cfg = SimpleNamespace(text_width=32, text_depth=2, text_heads=2, context_length=12, whiten=8)
    ids = torch.tensor([[7, 3, 9, lift.END, lift.PAD], [5, 3, 7, 11, lift.END]]) if cls is lift.TextTransformer \
        else torch.randn(40, 24)
    return cls.fit(cfg, ids), ids


def model(method):
    torch.manual_seed(0)
    tower, texts = text_tower(lift.METHODS[method].text)
    return lift.TwoTower(method, vit.ViT("micro/16", 32), tower, 16), texts[:2]


@pytest.mark.parametrize("method", lift.METHODS)
def test_features_have_unit_length_and_scale_is_exponentiated(method):
    m, texts = model(method)
    out = m(torch.randn(2, 3, 32, 32), texts)
    for side in ("image_features", "text_features"):
        assert torch.allclose(out[side].norm(dim=1), torch.ones(2), atol=1e-5)
    assert out["image_features"].shape == out["text_features"].shape
    assert out["logit_scale"].item() == pytest.approx(1 / 0.07, rel=1e-6)
    raw = m.encode_image(torch.randn(2, 3, 32, 32))  # open_clip's default: not normalised
    assert not torch.allclose(raw.norm(dim=1), torch.ones(2), atol=1e-2)


# What the papers train, written down a second time, independently of the table's regular expressions.
TRAINED = {"clip": {"visual", "image_head", "text", "text_head", "logit_scale"},
           "lift": {"visual", "image_head", "logit_scale"}, "lift_cos": {"visual", "image_head"}}


@pytest.mark.parametrize("method", lift.METHODS)
def test_exactly_the_declared_parameters_change(method):
    m, texts = model(method)
    m.train()
    before = {n: p.clone() for n, p in m.state_dict().items()}
    optimizer = torch.optim.AdamW(train.parameter_groups(m, 0.2), lr=1e-2)
    for _ in range(3):
        loss = lift.METHODS[method].loss(**m(torch.randn(2, 3, 32, 32), texts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    still = {n for n, p in m.state_dict().items() if torch.equal(p, before[n])}
    frozen = {n for n in before if n.split(".")[0] not in TRAINED[method]} | {"text.vocab"} & before.keys()
    assert still - {"text.token_embedding.weight"} == frozen - {"text.token_embedding.weight"}
    assert all(p.grad is None for n, p in m.named_parameters() if n in frozen)
    assert not any(part.training for part in (m.text, m.visual)
                   if not any(p.requires_grad for p in part.parameters()))
    assert m.visual.training


def test_optimizer_gets_every_trained_parameter_once_and_decays_matrices_only():
    m, _ = model("clip")
    groups = train.parameter_groups(m, 0.2)
    names = {id(p): n for n, p in m.named_parameters()}
    got = [names[id(p)] for g in groups for p in g["params"]]
    assert sorted(got) == sorted(names.values())
    free = {names[id(p)] for p in groups[1]["params"]}
    assert {"logit_scale", "visual.pos_embed", "visual.norm.weight", "text.positional_embedding"} <= free
    assert not any(n.endswith(("qkv.weight", "fc1.weight")) for n in free)
    assert [g["weight_decay"] for g in groups] == [0.2, 0.0]


def test_scale_is_clamped():
    m, _ = model("lift")
    for wild, kept in ((9.0, 100.0), (-3.0, 1.0)):
        m.logit_scale.data.fill_(wild)
        m.clamp_scale()
        assert m.logit_scale.exp().item() == pytest.approx(kept, rel=1e-5)


def test_text_transformer_equals_transformers_clip():
    torch.manual_seed(0)
    tower, ids = text_tower(lift.TextTransformer)
    for p in tower.parameters():
        p.data.add_(torch.randn_like(p) * 0.2)
    size = len(tower.vocab)
    config = transformers.CLIPTextConfig(
        vocab_size=size + 1, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=12, hidden_act="gelu", layer_norm_eps=1e-6, bos_token_id=size, pad_token_id=0,
        eos_token_id=tower.vocab.tolist().index(lift.END))
    theirs = transformers.CLIPTextModel(config).eval()
    state = {"embeddings.token_embedding.weight": tower.token_embedding.weight,
             "embeddings.position_embedding.weight": tower.positional_embedding[0],
             **{f"final_layer_norm.{k}": v for k, v in tower.ln_final.state_dict().items()}}
    for i, block in enumerate(tower.blocks):
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", getattr(block.attn.qkv, kind).chunk(3)):
                state[f"encoder.layers.{i}.self_attn.{name}_proj.{kind}"] = part
            for ours, name in ((block.attn.proj, "self_attn.out_proj"), (block.norm1, "layer_norm1"),
                               (block.norm2, "layer_norm2"), (block.mlp.fc1, "mlp.fc1"), (block.mlp.fc2, "mlp.fc2")):
                state[f"encoder.layers.{i}.{name}.{kind}"] = getattr(ours, kind)
    prefix = "text_model." if any(n.startswith("text_model.") for n in theirs.state_dict()) else ""
    theirs.load_state_dict({prefix + n: v for n, v in state.items()}, strict=False)
    left = {n for n in theirs.state_dict() if n.removeprefix(prefix) not in state}
    assert left <= {prefix + "embeddings.position_ids"}
    rows = torch.searchsorted(tower.vocab, ids)
    with torch.no_grad():
        assert torch.allclose(tower(ids), theirs(rows).pooler_output, atol=1e-4)


def test_text_transformer_reads_up_to_its_end_and_knows_unknown_words():
    tower, ids = text_tower(lift.TextTransformer)
    longer = F.pad(ids, (0, 3), value=lift.PAD)
    assert torch.allclose(tower(ids), tower(longer), atol=1e-6)  # padding changes nothing
    swapped = ids.clone()
    swapped[1, 0], swapped[1, 1] = 3, 5
    assert not torch.allclose(tower(ids)[1], tower(swapped)[1], atol=1e-4)  # word order does
    other = ids.clone()
    other[1, 0] = 12345
    unknown = other.clone()
    unknown[1, 0] = 1  # another word that the vocabulary lacks
    assert torch.equal(tower(other), tower(unknown)) and not torch.equal(tower(other), tower(ids))


def test_llm_vectors_are_whitened_training_captions():
    tower, vectors = text_tower(lift.LLMVectors)
    out = tower(vectors)
    assert torch.allclose(out.mean(0), torch.zeros(8), atol=1e-4)
    assert torch.allclose(out.T @ out / len(out), torch.eye(8), atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tower(vectors), out)


@pytest.mark.parametrize("method", lift.METHODS)
def test_load_gives_back_the_model_that_was_trained(small, method):
    train.train(train.Config(method=method, **small))
    m, transform, tokenize = lift.load(small["out"])
    picture = Image.new("RGB", (50, 40), "red")
    image = transform(picture)
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32
    assert image[:, 0, 0].tolist() == pytest.approx(
        [(v - mean) / std for v, mean, std in zip((1, 0, 0), lift.IMAGE_MEAN, lift.IMAGE_STD)], abs=1e-5)
    texts = tokenize(["a large red circle", "a small blue square"])
    with torch.no_grad():
        a, b = m.encode_image(image[None], normalize=True), m.encode_text(texts.to("cpu"), normalize=True)
    assert a.shape[1] == b.shape[1] and len(b) == 2 and not m.training
    again = copy.deepcopy(m)
    again.load_state_dict(lift.read_checkpoint(small["out"])["model"])
    assert torch.equal(again.encode_image(image[None], normalize=True), a)


def test_load_refuses_another_language_model_and_keeps_the_pooling(small, tmp_path):
    other = shutil.copytree(small["llm"], tmp_path / "other")
    train.train(train.Config(**{**small, "llm": str(other), "image_pool": "tok"}))
    assert lift.load(small["out"])[0].visual.cls_token is not None
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(BadInput, match="another language model"):
        lift.load(small["out"])


def test_heads_by_hand():
    torch.manual_seed(0)
    x, head = torch.randn(2, 3), lift.mlp(3, 5)
    wanted = F.gelu(x @ head[0].weight.T + head[0].bias) @ head[2].weight.T + head[2].bias
    assert torch.allclose(head(x), wanted, atol=1e-6)
    assert list(lift.linear(3, 5).state_dict()) == ["weight"] and lift.identity(3, 5)(x) is x


def test_checkpoint_errors(tmp_path):
    with pytest.raises(BadInput, match="not the folder of a trained run"):
        lift.load(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(BadInput, match="damaged"):
        lift.load(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(BadInput, match="another program"):
        lift.load(tmp_path)
