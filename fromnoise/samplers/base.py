"""Samplers: a pure step from time t to an earlier s with explicit state, and the only loop.

A sampler sees the process and a callable (x, t) -> estimate of x0, never a network. With the estimate x0' the process
implies a noise z', hence a score -z'/noise and a velocity; each sampler is one formula in these.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, final

from jaxtyping import Float
from torch import Tensor

from fromnoise.processes.base import Process, State, Times, time_dtype

Noise = Callable[[Tensor], Tensor]  # a tensor -> fresh unit noise of its shape, dtype and device
Denoise = Callable[[Tensor, Tensor], Tensor]  # (x, t) -> estimate of x0, t of shape b


def no_noise(like: Tensor) -> Tensor:
    """The noise of a run that was given none."""
    raise ValueError("this sampler draws noise, got none; pass noise=PositionNoise(seeds)")


def flow_velocity(process: Process, x: State, x0: State, t: Times, y: State | None) -> State:
    """dx/dt of the probability flow for the estimate x0. Raises ValueError where it is singular: a bridge's noise
    vanishes at t = 1 like a square root, and a step in t from there would be arbitrary."""
    noise, rate = process.weights(t).noise, process.derivatives(t).noise
    if bool((noise < 1e-6 * rate.abs()).any()):
        raise ValueError(
            f"the probability flow of {type(process).__name__} is singular at t = {float(t[0]):g}; "
            "use 'ddim', 'ancestral' or 'dpmpp_2m', or start below 1"
        )
    return process.velocity(x, x0, t, y)


class Sampler(ABC):
    """A way from noise to data. Subclasses are frozen dataclasses that write `step`.

    `order` is the claimed order of convergence: strong for a deterministic sampler, weak for a stochastic one, and 0
    where the result is not meant to follow the process (y is mixed in). One that follows the path's slope, `follows`,
    takes the process as it was trained, others as `Process.for_run` has it: a first step that jumps has no slope.
    """

    order: ClassVar[int]
    follows: ClassVar[bool] = False

    def evaluations(self, num_steps: int) -> int:
        """How often a run of num_steps calls the denoiser."""
        return num_steps

    def init(self, x: State, times: Float[Tensor, " n"]) -> Any:
        """The state before the first step of a run through these times."""
        return None

    @abstractmethod
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
        """From x at t to x at s < t, and the state for the next step."""

    @final
    def sample(
        self,
        denoise: Denoise,
        process: Process,
        x: State,
        times: Float[Tensor, " n"],
        y: State | None = None,
        noise: Noise | None = None,
        callback: Callable[[int, int, Tensor], object] | None = None,
        after_step: Callable[[Tensor, int, Tensor, Tensor], Tensor] | None = None,
    ) -> State:
        """Run from x at times[0] through the decreasing times to the last one.

        callback(i, n, x) is told after step i of n. after_step(x, i, t, s) -> x may change the state between steps.
        Results of a batch's items do not depend on one another as long as those of `denoise` and `noise` do not.
        """
        if len(times) < 2 or not bool((times[1:] < times[:-1]).all()):
            raise ValueError(f"expected two or more decreasing times, got {times.tolist()[:5]}; make them by a grid")
        process = process if self.follows else process.for_run(times)
        places = times.to(device=x.device, dtype=time_dtype(x.device))
        n, state = len(times) - 1, self.init(x, times)
        for i in range(n):
            t, s = places[i].expand(len(x)), places[i + 1].expand(len(x))
            x, state = self.step(x, t, s, state, denoise, process, y, noise or no_noise, i == n - 1)
            if after_step is not None:
                x = after_step(x, i, t, s)
            if callback is not None:
                callback(i, n, x)
        return x
