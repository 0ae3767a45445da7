"""The papers' models: variational auto-encoders to be trained under constraints, and the classifiers these may need."""

from .autoencoder import VariationalAutoencoder
from .classifier import ConvolutionalClassifier
from .convdraw import ConvDraw, ConvDrawOutput
from .export import Decoder, Encoder
from .latent_distribution import LatentDistribution
from .noise import GivenNoise, Noise, WholeBatchNoise
from .nvp import NVPVAE
from .output import VariationalOutput
from .resnet import ResNet

__all__ = [
    "NVPVAE",
    "ConvDraw",
    "ConvDrawOutput",
    "ConvolutionalClassifier",
    "Decoder",
    "Encoder",
    "GivenNoise",
    "LatentDistribution",
    "Noise",
    "ResNet",
    "VariationalAutoencoder",
    "VariationalOutput",
    "WholeBatchNoise",
]
