"""data/train_log.py: the scores of the validation curve.

python -m pytest tests/data/test_train_log.py
"""

from types import SimpleNamespace

import pytest
import torch

from data import train_log
from data.batches import Batch


def test_scores_of_a_batch_by_hand():
    cosines = torch.tensor([[0.9, 0.5, 0.3], [0.2, 0.8, 0.6], [0.7, 0.4, 0.1]])  # captions, images
    duplicates = torch.eye(3, dtype=torch.bool)
    duplicates[0, 2] = duplicates[2, 0] = True
    made = {"image_features": torch.eye(3), "text_features": cosines}
    model = SimpleNamespace(forward=lambda *batch: made)
    batch = Batch(torch.zeros(3), torch.zeros(3), duplicates, None)

    def loss(duplicates, **features):
        return duplicates.sum()

    scores = train_log.score_batch(model, loss, batch, False)
    # Wrong images of caption 0: 1; of caption 1: 0 and 2; of caption 2: 1. Of the first two images
    # 1, 0 and 1.
    assert scores == pytest.approx(
        {
            "pairs": 3,
            "loss": 5,
            "i2t": 2 / 3,
            "t2i": 1,
            "best_wrong": 0.5,
            "best_wrong_of_half": 0.4,
        }
    )


def test_the_best_entry_is_best_both_ways():
    def merit(i2t, t2i):
        return train_log.merit({"val": {"i2t": i2t, "t2i": t2i, "loss": 1.0}})

    assert merit(0.1, 0.5) > merit(0.2, 0.1) and merit(0.5, 0.1) > merit(0.1, 0.2)
