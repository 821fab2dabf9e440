"""Tuning in llm_text.py: LoRA against PEFT, two-way attention against transformers, loss and
caption retrieval accuracy by hand, and that it teaches to tell captions apart.

python -m pytest tests/test_tune.py
"""

import hashlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import lift
import llm_text
from data.captions import Related
from data.common import BadInput
from data.files.llm import read_adapter, write_adapter
from data.files.tensors import read_safetensors, write_safetensors
from data.texts import read_texts
from data.vectors import CaptionVectors
from data.world import shapes

TEXTS = ["a red circle", "a large blue square left of a small star", "x"]


@pytest.fixture
def llm(tiny_llm_folder):
    return llm_text.load_llm(tiny_llm_folder)


@pytest.fixture
def adapter(llm, tmp_path):
    """An adapter file whose every number is random, for the first block or for both."""

    def make(layer=2, bidirectional=False, rank=3, alpha=6):
        loras = llm_text.add_lora(llm, rank, alpha, layer)
        weights = [w for lora in loras.values() for w in (lora.lora_A.weight, lora.lora_B.weight)]
        for i, weight in enumerate(weights):
            torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(i))
        llm.model.bidirectional = bidirectional
        path = tmp_path / "adapter.safetensors"
        write_adapter(path, llm_text.adapter_of(llm, loras, layer))
        return path

    return make


def hf(folder):
    """The same model in transformers."""
    transformers = pytest.importorskip("transformers")
    load_file = pytest.importorskip("safetensors.torch").load_file
    config = transformers.LlamaConfig(**json.loads((folder / "config.json").read_text()))
    model = transformers.LlamaModel(config).float().eval()
    state = load_file(folder / "model.safetensors")
    model.load_state_dict({k.removeprefix("model."): v for k, v in state.items()})
    return model


def test_fresh_lora_changes_nothing_and_covers_every_linear_layer(llm):
    before = llm.encode(TEXTS, layer=2)
    loras = llm_text.add_lora(llm, 4, 8, 1)
    assert torch.equal(llm.encode(TEXTS, layer=2), before)
    assert sorted(loras) == sorted(
        f"layers.0.{part}_proj"
        for part in (
            "self_attn.q",
            "self_attn.k",
            "self_attn.v",
            "self_attn.o",
            "mlp.gate",
            "mlp.up",
            "mlp.down",
        )
    )
    trained = {n for n, p in llm.named_parameters() if p.requires_grad}
    assert trained == {f"model.{n}.lora_{x}.weight" for n in loras for x in "AB"}


