"""How programs name the weights of one and the same network: the only place that knows.

A name is PREFIX + LAYOUT. Any prefix is taken that all names of the backbone share (`module.`, `model.`, `base.`,
`backbone.`, `_orig_mod.`, and whatever comes in front of them). The layouts of the backbone are:

* torchvision's, timm's, torchreid's and fast-reid's names: conv1, bn1, layer1, ...;
* a Sequential, as in Cluster Contrast and ISE: 0, 1, 4, ... (conv1, bn1, relu, maxpool, layer1, ...);
* the same without the ReLU, as in SpCL and MMT: 0, 1, 3, ...;
* other names in the same order, with the same last words and shapes: old releases of torchvision.

What follows the backbone has a handful of names in this field, listed below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Tensors = Mapping[str, Tensor]

NECK = re.compile(r"(.*\.)?(neck|feat_bn|bottleneck(\.0)?|bn_?neck(\.bn|\.0)?)", re.IGNORECASE)
EMBEDDING = re.compile(r"(.*\.)?(embedding|embed|feat|reduction|fc\.0)")
EXPONENT = re.compile(r"(.*\.)?p")  # of GeM pooling
# What a classifier or a training program has and an embedding does not need: left out without a word.
HEAD = re.compile(
    r"(.*\.)?((fc|head|heads)\.(weight|bias)|classifier\w*(\.\d+)?\.(weight|bias)|heads\.(classifier|cls_layer)\.\w+"
    r"|pixel_(mean|std)|num_batches_tracked|relu\.absent)"
)


@dataclass
class Fit:
    """What of a file belongs where.

    Attributes:
        tensors: by the names of our network.
        wrong: names of the backbone that the file lacks or has in another shape, with that shape or None.
        prefix: in front of the backbone's names.
        used: names in the file.
        left_out: names in the file that were not used and are no classifier.
        without_relu: the network of the file has no ReLU in front of its pooling.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    wrong: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    prefix: str = ""
    used: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)
    without_relu: bool = False


def fit(model: nn.Module, state: Tensors) -> Fit:
    """Find the weights of an `EmbeddingNet` in a dictionary of tensors: all of it, or at least the backbone.

    Without the whole backbone, `Fit.wrong` is not empty.
    """
    whole = model.state_dict()
    found = _fit_names({name: name for name in whole}, whole, state)
    if found.wrong:
        found = _fit_backbone(model.get_submodule("backbone"), state)
        if not found.wrong:
            _add_rest(model, state, found)
    found.without_relu |= any(name.endswith("backbone.relu.absent") for name in state)  # saved here, see NoReLU
    found.left_out = [name for name in state if name not in found.used and not HEAD.fullmatch(name)]
    return found


def embedding_of(state: Tensors) -> dict[str, Any]:
    """Arguments of `build_model` that the names tell: GeM has an exponent, an embedding a linear layer and a neck."""
    options: dict[str, Any] = {}
    necks = {
        value.shape for name, value in state.items() if name.endswith(".running_mean") and NECK.fullmatch(name[:-13])
    }
    for name, value in state.items():
        stem, _, last = name.rpartition(".")
        if value.numel() == 1 and EXPONENT.fullmatch(name):
            options["pooling"] = "gem"
        if last == "weight" and value.dim() == 2 and EMBEDDING.fullmatch(stem) and value.shape[:1] in necks:
            options["num_features"] = value.shape[0]
    return options


def _fit_backbone(backbone: nn.Module, state: Tensors) -> Fit:
    wanted = backbone.state_dict()
    best = Fit(wrong=dict.fromkeys(wanted))
    for names, without_relu in _layouts(backbone):
        found = _fit_names(names, wanted, state)
        found.without_relu = without_relu
        if len(found.wrong) < len(best.wrong) or not best.tensors:
            best = found
        if not best.wrong:
            break
    if best.wrong:
        in_order = _fit_in_order(wanted, state)
        best = in_order if in_order is not None else best
    best.tensors = {f"backbone.{name}": value for name, value in best.tensors.items()}
    return best


