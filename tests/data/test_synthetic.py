"""The synthetic data set: counts, protocol, bytes, and no half-made sets."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from ise_fast.data import DatasetError, ReIDDataset, SyntheticSpec, generate_synthetic, load_dataset
from ise_fast.data import synthetic as module

SMALL = {
    "train_identities": 5,
    "test_identities": 4,
    "cameras": 3,
    "train_images": 40,
    "query_images": 9,
    "gallery_images": 30,
    "distractors": 3,
    "junk": 2,
    "height": 32,
    "width": 16,
}
SPEC = SyntheticSpec(**SMALL)


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReIDDataset:
    return load_dataset("synthetic", tmp_path_factory.mktemp("data"), **SMALL)


def test_counts_are_those_asked_for(dataset: ReIDDataset, recwarn: pytest.WarningsRecorder) -> None:
    assert dataset.train.counts() == (5, 40, 3)
    assert dataset.query.counts() == (4, 9, 3)
    assert dataset.gallery.counts()[:2] == (5, 30)  # the distractors count as one more identity
    assert (dataset.gallery.ids == 0).sum() == 3
    assert len(list((dataset.root / "bounding_box_test").glob("-1_*.jpg"))) == 2
    assert not recwarn.list


def test_every_query_has_a_match_from_another_camera(dataset: ReIDDataset) -> None:
    for identity, camera in zip(dataset.query.ids, dataset.query.cams, strict=True):
        same = dataset.gallery.ids == identity
        assert (dataset.gallery.cams[same] != camera).any()
    assert not set(dataset.train.ids) & set(dataset.gallery.ids)


def test_it_is_read_by_the_loader_of_market1501_too(dataset: ReIDDataset) -> None:
    with pytest.warns(match="differs from the published set"):
        market = load_dataset("market1501", dataset.root)
    assert market.train.paths == dataset.train.paths
    assert market.gallery.ids.tolist() == dataset.gallery.ids.tolist()


def test_bytes_follow_from_the_seed(dataset: ReIDDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest(dataset.root)
    generate_synthetic(tmp_path / "again", SPEC)
    assert digest(tmp_path / "again") == first
    generate_synthetic(tmp_path / "other", SyntheticSpec(**{**SMALL, "seed": 1}))
    other = digest(tmp_path / "other")
    assert not set(first.values()) & {value for name, value in other.items() if name.endswith(".jpg")}
    monkeypatch.setattr(module, "PROCESSES_FROM", 0)
    generate_synthetic(tmp_path / "parallel", SPEC, workers=2)
    assert digest(tmp_path / "parallel") == first


def test_a_finished_set_is_not_made_again(dataset: ReIDDataset) -> None:
    before = {path: path.stat().st_mtime_ns for path in dataset.root.rglob("*")}
    assert load_dataset("synthetic", dataset.root.parent.parent, **SMALL).train.paths == dataset.train.paths
    assert {path: path.stat().st_mtime_ns for path in dataset.root.rglob("*")} == before


def test_a_killed_generation_is_not_taken_for_a_finished_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "set"
    real = module.render
    drawn = []

    def dying(*arguments: object) -> object:
        drawn.append(arguments)
        if len(drawn) == 20:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "render", dying)
    with pytest.raises(KeyboardInterrupt):
        generate_synthetic(root, SPEC)
    assert not root.exists()
    monkeypatch.setattr(module, "render", real)
    # What SIGKILL leaves behind: a partial folder, with more in it than belongs there.
    leftover = tmp_path / ".set.partial" / "bounding_box_train"
    leftover.mkdir(parents=True)
    (leftover / "0099_c1s1_000000_01.jpg").write_bytes(b"half")
    assert generate_synthetic(root, SPEC).train.counts() == (5, 40, 3)
    assert not (tmp_path / ".set.partial").exists()


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(DatasetError, match="holds other files; choose another folder"):
        generate_synthetic(tmp_path, SPEC)
    (tmp_path / "synthetic.json").write_text(json.dumps({"version": 0}))
    with pytest.raises(DatasetError, match="another specification"):
        generate_synthetic(tmp_path, SPEC)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": 1}, "option cameras: expected at least 2, got 1"),
        ({"train_images": 9}, "option train_images: expected two images for each of 5 identities, got 9"),
        ({"gallery_images": 10}, "option gallery_images"),
        ({"camera_shift": -1.0}, "option camera_shift: expected at least 0, got -1.0"),
        ({"colour": 3}, "unknown option"),
    ],
)
def test_impossible_specifications_are_named(tmp_path: Path, change: dict[str, int], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset("synthetic", tmp_path, **{**SMALL, **change})
    assert not any(tmp_path.iterdir())


def test_market_size_plan_has_the_published_counts_without_drawing() -> None:
    counts: dict[str, int] = defaultdict(int)
    names = set()
    for shot in module.plan(SyntheticSpec.market_size()):
        counts[shot.file[0]] += shot.label >= 0
        names.add(shot.file)
    assert counts == {"bounding_box_train": 12_936, "query": 3_368, "bounding_box_test": 15_913}
    assert len(names) == 12_936 + 3_368 + 15_913 + 3_819  # no two images share a file


def test_without_camera_shift_cameras_show_the_same_light() -> None:
    def brightness(shift: float) -> list[float]:
        shots = [module.Shot("train", 7, 7, camera, frame) for camera in range(1, 7) for frame in range(20)]
        pixels = [np.asarray(module.render(shot, (32, 16), 0, shift)).mean() for shot in shots]
        return np.reshape(pixels, (6, 20)).mean(axis=1).tolist()

    # Not zero: cameras still see people from their own sides.
    assert 2 * np.std(brightness(0.0)) < np.std(brightness(3.0))


def test_people_differ_more_than_their_images() -> None:
    def image(person: int, frame: int) -> np.ndarray:
        shot = module.Shot("train", person, person, 1, frame)
        return np.asarray(module.render(shot, (32, 16), 0, 0.0), dtype=np.float64)

    means = np.stack([np.mean([image(person, frame) for frame in range(30)], axis=0) for person in range(1, 13)])
    again = np.stack([np.mean([image(person, frame) for frame in range(30, 60)], axis=0) for person in range(1, 13)])
    distance = ((means[:, None] - again[None]) ** 2).mean(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == np.arange(12)).all()
