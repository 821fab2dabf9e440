"""Unit 4, the table: tests of is_in_part, LLMVectors and TwoTower in lift.py, and of
parameter_groups in train.py.

The tests of TwoTower put small layers in place of the towers, without its constructor. So a mistake
in another task costs no points here.
"""

import math
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

import lift
import train


def numbers(*shape, seed):
    """Random numbers, the same in every run, float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(one, other, tolerance=1e-4):
    return one.shape == other.shape and bool(((one - other).abs() <= tolerance).all())


# --------------------------------------------------------------------------------------------------
# 4.1 is_in_part


def check(part, inside, outside):
    for name in inside:
        assert lift.is_in_part(name, part), f"the parameter {name} belongs to the part {part!r}"
    for name in outside:
        assert not lift.is_in_part(name, part), (
            f"the parameter {name} does not belong to the part {part!r}"
        )


def test_parts_by_name():
    check(
        "visual",
        ["visual.pos_embed", "visual.blocks.0.attn.qkv.weight", "visual.norm.bias"],
        ["text.token_embedding.weight", "image_head.0.weight", "logit_scale"],
    )
    check("image_head", ["image_head.0.weight", "image_head.2.bias"], ["visual.norm.weight"])
    check("logit_scale", ["logit_scale"], ["visual.norm.weight", "text_head.weight"])


def test_text_and_text_head_are_two_parts():
    check("text", ["text.positional_embedding", "text.blocks.1.mlp.fc1.bias"], ["text_head.weight"])
    check("text_head", ["text_head.weight"], ["text.positional_embedding", "image_head.weight"])


def test_the_row_lift_trains_what_it_declares():
    """The constructor of TwoTower asks is_in_part about every parameter."""
    mean, matrix = numbers(12, seed=1), numbers(12, 8, seed=2)
    model = lift.TwoTower("lift", lift.Sizes(image_size=32), (mean, matrix))
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"visual", "image_head", "logit_scale"}, (
        "LIFT trains the image tower, its head and the scale, but with your function it trains "
        f"{sorted(trained)}"
    )
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert not frozen, f"of LIFT's parameters {frozen[0]} and others get no gradient"

    model = lift.TwoTower("lift_cos", lift.Sizes(image_size=32), (mean, matrix))
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["logit_scale"], (
        f"with the cosine loss the scale alone is not trained, but with your function {frozen} is not"
    )


def test_norms_of_both_towers():
    check(
        "norms",
        [
            "visual.blocks.0.norm1.weight",
            "visual.blocks.3.norm2.bias",
            "visual.norm.weight",
            "visual.norm_pre.weight",
            "text.ln_final.weight",
            "text.llm.layers.0.input_layernorm.weight",
            "text.llm.norm.weight",
        ],
        ["visual.blocks.0.mlp.fc1.bias", "image_head.weight", "text.token_embedding.weight"],
    )


def test_biases_of_every_kind():
    check(
        "biases",
        ["visual.blocks.0.attn.qkv.bias", "visual.norm.bias", "image_head.bias"],
        ["visual.blocks.0.attn.qkv.weight", "visual.pos_embed", "logit_scale"],
    )


def test_adapters_of_both_towers():
    check(
        "adapters",
        ["visual.blocks.0.adapter1.down.weight", "text.llm.layers.1.adapter2.up.bias"],
        ["visual.blocks.0.attn.qkv.weight", "text.llm.layers.1.mlp.up_proj.weight"],
    )


def test_what_goes_with_another_part():
    check("logit_scale", ["logit_bias"], [])
    check("image_head", ["label_head.weight", "label_head.bias"], [])
    check("text_head", [], ["label_head.weight", "logit_bias"])


# --------------------------------------------------------------------------------------------------
# 4.2 TwoTower.train


def two_tower(frozen=("text",), seed=10):
    """A TwoTower of small layers: images (B, 6) or (B, 1, 2, 3), texts (B, 5), D = 4."""
    model = lift.TwoTower.__new__(lift.TwoTower)
    nn.Module.__init__(model)
    model.visual = nn.Sequential(nn.Flatten(), nn.Linear(6, 7), nn.Dropout(0.5))
    model.image_head = nn.Linear(7, 4)
    model.text = nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.5))
    model.text_head = nn.Linear(5, 4)
    model.logit_scale = nn.Parameter(torch.tensor(math.log(14.0)))
    model.logit_bias = None
    model.labels = None
    for i, parameter in enumerate(model.parameters()):
        if parameter.ndim:
            parameter.data = numbers(*parameter.shape, seed=seed + i)
    for name in frozen:
        getattr(model, name).requires_grad_(False)
    for part in model.modules():  # without the student's train()
        part.training = False
    return model


def test_frozen_parts_stay_in_eval_mode():
    model = two_tower(frozen=("text",))
    model.train()
    assert model.training, "the model itself is in training mode after train()"
    assert model.visual.training and model.visual[2].training, (
        "the image tower has trained parameters, so train() must reach it and what is in it"
    )
    assert not model.text.training and not model.text[1].training, (
        "the text tower has no trained parameter, so it must stay in eval mode, and its dropout, too"
    )


def test_eval_mode_reaches_all_parts():
    model = two_tower()
    model.train()
    model.train(False)
    left = [name for name, part in model.named_modules() if part.training]
    assert not left, f"after train(False) these parts are still in training mode: {left}"
    model.train()
    model.eval()
    left = [name for name, part in model.named_modules() if part.training]
    assert not left, (
        f"eval() calls train(False), and these parts are still in training mode: {left}"
    )


def test_frozen_dropout_changes_nothing():
    model, x = two_tower(frozen=("visual",)), numbers(4, 6, seed=11)
    before = model.visual(x)
    model.train()
    assert torch.equal(model.visual(x), before), (
        "a frozen tower must give the same numbers in training, bit for bit: its dropout is on"
    )
    assert model.text[1].training, "the other tower is trained, so its dropout is on"


def test_a_part_that_is_trained_a_little_is_in_training_mode():
    model = two_tower(frozen=("visual", "text"))
    model.text[0].bias.requires_grad_(True)
    model.train()
    assert model.text.training and not model.visual.training, (
        "one trained parameter is enough: only parts without any stay in eval mode"
    )
    model.text_head = nn.Identity()
    model.train()
    assert not model.text_head.training, "a part without parameters has no trained one"


def test_train_returns_the_model():
    model = two_tower()
    assert model.train() is model and model.train(False) is model, (
        "train() returns the model, as that of nn.Module does: `model.to(device).train()`"
    )


# --------------------------------------------------------------------------------------------------
# 4.3 parameter_groups


class Model(nn.Module):
    """Parameters of 0, 1, 2 and 3 dimensions, inside an image tower and outside, two frozen."""

    def __init__(self):
        super().__init__()
        self.visual = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        self.visual.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.visual_words = nn.Linear(2, 6)  # not in the image tower
        self.text = nn.Linear(3, 3)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.text.requires_grad_(False)


def of_each(model, *arguments):
    """{name of a parameter: (weight decay, share of the rate)} of those in the groups."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for group in train.parameter_groups(model, *arguments):
        assert {"params", "weight_decay", "lr_share"} <= set(group), (
            "a group has the keys params, weight_decay and lr_share"
        )
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert name not in found, f"{name} is in the groups twice: AdamW would move it twice"
            found[name] = (group["weight_decay"], group["lr_share"])
    return found


