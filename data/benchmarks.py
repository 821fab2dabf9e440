"""Tests that others use too: which images, which texts, what is right. And what a run made of one.

    held_out      images with captions: retrieval. For the built-in world also false captions, and
                  classes
    imagefolder   FOLDER/CLASS/image: zero-shot classification
    sugarcrepe    seven json files, and the images of COCO (Common Objects in Context), val2017: one
                  true and one false caption per entry (Hsieh et al. 2023, arXiv 2306.14610)
    winoground    examples.jsonl and images/: two images, and two captions made of the same words
                  (Thrush et al. 2022, arXiv 2204.03162)

Each of these functions returns a Task. eval.evaluate turns a run and a Task into a Result.

The last three read every image once. An image that is missing or broken is an error that names it:
a score over the images that are left would be the score of another test.

Letters of shapes: N images, T captions, M false captions, C classes, n classified images, E
examples of Winoground, D the length of a feature.
"""

import functools
import json
import os
import random
import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data.common import BadInput, interpreting, printable, select
from data.images.formats import PROMPT, SUFFIXES, Columns, class_name
from data.images.read import (
    CaptionedImages,
    captions_of,
    decode_files_in_order,
    draw_scenes,
    read_images,
    without_copies,
)
from data.world import shapes

# --------------------------------------------------------------------------------------------------
# A task and its result.


class Negative(NamedTuple):
    """An image with its true caption and a false one that differs in one respect, the category."""

    image: int
    category: str  # one of shapes.CATEGORIES, or the name of another score
    true: str
    false: str


@dataclass
class Task:
    """Images and the questions about them. A kind of question that is not asked stays empty."""

    data: str  # where the images come from
    images: CaptionedImages  # N of them

    # Retrieval: which caption belongs to this image, which image to this caption?
    captions: Sequence[str] = ()  # T texts
    image_of_caption: Tensor | None = None  # (T,) int64: the image that each was given to
    caption_ids: Tensor | None = None  # (T,) int64: equal numbers for captions of equal words

    # The same said otherwise: {kind: one text for each image of `reworded`}. Each image looks for
    # its own among the texts of one kind.
    reworded: Sequence[int] = ()
    other_words: dict[str, Sequence[str]] = field(default_factory=dict)

    # Composition: is the true caption nearer to the image than the false one?
    negatives: Sequence[Negative] = ()  # M of them

    # The same question, told from both ends: {category: its pairs}. Both Negatives of a pair are of
    # one image. They count together.
    both_ends: dict[str, list[tuple[Negative, Negative]]] = field(default_factory=dict)

    # Zero-shot classification: which class name fits the image?
    classified: Sequence[int] = ()  # n images
    labels: Tensor | None = None  # (n,) int64: the right class, a place in class_names
    class_names: Sequence[str] = ()  # C texts
    templates: Sequence[str] = ()  # prompts, with {} for the class name
    ks: Sequence[int] = (1,)  # a guess counts as right if the right class is among the best k

    # Further questions about other images: {name: task}. Their scores stand under the name.
    further: dict[str, "Task"] = field(default_factory=dict)
    # Of such a task about new words, for the intervals: which of these words a question is about.
    # Numbers from 0, int64. Image i and caption i belong together.
    words_of_image: Tensor | None = None  # (N, G)
    words_of_negative: Tensor | None = None  # (M, G)

    # Winoground: images 2 e and 2 e + 1 are example e, and caption i fits image i.
    winoground_captions: Sequence[str] = ()  # 2 E of them

    kind: str = "test"  # or "validation": what these images are called in a report

    def is_caption_of(self, image: int) -> Tensor:
        """(T,) bool: which captions are right for an image: its own, and equal ones of others."""
        ids = self.caption_ids[self.image_of_caption == image]
        return torch.isin(self.caption_ids, ids)

    def texts(self) -> list[str]:
        """Every text that is asked about, once. Those of further tasks are among them."""
        texts = [*self.captions, *self.winoground_captions]
        for reworded in self.other_words.values():
            texts += reworded
        pairs = chain.from_iterable(self.both_ends.values())
        for negative in (*self.negatives, *chain.from_iterable(pairs)):
            texts += [negative.true, negative.false]
        texts += prompts(self.class_names, self.templates)
        for task in self.further.values():
            texts += task.texts()
        return list(dict.fromkeys(texts))

    def counts(self) -> dict[str, int]:
        """How many there are of what this task has. The names are those of eval.json."""
        things = {
            "images": self.images,
            "captions": self.captions,
            "false captions": self.negatives,
            "classified": self.classified,
            "classes": self.class_names,
            "examples": self.winoground_captions[::2],
            "skipped": self.images.unusable,
        }
        counts = {name: len(some) for name, some in things.items() if len(some)}
        for name, task in self.further.items():
            counts[f"{name} images"] = len(task.images)
        return counts


