"""Training batches: which images, which caption of each, and which pairs are masked.

Read `Batches.__call__` first: it is one batch, from numbers to tensors. Everything random in a
batch is a pure function of (seed, epoch) or (seed, step). So a run that was stopped and resumed
sees the same batches as one that was not, and no state of a random generator has to be saved.

Letters of shapes: N images of the data set, B images of a batch, C captions of the image that has
the most, S pixels per side.
"""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from data.captions import DistinctCaptions
from data.common import to_device
from data.images.pixels import normalize_pixels, random_crops
from data.images.read import CaptionedImages

WHOLE = slice(None)  # all rows of a batch


class Batch(NamedTuple):
    """What a training step gets. All tensors are on the device.

    With several processes each gets its own rows of images, texts and label_tokens, and all of
    duplicates.
    """

    images: Tensor  # (B, ...), as the image tower takes them
    texts: Tensor  # (B, ...), as the text tower takes them
    duplicates: Tensor  # (B, B) bool: image i and caption j match; see find_duplicates
    label_tokens: Tensor | None  # (B, L): token ids of the same captions, for a method with labels


class Batches:
    """Training batches, by step. Any step can be asked for at any time.

    images        the training images
    captions      their distinct captions
    inputs        inputs[i] is what the text tower takes for captions[i]
    image_inputs  (indices of images (B,), step, rows) -> what the image tower takes: `Crops`, or
                  vectors.ImageViews for a frozen tower
    long_share    draw an image's longest caption this often; None: all its captions alike
    label_tokens  label_tokens[i] are the token ids of captions[i], for a method with labels
    """

    def __init__(
        self,
        images: CaptionedImages,
        captions: DistinctCaptions,
        inputs,
        image_inputs: Callable[[np.ndarray, int, slice], Tensor],
        *,
        batch_size: int,
        seed: int,
        long_share: float | None,
        device: torch.device,
        label_tokens=None,
    ):
        self.images = images
        self.captions = captions
        self.inputs = inputs
        self.label_tokens = label_tokens
        self.image_inputs = image_inputs
        self.seed = seed
        self.long_share = long_share
        self.device = device
        self.size = min(batch_size, len(images))
        if self.size < batch_size:
            print(
                f"--batch-size {batch_size}: there are only {len(images)} images, so each step has "
                "all of them",
                file=sys.stderr,
            )
        # A smaller last batch would be another task, with fewer negatives. It is left out.
        self.steps_per_epoch = len(images) // self.size
        self.drawn_epoch = None
        self.drawn = None

    def epoch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the images in one epoch, (N,), and for each image a number in [0, 1), (N,).

        The second one draws the image's caption. Both come from one generator, numpy's
        default_rng((seed, number)): the order is its permutation(N), and after that the numbers are
        its random(N), in float64. So they depend on the seed and the number only, and have nothing
        in common with those of other epochs and seeds. Of the last epoch that was asked for,
        drawn_epoch keeps the number, and drawn what was returned, because all its steps ask.
        """
        if number != self.drawn_epoch:
            rng = np.random.default_rng((self.seed, number))
            order = rng.permutation(len(self.images))
            draws = rng.random(len(self.images))
            self.drawn_epoch, self.drawn = number, (order, draws)
        return self.drawn

    def choose(self, captions: Tensor, draw: float) -> Tensor:
        """One of an image's captions, the longest of which is last, by a number in [0, 1).

        [0, 1) is divided evenly among the captions, in their order. With long_share, a number below
        it draws the longest one, and what is left of [0, 1) is divided evenly among the others. An
        image with one caption gives it for every number. Returns a tensor without dimensions.
        """
        share = self.long_share
        if share is None or len(captions) == 1:
            return captions[int(draw * len(captions))]
        if draw < share:
            return captions[-1]
        return captions[int((draw - share) / (1 - share) * (len(captions) - 1))]

    def __call__(self, step: int, rows: slice = WHOLE) -> Batch:
        """The batch of a step.

        rows  make only these rows of images, texts and label_tokens: other processes make the rest.
              duplicates is always that of the whole batch
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        order, draws = self.epoch(epoch)
        indices = order[position * self.size : (position + 1) * self.size]  # (B,)

        # Draw one caption for each image. Captions are numbers: equal words have equal numbers.
        captions_of_image = [torch.from_numpy(self.captions.of_image(i)) for i in indices]
        chosen = [self.choose(c, draws[i]) for c, i in zip(captions_of_image, indices, strict=True)]
        caption = torch.stack(chosen)  # (B,)

        # The digests are uint64. They are only compared, so int64 of the same bits does as well.
        digests = torch.from_numpy(self.images.digests[indices].view(np.int64))  # (B,)
        duplicates = find_duplicates(captions_of_image, caption, digests)
        label_tokens = self.label_tokens
        return Batch(
            self.image_inputs(indices, step, rows),
            to_device(self.inputs[caption[rows]], self.device),
            to_device(duplicates, self.device),
            None if label_tokens is None else to_device(label_tokens[caption[rows]], self.device),
        )

    def ahead(
        self, start: int, end: int, rows: slice = WHOLE
    ) -> Iterator[tuple[int, Batch, float]]:
        """(step, its batch, seconds waited for it) of each step from `start` to `end` - 1.

        A thread makes the next batch while a step computes.
        """
        if start == end:
            return
        if self.device.type == "mps":
            # No thread here: PyTorch may abort where two threads use Apple's GPU at the same time.
            # (pytorch/pytorch#197805)
            for step in range(start, end):
                begun = time.time()
                batch = self(step, rows)
                yield step, batch, time.time() - begun
            return
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(self, start, rows)
            for step in range(start, end):
                begun = time.time()
                batch = coming.result()
                waited = time.time() - begun
                if step + 1 < end:
                    coming = thread.submit(self, step + 1, rows)
                yield step, batch, waited


