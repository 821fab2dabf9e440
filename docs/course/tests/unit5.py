"""Unit 5, the loop: tests of lr_at and go_on in train.py, random_crops in data/images/pixels.py, and
of the batches in data/batches.py.

A test of Batches.__call__ puts functions of its own in place of epoch, choose and find_duplicates.
So a mistake there costs no points here.
"""

import contextlib
import copy
import io
import math
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch import nn

import train
from data import batches as batches_module
from data.batches import Batches, find_duplicates
from data.common import BadInput
from data.images.pixels import random_crops

CPU = torch.device("cpu")


def near(one, other, tolerance=1e-6):
    return bool(np.allclose(np.asarray(one, float), np.asarray(other, float), atol=tolerance))


# --------------------------------------------------------------------------------------------------
# 5.1 lr_at


def schedule(lr, warmup, total):
    cfg = SimpleNamespace(lr=lr, warmup=warmup)
    return [train.lr_at(step, total, cfg) for step in range(total)]


def test_schedule_as_a_list():
    # Two steps of warm-up, then a cosine over 18.
    rates = schedule(1.0, 2, 20)
    assert near(rates[:2], [0.5, 1.0]), (
        f"the warm-up of two steps is 1/2, 1, but yours is {rates[:2]}: the first step is number 0, "
        "and its rate is not 0"
    )
    cosine = [(1 + math.cos(math.pi * k / 18)) / 2 for k in range(18)]
    assert near(rates[2:], cosine), (
        f"the rate must fall from 1 along half a cosine over the 18 steps after the warm-up; yours "
        f"begins {[round(r, 4) for r in rates[2:6]]}, not {[round(r, 4) for r in cosine[:4]]}"
    )


def test_schedule_begins_and_ends():
    cfg = SimpleNamespace(lr=0.002, warmup=500)
    assert near(train.lr_at(0, 10_000, cfg), 0.002 / 500, 1e-9), "the first rate is lr / W"
    assert near(train.lr_at(500, 10_000, cfg), 0.002, 1e-9), "after the warm-up the rate is lr"
    assert near(train.lr_at(5250, 10_000, cfg), 0.001, 1e-9), "half-way down the rate is lr / 2"
    assert near(train.lr_at(10_000, 10_000, cfg), 0, 1e-9), "at the end the rate is 0"


