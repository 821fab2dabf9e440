"""lift.py: losses by hand, heads, the text tower against transformers, frozen means frozen.

python -m pytest tests/test_lift.py
"""

import copy
import io
import json
import math
import shutil
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import data.files.export
import lift
import llm_text
import train
import vit
from data.captions import END, PAD
from data.common import BadInput, chunks
from data.files.runs import read_run
from data.files.tensors import read_safetensors, write_safetensors
from data.files.vit import load_vit
from data.images import pixels
from data.images.read import read_images
from eval import Run
from tests.conftest import ridge_by_least_squares
from tests.experiments import flops


def cross_entropy(row, i):
    return -row[i] + math.log(sum(math.exp(v) for v in row))


# Three unit vectors a side whose cosines have unequal rows and columns, so that neither direction
# stands for both.
IMAGE = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
TEXT = torch.tensor([[1.0, 0.0], [-0.6, 0.8], [0.0, -1.0]])
COSINE = [[1.0, -0.6, 0.0], [0.6, 0.28, -0.8], [0.8, 0.0, -0.6]]


def test_info_nce_by_hand():
    scale = 3.0
    rows = [[scale * c for c in row] for row in COSINE]
    columns = [list(c) for c in zip(*rows, strict=True)]
    i2t = sum(cross_entropy(rows[i], i) for i in range(3)) / 3
    t2i = sum(cross_entropy(columns[i], i) for i in range(3)) / 3
    assert abs(i2t - t2i) > 0.1  # or one direction could pass for both
    assert lift.info_nce(IMAGE, TEXT, torch.tensor(scale)).item() == pytest.approx(
        (i2t + t2i) / 2, abs=1e-6
    )


def test_info_nce_leaves_duplicates_out():
    torch.manual_seed(0)
    image, text = (F.normalize(torch.randn(4, 8), dim=1) for _ in range(2))
    text[2] = text[0]  # the same caption twice
    duplicates = torch.eye(4, dtype=torch.bool)
    duplicates[0, 2] = duplicates[2, 0] = True
    logits = (10 * image @ text.T).tolist()
    allowed = [[j for j in range(4) if j == i or not duplicates[i, j]] for i in range(4)]
    wanted = (
        sum(
            cross_entropy([logits[i][j] for j in allowed[i]], allowed[i].index(i))
            + cross_entropy([logits[j][i] for j in allowed[i]], allowed[i].index(i))
            for i in range(4)
        )
        / 8
    )
    assert lift.info_nce(image, text, torch.tensor(10.0), duplicates).item() == pytest.approx(
        wanted, abs=1e-5
    )
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


