"""One two-tower model and a table: a row says what a paper trains, what it leaves frozen, which heads and which loss.

    CLIP      (Radford et al. 2021, arXiv 2103.00020)  both towers from scratch, one linear a side, InfoNCE
    LIFT      (Yang et al. 2025, arXiv 2506.04209)     text is the frozen LLM's vector, a 2-layer MLP on the image side
    LiT       (Zhai et al. 2022, arXiv 2111.07991)     a pretrained image tower is locked, the text tower learns to fit it
    APE       (Rosenfeld et al. 2022, arXiv 2210.03927)  both locked; an MLP on each text token, then the mean
    LilT      (Khan & Fu 2023, arXiv 2303.11866)       both pretrained; norms, biases or adapters in them are trained
    LLM2CLIP  (Huang et al. 2024, arXiv 2411.04997)    a pretrained image tower goes on learning from the frozen LLM

Losses, heads and towers come first, then the table (METHODS), the model (TwoTower), and `load`, which brings back a
trained run in three lines with open_clip's names:

    model, transform, tokenize = lift.load("runs/lift")
    image = model.encode_image(transform(Image.open("dog.jpg"))[None], normalize=True)
    text = model.encode_text(tokenize(["a dog", "a cat"]), normalize=True)
"""

import math
import re
from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from data.captions import END, TokenIds, chunks
from data.common import BadInput
from data.files.runs import read_run
from data.files.vit import load_vit
from data.images import pixels
from data.vectors import CaptionVectors, OutsideVectors
from llm_text import load_llm, mean_token, whitening
from vit import Block, ViT, init_linears

# ---------------------------------------------------------------------------------------------------------------
# Losses: (image features (B, D), text features (B, D), both of unit length, scale (), duplicates) -> scalar.


def info_nce(image_features, text_features, logit_scale, duplicates=None):
    """Symmetric cross-entropy of every picture against all captions of the batch and the reverse. (CLIP, Fig. 3)

    logit_scale is 1 / temperature, already exponentiated. duplicates (B, B) bool, symmetric, marks pairs of which one's
    caption is among all the other picture's, or the pictures are equal: true pairs by accident, so they are no negatives (its
    diagonal is ignored). Random features of dimension D begin near ln B + scale^2 / 2D. Computed in float32 also under
    autocast: at scale 100 the bfloat16 grid of the logits is 0.5 wide.
    """
    with torch.autocast(image_features.device.type, enabled=False):
        logits = logit_scale.float() * image_features.float() @ text_features.float().T  # (B, B)
        if duplicates is not None:
            off_diagonal = ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
            logits = logits.masked_fill(duplicates & off_diagonal, -torch.inf)
        target = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def cosine_loss(image_features, text_features, logit_scale=None, duplicates=None):
    """1 - cosine to the own caption; no negatives, no scale. Cannot collapse only because the texts are fixed."""
    return 1 - (image_features.float() * text_features.float()).sum(-1).mean()


def label_loss(image_features, text_features, logit_scale, duplicates=None):
    """Softmax cross-entropy against several labels at once, each a share of the target by its weight. (text_features: WordLabels)"""
    weight = text_features.float().sum(
        -1, keepdim=True
    )  # (B, 1); 0 where a caption has no label at all
    target = text_features.float() / weight.clamp_min(1e-12)  # (B, V)
    loss = -(target * F.log_softmax(logit_scale.float() * image_features.float(), dim=-1)).sum()
    return loss / (weight > 0).sum().clamp_min(1)


# ---------------------------------------------------------------------------------------------------------------
# Heads: (width of the tower, shared dimension) -> module.


def linear(d_in, d_out):
    """CLIP's projection."""
    return nn.Linear(d_in, d_out, bias=False)


def mlp(d_in, d_out):
    """LIFT's head."""
    return nn.Sequential(nn.Linear(d_in, d_out), nn.GELU(), nn.Linear(d_out, d_out))


class Residual(nn.Module):
    """x + Linear(GELU(Linear(LN(x)))), twice as wide inside."""

    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        return x + self.net(x)


class Unit(nn.Module):
    """To unit length, in float32."""

    def forward(self, x):
        return F.normalize(x.float(), dim=-1)


