"""Labels out of captions, for `--method supervised`: tokens, and pairs of neighbouring tokens (red circle).

After SuperClass (Huang et al. 2024, arXiv 2411.03313), which has no pairs.
"""

import torch

from data import BadInput
from data.captions import parts


def of(ids):
    """Token ids (B, L) -> labels (B, 2 L - 1): each token, and each pair as one number (above all tokens'); -1 where there is none."""
    a, b = ids[:, :-1], ids[:, 1:]
    return torch.cat(
        [ids.clamp_min(-1), torch.where((a >= 0) & (b >= 0), ((a + 1) << 32) + b, -1)], dim=1
    )


def commonest(ids, limit=4096):
    """(labels (V,) int64, sorted; weights (V,)) of training captions, V at most limit.

    A label weighs log(captions / captions that hold it); one that all of them hold tells nothing and is left out.
    """
    vocab, counts = torch.zeros(2, 0, dtype=torch.int64)
    for part in parts(ids):
        labels = of(part).sort(1).values
        labels[:, 1:][labels[:, 1:] == labels[:, :-1]] = -1  # count a label once a caption
        new, more = labels.unique(return_counts=True)
        vocab, row = torch.cat([vocab, new]).unique(return_inverse=True)
        counts = torch.zeros(len(vocab), dtype=torch.int64).index_add_(
            0, row, torch.cat([counts, more])
        )
    tells = (vocab >= 0) & (counts < len(ids))
    vocab, counts = vocab[tells], counts[tells]
    if not len(vocab):
        raise BadInput(
            "the captions have no word that tells one from another; there is nothing to label pictures by"
        )
    kept = counts.argsort(descending=True, stable=True)[:limit].sort().values
    return vocab[kept], (len(ids) / counts[kept]).log()
