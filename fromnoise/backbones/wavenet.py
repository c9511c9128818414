"""DiffWave's network: residual blocks of dilated convolutions over the waveform, told the step, a mel, a class.

Kong et al., "DiffWave: A Versatile Diffusion Model for Audio Synthesis", ICLR 2021, https://arxiv.org/abs/2009.09761.
E(t) is the step embedding and `up` the mel upsampler of `layers`; d_l = 2^(l mod dilation_cycle):

    h = relu(In [x, signal])                                        b C n
    for every block l:
        u = h + A_l E(t)
        y = W_l *_d u + M_l up_l(mel) + V_l vector                  b 2C n, three taps d_l apart
        g = tanh(y_1) sigmoid(y_2)                                  y_1 the first C channels, y_2 the last
        s = s + S_l g
        h = sqrt(1/2) (r + R_l g)                                   r = u with residual_includes_step, else r = h
    out = Out relu(Skip sqrt(1/N) s)

Two published wirings of it: *philsyn* (also its fork) has weight norm, an upsampler per block, falling step
frequencies, and an in-place addition by which the step stays in the residual; *lmnt* has plain layers, one upsampler,
rising frequencies, r = h, and the gate's halves the other way round (an importer swaps the rows of W_l and M_l).
R_l and S_l are two layers here; where a checkpoint has one of C -> 2C, its first rows are R_l. R of the last block
feeds nothing: it is kept, so that checkpoints go in and out whole, but never trained.

With gradients, or away from the CPU, the formulas run as convolutions (`plain`); else in tiles (`tiled`). Both read
each layer's weight once per `bind`, so that weight norm is folded once per run, and the mel's terms M_l up_l(mel) are
made once per `bind` as well (as long as they fit into CACHE_BYTES). Under torch.autocast("cpu", torch.bfloat16) around
`bind` the tiles run in bfloat16: with AVX-512 about 1.5 times as fast, 38 dB from the float32 output.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.backbones.layers import MelUpsampler, StepEmbedding, normed_conv1d
from fromnoise.backbones.tiled import TiledBlock, TiledWaveNet
from fromnoise.types import Condition

CACHE_BYTES = 2**31  # of mel terms kept over the steps of a run; beyond, each call makes them anew


@dataclass(frozen=True)
class WaveNetConfig:
    """residual_channels: C; skip_channels: of the sum of skips; num_layers: N; dilations 1, 2, 4 .. start again after
    `dilation_cycle` layers. mel_bands: of the condition's frames, 0 for none; mel_upsample: the factors whose product
    is the hop, in one upsampler (shared_upsampler) or one per block. residual_includes_step, rising_steps, weight_norm:
    see the module's text. vector_dim: of the condition's vector (a class), 0 for none. embed_*: of the step embedding.
    """

    residual_channels: int = 64
    skip_channels: int = 64
    num_layers: int = 30
    dilation_cycle: int = 10
    mel_bands: int = 0
    mel_upsample: tuple[int, ...] = (16, 16)
    shared_upsampler: bool = False
    residual_includes_step: bool = False
    rising_steps: bool = False
    weight_norm: bool = True
    vector_dim: int = 0
    embed_in: int = 128
    embed_mid: int = 512
    embed_out: int = 512
    signal_channels: int = 0

    def __post_init__(self) -> None:
        sizes = (self.residual_channels, self.skip_channels, self.num_layers, self.embed_mid, self.embed_out)
        told = (self.mel_bands, self.vector_dim, self.signal_channels)
        if min(sizes) < 1 or min(told) < 0:
            raise ValueError(
                f"wavenet: expected positive sizes (mel_bands, vector_dim and signal_channels may be 0), got {self}"
            )
        if max(*sizes, *told) > 65536 or self.num_layers > 1024 or not 1 <= self.dilation_cycle <= 24:
            raise ValueError(
                "wavenet: expected at most 1024 layers, a dilation cycle of 1 to 24 and widths up to 65536, "
                f"got {self.num_layers}, {self.dilation_cycle} and {max(*sizes, *told)}"
            )
        if self.embed_in < 2 or self.embed_in % 2:
            raise ValueError(f"wavenet: expected an even embed_in, got {self.embed_in}")
        if self.mel_bands and (not 1 <= len(self.mel_upsample) <= 8 or min(self.mel_upsample) < 1):
            raise ValueError(f"wavenet: expected 1 to 8 factors in mel_upsample, got {self.mel_upsample}")

    @property
    def dilations(self) -> list[int]:
        """Of every block."""
        return [2 ** (i % self.dilation_cycle) for i in range(self.num_layers)]

    @property
    def reach(self) -> int:
        """Samples on either side that one output sample depends on, those under its mel frames included."""
        reach, step = sum(self.dilations), 1
        for factor in reversed(self.mel_upsample if self.mel_bands else ()):
            step *= factor  # one frame of this stage, in samples; a sample reads one frame to either side
            reach += step
        return reach

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return WaveNet(self)


@dataclass(frozen=True)
class Folded:
    """A block's effective weights, as F.conv1d takes them. bias: of y, `1 2C` or `b 2C`, the class term included."""

    taps: Float[Tensor, "c2 c 3"]
    bias: Float[Tensor, "b c2"]
    mel: Float[Tensor, "c2 m 1"] | None
    residual: Float[Tensor, "c c 1"]
    residual_bias: Float[Tensor, " c"]
    skip: Float[Tensor, "s c 1"]
    skip_bias: Float[Tensor, " s"]


