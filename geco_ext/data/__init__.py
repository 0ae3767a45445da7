"""Data sets that fit in memory, as dict items a model and a criterion can use directly."""

from geco_ext.data.images import ImageDataset
from geco_ext.data.registry import command_size, known_names, load

__all__ = ["ImageDataset", "command_size", "known_names", "load"]
