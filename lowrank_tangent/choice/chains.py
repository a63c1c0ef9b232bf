"""Outcomes of round after round of ridge regressions.

What a choice by cross-validation needs of the candidates on one fold. At infinite width a round is plain algebra with
n × n kernels; the estimators, which keep factors to predict from, find the same predictions several times slower.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..features import TangentFeatures
from ..penalties import ScaledPenalty, get_penalty
from ..problem import StructuredRegression
from ..rounds import Relinearisation
from ..rounds.kernel_rounds import KernelInputs, KernelRound, Training
from ..rounds.metrics import get_metric
from ..solvers import solve


class Outcome(NamedTuple):
    """What one round predicts, shape (n', C), and its mean squared leave-one-out error on the training samples."""

    prediction: np.ndarray
    leave_one_out_error: float


def outcomes_of_rounds(network, move, data, X_test, penalty="power", fit_intercept=True, seed=None):
    """Ridge regression, alpha by leave-one-out, before and after every round of a move, for as long as one asks.

    Parameters
    ----------
    network : Network
    move : (metric, adaptivity)
        Metrics that follow the evidence have no adaptivity.
    data : (X, targets, sample_weight)
        Training samples, targets of shape (n, C), weights or None.
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
    metric, adaptivity = move
    if not network.is_infinite:
        yield from _outcomes_at_finite_width(network, move, data, X_test, penalty, fit_intercept, seed)
        return
    metric = get_metric(metric, network)
    inputs = KernelInputs(network, data[0], X_test, metric.by_features)
    price = None if metric.follows_evidence else ScaledPenalty(get_penalty(penalty), adaptivity)
    current = KernelRound(inputs, Training(*data), price, fit_intercept)
    while True:
        yield Outcome(current.prediction, current.leave_one_out_error)
        current = current.next(metric)


def _outcomes_at_finite_width(network, move, data, X_test, penalty, fit_intercept, seed):
    """The same by the features themselves."""
    X, targets, sample_weight = data
    total = targets.size if sample_weight is None else sample_weight.sum() * targets.shape[1]
    features = TangentFeatures(network, "shared", seed).fit(X, targets.shape[1], sample_weight)
    relinearisation = Relinearisation(features, *move)
    while True:
        features = relinearisation.features
        problem = StructuredRegression(
            features.operator(X), targets, penalty, 1.0, 0.0, sample_weight=sample_weight, fit_intercept=fit_intercept
        )
        problem = problem.diagonalised()
        alpha, error = problem.ridge_path.best_alpha()
        problem = problem.with_strength(alpha, 0.0)
        solution = solve(problem)
        yield Outcome(features.predict(X_test, solution.coefs) + solution.intercept, error / total)
        relinearisation.advance(problem, solution, X)
