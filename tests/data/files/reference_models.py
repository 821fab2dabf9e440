"""Random models and tokenizers, made and saved by the libraries that ours is compared with.

Needs transformers, tokenizers, safetensors and gguf of requirements-test.txt. Tests import this
module in a fixture: where a package is missing, they are skipped.
"""

import functools
import inspect
import json
import random
import unicodedata

import numpy as np
import pytest
import torch

from tests.data.files.examples import ASSIGNED, TINY_MODELS, amend, random_texts

gguf = pytest.importorskip("gguf")
tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
pytest.importorskip("safetensors")

from gguf.quants import dequantize, quantize  # noqa: E402
from tokenizers import normalizers, pre_tokenizers, processors, trainers  # noqa: E402
from transformers.convert_slow_tokenizer import TikTokenConverter  # noqa: E402

# --------------------------------------------------------------------------------------------------
# Texts.


def is_normalised_alike(character):
    """Python and `tokenizers` bring it into the same normal form C, also beside other marks."""
    for text in (character, character + "\u0334", "\u0345" + character):
        if normalizers.NFC().normalize_str(text) != unicodedata.normalize("NFC", text):
            return False
    return True


def shared_characters():
    """The characters of ASSIGNED that `tokenizers`, which has older Unicode tables, knows alike.

    Left out are about 100 marks that it orders otherwise in normal form C and, with a newer Python,
    letters and digits.
    """
    shared = [character for character in ASSIGNED if is_normalised_alike(character)]
    for category in "LN":
        # What is left when everything else is taken away.
        everything_else = tokenizers.Regex(rf"\P{{{category}}}")
        members = set(normalizers.Replace(everything_else, "").normalize_str("".join(shared)))
        shared = [
            character
            for character in shared
            if (character in members) == unicodedata.category(character).startswith(category)
        ]
    return shared


SHARED = shared_characters()


def shared_texts(count, seed):
    """As random_texts, of characters that ours and the library must treat alike."""
    return random_texts(count, seed, SHARED)


# --------------------------------------------------------------------------------------------------
# Tokenizers.

# The original regular expressions.
ORIGINAL_PATTERNS = {
    "llama-bpe": inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default,
    "qwen2": transformers.models.qwen2.tokenization_qwen2.PRETOKENIZE_REGEX,
}


