"""tests/experiments/few.py: no image is in two splits, and the other table has no test concept.

python -m pytest tests/experiments/test_few.py
"""

import csv
import io
import sys
import tarfile
from pathlib import Path

import pytest

from data.common import BadInput
from tests.experiments import few


def write_tar(path, keys):
    with tarfile.open(path, "w") as tar:
        for key in keys:
            for suffix, content in ((".png", key.encode()), (".txt", f"name of {key}\n".encode())):
                member = tarfile.TarInfo(key + suffix)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def test_tables_of_one_style_and_of_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(few, "COUNTS", {"train": 3, "val": 2, "test": 2})
    monkeypatch.setattr(sys, "argv", ["few", str(tmp_path), str(tmp_path / "few")])
    for split, numbers in (("train", range(5)), ("val", range(5, 8)), ("test", range(8, 11))):
        keys = [f"{style}_{i}" for i in numbers for style in ("noto", "twemoji")]
        write_tar(tmp_path / f"{split}.tar", keys)
    few.main()

    def rows_of(name):
        return list(csv.DictReader(open(tmp_path / "few" / name)))

    mine, others = rows_of("captions.csv"), rows_of("others.csv")
    assert [row["split"] for row in mine] == ["train"] * 3 + ["val"] * 2 + ["test"] * 2
    assert len({row["image"] for row in mine}) == 7
    assert {row["split"] for row in others} == {"train", "val"} and len(others) == 8
    assert all("noto" in row["image"] for row in mine)
    for row in mine + others:
        key = Path(row["image"]).stem
        assert row["caption"] == f"name of {key}"
        assert (tmp_path / "few" / row["image"]).read_text() == key
    # The same again: which ones are taken is drawn with a seed.
    few.main()
    assert rows_of("captions.csv") == mine

    (tmp_path / "val.tar").unlink()
    with pytest.raises(BadInput, match=r"val.tar: no such file; make it with"):
        few.main()
