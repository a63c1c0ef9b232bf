"""Outcomes of round after round of ridge regressions.

What a choice by cross-validation needs of the candidates on one fold. At infinite width a round is plain algebra with
n × n kernels; the estimators, which keep factors to predict from, find the same predictions several times slower.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from ..features import TangentFeatures
from ..leave_one_out import RidgePath
from ..penalties import ScaledPenalty, get_penalty
from ..problem import StructuredRegression
from ..rounds.evidence import Ascent, Evidence, log_slopes
from ..rounds.relinearisation import EVIDENCE_METRICS, FEATURE_METRICS, Relinearisation
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
    inputs = _Inputs(network, data[0], X_test, metric in FEATURE_METRICS)
    follows_evidence = metric in EVIDENCE_METRICS
    rule = Ascent() if follows_evidence else ScaledPenalty(get_penalty(penalty), adaptivity)
    current = _KernelRound(inputs, inputs.identity, data, fit_intercept)
    while True:
        yield current.outcome
        current = current.next(metric, rule)


def _outcomes_at_finite_width(network, move, data, X_test, penalty, fit_intercept, seed):
    """The same by the features themselves."""
    X, targets, sample_weight = data
    total = targets.size if sample_weight is None else sample_weight.sum() * targets.shape[1]
    features = TangentFeatures(network, "shared", check_random_state(seed)).fit(X, targets.shape[1], sample_weight)
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


class _Inputs:
    """Samples in coordinates in which rounds are cheap, and a network that sees no difference.

    Rounds move directions in the span of the training samples alone. Of more features than samples, n coordinates in
    that span and the distance from it (0 for training samples) are enough. Rounds that move by features stay in theirs,
    and have vectors for transforms.
    """

    def __init__(self, network, X, X_test, by_features):
        n, self.n_features = X.shape
        self.train, self.test, self._by_features = X, X_test, by_features
        if self.n_features > n + 1 and not by_features:
            basis, _ = np.linalg.qr(X.T)
            inside = X_test @ basis
            outside = np.linalg.norm(X_test - inside @ basis.T, axis=1)
            self.train, self.test = np.hstack([X @ basis, np.zeros((n, 1))]), np.column_stack([inside, outside])
        # The network divides by the number of its inputs.
        self._scale = math.sqrt(self.train.shape[1] / self.n_features)
        self._network = network.rescaled(self._scale)

    def kernels(self, transform):
        """Tangent kernel of the training samples, with its gradients with respect to x M; that of the test samples."""
        Z = self._scale * self.adapted(self.train, transform)
        tangent = self._network.tangent(Z)
        square = self._scale**2
        tangent = tangent._replace(along=square * tangent.along, radial=square * tangent.radial)
        return tangent, self._network.kernel(self._scale * self.adapted(self.test, transform), Z)

    @property
    def identity(self):
        """The transform that changes nothing."""
        return np.ones(self.n_features) if self._by_features else np.eye(self.train.shape[1])

    def adapted(self, X, transform):
        """Samples x M."""
        return X * transform if self._by_features else X @ transform

    def composed(self, transform, stretch):
        """M times a stretch with tr(M Mᵀ) = n_features; left-out directions move as the last coordinate does."""
        product = self.adapted(transform, stretch)
        left_out = (self.n_features - len(product)) * product.flat[-1] ** 2
        total = np.sum(product**2) + left_out
        return product * math.sqrt(self.n_features / total) if total > 0.0 else self.identity


class _KernelRound:
    """Ridge regression on the kernel of the network that sees x M."""

    def __init__(self, inputs, transform, data, fit_intercept):
        self._inputs, self._transform, self._data, self._fit_intercept = inputs, transform, data, fit_intercept
        _, targets, self._weights = data
        self._tangent, cross = inputs.kernels(transform)
        self._size = np.average(np.diagonal(self._tangent.kernel), weights=self._weights)
        kernel, cross = self._tangent.kernel / self._size, cross / self._size
        self._roots = roots = np.ones(len(targets)) if self._weights is None else np.sqrt(self._weights)
        unit = roots / np.linalg.norm(roots) if fit_intercept else np.zeros(len(targets))

        def project(values):
            return values - np.multiply.outer(unit, unit @ values)

        scaled = roots[:, None] * kernel * roots
        self._path = RidgePath(project(project(scaled).T), project(roots[:, None] * targets), unit, self._weights)
        alpha, error = self._path.best_alpha()
        self._dual = roots[:, None] * self._path.dual_coefs(alpha)
        self._forward_scale = 1.0 / math.sqrt(inputs.n_features)
        self._adapted = inputs.adapted(inputs.train, transform)
        self._features = self._adapted * self._forward_scale
        intercept = np.average(targets - kernel @ self._dual, axis=0, weights=self._weights) if fit_intercept else 0.0
        self.outcome = Outcome(cross @ self._dual + intercept, error / (np.sum(roots**2) * targets.shape[1]))

    def next(self, metric, rule):
        """The round after this one: a step of an `Ascent`, or the stretch of a price."""
        stretch = (self._step if metric in EVIDENCE_METRICS else self._stretch)(metric, rule)
        return _KernelRound(
            self._inputs, self._inputs.composed(self._transform, stretch), self._data, self._fit_intercept
        )

    def _step(self, metric, ascent):
        """Stretch that raises the evidence: U diag(z) Uᵀ; of a diagonal one z alone."""
        evidence = Evidence(self._path)
        weights = self._roots[:, None] * evidence.weights() * self._roots
        slopes = log_slopes(weights, self._tangent, self._adapted, metric == "relevance")
        if metric == "relevance":
            return ascent.stretch(evidence.value, slopes)[0]
        eigenvalues, basis = np.linalg.eigh(slopes)
        return (basis * ascent.stretch(evidence.value, eigenvalues)[0]) @ basis.T

    def _stretch(self, metric, price):
        """Stretch of the spectrum that the metric measures: U diag(z) Uᵀ; of a diagonal one z alone."""
        h, r = self._features, self._dual
        if metric == "coefficient":
            moment = h.T @ ((r @ r.T) * self._tangent.gates) @ h / self._size
        else:
            shares = np.full(len(h), 1.0 / len(h)) if self._weights is None else self._weights / self._weights.sum()
            slopes = (np.sqrt(shares)[:, None] * self._input_gradients(metric, c) for c in range(r.shape[1]))
            if metric == "diagonal":
                return price.stretch(np.sqrt(sum(np.sum(g**2, axis=0) for g in slopes)))
            moment = sum(g.T @ g for g in slopes)
        squares, basis = np.linalg.eigh(moment)
        return (basis * price.stretch(np.sqrt(np.maximum(squares, 0.0)))) @ basis.T

    def _input_gradients(self, metric, c):
        """Gradients of output c with respect to x M at the training samples, with gates that stand still or move."""
        r = self._dual[:, c] / self._size
        if metric == "gradient":
            return self._tangent.gates @ (r[:, None] * self._features) * self._forward_scale
        return (self._tangent.along * r) @ self._adapted + (self._tangent.radial @ r)[:, None] * self._adapted
