"""Score trained runs by the field's own tests, draw what they did, search and classify with them.

    python eval.py runs/lift runs/clip                       # held-out data: retrieval, and for the shapes composition and zero-shot
    python eval.py runs/lift --data other.csv                # on other pictures
    python eval.py runs/lift --zeroshot FOLDER               # an ImageFolder
    python eval.py runs/lift --sugarcrepe JSON_DIR --images val2017
    python eval.py runs/lift --winoground FOLDER
    python eval.py runs/lift --search FOLDER "a dog on a beach" "a red car"
    python eval.py runs/lift --classify picture.jpg dog,cat

Scores go to a table, to eval.json in each run, and into report.png (of other data: eval-NAME.json, report-NAME.png). Every score is a function of
embeddings. Ties and NaN count as wrong, so a collapsed model scores 0, not chance. Numbers in the json files are fractions in
[0, 1]; ci95 and chance hold the same tree as the scores.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import lift
from data import BadInput, pick_device, pixels, protocols, readers, run, shapes
from data.formats import COLUMNS
from data.report import contact_sheet, report, table


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
    prompts = encode([t.replace("{}", name) for name in names for t in templates]).view(len(names), len(templates), -1)
    return F.normalize(F.normalize(prompts, dim=-1).mean(1), dim=-1)


def zeroshot(image_features, features, labels, k=1):
    """(N,) bool: are fewer than k wrong classes' scores (of features (C, D)) at or above the right one's?"""
    scores = image_features @ features.T  # (N, C)
    right = scores.gather(1, labels[:, None])
    return (~(scores < right)).sum(1) <= k


def winoground(image_features, text_features):
    """Text, image and group score, (E,) bool each, of 2 E pictures and captions; 2 i and 2 i + 1 are an example's. (Thrush et al. 2022)

    Text: each picture's own caption beats the other. Image: each caption's own picture does. Group: both.
    """
    image, text = (features.unflatten(0, (-1, 2)) for features in (image_features, text_features))  # (E, 2, D)
    scores = image @ text.transpose(1, 2)  # (E, pictures, captions)
    own = scores.diagonal(dim1=1, dim2=2)  # (E, 2)
    by_text, by_image = (own > scores.flip(2).diagonal(dim1=1, dim2=2)).all(1), (own > scores.flip(1).diagonal(dim1=1, dim2=2)).all(1)
    return by_text, by_image, by_text & by_image


def interval(hits, groups=None, resamples=1000):
    """95 % bootstrap interval of mean(hits): percentiles over resampled groups (captions of one picture stay together)."""
    hits = np.asarray(hits, float)
    groups = np.arange(len(hits)) if groups is None else np.asarray(groups)
    total, count, rng = np.bincount(groups, hits), np.bincount(groups), np.random.default_rng(0)
    draws = (rng.integers(0, len(total), len(total)) for _ in range(resamples))
    return np.percentile([total[drawn].sum() / count[drawn].sum() for drawn in draws], (2.5, 97.5)).tolist()


# ---------------------------------------------------------------------------------------------------------------
# One run.


class Scores:
    """Three trees of one shape: the scores, their 95 % intervals, what a blind guess would score."""

    def __init__(self):
        self.trees = {}, {}, {}

    def add(self, path, hits, chance, groups=None):
        """hits (n,), the mean of which is the score; path is like "retrieval i2t R@1"."""
        self.put(path, float(np.mean(np.asarray(hits, float))), interval(hits, groups), float(chance))

    def put(self, path, *leaves):
        *parents, name = path.split()
        for tree, leaf in zip(self.trees, leaves):
            for key in parents:
                tree = tree.setdefault(key, {})
            tree[name] = leaf

    def retrieval(self, name, image, text, owner, wording):
        """R@K both ways. A picture's captions count together from picture to text, each for itself from text to picture."""
        i2t, t2i = retrieval_ranks(image, text, owner, wording)
        picture, words = torch.stack([owner, wording]).unique(dim=1)  # which picture owns which words
        captions = torch.zeros(len(image), dtype=torch.int64).index_add_(0, picture, wording.bincount()[words])
        pictures = words.bincount()[wording]  # right answers: (N,) captions and (T,) pictures
        for way, ranks, right, n, groups in (("i2t", i2t, captions, len(text), None), ("t2i", t2i, pictures, len(image), owner)):
            for k in (1, 5, 10):  # chance: is any of c right ones among the k that are drawn of n?
                draws = min(k, n)
                blind = 1 - np.mean([math.comb(n - c, draws) / math.comb(n, draws) for c in right.tolist()])
                self.add(f"{name} {way} R@{k}", ranks < k, blind, groups)

    def compositional(self, kinds, right):
        """Each kind's share of true captions that beat the false one, and the mean over kinds."""
        kinds, right, rng = np.array(kinds), np.asarray(right), np.random.default_rng(0)
        by_kind = {kind: right[kinds == kind] for kind in shapes.CATEGORIES if kind in kinds}
        for kind, hits in by_kind.items():
            self.add(f"compositional {kind}", hits, 0.5)
        means = [np.mean([rng.choice(hits, len(hits)).mean() for hits in by_kind.values()]) for _ in range(1000)]
        self.put("compositional mean", float(np.mean([hits.mean() for hits in by_kind.values()])),
                 np.percentile(means, (2.5, 97.5)).tolist(), 0.5)


