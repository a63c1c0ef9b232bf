"""The adaptive estimators: thin layers over features, problem, solver and adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_scalar

from .._types import RandomState
from ..losses import Loss
from ..networks import Network
from .inputs import InputTransformer
from .model import Settings, TangentModel
from .targets import TangentClassifier, TangentRegressor


class AdaptiveTangentModel(InputTransformer, TangentModel, BaseEstimator):
    """Parameters of the adaptive estimators."""

    def __init__(
        self,
        hidden_layer_sizes: Any = (256,),
        activation: str = "relu",
        init: str = "ntk",
        bias: float = True,
        network: Network | None = None,
        loss: str | Loss = "squared",
        penalty: Any = "power",
        alpha: float | str = 1e-2,
        adaptivity: float | Sequence[float] = 1.0,
        outputs: Literal["shared", "network"] = "shared",
        layers: Sequence[int] | None = None,
        layer_weights: Sequence[float] | None = None,
        n_rounds: int = 0,
        metric: Any = "coefficient",
        round_adaptivity: float | Sequence[float] | None = None,
        solver: Any = "auto",
        tol: float = 1e-6,
        max_iter: int | None = None,
        fit_intercept: bool = True,
        warm_start: bool = False,
        verbose: int = 0,
        n_init: int = 1,
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
        self.penalty = penalty
        self.alpha = alpha
        self.adaptivity = adaptivity
        self.outputs = outputs
        self.layers = layers
        self.layer_weights = layer_weights
        self.n_rounds = n_rounds
        self.metric = metric
        self.round_adaptivity = round_adaptivity
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept
        self.warm_start = warm_start
        self.verbose = verbose
        self.n_init = n_init
        self.random_state = random_state
        self.dtype = dtype
        self.batch_size = batch_size

    def _settings(self) -> Settings:
        return Settings(
            penalty=self.penalty,
            adaptivity=self.adaptivity,
            solver=self.solver,
            max_iter=self.max_iter,
            warm_start=self.warm_start,
            verbose=self.verbose,
            n_init=self.n_init,
            n_rounds=check_scalar(self.n_rounds, "n_rounds", Integral, min_val=0),
            metric=self.metric,
            round_adaptivity=self.round_adaptivity,
        )


class AdaptiveTangentRegressor(TangentRegressor, AdaptiveTangentModel):
    """Regression on tangent features that adapt to the target.

    Minimises  ``½‖y − A B − b‖² + (α/2) Σ_l Σ_j ω̃_μ(σ_j(B_l))``,  μ = 1/adaptivity,
    over the coefficients B of the network's tangent features A and the intercept b, and certifies the solution.

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
    penalty : {"power", "kl", "joint", "nuclear", "schatten", "ridge"}, SpectralPenalty or sequence, default="power"
        Price of stretching a direction of the features, see `lowrank_tangent.penalties`. "power" (p = 2), "kl" and
        "nuclear" are convex: the solution is optimal to `dual_gap_`. For others it is a stationary point to
        `stationarity_`, and nothing says that no better one exists; the best of `n_init` is kept. A sequence gives
        every used layer its own.
    alpha : float > 0 or "loo", default=1e-2
        Strength of the penalty. The features have a mean kernel diagonal of 1. "loo" takes the value of least
        leave-one-out error, for every round anew; a closed form of ridge regression, for ``adaptivity=0``.
    adaptivity : float ≥ 0 or sequence of float, default=1.0
        1/μ, how cheaply features may move; 0 is ridge NTK. It is in units of 1/y²: with y twice as large a quarter of
        it gives the same model, so standardise y. For large singular values the penalty depends on
        alpha / √adaptivity alone, so search one of the two finely and the other coarsely. A sequence gives every used
        layer its own; one with 0 stays as it is.
    outputs : {"shared", "network"}, default="shared"
        "shared": one network output and separate coefficients for every target; all targets share the left
        transforms and one n × n kernel. "network": one network output for every target.
    layers : sequence of int, optional
        Layers whose tangent features are used, 0 for the first; all by default.
    layer_weights : sequence of float > 0, optional
        Weight of each used layer's kernel in the initial kernel; 1 by default.
    n_rounds : int ≥ 0, default=0
        How often the transforms of a solution are built into the network, and its features taken anew; then the problem
        is solved again. 0 is the model of the objective above. Two rounds of certified coefficients go a long way, and
        more can overshoot; `AdaptiveTangentRegressorCV` chooses among gentler ones.
    metric : {"coefficient", "gradient", "function", "diagonal", "evidence", "relevance"}, default="coefficient"
        What a round stretches: the singular values of the certified coefficients; those of the average gradient of the
        fitted function with respect to each layer's inputs while gates stand still; at infinite width those of its
        whole gradient, or its slope along every feature; or what raises the evidence of the kernel, in all directions
        or feature by feature. See `lowrank_tangent.rounds`.
    round_adaptivity : float ≥ 0 or sequence of float, optional
        How cheaply a round moves every used layer, as adaptivity does within a solution, which is the default. With
        ``adaptivity=0`` every round is a ridge regression. At infinite width rounds move the first layer alone. It
        does not matter to "evidence" and "relevance".
    solver : {"auto", "newton", "reweighted", "proximal", "bilinear", "cvxpy"}, default="auto"
        "auto" takes "newton" for convex penalties and "reweighted" for others, see `lowrank_tangent.solve`.
    tol : float > 0, default=1e-6
        Relative duality gap at which the solver stops; for a penalty that is not convex, residual of stationarity.
    max_iter : int, optional
        Iteration limit; by default the solver's own.
    fit_intercept : bool, default=True
        Adds an unpenalised constant for every output.
    warm_start : bool, default=False
        Keep features and solution of the last fit as the start of the next, if the data have the same shape (at
        infinite width: are the same). After rounds every fit starts anew.
    verbose : int, default=0
        1 shows a progress bar with the duality gap.
    n_init : int, default=1
        Starting points that are tried for a penalty that is not convex; the lowest objective is kept.
    random_state : int, RandomState, Generator or None, default=None
        Draws the initial weights and the starting points.
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
    rounds_ : list of Round
        Alpha, certificate, errors and transforms of every solution, see `lowrank_tangent.rounds.Round`.
    input_transform_ : ndarray of shape (n_features, n_features)
        M of all rounds multiplied up, with the stretch of the last solution, which `metric` measures: tr(M Mᵀ) =
        n_features. `transform` gives x M.
    input_metric_ : ndarray of shape (n_features, n_features)
        M Mᵀ.
    feature_importances_ : ndarray of shape (n_features,)
        Diagonal of the metric, divided by its trace.
    n_features_in_ : int

    Examples
    --------
    >>> from lowrank_tangent.datasets import make_product
    >>> from lowrank_tangent import AdaptiveTangentRegressor
    >>> X, y = make_product(500, 10, random_state=0)
    >>> model = AdaptiveTangentRegressor((64,), alpha=0.1, random_state=0).fit(X[:400], y[:400])
    >>> bool(model.score(X[400:], y[400:]) > 0.75)
    True
    """


class AdaptiveTangentClassifier(TangentClassifier, AdaptiveTangentModel):
    """Classification on tangent features that adapt to the labels.

    Regresses targets −1 and 1, one column a class, with the objective of `AdaptiveTangentRegressor`; the largest
    score decides. ``loss="multinomial"`` has ``Σ_i CE(y_i, softmax((A B)_i + b))`` in place of ½‖y − A B − b‖², and its
    scores are logits.

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
    penalty : {"power", "kl", "joint", "nuclear", "schatten", "ridge"}, SpectralPenalty or sequence, default="power"
        Price of stretching a direction of the features, see `lowrank_tangent.penalties`. "power" (p = 2), "kl" and
        "nuclear" are convex: the solution is optimal to `dual_gap_`. For others it is a stationary point to
        `stationarity_`, and nothing says that no better one exists; the best of `n_init` is kept. A sequence gives
        every used layer its own.
    alpha : float > 0 or "loo", default=1e-2
        Strength of the penalty. The features have a mean kernel diagonal of 1. "loo" takes the value of least
        leave-one-out error, for every round anew; a closed form of ridge regression, for ``adaptivity=0``.
    adaptivity : float ≥ 0 or sequence of float, default=1.0
        1/μ, how cheaply features may move; 0 is ridge NTK. For large singular values the penalty depends on
        alpha / √adaptivity alone, so search one of the two finely and the other coarsely. A sequence gives every used
        layer its own; one with 0 stays as it is.
    outputs : {"shared", "network"}, default="shared"
        "shared": one network output and separate coefficients for every target; all targets share the left
        transforms and one n × n kernel. "network": one network output for every target.
    layers : sequence of int, optional
        Layers whose tangent features are used, 0 for the first; all by default.
    layer_weights : sequence of float > 0, optional
        Weight of each used layer's kernel in the initial kernel; 1 by default.
    n_rounds : int ≥ 0, default=0
        How often the transforms of a solution are built into the network, and its features taken anew; then the problem
        is solved again. 0 is the model of the objective above. Two rounds of certified coefficients go a long way, and
        more can overshoot; `AdaptiveTangentRegressorCV` chooses among gentler ones.
    metric : {"coefficient", "gradient", "function", "diagonal", "evidence", "relevance"}, default="coefficient"
        What a round stretches: the singular values of the certified coefficients; those of the average gradient of the
        fitted function with respect to each layer's inputs while gates stand still; at infinite width those of its
        whole gradient, or its slope along every feature; or what raises the evidence of the kernel, in all directions
        or feature by feature. See `lowrank_tangent.rounds`.
    round_adaptivity : float ≥ 0 or sequence of float, optional
        How cheaply a round moves every used layer, as adaptivity does within a solution, which is the default. With
        ``adaptivity=0`` every round is a ridge regression. At infinite width rounds move the first layer alone. It
        does not matter to "evidence" and "relevance".
    solver : {"auto", "newton", "reweighted", "proximal", "bilinear", "cvxpy"}, default="auto"
        "auto" takes "newton" for convex penalties and "reweighted" for others, see `lowrank_tangent.solve`.
    tol : float > 0, default=1e-6
        Relative duality gap at which the solver stops; for a penalty that is not convex, residual of stationarity.
    max_iter : int, optional
        Iteration limit; by default the solver's own.
    fit_intercept : bool, default=True
        Adds an unpenalised constant for every output.
    warm_start : bool, default=False
        Keep features and solution of the last fit as the start of the next, if the data have the same shape (at
        infinite width: are the same). After rounds every fit starts anew.
    verbose : int, default=0
        1 shows a progress bar with the duality gap.
    n_init : int, default=1
        Starting points that are tried for a penalty that is not convex; the lowest objective is kept.
    random_state : int, RandomState, Generator or None, default=None
        Draws the initial weights and the starting points.
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
    rounds_ : list of Round
        Alpha, certificate, errors and transforms of every solution, see `lowrank_tangent.rounds.Round`.
    input_transform_ : ndarray of shape (n_features, n_features)
        M of all rounds multiplied up, with the stretch of the last solution, which `metric` measures: tr(M Mᵀ) =
        n_features. `transform` gives x M.
    input_metric_ : ndarray of shape (n_features, n_features)
        M Mᵀ.
    feature_importances_ : ndarray of shape (n_features,)
        Diagonal of the metric, divided by its trace.
    n_features_in_ : int
    classes_ : ndarray of shape (n_classes,)

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from lowrank_tangent import AdaptiveTangentClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = AdaptiveTangentClassifier((64,), random_state=0).fit(X[::2], y[::2])
    >>> bool(model.score(X[1::2], y[1::2]) > 0.9)
    True
    """
