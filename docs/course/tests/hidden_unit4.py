"""Unit 4, the table of methods: the tests that only the grader has."""

import torch
from torch import nn

import lift

from ..student import after, get, holds, same, state
from .models import filled
from .numbers import normal
from .test_unit4 import SIZES, groups_of, small, where


def test_parts_of_all_parameters(student):
    """All parameters of CLIP, LIFT and LilT's adapters, and all parts"""
    vocab = torch.arange(9)
    clip = lift.TwoTower("clip_sigmoid", SIZES, (vocab,))
    names = {name for name, _ in [*clip.named_parameters(), *small("lift").named_parameters()]}
    names |= {"text.llm.layers.0.input_layernorm.weight", "visual.blocks.1.adapter2.up.bias"}
    names |= {"label_head.bias", "text.llm.layers.1.self_attn.q_norm.weight"}
    parts = ("visual", "text", "image_head", "text_head", "logit_scale")
    parts += ("norms", "biases", "adapters")
    for name in sorted(names):
        for part in parts:
            found = student.lift.is_in_part(name, part)
            same(found, lift.is_in_part(name, part), f"is {name} in the part {part}?")


def test_a_part_with_one_trained_parameter_is_in_training(student):
    """One trained parameter is enough; a part without parameters is in eval mode"""
    model = small("lift")
    model.visual.requires_grad_(False)
    model.visual.blocks[1].norm1.requires_grad_(True)
    _, (found, _) = after(student.lift.TwoTower.train, model, True)
    holds("visual.blocks.0" in found["training"], "one norm of visual is trained")
    holds("" in found["training"], "the model itself is in training mode")
    holds("text" not in found["training"], "text has no trained parameter")


def test_frozen_parts_after_eval_and_back(student):
    """From eval mode back to training mode, the frozen parts stay"""
    model = small("lift")
    model.text_head = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)).requires_grad_(False)
    model.eval()
    _, (found,) = after(student.lift.TwoTower.train, model)
    holds("visual.blocks.3" in found["training"], "train() without an argument means training mode")
    holds("text_head.1" not in found["training"], "text_head is frozen")


def test_the_image_tower_has_its_share_of_the_rate(student):
    """lr_share is image_lr_share in the image tower, and 1 elsewhere"""
    model = filled(small("lift"), seed=21)
    groups = groups_of(student, model, 0.1, 0.25)
    for name, parameter in model.named_parameters():
        (number,) = where(groups, parameter.detach()) or (None,)
        holds(number is not None, f"{name} is in no group")
        wanted = 0.25 if name.startswith("visual.") else 1.0
        same(groups[number].get("lr_share"), wanted, f"the lr_share of {name}")
        wanted = 0.1 if parameter.ndim == 2 else 0.0
        same(groups[number].get("weight_decay"), wanted, f"the weight_decay of {name}")


def test_heads_and_scale_of_the_row(student):
    """The heads, the scale at the start, and nothing that LIFT has not"""
    row = get(student.lift.METHODS)["lift"]
    holds(row["image_head"] == "lift.mlp", "LIFT's head has two linear layers")
    holds(row["text_head"] == "lift.no_head", "the text side has nothing to train, so no head")
    same(row["scale"], 1 / 0.07, "the scale starts at CLIP's")
    holds(sorted(row["trains"]) == ["image_head", "logit_scale", "visual"], f"{row['trains']}")
    holds(not row["labels"] and not row["adapters"] and row["bias"] is None, "nothing else")


def test_other_rows_are_as_they_were(student):
    """The model of the row gives features of the text's width"""
    fitted = (normal(12, seed=22), normal(12, 6, seed=23))
    model = student.lift.TwoTower("lift", SIZES, fitted)
    tensors = state(student, model)["tensors"]
    last = max(name for name in tensors if name.startswith("image_head") and "weight" in name)
    same(len(tensors[last]), 6, "the head ends at the width of the whitened vectors")