def test_each_trained_parameter_is_in_one_group():
    model = Model()
    found = of_each(model, 0.2)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    missing, frozen = sorted(trained - set(found)), sorted(set(found) - trained)
    assert not missing, (
        f"these trained parameters are in no group, so they would not move: {missing}"
    )
    assert not frozen, f"these frozen parameters are in a group: {frozen}"


def test_only_matrices_get_weight_decay():
    model = Model()
    for name, (decay, _) in of_each(model, 0.2).items():
        dimensions = dict(model.named_parameters())[name].ndim
        expected = 0.2 if dimensions == 2 else 0.0
        assert decay == expected, (
            f"{name} has {dimensions} dimensions and gets the weight decay {decay}, not {expected}: "
            "only matrices get it, and neither biases, norms and the scale, nor position embeddings"
        )


def test_the_image_tower_has_its_share_of_the_rate():
    for name, (_, share) in of_each(Model(), 0.2, 0.1).items():
        expected = 0.1 if name.startswith("visual.") else 1.0
        assert share == expected, f"{name} has the share {share} of the rate, not {expected}"
    shares = {share for _, share in of_each(Model(), 0.2).values()}
    assert shares == {1.0}, "without image_lr_share all parts have the whole rate"


def test_groups_of_a_frozen_model():
    model = Model().requires_grad_(False)
    assert of_each(model, 0.2) == {}, "where nothing is trained, no parameter is in a group"
    model.logit_scale.requires_grad_(True)
    assert of_each(model, 0.2) == {"logit_scale": (0.0, 1.0)}, "only the scale is trained here"


