"""What the tests of language models and their files share, without any reference package.

Random texts, the table of tiny models, and the two ways to say that a file must be refused.
"""

import random
import re
import signal
import unicodedata
from contextlib import contextmanager

import pytest

from data.common import BadInput

# --------------------------------------------------------------------------------------------------
# Random texts.


def assigned_characters():
    """Characters of Python's Unicode tables above ASCII, without private ones and surrogates."""
    characters = map(chr, range(0x80, 0x1FB00))
    return [c for c in characters if unicodedata.category(c) not in ("Cn", "Cs", "Co")]


ASSIGNED = assigned_characters()


def kinds_of_characters(assigned):
    """Characters and short texts, in lists of what a tokenizer may treat alike."""
    return [
        [chr(c) for c in range(32, 127)],
        "0123456789٣๓Ⅷ½²",
        assigned,
        [c for c in assigned if c.isalpha()],
        [c for c in assigned if unicodedata.combining(c)],
        "aeinouAEIÅ가각ñ",
        [chr(c) for c in range(0x4E00, 0x9FFF)],
        [*map(chr, range(0x1F300, 0x1F6FF)), *"👩‍👩‍👧🏳️‍🌈🇩🇪"],
        [*map(chr, range(32)), *map(chr, range(127, 160))],
        " ",
        "\n",
        " \t\n\r\v\f\x85\u00a0\u2003\u2028\u3000",
        ["'s", "'T", "'re", "'VE", "'m", "'ll", "'D", "’s", "'ſ", "\r\n"],
        ["a", "dog", "bites", "the", "man", "with", "2", "red", "balls", "on", "its", "grass", ""],
        ".,;:!?-_()\"'#@%&*/\\",
    ]


def random_texts(count, seed, assigned=ASSIGNED):
    """Texts made of short runs of one kind each. So every border between two kinds comes up."""
    rng = random.Random(seed)
    kinds = kinds_of_characters(assigned)
    texts = []
    for _ in range(count):
        text = ""
        for kind in rng.choices(kinds, k=rng.randint(1, 8)):
            length = rng.choice((1, 1, 2, 5))
            text += "".join(rng.choices(kind, k=length))
        texts.append(text)
    return texts


# --------------------------------------------------------------------------------------------------
# Tiny models of every family. reference_models.py makes them.

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# name: (model_type of config.json, what differs from the sizes in reference_models.tiny_model)
TINY_MODELS = {
    "llama": ("llama", {}),
    "llama no GQA": ("llama", {"num_key_value_heads": 4}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3 rope": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama theta 1e4": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3 biases": ("qwen3", {"head_dim": 32, "attention_bias": True}),
}


def amend(entries, changes):
    """Change a dict in place, and return it. None removes an entry."""
    for key, value in changes.items():
        if value is None:
            del entries[key]
        else:
            entries[key] = value
    return entries


# --------------------------------------------------------------------------------------------------
# Files that must be refused.


@contextmanager
def within(seconds):
    """Fail if the body takes longer. A wrong count in a file must not hang its reader."""

    def give_up(number, frame):
        pytest.fail(f"took more than {seconds} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@contextmanager
def refused(path, says="", seconds=10):
    """The body must raise BadInput, soon. Its message is one line that names the file."""
    with pytest.raises(BadInput, match=re.escape(str(path))) as caught, within(seconds):
        yield
    message = str(caught.value)
    assert "\n" not in message and says in message
