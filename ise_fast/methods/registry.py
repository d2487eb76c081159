"""Methods and label sources by name, and those of others by the place where they are."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, TypeVar

from ise_fast._words import hint
from ise_fast.methods.bottom_up_labels import BOTTOM_UP
from ise_fast.methods.buc import BUC
from ise_fast.methods.cap import CAP
from ise_fast.methods.cluster_contrast import CLUSTER_CONTRAST
from ise_fast.methods.cycas import CYCAS
from ise_fast.methods.dbscan_labels import DBSCAN
from ise_fast.methods.frame_labels import BY_FRAME
from ise_fast.methods.infomap_labels import INFOMAP
from ise_fast.methods.instance_labels import INSTANCES
from ise_fast.methods.interface import LabelSource, Method
from ise_fast.methods.ise import ISE
from ise_fast.methods.ise_cap import ISE_CAP
from ise_fast.methods.ise_spcl import ISE_SPCL
from ise_fast.methods.kmeans_labels import KMEANS
from ise_fast.methods.mmcl import MMCL
from ise_fast.methods.pplr import PPLR
from ise_fast.methods.self_paced_labels import SELF_PACED
from ise_fast.methods.similar_labels import SIMILAR
from ise_fast.methods.softsim import SOFTSIM
from ise_fast.methods.spcl import SPCL

EntryT = TypeVar("EntryT", Method, LabelSource)

METHODS: dict[str, Method] = {
    "ise": ISE,
    "cluster-contrast": CLUSTER_CONTRAST,
    "spcl": SPCL,
    "cap": CAP,
    "mmcl": MMCL,
    "buc": BUC,
    "softsim": SOFTSIM,
    "pplr": PPLR,
    "cycas": CYCAS,
    "ise-spcl": ISE_SPCL,
    "ise-cap": ISE_CAP,
}
LABELS: dict[str, LabelSource] = {
    "dbscan": DBSCAN,
    "kmeans": KMEANS,
    "self-paced": SELF_PACED,
    "infomap": INFOMAP,
    "bottom-up": BOTTOM_UP,
    "similar": SIMILAR,
    "instances": INSTANCES,
    "by-frame": BY_FRAME,
}


def register_method(name: str, method: Method) -> None:
    """Make a method known to `--method`, before `ise_fast.train.main` is called.

    Raises:
        TypeError: if it is no Method.
        ValueError: if the name is taken by another one.
    """
    _register(METHODS, Method, name, method)


def register_labels(name: str, source: LabelSource) -> None:
    """Make a source of labels known to `--labels`, as `register_method`."""
    _register(LABELS, LabelSource, name, source)


def find_method(name: str) -> Method:
    """The method of that name, or the one at package.module:NAME.

    Raises:
        ValueError: if there is none.
    """
    return _find("--method", METHODS, Method, name)


def find_labels(name: str) -> LabelSource:
    """The source of labels of that name, or the one at package.module:NAME.

    Raises:
        ValueError: if there is none.
    """
    return _find("--labels", LABELS, LabelSource, name)


def read_settings(settings: type, flat: Mapping[str, Any]) -> Any:
    """An instance of the settings of an entry from all settings by name."""
    return settings(**{item.name: flat[item.name] for item in dataclasses.fields(settings)})


def _register(entries: dict[str, EntryT], kind: type[EntryT], name: str, entry: EntryT) -> None:
    if not isinstance(entry, kind):
        raise TypeError(f"{name}: expected a {kind.__name__}, got {type(entry).__name__}")
    if entries.get(name, entry) is not entry:
        raise ValueError(f"name: expected one that is not taken, got {name!r}")
    entries[name] = entry


def _find(flag: str, entries: Mapping[str, EntryT], kind: type[EntryT], name: str) -> EntryT:
    if name in entries:
        return entries[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(
            f"{flag}: expected one of {', '.join(entries)}, or package.module:NAME, got {name!r}{hint(name, entries)}"
        )
    try:
        entry = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # a module of others may fail in any way
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{flag}: {name} cannot be loaded ({why})") from error
    if not isinstance(entry, kind):
        raise ValueError(f"{flag}: expected {name} to be a {kind.__name__}, got {type(entry).__name__}")
    _check_settings(flag, name, entry.settings)
    return entry


def _check_settings(flag: str, name: str, settings: type) -> None:
    if not isinstance(settings, type) or not dataclasses.is_dataclass(settings):
        raise ValueError(f"{flag}: expected the settings of {name} to be a dataclass, got {settings!r}")
    for item in dataclasses.fields(settings):
        if item.default is dataclasses.MISSING:
            raise ValueError(f"{flag}: expected a default of {item.name} in the settings of {name}, got none")
