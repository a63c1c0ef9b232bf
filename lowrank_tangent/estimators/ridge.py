"""Ridge NTK with scikit-learn's interface: the features as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator

from .._types import RandomState
from ..losses import Loss
from ..networks import Network
from .model import Settings, TangentModel
from .targets import TangentClassifier, TangentRegressor


class TangentRidgeModel(TangentModel, BaseEstimator):
    """Parameters of ridge NTK, and what it does not leave open."""

    def __init__(
        self,
        hidden_layer_sizes: Any = (256,),
        activation: str = "relu",
        init: str = "ntk",
        bias: float = True,
        network: Network | None = None,
        loss: str | Loss = "squared",
        alpha: float | str = 1e-2,
        outputs: Literal["shared", "network"] = "shared",
        layers: Sequence[int] | None = None,
        layer_weights: Sequence[float] | None = None,
        tol: float = 1e-6,
        fit_intercept: bool = True,
        random_state: RandomState = None,
        dtype: Any = np.float64,
        batch_size: int | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.init = init
        self.bias = bias
        self.network = network
        self.loss = loss
        self.alpha = alpha
        self.outputs = outputs
        self.layers = layers
        self.layer_weights = layer_weights
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.random_state = random_state
        self.dtype = dtype
        self.batch_size = batch_size

    def _settings(self) -> Settings:
        return Settings()


class TangentRidge(TangentRegressor, TangentRidgeModel):
    """Ridge regression with the neural tangent kernel: fixed features.

    Minimises  ``½‖y − A B − b‖² + (α/2) Σ_l ‖B_l‖²``, in closed form: `AdaptiveTangentRegressor` with
    ``adaptivity=0``.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int, default=(256,)
        Units of each hidden layer of the network; ``()`` is a linear model. ``(np.inf,)``, ``(np.inf, np.inf)`` and so
        on are the limits of infinite width, without the randomness of weights; their hidden layers are n × n.
    activation : {"relu", "tanh", "gelu", "erf"}, default="relu"
        At infinite width "relu" or "erf".
    init : {"ntk", "he", "lecun"}, default="ntk"
        Distribution of the initial weights, see `lowrank_tangent.networks.MLP`.
    bias : bool or float, default=True
        Constant appended to the input of every layer; False or 0 leaves biases out.
    network : Network, optional
        Any network, see `lowrank_tangent.networks.Network`; `hidden_layer_sizes`, `activation`, `init` and `bias` are
        the short way to say a multilayer perceptron, and are left at their defaults beside it.
    loss : {"squared", "interpolation"} or Loss, default="squared"
        "interpolation" asks for A B + b = y on the training data; alpha then makes no difference to the solution.
    alpha : float > 0 or "loo", default=1e-2
        Strength of the penalty. The features have a mean kernel diagonal of 1. "loo" takes the value of least
        leave-one-out error.
    outputs : {"shared", "network"}, default="shared"
        "shared": one network output and separate coefficients for every target. "network": one network output
        for every target.
    layers : sequence of int, optional
        Layers whose tangent features are used, 0 for the first; all by default.
    layer_weights : sequence of float > 0, optional
        Weight of each used layer's kernel in the initial kernel; 1 by default.
    tol : float > 0, default=1e-6
        Relative duality gap that the solution is certified to.
    fit_intercept : bool, default=True
        Adds an unpenalised constant for every output.
    random_state : int, RandomState, Generator or None, default=None
        Draws the initial weights.
    dtype : {np.float64, np.float32}, default=np.float64
        Precision of X, weights and features. Single precision halves their memory, and the certificate is computed in
        double precision all the same.
    batch_size : int, optional
        Samples whose features are in memory at a time. Those of more training samples are computed anew whenever they
        are needed. By default all are kept.

    Attributes
    ----------
    coefs_ : list of ndarray
        Coefficients B of each layer, shape (p, q), or (p, C·q) for "shared" outputs: p inputs, the last of them
        the bias if there is one, and q units.
    intercept_ : ndarray of shape (C,)
    transforms_ : list of (LowRankTransform, LowRankTransform)
        Left (inputs) and right (units) transform of each layer's features. One-sided penalties, which is what
        "power" and "kl" are, leave the right one at the identity; `JointPenalty` moves both.
    adaptation_ : Adaptation
        Parameters, transforms and singular values of each layer.
    features_ : TangentFeatures
        Those of the solution; `initial_features_` are those before any round.
    solution_ : Solution
        With dual point, certificate and history of the solver.
    dual_gap_ : float
        Relative duality gap: the objective is within this share of the optimum. NaN for a penalty that is not convex.
    stationarity_ : float
        Relative residual of the optimality condition for a penalty that is not convex; else NaN.
    objective_ : float
    n_iter_ : int
    alpha_ : float
        The alpha of the solution.
    n_features_in_ : int

    Examples
    --------
    >>> from lowrank_tangent.datasets import make_product
    >>> from lowrank_tangent import TangentRidge
    >>> X, y = make_product(500, 10, random_state=0)
    >>> model = TangentRidge((64,), alpha=0.1, random_state=0).fit(X[:400], y[:400])
    >>> bool(model.score(X[400:], y[400:]) > 0.55)
    True
    """


class TangentRidgeClassifier(TangentClassifier, TangentRidgeModel):
    """Classification by ridge regression with the neural tangent kernel: fixed features.

    Regresses targets −1 and 1, one column a class, in closed form; the largest score decides. ``loss="multinomial"`` is
    logistic regression on the same features, ``Σ_i CE(y_i, softmax((A B)_i + b)) + (α/2) Σ_l ‖B_l‖²``, by iteration.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int, default=(256,)
        Units of each hidden layer of the network; ``()`` is a linear model. ``(np.inf,)``, ``(np.inf, np.inf)`` and so
        on are the limits of infinite width, without the randomness of weights; their hidden layers are n × n.
    activation : {"relu", "tanh", "gelu", "erf"}, default="relu"
        At infinite width "relu" or "erf".
    init : {"ntk", "he", "lecun"}, default="ntk"
        Distribution of the initial weights, see `lowrank_tangent.networks.MLP`.
    bias : bool or float, default=True
        Constant appended to the input of every layer; False or 0 leaves biases out.
    network : Network, optional
        Any network, see `lowrank_tangent.networks.Network`; `hidden_layer_sizes`, `activation`, `init` and `bias` are
        the short way to say a multilayer perceptron, and are left at their defaults beside it.
    loss : {"squared", "multinomial", "interpolation"} or Loss, default="squared"
        "multinomial" is the cross-entropy of the softmax of A B + b, and brings `predict_proba`. "interpolation" asks
        for scores of −1 and 1 on the training data; alpha then makes no difference to the solution.
    alpha : float > 0 or "loo", default=1e-2
        Strength of the penalty. The features have a mean kernel diagonal of 1. "loo" takes the value of least
        leave-one-out error.
    outputs : {"shared", "network"}, default="shared"
        "shared": one network output and separate coefficients for every target. "network": one network output
        for every target.
    layers : sequence of int, optional
        Layers whose tangent features are used, 0 for the first; all by default.
    layer_weights : sequence of float > 0, optional
        Weight of each used layer's kernel in the initial kernel; 1 by default.
    tol : float > 0, default=1e-6
        Relative duality gap that the solution is certified to.
    fit_intercept : bool, default=True
        Adds an unpenalised constant for every output.
    random_state : int, RandomState, Generator or None, default=None
        Draws the initial weights.
    dtype : {np.float64, np.float32}, default=np.float64
        Precision of X, weights and features. Single precision halves their memory, and the certificate is computed in
        double precision all the same.
    batch_size : int, optional
        Samples whose features are in memory at a time. Those of more training samples are computed anew whenever they
        are needed. By default all are kept.

    Attributes
    ----------
    coefs_ : list of ndarray
        Coefficients B of each layer, shape (p, q), or (p, C·q) for "shared" outputs: p inputs, the last of them
        the bias if there is one, and q units.
    intercept_ : ndarray of shape (C,)
    transforms_ : list of (LowRankTransform, LowRankTransform)
        Left (inputs) and right (units) transform of each layer's features. One-sided penalties, which is what
        "power" and "kl" are, leave the right one at the identity; `JointPenalty` moves both.
    adaptation_ : Adaptation
        Parameters, transforms and singular values of each layer.
    features_ : TangentFeatures
        Those of the solution; `initial_features_` are those before any round.
    solution_ : Solution
        With dual point, certificate and history of the solver.
    dual_gap_ : float
        Relative duality gap: the objective is within this share of the optimum. NaN for a penalty that is not convex.
    stationarity_ : float
        Relative residual of the optimality condition for a penalty that is not convex; else NaN.
    objective_ : float
    n_iter_ : int
    alpha_ : float
        The alpha of the solution.
    n_features_in_ : int
    classes_ : ndarray of shape (n_classes,)

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from lowrank_tangent import TangentRidgeClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = TangentRidgeClassifier((64,), random_state=0).fit(X[::2], y[::2])
    >>> bool(model.score(X[1::2], y[1::2]) > 0.9)
    True
    """
