"""scikit-learn's estimator checks, and its own tests of DBSCAN pointed at our class."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn.cluster.tests.test_dbscan as original
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import estimator_checks_generator

from ise_fast.cluster import DBSCAN, BottomUp, Infomap, JaccardDBSCAN, KMeans, SelfPacedDBSCAN

infomap = [Infomap()] if importlib.util.find_spec("infomap") else []
CHECKS = [
    pytest.param(estimator, check, id=f"{type(estimator).__name__}-{i}-{check.func.__name__}")
    for default in (DBSCAN(), JaccardDBSCAN(), KMeans(), SelfPacedDBSCAN(), BottomUp(), *infomap)
    for i, (estimator, check) in enumerate(estimator_checks_generator(default))
]


# A sample that is repeated is a neighbour more than once, so it changes Jaccard distances; a weight does not.
REPEATS = "JaccardDBSCAN.predict revealed that fitting with `sample_weight` is not equivalent"


@pytest.mark.parametrize(("estimator", "check"), CHECKS)
@pytest.mark.filterwarnings("ignore")
def test_estimator_checks(estimator: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    name = check.func.__name__  # type: ignore[attr-defined]
    if isinstance(estimator, JaccardDBSCAN) and name == "check_sample_weight_equivalence_on_dense_data":
        with pytest.raises(AssertionError, match=REPEATS):
            check(estimator)
    else:
        check(estimator)


@pytest.fixture
def global_random_seed() -> int:
    """scikit-learn's conftest draws it."""
    return 42


def dbscan(X: Any, eps: float = 0.5, *, sample_weight: Any = None, **parameters: Any) -> tuple[Any, Any]:
    """scikit-learn's function form."""
    fitted = DBSCAN(eps, **parameters).fit(X, sample_weight=sample_weight)
    return fitted.core_sample_indices_, fitted.labels_


# A second copy of scikit-learn's test module, with our class in place of theirs.
_spec = importlib.util.spec_from_file_location("dbscan_suite", original.__file__)
assert _spec is not None
assert _spec.loader is not None
suite = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(suite)
suite.DBSCAN, suite.dbscan = DBSCAN, dbscan

#: The tests that use a parameter which we refuse, and how.
REFUSED = {
    "test_dbscan_callable": (ValueError, "metric: expected one of"),
    "test_dbscan_metric_params": (TypeError, "unexpected keyword argument 'metric_params'"),
    "test_dbscan_balltree": (TypeError, "unexpected keyword argument 'p'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_parameters(name: str) -> None:
    error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        getattr(suite, name)()


def test_minkowski_is_refused() -> None:
    with pytest.raises(ValueError, match=r"metric: expected one of .* got 'minkowski'"):
        suite.test_dbscan_input_not_modified("minkowski", None)


@pytest.mark.parametrize("metric", ["precomputed", "euclidean"])
@pytest.mark.parametrize("container", [*suite.CSR_CONTAINERS, None])
def test_input_not_modified(metric: str, container: Any) -> None:
    suite.test_dbscan_input_not_modified(metric, container)


_taken = {
    name: test
    for name, test in vars(suite).items()
    if name.startswith("test_") and name not in REFUSED and name != "test_dbscan_input_not_modified"
}
assert len(_taken) >= 14  # scikit-learn 1.7 has 15 of them
globals().update(_taken)


def test_the_suite_runs_our_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong answer of ours must fail theirs."""
    monkeypatch.setattr(DBSCAN, "fit", _all_noise)
    with pytest.raises(AssertionError):
        suite.test_dbscan_feature()


def _all_noise(self: DBSCAN, X: Any, y: None = None, sample_weight: Any = None) -> DBSCAN:
    self.labels_, self.core_sample_indices_ = np.full(len(X), -1), np.empty(0, dtype=int)
    return self
