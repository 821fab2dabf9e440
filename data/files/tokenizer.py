"""Byte-level byte-pair encoding (BPE): text -> token ids. (Sennrich et al. 2016, arXiv 1508.07909)

A tokenizer comes with the weights of a language model: a vocabulary and a list of merges. To encode
a text:

    1. Cut it into pieces with a regular expression. No token reaches over a cut.
       "two dogs"  ->  "two", " dogs"
    2. Take the bytes of each piece, so that there are no unknown words. (Radford et al. 2019)
       " dogs"  ->  " " "d" "o" "g" "s"
    3. Merge two neighbours. Of all pairs take the one that comes first in the list of merges. Go on
       until no pair is in the list. SmolLM2's list has, among others and in this order, (" ", "d"),
       ("o", "g"), (" d", "og"), (" dog", "s"):
       " " "d" "o" "g" "s"  ->  " d" "o" "g" "s"  ->  " d" "og" "s"  ->  " dog" "s"  ->  " dogs"
    4. Look up what is left in the vocabulary.
       "two" " dogs"  ->  11355, 5046

The files spell each byte as one printable character, as GPT-2 did. A space is "Ġ", so the last
token is "Ġdogs" there. tiktoken does the merging. The tests compare the ids with those of the
library `tokenizers`, on random texts.
"""

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tiktoken

from data.common import BadInput, interpreting

# --------------------------------------------------------------------------------------------------
# How each family of models cuts a text into pieces.

# The keys are llama.cpp's names.
PATTERNS = {
    "gpt-2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    # SmolLM splits off single digits, then uses GPT-2's pattern on what is left. Here both are done
    # at once. White space before a digit ends what is left there, hence `\s+(?=\p{N})`.
    "smollm": r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+",
}
# Qwen takes numbers digit by digit, where Llama takes up to three.
PATTERNS["qwen2"] = PATTERNS["llama-bpe"].replace(r"\p{N}{1,3}", r"\p{N}")


# --------------------------------------------------------------------------------------------------
# The tokenizer.


