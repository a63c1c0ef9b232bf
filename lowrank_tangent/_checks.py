"""Checks of numbers and weights, with messages that say what was given and what is allowed."""

from __future__ import annotations

from numbers import Real

import numpy as np

#: The largest target may be this small and this large: an objective of its squares is far from the ends of floats.
_TARGET_RANGE = 1e-100, 1e100


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


def check_target_scale(y, sample_weight=None):
    """Refuse targets of shape (n, C) whose squares overflow, or vanish: no certificate could say anything then."""
    weighted = y if sample_weight is None else np.sqrt(sample_weight)[:, None] * y
    largest = np.abs(weighted).max()
    least, limit = _TARGET_RANGE
    if largest > 0.0 and not least <= largest <= limit:
        raise ValueError(
            f"the largest value of y{'' if sample_weight is None else ' times the root of sample_weight'} is "
            f"{largest:.1e}; between {least:.0e} and {limit:.0e} its squares can be computed with. Divide y by its "
            "standard deviation, for example by sklearn.compose.TransformedTargetRegressor with a StandardScaler."
        )
