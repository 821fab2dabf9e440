"""The kinds of files that tests/experiments/fuzz.py damages: a small valid one of each, its reader.

A function that makes one gets an empty folder. A reader gets the folder and gives something that
can be compared. It calls what the commands call. The table KINDS is at the end.
"""

import json
import struct

import numpy as np
import torch
from PIL import Image

import eval as ev
import llm_text
import train
import vit
from data.common import BadInput
from data.files.export import export
from data.files.llm import GGUF_KEYS, GGUF_NAMES, Adapter, model_hash, write_adapter
from data.files.runs import read_run, save_tensors
from data.files.tensors import read_safetensors
from data.files.vit import load_vit
from data.images.formats import Record
from data.images.pack import decode, pack
from data.images.read import read_images
from data.vectors import CaptionVectors, OutsideVectors, read_views
from tests.data.images import example_data
from tests.tiny_llm import write_tiny_llm

# --------------------------------------------------------------------------------------------------
# Weights and runs.

TEXTS = ["a small red star", "two dogs"]


def make_llm(folder):
    """One block, and a tokenizer with all that ours reads: merges, special tokens, a suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    path = write_tiny_llm(folder, depth=1) / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocab = tokenizer["model"]["vocab"]
    # They take the ids of two bytes that no text here has.
    (_, first), (_, second) = vocab.popitem(), vocab.popitem()
    vocab |= {"red": second, "re": first}
    tokenizer["model"]["merges"] = ["r e", ["re", "d"]]
    tokenizer["normalizer"] = {"type": "NFC"}
    tokenizer["added_tokens"] = [{"id": 0, "content": "<s>"}, {"id": 7, "content": "<e>"}]
    text, end = {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<e>"}}
    template = {"type": "TemplateProcessing", "single": [text, end]}
    tokenizer["post_processor"] = template | {"special_tokens": {"<e>": {"ids": [7]}}}
    path.write_text(json.dumps(tokenizer))


def make_gguf(folder):
    """The same model, as llama.cpp would write it. Types: 4 uint32, 5 int32, 6 float32, 8 text."""
    make_llm(folder)
    config = json.loads((folder / "config.json").read_text())
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]

    def text(value):
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def entry(key, number, packed):
        return text(key) + struct.pack("<I", number) + packed

    def texts(values):
        return struct.pack("<IQ", 8, len(values)) + b"".join(map(text, values))

    entries = [
        entry("general.architecture", 8, text("llama")),
        entry("llama.attention.head_count_kv", 4, struct.pack("<I", 2)),
        entry("tokenizer.ggml.model", 8, text("gpt2")),
        entry("tokenizer.ggml.pre", 8, text("gpt-2")),
        entry("tokenizer.ggml.tokens", 9, texts(tokens)),
        entry("tokenizer.ggml.token_type", 9, struct.pack("<IQ256i", 5, 256, *[1] * 256)),
        entry("tokenizer.ggml.merges", 9, texts(["r e", "re d"])),
        entry("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", 7)),
        entry("tokenizer.ggml.add_eos_token", 7, b"\1"),
    ]
    for name, key in GGUF_KEYS.items():
        is_float = isinstance(config[name], float)
        packed = struct.pack("<f" if is_float else "<I", config[name])
        entries.append(entry(f"llama.{key}", 6 if is_float else 4, packed))

    kinds = {hf_name: kind for kind, hf_name in GGUF_NAMES.items()}
    tensors, contents = [], b""
    for name, stored in read_safetensors(folder / "model.safetensors")[1].items():
        hf_name = name.removeprefix("model.layers.0.").removeprefix("model.")
        kind = kinds[hf_name.removesuffix(".weight")]
        name = f"blk.0.{kind}.weight" if "layers" in name else f"{kind}.weight"
        sizes = struct.pack(f"<{len(stored.shape)}Q", *reversed(stored.shape))
        tensors.append(text(name) + struct.pack("<I", len(stored.shape)) + sizes)
        tensors[-1] += struct.pack("<IQ", 0, len(contents))
        contents += stored.raw.tobytes()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries))
    head += b"".join(entries + tensors)
    (folder / "x.gguf").write_bytes(head + bytes(-len(head) % 32) + contents)


def make_adapter(folder):
    make_llm(folder / "llm")
    pairs = {"layers.0.self_attn.q_proj": (torch.ones(2, 32) * 0.1, torch.ones(32, 2) * 0.1)}
    adapter = Adapter(pairs, 0.5, model_hash(folder / "llm"), layer=1, bidirectional=False)
    write_adapter(folder / "x.safetensors", adapter)


def make_run(folder, **flags):
    """A run that can be gone on with, and its export."""
    make_llm(folder / "llm")
    sizes = dict(image_size=16, whiten=4, text_width=8, text_depth=1, batch_size=8, steps=2)
    flags = dict(llm=str(folder / "llm"), device="cpu", train_num_samples=16, epochs=9) | flags
    out = str(folder / "run")
    train.train(train.Config(data="shapes-simple", out=out, **sizes, **flags))
    checkpoint = read_run(out)
    save_tensors(checkpoint | {"step": 1}, folder / "run" / "checkpoint.pt")
    export(out, folder / "x.safetensors")
    (folder / "0.png").write_bytes(example_data.image_file(0))


def make_checkpoint(folder):
    """A run on outside vectors of images has a small file."""
    names = read_images("shapes-simple", "train", 16, num_samples=16).names
    np.save(folder / "x.npy", np.random.default_rng(0).random((16, 8), np.float32) + 0.1)
    (folder / "x.txt").write_text("\n".join(names) + "\n")
    make_run(folder, method="lit", image_features=str(folder / "x.npy"))


def make_tower(folder):
    """An image tower by timm's names, and by Hugging Face's."""
    torch.manual_seed(0)
    state = vit.ViT("fuzz/8", 16).state_dict()
    torch.save(state, folder / "timm.pth")
    names = {"attn.proj": "attention.output.dense", "mlp.fc1": "intermediate.dense"}
    names |= {"mlp.fc2": "output.dense", "norm1": "layernorm_before", "norm2": "layernorm_after"}
    names |= {"pos_embed": "embeddings.position_embeddings", "blocks": "encoder.layer"}
    names |= {"patch_embed.proj": "embeddings.patch_embeddings.projection"}
    hf = {}
    for name, tensor in state.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=False):
            if ".attn.qkv." in name:
                hf[name.replace("attn.qkv", f"attention.attention.{part}")] = piece.clone()
        if ".attn.qkv." not in name:
            hf[name.replace("norm.", "layernorm.") if name.startswith("norm.") else name] = tensor
    torch.save(hf, folder / "hf.pth")


def make_npy(folder):
    np.save(folder / "x.npy", np.ones((2, 3), np.float32))
    (folder / "x.txt").write_text("\n".join(TEXTS) + "\n")


# --------------------------------------------------------------------------------------------------
# Captions and images.


def make_list(kind, count=2):
    def make(folder):
        names = [f"{i}" for i in range(count)]
        for i, name in enumerate(names):
            (folder / name).write_bytes(example_data.image_file(i))
        example_data.write_list(kind, folder, names, [f'it is "{name}"' for name in names])

    return make


def make_pack(folder):
    """Of 20 images, and one that is not there."""
    make_list("csv", 21)(folder)
    (folder / "20").unlink()
    pack(str(folder / "a.csv"), folder / "pack", 8)


def make_images(kind):
    """Of some modes that the format has; upright and not."""

    def make(folder):
        colours = Image.effect_mandelbrot((24, 16), (-2, -1, 1, 1), 20).convert("RGB")
        exif = Image.Exif()
        exif[0x0112] = 6
        for mode in ("RGB", "L", "P", "1", "RGBA", "CMYK", "I;16"):
            image = Image.new(mode, colours.size, 300) if ";" in mode else colours.convert(mode)
            try:
                image.save(folder / mode.replace(";", ""), kind, exif=exif)
            except (OSError, ValueError):
                (folder / mode.replace(";", "")).unlink(missing_ok=True)  # it has no such mode

    return make


# --------------------------------------------------------------------------------------------------
# Readers.


def read_llm(path, adapter=None):
    llm = llm_text.load_llm(path, adapter=adapter)
    return CaptionVectors(llm)(TEXTS).numpy().tobytes()


def read_adapted(folder):
    return read_llm(folder / "llm", folder / "x.safetensors")


def read_named(folder):
    return OutsideVectors(folder / "x.npy")(TEXTS).numpy().tobytes()


def read_weights(folder):
    metadata, tensors = read_safetensors(folder / "model.safetensors")
    return metadata, [(name, t.decode().numpy().tobytes()) for name, t in tensors.items()]


def make_caches(folder):
    make_llm(folder / "llm")
    read_caches(folder)


def read_caches(folder):
    """Vectors of captions, then of images, from the caches or made anew."""
    captions = read_llm(folder / "llm")
    torch.manual_seed(0)
    views = read_views(
        vit.ViT("fuzz/8", 16),
        lambda which, step: torch.ones(len(which), 3, 16, 16) * step,
        digests=np.arange(3, dtype=np.uint64),
        n_views=2,
        settings=[],
        seed=0,
        device=torch.device("cpu"),
    )
    return captions, views(np.arange(3), 0).numpy().tobytes()


def read_export(folder):
    trained = ev.Run(folder / "x.safetensors")
    image, texts = trained.encode_file(folder / "0.png"), trained.encode_texts(TEXTS)
    return trained.step, trained.cost, (texts @ image).numpy().tobytes()


def read_checkpoint(folder):
    """As eval.py, then as train.py --resume: one more step."""
    trained = ev.Run(folder / "run")
    texts = trained.encode_texts(TEXTS).numpy().tobytes()
    seen = np.isin(np.arange(3), trained.seen_digests).tobytes()
    cfg = train.from_cli(["--resume", str(folder / "run")])
    checkpoint, model = read_run(folder / "run"), trained.model
    optimizer = torch.optim.AdamW(train.parameter_groups(model, cfg.wd), lr=1e-3)
    start = train.go_on(checkpoint, cfg, model, optimizer, checkpoint.get("data_fingerprint"), 9)
    model.encode_text(trained.tokenize(TEXTS)).sum().backward()
    optimizer.step()
    with torch.no_grad():  # not encode_texts: it keeps what the old weights have made
        after = trained.model.encode_text(trained.tokenize(TEXTS), normalize=True)
    return start, texts, seen, after.numpy().tobytes()


def read_tower(folder):
    vectors = []
    for name in ("timm.pth", "hf.pth"):
        tower = vit.ViT("fuzz/8", 16)
        load_vit(tower, folder / name)
        vectors.append(tower(torch.ones(1, 3, 16, 16)).detach().numpy().tobytes())
    return vectors


def read_spec(spec):
    images = read_images(str(spec), "train", 8, whole=True)
    return images.names, images.captions, images.pixels(range(len(images))).tobytes()


def read_image_files(folder):
    """What is not decoded is skipped with a reason, which counts as refused."""
    pixels = []
    for path in sorted(folder.iterdir()):
        if path.is_file():
            decoded = decode(Record(path.name, [""]), folder, 8)
            if isinstance(decoded, str):
                raise BadInput(decoded)
            pixels.append(decoded.pixels.tobytes())
    return pixels


def in_folder(read, name):
    return lambda folder: read(folder / name)


COCO = "annotations/captions_val2017.json"
KARPATHY = "dataset_flickr8k.json"
# name: (make, read, which files are damaged)
KINDS = {
    "GGUF": (make_gguf, in_folder(read_llm, "x.gguf"), "x.gguf"),
    "config.json": (make_llm, read_llm, "config.json"),
    "tokenizer.json": (make_llm, read_llm, "tokenizer.json"),
    "safetensors": (make_llm, read_weights, "model.safetensors"),
    "adapter": (make_adapter, read_adapted, "x.safetensors"),
    "exported run": (make_run, read_export, "x.safetensors"),
    "checkpoint.pt": (make_checkpoint, read_checkpoint, "run/checkpoint.pt"),
    "image tower": (make_tower, read_tower, "*.pth"),
    "npy and txt": (make_npy, read_named, "x*"),
    "cache of vectors": (make_caches, read_caches, "cache/*/*.records"),
    "csv": (make_list("csv"), in_folder(read_spec, "a.csv"), "a.csv"),
    "jsonl": (make_list("jsonl"), in_folder(read_spec, "a.jsonl"), "a.jsonl"),
    "json": (make_list("json"), in_folder(read_spec, "a.json"), "a.json"),
    "tar": (make_list("tar"), in_folder(read_spec, "a.tar"), "a.tar"),
    "tsv": (example_data.tsv, in_folder(read_spec, "a.tsv"), "a.tsv"),
    "COCO": (example_data.coco, in_folder(read_spec, COCO), COCO),
    "Karpathy": (example_data.flickr8k, in_folder(read_spec, KARPATHY), KARPATHY),
    "pack": (make_pack, in_folder(read_spec, "pack"), "pack/*"),
}
for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
    KINDS[kind] = (make_images(kind), read_image_files, "*")