def test_groups_with_a_share_by_name():
    found = of_each(Model(), 0.3, 0.5)
    assert found["visual.0.weight"] == (0.3, 0.5) and found["visual.1.weight"] == (0.0, 0.5), (
        "weight decay and the share of the rate are independent of each other"
    )
    assert found["visual_words.weight"] == (0.3, 1.0), (
        "visual_words is not in the image tower, although its name begins like it"
    )
    for wd in (0.0, 0.3):
        groups = train.parameter_groups(Model(), wd, 0.5)
        assert len(groups) <= 4, "there are four kinds of parameters at most, so four groups"


# --------------------------------------------------------------------------------------------------
# 4.4 LLMVectors.forward


def test_text_tower_by_hand():
    mean, matrix = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0, 2.0], [3.0, 1.0, 0.0]])
    tower = lift.LLMVectors(lift.Sizes(), mean, matrix)
    y = tower(torch.tensor([[2.0, 4.0], [1.0, 2.0]]))
    assert y.shape == (2, 3), f"one vector of the matrix's width: (2, 3), but yours is {y.shape}"
    assert same(y, torch.tensor([[7.0, 2.0, 2.0], [0.0, 0.0, 0.0]])), (
        f"t = (x - mean) @ matrix gives [[7, 2, 2], [0, 0, 0]], but yours is {y.tolist()}"
    )


def test_text_tower_of_the_mean_vector():
    mean, matrix = 10 * numbers(6, seed=20), numbers(6, 4, seed=21)
    tower = lift.LLMVectors(lift.Sizes(), mean, matrix)
    assert same(tower(mean.expand(3, 6)), torch.zeros(3, 4)), (
        "the mean vector must become 0: subtract it before the matrix is applied"
    )


def test_text_tower_in_float32():
    mean, matrix = 80 + numbers(16, seed=22), 5 * numbers(16, 8, seed=23)
    tower, x = lift.LLMVectors(lift.Sizes(), mean, matrix), mean + 0.2 * numbers(4, 16, seed=24)
    expected = ((x.double() - mean.double()) @ matrix.double()).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = tower(x)
    assert y.dtype == torch.float32 and same(y, expected, 2e-2), (
        "under autocast the matrix is applied in bfloat16, which rounds small directions away: "
        "switch autocast off here"
    )
    y = tower(x.half())
    expected = ((x.half().double() - mean.double()) @ matrix.double()).float()
    assert y.dtype == torch.float32 and same(y, expected, 2e-2), (
        "the cache keeps vectors in float16: make them float32 first"
    )


def test_text_tower_of_other_sizes():
    for D, k in ((3, 3), (8, 2), (2, 1)):
        mean, matrix, x = numbers(D, seed=25), numbers(D, k, seed=26), numbers(5, D, seed=27)
        y = lift.LLMVectors(lift.Sizes(), mean, matrix)(x)
        assert same(y, x @ matrix - mean @ matrix), "the text tower gives (x - mean) @ matrix"


