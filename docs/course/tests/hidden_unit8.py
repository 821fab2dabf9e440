"""Unit 8, few parameters: the tests that only the grader has."""

import torch
from torch import nn

import lift
from data.files.llm import Adapter
from llm_text import LoRA

from ..student import gradients, holds, keep, refuses, same, state
from .models import filled
from .numbers import cross_entropy, normal, unit
from .test_unit8 import adapter, frozen


@torch.no_grad()
def test_lora_of_many_ranks(student):
    """Ranks 1 to 5 with alpha 7, and a bias"""
    for rank in (1, 3, 5):
        lora, x = filled(LoRA(nn.Linear(5, 7), rank, 7), seed=20 + rank), normal(2, 4, 5, seed=21)
        merged = lora.linear.weight + 7 / rank * lora.lora_B.weight @ lora.lora_A.weight
        wanted = x @ merged.T + lora.linear.bias
        why = (
            f"rank {rank} and alpha 7: it should give what W + (alpha / r) B A gives, with one bias"
        )
        same(student.llm_text.LoRA.forward(lora, x), wanted, why)


@torch.no_grad()
def test_adapter_of_large_numbers(student):
    """GELU is not ReLU, and the input is added as it is"""
    block, x = filled(lift.LilTAdapter(16), seed=22, size=2.0), 3 * normal(4, 16, seed=23)
    wanted = x + block.up(nn.functional.gelu(block.down(x)))
    why = "large numbers: x + W_up GELU(W_down x), and GELU is not ReLU"
    same(student.lift.LilTAdapter.forward(block, x), wanted, why, atol=1e-3)


def test_caption_loss_with_hard_negatives(student):
    """More second captions than first ones: nobody's partners are negatives of all"""
    a, b = unit(4, 8, seed=24), unit(7, 8, seed=25)
    duplicates = torch.zeros(4, 7, dtype=torch.bool)
    duplicates[2, 5] = True
    logits = (10 * a.double() @ b.double().T).tolist()
    wanted = sum(
        cross_entropy([v for j, v in enumerate(row) if (i, j) != (2, 5)], i)
        for i, row in enumerate(logits)
    )
    found, (first, second) = gradients(student.llm_text.caption_loss, a, b, duplicates, 10.0)
    why = (
        "4 first captions, 7 second ones: the last three are nobody's partners, and stand in every "
        "softmax but where `duplicates`, (4, 7), leaves them out"
    )
    same(found, wanted / 4, why)
    why = "the last hard negative has no gradient: it should stand in every softmax"
    holds(bool((second[6] != 0).any()), why)


def test_caption_retrieval_of_many(student):
    """200 captions, two of them equal"""
    a = unit(200, 6, seed=26)
    b = 2 * a + 1.2 * normal(200, 6, seed=27)
    b[3] = b[4]
    wanted = nn.functional.normalize(a, dim=1) @ nn.functional.normalize(b, dim=1).T
    partner = wanted.diagonal()
    others = wanted.masked_fill(torch.eye(200, dtype=torch.bool), -2)
    share = (partner > others.amax(1)).float().mean()
    found = student.llm_text.caption_retrieval(a, b)
    why = (
        "each caption of `first` searches in `second`: share of those whose partner is nearest of "
        "all"
    )
    same(found, share, why, atol=1e-3)
    back = student.llm_text.caption_retrieval(b, a)
    partner_share = (partner > others.T.amax(1)).float().mean()
    same(
        back, partner_share, "with the arguments exchanged the search goes the other way", atol=1e-3
    )


def test_merging_notes_where_to_read(student):
    """After merging, captions are read after the adapter's block; two layers are merged"""
    pairs = {
        "layers.0.mlp.down_proj": (normal(3, 48, seed=28), normal(32, 3, seed=29)),
        "layers.1.self_attn.v_proj": (normal(3, 32, seed=30), normal(16, 3, seed=31)),
    }
    llm = frozen()
    (there,) = keep(student, llm)
    student.llm_text.merge_adapter(there, Adapter(pairs, 2.0, "its hash", 2, False))
    tensors = state(student, there)["tensors"]
    for name, (A, B) in pairs.items():
        name = f"model.{name}.weight"
        why = f"the weight {name} should be W + scale B A: all layers of the adapter are merged"
        same(tensors[name], llm.state_dict()[name] + 2 * B @ A, why)
    why = "the adapter was tuned to be read after block 2: set llm.tuned_layer"
    same(student.llm_text.FrozenLLM.pool_layer(there, "mean"), 2, why)


def test_merging_refuses_what_does_not_fit(student):
    """Matrices of another shape raise ValueError"""
    wrong = adapter("layers.0.self_attn.k_proj")
    why = "B A is (32, 32) and the weight (16, 32): ValueError must be raised"
    refuses(student.llm_text.merge_adapter, frozen(), wrong, why=why, error="ValueError")
