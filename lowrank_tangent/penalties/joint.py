"""Joint penalty of two-sided adaptation: one price for the left and one for the right transform."""

from __future__ import annotations

import functools

import numpy as np

from .._types import Array, ArrayLike
from . import _two_sided
from ._pieces import COARSE
from ._search import minimise
from .named import EqualSides, PowerPenalty
from .spectral import RidgePenalty, SpectralPenalty, of_one_shape, singular_values, stretches

#: Shares of ln z that are tried on the left side before the best one is refined.
_SHARES = np.linspace(0.0, 1.0, 33)


class JointPenalty(SpectralPenalty):
    """ω = ω1 ⊕ ω2, (ω1 ⊕ ω2)(z) = min over 1 ≤ z1 ≤ z of ω1(z1) + ω2(z/z1): features ``M1 Φ M2`` adapt on both sides.

    Two equal named prices share the stretch equally, ω(z) = 2 ω1(√z), and are as fast as one-sided ones; so is a named
    price on one side with `RidgePenalty`, which leaves its side at the identity, on the other. Two different named
    prices have one equation for their shares; with a custom price everything is found by search.

    Parameters
    ----------
    first, second : SpectralPenalty, default=PowerPenalty(2)
        Prices of the left transform M1 and of the right transform M2.

    Notes
    -----
    Rarely convex: two-sided powers are for p ≥ 4. Source: arXiv 2308.15478, Theorem 2.
    """

    def __init__(self, first: SpectralPenalty | None = None, second: SpectralPenalty | None = None) -> None:
        self.first, self.second = _sides(first, second)

    @functools.cached_property
    def _formulas(self) -> SpectralPenalty:
        """The same penalty, by the fastest formulas that these two prices have."""
        first, second = self.first, self.second
        named = [side for side in (first, second) if isinstance(side, EqualSides)]
        if len(named) == 2:
            if named[0].kernel_power == named[1].kernel_power:
                return _EqualParts(first, second, named[0], 2)
            return _OwnParts(first, second, named[0].kernel_power, named[1].kernel_power)
        if len(named) == 1 and any(isinstance(side, RidgePenalty) for side in (first, second)):
            return _EqualParts(first, second, named[0], 1)
        return _SearchedParts(first, second)

    @property
    def sides(self) -> tuple[SpectralPenalty, SpectralPenalty]:
        """Prices of the left and of the right transform."""
        return self.first, self.second

    @property
    def is_convex(self) -> bool:
        """Whether ω(√t) is convex."""
        return self._formulas.is_convex

    @property
    def conjugate_domain(self) -> float:
        """The conjugate is finite for u below this."""
        return self._formulas.conjugate_domain

    def value(self, z: ArrayLike) -> Array:
        """Joint price ω(z), for z ≥ 1."""
        return self._formulas.value(z)

    def slope(self, z: ArrayLike) -> Array:
        """ω'(z), that of the price that pays for the last bit of stretch."""
        return self._formulas.slope(z)

    def stretch(self, v: ArrayLike) -> Array:
        """Stretch z1 z2 at which the effective penalty is attained."""
        return self._formulas.stretch(v)

    def split(self, v: ArrayLike) -> tuple[Array, Array]:
        """Factors (z1, z2) of the stretch z(v)."""
        return self._formulas.split(v)

    def prox(self, s: ArrayLike, tau: ArrayLike) -> Array:
        """Proximal map ``argmin_v ½ (v − s)² + τ ω̃(v)``, a global minimiser; `tau` > 0 broadcasts against `s`."""
        return self._formulas.prox(s, tau)

    def conjugate(self, u: ArrayLike) -> Array:
        """Conjugate ω̃*(u), +inf outside its domain."""
        return self._formulas.conjugate(u)

    def dual_stretch(self, u: ArrayLike) -> Array:
        """Stretch at which the conjugate is attained, +inf outside its domain."""
        return self._formulas.dual_stretch(u)

    def stretch_slope(self, z: ArrayLike) -> Array:
        """Derivative of z² with respect to u²."""
        return self._formulas.stretch_slope(z)

    def stretch_growth(self, z: ArrayLike) -> Array:
        """Derivative of z² with respect to v²."""
        return self._formulas.stretch_growth(z)

    def __repr__(self) -> str:
        return f"JointPenalty({self.first!r}, {self.second!r})"


class _Parts(SpectralPenalty):
    """A joint price as `JointPenalty` uses it; messages name it by what the user wrote."""

    def __init__(self, first: SpectralPenalty, second: SpectralPenalty) -> None:
        self.first, self.second = first, second

    def __repr__(self) -> str:
        return f"JointPenalty({self.first!r}, {self.second!r})"


