"""data/files/tokenizer.py against the library tokenizers, on random texts.

python -m pytest tests/data/files/test_tokenizer.py
"""

import json

import pytest
import regex  # tiktoken needs it, too

from data.common import BadInput
from data.files.llm import fetch_default
from data.files.tokenizer import (
    PATTERNS,
    Tokenizer,
    byte_of_character,
    gguf_tokenizer,
    hf_tokenizer,
    ids_around_text,
)

# --------------------------------------------------------------------------------------------------
# By hand.


def spelled(text):
    """ASCII in GPT-2's spelling of bytes: of the characters used here only the space changes."""
    return text.replace(" ", "Ġ")


def tokenizer_by_hand(merges, **more):
    """A tokenizer whose ids are the bytes, then 256 for the first merge, 257 for the second one."""
    vocab = {chr(byte): byte for byte in range(33, 127)} | {"Ġ": 32, "Ċ": 10}
    for i, (left, right) in enumerate(merges):
        vocab[spelled(left + right)] = 256 + i
    pairs = [(spelled(left), spelled(right)) for left, right in merges]
    return Tokenizer(vocab, pairs, "smollm", **more)


def test_the_example_of_the_docstring():
    merges = [(" ", "d"), ("o", "g"), (" d", "og"), (" dog", "s"), ("w", "o"), ("t", "wo")]
    tokenizer = tokenizer_by_hand(merges)
    assert tokenizer.encode("two dogs") == [261, 259]
    assert [tokenizer.token_text(i) for i in (261, 259, 999)] == ["two", " dogs", "<special>"]
    # Without the last merge of a word its parts are left.
    assert tokenizer_by_hand(merges[:3]).encode(" dogs") == [258, ord("s")]


def test_merges_have_an_order():
    """Of "abc" the merges "ab" and "bc" make different tokens. The first one in the list wins."""
    assert tokenizer_by_hand([("a", "b"), ("b", "c")]).encode("abc") == [256, ord("c")]
    assert tokenizer_by_hand([("b", "c"), ("a", "b")]).encode("abc") == [ord("a"), 256]
    # A token that two merges make comes first where the first of them does.
    twice = tokenizer_by_hand([("a", "b"), ("b", "c"), ("a", "b")])
    assert twice.encode("abc") == [258, ord("c")]


def test_no_token_reaches_over_a_cut():
    assert tokenizer_by_hand([("a", "!")]).encode("a!") == [ord("a"), ord("!")]


def test_bytes_are_spelled_as_gpt_2_spells_them():
    byte_of = byte_of_character()
    assert sorted(byte_of.values()) == [*range(256)]
    spelled = {"!": 33, "~": 126, "¡": 161, "¬": 172, "®": 174, "ÿ": 255}  # as they are
    spelled |= {"Ā": 0, "Ċ": 10, "Ġ": 32, "ġ": 127, "ł": 160, "Ń": 173}  # not printable
    assert {character: byte_of.get(character) for character in spelled} == spelled


@pytest.mark.parametrize(
    "pattern, pieces",
    [
        ("gpt-2", ["I", "'ll", " pay", " 12345", "!", "\n", "I", "'", "LL"]),
        ("smollm", ["I", "'ll", " pay", " ", *"12345", "!", "\n", "I", "'", "LL"]),
        ("llama-bpe", ["I", "'ll", " pay", " ", "123", "45", "!\n", "I", "'LL"]),
        ("qwen2", ["I", "'ll", " pay", " ", *"12345", "!\n", "I", "'LL"]),
    ],
)
def test_where_each_pattern_cuts(pattern, pieces):
    """Each family cuts numbers, short forms of words and new lines in its own way."""
    assert regex.findall(PATTERNS[pattern], "I'll pay 12345!\nI'LL") == pieces


def test_a_byte_that_the_vocabulary_lacks_is_dropped():
    """The vocabulary by hand has no byte of "é"."""
    assert tokenizer_by_hand([]).encode("aéb") == [ord("a"), ord("b")]


def test_ids_are_whole_numbers():
    for i in (1.5, True, -1, "1", None):
        with pytest.raises(ValueError, match="no id of a token"):
            Tokenizer({"a": 0, "b": i}, [], "gpt-2")
        with pytest.raises(ValueError, match="no id of a token"):
            Tokenizer({"a": 0}, [], "gpt-2", suffix=[i])


def test_a_merge_that_the_vocabulary_lacks_is_an_error():
    with pytest.raises(KeyError):
        Tokenizer({"a": 0, "b": 1}, [("a", "b")], "gpt-2")


