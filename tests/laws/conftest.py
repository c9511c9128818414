"""What the laws run over: every member of PROCESSES with its defaults, and settings that bring out its corners."""

import pytest
import torch

from fromnoise.processes import OUVE, PROCESSES, VE, VP, Bridge, Flow, Interpolating, Mixing, VPAngular

SETTINGS = [
    *(part() for part in PROCESSES.values()),
    VP(beta_min=1e-4, beta_max=0.05, num_steps=50),
    VP(betas=(1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5)),
    VPAngular(t_min=0.01),
    Interpolating(beta_max=0.0095, num_steps=200),
    Interpolating(beta_max=0.03, starts_at_observation=False),
    VE(sigma_min=0.01, sigma_max=1.0, t_min=0.02),
    OUVE(theta=2.0, sigma_min=0.1, sigma_max=1.0),
    Bridge(k=10.0, c=0.01, eps=1e-6),
    Flow(sigma=0.5, t_min=0.01),
    Flow("observation"),
    Flow("observation", sigma=0.3),
    Flow("observation", sigma=0.0),
    Mixing(gamma=3.0, sigma_min=0.1, sigma_max=1.0, t_min=0.01),
]


@pytest.fixture(params=SETTINGS, ids=str)
def process(request):
    return request.param


@pytest.fixture
def inner(process):
    """Times inside (0, 1), float64; halfway between the steps of a discrete process, where its weights are smooth."""
    steps = process.trained_times()
    if steps is None:
        return torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    return steps[:: max(1, len(steps) // 7)] - process.t_min / 2


@pytest.fixture
def batch():
    """count -> x0, y and z of shape count x 2 x 5, float64, of a fixed seed."""

    def make(count):
        generator = torch.Generator().manual_seed(7)
        return [torch.randn(count, 2, 5, generator=generator, dtype=torch.float64) for _ in range(3)]

    return make
