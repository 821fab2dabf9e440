"""Unit 1, contrast: the tests that students have."""

import math

import torch

import lift

from ..student import after, gradients, holds, same, under_autocast
from .numbers import cross_entropy, unit

# Two pairs whose cosines can be worked out in the head. Rows are images, columns are captions:
#     1.0  0.0
#     0.6  0.8
IMAGES = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
CAPTIONS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def test_info_nce_of_two_pairs(student):
    """Two pairs by hand: scale 2, cosines [[1, 0], [0.6, 0.8]]"""
    rows = (cross_entropy([2.0, 0.0], 0) + cross_entropy([1.2, 1.6], 1)) / 2
    columns = (cross_entropy([2.0, 1.2], 0) + cross_entropy([0.0, 1.6], 1)) / 2
    found = student.lift.info_nce(IMAGES, CAPTIONS, torch.tensor(2.0))
    same(
        found,
        (rows + columns) / 2,
        f"the rows alone cost {rows:.4f}, the columns alone {columns:.4f}; the loss is their mean. "
        "Is each a mean over the pairs? Are the cosines multiplied by the scale as it is given, "
        "without exp and without division?",
    )


def test_info_nce_of_exchanged_towers(student):
    """Exchanging images and captions leaves the loss"""
    z, t = unit(6, 8, seed=1), unit(6, 8, seed=2)
    there = student.lift.info_nce(z, t, torch.tensor(5.0))
    back = student.lift.info_nce(t, z, torch.tensor(5.0))
    same(
        back,
        there,
        "the loss changes when images and captions change places: the two directions do not count "
        "alike. One softmax runs over the rows, the other over the columns",
    )


def test_info_nce_of_a_permuted_batch(student):
    """The order of the pairs in a batch does not matter"""
    z, t = unit(6, 8, seed=3), unit(6, 8, seed=4)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    one = student.lift.info_nce(z, t, torch.tensor(5.0))
    other = student.lift.info_nce(z[order], t[order], torch.tensor(5.0))
    same(
        other,
        one,
        "the loss changes when the pairs of the batch come in another order: a row is compared "
        "with the wrong column. Image i belongs to caption i. Look at the targets of the softmax",
    )


def test_info_nce_of_one_pair(student):
    """A batch of one pair costs nothing"""
    found = student.lift.info_nce(unit(1, 8, seed=5), unit(1, 8, seed=6), torch.tensor(5.0))
    same(
        found,
        0.0,
        "with one pair there is nothing to choose, so the loss is ln 1 = 0. Is the loss minus the "
        "logarithm of a probability, and is the right answer one of the answers?",
    )


def test_info_nce_leaves_duplicates_out(student):
    """Duplicates are never in the denominator"""
    z, t = unit(4, 8, seed=7), unit(4, 8, seed=8)
    duplicates = torch.eye(4, dtype=torch.bool)
    duplicates[0, 2] = duplicates[2, 0] = True
    logits = (5 * z.double() @ t.double().T).tolist()
    wanted = 0.0
    for i in range(4):
        kept = [j for j in range(4) if j == i or not duplicates[i, j]]
        place = kept.index(i)
        wanted += cross_entropy([logits[i][j] for j in kept], place) / 8
        wanted += cross_entropy([logits[j][i] for j in kept], place) / 8
    found, args = after(student.lift.info_nce, z, t, torch.tensor(5.0), duplicates)
    holds(
        not math.isnan(float(found)) and not math.isinf(float(found)),
        f"with duplicates the loss is {float(found)}: the diagonal must stay, although "
        "`duplicates` is true there",
    )
    same(
        found,
        wanted,
        "image 0 and caption 2 match by accident, and so do image 2 and caption 0. These two "
        "logits must count in no softmax, neither of rows nor of columns: exp of minus infinity is "
        "0. The diagonal stays",
    )
    why = (
        "`duplicates` was changed, and it belongs to the caller: the accuracy in the log needs its "
        "diagonal. Make a copy"
    )
    same(args[3], duplicates, why)


def test_info_nce_in_half_precision(student):
    """bfloat16 features give the loss of the same numbers in float32"""
    z, t = unit(16, 32, seed=25).bfloat16(), unit(16, 32, seed=26).bfloat16()
    found = student.lift.info_nce(z, t, torch.tensor(100.0))
    wanted = lift.info_nce(z.float(), t.float(), torch.tensor(100.0))
    why = "features in bfloat16, scale 100: the logits must be computed in float32, not in bfloat16"
    same(found, wanted, why, atol=1e-2)


