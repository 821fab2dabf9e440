"""Train one row of lift.METHODS on one GPU or a CPU.

    python train.py                                  # LIFT on the built-in shapes
    python train.py --method clip --out runs/clip    # the baseline: same data, same image tower
    python train.py --data captions.csv              # your own pictures
    python train.py --resume runs/lift               # go on where a run stopped

A run folder holds checkpoint.pt (model, optimizer, step, configuration) and log.jsonl (one JSON object a line).
Everything random is a pure function of (seed, epoch) or (seed, step). So a run that was stopped and resumed equals
one that was not, bit for bit on a CPU, and the checkpoint needs no state of any random generator.
"""

import argparse
import json
import math
import re
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import lift
from data.batches import Batches, Crops
from data.captions import DistinctCaptions
from data.common import BadInput, pick_device, run, stop_signals
from data.files.runs import read_run, save_tensors
from data.images import pixels
from data.images import read as readers
from data.report import log_line, machine, memory_gb, parameters
from data.vectors import ImageViews
from data.world import shapes
from llm_text import POOLS
from vit import KINDS, SIZES


def flag(default, help, **more):
    return field(default=default, metadata={"help": help, **more})


@dataclass
class Config:
    """Everything that decides a run. The command line is made from it; names are open_clip's where it has them."""

    method: str = flag("lift", "which row of the table in lift.py", choices=list(lift.METHODS))
    data: str = flag(
        "shapes",
        f"{', '.join(shapes.WORLDS)}, csv, tsv, jsonl, json, tar shards, a folder, a pack (data/formats.py)",
    )
    val_data: str = flag(
        "", "pictures to evaluate on (default: the built-in test scenes, or a tenth of --data)"
    )
    train_num_samples: int = flag(
        0,
        "at most the first so many training pictures (0: all; built-in: 20,000, 4 views of a scene)",
        low=0,
    )
    csv_separator: str = flag("", "column separator (default: found in the header)")
    csv_img_key: str = flag(
        "", "column of picture paths, or field (default: filepath, image or file_name)"
    )
    csv_caption_key: str = flag(
        "",
        "column of captions or field (default: title, caption or text; shapes: short, paraphrase, long, mixed)",
    )
    image_root: str = flag(
        "", "folder that pictures' paths are relative to (default: that of the file)"
    )
    model: str = flag(
        "micro/8", "image tower", choices=[name + kind for kind in KINDS for name in SIZES]
    )
    image_size: int = flag(40, "side of the pictures in pixels", low=1)
    image_pool: str = flag(
        "avg", "image pooling: mean of the patches, or a class token", choices=["avg", "tok"]
    )
    image_weights: str = flag(
        "",
        "pretrained image tower: a run folder, or a timm or Hugging Face ViT (.safetensors, .pth)",
    )
    image_norm: str = flag(
        "clip",
        "pixel mean and std that those weights expect: CLIP's, ImageNet's (DeiT), or 0.5 (most of "
        "timm's and Hugging Face's ViTs)",
        choices=list(pixels.PIXEL_NORMS),
    )
    image_features: str = flag(
        "",
        "in place of a frozen image tower, its vectors: FILE.npy, named by FILE.txt (lit, ape rows)",
    )
    image_views: int = flag(
        4,
        "with --crop-scale < 1: random crops that a frozen image tower reads of each picture",
        low=1,
    )
    unlock: str = flag(
        "",
        "train these parts of both towers, with heads and scale, in place of the row's",
        choices=["", *lift.UNLOCK],
    )
    embed_dim: int = flag(
        128,
        "shared dimension where both towers have a head (lift: --whiten; lit, ape: the image tower's width)",
        low=1,
    )
    text_width: int = flag(64, "width of a text transformer from scratch", low=1)
    text_depth: int = flag(4, "blocks of that text transformer", low=1)
    text_heads: int = flag(2, "attention heads of that text transformer", low=1)
    context_length: int = flag(77, "tokens of a caption at most", low=2)
    llm: str = flag(
        "",
        "frozen language model: GGUF file or Hugging Face folder (default: SmolLM2-135M-Instruct)",
    )
    llm_adapter: str = flag("", "adapter for it, from llm_text.py --tune")
    text_features: str = flag(
        "", "in place of a frozen LLM, its vectors: FILE.npy, named by FILE.txt"
    )
    llm_dtype: str = flag(
        "float32",
        "precision of the language model (bfloat16: half the memory)",
        choices=["float32", "bfloat16"],
    )
    pool: str = flag(
        "mean",
        "how the LLM's hidden states become one vector",
        choices=[p for p in POOLS if p != "tokens"],
    )
    layer: int = flag(
        0,
        "read the LLM after this block (lilt: keep only so many; 0: the pooling's own default)",
        low=0,
    )
    whiten: int = flag(
        128, "whiten LLM vectors to this many directions (0: only centre them)", low=0
    )
    long_share: float = flag(
        None,
        "draw a picture's longest caption this often (default: all its captions alike)",
        low=0,
        high=1,
    )
    batch_size: int = flag(256, "pictures a step", low=1)
    epochs: int = flag(4, "passes over the pictures; each shows one caption a picture", low=1)
    steps: int = flag(
        0, "at most this many steps, the schedule included (0: as --epochs says)", low=0
    )
    lr: float = flag(3e-3, "peak learning rate", low=0, high=1)
    beta1: float = flag(0.9, "AdamW's beta1", low=0, high=0.9999)
    beta2: float = flag(0.98, "AdamW's beta2", low=0, high=0.9999)
    eps: float = flag(1e-6, "AdamW's epsilon", low=0, high=1)
    wd: float = flag(0.2, "weight decay of matrices", low=0)
    warmup: int = flag(
        500, "steps of linear warm-up, a tenth of all at most; then cosine to 0", low=0
    )
    grad_clip_norm: float = flag(1.0, "clip the gradient's norm (0: never)", low=0)
    crop_scale: float = flag(
        1.0,
        "random resized crops keep at least this share of the picture (1: no augmentation)",
        low=0.01,
        high=1,
    )
    precision: str = flag(
        "auto", "auto: bf16 autocast on CUDA, else fp32", choices=["auto", "amp_bf16", "fp32"]
    )
    torchcompile: bool = flag(None, "compile the model (default: on CUDA only)")
    device: str = flag("auto", "auto, cpu, cuda")
    seed: int = flag(0, "initial weights, batch order, captions, crops", low=0)
    log_every_n_steps: int = flag(50, "interval of the log", low=1)
    save_frequency: int = flag(200, "interval of checkpoints, in steps", low=1)
    out: str = flag("", "run folder (default: runs/METHOD)")
    resume: str = flag("", "run folder to go on with; flags that were not given come from it")

    def __post_init__(self):
        for f in fields(self):
            value, low, high = (
                getattr(self, f.name),
                f.metadata.get("low"),
                f.metadata.get("high", math.inf),
            )
            if f.metadata.get("choices") and value not in f.metadata["choices"]:
                raise BadInput(
                    f"--{f.name.replace('_', '-')} {value!r} is unknown; choose one of {', '.join(f.metadata['choices'])}"
                )
            if low is not None and value is not None and not low <= value <= high:
                raise BadInput(
                    f"--{f.name.replace('_', '-')} {value} is out of range; it lies between {low} and {high}"
                )
        if self.text_width % self.text_heads:
            raise BadInput(
                f"--text-width {self.text_width} cannot be shared by --text-heads {self.text_heads}"
            )
        if self.resume and self.out not in ("", self.resume):
            raise BadInput(
                f"--resume {self.resume} goes on in that folder; leave --out {self.out} out"
            )
        row = lift.METHODS[self.method]
        if (row.image == "pretrained") != bool(self.image_weights or self.image_features):
            raise BadInput(
                f"--method {self.method} starts from a pretrained image tower; name one with --image-weights (make one "
                "with --method supervised)"
                if row.image == "pretrained"
                else f"--method {self.method} starts from scratch; leave --image-weights and --image-features out"
            )
        if self.image_features and (
            self.image_weights or self.unlock or re.match(row.trains, "visual.norm.weight")
        ):
            raise BadInput(
                "--image-features stands for a frozen image tower, so it goes with --method lit or an ape row and without "
                "--image-weights and --unlock"
            )
        if self.text_features and (
            not issubclass(row.text, lift.LLMVectors) or self.llm or self.llm_adapter
        ):
            raise BadInput(
                "--text-features stands for a frozen LLM, so it goes with --method lift, lift_cos, llm2clip, ape or ape_transformer, "
                "and without --llm and --llm-adapter"
            )
        if self.llm_adapter and not issubclass(row.text, (lift.LLMVectors, lift.LiveLLM)):
            raise BadInput(
                f"--llm-adapter changes a language model, of which --method {self.method} uses the tokenizer only"
            )
        self.out = self.resume or self.out or f"runs/{self.method}"