def pre_tokenizer(pattern):
    """The library's steps that cut a text as our PATTERNS[pattern] does."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pattern == "gpt-2":
        return byte_level
    if pattern == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    split = pre_tokenizers.Split(tokenizers.Regex(ORIGINAL_PATTERNS[pattern]), "isolated")
    only_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, only_bytes])


def train_tokenizer(pattern, size):
    """A tokenizer.json, as a dict, that the library trained on random texts.

    Its ids are shuffled and have gaps. One id, <|begin|>, is put before a text. With the pattern
    "qwen2" it is put behind a text.
    """
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(pattern)
    if pattern == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|begin|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(shared_texts(1500, 1), trainer)
    special = [("<|begin|>", 0)]
    if pattern == "qwen2":
        template = processors.TemplateProcessing("$A <|begin|>", special_tokens=special)
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), template])
    else:
        template = processors.TemplateProcessing("<|begin|> $A", special_tokens=special)
        tokenizer.post_processor = template

    content = json.loads(tokenizer.to_str())
    if pattern == "llama-bpe":
        merge_as_llama3(content["model"])
    if pattern in ("llama-bpe", "smollm"):  # the older spelling
        content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    shuffle_ids(content, size)
    return content


def merge_as_llama3(model):
    """As in Llama 3: every split of a token is a merge, and whole pieces are looked up first."""
    rank = {left + right: i for i, (left, right) in enumerate(model["merges"])}
    splits = []
    for token in rank:
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in model["vocab"] and right in model["vocab"]:
                splits.append((left, right))
    model["merges"] = sorted(splits, key=lambda split: rank[split[0] + split[1]])
    model["ignore_merges"] = True


def shuffle_ids(content, size):
    """Give the tokens of a tokenizer.json other ids, with gaps."""
    new_id = random.Random(2).sample(range(size + 9), size)
    vocab = content["model"]["vocab"]
    content["model"]["vocab"] = {token: new_id[i] for token, i in vocab.items()}
    content["added_tokens"][0]["id"] = new_id[0]
    post_processor = content["post_processor"]
    template = post_processor.get("processors", [post_processor])[-1]
    template["special_tokens"]["<|begin|>"]["ids"] = [new_id[0]]


# --------------------------------------------------------------------------------------------------
# Tiny models.

VOCAB = 320  # rows of the embedding
TOKENIZER = train_tokenizer("gpt-2", 300)

# Token ids to read: two texts of 40 tokens.
IDS = torch.randint(0, VOCAB, (2, 40), generator=torch.Generator().manual_seed(4))


def tiny_model(name, with_head=True):
    """A random transformers model: see examples.TINY_MODELS.

    Norm weights and biases are random, too. Their usual 1 and 0 would hide mistakes. The norms' eps
    is large for the same reason.
    """
    family, changes = TINY_MODELS[name]
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
    config = transformers.AutoConfig.for_model(family, **sizes | changes)
    kind = transformers.AutoModelForCausalLM if with_head else transformers.AutoModel
    model = kind.from_config(config).float().eval()
    torch.manual_seed(3)
    for parameter_name, parameter in model.named_parameters():
        std = 0.1
        if parameter.ndim < 2:
            std = 0.4
        if "embed" in parameter_name:
            std = 0.8
        mean = 1.0 if "norm" in parameter_name else 0.0
        parameter.data.normal_(mean, std)
    return model


def save_hf(folder, model, **options):
    """Save as a Hugging Face folder, with the tiny tokenizer."""
    model.save_pretrained(folder, **options)
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER), encoding="utf-8")
    return folder


def hidden_states(model, ids):
    """All hidden states of a transformers model, and what its last norm gives."""
    with torch.no_grad():
        output = getattr(model, "model", model)(ids, output_hidden_states=True)
    return output.hidden_states, output.last_hidden_state


# --------------------------------------------------------------------------------------------------
# GGUF files, with the library `gguf`.

# It takes seconds. transformers does it twice, and two tests read the same file.
read_with_gguf = functools.cache(gguf.GGUFReader)


def from_gguf(raw, kind):
    """The bytes of a tensor, (rows, bytes per row), decoded by the library."""
    return dequantize(raw, gguf.GGMLQuantizationType[kind])


def write_gguf(path, model, kind="F32", meta=None, tensors=None):
    """Write a transformers model as llama.cpp's converter would.

    The model gets the weights as they are after quantizing, so that it can be compared.

    kind     of the weights
    meta     {key: value}: metadata to write differently. None: not at all
    tensors  {name: (array, kind)}: likewise
    """
    content = gguf_tensors(model, kind)
    fields = amend(gguf_fields(model.config), meta or {})
    writer = gguf.GGUFWriter(path, fields.pop("general.architecture", model.config.model_type))
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for key, value in fields.items():
        add[type(value)](key, value)
    for name, (raw, raw_kind) in amend(content, tensors or {}).items():
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType[raw_kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_tensors(model, kind):
    """{GGUF's name: (bytes, kind)} of a model, which gets the quantized weights."""
    config = model.config
    architecture = getattr(gguf.MODEL_ARCH, config.model_type.upper())
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    heads = {}
    if config.model_type == "llama":
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}

    content = {}
    for name, parameter in model.named_parameters():
        weight = parameter.detach().numpy()
        # llama.cpp's order of the rows of q and k (LlamaModel.permute in convert_hf_to_gguf.py).
        rows = np.arange(len(weight))
        n_heads = heads.get(name.split(".")[-2])
        if n_heads:
            rows = rows.reshape(n_heads, 2, len(rows) // n_heads // 2).swapaxes(1, 2).ravel()

        # llama.cpp keeps vectors in F32, and gives the embedding more bits than the rest.
        own_kind = kind
        if weight.ndim == 1:
            own_kind = "F32"
        elif "embed" in name and kind in ("Q4_0", "Q4_1"):
            own_kind = "Q8_0"

        quantization = gguf.GGMLQuantizationType[own_kind]
        raw = quantize(np.ascontiguousarray(weight[rows]), quantization)
        decoded = dequantize(raw, quantization).reshape(weight.shape)
        parameter.data = torch.from_numpy(decoded[np.argsort(rows)].copy())
        content[names.get_name(name, try_suffixes=(".weight", ".bias"))] = (raw, own_kind)
    return content


def gguf_fields(config):
    """The metadata of a transformers model with the tiny tokenizer."""
    family = config.model_type
    sizes = {
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "context_length": 512,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
    }
    theta = float(config.rope_parameters["rope_theta"])
    if theta != 10000:  # the default, which is not written
        sizes["rope.freq_base"] = theta
    if family == "qwen3":
        sizes["attention.key_length"] = config.head_dim
    else:
        sizes["rope.dimension_count"] = 16

    # Types of tokens: 1 is a normal one, 3 a special one, 5 one that is not used.
    tokens = [f"[PAD{i}]" for i in range(VOCAB)]
    types = [5] * VOCAB
    for token, i in TOKENIZER["model"]["vocab"].items():
        tokens[i] = token
        types[i] = 3 if token == "<|begin|>" else 1
    return {f"{family}.{key}": value for key, value in sizes.items()} | {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in TOKENIZER["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": tokens.index("<|begin|>"),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.eos_token_id": 7,
        "tokenizer.ggml.add_eos_token": True,
    }
