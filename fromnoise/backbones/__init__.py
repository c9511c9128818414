"""Networks (x, t, condition) -> tensor of x's layout. They know layers, not processes or losses."""

from fromnoise.backbones.convnext import ConvNeXtConfig
from fromnoise.backbones.crn import CRNConfig
from fromnoise.backbones.sashimi import SashimiConfig
from fromnoise.backbones.tcunet import TCUNetConfig
from fromnoise.backbones.wavenet import WaveNetConfig

BACKBONES: dict[str, type] = {
    "convnext": ConvNeXtConfig,
    "crn": CRNConfig,
    "sashimi": SashimiConfig,
    "tcunet": TCUNetConfig,
    "wavenet": WaveNetConfig,
}
