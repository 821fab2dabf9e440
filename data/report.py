"""What runs scored: trees of scores, a table, and report.png.

Needs data/page.py, which draws, and data/benchmarks.py, which says what a Result holds.

Letters of shapes: N images, T captions, M false captions, C classes, n classified images, s images
on the map.
"""

import json
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.benchmarks import Result
from data.images.pixels import open_image, to_square
from data.page import COLOURS, FAINT, INK, LINE, MARGIN, THUMBNAIL, Page

# --------------------------------------------------------------------------------------------------
# Trees and tables.


def flat(nested, path: str = "") -> dict:
    """A tree of dictionaries -> {path: leaf}, in order.

    >>> flat({"retrieval": {"i2t": 0.5, "t2i": 0.6}})
    {'retrieval i2t': 0.5, 'retrieval t2i': 0.6}
    """
    if not isinstance(nested, dict):
        return {path: nested}
    leaves = {}
    for key, below in nested.items():
        leaves |= flat(below, f"{path} {key}".strip())
    return leaves


def tree(leaves: dict) -> dict:
    """The tree that `flat` takes apart."""
    root = {}
    for path, leaf in leaves.items():
        *parents, name = path.split()
        below = root
        for key in parents:
            below = below.setdefault(key, {})
        below[name] = leaf
    return root


def percent(value: float, ci95: list[float] | None) -> str:
    """A score with its interval, in %: "60.4 [57.0, 63.9]"."""
    if ci95 is None:
        return f"{100 * value:.1f}"
    low, high = ci95
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def warning(scores: dict) -> str:
    """What stands beside the name of a run that was trained on images it is tested on."""
    known, tested = scores["trained_on"], scores["counts"]["images"]
    return f" (TRAINED ON {known} OR MORE OF THESE {tested} IMAGES)" if known else ""


