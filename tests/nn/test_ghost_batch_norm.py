"""Ghost batch normalisation against what it stands for: DataParallel replicas that each see one chunk."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ise_fast.nn import GhostBatchNorm1d, GhostBatchNorm2d, convert_ghost_batch_norm

SHAPES = [(nn.BatchNorm1d, GhostBatchNorm1d, (6,)), (nn.BatchNorm1d, GhostBatchNorm1d, (6, 5))]
SHAPES += [(nn.BatchNorm2d, GhostBatchNorm2d, (6, 4, 3))]


class BatchNormAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: a forward of its own, which does not call that of nn.BatchNorm2d."""

    def __init__(self, num_features, act):
        super().__init__(num_features)
        self.act = act

    def forward(self, x):
        if self.training:
            self.num_batches_tracked.add_(1)
        statistics = self.running_mean, self.running_var
        x = F.batch_norm(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)
        return self.act(x)


class OfTokens(nn.BatchNorm1d):
    """[B, L, C]"""

    def forward(self, x):
        return super().forward(x.mT).mT


class Conditional(nn.BatchNorm1d):
    def forward(self, x, scale):
        return super().forward(x) * scale


def randomised(norm):
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


def replicas(norm, x, chunks, grad):
    """Each chunk through its own copy; gradients summed, buffers of copy 0 kept: DataParallel, spelled out."""
    copies = [copy.deepcopy(norm) for _ in range(chunks)]
    parts = [part.clone().requires_grad_() for part in x.tensor_split(chunks)]
    outputs = [one(part) for one, part in zip(copies, parts, strict=True)]
    torch.cat(outputs).backward(grad)
    gradients = [torch.cat([part.grad for part in parts])]
    gradients += [sum(getattr(one, name).grad for one in copies) for name in ("weight", "bias")]
    return torch.cat(outputs), gradients, dict(copies[0].named_buffers())


@pytest.mark.parametrize(("plain", "ghost", "shape"), SHAPES)
@pytest.mark.parametrize(("batch", "chunks"), [(8, 4), (8, 1), (10, 4), (9, 2), (256, 4)])
def test_equals_replicas(plain, ghost, shape, batch, chunks):
    torch.manual_seed(batch + chunks)
    norm = randomised(plain(6))
    layer = ghost(6, chunks)
    layer.load_state_dict(norm.state_dict())
    x, grad = torch.randn(batch, *shape) * 3 + 1, torch.randn(batch, *shape)
    for _ in range(3):  # the running statistics of several steps
        expected, gradients, buffers = replicas(norm, x, chunks, grad)
        norm.load_state_dict(buffers, strict=False)
        layer.zero_grad()
        ours = x.clone().requires_grad_()
        output = layer(ours)
        output.backward(grad)
        torch.testing.assert_close(output, expected, rtol=0, atol=0)
        for got, want in zip((ours.grad, layer.weight.grad, layer.bias.grad), gradients, strict=True):
            torch.testing.assert_close(got, want)
        for name, buffer in layer.named_buffers():
            assert torch.equal(buffer, buffers[name]), name
        x = x.flip(0) + 0.1


def test_chunks_change_the_result():
    x = torch.arange(8.0)[:, None] ** 2
    assert not torch.allclose(GhostBatchNorm1d(1, 2)(x), GhostBatchNorm1d(1, 1)(x))


@pytest.mark.parametrize(("plain", "ghost", "shape"), SHAPES)
def test_evaluation_is_plain_batch_norm(plain, ghost, shape):
    norm = randomised(plain(6)).eval()
    layer = ghost(6, 4).eval()
    layer.load_state_dict(norm.state_dict())
    x = torch.randn(7, *shape)
    assert torch.equal(layer(x), norm(x))
    assert layer.num_batches_tracked == 0


def test_small_batches_use_fewer_chunks():
    x = torch.randn(5, 3)
    for chunks, used in ((8, 2), (2, 2), (5, 2)):
        assert torch.equal(GhostBatchNorm1d(3, chunks)(x), GhostBatchNorm1d(3, used)(x))
    assert torch.equal(GhostBatchNorm1d(3, 4)(x[:3]), nn.BatchNorm1d(3)(x[:3]))


