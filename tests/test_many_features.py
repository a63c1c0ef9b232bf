"""Models of many features: what is shown of them makes no matrix of features by features."""

import tracemalloc

import numpy as np
import pytest

from lowrank_tangent import AdaptiveTangentClassifier, AdaptiveTangentRegressor, TangentRidge
from lowrank_tangent.linalg import memory
from lowrank_tangent.linalg.transforms import LowRankTransform, ProductTransform

WIDE = 20_000


@pytest.fixture(scope="module")
def data():
    """Few samples of many features."""
    X = np.random.default_rng(0).standard_normal((20, WIDE))
    return X, X[:, 0]


@pytest.mark.parametrize(
    "model",
    [
        AdaptiveTangentRegressor((3,), tol=1e-3, random_state=0),
        AdaptiveTangentRegressor((3,), tol=1e-3, random_state=0, n_rounds=1),
        AdaptiveTangentClassifier((3,), tol=1e-3, random_state=0),
        TangentRidge((3,), random_state=0),
    ],
    ids=["regressor", "rounds", "classifier", "ridge"],
)
def test_showing_a_model_makes_nothing_dense(model, data, monkeypatch):
    X, y = data
    model.fit(X, y if not isinstance(model, AdaptiveTangentClassifier) else y > 0.0)
    made = []
    for kind in (LowRankTransform, ProductTransform):
        monkeypatch.setattr(kind, "to_dense", lambda self: made.append(self) or np.eye(2))
    tracemalloc.start()
    shown = model._repr_html_()
    names = dir(model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert type(model).__name__ in shown
    assert {"fit", "predict", "n_features_in_"} <= set(names)
    assert made == []
    assert peak < 2e8  # a matrix of features by features has 3.2e9 bytes


def test_dense_matrices_of_few_features_are_listed(data):
    model = AdaptiveTangentRegressor((3,), tol=1e-3, random_state=0)
    assert "predict" in dir(model)
    model.fit(data[0][:, :5], data[1])
    assert {"input_transform_", "input_metric_", "feature_importances_"} <= set(dir(model))
    assert "input_metric_" in model._repr_html_() or not hasattr(model, "_get_fitted_attr_html")


@pytest.mark.parametrize(
    "transform",
    [
        LowRankTransform.identity(WIDE),
        ProductTransform(np.ones(WIDE)),
        ProductTransform(np.eye(1), np.eye(WIDE, 1)),
    ],
)
def test_a_dense_matrix_that_does_not_fit_is_refused(transform, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2.0**32)
    with pytest.raises(
        MemoryError, match=r"dense matrix of a transform.* \(3, 20000, 20000\) needs 8\.9 GiB.*apply\(rows\)"
    ):
        transform.to_dense()
    rows = np.ones((1, WIDE))
    assert transform.apply(rows).shape == rows.shape
