"""Which pooling of the frozen language model tells a true caption from a false one?

    python -m tests.experiments.pooling [--emoji FOLDER]    # docs/results/pooling.md
                                                            # about 6 minutes on 2 cores

For each pooling and layer, raw and after centring or whitening with the statistics of 600 training
captions:

own           share of paraphrases whose nearest caption among 100 test scenes is their own; higher
              is better
true > false  share of pairs (paraphrase, false caption) of one scene in which the paraphrase is the
              nearer one to the caption: over all categories, for relations reversed, and for
              attributes exchanged

With --emoji, a folder that data.world.emoji made: does a name find its own keywords among those of
all emoji of the test shard?
"""

import argparse
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from data.common import exit_status
from data.world import shapes
from llm_text import FrozenLLM, load_llm, whitening


def spaces(train: torch.Tensor, directions: int = 128) -> dict[str, Callable]:
    """{name: function from raw vectors to unit vectors}, fitted to train (N, D)."""
    mean, matrix = whitening(train, directions, power=1)
    centre = train.mean(0)
    return {
        "raw": lambda vectors: F.normalize(vectors, dim=-1),
        "centred": lambda vectors: F.normalize(vectors - centre, dim=-1),
        f"whitened to {directions}": lambda vectors: F.normalize((vectors - mean) @ matrix, dim=-1),
    }


def shapes_scores(llm: FrozenLLM, pool: str, layer: int) -> Iterator[tuple[str, list[float]]]:
    """(space, [own, true > false, relation reversed, attributes swapped]), built-in world."""
    train_texts = [shapes.caption(scene) for scene in shapes.make_scenes("train", 600)]
    scenes = shapes.make_scenes("test", 100)
    true_texts = [shapes.caption(scene) for scene in scenes]
    paraphrase_texts, scene_of_paraphrase = [], []
    false_texts, scene_of_false, category_of_false = [], [], []
    for i, scene in enumerate(scenes):
        for text in shapes.paraphrases(scene):
            paraphrase_texts.append(text)
            scene_of_paraphrase.append(i)
        for category, text in shapes.negatives(scene).items():
            false_texts.append(text)
            scene_of_false.append(i)
            category_of_false.append(category)
    scene_of_paraphrase = torch.tensor(scene_of_paraphrase)
    scene_of_false = torch.tensor(scene_of_false)

    train = llm.encode(train_texts, pool, layer)
    texts = (true_texts, paraphrase_texts, false_texts)
    vectors = [llm.encode(some, pool, layer) for some in texts]
    for name, space in spaces(train).items():
        true, paraphrase, false = (space(some) for some in vectors)
        is_own = (paraphrase @ true.T).argmax(1) == scene_of_paraphrase
        paraphrase_cosine = (paraphrase * true[scene_of_paraphrase]).sum(-1)
        false_cosine = (false * true[scene_of_false]).sum(-1)

        # For each false caption, the share of its scene's paraphrases that are nearer.
        shares = {}
        for j, category in enumerate(category_of_false):
            own_paraphrases = paraphrase_cosine[scene_of_paraphrase == scene_of_false[j]]
            share = (own_paraphrases > false_cosine[j]).float().mean()
            shares.setdefault(category, []).append(share)
        score = {category: float(torch.stack(some).mean()) for category, some in shares.items()}
        mean = sum(score.values()) / len(score)
        own = float(is_own.float().mean())
        yield name, [own, mean, score["replace_rel"], score["swap_att"]]


def emoji_scores(
    llm: FrozenLLM, pool: str, layer: int, folder: Path
) -> Iterator[tuple[str, float]]:
    """(space, share of names that find their keywords). Fitted to 200 pairs of the train shard."""
    train = [text for pair in emoji_pairs(folder / "train.tar")[:200] for text in pair]
    names, keywords = zip(*emoji_pairs(folder / "test.tar"), strict=True)
    names = llm.encode(names, pool, layer)
    keywords = llm.encode(keywords, pool, layer)
    for name, space in spaces(llm.encode(train, pool, layer)).items():
        nearest = (space(names) @ space(keywords).T).argmax(1)
        yield name, float((nearest == torch.arange(len(names))).float().mean())


def emoji_pairs(shard: Path) -> list[tuple[str, str]]:
    """Distinct pairs (name, keywords) of a shard that data.world.emoji made."""
    pairs = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            if member.name.endswith(".json"):
                about = json.load(tar.extractfile(member))
                name = about["caption"]
                pairs[name] = about["long_caption"].removeprefix(name).lstrip(" :")
    return [(name, keywords) for name, keywords in pairs.items() if keywords]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--emoji", type=Path, help="folder that data.world.emoji made")
    args = parser.parse_args()
    llm = load_llm()
    # The cheapest first.
    settings = [("mean", layer) for layer in (5, 10, 15)]
    settings += [(pool, llm.depth) for pool in ("last", "mean", "prompt")]
    if args.emoji:
        print(f"{len(emoji_pairs(args.emoji / 'test.tar'))} emoji in the pool\n")
    print(
        "| pooling | layer | space | own | true > false | relation reversed | attributes swapped "
        "| emoji keywords |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for pool, layer in settings:
        emoji = dict(emoji_scores(llm, pool, layer, args.emoji)) if args.emoji else {}
        for space, scores in shapes_scores(llm, pool, layer):
            cells = [f"{score:.3f}" for score in scores]
            cells.append(f"{emoji[space]:.3f}" if space in emoji else "")
            print(f"| {pool} | {layer} | {space} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(exit_status(main))
