"""A denoiser: backbone + process + prediction, (x_t, t, y, condition) -> estimate of x0. Samplers see nothing else.

y is the observation inside the process (the path may lead to it); condition is what the backbone is told. A task that
enhances passes the noisy signal as both.
"""

import dataclasses
from collections.abc import Callable

from torch import Tensor, nn

from fromnoise.predictions import Prediction
from fromnoise.processes.base import Process, State, Times
from fromnoise.types import Condition, expand

Network = Callable[[Tensor, Tensor], Tensor]


class Denoiser(nn.Module):
    """Reads a backbone's output as an estimate of clean data.

    backbone: module(x, t, condition) -> tensor like x; it may also have `bind(condition)` -> function (x, t).
    between: where process and backbone use different coordinates, the function (network, condition) -> network in those
    of the process.
    """

    def __init__(
        self,
        backbone: nn.Module,
        process: Process,
        prediction: Prediction,
        between: Callable[[Network, Condition], Network] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.process = process
        self.prediction = prediction
        self.between = between

    def raw(self, x_t: State, t: Times, y: State | None = None, condition: Condition | None = None) -> State:
        """The network's output, before it is read."""
        return self._shown(self._network(condition), x_t, t, y, condition)

    def forward(self, x_t: State, t: Times, y: State | None = None, condition: Condition | None = None) -> State:
        """The estimate of x0."""
        return self.bind(y, condition)(x_t, t)

    def bind(self, y: State | None = None, condition: Condition | None = None) -> Network:
        """The function (x, t) -> x0 that a sampler calls; what depends on the condition alone is computed here."""
        network = self._network(condition)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.prediction.to_clean(self._shown(network, x, t, y, condition), x, t, self.process, y)

        return denoise

    def _network(self, condition: Condition | None, gain: Tensor | None = None) -> Network:
        """The backbone for one condition, by its own `bind` where it has one; it is told `gain` times the signal."""
        told = shown = condition or Condition()
        if gain is not None and told.signal is not None:
            shown = dataclasses.replace(told, signal=expand(gain, told.signal) * told.signal)
        bind = getattr(self.backbone, "bind", None)
        network = bind(shown) if bind is not None else lambda x, t: self.backbone(x, t, shown)
        return network if self.between is None else self.between(network, told)

    def _shown(self, network: Network, x_t: State, t: Times, y: State | None, condition: Condition | None) -> State:
        """The network's output; it is bound anew where the signal's gain follows the time."""
        gain = self.prediction.signal_gain(t, self.process)
        if gain is not None:
            network = self._network(condition, gain)
        shown = self.prediction.network_input(x_t, t, self.process, y)
        told = self.prediction.network_time(t, self.process).to(x_t.dtype)
        return network(shown, told)
