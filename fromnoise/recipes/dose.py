"""DOSE: Tai et al., "DOSE: Diffusion Dropout with Adaptive Prior for Speech Enhancement", NeurIPS 2023,
https://openreview.net/forum?id=8qG1SmeVLE. A network of waves estimates the clean one from the state and the noisy one
side by side; in training the state of every second item is mere noise, so that the noisy wave cannot be ignored. Two
steps: of the noisy speech diffused to step 35, then of the mean of estimate and noisy speech diffused to step 15.

As the release: T = 50 with betas to 0.035, 64 channels, 30 layers, 2.31 M parameters (131 of them idle there), Adam at
a constant 2e-4, 16 random crops of 2 s a step, absolute error against the untouched clean wave, no averaging and no
clipping. It was trained "until stopped" without validation: 445 passes are CDiffuSE's, and p226 and p287 validate. Its
tables use other steps, chosen by the test set: `grid.steps=[40,15]`, `[40,10]` (VoiceBank-DEMAND), `[35,0]`, `[10,0]`
(CHiME-4).

`small` is for a CPU and the small data pack: 32 channels, 20 layers, crops of 1 s, a cosine schedule, averaging.
"""

from dataclasses import replace

from fromnoise.backbones.wavenet import WaveNetConfig
from fromnoise.data.paired import Paired
from fromnoise.predictions import Clean
from fromnoise.processes import VP
from fromnoise.recipes import cdiffuse
from fromnoise.recipes.drdiffuse import SMALL_LICENCE, SMALL_PACK
from fromnoise.samplers import DOSE, Steps

NETWORK = WaveNetConfig(64, 64, 30, 10, signal_channels=1, rising_steps=True, weight_norm=False)

vctk_demand = replace(
    cdiffuse.base,
    name="dose/vctk_demand",
    backbone=NETWORK,
    spectrum=None,
    process=VP(1e-4, 0.035, 50),
    prediction=Clean(),
    sampler=DOSE(clamp=1.0),
    grid=Steps((35, 15)),
    num_steps=2,
    start="condition",
    clamp=False,
    keep_noisy=0.0,
    drop_state=0.5,
    data=Paired(seconds=2.0),
    model_name="dose-vctk-demand",
)

small = replace(
    vctk_demand,
    name="dose/small",
    backbone=replace(NETWORK, residual_channels=32, skip_channels=32, num_layers=20),
    data=replace(SMALL_PACK, seconds=1.0),
    optimisation=cdiffuse.SMALL_OPTIMISATION,
    trainer=replace(cdiffuse.SMALL_TRAINER, batch_size=8),
    model_name="dose-small",
    licence=SMALL_LICENCE,
)