class Run:
    """A trained run and what it made of pictures and texts; scores are read off these."""

    def __init__(self, folder, device="cpu"):
        self.folder, self.device, checkpoint = Path(folder), device, lift.read_checkpoint(folder)
        self.cfg, self.step, self.seen = checkpoint["config"], checkpoint["step"], checkpoint.get("seen", torch.empty(0))
        self.model, self.transform, self.tokenize = lift.load(folder, device)
        self.weights = self.folder if self.folder.is_file() else self.folder / "checkpoint.pt"
        if self.folder.is_file():  # an exported run: what is written goes into a folder of its name
            self.folder = self.folder.with_suffix("")
        self.texts, self.negatives, self.classes, self.examples = [], [], None, False

    def look(self, pictures, data):
        self.pictures, self.data, self.image = pictures, str(data), self.encode_pictures(pictures)
        return self

    def compare(self, negatives):
        """negatives: (picture, category, true caption, false caption) each."""
        self.negatives, self.shown = negatives, [i for i, *_ in negatives]
        self.true, self.false = (self.encode_texts([n[side] for n in negatives]) for side in (2, 3))
        return self

    def classify(self, rows, labels, names, templates, ks):
        """rows are pictures of one object each, labels the numbers of their classes' names."""
        self.classes = list(rows), torch.as_tensor(labels), names, templates, ks
        return self

    @property
    def right(self):
        """(M,) bool: which of the negatives does the true caption beat?"""
        return compositional(self.image[self.shown], self.true, self.false)

    @torch.no_grad()
    def encode_pictures(self, pictures, batch=256):
        if self.cfg["image_features"]:  # (N, D), or (N, V, D): the first view
            vectors = readers.Named(self.cfg["image_features"])(pictures.names)
            inputs = (vectors if vectors.ndim == 2 else vectors[:, 0]).split(batch)
        else:
            rows = [np.arange(i, min(i + batch, len(pictures))) for i in range(0, len(pictures), batch)]
            inputs = (pixels.normalize_pixels(torch.from_numpy(pictures.pixels(which))) for which in rows)
        return torch.cat([self.model.encode_image(part.to(self.device), normalize=True).cpu() for part in inputs])

    @torch.no_grad()
    def encode_texts(self, texts, batch=1024):
        inputs = self.tokenize.rows(texts)
        return torch.cat([self.model.encode_text(inputs[i:i + batch].to(self.device), normalize=True).cpu()
                          for i in range(0, len(texts), batch)])

    def scores(self):
        """The tree of eval.json: of everything that this run was shown."""
        s, counts = Scores(), {"pictures": len(self.image)}
        if self.texts:
            counts["captions"] = len(self.texts)
            s.retrieval("retrieval", self.image, self.text, self.owner, self.wording)
            first = np.unique(self.owner, return_index=True)[1]
            if len(first) < len(self.owner):  # LIFT's variant: one caption a picture
                s.retrieval("one_caption", self.image, self.text[first], self.owner[first], self.wording[first])
        if self.negatives:
            counts["false captions"] = len(self.negatives)
            s.compositional([kind for _, kind, *_ in self.negatives], self.right)
        if self.classes:
            rows, labels, names, templates, ks = self.classes
            counts |= {"classified": len(rows), "classes": len(names)}
            features = class_features(self.encode_texts, names, templates)
            for k in ks:
                s.add(f"zeroshot top{k}", zeroshot(self.image[rows], features, labels, k), min(1.0, k / len(names)))
            self.guessed = (self.image[rows] @ features.T).argmax(1)
            if len(ks) > 1:
                hits, per_class = zeroshot(self.image[rows], features, labels), torch.bincount(labels).float()
                weights = 1 / per_class[labels]
                s.put("zeroshot mean_per_class", float((hits * weights).sum() / (per_class > 0).sum()), None, 1 / len(names))
        if self.examples:
            counts["examples"] = len(self.image) // 2
            for name, hits, chance in zip(("text", "image", "group"), winoground(self.image, self.text), (1 / 4, 1 / 4, 1 / 6)):
                s.add(f"winoground {name}", hits, chance)
        if self.pictures.skipped:
            counts["skipped"] = len(self.pictures.skipped)
        if known := int(np.isin(self.pictures.digests.view(np.int64), self.seen).sum()):
            counts["or more of the pictures trained on"] = known
        value, ci95, chance = s.trees
        return {"run": str(self.folder), "method": self.cfg["method"], "data": self.data, "step": self.step, "counts": counts,
                **value, "ci95": ci95, "chance": chance}


