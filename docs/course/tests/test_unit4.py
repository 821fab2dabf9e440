"""Unit 4, the table of methods: the tests that students have."""

import torch
from torch import nn

import lift
from data.batches import Batch
from train import Config

from ..student import Student, StudentError, after, get, holds, keep, same, state
from .models import filled
from .numbers import normal

SIZES = lift.Sizes(model="micro/16", image_size=32, embed_dim=16)


def small(name: str, seed: int = 1) -> lift.TwoTower:
    """A method of the reference: LIFT on vectors of 12 numbers, or LiT on a vocabulary of 9."""
    fitted = (normal(12, seed=seed), normal(12, 6, seed=seed + 1))
    fitted = (torch.arange(9),) if name == "lit" else fitted
    return lift.TwoTower(name, SIZES, fitted)


# ---- is_in_part

QUESTIONS = {
    "visual": {"visual.patch_embed.proj.weight": True, "image_head.0.weight": False},
    "text": {"text.blocks.0.attn.qkv.weight": True, "text_head.weight": False},
    "text_head": {"text_head.weight": True, "text.ln_final.weight": False},
    "logit_scale": {"logit_scale": True, "visual.pos_embed": False},
    "norms": {
        "visual.norm.weight": True,
        "text.ln_final.bias": True,
        "text_head.net.1.norm1.weight": True,
        "visual.pos_embed": False,
    },
    "biases": {"visual.norm.bias": True, "logit_bias": True, "image_head.0.weight": False},
    "adapters": {
        "visual.blocks.0.adapter1.down.weight": True,
        "text.llm.layers.3.adapter2.up.bias": True,
        "visual.blocks.0.attn.proj.weight": False,
    },
}


def test_parts_are_children(student):
    """The five children of the model: visual, text, image_head, text_head, logit_scale"""
    for part in ("visual", "text", "text_head", "logit_scale"):
        for name, wanted in QUESTIONS[part].items():
            found = student.lift.is_in_part(name, part)
            why = (
                f"is {name} in the part {part}? The word before the first dot must be the part "
                "itself, and not only begin with it"
            )
            same(found, wanted, why)


def test_parts_are_kinds(student):
    """The three kinds: norms, biases, adapters, in all children"""
    for part in ("norms", "biases", "adapters"):
        for name, wanted in QUESTIONS[part].items():
            found = student.lift.is_in_part(name, part)
            why = (
                f"is {name} in the part {part}? The docstring says what {part} are, in all children"
            )
            same(found, wanted, why)


def test_some_parameters_go_with_others(student):
    """logit_bias goes with logit_scale, label_head with image_head (GOES_WITH)"""
    for name, part in (("logit_bias", "logit_scale"), ("label_head.weight", "image_head")):
        same(student.lift.is_in_part(name, part), True, f"{name} goes with {part}: see GOES_WITH")
        own = name.split(".")[0]
        why = f"{name} goes with {part} only: {own} is no part of its own"
        same(student.lift.is_in_part(name, own), False, why)


# ---- TwoTower.train


def test_frozen_parts_stay_in_eval_mode(student):
    """In training only the children with trained parameters are in training mode"""
    model = small("lift")
    model.text_head = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)).requires_grad_(False)
    # In a child that is trained, some parameters are frozen, and a dropout has none.
    model.visual.pos_embed.requires_grad_(False)
    model.visual.blocks[0].requires_grad_(False)
    model.visual.blocks[1].adapter1 = nn.Dropout(0.5)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    _, (found, _) = after(student.lift.TwoTower.train, model, True)
    why = "`train` changes modes only: each parameter wants a gradient, or none, as before"
    holds(found["trained"] == trained, why)
    for part in ("visual", "image_head", "visual.blocks.0", "visual.blocks.1.adapter1"):
        child = part.split(".")[0]
        why = (
            f"one parameter of {child} is trained, so all of it is in training mode, {part} as well"
        )
        holds(part in found["training"], why)
    holds(
        "text_head.1" not in found["training"],
        "text_head is frozen, but its dropout is in training mode, so it would give other numbers "
        "each time. nn.Module.train reaches all children: set the frozen ones back",
    )
    _, (found, _) = after(student.lift.TwoTower.train, small("lit"), True)
    why = "in LiT the text side is trained, and the image tower is frozen. In training mode are: "
    modes = {part.split(".")[0] for part in found["training"]}
    holds("text" in modes and "visual" not in modes, why + ", ".join(sorted(modes - {""})))


def test_eval_mode_is_eval_mode(student):
    """train(False) puts everything into eval mode"""
    model = small("lift")
    _, (found, _) = after(student.lift.TwoTower.train, model, False)
    parts = ", ".join(part or "the model itself" for part in found["training"][:3])
    why = f"after train(False) these are still in training mode: {parts}. See super().train(mode)"
    holds(not found["training"], why)


def test_train_gives_back_the_model(student):
    """model.train() gives back the model, as in PyTorch"""
    found = student.lift.TwoTower.train(small("lift"))
    why = f"model.train() should give back the model, as in PyTorch; got {found!r}"
    holds(getattr(found, "type", "") == "TwoTower", why)


# ---- parameter_groups


def groups_of(student: Student, model: nn.Module, *args) -> list[dict]:
    found = student.train.parameter_groups(model, *args)
    holds(isinstance(found, list), f"got {found!r}, not a list of groups")
    return found


def where(groups: list[dict], parameter: torch.Tensor) -> list[int]:
    """In which groups a parameter is, found by its numbers."""
    return [
        number
        for number, group in enumerate(groups)
        for other in group["params"]
        if other.shape == parameter.shape and torch.equal(other, parameter)
    ]