def find_duplicates(captions_of_image: list[Tensor], caption: Tensor, digests: Tensor) -> Tensor:
    """Which images and captions of a batch match: (B, B) bool, symmetric.

    On the diagonal they always do. Off the diagonal they match by accident, and a contrastive loss
    must not push them apart.

    captions_of_image  numbers of all captions of each image
    caption            (B,) the number of the one that was drawn
    digests            (B,) equal for equal images

    Image i and caption j match where caption j is among image i's captions, or where images i and
    j are the same. Then image j and caption i are taken to match, too, although caption i may be
    false of image j: one mask serves both directions of the loss, and no true pair is pushed apart.
    A caption that both images have, but that was drawn for neither, counts for nothing.

    An example with four images. The drawn caption is marked with a star:

        image  its captions                       digest
        0      "a red star"*, "a star"            11
        1      "a blue ring"*                     22
        2      "a star"*                          33
        3      "a ring in blue"*                  22

    Image 0 also has the caption drawn for image 2, so (0, 2) and (2, 0) match. Images 1 and 3 are
    equal, so (1, 3) and (3, 1) match. The rows of the result are 1010, 0101, 1010, 0101.
    """
    all_captions = nn.utils.rnn.pad_sequence(captions_of_image, True, -1)  # (B, C), -1: none
    describes = (all_captions[:, :, None] == caption).any(1)  # (B, B): caption j describes image i
    same_image = digests[:, None] == digests  # (B, B)
    # A copy of the transpose first: a large one is read column by column otherwise, which is slow.
    return describes | describes.T.contiguous() | same_image


class Crops:
    """Images for an image tower that is trained: (indices (B,), step) -> (B, 3, S, S) float32.

    With crop_scale below 1 they are cropped anew in every step. They are normalised as CLIP's are.
    With `rows` only these rows of the batch are made.
    """

    fingerprint = ""  # ImageViews has one of its vectors. Here no vectors are kept

    def __init__(self, images: CaptionedImages, crop_scale: float, seed: int, device: torch.device):
        self.images = images
        self.crop_scale = crop_scale
        self.seed = seed
        self.device = device

    def __call__(self, indices: np.ndarray, step: int, rows: slice = WHOLE) -> Tensor:
        pixels = torch.from_numpy(self.images.pixels(indices[rows]))  # (B, S, S, 3) uint8
        images = normalize_pixels(to_device(pixels, self.device))  # (B, 3, S, S)
        if self.crop_scale == 1:
            return images
        # A prime factor keeps the streams of neighbouring seeds apart. Numbers for the whole batch
        # are drawn, and on the CPU: some rows of it, and a GPU, get the same crops.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        draws = torch.rand(4, len(indices), generator=generator)
        return random_crops(images, self.crop_scale, to_device(draws[:, rows], self.device))
