"""Unit 4, the table of methods: the tests that only the grader has."""

import torch
from torch import nn

import lift

from ..student import after, holds, same, state
from .models import filled
from .numbers import normal
from .test_unit4 import SIZES, groups_of, row_of, small, where


def test_parts_of_all_parameters(student):
    """All parameters of CLIP, LIFT and LilT's adapters, and all parts"""
    vocab = torch.arange(9)
    clip = lift.TwoTower("clip_sigmoid", SIZES, (vocab,))
    names = {name for name, _ in [*clip.named_parameters(), *small("lift").named_parameters()]}
    names |= {"text.llm.layers.0.input_layernorm.weight", "visual.blocks.1.adapter2.up.bias"}
    names |= {"label_head.bias", "text.llm.layers.1.self_attn.q_norm.weight"}
    names |= {"text_head.net.1.norm2.bias"}
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


def test_no_group_is_empty(student):
    """LiT: the image tower is frozen, and there is no group for it"""
    model = filled(small("lit"), seed=21)
    groups = groups_of(student, model, 0.1, 0.25)
    counts = [len(group["params"]) for group in groups]
    holds(0 not in counts, f"the groups have {counts} parameters, and none should be empty")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (number,) = where(groups, parameter.detach()) or (None,)
            holds(number is not None, f"{name} is trained, and in no group")
            why = f"lr_share of the group of {name}: image_lr_share in visual, 1 elsewhere"
            same(groups[number]["lr_share"], 1.0, why)
            wanted = 0.1 if parameter.ndim == 2 else 0.0
            why = f"weight_decay of the group of {name}, which has {parameter.ndim} dimensions"
            same(groups[number]["weight_decay"], wanted, why)


def test_scale_and_parts_of_the_row(student):
    """The parts that are trained, the scale at the start, and nothing that LIFT has not"""
    row = row_of(student)
    same(row["scale"], 1 / 0.07, "the scale should start at CLIP's, which is the default")
    why = f"trains is {row['trains']}: LIFT trains the image tower, its head and the scale"
    # LIFT's text head has no parameters. So it does not matter whether it is named.
    parts = set(row["trains"]) - {"text_head"}
    holds(parts == {"image_head", "logit_scale", "visual"}, why)
    why = "labels, adapters or bias differ from their defaults: LIFT has none of them"
    holds(not row["labels"] and not row["adapters"] and row["bias"] is None, why)


def test_width_of_the_image_head(student):
    """The model of the row gives features of the text's width"""
    row_of(student)
    fitted = (normal(12, seed=22), normal(12, 6, seed=23))
    model = student.lift.TwoTower("lift", SIZES, fitted)
    tensors = state(student, model)["tensors"]
    last = max(name for name in tensors if name.startswith("image_head") and "weight" in name)
    why = "the image head should end at the width of the whitened vectors, here 6"
    same(len(tensors[last]), 6, why)
