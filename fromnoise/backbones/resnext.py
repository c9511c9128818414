"""ResNeXt for small images: the network that reads a log-mel spectrogram and says which class it is.

Xie, Girshick, Dollar, Tu and He, "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017,
https://arxiv.org/abs/1611.05431, in the form for 32 x 32 images (Section 4.5), with one input channel:

    h = relu(bn(conv3x3(x)))                                             64 channels
    h = relu(shortcut(h) + bn(1x1(relu(bn(3x3 in groups(relu(bn(1x1(h)))))))))      three stages, widths w, 2w, 4w
    feature = mean of h over the image,   logits = W feature + b          w = 64 widen_factor

Stages two and three halve the image with their first block. depth = 9 blocks + 2 layers; a block of width w, 2w or 4w
has `cardinality` groups of base_width, twice that or four times. The names of the weights are those of the classifier
that the published scores on spoken digits were computed with (depth 29, 8 x 64, widening 4: 34,425,546 parameters).
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn

STEM = 64


@dataclasses.dataclass(frozen=True)
class ResNeXtConfig:
    """The published sizes. Small ones: (20, 4, 16, 1) has 0.74 M parameters, (20, 8, 16, 2) 2.17 M."""

    depth: int = 29
    cardinality: int = 8
    base_width: int = 64
    widen_factor: int = 4

    def __post_init__(self) -> None:
        if self.depth < 11 or (self.depth - 2) % 9 or self.depth > 1000:
            raise ValueError(f"resnext: depth must be 9 blocks + 2 (11, 20, 29, ...), got {self.depth}")
        if min(self.cardinality, self.base_width, self.widen_factor) < 1:
            raise ValueError(f"resnext: expected every size at least 1, got {self}")

    @property
    def num_features(self) -> int:
        """Width of the input of the last layer."""
        return 4 * STEM * self.widen_factor

    def build(self, num_classes: int) -> "ResNeXt":
        """The network with fresh weights."""
        return ResNeXt(self, num_classes)


class Shortcut(nn.Module):
    """1x1 convolution and norm where the size changes."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.shortcut_conv = nn.Conv2d(num_in, num_out, 1, stride, bias=False)
        self.shortcut_bn = nn.BatchNorm2d(num_out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return self.shortcut_bn(self.shortcut_conv(x))


class Bottleneck(nn.Module):
    """One residual block; `width` channels in `groups` groups in the middle."""

    def __init__(self, num_in: int, num_out: int, width: int, groups: int, stride: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(num_in, width, 1, bias=False)
        self.bn_reduce = nn.BatchNorm2d(width)
        self.conv_conv = nn.Conv2d(width, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.conv_expand = nn.Conv2d(width, num_out, 1, bias=False)
        self.bn_expand = nn.BatchNorm2d(num_out)
        same = num_in == num_out and stride == 1
        self.shortcut = nn.Sequential() if same else Shortcut(num_in, num_out, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        h = self.bn_reduce(self.conv_reduce(x)).relu()
        h = self.bn(self.conv_conv(h)).relu()
        return (self.shortcut(x) + self.bn_expand(self.conv_expand(h))).relu()


class ResNeXt(nn.Module):
    """See the module's text."""

    def __init__(self, config: ResNeXtConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.conv_1_3x3 = nn.Conv2d(1, STEM, 3, padding=1, bias=False)
        self.bn_1 = nn.BatchNorm2d(STEM)
        self.stage_1, self.stage_2, self.stage_3 = (self._stage(s) for s in range(3))
        self.classifier = nn.Linear(config.num_features, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, s: int) -> nn.Sequential:
        """Stage 0, 1 or 2; the first block changes the size."""
        config = self.config
        width, num_out = config.cardinality * config.base_width << s, STEM * config.widen_factor << s
        num_in = STEM * config.widen_factor << (s - 1) if s else STEM
        blocks = nn.Sequential()
        for k in range((config.depth - 2) // 9):
            stride = 2 if s and not k else 1
            block = Bottleneck(num_out if k else num_in, num_out, width, config.cardinality, stride)
            blocks.add_module(f"stage_{s + 1}_bottleneck_{k}", block)
        return blocks

    def features(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b d"]:
        """What the last layer reads."""
        h = self.bn_1(self.conv_1_3x3(x)).relu()
        for stage in (self.stage_1, self.stage_2, self.stage_3):
            h = stage(h)
        return h.mean(dim=(2, 3))

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d"]]:
        """(logits, features)."""
        features = self.features(x)
        return self.classifier(features), features


def count_parameters(config: ResNeXtConfig, num_classes: int) -> int:
    """Numbers to train, without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in config.build(num_classes).parameters())
