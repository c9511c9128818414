"""SaShiMi: a U-Net of state-space blocks over the samples themselves.

Goel et al., "It's Raw! Audio Generation with State-Space Models", 2022, https://arxiv.org/abs/2202.09729, as the
backbone of DiffWave. One scale has n blocks of H channels; going down, p samples are folded into channels:

    block:  y = S4(norm1(x) + F e(t)) + M mel + V class,     x' = x + y,     out = x' + W2 gelu(W1 norm2(x'))
    norm:   (s / sigma) (x - mu + m)     mu, sigma: over the channels of one sample; s, m: scalars
    down:   out[., l] = W x[h, l p + i] (as one vector of H p),  H p -> H expand;     up: the same backwards
    u-net:  every layer of the way up adds the input of its counterpart on the way down, the centre adds its own

e(t) is the step embedding. sigma = 0 (equal channels) divides 0 by 0 in the published norm; `guarded_norm` takes
sqrt(sigma^2 + 1e-5) instead. A clip is padded with zeros to a multiple of all pool factors, and cut back.

mel_align "crop" is the published behaviour: an inner scale, where a sample stands for many, is given the beginning of
the upsampled mel; "pool" gives it the average over the samples that it stands for.

Filters, mel terms and weights depend neither on x nor on t: `bind` makes them once for all calls of a run.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from fromnoise.backbones.layers import MelUpsampler, StepEmbedding, normed_conv1d
from fromnoise.backbones.s4 import LAYERS, convolve, working
from fromnoise.types import Condition, InputError

TILE_ELEMENTS = 1 << 16  # numbers of one tensor that a processor's thread works on at a time: they stay in its cache


@dataclasses.dataclass(frozen=True)
class SashimiConfig:
    """d_model: channels of the outermost scale; n_layers: blocks a scale; pool: the factor between scales; expand:
    channels times this per scale; ff: width of the feed-forward; unet=False: no blocks on the way down.

    kind: "s4d" for new models; "s4_paper" and "s4_v3" are the two generations of the published weights, whose kernels
    were stored for clips of kernel_length samples. mel_bands: of `condition.frames`, 0: no mel; mel_upsample: factors
    whose product is the mel's hop. vector_dim: of `condition.vector`, 0: none. guarded_norm: see the module's text.
    """

    d_model: int = 64
    n_layers: int = 6
    pool: tuple[int, ...] = (4, 4)
    expand: int = 2
    ff: int = 2
    unet: bool = True
    kind: Literal["s4d", "s4_paper", "s4_v3"] = "s4d"
    kernel_length: int = 16000
    mel_bands: int = 0
    mel_upsample: tuple[int, ...] = (16, 16)
    mel_align: Literal["crop", "pool"] = "crop"
    d_state: int = 64
    guarded_norm: bool = True
    vector_dim: int = 0
    embed_in: int = 128
    embed_mid: int = 512
    embed_out: int = 512

    def __post_init__(self) -> None:
        if self.kind not in LAYERS:
            raise ValueError(f"sashimi: kind must be one of {', '.join(LAYERS)}, got {self.kind!r}")
        if self.mel_align not in ("crop", "pool"):
            raise ValueError(f"sashimi: mel_align must be crop or pool, got {self.mel_align!r}")
        sizes = (self.d_model, self.n_layers, self.expand, self.ff, self.kernel_length, self.embed_mid, self.embed_out)
        if min(*sizes, *self.pool, *self.mel_upsample) < 1 or min(self.mel_bands, self.vector_dim) < 0:
            raise ValueError(f"sashimi: expected every size at least 1 (mel_bands and vector_dim 0), got {self}")
        if self.d_state < 2 or self.d_state % 2:
            raise ValueError(f"sashimi: d_state must be even and at least 2, got {self.d_state}")
        if len(self.pool) > 16 or self.n_layers > 256 or self.d_model * self.expand ** len(self.pool) > 65536:
            raise ValueError("sashimi: expected at most 16 pools, 256 layers a scale and 65536 channels")
        if self.kernel_length < self.stride:
            raise ValueError(f"sashimi: kernel_length {self.kernel_length} is below the product of pool, {self.stride}")

    @property
    def stride(self) -> int:
        """Samples that one position of the centre stands for; clips are padded to multiples of it."""
        return math.prod(self.pool)

    @property
    def reach(self) -> int:
        """Samples to keep on either side where a recording is cut. No bound: every sample sees the whole clip. It is
        the length at which the published kernels end, and where those of a fresh S4D have faded to e^-8 or less."""
        return self.kernel_length

    def build(self) -> nn.Module:
        """The network with fresh weights; its last layer starts at zero."""
        return Sashimi(self)


def by_tiles(function: Callable[..., Tensor], *inputs: Float[Tensor, "b _ n"]) -> Float[Tensor, "b _ n"]:
    """A function that treats every position alone; on a processor, without gradients, run piece by piece."""
    b, c, n = inputs[0].shape
    tile = max(64, TILE_ELEMENTS * torch.get_num_threads() // (b * c))
    if torch.is_grad_enabled() or n <= tile or inputs[0].device.type != "cpu":
        return function(*inputs)
    out: Tensor | None = None
    for start in range(0, n, tile):
        piece = function(*(x[..., start : start + tile] for x in inputs))
        if out is None:
            out = piece.new_empty(*piece.shape[:-1], n)
        out[..., start : start + tile] = piece
    assert out is not None
    return out


class Pointwise(NamedTuple):
    """The weight and bias of a 1x1 convolution, taken from its module once."""

    weight: Float[Tensor, "o i"]
    bias: Float[Tensor, "o 1"]

    def __call__(self, x: Float[Tensor, "b i n"]) -> Float[Tensor, "b o n"]:
        """The convolution."""
        return torch.baddbmm(self.bias, self.weight.expand(len(x), -1, -1), x)


def pointwise(conv: nn.Module) -> Pointwise:
    """The weight of a 1x1 nn.Conv1d as it stands; with weight norm this is the place where it is computed."""
    assert isinstance(conv, nn.Conv1d) and conv.bias is not None
    return Pointwise(conv.weight[:, :, 0], conv.bias[:, None])


class Norm(nn.Module):
    """See the module's text."""

    def __init__(self, guarded: bool) -> None:
        super().__init__()
        self.eps = 1e-5 if guarded else 0.0
        self.m = nn.Parameter(torch.zeros(1))
        self.s = nn.Parameter(torch.ones(1))

    def forward(self, x: Float[Tensor, "b h n"]) -> Float[Tensor, "b h n"]:
        """In float32 even under autocast."""
        x = working(x)
        x = x - x.mean(dim=1, keepdim=True)
        variance = x.square().mean(dim=1, keepdim=True)
        return (x + self.m) * (self.s / (variance + self.eps).sqrt())


