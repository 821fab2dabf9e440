"""Train one method of lift.METHODS on a GPU or a CPU, in one process or in several.

    python train.py                                  # LIFT on the built-in shapes
    python train.py --method clip --out runs/clip    # the baseline: same data, same image tower
    python train.py --data captions.csv              # your own images
    python train.py --resume runs/lift               # go on where a run stopped
    python train.py --init-from runs/lift --data captions.csv --out runs/more   # with its weights
    torchrun --nproc-per-node 2 train.py             # two processes, each with half of every batch

Read vit.py, llm_text.py and lift.py before this file. data/batches.py says what a batch is.
`training_step` is what all methods share, and `train` is the loop around it. Then read `set_up`,
the last function but one, which makes what the loop needs. On a first reading skip the flags.

Letters of shapes: B images in a batch of P processes, D the shared dimension, L tokens of the
longest caption, S pixels per side.

A run folder holds checkpoint.pt (model, optimizer, step, configuration) and log.jsonl (one JSON
object per line). With --save-best it also holds best.pt.

On a CPU a run that was stopped and resumed equals one that was not, bit for bit: data/batches.py
says why.
"""

import argparse
import gc
import hashlib
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import lift
from data import processes
from data.batches import Batch, Batches, Crops
from data.captions import DistinctCaptions
from data.common import (
    DEVICES,
    BadInput,
    check_place,
    exit_status,
    flag_of,
    interpreting,
    parse_flags,
    pick_device,
    pick_dtype,
    progress,
    select,
    stop_signals,
    trains_in_bf16,
)
from data.files.runs import SEEN, read_run, run_file, save_tensors, why_no_run
from data.files.tensors import mismatch
from data.files.vit import load_vit
from data.images.formats import CAPTION_KEYS, IMAGE_KEYS, Columns
from data.images.pixels import PIXEL_NORMS
from data.images.read import MIN_VAL, CaptionedImages, captions_of, read_images
from data.train_log import (
    RunLog,
    batch_accuracy,
    check_reports,
    count_parameters,
    learned_by_heart,
    machine,
    score_batch,
)
from data.vectors import ImageViews, OutsideVectors, outside_views, read_views
from data.world import shapes
from llm_text import POOLS, TextReader, TextSource, text_reader
from vit import KINDS, SIZES, ViT

# --------------------------------------------------------------------------------------------------
# The run.


def lr_at(step: int, total: int, cfg: "Config") -> float:
    """The learning rate of a step: linear warm-up, then a cosine down to zero.

        lr (step + 1) / W                                        while step < W
        lr (1 + cos(pi (step - W) / (total - W))) / 2            after that

    W is --warmup, but a tenth of all steps at most, rounded down. Steps count from 0, lr is cfg.lr.
    A pure function of the step: nothing to save.
    """
    warmup = min(cfg.warmup, total // 10)
    if step < warmup:
        return cfg.lr * (step + 1) / warmup
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def parameter_groups(model: nn.Module, wd: float, image_lr_share: float = 1.0) -> list[dict]:
    """The trained parameters, in groups for AdamW.

    Each group is a dictionary: "params", "weight_decay" and "lr_share". No group is empty.

    Only matrices get the weight decay wd. Biases, norms and the scale have fewer dimensions,
    position embeddings have three, and all these get 0. "lr_share" is what part of the learning
    rate a group gets: image_lr_share in the image tower, `visual`, and 1 elsewhere.
    """
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = wd if parameter.ndim == 2 else 0.0
            lr_share = image_lr_share if name.startswith("visual.") else 1.0
            groups[decay, lr_share].append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_share": lr_share}
        for (decay, lr_share), parameters in groups.items()
    ]


def make_optimizer(cfg: "Config", model: nn.Module) -> torch.optim.Optimizer:
    """AdamW. (Loshchilov & Hutter 2019, arXiv 1711.05101)"""
    groups = parameter_groups(model, cfg.wd, lift.METHODS[cfg.method].image_lr_share)
    return torch.optim.AdamW(
        # Where nothing is trained there is still one group, an empty one: AdamW wants it.
        groups or [{"params": []}],
        lr=cfg.lr,
        betas=(cfg.beta1, cfg.beta2),
        eps=cfg.eps,
        # One pass over the memory in place of a dozen. It was tried on a CPU only.
        fused=model.logit_scale.device.type in ("cuda", "cpu"),
    )


# How a message ends where a loss or a weight is not finite.
WHEN_NOT_FINITE = (
    "stopped. What was saved before is kept; lower --lr, or look for extreme values in the data"
)


def training_step(
    model: lift.TwoTower,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    rate: float,
    cfg: "Config",
) -> tuple[dict, Tensor, Tensor]:
    """One training step, in which `model` and `optimizer` change -> features, loss, gradient norm.

    batch  a Batch of data.batches. P processes share it:
             images        (B / P, 3, S, S) float32, or (B / P, width) from a frozen tower
             texts         (B / P, ...), by the text tower: vectors, tokens or ids
             duplicates    (B, B) bool, of the whole batch
             label_tokens  (B / P, L) int64, or None
    rate   the learning rate, of which each group of parameters has its share

    features  of the whole batch, as the loss gets them: image and text (B, D), of unit length, the
              scale, and more
    loss      scalar, with a graph that is used up
    norm      of the gradient of all parameters together, before clipping. It may be NaN
    """
    images, texts, duplicates, label_tokens = batch
    loss_of = lift.METHODS[cfg.method].loss
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_share"]
    # The towers may run in bfloat16. Unit length, loss and whitening stay in float32, with products
    # in TF32 on NVIDIA's GPUs. The loss's gradient would be rounded to bfloat16 if `backward` ran
    # under autocast, too.
    device = model.logit_scale.device.type
    autocast = torch.autocast(device, torch.bfloat16, enabled=cfg.precision == "amp_bf16")
    if cfg.accum_freq == 1 and processes.count() == 1:
        with autocast:
            features = model(images, texts, label_tokens)
        loss = loss_of(**features, duplicates=duplicates)
        loss.backward()
    else:
        # The same gradients in less memory, or by several processes.
        inputs = (images, texts, label_tokens)
        features, loss = lift.backward_in_pieces(
            model, loss_of, inputs, duplicates, cfg.accum_freq, autocast
        )
    # --grad-clip-norm 0 means never. Then the norm is only measured, for the log.
    norm = nn.utils.clip_grad_norm_(model.parameters(), cfg.grad_clip_norm or math.inf)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    lift.limit_scale(model.logit_scale)
    return features, loss, norm


@dataclass
class Job:
    """A run that is ready for its loop: what `set_up` makes and `train` uses."""

    cfg: "Config"  # "auto", and the defaults that follow the data, are decided
    model: lift.TwoTower
    optimizer: torch.optim.Optimizer
    batches: Batches
    rows: slice  # the rows of every batch that are for this process
    curve_batches: dict[str, Batch]  # of the validation curve: "val" and "train", or none
    run_log: RunLog  # log, cost and validation curve
    start: int  # steps that are done
    total: int  # steps of the whole run
    about: dict  # what a checkpoint says of data and captions; no step changes it


def save(job: Job, step: int, name: str = "checkpoint.pt") -> None:
    """Write a checkpoint after a step. Only process 0 writes.

    BadInput, and nothing is written, where a weight is not finite.
    """
    if processes.rank() > 0:
        return
    # The loss may be finite, and the step behind it not.
    if not all(parameter.isfinite().all() for parameter in job.model.parameters()):
        raise BadInput(f"the weights are not finite after step {step}; {WHEN_NOT_FINITE}")
    state = {
        "config": asdict(job.cfg),
        "total": job.total,
        **job.about,
        "step": step,
        "cost": job.run_log.cost,
        "curve": job.run_log.curve,
        "model": job.model.state_dict(),
        "optimizer": job.optimizer.state_dict(),
    }
    save_tensors(state, Path(job.cfg.out) / name)


