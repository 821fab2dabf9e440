"""Reports: what is trained and on what machine, what a language model thinks of captions, what runs scored, and report.png."""

import json
import platform
import resource
import sys
import time
from contextlib import suppress

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from data.images.pixels import to_square
from data.page import COLOURS, FAINT, INK, LINE, MARGIN, THUMB, Page


def parameters(model, cached):
    """(in words by part, how many are trained, how many there are) of a lift.TwoTower; cached: of the LLM behind cached captions."""
    parts = {
        name: (
            sum(p.numel() for p in part.parameters() if p.requires_grad),
            sum(p.numel() for p in part.parameters()),
        )
        for name, part in model.named_children()
    }
    parts |= {
        "logit_scale": (int(model.logit_scale.requires_grad), 1),
        "the LLM behind the cached captions": (0, cached),
    }
    trained, everything = (sum(counts) for counts in zip(*parts.values()))
    return (
        (
            ", ".join(f"{name} {n:,} of {of:,}" for name, (n, of) in parts.items() if of)
            + f"; in all {trained:,} of {everything:,} ({trained / everything:.2%})"
        ),
        trained,
        everything,
    )


def machine(device):
    """What a run is computed with, for its log."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name()
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
    }


def memory_gb(device):
    """Peak memory in GB: of the GPU's allocator, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
        / 1e9
    )


def log_line(entry, total):
    return (
        "step {step}/{total} | loss {loss:.3f} (ln B {ln_batch:.2f}) | acc {accuracy:.1%} | scale {scale:.1f} | lr {lr:.1e} | "
        "grad {grad_norm:.2f} | {images_per_second:.0f} img/s | wait {data_wait:.0%} | {memory_gb:.1f} GB | "
        "eta {eta_seconds:.0f} s"
    ).format(total=total, **entry)


def compare(llm, texts, pools, layer=None):
    """Print tokens and cosines of some captions. llm: llm_text.FrozenLLM"""
    for i, text in enumerate(texts):
        ids = llm.tokenizer.encode_all([text])[0][0]
        print(
            f"[{i + 1}] {text}\n    {len(ids)} tokens: {'|'.join(llm.tokenizer.token(j) for j in ids)}"
        )
    for pool in pools:
        start = time.time()
        v = F.normalize(llm.encode(texts, pool, layer), dim=1)
        default = ", train.py's default" if pool == "mean" and layer is None else ""
        print(
            f"\ncosines, pooling {pool} after layer {llm.pool_layer(pool, layer)}{default} "
            f"({1000 * (time.time() - start) / len(texts):.0f} ms a caption)"
        )
        for i, row in enumerate(v @ v.T):
            print(f"    [{i + 1}] " + " ".join(f"{c:6.3f}" for c in row))
    print(
        "\nRaw vectors lie in a narrow cone, so all cosines are high; training centres or whitens them first."
    )


def flat(nested, path=""):
    """{path: leaf} of a tree of dictionaries, in order."""
    if not isinstance(nested, dict):
        return {path: nested}
    return {
        p: leaf
        for key, below in nested.items()
        for p, leaf in flat(below, f"{path} {key}".strip()).items()
    }


def tree(leaves):
    """The tree that `flat` takes apart."""
    root = {}
    for path, leaf in leaves.items():
        below, (*parents, name) = root, path.split()
        for key in parents:
            below = below.setdefault(key, {})
        below[name] = leaf
    return root


