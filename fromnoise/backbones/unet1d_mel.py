"""The U-Net `unet1d` as a vocoder's network: the mel becomes a wave, which stands under the noisy one.

    flat = transposed convolution of the mel, bands -> 1 channel, kernel mel_window, stride mel_hop, without bias
    out  = unet1d([x, flat], t)

(mel_window - mel_hop) / 2 samples lie beyond each end, so that w frames give w mel_hop samples. The vocoder of
audio-diffusion-pytorch (Schneider et al., "Mousai", 2023, https://arxiv.org/abs/2301.11757).
"""

import dataclasses
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.backbones.unet1d import UNet1d, UNet1dConfig
from fromnoise.backbones.unet_items import lengthen
from fromnoise.types import Condition


@dataclasses.dataclass(frozen=True)
class MelUNet1dConfig(UNet1dConfig):
    """All that `unet1d` has, and the size of its frames. mel_bands, mel_window, mel_hop: of the mel's definition."""

    in_channels: int = 1
    signal_channels: int = 1
    mel_bands: int = 80
    mel_window: int = 1024
    mel_hop: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        beyond = self.mel_window - self.mel_hop
        if not (1 <= self.mel_bands <= 65536 and self.mel_hop >= 1 and self.mel_window <= 65536):
            raise ValueError(f"unet1d_mel: expected mel_bands, mel_hop and mel_window from 1 to 65536, got {self}")
        if beyond < 0 or beyond % 2:
            raise ValueError(f"unet1d_mel: expected mel_window - mel_hop even and not negative, got {beyond}")
        if self.dim != 1 or self.signal_channels != 1 or self.inject_depth is not None:
            raise ValueError("unet1d_mel: expected dim=1, signal_channels=1 and no context_channels, got others")

    @property
    def reach(self) -> int:
        return super().reach + self.mel_window

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return MelUNet1d(self)


class MelUNet1d(nn.Module):
    """x `b c n`, t `b`, a condition with frames `b m w` -> `b c n`; see `MelUNet1dConfig`."""

    def __init__(self, config: MelUNet1dConfig) -> None:
        super().__init__()
        self.config = config
        beyond = (config.mel_window - config.mel_hop) // 2
        self.flat = nn.ConvTranspose1d(config.mel_bands, 1, config.mel_window, config.mel_hop, beyond, bias=False)
        self.network = UNet1d(config)

    def forward(self, x: Float[Tensor, "b c n"], t: Float[Tensor, " b"], condition: Condition) -> Tensor:
        return self.bind(condition)(x, t)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) for one condition. Samples beyond the last whole frame stand over zeros."""
        frames, bands, hop = condition.frames, self.config.mel_bands, self.config.mel_hop
        if frames is None or frames.shape[1] != bands:
            found = "none" if frames is None else str(frames.shape[1])
            raise ValueError(f"unet1d_mel: expected {bands} mel bands in the condition's frames, got {found}")
        flat = self.flat(frames.to(self.flat.weight.dtype))
        bound: dict[int, Callable[[Tensor, Tensor], Tensor]] = {}

        def network(x: Tensor, t: Tensor) -> Tensor:
            n = x.shape[-1]
            if abs(n - flat.shape[-1]) >= hop:
                raise ValueError(f"unet1d_mel: expected {flat.shape[-1]} samples for the mel, got {n}")
            if n not in bound:
                signal = lengthen(flat[..., :n], (n,))
                bound[n] = self.network.bind(dataclasses.replace(condition, frames=None, signal=signal))
            return bound[n](x, t)

        return network
