"""Checks of numbers and weights, with messages that say what was given and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from ._types import Array, ArrayLike, RandomState

#: The largest target may be this small and this large: an objective of its squares is far from the ends of floats.
_TARGET_RANGE = 1e-100, 1e100
#: A mean weight beyond 4 to this power (1e30), or below its reciprocal, leaves too few decades to products of features.
_USUAL_LOGARITHM = 50


def generator(random_state: RandomState) -> np.random.Generator:
    """What draws: of the same integer the same everywhere, whether a network, features or an estimator get it.

    Parameters
    ----------
    random_state : None, int, numpy.random.RandomState or numpy.random.Generator
        A generator is taken as it is; so the next draw goes on where the last ended. None is NumPy's global state, as
        everywhere in scikit-learn.

    Raises
    ------
    ValueError
        For anything else.
    """
    return (
        random_state
        if isinstance(random_state, np.random.Generator)
        else np.random.default_rng(draw_seed(random_state))
    )


def draw_seed(random_state: RandomState) -> int:
    """An integer for `generator`, drawn from any kind of random state; errors as there."""
    largest = np.iinfo(np.int32).max
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(largest))
    return int(check_random_state(random_state).randint(largest))


def check_number(value: Any, name: str, positive: bool) -> float:
    """A finite float, > 0 if `positive` and ≥ 0 otherwise."""
    bound = "> 0" if positive else ">= 0"
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number {bound}; got {value!r}.")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond floats
        number = np.inf
    if not np.isfinite(number) or number < 0 or (positive and number == 0):
        raise ValueError(f"{name} must be a finite number {bound}; got {value!r}.")
    return number


def check_adaptivity(value: Any) -> float:
    """A float that is 0 or has a reciprocal."""
    adaptivity, least = check_number(value, "adaptivity", positive=False), np.finfo(float).tiny
    if 0.0 < adaptivity < least:
        raise ValueError(
            f"adaptivity must be 0, which is ridge regression, or at least {least:.1e}, so that 1/adaptivity is finite;"
            f" got {value!r}. Use 0."
        )
    return adaptivity


def check_sample_weight(sample_weight: ArrayLike | None, n_samples: int) -> Array | None:
    """Weights as a float array of shape (n,), or None; a number is the weight of every sample."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    if weights.dtype.kind not in "fiub":
        raise TypeError(f"sample_weight must hold real numbers; got dtype {weights.dtype}.")
    weights = weights.astype(np.float64)
    if weights.ndim == 0:
        weights = np.full(n_samples, weights)
    if weights.shape != (n_samples,):
        raise ValueError(f"sample_weight must be a number or have shape (n,) = ({n_samples},); got {weights.shape}.")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("sample_weight must hold finite numbers >= 0; it contains NaN, infinity or negative values.")
    if not weights.any():
        raise ValueError("sample_weight is zero for every sample; at least one sample must count.")
    return weights


def check_target(y: ArrayLike, operator: Any) -> Array:
    """Targets as a float array of shape (n, C) that fits the operator."""
    y = np.asarray(y)
    if y.dtype.kind not in "fiub":
        raise TypeError(f"y must hold real numbers; got dtype {y.dtype}.")
    y = y.astype(np.float64)
    if y.ndim == 1:
        y = y[:, None]
    expected = (operator.n_samples, operator.n_outputs)
    if y.shape != expected:
        hint = ""
        if y.ndim == 2 and len(y) == operator.n_samples and any(layer.n_outputs == 1 for layer in operator.layers):
            hint = (
                f" For {y.shape[1]} targets on these features use "
                f"TangentOperator(..., outputs='shared', n_outputs={y.shape[1]})."
            )
        raise ValueError(f"y must have shape (n, C) = {expected} to fit the operator; got {y.shape}.{hint}")
    if not np.isfinite(y).all():
        raise ValueError("y contains NaN or infinity; remove those samples first.")
    return y


def weight_scale(sample_weight: Array | None) -> float:
    """A power of 4 near the mean weight where that is extreme, else 1: divisions by it and by its root are exact."""
    if sample_weight is None:
        return 1.0
    logarithm = 0.5 * np.log2(np.mean(sample_weight[sample_weight > 0.0]))
    return 1.0 if abs(logarithm) <= _USUAL_LOGARITHM else float(4.0 ** np.round(logarithm))


def check_target_scale(y: Array, sample_weight: Array | None = None) -> None:
    """Refuse targets of shape (n, C) whose squares overflow, or vanish: no certificate could say anything then."""
    weighted = y if sample_weight is None else np.sqrt(sample_weight / weight_scale(sample_weight))[:, None] * y
    largest = np.abs(weighted).max()
    least, limit = _TARGET_RANGE
    if largest > 0.0 and not least <= largest <= limit:
        raise ValueError(
            f"the largest value of y{'' if sample_weight is None else ' times the root of sample_weight'} is "
            f"{largest:.1e}; between {least:.0e} and {limit:.0e} its squares can be computed with. Divide y by its "
            "standard deviation, for example by sklearn.compose.TransformedTargetRegressor with a StandardScaler."
        )


def check_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Single or double precision as a dtype."""
    try:
        checked = np.dtype(dtype)
    except TypeError:
        checked = None
    if checked not in (np.float32, np.float64) or dtype is None:
        raise ValueError(f"dtype must be np.float32 or np.float64; got {dtype!r}.")
    return checked


def check_layers(layers: Sequence[int] | None, depth: int) -> list[int]:
    """Indices of the layers that are used."""
    if layers is None:
        return list(range(depth))
    indices = list(layers)
    integers = all(isinstance(i, Integral) and not isinstance(i, (bool, np.bool_)) for i in indices)
    if not indices or not integers or len(set(indices)) < len(indices) or not all(0 <= i < depth for i in indices):
        raise ValueError(
            f"layers must be different integers from 0 to {depth - 1}, one for each layer; got {layers!r}."
        )
    return [int(i) for i in indices]


def check_layer_weights(weights: Sequence[float] | None, count: int) -> Array:
    """Weights of the used layers as a float array."""
    if weights is None:
        return np.ones(count)
    values = np.asarray(weights)
    if values.dtype.kind not in "fiu" or values.shape != (count,) or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"layer_weights must be {count} finite numbers > 0, one for each used layer; got {weights!r}.")
    return values.astype(np.float64)
