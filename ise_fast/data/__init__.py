"""Data sets, the P x K sampler and SpCL's, decoded images and batch augmentation."""

from .base import DatasetError, DatasetWarning, ReIDDataset, Split, UnlabelledSplit
from .decode import read_image
from .images import ImageStore, open_images
from .registry import DATASETS, load_dataset
from .sampler import PKSampler
from .singles_sampler import SinglesSampler
from .synthetic import SyntheticSpec, generate_synthetic
from .transforms import AugmentParameters, BatchAugment, normalize

__all__ = [
    "DATASETS",
    "AugmentParameters",
    "BatchAugment",
    "DatasetError",
    "DatasetWarning",
    "ImageStore",
    "PKSampler",
    "ReIDDataset",
    "SinglesSampler",
    "Split",
    "SyntheticSpec",
    "UnlabelledSplit",
    "generate_synthetic",
    "load_dataset",
    "normalize",
    "open_images",
    "read_image",
]
