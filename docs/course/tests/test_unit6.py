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
    why = (
        "the right answer has the highest, the middle, the lowest score: 0, 1, 2 wrong ones before "
        "it"
    )
    same(found, [0, 1, 2], why)


def test_rank_of_ties(student):
    """A tie is wrong: a wrong answer with the same score comes first"""
    scores = torch.tensor([[0.5, 0.5, 0.1], [0.3, 0.3, 0.3]])
    right = torch.tensor([[True, False, False], [False, True, False]])
    found = student.eval.rank_of_best(scores, right)
    why = (
        "scores .5* .5 .1 and .3 .3* .3: a wrong answer with the same score comes before the right "
        "one. Otherwise a model that gives one score to all would be perfect"
    )
    same(found, [1, 2], why)


def test_rank_of_nan(student):
    """NaN never helps, neither in a right answer nor in a wrong one"""
    scores = torch.tensor([[NAN, 0.5, 0.1], [0.9, NAN, 0.1]])
    right = torch.tensor([[True, False, False], [True, False, False]])
    found = student.eval.rank_of_best(scores, right)
    why = (
        "scores NaN* .5 .1 and .9* NaN .1: wrong answers that are not surely behind come first. "
        "Every comparison with NaN is false, so ask which wrong ones are behind, and count the "
        "others"
    )
    same(found, [2, 1], why)


def test_rank_of_several_right_answers(student):
    """The best right answer counts, and the other right ones are no mistakes"""
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    found = student.eval.rank_of_best(scores, torch.tensor([[False, False, True, True]]))
    same(found, [2], "scores .9 .8 .7* .6*: two wrong ones before .7")
    found = student.eval.rank_of_best(scores, torch.tensor([[True, True, False, False]]))
    same(found, [0], "scores .9* .8* .7 .6: none before .9, and .8 is no mistake")
    scores = torch.tensor([[-0.3, -0.2, -0.3]])
    found = student.eval.rank_of_best(scores, torch.tensor([[True, False, True]]))
    why = (
        "scores -.3* -.2 -.3*: one wrong one before. A right answer that ties with the best right "
        "one is no mistake, and scores may be negative"
    )
    same(found, [1], why)


def test_rank_without_a_right_answer(student):
    """A question without a right answer gets the number of answers as its rank"""
    scores = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    right = torch.tensor([[False, False, False], [True, False, False]])
    found = student.eval.rank_of_best(scores, right)
    same(found, [3, 0], "the first question has three answers, and none is right: its rank is 3")


# ---- retrieval_ranks


def test_ranks_of_the_example(student):
    """The example of the docstring: three images, five captions, two of them equal"""
    cosines = torch.tensor(
        [[0.5, 0.7, 0.8, 0.5, 0.1], [0.6, 0.2, 0.6, 0.6, 0.1], [0.3, 0.4, 0.2, 0.3, 0.9]]
    )
    image_of_caption, caption_ids = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 2, 0, 3])
    found = student.eval.retrieval_ranks(torch.eye(3), cosines.T, image_of_caption, caption_ids)
    why = "two tensors should come back: ranks from image to text, and from text to image"
    holds(isinstance(found, list) and len(found) == 2, why)
    why = (
        "from image to text, the rows of the docstring's example. A caption is right for an image "
        "if an equal caption was given to it"
    )
    same(found[0], [1, 2, 0], why)
    why = (
        "from text to image, the columns of the docstring's example. An image is right for a "
        "caption if it was given an equal one"
    )
    same(found[1], [1, 0, 1, 1, 0], why)


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
        why = f"from {name}, 20 pairs: the place of the right answer when the scores are sorted"
        same(result, wanted, why)


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
    why = (
        "cosines with the true and the false caption: .9 .1 is right; .1 .9, the tie .5 .5 and NaN "
        ".1 are wrong"
    )
    same(found, [1, 0, 0, 0], why)


def test_zeroshot_by_hand(student):
    """The right class must be among the k nearest"""
    images = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    classes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 2])
    scores = "scores 1* 0 -1, then .6* .8 -.6, then 0 1 0*"
    found = student.eval.zeroshot(images, classes, labels)
    same(found, [1, 0, 0], f"{scores}; k = 1: the right class must be the nearest")
    found = student.eval.zeroshot(images, classes, labels, 2)
    why = (
        f"{scores}; k = 2: in the third, two wrong classes are not behind the right one, as one "
        "ties"
    )
    same(found, [1, 1, 0], why)
    found = student.eval.zeroshot(images, classes, labels, 3)
    same(found, [1, 1, 1], f"{scores}; k = 3: all three classes are among the nearest three")


