"""Unit 3, the frozen language model: the tests that students have."""

import torch

import llm_text
from llm_text import Attention, RMSNorm

from ..student import differ, holds, refuses, same
from .models import angles, config, filled
from .numbers import normal

TOO_MANY = (
    "N captions of width D vary in min(D, N - 1) directions at most, and in fewer where they lie "
    "in a plane. Asked for more directions, the function must raise BadInput. Are the sums in "
    "float64? In float32, rounding errors look like a direction"
)


# ---- RMSNorm


def test_rms_norm_by_hand(student):
    """(3, 4) has the mean square 12.5, so it becomes (3, 4) / 3.5355"""
    found = student.llm_text.RMSNorm.forward(RMSNorm(2, 1e-9), torch.tensor([[3.0, 4.0]]))
    why = "(3, 4) divided by the ROOT of the MEAN of the squares, (9 + 16) / 2"
    same(found, torch.tensor([[0.8485, 1.1314]]), why)


def test_rms_norm_does_not_centre(student):
    """A vector of equal numbers stays one: the mean is not subtracted"""
    found = student.llm_text.RMSNorm.forward(RMSNorm(4, 1e-9), torch.full((1, 4), 5.0))
    why = (
        "(5, 5, 5, 5) should become (1, 1, 1, 1). A LayerNorm gives zeros; RMSNorm subtracts no "
        "mean"
    )
    same(found, torch.ones(1, 4), why)


def test_rms_norm_has_a_weight(student):
    """Each element is multiplied by its weight, and each vector is normed by itself"""
    norm = RMSNorm(6, 1e-6)
    norm.weight.data = normal(6, seed=1)
    x = normal(2, 3, 6, seed=2)
    wanted = norm.weight.data * x / x.pow(2).mean(-1, keepdim=True).sqrt()
    found = student.llm_text.RMSNorm.forward(norm, x)
    same(found, wanted, "g x / sqrt(mean(x^2)), the mean over the last dimension, g the weight")


# ---- rotary position embedding


def test_rotate_by_hand(student):
    """A quarter turn sends (1, 0) to (0, 1) and (0, 1) to (-1, 0); no turn leaves everything"""
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]).view(1, 2, 2, 2)
    cos, sin = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    found = student.llm_text.rotate(x, cos, sin)
    wanted = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]]).view(1, 2, 2, 2)
    why = (
        "position 0 is turned by 0 degrees and stays as it is. Position 1 is turned by 90 degrees: "
        "(1, 0) in the first head becomes (0, 1), and (0, 1) in the second becomes (-1, 0). Look "
        "at the signs of the two sines. Are both results made from the old numbers?"
    )
    same(found, wanted, why)


def test_rotate_pairs_i_with_half(student):
    """Element i turns together with element i + d/2"""
    cos, sin = angles(3, 8)
    x = torch.zeros(1, 1, 3, 8)
    x[..., 1] = 1.0
    found = student.llm_text.rotate(x, cos, sin)
    wanted = torch.zeros(1, 1, 3, 8)
    wanted[..., 1], wanted[..., 5] = cos[:, 1], sin[:, 1]
    why = (
        "only element 1 was not zero. With d = 8 its partner is element 5: element 1 becomes x cos "
        "a, element 5 x sin a, and all others stay 0"
    )
    same(found, wanted, why)


def test_scores_depend_on_distance_only(student):
    """A query at m and a key at n: the score depends on m - n only"""
    cos, sin = angles(12, 8)
    q, k = (normal(1, 1, 1, 8, seed=s).expand(1, 1, 12, 8).contiguous() for s in (3, 4))
    turned_q, turned_k = (student.llm_text.rotate(x, cos, sin) for x in (q, k))
    why = (
        "turning changes the length of a query. Do the two sines have opposite signs? Are sine and "
        "cosine of one pair the same angle's?"
    )
    same(turned_q.norm(dim=-1), q.norm(dim=-1), why)
    scores = turned_q[0, 0] @ turned_k[0, 0].T
    for distance in (1, 4):
        line = scores.diagonal(-distance)
        why = (
            f"<R(m) q, R(n) k> is not the same for all m and n with m - n = {distance}. Are "
            "queries and keys turned by the same rotation, and all pairs in the same direction?"
        )
        same(line, line[:1].expand(len(line)), why)
    differ(scores[5, 4], scores[5, 2], "the score is the same at distance 1 and 3: nothing turns")


# ---- grouped-query attention

JOINED = "the result (B, H, L, d) must become (B, L, H, d) before the heads are joined"


