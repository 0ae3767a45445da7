"""The simple convolutional classifier of the classification constraint (CLA, Table 1 of "Taming VAEs")."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from .arguments import at_least, checked_shape

SMALLEST_SIDE = 8
"""The smallest image height or width in pixels."""


class ConvolutionalClassifier(nn.Module):
    """Convolutions and average pooling, then one hidden layer; images in, logits out.

    CLA pulls a gradient through this network into images it has never seen. Hence SiLU rather than ReLU and averages
    rather than maxima: the logits are smooth in every pixel, and no pixel is without a slope.

    Args:
        image_shape: (C, H, W), height and width at least 8.
        classes: number of classes.
        channels: channels of the first stage; doubled per stage, at most four times as many.
        hidden: width of the fully connected layer.

    Raises:
        ValueError: an image that is too small, or a number out of range.

    Example:
        >>> import torch
        >>> ConvolutionalClassifier((1, 16, 16), classes=10)(torch.rand(4, 1, 16, 16)).shape
        torch.Size([4, 10])
    """

    def __init__(self, image_shape: Sequence[int], classes: int, *, channels: int = 32, hidden: int = 128) -> None:
        super().__init__()
        self.image_shape = checked_shape("image_shape", image_shape, SMALLEST_SIDE)
        self.classes = classes
        at_least("classes", classes, 2)
        at_least("channels", channels, 1)
        at_least("hidden", hidden, 1)
        image_channels, height, width = self.image_shape
        stages = (min(height, width) // 4).bit_length() - 1  # the smaller side ends between 4 and 7
        outputs = [min(2**stage, 4) * channels for stage in range(stages)]
        layers: list[nn.Module] = []
        for before, after in pairwise([image_channels, *outputs]):
            layers += [nn.Conv2d(before, after, kernel_size=3, padding=1), nn.SiLU(), nn.AvgPool2d(2)]
        self.convolutions = nn.Sequential(*layers)
        flat = outputs[-1] * (height >> stages) * (width >> stages)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(flat, hidden), nn.SiLU(), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of images x [B, C, H, W]."""
        logits: Tensor = self.head(self.convolutions(x))
        return logits

    def features(self) -> nn.Module:
        """The convolutions alone: images [B, C, H, W] -> a feature map [B, F, H', W'], H' or W' between 4 and 7."""
        return self.convolutions
