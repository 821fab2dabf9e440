"""Unit 5, the loop: the tests that students have."""

import copy
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from data.batches import Batches
from data.captions import DistinctCaptions
from train import Config

from ..student import Student, after, differ, holds, refuses, same
from .models import filled
from .numbers import normal

# ---- lr_at


def rates(student: Student, total: int, warmup: int, lr: float = 1.0) -> list[float]:
    cfg = SimpleNamespace(lr=lr, warmup=warmup)
    return [student.train.lr_at(step, total, cfg) for step in range(total + 1)]


def test_schedule_as_a_list(student):
    """20 steps, 2 of warm-up: the list of rates"""
    found = rates(student, 20, warmup=500)
    wanted = [0.5, 1.0, 1.0, 0.9924, 0.9698, 0.933, 0.883, 0.8214, 0.75, 0.671, 0.5868]
    wanted += [0.5, 0.4132, 0.329, 0.25, 0.1786, 0.117, 0.067, 0.0302, 0.0076, 0.0]
    why = (
        "the rates of the steps 0 to 20 of 20, peak 1. Warm-up takes a tenth of all steps at most, "
        "here 2: step 0 has 1/2, steps 1 and 2 have 1, and then a cosine falls to 0"
    )
    same(found, wanted, why, atol=1e-3)
    why = "of 19 steps a tenth, rounded down, is 1: the steps 0 and 1 have the full rate"
    same(rates(student, 19, warmup=500)[:2], [1.0, 1.0], why)


def test_schedule_without_warm_up(student):
    """No warm-up: it starts at the peak and is at half in the middle"""
    found = rates(student, 8, warmup=0, lr=0.4)
    why = "without warm-up and with the peak 0.4: the steps 0, 4 and 8 of 8 have 0.4, 0.2 and 0"
    same([found[0], found[4], found[8]], [0.4, 0.2, 0.0], why)


# ---- random_crops


def ramp(n: int, side: int = 32) -> torch.Tensor:
    """Images whose first two colours say where a pixel is: x and y from -1 to 1."""
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    images = torch.zeros(n, 3, side, side)
    images[:, 0], images[:, 1] = line, line[:, None]
    return images


def crops(student: Student, n: int, smallest: float, seed: int) -> torch.Tensor:
    draws = torch.rand(4, n, generator=torch.Generator().manual_seed(seed))
    return student.data.images.pixels.random_crops(ramp(n), smallest, draws)


