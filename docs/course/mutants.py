"""Wrong answers that students give, at least three for each hole. Each must lose the hole's points.

    make course-check

An edit is made inside the hole only: `old` stands once in its source, `new` takes its place.
"""

from typing import NamedTuple

from .holes import CourseError, Task, find, first_line


class Mutant(NamedTuple):
    task: str  # "1.1"
    wrong: str  # in words
    old: str
    new: str


def mutated(source: str, task: Task, mutant: Mutant) -> str:
    """The source with one wrong answer in the hole. CourseError unless `old` is there once."""
    node = find(source, task.name)
    start = first_line(node) if hasattr(node, "decorator_list") else node.lineno
    lines = source.splitlines(keepends=True)
    hole = "".join(lines[start - 1 : node.end_lineno])
    if hole.count(mutant.old) != 1 or mutant.old == mutant.new:
        raise CourseError(
            f"task {task.id}, {mutant.wrong!r}: {task.name} has {hole.count(mutant.old)} times "
            f"{mutant.old!r}, not once"
        )
    lines[start - 1 : node.end_lineno] = [hole.replace(mutant.old, mutant.new)]
    return "".join(lines)


MUTANTS = [
    # ---- unit 1
    Mutant("1.1", "one direction only", "(image_to_text + text_to_image) / 2", "image_to_text"),
    Mutant("1.1", "the same direction twice", "F.cross_entropy(logits.T, target)", "F.cross_entropy(logits, target)"),
    Mutant("1.1", "the sum in place of the mean", "(image_to_text + text_to_image) / 2", "image_to_text + text_to_image"),
    Mutant("1.1", "divided by the scale", "logit_scale.float() * image_features.float()", "image_features.float() / logit_scale.float()"),
    Mutant("1.1", "the scale is taken for its logarithm", "logit_scale.float() *", "logit_scale.float().exp() *"),
    Mutant("1.1", "duplicates are not masked", "if duplicates is not None:", "if False:"),
    Mutant("1.1", "the diagonal is masked, too", "duplicates & off_diagonal", "duplicates"),
    Mutant("1.1", "duplicates get the logit 0", "-torch.inf", "0.0"),
    Mutant("1.1", "duplicates are masked in one direction only", "text_to_image = F.cross_entropy(logits.T, target)", "text_to_image = F.cross_entropy((logit_scale * image_features @ text_features.T).T, target)"),
    Mutant("1.1", "captions in reversed order", "target = torch.arange(len(logits), device=logits.device)", "target = torch.arange(len(logits), device=logits.device).flip(0)"),
    Mutant("1.1", "the captions are detached", "@ text_features.float().T", "@ text_features.detach().float().T"),
    Mutant("1.1", "the logits stay in bfloat16", "logit_scale.float() * image_features.float() @ text_features.float().T", "(logit_scale.to(image_features.dtype) * image_features @ text_features.T).float()"),
    Mutant("1.2", "without the 1", "1 - (image", "-(image"),
    Mutant("1.2", "the mean over the numbers, too", ".sum(-1).mean()", ".mean()"),
    Mutant("1.2", "the sum over the batch", ".sum(-1).mean()", ".sum()"),
    Mutant("1.2", "every image against every caption", "(image_features.float() * text_features.float()).sum(-1).mean()", "(image_features.float() @ text_features.float().T).mean()"),
    Mutant("1.2", "times the scale", "1 - (image", "1 - (1 if logit_scale is None else logit_scale) * (image"),
    Mutant("1.3", "the upper limit is that of the scale, not of its logarithm", "math.log(100)", "100"),
    Mutant("1.3", "only an upper limit", "clamp_(0, math.log(100))", "clamp_(max=math.log(100))"),
    Mutant("1.3", "a new tensor in place of a change", "clamp_(", "clamp("),
    Mutant("1.3", "the lower limit is 1, of the logarithm", "clamp_(0,", "clamp_(1,"),
]
