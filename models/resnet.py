"""The residual network for CIFAR-10 of He et al. 2016 (arXiv:1512.03385, Section 4.2)."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import at_least, checked_shape
from .classifier import SMALLEST_SIDE

FEATURE_LAYERS = 8
"""Layers whose output are the features of FRE: "the first 8 layers of a resnet" (GECO workshop paper, Table 1)."""


class ResNet(nn.Module):
    """A stack of 6n + 2 weighted layers (He et al. 2016, Section 4.2): images in, logits out.

    A 3x3 convolution; three stages of n residual blocks, 2n convolutions each, with 1, 2 and 4 times ``width``
    channels, the second and third stage starting with stride 2; global average pooling; a fully connected layer.
    Every convolution is followed by batch normalisation. Shortcuts have no weights (their option A): where the shape
    changes they take every second pixel and pad with zero channels.

    Args:
        image_shape: (C, H, W), height and width at least 8.
        classes: number of classes.
        blocks: n, at least 2, since n = 1 has fewer than eight convolutions; 3 is ResNet-20.
        width: channels of the first stage.

    Raises:
        ValueError: an image that is too small, or a number out of range.

    Example:
        >>> network = ResNet((3, 32, 32), classes=10)
        >>> network(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 10])
        >>> sum(parameter.numel() for parameter in network.parameters())  # 0.27 M in their Table 6
        269722
        >>> network.features()(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 32, 16, 16])
    """

    def __init__(self, image_shape: Sequence[int], classes: int, *, blocks: int = 3, width: int = 16) -> None:
        super().__init__()
        self.image_shape = checked_shape("image_shape", image_shape, SMALLEST_SIDE)
        self.classes = classes
        at_least("classes", classes, 2)
        at_least("blocks", blocks, 2)
        at_least("width", width, 1)
        self.stem = NormalisedConvolution(self.image_shape[0], width)
        self.blocks = nn.ModuleList()
        channels = width
        for stage in range(3):
            for index in range(blocks):
                halves = stage > 0 and index == 0
                self.blocks.append(ResidualBlock(channels, width << stage, stride=2 if halves else 1))
                channels = width << stage
        self.output = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of images x [B, C, H, W]."""
        maps = torch.relu(self.stem(x))
        for block in self.blocks:
            maps = block(maps)
        logits: Tensor = self.output(maps.mean((-2, -1)))
        return logits

    def features(self) -> nn.Module:
        """The first 8 weighted layers: images [B, C, H, W] -> a feature map [B, F, H', W'].

        For n = 3 this ends inside the second stage: F = 2 width, at half the height and width.
        """
        return FirstLayers(self, FEATURE_LAYERS)


class FirstLayers(nn.Module):
    """The first layers of a residual network, counted as He et al. do: weighted layers, so a block has two.

    An odd number ends after a block, an even one after the first convolution of a block, normalised and rectified: the
    shortcut joins a layer later.

    Args:
        network: whose layers; they are shared, not copied.
        layers: how many.

    Raises:
        ValueError: more layers than the network has convolutions.

    Example:
        >>> FirstLayers(ResNet((1, 8, 8), classes=10), layers=3)(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 16, 8, 8])
    """

    def __init__(self, network: ResNet, layers: int) -> None:
        super().__init__()
        convolutions = 1 + 2 * len(network.blocks)
        if not 1 <= layers <= convolutions:
            raise ValueError(
                f"layers: got {layers}, expected 1 to {convolutions}, the convolutions of a ResNet with "
                f"blocks={len(network.blocks) // 3}"
            )
        whole, half = divmod(layers - 1, 2)
        self.stem = network.stem
        self.blocks = network.blocks[:whole]
        self.last = cast(ResidualBlock, network.blocks[whole]).first if half else None

    def forward(self, x: Tensor) -> Tensor:
        """Feature map [B, F, H', W'] of images x [B, C, H, W], not negative."""
        maps = torch.relu(self.stem(x))
        for block in self.blocks:
            maps = block(maps)
        return maps if self.last is None else torch.relu(self.last(maps))


class ResidualBlock(nn.Module):
    """y = ReLU(F(x) + shortcut(x)) with F two normalised 3x3 convolutions (their equation 1).

    Args:
        inputs: channels of x.
        outputs: channels of y, at least as many.
        stride: of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.added_channels = outputs - inputs
        self.first = NormalisedConvolution(inputs, outputs, stride)
        self.second = NormalisedConvolution(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, inputs, H, W] to y [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        shortcut = F.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added_channels))
        return torch.relu(self.second(torch.relu(self.first(x))) + shortcut)


class NormalisedConvolution(nn.Sequential):
    """A 3x3 convolution and its batch normalisation, whose shift makes a bias superfluous."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(convolution, nn.BatchNorm2d(outputs))
