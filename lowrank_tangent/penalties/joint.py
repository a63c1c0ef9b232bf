"""Joint penalty of two-sided adaptation: one price for the left and one for the right transform."""

from __future__ import annotations

import numpy as np

from . import _two_sided
from ._search import minimise
from .named import EqualSides, KLPenalty, PowerPenalty
from .spectral import RidgePenalty, SpectralPenalty, positive, singular_values, stretches

#: Prices that the scalar kernels know.
_NAMED = (PowerPenalty, KLPenalty)

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

    def __new__(cls, first=None, second=None):
        """The fastest kind of joint price that these two have."""
        if cls is JointPenalty:
            sides = _sides(first, second)
            if _known_price(*sides):
                cls = _NamedJointPenalty
            elif all(isinstance(side, _NAMED) for side in sides):
                cls = _PairPenalty
        return super().__new__(cls)

    def __init__(self, first=None, second=None):
        self.first, self.second = _sides(first, second)

    def __getnewargs__(self):
        return self.first, self.second

    @property
    def sides(self):
        """Prices of the left and of the right transform."""
        return self.first, self.second

    def value(self, z):
        """Joint price ω(z), for z ≥ 1."""
        return self._share(z)[1]

    def slope(self, z):
        """ω'(z), that of the price that pays for the last bit of stretch."""
        z1 = self._share(z)[0]
        z2 = np.asarray(z) / z1
        return np.where(z1 > 1.0, self.first.slope(z1) / z2, self.second.slope(z2) / z1)

    def split(self, v):
        """Factors (z1, z2) of the stretch z(v)."""
        z = self.stretch(v)
        z1 = self._share(z)[0]
        return z1, z / z1

    def __repr__(self):
        return f"JointPenalty({self.first!r}, {self.second!r})"

    def _share(self, z):
        """z1 and the joint price of stretches z."""
        z = stretches(z)
        log_z = np.log(np.maximum(z.ravel(), 1.0))

        def price(log_z, share):
            return self.first.value(np.exp(share * log_z)) + self.second.value(np.exp((1.0 - share) * log_z))

        share, value = minimise(
            z.size,
            lambda rows, share: price(log_z[rows], share),
            _SHARES,
            lambda rows: price(log_z[rows, None], _SHARES),
        )
        return np.exp(share * log_z).reshape(z.shape), value.reshape(z.shape)


class _NamedJointPenalty(EqualSides, JointPenalty):
    """A joint price with formulas: two equal named ones, or a named one on one side alone."""

    def __init__(self, first=None, second=None):
        JointPenalty.__init__(self, first, second)
        EqualSides.__init__(self, *_known_price(self.first, self.second))

    def split(self, v):
        """Equal factors, or the whole stretch on the side that may move."""
        moving, other = super().split(v)
        return (other, moving) if isinstance(self.first, RidgePenalty) else (moving, other)

    def __repr__(self):
        return JointPenalty.__repr__(self)


class _PairPenalty(JointPenalty):
    """A joint price of two different named ones."""

    def __init__(self, first=None, second=None):
        super().__init__(first, second)
        self._powers = self.first.kernel_power, self.second.kernel_power

    def value(self, z):
        """Joint price ω(z), for z ≥ 1."""
        return self._shared(z)[2]

    def slope(self, z):
        """ω'(z) = λ / z, the marginal price of both sides."""
        return self._shared(z)[3] / z

    def stretch(self, v):
        """Stretch z1 z2 at which the effective penalty is attained."""
        return np.exp(self._log_stretches(v).sum(axis=0))

    def split(self, v):
        """Factors (z1, z2) of the stretch z(v)."""
        z1, z2 = np.exp(self._log_stretches(v))
        return z1, z2

    def prox(self, s, tau):
        """Proximal map ``argmin_v ½ (v − s)² + τ ω̃(v)``, a global minimiser; `tau` > 0 broadcasts against `s`."""
        s, tau = np.broadcast_arrays(singular_values(s, "s"), positive(tau))
        out = np.empty(s.size)
        _two_sided.shrink(np.ravel(s), np.ravel(tau), *self._powers, out)
        return out.reshape(s.shape)

    def _shared(self, z):
        z = np.maximum(stretches(z), 1.0)
        out = np.empty((4, z.size))
        _two_sided.split(np.ravel(z), *self._powers, out)
        return out.reshape(4, *z.shape)

    def _log_stretches(self, v):
        v = singular_values(v)
        out = np.empty((2, v.size))
        _two_sided.stretch(np.ravel(v), *self._powers, out)
        return out.reshape(2, *v.shape)


def _sides(first, second):
    """Both prices, checked."""
    sides = tuple(PowerPenalty(2) if side is None else side for side in (first, second))
    for side in sides:
        if not isinstance(side, SpectralPenalty):
            raise TypeError(f"a side must be a SpectralPenalty instance such as PowerPenalty(2); got {side!r}.")
        if isinstance(side, JointPenalty) or not side.is_smooth:
            raise ValueError(f"a side must be the price of one transform that stretches; got {side!r}.")
    if all(isinstance(side, RidgePenalty) for side in sides):
        raise ValueError("one side must be free to adapt; for fixed features use penalty='ridge' or adaptivity=0.")
    return sides


def _known_price(first, second):
    """The named price that is paid and the number of sides that share it, None where there are no formulas."""
    named = [side for side in (first, second) if isinstance(side, _NAMED)]
    fixed = any(isinstance(side, RidgePenalty) for side in (first, second))
    if len(named) == 1 and fixed:
        return named[0], 1
    if len(named) == 2 and first.kernel_power == second.kernel_power:
        return first, 2
    return None