def curve_scores(job: Job) -> dict[str, dict[str, float]]:
    """An entry of the validation curve: what score_batch says of each of job.curve_batches."""
    loss_of = lift.METHODS[job.cfg.method].loss
    in_bf16 = job.cfg.precision == "amp_bf16"
    return {
        name: score_batch(job.model, loss_of, batch, in_bf16)
        for name, batch in job.curve_batches.items()
    }


def train(cfg: "Config") -> dict:
    """Train as the configuration says; returns the last entry of the log.

    Raises BadInput for what cannot go on. A signal ends it with SystemExit, after saving.
    """
    job = set_up(cfg)
    cfg, model, run_log, total = job.cfg, job.model, job.run_log, job.total
    device = model.logit_scale.device
    out = Path(cfg.out)
    if total == 0:
        save(job, 0)  # the loop saves after steps only

    with (
        stop_signals(patient=processes.count() > 1) as stop,
        progress(description="training", total=total, initial=job.start, unit="step") as bar,
    ):
        for step, batch, waited in job.batches.ahead(job.start, total, job.rows):
            rate = lr_at(step, total, cfg)
            features, loss, grad_norm = training_step(model, job.optimizer, batch, rate, cfg)
            # That was the training. The rest looks at what happened, and saves.
            done = step + 1
            is_last = done == total
            bar.update()
            run_log.count(waited)
            # Was there a signal, in any process? All of them stop after the same step.
            signal_number = processes.largest(stop[0] if stop else 0)
            saves = is_last or done % cfg.save_frequency == 0 or signal_number > 0
            is_best = False
            # Only the process that writes looks at validation images.
            scores_now = job.curve_batches and (is_last or done % cfg.val_frequency == 0)
            if scores_now and processes.rank() == 0:
                is_best = run_log.add_scores(curve_scores(job), done, bar) and cfg.save_best
            if saves or is_best or done == job.start + 1 or done % cfg.log_every_n_steps == 0:
                image, text = features["image_features"], features["text_features"]
                numbers = {
                    "loss": loss.item(),
                    "accuracy": batch_accuracy(image, text, batch.duplicates),
                    "scale": model.logit_scale.exp().item(),  # after the step
                    "lr": rate,
                    "grad_norm": grad_norm.item(),
                }
                run_log.add_step(numbers, done, device, bar)
                # A loss that is not finite has spoilt the parameters. They are not saved.
                if not math.isfinite(numbers["loss"] + numbers["grad_norm"]):
                    raise BadInput(
                        f"the loss is {numbers['loss']} and its gradient's norm "
                        f"{numbers['grad_norm']} at step {done}; {WHEN_NOT_FINITE}"
                    )
            # Whenever best.pt is saved, checkpoint.pt is saved, too. Otherwise a run that goes on
            # from an older step would find a best.pt of a step that it has not made yet.
            if is_best:
                save(job, done, "best.pt")
            if saves or is_best:
                save(job, done)
            if signal_number:
                processes.wait()  # for the save: torchrun ends all when one has ended
                bar.close()
                print(
                    f"stopped after step {done} of {total}, saved; go on with: "
                    f"python train.py --resume {out}",
                    file=sys.stderr,
                )
                raise SystemExit(128 + signal_number)
    note = learned_by_heart(run_log.curve)
    if note:
        print(note, file=sys.stderr)
    print(f"saved {out / 'checkpoint.pt'}; next: python eval.py {out}", file=sys.stderr)
    return run_log.last


# --------------------------------------------------------------------------------------------------
# The flags. Names are open_clip's where it has them. On a first reading go on to `set_up`.

# Defaults that follow the size of the data; see `sized`.
MIN_STEPS = 300  # at least this many steps
EPOCHS = 5  # this many passes over the images, if that gives as many steps
FEW_IMAGES = 5_000  # with fewer images of your own, crops are the default
FEW_CROP_SCALE = 0.6  # the smallest part that these crops keep
WARN_STEPS = 50  # fewer steps get a warning


def flag(
    default,
    help: str,
    section: str = "",
    choices: list[str] | None = None,
    low: float | None = None,
    high: float = math.inf,
):
    """A field of Config. `section` begins a new section of flags, `low` and `high` are limits.

    The flags of the sections method, image tower and text tower are those that --init-from brings.
    """
    return field(
        default=default,
        metadata={"help": help, "section": section, "choices": choices, "low": low, "high": high},
    )


