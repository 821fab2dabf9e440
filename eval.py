"""Score trained runs: retrieval, composition (hard negatives), zero-shot classification; and draw what they did.

    python eval.py runs/lift runs/clip          # one table, eval.json in each run, report.png beside them
    python eval.py runs/lift --data other.csv   # on other pictures

Every score is a function of embeddings. Ties and NaN count as wrong, so a collapsed model scores 0, not chance.
Numbers in eval.json are fractions in [0, 1]; ci95 and chance hold the same tree as the scores.
"""

import argparse
import json
import math
import sys
from functools import reduce
from operator import getitem
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import lift
from data import BadInput, pick_device, pixels, readers, run, shapes
from data.formats import COLUMNS
from data.page import FAINT, INK, LINE, MARGIN, THUMB, Page

RECALLS = (1, 5, 10)


# ---------------------------------------------------------------------------------------------------------------
# Metrics.


def rank_of_best(scores, own):
    """(c,): how many wrong answers come before the best of the right ones (own: (c, M) bool) in scores (c, M).

    A wrong answer with an equal score, or NaN, goes before the right one.
    """
    best = scores.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
    return (~(scores < best) & ~own).sum(1)


def retrieval_ranks(image_features, text_features, owner, wording=None, chunk=512):
    """Ranks of the right answer, 0 is first: (image to text (N,), text to image (T,)), int64.

    image_features (N, D), text_features (T, D), owner (T,): the picture each caption was given to. wording (T,): equal
    numbers for captions of equal words, which are right wherever those words are (default: all differ). A picture with
    several captions is right when any is found, so its rank is that of its best one among all that are wrong for it.
    Never holds more than chunk x max(N, T) scores.
    """
    image_features, text_features = image_features.float(), text_features.float()
    wording = torch.arange(len(owner)) if wording is None else wording
    i2t, t2i = [], []
    for start in range(0, len(image_features), chunk):
        scores = image_features[start:start + chunk] @ text_features.T  # (c, T)
        said = torch.zeros(len(scores), int(wording.max()) + 1, dtype=torch.bool)  # which words each picture owns
        mine = (owner >= start) & (owner < start + len(scores))
        said[owner[mine] - start, wording[mine]] = True
        i2t.append(rank_of_best(scores, said[:, wording]))
    for start in range(0, len(text_features), chunk):
        scores = text_features[start:start + chunk] @ image_features.T  # (c, N)
        own = torch.zeros_like(scores, dtype=torch.bool)
        row, other = (wording[start:start + chunk, None] == wording).nonzero(as_tuple=True)
        own[row, owner[other]] = True
        t2i.append(rank_of_best(scores, own))
    return torch.cat(i2t), torch.cat(t2i)


def compositional(image_features, true_features, false_features):
    """(M,) bool: is the true caption strictly nearer to its picture than the false one? All (M, D), unit length."""
    return (image_features * true_features).sum(-1) > (image_features * false_features).sum(-1)


def class_features(encode, names, templates):
    """(C, D): each class's prompts embedded, normalised, averaged, and normalised again. (CLIP, section 3.1.4)"""
    prompts = encode([t.format(name) for name in names for t in templates]).view(len(names), len(templates), -1)
    return F.normalize(F.normalize(prompts, dim=-1).mean(1), dim=-1)


def zeroshot(image_features, features, labels):
    """(N,) bool: is the right class's score (of features (C, D)) strictly above all others?"""
    scores = image_features @ features.T  # (N, C)
    right = scores.gather(1, labels[:, None])
    return (~(scores < right)).sum(1) == 1


def interval(hits, groups=None, resamples=1000):
    """95 % bootstrap interval of mean(hits): percentiles over resampled groups (captions of one picture stay together)."""
    hits = np.asarray(hits, float)
    groups = np.arange(len(hits)) if groups is None else np.asarray(groups)
    total, count = np.bincount(groups, hits), np.bincount(groups)
    rng = np.random.default_rng(0)
    means = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(total), len(total))
        means.append(total[drawn].sum() / count[drawn].sum())
    return [float(q) for q in np.percentile(means, (2.5, 97.5))]


