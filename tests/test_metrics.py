"""Metrics of rounds: factors and kernels say the same, and a metric of one's own goes everywhere."""

import itertools
import pickle

import numpy as np
import pytest
from sklearn.base import clone

from lowrank_tangent import AdaptiveTangentRegressor, AdaptiveTangentRegressorCV, TangentFeatures
from lowrank_tangent.choice.chains import outcomes_of_rounds
from lowrank_tangent.datasets import make_square
from lowrank_tangent.networks import InfiniteMLP
from lowrank_tangent.penalties import ScaledPenalty, get_penalty
from lowrank_tangent.problem import StructuredRegression
from lowrank_tangent.rounds import METRICS, Metric, Relinearisation, Stretch
from lowrank_tangent.rounds.kernel_rounds import KernelInputs, KernelRound, Training
from lowrank_tangent.solvers import solve


class RootOfGradients(Metric):
    """As recursive feature machines have it."""

    name = "root of gradients"
    needs_kernel_derivative = True

    def __init__(self, power=0.5):
        self.power = power

    def from_factors(self, view):
        s, directions = view.principal(view.whole_gradients())
        return Stretch(s**self.power, directions, elsewhere=0.0)


class MeanGradient(Metric):
    """Features are stretched by their mean absolute gradient while gates stand still."""

    name = "mean gradient"
    by_features = True

    def from_factors(self, view):
        mean = sum((np.abs(slopes).sum(axis=2) @ view.shares[rows] for rows, slopes in view.still_gradients()))
        return Stretch(mean, None)


def dense(stretch):
    inputs = stretch.inputs
    return np.diag(inputs) if stretch.directions is None else inputs.to_dense()


@pytest.mark.parametrize("metric", [*METRICS, RootOfGradients(), MeanGradient()])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_factors_and_kernels_say_the_same(rng, metric, weighted, fit_intercept):
    X = rng.standard_normal((40, 5))
    Y = np.column_stack([X[:, 0] * X[:, 1], X[:, 2] ** 2]) + 1.0
    weights = rng.uniform(0.5, 2.0, 40) if weighted else None
    network = InfiniteMLP(2, "erf", 0.7)
    features = TangentFeatures(network).fit(X, 2, weights)
    rounds = Relinearisation(features, metric, 30.0)
    metric = METRICS.get(metric, metric) if isinstance(metric, str) else metric
    price = ScaledPenalty(get_penalty("kl"), 30.0)
    kernels = KernelRound(
        KernelInputs(network, X, X, metric.by_features), Training(X, Y, weights), price, fit_intercept
    )
    for _ in range(2):
        problem = StructuredRegression(
            rounds.features.operator(X), Y, "kl", 1.0, 0.0, sample_weight=weights, fit_intercept=fit_intercept
        ).diagonalised()
        problem = problem.with_strength(problem.ridge_path.best_alpha()[0], 0.0)
        solution = solve(problem)
        # A step up the evidence remembers the one before: both are asked once a round.
        expected = dense(rounds._stretch(0, problem, solution))
        following = kernels.next(metric)
        before, after = kernels._transform, following._transform
        if metric.by_features:
            before, after = np.diag(before), np.diag(after)
        found = np.linalg.solve(before, after)
        np.testing.assert_allclose(
            found / np.linalg.norm(found), expected / np.linalg.norm(expected), atol=1e-7 * np.sqrt(5)
        )
        assert np.ptp(np.linalg.eigvalsh(expected)) > 1e-3
        rounds._ascent._last = -np.inf
        rounds._ascent._step = kernels.ascent._step
        rounds.advance(problem, solution, X)
        kernels = following


@pytest.mark.parametrize("n_features", [6, 60])
@pytest.mark.parametrize("metric", [RootOfGradients(0.4), MeanGradient()])
def test_a_metric_of_ones_own_goes_to_estimators_and_to_the_choice(rng, metric, n_features):
    X, y = make_square(120, n_features, random_state=0)
    X, y, X_new = X[:50], y[:50], X[50:]
    model = AdaptiveTangentRegressor(
        (np.inf,), alpha="loo", adaptivity=0.0, round_adaptivity=10.0, metric=metric, n_rounds=2
    )
    assert clone(model).metric == metric
    model.fit(X, y)
    chain = outcomes_of_rounds(InfiniteMLP(), (metric, 10.0), (X, y[:, None], None), X_new)
    outcome = next(itertools.islice(chain, 2, None))
    np.testing.assert_allclose(outcome.prediction[:, 0], model.predict(X_new), atol=1e-6)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(model)).transform(X), model.transform(X), atol=1e-9)
    chosen = AdaptiveTangentRegressorCV([1], biases=[1.0], metrics=[metric, "evidence"], max_rounds=1, cv=2).fit(X, y)
    assert {params["metric"] for params in chosen.cv_results_["params"]} == {metric, "evidence"}


def test_by_features_has_to_be_kept():
    class Wrong(MeanGradient):
        by_features = False

    X, y = make_square(30, 3, random_state=0)
    with pytest.raises(ValueError, match=r"Wrong\.by_features is False, and its stretch has no directions"):
        AdaptiveTangentRegressor((np.inf,), adaptivity=0.0, round_adaptivity=1.0, metric=Wrong(), n_rounds=1).fit(X, y)


@pytest.mark.parametrize("metric", [3, None, RootOfGradients])
def test_what_is_no_metric_is_refused(metric):
    X, y = make_square(30, 3, random_state=0)
    with pytest.raises(ValueError, match=r"metric must be one of .* An instance of a subclass of .*Metric"):
        AdaptiveTangentRegressor((np.inf,), metric=metric, n_rounds=1).fit(X, y)
    with pytest.raises(ValueError, match="'root of gradients' is for networks of infinite width"):
        AdaptiveTangentRegressor((8,), metric=RootOfGradients(), n_rounds=1).fit(X, y)


def test_metrics_compare_by_value():
    assert RootOfGradients(0.4) == RootOfGradients(0.4) != RootOfGradients(0.5)
    assert METRICS["evidence"] != METRICS["relevance"]
    assert len({RootOfGradients(0.4), RootOfGradients(0.4)}) == 1
