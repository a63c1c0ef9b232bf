"""Estimators take any network, and the short parameters say the one that they always did."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, check_cv
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KernelCenterer, StandardScaler
from test_network_contract import Antisymmetric

from lowrank_tangent import (
    AdaptiveTangentClassifier,
    AdaptiveTangentClassifierCV,
    AdaptiveTangentRegressor,
    AdaptiveTangentRegressorCV,
    TangentRidge,
    TangentRidgeClassifier,
)
from lowrank_tangent.networks import MLP, InfiniteMLP

ESTIMATORS = [AdaptiveTangentRegressor, AdaptiveTangentClassifier, TangentRidge, TangentRidgeClassifier]
NETWORK = Antisymmetric(MLP((8,), "tanh"), MLP((8,), "tanh"))


@pytest.fixture
def data(rng):
    X = rng.standard_normal((60, 3))
    return X, np.sin(2.0 * X[:, 0]) + X[:, 1] * X[:, 2]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    ("network", "short"),
    [
        (
            MLP((12,), "gelu", "he", bias=2.0),
            {"hidden_layer_sizes": (12,), "activation": "gelu", "init": "he", "bias": 2.0},
        ),
        (InfiniteMLP(2, "erf"), {"hidden_layer_sizes": (np.inf, np.inf), "activation": "erf"}),
    ],
    ids=["mlp", "infinite"],
)
def test_a_network_and_its_short_parameters_say_the_same(data, estimator, network, short):
    X, y = data[0], data[1] > 0
    given = estimator(network=network, random_state=3).fit(X, y)
    said = estimator(**short, random_state=3).fit(X, y)
    np.testing.assert_array_equal(given.predict(X), said.predict(X))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_beside_a_network_the_short_parameters_are_refused(data, estimator):
    message = r"network=.* says all of the network; leave out hidden_layer_sizes=\(4,\), bias=0.5"
    with pytest.raises(ValueError, match=message):
        estimator((4,), bias=0.5, network=MLP()).fit(data[0], data[1] > 0)
    with pytest.raises(TypeError, match=r"lowrank_tangent\.networks\.Network; got .*list"):
        estimator(network=[MLP()]).fit(data[0], data[1] > 0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("batch_size", [None, 17])
def test_a_network_of_ones_own_in_every_estimator(data, estimator, batch_size):
    X, y = data[0], data[1] > 0
    model = estimator(network=NETWORK, alpha=0.05, tol=1e-10, batch_size=batch_size, random_state=0).fit(X, y)
    assert model.dual_gap_ <= 1e-10
    assert len(model.coefs_) == NETWORK.n_layers
    assert model.score(X, y) > 0.3
    # Kernel ridge with the adapted kernel makes the same predictions.
    targets = y.astype(float) if hasattr(model, "classes_") is False else 2.0 * y - 1.0
    kernel = KernelCenterer().fit_transform(model.kernel(X))
    ridge = KernelRidge(alpha=model.alpha_, kernel="precomputed").fit(kernel, targets - targets.mean())
    scores = model.decision_function(X) if hasattr(model, "classes_") else model.predict(X)
    np.testing.assert_allclose(ridge.predict(kernel) + targets.mean(), scores, atol=1e-4)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))
    assert not hasattr(clone(model), "coefs_")


@pytest.mark.parametrize("metric", ["coefficient", "gradient"])
def test_rounds_of_a_network_of_ones_own(data, metric):
    X, y = data
    settings = {"alpha": 0.05, "adaptivity": 10.0, "metric": metric, "n_rounds": 2, "random_state": 0}
    model = AdaptiveTangentRegressor(network=NETWORK, **settings).fit(X, y)
    assert [one.left[0] is None for one in model.rounds_] == [True, False, False]
    kernel = KernelCenterer().fit_transform(model.kernel(X))
    ridge = KernelRidge(alpha=model.alpha_, kernel="precomputed").fit(kernel, y - y.mean())
    np.testing.assert_allclose(ridge.predict(kernel) + y.mean(), model.predict(X), atol=1e-3)
    assert not np.allclose(kernel, KernelCenterer().fit_transform(model.initial_kernel(X)), rtol=0.05)
    assert model.transform(X).shape == X.shape


@pytest.mark.parametrize("estimator", [AdaptiveTangentRegressorCV, AdaptiveTangentClassifierCV])
def test_a_network_of_ones_own_in_the_choice(data, estimator):
    X, y = data
    classifies = estimator is AdaptiveTangentClassifierCV
    target = y > 0 if classifies else y
    model = estimator(network=[NETWORK, MLP((4,))], max_rounds=2, cv=3, random_state=0).fit(X, target)
    tried = model.cv_results_["params"]
    rounds = {params["n_rounds"] for params in tried if params.get("network") is NETWORK}
    assert rounds == {0, 1, 2}
    # What the table says of a candidate is what the estimator that it names does on the folds.
    index = next(i for i, params in enumerate(tried) if params.get("network") is NETWORK and params["n_rounds"] == 1)
    errors = []
    for train, test in check_cv(3, target, classifier=classifies).split(X, target):
        single = AdaptiveTangentClassifier if classifies else AdaptiveTangentRegressor
        seed = model.best_estimator_.random_state
        fitted = single(**{**tried[index], "random_state": seed}, alpha="loo", adaptivity=0.0).fit(
            X[train], target[train]
        )
        scores = fitted.decision_function(X[test]) if classifies else fitted.predict(X[test])
        errors.append(np.mean((scores - (2.0 * target[test] - 1.0 if classifies else target[test])) ** 2))
    assert -model.cv_results_["mean_test_score"][index] == pytest.approx(np.mean(errors), rel=1e-6)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


def test_networks_are_searched_like_any_parameter(data):
    X, y = data
    pipeline = make_pipeline(StandardScaler(), TangentRidge(random_state=0))
    search = GridSearchCV(pipeline, {"tangentridge__network": [MLP((8,)), InfiniteMLP(), NETWORK]}, cv=3).fit(X, y)
    assert search.best_params_["tangentridge__network"] in (MLP((8,)), InfiniteMLP(), NETWORK)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_warm_start_goes_on_with_batches_of_another_size(data):
    X, y = data
    model = AdaptiveTangentRegressor((8,), adaptivity=10.0, warm_start=True, random_state=0).fit(X, y)
    weights = model.initial_features_.weights_[0]
    model.set_params(batch_size=20).fit(X, y)
    assert model.features_.batch_size == 20
    assert model.n_iter_ <= 2
    np.testing.assert_array_equal(model.initial_features_.weights_[0], weights)
    model.set_params(batch_size=None).fit(X, y)
    assert model.features_.batch_size is None
