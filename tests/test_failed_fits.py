"""A fit that fails, or that is interrupted, leaves the estimator as it was."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from lowrank_tangent import AdaptiveTangentClassifier, AdaptiveTangentRegressor, TangentRidge, TangentRidgeClassifier

REGRESSORS = [AdaptiveTangentRegressor, TangentRidge]
CLASSIFIERS = [AdaptiveTangentClassifier, TangentRidgeClassifier]
#: Where an interrupt arrives: before the features, in them, in the solver, after it.
STEPS = ["network_of", "TangentFeatures.fit", "solve", "adapt"]


@pytest.fixture
def X(rng):
    return rng.standard_normal((40, 3))


def labels_of(X, names):
    return np.array(names)[(X[:, 0] > 0.4).astype(int) + (X[:, 0] > -0.4)]


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_a_classifier_keeps_its_classes(X, model):
    fitted = model((8,), random_state=0).fit(X, labels_of(X, ["a", "b", "c"]))
    before = fitted.predict(X)
    with pytest.raises(ValueError, match="alpha must be a finite number > 0"):
        fitted.set_params(alpha=-1).fit(X, labels_of(X, ["x", "y", "z"]))
    np.testing.assert_array_equal(fitted.predict(X), before)
    assert set(fitted.classes_) == {"a", "b", "c"}


@pytest.mark.parametrize("model", REGRESSORS)
@pytest.mark.parametrize("targets", [1, 2])
def test_a_regressor_still_takes_the_data_that_it_was_fitted_to(X, model, targets):
    y = X[:, 0] if targets == 1 else X[:, :2]
    fitted = model((8,), random_state=0).fit(X, y)
    before = fitted.predict(X)
    with pytest.raises(ValueError, match="alpha must be a finite number > 0"):
        fitted.set_params(alpha=-1).fit(X[:, :2], X)
    np.testing.assert_array_equal(fitted.predict(X), before)
    assert fitted.n_features_in_ == 3


@pytest.mark.parametrize("model", REGRESSORS + CLASSIFIERS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_refit_changes_nothing(X, monkeypatch, model, step, error):
    fitted = model((8,), random_state=0).fit(X, X[:, 0] > 0)
    before, prediction = dict(vars(fitted)), fitted.predict(X)

    def interrupt(*args, **kwargs):
        raise error

    monkeypatch.setattr(f"lowrank_tangent.estimators.model.{step}", interrupt)
    with pytest.raises(error):
        fitted.fit(X[:, :2], X[:, 0] > 1.0)
    after = vars(fitted)
    assert after.keys() == before.keys()
    assert all(after[name] is value for name, value in before.items())
    monkeypatch.undo()
    np.testing.assert_array_equal(fitted.predict(X), prediction)


@pytest.mark.parametrize("model", REGRESSORS + CLASSIFIERS)
def test_after_a_first_fit_that_fails_a_model_is_not_fitted(X, model):
    failed = model((8,), alpha=-1)
    with pytest.raises(ValueError, match="alpha must be a finite number > 0"):
        failed.fit(X, X[:, 0] > 0)
    for method in (failed.predict, failed.kernel, failed.initial_kernel):
        with pytest.raises(NotFittedError):
            method(X)
    assert not hasattr(failed, "n_features_in_")
