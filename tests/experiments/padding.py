"""How many tokens the language model computes for each real one. Prints docs/results/padding.md.

    python -m tests.experiments.padding

FrozenLLM.batches pads a caption to a multiple of 8 tokens, and fills the last batch of each length
with copies. So a vector depends on its caption alone. The peers of bench.py pad to the longest of
64 captions. Nothing is drawn, and nothing but the tokenizer runs.
"""

import math
import sys
from collections import Counter

import llm_text
from data.common import chunks, exit_status
from tests.experiments.bench import caption_texts


def padded(lengths: list[int]) -> int:
    """Tokens of batches of 64, padded to the longest of each."""
    return sum(max(part) * len(part) for part in chunks(lengths, 64))


def main() -> None:
    llm = llm_text.load_llm()
    print("| captions | tokens | ours | 64, sorted | 64, as they come |\n|---|---|---|---|---|")
    for count in (800, 20_000):
        lists, _ = llm.tokenizer.encode_all(caption_texts(count), llm.start)
        lengths = [len(ids) for ids in lists]
        places = Counter(math.ceil(length / 8) * 8 for length in lengths)
        ours = sum(length * math.ceil(n / 32) * 32 for length, n in places.items())
        shares = [x / sum(lengths) for x in (ours, padded(sorted(lengths)), padded(lengths))]
        print(f"| {count:,} | {sum(lengths):,} | " + " | ".join(f"{x:.2f}" for x in shares) + " |")


if __name__ == "__main__":
    sys.exit(exit_status(main))
