"""The C4 residual network: bottlenecks whose stride sits in the first 1x1 convolution."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from xai_lib.models.regions.config import BLOCKS, DetectorConfig

STRIDE = 16  # of res4: two in the stem, in its pooling, in res3 and in res4


class ConvNorm(nn.Conv2d):
    """A convolution without bias and its frozen batch norm, under the published key names."""

    def __init__(self, inputs: int, outputs: int, kernel: int, **options):
        super().__init__(inputs, outputs, kernel, bias=False, **options)
        self.norm = FrozenBatchNorm2d(outputs)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return gamma (conv(x) - running mean) / sqrt(running variance + 1e-5) + beta."""
        return self.norm(super().forward(x))


class Bottleneck(nn.Module):
    """relu(shortcut(x) + conv1x1(relu(conv3x3(relu(conv1x1(x)))))), as in caffe's ResNet.

    He et al. (CVPR 2016) with the stride in the first 1x1 convolution; torchvision's own block has
    it in the 3x3, and weights trained for one mean nothing in the other.
    """

    def __init__(
        self,
        inputs: int,
        inner: int,
        outputs: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        stride_in_1x1: bool = True,
    ):
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = ConvNorm(inputs, outputs, 1, stride=stride) if inputs != outputs else None
        self.conv1 = ConvNorm(inputs, inner, 1, stride=first)
        self.conv2 = ConvNorm(
            *(inner, inner, 3),
            stride=second,
            padding=dilation,
            dilation=dilation,
            groups=groups,
        )
        self.conv3 = ConvNorm(inner, outputs, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return the block's output, after its last relu."""
        y = F.relu(self.conv1(x))
        y = self.conv3(F.relu(self.conv2(y)))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def stage(config: DetectorConfig, number: int) -> nn.Sequential:
    """Return res2, res3, res4 or res5 of `config`; all but res2 halve the resolution.

    A dilated res5 does not: its stride becomes 1, and all its 3x3 convolutions have dilation 2, so
    that they see as much of the image as they did in training on ImageNet.
    """
    outputs = config.res2 * 2 ** (number - 2)
    inner = config.groups * config.width * 2 ** (number - 2)
    dilated = number == 5 and config.res5_dilated
    blocks = []
    for index in range(BLOCKS[config.depth][number - 2]):
        before = config.stem if number == 2 else outputs // 2
        blocks.append(
            Bottleneck(
                *(before if index == 0 else outputs, inner, outputs),
                stride=1 if index or number == 2 or dilated else 2,
                dilation=2 if dilated else 1,
                groups=config.groups,
                stride_in_1x1=config.stride_in_1x1,
            )
        )
    return nn.Sequential(*blocks)


class Stem(nn.Module):
    """A 7x7 convolution and a 3x3 maximum, both with stride 2."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.conv1 = ConvNorm(3, config.stem, 7, stride=2, padding=3)
        self.caffe_pool = config.caffe_pool

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h4 w4"]:
        """Return the pooled output; caffe pools without a border and rounds the size up."""
        x = F.relu(self.conv1(x))
        if self.caffe_pool:
            return F.max_pool2d(x, 3, stride=2, ceil_mode=True)
        return F.max_pool2d(x, 3, stride=2, padding=1)


class Backbone(nn.Module):
    """The stem, res2, res3 and res4: one map of features at a stride of 16 pixels."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.stem = Stem(config)
        self.res2, self.res3, self.res4 = (stage(config, number) for number in (2, 3, 4))

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h16 w16"]:
        """Return res4 of normalised pixels."""
        return self.res4(self.res3(self.res2(self.stem(pixels))))
