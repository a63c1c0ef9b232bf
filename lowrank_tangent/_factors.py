"""The factors of one layer's tangent features, and what can be done with them layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LayerFactors:
    """Factors of one layer's tangent features.

    Parameters
    ----------
    h : array of shape (n, T, p) or (n, p)
        Layer inputs at T positions (T = 1 when left out). A bias is a constant column of h.
    delta : array of shape (n, C, T, q), (n, C, q) or (n, q)
        Gradients of the C outputs with respect to what the layer puts out; C = 1 and T = 1 when left out,
        so that several positions always come with all four axes.

    Raises
    ------
    ValueError, TypeError
        Shapes that do not fit, an empty axis, NaN or infinity, values that are not real numbers.
    """

    h: np.ndarray
    delta: np.ndarray

    def __post_init__(self):
        h, delta = _real_array(self.h, "h"), _real_array(self.delta, "delta")
        if h.ndim not in (2, 3):
            raise ValueError(f"h must have shape (n, p) or (n, T, p); got {h.shape}.")
        if delta.ndim not in (2, 3, 4):
            raise ValueError(f"delta must have shape (n, q), (n, C, q) or (n, C, T, q); got {delta.shape}.")
        if h.ndim == 2:
            h = h[:, None, :]
        if delta.ndim == 2:
            delta = delta[:, None, :]
        if delta.ndim == 3:
            delta = delta[:, :, None, :]
        if len(h) != len(delta):
            raise ValueError(f"h and delta must have one row a sample each; got {len(h)} and {len(delta)} rows.")
        if h.shape[1] != delta.shape[2]:
            raise ValueError(
                f"h has {h.shape[1]} position(s) a sample and delta has {delta.shape[2]}; both need the same T: "
                "h of shape (n, T, p) goes with delta of shape (n, C, T, q)."
            )
        object.__setattr__(self, "h", h)
        object.__setattr__(self, "delta", delta)

    @property
    def n_samples(self):
        """Number of samples n."""
        return len(self.h)

    @property
    def n_outputs(self):
        """Number of outputs C of the network."""
        return self.delta.shape[1]

    @property
    def shape(self):
        """Shape (p, q) of the layer's weight matrix."""
        return self.h.shape[2], self.delta.shape[3]

    def rows(self, index):
        """The factors of a subset of the samples (slice, integers or mask)."""
        return LayerFactors(self.h[index], self.delta[index])


def kernel_block(one, two, rows, cols, per_output):
    """Part of the kernel of one layer: some samples of `one` against some of `two`, per output or averaged."""
    h1, h2 = one.h[rows], two.h[cols]
    d1, d2 = one.delta[rows], two.delta[cols]
    (n1, T, p), n2, (C, q) = h1.shape, len(h2), d1.shape[1::2]
    if T == 1:
        inner = h1.reshape(n1, p) @ h2.reshape(n2, p).T
        if not per_output:
            inner *= d1.reshape(n1, C * q) @ d2.reshape(n2, C * q).T
            return inner / C
        gradients = (d1.reshape(n1 * C, q) @ d2.reshape(n2 * C, q).T).reshape(n1, C, n2, C)
        return (inner[:, None, :, None] * gradients).reshape(n1 * C, n2 * C)
    inner = np.tensordot(h1, h2, axes=(2, 2))
    if per_output:
        gradients = np.tensordot(d1, d2, axes=(3, 3))
        return np.einsum("itjs,ictjds->icjd", inner, gradients).reshape(n1 * C, n2 * C)
    gradients = sum(np.tensordot(d1[:, c], d2[:, c], axes=(2, 2)) for c in range(C))
    return np.einsum("itjs,itjs->ij", inner, gradients) / C


def reduced_factor(factor):
    """Factor in an orthonormal basis of its span, and the basis (None where nothing is gained)."""
    flat = factor.reshape(-1, factor.shape[-1])
    if len(flat) >= flat.shape[1]:
        return factor, None
    basis, triangle = np.linalg.qr(flat.T)
    return triangle.T.reshape(*factor.shape[:-1], -1), basis


def singular_vectors(coef, h):
    """Thin SVD of a layer's coefficients whose columns lie in the span of the layer inputs h.

    With fewer inputs than the layer is wide, only as many singular values are sought; the others are zero.
    """
    _, basis = reduced_factor(h)
    if basis is None:
        return np.linalg.svd(coef, full_matrices=False)
    u, v, vt = np.linalg.svd(basis.T @ coef, full_matrices=False)
    return basis @ u, v, vt


def rotate(coef, left, right, shape):
    """``left @ coef @ rightᵀ`` of that shape, with the same `right` for every output's block (None: identity)."""
    if left is not None:
        coef = left @ coef
    if right is not None:
        coef = (coef.reshape(shape[0], -1, right.shape[1]) @ right.T).reshape(shape)
    return coef


def transpose(basis):
    """Transpose of a basis that may be missing."""
    return None if basis is None else basis.T


def stacked_outputs(delta, n_outputs):
    """Gradients of one output as those of `n_outputs` outputs, each in its own block of columns."""
    n, _, T, q = delta.shape
    stacked = np.zeros((n, n_outputs, T, n_outputs, q), dtype=delta.dtype)
    for c in range(n_outputs):
        stacked[:, c, :, c] = delta[:, 0]
    return stacked.reshape(n, n_outputs, T, n_outputs * q)


def _real_array(values, name):
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers; got dtype {array.dtype}.")
    if array.dtype != np.float32:
        array = array.astype(np.float64, copy=False)
    if array.size == 0:
        raise ValueError(f"{name} is empty: its shape is {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains NaN or infinity; remove or impute those samples first.")
    return array