def test_schedule_of_other_lengths():
    for lr, warmup, total in ((3e-4, 500, 312), (1e-2, 5, 100), (1.0, 500, 50), (0.5, 30, 4000)):
        W = min(warmup, total // 10)
        expected = [
            lr * (k + 1) / W if k < W else lr * (1 + math.cos(math.pi * (k - W) / (total - W))) / 2
            for k in range(total)
        ]
        assert near(schedule(lr, warmup, total), expected, 1e-9), (
            f"the schedule of {total} steps with --warmup {warmup} is wrong: the warm-up is --warmup "
            "steps long, but at most a tenth of all"
        )


def test_schedule_without_warm_up():
    cosine = [(1 + math.cos(math.pi * k / 9)) / 2 for k in range(9)]
    assert near(schedule(1.0, 500, 9), cosine), (
        "with 9 steps a tenth is no step: no warm-up is left"
    )
    assert near(schedule(1.0, 0, 9), cosine), "with --warmup 0 the rate begins at its peak"


# --------------------------------------------------------------------------------------------------
# 5.2 random_crops


S = 32


def crop(smallest, area, ratio, x, y):
    """Crop an image whose colours are its own coordinates, and measure where the crop lies.

    Gives (B,) each: width and height as shares of the side, and the place of the centre, from -1
    to 1.
    """
    draws = torch.stack(torch.broadcast_tensors(*map(torch.as_tensor, (area, ratio, x, y))))
    draws = draws.float().reshape(4, -1)
    line = (2 * torch.arange(S) + 1) / S - 1  # the coordinates of the pixels' centres
    image = torch.stack([line.expand(S, S), line[:, None].expand(S, S), torch.ones(S, S)])
    y = random_crops(image.expand(draws.shape[1], 3, S, S), smallest, draws)
    assert y.shape == (draws.shape[1], 3, S, S), (
        f"the shape must stay {(draws.shape[1], 3, S, S)}, but yours is {tuple(y.shape)}"
    )
    a, b = S // 4, 3 * S // 4  # not at the border
    width = (y[:, 0, 16, b] - y[:, 0, 16, a]) / (line[b] - line[a])
    height = (y[:, 1, b, 16] - y[:, 1, a, 16]) / (line[b] - line[a])
    return width, height, y[:, 0, 16, 16] - width / S, y[:, 1, 16, 16] - height / S


def many_draws(seed=0, count=64):
    return torch.rand(4, count, generator=torch.Generator().manual_seed(seed))


ALMOST_1 = 1 - 1e-6


def test_a_whole_crop_changes_nothing():
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    draws = torch.tensor([ALMOST_1, 0.5, 0.3, 0.8])[:, None].expand(4, 3)
    for smallest in (0.3, 1.0):
        assert near(random_crops(images, smallest, draws), images, 1e-3), (
            "a crop of the whole image must be the image: F.affine_grid and F.grid_sample need the "
            "same align_corners, False"
        )


def test_crops_keep_the_area_that_was_drawn():
    for smallest in (0.1, 0.25, 0.5):
        for area in (0.0, 0.3, 0.6):
            width, height, *_ = crop(smallest, area, 0.5, 0.5, 0.5)
            expected = smallest + (1 - smallest) * area
            assert near(width * height, expected, 1e-3), (
                f"with the smallest share {smallest} and the draw {area} the crop must keep "
                f"{expected:.3f} of the area, but yours keeps {float(width * height):.3f}: the "
                "sides are the roots of area times and by ratio"
            )


def test_crops_stay_inside_and_are_not_flipped():
    width, height, x, y = crop(0.2, *many_draws(2))
    assert (width > 0).all() and (height > 0).all(), (
        "the images are flipped: a caption may say left"
    )
    for side, centre in ((width, x), (height, y)):
        assert (side <= 1 + 1e-4).all(), "a crop is larger than the image"
        assert (centre.abs() + side <= 1 + 1e-3).all(), (
            "a crop reaches beyond the image: its centre can move by 1 - side only, each way"
        )


def test_each_image_has_its_own_crop():
    draws = many_draws(3, 6)
    together = torch.stack(crop(0.2, *draws))
    alone = torch.cat([torch.stack(crop(0.2, *draws[:, i : i + 1])) for i in range(6)], 1)
    assert near(together, alone, 1e-3), "the crop of an image changes with the rest of the batch"
    assert (together[0, 1:] != together[0, :1]).any(), "all images of the batch have the same crop"


def test_crops_reach_both_edges():
    for name, place in (("x", 2), ("y", 3)):
        ends = []
        for draw in (0.0, 0.25, 0.5, 0.75, ALMOST_1):
            where = (draw, 0.5) if name == "x" else (0.5, draw)
            measured = crop(0.25, 0.0, 0.5, *where)
            ends.append(float(measured[place]))
        ends = sorted(ends)
        assert near(ends, [-0.5, -0.25, 0.0, 0.25, 0.5], 1e-3), (
            f"a square of a quarter of the area has its centre between -0.5 and 0.5, evenly; with "
            f"{name} = 0, 1/4, 1/2, 3/4, 1 yours has {[round(e, 3) for e in ends]}"
        )
    width, height, x, y = crop(0.25, 0.0, torch.tensor([0.0, ALMOST_1]), ALMOST_1, ALMOST_1)
    for side, centre in ((width, x), (height, y)):
        assert near(centre.abs() + side, 1, 1e-3), (
            "where the rectangle is no square, it must reach the edges, too: the place follows from "
            "the width in one direction, from the height in the other"
        )


def test_crops_have_the_shapes_of_the_papers():
    ratios = []
    for draw in (0.0, 0.25, 0.5, 0.75, ALMOST_1):
        width, height, *_ = crop(0.25, 0.2, draw, 0.5, 0.5)
        ratios.append(float(width / height))
        assert near(width * height, 0.4, 1e-3), "the ratio changes the area"
    assert near(sorted((ratios[0], ratios[-1])), (3 / 4, 4 / 3), 1e-3), (
        f"width divided by height goes from 3/4 to 4/3, but yours from {ratios[0]:.3f} to "
        f"{ratios[-1]:.3f}"
    )
    assert sorted(ratios) in (ratios, ratios[::-1]), (
        "the ratio must follow its draw in one direction"
    )
    width, height, *_ = crop(0.2, *many_draws(4))
    free = (width < 0.999) & (height < 0.999)
    ratio = (width / height)[free]
    assert free.any() and (ratio > 0.749).all() and (ratio < 1.335).all(), (
        "a rectangle inside the image has a shape beyond 3/4 and 4/3"
    )


def test_a_side_that_is_cut_is_made_up_for():
    for smallest in (0.7, 0.9, 0.98):
        draws = many_draws(5)
        draws[1, :2] = torch.tensor([0.0, ALMOST_1])
        width, height, *_ = crop(smallest, *draws)
        assert (width * height >= smallest - 2e-3).all(), (
            f"a crop keeps {float((width * height).min()):.3f} of the area, less than the smallest "
            f"share {smallest}: where one side is longer than the image and is cut to 1, the other "
            "side must be made longer"
        )
        assert (width <= 1 + 1e-4).all() and (height <= 1 + 1e-4).all(), "a side is longer than 1"


def test_crops_of_a_plain_image_stay_plain():
    plain = torch.full((64, 3, 8, 8), 0.7)
    assert near(random_crops(plain, 0.3, many_draws(6)), plain, 1e-4), (
        "the edge of a crop is darker than the image: a place beyond the last pixel's centre takes "
        "the last pixel (padding_mode), not black"
    )


# --------------------------------------------------------------------------------------------------
# What the tests of Batches read: images that are only numbered, with captions of their own.


class Images:
    """`count` images. Each is a digest, the same for all that are equal."""

    def __init__(self, digests):
        self.digests = np.array(digests, np.uint64)

    def __len__(self):
        return len(self.digests)


class Captions:
    def __init__(self, lists):
        self.lists = lists

    def of_image(self, i):
        return np.array(self.lists[i], np.int64)


def batches_of(count=10, batch_size=3, seed=0, long_share=None, lists=None, labels=False):
    lists = lists or [[2 * i, 2 * i + 1] for i in range(count)]
    n_captions = 1 + max(max(row) for row in lists)
    asked = []

    def image_inputs(indices, step, part):
        asked.append((indices.tolist(), step, part))
        return torch.from_numpy(indices[part]) * 100

    batches = Batches(
        Images(range(100, 100 + count)),
        Captions(lists),
        torch.arange(n_captions) * 10,
        image_inputs,
        batch_size=batch_size,
        seed=seed,
        long_share=long_share,
        device=CPU,
        label_ids=torch.arange(n_captions)[:, None] * 1000 if labels else None,
    )
    batches.asked = asked
    return batches


# --------------------------------------------------------------------------------------------------
# 5.3 Batches.epoch


def test_an_epoch_has_every_image_once():
    batches = batches_of(50)
    for number in range(3):
        order, draws = batches.epoch(number)
        assert sorted(order.tolist()) == list(range(50)), (
            "an epoch must have each of the N images once: draw a permutation"
        )
        assert len(draws) == 50, "there is one number per image to draw its caption with"
    assert batches.epoch(0)[0].tolist() != list(range(50)), "the images are not shuffled"


def test_an_epoch_is_a_function_of_seed_and_number():
    one, other = batches_of(50, seed=3), batches_of(50, seed=3)
    first = [x.tolist() for x in one.epoch(0)]
    second = [x.tolist() for x in one.epoch(1)]
    assert first[0] != second[0] and first[1] != second[1], (
        "every epoch must have an order of its own"
    )
    assert [x.tolist() for x in one.epoch(0)] == first, (
        "epoch 0, asked for again after epoch 1, is not what it was: everything must follow from "
        "the seed and the number of the epoch"
    )
    assert [x.tolist() for x in other.epoch(1)] == second, (
        "epoch 1 is another one when epoch 0 was not asked for before: a run that is resumed would "
        "see other batches"
    )
    assert batches_of(50, seed=4).epoch(0)[0].tolist() != first[0], "the seed changes nothing"


def test_an_epoch_leaves_other_random_numbers_alone():
    np.random.seed(1)
    torch.manual_seed(1)
    first = [x.tolist() for x in batches_of(30).epoch(2)]
    after = np.random.rand(), float(torch.rand(()))
    np.random.seed(2)
    torch.manual_seed(2)
    assert [x.tolist() for x in batches_of(30).epoch(2)] == first, (
        "the order depends on a global random generator: make one of your own from seed and epoch"
    )
    np.random.seed(1)
    torch.manual_seed(1)
    assert after == (np.random.rand(), float(torch.rand(()))), (
        "the epoch draws from a global random generator, or sets its seed: others use it, too"
    )


def test_seed_and_epoch_are_not_added():
    def order(seed, number):
        return batches_of(40, seed=seed).epoch(number)[0].tolist()

    orders = [order(seed, number) for seed in range(4) for number in range(4)]
    assert len({tuple(o) for o in orders}) == 16, (
        "two of the 16 epochs of four seeds are equal: seed + epoch makes epoch 1 of seed 0 the "
        "epoch 0 of seed 1. Give the generator both numbers"
    )


def test_draws_of_an_epoch_lie_between_0_and_1():
    draws = batches_of(2000).epoch(5)[1]
    assert draws.min() >= 0 and draws.max() < 1, "the draws lie in [0, 1)"
    assert abs(draws.mean() - 0.5) < 0.05 and len(set(draws.tolist())) > 1900, (
        "the draws are not spread evenly over [0, 1)"
    )
    order, draws = batches_of(2000).epoch(0)
    assert abs(np.corrcoef(order, draws)[0, 1]) < 0.1, "the draws must not follow from the order"


# --------------------------------------------------------------------------------------------------
# 5.4 Batches.choose


def shares(n_captions, long_share):
    """How often each of an image's captions is drawn, over all numbers in [0, 1)."""
    batches = batches_of(long_share=long_share)
    captions = torch.arange(n_captions) + 7
    draws = (np.arange(1200) + 0.5) / 1200
    chosen = [int(batches.choose(captions, float(draw))) - 7 for draw in [*draws, 0.0, 1 - 1e-12]]
    assert set(chosen) <= set(range(n_captions)), (
        "what is drawn must be one of the image's captions"
    )
    return np.bincount(chosen, minlength=n_captions) / len(chosen)


def test_all_captions_alike():
    for n in (2, 3, 5):
        found = shares(n, None)
        assert near(found, np.full(n, 1 / n), 0.005), (
            f"{n} captions are drawn with the shares {found.round(3).tolist()}, not all alike"
        )


def test_the_longest_caption_more_often():
    found = shares(3, 0.6)
    assert abs(found[-1] - 0.6) < 0.005, (
        f"the longest caption, the last one, is drawn with the share {found[-1]:.3f}, not 0.6: the "
        "other captions share what is left, and it is none of them"
    )
    assert near(found, [0.2, 0.2, 0.6], 0.005), (
        f"the others are drawn with the shares {found[:2].round(3).tolist()}, not 0.2 each: map "
        "[share, 1) to [0, 1) before it is divided"
    )


def test_one_caption_only():
    for long_share in (None, 0.0, 0.5, 1.0):
        assert shares(1, long_share).tolist() == [1.0], "the only caption is always the one"


def test_other_shares_of_the_longest_caption():
    for n in (2, 4, 6):
        for long_share in (0.0, 0.25, 0.9, 1.0):
            expected = [(1 - long_share) / (n - 1)] * (n - 1) + [long_share]
            found = shares(n, long_share)
            assert near(found, expected, 0.005), (
                f"with {n} captions and the share {long_share} of the longest, the shares are "
                f"{found.round(3).tolist()}, not {np.round(expected, 3).tolist()} (a share of 0 is "
                "not the same as None)"
            )


# --------------------------------------------------------------------------------------------------
# 5.5 find_duplicates


def duplicates_by_loops(lists, caption, digests):
    B = len(caption)
    found = [
        [
            caption[j] in lists[i] or caption[i] in lists[j] or digests[i] == digests[j]
            for j in range(B)
        ]
        for i in range(B)
    ]
    return torch.tensor(found)


def duplicates(lists, caption, digests):
    tensors = [torch.tensor(row) for row in lists]
    found = find_duplicates(tensors, torch.tensor(caption), torch.tensor(digests))
    assert found.dtype == torch.bool and found.shape == (len(caption),) * 2, (
        "the result is (B, B) bool"
    )
    return found


def test_duplicates_of_the_example():
    # 1: "a red star", 2: "a star", 3: "a blue ring", 4: "a ring in blue"
    found = duplicates([[1, 2], [3], [2], [4]], [1, 3, 2, 4], [11, 22, 33, 22])
    assert found[0, 2], (
        'image 0 also has the caption "a star", which was drawn for image 2: (0, 2) is no negative'
    )
    assert found[2, 0], (
        "if (0, 2) matches, then (2, 0) is taken to match, too: the mask is symmetric"
    )
    assert found[1, 3] and found[3, 1], "the images 1 and 3 are equal, so their captions fit both"
    expected = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]).bool()
    assert torch.equal(found, expected), (
        f"the rows are 1010, 0101, 1010, 0101, but yours are {found.int().tolist()}"
    )


