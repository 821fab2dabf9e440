"""How fast this project is beside what people would use in its place. Writes docs/results/bench.md.

    pip install -r requirements-bench.txt
    python -m tests.experiments.bench                      # everything: most of an hour on 2 cores
    python -m tests.experiments.bench --rows clip,vit      # some of it; printed, and not written
    python -m tests.experiments.bench --device cuda        # LIFT's and CLIP's step on a GPU

A row is a piece of work that this project and a peer both do: on the same inputs and, where it can
be, with the same weights. Then the two results are compared first, and they must be equal.

Time: both sides are built in one process and take turns: ours, theirs, ours, theirs. The first turn
of each does not count. The ratio is the peer's median time divided by ours, so above 1 we are
faster. The smallest and the largest ratio of two turns that follow each other stand beside it.

Memory: each side is built in a process of its own, which then does the work twice. What counts is
the largest private memory during that work, with weights and inputs, minus the memory of the
process at its start. The processes are copies (forks) of this one, which has imported everything.

Letters of shapes: B images or captions in a batch, L tokens, D the length of a feature.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eval as evaluation
import lift
import llm_text
import train
from data.batches import Crops
from data.captions import DistinctCaptions, TokenIds
from data.common import BadInput, chunks, exit_status, parse_flags, pick_device, pick_dtype
from data.files.llm import read_llm
from data.images.formats import Columns
from data.images.pack import pack
from data.images.pixels import PIXEL_NORMS
from data.images.read import captions_of, read_images
from tests.experiments.bench_data import random_captions, write_photos
from tests.experiments.flops import Setting, training_step
from vit import SIZES, ViT

RESULTS = Path(__file__).parents[2] / "docs/results"

# What a peer's package is called when it is imported and when it is installed.
PEERS = {
    "open_clip": "open_clip_torch",
    "timm": "timm",
    "transformers": "transformers",
    "webdataset": "webdataset",
    "torchvision": "torchvision",
    "clip_benchmark": "clip-benchmark",
}

# One side's work: building it (models, inputs) gives a function that does the work once.
Work = Callable[[], object]
Build = Callable[[], Work]


class Row(NamedTuple):
    """A piece of work that both sides do."""

    work: str  # in words
    count: int  # how many things one turn does
    unit: str  # what they are: "images"
    peer: str
    ours: Build
    theirs: Build
    aim: str  # the ratio that we want
    tolerance: float | None = None  # largest relative difference of the results; None: not compared


class Growth(NamedTuple):
    """A piece of work of several sizes, of ours alone."""

    work: str
    sizes: tuple[int, ...]
    build: Callable[[int], Work]


class Tower(NamedTuple):
    """An image tower, its images, and CLIP's text tower beside it, which has the same width."""

    model: str  # a key of vit.SIZES
    image_size: int
    batch: int
    text_depth: int = 12
    tokens: int = 77  # of each caption, the end included
    context: int = 77  # tokens at most; open_clip pads each caption to so many
    vocab: int = 49408  # of CLIP's tokenizer, the end included

    @property
    def name(self) -> str:
        return f"{self.model}, {self.image_size} pixels"

    def sizes(self, method: str) -> lift.Sizes:
        """The sizes of both towers, as train.py takes them: CLIP's own image tower, with one norm
        more. CLIP reads its class token, LIFT the mean."""
        _, width, _, heads = SIZES[self.model]
        return lift.Sizes(
            model=f"{self.model}-clip",
            image_size=self.image_size,
            image_pool="tok" if method == "clip" else "avg",
            embed_dim=width,
            text_width=width,
            text_depth=self.text_depth,
            text_heads=heads,
            context_length=self.context,
        )


class Scale(NamedTuple):
    """How large all pieces of work are."""

    towers: tuple[Tower, ...]
    short: int  # tokens of short captions
    captions: int
    llm: Path | None  # None: the default one
    photos: int
    images: int  # of retrieval; each has five captions
    thousands: tuple[int, ...]  # captions, gallery
    texts_read: tuple[int, ...]  # by the language model
    image_sizes: tuple[int, ...]
    batches: tuple[int, ...]


FULL = Scale(
    towers=(Tower("Ti/16", 64, 64), Tower("S/16", 224, 8)),
    short=30,
    captions=800,
    llm=None,
    photos=600,
    images=5000,
    thousands=(1_000, 10_000, 100_000),
    texts_read=(256, 1024, 4096),
    image_sizes=(32, 64, 128, 224),
    batches=(16, 64, 256),
)


# --------------------------------------------------------------------------------------------------
# Measuring.


class Measured(NamedTuple):
    """What was measured of a row. Times are seconds, one per round; memory is in bytes."""

    row: Row
    our_times: list[float]
    their_times: list[float]
    our_memory: int
    their_memory: int

    @property
    def ratio(self) -> float:
        return statistics.median(self.their_times) / statistics.median(self.our_times)

    @property
    def ratios(self) -> list[float]:
        pairs = zip(self.our_times, self.their_times, strict=True)
        return [theirs / ours for ours, theirs in pairs]