def table(scores: Sequence[dict]) -> str:
    """The scores of several runs (Result.scores) as one Markdown table."""
    runs = " | ".join(one["run"] + warning(one) for one in scores)
    lines = [
        f"| score, in % [95 % interval] | chance | {runs} |",
        "|---|---|" + "---|" * len(scores),
    ]
    values = [flat(one) for one in scores]
    intervals = [flat(one["ci95"]) for one in scores]
    # Not every run is asked everything: one that knows texts by outside vectors is asked less.
    chances = {}
    for one in scores:
        chances |= flat(one["chance"])
    for path, chance in chances.items():
        cells = [
            percent(v[path], i[path]) if path in v else ""
            for v, i in zip(values, intervals, strict=True)
        ]
        lines.append(f"| {path} | {100 * chance:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_table(scores: Sequence[dict]) -> str:
    """What the runs have cost, as a Markdown table.

    Reading captions takes few seconds where they were in the cache. An image counts each time it
    is shown. Not counted is what comes before training on the image side: the reading by a frozen
    image tower, and solving for a head.
    """
    costs = [one["cost"] for one in scores]
    rows = {
        "trained parameters": [f"{cost['trained_parameters']:,}" for cost in costs],
        "all parameters": [f"{cost['parameters']:,}" for cost in costs],
        "reading captions, s": [f"{cost['caption_seconds']:.0f}" for cost in costs],
        "training, s": [f"{cost['training_seconds']:.0f}" for cost in costs],
        "images per second": [
            f"{cost['images'] / max(cost['training_seconds'], 1e-9):.0f}" for cost in costs
        ],
    }
    lines = [
        f"| cost | {' | '.join(one['run'] for one in scores)} |",
        "|---|" + "---|" * len(costs),
    ]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------
# report.png.


def report(results: Sequence[Result], path: str | Path, examples: int = 6) -> None:
    """Draw one page about several runs at the same task. examples: images that are shown."""
    task = results[0].task
    page = Page(max(1400, 200 + 450 * len(results)))
    title(page, results)
    draw_table(page, results)
    curves(page, results)
    if task.captions:
        retrieved(page, results, examples)
        confusions(page, results, examples // 2)
    if any(result.task.negatives for result in results):
        fooled(page, results)
    if task.class_names:
        mistaken(page, results)
    if task.captions:
        draw_map(page, results)
    page.save(path)


def short_name(result: Result) -> str:
    """A run's name, or the end of a long one."""
    return result.run if len(result.run) < 40 else "..." + result.run[-36:]


def side_by_side(page: Page, results: Sequence[Result], left: int = MARGIN) -> tuple[int, Iterator]:
    """One column per run: their width in pixels, and pairs of (left edge, Result)."""
    width = (page.inside + MARGIN - left) // len(results)
    edges = range(left, left + width * len(results), width)
    return width, zip(edges, results, strict=True)


def title(page: Page, results: Sequence[Result]) -> None:
    names = ", ".join(short_name(result) for result in results)
    page.y = page.text(
        MARGIN, page.y, f"What the runs learned: {names}", size=28, width=page.inside
    )
    words = (
        f"{len(results[0].image)} {results[0].task.kind} images of {results[0].task.data}. "
        "In brackets: 95 % bootstrap interval. Chance is what a blind guess scores."
    )
    page.y = page.text(MARGIN, page.y, words, FAINT) + 10


def draw_table(page: Page, results: Sequence[Result]) -> None:
    """The Markdown table, cell by cell. The most telling scores are dark."""
    width = (page.inside - 330) // max(3, len(results))
    edges = [0, 250, *range(330, page.inside, width)]  # left edges: score, chance, runs
    header, _, *rows = table([result.scores for result in results]).split("\n")
    for row in (header, *rows):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        is_dark = row == header or cells[0].endswith(("R@1", "mean", "top1"))
        bottom = page.y
        for x, cell in zip(edges, cells, strict=False):  # there may be room for more runs
            colour = INK if is_dark else FAINT
            y = page.text(MARGIN + x, page.y, cell, colour, width=width - 20)
            bottom = max(bottom, y)
        page.y = bottom


# ---- Learning curves.


Points = list[tuple[int, float]]  # (step, value), sorted by step


class Log(NamedTuple):
    """What a run's log.jsonl says by step."""

    loss: Points
    val_loss: Points
    recall: Points  # R@1 among training pairs, in per cent: the mean of both directions
    val_recall: Points  # the same among as many validation pairs


def read_log(path: Path) -> Log:
    """All four are empty if there is no log."""
    found = Log({}, {}, {}, {})  # by step: a run that was resumed may have some steps twice
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        # The first line has no loss. The last one is cut off where the run was killed.
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            step = int(entry["step"])
            if "val" in entry:
                val, train = entry["val"], entry["train"]
                found.val_loss[step] = float(val["loss"])
                found.recall[step] = 50 * (train["i2t"] + train["t2i"])
                found.val_recall[step] = 50 * (val["i2t"] + val["t2i"])
            else:
                found.loss[step] = float(entry["loss"])
    return Log(
        *(sorted((step, v) for step, v in values.items() if np.isfinite(v)) for values in found)
    )


def curves(page: Page, results: Sequence[Result]) -> None:
    """The loss in training, and R@1 where validation images were scored."""
    logs = [read_log(result.folder / "log.jsonl") for result in results]
    if not any(len(log.loss) > 1 for log in logs):
        return
    page.heading(
        "How they learned",
        "By step of training: thick lines are of training images, thin ones with dots of "
        "validation images. Where the thin line of the loss rises again, the run learns its images "
        "by heart. Each loss has its own unit: compare the shapes, not the heights.",
    )

    # The legend: each run's name in the colour of its lines, with its first and last loss.
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(logs))]
    for result, log, colour in zip(results, logs, colours, strict=True):
        if len(log.loss) > 1:
            words = f"{short_name(result)}: loss {log.loss[0][1]:.2f} to {log.loss[-1][1]:.2f}"
            if log.val_loss:
                words += f", validation {log.val_loss[0][1]:.2f} to {log.val_loss[-1][1]:.2f}"
            page.y = page.text(MARGIN, page.y, words, colour)

    highest = max(loss for log in logs for _, loss in log.loss + log.val_loss) or 1
    charts = [("Loss", highest, [(log.loss, log.val_loss) for log in logs])]
    if any(log.val_recall for log in logs):
        title = (
            "R@1 in per cent, both directions: of training pairs, and of as many validation pairs"
        )
        charts.append((title, 100, [(log.recall, log.val_recall) for log in logs]))
    width = page.inside // len(charts)
    last = max(step for log in logs for points in log for step, _ in points)
    bottoms = [
        chart(page, MARGIN + i * width, width, title, last, highest, lines, colours)
        for i, (title, highest, lines) in enumerate(charts)
    ]
    page.y = max(bottoms)


