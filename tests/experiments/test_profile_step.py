"""tests/experiments/profile_step.py: kinds of operations, and its table.

python -m pytest tests/experiments/test_profile_step.py
"""

import pytest
import torch

from tests.experiments import profile_step


def test_operations_are_sorted_by_kind():
    kinds = {
        "aten::mm": "matrix products",
        "aten::mul": "the rest",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward": "attention",
        "aten::native_layer_norm_backward": "norms and activations",
        "aten::linalg_vector_norm": "optimizer",  # the gradient is clipped by it
        "aten::_fused_adamw_": "optimizer",
        "aten::copy_": "copies",
    }
    assert {name: profile_step.kind_of(name) for name in kinds} == kinds


def test_shares_are_those_of_the_step_and_add_up():
    matrix = torch.ones(50, 50)
    found = profile_step.shares(lambda: matrix @ matrix)
    assert sum(found.values()) == pytest.approx(1)
    assert found["matrix products"] > 0 and found["optimizer"] == found["attention"] == 0
    table = profile_step.report({"one": found, "two": found | {"optimizer": 0.126}})
    assert "| operations | one | two |\n|---|---|---|" in table
    assert "| optimizer | 0 % | 13 % |" in table