def in_a_process(work: Callable[[], object]) -> object:
    """The result of work(), from a copy (fork) of this process, which ends then.

    BadInput that work() raises is raised here, and also where the process dies.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def send():
        try:
            sender.send(work())
        except BadInput as error:
            sender.send(error)

    process = context.Process(target=send)
    process.start()
    sender.close()  # so that recv() ends where the process dies
    try:
        result = receiver.recv()
    except EOFError:
        raise BadInput("a measurement failed; its error stands above") from None
    finally:
        process.join()
    if isinstance(result, BadInput):
        raise result
    return result


def take_turns(row: Row, rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    """Times of both sides: at least so many rounds, and as many as fit into so many seconds."""
    ours, theirs = row.ours(), row.theirs()
    check_equal(row, ours(), theirs())
    times = [], []
    begun = time.perf_counter()
    while len(times[0]) < rounds or time.perf_counter() - begun < seconds:
        for work, times_of_side in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            work()
            times_of_side.append(time.perf_counter() - start)
    return times


def check_equal(row: Row, ours: object, theirs: object) -> None:
    """BadInput where the two sides did not do the same work."""
    if row.tolerance is None:
        return
    ours, theirs = torch.as_tensor(ours).double(), torch.as_tensor(theirs).double()
    difference = float((ours - theirs).norm() / theirs.norm())
    if not difference <= row.tolerance:
        raise BadInput(f"{row.work}: our result and {row.peer}'s differ by {difference:.1e}")


def private_memory() -> int:
    """Bytes that this process holds for itself, with those of its worker processes.

    Pages of files do not count. Of a worker only what it does not share with this process does.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    kilobytes = sum(int(status[name].split()[0]) for name in ("RssAnon", "RssShmem"))
    for children in Path("/proc/self/task").glob("*/children"):
        try:
            for child in children.read_text().split():
                rollup = Path(f"/proc/{child}/smaps_rollup").read_text()
                found = re.search(r"Private_Dirty: *(\d+)", rollup)
                kilobytes += int(found[1])
        except OSError:  # a thread or a worker that has just ended
            continue
    return 1024 * kilobytes


