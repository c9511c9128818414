"""The bundled separator: two speakers at 8 kHz, mixed on the fly from short recordings of many.

`small` is the process of DiffSep (see `diffsep.py`) with a small convolutional network that estimates the sources
themselves. Nearly all items start as the sampler does, where the best order counts, and half of them are shown again in
states made from the network's own answer; the loss is a ratio in dB.
`small_regression` is the same network trained to answer at once, the best order counting always.
"""

from dataclasses import replace

from fromnoise.backbones import MaskConvConfig, SpectralConfig
from fromnoise.data.voices import Voices
from fromnoise.frontends import STFT, Wave
from fromnoise.objectives import FixedTime, UniformTime
from fromnoise.predictions import Clean
from fromnoise.processes import Mixing
from fromnoise.recipes.base import Recipe, nested
from fromnoise.recipes.drdiffuse import SMALL_LICENCE
from fromnoise.samplers import DDIM, Uniform
from fromnoise.tasks.source_losses import Permuted, Rollout, SNRLoss
from fromnoise.training.settings import Optimisation, TrainerSettings

VOICES = Voices(
    speech=("enhance/clean/train", "separate/train_extra"),
    valid_speech=("enhance/clean/valid",),
    seconds=2.0,
    speed=(0.72, 1.4),
)

small = Recipe(
    name="separate/small",
    task="separate",
    frontend=Wave(8000),
    backbone=SpectralConfig(
        nested("backbone", MaskConvConfig()),
        nested("frontend", STFT(8000, 256, 128, "sqrt_hann", transform="none")),
        multiple=1,
        tail=False,
    ),
    process=Mixing(),
    prediction=Clean(),
    sampler=DDIM(),
    grid=Uniform(),
    num_steps=1,
    consistent=True,
    shifts=4,
    times=UniformTime(),
    strategy=Rollout(share=0.95),
    source_loss=SNRLoss(),
    data=VOICES,
    scores=("si_sdr", "si_sdri"),
    optimisation=Optimisation(learning_rate=1e-3, weight_decay=0.01, final=0.02, ema=0.998, ema_warmup=True),
    trainer=TrainerSettings(
        max_epochs=40,
        steps_per_epoch=250,
        batch_size=16,
        valid_batch_size=8,
        precision="bf16-mixed",
        monitor="valid/si_sdri",
        mode="max",
    ),
    model_name="separate-small",
    licence=SMALL_LICENCE,
)

small_regression = replace(
    small,
    name="separate/small_regression",
    num_steps=1,
    times=FixedTime(1.0),
    strategy=Permuted(),
    model_name="separate-small-regression",
)
