"""Unit 6, measuring: the tests that students have."""

import numpy as np
import torch

from ..student import holds, same
from .numbers import normal, unit

NAN = float("nan")


# ---- rank_of_best


def test_rank_by_hand(student):
    """The number of wrong answers before the right one"""
    scores = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    found = student.eval.rank_of_best(scores, torch.eye(3, dtype=torch.bool))
    same(found, [0, 1, 2], "the right answer has the highest, the middle, the lowest score")


def test_rank_of_ties(student):
    """A tie is wrong: a wrong answer with the same score comes first"""
    scores = torch.tensor([[0.5, 0.5, 0.1], [0.3, 0.3, 0.3]])
    right = torch.tensor([[True, False, False], [False, True, False]])
    found = student.eval.rank_of_best(scores, right)
    same(
        found, [1, 2], "with > in place of >= a model that gives one score to all would be perfect"
    )


def test_rank_of_nan(student):
    """NaN never helps, neither in a right answer nor in a wrong one"""
    scores = torch.tensor([[NAN, 0.5, 0.1], [0.9, NAN, 0.1]])
    right = torch.tensor([[True, False, False], [True, False, False]])
    found = student.eval.rank_of_best(scores, right)
    same(found, [2, 1], "every comparison with NaN is false: ask what is surely behind")


def test_rank_of_several_right_answers(student):
    """The best right answer counts, and the other right ones are no mistakes"""
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    found = student.eval.rank_of_best(scores, torch.tensor([[False, False, True, True]]))
    same(found, [2], "scores .9 .8 .7* .6*: two wrong ones before .7")
    found = student.eval.rank_of_best(scores, torch.tensor([[True, True, False, False]]))
    same(found, [0], "scores .9* .8* .7 .6: none before .9, and .8 is no mistake")


# ---- retrieval_ranks


def test_ranks_of_the_example(student):
    """The example of the docstring: three images, five captions, two of them equal"""
    cosines = torch.tensor(
        [[0.5, 0.7, 0.8, 0.5, 0.1], [0.6, 0.2, 0.6, 0.6, 0.1], [0.3, 0.4, 0.2, 0.3, 0.9]]
    )
    image_of_caption, caption_ids = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 2, 0, 3])
    found = student.eval.retrieval_ranks(torch.eye(3), cosines.T, image_of_caption, caption_ids)
    holds(isinstance(found, list) and len(found) == 2, "two tensors should come back")
    same(found[0], [1, 2, 0], "from image to text, the rows")
    same(found[1], [1, 0, 1, 1, 0], "from text to image, the columns")


def test_ranks_equal_sorting(student):
    """One caption per image: the ranks are those of sorting the full matrix"""
    z, t = unit(20, 4, seed=1), unit(20, 4, seed=2)
    scores = z @ t.T
    found = student.eval.retrieval_ranks(z, t, torch.arange(20))
    for result, matrix, name in (
        (found[0], scores, "image to text"),
        (found[1], scores.T, "text to image"),
    ):
        order = matrix.argsort(dim=1, descending=True)
        wanted = (order == torch.arange(20)[:, None]).int().argmax(1)
        same(result, wanted, f"from {name}")


def test_ranks_of_constant_features(student):
    """A model that gives everything the same feature finds nothing"""
    same_for_all = torch.ones(6, 4) / 2
    found = student.eval.retrieval_ranks(same_for_all, same_for_all, torch.arange(6))
    for result in found:
        same(result, [5] * 6, "all five wrong answers tie with the right one, and come before it")


# ---- compositional, zeroshot, winoground


def test_compositional_by_hand(student):
    """True where the true caption is nearer; a tie and NaN are wrong"""
    image = torch.tensor([[1.0, 0.0]] * 4)
    true = torch.tensor([[0.9, 0.0], [0.1, 0.0], [0.5, 0.0], [NAN, 0.0]])
    false = torch.tensor([[0.1, 0.0], [0.9, 0.0], [0.5, 0.0], [0.1, 0.0]])
    found = student.eval.compositional(image, true, false)
    same(found, [1, 0, 0, 0], "cosines .9 > .1, .1 < .9, .5 = .5, NaN")


