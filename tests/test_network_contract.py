"""A network that is not ours, written with the contract alone, goes wherever ours go."""

import pickle

import numpy as np
import pytest

from lowrank_tangent import StructuredRegression, TangentFeatures, adapt, solve
from lowrank_tangent.model_selection import tangent_path
from lowrank_tangent.networks import MLP, InfiniteMLP, Network, StretchedWeights, generator
from lowrank_tangent.operators import LayerFactors
from lowrank_tangent.rounds import Relinearisation, run_rounds


class Antisymmetric(Network):
    """f(x; θ) − f(x; θ′) for two networks: the layers of the first, then those of the second."""

    def __init__(self, first, second):
        self.first, self.second = first, second

    @property
    def n_layers(self):
        return self.first.n_layers + self.second.n_layers

    @property
    def movable_layers(self):
        return tuple(range(self.n_layers))

    def input_has_constant(self, layer):
        return self.first.input_has_constant(layer % self.first.n_layers)

    def forward_scale(self, fan_in):
        return self.first.forward_scale(fan_in)

    def initialise(self, n_features, n_outputs=1, random_state=None):
        rng = generator(random_state)
        return [network.initialise(n_features, n_outputs, rng) for network in (self.first, self.second)]

    def layers(self, state, X):
        plus, minus = self.first.layers(state[0], X), self.second.layers(state[1], X)
        return [*plus, *(LayerFactors(layer.h, -layer.delta) for layer in minus)]

    def outputs(self, state, X):
        return self.first.outputs(state[0], X) - self.second.outputs(state[1], X)

    def stretched(self, left, right):
        middle = self.first.n_layers
        return Antisymmetric(
            self.first.stretched(left[:middle], right[:middle]), self.second.stretched(left[middle:], right[middle:])
        )

    def with_precision(self, state, dtype):
        return [self.first.with_precision(weights, dtype) for weights in state]


class Bare(Network):
    """A linear model that implements what has to be implemented, and nothing else."""

    n_layers = 1

    def initialise(self, n_features, n_outputs=1, random_state=None):
        return np.zeros((n_features, n_outputs))

    def layers(self, state, X):
        return [LayerFactors(X, np.tile(np.eye(state.shape[1]), (len(X), 1, 1)))]

    def outputs(self, state, X):
        return X @ state


@pytest.fixture
def network():
    return Antisymmetric(MLP((6, 4), "tanh", bias=0.7), MLP((6, 4), "tanh", bias=0.7))


@pytest.fixture
def data(rng):
    X = rng.standard_normal((30, 3))
    return X, np.sin(2.0 * X[:, 0]) + X[:, 1] * X[:, 2]


def differences(network, state, X, layer, step=1e-6):
    """Jacobian of the outputs with respect to a layer's weights, shape (n, C, p, q)."""
    flat = [weight for part in state for weight in part]
    weight, columns = flat[layer], []
    for index in np.ndindex(weight.shape):
        kept = weight[index]
        values = []
        for move in (step, -step):
            weight[index] = kept + move
            values.append(network.outputs(state, X))
        weight[index] = kept
        columns.append((values[0] - values[1]) / (2.0 * step))
    return np.stack(columns, axis=-1).reshape(*columns[0].shape, *weight.shape)


@pytest.mark.parametrize("outputs", ["shared", "network"])
def test_features_are_the_jacobian(rng, network, data, outputs):
    X, _ = data
    features = TangentFeatures(network, outputs, random_state=0).fit(X, 2)
    operator = features.operator(X)
    coefs = [rng.standard_normal(shape) for shape in operator.coef_shapes]
    expected = np.zeros((len(X), 2))
    for layer, coef in enumerate(coefs):
        jacobian = features.scale_ * differences(network, features.weights_, X, layer)
        for c in range(2):
            block = coef if outputs == "network" else coef.reshape(len(coef), 2, -1)[:, c]
            expected[:, c] += np.einsum("npq,pq->n", jacobian[:, c if outputs == "network" else 0], block)
    np.testing.assert_allclose(operator.matvec(coefs), expected, atol=1e-7)


