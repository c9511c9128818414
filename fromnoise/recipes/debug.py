"""Runs of seconds without any data: a few thousand parameters, sounds from a formula, three epochs of four steps.

For tests, for the documentation, and to see whether an installation trains. The process is a real one (a bridge with
drawn times and noise), so that whatever must be restored on resuming is there to be lost.
"""

from dataclasses import replace

from fromnoise.backbones import CRNConfig, MaskConvConfig, SpectralConfig
from fromnoise.data.synthetic import Synthetic, SyntheticVoices
from fromnoise.frontends import STFT, Wave
from fromnoise.predictions import Clean
from fromnoise.processes import Bridge, Mixing
from fromnoise.recipes.base import Recipe, nested
from fromnoise.samplers import DDIM, Uniform
from fromnoise.tasks.losses import SpectralLoss
from fromnoise.tasks.source_losses import PermutedEnd, SNRLoss
from fromnoise.training.settings import Optimisation, TrainerSettings

tiny = Recipe(
    name="debug/tiny",
    backbone=CRNConfig(channels=(4, 8, 8), hidden=16, squeeze=8, groups=1, dilations=(1, 2)),
    process=Bridge(),
    prediction=Clean(),
    sampler=DDIM(),
    grid=Uniform(end="t_min"),
    num_steps=2,
    loss=SpectralLoss(0.5),
    data=Synthetic(),
    optimisation=Optimisation(learning_rate=3e-3, warmup_steps=2, ema=0.9),
    trainer=TrainerSettings(
        accelerator="cpu", max_epochs=3, steps_per_epoch=4, batch_size=2, num_workers=0, log_every_n_steps=1, samples=1
    ),
    model_name="debug",
    licence="MIT",
)

tiny_separator = Recipe(
    name="debug/separate",
    task="separate",
    frontend=Wave(8000),
    backbone=SpectralConfig(
        nested("backbone", MaskConvConfig(bins=33, width=8, layers=2)),
        nested("frontend", STFT(8000, 64, 32, "sqrt_hann", transform="none")),
        multiple=1,
    ),
    process=Mixing(),
    prediction=Clean(),
    sampler=DDIM(),
    grid=Uniform(),
    num_steps=2,
    consistent=True,
    strategy=PermutedEnd(0.5),
    source_loss=SNRLoss(),
    data=SyntheticVoices(),
    scores=("si_sdr", "si_sdri"),
    optimisation=replace(tiny.optimisation, ema_warmup=True),
    trainer=tiny.trainer,
    model_name="debug-separate",
    licence="MIT",
)
