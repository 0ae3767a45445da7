"""The constraints of Table 1 of "Taming VAEs", and the base of a user's own."""

from geco_ext.constraints.absolute import AbsoluteError
from geco_ext.constraints.base import Constraint
from geco_ext.constraints.classification import ClassificationAccuracy
from geco_ext.constraints.feature import FeatureReconstructionError
from geco_ext.constraints.patch import LocalStatistics, PatchNCC
from geco_ext.constraints.reconstruction import ReconstructionError
from geco_ext.constraints.similarity import StructuralSimilarity

__all__ = [
    "AbsoluteError",
    "ClassificationAccuracy",
    "Constraint",
    "FeatureReconstructionError",
    "LocalStatistics",
    "PatchNCC",
    "ReconstructionError",
    "StructuralSimilarity",
]
