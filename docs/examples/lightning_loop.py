"""The same in Lightning: the memory moves after the optimiser, so the module steps by hand."""

import lightning
import torch
from torch.nn.functional import normalize

from ise_fast import ops
from ise_fast.methods import cluster_centroids
from ise_fast.nn import ClusterMemory, ISELoss


class ISE(lightning.LightningModule):
    def __init__(self, network: torch.nn.Module, num_features: int, images: torch.Tensor) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.images = network, images
        self.memory, self.criterion = ClusterMemory(num_features), ISELoss(k=1)

    def on_train_epoch_start(self) -> None:
        with torch.no_grad():
            features = normalize(self.network(self.images.to(self.device)))
        graph = ops.jaccard_graph(features, 12, 3, eps=0.6)
        self.labels = ops.dbscan(graph, 0.6, min_samples=4).labels
        self.memory.reset(cluster_centroids(features, self.labels))

    def training_step(self, batch: list[torch.Tensor]) -> None:
        (index,) = batch
        index = index[self.labels[index] >= 0]  # outliers are not trained on
        features = normalize(self.network(self.images[index.cpu()].to(self.device)))
        progress = self.global_step / self.trainer.estimated_stepping_batches
        out = self.criterion(features, self.labels[index], self.memory, progress)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(out.loss)
        optimizer.step()
        self.memory.update(features.detach(), self.labels[index], supports=out.supports)
        self.log("loss", out.loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), lr=1e-3)


if __name__ == "__main__":
    images = torch.randn(20, 32).repeat_interleave(12, dim=0) + 0.6 * torch.randn(240, 32)
    network = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16))
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(240)), 64, shuffle=True)
    trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(ISE(network, 16, images), batches)
    print(f"loss of the last batch: {float(trainer.callback_metrics['loss']):.3f}")