def peak_memory(build: Build) -> int:
    """The largest private memory while the work is done twice, minus that of now."""
    before = private_memory()
    work = build()
    peak = 0
    is_over = threading.Event()

    def watch():
        nonlocal peak
        while not is_over.wait(0.005):
            peak = max(peak, private_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(2):
        work()
    is_over.set()
    watcher.join()
    return max(peak - before, private_memory() - before, 4096)  # a page at least


def measure(row: Row, rounds: int, seconds: float) -> Measured:
    times = in_a_process(lambda: take_turns(row, rounds, seconds))
    our_memory = in_a_process(lambda: peak_memory(row.ours))
    their_memory = in_a_process(lambda: peak_memory(row.theirs))
    return Measured(row, *times, our_memory, their_memory)


class Grown(NamedTuple):
    """What was measured of a growth, for each size: seconds, and bytes of memory."""

    growth: Growth
    times: list[float]
    memory: list[int]


def measure_growth(growth: Growth) -> Grown:
    def time_of(size: int) -> float:
        work = growth.build(size)
        work()
        times = []
        for _ in range(3):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def memory_of(size: int) -> int:
        return peak_memory(lambda: growth.build(size))

    times = [in_a_process(partial(time_of, size)) for size in growth.sizes]
    memory = [in_a_process(partial(memory_of, size)) for size in growth.sizes]
    return Grown(growth, times, memory)


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The b of value = a size^b, by least squares of the logarithms.

    >>> round(exponent([1, 10, 100], [5, 50, 500]), 6)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


# --------------------------------------------------------------------------------------------------
# Training steps of CLIP and LIFT.


def fitted_for(method: str, tower: Tower) -> list[Tensor]:
    """What the text tower would have been fitted to: CLIP's vocabulary, or LIFT's whitening."""
    if method == "clip":
        # END (-1), all tokens but the two that CLIP keeps for itself; one row more is "unknown".
        return [torch.arange(-1, tower.vocab - 2)]
    return [torch.zeros(576), torch.randn(576, 256)]


def inputs_for(method: str, tower: Tower) -> tuple[Tensor, Tensor]:
    """Random images (B, 3, S, S), and token ids (B, L) with END at the end or vectors (B, 576)."""
    generator = torch.Generator().manual_seed(1)
    S, B, L = tower.image_size, tower.batch, tower.tokens
    images = torch.randn(B, 3, S, S, generator=generator)
    if method == "lift":
        return images, torch.randn(B, 576, generator=generator)
    ids = torch.randint(0, tower.vocab - 2, (B, L), generator=generator)
    ids[:, -1] = -1
    return images, ids


def our_model(method: str, tower: Tower) -> lift.TwoTower:
    torch.manual_seed(0)
    model = lift.TwoTower(method, tower.sizes(method), fitted_for(method, tower)).train()
    if method == "clip":
        # open_clip's. Ours is 1e-6, which makes a difference where the vectors are small.
        for block in model.text.blocks:
            block.norm1.eps = block.norm2.eps = 1e-5
    return model


def our_step(method: str, tower: Tower, device: str = "cpu", clips: bool = True) -> Work:
    """The training step of train.py, with its defaults on this device. It returns the loss.

    clips  the gradient's norm, as train.py does by default
    """
    on_gpu = device == "cuda"
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    model = our_model(method, tower).to(device)
    optimizer = train.make_optimizer(train.Config(method=method, lr=1e-4), model)
    if on_gpu:
        model.compile()
    images, texts = (x.to(device) for x in inputs_for(method, tower))
    duplicates = torch.eye(tower.batch, dtype=torch.bool, device=device)
    loss_of = lift.METHODS[method].loss

    def step():
        with torch.autocast(device, torch.bfloat16, enabled=on_gpu):
            features = model(images, texts)
        loss = loss_of(**features, duplicates=duplicates)
        loss.backward()
        if clips:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        model.logit_scale.data.clamp_(0, np.log(100))
        return loss.item()

    return step


# Our names of parameters -> open_clip's. What is not named here has the same name in both.
OPEN_CLIP_NAMES = (
    ("visual.blocks.", "visual.transformer.resblocks."),
    ("visual.norm_pre.", "visual.ln_pre."),
    ("visual.norm.", "visual.ln_post."),
    ("text.blocks.", "transformer.resblocks."),
    ("text.", ""),
    (".attn.qkv.", ".attn.in_proj_"),
    (".attn.proj.", ".attn.out_proj."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".norm1.", ".ln_1."),
    (".norm2.", ".ln_2."),
)


def as_open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of our CLIP, as open_clip names and shapes them."""
    state = dict(state)
    del state["text.vocab"]
    kernel = state.pop("visual.patch_embed.proj.weight")  # (width, 3 p p)
    # open_clip's patches have no bias. Ours starts at zero.
    assert not state.pop("visual.patch_embed.proj.bias").any()
    p = round((kernel.shape[1] / 3) ** 0.5)
    # Row 0 of our table is END, which is the last token of open_clip's.
    table = state.pop("text.token_embedding.weight")
    out = {
        "visual.conv1.weight": kernel.view(-1, 3, p, p),
        "visual.class_embedding": state.pop("visual.cls_token")[0, 0],
        "visual.positional_embedding": state.pop("visual.pos_embed")[0],
        "visual.proj": state.pop("image_head.weight").T,
        "positional_embedding": state.pop("text.positional_embedding")[0],
        "token_embedding.weight": table.roll(-1, 0),
        "text_projection": state.pop("text_head.weight").T,
    }
    for name, weight in state.items():
        for ours, theirs in OPEN_CLIP_NAMES:
            name = name.replace(ours, theirs, 1)
        out[name] = weight
    return out


def open_clip_model(tower: Tower) -> nn.Module:
    """open_clip's CLIP of the same sizes, with the weights of ours."""
    import open_clip

    sizes = tower.sizes("clip")
    patch, width, depth, heads = SIZES[tower.model]
    model = open_clip.CLIP(
        embed_dim=sizes.embed_dim,
        vision_cfg={
            "image_size": tower.image_size,
            "layers": depth,
            "width": width,
            "head_width": width // heads,
            "patch_size": patch,
        },
        text_cfg={
            "context_length": tower.context,
            "vocab_size": tower.vocab,
            "width": sizes.text_width,
            "heads": sizes.text_heads,
            "layers": sizes.text_depth,
        },
        output_dict=True,
    )
    model.load_state_dict(as_open_clip(our_model("clip", tower).state_dict()))
    return model.train()


def open_clip_step(tower: Tower) -> Work:
    """The training step of open_clip_train, with its groups of AdamW. It returns the loss."""
    import open_clip

    model = open_clip_model(tower)
    no_decay = [
        p for name, p in model.named_parameters() if p.ndim < 2 or "bias" in name or "ln" in name
    ]
    rest = [p for p in model.parameters() if not any(p is other for other in no_decay)]
    optimizer = torch.optim.AdamW(
        [{"params": no_decay, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.2}],
        lr=1e-4,
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    loss_of = open_clip.ClipLoss()
    images, ids = inputs_for("clip", tower)
    ids[:, -1] = tower.vocab - 1  # its END
    ids = F.pad(ids, (0, tower.context - tower.tokens))

    def step():
        optimizer.zero_grad()
        losses = loss_of(**model(images, ids), output_dict=True)
        loss = sum(losses.values())
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        return loss.item()

    return step


def clip_rows(scale: Scale, folder: Path) -> list[Row]:
    """CLIP's training step beside open_clip's: same weights, images and tokens, AdamW.

    The captions have 77 tokens. In the last row they have 30. Then open_clip pads them to 77, and
    ours to the longest caption of the data. The loss is the same.
    """
    towers = [(tower.name, tower) for tower in scale.towers]
    short = scale.towers[0]._replace(tokens=scale.short)
    towers.append((f"{short.name}, {short.tokens} tokens", short))
    return [
        Row(
            f"CLIP step, {name}",
            tower.batch,
            "images",
            "open_clip",
            partial(our_step, "clip", tower),
            partial(open_clip_step, tower),
            "1.25",
            tolerance=1e-4,
        )
        for name, tower in towers
    ]


def operations(method: str, tower: Tower) -> float:
    """Floating-point operations of a training step, per image; see flops.py.

    They are counted in a process of its own, since a backward pass leaves threads behind, and a
    process with threads cannot be copied.
    """
    setting = Setting(tower.sizes(method), tower.vocab, 576, (), clip_pool="tok")
    return in_a_process(lambda: training_step(method, setting, tower.tokens)[0])


def lift_rows(scale: Scale, folder: Path) -> list[Row]:
    """LIFT's training step beside open_clip's CLIP step: same image tower, vectors for captions.

    The aim is what the operations say.
    """
    return [
        Row(
            f"LIFT step, {tower.name}",
            tower.batch,
            "images",
            "open_clip's CLIP",
            partial(our_step, "lift", tower),
            partial(open_clip_step, tower),
            f"{operations('clip', tower) / operations('lift', tower):.2f} (operations)",
        )
        for tower in scale.towers
    ]


# --------------------------------------------------------------------------------------------------
# Captions through the language model.


def caption_texts(count: int) -> list[str]:
    """Captions of the built-in world: of each scene five, in words of five kinds."""
    kind = Columns(csv_caption_key="paraphrase")
    captions = captions_of("shapes", "train", kind, num_samples=count)  # more than enough
    return list(dict.fromkeys(text for texts in captions for text in texts))[:count]


def our_reading(scale: Scale, dtype: torch.dtype) -> Work:
    """Texts to vectors, all blocks, mean of the tokens. Tokens are made anew in each turn."""
    llm = llm_text.load_llm(scale.llm, dtype=dtype)
    texts = caption_texts(scale.captions)
    return lambda: llm.encode(texts, "mean", llm.depth)


def transformers_reading(scale: Scale, dtype: torch.dtype, is_sorted: bool) -> Work:
    """The same through transformers: batches of 64, padded to the longest. Same weights.

    It gets our token ids, and does not spend time on them.
    """
    import transformers

    llm = llm_text.load_llm(scale.llm, dtype=dtype)
    config = llm.model.config
    reader = transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=config.vocab,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        )
    )
    reader.load_state_dict(llm.model.state_dict(), assign=True)
    reader.eval()
    lists, _ = llm.tokenizer.encode_all(caption_texts(scale.captions), llm.start)
    places = list(range(len(lists)))
    if is_sorted:
        places.sort(key=lambda i: len(lists[i]))

    @torch.no_grad()
    def work():
        out = torch.empty(len(lists), config.width)
        for batch in chunks(places, 64):
            rows = [torch.tensor(lists[i]) for i in batch]
            ids = nn.utils.rnn.pad_sequence(rows, True)  # (B, L)
            mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], True)
            states = reader(ids, attention_mask=mask, use_cache=False).last_hidden_state
            out[batch] = llm_text.mean_token(states, mask.bool())
        return out

    return work


