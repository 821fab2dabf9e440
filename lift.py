"""What differs between the papers: losses, heads, text towers, and a table of methods.

Before this file read vit.py, llm_text.py as far as "Caption-contrastive tuning", and, for ids and
equal captions, data/captions.py. The main things stand first in each section. A comment marks where
you may go on to the next section. A first reading ends with `TwoTower`: skip the two sections after
it.

The papers ask one question: how much of a CLIP can be left untrained?

    CLIP      Contrastive Language-Image Pre-training (Radford et al. 2021, arXiv 2103.00020).
              Both towers are trained from scratch.
    LIFT      Language-Image alignment with Fixed Text encoders (Yang et al. 2025, arXiv
              2506.04209). The text side is the vector of a frozen language model. Only the image
              side is trained.
    LiT       Locked-image text Tuning (Zhai et al. 2022, arXiv 2111.07991). A pretrained image
              tower is frozen ("locked"), and a text tower learns to fit it.
    APE       Aligning Pretrained Encoders (Rosenfeld et al. 2022, arXiv 2210.03927). Both towers
              are frozen. Only a small network on each text token is trained.
    LilT      (Khan & Fu 2023, arXiv 2303.11866). Two pretrained towers, of which only norms,
              biases or small adapters are trained.
    LLM2CLIP  (Huang et al. 2024, arXiv 2411.04997). A pretrained image tower goes on learning from
              a frozen language model that was tuned to tell captions apart.

The core of LIFT, in the order in which it happens. Left out are the mask of equal captions, the
learning rate's schedule, clipping, and which parameters decay. `whitening` stands in llm_text.py,
`info_nce` and `limit_scale` stand below:

    # Once, before training. The language model never sees an image and is never trained.
    raw = language_model(all_captions)                # (N, 576), one vector per caption
    mean, matrix = whitening(raw, directions=256)     # (576,) and (576, 256)

    image_tower = ViT("nano/16", 64)                  # from scratch: (B, 3, 64, 64) -> (B, 128)
    head = mlp(128, 256)                              # two linear layers
    logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    optimizer = AdamW([*image_tower.parameters(), *head.parameters(), logit_scale])

    # Every step: B images, and for each the row of its caption in `raw`.
    z = F.normalize(head(image_tower(images)), dim=-1)                     # (B, 256)
    t = F.normalize((raw[captions] - mean) @ matrix, dim=-1)               # (B, 256), no gradient
    loss = info_nce(z, t, logit_scale.exp())          # image i belongs to caption i
    loss.backward()                                   # reaches image_tower, head, logit_scale
    optimizer.step()
    optimizer.zero_grad()                             # gradients would add up otherwise
    limit_scale(logit_scale)

Everything below does this for all methods. Letters of shapes: N distinct captions, B images in a
batch, D the shared dimension, L tokens of the longest caption, V words of a vocabulary, S pixels
per side.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import processes
from data.captions import END, DistinctCaptions
from data.common import BadInput, chunks, interpreting, select
from data.files.runs import read_run
from data.files.tensors import mismatch
from data.images.pixels import normalize_pixels, to_square
from data.vectors import OutsideVectors
from llm_text import (
    Llama,
    TextSource,
    lda_map,
    load_llm,
    mean_token,
    scatter_within,
    text_reader,
    whitening,
)
from vit import Block, ViT, init_linears

# --------------------------------------------------------------------------------------------------
# Losses. Each gives a scalar. They take (image_features (B, D), text_features (B, D),
# logit_scale (), duplicates (B, B)) by name. Where a loss takes something else, it says so.


def info_nce(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor,
    duplicates: Tensor | None = None,
) -> Tensor:
    """CLIP's loss, information noise-contrastive estimation. (Radford et al. 2021, figure 3)

        logits[i, j] = s <z_i, t_j>                                       s: logit_scale, (B, B)
        loss = ( mean_i CE(logits[i, :], i) + mean_j CE(logits[:, j], j) ) / 2

    In words: find the caption of image i among the B captions of the batch, and the image of
    caption j among the B images. z_i is image_features[i], t_j is text_features[j], both of unit
    length.

    logit_scale  one over the temperature, already exponentiated
    duplicates   bool, symmetric: image i and caption j also match, although i != j. They may be
                 true pairs by accident, so pushing them apart would be wrong. They are left out of
                 both softmaxes: exp(-inf) = 0. The diagonal is ignored. See data/batches.py.

    The logits and the loss are float32, also for features in half precision and under autocast.

    Guessing costs ln B, a little less where pairs are masked. A model that has learned something
    is below that. Random features in D dimensions cost about ln B + s^2 / (2 D), as long as s^2 is
    not much larger than D. An untrained image tower gives all images nearly the same feature, which
    costs less. In the demo (B = 128, s = 14.3) LIFT starts at 5.07 and CLIP at 5.02; ln B is 4.85.
    """
    # Why float32: at a scale of 100, neighbouring bfloat16 numbers are 0.5 apart, which is more
    # than many differences that matter.
    with torch.autocast(image_features.device.type, enabled=False):
        logits = logit_scale.float() * image_features.float() @ text_features.float().T  # (B, B)
        if duplicates is not None:
            off_diagonal = ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
            logits = logits.masked_fill(duplicates & off_diagonal, -torch.inf)
        target = torch.arange(len(logits), device=logits.device)
        image_to_text = F.cross_entropy(logits, target)
        text_to_image = F.cross_entropy(logits.T, target)
        return (image_to_text + text_to_image) / 2


def cosine_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | None = None,
    duplicates: Tensor | None = None,
) -> Tensor:
    """LIFT's second loss: move each image to its own caption. There are no negatives.

        loss = 1 - mean_i <z_i, t_i>

    The loss is float32. It starts near 1 for random features. It cannot collapse to one point for
    all images, but only because the captions' vectors are fixed and differ. If the text side were
    trained too, both sides could send everything to one point, and the loss would be 0. The last
    two arguments are not used.
    """
    return 1 - (image_features.float() * text_features.float()).sum(-1).mean()


def limit_scale(logit_scale: Tensor) -> None:
    """Keep the scale in [1, 100], as CLIP does. train.py calls this after every step.

    logit_scale  (), the logarithm of the scale, as TwoTower holds it; it is changed in place, and
                 no gradient is involved

    Above 100 a few pairs would rule the loss. Below 1 the softmax could hardly tell the captions of
    a batch apart.
    """
    logit_scale.data.clamp_(0, math.log(100))


# On a first reading go on to the heads.


def sigmoid_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    duplicates: Tensor | None = None,
) -> Tensor:
    """SigLIP's loss: is this pair true or false? (Zhai et al. 2023, arXiv 2303.15343)

        logits[i, j] = s <z_i, t_j> + b                   s: logit_scale, b: logit_bias, (B, B)
        loss = - 1/B sum_ij log sigmoid(y_ij logits[i, j])        y_ij: 1 where i = j, else -1

    In words: each of the B^2 pairs is a question of its own. In InfoNCE the pairs of a row and of a
    column compete. duplicates are as in info_nce: their pairs are left out of the sum.

    Only B of the pairs are true. So the bias starts at -10 and the scale at 10: all pairs are taken
    for false at first, and the B true ones cost about 10 each. A model that cannot tell pairs apart
    costs about 1 + ln B at best, with a bias of -ln(B - 1).
    """
    with torch.autocast(image_features.device.type, enabled=False):  # as in info_nce
        cosines = image_features.float() @ text_features.float().T  # (B, B)
        logits = logit_scale.float() * cosines + logit_bias.float()
        is_true = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        log_probability = F.logsigmoid(torch.where(is_true, logits, -logits))
        if duplicates is not None:
            log_probability = log_probability.masked_fill(duplicates & ~is_true, 0.0)
        return -log_probability.sum() / len(logits)


def label_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor,
    duplicates: Tensor | None = None,
) -> Tensor:
    """Softmax cross-entropy against several labels at once. (SuperClass, arXiv 2411.03313)

        loss = - mean_i sum_v y_iv log softmax(s z_i)_v       z_i: image_features[i], s: logit_scale

    image_features  (B, V): one score for each label. In `supervised` they have unit length. In
                    SuperCLIP they are not scaled, and s is 1
    text_features   (B, V): the weights of WordLabels, zero where a caption lacks the label. In
                    `supervised` they have unit length. y_i are these numbers divided by their sum,
                    so they add up to 1 at any length
    duplicates      is not used: each image is compared with labels, and not with other captions

    A caption without any known label does not count in the mean.
    """
    weights = text_features.float()
    total = weights.sum(-1, keepdim=True)  # (B, 1)
    target = weights / total.clamp_min(1e-12)  # (B, V)
    log_probability = F.log_softmax(logit_scale.float() * image_features.float(), dim=-1)  # (B, V)
    return -(target * log_probability).sum() / (total > 0).sum().clamp_min(1)


def info_nce_and_labels(
    label_scores: Tensor, label_weights: Tensor, **contrastive: Tensor | None
) -> Tensor:
    """SuperCLIP's loss: find the caption, and name its words. (Zhao et al. 2025, arXiv 2512.14480)

        loss = info_nce + label_loss                      both count alike

    label_scores   (B, V) a second head's output for each image, not scaled
    label_weights  (B, V) the weights of WordLabels
    contrastive    what info_nce takes
    """
    one = torch.ones((), device=label_scores.device)
    return info_nce(**contrastive) + label_loss(label_scores, label_weights, logit_scale=one)


# --------------------------------------------------------------------------------------------------
# Heads. Each is a function (width of the tower, shared dimension) -> module. Between them stand the
# modules that they are made of, and LilT's adapter, which is no head.


def no_head(d_in: int, d_out: int) -> nn.Module:
    """The tower's own output is the shared space, so d_out equals d_in."""
    return nn.Identity()


