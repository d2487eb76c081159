"""Weights from files that are already there; nothing in this package downloads."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

HEAD_PREFIXES = ("fc.", "classifier.", "head.")  # what a classifier's checkpoint has and an embedding does not
WRAPPERS = ("model", "state_dict")  # keys under which checkpoints keep the weights
# DataParallel and torch.compile leave these in front of a name; "base." is how older re-ID code calls its backbone.
PREFIXES = ("module.", "_orig_mod.", "backbone.", "base.")


def imagenet(available: Any) -> Any:
    """torchvision's IMAGENET1K_V1 entry of an architecture, if its file lies in torch.hub's cache.

    V1 because the published results of this field start from it (of ResNet-50, V2 is another training recipe).

    Raises:
        ValueError: the architecture has no such weights.
        FileNotFoundError: the file is missing.
    """
    if "IMAGENET1K_V1" not in available.__members__:
        raise ValueError(f"pretrained: torchvision has no IMAGENET1K_V1 weights for {available.__name__}")
    chosen = available["IMAGENET1K_V1"]
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(chosen.url).path).name
    if not path.is_file():
        raise FileNotFoundError(
            f"pretrained: no ImageNet weights at {path}. Put torchvision's {path.name} there "
            f"(from {chosen.url}), set TORCH_HOME to a folder that has hub/checkpoints/{path.name}, or choose "
            "--pretrained none or a path"
        )
    return chosen


def load(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint into an `EmbeddingNet`: of the whole network, or of its backbone alone.

    Prefixes that DataParallel, torch.compile and other re-ID programs put in front of names are taken off; the head of
    a classifier is ignored. With a backbone alone, the layers after it keep their fresh weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no weights, or they do not fit the architecture.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"pretrained: expected none, imagenet or the path of a checkpoint, found no file {path}"
        )
    state = _read(path)
    if model.state_dict().keys() <= state.keys():
        target = model
    else:
        target = model.get_submodule("backbone")
        state = {_strip(name): value for name, value in state.items()}
    wanted = target.state_dict()
    wrong = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
    if wrong:
        found = {name: tuple(state[name].shape) for name in wrong if name in state}
        raise ValueError(
            f"pretrained: {path} does not fit the architecture: {len(wrong)} of {len(wanted)} tensors are missing or "
            f"have another shape ({_some(wrong)}; it has {_some(map(str, (found or list(state))))})"
        )
    target.load_state_dict({name: state[name] for name in wanted})


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(f"pretrained: cannot read {path} as a checkpoint: {str(error).splitlines()[0]}") from error
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    state = {}
    if isinstance(content, dict):
        state = {_strip(name, PREFIXES[:2]): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"pretrained: {path} holds no weights: expected a state dict, bare or under {WRAPPERS}")
    return state


def _strip(name: str, prefixes: Iterable[str] = PREFIXES) -> str:
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return name


def _some(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