@dataclass
class Config:
    """Everything that decides a run. The command line is made from it.

    Raises BadInput for a value out of range and for flags that contradict each other.
    """

    method: str = flag(
        "lift", "a key of METHODS in lift.py", section="method", choices=list(lift.METHODS)
    )
    unlock: str = flag(
        "",
        "train these parts of both towers, with heads and scale, in place of the method's own",
        choices=["", *lift.UNLOCK],
    )

    data: str = flag(
        "shapes",
        f"{', '.join(shapes.WORLDS)}, csv, tsv, jsonl, json, tar shards, a folder, a pack "
        "(docs/data.md)",
        section="data",
    )
    val_data: str = flag(
        "", "test images (default: the built-in test scenes, or a tenth of --data)"
    )
    train_num_samples: int = flag(
        0,
        "use at most this many training images, from the first (0: all; built-in worlds: 20,000)",
        low=0,
    )
    csv_separator: str = flag("", "column separator (default: found in the header)")
    csv_img_key: str = flag(
        "", f"column or field of image paths (default: {', '.join(IMAGE_KEYS)})"
    )
    csv_caption_key: str = flag(
        "",
        f"column or field of captions (default: {', '.join(CAPTION_KEYS)}; built-in worlds: short, "
        "paraphrase, reworded, long, mixed)",
    )
    image_root: str = flag(
        "", "folder that the images' paths are relative to (default: that of the file)"
    )
    long_share: float = flag(
        None,
        "draw an image's longest caption this often (default: all its captions alike)",
        low=0,
        high=1,
    )
    crop_scale: float = flag(
        None,
        "random resized crops keep at least this share of the image (1: no crops; default: "
        f"{FEW_CROP_SCALE} with fewer than {FEW_IMAGES:,} images of your own, else 1)",
        low=0.01,
        high=1,
    )

    model: str = flag(
        "nano/16",
        "image tower: size/patch side",
        section="image tower",
        choices=[name + kind for kind in KINDS for name in SIZES],
    )
    image_size: int = flag(64, "side of the images in pixels", low=1)
    image_pool: str = flag("avg", "mean of the patches, or a class token", choices=["avg", "tok"])
    image_weights: str = flag(
        "", "pretrained image tower: a run folder, or a timm or Hugging Face ViT (docs/weights.md)"
    )
    image_norm: str = flag(
        "clip",
        "pixel mean and deviation that --image-weights expect: CLIP's, ImageNet's (DeiT), or 0.5 "
        "(most of timm's and Hugging Face's ViTs)",
        choices=list(PIXEL_NORMS),
    )
    image_features: str = flag(
        "", "in place of a frozen image tower, its vectors: FILE.npy, named by FILE.txt"
    )
    image_views: int = flag(
        4, "with --crop-scale < 1: crops that a frozen image tower reads of each image", low=1
    )
    embed_dim: int = flag(128, "shared dimension where both towers have a head", low=1, high=10**6)

    llm: str = flag(
        "",
        "frozen language model: GGUF file or Hugging Face folder (default: SmolLM2-135M-Instruct)",
        section="text tower",
    )
    llm_adapter: str = flag("", "adapter for it, from llm_text.py --tune")
    llm_dtype: str = flag(
        "auto",
        "precision of the frozen language model (auto: bfloat16 where the device has "
        "instructions for it, else float32)",
        choices=["auto", "float32", "bfloat16"],
    )
    pool: str = flag(
        "mean",
        "how the language model's hidden states become one vector",
        choices=[name for name in POOLS if name != "tokens"],
    )
    layer: int = flag(
        0,
        "read the language model after this block (lilt: keep this many; 0: the pooling's own)",
        low=0,
    )
    whiten: int = flag(
        None,
        "whiten the vectors to this many directions (0: only centre them; default: 256, or a "
        "quarter of the captions if that is less; with fewer than 64 captions 16, or half of them "
        "if that is less)",
        low=0,
    )
    whiten_power: float = flag(
        None,
        "how far whitening evens the directions out (1: all alike, 0: not; default: 0.5, or 0 "
        "with --text-map lda)",
        low=0,
        high=1,
    )
    text_map: str = flag(
        "pca",
        "which directions whitening keeps (pca: those in which captions differ most; lda: those in "
        "which images differ more than the captions of one image do; it needs several per image)",
        choices=["pca", "lda"],
    )
    map_caption_key: str = flag(
        "",
        "column or field of the captions that --text-map lda is fitted on (default: those of "
        "training; built-in worlds: paraphrase, reworded, mixed)",
    )
    text_features: str = flag(
        "", "in place of the language model, vectors of captions: FILE.npy, named by FILE.txt"
    )
    text_width: int = flag(64, "width of a text transformer from scratch", low=1, high=10**6)
    text_depth: int = flag(4, "blocks of that text transformer", low=1, high=10**6)
    text_heads: int = flag(2, "attention heads of that text transformer", low=1, high=10**6)
    context_length: int = flag(77, "tokens of a caption at most", low=2, high=10**6)

    batch_size: int = flag(
        128, "images per step, of all processes together", section="optimisation", low=1
    )
    epochs: int = flag(
        None,
        "passes over the images; each pass shows one caption per image "
        f"(default: {EPOCHS}, or as many as {MIN_STEPS} steps need, if that is more)",
        low=1,
    )
    steps: int = flag(
        0,
        "train this many steps at most; the rate falls to 0 with them (0: as --epochs says)",
        low=0,
    )
    accum_freq: int = flag(
        1, "compute each step in this many pieces: less memory, the same gradient, more time", low=1
    )
    lr: float = flag(1.4e-3, "peak learning rate", low=0, high=1)
    beta1: float = flag(0.9, "AdamW's beta1", low=0, high=0.9999)
    beta2: float = flag(0.98, "AdamW's beta2", low=0, high=0.9999)
    eps: float = flag(1e-6, "AdamW's epsilon", low=1e-20, high=1)
    wd: float = flag(0.2, "weight decay of matrices", low=0, high=100)
    warmup: int = flag(
        500, "steps of linear warm-up, but at most a tenth of all; then cosine to 0", low=0
    )
    grad_clip_norm: float = flag(1.0, "clip the gradient's norm (0: never)", low=0)
    precision: str = flag(
        "auto",
        "auto: bf16 autocast on a GPU that has it, else fp32; on NVIDIA's GPUs fp32 includes TF32",
        choices=["auto", "amp_bf16", "fp32"],
    )

    device: str = flag("auto", DEVICES, section="run")
    torchcompile: bool = flag(None, "compile the model (default: on CUDA only)")
    seed: int = flag(0, "initial weights, batch order, captions, crops", low=0, high=2**32 - 1)
    log_every_n_steps: int = flag(50, "interval of the log, in steps", low=1)
    val_frequency: int = flag(
        None,
        "interval of the scores on validation images, in steps (0: never, and train on these "
        "images, too; default: so that they should take about 2 %% of the time)",
        low=0,
    )
    save_frequency: int = flag(200, "interval of checkpoints, in steps", low=1)
    save_best: bool = flag(
        False,
        "also keep the weights with the best R@1 of validation images, as best.pt; whatever reads "
        "the run then reads these",
    )
    report_to: str = flag("", "send the log to tensorboard, to wandb, or to tensorboard,wandb")
    out: str = flag("", "run folder (default: runs/METHOD)")
    resume: str = flag("", "run folder to go on with; flags that are not given come from it")
    init_from: str = flag(
        "",
        "run whose weights a new run begins with; flags of the model and of the text vectors that "
        "are not given come from it",
    )

    def __post_init__(self):
        self._check_ranges()
        self._check_combinations()
        self.out = self.resume or self.out or f"runs/{self.method}"

    def _check_ranges(self):
        """Refuse a value that is none of its choices, or outside its limits."""
        for f in fields(self):
            value, choices = getattr(self, f.name), f.metadata["choices"]
            low, high = f.metadata["low"], f.metadata["high"]
            # A damaged run may hold anything. A whole number stands for a float, too.
            types = (int, float) if f.type is float else (f.type,)
            is_default = value is None and f.default is None
            if type(value) not in types and not is_default:
                raise BadInput(f"{flag_of(f.name)} {value!r} is not of type {f.type.__name__}")
            if choices and value not in choices:
                raise BadInput(
                    f"{flag_of(f.name)} {value!r} is unknown; choose one of {', '.join(choices)}"
                )
            if low is not None and value is not None and not low <= value <= high:
                raise BadInput(
                    f"{flag_of(f.name)} {value} is out of range; it lies between {low} and {high}"
                )

    def _check_combinations(self):
        """Refuse flags that contradict each other or the method. One rule after the other."""
        method = lift.METHODS[self.method]
        patch = SIZES[self.model.split("-")[0]][0]
        if self.image_size % patch:
            raise BadInput(
                f"--image-size {self.image_size} is not a multiple of the patch side {patch} of "
                f"{self.model}"
            )
        if self.accum_freq > self.batch_size:
            raise BadInput(
                f"--accum-freq {self.accum_freq}: a batch of {self.batch_size} has not so many "
                "images"
            )
        if self.save_best and self.val_frequency == 0:
            raise BadInput("--save-best chooses by validation images; leave --val-frequency 0 out")
        if self.text_width % self.text_heads:
            raise BadInput(
                f"--text-width {self.text_width} cannot be shared by --text-heads {self.text_heads}"
            )
        if self.resume and self.out not in ("", self.resume):
            raise BadInput(
                f"--resume {self.resume} goes on in that folder; leave --out {self.out} out"
            )

        # Where the image tower starts.
        has_image_tower = bool(self.image_weights or self.image_features)
        if method.image == "run" and not self.init_from:
            raise BadInput(
                f"--method {self.method} is made of a run of --method lift; name it with "
                "--init-from"
            )
        if method.image == "run" and self.unlock:
            raise BadInput(f"--method {self.method} trains nothing; leave --unlock out")
        if method.image == "pretrained" and not has_image_tower:
            raise BadInput(
                f"--method {self.method} starts from a pretrained image tower; name one with "
                "--image-weights (make one with --method supervised)"
            )
        if method.image != "pretrained" and has_image_tower:
            start = "from scratch" if method.image == "scratch" else "from a run"
            raise BadInput(
                f"--method {self.method} starts {start}; leave --image-weights and "
                "--image-features out"
            )
        frozen = has_frozen_image_tower(method)
        if self.image_features and (self.image_weights or self.unlock or not frozen):
            raise BadInput(
                f"--image-features stands for a frozen image tower, so it goes with --method "
                f"{names_of(has_frozen_image_tower)}, and without --image-weights and --unlock"
            )

        # What the text side starts from.
        reads_llm = reads_frozen_llm(method)
        if self.text_features and (not reads_llm or self.llm or self.llm_adapter):
            raise BadInput(
                f"--text-features stands for a frozen LLM, so it goes with --method "
                f"{names_of(reads_frozen_llm)}, and without --llm and --llm-adapter"
            )
        if self.llm_adapter and not (reads_llm or method.text.needs_llama):
            raise BadInput(
                f"--llm-adapter changes a language model, of which --method {self.method} uses the "
                "tokenizer only"
            )


def has_frozen_image_tower(method: lift.Method) -> bool:
    """Does it take a pretrained image tower as it is?"""
    return method.image == "pretrained" and "visual" not in method.trains and not method.adapters