def test_nothing_matches_by_accident():
    found = duplicates([[1, 2, 3], [4], [5, 6]], [2, 4, 5], [7, 8, 9])
    assert torch.equal(found, torch.eye(3).bool()), (
        "three images without a common caption match only their own: the diagonal is true, all else "
        "is false (captions that were not drawn do not count by themselves)"
    )


def test_duplicates_of_random_batches():
    rng = np.random.default_rng(9)
    for _ in range(20):
        lists = [rng.integers(0, 12, rng.integers(1, 5)).tolist() for _ in range(8)]
        caption = [int(rng.choice(row)) for row in lists]
        digests = rng.integers(0, 6, 8).tolist()
        expected = duplicates_by_loops(lists, caption, digests)
        assert torch.equal(duplicates(lists, caption, digests), expected), (
            "i and j match where caption j is one of image i's, or caption i one of image j's, or "
            "the images are equal"
        )


def test_caption_0_is_no_padding():
    found = duplicates([[0], [5, 6, 7], [8]], [0, 5, 8], [1, 2, 3])
    assert torch.equal(found, torch.eye(3).bool()), (
        "an image with few captions is taken to have caption 0: captions are numbered from 0, so "
        "pad with a number that no caption has"
    )


# --------------------------------------------------------------------------------------------------
# 5.6 Batches.__call__


