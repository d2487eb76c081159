"""What the report shows of images and features: chosen rightly, and the same after a trip through the file."""

import numpy as np
import pytest
import torch

from ise_fast.data import ImageStore, Split
from ise_fast.engine.report_data import (
    NO_CAMERA,
    ImageSet,
    RankLists,
    ReportData,
    project,
    sample_clusters,
    sample_rank_lists,
)

pytest.importorskip("sklearn")


def store(count, size=(6, 4), first=0):
    """Image i is filled with the value first + i."""
    pixels = torch.arange(first, first + count, dtype=torch.uint8)[:, None, None, None].expand(count, 3, *size)
    return ImageStore([f"{i}.png" for i in range(count)], size, 1, pixels.contiguous(), {})


def image_set(angles, ids, cams, first=0):
    """Unit rows in the plane, so that the cosine is that of the angle between them."""
    angles = torch.tensor(angles, dtype=torch.float32)
    split = Split(tuple(range(len(ids))), np.array(ids), None if cams is None else np.array(cams))
    return ImageSet(torch.stack([angles.cos(), angles.sin()], 1), split, store(len(ids), first=first))


GALLERY = image_set([0.0, 0.1, 0.2, 0.3, 0.4, 1.0], ids=[7, 8, 7, 0, 7, 8], cams=[0, 1, 1, 2, 3, 0], first=100)


def test_rank_list_without_junk():
    lists = sample_rank_lists(image_set([0.0], [7], [0], first=50), GALLERY)
    assert lists.shown.tolist() == [5]
    assert lists.ids[0, :5].tolist() == [8, 7, 0, 7, 8]  # row 0, same identity and camera, is gone
    assert lists.cams[0, :5].tolist() == [1, 1, 2, 3, 0]
    assert (lists.matches[0], lists.removed[0]) == (2, 1)
    assert lists.images[0, :5, 0, 0, 0].tolist() == [101, 102, 103, 104, 105]
    assert lists.query_images[0, 0, 0, 0] == 50
    np.testing.assert_allclose(lists.similarity[0, :5], np.cos([0.1, 0.2, 0.3, 0.4, 1.0]), rtol=1e-6)
    np.testing.assert_allclose(lists.ap, [(1 / 2 + 2 / 4) / 2], rtol=1e-6)


def test_rank_list_without_cameras_keeps_everything():
    lists = sample_rank_lists(image_set([0.0], [7], None), GALLERY, top=3)
    assert lists.ids.tolist() == [[7, 8, 7]]
    assert lists.removed.tolist() == [0]
    assert lists.query_cams.tolist() == [NO_CAMERA]
    assert lists.cams.tolist() == [[NO_CAMERA] * 3]


def test_queries_are_spread_from_worst_to_best():
    angles = [0.0, 1.0, 0.6, 0.35]
    query = image_set([*angles, 0.5], [7, 8, 7, 7, 99], [5, 5, 5, 5, 5])  # 99 has no match
    everything = sample_rank_lists(query, GALLERY, queries=10)
    assert sorted(everything.query_ids) == [7, 7, 7, 8]
    assert (np.diff(everything.ap) >= 0).all()
    ends = sample_rank_lists(query, GALLERY, queries=2)
    assert ends.ap.tolist() == [everything.ap[0], everything.ap[-1]]


def test_no_query_with_a_match():
    assert sample_rank_lists(image_set([0.0], [99], [0]), GALLERY) is None


def test_clusters_from_largest_to_smallest():
    labels = np.array([0, 0, 1, 1, 1, 1, -1, 2, -1, 1])
    clusters = sample_clusters(labels, store(10), rows=3, columns=3)
    assert clusters.sizes.tolist() == [2, 5, 1]
    assert clusters.examples.tolist() == [1, 0, 2, -1]
    assert clusters.shown.tolist() == [3, 2, 1, 2]
    assert clusters.outliers == 2
    rows = [clusters.images[r, : clusters.shown[r], 0, 0, 0].tolist() for r in range(4)]
    assert rows == [[2, 4, 9], [0, 1], [7], [6, 8]]  # spread over the members 2 3 4 5 9


def test_clusters_when_everything_is_an_outlier():
    clusters = sample_clusters(np.full(4, -1), store(4))
    assert clusters.sizes.size == 0
    assert clusters.examples.tolist() == [-1]


def test_large_images_become_thumbnails():
    clusters = sample_clusters(np.zeros(2, dtype=np.int64), store(2, size=(256, 128)))
    assert clusters.images.shape[2:] == (128, 64, 3)
    assert clusters.images[0, 1].max() == 1


def test_projection_keeps_groups_together():
    generator = torch.Generator().manual_seed(0)
    groups = np.repeat([3, 5, -1], 20)
    centres = torch.nn.functional.normalize(torch.randn(3, 16, generator=generator))
    features = centres.repeat_interleave(20, 0) + 0.05 * torch.randn(60, 16, generator=generator)
    picture = project(features, groups, None, of_test_images=False)
    assert sorted(set(picture.groups.tolist())) == [3, 5]
    assert not picture.of_test_images
    assert set(picture.cams.tolist()) == {NO_CAMERA}
    first, second = (picture.points[picture.groups == g] for g in (3, 5))
    spread = max(part.std(0).max() for part in (first, second))
    assert np.linalg.norm(first.mean(0) - second.mean(0)) > 3 * spread
    again = project(features, groups, None, of_test_images=False)
    assert np.array_equal(picture.points, again.points)


def test_projection_is_bounded():
    features = torch.nn.functional.normalize(torch.randn(100, 8, generator=torch.Generator().manual_seed(0)))
    picture = project(features, np.repeat(np.arange(10), 10), None, of_test_images=True, max_groups=4, max_points=30)
    assert len(picture.points) == 30
    assert len(set(picture.groups.tolist())) == 4
    assert project(features[:4], np.zeros(4, dtype=np.int64), None, of_test_images=True) is None


def test_round_trip_through_the_file(tmp_path):
    lists = sample_rank_lists(image_set([0.0, 0.5], [7, 8], [0, 1]), GALLERY)
    data = ReportData(rank_lists=lists, clusters=sample_clusters(np.array([0, 0, -1]), store(3)))
    data.save(tmp_path / "report.npz")
    loaded = ReportData.load(tmp_path / "report.npz")
    assert loaded.embedding is None
    for part in ("rank_lists", "clusters"):
        for ours, theirs in zip(getattr(data, part), getattr(loaded, part), strict=True):
            assert np.array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("damage", [lambda raw: b"text", lambda raw: raw[: len(raw) // 2], lambda raw: b""])
def test_damaged_file(tmp_path, damage):
    path = tmp_path / "report.npz"
    ReportData(clusters=sample_clusters(np.array([0, 0, -1]), store(3))).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"report\.npz: expected the samples of a run"):
        ReportData.load(path)


def test_file_of_another_version(tmp_path):
    np.savez(tmp_path / "report.npz", **{f"rank_lists.{RankLists._fields[0]}": np.zeros(3)})
    with pytest.raises(ValueError, match="expected the samples of a run"):
        ReportData.load(tmp_path / "report.npz")