def adaptor(d_in, d_out):
    """LLM2CLIP's adaptor on the frozen LLM's vector."""
    return nn.Sequential(
        Unit(), *(Residual(d_in) for _ in range(4)), nn.LayerNorm(d_in), nn.Linear(d_in, d_out)
    )


class TokenMean(nn.Module):
    """A network for each token, then the mean over the caption's tokens: (B, L, d_in) -> (B, d_out). Zeros are padding."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, tokens):
        real = (tokens != 0).any(-1, keepdim=True)  # (B, L, 1)
        return (self.net(tokens.float()) * real).sum(1) / real.sum(1).clamp_min(
            1
        )  # (no known word: zeros)


def ape(d_in, d_out, layers=4):
    """APE's head. The paper gives four to six layers; width and activation are ours."""
    hidden = [m for _ in range(layers - 1) for m in (nn.Linear(d_in, d_in), nn.GELU())]
    return TokenMean(nn.Sequential(*hidden, nn.Linear(d_in, d_out)))


def ape_transformer(d_in, d_out):
    """Its control: tokens may look at those before them. A block of half the width has the weights of three MLP layers."""
    half = d_in // 2
    block = Block(half, math.gcd(half, 8), causal=True)
    return TokenMean(
        nn.Sequential(nn.Linear(d_in, half), block, nn.LayerNorm(half), nn.Linear(half, d_out))
    )


def token_mean(d_in, d_out):
    """Its other control: nothing but the mean of linearly mapped tokens."""
    return TokenMean(nn.Linear(d_in, d_out, bias=False))