def test_lora_by_hand():
    lora = llm_text.LoRA(torch.nn.Linear(3, 4), rank=2, alpha=6)
    torch.nn.init.normal_(lora.lora_B.weight)
    A, B, x = lora.lora_A.weight, lora.lora_B.weight, torch.randn(5, 3)
    wanted = x @ lora.linear.weight.T + lora.linear.bias + 6 / 2 * x @ (B @ A).T
    assert torch.allclose(lora(x), wanted, atol=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_merged_equals_unmerged(tiny_llm_folder, llm, adapter, bidirectional):
    plain = llm.encode(TEXTS, layer=2)
    path = adapter(bidirectional=bidirectional)
    unmerged = llm.encode(TEXTS, layer=2)  # `llm` carries its LoRA
    merged = llm_text.load_llm(tiny_llm_folder, adapter=path)
    assert not any(isinstance(m, llm_text.LoRA) for m in merged.modules())
    assert torch.allclose(merged.encode(TEXTS, layer=2), unmerged, atol=1e-4)
    assert not torch.allclose(unmerged, plain, atol=0.1)
    half = llm_text.load_llm(tiny_llm_folder, dtype=torch.bfloat16, adapter=path)
    assert F.cosine_similarity(half.encode(TEXTS, layer=2), unmerged).min() > 0.999


@pytest.mark.reference
def test_adapter_files_are_peft_files(tiny_llm_folder, adapter):
    """PEFT reads our file into its own LoRA on transformers' model, with the same hidden states."""
    peft = pytest.importorskip("peft")
    load_file = pytest.importorskip("safetensors.torch").load_file
    path = adapter(rank=3, alpha=6)
    config = peft.LoraConfig(
        r=3,
        lora_alpha=6,
        target_modules=[
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ],
    )
    theirs = peft.get_peft_model(hf(tiny_llm_folder), config).eval()
    # Made on a LlamaModel, PEFT's names lack one "model.".
    state = {
        k.replace("base_model.model.model.", "base_model.model."): v
        for k, v in load_file(path).items()
    }
    result = peft.set_peft_model_state_dict(theirs, state)
    assert not result.unexpected_keys
    ours = llm_text.load_llm(tiny_llm_folder, adapter=path)
    ids, mask = ours.tokenize(TEXTS[1:2])
    with torch.no_grad():
        assert torch.allclose(ours(ids, mask), theirs(ids).last_hidden_state, atol=1e-4)


@pytest.mark.reference
def test_two_way_attention_equals_transformers(tiny_llm_folder, llm):
    """Every token sees the whole caption and no padding."""
    llm.model.bidirectional = True
    ids, mask = llm.tokenize(TEXTS)
    seen = torch.where(mask[:, None, None, :], 0.0, -torch.inf).expand(-1, 1, ids.shape[1], -1)
    with torch.no_grad():
        theirs = hf(tiny_llm_folder)(
            ids, attention_mask=seen, position_ids=torch.arange(ids.shape[1])[None]
        ).last_hidden_state
    assert torch.allclose(llm(ids, mask)[mask], theirs[mask], atol=1e-4)
    one_way = llm_text.load_llm(tiny_llm_folder)(ids, mask)
    assert not torch.allclose(llm(ids, mask)[mask], one_way[mask], atol=1e-2)
    alone = llm.encode(TEXTS[:1])  # padding is not seen either
    assert torch.allclose(llm.encode(TEXTS)[:1], alone, atol=1e-5)


def test_fingerprint_of_the_cache_changes_with_the_adapter(tiny_llm_folder, adapter, tmp_path):
    path = adapter()
    llms = [llm_text.load_llm(tiny_llm_folder, adapter=a) for a in (None, path)]
    caches = [CaptionVectors(x, folder=tmp_path / "cache") for x in llms]
    assert caches[0].fingerprint != caches[1].fingerprint
    assert torch.allclose(caches[1](TEXTS).float(), llms[1].encode(TEXTS), atol=1e-2)
    llms[0].model.bidirectional = True
    assert CaptionVectors(llms[0], folder=tmp_path / "cache").fingerprint != caches[0].fingerprint


def test_bad_adapters_are_one_line(tiny_llm_folder, adapter, tmp_path):
    path = adapter()
    meta, stored = read_safetensors(path)
    tensors = {n: t.decode() for n, t in stored.items()}
    some = "base_model.model.model.layers.0.mlp.up_proj.lora_"
    wrong = [
        ({}, {"llm": "x"}, "another language model"),
        ({some + "A.weight": None}, {}, "lora_A"),
        ({"extra.weight": torch.ones(1)}, {}, ""),
        ({some + "A.weight": torch.full((3, 32), math.nan)}, {}, "not finite"),
        ({some + "B.weight": torch.ones(3, 3)}, {}, ""),
        ({}, {"bidirectional": "maybe"}, ""),
        ({}, {"layer": "3"}, "block 3 does not exist"),
        ({some.replace("up", "upp") + "A.weight": torch.ones(3, 32)}, {}, ""),
    ]
    for change, more, says in wrong:
        content = {n: t for n, t in {**tensors, **change}.items() if t is not None}
        write_safetensors(tmp_path / "bad.safetensors", content, {**meta, **more})
        with pytest.raises(BadInput, match=f"bad.safetensors: .*{says}"):
            llm_text.load_llm(tiny_llm_folder, adapter=tmp_path / "bad.safetensors")
    with pytest.raises(BadInput, match="nowhere: no such file"):
        llm_text.load_llm(tiny_llm_folder, adapter="nowhere")


def test_an_adapter_is_read_where_it_was_tuned(tiny_llm_folder, adapter):
    tuned = llm_text.load_llm(tiny_llm_folder, adapter=adapter(layer=1))
    assert [
        tuned.pool_layer(pool, layer)
        for pool, layer in (("mean", None), ("last", None), ("tokens", None), ("mean", 1))
    ] == [1] * 4
    with pytest.raises(BadInput, match="read after block 1, not 2"):
        tuned.encode(TEXTS, layer=2)


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("pool", ["mean", "last"])
def test_leaving_blocks_out_changes_no_vector(
    pool, tuned, tiny_llm_folder, adapter, tmp_path, monkeypatch
):
    """Alone, mean pooling reads block 1 of 2, and the last token block 2. The adapter is of 2."""
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))
    path = str(adapter()) if tuned else ""
    source = llm_text.TextSource(str(tiny_llm_folder), path, llm_dtype="float32", pool=pool)
    whole = llm_text.load_llm(tiny_llm_folder, adapter=path)
    reader = llm_text.text_reader("vectors", source, "cpu")
    n_blocks = 1 if pool == "mean" and not tuned else 2
    assert len(reader.llm.model.layers) == n_blocks
    assert torch.equal(reader(TEXTS), whole.encode(TEXTS, pool).half())

    live = lift.live_llama(source)
    assert len(live.layers) == (2 if tuned else 1)
    wanted = whole.model.state_dict()
    assert all(torch.equal(weight, wanted[name]) for name, weight in live.state_dict().items())


