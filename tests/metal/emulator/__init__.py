"""Runs Metal kernels on a CPU, from the very source that MLX generates."""
