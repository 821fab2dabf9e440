"""Wrong solutions, at least three for each hole. Each must lose the points of its hole.

    make course-check

An edit is made inside the hole only: `old` stands once in its source, `new` takes its place.
"""

import sys
from typing import NamedTuple

from .holes import CourseError, Task, find, first_line


class Mutant(NamedTuple):
    task: str  # "1.1"
    wrong: str  # in words
    old: str
    new: str


def mutated(source: str, task: Task, mutant: Mutant) -> str:
    """The source with one wrong solution in the hole. CourseError unless `old` is there once."""
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
    Mutant(
        "1.1",
        "the same direction twice",
        "F.cross_entropy(logits.T, target)",
        "F.cross_entropy(logits, target)",
    ),
    Mutant(
        "1.1",
        "the sum in place of the mean",
        "(image_to_text + text_to_image) / 2",
        "image_to_text + text_to_image",
    ),
    Mutant(
        "1.1",
        "divided by the scale",
        "logit_scale.float() * image_features.float()",
        "image_features.float() / logit_scale.float()",
    ),
    Mutant(
        "1.1",
        "the scale is taken for its logarithm",
        "logit_scale.float() *",
        "logit_scale.float().exp() *",
    ),
    Mutant("1.1", "duplicates are not masked", "if duplicates is not None:", "if False:"),
    Mutant("1.1", "the diagonal is masked, too", "duplicates & off_diagonal", "duplicates"),
    Mutant("1.1", "duplicates get the logit 0", "-torch.inf", "0.0"),
    Mutant(
        "1.1",
        "duplicates are masked in one direction only",
        "text_to_image = F.cross_entropy(logits.T, target)",
        "text_to_image = F.cross_entropy((logit_scale * image_features @ "
        "text_features.T).T, target)",
    ),
    Mutant(
        "1.1",
        "captions in reversed order",
        "target = torch.arange(len(logits), device=logits.device)",
        "target = torch.arange(len(logits), device=logits.device).flip(0)",
    ),
    Mutant(
        "1.1",
        "the captions are detached",
        "@ text_features.float().T",
        "@ text_features.detach().float().T",
    ),
    Mutant(
        "1.1",
        "the logits stay in bfloat16",
        "logit_scale.float() * image_features.float() @ text_features.float().T",
        "(logit_scale.to(image_features.dtype) * image_features @ text_features.T).float()",
    ),
    Mutant(
        "1.1",
        "autocast stays on",
        "with torch.autocast(image_features.device.type, enabled=False):",
        "if True:",
    ),
    Mutant(
        "1.1",
        "the caller's mask is changed",
        "duplicates & off_diagonal",
        "duplicates.logical_and_(off_diagonal)",
    ),
    Mutant("1.2", "without the 1", "1 - (image", "-(image"),
    Mutant("1.2", "the mean over the numbers, too", ".sum(-1).mean()", ".mean()"),
    Mutant("1.2", "the sum over the batch", ".sum(-1).mean()", ".sum()"),
    Mutant(
        "1.2",
        "every image against every caption",
        "(image_features.float() * text_features.float()).sum(-1).mean()",
        "(image_features.float() @ text_features.float().T).mean()",
    ),
    Mutant(
        "1.2",
        "times the scale",
        "1 - (image",
        "1 - (1 if logit_scale is None else logit_scale) * (image",
    ),
    Mutant(
        "1.2",
        "divided by the lengths again",
        "(image_features.float() * text_features.float()).sum(-1).mean()",
        "F.cosine_similarity(image_features.float(), text_features.float()).mean()",
    ),
    Mutant(
        "1.2",
        "in half precision",
        "image_features.float() * text_features.float()",
        "image_features * text_features",
    ),
    Mutant(
        "1.3", "the upper limit is that of the scale, not of its logarithm", "math.log(100)", "100"
    ),
    Mutant("1.3", "only an upper limit", "clamp_(0, math.log(100))", "clamp_(max=math.log(100))"),
    Mutant("1.3", "a new tensor in place of a change", "clamp_(", "clamp("),
    Mutant("1.3", "the lower limit is 1, of the logarithm", "clamp_(0,", "clamp_(1,"),
    # ---- unit 2
    Mutant(
        "2.1", "patches in columns in place of rows", "(0, 2, 4, 1, 3, 5)", "(0, 4, 2, 1, 3, 5)"
    ),
    Mutant("2.1", "colours last", "(0, 2, 4, 1, 3, 5)", "(0, 2, 4, 3, 5, 1)"),
    Mutant("2.1", "a patch is turned", "(0, 2, 4, 1, 3, 5)", "(0, 2, 4, 1, 5, 3)"),
    Mutant("2.1", "reshaped without moving a pixel", ".permute(0, 2, 4, 1, 3, 5)", ""),
    Mutant("2.1", "the bias is left out", "return self.proj(x)", "return x @ self.proj.weight.T"),
    Mutant(
        "2.2",
        "no division by the root of d",
        "is_causal=self.causal",
        "is_causal=self.causal, scale=1.0",
    ),
    Mutant(
        "2.2",
        "divided by the root of D",
        "is_causal=self.causal",
        "is_causal=self.causal, scale=D**-0.5",
    ),
    Mutant("2.2", "never causal", "is_causal=self.causal", "is_causal=False"),
    Mutant("2.2", "always causal", "is_causal=self.causal", "is_causal=True"),
    Mutant(
        "2.2",
        "softmax over the queries",
        "y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)",
        "y = (q @ k.mT / (D // self.heads) ** 0.5).softmax(-2) @ v",
    ),
    Mutant("2.2", "keys and values exchanged", "(q, k, v, is_causal", "(q, v, k, is_causal"),
    Mutant("2.2", "queries and keys exchanged", "(q, k, v, is_causal", "(k, q, v, is_causal"),
    Mutant("2.2", "no last layer", "self.proj(y.transpose", "(y.transpose"),
    Mutant(
        "2.2",
        "the mask after the softmax",
        "y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)",
        "weights = (q @ k.mT / (D // self.heads) ** 0.5).softmax(-1)\n"
        "        y = (weights.tril() if self.causal else weights) @ v",
    ),
    Mutant(
        "2.2",
        "a position does not see itself",
        "y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)",
        "hides = torch.ones(N, N).triu(0).bool() if self.causal else torch.zeros(N, N).bool()\n"
        "        y = (q @ k.mT / (D // self.heads) ** 0.5).masked_fill(hides, "
        "-torch.inf).softmax(-1) @ v",
    ),
    Mutant(
        "2.2",
        "heads and places are mixed up",
        "y.transpose(1, 2).reshape(B, N, D)",
        "y.reshape(B, N, D)",
    ),
    Mutant("2.2", "one head", "view(B, N, 3, self.heads, D // self.heads)", "view(B, N, 3, 1, D)"),
    Mutant("2.3", "no residual around attention", "x = x + self.attn(", "x = self.attn("),
    Mutant("2.3", "no residual around the MLP", "x = x + self.mlp(", "x = self.mlp("),
    Mutant(
        "2.3",
        "the norm after the sum",
        "x = x + self.mlp(self.norm2(self.adapter2(x)))",
        "x = self.norm2(x + self.mlp(self.adapter2(x)))",
    ),
    Mutant(
        "2.3",
        "attention and MLP side by side",
        "x = x + self.attn(self.norm1(self.adapter1(x)))\n        x = x + self.mlp(",
        "x = x + self.attn(self.norm1(self.adapter1(x))) + self.mlp(",
    ),
    Mutant("2.3", "norm1 twice", "self.norm2(", "self.norm1("),
    Mutant("2.3", "no adapters", "self.norm1(self.adapter1(x))", "self.norm1(x)"),
    Mutant("2.3", "no norm1", "self.norm1(self.adapter1(x))", "self.adapter1(x)"),
    Mutant(
        "2.3",
        "an adapter behind its norm",
        "self.norm1(self.adapter1(x))",
        "self.adapter1(self.norm1(x))",
    ),
    Mutant(
        "2.3",
        "an adapter in the residual stream",
        "        x = x + self.attn(self.norm1(self.adapter1(x)))\n",
        "        x = self.adapter1(x)\n        x = x + self.attn(self.norm1(x))\n",
    ),
    Mutant(
        "2.3",
        "the input is changed in place",
        "x = x + self.attn(self.norm1(self.adapter1(x)))",
        "x += self.attn(self.norm1(self.adapter1(x)))",
    ),
    Mutant("2.4", "no positions", "self.norm_pre(x + self.pos_embed)", "self.norm_pre(x)"),
    Mutant(
        "2.4",
        "the mean before the norm",
        "x = self.norm(self.blocks(x))  # (B, N, D)\n"
        '        return x[:, 0] if self.pool == "tok" else x.mean(1)',
        "x = self.blocks(x)\n"
        '        return self.norm(x[:, 0] if self.pool == "tok" else x.mean(1))',
    ),
    Mutant("2.4", "no last norm", "self.norm(self.blocks(x))", "self.blocks(x)"),
    Mutant(
        "2.4",
        "the class token stands last",
        "torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)",
        "torch.cat([x, self.cls_token.expand(len(x), -1, -1)], dim=1)",
    ),
    Mutant("2.4", "the first patch in place of the mean", "else x.mean(1)", "else x[:, 0]"),
    Mutant(
        "2.4",
        "the mean, although there is a class token",
        'x[:, 0] if self.pool == "tok" else x.mean(1)',
        "x.mean(1)",
    ),
    Mutant(
        "2.4",
        "CLIP's first norm before the positions",
        "self.norm_pre(x + self.pos_embed)",
        "self.norm_pre(x) + self.pos_embed",
    ),
    Mutant("2.4", "no first norm", "self.norm_pre(x + self.pos_embed)", "x + self.pos_embed"),
    Mutant("2.4", "positions twice", "x + self.pos_embed)", "x + 2 * self.pos_embed)"),
    Mutant(
        "2.4",
        "no position for the class token",
        "self.norm_pre(x + self.pos_embed)",
        "self.norm_pre(torch.cat([x[:, :1], x[:, 1:] + self.pos_embed[:, 1:]], 1) if "
        'self.pool == "tok" else x + self.pos_embed)',
    ),
    # ---- unit 3
    Mutant(
        "3.1",
        "the mean is subtracted, as in a LayerNorm",
        "y = x.float()",
        "y = x.float() - x.float().mean(-1, keepdim=True)",
    ),
    Mutant(
        "3.1",
        "no root",
        "torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)",
        "1 / (y.pow(2).mean(-1, keepdim=True) + self.eps)",
    ),
    Mutant("3.1", "the norm in place of the root mean square", "y.pow(2).mean(", "y.pow(2).sum("),
    Mutant("3.1", "no weight", " * self.weight", ""),
    Mutant("3.1", "over the tokens", "mean(-1,", "mean(-2,"),
    Mutant(
        "3.1",
        "eps outside the root",
        "torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)",
        "1 / (y.pow(2).mean(-1, keepdim=True).sqrt() + self.eps)",
    ),
    Mutant("3.1", "the division in bfloat16", "y = x.float()", "y = x"),
    Mutant(
        "3.1",
        "the weight before the input's dtype",
        "y.to(x.dtype) * self.weight",
        "(y * self.weight).to(x.dtype)",
    ),
    Mutant(
        "3.2",
        "turned the other way",
        "torch.cat((-second, first), dim=-1)",
        "torch.cat((second, -first), dim=-1)",
    ),
    Mutant("3.2", "no minus", "(-second, first)", "(second, first)"),
    Mutant(
        "3.2",
        "neighbours are paired",
        "first, second = x.chunk(2, dim=-1)\n"
        "    return x * cos + torch.cat((-second, first), dim=-1) * sin",
        "first, second = x[..., ::2], x[..., 1::2]\n"
        "    return x * cos + torch.stack((-second, first), dim=-1).flatten(-2) * sin",
    ),
    Mutant(
        "3.2",
        "sine and cosine exchanged",
        "x * cos + torch.cat((-second, first), dim=-1) * sin",
        "x * sin + torch.cat((-second, first), dim=-1) * cos",
    ),
    Mutant(
        "3.2",
        "the second half from the first one that is turned already",
        "return x * cos + torch.cat((-second, first), dim=-1) * sin",
        "cos, sin = cos.chunk(2, -1)[0], sin.chunk(2, -1)[0]\n"
        "    first = first * cos - second * sin\n"
        "    return torch.cat((first, second * cos + first * sin), dim=-1)",
    ),
    Mutant("3.2", "the halves are not exchanged", "(-second, first)", "(-first, second)"),
    Mutant("3.3", "keys are not turned", "        k = rotate(k, cos, sin)\n", ""),
    Mutant(
        "3.3",
        "neither is turned",
        "        q = rotate(q, cos, sin)\n        k = rotate(k, cos, sin)\n",
        "",
    ),
    Mutant(
        "3.3",
        "values are turned, too",
        "v = v.transpose(1, 2)",
        "v = rotate(v.transpose(1, 2), cos, sin)",
    ),
    Mutant("3.3", "not causal", "causal = visible is None", "causal = False"),
    Mutant(
        "3.3",
        "the mask is not used",
        "q, k, v, visible, is_causal=causal",
        "q, k, v, None, is_causal=True",
    ),
    Mutant(
        "3.3",
        "g = h % K",
        "q = rotate(q, cos, sin)",
        "q = rotate(q, cos, sin)\n"
        "        n = self.heads // self.kv_heads\n"
        "        k, v = k.repeat(1, n, 1, 1), v.repeat(1, n, 1, 1)",
    ),
    Mutant("3.3", "no division by the root of d", "enable_gqa=True", "enable_gqa=True, scale=1.0"),
    Mutant(
        "3.3",
        "the mask is true where a token is hidden",
        "q, k, v, visible, is_causal",
        "q, k, v, None if causal else ~visible, is_causal",
    ),
    Mutant("3.3", "no last layer", "self.o_proj(y.transpose", "(y.transpose"),
    Mutant(
        "3.3", "heads and tokens are mixed up at the end", "y.transpose(1, 2).reshape", "y.reshape"
    ),
    Mutant(
        "3.3",
        "queries and keys are not normed",
        "q = self.q_norm(q).transpose(1, 2)  # (B, H, L, d)\n"
        "        k = self.k_norm(k).transpose(1, 2)",
        "q = q.transpose(1, 2)  # (B, H, L, d)\n        k = k.transpose(1, 2)",
    ),
    Mutant(
        "3.4",
        "the mean over padding, too",
        "(mask.sum(1, keepdim=True) - 1)",
        "(mask.shape[1] - 1)",
    ),
    Mutant(
        "3.4",
        "the first token counts in the denominator",
        "mask.sum(1, keepdim=True) - 1",
        "mask.sum(1, keepdim=True)",
    ),
    Mutant(
        "3.4",
        "the first token counts",
        "all_tokens(h, mask).sum(1) / (mask.sum(1, keepdim=True) - 1)",
        "(h.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)",
    ),
    Mutant("3.4", "padding is read", "all_tokens(h, mask).sum(1)", "h[:, 1:].float().sum(1)"),
    Mutant(
        "3.4",
        "the sum in bfloat16",
        "all_tokens(h, mask).sum(1) /",
        "all_tokens(h, mask).to(h.dtype).sum(1) /",
    ),
    Mutant(
        "3.5",
        "the last place, also where it is padding",
        "return h[torch.arange(len(h), device=h.device), last].float()",
        "return h[:, -1].float()",
    ),
    Mutant("3.5", "one too early", "mask.sum(1) - 1", "mask.sum(1) - 2"),
    Mutant("3.5", "the first token", "last = mask.sum(1) - 1", "last = mask.int().argmax(1)"),
    Mutant("3.5", "not in float32", "last].float()", "last]"),
    Mutant(
        "3.6",
        "the weakest directions",
        "variance = variance[-directions:].flip(0)  # (k,) the largest first\n"
        "    V = V[:, -directions:].flip(1)",
        "variance = variance[:directions]\n    V = V[:, :directions]",
    ),
    Mutant(
        "3.6",
        "not centred",
        "covariance = moments / N - torch.outer(mean, mean)",
        "covariance = moments / N",
    ),
    Mutant(
        "3.6",
        "divided by the variance in place of the deviation",
        "V / variance.sqrt() ** power",
        "V / variance ** power",
    ),
    Mutant(
        "3.6",
        "multiplied in place of divided",
        "V / variance.sqrt() ** power",
        "V * variance.sqrt() ** power",
    ),
    Mutant("3.6", "the power is not used", "variance.sqrt() ** power", "variance.sqrt()"),
    Mutant(
        "3.6",
        "fitted on the first half of the captions",
        "    N = len(vectors)\n",
        "    vectors = vectors[: len(vectors) // 2]\n    N = len(vectors)\n",
    ),
    Mutant(
        "3.6",
        "the transposed matrix of directions",
        "V[:, -directions:].flip(1)",
        "V[-directions:].flip(0).T",
    ),
    Mutant(
        "3.6",
        "with 0 directions the mean is 0",
        "return mean.float(), torch.eye(D)",
        "return torch.zeros(D), torch.eye(D)",
    ),
    Mutant(
        "3.6",
        "`before` is not used",
        "if before is not None:\n        covariance",
        "before = None\n    if before is not None:\n        covariance",
    ),
    Mutant(
        "3.6", "empty directions are not refused", "if not variance[-1] > smallest:", "if False:"
    ),
    Mutant(
        "3.6", "too many directions are not refused", "if directions > min(D, N - 1):", "if False:"
    ),
    Mutant(
        "3.6",
        "the captions are taken for a tensor",
        "D = vectors[:1].shape[1]",
        "D = vectors.shape[1]",
    ),
    Mutant(
        "3.6",
        "all captions at once, as a tensor",
        "for chunk in chunks(vectors):",
        "for chunk in [vectors.double()]:",
    ),
    Mutant("3.6", "sums of squares in float32", "x = chunk.double()", "x = chunk.float()"),
    Mutant(
        "3.6",
        "the results stay in float64",
        "return mean.float(), matrix.float()",
        "return mean, matrix",
    ),
    Mutant(
        "3.6",
        "with 0 directions the results stay in float64",
        "return mean.float(), torch.eye(D)",
        "return mean, torch.eye(D, dtype=torch.float64)",
    ),
    Mutant(
        "3.6",
        "`before` is not in the matrix",
        "        matrix = before @ matrix\n",
        "        pass\n",
    ),
    Mutant(
        "3.6",
        "an empty direction is below 1e-9, whatever the largest is",
        "smallest = 1e-9 * variance[0]",
        "smallest = 1e-9",
    ),
    # ---- unit 4
    Mutant(
        "4.1",
        "`text` is in `text_head`, too",
        "return GOES_WITH.get(child, child) == part",
        "return GOES_WITH.get(child, child).startswith(part)",
    ),
    Mutant("4.1", "GOES_WITH is not used", "GOES_WITH.get(child, child)", "child"),
    Mutant(
        "4.1",
        "the transformer's last norm is forgotten",
        '"norm" in parameter or "ln_final" in parameter',
        '"norm" in parameter',
    ),
    Mutant(
        "4.1",
        "the bias of the logits is forgotten",
        'parameter.endswith("bias")',
        'parameter.endswith(".bias")',
    ),
    Mutant(
        "4.1",
        "one of two adapters",
        '".adapter1." in parameter or ".adapter2." in parameter',
        '".adapter1." in parameter',
    ),
    Mutant(
        "4.1",
        "norms are weights only",
        '"norm" in parameter or "ln_final" in parameter',
        '("norm" in parameter or "ln_final" in parameter) and parameter.endswith("weight")',
    ),
    Mutant(
        "4.1",
        "norms of the towers only",
        '"norm" in parameter or "ln_final" in parameter',
        '("norm" in parameter or "ln_final" in parameter) and "head" not in parameter',
    ),
    Mutant("4.2", "frozen parts train, too", "part.train(mode and is_trained)", "part.train(mode)"),
    Mutant(
        "4.2",
        "all parameters of a part must be trained",
        "any(parameter.requires_grad",
        "all(parameter.requires_grad",
    ),
    Mutant(
        "4.2", "the mode is not used", "part.train(mode and is_trained)", "part.train(is_trained)"
    ),
    Mutant(
        "4.2",
        "the first parameter decides",
        "any(parameter.requires_grad for parameter in part.parameters())",
        "any([parameter.requires_grad for parameter in part.parameters()][:1])",
    ),
    Mutant(
        "4.2",
        "the text side is always frozen",
        "part.train(mode and is_trained)",
        "part.train(mode and part not in (self.text, self.text_head))",
    ),
    Mutant(
        "4.2",
        "every module inside is asked, and not every child",
        "for part in self.children():",
        "for part in list(self.modules())[1:]:",
    ),
    Mutant(
        "4.2",
        "parts with one trained parameter are trained as a whole",
        "part.train(mode and is_trained)",
        "part.train(mode and is_trained).requires_grad_(is_trained)",
    ),
    Mutant("4.2", "nothing is given back", "        return self", "        return None"),
    Mutant("4.2", "the model itself keeps its mode", "        super().train(mode)\n", ""),
    Mutant(
        "4.3", "frozen parameters are in the optimizer", "if parameter.requires_grad:", "if True:"
    ),
    Mutant("4.3", "everything decays", "wd if parameter.ndim == 2 else 0.0", "wd"),
    Mutant(
        "4.3", "whatever is called weight decays", "parameter.ndim == 2", 'name.endswith("weight")'
    ),
    Mutant("4.3", "position embeddings decay", "parameter.ndim == 2", "parameter.ndim >= 2"),
    Mutant(
        "4.3",
        "no share of the rate",
        'image_lr_share if name.startswith("visual.") else 1.0',
        "1.0",
    ),
    Mutant(
        "4.3",
        "the image head has the share, too",
        'name.startswith("visual.")',
        'name.startswith(("visual.", "image_head."))',
    ),
    Mutant(
        "4.3",
        "a group without parameters",
        "groups = defaultdict(list)\n",
        "groups = defaultdict(list)\n"
        "    for decay in (wd, 0.0):\n"
        "        groups[decay, image_lr_share]\n",
    ),
    Mutant(
        "4.3",
        "the share is that of the heads",
        'name.startswith("visual.")',
        'not name.startswith("visual.")',
    ),
    Mutant("4.3", "numbers without gradients", ".append(parameter)", ".append(parameter.data)"),
    Mutant("4.3", "copies of the parameters", ".append(parameter)", ".append(parameter.clone())"),
    Mutant(
        "4.3",
        "the scale is forgotten",
        "if parameter.requires_grad:",
        "if parameter.requires_grad and parameter.ndim:",
    ),
    Mutant(
        "4.4",
        "the text side is trained, too",
        'trains=("visual", "image_head", "logit_scale")',
        'trains=("visual", "text", "image_head", "logit_scale")',
    ),
    Mutant(
        "4.4",
        "the scale is frozen",
        'trains=("visual", "image_head", "logit_scale")',
        'trains=("visual", "image_head")',
    ),
    Mutant(
        "4.4",
        "the image tower is frozen",
        'trains=("visual", "image_head", "logit_scale")',
        'trains=("image_head", "logit_scale")',
    ),
    Mutant("4.4", "one matrix as head", "image_head=mlp", "image_head=projection"),
    Mutant("4.4", "a head on the text side", "text_head=no_head", "text_head=projection"),
    Mutant("4.4", "an MLP on the text side", "text_head=no_head", "text_head=mlp"),
    Mutant("4.4", "CLIP's text tower", "text=LLMVectors", "text=TextTransformer"),
    Mutant("4.4", "the cosine loss", "loss=info_nce", "loss=cosine_loss"),
    # ---- unit 5
    Mutant("5.1", "warm-up begins at 0", "cfg.lr * (step + 1) / warmup", "cfg.lr * step / warmup"),
    Mutant(
        "5.1", "warm-up is not limited to a tenth", "min(cfg.warmup, total // 10)", "cfg.warmup"
    ),
    Mutant(
        "5.1",
        "a line in place of a cosine",
        "0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))",
        "(1 - (step - warmup) / (total - warmup))",
    ),
    Mutant(
        "5.1",
        "the cosine begins with the first step",
        "math.pi * (step - warmup) / (total - warmup)",
        "math.pi * step / total",
    ),
    Mutant("5.1", "without the half", "cfg.lr * 0.5 *", "cfg.lr *"),
    Mutant("5.1", "a tenth is not rounded", "total // 10", "total / 10"),
    Mutant("5.1", "a tenth is rounded up", "total // 10", "round(total / 10)"),
    Mutant(
        "5.2",
        "the share is that of a side",
        "width = (area * ratio).sqrt().clamp_max(1)\n"
        "    height = (area / ratio).sqrt().clamp_max(1)",
        "width = (area * ratio.sqrt()).clamp_max(1)\n"
        "    height = (area / ratio.sqrt()).clamp_max(1)",
    ),
    Mutant("5.2", "crops reach over the edge", "(2 * x - 1) * (1 - width)", "(2 * x - 1)"),
    Mutant(
        "5.2",
        "crops on the diagonal only",
        "(2 * y - 1) * (1 - height)",
        "(2 * x - 1) * (1 - height)",
    ),
    Mutant("5.2", "crops are flipped", "theta[:, 0, 0] = width", "theta[:, 0, 0] = -width"),
    Mutant(
        "5.2",
        "numbers of its own, not those that are given",
        "draws.to(device)",
        "torch.rand(4, len(images)).to(device)",
    ),
    Mutant(
        "5.2",
        "one crop for the whole batch",
        "draws.to(device)",
        "draws[:, :1].expand(4, len(images)).to(device)",
    ),
    Mutant(
        "5.2",
        "always in the middle",
        "    theta[:, 0, 2] = (2 * x - 1) * (1 - width)\n"
        "    theta[:, 1, 2] = (2 * y - 1) * (1 - height)\n",
        "",
    ),
    Mutant("5.2", "the ratio is always 1", "math.log(4 / 3)", "0.0"),
    Mutant("5.2", "the ratio is height by width", "(2 * ratio - 1)", "(1 - 2 * ratio)"),
    Mutant(
        "5.2",
        "the ratio is even, and not its logarithm",
        "torch.exp((2 * ratio - 1) * math.log(4 / 3))",
        "3 / 4 + (4 / 3 - 3 / 4) * ratio",
    ),
    Mutant("5.2", "the place is mirrored", "(2 * x - 1) *", "(1 - 2 * x) *"),
    Mutant(
        "5.2",
        "less than the smallest share is kept",
        "    width = torch.maximum(width, smallest / height).clamp_max(1)\n"
        "    height = torch.maximum(height, smallest / width)\n",
        "",
    ),
    Mutant(
        "5.2",
        "corners are aligned",
        "grid = F.affine_grid(theta, images.shape, align_corners=False)  # (B, S, S, 2)\n"
        '    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)',
        "grid = F.affine_grid(theta, images.shape, align_corners=True)\n"
        '    return F.grid_sample(images, grid, padding_mode="border", align_corners=True)',
    ),
    Mutant("5.2", "zeros beyond the edge", 'padding_mode="border"', 'padding_mode="zeros"'),
    Mutant("5.2", "bicubic", 'padding_mode="border"', 'mode="bicubic", padding_mode="border"'),
    Mutant("5.3", "the epoch is not used", "(self.seed, number)", "(self.seed, 0)"),
    Mutant("5.3", "the seed is not used", "(self.seed, number)", "(0, number)"),
    Mutant("5.3", "seed and epoch are added", "(self.seed, number)", "self.seed + number"),
    Mutant(
        "5.3",
        "what was drawn before is given back",
        "if number != self.drawn_epoch:",
        "if self.drawn_epoch is None:",
    ),
    Mutant(
        "5.3",
        "the global generator",
        "order = rng.permutation(len(self.images))",
        "order = np.random.permutation(len(self.images))",
    ),
    Mutant(
        "5.3",
        "drawn with replacement",
        "rng.permutation(len(self.images))",
        "rng.integers(0, len(self.images), len(self.images))",
    ),
    Mutant("5.3", "number and seed exchanged", "(self.seed, number)", "(number, self.seed)"),
    Mutant(
        "5.3",
        "another way to draw an order",
        "rng.permutation(len(self.images))",
        "rng.random(len(self.images)).argsort()",
    ),
    Mutant(
        "5.3",
        "the numbers are drawn first",
        "order = rng.permutation(len(self.images))\n"
        "            draws = rng.random(len(self.images))",
        "draws = rng.random(len(self.images))\n"
        "            order = rng.permutation(len(self.images))",
    ),
    Mutant("5.4", "the share is not used", "if share is None or len(captions) == 1:", "if True:"),
    Mutant(
        "5.4", "the longest is taken for the first", "return captions[-1]", "return captions[0]"
    ),
    Mutant(
        "5.4",
        "what is left is not stretched",
        "(draw - share) / (1 - share) * (len(captions) - 1)",
        "(draw - share) * (len(captions) - 1)",
    ),
    Mutant(
        "5.4",
        "the longest may be drawn again",
        "(1 - share) * (len(captions) - 1)",
        "(1 - share) * len(captions)",
    ),
    Mutant(
        "5.4",
        "the last caption is never drawn",
        "captions[int(draw * len(captions))]",
        "captions[int(draw * (len(captions) - 1))]",
    ),
    Mutant(
        "5.4",
        "a number in place of a tensor",
        "captions[int(draw * len(captions))]",
        "int(captions[int(draw * len(captions))])",
    ),
    Mutant(
        "5.4",
        "the longest comes back as a number",
        "return captions[-1]",
        "return int(captions[-1])",
    ),
    Mutant(
        "5.4",
        "one caption is no special case",
        "if share is None or len(captions) == 1:",
        "captions, last = captions[:-1], captions[-1:]\n"
        "        if share is not None and draw < share:\n"
        "            return last[0]\n"
        "        if share is not None:\n"
        "            return captions[int((draw - share) / (1 - share) * len(captions))]\n"
        "        captions = torch.cat([captions, last])\n"
        "        if True:",
    ),
    Mutant("5.4", "a share of 0 is taken for none", "if share is None or", "if not share or"),
    Mutant(
        "5.5",
        "one direction only",
        "describes | describes.T.contiguous() | same_image",
        "describes | same_image",
    ),
    Mutant(
        "5.5",
        "equal images are forgotten",
        "describes | describes.T.contiguous() | same_image",
        "describes | describes.T",
    ),
    Mutant(
        "5.5",
        "only drawn captions are compared",
        "describes = (all_captions[:, :, None] == caption).any(1)",
        "describes = caption[:, None] == caption",
    ),
    Mutant(
        "5.5",
        "images that share any caption match",
        "describes = (all_captions[:, :, None] == caption).any(1)",
        "describes = (all_captions[:, :, None, None] == "
        "all_captions).logical_and(all_captions[:, :, None, None] >= 0).any(3).any(1)",
    ),
    Mutant(
        "5.5",
        "numbers in place of a mask",
        "describes | describes.T.contiguous() | same_image",
        "(describes | describes.T.contiguous() | same_image).float()",
    ),
    Mutant(
        "5.6",
        "the optimizer starts anew",
        '        optimizer.load_state_dict(checkpoint["optimizer"] | {"param_groups": groups})\n',
        "",
    ),
    Mutant("5.6", "the weights start anew", '    model.load_state_dict(checkpoint["model"])\n', ""),
    Mutant(
        "5.6", "a step is left out", 'start = checkpoint["step"]', 'start = checkpoint["step"] + 1'
    ),
    Mutant(
        "5.6",
        "other data are accepted",
        'if checkpoint.get("data_fingerprint") != data_fingerprint:',
        "if False:",
    ),
    Mutant("5.6", "a finished run goes on", "if start >= total:", "if start > total:"),
    Mutant(
        "5.6",
        "rate and decay come from the checkpoint",
        'checkpoint["optimizer"] | {"param_groups": groups}',
        'checkpoint["optimizer"]',
    ),
    Mutant(
        "5.6", "weights of another shape are no BadInput", "    if problem:\n", "    if False:\n"
    ),
    Mutant(
        "5.6",
        "weights of other names are accepted",
        '    problem = mismatch(checkpoint["model"], model, "its configuration wants")\n',
        "    theirs = {k: v for k, v in model.state_dict().items()} | {\n"
        '        k: v for k, v in checkpoint["model"].items() if k in model.state_dict()\n'
        "    }\n"
        '    checkpoint["model"] = theirs\n'
        '    problem = mismatch(theirs, model, "its configuration wants")\n',
    ),
    Mutant(
        "5.6",
        "only one of two moments is compared",
        '"exp_avg_sq": shape}',
        '"exp_avg_sq": moments["exp_avg_sq"].shape}',
    ),
    Mutant("5.6", "moments of another shape are accepted", "if not fits:", "if False:"),
    # ---- unit 6
    Mutant("6.1", "> in place of >=", "scores < best - TIE", "scores <= best"),
    Mutant(
        "6.1",
        "every comparison with NaN is false",
        "(~is_behind & ~is_correct)",
        "((scores >= best - TIE) & ~is_correct)",
    ),
    Mutant(
        "6.1",
        "the worst right answer counts",
        "scores.masked_fill(~is_correct, -torch.inf).amax(",
        "scores.masked_fill(~is_correct, torch.inf).amin(",
    ),
    Mutant(
        "6.1",
        "other right answers are mistakes",
        "(~is_behind & ~is_correct).sum(1)",
        "(~is_behind).sum(1) - 1",
    ),
    Mutant(
        "6.1",
        "negative scores are below those of wrong answers",
        "scores.masked_fill(~is_correct, -torch.inf)",
        "scores.masked_fill(~is_correct, 0)",
    ),
    Mutant(
        "6.1",
        "no right answer is the rank 0",
        "(~is_behind & ~is_correct).sum(1)",
        "(~is_behind & ~is_correct).sum(1) * is_correct.any(1)",
    ),
    Mutant("6.1", "counted from 1", ".sum(1)", ".sum(1) + 1"),
    Mutant("6.1", "no tolerance for rounding", "best - TIE", "best"),
    Mutant(
        "6.2",
        "equal captions are not right",
        "is_equal = caption_ids[start : start + chunk, None] == caption_ids",
        "is_equal = torch.arange(len(caption_ids))[start : start + chunk, None] == "
        "torch.arange(len(caption_ids))",
    ),
    Mutant(
        "6.2",
        "cosines are compared without TIE and NaN",
        "image_to_text.append(rank_of_best(scores, is_correct))",
        "best = scores.masked_fill(~is_correct, -torch.inf).amax(1, keepdim=True)\n"
        "        image_to_text.append(((scores >= best) & ~is_correct).sum(1))",
    ),
    Mutant(
        "6.2",
        "the same direction twice",
        "return torch.cat(image_to_text), torch.cat(text_to_image)",
        "return torch.cat(image_to_text), torch.cat(image_to_text)",
    ),
    Mutant(
        "6.2",
        "only the first piece is searched",
        "in_chunk = (image_of_caption >= start) & (image_of_caption < start + len(scores))",
        "in_chunk = image_of_caption < len(scores)",
    ),
    Mutant(
        "6.2",
        "an image finds only its own copy of a caption",
        "has_id[image_of_caption[in_chunk] - start, caption_ids[in_chunk]] = True\n"
        "        is_correct = has_id[:, caption_ids]",
        "is_correct = image_of_caption == torch.arange(start, start + len(scores))[:, None]",
    ),
    Mutant(
        "6.2",
        "caption i belongs to image i",
        "is_correct[question, image_of_caption[equal_caption]] = True",
        "is_correct[question, equal_caption % len(image_features)] = True",
    ),
    Mutant(
        "6.2",
        "an image without captions has the rank 0",
        "image_to_text.append(rank_of_best(scores, is_correct))",
        "image_to_text.append(rank_of_best(scores, is_correct) * is_correct.any(1))",
    ),
    Mutant(
        "6.3", ">= in place of >", "true_scores > false_scores + TIE", "true_scores >= false_scores"
    ),
    Mutant(
        "6.3",
        "the wrong one is preferred",
        "true_scores > false_scores + TIE",
        "true_scores < false_scores - TIE",
    ),
    Mutant(
        "6.3",
        "not behind counts as right",
        "true_scores > false_scores + TIE",
        "~(true_scores < false_scores)",
    ),
    Mutant("6.3", "no tolerance for rounding", "false_scores + TIE", "false_scores"),
    Mutant(
        "6.3",
        "any image of the batch",
        "(image_features * true_features).sum(-1)",
        "(image_features @ true_features.T).amax(0)",
    ),
    Mutant(
        "6.4",
        "argmax: the first of equal classes wins",
        "return not_behind.sum(1) <= k",
        "return scores.argsort(1, descending=True, stable=True)[:, :k].eq(labels[:, None]).any(1)",
    ),
    Mutant("6.4", "ties help", "~(scores < right - TIE)", "scores > right"),
    Mutant("6.4", "no tolerance for rounding", "right - TIE", "right"),
    Mutant("6.4", "k is one too small", "sum(1) <= k", "sum(1) < k"),
    Mutant("6.4", "k is not used", "sum(1) <= k", "sum(1) <= 1"),
    Mutant(
        "6.4",
        "NaN helps",
        "not_behind = ~(scores < right - TIE)",
        "not_behind = scores >= right - TIE",
    ),
    Mutant(
        "6.5",
        "text and image are exchanged",
        "return text_score, image_score,",
        "return image_score, text_score,",
    ),
    Mutant("6.5", "group is either", "text_score & image_score", "text_score | image_score"),
    Mutant(
        "6.5",
        "a tie is right",
        "s.diagonal(dim1=1, dim2=2) - TIE",
        "s.diagonal(dim1=1, dim2=2) + TIE",
    ),
    Mutant(
        "6.5",
        "one of two is enough",
        "(right[:, 0] > s[:, 0, 1]) & (",
        "(right[:, 0] > s[:, 0, 1]) | (",
    ),
    Mutant(
        "6.5",
        "one side of the table twice",
        "(right[:, 0] > s[:, 1, 0]) & (right[:, 1] > s[:, 0, 1])",
        "(right[:, 0] > s[:, 1, 0]) & (right[:, 1] > s[:, 1, 0])",
    ),
    Mutant(
        "6.5",
        "NaN is right",
        "(right[:, 0] > s[:, 0, 1]) & (right[:, 1] > s[:, 1, 0])",
        "~((right[:, 0] <= s[:, 0, 1]) | (right[:, 1] <= s[:, 1, 0]))",
    ),
    Mutant("6.6", "68 % in place of 95 %", "(2.5, 97.5)", "(16, 84)"),
    Mutant("6.6", "90 % in place of 95 %", "(2.5, 97.5)", "(5, 95)"),
    Mutant("6.6", "an array comes back", "(2.5, 97.5)).tolist()", "(2.5, 97.5))"),
    Mutant(
        "6.6",
        "the mean and 1.96 deviations",
        "np.percentile(means, (2.5, 97.5)).tolist()",
        "[float(np.mean(means) + side * np.std(means)) for side in (-1.96, 1.96)]",
    ),
    Mutant("6.6", "always 1,000 samples", "range(resamples)", "range(1000)"),
    Mutant("6.6", "other draws in each call", "default_rng(0)", "default_rng()"),
    Mutant(
        "6.6",
        "groups are not used",
        "np.arange(len(hits)) if groups is None else np.asarray(groups)",
        "np.arange(len(hits))",
    ),
    Mutant(
        "6.6",
        "drawn without replacement",
        "rng.integers(0, len(total), len(total))",
        "rng.permutation(len(total))",
    ),
    Mutant(
        "6.6",
        "half as many are drawn",
        "rng.integers(0, len(total), len(total))",
        "rng.integers(0, len(total), len(total) // 2)",
    ),
    Mutant(
        "6.6",
        "the spread of answers in place of that of means",
        "means.append(total[drawn].sum() / size[drawn].sum())",
        "means.append(hits[drawn[0] % len(hits)])",
    ),
    Mutant(
        "6.6",
        "the mean of the groups' means",
        "total[drawn].sum() / size[drawn].sum()",
        "(total[drawn] / size[drawn]).mean()",
    ),
    # ---- unit 7
    Mutant(
        "7.1",
        "the network on the mean",
        "summed = (self.net(tokens.float()) * is_real).sum(1)  # (B, d_out)\n"
        "        return summed / is_real.sum(1).clamp_min(1)",
        "return self.net((tokens.float() * is_real).sum(1) / is_real.sum(1).clamp_min(1))",
    ),
    Mutant("7.1", "the mean over padding, too", "is_real.sum(1).clamp_min(1)", "tokens.shape[1]"),
    Mutant("7.1", "padding becomes the bias of the network", " * is_real).sum(1)", ").sum(1)"),
    Mutant("7.1", "divided by zero", "is_real.sum(1).clamp_min(1)", "is_real.sum(1)"),
    Mutant(
        "7.1", "a token with one zero is padding", "(tokens != 0).any(-1", "(tokens != 0).all(-1"
    ),
    Mutant(
        "7.1",
        "a token whose first number is 0 is padding",
        "(tokens != 0).any(-1, keepdim=True)",
        "tokens[..., :1] != 0",
    ),
    Mutant(
        "7.1",
        "a token whose sum is 0 is padding",
        "(tokens != 0).any(-1, keepdim=True)",
        "tokens.sum(-1, keepdim=True) != 0",
    ),
    Mutant("7.1", "the network in half precision", "self.net(tokens.float())", "self.net(tokens)"),
    Mutant(
        "7.1",
        "each token is a caption of its own",
        "self.net(tokens.float())",
        "self.net(tokens.float().flatten(0, 1)[:, None]).reshape(*tokens.shape[:2], -1)",
    ),
    Mutant(
        "7.1",
        "the network gets real tokens only",
        "        summed = (self.net(tokens.float()) * is_real).sum(1)  # (B, d_out)\n"
        "        return summed / is_real.sum(1).clamp_min(1)",
        "        ys = [self.net(c[r][None])[0] for c, r in zip(tokens.float(), is_real[..., 0])]\n"
        "        return torch.stack([y.sum(0) / max(1, len(y)) for y in ys])",
    ),
    Mutant("7.2", "one linear layer", "deep_mlp(d_in, d_out)", "nn.Linear(d_in, d_out)"),
    Mutant("7.2", "LIFT's head of two layers", "deep_mlp(d_in, d_out)", "mlp(d_in, d_out)"),
    Mutant(
        "7.2",
        "no mean: a feature for each token",
        "TokenMean(deep_mlp(d_in, d_out))",
        "deep_mlp(d_in, d_out)",
    ),
    Mutant(
        "7.2",
        "tokens see each other",
        "TokenMean(deep_mlp(d_in, d_out))",
        "ape_transformer(d_in, d_out)",
    ),
    Mutant("7.3", "tokens look ahead", "causal=True", "causal=False"),
    Mutant(
        "7.3",
        "no token sees another one",
        "nn.Linear(d_in, half), block, nn.LayerNorm",
        "nn.Linear(d_in, half), block.mlp, nn.LayerNorm",
    ),
    Mutant("7.3", "no last norm", "block, nn.LayerNorm(half), ", "block, "),
    Mutant("7.3", "a block of the whole width", "half = d_in // 2", "half = d_in"),
    Mutant("7.3", "one head of attention", "heads=math.gcd(half, 8)", "heads=1"),
    Mutant("7.3", "heads of another width", "math.gcd(half, 8)", "math.gcd(d_in, 8)"),
    Mutant("7.4", "with a bias", ", bias=False", ""),
    Mutant("7.4", "an MLP", "nn.Linear(d_in, d_out, bias=False)", "mlp(d_in, d_out)"),
    Mutant(
        "7.4",
        "no mean",
        "TokenMean(nn.Linear(d_in, d_out, bias=False))",
        "nn.Linear(d_in, d_out, bias=False)",
    ),
    Mutant(
        "7.4",
        "width and shared dimension exchanged",
        "nn.Linear(d_in, d_out, bias=False)",
        "nn.Linear(d_out, d_in, bias=False)",
    ),
    Mutant("7.5", "padding counts", "            tokens = tokens[(tokens != 0).any(-1)]\n", ""),
    Mutant(
        "7.5",
        "the variance in place of the deviation",
        "variance.clamp_min(1e-12).sqrt().float()",
        "variance.clamp_min(1e-12).float()",
    ),
    Mutant(
        "7.5", "a token with one zero is padding", "(tokens != 0).any(-1)", "(tokens != 0).all(-1)"
    ),
    Mutant(
        "7.5", "a token whose sum is 0 is padding", "(tokens != 0).any(-1)", "tokens.sum(-1) != 0"
    ),
    Mutant("7.5", "a deviation is at least 1", "clamp_min(1e-12)", "clamp_min(1)"),
    Mutant("7.5", "a deviation is at least 0.03", "clamp_min(1e-12)", "clamp_min(1e-3)"),
    Mutant(
        "7.5",
        "the captions are taken for a tensor",
        "for chunk in chunks(inputs, 1000):",
        "for chunk in [inputs[(inputs != 0).any(-1)][None]]:",
    ),
    Mutant(
        "7.5",
        "the captions are taken for a list",
        "for chunk in chunks(inputs, 1000):",
        "for chunk in [row[None] for row in inputs]:",
    ),
    Mutant(
        "7.5",
        "the results stay in float64",
        "return mean.float(), variance.clamp_min(1e-12).sqrt().float()",
        "return mean, variance.clamp_min(1e-12).sqrt()",
    ),
    Mutant(
        "7.5",
        "a constant has the deviation 1e-12",
        ".clamp_min(1e-12).sqrt()",
        ".clamp_min(1e-24).sqrt()",
    ),
    Mutant("7.5", "sums in half precision", "chunk.double()", "chunk"),
    Mutant("7.5", "sums in float32", "chunk.double()", "chunk.float()"),
    Mutant(
        "7.5",
        "only the last thousand counts",
        "squares += (tokens * tokens).sum(0)",
        "squares = (tokens * tokens).sum(0)",
    ),
    Mutant(
        "7.5", "a constant has the deviation 0", ".clamp_min(1e-12).sqrt()", ".clamp_min(0).sqrt()"
    ),
    Mutant("7.5", "the mean is not subtracted", "squares / count - mean * mean", "squares / count"),
    # ---- unit 8
    Mutant("8.1", "no alpha / r", "self.scale * self.lora_B", "self.lora_B"),
    Mutant(
        "8.1",
        "divided by alpha / r",
        "self.scale * self.lora_B(self.lora_A(x))",
        "self.lora_B(self.lora_A(x)) / self.scale",
    ),
    Mutant("8.1", "the layer itself is left out", "self.linear(x) + ", ""),
    Mutant(
        "8.1",
        "an activation in between",
        "self.lora_B(self.lora_A(x))",
        "self.lora_B(F.relu(self.lora_A(x)))",
    ),
    Mutant("8.1", "B is not zero", "        nn.init.zeros_(self.lora_B.weight)\n", ""),
    Mutant(
        "8.1", "A is zero in place of B", "zeros_(self.lora_B.weight)", "zeros_(self.lora_A.weight)"
    ),
    Mutant(
        "8.1",
        "A is zero, too",
        "nn.init.zeros_(self.lora_B.weight)",
        "nn.init.zeros_(self.lora_B.weight)\n        nn.init.zeros_(self.lora_A.weight)",
    ),
    Mutant("8.1", "the scale is alpha", "self.scale = alpha / rank", "self.scale = alpha"),
    Mutant(
        "8.1",
        "the scale is a tensor",
        "self.scale = alpha / rank",
        "self.scale = torch.tensor(alpha / rank)",
    ),
    Mutant(
        "8.1", "the scale is r / alpha", "self.scale = alpha / rank", "self.scale = rank / alpha"
    ),
    Mutant(
        "8.1",
        "rank and width exchanged",
        "nn.Linear(linear.in_features, rank, bias=False)",
        "nn.Linear(rank, linear.in_features, bias=False)",
    ),
    Mutant(
        "8.1",
        "inputs and outputs of the layer exchanged",
        "nn.Linear(linear.in_features, rank, bias=False)",
        "nn.Linear(linear.out_features, rank, bias=False)",
    ),
    Mutant(
        "8.1",
        "the way up has a bias",
        "nn.Linear(rank, linear.out_features, bias=False)",
        "nn.Linear(rank, linear.out_features)",
    ),
    Mutant(
        "8.1",
        "a new layer in place of the frozen one",
        "self.linear = linear\n",
        "self.linear = nn.Linear(linear.in_features, linear.out_features)\n",
    ),
    Mutant(
        "8.1",
        "A is drawn with the deviation 1",
        "nn.init.zeros_(self.lora_B.weight)",
        "nn.init.zeros_(self.lora_B.weight)\n        nn.init.normal_(self.lora_A.weight)",
    ),
    Mutant(
        "8.1",
        "plain parameters, which files name otherwise",
        "        self.lora_A = nn.Linear(linear.in_features, rank, bias=False)\n"
        "        self.lora_B = nn.Linear(rank, linear.out_features, bias=False)\n"
        "        nn.init.zeros_(self.lora_B.weight)\n"
        "\n"
        "    def forward(self, x: Tensor) -> Tensor:\n"
        "        return self.linear(x) + self.scale * self.lora_B(self.lora_A(x))\n",
        "        self.lora_A = nn.Parameter(nn.Linear(linear.in_features, rank).weight.detach())\n"
        "        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank))\n"
        "\n"
        "    def forward(self, x: Tensor) -> Tensor:\n"
        "        return self.linear(x) + self.scale * x @ self.lora_A.T @ self.lora_B.T\n",
    ),
    Mutant("8.2", "no residual", "x + self.up", "self.up"),
    Mutant("8.2", "ReLU in place of GELU", "F.gelu(self.down(x))", "F.relu(self.down(x))"),
    Mutant(
        "8.2",
        "GELU by its approximation",
        "F.gelu(self.down(x))",
        'F.gelu(self.down(x), approximate="tanh")',
    ),
    Mutant(
        "8.2",
        "the input is changed in place",
        "return x + self.up(F.gelu(self.down(x)))",
        "x += self.up(F.gelu(self.down(x)))\n        return x",
    ),
    Mutant("8.2", "no activation", "F.gelu(self.down(x))", "self.down(x)"),
    Mutant("8.2", "W_up is not zero", "        nn.init.zeros_(self.up.weight)\n", ""),
    Mutant(
        "8.2",
        "W_up is zero until all layers are drawn",
        "        init_linears(self)\n        nn.init.zeros_(self.up.weight)\n",
        "        nn.init.zeros_(self.up.weight)\n        init_linears(self)\n",
    ),
    Mutant(
        "8.2",
        "W_down is zero in place of W_up",
        "nn.init.zeros_(self.up.weight)",
        "nn.init.zeros_(self.down.weight)",
    ),
    Mutant(
        "8.2",
        "W_down is zero, too",
        "nn.init.zeros_(self.up.weight)",
        "nn.init.zeros_(self.up.weight)\n        nn.init.zeros_(self.down.weight)",
    ),
    Mutant(
        "8.2",
        "no bottleneck",
        "nn.Linear(width, width // 4)\n        self.up = nn.Linear(width // 4, width)",
        "nn.Linear(width, width)\n        self.up = nn.Linear(width, width)",
    ),
    Mutant(
        "8.2",
        "a bottleneck of half the width",
        "nn.Linear(width, width // 4)\n        self.up = nn.Linear(width // 4, width)",
        "nn.Linear(width, width // 2)\n        self.up = nn.Linear(width // 2, width)",
    ),
    Mutant("8.2", "drawn as PyTorch draws", "        init_linears(self)\n", ""),
    Mutant(
        "8.2",
        "drawn as PyTorch draws, with biases of zero",
        "init_linears(self)",
        "nn.init.zeros_(self.down.bias)\n        nn.init.zeros_(self.up.bias)",
    ),
    Mutant(
        "8.2",
        "the way up has no bias",
        "nn.Linear(width // 4, width)",
        "nn.Linear(width // 4, width, bias=False)",
    ),
    Mutant(
        "8.2",
        "GELU at the end",
        "x + self.up(F.gelu(self.down(x)))",
        "x + F.gelu(self.up(self.down(x)))",
    ),
    Mutant(
        "8.3",
        "both directions",
        "return F.cross_entropy(logits, torch.arange(len(first), device=first.device))",
        "target = torch.arange(len(first))\n"
        "    return (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, : "
        "len(first)].T, target)) / 2",
    ),
    Mutant(
        "8.3",
        "the other direction",
        "return F.cross_entropy(logits, torch",
        "return F.cross_entropy(logits[:, : len(first)].T, torch",
    ),
    Mutant("8.3", "no scale", "logits = scale * first", "logits = first"),
    Mutant(
        "8.3",
        "divided by the scale",
        "logits = scale * first @ second.T",
        "logits = first @ second.T / scale",
    ),
    Mutant("8.3", "duplicates are negatives", "if duplicates is not None:", "if False:"),
    Mutant("8.3", "the diagonal is masked, too", "duplicates & off_diagonal", "duplicates"),
    Mutant(
        "8.3", "a square diagonal", "torch.eye(*logits.shape, dtype", "torch.eye(len(first), dtype"
    ),
    Mutant(
        "8.3",
        "a target for each second caption",
        "torch.arange(len(first)",
        "torch.arange(len(second)",
    ),
    Mutant(
        "8.3",
        "the caller's mask is changed",
        "logits = logits.masked_fill(duplicates & off_diagonal, -torch.inf)",
        "logits = logits.masked_fill(duplicates.logical_and_(off_diagonal), -torch.inf)",
    ),
    Mutant(
        "8.3",
        "hard negatives are not used",
        "logits = scale * first @ second.T  # (B, C)",
        "logits = scale * first @ second[: len(first)].T\n"
        "    duplicates = None if duplicates is None else duplicates[:, : len(first)]",
    ),
    Mutant(
        "8.4",
        "a tie is right",
        "n_as_near = (scores >= partner).sum(1)  # (N,) the partner itself is one of them\n"
        "    return (n_as_near == 1)",
        "n_as_near = (scores > partner).sum(1)\n    return (n_as_near == 0)",
    ),
    Mutant(
        "8.4",
        "scalar products in place of cosines",
        "F.normalize(second.float(), dim=1).T",
        "second.float().T",
    ),
    Mutant(
        "8.4", "the other direction", "(scores >= partner).sum(1)", "(scores.T >= partner).sum(1)"
    ),
    Mutant(
        "8.4",
        "normed over the captions",
        "F.normalize(first.float(), dim=1) @ F.normalize(second.float(), dim=1).T",
        "F.normalize(first.float(), dim=0) @ F.normalize(second.float(), dim=0).T",
    ),
    Mutant(
        "8.4",
        "no lengths are removed",
        "F.normalize(first.float(), dim=1) @ F.normalize(second.float(), dim=1).T",
        "first.float() @ second.float().T",
    ),
    Mutant("8.4", "a millionth is a tie", "scores >= partner", "scores >= partner - 1e-6"),
    Mutant("8.5", "no scale", "adapter.scale * (B @ A)", "B @ A"),
    Mutant(
        "8.5", "the detour in place of the sum", "weight.float() + adapter.scale", "adapter.scale"
    ),
    Mutant("8.5", "subtracted", "weight.float() + adapter", "weight.float() - adapter"),
    Mutant("8.5", "any model will do", "if adapter.llm_hash != llm.hash:", "if False:"),
    Mutant(
        "8.5",
        "only the first layer",
        "weight.copy_(weight.float() + adapter.scale * (B @ A))",
        "weight.copy_(weight.float() + adapter.scale * (B @ A))\n        break",
    ),
    Mutant(
        "8.5",
        "the block to read after is forgotten",
        '    llm.tuned_layer = llm.pool_layer("mean", adapter.layer)\n',
        "",
    ),
    Mutant(
        "8.5",
        "how far tokens see is forgotten",
        "    llm.model.bidirectional = adapter.bidirectional\n",
        "",
    ),
    Mutant(
        "8.5",
        "shapes are not compared",
        "if A.shape != (rank, d_in) or B.shape != (d_out, rank):",
        "if False:",
    ),
    Mutant(
        "8.5",
        "numbers that are not finite are merged",
        "if not all(bool(parameter.isfinite().all()) for parameter in llm.parameters()):",
        "if False:",
    ),
    Mutant(
        "8.5",
        "a layer that is not there is left out",
        "    for name, (A, B) in adapter.pairs.items():\n",
        "    for name, (A, B) in adapter.pairs.items():\n"
        "        if name not in dict(llm.model.named_modules()):\n"
        "            continue\n",
    ),
    Mutant(
        "8.5",
        "sums in the weight's own precision",
        "weight.float() + adapter.scale * (B @ A)",
        "weight + (adapter.scale * (B @ A)).to(weight.dtype)",
    ),
    Mutant(
        "8.5",
        "a new weight, which is trained",
        "weight.copy_(weight.float() + adapter.scale * (B @ A))",
        "llm.model.get_submodule(name).weight = nn.Parameter(weight.float() + "
        "adapter.scale * (B @ A))",
    ),
    # ---- unit 9
    Mutant("9.1", "the wrong sign", "return contrast +", "return -contrast +"),
    Mutant("9.1", "duplicates are pushed apart", "logit_scale, duplicates)", "logit_scale)"),
    Mutant(
        "9.1",
        "a loss per pair",
        "return contrast + lift.cosine_loss(image_features, text_features)",
        "return 1 - (image_features * text_features).sum(-1)",
    ),
    Mutant(
        "9.1",
        "the images are detached",
        "return contrast + lift.cosine_loss(image_features, text_features)",
        "return contrast.detach() + 0 * text_features.sum()",
    ),
    Mutant(
        "9.1",
        "the order of the batch counts",
        "return contrast +",
        "return contrast * image_features[0, 0] +",
    ),
    Mutant("9.2", "another width", "nn.Linear(d_in, d_out)", "nn.Linear(d_in, d_in)"),
    Mutant(
        "9.2",
        "over its budget",
        "lift.Residual(d_in), ",
        "*[lift.Residual(d_in) for _ in range(5)], ",
    ),
    Mutant(
        "9.2",
        "nothing in it learns",
        "return nn.Sequential(lift.Residual(d_in), nn.LayerNorm(d_in), nn.Linear(d_in, d_out))",
        "return nn.Sequential(lift.Residual(d_in), nn.LayerNorm(d_in), "
        "nn.Linear(d_in, d_out)).requires_grad_(False)",
    ),
    Mutant(
        "9.2",
        "one feature for all images",
        "lift.Residual(d_in), nn.LayerNorm(d_in)",
        "nn.BatchNorm1d(d_in), nn.Threshold(1e9, 0.0)",
    ),
    Mutant("9.3", "LIFT's head", "        image_head=own_head,\n", ""),
    Mutant("9.3", "LIFT's loss", "        loss=own_loss,\n", ""),
    Mutant(
        "9.3",
        "the image tower is frozen",
        '"visual", "image_head", "logit_scale"',
        '"image_head", "logit_scale"',
    ),
    Mutant("9.3", "CLIP's text tower", 'lift.METHODS["lift"]', 'lift.METHODS["clip"]'),
    Mutant(
        "9.3",
        "the head is frozen",
        '"visual", "image_head", "logit_scale"',
        '"visual", "logit_scale"',
    ),
]

# macOS sets no limit of memory, so nothing finds this one there.
if sys.platform == "linux":
    MUTANTS.append(
        Mutant(
            "6.2",
            "the whole matrix at once",
            "    image_to_text = []\n",
            "    image_to_text = []\n    chunk = max(len(image_features), len(text_features))\n",
        )
    )
