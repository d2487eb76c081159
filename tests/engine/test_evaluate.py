from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ise_fast import evaluate as command
from ise_fast import ops
from ise_fast.data import Split
from ise_fast.engine.evaluator import evaluate
from ise_fast.train import main


def split(ids: list[int], cams: list[int] | None) -> Split:
    return Split(tuple(Path(str(i)) for i in range(len(ids))), np.array(ids), None if cams is None else np.array(cams))


@pytest.mark.parametrize("with_cams", [True, False])
@pytest.mark.parametrize("block", [1, 3, 100])
def test_blocks_of_queries_change_nothing(with_cams: bool, block: int) -> None:
    generator = torch.Generator().manual_seed(1)
    query, gallery = (torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (20, 60))
    ids, gallery_ids, cams, gallery_cams = (
        torch.randint(0, high, (n,), generator=generator).tolist() for high, n in ((9, 20), (7, 60), (3, 20), (3, 60))
    )
    arguments = (split(ids, cams if with_cams else None), split(gallery_ids, gallery_cams if with_cams else None))
    result = evaluate(query, gallery, *arguments, block=block)
    tensors = [None if x is None else torch.tensor(x) for x in (ids, gallery_ids, cams, gallery_cams)]
    if not with_cams:
        tensors[2:] = [None, None]
    expected = ops.rank_metrics(2 - 2 * query @ gallery.T, *tensors, max_rank=10)
    assert result.mAP == pytest.approx(expected.mAP, abs=1e-6)
    assert result.mINP == pytest.approx(expected.mINP, abs=1e-6)
    assert [result.rank1, result.rank5, result.rank10] == pytest.approx(expected.cmc[[0, 4, 9]].tolist(), abs=1e-6)
    assert result.queries == int((~expected.ap.isnan()).sum())


def test_no_match_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="query_split"):
        evaluate(torch.eye(2), torch.eye(2), split([1, 2], [0, 0]), split([1, 2], [0, 0]))


@pytest.mark.parametrize("first", [0, 1_700_000_000_000_000_000, 2**63 - 5, -(2**63)])
@pytest.mark.parametrize("camera", [0, -7, 2**63 - 2])
def test_all_identities_and_cameras_of_64_bits(first: int, camera: int) -> None:
    ids = [first + i for i in range(5)]
    result = evaluate(torch.eye(5), torch.eye(5), split(ids, [camera] * 5), split(ids, [camera + 1] * 5))
    assert (result.queries, result.mAP) == (5, 1.0)
    with pytest.raises(ValueError, match="query_split"):
        evaluate(torch.eye(5), torch.eye(5), split(ids, [camera] * 5), split(ids, [camera] * 5))


@pytest.mark.parametrize("gallery", [1, 2, 5, 19, 20, 40])
def test_re_ranking_of_few_images(gallery: int, caplog: pytest.LogCaptureFixture) -> None:
    features = torch.nn.functional.normalize(torch.randn(gallery, 8, generator=torch.Generator().manual_seed(2)), dim=1)
    ids = list(range(gallery))
    result = evaluate(features[:1], features, split([0], None), split(ids, None), rerank=True)
    assert result.rank1 == 1.0
    assert ("k1 is" in caplog.text) == (gallery + 1 <= 20)


def test_a_gallery_smaller_than_the_ranks() -> None:
    result = evaluate(torch.eye(3)[:1], torch.eye(3), split([1], None), split([2, 1, 3], None))
    assert (result.rank1, result.rank5) == (0.0, 1.0)