class Adapter(nn.Module):
    """LilT's adapter: D -> D/4 -> D beside the identity, before each norm of a block, in both towers.

    (The paper's stand behind the sub-layers in the text tower.) Its second layer begins at zero: nothing changes at first.
    """

    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Linear(width, width // 4), nn.Linear(width // 4, width)
        init_linears(self)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return x + self.up(F.gelu(self.down(x)))


# ---------------------------------------------------------------------------------------------------------------
# The image tower.


class OutsideTower(nn.Module):
    """Stands for somebody else's image tower, known by the vectors that it made (--image-features)."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, images):
        raise BadInput(
            "this run knows pictures by --image-features only; it cannot read another picture"
        )


def image_tower(cfg):
    """A ViT, from scratch or with the weights of --image-weights. (`load` names none: they are in the checkpoint.)"""
    if cfg.image_features:
        return OutsideTower(OutsideVectors(cfg.image_features).vectors.shape[-1])
    tower = ViT(cfg.model, cfg.image_size, cfg.image_pool)
    if cfg.image_weights:
        load_vit(tower, cfg.image_weights, cfg.image_norm)
    return tower


# ---------------------------------------------------------------------------------------------------------------
# Text towers. `tokenizer(cfg, device)` gives texts -> tensor (N, ...) (data/captions.py), which runs once, before training, on every
# distinct caption. Its `rows(texts)` are the same, read on demand; `fingerprint` names what made them, `cut` is the share of texts that
# were too long, `frozen_parameters` the LLM's size. What a tower learns from the training captions, `fit`, are buffers, named in `fitted`.


def find(vocab, ids):
    """Where ids stand in a sorted vocabulary (V,); V, the unknown word, for those that do not."""
    row = torch.searchsorted(vocab, ids).clamp_max(len(vocab) - 1)
    return torch.where(vocab[row] == ids, row, len(vocab))


class TextTower(nn.Module):
    """The frame of a text tower. `width` is that of its features; one that learns nothing beforehand fits ()."""

    fitted, tokenizer = (), TokenIds

    def __init__(self, cfg, *fitted):
        super().__init__()
        for name, tensor in zip(self.fitted, fitted, strict=True):
            self.register_buffer(name, tensor)

    @staticmethod
    def fit(cfg, inputs):
        return ()


class LLMVectors(TextTower):
    """LIFT's: a caption is its cached LLM vector, centred and whitened. Nothing to train."""

    fitted, pool, ndim = ("mean", "matrix"), None, 2  # (llm_width,), (llm_width, width)
    width = property(lambda self: self.matrix.shape[-1])

    def forward(self, vectors):  # (B, llm_width)
        with torch.autocast(
            vectors.device.type, enabled=False
        ):  # whitening enlarges what bfloat16 would round away
            return (vectors.float() - self.mean) @ self.matrix  # (B, width)

    @classmethod
    def tokenizer(cls, cfg, device):
        if cfg.text_features:
            return OutsideVectors(cfg.text_features, cls.ndim)
        llm = load_llm(cfg.llm, device, getattr(torch, cfg.llm_dtype), cfg.llm_adapter)
        return CaptionVectors(llm, cls.pool or cfg.pool, cfg.layer or None, cfg.context_length)

    @staticmethod
    def fit(cfg, vectors):
        return whitening(vectors, cfg.whiten)


class RawVectors(LLMVectors):
    """LLM2CLIP's: the LLM's vector as it is."""

    @staticmethod
    def fit(cfg, vectors):
        width = vectors[:1].shape[1]
        return torch.zeros(width), torch.eye(width)


class LLMTokens(LLMVectors):
    """APE's: every token's last hidden state, cached; centred and scaled to unit variance, for a few dimensions dwarf the rest."""

    fitted, pool, ndim = ("mean", "std"), "tokens", 3  # (llm_width,) each
    width = property(lambda self: len(self.mean))

    def forward(self, tokens):  # (B, L, llm_width); zeros (padding, and the first token) stay zeros
        real = (tokens != 0).any(-1, keepdim=True)
        return torch.where(real, (tokens.float() - self.mean) / self.std, 0.0)

    @staticmethod
    def fit(cfg, tokens):
        n = total = squares = 0
        for x in chunks(tokens, 1000):
            x = x.double().flatten(0, 1)
            x = x[(x != 0).any(-1)]
            n, total, squares = n + len(x), total + x.sum(0), squares + (x * x).sum(0)
        mean = total / n
        return mean.float(), (squares / n - mean * mean).clamp_min(1e-12).sqrt().float()


class TokenTable(TextTower):
    """APE's second control, in place of the LLM: a learned vector for each token, whatever stands around it.

    Its vocabulary is what the training captions use; any other token is one unknown word. (The other 49,000 rows of
    the LLM's would stay random anyway.)
    """

    fitted = ("vocab",)  # (V,) int64, sorted

    def __init__(self, cfg, vocab, width=None):
        super().__init__(cfg, vocab)
        self.width = width or cfg.embed_dim
        self.token_embedding = nn.Embedding(len(vocab) + 1, self.width)
        nn.init.zeros_(self.token_embedding.weight[-1])  # the unknown word: no part of a mean

    def forward(self, ids):  # (B, L)
        return (
            self.token_embedding(find(self.vocab, ids)) * (ids >= 0)[..., None]
        )  # (B, L, D); zeros: END and padding

    @staticmethod
    def fit(cfg, ids):
        return (torch.cat([part.unique() for part in chunks(ids)]).unique(),)


class TextTransformer(TokenTable):
    """CLIP's: a causal transformer from scratch, read at the end-of-text token."""

    def __init__(self, cfg, vocab):
        super().__init__(cfg, vocab, cfg.text_width)
        self.positional_embedding = nn.Parameter(
            torch.randn(1, cfg.context_length, self.width) * 0.01
        )
        self.blocks = nn.Sequential(
            *(Block(self.width, cfg.text_heads, causal=True) for _ in range(cfg.text_depth))
        )
        self.ln_final = nn.LayerNorm(self.width)
        init_linears(self)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, ids):  # (B, L)
        x = self.blocks(
            self.token_embedding(find(self.vocab, ids))
            + self.positional_embedding[:, : ids.shape[1]]
        )  # (B, L, D)
        end = (ids == END).int().argmax(1)  # (B,)
        return self.ln_final(x[torch.arange(len(x), device=x.device), end])  # (B, D)


class LiveLLM(TextTower):
    """LilT's: the first --layer blocks of the LLM itself and its final norm, then the mean of its tokens."""

    def __init__(self, cfg):
        super().__init__(cfg)
        llm = load_llm(cfg.llm, adapter=cfg.llm_adapter)
        self.width, self.llm = llm.width, llm.model
        del self.llm.layers[llm.pool_layer("mean", cfg.layer or None) :]

    def forward(self, ids):  # (B, L)
        return mean_token(self.llm(ids.clamp_min(0), ids >= 0), ids >= 0)  # (B, D)


