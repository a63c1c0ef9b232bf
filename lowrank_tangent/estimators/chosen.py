"""Estimators that choose network, metric, adaptivity and rounds by cross-validation around the whole procedure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.class_weight import compute_sample_weight

from .._types import Array, ArrayLike, RandomState
from ..choice import Candidate
from ..networks import Network
from .adaptive import AdaptiveTangentClassifier, AdaptiveTangentRegressor
from .choosing import AdaptiveTangentModelCV
from .probabilities import Calibration
from .targets import TangentClassifier, TangentRegressor


class AdaptiveTangentRegressorCV(AdaptiveTangentModelCV, TangentRegressor, BaseEstimator):
    """Regression on tangent features with everything chosen by cross-validation, ridge NTK among the candidates.

    A candidate is `AdaptiveTangentRegressor` with ``alpha="loo"`` and ``adaptivity=0``: a ridge regression on tangent
    features, then rounds that stretch what the last fit used and take the features anew. Every fold is left out of the
    whole procedure. Of the candidates within one standard error of the best, one with the fewest rounds is chosen: no
    rounds at all, which is ridge NTK, unless the folds agree that they pay.

    Parameters
    ----------
    depths : int ≥ 1 or sequence of them, default=(1, 2)
        Numbers of hidden layers. Here and below one value is a choice of one.
    widths : int, np.inf or sequence of them, default=(np.inf,)
        Units of every hidden layer. Infinite width is the fastest: its kernels have closed forms.
    activations : {"relu", "erf", "tanh", "gelu"} or sequence of them, default=("relu",)
        At infinite width "relu" and "erf".
    biases : float ≥ 0 or sequence of them, default=(1, 10)
        Constants appended to the inputs of the network. With a large one the network compares samples by their
        distance, with a small one by their direction and length.
    metrics : {"coefficient", "gradient", "function", "diagonal", "evidence", "relevance"}, Metric or sequence, optional
        What a round stretches, see `lowrank_tangent.rounds`. By default "evidence" and
        "relevance" at infinite width, "coefficient" and "gradient" at finite width.
    adaptivities : float > 0 or sequence of them, default=(300,)
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
        Anything that scikit-learn takes; None is 5 folds, stratified for classes. A number of folds keeps groups
        together where `fit` is given some. Copies of a row of X stay in one fold; of splits that are given, training
        samples with a copy in the test part are left out.
    refit : bool, default=True
        Fit the chosen candidate to all samples.
    fit_intercept : bool, default=True
        Adds an unpenalised constant for every output.
    n_jobs : int, optional
        Processes, by joblib; each takes one network with one metric and adaptivity at a time, in all folds. They are
        started where they save more time than that takes, and end with the process that started them.
    verbose : int, default=0
        1 shows a progress bar. The number of fits is logged before they start: at level INFO, or as a warning where
        they may take more than a minute.
    random_state : int, RandomState, Generator or None, default=None
        Draws the initial weights of networks of finite width, the same for every fold.
    network : Network or sequence of Network, optional
        Networks to choose from, in place of depths, widths, activations and biases.
    candidates : sequence of Candidate, optional
        Others to choose from as well, see `lowrank_tangent.choice.Candidate`. They count as having no rounds.
    memory : str or joblib.Memory, optional
        Where what the folds say of every candidate is kept: a fit that was cut off goes on from there. Networks of
        finite width need an integer `random_state` for that.

    Attributes
    ----------
    best_params_ : dict
        Parameters of the chosen candidate, for `AdaptiveTangentRegressor`, or for the estimator of one of `candidates`.
    best_estimator_ : AdaptiveTangentRegressor
        The chosen candidate fitted to all samples; has alpha_, rounds_ and all else. It may be another estimator where
        there are `candidates`: then `kernel` and `initial_kernel` are not there.
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
        Number of folds that have samples with a weight.
    input_transform_, input_metric_ : ndarray of shape (n_features, n_features)
        As in `AdaptiveTangentRegressor`; the identity where no rounds are chosen.
    feature_importances_ : ndarray of shape (n_features,)
        Share of every feature in the mean squared slopes of the predictions, per standard deviation of the feature.
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

    def _template(self, seed: int) -> AdaptiveTangentRegressor:
        """What all chains of rounds have in common."""
        return AdaptiveTangentRegressor(
            alpha="loo", adaptivity=0.0, penalty=self.penalty, fit_intercept=self.fit_intercept, random_state=seed
        )


