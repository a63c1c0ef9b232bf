"""Checks of numbers and weights, with messages that say what was given and what is allowed."""

from __future__ import annotations

from numbers import Real

import numpy as np


def check_number(value, name, positive):
    """A finite float, > 0 if `positive` and ≥ 0 otherwise."""
    bound = "> 0" if positive else ">= 0"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number {bound}; got {value!r}.")
    if not np.isfinite(value) or value < 0 or (positive and value == 0):
        raise ValueError(f"{name} must be a finite number {bound}; got {value!r}.")
    return float(value)


def check_sample_weight(sample_weight, n_samples):
    """Weights as a float array of shape (n,), or None."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    if weights.dtype.kind not in "fiub":
        raise TypeError(f"sample_weight must hold real numbers; got dtype {weights.dtype}.")
    weights = weights.astype(np.float64)
    if weights.shape != (n_samples,):
        raise ValueError(f"sample_weight must have shape (n,) = ({n_samples},); got {weights.shape}.")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("sample_weight must hold finite numbers >= 0; it contains NaN, infinity or negative values.")
    if not weights.any():
        raise ValueError("sample_weight is zero for every sample; at least one sample must count.")
    return weights
