"""Weights from files that are already there; nothing in this package downloads."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from ise_fast.models.embedding import EmbeddingNet
from ise_fast.models.layouts import Fit, Tensors, embedding_of, fit
from ise_fast.models.weight_file import read_weights

log = logging.getLogger(__name__)


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


def load(model: EmbeddingNet, path: str | Path) -> None:
    """Load weights of this or another program: of the whole network, or of its backbone and what else fits.

    `layouts` lists the names that are understood. The head of a classifier is ignored; a warning counts every other
    tensor that was left out. What the file does not hold keeps its fresh weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no weights, or they do not fit the architecture.
    """
    path = find(path)
    found = _best_fit(model, read_weights(path))
    wanted = model.state_dict()
    if found.wrong:
        shapes = [str(shape) for shape in found.wrong.values() if shape is not None]
        raise ValueError(
            f"pretrained: {path} does not fit the architecture: {len(found.wrong)} of "
            f"{len(model.backbone.state_dict())} tensors are missing or have another shape "
            f"({_some(list(found.wrong))}; it has {_some(shapes or found.left_out)})"
        )
    broken = [name for name, value in found.tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f"pretrained: {path} holds NaN or infinity in {len(broken)} tensors ({_some(broken)})")
    if found.without_relu:
        model.leave_out_relu()
        log.info("%s: its network has no ReLU before the first pooling; this one has none either", path)
    model.load_state_dict({**wanted, **found.tensors}, strict=False)
    if found.left_out:
        log.warning(
            "pretrained: %d tensors of %s were left out: %s", len(found.left_out), path, _some(found.left_out, 5)
        )


def embedding_options(path: str | Path) -> dict[str, Any]:
    """Pooling and size of the embedding that a weight file speaks of, as arguments of `build_model`.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    for state in read_weights(find(path)):
        options = embedding_of(state)
        if options:
            return options
    return {}


def find(path: str | Path) -> Path:
    """The weight file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"pretrained: expected none, imagenet or the path of a checkpoint, found no file {path}"
        )
    return path


def _best_fit(model: EmbeddingNet, states: Iterable[Tensors]) -> Fit:
    """The first dictionary of the file that fits, or else the one that lacks the fewest tensors."""
    best: Fit | None = None
    for state in states:
        found = fit(model, state)
        if best is None or len(found.wrong) < len(best.wrong):
            best = found
        if not best.wrong:
            break
    assert best is not None  # read_weights finds one dictionary at least
    return best


def _some(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
