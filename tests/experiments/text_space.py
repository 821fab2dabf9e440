"""How near a run's text side brings a caption and the same in other words. Writes nothing.

    python -m tests.experiments.text_space runs/a runs/b     # docs/results/paraphrases.md

CRA, caption retrieval accuracy, says how often the caption of a test scene finds the same scene in
other words, among those of all scenes with two things or three. A column is one kind of words. No
image is looked at: this is a matter of the text side alone.
"""

import sys

import eval as evaluation
from data.common import BadInput, exit_status
from data.world import shapes
from llm_text import caption_retrieval


def main() -> None:
    if len(sys.argv) < 2:
        raise BadInput("usage: python -m tests.experiments.text_space RUN [RUN ...]")
    scenes = [scene for scene in shapes.make_scenes("test", 800) if scene.relations]
    own = [shapes.caption(scene) for scene in scenes]
    texts = {kind: [] for kind in shapes.other_words(scenes[0])}
    for scene in scenes:
        for kind, text in shapes.other_words(scene).items():
            texts[kind].append(text)

    print(f"| CRA of {len(scenes)}, in % | {' | '.join(texts)} |")
    print("|---|" + "---|" * len(texts))
    for folder in sys.argv[1:]:
        run = evaluation.Run(folder)
        features = run.encode_texts(own)
        cells = [
            f"{100 * caption_retrieval(features, run.encode_texts(other)):.1f}"
            for other in texts.values()
        ]
        print(f"| {folder} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(exit_status(main))
