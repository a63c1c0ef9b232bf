"""The Γ term of Newton's system, α A W A* less the kernel of the stretched features, of layers with one position.

It is P Pᵀ with a column for every pair i ≤ j of directions on the smaller side of a layer,

    √Γ_ij (a_i b_j + a_j b_i),  for i = j times √½,

where a = Uᵀ h and b = Uᵀ Θ δ if h is the smaller factor, and a = Uᵀ δ, b = Uᵀ Θᵀ h if δ is (`_point.py`).
"""

from __future__ import annotations

import numpy as np


def pair_factors(layer, spectrum, dtype):
    """a of shape (n, m), b of shape (n, C, m), and Γ."""
    layer = layer.astype(dtype)
    h, delta = layer.h[:, 0], layer.delta[:, 0, 0]
    small, wide = (delta, h) if spectrum.transposed else (h, delta)
    m, size = len(spectrum.values), wide.shape[1]
    weights = spectrum.rotated.reshape(m, -1, size).transpose(2, 1, 0).reshape(size, -1).astype(dtype)
    wide = (wide @ weights).reshape(len(wide), -1, m)
    return small @ spectrum.basis.astype(dtype), wide, spectrum.differences.astype(dtype)


def strongest_pairs(design, point, count):
    """The `count` columns of P of largest norm, about, for one output; without weights or centring.

    Where all coefficients are zero there are none to ask for.
    """
    factors = [
        pair_factors(layer, spectrum, design.dtype)
        for layer, spectrum in zip(design.layers, point.layers, strict=True)
        if spectrum.values.any()
    ]
    strengths, pairs = [], []
    for a, b, differences in factors:
        b = b[:, 0]
        sizes = np.multiply.outer(np.mean(a**2, axis=0), np.mean(b**2, axis=0))
        rows, columns = np.triu_indices(a.shape[1])
        strengths.append((differences * (sizes + sizes.T))[rows, columns])
        pairs.append((rows, columns))
    threshold = np.sort(np.concatenate(strengths))[::-1][:count][-1]
    parts = []
    for (a, b, differences), strength, (rows, columns) in zip(factors, strengths, pairs, strict=True):
        kept = strength >= threshold
        i, j = rows[kept], columns[kept]
        weights = np.sqrt(differences[i, j]) * np.where(i == j, np.sqrt(0.5), 1.0).astype(a.dtype)
        parts.append((a[:, i] * b[:, 0, j] + a[:, j] * b[:, 0, i]) * weights)
    return np.hstack(parts)