class AdaptiveTangentClassifierCV(AdaptiveTangentModelCV, TangentClassifier, BaseEstimator):
    """Classification on tangent features with everything chosen by cross-validation, ridge NTK among the candidates.

    Candidates are `AdaptiveTangentClassifier` with ``alpha="loo"`` and ``adaptivity=0``, judged by their squared error
    on targets −1 and 1. Parameters, attributes and rule as for `AdaptiveTangentRegressorCV`; but the chosen rounds have
    to lower the share of wrong classes as well, by more than one standard error, or the best ridge NTK stays. Where few
    samples are of one class that share hardly moves; ``class_weight="balanced"`` makes up for it.

    `predict` goes by the largest score. Probabilities are those of the classes in the samples, whatever their weights:
    where classes are of different sizes another one may be the most likely.

    Parameters
    ----------
    class_weight : dict or "balanced", optional
        Weights of the classes, in the fits and in the errors that choose, on top of `sample_weight`. "balanced" gives
        all classes the same weight in all.

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

    def __init__(
        self,
        depths: int | Sequence[int] = (1, 2),
        widths: float | Sequence[float] = (np.inf,),
        activations: str | Sequence[str] = ("relu",),
        biases: float | Sequence[float] = (1.0, 10.0),
        metrics: Any = None,
        adaptivities: float | Sequence[float] = (300.0,),
        max_rounds: int = 24,
        screening_samples: int | None = 400,
        penalty: Any = "power",
        cv: Any = None,
        refit: bool = True,
        fit_intercept: bool = True,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: RandomState = None,
        network: Network | Sequence[Network] | None = None,
        candidates: Sequence[Candidate] | None = None,
        memory: Any = None,
        class_weight: Any = None,
    ) -> None:
        super().__init__(
            depths,
            widths,
            activations,
            biases,
            metrics,
            adaptivities,
            max_rounds,
            screening_samples,
            penalty,
            cv,
            refit,
            fit_intercept,
            n_jobs,
            verbose,
            random_state,
            network,
            candidates,
            memory,
        )
        self.class_weight = class_weight

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities of the classes, shape (n, n_classes) in the order of `classes_`.

        One scale of the scores and an offset for every class make them, which were fitted to the scores of samples that
        the folds had left out: see `lowrank_tangent.estimators.probabilities`.
        """
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Logarithms of `predict_proba`, which do not underflow."""
        scores = self._decision(X)
        return self._calibration.log_probabilities(scores)

    def _template(self, seed: int) -> AdaptiveTangentClassifier:
        """What all chains of rounds have in common."""
        return AdaptiveTangentClassifier(
            alpha="loo", adaptivity=0.0, penalty=self.penalty, fit_intercept=self.fit_intercept, random_state=seed
        )

    def _weighted(self, y: Array, sample_weight: Array | None) -> Array | None:
        """Weights of samples times those of their classes."""
        if self.class_weight is None:
            return sample_weight
        of_classes = compute_sample_weight(self.class_weight, y)
        return of_classes if sample_weight is None else sample_weight * of_classes

    def _calibrate(self, scores: Array, y: Array, sample_weight: Array | None) -> None:
        """Probabilities from the scores of samples that were left out."""
        classes = np.searchsorted(self.classes_, y)
        self._calibration = Calibration.fitted(scores, classes, len(self.classes_), sample_weight)
