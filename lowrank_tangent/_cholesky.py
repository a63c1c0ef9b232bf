"""Positive definite systems by a recursive Cholesky factorisation, in NumPy alone.

NumPy and SciPy each bring a BLAS with threads of its own. Alternating between them in an inner loop makes the idle
threads of one wait actively beside the working ones of the other: products of a few milliseconds were eight times
slower (two cores, OpenBLAS wheels). NumPy has no triangular solve; with the diagonal blocks of the factor inverted,
everything is matrix products, in the precision of the matrix.
"""

from __future__ import annotations

import numpy as np

#: Rows of a diagonal block that is factorised and inverted at once.
_BLOCK = 64
#: Rows of a block of a lower triangle that is updated by products.
_UPDATE_BLOCK = 512
#: Rows of a block of the solves, which wait for memory.
_SOLVE_BLOCK = 256


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

    def __init__(self, matrix):
        _factorise(matrix)
        self._lower = matrix
        self._inverses = []
        for start in range(0, len(matrix), _SOLVE_BLOCK):
            stop = min(start + _SOLVE_BLOCK, len(matrix))
            self._inverses.append((start, stop, _inverse(matrix[start:stop, start:stop])))

    def solve(self, rhs):
        """x for one or several right-hand sides, shape (n,) or (n, k)."""
        x = np.array(rhs, dtype=self._lower.dtype)
        for start, stop, inverse in self._inverses:
            x[start:stop] = inverse @ (x[start:stop] - self._lower[start:stop, :start] @ x[:start])
        for start, stop, inverse in reversed(self._inverses):
            x[start:stop] = inverse.T @ (x[start:stop] - self._lower[stop:, start:stop].T @ x[stop:])
        return x


def _halves(n):
    """Where to cut: half of it, in whole blocks."""
    return _BLOCK * -(-n // (2 * _BLOCK))


def _factorise(matrix):
    """Replace the lower triangle by L."""
    n = len(matrix)
    if n <= _BLOCK:
        matrix[:] = np.linalg.cholesky(matrix)
        return
    half = _halves(n)
    first, below, second = matrix[:half, :half], matrix[half:, :half], matrix[half:, half:]
    _factorise(first)
    _divide(below, first)
    for start in range(0, n - half, _UPDATE_BLOCK):
        stop = start + _UPDATE_BLOCK
        second[start:stop, :stop] -= below[start:stop] @ below[:stop].T
    _factorise(second)


def _divide(rows, lower):
    """Replace rows X by X L⁻ᵀ."""
    n = len(lower)
    if n <= _BLOCK:
        rows[:] = rows @ np.linalg.inv(lower).T
        return
    half = _halves(n)
    _divide(rows[:, :half], lower[:half, :half])
    rows[:, half:] -= rows[:, :half] @ lower[half:, :half].T
    _divide(rows[:, half:], lower[half:, half:])


def _inverse(lower):
    """L⁻¹."""
    n = len(lower)
    if n <= _BLOCK:
        return np.tril(np.linalg.inv(lower))
    half = _halves(n)
    inverse = np.zeros_like(lower)
    inverse[:half, :half] = _inverse(lower[:half, :half])
    inverse[half:, half:] = _inverse(lower[half:, half:])
    inverse[half:, :half] = -inverse[half:, half:] @ (lower[half:, :half] @ inverse[:half, :half])
    return inverse
