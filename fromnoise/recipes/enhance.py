"""The bundled enhancement model: a convolutional recurrent-style network (`crn`) that is cheap on a CPU.

`small` is regression, the first step alone of a noiseless path from the noisy speech, run on four shifts of the sound.
`bridge` carries the same network into the Schroedinger bridge (see `bridge.py`), started from `small`.
"""

from dataclasses import replace

from fromnoise.backbones import CRNConfig
from fromnoise.frontends import STFT
from fromnoise.objectives import FixedTime, UniformTime
from fromnoise.predictions import Clean
from fromnoise.processes import Bridge, Flow
from fromnoise.recipes.base import Recipe
from fromnoise.recipes.drdiffuse import SMALL_LICENCE, SMALL_PACK
from fromnoise.samplers import DDIM, Euler, Uniform
from fromnoise.tasks.losses import SpectralLoss
from fromnoise.training.settings import Optimisation, TrainerSettings

small = Recipe(
    name="enhance/small",
    frontend=STFT(exponent=0.3),
    backbone=CRNConfig(),
    process=Flow("observation", 0.0),
    prediction=Clean(),
    sampler=Euler(),
    grid=Uniform(),
    num_steps=1,
    shifts=4,
    times=FixedTime(1.0),
    loss=SpectralLoss(0.5, wave=0.5, si_sdr=0.01),
    data=SMALL_PACK,
    optimisation=Optimisation(learning_rate=1.5e-3, warmup_steps=50, ema=0.995),
    trainer=TrainerSettings(max_epochs=12, steps_per_epoch=100, batch_size=16, precision="bf16-mixed"),
    model_name="enhance-small",
    licence=SMALL_LICENCE,
)

bridge = replace(
    small,
    name="enhance/bridge",
    process=Bridge(),
    sampler=DDIM(),
    grid=Uniform(end="t_min"),
    num_steps=4,
    shifts=1,
    times=UniformTime(),
    optimisation=Optimisation(learning_rate=5e-4, warmup_steps=20, ema=0.99),
    trainer=replace(small.trainer, max_epochs=3),
    model_name="enhance-bridge-small",
)