def test_attention_equals_repeated_keys(student):
    """Two heads that share keys equal two heads with copies of these keys"""
    few = filled(Attention(config(kv_heads=2)), seed=5)
    many = Attention(config(kv_heads=4))
    state = few.state_dict()
    for name in ("k_proj", "v_proj"):
        weight = state[f"{name}.weight"].view(2, 1, 8, 32).expand(2, 2, 8, 32)
        state[f"{name}.weight"] = weight.reshape(32, 32)
    many.load_state_dict(state)
    x = normal(2, 6, 32, seed=6)
    forward = student.llm_text.Attention.forward
    same(
        forward(few, x, *angles(6, 8), None),
        forward(many, x, *angles(6, 8), None),
        "with H = 4 and K = 2, heads 0 and 1 should read the first keys and values, heads 2 and 3 "
        "the second: g = h // (H / K)",
    )


def test_attention_is_causal(student):
    """A later token never changes an earlier output"""
    attention, x = filled(Attention(config()), seed=7), normal(1, 6, 32, seed=8)
    other = x.clone()
    other[:, 4] += 1.0
    forward = student.llm_text.Attention.forward
    before, after = (forward(attention, one, *angles(6, 8), None) for one in (x, other))
    why = (
        "token 4 was changed, and an output before it changed, too. Without `visible` it is "
        f"causal. If yours is: {JOINED}"
    )
    same(after[:, :4], before[:, :4], why)
    why = "token 4 was changed, and the output of token 5 stayed: it should see the tokens 0 to 5"
    differ(after[:, 5], before[:, 5], why)


def test_attention_does_not_read_padding(student):
    """With a mask, hidden tokens change nothing, and all visible ones are read"""
    attention, x = filled(Attention(config()), seed=9), normal(1, 6, 32, seed=10)
    visible = torch.tensor([True, True, True, True, False, False]).view(1, 1, 1, 6)
    other = x.clone()
    other[:, 4:] += 1.0
    forward = student.llm_text.Attention.forward
    one, two = (forward(attention, each, *angles(6, 8), visible) for each in (x, other))
    why = (
        "tokens that `visible` hides were changed, and outputs of the other tokens changed, too. "
        f"`visible` is true where a token is seen. If yours hides the others: {JOINED}"
    )
    same(two[:, :4], one[:, :4], why)
    other = x.clone()
    other[:, 3] += 1.0
    three = forward(attention, other, *angles(6, 8), visible)
    why = "with `visible` there is no causal order: token 3 was changed, and the output of 0 stayed"
    differ(three[:, 0], one[:, 0], why)


def test_attention_knows_the_order(student):
    """Exchanging two earlier tokens changes the last output: queries and keys are turned"""
    attention, x = filled(Attention(config()), seed=11), normal(1, 6, 32, seed=12)
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    forward = student.llm_text.Attention.forward
    one, two = (forward(attention, each, *angles(6, 8), None) for each in (x, x[:, order]))
    why = (
        "two earlier tokens changed places, and the last output stayed. Attention is blind to the "
        "order unless queries and keys are both turned"
    )
    differ(one[:, 5], two[:, 5], why, by=1e-3)


# ---- pooling

STATES = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 6.0], [7.0, 7.0]]])
MASK = torch.tensor([[True, True, True, False]])


def test_mean_token_by_hand(student):
    """The mean of the caption's tokens: not the first, not padding"""
    found = student.llm_text.mean_token(STATES, MASK)
    why = (
        "first token (9 9), then (1 2), (3 6), then padding (7 7): the mean is that of (1 2), (3 6)"
    )
    same(found, torch.tensor([[2.0, 4.0]]), why)


def test_mean_token_does_not_read_padding(student):
    """More padding changes nothing"""
    h, mask = normal(2, 5, 4, seed=13), torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]).bool()
    longer = torch.cat([h, 1000 * normal(2, 3, 4, seed=14)], dim=1)
    more = torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], dim=1)
    one, two = student.llm_text.mean_token(h, mask), student.llm_text.mean_token(longer, more)
    why = (
        "three places of padding were added, and the mean changed. The sum is over tokens only, "
        "and divided by their number, not by the number of places"
    )
    same(two, one, why)


def test_last_token_by_hand(student):
    """The state of the last token that is not padding"""
    h = torch.cat([STATES, STATES + 10])
    mask = torch.cat([MASK, torch.ones(1, 4, dtype=torch.bool)])
    found = student.llm_text.last_token(h, mask)
    wanted = torch.tensor([[3.0, 6.0], [17.0, 17.0]])
    why = "the first caption has three tokens, the second four: their states at the places 2 and 3"
    same(found, wanted, why)


