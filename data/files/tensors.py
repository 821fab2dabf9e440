"""Weight files: GGUF and safetensors, read and (safetensors) written.

Both readers return {name: StoredTensor}, backed by the memory-mapped file until a tensor is decoded. The language model
(llm_text.py) and the image tower (vit.py) are filled from them.
"""

import json
import math
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.common import BadInput, interpreting


def _map_file(path):
    with open(path, "rb") as f:
        return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)


# How numbers are stored: elements a block, bytes a block. The first four are ggml's names and safetensors' too.
BLOCKS = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "I64": (1, 8),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q8_0": (32, 34),
    "Q6_K": (256, 210),
}
GGML_KINDS = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    8: "Q8_0",
    14: "Q6_K",
    27: "I64",
    30: "BF16",
}
# GGUF value types -> struct codes; 8 is a string, 9 an array. (ggml's docs/gguf.md)
GGUF_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


@dataclass
class StoredTensor:
    """A tensor as it lies in a file: bytes (memory-mapped), their kind (a key of BLOCKS), shape in torch's order."""

    raw: np.ndarray
    kind: str
    shape: tuple
    interleaved: int = (
        0  # of so many heads the rows are in llama.cpp's order (see models.py, _gguf_model)
    )

    @classmethod
    def at(cls, buffer, start, name, kind, shape):
        """The tensor whose bytes begin at `start`. BadInput, ValueError: of another kind, or it does not fit."""
        if kind not in BLOCKS:
            raise BadInput(
                f"tensor {name} has type {kind}, which is not supported (only {', '.join(BLOCKS)})"
            )
        block, size = BLOCKS[kind]
        if not all(isinstance(n, int) and n >= 0 for n in shape) or [1, *shape][-1] % block:
            raise ValueError(
                f"tensor {name} of shape {shape} does not divide into {kind} blocks of {block}"
            )
        raw = np.frombuffer(
            buffer, np.uint8, math.prod(shape) // block * size, start
        )  # (ValueError past the end)
        return cls(raw, kind, tuple(shape))

    def decode(self):
        """The tensor, float32 (of whole numbers: int64) in memory of its own, bit for bit as ggml's reference decodes it.

        A block holds 32 (Q6_K: 256) neighbours of one row: half-precision scale d (and minimum m), then the
        integers. 4-bit blocks keep elements 0-15 in the low nibbles and 16-31 in the high ones.
        """
        raw, kind = self.raw, self.kind
        blocks = raw.reshape(-1, BLOCKS[kind][1])  # (n, bytes)

        def half(a):  # the float16 at byte a of each block, as (n, 1) float32
            return blocks[:, a : a + 2].copy().view(np.float16).astype(np.float32)

        def nibbles(a):  # 16 bytes from a -> (n, 32) of 0..15
            return np.concatenate([blocks[:, a : a + 16] & 15, blocks[:, a : a + 16] >> 4], axis=1)

        if kind in ("F32", "I64"):
            out = raw.view(np.float32 if kind == "F32" else np.int64).copy()
        elif kind == "F16":
            out = raw.view(np.float16).astype(np.float32)
        elif kind == "BF16":
            out = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        elif kind == "Q8_0":
            out = blocks[:, 2:].view(np.int8).astype(np.float32) * half(0)
        elif kind == "Q4_0":
            out = (nibbles(2).astype(np.int8) - 8).astype(np.float32) * half(0)
        elif kind == "Q4_1":
            out = nibbles(4).astype(np.float32) * half(0) + half(2)
        else:  # Q6_K: 128 bytes of low nibbles, 64 of high bit pairs, 16 int8 scales, d; two halves of 128 elements
            low = blocks[:, :128].reshape(-1, 2, 1, 64) >> np.array(
                [[0], [4]], np.uint8
            )  # (n, 2, 2, 64)
            high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array(
                [[0], [2], [4], [6]], np.uint8
            )  # (n, 2, 4, 32)
            q = (low & 15).reshape(-1, 256) | ((high & 3) << 4).reshape(-1, 256)
            scales = blocks[:, 192:208].view(np.int8).astype(np.float32) * half(208)  # (n, 16)
            out = (q.astype(np.int8) - 32).reshape(-1, 16, 16).astype(np.float32) * scales[
                :, :, None
            ]
        if self.interleaved:
            out = out.reshape(self.interleaved, -1, 2, *self.shape[1:]).swapaxes(1, 2)
        return torch.from_numpy(out.reshape(self.shape))


