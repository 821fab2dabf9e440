"""tests/experiments/reversed.py: which images stand side by side in its batches."""

import torch

from data.captions import DistinctCaptions
from data.world.shapes import OPPOSITE, caption
from tests.experiments import reversed as control
from train import Config


def test_a_scene_and_its_reverse_are_in_one_batch():
    images = control.read_pairs(Config(train_num_samples=64, image_size=48, model="micro/16"))
    assert len(images) == 64 and len(set(images.digests.tolist())) == 64
    scenes = images.scenes
    for scene, reverse in zip(scenes[::2], scenes[1::2], strict=True):
        assert scene.things == reverse.things and scene.background == reverse.background
        changed = [
            pair
            for pair in zip(scene.relations, reverse.relations, strict=True)
            if len({*pair}) > 1
        ]
        assert len(changed) == 1 and OPPOSITE[changed[0][0]] == changed[0][1]

    texts = DistinctCaptions(images.captions)
    vectors = torch.zeros(len(texts), 4)
    batches = control.PairedBatches(
        images,
        texts,
        vectors,
        lambda indices, step, rows: torch.from_numpy(indices),
        batch_size=16,
        seed=0,
        long_share=None,
        device=torch.device("cpu"),
    )
    seen = []
    for step in range(batches.steps_per_epoch):
        indices, _, duplicates, _ = batches(step)
        partner = indices ^ 1  # 2 i and 2 i + 1
        assert torch.equal(partner.sort().values, indices.sort().values)
        # The reverse is false of the image, so the loss pushes the two apart.
        places = {number: place for place, number in enumerate(indices.tolist())}
        assert not any(duplicates[place, places[number ^ 1]] for number, place in places.items())
        seen += indices.tolist()
    assert sorted(seen) == list(range(64))
    assert caption(scenes[0]) != caption(scenes[1])
