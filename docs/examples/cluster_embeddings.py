"""Cluster embeddings, compare radii, and give new rows a label."""

import numpy as np

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
import torch  # noqa: E402

graph = ops.jaccard_graph(torch.from_numpy(x), eps=0.7)
for eps in (0.4, 0.5, 0.6, 0.7):
    found = ops.dbscan(graph, eps, min_samples=4).labels
    print(f"eps {eps}: {int(found.max()) + 1} clusters, {int((found < 0).sum())} outliers")