def reads_frozen_llm(method: lift.Method) -> bool:
    """Are its captions read once, by a language model that is not trained?"""
    return method.text.input_kind in ("vectors", "tokens")


def names_of(is_meant: Callable[[lift.Method], bool]) -> str:
    """The methods that a condition is true of, in words: "a, b or c"."""
    *names, last = [name for name, method in lift.METHODS.items() if is_meant(method)]
    return f"{', '.join(names)} or {last}"


# What may differ when a run is resumed: where and how it is computed, not what.
FREE_ON_RESUME = (
    "device",
    "torchcompile",
    "log_every_n_steps",
    "save_frequency",
    "report_to",
    "out",
    "resume",
)


def from_cli(argv: Sequence[str] | None = None) -> Config:
    """Command line -> Config. With --resume or --init-from, the rest comes from that run.

    A flag that is given but has no effect with this method is named on stderr.
    """
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        allow_abbrev=False,
        usage="python train.py [--flag value ...]   (--help lists the flags)",
    )
    for f in fields(Config):
        if f.metadata["section"]:
            section = parser.add_argument_group(f.metadata["section"])
        default = "" if f.default in ("", None) else f" (default: {f.default})"
        if f.type is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        else:
            kind = {"type": f.type, "choices": f.metadata["choices"]}
        # Only what is given becomes an entry: the rest has its default, or the resumed run's value.
        section.add_argument(
            flag_of(f.name), default=argparse.SUPPRESS, help=f.metadata["help"] + default, **kind
        )
    given = vars(parse_flags(parser, argv))
    cfg = Config(**inherited_flags(given) | given)

    idle = flags_without_effect(cfg)
    for name in given:
        if name in idle:
            print(f"note: {flag_of(name)} has no effect: {idle[name]}", file=sys.stderr)
    return cfg


def inherited_flags(given: dict) -> dict:
    """What the flags of --resume or --init-from bring: {field of Config: value of that run}."""
    resumed, begun_from = given.get("resume"), given.get("init_from")
    if resumed and begun_from:
        raise BadInput("--resume goes on with a run, --init-from begins another; choose one")
    if not resumed and not begun_from:
        return {}
    saved = (last_checkpoint(resumed) if resumed else read_run(begun_from))["config"]
    differing = saved.keys() ^ {f.name for f in fields(Config)}
    if differing:
        raise BadInput(
            f"{resumed or begun_from} was made by another version of this project (only one of the "
            f"two has the flag {min(differing)}); train again"
        )
    if resumed:
        return saved | {"out": "", "resume": ""}

    method_name = given.get("method", saved["method"])
    if method_name in lift.METHODS and lift.METHODS[method_name].image == "run":
        check_kind_of_run(method_name, begun_from, saved["method"])
        # Nothing is trained, and what is solved for belongs to that run: its settings stay.
        inherited = saved | {"out": "", "resume": "", "unlock": "", "init_from": ""}
    elif "data" in given:
        inherited = {name: saved[name] for name in names_of_model()}
    else:
        raise BadInput("--init-from begins another training; name its images with --data")
    for name in ("whiten", "whiten_power", "text_map", "map_caption_key"):
        if name in given and given[name] != saved[name]:
            flag_name = flag_of(name)
            raise BadInput(
                f"{flag_name} {given[name]}: the text vectors are mapped as those of "
                f"--init-from {begun_from} were; leave {flag_name} out"
            )
    return inherited


def check_kind_of_run(name: str, run_folder: str, before: str) -> None:
    """BadInput if a method that is made of a run cannot be made of one of the method `before`."""
    wanted = lift.METHODS[name]

    def fits(method: lift.Method) -> bool:
        same = (method.text, method.image_head) == (wanted.text, wanted.image_head)
        return same and method.bias is None and not method.labels

    if before not in lift.METHODS or not fits(lift.METHODS[before]):
        raise BadInput(
            f"--init-from {run_folder} is a run of --method {before}; --method {name} needs one of "
            f"{names_of(fits)}"
        )


def names_of_model() -> list[str]:
    """The fields of Config that decide the model and the captions' vectors."""
    names, section = [], ""
    for f in fields(Config):
        section = f.metadata["section"] or section
        if section in ("method", "image tower", "text tower"):
            names.append(f.name)
    return names


def flags_without_effect(cfg: Config) -> dict[str, str]:
    """{field of Config: reason} of the flags that a run with this configuration does not read."""
    method = lift.method_for(cfg.method, cfg.unlock)
    trains_image_tower = any(
        part in ("visual", "norms", "biases", "adapters") for part in method.trains
    )
    reads_llm = reads_frozen_llm(method) and not cfg.text_features
    has_one_head = lift.no_head in (method.image_head, method.text_head)
    with_method = f"not with --method {cfg.method}"
    idle = {}

    if method.text is not lift.TextTransformer:
        for name in ("text_width", "text_depth", "text_heads"):
            idle[name] = f"there is no text transformer from scratch, {with_method}"
    is_solved = method.text_head is lift.text_ridge
    if (has_one_head and method.text is not lift.TokenTable) or is_solved:
        idle["embed_dim"] = "the tower without a head is the shared space"
    if method.text is not lift.LLMVectors:
        idle["whiten"] = f"no vectors are whitened, {with_method}"
        idle["whiten_power"] = idle["text_map"] = idle["whiten"]
    elif cfg.whiten == 0:
        idle["whiten_power"] = idle["text_map"] = "with --whiten 0 vectors are only centred"
    if not wants_lda(cfg):
        idle["map_caption_key"] = idle.get("text_map", "only --text-map lda is fitted on them")
    if not reads_llm:
        idle["llm_dtype"] = "no captions are read by a frozen language model"
        idle["pool"] = idle["llm_dtype"]
    if method.text.input_kind == "tokens":
        idle["pool"] = f"every token is kept, with --method {cfg.method}"
    if not reads_llm and not method.text.needs_llama:
        idle["layer"] = "no captions are read by a language model"
    if cfg.text_features and not method.labels:
        idle["context_length"] = "--text-features are read as they are"
    if not cfg.image_weights:
        idle["image_norm"] = "it says what --image-weights expect"
    if cfg.image_features:
        for name in ("model", "image_pool", "crop_scale"):
            idle[name] = "--image-features stand for the image tower"
    no_crops = cfg.crop_scale == 1 or (cfg.crop_scale is None and cfg.data in shapes.WORLDS)
    if trains_image_tower or no_crops or cfg.image_features:
        idle["image_views"] = "it needs a frozen image tower and --crop-scale below 1"
    if not method.trains:
        for name in ("lr", "beta1", "beta2", "eps", "wd", "warmup", "grad_clip_norm", "precision"):
            idle[name] = f"nothing is trained, {with_method}"
    if cfg.data in shapes.WORLDS and not cfg.val_data:
        for name in ("csv_separator", "csv_img_key", "image_root"):
            idle[name] = "the built-in worlds have no file"
    return idle


# --------------------------------------------------------------------------------------------------
# Setting up. `set_up`, the last function before `main`, calls the others.

# A run keeps this many digests of the images that it has seen.
MAX_SEEN = 10_000
# Validation images of the validation curve, at most, and as many training images.
MAX_CURVE = 256


def last_checkpoint(folder: str | Path) -> dict:
    """The checkpoint that training goes on from. It need not be the best one. (--save-best)"""
    path = Path(folder) / "checkpoint.pt"
    if Path(folder).is_file():
        raise BadInput(f"--resume {folder}: that is a file; name the folder of a run")
    if not path.exists():
        raise BadInput(f"{path}: no such file; {why_no_run(folder)}")
    return read_run(path)


