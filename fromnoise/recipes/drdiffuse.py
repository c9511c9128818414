"""DR-DiffuSE: Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement: Condition
Collapse, Efficiency and Refinement", AAAI 2023.

Three networks: a regression network G; a DDPM told G's estimate, sampled from the diffused estimate with guidance
towards it; a second regression network, the refiner, on the mean of the sample and the noisy speech. The stages:

    vctk_demand_base         G alone: one call, 30 epochs
    vctk_demand_concat       the DDPM that is told the noisy speech, input channels side by side, all 200 steps
    vctk_demand_concat_gen   the same told G's estimate                                       (init.generator=...)
    vctk_demand_dual         a path of its own for the condition, six guided steps            (init.generator=...)
    vctk_demand_refiner      the refiner on frozen samples, "option (ii)": the release of December 2023
    vctk_demand_joint        all three through the six steps, "option (i)": twice the calls in place of their memory
    vctk_demand_paper        the dual model as the paper samples it: from pure noise, guided by Eq. 14, and refined by G
                             itself, which learns that in this stage
    ..._small                the same for a CPU and the small data pack

As published: VoiceBank-DEMAND, Adam with weight decay 1e-7, batches of 8 crops of 3 s, of which shorter ones are filled
and masked, halving rule, no clipping, no averaging; `backbone.norm=instance backbone.inject=conv_add` is the network of
the paper, `backbone.fusion=concat` leaves out the squeeze that its authors came to doubt. zeta is not published: 1.5
gives the first guided step the release's weight 0.5.

Deviations: p226 and p287 are held out and validated (the release validates on the test set), an epoch is 1350 steps
(10,802 pairs), and items are filled to the length of a crop (to the longest of the batch there). The learning rate of
the joint stage is ours.
"""

from dataclasses import replace
from typing import Any

from fromnoise.backbones import TCUNetConfig
from fromnoise.data.mixtures import Mixtures
from fromnoise.data.paired import Paired
from fromnoise.objectives import DiscreteTime, FixedTime
from fromnoise.predictions import Clean, Noise
from fromnoise.processes import VP, Flow
from fromnoise.recipes.base import Recipe
from fromnoise.samplers import DDPM, Euler, Levels, Trained, Uniform
from fromnoise.tasks.enhancement_model import TheGenerator
from fromnoise.tasks.losses import SpectralLoss
from fromnoise.training.settings import Optimisation, TrainerSettings

SMALL_PACK = Mixtures(
    speech=("enhance/clean/train", "separate/train_extra", "vocoder/metadata.csv"),
    noise=("enhance/noise/train",),
    valid_speech=("enhance/clean/valid",),
    valid_noise=("enhance/noise/valid",),
    valid_items=24,
)
SIX = (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.35)
SMALL_LICENCE = "CC BY 4.0, with the attributions of the data pack"

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

# A DDPM with 200 steps, sampled on six noise levels; the refiner is the generator until `refiner_small` trains one.
diffuse_small = Recipe(
    name="drdiffuse/diffuse_small",
    backbone=TCUNetConfig("dual"),
    process=VP(1e-4, 0.05, 200),
    prediction=Noise(),
    sampler=DDPM(),
    grid=Levels(SIX),
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

# The steps to condition collapse: the noisy speech beside the state, G's estimate in its place, then a path of its own.
concat_small = replace(
    diffuse_small,
    name="drdiffuse/concat_small",
    backbone=TCUNetConfig("concat"),
    generator=None,
    guidance=0.0,
    refiner=None,
    model_name="enhance-concat-small",
)
concat_gen_small = replace(
    concat_small,
    name="drdiffuse/concat_gen_small",
    generator=TCUNetConfig("base"),
    model_name="enhance-concat-gen-small",
)
joint_small = replace(
    refiner_small,
    name="drdiffuse/joint_small",
    through=True,
    optimisation=Optimisation(learning_rate=1e-4, warmup_steps=20, ema=0.99),
    trainer=TrainerSettings(max_epochs=2, steps_per_epoch=50, batch_size=2),
    model_name="enhance-joint-small",
)

_VCTK = TrainerSettings(
    max_epochs=50, steps_per_epoch=1350, batch_size=8, gradient_clip_val=0.0, num_workers=4, score_batches=8
)
_VCTK_DEMAND: dict[str, Any] = {
    "data": Paired(seconds=3.0),
    "mask_padding": True,
    "trainer": _VCTK,
    "licence": "CC BY 4.0 (VoiceBank-DEMAND)",
}
_REGRESSION = Optimisation("adam", 1e-3, 1e-7, schedule="halving", ema=0.0)
_DIFFUSION = replace(_REGRESSION, learning_rate=2e-4)

vctk_demand_base = replace(
    base_small,
    **_VCTK_DEMAND | {"trainer": replace(_VCTK, max_epochs=30)},
    name="drdiffuse/vctk_demand_base",
    optimisation=_REGRESSION,
    model_name="enhance-base-vctk",
)
vctk_demand_concat = replace(
    concat_small,
    **_VCTK_DEMAND | {"trainer": replace(_VCTK, score_batches=1)},
    name="drdiffuse/vctk_demand_concat",
    grid=Trained(),
    num_steps=200,
    optimisation=_DIFFUSION,
    model_name="drdiffuse-concat-vctk",
)
vctk_demand_concat_gen = replace(
    vctk_demand_concat,
    name="drdiffuse/vctk_demand_concat_gen",
    generator=TCUNetConfig("base"),
    model_name="drdiffuse-concat-gen-vctk",
)
vctk_demand_dual = replace(
    diffuse_small,
    **_VCTK_DEMAND,
    name="drdiffuse/vctk_demand_dual",
    refiner=None,
    optimisation=_DIFFUSION,
    model_name="drdiffuse-dual-vctk",
)
vctk_demand_refiner = replace(
    vctk_demand_dual,
    name="drdiffuse/vctk_demand_refiner",
    task="refine",
    refiner=TCUNetConfig("base"),
    loss=SpectralLoss(0.5),
    optimisation=_REGRESSION,
    trainer=replace(_VCTK, max_epochs=2),
    model_name="drdiffuse-vctk",
)
vctk_demand_joint = replace(
    vctk_demand_refiner,
    name="drdiffuse/vctk_demand_joint",
    through=True,
    optimisation=replace(_REGRESSION, learning_rate=1e-4),
    trainer=replace(_VCTK, max_epochs=2, batch_size=2, accumulate_grad_batches=4),
    model_name="drdiffuse-joint-vctk",
)
vctk_demand_paper = replace(
    vctk_demand_refiner,
    name="drdiffuse/vctk_demand_paper",
    start="prior",
    guidance=1.5,
    guidance_rule="zeta",
    guidance_level="reached",
    refiner=TheGenerator(),
    refine_with_noisy=0.0,
    model_name="drdiffuse-paper-vctk",
)
