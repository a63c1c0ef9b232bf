"""One seed, the same weights everywhere; and every kind of random state does."""

import numpy as np
import pytest
from sklearn.base import clone

from lowrank_tangent import (
    AdaptiveTangentClassifier,
    AdaptiveTangentRegressor,
    AdaptiveTangentRegressorCV,
    StructuredRegression,
    TangentFeatures,
    TangentRidge,
    TangentRidgeClassifier,
    solve,
)
from lowrank_tangent.networks import MLP
from lowrank_tangent.theory import verify_equivalence

STATES = [lambda: 3, lambda: np.int64(3), lambda: np.random.RandomState(3), lambda: np.random.default_rng(3)]


@pytest.fixture
def data(rng):
    X = rng.standard_normal((24, 3))
    return X, np.sign(X[:, 0] * X[:, 1])


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "estimator", [TangentRidge, TangentRidgeClassifier, AdaptiveTangentRegressor, AdaptiveTangentClassifier]
)
def test_estimators_features_and_networks_draw_the_same_weights(data, estimator, state):
    X, y = data
    network = MLP((5, 4))
    expected = network.initialise(3, 1, state())
    features = TangentFeatures(network, random_state=state()).fit(X)
    model = estimator((5, 4), alpha=1.0, random_state=state()).fit(X, y)
    for found in (features.weights_, model.features_.weights_):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_model_of_a_choice_draws_as_its_own_seed_says(data):
    X, y = data
    model = AdaptiveTangentRegressorCV(depths=(1,), widths=(8,), max_rounds=1, cv=2, random_state=3).fit(X, y)
    best = model.best_estimator_
    again = TangentFeatures(MLP((8,), bias=best.bias), random_state=best.random_state).fit(X)
    np.testing.assert_array_equal(best.features_.weights_[0], again.weights_[0])
    from_generators = [
        clone(model).set_params(random_state=np.random.default_rng(3)).fit(X, y).predict(X) for _ in range(2)
    ]
    np.testing.assert_array_equal(*from_generators)


def test_one_generator_goes_on_where_it_ended():
    rng = np.random.default_rng(0)
    first, second = (MLP((4,)).initialise(3, random_state=rng) for _ in range(2))
    assert not np.array_equal(first[0], second[0])


def test_without_a_seed_weights_follow_numpys_global_state_as_in_scikit_learn():
    np.random.seed(5)  # noqa: NPY002
    first = MLP((4,)).initialise(3)
    np.random.seed(5)  # noqa: NPY002
    np.testing.assert_array_equal(first[0], MLP((4,)).initialise(3)[0])
    assert not np.array_equal(first[0], MLP((4,)).initialise(3)[0])


@pytest.mark.parametrize("state", STATES)
def test_random_starts_are_repeatable(data, state):
    X, y = data
    operator = TangentFeatures(MLP((4,)), random_state=0).fit(X).operator(X)
    problem = StructuredRegression(operator, y, "joint", 0.01, 30.0)
    objectives = [solve(problem, n_init=3, random_state=state()).objective for _ in range(2)]
    assert objectives[0] == objectives[1]


def test_equivalence_takes_generators(data):
    X, y = data
    operator = TangentFeatures(MLP((2,)), random_state=0).fit(X[:8]).operator(X[:8])
    problem = StructuredRegression(operator, y[:8], "kl", 0.5)
    reports = [verify_equivalence(problem, 2, random_state=np.random.default_rng(1)) for _ in range(2)]
    assert reports[0].joint == reports[1].joint


@pytest.mark.parametrize("state", ["zero", -1, 1.5])
def test_what_is_no_random_state_is_refused(data, state):
    X, _ = data
    with pytest.raises(ValueError, match=r"cannot be used to seed|Seed must be between"):
        TangentFeatures(random_state=state).fit(X)
