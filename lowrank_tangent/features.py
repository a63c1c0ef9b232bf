"""Tangent features of a network: data in, a `TangentOperator` out."""

from __future__ import annotations

import math

import numpy as np

from .networks import MLP
from .operators import LayerFactors, TangentOperator

#: Bytes of factors that one batch of rows may take when predictions are computed.
_BATCH_BYTES = 2**26


class TangentFeatures:
    """Tangent features of a network at its initial weights, scaled to a mean kernel diagonal of 1.

    Parameters
    ----------
    network : MLP, optional
        One hidden layer of 256 ReLU units by default.
    outputs : {"shared", "network"}, default="shared"
        "shared": the network has one output and every target its own coefficients. "network": the network
        has as many outputs as there are targets, with one set of coefficients.
    random_state : int, RandomState or None

    Attributes
    ----------
    weights_ : list of ndarray
        Initial weights θ0.
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

    def __init__(self, network=None, outputs="shared", random_state=None):
        if network is not None and not isinstance(network, MLP):
            raise TypeError(f"network must be an MLP; got {type(network).__name__}.")
        if outputs not in ("shared", "network"):
            raise ValueError(f"outputs must be 'shared' or 'network'; got {outputs!r}.")
        self.network = network or MLP()
        self.outputs = outputs
        self.random_state = random_state

    def fit(self, X, n_outputs=1, sample_weight=None):
        """Draw the weights and set the scale.

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
            If the features overflow, or vanish for every sample.
        """
        self.n_outputs_ = n_outputs
        self.weights_ = self.network.initialise(
            X.shape[1], n_outputs if self.outputs == "network" else 1, self.random_state
        )
        self.scale_ = 1.0
        with np.errstate(over="ignore", invalid="ignore"):
            diagonal = [self._factors(batch, check=True).diagonal() for batch in self._batches(X)]
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

    def operator(self, X):
        """The tangent operator of some samples.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)

        Returns
        -------
        TangentOperator
        """
        return self._factors(X)

    def predict(self, X, coefs):
        """A B for many samples, in batches of bounded memory; shape (n, C)."""
        return np.concatenate([self.operator(batch).matvec(coefs) for batch in self._batches(X)])

    def _factors(self, X, check=False):
        factors = self.network.factors(self.weights_, X)
        if check and not all(np.isfinite(h).all() and np.isfinite(delta).all() for h, delta in factors):
            raise ValueError(f"the tangent features overflow: {_range_of(X)}. Standardise X first.")
        layers = [LayerFactors(h, delta * self.scale_) for h, delta in factors]
        return TangentOperator(layers, self.outputs, self.n_outputs_ if self.outputs == "shared" else None)

    def _batches(self, X):
        floats = sum(w.shape[0] + w.shape[1] * self.n_outputs_ for w in self.weights_)
        rows = max(1, _BATCH_BYTES // (8 * floats))
        return (X[start : start + rows] for start in range(0, len(X), rows))


def _range_of(X):
    return f"the values of X reach {np.abs(X).max():.3g}"
