"""The texts of the course: their form, the written questions, and the numbers of the answers.

    python -m pytest tests/test_course_texts.py

The numbers of model answers are compared with what the project's own code gives.
"""

import itertools
import math
import re
import statistics
import tomllib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import lift
from docs.course.holes import find, functions_of, header_end, read_tasks, source_of
from docs.course.written import (
    fill,
    filled,
    numbers_of,
    points_of,
    question_for,
    read_questions,
)
from eval import chance_of_recall
from llm_text import LoRA
from tests.experiments.flops import Setting, training_step

COURSE = Path(__file__).parent.parent / "docs/course"
UNITS = range(1, 10)
QUESTIONS = {question["id"]: question for question in read_questions()}
every_unit = pytest.mark.parametrize("unit", UNITS)


def of(id: str, **drawn) -> dict:
    """The numbers of a question for values that are given, in place of drawn ones."""
    question = QUESTIONS[id]
    assert drawn.keys() == question["draw"].keys()
    return numbers_of(question | {"draw": {name: [value] for name, value in drawn.items()}}, 0)


# --------------------------------------------------------------------------------------------------
# Form.


@every_unit
def test_a_unit_has_its_parts(unit):
    text = (COURSE / f"unit{unit}.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.M)
    wanted = [
        *("What you will understand", "The idea", "The equations", "The tasks", "Traps"),
        *("The experiment", "The written report" if unit == 9 else "The written question"),
        *("Hand in", "Further reading"),
    ]
    assert [heading for heading in headings if heading in wanted] == wanted
    # The experiment begins with what it costs in all. The README says so of all units.
    experiment = text.split("\n## The experiment\n\n")[1].split("\n## ")[0]
    assert re.match(r"In all (about )?\d+( to \d+)? minutes on (one core|2 cores)[.,]", experiment)
    # What students can test themselves is told from what only their teacher's tests hold.
    tasks = text.split("\n## The tasks\n")[1].split("\n## ")[0]
    heads = ("our tests and your teacher's hold:\n\n- ", "Only your teacher's tests hold:\n\n- ")
    both, only = (tasks.find(head) for head in heads)
    assert 0 < both < only
    # There is an equation, and a command, in a block of its own.
    equations = text.split("\n## The equations\n")[1].split("\n## ")[0]
    assert re.search(r"^    .*=", equations, re.M)
    assert re.search(r"^    python ", experiment, re.M)
    # What a hand-out fills in stands on a line of its own, once.
    for mark in ("{band:%d}", "{question:%d}"):
        assert re.findall(r"^\{\w+:\d+\}$", text, re.M).count(mark % unit) == 1
    assert len(re.findall(r"^!\[.*\]\(\.\./figures/.*\)$", text, re.M)) == 1
    assert len(re.findall(r"\[arXiv \d{4}\.\d{5}\]|\[arXiv \d{4}\.\d{4}\]", text)) >= 3
    for shown, linked in re.findall(r"\[arXiv ([\d.]+)\]\(https://arxiv.org/abs/([\d.]+)\)", text):
        assert shown == linked


@every_unit
def test_the_tasks_are_those_of_the_list(unit):
    """The table of each text against tasks.toml, from which the hand-outs are made."""
    path = COURSE / "tasks.toml"
    if not path.exists():
        pytest.skip("tasks.toml is not there yet")
    tasks = [task for task in tomllib.loads(path.read_text())["task"] if task["unit"] == unit]
    wanted = [(t["id"], t["name"], t["file"], str(t["points"])) for t in tasks]
    text = (COURSE / f"unit{unit}.md").read_text()
    row = r"^\| (\d\.\d+) \| `(.*?)` \| `(.*?)` \| (\d+) \|$"
    assert re.findall(row, text, re.M) == wanted


def lines_of_code(task) -> int:
    """Lines that a student writes in a hole, in the reference: no comments, no empty lines."""
    source = source_of(COURSE.parent.parent, task.file)
    hole = find(source, task.name)
    if "[" in task.name:  # an entry of a table: one line for each value
        return sum(keyword.arg != "paper" for keyword in hole.keywords)
    lines = source.splitlines()
    bodies = [lines[header_end(one) : one.end_lineno] for one in functions_of(hole)]
    written = [line.strip() for body in bodies for line in body]
    return sum(bool(line) and not line.startswith("#") for line in written)


def test_the_median_hole_has_5_to_15_lines():
    """Shorter ones leave too little to think about, longer ones are an evening's work."""
    assert 5 <= statistics.median(lines_of_code(task) for task in read_tasks()) <= 15


def test_the_readme_counts_the_lines_of_the_holes():
    counts = sorted(lines_of_code(task) for task in read_tasks())
    text = " ".join((COURSE / "README.md").read_text().split())
    found = re.search(
        r"(\d+) in all. In the reference they have (\d+) to (\d+) lines of code. The median is "
        r"(\d+), and (\w+) have more than 15",
        text,
    )
    more = ("none", "one", "two", "three", "four", "five").index(found[5])
    assert more == sum(count > 15 for count in counts)
    assert [int(found[i]) for i in (1, 2, 3)] == [len(counts), counts[0], counts[-1]]
    assert int(found[4]) == statistics.median(counts)


# --------------------------------------------------------------------------------------------------
# The written questions.


def texts_of(question: dict) -> list[str]:
    """All texts of a question, before or after it was filled."""
    lists = question["rubric"] + question["sample_grade"]
    return [question["question"], question["answer"], question["sample"], *lists]


def test_every_question_has_its_parts():
    assert len(QUESTIONS) == len(read_questions())  # no id comes twice
    for id, question in QUESTIONS.items():
        assert id.startswith(str(question["unit"])) and len(id) == 2
        # Each line of a rubric begins with its points.
        assert points_of(question["rubric"]) == question["points"], id
    for unit in UNITS:
        count = sum(question["unit"] == unit for question in QUESTIONS.values())
        assert count >= 3 or unit == 9


@pytest.mark.parametrize("id", QUESTIONS)
def test_a_sample_earns_a_part_of_the_points(id):
    """Its grade has one line for each of the rubric, which gives at most what that line gives."""
    question = QUESTIONS[id]
    assert 0 < points_of(question["sample_grade"]) < question["points"]
    for line, grade in zip(question["rubric"], question["sample_grade"], strict=True):
        assert re.match(r"\d: .", grade), grade
        assert points_of([grade]) <= points_of([line]), grade


@pytest.mark.parametrize("id", QUESTIONS)
def test_every_question_can_be_filled(id):
    question = QUESTIONS[id]
    texts = set()
    for seed in range(20):
        shown = filled(question, seed)
        everything = " ".join(texts_of(shown))
        assert not re.search(r"[{}]|\b(nan|inf)\b", everything), everything
        assert shown == filled(question, seed)
        texts.add(shown["question"])
    assert len(texts) == 1 or "draw" in question
    # Every number that is drawn or computed is used: by a text, or by another formula.
    words = " ".join([*texts_of(question), *question.get("compute", {}).values()])
    for name in [*question.get("draw", {}), *question.get("compute", {})]:
        assert re.search(rf"\b{name}\b", words), f"{id}: {name}"


def test_the_seed_chooses_the_question_and_its_numbers():
    assert {question_for(1, seed)["id"] for seed in range(30)} == {"1a", "1b", "1c"}
    assert len({question_for(2, seed)["question"] for seed in range(30)}) > 6
    assert question_for(3, 5) == question_for(3, 5)


def test_9_the_example_of_paired_differences():
    """The numbers of unit 9's text, from the scores that it names."""
    text = (COURSE / "unit9.md").read_text()
    lift_scores, clip_scores = torch.tensor([80.1, 79.1, 79.1]), torch.tensor([82.6, 83.0, 83.3])
    differences = clip_scores - lift_scores
    mean, spread = differences.mean().item(), differences.std().item()
    # Student's t with two degrees of freedom: t^2 = 2 (2p - 1)^2 / (1 - (2p - 1)^2).
    reach = math.sqrt(2 * 0.95**2 / (1 - 0.95**2)) / math.sqrt(3)
    assert f"= {reach:.2f}" in text
    words = " ".join(text.split())
    assert f"mean is {mean:.1f} and their spread {spread:.1f}" in words
    assert f"is {mean - reach * spread:.1f} to {mean + reach * spread:.1f}:" in words
    # Without pairs, the variances of the two rows add up.
    alone = math.hypot(lift_scores.std(), clip_scores.std())
    squares = f"sqrt({lift_scores.std():.1f}^2 + {clip_scores.std():.1f}^2)"
    assert f"{squares} = {alone:.1f}" in words and spread > alone


def test_fill():
    assert fill("{a} and {b:.2f},\nin a line", {"a": 1, "b": 0.5}) == "1 and 0.50, in a line"
    assert fill("text\n\n    code  line", {}) == "text\n\n    code  line"
    with pytest.raises(KeyError):
        fill("{c}", {"a": 1})


# --------------------------------------------------------------------------------------------------
# The numbers of the answers.


def test_1a_the_first_loss():
    numbers = of("1a", B=128, D=256, s=14.3)
    generator = torch.Generator().manual_seed(0)

    def unit_vectors():
        return F.normalize(torch.randn(128, 256, generator=generator), dim=-1)

    random, collapsed = [], []
    for _ in range(50):
        z, t, s = unit_vectors(), unit_vectors(), torch.tensor(14.3)
        random.append(lift.info_nce(z, t, s))
        collapsed.append(lift.info_nce(z[:1].expand(128, 256), t, s))
    assert sum(random).item() / 50 == pytest.approx(numbers["random"], abs=0.05)
    assert sum(collapsed).item() / 50 == pytest.approx(numbers["collapsed"], abs=0.03)


def test_1c_two_pairs():
    numbers = of("1c", a=3, b=1, c=-1, d=2)
    logits = torch.tensor([[3.0, 1.0], [-1.0, 2.0]], requires_grad=True)
    target = torch.arange(2)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    loss.backward()
    assert loss.item() == pytest.approx(numbers["loss"])
    found = [numbers[name] for name in ("g00", "g01", "g10", "g11")]
    assert logits.grad.flatten().tolist() == pytest.approx(found)
    # The answer names the cell that is pushed down the most. It is that one for every draw.
    draw = QUESTIONS["1c"]["draw"]
    for values in itertools.product(*draw.values()):
        numbers = of("1c", **dict(zip(draw, values, strict=True)))
        assert numbers["g01"] > numbers["g10"] + 0.01


def test_2a_operations_of_the_demo():
    numbers = of("2a", S=64, p=16, D=128, L=4)
    counted, _ = training_step("lift", Setting(lift.Sizes(), 60, 256, (18,)), 18)
    assert counted / 1e6 == pytest.approx(numbers["step"])


def test_2b_operations_of_a_text_transformer():
    sizes = lift.Sizes(text_width=512, text_depth=12, text_heads=8, embed_dim=512)
    with torch.device("meta"):
        model = lift.TwoTower("clip", sizes, [torch.empty(59, dtype=torch.int64)])
        counter = FlopCounterMode(display=False)
        with counter:
            model.encode_text(torch.zeros(1, 77, dtype=torch.int64)).sum().backward()
    assert counter.get_total_flops() / 1e9 == pytest.approx(of("2b", T=77, R=1080)["text"])


def test_3b_the_cone():
    vectors = F.normalize(
        torch.randn(2000, 20, generator=torch.Generator().manual_seed(0)) + 3, dim=-1
    )
    mean = vectors.mean(0)
    c = ((vectors @ vectors.T).sum() - 2000).item() / (2000 * 1999)
    blind = (vectors @ F.normalize(mean, dim=0)).mean().item()
    assert blind == pytest.approx(of("3b", c=c)["root"], abs=1e-3)


def test_4b_decay_without_gradient():
    weight = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.AdamW([weight], lr=0.002, weight_decay=0.2)
    for _ in range(624):
        weight.grad = torch.zeros(())
        optimizer.step()
    assert weight.item() == pytest.approx(of("4b", lr=0.002, wd=0.2, n=624)["factor"], rel=1e-4)


def test_4c_the_bisector():
    t = torch.tensor([[1.0, 0.0], [0.2, math.sqrt(1 - 0.04)]])
    z = F.normalize(t.sum(0, keepdim=True), dim=-1).expand(2, 2)
    assert lift.cosine_loss(z, t).item() == pytest.approx(of("4c", c=0.2)["loss"])


def test_5b_the_first_step():
    from train import Config, lr_at

    rate = lr_at(0, 624, Config(lr=0.002))
    assert rate == pytest.approx(of("5b", K=624, lr=0.002)["first"])
    for gradient, share in ((0.1, 1.0), (1e-5, 0.91)):
        weight = nn.Parameter(torch.zeros(()))
        optimizer = torch.optim.AdamW([weight], lr=rate, betas=(0.9, 0.98), eps=1e-6)
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        assert -weight.item() == pytest.approx(share * rate, rel=1e-2)


def test_6a_argmax_takes_the_first():
    assert torch.zeros(3).argmax() == 0
    assert torch.tensor([1.0, torch.nan, 2.0]).argmax() == 1
    assert torch.tensor([1.0, torch.nan]).max().isnan()


def test_6c_chance():
    numbers = of("6c", n=50, r=5, k=10)
    assert chance_of_recall(torch.tensor([5]), 50, 10) == pytest.approx(numbers["chance"])


def test_8b_parameters_of_lora():
    lora = LoRA(nn.Linear(576, 192, bias=False), rank=8, alpha=16)
    count = lora.lora_A.weight.numel() + lora.lora_B.weight.numel()
    assert count == of("8b", d_in=576, d_out=192, r=8)["count"]
