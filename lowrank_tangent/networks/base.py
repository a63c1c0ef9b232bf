"""The contract of a network: what tangent features, rounds and estimators ask of it.

A network is a description, and its state (weights, say) is kept outside of it. Whoever brings another one writes a
subclass of `Network` with `n_layers`, `initialise`, `layers` and `outputs`; with `stretched` and `movable_layers` it
takes part in rounds as well. Nothing else in the package looks at the class of a network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._types import Array, RandomState
from ..linalg.transforms import ProductTransform
from ..operators.layers import LayerFactors

if TYPE_CHECKING:
    from .infinite import Tangent


class Network(ABC):
    """What is known of a network, and what it does with its state.

    `TangentFeatures` draws a state by `initialise`, keeps it, and hands it back with every call: the state may be
    anything that can be pickled. Layers come in the same order everywhere, the one that sees the samples first.

    Examples
    --------
    A linear model with one weight a feature:

    >>> import numpy as np
    >>> from lowrank_tangent import TangentFeatures
    >>> from lowrank_tangent.networks import Network
    >>> from lowrank_tangent.operators import LayerFactors
    >>> class Linear(Network):
    ...     n_layers = 1
    ...
    ...     def initialise(self, n_features, n_outputs=1, random_state=None):
    ...         return np.zeros((n_features, n_outputs))
    ...
    ...     def layers(self, state, X):
    ...         return [LayerFactors(X, np.tile(np.eye(state.shape[1]), (len(X), 1, 1)))]
    ...
    ...     def outputs(self, state, X):
    ...         return X @ state
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> TangentFeatures(Linear()).fit(X).operator(X).coef_shapes
    [(3, 1)]
    """

    #: Whether the network is a limit of infinite width: `anchored` then makes its state from the training points, and
    #: it has `kernel`, `tangent`, `input_gradients` and `rescaled`.
    is_infinite: ClassVar[bool] = False

    @property
    @abstractmethod
    def n_layers(self) -> int:
        """Number of layers of weights."""

    @abstractmethod
    def initialise(self, n_features: int, n_outputs: int = 1, random_state: RandomState = None) -> Any:
        """Draw the initial state.

        Parameters
        ----------
        n_features, n_outputs : int
        random_state : None, int, numpy.random.RandomState or numpy.random.Generator

        Returns
        -------
        object
            The state, as the other methods take it.
        """

    @abstractmethod
    def layers(self, state: Any, X: Array) -> Sequence[LayerFactors]:
        """Tangent features of samples: the Jacobian of the outputs with respect to each layer's weights.

        Parameters
        ----------
        state : object
        X : ndarray of shape (n, n_features)
            In the precision that the factors are wanted in.

        Returns
        -------
        list of LayerFactors, one per layer
        """

    @abstractmethod
    def outputs(self, state: Any, X: Array) -> Array:
        """Outputs f(x; θ) of samples, shape (n, n_outputs)."""

    @property
    def movable_layers(self) -> tuple[int, ...]:
        """Layers that rounds may move, none by default. Layer 0 may be among them if its inputs are the samples."""
        return ()

    def input_has_constant(self, layer: int) -> bool:
        """Whether the last input of a layer is a constant, the bias; no by default. Rounds leave it where it is."""
        return False

    def forward_scale(self, fan_in: int) -> float:
        """Factor between the inputs of a layer, without their constant, and h; 1 by default.

        Rounds that measure slopes need it: the slope with respect to the inputs is this factor times B delta.
        """
        return 1.0

    def stretched(self, left: Sequence[ProductTransform | None], right: Sequence[ProductTransform | None]) -> Network:
        """The network x ↦ f(x; M1 θ M2), whose features are those with respect to θ.

        Parameters
        ----------
        left, right : list of ProductTransform or None, one per layer
            M1 of the size of the layer's inputs without their constant, M2 of the size of its units; None is the
            identity.

        Returns
        -------
        Network
            It takes the same state as this one. Where that is a list of one weight matrix a layer, return
            ``StretchedWeights(self, left, right)``.

        Raises
        ------
        ValueError
            If the network has no such form.
        """
        raise ValueError(
            f"{type(self).__name__} has no `stretched(left, right)`, which rounds need. Write it (StretchedWeights of "
            "lowrank_tangent.networks does where the state is a list of weight matrices), or set n_rounds=0."
        )

    def anchored(self, state: Any, X: Array) -> Any:
        """The state after it has seen the training points, shape (n, n_features); by default the state as it was."""
        return state

    def serves(self, state: Any, X: Array) -> bool:
        """Whether a state serves other training data X, of shape (n, n_features), too; yes by default."""
        return True

    def with_precision(self, state: Any, dtype: np.dtype[Any]) -> Any:
        """The state in single or double precision; by default the state as it was."""
        return state

    # -- infinite width alone ----------------------------------------------------------------

    def kernel(self, X: Array, Y: Array | None = None, layer_weights: Sequence[float] | Array | None = None) -> Array:
        """Tangent kernel of two sets of samples in closed form, a weighted sum over layers; shape (n, n')."""
        raise self._finite()

    def seen(self, X: Array) -> Array:
        """Samples as the first layer sees them; by default as they are."""
        return X

    def tangent(self, X: Array, layer_weights: Sequence[float] | Array | None = None) -> Tangent:
        """The kernel of samples as the first layer sees them (`seen`), with its slopes by them."""
        raise self._finite()

    def input_gradients(self, state: Any, coefs: Sequence[Array | None]) -> Array:
        """Gradients of x ↦ (A B)(x) at the training points, shape (n, n_features), for one output's coefficients."""
        raise self._finite()

    def cross_layers(self, state: Any, X: Array) -> Sequence[LayerFactors]:
        """Features for coefficients of `for_products`, by products with the training points alone; default `layers`."""
        return self.layers(state, X)

    def for_products(self, state: Any, coefs: Sequence[Array | None]) -> list[Array | None]:
        """Coefficients that make of `cross_layers` what these make of `layers`; by default the same ones.

        Parameters
        ----------
        state : object
        coefs : list of ndarray of shape (p, C·q) or None, one per layer
            None for a layer that is not used.
        """
        return list(coefs)

    def rescaled(self, factor: float) -> Network:
        """The network that makes of factor · x, in factor² · n_features coordinates, what this one makes of x."""
        raise self._finite()

    def _finite(self) -> ValueError:
        return ValueError(f"{type(self).__name__} has no closed form: that is for networks of infinite width.")


def as_network(network: Any) -> Network:
    """The network itself, or an error that says what a network needs.

    Raises
    ------
    TypeError
    """
    if not isinstance(network, Network):
        given = network.__name__ + ", a class" if isinstance(network, type) else f"an object of {type(network)}"
        raise TypeError(
            f"network must be an MLP, an InfiniteMLP or another lowrank_tangent.networks.Network; got {given}. Derive "
            "your class from Network, implement n_layers, initialise, layers and outputs, and pass an instance."
        )
    return network


def factors_of(pairs: Iterable[tuple[Array, Array]], X: Array, bias: float) -> list[LayerFactors]:
    """Pairs (h, delta) of samples X as factors; ValueError if they overflow."""
    pairs = list(pairs)
    try:
        return [LayerFactors(h, delta) for h, delta in pairs]
    except ValueError:
        if all(np.isfinite(h).all() and np.isfinite(delta).all() for h, delta in pairs):
            raise
        raise ValueError(f"the tangent features overflow: {cause_of_overflow(X, bias)}") from None


def cause_of_overflow(X: Array, bias: float) -> str:
    """The end of a message."""
    return (
        f"the values of X reach {np.abs(X).max():.3g}. Standardise X first, and take a bias of about 1; it is {bias!r}."
    )
