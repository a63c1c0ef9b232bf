"""Which candidate of a cross-validation is chosen: the rule of one standard error.

Errors in folds are noisy, and the lowest of many is too good to be true. So rounds have to lower them by more than one
standard error of the difference, fold by fold. Of classes they have to lower the share of wrong ones as well: the
squared error falls also where no decision changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._types import Array


def judge(
    candidates: Sequence[dict[str, Any]], errors: Array, left_out: Array, wrong: Array | None = None
) -> tuple[dict[str, Any], int]:
    """Table of results and the index of the chosen candidate.

    Of all candidates whose error exceeds the lowest by no more than one standard error of the difference, those with
    the fewest rounds are simplest; the best of them is chosen. If it has rounds, but the share of wrong classes is not
    lower by more than one standard error than that of the best candidate without, that one is chosen instead.

    Parameters
    ----------
    candidates : list of dict
        Their parameters, with "n_rounds" where there are some; one or more without rounds.
    errors, left_out : ndarray of shape (n_candidates, n_folds)
        Mean squared errors in the folds, and of leave-one-out in the others.
    wrong : ndarray of shape (n_candidates, n_folds), optional
        Shares of wrong classes.

    Returns
    -------
    results : dict
    index : int

    Raises
    ------
    ValueError
        If an error is NaN or infinite.
    """
    for candidate, row in zip(candidates, errors, strict=True):
        if not np.isfinite(row).all():
            raise ValueError(
                f"the candidate {candidate} has errors {row} in the folds; they have to be finite. Standardise X "
                "and y, or leave this candidate out."
            )
    means = errors.mean(axis=1)
    excess = errors - errors[np.argmin(means)]
    spread = _standard_error(excess)
    rounds = np.array([candidate.get("n_rounds", 0) for candidate in candidates])
    good = excess.mean(axis=1) <= spread
    index = _lowest(means, good & (rounds == rounds[good].min()))
    if wrong is not None and rounds[index] > 0:
        simplest = _lowest(means, rounds == 0)
        gain = wrong[simplest] - wrong[index]
        if gain.mean() <= _standard_error(gain):
            index = simplest
    names = dict.fromkeys(name for candidate in candidates for name in candidate)
    results: dict[str, Any] = {f"param_{name}": [candidate.get(name) for candidate in candidates] for name in names}
    results |= {f"split{fold}_test_score": -errors[:, fold] for fold in range(errors.shape[1])}
    results |= {
        "params": candidates,
        "mean_test_score": -means,
        "std_test_score": _deviation(errors, 0),
        "rank_test_score": np.argsort(np.argsort(means, kind="stable"), kind="stable") + 1,
        "mean_excess": excess.mean(axis=1),
        "standard_error_of_excess": spread,
        "mean_leave_one_out_score": -left_out.mean(axis=1),
    }
    if wrong is not None:
        results["mean_test_accuracy"] = 1.0 - wrong.mean(axis=1)
    return results, index


def _lowest(means: Array, mask: Array) -> int:
    """Index of the lowest mean among some candidates."""
    chosen = np.flatnonzero(mask)
    return int(chosen[np.argmin(means[chosen])])


def _standard_error(differences: Array) -> Array:
    """Standard error of the mean over folds, along the last axis; 0 for one fold, which has none."""
    n_folds = differences.shape[-1]
    return _deviation(differences, 1) / np.sqrt(n_folds) if n_folds > 1 else np.zeros(differences.shape[:-1])


def _deviation(values: Array, ddof: int) -> Array:
    """Standard deviation along the last axis; errors whose squares would overflow have one, too."""
    unit = np.abs(values).max() or 1.0
    return unit * (values / unit).std(axis=-1, ddof=ddof)
