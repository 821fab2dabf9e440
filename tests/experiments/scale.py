"""What LIFT costs at the size of its paper: hours, bytes, memory, and which part is full first.

    python -m tests.experiments.scale                    # the calculation: a minute
    python -m tests.experiments.scale --int8 runs/lift   # do vectors of 8 bits hold a run's scores?
    python -m tests.experiments.scale --rehearse FOLDER  # 1,000,000 captions here: rehearsal.py

The calculation prints the tables of docs/results/scale.md. Nothing in it was measured on a GPU. It
takes operations from flops.py, rates from the logs that `logged` names, the peaks of GPUS, and two
assumptions, which are flags: the share of its peak that a GPU reaches, and the network's speed. The
bytes of a batch and the seconds of its making are measured by the program itself.
"""

import argparse
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import eval as evaluation
import lift
from data.batches import Batches
from data.captions import DistinctCaptions
from data.common import BadInput, exit_status, parse_flags
from data.files.llm import LlamaConfig
from data.images.formats import Columns
from data.images.read import CaptionedImages, read_images
from tests.experiments import flops
from tests.experiments.rehearsal import rehearse

RESULTS = Path(__file__).parents[2] / "docs/results"


class GPU(NamedTuple):
    """Published numbers. The peak is that of dense matrix products in bfloat16."""

    tflops: float
    memory: int  # GB
    source: str


GPUS = {
    "H100 SXM": GPU(989, 80, "NVIDIA H100 data sheet, 1,979 with sparsity, halved"),
    "A100 80 GB": GPU(312, 80, "NVIDIA A100 data sheet"),
    "RTX 4090": GPU(165.2, 24, "NVIDIA Ada GPU architecture, appendix, sums in float32"),
    "L4": GPU(121, 24, "NVIDIA L4 data sheet, 242 with sparsity, halved"),
    "T4": GPU(65, 16, "NVIDIA T4 data sheet, float16; it has no bfloat16"),
}
REFERENCE = "A100 80 GB"


class Scale(NamedTuple):
    captions: float  # that the language model reads, once each
    passes: int  # of training, over all images

    @property
    def samples(self) -> float:
        return self.captions * self.passes


# LIFT's longest run: 426 million pairs, three passes, 1.28 billion samples, batches of 16,384. (Its
# official code, Yang et al. 2025, arXiv 2506.04209)
SCALES = {"12 M": Scale(12e6, 1), "400 M": Scale(400e6, 1), "LIFT": Scale(426e6, 3)}
BATCH = 16_384
PAPER = flops.SETTINGS["paper"]  # ViT-B/16 at 224 pixels, vectors of width 4096

# SmolLM2-135M whole, and as this project reads it by default; Llama 3.2 1B; Mistral 7B, on which
# the paper's NV-Embed-v2 is built.
LLMS = {
    "SmolLM2-135M, 10 blocks": flops.LLMS["here"],
    "SmolLM2-135M, all 30": replace(flops.LLMS["here"], depth=30),
    "Llama 3.2 1B": LlamaConfig(
        vocab=128256,
        width=2048,
        depth=16,
        heads=32,
        kv_heads=8,
        head_dim=64,
        mlp_width=8192,
        **flops.SAME,
    ),
    "Mistral 7B": flops.LLMS["paper"],
}
# A short caption, and the lengths at which LIFT cuts short and long ones.
TOKENS = (16, 77, 323)


# --------------------------------------------------------------------------------------------------
# Formulas.


def hours(operations: float, tflops: float, mfu: float) -> float:
    """Hours that one GPU takes for so many operations."""
    return operations / (tflops * 1e12 * mfu) / 3600


def reading(config: LlamaConfig, tokens: int) -> int:
    """Operations of a language model for one caption. All blocks cost the same: one is counted."""
    return config.depth * flops.reading(replace(config, depth=1), tokens)


def record_bytes(width: int) -> int:
    """Bytes of a caption in the cache: key and flag, and the vector in float16."""
    return 16 + 2 * width


def exchanged_bytes(n_processes: int, n_trained: float, batch: int, width: int) -> float:
    """What each process sends in a step: gradients in float32, and the features of a batch.

    A sum over P processes in a ring sends every number twice, but for the share 1 / P that is there
    already. Gathering sends it once. Features of images and of captions are gathered, in float32.
    """
    share = (n_processes - 1) / n_processes
    return share * (2 * 4 * n_trained + 2 * 4 * batch * width)


def loss_operations(batch: int, width: int) -> float:
    """Operations of InfoNCE, which every process computes whole: one product, two for gradients."""
    return 3 * 2 * batch**2 * width


