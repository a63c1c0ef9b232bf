"""The penalties of all layers of a problem, each with its price of moving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .._types import Array
from ._parameters import Parameters
from .spectral import RidgePenalty, SpectralPenalty


class ScaledPenalty(Parameters):
    """A penalty with the price of moving μ = 1 / adaptivity: ω̃_μ(v) = μ ω̃(v / √μ).

    Parameters
    ----------
    penalty : SpectralPenalty
    adaptivity : float ≥ 0
        0 forbids every stretch: ridge, whatever the penalty.
    """

    def __init__(self, penalty: SpectralPenalty, adaptivity: float) -> None:
        self.penalty, self.adaptivity = penalty, adaptivity
        self.base = penalty if adaptivity > 0 else RidgePenalty()
        self.sqrt_mu = 1.0 / np.sqrt(adaptivity) if adaptivity > 0 else 1.0

    @property
    def is_fixed(self) -> bool:
        """Whether no stretch is possible: the problem is ridge."""
        return isinstance(self.base, RidgePenalty)

    @property
    def is_convex(self) -> bool:
        """Whether solutions can be certified by a duality gap."""
        return self.base.is_convex

    @property
    def is_smooth(self) -> bool:
        """Whether Newton's method applies."""
        return self.base.is_smooth

    @property
    def kink(self) -> float:
        """Slope of ω̃_μ at 0."""
        return self.sqrt_mu * self.base.kink

    @property
    def conjugate_domain(self) -> float:
        """The conjugate is finite for u below this."""
        return self.sqrt_mu * self.base.conjugate_domain

    def effective(self, v: Array) -> Array:
        """ω̃_μ(v)."""
        return self.sqrt_mu**2 * self.base.effective(v / self.sqrt_mu)

    def derivative(self, v: Array) -> Array:
        """ω̃_μ'(v)."""
        return self.sqrt_mu * self.base.derivative(v / self.sqrt_mu)

    def stretch(self, v: Array) -> Array:
        """z(v / √μ)."""
        return self.base.stretch(v / self.sqrt_mu)

    def split(self, v: Array) -> tuple[Array, Array]:
        """Left and right factor of the stretch."""
        return self.base.split(v / self.sqrt_mu)

    def prox(self, s: Array, tau: Array) -> Array:
        """Proximal map of τ ω̃_μ."""
        return self.sqrt_mu * self.base.prox(s / self.sqrt_mu, tau)

    def conjugate(self, u: Array) -> Array:
        """ω̃_μ*(u)."""
        return self.sqrt_mu**2 * self.base.conjugate(u / self.sqrt_mu)

    def dual_stretch(self, u: Array) -> Array:
        """Stretch at the maximum of the conjugate."""
        return self.base.dual_stretch(u / self.sqrt_mu)

    def stretch_slope(self, z: Array) -> Array:
        """Derivative of z² with respect to u²."""
        return self.base.stretch_slope(z) / self.sqrt_mu**2

    def stretch_growth(self, z: Array) -> Array:
        """Derivative of z² with respect to v²."""
        return self.base.stretch_growth(z) / self.sqrt_mu**2


class LayeredPenalty(Parameters):
    """One `ScaledPenalty` a layer; iterates over them.

    Parameters
    ----------
    layers : sequence of ScaledPenalty
    """

    def __init__(self, layers: Iterable[ScaledPenalty]) -> None:
        self.layers = tuple(layers)

    def __iter__(self) -> Iterator[ScaledPenalty]:
        return iter(self.layers)

    def __getitem__(self, layer: int) -> ScaledPenalty:
        return self.layers[layer]

    def __repr__(self) -> str:
        prices = [repr(layer.penalty) for layer in self]
        return prices[0] if len(set(prices)) == 1 else f"[{', '.join(prices)}]"

    @property
    def is_fixed(self) -> bool:
        """Whether no layer can stretch: the problem is ridge."""
        return all(layer.is_fixed for layer in self)

    @property
    def is_convex(self) -> bool:
        """Whether solutions can be certified by a duality gap."""
        return all(layer.is_convex for layer in self)

    @property
    def is_smooth(self) -> bool:
        """Whether Newton's method applies."""
        return all(layer.is_smooth for layer in self)

    @property
    def sqrt_mu(self) -> float:
        """√μ of the layer that moves most cheaply; 1 if none moves."""
        return min((layer.sqrt_mu for layer in self if not layer.is_fixed), default=1.0)

    def effective(self, spectra: Iterable[Array]) -> float:
        """Σ_l Σ_j ω̃_μ(σ_j) of one array of singular values a layer."""
        return sum(layer.effective(values).sum() for layer, values in zip(self, spectra, strict=True))

    def relaxed(self, sqrt_mu: float) -> LayeredPenalty:
        """The same with no √μ below `sqrt_mu`: less of the tail. Itself if there is none."""
        if sqrt_mu <= self.sqrt_mu:
            return self
        return LayeredPenalty(
            layer if layer.is_fixed or layer.sqrt_mu >= sqrt_mu else ScaledPenalty(layer.penalty, sqrt_mu**-2)
            for layer in self
        )
