"""A cache for each test, and what packing needs: a table with unusable images, a stopped pack."""

import os

import pytest

from data.common import BadInput
from data.images import pack
from data.images.read import read_images
from tests.data.images.example_data import contents, image_file, put


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path_factory.mktemp("cache")))
    # No test pulls the plug, and a disk takes its time for each fsync.
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A table of 11 images, of which 3 cannot be read, and a row without a caption.

    It has three points from which packing can go on.
    """
    monkeypatch.setattr(pack, "CHUNK", 4)
    rows = ["image,caption"]
    for i in range(12):
        put(tmp_path / f"in/{i}.png", b"no image" if i in (1, 9) else image_file(i))
        rows.append(f"{i}.png," if i == 3 else f"{i}.png,it is {i}")
    (tmp_path / "in/5.png").unlink()
    return str(put(tmp_path / "in/a.csv", "\n".join(rows) + "\n"))


@pytest.fixture
def stopped(many, tmp_path, monkeypatch):
    """(specification, a folder as it is one moment before the end, the finished folder's bytes)."""

    def stop(*paths):
        raise KeyboardInterrupt

    pack.pack(many, tmp_path / "whole", 8)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", stop)
        pack.pack(many, tmp_path / "stopped", 8)
    message = "packing was not finished; run python -m data.images.pack again"
    with pytest.raises(BadInput, match=message):
        read_images(str(tmp_path / "stopped"), "train", 8)
    return many, tmp_path / "stopped", contents(tmp_path / "whole")