@pytest.mark.reference
def test_written_safetensors_equal_the_library(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    tensors = {"a": torch.randn(3, 4), "scalar": torch.tensor(2.0), "empty": torch.zeros(0, 2)}
    write_safetensors(tmp_path / "x.safetensors", tensors, {"key": "värde"})
    with safetensors.safe_open(tmp_path / "x.safetensors", "pt") as f:
        assert f.metadata() == {"key": "värde"} and set(f.keys()) == set(tensors)
        assert all(torch.equal(f.get_tensor(n), t) for n, t in tensors.items())
    meta, stored = read_safetensors(tmp_path / "x.safetensors")
    assert meta == {"key": "värde"}
    assert all(torch.equal(stored[n].decode(), t) for n, t in tensors.items())


def related(captions):
    """One Related per list of captions that belong together."""
    return [Related(tuple(texts), frozenset(texts)) for texts in captions]


def log_sum_exp(logits):
    return math.log(sum(math.exp(logit) for logit in logits))


def test_caption_loss_is_one_way_with_scale_50():
    angles = torch.tensor([[0.0, 0.2, 0.4], [0.1, 0.15, 0.9]])
    first, second = torch.stack([angles.cos(), angles.sin()], dim=2)  # (3, 2) each
    wanted = 0.0
    for i in range(3):
        logits = [50 * (first[i] @ second[j]).item() for j in range(3)]
        wanted += (log_sum_exp(logits) - logits[i]) / 3
    assert llm_text.caption_loss(first, second).item() == pytest.approx(wanted, rel=1e-5)
    assert llm_text.caption_loss(second, first).item() != pytest.approx(wanted, rel=1e-2)


def test_captions_that_belong_together_too_are_no_negatives():
    first, second = (
        F.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(i)), dim=1)
        for i in (0, 1)
    )
    second[2] = first[0]
    duplicates = torch.zeros(3, 3, dtype=torch.bool)
    duplicates[0, 2] = duplicates[1, 1] = True
    logits = (50 * first @ second.T).tolist()
    wanted = 0.0
    for i, kept in enumerate([[0, 1], [0, 1, 2], [0, 1, 2]]):
        wanted += (log_sum_exp(logits[i][j] for j in kept) - logits[i][i]) / 3
    loss = llm_text.caption_loss(first, second, duplicates).item()
    assert loss == pytest.approx(wanted, rel=1e-4)
    assert llm_text.caption_loss(first, second).item() > wanted + 0.1


