"""The kernels of the triton backend. Importing these imports triton; the backend does so at its first call.

Numbers that must be exact in float64 reach the kernels as integers or as constants: triton passes a Python float as
float32.
"""