def open_checkpoint(cfg: Config) -> tuple[Config, dict | None]:
    """The configuration, and the checkpoint to go on with; None for a new run.

    BadInput if the folder is in the way, or if the flags are not those of the run. What the
    configuration leaves open is as the run decided it then. On another machine "auto" could mean
    another precision, and captions would have other vectors.
    """
    folder = Path(cfg.out)
    if not cfg.resume:
        if folder.exists() and not folder.is_dir():
            raise BadInput(f"--out {folder} is a file; name a folder")
        check_place("--out", folder)
        if run_file(folder).exists():
            raise BadInput(
                f"{folder} already holds a run; go on with it (--resume {folder}), remove it, or "
                "choose another --out"
            )
        return cfg, None
    checkpoint = last_checkpoint(folder)
    decided = {k: v for k, v in checkpoint["config"].items() if k not in FREE_ON_RESUME}
    left_open = {k: v for k, v in decided.items() if getattr(cfg, k) in (None, "auto")}
    cfg = replace(cfg, **left_open)
    for name, value in decided.items():
        if getattr(cfg, name) != value:
            advice = "leave the flag out to go on, or start a new run with another --out"
            if name in ("epochs", "steps"):
                advice = (
                    "the schedule of the learning rate depends on it. Leave the flag out to go on. "
                    f"To train longer, begin a new run with these weights: --init-from {folder} "
                    f"--data {cfg.data} --lr 2e-4 --out ANOTHER"
                )
            raise BadInput(
                f"{folder} was made with {flag_of(name)} {value}, not "
                f"{getattr(cfg, name)}; {advice}"
            )
    return cfg, checkpoint


def check_files(cfg: Config) -> None:
    """Find what is wrong with a file of weights or vectors before the images are read."""
    for name in ("image_weights", "image_features", "text_features", "llm_adapter"):
        path = getattr(cfg, name)
        if path and not Path(path).exists():
            raise BadInput(f"{flag_of(name)} {path}: no such file or folder")
    if cfg.image_weights:
        load_image_weights(cfg, ViT(cfg.model, cfg.image_size, cfg.image_pool))
    if cfg.image_features:
        OutsideVectors(cfg.image_features)


def load_image_weights(cfg: Config, tower: nn.Module) -> None:
    """Put the weights of --image-weights into an image tower."""
    load_vit(tower, cfg.image_weights, PIXEL_NORMS[cfg.image_norm], PIXEL_NORMS["clip"])


def check_machine(device: torch.device, asked: str) -> None:
    """BadInput where this machine has no GPU for each process.

    asked  the word of --device, of which `device` was made
    """
    if device.type == "mps" and processes.count() > 1:
        raise BadInput("--device mps works in one process only; start train.py by python")
    if device.type == "cuda" and ":" in asked and processes.count() > 1:
        raise BadInput(f"--device {asked} is one GPU for all processes; give --device cuda")
    if device.type == "cuda" and processes.count_here() > torch.cuda.device_count():
        raise BadInput(
            f"{processes.count_here()} processes for {torch.cuda.device_count()} GPUs; start fewer"
        )


def compiles(asked: bool | None, device: torch.device) -> bool:
    """Is the model compiled? If asked is None, it is on CUDA, where torch.compile works.

    torch.compile needs a C++ compiler, and some devices cannot use it. BadInput if it was asked
    for and does not work.
    """
    if asked is False or (asked is None and device.type != "cuda"):
        return False
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:  # a dozen types, by what is missing
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if asked:
            raise BadInput(
                f"--torchcompile does not work here ({reason}); give --no-torchcompile"
            ) from error
        print(
            f"note: torch.compile does not work here, so it is not used ({reason})", file=sys.stderr
        )
        return False
    return True


def read_parent(cfg: Config, checkpoint: dict | None) -> dict | None:
    """The run whose weights this one begins with (--init-from). None where there is none.

    checkpoint  what a resumed run goes on with, or None. It holds all that came from the other run:
                the weights, what `fit` made, and the digests of both runs' images. So the other
                run's folder may be gone
    """
    if not cfg.init_from:
        return None
    if checkpoint:
        return checkpoint
    parent = read_run(cfg.init_from)
    if lift.METHODS[cfg.method].image == "run":
        check_kind_of_run(cfg.method, cfg.init_from, parent["config"]["method"])
    return parent


def open_texts(cfg: Config, device: torch.device) -> tuple[TextReader, TextReader | None]:
    """What reads captions: for the text tower, and for the labels where the method has them."""
    method = lift.METHODS[cfg.method]
    source = select(TextSource, asdict(cfg))
    reader = text_reader(method.text.input_kind, source, device)
    return reader, text_reader("ids", source, device) if method.labels else None


def check_same_texts(cfg: Config, reader: TextReader, parent: dict) -> None:
    """BadInput if the weights to begin with are made for other vectors of captions."""
    before = parent["config"]["method"]
    kind = lift.METHODS[cfg.method].text.input_kind
    if lift.METHODS[before].text.input_kind != kind:
        raise BadInput(
            f"--init-from {cfg.init_from} is a run of --method {before}, whose text tower takes "
            f"other inputs than that of --method {cfg.method}; leave --method out"
        )
    if not reader.still_matches(parent["text_fingerprint"]):
        raise BadInput(
            f"--init-from {cfg.init_from} was trained on other vectors of captions; leave --llm, "
            "--pool and the other flags of the text tower out"
        )


def read_training_images(cfg: Config) -> CaptionedImages:
    """The training images. Those of --val-data are read too, so that a mistake shows now."""
    columns = select(Columns, asdict(cfg))
    if cfg.val_data:
        read_images(cfg.val_data, "test", cfg.image_size, columns, whole=True)
    return read_images(cfg.data, "train", cfg.image_size, columns, *choice_of_images(cfg))


def choice_of_images(cfg: Config) -> tuple[int, bool, bool]:
    """Which images are trained on: num_samples, whole and train_on_val of read_images."""
    return cfg.train_num_samples, bool(cfg.val_data), cfg.val_frequency == 0


def read_map_captions(cfg: Config, images: CaptionedImages) -> list[list[str]]:
    """The captions that --text-map lda compares, of each training image, by --map-caption-key.

    No image is trained with them. They only say which differences of words mean nothing.

    BadInput where they are those of training, or where no image has two that differ.
    """
    columns = replace(select(Columns, asdict(cfg)), csv_caption_key=cfg.map_caption_key)
    try:
        captions = captions_of(cfg.data, "train", columns, *choice_of_images(cfg))
        if captions == images.captions:
            raise BadInput("these captions are those of training; leave the flag out")
        if all(len(set(captions_of_image)) < 2 for captions_of_image in captions):
            raise BadInput("no image has two such captions that differ")
    except BadInput as error:
        raise BadInput(f"--map-caption-key {cfg.map_caption_key}: {error}") from error
    return captions


def seen_digests(images: CaptionedImages, parent: dict | None) -> np.ndarray:
    """Digests of the training images, and of those of the run that this one begins with.

    By these eval.py and the search know images that were trained on. In order: the first ones are a
    fair sample.
    """
    digests = np.sort(images.digests)
    if parent:
        digests = np.union1d(digests, parent[SEEN].numpy().view(np.uint64))
    return digests


def read_val_images(cfg: Config, seen_digests: np.ndarray) -> CaptionedImages | None:
    """The images of the validation curve. None where there are too few to say anything.

    seen_digests  of training images; none of these is taken. A file's own splits may overlap, and a
                  run that began with another's weights has learned from that one's images, too
    """
    is_built_in = cfg.data in shapes.WORLDS
    # Files of outside vectors list no validation scenes of a built-in world.
    if cfg.val_frequency == 0 or (is_built_in and (cfg.image_features or cfg.text_features)):
        return None
    columns = select(Columns, asdict(cfg))
    count = MAX_CURVE if is_built_in else 0
    try:
        images = read_images(cfg.data, "val", cfg.image_size, columns, count, bool(cfg.val_data))
    except BadInput as error:
        print(f"note: no validation curve: {error}", file=sys.stderr)
        return None
    is_new = ~np.isin(images.digests, seen_digests)
    if not is_new.all():
        print(
            f"note: {(~is_new).sum()} validation images were trained on and are left out",
            file=sys.stderr,
        )
    # In the order of their digests: a file may be sorted by classes, and its first images alike.
    order = np.argsort(images.digests)
    images = images.take(order[is_new[order]][:MAX_CURVE])
    if len(images) < MIN_VAL:
        print(
            f"note: no validation curve: only {len(images)} images for it, fewer than {MIN_VAL}",
            file=sys.stderr,
        )
        return None
    return images


