"""Rounds of ridge regressions at infinite width as plain algebra with n × n kernels.

The estimators keep factors to predict from; on one fold of a cross-validation nobody does. Predictions are the same,
several times faster.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .._types import Array
from ..leave_one_out import RidgePath
from ..networks import Network
from ..networks.infinite import Tangent
from .evidence import Ascent, Evidence, log_slopes
from .metrics import Metric, Stretch, View


class Training(NamedTuple):
    """Samples that a regression is fitted to.

    Attributes
    ----------
    X : ndarray of shape (n, n_features)
    targets : ndarray of shape (n, C)
    sample_weight : ndarray of shape (n,) or None
    groups : ndarray of int, shape (n,), or None
        Samples of one number are left out together.
    """

    X: Array
    targets: Array
    sample_weight: Array | None = None
    groups: Array | None = None


class KernelInputs:
    """Samples in coordinates in which rounds are cheap, and a network that sees no difference.

    Rounds move directions in the span of the training samples alone. Of more features than samples, n coordinates in
    that span and the distance from it (0 for training samples) are enough. Rounds that move by features stay in theirs,
    and have vectors for transforms.

    Parameters
    ----------
    network : Network
        Of infinite width.
    X : ndarray of shape (n, n_features)
        Training samples.
    X_test : ndarray of shape (n', n_features)
    by_features : bool
    """

    def __init__(self, network: Network, X: Array, X_test: Array, by_features: bool) -> None:
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

    def kernels(self, transform: Array) -> tuple[Tangent, Array]:
        """Tangent kernel of the training samples, with its gradients with respect to x M; that of the test samples."""
        Z = self._scale * self.adapted(self.train, transform)
        tangent = self._network.tangent(Z)
        square = self._scale**2
        tangent = tangent._replace(along=square * tangent.along, radial=square * tangent.radial)
        return tangent, self._network.kernel(self._scale * self.adapted(self.test, transform), Z)

    @property
    def identity(self) -> Array:
        """The transform that changes nothing: a matrix, or a vector where features move by themselves."""
        return np.ones(self.n_features) if self._by_features else np.eye(self.train.shape[1])

    def adapted(self, X: Array, transform: Array) -> Array:
        """Samples x M."""
        return X * transform if self._by_features else X @ transform

    def composed(self, transform: Array, stretch: Stretch) -> Array:
        """M times a stretch with tr(M Mᵀ) = n_features; left-out directions move as the last coordinate does."""
        factors = stretch.values
        if stretch.directions is not None:
            factors = (stretch.directions * (factors - stretch.elsewhere)) @ stretch.directions.T
            factors.flat[:: len(factors) + 1] += stretch.elsewhere
        product = self.adapted(transform, factors)
        left_out = (self.n_features - len(product)) * product.flat[-1] ** 2
        total = np.sum(product**2) + left_out
        return product * math.sqrt(self.n_features / total) if total > 0.0 else self.identity


class KernelRound(View):
    """Ridge regression on the kernel of the network that sees x M, alpha by leave-one-out, as a metric sees it.

    Parameters
    ----------
    inputs : KernelInputs
    training : Training
        Its samples are those of the inputs.
    price : ScaledPenalty or None
        None for metrics that have steps of their own.
    fit_intercept : bool
    transform : ndarray, optional
        M in the coordinates of the inputs; by default the identity.
    ascent : Ascent, optional
        That of the rounds before.

    Attributes
    ----------
    prediction : ndarray of shape (n', C)
        Of the test samples.
    leave_one_out_error : float
        Mean over samples and outputs.
    """

    basis = None

    def __init__(
        self,
        inputs: KernelInputs,
        training: Training,
        price: Any,
        fit_intercept: bool,
        transform: Array | None = None,
        ascent: Ascent | None = None,
    ) -> None:
        self._inputs, self._training, self._price, self._fit_intercept = inputs, training, price, fit_intercept
        self._transform = inputs.identity if transform is None else transform
        self.ascent = ascent or Ascent()
        targets, weights = training.targets, training.sample_weight
        self._tangent, cross = inputs.kernels(self._transform)
        self._size = np.average(np.diagonal(self._tangent.kernel), weights=weights)
        kernel, cross = self._tangent.kernel / self._size, cross / self._size
        self._roots = roots = np.ones(len(targets)) if weights is None else np.sqrt(weights)
        self.shares = np.full(len(targets), 1.0 / len(targets)) if weights is None else weights / weights.sum()
        unit = roots / np.linalg.norm(roots) if fit_intercept else np.zeros(len(targets))

        def project(values: Array) -> Array:
            return values - np.multiply.outer(unit, unit @ values)

        scaled = roots[:, None] * kernel * roots
        self._path = RidgePath(project(project(scaled).T), project(roots[:, None] * targets), unit, weights)
        alpha, error = self._path.best_alpha(training.groups)
        self._dual = roots[:, None] * self._path.dual_coefs(alpha)
        self._forward_scale = 1.0 / math.sqrt(inputs.n_features)
        self._adapted = inputs.adapted(inputs.train, self._transform)
        intercept = np.average(targets - kernel @ self._dual, axis=0, weights=weights) if fit_intercept else 0.0
        self.prediction: Array = cross @ self._dual + intercept
        self.leave_one_out_error = float(error / (np.sum(roots**2) * targets.shape[1]))

    def next(self, metric: Metric) -> KernelRound:
        """The round after this one."""
        stretch = metric.checked(metric.from_kernels(self))
        transform = self._inputs.composed(self._transform, stretch)
        return KernelRound(self._inputs, self._training, self._price, self._fit_intercept, transform, self.ascent)

    @property
    def price(self) -> Any:
        """As given."""
        return self._price

    @functools.cached_property
    def evidence(self) -> Evidence:
        """Evidence of the kernel."""
        return Evidence(self._path)

    def evidence_slopes(self, by_features: bool) -> Array:
        """Slopes of the log evidence."""
        weights = self._roots[:, None] * self.evidence.weights() * self._roots
        return log_slopes(weights, self._tangent, self._adapted, by_features)

    @property
    def coefs_outer(self) -> Array:
        """B Bᵀ of the first layer, shape (p, p), without the bias."""
        h, r = self._adapted * self._forward_scale, self._dual
        return h.T @ ((r @ r.T) * self._tangent.gates) @ h / self._size

    def still_gradients(self) -> Iterator[tuple[Any, Array]]:
        """By the gates' products, one output at a time."""
        features = self._adapted * self._forward_scale
        for r in self._dual.T / self._size:
            slopes = self._tangent.gates @ (r[:, None] * features) * self._forward_scale
            yield slice(None), slopes.T[:, :, None]

    def whole_gradients(self) -> Iterator[tuple[Any, Array]]:
        """By the kernel's derivative, one output at a time."""
        for r in self._dual.T / self._size:
            slopes = (self._tangent.along * r) @ self._adapted + (self._tangent.radial @ r)[:, None] * self._adapted
            yield slice(None), slopes.T[:, :, None]
