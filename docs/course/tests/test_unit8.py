"""Unit 8, few parameters: the tests that students have."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.files.llm import Adapter
from llm_text import FrozenLLM, Llama

from ..student import Student, after, apply, holds, keep, refuses, same, state
from .models import config, filled
from .numbers import cross_entropy, normal, unit


def tensors_of(student: Student, module: object, shapes: dict[str, tuple]) -> dict[str, Tensor]:
    """The tensors of a module that the worker keeps. Wrong unless names and shapes are these."""
    tensors = state(student, module)["tensors"]
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    why = f"names and shapes of its weights, as files have them, should be {shapes}\ngot {found}"
    holds(found == shapes, why)
    return tensors


def give(student: Student, module: object, tensors: dict[str, Tensor]) -> None:
    """Give a module that the worker keeps other weights, as a checkpoint does."""
    tensors_of(student, module, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    student.torch.nn.Module.load_state_dict(module, tensors)


# ---- LoRA


@torch.no_grad()
def test_fresh_lora_is_the_layer(student):
    """A fresh LoRA changes nothing"""
    linear, x = filled(nn.Linear(6, 4), seed=1), normal(3, 6, seed=2)
    lora = student.llm_text.LoRA(linear, 2, 8)
    why = "a fresh LoRA should give the output of the layer alone, with its bias: B is zero"
    same(apply(student, lora, x), linear(x), why)


def test_parts_of_a_lora(student):
    """Rank 2, alpha 8, a layer from 6 to 4: names and shapes of the attributes, and B is zero"""
    lora = student.llm_text.LoRA(nn.Linear(6, 4), 2, 8)
    shapes = {"linear.weight": (4, 6), "linear.bias": (4,)}
    tensors = tensors_of(student, lora, shapes | {"lora_A.weight": (2, 6), "lora_B.weight": (4, 2)})
    same(tensors["lora_B.weight"], torch.zeros(4, 2), "B should be zero at the start")
    why = "A is zero at the start, and so is B: then both gradients are zero for ever"
    holds(bool(tensors["lora_A.weight"].any()), why)
    trained = state(student, lora)["trained"]
    holds({"lora_A.weight", "lora_B.weight"} <= set(trained), f"A or B is not trained: {trained}")
    scale = student.builtins.getattr(lora, "scale")
    same(scale, 4, "`scale` should be alpha / r = 8 / 2")
    why = f"`scale` is written to a file, so it should be a plain number; got {scale!r}"
    holds(isinstance(scale, (int, float)), why)


@torch.no_grad()
def test_lora_is_a_detour(student):
    """y = W x + (alpha / r) B A x"""
    linear, x = filled(nn.Linear(6, 4), seed=3), normal(3, 6, seed=4)
    A, B = normal(2, 6, seed=5), normal(4, 2, seed=6)
    lora = student.llm_text.LoRA(linear, 2, 8)
    weights = {"linear.weight": linear.weight, "linear.bias": linear.bias}
    give(student, lora, weights | {"lora_A.weight": A, "lora_B.weight": B})
    why = "rank 2 and alpha 8: y = W x + (alpha / r) B A x, so the detour is multiplied by 4"
    same(apply(student, lora, x), linear(x) + 4 * x @ A.T @ B.T, why)


# ---- LilT's adapter


@torch.no_grad()
def test_fresh_adapter_is_the_identity(student):
    """A fresh adapter changes nothing"""
    x = normal(2, 3, 8, seed=7)
    why = "a fresh adapter should give its input: x is added, and W_up and its bias are zero"
    same(apply(student, student.lift.LilTAdapter(8), x), x, why)


def test_parts_of_an_adapter(student):
    """Width 8: names and shapes of the weights, and W_up and the biases are zero"""
    adapter = student.lift.LilTAdapter(8)
    shapes = {"down.weight": (2, 8), "down.bias": (2,), "up.weight": (8, 2), "up.bias": (8,)}
    tensors = tensors_of(student, adapter, shapes)
    same(tensors["up.weight"], torch.zeros(8, 2), "W_up should be zero at the start")
    for name in ("down.bias", "up.bias"):
        why = f"{name} should be zero at the start, as after `init_linears`"
        same(tensors[name], torch.zeros(shapes[name]), why)
    why = "W_down is zero at the start, and so is W_up: then both gradients are zero for ever"
    holds(bool(tensors["down.weight"].any()), why)
    trained = state(student, adapter)["trained"]
    holds(shapes.keys() <= set(trained), f"not all weights are trained, but {trained}")


def weights_of_an_adapter(width: int, seed: int, size: float) -> dict[str, Tensor]:
    """Random weights of LilT's adapter, under their names."""
    middle = width // 4
    shapes = ((middle, width), (middle,), (width, middle), (width,))
    names = ("down.weight", "down.bias", "up.weight", "up.bias")
    return {
        name: size * normal(*shape, seed=10 * seed + number)
        for number, (name, shape) in enumerate(zip(names, shapes, strict=True))
    }


