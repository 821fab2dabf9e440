"""tests/experiments/colour_words.py: the question and the guess.

python -m pytest tests/experiments/test_colour_words.py
"""

import pytest
import torch

from tests.experiments.colour_words import guess, right_of_two


def test_a_word_is_right_if_its_guess_is_the_nearer_one():
    colours = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0]]).double()
    assert right_of_two(colours, colours) == 1
    assert right_of_two(colours.roll(1, 0), colours) == pytest.approx(2 / 6)
    # Equal guesses are a tie, and a tie is wrong.
    assert right_of_two(torch.zeros(3, 3).double(), colours) == 0


def test_the_guess_is_that_of_ridge_regression():
    generator = torch.Generator().manual_seed(0)
    known, new = torch.randn(20, 6, generator=generator).double(), torch.ones(2, 6).double()
    matrix, offset = torch.randn(6, 3, generator=generator).double(), torch.ones(3).double()
    # What is linear is found exactly, but for the penalty.
    assert torch.allclose(
        guess(known, known @ matrix + offset, new, 1e-9), new @ matrix + offset, atol=1e-6
    )
    # By the other form of the same solution, (X^T X + a I)^-1 X^T y.
    colours = torch.randn(20, 3, generator=generator).double()
    x, mean = known - known.mean(0), known.mean(0)
    a = 0.3 * (x @ x.T).diagonal().mean()
    weights = torch.linalg.solve(x.T @ x + a * torch.eye(6), x.T @ (colours - colours.mean(0)))
    expected = (new - mean) @ weights + colours.mean(0)
    assert torch.allclose(guess(known, colours, new, 0.3), expected)
