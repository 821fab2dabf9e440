"""Right answers that are written in another way than the reference. The tests must take them, too.

    make course-check

A test that takes only the reference's own words is as bad as one that takes a wrong solution: it
costs a student points for a right function. So each hole has a second body here, with loops in
place of matrices, softmax by hand, or in another order. They are not tuned to be short or fast. A
class has a body for each of its methods, in their order.

The row of the table (task 4.4) has none: there is one right row.
"""

import textwrap

from .holes import Task, punch

ANSWERS = {
    "1.1": """
B = image_features.shape[0]
z, t = image_features.to(torch.float32), text_features.to(torch.float32)
scores = (z[:, None] * t[None]).sum(-1) * logit_scale.to(torch.float32)
if duplicates is not None:
    mask = duplicates.clone()
    mask.fill_diagonal_(False)
    scores = torch.where(mask, torch.full_like(scores, float("-inf")), scores)
rows = -torch.log_softmax(scores, dim=1).diagonal().mean()
columns = -torch.log_softmax(scores, dim=0).diagonal().mean()
return 0.5 * (rows + columns)
""",
    "1.2": """
return (1 - torch.einsum("bd,bd->b", image_features.float(), text_features.float())).mean()
""",
    "1.3": """
with torch.no_grad():
    if logit_scale > math.log(100):
        logit_scale.fill_(math.log(100))
    if logit_scale < 0:
        logit_scale.fill_(0)
""",
    "2.1": """
x = F.pixel_unshuffle(x, self.patch)
return self.proj(x.flatten(2).transpose(1, 2))
""",
    "2.2": """
B, N, D = x.shape
d = D // self.heads
q, k, v = self.qkv(x).chunk(3, dim=-1)
split = lambda y: y.reshape(B, N, self.heads, d).transpose(1, 2)
q, k, v = split(q), split(k), split(v)
scores = q @ k.transpose(-1, -2) * d**-0.5
if self.causal:
    i = torch.arange(N, device=x.device)
    scores = scores.masked_fill(i[None, :] > i[:, None], float("-inf"))
y = torch.softmax(scores, dim=-1) @ v
return self.proj(y.transpose(1, 2).flatten(2))
""",
    "2.3": """
h = x + self.attn(self.norm1(self.adapter1(x)))
return h + self.mlp(self.norm2(self.adapter2(h)))
""",
    "2.4": """
x = self.patch_embed(images)
if self.cls_token is not None:
    x = torch.cat((self.cls_token.repeat(x.shape[0], 1, 1), x), 1)
x = self.norm_pre(x + self.pos_embed)
for block in self.blocks:
    x = block(x)
x = self.norm(x)
if self.pool == "tok":
    return x[:, 0, :]
return x.mean(dim=1)
""",
    "3.1": """
wide = x.to(torch.float32)
root = (wide.square().mean(dim=-1, keepdim=True) + self.eps).sqrt()
return (wide / root).to(x.dtype) * self.weight
""",
    "3.2": """
half = x.shape[-1] // 2
a, b = x[..., :half], x[..., half:]
c, s = cos[:, :half], sin[:, :half]
return torch.cat([a * c - b * s, b * c + a * s], dim=-1)
""",
    "3.3": """
B, L, _ = x.shape
q = self.q_norm(self.q_proj(x).reshape(B, L, self.heads, self.head_dim)).permute(0, 2, 1, 3)
k = self.k_norm(self.k_proj(x).reshape(B, L, self.kv_heads, self.head_dim)).permute(0, 2, 1, 3)
v = self.v_proj(x).reshape(B, L, self.kv_heads, self.head_dim).permute(0, 2, 1, 3)
q, k = rotate(q, cos, sin), rotate(k, cos, sin)
n = self.heads // self.kv_heads
k, v = k.repeat_interleave(n, dim=1), v.repeat_interleave(n, dim=1)
scores = q @ k.transpose(2, 3) / self.head_dim**0.5
if visible is None:
    visible = torch.ones(L, L, dtype=torch.bool, device=x.device).tril()
scores = scores.masked_fill(~visible, float("-inf"))
return self.o_proj((scores.softmax(-1) @ v).permute(0, 2, 1, 3).reshape(B, L, -1))
""",
    "3.4": """
keep = mask.clone()
keep[:, 0] = False
total = torch.where(keep.unsqueeze(-1), h.float(), torch.zeros(())).sum(dim=1)
return total / keep.sum(dim=1, keepdim=True)
""",
    "3.5": """
place = (mask.sum(dim=1) - 1).view(-1, 1, 1).expand(-1, 1, h.shape[-1])
return h.gather(1, place).squeeze(1).float()
""",
    "3.6": """
N = len(vectors)
x = torch.cat([part.double() for part in chunks(vectors)])
D = x.shape[1]
if directions > min(D, N - 1):
    raise BadInput(f"--whiten {directions} is too many")
mean = x.mean(0)
if directions == 0:
    return mean.float(), torch.eye(D)
x = x - mean
first = torch.eye(D, dtype=torch.float64) if before is None else before
_, singular, Vh = torch.linalg.svd(x @ first, full_matrices=False)
variance = singular**2 / N
if variance[directions - 1] < 1e-9 * variance[0]:
    raise BadInput("--whiten: an empty direction")
V = Vh[:directions].T
return mean.float(), (first @ V @ torch.diag(variance[:directions] ** (-power / 2))).float()
""",
    "4.1": """
if part == "norms":
    return any(word in parameter for word in ("norm", "ln_final"))
if part == "biases":
    return parameter[-4:] == "bias"
if part == "adapters":
    return "adapter1" in parameter.split(".") or "adapter2" in parameter.split(".")
head = parameter.partition(".")[0]
if head in GOES_WITH:
    head = GOES_WITH[head]
return head == part
""",
    "4.2": """
nn.Module.train(self, mode)
for name, child in self.named_children():
    if not [p for p in child.parameters() if p.requires_grad]:
        child.eval()
return self
""",
    "4.3": """
groups = []
for name, parameter in model.named_parameters():
    if not parameter.requires_grad:
        continue
    share = 1.0
    if name.split(".")[0] == "visual":
        share = image_lr_share
    decay = wd if parameter.dim() == 2 else 0.0
    groups.append({"params": [parameter], "weight_decay": decay, "lr_share": share})
return groups
""",
    "5.1": """
W = cfg.warmup if cfg.warmup < total // 10 else total // 10
if W > step:
    return (step + 1) / W * cfg.lr
share = (step - W) / max(total - W, 1)
return cfg.lr * math.cos(math.pi * share / 2) ** 2
""",
    "5.2": """
boxes = []
for a, r, x, y in draws.T.tolist():
    area = smallest + a * (1 - smallest)
    ratio = (4 / 3) ** (2 * r - 1)
    w, h = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
    w = min(1.0, max(w, smallest / h))
    h = min(1.0, max(h, smallest / w))
    boxes.append([[w, 0, (2 * x - 1) * (1 - w)], [0, h, (2 * y - 1) * (1 - h)]])
theta = torch.tensor(boxes, device=images.device)
grid = F.affine_grid(theta, list(images.shape), align_corners=False)
return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
""",
    "5.3": """
rng = np.random.default_rng([self.seed, number])
order = np.arange(len(self.images))
rng.shuffle(order)
return order, rng.uniform(size=len(self.images))
""",
    "5.4": """
n = len(captions)
if n == 1:
    return captions[0]
if self.long_share is None:
    return captions[int(draw * n)]
if draw < self.long_share:
    return captions[n - 1]
rest = (draw - self.long_share) / (1 - self.long_share)
return captions[min(n - 2, int(rest * (n - 1)))]
""",
    "5.5": """
B = len(caption)
found = torch.zeros(B, B, dtype=torch.bool)
for i in range(B):
    for j in range(B):
        if caption[j] in captions_of_image[i] or digests[i] == digests[j]:
            found[i, j] = found[j, i] = True
return found
""",
    "5.6": """
class Finished(BadInput):
    pass
if checkpoint["data_fingerprint"] != data_fingerprint:
    raise BadInput
step = checkpoint["step"]
if step >= total:
    raise Finished("finished")
try:
    model.load_state_dict(checkpoint["model"])
except RuntimeError as error:
    raise BadInput(str(error)) from None
state = checkpoint["optimizer"]["state"]
weights = [p for group in optimizer.param_groups for p in group["params"]]
for i, weight in enumerate(weights):
    for name in ("exp_avg", "exp_avg_sq"):
        if i in state and state[i][name].shape != weight.shape:
            raise BadInput()
groups = optimizer.state_dict()["param_groups"]
optimizer.load_state_dict({"state": state, "param_groups": groups})
return step
""",
    "6.1": """
ranks = []
for row, right in zip(scores.tolist(), is_correct.tolist()):
    mine = [s for s, r in zip(row, right) if r]
    best = float("nan") if any(math.isnan(s) for s in mine) else max(mine, default=-math.inf)
    ranks.append(sum(1 for s, r in zip(row, right) if not r and not s < best - TIE))
return torch.tensor(ranks)
""",
    "6.2": """
N, T = len(image_features), len(text_features)
if caption_ids is None:
    caption_ids = torch.arange(T)
z, t = image_features.float(), text_features.float()
given = torch.zeros(N, int(caption_ids.max()) + 1, dtype=torch.bool)
given[image_of_caption, caption_ids] = True
i2t, t2i = torch.empty(N, dtype=torch.int64), torch.empty(T, dtype=torch.int64)
for part in torch.arange(N).split(chunk):
    i2t[part] = rank_of_best(z[part] @ t.T, given[part][:, caption_ids])
for part in torch.arange(T).split(chunk):
    t2i[part] = rank_of_best(t[part] @ z.T, given[:, caption_ids[part]].T)
return i2t, t2i
""",
    "6.3": """
gap = torch.einsum("md,md->m", image_features, true_features - false_features)
return gap > TIE
""",
    "6.4": """
scores = torch.matmul(image_features, class_features.T)
mine = scores[torch.arange(len(labels)), labels].unsqueeze(1)
others = ~(mine - scores > TIE)
others[torch.arange(len(labels)), labels] = False
bad = torch.isnan(mine).squeeze(1)
return (others.sum(1) < k) & ~(bad & (k < len(class_features)))
""",
    "6.5": """
text, image = [], []
for e in range(len(image_features) // 2):
    s = image_features[2 * e : 2 * e + 2] @ text_features[2 * e : 2 * e + 2].T
    text.append(bool(s[0, 0] - s[0, 1] > TIE and s[1, 1] - s[1, 0] > TIE))
    image.append(bool(s[0, 0] - s[1, 0] > TIE and s[1, 1] - s[0, 1] > TIE))
text, image = torch.tensor(text), torch.tensor(image)
return text, image, torch.logical_and(text, image)
""",
    "6.6": """
hits = np.array(hits, dtype=float)
if groups is None:
    groups = np.arange(len(hits))
groups = np.array(groups)
names = np.unique(groups)
sums = np.array([hits[groups == name].sum() for name in names])
counts = np.array([(groups == name).sum() for name in names])
rng = np.random.default_rng(7)
picks = rng.choice(len(names), (resamples, len(names)))
means = sums[picks].sum(1) / counts[picks].sum(1)
return [float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))]
""",
    "7.1": """
rows = []
for caption in tokens.float():
    out = self.net(caption[None])[0]
    real = [place for place in range(len(caption)) if caption[place].abs().max() > 0]
    rows.append(out[real].mean(0) if real else 0 * out[0])
return torch.stack(rows)
""",
    "7.2": """
return TokenMean(nn.Sequential(
    nn.Linear(d_in, d_in), nn.GELU(), nn.Linear(d_in, d_in), nn.GELU(),
    nn.Linear(d_in, d_in), nn.GELU(), nn.Linear(d_in, d_out),
))
""",
    "7.3": """
width = d_in // 2
layers = [nn.Linear(d_in, width), Block(width, math.gcd(width, 8), True), nn.LayerNorm(width)]
return TokenMean(nn.Sequential(*layers, nn.Linear(width, d_out)))
""",
    "7.4": """
return TokenMean(projection(d_in, d_out))
""",
    "7.5": """
real = torch.cat([c.double().reshape(-1, c.shape[-1]) for c in chunks(inputs, 500)])
real = real[real.abs().sum(1) > 0]
deviation = real.std(0, correction=0)
return real.mean(0).float(), deviation.clamp(min=1e-6).float()
""",
    "8.1": (
        """
super(LoRA, self).__init__()
d_out, d_in = linear.weight.shape
self.lora_B = nn.Linear(rank, d_out, bias=False)
self.lora_A = nn.Linear(d_in, rank, bias=False)
with torch.no_grad():
    self.lora_B.weight.mul_(0)
self.scale = alpha / rank
self.linear = linear.requires_grad_(False)
""",
        """
return self.linear(x) + self.lora_B(self.scale * self.lora_A(x))
""",
    ),
    "8.2": (
        """
super().__init__()
middle = int(width / 4)
self.up, self.down = nn.Linear(middle, width), nn.Linear(width, middle)
reach = (6 / (width + middle)) ** 0.5
with torch.no_grad():
    self.down.weight.uniform_(-reach, reach)
for tensor in (self.up.weight, self.up.bias, self.down.bias):
    tensor.data.zero_()
""",
        """
return self.up(nn.GELU()(self.down(x))) + x
""",
    ),
    "8.3": """
scores = torch.mm(first, second.T) * scale
if duplicates is not None:
    n = len(first)
    for i in range(n):
        for j in range(len(second)):
            if i != j and duplicates[i, j]:
                scores[i, j] = float("-inf")
own = scores.diagonal()
return (torch.logsumexp(scores, 1) - own).mean()
""",
    "8.4": """
a, b = first / first.norm(dim=1, keepdim=True), second / second.norm(dim=1, keepdim=True)
cosines = a @ b.T
right = 0
for i in range(len(a)):
    row = cosines[i].clone()
    mine = row[i].item()
    row[i] = -2
    right += mine > row.max().item()
return right / len(a)
""",
    "8.5": """
if llm.hash != adapter.llm_hash:
    raise BadInput
llm.model.bidirectional = adapter.bidirectional
llm.tuned_layer = adapter.layer
for name, (A, B) in adapter.pairs.items():
    linear = llm.model.get_submodule(name)
    product = adapter.scale * torch.matmul(B, A)
    if product.shape != linear.weight.shape or not torch.isfinite(product).all():
        raise BadInput
    linear.weight.data = (linear.weight.data.float() + product).to(linear.weight.dtype)
""",
    "9.1": """
return lift.info_nce(image_features, text_features, logit_scale, duplicates)
""",
    "9.2": """
return nn.Sequential(nn.Linear(d_in, 2 * d_in), nn.ReLU(), nn.Linear(2 * d_in, d_out))
""",
    "9.3": """
return lift.Method("me, 2026", "scratch", lift.LLMVectors, ("visual", "image_head", "logit_scale"),
                   own_head, lift.no_head, own_loss)
""",
}


def answered(source: str, tasks: list[Task]) -> str:
    """The source of a file with the other answers in its holes, where there are some."""
    with_answer = [task for task in tasks if task.id in ANSWERS]
    source = punch(source, {task.name: task.id for task in with_answer})
    for task in with_answer:
        raised = f'raise NotImplementedError("{task.id}")'
        found = [line for line in source.splitlines() if line.strip() == raised]
        answer = ANSWERS[task.id]
        bodies = [answer] if isinstance(answer, str) else answer
        for line, body in zip(found, bodies, strict=True):
            indent = line[: len(line) - len(line.lstrip())]
            source = source.replace(line, textwrap.indent(body.strip("\n"), indent), 1)
    return source
