"""At infinite width models keep one row a training point, and predict by the kernel."""

import pickle

import numpy as np
import pytest

from lowrank_tangent import (
    AdaptiveTangentRegressor,
    AdaptiveTangentRegressorCV,
    TangentRidge,
    TangentRidgeClassifier,
)
from lowrank_tangent.estimators.infinite_coefs import AdaptedCoefs, DualCoefs
from lowrank_tangent.networks import InfiniteMLP


@pytest.fixture
def data(rng):
    X = rng.standard_normal((60, 4))
    return X, np.sin(2.0 * X[:, 0]) + X[:, 1] * X[:, 2], rng.standard_normal((25, 4))


MODELS = {
    "ridge": TangentRidge((np.inf, np.inf)),
    "erf, no intercept": TangentRidge((np.inf,), "erf", fit_intercept=False),
    "leave-one-out": TangentRidge((np.inf,), alpha="loo"),
    "layers and weights": TangentRidge((np.inf, np.inf), layers=[2, 0], layer_weights=[0.3, 2.0]),
    "interpolation": TangentRidge((np.inf,), loss="interpolation"),
    "rounds": AdaptiveTangentRegressor((np.inf,), adaptivity=0.0, n_rounds=2, metric="function", round_adaptivity=10.0),
    "no bias": TangentRidge((np.inf,), bias=False),
    "fixed by Newton": AdaptiveTangentRegressor((np.inf,), adaptivity=0.0, solver="newton", tol=1e-12),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_predictions_are_those_of_the_coefficients_before_and_after_a_pickle(data, rng, model, weighted):
    X, y, X_new = data
    weights = rng.uniform(0.5, 2.0, len(X)) if weighted else None
    fitted = model.fit(X, np.column_stack([y, y**2]), sample_weight=weights)
    again = pickle.loads(pickle.dumps(fitted))
    assert isinstance(again.coefs_, DualCoefs)
    assert again.solution_.coefs is again.coefs_
    assert len(again.coefs_) == len(again.features_.layers_)
    # Independent: coefficients on factors, not β on kernels.
    by_factors = fitted.features_.predict(X_new, list(fitted.coefs_)) + fitted.intercept_
    np.testing.assert_allclose(fitted.predict(X_new), by_factors, atol=1e-6)
    np.testing.assert_array_equal(again.predict(X_new), fitted.predict(X_new))
    for one, other in zip(again.coefs_, fitted.coefs_, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6 * np.abs(other).max())
    for one, other in zip(again.adaptation_.theta, again.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(again.kernel(X_new, X), fitted.kernel(X_new, X), atol=1e-12)
    np.testing.assert_allclose(
        fitted.predict(X), fitted.solution_.prediction + fitted.intercept_, atol=1e-6 * np.abs(y).max() ** 2
    )


def test_a_model_of_many_classes_is_small(rng):
    X, y = rng.standard_normal((250, 7)), rng.integers(0, 9, 250)
    model = TangentRidgeClassifier((np.inf, np.inf)).fit(X, y)
    assert len(pickle.dumps(model)) < 8 * len(X) * (2 * 7 + 6 * 9) + 50_000
    assert model.initial_features_ is model.features_
    again = pickle.loads(pickle.dumps(model))
    assert again.initial_features_ is again.features_
    np.testing.assert_array_equal(again.decision_function(X), model.decision_function(X))


def test_a_chosen_model_is_small(data):
    X, y, X_new = data
    model = AdaptiveTangentRegressorCV(depths=(1,), biases=(1.0,), max_rounds=1, cv=2).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    assert isinstance(again.best_estimator_.coefs_, DualCoefs)
    np.testing.assert_array_equal(again.predict(X_new), model.predict(X_new))


def test_a_prediction_takes_each_pair_of_the_kernel_once(data, monkeypatch):
    X, y, X_new = data
    model = pickle.loads(pickle.dumps(TangentRidgeClassifier((np.inf, np.inf)).fit(X, np.digitize(y, [-0.5, 0.5]))))
    pairs, kernel = [], InfiniteMLP.kernel

    def counted(self, X, Y=None, layer_weights=None):
        pairs.append(len(X) * len(Y))
        return kernel(self, X, Y, layer_weights)

    def refuse(*_):
        raise AssertionError("neither factors nor their products are needed")

    monkeypatch.setattr(InfiniteMLP, "kernel", counted)
    monkeypatch.setattr(InfiniteMLP, "layer_products", refuse)
    model.predict(X_new)
    assert sum(pairs) == len(X_new) * len(X)


def test_many_samples_are_predicted_in_batches(data, monkeypatch):
    X, y, X_new = data
    model = TangentRidge((np.inf,)).fit(X, y)
    expected = model.predict(X_new)
    monkeypatch.setattr("lowrank_tangent.features._BATCH_BYTES", 16 * len(X) * 7)
    sizes, kernel = [], InfiniteMLP.kernel
    monkeypatch.setattr(InfiniteMLP, "kernel", lambda self, X, *rest: sizes.append(len(X)) or kernel(self, X, *rest))
    np.testing.assert_allclose(model.predict(X_new), expected, rtol=1e-12)
    assert sizes == [7, 7, 7, 4]


def test_single_precision_is_kept_small_too(data):
    X, y, X_new = data
    model = TangentRidge((np.inf,), dtype=np.float32).fit(X, y)
    assert isinstance(model.coefs_, DualCoefs)
    np.testing.assert_allclose(model.predict(X_new), TangentRidge((np.inf,)).fit(X, y).predict(X_new), atol=1e-3)


@pytest.mark.parametrize(
    "model",
    [
        AdaptiveTangentRegressor((np.inf,), alpha=0.1),
        AdaptiveTangentRegressor((np.inf, np.inf), "erf", penalty="kl", alpha=0.1, layer_weights=[1.0, 2.0, 0.5]),
        AdaptiveTangentRegressor((np.inf, np.inf), alpha=0.1, layers=[2, 0], layer_weights=[1.0, 3.0]),
        AdaptiveTangentRegressor((np.inf, np.inf), alpha=0.1, layers=[1], dtype=np.float32, tol=1e-4),
        AdaptiveTangentRegressor((np.inf,), alpha=0.1, n_rounds=1),
        AdaptiveTangentRegressor((np.inf,), adaptivity=0.0, solver="proximal", tol=0.3),
    ],
)
def test_coefficients_that_adapt_are_solved_with_once(data, monkeypatch, model):
    X, y, X_new = data
    model.fit(X, np.column_stack([y, y**2]))
    expected = model.features_.predict(X_new, list(model.coefs_)) + model.intercept_
    again = pickle.loads(pickle.dumps(model))
    assert isinstance(again.coefs_, AdaptedCoefs)
    tol = 1e-3 if model.dtype == np.float32 else 1e-7
    for fitted in (model, again):
        np.testing.assert_allclose(fitted.predict(X_new), expected, atol=tol)
        np.testing.assert_allclose(
            fitted.predict(X), fitted.solution_.prediction + fitted.intercept_, atol=tol * np.abs(y).max() ** 2
        )

    def refuse(*_):
        raise AssertionError("what was solved for the first prediction serves all others")

    monkeypatch.setattr("lowrank_tangent.networks.anchors.solve_triangular", refuse)
    for fitted in (model, again):
        np.testing.assert_allclose(fitted.predict(X_new[:5]), expected[:5], atol=tol)
    assert len(pickle.dumps(again)) == len(pickle.dumps(pickle.loads(pickle.dumps(again))))


@pytest.mark.parametrize("adaptivity", [0.0, 1.0])
def test_repeated_samples_predict_the_same(rng, adaptivity):
    X = np.repeat(rng.standard_normal((20, 3)), 2, axis=0)
    model = AdaptiveTangentRegressor((np.inf, np.inf), alpha=0.01, adaptivity=adaptivity).fit(X, X[:, 0] * X[:, 1])
    assert model.features_.weights_.jitter > 0.0
    X_new = rng.standard_normal((15, 3))
    by_factors = model.features_.predict(X_new, list(model.coefs_))[:, 0] + model.intercept_
    np.testing.assert_allclose(model.predict(X_new), by_factors, atol=1e-6)


def test_warm_starts_begin_where_a_pickle_ended(data):
    X, y, _ = data
    model = AdaptiveTangentRegressor((np.inf,), adaptivity=0.0, solver="newton", warm_start=True).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    assert again.features_.serves(X)
    assert again.fit(X, y).n_iter_ <= 1
    np.testing.assert_allclose(again.predict(X), model.predict(X), atol=1e-8)


def test_coefficients_behave_like_a_list(data):
    X, y, _ = data
    coefs = TangentRidge((np.inf,)).fit(X, y).coefs_
    assert len(coefs) == 2
    assert [coef.shape for coef in coefs] == [(5, 60), (60, 1)]
    assert coefs[0] is next(iter(coefs))
    assert coefs[-1] is list(coefs)[1]
