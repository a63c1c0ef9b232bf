"""Preconditioner for the cross-entropy of several classes: one kernel system a class, and what couples them.

Where all classes share a kernel K, Newton's system without the Γ term is ``I + Sᵀ (I ⊗ K) S / α``. The Hessian of the
loss, S Sᵀ, has ``S = diag(s) P``, P the projection that takes the direction √p_i out of every sample's x_i. On what P
leaves, the inverse is that of ``M = I + diag(s) (I ⊗ K) diag(s) / α`` under n constraints,

    M⁻¹ − M⁻¹ R (Rᵀ M⁻¹ R)⁻¹ Rᵀ M⁻¹,

where R holds the n directions. M is one n × n matrix a class, and Rᵀ M⁻¹ R is one more. The loss is flat where a sample
is certain of a class or of its absence: by orders of magnitude, so that a curvature averaged over classes preconditions
badly. An intercept takes out as many directions more as it has entries, in the same way.

Source: Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), section 3.5.
"""

from __future__ import annotations

import itertools

import numpy as np

from ...linalg.cholesky import CholeskyFactor
from . import costs
from .costs import skinny_cost, stretch_cost
from .kernels import kernel_fits, output_kernels
from .kind import Kind, shifted_factor


class Classwise(Kind):
    """A factor a class, for losses whose Hessian couples the outputs of a sample.

    Parameters
    ----------
    design : Operator
    """

    def __init__(self, design):
        n, C = design.n_samples, design.n_outputs
        sides = sum(min(shape) for shape in design.coef_shapes)
        self.renewal_cost = stretch_cost(n, sides) + C * n**2 * (n + costs.CHOLESKY_ENTRY)
        self.solve_cost = (2 * C + 1) * skinny_cost(n, 1)

    @classmethod
    def of(cls, problem):
        """The kind for a problem; None if its loss has no such factor, or its kernels are too large."""
        design = problem.design
        couples = design.n_outputs > 1 and problem.loss.has_classwise_factor
        return cls(design) if couples and kernel_fits(design, others=design.n_outputs + 1) else None

    def factor(self, point, products, pairs=True):
        """Factor of the system without Γ terms."""
        design, loss = products.design, point.loss
        if design.outputs == "shared":
            kernels = itertools.repeat(products.kernels.mean(point), design.n_outputs)
        else:
            kernels = output_kernels(design, point)

        def scaled(kernel, scale):
            return shifted_factor(lambda: scale[:, None] * kernel * scale, point.problem.alpha)

        factors = map(scaled, kernels, loss.scales.T.astype(design.dtype))
        return ClasswiseFactor(factors, point.problem.alpha, loss.roots.astype(design.dtype))


class ClasswiseFactor:
    """Solves the system without the Γ term, times α, for x of shape (n, C).

    Costs n³ operations a class once, and 4 n² a class and 2 n² a solve.

    Parameters
    ----------
    factors : iterable of CholeskyFactor
        Of ``α I + diag(s) K diag(s)``, s of one class after the other.
    alpha : float
    roots : ndarray of shape (n, C)
        √p, of unit norm for every sample.
    """

    def __init__(self, factors, alpha, roots):
        n, C = roots.shape
        self._alpha, self._roots = alpha, np.ascontiguousarray(roots.T)
        self._inverses = np.empty((C, n, n), dtype=roots.dtype)
        coupling, part = np.zeros((n, n), dtype=roots.dtype), np.empty((n, n), dtype=roots.dtype)
        for inverse, root, factor in zip(self._inverses, self._roots, factors, strict=True):
            inverse[:] = factor.inverse()
            np.multiply(inverse, root, out=part)
            part *= root[:, None]
            coupling += part
        coupling.flat[:: n + 1] *= 1.0 + n * np.finfo(coupling.dtype).eps  # positive definite in spite of rounding
        self._coupling = CholeskyFactor(coupling)

    def solve(self, rhs):
        """x for a right-hand side of shape (n, C)."""
        rows = np.ascontiguousarray(rhs.T)
        outside = self._outside(rows)
        rows -= outside
        multipliers = self._coupling.solve(np.sum(self._roots * self._uncoupled(rows), axis=0))
        x = self._uncoupled(rows - self._roots * multipliers)
        return np.ascontiguousarray((x - self._outside(x) + outside / self._alpha).T)

    def _uncoupled(self, rows):
        return (self._inverses @ rows[:, :, None])[:, :, 0]

    def _outside(self, rows):
        """What P takes out: rounding, on which the system is the identity."""
        return self._roots * np.sum(self._roots * rows, axis=0)


class ConstrainedFactor:
    """Solves a system, times α, which is the identity along some directions, with a factor of the one without these.

    Parameters
    ----------
    factor : object with a method ``solve``
    alpha : float
    directions : ndarray of shape (k, n, C)
        Orthonormal.
    """

    def __init__(self, factor, alpha, directions):
        self._factor, self._alpha = factor, alpha
        self._directions = directions.reshape(len(directions), -1)
        self._images = np.array([factor.solve(direction).ravel() for direction in directions])
        inner = (self._directions @ self._images.T).astype(np.float64)
        self._inner = np.linalg.inv(0.5 * (inner + inner.T)).astype(directions.dtype)

    def solve(self, rhs):
        """x for a right-hand side of shape (n, C)."""
        outside = self._outside(rhs.ravel())
        x = self._factor.solve(rhs - outside.reshape(rhs.shape)).ravel()
        x = x - (self._inner @ (self._directions @ x)) @ self._images
        return (x - self._outside(x) + outside / self._alpha).reshape(rhs.shape)

    def _outside(self, flat):
        return (self._directions @ flat) @ self._directions