def fixed_epoch(number):
    """In place of Batches.epoch: 10 images, turned by the epoch's number. Image i draws i / 10."""
    return np.roll(np.arange(10)[::-1], number).copy(), np.arange(10) / 10


def batch(batches, *arguments, choose=None, found=None):
    """The student's __call__, with everything else from here."""
    batches.epoch = fixed_epoch
    batches.choose = choose or (lambda captions, draw: captions[-1])
    stand_in = found or (lambda lists, caption, digests: caption[:, None] == caption)
    with mock.patch.object(batches_module, "find_duplicates", stand_in):
        return batches(*arguments)


def test_batch_by_hand():
    images, texts, match, labels = batch(batches_of(), 1)
    assert images.tolist() == [600, 500, 400], (
        f"with batches of 3, step 1 has the places 3 to 5 of the epoch's order: the images 6, 5, 4; "
        f"yours has {[i / 100 for i in images.tolist()]}"
    )
    assert texts.tolist() == [130, 110, 90], (
        "the texts are the inputs of the captions that `choose` drew for these images, in the same "
        f"order; yours are the inputs of the captions {[t / 10 for t in texts.tolist()]}"
    )
    assert torch.equal(match, torch.eye(3).bool()), "duplicates are what find_duplicates says"
    assert labels is None, "without label ids the last value is None"


