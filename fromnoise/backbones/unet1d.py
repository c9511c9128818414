"""The U-Net of Mousai and audio-diffusion-pytorch: waves or latents, by time, text, frames and a vector.

Schneider, Kamal, Jin and Schoelkopf, "Mousai: Text-to-Music Generation with Long-Context Latent Diffusion", 2023,
https://arxiv.org/abs/2301.11757. Level d has C_d channels, factor r_d and a group of items, repeated n_d times:

    items_d = ResNet, Modulation, Inject, self-attentions, feed-forwards (ours), cross-attentions
    level_d(x) = merge(skip(x), up_d(items_d' (level_(d+1) (items_d (down_d x)))))
    down_d: convolution of kernel = stride = r_d     up_d: each position r_d times, convolution of 3
    f(t) = g M g M' g L [t, sin 2 pi t w, cos 2 pi t w] + vector          g = GELU, w learnt; M' = M unless untied

down_d leads to C_d channels and up_d back; `skip` is 1x1 where the network's output has other channels than its input.
`merge` weighs each channel of the level's result by L silu(f), without `1 +`, as published. A time of `b k` adds k
features. The learned transform (`num_filters`) is a strided convolution in front, reflecting at the ends, and a
transposed one behind:  window_length // 2 - stride // 2  samples lie beyond each end.

Any length is filled with zeros to a multiple of stride and factors, and the result is cut again. Frames of the
condition enter at one level, one per position there. A context is attended to as far as its mask says. With
`embedding_max_length` there is a learnt table of as many rows for "no text": it takes the place of a context that is
absent, and of every item whose mask is False throughout. Without the table such an item is attended to by nobody.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fromnoise.backbones.unet_items import (
    Added,
    Attention,
    Concatenated,
    FeedForward,
    Inject,
    Modulated,
    Modulation,
    ResNet,
    TimeFeatures,
    Told,
    conv,
    lengthen,
)
from fromnoise.types import Condition

PER_LEVEL = ("factors", "items", "attentions", "cross_attentions", "context_channels", "feed_forwards")


@dataclasses.dataclass(frozen=True)
class UNet1dConfig:
    """Names as in audio-diffusion-pytorch; sizes per level, the first beside the signal; empty lists are zeros.

    dim: axes of space. in_channels, out_channels: of x and the output, 0 for those of x. channels, factors, items: C_d,
    r_d, n_d. attentions, cross_attentions, feed_forwards: how many in one group of items. context_channels: of the
    condition's frames, at one level. attention_features, attention_heads: width of a head, heads. embedding_features:
    of the condition's context. embedding_max_length: rows of the table for no text, 0 for none. skip: how levels merge,
    "auto" being "modulated" where there is modulation, else "concatenated". tied_time: M' = M. signal_channels: of the
    condition's signal, stacked under x. vector_dim: of the condition's vector, mapped to modulation_features where it
    has another width. checkpointing: in training, make the items' inner values anew instead of keeping them.
    """

    dim: int = 1
    in_channels: int = 2
    out_channels: int = 0
    channels: tuple[int, ...] = (64, 128, 256, 256)
    factors: tuple[int, ...] = (1, 4, 4, 4)
    items: tuple[int, ...] = (1, 1, 2, 2)
    attentions: tuple[int, ...] = ()
    cross_attentions: tuple[int, ...] = ()
    context_channels: tuple[int, ...] = ()
    feed_forwards: tuple[int, ...] = ()
    attention_features: int = 64
    attention_heads: int = 8
    embedding_features: int = 0
    embedding_max_length: int = 0
    feed_forward_multiplier: int = 4
    resnet_groups: int = 8
    use_modulation: bool = True
    modulation_features: int = 1024
    use_time_conditioning: bool = True
    tied_time: bool = True
    skip: Literal["auto", "modulated", "concatenated", "added"] = "auto"
    num_filters: int = 0
    window_length: int = 64
    stride: int = 64
    signal_channels: int = 0
    vector_dim: int = 0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        self._require_sizes()
        if self.use_time_conditioning and not self.use_modulation:
            raise ValueError("unet1d: time is told by modulation; set use_modulation, or use_time_conditioning=False")
        if self._is_modulated and not (self.use_time_conditioning or self.vector_dim):
            raise ValueError("unet1d: nothing to modulate by; set use_time_conditioning or vector_dim")
        if any(self.cross_attentions) != bool(self.embedding_features):
            raise ValueError(
                f"unet1d: expected embedding_features with cross_attentions and only then, got "
                f"{self.embedding_features} and {self.cross_attentions}"
            )
        if self.embedding_max_length and not self.embedding_features:
            raise ValueError("unet1d: a table for no text (embedding_max_length) needs embedding_features")
        if sum(map(bool, self.context_channels)) > 1:
            raise ValueError(
                f"unet1d: the condition's frames enter at one level, got context_channels {self.context_channels}"
            )
        if self.num_filters and (
            self.dim != 1 or self.window_length < self.stride or (self.window_length - self.stride) % 2
        ):
            raise ValueError(
                "unet1d: the learned transform (num_filters) is for dim 1, with window_length - stride even and not "
                f"negative; got dim {self.dim}, {self.window_length} and {self.stride}"
            )

    def _require_sizes(self) -> None:
        depth = len(self.channels)
        for name in PER_LEVEL:
            given = getattr(self, name)
            if len(given) != depth and (given or name in ("factors", "items")):
                raise ValueError(f"unet1d: expected {depth} {name}, one per level of channels, got {given}")
            if any(not 0 <= value <= 65536 for value in given):
                raise ValueError(f"unet1d: expected {name} from 0 to 65536, got {given}")
        sizes = (self.in_channels, *self.channels, *self.factors, self.resnet_groups, self.modulation_features)
        sizes += (self.attention_features, self.attention_heads, self.feed_forward_multiplier, self.stride)
        least = (self.out_channels, self.signal_channels, self.vector_dim, self.num_filters, self.embedding_features)
        if not 1 <= depth <= 24 or self.dim not in (1, 2, 3) or min(sizes) < 1 or min(least) < 0:
            raise ValueError(f"unet1d: expected 1 to 24 levels, dim 1 to 3 and positive sizes, got {self}")
        if max(sizes + least) > 65536 or max(self.items) > 256 or not 0 <= self.embedding_max_length <= 65536:
            raise ValueError("unet1d: expected at most 65536 channels and rows, and 256 groups of items per level")
        odd = next((c for c in self.channels if c % self.resnet_groups), None)
        if odd is not None:
            raise ValueError(f"unet1d: expected channels in multiples of resnet_groups={self.resnet_groups}, got {odd}")

    @property
    def _is_modulated(self) -> bool:
        return self.use_modulation or self.skip == "modulated"

    @property
    def merge(self) -> str:
        """How levels merge."""
        return self.skip if self.skip != "auto" else "modulated" if self.use_modulation else "concatenated"

    @property
    def context(self) -> int:
        """Numbers that stand for each position of the condition's context; 0 where it is not read."""
        return self.embedding_features

    @property
    def hop(self) -> int:
        """Samples per position of the first level's input."""
        return self.stride if self.num_filters else 1

    @property
    def multiple(self) -> int:
        """Of which every axis of space becomes; shorter ends are filled with zeros."""
        return self.hop * math.prod(self.factors)

    @property
    def inject_depth(self) -> int | None:
        """The level that the condition's frames enter."""
        return next((d for d, width in enumerate(self.context_channels) if width), None)

    @property
    def frame_hop(self) -> int:
        """Samples per frame of the condition."""
        return 1 if self.inject_depth is None else self.hop * math.prod(self.factors[: self.inject_depth + 1])

    @property
    def reach(self) -> int:
        """Samples on either side that the convolutions see; norms and attention see all."""
        steps = itertools.accumulate(self.factors, lambda a, b: a * b, initial=self.hop)
        levels = zip(list(steps)[1:], self.factors, self.items, strict=True)
        return self.hop + sum(step * (4 * count + 2) + step // factor for step, factor, count in levels)

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return UNet1d(self)


class Level(nn.Module):
    """One level with all that are below it."""

    def __init__(self, config: UNet1dConfig, depth: int, num_in: int, num_out: int) -> None:
        super().__init__()
        dim, c = config.dim, config.channels[depth]
        self.factor, self.checkpointing = config.factors[depth], config.checkpointing
        self.skip = conv(dim, num_in, num_out) if num_in != num_out else None
        self.down = conv(dim, num_in, c, self.factor, self.factor)
        self.items_down = nn.ModuleList(_items(config, depth))
        self.inner = Level(config, depth + 1, c, c) if depth + 1 < len(config.channels) else None
        self.items_up = nn.ModuleList(_items(config, depth))
        self.up = conv(dim, c, num_out, 3)
        self.merge = _merge(config, num_out)

    def forward(self, x: Float[Tensor, "b c *n"], told: Told) -> Float[Tensor, "b d *n"]:
        y = self.down(x)
        y = self._through(self.items_down, y, told)
        if self.inner is not None:
            y = self.inner(y, told)
        y = self._through(self.items_up, y, told)
        if self.factor > 1:
            y = F.interpolate(y, scale_factor=float(self.factor), mode="nearest")
        return self.merge(x if self.skip is None else self.skip(x), self.up(y), told)

    def _through(self, items: nn.ModuleList, y: Tensor, told: Told) -> Tensor:
        for item in items:
            y = checkpoint(item, y, told, use_reentrant=False) if self._saves else item(y, told)
        return y

    @property
    def _saves(self) -> bool:
        return self.checkpointing and self.training and torch.is_grad_enabled()


def _items(config: UNet1dConfig, depth: int) -> list[nn.Module]:
    """The items of one side of a level."""
    c, heads = config.channels[depth], (config.attention_features, config.attention_heads)
    per_level = {name: (getattr(config, name) or (0,) * len(config.channels))[depth] for name in PER_LEVEL}
    group: list[Callable[[], nn.Module]] = [lambda: ResNet(config.dim, c, config.resnet_groups)]
    if config.use_modulation:
        group.append(lambda: Modulation(c, config.modulation_features))
    if per_level["context_channels"]:
        group.append(lambda: Inject(config.dim, c, per_level["context_channels"]))
    group += [lambda: Attention(c, *heads)] * per_level["attentions"]
    group += [lambda: FeedForward(config.dim, c, config.feed_forward_multiplier)] * per_level["feed_forwards"]
    group += [lambda: Attention(c, *heads, config.embedding_features)] * per_level["cross_attentions"]
    return [make() for _ in range(config.items[depth]) for make in group]


def _merge(config: UNet1dConfig, channels: int) -> nn.Module:
    if config.merge == "modulated":
        return Modulated(channels, config.modulation_features)
    return Concatenated(config.dim, channels) if config.merge == "concatenated" else Added()


class UNet1d(nn.Module):
    """x `b c n` (dim 2: `b c f n`), t `b`, a condition -> `b c n`; see `UNet1dConfig`."""

    def __init__(self, config: UNet1dConfig) -> None:
        super().__init__()
        self.config = config
        num_in, num_out = config.in_channels + config.signal_channels, config.out_channels or config.in_channels
        self.time = None
        if config.use_time_conditioning:
            self.time = TimeFeatures(config.modulation_features, config.tied_time)
        self.vector = None
        if config.vector_dim not in (0, config.modulation_features):
            self.vector = nn.Linear(config.vector_dim, config.modulation_features)
        self.nothing = None
        if config.embedding_max_length:
            self.nothing = nn.Parameter(torch.randn(config.embedding_max_length, config.embedding_features))
        self.encoder = self.decoder = None
        if config.num_filters:
            num_in, inner, k, s = num_in * config.num_filters, num_in, config.window_length, config.stride
            self.encoder = nn.Conv1d(inner, num_in, k, s, bias=False)
            pad = k // 2 - s // 2
            self.decoder = nn.ConvTranspose1d(num_out * config.num_filters, num_out, k, s, pad, bias=False)
            num_out *= config.num_filters
        self.top = Level(config, 0, num_in, num_out)

    def forward(
        self, x: Float[Tensor, "b c *n"], t: Float[Tensor, "b *k"], condition: Condition
    ) -> Float[Tensor, "b d *n"]:
        return self.bind(condition)(x, t)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) for one condition. A condition of one item serves any number of items of x."""
        signal, frames, vector = self._signal(condition), self._frames(condition), self._vector(condition)
        context, mask, told = self._context(condition)
        kept: dict[nn.Module, tuple[Tensor, ...]] = {}
        for item in self.modules():
            if isinstance(item, Attention) and item.crosses and context is not None:
                keys, values = item.keep(context)
                kept[item] = keys, values if told is None else values * told[:, None, None, None]
            elif isinstance(item, Inject) and frames is not None:
                kept[item] = item.keep(frames)

        def network(x: Tensor, t: Tensor) -> Tensor:
            told = Told(self._features(t, vector), kept, mask)
            return self._run(self._stacked(x, signal, frames), told, x)

        return network

    def _run(self, stacked: Tensor, told: Told, x: Tensor) -> Tensor:
        """The levels inside the learned transform; the result is cut to x."""
        y = self.top(self.encode(stacked), told)
        y = y if self.decoder is None else self.decoder(y)
        return y[(slice(None), slice(None), *(slice(n) for n in x.shape[2:]))].to(x.dtype)

    def encode(self, x: Float[Tensor, "b c *n"]) -> Float[Tensor, "b e *m"]:
        """What the first level is shown: x, or its learned transform."""
        if self.encoder is None:
            return x
        pad = self.config.window_length // 2 - self.config.stride // 2
        return self.encoder(F.pad(x, (pad, pad), mode="reflect") if pad else x)

    def _stacked(self, x: Tensor, signal: Tensor | None, frames: Tensor | None) -> Tensor:
        """x with the condition's signal under it, filled to the multiple."""
        config = self.config
        if x.ndim != 2 + config.dim or x.shape[1] != config.in_channels:
            raise ValueError(
                f"unet1d: expected x with a batch, {config.in_channels} channels and {config.dim} further axes, "
                f"got {tuple(x.shape)}"
            )
        least = config.window_length // 2 if self.encoder is not None else 0  # reflection needs more than it mirrors
        sizes = tuple(-(-max(n, least) // config.multiple) * config.multiple for n in x.shape[2:])
        if frames is not None and any(
            not -(-n // config.frame_hop) <= own <= size // config.frame_hop
            for n, own, size in zip(x.shape[2:], frames.shape[2:], sizes, strict=True)
        ):
            raise ValueError(
                f"unet1d: expected one frame of the condition per {config.frame_hop} positions of x, got "
                f"{tuple(frames.shape[2:])} frames for {tuple(x.shape[2:])} positions"
            )
        h = x.to(self.top.down.weight.dtype)
        if signal is not None:
            if signal.shape[2:] != x.shape[2:]:
                raise ValueError(
                    f"unet1d: expected a condition signal as long as x, {tuple(x.shape[2:])}, got "
                    f"{tuple(signal.shape[2:])}"
                )
            h = torch.cat([h, signal.expand(len(h), *signal.shape[1:])], dim=1)
        return lengthen(h, sizes)

    def _features(self, t: Tensor, vector: Tensor | None) -> Tensor | None:
        """silu(f)."""
        parts = [part for part in (vector, None if self.time is None else self.time(t)) if part is not None]
        return F.silu(sum(parts[1:], parts[0])).expand(len(t), -1) if parts else None

    def _given(self, part: Tensor | None, width: int, field: str, axis: int = 1) -> Tensor | None:
        """A part of the condition that this network reads, checked, in its dtype; None where it reads none."""
        if not width:
            return None
        if part is None:
            raise ValueError(f"unet1d: expected the condition's {field}, {width} numbers per position; got none")
        if part.shape[axis] != width:
            raise ValueError(
                f"unet1d: expected {width} numbers per position in the condition's {field}, got {part.shape[axis]}"
            )
        return part.to(self.top.down.weight.dtype)

    def _signal(self, condition: Condition) -> Tensor | None:
        return self._given(condition.signal, self.config.signal_channels, "signal")

    def _frames(self, condition: Condition) -> Tensor | None:
        return self._given(condition.frames, sum(self.config.context_channels), "frames")

    def _vector(self, condition: Condition) -> Tensor | None:
        vector = self._given(condition.vector, self.config.vector_dim, "vector")
        return vector if vector is None or self.vector is None else self.vector(vector)

    def _context(self, condition: Condition) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The context with the table's rows where nothing is told, its mask for attention, and, without a table, which
        items are told anything."""
        if condition.context is None and self.nothing is not None:
            return self.nothing[None], None, None
        context = self._given(condition.context, self.config.embedding_features, "context", axis=2)
        mask = condition.mask
        if context is None or mask is None:
            return context, None, None
        told = mask.any(dim=1)
        if self.nothing is None:
            return context, (mask | ~told[:, None])[:, None, None], told
        rows = max(mask.shape[1], len(self.nothing))
        real = torch.arange(rows, device=mask.device) < len(self.nothing)
        context, mask = F.pad(context, (0, 0, 0, rows - mask.shape[1])), F.pad(mask, (0, rows - mask.shape[1]))
        nothing = F.pad(self.nothing, (0, 0, 0, rows - len(self.nothing)))
        context = torch.where(told[:, None, None], context, nothing)
        return context, torch.where(told[:, None], mask, real)[:, None, None], None