def test_command_line(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main([*flags, "--logs-dir", str(folder)]) == 0
    last = json.loads((folder / "metrics.json").read_text())["last"]
    capsys.readouterr()
    output, features = tmp_path / "figures.json", tmp_path / "features.npz"
    arguments = ["--checkpoint", str(folder / "checkpoints/checkpoint-0002-000000.pt"), "--device", "cpu"]
    assert command.main([*arguments, "--rerank", "--output", str(output), "--features", str(features)]) == 0
    err = capsys.readouterr().err
    assert "mAP" in err
    assert "rerank" in err
    figures = json.loads(output.read_text())

    def fails(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    before = features.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", fails)
        (tmp_path / "null").symlink_to("/dev/null")
        assert command.main([*arguments, "--features", str(features), "--output", str(tmp_path / "null")]) == 2
    assert f"--features: {features} cannot be written: No space left" in capsys.readouterr().err
    assert features.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.npz", "figures.json", "null", "run"]
    assert (tmp_path / "null").is_symlink()
    # The checkpoint's network on the images of training's evaluation: the same figures.
    assert {k: figures["plain"][k] for k in ("mAP", "rank1", "mINP")} == {k: last[k] for k in ("mAP", "rank1", "mINP")}
    assert 0 <= figures["rerank"]["mAP"] <= 1
    arrays = np.load(features)
    assert arrays["query"].shape[0] == len(arrays["query_paths"]) == 12
    assert np.allclose(np.linalg.norm(arrays["gallery"], axis=1), 1, atol=1e-5)
    distance = torch.from_numpy(1 - arrays["query"] @ arrays["gallery"].T)
    columns = [torch.from_numpy(arrays[f"{name}_{key}"]) for key in ("ids", "cams") for name in ("query", "gallery")]
    assert ops.rank_metrics(distance, *columns).mAP == pytest.approx(last["mAP"], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--checkpoint"),
        (["--checkpoint", "/no/such.pt"], "/no/such.pt"),
        (["--checkpoint", "x", "--nope"], "--nope"),
        (["--checkpoint", "x", "--data-dir", ""], "--data-dir: expected a path, got an empty one"),
        (["--checkpoint", "x", "--features", "f.csv"], "--features: expected a name that ends in .npz, got f.csv"),
    ],
)
def test_wrong_arguments(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert named in lines[0]


@pytest.mark.parametrize("relu", [True, False])
def test_a_published_model_is_measured_as_its_own_program_does(
    relu: bool, flags: list[str], data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    r = models.resnet18()
    r.layer4[0].conv1.stride = r.layer4[0].conv2.stride = r.layer4[0].downsample[0].stride = (1, 1)
    stem = (r.conv1, r.bn1, r.relu, r.maxpool) if relu else (r.conv1, r.bn1, r.maxpool)
    base = torch.nn.Sequential(*stem, r.layer1, r.layer2, r.layer3, r.layer4).eval()
    neck = torch.nn.BatchNorm1d(512).eval()
    neck.running_mean.uniform_(0, 1)
    names = {f"module.base.{k}": v for k, v in base.state_dict().items()}
    names |= {f"module.feat_bn.{k}": v for k, v in neck.state_dict().items()} | {"module.gap.p": torch.tensor([3.0])}
    path = tmp_path / "model_best.pth.tar"
    torch.save({"state_dict": names, "epoch": 50, "best_mAP": np.float64(0.8)}, path)

    output = tmp_path / "features.npz"
    words = [
        "--checkpoint",
        str(path),
        "--data-dir",
        str(data_dir),
        "--device",
        "cpu",
        "--height",
        "32",
        "--width",
        "16",
    ]
    assert command.main([*words, "--arch", "resnet18", "--dataset", "market1501", "--features", str(output)]) == 0
    assert "mAP" in capsys.readouterr().err
    arrays = np.load(output)
    from ise_fast.data import normalize, open_images

    images = normalize(open_images([Path(p) for p in arrays["query_paths"]], (32, 16)).batch(range(12)))
    with torch.no_grad():
        pooled = base(images).clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)
        expected = torch.nn.functional.normalize(neck(pooled))
    torch.testing.assert_close(torch.from_numpy(arrays["query"]), expected, atol=1e-5, rtol=0)

    for wrong, said in ((words, "--arch"), ([*words, "--arch", "resnet18"], "--dataset"),
                        ([*words, "--arch", "resnet50", "--dataset", "market1501"], "does not fit")):  # fmt: skip
        assert command.main(wrong) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert said in lines[0]
