"""Training batches: pictures in an order drawn from (seed, epoch), one caption of each, as the two towers take them."""

import hashlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from data.images import pixels


class Batches:
    """Training batches, by step; any step can be asked for at any time.

    texts   records.DistinctCaptions of the pictures' captions; inputs[i] is what the text tower takes for texts[i]
    look    (indices of pictures, step) -> what the image tower takes: Crops, or for a frozen one ImageViews
    """

    def __init__(self, pictures, texts, inputs, look, cfg, device):
        self.pictures, self.texts, self.inputs, self.look, self.cfg, self.device = (
            pictures,
            texts,
            inputs,
            look,
            cfg,
            device,
        )
        self.number, self.waited = (
            None,
            0.0,
        )  # of the epoch that is drawn; seconds for which training waited
        self.size = min(cfg.batch_size, len(pictures))
        if self.size < cfg.batch_size:
            print(
                f"--batch-size {cfg.batch_size}: there are only {len(pictures)} pictures, so each step has all of them",
                file=sys.stderr,
            )
        self.steps_per_epoch = (
            len(pictures) // self.size
        )  # a ragged last batch would be another task: fewer negatives

    def epoch(self, number):
        """The order of the pictures in one epoch, (N,), and a draw in [0, 1) for each picture's caption, (N,)."""
        if number != self.number:
            rng = np.random.default_rng((self.cfg.seed, number))
            self.number, self.drawn = (
                number,
                (rng.permutation(len(self.pictures)), rng.random(len(self.pictures))),
            )
        return self.drawn

    def choose(self, captions, draw):
        """One of a picture's captions, the longest of which is last, by a draw in [0, 1)."""
        share = self.cfg.long_share
        if share is None or len(captions) == 1:
            return captions[int(draw * len(captions))]
        if draw < share:
            return captions[-1]
        return captions[int((draw - share) / (1 - share) * (len(captions) - 1))]

    def data_fingerprint(self, text_fingerprint):
        """Hash of all that a run learns from; text_fingerprint is that of what made the inputs."""
        content = (
            text_fingerprint + self.look.fingerprint + self.texts.fingerprint
        ).encode() + self.pictures.digests.tobytes()
        content += (
            self.inputs.numpy().tobytes() if self.cfg.text_features else b""
        )  # (a OutsideVectors's fingerprint covers its first 100 rows only)
        content += self.look.vectors.numpy().tobytes() if self.cfg.image_features else b""
        return hashlib.blake2b(content, digest_size=12).hexdigest()

    def __call__(self, step):
        """images (B, ...) and texts (B, ...) as the towers take them, duplicates (B, B) bool; on the device."""
        number, i = divmod(step, self.steps_per_epoch)
        order, draw = self.epoch(number)
        which = order[i * self.size : (i + 1) * self.size]
        choices = [torch.from_numpy(self.texts.of(j)) for j in which]
        theirs = nn.utils.rnn.pad_sequence(choices, True, -1)  # (B, C)
        captions = torch.stack(
            [self.choose(own, draw[j]) for own, j in zip(choices, which)]
        )  # (B,)
        same = torch.from_numpy(self.pictures.digests[which].view(np.int64))
        fits = (theirs[:, :, None] == captions).any(
            1
        )  # (B, B): does j's caption describe picture i too?
        duplicates = fits | fits.T | (same[:, None] == same)
        return self.look(which, step), *(
            on_device(t, self.device) for t in (self.inputs[captions], duplicates)
        )

    def ahead(self, start, end):
        """(step, its batch) for each step; the next one is made in a thread while a step computes."""
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(self, start)
            for step in range(start, end):
                asked = time.time()
                batch = coming.result()
                coming = thread.submit(self, step + 1) if step + 1 < end else None
                self.waited += time.time() - asked
                yield step, batch


def on_device(tensor, device):
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class Crops:
    """CaptionedImages for an image tower that is trained: (indices, step) -> (B, 3, S, S), cropped anew in every step."""

    fingerprint = ""

    def __init__(self, pictures, cfg, device):
        self.pictures, self.cfg, self.device = pictures, cfg, device

    def __call__(self, which, step):
        images = pixels.normalize_pixels(
            on_device(torch.from_numpy(self.pictures.pixels(which)), self.device)
        )
        if self.cfg.crop_scale == 1:
            return images
        return pixels.random_crops(
            images,
            self.cfg.crop_scale,
            torch.Generator().manual_seed(self.cfg.seed * 1_000_003 + step),
        )