# ---------------------------------------------------------------------------------------------------------------
# One run.


class Embedded:
    """A run's embeddings of a test set, and everything that is read off them."""

    @torch.no_grad()
    def __init__(self, folder, data="", device="cpu", columns=("",) * 4):
        self.folder, self.device = Path(folder), device
        checkpoint = lift.read_checkpoint(folder)
        self.cfg, self.step = checkpoint["config"], checkpoint["step"]
        self.model, _, self.tokenize = lift.load(folder, device)
        c = self.cfg
        self.data = data or c["val_data"] or c["data"]
        own = Path(self.data).resolve() == Path(c["data"]).resolve()  # then only its held-out part, unless all was trained on
        if own and not any(columns) and self.data not in shapes.WORLDS:
            columns = c["csv_separator"], c["csv_img_key"], c["csv_caption_key"], c["image_root"]
        self.pictures = readers.read(self.data, "test", c["image_size"], 0, *columns, whole=not own or bool(c["val_data"]))
        self.image = self.encode_pictures(self.pictures)
        self.texts = [text for captions in self.pictures.captions for text in captions]
        self.owner = torch.tensor([i for i, captions in enumerate(self.pictures.captions) for _ in captions])
        number = {text: i for i, text in enumerate(dict.fromkeys(self.texts))}
        self.wording = torch.tensor([number[text] for text in self.texts])
        self.text = self.encode_texts(self.texts)
        self.negatives = [(i, kind, false) for i, scene in enumerate(self.pictures.scenes or [])
                          for kind, false in shapes.negatives(scene).items()]
        if self.negatives:
            self.false = self.encode_texts([false for _, _, false in self.negatives])
            self.shown = [i for i, _, _ in self.negatives]  # the picture of each
            self.true = self.encode_texts([shapes.caption(scene) for scene in self.pictures.scenes])[self.shown]

    @property
    def right(self):
        """(M,) bool: which of the negatives does the true caption beat?"""
        return compositional(self.image[self.shown], self.true, self.false)

    def encode_pictures(self, pictures, batch=256):
        if self.cfg["image_features"]:  # (N, D), or (N, V, D): the first view
            vectors = readers.Named(self.cfg["image_features"])(pictures.names)
            inputs = (vectors if vectors.ndim == 2 else vectors[:, 0]).split(batch)
        else:
            rows = [np.arange(i, min(i + batch, len(pictures))) for i in range(0, len(pictures), batch)]
            inputs = (pixels.normalize_pixels(torch.from_numpy(pictures.pixels(which))) for which in rows)
        return torch.cat([self.model.encode_image(part.to(self.device), normalize=True).cpu() for part in inputs])

    def encode_texts(self, texts, batch=1024):
        inputs = self.tokenize.rows(texts)
        return torch.cat([self.model.encode_text(inputs[i:i + batch].to(self.device), normalize=True).cpu()
                          for i in range(0, len(texts), batch)])

    @torch.no_grad()
    def scores(self):
        """The tree of eval.json."""
        n, t = len(self.image), len(self.text)
        result = {"run": str(self.folder), "method": self.cfg["method"], "data": self.data, "step": self.step}
        value, ci95, chance = {}, {}, {}

        i2t, t2i = retrieval_ranks(self.image, self.text, self.owner, self.wording)
        captions = np.bincount(self.owner).tolist()
        for tree in (value, ci95, chance):
            tree["retrieval"] = {"i2t": {}, "t2i": {}}
        value["retrieval"]["gallery"], value["retrieval"]["captions"] = n, t
        for k in RECALLS:
            for way, ranks, groups in (("i2t", i2t, None), ("t2i", t2i, self.owner)):
                value["retrieval"][way][f"R@{k}"] = float((ranks < k).float().mean())
                ci95["retrieval"][way][f"R@{k}"] = interval(ranks < k, groups)
            draws = min(k, t)  # chance of none of a picture's c captions among so many drawn from t
            miss = [math.comb(t - c, draws) / math.comb(t, draws) for c in captions]
            chance["retrieval"]["i2t"][f"R@{k}"] = 1 - float(np.mean(miss))
            chance["retrieval"]["t2i"][f"R@{k}"] = min(1.0, k / n)

        if self.negatives:
            kinds = np.array([kind for _, kind, _ in self.negatives])
            right = self.right.numpy()
            by_kind = {kind: right[kinds == kind] for kind in shapes.CATEGORIES if kind in kinds}
            value["compositional"] = {kind: float(hits.mean()) for kind, hits in by_kind.items()}
            value["compositional"]["mean"] = float(np.mean(list(value["compositional"].values())))
            ci95["compositional"] = {kind: interval(hits) for kind, hits in by_kind.items()}
            rng = np.random.default_rng(0)
            means = [np.mean([rng.choice(hits, len(hits)).mean() for hits in by_kind.values()]) for _ in range(1000)]
            ci95["compositional"]["mean"] = [float(q) for q in np.percentile(means, (2.5, 97.5))]
            chance["compositional"] = {kind: 0.5 for kind in (*by_kind, "mean")}
            result["compositional_items"] = {kind: len(hits) for kind, hits in by_kind.items()}

        # zero-shot: name the object of a picture that shows one, by prompts; on this ground it never stood in training
        alone = [i for i, scene in enumerate(self.pictures.scenes or []) if len(scene.things) == 1]
        if alone:
            names, templates = shapes.classes(self.data)
            things = [self.pictures.scenes[i].things[0] for i in alone]
            labels = torch.tensor([names.index(f"{thing.colour} {thing.shape}") for thing in things])
            hits = zeroshot(self.image[alone], class_features(self.encode_texts, names, templates), labels)
            value["zeroshot"] = {"top1": float(hits.float().mean())}
            ci95["zeroshot"], chance["zeroshot"] = {"top1": interval(hits)}, {"top1": 1 / len(names)}
            result["zeroshot_items"], result["zeroshot_classes"] = len(alone), len(names)
        return {**result, **value, "ci95": ci95, "chance": chance}


