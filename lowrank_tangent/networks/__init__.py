"""Networks: layers, and the tangent features of each; `Network` is what another one implements.

`MLP` has weights that are drawn; `InfiniteMLP` is its limit of infinitely many units, with kernels in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import cast

from .._checks import generator
from .base import Network
from .infinite import InfiniteMLP
from .mlp import ACTIVATIONS, INITIALISATIONS, MLP
from .stretched import StretchedWeights


def network_of(hidden_layer_sizes: float | Sequence[float], activation: str, init: str, bias: bool | float) -> Network:
    """The network that the parameters of an estimator describe: an `InfiniteMLP` where all sizes are ``np.inf``.

    Raises
    ------
    ValueError
        For sizes of which only some are infinite, an initialisation that has no limit, and what the networks refuse.
    """
    sizes = tuple(hidden_layer_sizes) if isinstance(hidden_layer_sizes, Iterable) else (hidden_layer_sizes,)
    infinite = [isinstance(size, Real) and size == math.inf for size in sizes]
    if not any(infinite):
        return MLP(cast(tuple[int, ...], hidden_layer_sizes), activation, init, bias)
    if not all(infinite):
        raise ValueError(
            f"hidden_layer_sizes must be all finite or all infinite, e.g. (256, 256) or (np.inf, np.inf); "
            f"got {hidden_layer_sizes!r}."
        )
    if init != "ntk":
        raise ValueError(f"at infinite width only init='ntk' has a limit; got {init!r}.")
    return InfiniteMLP(len(sizes), activation, bias)


__all__ = [
    "ACTIVATIONS",
    "INITIALISATIONS",
    "MLP",
    "InfiniteMLP",
    "Network",
    "StretchedWeights",
    "generator",
    "network_of",
]
