"""Tangent features of a network: data in, a `TangentOperator` out."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array, check_scalar, gen_batches

from ._checks import check_dtype, check_layer_weights, check_layers, check_sample_weight
from ._types import Array, ArrayLike, Coefs, RandomState
from .networks import MLP, Network
from .networks.base import as_network
from .networks.infinite import Tangent
from .operators import Layer, StreamedOperator, TangentOperator

#: Bytes of factors that one batch of rows may take when predictions are computed.
_BATCH_BYTES = 2**26


class TangentFeatures:
    """Tangent features of a network at its initial weights, scaled to a mean kernel diagonal of 1.

    Parameters
    ----------
    network : Network, optional
        An `MLP`, an `InfiniteMLP` or one of your own, see `lowrank_tangent.networks.Network`. One hidden layer of 256
        ReLU units by default. Of infinite width, the features are n-dimensional factors of the
        exact kernel on the n samples that are fitted.
    outputs : {"shared", "network"}, default="shared"
        "shared": the network has one output and every target its own coefficients. "network": the network
        has as many outputs as there are targets, with one set of coefficients. At infinite width the outputs of a
        network share nothing, which is what "shared" stands for.
    random_state : None, int, numpy.random.RandomState or numpy.random.Generator
        Draws the weights, the same that an estimator of the same integer has.
    layers : sequence of int, optional
        Layers whose features are used, 0 for the first; all by default.
    layer_weights : sequence of float > 0, optional
        Weight w of each used layer's kernel in K0, 1 by default. In terms of the layer's own features, alpha and
        adaptivity are divided by w.
    dtype : {np.float64, np.float32}, default=np.float64
        Precision of weights and factors. In single precision they take half the memory; products with them are in
        double precision where it matters, and so are certificates.
    batch_size : int, optional
        Samples whose factors are in memory at a time: those of more samples are computed anew whenever they are needed.
        By default the factors of all samples are kept.

    Attributes
    ----------
    weights_ : object
        State of the network: the list of initial weights θ0 of an `MLP`, the training points of an `InfiniteMLP` with
        their factors.
    scale_ : float
        Every feature is multiplied by this, so that the mean diagonal of K0 over the fitted samples is 1.
    n_outputs_, n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent import TangentFeatures
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> operator = TangentFeatures(random_state=0).fit(X).operator(X)
    >>> kernel = operator.gram()
    >>> kernel.shape, round(float(kernel.diagonal().mean()), 12)
    ((20, 20), 1.0)
    """

    weights_: Any
    scale_: float
    n_outputs_: int
    n_features_in_: int
    layers_: list[int]
    _training: Array

    def __init__(
        self,
        network: Network | None = None,
        outputs: Literal["shared", "network"] = "shared",
        random_state: RandomState = None,
        layers: Sequence[int] | None = None,
        layer_weights: Sequence[float] | None = None,
        dtype: npt.DTypeLike = np.float64,
        batch_size: int | None = None,
    ) -> None:
        if outputs not in ("shared", "network"):
            raise ValueError(f"outputs must be 'shared' or 'network'; got {outputs!r}.")
        self.network = MLP() if network is None else as_network(network)
        self.outputs = outputs
        self.random_state = random_state
        self.layers = layers
        self.layer_weights = layer_weights
        self.dtype = check_dtype(dtype)
        self.batch_size = None if batch_size is None else check_scalar(batch_size, "batch_size", Integral, min_val=1)

    def fit(self, X: ArrayLike, n_outputs: int = 1, sample_weight: ArrayLike | None = None) -> TangentFeatures:
        """Draw the weights (take the training points at infinite width) and set the scale.

        Parameters
        ----------
        X : array of shape (n, n_features)
        n_outputs : int, default=1
        sample_weight : array of shape (n,), optional
            Weights of the mean diagonal.

        Returns
        -------
        TangentFeatures
            These features themselves; a fit that fails leaves them as they were.

        Raises
        ------
        ValueError, TypeError
            For samples that are no finite numbers, or none; if the features overflow, or vanish for every sample; for
            several outputs of "network" at infinite width.
        MemoryError
            For more samples than fit into memory at infinite width.
        """
        X = self._checked(X)
        n_outputs = check_scalar(n_outputs, "n_outputs", Integral, min_val=1)
        state = self.network.initialise(X.shape[1], n_outputs if self.outputs == "network" else 1, self.random_state)
        return self._become(self._with(self.network.with_precision(state, self.dtype), n_outputs, X, sample_weight))

    def continuing(
        self, last: TangentFeatures, X: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> TangentFeatures:
        """Fit with the weights of other features of the same network.

        Parameters
        ----------
        last : TangentFeatures
            Fitted before.
        X : ndarray of shape (n, n_features)
            Training points; they set the scale.
        sample_weight : ndarray of shape (n,), optional

        Returns
        -------
        TangentFeatures
        """
        return self._become(self._with(last.weights_, last.n_outputs_, self._checked(X), sample_weight))

    def relinearised(self, network: Network, X: ArrayLike, sample_weight: ArrayLike | None = None) -> TangentFeatures:
        """The features of another network with the same initial weights.

        Parameters
        ----------
        network : Network
        X : ndarray of shape (n, n_features)
            Training points; they set the scale.
        sample_weight : ndarray of shape (n,), optional

        Returns
        -------
        TangentFeatures

        Raises
        ------
        ValueError
            If the features overflow, or vanish for every sample.
        """
        other = copy.copy(self)
        other.network = network
        return other._with(self.weights_, self.n_outputs_, self._checked(X), sample_weight)

    def _become(self, fitted: TangentFeatures) -> TangentFeatures:
        """Take over what was fitted, all of it at once."""
        vars(self).update(vars(fitted))
        return self

    def _with(self, state: Any, n_outputs: int, X: Array, sample_weight: ArrayLike | None) -> TangentFeatures:
        """Features with a state, which has seen the training points if the network needs them, and their scale."""
        fitted = copy.copy(self)
        if self.network.is_infinite:
            fitted._training = X = X.copy()
        fitted.weights_ = self.network.anchored(state, X)
        fitted.n_outputs_, fitted.n_features_in_ = n_outputs, X.shape[1]
        fitted._set_scale(X, check_sample_weight(sample_weight, len(X)))
        return fitted

    def _set_scale(self, X: Array, sample_weight: Array | None) -> None:
        self.layers_ = check_layers(self.layers, self.network.n_layers)
        self._roots = [math.sqrt(weight) for weight in check_layer_weights(self.layer_weights, len(self.layers_))]
        self.scale_ = 1.0
        shapes = [(layer.n_positions, *layer.shape) for layer in self._factors(X[:1])]
        self._row_floats = sum(n_positions * (p + q * self.n_outputs_) for n_positions, p, q in shapes)
        # Factors of all training points at once are those that anchors have.
        batches = [X] if self.network.is_infinite else self._batches(X)
        with np.errstate(over="ignore", invalid="ignore"):
            diagonal = [self._stored(batch).diagonal() for batch in batches]
        mean = np.average(np.concatenate(diagonal).mean(axis=1), weights=sample_weight)
        reach = f"the values of X reach {np.abs(X).max():.3g}"
        if not np.isfinite(mean):
            raise ValueError(
                f"the tangent features overflow: {reach}. Standardise X first, and take a bias of about 1, if any."
            )
        if mean == 0.0:
            raise ValueError(
                f"the tangent features vanish for every sample: {reach}. Standardise X, or use bias=True "
                "or another activation."
            )
        self.scale_ = 1.0 / math.sqrt(mean)

    def serves(self, X: Array) -> bool:
        """Whether these features, fitted before, are those of other training data too."""
        return self.network.serves(self.weights_, X)

    def operator(self, X: ArrayLike) -> TangentOperator:
        """The tangent operator of some samples.

        Parameters
        ----------
        X : array of shape (n, n_features)

        Returns
        -------
        TangentOperator

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            For samples that are no finite numbers, none, or with another number of features.
        """
        X = self._checked_as_fitted(X)
        if self.batch_size is None or len(X) <= self.batch_size:
            return self._stored(X)
        return StreamedOperator(
            functools.partial(self._factors_of_rows, X), len(X), self.batch_size, self.outputs, self._n_copies
        )

    def predict(self, X: ArrayLike, coefs: Coefs) -> Array:
        """A B for many samples, in batches of bounded memory and the precision of the features.

        Parameters
        ----------
        X : array of shape (n, n_features)
        coefs : list of ndarray, one per used layer

        Returns
        -------
        ndarray of shape (n, C)

        Raises
        ------
        NotFittedError, ValueError
            As for `operator`.
        """
        X = self._checked_as_fitted(X)
        batches = (self._stored(batch).with_precision(self.dtype) for batch in self._batches(X))
        return np.concatenate([operator.matvec(coefs) for operator in batches])

    def _stored(self, X: Array) -> TangentOperator:
        return TangentOperator(self._factors(X), self.outputs, self._n_copies)

    @property
    def _n_copies(self) -> int | None:
        return self.n_outputs_ if self.outputs == "shared" else None

    def input_gradients(self, coefs: Coefs) -> Array:
        """Gradients of A B with respect to the network's inputs at the training points, at infinite width.

        Parameters
        ----------
        coefs : list of ndarray of shape (p, C·q), one per used layer

        Returns
        -------
        ndarray of shape (n, n_features, C)
        """
        outputs = []
        for c in range(self.n_outputs_):
            blocks: list[Array | None] = [None] * self.network.n_layers
            for layer, root, coef in zip(self.layers_, self._roots, coefs, strict=True):
                blocks[layer] = coef.reshape(len(coef), self.n_outputs_, -1)[:, c] * (self.scale_ * root)
            outputs.append(self.network.input_gradients(self.weights_, blocks))
        return np.stack(outputs, axis=-1)

    def tangent(self) -> tuple[Array, Tangent]:
        """Training points as the network sees them, and their kernel with its slopes, at infinite width.

        Returns
        -------
        Z : ndarray of shape (n, n_features)
        Tangent
        """
        Z = self.network.seen(self._training)
        return Z, self.network.tangent(Z, self._kernel_weights)

    def training_operator(self) -> TangentOperator:
        """The operator of the training points, at infinite width."""
        return self._stored(self._training)

    def predict_by_kernel(self, X: ArrayLike, dual: Array) -> Array:
        """A A'* R for many samples and the training points, at infinite width: by the kernel in closed form.

        Parameters
        ----------
        X : array of shape (n', n_features)
        dual : ndarray of shape (n, C)
            R, one row for every training point.

        Returns
        -------
        ndarray of shape (n', C)
        """
        X, training, weights = self._checked_as_fitted(X), self._training, self._kernel_weights
        rows = max(1, _BATCH_BYTES // (16 * len(training)))
        return np.concatenate(
            [self.network.kernel(X[batch], training, weights) @ dual for batch in gen_batches(len(X), rows)]
        )

    def for_products(self, coefs: Coefs) -> Coefs:
        """Coefficients for `predict_by_products`, at infinite width: found once for many predictions."""
        every: list[Array | None] = [None] * self.network.n_layers
        for layer, coef in zip(self.layers_, coefs, strict=True):
            every[layer] = coef
        found = self.network.for_products(self.weights_, every)
        return [cast(Array, found[layer]) for layer in self.layers_]

    def predict_by_products(self, X: ArrayLike, coefs: Coefs) -> Array:
        """What `predict` makes of coefficients, of those that `for_products` makes of them: no systems are solved.

        Parameters
        ----------
        X : array of shape (n', n_features)
        coefs : list of ndarray, one per used layer

        Returns
        -------
        ndarray of shape (n', C)
        """
        X, predictions = self._checked_as_fitted(X), []
        for batch in self._batches(X):
            layers = self._scaled(self.network.cross_layers(self.weights_, batch))
            predictions.append(TangentOperator(layers, self.outputs, self._n_copies).matvec(coefs))
        return np.concatenate(predictions)

    @property
    def _kernel_weights(self) -> Array:
        """Weight of every layer of the network in the kernel, 0 of those that are not used."""
        weights = np.zeros(self.network.n_layers)
        weights[self.layers_] = np.square(self._roots) * self.scale_**2
        return weights

    def _factors_of_rows(self, X: Array, rows: Any) -> list[Layer]:
        return self._factors(X[rows])

    def _factors(self, X: Array) -> list[Layer]:
        """The used layers of some samples, scaled."""
        with np.errstate(over="ignore", invalid="ignore"):
            layers = self._scaled(self.network.layers(self.weights_, X))
        return [layer.astype(self.dtype) for layer in layers]

    def _scaled(self, layers: Sequence[Layer]) -> list[Layer]:
        """The used layers of all, each times the root of its weight and the scale."""
        return [layers[layer].scaled(self.scale_ * root) for layer, root in zip(self.layers_, self._roots, strict=True)]

    def _checked(self, X: ArrayLike) -> Array:
        """Samples as an array, in the precision that the network computes in.

        At infinite width factors come from a Cholesky factorisation, which single precision is not enough for.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # the check says it
            checked: Array = check_array(
                X, dtype=np.float64 if self.network.is_infinite else self.dtype, input_name="X"
            )
        return checked

    def _checked_as_fitted(self, X: ArrayLike) -> Array:
        if not hasattr(self, "scale_"):
            raise NotFittedError("these features are not fitted yet: call fit(X) first.")
        X = self._checked(X)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, and these tangent features were fitted on {self.n_features_in_}."
            )
        return X

    def _batches(self, X: Array) -> Iterator[Array]:
        rows = max(1, _BATCH_BYTES // (8 * self._row_floats))
        if self.batch_size is not None:
            rows = min(rows, self.batch_size)
        return (X[start : start + rows] for start in range(0, len(X), rows))
