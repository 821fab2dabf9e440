"""A random little Llama that reads single bytes: to test with where what it says does not matter.

It is written without any package but torch, so that tests that need no reference run without one.
"""

import json

import torch

from data.files.tensors import write_safetensors


def byte_alphabet():
    """GPT-2's spelling of the 256 bytes as printable characters, sorted."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return sorted(chr(i) for i in [*plain, *range(256, 512 - len(plain))])


def write_tiny_llm(folder, depth=2, width=32, merges=()):
    """Write a Hugging Face folder: `depth` blocks, with 4 heads of width 8 that share 2 of keys.

    merges  pairs of tokens such as ("a", "b"), which the tokenizer makes one; at first bytes only
    """
    config = {
        "model_type": "llama",
        "vocab_size": 256 + len(merges),
        "hidden_size": width,
        "intermediate_size": 64,
        "rope_theta": 1e4,
        "num_hidden_layers": depth,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rms_norm_eps": 1e-5,
    }
    (folder / "config.json").write_text(json.dumps(config))

    block = {
        "self_attn.q_proj": (32, width),
        "self_attn.k_proj": (16, width),
        "self_attn.v_proj": (16, width),
        "self_attn.o_proj": (width, 32),
        "mlp.gate_proj": (64, width),
        "mlp.up_proj": (64, width),
        "mlp.down_proj": (width, 64),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    shapes = {"embed_tokens": (256 + len(merges), width), "norm": (width,)}
    for i in range(depth):
        shapes |= {f"layers.{i}.{name}": shape for name, shape in block.items()}
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"model.{name}.weight": torch.randn(shape, generator=generator) * 0.2
        for name, shape in shapes.items()
    }
    write_safetensors(folder / "model.safetensors", tensors, {})

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    tokens = byte_alphabet() + [left + right for left, right in merges]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = {
        "model": {"type": "BPE", "vocab": vocab, "merges": [" ".join(pair) for pair in merges]},
        "pre_tokenizer": byte_level,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder
