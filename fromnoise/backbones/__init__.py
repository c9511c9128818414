"""Networks (x, t, condition) -> tensor of x's layout. They know layers, not processes or losses."""

from fromnoise.backbones.crn import CRNConfig
from fromnoise.backbones.tcunet import TCUNetConfig

BACKBONES: dict[str, type] = {"crn": CRNConfig, "tcunet": TCUNetConfig}