def sides_of(cropped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Width and height of each crop, as shares of the image's side, from the ramps' slopes."""
    # The border is left out: there, pixels are repeated.
    width = (cropped[:, 0, 16, 20] - cropped[:, 0, 16, 12]) * 32 / 8 / 2
    height = (cropped[:, 1, 20, 16] - cropped[:, 1, 12, 16]) * 32 / 8 / 2
    return width, height


def test_crops_depend_on_the_draws_only(student):
    """The same draws give the same crops, others give other crops"""
    one, again, other = (crops(student, 4, 0.3, seed) for seed in (1, 1, 2))
    same(tuple(one.shape), [4, 3, 32, 32], "the crops should have the shape of the images")
    same(again, one, "the same draws gave other crops: all randomness must come from `draws`")
    differ(other, one, "other draws gave the same crops: are all four rows of `draws` used?")
    why = "two images of a batch were cropped alike: column i of `draws` belongs to image i"
    differ(one[0], one[1], why)


def test_crops_keep_the_smallest_share(student):
    """The area is drawn from [smallest, 1], the shape from 3/4 to 4/3, and nothing is flipped"""
    width, height = sides_of(crops(student, 200, 0.4, seed=3))
    why = "a crop is mirrored or stands on its head: left would become right"
    holds(bool((width > 0).all() and (height > 0).all()), why)
    area = width * height
    seen = f"of 200 crops the smallest keeps {float(area.min()):.2f} of the area"
    holds(
        area.min() > 0.39,
        f"{seen}, less than 0.4, which was asked for: width x height = area, "
        "or the pixels are not read as the docstring says",
    )
    holds(area.min() < 0.5, f"{seen}: the area should be drawn from 0.4 on, evenly up to 1")
    seen = f"of 200 crops the largest keeps {float(area.max()):.2f} of the area"
    holds(area.max() > 0.85, f"{seen}: the area should be drawn evenly up to 1")
    ratio = width / height
    inside = ratio.min() > 0.74 and ratio.max() < 1.34
    holds(
        inside,
        f"width / height goes from {float(ratio.min()):.2f} to {float(ratio.max()):.2f}, and "
        "should stay between 3/4 and 4/3",
    )


def test_crops_lie_inside(student):
    """Every crop lies inside the image, and crops lie everywhere"""
    cropped = crops(student, 200, 0.3, seed=4)
    width, height = sides_of(cropped)
    for colour, side, name in ((0, width, "x"), (1, height, "y")):
        centre = cropped[:, colour, 15:17, 15:17].mean((1, 2))
        reach = (centre.abs() + side).max()
        holds(
            reach < 1.02,
            f"a crop reaches to {float(reach):.2f} along {name}, and the image ends at 1: its "
            "centre may move by 1 minus its side",
        )
        why = f"all crops lie in the middle along {name}: the place should be drawn, too"
        holds(centre.min() < -0.15 and centre.max() > 0.15, why)


def test_crops_by_hand(student):
    """Two crops of an image of 4 x 4 pixels, written out"""
    image, draws = ramp(1, side=4), torch.tensor([[0.0, 0.0], [0.5, 1.0], [0.0, 0.5], [0.5, 0.0]])
    wanted = {
        0.25: ([-0.75, -0.625, -0.375, -0.125], [-0.375, -0.125, 0.125, 0.375]),
        0.9: ([-0.75, -0.25, 0.25, 0.75], [-0.75, -0.325, 0.125, 0.575]),
    }
    says = (
        "half of each side, at the left edge and in the middle of the height. The corners of grid "
        "and image are not aligned, and beyond the edge the nearest pixel counts",
        "all of the width and 0.9 of the height, at the top. By the ratio alone the height would "
        "be 0.82, and less than 0.9 of the area would be left. Is the width at [0, 0] of theta?",
    )
    for number, (smallest, (row, column)) in enumerate(wanted.items()):
        one = draws[:, number : number + 1]
        found = student.data.images.pixels.random_crops(image, smallest, one)
        why = f"smallest {smallest}, draws {one[:, 0].tolist()}: {says[number]}"
        same(tuple(found.shape), [1, 3, 4, 4], "the crops should have the shape of the images")
        same(found[0, 0, 1], row, f"x in a row of the crop. {why}", atol=1e-3)
        same(found[0, 1, :, 1], column, f"y in a column of the crop. {why}", atol=1e-3)


# ---- batch order


def batches(n: int = 20, seed: int = 0, long_share: float | None = None) -> Batches:
    captions = DistinctCaptions([[f"image {i}"] for i in range(n)])
    return Batches(
        range(n),
        captions,
        None,
        None,
        batch_size=4,
        seed=seed,
        long_share=long_share,
        device=torch.device("cpu"),
    )


def test_an_epoch_holds_each_image_once(student):
    """The order is a permutation, and the numbers that draw captions lie in [0, 1)"""
    order, draws = student.data.batches.Batches.epoch(batches(), 0)
    same(order.sort().values, torch.arange(20), "the order should hold each of 20 images once")
    why = "there should be 20 numbers in [0, 1), one for each image: they draw its caption"
    holds(len(draws) == 20 and draws.min() >= 0 and draws.max() < 1, why)
    holds(len(draws.unique()) == 20, "two images have the same number: each needs one of its own")


def test_an_epoch_is_a_function_of_seed_and_number(student):
    """Whatever was asked before, epoch k of seed s is the same"""
    epoch = student.data.batches.Batches.epoch
    first = epoch(batches(), 3)[0]
    np.random.seed(1)
    why = (
        "epoch 3 of seed 0, asked again in another object, has another order. The order must come "
        "from a generator that is made from the seed and the number, and from no other"
    )
    same(epoch(batches(), 3)[0], first, why)
    asked_before = batches()
    asked_before.drawn_epoch, asked_before.drawn = 2, (np.arange(20), np.zeros(20))
    why = (
        "epoch 3 of seed 0 has another order when epoch 2 was asked before. What is kept in "
        "`drawn` is only good for the epoch in `drawn_epoch`"
    )
    same(epoch(asked_before, 3)[0], first, why)
    differ(epoch(batches(), 4)[0], first, "epoch 4 has the order of epoch 3: is the number used?")
    differ(epoch(batches(seed=1), 3)[0], first, "seed 1 has the order of seed 0: is the seed used?")


def test_an_epoch_has_the_draws_of_the_docstring(student):
    """Epoch 3 of seed 0, five images: order and numbers, written out"""
    order, draws = student.data.batches.Batches.epoch(batches(5), 3)
    why = "is the generator made from (seed, number), in this order, and is the order drawn first?"
    same(order, [3, 0, 2, 1, 4], f"the order of five images in epoch 3 of seed 0: {why}")
    wanted = [0.3169, 0.2991, 0.6885, 0.3203, 0.7229]
    same(draws, wanted, f"the numbers of five images in epoch 3 of seed 0: {why}", atol=1e-3)


def chosen(student: Student, object_: Batches, captions: torch.Tensor, draw: float) -> int:
    """The caption that is chosen. Wrong unless it is one element of the tensor."""
    found = student.data.batches.Batches.choose(object_, captions, draw)
    is_element = isinstance(found, torch.Tensor) and found.ndim == 0
    holds(is_element, f"one element of the tensor `captions` should come back; got {found!r}")
    return int(found)


def test_choose_takes_all_captions_alike(student):
    """Without long_share, [0, 1) is divided evenly among the captions"""
    captions = torch.tensor([7, 8, 9, 6])
    found = [
        chosen(student, batches(), captions, draw)
        for draw in (0.0, 0.24, 0.26, 0.5, 0.74, 0.76, 0.999)
    ]
    why = (
        "captions 7 8 9 6, draws 0 .24 .26 .5 .74 .76 .999: each caption should have a quarter of "
        "[0, 1)"
    )
    same(found, [7, 7, 8, 9, 9, 6, 6], why)


def test_choose_takes_the_longest_as_often_as_asked(student):
    """With long_share 0.6 the last caption takes 60 %, and the others share the rest"""
    object_, captions = batches(long_share=0.6), torch.tensor([7, 8, 9])
    found = [
        chosen(student, object_, captions, draw) for draw in (0.0, 0.59, 0.61, 0.79, 0.81, 0.999)
    ]
    why = (
        "captions 7 8 9, draws 0 .59 .61 .79 .81 .999. The last caption is the longest and has [0, "
        ".6); 7 and 8 should have half of the rest each"
    )
    same(found, [9, 9, 7, 7, 8, 8], why)
    only = chosen(student, object_, torch.tensor([4]), 0.99)
    same(only, 4, "an image with one caption, long_share 0.6, draw .99: there is no other one")


# ---- duplicates


def test_duplicates_of_the_example(student):
    """The example of the docstring, and a caption of two images that was drawn for neither"""
    captions = [torch.tensor(c) for c in ([0, 2, 4], [4, 1], [2], [3])]
    found = student.data.batches.find_duplicates(
        captions, torch.tensor([0, 1, 2, 3]), torch.tensor([11, 22, 33, 22])
    )
    wanted = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]])
    why = (
        "image 0 also has the caption drawn for image 2; images 1 and 3 have equal digests. So (0, "
        "2), (2, 0), (1, 3), (3, 1) and the diagonal match, and nothing else. Images 0 and 1 share "
        "caption 4, which was drawn for neither"
    )
    same(found, wanted, why)
    kind = getattr(found, "sent_as", "no tensor")
    holds(kind == "bool", f"the mask should be bool, and is {kind}")


# ---- resume


def trained(steps: int, model: nn.Module, optimizer: torch.optim.Optimizer, start: int = 0) -> None:
    for step in range(start, steps):
        loss = (model(normal(8, 4, seed=100 + step)) - 1).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def fresh(seed: int = 7, width: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = filled(nn.Linear(4, width), seed=seed)
    return model, torch.optim.AdamW(model.parameters(), lr=0.05)


def checkpoint_after(steps: int) -> dict:
    model, optimizer = fresh()
    trained(steps, model, optimizer)
    return {
        "data_fingerprint": "the same",
        "step": steps,
        "model": copy.deepcopy(model.state_dict()),
        "optimizer": copy.deepcopy(optimizer.state_dict()),
    }


# All fields of a real configuration: which of them stands in the words of an error is free.
CFG = SimpleNamespace(**vars(Config(out="runs/example", resume="runs/example")))


def test_three_steps_and_three_are_six(student):
    """3 steps, a checkpoint, 3 more steps with another decay equal 6 steps bit for bit"""
    whole, optimizer = fresh()
    trained(3, whole, optimizer)
    optimizer.param_groups[0]["weight_decay"] = 0.5
    trained(6, whole, optimizer, start=3)
    model, optimizer = fresh(seed=8)  # another start: everything must come from the checkpoint
    optimizer.param_groups[0]["weight_decay"] = 0.5
    args = (checkpoint_after(3), CFG, model, optimizer, "the same", 6)
    start, found = after(student.train.go_on, *args)
    same(start, 3, "3 steps are done. Steps count from 0, so the next one has the number 3")
    model.load_state_dict(found[2]["tensors"])
    moments = found[3]["moments"]
    why = (
        "AdamW has no moments after go_on: they should come from the checkpoint. Without them the "
        "first steps are too large"
    )
    holds(len(moments) == 2, why)
    decay = found[3]["groups"][0]["weight_decay"]
    why = (
        "weight_decay after go_on: the groups are those of the new optimizer, not the checkpoint's"
    )
    same(decay, 0.5, why)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    trained(6, model, optimizer, start=3)
    for name, tensor in whole.state_dict().items():
        why = (
            f"{name} differs from that of 6 steps without a stop: do weights, moments and AdamW's "
            "count of steps all come from the checkpoint?"
        )
        holds(torch.equal(tensor, model.state_dict()[name]), why)


# PyTorch imports much for the first step of an optimizer: 10 seconds and more on a busy machine.
test_three_steps_and_three_are_six.seconds = 20


def test_resume_refuses_other_data(student):
    """Other data raise BadInput, and so does a run that is finished"""
    model, optimizer = fresh()
    other = "the fingerprint of the data is not the checkpoint's: go_on must raise BadInput"
    refuses(student.train.go_on, checkpoint_after(3), CFG, model, optimizer, "others", 6, why=other)
    done = "3 of 3 steps are done, and the run is finished: go_on must raise BadInput"
    refuses(
        student.train.go_on, checkpoint_after(3), CFG, model, optimizer, "the same", 3, why=done
    )


def test_resume_refuses_what_does_not_fit(student):
    """Weights of other names or shapes, and moments of another shape, raise BadInput"""
    checkpoint, (model, optimizer) = checkpoint_after(3), fresh(width=5)
    why = "the checkpoint's weights are (3, 4), the model's (5, 4): go_on must raise BadInput"
    refuses(student.train.go_on, checkpoint, CFG, model, optimizer, "the same", 6, why=why)
    renamed, other = checkpoint_after(3), fresh()
    renamed["model"]["weights"] = renamed["model"].pop("weight")
    why = "the checkpoint has `weights` in place of `weight`: go_on must raise BadInput"
    refuses(student.train.go_on, renamed, CFG, *other, "the same", 6, why=why)
    checkpoint["model"] = copy.deepcopy(model.state_dict())
    why = (
        "the checkpoint's weights fit now, and exp_avg and exp_avg_sq of the weight are still (3, "
        "4): go_on must raise BadInput. AdamW's load_state_dict does not compare these shapes"
    )
    refuses(student.train.go_on, checkpoint, CFG, model, optimizer, "the same", 6, why=why)
    for name in ("exp_avg", "exp_avg_sq"):
        for part, shape in ((slice(0, 2), "(2, 4)"), (None, "(4, 3)")):
            checkpoint, (model, optimizer) = checkpoint_after(3), fresh()
            moments = checkpoint["optimizer"]["state"][0]
            moments[name] = moments[name][part] if part else moments[name].T
            why = f"only {name} of the weight has another shape, {shape}: go_on must raise BadInput"
            refuses(student.train.go_on, checkpoint, CFG, model, optimizer, "the same", 6, why=why)
