"""`ise-fast cluster`: the labels of the estimators, several radii, advice, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from ise_fast.__main__ import main
from ise_fast.cluster import DBSCAN, JaccardDBSCAN


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    """300 rows around 12 directions."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(12, 16))
    return (centres[np.arange(300) % 12] + 0.15 * random.normal(size=(300, 16))).astype(np.float32)


def test_jaccard_labels_of_scaled_rows(blobs: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "x.npz", features=50 * blobs, path=np.array([f"{i}.jpg" for i in range(300)]))
    assert main(["cluster", str(tmp_path / "x.npz"), "-o", str(tmp_path / "labels.csv"), "--eps", "0.5"]) == 0
    table = pandas.read_csv(tmp_path / "labels.csv")
    unit = torch.nn.functional.normalize(torch.tensor(50 * blobs))
    assert (table["label"] == JaccardDBSCAN(eps=0.5).fit_predict(unit.numpy())).all()
    assert table["path"][7] == "7.jpg"
    said = capsys.readouterr()
    assert "brought to unit length" in said.err
    assert said.out.splitlines()[1].split()[:2] == ["0.5", str(table["label"].max() + 1)]


@pytest.mark.parametrize("scale", [1e25, 1e-30, 1e-42])
def test_rows_of_any_length(scale: float, blobs: np.ndarray, tmp_path: Path) -> None:
    """Squares of such numbers leave float32."""
    np.save(tmp_path / "x.npy", (scale * blobs.astype(np.float64)).astype(np.float32))
    words = ["cluster", tmp_path / "x.npy", "--distance", "cosine", "--eps", "0.3", "-o", tmp_path / "l.npy"]
    assert main([str(word) for word in words]) == 0
    labels = np.load(tmp_path / "l.npy")
    assert (labels == DBSCAN(eps=0.3, min_samples=4, metric="cosine").fit_predict(blobs)).all()
    assert labels.max() == 11


def test_several_radii_from_one_graph(blobs: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", blobs)
    words = ["cluster", tmp_path / "x.npy", "--distance", "euclidean", "--eps", "1.2", "0.8", "-o", tmp_path / "l.npz"]
    assert main([str(word) for word in words]) == 0
    with np.load(tmp_path / "l.npz") as found:
        for eps in (0.8, 1.2):
            assert (found[f"label_{eps}"] == DBSCAN(eps=eps, min_samples=4).fit_predict(blobs)).all()
        assert found["row"].tolist() == list(range(300))
    near = [*words[:5], "0.81234561", "0.81234562", "0.81234561", "-o", tmp_path / "l.csv"]
    assert main([str(word) for word in near]) == 0
    assert list(pandas.read_csv(tmp_path / "l.csv").columns) == ["row", "label_0.81234561", "label_0.81234562"]


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_without_eps_it_advises(
    distance: str, blobs: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", blobs)
    assert main(["cluster", str(tmp_path / "x.npy"), "--distance", distance]) == 0
    middle = next(line for line in capsys.readouterr().out.splitlines() if "50%" in line)
    eps = float(middle.split("=")[1].split()[0])
    cores = DBSCAN(eps=eps, min_samples=4, metric=distance).fit(blobs).core_sample_indices_
    assert 140 <= len(cores) <= 160


@pytest.mark.parametrize(
    ("array", "words", "message"),
    [
        (np.ones((5, 2)), ["-o", "l.txt"], "--output: expected a name that ends in .csv"),
        (np.ones((5, 2)), ["-o", "l.npy", "--eps", "0.1", "0.2"], "--output: .npy holds the labels of one --eps"),
        (np.array([[1.0, np.nan]]), [], "x.npy: expected finite values, got NaN or infinity in row 0"),
        (np.zeros((3, 2)), [], "x.npy: row 0 is zero and has no direction"),
        (np.ones((5, 2)), ["--eps", "1.5"], "--eps: expected less than 1 for --distance jaccard, got 1.5"),
        (np.ones((5, 2)), ["--eps", "nan"], "--eps: expected a number from 0, got nan"),
        (np.ones((5, 2)), ["--min-samples", "0"], "--min-samples: expected a number of at least 1, got 0"),
        (np.ones((5, 2)), ["--k1", "10", "--k2", "40"], "--k2: expected at most --k1 = 10, got 40"),
        (
            np.ones((5, 2)),
            ["-o", "l.csv", "--distance", "cosine"],
            "--eps: the cosine distance has no usual radius, so",
        ),
        (np.ones((5, 2)), ["--eps", "0.1", "--max-pairs", "0"], "--max-pairs: expected a number of at least 1"),
        (
            np.ones((5, 2)),
            ["--eps", "0.1", "--max-pairs", "4"],
            "--max-pairs: features have collapsed: rows 0, 1, 2 are among the nearest of 5 of 5 rows; more than "
            "max_pairs = 20 pairs are within eps = 0.1",
        ),
        (
            np.eye(4),
            ["--eps", "1.5", "--max-pairs", "3", "--distance", "euclidean"],
            "--max-pairs: expected at most 3 pairs a row within --eps 1.5, got about 4 (by 4 rows); lower --eps or",
        ),
        (
            np.eye(4)[[0, 1, 1, 1]],
            ["--eps", "0.5", "--max-pairs", "2", "--distance", "cosine"],
            "--max-pairs: expected at most 2 pairs a row within --eps 0.5, got about 2.5 (by 4 rows)",
        ),
        (np.ones((5, 2)), ["--min-sample", "3"], "there is no argument '--min-sample'; did you mean --min-samples?"),
    ],
)
def test_refusals(
    array: np.ndarray, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", array)
    assert main(["cluster", str(tmp_path / "x.npy"), *words]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
