"""Least squares, and the constraint that it becomes where nothing may be missed."""

from __future__ import annotations

import math

import numpy as np

from .._checks import check_target_scale


class Squared:
    """½‖y − f‖², with dual variable r = y − f.

    Weights and intercept are in the rows: `design` multiplies features by the roots of the weights and centres them,
    and target and prediction have been treated alike.

    Parameters
    ----------
    sample_weight : ndarray of shape (n,), optional
    fit_intercept : bool, default=False
    """

    name = "squared"
    is_constraint = False
    is_quadratic = True

    def __init__(self, sample_weight=None, fit_intercept=False):
        self.sample_weight, self.fit_intercept = sample_weight, fit_intercept

    def design(self, operator):
        """The operator whose products are the predictions that this loss is given."""
        return operator.weighted(self.sample_weight, centre=self.fit_intercept)

    def check_target(self, y):
        """The targets of shape (n, C), if they are of the kind that the loss is for."""
        check_target_scale(y, self.sample_weight)
        return y

    def intercept(self, y, prediction):
        """Best intercept for plain targets and predictions, shape (C,); zeros without one."""
        if not self.fit_intercept:
            return np.zeros(y.shape[1])
        return np.average(y - prediction, axis=0, weights=self.sample_weight)

    def at(self, target, prediction):
        """The loss at a prediction."""
        return _SquaredAt(target, prediction)

    def project(self, target, dual):
        """A dual point in the domain of the conjugate: the one that was given."""
        return dual

    def reach(self, target, dual):
        """The largest factor by which a dual point stays in the domain of the conjugate."""
        return math.inf

    def dual_value(self, target, dual):
        """Loss part of the dual objective, r·y − ½‖r‖²."""
        return np.sum(dual * target) - 0.5 * np.sum(dual**2)

    def dual_along(self, target, dual):
        """`dual_value` of multiples of a dual point, as a function of an array of factors."""
        linear, quadratic = np.sum(dual * target), np.sum(dual**2)
        return lambda factors: factors * linear - 0.5 * factors**2 * quadratic


class Interpolation(Squared):
    """The constraint f = y, whose dual variable r is its multiplier; weights and intercept as for `Squared`."""

    name = "interpolation"
    is_constraint = True

    def at(self, target, prediction):
        """The loss at a prediction: its value is 0, how far the constraint is violated is told apart from it."""
        return _InterpolationAt(target, prediction)

    def dual_value(self, target, dual):
        """Loss part of the dual objective, r·y."""
        return np.sum(dual * target)

    def dual_along(self, target, dual):
        """`dual_value` of multiples of a dual point, as a function of an array of factors."""
        linear = np.sum(dual * target)
        return lambda factors: factors * linear


class _SquaredAt:
    """½‖y − f‖² at a prediction.

    Attributes
    ----------
    residual : ndarray of shape (n, C)
        y − f, minus the gradient: the dual point that belongs to the prediction.
    """

    def __init__(self, target, prediction):
        self._prediction = prediction
        self.residual = target - prediction

    @property
    def value(self):
        """½‖y − f‖²."""
        return 0.5 * np.sum(self.residual**2)

    def divergence(self, other):
        """What the loss at another prediction exceeds the tangent here by."""
        return 0.5 * np.sum((other._prediction - self._prediction) ** 2)

    def lead(self, dual):
        """A dual point r' near the given one and x with ``r' = r − S x``."""
        return dual, self.residual - dual

    @property
    def mean_curvature(self):
        """Mean over outputs of the diagonal of S Sᵀ, shape (n,) or a number."""
        return 1.0

    def conjugate_curvature(self, changes):
        """Hessian of the conjugate at r times changes of r, of shape (…, n, C): the identity."""
        return changes

    def multiply(self, values):
        """S times values of shape (n, C), with the Hessian S Sᵀ: the identity."""
        return values

    def adjoint(self, values):
        """Sᵀ times values of shape (n, C)."""
        return values


class _InterpolationAt(_SquaredAt):
    """The constraint at a prediction."""

    @property
    def value(self):
        """0."""
        return 0.0