def fixed_bytes(n_trained: float, batch: int, width: int, saved_per_pair: float) -> float:
    """Bytes on every GPU that more processes do not make fewer.

    Weights, gradients and AdamW's two moments, 4 bytes each. Features of all images and captions,
    with gradients. What the loss keeps for each of the B^2 pairs.
    """
    return 16 * n_trained + 4 * 4 * batch * width + saved_per_pair * batch**2


def logged(name: str, pattern: str) -> float:
    """A number in a log of docs/results."""
    found = re.search(pattern, (RESULTS / name).read_text())
    if not found:
        raise BadInput(f"docs/results/{name} has no line like {pattern!r}")
    return float(found[1].replace(",", ""))


def rates() -> dict[str, float]:
    """What was measured here, on 2 cores, with the logs that say so."""
    return {
        "captions of the demo": logged("demo.log", r"(\d+) distinct captions"),
        "seconds for them": logged("demo.log", r"\| reading captions, s \| (\d+) \|"),
        "images of the demo, a second": logged("demo.log", r"\| images per second \| (\d+) \|"),
        "JPEG files decoded, a second": logged("data.md", r"\| csv and JPEG.*\| (\d+) \|"),
        "kB of a JPEG file": logged("data.md", r"\(mean (\d+) kB\)"),
        "images from a pack, a second": logged("data.md", r"\| packed, .*\| (\d+) \|"),
        "GB for a million captions": logged("data.md", r"\| a pack of as many.*?\| ([\d.]+) \|"),
    }


# --------------------------------------------------------------------------------------------------
# Measured by the program.


def saved_bytes(compute) -> int:
    """Bytes that autograd keeps for the backward pass of compute(). What is kept twice counts once.

    Parameters do not count: they are there anyway.
    """
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = compute()  # must live while the storages are counted: addresses are used again
    del kept
    return sum(storages.values())


