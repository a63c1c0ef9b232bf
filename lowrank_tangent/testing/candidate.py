"""What a candidate of a choice promises: in a fold it predicts what its estimator, fitted there, predicts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import has_fit_parameter

from ..choice import Candidate, Fold, Outcome
from ..choice.candidates import scores_of
from .findings import agree, expect, pickled, run_checks, skip

#: Samples to train on, samples to predict, features.
_SAMPLES, _NEW, _FEATURES = 40, 12, 4
#: Rounds that are compared with the estimator, each of which is fitted anew.
_ROUNDS = 3


def check_candidate(
    candidate: Candidate, *, classes: bool = False, random_state: int = 0, verbose: int = 0
) -> list[str]:
    """Check a candidate of a choice against its own estimator, fitted to the fold.

    Parameters
    ----------
    candidate : Candidate
        An instance.
    classes : bool, default=False
        Whether it is for classes; then the fold has two of them.
    random_state : int, default=0
        Draws the samples.
    verbose : int, default=0
        From 1 on every check is logged.

    Returns
    -------
    list of str
        Names of the checks that apply, of "outcomes", "estimator", "unfitted", "weights", "repeatable",
        "without-rounds", "start", "immutability", "pickling".

    Raises
    ------
    AssertionError
        With one line a finding.

    Examples
    --------
    >>> from sklearn.kernel_ridge import KernelRidge
    >>> from lowrank_tangent.choice import EstimatorCandidate
    >>> from lowrank_tangent.testing import check_candidate
    >>> check_candidate(EstimatorCandidate(KernelRidge(alpha=0.1)))[:2]
    ['outcomes', 'estimator']
    """
    return run_checks(candidate, _Case(candidate, classes, random_state), _CHECKS, random_state, verbose)


class _Case:
    """A candidate and a fold."""

    def __init__(self, candidate: Candidate, classes: bool, seed: int) -> None:
        self.candidate, rng = candidate, np.random.default_rng(seed)
        X = rng.standard_normal((_SAMPLES + _NEW, _FEATURES))
        y = np.sin(2.0 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.3 * rng.standard_normal(len(X))
        self.weights = rng.uniform(0.5, 2.0, _SAMPLES)
        labels = (y > 0.0).astype(int)[:_SAMPLES] if classes else None
        targets = (np.where(y > 0.0, 1.0, -1.0) if classes else y)[:_SAMPLES, None]
        known = np.array([0, 1]) if classes else None
        self.fold = Fold(X[:_SAMPLES], targets, X[_SAMPLES:], labels=labels, classes=known)

    def outcomes(self, fold: Fold | None = None) -> list[Outcome]:
        """Before the first round and after a few."""
        count = 1 + min(self.candidate.max_rounds, _ROUNDS)
        return list(itertools.islice(self.candidate.outcomes(fold or self.fold), count))

    def model(self, n_rounds: int) -> BaseEstimator:
        """The estimator of a number of rounds, not fitted."""
        return self.candidate.estimator().set_params(**self.candidate.parameters(n_rounds))


def _weighted(case: _Case) -> Fold:
    """The fold with weights."""
    if not has_fit_parameter(case.candidate.estimator(), "sample_weight"):
        skip("its estimator takes no weights")
    fold = case.fold
    return Fold(fold.X, fold.targets, fold.X_test, case.weights, None, fold.labels, fold.classes)


def _outcomes(case: _Case, rng: np.random.Generator) -> None:
    rounds = case.candidate.max_rounds
    expect(isinstance(rounds, (int, np.integer)) and rounds >= 0, f"max_rounds must be an integer >= 0; got {rounds!r}")
    found, expected = case.outcomes(), 1 + min(rounds, _ROUNDS)
    expect(len(found) == expected, f"max_rounds={rounds} says at least {expected} outcomes; got {len(found)}")
    for index, outcome in enumerate(found):
        prediction, error = outcome
        shape = (_NEW, case.fold.targets.shape[1])
        expect(np.shape(prediction) == shape, f"predictions must have shape {shape}; got {np.shape(prediction)}")
        expect(np.isfinite(prediction).all(), f"predictions after {index} rounds are not finite")
        expect(np.ndim(error) == 0 and not error < 0.0, f"the leave-one-out error after {index} rounds is {error!r}")


def _compare(case: _Case, fold: Fold, **fit_params: np.ndarray) -> None:
    for index, outcome in enumerate(case.outcomes(fold)):
        model = case.model(index)
        model.fit(fold.X, fold.targets[:, 0] if fold.labels is None else fold.labels, **fit_params)
        expected = scores_of(model, fold.X_test, fold.classes)
        name = f"the outcome of {index} rounds against the estimator's predictions"
        agree(name, outcome.prediction, expected, 1e-5, float(np.abs(fold.targets).max()))


def _estimator(case: _Case, rng: np.random.Generator) -> None:
    _compare(case, case.fold)


def _unfitted(case: _Case, rng: np.random.Generator) -> None:
    first, second = case.candidate.estimator(), case.candidate.estimator()
    expect(first is not second, "estimator() must return a new object every time")
    fitted = [name for name in vars(first) if name.endswith("_") and not name.startswith("_")]
    expect(not fitted, f"estimator() must not be fitted; it has {fitted}")
    parameters = [case.candidate.parameters(index) for index in (0, case.candidate.max_rounds)]
    if case.candidate.max_rounds:
        expect(parameters[0] != parameters[1], f"parameters({case.candidate.max_rounds}) are those of no rounds")


def _weights(case: _Case, rng: np.random.Generator) -> None:
    _compare(case, _weighted(case), sample_weight=case.weights)


def _same(name: str, got: list[Outcome], expected: list[Outcome]) -> None:
    for one, two in zip(got, expected, strict=True):
        agree(name, one.prediction, two.prediction, 1e-12)


def _repeatable(case: _Case, rng: np.random.Generator) -> None:
    _same("predictions of a second run", case.outcomes(), case.outcomes())


def _without_rounds(case: _Case, rng: np.random.Generator) -> None:
    other = case.candidate.without_rounds()
    expect(other.max_rounds == 0, f"without_rounds() has max_rounds={other.max_rounds}")
    first = list(itertools.islice(other.outcomes(case.fold), 1))
    _same("predictions of without_rounds()", first, case.outcomes()[:1])


def _start(case: _Case, rng: np.random.Generator) -> None:
    expect(isinstance(case.candidate.start, Hashable), "start must be something that has a hash")
    seconds = case.candidate.seconds(1000, 10)
    known = seconds is None or (np.isfinite(seconds) and seconds >= 0.0)
    expect(known, f"seconds must be a number >= 0, or None where it is not known; got {seconds!r}")


def _immutability(case: _Case, rng: np.random.Generator) -> None:
    fold = case.fold
    copies = [array.copy() for array in (fold.X, fold.targets, fold.X_test)]
    case.outcomes()
    for array, copy in zip((fold.X, fold.targets, fold.X_test), copies, strict=True):
        expect(np.array_equal(array, copy), "the candidate has changed the arrays of the fold")


def _pickling(case: _Case, rng: np.random.Generator) -> None:
    loaded = pickled(case.candidate)
    _same(
        "predictions of the loaded candidate",
        list(itertools.islice(loaded.outcomes(case.fold), 1)),
        case.outcomes()[:1],
    )


_CHECKS: dict[str, Callable[[_Case, np.random.Generator], None]] = {
    "outcomes": _outcomes,
    "estimator": _estimator,
    "unfitted": _unfitted,
    "weights": _weights,
    "repeatable": _repeatable,
    "without-rounds": _without_rounds,
    "start": _start,
    "immutability": _immutability,
    "pickling": _pickling,
}