def test_hard_negatives_are_columns_of_every_row():
    """Loss and gradient against a softmax in plain numbers. The second hard one fits row 0."""
    generator = torch.Generator().manual_seed(0)
    first, second, hard = (
        F.normalize(torch.randn(n, 4, generator=generator, dtype=torch.float64), dim=1)
        for n in (3, 3, 2)
    )
    duplicates = torch.zeros(3, 5, dtype=torch.bool)
    duplicates[0, 4] = duplicates[2, 1] = True
    first.requires_grad_()
    loss = llm_text.caption_loss(first, torch.cat([second, hard]), duplicates)
    loss.backward()

    columns = [*second.tolist(), *hard.tolist()]
    wanted, gradient = 0.0, []
    for i, kept in enumerate([[0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 2, 3, 4]]):
        row = first[i].tolist()
        logits = {j: 50 * sum(a * b for a, b in zip(row, columns[j], strict=True)) for j in kept}
        total = log_sum_exp(logits.values())
        wanted += (total - logits[i]) / 3
        # d loss / d a_i = s/3 (sum_j p_j b_j - b_i)
        share = {j: math.exp(logit - total) - (i == j) for j, logit in logits.items()}
        gradient.append([50 / 3 * sum(share[j] * columns[j][k] for j in kept) for k in range(4)])
    assert loss.item() == pytest.approx(wanted, rel=1e-9)
    assert torch.allclose(first.grad, torch.tensor(gradient, dtype=torch.float64), rtol=1e-9)


def test_caption_retrieval_by_hand():
    first = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    # The third is nearest to the first caption.
    second = torch.tensor([[5.0, 1.0], [0.1, 0.2], [1.0, 0.1]])
    assert llm_text.caption_retrieval(first, second) == pytest.approx(1 / 3)
    assert llm_text.caption_retrieval(first, first) == 1.0
    assert llm_text.caption_retrieval(torch.ones(4, 2), torch.ones(4, 2)) == 0.0  # ties are wrong
    assert llm_text.caption_retrieval(torch.full((4, 2), math.nan), torch.ones(4, 2)) == 0.0


def test_pairs_are_drawn_with_all_that_belongs_together():
    captions = [("a", "b", "c"), ("b", "d"), ("e", "f"), ("a", "e")]
    rng, drawn_pairs = np.random.default_rng(0), set()
    for _ in range(200):
        first, second, duplicates = llm_text.draw_pairs([related(captions)], 3, rng)
        assert len(first) == len(second) == 3 and duplicates.shape == (3, 3)
        owners = [
            [set(own) for own in captions if {a, b} <= set(own)]
            for a, b in zip(first, second, strict=True)
        ]
        assert all(len(own) == 1 for own in owners)  # two captions of one image
        for i in range(3):
            assert first[i] != second[i]
            for j in range(3):
                together = second[j] in owners[i][0] or first[i] in owners[j][0]
                assert bool(duplicates[i, j]) == together
        drawn_pairs |= set(zip(first, second, strict=True))
    assert len(drawn_pairs) == 3 * 2 + 3 * 2  # each pair of each image, in both orders
    assert len(llm_text.draw_pairs([related(captions)], 64, rng)[0]) == 4


def test_a_batch_has_of_each_source_by_the_root_of_its_size():
    sources = [related([(f"{k}{i}", f"{k}{i}'") for i in range(n)]) for k, n in enumerate((9, 144))]
    first, second, duplicates = llm_text.draw_pairs(sources, 10, np.random.default_rng(0))
    assert [text[0] for text in first] == ["0"] * 2 + ["1"] * 8
    assert [text[0] for text in second] == ["0"] * 2 + ["1"] * 8
    assert len({text.rstrip("'") for text in first}) == 10  # nothing comes twice
    assert torch.equal(duplicates, torch.eye(10, dtype=torch.bool))
    # A source that is small beyond measure still gives one.
    sources = [sources[0][:2], related([(f"x{i}", f"y{i}") for i in range(20_000)])]
    first, _, _ = llm_text.draw_pairs(sources, 4, np.random.default_rng(0))
    assert [text[0] for text in first].count("0") == 1


