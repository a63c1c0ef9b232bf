"""Estimators that choose network, metric, adaptivity and rounds by cross-validation around the whole procedure.

After a round the features have seen the targets, and every error that is computed with them, leave-one-out included, is
too small. So each fold is left out of everything: rounds, transforms and alpha are found anew on the others. Within a
round alpha is chosen by leave-one-out in closed form, which is exact before the first round and still good enough for
alpha after it.
"""

from __future__ import annotations

import functools
import itertools
import logging
import time
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import check_cv
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from .._checks import check_number, check_sample_weight, draw_seed
from ..choice import screening
from ..choice.folds import Chain, Samples, errors_of_chains
from ..choice.rule import judge
from ..linalg.transforms import ProductTransform
from ..networks import network_of
from ..rounds.metrics import get_metric
from .adaptive import AdaptiveTangentClassifier, AdaptiveTangentRegressor
from .model import FoundLater, InputTransformer
from .targets import TangentClassifier, TangentRegressor

logger = logging.getLogger("lowrank_tangent")

_GRIDS = ("depths", "widths", "activations", "biases", "adaptivities")
#: Metrics that are tried by default.
_METRICS_AT_FINITE_WIDTH = ("coefficient", "gradient")
_METRICS_AT_INFINITE_WIDTH = ("evidence", "relevance")


