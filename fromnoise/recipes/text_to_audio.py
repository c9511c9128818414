"""Sounds from texts.

`sounds_small`: everyday sounds and birds by caption, 3 s at 16 kHz, at the settings of a small machine. `data.root` is
a folder with metadata.csv (columns file, caption, label, split, licence); only rows whose licence has no "NC" in it are
used. The text encoder reads bytes and learns with the rest; in training a caption or the class's name is drawn, words
are left out now and then, and a clip of less than 3 s is repeated. It generates the latents of `sounds_autoencoder`, 64
numbers for 4 frames of log-magnitudes in 160 bands; unless told otherwise, of the bundled one.

`sounds_spectral`: the same without an autoencoder, log-magnitudes as in `digits/small`: 31 pairs of frames a second.

`seed_diffae` and `seed_diffgen`: the two models of the published text-to-bird-sound system, built on Mousai (Schneider
et al., 2023, https://arxiv.org/abs/2301.11757) in the configuration of its README: an autoencoder of 185,107,872
parameters, 1024 samples a latent of 32 numbers, and a generator of latents of 562,606,400, told the T5 embeddings of a
caption. What its README leaves open (crop, batch, rate) is as in the recipes of audio-diffusion-pytorch's trainer.
`birds` is the second with the first's length. The autoencoder is trained first, then the generator with
init.autoencoder=FOLDER.

`upsampler` is audio-diffusion-pytorch's in the sizes that one of its authors trained, `sounds_upsampler` a small one
from 4 to 16 kHz; `vocoder` has the network and the mel of the same project's page. `sounds_splits` makes waves of any
length, split by split (`fromnoise.samplers.ladder`).
"""

import dataclasses

from fromnoise import hub
from fromnoise.backbones import ConvNeXtConfig, UNet1dConfig
from fromnoise.backbones.encoder1d import Encoder1dConfig
from fromnoise.backbones.unet1d_mel import MelUNet1dConfig
from fromnoise.conditioning import T5, Bytes
from fromnoise.data.clips import Clips
from fromnoise.frontends import Mel, MelMagnitude, Wave
from fromnoise.objectives import UniformTime
from fromnoise.predictions import Velocity
from fromnoise.processes import Flow, VPAngular
from fromnoise.recipes.base import Init, Recipe
from fromnoise.samplers import DDIM, DPMpp2M, Uniform
from fromnoise.training.settings import Optimisation, TrainerSettings

sounds_spectral = Recipe(
    name="text_to_audio/sounds_spectral",
    task="generate",
    frontend=MelMagnitude(16000, 1024, 256, 160, floor=1e-2, mean=-1.626, scale=2.0, iterations=64),
    backbone=ConvNeXtConfig(160, 256, 6, vector=128, attention=3, gated=True, fold=2),
    process=Flow(),
    prediction=Velocity(),
    sampler=DPMpp2M(),
    grid=Uniform(),
    num_steps=16,
    text=Bytes(128, 2, 2, parts=2048),
    guidance_scale=2.0,
    seconds=3.0,
    drop_label=0.15,
    times=UniformTime(),
    data=Clips(
        sample_rate=16000,
        seconds=3.0,
        fixed=False,
        speed=(0.95, 1.05),
        gain_db=(-3.0, 3.0),
        captions=("caption", "label"),
        drop_words=0.1,
        without_licence="NC",
        fill="repeat",
    ),
    scores=(),
    optimisation=Optimisation(
        learning_rate=1.5e-3, weight_decay=0.01, beta2=0.99, warmup_steps=200, final=0.02, ema=0.999
    ),
    trainer=TrainerSettings(
        max_epochs=60, steps_per_epoch=200, batch_size=16, precision="bf16-mixed", gradient_clip_val=1.0
    ),
    model_name="sounds-spectral",
    licence="CC BY 4.0 (trained on clips under CC0 and CC BY of ESC-10 and others, credited in the data's table)",
)

