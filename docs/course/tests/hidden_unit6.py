"""Unit 6, measuring: the tests that only the grader has."""

import numpy as np
import torch

import eval as reference

from ..student import holds, same
from .numbers import normal, unit


def test_rank_of_many_questions(student):
    """200 questions, several right answers each, with ties and NaN"""
    scores = (10 * normal(200, 15, seed=21)).round() / 10
    scores[::7, 3] = float("nan")
    right = normal(200, 15, seed=22) > 1
    right[:, 4] |= ~right.any(1)
    found = student.eval.rank_of_best(scores, right)
    why = (
        "200 random questions with several right answers, ties and NaN: the best right answer "
        "counts"
    )
    same(found, reference.rank_of_best(scores, right), why)


def test_rank_counts_nearly_equal_scores_as_ties(student):
    """Scores that differ by less than TIE are equal: rounding is no opinion"""
    scores = torch.tensor([[0.5, 0.5 - 3e-7, 0.5 - 1e-3]])
    found = student.eval.rank_of_best(scores, torch.tensor([[True, False, False]]))
    why = "scores .5* .4999997 .499: the second differs by less than TIE, so it comes before"
    same(found, [1], why)


def test_ranks_do_not_depend_on_the_chunk(student):
    """Pieces of 3, 7 or all questions give the same ranks, several captions per image"""
    generator = torch.Generator().manual_seed(23)
    z, t = unit(11, 4, seed=24), unit(30, 4, seed=25)
    image_of_caption = torch.cat([torch.arange(11), torch.randint(11, (19,), generator=generator)])
    ids = torch.randint(20, (30,), generator=generator)
    t = t[ids]  # equal captions have equal features
    wanted = reference.retrieval_ranks(z, t, image_of_caption, ids)
    for chunk in (3, 7, 512):
        found = student.eval.retrieval_ranks(z, t, image_of_caption, ids, chunk)
        for one, ours, name in zip(found, wanted, ("image to text", "text to image"), strict=True):
            why = (
                f"from {name}, 11 images, 30 captions, {chunk} questions at a time. In a piece "
                "that starts at 3, question 3 is row 0"
            )
            same(one, ours, why)


def test_ranks_of_an_image_without_captions(student):
    """An image to which no caption belongs has the number of captions as its rank"""
    z, t = unit(5, 4, seed=35), unit(6, 4, seed=36)
    image_of_caption = torch.tensor([0, 0, 1, 3, 4, 4])  # none of image 2
    found = student.eval.retrieval_ranks(z, t, image_of_caption)
    wanted = reference.retrieval_ranks(z, t, image_of_caption)
    why = "no caption belongs to image 2 of 5: all 6 captions are wrong, so its rank is 6"
    same(found[0], wanted[0], why)
    same(found[1], wanted[1], "from text to image, no caption belongs to image 2 of 5")


def test_ranks_of_nan_and_nearly_equal_cosines(student):
    """NaN and nearly equal cosines count against the model, as in rank_of_best"""
    nan, t = torch.full((6, 4), float("nan")), unit(6, 4, seed=34)
    for found in student.eval.retrieval_ranks(nan, t, torch.arange(6)):
        same(found, [5] * 6, "all images are NaN: every wrong answer comes before the right one")
    nearly = torch.eye(3)
    nearly[1, 0] = 1 - 3e-7
    found = student.eval.retrieval_ranks(torch.eye(3), nearly, torch.arange(3))
    same(found[0], [1, 0, 0], "the cosines 1* and 1 - 3e-7 differ by less than TIE, so they tie")


def test_ranks_never_hold_all_scores(student):
    """6,500 images and captions, 16 at a time, within the grader's memory"""
    # All scores are 169 MB, and a copy in which some are masked is as much again. A worker has
    # 448 MB, of which torch takes 200. macOS sets no limit; there this test finds nothing.
    z = unit(6500, 8, seed=31)
    found = student.eval.retrieval_ranks(z, z, torch.arange(6500), None, 16)
    why = "each of 6,500 images has its caption's vector: all ranks are 0"
    same(found[0], torch.zeros(6500), why)
    same(found[1], torch.zeros(6500), why)


def test_compositional_of_many(student):
    """100 random triples, and differences below TIE"""
    z, a, b = (unit(100, 4, seed=s) for s in (26, 27, 28))
    why = "100 random triples: image i is compared with true caption i and false caption i only"
    same(student.eval.compositional(z, a, b), (z * a).sum(1) > (z * b).sum(1), why)
    one = torch.tensor([[1.0, 0.0]])
    found = student.eval.compositional(one, one * 0.5, one * (0.5 - 3e-7))
    same(found, [0], "a difference of 3e-7 is rounding, and so a tie")


def test_zeroshot_of_many(student):
    """Top 1, 3 and 5 of 10 classes, with ties and NaN"""
    z, c = unit(60, 5, seed=29), unit(10, 5, seed=30)
    c[7] = c[2]
    z[5] = float("nan")
    labels = torch.arange(60) % 10
    for k in (1, 3, 5):
        found = student.eval.zeroshot(z, c, labels, k)
        why = f"k = {k}; classes 2 and 7 are equal, so they tie; image 5 is NaN, so it is wrong"
        same(found, reference.zeroshot(z, c, labels, k), why)


def test_winoground_of_many(student):
    """50 random examples"""
    z, t = unit(100, 3, seed=31), unit(100, 3, seed=32)
    found, wanted = student.eval.winoground(z, t), reference.winoground(z, t)
    for one, ours, name in zip(found, wanted, ("text", "image", "group"), strict=True):
        same(
            one,
            ours,
            f"the {name} score of 50 random examples; look at the docstring's three lines",
        )


def test_interval_covers(student):
    """Of 60 simulated tests, the interval holds the true mean in about 95 %"""
    rng = np.random.default_rng(33)
    covered = 0
    for _ in range(60):
        low, high = student.eval.interval(rng.normal(0.3, 1, 50), None, 400)
        covered += low <= 0.3 <= high
    holds(
        covered >= 51,
        f"it held the true mean in {covered} of 60 cases. Draw as many as there are, with "
        "replacement, and take the percentiles 2.5 and 97.5 of the means",
    )


def test_interval_of_unequal_groups(student):
    """Groups of 1 to 9 answers: the mean is over answers, not over groups"""
    sizes = np.tile(np.arange(1, 10), 12)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    hits = np.repeat(sizes > 5, sizes)
    low, high = student.eval.interval(hits, groups)
    wanted = reference.interval(hits, groups, 4000)
    why = (
        "large groups are hits, small ones are not. Divide all drawn hits by all drawn answers; do "
        "not take the mean of the groups' means"
    )
    same([low, high], wanted, why, atol=0.03)
