"""The cross-entropy of class probabilities: its value, derivatives and conjugate, with the intercept minimised out.

Sources: Boyd & Vandenberghe, Convex Optimization (2004), section 5.1; the dual of the softmax loss as in Collins,
Globerson, Koo, Carreras & Bartlett, Exponentiated gradient algorithms for conditional random fields and max-margin
Markov networks (2008).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import xlogy

from .._types import Array
from ..linalg.svd import thin_svd
from .base import Loss, LossAt
from .softmax import Softmax, balancing_intercept, intercept_curvature, rounding_of, with_totals

#: Rounding that sums of a feasible dual point may show, as a share of what is summed.
_ROUNDING = 1e-12
#: Directions that an intercept takes out are independent of each other if they are so to this share.
_INDEPENDENT = 1e-6
#: Intercept of a class that no weight is for, and whose probability is 0: any logit added to it leaves it as it is.
_NEVER = -1e100
#: Rows of probabilities may miss a sum of 1 by this much; they are normalised.
_SUM_TOL = 1e-8


class Multinomial(Loss):
    """Cross-entropy ``Σ_i w_i (log Σ_c exp(f_ic + b_c) − Σ_c y_ic (f_ic + b_c))`` of class probabilities y.

    With an intercept the loss is the minimum over b, which is a convex function of f as well; classes that no sample
    with a weight belongs to then have probability 0. The dual variable is
    ``r = w (y − softmax(f + b))`` at the best b. Its domain is

        r_i = w_i (y_i − q_i)  with distributions q_i,  and  Σ_i r_i = 0 with an intercept,

    on which the loss part of the dual objective is the entropy ``−Σ_i w_i Σ_c q_ic log q_ic``. Multiples of r by
    factors in [0, 1] mix q with y and stay inside.

    One column stands for two classes: f is the logit of the second class, against 0 for the first. Two columns would
    give the same predictions with half the penalty at twice the cost, and would take other features than the squared
    loss takes for two classes. From three classes on every class has its column, so that none is treated differently; a
    number added to all logits of a sample changes nothing.

    Parameters
    ----------
    sample_weight : ndarray of shape (n,), optional
    fit_intercept : bool, default=False
    """

    name = "multinomial"
    has_hessian = True
    has_classwise_factor = True
    has_probabilities = True

    def __init__(self, sample_weight: Array | None = None, fit_intercept: bool = False) -> None:
        self.sample_weight, self.fit_intercept = sample_weight, fit_intercept

    def check_target(self, y: Array) -> Array:
        """Probabilities of shape (n, C), normalised; ValueError for other numbers."""
        if (y < 0.0).any() or (y > 1.0 + _SUM_TOL).any():
            raise ValueError(
                f"loss='multinomial' needs class probabilities between 0 and 1; y has values from {y.min():.3g} to "
                f"{y.max():.3g}. Give class labels as indicators, one column a class (one column for two classes)."
            )
        if y.shape[1] == 1:
            y = np.minimum(y, 1.0)
        else:
            sums = y.sum(axis=1, keepdims=True)
            if np.abs(sums - 1.0).max() > _SUM_TOL:
                raise ValueError(
                    "loss='multinomial' needs rows of y that sum to 1, the probabilities of all classes; got sums from "
                    f"{sums.min():.3g} to {sums.max():.3g}."
                )
            y = y / sums
        return y

    def intercept(self, y: Array, prediction: Array) -> Array:
        """Best intercept for targets and predictions, shape (C,) and of mean 0 for C > 1; zeros without one.

        A class without weight has −1e100 (or the other one of two 1e100), with which its probability is 0; the mean is
        that of the others.
        """
        bias = self.at(y, prediction).bias
        return bias[1:] - bias[0] if y.shape[1] == 1 else bias - bias[bias > _NEVER].mean()

    def at(self, target: Array, prediction: Array) -> _MultinomialAt:
        """The loss at a prediction."""
        return _MultinomialAt(self, target, prediction)

    def nearest_dual(self, target: Array, dual: Array) -> Array:
        """A dual point in the domain of the conjugate, near the one that was given and itself if that is inside."""
        if self._is_inside(target, dual):
            return dual
        y, change = _all_probabilities(target), self._change(dual)
        weights = self._weights(y)
        q = np.maximum(y - change, 0.0)
        sums = q.sum(axis=1, keepdims=True)
        q = np.where(sums > 0.0, q / np.where(sums > 0.0, sums, 1.0), y)
        if self.fit_intercept:
            q = with_totals(q, weights, weights @ y)
        near = (weights[:, None] * (y - q))[:, -target.shape[1] :]
        # Changes that drown in the rounding of q are none: 0 is inside, whatever the targets.
        return near if self._is_inside(target, near) else np.zeros_like(near)

    def largest_factor(self, target: Array, dual: Array) -> float:
        """The largest factor that keeps a dual point in the domain of the conjugate; 0 if none above 0 does."""
        y, r = _all_probabilities(target), _all_changes(dual)
        weights = self._weights(y)[:, None]
        allowed = _ROUNDING * np.abs(r) + 8.0 * weights * rounding_of(y)
        for axis in (1, 0) if self.fit_intercept else (1,):
            if (np.abs(r.sum(axis=axis)) > allowed.sum(axis=axis)).any():
                return 0.0
        falling = r > 0.0
        with np.errstate(over="ignore"):
            return float(np.min((weights * y)[falling] / r[falling], initial=math.inf))

    def dual_value(self, target: Array, dual: Array) -> float:
        """Loss part of the dual objective, the entropy −Σ w q log q; −inf outside the domain."""
        return float(self.dual_along(target, dual)(np.ones(1))[0]) if self._is_inside(target, dual) else -math.inf

    def dual_along(self, target: Array, dual: Array) -> Callable[[Array], Array]:
        """`dual_value` of multiples of a dual point by up to its `largest_factor`, as a function of their array."""
        y, change = _all_probabilities(target), self._change(dual)
        weights = np.broadcast_to(self._weights(y)[:, None], y.shape)
        # Where y = 0, which is almost everywhere for class labels, a multiple t gives q = t·q(1): logarithms once do.
        mixed = y > 0.0
        pure, pure_weights = np.maximum(-change[~mixed], 0.0), weights[~mixed]
        slope, scale = -pure_weights @ xlogy(pure, pure), pure_weights @ pure
        y, change, weights = y[mixed], change[mixed], weights[mixed]

        def value(factors: Array) -> Array:
            mixtures = [weights @ _entropy_terms(y - t * change, (1.0 - y) + t * change) for t in factors]
            return np.array(mixtures) + factors * slope - xlogy(factors, factors) * scale

        return value

    def cvxpy_value(self, target: Array, prediction: Any) -> Any:
        """The cross-entropy by exponential cones, with the intercept as a variable."""
        import cvxpy

        cp: Any = cvxpy  # its types leave out the atoms
        n, C = target.shape
        logits = prediction + np.ones((n, 1)) @ cp.Variable((1, C)) if self.fit_intercept else prediction
        normaliser = cp.sum(cp.logistic(logits), axis=1) if C == 1 else cp.log_sum_exp(logits, axis=1)
        return self._weights(target) @ (normaliser - cp.sum(cp.multiply(target, logits), axis=1))

    def _is_inside(self, target: Array, dual: Array) -> bool:
        return self.largest_factor(target, dual) >= 1.0 - _ROUNDING

    def _weights(self, y: Array) -> Array:
        """Weights of shape (n,)."""
        return np.ones(len(y)) if self.sample_weight is None else self.sample_weight

    def _change(self, dual: Array) -> Array:
        """y − q = r / w of all classes; 0 for samples that do not count."""
        if self.sample_weight is None:
            return _all_changes(dual)
        weights = self.sample_weight[:, None]
        return _all_changes(np.divide(dual, weights, out=np.zeros_like(dual), where=weights > 0.0))


class _MultinomialAt(LossAt):
    """The cross-entropy at a prediction and the best intercept for it.

    The Hessian is S Sᵀ, and sample by sample ``diag(p) − p pᵀ = S Sᵀ`` with ``S = diag(s)(I − κ s sᵀ)``, s = √p and
    κ = 1 / (1 + √p0), p0 the probability of a class that has no column: κ = 1 where all have one, S = √(p (1 − p)) for
    one column. Minimising over an intercept leaves ``S Π Sᵀ``, Π the projection onto the complement of what an
    intercept does to the rows: the weighted centring of least squares.

    Attributes
    ----------
    bias : ndarray
        Intercepts of all classes, determined up to a constant; 0 without an intercept.
    """

    def __init__(self, loss: Multinomial, target: Array, prediction: Array) -> None:
        self._loss, self._target, self._n_columns = loss, target, target.shape[1]
        self._y, logits = _all_probabilities(target), _all_logits(prediction)
        self._weights = loss._weights(target)
        self.bias = self._best_bias(logits) if loss.fit_intercept else np.zeros(logits.shape[1])
        self._softmax = Softmax(logits + self.bias)

    def _best_bias(self, logits: Array) -> Array:
        counted, present = self._weights > 0.0, self._weights @ self._y > 0.0
        bias, rows = np.full(logits.shape[1], _NEVER), np.ix_(counted, present)
        bias[present] = balancing_intercept(logits[rows], self._y[rows], self._weights[counted])
        return bias

    @property
    def value(self) -> float:
        """The cross-entropy."""
        return -self._weights @ np.sum(self._y * self._softmax.log, axis=1)

    @functools.cached_property
    def residual(self) -> Array:
        """w (y − p), minus the gradient: the dual point that belongs to the prediction; shape (n, C)."""
        residual = self._weights[:, None] * self._softmax.below(self._y)
        return self._loss.nearest_dual(self._target, residual[:, -self._n_columns :])

    def divergence(self, other: _MultinomialAt) -> float:
        """L(f') − L(f) + r·(f' − f)."""
        # Differences of logarithms are those of logits up to a number a sample, which changes nothing.
        return float(self._weights @ self._softmax.divergence(other._softmax.log - self._softmax.log))

    @property
    def mean_curvature(self) -> Array:
        """Mean over outputs of the diagonal of S Sᵀ without an intercept, w p (1 − p); shape (n,)."""
        return np.mean(self.scales**2 * (1.0 - self.roots**2), axis=1)

    def conjugate_curvature(self, changes: Array) -> Array:
        """Hessian of the conjugate at r times changes of r, of shape (…, n, C), which sum to 0 over all classes."""
        masses = self._weights[:, None] * self._softmax.probabilities
        inverse = np.divide(1.0, masses, out=np.zeros_like(masses), where=masses > 0.0)
        columns, absent = inverse[:, -self._n_columns :], inverse[:, : -self._n_columns]
        return (columns + absent.sum(axis=1, keepdims=True)) * changes

    def multiply(self, values: Array) -> Array:
        """S times values of shape (n, C), with the Hessian S Sᵀ."""
        return self._multiply(self._centre(values))

    def adjoint(self, values: Array) -> Array:
        """Sᵀ times values of shape (n, C)."""
        return self._centre(self._adjoint(values))

    @functools.cached_property
    def roots(self) -> Array:
        """√p of the classes that have a column, shape (n, C)."""
        return np.sqrt(self._softmax.probabilities[:, -self._n_columns :])

    @functools.cached_property
    def scales(self) -> Array:
        """s, with weights: √(w p), shape (n, C)."""
        return np.sqrt(self._weights)[:, None] * self.roots

    @property
    def blocks(self) -> Array:
        """S without the intercept, one block a sample, shape (n, C, C)."""
        deflation = np.eye(self._n_columns) - self._kappa[:, :, None] * self.roots[:, :, None] * self.roots[:, None, :]
        return self.scales[:, :, None] * deflation

    @functools.cached_property
    def intercept_directions(self) -> Array:
        """Orthonormal directions that Π takes out of x, shape (k, n, C); none without an intercept."""
        n, C = self.residual.shape
        if not self._loss.fit_intercept:
            return np.empty((0, n, C))
        columns = np.array([self._adjoint(np.broadcast_to(unit, (n, C))).ravel() for unit in np.eye(C)])
        _, values, directions = thin_svd(columns)
        return directions[values > _INDEPENDENT * values[0]].reshape(-1, n, C)

    @functools.cached_property
    def _kappa(self) -> Array:
        absent = self._softmax.probabilities[:, : -self._n_columns].sum(axis=1, keepdims=True)
        return 1.0 / (1.0 + np.sqrt(absent))

    @functools.cached_property
    def _inverse_hessian_of_intercept(self) -> Array:
        hessian = intercept_curvature(self._softmax.probabilities, self._weights)
        return np.linalg.pinv(hessian[-self._n_columns :, -self._n_columns :], hermitian=True)

    def _multiply(self, values: Array) -> Array:
        return self.scales * self._deflate(values)

    def _adjoint(self, values: Array) -> Array:
        return self._deflate(self.scales * values)

    def _deflate(self, values: Array) -> Array:
        return values - self._kappa * self.roots * np.sum(self.roots * values, axis=1, keepdims=True)

    def _centre(self, values: Array) -> Array:
        if not self._loss.fit_intercept:
            return values
        intercept = self._inverse_hessian_of_intercept @ self._multiply(values).sum(axis=0)
        return values - self._adjoint(np.broadcast_to(intercept, values.shape))


def _all_probabilities(probabilities: Array) -> Array:
    """Probabilities of all classes, where one column is that of the second of two."""
    return _with_first(1.0 - probabilities, probabilities)


def _all_logits(logits: Array) -> Array:
    return _with_first(np.zeros_like(logits), logits)


def _all_changes(change: Array) -> Array:
    """Changes of probabilities."""
    return _with_first(-change, change)


def _with_first(first: Array, columns: Array) -> Array:
    return np.hstack([first, columns]) if columns.shape[1] == 1 else columns


def _entropy_terms(q: Array, missing: Array) -> Array:
    """−q log q for q = 1 − missing, accurate where either is small; 0 where rounding has made q negative."""
    large = q > 0.5
    near_one = np.log1p(-np.where(large, missing, 0.0))
    return -q * np.where(large, near_one, np.log(np.where(q > 0.0, q, 1.0)))


def probabilities_of(logits: Array) -> tuple[Array, Array]:
    """Probabilities of all classes and their logarithms, for logits with the intercept in them.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        One column is the logit of the second of two classes.

    Returns
    -------
    probabilities, logarithms : ndarray of shape (n, max(C, 2))
    """
    softmax = Softmax(_all_logits(logits))
    return softmax.probabilities, np.where(softmax.log < 0.5 * _NEVER, -np.inf, softmax.log)
