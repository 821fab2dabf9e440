"""Tests of the field, from their official files: which pictures, which texts, what is right.

    imagefolder   FOLDER/CLASS/picture: zero-shot classification
    sugarcrepe    seven json files and COCO's val2017: one true and one false caption a picture (arXiv 2306.14610)
    winoground    examples.jsonl and images/: two pictures, two captions of the same words (arXiv 2204.03162)

Every picture is read once. One that is missing or broken is an error that names it: a score over what is left would be
another test's.
"""

import json
from pathlib import Path

import numpy as np

from data import BadInput, interpreting
from data.formats import PROMPT, SUFFIXES, class_name
from data.readers import decode_named
from data.shapes import CATEGORIES


def lines_of(path):
    with interpreting(path):
        return [line.strip() for line in Path(path).read_text("utf-8-sig").split("\n") if line.strip()]


def texts_of(entry, *fields):
    """These fields of an object of a json file, all of which must be texts."""
    if wrong := [field for field in fields if not isinstance(entry[field], str)]:
        raise BadInput(f"{wrong[0]} is no text in {str(entry)[:200]}")
    return [entry[field] for field in fields]


def read_templates(path):
    """Prompts from a file, a line each with {} for the class; default: LIFT's single one."""
    templates = lines_of(path) if path else [PROMPT]
    if wrong := [t for t in templates or [""] if t.count("{}") != 1]:
        raise BadInput(f"{path}: {wrong[0]!r} must hold {{}} once, for the class's name")
    return templates


def imagefolder(folder, size, classnames=""):
    """(Pictures, labels (N,), class names) of FOLDER/CLASS/..., classes in the order of their folders' sorted names.

    classnames is a file: a name a line in that order, or FOLDER<tab>NAME a line, of which more may be there than are used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; zero-shot classification wants one with a folder of pictures for each class")
    found = {p.name: sorted(f for f in p.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
             for p in sorted(folder.iterdir()) if p.is_dir()}
    classes = [name for name, files in found.items() if files]
    if len(classes) < 2:
        raise BadInput(f"{folder}: {len(classes)} folders with pictures; zero-shot classification wants one for each class")
    names = [class_name(name) for name in classes]
    if classnames:
        given = lines_of(classnames)
        if all("\t" in line for line in given):
            table = dict(line.split("\t", 1) for line in given)
            if missing := [name for name in classes if name not in table]:
                raise BadInput(f"{classnames}: no line for the folder {missing[0]} ({len(missing)} of {len(classes)} are missing)")
            names = [table[name].strip() for name in classes]
        elif len(given) != len(classes):
            raise BadInput(f"{classnames}: {len(given)} names for the {len(classes)} folders of {folder}; give a line for each in the order of "
                           "their sorted names, or FOLDER<tab>NAME")
        else:
            names = given
    if len(set(names)) < len(names):
        raise BadInput(f"two classes have the name {max(names, key=names.count)!r}; tell them apart with --classnames")
    files = [str(file.relative_to(folder)) for name in classes for file in found[name]]
    return decode_named(files, folder, size), np.repeat(np.arange(len(classes)), [len(found[name]) for name in classes]), names


def sugarcrepe(folder, images, size):
    """(Pictures, [(picture, category, true caption, false caption)]) of SugarCrepe's seven files, as they are."""
    items = []
    for kind in CATEGORIES:
        path = Path(folder) / f"{kind}.json"
        with interpreting(path):
            content = json.loads(path.read_text("utf-8"))
            entries = content.values() if isinstance(content, dict) else content  # (the keys have gaps)
            if not entries:
                raise BadInput("no entries; the mean is over all seven kinds")
            for entry in entries:
                name, true, false = texts_of(entry, "filename", "caption", "negative_caption")
                items.append((name, kind, true, false))
    files = list(dict.fromkeys(name for name, *_ in items))
    if not images or not Path(images).is_dir():
        raise BadInput(f"--images {images or '(not given)'}: no such folder; SugarCrepe's pictures are those of COCO's val2017")
    place = {name: i for i, name in enumerate(files)}
    return decode_named(files, Path(images), size), [(place[name], *rest) for name, *rest in items]


def winoground(folder, size):
    """(Pictures, captions), 2 each an example: picture and caption 2 i belong together, 2 i + 1 too."""
    folder = next((p for p in (Path(folder), Path(folder) / "data") if (p / "examples.jsonl").is_file()), Path(folder))
    path, files, captions = folder / "examples.jsonl", [], []
    with interpreting(path):
        for example in map(json.loads, lines_of(path)):
            files += texts_of(example, "image_0", "image_1")
            captions += texts_of(example, "caption_0", "caption_1")
        if not files:
            raise BadInput("no examples")
    endings = {p.stem: p.name for p in sorted((folder / "images").glob("*"))}
    return decode_named([endings.get(name, name) for name in files], folder / "images", size), captions