def byte_of_character() -> dict[str, int]:
    """GPT-2's spelling of the 256 bytes: {printable character: byte}.

    A byte that is a printable character of Latin-1 stands for itself. The other 68 bytes take the
    characters from 256 on, in order.
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    byte_of = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in plain]
    for i, byte in enumerate(others):
        byte_of[chr(256 + i)] = byte
    return byte_of


class Tokenizer:
    """Byte-level BPE: text -> ids.

    vocab    {token in GPT-2's spelling of bytes: id}, without special tokens
    merges   pairs of such tokens, in the order in which they are merged
    pattern  a key of PATTERNS
    nfc      bring the text into Unicode's normal form C first (Qwen)
    prefix   ids put before every text (Llama 3: <|begin_of_text|>)
    suffix   ids put behind every text (Qwen3-Embedding: <|endoftext|>)

    KeyError if a merge makes a token that is not in the vocabulary; ValueError if an id is no whole
    number from 0 on.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Iterable[tuple[str, str]],
        pattern: str,
        nfc: bool = False,
        prefix: Sequence[int] = (),
        suffix: Sequence[int] = (),
    ):
        for i in (*vocab.values(), *prefix, *suffix):
            if type(i) is not int or i < 0:
                raise ValueError(f"{i!r} is no id of a token")

        byte_of = byte_of_character()
        character_of = {byte: character for character, byte in byte_of.items()}

        # tiktoken merges the pair of lowest rank first, and returns ranks. Here the ranks 0 to 255
        # are the bytes themselves, and the merges follow in order. ids[rank] is the file's id. A
        # byte that the vocabulary lacks has the id -1, and `encode` drops it: so does `tokenizers`,
        # and without a rank for it tiktoken would crash.
        ranks = {}
        ids = []
        for byte in range(256):
            ranks[bytes([byte])] = byte
            ids.append(vocab.get(character_of[byte], -1))
        for left, right in merges:
            token = bytes(byte_of[character] for character in left + right)
            if token not in ranks:
                ranks[token] = len(ids)
                ids.append(vocab[left + right])

        self.ids = np.array(ids)
        self.nfc = nfc
        self.prefix = list(prefix)
        self.suffix = list(suffix)
        self.encoding = tiktoken.Encoding(
            "lift", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={}
        )
        self.bytes_of_id = {ids[rank]: token for token, rank in ranks.items() if ids[rank] >= 0}

    def encode(self, text: str) -> list[int]:
        """The ids of one text. Special tokens written out in it are ordinary characters."""
        if self.nfc:
            text = unicodedata.normalize("NFC", text)
        ranks = self.encoding.encode_ordinary(text)
        ids = self.ids[ranks].tolist()
        return [i for i in ids if i >= 0]

    def encode_all(
        self,
        texts: Sequence[str],
        before: str = "",
        after: str = "",
        max_length: int | None = None,
    ) -> tuple[list[list[int]], list[bool]]:
        """The ids of each caption with what stands around it, and which captions were cut.

        before, after  words put around the caption (a prompt)
        max_length     of each list; the caption is cut, never what stands around it

        A word within a text begins with its space: " car" is another token than "car". So a space
        goes before the caption. Then its first word is the token that it is anywhere else. Only
        where a prompt ends in a quotation mark, or the like, there is none.

        BadInput if max_length leaves no room for a caption, or if a caption has no tokens.
        """
        head = self.prefix + self.encode(before)
        tail = self.encode(after) + self.suffix
        room = None  # for the caption; None: as much as it needs
        if max_length is not None:
            room = max_length - len(head) - len(tail)
            if room < 1:
                raise BadInput(
                    f"a context of {max_length} tokens has no room for a caption beside the prompt"
                )

        space = " " if not before or before[-1].isspace() else ""
        lists, was_cut = [], []
        for text in texts:
            caption = self.encode(text if text[:1].isspace() else space + text)
            if not text or not caption:
                raise BadInput(f"the caption {text!r} has no tokens; leave it out")
            lists.append(head + caption[:room] + tail)
            was_cut.append(room is not None and len(caption) > room)
        return lists, was_cut

    def token_text(self, i: int) -> str:
        """How token i reads, for people. A token may hold a part of a character only."""
        return self.bytes_of_id.get(i, b"<special>").decode("utf-8", errors="replace")


# --------------------------------------------------------------------------------------------------
# The tokenizer of a GGUF file.

GGUF_NORMAL_TOKEN = 1  # as opposed to special, unused and other tokens


def gguf_tokenizer(meta: Mapping) -> Tokenizer:
    """The tokenizer in a GGUF file's metadata.

    BadInput for one that is not byte-level BPE with a pattern of PATTERNS; KeyError, TypeError or
    ValueError if its parts are missing or do not fit each other.
    """
    model = meta["tokenizer.ggml.model"]
    pattern = meta["tokenizer.ggml.pre"]
    if model != "gpt2" or pattern not in PATTERNS:
        raise BadInput(
            f"tokenizer {model}/{pattern} is not supported, only byte-level BPE of "
            f"{', '.join(PATTERNS)}"
        )

    tokens = meta["tokenizer.ggml.tokens"]
    types = meta["tokenizer.ggml.token_type"]
    vocab = {}
    for i, (token, token_type) in enumerate(zip(tokens, types, strict=True)):
        if token_type == GGUF_NORMAL_TOKEN:
            vocab[token] = i
    merges = [tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]

    # Llama 3's files may leave the switch out.
    prefix, suffix = [], []
    if meta.get("tokenizer.ggml.add_bos_token", pattern == "llama-bpe"):
        prefix = [meta["tokenizer.ggml.bos_token_id"]]
    if meta.get("tokenizer.ggml.add_eos_token", False):
        suffix = [meta["tokenizer.ggml.eos_token_id"]]
    return Tokenizer(vocab, merges, pattern, pattern == "qwen2", prefix, suffix)


