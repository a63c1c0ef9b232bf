"""Least squares, and the constraint that it becomes where nothing may be missed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._checks import check_target_scale
from .._types import Array
from .base import Loss, LossAt


class Squared(Loss):
    """½‖y − f‖², with dual variable r = y − f.

    Weights and intercept are in the rows: `design` multiplies features by the roots of the weights and centres them,
    and target and prediction have been treated alike.

    Parameters
    ----------
    sample_weight : ndarray of shape (n,), optional
    fit_intercept : bool, default=False
    """

    name = "squared"
    is_quadratic = True
    has_hessian = True

    def __init__(self, sample_weight: Array | None = None, fit_intercept: bool = False) -> None:
        self.sample_weight, self.fit_intercept = sample_weight, fit_intercept

    def design(self, operator: Any) -> Any:
        """The operator whose products are the predictions that this loss is given."""
        return operator.weighted(self.sample_weight, centre=self.fit_intercept)

    def check_target(self, y: Array) -> Array:
        """The targets of shape (n, C), if they are of the kind that the loss is for."""
        check_target_scale(y, self.sample_weight)
        return y

    def intercept(self, y: Array, prediction: Array) -> Array:
        """Best intercept for plain targets and predictions, shape (C,); zeros without one."""
        if not self.fit_intercept:
            return np.zeros(y.shape[1])
        return np.average(y - prediction, axis=0, weights=self.sample_weight)

    def at(self, target: Array, prediction: Array) -> LossAt:
        """The loss at a prediction."""
        return _SquaredAt(target, prediction)

    def nearest_dual(self, target: Array, dual: Array) -> Array:
        """A dual point in the domain of the conjugate: the one that was given."""
        return dual

    def largest_factor(self, target: Array, dual: Array) -> float:
        """The largest factor that keeps a dual point in the domain of the conjugate: there is no limit."""
        return math.inf

    def dual_value(self, target: Array, dual: Array) -> float:
        """Loss part of the dual objective, r·y − ½‖r‖²."""
        return float(np.sum(dual * target) - 0.5 * np.sum(dual**2))

    def dual_along(self, target: Array, dual: Array) -> Callable[[Array], Array]:
        """`dual_value` of multiples of a dual point, as a function of an array of factors."""
        linear, quadratic = np.sum(dual * target), np.sum(dual**2)
        return lambda factors: factors * linear - 0.5 * factors**2 * quadratic

    def cvxpy_value(self, target: Array, prediction: Any) -> Any:
        """½‖y − f‖² as an expression of cvxpy."""
        import cvxpy

        cp: Any = cvxpy  # its types leave out the atoms
        return 0.5 * cp.sum_squares(target - prediction)


class Interpolation(Squared):
    """The constraint f = y, whose dual variable r is its multiplier; weights and intercept as for `Squared`."""

    name = "interpolation"
    is_constraint = True

    def at(self, target: Array, prediction: Array) -> LossAt:
        """The loss at a prediction: its value is 0, how far the constraint is violated is told apart from it."""
        return _InterpolationAt(target, prediction)

    def dual_value(self, target: Array, dual: Array) -> float:
        """Loss part of the dual objective, r·y."""
        return float(np.sum(dual * target))

    def dual_along(self, target: Array, dual: Array) -> Callable[[Array], Array]:
        """`dual_value` of multiples of a dual point, as a function of an array of factors."""
        linear = np.sum(dual * target)
        return lambda factors: factors * linear


class _SquaredAt(LossAt):
    """½‖y − f‖² at a prediction; S is the identity."""

    def __init__(self, target: Array, prediction: Array) -> None:
        self._prediction = prediction
        self._residual = target - prediction

    @property
    def value(self) -> float:
        """½‖y − f‖²."""
        return 0.5 * np.sum(self._residual**2)

    @property
    def residual(self) -> Array:
        """y − f, shape (n, C)."""
        return self._residual

    def divergence(self, other: Any) -> float:
        """½‖f' − f‖²."""
        return 0.5 * np.sum((other._prediction - self._prediction) ** 2)

    def newton_start(self, dual: Array) -> tuple[Array, Array]:
        """The dual point that was given, and x = r − r'."""
        return dual, self._residual - dual

    @property
    def mean_curvature(self) -> float:
        """1."""
        return 1.0

    def multiply(self, values: Array) -> Array:
        """The values."""
        return values

    def adjoint(self, values: Array) -> Array:
        """The values."""
        return values

    @property
    def blocks(self) -> Array:
        """Identities, shape (n, C, C)."""
        n, C = self._residual.shape
        return np.broadcast_to(np.eye(C), (n, C, C))

    def conjugate_curvature(self, changes: Array) -> Array:
        """The changes of r."""
        return changes


class _InterpolationAt(_SquaredAt):
    """The constraint at a prediction."""

    @property
    def value(self) -> float:
        """0."""
        return 0.0
