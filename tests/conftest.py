"""What several test files need: the project on the import path, no network behind our backs, the default LLM."""

import os
import sys
import warnings
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["HF_HUB_OFFLINE"] = "1"  # the reference libraries read local files only
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # or it warns whenever a test starts a process
torch.set_num_threads(
    1
)  # the models are tiny: on cores shared with other work, threads only wait for each other


@pytest.fixture(scope="session")
def llm():
    """The default SmolLM2, fetched once. Only a failed fetch skips; a file that is there and does not load fails."""
    import llm_text
    from data.common import BadInput
    from data.files import llm as models

    try:
        models.fetch_default()
    except BadInput as error:
        reason = f"NOT TESTED against the real SmolLM2 file: {error}"
        warnings.warn(reason)
        pytest.skip(reason)
    return llm_text.load_llm()


def embedded(folder, data="", columns=("",) * 4):
    """A run at its own held-out pictures, or others."""
    import eval as ev
    from data import benchmarks

    r = ev.Run(folder)
    return r.embed(benchmarks.captions(r.cfg, data, columns))


@pytest.fixture(scope="session")
def tiny_llm_folder(tmp_path_factory):
    """A random two-layer Llama that reads single bytes, as a Hugging Face folder: to train on, not to read well."""
    import json

    from safetensors.torch import save_file
    from tokenizers.pre_tokenizers import ByteLevel

    folder = tmp_path_factory.mktemp("tiny_llm")
    config = {
        "model_type": "llama",
        "vocab_size": 256,
        "hidden_size": 32,
        "intermediate_size": 64,
        "rope_theta": 1e4,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
    }
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    block = {
        "self_attn.q_proj": (32, 32),
        "self_attn.k_proj": (16, 32),
        "self_attn.v_proj": (16, 32),
        "self_attn.o_proj": (32, 32),
        "mlp.gate_proj": (64, 32),
        "mlp.up_proj": (64, 32),
        "mlp.down_proj": (32, 64),
        "input_layernorm": (32,),
        "post_attention_layernorm": (32,),
    }
    shapes = {"embed_tokens": (256, 32), "norm": (32,)}
    shapes |= {f"layers.{i}.{name}": shape for i in range(2) for name, shape in block.items()}
    save_file(
        {
            f"model.{name}.weight": torch.randn(shape, generator=generator) * 0.2
            for name, shape in shapes.items()
        },
        folder / "model.safetensors",
    )
    vocab = {c: i for i, c in enumerate(sorted(ByteLevel.alphabet()))}
    (folder / "tokenizer.json").write_text(
        json.dumps(
            {
                "model": {"type": "BPE", "vocab": vocab, "merges": []},
                "pre_tokenizer": {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "use_regex": True,
                },
            }
        )
    )
    return folder


@pytest.fixture
def small(tiny_llm_folder, tmp_path, monkeypatch):
    """Keyword arguments of a train.Config that runs in seconds, with a cache of its own."""
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))
    return dict(
        llm=str(tiny_llm_folder),
        out=str(tmp_path / "run"),
        device="cpu",
        model="micro/16",
        image_size=32,
        batch_size=16,
        train_num_samples=64,
        whiten=8,
        text_width=32,
        text_depth=2,
        text_heads=2,
        embed_dim=32,
        context_length=200,
        epochs=10_000,
        steps=6,
        log_every_n_steps=2,
        save_frequency=2,
    )