def caption_labels(ids):
    """Token ids (B, L) -> labels (B, 2 L - 1): each token, and each pair as one number (above all tokens'); -1 where there is none."""
    a, b = ids[:, :-1], ids[:, 1:]
    return torch.cat(
        [ids.clamp_min(-1), torch.where((a >= 0) & (b >= 0), ((a + 1) << 32) + b, -1)], dim=1
    )


def commonest_labels(ids, limit=4096):
    """(labels (V,) int64, sorted; weights (V,)) of training captions, V at most limit.

    A label weighs log(captions / captions that hold it); one that all of them hold tells nothing and is left out.
    """
    vocab, counts = torch.zeros(2, 0, dtype=torch.int64)
    for part in chunks(ids):
        labels = caption_labels(part).sort(1).values
        labels[:, 1:][labels[:, 1:] == labels[:, :-1]] = -1  # count a label once a caption
        new, more = labels.unique(return_counts=True)
        vocab, row = torch.cat([vocab, new]).unique(return_inverse=True)
        counts = torch.zeros(len(vocab), dtype=torch.int64).index_add_(
            0, row, torch.cat([counts, more])
        )
    tells = (vocab >= 0) & (counts < len(ids))
    vocab, counts = vocab[tells], counts[tells]
    if not len(vocab):
        raise BadInput(
            "the captions have no word that tells one from another; there is nothing to label pictures by"
        )
    kept = counts.argsort(descending=True, stable=True)[:limit].sort().values
    return vocab[kept], (len(ids) / counts[kept]).log()


class WordLabels(TextTower):
    """Not a tower but labels: which of the commonest tokens and pairs of tokens a caption holds (data/labels.py)."""

    fitted = ("vocab", "weight")  # (V,) int64, sorted; (V,)
    width = property(lambda self: len(self.vocab))

    def forward(self, ids):
        hot = torch.zeros(len(ids), self.width + 1, device=ids.device)
        return (
            hot.scatter_(1, find(self.vocab, caption_labels(ids)), 1.0)[:, :-1] * self.weight
        )  # (B, V), without the unknown

    @staticmethod
    def fit(cfg, ids):
        return commonest_labels(ids)


# ---------------------------------------------------------------------------------------------------------------
# The table.


@dataclass(frozen=True)
class Method:
    """One paper in one row. What `trains` does not match is frozen: no gradient, eval mode, not in the optimizer."""

    image: str  # where the image tower starts: "scratch" or "pretrained"
    text: type  # class of the text tower
    trains: str  # regular expression, matched at the start of parameter names
    image_head: callable
    text_head: callable
    loss: callable
    image_rate: float = 1.0  # the image tower's learning rate, as a share of --lr


HEADS = r"image_head\.|text_head\.|logit_scale"
UNLOCK = {  # LilT's names for what is trained in the two towers, beside heads and scale
    "layernorm": rf"{HEADS}|.*(norm|ln_final)",
    "bitfit": rf"{HEADS}|.*bias$",  # (SmolLM2 has none: there, of the image tower)
    "adapters": rf"{HEADS}|.*\.adapter[12]\.",
    "adapters+layernorm": rf"{HEADS}|.*\.adapter[12]\.|.*(norm|ln_final)",
    "all": r".*",
}
# Optimizer, schedule, crops and the scale's limits are one for all rows, and the command line's; each paper has its own.
VISUAL, TEXT, none = (
    rf"visual\.|{HEADS}",
    rf"text\.|{HEADS}",
    nn.Identity,
)  # (no head: that tower's space is the shared one)
METHODS = {
    "clip": Method("scratch", TextTransformer, r".*", linear, linear, info_nce),
    "lift": Method("scratch", LLMVectors, VISUAL, mlp, none, info_nce),
    "lift_cos": Method("scratch", LLMVectors, r"visual\.|image_head\.", mlp, none, cosine_loss),
    "supervised": Method("scratch", WordLabels, VISUAL, linear, none, label_loss),
    "lit": Method("pretrained", TextTransformer, TEXT, none, linear, info_nce),
    "clip_pretrained": Method(
        "pretrained", TextTransformer, r".*", linear, linear, info_nce, image_rate=0.1
    ),
    "ape": Method("pretrained", LLMTokens, HEADS, none, ape, info_nce),
    "ape_transformer": Method("pretrained", LLMTokens, HEADS, none, ape_transformer, info_nce),
    "ape_lookup": Method("pretrained", TokenTable, TEXT, none, token_mean, info_nce),
    "lilt": Method(
        "pretrained", LiveLLM, UNLOCK["adapters+layernorm"], nn.Linear, nn.Linear, info_nce
    ),
    "llm2clip": Method("pretrained", RawVectors, VISUAL, linear, adaptor, info_nce, image_rate=0.1),
}