class Given(NamedTuple):
    """The condition as one scale is given it: mel `b m n` and vector `b v`, or None."""

    n: int
    mel: Tensor | None
    vector: Tensor | None


class BlockTerms(NamedTuple):
    """What a block computes once a run. added: mel and class terms."""

    response: Complex[Tensor, "k h f"]
    out: Pointwise
    widen: Pointwise
    narrow: Pointwise
    added: Float[Tensor, "b h n"] | None


class Block(nn.Module):
    """State-space layer and feed-forward, each with a norm in front and a residual around."""

    def __init__(self, width: int, length: int, config: SashimiConfig) -> None:
        super().__init__()
        self.align = config.mel_align
        self.fc_t = nn.Linear(config.embed_out, width)
        self.norm1, self.norm2 = Norm(config.guarded_norm), Norm(config.guarded_norm)
        self.layer = LAYERS[config.kind](width, config.d_state, length)
        wide = config.ff * width
        self.ff = nn.Sequential(normed_conv1d(width, wide), nn.GELU(), normed_conv1d(wide, width))
        if config.mel_bands:
            self.upsample = MelUpsampler(config.mel_upsample, weight_norm=True)
            self.mel_conv = normed_conv1d(config.mel_bands, width)
        if config.vector_dim:
            self.fc_vector = nn.Linear(config.vector_dim, width)

    def prepare(self, given: Given, factor: int) -> BlockTerms:
        """factor: samples that one position stands for."""
        added = None
        if given.mel is not None:
            added = pointwise(self.mel_conv)(self._mel(self.upsample(given.mel), given.n, factor))
        if given.vector is not None:
            vector = self.fc_vector(given.vector)[:, :, None].expand(-1, -1, given.n)
            added = vector if added is None else added + vector
        narrow, widen = pointwise(self.ff[2]), pointwise(self.ff[0])
        return BlockTerms(self.layer.response(given.n), pointwise(self.layer.output_linear), widen, narrow, added)

    def _mel(self, mel: Float[Tensor, "b m w"], n: int, factor: int) -> Float[Tensor, "b m n"]:
        """The upsampled mel at this scale; where the clip was padded, its last value goes on."""
        if self.align == "pool":
            mel = F.pad(mel, (0, max(0, n * factor - mel.shape[-1])), mode="replicate")[..., : n * factor]
            return F.avg_pool1d(mel, factor)
        return F.pad(mel, (0, max(0, n - mel.shape[-1])), mode="replicate")[..., :n]

    def forward(self, x: Float[Tensor, "b h n"], e: Float[Tensor, "b d"], terms: BlockTerms) -> Float[Tensor, "b h n"]:
        """See the module's text."""
        step = self.fc_t(e)[:, :, None]
        y = convolve(by_tiles(lambda part: self.norm1(part) + step, x), terms.response)
        added = () if terms.added is None else (terms.added,)
        return by_tiles(lambda *parts: self._rest(terms, *parts), x, y, *added)

    def _rest(self, terms: BlockTerms, x: Tensor, y: Tensor, added: Tensor | None = None) -> Tensor:
        """All that follows the convolution; it treats every position alone."""
        y = terms.out(F.gelu(y))
        y = F.glu(y, dim=1) if self.layer.GATED else y
        x = x + y if added is None else x + y + added
        return x + terms.narrow(F.gelu(terms.widen(self.norm2(x))))


