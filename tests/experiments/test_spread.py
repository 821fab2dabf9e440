"""tests/experiments/spread.py: means and deviations by hand."""

import json

import pytest

from data.common import BadInput
from tests.experiments.spread import spread


def write(folder, value, n_images=80):
    folder.mkdir(parents=True, exist_ok=True)
    scores = {"retrieval": {"i2t": value}, "chance": {"retrieval": {"i2t": 0.1}}}
    scores |= {"data": "shapes", "counts": {"images": n_images}}
    (folder / "eval.json").write_text(json.dumps(scores))


def test_runs_of_one_name_are_one_column(tmp_path):
    for name, value in (("lift-0", 0.5), ("lift-1", 0.7), ("clip-0", 0.25)):
        write(tmp_path / name, value)
    folders = [str(tmp_path / name) for name in ("lift-0", "clip-0", "lift-1")]
    head, _, row = spread(folders).splitlines()
    assert head == "| score, in % | lift, 2 seeds | clip, 1 seeds |"
    # The deviation of 50 and 70 is 20 / sqrt(2).
    assert row == "| retrieval i2t | 60.0 ± 14.1 | 25.0 ± nan |"
    for folder, words in (("lift-2", "no such file"), ("other", "no such file")):
        with pytest.raises(BadInput, match=words):
            spread([str(tmp_path / folder)])
    for content in ("{", "{}", '{"chance": {}}'):
        (tmp_path / "lift-0" / "eval.json").write_text(content)
        with pytest.raises(BadInput, match="eval.json"):
            spread(folders)
    for value in (None, "0.5"):
        write(tmp_path / "lift-0", value)
        with pytest.raises(BadInput, match="lift-0/eval.json"):
            spread(folders)
    # Twice the same run, and runs that were asked about other images, make no mean.
    write(tmp_path / "more" / "lift-1", 0.7)
    with pytest.raises(BadInput, match="another run called lift with this seed"):
        spread([*folders[1:], str(tmp_path / "more" / "lift-1")])
    write(tmp_path / "lift-0", 0.5, n_images=16)
    with pytest.raises(BadInput, match="other images than those of the first run called lift"):
        spread(folders)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "eval.json").write_text("{}")
    with pytest.raises(BadInput, match="must end in a hyphen"):
        spread([str(tmp_path / "other")])
