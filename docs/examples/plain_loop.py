"""ISE's loss in your own loop: pseudo labels and a memory every epoch, the loss and an update every iteration."""

import torch
from torch.nn.functional import normalize

from ise_fast import ops
from ise_fast.methods import cluster_centroids
from ise_fast.nn import ClusterMemory, ISELoss

torch.manual_seed(0)
people = torch.randn(20, 32)
images = people.repeat_interleave(12, dim=0) + 0.6 * torch.randn(240, 32)  # stand in for images
network = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
memory, criterion = ClusterMemory(num_features=16), ISELoss(k=1)

epochs, iterations = 3, 10
for epoch in range(epochs):
    with torch.no_grad():
        features = normalize(network(images))
    labels = ops.dbscan(ops.jaccard_graph(features, 12, 3, eps=0.6), 0.6, min_samples=4).labels
    memory.reset(cluster_centroids(features, labels))
    kept = torch.nonzero(labels >= 0)[:, 0]  # outliers are not trained on
    for iteration in range(iterations):
        batch = kept[torch.randperm(len(kept))[:64]]
        embedded = normalize(network(images[batch]))
        progress = (epoch * iterations + iteration) / (epochs * iterations)
        out = criterion(embedded, labels[batch], memory, progress)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        memory.update(embedded.detach(), labels[batch], supports=out.supports)
    print(f"epoch {epoch + 1}: {int(labels.max()) + 1} clusters, loss {out.loss.item():.3f}")