class Embedded(Run):
    """A run on a data set: its own held-out pictures, or others."""

    def __init__(self, folder, data="", device="cpu", columns=("",) * 4):
        super().__init__(folder, device)
        c = self.cfg
        data = data or c["val_data"] or c["data"]
        own = Path(data).resolve() == Path(c["data"]).resolve()  # then only its held-out part, unless all was trained on
        if (own or data == c["val_data"]) and not any(columns) and data not in shapes.WORLDS:  # (train.py read both so)
            columns = c["csv_separator"], c["csv_img_key"], c["csv_caption_key"], c["image_root"]
        pictures = readers.read(data, "test", c["image_size"], 0, *columns, whole=not own or bool(c["val_data"]))
        self.look(readers.without_copies(pictures), data)
        self.texts = [text for captions in self.pictures.captions for text in captions]
        self.owner = torch.tensor([i for i, captions in enumerate(self.pictures.captions) for _ in captions])
        number = {text: i for i, text in enumerate(dict.fromkeys(self.texts))}
        self.wording = torch.tensor([number[text] for text in self.texts])
        self.text = self.encode_texts(self.texts)
        scenes = self.pictures.scenes or []
        if scenes:
            self.compare([(i, kind, shapes.caption(scene), false) for i, scene in enumerate(scenes)
                          for kind, false in shapes.negatives(scene).items()])
        # name the object of a picture that shows one, by prompts; on this ground it never stood in training
        if alone := [i for i, scene in enumerate(scenes) if len(scene.things) == 1]:
            names, templates = shapes.classes(data)
            things = [scenes[i].things[0] for i in alone]
            self.classify(alone, [names.index(f"{thing.colour} {thing.shape}") for thing in things], names, templates, ks=(1,))


def on_folder(folder, device, where, classnames="", templates=""):
    """Zero-shot classification of an ImageFolder."""
    r, prompts = Run(folder, device), protocols.read_templates(templates)
    pictures, labels, names = protocols.imagefolder(where, r.cfg["image_size"], classnames)
    return r.look(pictures, where).classify(range(len(labels)), labels, names, prompts, ks=(1, 5))


def on_sugarcrepe(folder, device, where, images):
    r = Run(folder, device)
    pictures, items = protocols.sugarcrepe(where, images, r.cfg["image_size"])
    return r.look(pictures, where).compare(items)


def on_winoground(folder, device, where):
    r = Run(folder, device)
    pictures, captions = protocols.winoground(where, r.cfg["image_size"])
    r.look(pictures, where)
    r.text, r.examples = r.encode_texts(captions), True
    return r


# ---------------------------------------------------------------------------------------------------------------
# A folder of anybody's pictures: search, and naming one picture.


def search(r, where, queries, k=8):
    """[(query, [(path, cosine)])], best first, for the pictures under a folder."""
    paths, vectors = readers.folder_vectors(Path(where), r.cfg["image_size"], r.encode_pictures, r.weights)
    best = (r.encode_texts(queries) @ vectors.T).topk(min(k, len(paths)), dim=1)  # (queries, k)
    return [(query, [(paths[i], score) for score, i in zip(*row)])
            for query, *row in zip(queries, best.values.tolist(), best.indices.tolist())]