def caption_rows(scale: Scale, folder: Path) -> list[Row]:
    """Captions through SmolLM2, all its blocks, beside transformers with the same weights."""
    llm_text.llm_path(scale.llm)  # fetched here, once
    rows = []
    for dtype, name, tolerance in (
        (torch.float32, "float32", 1e-3),
        (torch.bfloat16, "bfloat16", 0.1),
    ):
        for is_sorted, order, aim in ((False, "as they come", "4"), (True, "sorted", "1.6")):
            rows.append(
                Row(
                    f"captions, {name}; they: {order}",
                    scale.captions,
                    "captions",
                    "transformers",
                    partial(our_reading, scale, dtype),
                    partial(transformers_reading, scale, dtype, is_sorted),
                    aim,
                    tolerance,
                )
            )
    return rows


# --------------------------------------------------------------------------------------------------
# The image tower.

TIMM_NAMES = {
    "Ti/16": "vit_tiny_patch16_224",
    "S/16": "vit_small_patch16_224",
    "B/16": "vit_base_patch16_224",
}


def our_vit(tower: Tower) -> nn.Module:
    torch.manual_seed(0)
    return ViT(tower.model, tower.image_size)


def timm_vit(tower: Tower) -> nn.Module:
    """timm's ViT of the same form, with the weights of ours."""
    import timm

    model = timm.create_model(
        TIMM_NAMES[tower.model],
        img_size=tower.image_size,
        num_classes=0,
        global_pool="avg",
        class_token=False,
        fc_norm=False,
    )
    state = our_vit(tower).state_dict()
    patch = SIZES[tower.model][0]
    kernel = state["patch_embed.proj.weight"].view(-1, 3, patch, patch)
    model.load_state_dict(state | {"patch_embed.proj.weight": kernel})
    return model


