"""The penalties of all layers of a problem, each with its price of moving."""

from __future__ import annotations

from .spectral import ScaledPenalty


class LayeredPenalty:
    """One `ScaledPenalty` a layer; iterates over them.

    Parameters
    ----------
    layers : sequence of ScaledPenalty
    """

    def __init__(self, layers):
        self.layers = tuple(layers)

    def __iter__(self):
        return iter(self.layers)

    def __getitem__(self, layer):
        return self.layers[layer]

    def __repr__(self):
        prices = [repr(layer.penalty) for layer in self]
        return prices[0] if len(set(prices)) == 1 else f"[{', '.join(prices)}]"

    @property
    def is_fixed(self):
        """Whether no layer can stretch: the problem is ridge."""
        return all(layer.is_fixed for layer in self)

    @property
    def is_convex(self):
        """Whether solutions can be certified by a duality gap."""
        return all(layer.is_convex for layer in self)

    @property
    def is_smooth(self):
        """Whether Newton's method applies."""
        return all(layer.is_smooth for layer in self)

    @property
    def sqrt_mu(self):
        """√μ of the layer that moves most cheaply; 1 if none moves."""
        return min((layer.sqrt_mu for layer in self if not layer.is_fixed), default=1.0)

    def effective(self, spectra):
        """Σ_l Σ_j ω̃_μ(σ_j) of one array of singular values a layer."""
        return sum(layer.effective(values).sum() for layer, values in zip(self, spectra, strict=True))

    def relaxed(self, sqrt_mu):
        """The same with no √μ below `sqrt_mu`: less of the tail. Itself if there is none."""
        if sqrt_mu <= self.sqrt_mu:
            return self
        return LayeredPenalty(
            layer if layer.is_fixed or layer.sqrt_mu >= sqrt_mu else ScaledPenalty(layer.penalty, sqrt_mu**-2)
            for layer in self
        )