def chart(
    page: Page,
    x: int,
    width: int,
    title: str,
    last: int,
    highest: float,
    lines: Sequence[tuple[Points, Points]],
    colours: Sequence[tuple[int, int, int]],
) -> int:
    """Draw for each run a thick line and a thin one with dots, at (x, page.y). Returns the y below.

    All lines share both axes. x, width: of the chart with its numbers, in pixels. last, highest:
    the step at the right of the frame, and the value at its top
    """
    page.text(x, page.y + 4, title, FAINT, 13)
    # The frame, with numbers at the beginning, the middle and the end of both axes.
    left, top = x + 60, page.y + 28
    width, height = width - 80, 220
    page.pen.rectangle([left, top, left + width, top + height], outline=FAINT)
    for share in (0, 0.5, 1):
        page.text(x, top + height * (1 - share) - 8, f"{highest * share:.3g}", FAINT, 13)
        page.text(left + (width - 40) * share, top + height + 4, f"{last * share:.0f}", FAINT, 13)

    for pair, colour in zip(lines, colours, strict=True):
        for line, thickness in zip(pair, (3, 1), strict=True):
            places = [
                (left + width * step / last, top + height * (1 - value / highest))
                for step, value in line
            ]
            if len(places) > 1:
                page.pen.line(places, colour, thickness)
            for a, b in places if thickness == 1 else ():
                page.pen.ellipse([a - 3, b - 3, a + 3, b + 3], fill=colour)
    return top + height + 25


# ---- Retrieval.


def retrieved(
    page: Page,
    results: Sequence[Result],
    examples: int,
    title: str = "Which caption fits this image?",
) -> None:
    """Some images, and the captions that each run finds nearest to them."""
    task = results[0].task
    N = len(task.images)
    shown = min(examples, N)
    page.heading(
        title,
        f"{shown} {task.kind} images at equal distances, not chosen by result. Above: the true "
        "caption. Below, for each run: the three captions it finds nearest among all of the "
        f"{task.kind} set, with cosines. A tick in a disc is the image's own caption, a cross in a "
        "square is another "
        "image's.",
    )
    # Of equal captions only one is a candidate.
    caption_at = {caption: t for t, caption in enumerate(task.captions)}
    candidates = list(caption_at.values())

    left = MARGIN + THUMBNAIL + 20
    for j in range(shown):
        i = j * N // shown
        own_captions = task.images.captions[i]
        page.thumbnail(MARGIN, page.y, task.images.pixels([i])[0])
        bottom = page.y + THUMBNAIL
        top = page.text(left, page.y, own_captions[0], size=17, width=page.inside - left, lines=2)
        width, columns = side_by_side(page, results, left)
        for x, result in columns:
            y = page.text(x, top + 4, short_name(result), FAINT, 13)
            cosines = result.image[i] @ result.text[candidates].T
            best = cosines.topk(min(3, len(candidates)))
            for cosine, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                caption = task.captions[candidates[place]]
                is_correct = caption in own_captions
                y = page.answer(x, y, is_correct, cosine, caption, width - 20)
            bottom = max(bottom, y)
        page.y = bottom + 18


def hardest(result: Result, count: int) -> list[tuple[int, int, int]]:
    """Images for which a wrong caption is nearer than every right one, by the widest margin first.

    Returns at most `count` of (image, its nearest right caption, the nearest wrong caption).
    """
    found = []
    for i in range(len(result.image)):
        cosines = result.image[i] @ result.text.T  # (T,)
        is_correct = result.task.is_caption_of(i)  # (T,)
        # No cosine is below -1, so -2 takes a caption out of the comparison.
        right, right_caption = cosines.masked_fill(~is_correct, -2).max(0)
        wrong, wrong_caption = cosines.masked_fill(is_correct, -2).max(0)
        margin = float(wrong - right)
        # Not `margin >= 0`: a model of NaN is shown as well.
        if not margin < 0:
            found.append((margin, i, int(right_caption), int(wrong_caption)))
    found.sort(reverse=True)
    return [(i, right, wrong) for _, i, right, wrong in found[:count]]