def vit_forward(make: Callable[[Tower], nn.Module], tower: Tower) -> Work:
    images, _ = inputs_for("lift", tower)
    model = make(tower).eval()
    return torch.no_grad()(lambda: model(images))


def vit_step(make: Callable[[Tower], nn.Module], tower: Tower) -> Work:
    """A training step whose loss is the mean square of the vectors."""
    images, _ = inputs_for("lift", tower)
    model = make(tower).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step():
        loss = model(images).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def vit_rows(scale: Scale, folder: Path) -> list[Row]:
    """The image tower beside timm's, with the same weights."""
    return [
        Row(
            f"ViT {what}, {tower.name}",
            tower.batch,
            "images",
            "timm",
            partial(do, our_vit, tower),
            partial(do, timm_vit, tower),
            aim,
            tolerance=1e-4,
        )
        for what, do, aim in (("forward", vit_forward, "1.0"), ("step", vit_step, "1.1"))
        for tower in scale.towers
    ]


# --------------------------------------------------------------------------------------------------
# Images from the disk.

SIDE = 224


def our_packing(folder: Path) -> Work:
    """Decode all images of two shards, and write their pixels to the disk."""

    def work():
        shutil.rmtree(folder / "packed", ignore_errors=True)
        packed, _ = pack(f"{folder}/{{0,1}}/jpeg.tar", folder / "packed", SIDE)
        return len(packed.images)

    return work


def our_batches(folder: Path) -> Work:
    """One epoch from a pack, in batches of 256 in random order: float32, normalised."""
    our_packing(folder)()
    images = read_images(str(folder / "packed"), "train", SIDE, whole=True, train_on_val=True)
    crops = Crops(images, 1.0, 0, torch.device("cpu"))

    def work():
        order = np.random.default_rng(0).permutation(len(images))
        return sum(len(crops(which, 0)) for which in chunks(order, 256))

    return work


def webdataset_batches(folder: Path) -> Work:
    """One epoch of WebDataset's loader with 2 workers: float32, normalised, in batches of 64.

    The transform is what open_clip makes for validation: scaled, the centre, normalised.
    """
    import webdataset
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.Resize(SIDE, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIDE),
            transforms.ToTensor(),
            transforms.Normalize(*PIXEL_NORMS["clip"]),
        ]
    )
    dataset = (
        webdataset.WebDataset([f"{folder}/{i}/jpeg.tar" for i in range(2)], shardshuffle=False)
        .decode("pilrgb")
        .to_tuple("jpg", "txt")
        .map_tuple(transform, lambda text: text)
        .batched(64)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=2)
    return lambda: sum(len(images) for images, texts in loader)


