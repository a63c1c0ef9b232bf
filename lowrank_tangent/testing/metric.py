"""What a metric of rounds promises: one stretch from factors and from kernels, whatever the coordinates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._types import Array
from ..estimators import AdaptiveTangentRegressor
from ..features import TangentFeatures
from ..networks import MLP, InfiniteMLP, Network
from ..penalties import KLPenalty, ScaledPenalty
from ..problem import StructuredRegression
from ..rounds import Metric, Stretch
from ..rounds.evidence import Ascent, Evidence
from ..rounds.factor_view import FactorView
from ..rounds.kernel_rounds import KernelInputs, KernelRound, Training
from ..solvers import solve
from .findings import agree, expect, pickled, run_checks, skip

#: Samples to fit, samples to predict, and features.
_SAMPLES, _NEW, _FEATURES = 30, 5, 4
#: The price of a round.
_ADAPTIVITY = 30.0
#: Stretches from factors and from kernels, whose alphas are the same to the tolerance of a search, agree to this.
_AGREE = 1e-6


def check_metric(metric: Metric, *, random_state: int = 0, verbose: int = 0) -> list[str]:
    """Check a metric of rounds: its stretches from factors and from kernels against each other, and under rotations.

    Parameters
    ----------
    metric : Metric
        An instance.
    random_state : int, default=0
        Draws samples, targets and rotations.
    verbose : int, default=0
        From 1 on every check is logged.

    Returns
    -------
    list of str
        Names of the checks that apply, of "stretch", "kernels", "coordinates", "finite-width", "estimator", "equality",
        "pickling".

    Raises
    ------
    AssertionError
        With one line a finding.

    Examples
    --------
    >>> from lowrank_tangent.rounds import METRICS
    >>> from lowrank_tangent.testing import check_metric
    >>> check_metric(METRICS["gradient"])[:2]
    ['stretch', 'kernels']
    """
    return run_checks(metric, _Case(metric, random_state), _CHECKS, random_state, verbose)


class _Case:
    """A metric, with samples and targets of two outputs."""

    def __init__(self, metric: Metric, seed: int) -> None:
        self.metric, rng = metric, np.random.default_rng(seed)
        self.X = rng.standard_normal((_SAMPLES, _FEATURES))
        self.X_new = rng.standard_normal((_NEW, _FEATURES))
        self.Y = np.column_stack([np.sin(2.0 * self.X[:, 0]) + self.X[:, 1], self.X[:, 1] * self.X[:, 2]])

    def from_factors(self, network: Network, layer: int = 0) -> Stretch:
        """The stretch of a layer, of ridge regression on the features of a network."""
        features = TangentFeatures(network, random_state=0).fit(self.X, self.Y.shape[1])
        problem = StructuredRegression(features.operator(self.X), self.Y, KLPenalty(), 1.0, 0.0, fit_intercept=True)
        problem = problem.diagonalised()
        path = problem.ridge_path
        assert path is not None  # `diagonalised` has made it
        problem = problem.with_strength(path.best_alpha()[0], 0.0)
        view = FactorView(features, layer, problem, solve(problem), _ADAPTIVITY, lambda: Evidence(path), Ascent())
        return self.metric.from_factors(view)

    def kernel_round(self, X: Array, X_new: Array) -> KernelRound:
        """The same regression at infinite width, by kernels."""
        inputs = KernelInputs(InfiniteMLP(), X, X_new, self.metric.by_features)
        price = None if self.metric.follows_evidence else ScaledPenalty(KLPenalty(), _ADAPTIVITY)
        return KernelRound(inputs, Training(X, self.Y, None), price, True)


def _dense(stretch: Stretch) -> Array:
    """The matrix that a stretch stands for, scaled to norm 1, as a transform keeps its norm."""
    matrix = np.diag(stretch.values)
    if stretch.directions is not None:
        u = stretch.directions
        matrix = stretch.elsewhere * np.eye(len(u)) + (u * (stretch.values - stretch.elsewhere)) @ u.T
    scaled: Array = matrix / np.linalg.norm(matrix)
    return scaled


def _check(stretch: Any, metric: Metric, size: int) -> None:
    """What every stretch of `size` inputs has to be."""
    expect(isinstance(stretch, Stretch), f"a metric returns a Stretch; got {type(stretch).__name__}")
    values, u = np.asarray(stretch.values), stretch.directions
    expect(values.ndim == 1, f"values must have shape (k,); got {values.shape}")
    expect(np.isfinite(values).all() and (values >= 0.0).all(), f"values must be numbers >= 0; got {values.tolist()}")
    expect(values.any() or stretch.elsewhere > 0.0, "the stretch is zero in all directions")
    expect(np.isfinite(stretch.elsewhere) and stretch.elsewhere >= 0.0, f"elsewhere is {stretch.elsewhere!r}")
    expect((u is None) == metric.by_features, f"by_features is {metric.by_features}, and directions say otherwise")
    if u is None:
        expect(values.shape == (size,), f"a stretch of features has one value for each of {size}; got {values.shape}")
    else:
        expect(u.shape == (size, len(values)), f"directions must have shape {(size, len(values))}; got {u.shape}")
        agree("directions, which are orthonormal", u.T @ u, np.eye(len(values)), 1e-9)


def _stretch(case: _Case, rng: np.random.Generator) -> None:
    _check(case.from_factors(InfiniteMLP()), case.metric, _FEATURES)
    _check(case.metric.from_kernels(case.kernel_round(case.X, case.X_new)), case.metric, _FEATURES)


def _kernels(case: _Case, rng: np.random.Generator) -> None:
    found = _dense(case.metric.from_kernels(case.kernel_round(case.X, case.X_new)))
    agree("the stretch from kernels against that from factors", found, _dense(case.from_factors(InfiniteMLP())), _AGREE)


def _coordinates(case: _Case, rng: np.random.Generator) -> None:
    turn = np.linalg.qr(rng.standard_normal((_FEATURES, _FEATURES)))[0]
    name = "rotated inputs against the rotated stretch"
    if case.metric.by_features:
        turn, name = np.eye(_FEATURES)[rng.permutation(_FEATURES)], "permuted features against the permuted stretch"
    plain = _dense(case.metric.from_kernels(case.kernel_round(case.X, case.X_new)))
    turned = _dense(case.metric.from_kernels(case.kernel_round(case.X @ turn, case.X_new @ turn)))
    agree(f"the stretch of {name}", turned, turn.T @ plain @ turn, _AGREE)


def _finite_width(case: _Case, rng: np.random.Generator) -> None:
    if case.metric.needs_kernel_derivative:
        skip("for metrics of finite width")
    network = MLP((6,), "tanh")
    for layer, size in enumerate((_FEATURES, 6)):
        _check(case.from_factors(network, layer), case.metric, size)


def _estimator(case: _Case, rng: np.random.Generator) -> None:
    first = case.kernel_round(case.X, case.X_new)
    expected = first.next(case.metric).prediction
    model = AdaptiveTangentRegressor(
        network=InfiniteMLP(),
        alpha="loo",
        adaptivity=0.0,
        penalty=KLPenalty(),
        metric=case.metric,
        n_rounds=1,
        round_adaptivity=None if case.metric.follows_evidence else _ADAPTIVITY,
    ).fit(case.X, case.Y)
    size = float(np.std(case.Y))
    agree("predictions of an estimator after a round against kernels", model.predict(case.X_new), expected, 1e-5, size)
    moved = float(np.abs(expected - first.prediction).max())
    expect(moved > 1e-9 * size, "a round changes no prediction")


def _equality(case: _Case, rng: np.random.Generator) -> None:
    other = pickled(case.metric)
    expect(other == case.metric and hash(other) == hash(case.metric), "a copy must be equal to it, with its hash")
    expect(case.metric != object(), "the metric is equal to an object that is none")
    expect(isinstance(case.metric.name, str) and case.metric.name, f"name must be a text; got {case.metric.name!r}")


def _pickling(case: _Case, rng: np.random.Generator) -> None:
    view = case.kernel_round(case.X, case.X_new)
    found = pickled(case.metric).from_kernels(case.kernel_round(case.X, case.X_new))
    agree("the stretch of the loaded metric", _dense(found), _dense(case.metric.from_kernels(view)), 1e-12)


_CHECKS: dict[str, Callable[[_Case, np.random.Generator], None]] = {
    "stretch": _stretch,
    "kernels": _kernels,
    "coordinates": _coordinates,
    "finite-width": _finite_width,
    "estimator": _estimator,
    "equality": _equality,
    "pickling": _pickling,
}
