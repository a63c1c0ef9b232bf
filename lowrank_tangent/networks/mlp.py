"""What a network is: layers, activation, initialisation; forward and backward pass.

A layer multiplies its input ``h`` (a row, possibly with a constant appended for the bias) by a weight
matrix ``W`` of shape (p, q).  The tangent feature of that layer, for sample i and output c, is the
Jacobian of the output with respect to ``W``: the outer product of ``h_i`` and the back-propagated
gradient ``delta_{i,c}`` (theory: LeJeune & Alemohammad, arXiv 2308.15478, section 2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.special import erf, ndtr

from .._checks import generator
from .._types import Array, Coefs, RandomState
from ..linalg.transforms import ProductTransform
from ..operators.layers import LayerFactors
from .base import Network, factors_of
from .stretched import StretchedWeights

_SQRT_2PI = math.sqrt(2.0 * math.pi)
_TWO_OVER_SQRT_PI = 2.0 / math.sqrt(math.pi)


def _relu(z: Array) -> Any:
    return np.maximum(z, 0.0)


def _relu_slope(z: Array) -> Any:
    return (z > 0).astype(z.dtype)


def _tanh_slope(z: Array) -> Any:
    return 1.0 - np.tanh(z) ** 2


def _gelu(z: Array) -> Any:
    return z * ndtr(z)


def _gelu_slope(z: Array) -> Any:
    return ndtr(z) + z * np.exp(-0.5 * z**2) / _SQRT_2PI


def _erf_slope(z: Array) -> Any:
    return _TWO_OVER_SQRT_PI * np.exp(-(z**2))


ACTIVATIONS = {
    "relu": (_relu, _relu_slope),
    "tanh": (np.tanh, _tanh_slope),
    "gelu": (_gelu, _gelu_slope),
    "erf": (erf, _erf_slope),
}

#: Variance of a weight times fan-in. "ntk" draws unit-variance weights and divides by the square root
#: of the fan-in in the forward pass instead.
INITIALISATIONS = {"he": 2.0, "lecun": 1.0, "ntk": None}


@dataclass(frozen=True)
class MLP(Network):
    """Multilayer perceptron, described by its shape; weights are kept outside.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int, default=(256,)
        Units of each hidden layer; ``()`` is a linear model.
    activation : {"relu", "tanh", "gelu", "erf"}, default="relu"
    init : {"ntk", "he", "lecun"}, default="ntk"
        "ntk": unit-variance weights and biases, a layer's input divided by √fan-in in the forward pass;
        "he": variance 2 / fan-in, "lecun": variance 1 / fan-in, both with biases starting at zero.
    bias : bool or float, default=True
        Value of the constant that is appended to every layer's input (before "ntk" divides it), so that the last
        row of each weight matrix is the bias; ``True`` is 1, ``False`` or 0 leaves biases out.

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent.networks import MLP
    >>> network = MLP((8, 4), activation="tanh")
    >>> weights = network.initialise(n_features=3, n_outputs=2, random_state=0)
    >>> [w.shape for w in weights]
    [(4, 8), (9, 4), (5, 2)]
    >>> network(weights, np.zeros((5, 3))).shape
    (5, 2)
    """

    hidden_layer_sizes: tuple[int, ...] = (256,)
    activation: str = "relu"
    init: str = "ntk"
    bias: float = True

    def __post_init__(self) -> None:
        sizes = self.hidden_layer_sizes
        sizes = (sizes,) if isinstance(sizes, Integral) else tuple(sizes)
        if any(isinstance(s, bool) or not isinstance(s, Integral) or s < 1 for s in sizes):
            raise ValueError(
                f"hidden_layer_sizes must hold positive integers, e.g. (256,); got {self.hidden_layer_sizes!r}."
            )
        object.__setattr__(self, "hidden_layer_sizes", tuple(int(s) for s in sizes))
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}; got {self.activation!r}.")
        if self.init not in INITIALISATIONS:
            raise ValueError(f"init must be one of {sorted(INITIALISATIONS)}; got {self.init!r}.")
        if not isinstance(self.bias, (bool, np.bool_, Real)) or not math.isfinite(self.bias) or self.bias < 0:
            raise ValueError(f"bias must be True, False or a finite number >= 0; got {self.bias!r}.")

    @property
    def n_layers(self) -> int:
        """Number of layers of weights."""
        return len(self.hidden_layer_sizes) + 1

    @property
    def movable_layers(self) -> tuple[int, ...]:
        """All layers."""
        return tuple(range(self.n_layers))

    def input_has_constant(self, layer: int) -> bool:
        """Whether there is a bias."""
        return bool(self.bias)

    def stretched(self, left: Sequence[ProductTransform | None], right: Sequence[ProductTransform | None]) -> Network:
        """The network x ↦ f(x; M1 θ M2), see `Network.stretched`."""
        return StretchedWeights(self, left, right)

    def serves(self, weights: Coefs, X: Array) -> bool:
        """Whether X has as many features as the weights are for."""
        return len(weights[0]) == int(X.shape[1]) + bool(self.bias)

    def with_precision(self, weights: Coefs, dtype: np.dtype[Any]) -> Coefs:
        """The weights in single or double precision."""
        return [weight.astype(dtype, copy=False) for weight in weights]

    def initialise(self, n_features: int, n_outputs: int = 1, random_state: RandomState = None) -> Coefs:
        """Draw the initial weights.

        Parameters
        ----------
        n_features, n_outputs : int
        random_state : None, int, numpy.random.RandomState or numpy.random.Generator

        Returns
        -------
        list of ndarray, one per layer, shape (fan-in + 1, units) with biases, (fan-in, units) without
        """
        sizes = (n_features, *self.hidden_layer_sizes, n_outputs)
        rng = generator(random_state)
        weights = []
        for fan_in, units in itertools.pairwise(sizes):
            weight = rng.standard_normal((fan_in + bool(self.bias), units))
            gain = INITIALISATIONS[self.init]
            if gain is not None:
                weight *= math.sqrt(gain / fan_in)
                weight[fan_in:] = 0.0
            weights.append(weight)
        return weights

    def forward(self, weights: Coefs, X: Array) -> tuple[Array, list[Array], list[Array]]:
        """Forward pass.

        Parameters
        ----------
        weights : list of ndarray, as `initialise` gives them
        X : ndarray of shape (n, n_features)

        Returns
        -------
        outputs : ndarray of shape (n, n_outputs)
        inputs : list of ndarray, the factors h of each layer, shape (n, p)
        preactivations : list of ndarray, shape (n, q); the last are the outputs
        """
        X = self._check(weights, X)
        activate, _ = ACTIVATIONS[self.activation]
        inputs, preactivations = [], []
        hidden = X
        for weight in weights:
            fan_in = hidden.shape[1]
            if self.bias:
                hidden = np.hstack([hidden, np.full((len(X), 1), float(self.bias), dtype=hidden.dtype)])
            scaled = hidden * self.forward_scale(fan_in)
            inputs.append(scaled)
            preactivations.append(scaled @ weight)
            hidden = activate(preactivations[-1])
        return preactivations[-1], inputs, preactivations

    def backward(self, weights: Coefs, preactivations: list[Array]) -> list[Array]:
        """Backward pass: gradient of every output with respect to each layer's preactivation.

        Returns
        -------
        list of ndarray, the factors delta of each layer, shape (n, n_outputs, q)
        """
        _, slope = ACTIVATIONS[self.activation]
        n, n_outputs = preactivations[-1].shape
        identity = np.eye(n_outputs, dtype=preactivations[-1].dtype)
        delta = np.broadcast_to(identity, (n, n_outputs, n_outputs))
        deltas = [delta]
        for weight, z in zip(weights[:0:-1], preactivations[-2::-1], strict=True):
            fan_in = z.shape[1]
            delta = delta @ (weight[:fan_in].T * self.forward_scale(fan_in))
            delta = delta * slope(z)[:, None, :]
            deltas.append(delta)
        return deltas[::-1]

    def factors(self, weights: Coefs, X: Array) -> list[tuple[Array, Array]]:
        """Factors (h, delta) of every layer's tangent feature: a list of pairs, input side first."""
        _, inputs, preactivations = self.forward(weights, X)
        return list(zip(inputs, self.backward(weights, preactivations), strict=True))

    def layers(self, weights: Coefs, X: Array) -> list[LayerFactors]:
        """Tangent features of samples, one `LayerFactors` a layer."""
        return factors_of(self.factors(weights, X), X, self.bias)

    def outputs(self, weights: Coefs, X: Array) -> Array:
        """Outputs of the network, shape (n, n_outputs)."""
        return self.forward(weights, X)[0]

    __call__ = outputs

    def forward_scale(self, fan_in: int) -> float:
        """Factor of a layer's input in the forward pass."""
        return 1.0 / math.sqrt(fan_in) if self.init == "ntk" else 1.0

    def _check(self, weights: Coefs, X: Array) -> Array:
        X = np.asarray(X)
        if X.ndim != 2:
            raise ValueError(f"X must have shape (n, n_features); got shape {X.shape}.")
        sizes = [X.shape[1], *self.hidden_layer_sizes]
        if len(weights) != len(sizes):
            raise ValueError(f"this network has {len(sizes)} layers; got {len(weights)} weight matrices.")
        for layer, (fan_in, weight) in enumerate(zip(sizes, weights, strict=True)):
            units = sizes[layer + 1] if layer + 1 < len(sizes) else weight.shape[-1]
            expected = (fan_in + bool(self.bias), units)
            if weight.shape != expected:
                raise ValueError(
                    f"weights of layer {layer} must have shape {expected} (inputs"
                    f"{' + bias' if self.bias else ''}, units); got {weight.shape}."
                )
        return X
