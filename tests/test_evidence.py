"""The evidence of a kernel against the density of a Gaussian process, its slopes against finite differences."""

import numpy as np
import pytest
from scipy.linalg import expm, null_space
from scipy.stats import multivariate_normal

from lowrank_tangent import AdaptiveTangentClassifier, AdaptiveTangentRegressor
from lowrank_tangent.datasets import make_gated, make_square
from lowrank_tangent.leave_one_out import ALPHAS, RidgePath
from lowrank_tangent.networks import InfiniteMLP
from lowrank_tangent.rounds.evidence import Ascent, Evidence, log_slopes

NETWORK = InfiniteMLP(2, "erf", 0.7)


class Process:
    """Two outputs, their path and their density, with weights (one of them 0) and an intercept or without."""

    def __init__(self, rng, weighted, fit_intercept):
        self.X = rng.standard_normal((24, 4))
        self.Y = np.column_stack([self.X[:, 0] * self.X[:, 1], self.X[:, 2] ** 2]) + 0.3 * rng.standard_normal((24, 2))
        self.weights = rng.uniform(0.3, 2.0, 24) if weighted else np.ones(24)
        self.weights[3] *= not weighted
        self.roots = np.sqrt(self.weights)
        self.size = NETWORK.kernel(self.X).diagonal().mean()
        self.unit = self.roots / np.linalg.norm(self.roots) if fit_intercept else np.zeros(24)

    @property
    def n_samples(self):
        return np.count_nonzero(self.weights)

    def path(self, X):
        centre = np.eye(24) - np.outer(self.unit, self.unit)
        kernel = self.roots[:, None] * NETWORK.kernel(X) * self.roots / self.size
        return RidgePath(centre @ kernel @ centre, centre @ (self.roots[:, None] * self.Y), self.unit, self.weights)

    def density(self, X, alpha):
        """Log density of contrasts of the targets, of noise alpha / weight, at the most likely size."""
        used = self.weights > 0.0
        contrasts = np.eye(self.n_samples)
        if self.unit.any():
            contrasts = null_space(self.unit[used][None, :])
        contrasts = contrasts.T * self.roots[used]
        noise = np.diag(1.0 / self.weights[used])
        covariance = contrasts @ (NETWORK.kernel(X[used]) / self.size + alpha * noise) @ contrasts.T
        Y = contrasts @ self.Y[used]
        scale = np.mean(Y * np.linalg.solve(covariance, Y))
        return sum(multivariate_normal.logpdf(y, cov=scale * covariance) for y in Y.T)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_evidence_is_the_density_of_a_gaussian_process(rng, weighted, fit_intercept):
    process = Process(rng, weighted, fit_intercept)
    path = process.path(process.X)
    alphas = path.alphas[ALPHAS < 0.11]
    densities = [process.density(process.X, alpha) for alpha in alphas]
    found = path.log_evidence(alphas)
    np.testing.assert_allclose(found - found[0], densities - densities[0], atol=1e-8)
    evidence = Evidence(path)
    assert evidence.alpha == alphas[np.argmax(densities)]
    assert evidence.value == found.max()


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_slopes_are_those_of_the_density(rng, weighted, fit_intercept):
    process = Process(rng, weighted, fit_intercept)
    evidence = Evidence(process.path(process.X))
    weights = process.roots[:, None] * evidence.weights() * process.roots / process.size
    tangent = NETWORK.tangent(process.X)
    found = log_slopes(weights, tangent, process.X, by_features=False)
    change = rng.standard_normal((4, 4))
    change += change.T
    above, below = (process.density(process.X @ expm(s * change), evidence.alpha) for s in (1e-4, -1e-4))
    assert np.vdot(found, change) == pytest.approx((above - below) / 2e-4, rel=1e-5)
    diagonal = log_slopes(weights, tangent, process.X, by_features=True)
    np.testing.assert_allclose(diagonal, np.diagonal(found), atol=1e-10)


