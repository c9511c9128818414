"""Networks (x, t, condition) -> tensor of x's layout. They know layers, not processes or losses."""

from fromnoise.backbones.cdiffuse import CDiffuSEConfig
from fromnoise.backbones.convnext import ConvNeXtConfig
from fromnoise.backbones.crn import CRNConfig
from fromnoise.backbones.encoder1d import Encoder1dConfig
from fromnoise.backbones.maskconv import MaskConvConfig
from fromnoise.backbones.ncsnpp import NCSNppConfig
from fromnoise.backbones.sashimi import SashimiConfig
from fromnoise.backbones.spectral import SpectralConfig
from fromnoise.backbones.tcunet import TCUNetConfig
from fromnoise.backbones.unet1d import UNet1dConfig
from fromnoise.backbones.unet1d_mel import MelUNet1dConfig
from fromnoise.backbones.wavenet import WaveNetConfig

BACKBONES: dict[str, type] = {
    "cdiffuse": CDiffuSEConfig,
    "convnext": ConvNeXtConfig,
    "crn": CRNConfig,
    "maskconv": MaskConvConfig,
    "ncsnpp": NCSNppConfig,
    "sashimi": SashimiConfig,
    "spectral": SpectralConfig,
    "tcunet": TCUNetConfig,
    "unet1d": UNet1dConfig,
    "unet1d_mel": MelUNet1dConfig,
    "wavenet": WaveNetConfig,
}

ENCODERS: dict[str, type] = {"encoder1d": Encoder1dConfig}
"""Networks wave -> latent, which diffusion autoencoders are told of."""
