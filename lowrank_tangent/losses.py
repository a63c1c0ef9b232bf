"""Losses: what a prediction costs, and the conjugate that the certificate needs."""

from __future__ import annotations

import numpy as np


class Squared:
    """½‖y − f‖², with dual variable r = y − f.

    Arrays have shape (n, C); weights and centring have been applied to both y and f.
    """

    def value(self, target, prediction):
        """½‖y − f‖²."""
        return 0.5 * np.sum((target - prediction) ** 2)

    def dual(self, target, prediction):
        """The dual variable that belongs to a prediction: minus the gradient, y − f."""
        return target - prediction

    def dual_value(self, target, dual):
        """Loss part of the dual objective, r·y − ½‖r‖²."""
        return np.sum(dual * target) - 0.5 * np.sum(dual**2)

    def dual_along(self, target, dual):
        """`dual_value` of multiples of a dual point, as a function of an array of factors."""
        linear, quadratic = np.sum(dual * target), np.sum(dual**2)
        return lambda factors: factors * linear - 0.5 * factors**2 * quadratic


LOSSES = {"squared": Squared}


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
