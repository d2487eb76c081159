"""Architectures by name, their embeddings and their weights from files."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from ise_fast.models import build_model
from ise_fast.nn import GeMPooling

torchvision = pytest.importorskip("torchvision")


def images(batch=4, height=64, width=32):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("training", [True, False])
def test_small_gives_unit_rows(training):
    model = build_model("small").train(training)
    features = model(images())
    assert features.shape == (4, 128)
    assert model.num_features == 128
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))


def test_neck_is_batch_norm_with_frozen_bias():
    model = build_model("small", norm=False)
    features = model(images(64))
    torch.testing.assert_close(features.mean(0), torch.zeros(128), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.var(0, correction=0), torch.ones(128), atol=0.05, rtol=0)
    assert not model.neck.bias.requires_grad
    assert model.neck.weight.requires_grad
    normed = copy.deepcopy(model)
    normed.norm = True
    torch.testing.assert_close(normed(images(64)), nn.functional.normalize(features))


def test_every_trained_parameter_gets_a_gradient():
    model = build_model("small", num_features=10, pooling="gem")
    model(images()).square().sum(1).sub(2).mul(images()[:, 0, 0, 0]).sum().backward()
    model(images())[:, 0].sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_the_seed_decides_the_weights():
    def state(seed):
        torch.manual_seed(seed)
        return build_model("small", num_features=10).state_dict()

    first, second, other = state(3), state(3), state(4)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["backbone.0.weight"], other["backbone.0.weight"])


@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_last_stage_of_resnets(arch, last_stride):
    model = build_model(arch, last_stride=last_stride).eval()
    with torch.no_grad():
        feature_map = model.backbone(images(1, 64, 32))
    assert feature_map.shape == (1, model.num_features, 8 // 2**last_stride, 4 // 2**last_stride)


@pytest.mark.parametrize("arch", ["densenet121", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t"])
def test_backbone_is_torchvisions_up_to_its_head(arch):
    torch.manual_seed(0)
    model = build_model(arch, norm=False).eval()
    torch.manual_seed(0)
    classifier = torchvision.models.get_model(arch, weights=None).eval()
    seen = {}
    head = getattr(classifier, "head", getattr(classifier, "fc", getattr(classifier, "classifier", None)))
    head.register_forward_pre_hook(lambda _, args: seen.update(pooled=args[0]))
    with torch.no_grad():
        classifier(images(2, 64, 64))
        pooled = model.pooling(model.backbone(images(2, 64, 64)))
    expected = seen["pooled"].mean((2, 3)) if seen["pooled"].ndim == 4 else seen["pooled"]
    torch.testing.assert_close(pooled, expected)


def test_channels_last_autocast_and_compile():
    model = build_model("small").eval()
    plain = model(images())
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(images().to(memory_format=torch.channels_last)), plain, atol=1e-5, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(images())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain, atol=0.02, rtol=0)
    assert torch.equal(torch.compile(model, fullgraph=True, backend="eager")(images()), plain)


def test_imagenet_weights_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = "resnet18-f37072fd.pth"
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/hub/checkpoints/{name}"):
        build_model("resnet18", pretrained="imagenet")
    torch.manual_seed(7)
    classifier = torchvision.models.resnet18()
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(classifier.state_dict(), tmp_path / "hub/checkpoints" / name)
    model = build_model("resnet18", pretrained="imagenet")
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[key]), key


def altered(model):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    return model


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_checkpoint_of_the_whole_network(tmp_path, wrap, prefix):
    saved = altered(build_model("small", pooling="gem", num_features=9)).state_dict()
    torch.save(wrap({prefix + key: value for key, value in saved.items()}), tmp_path / "c.pth")
    loaded = build_model("small", pooling="gem", num_features=9, pretrained=str(tmp_path / "c.pth")).state_dict()
    assert all(torch.equal(loaded[key], saved[key]) for key in saved)


@pytest.mark.parametrize("prefix", ["", "base.", "module.base.", "backbone."])
def test_checkpoint_of_the_backbone(tmp_path, prefix):
    classifier = altered(torchvision.models.resnet18())
    torch.save({prefix + key: value for key, value in classifier.state_dict().items()}, tmp_path / "c.pth")
    model = build_model("resnet18", num_features=9, pretrained=str(tmp_path / "c.pth"))
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[key]), key
    assert model.embedding.out_features == 9


def test_bad_checkpoints(tmp_path):
    def build(name, arch="small"):
        return build_model(arch, pretrained=str(tmp_path / name))

    with pytest.raises(FileNotFoundError, match=r"pretrained: .*found no file .*/missing\.pth"):
        build("missing.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(ValueError, match=r"pretrained: cannot read .*text\.pth"):
        build("text.pth")
    torch.save(build_model("small").state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"pretrained: cannot read .*cut\.pth"):
        build("cut.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="holds no weights"):
        build("empty.pth")
    with pytest.raises(ValueError, match=r"does not fit the architecture: \d+ of \d+ tensors"):
        build("whole.pth", "resnet18")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "resnet51"}, "arch: .*torchvision network, .* got 'resnet51'; did you mean resnet50 or"),
        ({"arch": "vit_b_16"}, "arch: expected .*got 'vit_b_16'"),
        ({"arch": "resnet50_ibn"}, "neither torchvision nor a maintained package"),
        ({"pooling": "max"}, "pooling: expected one of avg, gem, got 'max'"),
        ({"num_features": -1}, "num_features: expected 0 .* got -1"),
        ({"last_stride": 3}, "last_stride: expected 1 or 2, got 3"),
        ({"pretrained": "imagenet"}, "'small' has no ImageNet weights"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(**options)


def test_pooling_by_name():
    assert isinstance(build_model("small", pooling="gem").pooling, GeMPooling)


def test_small_needs_no_torchvision():
    code = (
        "import sys; sys.modules['torchvision'] = None; from ise_fast.models import build_model; build_model('small')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = code.replace("'small'", "'resnet18'")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: arch 'resnet18' needs a torchvision" in result.stderr
