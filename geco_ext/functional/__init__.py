"""Fused, differentiable functions: constraints without their state, and what models compute between their layers."""

from geco_ext.functional.constraints import (
    check_feature_maps,
    classification_accuracy,
    feature_maps,
    feature_reconstruction_error,
    local_statistics,
    patch_ncc,
    reconstruction_error,
)
from geco_ext.functional.models import affine_coupling, gaussian_rsample_kl, lstm_gates

__all__ = [
    "affine_coupling",
    "check_feature_maps",
    "classification_accuracy",
    "feature_maps",
    "feature_reconstruction_error",
    "gaussian_rsample_kl",
    "local_statistics",
    "lstm_gates",
    "patch_ncc",
    "reconstruction_error",
]