def test_batches_of_later_epochs():
    # There are 10 images, so 3 steps per epoch, and the last image of each order is left out.
    for step in (0, 2, 3, 5, 7, 11):
        epoch, place = step // 3, step % 3
        expected = [100 * i for i in fixed_epoch(epoch)[0][3 * place : 3 * place + 3].tolist()]
        images = batch(batches_of(), step)[0].tolist()
        assert images == expected, (
            f"step {step} is number {place} of epoch {epoch}, because an epoch has 3 whole batches; "
            f"its images are {expected}, but yours are {images} (numbers times 100)"
        )


def test_part_of_a_batch():
    whole = batch(batches_of(labels=True), 4)
    part = batch(batches_of(labels=True), 4, slice(1, 3))
    for name, place in (("images", 0), ("texts", 1), ("label ids", 3)):
        assert part[place].tolist() == whole[place][1:3].tolist(), (
            f"of the {name} a part has only its rows, and they are those of the whole batch"
        )
    assert torch.equal(part[2], whole[2]), "the duplicates are those of the whole batch, always"


def test_batch_asks_for_crops_of_its_step():
    batches = batches_of()
    batch(batches, 7, slice(0, 2))
    assert batches.asked == [(fixed_epoch(2)[0][3:6].tolist(), 7, slice(0, 2))], (
        f"image_inputs takes the indices of the whole batch, the step (of all, not of the epoch) and "
        f"the part, but yours asked for {batches.asked}"
    )