def test_sigmoid_loss_by_hand():
    """Six false pairs and three true ones, each by itself."""
    scale, bias = 3.0, -1.5

    def cost(i, j):
        logit = scale * COSINE[i][j] + bias
        return math.log(1 + math.exp(-logit if i == j else logit))

    pairs = [(i, j) for i in range(3) for j in range(3)]
    loss = lift.sigmoid_loss(IMAGE, TEXT, torch.tensor(scale), torch.tensor(bias))
    assert loss.item() == pytest.approx(sum(cost(i, j) for i, j in pairs) / 3, abs=1e-6)

    # What is left out: a pair that matches by accident, but never a true pair.
    duplicates = torch.eye(3, dtype=torch.bool)
    duplicates[0, 2] = duplicates[2, 0] = True
    left = sum(cost(i, j) for i, j in pairs if i == j or not duplicates[i, j])
    loss = lift.sigmoid_loss(IMAGE, TEXT, torch.tensor(scale), torch.tensor(bias), duplicates)
    assert loss.item() == pytest.approx(left / 3, abs=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        again = lift.sigmoid_loss(IMAGE, TEXT, torch.tensor(scale), torch.tensor(bias), duplicates)
    assert again.item() == loss.item()


def test_sigmoid_loss_of_guessing():
    """1 + ln B with the best bias, and about 10 at the start."""
    B = 256
    same = F.normalize(torch.ones(B, 8), dim=1)  # all cosines are 1

    def loss(bias):  # of the logits, which are 10 + (bias - 10)
        return lift.sigmoid_loss(same, same, torch.tensor(10.0), torch.tensor(bias - 10)).item()

    assert loss(-math.log(B - 1)) == pytest.approx(1 + math.log(B), abs=0.01)
    assert loss(-math.log(B - 1)) < min(loss(-math.log(B - 1) + d) for d in (-0.1, 0.1))
    assert loss(-10.0) == pytest.approx(10, abs=0.02)


@pytest.mark.reference
def test_sigmoid_loss_equals_transformers_siglip():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    theirs = transformers.SiglipModel(
        transformers.SiglipConfig(
            text_config={"vocab_size": 50, "projection_size": 16, **sizes},
            vision_config={"image_size": 16, "patch_size": 8, **sizes},
        )
    ).eval()
    theirs.logit_scale.data.fill_(math.log(7))
    theirs.logit_bias.data.fill_(-3)
    ids, pixels_ = torch.randint(50, (5, 8)), torch.randn(5, 3, 16, 16)
    out = theirs(input_ids=ids, pixel_values=pixels_, return_loss=True)
    ours = lift.sigmoid_loss(
        out.image_embeds, out.text_embeds, theirs.logit_scale.exp(), theirs.logit_bias
    )
    assert ours.item() == pytest.approx(out.loss.item(), rel=1e-5)


def test_cosine_loss_by_hand():
    assert lift.cosine_loss(IMAGE, TEXT).item() == pytest.approx(
        1 - (1.0 + 0.28 - 0.6) / 3, abs=1e-6
    )


def test_label_loss_by_hand():
    """Two labels are half the target each."""
    image, labels = (
        torch.tensor([[0.6, 0.8, 0.0]]),
        F.normalize(torch.tensor([[1.0, 0.0, 1.0]]), dim=1),
    )
    scores = [5 * v for v in (0.6, 0.8, 0.0)]
    wanted = (cross_entropy(scores, 0) + cross_entropy(scores, 2)) / 2
    assert lift.label_loss(image, labels, torch.tensor(5.0)).item() == pytest.approx(
        wanted, abs=1e-5
    )
    # Captions without labels count nothing.
    with_unlabelled = torch.cat([labels, torch.zeros(2, 3)])
    assert lift.label_loss(
        image.expand(3, 3), with_unlabelled, torch.tensor(5.0)
    ).item() == pytest.approx(wanted, abs=1e-5)


def test_the_loss_of_superclip_by_hand():
    """InfoNCE, and the cross-entropy against all labels of a caption, whose weights sum to 1."""
    scores, weights = [[2.0, -1.0, 0.5], [0.3, 0.2, 0.1]], [[3.0, 1.0, 0.0], [0.0, 0.0, 2.0]]
    labels = 0.75 * cross_entropy(scores[0], 0) + 0.25 * cross_entropy(scores[0], 1)
    labels = (labels + cross_entropy(scores[1], 2)) / 2
    duplicates = torch.ones(2, 2, dtype=torch.bool)  # so InfoNCE has nothing left to choose: 0
    pairs = {"image_features": IMAGE[:2], "text_features": TEXT[:2]}
    pairs["logit_scale"] = torch.tensor(3.0)
    both = {"label_scores": torch.tensor(scores), "label_weights": torch.tensor(weights)}
    loss = lift.info_nce_and_labels(**both, **pairs, duplicates=duplicates)
    assert loss.item() == pytest.approx(labels, abs=1e-6)
    loss = lift.info_nce_and_labels(**both, **pairs)
    assert loss.item() == pytest.approx(labels + lift.info_nce(**pairs).item(), abs=1e-6)


IDS = torch.tensor([[7, 3, 9, END, PAD], [5, 3, 7, 11, END]])


SIZES = lift.Sizes(
    model="micro/16",
    image_size=32,
    embed_dim=16,
    text_width=32,
    text_depth=2,
    text_heads=2,
    context_length=12,
)


def some_inputs(tower):
    """What a class of text towers could take, for some captions."""
    if tower.input_kind == "tokens":
        tokens = torch.randn(40, 5, 24)
        tokens[::2, 3:] = 0
        return tokens
    return torch.randn(40, 24) if tower.input_kind == "vectors" else IDS


def text_tower(tower):
    """(a small tower of that class, what it was fitted to)"""
    torch.manual_seed(0)
    inputs = some_inputs(tower)
    return tower(SIZES, *tower.fit(inputs, directions=8)), inputs


def make_model(name, llm, unlock=""):
    """(the method's model around tiny towers, text inputs of two captions)"""
    torch.manual_seed(0)
    tower = lift.METHODS[name].text
    inputs = some_inputs(tower)
    llama = None
    if tower.needs_llama:
        llama = lift.live_llama(llm_text.TextSource(llm=str(llm)))
    fitted = tower.fit(inputs, directions=8)
    labels = lift.WordLabels.fit(IDS) if lift.METHODS[name].labels else ()
    m = lift.TwoTower(name, SIZES, fitted, unlock, llama=llama, label_fitted=labels)
    return m, inputs[:2]


@pytest.fixture
def model(tiny_llm_folder):
    """make_model with a tiny language model"""
    return lambda name, unlock="": make_model(name, tiny_llm_folder, unlock)


CLIPS, LIFTS = lift.TextTransformer, lift.LLMVectors  # text towers
SCRATCH, PRETRAINED, RUN = "scratch", "pretrained", "run"  # where the image tower starts
NCE, BIASED = lift.info_nce, lift.projection_with_bias

# The table of methods, written down a second time: where the image tower starts, the text tower,
# the heads of images and of texts, the loss. PARTS, below, has what is trained.
ROWS = {
    "clip": (SCRATCH, CLIPS, lift.projection, lift.projection, NCE),
    "lift": (SCRATCH, LIFTS, lift.mlp, lift.no_head, NCE),
    "lift_ridge": (RUN, LIFTS, lift.mlp, lift.text_ridge, NCE),
    "lift_cos": (SCRATCH, LIFTS, lift.mlp, lift.no_head, lift.cosine_loss),
    "clip_sigmoid": (SCRATCH, CLIPS, lift.projection, lift.projection, lift.sigmoid_loss),
    "lift_sigmoid": (SCRATCH, LIFTS, lift.mlp, lift.no_head, lift.sigmoid_loss),
    "superclip": (SCRATCH, CLIPS, lift.projection, lift.projection, lift.info_nce_and_labels),
    "superlift": (SCRATCH, LIFTS, lift.mlp, lift.no_head, lift.info_nce_and_labels),
    "supervised": (SCRATCH, lift.WordLabels, lift.projection, lift.no_head, lift.label_loss),
    "lit": (PRETRAINED, CLIPS, lift.no_head, lift.projection, NCE),
    "clip_pretrained": (PRETRAINED, CLIPS, lift.projection, lift.projection, NCE),
    "ape": (PRETRAINED, lift.LLMTokens, lift.no_head, lift.ape, NCE),
    "sharelock": (PRETRAINED, LIFTS, lift.no_head, lift.deep_mlp, NCE),
    "ape_transformer": (PRETRAINED, lift.LLMTokens, lift.no_head, lift.ape_transformer, NCE),
    "ape_lookup": (PRETRAINED, lift.TokenTable, lift.no_head, lift.ape_lookup, NCE),
    "lilt": (PRETRAINED, lift.LiveLLM, BIASED, BIASED, NCE),
    "llm2clip": (PRETRAINED, lift.RawVectors, lift.projection, lift.adaptor, NCE),
    "ridge": (PRETRAINED, LIFTS, lift.Ridge, lift.no_head, NCE),
}


@pytest.mark.parametrize("name", ROWS)
def test_each_method_is_what_its_paper_says(name):
    method = lift.METHODS[name]
    row = (method.image, method.text, method.image_head, method.text_head, method.loss)
    assert row == ROWS[name]
    # A pretrained image tower that goes on learning does so at a tenth of the rate.
    assert method.image_lr_share == (0.1 if name in ("llm2clip", "clip_pretrained") else 1)
    start = (10, -10) if name.endswith("_sigmoid") else (pytest.approx(1 / 0.07), None)
    assert (method.scale, method.bias) == start
    assert method.labels == (name in ("superclip", "superlift"))
    assert method.adapters == (name == "lilt")


@pytest.mark.parametrize("method", ROWS)
def test_features_have_unit_length_and_scale_is_exponentiated(model, method):
    m, texts = model(method)
    out = m(torch.randn(2, 3, 32, 32), texts, IDS)
    for side in ("image_features", "text_features"):
        assert torch.allclose(out[side].norm(dim=1), torch.ones(2), atol=1e-5)
    assert out["image_features"].shape == out["text_features"].shape
    if method.endswith("_sigmoid"):
        assert out["logit_scale"].item() == pytest.approx(10) and out["logit_bias"].item() == -10
    else:
        assert out["logit_scale"].item() == pytest.approx(1 / 0.07, rel=1e-6)
        assert "logit_bias" not in out
    raw = m.encode_image(torch.randn(2, 3, 32, 32))  # open_clip's default: not normalised
    assert not torch.allclose(raw.norm(dim=1), torch.ones(2), atol=1e-2)


@contextmanager
def in_float64():
    """lift.py computes features and losses in float32. In here it computes them in float64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield


def as_float64(tensor):
    """Numbers as float64. Token ids stay as they are."""
    return tensor.double() if tensor.is_floating_point() else tensor


def distance(one, other):
    """The largest difference of two dicts of tensors, as a part of the largest number of each.

    NaN if any number is NaN: no bound holds then.
    """
    parts = [
        (one[name] - other[name]).abs().max() / other[name].abs().max().clamp_min(1e-12)
        for name in other
    ]
    return torch.stack(parts).max().item()  # Python's max may pass over NaN


@pytest.mark.parametrize("n_pieces", [1, 2, 3, 7])
@pytest.mark.parametrize("method", [name for name in ROWS if "ridge" not in name])
def test_a_batch_in_pieces_has_the_gradient_of_the_whole(model, method, n_pieces):
    """Also of the scale, the bias and the labels, and with pairs of two pieces that match."""
    m, texts = model(method)
    which = torch.arange(7) % 2
    inputs = torch.randn(7, 3, 32, 32), texts[which], IDS[which]
    duplicates = torch.eye(7, dtype=torch.bool)
    duplicates[0, 5] = duplicates[5, 0] = True

    def gradients():
        found = {n: p.grad for n, p in m.named_parameters() if p.grad is not None}
        m.zero_grad()
        return found

    def compare(inputs, loss_bound):
        """The gradients of the whole batch, and how far off those in pieces are."""
        loss_of = lift.METHODS[method].loss
        features = m(*inputs)
        loss = loss_of(**features, duplicates=duplicates)
        loss.backward()
        wanted = gradients()
        found, again = lift.backward_in_pieces(
            m, loss_of, inputs, duplicates, n_pieces, nullcontext()
        )
        in_pieces = gradients()
        assert again.item() == pytest.approx(loss.item(), rel=loss_bound)
        assert torch.allclose(found["image_features"], features["image_features"], atol=loss_bound)
        assert wanted and in_pieces.keys() == wanted.keys()
        return wanted, distance(in_pieces, wanted)

    # In float32 the rows are summed in another order, piece by piece, and both ways are rounded.
    wanted, off = compare(inputs, 1e-6)
    # In float64 it is rounded to 1e-16. A difference that is no rounding would be seen here.
    m.double()
    with in_float64():
        exact, off_in_float64 = compare(tuple(map(as_float64, inputs)), 1e-13)
    assert off_in_float64 < 1e-13
    # How much float32 rounds, the CPU decides. So the bound is how far the whole batch's own
    # gradients are from those in float64.
    assert off < 4 * distance(wanted, exact)


def test_pieces_have_gradients_in_bfloat16_too(model):
    """Autocast keeps weights that it has cast. Those cast in step 1 would have no gradient."""
    m, texts = model("clip")
    inputs = torch.randn(2, 3, 32, 32), texts, None
    duplicates = torch.eye(2, dtype=torch.bool)
    gradients = []
    for n_pieces in (1, 2):
        autocast = torch.autocast("cpu", torch.bfloat16)
        lift.backward_in_pieces(m, lift.info_nce, inputs, duplicates, n_pieces, autocast)
        gradients.append(torch.cat([p.grad.flatten() for p in m.parameters()]))
        m.zero_grad()
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999
    assert gradients[0].norm().item() == pytest.approx(gradients[1].norm().item(), rel=0.01)


# What the papers train, written down a second time, independently of the table.
HEADS = ("image_head", "text_head", "logit_scale")
PARTS = {
    "clip": ("visual", "text", *HEADS),
    "lift": ("visual", *HEADS),
    "lift_cos": ("visual", "image_head"),
    "clip_sigmoid": ("visual", "text", *HEADS, "logit_bias"),
    "lift_sigmoid": ("visual", *HEADS, "logit_bias"),
    "superclip": ("visual", "text", "label_head", *HEADS),
    "superlift": ("visual", "label_head", *HEADS),
    "supervised": ("visual", *HEADS),
    "lit": ("text", *HEADS),
    "ape": HEADS,
    "sharelock": HEADS,
    "ape_transformer": HEADS,
    "ape_lookup": ("text", *HEADS),
    "lilt": HEADS,
    "llm2clip": ("visual", *HEADS),
    "clip_pretrained": ("visual", "text", *HEADS),
    "ridge": (),
    "lift_ridge": (),
}
NORMS = (torch.nn.LayerNorm, llm_text.RMSNorm)
INSIDE = {
    "": (lift.LilTAdapter, *NORMS),
    "layernorm": NORMS,
    "bitfit": (),
    "adapters": (lift.LilTAdapter,),
    "adapters+layernorm": (lift.LilTAdapter, *NORMS),
    "all": (torch.nn.Module,),
    "heads": (),
}


def declared(m, method, unlock=""):
    """Names of the parameters that a method trains, found by part and by the module's type."""
    names = {n for n, _ in m.named_parameters()}
    found = {n for n in names if n.split(".")[0] in PARTS[method]}
    if method == "lilt":
        for prefix, module in m.named_modules():
            if prefix and isinstance(module, INSIDE[unlock]):
                found |= {n for n in names if n.startswith(prefix + ".")}
        if unlock == "bitfit":
            found |= {n for n in names if n.endswith(".bias")}
    return found


@pytest.mark.parametrize(
    "method, unlock",
    [*((m, "") for m in PARTS if "ridge" not in m), *(("lilt", u) for u in lift.UNLOCK)],
)
def test_exactly_the_declared_parameters_change(model, method, unlock):
    m, texts = model(method, unlock)
    m.train()
    before = {n: p.clone() for n, p in m.state_dict().items()}
    optimizer = torch.optim.AdamW(train.parameter_groups(m, 0.2), lr=1e-2)
    for _ in range(3):
        loss = lift.METHODS[method].loss(**m(torch.randn(2, 3, 32, 32), texts, IDS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = {n for n, p in m.state_dict().items() if not torch.equal(p, before[n])}
    assert changed == declared(m, method, unlock)
    assert all((p.grad is None) == (n not in changed) for n, p in m.named_parameters())
    for part in (m.visual, m.text, m.image_head, m.text_head):
        assert part.training == any(p.requires_grad for p in part.parameters())
    if method == "lilt" and unlock in ("", "adapters"):
        assert sum(isinstance(x, lift.LilTAdapter) for x in m.modules()) == 2 * (
            4 + len(m.text.llm.layers)
        )


@pytest.mark.parametrize("method", ["clip", "lift", "superclip", "llm2clip", "lilt"])
def test_linear_layers_start_as_glorot_and_bengio_say(model, method):
    """Biases at 0, weights even between -a and a, a^2 = 6 / (inputs + outputs)."""
    m, _ = model(method)
    ups = {a.up for a in m.modules() if isinstance(a, lift.LilTAdapter)}  # these start at 0
    for name, layer in m.named_modules():
        is_new = not name.startswith("text.llm.") and layer not in ups
        if isinstance(layer, torch.nn.Linear) and is_new:
            a = math.sqrt(6 / (layer.in_features + layer.out_features))
            assert 0.9 * a < layer.weight.abs().max() <= a, name
            assert layer.bias is None or not layer.bias.any(), name
    if method == "clip":
        assert m.text.token_embedding.weight.std().item() == pytest.approx(0.02, rel=0.2)
        assert m.text.positional_embedding.std().item() == pytest.approx(0.01, rel=0.2)


def test_every_method_is_in_the_second_tables(model):
    assert PARTS.keys() == ROWS.keys() == lift.METHODS.keys()
    for solved in ("ridge", "lift_ridge"):
        m, _ = model(solved)
        assert not any(p.requires_grad for p in m.parameters())


def test_unlock_replaces_what_a_method_trains(model):
    m, _ = model("lit", "layernorm")
    assert {n for n, p in m.named_parameters() if p.requires_grad} == {
        n
        for n, _ in m.named_parameters()
        if "norm" in n or "ln_final" in n or n.split(".")[0] in HEADS
    }


# Khan & Fu's shares at DeiT-B (256 pixels) and a BERT-base-sized text tower, in per cent.
@pytest.mark.parametrize(
    "method, unlock, share",
    [
        ("lilt", "layernorm", 0.24),
        ("lilt", "bitfit", 0.31),
        ("lilt", "adapters", 6.97),
        ("lilt", "adapters+layernorm", 7.01),
        ("lit", "", 56.0),
        ("lilt", "all", 100),
    ],
)
def test_shares_of_the_papers_at_their_sizes(monkeypatch, method, unlock, share):
    sizes = lift.Sizes(
        model="B/16",
        image_size=256,
        image_pool="tok",
        embed_dim=256,
        text_width=768,
        text_depth=12,
        text_heads=12,
        context_length=512,
    )
    # A text transformer as large as BERT stands for it.
    bert = replace(lift.METHODS[method], text=lift.TextTransformer)
    monkeypatch.setitem(lift.METHODS, method, bert)
    with torch.device("meta"):
        m = lift.TwoTower(method, sizes, [torch.empty(30521)], unlock)
    trained, everything = (
        sum(p.numel() for p in m.parameters() if p.requires_grad or whole)
        for whole in (False, True)
    )
    # (LiT's own linear head maps 768 to 768, LilT's two to 256: 56.05 in place of 55.98)
    assert 100 * trained / everything == pytest.approx(share, abs=0.005 if share < 10 else 0.1)


def test_fresh_adapters_change_nothing(model):
    plain, texts = model("lilt", "layernorm")
    adapted, _ = model("lilt", "adapters")
    missing, unknown = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert missing and all(".adapter" in n for n in missing) and not unknown
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(adapted.encode_image(images), plain.encode_image(images))
    assert torch.equal(adapted.encode_text(texts), plain.encode_text(texts))
    for p in (x.up.weight for x in adapted.modules() if isinstance(x, lift.LilTAdapter)):
        torch.nn.init.normal_(p)
    assert not torch.allclose(adapted.encode_image(images), plain.encode_image(images), atol=1e-2)
    assert not torch.allclose(adapted.encode_text(texts), plain.encode_text(texts), atol=1e-2)


def test_token_heads_leave_padding_out():
    """By hand: each token through the network, the mean over those that are there."""
    torch.manual_seed(0)
    tokens = torch.randn(2, 4, 16)
    tokens[1, 2:] = 0
    for make in (lift.ape, lift.ape_transformer, lift.ape_lookup):
        head = make(16, 6)
        assert torch.allclose(head(tokens)[0], head.net(tokens[:1])[0].mean(0), atol=1e-6)
        assert torch.allclose(head(tokens)[1], head.net(tokens[1:, :2])[0].mean(0), atol=1e-6)
        assert torch.allclose(head(F.pad(tokens, (0, 0, 0, 3))), head(tokens), atol=1e-6)
    order = torch.tensor([2, 0, 3, 1])
    mlp, transformer = lift.ape(16, 6), lift.ape_transformer(16, 6)
    assert torch.allclose(
        mlp(tokens[:1, order]), mlp(tokens[:1]), atol=1e-6
    )  # order comes from the LLM alone
    assert not torch.allclose(transformer(tokens[:1, order]), transformer(tokens[:1]), atol=1e-3)
    assert sum(isinstance(m, torch.nn.Linear) for m in mlp.modules()) == 4


def test_llm_tokens_have_unit_variance_and_keep_their_padding():
    tower, tokens = text_tower(lift.LLMTokens)
    out = tower(tokens)
    real = (tokens != 0).any(-1)
    assert (out[~real] == 0).all()
    assert torch.allclose(out[real].mean(0), torch.zeros(24), atol=1e-4)
    assert torch.allclose(out[real].var(0, unbiased=False), torch.ones(24), atol=1e-3)


def test_adaptor_normalises_first_and_has_four_residual_blocks():
    torch.manual_seed(0)
    head, x = lift.adaptor(8, 5), torch.randn(3, 8)
    assert torch.allclose(head(7 * x), head(x), atol=1e-5)
    assert torch.allclose(head(x[:1]), head(x)[:1], atol=1e-5)  # each vector by itself
    blocks = [m for m in head if isinstance(m, lift.Residual)]
    assert len(blocks) == 4
    norm, up, act, down = blocks[0].net
    y = F.normalize(x, dim=1)
    assert torch.allclose(
        blocks[0](y),
        y + F.linear(F.gelu(F.linear(norm(y), up.weight, up.bias)), down.weight, down.bias),
        atol=1e-6,
    )
    assert up.weight.shape == (16, 8)


def test_labels_are_tokens_and_neighbouring_pairs():
    ids = torch.tensor([[7, 3, 9, 7, END, PAD], [5, 3, 7, 11, END, PAD], [3, 4, END, *[PAD] * 3]])
    tower = lift.WordLabels(SIZES, *lift.WordLabels.fit(ids))

    def pair(a, b):
        return (a + 1 << 32) + b

    held = {
        4: 1,
        5: 1,
        7: 2,
        9: 1,
        11: 1,
        **{pair(*p): 1 for p in ((7, 3), (3, 9), (9, 7), (5, 3), (3, 7), (7, 11), (3, 4))},
    }
    assert dict(zip(tower.vocab.tolist(), tower.weight.tolist(), strict=True)) == pytest.approx(
        {v: math.log(3 / n) for v, n in held.items()}
    )
    assert tower.vocab.tolist() == sorted(held)  # without 3, which every caption holds
    out = tower(torch.tensor([[7, 3, 11, 8, 7, END, PAD]]))[0]
    assert {
        v: w for v, w in zip(tower.vocab.tolist(), out.tolist(), strict=True) if w
    } == pytest.approx({v: math.log(3 / held[v]) for v in (7, 11, pair(7, 3))})  # 8 is unknown
    assert lift.WordLabels.fit(ids, limit=1)[0].tolist() == [7]  # the commonest
    with pytest.raises(BadInput, match="no word that tells"):
        lift.WordLabels.fit(ids[:1])


def test_lookup_table_knows_words_only(model):
    m, ids = model("ape_lookup")
    order = torch.tensor([[9, 3, 7, END, PAD]])
    assert torch.allclose(m.encode_text(order), m.encode_text(ids[:1]), atol=1e-6)
    unknown = torch.tensor([[9, 3, 1234, 7, END]])
    assert torch.allclose(m.encode_text(unknown), m.encode_text(ids[:1]), atol=1e-6)
    assert m.text.vocab.tolist() == [
        PAD,
        END,
        3,
        5,
        7,
        9,
        11,
    ] and m.text.token_embedding.weight.shape == (8, 16)
    wanted = m.text_head.net(m.text.token_embedding(torch.tensor([4, 2, 5])).mean(0))  # 7, 3, 9
    assert torch.allclose(m.encode_text(ids[:1])[0], wanted, atol=1e-5)
    nothing = m.encode_text(
        torch.tensor([[1234, 999, END]]), normalize=True
    )  # no word is known: no answer, but no NaN for all others
    assert torch.equal(nothing, torch.zeros_like(nothing))


@pytest.mark.parametrize("method", ["superclip", "superlift"])
def test_labels_stand_beside_the_features_and_need_no_text(model, method):
    m, texts = model(method)
    images = torch.randn(2, 3, 32, 32)
    out = m(images, texts, IDS)
    weights = lift.WordLabels(SIZES, *lift.WordLabels.fit(IDS))(IDS)
    assert torch.equal(out["label_weights"], weights) and weights.any()
    scores = m.label_head(m.visual(images))
    assert torch.equal(out["label_scores"], scores) and scores.shape == weights.shape
    assert torch.equal(out["image_features"], m.encode_image(images, normalize=True))
    assert torch.equal(out["text_features"], m.encode_text(texts, normalize=True))


def test_live_llm_is_the_mean_of_its_first_blocks(tiny_llm_folder):
    llama = lift.live_llama(llm_text.TextSource(llm=str(tiny_llm_folder)))
    tower, ids = lift.LiveLLM(SIZES, llama=llama), IDS
    llm = llm_text.load_llm(tiny_llm_folder)
    for row, length in ((0, 3), (1, 4)):
        h = llm.model(ids[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool), 1)
        assert torch.allclose(tower(ids)[row], llm.model.norm(h)[0, 1:].mean(0), atol=1e-5)
    assert len(tower.llm.layers) == 1  # a third of two


def test_optimizer_gets_every_trained_parameter_once_and_decays_matrices_only(model):
    m, _ = model("llm2clip")
    groups = train.parameter_groups(m, 0.2, image_lr_share=0.1)
    names = {id(p): n for n, p in m.named_parameters()}
    got = [names[id(p)] for g in groups for p in g["params"]]
    assert sorted(got) == sorted(n for n in names.values() if not n.startswith("text."))
    free = {names[id(p)] for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert {"logit_scale", "visual.pos_embed", "visual.norm.weight", "text_head.5.weight"} <= free
    assert not any(n.endswith(("qkv.weight", "fc1.weight", "image_head.weight")) for n in free)
    assert {g["weight_decay"] for g in groups} == {0.2, 0.0}
    for g in groups:
        assert {names[id(p)].startswith("visual.") for p in g["params"]} == {g["lr_share"] == 0.1}
    assert len(train.parameter_groups(model("clip")[0], 0.2)) == 2


@pytest.mark.reference
def test_text_transformer_equals_transformers_clip():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    tower, ids = text_tower(lift.TextTransformer)
    for p in tower.parameters():
        p.data.add_(torch.randn_like(p) * 0.2)
    size = len(tower.vocab)
    config = transformers.CLIPTextConfig(
        vocab_size=size + 1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=12,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        bos_token_id=size,
        pad_token_id=0,
        eos_token_id=tower.vocab.tolist().index(END),
    )
    theirs = transformers.CLIPTextModel(config).eval()
    state = {
        "embeddings.token_embedding.weight": tower.token_embedding.weight,
        "embeddings.position_embedding.weight": tower.positional_embedding[0],
        **{f"final_layer_norm.{k}": v for k, v in tower.ln_final.state_dict().items()},
    }
    for i, block in enumerate(tower.blocks):
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", getattr(block.attn.qkv, kind).chunk(3), strict=True):
                state[f"encoder.layers.{i}.self_attn.{name}_proj.{kind}"] = part
            for ours, name in (
                (block.attn.proj, "self_attn.out_proj"),
                (block.norm1, "layer_norm1"),
                (block.norm2, "layer_norm2"),
                (block.mlp.fc1, "mlp.fc1"),
                (block.mlp.fc2, "mlp.fc2"),
            ):
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
    longer = F.pad(ids, (0, 3), value=PAD)
    assert torch.allclose(tower(ids), tower(longer), atol=1e-6)  # padding changes nothing
    swapped = ids.clone()
    swapped[1, 0], swapped[1, 1] = 3, 5
    assert not torch.allclose(tower(ids)[1], tower(swapped)[1], atol=1e-4)  # word order does
    other = ids.clone()
    other[1, 0] = 12345
    unknown = other.clone()
    unknown[1, 0] = 1  # another word that the vocabulary lacks
    # Each unknown word has a vector of its own, which is never trained.
    assert not torch.equal(tower(other)[1], tower(unknown)[1])
    assert not torch.equal(tower(other)[1], tower(ids)[1])
    assert "unknown" not in tower.state_dict()
    torch.manual_seed(1)  # it does not depend on the seed of the run
    assert torch.equal(tower.unknown, lift.TextTransformer(SIZES, tower.vocab).unknown)


def test_text_transformer_is_read_where_the_first_end_stands():
    """Embeddings, positions and causal blocks, one after the other, then the state at END."""
    tower, ids = text_tower(lift.TextTransformer)
    torch.nn.init.normal_(tower.ln_final.weight)
    places = [[tower.vocab.tolist().index(i) for i in row] for row in ids.tolist()]
    x = tower.token_embedding.weight[torch.tensor(places)] + tower.positional_embedding[:, :5]
    for block in tower.blocks:
        assert block.attn.causal
        x = block(x)
    wanted = tower.ln_final(torch.stack([x[0, 3], x[1, 4]]))  # where END stands in IDS
    assert torch.allclose(tower(ids), wanted, atol=1e-6)


def test_llm_vectors_are_whitened_training_captions():
    torch.manual_seed(0)
    vectors = some_inputs(lift.LLMVectors)
    tower = lift.LLMVectors(SIZES, *lift.LLMVectors.fit(vectors, 8, power=1))
    out = tower(vectors)
    assert torch.allclose(out.mean(0), torch.zeros(8), atol=1e-4)
    assert torch.allclose(out.T @ out / len(out), torch.eye(8), atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tower(vectors), out)


@pytest.mark.parametrize("method", ROWS)
def test_load_gives_back_the_model_that_was_trained(small, method):
    start = Path(small["out"]).parent / "tower.pt"
    if lift.METHODS[method].image == "pretrained":
        torch.save(vit.ViT("micro/16", 32).state_dict(), start)
        small["image_weights"] = str(start)
    if lift.METHODS[method].image == "run":
        train.train(train.Config(**small))
        Path(small["out"], "checkpoint.pt").rename(start)
        small["init_from"] = str(start)
    train.train(train.Config(method=method, **small))
    start.unlink(missing_ok=True)  # a run needs it no more
    m, transform, tokenize = lift.load(small["out"])
    red = Image.new("RGB", (50, 40), "red")
    image = transform(red)
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32
    assert image[:, 0, 0].tolist() == pytest.approx(
        [
            (v - mean) / std
            for v, mean, std in zip((1, 0, 0), *pixels.PIXEL_NORMS["clip"], strict=True)
        ],
        abs=1e-5,
    )
    texts = tokenize(["a large red circle", "a small blue square"])
    with torch.no_grad():
        a, b = (
            m.encode_image(image[None], normalize=True),
            m.encode_text(texts.to("cpu"), normalize=True),
        )
    assert a.shape[1] == b.shape[1] and len(b) == 2 and not m.training
    again = copy.deepcopy(m)
    again.load_state_dict(read_run(small["out"])["model"])
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


def test_load_refuses_other_vectors_of_images(small, tmp_path):
    """A run keeps the fingerprint of the vectors that stood for its image tower."""
    path, names = tmp_path / "v.npy", read_images("shapes", "train", 8, num_samples=64).names
    path.with_suffix(".txt").write_text("".join(f"{name}\n" for name in names))
    np.save(path, np.random.default_rng(0).normal(size=(64, 5)))
    train.train(train.Config(**{**small, "steps": 1}, method="lit", image_features=str(path)))
    assert lift.load(small["out"])[0].visual.width == 5
    np.save(path, np.random.default_rng(1).normal(size=(64, 5)))
    with pytest.raises(BadInput, match="trained with other vectors than"):
        lift.load(small["out"])


def test_heads_by_hand():
    torch.manual_seed(0)
    x, head = torch.randn(2, 3), lift.mlp(3, 5)
    wanted = F.gelu(x @ head[0].weight.T + head[0].bias) @ head[2].weight.T + head[2].bias
    assert torch.allclose(head(x), wanted, atol=1e-6)
    deep = lift.deep_mlp(3, 5)
    wanted = x
    for i in (0, 2, 4):
        wanted = F.gelu(wanted @ deep[i].weight.T + deep[i].bias)
    wanted = wanted @ deep[6].weight.T + deep[6].bias
    assert torch.allclose(deep(x), wanted, atol=1e-6) and len(deep) == 7
    assert list(lift.projection(3, 5).state_dict()) == ["weight"]
    assert list(lift.projection_with_bias(3, 5).state_dict()) == ["weight", "bias"]
    assert lift.no_head(3, 3)(x) is x


def test_ridge_is_least_squares_with_a_penalty():
    torch.manual_seed(0)
    X, T = torch.randn(50, 6), torch.randn(50, 4)
    X[:, 5] = 2 * X[:, 4]  # a direction without variance: without the penalty nothing fits best
    head = lift.Ridge(6, 4)
    head.solve((X[i : i + 16], T[i : i + 16]) for i in range(0, 50, 16))
    wanted = ridge_by_least_squares(X, T)
    assert torch.allclose(head.weight.T.double(), wanted, atol=1e-6)
    assert torch.allclose(head(X).double(), X.double() @ wanted, atol=1e-5)


def test_checkpoint_errors(tmp_path):
    with pytest.raises(BadInput, match="not the folder of a trained run"):
        lift.load(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(BadInput, match="damaged"):
        lift.load(tmp_path)
    # Eight bytes near the end of the file say where its directory lies.
    torch.save({}, tmp_path / "checkpoint.pt")
    content = bytearray((tmp_path / "checkpoint.pt").read_bytes())
    content[-50:-42] = b"\xff" * 8
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(BadInput, match="checkpoint.pt: damaged"):
        lift.load(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(BadInput, match="another program"):
        lift.load(tmp_path)


def test_operations_are_counted_as_by_hand():
    """A multiply-add is two; backward is twice forward, less the gradient of the pixels."""
    setting, llm = flops.SETTINGS["paper"], flops.LLMS["paper"]
    pixel_gradient = 2 * 196 * 768 * 768
    n, d, layers = 197, 768, 12
    image = 2 * (196 * 768 * d + layers * (12 * n * d * d + 2 * n * n * d) + d * 512)
    n, d = 77, 512
    text = 2 * (layers * (12 * n * d * d + 2 * n * n * d) + d * 512)
    counted, trained = flops.training_step("clip", setting, 77)
    assert counted == pytest.approx(3 * (image + text) - pixel_gradient, rel=1e-6)
    assert trained == pytest.approx(149.6e6, rel=1e-3)  # as open_clip's ViT-B-16 has
    # LIFT has no class token and a larger head, and its text costs nothing.
    n, d = 196, 768
    lifted = 2 * (n * 768 * d + layers * (12 * n * d * d + 2 * n * n * d) + d * 4096 + 4096 * 4096)
    counted, _ = flops.training_step("lift", setting, 77)
    assert counted == pytest.approx(3 * lifted - pixel_gradient, rel=1e-6)
    # One caption through the language model: 32 blocks of a Mistral 7B.
    weights = 4096 * (4096 * 2 + 1024 * 2 + 3 * 14336)
    attention = 2 * 77 * 4096
    read_once = 77 * 2 * 32 * (weights + attention)
    assert flops.reading(llm, 77) == pytest.approx(read_once, rel=1e-6)


@pytest.mark.parametrize("method", ["lift", "clip", "supervised"])
def test_an_exported_run_is_the_run(small, tmp_path, method, capsys, monkeypatch):
    train.train(train.Config(method=method, **small))
    monkeypatch.setattr(sys, "argv", ["export", small["out"], str(tmp_path / "x.safetensors")])
    data.files.export.main()
    images, texts = torch.randn(2, 3, 32, 32), ["a red circle", "b"]
    outs = []
    for run in (small["out"], tmp_path / "x.safetensors"):
        model, transform, tokenize = lift.load(run)
        with torch.no_grad():
            outs.append((model.encode_image(images), model.encode_text(tokenize(texts))))
    assert all(torch.equal(a, b) for a, b in zip(*outs, strict=True))
    metadata, tensors = read_safetensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["visual.norm.weight"].decode(), model.visual.norm.weight)
    assert json.loads(metadata["lift"])["config"]["method"] == method
    data.files.export.main()  # over the first file
    monkeypatch.setattr(sys, "argv", ["export", small["out"], f"{__file__}/x.safetensors"])
    with pytest.raises(BadInput, match="the folder .* is a file and no folder"):
        data.files.export.main()


@pytest.mark.reference
def test_the_library_reads_an_exported_run(small, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    train.train(train.Config(method="lift", **small))
    data.files.export.export(small["out"], tmp_path / "x.safetensors")
    model, _, _ = lift.load(small["out"])
    with safetensors.safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("visual.norm.weight"), model.visual.norm.weight)
        assert json.loads(file.metadata()["lift"])["config"]["method"] == "lift"


def test_an_exported_tower_has_timms_names_and_loads_back(small, tmp_path):
    train.train(train.Config(**small))
    data.files.export.export(small["out"], tmp_path / "tower.safetensors", tower_only=True)
    _, tensors = read_safetensors(tmp_path / "tower.safetensors")
    state = {name: stored.decode() for name, stored in tensors.items()}
    assert (
        state["patch_embed.proj.weight"].shape == (192, 3, 16, 16)
        and "blocks.3.mlp.fc2.bias" in state
    )
    ours, tower = lift.load(small["out"])[0].visual, vit.ViT("micro/16", 32)
    load_vit(tower, tmp_path / "tower.safetensors")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(tower(images), ours(images))
    kernel = torch.nn.functional.conv2d(
        images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], 16
    )
    assert torch.allclose(
        kernel.flatten(2).transpose(1, 2), ours.patch_embed(images), atol=1e-5
    )  # as a convolution, too


@pytest.fixture
def damaged(small):
    """A run of CLIP. Call it with a change of its checkpoint: lift.load must refuse the run."""
    train.train(train.Config(method="clip", **small))
    path = Path(small["out"]) / "checkpoint.pt"
    whole = path.read_bytes()

    def refusal(change):
        checkpoint = torch.load(io.BytesIO(whole), weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, path)
        with pytest.raises(BadInput) as refused:
            lift.load(small["out"])
        message = str(refused.value)
        assert message.startswith(small["out"]) and "\n" not in message
        return message

    return refusal


def test_damaged_runs_are_told_in_one_line(damaged):
    """A checkpoint of another version, or with wrong parts, names what is wrong."""

    def setting(name, value):
        return lambda c: c["config"].update({name: value})

    def weight(value):
        return lambda c: c["model"].update({"visual.norm.weight": value})

    for change, says in (
        (lambda c: c["config"].pop("image_pool"), "the setting image_pool is missing"),
        (lambda c: c["config"].pop("unlock"), "unlock"),
        (setting("method", "none"), "none"),
        (setting("method", ["clip"]), "corrupt"),
        (setting("image_size", "32"), "the setting image_size is '32', not of type int"),
        (setting("layer", 1.5), "the setting layer is 1.5, not of type int"),
        (setting("text_width", -32), "no model has such sizes"),
        (setting("text_heads", 3), "no model has such sizes"),
        (setting("text_depth", 10**9), "no model has such sizes"),
        (setting("text_width", 1 << 31), "no model has such sizes"),
        (setting("embed_dim", 1 << 31), "image_head.weight has shape"),
        (setting("image_size", 1 << 20), "visual.pos_embed has shape"),
        (lambda c: c.update(config=[1]), "damaged: config is of type list, not dict"),
        (lambda c: c.update(step="6"), "damaged: step is of type str, not int"),
        (lambda c: c.update(seen=[1]), "damaged: seen is of type list, not Tensor"),
        (lambda c: c.update(optimizer=None), "damaged: optimizer is of type NoneType, not dict"),
        (lambda c: c.update(cost={"images": "x"}), "its cost has no number for"),
        (lambda c: c["curve"].append([]), "an entry of its validation curve lacks a number"),
        (lambda c: c["curve"][0].pop("val"), "an entry of its validation curve lacks a number"),
        (lambda c: c["curve"][0]["val"].update(pairs=0), "an entry of its validation curve"),
        (lambda c: c["curve"][0]["train"].update(loss=None), "an entry of its validation curve"),
        (lambda c: c["model"].pop("visual.norm.weight"), "visual.norm.weight has shape none"),
        (lambda c: c["model"].update({"logit_scale": torch.ones(2)}), "logit_scale has shape"),
        (lambda c: c["model"].update({7: torch.ones(2)}), "weight 7 is no tensor"),
        (weight([1.0]), "weight 'visual.norm.weight' is no tensor of finite numbers"),
        (weight(torch.ones(192).double()), "is no tensor of finite numbers"),
        (weight(torch.full((192,), math.nan)), "is no tensor of finite numbers"),
        (weight(torch.ones(192).to_sparse()), "no plain table of numbers"),
        (weight(torch.ones(192, device="meta")), "no plain table of numbers"),
    ):
        assert says in damaged(change), says


def test_a_size_that_a_run_does_not_use_may_be_any(small):
    train.train(train.Config(method="lift", **small | {"text_depth": 500, "embed_dim": 10**6}))
    assert lift.load(small["out"])[0].image_head[2].out_features == 8


def test_an_exported_run_whose_configuration_is_damaged_is_refused(small, tmp_path):
    """Read by eval.py, which looks at more of it than lift.load."""
    train.train(train.Config(method="clip", **small))
    path = tmp_path / "x.safetensors"
    data.files.export.export(small["out"], path)
    metadata, stored = read_safetensors(path)
    tensors = {name: tensor.decode() for name, tensor in stored.items()}
    for change, says in (
        (lambda run: run["config"].pop("context_length"), "context_length is missing"),
        (lambda run: run["config"].update(embed_dim=True), "the setting embed_dim is True"),
        (lambda run: run.update(config=None), "config is of type NoneType, not dict"),
        (lambda run: run.update(cost=[]), "cost is of type list, not dict"),
        (lambda run: run.pop("step"), "another program"),
    ):
        saved = json.loads(metadata["lift"])
        change(saved)
        write_safetensors(path, tensors, {"lift": json.dumps(saved)})
        with pytest.raises(BadInput, match=f"x.safetensors: .*{says}"):
            Run(path)


def test_what_cannot_be_exported_or_resumed_is_told(small, tmp_path):
    train.train(train.Config(**small))
    data.files.export.export(small["out"], tmp_path / "x.safetensors")
    with pytest.raises(BadInput, match="that is a file; name the folder of a run"):
        train.train(train.from_cli(["--resume", str(tmp_path / "x.safetensors")]))
    checkpoint = read_run(small["out"])
    state = {name: t for name, t in checkpoint["model"].items() if not name.startswith("visual.")}
    with pytest.raises(BadInput, match="no image tower"):
        data.files.export.image_tower(state)
    with pytest.raises(BadInput, match="adapters"):
        name = "visual.blocks.0.adapter1.up.bias"
        data.files.export.image_tower(checkpoint["model"] | {name: torch.zeros(1)})


def test_an_exported_tower_is_no_run(small, tmp_path):
    train.train(train.Config(**small))
    data.files.export.export(small["out"], tmp_path / "tower.safetensors", tower_only=True)
    with pytest.raises(BadInput, match="tower.safetensors: holds no run; .* --image-weights"):
        lift.load(tmp_path / "tower.safetensors")


@pytest.mark.parametrize(
    "content, says", [(b"", "truncated"), (b"x" * 99, "truncated"), (None, "no such file")]
)
def test_exports_that_cannot_be_loaded(tmp_path, content, says):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=f"x.safetensors: .*{says}"):
        lift.load(path)


def test_unknown_ids_get_the_place_after_the_vocabulary():
    vocab = torch.tensor([2, 5, 9])
    assert lift.positions_in(vocab, torch.tensor([9, 4, 2, 99, -7])).tolist() == [2, 3, 0, 3, 3]


def test_parts_of_the_model_by_name():
    names = {
        "visual.blocks.0.norm1.weight": {"visual", "norms"},
        "text.llm.layers.0.input_layernorm.weight": {"text", "norms"},
        "text.ln_final.bias": {"text", "norms", "biases"},
        "visual.blocks.0.adapter1.up.bias": {"visual", "biases", "adapters"},
        "image_head.weight": {"image_head"},
        "logit_scale": {"logit_scale"},
        "logit_bias": {"logit_scale", "biases"},
        "label_head.bias": {"image_head", "biases"},
    }
    kinds = ("visual", "text", "image_head", "text_head", "logit_scale")
    for name, wanted in names.items():
        parts = {p for p in (*kinds, "norms", "biases", "adapters") if lift.is_in_part(name, p)}
        assert parts == wanted


def test_methods_begin_with_the_same_image_tower():
    towers = []
    for name, fitted in (
        ("clip", lift.TextTransformer.fit(IDS)),
        ("lift", (torch.zeros(24), torch.eye(24))),
    ):
        torch.manual_seed(0)
        towers.append(lift.TwoTower(name, SIZES, fitted).visual.state_dict())
    assert all(torch.equal(towers[0][name], weight) for name, weight in towers[1].items())


def test_losses_of_features_in_half_precision_are_float32():
    torch.manual_seed(0)
    image, text = (F.normalize(torch.randn(64, 32), dim=1).bfloat16() for _ in range(2))
    for loss in (lift.info_nce, lift.cosine_loss):
        half = loss(image, text, torch.tensor(100.0))
        assert half.dtype == torch.float32
        assert half.item() == loss(image.float(), text.float(), torch.tensor(100.0)).item()


def test_a_batch_without_any_label_costs_nothing():
    scores = torch.randn(2, 3, requires_grad=True)
    loss = lift.label_loss(scores, torch.zeros(2, 3), torch.tensor(5.0))
    loss.backward()
    assert loss.item() == 0 and not scores.grad.any()


def test_fits_in_pieces_are_those_of_the_whole(monkeypatch):
    torch.manual_seed(0)
    tokens = torch.randn(40, 5, 24)
    tokens[::2, 3:] = 0
    ids = torch.randint(6, (40, 4))
    ids[:, 3] = END
    ids[5, 2], ids[5, 3] = END, PAD
    fits = ((lift.LLMTokens, tokens), (lift.TextTransformer, ids), (lift.WordLabels, ids))
    whole = [tower.fit(x, directions=0) for tower, x in fits]
    monkeypatch.setattr(lift, "chunks", lambda rows, size=0: chunks(rows, 7))
    for (tower, x), wanted in zip(fits, whole, strict=True):
        for a, b in zip(tower.fit(x, directions=0), wanted, strict=True):
            assert torch.allclose(a, b, atol=1e-6), tower


def test_a_dimension_that_never_varies_divides_nothing_by_0():
    tokens = torch.randn(40, 5, 24)
    tokens[..., 3] = 2
    assert lift.LLMTokens(SIZES, *lift.LLMTokens.fit(tokens))(tokens).isfinite().all()


def test_heads_of_the_control_of_ape():
    assert [lift.ape_transformer(d, 6).net[1].attn.heads for d in (16, 24, 576)] == [8, 4, 8]


def test_a_live_language_model_keeps_the_blocks_that_were_asked_for(tiny_llm_folder):
    source = llm_text.TextSource(llm=str(tiny_llm_folder), layer=2)
    assert len(lift.live_llama(source).layers) == 2