@dataclass
class Result:
    """What one run made of one task. The features have unit length and lie on the CPU."""

    run: str  # its name: the folder or file as it was given
    folder: Path  # where its files are
    task: Task
    image: Tensor  # (N, D) features of task.images
    text: Tensor | None = None  # (T, D) features of task.captions
    true: Tensor | None = None  # (M, D) features of the true captions of task.negatives
    false: Tensor | None = None  # (M, D) and of the false ones
    is_correct: Tensor | None = None  # (M,) bool: the true caption is nearer to the image
    guesses: Tensor | None = None  # (n,) int64: the class whose name is nearest to the image
    scores: dict = field(default_factory=dict)  # the tree that eval.json holds


# --------------------------------------------------------------------------------------------------
# Images with captions.


def held_out(
    config: dict,
    data: str = "",
    columns: Columns = Columns(),  # noqa: B008  (it is frozen)
    split: str = "test",
) -> Task:
    """Images with captions that a run was not trained on: its own held-out ones, or other data.

    config   the run's configuration, a dict with train.Config's fields
    data     a data specification; "": the run's --val-data, or the held-out part of its --data
    columns  how to read `data`; by default as train.py read it, if it is the run's own
    split    "test", or "val": validation images, to choose settings by

    BadInput where there are no such images, and where `columns` says how to read a built-in world.
    """
    is_named = bool(data)
    data = data or (split == "test" and config["val_data"]) or config["data"]
    is_training_data = Path(data).resolve() == Path(config["data"]).resolve()
    if split == "val":
        check_validation(config, data)
    if data in shapes.WORLDS and replace(columns, csv_caption_key="") != Columns():
        raise BadInput(
            f"{data} is a built-in world: of the flags that say how to read a file only "
            "--csv-caption-key has an effect there; leave the others out"
        )
    val_data = config["val_data"]
    is_val_data = bool(val_data) and Path(data).resolve() == Path(val_data).resolve()
    is_known = is_training_data or is_val_data
    if is_known and columns == Columns() and data not in shapes.WORLDS:
        columns = select(Columns, config)
    # Of the data that the run was trained on, only the held-out tenth is scored. With --val-data
    # no test images were taken from --data, so all of it is scored.
    whole = not is_training_data or bool(config["val_data"])
    try:
        images = read_images(data, split, config["image_size"], columns, whole=whole)
    except BadInput as error:
        if is_named or "no such file" not in str(error):
            raise
        raise BadInput(
            f"{error}. The run's own flags name {data}, seen from another folder perhaps; name its "
            "images with --data"
        ) from None
    if not len(images):
        raise BadInput(
            f"--split val: {data} has no validation images; mark some by `val` in a column split, "
            "or take more images"
        )
    images = without_copies(images)

    captions, image_of_caption, caption_ids = [], [], []
    id_of = {}  # caption -> its number, in order of first appearance
    for i, captions_of_image in enumerate(images.captions):
        # An image may have the same caption twice. It is one question.
        for caption in dict.fromkeys(captions_of_image):
            captions.append(caption)
            image_of_caption.append(i)
            caption_ids.append(id_of.setdefault(caption, len(id_of)))
    task = Task(
        data,
        images,
        captions=captions,
        image_of_caption=torch.tensor(image_of_caption),
        caption_ids=torch.tensor(caption_ids),
        kind="validation" if split == "val" else "test",
    )
    if images.scenes:
        ask_of_world(task, config, split)
    elif not config["text_features"]:
        first = Path(data.split("::")[0])  # of several shards
        # Not first.is_dir(): it raises where a list of shards is longer than a name may be.
        folder = first if os.path.isdir(first) else first.parent
        task.negatives = read_false_captions(folder / FALSE_CAPTIONS, images)
    return task


def check_validation(config: dict, data: str) -> None:
    """BadInput where `data` has no validation images of a run, or none that it was not trained on.

    config  the run's configuration, a dict with train.Config's fields
    """
    has_outside = config["image_features"] or config["text_features"]
    if data in shapes.WORLDS:
        if has_outside:
            raise BadInput("--split val: files of outside vectors list no validation scenes")
        return
    if Path(data).resolve() != Path(config["data"]).resolve():
        raise BadInput(
            f"--split val: {data} is not what the run was trained on, which is {config['data']}"
        )
    if config["val_frequency"] == 0:
        raise BadInput("--split val: with --val-frequency 0 the run may have been trained on them")