def test_info_nce_under_autocast(student):
    """Under autocast the loss is that of the same numbers in float32"""
    z, t = unit(16, 32, seed=29), unit(16, 32, seed=30)
    found = under_autocast(student.lift.info_nce, z, t, torch.tensor(100.0))
    wanted = lift.info_nce(z, t, torch.tensor(100.0))
    why = (
        "features in float32, scale 100, under autocast to bfloat16: autocast computes the product "
        "in bfloat16, whatever its factors are. Switch it off for the logits"
    )
    same(found, wanted, why, atol=1e-3)


def test_cosine_loss_of_two_pairs(student):
    """Two pairs by hand: 1 - (1 + 0.8) / 2 = 0.1"""
    found = student.lift.cosine_loss(IMAGES, CAPTIONS)
    same(
        found,
        0.1,
        "the cosines of the two pairs are 1 and 0.8, and their mean is 0.9. Each image is compared "
        "with its own caption only. The sum is over the numbers of a feature, the mean over the "
        "pairs",
    )
    everything = torch.ones(2, 2, dtype=torch.bool)
    found = student.lift.cosine_loss(IMAGES, CAPTIONS, torch.tensor(20.0), everything)
    same(found, 0.1, "the loss has no negatives: the scale and the duplicates do not change it")


def test_cosine_loss_of_equal_features(student):
    """It is 0 for equal features, 1 for orthogonal ones, 2 for opposite ones"""
    z = unit(5, 8, seed=9)
    aside = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    for other, cosine, words in ((z, 1, "equal"), (-z, -1, "opposite")):
        found = student.lift.cosine_loss(z, other)
        same(
            found,
            1.0 - cosine,
            f"{words} features have the cosine {cosine}; the loss is 1 minus it",
        )
    found = student.lift.cosine_loss(aside, aside.flip(0))
    same(found, 1.0, "orthogonal features have the cosine 0; the loss is 1 minus it")


def test_cosine_loss_in_half_precision(student):
    """bfloat16 features give the loss of the same numbers, as float32"""
    z, t = unit(16, 32, seed=31).bfloat16(), unit(16, 32, seed=32).bfloat16()
    found = student.lift.cosine_loss(z, t)
    kind = getattr(found, "sent_as", "no tensor")
    holds(kind == "float32", f"features in bfloat16: the loss should be float32, and is {kind}")
    why = "features in bfloat16: products and sums must be computed in float32"
    same(found, lift.cosine_loss(z.float(), t.float()), why, atol=1e-3)


def test_limit_scale(student):
    """The scale stays in [1, 100], and what is inside stays as it is"""
    for scale, wanted in ((0.2, 1.0), (1.0, 1.0), (14.3, 14.3), (100.0, 100.0), (500.0, 100.0)):
        logarithm = torch.nn.Parameter(torch.tensor(math.log(scale)))
        _, (found,) = after(student.lift.limit_scale, logarithm)
        same(
            found.exp(),
            wanted,
            f"a scale of {scale} should become {wanted}. The argument is the scale's logarithm, so "
            "its limits are ln 1 and ln 100, and the tensor that is given is changed",
            atol=1e-3,
        )


def test_info_nce_has_the_gradient_of_its_values(student):
    """Its gradient is that of finite differences"""
    z, t, scale = unit(4, 6, seed=10), unit(4, 6, seed=11), torch.tensor(3.0)
    _, found = gradients(student.lift.info_nce, z, t, scale)
    step = 0.03
    for name, place, which in (("image", 0, (1, 2)), ("caption", 1, (3, 0)), ("scale", 2, ())):
        values = []
        for sign in (1, -1):
            moved = [z.clone(), t.clone(), scale.clone()]
            moved[place][which] += sign * step
            values.append(float(student.lift.info_nce(*moved)))
        same(
            found[place][which] if found[place] is not None else 0.0,
            (values[0] - values[1]) / (2 * step),
            f"one number of the {name} was moved a little. The loss does not change as the "
            "gradient says. Is something detached, or computed without gradient?",
            atol=2e-3,
        )
