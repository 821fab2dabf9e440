"""Tests of the field: which pictures, which texts, what is right.

    captions      pictures with captions: retrieval; of the built-in world also false captions, and classes
    imagefolder   FOLDER/CLASS/picture: zero-shot classification
    sugarcrepe    seven json files and COCO's val2017: one true and one false caption a picture (arXiv 2306.14610)
    winoground    examples.jsonl and images/: two pictures, two captions of the same words (arXiv 2204.03162)

Of the last three, every picture is read once. One that is missing or broken is an error that names it: a score over what is
left would be another test's.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from data.common import BadInput, interpreting
from data.images import read as readers
from data.images.formats import PROMPT, SUFFIXES, class_name
from data.images.read import decode_files_in_order
from data.world import shapes


@dataclass
class Task:
    """CaptionedImages and what is asked of them. What a task does not ask stays empty."""

    data: str  # where they come from
    images: readers.CaptionedImages
    texts: list = ()  # retrieval: T captions
    owner: torch.Tensor = None  # (T,) int64, the picture that each belongs to
    wording: torch.Tensor = None  # (T,) int64, equal for equal captions
    negatives: list = ()  # composition: (picture, category, true caption, false caption) each
    rows: list = ()  # classification: n pictures
    labels: torch.Tensor = None  # (n,) int64, their places in names
    names: list = ()  # of the classes
    templates: list = ()  # prompts, with {} for the name
    ks: tuple = (1,)  # a guess is right among the best k
    couples: list = ()  # Winoground: a caption a picture, two an example

    @property
    def counts(self):
        """{in words: how many}, of what there is."""
        of = {
            "pictures": self.images,
            "captions": self.texts,
            "false captions": self.negatives,
            "classified": self.rows,
            "classes": self.names,
            "examples": self.couples[::2],
            "skipped": self.pictures.skipped,
        }
        return {what: len(these) for what, these in of.items() if len(these)}


def captions(cfg, data="", columns=("",) * 4):
    """A run's own held-out pictures, or others. cfg is the run's configuration, a dict; columns as in formats.open_spec."""
    data = data or cfg["val_data"] or cfg["data"]
    own = (
        Path(data).resolve() == Path(cfg["data"]).resolve()
    )  # then only its held-out part, unless all was trained on
    if (
        (own or data == cfg["val_data"]) and not any(columns) and data not in shapes.WORLDS
    ):  # (train.py read both so)
        columns = (
            cfg["csv_separator"],
            cfg["csv_img_key"],
            cfg["csv_caption_key"],
            cfg["image_root"],
        )
    pictures = readers.without_copies(
        readers.read_images(
            data, "test", cfg["image_size"], 0, *columns, whole=not own or bool(cfg["val_data"])
        )
    )
    texts = [text for captions in pictures.captions for text in captions]
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    task = Task(
        data,
        pictures,
        texts,
        torch.tensor([i for i, captions in enumerate(pictures.captions) for _ in captions]),
        torch.tensor([number[text] for text in texts]),
    )
    scenes = pictures.scenes or []
    task.negatives = [
        (i, kind, shapes.caption(scene), false)
        for i, scene in enumerate(scenes)
        for kind, false in shapes.negatives(scene).items()
    ]
    # name the object of a picture that shows one, by prompts; on this ground it never stood in training
    if alone := [i for i, scene in enumerate(scenes) if len(scene.things) == 1]:
        task.names, task.templates = shapes.classes(data)
        things = [scenes[i].things[0] for i in alone]
        task.rows, task.labels = (
            alone,
            torch.tensor([task.names.index(f"{thing.colour} {thing.shape}") for thing in things]),
        )
    return task


def asked(args, cfg):
    """The Task that eval.py's command line asks of a run. cfg as in `captions`."""
    size = cfg["image_size"]
    if args.zeroshot:
        return imagefolder(args.zeroshot, size, args.classnames, args.templates)
    if args.sugarcrepe:
        return sugarcrepe(args.sugarcrepe, size, args.images)
    if args.winoground:
        return winoground(args.winoground, size)
    return captions(
        cfg,
        args.data,
        (args.csv_separator, args.csv_img_key, args.csv_caption_key, args.image_root),
    )


