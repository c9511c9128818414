"""Classes by name, and what a network is told of one.

    vector = table[label],   label = 0 .. K - 1, and one more row, K, that stands for "no label"

DiffWave (Kong et al., 2021, https://arxiv.org/abs/2009.09761, Sec. 4) gives each class a row of 128 numbers. The row
for none comes from classifier-free guidance (Ho and Salimans, 2022, https://arxiv.org/abs/2207.12598): in training a
label is replaced by it now and then, so that one network generates freely and by class. A label that is missing is
written -1.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from fromnoise.types import InputError

NONE = -1
"""The number that stands for no label."""


class LabelEmbedding(nn.Module):
    """One row of `dim` numbers per class, and one for no label."""

    def __init__(self, num_labels: int, dim: int) -> None:
        super().__init__()
        if num_labels < 1 or dim < 1:
            raise ValueError(f"expected at least one label and one number for each, got {num_labels} and {dim}")
        self.num_labels = num_labels
        self.table = nn.Embedding(num_labels + 1, dim)

    def forward(self, labels: Int64[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """The rows of labels from -1 (none) to num_labels - 1."""
        if bool(((labels < NONE) | (labels >= self.num_labels)).any()):
            raise InputError(f"expected labels from {NONE} (none) to {self.num_labels - 1}, got {labels.tolist()[:8]}")
        return self.table(torch.where(labels == NONE, self.num_labels, labels))


def drop_labels(
    labels: Int64[Tensor, " b"], share: float, generator: torch.Generator | None = None
) -> Int64[Tensor, " b"]:
    """Each label with probability `share` replaced by none; draws from `generator`, or torch's own, unless it is 0."""
    if not 0 <= share <= 1:
        raise ValueError(f"the share of labels to drop must lie between 0 and 1, got {share}")
    if share == 0:
        return labels
    device = labels.device if generator is None else generator.device
    dropped = torch.rand(len(labels), generator=generator, device=device).to(labels.device) < share
    return torch.where(dropped, NONE, labels)


def label_number(label: str | int | None, labels: Sequence[str]) -> int:
    """The number of a label given by its name, or by its number where no label is called so; -1 for None.

    Raises InputError that lists the choices.
    """
    if label is None:
        return NONE
    text = str(label)
    if not labels:
        raise InputError(f"this model was trained without labels and generates freely; leave out the label {text!r}")
    if text in labels:
        return list(labels).index(text)
    if text.isdecimal() and text.isascii() and int(text) < len(labels):
        return int(text)
    raise InputError(f"unknown label {text!r}; choose one of: {', '.join(labels)} (or a number below {len(labels)})")
