"""PositionNoise is unit normal noise that depends on seed, draw, channel and position, and on nothing else."""

import math

import pytest
import torch

from fromnoise.samplers import PositionNoise

N = 40000


def values(seed=0, draw=0, channels=1, n=N, offset=0):
    noise = PositionNoise([seed], offset)
    for _ in range(draw):
        noise(torch.zeros(1, channels, 1))
    return noise(torch.zeros(1, channels, n, dtype=torch.float64))[0]


def kolmogorov_distance(x):
    """The largest gap between the empirical and the normal distribution function."""
    ordered = x.sort().values
    steps = torch.arange(1, len(x) + 1, dtype=torch.float64) / len(x)
    normal = torch.special.ndtr(ordered)
    return torch.maximum(steps - normal, normal - steps + 1 / len(x)).max().item()


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 2**64 - 1, -5])
def test_values_are_unit_normal(seed):
    """Five standard errors: 1/sqrt(N) of the mean, sqrt(2/N) of the variance, sqrt(24/N) of the kurtosis; the
    distance exceeds 2/sqrt(N) once in 1500 times."""
    x = values(seed)[0]
    assert abs(x.mean().item()) < 5 / math.sqrt(N)
    assert abs(x.var().item() - 1) < 5 * math.sqrt(2 / N)
    assert abs(((x - x.mean()) ** 4).mean().item() / x.var().item() ** 2 - 3) < 5 * math.sqrt(24 / N)
    assert kolmogorov_distance(x) < 2 / math.sqrt(N)


def test_streams_are_uncorrelated():
    """Every pair of: neighbouring seeds, draws, channels, and shifts of one stream; five standard errors."""
    base = values(channels=3)
    streams = [
        *base,
        values(seed=1)[0],
        values(seed=2)[0],
        values(draw=1)[0],
        values(draw=2)[0],
        values(seed=1, draw=1)[0],
        *(base[0].roll(shift) for shift in (1, 2, 64, 1000)),
    ]
    table = torch.corrcoef(torch.stack(streams)) - torch.eye(len(streams))
    squares = torch.corrcoef(torch.stack(streams).square()) - torch.eye(len(streams))
    assert table.abs().max().item() < 5 / math.sqrt(N)
    assert squares.abs().max().item() < 5 / math.sqrt(N)


def test_chunks_draw_what_the_whole_draws():
    whole, chunk = PositionNoise([3, 4]), PositionNoise([3, 4], offset=100)
    for _ in range(3):
        all_of_it, part = whole(torch.zeros(2, 2, 5, 300)), chunk(torch.zeros(2, 2, 5, 60))
        assert part.tolist() == all_of_it[..., 100:160].tolist()


def test_items_draw_the_same_in_any_batch():
    together, alone = PositionNoise([5, 6, 7]), PositionNoise([6])
    for _ in range(3):
        assert together(torch.zeros(3, 2, 9))[1].tolist() == alone(torch.zeros(1, 2, 9))[0].tolist()


def test_draws_follow_the_tensor_they_are_for():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert PositionNoise([0])(torch.zeros(1, 1, 4, dtype=dtype)).dtype == dtype
    short, long = PositionNoise([0])(torch.zeros(1, 4)), PositionNoise([0])(torch.zeros(1, 4, dtype=torch.float64))
    torch.testing.assert_close(short.double(), long, rtol=1e-7, atol=0)


def test_values_stay_the_same_between_versions():
    """A published result names a seed: these are the first values of seed 1, computed with Python's own integers."""
    mask = 2**64 - 1

    def mix(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    key = mix((mix((mix((1 + golden) & mask) + 0) & mask) + 2) & mask)  # seed 1, draw 0, channel 2
    expected = []
    for place in (10, 11, 12):
        bits = mix((key + (place + 1) * golden) & mask)
        radius = math.sqrt(-2 * math.log(((bits >> 32) + 0.5) / 2**32))
        expected.append(radius * math.cos(2 * math.pi * (bits & (2**32 - 1)) / 2**32))
    drawn = PositionNoise([1], offset=10)(torch.zeros(1, 3, 3, dtype=torch.float64))[0, 2]
    assert drawn.tolist() == pytest.approx(expected, rel=1e-12)


def test_wrong_batch_is_an_error():
    with pytest.raises(ValueError, match="one item per seed"):
        PositionNoise([1, 2])(torch.zeros(3, 1, 4))
