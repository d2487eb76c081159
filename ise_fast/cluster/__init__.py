"""Clustering estimators in the manner of scikit-learn, for NumPy arrays, torch tensors and CuPy arrays.

They need scikit-learn: pip install "ise_fast[cluster]".
"""

from ise_fast.cluster.dbscan import DBSCAN
from ise_fast.cluster.jaccard_dbscan import JaccardDBSCAN

__all__ = ["DBSCAN", "JaccardDBSCAN"]