def name_picture(r, path, names, templates):
    """[(name, share)]: softmax over the scaled cosines of one picture to the names' prompts."""
    try:
        with Image.open(path) as picture:
            seen = r.transform(picture)
    except Exception as error:  # (Pillow raises a dozen types for a broken file)
        raise BadInput(f"{path}: cannot be read as a picture ({error})") from None
    with torch.no_grad():
        image = r.model.encode_image(seen[None].to(r.device), normalize=True).cpu()
        shares = (r.model.logit_scale.exp().cpu() * image @ class_features(r.encode_texts, names, templates).T)[0].softmax(0)
    return sorted(zip(names, shares.tolist()), key=lambda pair: -pair[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
                                     usage="python eval.py RUN [RUN ...] [--flag value ...]   (--help lists the flags)")
    parser.add_argument("runs", nargs="+", help="run folders, or files of data.export")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--data", default="", help="pictures with captions (default: the runs' own held-out ones)")
    what.add_argument("--zeroshot", metavar="FOLDER", help="an ImageFolder")
    what.add_argument("--sugarcrepe", metavar="JSON_DIR", help="folder of SugarCrepe's seven json files; needs --images")
    what.add_argument("--winoground", metavar="FOLDER", help="folder with examples.jsonl and images/")
    what.add_argument("--search", nargs="+", metavar=("FOLDER", "QUERY"), help="find pictures by words; draws search.png")
    what.add_argument("--classify", nargs=2, metavar=("IMAGE", "A,B,C"), help="name one picture")
    parser.add_argument("--images", default="", help="COCO's val2017, for --sugarcrepe")
    parser.add_argument("--classnames", default="", help="for --zeroshot: names, a line each in the order of the sorted folders, or "
                        "FOLDER<tab>NAME")
    parser.add_argument("--templates", default="", help="file of prompts with {}, a line each (default: LIFT's single one)")
    for name in COLUMNS:
        parser.add_argument(name, default="", help="as in train.py, for --data")
    parser.add_argument("--report", help="where the picture goes (default: report.png in the run, or above several)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    args = parser.parse_args()
    if args.report and not (Path(args.report).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp") and Path(args.report).parent.is_dir()):
        raise BadInput(f"--report {args.report}: name a .png, .jpg or .webp file in a folder that is there")
    device, first = pick_device(args.device), Path(args.runs[0].removesuffix(".safetensors"))
    if args.search or args.classify:
        return use(args, device)
    columns = args.csv_separator, args.csv_img_key, args.csv_caption_key, args.image_root
    if where := args.zeroshot:
        kind, runs = "-zeroshot", [on_folder(folder, device, where, args.classnames, args.templates) for folder in args.runs]
    elif where := args.sugarcrepe:
        kind, runs = "-sugarcrepe", [on_sugarcrepe(folder, device, where, args.images) for folder in args.runs]
    elif where := args.winoground:
        kind, runs = "-winoground", [on_winoground(folder, device, where) for folder in args.runs]
    else:
        kind, where = "", args.data
        runs = [Embedded(folder, where, device, columns) for folder in args.runs]
    name = f"{kind}{f'-{Path(where).resolve().stem}' if where else ''}"  # never one for the other
    target = Path(args.report or (first if len(args.runs) == 1 else first.parent) / f"report{name}.png")
    name = f"eval{name}.json"
    if any((list(r.pictures.names), r.texts) != (list(runs[0].pictures.names), runs[0].texts) for r in runs):
        raise BadInput(f"the runs hold out different pictures ({', '.join(f'{r.folder}: {r.data}' for r in runs)}); name "
                       "one set for all with --data")
    results = [r.scores() for r in runs]
    for r, result in zip(runs, results):
        r.folder.mkdir(exist_ok=True)
        (r.folder / name).write_text(json.dumps(result, indent=1))
    print(f"\n{results[0]['data']}: " + ", ".join(f"{n} {what}" for what, n in results[0]["counts"].items()) + "\n")
    print(table(results))
    report(runs, results, target)
    if len(runs[0].image) < 50:
        print("\nnote: so few test pictures say little")
    print(f"\nwrote {target} and {name} in each run")


def use(args, device):
    """--search and --classify, which use a run rather than score it."""
    for folder in args.runs:
        r = Run(folder, device)
        if args.classify:
            names = list(dict.fromkeys(name.strip() for name in args.classify[1].split(",") if name.strip()))
            if len(names) < 2:
                raise BadInput(f"--classify {args.classify[0]} {args.classify[1]!r}: two names or more are wanted, with commas, in one pair of quotes")
            for name, share in name_picture(r, args.classify[0], names, protocols.read_templates(args.templates)):
                print(f"{share:6.1%}  {name}")
            continue
        where, *queries = args.search
        if not queries or not all(query.strip() for query in queries):
            raise BadInput(f"--search {where} {' '.join(map(repr, queries)) or '...'}: say what to look for, in quotes")
        found = search(r, where, queries)
        for query, hits in found:
            print(f"\n{readers.printable(query)}")
            for path, cosine in hits:
                print(f"  {cosine:.3f}  {readers.printable(path)}")
        r.folder.mkdir(exist_ok=True)
        target = Path(args.report or r.folder / "search.png")
        contact_sheet(found, target)
        print(f"\nwrote {target}")


if __name__ == "__main__":
    sys.exit(run(main))