def sized(cfg: Config, n_images: int, n_curve: int) -> Config:
    """A copy in which the defaults that follow the size of the data are numbers.

    n_images  for training
    n_curve   of the validation curve
    """
    steps_per_epoch = max(1, n_images // cfg.batch_size)
    epochs = cfg.epochs
    if epochs is None and cfg.steps:
        epochs = math.ceil(cfg.steps / steps_per_epoch)
    elif epochs is None:
        epochs = max(EPOCHS, math.ceil(MIN_STEPS / steps_per_epoch))

    crop_scale = cfg.crop_scale
    if crop_scale is None:
        is_few = cfg.data not in shapes.WORLDS and n_images < FEW_IMAGES
        crop_scale = FEW_CROP_SCALE if is_few and not cfg.image_features else 1.0

    val_frequency = cfg.val_frequency
    if val_frequency is None:
        # The curve scores as many training images as validation images. To score an image takes
        # about a third of the time that it takes to train on one: 0.32 to 0.35 was measured
        # (docs/results/curve_cost.md). All may take 2 % of the time.
        cost = 2 * n_curve / 3  # so many images could be trained on in this time
        val_frequency = max(1, math.ceil(cost / 0.02 / cfg.batch_size))
    return replace(cfg, epochs=epochs, crop_scale=crop_scale, val_frequency=val_frequency)


def check_images(cfg: Config, images: CaptionedImages, val_images: CaptionedImages | None) -> None:
    """BadInput where flags ask for more than the images have, or processes have read others.

    A flag that does nothing with these images is named.
    """
    both = [images, *([val_images] if val_images else [])]
    processes.check_same(b"".join(some.digests.tobytes() for some in both))
    have_one_caption = all(len(captions) < 2 for captions in images.captions)
    if cfg.long_share is not None and have_one_caption:
        print("note: --long-share has no effect: no image has two captions", file=sys.stderr)
    is_fitted_on_these = wants_lda(cfg) and not cfg.init_from and not cfg.map_caption_key
    if is_fitted_on_these and have_one_caption:
        raise BadInput(
            f"--text-map lda compares the captions of one image, and in {cfg.data} no image has "
            "two; name others by --map-caption-key (built-in worlds: reworded)"
        )
    if cfg.save_best and not val_images:
        raise BadInput("--save-best: there are no validation images to choose by; leave it out")


def own_rows(batch_size: int) -> slice:
    """The rows of every batch that are for this process. BadInput where they cannot be shared."""
    count = processes.count()
    n_rows, left_over = divmod(batch_size, count)
    if not n_rows:
        raise BadInput(f"{count} processes for batches of {batch_size} images; start fewer")
    if left_over:
        raise BadInput(
            f"{count} processes cannot share a batch of {batch_size} images alike; give "
            f"--batch-size {batch_size - left_over}"
        )
    return slice(processes.rank() * n_rows, (processes.rank() + 1) * n_rows)


@dataclass
class TrainingTexts:
    """The distinct captions, as the text tower takes them."""

    captions: DistinctCaptions
    inputs: object  # one row per distinct caption, indexed by a tensor
    cut_share: float  # of captions that were longer than --context-length
    fingerprint: str  # of what made the inputs
    frozen_parameters: int  # of the language model that read them
    seconds: float  # that making the inputs took; few where the cache had them
    label_tokens: object | None  # for a method with labels: their token ids, rows as in inputs
    label_fingerprint: str  # of the tokenizer that made them


def read_captions(
    captions_of_images: Sequence[list[str]], reader: TextReader, label_reader: TextReader | None
) -> TrainingTexts:
    """Turn every distinct caption into what the text tower takes, once and before training.

    For LIFT this is where the frozen language model reads. From now on a caption is its vector, in
    a file of the cache.
    """
    captions = DistinctCaptions(captions_of_images)
    begun = time.time()
    inputs, cut_share = reader.read(captions)
    seconds = time.time() - begun
    label_tokens, label_fingerprint = None, ""
    if label_reader:
        label_tokens, _ = label_reader.read(captions)
        label_fingerprint = label_reader.fingerprint
    return TrainingTexts(
        captions,
        inputs,
        cut_share,
        reader.fingerprint,
        reader.frozen_parameters,
        seconds,
        label_tokens,
        label_fingerprint,
    )


def check_texts(cfg: Config, texts: TrainingTexts, batch_size: int) -> None:
    """BadInput where nothing can be told apart: the loss would be 0, and the accuracy 100 %."""
    if len(texts.captions) < 2:
        raise BadInput(
            f"{cfg.data}: all training captions are the same ({texts.captions[0]!r}); there is "
            "nothing to tell apart"
        )
    if batch_size < 2 and lift.METHODS[cfg.method].loss is lift.info_nce:
        raise BadInput(
            "a batch of one image has no other caption to be told apart from; give a larger "
            "--batch-size, or more images"
        )


def wants_lda(cfg: Config) -> bool:
    """Does the text tower map its vectors by --text-map lda?"""
    whitens = lift.METHODS[cfg.method].text is lift.LLMVectors and cfg.whiten != 0
    return cfg.text_map == "lda" and whitens


def directions_for(cfg: Config, n_captions: int, width: int) -> int:
    """How many directions the captions' vectors of this width are whitened to.

    By default 256, but not more than the vectors have, and not more than a quarter of the captions:
    a direction that few captions vary along is not known well. With fewer than 64 captions a
    quarter would be too few to tell them apart. Then there are 16, or half as many as captions if
    that is less. Three captions would get one direction. At unit length a vector of one number is
    +1 or -1, so two of the three would be equal. So the vectors of three captions or fewer are only
    centred: 0. With few captions the number is printed.
    """
    if cfg.whiten is not None:
        return cfg.whiten
    most = min(256, width)
    few = max(n_captions // 4, min(n_captions // 2, 16)) if n_captions > 3 else 0
    if few < most:
        what = f"whitened to {few} directions" if few else "only centred"
        print(
            f"note: {n_captions} distinct captions are few, so their vectors are {what} (--whiten)",
            file=sys.stderr,
        )
    return min(few, most)


def with_whitening(cfg: Config, texts: TrainingTexts, parent: dict | None) -> Config:
    """The configuration with directions and power of whitening decided, where none are named.

    parent  the run to begin with. Its whitening is taken, so it has decided the directions
    """
    if lift.METHODS[cfg.method].text is lift.LLMVectors and not parent:
        width = texts.inputs[:1].shape[-1]
        cfg = replace(cfg, whiten=directions_for(cfg, len(texts.inputs), width))
    if cfg.whiten_power is None:
        cfg = replace(cfg, whiten_power=0.0 if wants_lda(cfg) else 0.5)
    return cfg


def build_model(
    cfg: Config,
    texts: TrainingTexts,
    map_texts: TrainingTexts,
    device: torch.device,
    parent: dict | None = None,
) -> lift.TwoTower:
    """The model of a method, with what its text tower makes of the captions, and its weights.

    texts      those of training
    map_texts  those that the text tower is fitted on: the same, but for --map-caption-key
    parent     the run whose weights it begins with. What `fit` made for its text tower is taken,
               too
    """
    method = lift.METHODS[cfg.method]
    settings = asdict(cfg)
    captions = map_texts.captions if wants_lda(cfg) else None
    label_fitted = ()
    if parent:
        fitted, label_fitted = lift.fitted_of(method, parent["model"])
    else:
        fitted = method.text.fit(
            map_texts.inputs, directions=cfg.whiten, power=cfg.whiten_power, captions=captions
        )
        if method.labels:
            label_fitted = lift.WordLabels.fit(texts.label_tokens)
    image_width = None
    if cfg.image_features:
        image_width = OutsideVectors(cfg.image_features).vectors.shape[-1]
    llama = None
    if method.text.needs_llama:
        llama = lift.live_llama(select(TextSource, settings))
    sizes = select(lift.Sizes, settings)
    try:
        model = lift.TwoTower(
            cfg.method, sizes, fitted, cfg.unlock, image_width, llama, label_fitted
        )
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        raise BadInput(
            "the model is too large for the memory of this machine; take a smaller --embed-dim, "
            "--context-length, --text-width or --model"
        ) from None
    if cfg.image_weights:
        load_image_weights(cfg, model.visual)
    if parent:
        # A head that is solved for has no weights to begin with.
        solved = {
            name: weight
            for name, weight in model.state_dict().items()
            if name.split(".")[0] in heads_to_solve(model)
        }
        weights = parent["model"] | solved
        problem = mismatch(weights, model, "this run wants")
        if problem:
            raise BadInput(
                f"--init-from {cfg.init_from}: {problem}; leave the flags of the model out"
            )
        model.load_state_dict(weights)
    return model.to(device).train()


def open_image_inputs(
    cfg: Config, images: CaptionedImages, tower: nn.Module, device: torch.device
) -> Crops | ImageViews:
    """What the image side takes: crops of images, or vectors where the image tower is frozen.

    A frozen tower reads each image once, before training, as the frozen language model does.
    """
    if cfg.image_features:
        return outside_views(cfg.image_features, images.names, cfg.seed, device)
    crops = Crops(images, cfg.crop_scale, cfg.seed, device)
    if any(parameter.requires_grad for parameter in tower.parameters()):
        return crops
    n_views = cfg.image_views if cfg.crop_scale < 1 else 1  # without crops, all views are the same
    settings = [cfg.model, n_views, cfg.crop_scale, cfg.image_size, cfg.seed]
    return read_views(tower, crops, images.digests, n_views, settings, cfg.seed, device)


def make_batches(
    cfg: Config,
    images: CaptionedImages,
    texts: TrainingTexts,
    image_inputs: Crops | ImageViews,
    batch_size: int,
    device: torch.device,
) -> Batches:
    """Batches of some images and what was made of them and of their captions."""
    return Batches(
        images,
        texts.captions,
        texts.inputs,
        image_inputs,
        batch_size=batch_size,
        seed=cfg.seed,
        long_share=cfg.long_share,
        device=device,
        label_tokens=texts.label_tokens,
    )


def hash_of_data(
    cfg: Config, images: CaptionedImages, texts: TrainingTexts, image_inputs: Crops | ImageViews
) -> str:
    """A hash of all that a run learns from. It must not change on resuming."""
    h = hashlib.blake2b(digest_size=12)
    h.update(texts.captions.fingerprint.encode() + images.digests.tobytes())
    # A user may add rows to a file of vectors. So not the file counts, but what is taken from it.
    if cfg.text_features:
        h.update(texts.inputs.numpy().tobytes())
    else:
        h.update(texts.fingerprint.encode())
    if cfg.image_features:
        h.update(image_inputs.vectors.numpy().tobytes())
    else:
        h.update(image_inputs.fingerprint.encode())
    h.update(texts.label_fingerprint.encode())
    return h.hexdigest()


def heads_to_solve(model: lift.TwoTower) -> list[str]:
    """The heads that are solved for, and not trained: those with `solve`. See lift.Ridge."""
    return [name for name in ("image_head", "text_head") if hasattr(getattr(model, name), "solve")]


@torch.no_grad()
def pairs_for(
    head: str, model: lift.TwoTower, batches: Batches, n_batches: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """What a head is solved from: its tower's vectors (B, width), the other side's features (B, D).

    head  "image_head" or "text_head"
    """
    for step in range(n_batches):
        image, text, *_ = batches(step)
        if head == "image_head":
            yield model.image_vectors(image), model.encode_text(text, normalize=True)
        else:
            yield model.text(text), model.encode_image(image, normalize=True)


def go_on(
    checkpoint: dict,
    cfg: Config,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data_fingerprint: str,
    total: int,
) -> int:
    """Put a checkpoint's weights in place and return the step to go on with.

    AdamW's moments come from the checkpoint, too. Its groups, with rate and decay, stay as they
    are: load_state_dict takes "state" and "param_groups", so it gets the old groups again. In
    "state" moments have the number of their parameter, counted over all groups. BadInput, the project's error for what a user gave, is raised where the data are not those
    that the run was started with, where the run is finished, or where the checkpoint does not fit:
    the names or shapes of its weights, or the shapes of its moments. `mismatch` names a weight that
    does not fit. AdamW's load_state_dict does not compare the shapes of exp_avg and exp_avg_sq.

    checkpoint        what `save` wrote. Four of its entries are read here:
                      "data_fingerprint", "step", "model" and "optimizer". The last two are state
                      dictionaries, and "step" is the number of steps that are done
    cfg               only for the words of errors
    model, optimizer  new ones, which are changed in place
    data_fingerprint  that of the data which this program has read now
    total             steps of the whole run
    """
    if checkpoint.get("data_fingerprint") != data_fingerprint:
        raise BadInput(
            f"{cfg.data}, the language model or the frozen image tower is not what it was when "
            f"{cfg.out} was started; bring it back, or start a new run with another --out"
        )
    start = checkpoint["step"]
    if start >= total:
        raise BadInput(
            f"{cfg.out} is finished ({start} of {total} steps); to train longer, begin a new run "
            f"with its weights: --init-from {cfg.out} --data {cfg.data} --lr 2e-4 --out ANOTHER"
        )
    problem = mismatch(checkpoint["model"], model, "its configuration wants")
    if problem:
        raise BadInput(f"{cfg.out}: damaged: {problem}; train again")
    model.load_state_dict(checkpoint["model"])
    # The groups of parameters follow from the configuration: only AdamW's moments are loaded.
    groups = optimizer.state_dict()["param_groups"]
    with interpreting(Path(cfg.out) / "checkpoint.pt"):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, moments in checkpoint["optimizer"]["state"].items():
            shape = parameters[number].shape
            wanted = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
            fits = moments.keys() == wanted.keys() and all(
                moment.dtype == torch.float32 and moment.shape == wanted[name]
                for name, moment in moments.items()
            )
            if not fits:
                raise BadInput(f"damaged: the optimizer's state {number} does not fit; train again")
        optimizer.load_state_dict(checkpoint["optimizer"] | {"param_groups": groups})
    print(f"going on after step {start} of {total}", file=sys.stderr)
    return start


def cost_before(
    method: lift.Method, checkpoint: dict | None, parent: dict | None, trained: int
) -> dict:
    """What a run has cost before this program: the trained parameters, and seconds and images.

    A resumed run adds to what it cost before. One that is made of a run adds to what that cost, and
    the parameters that were trained are those of that run.
    """
    earlier_run = checkpoint or (parent if method.image == "run" else None)
    if earlier_run:
        return dict(earlier_run["cost"])
    return {"trained_parameters": trained, "caption_seconds": 0, "training_seconds": 0, "images": 0}


def say_what_begins(
    cfg: Config, n_images: int, texts: TrainingTexts, total: int, batch_size: int, where: str
) -> None:
    """The first line of a run on stderr, and a warning if there are few steps.

    total  steps of the whole run
    where  the device, in words
    """
    crops = f", crops of {cfg.crop_scale:.0%} or more" if cfg.crop_scale < 1 else ""
    several = f" in {processes.count()} processes" if processes.count() > 1 else ""
    steps = f"{total} steps of {batch_size} in {cfg.epochs} epochs"
    if total == 0:
        steps = "no training step (what is new is solved for)"
    print(
        f"{cfg.method}: {n_images} training images, {len(texts.captions)} distinct captions "
        f"({texts.cut_share:.1%} cut at {cfg.context_length} tokens), {steps}{crops} on "
        f"{where}{several}",
        file=sys.stderr,
    )
    if total and cfg.lr == 0:
        print("warning: with --lr 0 the weights stay as they are", file=sys.stderr)
    if 0 < total < WARN_STEPS:
        print(
            f"warning: {total} steps teach little; take more --epochs or --steps, or a smaller "
            "--batch-size",
            file=sys.stderr,
        )


@dataclass
class Data:
    """What a run reads, once: images, and the vectors of their captions."""

    images: CaptionedImages
    seen: np.ndarray  # digests of the images that this run, and a run before it, trains on
    texts: TrainingTexts
    map_texts: TrainingTexts  # what whitening or another map is fitted on: mostly `texts`
    rows: slice  # the rows of every batch that are for this process
    val_images: CaptionedImages | None
    val_texts: TrainingTexts | None
    n_curve: int  # pairs of the validation curve, and as many training pairs


def read_data(
    cfg: Config, checkpoint: dict | None, parent: dict | None, device: torch.device
) -> tuple[Config, Data]:
    """Read images and captions. Returns the configuration, completed by them, and the data.

    checkpoint  what a resumed run goes on with, or None
    parent      as read_parent gives it
    """
    reader, label_reader = open_texts(cfg, device)
    if parent and not checkpoint:
        check_same_texts(cfg, reader, parent)
    images = read_training_images(cfg)
    seen = seen_digests(images, parent)
    val_images = read_val_images(cfg, seen)
    n_curve = min(MAX_CURVE, len(images), len(val_images or ()))
    cfg = sized(cfg, len(images), n_curve)
    check_images(cfg, images, val_images)
    map_captions = None
    if cfg.map_caption_key and wants_lda(cfg) and not parent:
        map_captions = read_map_captions(cfg, images)
    # With several processes each has an equal part of every batch.
    rows = own_rows(min(cfg.batch_size, len(images)))
    texts = map_texts = read_captions(images.captions, reader, label_reader)
    check_texts(cfg, texts, min(cfg.batch_size, len(images)))
    if map_captions:
        map_texts = read_captions(map_captions, reader, None)
    val_texts = read_captions(val_images.captions, reader, label_reader) if val_images else None
    # With the readers the frozen language model goes. Some objects point at each other, so
    # Python's collector has to look for them.
    del reader, label_reader
    gc.collect()
    cfg = with_whitening(cfg, map_texts, parent)
    return cfg, Data(images, seen, texts, map_texts, rows, val_images, val_texts, n_curve)


def make_curve_batches(
    cfg: Config,
    data: Data,
    image_inputs: Crops | ImageViews,
    tower: nn.Module,
    device: torch.device,
) -> dict[str, Batch]:
    """The validation curve's batch of validation images, which are not cropped, and its batch of
    training images. The dict is empty where there are no validation images.

    image_inputs  those of the training images
    tower         the image tower; a frozen one reads the validation images here
    """
    if not data.val_images:
        return {}
    whole = replace(cfg, crop_scale=1.0)
    val_inputs = open_image_inputs(whole, data.val_images, tower, device)
    val_batches = make_batches(
        cfg, data.val_images, data.val_texts, val_inputs, data.n_curve, device
    )
    train_batches = make_batches(cfg, data.images, data.texts, image_inputs, data.n_curve, device)
    # The batch of step 0: n_curve images in random order, with one caption each.
    return {"val": val_batches(0), "train": train_batches(0)}


def set_up(cfg: Config) -> Job:
    """Read data, language model and weights, and make what the loop needs. No step is made yet.

    A head that is solved for, and not trained, is solved here. (lift.Ridge)

    Raises BadInput for what cannot go on. Flags and files are checked first, as far as that is
    possible without the data.
    """
    # ---- What is asked for.
    device = pick_device(cfg.device)
    cfg, checkpoint = open_checkpoint(cfg)
    bf16 = trains_in_bf16(cfg.precision, device)
    # The run keeps what "auto" was, not the word: it may go on elsewhere.
    precision = "amp_bf16" if bf16 else "fp32"
    cfg = replace(cfg, precision=precision, llm_dtype=pick_dtype(cfg.llm_dtype, device))
    method = lift.METHODS[cfg.method]
    check_reports(cfg.report_to)
    check_files(cfg)
    check_machine(device, cfg.device)
    is_compiled = compiles(cfg.torchcompile, device)
    parent = read_parent(cfg, checkpoint)

    # ---- The data. Captions and, for a frozen tower, images are read here, once.
    cfg, data = read_data(cfg, checkpoint, parent, device)
    images, texts = data.images, data.texts

    # ---- The model, its batches, the optimizer.
    # The seed is that of the first weights. Batches and crops have generators of their own.
    torch.manual_seed(cfg.seed)
    model = build_model(cfg, texts, data.map_texts, device, parent)
    image_inputs = open_image_inputs(cfg, images, model.visual, device)
    batches = make_batches(cfg, images, texts, image_inputs, cfg.batch_size, device)
    curve_batches = make_curve_batches(cfg, data, image_inputs, model.visual, device)
    data_fingerprint = hash_of_data(cfg, images, texts, image_inputs)
    optimizer = make_optimizer(cfg, model)
    by_part, trained, parameters = count_parameters(model, texts.frozen_parameters)
    n_batches = min(cfg.steps or math.inf, cfg.epochs * batches.steps_per_epoch)
    # A head that is solved for reads the batches that training would read.
    if not checkpoint:
        for name in heads_to_solve(model):
            getattr(model, name).solve(pairs_for(name, model, batches, n_batches))
    # TF32 on NVIDIA's GPUs. Not earlier: captions' vectors and solved heads are of float32.
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    total = n_batches if trained else 0  # steps of training
    start = 0
    if checkpoint:
        start = go_on(checkpoint, cfg, model, optimizer, data_fingerprint, total)
    processes.copy_from_first(model)
    if is_compiled:
        model.compile()  # in place, so names in the checkpoint stay as they are

    # ---- What the run says and keeps.
    where = f"{device}{' in bf16' if bf16 and total else ''}"
    say_what_begins(cfg, len(images), texts, total, batches.size, where)
    print(f"trained parameters: {by_part}", file=sys.stderr)
    Path(cfg.out).mkdir(parents=True, exist_ok=True)
    decayed = [group["params"] for group in optimizer.param_groups if group["weight_decay"]]
    first_entry = {
        "config": asdict(cfg),
        "step": start,
        **machine(device),
        "processes": processes.count(),
        "trained": trained,
        "parameters": parameters,
        "decayed": sum(p.numel() for group in decayed for p in group),
        "skipped": images.unusable,
    }
    cost = cost_before(method, checkpoint, parent, trained)
    cost["parameters"] = parameters
    cost["caption_seconds"] += texts.seconds
    if data.map_texts is not texts:
        cost["caption_seconds"] += data.map_texts.seconds
    curve = checkpoint["curve"] if checkpoint else []
    if device.type == "cuda":  # the memory in the log is that of training, not of reading captions
        torch.cuda.reset_peak_memory_stats(device)
    run_log = RunLog(Path(cfg.out), first_entry, total, batches.size, cost, curve, cfg.report_to)
    about = {
        "data_fingerprint": data_fingerprint,
        "text_fingerprint": texts.fingerprint,
        "image_fingerprint": image_inputs.fingerprint,
        SEEN: torch.from_numpy(data.seen[:MAX_SEEN].view(np.int64)),
        "captions": [texts.captions[i] for i in (0, len(texts.captions) // 2, -1)],
    }
    return Job(
        cfg, model, optimizer, batches, data.rows, curve_batches, run_log, start, total, about
    )


def main() -> None:
    with processes.joined():
        train(from_cli())


if __name__ == "__main__":
    sys.exit(exit_status(main))
