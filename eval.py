"""Score trained runs with tests that others use too, and draw examples. Or search with them.

    python eval.py runs/lift runs/clip                  on the held-out part of their own data
    python eval.py runs/lift --data other.csv           on other images with captions
    python eval.py runs/lift --zeroshot FOLDER          on an ImageFolder: one folder per class
    python eval.py runs/lift --sugarcrepe JSON_DIR --images val2017
    python eval.py runs/lift --winoground FOLDER
    python eval.py runs/lift --search FOLDER "a dog on a beach" "a red car"
    python eval.py runs/lift --classify image.jpg dog,cat

The scores are printed as a table, written to eval.json in each run, and drawn with examples in
report.png. Another test or other data have files of their own: eval[-TEST]-NAME-HASH.json and
report[-TEST]-NAME-HASH.png. Scores in the json files are fractions in [0, 1]. The trees under
"ci95" (95 % confidence intervals) and "chance" (what a blind guess scores) have the same branches.
docs/evaluation.md lists all keys.

Every score is a function of features. A tie counts as wrong, and so does NaN ("not a number").
So a collapsed model, which gives everything the same feature, scores 0 and not chance, unless all
answers are among the best k.

Read lift.py before this file. The metrics come first and need nothing else. On a first reading stop
where the class Run begins. What is asked of a run is in data/benchmarks.py.

Letters of shapes: N images, T captions, D the length of a feature, M false captions, C classes, n
classified images, E examples of Winoground, c questions with A answers each, B images of a batch, S
pixels per side.
"""

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

import lift
from data import benchmarks, search
from data.benchmarks import Result, Task
from data.common import (
    DEVICES,
    BadInput,
    check_place,
    exit_status,
    flag_of,
    parse_flags,
    pick_device,
    replacing,
    select,
)
from data.files.runs import SEEN, read_run, run_file
from data.images.formats import Columns, add_column_flags
from data.images.pixels import normalize_pixels, open_image
from data.images.read import CaptionedImages
from data.report import cost_table, report, table, tree
from data.vectors import OutsideVectors
from data.world.shapes import CATEGORIES

# --------------------------------------------------------------------------------------------------
# Metrics. All features have unit length, so that a scalar product is a cosine. All results are on
# the CPU.

# Two cosines that differ by this much or less are a tie. Sums of float32 in another order differ by
# about 1e-7. Without a tie, a model that ignores the order of words would tell "a red circle" from
# "a circle red" by rounding.
TIE = 1e-6


def rank_of_best(scores: Tensor, is_correct: Tensor) -> Tensor:
    """How many wrong answers come before the best right one, (c,) int64. 0: a right one is first.

    scores      (c, A): of A answers to each of c questions
    is_correct  (c, A) bool: which answers are right. A question without a right answer gets the
                rank A

    Where several answers are right, the best one counts, and the others are no mistakes.

    A wrong answer with an equal score comes before the right one, and scores that differ by TIE or
    less are equal. Otherwise a model that gives all answers the same score would profit from the
    order in which they happen to be stored. NaN never helps: a wrong answer with NaN comes first as
    well, and where any right answer is NaN, all wrong ones come before it.
    """
    best = scores.masked_fill(~is_correct, -torch.inf).amax(1, keepdim=True)  # (c, 1)
    # Not `scores >= best`: every comparison with NaN is false.
    is_behind = scores < best - TIE  # (c, A)
    return (~is_behind & ~is_correct).sum(1)


