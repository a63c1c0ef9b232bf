"""Penalties without a free identity, for comparison: the nuclear norm and Schatten quasi-norms.

They are what the power prices lead to for large singular values, and they set small ones to zero (q ≤ 1).
"""

from __future__ import annotations

from numbers import Real

import numpy as np

from .._types import Array, ArrayLike
from . import _scalar
from .spectral import SpectralPenalty, of_one_shape, singular_values


class SchattenPenalty(SpectralPenalty):
    """ω̃(v) = (2/q) v^q: (α/q) Σ_j σ_j(B)^q in the objective, ridge for q = 2 and the nuclear norm for q = 1.

    In terms of stretches this is min over z > 0 of ω(z) + v²/z² with ω(z) = (2/q − 1) z^(2q/(2−q)): nothing is free,
    and unused directions are given up, z(0) = 0.

    Parameters
    ----------
    q : float in (0, 2), default=0.5
        Convex for q ≥ 1.
    """

    is_smooth = False
    q: float

    def __init__(self, q: float = 0.5) -> None:
        if isinstance(q, (bool, np.bool_)) or not isinstance(q, Real):
            raise TypeError(f"q must be a real number with 0 < q < 2; got {q!r}.")
        if not 0.0 < q < 2.0:
            raise ValueError(f"q must be a number with 0 < q < 2; got {q!r}. For q=2 use RidgePenalty().")
        self.q = q

    @property
    def is_convex(self) -> bool:
        """Whether q ≥ 1."""
        return self.q >= 1.0

    @property
    def kink(self) -> float:
        """Slope of ω̃ at 0."""
        return 0.0 if self.q > 1.0 else 2.0 if self.q == 1.0 else np.inf

    @property
    def conjugate_domain(self) -> float:
        """The conjugate is finite for u below this."""
        return np.inf if self.q > 1.0 else 2.0 if self.q == 1.0 else 0.0

    def value(self, z: ArrayLike) -> Array:
        """Price (2/q − 1) z^(2q/(2−q)), for any z ≥ 0."""
        return (2.0 / self.q - 1.0) * singular_values(z, "z") ** (2.0 * self.q / (2.0 - self.q))

    def slope(self, z: ArrayLike) -> Array:
        """Derivative of the price."""
        return 2.0 * singular_values(z, "z") ** (2.0 * self.q / (2.0 - self.q) - 1.0)

    def stretch(self, v: ArrayLike) -> Array:
        """v^(1 − q/2)."""
        return singular_values(v) ** (1.0 - self.q / 2.0)

    def effective(self, v: ArrayLike) -> Array:
        """(2/q) v^q."""
        return 2.0 / self.q * singular_values(v) ** self.q

    def derivative(self, v: ArrayLike) -> Array:
        """2 v^(q−1); at 0 the slope from the right."""
        with np.errstate(divide="ignore"):
            return 2.0 * singular_values(v) ** (self.q - 1.0)

    def prox(self, s: ArrayLike, tau: ArrayLike) -> Array:
        """Proximal map: soft thresholding by 2τ for q = 1, else one scalar root a singular value."""
        s, tau = of_one_shape(s, tau)
        if self.q == 1.0:
            return np.maximum(s - 2.0 * tau, 0.0)
        out = np.empty(s.size)
        _scalar.schatten_shrink(np.ravel(s), np.ravel(tau), float(self.q), out)
        return out.reshape(s.shape)

    def conjugate(self, u: ArrayLike) -> Array:
        """2 (1 − 1/q) (u/2)^(q/(q−1)) for q > 1; 0 for q = 1, u ≤ 2, and +inf beyond."""
        u = singular_values(u, "u")
        if self.q > 1.0:
            return 2.0 * (1.0 - 1.0 / self.q) * (u / 2.0) ** (self.q / (self.q - 1.0))
        return np.where(u <= self.conjugate_domain, 0.0, np.inf)

    def dual_stretch(self, u: ArrayLike) -> Array:
        """Stretch where the conjugate is attained."""
        u = singular_values(u, "u")
        if self.q > 1.0:
            return (u / 2.0) ** ((1.0 - self.q / 2.0) / (self.q - 1.0))
        return np.where(u < self.conjugate_domain, 0.0, np.inf)

    def __repr__(self) -> str:
        return f"SchattenPenalty(q={self.q})"


class NuclearPenalty(SchattenPenalty):
    """ω̃(v) = 2v: α times the sum of all singular values in the objective (adaptivity scales it by 1/√adaptivity)."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def __repr__(self) -> str:
        return "NuclearPenalty()"