class TwoTower(nn.Module):
    """Image tower and head, text tower and head, and a scale: every row of METHODS is this model.

    cfg has train.Config's fields; fitted is what the row's text tower learned from the training captions.
    """

    def __init__(self, cfg, fitted):
        super().__init__()
        row = METHODS[cfg.method]
        trains = UNLOCK[cfg.unlock] if cfg.unlock else row.trains
        visual = image_tower(
            cfg
        )  # first: with one seed, rows that train it from scratch begin with the same weights
        text = row.text(cfg, *fitted)
        embed_dim = (
            visual.width
            if row.image_head is none
            else text.width
            if row.text_head is none
            else cfg.embed_dim
        )
        self.visual, self.image_head = visual, row.image_head(visual.width, embed_dim)
        self.text, self.text_head = text, row.text_head(text.width, embed_dim)
        init_linears(self.image_head)
        init_linears(self.text_head)
        if "adapter" in trains:
            for block in [m for m in self.modules() if hasattr(m, "adapter1")]:
                width = next(block.parameters()).shape[-1]  # of its first norm
                block.adapter1, block.adapter2 = Adapter(width), Adapter(width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(re.match(trains, name) is not None)

    def train(self, mode=True):
        """Like nn.Module.train, but a part without a trainable parameter stays in eval mode."""
        super().train(mode)
        for part in self.children():
            part.train(mode and any(p.requires_grad for p in part.parameters()))
        return self

    def encode_image(self, images, normalize=False):
        """images (B, 3, S, S), normalised by `transform`, or (B, width), what a frozen tower made of them -> (B, D)"""
        features = self.image_head(images if images.ndim == 2 else self.visual(images))
        return F.normalize(features.float(), dim=-1) if normalize else features

    def encode_text(self, texts, normalize=False):
        """texts, as `tokenize` returns them (ids, or vectors of the frozen LLM) -> (B, D)"""
        features = self.text_head(self.text(texts))
        return F.normalize(features.float(), dim=-1) if normalize else features

    def forward(self, images, texts):
        return {
            "image_features": self.encode_image(images, normalize=True),
            "text_features": self.encode_text(texts, normalize=True),
            "logit_scale": self.logit_scale.exp(),
        }


def load(run, device="cpu"):
    """A trained run -> (model, transform, tokenize), with open_clip's names and CLIP_benchmark's contract.

    transform   PIL image -> (3, S, S) float32
    tokenize    list of texts -> tensor for model.encode_text

    run is a run folder, or a file that data.export wrote. BadInput where it is neither, or where the language model or the
    vectors that it was trained with are others now.
    """
    checkpoint = read_run(run)
    cfg, state = SimpleNamespace(**checkpoint["config"]), checkpoint["model"]
    row = METHODS[cfg.method]
    cfg.image_weights = ""  # they are in the checkpoint
    model = TwoTower(cfg, [state[f"text.{name}"] for name in row.text.fitted])
    model.load_state_dict(state)
    tokenize = row.text.tokenizer(cfg, device)
    if tokenize.fingerprint != checkpoint["text_fingerprint"]:
        raise BadInput(
            f"{run} was trained with another language model than {cfg.text_features or cfg.llm or 'the default one'} "
            "is now; bring that one back"
        )
    if (
        cfg.image_features
        and OutsideVectors(cfg.image_features).fingerprint != checkpoint["image_fingerprint"]
    ):
        raise BadInput(
            f"{run} was trained with other vectors than {cfg.image_features} has now; bring those back"
        )
    return (
        model.to(device).eval(),
        lambda image: pixels.normalize_pixels(
            torch.from_numpy(pixels.to_square(image, cfg.image_size))[None]
        )[0],
        tokenize,
    )