def bytes_per_image(sizes: lift.Sizes, llm_width: int, bf16: bool) -> float:
    """Activations of LIFT's image side for one image: the difference between 4 images and 2."""
    fitted = [torch.zeros(llm_width), torch.eye(llm_width)]
    model = lift.TwoTower("lift", sizes, fitted).train()
    counts = []
    for n in (2, 4):
        images = torch.zeros(n, 3, sizes.image_size, sizes.image_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            counts.append(saved_bytes(lambda images=images: model.encode_image(images)))
    return (counts[1] - counts[0]) / 2


def bytes_per_pair(batch: int = 512) -> float:
    """What info_nce keeps for each of the B^2 pairs of a batch."""
    image = F.normalize(torch.randn(batch, 8), dim=-1).requires_grad_()
    text = F.normalize(torch.randn(batch, 8), dim=-1)
    duplicates = torch.eye(batch, dtype=torch.bool)
    kept = saved_bytes(lambda: lift.info_nce(image, text, torch.tensor(14.0), duplicates))
    return kept / batch**2


def seconds_per_batch(batch: int) -> float:
    """How long one core takes to draw a batch and to find its duplicates, without the images."""
    captions = [[f"caption {i}"] for i in range(batch)]
    digests = np.arange(batch, dtype=np.uint64)
    names = [str(i) for i in range(batch)]
    images = CaptionedImages(np.empty(0), np.arange(batch), captions, names, digests)
    texts = DistinctCaptions(captions)
    batches = Batches(
        images,
        texts,
        torch.zeros(len(texts), 1),
        lambda indices, step, rows: torch.zeros(len(indices), 1),
        batch_size=batch,
        seed=0,
        long_share=None,
        device=torch.device("cpu"),
    )
    batches(0)  # draws the epoch
    seconds = []
    for _ in range(3):
        begun = time.process_time()  # what others do on the machine does not count
        batches(0)
        seconds.append(time.process_time() - begun)
    return min(seconds)


# --------------------------------------------------------------------------------------------------
# The tables.


def table(header: list[str], rows: list[list[str]]) -> None:
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


def short(number: float) -> str:
    """Three digits at least, and no more than that behind a point: 1,024; 33.1; 0.27."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def size(n_bytes: float) -> str:
    return f"{n_bytes / 1e12:.2f} TB" if n_bytes >= 1e12 else f"{short(n_bytes / 1e9)} GB"


def calculate(mfu: float, network: float) -> None:
    """Print all tables. mfu: share of the peak; network: GB/s of a process."""
    torch.set_num_threads(1)
    measured = rates()
    peak = GPUS[REFERENCE].tflops
    per_sample, n_trained = flops.training_step("lift", PAPER, 77)
    operations = {
        name: [reading(config, tokens) for tokens in TOKENS] for name, config in LLMS.items()
    }
    width = PAPER.llm_width

    print("## What was measured here\n")
    table(["on 2 cores", "number"], [[what, short(rate)] for what, rate in measured.items()])
    # The demo's own operations a second stand in for a peak and a utilisation.
    demo_step, _ = flops.training_step("lift", flops.SETTINGS["here"], 18)
    step_rate = measured["images of the demo, a second"] * demo_step
    read_once = reading(LLMS["SmolLM2-135M, 10 blocks"], 18)
    read_rate = measured["captions of the demo"] / measured["seconds for them"] * read_once
    print(
        f"So 2 cores did {read_rate / 1e9:.0f} GFLOP/s in reading (captions of 18 tokens, "
        f"{read_once / 1e9:.2f} GFLOP each)\nand {step_rate / 1e9:.0f} GFLOP/s in training "
        f"({demo_step / 1e9:.3f} GFLOP an image).\n"
    )

    print(f"## Reading: hours of one {REFERENCE} for a million captions\n")
    header = ["language model", *(f"{tokens} tokens" for tokens in TOKENS)]
    rows = []
    for name, counts in operations.items():
        rows.append([name, *(short(hours(1e6 * n, peak, mfu)) for n in counts)])
    table(header, rows)

    print(f"## Reading: hours of one {REFERENCE}, captions of 77 tokens\n")
    header = ["language model", *SCALES, "LIFT, on 2 cores here"]
    rows = []
    for name, (_, n, _) in operations.items():
        cells = [short(hours(scale.captions * n, peak, mfu)) for scale in SCALES.values()]
        years = SCALES["LIFT"].captions * n / read_rate / 3600 / 24 / 365
        rows.append([name, *cells, f"{short(years)} years"])
    table(header, rows)

    print("## Bytes of the captions' vectors, float16\n")
    rows = []
    for name, config in LLMS.items():
        if name == "SmolLM2-135M, 10 blocks":
            continue  # the same as all 30
        one = record_bytes(config.width)
        cells = [size(one * scale.captions) for scale in SCALES.values()]
        rows.append([name, f"{one:,}", *cells])
    table(["language model", "bytes of one", *SCALES], rows)

    print(f"## Training ViT-B/16 at 224 pixels: hours of one GPU, {mfu:.0%} of its peak\n")
    rows = []
    for name, gpu in GPUS.items():
        cells = [short(hours(s.samples * per_sample, gpu.tflops, mfu)) for s in SCALES.values()]
        rows.append([f"{name}, {gpu.tflops:g} TFLOP/s", *cells])
    years = [scale.samples * per_sample / step_rate / 3600 / 24 / 365 for scale in SCALES.values()]
    rows.append(["2 cores here, by the demo's rate", *(f"{short(y)} years" for y in years)])
    table(["GPU", *SCALES], rows)
    for tokens in TOKENS[1:]:
        clip_sample, _ = flops.training_step("clip", PAPER, tokens)
        clip_hours = hours(SCALES["LIFT"].samples * clip_sample, peak, mfu)
        print(
            f"CLIP with captions of {tokens} tokens, {SCALES['LIFT'].samples / 1e9:.2f} billion "
            f"samples: {clip_hours:,.0f} hours of one {REFERENCE}."
        )
    print()

    print("## What a GPU wants to be given in a second\n")
    rows = []
    for name, gpu in GPUS.items():
        images = gpu.tflops * 1e12 * mfu / per_sample
        jpeg = images * measured["kB of a JPEG file"] / 1e3
        pixels = images * 224 * 224 * 3 / 1e6
        to_decode = images / (measured["JPEG files decoded, a second"] / 2)
        rows.append([name, short(images), short(jpeg), short(pixels), short(to_decode)])
    table(["GPU", "images", "MB of JPEG", "MB of pixels", "cores that decode"], rows)

    print("## Memory of a batch\n")
    per_image = {bf16: bytes_per_image(PAPER.sizes, width, bf16) for bf16 in (False, True)}
    per_pair = bytes_per_pair()
    fixed = fixed_bytes(n_trained, BATCH, width, per_pair)
    # What pieces.md measured: half a batch of 2,048 less is the difference between K = 1 and K = 2.
    small = lift.Sizes(model="Ti/16", image_size=64)
    whole, halves = (logged("pieces.md", rf"2048 \| {k} \| ([\d.]+) \|") for k in (1, 2))
    print(
        f"Activations of an image: {per_image[False] / 1e6:.0f} MB in float32, "
        f"{per_image[True] / 1e6:.0f} MB under bf16 autocast. Weights, gradients and\nmoments: "
        f"{16 * n_trained / 1e9:.2f} GB. The loss keeps {per_pair:.0f} bytes for each pair, "
        f"{per_pair * BATCH**2 / 1e9:.1f} GB at {BATCH:,}. What does not\nshrink with the pieces: "
        f"{fixed / 1e9:.1f} GB.\nThe same count for Ti/16 at 64 pixels, without the text tower: "
        f"{bytes_per_image(small, 128, False) * 1024 / 1e9:.1f} GB for 1,024 images. pieces.md\n"
        f"measured {whole - halves:.1f} GB with it.\n"
    )
    rows = []
    for name, gpu in GPUS.items():
        fits = int(max(0.0, (0.9 * gpu.memory * 1e9 - fixed) / per_image[True]))
        pieces = f"{np.ceil(BATCH / 8 / fits):.0f}" if fits else "does not fit"
        rows.append([f"{name}, {gpu.memory} GB", f"{fits:,}", pieces])
    table(["GPU", "images at a time", f"--accum-freq, 8 GPUs, {BATCH:,}"], rows)

    print(f"## A step of {BATCH:,} images, in seconds, by the number of {REFERENCE}s\n")
    in_python = seconds_per_batch(BATCH)
    # In TF32, as train.py asks for: half of the peak.
    loss_seconds = hours(loss_operations(BATCH, width), peak / 2, mfu) * 3600
    rows = []
    for n in (1, 8, 32, 64, 256):
        towers = hours(BATCH * per_sample / n, peak, mfu) * 3600
        sent = exchanged_bytes(n, n_trained, BATCH, width) / (network * 1e9)
        rows.append([str(n), *(f"{s:.2f}" for s in (towers, loss_seconds, in_python, sent))])
    table(["GPUs", "towers", "whole loss", "batch in Python", "exchange"], rows)

    print("## On one machine with 8 processes, vectors of Mistral 7B\n")
    rows = []
    for name, scale in SCALES.items():
        one = measured["GB for a million captions"] * 1e3 * scale.captions
        vectors = record_bytes(width) * scale.captions
        pixels = 224 * 224 * 3 * scale.captions
        rows.append([name, size(one), size(8 * one), size(vectors), size(pixels)])
    header = ["scale", "lists, 1 process", "8 processes", "vectors, a file", "pixels, a file"]
    table(header, rows)


# --------------------------------------------------------------------------------------------------
# Vectors of 8 bits.


def to_int8_and_back(vectors: Tensor) -> Tensor:
    """(N, D) -> the same, rounded to 255 steps between minus and plus a vector's largest number."""
    step = vectors.abs().amax(1, keepdim=True) / 127
    return (vectors / step).round() * step


def int8(folder: str) -> None:
    """Print R@1 of a LIFT run on its test images, with captions' vectors rounded in three ways."""
    tested = evaluation.Run(folder)
    if tested.config["method"] != "lift":
        raise BadInput(f"{folder} is no run of --method lift; its captions are no vectors")
    columns = Columns(csv_caption_key=tested.config["csv_caption_key"])
    images = read_images(tested.config["data"], "test", tested.config["image_size"], columns)
    features = tested.encode_images(images)
    texts = [captions[0] for captions in images.captions]
    ids = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    caption_ids = torch.tensor([ids[text] for text in texts])
    stored = tested.tokenize(texts).float()  # (N, D), float16 on the disk
    mean, matrix = tested.model.text.mean, tested.model.text.matrix
    whitened = (stored - mean) @ matrix
    rows = []
    for what, vectors in (
        ("float16", stored),
        ("int8", to_int8_and_back(stored)),
        ("int8, the mean subtracted before", to_int8_and_back(stored - mean) + mean),
    ):
        after = (vectors - mean) @ matrix
        cosines = F.cosine_similarity(after, whitened, dim=-1)
        scores = evaluation.retrieval_scores(
            "", features, F.normalize(after, dim=-1), torch.arange(len(texts)), caption_ids
        )
        raw = F.cosine_similarity(vectors, stored, dim=-1)
        r1 = [f"{100 * scores[f' {way} R@1'].value:.1f}" for way in ("i2t", "t2i")]
        cells = [f"{raw.min():.5f}", f"{cosines.mean():.4f}, {cosines.min():.4f}"]
        rows.append([what, *cells, *r1])
    table(["vectors", "least cosine", "whitened: mean, least", "i2t R@1", "t2i R@1"], rows)


# --------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--mfu", type=float, default=0.4, help="share of its peak that a GPU reaches (%(default)s)")
    add("--network", type=float, default=12.5, help="GB/s of each process (%(default)s)")
    add("--int8", metavar="RUN", help="a run of --method lift, to test with rounded vectors")
    add("--rehearse", metavar="FOLDER", type=Path, help="an empty folder for some GB")
    add("--captions", type=int, default=1_000_000, help="of the rehearsal (%(default)s)")
    args = parse_flags(parser)
    if not 0 < args.mfu <= 1 or args.network <= 0 or args.captions < 3000:
        raise BadInput("--mfu lies between 0 and 1, --network above 0, --captions from 3000 on")
    if args.int8:
        int8(args.int8)
    elif args.rehearse:
        rehearse(args.rehearse, args.captions)
    else:
        calculate(args.mfu, args.network)


if __name__ == "__main__":
    sys.exit(exit_status(main))
