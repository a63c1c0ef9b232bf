"""Spectral penalties: the price of a stretch, and the effective penalty on singular values it amounts to.

With ω(z) the price of stretching a direction by z ≥ 1 (ω(1) = 0), theory gives for a singular value v

    ω̃(v)  = min_{z ≥ 1} ω(z) + v² / z²              effective penalty
    ω̃*(u) = max_{z ≥ 1} z² u² / 4 − ω(z)            its conjugate

Both problems have one unknown. The base class solves them by a global search, from the price and its slope alone;
penalties for which more is known override where the minimum and the maximum are attained. Everything else follows by
the envelope theorem and is written once.

Source: LeJeune & Alemohammad, arXiv 2308.15478, Theorem 2 and Proposition 3.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod

import numpy as np

from ._search import STRETCHES, difference_quotient, increasing_root, minimise

#: Stretches, and relative fall of a secant that rounding does not explain, for the check of convexity.
_CONVEXITY_GRID = 1.0 + np.logspace(-3, 6, 9 * 16 + 1)
_CONVEXITY_SLACK = 1e-7
#: Slopes may be differences, with an error of this size. A domain that is too small costs a bound as much, one that is
#: too large costs its truth.
_SLOPE_ERROR = 1e-11
#: Second differences of a price drown in rounding nearer to z = 1 than this; there its curvature hardly matters.
_NEAR_ONE = 1e-4


class SpectralPenalty(ABC):
    """A price ω(z) for stretching tangent features, and all that solvers need of it.

    Arrays of any shape go in and come out; singular values v, s, u are ≥ 0, stretches z are ≥ 1 unless said otherwise.
    """

    #: Whether the effective penalty is smooth and every stretch at least 1, which Newton's method relies on.
    is_smooth = True
    #: Slope of the effective penalty at 0: singular values up to it leave a zero of the coefficients where it is.
    kink = 0.0

    @abstractmethod
    def value(self, z):
        """Price ω(z), for any z > 0."""

    @abstractmethod
    def slope(self, z):
        """Derivative ω'(z) of the price, for any z > 0; at z = 1 that from the right."""

    @functools.cached_property
    def is_convex(self):
        """Whether the effective penalty is convex, so that solutions can be certified by a duality gap.

        Decided by the convexity of g(t) = ω(√t), which implies it: here by secants on a grid.
        """
        square = _CONVEXITY_GRID**2
        value = self.value(_CONVEXITY_GRID)
        finite = np.isfinite(value)
        secants = np.diff(value[finite]) / np.diff(square[finite])
        return bool(np.all(np.diff(secants) >= -_CONVEXITY_SLACK * np.abs(secants[1:])))

    @functools.cached_property
    def conjugate_domain(self):
        """The conjugate is finite for u below this."""
        with np.errstate(over="ignore", invalid="ignore"):
            last = float(2.0 * self.slope(STRETCHES[-1:])[0] / STRETCHES[-1])
        if np.isfinite(self._end) or not np.isfinite(last):
            return np.inf
        return np.sqrt(last) * (1.0 - _SLOPE_ERROR)

    @property
    def sides(self):
        """Prices of the left and of the right transform, of which ω is the joint price."""
        return self, RidgePenalty()

    def stretch(self, v):
        """Stretch z(v) at which the effective penalty is attained."""
        v = singular_values(v)
        return self._minimal_stretch(v.ravel(), np.zeros(v.size)).reshape(v.shape)

    def prox(self, s, tau):
        """Proximal map ``argmin_v ½ (v − s)² + τ ω̃(v)``, a global minimiser; `tau` > 0 broadcasts against `s`."""
        s, tau = np.broadcast_arrays(singular_values(s, "s"), positive(tau))
        square = self._minimal_stretch(s.ravel(), 2.0 * tau.ravel()).reshape(s.shape) ** 2
        return s * (square / (square + 2.0 * tau))

    def conjugate(self, u):
        """Conjugate ω̃*(u) of a convex effective penalty, +inf outside its domain."""
        u = singular_values(u, "u")
        z = self.dual_stretch(u)
        inside = np.isfinite(z)
        z = np.where(inside, z, 1.0)
        return np.where(inside, (z * u / 2.0) ** 2 - self.value(z), np.inf)

    def dual_stretch(self, u):
        """Stretch z at which the conjugate of a convex effective penalty is attained, +inf outside its domain."""
        u = singular_values(u, "u")
        flat = u.ravel()
        above = np.searchsorted(self._squared_slopes, flat**2)
        inside = (above < len(STRETCHES)) & (flat < self.conjugate_domain)
        high = np.minimum(above, len(STRETCHES) - 1)
        z = increasing_root(
            lambda z: 2.0 * self.slope(z) - z * flat**2,
            STRETCHES[np.maximum(high - 1, 0)],
            np.minimum(STRETCHES[high], self._end),
        )
        return np.where(inside, z, np.inf).reshape(u.shape)

    def stretch_slope(self, z):
        """Derivative of z² with respect to u² = ω̃'(v)², for a convex penalty: z³ / (z ω''(z) − ω'(z)); 0 at z = 1."""
        return self._where_stretched(z, lambda z, bend, slope: z**3 / (bend - slope))

    def stretch_growth(self, z):
        """Derivative of z² with respect to v²: 4 / (z (z ω''(z) + 3 ω'(z))); 0 at z = 1."""
        return self._where_stretched(z, lambda z, bend, slope: 4.0 / (z * (bend + 3.0 * slope)))

    def effective(self, v):
        """Effective penalty ω̃(v)."""
        v = singular_values(v)
        z = self.stretch(v)
        return self.value(z) + (v / z) ** 2

    def derivative(self, v):
        """Derivative ω̃'(v) = 2 v / z(v)²."""
        v = singular_values(v)
        z = self.stretch(v)
        return 2.0 * (v / z) / z

    def conjugate_derivative(self, u):
        """Derivative of the conjugate, z² u / 2."""
        return self.dual_stretch(u) ** 2 * singular_values(u, "u") / 2.0

    def conjugate_second_derivative(self, u):
        """Second derivative of the conjugate."""
        u = singular_values(u, "u")
        z = self.dual_stretch(u)
        return z**2 / 2.0 + u**2 * self.stretch_slope(z)

    def split(self, v):
        """Factors (z1, z2) of the stretch z(v) that go to the left and to the right transform."""
        z = self.stretch(v)
        return z, np.ones_like(z)

    def __repr__(self):
        return f"{type(self).__name__}()"

    @functools.cached_property
    def _grid_prices(self):
        return self.value(STRETCHES)

    @functools.cached_property
    def _end(self):
        """The largest stretch with a finite price, +inf for a price that never ends."""
        finite = np.isfinite(self._grid_prices)
        if finite.all():
            return np.inf
        first = np.argmin(finite)
        beyond = increasing_root(lambda z: ~np.isfinite(self.value(z)), STRETCHES[[first - 1]], STRETCHES[[first]])
        return float(np.nextafter(beyond[0], 1.0))

    @functools.cached_property
    def _squared_slopes(self):
        """u² = 2 ω'(z) / z on the grid, +inf where the price ends; rounding in the price must not make it fall."""
        inside = (STRETCHES > 1.0) & (self._end > STRETCHES)
        slopes = np.where(STRETCHES > 1.0, np.inf, 0.0)
        slopes[inside] = 2.0 * self.slope(STRETCHES[inside]) / STRETCHES[inside]
        return np.maximum.accumulate(np.where(np.isfinite(slopes), slopes, np.inf))

    def _minimal_stretch(self, s, c):
        """Global minimisers of ω(z) + s² / (z² + c) for arrays s and c."""

        def total(rows, z):
            return self.value(z) + (s[rows] / np.hypot(z, np.sqrt(c[rows]))) ** 2

        def table(rows):
            return self._grid_prices + (s[rows, None] / np.hypot(STRETCHES, np.sqrt(c[rows, None]))) ** 2

        def slope(rows, z):
            square = z**2 + c[rows]
            return self.slope(z) - 2.0 * z * (s[rows] / square) ** 2

        z, _ = minimise(s.size, total, STRETCHES, table, slope)
        if (z == STRETCHES[-1]).any():
            raise ValueError(
                f"the price of {self!r} grows too slowly: no stretch below {STRETCHES[-1]:.0e} minimises "
                f"omega(z) + v² / z² for v = {s[z == STRETCHES[-1]].min():.3g}. Use a price that grows without bound."
            )
        return np.where(s == 0.0, 1.0, z)

    def _where_stretched(self, z, formula):
        z = stretches(z)
        moved = np.isfinite(z) & (z > 1.0 + _NEAR_ONE)
        z = np.where(moved, z, 2.0)
        with np.errstate(divide="ignore"):
            values = formula(z, z * difference_quotient(self.slope, z, self._end), self.slope(z))
        return np.where(moved & np.isfinite(values), np.maximum(values, 0.0), 0.0)


