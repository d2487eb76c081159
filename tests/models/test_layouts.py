"""Weights as other programs write them: the right numbers arrive, or a warning or one sentence says what did not."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ise_fast.models import build_model

torchvision = pytest.importorskip("torchvision")

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    """A ResNet-18 whose running statistics are not those of a fresh network."""
    torch.manual_seed(3)
    network = torchvision.models.resnet18()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def neck() -> nn.BatchNorm1d:
    layer = nn.BatchNorm1d(512).eval()
    layer.running_mean.uniform_(-0.1, 0.1)
    layer.running_var.fill_(3.0)
    nn.init.uniform_(layer.weight)
    return layer


def sequential(r: Any, *, relu: bool = True) -> nn.Sequential:
    stem = (r.conv1, r.bn1, r.relu, r.maxpool) if relu else (r.conv1, r.bn1, r.maxpool)
    return nn.Sequential(*stem, r.layer1, r.layer2, r.layer3, r.layer4)


def save(path: Path, state: object) -> str:
    torch.save(state, path)
    return str(path)


def named(module: nn.Module, prefix: str) -> Tensors:
    return {prefix + name: value for name, value in module.state_dict().items()}


def assert_backbone(model: nn.Module, classifier: nn.Module) -> None:
    expected = classifier.state_dict()
    state = model.get_submodule("backbone").state_dict()
    assert len(state) > 100
    assert not [name for name, value in state.items() if not torch.equal(value, expected[name])]


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        (None, "model."),
        ("state_dict", "module.model."),
        ("model", "module.base."),
        ("net", "backbone."),
        ("model_state_dict", "encoder."),
        (None, "_orig_mod.module.backbone."),
        ("state_dict", "a.b.net."),
        ("state_dict", ""),
    ],
)
def test_prefixes_and_wrappers(prefix: str, wrapper: str | None, classifier: nn.Module, tmp_path: Path) -> None:
    state: Any = named(classifier, prefix)
    state = state if wrapper is None else {"epoch": 3, "optimizer": {"lr": 1.0}, wrapper: state}
    assert_backbone(build_model("resnet18", pretrained=save(tmp_path / "w", state)), classifier)


@pytest.mark.parametrize(("prefix", "relu"), [("", True), ("module.", True), ("model.module.", False), ("", False)])
def test_a_sequential_with_its_neck_gives_the_features_of_its_own_program(
    prefix: str, relu: bool, classifier: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, feat_bn = sequential(classifier, relu=relu), neck()
    state = named(base, f"{prefix}base.") | named(feat_bn, f"{prefix}feat_bn.")
    path = save(tmp_path / "best.pth.tar", {"state_dict": state, "epoch": 50, "best_mAP": np.float64(0.8)})
    with caplog.at_level(logging.WARNING):
        model = build_model("resnet18", pretrained=path, last_stride=2).eval()
    assert not caplog.records
    images = torch.randn(2, 3, 64, 32)
    expected = nn.functional.normalize(feat_bn(base(images).mean((2, 3))))
    torch.testing.assert_close(model(images), expected, atol=1e-6, rtol=0)
    # A checkpoint of that network, read back, is that network.
    again = build_model("resnet18", pretrained=save(tmp_path / "again", model.state_dict()), last_stride=2).eval()
    assert torch.equal(again(images), model(images))
    bare = build_model("resnet18", last_stride=2).eval()
    bare.load_state_dict(model.state_dict())
    assert torch.equal(bare(images), model(images))


@pytest.mark.parametrize("name", ["heads.bottleneck.0", "bottleneck", "module.bnneck", "BNNeck"])
def test_the_neck_by_its_names(name: str, classifier: nn.Module, tmp_path: Path) -> None:
    layer = neck()
    state = named(classifier, "backbone.") | named(layer, f"{name}.") | {"heads.weight": torch.ones(7, 512)}
    model = build_model("resnet18", pretrained=save(tmp_path / "w", {"model": state}))
    assert_backbone(model, classifier)
    for part in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(model.state_dict()[f"neck.{part}"], layer.state_dict()[part])


@pytest.mark.parametrize(
    ("rest", "count"),
    [
        ({"part3.bn.running_var": torch.ones(512), "part3.bn.weight": torch.ones(512)}, 2),
        ({"bottleneck.running_var": torch.ones(99), "bottleneck.running_mean": torch.ones(99)}, 2),
        ({"gap.p": torch.ones(1)}, 1),  # GeM pooling, and the network asked for has none
        ({"feat.weight": torch.ones(64, 512)}, 1),
        ({"classifier.weight": torch.ones(9, 512), "fc.bias": torch.ones(9)}, 0),
    ],
)
def test_what_is_left_out_is_counted(
    rest: Tensors, count: int, classifier: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path / "w", named(classifier, "module.") | rest)
    with caplog.at_level(logging.WARNING):
        build_model("resnet18", pretrained=path)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (count > 0)
    if count:
        assert f"{count} tensors of" in said[0]
        assert next(iter(rest)) in said[0]


def test_linear_layer_and_exponent(classifier: Any, tmp_path: Path) -> None:
    feat, feat_bn = nn.Linear(512, 64, bias=False), nn.BatchNorm1d(64)
    feat_bn.running_var.fill_(2.0)
    state = named(sequential(classifier), "base.") | named(feat, "feat.") | named(feat_bn, "feat_bn.")
    path = save(tmp_path / "w", state | {"gap.p": torch.tensor([2.5])})
    model = build_model("resnet18", pretrained=path, pooling="gem", num_features=64)
    loaded = model.state_dict()
    assert torch.equal(loaded["embedding.weight"], feat.weight)
    assert not loaded["embedding.bias"].any()
    assert float(loaded["neck.running_var"][0]) == 2.0
    assert float(loaded["pooling.p"]) == 2.5


@pytest.mark.parametrize(
    "extra",
    [
        {"rank1": np.float64(0.5), "mAP": np.float32(0.25)},
        {"epoch": np.int64(3), "flag": np.bool_(True), "curve": np.arange(5.0)},
        {"args": argparse.Namespace(lr=1.0, out=Path("logs")), "when": slice(1, 2)},
        {"hook": os.path.join},  # a function, never called
    ],
)
def test_other_objects_in_a_checkpoint(extra: dict[str, Any], tmp_path: Path) -> None:
    expected = build_model("small").state_dict()
    for i, legacy in enumerate((False, True)):
        path = tmp_path / str(i)
        content = {"state_dict": OrderedDict(expected), **extra}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        loaded = build_model("small", pretrained=str(path)).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in expected.items())


class Attack:
    def __init__(self, function: Callable[..., Any], argument: str) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> Any:
        return self.call


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    victim = tmp_path / "made"
    for i, function in enumerate((os.mkdir, exec)):
        argument = str(victim) if function is os.mkdir else f"open({str(victim)!r}, 'w')"
        state = {**build_model("small").state_dict(), "x": Attack(function, argument)}
        path = save(tmp_path / f"attack{i}", state)
        refused = pytest.raises(ValueError, match="for safety") if function is os.mkdir else contextlib.nullcontext()
        with refused:
            build_model("small", pretrained=path)
        assert not victim.exists()


def test_one_whole_sentence_for_what_cannot_be_read(tmp_path: Path) -> None:
    class Settings(dict[str, int]):
        pass

    Settings.__module__, Settings.__qualname__ = "tests.models.test_layouts", "Settings"
    globals()["Settings"] = Settings
    whole = save(tmp_path / "whole", build_model("small"))
    settings = save(tmp_path / "settings", {"cfg": Settings(a=1), "model": {"w": torch.ones(3)}})
    for path, said in ((whole, r"torch.save\(net.state_dict\(\)"), (settings, r"torch.save\(net.state_dict\(\)")):
        with pytest.raises(ValueError, match=said) as caught:
            build_model("small", pretrained=path)
        text = str(caught.value)
        assert "\x1b" not in text
        assert len(text.splitlines()) == 1
        assert path in text


def test_odd_containers(tmp_path: Path) -> None:
    weights = build_model("small").state_dict()
    cycle: dict[str, Any] = {"weights": {"net": weights}}
    cycle["self"] = cycle
    first = build_model("small", pretrained=save(tmp_path / "cycle", cycle)).state_dict()
    assert torch.equal(first["backbone.0.weight"], weights["backbone.0.weight"])
    listed = build_model("small", pretrained=save(tmp_path / "list", [3, {"x": torch.ones(2)}, weights])).state_dict()
    assert torch.equal(listed["backbone.0.weight"], weights["backbone.0.weight"])
    for name, content, said in (
        ("meta", {key: value.to("meta") for key, value in weights.items()}, "holds no weights"),
        ("nan", {**weights, "backbone.0.weight": weights["backbone.0.weight"] / 0}, r"NaN or infinity in 1 tensors"),
        ("numbers", {0: torch.ones(3)}, "holds no weights"),
    ):
        with pytest.raises(ValueError, match=said):
            build_model("small", pretrained=save(tmp_path / name, content))


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_flipped_bit_of_a_weight_file_is_found(place: float, tmp_path: Path) -> None:
    path = tmp_path / "w"
    torch.save(build_model("small").state_dict(), path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"pretrained: cannot read .*(damaged|failed)"):
        build_model("small", pretrained=str(path))


def test_old_names_are_matched_by_order(tmp_path: Path) -> None:
    saved = torchvision.models.mobilenet_v2().state_dict()
    stems = {stem: i for i, stem in enumerate(dict.fromkeys(name.rpartition(".")[0] for name in saved))}
    old = {f"part.{stems[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value for name, value in saved.items()}
    old = {name: value for name, value in old.items() if "num_batches_tracked" not in name}
    model = build_model("mobilenet_v2", pretrained=save(tmp_path / "w", {"net_dict": old}))
    loaded = model.backbone.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.items() if "num_batches" not in name)
    # The same tensors in another order do not fit, and are not guessed.
    turned = dict(reversed(old.items()))
    with pytest.raises(ValueError, match="does not fit the architecture"):
        build_model("mobilenet_v2", pretrained=save(tmp_path / "turned", turned))


def test_the_first_of_two_networks(tmp_path: Path, classifier: Any, caplog: pytest.LogCaptureFixture) -> None:
    other = torchvision.models.resnet18()
    state = named(sequential(classifier), "net.base.") | named(neck(), "net.feat_bn.")
    state |= named(sequential(other), "net_ema.base.") | {
        f"net_ema.feat_bn.{name}": torch.zeros(512) for name in ("weight", "bias", "running_mean", "running_var")
    }
    with caplog.at_level(logging.WARNING):
        model = build_model("resnet18", pretrained=save(tmp_path / "w", state))
    assert_backbone(model, classifier)
    assert float(model.state_dict()["neck.running_var"][0]) == 3.0
    assert "were left out: net_ema.base.0.weight" in caplog.text
