"""Byte-level BPE, run by tiktoken on the vocabulary and merges that the weights came with."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import tiktoken

from data.common import BadInput, interpreting

# How each family cuts text into pieces before merging. Keys are llama.cpp's names for them.
PATTERNS = {
    "gpt-2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    # Single digits are split off first, GPT-2's pattern runs on what is left: here both in one pass. White space
    # before a digit ends its part, hence the arm `\s+(?=\p{N})`.
    "smollm": r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+",
}
PATTERNS["qwen2"] = PATTERNS["llama-bpe"].replace(r"\p{N}{1,3}", r"\p{N}")  # numbers digit by digit


def _byte_alphabet():
    """GPT-2's spelling of bytes as printable characters, inverted: {character: byte}."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(rest)}


class Tokenizer:
    """Byte-level BPE: text -> ids, equal to the library `tokenizers` on the same vocabulary (tested by fuzzing).

    vocab    {token in GPT-2's byte spelling: id}, without special tokens
    merges   pairs of such tokens, in order of rank
    pattern  a key of PATTERNS
    nfc      normalise to Unicode NFC first (Qwen)
    prefix, suffix  ids put before and after every text (Llama 3's <|begin_of_text|>, Qwen3-Embedding's end)
    """

    def __init__(self, vocab, merges, pattern, nfc=False, prefix=(), suffix=()):
        alphabet = _byte_alphabet()
        # tiktoken merges the pair of lowest rank first and returns ranks. A rank here is: the byte itself for
        # single bytes, then the order of the merges. `self.ids` turns ranks into the file's ids. A byte that the
        # vocabulary lacks gets id -1 and is dropped, as `tokenizers` does; tiktoken alone would panic on it.
        ranks = {bytes([b]): b for b in range(256)}
        ids = [vocab.get(c, -1) for c, _ in sorted(alphabet.items(), key=lambda item: item[1])]
        for left, right in merges:
            token = bytes(alphabet[c] for c in left + right)
            if token not in ranks:
                ranks[token] = len(ids)
                ids.append(vocab[left + right])
        self.ids = np.array(ids)
        self.nfc, self.prefix, self.suffix = nfc, list(prefix), list(suffix)
        self.encoding = tiktoken.Encoding(
            "lift", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={}
        )
        self._bytes = {i: token for token, rank in ranks.items() if (i := ids[rank]) >= 0}

    def encode(self, text):
        """Ids of one text, as a list; special tokens written out in the text are ordinary characters."""
        if self.nfc:
            text = unicodedata.normalize("NFC", text)
        return [i for i in self.ids[self.encoding.encode_ordinary(text)].tolist() if i >= 0]

    def encode_all(self, texts, before="", after="", max_length=None):
        """Ids a text, each at most max_length with everything around the caption. Returns (lists, which were cut)."""
        head, tail = self.prefix + self.encode(before), self.encode(after) + self.suffix
        room = None if max_length is None else max_length - len(head) - len(tail)
        if room is not None and room < 1:
            raise BadInput(
                f"a context of {max_length} tokens has no room for a caption beside the prompt"
            )
        captions = [self.encode(text) for text in texts]
        for text, ids in zip(texts, captions):
            if not head + ids + tail:
                raise BadInput(f"the caption {text!r} has no tokens; leave it out")
        return [head + ids[:room] + tail for ids in captions], [
            room is not None and len(ids) > room for ids in captions
        ]

    def token(self, i):
        """How token i reads, for people."""
        return self._bytes.get(i, b"<special>").decode("utf-8", errors="replace")


def gguf_tokenizer(meta):
    """The tokenizer in a GGUF file's metadata."""
    model, pattern = meta["tokenizer.ggml.model"], meta["tokenizer.ggml.pre"]
    if model != "gpt2" or pattern not in PATTERNS:
        raise BadInput(
            f"tokenizer {model}/{pattern} is not supported, only byte-level BPE of {', '.join(PATTERNS)}"
        )
    tokens = zip(meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"], strict=True)
    begin = meta.get("tokenizer.ggml.add_bos_token", pattern == "llama-bpe")
    end = meta.get("tokenizer.ggml.add_eos_token", False)
    return Tokenizer(
        {t: i for i, (t, kind) in enumerate(tokens) if kind == 1},  # 1: a normal token
        [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]],
        pattern,
        nfc=pattern == "qwen2",
        prefix=[meta["tokenizer.ggml.bos_token_id"]] if begin else [],
        suffix=[meta["tokenizer.ggml.eos_token_id"]] if end else [],
    )


def hf_tokenizer(path):
    """The tokenizer in a Hugging Face tokenizer.json: BPE with a ByteLevel pre-tokenizer of a known pattern."""
    with interpreting(path):
        file = json.loads(Path(path).read_text(encoding="utf-8"))
        model, normalizer = file["model"], file.get("normalizer")
        if model["type"] != "BPE" or model.get("byte_fallback"):
            raise BadInput(f"tokenizer model {model['type']} is not supported, only byte-level BPE")
        if normalizer not in (None, {"type": "NFC"}):
            raise BadInput(f"normalizer {normalizer} is not supported, only NFC")
        pattern = _recognise(file["pre_tokenizer"])
        if pattern is None:
            raise BadInput(f"its pre-tokenizer is none of {', '.join(PATTERNS)}")
        special = {t["content"] for t in file.get("added_tokens", [])}
        merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        prefix, suffix = _template(file.get("post_processor"))
        return Tokenizer(
            {t: i for t, i in model["vocab"].items() if t not in special},
            merges,
            pattern,
            normalizer is not None,
            prefix,
            suffix,
        )


def _recognise(pre):
    """The key of PATTERNS that a tokenizer.json's pre_tokenizer stands for, or None."""
    *steps, last = pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
    found = (
        last["type"],
        last.get("add_prefix_space", False),
        last.get("use_regex", True),
        [
            (s["type"], s.get("individual_digits"), s.get("behavior"), s.get("pattern"))
            for s in steps
        ],
    )
    known = {  # the last step (whether it cuts by its own regex, GPT-2's) and those before it
        "gpt-2": ("ByteLevel", False, True, []),
        "smollm": ("ByteLevel", False, True, [("Digits", True, None, None)]),
        "llama-bpe": (
            "ByteLevel",
            False,
            False,
            [("Split", None, "Isolated", {"Regex": PATTERNS["llama-bpe"]})],
        ),
        "qwen2": (
            "ByteLevel",
            False,
            False,
            [("Split", None, "Isolated", {"Regex": PATTERNS["qwen2"]})],
        ),
    }
    return next((name for name, how in known.items() if how == found), None)


def _template(post):
    """Ids that a tokenizer.json's post-processor puts (before, after) a single text."""
    before, after = [], []
    for step in post.get("processors", [post]) if post else []:
        if step["type"] == "TemplateProcessing":
            side = before
            for piece in step["single"]:
                if "Sequence" in piece:
                    side = after
                else:
                    side += step["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
        elif step["type"] != "ByteLevel":
            raise BadInput(
                f"post-processor {step['type']} is not supported, only TemplateProcessing and ByteLevel"
            )
    return before, after
