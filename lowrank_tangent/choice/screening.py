"""Which chains of rounds are worth all samples: a first run of all of them on a few.

A chain costs n³. How many rounds pay, and whether any do, depends on n; which networks and metrics are good depends on
it far less.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from .folds import LEAST_GAIN

#: Chains are screened on no more than this share of the samples that a fold trains on.
_LARGEST_SHARE = 0.5
#: This share of the chains goes on, and no fewer than that many.
_KEPT_SHARE = 0.25
_LEAST_KEPT = 2


def n_kept(n_chains):
    """How many chains go on."""
    return max(_LEAST_KEPT, math.ceil(_KEPT_SHARE * n_chains))


def pays(chains, splits, n_samples):
    """Whether a first run on so many samples is worth its while; None for none."""
    if n_samples is None or n_kept(len(chains)) >= len(chains):
        return False
    return n_samples <= _LARGEST_SHARE * max(len(train) for train, _ in splits)


def thinned(splits, n_samples, sample_weight=None):
    """The splits with at most so many samples to train on, drawn from those that have a weight, the same every time."""
    rng = np.random.default_rng(0)
    few = []
    for train, test in splits:
        if sample_weight is not None:
            train = train[sample_weight[train] > 0.0]
        few.append((np.sort(rng.permutation(train)[:n_samples]), test))
    return few


def survivors(chains, errors):
    """The chains of the lowest errors, and of networks that have none the beginning, which is ridge NTK.

    Where no rounds gain, these samples are too few to tell chains apart, and all go on.

    Parameters
    ----------
    chains : list of Chain
        Those of a network one after the other.
    errors : list of ndarray
        Of every chain the errors before the first round and after each.

    Returns
    -------
    chains : list of Chain
    kept : ndarray of bool, of shape (n_chains,)
        Which of those that were given.
    """
    lowest = np.array([np.min(chain) for chain in errors])
    if lowest.min() > (1.0 - LEAST_GAIN) * min(chain[0] for chain in errors):
        return chains, np.ones(len(chains), dtype=bool)
    kept = np.zeros(len(chains), dtype=bool)
    kept[np.argsort(lowest, kind="stable")[: n_kept(len(chains))]] = True
    remaining = []
    for _, group in itertools.groupby(zip(chains, kept, strict=True), key=lambda pair: id(pair[0].network)):
        group = list(group)
        good = [chain for chain, is_kept in group if is_kept]
        remaining += good or [group[0][0]._replace(max_rounds=0)]
    return remaining, kept