# A file beside the images may say what is false of them, as that of data/world/icons.py does.
FALSE_CAPTIONS = "false_captions.jsonl"


def read_false_captions(path: Path, images: CaptionedImages) -> list[Negative]:
    """The false captions of these images in a file, which may hold others, or not be there.

        {"image": "test.tar/bell", "true": "a bell", "false": "no bell", "category": "replace"}

    "image" is a name as read_images gives it, "category" is one word. A false caption that is a
    caption of its image is not taken. What is not taken is counted. BadInput for a line that is
    not like this.
    """
    if not path.is_file():
        return []
    place = {name: i for i, name in enumerate(images.names)}
    negatives = []
    of_others = []  # names of images that are not among these
    n_true = 0  # false captions that are captions of their image
    with interpreting(path):
        lines = path.read_text("utf-8-sig").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        with interpreting(f"{path} line {number}"):
            entry = json.loads(line)
            texts = [entry.get(key) for key in ("image", "true", "false", "category")]
            are_texts = all(isinstance(text, str) and text for text in texts)
            if not are_texts or texts[3].split() != [texts[3]]:
                raise BadInput("image, true, false and category must be texts, category one word")
            image, true, false, category = texts
            if image not in place:
                of_others.append(image)
            elif false in images.captions[place[image]]:
                n_true += 1
            else:
                name = f"false_captions {category}"
                negatives.append(Negative(place[image], name, true, false))
    found = [f"{len(negatives)} false captions of these images"]
    if of_others:
        found.append(f"{len(of_others)} of other images, such as {printable(of_others[0])}")
    if n_true:
        found.append(f"{n_true} left out, because they are captions of their image")
    if not negatives:
        found.append(f"these images have names such as {printable(images.names[0])}")
    print(f"{path}: {'; '.join(found)}", file=sys.stderr)
    return negatives


def ask_of_world(task: Task, config: dict, split: str) -> None:
    """Add what is asked of a built-in world: false captions, other words, other images."""
    world = task.data
    scenes = task.images.scenes
    has_single_things = 1 in shapes.WORLDS[world].things
    # Files of outside vectors hold what `python -m data.images.read` lists: no other images, and of
    # the texts only false captions and the prompts with class names.
    if config["image_features"] or config["text_features"]:
        task.negatives = [n for n in false_captions(scenes, set()) if n.category != "half_truth"]
        if has_single_things and not config["image_features"]:
            task.further["zeroshot"] = single_things(world, config["image_size"], split)
        return
    # No false caption is one that training gave to an image.
    known = frozenset()
    if config["data"] in shapes.WORLDS:
        columns = select(Columns, config)
        known = training_captions(config["data"], columns, config["train_num_samples"])
    task.negatives, task.both_ends = all_false_captions(tuple(scenes), known)

    # A scene with one thing has no other end to begin at, so it is not asked for in other words.
    task.reworded = [i for i, scene in enumerate(scenes) if scene.relations]
    for i in task.reworded:
        texts = {"own": shapes.caption(scenes[i])} | shapes.other_words(scenes[i])
        for kind, text in texts.items():
            task.other_words.setdefault(kind, []).append(text)

    # Other images.
    if has_single_things:
        task.further["zeroshot"] = single_things(world, config["image_size"], split)
    if world == "shapes":
        for name, other in (
            ("unseen_words", "shapes-unseen"),
            ("unseen_compounds", "shapes-compounds"),
        ):
            if config["data"] != other:  # a run that was trained on them has seen these words
                task.further[name] = new_colours(other, config["image_size"], split)


@functools.cache  # several runs are asked the same
def new_colours(world: str, image_size: int, split: str) -> Task:
    """Images of things in colours whose names training did not have.

    Two questions: which caption belongs to which image, and which of two captions is true, where
    the false one names another of the world's colours. The first one is about the two colours of
    the scene, the second one about the true and the false one.
    """
    images = read_images(world, split, image_size)
    captions = [captions[0] for captions in images.captions]
    negatives = []
    number_of = {}  # colour -> its number, in order of first appearance
    words_of_image = []
    words_of_negative = []
    for i, scene in enumerate(images.scenes):
        false = random.Random(f"{scene.key}/two way").choice(shapes.replace_colour(scene))
        negatives.append(Negative(i, "two_way", captions[i], shapes.caption(false)))
        for thing in (*scene.things, *false.things):
            number_of.setdefault(thing.colour, len(number_of))
        words_of_image.append([number_of[thing.colour] for thing in scene.things])
        for thing, other in zip(scene.things, false.things, strict=True):
            if thing != other:
                words_of_negative.append([number_of[thing.colour], number_of[other.colour]])
    numbers = torch.arange(len(captions))
    return Task(
        world,
        images,
        captions,
        numbers,
        numbers,
        negatives=negatives,
        words_of_image=torch.tensor(words_of_image),
        words_of_negative=torch.tensor(words_of_negative),
    )


