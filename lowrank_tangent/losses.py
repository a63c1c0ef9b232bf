"""Losses: what a prediction costs, and the conjugate that the certificate needs."""

from __future__ import annotations

import numpy as np


class Squared:
    """½‖y − f‖², with dual variable r = y − f.

    Arrays have shape (n, C); weights and centring have been applied to both y and f.
    """

    is_constraint = False

    def value(self, target, prediction):
        """½‖y − f‖²."""
        return 0.5 * np.sum((target - prediction) ** 2)

    def dual_value(self, target, dual):
        """Loss part of the dual objective, r·y − ½‖r‖²."""
        return np.sum(dual * target) - 0.5 * np.sum(dual**2)

    def dual_along(self, target, dual):
        """`dual_value` of multiples of a dual point, as a function of an array of factors."""
        linear, quadratic = np.sum(dual * target), np.sum(dual**2)
        return lambda factors: factors * linear - 0.5 * factors**2 * quadratic


class Interpolation:
    """The constraint f = y, whose dual variable r is its multiplier.

    Arrays have shape (n, C); weights and centring have been applied to both y and f.
    """

    is_constraint = True

    def value(self, target, prediction):
        """0: how far the constraint is violated is told apart from the objective."""
        return 0.0

    def dual_value(self, target, dual):
        """Loss part of the dual objective, r·y."""
        return np.sum(dual * target)

    def dual_along(self, target, dual):
        """`dual_value` of multiples of a dual point, as a function of an array of factors."""
        linear = np.sum(dual * target)
        return lambda factors: factors * linear


LOSSES = {"squared": Squared, "interpolation": Interpolation}


def get_loss(loss):
    """The loss of that name.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {sorted(LOSSES)}; got {loss!r}.")
    return LOSSES[loss]()