def test_zeroshot_by_hand(student):
    """The right class must be among the k nearest"""
    images = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    classes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 2])
    same(student.eval.zeroshot(images, classes, labels), [1, 0, 0], "k = 1")
    same(student.eval.zeroshot(images, classes, labels, 2), [1, 1, 0], "k = 2; the third is a tie")
    same(student.eval.zeroshot(images, classes, labels, 3), [1, 1, 1], "k = 3, all classes")


def test_zeroshot_of_a_collapsed_model(student):
    """If all classes have one feature, nothing is right"""
    found = student.eval.zeroshot(
        unit(5, 3, seed=3), torch.ones(4, 3), torch.tensor([0, 1, 2, 3, 0])
    )
    same(found, [0] * 5, "argmax would give the first class, and 2 of 5 would be right by accident")


def test_winoground_by_hand(student):
    """Text, image and group score of five examples"""
    # In example 0 both are right, in 1 and 4 only the text score, in 2 and 3 only the image score.
    # In 1 and 2 the first comparison of the other score fails, in 3 and 4 the second.
    tables = torch.tensor(
        [
            [[0.9, 0.1], [0.2, 0.8]],
            [[0.5, 0.1], [0.7, 0.8]],
            [[0.5, 0.7], [0.1, 0.8]],
            [[0.9, 0.1], [0.8, 0.5]],
            [[0.9, 0.8], [0.1, 0.5]],
        ]
    )
    image = torch.eye(2).repeat(5, 1)
    text = tables.transpose(1, 2).reshape(10, 2)
    found = student.eval.winoground(image, text)
    holds(isinstance(found, list) and len(found) == 3, "three tensors should come back")
    for result, wanted, name in zip(
        found,
        ([1, 1, 0, 0, 1], [1, 0, 1, 1, 0], [1, 0, 0, 0, 0]),
        ("text", "image", "group"),
        strict=True,
    ):
        same(result, wanted, f"the {name} score; s_ij is the cosine of image i and caption j")


def test_winoground_of_a_collapsed_model(student):
    """Equal features score nothing"""
    for result in student.eval.winoground(torch.ones(4, 2), torch.ones(4, 2)):
        same(result, [0, 0], "a tie is wrong")


# ---- interval


def test_interval_of_a_coin(student):
    """100 hits and 100 misses: 0.5 with about 0.07 on both sides"""
    low, high = student.eval.interval([0, 1] * 100)
    same([low, high], [0.431, 0.569], "2.5 % and 97.5 % of the means", atol=0.015)


def test_interval_of_groups(student):
    """Groups are drawn whole: 40 groups of 5 equal answers are as unsure as 40 answers"""
    hits, groups = np.repeat([0, 1] * 20, 5), np.repeat(np.arange(40), 5)
    low, high = student.eval.interval(hits, groups)
    words = "groups are drawn whole, and the ends are 2.5 % and 97.5 % of the means"
    same([low, high], [0.345, 0.655], words, atol=0.03)


def test_interval_of_certainty(student):
    """If everything is a hit, the interval is a point"""
    same(student.eval.interval([True] * 30), [1.0, 1.0], "30 of 30")


def test_ranks_leave_nothing_out(student):
    """Images with several captions: one rank per image, one per caption"""
    found = student.eval.retrieval_ranks(
        unit(4, 3, seed=4), normal(9, 3, seed=5), torch.tensor([0, 0, 0, 1, 1, 2, 2, 3, 3])
    )
    holds(
        [tuple(result.shape) for result in found] == [(4,), (9,)],
        f"the shapes are {[tuple(result.shape) for result in found]}, not (4,) and (9,)",
    )
