"""Unit 8, few parameters: the tests that only the grader has."""

import torch
from torch import nn

from data.files.llm import Adapter

from ..student import apply, gradients, holds, keep, same, state
from .models import filled
from .numbers import cross_entropy, normal, unit
from .test_unit8 import frozen, give, tensors_of, through_an_adapter, weights_of_an_adapter


@torch.no_grad()
def test_lora_of_many_ranks(student):
    """Ranks 1 to 5 with alpha 7, with a bias and without one"""
    for rank, has_bias in ((1, True), (3, False), (5, True)):
        linear = filled(nn.Linear(5, 7, bias=has_bias), seed=20 + rank)
        A, B, x = normal(rank, 5, seed=31), normal(7, rank, seed=32), normal(2, 4, 5, seed=21)
        lora = student.llm_text.LoRA(linear, rank, 7)
        weights = {f"linear.{name}": tensor for name, tensor in linear.state_dict().items()}
        give(student, lora, weights | {"lora_A.weight": A, "lora_B.weight": B})
        wanted = x @ (linear.weight + 7 / rank * B @ A).T + (linear.bias if has_bias else 0)
        why = (
            f"rank {rank} and alpha 7: it should give what W + (alpha / r) B A gives, with the "
            "layer's bias if it has one"
        )
        same(apply(student, lora, x), wanted, why)


def test_start_of_a_large_lora(student):
    """A starts as PyTorch starts an nn.Linear: evenly spread, up to 1 / sqrt(width); B at zero"""
    lora = student.llm_text.LoRA(nn.Linear(256, 16, bias=False), 32, 8)
    shapes = {"linear.weight": (16, 256), "lora_A.weight": (32, 256), "lora_B.weight": (16, 32)}
    tensors = tensors_of(student, lora, shapes)
    same(tensors["lora_B.weight"], torch.zeros(16, 32), "B should be zero at the start")
    A = tensors["lora_A.weight"]
    why = "the largest of the 8,192 numbers of A, for a width of 256, is nearly 1 / 16"
    same(A.abs().max(), 1 / 16, why, atol=1e-3)
    why = "numbers that are evenly spread up to 1 / 16 have the deviation 1 / 16 / sqrt(3)"
    same(A.std(), 1 / 16 / 3**0.5, why, atol=2e-3)


def test_adapter_of_large_numbers(student):
    """GELU is not ReLU, and the input is added as it is"""
    weights, x = weights_of_an_adapter(16, seed=22, size=2.0), 3 * normal(4, 16, seed=23)
    adapter = student.lift.LilTAdapter(16)
    give(student, adapter, weights)
    why = "large numbers: x + W_up GELU(W_down x), and GELU is F.gelu, without approximation"
    same(apply(student, adapter, x), through_an_adapter(weights, x), why, atol=1e-3)


def test_start_of_a_large_adapter(student):
    """W_down starts as `init_linears` starts it, and W_up at zero"""
    adapter = student.lift.LilTAdapter(128)
    shapes = {"down.weight": (32, 128), "down.bias": (32,), "up.weight": (128, 32)}
    tensors = tensors_of(student, adapter, shapes | {"up.bias": (128,)})
    same(tensors["up.weight"], torch.zeros(128, 32), "W_up should be zero at the start")
    down = tensors["down.weight"]
    reach = (6 / (128 + 32)) ** 0.5
    why = "the largest of the 4,096 numbers of W_down is nearly sqrt(6 / (128 + 32))"
    same(down.abs().max(), reach, why, atol=4e-3)
    why = "numbers that are evenly spread up to m have the deviation m / sqrt(3)"
    same(down.std(), reach / 3**0.5, why, atol=6e-3)


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


def test_only_equal_cosines_tie(student):
    """A caption that is nearer by less than a millionth is nearer"""
    a, b = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[1.0, 0.0], [1.0, 5e-4]])
    why = "cosines 1 and 0.9999999: the first caption's partner is nearest, the second one's is not"
    same(student.llm_text.caption_retrieval(a, b), 0.5, why)


def test_merging_two_layers_in_half_precision(student):
    """Two layers are merged; weights in bfloat16, sums in float32"""
    pairs = {
        "layers.0.mlp.down_proj": (normal(3, 48, seed=28), normal(32, 3, seed=29)),
        "layers.1.self_attn.v_proj": (normal(3, 32, seed=30), normal(16, 3, seed=31)),
    }
    # Here the sum in bfloat16 is another number than the sum in float32, rounded.
    pairs["layers.0.self_attn.q_proj"] = (torch.ones(1, 32), torch.full((32, 1), 2**-9 + 2**-18))
    llm = frozen().bfloat16()
    llm.model.layers[0].self_attn.q_proj.weight.fill_(1)
    (there,) = keep(student, llm)
    student.llm_text.merge_adapter(there, Adapter(pairs, 2.0, "its hash", 2, False))
    tensors = state(student, there)["tensors"]
    for name, (A, B) in pairs.items():
        name = f"model.{name}.weight"
        why = (
            f"the weight {name} should be W + scale B A, computed in float32 and then rounded to "
            "bfloat16: all layers of the adapter are merged"
        )
        wanted = (llm.state_dict()[name].float() + 2 * B @ A).bfloat16().float()
        if B.shape[1] == 1:
            same(tensors[name], wanted, why)
        else:  # another processor may round a sum in the middle of two numbers to the other side
            same(tensors[name], wanted, why, atol=0.1)
