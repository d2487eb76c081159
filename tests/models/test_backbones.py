"""Backbones that are not ours: of timm, and of the user."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ise_fast.models import build_model

IMAGES = torch.randn(4, 3, 32, 16, generator=torch.Generator().manual_seed(0))


class Patches(nn.Module):
    """A transformer's shape: tokens of one image size, a first one of its own, and a pooling."""

    output_fmt = "NLC"

    def __init__(self, img_size: tuple[int, int] = (224, 224), global_pool: str = "token") -> None:
        super().__init__()
        self.size, self.pool = img_size, global_pool
        self.cls = nn.Parameter(torch.randn(1, 1, 6))
        self.patches = nn.Conv2d(3, 6, 8, stride=8)
        self.default_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2:] == self.size, f"Input height ({x.shape[2]}) doesn't match model ({self.size[0]})."
        tokens = torch.cat([self.cls.expand(len(x), 1, 6), self.patches(x).flatten(2).transpose(1, 2)], dim=1)
        return tokens[:, 0] if self.pool else tokens


class Map(nn.Sequential):
    """A convolutional network, up to its map."""

    def __init__(self, global_pool: str = "avg") -> None:
        super().__init__(nn.Conv2d(3, 6, 3, stride=4), nn.BatchNorm2d(6))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A package timm with two networks."""
    networks: dict[str, Any] = {"patches": Patches, "map": Map}

    def create_model(name: str, pretrained: bool = False, num_classes: int = 1000, **options: Any) -> nn.Module:
        assert (pretrained, num_classes) == (False, 0)
        net: nn.Module = networks[name](**options)
        return net

    fake = SimpleNamespace(create_model=create_model, is_model=networks.__contains__, list_models=lambda: [*networks])
    monkeypatch.setitem(sys.modules, "timm", fake)  # type: ignore[arg-type]
    return networks


def test_a_map_of_timm_goes_through_our_pooling(timm: dict[str, Any]) -> None:
    model = build_model("timm:map", pooling="gem").eval()
    assert model.num_features == 6
    expected = nn.functional.normalize(model.neck(model.pooling(model.backbone(IMAGES))))
    assert model(IMAGES).equal(expected)


def test_another_network_of_timm_pools_itself_at_the_size_of_the_images(timm: dict[str, Any]) -> None:
    model = build_model("timm:patches", size=(32, 16)).eval()
    assert model.backbone.size == (32, 16)
    assert model.backbone(IMAGES).shape == (4, 6)
    torch.testing.assert_close(model(IMAGES).norm(dim=1), torch.ones(4))


def test_weights_of_timm(timm: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved = Patches().state_dict()
    torch.save({**saved, "head.weight": torch.ones(9, 6), "head.bias": torch.ones(9)}, tmp_path / "w.pth")
    with caplog.at_level(logging.WARNING):
        model = build_model("timm:patches", size=(32, 16), pretrained=str(tmp_path / "w.pth"))
    for name, value in model.backbone.state_dict().items():
        assert value.equal(saved[name]), name
    assert [record.getMessage() for record in caplog.records] == [
        "timm:patches was trained on images of mean (0.5, 0.5, 0.5) and deviation (0.5, 0.5, 0.5); here they are "
        "ImageNet's"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "timm:pach"}, "arch: timm has no network 'pach'; did you mean patches"),
        ({"arch": "timm:xyz"}, r"arch: timm has no network 'xyz'; timm.list_models\(\) lists them"),
        (
            {"arch": "timm:patches", "size": (4, 4)},
            r"arch: timm:patches does not take images of 4 x 4 \(Input height \(4\)",
        ),
        (
            {"arch": "timm:map", "pretrained": "imagenet"},
            "pretrained: expected none or a path for timm:map, got 'imagenet'",
        ),
        (
            {"arch": "timm:patches", "pooling": "gem"},
            "pooling: timm:patches pools its features itself, so expected avg",
        ),
    ],
)
def test_what_timm_cannot_do(options: dict[str, Any], message: str, timm: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(**options)


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"^arch 'timm:resnet18' needs the package timm \(pip install timm\)$"):
        build_model("timm:resnet18")


def test_the_real_timm() -> None:
    timm = pytest.importorskip("timm")
    for name, channels in (("resnet10t", 512), ("vit_tiny_patch16_224", 192), ("swin_tiny_patch4_window7_224", 768)):
        model = build_model(f"timm:{name}", size=(64, 32)).eval()
        assert model(torch.randn(2, 3, 64, 32)).shape == (2, channels), name
        assert timm.is_model(name)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the user, whose functions make networks."""
    module = ModuleType("their_networks")
    monkeypatch.setitem(sys.modules, "their_networks", module)
    return module


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 8, stride=8)

    def forward(self, x: Tensor) -> Tensor:
        return self.patches(x).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("pooling", ["avg", "gem"])
def test_tokens_are_pooled_as_a_map_is(own: ModuleType, pooling: str) -> None:
    own.make = Tokens  # type: ignore[attr-defined]
    model = build_model("their_networks:make", pooling=pooling).eval()
    expected = nn.functional.normalize(model.neck(model.pooling(model.backbone.patches(IMAGES))))
    torch.testing.assert_close(model(IMAGES), expected)
    assert model.num_features == 6


def test_vectors_are_taken_as_they_are(own: ModuleType) -> None:
    own.make = lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5))  # type: ignore[attr-defined]
    model = build_model("their_networks:make", size=(32, 16), num_features=3).eval()
    features = model.neck(model.embedding(model.backbone(IMAGES)))
    assert model(IMAGES).equal(nn.functional.normalize(features))
    assert model.num_features == 3


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: 1 / 0, {}, r"arch: their_networks:make cannot be called \(ZeroDivisionError: division by zero\)"),
        (lambda: sys.exit(3), {}, r"arch: their_networks:make cannot be called \(SystemExit: 3\)"),
        (dict, {}, "arch: expected their_networks:make to return a torch.nn.Module, got dict"),
        (nn.Identity, {"pretrained": "imagenet"}, "pretrained: expected none or a path for their_networks:make"),
        (lambda: nn.Flatten(0), {}, r"arch: expected an output \[B, C\], .* or \[B, C, h, w\], got \(12288,\)"),
        (lambda: nn.Conv2d(4, 4, 3), {}, r"arch: the network does not take images of 64 x 64 \(RuntimeError: Given g"),
        (lambda: nn.AdaptiveMaxPool2d(2, return_indices=True), {}, "expected a tensor, got tuple"),
    ],
)
def test_networks_that_are_none(make: Any, options: dict[str, Any], message: str, own: ModuleType) -> None:
    own.make = make  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=message):
        build_model("their_networks:make", **options)


def test_a_place_that_is_none() -> None:
    with pytest.raises(
        ValueError, match=r"^arch: no_such_module:make cannot be called \(ModuleNotFoundError: No module"
    ):
        build_model("no_such_module:make")
