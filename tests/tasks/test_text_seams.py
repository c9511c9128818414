"""Sounds that are gone on from piece by piece have no seam, by the measure of benchmarks/seams.py.

The generator is exact: its data are a Gaussian process (resonant, smooth over 4 samples), of which the best estimate
from any noisy state is known in closed form. What is left of a seam is the method's.
"""

import math

import numpy as np
import pytest
import torch

from benchmarks.seams import seams
from fromnoise.tasks import GenerationConfig, GenerationModel, Generator

RATE, CLIP = 1000, 256
SECONDS, COUNT = 3.0, 5


@pytest.fixture(scope="module")
def exact() -> Generator:
    config = GenerationConfig(
        frontend={"name": "wave", "sample_rate": RATE},
        backbone={"name": "convnext", "features": 1, "width": 8, "layers": 1, "expansion": 1, "kernel": 3},
        process={"name": "vp_angular"},
        prediction={"name": "velocity"},
        sampler={"name": "ddim"},
        grid={"name": "uniform"},
        num_steps=24,
        seconds=CLIP / RATE,
    )
    model = GenerationModel(config)
    lag = torch.arange(CLIP, dtype=torch.float64)
    lag = lag[:, None] - lag
    covariance = torch.exp(-0.5 * (lag / 4) ** 2) * torch.cos(lag / 2) + 1e-4 * torch.eye(CLIP, dtype=torch.float64)
    power, basis = torch.linalg.eigh(covariance)

    def estimate(x, t):
        """E[x0 | x_t]: in the basis of the covariance, clean l / (clean^2 l + noise^2) x_t."""
        weights = model.process.weights(t.double())
        clean, noise = weights.clean[:, None], weights.noise[:, None]
        gain = clean * power / (clean**2 * power + noise**2)
        return ((x[:, 0].double() @ basis) * gain @ basis.T)[:, None].to(x.dtype)

    model.denoiser.bind = lambda y, condition: estimate
    return Generator(model)


def ranks(sounds, joins):
    """measure -> (mean rank of the joins, its standard error where there is no seam)."""
    return {line.measure: (line.rank, line.expected) for line in seams(sounds, RATE, joins)}


def test_a_clip_of_a_quarter_of_a_second_becomes_three_seconds_without_a_seam(exact):
    """Level and spectrum at the joins are as everywhere, to three standard errors. A click, too: what deterministic
    steps leave of one (mean rank 0.57 where a hard cut has 0.93 and 0.5 is none) is allowed for."""
    clip = exact(1, seed=3)[0]
    editor = exact.editor(count=COUNT, seed=4)
    joins = editor.joins(clip, RATE, SECONDS)
    assert joins == list(range(CLIP, round(SECONDS * RATE), CLIP // 2))
    assert editor.joins(clip, RATE, SECONDS, 0.056)[:2] == [CLIP, CLIP + 200]
    longer = editor.extend(clip, RATE, SECONDS)
    assert longer.shape == (COUNT, 1, round(SECONDS * RATE))
    assert longer[..., CLIP:].std() == pytest.approx(1, abs=0.1)  # the process's own, to the last piece
    found = ranks([sound[0] for sound in longer], joins)
    for measure in ("level", "spectrum"):
        assert abs(found[measure][0] - 0.5) < 3 * found[measure][1]
    assert found["click"][0] < 0.7


def test_a_hard_cut_is_heard_by_the_measure(exact):
    """Halves of clips that have nothing to do with one another."""
    pieces = exact(COUNT * 12, seed=9)[:, 0, : CLIP // 2].reshape(COUNT, -1)
    found = ranks(list(pieces), list(range(CLIP // 2, pieces.shape[1], CLIP // 2)))
    assert found["click"][0] > 0.85
    stepped = pieces * np.where(np.arange(pieces.shape[1]) // (CLIP // 2) % 2, 4.0, 1.0)
    assert ranks(list(stepped), list(range(CLIP // 2, pieces.shape[1], CLIP // 2)))["level"][0] > 0.9


def test_a_piece_is_made_of_other_noise_than_the_clip_before(exact):
    """With one seed for the clip and for what follows, the clip's end would come again."""
    clip = exact(1, seed=5)[0]
    longer = exact.editor(seed=5).extend(clip, RATE, 1.5 * CLIP / RATE)[0, 0]
    old, new = longer[CLIP // 2 : CLIP], longer[CLIP:]
    likeness = float((old * new).sum() / math.sqrt(float((old**2).sum() * (new**2).sum())))
    assert abs(likeness) < 0.6
