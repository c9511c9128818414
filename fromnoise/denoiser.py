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

    backbone: module(x, t, condition) -> tensor like x.
    """

    def __init__(self, backbone: nn.Module, process: Process, prediction: Prediction) -> None:
        super().__init__()
        self.backbone = backbone
        self.process = process
        self.prediction = prediction

    def raw(self, x_t: State, t: Times, y: State | None = None, condition: Condition | None = None) -> State:
        """The network's output, before it is read."""
        shown = self.prediction.network_input(x_t, t, self.process, y)
        told = self.prediction.network_time(t, self.process).to(x_t.dtype)
        return self.backbone(shown, told, condition or Condition())

    def forward(self, x_t: State, t: Times, y: State | None = None, condition: Condition | None = None) -> State:
        """The estimate of x0."""
        out = self.raw(x_t, t, y, condition)
        return self.prediction.to_clean(out, x_t, t, self.process, y)

    def bind(self, y: State | None = None, condition: Condition | None = None) -> Callable[[Tensor, Tensor], Tensor]:
        """The function (x, t) -> x0 that a sampler calls."""
        return lambda x, t: self(x, t, y, condition)
