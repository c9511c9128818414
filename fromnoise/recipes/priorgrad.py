"""PriorGrad: Lee et al., "PriorGrad: Improving Conditional Denoising Diffusion Models with Data-Dependent Adaptive
Prior", ICLR 2022, https://arxiv.org/abs/2106.06406.

DiffWave's base vocoder whose noise has, frame by frame, the energy of the mel, never below a tenth of the loudest: less
is left to denoise, and six steps go further. Its loss is weighted by the inverse variance; see `tasks/vocoding.py` for
why that is the plain loss here. One upsampler serves all layers, as in the code that the paper built on.
"""

from dataclasses import replace

from fromnoise.backbones.wavenet import WaveNetConfig
from fromnoise.recipes.diffwave import ljspeech_base

ljspeech = replace(
    ljspeech_base,
    name="priorgrad/ljspeech",
    backbone=WaveNetConfig(64, 64, 30, 10, mel_bands=80, shared_upsampler=True),
    prior="energy",
    model_name="priorgrad-ljspeech",
)