@functools.cache  # several runs are asked the same
def training_captions(world: str, columns: Columns, num_samples: int) -> frozenset[str]:
    """All captions that a built-in world's training images have."""
    captions = captions_of(world, "train", columns, num_samples)
    return frozenset(chain.from_iterable(captions))


@functools.cache  # several runs are asked the same
def all_false_captions(
    scenes: tuple[shapes.Scene, ...], known: frozenset[str]
) -> tuple[list[Negative], dict[str, list[tuple[Negative, Negative]]]]:
    """What Task.negatives and Task.both_ends hold for the built-in world's scenes.

    Several tasks share the result, so nobody may change it.

    known  captions of training, which are not taken
    """
    both_ends = {}
    for i, scene in enumerate(scenes):
        for category, (true, false) in shapes.from_both_ends(scene, known).items():
            pair = tuple(Negative(i, category, *texts) for texts in zip(true, false, strict=True))
            both_ends.setdefault(category, []).append(pair)
    return false_captions(scenes, known), both_ends


def false_captions(scenes: Sequence[shapes.Scene], known: Set[str]) -> list[Negative]:
    """Every false caption of the built-in world's scenes, and half-truths. Scene i is image i.

    known  captions of training, which are not taken
    """
    negatives = []
    for i, scene in enumerate(scenes):
        true = shapes.caption(scene)
        for category, false in shapes.negatives(scene, known).items():
            negatives.append(Negative(i, category, true, false))
        pair = shapes.half_truth(scene, known)
        if pair:
            negatives.append(Negative(i, "half_truth", *pair))
    return negatives


# Each class of single things has this many images: the world "shapes" has 1,056 of 96 classes.
IMAGES_PER_CLASS = 11


@functools.cache
def single_things(world: str, image_size: int, split: str) -> Task:
    """Images of one thing each, to be classified by its colour and shape: as many of each class.

    In training no thing of this kind that stood alone had this size, texture and background.
    """
    images = draw_scenes(shapes.single_scenes(split, world, IMAGES_PER_CLASS), image_size)
    class_names, templates = shapes.classes(world)
    labels = torch.arange(len(class_names)).repeat_interleave(IMAGES_PER_CLASS)
    return Task(
        world,
        images,
        classified=range(len(images)),
        labels=labels,
        class_names=class_names,
        templates=templates,
    )