class RidgePenalty(SpectralPenalty):
    """Fixed features: no stretch is allowed, ω̃(v) = v². The model is ridge regression with the NTK."""

    is_convex = True
    conjugate_domain = np.inf

    def value(self, z):
        """Price: 0 for z = 1 and +inf elsewhere."""
        return np.where(stretches(z) == 1.0, 0.0, np.inf)

    def slope(self, z):
        """+inf: every stretch is forbidden."""
        return np.full_like(stretches(z), np.inf)

    def stretch(self, v):
        """z = 1."""
        return np.ones_like(singular_values(v))

    def prox(self, s, tau):
        """Ridge shrinkage s / (1 + 2τ)."""
        return singular_values(s, "s") / (1.0 + 2.0 * positive(tau))

    def conjugate(self, u):
        """u² / 4."""
        return singular_values(u, "u") ** 2 / 4.0

    def dual_stretch(self, u):
        """z = 1."""
        return np.ones_like(singular_values(u, "u"))

    def stretch_slope(self, z):
        """0: z never moves."""
        return np.zeros_like(stretches(z))

    def stretch_growth(self, z):
        """0: z never moves."""
        return np.zeros_like(stretches(z))


class ScaledPenalty:
    """A penalty with the price of moving μ = 1 / adaptivity: ω̃_μ(v) = μ ω̃(v / √μ).

    Parameters
    ----------
    penalty : SpectralPenalty
    adaptivity : float ≥ 0
        0 forbids every stretch: ridge, whatever the penalty.
    """

    def __init__(self, penalty, adaptivity):
        self.penalty, self.adaptivity = penalty, adaptivity
        self.base = penalty if adaptivity > 0 else RidgePenalty()
        self.sqrt_mu = 1.0 / np.sqrt(adaptivity) if adaptivity > 0 else 1.0

    @property
    def is_fixed(self):
        """Whether no stretch is possible: the problem is ridge."""
        return isinstance(self.base, RidgePenalty)

    @property
    def is_convex(self):
        """Whether solutions can be certified by a duality gap."""
        return self.base.is_convex

    @property
    def is_smooth(self):
        """Whether Newton's method applies."""
        return self.base.is_smooth

    @property
    def kink(self):
        """Slope of ω̃_μ at 0."""
        return self.sqrt_mu * self.base.kink

    @property
    def conjugate_domain(self):
        """The conjugate is finite for u below this."""
        return self.sqrt_mu * self.base.conjugate_domain

    def effective(self, v):
        """ω̃_μ(v)."""
        return self.sqrt_mu**2 * self.base.effective(v / self.sqrt_mu)

    def derivative(self, v):
        """ω̃_μ'(v)."""
        return self.sqrt_mu * self.base.derivative(v / self.sqrt_mu)

    def stretch(self, v):
        """z(v / √μ)."""
        return self.base.stretch(v / self.sqrt_mu)

    def split(self, v):
        """Left and right factor of the stretch."""
        return self.base.split(v / self.sqrt_mu)

    def prox(self, s, tau):
        """Proximal map of τ ω̃_μ."""
        return self.sqrt_mu * self.base.prox(s / self.sqrt_mu, tau)

    def conjugate(self, u):
        """ω̃_μ*(u)."""
        return self.sqrt_mu**2 * self.base.conjugate(u / self.sqrt_mu)

    def dual_stretch(self, u):
        """Stretch at the maximum of the conjugate."""
        return self.base.dual_stretch(u / self.sqrt_mu)

    def stretch_slope(self, z):
        """Derivative of z² with respect to u²."""
        return self.base.stretch_slope(z) / self.sqrt_mu**2

    def stretch_growth(self, z):
        """Derivative of z² with respect to v²."""
        return self.base.stretch_growth(z) / self.sqrt_mu**2


def singular_values(v, name="v"):
    """A float array of numbers ≥ 0."""
    v = np.asarray(v, dtype=np.float64)
    if not (v >= 0.0).all():
        raise ValueError(f"{name} must hold singular values: numbers >= 0, not NaN.")
    return v


def stretches(z):
    """A float array of numbers > 0."""
    z = np.asarray(z, dtype=np.float64)
    if not (z > 0.0).all():
        raise ValueError("z must hold stretches: numbers > 0, not NaN.")
    return z


def positive(tau):
    """A float array of numbers > 0."""
    tau = np.asarray(tau, dtype=np.float64)
    if not (tau > 0.0).all():
        raise ValueError("tau must be > 0.")
    return tau
