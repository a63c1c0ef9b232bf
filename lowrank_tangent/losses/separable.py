"""Losses that are sums over samples and outputs: a new one is a handful of elementwise formulas.

    L(f) = min_b Σ_i w_i Σ_c ℓ(y_ic, f_ic + b_c),        r = −w ℓ'(y, f + b),        −L*(−r) = Σ w d(y, r/w),

with d(y, r) = min_f ℓ(y, f) + r f for r in an interval around 0; b = 0 without an intercept, and Σ_i r_i = 0 with one.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from .._types import Array
from .base import Loss, LossAt

_EPS = np.finfo(float).eps
#: Rounding that sums and bounds of a feasible dual point may show, as a share of what is summed.
_ROUNDING = 1e-12
#: Differences of values below this multiple of their rounding are taken from those of slopes.
_CANCELLED = 1e8
#: Steps to an intercept: those that double the bracket, and those of Newton's method or of halves of it.
_MAX_DOUBLINGS, _MAX_STEPS = 200, 200
#: The slopes of a column balance when they do so to this share of what they are summed from.
_BALANCED = 1e-13


class SeparableLoss(Loss):
    """A loss that is a weighted sum of ℓ(y, f) over samples and outputs.

    A new one has `values`, `slopes`, `dual_values` and, where these end, `dual_bounds`; with `curvatures` it has a
    Hessian, with `cvxpy_values` a reference. All are elementwise: arrays of shape (n, C) go in and one comes out.
    Weights and intercept are done here.

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent.losses import SeparableLoss
    >>> from scipy.special import xlog1py
    >>> class LogCosh(SeparableLoss):
    ...     name = "log-cosh"
    ...     def values(self, y, f):
    ...         return np.logaddexp(f - y, y - f) - np.log(2.0)
    ...     def slopes(self, y, f):
    ...         return np.tanh(f - y)
    ...     def curvatures(self, y, f):
    ...         return 1.0 / np.cosh(f - y) ** 2
    ...     def dual_values(self, y, r):
    ...         return r * y - 0.5 * (xlog1py(1 + r, r) + xlog1py(1 - r, -r))
    ...     def dual_bounds(self, y):
    ...         return -1.0, 1.0
    >>> LogCosh().at(np.zeros((1, 1)), np.full((1, 1), 0.5)).residual.round(3)
    array([[-0.462]])
    """

    @abstractmethod
    def values(self, y: Array, f: Array) -> Array:
        """ℓ(y, f) ≥ 0, convex in f."""

    @abstractmethod
    def slopes(self, y: Array, f: Array) -> Array:
        """Derivative of ℓ(y, f) with respect to f."""

    def curvatures(self, y: Array, f: Array) -> Array:
        """Second derivative of ℓ(y, f) with respect to f; optional, for solvers that need a Hessian."""
        raise NotImplementedError

    @abstractmethod
    def dual_values(self, y: Array, r: Array) -> Array:
        """d(y, r) = min_f ℓ(y, f) + r f, minus the conjugate at −r, for r within `dual_bounds`."""

    def dual_bounds(self, y: Array) -> tuple[Any, Any]:
        """Least and largest r = −ℓ' for targets y: arrays or numbers, ≤ 0 and ≥ 0; by default there is no bound."""
        return -math.inf, math.inf

    def cvxpy_values(self, y: Array, f: Any) -> Any:
        """ℓ(y, f) as an expression of cvxpy, elementwise; optional."""
        raise NotImplementedError

    @property
    def has_hessian(self) -> bool:  # type: ignore[override]
        """Whether there are `curvatures`."""
        return type(self).curvatures is not SeparableLoss.curvatures

    @property
    def has_cvxpy(self) -> bool:
        """Whether there are `cvxpy_values`."""
        return type(self).cvxpy_values is not SeparableLoss.cvxpy_values

    def cvxpy_value(self, target: Array, prediction: Any) -> Any:
        """The loss as an expression of cvxpy, with the intercept as a variable."""
        import cvxpy

        cp: Any = cvxpy  # its types leave out the atoms
        n, C = target.shape
        if self.fit_intercept:
            prediction = prediction + np.ones((n, 1)) @ cp.Variable((1, C))
        return cp.sum(self._weights(target).T @ self.cvxpy_values(target, prediction))

    def at(self, target: Array, prediction: Array) -> SeparableAt:
        """The loss at a prediction."""
        return SeparableAt(self, target, prediction)

    def intercept(self, y: Array, prediction: Array) -> Array:
        """Best intercept for targets and predictions, shape (C,); zeros without one."""
        return self.at(y, prediction).bias

    def largest_factor(self, target: Array, dual: Array) -> float:
        """The largest factor that keeps a dual point in the domain of the conjugate; 0 if none above 0 does."""
        if self.fit_intercept and (np.abs(dual.sum(axis=0)) > _ROUNDING * np.abs(dual).sum(axis=0)).any():
            return 0.0
        low, high = self._bounds(target)
        moving = dual != 0.0
        with np.errstate(over="ignore"):
            factors = np.where(dual > 0.0, high, low)[moving] / dual[moving]
        return float(np.min(factors, initial=math.inf))

    def nearest_dual(self, target: Array, dual: Array) -> Array:
        """The dual point within its bounds, and scaled down where it is too large for sums of 0 with an intercept."""
        if self._is_inside(target, dual):
            return dual
        near = np.clip(dual, *self._bounds(target))
        if self.fit_intercept:
            rising, falling = np.maximum(near, 0.0), np.maximum(-near, 0.0)
            up, down = rising.sum(axis=0), falling.sum(axis=0)
            common = np.minimum(up, down)
            shares = [np.divide(common, part, out=np.zeros_like(part), where=part > 0.0) for part in (up, down)]
            near = shares[0] * rising - shares[1] * falling
        return near if self._is_inside(target, near) else np.zeros_like(near)

    def dual_value(self, target: Array, dual: Array) -> float:
        """Σ w d(y, r/w); −inf outside the domain."""
        return float(self.dual_along(target, dual)(np.ones(1))[0]) if self._is_inside(target, dual) else -math.inf

    def dual_along(self, target: Array, dual: Array) -> Callable[[Array], Array]:
        """`dual_value` of multiples of a dual point by up to its `largest_factor`, as a function of their array."""
        weights, (low, high) = self._weights(target), self.dual_bounds(target)
        units = np.divide(dual, weights, out=np.zeros_like(dual), where=weights > 0.0)

        def value(factors: Array) -> Array:
            duals = (np.clip(factor * units, low, high) for factor in factors)
            return np.array([np.sum(weights * self.dual_values(target, dual)) for dual in duals])

        return value

    def _is_inside(self, target: Array, dual: Array) -> bool:
        return self.largest_factor(target, dual) >= 1.0 - _ROUNDING

    def _weights(self, target: Array) -> Array:
        """Weights of shape (n, 1)."""
        weights = np.ones(len(target)) if self.sample_weight is None else self.sample_weight
        return np.asarray(weights)[:, None]

    def _bounds(self, target: Array) -> tuple[Array, Array]:
        """Bounds of r with weights, shape (n, C)."""
        weights = self._weights(target)
        with np.errstate(invalid="ignore"):
            low, high = (
                np.where(weights > 0.0, weights * np.broadcast_to(bound, target.shape), 0.0)
                for bound in self.dual_bounds(target)
            )
        return low, high


