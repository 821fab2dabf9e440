"""Captions as numbers: which of them are distinct, and the token ids of each.

    captions of the images           distinct captions        token ids
    [["a red star", "a star"],  ->   0  "a red star"    ->    [[253, 2382, 4870, END],
     ["a star"]]                     1  "a star"               [253, 4870, END,  PAD]]

The text side reads each distinct caption once, however many images share it. Batches hold the
numbers of captions: two captions are equal if their numbers are (data/batches.py).

`Related` is for the tuning of the language model, which takes captions as texts.

Needs nothing of the project but data/common.py. Letters of shapes: N texts, L tokens at most.
"""

import hashlib
import json
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.common import chunks

# Ids that are no tokens; the tokenizer's ids are 0 or more. END stands behind the last token of
# every caption, PAD fills the rest of its row.
END = -1
PAD = -2


class DistinctCaptions:
    """The distinct captions of all images: a sequence of texts in the order of first appearance.

    captions     one list of texts per image
    fingerprint  hash of all captions, of their order, and of which image has which

    >>> distinct = DistinctCaptions([["a red star", "a star"], ["a star"]])
    >>> list(distinct)
    ['a red star', 'a star']
    >>> distinct.of_image(0)   # the longest last
    array([1, 0])
    """

    def __init__(self, captions: Sequence[list[str]]):
        number_of = {}  # caption -> its number
        numbers = array("q")  # of every caption of every image, one image after the other
        starts = array("q", [0])  # image i has numbers[starts[i] : starts[i + 1]]
        h = hashlib.blake2b(digest_size=12)
        for captions_of_image in captions:
            for caption in captions_of_image:
                number_of.setdefault(caption, len(number_of))
            # The longest comes last, where --long-share looks for it. The sort is stable: captions
            # of equal length stay in order.
            numbers.extend(number_of[caption] for caption in sorted(captions_of_image, key=len))
            starts.append(len(numbers))
            # JSON is ASCII and says where each list ends: other lists have other bytes.
            h.update(json.dumps(captions_of_image).encode())
        self.texts = list(number_of)
        self.numbers = np.array(numbers, np.int64)
        self.starts = np.array(starts, np.int64)
        self.fingerprint = h.hexdigest()

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, which: int | slice) -> str | list[str]:
        return self.texts[which]

    def of_image(self, i: int) -> np.ndarray:
        """The numbers of image i's captions, int64, the longest caption last."""
        return self.numbers[self.starts[i] : self.starts[i + 1]]


class PaddedIds:
    """Sequences of ids of many lengths, kept without padding, and padded when they are asked for.

    values   (ids,) int32: all sequences, one after the other
    lengths  (N,): how many ids each sequence has, one or more
    pad      what fills a row behind its sequence

    rows[which], for a slice or a tensor of n indices, gives (n, L) int64. L is the longest of all N
    sequences, so that all batches have the same width.

    >>> PaddedIds(torch.tensor([253, 4870, -1, 253, -1]), torch.tensor([3, 2]), PAD)[:]
    tensor([[ 253, 4870,   -1],
            [ 253,   -1,   -2]])
    """

    def __init__(self, values: Tensor, lengths: Tensor, pad: int):
        self.values = values
        self.lengths = lengths
        self.starts = lengths.cumsum(0) - lengths  # (N,) where each sequence begins in `values`
        self.longest = int(lengths.max())
        self.pad = pad

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, which: slice | Tensor) -> Tensor:
        column = torch.arange(self.longest)  # (L,)
        place = self.starts[which, None] + column  # (n, L)
        is_id = column < self.lengths[which, None]  # (n, L)
        # A place behind its sequence belongs to the next one, or to nothing. It is read as well,
        # as far as there are values, and `pad` is put over it.
        ids = self.values[place.clamp_max(len(self.values) - 1)]
        return torch.where(is_id, ids, self.pad).long()


class TokenIds:
    """Text reader of the kinds "ids" and "llm_ids": the tokens of each text, then END, then PAD.

    Of the language model only the tokenizer is used. The methods are those of all text readers; see
    llm_text.text_reader.
    """

    frozen_parameters = 0

    def __init__(self, tokenizer, context_length: int, fingerprint: str, start: str = ""):
        self.tokenizer = tokenizer
        self.context_length = context_length  # L at most, END included
        self.start = start  # what stands before every text; see llm_text.start_of
        self.fingerprint = fingerprint

    def still_matches(self, fingerprint: str) -> bool:
        """Are the ids those that had this fingerprint?"""
        return self.fingerprint == fingerprint

    def read(self, texts: Sequence[str]) -> tuple[PaddedIds, float]:
        """N texts -> their ids as N rows, and the share of texts that were cut."""
        values = array("i")
        lengths = array("q")
        n_cut = 0
        # Some thousand texts at a time: a Python list takes ten times the memory of an array.
        for chunk in chunks(texts):
            lists, was_cut = self.tokenizer.encode_all(
                chunk, self.start, max_length=self.context_length - 1
            )
            n_cut += sum(was_cut)
            for ids in lists:
                values.extend(ids)
                values.append(END)
                lengths.append(len(ids) + 1)
        rows = PaddedIds(
            torch.from_numpy(np.array(values, np.int32)),
            torch.from_numpy(np.array(lengths, np.int64)),
            PAD,
        )
        return rows, n_cut / len(lengths)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N texts -> ids (N, L) int64."""
        rows, _ = self.read(texts)
        return rows[:]


class Related(NamedTuple):
    """Texts of which any two belong together, such as the captions of one image."""

    texts: tuple[str, ...]  # two or more
    group: frozenset[str]  # these texts, and all others that are known to say the same
    hard: str = ""  # a hard negative: a text that is near to them, but false; "": there is none