# --------------------------------------------------------------------------------------------------
# The tokenizer of a Hugging Face folder.


def hf_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a Hugging Face tokenizer.json. BadInput for one that is not supported.

    Supported: byte-level BPE, normal form C or none, and a pre-tokenizer of PRE_TOKENIZERS.
    """
    with interpreting(path):
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        model = content["model"]
        normalizer = content.get("normalizer")
        if model["type"] != "BPE" or model.get("byte_fallback"):
            raise BadInput(f"tokenizer model {model['type']} is not supported, only byte-level BPE")
        if normalizer not in (None, {"type": "NFC"}):
            raise BadInput(f"normalizer {normalizer} is not supported, only NFC")
        pattern = pattern_of(content["pre_tokenizer"])
        if pattern is None:
            raise BadInput(f"its pre-tokenizer is none of {', '.join(PATTERNS)}")

        special = {token["content"] for token in content.get("added_tokens", [])}
        vocab = {token: i for token, i in model["vocab"].items() if token not in special}
        merges = []
        for merge in model["merges"]:
            # Older files write "a b", newer ones ["a", "b"].
            pair = merge.split(" ") if isinstance(merge, str) else merge
            merges.append(tuple(pair))
        prefix, suffix = ids_around_text(content.get("post_processor"))
        return Tokenizer(vocab, merges, pattern, normalizer is not None, prefix, suffix)


def split_step(pattern: str) -> dict:
    """The step of a pre-tokenizer that cuts by a pattern of PATTERNS."""
    return {"type": "Split", "behavior": "Isolated", "pattern": {"Regex": PATTERNS[pattern]}}


# The last step spells the bytes. With use_regex it also cuts, by GPT-2's pattern.
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
BYTE_LEVEL_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}

# {key of PATTERNS: the steps of a tokenizer.json's pre_tokenizer that cut in the same way}
PRE_TOKENIZERS = {
    "gpt-2": [BYTE_LEVEL_GPT2],
    "smollm": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL_GPT2],
    "llama-bpe": [split_step("llama-bpe"), BYTE_LEVEL],
    "qwen2": [split_step("qwen2"), BYTE_LEVEL],
}


def pattern_of(pre_tokenizer: Mapping) -> str | None:
    """The key of PATTERNS that a tokenizer.json's pre_tokenizer stands for, or None."""
    steps = [pre_tokenizer]
    if pre_tokenizer["type"] == "Sequence":
        steps = pre_tokenizer["pretokenizers"]
    *first_steps, last = steps

    # Keep only the entries that decide where the text is cut, as PRE_TOKENIZERS writes them.
    found = []
    for step in first_steps:
        entries = {"type": step["type"]}
        for key in ("individual_digits", "behavior", "pattern"):
            if step.get(key) is not None:
                entries[key] = step[key]
        found.append(entries)
    found.append(
        {
            "type": last["type"],
            "add_prefix_space": last.get("add_prefix_space", False),
            "use_regex": last.get("use_regex", True),
        }
    )

    for pattern, known in PRE_TOKENIZERS.items():
        if found == known:
            return pattern
    return None


def ids_around_text(post_processor: Mapping | None) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer.json's post_processor puts before and behind a text.

    BadInput for a step that may do something else.
    """
    steps = []
    if post_processor:
        steps = post_processor.get("processors", [post_processor])

    before, after = [], []
    for step in steps:
        if step["type"] == "ByteLevel":  # it changes places in the text only, and no ids
            continue
        if step["type"] != "TemplateProcessing":
            raise BadInput(
                f"post-processor {step['type']} is not supported, only TemplateProcessing and "
                "ByteLevel"
            )
        # The template of a single text: special tokens, the text ("Sequence"), special tokens.
        side = before
        for piece in step["single"]:
            if "Sequence" in piece:
                side = after
            else:
                name = piece["SpecialToken"]["id"]
                side += step["special_tokens"][name]["ids"]
    return before, after
