"""Quantities of the theory: alignment of kernels, effective rank."""

from __future__ import annotations

import numpy as np

from .._types import Array, ArrayLike


def alignment(kernel: ArrayLike, other: ArrayLike, centred: bool = True) -> float:
    """Alignment of two kernels, ⟨K, K'⟩ / (‖K‖ ‖K'‖): the cosine of the angle between them.

    Parameters
    ----------
    kernel, other : array of shape (n, n)
    centred : bool, default=True
        Whether rows and columns of both are centred first, so that a constant that is added to a kernel says nothing.
        False is the alignment of the paper.

    Returns
    -------
    float
        1 for kernels equal up to scale, 0 for orthogonal ones (or where one is constant, or zero if not centred).

    Raises
    ------
    ValueError
        For kernels of other shapes.

    Notes
    -----
    Centred: Cortes, Mohri & Rostamizadeh, Algorithms for learning kernels based on centered alignment (2012). Not
    centred: LeJeune & Alemohammad, arXiv 2308.15478.

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent.theory import alignment, label_kernel
    >>> K, y = np.eye(4) + 1.0, np.array([1.0, 1.0, -1.0, -1.0])
    >>> round(alignment(K, label_kernel(y)), 3), round(alignment(K, label_kernel(y), centred=False), 3)
    (0.577, 0.189)
    """
    kernel, other = (_centred(_square(matrix)) if centred else _square(matrix) for matrix in (kernel, other))
    if kernel.shape != other.shape:
        raise ValueError(f"the kernels must have the same shape; got {kernel.shape} and {other.shape}.")
    norms = np.linalg.norm(kernel) * np.linalg.norm(other)
    return float(np.vdot(kernel, other) / norms) if norms > 0 else 0.0


def label_kernel(y: ArrayLike) -> Array:
    """Kernel of the labels, y yᵀ summed over outputs.

    Parameters
    ----------
    y : ndarray of shape (n,) or (n, C)

    Returns
    -------
    ndarray of shape (n, n)
    """
    y = np.asarray(y, dtype=np.float64)
    y = y[:, None] if y.ndim == 1 else y
    return y @ y.T


def effective_rank(singular_values: ArrayLike) -> float:
    """Effective rank exp(H(p)) with p = σ / Σσ and H the entropy; between 1 and the number of values.

    Parameters
    ----------
    singular_values : ndarray of shape (k,)

    Returns
    -------
    float
        0 if all values are zero.

    Notes
    -----
    Roy & Vetterli, The effective rank: a measure of effective dimensionality (2007).
    """
    values = np.asarray(singular_values, dtype=np.float64)
    values = values[values > 0]
    if values.size == 0:
        return 0.0
    shares = values / values.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _square(kernel: ArrayLike) -> Array:
    kernel = np.asarray(kernel, dtype=np.float64)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"a kernel must have shape (n, n); got {kernel.shape}.")
    return kernel


def _centred(kernel: Array) -> Array:
    rows = kernel.mean(axis=0)
    return kernel - rows - kernel.mean(axis=1)[:, None] + rows.mean()
