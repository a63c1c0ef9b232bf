"""What a network promises: features against differences of its outputs, kernels against features, seeds and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._types import Array, Coefs
from ..features import TangentFeatures
from ..linalg.transforms import ProductTransform
from ..networks import Network
from .closed_form import check_input_gradients, check_kernel, check_rescaled, check_slopes, check_stretched_inputs
from .findings import Finding, agree, expect, pickled, run_checks, skip
from .layer import SINGLE, check_layer, features_of
from .network_case import SAMPLES, STEP, NetworkCase, same_layers

#: Error of central differences as a share of the features.
_DIFFERENCES = 1e-6
#: Features of a layer with more entries than this are not checked one by one.
_MANY = 2000


def check_network(network: Network, *, n_features: int = 3, random_state: int = 0, verbose: int = 0) -> list[str]:
    """Check a network's tangent features against differences of its outputs.

    Features are compared with differences where the state is a list of arrays (or lists and tuples of such), one of
    the shape of each layer in the order of the layers; at infinite width with the kernel in closed form.

    Parameters
    ----------
    network : Network
        A small instance: all entries of all features are computed one by one.
    n_features : int, default=3
        Columns of the samples that it is checked on.
    random_state : int, default=0
        Draws the samples, and seeds `initialise`.
    verbose : int, default=0
        From 1 on every check is logged.

    Returns
    -------
    list of str
        Names of the checks that could be made, of "shapes", "features", "kernel", "slopes", "input-gradients",
        "rescaled", "layers", "batches", "seed", "precision", "constant", "movable", "stretched", "serves", "estimator",
        "immutability", "pickling".

    Raises
    ------
    AssertionError
        With one line a finding.

    Examples
    --------
    >>> from lowrank_tangent.networks import MLP
    >>> from lowrank_tangent.testing import check_network
    >>> "features" in check_network(MLP((4,)))
    True
    """
    return run_checks(network, NetworkCase(network, n_features, random_state), _CHECKS, random_state, verbose)


def leaves(state: Any) -> list[Array]:
    """The arrays of nested lists, tuples and dictionaries, in order."""
    if isinstance(state, np.ndarray):
        return [state]
    if isinstance(state, dict):
        state = list(state.values())
    if isinstance(state, (list, tuple)):
        return [leaf for part in state for leaf in leaves(part)]
    return []


def _replaced(state: Any, old: Array, new: Array) -> Any:
    """The nested state with one array in the place of another."""
    if isinstance(state, dict):
        return {key: _replaced(value, old, new) for key, value in state.items()}
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*(_replaced(value, old, new) for value in state))
    if isinstance(state, (list, tuple)):
        return type(state)(_replaced(value, old, new) for value in state)
    return new if state is old else state


def _differences(network: Network, state: Any, weight: Array, X: Array) -> Array:
    """Derivatives of the outputs by every entry of a weight, shape (n, C, p, q)."""
    derivatives = []
    for entry in range(weight.size):
        step = STEP * max(1.0, abs(float(weight.flat[entry])))
        ends = []
        for sign in (1.0, -1.0):
            moved = weight.copy()
            moved.flat[entry] += sign * step
            ends.append(network.outputs(_replaced(state, weight, moved), X))
        derivatives.append((ends[0] - ends[1]) / (2.0 * step))
    return np.moveaxis(np.array(derivatives), 0, -1).reshape(*ends[0].shape, *weight.shape)


def _weights(network: Network, state: Any, X: Array) -> list[Array]:
    """The weights of the state, one a layer; the check is left out if they cannot be told."""
    weights, shapes = leaves(state), [layer.shape for layer in network.layers(state, X)]
    if len(weights) != len(shapes):
        skip("the state is not one array a layer")
    given = [weight.shape for weight in weights]
    expect(
        given == shapes,
        f"the state has weights of shapes {given}, and features are taken with respect to shapes {shapes}",
    )
    return weights


def _compare(name: str, network: Network, state: Any, X: Array) -> None:
    """Features against differences of the outputs, for all weights."""
    for index, (layer, weight) in enumerate(zip(network.layers(state, X), _weights(network, state, X), strict=True)):
        expected = _differences(network, state, weight, X)
        size = max(float(np.abs(expected).max()), 1e-3)
        agree(f"{name} of layer {index} against differences", features_of(layer), expected, _DIFFERENCES, size)


def _shapes(case: NetworkCase, rng: np.random.Generator) -> None:
    depth = case.network.n_layers
    expect(isinstance(depth, (int, np.integer)) and depth >= 1, f"n_layers must be an integer >= 1; got {depth!r}")
    for C in case.outputs:
        layers = case.network.layers(case.state(C), case.X)
        expect(len(layers) == depth, f"layers must give n_layers = {depth} of them; got {len(layers)}")
        found = {(layer.n_samples, layer.n_outputs) for layer in layers}
        expect(found == {(SAMPLES, C)}, f"layers must have (n, C) = {(SAMPLES, C)}; got {sorted(found)}")
        got = np.shape(case.network.outputs(case.state(C), case.X))
        expect(got == (SAMPLES, C), f"outputs must have shape (n, C) = {(SAMPLES, C)}; got {got}")


def _features(case: NetworkCase, rng: np.random.Generator) -> None:
    case.finite()
    for C in case.outputs:
        _compare("features", case.network, case.state(C), case.X)


def _layers(case: NetworkCase, rng: np.random.Generator) -> None:
    for index, layer in enumerate(case.network.layers(case.state(case.outputs[-1]), case.X)):
        if np.prod(layer.shape) > _MANY:
            continue
        try:
            check_layer(layer)
        except AssertionError as error:
            raise Finding(f"layer {index}: {' | '.join(str(error).splitlines())}") from error


def _batches(case: NetworkCase, rng: np.random.Generator) -> None:
    state, network = case.state(case.outputs[-1]), case.network
    layers, outputs = network.layers(state, case.X), network.outputs(state, case.X)
    for rows in (slice(0, 1), slice(1, 4), np.array([3, 0, 3])):
        expected = [layer.rows(rows) for layer in layers]
        same_layers(f"features of samples {rows} alone", network.layers(state, case.X[rows]), expected, 1e-7)
        agree(f"outputs of samples {rows} alone", network.outputs(state, case.X[rows]), outputs[rows], 1e-9)


def _global_state() -> Array:
    """The state of NumPy's global generator, from which nobody may draw."""
    state: Any = np.random.get_state()  # noqa: NPY002
    return np.array(state[1])