def test_streams_and_single_precision(network, data):
    X, y = data
    kept = TangentFeatures(network, random_state=0).fit(X)
    kernel = kept.operator(X).gram()
    stream = TangentFeatures(network, random_state=0, batch_size=7).fit(X).operator(X)
    assert stream.is_streamed
    np.testing.assert_allclose(stream.gram(), kernel, atol=1e-13)
    single = TangentFeatures(network, random_state=0, dtype=np.float32).fit(X)
    assert single.weights_[1][0].dtype == np.float32
    np.testing.assert_allclose(single.operator(X).gram(), kernel, atol=1e-5)
    solutions = [
        solve(StructuredRegression(operator, y, alpha=0.1), tol=1e-8) for operator in (kept.operator(X), stream)
    ]
    assert all(solution.converged for solution in solutions)
    for one, other in zip(*(solution.coefs for solution in solutions), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    np.testing.assert_allclose(solutions[0].prediction, solutions[1].prediction, atol=1e-3)
    again = pickle.loads(pickle.dumps(kept))
    np.testing.assert_array_equal(again.operator(X).gram(), kernel)
    assert kept.serves(X[:5])


def test_paths_and_adapted_kernels(network, data):
    X, y = data
    features = TangentFeatures(network, random_state=0).fit(X)
    problem = StructuredRegression(features.operator(X), y, "kl", 0.1)
    path = tangent_path(problem, alphas=[1.0, 0.1], adaptivities=[1.0])
    solution = solve(problem, tol=1e-9)
    assert path.objective[0, -1] == pytest.approx(solution.objective, rel=1e-5)
    kernel = adapt(problem, solution).kernel(features.operator(X))
    np.testing.assert_allclose(
        np.linalg.solve(kernel + 0.1 * np.eye(len(X)), y) * 0.1, y - solution.prediction[:, 0], atol=1e-4
    )


@pytest.mark.parametrize("metric", ["coefficient", "gradient"])
def test_rounds_build_the_transforms_into_the_network(network, data, metric):
    X, y = data
    features = TangentFeatures(network, random_state=0).fit(X)

    def solve_on(features):
        problem = StructuredRegression(features.operator(X), y, "kl", 0.1)
        return problem, solve(problem, tol=1e-9), np.nan

    rounds = Relinearisation(features, metric)
    _, _, history = run_rounds(rounds, X, 1, solve_on)
    assert len(history) == 2
    moved = rounds.features
    left = history[-1].left
    assert [matrix.shape for matrix in left] == [(3, 3), (6, 6), (4, 4)] * 2
    assert not any(np.allclose(matrix, np.eye(len(matrix))) for matrix in left)
    # At M θ, with the constants' rows as they were, the Jacobian by differences, times M, is the features after.
    state = [
        [np.vstack([matrix @ weight[:-1], weight[-1:]]) for matrix, weight in zip(matrices, weights, strict=True)]
        for matrices, weights in zip((left[:3], left[3:]), features.weights_, strict=True)
    ]
    np.testing.assert_allclose(moved.network.outputs(moved.weights_, X), network.outputs(state, X), atol=1e-12)
    for layer, factors in enumerate(moved.operator(X).layers):
        jacobian = moved.scale_ * differences(network, state, X, layer)[:, 0]
        transform = np.eye(len(left[layer]) + 1)
        transform[:-1, :-1] = left[layer]
        np.testing.assert_allclose(
            np.einsum("np,nq->npq", factors.h[:, 0], factors.delta[:, 0, 0]),
            np.einsum("npq,pr->nrq", jacobian, transform),
            atol=1e-7,
        )


def test_a_metric_of_slopes_is_that_of_the_function(network, data):
    """With "gradient" a layer's transform has the eigenvectors of the outer product of B delta(x_i)."""
    X, y = data
    features = TangentFeatures(network, random_state=0).fit(X)
    problem = StructuredRegression(features.operator(X), y, "kl", 0.1)
    solution = solve(problem, tol=1e-9)
    rounds = Relinearisation(features, "gradient")
    rounds.advance(problem, solution, X)
    for layer, factors in enumerate(problem.operator.layers):
        slopes = (
            factors.delta[:, 0, 0]
            @ solution.coefs[layer][:-1].T
            * network.forward_scale(len(solution.coefs[layer]) - 1)
        )
        values, basis = np.linalg.eigh(slopes.T @ slopes / len(X))
        stretch = problem.spectral[layer].stretch(np.sqrt(np.maximum(values, 0.0)))
        expected = (basis * stretch) @ basis.T
        expected *= np.sqrt(len(expected)) / np.linalg.norm(expected)
        np.testing.assert_allclose(rounds.left[layer].to_dense(), expected, atol=1e-8)


def test_what_is_not_implemented_is_said(data):
    X, y = data
    features = TangentFeatures(Bare()).fit(X)
    problem = StructuredRegression(features.operator(X), y, alpha=0.1)
    solution = solve(problem)
    with pytest.raises(ValueError, match=r"rounds move layers \[\] of this network, its `movable_layers`"):
        Relinearisation(features, "coefficient").advance(problem, solution, X)
    with pytest.raises(ValueError, match=r"Bare has no `stretched\(left, right\)`.*n_rounds=0"):
        Bare().stretched([None], [None])
    with pytest.raises(ValueError, match="'evidence' is for networks of infinite width"):
        Relinearisation(features, "evidence")
    for call in (
        lambda: Bare().kernel(X),
        lambda: Bare().tangent(X),
        lambda: Bare().input_gradients(None, []),
        lambda: Bare().rescaled(2.0),
    ):
        with pytest.raises(ValueError, match="Bare has no closed form: that is for networks of infinite width"):
            call()
    assert not Bare().input_has_constant(0)
    assert Bare().forward_scale(3) == 1.0


@pytest.mark.parametrize("given", [object(), MLP, "mlp", Bare])
def test_what_is_no_network_is_told_what_to_implement(given):
    with pytest.raises(TypeError, match="implement n_layers, initialise, layers and outputs, and pass an instance"):
        TangentFeatures(given)


def test_features_that_overflow_are_refused_by_what_to_do(rng):
    X = rng.standard_normal((5, 3))
    X[0, 0] = 1e308
    with pytest.raises(
        ValueError, match=r"the tangent features overflow: the values of X reach 1e\+308. Standardise X"
    ):
        TangentFeatures(MLP((4,), "relu", "he"), random_state=0).fit(X)


def test_stretched_networks_keep_the_contract(rng, data):
    X, _ = data
    mlp = MLP((5,), bias=0.5)
    stretched = mlp.stretched([None, None], [None, None])
    assert isinstance(stretched, StretchedWeights)
    weights = stretched.initialise(3, 1, 0)
    np.testing.assert_array_equal(stretched.outputs(weights, X), mlp.outputs(weights, X))
    assert stretched.serves(weights, X)
    assert not stretched.serves(weights, X[:, :2])
    limit = InfiniteMLP(2)
    seen = limit.stretched([None] * 3, [None] * 3)
    anchors = seen.anchored(seen.initialise(3), X)
    np.testing.assert_array_equal(seen.kernel(X[:4], X), limit.kernel(X[:4], X))
    np.testing.assert_array_equal(seen.outputs(anchors, X), np.zeros((30, 1)))
    assert seen.serves(anchors, X)
    assert not seen.serves(anchors, X + 1.0)
    np.testing.assert_allclose(limit.rescaled(2.0).kernel(2.0 * np.hstack([X, np.zeros((30, 9))])), limit.kernel(X))
    for network in (mlp, limit, stretched, seen):
        assert network.input_has_constant(0)
        assert network.forward_scale(4) == 0.5