CLIPS = dataclasses.replace(sounds_spectral.data, captions=(), drop_words=0.0)
TRAINER = Optimisation(
    "adamw", 1e-4, 1e-3, beta1=0.95, epsilon=1e-6, schedule="constant", warmup_steps=0, ema=0.995, ema_power=0.7
)


def latent_of(recipe: Recipe) -> dict[str, object]:
    """The configuration of the autoencoder that a recipe trains, as a generator's `latent`."""
    return hub.config_dict(recipe.model_config())


seed_diffae = Recipe(
    name="text_to_audio/seed_diffae",
    task="autoencode",
    frontend=Wave(48000),
    encoder=Encoder1dConfig(2, 512, (1, 1, 1), (2, 2), (4, 8), out_channels=32),
    backbone=UNet1dConfig(
        in_channels=2,
        channels=(256, 512, 512, 512, 1024, 1024, 1024),
        factors=(1, 2, 2, 2, 2, 2, 2),
        items=(1, 2, 2, 2, 2, 2, 2),
        context_channels=(0, 0, 0, 0, 32, 0, 0),
        num_filters=128,
        window_length=64,
        stride=64,
    ),
    process=VPAngular(),
    prediction=Velocity(),
    sampler=DDIM(),
    grid=Uniform(),
    num_steps=100,
    seconds=2**18 / 48000,
    times=UniformTime(),
    data=Clips(sample_rate=48000, seconds=2**18 / 48000, fixed=False, channels=2),
    scores=(),
    optimisation=TRAINER,
    trainer=TrainerSettings(batch_size=24, steps_per_epoch=1000, max_epochs=1000),
    model_name="diffae",
)

seed_diffgen = Recipe(
    name="text_to_audio/seed_diffgen",
    task="generate",
    frontend=Wave(48000),
    backbone=UNet1dConfig(
        in_channels=32,
        channels=(128, 256, 512, 512, 1024, 1024),
        factors=(1, 2, 2, 2, 2, 2),
        items=(2, 2, 2, 4, 8, 8),
        attentions=(0, 0, 1, 1, 1, 1),
        cross_attentions=(1, 1, 1, 1, 1, 1),
        attention_heads=12,
        attention_features=64,
        embedding_features=768,
        embedding_max_length=128,
    ),
    process=VPAngular(),
    prediction=Velocity(),
    sampler=DDIM(),
    grid=Uniform(),
    num_steps=100,
    text=T5(masked=False),
    latent=latent_of(seed_diffae),
    guidance_scale=5.0,
    seconds=2**21 / 48000,
    drop_label=0.1,
    times=UniformTime(),
    data=Clips(sample_rate=48000, seconds=2**21 / 48000, fixed=False, captions=("caption",), channels=2),
    scores=(),
    optimisation=TRAINER,
    trainer=TrainerSettings(batch_size=24, steps_per_epoch=1000, max_epochs=1000),
    model_name="diffgen",
)

birds = dataclasses.replace(
    seed_diffgen,
    name="text_to_audio/birds",
    text=T5(),
    seconds=2**18 / 48000,
    data=dataclasses.replace(seed_diffgen.data, seconds=2**18 / 48000, fill="repeat"),
    model_name="birds",
)

sounds_autoencoder = dataclasses.replace(
    seed_diffae,
    name="text_to_audio/sounds_autoencoder",
    frontend=sounds_spectral.frontend,
    encoder=Encoder1dConfig(160, 128, (1, 1, 1), (2, 2), (1, 2), out_channels=64, front=None),
    backbone=UNet1dConfig(
        in_channels=160,
        channels=(208, 232),
        factors=(2, 2),
        items=(2, 3),
        context_channels=(0, 64),
        modulation_features=256,
    ),
    sampler=DPMpp2M(),
    num_steps=16,
    seconds=3.0,
    segment=6.0,
    data=CLIPS,
    optimisation=dataclasses.replace(sounds_spectral.optimisation, learning_rate=5e-4),
    trainer=dataclasses.replace(sounds_spectral.trainer, max_epochs=48),
    model_name="sounds-autoencoder",
    licence=sounds_spectral.licence,
)

