"""Errors of candidates in the folds of a cross-validation."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from joblib import cpu_count, effective_n_jobs
from joblib.parallel import get_active_backend
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits

from .._types import Array
from ..progress import progress
from .candidates import Candidate, Fold

#: Training part and test part of every fold, as arrays of indices.
Splits = Sequence[tuple[Array, Array]]

#: Rounds end where this many of them have gained less than this share of the error. So small a gain may be chance.
_PATIENCE = 4
LEAST_GAIN = 0.02
#: Seconds that it takes to start processes that have this package; they have to save more.
_SECONDS_TO_START = 10.0


class Samples(NamedTuple):
    """All samples of a choice; see `Fold`."""

    X: Array
    targets: Array
    sample_weight: Array | None = None
    groups: Array | None = None
    labels: Array | None = None
    classes: Array | None = None

    def fold(self, train: Array, test: Array) -> Fold:
        """One fold of them."""

        def part(values: Array | None) -> Array | None:
            return None if values is None else values[train]

        return Fold(
            self.X[train],
            self.targets[train],
            self.X[test],
            part(self.sample_weight),
            part(self.groups),
            part(self.labels),
            self.classes,
        )


class Found(NamedTuple):
    """What the folds say of one candidate.

    Attributes
    ----------
    errors : ndarray of shape (n_rounds + 1, n_folds, 3)
        For every round and fold the mean squared error on the fold, that of leave-one-out on the others, and the share
        of samples of the fold for which another class is predicted, if targets stand for classes.
    predictions : list of ndarray of shape (n_predicted, C), or None
        For every round those of all folds, one after the other, where they are kept.
    """

    errors: Array
    predictions: list[Array] | None


def in_folds(
    candidates: Sequence[Candidate],
    splits: Splits,
    samples: Samples,
    title: str,
    keep_predictions: bool = False,
    n_jobs: int | None = None,
    verbose: int = 0,
    memory: Any = None,
) -> Iterator[Found]:
    """What the folds say of every candidate, as each is done; a candidate is the unit of work of a process.

    Parameters
    ----------
    candidates : list of Candidate
    splits : list of pairs of index arrays
    samples : Samples
    title : str
        Of the progress bar.
    keep_predictions : bool
    n_jobs : int, optional
    verbose : int
    memory : joblib.Memory, optional
        Keeps what is found of every candidate, for a fit that starts again.

    Yields
    ------
    Found
    """
    of_one = functools.partial(
        _of_one if memory is None else memory.cache(_of_one, ignore=["parent"]),
        splits=list(splits),
        samples=samples,
        keep_predictions=keep_predictions,
        parent=os.getpid(),
    )
    with progress(len(candidates), title, verbose) as advance:
        for found in _each(of_one, candidates, n_jobs, seconds_of(candidates, splits, samples.X.shape[1])):
            yield found
            advance(f"{len(found.errors) - 1} rounds")


def seconds_of(candidates: Sequence[Candidate], splits: Splits, n_features: int) -> float | None:
    """About how long all rounds of the candidates take at most, on one core; None where nobody knows."""
    total = 0.0
    for candidate in candidates:
        for train, _ in splits:
            seconds = candidate.seconds(len(train), n_features)
            if seconds is None:
                return None
            total += (candidate.max_rounds + 1) * seconds
    return total


def n_workers(candidates: Sequence[Candidate], n_jobs: int | None, seconds: float | None) -> int:
    """Number of processes that pay; 1 is this one."""
    workers = min(effective_n_jobs(n_jobs), len(candidates))
    saved = np.inf if seconds is None else seconds * (1.0 - 1.0 / max(workers, 1))
    return workers if saved > _SECONDS_TO_START else 1


def _each(
    of_one: Callable[[Candidate], Found], candidates: Sequence[Candidate], n_jobs: int | None, seconds: float | None
) -> Iterator[Found]:
    """Results in the order of the candidates, by as many processes as pay."""
    workers = n_workers(candidates, n_jobs, seconds)
    if workers == 1:
        return map(of_one, candidates)
    threads = max(1, cpu_count() // workers)
    # Backends of older kinds return everything at the end.
    return_as = "generator" if get_active_backend()[0].supports_return_generator else "list"
    tasks = (delayed(_in_process)(of_one, candidate, threads, os.getpid()) for candidate in candidates)
    return iter(Parallel(n_jobs=workers, return_as=return_as)(tasks))


def _in_process(of_one: Callable[[Candidate], Found], candidate: Candidate, threads: int, parent: int) -> Found:
    """One candidate; other processes share the cores among their threads."""
    if os.getpid() == parent:
        return of_one(candidate)
    with threadpool_limits(limits=threads):
        return of_one(candidate)


def _of_one(candidate: Candidate, splits: Splits, samples: Samples, keep_predictions: bool, parent: int) -> Found:
    """Errors before and after every round of one candidate, for as long as rounds help."""
    _, targets, sample_weight = samples[:3]
    weights = np.ones(len(targets)) if sample_weight is None else sample_weight
    is_child = os.getppid() == parent
    outcomes = [candidate.outcomes(samples.fold(train, test)) for train, test in splits]
    errors: list[list[tuple[float, float, float]]] = []
    predictions: list[Array] = []
    lowest, last_gain = np.inf, 0
    while len(errors) <= min(candidate.max_rounds, last_gain + _PATIENCE):
        if is_child and os.getppid() != parent:
            os._exit(1)  # nobody waits for the result
        found, predicted = [], []
        for fold, ((_, test), rounds) in enumerate(zip(splits, outcomes, strict=True)):
            prediction, left_out = next(rounds)
            if not np.isfinite(prediction).all():
                raise ValueError(_not_finite(candidate, len(errors), fold))
            squares = np.mean((targets[test] - prediction) ** 2, axis=1)
            wrong = class_indices(prediction) != class_indices(targets[test])
            found.append(
                (np.average(squares, weights=weights[test]), left_out, np.average(wrong, weights=weights[test]))
            )
            predicted.append(prediction)
        error = np.mean([row[0] for row in found])
        if error < (1.0 - LEAST_GAIN) * lowest:
            lowest, last_gain = error, len(errors)
        errors.append(found)
        if keep_predictions:
            predictions.append(np.concatenate(predicted))
    return Found(np.array(errors), predictions if keep_predictions else None)


def _not_finite(candidate: Candidate, n_rounds: int, fold: int) -> str:
    return (
        f"the candidate {candidate.parameters(n_rounds)} predicts NaN or infinity in fold {fold}. Standardise X and y; "
        "if that does not help, leave this candidate out."
    )


def class_indices(scores: Array) -> Array:
    """Which class scores (or targets) of shape (n, C) stand for; two classes have one column."""
    return (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)
