"""A run at work on anybody's images: search a folder by words, name one image.

These are eval.py's --search and --classify. A run comes in as functions from images and texts to
features of unit length (eval.Run has them).

Letters of shapes: Q queries, N images, C names, D the length of a feature.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from data.common import BadInput, printable
from data.images.pixels import image_digest
from data.report import contact_sheet
from data.vectors import folder_vectors


def nearest(
    folder: str | Path,
    queries: Sequence[str],
    encode_images: Callable,
    encode_texts: Callable,
    image_size: int,
    model_path: Path,
    k: int = 8,
) -> tuple[list[tuple[str, list[tuple[Path, float]]]], int]:
    """The k images under a folder that are nearest to each query: [(query, [(path, cosine)])].

    Also returns how many images there are.

    encode_images  CaptionedImages -> (N, D)
    encode_texts   list of texts -> (Q, D)
    image_size     what encode_images wants
    model_path     the file with the weights: another model's vectors are never used
    """
    query_features = encode_texts(queries)  # (Q, D)
    # A text side that knows only the words of training gives zeros for others. All images would be
    # equally near.
    for query, features in zip(queries, query_features, strict=True):
        if not features.any():
            raise BadInput(
                f"this run knows no word of {query!r}; take words of its training captions"
            )
    D = query_features.shape[1]
    paths, image_features = folder_vectors(Path(folder), image_size, encode_images, D, model_path)
    cosines = query_features @ image_features.T  # (Q, N)
    best = cosines.topk(min(k, len(paths)), dim=1)  # values and indices (Q, k), the best first
    found = []
    for query, values, indices in zip(
        queries, best.values.tolist(), best.indices.tolist(), strict=True
    ):
        hits = [(paths[i], value) for i, value in zip(indices, values, strict=True)]
        found.append((query, hits))
    return found, len(paths)


def nearest_by_chance(scores: dict, n_images: int) -> float:
    """A cosine that half of all captions reach with one of n images, none of which is theirs.

    scores  of validation images; see train_log.score_batch

    It is measured among all validation images, and among half of them. Among twice as many images
    the gap to a cosine of 1 is smaller. For other numbers this is an estimate: each doubling is
    taken to make the gap smaller by the same factor.
    """
    gap = 1 - scores["best_wrong"]
    factor = gap / max(1 - scores["best_wrong_of_half"], 1e-9)
    return 1 - gap * factor ** math.log2(n_images / scores["pairs"])


def search(
    folder: str | Path,
    queries: Sequence[str],
    encode_images: Callable,
    encode_texts: Callable,
    image_size: int,
    model_path: Path,
    seen_digests: Tensor,
    captions: Sequence[str],
    scores: dict | None,
    drawing: Path,
) -> None:
    """Print what `nearest` finds, and draw it to the file `drawing`.

    seen_digests  of images that the run was trained on; a hit that is one of them is marked
    captions      some that it was trained on: a query should be worded like them
    scores        of its validation images, the last ones (train_log.score_batch), or None. If a
                  query comes no nearer to any image than chance does, none is said to fit. Nothing
                  is said of this if the run finds less than 80 % of its validation images, or if
                  the folder has more than four times as many images as these
    """
    if not queries or not all(query.strip() for query in queries):
        quoted = " ".join(repr(query) for query in queries)
        raise BadInput(f"--search {folder} {quoted or '...'}: say what to look for, in quotes")
    found, n_images = nearest(folder, queries, encode_images, encode_texts, image_size, model_path)
    # A run that finds few of its validation images cannot tell a near image from a right one.
    is_good = scores is not None and scores["t2i"] >= 0.8
    can_tell = is_good and n_images <= 4 * scores["pairs"]
    limit = nearest_by_chance(scores, n_images) if can_tell else -1.0
    seen = set(seen_digests.numpy().view(np.uint64).tolist())
    trained_on = set()
    for query, hits in found:
        print(f"\n{printable(query)}")
        if hits[0][1] <= limit:
            print(f"  probably nothing fits: captions of other images come as near ({limit:.3f})")
        for path, cosine in hits:
            if image_digest(path.read_bytes()) in seen:
                trained_on.add(path)
            mark = "  (trained on)" if path in trained_on else ""
            print(f"  {cosine:.3f}  {printable(path)}{mark}")
    if not is_good:
        print("\nThe run is not known to be good enough to say when nothing fits.")
    elif not can_tell:
        print("\nAmong so many images it is not known when nothing fits.")
    print("\nThe run was trained on captions like these; word a query as they are:")
    for caption in captions:
        print(f"  {printable(caption)[:100]}")
    drawing.parent.mkdir(exist_ok=True)
    contact_sheet(found, drawing, trained_on)
    print(f"\nwrote {drawing}")


def name_image(
    path: str | Path,
    names: Sequence[str],
    templates: Sequence[str],
    encode_file: Callable,
    class_features: Callable,
    logit_scale: float,
) -> list[tuple[str, float]]:
    """Which of C names fits an image? [(name, share)], the best first. The shares add up to 1.

        share_c = softmax_c( logit_scale * <image, name_c> )

    encode_file     the path of an image -> (D,)
    class_features  (names, templates) -> (C, D)
    """
    image_feature = encode_file(path)  # the file first: if it is broken, nothing else is done
    features = class_features(names, templates)  # (C, D)
    if (features == features[0]).all():
        raise BadInput(
            f"this run cannot tell {names[0]!r} from {names[1]!r}; does it know the words?"
        )
    cosines = features @ image_feature  # (C,)
    shares = (logit_scale * cosines).softmax(0)
    pairs = list(zip(names, shares.tolist(), strict=True))
    return sorted(pairs, key=lambda pair: pair[1], reverse=True)


def classify(
    path: str | Path,
    names: str,
    templates: Sequence[str],
    encode_file: Callable,
    class_features: Callable,
    logit_scale: float,
) -> None:
    """Print the shares of names. They come in one text, with commas between them."""
    stripped = [name.strip() for name in names.split(",")]
    distinct = list(dict.fromkeys(name for name in stripped if name))
    if len(distinct) < 2:
        raise BadInput(
            f"--classify {path} {names!r}: two names or more are wanted, with commas, in one pair "
            "of quotes"
        )
    pairs = name_image(path, distinct, templates, encode_file, class_features, logit_scale)
    for name, share in pairs:
        print(f"{share:6.1%}  {name}")