def test_each_trained_parameter_is_in_the_optimizer_once(student):
    """Every trained parameter is in one group, and no frozen one is"""
    model = filled(small("lift"), seed=2)
    model.visual.blocks[0].requires_grad_(False)
    groups = groups_of(student, model, 0.2)
    for name, parameter in model.named_parameters():
        count = len(where(groups, parameter.detach()))
        wanted = int(parameter.requires_grad)
        kind = (
            "trained, so it should be in one group" if wanted else "frozen, so it belongs in none"
        )
        same(count, wanted, f"{name} is {kind}: the number of groups that hold it")


def test_only_matrices_decay(student):
    """Decay for matrices only, and in the image tower a share of the rate"""
    model = filled(small("lift"), seed=3)
    groups = groups_of(student, model, 0.2, 0.1)
    for name, parameter in model.named_parameters():
        (number,) = where(groups, parameter.detach()) or (None,)
        holds(number is not None, f"{name} is trained, and in no group")
        found = groups[number].get("weight_decay", "no such entry")
        wanted = 0.2 if parameter.ndim == 2 else 0.0
        why = (
            f"weight_decay of the group of {name}, which has {parameter.ndim} dimensions: wd for a "
            "matrix, which has two, and 0 for all others"
        )
        same("None" if found is None else found, wanted, why)
        found = groups[number].get("lr_share", "no such entry")
        wanted = 0.1 if name.startswith("visual.") else 1.0
        why = (
            f"lr_share of the group of {name}: image_lr_share, here 0.1, in `visual`, and 1 "
            "elsewhere. image_head is not in `visual`"
        )
        same("None" if found is None else found, wanted, why)


def test_exactly_the_declared_parameters_change(student):
    """After three steps with these groups, exactly the trained parameters have changed"""
    model = filled(small("lift"), seed=6, size=0.05).train()
    model.visual.blocks[1].requires_grad_(False)
    ours = dict(model.named_parameters())
    groups = []
    for group in groups_of(student, model, 0.2):
        taken = [p for p in ours.values() if where([group], p.detach())]
        groups.append({"params": taken, "weight_decay": group["weight_decay"]})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    images, captions = normal(4, 3, 32, 32, seed=7), normal(4, 12, seed=8)
    for _ in range(3):
        optimizer.zero_grad()
        lift.info_nce(**model(images, captions)).backward()
        optimizer.step()
    for name, tensor in model.state_dict().items():
        is_trained = name in ours and ours[name].requires_grad
        changed = not torch.equal(tensor, before[name])
        kind = "trained, and stayed as it was" if is_trained else "frozen, and changed"
        holds(changed == is_trained, f"after three steps: {name} is {kind}. In which group is it?")


def test_train_py_trains_with_these_groups(student):
    """A step of train.py changes the model: the groups hold its own parameters"""
    cfg = Config(method="lift", lr=1e-2, precision="fp32")
    model = filled(small("lift"), seed=6, size=0.05).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (there,) = keep(student, model)
    optimizer = student.train.make_optimizer(cfg, there)
    images, captions = normal(4, 3, 32, 32, seed=7), normal(4, 12, seed=8)
    batch = Batch(images, captions, torch.eye(4, dtype=torch.bool), None)
    student.train.training_step(there, optimizer, batch, 1e-2, cfg)
    found = state(student, there)["tensors"]
    for name, parameter in model.named_parameters():
        why = (
            f"{name} stayed as it was in a step of train.py. AdamW must get the model's own "
            "parameters, and no copies: not p.data, p.detach() or p.clone()"
        )
        holds(not torch.equal(found[name], before[name]) or not parameter.requires_grad, why)


# PyTorch imports much for the first step of an optimizer: 10 seconds and more on a busy machine.
test_train_py_trains_with_these_groups.seconds = 20


# ---- the row


def row_of(student: Student) -> dict:
    """LIFT's row. Where it is not filled in, this is what an unwritten function says."""
    row = get(student.lift.METHODS)["lift"]
    if "..." in row.values():
        raise StudentError("NotImplementedError: task 4.4: write METHODS[lift]")
    return row


def test_row_of_lift(student):
    """LIFT's row: a frozen text side, an image tower from scratch, InfoNCE, a head of two layers"""
    row = row_of(student)
    why = f"image is {row['image']!r}: LIFT's image tower starts with random weights"
    holds(row["image"] == "scratch", why)
    why = f"text is {row['text']}: LIFT takes the whitened vectors of a frozen language model"
    holds(row["text"] == "lift.LLMVectors", why)
    why = f"loss is {row['loss']}: LIFT has CLIP's loss"
    holds(row["loss"] == "lift.info_nce", why)
    why = f"image_head is {row['image_head']}: LIFT's head has two linear layers"
    holds(row["image_head"] == "lift.mlp", why)
    why = f"text_head is {row['text_head']}: LIFT's text side has no head, which is `no_head`"
    holds(row["text_head"] == "lift.no_head", why)
    holds("text" not in row["trains"], "trains names `text`, and LIFT's text side is frozen")


def test_model_of_the_row(student):
    """The model that the row makes trains the image tower, its head and the scale"""
    row_of(student)
    fitted = (normal(12, seed=4), normal(12, 6, seed=5))
    model = student.lift.TwoTower("lift", SIZES, fitted)
    children = {name.split(".")[0] for name in state(student, model)["trained"]}
    holds(
        children == {"visual", "image_head", "logit_scale"},
        f"the model trains {', '.join(sorted(children))}. LIFT trains the image tower, its head "
        "and the scale, and nothing else: see `trains`, and the heads",
    )
