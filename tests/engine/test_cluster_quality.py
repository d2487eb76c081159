from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from ise_fast.engine.cluster_quality import cluster_quality
from ise_fast.train import main


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_scikit_learns_and_counted_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    ids = random.integers(100, 108, 60)
    labels = np.where(random.random(60) < 0.6, ids - 100, random.integers(-1, 6, 60))
    alone = np.where(labels < 0, 1000 + np.arange(60), labels)
    found = cluster_quality(labels, ids)
    assert found["identities"] == len(set(ids))
    assert found["ARI"] == pytest.approx(adjusted_rand_score(ids, alone), abs=1e-12)
    assert found["NMI"] == pytest.approx(normalized_mutual_info_score(ids, alone), abs=1e-12)
    pairs = [(alone[i] == alone[j], ids[i] == ids[j]) for i, j in itertools.combinations(range(60), 2)]
    both = sum(a and b for a, b in pairs)
    assert found["precision"] == pytest.approx(both / sum(a for a, _ in pairs))
    assert found["recall"] == pytest.approx(both / sum(b for _, b in pairs))
    several = [c for c in set(alone) if (alone == c).sum() > 1]
    most = sum(np.unique(ids[alone == c], return_counts=True)[1].max() for c in several)
    assert found["purity"] == pytest.approx(most / np.isin(alone, several).sum())


def test_ends_of_the_scale() -> None:
    ids = np.array([5, 5, 9, 9])
    perfect = {"identities": 2, "ARI": 1, "NMI": 1, "purity": 1, "precision": 1, "recall": 1}
    assert cluster_quality(np.array([1, 1, 0, 0]), ids) == perfect
    nothing = cluster_quality(np.full(4, -1), ids)
    assert (nothing["recall"], nothing["precision"], nothing["purity"], nothing["ARI"]) == (0, 1, 1, 0)
    one = cluster_quality(np.zeros(4, dtype=np.int64), ids)
    assert (one["recall"], one["purity"], one["ARI"], one["NMI"]) == (1, 0.5, 0, 0)
    assert cluster_quality(np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)) == {**perfect, "identities": 1}


def test_a_run_says_how_good_its_clusters_are(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--logs-dir", str(tmp_path / "r"), "--epochs", "1"]) == 0
    record = json.loads((tmp_path / "r/metrics.jsonl").read_text().splitlines()[1])
    assert record["quality"]["identities"] == 10
    assert record["quality"].keys() == {"identities", "ARI", "NMI", "purity", "precision", "recall"}
    assert f"10 identities: ARI {record['quality']['ARI']:.3f}" in capsys.readouterr().err
