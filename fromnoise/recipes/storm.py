"""StoRM: Lemercier et al., "StoRM: A Diffusion-based Stochastic Regeneration Model for Speech Enhancement and
Dereverberation", TASLP 2023, https://arxiv.org/abs/2212.11851.

A predictive network D estimates the clean spectrum, the process leads from clean speech to D(y), and the score network
is told both y and D(y); both learn together by w |D(y) - x|^2 + (1 - w) |noise score + z|^2 with w = 1/2. That score
matching counts complex unit noise of variance 1/2 a component; here it is 1, so that the same balance is w = 2/3.

As the release: Adam 1e-4, batches of 8, 256 frames, at most 1000 epochs, stopped after 50 validations without a better
loss; 50 steps with a corrector. Deviations: a batch is averaged (summed there), and its peak is that of the crop (of
the whole recording there).
"""

from dataclasses import replace
from math import sqrt

from fromnoise.backbones import NCSNppConfig
from fromnoise.processes import OUVE
from fromnoise.recipes.sgmse import vctk_demand_16k
from fromnoise.samplers import PredictorCorrector

_SMALLER = NCSNppConfig(multipliers=(1, 2, 2, 2), res_blocks=1, attention=())

vctk_demand = replace(
    vctk_demand_16k,
    name="storm/vctk_demand",
    backbone=replace(_SMALLER, channels_in=6, channels_out=2),
    generator=replace(_SMALLER, channels_in=2, channels_out=2, divide="none", timed=False),
    process=OUVE(1.5, 0.05 / sqrt(2), 0.5 / sqrt(2)),
    leads_to="generator",
    condition="both",
    joint=2 / 3,
    sampler=PredictorCorrector(corrector="ald", step_rule="even"),
    num_steps=50,
    trainer=replace(
        vctk_demand_16k.trainer,
        max_epochs=1000,
        steps_per_epoch=1350,
        accumulate_grad_batches=1,
        monitor="valid/loss",
        mode="min",
        patience=50,
    ),
    model_name="storm-vctk-demand",
)
