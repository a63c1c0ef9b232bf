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
from collections.abc import Callable

import numpy as np

from .._types import Array, ArrayLike
from ._parameters import Parameters
from ._pieces import FINE, ConvexPieces
from ._search import STRETCHES, difference_quotient, increasing_root, minimise

#: Slopes may be differences, with an error of this size. A domain that is too small costs a bound as much, one that is
#: too large costs its truth.
_SLOPE_ERROR = 1e-11
#: A slope of ω(√t) that falls this much in the last decade of stretches is on its way to 0.
_FALLING = 1e-7
#: Second differences of a price drown in rounding nearer to z = 1 than this; there its curvature hardly matters.
_NEAR_ONE = 1e-4


class SpectralPenalty(Parameters, ABC):
    """A price ω(z) for stretching tangent features, and all that solvers need of it.

    Arrays of any shape go in and come out; singular values v, s, u are ≥ 0, stretches z are ≥ 1 unless said otherwise.
    A class keeps the parameters of its constructor under their own names, as scikit-learn's estimators do: penalties
    are equal where these are.
    """

    #: Whether the effective penalty is smooth and every stretch at least 1, which Newton's method relies on.
    is_smooth: bool = True
    #: Stretches at which the shape of the price is looked at.
    _shape: Array = FINE

    @abstractmethod
    def value(self, z: ArrayLike) -> Array:
        """Price ω(z), for any z > 0; only prices of z ≥ 1 matter for the effective penalty."""

    @abstractmethod
    def slope(self, z: ArrayLike) -> Array:
        """Derivative ω'(z) of the price, for any z > 0; at z = 1 that from the right."""

    @property
    def kink(self) -> float:
        """Slope of the effective penalty at 0: gradients up to it leave a zero of the coefficients where it is."""
        return 0.0

    @property
    def is_convex(self) -> bool:
        """Whether the effective penalty is convex, so that solutions can be certified by a duality gap.

        Decided by the convexity of g(t) = ω(√t), which implies it: here by secants on a grid.
        """
        return self._pieces.is_convex

    @property
    def conjugate_domain(self) -> float:
        """The conjugate is finite for u below this; 0 for a price that grows more slowly than z²."""
        return self._domain

    @property
    def sides(self) -> tuple[SpectralPenalty, SpectralPenalty]:
        """Prices of the left and of the right transform, of which ω is the joint price."""
        return self, RidgePenalty()

    def stretch(self, v: ArrayLike) -> Array:
        """Stretch z(v) at which the effective penalty is attained."""
        v = singular_values(v)
        return self._minimal_stretch(v.ravel(), np.zeros(v.size)).reshape(v.shape)

    def prox(self, s: ArrayLike, tau: ArrayLike) -> Array:
        """Proximal map ``argmin_v ½ (v − s)² + τ ω̃(v)``, a global minimiser; `tau` > 0 broadcasts against `s`."""
        s, tau = of_one_shape(s, tau)
        square = self._minimal_stretch(s.ravel(), 2.0 * tau.ravel()).reshape(s.shape) ** 2
        return s * (square / (square + 2.0 * tau))

    def conjugate(self, u: ArrayLike) -> Array:
        """Conjugate ω̃*(u) = max over z ≥ 1 of z²u²/4 − ω(z), +inf outside its domain.

        The maximum is searched globally, so that what follows from it is a lower bound whether or not ω̃ is convex.
        """
        u = singular_values(u, "u")
        z = self.dual_stretch(u)
        inside = np.isfinite(z)
        z = np.where(inside, z, 1.0)
        return np.where(inside, (z * u / 2.0) ** 2 - self.value(z), np.inf)

    def dual_stretch(self, u: ArrayLike) -> Array:
        """Stretch z at which the conjugate is attained, +inf outside its domain."""
        u = singular_values(u, "u")
        inside = (u < self.conjugate_domain) | (u == 0.0)
        z = self._pieces.maximisers(np.where(inside, u, 0.0).ravel(), self.slope, self.value)
        return np.where(inside, z.reshape(u.shape), np.inf)

    def stretch_slope(self, z: ArrayLike) -> Array:
        """Derivative of z² with respect to u² = ω̃'(v)², for a convex penalty: z³ / (z ω''(z) − ω'(z)); 0 at z = 1."""
        return self._where_stretched(z, lambda z, bend, slope: z**3 / (bend - slope))

    def stretch_growth(self, z: ArrayLike) -> Array:
        """Derivative of z² with respect to v²: 4 / (z (z ω''(z) + 3 ω'(z))); 0 at z = 1."""
        return self._where_stretched(z, lambda z, bend, slope: 4.0 / (z * (bend + 3.0 * slope)))

    def effective(self, v: ArrayLike) -> Array:
        """Effective penalty ω̃(v)."""
        v = singular_values(v)
        z = self.stretch(v)
        return self.value(z) + (v / z) ** 2

    def derivative(self, v: ArrayLike) -> Array:
        """Derivative ω̃'(v) = 2 v / z(v)²."""
        v = singular_values(v)
        z = self.stretch(v)
        return 2.0 * (v / z) / z

    def conjugate_derivative(self, u: ArrayLike) -> Array:
        """Derivative of the conjugate, z² u / 2."""
        return self.dual_stretch(u) ** 2 * singular_values(u, "u") / 2.0

    def conjugate_second_derivative(self, u: ArrayLike) -> Array:
        """Second derivative of the conjugate."""
        u = singular_values(u, "u")
        z = self.dual_stretch(u)
        return z**2 / 2.0 + u**2 * self.stretch_slope(z)

    def split(self, v: ArrayLike) -> tuple[Array, Array]:
        """Factors (z1, z2) of the stretch z(v) that go to the left and to the right transform."""
        z = self.stretch(v)
        return z, np.ones_like(z)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @functools.cached_property
    def _grid_prices(self) -> Array:
        return self.value(STRETCHES)

    @functools.cached_property
    def _end(self) -> float:
        """The largest stretch with a finite price, +inf for a price that never ends."""
        finite = np.isfinite(self._grid_prices)
        if finite.all():
            return np.inf
        first = np.argmin(finite)
        beyond = increasing_root(lambda z: ~np.isfinite(self.value(z)), STRETCHES[[first - 1]], STRETCHES[[first]])
        return float(np.nextafter(beyond[0], 1.0))

    @functools.cached_property
    def _domain(self) -> float:
        far = STRETCHES[[-17, -1]]
        if np.isfinite(self._end):
            return np.inf
        with np.errstate(over="ignore", invalid="ignore"):
            earlier, last = (2.0 * self.slope(far) / far).tolist()
        if not np.isfinite(last):
            return np.inf
        if last < earlier * (1.0 - _FALLING):
            return 0.0
        return float(np.sqrt(last) * (1.0 - _SLOPE_ERROR))

    @functools.cached_property
    def _pieces(self) -> ConvexPieces:
        return ConvexPieces(self.value, self._end, self._shape)

    def _minimal_stretch(self, s: Array, c: Array) -> Array:
        """Global minimisers of ω(z) + s² / (z² + c) for arrays s and c."""

        def total(rows: Array, z: Array) -> Array:
            return self.value(z) + (s[rows] / np.hypot(z, np.sqrt(c[rows]))) ** 2

        def table(rows: Array) -> Array:
            return self._grid_prices + (s[rows, None] / np.hypot(STRETCHES, np.sqrt(c[rows, None]))) ** 2

        def slope(rows: Array, z: Array) -> Array:
            square = z**2 + c[rows]
            return self.slope(z) - 2.0 * z * (s[rows] / square) ** 2

        z, _ = minimise(s.size, total, STRETCHES, table, slope)
        if (z == STRETCHES[-1]).any():
            raise ValueError(
                f"the price of {self!r} grows too slowly: no stretch below {STRETCHES[-1]:.0e} minimises "
                f"omega(z) + v² / z² for v = {s[z == STRETCHES[-1]].min():.3g}. Use a price that grows without bound."
            )
        return np.where(s == 0.0, 1.0, z)

    def _where_stretched(self, z: ArrayLike, formula: Callable[[Array, Array, Array], Array]) -> Array:
        z = stretches(z)
        moved = np.isfinite(z) & (z > 1.0 + _NEAR_ONE)
        z = np.where(moved, z, 2.0)
        with np.errstate(divide="ignore"):
            values = formula(z, z * difference_quotient(self.slope, z, self._end), self.slope(z))
        return np.where(moved & np.isfinite(values), np.maximum(values, 0.0), 0.0)


