"""SGMSE+ and the Schroedinger bridge in its code.

    vctk_demand_16k    Richter et al., "Speech Enhancement and Dereverberation with Diffusion-based Generative Models",
                       2023, https://arxiv.org/abs/2208.05830: OU-VE, score matching, NCSN++ of 65.6 M parameters
    vctk_demand_48k    its settings for full-band speech (Richter et al., "EARS", 2024,
                       https://arxiv.org/abs/2406.06185), here on VoiceBank-DEMAND as it is distributed
    schrodinger        "schrodinger/vctk_demand": Richter et al., "Investigating Training Objectives for Generative
                       Speech Enhancement", 2024, https://arxiv.org/abs/2409.10753: the bridge, an estimate of the
                       clean spectrum, squared error and the mean absolute error of the waves; without its PESQ term

Crops are 256 frames, batches 32 on four GPUs of 8 (here four are accumulated on one), 160 epochs. Published sigmas are
of complex unit noise and enter divided by sqrt(2), c of the bridge by 2. The mean over bins stands for the published
sum: to Adam the factor is nothing. Crops of validation begin at the beginning (in the middle there), shorter ones are
filled with silence at the end (on both sides there), and validation scores 20 files as there.

`sgmse/small` and `schrodinger/small` are the same two on the small data pack, with a network of 3.0 M parameters and,
for the bridge, the loss of `enhance/small`.
"""

from dataclasses import replace
from math import sqrt

from fromnoise.backbones import NCSNppConfig
from fromnoise.data.paired import Paired
from fromnoise.frontends import STFT
from fromnoise.objectives import SNR, UniformTime, Unit
from fromnoise.predictions import SGMSE, Clean
from fromnoise.processes import OUVE, Bridge
from fromnoise.recipes.base import Recipe
from fromnoise.recipes.drdiffuse import SMALL_LICENCE, SMALL_PACK
from fromnoise.samplers import DDIM, PredictorCorrector, Uniform
from fromnoise.tasks.losses import SpectralLoss
from fromnoise.training.settings import Optimisation, TrainerSettings

FRONTEND = STFT(16000, 510, 128, exponent=0.5, factor=0.15)
PUBLISHED = Optimisation("adam", 1e-4, schedule="constant", warmup_steps=0, ema=0.999, ema_warmup=True)
CROP = 255 * 128 / 16000  # s; 255 * 384 / 48000 is the same

vctk_demand_16k = Recipe(
    name="sgmse/vctk_demand_16k",
    frontend=FRONTEND,
    backbone=NCSNppConfig(channels_in=4, channels_out=2, centered=True),
    process=OUVE(1.5, 0.05 / sqrt(2), 0.5 / sqrt(2)),
    prediction=SGMSE("score", c_out="-1", noise_unit=sqrt(2)),
    sampler=PredictorCorrector(corrector="ald"),
    grid=Uniform(),
    num_steps=30,
    unit="peak",
    frame_multiple=64,
    times=UniformTime(),
    weighting=SNR(),
    data=Paired(seconds=CROP, valid_seconds=4 * CROP),
    scores=("si_sdr",),
    optimisation=PUBLISHED,
    trainer=TrainerSettings(
        max_epochs=160,
        steps_per_epoch=338,
        batch_size=8,
        valid_batch_size=4,
        accumulate_grad_batches=4,
        gradient_clip_val=0.0,
        num_workers=4,
        monitor="valid/si_sdr",
        mode="max",
        keep_top=2,
        score_batches=5,
    ),
    model_name="sgmse-vctk-demand-16k",
    licence="CC BY 4.0 (VoiceBank-DEMAND)",
)

vctk_demand_48k = replace(
    vctk_demand_16k,
    name="sgmse/vctk_demand_48k",
    frontend=STFT(48000, 1534, 384, exponent=0.667, factor=0.065),
    backbone=NCSNppConfig(
        bins=768,
        channels_in=4,
        channels_out=2,
        attention=(),
        progressive="none",
        progressive_input="none",
        centered=True,
        divide="after",
    ),
    process=OUVE(2.0, 0.1 / sqrt(2), 1.0 / sqrt(2)),
    frame_padding="reflection",
    data=Paired(sample_rate=48000, seconds=CROP, valid_seconds=4 * CROP),
    model_name="sgmse-vctk-demand-48k",
)

schrodinger = replace(
    vctk_demand_16k,
    name="schrodinger/vctk_demand",
    backbone=NCSNppConfig(channels_in=4, channels_out=2, centered=True, divide="none"),
    process=Bridge(2.6, 0.2),
    prediction=Clean(),
    sampler=DDIM(),
    grid=Uniform(end="t_min"),
    num_steps=50,
    frame_padding="reflection",
    times=UniformTime(0.03),
    weighting=Unit(),
    loss=SpectralLoss(0.0, wave=5e-4),
    trainer=replace(vctk_demand_16k.trainer, batch_size=16, accumulate_grad_batches=2),
    model_name="schrodinger-vctk-demand",
)

SMALL_NETWORK = NCSNppConfig(
    channels_in=4, channels_out=2, width=24, multipliers=(1, 2, 2, 4, 4), res_blocks=1, attention=(), centered=True
)
_SMALL_TRAINER = TrainerSettings(max_epochs=20, steps_per_epoch=100, batch_size=8, precision="bf16-mixed")

small = replace(
    vctk_demand_16k,
    name="sgmse/small",
    backbone=SMALL_NETWORK,
    data=SMALL_PACK,
    optimisation=Optimisation(learning_rate=5e-4, warmup_steps=50, ema=0.995),
    trainer=_SMALL_TRAINER,
    model_name="sgmse-small",
    licence=SMALL_LICENCE,
)

schrodinger_small = replace(
    schrodinger,
    name="schrodinger/small",
    backbone=replace(SMALL_NETWORK, divide="none"),
    num_steps=4,
    loss=SpectralLoss(0.5, wave=0.5, si_sdr=0.01),
    data=SMALL_PACK,
    optimisation=small.optimisation,
    trainer=_SMALL_TRAINER,
    model_name="schrodinger-small",
    licence=SMALL_LICENCE,
)
