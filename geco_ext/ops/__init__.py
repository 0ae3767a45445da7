"""The operators under autograd and declared to PyTorch, and which backend serves a call."""
