"""A denoiser: backbone + process + prediction, (x_t, t, y, condition) -> estimate of x0. Samplers see nothing else.

y is the observation inside the process (the path may lead to it); condition is what the backbone is told. A task that
enhances passes the noisy signal as both.
"""

from collections.abc import Callable

from torch import Tensor, nn

from fromnoise.predictions import Prediction
from fromnoise.processes.base import Process, State, Times
from fromnoise.types import Condition


class Denoiser(nn.Module):
    """Reads a backbone's output as an estimate of clean data.

    backbone: module(x, t, condition) -> tensor like x; it may also have `bind(condition)` -> function (x, t).
    """

    def __init__(self, backbone: nn.Module, process: Process, prediction: Prediction) -> None:
        super().__init__()
        self.backbone = backbone
        self.process = process
        self.prediction = prediction

    def raw(self, x_t: State, t: Times, y: State | None = None, condition: Condition | None = None) -> State:
        """The network's output, before it is read."""
        return self._shown(self._network(condition), x_t, t, y)

    def forward(self, x_t: State, t: Times, y: State | None = None, condition: Condition | None = None) -> State:
        """The estimate of x0."""
        return self.bind(y, condition)(x_t, t)

    def bind(self, y: State | None = None, condition: Condition | None = None) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) -> x0 that a sampler calls; what depends on the condition alone is computed here."""
        network = self._network(condition)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.prediction.to_clean(self._shown(network, x, t, y), x, t, self.process, y)

        return denoise

    def _network(self, condition: Condition | None) -> Callable[[Tensor, Tensor], Tensor]:
        """The backbone for one condition, by its own `bind` where it has one."""
        told = condition or Condition()
        bind = getattr(self.backbone, "bind", None)
        return bind(told) if bind is not None else lambda x, t: self.backbone(x, t, told)

    def _shown(self, network: Callable[[Tensor, Tensor], Tensor], x_t: State, t: Times, y: State | None) -> State:
        shown = self.prediction.network_input(x_t, t, self.process, y)
        told = self.prediction.network_time(t, self.process).to(x_t.dtype)
        return network(shown, told)
