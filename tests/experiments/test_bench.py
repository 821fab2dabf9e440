"""tests/experiments/bench.py at tiny sizes: how it measures, its page, its peers' equal results.

python -m pytest tests/experiments/test_bench.py

The comparisons with peers need requirements-bench.txt, and are skipped without it.
"""

import statistics

import pytest
import torch

from data.common import BadInput
from tests import test_docs
from tests.experiments import bench
from tests.experiments.bench import Measured, Row, Tower

TOWER = Tower("Ti/16", 32, batch=4, text_depth=2, tokens=6, context=6, vocab=50)
NANO = TOWER._replace(model="nano/16")


@pytest.fixture
def scale(tiny_llm_folder):
    return bench.Scale(
        towers=(TOWER,),
        short=3,
        captions=14,
        llm=tiny_llm_folder,
        photos=4,
        images=70,
        thousands=(300, 600),
        texts_read=(10, 20),
        image_sizes=(32, 64),
        batches=(4, 8),
    )


def row_of(ours, theirs, tolerance=None):
    """A row whose two sides are built from these functions."""
    return Row("a work", 10, "images", "a peer", lambda: ours, lambda: theirs, "1.0", tolerance)


# --------------------------------------------------------------------------------------------------
# Measuring.


def test_both_sides_take_turns():
    turns = []
    row = row_of(lambda: turns.append("ours"), lambda: turns.append("theirs"))
    times = bench.take_turns(row, rounds=3, seconds=0)
    assert turns == ["ours", "theirs"] * 4  # the first turn of each does not count
    assert [len(times_of_side) for times_of_side in times] == [3, 3]
    turns.clear()
    assert len(bench.take_turns(row, rounds=1, seconds=0.05)[0]) > 3


def test_results_that_differ_are_refused():
    with pytest.raises(BadInput, match="a work: our result and a peer's differ by 1.0e-02"):
        bench.take_turns(row_of(lambda: 1.01, lambda: 1.0, 1e-3), 1, 0)
    with pytest.raises(BadInput, match="differ by nan"):
        bench.take_turns(row_of(lambda: float("nan"), lambda: 1.0, 1e-3), 1, 0)
    bench.take_turns(row_of(lambda: 1.01, lambda: 1.0, 0.1), 1, 0)
    bench.take_turns(row_of(lambda: 1.01, lambda: 1.0), 1, 0)


def test_memory_is_what_is_built_and_what_the_work_takes_for_a_moment():
    """50 MB of weights and 100 MB for a moment. What was there before, 50 MB, does not count."""
    there_before = torch.ones(12_500_000)

    def build():
        weights = torch.ones(12_500_000)
        torch.ones(75_000_000)  # while it is built: does not count
        return lambda: (weights.sum(), torch.ones(25_000_000).sum() + there_before[0])

    megabytes = bench.in_a_process(lambda: bench.peak_memory(build)) / 1e6
    assert 145 < megabytes < 175


def test_memory_of_workers_counts_without_what_is_shared():
    def build():
        shared = torch.ones(25_000_000)

        def work():
            bench.in_a_process(lambda: (torch.ones(12_500_000) * shared[0]).sum().item())

        return work

    megabytes = bench.in_a_process(lambda: bench.peak_memory(build)) / 1e6
    assert 145 < megabytes < 230  # 100, 50 and maybe 50 more in the worker


def test_what_goes_wrong_in_a_measurement_ends_the_program_with_one_line(capfd):
    assert bench.in_a_process(lambda: 7) == 7
    with pytest.raises(BadInput, match="--rounds must be at least 1"):
        bench.in_a_process(lambda: bench.command_line(["--rounds", "0"]))
    assert not capfd.readouterr().err
    with pytest.raises(BadInput, match="a measurement failed"):
        bench.in_a_process(lambda: 1 / 0)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_exponents_by_hand():
    assert bench.exponent([1, 10, 100], [3, 3, 3]) == pytest.approx(0)
    assert bench.exponent([2, 4, 8], [4, 16, 64]) == pytest.approx(2)