def confusions(page: Page, results: Sequence[Result], examples: int) -> None:
    """The hardest images of each run, beside the image whose caption was taken instead."""
    page.heading(
        "Hardest confusions",
        f"The {results[0].task.kind} images for which a wrong caption is nearer than their own by "
        "the widest margin "
        "in cosine, with the image that the wrong caption belongs to.",
    )
    bottom = page.y
    width, columns = side_by_side(page, results)
    for x, result in columns:
        task = result.task
        y = page.text(x, page.y, short_name(result), FAINT, 13) + 4
        for i, right, wrong in hardest(result, examples):
            other = int(task.image_of_caption[wrong])
            page.thumbnail(x, y, task.images.pixels([i])[0])
            page.thumbnail(x + THUMBNAIL + 6, y, task.images.pixels([other])[0])
            below_images = y + THUMBNAIL
            for t in (right, wrong):
                y = page.answer(
                    x + 2 * THUMBNAIL + 20,
                    y,
                    t == right,
                    result.image[i] @ result.text[t],
                    task.captions[t],
                    width - 2 * THUMBNAIL - 40,
                )
            y = max(y, below_images) + 8
        bottom = max(bottom, y)
    page.y = bottom + 6


# ---- Composition.


def fooled(page: Page, results: Sequence[Result]) -> None:
    """For each category of false captions: how often each run was fooled, and one example."""
    page.heading(
        "Hard negatives that fooled them",
        f"For each category the first {results[0].task.kind} image where the run gives a false "
        "caption (cross) at "
        "least the cosine of the true one (tick), and in what share of the category that happened.",
    )
    categories = dict.fromkeys(n.category for result in results for n in result.task.negatives)
    for category in categories:
        bottom = page.y + LINE
        width, columns = side_by_side(page, results)
        for x, result in columns:
            in_category = np.array([n.category == category for n in result.task.negatives], bool)
            # A run on vectors from outside is not asked everything.
            if not in_category.any():
                continue
            wrong = np.flatnonzero(in_category & ~result.is_correct.numpy())
            share = len(wrong) / in_category.sum()
            words = f"{category}, {short_name(result)}: fooled in {share:.1%}"
            y = page.text(x, page.y, words, FAINT, width=width - 20)
            if len(wrong):
                y = draw_negative(page, x, y, result, wrong[0], width)
            bottom = max(bottom, y)
        page.y = bottom + 14


def draw_negative(page: Page, x: int, y: int, result: Result, m: int, width: int) -> int:
    """False caption m with its image and the true caption. Returns the y below them."""
    negative = result.task.negatives[m]
    image = result.image[negative.image]
    page.thumbnail(x, y, result.task.images.pixels([negative.image])[0])
    bottom = y + THUMBNAIL
    left, width = x + THUMBNAIL + 15, width - THUMBNAIL - 35
    y = page.answer(left, y, True, image @ result.true[m], negative.true, width, digits=4)
    y = page.answer(left, y, False, image @ result.false[m], negative.false, width, digits=4)
    return max(y, bottom)


# ---- Classification.


def confusion_lines(
    labels: Tensor, guesses: Tensor, class_names: Sequence[str], most: int = 20
) -> list[str]:
    """One line for each of the classes with the most mistakes, the most first.

    labels, guesses  (n,) int64: the right class and the guessed one, places in class_names

    >>> confusion_lines(torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0, 1, 1, 2, 1]), "abc")
    ['a: 25 % right, most often taken for b (50 %)']
    """
    C = len(class_names)
    counts = torch.bincount(labels * C + guesses, minlength=C * C).view(C, C)  # (label, guess)
    size = counts.sum(1)  # images of each class
    right = counts.diag().clone()
    counts.fill_diagonal_(0)
    mistakes = counts.sum(1)
    lines = []
    for c in mistakes.argsort(descending=True, stable=True)[:most].tolist():
        if mistakes[c] > 0:
            other = int(counts[c].argmax())
            right_share = 100 * right[c] / size[c]
            other_share = 100 * counts[c, other] / size[c]
            lines.append(
                f"{class_names[c]}: {right_share:.0f} % right, most often taken for "
                f"{class_names[other]} ({other_share:.0f} %)"
            )
    return lines


