"""The contract of a candidate: what a choice by cross-validation asks of the procedures that it chooses among."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import has_fit_parameter

from .._types import Array, ArrayLike


class Outcome(NamedTuple):
    """What one round predicts, shape (n', C), and its mean squared leave-one-out error on the training samples."""

    prediction: Array
    leave_one_out_error: float = math.nan


@dataclass(frozen=True)
class Fold:
    """One fold of a cross-validation: samples to train on, and others to predict.

    Attributes
    ----------
    X : ndarray of shape (n, n_features)
        Samples to train on.
    targets : ndarray of shape (n, C)
        For classes −1 and 1, one column a class, one alone for two.
    X_test : ndarray of shape (n', n_features)
        Samples to predict.
    sample_weight : ndarray of shape (n,) or None
    groups : ndarray of int, shape (n,), or None
        Samples of one number belong together: leave-one-out leaves them out together.
    labels : ndarray of shape (n,) or None
        Class labels; None for real targets.
    classes : ndarray of shape (n_classes,) or None
        All of them, in the order of the columns.
    """

    X: Array
    targets: Array
    X_test: Array
    sample_weight: Array | None = None
    groups: Array | None = None
    labels: Array | None = None
    classes: Array | None = None


class Candidate(ABC):
    """A procedure that can be chosen, with a number of rounds or without any.

    Attributes
    ----------
    max_rounds : int, default=0
        How many rounds are tried at most. Every number of them is a candidate in the table of results.
    """

    max_rounds: int = 0

    @abstractmethod
    def outcomes(self, fold: Fold) -> Iterator[Outcome]:
        """What it predicts on a fold: before the first round, then after each, for as long as one asks."""

    @abstractmethod
    def parameters(self, n_rounds: int) -> dict[str, Any]:
        """What tells it apart in the table of results: parameters of its estimator, with that many rounds."""

    @abstractmethod
    def estimator(self) -> BaseEstimator:
        """An estimator that is not fitted; with ``set_params(**parameters(n_rounds))`` it is the one that is chosen."""

    @property
    def start(self) -> Hashable:
        """Candidates of one start are the same before the first round; that is counted once."""
        return id(self)

    def without_rounds(self) -> Candidate:
        """The beginning alone: a copy that tries no rounds, or itself if it has none."""
        if self.max_rounds == 0:
            return self
        other = copy.copy(self)
        other.max_rounds = 0
        return other

    def seconds(self, n_samples: int, n_features: int) -> float | None:
        """About how long a round takes on a fold of so many training samples; None where nobody knows."""
        return None


class EstimatorCandidate(Candidate):
    """Any estimator of scikit-learn as a candidate without rounds.

    It is fitted to every fold, and to all samples if it is chosen. Of a classifier the probabilities p count as 2p − 1;
    where it has none, its decision function counts as it is.

    Parameters
    ----------
    estimator : estimator
        It is cloned.

    Examples
    --------
    >>> from sklearn.kernel_ridge import KernelRidge
    >>> from lowrank_tangent import AdaptiveTangentRegressorCV
    >>> from lowrank_tangent.choice import EstimatorCandidate
    >>> from lowrank_tangent.datasets import make_square
    >>> X, y = make_square(60, 3, random_state=0)
    >>> laplace = EstimatorCandidate(KernelRidge(kernel="laplacian", alpha=0.1))
    >>> model = AdaptiveTangentRegressorCV([1], biases=[1.0], max_rounds=0, cv=2, candidates=[laplace]).fit(X, y)
    >>> len(model.cv_results_["params"])
    2
    """

    def __init__(self, estimator: BaseEstimator) -> None:
        self._estimator = estimator

    def __repr__(self) -> str:
        return f"EstimatorCandidate({self._estimator!r})"

    def outcomes(self, fold: Fold) -> Iterator[Outcome]:
        """The estimator's predictions; it has no rounds and no leave-one-out error."""
        model, weights = self.estimator(), {}
        if fold.sample_weight is not None:
            if not has_fit_parameter(model, "sample_weight"):
                raise ValueError(
                    f"the candidate {model!r} takes no sample_weight, which the others are fitted with. Leave it out, "
                    "or fit without sample_weight."
                )
            weights = {"sample_weight": fold.sample_weight}
        targets = fold.targets[:, 0] if fold.targets.shape[1] == 1 else fold.targets
        model.fit(fold.X, targets if fold.labels is None else fold.labels, **weights)
        yield Outcome(scores_of(model, fold.X_test, fold.classes))

    def parameters(self, n_rounds: int) -> dict[str, Any]:
        """Those of the estimator."""
        return self._estimator.get_params(deep=False)

    def estimator(self) -> BaseEstimator:
        """A clone."""
        return clone(self._estimator)


def scores_of(model: BaseEstimator, X: ArrayLike, classes: Array | None = None) -> Array:
    """Predictions of a fitted estimator in the form of targets, shape (n, C).

    Parameters
    ----------
    model : estimator
        A classifier has `predict_proba` or `decision_function`.
    X : array of shape (n, n_features)
    classes : ndarray of shape (n_classes,), optional
        Those of the columns. A class that the model has not seen gets −1.
    """
    if classes is None:
        found = np.asarray(model.predict(X), dtype=np.float64)
        return found[:, None] if found.ndim == 1 else found
    if hasattr(model, "predict_proba"):
        found = 2.0 * np.asarray(model.predict_proba(X), dtype=np.float64) - 1.0
    else:
        found = np.asarray(model.decision_function(X), dtype=np.float64)
        found = np.column_stack([-found, found]) if found.ndim == 1 else found
    scores = np.full((len(found), len(classes)), -1.0)
    scores[:, np.searchsorted(classes, model.classes_)] = found
    return scores[:, 1:] if len(classes) == 2 else scores
