"""Where a path of another solver than Newton's method goes on: the last solutions, extrapolated in log alpha.

Solutions are smooth functions of log alpha: an eigenvalue λ of a kernel takes part as λ/(λ + α). Coefficients and dual
points are extrapolated alike, without a product with the operator.
"""

from __future__ import annotations

import math

import numpy as np

from .known import combined, combined_layers

#: Highest degree of the polynomial. Every further degree doubles the factor by which errors of solutions grow.
_MAX_DEGREE = 2


class Extrapolation:
    """The last solutions of a path, and where a polynomial through them points.

    The degree is the one that would have predicted the last solution best, or one more where that was the highest that
    could be tried. Without convexity it is 0: an extrapolated point may lead to another minimum than the last solution.

    Parameters
    ----------
    known : list of KnownSolution
        For another adaptivity, the first of which is to begin with.
    """

    def __init__(self, known=()):
        self._first = (known[0].coefs, known[0].dual) if known else None
        self._degree, self._points = 0, []

    def add(self, known):
        """Remember a solution."""
        self._points = [point for point in self._points if point.alpha != known.alpha]
        if self._points:
            errors = [np.linalg.norm(self._dual_at(known.alpha, d) - known.dual) for d in range(len(self._points))]
            best = int(np.argmin(errors))
            self._degree = min(best + (best == len(errors) - 1), _MAX_DEGREE)
        self._points = [*self._points, known][-_MAX_DEGREE - 1 :]

    def at(self, problem, tol):
        """Coefficients and dual point to begin with for a problem, whatever `tol`; None before the first solution."""
        if not self._points:
            return self._first
        degree = self._degree if problem.spectral.is_convex else 0
        weights, points = self._polynomial(problem.alpha, degree)
        return combined_layers(weights, [point.coefs for point in points]), self._dual_at(problem.alpha, degree)

    def _dual_at(self, alpha, degree):
        weights, points = self._polynomial(alpha, degree)
        return combined(weights, [point.dual for point in points])

    def _polynomial(self, alpha, degree):
        """Weights of Lagrange's polynomial through the last solutions, and these."""
        points = self._points[-degree - 1 :]
        logs, x = [math.log(point.alpha) for point in points], math.log(alpha)
        weights = [math.prod((x - b) / (a - b) for j, b in enumerate(logs) if j != i) for i, a in enumerate(logs)]
        return weights, points