def projection(d_in: int, d_out: int) -> nn.Module:
    """CLIP's head: one matrix, no bias."""
    return nn.Linear(d_in, d_out, bias=False)


def projection_with_bias(d_in: int, d_out: int) -> nn.Module:
    """One matrix and a bias: LilT's head, and the head that names words (`label_head`)."""
    return nn.Linear(d_in, d_out)


def mlp(d_in: int, d_out: int) -> nn.Module:
    """LIFT's head: two linear layers."""
    return nn.Sequential(nn.Linear(d_in, d_out), nn.GELU(), nn.Linear(d_out, d_out))


class Residual(nn.Module):
    """x + W2 GELU(W1 LayerNorm(x)), with twice the width inside."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class UnitLength(nn.Module):
    """Scale each vector to length 1, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x.float(), dim=-1)


def adaptor(d_in: int, d_out: int) -> nn.Module:
    """LLM2CLIP's head on the frozen language model's vector: four residual blocks.

        t = W LayerNorm( R4(R3(R2(R1( x / |x| )))) ) + b

    R1 to R4 are four Residual, each with weights of its own. W is (d_out, d_in).
    """
    blocks = [Residual(d_in) for _ in range(4)]
    return nn.Sequential(UnitLength(), *blocks, nn.LayerNorm(d_in), nn.Linear(d_in, d_out))


class TokenMean(nn.Module):
    """Apply a network to each token, then take the mean: (B, L, d_in) -> (B, d_out).

        t = sum_l r_l f(h_l) / max(1, sum_l r_l)         f: net, h_l: token l
                                                         r_l: 1 where h_l is not all zeros, else 0

    A token that is all zeros is padding and does not count. A caption without any real token, which
    is one of unknown words only, becomes zeros. Tokens may come in half precision. The network gets
    them in float32, and all L places at once, because the network of `ape_transformer` needs
    their order.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor) -> Tensor:
        is_real = (tokens != 0).any(-1, keepdim=True)  # (B, L, 1)
        summed = (self.net(tokens.float()) * is_real).sum(1)  # (B, d_out)
        return summed / is_real.sum(1).clamp_min(1)


def deep_mlp(d_in: int, d_out: int) -> nn.Module:
    """ShareLock's head, and what APE's head applies to each token: four linear layers.

    ShareLock's public code has four layers of the language model's width, and APE's paper gives
    four to six layers. GELU is our choice for both. Inside, a layer is as wide as what the network
    reads.
    """
    hidden = []
    for _ in range(3):
        hidden += [nn.Linear(d_in, d_in), nn.GELU()]
    return nn.Sequential(*hidden, nn.Linear(d_in, d_out))


def ape(d_in: int, d_out: int) -> nn.Module:
    """APE's head: a network on each token, then the mean."""
    return TokenMean(deep_mlp(d_in, d_out))


# On a first reading go on to the sizes.


