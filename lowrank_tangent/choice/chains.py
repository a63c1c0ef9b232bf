"""Chains of rounds as candidates: ridge regressions, each on features that the one before has stretched."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from sklearn.base import BaseEstimator, clone

from .._types import Array
from ..features import TangentFeatures
from ..networks import Network
from ..penalties import ScaledPenalty, get_penalty
from ..problem import StructuredRegression
from ..rounds import Metric, Relinearisation
from ..rounds.kernel_rounds import KernelInputs, KernelRound, Training
from ..rounds.metrics import get_metric
from ..solvers import solve
from .candidates import Candidate, Fold, Outcome

#: Seconds of a round at infinite width on 1,000 training samples with one BLAS thread; they grow as n³.
_SECONDS_AT_1000 = 0.5


@dataclass(frozen=True)
class Chain(Candidate):
    """Rounds of one network by one move, up to a number of them.

    Parameters
    ----------
    network : Network
    move : (metric, adaptivity)
        Metrics that follow the evidence have no adaptivity.
    max_rounds : int
    template : AdaptiveTangentRegressor or AdaptiveTangentClassifier, optional
        With ``alpha="loo"``, ``adaptivity=0`` and all that the network and the move do not say.
    network_parameters : dict
        How the estimator is told of the network.
    """

    network: Network
    move: tuple[str | Metric, float | None]
    max_rounds: int = 24
    template: BaseEstimator | None = None
    network_parameters: dict[str, Any] = field(default_factory=dict)

    def outcomes(self, fold: Fold) -> Iterator[Outcome]:
        """Ridge regressions, alpha by leave-one-out."""
        training = Training(fold.X, fold.targets, fold.sample_weight, fold.groups)
        names = ("penalty", "fit_intercept", "random_state")
        penalty, fit_intercept, seed = (getattr(self.template, name) for name in names)
        return outcomes_of_rounds(self.network, self.move, training, fold.X_test, penalty, fit_intercept, seed)

    def parameters(self, n_rounds: int) -> dict[str, Any]:
        """Those of the network, the move and the number of rounds."""
        metric, adaptivity = self.move
        return {**self.network_parameters, "metric": metric, "round_adaptivity": adaptivity, "n_rounds": n_rounds}

    def estimator(self) -> BaseEstimator:
        """A clone of the template."""
        return clone(self.template)

    @property
    def start(self) -> Hashable:
        """The network: before the first round its chains are the same."""
        return id(self.network)

    def without_rounds(self) -> Chain:
        """The first ridge regression alone."""
        return replace(self, max_rounds=0)

    def seconds(self, n_samples: int, n_features: int) -> float | None:
        """By n³ at infinite width; the time of a network of finite width is not known."""
        return _SECONDS_AT_1000 * (n_samples / 1000.0) ** 3 if self.network.is_infinite else None


def outcomes_of_rounds(
    network: Network,
    move: tuple[str | Metric, float | None],
    data: tuple[Any, ...],
    X_test: Array,
    penalty: Any = "power",
    fit_intercept: bool = True,
    seed: int | None = None,
) -> Iterator[Outcome]:
    """Ridge regression, alpha by leave-one-out, before and after every round of a move, for as long as one asks.

    At infinite width a round is plain algebra with n × n kernels; at finite width the features themselves are taken.

    Parameters
    ----------
    network : Network
    move : (metric, adaptivity)
        Metrics that follow the evidence have no adaptivity.
    data : Training, or tuple of its first attributes
    X_test : ndarray of shape (n', n_features)
    penalty : str or SpectralPenalty
    fit_intercept : bool
    seed : int, optional
        Draws the weights of a network of finite width.

    Yields
    ------
    Outcome
        Of the initial network, then after each round.
    """
    training, metric = Training(*data), get_metric(move[0], network)
    if not network.is_infinite:
        yield from _outcomes_at_finite_width(network, move, training, X_test, penalty, fit_intercept, seed)
        return
    inputs = KernelInputs(network, training.X, X_test, metric.by_features)
    price = None if metric.follows_evidence else ScaledPenalty(get_penalty(penalty), move[1] or 0.0)
    current = KernelRound(inputs, training, price, fit_intercept)
    while True:
        yield Outcome(current.prediction, current.leave_one_out_error)
        current = current.next(metric)


def _outcomes_at_finite_width(
    network: Network,
    move: tuple[str | Metric, float | None],
    training: Training,
    X_test: Array,
    penalty: Any,
    fit_intercept: bool,
    seed: int | None,
) -> Iterator[Outcome]:
    """The same by the features themselves."""
    X, targets, sample_weight, groups = training
    total = targets.size if sample_weight is None else sample_weight.sum() * targets.shape[1]
    features = TangentFeatures(network, "shared", seed).fit(X, targets.shape[1], sample_weight)
    relinearisation = Relinearisation(features, *move)
    while True:
        features = relinearisation.features
        problem = StructuredRegression(
            features.operator(X), targets, penalty, 1.0, 0.0, sample_weight=sample_weight, fit_intercept=fit_intercept
        )
        problem = problem.diagonalised()
        assert problem.ridge_path is not None
        alpha, error = problem.ridge_path.best_alpha(groups)
        problem = problem.with_strength(alpha, 0.0)
        solution = solve(problem)
        yield Outcome(features.predict(X_test, solution.coefs) + solution.intercept, error / total)
        relinearisation.advance(problem, solution, X)