def table(results):
    """The results of several runs as one Markdown table."""
    rows = [("retrieval", way, f"R@{k}") for way in ("i2t", "t2i") for k in RECALLS]
    rows += [("compositional", kind) for kind in results[0].get("compositional", [])]
    rows += [("zeroshot", "top1")] if "zeroshot" in results[0] else []

    def look_up(tree, path):
        return reduce(getitem, path, tree)

    lines = ["| score, in % [95 % interval] | chance | " + " | ".join(r["run"] for r in results) + " |",
             "|---|---|" + "---|" * len(results)]
    for path in rows:
        cells = []
        for r in results:
            low, high = look_up(r["ci95"], path)
            cells.append(f"{100 * look_up(r, path):.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        lines.append(f"| {' '.join(path)} | {100 * look_up(results[0]['chance'], path):.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------
# The picture.


def report(runs, results, path, examples=6):
    """Draw report.png: scores, the captions each run finds for held-out pictures, the hard negatives that fooled it."""
    first, shown = runs[0], list(zip(runs, [r["run"] for r in results]))
    page = Page(max(1400, 200 + 450 * len(runs)))
    page.y = page.text(MARGIN, page.y, "What the runs learned: " + " and ".join(name for _, name in shown), size=28)
    page.y = page.text(MARGIN, page.y, f"{len(first.image)} test pictures of {first.data}. "
                       "In brackets: 95 % bootstrap interval. Chance is what a blind guess scores.", FAINT) + 10
    room = (page.inside - 330) // max(3, len(runs))
    for i, line in enumerate(table(results).split("\n")):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for x, cell in zip((0, 250, *range(330, page.inside, room)), cells if i != 1 else ()):
            page.text(MARGIN + x, page.y, cell, INK if i == 0 or cells[0].endswith(("R@1", "mean", "top1")) else FAINT)
        page.y += LINE * (i != 1)

    page.heading("Which caption fits this picture?", f"{examples} test pictures at equal distances, not chosen by result. Above: the "
                 "true caption. Below, for each run: the three captions it finds nearest among all of the test set, with "
                 "cosines. A tick in a disc is the picture's own caption, a cross in a square is another picture's.")
    left, room = MARGIN + THUMB + 20, (page.inside - THUMB - 20) // len(runs)
    for i in range(0, len(first.image), -(-len(first.image) // examples)):
        page.thumb(MARGIN, page.y, first.pictures.pixels([i])[0])
        top, below = page.text(left, page.y, first.pictures.captions[i][0], size=17, width=page.inside - left) + 4, [page.y + THUMB]
        for x, (r, name) in zip(range(left, page.width, room), shown):
            y = page.text(x, top, name, FAINT, 13)
            scores = r.image[i] @ r.text.T
            for t in scores.topk(min(3, len(scores))).indices.tolist():
                y = page.answer(x, y, r.texts[t] in r.pictures.captions[i], scores[t], r.texts[t], room - 20)
            below.append(y)
        page.y = max(below) + 18

    if first.negatives:
        page.heading("Hard negatives that fooled them", "For each category the first test picture where the run gives a "
                     "false caption (cross) at least the cosine of the true one (tick), and in what share of the category "
                     "that happened.")
        room = page.inside // len(runs)
        for kind in [kind for kind in shapes.CATEGORIES if kind in results[0]["compositional"]]:
            below = [page.y + LINE]
            for x, (r, name), result in zip(range(MARGIN, page.width, room), shown, results):
                y = page.text(x, page.y, f"{kind}   {name}: fooled in {1 - result['compositional'][kind]:.1%}", FAINT)
                fooled = [m for m, right in enumerate(r.right) if not right and r.negatives[m][1] == kind]
                for m in fooled[:1]:
                    i, _, false = r.negatives[m]
                    page.thumb(x, y, r.pictures.pixels([i])[0])
                    below.append(y + THUMB)
                    for good, words, other in ((True, shapes.caption(r.pictures.scenes[i]), r.true), (False, false, r.false)):
                        y = page.answer(x + THUMB + 15, y, good, r.image[i] @ other[m], words, room - THUMB - 35, digits=4)
                below.append(y)
            page.y = max(below) + 14
    page.save(path)


def main():
    parser = argparse.ArgumentParser(description="Score trained runs and draw report.png.", allow_abbrev=False)
    parser.add_argument("runs", nargs="+", help="run folders")
    parser.add_argument("--data", default="", help="pictures to score on (default: the runs' own held-out ones)")
    for name in COLUMNS:
        parser.add_argument(name, default="", help="as in train.py, for --data")
    parser.add_argument("--report", help="where the picture goes (default: report.png in the run, or above several)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    args = parser.parse_args()
    first = Path(args.runs[0])
    target = Path(args.report or (first if len(args.runs) == 1 else first.parent) / "report.png")
    if target.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise BadInput(f"--report {target}: name a .png, .jpg or .webp file")
    columns = args.csv_separator, args.csv_img_key, args.csv_caption_key, args.image_root
    runs = [Embedded(folder, args.data, pick_device(args.device), columns) for folder in args.runs]
    if any((list(r.pictures.names), r.texts) != (list(runs[0].pictures.names), runs[0].texts) for r in runs):
        raise BadInput(f"the runs hold out different pictures ({', '.join(f'{r.folder}: {r.data}' for r in runs)}); name "
                       "one set for all with --data")
    results = [r.scores() for r in runs]
    for folder, result in zip(args.runs, results):
        name = f"eval-{Path(args.data).stem}.json" if args.data else "eval.json"  # never one for the other
        (Path(folder) / name).write_text(json.dumps(result, indent=1))
    r = results[0]
    print(f"\n{r['retrieval']['gallery']} pictures and {r['retrieval']['captions']} captions of {r['data']}"
          + (f"; {r['zeroshot_items']} pictures in {r['zeroshot_classes']} classes" if "zeroshot" in r else "") + "\n")
    print(table(results))
    report(runs, results, target)
    if len(runs[0].image) < 50:
        print("\nnote: so few test pictures say little; name more with --data, or train with --val-data")
    print(f"\nwrote {target} and {name} in each run")


if __name__ == "__main__":
    sys.exit(run(main))