def _seed(case: NetworkCase, rng: np.random.Generator) -> None:
    network, sizes = case.network, (case.X.shape[1], case.outputs[-1])
    before = _global_state()
    first, again = (network.anchored(network.initialise(*sizes, 5), case.X) for _ in range(2))
    expect(np.array_equal(before, _global_state()), "initialise with a seed draws from NumPy's global state")
    same_layers("features of the same seed", network.layers(first, case.X), network.layers(again, case.X), 0.0)
    agree("outputs of the same seed", network.outputs(first, case.X), network.outputs(again, case.X), 0.0)
    for random_state in (None, np.random.RandomState(0), np.random.default_rng(0)):
        network.initialise(*sizes, random_state)


def _precision(case: NetworkCase, rng: np.random.Generator) -> None:
    case.finite()
    network, state = case.network, case.state(case.outputs[-1])
    layers, outputs = network.layers(state, case.X), network.outputs(state, case.X)
    for layer in layers:
        expect(layer.dtype == np.float64, f"features of double precision are {layer.dtype}")
    expect(np.asarray(outputs).dtype == np.float64, f"outputs of double precision are {np.asarray(outputs).dtype}")
    cast = network.with_precision(state, np.dtype(np.float32))
    single = case.X.astype(np.float32)
    same_layers("features in single precision", network.layers(cast, single), layers, 10.0 * SINGLE)
    agree("outputs in single precision", network.outputs(cast, single), outputs, 10.0 * SINGLE)


def _inputs(layer: Any) -> Array | None:
    """h of a layer of outer products, else None."""
    return None if layer.outer is None else layer.outer[0]


def _constant(case: NetworkCase, rng: np.random.Generator) -> None:
    layers = case.network.layers(case.state(case.outputs[-1]), case.X)
    for index, h in enumerate(map(_inputs, layers)):
        if h is not None and case.network.input_has_constant(index):
            last = h[:, -1]
            expect(
                np.ptp(last) <= 1e-12 * np.abs(last).max(),
                f"input_has_constant({index}) is claimed, but the last column of h is {last.tolist()}",
            )


