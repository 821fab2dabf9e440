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
            why = f"is {name} in the part {part}? See the docstring, and GOES_WITH"
            same(found, lift.is_in_part(name, part), why)


def test_a_part_with_one_trained_parameter_is_in_training(student):
    """One trained parameter is enough; a part without parameters is in eval mode"""
    model = small("lift")
    model.visual.requires_grad_(False)
    model.visual.blocks[1].norm1.requires_grad_(True)
    _, (found, _) = after(student.lift.TwoTower.train, model, True)
    why = "one norm of visual is trained, so all of visual should be in training mode"
    holds("visual.blocks.0" in found["training"], why)
    holds("" in found["training"], "after train(True) the model itself should be in training mode")
    why = "text has no trained parameter, so it should be in eval mode"
    holds("text" not in found["training"], why)


def test_frozen_parts_after_eval_and_back(student):
    """From eval mode back to training mode, the frozen parts stay"""
    model = small("lift")
    model.text_head = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)).requires_grad_(False)
    model.eval()
    _, (found,) = after(student.lift.TwoTower.train, model)
    holds("visual.blocks.3" in found["training"], "train() without an argument means training mode")
    why = "text_head is frozen, and after eval() and train() it is in training mode"
    holds("text_head.1" not in found["training"], why)


def test_the_image_tower_has_its_share_of_the_rate(student):
    """lr_share is image_lr_share in the image tower, and 1 elsewhere"""
    model = filled(small("lift"), seed=21)
    groups = groups_of(student, model, 0.1, 0.25)
    for name, parameter in model.named_parameters():
        (number,) = where(groups, parameter.detach()) or (None,)
        holds(number is not None, f"{name} is trained, and in no group")
        wanted = 0.25 if name.startswith("visual.") else 1.0
        why = f"lr_share of the group of {name}: image_lr_share in visual, 1 elsewhere"
        same(groups[number].get("lr_share"), wanted, why)
        wanted = 0.1 if parameter.ndim == 2 else 0.0
        why = f"weight_decay of the group of {name}, which has {parameter.ndim} dimensions"
        same(groups[number].get("weight_decay"), wanted, why)


def test_heads_and_scale_of_the_row(student):
    """The heads, the scale at the start, and nothing that LIFT has not"""
    row = get(student.lift.METHODS)["lift"]
    why = f"image_head is {row['image_head']}: LIFT's head has two linear layers"
    holds(row["image_head"] == "lift.mlp", why)
    why = f"text_head is {row['text_head']}: LIFT's text side has no head, which is `no_head`"
    holds(row["text_head"] == "lift.no_head", why)
    same(row["scale"], 1 / 0.07, "the scale should start at CLIP's, which is the default")
    why = f"trains is {row['trains']}: LIFT trains the image tower, its head and the scale"
    holds(sorted(row["trains"]) == ["image_head", "logit_scale", "visual"], why)
    why = "labels, adapters or bias differ from their defaults: LIFT has none of them"
    holds(not row["labels"] and not row["adapters"] and row["bias"] is None, why)


def test_width_of_the_image_head(student):
    """The model of the row gives features of the text's width"""
    fitted = (normal(12, seed=22), normal(12, 6, seed=23))
    model = student.lift.TwoTower("lift", SIZES, fitted)
    tensors = state(student, model)["tensors"]
    last = max(name for name in tensors if name.startswith("image_head") and "weight" in name)
    why = "the image head should end at the width of the whitened vectors, here 6"
    same(len(tensors[last]), 6, why)