def _layouts(backbone: nn.Module) -> Iterator[tuple[dict[str, str], bool]]:
    """Our names of the backbone's tensors -> names of a layout; and whether that layout has no ReLU."""
    ours = list(backbone.state_dict())
    yield {name: name for name in ours}, False
    children = [name for name, _ in backbone.named_children()]
    variants = [(children, False)]
    if children[2:3] == ["relu"]:
        variants.append(([name for name in children if name != "relu"], True))
    for listed, without_relu in variants:
        number = {name: str(i) for i, name in enumerate(listed)}
        words = {name: name.split(".") for name in ours}
        yield (
            {name: ".".join([number.get(first, first), *rest]) for name, (first, *rest) in words.items()},
            without_relu,
        )


def _fit_names(names: Mapping[str, str], wanted: Tensors, state: Tensors) -> Fit:
    """The prefix under which most of the names are found with the right shape; the first of equals."""
    best = Fit(wrong=dict.fromkeys(wanted))
    for prefix in _prefixes(names, state):
        found = Fit(prefix=prefix)
        for ours, theirs in names.items():
            value = state.get(prefix + theirs)
            if value is not None and value.shape == wanted[ours].shape:
                found.tensors[ours] = value
                found.used.add(prefix + theirs)
            elif not ours.endswith("num_batches_tracked"):  # old files have none, and nothing here reads it
                found.wrong[ours] = None if value is None else tuple(value.shape)
        if len(found.wrong) < len(best.wrong):
            best = found
    return best


def _prefixes(names: Mapping[str, str], state: Tensors) -> list[str]:
    anchors = [name for name in names.values() if not name.endswith("num_batches_tracked")]
    prefixes: dict[str, None] = {}
    for anchor in (anchors[0], anchors[-1]):
        for name in state:
            if name == anchor or name.endswith("." + anchor):
                prefixes[name.removesuffix(anchor)] = None
    return list(prefixes)


def _fit_in_order(wanted: Tensors, state: Tensors) -> Fit | None:
    """Tensor by tensor, if the last words of the names and the shapes agree all the way."""

    def listed(tensors: Tensors) -> list[tuple[str, Tensor]]:
        return [(name, value) for name, value in tensors.items() if not name.endswith("num_batches_tracked")]

    ours, theirs = listed(wanted), listed(state)
    if len(theirs) < len(ours):
        return None
    for (name, value), (other, found) in zip(ours, theirs, strict=False):
        if name.rpartition(".")[2] != other.rpartition(".")[2] or value.shape != found.shape:
            return None
    pairs = list(zip(ours, theirs, strict=False))
    return Fit({name: value for (name, _), (_, value) in pairs}, used={name for _, (name, _) in pairs})


def _add_rest(model: nn.Module, state: Tensors, found: Fit) -> None:
    """Neck, linear layer and exponent of the pooling, where the file has them in our size."""
    for target, pattern, marker in (
        ("neck", NECK, "running_mean"),
        ("embedding", EMBEDDING, "weight"),
        ("pooling", EXPONENT, ""),
    ):
        wanted = model.get_submodule(target).state_dict()
        name = _named(pattern, marker, wanted, state, found.prefix) if wanted else None
        if name is None:
            continue
        for part, value in wanted.items():
            full = f"{name}.{part}" if marker else name
            theirs = state.get(full)
            if theirs is not None and theirs.numel() == value.numel():
                found.used.add(full)
                found.tensors[f"{target}.{part}"] = theirs.reshape(value.shape)


def _named(pattern: re.Pattern[str], marker: str, wanted: Tensors, state: Tensors, prefix: str) -> str | None:
    """The module of the file that has such a name and our size; of several that nearest to the backbone."""
    size = wanted[marker].shape if marker else None
    names = []
    for name, value in state.items():
        stem, _, last = name.rpartition(".")
        if marker and last == marker and value.shape == size and pattern.fullmatch(stem):
            names.append(stem)
        elif not marker and value.numel() == 1 and pattern.fullmatch(name):
            names.append(name)
    if not names:
        return None
    near = [_common_words(name, prefix) for name in names]
    return names[near.index(max(near))] if near.count(max(near)) == 1 else None


def _common_words(first: str, second: str) -> int:
    pairs = zip(first.split("."), second.split("."), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), first.count("."))
