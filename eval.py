"""Score trained runs by the field's own tests, draw what they did, search and classify with them.

    python eval.py runs/lift runs/clip                       # held-out data: retrieval, and for the shapes composition and zero-shot
    python eval.py runs/lift --data other.csv                # on other pictures
    python eval.py runs/lift --zeroshot FOLDER               # an ImageFolder
    python eval.py runs/lift --sugarcrepe JSON_DIR --images val2017
    python eval.py runs/lift --winoground FOLDER
    python eval.py runs/lift --search FOLDER "a dog on a beach" "a red car"
    python eval.py runs/lift --classify picture.jpg dog,cat

Scores go to a table, to eval.json in each run, and into report.png (of another test or other data: eval[-TEST]-NAME.json, report[-TEST]-NAME.png).
Every score is a function of embeddings. Ties and NaN count as wrong, so a collapsed model scores 0, not chance. Numbers in the json
files are fractions in [0, 1]; ci95 and chance hold the same tree as the scores.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import lift
from data import benchmarks, search
from data.common import BadInput, pick_device, run
from data.files.runs import read_run
from data.images import pixels
from data.images.formats import COLUMNS
from data.report import report, table, tree
from data.vectors import OutsideVectors
from data.world.shapes import CATEGORIES

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
        scores = image_features[start : start + chunk] @ text_features.T  # (c, T)
        said = torch.zeros(
            len(scores), int(wording.max()) + 1, dtype=torch.bool
        )  # which words each picture owns
        mine = (owner >= start) & (owner < start + len(scores))
        said[owner[mine] - start, wording[mine]] = True
        i2t.append(rank_of_best(scores, said[:, wording]))
    for start in range(0, len(text_features), chunk):
        scores = text_features[start : start + chunk] @ image_features.T  # (c, N)
        own = torch.zeros_like(scores, dtype=torch.bool)
        row, other = (wording[start : start + chunk, None] == wording).nonzero(as_tuple=True)
        own[row, owner[other]] = True
        t2i.append(rank_of_best(scores, own))
    return torch.cat(i2t), torch.cat(t2i)


def compositional(image_features, true_features, false_features):
    """(M,) bool: is the true caption strictly nearer to its picture than the false one? All (M, D), unit length."""
    return (image_features * true_features).sum(-1) > (image_features * false_features).sum(-1)


def zeroshot(image_features, features, labels, k=1):
    """(N,) bool: are fewer than k wrong classes' scores (of features (C, D)) at or above the right one's?"""
    scores = image_features @ features.T  # (N, C)
    right = scores.gather(1, labels[:, None])
    return (~(scores < right)).sum(1) <= k


def winoground(image_features, text_features):
    """Text, image and group score, (E,) bool each, of 2 E pictures and captions; 2 i and 2 i + 1 are an example's. (Thrush et al. 2022)

    Text: each picture's own caption beats the other. Image: each caption's own picture does. Group: both.
    """
    image, text = (
        features.unflatten(0, (-1, 2)) for features in (image_features, text_features)
    )  # (E, 2, D)
    scores = image @ text.transpose(1, 2)  # (E, pictures, captions)
    own = scores.diagonal(dim1=1, dim2=2)  # (E, 2)
    by_text, by_image = (
        (own > scores.flip(2).diagonal(dim1=1, dim2=2)).all(1),
        (own > scores.flip(1).diagonal(dim1=1, dim2=2)).all(1),
    )
    return by_text, by_image, by_text & by_image


def interval(hits, groups=None, resamples=1000):
    """95 % bootstrap interval of mean(hits): percentiles over resampled groups (captions of one picture stay together)."""
    hits = np.asarray(hits, float)
    groups = np.arange(len(hits)) if groups is None else np.asarray(groups)
    total, count, rng = np.bincount(groups, hits), np.bincount(groups), np.random.default_rng(0)
    draws = (rng.integers(0, len(total), len(total)) for _ in range(resamples))
    return np.percentile(
        [total[drawn].sum() / count[drawn].sum() for drawn in draws], (2.5, 97.5)
    ).tolist()


# ---------------------------------------------------------------------------------------------------------------
# Scores: {"retrieval i2t R@1": (share of hits, its 95 % interval, what a blind guess would score)}, and so on.


def score(hits, chance, groups=None):
    return float(np.mean(np.asarray(hits, float))), interval(hits, groups), float(chance)


def retrieval_scores(name, image, text, owner, wording):
    """R@K both ways. A picture's captions count together from picture to text, each for itself from text to picture."""
    i2t, t2i = retrieval_ranks(image, text, owner, wording)
    picture, words = torch.stack([owner, wording]).unique(dim=1)  # which picture owns which words
    captions = torch.zeros(len(image), dtype=torch.int64).index_add_(
        0, picture, wording.bincount()[words]
    )
    pictures, scores = (
        words.bincount()[wording],
        {},
    )  # right answers: (N,) captions and (T,) pictures
    for way, ranks, right, n, groups in (
        ("i2t", i2t, captions, len(text), None),
        ("t2i", t2i, pictures, len(image), owner),
    ):
        for k in (1, 5, 10):  # chance: is any of c right ones among the k that are drawn of n?
            draws = min(k, n)
            blind = 1 - np.mean(
                [math.comb(n - c, draws) / math.comb(n, draws) for c in right.tolist()]
            )
            scores[f"{name} {way} R@{k}"] = score(ranks < k, blind, groups)
    return scores


