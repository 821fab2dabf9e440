"""Unit 6, measuring: tests of the metrics in eval.py.

The tests of retrieval_ranks put a function of their own in place of rank_of_best. So a mistake there
costs no points here.
"""

import math
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

import eval as metrics

NAN = math.nan


def features(count, width, seed):
    """Random features of unit length, (count, width) float32."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator), dim=1)


def with_cosines(cosines):
    """Image and text features of unit length whose cosines are a given matrix (N, T)."""
    cosines = torch.tensor(cosines)
    N, T = cosines.shape
    image = torch.eye(N, N + T)
    rest = (1 - cosines.square().sum(0)).clamp_min(0).sqrt()  # what each caption's length lacks
    return image, torch.cat([cosines.T, rest.diag()], 1)


def rank_by_loops(scores, is_correct):
    """What rank_of_best should give, (c,) int64."""
    ranks = []
    for row, correct in zip(scores.tolist(), is_correct.tolist(), strict=True):
        right = [s for s, c in zip(row, correct, strict=True) if c]
        wrong = [s for s, c in zip(row, correct, strict=True) if not c]
        best = NAN if any(math.isnan(s) for s in right) else max(right)
        ranks.append(sum(not s < best - metrics.TIE for s in wrong))
    return torch.tensor(ranks)


# --------------------------------------------------------------------------------------------------
# 6.1 rank_of_best


def rank(scores, is_correct):
    return metrics.rank_of_best(torch.tensor(scores), torch.tensor(is_correct).bool()).tolist()


def test_rank_by_hand():
    ranks = rank(
        [[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.2, 0.5, 0.4]], [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    )
    assert ranks == [0, 2, 1], (
        f"the right answers stand at the places 0, 2 and 1, but yours gives {ranks}: count the wrong "
        "answers that have a higher score"
    )
    ranks = rank([[0.9, 0.8, 0.7, 0.6]], [[0, 1, 0, 1]])
    assert ranks == [1], (
        f"of two right answers the better one counts: one wrong answer is before it, yours says "
        f"{ranks[0]}"
    )
    ranks = rank([[0.9, 0.8, 0.7, 0.6]], [[1, 1, 0, 1]])
    assert ranks == [0], "another right answer is no mistake: count the wrong ones only"


def test_rank_of_a_tie():
    ranks = rank([[0.5, 0.5, 0.5], [0.5, 0.5, 0.1]], [[1, 0, 0], [0, 1, 0]])
    assert ranks == [2, 1], (
        f"wrong answers with the same score come before the right one, so the ranks are 2 and 1, but "
        f"yours gives {ranks}: else a model that says the same to all would win"
    )


def test_rank_with_nan():
    ranks = rank([[0.5, NAN, 0.1], [NAN, 0.5, 0.1]], [[1, 0, 0], [1, 0, 0]])
    assert ranks[0] == 1, (
        "a wrong answer that is not a number comes before the right one: every comparison with NaN "
        "is false, so ask which answers are surely behind, and count the others"
    )
    assert ranks[1] == 2, "where the right answer is not a number, all wrong ones come before it"


def test_rank_equals_sorting():
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(40, 9, generator=generator)
    is_correct = torch.rand(40, 9, generator=generator) < 0.3
    is_correct[:, 0] |= ~is_correct.any(1)
    ranks = metrics.rank_of_best(scores, is_correct)
    assert ranks.dtype == torch.int64, f"ranks are int64, not {ranks.dtype}"
    order = scores.argsort(1, descending=True)
    first_right = is_correct.gather(1, order).int().argmax(1)  # only wrong ones stand before it
    assert torch.equal(ranks, first_right), (
        "the rank must be the number of wrong answers before the first right one in the sorted list"
    )


def test_rank_takes_rounding_for_a_tie():
    ranks = rank([[0.5, 0.5 - 2e-7, 0.4], [0.5 + 2e-7, 0.5, 0.6]], [[1, 0, 0], [1, 0, 0]])
    assert ranks == [1, 2], "scores that differ by less than TIE are equal, and a tie is wrong"


def test_rank_where_everything_is_nan():
    scores = torch.full((2, 5), NAN)
    is_correct = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 1, 0, 0]]).bool()
    ranks = metrics.rank_of_best(scores, is_correct).tolist()
    assert ranks == [4, 3], (
        f"a model that is NaN throughout has all wrong answers first, not {ranks}"
    )


# --------------------------------------------------------------------------------------------------
# 6.2 retrieval_ranks


def ranks_of(*arguments, **more):
    with mock.patch.object(metrics, "rank_of_best", rank_by_loops):
        i2t, t2i = metrics.retrieval_ranks(*arguments, **more)
    return i2t.tolist(), t2i.tolist()


def ranks_by_loops(image, text, image_of_caption, caption_ids):
    """What retrieval_ranks should give, from the full matrix."""
    N, T = len(image), len(text)
    is_right = torch.zeros(N, T, dtype=torch.bool)
    for t in range(T):
        for u in range(T):
            if caption_ids[t] == caption_ids[u]:
                is_right[image_of_caption[u], t] = True
    scores = image @ text.T
    return rank_by_loops(scores, is_right).tolist(), rank_by_loops(scores.T, is_right.T).tolist()


def test_ranks_of_the_example():
    """The example of the docstring. All its cosines are a tenth smaller, so that lengths are 1."""
    cosines = [[0.5, 0.7, 0.8, 0.5, 0.1], [0.6, 0.2, 0.6, 0.6, 0.1], [0.3, 0.4, 0.2, 0.3, 0.9]]
    image, text = with_cosines([[0.9 * c for c in row] for row in cosines])
    i2t, t2i = ranks_of(image, text, torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 2, 0, 3]))
    assert i2t == [1, 2, 0], (
        f"from image to text the ranks are [1, 2, 0], but yours are {i2t}: a caption is right for "
        "an image if the image was given this caption or an equal one"
    )
    assert t2i == [1, 0, 1, 1, 0], (
        f"from text to image the ranks are [1, 0, 1, 1, 0], but yours are {t2i}: equal captions are "
        "right for the images of all of them"
    )


def test_ranks_equal_sorting_the_full_matrix():
    """One caption per image, all different."""
    image, text = features(30, 8, 2), features(30, 8, 3)
    i2t, t2i = ranks_of(image, text, torch.arange(30))
    scores = image @ text.T
    place = scores.argsort(1, descending=True).argsort(1).diag().tolist()
    assert i2t == place, "the rank of image i's caption is not its place in row i, sorted"
    place = scores.T.argsort(1, descending=True).argsort(1).diag().tolist()
    assert t2i == place, "the rank of caption i's image is not its place in column i, sorted"


def test_constant_features_score_nothing():
    same = features(1, 8, 4)
    image_of_caption = torch.tensor([0, 0, 1, 2, 2, 2])
    i2t, t2i = ranks_of(same.expand(3, 8), same.expand(6, 8), image_of_caption)
    assert i2t == [4, 5, 3], (
        f"a model that gives everything the same feature has all wrong captions first: [4, 5, 3], "
        f"but yours is {i2t}"
    )
    assert t2i == [2] * 6, f"and all wrong images first: 2 for each caption, but yours is {t2i}"


def test_ranks_do_not_depend_on_the_chunk():
    image, text = features(10, 6, 5), features(20, 6, 6)
    image_of_caption = torch.arange(20) // 2
    whole = ranks_of(image, text, image_of_caption)
    for chunk in (1, 3, 7, 10):
        assert ranks_of(image, text, image_of_caption, chunk=chunk) == whole, (
            f"the ranks change when {chunk} questions are computed at a time: the first question of "
            "a chunk is number `start`, not 0, and the last chunk may be smaller"
        )


def test_ranks_with_equal_captions():
    generator = torch.Generator().manual_seed(7)
    image, text = features(12, 6, 8), features(36, 6, 9)
    image_of_caption = torch.arange(36) // 3
    for n_texts in (4, 15):
        ids = torch.randint(n_texts, (36,), generator=generator)
        alike = text[ids]  # equal captions have equal features
        expected = ranks_by_loops(image, alike, image_of_caption, ids)
        i2t, t2i = ranks_of(image, alike, image_of_caption, ids)
        assert i2t == expected[0], (
            "the ranks from image to text are wrong where captions are equal: a caption that another "
            "image was given is right here, too, if this image has one of the same words"
        )
        assert t2i == expected[1], (
            "the ranks from text to image are wrong where captions are equal: the images of all "
            "equal captions are right"
        )


def test_ranks_with_captions_in_any_order():
    generator = torch.Generator().manual_seed(10)
    image, text = features(9, 6, 11), features(25, 6, 12)
    image_of_caption = torch.cat([torch.arange(9), torch.randint(9, (16,), generator=generator)])
    image_of_caption = image_of_caption[torch.randperm(25, generator=generator)]
    expected = ranks_by_loops(image, text, image_of_caption, torch.arange(25))
    assert ranks_of(image, text, image_of_caption) == expected, (
        "the ranks are wrong where captions stand in no order and images have different numbers of "
        "them: image_of_caption says which image each belongs to"
    )


def test_ranks_of_equal_captions_across_chunks():
    image, text = features(8, 6, 13), features(16, 6, 14)
    ids = torch.arange(16) % 5
    image_of_caption = torch.arange(16) // 2
    expected = ranks_by_loops(image, text[ids], image_of_caption, ids)
    for chunk in (1, 3, 5, 100):
        assert ranks_of(image, text[ids], image_of_caption, ids, chunk=chunk) == expected, (
            "equal captions in different chunks are not found: compare each chunk with all captions"
        )


# --------------------------------------------------------------------------------------------------
# 6.3 compositional


def pair_scores(true, false):
    """Features whose cosines with the true and with the false captions are given, row by row."""
    true, false = torch.tensor(true), torch.tensor(false)
    one, zero = torch.ones_like(true), torch.zeros_like(true)
    image = torch.stack([one, zero], 1)
    return (
        image,
        torch.stack([true, (1 - true * true).sqrt()], 1),
        torch.stack([false, (1 - false * false).sqrt()], 1),
    )


def test_compositional_by_hand():
    right = metrics.compositional(*pair_scores([0.9, 0.1, -0.2], [0.5, 0.5, -0.8]))
    assert right.dtype == torch.bool and right.shape == (3,), "one bool per row: (M,)"
    assert right.tolist() == [True, False, True], (
        f"the true caption is nearer in the first and in the third row, but yours says "
        f"{right.tolist()}: compare the cosine with the true caption to that with the false one"
    )


def test_compositional_of_a_collapsed_model():
    same = features(1, 8, 20).expand(5, 8)
    right = metrics.compositional(same, same, same)
    assert not right.any(), (
        "a model that gives everything the same feature must score 0, not 100 %: a tie is wrong"
    )


def test_compositional_with_nan():
    image, true, false = pair_scores([0.9, 0.9, 0.9], [0.5, 0.5, 0.5])
    true[0, 0] = NAN
    false[1, 0] = NAN
    right = metrics.compositional(image, true, false)
    assert right.tolist() == [False, False, True], (
        "a caption whose feature is not a number must not win, nor lose to let the other one win"
    )


def test_compositional_of_each_row_alone():
    image, true, false = features(30, 8, 21), features(30, 8, 22), features(30, 8, 23)
    right = metrics.compositional(image, true, false).tolist()
    expected = [bool(i @ t > i @ f) for i, t, f in zip(image, true, false, strict=True)]
    assert right == expected, "row i compares image i with true caption i and false caption i"


def test_compositional_takes_rounding_for_a_tie():
    right = metrics.compositional(*pair_scores([0.5 + 3e-7, 0.5 + 1e-4], [0.5, 0.5]))
    assert right.tolist() == [False, True], (
        "cosines that differ by less than TIE are a tie, and those that differ by more are not"
    )


# --------------------------------------------------------------------------------------------------
# 6.4 zeroshot


def classified(cosines, labels, k=1):
    image, classes = with_cosines(cosines)
    return metrics.zeroshot(image, classes, torch.tensor(labels), k)


def test_zeroshot_by_hand():
    cosines = [[0.5, 0.2, 0.1], [0.3, 0.1, 0.6], [0.1, 0.5, 0.2]]
    right = classified(cosines, [0, 1, 1])
    assert right.dtype == torch.bool and right.shape == (3,), "one bool per image: (n,)"
    assert right.tolist() == [True, False, True], (
        f"the nearest classes are 0, 2 and 1, and the right ones 0, 1 and 1, but yours says "
        f"{right.tolist()}"
    )


def test_zeroshot_among_the_first_k():
    cosines = [[0.5, 0.4, 0.3, 0.2]]
    for label in range(4):
        for k in range(1, 5):
            right = classified(cosines, [label], k).tolist()
            assert right == [label < k], (
                f"the right class is number {label + 1} of 4, so with k = {k} the answer is "
                f"{label < k}, but yours is {right[0]}: is k off by one?"
            )


def test_zeroshot_of_a_collapsed_model():
    same = features(1, 8, 30)
    for k in (1, 3):
        right = metrics.zeroshot(same.expand(5, 8), same.expand(5, 8), torch.arange(5), k)
        assert not right.any(), (
            "a model that gives everything the same feature must score 0: a wrong class with an "
            "equal score stands before the right one, wherever it is stored (topk and argmax do "
            "not know that)"
        )


def test_zeroshot_equals_sorting():
    image, classes = features(40, 8, 31), features(10, 8, 32)
    labels = torch.arange(40) % 10
    for k in (1, 2, 5, 10):
        nearest = (image @ classes.T).topk(k).indices
        expected = (nearest == labels[:, None]).any(1)
        assert torch.equal(metrics.zeroshot(image, classes, labels, k), expected), (
            f"with k = {k} the result is not that of sorting: each image has a label of its own"
        )


def test_zeroshot_with_nan():
    image, classes = features(6, 8, 33), features(3, 8, 34)
    labels = (image @ classes.T).argmax(1)
    image[0] = NAN
    right = metrics.zeroshot(image, classes, labels)
    assert not right[0], "an image whose feature is not a number is wrong"
    assert right[1:].all(), "the other images must stay right"
    classes[0] = NAN
    assert not metrics.zeroshot(image, classes, labels).any(), (
        "a class that is not a number stands before all others: every comparison with NaN is "
        "false, so ask which classes are surely behind, and count the rest"
    )


def test_zeroshot_takes_rounding_for_a_tie():
    cosines = [[0.5, 0.5 - 3e-7, 0.1], [0.5, 0.5 - 1e-4, 0.1]]
    assert classified(cosines, [0, 0]).tolist() == [False, True], (
        "cosines that differ by less than TIE are a tie, and a tie is wrong"
    )


# --------------------------------------------------------------------------------------------------
# 6.5 winoground


def scored(*examples):
    """Features of examples. Each is [[s_00, s_01], [s_10, s_11]]."""
    image, text = zip(*(with_cosines(example) for example in examples), strict=True)
    text_score, image_score, group = metrics.winoground(torch.cat(image), torch.cat(text))
    return text_score.tolist(), image_score.tolist(), group.tolist()


def test_winoground_by_hand():
    text, image, group = scored(
        [[0.6, 0.2], [0.1, 0.5]],  # everything is right
        [[0.3, 0.2], [0.5, 0.6]],  # each image prefers its caption, but caption 0 the image 1
        [[0.3, 0.5], [0.2, 0.6]],  # each caption prefers its image, but image 0 the caption 1
        [[0.2, 0.6], [0.5, 0.1]],  # everything is wrong
    )
    assert text == [True, True, False, False], (
        f"text score: each IMAGE prefers its own caption, so compare s_00 with s_01 and s_11 with "
        f"s_10. It is [1, 1, 0, 0], but yours is {text}"
    )
    assert image == [True, False, True, False], (
        f"image score: each CAPTION prefers its own image, so compare s_00 with s_10 and s_11 with "
        f"s_01. It is [1, 0, 1, 0], but yours is {image}"
    )
    assert group == [True, False, False, False], "group score: both the text and the image score"


def test_winoground_of_a_collapsed_model():
    same = features(1, 8, 40).expand(6, 8)
    for name, right in zip(("text", "image", "group"), metrics.winoground(same, same), strict=True):
        assert right.shape == (3,), f"six images are three examples, but yours gives {len(right)}"
        assert not right.any(), f"a collapsed model must have a {name} score of 0: a tie is wrong"


def test_winoground_of_many_examples():
    image, text = features(60, 4, 41), features(60, 4, 42)
    expected = []
    for e in range(30):
        (a, b), (c, d) = (image[2 * e : 2 * e + 2] @ text[2 * e : 2 * e + 2].T).tolist()
        by_text, by_image = a > b and d > c, a > c and d > b
        expected.append((by_text, by_image, by_text and by_image))
    got = list(zip(*(right.tolist() for right in metrics.winoground(image, text)), strict=True))
    assert got == expected, (
        "the scores of 30 examples are wrong: rows 2 e and 2 e + 1 belong together, and each score "
        "needs both of its comparisons"
    )


def test_winoground_with_nan():
    image, text = with_cosines([[0.6, 0.2], [0.1, 0.5]])
    for tensor in (image, text):
        for row in (0, 1):
            before = tensor[row].clone()
            tensor[row] = NAN
            assert not any(right.any() for right in metrics.winoground(image, text)), (
                "an example with a feature that is not a number has no right answer"
            )
            tensor[row] = before


def test_winoground_takes_rounding_for_a_tie():
    near = 0.5 - 3e-7
    text, image, _ = scored([[0.5, near], [0.1, 0.6]], [[0.5, 0.1], [near, 0.6]])
    assert text == [False, True] and image == [True, False], (
        "cosines that differ by less than TIE are a tie, and a tie is wrong"
    )
    text, image, _ = scored([[0.6, 0.1], [near, 0.5]], [[0.6, near], [0.1, 0.5]])
    assert text == [False, True] and image == [True, False], (
        "a tie of the second image or caption is wrong, too"
    )


# --------------------------------------------------------------------------------------------------
# 6.6 interval


def width_of(ends):
    return ends[1] - ends[0]


def test_interval_of_equal_hits():
    for value in (0.0, 1.0):
        ends = metrics.interval([value] * 20)
        assert len(ends) == 2 and np.allclose(ends, value), (
            f"where all hits are {value:.0f}, every mean is {value:.0f}, but yours is {ends}"
        )
    low, high = metrics.interval([0, 1] * 20)
    assert low < 0.5 < high, (
        f"the interval [{low:.3f}, {high:.3f}] is not around the mean 0.5: the result is [low, "
        "high], and the groups are drawn with replacement (without, all means are equal)"
    )


def test_interval_has_the_expected_width():
    """Of n questions with the mean p it is about 2 * 1.96 sqrt(p (1 - p) / n) wide."""
    for n, p in ((400, 0.5), (400, 0.2)):
        hits = np.arange(n) < p * n
        expected = 2 * 1.96 * math.sqrt(p * (1 - p) / n)
        width = width_of(metrics.interval(hits))
        assert width > 0.85 * expected, (
            f"the interval is too narrow: {width:.3f}, not about {expected:.3f}. Draw as many "
            "groups as there are, with replacement, and take the percentiles 2.5 and 97.5"
        )
        assert width < 1.15 * expected, (
            f"the interval is too wide: {width:.3f}, not about {expected:.3f}. Draw as many groups "
            "as there are, and take the percentiles 2.5 and 97.5"
        )


def test_interval_draws_whole_groups():
    """Five captions of one image that are right or wrong together say as much as one."""
    image_is_right = np.arange(100) % 2 == 0
    hits, groups = image_is_right.repeat(5), np.arange(100).repeat(5)
    alone, together = metrics.interval(image_is_right), metrics.interval(hits, groups)
    ratio = width_of(together) / width_of(alone)
    assert 0.75 < ratio < 1.3, (
        f"five equal captions per image make the interval {ratio:.2f} times as wide, not about as "
        "wide as one caption per image: the captions of an image are drawn together"
    )


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(7)
    n, truth, simulations = 80, 0.6, 150
    covered = 0
    for _ in range(simulations):
        low, high = metrics.interval(rng.random(n) < truth, resamples=150)
        covered += low <= truth <= high
    share = covered / simulations
    assert 0.86 <= share <= 0.99, (
        f"{share:.0%} of {simulations} simulated intervals hold the true mean, not about 95 %"
    )


def test_interval_of_groups_of_different_sizes():
    """A group counts with all its questions: the mean is over questions, not over groups."""
    size = np.where(np.arange(60) % 2 == 0, 1, 9)
    hits = (size == 9).repeat(size)  # the large groups are right: the mean is 0.9, not 0.5
    low, high = metrics.interval(hits, np.arange(60).repeat(size))
    assert low < 0.9 < high and low > 0.75, (
        f"the interval [{low:.3f}, {high:.3f}] is not around 0.9, the mean of the questions: divide "
        "the hits of the drawn groups by the questions of the drawn groups"
    )


def test_interval_of_the_mean_of_questions():
    """Groups need not stand in order, and hits need not be 0 or 1."""
    rng = np.random.default_rng(8)
    order = rng.permutation(300)
    groups = (np.arange(300) // 3)[order]
    hits = np.arange(100)[groups] / 100
    low, high = metrics.interval(hits, groups)
    expected = 2 * 1.96 * np.std(np.arange(100) / 100) / 10
    assert low < 0.495 < high and 0.85 < (high - low) / expected < 1.15, (
        f"the interval of shuffled groups is [{low:.3f}, {high:.3f}], not about {expected:.3f} wide "
        "around 0.495: `groups` says to which group each question belongs"
    )
    fewer = metrics.interval(hits, groups, resamples=50)
    assert len(fewer) == 2 and 0.5 < width_of(fewer) / expected < 1.5, (
        "with fewer resamples the interval stays about as wide: it does not shrink with them"
    )