@pytest.mark.parametrize("options", [{"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_options_of_batch_norm(options):
    x = torch.randn(8, 3)
    layer, norm = GhostBatchNorm1d(3, 2, **options), nn.BatchNorm1d(3, **options)
    for _ in range(2):
        assert torch.equal(layer(x), torch.cat([norm(x[:4]), copy.deepcopy(norm)(x[4:])]))
    assert dict(layer.state_dict()).keys() == dict(norm.state_dict()).keys()
    for name, value in norm.state_dict().items():
        assert torch.equal(layer.state_dict()[name], value)


def test_channels_last_and_autocast():
    x = torch.randn(8, 4, 6, 5).to(memory_format=torch.channels_last)
    output = GhostBatchNorm2d(4, 2)(x)
    assert output.is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = GhostBatchNorm2d(4, 2)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), output, atol=0.05, rtol=0.02)


def test_convert():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.3), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16))
    )
    net[2][1].bias.requires_grad_(False)
    net[1].eval()
    parameters, keys = list(net.parameters()), list(net.state_dict())
    converted = convert_ghost_batch_norm(net, 4)
    assert converted is net
    assert isinstance(net[1], GhostBatchNorm2d)
    assert isinstance(net[2][1], GhostBatchNorm1d)
    assert (net[1].chunks, net[1].eps, net[1].momentum) == (4, 1e-3, 0.3)
    assert not net[1].training
    assert not net[2][1].bias.requires_grad
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))
    assert list(net.state_dict()) == keys
    convert_ghost_batch_norm(net, 2)
    assert net[2][1].chunks == 2
    assert isinstance(convert_ghost_batch_norm(nn.BatchNorm1d(3), 2), GhostBatchNorm1d)


@pytest.mark.parametrize(
    ("plain", "shape"),
    [(lambda: BatchNormAct(6, nn.ReLU(inplace=True)), (6, 4, 3)), (lambda: OfTokens(6), (5, 6))],
)
@pytest.mark.parametrize(("batch", "chunks"), [(8, 4), (9, 2)])
def test_subclasses_get_a_twin(plain, shape, batch, chunks):
    torch.manual_seed(batch)
    norm = randomised(plain())
    layer = convert_ghost_batch_norm(nn.Sequential(copy.deepcopy(norm)), chunks)[0]
    assert isinstance(layer, type(norm))
    assert list(layer.state_dict()) == list(norm.state_dict())
    copies = (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.compile(copy.deepcopy(layer), backend="eager"),
    )
    x, grad = torch.randn(batch, *shape) * 3 + 1, torch.randn(batch, *shape)
    expected, gradients, buffers = replicas(norm, x, chunks, grad)
    for ours in (layer, *copies):
        input = x.clone().requires_grad_()
        output = ours(input)
        output.backward(grad)
        assert torch.equal(output, expected)
        for got, want in zip((input.grad, ours.weight.grad, ours.bias.grad), gradients, strict=True):
            torch.testing.assert_close(got, want)
        for name, buffer in ours.state_dict().items():
            assert name not in buffers or torch.equal(buffer, buffers[name]), name
    norm.load_state_dict(buffers, strict=False)
    assert torch.equal(layer.eval()(x), norm.eval()(x))
    assert convert_ghost_batch_norm(layer, 7).chunks == 7


def test_a_layer_with_two_names_is_one_layer():
    net = nn.Module()
    net.first = net.second = nn.BatchNorm1d(3)
    convert_ghost_batch_norm(net, 2)
    assert isinstance(net.second, GhostBatchNorm1d)
    assert net.second is net.first


def test_hooks_stay():
    norm, calls = nn.BatchNorm1d(3), []
    norm.register_forward_hook(lambda *_: calls.append(1))
    convert_ghost_batch_norm(norm, 2)(torch.randn(4, 3))
    assert calls == [1]


def test_convert_leaves_other_norms():
    for other in (nn.InstanceNorm2d(3), nn.GroupNorm(3, 3)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert type(convert_ghost_batch_norm(other, 4)) is type(other)


def test_batch_norms_without_a_twin_are_counted():
    others = nn.SyncBatchNorm(3), nn.BatchNorm3d(3), nn.LazyBatchNorm2d(), nn.SyncBatchNorm(3), Conditional(3)
    net = nn.Sequential(nn.BatchNorm2d(3), *others)
    message = "no ghost twin of 2 SyncBatchNorm, 1 BatchNorm3d, 1 LazyBatchNorm2d, 1 Conditional: "
    with pytest.warns(UserWarning, match=message) as caught:
        convert_ghost_batch_norm(net, 4)
    assert caught[0].filename == __file__
    assert [type(layer) for layer in net[1:]] == [type(layer) for layer in others]
    assert isinstance(net[0], GhostBatchNorm2d)
    with warnings.catch_warnings():  # one part is the whole batch
        warnings.simplefilter("error")
        convert_ghost_batch_norm(net, 1)


def test_bad_arguments():
    with pytest.raises(ValueError, match="chunks: expected an integer of at least 1, got 0"):
        GhostBatchNorm1d(3, 0)
    with pytest.raises(TypeError, match=r"chunks: expected an integer, got 2\.0"):
        convert_ghost_batch_norm(nn.BatchNorm1d(3), 2.0)
    with pytest.raises(TypeError, match="chunks: expected an integer, got True"):
        GhostBatchNorm1d(3, True)
    assert GhostBatchNorm1d(3, np.int64(2)).chunks == 2
    with pytest.raises(ValueError, match="4D input"):
        GhostBatchNorm2d(3, 2)(torch.randn(8, 3))


def test_compiles_without_graph_break():
    layer = GhostBatchNorm2d(4, 2)
    x = torch.randn(8, 4, 3, 3)
    assert torch.equal(torch.compile(copy.deepcopy(layer), fullgraph=True, backend="eager")(x), layer(x))
