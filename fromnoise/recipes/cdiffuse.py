"""CDiffuSE: Lu et al., "Conditional Diffusion Probabilistic Model for Speech Enhancement", ICASSP 2022,
https://arxiv.org/abs/2202.05256. A chain whose mean moves from clean to noisy speech, in a network of waves that is
told the noisy spectrum; six steps, clamped to full scale, and a fifth of the noisy speech in the end.

           residual/skip  layers   T    last beta   parameters   steps
    base       64/64        30     50     0.035       4.28 M     300 k
    large     128/128       30    200     0.0095     10.21 M     700 k

Adam at a constant 2e-4, 16 crops of 62 frames of 256 samples a step, absolute error, no averaging and no clipping of
gradients; p226 and p287 validate. The large configuration and both lengths are those of later papers.

Deviations: the spectrum is of the crop, mirrored at its ends and at its own peak (of the whole recording there), and a
recording shorter than a crop is filled (left out there).

`small` is for a CPU and the small data pack: 32 channels, 20 layers and a spectrum of 129 bins every 128 samples in
place of 64, 30, 513 and 256, which is a seventh of the multiplications; crops of 1 s, a cosine schedule, averaging.
"""

from dataclasses import replace

from fromnoise.backbones.wavenet import WaveNetConfig
from fromnoise.data.paired import Paired
from fromnoise.frontends import Spectrum, Wave
from fromnoise.objectives import DiscreteTime
from fromnoise.predictions import Combined
from fromnoise.processes import Interpolating
from fromnoise.recipes.base import Recipe
from fromnoise.recipes.diffwave import ADAM
from fromnoise.recipes.drdiffuse import SIX, SMALL_LICENCE, SMALL_PACK
from fromnoise.samplers import DDPM, Levels
from fromnoise.training.settings import Optimisation, TrainerSettings

CROPS = Paired(seconds=62 * 256 / 16000)
NETWORK = WaveNetConfig(64, 64, 30, 10, mel_bands=513, shared_upsampler=True, rising_steps=True, weight_norm=False)
SMALL_NETWORK = WaveNetConfig(
    32, 32, 20, 10, mel_bands=129, mel_upsample=(8, 16), shared_upsampler=True, rising_steps=True, weight_norm=False
)
SMALL_SPECTRUM = Spectrum(n_fft=256, hop=128)
SMALL_OPTIMISATION = Optimisation(learning_rate=1e-3, warmup_steps=50, ema=0.995)
SMALL_TRAINER = TrainerSettings(
    max_epochs=10, steps_per_epoch=50, batch_size=4, precision="bf16-mixed", score_batches=1
)

base = Recipe(
    name="cdiffuse/base",
    frontend=Wave(),
    backbone=NETWORK,
    spectrum=Spectrum(),
    process=Interpolating(1e-4, 0.035, 50),
    prediction=Combined(),
    sampler=DDPM(),
    grid=Levels(SIX),
    num_steps=6,
    start="noisy",
    unit="none",
    clamp=True,
    keep_noisy=0.2,
    times=DiscreteTime(),
    norm="l1",
    data=CROPS,
    optimisation=ADAM,
    trainer=TrainerSettings(
        max_epochs=445, steps_per_epoch=675, batch_size=16, gradient_clip_val=0.0, num_workers=4, score_batches=8
    ),
    model_name="cdiffuse-base",
    licence="CC BY 4.0 (VoiceBank-DEMAND)",
)

large = replace(
    base,
    name="cdiffuse/large",
    backbone=replace(NETWORK, residual_channels=128, skip_channels=128),
    process=Interpolating(1e-4, 0.0095, 200),
    trainer=replace(base.trainer, max_epochs=1037),
    model_name="cdiffuse-large",
)

small = replace(
    base,
    name="cdiffuse/small",
    backbone=SMALL_NETWORK,
    spectrum=SMALL_SPECTRUM,
    data=replace(SMALL_PACK, seconds=1.0),
    optimisation=SMALL_OPTIMISATION,
    trainer=SMALL_TRAINER,
    model_name="cdiffuse-small",
    licence=SMALL_LICENCE,
)
