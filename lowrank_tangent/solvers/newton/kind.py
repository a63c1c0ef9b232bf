"""The contract of a kind of preconditioner, and what several of them use."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np

from ...linalg.cholesky import CholeskyFactor


class Kind(ABC):
    """A way to approximate the inverse of Newton's system.

    Attributes
    ----------
    renewal_cost, solve_cost : float
        Operations of `factor`, and of a solve with what it returns, see `costs.py`.
    is_exact : bool
        Whether the factor is one of the system itself, in double precision.
    is_metric : bool
        Whether without the Γ term it is the inverse of one matrix for all outputs, as `descent.py` needs it, and of a
        problem so large that to begin with that may pay. It then has `metric_cost` and `descent_cost`, the operations
        of such a one and of a step of that descent.
    has_pairs : bool
        Whether Γ terms are part of it.
    """

    is_exact = is_metric = has_pairs = False
    metric_cost = descent_cost = math.inf
    renewal_cost: float
    solve_cost: float

    @abstractmethod
    def factor(self, point, products, pairs=True):
        """Factor of the system at a point, times α.

        Parameters
        ----------
        point : PrimalPoint
        products : SystemProducts
            In the precision of which the factor is to be.
        pairs : bool
            Whether with Γ terms, if there are any.

        Returns
        -------
        object with a method ``solve``
            That takes and returns arrays of shape (n, C).
        """

    def leads_descent(self, share):
        """Whether to begin with a descent pays, where the alpha of ridge is this share of that of the problem."""
        return False


class Unpreconditioned(Kind):
    """The system without A: for operators of which products alone are known, with too many samples to assemble it."""

    renewal_cost = solve_cost = 0.0

    def factor(self, point, products, pairs=True):
        """Division by α."""
        return _Shift(point.problem.alpha)


class _Shift:
    def __init__(self, alpha):
        self._alpha = alpha

    def solve(self, rhs):
        """x for a right-hand side."""
        return rhs / rhs.dtype.type(self._alpha)


def shifted_factor(make_kernel, alpha):
    """Factor of K + αI, in the place of K.

    Where α is lost in the rounding of the largest eigenvalue the shift is larger, and the factor one of another
    matrix: good enough to precondition with.
    """
    kernel = make_kernel()
    kernel.flat[:: len(kernel) + 1] += kernel.dtype.type(alpha)
    try:
        return CholeskyFactor(kernel)
    except np.linalg.LinAlgError:
        if kernel.dtype == np.float32:
            raise
    kernel = make_kernel()
    kernel.flat[:: len(kernel) + 1] += alpha + 10 * len(kernel) * np.finfo(kernel.dtype).eps * np.trace(kernel)
    return CholeskyFactor(kernel)


def curvature_roots(point, dtype):
    """Roots of the curvature of the loss, averaged over outputs; shape (n,)."""
    return np.sqrt(np.broadcast_to(point.loss.mean_curvature, len(point.residual))).astype(dtype)
