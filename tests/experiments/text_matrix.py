"""Does a matrix on LIFT's text side help, and when must it be made? Controls of `lift_ridge`.

    python -m tests.experiments.text_matrix train --method lift_trained --embed-dim 256 --out runs/a
    python -m tests.experiments.text_matrix train --method lift_identity --embed-dim 256 \
        --out runs/b
    python -m tests.experiments.text_matrix train --method clip_ridge --init-from runs/clip \
        --data shapes --out runs/c
    python -m tests.experiments.text_matrix eval runs/a runs/b runs/c  # docs/results/text_matrix.md

`lift_ridge` solves for a matrix on the text side after training. Each of these three rows changes
one thing:

    lift_trained   the matrix is trained together with the image side, as CLIP's heads are
    lift_identity  the same, but it begins as the identity: the first step is LIFT's
    clip_ridge     CLIP, and then its text head is solved for once more

The flags are those of train.py and eval.py.
"""

import sys
from dataclasses import replace

import torch
from torch import Tensor, nn

import lift
from data.common import BadInput, exit_status


class FromIdentity(nn.Module):
    """One matrix, no bias, that begins as the identity. (B, d_in) -> (B, d_out)"""

    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(d_out, d_in))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


def solved_again(d_in: int, d_out: int) -> nn.Module:
    """The matrix of `lift_ridge`. CLIP's text width is not the shared dimension, so it needs a name
    of its own: lift.py gives `text_ridge` the text's width."""
    return lift.text_ridge(d_in, d_out)


def rows() -> dict[str, lift.Method]:
    """The three rows, by name."""
    method, clip = lift.METHODS["lift"], lift.METHODS["clip"]
    trains = (*method.trains, "text_head")
    return {
        "lift_trained": replace(method, text_head=lift.projection, trains=trains),
        "lift_identity": replace(method, text_head=FromIdentity, trains=trains),
        "clip_ridge": replace(clip, image="run", text_head=solved_again, trains=()),
    }


def main() -> None:
    if sys.argv[1:2] not in (["train"], ["eval"]):
        raise BadInput("usage: python -m tests.experiments.text_matrix train|eval [their flags]")
    # train.py lists the methods when it is imported, so the rows must be there before.
    lift.METHODS |= rows()
    program = sys.argv.pop(1)
    if program == "train":
        import train

        train.main()
    else:
        import eval as evaluation

        evaluation.main()


if __name__ == "__main__":
    sys.exit(exit_status(main))
