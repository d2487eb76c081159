"""Modules of the training loop: memory, losses, normalisation and pooling."""

from ise_fast.nn.cluster_memory import ClusterMemory
from ise_fast.nn.cycle_association import CycleAssociationLoss
from ise_fast.nn.ghost_batch_norm import GhostBatchNorm1d, GhostBatchNorm2d, convert_ghost_batch_norm
from ise_fast.nn.instance_memory import InstanceMemory
from ise_fast.nn.losses import ClusterNCELoss, ISELoss
from ise_fast.nn.pooling import AveragePooling, GeMPooling
from ise_fast.nn.proxy_memory import ProxyMemory

__all__ = [
    "AveragePooling",
    "ClusterMemory",
    "ClusterNCELoss",
    "CycleAssociationLoss",
    "GeMPooling",
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "ISELoss",
    "InstanceMemory",
    "ProxyMemory",
    "convert_ghost_batch_norm",
]
