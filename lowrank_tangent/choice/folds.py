"""Errors of chains of rounds in the folds of a cross-validation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.utils.parallel import Parallel, delayed

from ..networks import Network
from ..progress import progress
from .chains import outcomes_of_rounds

#: A chain of rounds ends where this many of them have not lowered the error by this share: less than folds can tell.
_PATIENCE = 4
LEAST_GAIN = 0.02


class Chain(NamedTuple):
    """Rounds of one network by one move, (metric, adaptivity), up to a number of them."""

    network: Network
    move: tuple
    max_rounds: int


class Samples(NamedTuple):
    """Inputs, targets of shape (n, C), weights or None."""

    X: np.ndarray
    targets: np.ndarray
    sample_weight: np.ndarray | None


def errors_of_chains(chains, splits, samples, options, title, n_jobs, verbose):
    """Errors of every chain, as each is done; a chain is the unit of work of a process.

    Parameters
    ----------
    chains : list of Chain
    splits : list of pairs of index arrays
        Training part and test part of every fold.
    samples : Samples
    options : dict
        Penalty, intercept and seed, see `outcomes_of_rounds`.
    title : str
        Of the progress bar.
    n_jobs, verbose : int

    Yields
    ------
    ndarray of shape (n_rounds + 1, n_folds, 3)
        For every round and fold the mean squared error on the fold, that of leave-one-out on the others, and the share
        of samples of the fold for which another class is predicted, if targets stand for classes.
    """
    tasks = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(_errors_of_rounds)(chain, splits, samples, options) for chain in chains
    )
    with progress(len(chains), title, verbose) as advance:
        for found in tasks:
            yield found
            advance(f"{len(found) - 1} rounds")


def _errors_of_rounds(chain, splits, samples, options):
    """Errors before and after every round of one chain, for as long as rounds help."""
    X, targets, sample_weight = samples
    weights = np.ones(len(X)) if sample_weight is None else sample_weight
    if any(not (weights[train].any() and weights[test].any()) for train, test in splits):
        raise ValueError("every sample of a fold has weight 0; use fewer folds, or leave such samples out.")
    folds = []
    for train, test in splits:
        data = X[train], targets[train], None if sample_weight is None else sample_weight[train]
        folds.append(outcomes_of_rounds(chain.network, chain.move, data, X[test], **options))
    found, lowest, last_gain = [], np.inf, 0
    while len(found) <= min(chain.max_rounds, last_gain + _PATIENCE):
        outcomes = [next(fold) for fold in folds]
        rows = [
            (
                np.average(np.mean((targets[test] - prediction) ** 2, axis=1), weights=weights[test]),
                left_out,
                np.average(class_indices(prediction) != class_indices(targets[test]), weights=weights[test]),
            )
            for (_, test), (prediction, left_out) in zip(splits, outcomes, strict=True)
        ]
        error = np.mean([row[0] for row in rows])
        if error < (1.0 - LEAST_GAIN) * lowest:
            lowest, last_gain = error, len(found)
        found.append(rows)
    return np.array(found)


def class_indices(scores):
    """Which class scores (or targets) of shape (n, C) stand for; two classes have one column."""
    return (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)
