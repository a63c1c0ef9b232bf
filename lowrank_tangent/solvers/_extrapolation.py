"""Where a path goes on: the last solutions, extrapolated by a polynomial in log alpha.

Solutions are smooth functions of log alpha: an eigenvalue λ of a kernel takes part as λ/(λ + α). Coefficients and dual
points are extrapolated alike, without a product with the operator.
"""

from __future__ import annotations

import math

import numpy as np

#: Highest degree of the polynomial. Each more doubles what errors of the solutions grow by.
_MAX_DEGREE = 2


class Extrapolation:
    """The last solutions of a path, and where they point.

    The degree is the one that would have predicted the last solution best, or one more where that was the highest that
    could be tried.

    Parameters
    ----------
    max_degree : int, default=2
        0 goes on from the last solution.
    """

    def __init__(self, max_degree=_MAX_DEGREE):
        self._max_degree, self._degree = max_degree, 0
        self._points = []

    def add(self, alpha, coefs, dual):
        """Remember the solution for an alpha."""
        self._points = [point for point in self._points if point[0] != alpha]
        if self._points:
            errors = [np.linalg.norm(self._dual_at(alpha, degree) - dual) for degree in range(len(self._points))]
            best = int(np.argmin(errors))
            self._degree = min(best + (best == len(errors) - 1), self._max_degree)
        self._points = [*self._points, (alpha, coefs, dual)][-self._max_degree - 1 :]

    def at(self, alpha):
        """Coefficients and dual point to begin with for an alpha; None before the first solution."""
        if not self._points:
            return None
        weights, points = self._polynomial(alpha, self._degree)
        layers = zip(*(coefs for _, coefs, _ in points), strict=True)
        return [_combined(weights, layer) for layer in layers], self._dual_at(alpha, self._degree)

    def _dual_at(self, alpha, degree):
        weights, points = self._polynomial(alpha, degree)
        return _combined(weights, [dual for _, _, dual in points])

    def _polynomial(self, alpha, degree):
        """Weights of Lagrange's polynomial through the last solutions, and these."""
        points = self._points[-degree - 1 :]
        logs, x = [math.log(known) for known, _, _ in points], math.log(alpha)
        weights = [math.prod((x - b) / (a - b) for j, b in enumerate(logs) if j != i) for i, a in enumerate(logs)]
        return weights, points


def _combined(weights, arrays):
    return sum(weight * array for weight, array in zip(weights, arrays, strict=True))
