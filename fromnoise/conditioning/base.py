"""What a text encoder is to the models: a module from texts to a condition, and its configuration by name."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from fromnoise.types import Condition

NOTHING = ""
"""The text that stands for none: what a model is told to generate freely, and away from in guidance."""


class TextConfig(ABC):
    """A frozen dataclass per kind of encoder.

    dim: numbers that stand for each position, what a backbone must expect as its context or its vector.
    """

    dim: int

    @property
    @abstractmethod
    def max_words(self) -> tuple[int, str]:
        """How long a text may be, and in what: (128, "bytes"). What is beyond is not read."""

    @abstractmethod
    def build(self, nothing: bool = True) -> "TextEncoder":
        """The encoder; one that is taken as it is loads its weights when it first reads.

        nothing: it learns what stands for no text; False where the network does.
        """


class TextEncoder(nn.Module, ABC):
    """From texts to `context` (`b l d`), its `mask` (`b l`) and their summary `vector` (`b d`).

    An item's numbers do not depend on the other texts of the batch. NOTHING has an answer of its own, which is learned.
    """

    @abstractmethod
    def forward(self, texts: Sequence[str]) -> Condition:
        """What the network is told of each text."""

    @abstractmethod
    def is_cut(self, text: str) -> bool:
        """Whether the text is too long to be read whole."""


def tidy(text: str) -> str:
    """One line without double spaces.

    >>> tidy("  rain\\n on leaves ")
    'rain on leaves'
    """
    return " ".join(text.split())


def drop_texts(texts: Sequence[str], share: float, generator: torch.Generator | None = None) -> list[str]:
    """Each text with probability `share` replaced by none; draws from `generator`, or torch's own, unless it is 0."""
    if not 0 <= share <= 1:
        raise ValueError(f"the share of texts to drop must lie between 0 and 1, got {share}")
    if share == 0:
        return list(texts)
    device = "cpu" if generator is None else generator.device
    dropped = (torch.rand(len(texts), generator=generator, device=device) < share).tolist()
    return [NOTHING if drop else text for text, drop in zip(texts, dropped, strict=True)]