def retrieval_ranks(
    image_features: Tensor,
    text_features: Tensor,
    image_of_caption: Tensor,
    caption_ids: Tensor | None = None,
    chunk: int = 512,
) -> tuple[Tensor, Tensor]:
    """Where the right answer stands when images look for captions and captions for images.

        rank = number of wrong answers that come before the best right one, as rank_of_best counts

    image_features    (N, D)
    text_features     (T, D)
    image_of_caption  (T,) int64: the image that each caption was given to
    caption_ids       (T,) int64: one number per distinct text. Equal captions have equal numbers
                      and are right for the same images. Default: all captions differ.
    chunk             questions at a time: there are never more than chunk * max(N, T) scores

    Returns the ranks from image to text (N,) and from text to image (T,), int64; 0 is the best. An
    image to which no caption belongs has the rank T: all answers are wrong.

    Example: three images, five captions. Captions 0 and 3 are equal, so both are right for image 0
    and for image 2. The cosines, with a star where the caption is right for the image:

        caption             0       1       2       3       4
        image_of_caption    0       0       1       2       2
        caption_ids         0       1       2       0       3

        image 0            .5*     .7*     .8      .5*     .1
        image 1            .6      .2      .6*     .6      .1
        image 2            .3*     .4      .2      .3*     .9*

    From image to text, read the rows. Image 0: its best right caption has .7, and one wrong caption
    has more: rank 1. Image 1: the captions 0 and 3 tie with its own: rank 2. Image 2: rank 0.
    From text to image, read the columns. Captions 0 and 3: the best right image has .5, image 1 has
    .6: rank 1. Caption 1: 0. Caption 2: the wrong image 0 has more: rank 1. Caption 4: 0.
    The result is [1, 2, 0] and [1, 0, 1, 1, 0].
    """
    image_features = image_features.float()
    text_features = text_features.float()
    if caption_ids is None:
        caption_ids = torch.arange(len(text_features))
    n_ids = int(caption_ids.max()) + 1

    image_to_text = []
    for start in range(0, len(image_features), chunk):
        scores = image_features[start : start + chunk] @ text_features.T  # (c, T)
        # Which caption ids was each image of this chunk given? A caption is right for an image if
        # its id is one of them.
        in_chunk = (image_of_caption >= start) & (image_of_caption < start + len(scores))
        has_id = torch.zeros(len(scores), n_ids, dtype=torch.bool)
        has_id[image_of_caption[in_chunk] - start, caption_ids[in_chunk]] = True
        is_correct = has_id[:, caption_ids]  # (c, T)
        image_to_text.append(rank_of_best(scores, is_correct))

    text_to_image = []
    for start in range(0, len(text_features), chunk):
        scores = text_features[start : start + chunk] @ image_features.T  # (c, N)
        # For each caption of this chunk, find all captions that are equal to it. The images of all
        # of them are right.
        is_equal = caption_ids[start : start + chunk, None] == caption_ids  # (c, T)
        question, equal_caption = is_equal.nonzero(as_tuple=True)
        is_correct = torch.zeros_like(scores, dtype=torch.bool)  # (c, N)
        is_correct[question, image_of_caption[equal_caption]] = True
        text_to_image.append(rank_of_best(scores, is_correct))

    return torch.cat(image_to_text), torch.cat(text_to_image)


def compositional(image_features: Tensor, true_features: Tensor, false_features: Tensor) -> Tensor:
    """(M,) bool: is the true caption nearer to its image than the false one?

        <z_i, t_true> > <z_i, t_false> + TIE               all features (M, D)

    A tie is wrong: a model that does not see the difference must not get the point. NaN is wrong
    too, because every comparison with it is false.
    """
    true_scores = (image_features * true_features).sum(-1)
    false_scores = (image_features * false_features).sum(-1)
    return true_scores > false_scores + TIE


