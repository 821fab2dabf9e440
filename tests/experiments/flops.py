"""What a training step costs in floating-point operations, by method and length of the caption.

    python -m tests.experiments.flops > docs/results/flops.md

Nothing is computed. torch's FlopCounterMode counts on tensors without memory (the device "meta"):
matrix products and attention, forward and backward, per pair of image and caption. A multiply-add
is two operations. The language model that reads captions beforehand is counted apart: it reads each
caption once, while training reads each image in every epoch.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

import lift
from data.files.llm import LlamaConfig
from llm_text import Llama

BATCH = 4


class Setting(NamedTuple):
    """Sizes of the two towers, and the lengths of captions to count for."""

    sizes: lift.Sizes
    vocab: int  # token ids that CLIP's text transformer knows
    llm_width: int  # of the vectors that LIFT gets
    tokens: tuple[int, ...]
    clip_pool: str = "avg"  # "tok": CLIP's image tower has a class token. LIFT's has none


SETTINGS = {
    "paper": Setting(
        lift.Sizes(
            model="B/16",
            image_size=224,
            embed_dim=512,
            text_width=512,
            text_depth=12,
            text_heads=8,
        ),
        vocab=49408,
        llm_width=4096,
        tokens=(77, 323),
        clip_pool="tok",
    ),
    # The demo: 119 words and parts of words, and vectors that are whitened to 256 directions.
    "here": Setting(lift.Sizes(), vocab=119, llm_width=256, tokens=(18, 110)),
}

# The paper's NV-Embed-v2 is a Mistral 7B. Here SmolLM2 is read up to block 10 of 30.
SAME = {
    "eps": 1e-5,
    "rope_theta": 1e4,
    "rope_divisors": 1.0,
    "qkv_bias": False,
    "o_bias": False,
    "mlp_bias": False,
    "qk_norm": False,
}
LLMS = {
    "paper": LlamaConfig(
        vocab=32000,
        width=4096,
        depth=32,
        heads=32,
        kv_heads=8,
        head_dim=128,
        mlp_width=14336,
        **SAME,
    ),
    "here": LlamaConfig(
        vocab=49152,
        width=576,
        depth=10,
        heads=9,
        kv_heads=3,
        head_dim=64,
        mlp_width=1536,
        **SAME,
    ),
}


def training_step(method: str, setting: Setting, tokens: int) -> tuple[float, int]:
    """(operations of a training step per pair, trained parameters), of "clip" or "lift"."""
    is_clip = method == "clip"
    pool = setting.clip_pool if is_clip else "avg"
    sizes = replace(setting.sizes, image_pool=pool, context_length=tokens)
    S = sizes.image_size
    with torch.device("meta"):
        if is_clip:
            fitted = [torch.empty(setting.vocab - 1, dtype=torch.int64)]
        else:
            fitted = [torch.empty(setting.llm_width), torch.empty(2 * [setting.llm_width])]
        model = lift.TwoTower(method, sizes, fitted).train()
        images = torch.empty(BATCH, 3, S, S)
        ids = torch.zeros(BATCH, tokens, dtype=torch.int64)
        counter = FlopCounterMode(display=False)
        with counter:
            model.encode_image(images).sum().backward()
            # LIFT's vectors come from the cache, and nothing on its text side is trained.
            if is_clip:
                model.encode_text(ids).sum().backward()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return counter.get_total_flops() / BATCH, trained


def reading(config: LlamaConfig, tokens: int) -> int:
    """Operations of the language model for one caption."""
    with torch.device("meta"):
        model = Llama(config).requires_grad_(False)
        model.inv_freq = model.inv_freq.to("meta")
        ids = torch.zeros(1, tokens, dtype=torch.int64)
        mask = torch.ones(1, tokens, dtype=torch.bool)
        counter = FlopCounterMode(display=False)
        with counter:
            model(ids, mask)
    return counter.get_total_flops()


def main() -> None:
    print(
        "| sizes | caption tokens | CLIP, GFLOP a pair | LIFT, GFLOP a pair | LIFT against CLIP "
        "| trained, CLIP / LIFT | LLM, once a caption, GFLOP | passes until LIFT is cheaper |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, setting in SETTINGS.items():
        for tokens in setting.tokens:
            clip, clip_trained = training_step("clip", setting, tokens)
            lifted, lift_trained = training_step("lift", setting, tokens)
            read_once = reading(LLMS[name], tokens)
            cells = [
                name,
                str(tokens),
                f"{clip / 1e9:.3g}",
                f"{lifted / 1e9:.3g}",
                f"{lifted / clip - 1:+.1%}",
                f"{clip_trained / 1e6:.1f} M / {lift_trained / 1e6:.1f} M",
                f"{read_once / 1e9:,.3g}",
                f"{read_once / (clip - lifted):.0f}",
            ]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
