"""Fused, differentiable functions: constraints without their state, and what models compute between their layers.

A constraint takes a prediction and a target and returns its batch average, 0-d, float32 (float64 for float64):
satisfied when at most zero.
"""

from geco_ext.constraints.absolute import absolute_error
from geco_ext.constraints.classification import classification_accuracy
from geco_ext.constraints.feature import feature_reconstruction_error
from geco_ext.constraints.patch import local_statistics, patch_ncc
from geco_ext.constraints.reconstruction import reconstruction_error
from geco_ext.constraints.similarity import structural_similarity
from geco_ext.functional.models import affine_coupling, gaussian_rsample_kl, lstm_gates

__all__ = [
    "absolute_error",
    "affine_coupling",
    "classification_accuracy",
    "feature_reconstruction_error",
    "gaussian_rsample_kl",
    "local_statistics",
    "lstm_gates",
    "patch_ncc",
    "reconstruction_error",
    "structural_similarity",
]
