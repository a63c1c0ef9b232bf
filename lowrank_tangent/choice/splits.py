"""Folds of a cross-validation that leak nothing: copies and groups stay together, and samples without weight are out.

A sample whose copy is trained on is predicted too well, whatever the candidate. So copies of a row of X come into one
fold. Splits that somebody else has drawn are taken as they are, but for training samples with a copy in the test part.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv

from .._types import Array, ArrayLike
from ..leave_one_out import left_out_together

logger = logging.getLogger("lowrank_tangent")

#: What scikit-learn takes for cv=None.
_FOLDS = 5
_ONE_CANDIDATE = "or fit one candidate: adaptivity=0, alpha='loo'."


def splits_of(
    cv: Any, X: Array, y: Array, groups: ArrayLike | None, sample_weight: Array | None, classifier: bool
) -> list[tuple[Array, Array]]:
    """Training part and test part of every fold, as arrays of indices.

    Parameters
    ----------
    cv : None, int, splitter or iterable of splits
        A number of folds, 5 for None, is of groups where there are some.
    X : ndarray of shape (n, n_features)
    y : ndarray of shape (n,) or (n, C)
        As `fit` was given them.
    groups, sample_weight : ndarray of shape (n,), optional
    classifier : bool
        Numbers of folds are stratified then.

    Raises
    ------
    ValueError
        If these samples cannot be split so; the message says what to do about it.
    """
    copies, together = left_out_together(X), left_out_together(X, groups)
    if copies is not None:
        logger.info(
            "%d of %d rows of X are copies of others: copies stay in one fold, and are left out together.",
            len(X) - len(np.unique(copies)),
            len(X),
        )
    samples = np.arange(len(X))
    try:
        drawn = _drawn(cv, X, y, groups, together, classifier)
        splits = [(samples[train], samples[test]) for train, test in drawn]
    except ValueError as error:
        raise ValueError(_remedy(cv, X, y, groups, copies, classifier, error)) from error
    if copies is not None:
        splits = [(train[~np.isin(copies[train], copies[test])], test) for train, test in splits]
    empty = [fold for fold, (train, test) in enumerate(splits) if not (len(train) and len(test))]
    if empty or not splits:
        raise ValueError(
            f"cv={cv!r} makes {len(splits)} folds, and no samples to train on or to predict in {len(empty)} of them "
            "(copies of what is predicted are not trained on). Give another splitter, such as cv=5."
        )
    if sample_weight is None:
        return splits
    counting = [pair for pair in splits if all(sample_weight[part].any() for part in pair)]
    if not counting:
        raise ValueError(
            "every fold has samples of weight 0 alone, to train on or to predict. Shuffle, as with "
            "cv=KFold(5, shuffle=True), or leave such samples out."
        )
    return counting


def _drawn(
    cv: Any, X: Array, y: Array, groups: ArrayLike | None, together: Array | None, classifier: bool
) -> Iterator[tuple[Array, Array]]:
    """The splits of `cv`; a mere number of folds is of groups, or of rows that are no copies."""
    if not (cv is None or isinstance(cv, Integral)) or together is None:
        yield from check_cv(cv, y, classifier=classifier).split(X, y, groups)
    elif groups is not None:
        by_groups = StratifiedGroupKFold if classifier else GroupKFold
        yield from by_groups(_FOLDS if cv is None else cv).split(X, y, together)
    else:
        _, first = np.unique(together, return_index=True)
        first.sort()
        for train, test in check_cv(cv, y[first], classifier=classifier).split(X[first], y[first]):
            in_test = np.isin(together, together[first[test]])
            in_train = np.isin(together, together[first[train]])
            yield np.flatnonzero(in_train), np.flatnonzero(in_test)


def _remedy(
    cv: Any, X: Array, y: Array, groups: ArrayLike | None, copies: Array | None, classifier: bool, error: ValueError
) -> str:
    """What went wrong, and what to do about this cause."""
    n_folds = _FOLDS if cv is None else int(cv) if isinstance(cv, Integral) else getattr(cv, "n_splits", 0)
    start = f"cv={cv!r}{f' ({_FOLDS} folds)' * (cv is None)} cannot split these {len(X)} samples: {error}"
    if _asks_for_groups(cv) and groups is None:
        return f"{start} Give the groups that it keeps together, one label a sample: fit(X, y, groups=labels)."
    n_groups = 0 if groups is None else len(np.unique(groups))
    if groups is not None and (_asks_for_groups(cv) or not hasattr(cv, "split")) and n_groups < max(2, n_folds):
        if n_groups < 2:
            return f"{start} All samples are of one group, and nothing is left to train on. Give finer groups."
        return f"{start} There are {n_groups} groups: give as many folds, n_splits={n_groups}, or finer groups."
    n_rows = len(X) if copies is None else len(np.unique(copies))
    if n_rows < n_folds:
        copied = "" if n_rows == len(X) else f" {n_rows} of them are different."
        return f"{start}{copied} Give fewer folds (cv=2), {_ONE_CANDIDATE}"
    if classifier and n_folds > np.unique(y, return_counts=True)[1].max():
        return (
            f"{start} Every class has fewer samples than there are folds. Give fewer folds (cv=2), a splitter that "
            f"does not stratify (KFold), {_ONE_CANDIDATE}"
        )
    return f"{start} Give a number of folds, as cv=5, a splitter of scikit-learn, or pairs of index arrays."


def _asks_for_groups(cv: Any) -> bool:
    """Whether a splitter of scikit-learn keeps groups together."""
    if not hasattr(cv, "get_metadata_routing"):
        return False
    return cv.get_metadata_routing().split.requests.get("groups") is True