class SeparableAt(LossAt):
    """A sum of ℓ(y, f) at a prediction and the best intercept for it.

    The Hessian is S Sᵀ with S = diag(s) Π, s = √(w ℓ''), and Π the projection onto the complement of s in every
    column, which is what minimising over an intercept leaves.

    Attributes
    ----------
    bias : ndarray of shape (C,)
        The best intercept; 0 without one.
    """

    def __init__(self, loss: SeparableLoss, target: Array, prediction: Array) -> None:
        self._loss, self._target = loss, target
        self._weights = loss._weights(target)
        self.bias = _best_bias(loss, target, prediction) if loss.fit_intercept else np.zeros(target.shape[1])
        self._prediction = prediction + self.bias

    @functools.cached_property
    def _values(self) -> Array:
        return self._loss.values(self._target, self._prediction)

    @functools.cached_property
    def _slopes(self) -> Array:
        return self._loss.slopes(self._target, self._prediction)

    @property
    def value(self) -> float:
        """Σ w ℓ."""
        return float(np.sum(self._weights * self._values))

    @functools.cached_property
    def residual(self) -> Array:
        """−w ℓ', shape (n, C)."""
        return self._loss.nearest_dual(self._target, -self._weights * self._slopes)

    def divergence(self, other: SeparableAt) -> float:
        """L(f') − L(f) + r·(f' − f); where that is rounding, from the difference of slopes, half of it times f' − f."""
        change = other._prediction - self._prediction
        linear = self._slopes * change
        excess = other._values - self._values - linear
        rounding = _EPS * (np.abs(other._values) + np.abs(self._values) + np.abs(linear))
        symmetric = 0.5 * (other._slopes - self._slopes) * change
        excess = np.where(np.abs(excess) > _CANCELLED * rounding, excess, symmetric)
        return float(np.sum(self._weights * np.maximum(excess, 0.0)))

    @functools.cached_property
    def _scales(self) -> Array:
        """s, shape (n, C)."""
        return np.sqrt(self._weights * self._loss.curvatures(self._target, self._prediction))

    @functools.cached_property
    def _units(self) -> Array:
        """s with columns of norm 1 (or 0), which Π takes out; shape (n, C)."""
        sizes = np.linalg.norm(self._scales, axis=0)
        return self._scales / np.where(sizes > 0.0, sizes, 1.0)

    @property
    def mean_curvature(self) -> Array:
        """Mean over outputs of w ℓ'', shape (n,)."""
        return np.mean(self._scales**2, axis=1)

    def multiply(self, values: Array) -> Array:
        """S times values of shape (n, C)."""
        return self._scales * self._centred(values)

    def adjoint(self, values: Array) -> Array:
        """Sᵀ times values of shape (n, C)."""
        return self._centred(self._scales * values)

    @property
    def blocks(self) -> Array:
        """diag(s), one block a sample, shape (n, C, C)."""
        return self._scales[:, :, None] * np.eye(self._scales.shape[1])

    def conjugate_curvature(self, changes: Array) -> Array:
        """1 / (w ℓ'') times changes of r, of shape (…, n, C); 0 where the loss is straight and r is at its bound."""
        curvature = self._scales**2
        return changes * np.divide(1.0, curvature, out=np.zeros_like(curvature), where=curvature > 0.0)

    @property
    def intercept_directions(self) -> Array:
        """The columns of s, normalised, each as an array of shape (n, C); none without an intercept."""
        n, C = self._scales.shape
        if not self._loss.fit_intercept:
            return np.empty((0, n, C))
        columns = np.flatnonzero(self._units.any(axis=0))
        return np.stack([self._units * (np.arange(C) == c) for c in columns]) if columns.size else np.empty((0, n, C))

    def _centred(self, values: Array) -> Array:
        if not self._loss.fit_intercept:
            return values
        return values - self._units * np.sum(self._units * values, axis=0)