def test_layers_that_are_left_out_of_a_kernel_have_no_slopes(rng):
    X = rng.standard_normal((6, 3))
    weights = (0.5, 0.0, 2.0)
    tangent = NETWORK.tangent(X, weights)

    def kernel(X):
        products = zip(weights, *NETWORK.layer_products(X), strict=True)
        return sum(weight * inputs * gradients for weight, inputs, gradients in products)

    step = 1e-6 * rng.standard_normal(3)
    moved = [X.copy(), X.copy()]
    moved[0][0] += step
    moved[1][0] -= step
    change = (kernel(moved[0])[0, 1:] - kernel(moved[1])[0, 1:]) / 2.0
    expected = tangent.along[0, 1:] * (X[1:] @ step) + tangent.radial[0, 1:] * (X[0] @ step)
    np.testing.assert_allclose(change, expected, atol=1e-13)


def test_steps():
    slopes = np.array([4.0, 1.0, -2.0])
    stretch, unused = Ascent().stretch(0.0, slopes)
    centred = slopes - 1.0
    np.testing.assert_allclose(np.log(stretch), 0.3 * centred / np.sqrt(np.mean(centred**2)))
    assert unused == stretch[2]
    # Where nothing varies nothing is known: such directions go with the least of the others.
    among_others, unused = Ascent().stretch(0.0, np.array([0.0, 4.0, 1.0, 1e-14, -2.0]))
    np.testing.assert_allclose(among_others, stretch[[2, 0, 1, 2, 2]])
    assert unused == stretch[2]
    # Only ratios matter, however large.
    np.testing.assert_allclose(Ascent().stretch(0.0, 1e250 * slopes)[0], stretch)
    # One of many: the largest stretch is bounded.
    assert Ascent().stretch(0.0, np.append(np.full(999, -1e-9), 1.0))[0][-1] == pytest.approx(np.exp(2.0))
    for nothing in (np.zeros(3), np.ones(1)):
        np.testing.assert_array_equal(Ascent().stretch(0.0, nothing)[0], 1.0)


def test_steps_are_halved_where_the_evidence_falls():
    ascent, slopes = Ascent(), np.array([1.0, -1.0])
    logs = [np.log(ascent.stretch(value, slopes)[0][0]) for value in (5.0, 6.0, 5.5, 5.7, 5.6)]
    np.testing.assert_allclose(logs, [0.3, 0.3, 0.15, 0.15, 0.075])


@pytest.mark.parametrize("metric", ["evidence", "relevance"])
def test_rounds_raise_the_evidence(metric):
    X, y = make_gated(150, 8, noise=0.1, random_state=0)
    model = AdaptiveTangentRegressor((np.inf,), alpha="loo", adaptivity=0.0, n_rounds=12, metric=metric).fit(X, y)

    def evidence(transform):
        """At the best of all noises."""
        kernel = InfiniteMLP(1).kernel(X if transform is None else X @ transform)
        contrasts = null_space(np.ones((1, 150))).T
        kernel, targets = contrasts @ (kernel / np.mean(kernel.diagonal())) @ contrasts.T, contrasts @ y
        values = []
        for alpha in np.logspace(-7, -1, 19):
            shifted = kernel + alpha * np.eye(149)
            scale = targets @ np.linalg.solve(shifted, targets)
            values.append(-0.5 * (149 * np.log(scale) + np.linalg.slogdet(shifted)[1]))
        return max(values)

    values = [round_.log_evidence for round_ in model.rounds_]
    np.testing.assert_allclose(values, [evidence(round_.left[0]) for round_ in model.rounds_], atol=1e-4)
    assert values[12] > values[6] > values[3] > values[0] + 20.0
    trace = np.sum(model.rounds_[-1].left[0] ** 2)
    assert trace == pytest.approx(8.0)
    assert model.feature_importances_[[0, 1, 5]].sum() > 0.9