class Block(nn.Module):
    """The layers of one block; `WaveNet` runs them."""

    def __init__(self, config: WaveNetConfig, dilation: int, last: bool) -> None:
        super().__init__()
        c, normed = config.residual_channels, config.weight_norm
        self.step = nn.Linear(config.embed_out, c)
        self.dilated = normed_conv1d(c, 2 * c, 3, dilation, normed)
        self.mel = self.upsampler = self.vector = None
        if config.mel_bands:
            self.mel = normed_conv1d(config.mel_bands, 2 * c, weight_norm=normed)
            if not config.shared_upsampler:
                self.upsampler = MelUpsampler(config.mel_upsample, normed)
        if config.vector_dim:
            self.vector = nn.Linear(config.vector_dim, 2 * c)
        self.residual = normed_conv1d(c, c, weight_norm=normed)
        self.skip = normed_conv1d(c, config.skip_channels, weight_norm=normed)
        if last:
            self.residual.requires_grad_(False)

    def fold(self, vector: Float[Tensor, "b v"] | None) -> Folded:
        """The effective weights for one condition."""
        bias = _bias(self.dilated)
        if self.mel is not None:
            bias = bias + _bias(self.mel)
        bias = bias[None]
        if self.vector is not None and vector is not None:
            bias = bias + self.vector(vector)
        mel = None if self.mel is None else self.mel.weight
        residual, skip = self.residual, self.skip
        return Folded(self.dilated.weight, bias, mel, residual.weight, _bias(residual), skip.weight, _bias(skip))