def _movable(case: NetworkCase, rng: np.random.Generator) -> None:
    network, movable = case.network, case.network.movable_layers
    expect(
        all(isinstance(index, (int, np.integer)) and 0 <= index < network.n_layers for index in movable)
        and len(set(movable)) == len(movable),
        f"movable_layers must be different layers from 0 to {network.n_layers - 1}; got {movable!r}",
    )
    h = _inputs(network.layers(case.state(case.outputs[-1]), case.X)[0])
    if 0 in movable and h is not None:
        p = case.X.shape[1]
        agree(
            "h of layer 0, which may be moved, against forward_scale · x",
            h[:, :p],
            network.forward_scale(p) * case.X,
            1e-12,
        )


def _stretched(case: NetworkCase, rng: np.random.Generator) -> None:
    network, state = case.network, case.state(case.outputs[-1])
    if not network.movable_layers:
        skip("rounds move no layer")
    nothing: list[ProductTransform | None] = [None] * network.n_layers
    layers = network.layers(state, case.X)
    same = network.stretched(nothing, nothing)
    same_state = same.anchored(state, case.X)
    same_layers("features of stretched by the identity", same.layers(same_state, case.X), layers, 1e-12)
    agree(
        "outputs of stretched by the identity", same.outputs(same_state, case.X), network.outputs(state, case.X), 1e-12
    )
    left, right = list(nothing), list(nothing)
    for index in network.movable_layers:
        p, q = layers[index].shape
        left[index] = case.transform(rng, p - network.input_has_constant(index))
        right[index] = case.transform(rng, q)
    if network.is_infinite:
        check_stretched_inputs(case, rng, nothing)
        return
    moved = network.stretched(left, right)
    weights = _weights(network, state, case.X)
    _compare("features of stretched", moved, state, case.X)
    expected = state
    for weight, m1, m2 in zip(weights, left, right, strict=True):
        expected = _replaced(expected, weight, _moved(weight, m1, m2))
    agree(
        "outputs of stretched against f(x; M1 θ M2)",
        moved.outputs(state, case.X),
        network.outputs(expected, case.X),
        1e-10,
    )


def _moved(weight: Array, left: ProductTransform | None, right: ProductTransform | None) -> Array:
    """M1 θ M2 by dense matrices; the constant's row is left where it is."""
    if left is not None:
        matrix = np.eye(len(weight))
        matrix[: left.size, : left.size] = left.to_dense()
        weight = matrix @ weight
    return weight if right is None else weight @ right.to_dense()


def _serves(case: NetworkCase, rng: np.random.Generator) -> None:
    state = case.state(case.outputs[-1])
    expect(case.network.serves(state, case.X), "the state does not serve the samples that it was made for")
    if case.network.is_infinite:
        expect(not case.network.serves(state, case.X + 1.0), "anchors of some samples cannot serve others")


def _estimator(case: NetworkCase, rng: np.random.Generator) -> None:
    features = TangentFeatures(case.network, random_state=case.seed).fit(case.X)
    operator = features.operator(case.X)
    agree("the mean diagonal of TangentFeatures' kernel", operator.diagonal().mean(), 1.0, 1e-9)
    coefs: Coefs = [rng.standard_normal(shape) for shape in operator.coef_shapes]
    agree("predictions of TangentFeatures", features.predict(case.X, coefs), operator.matvec(coefs), 1e-9)


def _immutability(case: NetworkCase, rng: np.random.Generator) -> None:
    network, state = case.network, case.state(case.outputs[-1])
    X = case.X.copy()
    X.flags.writeable = False
    before = [leaf.copy() for leaf in leaves(state)]
    network.layers(state, X), network.outputs(state, X), network.anchored(state, X)
    for leaf, copy in zip(leaves(state), before, strict=True):
        expect(np.array_equal(leaf, copy), "a call of layers or outputs has changed the state")


def _pickling(case: NetworkCase, rng: np.random.Generator) -> None:
    network, state = pickled((case.network, case.state(case.outputs[-1])))
    expected = case.network.layers(case.state(case.outputs[-1]), case.X)
    same_layers("features of the loaded network and state", network.layers(state, case.X), expected, 0.0)


_CHECKS: dict[str, Callable[[NetworkCase, np.random.Generator], None]] = {
    "shapes": _shapes,
    "features": _features,
    "kernel": check_kernel,
    "slopes": check_slopes,
    "input-gradients": check_input_gradients,
    "rescaled": check_rescaled,
    "layers": _layers,
    "batches": _batches,
    "seed": _seed,
    "precision": _precision,
    "constant": _constant,
    "movable": _movable,
    "stretched": _stretched,
    "serves": _serves,
    "estimator": _estimator,
    "immutability": _immutability,
    "pickling": _pickling,
}
