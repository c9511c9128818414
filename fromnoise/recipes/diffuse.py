"""DiffuSE: Lu et al., "A Study on Speech Enhancement Based on Diffusion Probabilistic Model", APSIPA 2021,
https://arxiv.org/abs/2107.11876. A vocoder of waves that becomes an enhancer, in two phases:

    fromnoise train recipe=diffuse/base_vocoder data.root=VCTK_DEMAND folder=runs/vocoder       told the clean mel
    fromnoise train recipe=diffuse/base data.root=VCTK_DEMAND init.backbone=runs/vocoder        told the noisy spectrum

The second takes over every tensor that fits, which is all but the 30 projections of the condition (80 bands there, 513
bins here). Six steps from the noisy speech itself, which supports every one of them; with the released weights of that
support the sampler draws no noise. `sampler=ddpm keep_noisy=0.2` is its mode "noisy_inout".

As the release: T = 50 with betas to 0.05, 64 channels, 30 layers, 4.28 M parameters, and else as `cdiffuse/base`. Its
options that freeze projections in the second phase are not here. `small` and `small_vocoder`: see `cdiffuse/small`.
"""

from dataclasses import replace

from fromnoise.frontends import MELS, Wave
from fromnoise.objectives import DiscreteTime
from fromnoise.predictions import Noise
from fromnoise.recipes import cdiffuse
from fromnoise.recipes.base import Recipe
from fromnoise.recipes.diffwave import ADAM, BASE, SIX_BASE
from fromnoise.samplers import DDPM, Levels, Supportive

base = replace(
    cdiffuse.base,
    name="diffuse/base",
    process=BASE,
    prediction=Noise(),
    sampler=Supportive(),
    grid=Levels(SIX_BASE),
    keep_noisy=0.0,
    model_name="diffuse-base",
)

base_vocoder = Recipe(
    name="diffuse/base_vocoder",
    task="vocode",
    mel=MELS["diffuse-16k"],
    frontend=Wave(),
    backbone=replace(cdiffuse.NETWORK, mel_bands=80),
    process=BASE,
    prediction=Noise(),
    sampler=DDPM(),
    grid=Levels(SIX_BASE),
    num_steps=6,
    clamp=True,
    times=DiscreteTime(),
    norm="l1",
    data=cdiffuse.CROPS,
    scores=(),
    optimisation=ADAM,
    trainer=cdiffuse.base.trainer,
    model_name="diffuse-base-vocoder",
    licence=base.licence,
)

small = replace(
    base,
    name="diffuse/small",
    backbone=cdiffuse.SMALL_NETWORK,
    spectrum=cdiffuse.SMALL_SPECTRUM,
    data=cdiffuse.small.data,
    optimisation=cdiffuse.SMALL_OPTIMISATION,
    trainer=cdiffuse.SMALL_TRAINER,
    model_name="diffuse-small",
    licence=cdiffuse.small.licence,
)
