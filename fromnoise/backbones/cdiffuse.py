"""CDiffuSE's network for waves of several sources: DiffWave's blocks, told the mixture by convolutions of its own.

Lu et al., "Conditional Diffusion Probabilistic Model for Speech Enhancement", ICASSP 2022,
https://arxiv.org/abs/2202.05256, in the form that DiffSep's code compares itself with. d_l = 2^(l mod dilation_cycle):

    h = relu(In x),   c = Condition signal
    for every layer l:
        y = W_l *_d (h + A_l E(time_scale t)) + M_l *_d c           three taps d_l apart
        g = sigmoid(y_1) tanh(y_2)                                  y_1 the first half of the channels
        h = sqrt(1/2) (h + R_l g),   s = s + S_l g
    out = Out relu(Skip sqrt(1/N) s)

E is the rising step embedding of `layers`: t in [0, 1] becomes the place p = time_scale t in a table of time_scale + 1
rows, and between whole places the rows are interpolated, low + (high - low) (p - floor p). DiffSep's code has t - floor
p there, which extrapolates; with `extrapolates` so does this. R of the last layer feeds nothing: it is kept, so that
checkpoints go in and out whole, but never trained. The terms M_l *_d c are made once per `bind` where they fit into
CACHE_BYTES.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.backbones.layers import StepEmbedding, step_sinusoids
from fromnoise.types import Condition

CACHE_BYTES = 2**31  # of condition terms kept over the steps of a run; beyond, each call makes them anew


@dataclass(frozen=True)
class CDiffuSEConfig:
    """sources: channels of x and of the output; signals: of the condition's signal. channels, num_layers: width and
    depth; dilations 1, 2, 4 .. start again after `dilation_cycle` layers. time_scale: table rows under t in [0, 1].
    extrapolates: as weights of DiffSep's code expect it, see the module's text.
    """

    sources: int = 2
    signals: int = 1
    channels: int = 64
    num_layers: int = 30
    dilation_cycle: int = 10
    time_scale: float = 50.0
    extrapolates: bool = False
    embed_in: int = 128
    embed_mid: int = 512
    embed_out: int = 512

    def __post_init__(self) -> None:
        sizes = (self.sources, self.signals, self.channels, self.num_layers, self.embed_mid, self.embed_out)
        if min(sizes) < 1 or max(sizes) > 65536 or self.num_layers > 1024 or not 1 <= self.dilation_cycle <= 24:
            raise ValueError(
                f"cdiffuse: expected sizes from 1 to 65536, up to 1024 layers, a dilation cycle of 1 to 24, got {self}"
            )

    @property
    def dilations(self) -> list[int]:
        """Of every layer."""
        return [2 ** (i % self.dilation_cycle) for i in range(self.num_layers)]

    @property
    def reach(self) -> int:
        """Samples on either side that one output sample depends on."""
        return sum(self.dilations)

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return CDiffuSE(self)


PRESETS = {"base": CDiffuSEConfig(), "large": CDiffuSEConfig(channels=128, num_layers=50)}


class Layer(nn.Module):
    """One gated layer; `CDiffuSE` adds up what it gives to the skips."""

    def __init__(self, config: CDiffuSEConfig, dilation: int) -> None:
        super().__init__()
        c = config.channels
        self.step = nn.Linear(config.embed_out, c)
        self.dilated = nn.Conv1d(c, 2 * c, 3, padding=dilation, dilation=dilation)
        self.condition = nn.Conv1d(c, 2 * c, 3, padding=dilation, dilation=dilation)
        self.residual = nn.Conv1d(c, c, 1)
        self.skip = nn.Conv1d(c, c, 1)

    def forward(
        self, h: Float[Tensor, "b c n"], e: Float[Tensor, "b w"], told: Float[Tensor, "b c2 n"]
    ) -> tuple[Float[Tensor, "b c n"], Float[Tensor, "b c n"]]:
        """The next h, and the layer's part of the sum of skips."""
        gate, value = (self.dilated(h + self.step(e)[:, :, None]) + told).chunk(2, dim=1)
        g = torch.sigmoid(gate) * torch.tanh(value)
        return math.sqrt(0.5) * (h + self.residual(g)), self.skip(g)


class CDiffuSE(nn.Module):
    """x `b k n`, the condition's signal `b s n`; see the module's text."""

    def __init__(self, config: CDiffuSEConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.input = nn.Conv1d(config.sources, c, 1)
        self.condition = nn.Conv1d(config.signals, c, 1)
        self.embed = StepEmbedding(config.embed_in, config.embed_mid, config.embed_out, rising=True)
        self.layers = nn.ModuleList(Layer(config, d) for d in config.dilations)
        self.skip = nn.Conv1d(c, c, 1)
        self.output = nn.Conv1d(c, config.sources, 1)
        for conv in self.modules():
            if isinstance(conv, nn.Conv1d):
                nn.init.kaiming_normal_(conv.weight)
        self._layers[-1].residual.requires_grad_(False)
        nn.init.zeros_(self.output.weight)

    @property
    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def embedding(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """E at the times t."""
        place, embed = self.config.time_scale * t, self.embed
        if not self.config.extrapolates:
            return embed(place)
        low = step_sinusoids(place.floor(), embed.dim_in, rising=True)
        high = step_sinusoids(place.ceil(), embed.dim_in, rising=True)
        s = low + (high - low) * (t - place.floor())[:, None]
        return F.silu(embed.second(F.silu(embed.first(s))))

    def forward(
        self, x: Float[Tensor, "b k n"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b k n"]:
        return self.bind(condition)(x, t)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) for one condition."""
        layers, dtype = self._layers, self.output.weight.dtype
        if condition.signal is None:
            raise ValueError("cdiffuse needs a condition signal, the mixture's wave; got none")
        signal = self.condition(condition.signal.to(dtype))
        size = 2 * signal.numel() * len(layers) * signal.element_size()
        keep = not torch.is_grad_enabled() and size <= CACHE_BYTES
        kept = [layer.condition(signal) for layer in layers] if keep else None

        def network(x: Tensor, t: Tensor) -> Tensor:
            if x.shape[-1] != signal.shape[-1]:
                raise ValueError(
                    f"cdiffuse: expected a state as long as the condition's signal, {signal.shape[-1]} samples, "
                    f"got {x.shape[-1]}"
                )
            e = self.embedding(t.to(dtype))
            h, total = F.relu(self.input(x.to(dtype))), torch.zeros((), dtype=dtype, device=x.device)
            for i, layer in enumerate(layers):
                h, skip = layer(h, e, layer.condition(signal) if kept is None else kept[i])
                total = total + skip
            return self.output(F.relu(self.skip(total * math.sqrt(1 / len(layers))))).to(x.dtype)

        return network