def _bias(conv: nn.Conv1d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _stacked(x: Float[Tensor, "b 1 n"], signal: Float[Tensor, "i s n"]) -> Float[Tensor, "b c n"]:
    """x with the signal under it, of one item or of all."""
    if signal.shape[-1] != x.shape[-1] or len(signal) not in (1, len(x)):
        raise ValueError(f"expected a signal of x's items and samples, {tuple(x.shape)}, got {tuple(signal.shape)}")
    return torch.cat([x, signal.to(x.dtype).expand(len(x), -1, -1)], dim=1)


class WaveNet(nn.Module):
    """x `b 1 n`, t `b` (the 0-based fractional step) -> `b 1 n`; see `WaveNetConfig`."""

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        self.config = config
        c, s, normed = config.residual_channels, config.skip_channels, config.weight_norm
        self.input = normed_conv1d(1 + config.signal_channels, c, weight_norm=normed)
        self.embed = StepEmbedding(config.embed_in, config.embed_mid, config.embed_out, config.rising_steps)
        self.upsampler = None
        if config.mel_bands and config.shared_upsampler:
            self.upsampler = MelUpsampler(config.mel_upsample, normed)
        last = config.num_layers - 1
        self.blocks = nn.ModuleList(Block(config, d, i == last) for i, d in enumerate(config.dilations))
        self.skip = normed_conv1d(s, s, weight_norm=normed)
        self.output = nn.Conv1d(s, 1, 1)
        if not normed:
            for conv in self.modules():
                if isinstance(conv, nn.Conv1d):
                    nn.init.kaiming_normal_(conv.weight)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(_bias(self.output))

    def forward(
        self, x: Float[Tensor, "b 1 n"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b 1 n"]:
        return self.bind(condition)(x, t)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) for one condition. A condition of one item serves any number of items of x."""
        mel, vector = self._told(condition)
        folded = [block.fold(vector) for block in self._blocks]
        plain = torch.is_grad_enabled() or self.output.weight.device.type != "cpu"
        network = self._plain(folded, mel) if plain else self._tiled(folded, mel)
        if not self.config.signal_channels:
            return network
        signal = self._signal(condition)
        return lambda x, t: network(_stacked(x, signal), t)

    @property
    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def _told(self, condition: Condition) -> tuple[Tensor | None, Tensor | None]:
        """The condition's parts that this network reads, checked, in its dtype."""
        config, dtype = self.config, self.output.weight.dtype
        mel = vector = None
        if config.mel_bands:
            if condition.frames is None:
                raise ValueError("this wavenet reads a mel; expected it in the condition's frames, got none")
            mel = condition.frames.to(dtype)
            if mel.ndim != 3 or mel.shape[1] != config.mel_bands:
                raise ValueError(f"expected mel frames (batch, {config.mel_bands}, frames), got {tuple(mel.shape)}")
        if config.vector_dim:
            if condition.vector is None:
                raise ValueError("this wavenet reads a class embedding; expected the condition's vector, got none")
            vector = condition.vector.to(dtype)
            if vector.ndim != 2 or vector.shape[1] != config.vector_dim:
                raise ValueError(f"expected a vector (batch, {config.vector_dim}), got {tuple(vector.shape)}")
        if mel is not None and vector is not None and len(mel) != len(vector) and 1 not in (len(mel), len(vector)):
            raise ValueError(f"expected mel and vector of the same items, got {len(mel)} and {len(vector)}")
        return mel, vector

    def _signal(self, condition: Condition) -> Float[Tensor, "b s n"]:
        """The condition's signal, checked."""
        signal, expected = condition.signal, self.config.signal_channels
        if signal is None:
            raise ValueError("this wavenet reads a wave beside x; expected the condition's signal, got none")
        if signal.ndim != 3 or signal.shape[1] != expected:
            raise ValueError(f"expected a signal (batch, {expected}, samples), got {tuple(signal.shape)}")
        return signal

    def _require_fit(self, x: Tensor, mel: Tensor | None, folded: Folded) -> None:
        """Raises ValueError when the condition is of other items than x, or its mel serves fewer samples."""
        for name, count in (("vector", len(folded.bias)), ("mel", 1 if mel is None else len(mel))):
            if count not in (1, len(x)):
                raise ValueError(f"expected a {name} of one item or of all {len(x)}, got {count}")
        if mel is None:
            return
        length = mel.shape[-1]
        for factor in self.config.mel_upsample:
            length = length * factor + factor % 2
        if length < x.shape[-1]:
            raise ValueError(
                f"{mel.shape[-1]} mel frames serve {length} samples, got {x.shape[-1]}; cut x or add frames"
            )

    def _upsampled(self, mel: Tensor | None) -> Callable[[int], Tensor | None]:
        """Block index -> its upsampled mel `b m n`."""
        if mel is None or self.upsampler is None:
            ups = [block.upsampler for block in self._blocks]
            return lambda i: None if mel is None else ups[i](mel)  # pyright: ignore[reportOptionalCall]
        shared = self.upsampler(mel)
        return lambda i: shared

    def _keep(self, told: Callable[[int], Tensor], mel: Tensor | None) -> Callable[[int], Tensor]:
        """The same function with its values made now, unless there are gradients or too many bytes."""
        config = self.config
        if mel is not None:
            numbers = 2 * config.residual_channels * config.num_layers * len(mel) * mel.shape[-1]
            if torch.is_grad_enabled() or numbers * math.prod(config.mel_upsample) * mel.element_size() > CACHE_BYTES:
                return told
        made = [told(i) for i in range(config.num_layers)]
        return made.__getitem__

    def _plain(self, folded: list[Folded], mel: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        """The module's formulas as they stand there."""
        blocks, dilations, upsampled = self._blocks, self.config.dilations, self._upsampled(mel)
        half = math.sqrt(0.5)

        def mel_term(i: int) -> Tensor:
            term, up = folded[i].bias[:, :, None], upsampled(i)
            weight = folded[i].mel
            return term if up is None or weight is None else F.conv1d(up, weight) + term

        told = self._keep(mel_term, mel)

        def network(x: Tensor, t: Tensor) -> Tensor:
            self._require_fit(x, mel, folded[0])
            e = self.embed(t)
            h = F.relu(self.input(x.to(self.output.weight.dtype)))
            total: Tensor | None = None
            for i, (block, w) in enumerate(zip(blocks, folded, strict=True)):
                u = h + block.step(e)[:, :, None]
                y = F.conv1d(u, w.taps, padding=dilations[i], dilation=dilations[i])
                y = y + told(i)[..., : x.shape[-1]]
                value, gate = y.chunk(2, dim=1)
                g = torch.tanh(value) * torch.sigmoid(gate)
                s = F.conv1d(g, w.skip, w.skip_bias)
                total = s if total is None else total + s
                if i < len(blocks) - 1:
                    r = u if self.config.residual_includes_step else h
                    h = half * (r + F.conv1d(g, w.residual, w.residual_bias))
            assert total is not None
            return self.output(F.relu(self.skip(total * math.sqrt(1 / len(blocks))))).to(x.dtype)

        return network

    def _tiled(self, folded: list[Folded], mel: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        """The same map by `tiled`, which wants time first and weights `in out`."""
        upsampled, dtype = self._upsampled(mel), self.output.weight.dtype
        c, low = self.config.residual_channels, dtype
        if torch.is_autocast_enabled("cpu"):
            low = torch.get_autocast_dtype("cpu")
        double = torch.ones(2 * c, dtype=dtype)
        double[:c] = 2  # tanh(y) = 2 sigmoid(2 y) - 1
        blocks = [
            TiledBlock(
                [(w.taps[:, :, k] * double[:, None]).T.to(low).contiguous() for k in range(3)],
                (-math.sqrt(0.5) * w.residual[:, :, 0]).T.to(low).contiguous(),
                math.sqrt(0.5) * w.residual_bias,
                (-w.skip[:, :, 0]).T.to(low).contiguous(),
            )
            for w in folded
        ]
        biases = [w.bias * double for w in folded]
        weights = [None if w.mel is None else (w.mel[:, :, 0] * double[:, None]).T.contiguous() for w in folded]

        def mel_term(i: int) -> Tensor:
            up, weight, bias = upsampled(i), weights[i], biases[i]
            if up is None or weight is None:
                return bias[:, None].to(low)
            b = max(len(bias), len(up))  # either may serve all items
            return torch.baddbmm(bias[:, None], up.mT.expand(b, -1, -1), weight.expand(b, -1, -1)).to(low)

        scale = math.sqrt(1 / len(blocks))
        skip = scale * self.skip.weight[:, :, 0].T
        skip_bias = _bias(self.skip) + torch.stack([w.skip_bias for w in folded]).sum(0) @ skip
        step_weight = torch.cat([block.step.weight for block in self._blocks])
        step_bias = torch.cat([block.step.bias for block in self._blocks])

        def steps(t: Tensor) -> Float[Tensor, "b layers c"]:
            return F.linear(self.embed(t), step_weight, step_bias).reshape(len(t), len(blocks), c)

        run = TiledWaveNet(
            (self.input.weight[:, :, 0].T.contiguous(), _bias(self.input)),
            blocks,
            self.config.dilations,
            (skip.contiguous(), skip_bias),
            (self.output.weight[:, :, 0].T.contiguous(), _bias(self.output)),
            self.config.residual_includes_step,
        )
        told = self._keep(mel_term, mel)

        def network(x: Tensor, t: Tensor) -> Tensor:
            self._require_fit(x, mel, folded[0])
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                return run(x.to(dtype), steps(t), told).to(x.dtype)

        return network
