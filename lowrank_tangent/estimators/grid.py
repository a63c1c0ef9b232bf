"""The grid of a choice: networks, metrics and adaptivities, as chains of rounds."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_scalar

from .._checks import check_number
from .._types import Array
from ..choice.chains import Chain
from ..networks import Network, network_of
from ..networks.base import as_network
from ..penalties import get_penalty
from ..rounds import Metric
from ..rounds.metrics import get_metric

#: What says the network, where `network` does not.
_SHORT = ("depths", "widths", "activations", "biases")
#: Metrics that are tried by default.
_METRICS_AT_FINITE_WIDTH = ("coefficient", "gradient")
_METRICS_AT_INFINITE_WIDTH = ("evidence", "relevance")


def chains_of(model: Any, template: BaseEstimator, targets: Array, sample_weight: Array | None) -> list[Chain]:
    """Chains of rounds of all networks by all moves; those of a network one after the other.

    Parameters
    ----------
    model : AdaptiveTangentRegressorCV or AdaptiveTangentClassifierCV
    template : estimator
        See `Chain`.
    targets : ndarray of shape (n, C)
        Adaptivities are in units of their variance.
    sample_weight : ndarray of shape (n,) or None

    Raises
    ------
    ValueError, TypeError
        For bad parameters of the model.
    """
    if isinstance(model.penalty, str):
        get_penalty(model.penalty)  # also where no round asks for it
    networks = _networks(model)
    tried = [_metrics(model, network) for network, _ in networks]
    centred = targets - np.average(targets, axis=0, weights=sample_weight)
    variance = float(np.average(np.sum(centred**2, axis=1), weights=sample_weight)) or 1.0
    adaptivities = [
        check_number(value, "adaptivities", positive=True) / variance for value in _listed(model, "adaptivities")
    ]
    if model.screening_samples is not None:
        check_scalar(model.screening_samples, "screening_samples", Integral, min_val=2)
    max_rounds = max_rounds_of(model)
    chains = []
    for (network, parameters), metrics in zip(networks, tried, strict=True):
        moves = [
            (metric, value)
            for metric in metrics
            for value in ([None] if get_metric(metric, network).follows_evidence else adaptivities)
        ]
        # Without weights nothing is drawn, and a memory of results need not know any seed.
        used = clone(template).set_params(random_state=None) if network.is_infinite else template
        for move in moves[: None if max_rounds else 1]:
            chains.append(Chain(network, move, max_rounds, used, parameters))
    return chains


def max_rounds_of(model: Any) -> int:
    """The largest number of rounds."""
    return int(check_scalar(model.max_rounds, "max_rounds", Integral, min_val=0))


def warn_of_unused(model: Any, chains: Sequence[Chain]) -> None:
    """Warn of parameters that were given and make no difference to any candidate."""
    defaults = inspect.signature(type(model)).parameters
    unused: tuple[str, ...]
    if not any(chain.max_rounds for chain in chains):
        unused, reason = ("metrics", "adaptivities", "penalty"), "there are no rounds. Take max_rounds > 0"
    elif all(get_metric(chain.move[0], chain.network).follows_evidence for chain in chains):
        unused = ("adaptivities", "penalty")
        reason = "rounds that follow the evidence have steps of their own. Take metrics=('gradient', 'function') too"
    else:
        return
    for name in unused:
        if not _same(getattr(model, name), defaults[name].default):
            warnings.warn(
                f"{name}={getattr(model, name)!r} makes no difference to any candidate: {reason}, or leave {name} out.",
                UserWarning,
                stacklevel=4,
            )


def _networks(model: Any) -> list[tuple[Network, dict[str, Any]]]:
    """Networks, and the parameters of an estimator that has each."""
    defaults = inspect.signature(type(model)).parameters
    if model.network is not None:
        doubled = [name for name in _SHORT if not _same(getattr(model, name), defaults[name].default)]
        if doubled:
            given = ", ".join(f"{name}={getattr(model, name)!r}" for name in doubled)
            raise ValueError(f"network={model.network!r} says all of the network; leave out {given}.")
        return [(as_network(network), {"network": network}) for network in _listed(model, "network")]
    grids = [_listed(model, name) for name in _SHORT]
    for depth in grids[0]:
        check_scalar(depth, "depths", Integral, min_val=1)
    networks = []
    for depth, width, activation, bias in itertools.product(*grids):
        parameters = {"hidden_layer_sizes": (width,) * depth, "activation": activation, "bias": bias}
        networks.append((network_of((width,) * depth, activation, "ntk", bias), parameters))
    return networks


def _metrics(model: Any, network: Network) -> Sequence[str | Metric]:
    """Metrics to choose from, for one network."""
    if model.metrics is None:
        return _METRICS_AT_INFINITE_WIDTH if network.is_infinite else _METRICS_AT_FINITE_WIDTH
    metrics = _listed(model, "metrics")
    for metric in metrics:
        get_metric(metric, network, "metrics")
    return metrics


def _listed(model: Any, name: str) -> list[Any]:
    """Values to choose from; one value is a choice of one."""
    values = getattr(model, name)
    listed = [values] if isinstance(values, str) or not np.iterable(values) else list(values)
    if not listed:
        raise ValueError(f"{name} must be a non-empty sequence of values to choose from; got {values!r}.")
    return listed


def _same(value: Any, default: Any) -> bool:
    """Whether a parameter is at its default, as whatever sequence."""
    if value is default:
        return True
    if isinstance(value, str) or isinstance(default, str) or not (np.iterable(value) and np.iterable(default)):
        return bool(type(value) is type(default) and value == default)
    return list(value) == list(default)