def zeroshot(image_features: Tensor, class_features: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """(n,) bool: is the right class among the k whose features are nearest to the image?

    image_features  (n, D)
    class_features  (C, D), see Run.class_features
    labels          (n,) int64: the right class of each image

    Ties and NaN count against the model, as in rank_of_best: a wrong class with an equal score
    stands before the right one.
    """
    scores = image_features @ class_features.T  # (n, C)
    right = scores.gather(1, labels[:, None])  # (n, 1)
    # The right class is not behind itself, so it is one of those counted here.
    not_behind = ~(scores < right - TIE)
    return not_behind.sum(1) <= k


def winoground(image_features: Tensor, text_features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Text, image and group score, (E,) bool each. (Thrush et al. 2022, arXiv 2204.03162)

    An example has two images and two captions made of the same words, as "a dog looks at a cat" and
    "a cat looks at a dog" are.

    image_features, text_features  (2 E, D); image i belongs to caption i

    With s_ij the cosine of image i and caption j of one example:

        text   s_00 > s_01 and s_11 > s_10     each image prefers its own caption
        image  s_00 > s_10 and s_11 > s_01     each caption prefers its own image
        group  both

    As everywhere, ties and NaN are wrong. Cosines that differ by TIE or less are a tie.
    """
    image = image_features.unflatten(0, (-1, 2))  # (E, 2, D)
    text = text_features.unflatten(0, (-1, 2))  # (E, 2, D)
    s = image @ text.transpose(1, 2)  # (E, 2, 2)
    right = s.diagonal(dim1=1, dim2=2) - TIE  # (E, 2)
    text_score = (right[:, 0] > s[:, 0, 1]) & (right[:, 1] > s[:, 1, 0])
    image_score = (right[:, 0] > s[:, 1, 0]) & (right[:, 1] > s[:, 0, 1])
    return text_score, image_score, text_score & image_score


def interval(
    hits: ArrayLike, groups: ArrayLike | None = None, resamples: int = 1000
) -> list[float]:
    """95 % confidence interval of mean(hits), by the bootstrap: a list of two floats, [low, high].

    hits       numbers or booleans, one per question
    groups     int from 0, one per question: captions of one image rise and fall together, so they
               are drawn together. Default: every question is a group of its own.
    resamples  how many times a sample is drawn

    The bootstrap asks what the mean would be with other test images: draw as many groups as there
    are, with replacement, and take the mean over all their questions. Of 1,000 such means the
    middle 95 % lie in the interval: it goes from percentile 2.5 to 97.5. Each call begins with the
    same seed, so equal hits have equal intervals.
    """
    hits = np.asarray(hits, float)
    groups = np.arange(len(hits)) if groups is None else np.asarray(groups)
    total = np.bincount(groups, hits)  # hits in each group
    size = np.bincount(groups)  # questions in each group
    rng = np.random.default_rng(0)
    means = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(total), len(total))
        means.append(total[drawn].sum() / size[drawn].sum())
    return np.percentile(means, (2.5, 97.5)).tolist()


def interval_of_words(hits: ArrayLike, words: ArrayLike, resamples: int = 1000) -> list[float]:
    """95 % interval of mean(hits), where each question asks about G words of a small vocabulary.

    hits   numbers or booleans, one per question (c,)
    words  int from 0, (c, G): question i is about the words words[i]

    As `interval`, but words are drawn, and not questions: as many words as there are, with
    replacement. A question counts as often as its words were drawn, one number times the other:
    with two words that were drawn twice and three times, six times. So the interval is about other
    words, too. (The pigeonhole bootstrap, Owen 2007, Annals of Applied Statistics 1 (2))
    """
    hits = np.asarray(hits, float)
    words = np.asarray(words)
    n_words = words.max() + 1
    rng = np.random.default_rng(0)
    means = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(0, n_words, n_words), minlength=n_words)
        weight = times[words].prod(1)  # (c,)
        # Of a few words it can happen that no question has all that it needs.
        if weight.any():
            means.append(np.average(hits, weights=weight))
    return np.percentile(means, (2.5, 97.5)).tolist()


# --------------------------------------------------------------------------------------------------
# Scores. The functions whose names end in _scores return {name: Score}. The words of a name are the
# keys on the way to the score in eval.json, as in "retrieval i2t R@1".


class Score(NamedTuple):
    """A share of hits. All numbers are fractions in [0, 1]."""

    value: float
    ci95: list[float] | None  # [low, high]
    chance: float  # what a blind guess scores on average


def score(hits: ArrayLike, chance: float, groups: ArrayLike | None = None) -> Score:
    """The mean of hits, with its interval. groups as in `interval`."""
    return Score(float(np.mean(np.asarray(hits, float))), interval(hits, groups), float(chance))


def score_of_words(hits: ArrayLike, chance: float, words: ArrayLike) -> Score:
    """The mean of hits, with its interval. words as in `interval_of_words`."""
    return Score(float(np.mean(np.asarray(hits, float))), interval_of_words(hits, words), chance)


def chance_of_recall(n_right: Tensor, n_answers: int, k: int) -> float:
    """The R@k of a blind guess: how often k answers drawn of n_answers hold a right one.

        1 - mean_i binom(A - r_i, k) / binom(A, k)        A: n_answers, r_i: n_right[i]

    binom(A - r, k) of the binom(A, k) ways to draw k answers miss all r right ones.
    """
    k = min(k, n_answers)
    ways = math.comb(n_answers, k)
    misses = [math.comb(n_answers - r, k) / ways for r in n_right.tolist()]
    return 1 - np.mean(misses)


def retrieval_scores(
    name: str,
    image_features: Tensor,
    text_features: Tensor,
    image_of_caption: Tensor,
    caption_ids: Tensor,
) -> dict[str, Score]:
    """R@1, R@5, R@10 from image to text (i2t) and from text to image (t2i).

    R@k, "recall at k", is the share of questions with a right answer among the first k. An image
    with several captions is one question from image to text; each of its captions is one from text
    to image. The arguments are those of retrieval_ranks.
    """
    i2t, t2i = retrieval_ranks(image_features, text_features, image_of_caption, caption_ids)

    # Count the right answers to each question, for chance. First make a list of which image has
    # which caption ids, each pair once.
    image, caption_id = torch.stack([image_of_caption, caption_ids]).unique(dim=1)
    n_captions_with_id = caption_ids.bincount()
    n_images_with_id = caption_id.bincount()
    n_right_captions = torch.zeros(len(image_features), dtype=torch.int64)  # (N,)
    n_right_captions.index_add_(0, image, n_captions_with_id[caption_id])
    n_right_images = n_images_with_id[caption_ids]  # (T,)

    scores = {}
    for k in (1, 5, 10):
        chance = chance_of_recall(n_right_captions, len(text_features), k)
        scores[f"{name} i2t R@{k}"] = score(i2t < k, chance)
    for k in (1, 5, 10):
        chance = chance_of_recall(n_right_images, len(image_features), k)
        scores[f"{name} t2i R@{k}"] = score(t2i < k, chance, groups=image_of_caption)
    return scores


def compositional_scores(categories: Sequence[str], is_correct: Tensor) -> dict[str, Score]:
    """The share of true captions that beat the false one: of each category, and their mean.

    categories  of M false captions
    is_correct  (M,) bool, see `compositional`

    Every category counts the same in the mean, however many false captions it has.
    """
    categories = np.array(categories)
    is_correct = np.asarray(is_correct)
    hits_of = {}  # category -> bool, one per false caption
    for category in CATEGORIES:
        if category in categories:
            hits_of[category] = is_correct[categories == category]
    scores = {f"compositional {name}": score(hits, 0.5) for name, hits in hits_of.items()}

    # The interval of the mean: a bootstrap within each category.
    rng = np.random.default_rng(0)
    means = []
    for _ in range(1000):
        drawn = [rng.choice(hits, len(hits)).mean() for hits in hits_of.values()]
        means.append(np.mean(drawn))
    scores["compositional mean"] = Score(
        float(np.mean([hits.mean() for hits in hits_of.values()])),
        np.percentile(means, (2.5, 97.5)).tolist(),
        0.5,
    )
    return scores


def zeroshot_scores(
    image_features: Tensor, class_features: Tensor, labels: Tensor, ks: Sequence[int]
) -> dict[str, Score]:
    """Top-k accuracy, and the mean of the classes' own top-1 accuracies.

    Each class counts the same in that mean, however many images it has. The intervals are about
    other images of the same classes.
    """
    C = len(class_features)
    scores = {}
    for k in ks:
        hits = zeroshot(image_features, class_features, labels, k)
        scores[f"zeroshot top{k}"] = score(hits, k / C)
    # The mean of the classes: an image counts as one over the size of its class, so all classes
    # that have images count alike.
    hits = zeroshot(image_features, class_features, labels)
    class_size = torch.bincount(labels).float()
    mean = (hits / class_size[labels]).sum() / (class_size > 0).sum()
    scores["zeroshot mean_per_class"] = Score(float(mean), None, 1 / C)
    return scores


def winoground_scores(image_features: Tensor, text_features: Tensor) -> dict[str, Score]:
    """The three scores of Winoground."""
    by_text, by_image, by_group = winoground(image_features, text_features)
    # Each comparison is right by chance in one of two cases, and the text and image scores need
    # two. The group score wants s_00 and s_11 above s_01 and s_10: 4 of the 24 orders of four.
    return {
        "winoground text": score(by_text, 1 / 4),
        "winoground image": score(by_image, 1 / 4),
        "winoground group": score(by_group, 1 / 6),
    }


# --------------------------------------------------------------------------------------------------
# A run, and what it makes of a task.


class Run:
    """A trained run that turns images and texts into features of unit length, on the CPU.

    folder  a run folder, or a file, as data.files.runs.run_file says
    """

    def __init__(self, folder: str | Path, device: str | torch.device = "cpu"):
        path = Path(folder)
        self.name = str(path)
        if path.is_file():
            # What is written about a file goes into a folder of its own beside the file.
            self.folder = path.with_name(f"{path.name}-scores")
        else:
            self.folder = path
        self.model_path = run_file(path)
        checkpoint = read_run(folder)
        self.config = checkpoint["config"]
        self.step = checkpoint["step"]
        self.cost = checkpoint["cost"]
        self.seen_digests = checkpoint[SEEN]  # int64, one for each of some training images
        if self.model_path.name == "best.pt" and not path.is_file():
            print(
                f"{self.folder}: reading best.pt, of step {self.step}, where R@1 of validation "
                f"images was best (the last step: {path / 'checkpoint.pt'})",
                file=sys.stderr,
            )
        self.captions = checkpoint["captions"]  # some that it was trained on
        self.curve = checkpoint["curve"]  # of validation images; see train_log.score_batch
        self.device = device
        self.model, self.transform, self.tokenize = lift.load(folder, device)
        # text -> (D,), what encode_texts has made. It holds as long as the weights stay the same.
        self.text_features = {}

    @torch.no_grad()
    def encode_images(self, images: CaptionedImages, batch: int = 256) -> Tensor:
        """N images -> features (N, D)."""
        vectors = None
        if self.config["image_features"]:
            vectors = OutsideVectors(self.config["image_features"])(images.names)
            if vectors.ndim == 3:  # (N, views, width): take the first view
                vectors = vectors[:, 0]  # (N, width)
        features = []
        for start in range(0, len(images), batch):
            if vectors is None:
                which = np.arange(start, min(start + batch, len(images)))
                inputs = normalize_pixels(torch.from_numpy(images.pixels(which)))  # (B, 3, S, S)
            else:
                inputs = vectors[start : start + batch]  # (B, width)
            made = self.model.encode_image(inputs.to(self.device), normalize=True)
            features.append(made.cpu())
        return torch.cat(features)

    @torch.no_grad()
    def encode_file(self, path: str | Path) -> Tensor:
        """An image file -> features (D,). BadInput if it cannot be read."""
        try:
            with open_image(path) as image:
                inputs = self.transform(image)  # (3, S, S)
        except Exception as error:  # Pillow raises a dozen types for a broken file
            raise BadInput(f"{path}: cannot be read as an image ({error})") from None
        features = self.model.encode_image(inputs[None].to(self.device), normalize=True)
        return features[0].cpu()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], batch: int = 1024) -> Tensor:
        """T texts -> features (T, D). A text that was asked for before is not encoded again."""
        new = [text for text in dict.fromkeys(texts) if text not in self.text_features]
        if new:
            inputs, _ = self.tokenize.read(new)
        for start in range(0, len(new), batch):
            made = self.model.encode_text(
                inputs[start : start + batch].to(self.device), normalize=True
            )
            self.text_features.update(zip(new[start : start + batch], made.cpu(), strict=True))
        return torch.stack([self.text_features[text] for text in texts])

    def class_features(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """C class names -> features (C, D), by prompts such as "a photo of a {}".

        Each class's prompts are read, their features are averaged, and the mean is brought back to
        unit length. (Radford et al. 2021, section 3.1.4)
        """
        prompts = benchmarks.prompts(names, templates)
        features = self.encode_texts(prompts).view(len(names), len(templates), -1)
        return F.normalize(F.normalize(features, dim=-1).mean(1), dim=-1)


def further_scores(name: str, run: Run, task: Task) -> dict[str, Score]:
    """Scores of a task of Task.further: two-way choice, R@1 both ways, zero-shot top-1.

    name  what the scores' names begin with. All false captions of such a task are of one category.

    The built-in world's classes and new colours are a few of many that could have been asked, and
    images of one class or colour rise and fall together. So the intervals are about other classes
    and colours, too.
    """
    image = run.encode_images(task.images)
    scores = {}
    if task.negatives:
        true = run.encode_texts([negative.true for negative in task.negatives])
        false = run.encode_texts([negative.false for negative in task.negatives])
        which = [negative.image for negative in task.negatives]
        hits = compositional(image[which], true, false)
        scores[f"{name} {task.negatives[0].category}"] = score_of_words(
            hits, 0.5, task.words_of_negative
        )
    if task.captions:
        text = run.encode_texts(task.captions)
        i2t, t2i = retrieval_ranks(image, text, task.image_of_caption, task.caption_ids)
        scores[f"{name} i2t"] = score_of_words(i2t < 1, 1 / len(text), task.words_of_image)
        scores[f"{name} t2i"] = score_of_words(t2i < 1, 1 / len(image), task.words_of_image)
    if task.class_names:
        class_features = run.class_features(task.class_names, task.templates)
        hits = zeroshot(image, class_features, task.labels)
        scores[f"{name} top1"] = score(hits, 1 / len(class_features), task.labels)
    return scores


def evaluate(run: Run, task: Task) -> Result:
    """Encode what a task holds, each image and each text once, and score it."""
    result = Result(run.name, run.folder, task, image=run.encode_images(task.images))
    run.encode_texts(task.texts())  # all at once, so that the cache of captions is opened once
    scores: dict[str, Score] = {}

    if task.captions:
        result.text = run.encode_texts(task.captions)
        scores |= retrieval_scores(
            "retrieval", result.image, result.text, task.image_of_caption, task.caption_ids
        )
        # The paper of LIFT (arXiv 2506.04209) scores with one caption per image. Where there are
        # more, these scores take the first.
        first = np.unique(task.image_of_caption, return_index=True)[1]  # (N,)
        if len(first) < len(task.captions):
            scores |= retrieval_scores(
                "one_caption",
                result.image,
                result.text[first],
                task.image_of_caption[first],
                task.caption_ids[first],
            )

    for kind, texts in task.other_words.items():
        image = result.image[list(task.reworded)]
        i2t, _ = retrieval_ranks(image, run.encode_texts(texts), torch.arange(len(texts)))
        scores[f"other_words {kind}"] = score(i2t < 1, 1 / len(texts))

    if task.negatives:
        result.true = run.encode_texts([negative.true for negative in task.negatives])
        result.false = run.encode_texts([negative.false for negative in task.negatives])
        image = result.image[[negative.image for negative in task.negatives]]  # (M, D)
        result.is_correct = compositional(image, result.true, result.false)
        categories = np.array([negative.category for negative in task.negatives])
        is_composition = np.isin(categories, CATEGORIES)
        if is_composition.any():
            scores |= compositional_scores(
                categories[is_composition], result.is_correct[is_composition]
            )
        for name in dict.fromkeys(categories[~is_composition].tolist()):
            # Several false captions of one image rise and fall together.
            which = [n.image for n in task.negatives if n.category == name]
            group = np.unique(which, return_inverse=True)[1]
            scores[name] = score(result.is_correct[categories == name], 0.5, group)

    for name, pairs in task.both_ends.items():
        # The features of both true captions are added, and those of both false ones. What is usual
        # in captions, such as which thing comes first, stands on both sides then.
        true = run.encode_texts([own.true for own, _ in pairs])  # (M, D)
        true = true + run.encode_texts([other.true for _, other in pairs])
        false = run.encode_texts([own.false for own, _ in pairs])  # (M, D)
        false = false + run.encode_texts([other.false for _, other in pairs])
        image = result.image[[own.image for own, _ in pairs]]  # (M, D)
        scores[f"both_ends {name}"] = score(compositional(image, true, false), 0.5)

    if task.class_names:
        image = result.image[list(task.classified)]  # (n, D)
        class_features = run.class_features(task.class_names, task.templates)  # (C, D)
        result.guesses = (image @ class_features.T).argmax(1)
        scores |= zeroshot_scores(image, class_features, task.labels, task.ks)

    for name, further in task.further.items():
        scores |= further_scores(name, run, further)

    if task.winoground_captions:
        text = run.encode_texts(task.winoground_captions)  # (2 E, D)
        scores |= winoground_scores(result.image, text)

    # Test images that the run was trained on make its scores worth little, so they are counted. The
    # run keeps the digests of some of its training images only: there may be more than are found.
    seen = np.isin(task.images.digests.view(np.int64), run.seen_digests)

    result.scores = {
        "run": result.run,
        "method": run.config["method"],
        "data": task.data,
        "step": run.step,
        "weights": run.model_path.name,
        "counts": task.counts(),
        "trained_on": int(seen.sum()),
        "cost": run.cost,
        **tree({name: one.value for name, one in scores.items()}),
        "ci95": tree({name: one.ci95 for name, one in scores.items()}),
        "chance": tree({name: one.chance for name, one in scores.items()}),
    }
    return result


# --------------------------------------------------------------------------------------------------
# The command line. Only what is below knows its arguments.


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage="python eval.py RUN [RUN ...] [--flag value ...]   (--help lists the flags)",
    )
    parser.add_argument("runs", nargs="+", help="run folders, or files of data.files.export")

    task = parser.add_mutually_exclusive_group()
    task.add_argument(
        "--data", default="", help="images with captions (default: the runs' own held-out ones)"
    )
    task.add_argument("--zeroshot", metavar="FOLDER", help="an ImageFolder")
    task.add_argument(
        "--sugarcrepe",
        metavar="JSON_DIR",
        help="folder of SugarCrepe's seven json files; needs --images",
    )
    task.add_argument(
        "--winoground", metavar="FOLDER", help="folder with examples.jsonl and images/"
    )
    task.add_argument(
        "--search",
        nargs="+",
        metavar=("FOLDER", "QUERY"),
        help="find images by words; draws search.png",
    )
    task.add_argument("--classify", nargs=2, metavar=("IMAGE", "A,B,C"), help="name one image")

    parser.add_argument(
        "--images",
        default="",
        help="for --sugarcrepe: the folder val2017 of COCO (Common Objects in Context)",
    )
    parser.add_argument(
        "--classnames",
        default="",
        help="for --zeroshot: file of names, one per line in the order of the sorted folders, or "
        "FOLDER<tab>NAME on each line",
    )
    parser.add_argument(
        "--templates",
        default="",
        help="file of prompts with {}, one per line (default: LIFT's prompt)",
    )
    parser.add_argument(
        "--split",
        choices=["test", "val"],
        default="test",
        help="val: the validation images of the runs' own data, to choose settings by",
    )
    add_column_flags(parser)
    parser.add_argument(
        "--report", help="where the drawing goes (default: report.png in the run, or above several)"
    )
    parser.add_argument("--device", default="auto", help=DEVICES)
    return parser


def check_report_path(args: argparse.Namespace) -> None:
    """A drawing that cannot be saved is an error now, not after an hour of scoring."""
    if not args.report:
        return
    path = Path(args.report)
    is_image = path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")
    if not is_image or not path.parent.is_dir():
        raise BadInput(
            f"--report {args.report}: name a .png, .jpg or .webp file in a folder that is there"
        )
    if args.search and len(args.runs) > 1:
        raise BadInput(
            f"--report {args.report} would hold the last run's search only; leave it out "
            "(search.png in each run)"
        )


# Which question each of these flags belongs to; "data": images with captions.
USED_BY = {
    "images": ["sugarcrepe"],
    "classnames": ["zeroshot"],
    "templates": ["zeroshot", "classify"],
    **{f.name: ["data"] for f in fields(Columns)},
}


def check_flags(args: argparse.Namespace) -> None:
    """BadInput for a flag that the question does not use."""
    questions = ("zeroshot", "sugarcrepe", "winoground", "search", "classify")
    asked = next((name for name in questions if getattr(args, name)), "data")
    if args.split == "val" and asked != "data":
        raise BadInput(f"--split val cannot be given with --{asked}")
    if args.report and asked == "classify":
        raise BadInput("--report has no effect with --classify; leave it out")
    for flag, used_by in USED_BY.items():
        if getattr(args, flag) and asked not in used_by:
            here = "here" if asked == "data" else f"with --{asked}"
            raise BadInput(
                f"{flag_of(flag)} has no effect {here}; leave it out"
                + ("" if "data" in used_by else f", or ask by --{' or --'.join(used_by)}")
            )


def choose_task(args: argparse.Namespace, config: dict) -> Task:
    """What the command line asks of a run with this configuration."""
    image_size = config["image_size"]
    if args.zeroshot:
        return benchmarks.imagefolder(args.zeroshot, image_size, args.classnames, args.templates)
    if args.sugarcrepe:
        return benchmarks.sugarcrepe(args.sugarcrepe, image_size, args.images)
    if args.winoground:
        return benchmarks.winoground(args.winoground, image_size)
    return benchmarks.held_out(config, args.data, select(Columns, vars(args)), args.split)


# Flags that decide what is asked, beside --split.
QUESTION_FLAGS = (
    *("data", "zeroshot", "sugarcrepe", "winoground", "images", "classnames", "templates"),
    *(f.name for f in fields(Columns)),
)


def name_of_files(args: argparse.Namespace) -> str:
    """What stands between "eval" and ".json": one test never overwrites another's files.

    Nothing for a run's own held-out images. Otherwise the test's name, the last part of its path,
    and six digits of a hash of all that was asked: two paths may end alike. Last comes "-split-val"
    for validation images.
    """
    asked = {name: getattr(args, name) for name in QUESTION_FLAGS if getattr(args, name)}
    name = ""
    if asked:
        for flag, value in asked.items():
            # A path; two spellings of it are one. Path.exists refuses very long lists of shards.
            if os.path.exists(value):
                asked[flag] = str(Path(value).resolve())
        # One test at most is asked for, or other --data, or the run's images by other columns.
        test = next(
            (test for test in ("zeroshot", "sugarcrepe", "winoground") if test in asked), ""
        )
        place = asked.get(test or "data", "columns")
        # A name on the disk may have 255 bytes.
        short = Path(place).stem.encode()[:100].decode(errors="ignore")
        digest = hashlib.blake2b(json.dumps(asked).encode(), digest_size=3).hexdigest()
        name = "-" + "-".join(filter(None, [test, short, digest]))
    return name + ("-split-val" if args.split == "val" else "")


def check_same_images(runs: Sequence[Run], tasks: Sequence[Task]) -> None:
    """Only runs that are asked about the same images and captions can stand in one table."""
    first = tasks[0]
    for task in tasks:
        same_images = list(task.images.names) == list(first.images.names)
        if not same_images or task.captions != first.captions:
            sets = [f"{run.folder}: {task.data}" for run, task in zip(runs, tasks, strict=True)]
            raise BadInput(
                f"the runs hold out different images or captions ({', '.join(sets)}); name one set "
                "with --data that none of them was trained on"
            )


def search_or_classify(run: Run, args: argparse.Namespace) -> None:
    """What --search or --classify asks of one run."""
    if args.search:
        folder, *queries = args.search
        if not args.report:
            check_place("the drawing", run.folder)
        search.search(
            folder,
            queries,
            run.encode_images,
            run.encode_texts,
            image_size=run.config["image_size"],
            model_path=run.model_path,
            seen_digests=run.seen_digests,
            captions=run.captions,
            scores=run.curve[-1]["val"] if run.curve else None,
            drawing=Path(args.report or run.folder / "search.png"),
        )
    else:
        path, names = args.classify
        search.classify(
            path,
            names,
            benchmarks.read_templates(args.templates),
            run.encode_file,
            run.class_features,
            logit_scale=run.model.logit_scale.exp().item(),
        )


def main() -> None:
    args = parse_flags(build_parser())
    check_flags(args)
    check_report_path(args)
    device = pick_device(args.device)
    if args.search or args.classify:
        for folder in args.runs:
            if len(args.runs) > 1:
                print(f"\n{folder}")
            search_or_classify(Run(folder, device), args)
        return

    runs = [Run(folder, device) for folder in args.runs]
    for run in runs:
        check_place("the scores", run.folder)
    tasks = [choose_task(args, run.config) for run in runs]
    check_same_images(runs, tasks)
    results = [evaluate(run, task) for run, task in zip(runs, tasks, strict=True)]

    name = name_of_files(args)
    for result in results:
        result.folder.mkdir(exist_ok=True)
        with replacing(result.folder / f"eval{name}.json") as file:
            file.write(json.dumps(result.scores, indent=1).encode())

    scores = results[0].scores
    counts = [f"{n} {what}" for what, n in scores["counts"].items()]
    print(f"\n{scores['data']}: {', '.join(counts)}\n")
    if any(result.scores["counts"] != scores["counts"] for result in results):
        print(f"note: this is what {results[0].run} was asked; other runs have other numbers\n")
    print(table([result.scores for result in results]))
    print(f"\n{cost_table([result.scores for result in results])}")

    folder = results[0].folder if len(results) == 1 else results[0].folder.parent
    target = Path(args.report or folder / f"report{name}.png")
    report(results, target)
    if len(results[0].image) < 50:
        print("\nnote: so few images say little")
    print(f"\nwrote {target} and eval{name}.json in each run")


if __name__ == "__main__":
    sys.exit(exit_status(main))
