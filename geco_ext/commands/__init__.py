"""The sub-commands of `geco`, one module each."""
