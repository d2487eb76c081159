"""Images to unit vectors: backbone, pooling, an optional linear layer, the BatchNorm neck, L2."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ise_fast.nn.pooling import POOLINGS


class NoReLU(nn.Module):
    """In the place of a ReLU that the published network does not have; its buffer tells a checkpoint so."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("absent", torch.tensor(True))

    def forward(self, x: Tensor) -> Tensor:
        return x


class EmbeddingNet(nn.Module):
    """A backbone turned into an embedding network.

    Between pooling and L2 sits the *BatchNorm neck* (Luo et al. 2019, "Bag of tricks"): one BatchNorm1d whose bias is
    frozen at zero, so that the features stay centred around the origin, where the cosine compares them.

    Args:
        backbone: images [B, 3, H, W] to a feature map [B, C, h, w], tokens [B, N, C], which are pooled alike, or
            vectors [B, C], which are taken as they are.
        channels: C.
        pooling: "avg" or "gem".
        num_features: 0 embeds in the C dimensions of the backbone; otherwise a linear layer maps to this many.
        norm: L2-normalise the output.
        parts: horizontal parts of the feature map, from top to bottom, that have necks of their own.

    Shape:
        [B, 3, H, W] to [B, `num_features`], float32 also under autocast; to [B, (1 + parts) `num_features`] while the
        attribute `gives_parts` is set: the whole image, then each part. The attribute `num_features` is the size of
        an embedding, whether or not there is a linear layer.

    Raises:
        ValueError: if `pooling` is unknown or `num_features` negative.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        *,
        pooling: str = "avg",
        num_features: int = 0,
        norm: bool = True,
        parts: int = 0,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: expected one of {', '.join(POOLINGS)}, got {pooling!r}")
        if num_features < 0:
            raise ValueError(f"num_features: expected 0 (size of the backbone) or more, got {num_features}")
        if parts < 0:
            raise ValueError(f"parts: expected 0 or more, got {parts}")
        self.num_features = num_features or channels
        self.norm = norm
        self.backbone = backbone
        self.pooling = POOLINGS[pooling]()
        self.embedding = nn.Linear(channels, num_features) if num_features else nn.Identity()
        self.neck = nn.BatchNorm1d(self.num_features)
        self.part_necks = nn.ModuleList(nn.BatchNorm1d(self.num_features) for _ in range(parts))
        for neck in (self.neck, *self.part_necks):
            neck.bias.requires_grad_(False)
        self.gives_parts = False
        if isinstance(self.embedding, nn.Linear):
            nn.init.kaiming_normal_(self.embedding.weight, mode="fan_out")
            nn.init.zeros_(self.embedding.bias)
        self.register_load_state_dict_pre_hook(_leave_out_relu_as_saved)

    def leave_out_relu(self) -> None:
        """Take the ReLU in front of the first pooling of a ResNet away, as SpCL and programs built on it do."""
        device = next(self.parameters()).device
        self.backbone.add_module("relu", NoReLU().to(device))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(images)
        whole = self._embed(maps, self.neck)
        if not self.gives_parts:
            return whole
        parts = len(self.part_necks)
        if maps.dim() != 4 or maps.shape[2] < parts:
            found = (
                f"the {maps.shape[2]} rows of the feature map" if maps.dim() == 4 else "0 for a network without a map"
            )
            raise ValueError(f"parts: expected at most {found}, got {parts}")
        stripes = zip(maps.tensor_split(parts, dim=2), self.part_necks, strict=True)
        return torch.cat([whole, *(self._embed(stripe, neck) for stripe, neck in stripes)], dim=1)

    def _embed(self, maps: Tensor, neck: nn.Module) -> Tensor:
        if maps.dim() == 3:
            maps = maps.transpose(1, 2)[..., None]  # tokens as a map of one column
        pooled = self.embedding(maps if maps.dim() == 2 else self.pooling(maps))
        # The neck and the norm see float32: half precision here would cost the distances a digit and save nothing.
        with torch.autocast(maps.device.type, enabled=False):
            features: Tensor = neck(pooled.float())
            return F.normalize(features) if self.norm else features


def _leave_out_relu_as_saved(module: nn.Module, state: dict[str, Any], *arguments: object) -> None:
    if isinstance(module, EmbeddingNet) and "backbone.relu.absent" in state:
        module.leave_out_relu()
