"""The Γ term of Newton's system, α A W A* less the kernel of the stretched features, of layers with one position.

With a = Uᵀ h and b = Uᵀ Θ δ where h is the smaller factor, and a = Uᵀ δ, b = Uᵀ Θᵀ h where δ is (`_point.py`), it is
the kernel

    Σ_ij Γ_ij (a_i b_j + a_j b_i)(a'_i b'_j + a'_j b'_i) / 2

of one output. Γ has few terms, Γ = Σ_k w_k g_k g_kᵀ: one for "kl", where it is z_i² z_j² up to a factor, two for
"power", where it is z_i z_j (z_i + z_j), and a handful for other smooth prices. So the kernel is, whatever the number of
pairs,

    Σ_k w_k ((g_k∘a)·a' (g_k∘b)·b' + (g_k∘a)·b' (g_k∘b)·a').
"""

from __future__ import annotations

import numpy as np

#: Most terms that pay, and the largest share of the stretched kernel that those left out may have: the kernel with the
#: others is positive definite for every share below 1.
_MOST_TERMS = 8
_LEFT_OUT = 0.1


def pair_factors(layer, spectrum, dtype):
    """a of shape (n, m), b of shape (n, C, m), and Γ."""
    layer = layer.astype(dtype)
    h, delta = layer.h[:, 0], layer.delta[:, 0, 0]
    small, wide = (delta, h) if spectrum.transposed else (h, delta)
    m, size = len(spectrum.values), wide.shape[1]
    weights = spectrum.rotated.reshape(m, -1, size).transpose(2, 1, 0).reshape(size, -1).astype(dtype)
    wide = (wide @ weights).reshape(len(wide), -1, m)
    return small @ spectrum.basis.astype(dtype), wide, spectrum.differences.astype(dtype)


def pair_kernels(design, point):
    """The Γ terms of one output, without weights or centring; none of a layer where they have too many terms."""
    kernels = []
    for layer, spectrum in zip(design.layers, point.layers, strict=True):
        terms = pair_terms(spectrum) if spectrum.values.any() else []
        if terms:
            a, b, _ = pair_factors(layer, spectrum, design.dtype)
            kernels.append(PairKernel(a, b[:, 0], terms))
    return kernels


def pair_terms(spectrum):
    """The terms w g gᵀ of Γ as pairs (w, g), as many as are needed; an empty list where that is too many.

    Of (u_iᵀ E v_j, u_jᵀ E v_i) the stretched kernel takes (z_i², z_j²), and the Γ term Γ_ij times the square of
    (s_j, s_i) in that direction, with s the singular values of Θ: that compares them.
    """
    z = spectrum.stretch
    squares = (spectrum.values / z**2) ** 2
    share = np.add.outer(squares, squares) / np.minimum.outer(z, z) ** 2
    # The entries of Γ over z_i z_j are of more equal size.
    weights, vectors = np.linalg.eigh(spectrum.differences / np.multiply.outer(z, z))
    rest, terms = spectrum.differences.copy(), []
    for k in np.argsort(-np.abs(weights))[:_MOST_TERMS]:
        g = z * vectors[:, k]
        terms.append((weights[k], g))
        rest -= weights[k] * np.multiply.outer(g, g)
        if np.max(np.abs(rest) * share) <= _LEFT_OUT:
            return terms
    return []


class PairKernel:
    """The Γ term of one layer and one output as a kernel of its samples.

    Parameters
    ----------
    a, b : ndarray of shape (n, m)
    terms : list of (float, ndarray of shape (m,))
    """

    def __init__(self, a, b, terms):
        dtype = a.dtype
        self._columns = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
        self._terms = [(a * g.astype(dtype), b * (weight * g).astype(dtype)) for weight, g in terms]

    def add_to(self, kernel, rows):
        """Add to a block of rows of a kernel, up to the diagonal: `kernel` has the columns before the last of `rows`."""
        a, b = (columns[:, : rows.stop] for columns in self._columns)
        for ga, gb in self._terms:
            for one, other in ((a, b), (b, a)):
                part = product(ga[rows], one)
                part *= product(gb[rows], other)
                kernel += part


def product(rows, columns):
    """Matrix product; with one column elementwise work is several times faster."""
    return rows * columns if len(columns) == 1 else rows @ columns