def gguf_metadata(pattern, **more):
    """Metadata of a GGUF file: "a", the two bytes of "é" and their merge; "b" is not normal."""
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pattern,
        "tokenizer.ggml.tokens": ["a", "b", "Ã", "©", "Ã©"],
        "tokenizer.ggml.token_type": [1, 3, 1, 1, 1],
        "tokenizer.ggml.merges": ["Ã ©"],
        "tokenizer.ggml.bos_token_id": 7,
        "tokenizer.ggml.eos_token_id": 8,
    } | {f"tokenizer.ggml.{key}": value for key, value in more.items()}


def test_the_tokenizer_of_a_gguf_file():
    """Normal form C is Qwen's. Llama 3's files may leave out that a token begins every text."""
    tokenizer = gguf_tokenizer(gguf_metadata("gpt-2"))
    assert tokenizer.encode("abé") == [0, 4]
    assert tokenizer.encode("e\u0301") == [] and tokenizer.nfc is False
    assert gguf_tokenizer(gguf_metadata("qwen2")).encode("e\u0301") == [4]

    for pattern, more, around in (
        ("gpt-2", {}, ([], [])),
        ("llama-bpe", {}, ([7], [])),
        ("llama-bpe", {"add_bos_token": False}, ([], [])),
        ("gpt-2", {"add_bos_token": True, "add_eos_token": True}, ([7], [8])),
    ):
        tokenizer = gguf_tokenizer(gguf_metadata(pattern, **more))
        assert (tokenizer.prefix, tokenizer.suffix) == around


def test_what_a_post_processor_puts_around_a_text():
    text, special = (
        {"Sequence": {"id": "A", "type_id": 0}},
        {"a": {"ids": [3, 4]}, "b": {"ids": [5]}},
    )
    a, b = ({"SpecialToken": {"id": name, "type_id": 0}} for name in "ab")
    template = {"type": "TemplateProcessing", "single": [a, text, b], "special_tokens": special}
    assert ids_around_text(template) == ([3, 4], [5])
    assert ids_around_text(template | {"single": [text, b, a]}) == ([], [5, 3, 4])
    two = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template]}
    assert ids_around_text(two) == ([3, 4], [5])
    assert ids_around_text(None) == ([], [])


def test_token_lists():
    """The caption is cut, never what stands around it."""
    tokenizer = tokenizer_by_hand([("a", "y"), (" ", "d")], prefix=[300], suffix=[7])
    texts = ["a dog bites a man", "a dog", "a"]
    before = tokenizer.encode("Say: ")
    after = tokenizer.encode(" in a word")
    captions = [tokenizer.encode(f" {text}") for text in texts]
    room = len(captions[1])
    max_length = 1 + len(before) + room + len(after) + 1
    lists, was_cut = tokenizer.encode_all(texts, "Say: ", " in a word", max_length)
    assert lists == [[300] + before + caption[:room] + after + [7] for caption in captions]
    assert was_cut == [True, False, False]
    # Behind a quotation mark there is no space, and a text that begins with one gets no second.
    lists, _ = tokenizer.encode_all(["a dog", " a dog"], '"')
    quote = [300, *tokenizer.encode('"')]
    assert lists == [quote + tokenizer.encode(text) + [7] for text in ("a dog", " a dog")]
    assert tokenizer.encode_all([" a dog"])[0] == [[300, *captions[1], 7]]
    # Without a limit nothing is cut.
    lists, was_cut = tokenizer.encode_all(texts)
    assert lists == [[300] + caption + [7] for caption in captions] and was_cut == [False] * 3


def test_captions_without_room_or_tokens_are_refused():
    tokenizer = tokenizer_by_hand([], prefix=[300], suffix=[7])
    before = tokenizer.encode("Say: ")
    with pytest.raises(BadInput, match="no room"):
        tokenizer.encode_all(["a"], "Say: ", max_length=len(before) + 2)
    assert tokenizer.encode_all(["a"], "Say: ", max_length=len(before) + 4)[1] == [False]
    with pytest.raises(BadInput, match="no tokens"):
        tokenizer_by_hand([]).encode_all(["a", ""])


# --------------------------------------------------------------------------------------------------
# Against the library.


