"""llm_text.py: hidden states against transformers, pooling by hand, whitening, batches, the command
line. Tuning is tested in test_tune.py, broken files in data/files/test_llm.py.

python -m pytest tests/test_llm_text.py
"""

import copy
import functools
import hashlib
import json
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import llm_text
from data.captions import END, DistinctCaptions
from data.common import BadInput, chunks
from data.files.llm import LlamaConfig, fetch_default
from data.vectors import CaptionVectors, StoredRows
from data.world.shapes import caption, make_scenes
from llm_text import POOLS, load_llm
from tests.data.files.examples import TINY_MODELS, random_texts
from tests.tiny_llm import write_tiny_llm

ROOT = Path(llm_text.__file__).parent

# Of write_tiny_llm, whose tokens are the bytes.
VOCAB = 256


@pytest.fixture(scope="module")
def models():
    """reference_models.py. Tests that take it are skipped where one of its packages is missing."""
    from tests.data.files import reference_models

    return reference_models


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """A language model of three blocks, of width 32."""
    return write_tiny_llm(tmp_path_factory.mktemp("tiny"), depth=3)


@pytest.fixture
def tiny_llm(tiny_folder):
    """The same, loaded. Its tokenizer puts an id before every text."""
    llm = load_llm(tiny_folder)
    llm.tokenizer.prefix = [255]
    llm.start = llm_text.start_of(llm.tokenizer)
    return llm


