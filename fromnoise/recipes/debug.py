"""A run of seconds without any data: a few thousand parameters, sounds from a formula, three epochs of four steps.

For tests, for the documentation, and to see whether an installation trains. The process is a real one (a bridge with
drawn times and noise), so that whatever must be restored on resuming is there to be lost.
"""

from fromnoise.backbones import CRNConfig
from fromnoise.data.synthetic import Synthetic
from fromnoise.predictions import Clean
from fromnoise.processes import Bridge
from fromnoise.recipes.base import Recipe
from fromnoise.samplers import DDIM, Uniform
from fromnoise.tasks.losses import SpectralLoss
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
