"""DR-DiffuSE: Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement: Condition
Collapse, Efficiency and Refinement", AAAI 2023.

Three stages: a regression network G (base); a DDPM told G's estimate, sampled in six steps from the diffused estimate
with guidance towards it (diffuse); a second regression network on the half-and-half mean of the sample and the noisy
speech (refiner). `small` recipes are for a CPU and the small data pack, `vctk` is the published training on
VoiceBank-DEMAND: Adam, batch 8, 3 s, halving rule, no clipping, no averaging.

Deviations of base_vctk from the release: p226 and p287 are held out and validated (the release validates on the test
set), an epoch is 1350 steps of random crops (10,802 pairs in batches of 8), and items are not padded, so no mask.
"""

from dataclasses import replace

from fromnoise.backbones import TCUNetConfig
from fromnoise.data.mixtures import Mixtures
from fromnoise.data.paired import Paired
from fromnoise.objectives import DiscreteTime, FixedTime
from fromnoise.predictions import Clean, Noise
from fromnoise.processes import VP, Flow
from fromnoise.recipes.base import Recipe
from fromnoise.samplers import DDPM, Euler, Levels, Uniform
from fromnoise.tasks.losses import SpectralLoss
from fromnoise.training.settings import Optimisation, TrainerSettings

SMALL_PACK = Mixtures(
    speech=("enhance/clean/train", "separate/train_extra", "vocoder/metadata.csv"),
    noise=("enhance/noise/train",),
    valid_speech=("enhance/clean/valid",),
    valid_noise=("enhance/noise/valid",),
    valid_items=24,
)
SMALL_LICENCE = "CC BY 4.0, with the attributions of the data pack"
PUBLISHED = Optimisation("adam", 1e-3, 1e-7, schedule="halving", ema=0.0)

# The first step alone of a noiseless path from the noisy speech: regression, one network call.
base_small = Recipe(
    name="drdiffuse/base_small",
    backbone=TCUNetConfig("base"),
    process=Flow("observation", 0.0),
    prediction=Clean(),
    sampler=Euler(),
    grid=Uniform(),
    num_steps=1,
    times=FixedTime(1.0),
    loss=SpectralLoss(0.5),
    data=SMALL_PACK,
    optimisation=Optimisation(learning_rate=1e-3, warmup_steps=50, ema=0.995),
    trainer=TrainerSettings(max_epochs=18, steps_per_epoch=100, batch_size=8),
    model_name="enhance-base-small",
    licence=SMALL_LICENCE,
)

base_vctk = replace(
    base_small,
    name="drdiffuse/base_vctk",
    data=Paired(seconds=3.0),
    optimisation=PUBLISHED,
    trainer=TrainerSettings(max_epochs=30, steps_per_epoch=1350, batch_size=8, gradient_clip_val=0.0, num_workers=4),
    model_name="enhance-base-vctk",
    licence="CC BY 4.0 (VoiceBank-DEMAND)",
)

# A DDPM with 200 steps, sampled on six noise levels; the refiner is the generator until `refiner_small` trains one.
diffuse_small = Recipe(
    name="drdiffuse/diffuse_small",
    backbone=TCUNetConfig("dual"),
    process=VP(1e-4, 0.05, 200),
    prediction=Noise(),
    sampler=DDPM(),
    grid=Levels((1e-4, 1e-3, 0.01, 0.05, 0.2, 0.35)),
    num_steps=6,
    start="condition",
    generator=TCUNetConfig("base"),
    guidance=0.5,
    refiner=TCUNetConfig("base"),
    refine_with_noisy=0.5,
    times=DiscreteTime(),
    data=SMALL_PACK,
    optimisation=Optimisation(learning_rate=2e-4, warmup_steps=50, ema=0.995),
    trainer=TrainerSettings(max_epochs=20, steps_per_epoch=100, batch_size=8),
    model_name="enhance-diffuse-small",
    licence=SMALL_LICENCE,
)

refiner_small = replace(
    diffuse_small,
    name="drdiffuse/refiner_small",
    task="refine",
    loss=SpectralLoss(0.5),
    optimisation=Optimisation(learning_rate=1e-3, warmup_steps=20, ema=0.99),
    trainer=TrainerSettings(max_epochs=4, steps_per_epoch=100, batch_size=8),
    model_name="enhance-drdiffuse-small",
)
