"""The operators: torch tensors in and out, CPU or CUDA. Compiled where a kernel has landed, else the reference."""

from ise_fast.ops.supports import nearest_centroids

__all__ = ["nearest_centroids"]
