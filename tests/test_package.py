"""The contract of the package: public names, equal signatures, and what an import may cost."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import ise_fast
from ise_fast import ops, reference

#: arguments of operators that the references have no use for: candidates from elsewhere
FOR_SPEED = {"candidates", "beyond"}
NAMES = {
    *("knn", "k_reciprocal_encoding", "jaccard_distance", "jaccard_graph", "radius_graph", "dbscan"),
    *("nearest_centroids", "support_samples", "ise_loss", "cluster_nce_loss", "update_memory_", "interpolation_degree"),
    *("re_ranking", "rank_metrics"),
    *(
        "group_members",
        "refresh_groups_",
        "group_nce_loss",
        "soft_nce_loss",
        "reliable_labels",
        "merge_nearest",
        "merge_rows",
    ),
    *("kmeans_start", "kmeans_step", "kmeans", "cycle_positives", "multi_label_loss"),
}


def test_every_operator_has_its_public_name_and_a_reference() -> None:
    assert set(ops.__all__) >= NAMES
    assert set(reference.__all__) >= NAMES
    assert dir(ops) == sorted(ops.__all__)  # what completion shows
    assert "ops" in dir(ise_fast)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_operator_and_reference_take_the_same_arguments(name: str) -> None:
    def plain(function: object) -> list[tuple[str, object, object]]:
        parameters = inspect.signature(function).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters if p.name not in FOR_SPEED]

    assert plain(getattr(ops, name)) == plain(getattr(reference, name))


def test_import_needs_no_package_of_the_training_extra() -> None:
    """One module after the other in one process: the first that imports too much is named."""
    heavy = {"torchvision", "matplotlib", "sklearn", "scipy", "pandas", "tensorboard", "jsonargparse", "cupy"}
    modules = ["", ".ops", ".nn", ".reference", ".data", ".methods", ".train", ".__main__"]
    code = (
        f"import importlib, sys\nfor m in {modules}:\n    importlib.import_module('ise_fast' + m)\n"
        f"    print(m, {heavy}.intersection(sys.modules) or '')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.strip() for line in run.stdout.splitlines()] == modules
