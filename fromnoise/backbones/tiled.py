"""DiffWave's network on a processor: tiles of time that stay in the cache, matrix products with time first.

Symbols as in `wavenet`; the letters there become, with `n c` arrays and weights `in out`,

    u'  = sqrt(1/2) u + z R' + k                     u' of the next block, k = sqrt(1/2) (bias - e or 0) + e'
    y   = told + u[n-d] W_1 + u[n] W_2 + u[n+d] W_3  three products that add up in place
    z   = s_2 - 2 s_1 s_2,  s = sigmoid(y)           = -tanh(y_1/2) sigmoid(y_2): one pass for both activations
    s  += z S'

The caller puts the factor 2 of tanh(y) = 2 sigmoid(2y) - 1 into the first half of W, the minus sign of z into R' and
S', and every bias into `told`, k or the last layers. u keeps a margin of zeros as wide as the largest dilation at both
ends; a block reads one buffer and writes another, since its neighbours' tiles still read the old values.

A tile holds TILE_VALUES numbers of u a thread. Fewer fit the second-level cache better, which gains 5 % on a single
thread, but threads meet after every operation, and small tiles lose more than that where the machine is busy.

The blocks' weights may be of a lower precision (bfloat16) than x: u, y and z then are too, the sum s is not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

TILE_VALUES = 98304
SMALLEST_TILE = 128


@dataclass(frozen=True)
class TiledBlock:
    """One block's weights, scaled as the module's text says. taps: `c 2c` each; bias: of k."""

    taps: Sequence[Tensor]
    residual: Float[Tensor, "c c"]
    residual_bias: Float[Tensor, " c"]
    skip: Float[Tensor, "c s"]


Affine = tuple[Tensor, Tensor]  # weight `in out`, bias `out`


@dataclass(frozen=True)
class TiledWaveNet:
    """The whole network but its step embedding and its condition."""

    first: Affine
    blocks: Sequence[TiledBlock]
    dilations: Sequence[int]
    skip: Affine
    last: Affine
    residual_includes_step: bool

    def __call__(
        self, x: Float[Tensor, "b i n"], steps: Float[Tensor, "b layers c"], told: Callable[[int], Tensor]
    ) -> Float[Tensor, "b 1 n"]:
        """x: with what is stacked under it. steps: A_l E(t) of every block. told: block -> its part of y that does not
        depend on x, `b n 2c`; an axis of one item serves all."""
        b, _, n = x.shape
        c, num_skip = self.first[0].shape[1], self.skip[0].shape[0]
        margin = max(self.dilations)
        low = self.blocks[0].residual.dtype
        buffers = tuple(x.new_zeros(b, n + 2 * margin, c, dtype=low) for _ in range(2))
        total = x.new_zeros(b, n, num_skip)
        for item in range(b):
            u = torch.addmm(self.first[1], x[item].T, self.first[0]).relu_().add_(steps[item, 0])
            buffers[0][item, margin : margin + n] = u
        for index in range(len(self.blocks)):
            term = told(index)
            for item in range(b):
                here = term[item if len(term) > 1 else 0]
                now, then = (buffer[item] for buffer in buffers)
                self._block(index, now, then, total[item], steps[item], here)
            buffers = buffers[::-1]
        return torch.stack([self._head(item) for item in total])

    def _tiles(self, n: int, width: int) -> list[tuple[int, int]]:
        size = max(TILE_VALUES // width, SMALLEST_TILE) * torch.get_num_threads()
        return [(start, min(start + size, n)) for start in range(0, n, size)]

    def _block(
        self,
        index: int,
        now: Float[Tensor, "padded c"],
        then: Float[Tensor, "padded c"],
        total: Float[Tensor, "n s"],
        steps: Float[Tensor, "layers c"],
        told: Float[Tensor, "m c2"],
    ) -> None:
        """Reads u in `now`; writes the next block's u into `then` and adds to `total`."""
        block, d, c = self.blocks[index], self.dilations[index], now.shape[1]
        n, margin = len(total), max(self.dilations)
        follows = index + 1 < len(self.blocks)
        constant = None
        if follows:
            constant = block.residual_bias + steps[index + 1]
            if not self.residual_includes_step:
                constant = constant - 0.5**0.5 * steps[index]
            constant = constant.to(now.dtype)
        tiles = self._tiles(n, c)
        size = min(tiles[0][1], n)
        y_all, z_all = now.new_empty(size, 2 * c), now.new_empty(size, c)
        for start, stop in tiles:
            y, z = y_all[: stop - start], z_all[: stop - start]
            a, e = start + margin, stop + margin
            torch.addmm(told if len(told) == 1 else told[start:stop], now[a - d : e - d], block.taps[0], out=y)
            torch.addmm(y, now[a:e], block.taps[1], out=y)
            torch.addmm(y, now[a + d : e + d], block.taps[2], out=y).sigmoid_()
            torch.addcmul(y[:, c:], y[:, :c], y[:, c:], value=-2, out=z)
            sums = total[start:stop]
            if z.dtype == sums.dtype:
                torch.addmm(sums, z, block.skip, out=sums)
            else:
                sums.add_(z @ block.skip)
            if constant is not None:
                torch.addmm(now[a:e], z, block.residual, beta=0.5**0.5, out=then[a:e]).add_(constant)

    def _head(self, total: Float[Tensor, "n s"]) -> Float[Tensor, "1 n"]:
        out = total.new_empty(len(total), 1)
        for start, stop in self._tiles(len(total), total.shape[1]):
            hidden = torch.addmm(self.skip[1], total[start:stop], self.skip[0]).relu_()
            torch.addmm(self.last[1], hidden, self.last[0], out=out[start:stop])
        return out.T