# What may differ when a run is resumed: where and how it is computed, not what.
FREE_ON_RESUME = ("device", "torchcompile", "log_every_n_steps", "save_frequency", "out", "resume")


def from_cli(argv=None):
    """Command line -> Config. With --resume, flags that are not given come from the run."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        allow_abbrev=False,
        usage="python train.py [--flag value ...]   (--help lists the flags)",
    )
    for f in fields(Config):
        kind = (
            {"action": argparse.BooleanOptionalAction}
            if f.type is bool
            else {"type": f.type, "choices": f.metadata.get("choices")}
        )
        default = "" if f.default in ("", None) else f" (default: {f.default})"
        parser.add_argument(
            "--" + f.name.replace("_", "-"),
            default=argparse.SUPPRESS,
            help=f.metadata["help"] + default,
            **kind,
        )
    given = vars(parser.parse_args(argv))
    before = read_run(given["resume"])["config"] | {"out": ""} if "resume" in given else {}
    return Config(**before | given)


# ---------------------------------------------------------------------------------------------------------------
# The schedule, the optimizer's groups, the loop.


def lr_at(step, total, cfg):
    """Linear warm-up, then cosine to zero; a pure function of the step."""
    warmup = min(cfg.warmup, total // 10)
    if step < warmup:
        return cfg.lr * (step + 1) / warmup
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def parameter_groups(model, wd, image_rate=1.0):
    """Weight decay for matrices only: biases, norms and the scale have fewer dimensions, positions three. `rate` is the
    group's share of the learning rate: image_rate in the image tower, else 1."""
    groups = defaultdict(list)
    for name, p in model.named_parameters():
        if p.requires_grad:
            groups[
                wd if p.ndim == 2 else 0.0, image_rate if name.startswith("visual.") else 1.0
            ].append(p)
    return [
        {"params": params, "weight_decay": decay, "rate": rate}
        for (decay, rate), params in groups.items()
    ]