def _best_bias(loss: SeparableLoss, target: Array, prediction: Array) -> Array:
    """Intercepts b with Σ_i w_i ℓ'(y_i, f_i + b) = 0, by Newton's method within a bracket; shape (C,).

    Raises
    ------
    ValueError
        If the loss falls without end along an intercept.
    """
    weights, C = loss._weights(target), target.shape[1]

    def slope(bias: Array) -> tuple[Array, Array]:
        """Derivative with respect to every intercept, and what it is a sum of."""
        with np.errstate(over="ignore", invalid="ignore"):
            parts = weights * loss.slopes(target, prediction + bias)
        return parts.sum(axis=0), np.abs(parts).sum(axis=0)

    bias = np.zeros(C)
    total, size = slope(bias)
    low, high = np.where(total <= 0.0, bias, -np.inf), np.where(total >= 0.0, bias, np.inf)
    step = 1.0
    for _ in range(_MAX_DOUBLINGS):
        open_low, open_high = np.isinf(low), np.isinf(high)
        if not (open_low | open_high).any():
            break
        trial = np.where(open_low, -step, np.where(open_high, step, bias))
        found = slope(trial)[0]
        low = np.where(open_low & (found <= 0.0) | open_high & (found < 0.0), trial, low)
        high = np.where(open_high & (found >= 0.0) | open_low & (found > 0.0), trial, high)
        step *= 2.0
    else:
        output = int(np.flatnonzero(open_low | open_high)[0])
        raise ValueError(
            f"loss={loss.name!r} falls without end along the intercept of output {output}: its targets have no best "
            "constant. Use fit_intercept=False, or leave that output out."
        )
    for _ in range(_MAX_STEPS):
        done = (np.abs(total) <= _BALANCED * size) | (low >= high)
        if done.all():
            break
        middle = 0.5 * (low + high)
        trial = middle
        if loss.has_hessian:
            with np.errstate(over="ignore", invalid="ignore"):
                curvature = np.sum(weights * loss.curvatures(target, prediction + bias), axis=0)
                newton = bias - np.divide(total, curvature, out=np.full(C, np.inf), where=curvature > 0.0)
            trial = np.where((newton > low) & (newton < high), newton, middle)
        trial = np.where(done, bias, trial)
        if (trial == bias).all():
            break
        bias = trial
        total, size = slope(bias)
        low, high = np.where((total < 0.0) & ~done, bias, low), np.where((total > 0.0) & ~done, bias, high)
    return bias
