# %% [markdown]
# # A guided tour
#
# One image and one caption go through the whole project: from pixels and words to two vectors, to
# the loss, to one step of training, and to a search. The shape of every array is printed. Many
# steps are done twice: once by hand, and once by the project's own code.
#
# It takes under a minute on one core, without a GPU. The language model, SmolLM2-135M-Instruct
# (98 MB), is fetched once.
#
# Letters of shapes: B images of a batch, N patches, L tokens, D width of a vector, H heads, d width
# of a head.

# %%
# On Colab this cell fetches the project. In the project's own folder it only goes to the top, and
# in the course's folder for students to the finished code.
import os
import subprocess
import sys
from pathlib import Path

# The address of the repository. Put that of your own copy here.
REPOSITORY = os.environ.get("LIFT_REPOSITORY", "https://github.com/OWNER/lift-in-the-open")

if Path("../lift.py").exists():  # the notebook was opened in docs/
    os.chdir("..")
elif Path("course/reference/lift.py").exists():
    os.chdir("course/reference")
elif not Path("lift.py").exists():
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, "lift-in-the-open"], check=True)
    os.chdir("lift-in-the-open")
    # Colab has torch, numpy, pillow and tqdm.
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "tiktoken"], check=True)
sys.path.insert(0, os.getcwd())

import math

import torch
import torch.nn.functional as F
from PIL import Image

torch.manual_seed(0)
print("the project is here:", sorted(path.name for path in Path().glob("*.py")))

# %%
# Three small helpers: say what an array is, put images in a row, draw a table of numbers.