def relative_error(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


# --------------------------------------------------------------------------------------------------
# The parts of the transformer, by hand.


def tiny_config(**changes):
    """Four heads of queries of width 4, which share two of keys and values; two blocks."""
    sizes = {"vocab": 10, "width": 12, "depth": 2, "mlp_width": 5, "eps": 0.1, "rope_theta": 100.0}
    heads = {"heads": 4, "kv_heads": 2, "head_dim": 4, "rope_divisors": 1.0, "qk_norm": False}
    biases = dict.fromkeys(("qkv_bias", "o_bias", "mlp_bias"), False)
    return LlamaConfig(**{**sizes, **heads, **biases, **changes})


def angle(position, i):
    """Of pair i at a position, for heads of width 4 and theta = 100."""
    return position * 100 ** (-2 * i / 4)


def test_rms_norm_by_hand():
    norm = llm_text.RMSNorm(3, eps=0.5)
    norm.weight.data = torch.tensor([1.0, 2.0, -1.0])
    root = math.sqrt((1 + 4 + 9) / 3 + 0.5)
    wanted = [1 / root, 4 / root, -3 / root]
    assert norm(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx(wanted)
    half = norm(torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16))
    assert half.tolist() == pytest.approx(wanted, rel=0.01)


def test_rotation_by_hand():
    """Elements 0 and 2 are a pair, and 1 and 3; the second pair turns ten times as slowly."""
    x = torch.randn(1, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    angles = torch.tensor([[angle(m, i) for i in (0, 1, 0, 1)] for m in range(3)])
    rows = llm_text.rotate(x, angles.cos(), angles.sin())[0, 0].tolist()
    for m, (row, (a, b, c, d)) in enumerate(zip(rows, x[0, 0].tolist(), strict=True)):
        cos, sin = [math.cos(angle(m, i)) for i in (0, 1)], [math.sin(angle(m, i)) for i in (0, 1)]
        wanted = [a * cos[0] - c * sin[0], b * cos[1] - d * sin[1]]
        wanted += [c * cos[0] + a * sin[0], d * cos[1] + b * sin[1]]
        assert row == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_attention_by_hand(qk_norm):
    """softmax(q k^T / sqrt(d)) v for each head, one number after the other.

    The heads 0 and 1 read the first head of keys and values, 2 and 3 the second one. A token sees
    itself and those before it.
    """
    torch.manual_seed(0)
    L, d = 3, 4
    attention = llm_text.Attention(tiny_config(qk_norm=qk_norm)).double()
    x = torch.randn(L, 12, dtype=torch.float64)
    angles = torch.tensor([[angle(m, i) for i in (0, 1, 0, 1)] for m in range(L)])
    cos, sin = angles.cos().double(), angles.sin().double()
    heads = {}
    for name, count in (("q", 4), ("k", 2), ("v", 2)):
        heads[name] = getattr(attention, f"{name}_proj")(x).view(L, count, d).transpose(0, 1)
    for name in ("q", "k"):
        if qk_norm:
            norm = getattr(attention, f"{name}_norm")
            torch.nn.init.normal_(norm.weight)
            x_norm = heads[name] / (heads[name].square().mean(-1, keepdim=True) + 0.1).sqrt()
            heads[name] = x_norm * norm.weight
        heads[name] = llm_text.rotate(heads[name][None], cos, sin)[0]
    q, k, v = (heads[name].tolist() for name in "qkv")
    rows = []
    for i in range(L):
        row = []
        for h in range(4):
            g = h // 2
            logits = []
            for j in range(i + 1):
                product = sum(q[h][i][p] * k[g][j][p] for p in range(d))
                logits.append(product / math.sqrt(d))
            total = sum(math.exp(logit) for logit in logits)
            weights = [math.exp(logit) / total for logit in logits]
            row += [sum(w * v[g][j][p] for j, w in enumerate(weights)) for p in range(d)]
        rows.append(row)
    wanted = attention.o_proj(torch.tensor(rows, dtype=torch.float64))
    assert torch.allclose(attention(x[None], cos, sin, None)[0], wanted, atol=1e-6)


def test_the_gated_network_by_hand():
    torch.manual_seed(0)
    mlp, x = llm_text.MLP(tiny_config()), torch.randn(2, 12)
    gate, up = x @ mlp.gate_proj.weight.T, x @ mlp.up_proj.weight.T
    wanted = (gate / (1 + torch.exp(-gate)) * up) @ mlp.down_proj.weight.T
    assert torch.allclose(mlp(x), wanted, atol=1e-6)


def test_the_model_is_its_parts():
    """Embeddings, angles of every position, blocks of two norms, and after all of them one more."""
    torch.manual_seed(0)
    model = llm_text.Llama(tiny_config())
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter)
    ids, mask = torch.tensor([[3, 1, 4, 1]]), torch.ones(1, 4, dtype=torch.bool)
    angles = torch.tensor([[angle(m, i) for i in (0, 1, 0, 1)] for m in range(4)])
    cos, sin = angles.cos(), angles.sin()
    x = model.embed_tokens.weight[ids]
    states = []
    for block in model.layers:
        x = x + block.self_attn(block.input_layernorm(x), cos, sin, None)
        x = x + block.mlp(block.post_attention_layernorm(x))
        states.append(x)
    assert torch.allclose(model(ids, mask, 1), states[0], atol=1e-5)
    for layer in (None, 2):
        assert torch.allclose(model(ids, mask, layer), model.norm(states[1]), atol=1e-5)


def test_in_both_directions_a_token_sees_the_caption_and_no_padding():
    torch.manual_seed(0)
    model = llm_text.Llama(tiny_config())
    ids, mask = torch.tensor([[3, 1, 4, 7]]), torch.tensor([[True, True, True, False]])
    model.bidirectional = True
    seen = model(ids, mask)[0, 0]
    for place, is_seen in ((2, True), (3, False)):
        other = ids.clone()
        other[0, place] = 9
        assert torch.equal(model(other, mask)[0, 0], seen) != is_seen


# --------------------------------------------------------------------------------------------------
# Hidden states.


def assert_same_hidden_states(ours, states, last_state, ids, layers):
    """Ours after these layers, and after the final norm, are those of transformers."""
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert len(states) == ours.depth + 1
    for layer in layers:
        assert relative_error(ours(ids, mask, layer), states[layer]) < 1e-4, f"layer {layer}"
    for layer in (None, ours.depth):
        assert relative_error(ours(ids, mask, layer), last_state) < 1e-4, "final norm"


def write_config_as_transformers_4(folder, rope_type_key):
    """Rewrite config.json as transformers 4 wrote it, which had two keys for the rope type."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["torch_dtype"] = config.pop("dtype")
    rope_type = rope.pop("rope_type")
    config["rope_scaling"] = None
    if rope_type != "default":
        config["rope_scaling"] = rope | {rope_type_key: rope_type}
    file.write_text(json.dumps(config))


@pytest.mark.reference
@pytest.mark.parametrize("name", TINY_MODELS)
@pytest.mark.parametrize("saved", ["v5", "v4, shards, bf16", "v4, shards, bare, old rope type key"])
def test_hidden_states_of_hf_folders(models, tmp_path, name, saved):
    """Of every family, saved by transformers 5, and as transformers 4 did it."""
    model = models.tiny_model(name, with_head="bare" not in saved)
    if "bf16" in saved:
        model = model.bfloat16()
    models.save_hf(tmp_path, model, max_shard_size="60KB" if "shards" in saved else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == ("shards" in saved)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "rope_theta" in config["rope_parameters"] and "rope_theta" not in config
    if "v4" in saved:
        write_config_as_transformers_4(tmp_path, "type" if "old" in saved else "rope_type")

    reference = models.transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.float32)
    wanted = models.hidden_states(reference, models.IDS)
    assert_same_hidden_states(load_llm(tmp_path), *wanted, models.IDS, layers=(1, 2))


def rope_divisors(model):
    """What a converter stores of Llama 3's rotary embedding: the divisors of the frequencies."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    plain = 500.0 ** -(torch.arange(0, 16, 2) / 16)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](model.config, "cpu")
    divisors = plain / scaled
    # Some waves are kept, some are slowed by 8, some are blended.
    assert {1, 8} < set(divisors.round(decimals=3).tolist())
    return divisors.numpy()


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
@pytest.mark.parametrize(
    "name", ["llama", "llama no GQA", "llama theta 1e4", "llama3 rope", "qwen2", "qwen3"]
)
def test_hidden_states_of_gguf_files(models, tmp_path, name, kind):
    """And token ids, with those that the file puts before and behind a text."""
    model = models.tiny_model(name)
    tensors = {}
    if name == "llama3 rope":
        tensors = {"rope_freqs.weight": (rope_divisors(model), "F32")}
    ours = load_llm(models.write_gguf(tmp_path / "x.gguf", model, kind, tensors=tensors))
    wanted = models.hidden_states(model, models.IDS)
    assert_same_hidden_states(ours, *wanted, models.IDS, layers=(1, 2))

    tokenizer = models.tokenizers.Tokenizer.from_str(json.dumps(models.TOKENIZER))
    texts = models.shared_texts(50, 5)
    lists, _ = ours.tokenizer.encode_all(texts)
    spaced = [text if text[:1].isspace() else f" {text}" for text in texts]
    assert lists == [encoding.ids + [7] for encoding in tokenizer.encode_batch(spaced)]


@pytest.mark.reference
@pytest.mark.real_llm
@pytest.mark.slow
def test_hidden_states_of_smollm2(llm, models, monkeypatch):
    """The real file, which transformers decodes, too."""
    monkeypatch.setattr(models.gguf, "GGUFReader", models.read_with_gguf)
    file = fetch_default()
    reference = models.transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    for text in (
        "A red ball lies on the grass beside two dogs that look at it.",
        "3 men's boats, 2019\n\n",
    ):
        ids, _ = llm.tokenize([text])
        wanted = models.hidden_states(reference, ids)
        assert_same_hidden_states(llm, *wanted, ids, layers=(1, 2, 10, 20, 29))


def test_the_model_is_causal(tiny_llm):
    """Another last token changes the last state only."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(0, VOCAB, (2, 40), generator=generator)
    mask = torch.ones_like(ids, dtype=torch.bool)
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % VOCAB
    for layer in (1, 2, None):
        a = tiny_llm(ids, mask, layer)
        b = tiny_llm(changed, mask, layer)
        assert relative_error(a[:, :-1], b[:, :-1]) < 1e-6
        assert relative_error(a[:, -1], b[:, -1]) > 0.1


def test_the_model_is_frozen(tiny_llm):
    ids, mask = tiny_llm.tokenize(["a dog"])
    assert not tiny_llm(ids, mask).requires_grad
    assert not any(parameter.requires_grad for parameter in tiny_llm.parameters())


# --------------------------------------------------------------------------------------------------
# Pooling and batches.


def test_pooling_by_hand():
    """Captions of two, one and three tokens, after the token that stands before every caption."""
    h = torch.tensor(
        [
            [[1.0, 2], [3, 4], [5, 8], [99, 99]],
            [[7, 9], [6, 2], [9, 9], [9, 9]],
            [[8, 8], [1, 2], [3, 4], [5, 0]],
        ]
    )
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert llm_text.last_token(h, mask).tolist() == [[5, 8], [6, 2], [5, 0]]
    assert llm_text.mean_token(h, mask).tolist() == [[4, 6], [6, 2], [3, 2]]
    assert llm_text.all_tokens(h, mask).tolist() == [
        [[0, 0], [3, 4], [5, 8], [0, 0]],
        [[0, 0], [6, 2], [0, 0], [0, 0]],
        [[0, 0], [1, 2], [3, 4], [5, 0]],
    ]
    for pooling in POOLS.values():
        assert pooling.function(h.bfloat16(), mask).dtype == torch.float32


@pytest.mark.parametrize(
    "pool, made",
    [
        ("last", "4 0ca2ecbc8246"),
        ("mean", "4 68635e81d9ac"),
        ("prompt", "4 0ca2ecbc8246"),
        ("tokens", "4 c4c6383c7b11"),
    ],
)
def test_what_a_pooling_makes_is_tied_to_its_format(pool, made, tiny_llm):
    """Who changes what a pooling makes must give it a new format (FrozenLLM.settings).

    Otherwise old caches are taken for new ones. If this fails, raise the format, then write both
    down here. The numbers are small and whole: they have the same bits on every machine.
    """
    h = torch.arange(40).view(2, 5, 4).float() - 17
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    vectors = POOLS[pool].function(h, mask)
    content = hashlib.blake2b(vectors.numpy().tobytes(), digest_size=6).hexdigest()
    assert f"{tiny_llm.settings(pool, 1, 77)['format']} {content}" == made


@pytest.mark.parametrize(
    "pool, layer, before, after",
    [
        ("last", 3, "", ""),
        ("mean", 1, "", ""),
        ("prompt", 3, 'This sentence: "', '" means in one word: "'),
    ],
)
def test_a_vector_does_not_depend_on_the_other_texts(tiny_llm, pool, layer, before, after):
    texts = ["a", *random_texts(60, 11), "a man bites a dog", "two " * 60, "a dog bites a man"]
    alone = torch.cat([tiny_llm.encode([text], pool) for text in texts])
    # Not nearly, but bit for bit: a cache must not show in which order it was filled.
    assert torch.equal(tiny_llm.encode(texts, pool), alone)
    assert torch.equal(tiny_llm.encode(texts[::-1], pool).flip(0), alone)
    assert torch.equal(tiny_llm.encode(texts[1::3], pool), alone[1::3])
    assert torch.pdist(alone).min() > 0.01  # the captions do differ

    # What each pooling reads, written out: its words around the caption, its layer, its tokens.
    tokenizer = tiny_llm.tokenizer
    space = "" if pool == "prompt" else " "  # behind the quotation mark there is none
    ids = tokenizer.prefix + tokenizer.encode(before) + tokenizer.encode(space + texts[-1])
    ids = torch.tensor([ids + tokenizer.encode(after)])
    h = tiny_llm(ids, torch.ones_like(ids, dtype=torch.bool), layer)[0]
    wanted = h[1:].mean(0) if pool == "mean" else h[-1]
    assert relative_error(alone[-1], wanted) < 1e-5


def test_the_mean_and_ape_read_a_third_of_the_blocks(tiny_llm):
    """The model has three blocks. The other poolings read all of them."""
    layers = {pool: tiny_llm.pool_layer(pool) for pool in ("mean", "tokens", "last", "prompt")}
    assert layers == {"mean": 1, "tokens": 1, "last": 3, "prompt": 3}


@pytest.mark.real_llm
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vector_of_smollm2_does_not_depend_on_the_other_texts(llm, dtype):
    llm = copy.deepcopy(llm).to(dtype)
    texts = [caption(scene) for scene in make_scenes("test", 70)]
    together = llm.encode(texts)
    assert torch.equal(llm.encode(texts[5:40:7]), together[5:40:7])
    assert torch.equal(llm.encode(texts[40:50]), together[40:50])


def test_something_that_is_no_caption_stands_first(tiny_folder):
    """A start token where the tokenizer has one, a new line elsewhere; never the first word."""
    llm = load_llm(tiny_folder)
    assert llm.tokenizer.prefix == [] and llm.start == "\n"
    ids, mask = llm.tokenize(["a dog"])
    assert ids[0].tolist() == llm.tokenizer.encode("\n") + llm.tokenizer.encode(" a dog")
    h = llm(ids, mask, 1)[0]
    assert relative_error(llm.encode(["a dog"])[0], h[1:].mean(0)) < 1e-5

    llm.tokenizer.prefix = [255]
    assert llm_text.start_of(llm.tokenizer) == ""
    llm.tokenizer.prefix = [255, 254]
    with pytest.raises(BadInput, match="2 tokens before a caption"):
        llm_text.start_of(llm.tokenizer)


def test_a_live_language_model_gets_the_same_start(tiny_folder):
    source = llm_text.TextSource(llm=str(tiny_folder))
    words = llm_text.text_reader("ids", source, "cpu")(["a dog"])[0].tolist()
    with_start = llm_text.text_reader("llm_ids", source, "cpu")(["a dog"])[0].tolist()
    tokenizer = load_llm(tiny_folder).tokenizer
    assert words == [*tokenizer.encode(" a dog"), END]
    assert with_start == [*tokenizer.encode("\n"), *words]


def test_a_reader_keeps_the_blocks_that_it_reads_and_no_others(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path))
    llm = load_llm(tiny_folder)
    for layer in (1, llm.depth):
        source = llm_text.TextSource(llm=str(tiny_folder), llm_dtype="float32", layer=layer)
        reader = llm_text.text_reader("vectors", source, "cpu")
        assert len(reader.llm.model.layers) == layer
        assert reader.frozen_parameters == sum(p.numel() for p in llm.parameters())
        assert torch.equal(reader(["a dog"]), llm.encode(["a dog"], layer=layer).half())
        if layer < llm.depth:
            with pytest.raises(
                ValueError, match=f"block {layer + 1} is not there: {layer} are left"
            ):
                reader.llm.encode(["a dog"], layer=layer + 1)


@pytest.mark.parametrize("pool", POOLS)
def test_the_first_word_counts(tiny_folder, pool):
    llm = load_llm(tiny_folder)
    kind = functools.partial(CaptionVectors, llm, pool, context_length=77)
    with tempfile.TemporaryDirectory() as folder:
        first, other = kind(folder=folder)(["red car", "big car"])
    assert relative_error(first.float(), other.float()) > 0.05


@pytest.mark.real_llm
def test_the_first_word_of_a_caption_counts_in_smollm2(llm):
    """With the first word left out, "red car" and "blue car" had a cosine of .98 when centred."""
    scenes = make_scenes("train", 300)
    mean, matrix = llm_text.whitening(llm.encode([caption(scene) for scene in scenes]), 256)

    def cosine(one, other):
        a, b = (llm.encode([one, other]) - mean) @ matrix
        return float(torch.nn.functional.cosine_similarity(a, b, dim=0))

    assert cosine("car", "A car.") > cosine("car", "apple") + 0.2
    assert cosine("red car", "blue car") < 0.95
    assert cosine("dog on a beach", "cat on a beach") < 0.95


def test_padding_is_on_the_right_and_never_read(tiny_llm):
    texts = ["a dog bites a man", "a", "two dogs"]
    ids, mask = tiny_llm.tokenize(texts)
    lists, _ = tiny_llm.tokenizer.encode_all(texts)
    assert [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)] == lists
    other_padding = torch.where(mask, ids, VOCAB - 1)
    assert not torch.equal(ids, other_padding)
    assert torch.equal(tiny_llm(ids, mask)[mask], tiny_llm(other_padding, mask)[mask])
    with pytest.raises(ValueError, match="right"):
        tiny_llm(ids.flip(1), mask.flip(1))


def test_the_token_of_number_0_is_no_padding(tiny_llm):
    ids, mask = tiny_llm.tokenize(["a!", "a"])  # "!" is the first byte that has a spelling
    assert ids[0, -1] == 0 and mask.tolist() == [[True] * 4, [True, True, True, False]]


@pytest.mark.parametrize("pool, layer", [("median", None), ("mean", 4), ("mean", -1), ("mean", 0)])
def test_poolings_and_layers_that_do_not_exist_are_refused(tiny_llm, pool, layer):
    says = pool if layer is None else f"block {layer}"
    with pytest.raises(BadInput, match=says):
        tiny_llm.encode(["a"], pool, layer)


# --------------------------------------------------------------------------------------------------
# Whitening.


@pytest.fixture
def skewed():
    """300 vectors of width 20, far from zero, along some directions longer than along others."""
    generator = torch.Generator().manual_seed(12)
    independent = torch.randn(300, 20, generator=generator)
    return independent @ torch.randn(20, 20, generator=generator) + 5


def test_whitened_vectors_have_mean_zero_and_variance_one(skewed):
    """They are read as the cache gives them: some rows of a table in float16."""
    cached = StoredRows(skewed.half().repeat(2, 1), torch.arange(300, 600))
    mean, matrix = llm_text.whitening(cached, 7, power=1)
    assert mean.dtype == matrix.dtype == torch.float32 and matrix.shape == (20, 7)
    y = (skewed.half().float() - mean) @ matrix
    assert y.mean(0).abs().max() < 1e-4
    assert (y.T @ y / 300 - torch.eye(7)).abs().max() < 1e-3

    # Other powers even the same directions out less: the variance along them is sigma^(2 - 2a).
    sigma = 1 / matrix.norm(dim=0)  # (7,): V has unit columns
    for power in (0.0, 0.5):
        _, milder = llm_text.whitening(cached, 7, power)
        assert torch.allclose(milder, matrix * sigma ** (1 - power), rtol=1e-4, atol=1e-6)

    # The kept directions are those of the largest variance: numpy's singular vectors span the same.
    _, _, directions = np.linalg.svd((skewed - skewed.mean(0)).numpy())
    top = torch.from_numpy(directions[:7].T)
    assert relative_error(top @ (top.T @ matrix), matrix) < 0.01


@pytest.fixture
def described(skewed):
    """Which of 100 images has which of the 300 vectors as captions, and how these differ.

    Images 0 to 89 have three each, which differ by little; images 90 to 99 have one each, the rest
    of the vectors belongs to nobody.
    """
    vectors = skewed.clone()
    generator = torch.Generator().manual_seed(13)
    small = torch.randn(20, 20, generator=generator) / 5
    for i in range(90):
        for j in range(3):
            noise = torch.randn(20, generator=generator) @ small
            vectors[3 * i + j] = skewed[3 * i] + noise
    lists = [[str(3 * i + j) for j in range(3)] for i in range(90)]
    lists += [[str(270 + i)] for i in range(30)]
    return vectors, lists


def test_the_scatter_within_images_is_that_of_their_captions_about_their_mean(described):
    vectors, lists = described
    # Images with equal captions count once, whatever their order, and so does a caption said twice.
    again = [[*reversed(texts), texts[0]] for texts in lists[:40]]
    captions = DistinctCaptions(lists + again)
    by_hand = np.zeros((20, 20))
    for i in range(90):
        x = vectors[3 * i : 3 * i + 3].double().numpy()
        by_hand += (x - x.mean(0)).T @ (x - x.mean(0))
    ours = llm_text.scatter_within(StoredRows(vectors, torch.arange(300)), captions)
    assert np.allclose(ours, by_hand / 270, rtol=1e-6, atol=1e-9)

    with pytest.raises(BadInput, match="no image has two"):
        llm_text.scatter_within(vectors, DistinctCaptions(lists[90:]))
    with pytest.raises(BadInput, match="no image has two"):
        llm_text.scatter_within(vectors, DistinctCaptions([["1", "1"], ["2", "2"]]))


def test_whitening_with_the_scatter_within_solves_the_problem_of_fisher(described):
    """LDA: matrix^T S matrix = 1 and matrix^T C matrix is diagonal, with the largest values.

    The values are found another way as well, by a Cholesky factor L of S: those of L^-1 C L^-T.
    """
    vectors, lists = described
    within = llm_text.scatter_within(vectors, DistinctCaptions(lists))
    before = llm_text.lda_map(within)
    mean, matrix = llm_text.whitening(vectors, 7, power=0, before=before)
    x = (vectors - mean).double().numpy()
    covariance = x.T @ x / 300
    shrunk = within.numpy() + np.eye(20) * np.trace(within) / 20
    M = matrix.double().numpy()
    assert np.allclose(M.T @ shrunk @ M, np.eye(7), atol=1e-4)
    values = M.T @ covariance @ M
    inverse = np.linalg.inv(np.linalg.cholesky(shrunk))
    theirs = np.linalg.eigvalsh(inverse @ covariance @ inverse.T)[::-1][:7]
    assert np.allclose(values, np.diag(theirs), rtol=1e-3, atol=1e-3 * theirs[0])
    # With the power 1 these strengths are made equal.
    _, even = llm_text.whitening(vectors, 7, power=1, before=before)
    even = even.double().numpy()
    assert np.allclose(even.T @ covariance @ even, np.eye(7), atol=1e-3)


def test_whitening_to_0_directions_only_centres(skewed):
    mean, matrix = llm_text.whitening(skewed, 0)
    assert torch.equal(matrix, torch.eye(20)) and torch.allclose(mean, skewed.mean(0), atol=1e-5)


def test_whitening_to_too_many_directions_is_refused(skewed):
    # Twelve different captions, of which the mean takes one direction away.
    twelve = skewed[:12].repeat(20, 1)
    assert llm_text.whitening(twelve, 11)[1].abs().max() < 10
    for vectors, most in ((skewed, 20), (skewed[:7], 6), (twelve, 11)):
        with pytest.raises(BadInput, match="--whiten") as refused:
            llm_text.whitening(vectors, most + 1)
        assert str(most) in re.findall(r"\d+", str(refused.value))


# --------------------------------------------------------------------------------------------------
# The command line.


@pytest.fixture
def command(tiny_folder, monkeypatch, capsys):
    """llm_text.py with these arguments -> (exit status, stdout, stderr). `llm`: another model."""

    def call(*arguments, llm=tiny_folder):
        argv = ["llm_text.py", *arguments, "--llm", str(llm), "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", argv)
        status = llm_text.exit_status(llm_text.main)
        return status, *capsys.readouterr()

    return call


def test_captions_are_compared_with_every_pooling(command):
    status, out, err = command("a dog", "a cat")
    wanted = (
        r".*3 blocks of width 32.*last after block 3.*mean after block 1.*prompt after block 3"
        r".*\[2\] +0\.\d+ +1\.000.*"
    )
    assert status == 0 and re.fullmatch(wanted, out, re.DOTALL) and err == ""


def test_captions_are_compared_with_one_pooling(command):
    status, out, err = command("a", "--pool", "mean", "--layer", "2")
    assert status == 0 and "mean after block 2" in out and "prompt" not in out and err == ""


def test_what_cannot_be_used_is_told_in_one_line(command, tmp_path):
    status, _, err = command("a", "--layer", "9")
    assert status == 2 and re.fullmatch(r"error: [^\n]*block 9[^\n]*\n", err)
    nowhere = tmp_path / "none"
    status, out, err = command("a", llm=nowhere)
    assert status == 2 and re.fullmatch(rf"error: [^\n]*{re.escape(str(nowhere))}[^\n]*\n", err)
    assert out == ""


@pytest.mark.slow
def test_a_file_that_is_no_model_is_told_in_one_line(tmp_path):
    """In a process of its own, as on a terminal."""
    file = tmp_path / "BAD"
    file.write_bytes(b"no model")
    done = subprocess.run(
        [sys.executable, ROOT / "llm_text.py", "x", "--llm", file],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert re.fullmatch(rf"error: {re.escape(str(file))}.*\n", done.stderr)


def test_whitening_in_pieces_is_that_of_the_whole(described, monkeypatch):
    vectors, lists = described
    captions = DistinctCaptions(lists)
    wanted = llm_text.whitening(vectors, 7), llm_text.scatter_within(vectors, captions)
    monkeypatch.setattr(llm_text, "chunks", lambda rows, size=0: chunks(rows, 7))
    (mean, matrix), within = (
        llm_text.whitening(vectors, 7),
        llm_text.scatter_within(vectors, captions),
    )
    assert torch.allclose(mean, wanted[0][0]) and torch.allclose(within, wanted[1])
    assert torch.allclose(matrix @ matrix.T, wanted[0][1] @ wanted[0][1].T, rtol=1e-3, atol=1e-5)


def test_a_text_of_more_than_2048_tokens_is_read(tiny_llm):
    assert tiny_llm.encode(["a" * 2100]).isfinite().all()
