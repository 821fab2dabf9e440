"""Weight files: GGUF and safetensors are read, safetensors are written.

Both readers return {name: StoredTensor}. A StoredTensor lies in the memory-mapped file until it is
decoded, so a tensor that nobody asks for costs no memory. llm_text.py and data/files/vit.py fill
their models from them.

    safetensors                          GGUF, version 3
    8 bytes: length of the header        magic number, version, two counts
    header: JSON {name: kind, shape,     metadata: key, type, value, ...
      where its bytes begin and end}     tensors: name, shape, kind, where its bytes begin, ...
    bytes of all tensors                 bytes of all tensors

In both, numbers are little-endian. GGUF is llama.cpp's format. Its weights are often quantized:
a block of neighbours in a row is kept as small whole numbers that share a scale.

Letters of shapes: n blocks.
"""

import json
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data.common import BadInput, check_regular, interpreting, replacing

# --------------------------------------------------------------------------------------------------
# Blocks: how numbers are stored.

# kind: (elements per block, bytes per block). The first four are safetensors' names, too.
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


# Each function takes all blocks of a tensor, (n, bytes per block) uint8. It returns their elements,
# (n, elements per block). It computes in float32, in the same steps as ggml, llama.cpp's library.


def decode_f32(blocks: np.ndarray) -> np.ndarray:
    """F32, 4 bytes: one float32. A copy, so that the file is not needed any more."""
    return blocks.view(np.float32).copy()


def decode_f16(blocks: np.ndarray) -> np.ndarray:
    """F16, 2 bytes: one float16."""
    return blocks.view(np.float16).astype(np.float32)