class DownPool(nn.Module):
    """p samples of all channels to one: `b h (l p)` -> `b g l`."""

    def __init__(self, width: int, expand: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.linear = normed_conv1d(width * pool, width * expand)

    def prepare(self, given: Given, factor: int) -> Pointwise:
        """See `Block.prepare`."""
        return pointwise(self.linear)

    def forward(self, x: Float[Tensor, "b h n"], e: Tensor, linear: Pointwise) -> Float[Tensor, "b g l"]:
        """A strided convolution is the folding and the product in one."""
        kernel = linear.weight.unflatten(1, (-1, self.pool))
        return F.conv1d(x, kernel, linear.bias[:, 0], stride=self.pool)


class UpPool(nn.Module):
    """One sample to p: `b g l` -> `b h (l p)`."""

    def __init__(self, width: int, expand: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.linear = normed_conv1d(width, width // expand * pool)

    def prepare(self, given: Given, factor: int) -> Pointwise:
        """See `Block.prepare`."""
        return pointwise(self.linear)

    def forward(self, x: Float[Tensor, "b g l"], e: Tensor, linear: Pointwise) -> Float[Tensor, "b h n"]:
        """Channel h p + i of position l becomes channel h of sample l p + i."""
        return linear(x).unflatten(1, (-1, self.pool)).transpose(2, 3).flatten(2)


class Sashimi(nn.Module):
    """See the module's text. Input and output `b 1 n`, t the 0-based step."""

    def __init__(self, config: SashimiConfig) -> None:
        super().__init__()
        self.config = config
        width, factor = config.d_model, 1

        def blocks() -> list[nn.Module]:
            return [Block(width, config.kernel_length // factor, config) for _ in range(config.n_layers)]

        self.init_conv = nn.Sequential(normed_conv1d(1, width), nn.ReLU())
        self.embed = StepEmbedding(config.embed_in, config.embed_mid, config.embed_out)
        down: list[nn.Module] = []
        for pool in config.pool:
            down += [*(blocks() if config.unet else []), DownPool(width, config.expand, pool)]
            width, factor = width * config.expand, factor * pool
        centre, up = blocks(), []
        for pool in reversed(config.pool):
            up.append(UpPool(width, config.expand, pool))
            width, factor = width // config.expand, factor // pool
            up += blocks()
        self.d_layers, self.c_layers, self.u_layers = (nn.ModuleList(layers) for layers in (down, centre, up))
        self.norm = Norm(config.guarded_norm)
        self.final_conv = nn.Sequential(normed_conv1d(width, width), nn.ReLU(), nn.Conv1d(width, 1, 1))
        for parameter in self.final_conv[2].parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, x: Float[Tensor, "b 1 n"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b 1 n"]:
        """One call; a run of many calls is faster through `bind`."""
        return self.bind(condition)(x, t)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) -> estimate for one condition; its first call for a length makes what later ones use."""
        self._check(condition)
        terms: dict[int, list[tuple]] = {}

        def estimate(x: Tensor, t: Tensor) -> Tensor:
            n = x.shape[-1]
            if n not in terms:
                terms[n] = self._prepare(n, condition)
            return self._run(F.pad(x, (0, -n % self.config.stride)), t, terms[n])[..., :n]

        return estimate

    def _check(self, condition: Condition) -> None:
        bands, width = self.config.mel_bands, self.config.vector_dim
        frames, vector = condition.frames, condition.vector
        if bands and (frames is None or frames.ndim != 3 or frames.shape[1] != bands):
            came = "none" if frames is None else f"shape {tuple(frames.shape)}"
            raise InputError(f"sashimi with mel_bands={bands} needs mel frames (batch, {bands}, frames), got {came}")
        if width and (vector is None or vector.shape[-1] != width):
            came = "none" if vector is None else f"shape {tuple(vector.shape)}"
            raise InputError(f"sashimi with vector_dim={width} needs a condition vector (batch, {width}), got {came}")

    def _prepare(self, n: int, condition: Condition) -> list[tuple]:
        """The terms of every layer, in order, for clips of n samples."""
        config, dtype = self.config, next(self.parameters()).dtype
        mel = condition.frames.to(dtype) if config.mel_bands and condition.frames is not None else None
        vector = condition.vector.to(dtype) if config.vector_dim and condition.vector is not None else None
        hop = math.prod(config.mel_upsample)
        if mel is not None and mel.shape[-1] * hop < n:
            raise InputError(
                f"the mel has {mel.shape[-1]} frames of {hop} samples, too few for a clip of {n} samples; "
                "give the mel of the whole clip, or set mel_upsample to factors of the mel's hop"
            )
        length, factor, terms = n + -n % config.stride, 1, []
        for layer in (*self.d_layers, *self.c_layers, *self.u_layers):
            assert isinstance(layer, Block | DownPool | UpPool)
            terms.append(layer.prepare(Given(length // factor, mel, vector), factor))
            if isinstance(layer, DownPool):
                factor *= layer.pool
            elif isinstance(layer, UpPool):
                factor //= layer.pool
        return terms

    def _run(self, x: Float[Tensor, "b 1 n"], t: Float[Tensor, " b"], terms: list[tuple]) -> Float[Tensor, "b 1 n"]:
        """All layers. Without `unet` only the pools and the centre have skips."""
        e, todo, skips = self.embed(t), iter(terms), []
        x = self.init_conv(x)
        for layer in self.d_layers:
            skips.append(x)
            x = layer(x, e, next(todo))
        skips.append(x)
        for layer in self.c_layers:
            x = layer(x, e, next(todo))
        x = x + skips.pop()
        for layer in self.u_layers:
            x = layer(x, e, next(todo))
            if self.config.unet or isinstance(layer, UpPool):
                x = x + skips.pop()
        first, last = (pointwise(self.final_conv[i]) for i in (0, 2))
        return by_tiles(lambda part: last(F.relu(first(self.norm(part)))), x)
