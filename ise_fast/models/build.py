"""`build_model`: the name of an architecture to an embedding network."""

from __future__ import annotations

import difflib

import torch
from torch import nn

from ise_fast.models import pretrained as weights
from ise_fast.models.embedding import EmbeddingNet
from ise_fast.models.small import small_backbone

# Families of torchvision classifiers whose children, up to the first of HEADS, run one after the other and give a
# feature map at any image size. (Vision transformers and MaxViT are bound to one image size; GoogLeNet and Inception
# have side branches.)
FAMILIES = (
    *("resnet", "resnext", "wide_resnet", "convnext", "densenet", "efficientnet", "mnasnet", "mobilenet", "regnet"),
    *("shufflenet", "squeezenet", "swin", "vgg", "alexnet"),
)
HEADS = {"avgpool", "classifier", "fc", "head"}


def build_model(
    arch: str = "small",
    *,
    pretrained: str = "none",
    pooling: str = "avg",
    num_features: int = 0,
    norm: bool = True,
    last_stride: int = 1,
) -> EmbeddingNet:
    """Make an embedding network: backbone, pooling, BatchNorm neck, L2.

    New weights come from PyTorch's global generator: `torch.manual_seed` before the call decides them.

    Args:
        arch: "small" (for images of about 64 x 32, no torchvision needed) or the torchvision name of a ResNet,
            ResNeXt, ConvNeXt, DenseNet, EfficientNet, MNASNet, MobileNet, RegNet, ShuffleNet, SqueezeNet, Swin, VGG
            or AlexNet.
        pretrained: "none"; "imagenet" for torchvision's IMAGENET1K_V1 weights, read from torch.hub's cache and never
            downloaded; or the path of a checkpoint of this package or of the bare backbone.
        pooling: "avg" or "gem".
        num_features: size of the embedding; 0 takes the backbone's (ResNet-50: 2,048, small: 128).
        norm: L2-normalise the output.
        last_stride: stride of the last stage of a ResNet: 1 keeps twice the resolution, as re-identification does;
            2 is the classifier's. Other architectures have no such switch.

    Raises:
        ValueError: an argument is none of these, or a checkpoint does not fit the architecture.
        FileNotFoundError: a weight file is missing; the message says where to get it and where to put it.
        ImportError: torchvision is needed and missing.
    """
    if last_stride not in (1, 2):
        raise ValueError(f"last_stride: expected 1 or 2, got {last_stride}")
    if arch == "small" and pretrained == "imagenet":
        raise ValueError("pretrained: 'small' has no ImageNet weights; expected none or a path, got 'imagenet'")
    backbone = small_backbone() if arch == "small" else _torchvision_backbone(arch, pretrained, last_stride)
    model = EmbeddingNet(backbone, _channels(backbone), pooling=pooling, num_features=num_features, norm=norm)
    if pretrained not in ("none", "imagenet"):
        weights.load(model, pretrained)
    return model


def _torchvision_backbone(arch: str, pretrained: str, last_stride: int) -> nn.Sequential:
    if "ibn" in arch:
        raise ValueError(f"arch: neither torchvision nor a maintained package on PyPI has IBN networks, got {arch!r}")
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch raises RuntimeError
        raise ImportError(f"arch {arch!r} needs a torchvision that fits torch {torch.__version__}: {error}") from error
    known = [name for name in models.list_models(module=models) if name.startswith(FAMILIES)]
    if arch not in known:
        near = difflib.get_close_matches(arch, ["small", *known], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"torchvision's are {', '.join(known)}"
        raise ValueError(
            f"arch: expected small or the name of a convolutional torchvision network, got {arch!r}; {hint}"
        )
    chosen = weights.imagenet(models.get_model_weights(arch)) if pretrained == "imagenet" else None
    classifier = models.get_model(arch, weights=chosen)

    backbone = nn.Sequential()
    for name, child in classifier.named_children():
        if name in HEADS:
            break
        backbone.add_module(name, child)
    if arch.startswith("densenet"):  # its last ReLU is a line of forward(), not a module
        backbone.add_module("relu", nn.ReLU(inplace=True))
    if last_stride == 1 and hasattr(backbone, "layer4"):
        for module in backbone.get_submodule("layer4").modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    return backbone


def _channels(backbone: nn.Module) -> int:
    """Channels of the feature map, by running one blank image; evaluation mode leaves running statistics alone."""
    backbone.eval()
    with torch.no_grad():
        shape = backbone(torch.zeros(1, 3, 64, 64)).shape
    backbone.train()
    return int(shape[1])
