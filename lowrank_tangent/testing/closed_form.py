"""What networks of infinite width promise: features with the kernel in closed form, and its slopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._types import Array
from ..linalg.transforms import ProductTransform
from .findings import agree, skip
from .network_case import STEP, NetworkCase

#: Closed forms and Cholesky factors of them agree to this, and slopes with central differences to that.
_CLOSED, _DIFFERENCES = 1e-8, 1e-6
#: Samples that the anchors have not seen.
_NEW = 2


def _gram(one: Sequence[Any], two: Sequence[Any]) -> Array:
    kernels: Array = sum(first.kernel(second, False) for first, second in zip(one, two, strict=True))
    return kernels


def check_kernel(case: NetworkCase, rng: np.random.Generator) -> None:
    """`kernel` is that of the features, of new samples too, and symmetric."""
    state, network = case.infinite(), case.network
    new = rng.standard_normal((_NEW, case.X.shape[1]))
    layers, others = network.layers(state, case.X), network.layers(state, new)
    expected = network.kernel(case.X)
    agree("the kernel of the features against kernel(X)", _gram(layers, layers), expected, _CLOSED)
    agree("that of new samples against kernel(X', X)", _gram(others, layers), network.kernel(new, case.X), _CLOSED)
    agree(
        "kernel(X, X') against the transpose of kernel(X', X)",
        network.kernel(case.X, new),
        network.kernel(new, case.X).T,
        _CLOSED,
    )


def check_slopes(case: NetworkCase, rng: np.random.Generator) -> None:
    """`tangent` has the slopes that differences of the kernel have."""
    Z, network = case.infinite().X, case.network
    weights = rng.uniform(0.5, 2.0, network.n_layers)
    agree("the kernel of tangent against kernel(X)", network.tangent(Z).kernel, network.kernel(case.X), _CLOSED)
    tangent = network.tangent(Z, weights)
    for k in range(Z.shape[1]):
        for i in range(2):
            moved = [Z.copy(), Z.copy()]
            moved[0][i, k] += STEP
            moved[1][i, k] -= STEP
            ends = [network.tangent(one, weights).kernel[i] for one in moved]
            others = np.arange(len(Z)) != i  # where both samples move, the slope is that of one of them
            expected = ((ends[0] - ends[1]) / (2.0 * STEP))[others]
            got = (tangent.along[i] * Z[:, k] + tangent.radial[i] * Z[i, k])[others]
            agree(
                "along · x' + radial · x against differences of the kernel",
                got,
                expected,
                _DIFFERENCES,
                float(np.abs(tangent.kernel).max()),
            )


def check_input_gradients(case: NetworkCase, rng: np.random.Generator) -> None:
    """`input_gradients` are those of the fitted function, by differences."""
    state, network = case.infinite(), case.network
    coefs = [rng.standard_normal(layer.shape) for layer in network.layers(state, case.X)]

    def fitted(X: Array) -> Array:
        layers = network.layers(state, X)
        parts = [layer.product(coef, 1)[:, 0] for layer, coef in zip(layers, coefs, strict=True)]
        total: Array = np.sum(parts, axis=0)
        return total

    gradients = network.input_gradients(state, coefs)
    for k in range(case.X.shape[1]):
        step = np.zeros(case.X.shape[1])
        step[k] = STEP
        along = network.anchored(state, case.X + step).X - state.X  # as the network sees it
        expected = (fitted(case.X + step) - fitted(case.X - step)) / 2.0
        agree(
            "input_gradients against differences",
            np.sum(gradients * along, axis=1) / STEP,
            expected / STEP,
            1e-4,
            float(np.abs(gradients).max()),
        )


def check_rescaled(case: NetworkCase, rng: np.random.Generator) -> None:
    """`rescaled` makes of scaled samples the same kernel."""
    case.infinite()
    try:
        other = case.network.rescaled(2.0)
    except ValueError:
        skip("it has no rescaled network")
    padded = np.hstack([2.0 * case.X, np.zeros((len(case.X), 3 * case.X.shape[1]))])
    agree(
        "kernel of rescaled(2) on 2 x in four times the coordinates",
        other.kernel(padded),
        case.network.kernel(case.X),
        _CLOSED,
    )


def check_stretched_inputs(case: NetworkCase, rng: np.random.Generator, nothing: list[ProductTransform | None]) -> None:
    """At infinite width a network sees x M."""
    p = case.X.shape[1]
    transform = case.transform(rng, p)
    moved = case.network.stretched([transform, *nothing[1:]], nothing)
    new = rng.standard_normal((_NEW, p))
    expected = case.network.kernel(new @ transform.to_dense(), case.X @ transform.to_dense())
    agree("the kernel of stretched against that of x M", moved.kernel(new, case.X), expected, _CLOSED)
    state = moved.anchored(moved.initialise(p, 1, case.seed), case.X)
    found = _gram(moved.layers(state, new), moved.layers(state, case.X))
    agree("the kernel of the features of stretched", found, expected, _CLOSED)
