"""Which pooling of the frozen LLM tells a true caption from a false one? Reproduces docs/results/pooling.md.

    python -m tests.pooling [--emoji FOLDER]      # about 6 minutes on 2 cores

For each pooling and layer, raw and after centring or whitening with the statistics of 600 training captions:

    own    share of paraphrases whose nearest caption among 100 test scenes is their own (higher is better)
    true > false   share of (paraphrase, hard negative) pairs of one scene in which the paraphrase is the nearer one
                   to the caption, over all categories, for relations reversed, and for attributes exchanged
"""

import argparse
import json
import sys
import tarfile
from pathlib import Path

import torch
import torch.nn.functional as F

from data.common import run
from data.world import shapes
from llm_text import load_llm, whitening


def spaces(train, k=128):
    """{name: function from raw vectors to unit vectors}"""
    centre, (mean, matrix) = train.mean(0), whitening(train, k)
    return {
        "raw": lambda v: F.normalize(v, dim=-1),
        "centred": lambda v: F.normalize(v - centre, dim=-1),
        f"whitened to {k}": lambda v: F.normalize((v - mean) @ matrix, dim=-1),
    }


def shapes_rows(llm, pool, layer):
    train = llm.encode([shapes.caption(s) for s in shapes.make_scenes("train", 600)], pool, layer)
    scenes = shapes.make_scenes("test", 100)
    said = [(i, p) for i, s in enumerate(scenes) for p in shapes.paraphrases(s)]
    false = [
        (i, kind, text) for i, s in enumerate(scenes) for kind, text in shapes.negatives(s).items()
    ]
    captions = llm.encode([shapes.caption(s) for s in scenes], pool, layer)
    paraphrases = llm.encode([p for _, p in said], pool, layer)
    negatives = llm.encode([text for _, _, text in false], pool, layer)
    for name, space in spaces(train).items():
        c, p, n = space(captions), space(paraphrases), space(negatives)
        owner = torch.tensor([i for i, _ in said])
        own = ((p @ c.T).argmax(1) == owner).float().mean()
        near_p = (p * c[owner]).sum(-1)
        which = torch.tensor([i for i, _, _ in false])
        near_n = (n * c[which]).sum(-1)
        wins = {}
        for j, (i, kind, _) in enumerate(false):
            wins.setdefault(kind, []).append((near_p[owner == i] > near_n[j]).float().mean())
        score = {kind: float(torch.stack(w).mean()) for kind, w in wins.items()}
        yield (
            name,
            float(own),
            sum(score.values()) / len(score),
            score["replace_rel"],
            score["swap_att"],
        )


def emoji_rows(llm, pool, layer, folder):
    """Emoji of the test shard: does a name find its own keywords among all? Statistics from 200 pairs of the train shard."""
    train = [text for pair in emoji_pairs(folder / "train.tar")[:200] for text in pair]
    names, words = zip(*emoji_pairs(folder / "test.tar"))
    names, words = llm.encode(names, pool, layer), llm.encode(words, pool, layer)
    for name, space in spaces(llm.encode(train, pool, layer)).items():
        yield (
            name,
            float(
                ((space(names) @ space(words).T).argmax(1) == torch.arange(len(names)))
                .float()
                .mean()
            ),
        )


def emoji_pairs(shard):
    """Distinct (name, keywords) of a shard that data.emoji made."""
    pairs = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            if member.name.endswith(".json"):
                entry = json.load(tar.extractfile(member))
                pairs[entry["caption"]] = (
                    entry["long_caption"].removeprefix(entry["caption"]).lstrip(" :")
                )
    return [(name, words) for name, words in pairs.items() if words]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--emoji", type=Path, help="folder that data.emoji made")
    args = parser.parse_args()
    llm = load_llm()
    settings = [("last", llm.depth), ("prompt", llm.depth)] + [
        ("mean", n) for n in (5, 10, 15, llm.depth)
    ]
    if args.emoji:
        print(f"{len(emoji_pairs(args.emoji / 'test.tar'))} emoji in the pool\n")
    print(
        "| pooling | layer | space | own | true > false | relation reversed | attributes swapped | emoji keywords |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for pool, layer in settings:
        emoji = dict(emoji_rows(llm, pool, layer, args.emoji)) if args.emoji else {}
        for name, *values in shapes_rows(llm, pool, layer):
            extra = f"{emoji[name]:.3f}" if name in emoji else ""
            print(
                f"| {pool} | {layer} | {name} | "
                + " | ".join(f"{v:.3f}" for v in values)
                + f" | {extra} |",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(run(main))
