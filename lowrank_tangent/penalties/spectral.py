"""Spectral penalties: the price of a stretch, and the effective penalty on singular values it amounts to.

With ω(z) the price of stretching a direction by z ≥ 1 (ω(1) = 0), theory gives for a singular value v

    ω̃(v)  = min_{z ≥ 1} ω(z) + v² / z²              effective penalty
    ω̃*(u) = max_{z ≥ 1} z² u² / 4 − ω(z)            its conjugate

Both problems have one unknown, so each penalty only has to say where they are attained. Everything else
follows by the envelope theorem and is written once, in the base class.

Source: LeJeune & Alemohammad, arXiv 2308.15478, Theorem 2 and Proposition 3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from . import _scalar


class SpectralPenalty(ABC):
    """A price ω(z) for stretching tangent features, and all that solvers need of it.

    Arrays of any shape go in and come out; singular values v, s, u are ≥ 0, stretches z are ≥ 1.
    """

    #: Whether the effective penalty is convex, so that solutions can be certified by a duality gap.
    is_convex = True
    #: The conjugate is finite for u below this.
    conjugate_domain = np.inf

    @abstractmethod
    def value(self, z):
        """Price ω(z)."""

    @abstractmethod
    def stretch(self, v):
        """Stretch z(v) at which the effective penalty is attained."""

    @abstractmethod
    def prox(self, s, tau):
        """Proximal map ``argmin_v ½ (v − s)² + τ ω̃(v)``; `tau` > 0 broadcasts against `s`."""

    @abstractmethod
    def conjugate(self, u):
        """Conjugate ω̃*(u), +inf outside its domain."""

    @abstractmethod
    def dual_stretch(self, u):
        """Stretch z at which the conjugate is attained, +inf outside its domain."""

    @abstractmethod
    def stretch_slope(self, z):
        """Derivative of z² with respect to u² = ω̃'(v)², written in z: z³ / (z ω''(z) − ω'(z))."""

    def effective(self, v):
        """Effective penalty ω̃(v)."""
        v = _singular_values(v)
        z = self.stretch(v)
        return self.value(z) + (v / z) ** 2

    def derivative(self, v):
        """Derivative ω̃'(v) = 2 v / z(v)²."""
        v = _singular_values(v)
        z = self.stretch(v)
        return 2.0 * (v / z) / z

    def conjugate_derivative(self, u):
        """Derivative of the conjugate, z² u / 2."""
        return self.dual_stretch(u) ** 2 * _singular_values(u) / 2.0

    def conjugate_second_derivative(self, u):
        """Second derivative of the conjugate."""
        u = _singular_values(u)
        z = self.dual_stretch(u)
        return z**2 / 2.0 + u**2 * self.stretch_slope(z)

    def split(self, v):
        """Factors (z1, z2) of the stretch z(v) that go to the left and to the right transform."""
        z = self.stretch(v)
        return z, np.ones_like(z)

    def __repr__(self):
        return f"{type(self).__name__}()"


class RidgePenalty(SpectralPenalty):
    """Fixed features: no stretch is allowed, ω̃(v) = v². The model is ridge regression with the NTK."""

    def value(self, z):
        """Price: 0 for z = 1 and +inf beyond."""
        return np.where(_stretches(z) > 1.0, np.inf, 0.0)

    def stretch(self, v):
        """z = 1."""
        return np.ones_like(_singular_values(v))

    def prox(self, s, tau):
        """Ridge shrinkage s / (1 + 2τ)."""
        return _singular_values(s, "s") / (1.0 + 2.0 * _positive(tau))

    def conjugate(self, u):
        """u² / 4."""
        return _singular_values(u, "u") ** 2 / 4.0

    def dual_stretch(self, u):
        """z = 1."""
        return np.ones_like(_singular_values(u, "u"))

    def stretch_slope(self, z):
        """0: z never moves."""
        return np.zeros_like(_stretches(z))


class _BarrierPenalty(SpectralPenalty):
    """Penalties with the nuclear norm as tail: their conjugate is a barrier, finite for u < 2 only."""

    conjugate_domain = 2.0
    _prox_in_squares: bool

    def prox(self, s, tau):
        """Proximal map by one scalar root a singular value."""
        s, tau = np.broadcast_arrays(_singular_values(s, "s"), _positive(tau))
        out = np.empty(s.size)
        _scalar.shrink(np.ravel(s), np.ravel(tau), self._prox_in_squares, out)
        return out.reshape(s.shape)


class PowerPenalty(_BarrierPenalty):
    """ω(z) = (z − 1)², one-sided.

    Ridge-like for small singular values, ω̃(v) ≈ v², and the nuclear norm for large ones, ω̃(v) ≈ 2v.

    Parameters
    ----------
    p : int, default=2
        Power of the price; 2 is the one supported.
    """

    _prox_in_squares = False

    def __init__(self, p=2):
        if p != 2:
            raise ValueError(f"PowerPenalty supports p=2; got p={p!r}.")
        self.p = p

    def value(self, z):
        """(z − 1)²."""
        return (_stretches(z) - 1.0) ** 2

    def stretch(self, v):
        """Root of z³ (z − 1) = v²."""
        return _elementwise(_scalar.power_stretch, _singular_values(v))

    def conjugate(self, u):
        """u² / (4 − u²) for u < 2."""
        x, inside = _barrier_margin(u)
        return np.where(inside, (np.minimum(u, 2.0) / 2.0) ** 2 / x, np.inf)

    def dual_stretch(self, u):
        """1 / (1 − u²/4) for u < 2."""
        x, inside = _barrier_margin(u)
        return np.where(inside, 1.0 / x, np.inf)

    def stretch_slope(self, z):
        """½ z³."""
        return 0.5 * _stretches(z) ** 3

    def __repr__(self):
        return f"PowerPenalty(p={self.p})"


