"""The Schroedinger bridge for speech enhancement, with the small network of DR-DiffuSE in place of NCSN++.

Jukic et al., "Schroedinger Bridge for Generative Speech Enhancement", 2024, https://arxiv.org/abs/2407.16074.

The network predicts clean data and is told x_t, the noisy speech and t; the bridge's t in [0, 1] spans the 200 rows of
the network's step table. `init.backbone` takes a trained base: the same body, so a run starts where regression ended.
"""

from fromnoise.backbones import TCUNetConfig
from fromnoise.objectives import UniformTime
from fromnoise.predictions import Clean
from fromnoise.processes import Bridge
from fromnoise.recipes.base import Recipe
from fromnoise.recipes.drdiffuse import SMALL_LICENCE, SMALL_PACK
from fromnoise.samplers import DDIM, Uniform
from fromnoise.tasks.losses import SpectralLoss
from fromnoise.training.settings import Optimisation, TrainerSettings

bridge_small = Recipe(
    name="bridge/bridge_small",
    backbone=TCUNetConfig("concat", time_scale=199.0),
    process=Bridge(),
    prediction=Clean(),
    sampler=DDIM(),
    grid=Uniform(end="t_min"),
    num_steps=4,
    times=UniformTime(),
    loss=SpectralLoss(0.5),
    data=SMALL_PACK,
    optimisation=Optimisation(learning_rate=5e-4, warmup_steps=50, ema=0.995),
    trainer=TrainerSettings(max_epochs=15, steps_per_epoch=100, batch_size=8),
    model_name="enhance-bridge-small",
    licence=SMALL_LICENCE,
)
