"""data/images: whatever bytes and texts, and a kill at any point. Hypothesis looks for what breaks.

python -m pytest tests/data/images/test_any_input.py
"""

import json
import os
import shutil

import numpy as np
import pytest

from data.common import BadInput
from data.images.formats import Record, join_by_name
from data.images.pack import json_line, pack, read_records
from data.images.read import read_images
from tests.data.images.example_data import colour, contents, image_file, put, tar, write_list

pytestmark = pytest.mark.reference
hypothesis = pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

some = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def refused_or_read(spec):
    """CaptionedImages, or None where there is one line that says why not."""
    try:
        return read_images(str(spec), "train", 8, whole=True)
    except BadInput as error:
        assert len(str(error)) < 5000 and "\n" not in str(error)
    except OSError:
        # A name too long for the system: one line too, see data.common.exit_status.
        return None


# --------------------------------------------------------------------------------------------------
# Packing.

FILES = (
    "index",
    "images.u8",
    "skipped.jsonl",
    "records.jsonl",
    "unusable.jsonl",
    "unfinished",
)


@some
@given(
    keep=st.fixed_dictionaries({name: st.one_of(st.none(), st.integers(0, 2000)) for name in FILES})
)
def test_killed_at_any_point_and_begun_again(stopped, tmp_path, keep):
    """Each file cut off wherever it may be: as a kill leaves it, or a machine that lost power."""
    spec, folder, whole = stopped
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    shutil.copytree(folder, tmp_path / "out")
    for name, length in keep.items():
        if length is not None:
            os.truncate(tmp_path / "out" / name, min(length, (folder / name).stat().st_size))
    pack(spec, tmp_path / "out", 8)
    assert contents(tmp_path / "out") == whole


# --------------------------------------------------------------------------------------------------
# Texts.


@settings(some, max_examples=60)
@given(text=st.text(max_size=300))
def test_any_table_is_read_or_refused_in_one_line(tmp_path, text):
    file = tmp_path / "any.csv"
    file.write_text("filepath,title\n" + text, encoding="utf-8", errors="surrogatepass", newline="")
    try:
        read_images(str(file), "train", 8)
    except BadInput as error:
        assert "any.csv" in str(error)


file_names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0."), min_size=1, max_size=40
).filter(lambda name: len(name.encode()) < 200)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "shards"])
@some
@given(names=st.lists(file_names, min_size=1, max_size=4, unique=True), draw=st.data())
def test_any_text_survives_or_is_refused_in_one_line(kind, tmp_path, names, draw):
    """Read and packed. A text of blanks counts as none. Other blanks become one space."""
    text = st.text(st.characters(exclude_categories=["Cs"] if kind == "csv" else []), max_size=200)
    captions = draw.draw(st.lists(text, min_size=len(names), max_size=len(names)))
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    (tmp_path / "in").mkdir()
    for i, name in enumerate(names):
        (tmp_path / "in" / name).write_bytes(image_file(i))
    spec = write_list(kind, tmp_path / "in", names, captions)

    images = refused_or_read(spec)
    if not images:
        # Only for blanks around a name, or a caption of nothing else.
        assert any(name != name.strip() for name in names) or not all(c.strip() for c in captions)
        return
    prefix = "a.tar/" if kind == "shards" else ""
    wanted = {prefix + name: [" ".join(c.split())] for name, c in zip(names, captions, strict=True)}
    assert dict(zip(images.names, images.captions, strict=True)) == wanted
    for i, name in enumerate(images.names):
        number = names.index(name[len(prefix) :])
        assert np.abs(images.pixels([i])[0] - colour(number)).max() == 0
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    pack(str(spec), tmp_path / "out", 8)
    packed = read_images(str(tmp_path / "out"), "train", 8, whole=True)
    assert packed.names == images.names and packed.captions == images.captions


some_names = st.sampled_from(["a", "b", "ü\n", "\ud800", "e", "f"]) | st.text(max_size=3)
some_captions = st.sampled_from(["", "x", "longer", "\u2028"]) | st.text(max_size=5)


@settings(some, max_examples=120)
@given(
    rows=st.lists(
        st.tuples(some_names, st.lists(some_captions, min_size=1, max_size=3)), max_size=12
    )
)
def test_records_against_a_plain_model(tmp_path, rows):
    model = {}
    for name, captions in rows:
        model.setdefault(name, []).extend(captions)
    records = join_by_name(Record(name, list(captions)) for name, captions in rows)
    assert records == [Record(name, captions) for name, captions in model.items()]
    lines = b"".join(json_line([name, captions]) for name, captions, _ in records)
    put(tmp_path / "records.jsonl", lines)
    assert read_records(tmp_path) == records


# --------------------------------------------------------------------------------------------------
# Bytes.


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "tar"])
@some
@given(content=st.binary(max_size=3000) | st.text('[]{}",:\n\t 01ae', max_size=60).map(str.encode))
def test_any_bytes(suffix, tmp_path, content):
    refused_or_read(put(tmp_path / f"a.{suffix}", content))


words = st.sampled_from(
    [
        "images",
        "annotations",
        "sentences",
        "raw",
        "split",
        "train",
        "test",
        "filename",
        "filepath",
        "file_name",
        "id",
        "image_id",
        "caption",
        "image",
        "0.png",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
entry = st.fixed_dictionaries(
    {},
    optional={
        "id": values,
        "file_name": words | values,
        "filename": words | values,
        "filepath": values,
        "split": words | values,
        "sentences": st.lists(st.fixed_dictionaries({"raw": values})) | values,
    },
)
note = st.fixed_dictionaries({}, optional={"image_id": values, "caption": words | values})
with_images = st.fixed_dictionaries(
    {"images": st.lists(entry, max_size=3)},
    optional={"annotations": st.lists(note, max_size=3) | values},
)
row = st.fixed_dictionaries({}, optional={"image": words | values, "caption": words | values})


@settings(some, max_examples=150)
@given(content=values | with_images | st.lists(row, max_size=3))
def test_json_of_any_other_schema(tmp_path, content):
    put(tmp_path / "0.png", image_file(0))
    refused_or_read(put(tmp_path / "a.json", json.dumps(content)))
    lines = content if isinstance(content, list) else [content]
    refused_or_read(put(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))))


@settings(some, max_examples=150)
@given(
    block=st.sampled_from([0, 2, 4, 6]),
    at=st.sampled_from([0, 100, 124, 136, 156, 157, 257, 345, 483]),
    content=st.binary(max_size=60),
)
def test_tar_headers_of_any_bytes(tmp_path, block, at, content):
    """The checksum is right, so that tarfile believes what the header says."""
    members = {"0.png": image_file(0), "0.txt": "zero", "1.png": image_file(1), "1.txt": "one"}
    whole = bytearray(tar(tmp_path / "a.tar", members).read_bytes())
    header = whole[512 * block : 512 * block + 512]
    header[at : at + len(content)] = content[: 512 - at]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    whole[512 * block : 512 * block + 512] = header
    refused_or_read(put(tmp_path / "a.tar", bytes(whole)))