def test_batch_with_labels():
    _, texts, _, labels = batch(batches_of(labels=True), 2)
    assert labels is not None and (labels[:, 0] / 1000).tolist() == (texts / 10).tolist(), (
        "label_ids are those of the same captions as the texts"
    )


def test_captions_are_drawn_by_the_images_own_numbers():
    asked, given = [], []

    def choose(captions, draw):
        asked.append((captions.tolist(), round(float(draw), 3)))
        return captions[0]

    def found(lists, caption, digests):
        given.append(([row.tolist() for row in lists], caption.tolist(), digests.tolist()))
        return torch.eye(3).bool()

    texts = batch(batches_of(), 0, choose=choose, found=found)[1]
    assert asked == [([18, 19], 0.9), ([16, 17], 0.8), ([14, 15], 0.7)], (
        f"`choose` takes an image's captions and the number that epoch() gave to this image: draws[i] "
        f"for image i, not for place i; yours asked {asked}"
    )
    assert texts.tolist() == [180, 160, 140], "the caption that `choose` gives is the text"
    assert given == [([[18, 19], [16, 17], [14, 15]], [18, 16, 14], [109, 108, 107])], (
        f"find_duplicates takes all captions of the batch's images, the drawn ones, and the images' "
        f"digests; yours gave {given}"
    )


# --------------------------------------------------------------------------------------------------
# 5.7 go_on


CFG = SimpleNamespace(out="a_run", data="data.csv")


class AdamW:
    """torch.optim.AdamW in a few lines, with the same states. torch's own loads its compiler, which
    takes seconds."""

    def __init__(self, groups, lr):
        self.param_groups = [{"lr": lr, "weight_decay": 0.0} | group for group in groups]
        self.state = {}

    def parameters(self):
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self):
        parameters, groups, count = self.parameters(), [], 0
        for group in self.param_groups:
            numbers = list(range(count, count + len(group["params"])))
            groups.append(group | {"params": numbers})
            count += len(numbers)
        state = {i: self.state[p] for i, p in enumerate(parameters) if p in self.state}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, loaded):
        loaded, parameters = copy.deepcopy(loaded), self.parameters()
        self.state = {parameters[i]: state for i, state in loaded["state"].items()}
        for group, new in zip(self.param_groups, loaded["param_groups"], strict=True):
            group |= {name: value for name, value in new.items() if name != "params"}

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p not in self.state:
                    zeros = torch.zeros_like(p), torch.zeros_like(p)
                    names = ("step", "exp_avg", "exp_avg_sq")
                    self.state[p] = dict(zip(names, (torch.tensor(0.0), *zeros), strict=True))
                state = self.state[p]
                state["step"] += 1
                state["exp_avg"].lerp_(p.grad, 0.1)
                state["exp_avg_sq"].lerp_(p.grad.square(), 0.02)
                mean = state["exp_avg"] / (1 - 0.9 ** state["step"])
                square = state["exp_avg_sq"] / (1 - 0.98 ** state["step"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * mean / (square.sqrt() + 1e-6))

    def zero_grad(self):
        for p in self.parameters():
            p.grad = None


def start_run(lr=0.01):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))
    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.2},
        {"params": [p for p in model.parameters() if p.ndim == 1]},
    ]
    return model, AdamW(groups, lr=lr)


