"""One two-tower model and a table: a row says what a paper trains, what it leaves frozen, which heads and which loss.

    CLIP  (Radford et al. 2021, arXiv 2103.00020)   both towers from scratch, one linear a side, InfoNCE
    LIFT  (Yang et al. 2025, arXiv 2506.04209)      text is the frozen LLM's vector, a 2-layer MLP on the image side

Losses, heads and the text towers come first, then the table (METHODS), the model (TwoTower), and `load`, which
brings back a trained run in three lines with open_clip's names:

    model, transform, tokenize = lift.load("runs/lift")
    image = model.encode_image(transform(Image.open("dog.jpg"))[None], normalize=True)
    text = model.encode_text(tokenize(["a dog", "a cat"]), normalize=True)
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from data import BadInput
from data.readers import to_square
from llm_text import CaptionCache, load_llm, whitening
from vit import Block, ViT, init_linears

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of OpenAI's CLIP, as in open_clip
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_LOGIT_SCALE = math.log(100)


# ---------------------------------------------------------------------------------------------------------------
# Losses: (image features (B, D), text features (B, D), both of unit length, scale (), duplicates) -> scalar.


def info_nce(image_features, text_features, logit_scale, duplicates=None):
    """Symmetric cross-entropy of every picture against all captions of the batch and the reverse. (CLIP, Fig. 3)

    logit_scale is 1 / temperature, already exponentiated. duplicates (B, B) bool, symmetric, marks pairs with the same
    caption or the same picture: true pairs by accident, so they are no negatives (its diagonal is ignored). Random
    features of dimension D begin near ln B + scale^2 / 2D. Computed in float32 also under autocast: at scale 100 the bfloat16
    grid of the logits is 0.5 wide.
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


# ---------------------------------------------------------------------------------------------------------------
# Heads: (width of the tower, shared dimension) -> module.


def identity(d_in, d_out):
    """No head: the tower's own space is the shared space."""
    return nn.Identity()


def linear(d_in, d_out):
    """CLIP's projection."""
    return nn.Linear(d_in, d_out, bias=False)


def mlp(d_in, d_out):
    """LIFT's head."""
    return nn.Sequential(nn.Linear(d_in, d_out), nn.GELU(), nn.Linear(d_out, d_out))


# ---------------------------------------------------------------------------------------------------------------
# Text towers. `tokenizer(cfg, device)` makes texts -> tensor (N, ...), which runs once, before training, on every
# distinct caption. `fit` makes the tower from those tensors of the training captions: what it learns from them,
# `fitted`, are buffers that the constructor takes and the checkpoint keeps.


class LLMVectors(nn.Module):
    """The text tower of LIFT: a caption is its cached LLM vector, centred and whitened. Nothing to train."""

    fitted = ("mean", "matrix")

    def __init__(self, cfg, mean, matrix):  # (llm_width,), (llm_width, width)
        super().__init__()
        self.width = matrix.shape[1]
        self.register_buffer("mean", mean)
        self.register_buffer("matrix", matrix)

    def forward(self, vectors):  # (B, llm_width)
        with torch.autocast(vectors.device.type, enabled=False):  # whitening enlarges what bfloat16 would round away
            return (vectors.float() - self.mean) @ self.matrix  # (B, width)

    @staticmethod
    def tokenizer(cfg, device):
        llm = load_llm(cfg.llm, device, getattr(torch, cfg.llm_dtype))
        return CaptionCache(llm, cfg.pool, cfg.layer or None, cfg.context_length)

    @classmethod
    def fit(cls, cfg, vectors):
        return cls(cfg, *whitening(vectors, cfg.whiten))


END, PAD = -1, -2  # beside the LLM's token ids; being in the training captions' ids, both get rows of their own


class TokenIds:
    """Texts -> (N, L) int64: the LLM's tokens, then END, then PAD. Only the LLM's tokenizer is used."""

    def __init__(self, cfg, device):
        self.llm, self.context_length = load_llm(cfg.llm), cfg.context_length
        self.fingerprint = self.llm.digest

    def __call__(self, texts):
        lists, cut = self.llm.token_lists(texts, max_length=self.context_length - 1)
        self.cut = sum(cut) / len(cut)
        return nn.utils.rnn.pad_sequence([torch.tensor(ids + [END]) for ids in lists], True, PAD)


class TextTransformer(nn.Module):
    """CLIP's text tower: a causal transformer, read at the end-of-text token.

    Its vocabulary is what the training captions use; any other token is one unknown word. Trained from scratch, the
    other 49,000 rows of a table would stay random anyway.
    """

    fitted = ("vocab",)
    tokenizer = TokenIds

    def __init__(self, cfg, vocab):  # (V,) int64, sorted
        super().__init__()
        self.width = cfg.text_width
        self.register_buffer("vocab", vocab)
        self.token_embedding = nn.Embedding(len(vocab) + 1, self.width)
        self.positional_embedding = nn.Parameter(torch.randn(1, cfg.context_length, self.width) * 0.01)
        self.blocks = nn.ModuleList(Block(self.width, cfg.text_heads) for _ in range(cfg.text_depth))
        self.ln_final = nn.LayerNorm(self.width)
        init_linears(self)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, ids):  # (B, L)
        row = torch.searchsorted(self.vocab, ids).clamp_max(len(self.vocab) - 1)
        row = torch.where(self.vocab[row] == ids, row, len(self.vocab))  # (B, L), the last row is the unknown word
        x = self.token_embedding(row) + self.positional_embedding[:, :ids.shape[1]]  # (B, L, D)
        for block in self.blocks:
            x = block(x, causal=True)
        end = (ids == END).int().argmax(1)  # (B,)
        return self.ln_final(x[torch.arange(len(x), device=x.device), end])  # (B, D)

    @classmethod
    def fit(cls, cfg, ids):
        return cls(cfg, ids.unique())