def test_texts_of_other_sources_and_hard_negatives_that_are_true_are_masked():
    group = frozenset("abc")
    table = [Related(("a", "b"), group, "p"), Related(("x", "y"), frozenset("xy"), "c")]
    images = [Related(("p", "b"), frozenset("pb")), Related(("u", "v"), frozenset("uv"))]
    sources = [table, images]
    owner = {text: row for source in sources for row in source for text in row.texts if text != "b"}
    seen = set()
    for seed in range(20):
        first, second, duplicates = llm_text.draw_pairs(sources, 4, np.random.default_rng(seed))
        partners = list(zip(first, second[:4], strict=True))
        owners = [owner[one if one != "b" else other] for one, other in partners]
        assert second[4:] == [row.hard for row in owners if row.hard] and len(second) == 6
        for i in range(4):
            for j in range(4):
                wanted = second[j] in owners[i].group or first[i] in owners[j].group
                assert bool(duplicates[i, j]) == wanted
                if owners[i] is table[0] and owners[j] is images[0] and wanted:
                    seen.add("across sources")
            for j in (4, 5):
                assert bool(duplicates[i, j]) == (second[j] in owners[i].group)
        # "c" is false of x and y, but it belongs to a and b.
        assert duplicates[owners.index(table[0]), second.index("c", 4)]
        assert duplicates[owners.index(images[0]), second.index("p", 4)]
        assert duplicates[:, 4:].sum() == 2
    assert seen == {"across sources"}


def accuracy(llm, pairs):
    first, second = (llm.encode([pair[side] for pair in pairs], layer=2) for side in (0, 1))
    return llm_text.caption_retrieval(first, second)


def test_tuning_reads_each_text_in_its_place(llm, tmp_path, monkeypatch):
    """Texts are read in the order of their lengths. The loss gets their vectors in their own."""
    pairs = ["a long text of many words", "x", "two words"], ["y", "as many words as that", "a b"]
    plain = [F.normalize(llm.encode(texts, layer=1), dim=1) for texts in pairs]
    duplicates, seen, loss = torch.eye(3, dtype=torch.bool), [], llm_text.caption_loss

    def spy(*arguments):
        seen.append(arguments)
        return loss(*arguments)

    monkeypatch.setattr(llm_text, "pick_dtype", lambda *_: "float32")
    monkeypatch.setattr(llm_text, "caption_loss", spy)
    monkeypatch.setattr(llm_text, "draw_pairs", lambda *_: (*pairs, duplicates))
    llm_text.tune(llm, [], tmp_path / "a.safetensors", layer=1, steps=1)
    ((first, second, mask),) = seen
    assert torch.allclose(first, plain[0], atol=1e-5)  # fresh LoRA change nothing
    assert torch.allclose(second, plain[1], atol=1e-5) and torch.equal(mask, duplicates)


def test_the_rate_of_tuning_rises_and_falls_and_each_step_has_its_own_gradient(
    llm, tmp_path, monkeypatch
):
    """With so small a rate nothing changes, so equal batches have equal gradients."""
    batch = TEXTS, TEXTS[::-1], torch.zeros(3, 3, dtype=torch.bool)
    rates, norms = [], []

    def step(optimizer):
        (group,) = optimizer.param_groups
        rates.append(group["lr"])
        assert group["weight_decay"] == 0
        gradients = [p.grad.flatten() for p in group["params"] if p.grad is not None]
        norms.append(torch.cat(gradients).norm().item())

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    monkeypatch.setattr(llm_text, "draw_pairs", lambda *_: batch)
    llm_text.tune(llm, [], tmp_path / "a.safetensors", layer=1, steps=20, lr=0.1)
    # A tenth of 20 steps is warm-up, and all the way the rate falls to 0.
    wanted = [0.1 * (0.5 if i == 0 else 1) * (1 - i / 20) for i in range(20)]
    assert rates == pytest.approx(wanted)
    assert norms[0] > 0 and norms == pytest.approx([norms[0]] * 20)


