"""Ways to train without labels: where pseudo labels come from, what is remembered, what the loss is.

A method is one file: its settings, memory, objective and source. The trainer knows none by name. Nothing here imports
the engine.
"""

from ise_fast.methods.centroids import Centroids, cluster_centroids
from ise_fast.methods.interface import Labeller, LabelSource, Memory, Method, Objective, flag
from ise_fast.methods.records import Batch, LossOutput, Mix, Need, NoLabels, PseudoLabels
from ise_fast.methods.registry import (
    LABELS,
    METHODS,
    find_labels,
    find_method,
    read_settings,
    register_labels,
    register_method,
)
from ise_fast.methods.tracklets import follow_tracklets

__all__ = [
    "LABELS",
    "METHODS",
    "Batch",
    "Centroids",
    "LabelSource",
    "Labeller",
    "LossOutput",
    "Memory",
    "Method",
    "Mix",
    "Need",
    "NoLabels",
    "Objective",
    "PseudoLabels",
    "cluster_centroids",
    "find_labels",
    "find_method",
    "flag",
    "follow_tracklets",
    "read_settings",
    "register_labels",
    "register_method",
]