class _EqualParts(EqualSides, _Parts):
    """A named price that both sides pay in equal parts, or one side alone where the other may not move."""

    def __init__(self, first: SpectralPenalty, second: SpectralPenalty, price: EqualSides, n_sides: int) -> None:
        EqualSides.__init__(self, price.kernel_power, n_sides)
        _Parts.__init__(self, first, second)
        self.price = price

    def value(self, z: ArrayLike) -> Array:
        """ω(z)."""
        return self.n_sides * self.price.value(stretches(z) ** (1.0 / self.n_sides))

    def slope(self, z: ArrayLike) -> Array:
        """ω'(z)."""
        w = stretches(z) ** (1.0 / self.n_sides)
        return self.price.slope(w) * w / stretches(z)

    def split(self, v: ArrayLike) -> tuple[Array, Array]:
        """Equal factors, or the whole stretch on the side that may move."""
        moving, other = super().split(v)
        return (other, moving) if isinstance(self.first, RidgePenalty) else (moving, other)


class _OwnParts(_Parts):
    """Two different named prices, of which one equation gives both parts."""

    _shape = COARSE

    def __init__(
        self, first: SpectralPenalty, second: SpectralPenalty, first_power: float, second_power: float
    ) -> None:
        super().__init__(first, second)
        self.first_power, self.second_power = first_power, second_power

    def value(self, z: ArrayLike) -> Array:
        """Joint price ω(z), for z ≥ 1."""
        return self._shared(z)[2]

    def slope(self, z: ArrayLike) -> Array:
        """ω'(z) = λ / z, the marginal price of both sides."""
        return self._shared(z)[3] / stretches(z)

    def stretch(self, v: ArrayLike) -> Array:
        """Stretch z1 z2 at which the effective penalty is attained."""
        return np.exp(self._log_stretches(v).sum(axis=0))

    def split(self, v: ArrayLike) -> tuple[Array, Array]:
        """Factors (z1, z2) of the stretch z(v)."""
        z1, z2 = np.exp(self._log_stretches(v))
        return z1, z2

    def prox(self, s: ArrayLike, tau: ArrayLike) -> Array:
        """Proximal map ``argmin_v ½ (v − s)² + τ ω̃(v)``, a global minimiser; `tau` > 0 broadcasts against `s`."""
        s, tau = of_one_shape(s, tau)
        out = np.empty(s.size)
        _two_sided.shrink(np.ravel(s), np.ravel(tau), self.first_power, self.second_power, out)
        return out.reshape(s.shape)

    def _shared(self, z: ArrayLike) -> Array:
        z = np.maximum(stretches(z), 1.0)
        out = np.empty((4, z.size))
        _two_sided.split(z.flatten(), self.first_power, self.second_power, out)
        return out.reshape(4, *z.shape)

    def _log_stretches(self, v: ArrayLike) -> Array:
        v = singular_values(v)
        out = np.empty((2, v.size))
        _two_sided.stretch(v.flatten(), self.first_power, self.second_power, out)
        return out.reshape(2, *v.shape)


class _SearchedParts(_Parts):
    """Any two prices: the cheapest parts are found by search."""

    def value(self, z: ArrayLike) -> Array:
        """Joint price ω(z), for z ≥ 1."""
        return self._share(z)[1]

    def slope(self, z: ArrayLike) -> Array:
        """ω'(z), that of the price that pays for the last bit of stretch."""
        z1 = self._share(z)[0]
        z2 = np.asarray(z) / z1
        return np.where(z1 > 1.0, self.first.slope(z1) / z2, self.second.slope(z2) / z1)

    def split(self, v: ArrayLike) -> tuple[Array, Array]:
        """Factors (z1, z2) of the stretch z(v)."""
        z = self.stretch(v)
        z1 = self._share(z)[0]
        return z1, z / z1

    def _share(self, z: ArrayLike) -> tuple[Array, Array]:
        """z1 and the joint price of stretches z."""
        z = stretches(z)
        log_z = np.log(np.maximum(z.ravel(), 1.0))

        def price(log_z: Array, share: Array) -> Array:
            return self.first.value(np.exp(share * log_z)) + self.second.value(np.exp((1.0 - share) * log_z))

        share, value = minimise(
            z.size,
            lambda rows, share: price(log_z[rows], share),
            _SHARES,
            lambda rows: price(log_z[rows, None], _SHARES),
        )
        return np.exp(share * log_z).reshape(z.shape), value.reshape(z.shape)


def _sides(first: SpectralPenalty | None, second: SpectralPenalty | None) -> tuple[SpectralPenalty, SpectralPenalty]:
    """Both prices, checked."""
    left, right = (PowerPenalty(2) if side is None else side for side in (first, second))
    for side in (left, right):
        if not isinstance(side, SpectralPenalty):
            raise TypeError(f"a side must be a SpectralPenalty instance such as PowerPenalty(2); got {side!r}.")
        if isinstance(side, JointPenalty) or not side.is_smooth:
            raise ValueError(f"a side must be the price of one transform that stretches; got {side!r}.")
    if all(isinstance(side, RidgePenalty) for side in (left, right)):
        raise ValueError("one side must be free to adapt; for fixed features use penalty='ridge' or adaptivity=0.")
    return left, right