def train(cfg):
    """Train as the configuration says; returns the last log entry as a dict. Raises BadInput for what cannot go on."""
    device = pick_device(cfg.device)
    on_gpu = device.type == "cuda"
    out, row, checkpoint = Path(cfg.out), lift.METHODS[cfg.method], None
    if cfg.resume:
        checkpoint = read_run(out)
        for name, value in checkpoint["config"].items():
            if name not in FREE_ON_RESUME and getattr(cfg, name) != value:
                raise BadInput(
                    f"{out} was made with --{name.replace('_', '-')} {value}, not {getattr(cfg, name)}; leave "
                    "the flag out to go on, or start a new run with another --out"
                )
    elif (out / "checkpoint.pt").exists():
        raise BadInput(
            f"{out} already holds a run; go on with it (--resume {out}), remove it, or choose another --out"
        )
    for name in (
        "image_weights",
        "image_features",
        "text_features",
        "llm_adapter",
    ):  # a typo should show now, not later
        if getattr(cfg, name) and not Path(getattr(cfg, name)).exists():
            raise BadInput(
                f"--{name.replace('_', '-')} {getattr(cfg, name)}: no such file or folder"
            )
    torch.manual_seed(cfg.seed)
    bf16 = cfg.precision == "amp_bf16" or cfg.precision == "auto" and on_gpu

    columns = cfg.csv_separator, cfg.csv_img_key, cfg.csv_caption_key, cfg.image_root
    if cfg.val_data:  # now, so that what is wrong with it shows before training
        readers.read_images(cfg.val_data, "test", cfg.image_size, 0, *columns, whole=True)
    pictures = readers.read_images(
        cfg.data, "train", cfg.image_size, cfg.train_num_samples, *columns, whole=bool(cfg.val_data)
    )
    tokenize = row.text.tokenizer(cfg, device)
    captions = DistinctCaptions(pictures.captions)
    inputs = tokenize.rows(captions)  # (distinct captions, ...)
    text_fingerprint, cut, cached = tokenize.fingerprint, tokenize.cut, tokenize.frozen_parameters
    del tokenize  # and with it the language model: every caption has been read
    model = lift.TwoTower(cfg, row.text.fit(cfg, inputs)).to(device).train()
    frozen = not any(p.requires_grad for p in model.visual.parameters())
    look = (
        ImageViews(pictures, cfg, device, model.visual) if frozen else Crops(pictures, cfg, device)
    )  # what the image tower takes
    batches = Batches(pictures, captions, inputs, look, cfg, device)
    data_fingerprint = batches.data_fingerprint(text_fingerprint)
    seen_digests = torch.from_numpy(
        np.sort(pictures.digests)[:10_000].view(np.int64)
    )  # a sample, by which eval.py knows them again
    torch.set_float32_matmul_precision(
        "high"
    )  # TF32 on GPUs that have it; not earlier, or it would change the captions
    optimizer = torch.optim.AdamW(
        parameter_groups(model, cfg.wd, row.image_rate),
        lr=cfg.lr,
        betas=(cfg.beta1, cfg.beta2),
        eps=cfg.eps,
        fused=on_gpu,
    )
    total, start = min(cfg.steps or math.inf, cfg.epochs * batches.steps_per_epoch), 0
    if checkpoint:
        if checkpoint["data_fingerprint"] != data_fingerprint:
            raise BadInput(
                f"{cfg.data}, the language model or the frozen image tower is not what it was when {out} was "
                "started; bring it back, or start a new run with another --out"
            )
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        start = checkpoint["step"]
        if start >= total:
            raise BadInput(
                f"{out} is finished ({start} of {total} steps); for a longer run start a new one with another --out"
            )
        print(f"going on after step {start} of {total}", file=sys.stderr)
    if on_gpu if cfg.torchcompile is None else cfg.torchcompile:
        model.compile()  # in place, so names in the checkpoint stay as they are

    by_part, trained, everything = parameters(model, cached)
    print(
        f"{cfg.method}: {len(pictures)} training pictures, {len(captions)} distinct captions ({cut:.1%} cut at {cfg.context_length} tokens), "
        f"{total} steps of {batches.size} on {device}{' in bf16' if bf16 else ''}\ntrained parameters: {by_part}",
        file=sys.stderr,
    )
    out.mkdir(parents=True, exist_ok=True)
    log = open(out / "log.jsonl", "a", buffering=1)
    log.write(
        json.dumps(
            {
                "config": asdict(cfg),
                "step": start,
                **machine(device),
                "trained": trained,
                "parameters": everything,
                "skipped": pictures.skipped,
            }
        )
        + "\n"
    )

    begun = since = time.time()
    seen = 0
    with (
        stop_signals() as stop,
        tqdm(total=total, initial=start, unit="step", dynamic_ncols=True, disable=None) as bar,
    ):
        for step, (images, texts, duplicates) in batches.ahead(start, total):
            # ---- the training step ---------------------------------------------------------------------------
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step, total, cfg) * group["rate"]
            with torch.autocast(
                device.type, torch.bfloat16, enabled=bf16
            ):  # but normalising, loss, whitening: float32
                features = model(
                    images, texts
                )  # image and text (B, D) of unit length, and the scale
                loss = row.loss(**features, duplicates=duplicates)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(
                model.parameters(), cfg.grad_clip_norm or math.inf
            )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            model.logit_scale.data.clamp_(0, math.log(100))  # the scale stays in [1, 100]
            # ---- below: diagnostics --------------------------------------------------------------------------

            done = step + 1
            seen += len(texts)
            bar.update()
            save = done % cfg.save_frequency == 0 or done == total or stop
            if save or done % cfg.log_every_n_steps == 0 or done == start + 1:
                best = (
                    features["image_features"].float() @ features["text_features"].float().T
                ).argmax(1, keepdim=True)  # (B, 1)
                right = duplicates.gather(1, best).float().mean()
                now = time.time()
                speed = seen / (now - since)
                entry = {
                    "step": done,
                    "loss": loss.item(),
                    "ln_batch": math.log(len(texts)),
                    "accuracy": right.item(),
                    "scale": model.logit_scale.exp().item(),
                    "lr": lr_at(step, total, cfg),
                    "grad_norm": norm.item(),
                    "images_per_second": speed,
                    "data_wait": batches.waited / (now - since),
                    "memory_gb": memory_gb(device),
                    "eta_seconds": (total - done) * len(texts) / speed,
                    "seconds": now - begun,
                }
                bar.write(log_line(entry, total), file=sys.stderr)
                log.write(json.dumps(entry) + "\n")
                since, seen, batches.waited = time.time(), 0, 0.0
                if not math.isfinite(
                    entry["loss"] + entry["grad_norm"]
                ):  # the parameters are spoilt
                    raise BadInput(
                        f"the loss is {entry['loss']} and its gradient's norm {entry['grad_norm']} at step {done}; stopped. "
                        "The last good checkpoint is kept; lower --lr, or look for extreme values in the data"
                    )
            if save:
                save_tensors(
                    {
                        "config": asdict(cfg),
                        "step": done,
                        "data_fingerprint": data_fingerprint,
                        "text_fingerprint": text_fingerprint,
                        "image_fingerprint": look.fingerprint,
                        "seen": seen_digests,
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                    },
                    out / "checkpoint.pt",
                )
            if stop:
                bar.close()
                print(
                    f"stopped after step {done} of {total}, saved; go on with: python train.py --resume {out}",
                    file=sys.stderr,
                )
                raise SystemExit(128 + stop[0])
    log.close()
    print(f"saved {out / 'checkpoint.pt'}; next: python eval.py {out}", file=sys.stderr)
    return entry


def main():
    train(from_cli())


if __name__ == "__main__":
    sys.exit(run(main))
