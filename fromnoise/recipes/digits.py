"""Spoken digits at 8 kHz: the Free Spoken Digit Dataset, six speakers, at the settings of a small machine.

`data.root` is the folder with metadata.csv (columns file, label, speaker, split). The levels of the speakers differ by
30 dB, so every clip is brought to one level. `classifier` judges what the generators make: the network of SC09's
classifier, smaller, on 32 bands and 32 frames of a second at 8 kHz.
"""

from dataclasses import replace

from fromnoise.backbones import ConvNeXtConfig
from fromnoise.backbones.resnext import ResNeXtConfig
from fromnoise.backbones.sashimi import SashimiConfig
from fromnoise.backbones.wavenet import WaveNetConfig
from fromnoise.data.clips import Clips
from fromnoise.data.places import DIGITS
from fromnoise.frontends import Magnitude, Mel, Wave
from fromnoise.objectives import DiscreteTime, UniformTime
from fromnoise.predictions import Noise, Velocity
from fromnoise.processes import Flow
from fromnoise.recipes.base import Recipe
from fromnoise.recipes.diffwave import LARGE
from fromnoise.samplers import DDPM, DPMpp2M, Trained, Uniform
from fromnoise.training.settings import Optimisation, TrainerSettings

FSDD = Clips(sample_rate=8000, seconds=1.0, labels=DIGITS, level="active", level_db=-20.0, balanced=True)
FSDD_LICENCE = "CC BY-SA 4.0 (Free Spoken Digit Dataset)"

classifier = Recipe(
    name="digits/classifier",
    task="classify",
    mel=Mel(8000, 1024, 256, 1024, 32, fmax=None, power=2.0, log="10", multiplier=10.0, floor=1e-10),
    network=ResNeXtConfig(20, 4, 16, 1),
    labels=DIGITS,
    data=FSDD,
    scores=("accuracy",),
    optimisation=Optimisation("adamw", 2e-3, 1e-2, warmup_steps=50, ema=0.99),
    trainer=TrainerSettings(max_epochs=20, steps_per_epoch=80, batch_size=32, valid_batch_size=60),
    model_name="digits-classifier",
    licence=FSDD_LICENCE,
)

# 22 layers with a cycle of 11 hear 8,189 samples, the whole second. The scale brings the level to what VP expects.
wavenet_small = Recipe(
    name="digits/wavenet_small",
    task="generate",
    frontend=Wave(8000, scale=4.0),
    backbone=WaveNetConfig(48, 48, 22, 11, vector_dim=128),
    process=LARGE,
    prediction=Noise(),
    sampler=DDPM(),
    grid=Trained(),
    num_steps=50,
    labels=DIGITS,
    guidance_scale=1.5,
    drop_label=0.1,
    times=DiscreteTime(),
    data=FSDD,
    scores=(),
    optimisation=Optimisation(learning_rate=1e-3, warmup_steps=100, ema=0.998),
    trainer=TrainerSettings(max_epochs=40, steps_per_epoch=250, batch_size=16),
    model_name="digits-wavenet-small",
    licence=FSDD_LICENCE,
)

sashimi_small = replace(
    wavenet_small,
    name="digits/sashimi_small",
    backbone=SashimiConfig(32, 2, (4, 4), kernel_length=8000, vector_dim=128),
    model_name="digits-sashimi-small",
)

# Log-magnitudes rather than samples: 126 frames a second instead of 8,000 positions, and no phases to learn.
small = replace(
    wavenet_small,
    name="digits/small",
    frontend=Magnitude(8000, 256, 64, floor=4.24e-3, mean=-2.653, scale=2.0, iterations=64),
    backbone=ConvNeXtConfig(129, 192, 8, vector=128, attention=4),
    process=Flow(),
    prediction=Velocity(),
    sampler=DPMpp2M(),
    grid=Uniform(),
    num_steps=12,
    drop_label=0.15,
    times=UniformTime(),
    optimisation=Optimisation(
        learning_rate=2e-3, weight_decay=0.01, beta2=0.99, warmup_steps=200, final=0.02, ema=0.999
    ),
    trainer=TrainerSettings(
        max_epochs=75, steps_per_epoch=200, batch_size=32, precision="bf16-mixed", gradient_clip_val=1.0
    ),
    model_name="digits-small",
)