def decode_bf16(blocks: np.ndarray) -> np.ndarray:
    """BF16, 2 bytes: the upper half of a float32. The lower half is zero."""
    return (blocks.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def decode_i64(blocks: np.ndarray) -> np.ndarray:
    """I64, 8 bytes: one int64. It stays int64."""
    return blocks.view(np.int64).copy()


def float16_at(blocks: np.ndarray, start: int) -> np.ndarray:
    """The float16 that begins at byte `start` of each block, (n, 1) float32."""
    # The copy puts the pairs of bytes one after the other, as `view` wants them.
    return blocks[:, start : start + 2].copy().view(np.float16).astype(np.float32)


def nibbles_at(blocks: np.ndarray, start: int) -> np.ndarray:
    """32 numbers of 4 bits from the 16 bytes that begin at `start`, (n, 32) uint8 in 0..15.

    Byte i holds element i in its low half and element 16 + i in its high half.
    """
    packed = blocks[:, start : start + 16]
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def decode_q8_0(blocks: np.ndarray) -> np.ndarray:
    """Q8_0, 34 bytes: 32 elements.

    bytes 0-1   d, float16                      x = q d
    bytes 2-33  q, int8, one per element
    """
    d = float16_at(blocks, 0)
    q = blocks[:, 2:].view(np.int8)
    return q.astype(np.float32) * d


def decode_q4_0(blocks: np.ndarray) -> np.ndarray:
    """Q4_0, 18 bytes: 32 elements.

    bytes 0-1   d, float16                      x = (q - 8) d
    bytes 2-17  q, 4 bits per element: see nibbles_at
    """
    d = float16_at(blocks, 0)
    q = nibbles_at(blocks, 2).astype(np.int8)
    return (q - 8).astype(np.float32) * d


def decode_q4_1(blocks: np.ndarray) -> np.ndarray:
    """Q4_1, 20 bytes: 32 elements.

    bytes 0-1   d, float16                      x = q d + m
    bytes 2-3   m, float16
    bytes 4-19  q, 4 bits per element: see nibbles_at
    """
    d = float16_at(blocks, 0)
    m = float16_at(blocks, 2)
    q = nibbles_at(blocks, 4)
    return q.astype(np.float32) * d + m


def decode_q6_k(blocks: np.ndarray) -> np.ndarray:
    """Q6_K, 210 bytes: 256 elements. 16 neighbours share a scale s.

    bytes 0-127    the low 4 bits of each q     x = (q - 32) (s d)       q: 6 bits, 0..63
    bytes 128-191  the high 2 bits of each q
    bytes 192-207  s, int8, one per 16 elements
    bytes 208-209  d, float16

    The low and the high bits are kept in two halves, of 128 elements each:

    64 bytes of low bits   byte i holds the elements i and 64 + i, from its lowest bits up
    32 bytes of high bits  byte i holds the elements i, 32 + i, 64 + i and 96 + i, likewise
    """
    # In the shapes below 2 is the number of halves. The axis before the last one runs over what
    # the same byte holds.
    low = blocks[:, :128].reshape(-1, 2, 1, 64)
    low = low >> np.array([[0], [4]], np.uint8)  # (n, 2, 2, 64)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    high = high >> np.array([[0], [2], [4], [6]], np.uint8)  # (n, 2, 4, 32)

    low = (low & 15).reshape(-1, 256)
    high = (high & 3).reshape(-1, 256)
    q = (low | (high << 4)).astype(np.int8).reshape(-1, 16, 16)  # (n, scales, elements per scale)

    d = float16_at(blocks, 208)
    s = blocks[:, 192:208].view(np.int8)  # (n, 16)
    scales = s.astype(np.float32) * d
    return (q - 32).astype(np.float32) * scales[:, :, None]


DECODERS = {
    "F32": decode_f32,
    "F16": decode_f16,
    "BF16": decode_bf16,
    "I64": decode_i64,
    "Q4_0": decode_q4_0,
    "Q4_1": decode_q4_1,
    "Q8_0": decode_q8_0,
    "Q6_K": decode_q6_k,
}


# --------------------------------------------------------------------------------------------------
# A tensor in a file.


@dataclass
class StoredTensor:
    """A tensor as it lies in a file."""

    raw: np.ndarray  # its bytes, uint8, memory-mapped
    kind: str  # a key of BLOCKS
    shape: tuple[int, ...]  # in torch's order
    where: str = "a tensor"  # its file and its name there, for messages
    # How many attention heads the rows belong to, if llama.cpp stored the rows of each head in
    # another order than Hugging Face (data/files/llm.py says where it does); 0 if it did not.
    interleaved_heads: int = 0

    def decode(self) -> Tensor:
        """The tensor in memory of its own: float32, or int64 for whole numbers.

        Its bits are those that ggml's reference gives. BadInput for numbers that are not finite:
        one of them would spoil every vector.
        """
        _, block_bytes = BLOCKS[self.kind]
        blocks = self.raw.reshape(-1, block_bytes)  # (n, bytes per block)
        with np.errstate(all="ignore"):  # what overflows is refused in the next lines
            values = DECODERS[self.kind](blocks)  # (n, elements per block)
        if not np.isfinite(values).all():
            raise BadInput(
                f"{self.where} holds numbers that are not finite; fetch or make the file again"
            )
        if self.interleaved_heads:
            # llama.cpp puts row i of the first half of a head beside row i of the second half.
            # Here all rows of the first half come first again.
            values = values.reshape(self.interleaved_heads, -1, 2, *self.shape[1:])
            values = values.swapaxes(1, 2)
        return torch.from_numpy(values.reshape(self.shape))


def map_file(path: str | Path) -> mmap.mmap:
    """The bytes of a file, read from the disk where they are asked for.

    ValueError for an empty file, BadInput for what is no regular file.
    """
    check_regular(path)
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def stored_tensor(
    path: str | Path, buffer: mmap.mmap, start: int, name: str, kind: str, shape: list
) -> StoredTensor:
    """The tensor whose bytes begin at `start` of a file. `buffer` holds the file at `path`.

    BadInput for a kind that is not in BLOCKS. ValueError if the shape makes no sense or the file
    ends before the tensor does.
    """
    if kind not in BLOCKS:
        raise BadInput(
            f"tensor {name} has type {kind}, which is not supported (only {', '.join(BLOCKS)})"
        )
    block_elements, block_bytes = BLOCKS[kind]
    is_possible = all(isinstance(size, int) and size >= 0 for size in shape)
    # A block lies within one row. A tensor without dimensions has one element.
    row_length = shape[-1] if shape else 1
    if not is_possible or row_length % block_elements:
        raise ValueError(
            f"tensor {name} of shape {shape} does not divide into {kind} blocks of {block_elements}"
        )
    n_bytes = math.prod(shape) // block_elements * block_bytes
    raw = np.frombuffer(buffer, np.uint8, n_bytes, start)  # ValueError past the end of the file
    return StoredTensor(raw, kind, tuple(shape), f"{path}: tensor {name}")


# --------------------------------------------------------------------------------------------------
# GGUF. (docs/gguf.md of the ggml project)

# How the file numbers the kinds of BLOCKS.
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

# How the file numbers the types of its metadata -> their codes in Python's module struct.
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
GGUF_STRING = 8
GGUF_ARRAY = 9


class GGUFReader:
    """Reads one value after the other. struct.error or ValueError where the file ends too soon."""

    def __init__(self, buffer: mmap.mmap):
        self.buffer = buffer
        self.position = 0

    def scalar(self, code: str):
        """The next number (or bytes), by its code in Python's module struct."""
        (value,) = struct.unpack_from("<" + code, self.buffer, self.position)
        self.position += struct.calcsize("<" + code)
        return value

    def count(self) -> int:
        """The next number of 8 bytes: a length, a size or an offset."""
        return self.scalar("Q")

    def check_left(self, n_bytes: int, what: str) -> None:
        if n_bytes > len(self.buffer) - self.position:
            raise ValueError(f"{what} runs past the end of the file")

    def string(self) -> str:
        """The next length and as many bytes of UTF-8."""
        length = self.count()
        self.check_left(length, "a text")
        start = self.position
        self.position += length
        return self.buffer[start : self.position].decode("utf-8")

    def array(self) -> list:
        """The next type and number of elements, then the elements."""
        element_type = self.scalar("I")
        length = self.count()
        # Each element takes at least one byte. Without this line a wrong length would fill the
        # memory before the file ends.
        self.check_left(length, "an array")
        return [self.value(element_type) for _ in range(length)]

    def value(self, value_type: int):
        """The next value of metadata."""
        if value_type == GGUF_STRING:
            return self.string()
        if value_type == GGUF_ARRAY:
            return self.array()
        return self.scalar(GGUF_SCALARS[value_type])


def read_gguf(path: str | Path) -> tuple[dict, dict[str, StoredTensor]]:
    """A GGUF file of version 3 -> its metadata, and {name: StoredTensor}.

    BadInput for a file that is truncated, corrupt or of another version, and for a tensor of a kind
    that is not in GGML_KINDS.
    """
    with interpreting(path):
        buffer = map_file(path)
        reader = GGUFReader(buffer)
        if reader.scalar("4s") != b"GGUF":
            raise BadInput("not a GGUF file")
        version = reader.scalar("I")
        if version != 3:
            raise BadInput(f"GGUF version {version} is not supported, only 3; convert it again")
        n_tensors = reader.count()
        n_metadata = reader.count()

        metadata = {}
        for _ in range(n_metadata):
            key = reader.string()
            value_type = reader.scalar("I")
            metadata[key] = reader.value(value_type)

        entries = []
        for _ in range(n_tensors):
            name = reader.string()
            n_dimensions = reader.scalar("I")
            shape = [reader.count() for _ in range(n_dimensions)]
            shape.reverse()  # GGUF begins with the last dimension, torch with the first
            kind_number = reader.scalar("I")
            offset = reader.count()
            entries.append((name, shape, kind_number, offset))

        # The bytes of the tensors begin at the next multiple of the alignment.
        alignment = metadata.get("general.alignment", 32)
        start = (reader.position + alignment - 1) // alignment * alignment
        tensors = {}
        for name, shape, kind_number, offset in entries:
            kind = GGML_KINDS.get(kind_number, f"ggml type {kind_number}")
            tensors[name] = stored_tensor(path, buffer, start + offset, name, kind, shape)
        return metadata, tensors


# --------------------------------------------------------------------------------------------------
# safetensors.


def read_safetensors(path: str | Path) -> tuple[dict[str, str], dict[str, StoredTensor]]:
    """A .safetensors file -> its metadata, and {name: StoredTensor}.

    BadInput if a kind is not in BLOCKS, if a shape and its bytes do not agree, or if there is a gap
    or an overlap between tensors.
    """
    with interpreting(path):
        buffer = map_file(path)
        header_length = int.from_bytes(buffer[:8], "little")
        start = 8 + header_length  # of the tensors' bytes
        if start > len(buffer):
            raise BadInput("no safetensors file, or truncated: its header runs past its end")
        header = json.loads(buffer[8:start])
        metadata = header.pop("__metadata__", {})

        tensors = {}
        end = 0  # of the tensor before, counted from `start`
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin = end
            kind, shape = entry["dtype"], entry["shape"]
            stored = stored_tensor(path, buffer, start + begin, name, kind, shape)
            end = begin + len(stored.raw)
            if entry["data_offsets"] != [begin, end]:
                raise ValueError(
                    f"tensor {name}: its offsets do not fit its shape {shape} or its neighbours"
                )
            tensors[name] = stored
        if start + end != len(buffer):
            raise ValueError(f"its tensors end at byte {start + end}, the file at {len(buffer)}")
        return metadata, tensors


WRITTEN_KINDS = {torch.float32: "F32", torch.int64: "I64"}


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write {name: tensor} and {key: text}. KeyError for a tensor that is not float32 or int64.

    If the process is killed, the old file or the new one is left, never half of one.
    """
    # Where each tensor's bytes will lie.
    header = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        kind = WRITTEN_KINDS[tensor.dtype]
        _, element_bytes = BLOCKS[kind]
        begin = end
        end = begin + tensor.numel() * element_bytes
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}

    # The bytes begin at a multiple of eight: the header is filled up with spaces.
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    with replacing(Path(path)) as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for tensor in tensors.values():
            file.write(tensor.detach().cpu().contiguous().numpy().tobytes())


# --------------------------------------------------------------------------------------------------
# Tensors and the module that they should fill.


def mismatch(
    tensors: Mapping[str, Tensor | StoredTensor], module: nn.Module, wants: str
) -> str | None:
    """What is wrong with these tensors for a module, in words. None if all fit.

    The message names the first tensor (by name) that is missing, unknown or of another shape, and
    says how many there are.

    wants  words that stand before the right shape, such as "its configuration wants":
           "norm.weight has shape (65,), its configuration wants (64,) (1 such tensors)"
    """
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    wrong = []
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            wrong.append(name)
    if not wrong:
        return None
    missing = "none (no such tensor)"
    first = wrong[0]
    return (
        f"{first} has shape {found.get(first, missing)}, {wants} {wanted.get(first, missing)} "
        f"({len(wrong)} such tensors)"
    )
