"""The papers' models: variational auto-encoders to be trained under constraints, and the classifiers these may need."""

from .classifier import ConvolutionalClassifier
from .convdraw import ConvDraw, ConvDrawOutput
from .noise import Noise, WholeBatchNoise
from .nvp import NVPVAE
from .output import VariationalOutput
from .resnet import ResNet

__all__ = [
    "NVPVAE",
    "ConvDraw",
    "ConvDrawOutput",
    "ConvolutionalClassifier",
    "Noise",
    "ResNet",
    "VariationalOutput",
    "WholeBatchNoise",
]