def mistaken(page: Page, results: Sequence[Result]) -> None:
    """Classes that are taken for others, one per line."""
    page.heading(
        "What is taken for what",
        "At most 20 classes, those with the most mistakes first. Shares are of a class's images.",
    )
    bottom = page.y
    width, columns = side_by_side(page, results)
    for x, result in columns:
        task = result.task
        y = page.text(x, page.y, short_name(result), FAINT, 13)
        lines = confusion_lines(task.labels, result.guesses, task.class_names)
        for line in lines or ["no mistakes"]:
            y = page.text(x, y, line, width=width - 20, lines=3)
        bottom = max(bottom, y)
    page.y = bottom + 12


# ---- The map.


def plane_of(result: Result, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Some images and the first caption of each, in the plane where they vary most: (s, 2) each.

    rows  (s,) int64: which images. The plane spans the first two principal components of images
    and captions together, after each side has been centred by itself. Coordinates are in [0, 1].
    """
    first_caption = [int((result.task.image_of_caption == i).nonzero()[0]) for i in rows]
    images = result.image[rows]
    captions = result.text[first_caption]
    both = torch.cat([images - images.mean(0), captions - captions.mean(0)]).nan_to_num()
    directions = torch.linalg.svd(both, full_matrices=False)[2][:2]  # (2, D)
    plane = both @ directions.T  # (2 s, 2)
    low, high = plane.amin(0), plane.amax(0)
    plane = (plane - low) / (high - low).clamp_min(1e-9)
    return plane[: len(rows)], plane[len(rows) :]


def draw_map(page: Page, results: Sequence[Result], shown: int = 70) -> None:
    """Images and captions in a plane: each image joined to its caption."""
    N = len(results[0].image)
    page.heading(
        "A map of images and captions",
        f"{min(shown, N)} {results[0].task.kind} images and their captions (dots, joined to their "
        "image) along the "
        "two directions in which they vary most, each side centred by itself. Short lines are "
        "good; what lies together is alike to the run.",
    )
    rows = torch.arange(N)[:: max(1, N // shown)][:shown]
    width, columns = side_by_side(page, results)
    side = min(width - 20, 900)
    top = page.y + 20
    for x, result in columns:
        page.text(x, page.y, short_name(result), FAINT, 13)
        page.pen.rectangle([x, top, x + side, top + side], outline=FAINT)
        # From [0, 1] to pixels. The margin of 30 keeps the small images inside the frame.
        images, captions = plane_of(result, rows)
        corner = torch.tensor([x, top])
        images = (images * (side - 60) + 30 + corner).tolist()
        captions = (captions * (side - 60) + 30 + corner).tolist()
        for i, (image_x, image_y), (caption_x, caption_y) in zip(
            rows.tolist(), images, captions, strict=True
        ):
            page.pen.line([image_x, image_y, caption_x, caption_y], (190, 190, 200), 1)
            dot = [caption_x - 3, caption_y - 3, caption_x + 3, caption_y + 3]
            page.pen.ellipse(dot, fill=COLOURS[0])
            pixels = result.task.images.pixels([i])[0]
            page.thumbnail(int(image_x) - 16, int(image_y) - 16, pixels, side=32)
    page.y = top + side + 10


# --------------------------------------------------------------------------------------------------
# search.png.


def contact_sheet(
    found: list[tuple[str, list[tuple[Path, float]]]],
    path: str | Path,
    trained_on: Set[Path],
) -> None:
    """Draw what a search found: [(query, [(path of an image, cosine)])].

    trained_on  images that are marked: the run was trained on them
    """
    in_row = 8
    page = Page(2 * MARGIN + in_row * (THUMBNAIL + 14), 2 * MARGIN + 320 * len(found))
    for query, hits in found:
        page.heading(
            query,
            f"the {len(hits)} nearest images; the numbers are cosines, to compare within this "
            "search only",
        )
        bottom = page.y
        for i, (file, cosine) in enumerate(hits):
            x = MARGIN + i % in_row * (THUMBNAIL + 14)
            y = page.y + i // in_row * (THUMBNAIL + 50)
            with open_image(file) as image:
                page.thumbnail(x, y, to_square(image, THUMBNAIL))
            words = f"{cosine:.3f} {'(trained on) ' if file in trained_on else ''}{file.name}"
            y = page.text(x, y + THUMBNAIL + 2, words, FAINT, 12, THUMBNAIL, lines=3)
            bottom = max(bottom, y)
        page.y = bottom
    page.save(path)
