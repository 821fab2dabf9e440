"""What a training step costs, in floating-point operations, by method and caption length. Nothing is computed.

    python -m tests.flops > docs/results/flops.md

Counted by torch's FlopCounterMode on tensors without memory (device meta): matrix products and attention, forward and
backward, a pair of picture and caption; a multiply-add is two operations. An LLM that reads captions offline is given
apart: it reads each caption once, training reads each picture in every epoch.
"""

from types import SimpleNamespace

import torch
from torch.utils.flop_counter import FlopCounterMode

import lift
import llm_text

BATCH = 4
# name: ViT, image side, text transformer (width, depth, heads), its vocabulary, CLIP's shared dimension, the LLM vectors', tokens
SIZES = {
    "paper": ("B/16", 224, (512, 12, 8), 49408, 512, 4096, (77, 323)),
    "here": ("micro/8", 40, (64, 4, 2), 60, 128, 128, (18, 110)),
}
# Sizes of the LLMs: NV-Embed-v2 is a Mistral 7B; here SmolLM2 is read up to block 10 of 30.
LLMS = {
    "paper": dict(
        vocab=32000, width=4096, depth=32, heads=32, kv_heads=8, head_dim=128, mlp_width=14336
    ),
    "here": dict(
        vocab=49152, width=576, depth=10, heads=9, kv_heads=3, head_dim=64, mlp_width=1536
    ),
}


def step(method, size, tokens):
    """(operations of a training step a pair, trained parameters)"""
    name, side, (width, depth, heads), vocab, embed_dim, llm_width, _ = SIZES[size]
    cfg = SimpleNamespace(
        method=method,
        model=name,
        image_size=side,
        image_pool="tok" if method == "clip" else "avg",
        image_weights="",
        image_features="",
        unlock="",
        embed_dim=embed_dim,
        text_width=width,
        text_depth=depth,
        text_heads=heads,
        context_length=tokens,
    )
    with torch.device("meta"):
        fitted = (
            [torch.empty(vocab - 1, dtype=torch.int64)]
            if method == "clip"
            else [torch.empty(llm_width), torch.empty(llm_width, llm_width)]
        )
        model = lift.TwoTower(cfg, fitted).train()
        images, texts = (
            torch.empty(BATCH, 3, side, side),
            torch.zeros(BATCH, tokens, dtype=torch.int64),
        )
        counter = FlopCounterMode(display=False)
        with counter:
            model.encode_image(images).sum().backward()
            if method == "clip":  # (LIFT's vectors come from the cache)
                model.encode_text(texts).sum().backward()
    return counter.get_total_flops() / BATCH, sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )


def reading(size, tokens):
    """Operations of the LLM for one caption."""
    sizes = dict(
        eps=1e-5,
        rope_theta=1e4,
        rope_divisors=1.0,
        bidirectional=False,
        qkv_bias=False,
        o_bias=False,
        mlp_bias=False,
        qk_norm=False,
    )
    with torch.device("meta"):
        model = llm_text.Llama(SimpleNamespace(**LLMS[size], **sizes)).requires_grad_(False)
        model.inv_freq = model.inv_freq.to("meta")
        counter = FlopCounterMode(display=False)
        with counter:
            model(
                torch.zeros(1, tokens, dtype=torch.int64), torch.ones(1, tokens, dtype=torch.bool)
            )
    return counter.get_total_flops()


def main():
    print(
        "| sizes | caption tokens | CLIP, GFLOP a pair | LIFT, GFLOP a pair | LIFT against CLIP | trained, CLIP / LIFT | "
        "LLM, once a caption, GFLOP | passes until LIFT is cheaper |\n|---|---|---|---|---|---|---|---|"
    )
    for size in SIZES:
        for tokens in SIZES[size][-1]:
            (clip, n), (lifted, m) = (step(method, size, tokens) for method in ("clip", "lift"))
            read = reading(size, tokens)
            print(
                f"| {size} | {tokens} | {clip / 1e9:.3g} | {lifted / 1e9:.3g} | {lifted / clip - 1:+.1%} | {n / 1e6:.1f} M / "
                f"{m / 1e6:.1f} M | {read / 1e9:,.3g} | {read / (clip - lifted):.0f} |"
            )


if __name__ == "__main__":
    main()