@pytest.mark.slow
def test_tuning_teaches_to_tell_captions_apart(tiny_llm_folder, llm, tmp_path):
    scenes = shapes.make_scenes("train", 60)
    pairs = [[shapes.caption(s), shapes.paraphrases(s)[-2]] for s in scenes]
    before = accuracy(llm, pairs)
    frozen = {n: p.clone() for n, p in llm.model.state_dict().items()}
    out = tmp_path / "adapter.safetensors"
    drawings = related(pairs * 4)  # four of each scene
    losses = llm_text.tune(
        llm, [drawings], out, layer=2, steps=50, batch_size=32, lr=1e-2, rank=4, alpha=8
    )
    assert losses[-1] < 0.6 * losses[0]
    after = accuracy(llm_text.load_llm(tiny_llm_folder, adapter=out), pairs)
    assert after > 2 * before and after > 0.5
    state = llm.model.state_dict()
    for name, weight in frozen.items():
        name = name if name in state else name.replace("_proj.", "_proj.linear.")
        assert torch.equal(state[name], weight.to(state[name].dtype))


@pytest.mark.slow
def test_tuning_is_a_function_of_its_seed(tiny_llm_folder, tmp_path):
    scenes = shapes.make_scenes("train", 60)
    pairs = [[shapes.caption(s), shapes.paraphrases(s)[-2]] for s in scenes]

    def losses(name, **others):
        llm = llm_text.load_llm(tiny_llm_folder)
        few = dict(layer=2, steps=3, batch_size=32, lr=1e-2, rank=4, alpha=8) | others
        return llm_text.tune(llm, [related(pairs)], tmp_path / name, **few)

    assert losses("b") == losses("c") != losses("d", seed=1)
    # The precision is asked of the flag: "auto" is one of the two, whichever this CPU has.
    exact, coarse = losses("e", precision="fp32"), losses("f", precision="amp_bf16")
    assert exact != coarse and exact == pytest.approx(coarse, abs=0.1)
    assert losses("b") in (exact, coarse)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


@pytest.mark.parametrize(
    "flags, says",
    [
        ({"rank": 0}, "--rank 0"),
        ({"batch_size": 1}, "--batch-size 1"),
        ({"steps": 0}, "--steps 0"),
        ({"lr": math.nan}, "--lr nan"),
        ({"lr": -1}, "--lr -1"),
        ({"alpha": math.nan}, "--alpha nan"),
        ({"alpha": 0}, "--alpha 0"),
        ({"seed": -1}, "--seed -1"),
        ({"layer": 9}, "block 9 does not exist"),
    ],
)
def test_tuning_refuses_what_makes_no_sense(llm, tmp_path, flags, says):
    with pytest.raises(BadInput, match=says):
        llm_text.tune(llm, [related([["a", "b"], ["c", "d"]])], tmp_path / "x", **flags)