def train_steps(model, optimizer, start, end):
    for step in range(start, end):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loss = (model(x) - x[:, :3].sin()).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def checkpoint_of(model, optimizer, step):
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "data_fingerprint": "abc",
    }
    return copy.deepcopy(state)


def resume(checkpoint, model, optimizer, fingerprint="abc", total=6):
    with contextlib.redirect_stderr(io.StringIO()):
        return train.go_on(checkpoint, CFG, model, optimizer, fingerprint, total)


def refusal(*arguments, **more):
    """What go_on says when it refuses, or None where it goes on."""
    try:
        resume(*arguments, **more)
    except BadInput as error:
        return str(error)
    return None


def resumed_is_equal(first, total):
    whole, optimizer = start_run()
    train_steps(whole, optimizer, 0, total)
    half, optimizer = start_run()
    train_steps(half, optimizer, 0, first)
    checkpoint = checkpoint_of(half, optimizer, first)
    again, optimizer = start_run()
    for parameter in again.parameters():
        parameter.data.fill_(9.0)  # whatever was there before is overwritten
    start = resume(checkpoint, again, optimizer, total=total)
    assert start == first, (
        f"the checkpoint was written after {first} steps, so step number {first} is the next; you "
        f"return {start}"
    )
    train_steps(again, optimizer, start, total)
    return all(
        torch.equal(one, other)
        for one, other in zip(whole.parameters(), again.parameters(), strict=True)
    )


def test_three_steps_and_three_more_are_six():
    assert resumed_is_equal(3, 6), (
        "3 steps, a checkpoint and 3 more steps do not give what 6 steps give, bit for bit: the "
        "weights must be loaded, and AdamW's moments and its count of steps, too"
    )


def test_other_data_are_refused():
    model, optimizer = start_run()
    checkpoint = checkpoint_of(model, optimizer, 3)
    assert refusal(checkpoint, *start_run(), fingerprint="other"), (
        "a run must not go on with other data: raise BadInput where the fingerprint differs"
    )
    del checkpoint["data_fingerprint"]
    assert refusal(checkpoint, *start_run()), "a checkpoint without a fingerprint is refused, too"


def test_a_finished_run_is_refused():
    model, optimizer = start_run()
    for step in (6, 7):
        assert refusal(checkpoint_of(model, optimizer, step), *start_run()), (
            f"a run with {step} of 6 steps is finished: raise BadInput"
        )
    assert refusal(checkpoint_of(model, optimizer, 5), *start_run()) is None, (
        "a run with 5 of 6 steps is not finished: one step is left"
    )


def test_a_checkpoint_of_another_model_is_refused():
    model, optimizer = start_run()
    checkpoint = checkpoint_of(model, optimizer, 3)
    checkpoint["model"]["0.weight"] = torch.zeros(8, 5)
    assert refusal(checkpoint, *start_run()), (
        "weights of another shape are refused with BadInput, in one line (data.files.tensors has "
        "`mismatch`)"
    )


def test_groups_follow_from_the_configuration():
    model, optimizer = start_run(lr=0.5)
    train_steps(model, optimizer, 0, 1)
    checkpoint = checkpoint_of(model, optimizer, 1)
    other, optimizer = start_run(lr=0.01)
    resume(checkpoint, other, optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01], (
        "the optimizer's groups were taken from the checkpoint: rates and weight decay follow from "
        "the configuration, and only the moments are loaded"
    )


def test_resumed_at_other_steps():
    for first, total in ((1, 2), (1, 5), (4, 5)):
        assert resumed_is_equal(first, total), (
            f"{first} steps, a checkpoint and {total - first} more do not give what {total} give"
        )
