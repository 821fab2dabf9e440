"""data/batches.py: batches as a function of seed and step, the captions drawn, and the mask.

python -m pytest tests/data/test_batches.py
"""

from threading import get_ident

import numpy as np
import pytest
import torch

from data.batches import Batches, Crops, find_duplicates
from data.captions import DistinctCaptions
from data.images.formats import Columns
from data.images.pixels import normalize_pixels, random_crops
from data.images.read import read_images

CPU = torch.device("cpu")


def paraphrased(count):
    """Images of the built-in world, with several captions each, and so large that all differ."""
    columns = Columns(csv_caption_key="paraphrase")
    return read_images("shapes", "train", 32, columns, num_samples=count)


def batches_of(images, batch_size, seed=0, long_share=None, label_tokens=None):
    captions = DistinctCaptions(images.captions)
    return Batches(
        images,
        captions,
        torch.arange(len(captions)),
        lambda indices, step, rows: torch.from_numpy(images.pixels(indices[rows])),
        batch_size=batch_size,
        seed=seed,
        long_share=long_share,
        device=CPU,
        label_tokens=label_tokens,
    )


def test_duplicates_by_hand():
    """The docstring's example: captions are 0 "a red star", 1 "a star", 2 "a blue ring", ..."""
    captions_of_image = [torch.tensor(c) for c in ([0, 1], [2], [1], [3])]
    drawn, digests = torch.tensor([0, 2, 1, 3]), torch.tensor([11, 22, 33, 22])
    wanted = [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]
    assert find_duplicates(captions_of_image, drawn, digests).int().tolist() == wanted


def test_batches_are_a_function_of_seed_and_step():
    images = paraphrased(50)
    one, two = batches_of(images, 16), batches_of(images, 16)
    assert one.steps_per_epoch == 3
    for step in (7, 2, 0):  # in any order
        assert all(torch.equal(a, b) for a, b in zip(one(step)[:3], two(step)[:3], strict=True))
        assert one(step)[3] is None
    assert not torch.equal(one(0)[1], one(3)[1])  # another epoch, another order
    assert not torch.equal(one(0)[1], batches_of(images, 16, seed=1)(0)[1])


def test_label_tokens_are_those_of_the_captions_that_were_drawn():
    images = paraphrased(50)
    numbers = torch.arange(len(DistinctCaptions(images.captions)))
    batches = batches_of(images, 16, label_tokens=torch.stack([numbers, 2 * numbers], dim=1))
    _, captions, _, label_tokens = batches(4)
    assert torch.equal(label_tokens, torch.stack([captions, 2 * captions], dim=1))


def test_each_image_comes_once_per_epoch_with_a_caption_of_its_own():
    images = paraphrased(50)
    batches = batches_of(images, 16)
    times_seen = {}
    for step in range(3):
        for pixels, caption in zip(*batches(step)[:2], strict=True):
            equal = [i for i in range(50) if (images.pixels([i])[0] == pixels.numpy()).all()]
            assert any(batches.captions[caption] in images.captions[i] for i in equal)
            times_seen[equal[0]] = times_seen.get(equal[0], 0) + 1
    assert len(times_seen) == 48 and set(times_seen.values()) == {1}


def test_the_mask_marks_every_pair_that_matches_and_no_other():
    images = paraphrased(50)
    batches = batches_of(images, 16)
    off_diagonal = 0
    for step in range(3):
        pixels, captions, duplicates, _ = batches(step)
        indices = batches.epoch(0)[0][step * 16 :][:16]
        numbers = [set(batches.captions.of_image(i).tolist()) for i in indices]
        for i in range(16):
            for j in range(16):
                # A caption that is true of both images makes the pair a match, both ways.
                shared = int(captions[j]) in numbers[i] or int(captions[i]) in numbers[j]
                same_image = bool((pixels[i] == pixels[j]).all())
                assert bool(duplicates[i, j]) == (shared or same_image)
                off_diagonal += i != j and shared
    assert off_diagonal  # or the mask was never needed


def test_equal_images_match_although_their_captions_differ():
    images = paraphrased(16)
    images.captions = [[f"caption {i}"] for i in range(16)]
    images.digests[5] = images.digests[2]  # equal images have equal digests
    batches = batches_of(images, 16)
    order = batches.epoch(0)[0].tolist()
    wanted = torch.eye(16, dtype=torch.bool)
    for i, j in ((2, 5), (5, 2)):
        wanted[order.index(i), order.index(j)] = True
    assert torch.equal(batches(0)[2], wanted)