class _ChosenModel(InputTransformer):
    #: Rounds and alpha are judged by squared errors.
    loss = "squared"
    dtype = np.float64

    def __init__(
        self,
        depths=(1, 2),
        widths=(np.inf,),
        activations=("relu",),
        biases=(1.0, 10.0),
        metrics=None,
        adaptivities=(300.0,),
        max_rounds=24,
        screening_samples=400,
        penalty="power",
        cv=None,
        refit=True,
        fit_intercept=True,
        n_jobs=None,
        verbose=0,
        random_state=None,
    ):
        self.depths = depths
        self.widths = widths
        self.activations = activations
        self.biases = biases
        self.metrics = metrics
        self.adaptivities = adaptivities
        self.max_rounds = max_rounds
        self.screening_samples = screening_samples
        self.penalty = penalty
        self.cv = cv
        self.refit = refit
        self.fit_intercept = fit_intercept
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None, groups=None):
        """Choose among the candidates, and fit the chosen one to all samples.

        Parameters
        ----------
        X : array of shape (n, n_features)
            Dense; standardised columns are a good start.
        y : array of shape (n,) or (n, C)
            Targets, of similar scales if there are several; for classifiers the class labels, of shape (n,).
        sample_weight : array of shape (n,), optional
            Multiplies each sample's squared error, in the fits and in the errors that choose. A factor of all weights
            makes no difference.
        groups : array of shape (n,), optional
            Groups that `cv` keeps together. Leave-one-out, which chooses alpha, does not know them.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For bad data or parameters; the message says what to do.
        """
        for fitted in ("best_estimator_", "refit_time_", "_input_transform"):
            vars(self).pop(fitted, None)  # of an earlier fit, which this one need not refit
        given = X
        X, targets = self._validated(X, y)
        sample_weight = check_sample_weight(sample_weight, len(X))
        networks, max_rounds = self._grid(targets, sample_weight)
        y = self._as_given(targets)
        splits = self._splits(X, y, groups)
        seed = draw_seed(self.random_state)
        chains = [
            Chain(network, move, max_rounds)
            for network, moves in networks
            for move in moves[: None if max_rounds else 1]
        ]
        run = functools.partial(
            errors_of_chains,
            samples=Samples(X, targets, sample_weight),
            options={"penalty": self.penalty, "fit_intercept": self.fit_intercept, "seed": seed},
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        self.screening_results_ = None
        if max_rounds and screening.pays(chains, splits, self.screening_samples):
            chains, self.screening_results_ = _screened(
                chains, screening.thinned(splits, self.screening_samples, sample_weight), run
            )
        _announce("choosing among", chains, splits)
        candidates, rows, last = [], [], None
        for chain, found in zip(chains, run(chains, splits, title="cross-validation"), strict=True):
            for n_rounds, row in enumerate(found):
                # Before the first round all chains of a network are the same.
                if n_rounds > 0 or chain.network is not last:
                    candidates.append({**_parameters(chain), "n_rounds": n_rounds})
                    rows.append(row)
            last = chain.network
        errors, left_out, wrong = np.moveaxis(np.array(rows), 2, 0)
        self.cv_results_, self.best_index_ = judge(candidates, errors, left_out, wrong if is_classifier(self) else None)
        self.n_splits_ = len(splits)
        self.best_params_ = candidates[self.best_index_]
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        if self.refit:
            model = self._candidate(**self.best_params_, random_state=seed)
            start = time.perf_counter()
            self.best_estimator_ = model.fit(given, y, sample_weight)
            self.refit_time_ = time.perf_counter() - start
            moves = self.best_params_["n_rounds"] > 0
            # Of a model without rounds the folds say that its inputs are best left alone.
            unmoved = FoundLater(lambda: ProductTransform(np.ones(X.shape[1])))
            self._input_transform = model._input_transform if moves else unmoved
        return self

    def kernel(self, X, Y=None):
        """Kernel of the chosen model, as `AdaptiveTangentRegressor.kernel` has it."""
        return self._chosen.kernel(X, Y)

    def initial_kernel(self, X, Y=None):
        """Neural tangent kernel of the chosen network before the first round, as `AdaptiveTangentRegressor` has it."""
        return self._chosen.initial_kernel(X, Y)

    def _decision(self, X):
        """Predictions of shape (n, C)."""
        return self._chosen._decision(X)

    @property
    def _chosen(self):
        """The fitted model, which validates what it is given."""
        check_is_fitted(self, "cv_results_")
        if not hasattr(self, "best_estimator_"):
            raise NotFittedError(
                f"this {type(self).__name__} has chosen, but with refit=False it has no model to predict with. Fit "
                "AdaptiveTangent…(**best_params_, alpha='loo', adaptivity=0), or take refit=True."
            )
        return self.best_estimator_

    def _splits(self, X, y, groups):
        """Training part and test part of every fold, as arrays of indices."""
        samples, folds = np.arange(len(X)), check_cv(self.cv, y, classifier=is_classifier(self))
        try:
            return [(samples[train], samples[test]) for train, test in folds.split(X, y, groups)]
        except ValueError as error:
            raise ValueError(
                f"cv={self.cv!r}{' (5 folds)' * (self.cv is None)} cannot split these {len(X)} samples: {error} Give "
                "fewer folds (cv=2), another splitter, or fit one candidate: adaptivity=0, alpha='loo'."
            ) from error

    def _candidate(self, **parameters):
        """The estimator that is chosen or not."""
        estimator = AdaptiveTangentClassifier if is_classifier(self) else AdaptiveTangentRegressor
        return estimator(
            **parameters, alpha="loo", adaptivity=0.0, penalty=self.penalty, fit_intercept=self.fit_intercept
        )

    def _as_given(self, targets):
        """Class labels, or targets of the shape that `fit` was given."""
        if is_classifier(self):
            return self._labels(targets)
        return targets[:, 0] if self._single_output else targets

    def _grid(self, targets, sample_weight):
        """Networks with their moves (metric, adaptivity in units of the targets), and the largest number of rounds."""
        grids = {}
        for name in _GRIDS:
            values = getattr(self, name)
            grids[name] = [] if isinstance(values, str) or not np.iterable(values) else list(values)
            if not grids[name]:
                raise ValueError(f"{name} must be a non-empty sequence of values to choose from; got {values!r}.")
        for depth in grids["depths"]:
            check_scalar(depth, "depths", Integral, min_val=1)
        networks = [
            network_of((width,) * depth, activation, "ntk", bias)
            for depth, width, activation, bias in itertools.product(*(grids[name] for name in _GRIDS[:4]))
        ]
        metrics = [self._metrics_of(network) for network in networks]
        centred = targets - np.average(targets, axis=0, weights=sample_weight)
        variance = float(np.average(np.sum(centred**2, axis=1), weights=sample_weight)) or 1.0
        adaptivities = [
            check_number(value, "adaptivities", positive=True) / variance for value in grids["adaptivities"]
        ]
        moves = [
            [
                (metric, value)
                for metric in tried
                for value in ([None] if get_metric(metric, network).follows_evidence else adaptivities)
            ]
            for network, tried in zip(networks, metrics, strict=True)
        ]
        if self.screening_samples is not None:
            check_scalar(self.screening_samples, "screening_samples", Integral, min_val=2)
        return list(zip(networks, moves, strict=True)), check_scalar(self.max_rounds, "max_rounds", Integral, min_val=0)

    def _metrics_of(self, network):
        """Metrics to choose from, for one network."""
        if self.metrics is None:
            return _METRICS_AT_INFINITE_WIDTH if network.is_infinite else _METRICS_AT_FINITE_WIDTH
        metrics = [] if isinstance(self.metrics, str) or not np.iterable(self.metrics) else list(self.metrics)
        if not metrics:
            raise ValueError(f"metrics must be a non-empty sequence of values to choose from; got {self.metrics!r}.")
        for metric in metrics:
            get_metric(metric, network, "metrics")
        return metrics


def _screened(chains, splits, run):
    """The chains that are worth all samples, and what is told of all."""
    _announce("screening", chains, splits)
    errors = [found[:, :, 0].mean(axis=1) for found in run(chains, splits, title="screening")]
    remaining, kept = screening.survivors(chains, errors)
    return remaining, {
        "params": [
            {**_parameters(chain), "n_rounds": int(np.argmin(e))} for chain, e in zip(chains, errors, strict=True)
        ],
        "mean_test_score": np.array([-np.min(e) for e in errors]),
        "kept": kept,
    }


def _announce(purpose, chains, splits):
    """Say the cost before it arises."""
    n_networks = len({id(chain.network) for chain in chains})
    logger.info(
        "%s up to %d candidates: up to %d ridge regressions in %d folds, of up to %d samples each.",
        purpose,
        n_networks + sum(chain.max_rounds for chain in chains),
        sum(chain.max_rounds + 1 for chain in chains) * len(splits),
        len(splits),
        max(len(train) for train, _ in splits),
    )


def _parameters(chain):
    """Parameters of an estimator with that network and move."""
    network, (metric, adaptivity), _ = chain
    sizes = getattr(network, "hidden_layer_sizes", None)
    return {
        "hidden_layer_sizes": (np.inf,) * network.depth if sizes is None else sizes,
        "activation": network.activation,
        "bias": network.bias,
        "metric": metric,
        "round_adaptivity": adaptivity,
    }


class AdaptiveTangentRegressorCV(_ChosenModel, TangentRegressor, BaseEstimator):
    """Regression on tangent features with everything chosen by cross-validation, ridge NTK among the candidates.

    A candidate is `AdaptiveTangentRegressor` with ``alpha="loo"`` and ``adaptivity=0``: a ridge regression on tangent
    features, then rounds that stretch what the last fit used and take the features anew. Every fold is left out of the
    whole procedure. Of the candidates within one standard error of the best, one with the fewest rounds is chosen: no
    rounds at all, which is ridge NTK, unless the folds agree that they pay.

    Parameters
    ----------
    depths : sequence of int ≥ 1, default=(1, 2)
        Numbers of hidden layers.
    widths : sequence of int or np.inf, default=(np.inf,)
        Units of every hidden layer. Infinite width is the fastest: its kernels have closed forms.
    activations : sequence of {"relu", "erf", "tanh", "gelu"}, default=("relu",)
        At infinite width "relu" and "erf".
    biases : sequence of float ≥ 0, default=(1, 10)
        Constants appended to the inputs of the network. With a large one the network compares samples by their
        distance, with a small one by their direction and length.
    metrics : sequence of {"coefficient", "gradient", "function", "diagonal", "evidence", "relevance"}, optional
        What a round stretches, see `lowrank_tangent.rounds`; instances of `Metric` too. By default "evidence" and
        "relevance" at infinite width, "coefficient" and "gradient" at finite width.
    adaptivities : sequence of float > 0, default=(300,)
        How cheaply a round moves the features, for targets of variance 1 in all; they are divided by the variance of y.
        Rounds that follow the evidence have steps of their own, and None there.
        From some 100 on slopes make much the same rounds: a large stretch is a power of its singular value, and the
        scale of a transform is kept. Smaller values are gentler, and need more rounds.
    max_rounds : int ≥ 0, default=24
        Every number of rounds up to this is a candidate, until four more have lowered the error by less than 2 %. 0
        chooses among ridge NTKs.
    screening_samples : int or None, default=400
        Where folds train on twice as many samples or more, every network and metric is first tried on so many of them,
        and the best quarter, two at least, on all; of the other networks only ridge NTK is. Where no rounds gain with
        so few, all are tried on all, as with None.
    penalty : str or SpectralPenalty, default="power"
        Price of stretching a direction, see `lowrank_tangent.penalties`.
    cv : int, splitter, iterable of splits or None, default=None
        Anything that scikit-learn takes; None is 5 folds, stratified for classes.
    refit : bool, default=True
        Fit the chosen candidate to all samples.
    fit_intercept : bool, default=True
        Adds an unpenalised constant for every output.
    n_jobs : int, optional
        Processes, by joblib; each takes one network with one metric and adaptivity at a time, in all folds.
    verbose : int, default=0
        1 shows a progress bar. The number of fits is logged before they start, at level INFO.
    random_state : int, RandomState, Generator or None, default=None
        Draws the initial weights of networks of finite width, the same for every fold.

    Attributes
    ----------
    best_params_ : dict
        Parameters of the chosen candidate, for `AdaptiveTangentRegressor`.
    best_estimator_ : AdaptiveTangentRegressor
        The chosen candidate fitted to all samples; has alpha_, rounds_ and all else.
    refit_time_ : float
        Seconds that this fit took.
    best_score_ : float
        Its mean score: minus the mean squared error in the folds, in units of y².
    best_index_ : int
    cv_results_ : dict of lists and ndarrays, one entry a candidate
        As in ``GridSearchCV``: "params", "param_…", "split…_test_score", "mean_test_score", "std_test_score" and
        "rank_test_score". "mean_excess" is the error above the lowest, "standard_error_of_excess" that of it over the
        folds. "mean_leave_one_out_score" is the closed form in the training parts: too good after a round.
    screening_results_ : dict or None
        Of the first run on `screening_samples`, if there was one: "params" of every network and metric with their best
        number of rounds, "mean_test_score" of it, and whether they were "kept". `cv_results_` has those on all samples.
    n_splits_ : int
    input_transform_, input_metric_, feature_importances_ : ndarray
        As in `AdaptiveTangentRegressor`; the identity, and equal shares, where no rounds are chosen.
    n_features_in_ : int

    Notes
    -----
    At infinite width a candidate costs an n × n eigendecomposition and some kernels for every fold: on one core about
    0.02 s for 300 samples, and n³ beyond. The default grid has up to 196 candidates, in eight chains of rounds most of
    which end early.

    Examples
    --------
    >>> from lowrank_tangent import AdaptiveTangentRegressorCV
    >>> from lowrank_tangent.datasets import make_square
    >>> X, y = make_square(600, 20, random_state=0)
    >>> model = AdaptiveTangentRegressorCV(depths=[1], biases=[1.0], max_rounds=4, cv=3).fit(X[:200], y[:200])
    >>> model.best_params_["n_rounds"] > 0, bool(model.score(X[200:], y[200:]) > 0.8)
    (True, True)
    """


class AdaptiveTangentClassifierCV(_ChosenModel, TangentClassifier, BaseEstimator):
    """Classification on tangent features with everything chosen by cross-validation, ridge NTK among the candidates.

    Candidates are `AdaptiveTangentClassifier` with ``alpha="loo"`` and ``adaptivity=0``, judged by their squared error
    on targets −1 and 1. Parameters, attributes and rule as for `AdaptiveTangentRegressorCV`; but the chosen rounds have
    to lower the share of wrong classes as well, by more than one standard error, or the best ridge NTK stays. Where few
    samples are of one class that share hardly moves; weights that make up for it (`compute_sample_weight`) count in it.
    For probabilities: ``sklearn.calibration.CalibratedClassifierCV(AdaptiveTangentClassifierCV())``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    cv_results_ : dict
        With "mean_test_accuracy" too, the share of right classes in the folds.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from lowrank_tangent import AdaptiveTangentClassifierCV
    >>> X, y = load_iris(return_X_y=True)
    >>> model = AdaptiveTangentClassifierCV(depths=[1], biases=[1.0], max_rounds=2, cv=3).fit(X[::2], y[::2])
    >>> bool(model.score(X[1::2], y[1::2]) > 0.9)
    True
    """