# --------------------------------------------------------------------------------------------------
# Zero-shot classification.


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file that are not empty."""
    with interpreting(path):
        lines = Path(path).read_text("utf-8-sig").split("\n")
    return [line.strip() for line in lines if line.strip()]


def read_templates(path: str | Path = "") -> list[str]:
    """Prompts from a file, one per line, each with {} for the class name. Default: LIFT's only one.

    LIFT is language-image alignment with a fixed text encoder (arXiv 2506.04209).
    """
    if not path:
        return [PROMPT]
    templates = read_lines(path)
    for template in templates or [""]:
        if template.count("{}") != 1:
            raise BadInput(f"{path}: {template!r} must hold {{}} once, for the class's name")
    return templates


def prompts(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """The texts of C class names in K templates: K of the first name, then of the second, ..."""
    return [template.replace("{}", name) for name in names for template in templates]


def read_class_names(path: str | Path, folders: list[str], where: str | Path) -> list[str]:
    """The names of classes, one per folder, in the order of the folders. From a file with either

    one name per line, in the order of the folders' sorted names, or
    FOLDER<tab>NAME on each line; there may be more of them than folders

    BadInput for a mix of both, for a folder that comes twice, and for names that do not fit.
    """
    lines = read_lines(path)
    with_tab = [line for line in lines if "\t" in line]
    if with_tab and len(with_tab) < len(lines):
        without = next(line for line in lines if "\t" not in line)
        raise BadInput(
            f"{path}: FOLDER<tab>NAME stands on some lines, but {without!r} has no name behind a "
            "tab; write all lines in one form"
        )
    if with_tab:
        name_of = dict(line.split("\t", 1) for line in lines)
        if len(name_of) < len(lines):
            raise BadInput(f"{path}: a folder stands there twice; give one line for each")
        missing = [folder for folder in folders if folder not in name_of]
        if missing:
            raise BadInput(
                f"{path}: no line for the folder {missing[0]} "
                f"({len(missing)} of {len(folders)} are missing)"
            )
        return [name_of[folder].strip() for folder in folders]
    if len(lines) != len(folders):
        raise BadInput(
            f"{path}: {len(lines)} names for the {len(folders)} folders of {where}; give one line "
            "for each in the order of their sorted names, or FOLDER<tab>NAME"
        )
    return lines


def imagefolder(
    where: str | Path,
    image_size: int,
    class_names: str | Path = "",
    templates: str | Path = "",
) -> Task:
    """Zero-shot classification of FOLDER/CLASS/..., one class per folder, sorted by name.

    class_names  a file, see read_class_names; default: the folders' names
    templates    a file, see read_templates
    """
    root = Path(where)
    prompts = read_templates(templates)
    if not root.is_dir():
        raise BadInput(
            f"{root}: no such folder; zero-shot classification wants one with a folder of images "
            "for each class"
        )

    # Find the images of each class, in all folders below its own. Empty folders are no classes.
    files_of = {}
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            # macOS puts a file ._1.jpg beside 1.jpg.
            files = [
                path
                for path in folder.rglob("*")
                if path.suffix.lower() in SUFFIXES
                and not path.name.startswith("._")
                and path.is_file()
            ]
            if files:
                files_of[folder.name] = sorted(files)
    folders = list(files_of)
    if len(folders) < 2:
        raise BadInput(
            f"{root}: {len(folders)} folders with images; zero-shot classification wants one for "
            "each class"
        )

    # Name the classes. Two of one name could not be told apart.
    if class_names:
        names = read_class_names(class_names, folders, root)
    else:
        names = [class_name(folder) for folder in folders]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise BadInput(f"two classes have the name {twice!r}; tell them apart with --classnames")

    paths, labels = [], []
    for label, folder in enumerate(folders):
        for file in files_of[folder]:
            paths.append(str(file.relative_to(root)))
            labels.append(label)
    return Task(
        str(where),
        decode_files_in_order(paths, root, image_size),
        classified=range(len(paths)),
        labels=torch.tensor(labels),
        class_names=names,
        templates=prompts,
        ks=(1, 5) if len(names) > 5 else (1,),  # of five names the best five hold the right one
    )


# --------------------------------------------------------------------------------------------------
# SugarCrepe and Winoground.


def texts_of(entry: dict, *fields: str) -> list[str]:
    """These fields of an entry of a json file. All of them must be texts."""
    for name in fields:
        if not isinstance(entry[name], str):
            raise BadInput(f"{name} is not a text in {str(entry)[:200]}")
    return [entry[name] for name in fields]


def sugarcrepe(folder: str | Path, image_size: int, images: str | Path) -> Task:
    """SugarCrepe's seven files as they are. `images` is the folder of COCO's val2017."""
    place_of = {}  # name of an image -> its place in the task
    negatives = []
    for category in shapes.CATEGORIES:
        path = Path(folder) / f"{category}.json"
        with interpreting(path):
            entries = json.loads(path.read_text("utf-8"))
            # The official files are objects whose keys are numbers with gaps.
            if isinstance(entries, dict):
                entries = entries.values()
            if not entries:
                raise BadInput("no entries; the mean is over all seven kinds")
            for entry in entries:
                name, true, false = texts_of(entry, "filename", "caption", "negative_caption")
                place = place_of.setdefault(name, len(place_of))
                negatives.append(Negative(place, category, true, false))
    if not images or not Path(images).is_dir():
        raise BadInput(
            f"--images {images or '(not given)'}: no such folder; SugarCrepe's images are those of "
            "COCO's val2017"
        )
    return Task(
        str(folder),
        decode_files_in_order(list(place_of), Path(images), image_size),
        negatives=negatives,
    )


def winoground(where: str | Path, image_size: int) -> Task:
    """Winoground's folder, or the one above its folder data/. See Task.winoground_captions."""
    folder = Path(where)
    if not (folder / "examples.jsonl").is_file() and (folder / "data/examples.jsonl").is_file():
        folder = folder / "data"
    path = folder / "examples.jsonl"

    names, captions = [], []
    with interpreting(path):
        for line in read_lines(path):
            example = json.loads(line)
            names += texts_of(example, "image_0", "image_1")
            captions += texts_of(example, "caption_0", "caption_1")
        if not names:
            raise BadInput("no examples")

    # The examples name their images without the ending of the file.
    file_of = {file.stem: file.name for file in sorted((folder / "images").glob("*"))}
    files = [file_of.get(name, name) for name in names]
    return Task(
        str(where),
        decode_files_in_order(files, folder / "images", image_size),
        winoground_captions=captions,
    )