# --------------------------------------------------------------------------------------------------
# The pieces of work.


def test_what_each_side_of_ours_does(scale, tmp_path, monkeypatch):
    """The sides that need no peer: they run, and do as much as their rows say."""
    assert 0 < bench.our_step("lift", NANO)() < 5
    texts = bench.caption_texts(scale.captions)
    assert len(set(texts)) == 14 and max(map(len, texts)) > 2 * min(map(len, texts))
    assert bench.our_reading(scale, torch.float32)().shape == (14, 32)
    for i in range(2):
        bench.write_photos(tmp_path / str(i), 2)
    assert bench.our_packing(tmp_path)() == bench.our_batches(tmp_path)() == 4
    one, ten = bench.our_retrieval(70)()[:2], bench.our_retrieval(70)()[-2:]
    assert all(0 < a < b < 1 or b == 1 for a, b in zip(one, ten, strict=True))


def test_steps_learn():
    for method in ("clip", "lift"):
        step = bench.our_step(method, NANO)
        losses = [step() for _ in range(10)]
        assert losses[-1] < 0.9 * losses[0], method


def test_growths(scale, monkeypatch):
    monkeypatch.setattr(bench, "in_a_process", lambda work: work())
    monkeypatch.setattr(bench, "peak_memory", lambda build: build().__code__ and 10)
    grown = [
        bench.measure_growth(growth) for growth in bench.growths(scale._replace(towers=(NANO,)))
    ]
    assert all(len(times) == 2 and min(times) > 0 for _, times, _ in grown)
    row = bench.table_of_growth([grown[0]._replace(times=[1, 2], memory=[10**9, 4 * 10**9])])[-1]
    assert row == "| captions, grouped, as tokens | 300, 600 | 1, 2 | 1.00, 4.00 | 1.00, 2.00 |"


def test_operations_are_those_of_both_towers():
    """CLIP's step costs what LIFT's image side does, a class token more, and its text tower."""
    image_side, both = bench.operations("lift", NANO), bench.operations("clip", NANO)
    # Three passes of matrix products: of each token 12 D^2 in a block, two operations each. The
    # heads differ a little.
    blocks_passed = NANO.tokens * NANO.text_depth + 1 * 4
    assert both - image_side == pytest.approx(3 * 2 * blocks_passed * 12 * 128**2, rel=0.15)


# --------------------------------------------------------------------------------------------------
# The page.


def test_the_page_has_small_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "version", lambda package: "1.2.3")
    rows = [
        Measured(row_of(None, None), [2.0, 1.0, 4.0], [3.0, 3.0, 2.0], 1_500_000_000, 20_000_000)
    ]
    growth = bench.Growth("a work", (1000, 10_000), None)
    grown = [bench.Grown(growth, [0.1, 1.0], [10_000_000, 10_000_000])]
    lines = bench.page(
        dict.fromkeys(bench.ROWS, rows), grown, ["rows vit: no timm: pip install timm"]
    )
    assert "| a work | 5 images | 3.33 images | 1.50 (0.50 to 3.00) | 1.50, 0.02 |" in lines
    assert "| a work | a peer | 3 | 1.50 | 1.0 |" in lines
    assert "| a work | 1k, 10k | 0.1, 1 | 0.01, 0.01 | 1.00, 0.00 |" in lines
    assert "- rows vit: no timm: pip install timm" in lines
    file = tmp_path / "bench.md"
    file.write_text("\n".join(lines))
    test_docs.test_tables_are_small_and_lines_short(file)


def test_cells_of_the_real_rows_are_short(scale):
    towers = bench.FULL.towers
    names = [row.work for row in bench.clip_rows(bench.FULL, None)]
    names += [row.work for row in bench.vit_rows(bench.FULL, None)]
    names += [row.work for row in bench.retrieval_rows(bench.FULL, None)]
    names += [row.work for row in bench.caption_rows(scale, None)]
    names += [growth.work for growth in bench.growths(scale._replace(towers=towers))]
    assert len(names) == len(set(names)) and max(map(len, names)) <= 40
    assert bench.ROWS.keys() == bench.SECTIONS.keys() == bench.NEEDS.keys() - {"growth"}


