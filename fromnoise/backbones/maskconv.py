"""Masks for every source from all bins of a frame at once: convolutions in time and attention, for small machines.

    h = Conv([compressed spectra, log-magnitudes] of x and signal)                      b d t
    h = Block(h, t), ..., every `attention` layers h = Attention(h)                     as in `convnext`, dilated
    out_k = sum over the given pairs of  mask_k * pair                                  complex products, bin by bin

Masking after Luo and Mesgarani, "Conv-TasNet", 2019, https://arxiv.org/abs/1809.07454, on spectra as in Kolbaek et al.,
"Multitalker speech separation with utterance-level permutation invariant training", 2017, https://arxiv.org/abs/1703.06284.
The masks of the signal start at 1 / sources and all others at 0: the network starts by dealing out the signal evenly.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.backbones.convnext import Attention, Block, sinusoids
from fromnoise.types import Condition


@dataclass(frozen=True)
class MaskConvConfig:
    """x is `b 2k f t`, pairs of real and imaginary parts of `sources` spectra; the condition's signal `b 2 f t`.

    bins: f. width, layers, expansion, kernel: of the blocks; dilations 1, 2, 4, ... of `dilation_cycle` layers in turn.
    attention: every so many layers all frames attend to one another, 0 for never.
    """

    bins: int = 129
    sources: int = 2
    width: int = 256
    layers: int = 9
    expansion: int = 2
    kernel: int = 7
    dilation_cycle: int = 3
    attention: int = 3

    def __post_init__(self) -> None:
        sizes = (self.bins, self.sources, self.width, self.layers, self.expansion, self.kernel, self.dilation_cycle)
        if min(sizes) < 1 or self.kernel % 2 == 0 or self.width % 2:
            raise ValueError(f"maskconv: expected sizes of at least 1, an odd kernel and an even width, got {self}")

    @property
    def reach(self) -> int:
        """Frames on either side that the convolutions see; attention, which hears all, is taken as 250 more."""
        seen = self.kernel // 2 * sum(2 ** (i % self.dilation_cycle) for i in range(self.layers)) + 1
        return seen + (250 if self.attention else 0)

    def build(self) -> nn.Module:
        return MaskConv(self)


class MaskConv(nn.Module):
    """See the module's text."""

    def __init__(self, config: MaskConvConfig) -> None:
        super().__init__()
        self.config = config
        d, pairs = config.width, config.sources + 1
        self.time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.first = nn.Conv1d(3 * pairs * config.bins, d, 3, padding=1)
        self.blocks = nn.ModuleList(
            Block(d, config.expansion, config.kernel, 2 ** (i % config.dilation_cycle), 1 / config.layers)
            for i in range(config.layers)
        )
        self.attentions = nn.ModuleDict(
            {str(i): Attention(d) for i in range(config.layers) if config.attention and not (i + 1) % config.attention}
        )
        self.norm = nn.LayerNorm(d)
        self.last = nn.Linear(d, config.sources * pairs * 2 * config.bins)
        nn.init.normal_(self.last.weight, std=1e-2 / d**0.5)
        nn.init.zeros_(self.last.bias)
        with torch.no_grad():
            self.last.bias.reshape(config.sources, pairs, 2, -1)[:, -1, 0] = 1 / config.sources

    def forward(
        self, x: Float[Tensor, "b k2 f t"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b k2 f t"]:
        config = self.config
        if condition.signal is None:
            raise ValueError("maskconv needs a condition signal `b 2 f t`; got none")
        if x.shape[1:3] != (2 * config.sources, config.bins):
            raise ValueError(
                f"maskconv was made for {config.sources} sources of {config.bins} bins, got a state {tuple(x.shape)}"
            )
        given = torch.cat([x, condition.signal.to(x.dtype)], 1).unflatten(1, (-1, 2))  # b p 2 f t
        size = given.square().sum(2, keepdim=True).clamp(min=1e-10)
        heard = torch.cat([given * size**-0.25, (size + 1e-5).log() / 4], 2)
        e = nn.functional.silu(self.time(sinusoids(t.to(x.dtype), config.width)))
        h = self.first(heard.flatten(1, 3)).transpose(1, 2)  # b t d
        for i, block in enumerate(self.blocks):
            h = block(h, e)
            if str(i) in self.attentions:
                h = self.attentions[str(i)](h)
        mask = self.last(self.norm(h)).to(x.dtype).transpose(1, 2)
        mask = mask.unflatten(1, (config.sources, config.sources + 1, 2, config.bins))  # b k p 2 f t
        g = given[:, None]
        real = (mask[:, :, :, 0] * g[:, :, :, 0] - mask[:, :, :, 1] * g[:, :, :, 1]).sum(2)
        imag = (mask[:, :, :, 0] * g[:, :, :, 1] + mask[:, :, :, 1] * g[:, :, :, 0]).sum(2)
        return torch.stack([real, imag], 2).flatten(1, 2)
