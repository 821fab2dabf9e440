"""Unit 8, few parameters: tests of LoRA, caption_loss, caption_retrieval and merge_adapter in
llm_text.py, and of LilTAdapter in lift.py.
"""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

import lift
import llm_text
from data.common import BadInput
from data.files.llm import Adapter, LlamaConfig


def numbers(*shape, seed, dtype=torch.float64):
    """Random numbers, the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def features(count, width, seed):
    """Random features of unit length, (count, width) float64."""
    return F.normalize(numbers(count, width, seed=seed), dim=1)


def same(one, other, tolerance=1e-4):
    return one.shape == other.shape and bool(((one - other).abs() <= tolerance).all())


# --------------------------------------------------------------------------------------------------
# 8.1 LoRA.forward


def lora_of(d_in, d_out, rank, alpha, seed, fresh=False):
    lora = llm_text.LoRA(nn.Linear(d_in, d_out), rank, alpha).double()
    for i, parameter in enumerate(lora.parameters()):
        if not (fresh and parameter is lora.lora_B.weight):
            parameter.data = numbers(*parameter.shape, seed=100 * seed + i)
    return lora


def lora_by_hand(lora, x, scale):
    detour = x @ lora.lora_A.weight.T @ lora.lora_B.weight.T
    return x @ lora.linear.weight.T + lora.linear.bias + scale * detour


def test_a_fresh_lora_changes_nothing():
    lora, x = lora_of(6, 5, 2, 8, seed=1, fresh=True), numbers(3, 6, seed=1)
    y = lora(x)
    assert y.shape == (3, 5), f"(3, 6) must become (3, 5), but yours is {tuple(y.shape)}"
    assert same(y, x @ lora.linear.weight.T + lora.linear.bias), (
        "B starts at zero, so a fresh LoRA must give what the frozen layer gives, with its bias"
    )


def test_lora_by_hand():
    lora, x = lora_of(6, 5, 2, 8, seed=2), numbers(3, 6, seed=2)
    assert not same(lora(x), lora_by_hand(lora, x, 1.0)), "the detour is not scaled by alpha / r"
    assert same(lora(x), lora_by_hand(lora, x, 4.0)), (
        "y = W x + (alpha / r) B A x: with alpha = 8 and r = 2 the detour counts four times. First "
        "A makes r numbers of x, then B makes the output of these"
    )


def test_lora_of_other_sizes():
    for d_in, d_out, rank, alpha in ((4, 4, 4, 4), (3, 7, 1, 32), (8, 2, 5, 1)):
        lora, x = lora_of(d_in, d_out, rank, alpha, seed=3), numbers(2, 3, d_in, seed=3)
        assert same(lora(x), lora_by_hand(lora, x, alpha / rank)), (
            f"with rank {rank} and alpha {alpha} the output is wrong: the detour is scaled by "
            f"{alpha / rank}, once"
        )


def test_lora_trains_the_detour():
    lora, x = lora_of(6, 5, 2, 8, seed=4), numbers(3, 6, seed=4).requires_grad_()
    lora.linear.requires_grad_(False)
    lora(x).sum().backward()
    assert lora.lora_A.weight.grad is not None and lora.lora_B.weight.grad is not None, (
        "no gradient reaches A or B: they are what is trained"
    )
    ones = torch.ones(3, 5, dtype=torch.float64)
    direct = ones @ lora.linear.weight.detach()
    detour = 4 * ones @ lora.lora_B.weight.detach() @ lora.lora_A.weight.detach()
    assert same(x.grad, direct + detour), (
        "the gradient of the input goes through the frozen layer and through the detour, both"
    )


# --------------------------------------------------------------------------------------------------
# 8.2 LilTAdapter.forward


def adapter_of(width, seed):
    adapter = lift.LilTAdapter(width).double()
    for i, parameter in enumerate(adapter.parameters()):
        parameter.data = numbers(*parameter.shape, seed=100 * seed + i)
    return adapter


def adapter_by_hand(adapter, x):
    inside = x @ adapter.down.weight.T + adapter.down.bias
    inside = inside * (1 + torch.erf(inside / math.sqrt(2))) / 2  # GELU
    return x + inside @ adapter.up.weight.T + adapter.up.bias


def test_a_fresh_adapter_changes_nothing():
    x = numbers(2, 3, 8, seed=10)
    assert same(lift.LilTAdapter(8).double()(x), x), (
        "W_up starts at zero, so a fresh adapter must give x as it is: is the x + missing?"
    )


def test_adapter_by_hand():
    adapter, x = adapter_of(8, seed=11), numbers(2, 3, 8, seed=11)
    assert same(adapter(x), adapter_by_hand(adapter, x)), (
        "the adapter is x + W_up GELU(W_down x): the GELU stands between the two layers, where the "
        "width is a quarter"
    )


def test_adapter_of_other_sizes():
    for width in (4, 16, 20):
        adapter, x = adapter_of(width, seed=12), 2 * numbers(5, width, seed=width)
        assert same(adapter(x), adapter_by_hand(adapter, x)), (
            f"the adapter of width {width} is wrong: x + W_up GELU(W_down x), with both biases"
        )


# --------------------------------------------------------------------------------------------------
# 8.3 caption_loss


def caption_loss_by_hand(first, second, duplicates=None, scale=50.0):
    """The loss with one loop for each sum."""
    logits = (scale * first @ second.T).tolist()
    total = 0.0
    for i, row in enumerate(logits):
        rivals = [
            j for j in range(len(row)) if j == i or duplicates is None or not duplicates[i, j]
        ]
        total += math.log(sum(math.exp(row[j] - row[i]) for j in rivals))
    return total / len(logits)


def close(number, expected, tolerance=1e-4):
    return abs(float(number) - expected) <= tolerance


def test_caption_loss_by_hand():
    first = torch.eye(2, dtype=torch.float64)
    second = torch.tensor([[0.6, 0.8], [1.0, 0.0]], dtype=torch.float64)
    # The cosines are .6 and 1 for the first caption, .8 and 0 for the second one.
    e = math.exp
    expected = (math.log(e(1.2) + e(2)) - 1.2 + math.log(e(1.6) + 1)) / 2
    loss = llm_text.caption_loss(first, second, scale=2.0)
    assert loss.shape == (), f"the loss is one number, but yours has the shape {tuple(loss.shape)}"
    assert close(loss, expected), (
        f"two captions with the scale 2 cost {expected:.4f}, but yours gives {float(loss):.4f}: "
        "each first caption looks for its partner among all second ones"
    )


def test_caption_loss_has_one_direction():
    first, second = features(5, 6, 20), features(5, 6, 21)
    one = float(llm_text.caption_loss(first, second))
    assert close(one, caption_loss_by_hand(first, second)), (
        "the loss goes in one direction only: first captions choose among second ones"
    )
    assert not close(one, float(llm_text.caption_loss(second, first)), 1e-3), (
        "exchanging first and second captions must change the loss: unlike CLIP's it has one "
        "direction"
    )


def test_a_second_caption_of_one_image_is_no_negative():
    first, second = features(3, 4, 22), features(3, 4, 23)
    duplicates = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    loss = llm_text.caption_loss(first, second, duplicates)
    assert math.isfinite(loss), (
        "the loss is not finite with duplicates: the diagonal of `duplicates` is true, and yet the "
        "partners must stay"
    )
    assert close(loss, caption_loss_by_hand(first, second, duplicates)), (
        "captions that also belong together must leave the softmax: exp of their logits must be 0"
    )


def test_hard_negatives_stand_in_the_denominator():
    first, second = features(4, 6, 24), features(7, 6, 25)
    loss = llm_text.caption_loss(first, second)
    assert close(loss, caption_loss_by_hand(first, second)), (
        "the three captions behind the partners are negatives for all four: the logits are (B, C), "
        "with C > B"
    )
    duplicates = torch.zeros(4, 7, dtype=torch.bool)
    duplicates[0, 5] = duplicates[2, 1] = duplicates[3, 3] = True
    loss = llm_text.caption_loss(first, second, duplicates)
    assert close(loss, caption_loss_by_hand(first, second, duplicates)), (
        "with hard negatives, `duplicates` is (B, C), too: its diagonal are the places (i, i)"
    )


def test_caption_loss_with_many_duplicates():
    first, second = features(6, 6, 26), features(9, 6, 27)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        duplicates = torch.rand(6, 9, generator=generator) < 0.4  # not symmetric
        loss = llm_text.caption_loss(first, second, duplicates)
        assert close(loss, caption_loss_by_hand(first, second, duplicates)), (
            "the loss with duplicates is wrong: duplicates[i, j] belongs to first caption i and "
            "second caption j, and the diagonal plays no part"
        )
    everything = torch.ones(6, 9, dtype=torch.bool)
    assert close(llm_text.caption_loss(first, second, everything), 0), (
        "where all belong together, only the partner is left, and the loss is 0"
    )


def test_scale_of_the_caption_loss():
    first, second = features(4, 6, 28), features(4, 6, 29)
    for scale in (1.0, 20.0, 100.0):
        loss = llm_text.caption_loss(first, second, scale=scale)
        assert close(loss, caption_loss_by_hand(first, second, scale=scale)), (
            f"with the scale {scale} the loss is wrong: multiply the cosines by it"
        )
    assert close(llm_text.caption_loss(first, second), caption_loss_by_hand(first, second)), (
        "without an argument the scale is 50"
    )
    same_features = features(1, 6, 30).expand(8, 6)
    assert close(llm_text.caption_loss(same_features, same_features), math.log(8)), (
        "a model that tells no captions apart guesses, and that costs ln C"
    )


# --------------------------------------------------------------------------------------------------
# 8.4 caption_retrieval


def test_caption_retrieval_by_hand():
    first = torch.eye(4)
    second = torch.tensor(
        [[0.8, 0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0.9, 0.1, 0.4], [0, 0, 0.7, 0.7]]
    )
    # The partners of 0 and 1 are nearest. 2 is nearer to the partner of 3; so is 3, its own.
    share = llm_text.caption_retrieval(first, second)
    assert isinstance(share, float), f"the result is a plain float, not {type(share).__name__}"
    assert close(share, 0.5, 1e-4), (
        f"the nearest neighbour of captions 0 and 3 is their partner, that of 1 and 2 is not, so the "
        f"share is 0.5, but yours is {share}: each FIRST caption chooses among the second ones"
    )


def test_caption_retrieval_of_a_collapsed_model():
    alike = torch.ones(6, 4)
    assert llm_text.caption_retrieval(alike, alike) == 0, (
        "a model that gives all captions the same vector must score 0: a tie is wrong (argmax does "
        "not know that)"
    )


def test_caption_retrieval_takes_cosines():
    first, second = features(20, 5, 40), features(20, 5, 41)
    share = llm_text.caption_retrieval(first, second)
    longer = second * torch.linspace(0.1, 10, 20)[:, None]
    assert close(llm_text.caption_retrieval(first, longer), share), (
        "the score changes when a vector becomes longer: compare cosines, so give all vectors unit "
        "length first"
    )


def test_caption_retrieval_equals_sorting():
    for seed, noise in ((42, 0.3), (43, 1.0), (44, 3.0)):
        first = numbers(60, 8, seed=seed)
        second = first + noise * numbers(60, 8, seed=seed + 100)
        cosines = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T
        expected = (cosines.argmax(1) == torch.arange(60)).double().mean().item()
        share = llm_text.caption_retrieval(first, second)
        assert close(share, expected, 1e-4), (
            f"the score is {share:.3f}, and sorting the full matrix row by row gives {expected:.3f}"
        )


def test_caption_retrieval_with_a_tie():
    first = torch.eye(3)
    second = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    assert close(llm_text.caption_retrieval(first, second), 1 / 3, 1e-4), (
        "caption 0 finds two equally near ones, which is wrong, whichever is stored first"
    )
    assert close(llm_text.caption_retrieval(torch.ones(1, 3), torch.ones(1, 3)), 1), (
        "one caption alone has its partner as nearest neighbour: do not count it as its own rival"
    )
    first[2] = math.nan
    assert llm_text.caption_retrieval(first, torch.eye(3)) <= 2 / 3 + 1e-4, (
        "a caption whose vector is not a number is wrong"
    )


# --------------------------------------------------------------------------------------------------
# 8.5 merge_adapter


def llm_of(seed=50):
    """A language model of two random blocks. Its tokenizer is never asked for a text."""
    config = LlamaConfig(
        vocab=20,
        width=8,
        depth=2,
        heads=2,
        kv_heads=1,
        head_dim=4,
        mlp_width=12,
        eps=1e-6,
        rope_theta=100.0,
        rope_divisors=1.0,
        qkv_bias=False,
        o_bias=False,
        mlp_bias=False,
        qk_norm=False,
    )
    model = llm_text.Llama(config)
    for i, parameter in enumerate(model.parameters()):
        if parameter.ndim == 2:
            parameter.data = numbers(*parameter.shape, seed=seed + i, dtype=torch.float32) / 2
    tokenizer = SimpleNamespace(prefix=[], encode=lambda text: [0])
    return llm_text.FrozenLLM(model, tokenizer, "hash of the model")


NAMES = ("layers.0.self_attn.k_proj", "layers.0.mlp.up_proj", "layers.1.mlp.down_proj")


def adapter_for(llm, scale=2.0, rank=3, layer=1, bidirectional=False, hash="hash of the model"):
    pairs = {}
    for i, name in enumerate(NAMES):
        d_out, d_in = llm.model.get_submodule(name).weight.shape
        A = numbers(rank, d_in, seed=60 + i, dtype=torch.float32) / 4
        B = numbers(d_out, rank, seed=70 + i, dtype=torch.float32) / 4
        pairs[name] = (A, B)
    return Adapter(pairs, scale, hash, layer, bidirectional)


class Detour(nn.Module):
    """A LoRA that is not merged."""

    def __init__(self, linear, A, B, scale):
        super().__init__()
        self.linear, self.A, self.B, self.scale = linear, A, B, scale

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T) @ self.B.T


@torch.no_grad()
def test_merged_equals_unmerged():
    ids, mask = torch.arange(15).view(3, 5), torch.ones(3, 5, dtype=torch.bool)
    for scale in (2.0, 0.5):
        merged, unmerged = llm_of(), llm_of()
        adapter = adapter_for(merged, scale)
        for name, (A, B) in adapter.pairs.items():
            linear = unmerged.model.get_submodule(name)
            unmerged.model.set_submodule(name, Detour(linear, A, B, scale))
        before = merged.model(ids, mask)
        llm_text.merge_adapter(merged, adapter)
        after = merged.model(ids, mask)
        assert not same(before, after, 1e-3), "the model is what it was: the weights must change"
        assert same(after, unmerged.model(ids, mask), 1e-3), (
            "the merged model does not give what the model with detours gives: add (alpha / r) B A "
            "to each weight W. B is (d_out, r), A is (r, d_in), and adapter.scale is alpha / r"
        )


def test_an_adapter_of_another_model_is_refused():
    llm = llm_of()
    before = [p.clone() for p in llm.parameters()]
    refused = False
    try:
        llm_text.merge_adapter(llm, adapter_for(llm, hash="another"))
    except BadInput:
        refused = True
    assert refused, "an adapter that was tuned on another model must raise BadInput: compare hashes"
    assert all(torch.equal(p, q) for p, q in zip(before, llm.parameters(), strict=True)), (
        "a model that refuses an adapter must stay as it was"
    )


def test_only_the_named_weights_change():
    llm, fresh = llm_of(), llm_of()
    adapter = adapter_for(llm, scale=1.5)
    llm_text.merge_adapter(llm, adapter)
    old = dict(fresh.model.named_parameters())
    for name, new in llm.model.named_parameters():
        module = name.removesuffix(".weight")
        if module in adapter.pairs:
            A, B = adapter.pairs[module]
            assert same(new, old[name] + 1.5 * B @ A, 1e-4), f"{name} must become W + scale B A"
        else:
            assert torch.equal(new, old[name]), f"{name} is not in the adapter, and yet it changed"
    assert not any(p.requires_grad for p in llm.parameters()), "the model must stay frozen"


def test_a_merged_model_knows_how_to_be_read():
    for layer, bidirectional in ((1, True), (2, False)):
        llm = llm_of()
        llm_text.merge_adapter(llm, adapter_for(llm, layer=layer, bidirectional=bidirectional))
        assert llm.tuned_layer == layer, (
            "the model must remember the block after which the adapter is to be read: tuned_layer"
        )
        assert llm.model.bidirectional == bidirectional, (
            "an adapter that was tuned with the whole caption in sight must be read so, too"
        )


def test_an_adapter_of_other_shapes_is_refused():
    for wrong in ("A", "B"):
        llm = llm_of()
        adapter = adapter_for(llm)
        A, B = adapter.pairs[NAMES[1]]
        # The product would fit, or could be broadcast.
        adapter.pairs[NAMES[1]] = (A[:, :1], B) if wrong == "A" else (A, B[:1])
        refused = False
        try:
            llm_text.merge_adapter(llm, adapter)
        except ValueError:
            refused = True
        assert refused, (
            f"{wrong} has the wrong shape, and its product is spread over the whole weight: raise "
            "ValueError where A is not (r, d_in) or B not (d_out, r)"
        )


def test_an_adapter_that_is_not_finite_is_refused():
    for bad in (math.nan, math.inf):
        llm = llm_of()
        adapter = adapter_for(llm)
        adapter.pairs[NAMES[2]][0][0, 0] = bad
        refused = False
        try:
            llm_text.merge_adapter(llm, adapter)
        except ValueError:
            refused = True
        assert refused, "an adapter with numbers that are not finite must raise ValueError"
