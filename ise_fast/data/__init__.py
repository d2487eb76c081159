"""Data sets, samplers, decoded images and batch augmentation."""

from .base import DatasetError, DatasetWarning, ReIDDataset, Split, UnlabelledSplit, Views
from .decode import read_image
from .frame_sampler import FramePairSampler
from .images import ImageStore, open_images
from .mixing import Mixing, MixParameters
from .registry import DATASETS, load_dataset
from .sampler import PKSampler
from .shuffle_sampler import ShuffleSampler
from .singles_sampler import SinglesSampler
from .synthetic import SyntheticSpec, generate_synthetic
from .transforms import AugmentParameters, BatchAugment, normalize

__all__ = [
    "DATASETS",
    "AugmentParameters",
    "BatchAugment",
    "DatasetError",
    "DatasetWarning",
    "FramePairSampler",
    "ImageStore",
    "MixParameters",
    "Mixing",
    "PKSampler",
    "ReIDDataset",
    "ShuffleSampler",
    "SinglesSampler",
    "Split",
    "SyntheticSpec",
    "UnlabelledSplit",
    "Views",
    "generate_synthetic",
    "load_dataset",
    "normalize",
    "open_images",
    "read_image",
]
