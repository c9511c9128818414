"""Sounds of any length by splits with noise levels of their own: levels, calls, seeds, continuation, refusals.

That the numbers are those published is asserted in tests/oracles/test_t2a_wrappers.py.
"""

import dataclasses

import numpy as np
import pytest
import torch

from fromnoise.backbones import UNet1dConfig
from fromnoise.conditioning import Bytes
from fromnoise.data.clips import Clips
from fromnoise.frontends import Wave
from fromnoise.objectives import Objective
from fromnoise.predictions import Velocity
from fromnoise.processes import VPAngular
from fromnoise.recipes import RECIPES, Recipe, from_tree, to_tree
from fromnoise.samplers import DDIM, PositionNoise, Uniform
from fromnoise.samplers.ladder import Ladder, folded, ladder, unfolded
from fromnoise.tasks import GenerationModel, Generator
from fromnoise.training.settings import Optimisation, TrainerSettings
from fromnoise.types import InputError

RATE, CLIP, SPLITS = 1000, 64, 4
PROCESS = VPAngular()
NETWORK = UNet1dConfig(
    in_channels=1, signal_channels=1, channels=(8,), factors=(2,), items=(1,), resnet_groups=4,
    modulation_features=8, vector_dim=8, use_time_conditioning=False,
)  # fmt: skip
RECIPE = Recipe(
    name="test/splits",
    task="generate",
    frontend=Wave(RATE),
    backbone=NETWORK,
    process=PROCESS,
    prediction=Velocity(),
    sampler=DDIM(),
    grid=Uniform(),
    num_steps=8,
    text=Bytes(8, 1, 2),
    seconds=CLIP / RATE,
    splits=SPLITS,
    data=Clips(sample_rate=RATE, seconds=CLIP / RATE, fixed=False, captions=("label",)),
    optimisation=Optimisation(),
    trainer=TrainerSettings(),
)


def make(**parts: object) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Generator(GenerationModel(dataclasses.replace(RECIPE, **parts).model_config()))


@pytest.fixture(scope="module")
def generator() -> Generator:
    return make()


