"""`build_model`: the name of an architecture to an embedding network."""

from __future__ import annotations

from torch import nn

from ise_fast.models import pretrained as weights
from ise_fast.models.backbones import output_shape, own_backbone, timm_backbone, torchvision_backbone
from ise_fast.models.embedding import EmbeddingNet
from ise_fast.models.small import small_backbone


def build_model(
    arch: str = "small",
    *,
    pretrained: str = "none",
    pooling: str = "avg",
    num_features: int = 0,
    norm: bool = True,
    last_stride: int = 1,
    size: tuple[int, int] | None = None,
    parts: int = 0,
) -> EmbeddingNet:
    """Make an embedding network: backbone, pooling, BatchNorm neck, L2.

    New weights come from PyTorch's global generator: `torch.manual_seed` before the call decides them.

    Args:
        arch: "small" (for images of about 64 x 32, no torchvision needed); the torchvision name of a ResNet,
            ResNeXt, ConvNeXt, DenseNet, EfficientNet, MNASNet, MobileNet, RegNet, ShuffleNet, SqueezeNet, Swin, VGG
            or AlexNet; "timm:NAME" for any network of the package timm; or "package.module:FUNCTION", which is called
            without arguments and returns a module that gives [B, C, h, w], [B, N, C] or [B, C] for images [B, 3, H, W].
        pretrained: "none"; "imagenet" for torchvision's IMAGENET1K_V1 weights, read from torch.hub's cache and never
            downloaded; or the path of a checkpoint of this package or of the bare backbone.
        pooling: "avg" or "gem".
        num_features: size of the embedding; 0 takes the backbone's (ResNet-50: 2,048, small: 128).
        norm: L2-normalise the output.
        last_stride: stride of the last stage of a ResNet: 1 keeps twice the resolution, as re-identification does;
            2 is the classifier's. Other architectures have no such switch.
        size: (height, width) of the images, for networks that are bound to one; default: 64 x 64.
        parts: horizontal parts of the image that have features of their own; see `EmbeddingNet`.

    Raises:
        ValueError: an argument is none of these, or a checkpoint does not fit the architecture.
        FileNotFoundError: a weight file is missing; the message says where to get it and where to put it.
        ImportError: torchvision is needed and missing.
    """
    if last_stride not in (1, 2):
        raise ValueError(f"last_stride: expected 1 or 2, got {last_stride}")
    if arch == "small" and pretrained == "imagenet":
        raise ValueError("pretrained: 'small' has no ImageNet weights; expected none or a path, got 'imagenet'")
    size = size or (64, 64)
    if arch == "small":
        backbone: nn.Module = small_backbone()
    elif arch.startswith("timm:"):
        backbone = timm_backbone(arch.removeprefix("timm:"), pretrained, size)
    elif ":" in arch:
        backbone = own_backbone(arch, pretrained)
    else:
        backbone = torchvision_backbone(arch, pretrained, last_stride)
    shape = output_shape(backbone, size if ":" in arch else (64, 64))
    if len(shape) == 2 and pooling != "avg":
        raise ValueError(f"pooling: {arch} pools its features itself, so expected avg, got {pooling!r}")
    channels = shape[2] if len(shape) == 3 else shape[1]
    model = EmbeddingNet(backbone, channels, pooling=pooling, num_features=num_features, norm=norm, parts=parts)
    if pretrained not in ("none", "imagenet"):
        weights.load(model, pretrained)
    return model
