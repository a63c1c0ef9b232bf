"""Networks with transforms built in: their features are those of the weights before."""

from __future__ import annotations

import numpy as np


class StretchedMLP:
    """A network of finite width whose weights are M1 θ M2: its features with respect to θ.

    Parameters
    ----------
    network : MLP
    left, right : list of ProductTransform or None, one per layer
        M1 of the size of the layer's inputs without their constant, M2 of the size of its units; None is the identity.
    """

    def __init__(self, network, left, right):
        self.network, self.left, self.right = network, left, right

    def factors(self, weights, X):
        """Factors (h, delta) of every layer: those of the network at M1 θ M2, times M1 and times M2ᵀ."""
        moved = []
        for weight, left, right in zip(weights, self.left, self.right, strict=True):
            if left is not None:
                weight = np.vstack([left.transposed.apply(weight[: left.size].T).T, weight[left.size :]])
            moved.append(weight if right is None else right.apply(weight))
        factors = []
        for (h, delta), left, right in zip(self.network.factors(moved, X), self.left, self.right, strict=True):
            if left is not None:
                h = np.hstack([left.apply(h[:, : left.size]), h[:, left.size :]])
            factors.append((h, delta if right is None else right.transposed.apply(delta)))
        return factors


class StretchedInfiniteMLP:
    """A network of infinite width that sees x M; parameters as for `StretchedMLP`, the first M1 alone is used."""

    def __init__(self, network, left, right):
        self.network, self.left, self.right = network, left, right

    def anchor(self, X):
        """Factors of the layers' matrices on the training points."""
        return self.network.anchor(self._adapted(X))

    def factors(self, anchors, X):
        """Factors (h, delta) of every layer."""
        return self.network.factors(anchors, self._adapted(X))

    @property
    def n_layers(self):
        """Number of layers of weights."""
        return self.network.n_layers

    def input_gradients(self, anchors, coefs):
        """Gradients of the fitted function with respect to x M at the training points."""
        return self.network.input_gradients(anchors, coefs)

    def tangent(self, Z, layer_weights):
        """The kernel of samples x M, and its gradients with respect to x M."""
        return self.network.tangent(Z, layer_weights)

    def _adapted(self, X):
        return X if self.left[0] is None else self.left[0].apply(X)
