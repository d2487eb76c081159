"""What the report shows of images and features: chosen rightly, and the same after a trip through the file."""

import numpy as np
import pytest
import torch

from ise_fast.data import ImageStore, Split
from ise_fast.engine.report_data import NO_CAMERA, PAIRS, ImageSet, RankLists, ReportData
from ise_fast.engine.report_samples import project, sample_clusters, sample_rank_lists
from ise_fast.engine.report_statistics import BINS, rank, sample_statistics

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


def lists_of(query, **options):
    """Rank lists of all queries that have a match in GALLERY."""
    return sample_rank_lists(query, GALLERY, rank(query, GALLERY), **options)


GALLERY = image_set([0.0, 0.1, 0.2, 0.3, 0.4, 1.0], ids=[7, 8, 7, 0, 7, 8], cams=[0, 1, 1, 2, 3, 0], first=100)


def test_rank_list_without_junk():
    lists = lists_of(image_set([0.0], [7], [0], first=50))
    assert lists.shown.tolist() == [5]
    assert lists.ids[0, :5].tolist() == [8, 7, 0, 7, 8]  # row 0, same identity and camera, is gone
    assert lists.cams[0, :5].tolist() == [1, 1, 2, 3, 0]
    assert (lists.matches[0], lists.removed[0]) == (2, 1)
    assert lists.images[0, :5, 0, 0, 0].tolist() == [101, 102, 103, 104, 105]
    assert lists.query_images[0, 0, 0, 0] == 50
    np.testing.assert_allclose(lists.similarity[0, :5], np.cos([0.1, 0.2, 0.3, 0.4, 1.0]), rtol=1e-6)
    np.testing.assert_allclose(lists.ap, [(1 / 2 + 2 / 4) / 2], rtol=1e-6)


def test_rank_list_without_cameras_keeps_everything():
    lists = lists_of(image_set([0.0], [7], None), top=3)
    assert lists.ids.tolist() == [[7, 8, 7]]
    assert lists.removed.tolist() == [0]
    assert lists.query_cams.tolist() == [NO_CAMERA]
    assert lists.cams.tolist() == [[NO_CAMERA] * 3]


def test_the_worst_queries_come_first():
    angles = [0.0, 1.0, 0.6, 0.35]
    query = image_set([*angles, 0.5], [7, 8, 7, 7, 99], [5, 5, 5, 5, 5])  # 99 has no match
    everything = lists_of(query)
    assert sorted(everything.query_ids) == [7, 7, 7, 8]
    assert (np.diff(everything.ap) >= 0).all()
    assert lists_of(query, worst=2, spread=0).ap.tolist() == everything.ap[:2].tolist()
    assert lists_of(query, worst=1, spread=1).ap.tolist() == everything.ap[:2].tolist()
    assert lists_of(query, worst=1, spread=2).ap.tolist() == everything.ap[[0, 1, 3]].tolist()


def test_no_query_with_a_match():
    assert rank(image_set([0.0], [99], [0]), GALLERY) is None
    assert rank(image_set([0.0], [7], [0])._replace(split=Split((0,), None, None)), GALLERY) is None


def test_ranks_of_all_queries():
    ranked = rank(image_set([0.0, 0.5, 0.35], [7, 99, 8], [0, 0, 5]), GALLERY)
    assert ranked.rows.tolist() == [0, 2]
    np.testing.assert_allclose(ranked.ap, [1 / 2, (1 / 4 + 2 / 6) / 2], rtol=1e-6)
    np.testing.assert_allclose(ranked.cmc, [0, 0.5, 0.5, 1, 1, 1])


