"""Pieces of the sharded clustering, in one process: ties, blocks of a file, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ise_fast import ops
from ise_fast.cluster import JaccardDBSCAN
from ise_fast.sharded import HeldRows, JaccardSettings, Peers, StoredRows, cluster, jaccard_rows
from ise_fast.sharded.kmeans import shared_kmeans
from ise_fast.sharded.kmeans_start import shared_kmeans_start
from ise_fast.sharded.neighbours import Nearest, own_neighbours
from tests.sharded.shapes import clustered, copied


def test_neighbours_of_two_blocks_are_merged_by_float64() -> None:
    """Both distances are 1 in float32, and the farther row has the lower index."""
    rows = torch.tensor([[1.0, 3e-5], [1.0, 0.0]])
    query = torch.zeros(1, 2)
    assert ops.knn(rows[:1], 1, y=query).distances.equal(ops.knn(rows[1:], 1, y=query).distances)
    nearest = Nearest(query, 2)
    for first in (0, 1):
        nearest.see(first, rows[first : first + 1])
    assert nearest.indices.tolist() == [[1, 0]]


@pytest.mark.parametrize("block", [1, 7, 250, 999])
def test_blocks_in_any_order_have_the_neighbours_of_all(block: int) -> None:
    x = copied(400, 12, 0)
    nearest = Nearest(x[30:90], 9)
    for first in reversed(range(0, 400, block)):
        nearest.see(first, x[first : first + block])
    assert nearest.indices.long().equal(ops.knn(x, 9, y=x[30:90]).indices)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("block", [64, 501, 0])
def test_a_file_in_blocks_has_the_labels_of_memory(block: int, dtype: str, tmp_path: Path) -> None:
    x = copied(700, 20, 3).numpy().astype(dtype)
    np.save(tmp_path / "x.npy", x)
    stored = StoredRows(np.load(tmp_path / "x.npy", mmap_mode="r"), block=block)
    settings = JaccardSettings(k1=20, k2=5)
    expected = JaccardDBSCAN(k1=20, k2=5).fit(x.astype("float32"))
    labels, core = cluster(stored, settings)
    assert labels.tolist() == expected.labels_.tolist()
    assert core.nonzero()[:, 0].tolist() == expected.core_sample_indices_.tolist()
    assert own_neighbours(StoredRows(torch.from_numpy(x), block=block), 5).equal(
        ops.knn(torch.from_numpy(x).float(), 5).indices.int()
    )


def test_a_default_device_is_for_other_tensors() -> None:
    x, start = clustered(30, 4, 0), torch.Generator()
    settings = JaccardSettings(k1=8, k2=3)
    expected = cluster(StoredRows(x, block=10), settings).labels
    held = HeldRows("x", x, Peers(), unit=False)
    rows = shared_kmeans_start(held, 3, start.manual_seed(0))
    labels = shared_kmeans(held, rows).labels
    with torch.device("meta"):
        assert cluster(StoredRows(x, block=10), JaccardSettings(k1=8, k2=3)).labels.equal(expected)
        assert shared_kmeans_start(held, 3, start.manual_seed(0)).equal(rows)
        assert shared_kmeans(held, rows).labels.equal(labels)


def test_bad_rows_are_refused_in_one_line() -> None:
    x = clustered(30, 4, 0)
    x[17, 2] = torch.nan
    with pytest.raises(ValueError, match=r"^x: expected finite values, got NaN or infinity in row 17$"):
        cluster(StoredRows(x, block=10), JaccardSettings())
    with pytest.raises(ValueError, match=r"^X: expected finite values, got NaN or infinity in row 17$"):
        HeldRows("X", x, Peers())
    with pytest.raises(TypeError, match=r"^x: expected a NumPy array or torch tensor of floats, got ndarray of int64$"):
        StoredRows(np.zeros((3, 2), dtype=np.int64))
    for shape in ((3,), (3, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"^x: expected rows of at least one column, got shape"):
            StoredRows(np.zeros(shape, dtype=np.float32))
    with pytest.raises(ValueError, match=r"^block: expected at least 1 row"):
        StoredRows(x, block=-1)
    with pytest.raises(ValueError, match=r"^x: expected at least one row, got shape \(0, 4\)$"):
        StoredRows(x[:0])
    with pytest.raises(ValueError, match=r"^X: expected at least one row, got none in all$"):
        HeldRows("X", x[:0], Peers())
    for work in (lambda: cluster(x, JaccardSettings()), lambda: jaccard_rows(x, JaccardSettings(), 0.5)):
        with pytest.raises(TypeError, match=r"^features: expected HeldRows or StoredRows, got Tensor$"):
            work()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": 1.0}, r"eps: expected a number in \[0, 1\), got 1.0"),
        ({"k1": 3}, r"k2: expected an integer in \[1, 3\] \(k1\), got 6"),
        ({"min_samples": 0}, "min_samples: expected an integer of at least 1, got 0"),
        ({"max_pairs": 0}, "max_pairs: expected an integer of at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        JaccardSettings(**settings)  # type: ignore[arg-type]
