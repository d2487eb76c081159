"""Data sets by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ise_fast._words import hint

from .base import DatasetError, ReIDDataset
from .folder import load_folder
from .market import MARKET1501, PERSONX, VERI776, load_market_layout
from .msmt17 import load_msmt17
from .omniglot import load_omniglot
from .synthetic import load_synthetic

DATASETS: dict[str, Callable[..., ReIDDataset]] = {
    "market1501": partial(load_market_layout, layout=MARKET1501),
    "msmt17": load_msmt17,
    "personx": partial(load_market_layout, layout=PERSONX),
    "veri776": partial(load_market_layout, layout=VERI776),
    "folder": load_folder,
    "omniglot": load_omniglot,
    "synthetic": load_synthetic,
}


def load_dataset(name: str, data_dir: Path | str, **options: Any) -> ReIDDataset:
    """Load a data set by name.

    Args:
        name: a key of `DATASETS`.
        data_dir: the data root (`--data-dir`), or the folder of the data set itself.
        options: of the loader, such as `pattern` for folder or `seed` for synthetic.

    Raises:
        DatasetError: for an unknown name or option, a missing folder, or a layout that is not the expected one.
    """
    if name not in DATASETS:
        raise DatasetError(f"dataset: expected one of {', '.join(DATASETS)}, got {name!r}{hint(name, DATASETS)}")
    loader = DATASETS[name]
    parameters = [p for p in inspect.signature(loader).parameters.values() if p.name not in ("data_dir", "layout")]
    known = [p.name for p in parameters]
    unknown = [option for option in options if option not in known]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise DatasetError(f"{name}: unknown option {unknown[0]}; expected {', '.join(known) or 'none'}")
    return loader(Path(os.path.expanduser(data_dir)), **options)
