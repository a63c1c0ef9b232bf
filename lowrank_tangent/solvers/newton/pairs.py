"""The Γ term of Newton's system, α A W A* less the kernel of the stretched features, of layers with one position.

With a = Uᵀ h and b = Uᵀ Θ δ where h is the smaller factor, and a = Uᵀ δ, b = Uᵀ Θᵀ h where δ is (`spectral_point.py`),
it is the kernel

    Σ_ij Γ_ij (a_i b_j + a_j b_i)(a'_i b'_j + a'_j b'_i) / 2

of one output. Γ has few terms, Γ = Σ_k w_k g_k g_kᵀ: one for "kl", where it is z_i² z_j² up to a factor, two for
"power" with p = 2, where it is z_i z_j (z_i + z_j), and a handful for other smooth prices. So the kernel is, whatever
the number of pairs,

    Σ_k w_k ((g_k∘a)·a' (g_k∘b)·b' + (g_k∘a)·b' (g_k∘b)·a').
"""

from __future__ import annotations

import numpy as np

from ..spectral_point import pair_factors

#: Most terms that pay, and the largest share of the stretched kernel that those left out may have: the kernel with the
#: others is positive definite for every share below 1.
_MOST_TERMS = 8
_LEFT_OUT = 0.1
#: Directions with a b, the strongest; the b of the others are taken for 0, which leaves the kernel positive definite.
#: Terms are sought in as many rows of Γ.
MOST_DIRECTIONS = 64
_EPS = np.finfo(float).eps


def pair_kernels(design, point):
    """The Γ terms of one output, without weights or centring; none of a layer where they have too many terms."""
    kernels = []
    for layer, spectrum in zip(design.layers, point.layers, strict=True):
        terms = pair_terms(spectrum) if spectrum.values.any() else []
        if terms:
            a, b = pair_factors(layer, spectrum, design.dtype, MOST_DIRECTIONS)
            kernels.append(PairKernel(a, b[:, 0], terms))
    return kernels


def pair_terms(spectrum):
    """The terms w g gᵀ of Γ as pairs (w, g), as many as are needed; an empty list where that is none or too many.

    Of (u_iᵀ E v_j, u_jᵀ E v_i) the stretched kernel takes (z_i², z_j²), and the Γ term Γ_ij times the square of
    (s_j, s_i) in that direction, with s the singular values of Θ: that compares them.
    """
    z = spectrum.stretch
    squares = (spectrum.values / z**2) ** 2
    squares[:-MOST_DIRECTIONS] = 0.0
    share = np.add.outer(squares, squares) / np.minimum.outer(z, z) ** 2
    # The entries of Γ over z_i z_j are of more equal size.
    scaled = spectrum.differences / np.multiply.outer(z, z)
    some = np.linspace(0, len(z) - 1, min(len(z), MOST_DIRECTIONS)).astype(int)
    weights, vectors = np.linalg.eigh(scaled[np.ix_(some, some)])
    sizes = np.abs(weights)
    largest = np.argsort(-sizes)[:_MOST_TERMS]
    rest, terms = spectrum.differences.copy(), []
    for k in largest[sizes[largest] > _EPS * sizes.max()]:
        if _is_small(rest, share):
            break
        g = z * (scaled[:, some] @ vectors[:, k]) / weights[k]
        terms.append((weights[k], g))
        rest -= weights[k] * np.multiply.outer(g, g)
    return terms if _is_small(rest, share) else []


def _is_small(rest, share):
    """Whether what terms leave of Γ may be left out."""
    return np.max(np.abs(rest) * share) <= _LEFT_OUT


class PairKernel:
    """The Γ term of one layer and one output as a kernel of its samples.

    Parameters
    ----------
    a : ndarray of shape (n, m)
    b : ndarray of shape (n, k)
        Of the last k directions.
    terms : list of (float, ndarray of shape (m,))
    """

    def __init__(self, a, b, terms):
        k, dtype = b.shape[1], a.dtype
        a_of_b = a[:, -k:]
        self._products = []
        for weight, g in terms:
            g = g.astype(dtype)
            gb = b * (dtype.type(weight) * g[-k:])
            self._products.append(((a * g, a), (gb, b)))
            self._products.append(((a_of_b * g[-k:], b), (gb, a_of_b)))

    def add_to(self, kernel, rows):
        """Add to a block of rows of a kernel, up to the diagonal; `kernel` is that block."""
        for (left, right), (other_left, other_right) in self._products:
            part = product(left[rows], right[: rows.stop].T)
            part *= product(other_left[rows], other_right[: rows.stop].T)
            kernel += part


def product(rows, columns):
    """Matrix product; with one column elementwise work is several times faster."""
    return rows * columns if len(columns) == 1 else rows @ columns
