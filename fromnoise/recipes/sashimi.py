"""SaShiMi as the backbone of DiffWave: Goel et al., "It's Raw! Audio Generation with State-Space Models", ICML 2022,
https://arxiv.org/abs/2202.09729.

              d_model  layers  pool  T    last beta   parameters
sc09_d128       128       6     4,4  200     0.02       22.5 M    (the published S4: 23.0 M)
sc09_d64         64       6     4,4  200     0.02        7.2 M    (7.5 M)
ljspeech         32       6     4,4   50     0.05        2.9 M    (3.15 M); a vocoder
ljspeech_hop2048 32       6     4,4   50     0.05        2.9 M    the harder mel, eight times as coarse

Adam at a constant 2e-4, 500,000 steps (800,000 for the best scores of d128, the last 300,000 at 1e-4). The layer is
S4D in place of the published S4s: no Cauchy kernels, any length at run time. `backbone.kind=s4_v3` is the published one
of 2022. A. B and the step sizes have a learning rate of their own, `optimisation.ssm_lr`; the paper's code gave them
the common one, which 2e-4 being below 1e-3 comes to the same. The mel is averaged for the inner scales, where the
published vocoder cuts it off and so hears the beginning of a clip: `backbone.mel_align=crop`. The number of clips a
step is not published; 16 is DiffWave's.
"""

from dataclasses import replace

from fromnoise.backbones.sashimi import SashimiConfig
from fromnoise.frontends import Mel
from fromnoise.recipes.diffwave import ljspeech_base, sc09_uncond

sc09_d128 = replace(
    sc09_uncond,
    name="sashimi/sc09_d128",
    backbone=SashimiConfig(128, 6, (4, 4)),
    trainer=replace(sc09_uncond.trainer, max_epochs=80),
    model_name="sashimi-sc09-d128",
)

sc09_d64 = replace(
    sc09_d128,
    name="sashimi/sc09_d64",
    backbone=SashimiConfig(64, 6, (4, 4)),
    trainer=replace(sc09_uncond.trainer, max_epochs=50),
    model_name="sashimi-sc09-d64",
)

ljspeech = replace(
    ljspeech_base,
    name="sashimi/ljspeech",
    backbone=SashimiConfig(32, 6, (4, 4), mel_bands=80, mel_align="pool"),
    trainer=replace(ljspeech_base.trainer, max_epochs=500),
    model_name="sashimi-ljspeech",
)

# Clips of 44,000 samples: 22 frames of this mel.
ljspeech_hop2048 = replace(
    ljspeech,
    name="sashimi/ljspeech_hop2048",
    mel=Mel(hop=2048),
    backbone=SashimiConfig(32, 6, (4, 4), mel_bands=80, mel_upsample=(32, 64), mel_align="pool", kernel_length=44000),
    data=replace(ljspeech.data, seconds=44000 / 22050),
    model_name="sashimi-ljspeech-hop2048",
)