def test_pairs_by_identity_and_camera():
    query = image_set([0.0], [7], [0])
    statistics = sample_statistics(query, GALLERY, rank(query, GALLERY))
    kinds = {name: counts.sum() for name, counts in zip(PAIRS, statistics.counts, strict=True)}
    assert kinds == {
        "same identity, other camera": 2,
        "same identity, same camera": 1,
        "other identity, same camera": 1,
        "other identity, other camera": 2,
    }
    same = np.flatnonzero(statistics.counts[0])  # cosines of 0.2 and 0.4
    assert same.tolist() == [int((np.cos(angle) + 1) * BINS / 2) for angle in (0.4, 0.2)]
    assert statistics.names.tolist() == ["0.png"]
    without = image_set([0.0], [7], None)
    assert sample_statistics(without, GALLERY, rank(without, GALLERY)).counts.sum(axis=1).tolist() == [3, 0, 0, 3]


def test_cameras_against_cameras():
    query = image_set([0.0, 1.0, 0.0], [7, 8, 7], [0, 1, 2])
    statistics = sample_statistics(query, GALLERY, rank(query, GALLERY))
    assert statistics.cameras.tolist() == [0, 1, 2]
    # Camera 1 holds an 8 at 0.1 and a 7 at 0.2; camera 0 a 7 at 0.0 and an 8 at 1.0; camera 2 has neither.
    expected = [[np.nan, 0.5, np.nan], [1.0, np.nan, np.nan], [1.0, 0.5, np.nan]]
    np.testing.assert_allclose(statistics.camera_ap, expected)
    without = image_set([0.0], [7], None)
    assert sample_statistics(without, GALLERY, rank(without, GALLERY)).cameras.tolist() == [NO_CAMERA]


def test_impure_clusters_come_first():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, -1])
    identities = np.array([5, 5, 5, 5, 6, 7, 8, 9, 5, 9])
    clusters = sample_clusters(labels, store(10), identities, rows=2)
    assert clusters.examples.tolist() == [1, 2, -1]
    assert clusters.foreign.tolist() == [0, 2, 1]
    assert clusters.ids[0, :3].tolist() == [6, 7, 8]
    everything = sample_clusters(labels, store(10), identities, rows=9)
    assert everything.examples.tolist() == [1, 2, 0, -1]
    unknown = sample_clusters(labels, store(10), np.full(10, -1), rows=3)
    assert unknown.foreign.tolist() == [-1, -1, -1]
    assert unknown.examples.tolist() == [0, 1, 2, -1]


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


def pictures(rows, side):
    return np.broadcast_to(rows[:, None, None, None], (len(rows), 4, 2, 3)).astype(np.uint8)


def test_projection_keeps_groups_together():
    generator = torch.Generator().manual_seed(0)
    groups = np.repeat([3, 5, -1], 20)
    centres = torch.nn.functional.normalize(torch.randn(3, 16, generator=generator))
    features = centres.repeat_interleave(20, 0) + 0.05 * torch.randn(60, 16, generator=generator)
    picture = project(features, groups, None, pictures, of_test_images=False)
    assert sorted(set(picture.groups.tolist())) == [3, 5]
    assert not picture.of_test_images
    assert set(picture.cams.tolist()) == {NO_CAMERA}
    first, second = (picture.points[picture.groups == g] for g in (3, 5))
    spread = max(part.std(0).max() for part in (first, second))
    assert np.linalg.norm(first.mean(0) - second.mean(0)) > 3 * spread
    again = project(features, groups, None, pictures, of_test_images=False)
    assert np.array_equal(picture.points, again.points)


def test_projection_is_bounded():
    features = torch.nn.functional.normalize(torch.randn(100, 8, generator=torch.Generator().manual_seed(0)))
    picture = project(
        features, np.repeat(np.arange(10), 10), None, pictures, of_test_images=True, max_groups=4, max_points=30
    )
    assert len(picture.points) == 30
    assert picture.images[1, 0, 0, 0] == 1  # rows of groups 0, 3, 6 and 9
    assert picture.images[-1, 0, 0, 0] == 99
    assert len(set(picture.groups.tolist())) == 4
    assert project(features[:4], np.zeros(4, dtype=np.int64), None, pictures, of_test_images=True) is None


def test_round_trip_through_the_file(tmp_path):
    lists = lists_of(image_set([0.0, 0.5], [7, 8], [0, 1]))
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