def test_zeroshot_of_a_collapsed_model(student):
    """If all classes have one feature, nothing is right"""
    found = student.eval.zeroshot(
        unit(5, 3, seed=3), torch.ones(4, 3), torch.tensor([0, 1, 2, 3, 0])
    )
    why = (
        "all classes tie, and a tie is wrong. argmax gives the first class, so 2 of 5 would be "
        "right by accident"
    )
    same(found, [0] * 5, why)
    one = torch.tensor([[1.0, 0.0]])
    nearly = torch.tensor([[0.5, 0.0], [0.5 - 3e-7, 0.0]])
    found = student.eval.zeroshot(one, nearly, torch.tensor([0]))
    same(found, [0], "scores .5* .4999997: they differ by less than TIE, so they tie")


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
    why = "three tensors should come back: text, image and group score"
    holds(isinstance(found, list) and len(found) == 3, why)
    for result, wanted, name in zip(
        found,
        ([1, 1, 0, 0, 1], [1, 0, 1, 1, 0], [1, 0, 0, 0, 0]),
        ("text", "image", "group"),
        strict=True,
    ):
        why = (
            f"the {name} score of five examples; s_ij is the cosine of image i and caption j. The "
            "first example has both scores, the second and the fifth the text score only, the "
            "third and the fourth the image score only"
        )
        same(result, wanted, why)


def test_winoground_of_a_collapsed_model(student):
    """Equal features score nothing"""
    for result in student.eval.winoground(torch.ones(4, 2), torch.ones(4, 2)):
        same(result, [0, 0], "all four cosines of an example are equal, and a tie is wrong")
    nearly = torch.tensor([[1.0, 1.0 - 3e-7], [1.0 - 3e-7, 1.0]] * 2)
    for result in student.eval.winoground(torch.eye(2).repeat(2, 1), nearly):
        same(result, [0, 0], "cosines that differ by less than TIE are equal, and a tie is wrong")
    nothing = torch.full((4, 2), NAN)
    for result in student.eval.winoground(nothing, torch.ones(4, 2)):
        same(result, [0, 0], "all four cosines of an example are NaN, and NaN is wrong")


# ---- interval


def test_interval_of_a_coin(student):
    """100 hits and 100 misses: 0.5 with about 0.07 on both sides"""
    found = student.eval.interval([0, 1] * 100, resamples=4000)
    is_list = isinstance(found, list) and all(isinstance(one, float) for one in found)
    why = (
        f"a list of two floats, [low, high], should come back; got {found!r}. eval.py writes it as "
        "JSON, and there is no array in JSON: see `tolist`"
    )
    holds(is_list and len(found) == 2, why)
    # Percentiles of 4,000 means are 0.425, 0.43 or 0.435, and 5 and 95 give 0.44 and 0.56.
    why = (
        "100 hits of 200: draw 200 of the 200 with replacement, take the mean, and repeat. The "
        "interval goes from percentile 2.5 to 97.5 of the means"
    )
    same(found, [0.43, 0.57], why, atol=0.006)
    lengths = np.linspace(0, 1, 50) ** 2
    why = "the same numbers twice: begin the random draws at the same seed in each call"
    once = student.eval.interval(lengths)
    same(student.eval.interval(lengths), once, why)
    low, high = student.eval.interval(lengths, None, 1)
    same(low, high, "with `resamples` 1 there is one mean, and both ends of the interval are it")


def test_interval_of_groups(student):
    """Groups are drawn whole: 40 groups of 5 equal answers are as unsure as 40 answers"""
    hits, groups = np.repeat([0, 1] * 20, 5), np.repeat(np.arange(40), 5)
    low, high = student.eval.interval(hits, groups)
    why = (
        "40 groups of 5 equal answers: draw 40 groups, each with all its answers. With single "
        "answers, or with other percentiles than 2.5 and 97.5, the interval has another width"
    )
    same([low, high], [0.345, 0.655], why, atol=0.03)


def test_interval_of_certainty(student):
    """If everything is a hit, the interval is a point"""
    why = "30 hits of 30: whatever is drawn, the mean is 1"
    same(student.eval.interval([True] * 30), [1.0, 1.0], why)


def test_interval_of_a_rare_hit(student):
    """1 hit of 50, and 49 of 50: the interval ends at 0, and at 1"""
    for hits, ours in (([1] + [0] * 49, 0.0), ([0] + [1] * 49, 1.0)):
        found = student.eval.interval(hits)
        why = (
            f"hits: {sum(hits)} of 50. No mean of drawn answers is below 0 or above 1. Take the "
            "percentiles of the means, and not the mean and 1.96 deviations"
        )
        same(found[int(ours)], ours, why)


def test_ranks_leave_nothing_out(student):
    """Images with several captions: one rank per image, one per caption"""
    found = student.eval.retrieval_ranks(
        unit(4, 3, seed=4), normal(9, 3, seed=5), torch.tensor([0, 0, 0, 1, 1, 2, 2, 3, 3])
    )
    holds(
        [tuple(result.shape) for result in found] == [(4,), (9,)],
        f"4 images and 9 captions: the shapes are {[tuple(result.shape) for result in found]} and "
        "should be (4,) and (9,), one rank for each question",
    )