def test_over_the_epochs_an_image_shows_several_of_its_captions():
    images = paraphrased(50)
    batches = batches_of(images, 16)
    shown = {}
    for step in range(36):
        indices = batches.epoch(step // 3)[0][step % 3 * 16 :][:16]
        for image, caption in zip(indices, batches(step)[1].tolist(), strict=True):
            shown.setdefault(int(image), set()).add(caption)
    assert min(map(len, shown.values())) >= 2
    for image, captions in shown.items():
        assert captions <= set(batches.captions.of_image(image).tolist())


def test_long_captions_are_drawn_in_the_share_asked_for():
    images = paraphrased(64)
    longest = [sorted(captions, key=len)[-1] for captions in images.captions]
    for share in (0.0, 0.3, 1.0):
        batches = batches_of(images, 64, long_share=share)
        shown = {}
        for step in range(100):
            indices, captions = batches.epoch(step)[0], batches(step)[1]
            for image, caption in zip(indices, captions, strict=True):
                shown.setdefault(int(image), []).append(batches.captions[caption])
        hits = sum(text == longest[i] for i, texts in shown.items() for text in texts)
        assert hits / 6400 == pytest.approx(share, abs=0.02)
        if share == 1:
            continue
        for i, captions in enumerate(images.captions):  # the others all come, too
            assert set(captions) - {longest[i]} == set(shown[i]) - {longest[i]}


def test_long_captions_leave_the_others_equal_shares():
    """Half of [0, 1) is the longest caption's, and each of the others has a sixth."""
    batches = batches_of(paraphrased(2), 2, long_share=0.5)
    captions = torch.tensor([10, 11, 12, 13])
    chosen = [int(batches.choose(captions, draw)) for draw in np.arange(0.05, 6) / 6]
    assert chosen == [13, 13, 13, 10, 11, 12]
    assert int(batches.choose(captions[:1], 0.99)) == 10
    batches.long_share = None
    chosen = [int(batches.choose(captions, draw)) for draw in (0.0, 0.24, 0.26, 0.51, 0.76, 0.999)]
    assert chosen == [10, 10, 11, 12, 13, 13]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_ahead_gives_the_batches_of_its_steps_and_no_more(device, monkeypatch):
    images = paraphrased(50)
    batches = batches_of(images, 16)
    batches.device = torch.device(device)
    monkeypatch.setattr("data.batches.to_device", lambda tensor, device: tensor)
    asked, threads = [], set()
    make = batches.image_inputs
    batches.image_inputs = lambda indices, step, rows: (
        asked.append(step),
        threads.add(get_ident()),
        make(indices, step, rows),
    )[2]
    for expected, (step, batch, waited) in zip(range(2, 7), batches.ahead(2, 7), strict=True):
        assert step == expected and waited >= 0
        assert torch.equal(batch[1], batches(step)[1])
    assert sorted(set(asked)) == [2, 3, 4, 5, 6]
    # Two threads that use Apple's GPU could end the program.
    assert len(threads) == (1 if device == "mps" else 2)


@pytest.mark.parametrize("crop_scale", (1, 0.5))
def test_some_rows_of_a_batch_are_those_of_the_whole(crop_scale):
    images = paraphrased(50)
    batches = batches_of(images, 16, label_tokens=torch.arange(1000))
    batches.image_inputs = Crops(images, crop_scale, 0, CPU)
    whole = batches(4)
    for rows in (slice(0, 8), slice(8, 16)):
        image, text, duplicates, label_tokens = batches(4, rows)
        assert torch.allclose(image, whole[0][rows], atol=1e-6)
        assert torch.equal(text, whole[1][rows]) and torch.equal(label_tokens, whole[3][rows])
        assert torch.equal(duplicates, whole[2])


def test_crops_are_a_function_of_seed_and_step():
    images, indices = paraphrased(20), np.array([3, 17, 5])
    whole = normalize_pixels(torch.from_numpy(images.pixels(indices)))
    assert torch.equal(Crops(images, 1.0, 0, CPU)(indices, 9), whole)
    crops = Crops(images, 0.5, 2, CPU)
    generator = torch.Generator().manual_seed(2 * 1_000_003 + 9)
    draws = torch.rand(4, 3, generator=generator)
    assert torch.equal(crops(indices, 9), random_crops(whole, 0.5, draws))
    assert not torch.equal(crops(indices, 9), crops(indices, 10))
