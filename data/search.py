"""A run at work on anybody's pictures: search a folder by words, name one picture. (eval.py --search, --classify)"""

from pathlib import Path

import torch
from PIL import Image

from data import benchmarks
from data.common import BadInput, printable
from data.report import contact_sheet
from data.vectors import folder_vectors


def nearest(r, where, queries, k=8):
    """[(query, [(path, cosine)])], best first, for the pictures under a folder. r: eval.Run"""
    paths, vectors = folder_vectors(Path(where), r.cfg["image_size"], r.encode_images, r.weights)
    best = (r.encode_texts(queries) @ vectors.T).topk(min(k, len(paths)), dim=1)  # (queries, k)
    return [
        (query, [(paths[i], score) for score, i in zip(*row)])
        for query, *row in zip(queries, best.values.tolist(), best.indices.tolist())
    ]


def use(r, args):
    """What eval.py's --search or --classify asks of a run."""
    if args.search:
        where, *queries = args.search
        show(r, where, queries, args.report)
    else:
        classify(r, *args.classify, args.templates)


def show(r, where, queries, target):
    """Print what was found, and draw it."""
    if not queries or not all(query.strip() for query in queries):
        raise BadInput(
            f"--search {where} {' '.join(map(repr, queries)) or '...'}: say what to look for, in quotes"
        )
    found = nearest(r, where, queries)
    for query, hits in found:
        print(f"\n{printable(query)}")
        for path, cosine in hits:
            print(f"  {cosine:.3f}  {printable(path)}")
    r.folder.mkdir(exist_ok=True)
    target = Path(target or r.folder / "search.png")
    contact_sheet(found, target)
    print(f"\nwrote {target}")


def name_picture(r, path, names, templates):
    """[(name, share)]: softmax over the scaled cosines of one picture to the names' prompts."""
    try:
        with Image.open(path) as picture:
            seen = r.transform(picture)
    except Exception as error:  # (Pillow raises a dozen types for a broken file)
        raise BadInput(f"{path}: cannot be read as a picture ({error})") from None
    with torch.no_grad():
        image = r.model.encode_image(seen[None].to(r.device), normalize=True).cpu()
        shares = (r.model.logit_scale.exp().cpu() * image @ r.class_features(names, templates).T)[
            0
        ].softmax(0)
    return sorted(zip(names, shares.tolist()), key=lambda pair: -pair[1])


def classify(r, path, names, templates):
    """Print the shares of names, given in one text with commas; templates is a file of prompts, or empty."""
    given = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if len(given) < 2:
        raise BadInput(
            f"--classify {path} {names!r}: two names or more are wanted, with commas, in one pair of quotes"
        )
    for name, share in name_picture(r, path, given, benchmarks.read_templates(templates)):
        print(f"{share:6.1%}  {name}")
