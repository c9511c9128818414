"""Vocoders for a small machine: 22.05 kHz, two voices, 22 minutes.

`data.root` is the folder with metadata.csv (columns file, speaker, split). Speed and pitch are moved by up to 15 %, for
more voices than there are; `data.extra` may name folders of more speech, also at lower rates, of which only the band
that they hold is learnt. `small` is the bundled model: the log-magnitudes in one step from their estimate by the mel,
along a path without noise, then phases by Griffin-Lim.
"""

from dataclasses import replace

from fromnoise.backbones import ConvNeXtConfig
from fromnoise.backbones.wavenet import WaveNetConfig
from fromnoise.data.clips import Clips
from fromnoise.frontends import MELS, Magnitude, Wave
from fromnoise.objectives import DiscreteTime, FixedTime
from fromnoise.predictions import Noise, Velocity
from fromnoise.processes import Flow
from fromnoise.recipes.base import Recipe
from fromnoise.recipes.diffwave import BASE, SIX_BASE
from fromnoise.samplers import DDPM, Euler, Levels, Uniform
from fromnoise.training.settings import Optimisation, TrainerSettings

VOICES = Clips(sample_rate=22050, seconds=0.5, valid_seconds=1.5, fixed=False, speed=(0.85, 1.15), gain_db=(-6.0, 3.0))
VOICES_LICENCE = "CC0 and public domain"

wavenet_small = Recipe(
    name="vocode/wavenet_small",
    task="vocode",
    mel=MELS["tacotron2-22k"],
    frontend=Wave(22050),
    backbone=WaveNetConfig(32, 32, 20, 10, mel_bands=80, shared_upsampler=True),
    process=BASE,
    prediction=Noise(),
    sampler=DDPM(),
    grid=Levels(SIX_BASE),
    num_steps=6,
    prior="energy",
    times=DiscreteTime(),
    data=VOICES,
    scores=(),
    optimisation=Optimisation(learning_rate=1e-3, warmup_steps=100, ema=0.995),
    trainer=TrainerSettings(max_epochs=30, steps_per_epoch=200, batch_size=8),
    model_name="vocode-wavenet-small",
    licence=VOICES_LICENCE,
)

small = Recipe(
    name="vocode/small",
    task="vocode",
    mel=MELS["tacotron2-22k"],
    frontend=Magnitude(iterations=64),
    backbone=ConvNeXtConfig(513, 256, 8, frames=80),
    process=Flow("observation", 0.0),
    prediction=Velocity(),
    sampler=Euler(),
    grid=Uniform(),
    num_steps=1,
    observation="mel",
    times=FixedTime(1.0),
    norm="l1",
    data=replace(VOICES, seconds=1.0, valid_seconds=3.0, gain_db=(-12.0, 6.0), valid_items=10),
    scores=("pesq_wb",),
    optimisation=Optimisation(learning_rate=2e-3, weight_decay=0.01, beta2=0.99, ema=0.995),
    trainer=TrainerSettings(max_epochs=15, steps_per_epoch=200, batch_size=16, precision="bf16-mixed"),
    model_name="vocode-small",
    licence=VOICES_LICENCE,
)