class LilTAdapter(nn.Module):
    """LilT's adapter, a small detour with a bottleneck of a quarter of the width.

        x + W_up GELU(W_down x)                          both layers have biases

    The layers are two nn.Linear, `down` and `up`, by which checkpoints name their weights. They are
    made in this order, so that a seed gives the same numbers. `init_linears` starts them, but W_up
    starts at zero, so that nothing changes at first. Two adapters stand in each block of both
    towers, before the norms. In the paper's text tower they stand behind the sub-layers instead.
    """

    def __init__(self, width: int):
        super().__init__()
        self.down = nn.Linear(width, width // 4)
        self.up = nn.Linear(width // 4, width)
        init_linears(self)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.gelu(self.down(x)))


def ape_transformer(d_in: int, d_out: int) -> nn.Module:
    """APE's first control: tokens may look at the tokens before them.

        tokens -> linear to half the width -> causal block -> LayerNorm -> linear -> mean of tokens

    One block of half the width has as many weights as three of the MLP's layers. It has as many
    attention heads as the greatest common divisor of 8 and the block's width, half of d_in. The
    arrows up to the mean are the network that TokenMean applies. Its layers are made in this order.
    """
    half = d_in // 2
    block = Block(half, heads=math.gcd(half, 8), causal=True)
    return TokenMean(
        nn.Sequential(nn.Linear(d_in, half), block, nn.LayerNorm(half), nn.Linear(half, d_out))
    )


def ape_lookup(d_in: int, d_out: int) -> nn.Module:
    """APE's second control: one matrix on each token, no bias, then the mean."""
    return TokenMean(nn.Linear(d_in, d_out, bias=False))


class Ridge(nn.Linear):
    """A matrix that is solved for, and not trained: ridge regression. (Hoerl & Kennard 1970)

        W = (X^T X + lambda I)^-1 X^T Y           X: n vectors of this tower (n, d_in)
        lambda = share trace(X^T X) / d_in        Y: features of the other side (n, d_out)

    train.py calls `solve` once, before the first step, with the batches that training would read.
    W makes |X W - Y|^2 + lambda |W|^2 smallest. The trace over d_in is the mean eigenvalue of
    X^T X. share says how large lambda is, compared with this mean. Without lambda, directions in
    which X hardly varies would get huge weights. A tower that ends with a norm has such directions.
    """

    def __init__(self, d_in: int, d_out: int, share: float = 0.001):
        super().__init__(d_in, d_out, bias=False)
        self.share = share

    @torch.no_grad()
    def solve(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Solve for the matrix. BadInput where all vectors are zero.

        pairs  batches of this tower's vectors (B, d_in) and the other side's features (B, d_out)
        """
        # Sums over all pairs, in float64: only these are kept, however many pairs there are.
        XX = XY = 0
        for vectors, features in pairs:
            # On the CPU: Apple's GPUs have no float64.
            X, Y = vectors.cpu().double(), features.cpu().double()
            XX = XX + X.T @ X  # (d_in, d_in)
            XY = XY + X.T @ Y  # (d_in, d_out)
        if not XX.trace() > 0:
            raise BadInput("all vectors are zero: do all captions have the same words?")
        ridge = self.share * XX.trace() / len(XX)
        W = torch.linalg.solve(XX + ridge * torch.eye(len(XX)).to(XX), XY)  # (d_in, d_out)
        self.weight.copy_(W.T)


def text_ridge(d_in: int, d_out: int) -> nn.Module:
    """A matrix on the text side that is solved for: text vectors -> features of their images.

    What the image side has not learned to see in a caption has no counterpart in its features, so
    the matrix makes it small. It is solved for after training: if it were trained, the text side
    could forget. So a run of lift_ridge begins with a trained run of LIFT, and has no steps. The
    share was chosen on validation scenes. (docs/results/LOG.md)
    """
    return Ridge(d_in, d_out, share=0.2)


# --------------------------------------------------------------------------------------------------
# Sizes, and the image tower that is somewhere else.


@dataclass(frozen=True)
class Sizes:
    """The sizes that a user may choose. Flags of train.py have the same names and defaults."""

    model: str = "nano/16"  # of the image tower, a key of vit.SIZES
    image_size: int = 64  # pixels per side
    image_pool: str = "avg"  # mean of the patches, or "tok", a class token
    embed_dim: int = 128  # D, where both towers have a head; width of TokenTable's vectors
    text_width: int = 64  # the next three: of a text transformer from scratch
    text_depth: int = 4
    text_heads: int = 2
    context_length: int = 77  # tokens of a caption at most


class OutsideTower(nn.Module):
    """Stands for an image tower of another project, of which only vectors are known."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        raise BadInput(
            "this run knows images by --image-features only; it cannot read another image"
        )


# --------------------------------------------------------------------------------------------------
# Text towers.


class TextTower(nn.Module):
    """What every text tower has. A tower knows nothing of files, caches and tokenizers.

    input_kind   what `forward` takes. train.py makes it once, for every distinct caption:
                 "vectors"  one vector of the frozen language model, (B, llm_width)
                 "tokens"   one vector per token of the frozen language model, (B, L, llm_width)
                 "ids"      token ids (B, L) int64, then END, then PAD (data/captions.py)
                 "llm_ids"  the same, after the token that llm_text.start_of describes
    fitted       names of the buffers that `fit` makes from the training captions
    needs_llama  whether the constructor wants a live language model
    width        length of the vectors that `forward` gives: (B, width), or (B, L, width) where the
                 method's head takes a vector for each token
    """

    input_kind = "ids"
    fitted: tuple[str, ...] = ()
    needs_llama = False
    width: int

    def __init__(self, sizes: Sizes, *tensors: Tensor):
        super().__init__()
        # What `fit` made is kept as buffers: a checkpoint holds them, and no optimizer sees them.
        for name, tensor in zip(self.fitted, tensors, strict=True):
            self.register_buffer(name, tensor)

    @staticmethod
    def fit(inputs, **settings) -> tuple[Tensor, ...]:
        """Compute, once and before training, what the tower needs to know of the training captions:
        statistics or a vocabulary. No gradient is involved.

        inputs    one row per distinct caption; len(inputs) and inputs[a:b] must work
        settings  directions and power, as the user chose them, and captions, which say which image
                  has which. Only LLMVectors uses them
        """
        return ()


class LLMVectors(TextTower):
    """LIFT's text tower: the cached vector of the frozen language model, centred and whitened.

        t = (x - mean) @ matrix

    Nothing in it is trained. Raw vectors all point almost the same way: llm_text.whitening
    explains this, with numbers.
    """

    input_kind = "vectors"
    fitted = ("mean", "matrix")  # (llm_width,) and (llm_width, width)

    def __init__(self, sizes: Sizes, mean: Tensor, matrix: Tensor):
        super().__init__(sizes, mean, matrix)
        self.width = matrix.shape[-1]

    def forward(self, vectors: Tensor) -> Tensor:  # (B, llm_width)
        # Float32 also under autocast: whitening enlarges small directions, which bfloat16 would
        # have rounded away.
        with torch.autocast(vectors.device.type, enabled=False):
            return (vectors.float() - self.mean) @ self.matrix  # (B, width)

    @staticmethod
    def fit(
        inputs, directions: int, power: float = 0.5, captions: DistinctCaptions | None = None
    ) -> tuple[Tensor, ...]:
        """The mean and the matrix of whitening.

        directions  how many directions are kept (--whiten)
        power       how far they are evened out (--whiten-power)
        captions    which image has which captions, for the map of --text-map lda. None: there is
                    no map before whitening
        """
        before = lda_map(scatter_within(inputs, captions)) if captions else None
        return whitening(inputs, directions, power, before)


class RawVectors(LLMVectors):
    """LLM2CLIP's text tower: the language model's vector as it is."""

    @staticmethod
    def fit(inputs, **settings) -> tuple[Tensor, ...]:
        llm_width = inputs[:1].shape[1]
        # Subtracting zeros and multiplying by the identity changes nothing. So this class needs no
        # `forward` of its own.
        return torch.zeros(llm_width), torch.eye(llm_width)


class LLMTokens(TextTower):
    """APE's text tower: the cached hidden state of every token, after a third of the blocks.

    --layer names another block.

    Each dimension is centred and divided by its standard deviation, because a few dimensions of a
    language model are far larger than all others. Places without a token, where all numbers are 0,
    keep their zeros. These are padding, and the first token, which llm_text.all_tokens leaves out.
    """

    input_kind = "tokens"
    fitted = ("mean", "std")  # (llm_width,) each

    def __init__(self, sizes: Sizes, mean: Tensor, std: Tensor):
        super().__init__(sizes, mean, std)
        self.width = len(mean)

    def forward(self, tokens: Tensor) -> Tensor:  # (B, L, llm_width)
        is_real = (tokens != 0).any(-1, keepdim=True)  # (B, L, 1)
        # (B, L, llm_width)
        return torch.where(is_real, (tokens.float() - self.mean) / self.std, 0.0)

    @staticmethod
    def fit(inputs, **settings) -> tuple[Tensor, ...]:
        """Mean and standard deviation of each dimension over all real tokens, (llm_width,) float32.

            std = sqrt( E[h^2] - E[h]^2 )                 h: a real token, E: the mean over all

        inputs  one row (L, llm_width) for each caption. Where all numbers are 0, there is no token.
                It need not be a tensor: only len(inputs) and inputs[a:b] work. A slice is a tensor,
                float16 from the cache, and L may differ between slices. data.common.chunks cuts it

        A dimension that never varies gets the deviation 1e-6 and not 0: nothing is divided by 0.
        """
        # Sums in float64 over 1,000 captions at a time: all of them may be larger than memory.
        count = total = squares = 0
        for chunk in chunks(inputs, 1000):
            tokens = chunk.double().flatten(0, 1)  # (captions * L, llm_width)
            tokens = tokens[(tokens != 0).any(-1)]
            count += len(tokens)
            total += tokens.sum(0)
            squares += (tokens * tokens).sum(0)
        mean = total / count
        variance = squares / count - mean * mean
        return mean.float(), variance.clamp_min(1e-12).sqrt().float()


def vocabulary(inputs) -> Tensor:
    """All ids in the rows of the training captions, END and PAD included, (V,) int64, sorted.

    The language model's tokenizer knows 49,000 more. Rows for those would stay random anyway.
    """
    return torch.cat([chunk.unique() for chunk in chunks(inputs)]).unique()


def positions_in(vocab: Tensor, ids: Tensor) -> Tensor:
    """Where ids stand in a sorted vocabulary (V,). An id that is not there, unknown, gets V.

    >>> positions_in(torch.tensor([2, 5, 9]), torch.tensor([9, 4, 2]))
    tensor([2, 3, 0])
    """
    position = torch.searchsorted(vocab, ids).clamp_max(len(vocab) - 1)
    return torch.where(vocab[position] == ids, position, len(vocab))


class TextTransformer(TextTower):
    """CLIP's text tower: a causal transformer from scratch, read at the end-of-text token.

    Causal means that each token sees itself and those before it. So the last one has seen them all.
    """

    fitted = ("vocab",)  # (V,) int64, sorted

    def __init__(self, sizes: Sizes, vocab: Tensor):
        super().__init__(sizes, vocab)
        width = sizes.text_width
        self.width = width
        # One row for each id of the vocabulary, and one row more, which every id outside it gets.
        # That is an unknown token, whose vector `forward` replaces. It is also PAD, where all
        # training captions were equally long and none was padded.
        self.token_embedding = nn.Embedding(len(vocab) + 1, width)
        self.positional_embedding = nn.Parameter(
            torch.randn(1, sizes.context_length, width) * 0.01  # 0.01 and 0.02 below are CLIP's
        )
        blocks = [Block(width, sizes.text_heads, causal=True) for _ in range(sizes.text_depth)]
        self.blocks = nn.Sequential(*blocks)
        self.ln_final = nn.LayerNorm(width)
        init_linears(self)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        # An unknown token is one that no training caption holds. CLIP has a random vector for it,
        # which no gradient has changed. Here 4,096 such vectors stand for all of them, so two
        # unknown tokens nearly always have different vectors. With a single one, many captions
        # would be equal.
        generator = torch.Generator(device="cpu").manual_seed(0)
        unknown = torch.randn(4096, width, generator=generator, device="cpu").mul_(0.02)
        unknown = unknown.to(self.token_embedding.weight.device)
        self.register_buffer("unknown", unknown, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:  # (B, L)
        row = positions_in(self.vocab, ids)  # (B, L), of the table
        x = self.token_embedding(row)  # (B, L, width)
        is_unknown = (ids >= 0) & (row == len(self.vocab))
        # An unknown token takes the vector with the number id % 4096.
        x = torch.where(is_unknown[..., None], self.unknown[ids.clamp_min(0) % 4096], x)
        x = self.blocks(x + self.positional_embedding[:, : ids.shape[1]])
        end = (ids == END).int().argmax(1)  # (B,) the first END of each caption
        return self.ln_final(x[torch.arange(len(x), device=x.device), end])  # (B, width)

    @staticmethod
    def fit(inputs, **settings) -> tuple[Tensor, ...]:
        return (vocabulary(inputs),)


class LiveLLM(TextTower):
    """LilT's text tower: the first blocks of the language model itself, its final norm, and then
    the mean of the tokens.

    It runs in every step, because parts of it are trained.
    """

    input_kind = "llm_ids"
    needs_llama = True

    def __init__(self, sizes: Sizes, *, llama: Llama):
        super().__init__(sizes)
        self.width = llama.config.width
        self.llm = llama

    def forward(self, ids: Tensor) -> Tensor:  # (B, L)
        is_token = ids >= 0  # (B, L) bool: END and PAD are none
        return mean_token(self.llm(ids.clamp_min(0), is_token), is_token)  # (B, width)


# On a first reading go on to the table of methods.


class TokenTable(TextTower):
    """The text tower of APE's second control: a learned vector for each token.

    It is the same vector whatever stands around the token. All unknown tokens share one vector of
    zeros, so that they are no part of a mean.
    """

    fitted = ("vocab",)  # (V,) int64, sorted

    def __init__(self, sizes: Sizes, vocab: Tensor):
        super().__init__(sizes, vocab)
        self.width = sizes.embed_dim
        self.token_embedding = nn.Embedding(len(vocab) + 1, self.width)
        nn.init.zeros_(self.token_embedding.weight[-1])

    def forward(self, ids: Tensor) -> Tensor:  # (B, L)
        vectors = self.token_embedding(positions_in(self.vocab, ids))  # (B, L, width)
        # (B, L, width), zeros at END and PAD, which are negative
        return vectors * (ids >= 0)[..., None]

    @staticmethod
    def fit(inputs, **settings) -> tuple[Tensor, ...]:
        return (vocabulary(inputs),)


class WordLabels(TextTower):
    """Labels in place of a text tower, or beside one: which words a caption holds.

    A label is a token, or a pair of neighbouring tokens such as "red circle". The pairs are ours:
    SuperClass (Huang et al. 2024, arXiv 2411.03313) has single tokens.
    """

    fitted = ("vocab", "weight")  # (V,) int64, sorted; (V,)

    def __init__(self, sizes: Sizes, vocab: Tensor, weight: Tensor):
        super().__init__(sizes, vocab, weight)
        self.width = len(vocab)

    def forward(self, ids: Tensor) -> Tensor:  # (B, L)
        # One column more takes the unknown labels, and is cut off again.
        has_label = torch.zeros(len(ids), self.width + 1, device=ids.device)
        has_label.scatter_(1, positions_in(self.vocab, self.labels_in(ids)), 1.0)
        return has_label[:, :-1] * self.weight  # (B, V)

    @staticmethod
    def labels_in(ids: Tensor) -> Tensor:
        """Token ids (B, L) -> labels (B, 2 L - 1) int64; -1 where there is none.

        A pair (a, b) becomes one number, (a + 1) 2^32 + b, which is larger than every token's id.
        """
        first, second = ids[:, :-1], ids[:, 1:]
        is_pair = (first >= 0) & (second >= 0)
        pairs = torch.where(is_pair, ((first + 1) << 32) + second, -1)
        return torch.cat([ids.clamp_min(-1), pairs], dim=1)

    @staticmethod
    def fit(inputs, limit: int = 4096, **settings) -> tuple[Tensor, ...]:
        """The commonest labels, `limit` at most, and their weights.

            weight_v = log(captions / captions that hold v)

        A label that all captions hold tells nothing, so it is left out.
        """
        vocab = counts = torch.zeros(0, dtype=torch.int64)
        for chunk in chunks(inputs):
            # Count a label once per caption: sorted, its second occurrence follows the first.
            labels = WordLabels.labels_in(chunk).sort(1).values
            labels[:, 1:][labels[:, 1:] == labels[:, :-1]] = -1
            new_labels, new_counts = labels.unique(return_counts=True)
            # Add the new counts to those of the chunks before.
            vocab, place = torch.cat([vocab, new_labels]).unique(return_inverse=True)
            both = torch.cat([counts, new_counts])
            counts = torch.zeros(len(vocab), dtype=torch.int64).index_add_(0, place, both)
        tells_something = (vocab >= 0) & (counts < len(inputs))
        vocab, counts = vocab[tells_something], counts[tells_something]
        if not len(vocab):
            raise BadInput(
                "the captions have no word that tells one from another; there is nothing to "
                "label images by"
            )
        kept = counts.argsort(descending=True, stable=True)[:limit].sort().values
        return vocab[kept], (len(inputs) / counts[kept]).log()


# --------------------------------------------------------------------------------------------------
# The table of methods. A new paper is one entry here, a new tower, head or loss above where it
# needs one, and one test. See CONTRIBUTING.md.


@dataclass(frozen=True)
class Method:
    """One row of METHODS. What `trains` does not name is frozen.

    It gets no gradient, and the optimizer does not know it.
    """

    paper: str
    image: str  # where the image tower starts: "scratch", "pretrained", or "run": --init-from
    text: type[TextTower]
    trains: tuple[str, ...]  # parts of the model; see `is_in_part`
    image_head: Callable[[int, int], nn.Module]
    text_head: Callable[[int, int], nn.Module]
    loss: Callable[..., Tensor]
    scale: float = 1 / 0.07  # s at the start, here CLIP's; the model holds ln s as logit_scale
    bias: float | None = None  # where logit_bias starts; None: the loss takes none
    labels: bool = False  # a second head on the image tower names the caption's WordLabels
    adapters: bool = False  # put LilT's adapters into both towers
    image_lr_share: float = 1.0  # the image tower's learning rate, as a share of --lr


HEADS_AND_SCALE = ("image_head", "text_head", "logit_scale")

METHODS = {
    "clip": Method(
        paper="Radford et al. 2021, arXiv 2103.00020",
        image="scratch",
        text=TextTransformer,
        trains=("visual", "text", *HEADS_AND_SCALE),
        image_head=projection,
        text_head=projection,
        loss=info_nce,
    ),
    "lift": Method(
        paper="Yang et al. 2025, arXiv 2506.04209",
        image="scratch",
        text=LLMVectors,
        trains=("visual", "image_head", "logit_scale"),
        image_head=mlp,
        text_head=no_head,
        loss=info_nce,
    ),
    "lit": Method(
        paper="Zhai et al. 2022, arXiv 2111.07991",
        image="pretrained",
        text=TextTransformer,
        trains=("text", "text_head", "logit_scale"),
        image_head=no_head,
        text_head=projection,
        loss=info_nce,
    ),
    "ape": Method(
        paper="Rosenfeld et al. 2022, arXiv 2210.03927",
        image="pretrained",
        text=LLMTokens,
        trains=("text_head", "logit_scale"),
        image_head=no_head,
        text_head=ape,
        loss=info_nce,
    ),
    "lilt": Method(
        paper="Khan & Fu 2023, arXiv 2303.11866",
        image="pretrained",
        text=LiveLLM,
        trains=("norms", "adapters", *HEADS_AND_SCALE),
        image_head=projection_with_bias,
        text_head=projection_with_bias,
        loss=info_nce,
        adapters=True,
    ),
    "llm2clip": Method(
        paper="Huang et al. 2024, arXiv 2411.04997",
        image="pretrained",
        text=RawVectors,
        trains=("visual", *HEADS_AND_SCALE),
        image_head=projection,
        text_head=adaptor,
        loss=info_nce,
        image_lr_share=0.1,
    ),
    # On a first reading go on to the end of the table. The rows below are variants and controls.
    #
    # LIFT with the cosine loss, which has no scale to learn.
    "lift_cos": Method(
        paper="Yang et al. 2025, arXiv 2506.04209",
        image="scratch",
        text=LLMVectors,
        trains=("visual", "image_head"),
        image_head=mlp,
        text_head=no_head,
        loss=cosine_loss,
    ),
    # A run of LIFT, and then a matrix on its text side, solved for without any step.
    "lift_ridge": Method(
        paper="after Hoerl & Kennard 1970",
        image="run",
        text=LLMVectors,
        trains=(),
        image_head=mlp,
        text_head=text_ridge,
        loss=info_nce,
    ),
    # CLIP and LIFT with SigLIP's loss, and with its scale and bias at the start.
    "clip_sigmoid": Method(
        paper="Zhai et al. 2023, arXiv 2303.15343",
        image="scratch",
        text=TextTransformer,
        trains=("visual", "text", *HEADS_AND_SCALE),
        image_head=projection,
        text_head=projection,
        loss=sigmoid_loss,
        scale=10,
        bias=-10,
    ),
    "lift_sigmoid": Method(
        paper="after Zhai et al. 2023, arXiv 2303.15343",
        image="scratch",
        text=LLMVectors,
        trains=("visual", "image_head", "logit_scale"),
        image_head=mlp,
        text_head=no_head,
        loss=sigmoid_loss,
        scale=10,
        bias=-10,
    ),
    # CLIP and LIFT whose image tower also names the words of the caption.
    "superclip": Method(
        paper="Zhao et al. 2025, arXiv 2512.14480",
        image="scratch",
        text=TextTransformer,
        trains=("visual", "text", *HEADS_AND_SCALE),
        image_head=projection,
        text_head=projection,
        loss=info_nce_and_labels,
        labels=True,
    ),
    "superlift": Method(
        paper="after Zhao et al. 2025, arXiv 2512.14480",
        image="scratch",
        text=LLMVectors,
        trains=("visual", "image_head", "logit_scale"),
        image_head=mlp,
        text_head=no_head,
        loss=info_nce_and_labels,
        labels=True,
    ),
    # Not one of the papers' methods: it makes the pretrained image tower that others start from.
    "supervised": Method(
        paper="after SuperClass, Huang et al. 2024, arXiv 2411.03313",
        image="scratch",
        text=WordLabels,
        trains=("visual", "image_head", "logit_scale"),
        image_head=projection,
        text_head=no_head,
        loss=label_loss,
    ),
    # CLIP from a pretrained image tower: what LLM2CLIP is compared with.
    "clip_pretrained": Method(
        paper="Radford et al. 2021, arXiv 2103.00020",
        image="pretrained",
        text=TextTransformer,
        trains=("visual", "text", *HEADS_AND_SCALE),
        image_head=projection,
        text_head=projection,
        loss=info_nce,
        image_lr_share=0.1,
    ),
    # APE with one vector per caption in place of its tokens.
    "sharelock": Method(
        paper="Ruthardt et al. 2024, arXiv 2410.07173",
        image="pretrained",
        text=LLMVectors,
        trains=("text_head", "logit_scale"),
        image_head=no_head,
        text_head=deep_mlp,
        loss=info_nce,
    ),
    # The next two are APE's controls: another head, and no language model at all.
    "ape_transformer": Method(
        paper="Rosenfeld et al. 2022, arXiv 2210.03927",
        image="pretrained",
        text=LLMTokens,
        trains=("text_head", "logit_scale"),
        image_head=no_head,
        text_head=ape_transformer,
        loss=info_nce,
    ),
    "ape_lookup": Method(
        paper="Rosenfeld et al. 2022, arXiv 2210.03927",
        image="pretrained",
        text=TokenTable,
        trains=("text", "text_head", "logit_scale"),
        image_head=no_head,
        text_head=ape_lookup,
        loss=info_nce,
    ),
    # No step of training at all: what a matrix between two frozen towers can do.
    "ridge": Method(
        paper="Hoerl & Kennard 1970",
        image="pretrained",
        text=LLMVectors,
        trains=(),
        image_head=Ridge,
        text_head=no_head,
        loss=info_nce,
    ),
}
# Optimizer, schedule, batch size and crops come from the command line, the same for all methods.
# Only `image_lr_share` differs. docs/methods.md has the settings of the papers.

# What --unlock trains in both towers, in place of the method's own parts. The names are LilT's.
UNLOCK = {
    "layernorm": ("norms", *HEADS_AND_SCALE),
    # SmolLM2 has no biases, so these are the image tower's and the heads'.
    "bitfit": ("biases", *HEADS_AND_SCALE),
    "adapters": ("adapters", *HEADS_AND_SCALE),
    "adapters+layernorm": ("norms", "adapters", *HEADS_AND_SCALE),
    "all": ("visual", "text", *HEADS_AND_SCALE),
    "heads": HEADS_AND_SCALE,  # a control: what do the two matrices do without the rest?
}


def method_for(name: str, unlock: str = "") -> Method:
    """A row of METHODS, with the parts that --unlock names trained in place of its own."""
    method = METHODS[name]
    if not unlock:
        return method
    return replace(method, trains=UNLOCK[unlock], adapters="adapters" in UNLOCK[unlock])


# logit_bias is trained where logit_scale is, and label_head where image_head is.
GOES_WITH = {"logit_bias": "logit_scale", "label_head": "image_head"}


def is_in_part(parameter: str, part: str) -> bool:
    """Does a parameter, by its name, belong to a part of the model?

    A name begins with the child of TwoTower that holds the parameter: "visual.norm.bias". A part is
    one of these children ("visual", "text", "image_head", "text_head", "logit_scale"), or a kind of
    parameter in all of them:

        norms     every parameter whose name holds "norm", also in heads and in the language model,
                  and those of TextTransformer's last norm, `ln_final`
        biases    every bias, that of the logits included
        adapters  all that belongs to an `adapter1` or an `adapter2`

    A child of GOES_WITH counts as the other child that is named there.
    """
    if part == "norms":
        return "norm" in parameter or "ln_final" in parameter
    if part == "biases":
        return parameter.endswith("bias")
    if part == "adapters":
        return ".adapter1." in parameter or ".adapter2." in parameter
    child = parameter.split(".")[0]
    return GOES_WITH.get(child, child) == part


# --------------------------------------------------------------------------------------------------
# The model.


class TwoTower(nn.Module):
    """Image tower and head, text tower and head, and a scale. Every method is this model.

    name          a key of METHODS
    sizes         what the user may choose
    fitted        what `fit` of the method's text tower made of the training captions, in order
    unlock        a key of UNLOCK; "": the parts that the method names are trained
    image_width   width of somebody else's image vectors, which then replace the image tower
    llama         a live language model, where the text tower needs one
    label_fitted  what WordLabels.fit made of the training captions, where the method has labels

    The towers start from random weights. train.py puts pretrained ones in.
    """

    def __init__(
        self,
        name: str,
        sizes: Sizes,
        fitted: tuple[Tensor, ...] = (),
        unlock: str = "",
        image_width: int | None = None,
        llama: Llama | None = None,
        label_fitted: tuple[Tensor, ...] = (),
    ):
        super().__init__()
        method = method_for(name, unlock)

        # The image tower comes first. So, with one seed, all methods that train it from scratch
        # begin with the same weights.
        if image_width is None:
            visual = ViT(sizes.model, sizes.image_size, sizes.image_pool)
        else:
            visual = OutsideTower(image_width)
        if method.text.needs_llama:
            text = method.text(sizes, *fitted, llama=llama)
        else:
            text = method.text(sizes, *fitted)

        # A tower without a head is the shared space itself. Where both have one, the user chooses.
        # lift_ridge has the image head of a run of LIFT, which ends in the text vectors' width.
        if method.image_head is no_head:
            D = visual.width
        elif method.text_head in (no_head, text_ridge):
            D = text.width
        else:
            D = sizes.embed_dim
        self.visual = visual
        self.image_head = method.image_head(visual.width, D)
        self.text = text
        self.text_head = method.text_head(text.width, D)
        init_linears(self.image_head)
        init_linears(self.text_head)
        # Labels are a second task of the image tower, beside the captions. (SuperCLIP)
        self.labels = None
        if method.labels:
            self.labels = WordLabels(sizes, *label_fitted)
            self.label_head = projection_with_bias(visual.width, self.labels.width)
            init_linears(self.label_head)

        # Each Block of both towers has places for two adapters. The list is made first,
        # because the loop changes the tree of modules.
        if method.adapters:
            for block in list(self.modules()):
                if hasattr(block, "adapter1"):
                    block.adapter1 = LilTAdapter(block.width)
                    block.adapter2 = LilTAdapter(block.width)

        # The parameter logit_scale is ln s. So s cannot become negative, and it moves by factors.
        # `forward` gives the losses s itself, under the same name, as open_clip does.
        self.logit_scale = nn.Parameter(torch.tensor(math.log(method.scale)))
        self.logit_bias = None
        if method.bias is not None:
            self.logit_bias = nn.Parameter(torch.tensor(float(method.bias)))

        # Here the rest is frozen: a parameter that no part of `trains` holds gets no gradient.
        for parameter_name, parameter in self.named_parameters():
            is_trained = any(is_in_part(parameter_name, part) for part in method.trains)
            parameter.requires_grad_(is_trained)

    def train(self, mode: bool = True) -> "TwoTower":
        """As nn.Module.train, but a child without any trained parameter stays in eval mode.

        A child is one of self.children(). All modules inside a child have the child's mode. With
        mode False everything is in eval mode. Returns the model. Today no module here behaves
        differently in training. This is for a tower with dropout that somebody adds.
        """
        super().train(mode)
        for part in self.children():
            is_trained = any(parameter.requires_grad for parameter in part.parameters())
            part.train(mode and is_trained)
        return self

    def image_vectors(self, images: Tensor) -> Tensor:
        """Images -> what the image tower makes of them, (B, width).

        images  (B, 3, S, S), as `transform` of `load` makes them, or (B, width), the vectors that a
                frozen image tower made of them: they are given back
        """
        return self.visual(images) if images.ndim == 4 else images

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Images, as image_vectors takes them -> features (B, D)."""
        features = self.image_head(self.image_vectors(images))
        return F.normalize(features.float(), dim=-1) if normalize else features

    def encode_text(self, texts: Tensor, normalize: bool = False) -> Tensor:
        """Text inputs, as `tokenize` of `load` makes them -> features (B, D)."""
        features = self.text_head(self.text(texts))
        return F.normalize(features.float(), dim=-1) if normalize else features

    def forward(
        self, images: Tensor, texts: Tensor, label_tokens: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What the loss of the method takes, by its names: features of unit length, the scale, and
        a bias or labels where it has them.

        images        (B, 3, S, S), or (B, width) from a frozen image tower
        texts         (B, ...), as TextTower.input_kind says
        label_tokens  (B, L) int64, token ids of the same captions, for the labels; or None

        image_features and text_features are (B, D) float32, logit_scale and logit_bias have no
        dimensions, label_scores and label_weights are (B, V) for V labels.
        """
        # The tower runs once for both heads: encode_image takes vectors as they are.
        vectors = self.image_vectors(images)  # (B, width)
        out = {
            "image_features": self.encode_image(vectors, normalize=True),
            "text_features": self.encode_text(texts, normalize=True),
            "logit_scale": self.logit_scale.exp(),
        }
        if self.logit_bias is not None:
            out["logit_bias"] = self.logit_bias
        if self.labels is not None:
            out["label_scores"] = self.label_head(vectors)  # (B, V)
            out["label_weights"] = self.labels(label_tokens)  # (B, V)
        return out


# --------------------------------------------------------------------------------------------------
# A batch that is larger than the memory, or shared by several processes. On a first reading, skip
# this.


def backward_in_pieces(
    model: TwoTower,
    loss_of: Callable,
    inputs: tuple[Tensor, Tensor, Tensor | None],
    duplicates: Tensor,
    n_pieces: int,
    autocast: AbstractContextManager,
) -> tuple[dict[str, Tensor], Tensor]:
    """One backward pass of a whole batch, cut into pieces. Returns its features and its loss.

    This is GradCache. (Gao et al. 2021, arXiv 2101.06983) A contrastive loss needs the features of
    the whole batch, since every caption is a negative of every other image. But the features are
    small. What fills the memory are the activations, the numbers inside the towers that `backward`
    needs, and these belong to one image or caption each. So there are three steps:

        1. features of each piece, without activations
        2. the loss of all features, and dloss / dz for each feature z
        3. each piece again, now with activations: dz / dparameters times the dloss / dz of step 2

    By the chain rule the sum over all pieces is the gradient of the whole batch. It takes one more
    pass forward, about a third more time. For LIFT that pass is the image side's alone: its
    captions are vectors already. The cosine loss of `lift_cos` has no negatives. It would not need
    step 1, and takes it all the same: one way for all methods is easier to read. A batch of one
    piece keeps the activations of step 1, and step 3 has nothing to compute again.

    The batch may be shared by P processes, too. (data/processes.py) Then each one has B / P of the
    rows, cuts these into pieces, and sees the features of the others between steps 1 and 2. Every
    process computes the whole loss, and goes back through the towers with its own rows. Then the
    gradients of all processes are added up.

    inputs      images (B / P, ...), texts (B / P, ...), label_tokens (B / P, L) or None, as
                `forward` takes them
    duplicates  (B, B) bool
    n_pieces    into which each process cuts its rows
    autocast    in which the towers run, and nothing else

    The gradients are added to those of the parameters, as by loss.backward(). With several
    processes there must be none before.
    """
    images, texts, label_tokens = (
        [None] * n_pieces if whole is None else whole.chunk(n_pieces) for whole in inputs
    )
    # `chunk` may give fewer pieces than it is asked for: 5 rows in 4 pieces become 2, 2 and 1.
    pieces = list(zip(images, texts, label_tokens, strict=False))

    with torch.set_grad_enabled(len(pieces) == 1), autocast:
        outputs = [model(*piece) for piece in pieces]
    features = {}
    for name, first in outputs[0].items():
        # What has no dimensions, such as the scale, is the same in all pieces.
        own = torch.cat([output[name] for output in outputs]) if first.ndim else first
        gathered = processes.gather(own.detach()) if first.ndim else own.detach()
        features[name] = gathered.requires_grad_()

    loss = loss_of(**features, duplicates=duplicates)
    loss.backward()  # as far as the features

    n_all = len(pieces) * processes.count()
    start = processes.rank() * len(inputs[0])
    for piece in pieces:
        end = start + len(piece[0])
        with autocast:
            output = outputs[0] if len(pieces) == 1 else model(*piece)
        made, gradients = [], []
        for name, tensor in output.items():
            gradient = features[name].grad
            # A feature that the loss does not use has no gradient. The features of a frozen text
            # side need none. The scale's gradient is already that of the whole batch, so the
            # pieces share it out.
            if gradient is not None and tensor.requires_grad:
                made.append(tensor)
                gradients.append(gradient[start:end] if tensor.ndim else gradient / n_all)
        torch.autograd.backward(made, gradients)
        start = end
    processes.add_gradients(model)
    return features, loss


# --------------------------------------------------------------------------------------------------
# A trained run, brought back from its files. Only `live_llama` and `load` read files.


def live_llama(source: TextSource) -> Llama:
    """The language model of a run that keeps it live: its first blocks and its final norm.

    source.layer says how many blocks are kept; 0 keeps those that mean pooling reads.
    """
    adapter, layer = source.llm_adapter, source.layer or None
    return load_llm(source.llm, adapter=adapter, pool="mean", layer=layer).model


def fitted_of(method: Method, state: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """What `fit` made for the text tower and for the labels, read from the weights of a run."""
    # Contiguous: a checkpoint keeps the order of a matrix in memory, an exported file does not.
    # Sums in another order differ in their last bit, and both files are the same model.
    fitted = [state[f"text.{name}"].contiguous() for name in method.text.fitted]
    names = WordLabels.fitted if method.labels else ()
    return fitted, [state[f"labels.{name}"] for name in names]


def check_sizes(method: Method, sizes: Sizes, state: dict[str, Tensor]) -> None:
    """BadInput if a run says sizes that no model has: a few damaged bytes may ask for anything."""
    is_possible = all(value > 0 for value in vars(sizes).values() if isinstance(value, int))
    if method.text is TextTransformer:
        # Blocks are made before their shapes are compared, so there must not be a million of them.
        width = state["text.token_embedding.weight"].shape[-1]
        is_possible = (
            is_possible  # first: nothing must be divided by 0 heads
            and width == sizes.text_width
            and sizes.text_depth <= len(state)
            and sizes.text_width % sizes.text_heads == 0
        )
    if not is_possible:
        raise BadInput(f"damaged: no model has such sizes: {sizes}")


def load(run: str, device: str = "cpu") -> tuple[TwoTower, Callable, Callable]:
    """Load a trained run -> (model, transform, tokenize).

    The names encode_image, encode_text, normalize and tokenize are open_clip's.

        model, transform, tokenize = lift.load("runs/lift")
        image = model.encode_image(transform(Image.open("dog.jpg"))[None], normalize=True)
        text = model.encode_text(tokenize(["a dog", "a cat"]), normalize=True)
        print(image @ text.T)   # cosines

    run        a run folder, or a file, as data.files.runs.run_file says
    transform  PIL image -> (3, S, S) float32
    tokenize   list of texts -> tensor for model.encode_text. For LIFT these are the vectors of the
               frozen language model: they are computed, or taken from the cache.

    BadInput where `run` is no run, or where the language model or the vectors that it was trained
    with are not what they were. A file of vectors may have got more rows.
    """
    saved = read_run(run)
    # A run of another version, or a damaged one, lacks a setting or a tensor.
    with interpreting(run):
        config, state = saved["config"], saved["model"]
        method = METHODS[config["method"]]
        sizes, source = select(Sizes, config), select(TextSource, config)
        check_sizes(method, sizes, state)
        tokenize = text_reader(method.text.input_kind, source, device)
        if not tokenize.still_matches(saved["text_fingerprint"]):
            trained_with = source.text_features or source.llm or "the default one"
            with_adapter = f" with {source.llm_adapter}" if source.llm_adapter else ""
            raise BadInput(
                f"{run} was trained with another language model than {trained_with}{with_adapter} "
                "is now; bring that one back"
            )
        image_width = None
        if config["image_features"]:
            outside = OutsideVectors(config["image_features"])
            if not outside.still_matches(saved["image_fingerprint"]):
                raise BadInput(
                    f"{run} was trained with other vectors than {config['image_features']} has "
                    "now; bring those back"
                )
            image_width = outside.vectors.shape[-1]

        fitted, label_fitted = fitted_of(method, state)
        llama = live_llama(source) if method.text.needs_llama else None
        parts = (fitted, config["unlock"], image_width, llama, label_fitted)
        # First the shapes alone: parameters on this device take no memory, whatever their size.
        with torch.device("meta"):
            shapes = TwoTower(config["method"], sizes, *parts)
        problem = mismatch(state, shapes, "its configuration wants")
        if problem:
            raise BadInput(problem)
        model = TwoTower(config["method"], sizes, *parts)
        model.load_state_dict(state)

    def transform(image):
        pixels = torch.from_numpy(to_square(image, sizes.image_size))  # (S, S, 3) uint8
        return normalize_pixels(pixels[None])[0]

    return model.to(device).eval(), transform, tokenize