def show(name, tensor):
    """Print name, shape and dtype of a tensor or an array."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    print(f"{name:28s} {str(tuple(tensor.shape)):18s} {dtype}")


def row_of(images, side=128, gap=8):
    """Images side by side, each enlarged to side x side pixels."""
    row = Image.new("RGB", (len(images) * (side + gap) - gap, side), "white")
    for i, image in enumerate(images):
        row.paste(image.resize((side, side), Image.NEAREST), (i * (side + gap), 0))
    return row


def drawn(table, low, high, cell=24):
    """A table of numbers as an image: white is `low`, dark blue is `high`."""
    share = ((table.detach() - low) / (high - low)).clamp(0, 1)[..., None]  # (rows, columns, 1)
    white, blue = torch.tensor([255.0, 255.0, 255.0]), torch.tensor([20.0, 60.0, 140.0])
    pixels = (white + share * (blue - white)).byte().numpy()  # (rows, columns, 3)
    rows, columns = table.shape
    return Image.fromarray(pixels).resize((columns * cell, rows * cell), Image.NEAREST)


show("a tensor", torch.zeros(2, 3))

# %% [markdown]
# ## 1. One scene
#
# The project draws its own images. A scene is made out of words. Then it is drawn, and it is
# described in a caption. It depends on its split ("train" or "test"), its seed and its number, and
# on nothing else. So it is the same on every machine.

# %%
from data.world import shapes
from data.world.drawing import draw

scene = shapes.make_scenes("train", 3)[2]
caption = shapes.caption(scene)
image = draw(scene, 0, 64)
print(caption)
row_of([image], side=256)

# %% [markdown]
# Each scene also has captions that are false of it. Each differs from the true one by one edit. A
# model that sees should find the true caption nearer to the image. Section 10 comes back to that.

# %%
for kind, false_caption in shapes.negatives(scene).items():
    print(f"{kind:12s} {false_caption}")

# %% [markdown]
# ## 2. Pixels become patches
#
# The image is 64 x 64 pixels of three bytes. The bytes are normalised: scaled so that they have a
# mean near 0 and a deviation near 1. Then the image is cut into N = 16 squares of 16 x 16 pixels,
# the patches. Each becomes one row of 3 * 16 * 16 = 768 numbers.

# %%
import numpy as np

from data.images.pixels import normalize_pixels

pixels = torch.from_numpy(np.array(image))  # (S, S, 3)
show("pixels", pixels)
x = normalize_pixels(pixels[None])
show("normalised, B = 1", x)
patches = x.view(1, 3, 4, 16, 4, 16).permute(0, 2, 4, 1, 3, 5)
show("cut into 4 x 4 patches of 16 x 16 pixels", patches)
patches = patches.reshape(1, 16, 768)
show("one row per patch", patches)

squares = [image.crop((c, r, c + 16, r + 16)) for r in range(0, 64, 16) for c in range(0, 64, 16)]
row_of(squares, side=48, gap=6)

# %% [markdown]
# ## 3. Patches become one vector
#
# This is `vit.py`, the vision transformer. One linear layer maps each patch to a vector of D = 128
# numbers. What follows does not know where a patch was, so a learned vector is added for each
# place. Then come four blocks. In the first half of a block, attention, the patches look at each
# other: each takes a mean of what all patches offer, weighted by how well they fit its question.
# Here is that half of the first block by hand.

# %%
from vit import ViT

tower = ViT("nano/16", 64)
h = tower.patch_embed(x)
show("patch vectors", h)
show("positions, learned", tower.pos_embed)
h = h + tower.pos_embed

block = tower.blocks[0]
B, N, D = h.shape
H = block.attn.heads
qkv = block.attn.qkv(block.norm1(h))
show("queries, keys, values", qkv)
q, k, v = qkv.view(B, N, 3, H, D // H).permute(2, 0, 3, 1, 4)
show("queries of H = 4 heads", q)
weights = (q @ k.mT / math.sqrt(D // H)).softmax(-1)
show("who looks at whom", weights)
print("each row adds up to 1:", torch.allclose(weights.sum(-1), torch.ones(B, H, N)))
mixed = (weights @ v).transpose(1, 2).reshape(B, N, D)
by_hand = block.attn.proj(mixed)
show("attention's output", by_hand)
print("as in vit.py:", torch.allclose(by_hand, block.attn(block.norm1(h)), atol=1e-5))
drawn(weights[0, 0], 0, 0.3, cell=12)

# %% [markdown]
# The picture shows the 16 x 16 weights of the first head. The tower is random, so they say nothing
# yet. A small network on each patch completes the block. After four blocks the mean of the 16
# vectors is the image's vector.

# %%
h = tower.norm(tower.blocks(h))
show("after four blocks", h)
image_vector = h.mean(1)
show("their mean", image_vector)
print("as in vit.py:", torch.allclose(image_vector, tower(x), atol=1e-5))
print(f"{sum(p.numel() for p in tower.parameters()):,} parameters")

# %% [markdown]
# ## 4. Words become tokens
#
# This is `llm_text.py`. The tokenizer cuts the caption into tokens, which are words and parts of
# words. A new line stands before it. Section 6 says what for.

# %%
from llm_text import load_llm, mean_token, rotate, whitening

llm = load_llm()
ids, mask = llm.tokenize([caption])
show("token ids", ids)
show("mask", mask)
print("|".join(repr(llm.tokenizer.token_text(i))[1:-1] for i in ids[0].tolist()))
print(f"{sum(p.numel() for p in llm.parameters()):,} parameters, of which none is trained")

# %% [markdown]
# ## 5. Tokens look at each other
#
# The language model has attention, too. It has 9 heads of queries, but only 3 of keys and values.
# Queries and keys are turned by an angle that grows with the position. So the score of a query and
# a key depends on the distance of the two tokens, and not on where they stand. A token sees itself
# and those before it.

# %%
L = ids.shape[1]
e = llm.model.embed_tokens(ids)
show("token vectors", e)
layer = llm.model.layers[0]
angles = torch.outer(torch.arange(L).float(), llm.model.inv_freq).repeat(1, 2)
show("angles", angles)
normed = layer.input_layernorm(e)
q = layer.self_attn.q_proj(normed).view(1, L, 9, 64).transpose(1, 2)
k = layer.self_attn.k_proj(normed).view(1, L, 3, 64).transpose(1, 2)
show("queries", q)
show("keys", k)
k = k.repeat_interleave(3, dim=1)  # each head of keys serves three heads of queries
# 8 is the root of the width of a head, 64.
scores = rotate(q, angles.cos(), angles.sin()) @ rotate(k, angles.cos(), angles.sin()).mT / 8
causal = torch.ones(L, L).tril().bool()
weights = scores.masked_fill(~causal, -torch.inf).softmax(-1)
show("who looks at whom", weights)

# The same scores if the caption began seven positions later:
later = torch.outer(torch.arange(L).float() + 7, llm.model.inv_freq).repeat(1, 2)
shifted = rotate(q, later.cos(), later.sin()) @ rotate(k, later.cos(), later.sin()).mT / 8
print("only the distance counts:", torch.allclose(scores, shifted, atol=1e-3))
drawn(weights[0].mean(0), 0, 0.5, cell=16)

# %% [markdown]
# Row l of the picture shows at which tokens token l looks, as a mean over the heads. All above the
# diagonal is white: a token sees no later one.
#
# ## 6. Tokens become one vector
#
# Nobody trained this model to give one vector per caption. The project takes the mean over the
# tokens after block 10 of 30. Why not after the last block? It was trained to predict the next
# token, so a likely reason is that its last blocks turn each token's vector towards that. And why
# is the first token left out? Look at how long the tokens' vectors are.

# %%
with torch.no_grad():
    for depth in (1, 5, 10, 15, 20):
        hidden = llm(ids, mask, depth)
        norms = hidden[0].norm(dim=-1)
        print(f"block {depth:2d}: first token {norms[0]:10.1f}   others {norms[1:].mean():8.1f}")
    hidden = llm(ids, mask, 10)
show("hidden states, block 10", hidden)
raw = mean_token(hidden, mask)
show("their mean, first left out", raw)
print("by hand:", torch.allclose(raw, hidden[:, 1:].mean(1), atol=1e-4))

# %% [markdown]
# In later blocks the first token's vector is huge. Other tokens look at it when they look for
# nothing. It is called an attention sink. Here it is the new line, so no word is lost.
#
# ## 7. Out of the cone
#
# Now 192 captions are read, once. In LIFT, the method that gave this project its name, this reading
# is all the work that the language model ever does. From now on a caption is its vector.
#
# `whitening` subtracts the mean of all vectors, keeps the directions in which they differ most, and
# makes these more alike in strength. It keeps 48 here, a quarter of the number of captions.

# %%
scenes = shapes.make_scenes("train", 192)
captions = [shapes.caption(some) for some in scenes]
vectors = llm.encode(captions)
show("raw vectors", vectors)


def cosines(table):
    """The cosines of all pairs of different rows, (n,)."""
    unit = F.normalize(table, dim=-1)
    return (unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)]


mean, matrix = whitening(vectors, directions=48)
show("mean", mean)
show("matrix", matrix)
texts = (vectors - mean) @ matrix
show("whitened", texts)
for name, table in (("raw", vectors), ("centred", vectors - mean), ("whitened", texts)):
    c = cosines(table)
    print(f"{name:9s} cosines of two captions: mean {c.mean():6.3f}, from {c.min():6.3f}")

# %% [markdown]
# Raw vectors point almost the same way, as if they lay in a narrow cone. When the mean is
# subtracted they do not. The picture shows the cosines of the first 16 captions: raw on the left,
# whitened on the right.

# %%
tables = [F.normalize(table[:16], dim=-1) for table in (vectors, texts)]
row_of([drawn(unit @ unit.T, -0.2, 1, cell=16) for unit in tables], side=256, gap=24)

# %% [markdown]
# ## 8. The shared space, and the loss
#
# This is `lift.py`. The model holds the image tower, a head of two layers behind it, the whitening,
# and the scale, a learned number that multiplies all cosines. A batch of B = 8 images and their
# captions goes through it. All vectors are scaled to length 1, so a scalar product is a cosine.

# %%
import lift

torch.manual_seed(0)
model = lift.TwoTower("lift", lift.Sizes(), (mean, matrix)).train()
pictures = [draw(some, 0, 64) for some in scenes]
images = normalize_pixels(torch.from_numpy(np.stack([np.array(one) for one in pictures])))
show("all images", images)
batch = slice(0, 8)
out = model(images[batch], vectors[batch])
for name, tensor in out.items():
    show(name, tensor)
row_of(pictures[batch], side=96)

# %% [markdown]
# Every image must find its caption among the eight, and every caption its image. That is a softmax
# over each row and over each column of an 8 x 8 table. The right answers stand on the diagonal.
# This loss is called InfoNCE.

# %%
z, t, s = out["image_features"], out["text_features"], out["logit_scale"]
logits = s * z @ t.T
show("logits", logits)
target = torch.arange(8)
by_rows = F.cross_entropy(logits, target)
by_columns = F.cross_entropy(logits.T, target)
loss = lift.info_nce(z, t, s)
print(f"scale {s:.2f}; image to text {by_rows:.3f}, text to image {by_columns:.3f}")
print(f"loss {loss:.3f}, by hand {(by_rows + by_columns) / 2:.3f}; a guess costs {math.log(8):.3f}")
drawn(z @ t.T, -0.5, 1, cell=32)

# %% [markdown]
# The diagonal of the cosines is not darker than the rest. The tower is random. It gives all images
# nearly the same feature, so each column has nearly one colour.
#
# ## 9. One step of training, and some more
#
# The gradient reaches the image side only. On the text side there is nothing to train.

# %%
from train import lr_at, parameter_groups

loss.backward()
for part, module in model.named_children():
    parameters = list(module.parameters())
    reached = sum(p.grad is not None for p in parameters)
    print(f"{part:12s} {len(parameters):3d} parameters, {reached:3d} with a gradient")

optimizer = torch.optim.AdamW(parameter_groups(model, wd=0.2), lr=5e-4, betas=(0.9, 0.98))
before = t.detach().clone()
optimizer.step()
optimizer.zero_grad()
with torch.no_grad():
    out = model(images[batch], vectors[batch])
print(
    f"the same batch: loss {loss.item():.3f} before the step, {lift.info_nce(**out):.3f} after it"
)
print("the captions have not moved:", torch.equal(before, out["text_features"]))

# %% [markdown]
# Now 120 steps with batches of 64. `train.py` does much the same, with 20,000 images, a log and
# checkpoints.

# %%
from train import Config

settings = Config()
torch.manual_seed(0)
for step in range(120):
    for group in optimizer.param_groups:
        group["lr"] = lr_at(step, 120, settings)
    drawn_numbers = torch.randperm(len(images))[:64]
    out = model(images[drawn_numbers], vectors[drawn_numbers])
    loss = lift.info_nce(**out)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    lift.limit_scale(model.logit_scale)
    if step % 30 == 0 or step == 119:
        print(f"step {step + 1:3d}: loss {loss.item():.3f} (a guess costs {math.log(64):.3f})")

# %% [markdown]
# The same eight images and captions again. The diagonal has become dark.

# %%
model.eval()
with torch.no_grad():
    z = model.encode_image(images, normalize=True)
    t = model.encode_text(vectors, normalize=True)
show("features of all images", z)
drawn(z[batch] @ t[batch].T, -0.5, 1, cell=32)

# %% [markdown]
# ## 10. Search
#
# This is `eval.py`. Each image looks for its caption, and each caption for its image. The rank is
# the number of wrong answers that are at least as near as the right one, so 0 is the best. R@1 is
# the share of images with the rank 0, R@10 that of images with a rank below 10.

# %%
from eval import compositional, retrieval_ranks

i2t, t2i = retrieval_ranks(z[batch], t[batch], torch.arange(8))
print("among 8:  ranks of the captions", i2t.tolist(), " of the images", t2i.tolist())
i2t, t2i = retrieval_ranks(z, t, torch.arange(len(z)))
print(f"among 192, which it was trained on: R@1 {(i2t < 1).float().mean():.0%}")

# %%
# Words to search by: the best three of the 192 images, the nearest on the left.
query = "a large red star on grass"
with torch.no_grad():
    wanted = model.encode_text(llm.encode([query]), normalize=True)
cosine = (z @ wanted.T)[:, 0]
best = cosine.topk(3).indices.tolist()
print(query)
for i in best:
    print(f"  {cosine[i]:.2f}  {captions[i]}")
row_of([pictures[i] for i in best])

# %% [markdown]
# And images that it has never seen? Scenes of the test split show pairs of things that training
# never shows. Here are 64 of them. A model that was trained on 192 images knows these 192 by heart,
# and little more.

# %%
test_scenes = shapes.make_scenes("test", 64)
test_pixels = np.stack([np.array(draw(some, 0, 64)) for some in test_scenes])
test_captions = [shapes.caption(some) for some in test_scenes]
with torch.no_grad():
    test_z = model.encode_image(normalize_pixels(torch.from_numpy(test_pixels)), normalize=True)
    test_t = model.encode_text(llm.encode(test_captions), normalize=True)
i2t, t2i = retrieval_ranks(test_z, test_t, torch.arange(64))
print(
    f"among 64 new images: R@1 {(i2t < 1).float().mean():.0%}, R@10 {(i2t < 10).float().mean():.0%}"
)
print(f"by chance: R@1 {1 / 64:.0%}, R@10 {10 / 64:.0%}")

false = [shapes.negatives(some).get("replace_att") for some in test_scenes]
which = [i for i, text in enumerate(false) if text]
with torch.no_grad():
    false_t = model.encode_text(llm.encode([false[i] for i in which]), normalize=True)
hits = compositional(test_z[which], test_t[which], false_t)
print(f"the true caption is nearer than one with a wrong attribute: {hits.float().mean():.0%}")

# %% [markdown]
# That was the way through the whole project. What was left out: longer training, pairs that match
# by accident, checkpoints, other methods, and intervals of scores. Go on with:
#
#     python train.py --out runs/lift
#     python eval.py runs/lift
