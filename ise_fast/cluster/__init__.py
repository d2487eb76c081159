"""Clustering estimators in the manner of scikit-learn, for NumPy arrays, torch tensors and CuPy arrays.

They need scikit-learn: pip install "ise_fast[cluster]".
"""

from ise_fast.cluster.bottom_up import BottomUp
from ise_fast.cluster.dbscan import DBSCAN
from ise_fast.cluster.infomap import Infomap
from ise_fast.cluster.jaccard_dbscan import JaccardDBSCAN
from ise_fast.cluster.kmeans import KMeans
from ise_fast.cluster.self_paced_dbscan import SelfPacedDBSCAN

__all__ = ["DBSCAN", "BottomUp", "Infomap", "JaccardDBSCAN", "KMeans", "SelfPacedDBSCAN"]