def through_an_adapter(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """x + W_up GELU(W_down x), with both biases."""
    inside = F.gelu(x @ weights["down.weight"].T + weights["down.bias"])
    return x + inside @ weights["up.weight"].T + weights["up.bias"]


def test_adapter_is_a_detour(student):
    """x + W_up GELU(W_down x)"""
    weights, x = weights_of_an_adapter(8, seed=8, size=0.8), normal(2, 3, 8, seed=9)
    adapter = student.lift.LilTAdapter(8)
    give(student, adapter, weights)
    why = (
        "x + W_up GELU(W_down x): GELU stands in the bottleneck, between the two layers. It is "
        "F.gelu, without approximation"
    )
    (there,) = keep(student, x.clone())
    same(apply(student, adapter, there), through_an_adapter(weights, x), why)
    why = "the input itself was changed: `x += ...` does that, and the block still needs x"
    same(student.torch.clone(there), x, why)


# ---- caption_loss

FIRST = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
SECOND = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def test_caption_loss_by_hand(student):
    """Two pairs, cosines [[1, 0], [0.6, 0.8]], scale 2: the rows only"""
    found = student.llm_text.caption_loss(FIRST, SECOND, None, 2.0)
    wanted = (cross_entropy([2.0, 0.0], 0) + cross_entropy([1.2, 1.6], 1)) / 2
    why = (
        "scale 2, cosines [[1, 0], [0.6, 0.8]]. One direction only, the rows: each first caption "
        "looks for its partner among the second ones, and the loss is the mean"
    )
    same(found, wanted, why)


def test_caption_loss_has_the_scale_50(student):
    """The scale that is not given is 50"""
    found = student.llm_text.caption_loss(FIRST, SECOND)
    wanted = (cross_entropy([50.0, 0.0], 0) + cross_entropy([30.0, 40.0], 1)) / 2
    same(found, wanted, "no scale was given, so it is 50: all cosines are multiplied by it")


def test_caption_loss_leaves_duplicates_out(student):
    """A caption's own second partner is no negative"""
    a, b = unit(3, 8, seed=10), unit(3, 8, seed=11)
    duplicates = torch.eye(3, dtype=torch.bool)
    duplicates[0, 1] = True
    logits = (5 * a.double() @ b.double().T).tolist()
    wanted = cross_entropy([logits[0][0], logits[0][2]], 0)
    wanted += cross_entropy(logits[1], 1) + cross_entropy(logits[2], 2)
    found = student.llm_text.caption_loss(a, b, duplicates, 5.0)
    why = (
        "second caption 1 also belongs to first caption 0, so it must not count in row 0. The "
        "diagonal of `duplicates` is true, and must stay"
    )
    same(found, wanted / 3, why)


def test_caption_loss_with_one_hard_negative(student):
    """Two first captions, three second ones, with duplicates and without"""
    second = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])  # cosines [1 0 .8] and [.6 .8 .96]
    duplicates = torch.tensor([[True, False, False], [False, True, True]])
    why = (
        "scale 2, cosines [[1, 0, 0.8], [0.6, 0.8, 0.96]]. The third second caption is nobody's "
        "partner. It stands in the softmax of each first caption"
    )
    found = student.llm_text.caption_loss(FIRST, second, None, 2.0)
    row0 = cross_entropy([2.0, 0.0, 1.6], 0)
    same(found, (row0 + cross_entropy([1.2, 1.6, 1.92], 1)) / 2, f"{why}. No duplicates are given")
    found, args = after(student.llm_text.caption_loss, FIRST, second, duplicates, 2.0)
    wanted = (row0 + cross_entropy([1.2, 1.6], 1)) / 2
    same(found, wanted, f"{why}, but here `duplicates`, (2, 3), leaves it out of row 1")
    same(args[2], duplicates, "`duplicates` was changed, and it belongs to the caller: make a copy")


