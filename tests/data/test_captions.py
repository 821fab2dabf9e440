"""data/captions.py: the distinct captions of images, and their token ids with padding.

python -m pytest tests/data/test_captions.py
"""

import random

import pytest
import torch

import data.captions
from data.captions import END, PAD, DistinctCaptions, PaddedIds, TokenIds
from data.common import chunks


def random_captions(seed):
    """Captions of a few images: short, often equal, some of equal length, one that is no UTF-8."""
    r = random.Random(seed)
    texts = ["", "a", "b", "ab", "ba", "aba", "ü", "half \ud83d", '"], ["', "a\nb"]
    return [r.choices(texts, k=r.randint(1, 4)) for _ in range(r.randint(0, 6))]


@pytest.mark.parametrize("seed", range(50))
def test_distinct_captions_come_in_the_order_of_first_appearance(seed):
    captions = random_captions(seed)
    distinct = DistinctCaptions(captions)
    wanted = list(dict.fromkeys(text for own in captions for text in own))
    assert list(distinct) == wanted and len(distinct) == len(wanted)
    assert [text for chunk in chunks(distinct, 3) for text in chunk] == wanted
    for i, own in enumerate(captions):
        numbers = distinct.of_image(i)
        assert numbers.dtype == "int64"
        assert [distinct[n] for n in numbers] == sorted(own, key=len)
        assert [distinct[n] for n in torch.from_numpy(numbers)] == sorted(own, key=len)


def test_the_fingerprint_of_captions_covers_texts_order_and_images():
    captions = [["a star", "a red star"], ["a ring"]]
    others = [
        captions,
        [["a ring"], ["a star", "a red star"]],
        [["a star", "a red star", "a ring"]],
        [["a star"], ["a red star", "a ring"]],
        [["a red star", "a star"], ["a ring"]],
        [["a star", "a red star"], ["a rinG"]],
        [['a star", "a red star'], ["a ring"]],
    ]
    prints = [DistinctCaptions(other).fingerprint for other in others]
    assert len(set(prints)) == len(prints)
    assert DistinctCaptions([list(own) for own in captions]).fingerprint == prints[0]


def test_padded_ids_by_hand():
    rows = PaddedIds(torch.tensor([253, 4870, END, 253, END]), torch.tensor([3, 2]), PAD)
    assert len(rows) == 2
    assert rows[:].tolist() == [[253, 4870, END], [253, END, PAD]]
    # A batch of short captions is as wide as the longest of all.
    assert rows[torch.tensor([1, 1])].tolist() == [[253, END, PAD]] * 2
    assert rows[1:2].dtype == torch.int64
    assert [chunk.shape for chunk in chunks(rows, 1)] == [(1, 3), (1, 3)]


class Letters:
    """A tokenizer of letters, that keeps at most max_length of them."""

    def encode_all(self, texts, before="", after="", max_length=None):
        lists = [[ord(c) for c in text][:max_length] for text in texts]
        return lists, [len(text) > max_length for text in texts]


@pytest.mark.parametrize("chunk", [1, 2, 10_000])
def test_token_ids_end_with_end_and_are_cut_at_the_context_length(monkeypatch, chunk):
    monkeypatch.setattr(data.captions, "chunks", lambda texts: chunks(texts, chunk))
    reader = TokenIds(Letters(), 4, "print")
    assert (reader.fingerprint, reader.frozen_parameters) == ("print", 0)
    texts = ["ab", "", "abc", "abcd", "zzzzzz"]
    wanted = [
        [97, 98, END, PAD],
        [END, PAD, PAD, PAD],
        [97, 98, 99, END],
        [97, 98, 99, END],
        [122, 122, 122, END],
    ]
    rows, cut_share = reader.read(texts)
    assert rows[:].tolist() == wanted and cut_share == 2 / 5
    assert reader(texts).tolist() == wanted and reader(texts).dtype == torch.int64
    # Read from the distinct captions of images, as training does it.
    rows, _ = reader.read(DistinctCaptions([["ab", ""], ["abcd"]]))
    assert rows[torch.tensor([2, 0])].tolist() == [wanted[3], wanted[0]]