@pytest.mark.parametrize(("splits", "steps"), [(2, 2), (4, 8), (6, 20), (8, 8)])
def test_the_ladder_closes_on_itself(splits, steps):
    """After a shift every split is at the level that its earlier neighbour began at; the first of them is done."""
    levels = ladder(splits, steps)
    half = splits // 2
    assert levels.shape == (steps // splits + 1, splits)
    assert not levels[:, :half].any()
    torch.testing.assert_close(levels[-1, half + 1 :], levels[0, half:-1], rtol=0, atol=0)
    assert levels[-1, half] == 0
    assert levels[0, -1] == 1
    assert bool((levels[1:] <= levels[:-1]).all())


def test_folding_is_undone():
    x = torch.randn(3, 2, 5, 12)
    assert folded(x, 4).shape == (12, 2, 5, 3)
    assert torch.equal(folded(x, 4)[5], x[1, ..., 3:6])
    assert torch.equal(unfolded(folded(x, 4), 4), x)


@pytest.mark.parametrize("known", [None, 20, 41])
@pytest.mark.parametrize("fresh", [1, 16, 33, 100])
def test_the_exact_answer_is_reached_and_calls_are_as_promised(fresh, known):
    """A denoiser that knows the data: whatever the noise and the length, the data come out."""
    target, calls = 0.7, []

    def denoise(x, t):
        calls.append(t)
        return torch.full_like(x, target)

    run = Ladder(denoise, PROCESS, DDIM(), 4, 10, Uniform().times(PROCESS, 8))
    before = None if known is None else torch.full((2, 1, known), target)
    x = torch.randn(2, 1, fresh)
    seen = []
    made = run.sample(x, before, PositionNoise([0, 1]), lambda i, n, x: seen.append((i, n)))
    assert made.shape == x.shape
    torch.testing.assert_close(made, torch.full_like(x, target), rtol=0, atol=1e-5)
    assert len(calls) == run.evaluations(fresh, known or 0)
    assert seen == [(i, len(calls)) for i in range(len(calls))]
    if known is not None:
        assert not calls[0].reshape(2, 4)[:, :2].any()  # what is known is told to be done


def test_calls_grow_with_the_length_alone(generator):
    """30 s of a 4-s model: a quarter of the steps for each split after the first window."""
    run = generator.model.default_run()
    assert generator.model.ladder_calls(CLIP, 0, run) == 8
    assert generator.model.ladder_calls(2 * CLIP, 0, run) == 8 + (8 - 2) * 2
    assert generator.model.ladder_calls(2 * CLIP, CLIP, run) == 8 + 8 * 2


def test_long_sounds_are_made_and_belong_to_their_seed(generator):
    sounds = generator(3, text="rain", seconds=0.2, seed=5)
    assert sounds.shape == (3, 1, 200)
    np.testing.assert_allclose(generator(1, text="rain", seconds=0.2, seed=5, first=2)[0], sounds[2], atol=1e-5)
    assert np.abs(sounds[0] - sounds[1]).max() > 1e-3
    told = generator(1, text="rain", negative="wind", guidance=3.0, seconds=0.2, seed=5)
    assert np.isfinite(told).all()
    assert np.abs(told[0] - sounds[0]).max() > 1e-3
    assert generator(1, text="rain", seconds=0.01).shape == (1, 1, 10)


def test_a_recording_is_continued_and_stays(generator):
    wave = (0.2 * np.random.default_rng(0).standard_normal(90)).astype(np.float32)
    told: list[tuple[int, int]] = []
    longer = generator.editor(text="rain", progress=lambda done, total: told.append((done, total))).extend(
        wave, RATE, 0.3
    )
    assert longer.shape == (1, 1, 300)
    np.testing.assert_array_equal(longer[0, 0, :70], wave[:70])  # off the 20 ms of the cross-fade
    assert told[-1][0] == told[-1][1] == len(told)
    other = generator.editor(text="rain").extend(-wave, RATE, 0.3)
    assert np.abs(longer[0, 0, 100:] - other[0, 0, 100:]).max() > 1e-3  # what follows depends on what was there


def test_the_loss_draws_a_level_for_each_split(generator):
    """An item's loss is the mean over its splits, each with a level of its own that the network is told."""
    model, seen = generator.model, []
    handle = model.denoiser.backbone.network.register_forward_hook(
        lambda module, given, out: seen.append(given[2].signal)
    )
    clean = torch.randn(2, 1, CLIP)
    losses = model.loss(clean, ["rain", "wind"], Objective(), torch.Generator().manual_seed(0))
    handle.remove()
    assert losses.shape == (2,)
    levels = seen[0][:, 0].unflatten(-1, (SPLITS, -1))
    assert levels.std(-1).max() < 1e-6
    assert levels.mean(-1).unique().numel() == 2 * SPLITS


def test_a_recipe_keeps_its_splits():
    assert from_tree(to_tree(RECIPE)).splits == SPLITS
    endless = RECIPES["text_to_audio/sounds_splits"]
    with torch.device("meta"):
        model = GenerationModel(endless.model_config())
    assert model.clip == endless.data.seconds * 16000 == 32768
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3_651_744


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ({"splits": 3}, "expected an even number of splits of the 64 positions of a clip, and no clamp, got 3"),
        ({"splits": 6}, "even number of splits of the 64"),
        ({"splits": 64}, "even number of splits of the 64"),
        ({"clamp": True}, "no clamp"),
        ({"backbone": dataclasses.replace(NETWORK, signal_channels=0)}, "set signal_channels=1 of its backbone"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(parts, fault):
    with pytest.raises(ValueError, match=fault):
        make(**parts)


def test_requests_that_cannot_be_met_are_refused(generator):
    with pytest.raises(InputError, match="choose --sampler ddim or ancestral"):
        generator(1, text="rain", seconds=0.2, sampler="heun")
    with pytest.raises(InputError, match="at least as many steps, got 4 and 3"):
        generator(1, text="rain", seconds=0.2, steps=3)
    with pytest.raises(InputError, match="half a clip to go on from, 32 positions, got 20"):
        generator.editor(text="rain").extend(np.ones(20, np.float32), RATE, 0.3)
    with pytest.raises(InputError, match=r"expected clips of 0\.064 s"):
        generator.model.loss(torch.randn(1, 1, 60), ["rain"], Objective())
    with pytest.raises(InputError, match="as long as one split"):
        generator(1, text="rain", seconds=0.016)
