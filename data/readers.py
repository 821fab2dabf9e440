"""Readers: a data specification -> Pictures, decoded once into uint8 arrays.

    shapes, shapes-simple, shapes-rich, shapes-pairs   the built-in worlds (shapes.py)
    captions.csv, .tsv        a header; columns filepath or image, and title or caption; delimiter sniffed;
                              paths relative to the file; several rows with one picture are its several captions
    a folder                  pictures with a text file of the same name beside each; every line is a caption

A picture that cannot be read is skipped, counted and named; more than 5 % of them stop the run.
"""

import argparse
import csv
import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from data import BadInput, cache_dir, interpreting, run, shapes

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
IMAGE_KEYS, CAPTION_KEYS = ("filepath", "image"), ("title", "caption")
MAX_UNREADABLE = 0.05
PIXEL_NORMS = {  # mean and standard deviation of pixels; ours is CLIP's, as in open_clip
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclass
class Pictures:
    """N pictures, each with one or more captions."""

    images: np.ndarray  # (M, S, S, 3) uint8, in memory or memory-mapped; M >= N
    rows: np.ndarray  # (N,) which of them
    captions: list  # N lists of texts, none empty
    names: list  # N paths, or keys of scenes
    digests: np.ndarray  # (N,) uint64: equal for pictures with equal pixels
    scenes: list = None  # N shapes.Scene, for the built-in world
    skipped: tuple = ()  # "name: reason" of every entry that could not be used

    def __len__(self):
        return len(self.rows)

    def pixels(self, which):
        """uint8 (n, S, S, 3) of the pictures at an array of indices."""
        return self.images[self.rows[which]]

    def take(self, which):
        """The pictures at an array of indices, without copying their pixels."""
        def pick(values):
            return [values[i] for i in which]

        return Pictures(self.images, self.rows[which], pick(self.captions), pick(self.names), self.digests[which],
                        self.scenes and pick(self.scenes))


class Named:
    """Vectors that somebody else's encoder made: FILE.npy, and beside it FILE.txt whose line i names row i.

    A row is a caption's vector, named by its words, or a picture's, named by its path as `python -m data.readers` lists
    it; of (D,), or with one vector a view (V, D), or one a token (L, D), zeros after the last. Looked up by name, so
    no order can go wrong. Called with names, it gives their rows, (N, ...) float32.
    """

    cut, frozen_parameters = 0.0, 0

    def __init__(self, path, ndim=None):
        names = Path(path).with_suffix(".txt")
        with interpreting(path):
            self.vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(self.vectors, np.ndarray):
                raise BadInput("not one array; save it with numpy.save")
        with interpreting(names):
            lines = names.read_text("utf-8").removesuffix("\n").split("\n")
        if self.vectors.ndim not in ((ndim,) if ndim else (2, 3)) or self.vectors.dtype.kind != "f" or len(lines) != len(self.vectors):
            raise BadInput(f"{path}: {self.vectors.dtype} of shape {self.vectors.shape} for the {len(lines)} lines of {names}; "
                           f"floating-point vectors{f' in {ndim} dimensions' if ndim else ''} are wanted, one row a line")
        self.path, self.row = path, {line: i for i, line in enumerate(lines)}
        if len(self.row) < len(lines):
            raise BadInput(f"{names} has the same line twice; a name stands for one row")
        first = [self.vectors[:100].tobytes(), *lines[:100]]  # more rows may be added later
        self.fingerprint = hashlib.blake2b(repr(first).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()

    def __call__(self, names):
        if missing := [name for name in names if name not in self.row]:
            raise BadInput(f"{self.path} has no row for {missing[0]!r} ({len(missing)} of {len(names)} are missing); the "
                           "names that are needed: python -m data.readers SPEC")
        rows = np.array(self.vectors[[self.row[name] for name in names]], np.float32)
        bad = ~np.isfinite(rows).reshape(len(rows), -1).all(1) | ~rows.reshape(len(rows), -1).any(1)
        if bad.any():
            raise BadInput(f"{self.path}: row {names[int(bad.argmax())]!r} is not finite, or all zero")
        return torch.from_numpy(rows)

    rows = __call__


def to_square(image, size):
    """PIL image -> uint8 (size, size, 3): upright (EXIF), RGB on white, short side to `size` (bicubic), centre crop."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("a picture of floating-point numbers has no known range")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(ImageOps.fit(image.convert("RGB"), (size, size), Image.BICUBIC))


def normalize_pixels(images):
    """uint8 (B, S, S, 3) -> float32 (B, 3, S, S), normalised; on the images' device."""
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in PIXEL_NORMS["clip"])
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


def digest(pixels):
    """64 bits that stand for a picture's pixels."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(pixels), digest_size=8).digest(), "little")


def read(spec, split, image_size, num_samples=0, separator="", image_key="", caption_key="", whole=False):
    """Read one split ("train" or "test") of a data specification. See the head of this file.

    num_samples  pictures at most (0: all; for the built-in world: 20,000 to train on, 800 to test)
    separator, image_key, caption_key  override what a csv's header tells
    whole        take all of a user's data; otherwise a tenth of it, chosen by content, is the test split
    caption_key  for the built-in world: short (default), paraphrase, long, or mixed
    """
    if spec in shapes.WORLDS:
        return _shapes(spec, split, image_size, num_samples, caption_key)
    path = Path(spec)
    if path.is_dir():
        pairs, unusable = _read_folder(path)
    elif path.is_file():
        pairs, unusable = _read_csv(path, separator, image_key, caption_key)
    else:
        raise BadInput(f"{spec}: no such file or folder; --data takes {' or '.join(shapes.WORLDS)}, a .csv or .tsv "
                       "file, or a folder of pictures with .txt files beside them")
    images, good, bad, digests = _decode([Path(p) for p in pairs], image_size)
    bad = unusable + bad
    for name, reason in bad[:5]:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    if bad:
        print(f"{spec}: skipped {len(bad)} of {len(pairs) + len(unusable)} entries", file=sys.stderr)
    if not good:
        raise BadInput(f"{spec}: none of its {len(bad)} entries can be used; the first: {bad[0][0]}: {bad[0][1]} "
                       "(paths are relative to the file)")
    if len(bad) > MAX_UNREADABLE * (len(pairs) + len(unusable)):
        raise BadInput(f"{spec}: {len(bad)} of {len(pairs) + len(unusable)} entries cannot be used, more than "
                       f"{MAX_UNREADABLE:.0%}; the first: {bad[0][0]}: {bad[0][1]}")
    names = list(pairs)
    pictures = Pictures(images, np.arange(len(good)), [pairs[names[i]] for i in good], [names[i] for i in good], digests)
    if not whole:
        held_out = digests % 10 == 0
        rows = np.flatnonzero(held_out if split == "test" else ~held_out)
        if not len(rows):
            raise BadInput(f"{spec}: {len(good)} pictures are too few to hold a tenth out; train with --val-data")
        pictures = pictures.take(rows)
    if 0 < num_samples < len(pictures):
        pictures = pictures.take(np.arange(num_samples))
    pictures.skipped = tuple(f"{name}: {reason}" for name, reason in bad)
    return pictures


VIEWS = 4  # training pictures of one scene


def _shapes(world, split, image_size, num_samples, caption_key):
    """The built-in world: 4 views of each training scene, one of each test scene."""
    says = {"": lambda s: [shapes.caption(s)], "short": lambda s: [shapes.caption(s)],
            "paraphrase": lambda s: [shapes.caption(s), *shapes.paraphrases(s)],
            "long": lambda s: [shapes.long_caption(s)],
            "mixed": lambda s: [shapes.caption(s), shapes.long_caption(s)]}
    if caption_key not in says:
        raise BadInput(f"caption key {caption_key!r} is unknown in the built-in world; choose one of "
                       f"{', '.join(filter(None, says))}")
    views = VIEWS if split == "train" else 1
    count = num_samples or (20_000 if split == "train" else 800)
    scenes = shapes.make_scenes(split, -(-count // views), world=world)  # (rounded up)
    captions = [says[caption_key](s) for s in scenes]
    images = np.empty((count, image_size, image_size, 3), np.uint8)
    for i in tqdm(range(count), desc=f"drawing {split} pictures", unit="picture", dynamic_ncols=True, disable=None):
        images[i] = np.asarray(shapes.draw(scenes[i // views], i % views, image_size))
    return Pictures(images, np.arange(count), [captions[i // views] for i in range(count)],
                    [f"{scenes[i // views].key}/{i % views}" for i in range(count)],
                    np.array([digest(p) for p in images], np.uint64), [scenes[i // views] for i in range(count)])


def _read_csv(path, separator, image_key, caption_key):
    """csv or tsv -> ({absolute path: captions}, [(row, why it cannot be used)])."""
    pairs, bad = {}, []
    try:
        with open(path, encoding="utf-8-sig", newline="") as f:
            header = f.readline()
            if not header.strip():
                raise BadInput(f"{path}: the file is empty; its first line must name the columns")
            f.seek(0)
            separator = separator.replace("\\t", "\t") or max(",\t;|", key=header.count)
            if len(separator) != 1:
                raise BadInput(f"{path}: --csv-separator {separator!r} is not one character")
            rows = csv.DictReader(f, delimiter=separator, strict=True)  # or a lone quote swallows the rest
            columns = rows.fieldnames

            def column(wanted, flag):
                found = [c for c in columns if c.strip().lower() in wanted]
                if not found:
                    raise BadInput(f"{path}: no column {' or '.join(wanted)}; the columns found, separated by "
                                   f"{separator!r}, are {', '.join(columns)}; name yours with {flag}")
                return found[0]

            image = column([image_key.lower()] if image_key else IMAGE_KEYS, "--csv-img-key")
            text = column([caption_key.lower()] if caption_key else CAPTION_KEYS, "--csv-caption-key")
            for row in rows:
                name, words = (row[image] or "").strip(), " ".join((row[text] or "").split())
                if None in row:
                    bad.append((f"{path} line {rows.line_num}", "more fields than columns; a caption that holds the "
                                                                "separator must be quoted"))
                elif name and words:
                    pairs.setdefault(str(path.parent / name), []).append(words)
                else:
                    bad.append((f"{path} line {rows.line_num}", f"no {image if not name else text}"))
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise BadInput(f"{path} after line {rows.line_num}: not a readable csv file ({error}); a field that begins with a "
                       "quote must end with one, and quotes inside are doubled") from None
    if not pairs and not bad:
        raise BadInput(f"{path}: a header without rows")
    return pairs, bad


def _read_folder(path):
    """Folder -> ({path: captions}, [(path, why it cannot be used)]). Sub-folders count."""
    pairs, bad = {}, []
    for picture in sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES):
        try:
            lines = [" ".join(line.split()) for line in picture.with_suffix(".txt").read_text("utf-8-sig").splitlines()]
            pairs[str(picture)] = [line for line in lines if line]
            if not pairs[str(picture)]:
                del pairs[str(picture)]
                bad.append((picture, "its .txt file is empty"))
        except FileNotFoundError:
            bad.append((picture, "no .txt file of the same name beside it"))
        except UnicodeDecodeError:
            bad.append((picture, "its .txt file is not UTF-8"))
        except OSError as error:
            bad.append((picture, f"its .txt file cannot be read ({error.strerror})"))
    if not pairs and not bad:
        raise BadInput(f"{path}: no pictures in this folder (looked for {', '.join(SUFFIXES)})")
    return pairs, bad


def _decode_one(path, size):
    """(pixels, digest) of a picture, or the reason why there are none. The digest does not depend on `size`."""
    try:
        with Image.open(path) as image:
            return to_square(image, size), digest(to_square(image, 32))
    except FileNotFoundError:
        return "no such file"
    except Exception as error:  # Pillow raises a dozen types for a broken file; each is this picture's fault
        return f"cannot be read ({error})"


def _decode(paths, size):
    """Decode pictures once, on all cores, into a memory-mapped file under the cache folder.

    Returns (images (n, size, size, 3) uint8, indices of the n readable paths, [(path, reason)] of the others,
    digests (n,) uint64). The file's name is a hash of the paths, their dates and sizes, and the picture size.
    """
    stats = [(str(p), *((s.st_mtime_ns, s.st_ctime_ns, s.st_size) if (s := _stat(p)) else ())) for p in paths]
    name = hashlib.blake2b(json.dumps([2, size, stats]).encode(), digest_size=12).hexdigest()
    folder = cache_dir() / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    pixels, index = folder / f"{name}.u8", folder / f"{name}.json"
    if not index.is_file():  # the index is written last: with it, the pixels are whole
        good, bad, digests = [], [], []
        part = folder / f"{name}.{os.getpid()}.part"
        try:
            with open(part, "wb") as f, ThreadPoolExecutor(os.cpu_count()) as pool, \
                    tqdm(total=len(paths), desc="decoding pictures", unit="picture", dynamic_ncols=True, disable=None) as bar:
                for start in range(0, len(paths), 1024):  # (in chunks: a pool would queue every picture at once)
                    chunk = paths[start:start + 1024]
                    for i, out in enumerate(pool.map(lambda p: _decode_one(p, size), chunk), start):
                        if isinstance(out, str):
                            bad.append((str(paths[i]), out))
                        else:
                            f.write(out[0].tobytes())
                            good.append(i)
                            digests.append(out[1])
                        bar.update()
            os.replace(part, pixels)
        finally:
            part.unlink(missing_ok=True)
        part.write_text(json.dumps({"good": good, "bad": bad, "digests": digests}))
        os.replace(part, index)
    entry = json.loads(index.read_text())
    images = np.memmap(pixels, np.uint8, "r").reshape(-1, size, size, 3) if entry["good"] else np.empty((0, size, size, 3))
    return images, entry["good"], [tuple(b) for b in entry["bad"]], np.array(entry["digests"], np.uint64)


def _stat(path):
    try:
        return os.stat(path)
    except (OSError, ValueError):  # (ValueError: a NUL in the path)
        return None


def main():
    parser = argparse.ArgumentParser(description="List what --image-features (pictures' names) or --text-features (every text "
                                     "that training and evaluation ask for) must have, a line each.")
    parser.add_argument("data", help="as train.py's --data")
    parser.add_argument("--texts", action="store_true", help="list texts (default: pictures)")
    for key in ("separator", "img-key", "caption-key"):
        parser.add_argument(f"--csv-{key}", default="", help="as in train.py")
    parser.add_argument("--train-num-samples", type=int, default=0, help="as in train.py")
    args = parser.parse_args()
    listed = {}
    for split in ("train", "test"):
        built_in_test = split == "test" and args.data in shapes.WORLDS  # evaluation asks for short captions there
        pictures = read(args.data, split, 8, args.train_num_samples if split == "train" else 0, args.csv_separator,
                        args.csv_img_key, "" if built_in_test else args.csv_caption_key)
        lines = pictures.names
        if args.texts:
            lines = [text for captions in pictures.captions for text in captions]
            if split == "test" and pictures.scenes:
                lines += [text for scene in pictures.scenes for text in shapes.negatives(scene).values()]
                names, templates = shapes.classes(args.data)
                lines += [template.format(name) for name in names for template in templates]
        listed |= dict.fromkeys(lines)
    print(*listed, sep="\n")


if __name__ == "__main__":
    sys.exit(run(main))
