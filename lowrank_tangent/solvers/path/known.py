"""Solutions that a path knows, and combinations of them."""

from __future__ import annotations

import functools


class KnownSolution:
    """A solution of a problem, and its products with A.

    Attributes
    ----------
    alpha : float
    coefs, dual
    is_new : bool
        Whether it took iterations to find it.
    prediction : ndarray of shape (n, C)
        A B.
    """

    def __init__(self, problem, solution):
        self._design = problem.design
        self.alpha, self.coefs, self.dual = problem.alpha, solution.coefs, solution.dual
        self.is_new = solution.n_iter > 0
        self.prediction = self._design.to_rows(solution.prediction)

    @functools.cached_property
    def correlation(self):
        """A* r."""
        return self._design.rmatvec(self.dual)


def combined(weights, arrays):
    """Linear combination of arrays."""
    return sum(weight * array for weight, array in zip(weights, arrays, strict=True))


def combined_layers(weights, lists):
    """Linear combination of coefficients or correlations, of one matrix a layer each."""
    return [combined(weights, matrices) for matrices in zip(*lists, strict=True)]
