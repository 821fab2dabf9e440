"""Unit 9: a row of your own in the table of methods.

    python own.py train --seed 0 --out runs/own-0     # train.py, in which the method is called own
    python own.py eval runs/own-0                     # eval.py, likewise

The project's docs/course/own.py is an example: LIFT with a head of one residual block, and with a
loss that also pulls each image straight to its caption. In your own file the three functions hold
an idea of your own.
"""

import sys
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lift


def own_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor,
    duplicates: Tensor | None = None,
) -> Tensor:
    """A loss of a batch, a scalar. The arguments are those of lift.info_nce.

    Right pairs must cost less than exchanged ones, the order of the batch must not matter, and the
    images must get a gradient. A pair that `duplicates` names must not be pushed apart: two equal
    pairs that are duplicates of each other cost what one of them costs alone.
    """
    contrast = lift.info_nce(image_features, text_features, logit_scale, duplicates)
    return contrast + lift.cosine_loss(image_features, text_features)


def own_head(d_in: int, d_out: int) -> nn.Module:
    """A head on the image tower: (B, d_in) -> (B, d_out), of at most 300,000 numbers at 128, 256.

    Every number of it must be trained: must have a gradient.
    """
    return nn.Sequential(lift.Residual(d_in), nn.LayerNorm(d_in), nn.Linear(d_in, d_out))


def own_row() -> lift.Method:
    """The entry of the table: your head, your loss, and what is trained.

    The text side is the frozen language model's vectors, as in LIFT, so that rows can be compared.
    """
    return replace(
        lift.METHODS["lift"],
        paper="an example, 2026",
        trains=("visual", "image_head", "logit_scale"),
        image_head=own_head,
        loss=own_loss,
    )


def overfit(steps: int = 60, pairs: int = 64, seed: int = 0) -> dict:
    """Learn some random pairs by heart: how many images then find their captions, and what changed.

    A row that cannot do this learns nothing from more data either.
    """
    torch.manual_seed(seed)
    lift.METHODS["own"] = own_row()
    sizes = lift.Sizes(model="nano/16", image_size=32)
    model = lift.TwoTower("own", sizes, (torch.zeros(32), torch.eye(32)))
    images, texts = torch.randn(pairs, 3, 32, 32), torch.randn(pairs, 32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    losses = []
    for _ in range(steps):
        loss = lift.METHODS["own"].loss(**model(images, texts))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        lift.limit_scale(model.logit_scale)
        losses.append(loss.item())
    with torch.no_grad():
        features = model(images, texts)
    cosines = features["image_features"] @ F.normalize(texts, dim=-1).T
    found = (cosines.argmax(1) == torch.arange(pairs)).float().mean().item()
    after = model.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    declared = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {"found": found, "losses": losses, "changed": changed, "declared": declared}


if __name__ == "__main__":
    lift.METHODS["own"] = own_row()
    if sys.argv[1:2] == ["train"]:
        import train as program

        arguments = ["--method", "own"]
    elif sys.argv[1:2] == ["eval"]:
        import eval as program

        arguments = []
    else:
        sys.exit("usage: python own.py train [FLAGS of train.py], or python own.py eval RUN ...")
    from data.common import exit_status

    sys.argv = [sys.argv[0], *arguments, *sys.argv[2:]]
    sys.exit(exit_status(program.main))
