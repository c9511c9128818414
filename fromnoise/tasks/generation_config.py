"""What a generator is made of, and which parts go together: what does not is refused with the way to mend it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from fromnoise.conditioning import TextConfig
from fromnoise.tasks.base import Spec


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """The parts of a generator as specs; it is what a card stores.

    sampler, grid, num_steps: the default run. labels: the classes by name, none for a model that only generates freely.
    label_dim: numbers that stand for a class, or for a duration without one: what the backbone must expect as its
    vector. text: the encoder of what is to be heard (`TEXTS`), of a model that reads texts in place of labels; its dim
    is what the backbone must expect as its context or vector. A network with a table for no text of its own is shown a
    mask that is False throughout. latent: the configuration of an autoencoder, of a model that generates its latents;
    the autoencoder's weights are the model's, and stand still. duration: the network is told, by its vector, how many
    seconds of its clip a sound lasts. guidance_scale, guidance_rescale: g and r of `generation_model`. seconds: length
    of the clips in training, and of what is generated. clamp: keep the wave within [-1, 1] after each step, as LMNT's
    code. splits: an even number of parts of a clip that have noise levels of their own, which the network reads as a
    channel; longer sounds are then made part by part (`samplers.ladder`). 0 for one level a clip.
    """

    frontend: Spec = dataclasses.field(default_factory=lambda: {"name": "wave", "sample_rate": 16000})
    backbone: Spec = dataclasses.field(default_factory=lambda: {"name": "wavenet"})
    process: Spec = dataclasses.field(default_factory=lambda: {"name": "vp", "num_steps": 200})
    prediction: Spec = dataclasses.field(default_factory=lambda: {"name": "noise"})
    sampler: Spec = dataclasses.field(default_factory=lambda: {"name": "ddpm"})
    grid: Spec = dataclasses.field(default_factory=lambda: {"name": "trained"})
    num_steps: int = 200
    labels: tuple[str, ...] = ()
    label_dim: int = 128
    text: Spec | None = None
    latent: Mapping[str, Any] | None = None
    duration: bool = False
    guidance_scale: float = 1.0
    guidance_rescale: float = 0.0
    seconds: float = 1.0
    clamp: bool = False
    splits: int = 0


def require_possible(config: GenerationConfig) -> None:
    """Raises ValueError for labels, texts and numbers that contradict one another."""
    if len(set(config.labels)) < len(config.labels) or not all(config.labels):
        raise ValueError(f"expected labels that all differ and have a name, got {list(config.labels)}")
    if config.labels and config.text is not None:
        raise ValueError("a generator is told labels or texts, not both; leave out labels, or text")
    if not (0 < config.seconds < math.inf and 0 <= config.guidance_scale < math.inf):
        raise ValueError(
            f"expected seconds > 0 and guidance_scale >= 0, got {config.seconds} and {config.guidance_scale}"
        )
    if not 0 <= config.guidance_rescale <= 1:
        raise ValueError(f"guidance_rescale must lie between 0 and 1, got {config.guidance_rescale}")


def require_splits(network: Any, config: GenerationConfig, clip: int) -> None:
    """Raises ValueError unless a clip of so many positions can be split and the network reads levels."""
    n = config.splits
    if n < 2 or n % 2 or clip % n or clip == n or config.clamp:
        raise ValueError(f"expected an even number of splits of the {clip} positions of a clip, and no clamp, got {n}")
    if getattr(network, "signal_channels", 0) != 1:
        raise ValueError("splits: the network reads the level as a channel; set signal_channels=1 of its backbone")


def require_told(network: Any, config: GenerationConfig, text: TextConfig | None) -> None:
    """Raises ValueError unless the network's vector has the size of a label, or its vector or context that of a text,
    or there is nothing to be told. A duration is told by the vector."""
    name, size = vector_of(network)
    kind = config.backbone["name"]
    if text is not None:
        _require_text(kind, {name or "vector": size, "context": getattr(network, "context", 0)}, text.dim)
        if config.duration and not size:
            mend = f"set {name}={text.dim}" if name else "choose a backbone that reads a vector"
            raise ValueError(f"a duration is told by the vector, and the backbone {kind!r} reads none; {mend}")
        return
    wanted = config.label_dim if config.labels or config.duration else 0
    if size != wanted:
        told = f"{len(config.labels)} labels{' and a duration' if config.duration else ''}"
        what = f"{told} of {config.label_dim} numbers each"
        mend = f"set {name}={wanted}" if name else "choose a backbone that reads a vector"
        raise ValueError(f"the backbone {kind!r} reads a vector of {size}, the model has {what}; {mend}")


def _require_text(kind: str, sizes: dict[str, int], dim: int) -> None:
    if set(sizes.values()) - {0} != {dim}:
        found = ", ".join(f"{name}={size}" for name, size in sizes.items())
        raise ValueError(
            f"the backbone {kind!r} has {found}, the text encoder gives {dim} numbers; set one of them to {dim}, the "
            "other to that or 0, or choose a backbone that reads a context or a vector"
        )


def vector_of(network: Any) -> tuple[str | None, int]:
    """What a backbone's configuration calls the size of the condition's vector, and that size."""
    name = next((n for n in ("vector_dim", "vector") if hasattr(network, n)), None)
    return name, getattr(network, name) if name else 0