@pytest.mark.slow
def test_command_line(tiny_llm_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))
    root, out = Path(llm_text.__file__).parent, tmp_path / "adapter.safetensors"
    (tmp_path / "data").mkdir()
    for i, s in enumerate(shapes.make_scenes("train", 40)):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / "data" / f"{i}.png")
        two = shapes.caption(s) + "\n" + shapes.paraphrases(s)[-1]
        (tmp_path / "data" / f"{i}.txt").write_text(two)

    shutil.copytree(tmp_path / "data", tmp_path / "single")
    for text in (tmp_path / "single").glob("*.txt"):
        text.write_text(text.read_text().splitlines()[0])

    def call(*args):
        return subprocess.run(
            [
                sys.executable,
                root / "llm_text.py",
                "--llm",
                tiny_llm_folder,
                "--device",
                "cpu",
                *args,
            ],
            capture_output=True,
            text=True,
        )

    done = call(
        "--tune", str(tmp_path / "data"), "--out", str(out), "--steps", "3", "--batch-size", "8"
    )
    first, last = done.stdout.splitlines()[2:4]
    assert first.startswith("loss of the first step: ") and float(first.split()[-1]) > 0
    assert last.startswith("loss of the last step: ") and float(last.split()[-1]) > 0
    assert (
        done.returncode == 0
        and "before: " in done.stdout
        and "held-out texts find their partner" in done.stdout
    ), done.stderr
    assert out.exists() and "cosines" in call("a", "b", "--llm-adapter", str(out)).stdout

    # A table of pairs beside the images: each has its own accuracy.
    table = tmp_path / "pairs.csv"
    rows = [f"word {i},what {i} means,what {i + 1} means" for i in range(60)]
    table.write_text("first,second,hard\n" + "\n".join(rows))
    both = [str(tmp_path / "data"), str(table)]
    # What is there is not written over.
    content = out.read_bytes()
    done = call("--tune", *both, "--out", str(out))
    assert done.returncode == 2 and "is there already; remove it" in done.stderr
    assert out.read_bytes() == content
    out.unlink()
    done = call("--tune", *both, "--out", str(out), "--steps", "2", "--batch-size", "8")
    assert done.returncode == 0, done.stderr
    n_held_out = len(read_texts(str(table))[1])
    name, before, after = done.stdout.splitlines()[7:10]
    assert name == str(table) and before.startswith("before: ") and after.startswith("after:  ")
    assert (
        f"of {n_held_out} held-out texts" in before and f"of {n_held_out} held-out texts" in after
    )

    for args in (
        [],
        ["--tune", *both, "nowhere"],
        ["a", "--tune", "shapes"],
        ["--tune", "nowhere"],
        ["--tune", str(tmp_path / "single")],
        ["--tune", "shapes", "--pool", "last"],  # tuning takes the mean
        ["a", "--rank", "4"],  # without --tune it would do nothing
    ):
        done = call(*args)
        assert done.returncode == 2 and done.stderr.strip().splitlines()[-1].startswith(
            "error: "
        ), done.stderr


ADAPTER = Path(__file__).parent.parent / "data/world/wordnet_adapter.safetensors"


def test_the_adapter_of_the_repository_is_the_one_that_was_measured():
    log = (ADAPTER.parents[2] / "docs/results/adapter.md").read_text()
    assert hashlib.sha256(ADAPTER.read_bytes()).hexdigest() in log
    assert ADAPTER.stat().st_size < 4e6


WORDS = """violin|a string instrument that is played with a bow
cello|a large string instrument held between the knees
harbour|a place where ships are safe
anchor|a heavy hook that holds a ship
kitten|a young cat
puppy|a young dog
foal|a young horse
anger|a strong feeling against somebody
grief|a strong feeling after a loss
envy|wanting what somebody else has
physician|somebody who treats the sick
dentist|somebody who treats teeth
ice|frozen water
steam|water as a gas
frost|thin white crystals on cold ground
gigantic|very large
tiny|very small
scarlet|a bright red
navy|a very dark blue
ivory|a white with a little yellow"""


@pytest.mark.real_llm
def test_the_adapter_of_the_repository_brings_words_to_what_they_mean(llm):
    """Of these twenty words 12 find their meaning before, and 18 after."""
    tuned = llm_text.load_llm(adapter=ADAPTER)
    assert tuned.tuned_layer == 10 and tuned.hash != llm.hash
    words, meanings = zip(*(line.split("|") for line in WORDS.splitlines()), strict=True)
    before, after = (
        llm_text.caption_retrieval(model.encode(words), model.encode(meanings))
        for model in (llm, tuned)
    )
    assert before <= 0.65 and after >= 0.85


def test_an_adapter_is_merged_in_float32(tiny_llm_folder, adapter):
    path = adapter()
    name, (A, B) = next(iter(read_adapter(path).pairs.items()))
    scale = read_adapter(path).scale
    plain = llm_text.load_llm(tiny_llm_folder, dtype=torch.bfloat16)
    merged = llm_text.load_llm(tiny_llm_folder, dtype=torch.bfloat16, adapter=path)
    weight = plain.model.get_submodule(name).weight.float() + scale * (B @ A)
    assert torch.equal(merged.model.get_submodule(name).weight, weight.bfloat16())
