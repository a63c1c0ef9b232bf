"""Importances of features by the slopes of what is predicted."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectFromModel

from lowrank_tangent import AdaptiveTangentClassifierCV, AdaptiveTangentRegressor, AdaptiveTangentRegressorCV
from lowrank_tangent.datasets import make_square
from lowrank_tangent.estimators.importances import slope_importances

SMALL = {"depths": 1, "biases": 1.0, "cv": 3}


def test_slopes_are_per_standard_deviation(rng):
    X, B = rng.standard_normal((60, 4)) * [1.0, 10.0, 0.1, 3.0] + 5.0, rng.standard_normal((4, 2))
    weights = rng.integers(0, 3, 60)
    expected = np.sum(B**2, axis=1) * np.repeat(X, weights, axis=0).var(axis=0)
    np.testing.assert_allclose(slope_importances(lambda Z: Z @ B, X, weights), expected / expected.sum())
    # Many features: fewer samples, and the same for a function of one slope.
    X, b = rng.standard_normal((600, 300)), rng.standard_normal(300)
    expected = b**2 * X.var(axis=0)
    np.testing.assert_allclose(slope_importances(lambda Z: 1e-120 * (Z @ b)[:, None], X), expected / expected.sum())
    np.testing.assert_array_equal(slope_importances(lambda Z: np.ones((len(Z), 1)), X), 0.0)
    X[:, 1] = 2.0
    assert slope_importances(lambda Z: Z[:, :3], X)[1] == 0.0


@pytest.mark.parametrize("p", [20, 21, 45])
def test_features_are_selected_without_rounds(rng, p):
    X = rng.standard_normal((120, p))
    y = 2.0 * X[:, 3] + X[:, 7] + 0.5 * rng.standard_normal(120)
    model = AdaptiveTangentRegressorCV(**SMALL, max_rounds=0).fit(X, y)
    assert list(np.argsort(model.feature_importances_)[-2:]) == [7, 3]
    assert model.feature_importances_.sum() == pytest.approx(1.0)
    kept = SelectFromModel(model, prefit=True).get_support()
    assert kept[[3, 7]].all()
    assert kept.sum() < 8
    # Nothing to learn, nothing to prefer.
    with pytest.warns(UserWarning, match="y is constant"):
        flat = AdaptiveTangentRegressorCV(**SMALL, max_rounds=0).fit(X, np.ones(120))
    np.testing.assert_allclose(flat.feature_importances_, 0.0)
    assert SelectFromModel(flat, prefit=True).transform(X).shape == X.shape


@pytest.mark.parametrize("width", [24, np.inf])
def test_slopes_with_rounds_are_those_of_the_chosen_model(width):
    X, y = make_square(150, 5, random_state=0)
    X = X * [1.0, 2.0, 1.0, 0.5, 1.0]
    model = AdaptiveTangentRegressorCV(**SMALL, widths=width, activations="erf", max_rounds=2, random_state=0).fit(X, y)
    assert model.best_params_["n_rounds"] > 0
    steps = 1e-4 * np.eye(5)
    slopes = np.stack([(model.predict(X + e) - model.predict(X - e)) / 2e-4 for e in steps], axis=1)
    expected = np.mean(slopes**2, axis=0) * X.var(axis=0)
    np.testing.assert_allclose(model.feature_importances_, expected / expected.sum(), atol=0.1)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).feature_importances_, model.feature_importances_)


@pytest.mark.parametrize("rounds", [{}, {"n_rounds": 2, "metric": "evidence"}, {"n_rounds": 2, "metric": "relevance"}])
@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("columns", [1, 2])
def test_gradients_are_those_of_predictions(rng, rounds, activation, columns):
    X = rng.standard_normal((40, 3))
    Y = np.column_stack([X[:, 0] * X[:, 1], X[:, 2]])[:, :columns]
    model = AdaptiveTangentRegressor((np.inf,), activation, alpha="loo", adaptivity=0.0, **rounds).fit(X, Y)
    step, gradients = 1e-5, model.input_gradients()
    for feature in range(3):
        move = step * np.eye(3)[feature]
        # A kernel of ReLU units has a kink where its samples meet: the mean of both sides is its slope there.
        slopes = (model.predict(X + move) - model.predict(X - move)).reshape(40, columns) / (2.0 * step)
        np.testing.assert_allclose(gradients[:, feature], slopes, atol=1e-4 * np.abs(gradients).max())
    with pytest.raises(ValueError, match="input_gradients are for networks of infinite width"):
        AdaptiveTangentRegressor((4,)).fit(X, Y[:, 0]).input_gradients()


def test_many_features_take_no_prediction_each(rng, monkeypatch):
    X = rng.standard_normal((40, 3000)) * np.where(np.arange(3000) == 5, 1.0, 0.01)
    y = 3.0 * X[:, 5] + 0.1 * rng.standard_normal(40)
    model = AdaptiveTangentRegressorCV(**SMALL, max_rounds=0).fit(X, y)
    monkeypatch.setattr(AdaptiveTangentRegressor, "predict", lambda *args: pytest.fail("a prediction"))
    assert np.argmax(pickle.loads(pickle.dumps(model)).feature_importances_) == 5


def test_classes_have_slopes_and_no_refit_has_none():
    X, y = load_iris(return_X_y=True)
    model = AdaptiveTangentClassifierCV(**SMALL, max_rounds=0).fit(X, y)
    assert list(np.argsort(model.feature_importances_)[-2:]) == [3, 2]
    model.set_params(refit=False).fit(X, y)
    assert not hasattr(model, "feature_importances_")
    with pytest.raises(NotFittedError):
        _ = AdaptiveTangentRegressorCV().feature_importances_
    # One model of its own has the shares of its metric, as before.
    single = AdaptiveTangentRegressor((np.inf,), adaptivity=1.0).fit(X, y)
    np.testing.assert_allclose(single.feature_importances_, np.diagonal(single.input_metric_) / 4.0)