class RidgePenalty(SpectralPenalty):
    """Fixed features: no stretch is allowed, ω̃(v) = v². The model is ridge regression with the NTK."""

    @property
    def is_convex(self) -> bool:
        """True."""
        return True

    @property
    def conjugate_domain(self) -> float:
        """+inf."""
        return np.inf

    def value(self, z: ArrayLike) -> Array:
        """Price: 0 for z = 1 and +inf elsewhere."""
        return np.where(stretches(z) == 1.0, 0.0, np.inf)

    def slope(self, z: ArrayLike) -> Array:
        """+inf: every stretch is forbidden."""
        return np.full_like(stretches(z), np.inf)

    def stretch(self, v: ArrayLike) -> Array:
        """z = 1."""
        return np.ones_like(singular_values(v))

    def prox(self, s: ArrayLike, tau: ArrayLike) -> Array:
        """Ridge shrinkage s / (1 + 2τ)."""
        return singular_values(s, "s") / (1.0 + 2.0 * positive(tau))

    def conjugate(self, u: ArrayLike) -> Array:
        """u² / 4."""
        return singular_values(u, "u") ** 2 / 4.0

    def dual_stretch(self, u: ArrayLike) -> Array:
        """z = 1."""
        return np.ones_like(singular_values(u, "u"))

    def stretch_slope(self, z: ArrayLike) -> Array:
        """0: z never moves."""
        return np.zeros_like(stretches(z))

    def stretch_growth(self, z: ArrayLike) -> Array:
        """0: z never moves."""
        return np.zeros_like(stretches(z))


def singular_values(v: ArrayLike, name: str = "v") -> Array:
    """A float array of numbers ≥ 0."""
    v = np.asarray(v, dtype=np.float64)
    if not (v >= 0.0).all():
        raise ValueError(f"{name} must hold singular values: numbers >= 0, not NaN.")
    return v


def stretches(z: ArrayLike) -> Array:
    """A float array of numbers > 0."""
    z = np.asarray(z, dtype=np.float64)
    if not (z > 0.0).all():
        raise ValueError("z must hold stretches: numbers > 0, not NaN.")
    return z


def positive(tau: ArrayLike) -> Array:
    """A float array of numbers > 0."""
    tau = np.asarray(tau, dtype=np.float64)
    if not (tau > 0.0).all():
        raise ValueError("tau must be > 0.")
    return tau


def of_one_shape(s: ArrayLike, tau: ArrayLike) -> tuple[Array, Array]:
    """Singular values and steps broadcast against each other, as arrays of their own."""
    s, tau = singular_values(s, "s"), positive(tau)
    shape = np.broadcast_shapes(s.shape, tau.shape)
    return np.array(np.broadcast_to(s, shape), order="C"), np.array(np.broadcast_to(tau, shape), order="C")