# ---- whitening


def cone(n: int = 60, d: int = 8, seed: int = 15) -> torch.Tensor:
    """Vectors in a cone: a large mean, and directions of unequal strength."""
    strength = torch.tensor([5.0, 3.0, 2.0, 1.5, 1.0, 0.7, 0.4, 0.2])[:d]
    turn = torch.linalg.qr(normal(d, d, seed=seed, dtype=torch.float64)).Q
    vectors = (normal(n, d, seed=seed + 1, dtype=torch.float64) * strength) @ turn
    return (vectors + 20 * normal(1, d, seed=seed + 2, dtype=torch.float64)).float()


def covariance(t: torch.Tensor) -> torch.Tensor:
    return torch.cov(t.double().T, correction=0)


def test_whitened_covariance_is_the_identity(student):
    """With the power 1 the mapped captions have mean 0 and the identity as covariance"""
    x = cone()
    mean, matrix = student.llm_text.whitening(x, 4, 1.0)
    why = f"the matrix is {tuple(matrix.shape)} and should be (D, k), here (8, 4)"
    holds(tuple(matrix.shape) == (8, 4), why)
    kinds = [getattr(one, "sent_as", "no tensor") for one in (mean, matrix)]
    holds(kinds == ["float32"] * 2, f"mean and matrix should be float32, and are {kinds}")
    t = (x - mean) @ matrix
    why = "t = (x - mean) @ matrix should have the mean 0: is `mean` that of all captions?"
    same(t.mean(0), torch.zeros(4), why, atol=1e-3)
    why = (
        "with the power 1 the covariance of t should be the identity: each direction is divided by "
        "its deviation, the root of its eigenvalue. The covariance is a mean over N, not N - 1"
    )
    same(covariance(t), torch.eye(4), why, atol=5e-3)


def test_whitening_keeps_the_strongest_directions(student):
    """With the power 0 the variances are the largest eigenvalues, in falling order"""
    x = cone()
    mean, matrix = student.llm_text.whitening(x, 3, 0.0)
    found = covariance((x - mean) @ matrix)
    wanted = torch.linalg.eigvalsh(covariance(x)).flip(0)[:3]
    why = (
        "with the power 0 the variances of t should be the 3 largest eigenvalues, the largest "
        "first. `eigh` gives the smallest first, and eigenvectors as columns"
    )
    same(found.diagonal(), wanted, why, atol=0.05)
    why = "the kept directions should be uncorrelated: are they eigenvectors of the covariance?"
    same(found - found.diagonal().diag(), torch.zeros(3, 3), why, 0.05)


def test_whitening_to_0_directions_centres(student):
    """With 0 directions the vectors are only centred"""
    x = cone()
    mean, matrix = student.llm_text.whitening(x, 0)
    same(mean, x.mean(0), "with 0 directions, too, `mean` is the mean of the captions", atol=1e-3)
    same(matrix, torch.eye(8), "with 0 directions the matrix is the identity, (D, D)")
    kinds = [getattr(one, "sent_as", "no tensor") for one in (mean, matrix)]
    holds(kinds == ["float32"] * 2, f"mean and matrix should be float32, and are {kinds}")


def test_whitening_refuses_too_many_directions(student):
    """Four captions cannot be whitened to five directions, nor vectors of width 3"""
    refuses(student.llm_text.whitening, cone(4), 5, why=TOO_MANY)
    refuses(student.llm_text.whitening, normal(40, 3, seed=18), 5, why=TOO_MANY)


def test_whitening_behind_another_map(student):
    """With `before` the result is that of the reference"""
    x = cone(80, seed=44)
    before = llm_text.lda_map(covariance(cone(50, seed=45)))
    mean, matrix = student.llm_text.whitening(x, 3, 0.0, before)
    ours_mean, ours = llm_text.whitening(x, 3, 0.0, before)
    found, wanted = (x - mean) @ matrix, (x - ours_mean) @ ours
    # The sign of a direction is free, so products are compared.
    scale = float((wanted @ wanted.T).abs().max())
    why = (
        "with `before`, M, and the power 0, t = (x - mu) M V. Compared are the scalar products of "
        "all captions, divided by the largest one. The matrix must have M in it, too"
    )
    same(found @ found.T / scale, wanted @ wanted.T / scale, why)
