"""Where a path goes on: solutions for the last values of alpha, extrapolated by a polynomial in log alpha.

A solution is a smooth function of log alpha, with the scale of about one: every eigenvalue λ of a kernel takes part as
λ/(λ + α). Coefficients and dual points are extrapolated alike, at no product with the operator.
"""

from __future__ import annotations

import math

import numpy as np

#: Highest degree of the polynomial: errors of the solutions grow by up to 2^(degree + 1) − 1.
_MAX_DEGREE = 2


class Extrapolation:
    """The last solutions of a path. Which degree serves is learned from how each would have predicted the last one.

    Parameters
    ----------
    max_degree : int, default=2
        0 goes on from the last solution.
    """

    def __init__(self, max_degree=_MAX_DEGREE):
        self._max_degree, self._degree = max_degree, 0
        self._known = []

    def add(self, alpha, coefs, dual):
        """Remember the solution for this alpha."""
        errors = [np.linalg.norm(self._dual_at(alpha, degree) - dual) for degree in range(self._n_degrees)]
        if errors:
            # A degree that could not be tried yet is as good as the highest that was.
            best = int(np.argmin(errors))
            self._degree = best + (best == len(errors) - 1 and best < self._max_degree)
        self._known = [*self._known, (alpha, coefs, dual)][-self._max_degree - 1 :]

    def at(self, alpha):
        """Coefficients and dual point to begin with at another alpha; None before the first solution."""
        if not self._known:
            return None
        points = self._weighted(alpha, self._degree)
        n_layers = len(self._known[0][1])
        return [sum(weight * coefs[layer] for weight, coefs, _ in points) for layer in range(n_layers)], sum(
            weight * dual for weight, _, dual in points
        )

    @property
    def _n_degrees(self):
        return len(self._known)

    def _dual_at(self, alpha, degree):
        return sum(weight * dual for weight, _, dual in self._weighted(alpha, degree))

    def _weighted(self, alpha, degree):
        """The last solutions with the weights of Lagrange's polynomial through them."""
        last = self._known[-degree - 1 :]
        logs, x = [math.log(point[0]) for point in last], math.log(alpha)
        return [
            (math.prod((x - other) / (log - other) for other in logs if other != log), coefs, dual)
            for log, (_, coefs, dual) in zip(logs, last, strict=True)
        ]
