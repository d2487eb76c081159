"""Backbones and the embedding network that the trainer uses."""

from ise_fast.models.build import build_model
from ise_fast.models.embedding import EmbeddingNet

__all__ = ["EmbeddingNet", "build_model"]