class KLPenalty(_BarrierPenalty):
    """ω(z) = z² − 1 − 2 ln z, one-sided.

    Twice the Kullback–Leibler divergence between N(0, M Mᵀ) and N(0, I); its dual is a log-det barrier.
    """

    _prox_in_squares = True

    def value(self, z):
        """z² − 1 − 2 ln z."""
        return _elementwise(_scalar.kl_value, _stretches(z))

    def stretch(self, v):
        """Root of z⁴ − z² = v²."""
        return _elementwise(_scalar.kl_stretch, _singular_values(v))

    def conjugate(self, u):
        """−ln(1 − u²/4) for u < 2."""
        x, inside = _barrier_margin(u)
        # The margin is exact near u = 2, u² itself near u = 0.
        near_zero = np.minimum(u, 1.0) / 2.0
        return np.where(inside, np.where(np.less(u, 1.0), -np.log1p(-(near_zero**2)), -np.log(x)), np.inf)

    def dual_stretch(self, u):
        """1 / √(1 − u²/4) for u < 2."""
        x, inside = _barrier_margin(u)
        return np.where(inside, 1.0 / np.sqrt(x), np.inf)

    def stretch_slope(self, z):
        """¼ z⁴."""
        return 0.25 * _stretches(z) ** 4


class ScaledPenalty:
    """A penalty with the price of moving μ = 1 / adaptivity: ω̃_μ(v) = μ ω̃(v / √μ).

    Parameters
    ----------
    penalty : SpectralPenalty
    adaptivity : float ≥ 0
        0 forbids every stretch: ridge, whatever the penalty.
    """

    def __init__(self, penalty, adaptivity):
        self.unit = penalty if adaptivity > 0 else RidgePenalty()
        self.root = 1.0 / np.sqrt(adaptivity) if adaptivity > 0 else 1.0

    @property
    def is_fixed(self):
        """Whether no stretch is possible: the problem is ridge."""
        return isinstance(self.unit, RidgePenalty)

    @property
    def conjugate_domain(self):
        """The conjugate is finite for u below this."""
        return self.root * self.unit.conjugate_domain

    def effective(self, v):
        """ω̃_μ(v)."""
        return self.root**2 * self.unit.effective(v / self.root)

    def derivative(self, v):
        """ω̃_μ'(v)."""
        return self.root * self.unit.derivative(v / self.root)

    def stretch(self, v):
        """z(v / √μ)."""
        return self.unit.stretch(v / self.root)

    def split(self, v):
        """Left and right factor of the stretch."""
        return self.unit.split(v / self.root)

    def prox(self, s, tau):
        """Proximal map of τ ω̃_μ."""
        return self.root * self.unit.prox(s / self.root, tau)

    def conjugate(self, u):
        """ω̃_μ*(u)."""
        return self.root**2 * self.unit.conjugate(u / self.root)

    def dual_stretch(self, u):
        """Stretch at the maximum of the conjugate."""
        return self.unit.dual_stretch(u / self.root)

    def stretch_slope(self, z):
        """Derivative of z² with respect to u²."""
        return self.unit.stretch_slope(z) / self.root**2


#: Penalties that estimators know by name.
PENALTIES = {"ridge": RidgePenalty, "power": PowerPenalty, "kl": KLPenalty}


def get_penalty(penalty):
    """The penalty of that name, or the instance itself.

    Raises
    ------
    ValueError, TypeError
        For an unknown name, or anything that is no penalty.
    """
    if isinstance(penalty, str):
        if penalty not in PENALTIES:
            raise ValueError(f"penalty must be one of {sorted(PENALTIES)} or an instance; got {penalty!r}.")
        return PENALTIES[penalty]()
    if not isinstance(penalty, SpectralPenalty):
        raise TypeError(
            f"penalty must be one of {sorted(PENALTIES)} or a SpectralPenalty instance such as KLPenalty(); "
            f"got {penalty!r}."
        )
    return penalty


def _elementwise(kernel, values):
    out = np.empty(values.size)
    kernel(np.ravel(values), out)
    return out.reshape(values.shape)


def _barrier_margin(u):
    """1 − u²/4 without cancellation near the boundary (1 outside, to be masked), and u < 2."""
    u = _singular_values(u, "u")
    inside = u < 2.0
    margin = np.where(inside, (1.0 - u / 2.0) * (1.0 + u / 2.0), 1.0)
    return margin, inside


def _singular_values(v, name="v"):
    v = np.asarray(v, dtype=np.float64)
    if not (v >= 0.0).all():
        raise ValueError(f"{name} must hold singular values: numbers >= 0, not NaN.")
    return v


def _stretches(z):
    z = np.asarray(z, dtype=np.float64)
    if not (z >= 1.0).all():
        raise ValueError("z must hold stretches: numbers >= 1, not NaN.")
    return z


def _positive(tau):
    tau = np.asarray(tau, dtype=np.float64)
    if not (tau > 0.0).all():
        raise ValueError("tau must be > 0.")
    return tau
