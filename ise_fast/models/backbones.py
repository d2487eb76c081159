"""Backbones by name: of torchvision, of timm, or made by a function of the user."""

from __future__ import annotations

import difflib
import importlib
import logging

import torch
from torch import nn

from ise_fast.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ise_fast.models import pretrained as weights

log = logging.getLogger(__name__)

# Families of torchvision classifiers whose children, up to the first of HEADS, run one after the other and give a
# feature map at any image size. (Vision transformers and MaxViT are bound to one image size; GoogLeNet and Inception
# have side branches.)
FAMILIES = (
    *("resnet", "resnext", "wide_resnet", "convnext", "densenet", "efficientnet", "mnasnet", "mobilenet", "regnet"),
    *("shufflenet", "squeezenet", "swin", "vgg", "alexnet"),
)
HEADS = {"avgpool", "classifier", "fc", "head"}


def torchvision_backbone(arch: str, pretrained: str, last_stride: int) -> nn.Sequential:
    """The classifier of that name up to its head."""
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
            "arch: expected small, the name of a convolutional torchvision network, timm:NAME or "
            f"package.module:FUNCTION, got {arch!r}; {hint}"
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


def timm_backbone(name: str, pretrained: str, size: tuple[int, int]) -> nn.Module:
    """A network of timm: a convolutional one up to its map, any other with the pooling that it was trained with.

    Args:
        name: as timm calls it.
        pretrained: as in `build_model`; weights are not loaded here.
        size: (height, width) of the images; a transformer interpolates its positions to it.

    Raises:
        ImportError: without timm.
        ValueError: timm has no such network, or it does not take images of that size.
    """
    try:
        import timm
    except ImportError:
        raise ImportError(f"arch 'timm:{name}' needs the package timm (pip install timm)") from None
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise ValueError(f"arch: timm has no network {name!r}; {hint}")
    if pretrained == "imagenet":
        raise ValueError(
            f"pretrained: expected none or a path for timm:{name}, got 'imagenet', since nothing here downloads; "
            f"make a file: torch.save(timm.create_model({name!r}, pretrained=True).state_dict(), FILE)"
        )
    why: Exception | None = None
    for options in ({}, {"dynamic_img_size": True}, {"img_size": size}):  # what transformers need, by kind
        try:
            net: nn.Module = timm.create_model(name, num_classes=0, global_pool="", **options)
            shape = _shape(net, size)
        except (TypeError, AssertionError, RuntimeError, ValueError) as error:
            why = error if why is None else why
            continue
        if len(shape) != 4 or getattr(net, "output_fmt", "NCHW") != "NCHW":
            net = timm.create_model(name, num_classes=0, **options)
        _warn_of_other_colours(net, name, pretrained)
        return net
    raise ValueError(f"arch: timm:{name} does not take images of {size[0]} x {size[1]} ({_line(why)})")


def own_backbone(place: str, pretrained: str) -> nn.Module:
    """What the function at package.module:FUNCTION returns.

    Raises:
        ValueError: it cannot be loaded or called, or returns no network.
    """
    module, _, function = place.partition(":")
    try:
        net = getattr(importlib.import_module(module), function)()
    except (Exception, SystemExit) as error:  # code of others may fail in any way
        raise ValueError(f"arch: {place} cannot be called ({type(error).__name__}: {_line(error)})") from error
    if not isinstance(net, nn.Module):
        raise ValueError(f"arch: expected {place} to return a torch.nn.Module, got {type(net).__name__}")
    if pretrained == "imagenet":
        raise ValueError(
            f"pretrained: expected none or a path for {place}, which may load weights itself, got 'imagenet'"
        )
    return net


def output_shape(backbone: nn.Module, size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of what one blank image gives.

    Raises:
        ValueError: if it is no tensor of 2 to 4 dimensions, or the network does not take such an image.
    """
    try:
        shape = _shape(backbone, size)
    except Exception as error:  # code of others may fail in any way
        why = f"{type(error).__name__}: {_line(error)}"
        raise ValueError(f"arch: the network does not take images of {size[0]} x {size[1]} ({why})") from error
    if shape[:1] != (1,) or len(shape) not in (2, 3, 4):
        raise ValueError(f"arch: expected an output [B, C], [B, N, C] or [B, C, h, w], got {shape} for one image")
    return shape


def _shape(backbone: nn.Module, size: tuple[int, int]) -> tuple[int, ...]:
    training = backbone.training
    backbone.eval()  # leaves running statistics alone
    with torch.no_grad():
        out = backbone(torch.zeros(1, 3, *size))
    backbone.train(training)
    if not isinstance(out, torch.Tensor):
        raise TypeError(f"expected a tensor, got {type(out).__name__}")
    return tuple(out.shape)


def _warn_of_other_colours(net: nn.Module, name: str, pretrained: str) -> None:
    config = getattr(net, "default_cfg", {})
    mean, std = tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD))
    if pretrained != "none" and (mean, std) != (tuple(IMAGENET_MEAN), tuple(IMAGENET_STD)):
        log.warning(
            "timm:%s was trained on images of mean %s and deviation %s; here they are ImageNet's", name, mean, std
        )


def _line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
