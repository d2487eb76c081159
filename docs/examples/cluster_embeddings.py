"""Cluster embeddings, compare radii, and give new rows a label."""

import numpy as np
import torch
from sklearn.cluster import OPTICS

from ise_fast import ops
from ise_fast.cluster import DBSCAN, JaccardDBSCAN

random = np.random.default_rng(0)
centres = random.normal(size=(50, 64))
x = centres[random.integers(0, 50, 2000)] + 0.3 * random.normal(size=(2000, 64))
x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)  # unit rows, as embeddings are

labels = JaccardDBSCAN(eps=0.6, min_samples=4).fit_predict(x)
print(f"jaccard: {labels.max() + 1} clusters, {(labels < 0).sum()} outliers")

# scikit-learn's labels from the same call, without its N x N matrix
labels = DBSCAN(eps=0.5, min_samples=5, metric="cosine").fit_predict(x)
print(f"cosine: {labels.max() + 1} clusters, {(labels < 0).sum()} outliers")

# Several radii cost one search: the graph of the largest holds the others.
radii = [0.4, 0.5, 0.6, 0.7]
for eps, found in zip(radii, JaccardDBSCAN().eps_path(x, radii), strict=True):
    print(f"eps {eps}: {found.max() + 1} clusters, {(found < 0).sum()} outliers")

# New rows get the label of the nearest core sample within eps, or -1.
clusters = JaccardDBSCAN(eps=0.6).fit(x[:1900])
print(f"new rows: {(clusters.predict(x[1900:]) >= 0).sum()} of 100 belong to a cluster")

# The graph goes into the clusterings of others.
graph = ops.jaccard_graph(torch.from_numpy(x[:500]), eps=0.9)
optics = OPTICS(min_samples=4, metric="precomputed").fit(graph.to_scipy())
print(f"OPTICS: {optics.labels_.max() + 1} clusters of the first 500 rows")
