"""Which candidates are worth all samples: a first run of all of them on a few.

A round costs n³. How many rounds pay, and whether any do, depends on n. Which networks and metrics are good depends on
n far less.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from .._types import Array
from .candidates import Candidate
from .folds import LEAST_GAIN, Splits

#: A first run takes no more than this share of the samples that a fold trains on.
_LARGEST_SHARE = 0.5
#: This share of the candidates goes on, and no fewer than that many.
_KEPT_SHARE = 0.25
_LEAST_KEPT = 2


def n_kept(n_candidates: int) -> int:
    """How many candidates go on."""
    return max(_LEAST_KEPT, math.ceil(_KEPT_SHARE * n_candidates))


def pays(candidates: Sequence[Candidate], splits: Splits, n_samples: int | None) -> bool:
    """Whether a first run on so many samples saves time. It is not made where `n_samples` is None."""
    if n_samples is None or n_kept(len(candidates)) >= len(candidates):
        return False
    return n_samples <= _LARGEST_SHARE * max(len(train) for train, _ in splits)


def thinned(splits: Splits, n_samples: int, sample_weight: Array | None = None) -> list[tuple[Array, Array]]:
    """The splits with at most so many samples to train on, drawn from those that have a weight, the same every time."""
    rng = np.random.default_rng(0)
    few = []
    for train, test in splits:
        if sample_weight is not None:
            train = train[sample_weight[train] > 0.0]
        few.append((np.sort(rng.permutation(train)[:n_samples]), test))
    return few


def survivors(candidates: Sequence[Candidate], errors: Sequence[Array]) -> tuple[list[Candidate], Array]:
    """The candidates of the lowest errors. Of every other network ridge NTK goes on, without rounds.

    Where no rounds gain, these samples are too few to tell candidates apart: all go on.

    Parameters
    ----------
    candidates : list of Candidate
        Those of one start one after the other.
    errors : list of ndarray
        Of every candidate the errors before the first round and after each.

    Returns
    -------
    candidates : list of Candidate
    kept : ndarray of bool, of shape (n_candidates,)
        Which of those that were given.
    """
    lowest = np.array([np.min(chain) for chain in errors])
    if lowest.min() > (1.0 - LEAST_GAIN) * min(chain[0] for chain in errors):
        return list(candidates), np.ones(len(candidates), dtype=bool)
    kept = np.zeros(len(candidates), dtype=bool)
    kept[np.argsort(lowest, kind="stable")[: n_kept(len(candidates))]] = True
    remaining: list[Candidate] = []
    for _, group in itertools.groupby(zip(candidates, kept, strict=True), key=lambda pair: pair[0].start):
        same = list(group)
        good = [candidate for candidate, is_kept in same if is_kept]
        remaining += good or [same[0][0].without_rounds()]
    return remaining, kept
