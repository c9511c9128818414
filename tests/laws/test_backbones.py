"""Laws of every backbone: shape, precision, independence of items, reach; over every member of BACKBONES."""

import pytest
import torch

from fromnoise.backbones import BACKBONES, CRNConfig, TCUNetConfig
from fromnoise.types import Condition

SMALL = {
    "crn": [
        CRNConfig(channels=(6, 8), hidden=16, squeeze=8, groups=1, dilations=(1, 2)),
        CRNConfig(conditional=False, timed=False),
    ],
    "tcunet": [TCUNetConfig("base"), TCUNetConfig("concat", time_scale=199.0), TCUNetConfig("dual", time_scale=199.0)],
}
CASES = [pytest.param(config, id=str(config)) for configs in SMALL.values() for config in configs]


def randomised(config):
    """The network in float64 with every parameter drawn: fresh zeros would hide a term."""
    network = config.build().double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        scale = 0.5 / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.3
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return network


def given(batch: int, frames: int, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(batch, 2, 161, frames, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(), torch.rand(batch, generator=generator, dtype=torch.float64), draw()


def test_every_backbone_is_covered():
    assert set(SMALL) == set(BACKBONES)


@pytest.mark.parametrize("config", CASES)
def test_items_do_not_depend_on_their_batch(config):
    network, (x, t, signal) = randomised(config), given(3, 7)
    with torch.no_grad():
        together = network(x, t, Condition(signal=signal))
        alone = torch.cat([network(x[i : i + 1], t[i : i + 1], Condition(signal=signal[i : i + 1])) for i in range(3)])
    assert together.shape == x.shape
    assert float(together.std()) > 0
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("config", CASES)
def test_reach_bounds_what_a_frame_sees(config):
    frames = 2 * config.reach + 40 if config.reach < 100 else config.reach + 30
    network, (x, t, signal) = randomised(config), given(1, frames)
    changed, other = x.clone(), signal.clone()
    changed[..., 0] += 1
    other[..., 0] += 1
    with torch.no_grad():
        before = network(x, t, Condition(signal=signal))
        after = network(changed, t, Condition(signal=other))
    moved = (before - after).abs().amax(dim=(0, 1, 2)) > 1e-12
    assert bool(moved[0])
    assert not bool(moved[config.reach + 1 :].any())


@pytest.mark.parametrize("config", CASES)
def test_every_parameter_learns_and_one_frame_is_enough(config):
    network, (x, t, signal) = randomised(config).train(), given(2, 1)
    network(x, t, Condition(signal=signal)).square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None]
    # published: the last decoder layer of the dual network's condition path is never used
    assert all(name.startswith("c_deliver.de_") and ".de1." in name for name in still), still


CONDITIONAL = [SMALL["crn"][0], *SMALL["tcunet"][1:]]


@pytest.mark.parametrize("config", CONDITIONAL, ids=str)
def test_conditional_networks_say_what_is_missing(config):
    x, t, _ = given(1, 3)
    with pytest.raises(ValueError, match="condition signal"):
        config.build().double()(x, t, Condition())
