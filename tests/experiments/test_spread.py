"""tests/experiments/spread.py: means and deviations by hand."""

import json

import pytest

from data.common import BadInput
from tests.experiments.spread import spread


def test_runs_of_one_name_are_one_column(tmp_path):
    for name, value in (("lift-0", 0.5), ("lift-1", 0.7), ("clip-0", 0.25)):
        (tmp_path / name).mkdir()
        scores = {"retrieval": {"i2t": value}, "chance": {"retrieval": {"i2t": 0.1}}}
        (tmp_path / name / "eval.json").write_text(json.dumps(scores))
    folders = [str(tmp_path / name) for name in ("lift-0", "clip-0", "lift-1")]
    head, _, row = spread(folders).splitlines()
    assert head == "| score, in % | lift, 2 seeds | clip, 1 seeds |"
    # The deviation of 50 and 70 is 20 / sqrt(2).
    assert row == "| retrieval i2t | 60.0 ± 14.1 | 25.0 ± nan |"
    for folder, words in (("lift-2", "no such file"), ("other", "no such file")):
        with pytest.raises(BadInput, match=words):
            spread([str(tmp_path / folder)])
    for content, words in (("{", "eval.json"), ("{}", "eval.json"), ('{"chance": {}}', "other")):
        (tmp_path / "lift-0" / "eval.json").write_text(content)
        with pytest.raises(BadInput, match=words):
            spread(folders)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "eval.json").write_text("{}")
    with pytest.raises(BadInput, match="must end in a hyphen"):
        spread([str(tmp_path / "other")])