def compositional_scores(kinds, right):
    """Each kind's share of true captions that beat the false one, and the mean over kinds."""
    kinds, right, rng = np.array(kinds), np.asarray(right), np.random.default_rng(0)
    hits = {kind: right[kinds == kind] for kind in CATEGORIES if kind in kinds}
    means = [
        np.mean([rng.choice(own, len(own)).mean() for own in hits.values()]) for _ in range(1000)
    ]
    return {f"compositional {kind}": score(own, 0.5) for kind, own in hits.items()} | {
        "compositional mean": (
            float(np.mean([own.mean() for own in hits.values()])),
            np.percentile(means, (2.5, 97.5)).tolist(),
            0.5,
        )
    }


def zeroshot_scores(image, features, labels, ks):
    """Top-k accuracy, and with more than one k the mean over classes, however many pictures each has."""
    found = {
        f"zeroshot top{k}": score(zeroshot(image, features, labels, k), min(1.0, k / len(features)))
        for k in ks
    }
    if len(ks) > 1:
        hits, per_class = zeroshot(image, features, labels), torch.bincount(labels).float()
        found["zeroshot mean_per_class"] = (
            float((hits / per_class[labels]).sum() / (per_class > 0).sum()),
            None,
            1 / len(features),
        )
    return found


class Run:
    """A trained run, and what it makes of a task (data/benchmarks.py): embeddings, of which every score is a function."""

    def __init__(self, folder, device="cpu"):
        path, self.device, checkpoint = Path(folder), device, read_run(folder)
        # an exported run is a file: what is written goes into a folder of its name
        self.folder, self.weights = (
            (path.with_suffix(""), path) if path.is_file() else (path, path / "checkpoint.pt")
        )
        self.cfg, self.step, self.seen = (
            checkpoint["config"],
            checkpoint["step"],
            checkpoint.get("seen", torch.empty(0)),
        )
        self.model, self.transform, self.tokenize = lift.load(folder, device)

    @torch.no_grad()
    def encode_images(self, pictures, batch=256):
        """CaptionedImages -> (N, D), unit length, on the CPU."""
        if self.cfg["image_features"]:  # (N, D), or (N, V, D): the first view
            vectors = OutsideVectors(self.cfg["image_features"])(pictures.names)
            inputs = (vectors if vectors.ndim == 2 else vectors[:, 0]).split(batch)
        else:
            rows = [
                np.arange(i, min(i + batch, len(pictures))) for i in range(0, len(pictures), batch)
            ]
            inputs = (
                pixels.normalize_pixels(torch.from_numpy(pictures.pixels(which))) for which in rows
            )
        return torch.cat(
            [self.model.encode_image(part.to(self.device), normalize=True).cpu() for part in inputs]
        )

    @torch.no_grad()
    def encode_texts(self, texts, batch=1024):
        """DistinctCaptions -> (N, D), unit length, on the CPU."""
        inputs = self.tokenize.rows(texts)
        return torch.cat(
            [
                self.model.encode_text(inputs[i : i + batch].to(self.device), normalize=True).cpu()
                for i in range(0, len(texts), batch)
            ]
        )

    def class_features(self, names, templates):
        """(C, D): each class's prompts embedded, normalised, averaged, and normalised again. (CLIP, section 3.1.4)"""
        prompts = self.encode_texts(
            [t.replace("{}", name) for name in names for t in templates]
        ).view(len(names), len(templates), -1)
        return F.normalize(F.normalize(prompts, dim=-1).mean(1), dim=-1)

    def embed(self, task):
        """Embed the task's pictures, image (N, D), its captions, text (T, D), and the true and false ones, (M, D) each."""
        self.task, self.image = task, self.encode_images(task.images)
        if texts := task.texts or task.couples:
            self.text = self.encode_texts(texts)
        if task.negatives:
            self.true, self.false = (
                self.encode_texts([negative[side] for negative in task.negatives])
                for side in (2, 3)
            )
        return self

    @property
    def right(self):
        """(M,) bool: which false captions does the true one beat?"""
        return compositional(
            self.image[[i for i, *_ in self.task.negatives]], self.true, self.false
        )

    def scores(self):
        """The tree of eval.json: all that the task asks."""
        task, found, counts = self.task, {}, self.task.counts
        if task.texts:
            found |= retrieval_scores("retrieval", self.image, self.text, task.owner, task.wording)
            first = np.unique(task.owner, return_index=True)[1]
            if len(first) < len(task.texts):  # LIFT's variant: one caption a picture
                found |= retrieval_scores(
                    "one_caption",
                    self.image,
                    self.text[first],
                    task.owner[first],
                    task.wording[first],
                )
        if task.negatives:
            found |= compositional_scores([kind for _, kind, *_ in task.negatives], self.right)
        if task.names:
            image, features = self.image[task.rows], self.class_features(task.names, task.templates)
            self.guessed = (image @ features.T).argmax(1)
            found |= zeroshot_scores(image, features, task.labels, task.ks)
        if task.couples:
            for name, hits, chance in zip(
                ("text", "image", "group"), winoground(self.image, self.text), (1 / 4, 1 / 4, 1 / 6)
            ):
                found[f"winoground {name}"] = score(hits, chance)
        if known := int(np.isin(task.images.digests.view(np.int64), self.seen).sum()):
            counts["or more of the pictures trained on"] = known
        value, ci95, chance = (
            tree({path: leaves[i] for path, leaves in found.items()}) for i in range(3)
        )
        return {
            "run": str(self.folder),
            "method": self.cfg["method"],
            "data": task.data,
            "step": self.step,
            "counts": counts,
            **value,
            "ci95": ci95,
            "chance": chance,
        }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage="python eval.py RUN [RUN ...] [--flag value ...]   (--help lists the flags)",
    )
    parser.add_argument("runs", nargs="+", help="run folders, or files of data.export")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--data", default="", help="pictures with captions (default: the runs' own held-out ones)"
    )
    what.add_argument("--zeroshot", metavar="FOLDER", help="an ImageFolder")
    what.add_argument(
        "--sugarcrepe",
        metavar="JSON_DIR",
        help="folder of SugarCrepe's seven json files; needs --images",
    )
    what.add_argument(
        "--winoground", metavar="FOLDER", help="folder with examples.jsonl and images/"
    )
    what.add_argument(
        "--search",
        nargs="+",
        metavar=("FOLDER", "QUERY"),
        help="find pictures by words; draws search.png",
    )
    what.add_argument("--classify", nargs=2, metavar=("IMAGE", "A,B,C"), help="name one picture")
    parser.add_argument("--images", default="", help="COCO's val2017, for --sugarcrepe")
    parser.add_argument(
        "--classnames",
        default="",
        help="for --zeroshot: names, a line each in the order of the sorted folders, or FOLDER<tab>NAME",
    )
    parser.add_argument(
        "--templates",
        default="",
        help="file of prompts with {}, a line each (default: LIFT's single one)",
    )
    for name in COLUMNS:
        parser.add_argument(name, default="", help="as in train.py, for --data")
    parser.add_argument(
        "--report", help="where the picture goes (default: report.png in the run, or above several)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    args = parser.parse_args()
    if args.report and not (
        Path(args.report).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")
        and Path(args.report).parent.is_dir()
    ):
        raise BadInput(
            f"--report {args.report}: name a .png, .jpg or .webp file in a folder that is there"
        )
    if args.search and args.report and len(args.runs) > 1:
        raise BadInput(
            f"--report {args.report} would hold the last run's search only; leave it out (search.png in each run)"
        )
    device = pick_device(args.device)
    if args.search or args.classify:
        for folder in args.runs:
            search.use(Run(folder, device), args)
        return
    runs = [
        r.embed(benchmarks.asked(args, r.cfg))
        for r in (Run(folder, device) for folder in args.runs)
    ]
    kind = next(
        (f"-{kind}" for kind in ("zeroshot", "sugarcrepe", "winoground") if getattr(args, kind)), ""
    )
    where = args.zeroshot or args.sugarcrepe or args.winoground or args.data
    name = kind + (f"-{Path(where).resolve().stem}" if where else "")  # never one for the other
    target = Path(
        args.report
        or (runs[0].folder if len(runs) == 1 else runs[0].folder.parent) / f"report{name}.png"
    )
    if any(
        (list(r.task.images.names), r.task.texts)
        != (list(runs[0].task.images.names), runs[0].task.texts)
        for r in runs
    ):
        raise BadInput(
            f"the runs hold out different pictures ({', '.join(f'{r.folder}: {r.task.data}' for r in runs)}); name "
            "one set for all with --data"
        )
    results = [r.scores() for r in runs]
    for r, result in zip(runs, results):
        r.folder.mkdir(exist_ok=True)
        (r.folder / f"eval{name}.json").write_text(json.dumps(result, indent=1))
    print(
        f"\n{results[0]['data']}: "
        + ", ".join(f"{n} {what}" for what, n in results[0]["counts"].items())
        + "\n"
    )
    print(table(results))
    report(runs, results, target)
    if len(runs[0].image) < 50:
        print("\nnote: so few test pictures say little")
    print(f"\nwrote {target} and eval{name}.json in each run")


if __name__ == "__main__":
    sys.exit(run(main))
