"""Positive definite systems by a blocked Cholesky factorisation, in NumPy alone.

NumPy and SciPy each bring a BLAS with threads of its own. Alternating between them in an inner loop makes the idle
threads of one wait actively beside the working ones of the other: products of a few milliseconds were eight times
slower (two cores, OpenBLAS wheels). NumPy has no triangular solve; with the diagonal blocks of the factor inverted,
everything is matrix products, in the precision of the matrix.
"""

from __future__ import annotations

import numpy as np

from .._types import Array

#: Rows of a diagonal block that is factorised and inverted by halves, and rows below which LAPACK does both.
_BLOCK = 192
_LEAF = 64


class CholeskyFactor:
    """Solves K x = b through K = L Lᵀ. Costs n³/3 operations once and 2 n² a solve.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        Symmetric, single or double precision; only its lower triangle is read. Overwritten.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not positive definite in the precision it has.
    """

    def __init__(self, matrix: Array) -> None:
        self._lower = matrix
        self._inverses: list[tuple[int, int, Array]] = []
        n = len(matrix)
        for start in range(0, n, _BLOCK):
            stop = min(start + _BLOCK, n)
            diagonal, below = matrix[start:stop, start:stop], matrix[stop:, start:stop]
            known = matrix[start:stop, :start]
            diagonal -= known @ known.T
            below -= matrix[stop:, :start] @ known.T
            inverse = _factorise(diagonal)
            below[:] = below @ inverse.T
            self._inverses.append((start, stop, inverse))

    def solve(self, rhs: Array) -> Array:
        """x for one or several right-hand sides, shape (n,) or (n, k)."""
        x = np.array(rhs, dtype=self._lower.dtype)
        for start, stop, inverse in self._inverses:
            x[start:stop] = inverse @ (x[start:stop] - self._lower[start:stop, :start] @ x[:start])
        for start, stop, inverse in reversed(self._inverses):
            x[start:stop] = part = inverse.T @ x[start:stop]
            x[:start] -= (part.T @ self._lower[start:stop, :start]).T  # whole rows of L, as they lie in memory
        return x

    def inverse(self) -> Array:
        """K⁻¹ = L⁻ᵀ L⁻¹, shape (n, n). Costs 2 n³/3 operations."""
        n = len(self._lower)
        half = np.zeros((n, n), dtype=self._lower.dtype)
        for start, stop, inverse in self._inverses:
            half[start:stop, :start] = -inverse @ (self._lower[start:stop, :start] @ half[:start, :start])
            half[start:stop, start:stop] = inverse
        whole = np.empty_like(half)
        for start, stop, _ in self._inverses:
            whole[:stop, start:stop] = half[start:, :stop].T @ half[start:, start:stop]
            whole[start:stop, :start] = whole[:start, start:stop].T
        return whole


def _factorise(matrix: Array) -> Array:
    """Replace the lower triangle by L; returns L⁻¹."""
    n = len(matrix)
    if n <= _LEAF:
        matrix[:] = np.linalg.cholesky(matrix)
        return np.tril(np.linalg.inv(matrix))
    half = n // 2
    inverse = np.zeros_like(matrix)
    inverse[:half, :half] = first = _factorise(matrix[:half, :half])
    matrix[half:, :half] = below = matrix[half:, :half] @ first.T
    matrix[half:, half:] -= below @ below.T
    inverse[half:, half:] = second = _factorise(matrix[half:, half:])
    inverse[half:, :half] = -second @ (below @ first)
    return inverse
