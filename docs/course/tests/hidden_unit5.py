"""Unit 5, the loop: the tests that only the grader has."""

import math

import numpy as np
import torch

from data.images.pixels import random_crops

from ..student import after, same
from .numbers import normal
from .test_unit5 import CFG, batches, checkpoint_after, fresh, rates


def test_schedule_of_a_long_run(student):
    """1,000 steps with 60 of warm-up, and a run of one step"""
    found = rates(student, 1000, warmup=60, lr=2e-3)
    wanted = [2e-3 * (step + 1) / 60 for step in range(60)]
    wanted += [1e-3 * (1 + math.cos(math.pi * (step - 60) / 940)) for step in range(60, 1001)]
    why = "the rates of 1,000 steps with 60 of warm-up and the peak 2e-3"
    same(found, wanted, why, atol=1e-7)
    same(rates(student, 1, warmup=500)[0], 1.0, "a run of one step has no warm-up")


def test_crops_of_many(student):
    """40 images, for some of the smallest shares: each crop is that of its draws"""
    images = normal(40, 3, 16, 16, seed=21)
    draws = torch.rand(4, 40, generator=torch.Generator().manual_seed(5))
    for smallest in (0.2, 0.8, 1.0):
        found = student.data.images.pixels.random_crops(images, smallest, draws)
        wanted = random_crops(images, smallest, draws)
        why = (
            f"40 crops with smallest {smallest}. Where one side was cut and less than that is left "
            "the other one is made longer, be it width or height. The centre is that of the final "
            "sides"
        )
        same(found, wanted, why, atol=1e-3)


def test_epochs_of_a_large_set(student):
    """500 images, some epochs and seeds: the draws of the docstring"""
    for seed, number in ((0, 0), (0, 1), (1, 0)):
        order, draws = student.data.batches.Batches.epoch(batches(500, seed=seed), number)
        rng = np.random.default_rng((seed, number))
        why = f"of 500 images in epoch {number} of seed {seed}: see the docstring"
        same(order, torch.from_numpy(rng.permutation(500)), f"the order {why}")
        same(draws, torch.from_numpy(rng.random(500)), f"the numbers {why}")


def test_choose_of_one_caption(student):
    """One caption is taken whatever long_share says; the share may be 0 or 1"""
    choose = student.data.batches.Batches.choose
    for share in (None, 0.3):
        found = choose(batches(long_share=share), torch.tensor([4]), 0.99)
        same(int(found), 4, f"there is one caption only, so it is taken (long_share {share})")
    always = "captions 4 and 5, long_share 1: always the longest, which is the last"
    same(int(choose(batches(long_share=1.0), torch.tensor([4, 5]), 0.99)), 5, always)
    never = "captions 4 and 5, long_share 0: never the longest, which is the last"
    same(int(choose(batches(long_share=0.0), torch.tensor([4, 5]), 0.99)), 4, never)


def test_duplicates_of_many(student):
    """Captions that an image has but that were not drawn, and equal images"""
    captions = [torch.tensor(c) for c in ([0, 1, 2], [3, 2], [4], [5], [1])]
    drawn, digests = torch.tensor([0, 3, 4, 5, 1]), torch.tensor([1, 2, 3, 3, 4])
    found = student.data.batches.find_duplicates(captions, drawn, digests)
    wanted = torch.eye(5)
    for i, j in ((0, 4), (2, 3)):
        wanted[i, j] = wanted[j, i] = 1
    same(
        found,
        wanted,
        "image 0 has the caption drawn for image 4; images 2 and 3 are equal; "
        "images 0 and 1 share a caption that was drawn for neither",
    )


def test_settings_do_not_come_from_the_checkpoint(student):
    """The groups' rate and decay are those of the new optimizer"""
    model, optimizer = fresh()
    optimizer.param_groups[0]["weight_decay"] = 0.123
    args = (checkpoint_after(3), CFG, model, optimizer, "the same", 6)
    _, found = after(student.train.go_on, *args)
    why = (
        "the weight decay came from the checkpoint; the groups should stay those of the new "
        "optimizer"
    )
    same(found[3]["groups"][0]["weight_decay"], 0.123, why)
    steps = [float(moments["step"]) for moments in found[3]["moments"].values()]
    same(steps, [3.0, 3.0], "AdamW's own count of steps should be the checkpoint's, 3")
