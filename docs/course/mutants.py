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
    # ---- unit 3
    Mutant("3.1", "the mean is subtracted, as in a LayerNorm", "y = x.float()", "y = x.float() - x.float().mean(-1, keepdim=True)"),
    Mutant("3.1", "no root", "torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)", "1 / (y.pow(2).mean(-1, keepdim=True) + self.eps)"),
    Mutant("3.1", "the norm in place of the root mean square", "y.pow(2).mean(", "y.pow(2).sum("),
    Mutant("3.1", "no weight", " * self.weight", ""),
    Mutant("3.1", "over the tokens", "mean(-1,", "mean(-2,"),
    Mutant("3.1", "eps outside the root", "torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)", "1 / (y.pow(2).mean(-1, keepdim=True).sqrt() + self.eps)"),
    Mutant("3.1", "the division in bfloat16", "y = x.float()", "y = x"),
    Mutant("3.2", "turned the other way", "torch.cat((-second, first), dim=-1)", "torch.cat((second, -first), dim=-1)"),
    Mutant("3.2", "no minus", "(-second, first)", "(second, first)"),
    Mutant("3.2", "neighbours are paired", "first, second = x.chunk(2, dim=-1)\n    return x * cos + torch.cat((-second, first), dim=-1) * sin", "first, second = x[..., ::2], x[..., 1::2]\n    return x * cos + torch.stack((-second, first), dim=-1).flatten(-2) * sin"),
    Mutant("3.2", "sine and cosine exchanged", "x * cos + torch.cat((-second, first), dim=-1) * sin", "x * sin + torch.cat((-second, first), dim=-1) * cos"),
    Mutant("3.2", "the halves are not exchanged", "(-second, first)", "(-first, second)"),
    Mutant("3.3", "keys are not turned", "        k = rotate(k, cos, sin)\n", ""),
    Mutant("3.3", "neither is turned", "        q = rotate(q, cos, sin)\n        k = rotate(k, cos, sin)\n", ""),
    Mutant("3.3", "values are turned, too", "v = v.transpose(1, 2)", "v = rotate(v.transpose(1, 2), cos, sin)"),
    Mutant("3.3", "not causal", "causal = visible is None", "causal = False"),
    Mutant("3.3", "the mask is not used", "q, k, v, visible, is_causal=causal", "q, k, v, None, is_causal=True"),
    Mutant("3.3", "g = h % K", "q = rotate(q, cos, sin)", "q = rotate(q, cos, sin)\n        n = self.heads // self.kv_heads\n        k, v = k.repeat(1, n, 1, 1), v.repeat(1, n, 1, 1)"),
    Mutant("3.3", "no division by the root of d", "enable_gqa=True", "enable_gqa=True, scale=1.0"),
    Mutant("3.3", "heads and tokens are mixed up at the end", "y.transpose(1, 2).reshape", "y.reshape"),
    Mutant("3.3", "queries and keys are not normed", "q = self.q_norm(q).transpose(1, 2)  # (B, H, L, d)\n        k = self.k_norm(k).transpose(1, 2)", "q = q.transpose(1, 2)  # (B, H, L, d)\n        k = k.transpose(1, 2)"),
    Mutant("3.4", "the mean over padding, too", "(mask.sum(1, keepdim=True) - 1)", "(mask.shape[1] - 1)"),
    Mutant("3.4", "the first token counts in the denominator", "mask.sum(1, keepdim=True) - 1", "mask.sum(1, keepdim=True)"),
    Mutant("3.4", "the first token counts", "all_tokens(h, mask).sum(1) / (mask.sum(1, keepdim=True) - 1)", "(h.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)"),
    Mutant("3.4", "padding is read", "all_tokens(h, mask).sum(1)", "h[:, 1:].float().sum(1)"),
    Mutant("3.4", "the sum in bfloat16", "all_tokens(h, mask).sum(1) /", "all_tokens(h, mask).to(h.dtype).sum(1) /"),
    Mutant("3.5", "the last place, also where it is padding", "return h[torch.arange(len(h), device=h.device), last].float()", "return h[:, -1].float()"),
    Mutant("3.5", "one too early", "mask.sum(1) - 1", "mask.sum(1) - 2"),
    Mutant("3.5", "the first token", "last = mask.sum(1) - 1", "last = mask.int().argmax(1)"),
    Mutant("3.5", "not in float32", "last].float()", "last]"),
    Mutant("3.6", "the weakest directions", "variance = variance[-directions:].flip(0)  # (k,) the largest first\n    V = V[:, -directions:].flip(1)", "variance = variance[:directions]\n    V = V[:, :directions]"),
    Mutant("3.6", "not centred", "covariance = moments / N - torch.outer(mean, mean)", "covariance = moments / N"),
    Mutant("3.6", "divided by the variance in place of the deviation", "V / variance.sqrt() ** power", "V / variance ** power"),
    Mutant("3.6", "multiplied in place of divided", "V / variance.sqrt() ** power", "V * variance.sqrt() ** power"),
    Mutant("3.6", "the power is not used", "variance.sqrt() ** power", "variance.sqrt()"),
    Mutant("3.6", "fitted on the first half of the captions", "    N = len(vectors)\n", "    vectors = vectors[: len(vectors) // 2]\n    N = len(vectors)\n"),
    Mutant("3.6", "the transposed matrix of directions", "V[:, -directions:].flip(1)", "V[-directions:].flip(0).T"),
    Mutant("3.6", "with 0 directions the mean is 0", "return mean.float(), torch.eye(D)", "return torch.zeros(D), torch.eye(D)"),
    Mutant("3.6", "`within` is not used", "if within is not None:\n        strength", "if within is None:\n        within = None\n    elif False:\n        strength"),
    Mutant("3.6", "empty directions are not refused", "if not variance[-1] > smallest:", "if False:"),
    Mutant("3.6", "too many directions are not refused", "if directions > min(D, N - 1):", "if False:"),
    # ---- unit 6
    Mutant("6.1", "> in place of >=", "scores < best - TIE", "scores <= best"),
    Mutant("6.1", "every comparison with NaN is false", "(~is_behind & ~is_correct)", "((scores >= best - TIE) & ~is_correct)"),
    Mutant("6.1", "the worst right answer counts", "scores.masked_fill(~is_correct, -torch.inf).amax(", "scores.masked_fill(~is_correct, torch.inf).amin("),
    Mutant("6.1", "other right answers are mistakes", "(~is_behind & ~is_correct).sum(1)", "(~is_behind).sum(1) - 1"),
    Mutant("6.1", "counted from 1", ".sum(1)", ".sum(1) + 1"),
    Mutant("6.1", "no tolerance for rounding", "best - TIE", "best"),
    Mutant("6.2", "equal captions are not right", "is_equal = caption_ids[start : start + chunk, None] == caption_ids", "is_equal = torch.arange(len(caption_ids))[start : start + chunk, None] == torch.arange(len(caption_ids))"),
    Mutant("6.2", "the same direction twice", "return torch.cat(image_to_text), torch.cat(text_to_image)", "return torch.cat(image_to_text), torch.cat(image_to_text)"),
    Mutant("6.2", "only the first piece is searched", "in_chunk = (image_of_caption >= start) & (image_of_caption < start + len(scores))", "in_chunk = image_of_caption < len(scores)"),
    Mutant("6.2", "an image finds only its own copy of a caption", "has_id[image_of_caption[in_chunk] - start, caption_ids[in_chunk]] = True\n        is_correct = has_id[:, caption_ids]", "is_correct = image_of_caption == torch.arange(start, start + len(scores))[:, None]"),
    Mutant("6.2", "caption i belongs to image i", "is_correct[question, image_of_caption[equal_caption]] = True", "is_correct[question, equal_caption % len(image_features)] = True"),
    Mutant("6.3", ">= in place of >", "true_scores > false_scores + TIE", "true_scores >= false_scores"),
    Mutant("6.3", "the wrong one is preferred", "true_scores > false_scores + TIE", "true_scores < false_scores - TIE"),
    Mutant("6.3", "not behind counts as right", "true_scores > false_scores + TIE", "~(true_scores < false_scores)"),
    Mutant("6.3", "no tolerance for rounding", "false_scores + TIE", "false_scores"),
    Mutant("6.3", "any image of the batch", "(image_features * true_features).sum(-1)", "(image_features @ true_features.T).amax(0)"),
    Mutant("6.4", "argmax: the first of equal classes wins", "return not_behind.sum(1) <= k", "return scores.argsort(1, descending=True, stable=True)[:, :k].eq(labels[:, None]).any(1)"),
    Mutant("6.4", "ties help", "~(scores < right - TIE)", "scores > right"),
    Mutant("6.4", "k is one too small", "sum(1) <= k", "sum(1) < k"),
    Mutant("6.4", "k is not used", "sum(1) <= k", "sum(1) <= 1"),
    Mutant("6.4", "NaN helps", "not_behind = ~(scores < right - TIE)", "not_behind = scores >= right - TIE"),
    Mutant("6.5", "text and image are exchanged", "return text_score, image_score,", "return image_score, text_score,"),
    Mutant("6.5", "group is either", "text_score & image_score", "text_score | image_score"),
    Mutant("6.5", "a tie is right", "s.diagonal(dim1=1, dim2=2) - TIE", "s.diagonal(dim1=1, dim2=2) + TIE"),
    Mutant("6.5", "one of two is enough", "(right[:, 0] > s[:, 0, 1]) & (", "(right[:, 0] > s[:, 0, 1]) | ("),
    Mutant("6.5", "one side of the table twice", "(right[:, 0] > s[:, 1, 0]) & (right[:, 1] > s[:, 0, 1])", "(right[:, 0] > s[:, 1, 0]) & (right[:, 1] > s[:, 1, 0])"),
    Mutant("6.6", "68 % in place of 95 %", "(2.5, 97.5)", "(16, 84)"),
    Mutant("6.6", "90 % in place of 95 %", "(2.5, 97.5)", "(5, 95)"),
    Mutant("6.6", "groups are not used", "np.arange(len(hits)) if groups is None else np.asarray(groups)", "np.arange(len(hits))"),
    Mutant("6.6", "drawn without replacement", "rng.integers(0, len(total), len(total))", "rng.permutation(len(total))"),
    Mutant("6.6", "half as many are drawn", "rng.integers(0, len(total), len(total))", "rng.integers(0, len(total), len(total) // 2)"),
    Mutant("6.6", "the spread of answers in place of that of means", "means.append(total[drawn].sum() / size[drawn].sum())", "means.append(hits[drawn[0] % len(hits)])"),
    Mutant("6.6", "the mean of the groups' means", "total[drawn].sum() / size[drawn].sum()", "(total[drawn] / size[drawn]).mean()"),
]