# ---- CRA


def test_caption_retrieval_by_hand(student):
    """Two of three captions are nearest to their partners"""
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    b = torch.tensor([[0.3, 0.03], [0.0, -1.0], [1.0, 8.0]])
    why = (
        "of the three rows of `first` the first and the third have their partner nearest among "
        "those of `second`, by cosines: lengths do not count. CRA is the share of hits"
    )
    same(student.llm_text.caption_retrieval(a, b), 2 / 3, why)


def test_caption_retrieval_of_a_collapsed_model(student):
    """If all captions have one vector, none is found"""
    found = student.llm_text.caption_retrieval(torch.ones(4, 3), torch.ones(4, 3))
    same(found, 0.0, "all captions have one vector, so every partner ties, and a tie is wrong")


# ---- merging


def frozen(seed: int = 12) -> FrozenLLM:
    """A Llama of two blocks with random weights; its tokenizer is never asked."""
    llm = filled(Llama(config()), seed=seed)
    return FrozenLLM(llm, SimpleNamespace(prefix=[1], encode=list), "its hash")


def adapter(name: str = "layers.0.self_attn.q_proj", llm_hash: str = "its hash") -> Adapter:
    pairs = {name: (normal(2, 32, seed=13), normal(32, 2, seed=14))}
    return Adapter(pairs, 0.5, llm_hash, 1, True)


def test_merged_equals_the_detour(student):
    """W + (alpha / r) B A, in the layers of the adapter and in no other"""
    llm = frozen()
    (there,) = keep(student, llm)
    student.llm_text.merge_adapter(there, adapter())
    A, B = adapter().pairs["layers.0.self_attn.q_proj"]
    merged = state(student, there)
    holds(not merged["trained"], "a weight is trained after merging: change the tensor in place")
    for name, tensor in merged["tensors"].items():
        wanted = llm.state_dict()[name].float()
        if name == "model.layers.0.self_attn.q_proj.weight":
            wanted = wanted + 0.5 * (B @ A)
        why = (
            f"the weight {name} after merging: W + scale B A in the layers that the adapter names, "
            "and W in all others. It is changed in place"
        )
        same(tensor, wanted, why)


def test_merging_refuses_another_model(student):
    """An adapter of another language model raises BadInput"""
    other = adapter(llm_hash="another hash")
    why = "adapter.llm_hash is not llm.hash, so it is another model's: BadInput must be raised"
    refuses(student.llm_text.merge_adapter, frozen(), other, why=why)


def test_merging_refuses_what_does_not_fit(student):
    """What does not fit raises ValueError; a layer that is not there, AttributeError"""
    ((name, (A, B)),) = adapter().pairs.items()
    for pairs, what in (
        ({name.replace("q_proj", "k_proj"): (A, B)}, "B A is (32, 32) and the weight (16, 32)"),
        ({name: (A, B[:1])}, "B A is (1, 32), which PyTorch adds to (32, 32) without a word"),
        ({name: (A, B * torch.inf)}, "B has numbers that are not finite"),
    ):
        why, wrong = f"{what}: ValueError must be raised", adapter()._replace(pairs=pairs)
        refuses(student.llm_text.merge_adapter, frozen(), wrong, why=why, error="ValueError")
    why = (
        "the model has no layer of this name: AttributeError must be raised, as get_submodule does"
    )
    wrong = adapter("layers.0.self_attn.none")
    refuses(student.llm_text.merge_adapter, frozen(), wrong, why=why, error="AttributeError")


def test_merging_notes_how_to_read(student):
    """The model takes over the block to read after, and whether tokens see the whole caption"""
    for layer, sees_all in ((1, True), (2, False)):
        wanted = adapter()._replace(layer=layer, bidirectional=sees_all)
        (there,) = keep(student, frozen())
        student.llm_text.merge_adapter(there, wanted)
        read = student.builtins.getattr
        found = read(there, "tuned_layer")
        holds(found == layer, f"adapter.layer is {layer}, and llm.tuned_layer is {found}")
        found = read(read(there, "model"), "bidirectional")
        why = f"adapter.bidirectional is {sees_all}, and llm.model.bidirectional is {found}"
        holds(found is sees_all, why)
