"""DiffSep: Scheibler et al., "Diffusion-based Generative Speech Source Separation", ICASSP 2023,
https://arxiv.org/abs/2210.17327, as its code trains it.

    wsj0_2mix      the paper: 8 kHz, `max`, crops of 5 s, Adam 2e-4, batches of 6 and 2 accumulated on every GPU
    wsj0_3mix      the same for three speakers
    libri2mix      the same on the training part of Libri2Mix
    vctk_demand    speech and noise as two sources at 16 kHz, noise of the process at the mixture's local level

The network is the same NCSN++ in all, on the square root of spectra of 510 samples. Where a batch starts as the sampler
does (one item in ten) the best order of the speakers counts; speech and noise have a fixed order.

Deviations: a crop is always as long as `data.seconds` says, shorter recordings being filled with silence on both sides
(the release fills up to the longest of a batch); validation crops lie in the middle (drawn there); p226 and p287 of
VoiceBank-DEMAND are held out (a random tenth there). The paper's number of GPUs is not known: with W of them,
`trainer.devices=W` and W times fewer steps an epoch.
"""

from dataclasses import replace

from fromnoise.backbones import NCSNppConfig, SpectralConfig
from fromnoise.data.separated import Separated
from fromnoise.frontends import STFT, Wave
from fromnoise.objectives import SNR, UniformTime
from fromnoise.predictions import Score
from fromnoise.processes import Mixing
from fromnoise.recipes.base import Recipe, nested
from fromnoise.samplers import PredictorCorrector, Uniform
from fromnoise.tasks.source_losses import PermutedEnd, Switched
from fromnoise.training.settings import Optimisation, TrainerSettings

SEED = 64736289
PUBLISHED = Optimisation("adam", 2e-4, schedule="constant", warmup_steps=0, ema=0.999, ema_warmup=True)


def network(sources: int, sample_rate: int) -> SpectralConfig:
    """NCSN++ on the spectra of the sources and the mixture."""
    inner = NCSNppConfig(channels_in=2 * sources + 2, channels_out=2 * sources)
    front = STFT(sample_rate, 510, 128, padding="constant", exponent=0.5, factor=0.15)
    return SpectralConfig(nested("backbone", inner), nested("frontend", front), multiple=64, tail=True)


wsj0_2mix = Recipe(
    name="diffsep/wsj0_2mix",
    task="separate",
    seed=SEED,
    frontend=Wave(8000),
    backbone=network(2, 8000),
    process=Mixing(),
    prediction=Score(),
    sampler=PredictorCorrector(corrector="ald2", step_rule="even"),
    grid=Uniform(),
    num_steps=30,
    levels="match",
    times=UniformTime(),
    weighting=SNR(),
    strategy=PermutedEnd(0.1),
    data=Separated(mode="max", seconds=5.0, valid_seconds=5.0),
    scores=("si_sdr", "si_sdri"),
    optimisation=PUBLISHED,
    trainer=TrainerSettings(
        deterministic=True,
        max_epochs=1000,
        steps_per_epoch=1667,
        batch_size=6,
        valid_batch_size=5,
        accumulate_grad_batches=2,
        check_val_every_n_epoch=5,
        num_workers=8,
        monitor="valid/si_sdr",
        mode="max",
        keep_top=20,
        score_batches=2,
    ),
    model_name="diffsep-wsj0-2mix",
    licence="not stated: it follows from WSJ0, which is under the licence of the LDC",
)

wsj0_3mix = replace(
    wsj0_2mix,
    name="diffsep/wsj0_3mix",
    backbone=network(3, 8000),
    process=Mixing(3),
    sources=3,
    data=Separated(mode="max", voices=3, seconds=5.0, valid_seconds=5.0),
    model_name="diffsep-wsj0-3mix",
)

libri2mix = replace(
    wsj0_2mix,
    name="diffsep/libri2mix",
    data=Separated(split="train-360", valid_split="dev", mode="max", seconds=5.0, valid_seconds=5.0),
    trainer=replace(wsj0_2mix.trainer, steps_per_epoch=4233),
    model_name="diffsep-libri2mix",
    licence="CC BY 4.0 (LibriSpeech)",
)

vctk_demand = replace(
    wsj0_2mix,
    name="diffsep/vctk_demand",
    frontend=Wave(16000),
    backbone=network(2, 16000),
    names=("speech", "noise"),
    level="local",
    strategy=Switched(1 / 30),
    data=Separated(sample_rate=16000, seconds=3.0, valid_seconds=3.0, short="repeat"),
    optimisation=replace(PUBLISHED, learning_rate=1e-4),
    trainer=replace(
        wsj0_2mix.trainer,
        steps_per_epoch=675,
        batch_size=4,
        valid_batch_size=4,
        accumulate_grad_batches=4,
        check_val_every_n_epoch=1,
        num_workers=4,
        score_batches=1,
    ),
    model_name="diffsep-vctk-demand",
    licence="CC BY 4.0 (VoiceBank-DEMAND)",
)
