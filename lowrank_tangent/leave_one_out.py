"""Ridge regression for every alpha from one eigendecomposition, with leave-one-out error and evidence in closed form.

With A = K + αI the residual of a sample that is left out is [A⁻¹y]_i / [A⁻¹]_ii: exact, for a kernel that has not seen
the targets. After a round of adaptation it has, and the error is too small; it still serves to choose alpha.

A sample of weight w has noise of a variance in proportion to 1/w, and is left out as a whole. So a factor of all
weights says nothing: alpha is chosen in units of their mean.

Copies of a sample would give it away. They are left out together, as groups are: the residuals of a group g are
[A⁻¹]_gg⁻¹ [A⁻¹y]_g. So does one sample in their place, of their mean target and the sum of their weights.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ._types import Array, ArrayLike

#: Values of alpha that are tried, for kernels with a mean diagonal of 1 and weights of 1: three a decade.
ALPHAS = np.logspace(-7, 2, 28)
_EPS = np.finfo(float).eps


class RidgePath:
    """Kernel ridge regression for all alphas: one eigendecomposition, then n² operations an alpha.

    Parameters
    ----------
    kernel : ndarray of shape (m, m)
        With sample weights and centring applied; row i·b + c for sample i and output c of a block of b.
    target : ndarray of shape (n, C)
        With the same weights and centring. Blocks have b = C, else b = 1 and all outputs share the kernel.
    direction : ndarray of shape (n,), optional
        Unit vector that the intercept takes out of every output: roots of the sample weights, normalised.
    sample_weight : ndarray of shape (n,), optional
        The weights; samples of weight 0 are not there.

    Attributes
    ----------
    alphas : ndarray
        Values that are tried.
    rounding : float
        Error of the eigenvalues: a smaller alpha drowns in it.
    """

    def __init__(
        self, kernel: Array, target: Array, direction: Array | None = None, sample_weight: Array | None = None
    ) -> None:
        self._shape = target.shape
        weights = np.ones(len(target)) if sample_weight is None else sample_weight[sample_weight > 0.0]
        self._n_samples, self.alphas = len(weights), ALPHAS * np.mean(weights)
        self._block = len(kernel) // len(target)
        self._level = float(np.mean(np.diagonal(kernel)))
        if direction is not None:
            # The direction of the intercept has the eigenvalue 0, which would drown small alphas in rounding. Nothing
            # of the target lies in it: any other eigenvalue serves as well.
            kernel = kernel + self._level * np.kron(np.multiply.outer(direction, direction), np.eye(self._block))
        values, self._basis = np.linalg.eigh(kernel)
        self._values = np.maximum(values, 0.0)
        self.rounding = len(kernel) * _EPS * self._values.sum()
        self._coordinates = self._basis.T @ target.reshape(len(kernel), -1)
        self._direction = np.zeros(len(target)) if direction is None else direction

    def dual_coefs(self, alpha: float) -> Array:
        """(K + αI)⁻¹ y, shape (n, C)."""
        return (self._basis @ (self._coordinates / (self._values + alpha)[:, None])).reshape(self._shape)

    def leave_one_out(self, alphas: Array, groups: Array | None = None) -> Array:
        """Sum of squared residuals, each of the fit without that sample, over samples and outputs; one an alpha.

        Parameters
        ----------
        alphas : ndarray
        groups : ndarray of shape (n,), optional
            Numbers of the groups, each of which is left out as a whole; by default every sample is one.
        """
        together = [] if groups is None else _by_size(groups)
        return np.array([np.sum(self._residuals(alpha, together) ** 2) for alpha in alphas])

    def best_alpha(self, groups: Array | None = None) -> tuple[float, float]:
        """The alpha of least leave-one-out error, and that error as `leave_one_out` has it."""
        errors = self.leave_one_out(self.alphas, groups)
        best = int(np.argmin(errors))
        return float(self.alphas[best]), float(errors[best])

    def log_evidence(self, alphas: Array) -> Array:
        """Log evidence of outputs that share the kernel, one an alpha; 0 for constant targets. See `evidence.py`."""
        values = np.add.outer(alphas, self._values)
        sizes = np.sum(np.sum(self._coordinates**2, axis=1) / values, axis=1)
        # What is not there has to go: the intercept, whose eigenvalue is the level, and samples of weight 0, whose
        # eigenvalue is 0.
        determinants = np.sum(np.log(values), axis=1) - (self._shape[0] - self._n_samples) * np.log(alphas)
        if self._direction.any():
            determinants -= np.log(self._level + alphas)
        if not sizes.any():
            return np.zeros(len(alphas))
        return -0.5 * self._shape[1] * (self._count * np.log(sizes) + determinants)

    def evidence_weights(self, alpha: float) -> Array:
        """W of the derivative ½ ⟨W, ∂K⟩ of the log evidence, shape (n, n); 0 for targets that are constant."""
        dual = self.dual_coefs(alpha)
        size = np.sum(np.sum(self._coordinates**2, axis=1) / (self._values + alpha))
        if size == 0.0:
            return np.zeros((len(dual), len(dual)))
        root = self._basis / np.sqrt(self._values + alpha)
        inverse = root @ root.T  # which NumPy knows to be symmetric: half the work
        inverse -= np.multiply.outer(self._direction, self._direction / (self._level + alpha))
        return self._shape[1] * ((self._count / size) * (dual @ dual.T) - inverse)

    @property
    def _count(self) -> int:
        """Degrees of freedom of a column of targets."""
        return self._n_samples - bool(self._direction.any())

    def _residuals(self, alpha: float, together: list[Array]) -> Array:
        """Residuals of samples that are left out; `together` holds indices of groups, one array a size."""
        shrinkage = alpha / (self._values + alpha)
        residuals = alpha * self.dual_coefs(alpha)
        of_intercept = alpha / (self._level + alpha)
        rows = self._basis.reshape(len(self._direction), self._block, -1)
        # What the fit leaves of a change of y_i at i; nothing is left to predict of a sample that alone decides.
        if self._block == 1:
            left = self._basis**2 @ shrinkage - of_intercept * self._direction**2
            found = residuals / np.maximum(left, _EPS * alpha)[:, None]
        else:
            found = _left_out(
                rows[:, None], self._direction[:, None], residuals[:, None], shrinkage, alpha, of_intercept
            )[:, 0]
        for group in together:
            found[group] = _left_out(
                rows[group], self._direction[group], residuals[group], shrinkage, alpha, of_intercept
            )
        return found


def left_out_together(X: Array, groups: ArrayLike | None = None) -> Array | None:
    """Number of the group of every sample: copies are one, and all of a group; None if every sample is alone.

    Parameters
    ----------
    X : ndarray of shape (n, n_features)
    groups : array of shape (n,), optional
        Labels of any type.

    Returns
    -------
    ndarray of int, shape (n,), or None

    Raises
    ------
    ValueError
        If groups have another shape.
    """
    n = len(X)
    if groups is not None and np.shape(groups) != (n,):
        raise ValueError(
            f"groups must hold one label for each of the {n} samples; got shape {np.shape(groups)}. Give the labels of "
            "the rows of X, in their order."
        )
    _, copies = np.unique(X, axis=0, return_inverse=True)
    numbers = copies = copies.reshape(n)
    if groups is not None:
        _, named = np.unique(np.asarray(groups), return_inverse=True)
        # Samples are linked by what they are copies of and by their group: links may go on from one to the other.
        # SciPy 1.11 takes no indices of 64 bits here.
        ends = copies.astype(np.int32), (n + named.reshape(n)).astype(np.int32)
        links = coo_array((np.ones(n), ends), shape=(2 * n, 2 * n))
        numbers = connected_components(links, directed=False)[1][copies]
    return numbers if len(np.unique(numbers)) < n else None


def _left_out(
    rows: Array, direction: Array, residuals: Array, shrinkage: Array, alpha: float, of_intercept: float
) -> Array:
    """Residuals of groups of m samples that are left out, shape (g, m, C).

    Parameters
    ----------
    rows : ndarray of shape (g, m, b, k)
        Of the eigenvectors, b = C for blocks, else 1.
    direction : ndarray of shape (g, m)
    residuals : ndarray of shape (g, m, C)
        With them.
    shrinkage : ndarray of shape (k,)
    alpha, of_intercept : float
    """
    g, m, block, _ = rows.shape
    flat = rows.reshape(g, m * block, -1)
    left = (flat * shrinkage) @ flat.transpose(0, 2, 1)
    centre = of_intercept * direction[:, :, None] * direction[:, None, :]
    left += _EPS * alpha * np.eye(m * block) - np.kron(centre, np.eye(block))
    return np.linalg.solve(left, residuals.reshape(g, m * block, -1)).reshape(residuals.shape)


def _by_size(groups: Array) -> list[Array]:
    """Indices of the groups of two samples or more, one array of shape (g, m) for every size m.

    One group alone is taken apart: without it there is nothing to predict from.
    """
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    if len(sizes) == 1:
        return []
    return [order[np.add.outer(starts[sizes == size], np.arange(size))] for size in np.unique(sizes[sizes > 1])]
