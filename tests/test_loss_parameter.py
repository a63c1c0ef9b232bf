"""Estimators take losses by name and as instances, of the library and of one's own."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from test_own_losses import Huber

from lowrank_tangent import AdaptiveTangentClassifier, AdaptiveTangentRegressor, TangentRidge, TangentRidgeClassifier
from lowrank_tangent.losses import Multinomial, Squared

REGRESSORS = [AdaptiveTangentRegressor, TangentRidge]
CLASSIFIERS = [AdaptiveTangentClassifier, TangentRidgeClassifier]


@pytest.fixture
def data(rng):
    X = rng.standard_normal((60, 3))
    return X, X[:, 0] * X[:, 1] + 0.5 * X[:, 2]


@pytest.mark.parametrize("estimator", REGRESSORS + CLASSIFIERS)
def test_an_instance_is_what_its_name_says(data, estimator):
    X, y = data[0], data[1] > 0
    for name, instance in (("squared", Squared()), ("multinomial", Multinomial())):
        if name == "multinomial" and estimator in REGRESSORS:
            continue
        named = estimator((8,), loss=name, random_state=0).fit(X, y)
        given = estimator((8,), loss=instance, random_state=0).fit(X, y)
        np.testing.assert_array_equal(named.predict(X), given.predict(X))
        assert hasattr(given, "predict_proba") == (name == "multinomial")
        assert instance.sample_weight is None, "the instance that was given is left as it was"


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_a_loss_of_ones_own(data, estimator):
    X, y = data
    spoilt = np.where(np.arange(60) % 10 == 0, y + 30.0, y)
    robust = estimator((16,), loss=Huber(0.5), alpha=0.05, random_state=0).fit(X, spoilt)
    squares = estimator((16,), alpha=0.05, random_state=0).fit(X, spoilt)
    assert robust.dual_gap_ <= 1e-6
    right = np.arange(60) % 10 != 0
    errors = [np.mean((model.predict(X) - y)[right] ** 2) for model in (robust, squares)]
    assert errors[0] < 0.1 * errors[1]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(robust)).predict(X), robust.predict(X))
    assert clone(robust).loss.delta == 0.5


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_weights_of_a_loss_of_ones_own_are_repeated_rows(data, estimator):
    X, y = data
    counts = np.arange(60) % 3
    settings = {"loss": Huber(0.5), "alpha": 0.3, "tol": 1e-10, "random_state": 0}
    weighted = estimator((8,), **settings).fit(X, y, counts)
    repeated = estimator((8,), **settings).fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), atol=1e-5)


def test_losses_are_searched_like_any_parameter(data):
    X, y = data
    search = GridSearchCV(TangentRidge((8,), random_state=0), {"loss": ["squared", Huber(0.1), Huber(10.0)]}, cv=3)
    scores = search.fit(X, y).cv_results_["mean_test_score"]
    assert scores[0] == pytest.approx(scores[2], abs=1e-4)  # nothing is farther than 10
    assert abs(scores[0] - scores[1]) > 1e-3


@pytest.mark.parametrize("loss", [Huber(1.0), "interpolation", Multinomial()])
def test_alpha_by_leaving_one_out_is_for_squares(data, loss):
    X, y = data
    model = TangentRidgeClassifier if isinstance(loss, Multinomial) else TangentRidge
    with pytest.raises(ValueError, match=r"alpha='loo' is for loss='squared'; got loss=.*Give alpha as a number"):
        model((8,), loss=loss, alpha="loo").fit(X, y > 0)


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_a_loss_of_classes_is_for_classifiers(data, estimator):
    with pytest.raises(ValueError, match=r"loss=.* is for class labels; use a classifier, or loss='squared'"):
        estimator(loss=Multinomial()).fit(*data)
    with pytest.raises(TypeError, match=r"instance of losses\.Loss; got the class Huber: give Huber\(\)"):
        estimator(loss=Huber).fit(*data)
    with pytest.raises(ValueError, match="loss must be one of"):
        estimator(loss="hinge").fit(*data)
