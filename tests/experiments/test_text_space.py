"""Tests of tests/experiments/text_space.py."""

import sys
from types import SimpleNamespace

import torch

from data.common import exit_status
from data.world import shapes
from tests.experiments import text_space


def test_a_text_side_that_knows_one_wording_has_100_there_and_little_elsewhere(monkeypatch, capsys):
    scenes = [scene for scene in shapes.make_scenes("test", 800) if scene.relations]
    place = {}
    for i, scene in enumerate(scenes):
        place[shapes.caption(scene)] = place[shapes.other_words(scene)["loosely"]] = i

    # Other texts are all alike to it.
    features = torch.eye(len(scenes) + 1)
    run = SimpleNamespace(
        encode_texts=lambda texts: features[[place.get(text, len(scenes)) for text in texts]]
    )
    monkeypatch.setattr(text_space.evaluation, "Run", lambda folder: run)
    monkeypatch.setattr(sys, "argv", ["text_space", "runs/a"])
    assert not exit_status(text_space.main)
    header, _, row = capsys.readouterr().out.splitlines()
    cells = dict(zip(header.split("|")[2:-1], row.split("|")[2:-1], strict=True))
    assert float(cells[" loosely "]) == 100
    assert all(float(cell) < 1 for kind, cell in cells.items() if kind != " loosely ")
