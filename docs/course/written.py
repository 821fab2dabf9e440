"""The written questions of written.toml, with their numbers filled in.

    python -m docs.course.written --seed 2027       # all questions with answers, for the teacher

A question is a template. The seed draws its numbers, and the answer's numbers are computed from
them. So another seed gives other questions, with answers that fit.
"""

import argparse
import math
import random
import re
import sys
import tomllib
from pathlib import Path

FILE = Path(__file__).with_name("written.toml")


def read_questions(path: Path = FILE) -> list[dict]:
    """The templates, in the order of the file."""
    return tomllib.loads(path.read_text())["question"]


def numbers_of(question: dict, seed: int) -> dict[str, object]:
    """What the seed draws for a question, and what is computed from it: {name: value}."""
    rng = random.Random(f"{seed}/{question['id']}")
    values = {name: rng.choice(choices) for name, choices in question.get("draw", {}).items()}
    for name, formula in question.get("compute", {}).items():
        # The formulas are the project's own: they stand in written.toml.
        values[name] = eval(formula, {"math": math, **values})
    return values


def fill(text: str, values: dict[str, object]) -> str:
    """Put values in place of {name} and {name:format}. KeyError for a name that has none."""

    def value_of(mark: re.Match) -> str:
        return format(values[mark[1]], mark[2] or "")

    text = re.sub(r"\{(\w+)(?::([^{}]*))?\}", value_of, text)
    # Paragraphs become single lines. A blank line, and indented code, stay.
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(p if p.startswith("    ") else " ".join(p.split()) for p in paragraphs)


def filled(question: dict, seed: int) -> dict:
    """A question for one seed: all its texts, with numbers in place of the names."""
    values = numbers_of(question, seed)
    return {
        "id": question["id"],
        "unit": question["unit"],
        "points": question["points"],
        "question": fill(question["question"], values),
        "answer": fill(question["answer"], values),
        "rubric": [fill(line, values) for line in question["rubric"]],
        "sample": fill(question["sample"], values),
        "sample_grade": [fill(line, values) for line in question["sample_grade"]],
    }


def points_of(lines: list[str]) -> int:
    """The sum of the points with which the lines begin."""
    return sum(int(line.split(":")[0]) for line in lines)


def for_teacher(shown: dict) -> str:
    """What only a teacher reads of a filled question: answer, rubric, and the sample, graded."""
    earned = points_of(shown["sample_grade"])
    parts = [
        f"**Answer.** {shown['answer']}",
        "\n".join(f"- {line}" for line in shown["rubric"]),
        f"**A sample of a weak answer.** {shown['sample']}",
        f"It earns {earned} of {shown['points']}, line by line of the rubric:",
        "\n".join(f"- {line}" for line in shown["sample_grade"]),
    ]
    return "\n\n".join(parts) + "\n"


def question_for(unit: int, seed: int) -> dict:
    """The one question of a unit that a hand-out with this seed shows."""
    questions = [question for question in read_questions() if question["unit"] == unit]
    return filled(random.Random(f"{seed}/{unit}").choice(questions), seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of the numbers (%(default)s)")
    seed = parser.parse_args().seed
    for question in read_questions():
        shown = filled(question, seed)
        print(f"## {shown['id']} ({shown['points']} points)\n\n{shown['question']}\n")
        print(for_teacher(shown))


if __name__ == "__main__":
    sys.exit(main())
