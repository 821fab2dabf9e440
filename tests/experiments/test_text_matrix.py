"""tests/experiments/text_matrix.py and all_facts.py: the controls are what they say.

python -m pytest tests/experiments/test_text_matrix.py
"""

import re
import sys
from dataclasses import replace

import pytest
import torch

import lift
from data.common import BadInput
from data.world.shapes import make_scenes, swap
from tests.experiments import all_facts, text_matrix


def test_the_rows_change_one_thing_each():
    rows = text_matrix.rows()
    method, clip = lift.METHODS["lift"], lift.METHODS["clip"]
    for name in ("lift_trained", "lift_identity"):
        row = rows[name]
        assert row.trains == (*method.trains, "text_head")
        assert replace(row, trains=method.trains, text_head=method.text_head) == method
    solved = rows["clip_ridge"]
    assert solved.trains == () and solved.image == "run"
    head = solved.text_head(4, 3)
    assert (head.share, head.weight.shape) == (lift.text_ridge(3, 3).share, (3, 4))
    changes = {name: getattr(clip, name) for name in ("trains", "image", "text_head")}
    assert replace(solved, **changes) == clip


def test_the_matrix_that_begins_as_the_identity_changes_nothing_at_first():
    x = torch.randn(5, 4)
    head = text_matrix.FromIdentity(4, 4)
    assert torch.equal(head(x), x)
    assert [tuple(p.shape) for p in head.parameters()] == [(4, 4)] and head.weight.requires_grad


def test_another_program_is_told(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["text_matrix", "tune"])
    with pytest.raises(BadInput, match=re.escape("train|eval")):
        text_matrix.main()


def test_a_description_holds_every_fact():
    scene = next(scene for scene in make_scenes("val", 20) if len(scene.things) == 2)
    described = all_facts.describe(scene, 25)
    ground = "grass" if scene.background != "grass" else "sand"
    edited = [replace(scene, background=ground)]
    edited += [swap(scene, 0, attribute) for attribute in ("colour", "shape", "size")]
    edited.append(
        replace(scene, relations=("above" if "above" not in scene.relations else "below",))
    )
    for other in edited:
        assert other != scene
        assert abs(all_facts.describe(other, 25) - described).max() > 0.01
