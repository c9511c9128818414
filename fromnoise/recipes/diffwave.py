"""DiffWave: Kong et al., "DiffWave: A Versatile Diffusion Model for Audio Synthesis", ICLR 2021,
https://arxiv.org/abs/2009.09761.

              residual/skip  layers  cycle   T    last beta   parameters
ljspeech_base      64/64       30     10    50      0.05        2.64 M     vocoder
ljspeech_large    128/128      30     10   200      0.02        6.91 M     vocoder
sc09_uncond       256/256      36     12   200      0.02       24.07 M     free generation
sc09_small        128/256      30     10   200      0.02        6.83 M     the SaShiMi paper's small baseline
sc09_class        256/256      36     12   200      0.02       24.07 M     and 2.4 M for the label
sc09_deep_thin    128/128      48     12   200      0.02        9.84 M     and 1.6 M for the label

Adam at a constant 2e-4, 16 clips of 16000 samples a step, 1 M steps, squared error of the noise, float32, no averaging
and no clipping of gradients. On eight GPUs: trainer.devices=8 trainer.strategy=ddp trainer.batch_size=2. Vocoders are
sampled in the paper's six steps; `grid=trained num_steps=50` (or 200) takes all. Of the ablation, T = 20 and 40 are
`process.num_steps=20` with `grid=trained num_steps=20`: the six-step schedule lies outside of their noise levels.

The paper does not say the dilation cycle of the deep and thin model; 12 is that of its wide one. Hiding 10 % of the
labels, which makes free generation and guidance possible, is ours: `drop_label=0` is the paper's.
"""

from dataclasses import replace

from fromnoise.backbones.wavenet import WaveNetConfig
from fromnoise.data.clips import Clips
from fromnoise.data.places import DIGITS
from fromnoise.frontends import MELS, Wave
from fromnoise.objectives import DiscreteTime
from fromnoise.predictions import Noise
from fromnoise.processes import VP
from fromnoise.recipes.base import Recipe
from fromnoise.recipes.sc09 import SC09, SC09_LICENCE
from fromnoise.samplers import DDPM, Levels, Trained
from fromnoise.training.settings import Optimisation, TrainerSettings

LJSPEECH = Clips(layout="ljspeech", sample_rate=22050, seconds=16000 / 22050, fixed=False)
LJSPEECH_LICENCE = "public domain (LJ Speech)"
BASE, LARGE = VP(1e-4, 0.05, 50), VP(1e-4, 0.02, 200)
SIX_BASE, SIX_LARGE = ((1e-4, 1e-3, 0.01, 0.05, 0.2, last) for last in (0.5, 0.7))
ADAM = Optimisation("adam", 2e-4, schedule="constant", warmup_steps=0, ema=0.0)
MILLION = TrainerSettings(
    max_epochs=1000, steps_per_epoch=1000, batch_size=16, gradient_clip_val=0.0, log_every_n_steps=100, num_workers=4
)

ljspeech_base = Recipe(
    name="diffwave/ljspeech_base",
    task="vocode",
    mel=MELS["tacotron2-22k"],
    frontend=Wave(22050),
    backbone=WaveNetConfig(64, 64, 30, 10, mel_bands=80),
    process=BASE,
    prediction=Noise(),
    sampler=DDPM(),
    grid=Levels(SIX_BASE),
    num_steps=6,
    times=DiscreteTime(),
    data=LJSPEECH,
    scores=(),
    optimisation=ADAM,
    trainer=MILLION,
    model_name="diffwave-ljspeech-base",
    licence=LJSPEECH_LICENCE,
)

ljspeech_large = replace(
    ljspeech_base,
    name="diffwave/ljspeech_large",
    backbone=WaveNetConfig(128, 128, 30, 10, mel_bands=80),
    process=LARGE,
    grid=Levels(SIX_LARGE),
    model_name="diffwave-ljspeech-large",
)

sc09_uncond = Recipe(
    name="diffwave/sc09_uncond",
    task="generate",
    frontend=Wave(16000),
    backbone=WaveNetConfig(256, 256, 36, 12),
    process=LARGE,
    prediction=Noise(),
    sampler=DDPM(),
    grid=Trained(),
    num_steps=200,
    times=DiscreteTime(),
    data=SC09,
    scores=(),
    optimisation=ADAM,
    trainer=replace(MILLION, max_epochs=100, steps_per_epoch=10_000),
    model_name="diffwave-sc09-uncond",
    licence=SC09_LICENCE,
)

sc09_small = replace(
    sc09_uncond,
    name="diffwave/sc09_small",
    backbone=WaveNetConfig(128, 256, 30, 10),
    trainer=replace(sc09_uncond.trainer, max_epochs=50),
    model_name="diffwave-sc09-small",
)

sc09_class = replace(
    sc09_uncond,
    name="diffwave/sc09_class",
    backbone=WaveNetConfig(256, 256, 36, 12, vector_dim=128),
    labels=DIGITS,
    drop_label=0.1,
    model_name="diffwave-sc09-class",
)

sc09_deep_thin = replace(
    sc09_class,
    name="diffwave/sc09_deep_thin",
    backbone=WaveNetConfig(128, 128, 48, 12, vector_dim=128),
    model_name="diffwave-sc09-deep-thin",
)
