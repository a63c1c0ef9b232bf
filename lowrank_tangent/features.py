"""Tangent features of a network: data in, a `TangentOperator` out."""

from __future__ import annotations

import copy
import math
from numbers import Integral

import numpy as np
from sklearn.utils import check_scalar

from .networks import MLP
from .networks.base import as_network
from .operators import StreamedOperator, TangentOperator

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
    n_outputs_ : int

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

    def __init__(
        self,
        network=None,
        outputs="shared",
        random_state=None,
        layers=None,
        layer_weights=None,
        dtype=np.float64,
        batch_size=None,
    ):
        if outputs not in ("shared", "network"):
            raise ValueError(f"outputs must be 'shared' or 'network'; got {outputs!r}.")
        self.network = MLP() if network is None else as_network(network)
        self.outputs = outputs
        self.random_state = random_state
        self.layers = layers
        self.layer_weights = layer_weights
        self.dtype = check_dtype(dtype)
        self.batch_size = None if batch_size is None else check_scalar(batch_size, "batch_size", Integral, min_val=1)

    def fit(self, X, n_outputs=1, sample_weight=None):
        """Draw the weights (take the training points at infinite width) and set the scale.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)
        n_outputs : int, default=1
        sample_weight : ndarray of shape (n,), optional
            Weights of the mean diagonal.

        Returns
        -------
        TangentFeatures

        Raises
        ------
        ValueError
            If the features overflow, or vanish for every sample; for several outputs of "network" at infinite width.
        """
        self.n_outputs_ = n_outputs
        network_outputs = n_outputs if self.outputs == "network" else 1
        state = self.network.initialise(X.shape[1], network_outputs, self.random_state)
        self.weights_ = self.network.with_precision(state, self.dtype)
        return self._set(X, sample_weight)

    def continuing(self, last, X, sample_weight=None):
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
        self.n_outputs_, self.weights_ = last.n_outputs_, last.weights_
        return self._set(X, sample_weight)

    def relinearised(self, network, X, sample_weight=None):
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
        return other._set(X, sample_weight)

    def _set(self, X, sample_weight):
        """Take the training points where the network needs them, and set the scale."""
        self.layers_ = _check_layers(self.layers, self.network.n_layers)
        self._roots = [math.sqrt(weight) for weight in _check_layer_weights(self.layer_weights, len(self.layers_))]
        self.scale_ = 1.0
        self.weights_ = self.network.anchored(self.weights_, self._as_seen(X))
        shapes = [(layer.n_positions, *layer.shape) for layer in self._factors(X[:1])]
        self._row_floats = sum(n_positions * (p + q * self.n_outputs_) for n_positions, p, q in shapes)
        # Factors of all training points at once are those that anchors have.
        batches = [X] if self.network.is_infinite else self._batches(X)
        with np.errstate(over="ignore", invalid="ignore"):
            diagonal = [self._stored(batch).diagonal() for batch in batches]
        mean = np.average(np.concatenate(diagonal).mean(axis=1), weights=sample_weight)
        if not np.isfinite(mean):
            raise ValueError(f"the tangent features overflow: {_range_of(X)}. Standardise X first.")
        if mean == 0.0:
            raise ValueError(
                f"the tangent features vanish for every sample: {_range_of(X)}. Standardise X, or use bias=True "
                "or another activation."
            )
        self.scale_ = 1.0 / math.sqrt(mean)
        return self

    def serves(self, X):
        """Whether these features, fitted before, are those of other training data too."""
        return self.network.serves(self.weights_, X)

    def operator(self, X):
        """The tangent operator of some samples.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)

        Returns
        -------
        TangentOperator
        """
        if self.batch_size is None or len(X) <= self.batch_size:
            return self._stored(X)
        return StreamedOperator(
            lambda rows: self._factors(X[rows]), len(X), self.batch_size, self.outputs, self._n_copies
        )

    def predict(self, X, coefs):
        """A B for many samples, in batches of bounded memory and the precision of the features; shape (n, C)."""
        batches = (self._stored(batch).with_precision(self.dtype) for batch in self._batches(X))
        return np.concatenate([operator.matvec(coefs) for operator in batches])

    def _stored(self, X):
        return TangentOperator(self._factors(X), self.outputs, self._n_copies)

    @property
    def _n_copies(self):
        return self.n_outputs_ if self.outputs == "shared" else None

    def input_gradients(self, coefs):
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
            blocks = [None] * self.network.n_layers
            for layer, root, coef in zip(self.layers_, self._roots, coefs, strict=True):
                blocks[layer] = coef.reshape(len(coef), self.n_outputs_, -1)[:, c] * (self.scale_ * root)
            outputs.append(self.network.input_gradients(self.weights_, blocks))
        return np.stack(outputs, axis=-1)

    def tangent(self):
        """Training points as the network sees them, and their kernel with its slopes, at infinite width.

        Returns
        -------
        Z : ndarray of shape (n, n_features)
        Tangent
        """
        weights = np.zeros(self.network.n_layers)
        weights[self.layers_] = np.square(self._roots) * self.scale_**2
        return self.weights_.X, self.network.tangent(self.weights_.X, weights)

    def _factors(self, X):
        with np.errstate(over="ignore", invalid="ignore"):
            layers = self.network.layers(self.weights_, self._as_seen(X))
        return [
            layers[layer].scaled(self.scale_ * root).astype(self.dtype)
            for layer, root in zip(self.layers_, self._roots, strict=True)
        ]

    def _as_seen(self, X):
        """Samples in the precision that the network computes in.

        At infinite width factors come from a Cholesky factorisation, which single precision is not enough for.
        """
        return X.astype(np.float64 if self.network.is_infinite else self.dtype, copy=False)

    def _batches(self, X):
        rows = max(1, _BATCH_BYTES // (8 * self._row_floats))
        return (X[start : start + rows] for start in range(0, len(X), rows))


def check_dtype(dtype):
    """Single or double precision as a dtype."""
    try:
        checked = np.dtype(dtype)
    except TypeError:
        checked = None
    if checked not in (np.float32, np.float64) or dtype is None:
        raise ValueError(f"dtype must be np.float32 or np.float64; got {dtype!r}.")
    return checked


def _check_layers(layers, depth):
    """Indices of the layers that are used."""
    if layers is None:
        return list(range(depth))
    indices = list(layers)
    integers = all(isinstance(i, Integral) and not isinstance(i, (bool, np.bool_)) for i in indices)
    if not indices or not integers or len(set(indices)) < len(indices) or not all(0 <= i < depth for i in indices):
        raise ValueError(
            f"layers must be different integers from 0 to {depth - 1}, one for each layer; got {layers!r}."
        )
    return [int(i) for i in indices]


def _check_layer_weights(weights, count):
    """Weights of the used layers as a float array."""
    if weights is None:
        return np.ones(count)
    values = np.asarray(weights)
    if values.dtype.kind not in "fiu" or values.shape != (count,) or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"layer_weights must be {count} finite numbers > 0, one for each used layer; got {weights!r}.")
    return values.astype(np.float64)


def _range_of(X):
    return f"the values of X reach {np.abs(X).max():.3g}"