def read_gguf(path):
    """Read a GGUF v3 file -> (metadata dict, {name: StoredTensor}).

    Raises BadInput for a file that is truncated, corrupt, of another version, or of a type not in GGML_KINDS.
    """
    with interpreting(path):
        buffer, at = _map_file(path), 0

        def take(code):
            nonlocal at
            (value,) = struct.unpack_from("<" + code, buffer, at)
            at += struct.calcsize("<" + code)
            return value

        def value(kind):
            nonlocal at
            if kind == 8:
                size = take("Q")
                at += size  # (past the end of the file, the next `take` stops)
                return buffer[at - size : at].decode("utf-8")
            if kind == 9:
                kind, count = take("I"), take("Q")
                if count > len(buffer) - at:
                    raise ValueError("an array runs past the end")
                return [value(kind) for _ in range(count)]
            return take(GGUF_SCALARS[kind])

        if take("4s") != b"GGUF":
            raise BadInput("not a GGUF file")
        if (version := take("I")) != 3:
            raise BadInput(f"GGUF version {version} is not supported, only 3; convert it again")
        n_tensors, n_meta = take("Q"), take("Q")
        meta = {
            value(8): value(take("I")) for _ in range(n_meta)
        }  # (Python evaluates the key first)
        entries = [
            (value(8), [take("Q") for _ in range(take("I"))][::-1], take("I"), take("Q"))
            for _ in range(n_tensors)
        ]  # name, shape (GGUF's order is the reverse of torch's), kind, offset
        align = meta.get("general.alignment", 32)
        start = (at + align - 1) // align * align
        return meta, {
            name: StoredTensor.at(
                buffer, start + offset, name, GGML_KINDS.get(kind, f"ggml type {kind}"), shape
            )
            for name, shape, kind, offset in entries
        }


def read_safetensors(path):
    """Read a .safetensors file -> (metadata dict of strings, {name: StoredTensor}).

    Layout: u64 header length, JSON header {name: {dtype, shape, data_offsets}}, data. Raises BadInput where the
    header, a type, a shape or an offset does not hold together.
    """
    with interpreting(path):
        buffer = _map_file(path)
        (size,) = struct.unpack_from("<Q", buffer)
        header = json.loads(buffer[8 : 8 + size])
        meta = header.pop("__metadata__", {})
        tensors, start, at = {}, 8 + size, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            tensors[name] = StoredTensor.at(
                buffer, start + at, name, entry["dtype"], entry["shape"]
            )
            begin, at = at, at + len(tensors[name].raw)
            if entry["data_offsets"] != [begin, at]:
                raise ValueError(
                    f"tensor {name}: its offsets do not fit its shape {entry['shape']} or its neighbours"
                )
        if start + at != len(buffer):
            raise ValueError(f"its tensors end at byte {start + at}, the file at {len(buffer)}")
        return meta, tensors


def write_safetensors(path, tensors, metadata):
    """Write {name: float32 or int64 tensor} and {key: string}; the old file or the new one is left, never half of one."""
    header, at = {"__metadata__": metadata}, 0
    for name, tensor in tensors.items():
        kind = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        end = at + BLOCKS[kind][1] * tensor.numel()
        header[name], at = (
            {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, end]},
            end,
        )
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    part = Path(path).with_suffix(".part")
    with open(part, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            f.write(tensor.detach().cpu().contiguous().numpy().tobytes())
    os.replace(part, path)


def mismatch(tensors, module, wants):
    """In words, the first tensor that is missing, unknown, or of another shape than the module's; None where all fit."""
    found, own = (
        {name: tuple(t.shape) for name, t in some.items()}
        for some in (tensors, module.state_dict())
    )
    if wrong := sorted({name for name, _ in found.items() ^ own.items()}):
        has, should = (shapes.get(wrong[0], "none (no such tensor)") for shapes in (found, own))
        return f"{wrong[0]} has shape {has}, {wants} {should} ({len(wrong)} such tensors)"
