"""Networks with transforms built in: their features are those of the weights before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._types import Array, Coefs, RandomState
from ..linalg.transforms import ProductTransform
from ..operators.layers import LayerFactors
from .base import Network


class StretchedWeights(Network):
    """The network x ↦ f(x; M1 θ M2): its features with respect to θ are those of the network, times M1 and M2ᵀ.

    Parameters
    ----------
    network : Network
        Of finite width, with one weight matrix a layer for a state.
    left, right : list of ProductTransform or None, one per layer
        M1 of the size of the layer's inputs without their constant, M2 of the size of its units; None is the identity.
    """

    def __init__(
        self, network: Network, left: Sequence[ProductTransform | None], right: Sequence[ProductTransform | None]
    ) -> None:
        self.network, self.left, self.right = network, left, right

    @property
    def n_layers(self) -> int:
        """Number of layers of weights."""
        return self.network.n_layers

    def initialise(self, n_features: int, n_outputs: int = 1, random_state: RandomState = None) -> Coefs:
        """Draw the weights θ, before the transforms."""
        weights: Coefs = self.network.initialise(n_features, n_outputs, random_state)
        return weights

    def layers(self, weights: Coefs, X: Array) -> list[LayerFactors]:
        """Factors of every layer: those of the network at M1 θ M2, times M1 and times M2ᵀ."""
        layers = self.network.layers(self._moved(weights), X)
        return [
            layer.transformed(_OnInputs(left), _OnInputs(None if right is None else right.transposed))
            for layer, left, right in zip(layers, self.left, self.right, strict=True)
        ]

    def outputs(self, weights: Coefs, X: Array) -> Array:
        """Outputs of the network at M1 θ M2."""
        return self.network.outputs(self._moved(weights), X)

    def input_has_constant(self, layer: int) -> bool:
        """As the network before."""
        return self.network.input_has_constant(layer)

    def forward_scale(self, fan_in: int) -> float:
        """As the network before."""
        return self.network.forward_scale(fan_in)

    def serves(self, weights: Coefs, X: Array) -> bool:
        """As the network before."""
        return self.network.serves(weights, X)

    def with_precision(self, weights: Coefs, dtype: np.dtype[Any]) -> Coefs:
        """As the network before."""
        cast: Coefs = self.network.with_precision(weights, dtype)
        return cast

    def _moved(self, weights: Coefs) -> Coefs:
        """M1 θ M2 of every layer."""
        moved = []
        for weight, left, right in zip(weights, self.left, self.right, strict=True):
            if left is not None:
                weight = np.vstack([left.transposed.apply(weight[: left.size].T).T, weight[left.size :]])
            moved.append(weight if right is None else right.apply(weight))
        return moved


class _OnInputs:
    """A transform of the first of a row's entries, as many as it is for; None leaves all as they are."""

    def __init__(self, transform: ProductTransform | None) -> None:
        self._transform = transform

    def apply(self, rows: Array) -> Array:
        """Rows times the transform, shape (..., size) in and out."""
        if self._transform is None:
            return rows
        size = self._transform.size
        return np.concatenate([self._transform.apply(rows[..., :size]), rows[..., size:]], axis=-1)


class StretchedInputs(Network):
    """A network of infinite width that sees x M.

    Parameters
    ----------
    network : Network
        Of infinite width.
    transform : ProductTransform or None
        M; None is the identity.
    """

    is_infinite = True

    def __init__(self, network: Network, transform: ProductTransform | None) -> None:
        self.network, self.transform = network, transform

    @property
    def n_layers(self) -> int:
        """Number of layers of weights."""
        return self.network.n_layers

    def initialise(self, n_features: int, n_outputs: int = 1, random_state: RandomState = None) -> Any:
        """As the network before."""
        return self.network.initialise(n_features, n_outputs, random_state)

    def anchored(self, state: Any, X: Array) -> Any:
        """The state of the network that sees the training points x M."""
        return self.network.anchored(state, self.seen(X))

    def serves(self, state: Any, X: Array) -> bool:
        """Whether the samples are the training points."""
        return self.network.serves(state, self.seen(X))

    def layers(self, state: Any, X: Array) -> Sequence[LayerFactors]:
        """Factors of every layer."""
        return self.network.layers(state, self.seen(X))

    def outputs(self, state: Any, X: Array) -> Array:
        """Outputs of the network that sees x M."""
        return self.network.outputs(state, self.seen(X))

    def input_has_constant(self, layer: int) -> bool:
        """As the network before."""
        return self.network.input_has_constant(layer)

    def forward_scale(self, fan_in: int) -> float:
        """As the network before."""
        return self.network.forward_scale(fan_in)

    def kernel(self, X: Array, Y: Array | None = None, layer_weights: Sequence[float] | Array | None = None) -> Array:
        """Tangent kernel of samples x M."""
        return self.network.kernel(self.seen(X), None if Y is None else self.seen(Y), layer_weights)

    def tangent(self, Z: Array, layer_weights: Sequence[float] | Array | None = None) -> Any:
        """The kernel of samples x M, and its gradients with respect to x M."""
        return self.network.tangent(Z, layer_weights)

    def cross_layers(self, state: Any, X: Array) -> Sequence[LayerFactors]:
        """Features by products of samples x M with the training points."""
        return self.network.cross_layers(state, self.seen(X))

    def for_products(self, state: Any, coefs: Sequence[Array | None]) -> list[Array | None]:
        """As the network before."""
        return self.network.for_products(state, coefs)

    def input_gradients(self, state: Any, coefs: Sequence[Array | None]) -> Array:
        """Gradients of the fitted function with respect to x M at the training points."""
        return self.network.input_gradients(state, coefs)

    def seen(self, X: Array) -> Array:
        """Samples x M."""
        return X if self.transform is None else self.transform.apply(X)
