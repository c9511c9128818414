"""Any sampler, told which part of the result is known already.

    x_s <- where(keep, clean_s source + noise_s e, step(x_t, t, s)),    e fresh at every step

"repaint" (Lugmayr et al., "RePaint", 2022, https://arxiv.org/abs/2201.09865, Algorithm 1) goes back to t and steps
again, `resamples` times in all, so that the rest comes to fit the known part:

    x_t = a x_s + sqrt(noise_t^2 - a^2 noise_s^2) e,    a = clean_t/clean_s

A share below 1 lets a position go where t falls below 1 - share (Levin and Fried, "Differential Diffusion", 2023,
https://arxiv.org/abs/2306.00950), so that the network itself leads from what is kept to what is new.

"adp" is the inpainter of audio-diffusion-pytorch as it is: its repetitions stay at t, where its deterministic step
changes nothing, so all they do is draw the noise of the known part anew.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Bool, Float
from torch import Tensor, lerp, where

from fromnoise.processes.base import Process, State, Times, ratio
from fromnoise.samplers.base import Denoise, Noise, Sampler
from fromnoise.types import expand


@dataclass(frozen=True)
class Inpainting(Sampler):
    """sampler with source (in the layout of x) kept where `keep`, of the same axes, is True; exactly so in the end.

    share: of the source in the end, from 0 to 1, where that is to fade into what the network makes; see the module.
    """

    order: ClassVar[int] = 1

    sampler: Sampler
    source: Tensor
    keep: Bool[Tensor, "_ *d"]
    resamples: int = 1
    kind: Literal["repaint", "adp"] = "repaint"
    share: Float[Tensor, "_ *d"] | None = None

    def __post_init__(self) -> None:
        if self.resamples < 1 or self.kind not in ("repaint", "adp"):
            raise ValueError(f"expected resamples >= 1 and kind repaint or adp, got {self.resamples} and {self.kind!r}")

    def evaluations(self, num_steps: int) -> int:
        return self.sampler.evaluations(num_steps) * (self.resamples if self.kind == "repaint" else 1)

    def init(self, x: State, times: Tensor) -> Any:
        return self.sampler.init(x, times)

    def step(
        self,
        x: State,
        t: Times,
        s: Times,
        state: Any,
        denoise: Denoise,
        process: Process,
        y: State | None,
        noise: Noise,
        last: bool,
    ) -> tuple[State, Any]:
        after, made = state, x
        for i in range(self.resamples):
            ahead = i + 1 < self.resamples
            if ahead and self.kind == "adp":
                x = self._known(x, t, process, y, noise)
                continue
            made, after = self.sampler.step(x, t, s, state, denoise, process, y, noise, last)
            x = self._known(made, s, process, y, noise)
            if ahead:
                x = back(x, s, t, process, y, noise)
        if not last:
            return x, after
        return (where(self.keep, self.source, x) if self.share is None else lerp(made, self.source, self.share)), after

    def _known(self, x: State, t: Times, process: Process, y: State | None, noise: Noise) -> State:
        held = self.keep if self.share is None else self.keep & (self.share >= 1 - expand(t, self.share))
        return where(held, process.sample(self.source.expand_as(x), t, y, noise(x)), x)


def back(x: State, s: Times, t: Times, process: Process, y: State | None, noise: Noise) -> State:
    """A state at t whose past is x at the earlier s."""
    here, there = process.weights(t), process.weights(s)
    a = ratio(here.clean, there.clean)
    spread = (here.noise**2 - (a * there.noise) ** 2).clamp(min=0).sqrt()
    moved = x - process.observe(there.cond, y)
    return expand(a, x) * moved + process.observe(here.cond, y) + expand(spread, x) * noise(x)