# ---------------------------------------------------------------------------------------------------------------
# The table.


@dataclass(frozen=True)
class Method:
    """One paper in one row. What `trains` does not match is frozen: no gradient, eval mode, not in the optimizer."""

    image: callable  # cfg -> image tower
    text: type  # class of the text tower
    trains: str  # regular expression, matched at the start of parameter names
    image_head: callable
    text_head: callable
    loss: callable


def scratch(cfg):
    """An image tower from scratch."""
    return ViT(cfg.model, cfg.image_size, cfg.image_pool)


METHODS = {
    "clip": Method(scratch, TextTransformer, r".*", linear, linear, info_nce),
    "lift": Method(scratch, LLMVectors, r"visual\.|image_head\.|logit_scale", mlp, identity, info_nce),
    "lift_cos": Method(scratch, LLMVectors, r"visual\.|image_head\.", mlp, identity, cosine_loss),
}


class TwoTower(nn.Module):
    """Image tower and head, text tower and head, and a scale: every row of METHODS is this model."""

    def __init__(self, method, visual, text, embed_dim):
        super().__init__()
        row = METHODS[method]
        if row.text_head is identity:  # then the text tower's space is the shared one
            embed_dim = text.width
        self.visual, self.image_head = visual, row.image_head(visual.width, embed_dim)
        self.text, self.text_head = text, row.text_head(text.width, embed_dim)
        init_linears(self.image_head)
        init_linears(self.text_head)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(re.match(row.trains, name) is not None)

    def train(self, mode=True):
        """Like nn.Module.train, but a part without a trainable parameter stays in eval mode."""
        super().train(mode)
        for part in (self.visual, self.text, self.image_head, self.text_head):
            part.train(mode and any(p.requires_grad for p in part.parameters()))
        return self

    def encode_image(self, images, normalize=False):
        """images (B, 3, S, S), normalised by `transform` -> (B, D)"""
        features = self.image_head(self.visual(images))
        return F.normalize(features.float(), dim=-1) if normalize else features

    def encode_text(self, texts, normalize=False):
        """texts, as `tokenize` returns them (ids, or vectors of the frozen LLM) -> (B, D)"""
        features = self.text_head(self.text(texts))
        return F.normalize(features.float(), dim=-1) if normalize else features

    def forward(self, images, texts):
        return {"image_features": self.encode_image(images, normalize=True),
                "text_features": self.encode_text(texts, normalize=True),
                "logit_scale": self.logit_scale.exp()}

    @torch.no_grad()
    def clamp_scale(self):
        """Keep the scale in [1, 100], after every step of the optimizer."""
        self.logit_scale.clamp_(0, MAX_LOGIT_SCALE)


def build(cfg, text):
    """The model of a configuration (train.Config's fields) around a text tower."""
    return TwoTower(cfg.method, METHODS[cfg.method].image(cfg), text, cfg.embed_dim)


def normalize_pixels(images):
    """uint8 (B, S, S, 3) -> float32 (B, 3, S, S), normalised; on the images' device."""
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


def read_checkpoint(run):
    """The checkpoint of a run folder as a dict: plain tensors, numbers and strings, so weights_only loads it."""
    path = Path(run) / "checkpoint.pt"
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; {run} is not the folder of a trained run") from None
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise BadInput(f"{path}: damaged or not a checkpoint ({type(error).__name__}); train again") from None
    if not {"config", "step", "model", "text_fingerprint"} <= set(checkpoint):
        raise BadInput(f"{path}: a checkpoint of another program; train.py writes those that are read here")
    return checkpoint


def load(run, device="cpu"):
    """A trained run -> (model, transform, tokenize), with open_clip's names and CLIP_benchmark's contract.

    transform   PIL image -> (3, S, S) float32
    tokenize    list of texts -> tensor for model.encode_text
    """
    checkpoint = read_checkpoint(run)
    cfg, state = SimpleNamespace(**checkpoint["config"]), checkpoint["model"]
    row = METHODS[cfg.method]
    model = build(cfg, row.text(cfg, *(state[f"text.{name}"] for name in row.text.fitted)))
    model.load_state_dict(state)
    tokenize = row.text.tokenizer(cfg, device)
    if tokenize.fingerprint != checkpoint["text_fingerprint"]:
        raise BadInput(f"{run} was trained with another language model than {cfg.llm or 'the default one'} is now; "
                       "bring that one back")
    return (model.to(device).eval(),
            lambda image: normalize_pixels(torch.from_numpy(to_square(image, cfg.image_size))[None])[0],
            tokenize)
