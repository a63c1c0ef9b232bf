"""Networks of infinite width: their tangent kernel in closed form, and finite factors that have it exactly.

Let the units of every hidden layer of `MLP` (init="ntk") become infinitely many. The layer inputs h and the gradients
delta then have fixed inner products over two samples x and x',

    Σ_0 = (x·x' + b²) / p,    Σ_{l+1} = E[φ(u) φ(v)],    D_{l+1} = E[φ'(u) φ'(v)],    (u, v) normal with covariance Σ_l,
    ⟨h_l, h'_l⟩ = Σ_l,        ⟨delta_l, delta'_l⟩ = D_{l+1} ··· D_depth,

and the tangent kernel is the sum over layers of their products. On n training points, Cholesky factors of these
matrices are n-dimensional layer inputs and gradients with the same products: no width, no noise, same model.

Source: Jacot, Gabriel & Hongler (arXiv 1806.07572).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import NamedTuple, TypeAlias

import numpy as np
from scipy.linalg import solve_triangular

from .._types import Array, RandomState
from ..linalg.transforms import ProductTransform
from ..operators.layers import LayerFactors
from .anchors import Anchors, check_matrices
from .base import Network, cause_of_overflow, factors_of
from .moments import ERF, RELU, layer_derivatives, layer_moments, samples_by_layer, tangent_kernel, tangent_slopes
from .stretched import StretchedInputs

ACTIVATIONS = {"relu": RELU, "erf": ERF}
#: Roots and growths of some samples at every hidden layer, see `samples_by_layer`.
_Samples: TypeAlias = tuple[Array, Array]


class Tangent(NamedTuple):
    """Tangent kernel of samples, and what of it changes when the first of two samples moves; all of shape (n, n).

    The gradient of the kernel is ``along · x' + radial · x``; it includes what the gates do while x moves. Gates are
    the products of the gradients at the first layer, ⟨delta_0, delta'_0⟩.
    """

    kernel: Array
    gates: Array
    along: Array
    radial: Array


@dataclass(frozen=True)
class InfiniteMLP(Network):
    """Multilayer perceptron with infinitely many units in every hidden layer, the limit of ``MLP`` with init="ntk".

    Parameters
    ----------
    depth : int ≥ 1, default=1
        Number of hidden layers; the network has one layer of weights more.
    activation : {"relu", "erf"}, default="relu"
    bias : bool or float, default=True
        Constant appended to the input of the first layer, as for `MLP`. That of later layers vanishes in the limit.

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent.networks import InfiniteMLP
    >>> X = np.random.default_rng(0).normal(size=(5, 3))
    >>> network = InfiniteMLP(depth=2)
    >>> layers = network.factors(network.anchor(X), X)
    >>> kernel = sum((h @ h.T) * (delta @ delta.T) for h, delta in layers)
    >>> bool(np.allclose(kernel, network.kernel(X)))
    True
    """

    depth: int = 1
    activation: str = "relu"
    bias: float = True

    is_infinite = True

    def __post_init__(self) -> None:
        if isinstance(self.depth, bool) or not isinstance(self.depth, Integral) or self.depth < 1:
            raise ValueError(f"depth must be an integer >= 1, the number of hidden layers; got {self.depth!r}.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {sorted(ACTIVATIONS)} at infinite width, whose kernels have closed forms; "
                f"got {self.activation!r}."
            )
        if not isinstance(self.bias, (bool, np.bool_, Real)) or not math.isfinite(self.bias) or self.bias < 0:
            raise ValueError(f"bias must be True, False or a finite number >= 0; got {self.bias!r}.")

    @property
    def n_layers(self) -> int:
        """Number of layers of weights."""
        return self.depth + 1

    @property
    def movable_layers(self) -> tuple[int, ...]:
        """The first layer: it alone has a weight matrix to transform."""
        return (0,)

    def input_has_constant(self, layer: int) -> bool:
        """Whether a layer has a bias: that of later layers vanishes in the limit."""
        return layer == 0 and bool(self.bias)

    def stretched(self, left: Sequence[ProductTransform | None], right: Sequence[ProductTransform | None]) -> Network:
        """The network that sees x M, with M the transform of the first layer's inputs; others are not used."""
        return StretchedInputs(self, left[0])

    def rescaled(self, factor: float) -> InfiniteMLP:
        """The network that makes of factor · x, in factor² · n_features coordinates, what this one makes of x."""
        return replace(self, bias=float(self.bias) * factor)

    def initialise(self, n_features: int, n_outputs: int = 1, random_state: RandomState = None) -> None:
        """Nothing is drawn: `anchored` makes the state from the training points.

        Raises
        ------
        ValueError
            For several outputs: they share nothing in the limit.
        """
        if n_outputs > 1:
            raise ValueError(
                f"the {n_outputs} outputs of a network of infinite width share nothing; outputs='shared' says the same."
            )

    def anchored(self, state: Anchors | None, X: Array) -> Anchors:
        """Anchors of the training points, as they are when this is called; their factors are made later."""
        return Anchors(self, X.copy())

    def serves(self, anchors: Anchors, X: Array) -> bool:
        """Whether the samples are the training points."""
        return np.array_equal(anchors.X, X)

    def outputs(self, anchors: Anchors, X: Array) -> Array:
        """Zero, the mean over initial weights, shape (n, 1)."""
        return np.zeros((len(X), 1))

    def layers(self, anchors: Anchors, X: Array) -> list[LayerFactors]:
        """Tangent features of samples, one `LayerFactors` a layer, see `factors`."""
        return factors_of(self.factors(anchors, X), X, self.bias)

    def layer_products(self, X: Array, Y: Array | None = None) -> tuple[list[Array], list[Array]]:
        """Inner products of the layer inputs and of the gradients of two sets of samples.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)
        Y : ndarray of shape (n', n_features), optional
            `X` by default.

        Returns
        -------
        inputs, gradients : lists of ndarray of shape (n, n'), one per layer
            Σ_l = ⟨h, h'⟩ and ⟨delta, delta'⟩, from the first layer to the last.

        Raises
        ------
        ValueError
            For shapes that do not fit; if the values of X overflow; for ReLU without a bias, if a sample is zero: it
            has no direction.
        """
        check_matrices(len(X), len(X if Y is None else Y), 3 * self.n_layers - 1)
        inputs, slopes = self._moments(*self._covariances(X, Y))
        gradients = [np.ones_like(inputs[0])]
        for slope in slopes[::-1]:
            gradients.append(gradients[-1] * slope)
        return inputs, gradients[::-1]

    def kernel(self, X: Array, Y: Array | None = None, layer_weights: Sequence[float] | Array | None = None) -> Array:
        """Neural tangent kernel, shape (n, n').

        Parameters
        ----------
        X, Y
            As for `layer_products`, and the errors are those.
        layer_weights : sequence of float, one per layer, optional
            Weights of the layers in the kernel; 1 by default.
        """
        check_matrices(len(X), len(X if Y is None else Y), 2)
        covariances, (roots, _), (others, _) = self._covariances(X, Y)
        return tangent_kernel(ACTIVATIONS[self.activation], covariances, roots, others, self._weights(layer_weights))

    def layer_slopes(self, X: Array) -> tuple[list[tuple[Array, Array]], list[tuple[Array, Array]]]:
        """Gradients of the layers' products of samples x, x' with respect to x, for all pairs of rows of X.

        A gradient is ``along · x' + radial · x``. It includes what the gates do while x moves: the products of the
        gradients change with x as those of the inputs do.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)

        Returns
        -------
        inputs, gradients : lists of pairs (along, radial), ndarrays of shape (n, n), one per layer
            Of Σ_l = ⟨h, h'⟩ and of ⟨delta, delta'⟩, from the first layer to the last.
        """
        check_matrices(len(X), len(X), 8 * self.n_layers)
        covariances, own, _ = self._covariances(X)
        inputs, slopes = self._moments(covariances, own, own)
        n, p = X.shape
        along, radial = np.full((n, n), 1.0 / p), np.zeros((n, n))
        of_inputs, of_slopes = [(along, radial)], []
        for covariance, slope, root, growth in zip(inputs, slopes, *own, strict=False):
            by_variance, slope_by_variance, slope_by_covariance = layer_derivatives(
                ACTIVATIONS[self.activation], covariance, root
            )
            growth = growth[:, None]
            of_slopes.append((slope_by_covariance * along, slope_by_covariance * radial + slope_by_variance * growth))
            along, radial = slope * along, slope * radial + by_variance * growth
            of_inputs.append((along, radial))
        product, of_gradients = np.ones((n, n)), [(np.zeros((n, n)), np.zeros((n, n)))]
        for slope, (change_along, change_radial) in zip(slopes[::-1], of_slopes[::-1], strict=True):
            later_along, later_radial = of_gradients[-1]
            of_gradients.append(
                (later_along * slope + product * change_along, later_radial * slope + product * change_radial)
            )
            product = product * slope
        return of_inputs, of_gradients[::-1]

    def tangent(self, X: Array, layer_weights: Sequence[float] | Array | None = None) -> Tangent:
        """Neural tangent kernel of the rows of X, and its gradients with respect to the first of two samples.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)
        layer_weights : sequence of float, one per layer, optional
            Weights of the layers in the kernel; 1 by default.

        Returns
        -------
        Tangent
        """
        check_matrices(len(X), len(X), 5)
        covariances, own, _ = self._covariances(X)
        weights = self._weights(layer_weights)
        found = tangent_slopes(ACTIVATIONS[self.activation], covariances, *own, 1.0 / X.shape[1], weights)
        return Tangent(*found)

    def anchor(self, X: Array) -> Anchors:
        """Anchors of the training points, with the factors of the layers' matrices: about n³ operations for each.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)

        Returns
        -------
        Anchors
        """
        anchors = self.anchored(None, X)
        _ = anchors.jitter  # which takes all factors
        return anchors

    def factors(self, anchors: Anchors, X: Array) -> list[tuple[Array, Array]]:
        """Factors (h, delta) of every layer's tangent feature: a list of pairs, input side first.

        With a training point on one side, the products of these factors are those of `layer_products`. Of two new
        points they are the products of their projections onto the span of the training points.

        Parameters
        ----------
        anchors : Anchors
        X : ndarray of shape (n', n_features)

        Returns
        -------
        list of pairs of ndarray: shapes (n', n_features + 1) and (n', n) for the first layer (n_features without a
        bias), (n', n) and (n', n) in between, (n', n) and (n', 1) for the last
        """
        if anchors.jitter == 0.0 and np.array_equal(X, anchors.X):
            # Products of the training points with themselves, whitened, are the factors that whiten.
            return self._pairs(X, *anchors.own)
        inputs, gradients = self.layer_products(X, anchors.X)
        return self._pairs(X, *anchors.factors(inputs[1:], gradients[:-1]))

    def cross_layers(self, anchors: Anchors, X: Array) -> list[LayerFactors]:
        """Products with the training points in place of factors: no systems are solved. See `for_products`."""
        inputs, gradients = self.layer_products(X, anchors.X)
        return factors_of(self._pairs(X, inputs[1:], gradients[:-1]), X, self.bias)

    def for_products(self, anchors: Anchors, coefs: Sequence[Array | None]) -> list[Array | None]:
        """L⁻ᵀ B M⁻¹ with the factors L and M of each layer: factors are products times L⁻ᵀ and times M⁻ᵀ.

        Parameters
        ----------
        anchors : Anchors
        coefs : list of ndarray of shape (p, C·q) or None, one per layer
            None for a layer that is not used.

        Returns
        -------
        list of ndarray or None, of the same shapes
        """
        return anchors.for_products(coefs)

    def _pairs(self, X: Array, inputs: Iterable[Array], gradients: Iterable[Array]) -> list[tuple[Array, Array]]:
        """Pairs (h, delta) of every layer, of the inputs of all but the first and the gradients of all but the last."""
        rows = np.hstack([X, np.full((len(X), 1), float(self.bias))]) if self.bias else X
        first = rows * self.forward_scale(X.shape[1])
        return list(zip([first, *inputs], [*gradients, np.ones((len(X), 1))], strict=True))

    def input_gradients(self, anchors: Anchors, coefs: Sequence[Array | None]) -> Array:
        """Gradients of x ↦ Σ_l h_lᵀ B_l delta_l at the training points, in about n³ operations a layer.

        Parameters
        ----------
        anchors : Anchors
        coefs : list of ndarray of shape (p, q) or None, one per layer
            Coefficients B_l of the factors; None for a layer that is not used.

        Returns
        -------
        ndarray of shape (n, n_features)
        """
        X = anchors.X
        layers = zip(
            self.factors(anchors, X), coefs, anchors.inputs, anchors.gradients, *self.layer_slopes(X), strict=True
        )
        along, radial, total = np.zeros((len(X), len(X))), np.zeros(len(X)), np.zeros_like(X)
        for (h, delta), coef, input_factor, gradient_factor, input_slopes, gradient_slopes in layers:
            if coef is None:
                continue
            moving = [(delta @ coef.T, input_factor, input_slopes), (h @ coef, gradient_factor, gradient_slopes)]
            if input_factor is None:
                # The samples themselves.
                total += moving.pop(0)[0][:, : X.shape[1]] * self.forward_scale(X.shape[1])
            for rows, factor, (by_other, by_own) in moving:
                if factor is not None:
                    weights = solve_triangular(factor, rows.T, lower=True, trans=1).T
                    along += by_other * weights
                    radial += np.sum(by_own * weights, axis=1)
        return total + along @ X + radial[:, None] * X

    def forward_scale(self, fan_in: int) -> float:
        """Factor of the first layer's input in the forward pass."""
        return 1.0 / math.sqrt(fan_in)

    def _weights(self, layer_weights: Sequence[float] | Array | None) -> Array:
        return np.ones(self.n_layers) if layer_weights is None else np.array(layer_weights, dtype=float)

    @property
    def _bias_square(self) -> float:
        """b², infinity where a power would raise an error."""
        return float(self.bias) * float(self.bias)

    def _covariances(self, X: Array, Y: Array | None = None) -> tuple[Array, _Samples, _Samples]:
        """Σ_0 of two sets of samples, and what the samples of each have by themselves (`samples_by_layer`)."""
        Y = X if Y is None else Y
        if X.ndim != 2 or Y.ndim != 2 or X.shape[1] != Y.shape[1]:
            raise ValueError(
                f"both sets of samples must have shape (n, n_features), with the same number of features; got "
                f"{X.shape} and {Y.shape}."
            )
        activation, growth = ACTIVATIONS[self.activation], 2.0 / X.shape[1]
        variances, others = self._variances(X), self._variances(Y)
        covariances = (X @ Y.T + self._bias_square) / X.shape[1]
        own = samples_by_layer(activation, variances, growth, self.depth)
        if X is Y:
            # Of a sample with itself there is no angle to round.
            np.fill_diagonal(covariances, variances)
            return covariances, own, own
        return covariances, own, samples_by_layer(activation, others, growth, self.depth)

    def _moments(self, covariances: Array, own: _Samples, other: _Samples) -> tuple[list[Array], list[Array]]:
        """Σ of every layer, and the slopes' moments D of every hidden one."""
        inputs, slopes = [covariances], []
        for roots, others in zip(own[0], other[0], strict=True):
            moments, slope = layer_moments(ACTIVATIONS[self.activation], inputs[-1], roots, others)
            inputs.append(moments)
            slopes.append(slope)
        return inputs, slopes

    def _variances(self, X: Array) -> Array:
        """Diagonal of Σ_0."""
        with np.errstate(over="ignore"):
            variances: Array = (np.einsum("np,np->n", X, X) + self._bias_square) / X.shape[1]
        if not np.isfinite(variances).all():
            raise ValueError(f"the kernel overflows: {cause_of_overflow(X, self.bias)}")
        zero = np.flatnonzero(variances == 0.0)
        if self.activation == "relu" and zero.size:
            raise ValueError(
                f"{zero.size} of {len(X)} samples are zero (the first is sample {zero[0]}): without a bias ReLU units "
                "of infinite width see the direction of a sample alone, and zero has none. Use bias=True, "
                "activation='erf', or leave these samples out."
            )
        return variances
