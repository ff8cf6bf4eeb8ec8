"""Kernels in CUDA for arrays of CuPy: fused functions, loops over time."""