def table(results):
    """The results of several runs as one Markdown table."""
    lines = [
        "| score, in % [95 % interval] | chance | " + " | ".join(r["run"] for r in results) + " |",
        "|---|---|" + "---|" * len(results),
    ]
    scores = [(flat(r), flat(r["ci95"])) for r in results]
    for path, chance in flat(results[0]["chance"]).items():
        cells = [
            f"{100 * value[path]:.1f}"
            + (f" [{100 * ci95[path][0]:.1f}, {100 * ci95[path][1]:.1f}]" if ci95[path] else "")
            for value, ci95 in scores
        ]
        lines.append(f"| {path} | {100 * chance:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report(runs, results, path, examples=6):
    """Draw one page for several runs at the same task. runs: eval.Run; results: their scores."""
    task = runs[0].task
    names = [r["run"] if len(r["run"]) < 40 else "..." + r["run"][-36:] for r in results]
    page = Page(max(1400, 200 + 450 * len(runs)))
    page.y = page.text(
        MARGIN, page.y, "What the runs learned: " + " and ".join(names), size=28, width=page.inside
    )
    page.y = (
        page.text(
            MARGIN,
            page.y,
            f"{len(runs[0].image)} test pictures of {task.data}. "
            "In brackets: 95 % bootstrap interval. Chance is what a blind guess scores.",
            FAINT,
        )
        + 10
    )
    room = (page.inside - 330) // max(3, len(runs))
    for i, row in enumerate(table(results).split("\n")):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        colour = INK if i == 0 or cells[0].endswith(("R@1", "mean", "top1")) else FAINT
        page.y = (
            max(
                [
                    page.text(MARGIN + x, page.y, cell, colour, width=room - 20)
                    for x, cell in zip((0, 250, *range(330, page.inside, room)), cells)
                ]
            )
            if i != 1
            else page.y
        )
    curves(page, runs, names)
    if task.texts:
        retrieved(page, runs, names, examples)
        confusions(page, runs, names, examples)
    if task.negatives:
        fooled(page, runs, names)
    if task.names and not task.images.scenes:
        confusion_matrix(page, runs, names)
    if task.texts:
        chart(page, runs, names)
    page.save(path)


def curves(page, runs, names):
    """The loss in training, every run's against the share of its steps."""
    logs = []
    for r in runs:
        log = r.folder / "log.jsonl"
        losses = {}  # by step: a run that was resumed may have some twice
        for line in log.read_text().splitlines() if log.is_file() else ():
            with suppress(
                ValueError, KeyError
            ):  # a line that was cut off when the run was killed, or that has no loss
                entry = json.loads(line)
                losses[entry["step"]] = entry["loss"]
        logs.append(sorted((step, loss) for step, loss in losses.items() if np.isfinite(loss)))
    if not any(len(log) > 1 for log in logs):
        return
    page.heading(
        "How they learned",
        "Loss in training by step (each in its own unit: compare the shapes, not the heights).",
    )
    for i, (log, name) in enumerate(zip(logs, names)):
        if len(log) > 1:
            page.y = page.text(
                MARGIN,
                page.y,
                f"{name}: {log[0][1]:.2f} to {log[-1][1]:.2f}",
                COLOURS[i % len(COLOURS)],
            )
    left, top, width, height = MARGIN + 60, page.y + 8, page.inside - 80, 220
    last, highest = (
        max(step for log in logs for step, _ in log),
        max(loss for log in logs for _, loss in log) or 1,
    )
    page.pen.rectangle([left, top, left + width, top + height], outline=FAINT)
    for share in (0, 0.5, 1):
        page.text(MARGIN, top + height * (1 - share) - 8, f"{highest * share:.2f}", FAINT, 13)
        page.text(left + (width - 40) * share, top + height + 4, f"{last * share:.0f}", FAINT, 13)
    for i, log in enumerate(logs):
        points = [
            (left + width * step / last, top + height * (1 - loss / highest)) for step, loss in log
        ]
        if len(points) > 1:
            page.pen.line(points, COLOURS[i % len(COLOURS)], 3)
    page.y = top + height + 25


def retrieved(page, runs, names, examples):
    first = runs[0]
    page.heading(
        "Which caption fits this picture?",
        f"{min(examples, len(first.image))} test pictures at equal distances, not chosen by "
        "result. Above: the true caption. Below, for each run: the three captions it finds nearest among all of the test "
        "set, with cosines. A tick in a disc is the picture's own caption, a cross in a square is another picture's.",
    )
    left, room = MARGIN + THUMB + 20, (page.inside - THUMB - 20) // len(runs)
    once = list(
        {text: t for t, text in enumerate(first.task.texts)}.values()
    )  # (equal captions of several pictures)
    shown = min(examples, len(first.image))
    for i in (j * len(first.image) // shown for j in range(shown)):
        page.thumb(MARGIN, page.y, first.task.images.pixels([i])[0])
        top = (
            page.text(
                left,
                page.y,
                first.task.images.captions[i][0],
                size=17,
                width=page.inside - left,
                lines=2,
            )
            + 4
        )
        below = [page.y + THUMB]
        for x, r, name in zip(range(left, page.width, room), runs, names):
            y = page.text(x, top, name, FAINT, 13)
            scores = r.image[i] @ r.text[once].T
            for score, t in zip(*(got.tolist() for got in scores.topk(min(3, len(scores))))):
                y = page.answer(
                    x,
                    y,
                    r.task.texts[once[t]] in r.task.images.captions[i],
                    score,
                    r.task.texts[once[t]],
                    room - 20,
                )
            below.append(y)
        page.y = max(below) + 18


def confusions(page, runs, names, examples):
    """CaptionedImages for which another one's caption is nearer than any of their own, by the largest margin."""
    page.heading(
        "Hardest confusions",
        "The test pictures for which a wrong caption is nearer than the own by the widest margin in cosine, "
        "with the picture that the wrong caption belongs to.",
    )
    room, top, below = page.inside // len(runs), page.y, [page.y]
    for x, r, name in zip(range(MARGIN, page.width, room), runs, names):
        y, found = page.text(x, top, name, FAINT, 13) + 4, []
        for start in range(0, len(r.image), 512):
            scores = r.image[start : start + 512] @ r.text.T  # (c, T)
            own = torch.zeros_like(scores, dtype=torch.bool)
            for i in range(len(scores)):
                said = r.task.wording[r.task.owner == start + i]
                own[i] = torch.isin(r.task.wording, said)
            wrong, best = scores.masked_fill(own, -2).max(1)
            right, mine = scores.masked_fill(~own, -2).max(1)
            found += zip(
                (wrong - right).tolist(),
                range(start, start + len(scores)),
                mine.tolist(),
                best.tolist(),
            )
        for margin, i, mine, other in sorted(found, reverse=True)[: examples // 2]:
            if margin < 0:
                break
            page.thumb(x, y, r.task.images.pixels([i])[0])
            page.thumb(x + THUMB + 6, y, r.task.images.pixels([int(r.task.owner[other])])[0])
            at, width, end = x + 2 * THUMB + 20, room - 2 * THUMB - 40, y + THUMB
            for good, t in ((True, mine), (False, other)):
                y = page.answer(at, y, good, r.image[i] @ r.text[t], r.task.texts[t], width)
            y = max(y, end) + 8
        below.append(y)
    page.y = max(below) + 6


def fooled(page, runs, names):
    page.heading(
        "Hard negatives that fooled them",
        "For each category the first test picture where the run gives a "
        "false caption (cross) at least the cosine of the true one (tick), and in what share of the category "
        "that happened.",
    )
    room, kinds = (
        page.inside // len(runs),
        np.array([kind for _, kind, *_ in runs[0].task.negatives]),
    )
    for kind in dict.fromkeys(kinds.tolist()):
        below = [page.y + LINE]
        for x, r, name in zip(range(MARGIN, page.width, room), runs, names):
            wrong = np.flatnonzero((kinds == kind) & ~r.right.numpy())
            y = page.text(
                x,
                page.y,
                f"{kind}, {name}: fooled in {len(wrong) / (kinds == kind).sum():.1%}",
                FAINT,
                width=room - 20,
            )
            for m in wrong[:1]:
                i, _, true, false = r.task.negatives[m]
                page.thumb(x, y, r.task.images.pixels([i])[0])
                below.append(y + THUMB)
                for good, words, other in ((True, true, r.true), (False, false, r.false)):
                    y = page.answer(
                        x + THUMB + 15,
                        y,
                        good,
                        r.image[i] @ other[m],
                        words,
                        room - THUMB - 35,
                        digits=4,
                    )
            below.append(y)
        page.y = max(below) + 14


def confusion_matrix(page, runs, names, most=30):
    """Classes that are taken for others, as a square; of many classes those with the most mistakes."""
    page.heading(
        "What is taken for what",
        "StoredRows: the right class. Columns: the guess, in the same order. Green: right, red: "
        f"wrong; deeper: a larger share of the row. At most {most} classes, those with the most mistakes.",
    )
    for r, name in zip(runs, names):
        labels, classes = r.task.labels, r.task.names
        n = len(classes)
        counts = (
            torch.bincount(labels * n + r.guessed, minlength=n * n).view(n, n).float()
        )  # (right, guess)
        mistakes = counts.sum(1) - counts.diag() + counts.sum(0) - counts.diag()
        kept = mistakes.argsort(descending=True, stable=True)[:most].sort().values.tolist()
        shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
        page.y = page.text(MARGIN, page.y, name, FAINT, 15)
        cell, left = 22, MARGIN + 180
        for row, i in enumerate(kept):
            page.text(MARGIN, page.y, classes[i][:22], size=13)
            for column, j in enumerate(kept):
                shade = int(255 * (1 - shares[i, j]))
                colour = (shade, 255 - (255 - shade) // 2, shade) if i == j else (255, shade, shade)
                x = left + column * cell
                page.pen.rectangle(
                    [x, page.y, x + cell - 2, page.y + cell - 2],
                    fill=colour,
                    outline=(230, 230, 230),
                )
            row_best = shares[i].clone()
            row_best[i] = -1
            if row_best.max() > 0:
                page.text(
                    left + len(kept) * cell + 12,
                    page.y,
                    f"{shares[i, i]:.0%} right; most mistakes: "
                    f"{classes[int(row_best.argmax())]} ({row_best.max():.0%})",
                    FAINT,
                    13,
                )
            page.y += cell
        page.y += 12


def chart(page, runs, names, shown=70):
    """CaptionedImages and captions in the plane of their two main directions."""
    page.heading(
        "A map of pictures and captions",
        f"{min(shown, len(runs[0].image))} test pictures and their captions (dots, joined to "
        "their picture) along the two directions in which they vary most, each side centred by itself. Short lines are good; what "
        "lies together is alike to the run.",
    )
    room, size = page.inside // len(runs), min(page.inside // len(runs) - 20, 900)
    for x, r, name in zip(range(MARGIN, page.width, room), runs, names):
        rows = torch.arange(len(r.image))[:: max(1, len(r.image) // shown)][:shown]
        texts = torch.tensor([int((r.task.owner == i).nonzero()[0]) for i in rows])
        sides = [v - v.mean(0) for v in (r.image[rows], r.text[texts])]
        both = torch.cat(sides).nan_to_num()
        plane = both @ torch.linalg.svd(both, full_matrices=False)[2][:2].T  # (2 n, 2)
        low, high = plane.amin(0), plane.amax(0)
        at = ((plane - low) / (high - low).clamp_min(1e-9) * (size - 60) + 30).tolist()
        page.text(x, page.y, name, FAINT, 13)
        page.pen.rectangle([x, page.y + 20, x + size, page.y + 20 + size], outline=FAINT)
        for i, (picture, caption) in enumerate(zip(at[: len(rows)], at[len(rows) :])):
            (px, py), (cx, cy) = ((x + u, page.y + 20 + v) for u, v in (picture, caption))
            page.pen.line([px, py, cx, cy], (190, 190, 200), 1)
            page.pen.ellipse([cx - 3, cy - 3, cx + 3, cy + 3], fill=COLOURS[0])
            small = Image.fromarray(r.task.images.pixels([int(rows[i])])[0]).resize(
                (32, 32), Image.LANCZOS
            )
            page.picture.paste(small, (int(px) - 16, int(py) - 16))
    page.y += size + 30


def contact_sheet(found, path):
    """Draw what a search found: [(query, [(path of a picture, cosine)])]."""
    page = Page(2 * MARGIN + 8 * (THUMB + 14), 2 * MARGIN + 320 * len(found))
    for query, hits in found:
        page.heading(
            query,
            f"the {len(hits)} nearest pictures; the numbers are cosines, to compare within this search only",
        )
        bottom = page.y
        for i, (file, cosine) in enumerate(hits):
            x, y = MARGIN + i % 8 * (THUMB + 14), page.y + i // 8 * (THUMB + 50)
            with Image.open(file) as picture:
                page.thumb(x, y, to_square(picture, THUMB))
            bottom = max(
                bottom,
                page.text(x, y + THUMB + 2, f"{cosine:.3f} {file.name}", FAINT, 12, THUMB, lines=3),
            )
        page.y = bottom
    page.save(path)
