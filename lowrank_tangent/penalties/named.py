"""The named prices, powers and Kullback–Leibler, one- or two-sided: stretches are roots of one scalar equation."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real

import numpy as np

from .._types import Array, ArrayLike
from . import _scalar
from .spectral import SpectralPenalty, of_one_shape, singular_values, stretches


class EqualSides(SpectralPenalty):
    """A named price that `n_sides` = 1 or 2 transforms pay in equal parts, z = w^n_sides; formulas are in `_scalar`.

    Equal parts are optimal because these prices are convex functions of ln z.

    Parameters
    ----------
    power : float
        The power of the price, 0 for Kullback–Leibler.
    n_sides : {1, 2}
    """

    def __init__(self, power: float, n_sides: int) -> None:
        self.kernel_power = power
        self.n_sides = n_sides
        self._a, self._m, self._e, self._offset = _scalar.condition(power, n_sides)

    @property
    def is_convex(self) -> bool:
        """Whether ω(√t) is convex: known in closed form."""
        return bool(self._a >= self._e)

    @property
    def conjugate_domain(self) -> float:
        """The conjugate is finite for u below this: finite itself where ω grows like z², 0 where it grows less."""
        if self._a != self._e:
            return np.inf if self.is_convex else 0.0
        return float(2.0 * np.exp(0.5 * self._offset))

    def stretch(self, v: ArrayLike) -> Array:
        """Root of the condition for c = 0."""
        return self._from_excess(_elementwise(_scalar.stretch, singular_values(v), self.kernel_power, self.n_sides))

    def prox(self, s: ArrayLike, tau: ArrayLike) -> Array:
        """Proximal map, by one scalar root a singular value, or two where they compete."""
        s, tau = of_one_shape(s, tau)
        out = np.empty(s.size)
        _scalar.shrink(np.ravel(s), np.ravel(tau), self.kernel_power, self.n_sides, out)
        return out.reshape(s.shape)

    def conjugate(self, u: ArrayLike) -> Array:
        """W^m u²/4 − ω, by the condition without cancellation."""
        x = self._dual_excess(u)
        inside = np.isfinite(x)
        x = np.where(inside, x, 1.0)
        a, k = self._a, self.n_sides
        half = 0.5 * self.kernel_power
        value = k * np.log1p(x) if half == 0.0 else x**a * (half + (half - k) * x)
        return np.where(inside, value, np.inf)

    def dual_stretch(self, u: ArrayLike) -> Array:
        """Stretch at the maximum of the conjugate."""
        return self._from_excess(self._dual_excess(u))

    def stretch_slope(self, z: ArrayLike) -> Array:
        """Derivative of z² with respect to u²; at z = 1 that from the right, and 0 where it is infinite, for p > 2."""
        x, W = self._excess(z)
        a, m, e = self._a, self._m, self._e
        return m / 4.0 * np.exp(-self._offset) * W ** (m + e) * self._bent(x) / (a + (a - e) * x)

    def stretch_growth(self, z: ArrayLike) -> Array:
        """Derivative of z² with respect to v²; at z = 1 that from the right, and 0 where it is infinite, for p > 2."""
        x, W = self._excess(z)
        a, m, e = self._a, self._m, self._e
        divisor = a * W + (2.0 * m - e) * x
        return m * np.exp(-self._offset) * W ** (e - m) * self._bent(x) / np.where(divisor == 0.0, 1.0, divisor)

    def split(self, v: ArrayLike) -> tuple[Array, Array]:
        """Equal factors."""
        w = self.stretch(v) ** (1.0 / self.n_sides)
        return w, w if self.n_sides == 2 else np.ones_like(w)

    def _dual_excess(self, u: ArrayLike) -> Array:
        """x = W − 1 at the maximum of the conjugate, +inf outside its domain."""
        u = singular_values(u, "u")
        if self._a > self._e:
            return _elementwise(_scalar.dual_stretch, u, self.kernel_power, self.n_sides)
        if self._a < self._e:
            return np.where(u == 0.0, 0.0, np.inf)
        # (x / W)^a is the square of u relative to the domain: W = 1 / (1 − ratio), without cancellation near 1.
        inside = u < self.conjugate_domain
        with np.errstate(divide="ignore"):
            log_ratio = 2.0 / self._a * np.log(np.where(inside, u / self.conjugate_domain, 0.5))
        return np.where(inside, np.exp(log_ratio) / -np.expm1(log_ratio), np.inf)

    def _from_excess(self, x: Array) -> Array:
        """z = W^(m/2) of x = W − 1."""
        return np.exp(0.5 * self._m * np.log1p(x)) if self._m != 2.0 else 1.0 + x

    def _excess(self, z: ArrayLike) -> tuple[Array, Array]:
        """x = W − 1 and W of a stretch."""
        z = stretches(z)
        log_w = 2.0 / self._m * np.log(z)
        x = np.expm1(log_w) if self._m != 2.0 else z - 1.0
        return x, 1.0 + x

    def _bent(self, x: Array) -> Array:
        """x^(1 − a), and 0 for its infinity at x = 0."""
        with np.errstate(divide="ignore"):
            power = np.asarray(x) ** (1.0 - self._a)
        return np.where(np.isfinite(power), power, 0.0)


class PowerPenalty(EqualSides):
    """ω(z) = |z − 1|^p, one-sided.

    Ridge-like for small singular values, ω̃(v) ≈ v², and v^(2p/(p+2)) for large ones: the nuclear norm 2v for p = 2,
    something flatter and not convex below.

    Parameters
    ----------
    p : float ≥ 1, default=2
        Power of the price. The effective penalty is convex for p ≥ 2.
    """

    p: float

    def __init__(self, p: float = 2) -> None:
        if isinstance(p, (bool, np.bool_)) or not isinstance(p, Real):
            raise TypeError(f"p must be a real number >= 1; got {p!r}.")
        if not 1.0 <= p < np.inf:
            raise ValueError(f"p must be a finite number >= 1; got {p!r}.")
        super().__init__(float(p), 1)
        self.p = p

    def value(self, z: ArrayLike) -> Array:
        """|z − 1|^p."""
        return np.abs(stretches(z) - 1.0) ** self.p

    def slope(self, z: ArrayLike) -> Array:
        """±p |z − 1|^(p−1)."""
        x = stretches(z) - 1.0
        return np.where(x < 0.0, -1.0, 1.0) * self.p * np.abs(x) ** (self.p - 1)

    def __repr__(self) -> str:
        return f"PowerPenalty(p={self.p})"


class KLPenalty(EqualSides):
    """ω(z) = z² − 1 − 2 ln z, one-sided.

    Twice the Kullback–Leibler divergence between N(0, M Mᵀ) and N(0, I); its dual is a log-det barrier.
    """

    def __init__(self) -> None:
        super().__init__(0.0, 1)

    def value(self, z: ArrayLike) -> Array:
        """z² − 1 − 2 ln z."""
        return _elementwise(_scalar.kl_value, stretches(z))

    def slope(self, z: ArrayLike) -> Array:
        """2 (z − 1/z)."""
        z = stretches(z)
        return 2.0 * (z - 1.0) * (1.0 + 1.0 / z)

    def __repr__(self) -> str:
        return "KLPenalty()"


def _elementwise(kernel: Callable[..., None], values: Array, *parameters: float) -> Array:
    out = np.empty(values.size)
    # A copy: loops are compiled for arrays that can be written, and arrays of a caller may not be.
    kernel(values.flatten(), *parameters, out)
    return out.reshape(values.shape)