def data_rows(scale: Scale, folder: Path) -> list[Row]:
    """JPEG images from shards, decoded or read from a pack, beside WebDataset and torchvision."""
    for i in range(2):
        write_photos(folder / str(i), scale.photos // 2)
    row = Row(
        "JPEG images decoded, and packed",
        scale.photos // 2 * 2,
        "images",
        "WebDataset",
        partial(our_packing, folder),
        partial(webdataset_batches, folder),
        "1.0",
        tolerance=0.0,
    )
    again = row._replace(
        work="batches of images, from the pack", ours=partial(our_batches, folder), aim="10"
    )
    return [row, again]


# --------------------------------------------------------------------------------------------------
# Retrieval.

CAPTIONS_PER_IMAGE = 5


def retrieval_features(n_images: int) -> tuple[Tensor, Tensor]:
    """Features of images (N, 256) and of their captions (5 N, 256), which are near them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n_images, 256, generator=generator)
    noise = torch.randn(CAPTIONS_PER_IMAGE * n_images, 256, generator=generator)
    texts = images.repeat_interleave(CAPTIONS_PER_IMAGE, 0) + 4 * noise
    return F.normalize(images, dim=1), F.normalize(texts, dim=1)


def our_retrieval(n_images: int) -> Work:
    images, texts = retrieval_features(n_images)
    image_of_caption = torch.arange(n_images).repeat_interleave(CAPTIONS_PER_IMAGE)

    def work():
        i2t, t2i = evaluation.retrieval_ranks(images, texts, image_of_caption)
        return [(ranks < k).float().mean().item() for k in (1, 5, 10) for ranks in (t2i, i2t)]

    return work


def their_retrieval(n_images: int) -> Work:
    """CLIP_benchmark's `evaluate`, with a model whose features are there already."""
    from clip_benchmark.metrics.zeroshot_retrieval import evaluate

    images, texts = retrieval_features(n_images)

    class Stored:
        """The loader gives features in place of images, and numbers in place of texts."""

        encode_image = staticmethod(lambda features: features)
        encode_text = staticmethod(lambda numbers: texts[numbers])

    def batches():
        for rows in chunks(range(n_images), 64):
            numbers = [
                list(range(CAPTIONS_PER_IMAGE * i, CAPTIONS_PER_IMAGE * (i + 1))) for i in rows
            ]
            yield images[list(rows)], numbers

    def work():
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            found = evaluate(Stored, batches(), torch.tensor, "cpu", False, [1, 5, 10])
        return list(found.values())

    return work


def retrieval_rows(scale: Scale, folder: Path) -> list[Row]:
    """R@1, R@5 and R@10 both ways from features, beside CLIP_benchmark."""
    n = scale.images
    return [
        Row(
            f"retrieval, {n:,} images, {CAPTIONS_PER_IMAGE * n:,} captions",
            n,
            "images",
            "CLIP_benchmark",
            partial(our_retrieval, n),
            partial(their_retrieval, n),
            "1.0",
            tolerance=1e-3,
        )
    ]


# --------------------------------------------------------------------------------------------------
# How cost grows.


def grouping(scale: Scale, count: int) -> Work:
    """Captions, all different, grouped and turned into CLIP's tokens."""
    _, tokenizer, _ = read_llm(llm_text.llm_path(scale.llm))
    captions = [[caption] for caption in random_captions(count)]
    return lambda: TokenIds(tokenizer, 77, "").read(DistinctCaptions(captions))


def whitening(count: int) -> Work:
    """The whitening of so many vectors, float16 as they are kept."""
    vectors = torch.randn(count, 576, generator=torch.Generator().manual_seed(0)).half()
    return lambda: lift.LLMVectors.fit(vectors, 256)


def reading(scale: Scale, count: int) -> Work:
    """Captions through the first third of the language model, as train.py does by default."""
    dtype = getattr(torch, pick_dtype("auto", torch.device("cpu")))
    llm = llm_text.load_llm(scale.llm, dtype=dtype, pool="mean")
    texts = list(random_captions(count))
    return lambda: llm.encode(texts)


def gallery(count: int) -> Work:
    """The ranks of 1,000 captions among so many images, and of the images among the captions."""
    images, texts = retrieval_features(count)
    texts = texts[:1000].clone()
    image_of_caption = torch.arange(len(texts)) // CAPTIONS_PER_IMAGE
    return lambda: evaluation.retrieval_ranks(images, texts, image_of_caption)


def growths(scale: Scale) -> list[Growth]:
    """How time and memory grow, of ours alone."""
    llm_text.llm_path(scale.llm)
    tower = scale.towers[0]
    return [
        Growth("captions, grouped, as tokens", scale.thousands, partial(grouping, scale)),
        Growth("captions' vectors, whitening", scale.thousands, whitening),
        Growth("captions read, a third of the blocks", scale.texts_read, partial(reading, scale)),
        Growth("gallery of images, 1,000 captions", scale.thousands, gallery),
        Growth(
            f"LIFT step, {tower.model}, pixels per side",
            scale.image_sizes,
            lambda n: our_step("lift", tower._replace(image_size=n, batch=16)),
        ),
        Growth(
            f"LIFT step, {tower.name}, batch",
            scale.batches,
            lambda n: our_step("lift", tower._replace(batch=n)),
        ),
        Growth(
            f"CLIP step, {tower.name}, batch",
            scale.batches,
            lambda n: our_step("clip", tower._replace(batch=n)),
        ),
    ]


# --------------------------------------------------------------------------------------------------
# On a GPU.

# Operations per second in bfloat16, dense, as NVIDIA's data sheets give them, by a part of the
# name that torch gives. Another GPU: --peak-tflops.
PEAK_TFLOPS = {
    "A100": 312,  # "NVIDIA A100 Tensor Core GPU", BFLOAT16 Tensor Core
    "H100 80GB HBM3": 989,  # "NVIDIA H100 Tensor Core GPU", SXM: 1,979 with sparsity, half without
    "H100 PCIe": 756,  # the same data sheet, PCIe: 1,513 with sparsity
}
GPU_TOWERS = (Tower("S/16", 224, 256), Tower("B/16", 224, 256))


class GpuStep(NamedTuple):
    """What was measured of a training step on one device."""

    work: str
    batch: int
    seconds: float  # median
    memory: int | None  # bytes, as torch counts them on a GPU; None on a CPU
    operations: float


def gpu_step(method: str, tower: Tower, device: str, rounds: int) -> GpuStep:
    # Operations are counted in a copy of this process, so before the first backward pass here.
    total = tower.batch * operations(method, tower)
    step = our_step(method, tower, device)
    for _ in range(3):  # these compile, and fill the caches
        step()
    if device == "cuda":  # the memory of steps, not of compiling
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        step()  # it returns a number, so it has waited for the GPU
        times.append(time.perf_counter() - start)
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else None
    work = f"{method.upper()} step, {tower.name}"
    return GpuStep(work, tower.batch, statistics.median(times), memory, total)


def peak_tflops(name: str) -> float:
    """The peak of the GPU that has this name. BadInput for one that the table does not know."""
    for part, peak in PEAK_TFLOPS.items():
        if part in name:
            return peak
    raise BadInput(
        f"the peak of {name} is not in the table; give its dense bfloat16 TFLOPS with --peak-tflops"
    )


def gpu_page(steps: Sequence[GpuStep], name: str, peak: float) -> list[str]:
    """The lines of docs/results/bench_gpu.md."""
    lines = [
        "# Training steps on a GPU",
        "",
        f"{today()}, {name}, torch {torch.__version__}, made by",
        "`python -m tests.experiments.bench --device cuda`. As train.py does by default: bfloat16,",
        "compiled, AdamW fused. Memory is what torch allocated at most. MFU, the model's use of "
        "the",
        "GPU's operations (model FLOPs utilization), is the operations of the step by",
        f"tests/experiments/flops.py, divided by its time and by {peak:g} TFLOPS.",
        "",
        "| step | batch | images per second | memory, GB | MFU |",
        "|---|---|---|---|---|",
    ]
    for step in steps:
        memory = "not measured" if step.memory is None else f"{step.memory / 1e9:.1f}"
        mfu = step.operations / step.seconds / (peak * 1e12)
        speed = rounded(step.batch / step.seconds)
        lines.append(f"| {step.work} | {step.batch} | {speed} | {memory} | {mfu:.1%} |")
    return lines


# --------------------------------------------------------------------------------------------------
# The page and the command.

ROWS = {
    "clip": clip_rows,
    "lift": lift_rows,
    "captions": caption_rows,
    "vit": vit_rows,
    "data": data_rows,
    "retrieval": retrieval_rows,
}
NEEDS = {
    "clip": ("open_clip",),
    "lift": ("open_clip",),
    "captions": ("transformers",),
    "vit": ("timm",),
    "data": ("webdataset", "torchvision"),
    "retrieval": ("clip_benchmark",),
    "growth": (),
}
SECTIONS = {
    "clip": "CLIP's training step",
    "lift": "LIFT's training step",
    "captions": "Captions through the language model",
    "vit": "The image tower",
    "data": "Images from the disk",
    "retrieval": "Retrieval",
}


def missing_peer(name: str) -> str:
    """Why these rows cannot be measured, in one line; "" where they can."""
    for module in NEEDS[name]:
        try:
            import_module(module)
        except Exception as error:  # a package that does not fit torch raises any of a dozen types
            reason = str(error).splitlines()[0]
            package = f"{PEERS[module]}=={pinned(PEERS[module])}"
            return f"rows {name}: {module} cannot be imported ({reason}): pip install {package}"
    return ""


def pinned(package: str) -> str:
    """The version of a package in requirements-bench.txt."""
    for line in (RESULTS.parents[1] / "requirements-bench.txt").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.split("==")[1]
    raise BadInput(f"requirements-bench.txt does not name {package}")


def today() -> str:
    return date.today().isoformat()


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def rounded(number: float) -> str:
    """Three digits at least: 12,345, 123, 12.3, 1.23."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def gigabytes(count: int) -> str:
    number = count / 1e9
    return f"{number:.2f}" if number >= 0.1 else f"{number:.2g}"


def table_of(rows: Sequence[Measured]) -> list[str]:
    """The table of one section. A ratio above 1: ours is faster."""
    lines = [
        "| work | ours, per second | peer, per second | ratio (pairs of rounds) "
        "| memory, GB: ours, peer |",
        "|---|---|---|---|---|",
    ]
    for measured in rows:
        row = measured.row
        speeds = []
        for times in (measured.our_times, measured.their_times):
            speeds.append(f"{rounded(row.count / statistics.median(times))} {row.unit}")
        low, high = min(measured.ratios), max(measured.ratios)
        ratio = f"{measured.ratio:.2f} ({low:.2f} to {high:.2f})"
        memory = f"{gigabytes(measured.our_memory)}, {gigabytes(measured.their_memory)}"
        lines.append(f"| {row.work} | {speeds[0]} | {speeds[1]} | {ratio} | {memory} |")
    return lines


def table_of_aims(rows: Sequence[Measured]) -> list[str]:
    lines = ["| work | peer | rounds | ratio | aim |", "|---|---|---|---|---|"]
    for measured in rows:
        row = measured.row
        rounds = len(measured.our_times)
        lines.append(f"| {row.work} | {row.peer} | {rounds} | {measured.ratio:.2f} | {row.aim} |")
    return lines


def table_of_growth(grown: Sequence[Grown]) -> list[str]:
    lines = [
        "| work | sizes | seconds | memory, GB | exponents: time, memory |",
        "|---|---|---|---|---|",
    ]
    for growth, times, memory in grown:
        sizes = ", ".join(
            f"{size:,}".replace(",000,000", "m").replace(",000", "k") for size in growth.sizes
        )
        seconds = ", ".join(f"{seconds:.2g}" for seconds in times)
        exponents = [exponent(growth.sizes, values) for values in (times, memory)]
        words = ", ".join(f"{b:.2f}" for b in exponents)
        gb = ", ".join(map(gigabytes, memory))
        lines.append(f"| {growth.work} | {sizes} | {seconds} | {gb} | {words} |")
    return lines


def page(
    sections: dict[str, list[Measured]], grown: Sequence[Grown], left_out: Sequence[str]
) -> list[str]:
    """The lines of docs/results/bench.md."""
    peers = sorted({PEERS[module] for name in sections for module in NEEDS[name]})
    lines = [
        "# Speed and memory beside peers",
        "",
        f"{today()}, {cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__} with",
        f"{torch.get_num_threads()} threads, made by `python -m tests.experiments.bench`, which "
        "says",
        "at its top how time and memory are measured. The peers:",
        (", ".join(f"{package} {version(package)}" for package in peers) or "none") + ".",
        "",
        "A ratio is the peer's median time divided by ours: above 1, ours is faster. Beside it "
        "stand",
        "the smallest and the largest ratio of two turns that follow each other.",
    ]
    for name, rows in sections.items():
        text = textwrap.wrap(" ".join(ROWS[name].__doc__.split()), 100)
        lines += ["", f"## {SECTIONS[name]}", "", *text, "", *table_of(rows)]
    if sections:
        everything = [measured for rows in sections.values() for measured in rows]
        lines += ["", "## Rounds and aims", "", *table_of_aims(everything)]
    if grown:
        lines += [
            "",
            "## How cost grows",
            "",
            "Ours alone, the median of three. An exponent b says that the cost grows as size^b; it",
            "is fitted to the logarithms by least squares.",
            "",
            *table_of_growth(grown),
        ]
    if left_out:
        lines += ["", "## Left out", "", *(f"- {reason}" for reason in left_out)]
    return lines


def on_cpu(names: Sequence[str], scale: Scale, rounds: int, seconds: float) -> list[str]:
    """Measure these rows and return the page. A line is printed as soon as a row is measured."""
    sections, grown, left_out = {}, [], []
    for name in names:
        reason = missing_peer(name)
        if reason:
            print(reason, flush=True)
            left_out.append(reason)
        elif name == "growth":
            for growth in growths(scale):
                grown.append(measure_growth(growth))
                print(table_of_growth(grown)[-1], flush=True)
        else:
            sections[name] = []
            with tempfile.TemporaryDirectory() as folder:
                for row in ROWS[name](scale, Path(folder)):
                    sections[name].append(measure(row, rounds, seconds))
                    print(table_of(sections[name])[-1], flush=True)
    return page(sections, grown, left_out)


def on_gpu(
    device: str, towers: Sequence[Tower], rounds: int, peak: float | None = None
) -> list[str]:
    """Measure LIFT's and CLIP's step on a device and return the page."""

    def name_of_device():
        return torch.cuda.get_device_name() if pick_device(device).type == "cuda" else cpu_name()

    name = in_a_process(name_of_device)
    peak = peak or peak_tflops(name)
    steps = []
    for tower in towers:
        for method in ("lift", "clip"):
            steps.append(in_a_process(lambda m=method, t=tower: gpu_step(m, t, device, rounds)))
            print(gpu_page(steps, name, peak)[-1], flush=True)
    return gpu_page(steps, name, peak)


def command_line(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--rows", default=",".join(NEEDS), help="which rows: %(default)s")
    add("--rounds", type=int, default=5, help="at least so many turns of each side (%(default)s)")
    add("--seconds", type=float, default=15, help="and turns for so long, per row (%(default)s)")
    add("--million", action="store_true", help="let captions and gallery grow to 1,000,000")
    add("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: only training steps")
    add("--batch-size", type=int, default=256, help="with --device cuda (%(default)s)")
    add("--peak-tflops", type=float, help="of the GPU, in dense bfloat16; for MFU")
    args = parse_flags(parser, argv)
    args.rows = args.rows.split(",")
    for name in args.rows:
        if name not in NEEDS:
            raise BadInput(f"--rows {name}: there is no such row; choose of {', '.join(NEEDS)}")
    for name in ("rounds", "batch_size"):
        if getattr(args, name) < 1:
            raise BadInput(f"--{name.replace('_', '-')} must be at least 1")
    return args


def main() -> None:
    args = command_line()
    if args.device == "cuda":
        towers = [tower._replace(batch=args.batch_size) for tower in GPU_TOWERS]
        lines = on_gpu("cuda", towers, args.rounds, args.peak_tflops)
        file = RESULTS / "bench_gpu.md"
    else:
        scale = FULL
        if args.million:
            scale = scale._replace(thousands=(*scale.thousands, 1_000_000))
        lines = on_cpu(args.rows, scale, args.rounds, args.seconds)
        # Some rows alone would leave holes in the page.
        file = RESULTS / "bench.md" if args.rows == list(NEEDS) else None
    print("\n".join(["", *lines]))
    if file:
        file.write_text("\n".join(lines) + "\n")
        print(f"\nwrote {file}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(exit_status(main))
