"""data/files/tensors.py: every kind of block against gguf, safetensors against its library, and
broken files.

python -m pytest tests/data/files/test_tensors.py
"""

import json
import struct

import numpy as np
import pytest
import torch

from data.common import BadInput, interpreting
from data.files.tensors import (
    BLOCKS,
    DECODERS,
    StoredTensor,
    mismatch,
    read_gguf,
    read_safetensors,
    write_safetensors,
)
from tests.data.files.examples import refused

# --------------------------------------------------------------------------------------------------
# Blocks.


@pytest.mark.reference
@pytest.mark.parametrize("kind", [kind for kind in BLOCKS if kind != "I64"])
def test_decoding_is_bit_equal(models, kind):
    """gguf decodes all kinds but I64, which test_safetensors_equal_the_library holds."""
    block_elements, block_bytes = BLOCKS[kind]
    rng = np.random.default_rng(6)
    raw = rng.integers(0, 256, (64, 6 * block_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):  # random bytes make infinities and NaN
        ours = DECODERS[kind](raw.reshape(-1, block_bytes)).reshape(64, 6 * block_elements)
        theirs = models.from_gguf(raw, kind)
    assert ours.dtype == np.float32 and ours.shape == theirs.shape
    # NaN are compared as such, everything else by its bits.
    is_nan = np.isnan(theirs)
    assert is_nan.mean() < 0.2
    assert (np.isnan(ours) == is_nan).all()
    is_equal = ours.view(np.uint32) == theirs.view(np.uint32)
    assert is_equal[~is_nan].all()


def float16(value):
    return np.float16(value).tobytes()


def decoded(kind, raw):
    return StoredTensor(np.frombuffer(raw, np.uint8), kind, (BLOCKS[kind][0],)).decode().tolist()


def test_single_numbers_by_hand():
    assert decoded("F32", np.float32(0.1).tobytes()) == [np.float32(0.1)]
    assert decoded("F16", float16(-1.5)) == [-1.5]
    assert decoded("BF16", np.float32(-1.5).tobytes()[2:]) == [-1.5]
    assert decoded("I64", np.int64(-(1 << 62)).tobytes()) == [-(1 << 62)]


def test_blocks_of_32_by_hand():
    """Element i of 16 in the low half of byte i, element 16 + i in its high half."""
    assert decoded("Q8_0", float16(0.5) + bytes([2, 0xFF, *range(30)]))[:4] == [1, -0.5, 0, 0.5]
    nibbles = bytes([0x3A, *[0] * 14, 0xF1])
    x = decoded("Q4_0", float16(2) + nibbles)
    assert [x[i] for i in (0, 1, 15, 16, 17, 31)] == [4, -16, -14, -10, -16, 14]
    x = decoded("Q4_1", float16(2) + float16(100) + nibbles)
    assert [x[i] for i in (0, 1, 15, 16, 17, 31)] == [120, 100, 102, 106, 100, 130]


def test_a_block_of_256_by_hand():
    """One element of each quarter of the second half of a Q6_K block, all from the byte 5."""
    raw = bytearray(210)
    raw[64 + 5] = 0x7C  # low bits of the elements 128 + 5 and 128 + 64 + 5
    raw[64 + 32 + 5] = 0x21  # of 128 + 32 + 5 and 128 + 96 + 5
    raw[128 + 32 + 5] = 0b11_01_10_00  # high bits of all four
    raw[192:208] = [*range(15), 0xFD]  # scale of each 16 elements; the last one is -3
    raw[208:210] = float16(0.5)
    x = decoded("Q6_K", bytes(raw))
    assert x[128 + 5] == (0x0C - 32) * 8 * 0.5
    assert x[128 + 32 + 5] == (0x21 - 32) * 10 * 0.5
    assert x[128 + 64 + 5] == (0x17 - 32) * 12 * 0.5
    assert x[128 + 96 + 5] == (0x32 - 32) * 14 * 0.5
    assert x[:16] == [0] * 16 and x[16:32] == [-16] * 16 and x[255] == 48


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    for number in (float("nan"), float("-inf")):
        write_safetensors(file, {"a": torch.ones(3), "b": torch.tensor([1, number])}, {})
        _, tensors = read_safetensors(file)
        assert tensors["a"].decode().tolist() == [1, 1, 1]
        with refused(file, "tensor b holds numbers that are not finite"):
            tensors["b"].decode()


def test_rows_of_heads_are_put_back_in_order():
    """Two heads of four rows, which llama.cpp stores in the order 0 2 1 3."""
    rows = np.array([[0], [2], [1], [3], [4], [6], [5], [7]], np.float32)
    stored = StoredTensor(rows.view(np.uint8).ravel(), "F32", (8, 1), interleaved_heads=2)
    assert stored.decode().flatten().tolist() == [*range(8)]


def test_what_is_decoded_does_not_need_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": torch.ones(3)}, {})
    a = read_safetensors(path)[1]["a"].decode()
    a += 1  # the file is mapped for reading only
    assert a.tolist() == [2, 2, 2] and read_safetensors(path)[1]["a"].decode()[0] == 1


# --------------------------------------------------------------------------------------------------
# safetensors. test_tune.py holds that the library reads what write_safetensors writes.


@pytest.mark.reference
def test_safetensors_equal_the_library(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    tensors = {"whole": torch.tensor([[1, -(1 << 62)], [0, 7]])}
    for shape in ((), (3,), (2, 5), (0, 4)):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            tensors[f"{dtype} {shape}"] = torch.randn(shape).to(dtype)
    file = tmp_path / "all.safetensors"
    safetensors.save_file(tensors, file, metadata={"format": "pt"})

    metadata, ours = read_safetensors(file)
    theirs = safetensors.load_file(file)
    assert ours.keys() == theirs.keys() and metadata == {"format": "pt"}
    for name, wanted in theirs.items():
        if wanted.dtype != torch.int64:
            wanted = wanted.float()
        got = ours[name].decode()
        assert torch.equal(got, wanted) and got.dtype == wanted.dtype, name
        assert ours[name].shape == wanted.shape, name


def entry(begin, end, shape=None, dtype="F32"):
    """A tensor's entry in a header. Its shape is that of `end - begin` bytes, or another one."""
    if shape is None:
        shape = [(end - begin) // 4]
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_bytes(header, size):
    """A file with this header (bytes, or a value as JSON) and `size` bytes of tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def test_a_safetensors_file_made_by_hand_is_read(tmp_path):
    """The file of which the next test breaks one thing at a time."""
    file = tmp_path / "good.safetensors"
    file.write_bytes(safetensors_bytes({"b": entry(4, 12), "a": entry(0, 4)}, 12))
    assert {name: t.shape for name, t in read_safetensors(file)[1].items()} == {
        "a": (1,),
        "b": (2,),
    }


@pytest.mark.parametrize(
    "header, size",
    [
        # An overlap, then gaps.
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12),
        ({"a": entry(0, 4), "b": entry(8, 12)}, 12),
        ({"a": entry(4, 8)}, 8),
        ({"a": entry(0, 8)}, 12),
        # A file that ends too soon.
        ({"a": entry(0, 8)}, 7),
        # Shapes that are others than the bytes', or none at all.
        ({"a": entry(0, 8, [3])}, 8),
        ({"a": entry(0, 8, [1]), "b": entry(8, 12, [2])}, 12),
        ({"a": entry(0, 8, [-1, -2])}, 8),
        ({"a": entry(0, 8, [2.0])}, 8),
        # A kind that is not supported.
        ({"a": entry(0, 8, dtype="F8_E5M2")}, 8),
        # Headers that are something else.
        ({"a": {"dtype": "F32"}}, 8),
        ({"a": 5}, 8),
        ([], 8),
        (5, 8),
        (b"{not json}", 8),
        (b"\xff\xfe", 8),
        (b"[" * 100_000, 8),
        (b"", 8),
    ],
    ids=lambda v: str(v)[:60],
)
def test_broken_safetensors_are_refused(tmp_path, header, size):
    file = tmp_path / "broken.safetensors"
    file.write_bytes(safetensors_bytes(header, size))
    with refused(file):
        read_safetensors(file)


@pytest.mark.parametrize("content", [b"", b"abc", struct.pack("<Q", 1 << 60) + b"{}"])
def test_safetensors_without_a_whole_header_are_refused(tmp_path, content):
    file = tmp_path / "broken.safetensors"
    file.write_bytes(content)
    with refused(file):
        read_safetensors(file)


# --------------------------------------------------------------------------------------------------
# GGUF. test_llm.py holds that whole files of the library are read, and what is wrong in them.


def gguf_string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_bytes():
    """A file made by hand: four values of metadata, a tensor (2, 3) and one without dimensions."""
    content = b"GGUF" + struct.pack("<IQQ", 3, 2, 4)
    content += gguf_string("a") + struct.pack("<IQ", 8, 3) + "é!".encode()
    content += gguf_string("b") + struct.pack("<Ih", 3, -7)
    # An array of two arrays of truth values.
    content += gguf_string("c") + struct.pack("<IIQ", 9, 9, 2)
    content += struct.pack("<IQ??", 7, 2, True, False) + struct.pack("<IQ", 7, 0)
    content += gguf_string("general.alignment") + struct.pack("<II", 4, 16)
    # Dimensions, the last one first; kind 0 is F32, 1 is F16; the offset.
    content += gguf_string("matrix") + struct.pack("<IQQIQ", 2, 3, 2, 0, 16)
    content += gguf_string("scalar") + struct.pack("<IIQ", 0, 1, 0)
    content += bytes(-len(content) % 16)
    content += np.float16(-2).tobytes() + bytes(14)
    return content + np.arange(6, dtype=np.float32).tobytes()


def test_a_gguf_file_made_by_hand_is_read(tmp_path):
    file = tmp_path / "x.gguf"
    file.write_bytes(gguf_bytes())
    metadata, tensors = read_gguf(file)
    assert metadata == {"a": "é!", "b": -7, "c": [[True, False], []], "general.alignment": 16}
    assert list(tensors) == ["matrix", "scalar"]
    assert tensors["matrix"].decode().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["scalar"].decode().tolist() == -2


def test_a_gguf_file_that_was_cut_at_any_byte_is_refused(tmp_path):
    whole = gguf_bytes()
    file = tmp_path / "x.gguf"
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        with refused(file):
            read_gguf(file)


def test_gguf_headers_that_are_wrong_are_refused(tmp_path):
    """Wrong counts must neither hang the reader nor fill the memory."""
    file = tmp_path / "bad.gguf"
    with refused(file, "no such file"):
        read_gguf(file)
    good = gguf_bytes()
    # The number of dimensions is 4 bytes. The first two are changed: 256 dimensions.
    dimensions = good.index(b"matrix") + len("matrix")
    # A file whose first value is an array.
    array = good[:24] + struct.pack("<Q1sI", 1, b"a", 9)
    for content, says in [
        (b"", "empty"),
        (b"PK\3\4" + good[4:], "not a GGUF"),
        (good[:4] + b"\2" + good[5:], "version 2"),
        (good[:dimensions] + b"\0\1" + good[dimensions + 2 :] + b"\1" * 4096, ""),
        # One tensor of 256 dimensions, whose product has thousands of digits.
        (
            good[:8]
            + struct.pack("<QQ", 1, 0)
            + gguf_string("a")
            + struct.pack("<I256QIQ", 256, *[1 << 60] * 256, 0, 0),
            "corrupt",
        ),
        # Arrays in arrays in arrays...
        (array + struct.pack("<IQ", 9, 1) * 20_000, "corrupt"),
        # 10^12 bytes.
        (array + struct.pack("<IQ", 0, 1 << 40) + bytes(1 << 24), "corrupt"),
        # A text of 10^12 bytes, the last value of a file without tensors.
        (good[:8] + struct.pack("<QQQ1sIQ", 0, 1, 1, b"a", 8, 1 << 40), "a text runs past the end"),
    ]:
        file.write_bytes(content)
        with refused(file, says, seconds=2):
            read_gguf(file)


def test_a_row_that_ends_within_a_block_is_refused(tmp_path):
    """Kind 8 is Q8_0, in blocks of 32: two rows of 16 elements are none, one row of 32 is one."""
    file = tmp_path / "x.gguf"
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + gguf_string("a")
    for columns, rows in ((16, 2), (32, 1)):
        content = header + struct.pack("<IQQIQ", 2, columns, rows, 8, 0)
        file.write_bytes(content + bytes(-len(content) % 32) + bytes(34))
        if columns == 32:
            assert read_gguf(file)[1]["a"].decode().shape == (1, 32)
        else:
            with refused(file, "blocks of 32"):
                read_gguf(file)


# --------------------------------------------------------------------------------------------------
# What all readers share.


def test_a_mismatch_is_told_in_words():
    """A tensor that is missing, unknown or of another shape. The first name of all is told."""
    module = torch.nn.Linear(3, 2)
    tensors = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    assert mismatch(tensors, module, "it wants") is None

    wider = tensors | {"weight": torch.ones(2, 4)}
    says = "weight has shape (2, 4), it wants (2, 3) (1 such tensors)"
    assert mismatch(wider, module, "it wants") == says

    unknown = wider | {"extra": torch.ones(5)}
    says = "extra has shape (5,), it wants none (no such tensor) (2 such tensors)"
    assert mismatch(unknown, module, "it wants") == says

    missing = {"weight": StoredTensor(np.zeros(24, np.uint8), "F32", (2, 3))}
    says = "bias has shape none (no such tensor), it wants (2,) (1 such tensors)"
    assert mismatch(missing, module, "it wants") == says


@pytest.mark.parametrize(
    "error, says",
    [
        (PermissionError("why"), "why"),
        (NotImplementedError("why"), "why"),
        (MemoryError("why"), "why"),
        (torch.OutOfMemoryError("why"), "why"),
        (
            KeyError("why"),
            "x: truncated, corrupt or of another kind (KeyError: 'why'); "
            "name the right file, or make or fetch it again",
        ),
        (BadInput("why"), "x: why"),
        (BadInput("x: why"), "x: why"),
        (BadInput("x/y: why"), "x/y: why"),
    ],
    ids=repr,
)
def test_only_what_is_the_files_fault_is_blamed_on_it(error, says):
    """common.interpreting, which every reader of a file uses."""
    with pytest.raises((type(error), BadInput)) as caught, interpreting("x"):
        raise error
    assert str(caught.value) == says