sounds_small = dataclasses.replace(
    sounds_spectral,
    name="text_to_audio/sounds_small",
    backbone=ConvNeXtConfig(64, 256, 8, vector=128, attention=4),
    latent=latent_of(sounds_autoencoder),
    init=Init(autoencoder="sounds-autoencoder"),
    trainer=dataclasses.replace(sounds_spectral.trainer, max_epochs=45),
    model_name="sounds-small",
)

upsampler = Recipe(
    name="text_to_audio/upsampler",
    task="upsample",
    factor=16,
    frontend=Wave(48000),
    backbone=UNet1dConfig(
        in_channels=2,
        signal_channels=2,
        channels=(8, 32, 64, 128, 256, 512, 512, 1024, 1024),
        factors=(1, 4, 4, 4, 2, 2, 2, 2, 2),
        items=(1, 2, 2, 2, 2, 2, 2, 4, 4),
        attentions=(0, 0, 0, 0, 0, 1, 1, 1, 1),
        attention_heads=12,
        attention_features=64,
    ),
    process=VPAngular(),
    prediction=Velocity(),
    sampler=DDIM(),
    grid=Uniform(),
    num_steps=50,
    unit="none",
    times=UniformTime(),
    data=seed_diffae.data,
    scores=(),
    optimisation=TRAINER,
    trainer=seed_diffae.trainer,
    model_name="upsampler",
)

sounds_upsampler = dataclasses.replace(
    upsampler,
    name="text_to_audio/sounds_upsampler",
    factor=4,
    frontend=Wave(16000),
    backbone=UNet1dConfig(
        in_channels=1,
        signal_channels=1,
        channels=(64, 64, 128, 128, 192),
        factors=(1, 2, 2, 4, 2),
        items=(1, 1, 1, 2, 2),
        modulation_features=256,
        num_filters=32,
        window_length=16,
        stride=8,
    ),
    num_steps=25,
    unit="rms",
    data=dataclasses.replace(CLIPS, seconds=1.0),
    optimisation=sounds_spectral.optimisation,
    trainer=sounds_spectral.trainer,
    model_name="sounds-upsampler",
    licence=sounds_spectral.licence,
)

vocoder = Recipe(
    name="text_to_audio/vocoder",
    task="vocode",
    mel=Mel(48000, 1024, 256, 1024, 80, 0.0, None, "htk", "none", centered=False),
    frontend=Wave(48000),
    backbone=MelUNet1dConfig(
        in_channels=1,
        channels=(8, 32, 64, 128, 256, 512, 512, 1024, 1024),
        factors=(1, 4, 4, 4, 2, 2, 2, 2, 2),
        items=(1, 2, 2, 2, 2, 2, 2, 4, 4),
        mel_bands=80,
        mel_window=1024,
        mel_hop=256,
    ),
    process=VPAngular(),
    prediction=Velocity(),
    sampler=DDIM(),
    grid=Uniform(),
    num_steps=50,
    times=UniformTime(),
    data=dataclasses.replace(seed_diffae.data, channels=1),
    scores=(),
    optimisation=TRAINER,
    trainer=seed_diffae.trainer,
    model_name="vocoder",
)

sounds_splits = dataclasses.replace(
    sounds_spectral,
    name="text_to_audio/sounds_splits",
    frontend=Wave(16000, scale=4.0),
    backbone=dataclasses.replace(sounds_upsampler.backbone, use_time_conditioning=False, vector_dim=128),
    process=VPAngular(),
    sampler=DDIM(),
    num_steps=48,
    seconds=2.048,
    splits=4,
    data=dataclasses.replace(sounds_spectral.data, seconds=2.048),
    model_name="sounds-splits",
)
