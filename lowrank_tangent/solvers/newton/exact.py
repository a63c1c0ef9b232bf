"""The system itself, assembled: α Sᵀ A W A* S, n·C × n·C. For small problems, where it saves enough products."""

from __future__ import annotations

import math

import numpy as np

from ...linalg.memory import available_memory
from . import costs
from .costs import skinny_cost
from .kind import Kind, shifted_factor


class _Exact(Kind):
    is_exact = True

    def __init__(self, design, renewal_cost):
        self.renewal_cost = renewal_cost
        self.solve_cost = skinny_cost(design.n_samples * design.n_outputs, 1)

    @classmethod
    def of(cls, problem):
        """The kind for a problem; None if it is too large."""
        design = problem.design
        unknowns, cost = design.n_samples * design.n_outputs, cls._cost(design)
        is_small = unknowns <= costs.EXACT_UNKNOWNS and cost <= costs.EXACT_OPERATIONS
        return cls(design, cost) if is_small and not design.is_streamed else None

    def factor(self, point, products, pairs=True):
        """Cholesky factor, always in double precision."""
        return _Flat(shifted_factor(lambda: self._curved(point), point.problem.alpha))

    def _curved(self, point):
        """The kernel of the penalty, curved by the loss."""
        kernel = self._kernel(point)
        if not point.problem.loss.is_quadratic:
            blocks = point.loss.blocks.transpose(0, 2, 1)
            for _ in range(2):  # one side, then the other of a symmetric matrix
                kernel = (blocks @ kernel.reshape(*blocks.shape[:2], -1)).reshape(kernel.shape).T
        return kernel


class ExactSystem(_Exact):
    """Of the layers of an operator: the kernel of the stretched features plus the Γ term of every layer."""

    @staticmethod
    def _cost(design):
        """Operations of the system and its factorisation, n³/3 of them in the time in which products do n³."""
        unknowns = design.n_samples * design.n_outputs
        smaller = [min(shape) for shape in design.coef_shapes]
        pairs = sum(m * (m + 1) // 2 for m in smaller)
        features = sum(p + q for p, q in design.coef_shapes)
        return unknowns**2 * (pairs + 2 * features + unknowns)

    def _kernel(self, point):
        design = point.problem.design
        left, right = zip(*(spectrum.transforms for spectrum in point.layers), strict=True)
        kernel = design.transformed(left, right).gram()
        for layer, spectrum in zip(design.layers, point.layers, strict=True):
            if spectrum.values.any():
                pairs = _pair_features(design, layer, spectrum)
                kernel += pairs @ pairs.T
        return kernel


class SystemOfRows(_Exact):
    """Of an operator of which products alone are known: ⟨A* e_i, W A* e_j⟩, with the features A* e_i made once."""

    def __init__(self, design, renewal_cost):
        super().__init__(design, renewal_cost)
        self._rows = None

    @staticmethod
    def _cost(design):
        """Operations of the system; infinite where memory is not for the features."""
        unknowns, width = design.n_samples * design.n_outputs, sum(math.prod(shape) for shape in design.coef_shapes)
        fits = 3.0 * 8.0 * unknowns * width <= costs.KERNEL_SHARE * available_memory()
        return unknowns**2 * (2 * width + unknowns) if fits else math.inf

    def _kernel(self, point):
        if self._rows is None:
            design = point.problem.design
            dense = design.to_dense()
            ends = np.cumsum([math.prod(shape) for shape in design.coef_shapes])[:-1]
            parts = [np.split(row, ends) for row in dense]
            self._rows = [
                [part.reshape(shape) for part, shape in zip(row, design.coef_shapes, strict=True)] for row in parts
            ]
        return point.problem.alpha * point.inverse_curvature_products(self._rows)


class _Flat:
    """A factor of the whole system as one of arrays of shape (n, C)."""

    def __init__(self, factor):
        self._factor = factor

    def solve(self, rhs):
        """x for a right-hand side of shape (n, C)."""
        return self._factor.solve(rhs.reshape(-1)).reshape(rhs.shape)


def _pair_features(design, layer, spectrum):
    """Rows √(2Γ) ∘ sym(Uᵀ Φ Gᵀ U), one a sample and output, upper triangle with off-diagonal entries counted twice."""
    left, right = spectrum.basis, spectrum.rotated.T
    if spectrum.transposed:
        left, right = right, left
    projected = layer.projected(left, right, design.n_outputs)
    i, j = np.triu_indices(len(projected))
    pairs = projected[i, j]
    pairs += projected[j, i]
    weights = np.sqrt(spectrum.differences[i, j])
    weights[i == j] *= np.sqrt(0.5)
    pairs *= weights[:, None, None]
    rows = pairs.reshape(len(pairs), -1).T
    if design.changes_rows:
        rows = design.to_rows(rows.reshape(design.n_samples, -1)).reshape(rows.shape)
    return rows