def test_a_missing_peer_is_named_with_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(bench.NEEDS, "vit", ("no_such_package",))
    monkeypatch.setitem(bench.PEERS, "no_such_package", "timm")
    lines = bench.on_cpu(["vit"], bench.FULL, 1, 0)
    reason = "rows vit: no_such_package cannot be imported (No module named 'no_such_package'): "
    reason += f"pip install timm=={bench.pinned('timm')}"
    assert capsys.readouterr().out.splitlines() == [reason]
    assert lines[-1] == f"- {reason}"
    assert all(bench.pinned(package) for package in bench.PEERS.values())


def test_wrong_flags():
    with pytest.raises(BadInput, match="--rows none: there is no such row; choose of clip"):
        bench.command_line(["--rows", "clip,none"])
    with pytest.raises(BadInput, match="--rounds must be at least 1"):
        bench.command_line(["--rounds", "0"])


def test_the_page_of_a_gpu_on_a_cpu(monkeypatch, capsys):
    """The same code path. One step takes its operations divided by its time and by the peak."""
    monkeypatch.setattr(bench, "in_a_process", lambda work: work())
    calls = []
    operations, our_step = bench.operations, bench.our_step
    monkeypatch.setattr(
        bench, "operations", lambda *args: calls.append("operations") or operations(*args)
    )
    monkeypatch.setattr(bench, "our_step", lambda *args: calls.append("step") or our_step(*args))
    lines = bench.on_gpu("cpu", (NANO,), rounds=1, peak=1e-3)
    # After a backward pass on a GPU the process cannot be copied, and operations are counted in
    # a copy.
    assert calls == 2 * ["operations", "step"]
    assert [line.split(" | ")[0] for line in lines[-2:]] == [
        "| LIFT step, nano/16, 32 pixels",
        "| CLIP step, nano/16, 32 pixels",
    ]
    assert len(capsys.readouterr().out.splitlines()) == 2
    step = bench.GpuStep("a step", 4, 0.5, 2 * 10**9, 10**9)
    assert bench.gpu_page([step], "a GPU", 0.02)[-1] == "| a step | 4 | 8 | 2.0 | 10.0% |"
    assert bench.peak_tflops("NVIDIA A100-SXM4-80GB") == 312
    with pytest.raises(BadInput, match="the peak of NVIDIA T4 is not in the table; give its"):
        bench.peak_tflops("NVIDIA T4")


# --------------------------------------------------------------------------------------------------
# Peers.


@pytest.mark.reference
@pytest.mark.parametrize("name", bench.ROWS)
def test_a_peer_gives_the_same_results(name, scale, tmp_path):
    """take_turns compares them. LIFT's step has no twin: its row only runs."""
    for module in bench.NEEDS[name]:
        pytest.importorskip(module)
    rows = bench.ROWS[name](scale, tmp_path)
    for row in rows:
        assert (row.tolerance is None) == (name == "lift")
        ours, theirs = bench.take_turns(row, rounds=1, seconds=0)
        assert statistics.median(ours) > 0 < statistics.median(theirs)


@pytest.mark.reference
def test_open_clip_goes_the_same_way_for_several_steps():
    """Without the clipping of the gradient, which only ours does."""
    pytest.importorskip("open_clip")
    ours, theirs = bench.our_step("clip", TOWER, clips=False), bench.open_clip_step(TOWER)
    for _ in range(5):
        assert ours() == pytest.approx(theirs(), rel=1e-3)
    count = [sum(p.numel() for p in model.parameters()) for model in both_models()]
    assert count[0] - count[1] == 192  # the bias of our patches


def both_models():
    return bench.our_model("clip", TOWER), bench.open_clip_model(TOWER)
