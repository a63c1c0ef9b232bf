"""A network with the samples and states that it is checked on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..linalg.transforms import ProductTransform
from ..networks import Network
from .findings import agree, skip
from .layer import features_of

#: Samples.
SAMPLES = 6
#: Step of central differences, relative to the size of what is changed.
STEP = 1e-5


class NetworkCase:
    """A network, samples and states."""

    def __init__(self, network: Network, n_features: int, seed: int) -> None:
        self.network, self.seed = network, seed
        self.X = np.random.default_rng(seed).standard_normal((SAMPLES, n_features))
        self._states: dict[int, Any] = {}

    @property
    def outputs(self) -> tuple[int, ...]:
        """Numbers of outputs that are tried."""
        return (1,) if self.network.is_infinite else (1, 2)

    def state(self, n_outputs: int) -> Any:
        """The state that has seen the samples."""
        if n_outputs not in self._states:
            drawn = self.network.initialise(self.X.shape[1], n_outputs, self.seed)
            self._states[n_outputs] = self.network.anchored(drawn, self.X)
        return self._states[n_outputs]

    def finite(self) -> None:
        """Leave out a check that is not for infinite width."""
        if self.network.is_infinite:
            skip("for finite width")

    def infinite(self) -> Any:
        """The state, of a network of infinite width alone."""
        if not self.network.is_infinite:
            skip("for infinite width")
        return self.state(1)

    def transform(self, rng: np.random.Generator, size: int) -> ProductTransform:
        """A transform near the identity, neither symmetric nor diagonal."""
        return ProductTransform(np.eye(size) + 0.3 * rng.standard_normal((size, size)))


def same_layers(name: str, got: Sequence[Any], expected: Sequence[Any], tol: float) -> None:
    """Finding if features of layers differ, whatever they are kept as."""
    for index, (one, two) in enumerate(zip(got, expected, strict=True)):
        features = features_of(two)
        agree(f"{name}, layer {index}", features_of(one), features, tol, max(float(np.abs(features).max()), 1e-3))