# --------------------------------------------------------------------------------------------------
# 4.5 TwoTower.forward


IMAGES, TEXTS = numbers(3, 1, 2, 3, seed=30), numbers(3, 5, seed=31)


def features_by_hand(model):
    image = model.image_head(model.visual(IMAGES))
    text = model.text_head(model.text(TEXTS))
    return image / image.norm(dim=1, keepdim=True), text / text.norm(dim=1, keepdim=True)


def test_model_gives_what_the_loss_takes():
    model = two_tower()
    out = model(IMAGES, TEXTS)
    assert set(out) == {"image_features", "text_features", "logit_scale"}, (
        "without bias and labels the result has image_features, text_features and logit_scale, but "
        f"yours has {sorted(out)}"
    )
    image, text = features_by_hand(model)
    assert same(out["image_features"], image), "the image features are those of tower and head"
    assert same(out["text_features"], text), "the text features are those of tower and head"
    loss = lift.sigmoid_loss(**out, logit_bias=torch.tensor(-10.0))
    loss.backward()
    assert model.visual[1].weight.grad is not None, "no gradient reaches the image tower"


def test_features_have_unit_length():
    out = two_tower(seed=40)(10 * IMAGES, 10 * TEXTS)
    for name in ("image_features", "text_features"):
        assert same(out[name].norm(dim=1), torch.ones(3)), (
            f"{name} must have the length 1: the losses take their products for cosines"
        )


def test_the_scale_is_exponentiated():
    scale = two_tower()(IMAGES, TEXTS)["logit_scale"]
    assert abs(float(scale) - 14) < 1e-3, (
        f"the parameter is the logarithm of the scale 14, but the loss gets {float(scale):.3f}"
    )


def test_model_with_a_bias():
    model = two_tower(seed=50)
    model.logit_bias = nn.Parameter(torch.tensor(-10.0))
    out = model(IMAGES, TEXTS)
    assert set(out) == {"image_features", "text_features", "logit_scale", "logit_bias"}, (
        f"with a bias the loss takes logit_bias, too; yours gives {sorted(out)}"
    )
    assert float(out["logit_bias"]) == -10, (
        "the bias is given as it is: only the scale is a logarithm"
    )


def test_model_with_labels():
    model = two_tower(seed=60)
    model.labels, model.label_head = nn.Embedding(9, 5), nn.Linear(7, 5)
    ids = torch.tensor([2, 8, 1])
    out = model(IMAGES, TEXTS, ids)
    assert set(out) == {
        "image_features",
        "text_features",
        "logit_scale",
        "label_scores",
        "label_weights",
    }, f"with labels the loss takes label_scores and label_weights; yours gives {sorted(out)}"
    assert same(out["label_scores"], model.label_head(model.visual(IMAGES))), (
        "label_head reads what the image tower gives, not the features behind image_head"
    )
    assert same(out["label_weights"], model.labels(ids)), "the labels read label_ids"


def test_the_image_tower_reads_once():
    model = two_tower(seed=70)
    model.labels, model.label_head = nn.Embedding(9, 5), nn.Linear(7, 5)
    calls = []
    model.visual.register_forward_hook(lambda *_: calls.append(1))
    model(IMAGES, TEXTS, torch.tensor([0, 1, 2]))
    assert len(calls) == 1, (
        f"the image tower ran {len(calls)} times for one batch: it is the most expensive part, so "
        "make its vectors once and give them to both heads"
    )
    vectors = model.visual(IMAGES)
    with mock.patch.object(model.visual, "forward", lambda x: 1 / 0):
        out = model(vectors, TEXTS, torch.tensor([0, 1, 2]))
    assert same(out["image_features"], F.normalize(model.image_head(vectors), dim=1)), (
        "images may also be the vectors (B, width) of a frozen tower: image_vectors knows that"
    )