def test_relevance_finds_features_where_ridge_sees_nothing():
    X, y = make_gated(1100, 20, random_state=0)
    settings = {"alpha": "loo", "adaptivity": 0.0, "n_rounds": 20}
    ridge, slopes, relevance = (
        AdaptiveTangentRegressor((np.inf,), **{**settings, **more}).fit(X[:100], y[:100])
        for more in ({"n_rounds": 0}, {"metric": "diagonal", "round_adaptivity": 300.0}, {"metric": "relevance"})
    )
    scores = [model.score(X[100:], y[100:]) for model in (ridge, slopes, relevance)]
    assert scores[0] < 0.1
    assert scores[2] > 0.4
    assert scores[2] > scores[1]
    np.testing.assert_array_equal(relevance.input_metric_, np.diag(np.diagonal(relevance.input_metric_)))


def test_evidence_finds_a_direction_from_few_samples():
    X, y = make_square(1200, 50, random_state=3)
    settings = {"alpha": "loo", "adaptivity": 0.0, "n_rounds": 12}
    ridge = AdaptiveTangentRegressor((np.inf,), **{**settings, "n_rounds": 0}).fit(X[:200], y[:200])
    model = AdaptiveTangentRegressor((np.inf,), **settings, metric="evidence").fit(X[:200], y[:200])
    assert 1.0 - ridge.score(X[200:], y[200:]) > 0.9
    assert 1.0 - model.score(X[200:], y[200:]) < 0.3


@pytest.mark.parametrize("metric", ["evidence", "relevance"])
def test_targets_without_variation_move_nothing(rng, metric):
    X = rng.standard_normal((30, 3))
    with pytest.warns(UserWarning, match="y is constant"):
        model = AdaptiveTangentRegressor((np.inf,), metric=metric, n_rounds=2).fit(X, np.full(30, 2.0))
    np.testing.assert_allclose(model.predict(X), 2.0)
    np.testing.assert_allclose(model.input_transform_, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("metric", ["evidence", "relevance"])
@pytest.mark.filterwarnings("error")
def test_one_sample_that_counts_moves_nothing(rng, metric):
    X, y = rng.standard_normal((30, 3)), rng.standard_normal(30)
    weights = np.zeros(30)
    weights[7] = 1.0
    model = AdaptiveTangentRegressor((np.inf,), adaptivity=0.0, metric=metric, n_rounds=2).fit(X, y, weights)
    np.testing.assert_allclose(model.predict(X), y[7])
    np.testing.assert_allclose(model.input_transform_, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("metric", ["evidence", "relevance"])
def test_a_constant_column_matters_least(rng, metric):
    X = np.column_stack([rng.standard_normal((80, 4)), np.zeros(80)])
    model = AdaptiveTangentRegressor((np.inf,), alpha="loo", adaptivity=0.0, metric=metric, n_rounds=4)
    importances = model.fit(X, X[:, 0] * X[:, 1]).feature_importances_
    assert importances[4] == pytest.approx(importances.min(), rel=0.2)
    assert importances[[0, 1]].sum() > 0.9


def test_more_features_than_samples(rng):
    X = rng.standard_normal((40, 60))
    y = X[:, 0] * X[:, 1]
    model = AdaptiveTangentRegressor((np.inf,), adaptivity=0.0, metric="evidence", n_rounds=2).fit(X, y)
    assert np.sum(model.input_transform_**2) == pytest.approx(60.0)
    # Directions outside the span of the samples are all stretched alike.
    outside = null_space(X)
    moved = model.input_transform_ @ outside
    np.testing.assert_allclose(moved, outside * (outside[:, 0] @ moved[:, 0]), atol=1e-8)


def test_what_evidence_is_not_for(rng):
    X, y = rng.standard_normal((30, 3)), rng.standard_normal(30)
    with pytest.raises(ValueError, match=r"metric: 'relevance' is for networks of infinite width"):
        AdaptiveTangentRegressor((8,), metric="relevance", n_rounds=1).fit(X, y)
    with pytest.raises(ValueError, match=r"metric='evidence' is for loss='squared'; got loss='multinomial'"):
        AdaptiveTangentClassifier((np.inf,), metric="evidence", n_rounds=1, loss="multinomial").fit(X, y > 0)
