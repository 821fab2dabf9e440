"""tests/experiments/scale.py and rehearsal.py: the formulas, and that the checks find mistakes.

python -m pytest tests/experiments/test_scale.py
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import lift
from data.common import BadInput
from data.files.llm import read_llm
from data.vectors import VectorStore, key_of
from tests.experiments import flops, rehearsal, scale
from tests.test_docs import ROOT, read_page, tables_of
from tests.tiny_llm import write_tiny_llm

LOG = (ROOT / "docs/results/scale.md").read_text()


def test_hours_and_bytes_are_those_worked_out_by_hand():
    # 10 TFLOP/s at half of it: 5e12 * 3600 operations take an hour.
    assert scale.hours(5e12 * 3600, tflops=10, mfu=0.5) == 1
    assert scale.SCALES["LIFT"].samples == 1.278e9
    # Two processes in a ring: each sends half of every sum twice, and half of all features.
    assert scale.exchanged_bytes(2, n_trained=100, batch=8, width=3) == 4 * 100 + 4 * 8 * 3
    assert scale.exchanged_bytes(1, n_trained=100, batch=8, width=3) == 0
    assert scale.fixed_bytes(100, batch=8, width=3, saved_per_pair=9) == 1600 + 384 + 576


def test_a_record_has_the_size_of_the_cache_s(tmp_path):
    for width in (576, 4096):
        store = VectorStore(tmp_path / "x", (width,), np.float16)
        assert store.record.itemsize == scale.record_bytes(width)
    assert scale.record_bytes(rehearsal.WIDTH) == rehearsal.RECORD


def test_operations_of_a_language_model_are_those_of_its_blocks():
    config = replace(scale.LLMS["SmolLM2-135M, 10 blocks"], depth=3)
    assert scale.reading(config, 18) == flops.reading(config, 18) > 0


def test_operations_of_the_loss_are_those_that_torch_counts():
    features = [torch.randn(6, 5, requires_grad=True) for _ in range(2)]
    with FlopCounterMode(display=False) as counter:
        lift.info_nce(*features, torch.tensor(14.0)).backward()
    assert counter.get_total_flops() == scale.loss_operations(6, 5)


def test_what_the_backward_pass_needs_is_counted_once():
    x = torch.randn(3, 4, requires_grad=True)
    assert scale.saved_bytes(lambda: x.exp()) == 4 * 12  # its result
    assert scale.saved_bytes(lambda: x.exp() * x) == 8 * 12  # the result, for both, and x
    assert scale.saved_bytes(lambda: x + 1) == 0
    # The softmax of both directions, and the mask of duplicates.
    assert 9 <= scale.bytes_per_pair(128) < 9.5


def test_bytes_of_an_image_are_those_of_its_batch():
    sizes = lift.Sizes(model="micro/8", image_size=16)
    one = scale.bytes_per_image(sizes, 8, bf16=False)
    # 4 patches of width 128 in float32; each block keeps a few dozen such arrays.
    assert 4 * 128 * 4 * 20 < one < 4 * 128 * 4 * 1000
    assert scale.bytes_per_image(sizes, 8, bf16=True) < 0.8 * one


def test_a_rate_without_a_log_is_told():
    assert scale.rates()["seconds for them"] == 40
    with pytest.raises(BadInput, match="demo.log has no line like"):
        scale.logged("demo.log", r"no such (\d+)")


def test_rounding_to_8_bits_is_off_by_half_a_step_at_most():
    vectors = torch.randn(5, 64) * torch.tensor([1, 10, 100, 1e3, 1e4])[:, None]
    rounded = scale.to_int8_and_back(vectors)
    step = vectors.abs().amax(1, keepdim=True) / 127
    assert ((rounded - vectors).abs() <= step / 2 * 1.001).all()
    assert not torch.equal(rounded, vectors)
    assert all(len(row.unique()) <= 255 for row in rounded)


def test_the_log_is_what_the_program_computes(monkeypatch, capsys):
    """All that is computed and not measured: the tables before that of memory."""
    monkeypatch.setattr(scale, "bytes_per_image", lambda *_: 66e6)
    monkeypatch.setattr(scale, "seconds_per_batch", lambda _: 1.0)
    scale.calculate(mfu=0.4, network=12.5)
    computed = capsys.readouterr().out.split("## Memory of a batch")[0].strip()
    assert "## Bytes" in computed and computed in LOG


def test_the_tables_of_the_page_are_the_log_s():
    rows = [row for table in tables_of(LOG.splitlines()) for row in table]
    shown = tables_of(read_page(ROOT / "docs/scale.md").prose)
    assert len(shown) >= 6
    for table in shown:
        if table[0][0] != "this project":
            assert all(row in rows for row in table[1:]), table[0]


# --------------------------------------------------------------------------------------------------
# The rehearsal.


def test_a_word_is_one_token_of_the_random_model(tmp_path):
    merges = rehearsal.merges_of(["a", "star", "striped"])
    _, tokenizer, _ = read_llm(write_tiny_llm(tmp_path, 1, 64, merges))
    # The tokenizer puts a blank before the first word. "b" is no word here: two bytes.
    lists, _ = tokenizer.encode_all(["a star", "striped", "b striped a", "st"], "")
    assert [len(ids) for ids in lists] == [2, 1, 4, 1]


def stored(path, keys, numbers):
    """A file of records, as CaptionVectors has one."""
    store = VectorStore(path, (2,), np.float16)
    records = np.zeros(len(keys), store.record)
    records["key"] = np.array([key_of(key) for key in keys], "V15")
    records["vector"] = np.array(numbers)[:, None]
    path.write_bytes(records.tobytes())
    return SimpleNamespace(store=store)


@pytest.mark.parametrize(
    "keys, numbers, problem",
    [
        ("abc", (1, 2, 3), None),
        ("cab", (3, 1, 2), None),
        ("ab", (1, 2), "2 records for 3 captions"),
        ("abb", (1, 2, 2), "1 captions were read twice"),
        ("abd", (1, 2, 3), "'c' is missing"),
        ("abc", (1, 2, 4), "'c' has another record"),
    ],
)
def test_a_file_that_two_processes_made_is_compared(tmp_path, keys, numbers, problem):
    here = stored(tmp_path / "here", "ac", (1, 3))
    two = stored(tmp_path / "two", keys, numbers)
    if problem is None:
        rehearsal.compare(two, here, list("abc"), ["a", "c"])
    else:
        with pytest.raises(BadInput, match=problem):
            rehearsal.compare(two, here, list("abc"), ["a", "c"])