def lines_of(path):
    with interpreting(path):
        return [
            line.strip() for line in Path(path).read_text("utf-8-sig").split("\n") if line.strip()
        ]


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


def imagefolder(where, size, classnames="", templates=""):
    """Zero-shot classification of FOLDER/CLASS/..., classes in the order of their folders' sorted names.

    classnames is a file: a name a line in that order, or FOLDER<tab>NAME a line, of which more may be there than are used.
    """
    folder, templates = Path(where), read_templates(templates)
    if not folder.is_dir():
        raise BadInput(
            f"{folder}: no such folder; zero-shot classification wants one with a folder of pictures for each class"
        )
    found = {
        p.name: sorted(f for f in p.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
        for p in sorted(folder.iterdir())
        if p.is_dir()
    }
    classes = [name for name, files in found.items() if files]
    if len(classes) < 2:
        raise BadInput(
            f"{folder}: {len(classes)} folders with pictures; zero-shot classification wants one for each class"
        )
    names = [class_name(name) for name in classes]
    if classnames:
        given = lines_of(classnames)
        if all("\t" in line for line in given):
            table = dict(line.split("\t", 1) for line in given)
            if missing := [name for name in classes if name not in table]:
                raise BadInput(
                    f"{classnames}: no line for the folder {missing[0]} ({len(missing)} of {len(classes)} are missing)"
                )
            names = [table[name].strip() for name in classes]
        elif len(given) != len(classes):
            raise BadInput(
                f"{classnames}: {len(given)} names for the {len(classes)} folders of {folder}; give a line for each in the order of "
                "their sorted names, or FOLDER<tab>NAME"
            )
        else:
            names = given
    if len(set(names)) < len(names):
        raise BadInput(
            f"two classes have the name {max(names, key=names.count)!r}; tell them apart with --classnames"
        )
    files = [str(file.relative_to(folder)) for name in classes for file in found[name]]
    labels = torch.tensor([label for label, name in enumerate(classes) for _ in found[name]])
    return Task(
        str(where),
        decode_files_in_order(files, folder, size),
        rows=range(len(files)),
        labels=labels,
        names=names,
        templates=templates,
        ks=(1, 5),
    )


def sugarcrepe(folder, size, images):
    """SugarCrepe's seven files, as they are."""
    items = []
    for kind in shapes.CATEGORIES:
        path = Path(folder) / f"{kind}.json"
        with interpreting(path):
            content = json.loads(path.read_text("utf-8"))
            entries = (
                content.values() if isinstance(content, dict) else content
            )  # (the keys have gaps)
            if not entries:
                raise BadInput("no entries; the mean is over all seven kinds")
            for entry in entries:
                name, true, false = texts_of(entry, "filename", "caption", "negative_caption")
                items.append((name, kind, true, false))
    files = list(dict.fromkeys(name for name, *_ in items))
    if not images or not Path(images).is_dir():
        raise BadInput(
            f"--images {images or '(not given)'}: no such folder; SugarCrepe's pictures are those of COCO's val2017"
        )
    place = {name: i for i, name in enumerate(files)}
    return Task(
        str(folder),
        decode_files_in_order(files, Path(images), size),
        negatives=[(place[name], *rest) for name, *rest in items],
    )


def winoground(where, size):
    """Two pictures and two captions an example: picture and caption 2 i belong together, 2 i + 1 too."""
    folder = next(
        (p for p in (Path(where), Path(where) / "data") if (p / "examples.jsonl").is_file()),
        Path(where),
    )
    path, files, captions = folder / "examples.jsonl", [], []
    with interpreting(path):
        for example in map(json.loads, lines_of(path)):
            files += texts_of(example, "image_0", "image_1")
            captions += texts_of(example, "caption_0", "caption_1")
        if not files:
            raise BadInput("no examples")
    endings = {p.stem: p.name for p in sorted((folder / "images").glob("*"))}
    return Task(
        str(where),
        decode_files_in_order([endings.get(name, name) for name in files], folder / "images", size),
        couples=captions,
    )
