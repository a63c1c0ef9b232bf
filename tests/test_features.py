"""What features refuse at the door, and what they keep."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from lowrank_tangent import StructuredRegression, TangentFeatures, TangentRidge, solve
from lowrank_tangent.networks import MLP, InfiniteMLP

NETWORKS = [MLP((6,)), InfiniteMLP()]


@pytest.fixture
def X(rng):
    return rng.standard_normal((12, 3))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("convert", [np.ndarray.tolist, pd.DataFrame, np.asfortranarray])
def test_what_becomes_an_array_is_one(X, network, convert):
    expected = TangentFeatures(network, random_state=0).fit(X)
    found = TangentFeatures(network, random_state=0).fit(convert(X), sample_weight=[1] * 12)
    np.testing.assert_allclose(found.operator(convert(X)).gram(), expected.operator(X).gram(), rtol=1e-9)
    coefs = [np.ones(shape) for shape in expected.operator(X).coef_shapes]
    np.testing.assert_allclose(found.predict(convert(X), coefs), expected.predict(X, coefs), rtol=1e-9)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("at", ["fit", "operator", "predict"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: np.where(X > 0, np.nan, X), "Input X contains NaN"),
        (lambda X: np.where(X > 0, np.inf, X), "Input X contains infinity"),
        (lambda X: np.char.add(X.astype(str)[:, :2], "x"), "could not convert string to float"),
        (lambda X: X[:0], r"Found array with 0 sample\(s\) \(shape=\(0, 3\)\)"),
        (lambda X: X[:, :0], r"Found array with 0 feature\(s\)"),
        (lambda X: X[0], "Expected 2D array, got 1D array"),
        (lambda X: X + 1j, "Complex data not supported"),
    ],
)
def test_bad_samples_are_refused_with_their_cause(X, network, at, change, message):
    features = TangentFeatures(network, random_state=0)
    if at != "fit":
        features.fit(X)
    arguments = [np.ones((4, 6)), np.ones((7, 1))] if at == "predict" else []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=message):
            getattr(features, at)(change(X), *([arguments] if arguments else []))


def test_samples_beyond_single_precision_are_refused_as_that(X):
    features = TangentFeatures(MLP((4,)), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"value too large for dtype\('float32'\)"):
            features.fit(1e300 * X)


@pytest.mark.parametrize("network", NETWORKS)
def test_another_number_of_features_is_named(X, network):
    features = TangentFeatures(network, random_state=0).fit(X)
    with pytest.raises(ValueError, match="X has 2 features, and these tangent features were fitted on 3"):
        features.operator(X[:, :2])


def test_use_before_fit_says_so(X):
    for call in (lambda f: f.operator(X), lambda f: f.predict(X, [])):
        with pytest.raises(NotFittedError, match=r"not fitted yet: call fit\(X\) first"):
            call(TangentFeatures())


@pytest.mark.parametrize("n_outputs", [0, -1])
def test_there_is_at_least_one_output(X, n_outputs):
    with pytest.raises(ValueError, match="n_outputs"):
        TangentFeatures().fit(X, n_outputs)


def test_bad_weights_are_refused(X):
    with pytest.raises(ValueError, match=r"sample_weight must .*have shape"):
        TangentFeatures().fit(X, sample_weight=np.ones(3))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_fit_that_fails_leaves_features_as_they_were(X, network):
    features = TangentFeatures(network, random_state=0).fit(X)
    before, kernel = dict(vars(features)), features.operator(X).gram()
    for bad, error in (([[np.nan, 1.0]], ValueError), (1e200 * X, ValueError)):
        with pytest.raises(error):
            features.fit(bad, 2)
        assert vars(features) == before
    np.testing.assert_array_equal(features.operator(X).gram(), kernel)


@pytest.mark.parametrize("network", [MLP((5,), bias=1e200), InfiniteMLP(1, bias=1e200), InfiniteMLP(2, "erf", 1e200)])
def test_a_bias_that_overflows_is_named(X, network):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"overflow.*take a bias of about 1"):
            TangentFeatures(network, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"overflows: the values of X reach .*bias of about 1; it is 1e\+200"):
        TangentRidge((np.inf,), bias=1e200).fit(X, X[:, 0])


def test_streams_and_problems_on_them_are_pickled(X):
    features = TangentFeatures(MLP((5,)), random_state=0, batch_size=4).fit(X)
    problem = StructuredRegression(features.operator(X), X[:, 0], alpha=0.1)
    again = pickle.loads(pickle.dumps(problem))
    assert again.operator.is_streamed
    np.testing.assert_array_equal(again.operator.gram(), problem.operator.gram())
    assert solve(again).objective == solve(problem).objective


def test_predictions_of_a_stream_take_no_more_samples_at_a_time(X, monkeypatch):
    features = TangentFeatures(MLP((5,)), random_state=0, batch_size=4).fit(X)
    sizes, layers = [], MLP.layers
    monkeypatch.setattr(MLP, "layers", lambda self, state, X: sizes.append(len(X)) or layers(self, state, X))
    coefs = [np.ones(shape) for shape in features.operator(X[:4]).coef_shapes]
    sizes.clear()
    features.predict(X, coefs)
    assert sizes == [4, 4, 4]  # each sample once