@pytest.mark.reference
@pytest.mark.parametrize("pattern", PATTERNS)
def test_trained_tokenizers_equal_the_library(models, tmp_path, pattern):
    """Ids of random texts, and of texts that a slow regular expression would take minutes for."""
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(models.train_tokenizer(pattern, 900)), encoding="utf-8")
    ours = hf_tokenizer(file)
    theirs = models.tokenizers.Tokenizer.from_file(str(file))
    texts = models.shared_texts(4000, 9) + [
        "",
        " ",
        "\n",
        " " * 100_000,
        "x" + "\n " * 50_000 + "7",
        "1" * 5000 + "a" * 5000,
    ]
    for text, wanted in zip(texts, theirs.encode_batch(texts), strict=True):
        assert ours.prefix + ours.encode(text) + ours.suffix == wanted.ids, repr(text[:200])
    around = (0, 1) if pattern == "qwen2" else (1, 0)
    assert (len(ours.prefix), len(ours.suffix)) == around


class SmolLM2File:
    """The tokenizer of the real SmolLM2 file, as the library `gguf` reads it.

    vocab    {token: id}, without special tokens
    merges   pairs of tokens
    count    of ids
    missing  {spelling: byte} of the bytes that the vocabulary lacks
    """

    def __init__(self, models):
        self.models = models
        fields = models.read_with_gguf(str(fetch_default())).fields
        tokens = fields["tokenizer.ggml.tokens"].contents()
        types = fields["tokenizer.ggml.token_type"].contents()
        merges = fields["tokenizer.ggml.merges"].contents()
        self.count = len(tokens)
        self.merges = [tuple(merge.split(" ")) for merge in merges]
        self.vocab = {}
        for i, (token, token_type) in enumerate(zip(tokens, types, strict=True)):
            if token_type == 1:
                self.vocab[token] = i
        self.missing = {}
        for byte, spelling in models.gguf.vocab.bytes_to_unicode().items():
            if spelling not in self.vocab:
                self.missing[spelling] = byte

    def encode(self, texts, more_vocab=None):
        """What the library makes of texts: digits one by one, then ByteLevel, as the original."""
        vocab = self.vocab | (more_vocab or {})
        tokenizer = self.models.tokenizers.Tokenizer(
            self.models.tokenizers.models.BPE(vocab, self.merges)
        )
        tokenizer.pre_tokenizer = self.models.pre_tokenizer("smollm")
        return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


@pytest.fixture(scope="module")
def smollm2(llm, models):
    """The real file. `llm` sees to it that it is there."""
    return SmolLM2File(models)


@pytest.mark.reference
@pytest.mark.real_llm
@pytest.mark.slow
def test_smollm2_tokens_equal_the_library(llm, models, smollm2):
    """On the vocabulary of the real file. It lacks 21 bytes.

    Six of them are control characters, which a text may hold. The others appear only in unassigned
    planes of Unicode. Ours and the library drop them. But the library does so before merging, so
    that what stands around a dropped byte may merge. Therefore the library is given an id for each
    of them, which is dropped afterwards. Then all ids are equal again.
    """
    assert len(smollm2.missing) == 21
    texts = models.shared_texts(13_000, 10)
    texts += ["", " " * 100_000, " " * 100_000 + "1", "\t" * 99_999 + "x"]
    missing_bytes = set(smollm2.missing.values())
    with_missing = [text for text in texts if missing_bytes & set(text.encode())]
    others = [text for text in texts if not missing_bytes & set(text.encode())]
    assert len(others) > 10_000 and len(with_missing) > 500

    for text, wanted in zip(others, smollm2.encode(others), strict=True):
        assert llm.tokenizer.encode(text) == wanted, repr(text[:200])

    more_vocab = {spelling: smollm2.count + byte for spelling, byte in smollm2.missing.items()}
    all_wanted = smollm2.encode(with_missing, more_vocab)
    for text, with_more in zip(with_missing, all_wanted, strict=True):
        wanted = [i for i in with_more if i < smollm2.count]
        assert llm.tokenizer.encode(text) == wanted, repr(text)

    # How often it matters that they are dropped before merging.
    n_different = 0
    for text, wanted in zip(with_missing, smollm2.encode(with_missing), strict=True):
        n_different += llm.tokenizer.encode(text) != wanted
    assert n_different < 0.05 * len(with_missing)


@pytest.mark.real_llm
def test_smollm2_reads_special_tokens_and_broken_characters_as_text(llm):
    """Special tokens in a text are characters, and half a surrogate pair does not crash."""
    ids = llm.tokenizer.encode("<|im_start|>")
    assert llm.tokenizer.token_text(ids[0]) == "<"
    assert llm.tokenizer.encode("a \ud83d b")[0] == llm.tokenizer.encode("a")[0]


@pytest.mark.real_llm
def test_the_docstring_names_smollm2s_ids(llm):
    assert llm.tokenizer.encode("two dogs") == [11355, 5046]
