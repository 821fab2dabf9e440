"""Unit 1, contrast: tests of info_nce and cosine_loss in lift.py."""

import math

import torch
import torch.nn.functional as F

import lift


def features(count, width, seed):
    """Random features of unit length, (count, width) float32."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator), dim=1)


def loss_by_hand(image, text, scale, duplicates=None):
    """InfoNCE with one loop for each sum, in float64."""
    B = len(image)
    logits = (scale * image.double() @ text.double().T).tolist()
    total = 0.0
    for i in range(B):
        # Those that compete with the true pair (i, i), in its row and in its column.
        rivals = [j for j in range(B) if j == i or duplicates is None or not duplicates[i, j]]
        row = sum(math.exp(logits[i][j] - logits[i][i]) for j in rivals)
        column = sum(math.exp(logits[j][i] - logits[i][i]) for j in rivals)
        total += (math.log(row) + math.log(column)) / 2
    return total / B


def close(number, expected, tolerance=1e-4):
    return abs(float(number) - float(expected)) <= tolerance


# --------------------------------------------------------------------------------------------------
# 1.1 info_nce


def test_two_pairs_by_hand():
    # The cosines are .6 and 1 in the row of image 0, .8 and 0 in the row of image 1.
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    e = math.exp
    rows = [math.log(e(1.2) + e(2)) - 1.2, math.log(e(1.6) + e(0)) - 0]
    columns = [math.log(e(1.2) + e(1.6)) - 1.2, math.log(e(2) + e(0)) - 0]
    expected = (sum(rows) / 2 + sum(columns) / 2) / 2
    loss = lift.info_nce(image, text, torch.tensor(2.0))
    assert loss.shape == (), f"the loss is one number, but yours has the shape {tuple(loss.shape)}"
    assert not close(loss, sum(rows) / 2), (
        "only the images choose among captions: the captions must choose among images, too"
    )
    assert not close(loss, sum(columns) / 2), (
        "only the captions choose among images: the images must choose among captions, too"
    )
    assert not close(loss, 2 * expected), (
        "the loss is twice too large: it is the mean of the two directions, not their sum"
    )
    assert close(loss, expected), (
        f"two pairs with the scale 2 cost {expected:.4f}, but yours gives {float(loss):.4f}: "
        "multiply the cosines by logit_scale as it is (it is exponentiated already), and let row i "
        "and column i find place i"
    )


def test_exchanging_the_towers_leaves_the_loss():
    image, text, scale = features(5, 8, 1), features(5, 8, 2), torch.tensor(7.0)
    one, other = lift.info_nce(image, text, scale), lift.info_nce(text, image, scale)
    assert close(one, other), (
        "the loss changes when images and captions are exchanged: both directions count alike"
    )


def test_shuffling_the_batch_leaves_the_loss():
    image, text, scale = features(6, 8, 3), features(6, 8, 4), torch.tensor(7.0)
    order = torch.tensor([3, 5, 0, 2, 1, 4])
    one, other = lift.info_nce(image, text, scale), lift.info_nce(image[order], text[order], scale)
    assert close(one, other), (
        "the loss changes when the batch is shuffled: a row is compared with the wrong column"
    )
    mixed = lift.info_nce(image[order], text, scale)
    assert not close(one, mixed), (
        "the loss stays when only the images are shuffled: it does not know which caption belongs "
        "to which image"
    )


def test_one_pair_costs_nothing():
    loss = lift.info_nce(features(1, 8, 5), features(1, 8, 6), torch.tensor(14.0))
    assert close(loss, 0), (
        f"one pair alone has nothing to be confused with and costs 0, but yours gives {float(loss):.4f}"
    )


def test_duplicates_are_not_in_the_denominator():
    image, text, scale = features(3, 4, 7), features(3, 4, 8), torch.tensor(5.0)
    duplicates = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    loss = lift.info_nce(image, text, scale, duplicates)
    assert math.isfinite(loss), (
        "the loss is not finite with duplicates: the diagonal of `duplicates` is true, and yet the "
        "true pairs must stay"
    )
    assert not close(loss, lift.info_nce(image, text, scale)), (
        "the duplicates change nothing: leave their logits out of both softmaxes"
    )
    assert close(loss, loss_by_hand(image, text, 5.0, duplicates)), (
        "the loss with duplicates is wrong: exp of a masked logit must be 0, in rows and in columns"
    )


def test_gradient_of_the_loss():
    """dL/dz = s / 2B (P + Q - 2 I) t. P: softmax of the rows, Q: of the columns."""
    image, text = features(4, 6, 9).requires_grad_(), features(4, 6, 10)
    scale = torch.tensor(3.0, requires_grad=True)
    lift.info_nce(image, text, scale).backward()
    z, t = image.detach().double(), text.double()
    cosines = z @ t.T
    P, Q = (3 * cosines).softmax(1), (3 * cosines).softmax(0)
    error = P + Q - 2 * torch.eye(4)
    expected = 3 / 8 * error @ t
    assert image.grad is not None and scale.grad is not None, (
        "no gradient reaches the features or the scale: do not detach them, nor leave torch"
    )
    assert torch.allclose(image.grad.double(), expected, atol=1e-4), (
        "the gradient of the image features is wrong: the loss is the mean over the batch and over "
        "the two directions"
    )
    assert close(scale.grad, (error * cosines).sum() / 8), (
        "the gradient of logit_scale is wrong: every logit is multiplied by it once"
    )


def test_four_pairs_by_hand():
    for seed, scale in ((11, 1.0), (12, 14.3), (13, 40.0)):
        image, text = features(4, 8, seed), features(4, 8, seed + 100)
        loss = lift.info_nce(image, text, torch.tensor(scale))
        expected = loss_by_hand(image, text, scale)
        assert close(loss, expected, 1e-3), (
            f"four pairs with the scale {scale} cost {expected:.4f}, but yours gives "
            f"{float(loss):.4f}: check the scale, the two directions and the means"
        )


def test_duplicates_of_a_larger_batch():
    image, text = features(7, 8, 14), features(7, 8, 15)
    scale = torch.tensor(9.0)
    for seed in range(3):
        drawn = torch.rand(7, 7, generator=torch.Generator().manual_seed(seed)) < 0.2
        duplicates = drawn | drawn.T
        for diagonal in (False, True):
            loss = lift.info_nce(image, text, scale, duplicates.clone().fill_diagonal_(diagonal))
            assert close(loss, loss_by_hand(image, text, 9.0, duplicates), 1e-3), (
                "the loss with duplicates is wrong: they leave both softmaxes, and the diagonal of "
                "`duplicates` plays no part, whether it is true or false"
            )
    everything = torch.ones(7, 7, dtype=torch.bool)
    assert close(lift.info_nce(image, text, scale, everything), 0), (
        "where all pairs match, nothing is left to be confused with, and the loss is 0"
    )


def test_equal_features_cost_ln_b():
    same = F.normalize(torch.ones(9, 8), dim=1)
    loss = lift.info_nce(same, same, torch.tensor(14.0))
    assert close(loss, math.log(9)), (
        f"a model that gives everything the same feature guesses, and that costs ln B = "
        f"{math.log(9):.4f}, but yours gives {float(loss):.4f}"
    )


def test_scale_of_100_stays_finite():
    image = features(5, 8, 16).requires_grad_()
    loss = lift.info_nce(image, -image.detach(), torch.tensor(100.0))
    loss.backward()
    assert math.isfinite(loss) and bool(image.grad.isfinite().all()), (
        "the loss or its gradient overflows at the scale 100: exp of a logit of 100 is too large "
        "for float32, so use log_softmax or cross_entropy"
    )
    assert close(loss, loss_by_hand(image.detach(), -image.detach(), 100.0), 1e-2), (
        "the loss at the scale 100 is wrong: do not limit the logits"
    )


def test_float32_under_autocast():
    image, text, scale = features(16, 32, 17), features(16, 32, 18), torch.tensor(100.0)
    expected = lift.info_nce(image, text, scale)
    with torch.autocast("cpu", torch.bfloat16):
        loss = lift.info_nce(image, text, scale)
    assert close(loss, expected, 5e-3), (
        f"the loss is {float(loss):.4f} under autocast and {float(expected):.4f} without: the "
        "logits must be computed in float32 also there, so switch autocast off around them"
    )
    image, text = image.bfloat16(), text.bfloat16()
    half, expected = (
        lift.info_nce(image, text, scale),
        lift.info_nce(image.float(), text.float(), scale),
    )
    assert half.dtype == torch.float32 and close(half, expected, 5e-3), (
        "features in bfloat16 must be made float32 before they are multiplied"
    )


# --------------------------------------------------------------------------------------------------
# 1.2 cosine_loss


def test_cosine_loss_by_hand():
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    loss = lift.cosine_loss(image, text)
    assert loss.shape == (), f"the loss is one number, but yours has the shape {tuple(loss.shape)}"
    assert close(loss, 0.7), (
        f"the cosines of the two pairs are .6 and 0, so the loss is 0.7, but yours gives "
        f"{float(loss):.4f}: sum over the width, take the mean over the pairs, and subtract it from 1"
    )


def test_cosine_loss_has_no_negatives():
    """Of equal features it is 0, however near the captions of other images are."""
    same = features(5, 8, 20)
    assert close(lift.cosine_loss(same, same), 0), (
        "an image on its own caption costs 0: only pair i with i counts, not all pairs"
    )
    order = torch.tensor([2, 0, 4, 1, 3])
    image, text = features(5, 8, 21), features(5, 8, 22)
    assert close(lift.cosine_loss(image, text), lift.cosine_loss(image[order], text[order])), (
        "the loss changes when the batch is shuffled: a row is compared with the wrong caption"
    )


def test_cosine_loss_of_opposite_features():
    image, text = features(7, 16, 23), features(7, 16, 24)
    assert close(lift.cosine_loss(image, -image), 2), "opposite features have a loss of 2"
    expected = 1 - F.cosine_similarity(image, text).mean()
    with_rest = lift.cosine_loss(image, text, torch.tensor(14.0), torch.ones(7, 7).bool())
    assert close(lift.cosine_loss(image, text), expected), (
        "the loss is 1 minus the mean of the pairs' cosines: check the sum, the mean and the sign"
    )
    assert close(with_rest, expected), "the scale and the duplicates play no part in this loss"


def test_cosine_loss_of_half_precision():
    image, text = features(64, 128, 25).bfloat16(), features(64, 128, 26).bfloat16()
    loss = lift.cosine_loss(image, text)
    expected = 1 - (image.double() * text.double()).sum(1).mean()
    assert loss.dtype == torch.float32 and close(loss, expected), (
        "features in bfloat16 must be made float32 before they are multiplied"
    )


def test_gradient_of_the_cosine_loss():
    image, text = features(4, 6, 27).requires_grad_(), features(4, 6, 28)
    lift.cosine_loss(image, text).backward()
    assert image.grad is not None, "no gradient reaches the image features"
    assert torch.allclose(image.grad, -text / 4, atol=1e-4), (
        "the gradient of image i must be minus caption i over the number of pairs: the loss is a "
        "mean over pairs, and linear in each cosine"
    )
