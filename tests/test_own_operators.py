"""Layers and operators of somebody else's: the contracts are enough for every product, kernel and solver."""

import itertools

import numpy as np
import pytest

from conftest import dense_matrix, flat, low_rank_target, random_operator
from lowrank_tangent import AdaptiveTangentRegressor, StructuredRegression, adapt, solve
from lowrank_tangent.datasets import make_product
from lowrank_tangent.linalg.transforms import LowRankTransform, ProductTransform
from lowrank_tangent.operators import Layer, LayerFactors, TangentOperator

pytestmark = pytest.mark.filterwarnings("error")
CASES = [("network", 1), ("network", 3), ("shared", 1), ("shared", 3)]


class LayerMatrices(Layer):
    """Features as the matrices that they are, shape (n, C, p, q)."""

    def __init__(self, features):
        self.features = features

    n_samples = property(lambda self: len(self.features))
    n_outputs = property(lambda self: self.features.shape[1])
    shape = property(lambda self: self.features.shape[2:])
    dtype = property(lambda self: self.features.dtype)

    def product(self, coef, n_outputs):
        if self.n_outputs > 1:
            return np.einsum("ncpq,pq->nc", self.features, coef)
        return np.einsum("npq,pcq->nc", self.features[:, 0], coef.reshape(len(coef), n_outputs, -1))

    def adjoint(self, residual, shape):
        if self.n_outputs > 1:
            return np.einsum("ncpq,nc->pq", self.features, residual)
        return np.einsum("npq,nc->pcq", self.features[:, 0], residual).reshape(shape)

    def kernel(self, other, per_output):
        if not per_output:
            return np.einsum("ncpq,mcpq->nm", self.features, other.features) / self.n_outputs
        kernel = np.einsum("ncpq,mdpq->ncmd", self.features, other.features)
        return kernel.reshape(kernel.shape[0] * kernel.shape[1], -1)

    def squares(self):
        return np.einsum("ncpq,ncpq->nc", self.features, self.features)

    def rows(self, index):
        return LayerMatrices(self.features[index])

    def output(self, index):
        return LayerMatrices(self.features[:, index : index + 1])

    def stacked(self, n_outputs):
        n, _, p, q = self.features.shape
        stacked = np.zeros((n, n_outputs, p, n_outputs, q), dtype=self.dtype)
        for c in range(n_outputs):
            stacked[:, c, :, c] = self.features[:, 0]
        return LayerMatrices(stacked.reshape(n, n_outputs, p, -1))

    def astype(self, dtype):
        return LayerMatrices(self.features.astype(dtype))

    def transformed(self, left, right):
        features = self.features if right is None else right.apply(self.features)
        return LayerMatrices(features if left is None else left.apply(features.swapaxes(2, 3)).swapaxes(2, 3))


def in_matrices(operator):
    """The same operator, whose layers hold matrices."""
    layers = [LayerMatrices(np.einsum("ntp,nctq->ncpq", layer.h, layer.delta)) for layer in operator.layers]
    return TangentOperator(layers, operator.outputs, operator.n_outputs)


@pytest.mark.parametrize(("outputs", "C"), CASES)
def test_another_layer_gives_the_same_operator(rng, outputs, C):
    known = random_operator(rng, 7, [(4, 5), (2, 3)], outputs, C, positions=2)
    weights = rng.uniform(0.5, 2.0, 7)
    coefs = [rng.standard_normal(shape) for shape in known.coef_shapes]
    residual = rng.standard_normal((7, C))
    left, right = (
        [LowRankTransform(np.linalg.qr(rng.standard_normal((shape[side], 2)))[0], np.array([3.0, 1.5])) for shape in
         known.coef_shapes]
        for side in (0, 1)
    )  # fmt: skip
    for change in (
        lambda operator: operator.weighted(weights, True),
        lambda operator: operator.transformed(left, right),
        lambda operator: operator.scaled(3.0).rows([4, 2, 2, 0, 1, 5, 6]),
        lambda operator: operator.with_precision(np.float32).with_precision(np.float64),
    ):
        one, two = change(known), change(in_matrices(known))
        np.testing.assert_allclose(two.matvec(coefs), one.matvec(coefs), atol=2e-5)
        np.testing.assert_allclose(flat(two.rmatvec(residual)), flat(one.rmatvec(residual)), atol=2e-5)
        for kernel in ("gram", "mean_gram", "diagonal", "to_dense"):
            np.testing.assert_allclose(getattr(two, kernel)(), getattr(one, kernel)(), atol=2e-5)


@pytest.mark.parametrize(("outputs", "C"), CASES)
def test_features_in_two_bases(rng, outputs, C):
    known = random_operator(rng, 6, [(4, 5)], outputs, C, positions=2)
    ((p, width),) = known.coef_shapes
    left, right = rng.standard_normal((p, 3)), rng.standard_normal((width, 2))
    expected = left.T @ dense_matrix(known).reshape(6, C, p, width) @ right
    for layer in known.layers + in_matrices(known).layers:
        np.testing.assert_allclose(layer.projected(left, right, C), expected.transpose(2, 3, 0, 1), atol=1e-12)


@pytest.mark.parametrize("method", ["newton", "reweighted", "proximal", "bilinear", "cvxpy"])
@pytest.mark.parametrize(("outputs", "C"), CASES)
def test_every_solver_takes_another_layer(rng, method, outputs, C):
    known = random_operator(rng, 12, [(3, 4), (2, 3)], outputs, C)
    y = low_rank_target(rng, known)
    tol = 1e-6 if method in ("proximal", "bilinear", "cvxpy") else 1e-9
    expected, found = (
        solve(StructuredRegression(operator, y, "power", 0.1, 10.0, fit_intercept=True), one, tol=tolerance)
        for operator, one, tolerance in ((known, "newton", 1e-10), (in_matrices(known), method, tol))
    )
    assert found.converged
    assert found.objective == pytest.approx(expected.objective, rel=10 * tol)


@pytest.mark.parametrize("n", [9, 150])
@pytest.mark.parametrize(("outputs", "C"), CASES)
def test_newton_and_adaptation_of_another_layer(rng, outputs, C, n):
    known = random_operator(rng, n, [(3, 40), (12, 2)], outputs, C)
    y, own = low_rank_target(rng, known), in_matrices(known)
    problems = [StructuredRegression(operator, y, "kl", 0.1, 10.0) for operator in (known, own)]
    expected, found = (solve(problem, "newton", tol=1e-10) for problem in problems)
    assert found.objective == pytest.approx(expected.objective, rel=1e-9)
    kernel = adapt(problems[1], found).kernel(own)
    np.testing.assert_allclose(kernel @ found.dual.ravel() / 0.1, found.prediction.ravel(), atol=1e-4)


@pytest.mark.parametrize(
    ("h_type", "delta_type"), list(itertools.product([np.float64, np.float32], repeat=2)), ids=lambda t: t.__name__
)
@pytest.mark.parametrize(("outputs", "C"), CASES)
@pytest.mark.parametrize("positions", [1, 2])
def test_factors_of_two_precisions_have_products_in_double(rng, h_type, delta_type, outputs, C, positions):
    exact = random_operator(rng, 9, [(4, 5), (2, 3)], outputs, C, positions)
    layers = [LayerFactors(layer.h.astype(h_type), layer.delta.astype(delta_type)) for layer in exact.layers]
    double = [LayerFactors(layer.h.astype(float), layer.delta.astype(float)) for layer in layers]
    copies = C if outputs == "shared" else None
    mixed, expected = (TangentOperator(given, outputs, copies) for given in (layers, double))
    assert {layer.dtype for layer in layers} == {np.result_type(h_type, delta_type)}
    coefs = [rng.standard_normal(shape) for shape in mixed.coef_shapes]
    residual = rng.standard_normal((9, C))
    stretched = [LowRankTransform(np.linalg.qr(rng.standard_normal((p, 2)))[0], np.array([3.0, 1.5])) for p in (4, 2)]
    identity = [LowRankTransform.identity(width) for _, width in mixed.coef_shapes]
    for one, two in (
        (mixed, expected),
        (mixed.transformed(stretched, identity), expected.transformed(stretched, identity)),
    ):
        np.testing.assert_allclose(one.matvec(coefs), two.matvec(coefs), rtol=0.0, atol=1e-13)
        np.testing.assert_allclose(flat(one.rmatvec(residual)), flat(two.rmatvec(residual)), rtol=0.0, atol=1e-12)
        np.testing.assert_allclose(one.gram(), two.gram(), rtol=0.0, atol=1e-12)
        np.testing.assert_allclose(one.mean_gram(), two.mean_gram(), rtol=0.0, atol=1e-12)
        np.testing.assert_allclose(one.diagonal(), two.diagonal(), rtol=0.0, atol=1e-12)
    # The layer itself, whoever calls it: of each product, what two copies in double precision give.
    if np.float64 in (h_type, delta_type):
        for layer, other, coef in zip(layers, double, coefs, strict=True):
            np.testing.assert_allclose(layer.product(coef, C), other.product(coef, C), rtol=0.0, atol=1e-13)
            np.testing.assert_allclose(layer.kernel(layer, True), other.kernel(other, True), rtol=0.0, atol=1e-13)


@pytest.mark.parametrize(("n", "penalty", "alpha"), [(40, "joint", 1e-8), (300, "kl", 1e-6)])
def test_estimators_in_single_precision_where_alpha_is_small(n, penalty, alpha):
    X, y = make_product(n, 8, random_state=0)
    exact, single = (
        AdaptiveTangentRegressor((16,), penalty=penalty, alpha=alpha, dtype=dtype, random_state=0).fit(X, y)
        for dtype in (np.float64, np.float32)
    )
    assert single.objective_ == pytest.approx(exact.objective_, rel=1e-5)


def test_what_holds_arrays_is_equal_to_itself_alone(rng):
    operator = random_operator(rng, 8, [(3, 4)])
    problem = StructuredRegression(operator, rng.standard_normal(8), alpha=0.1)
    solution = solve(problem)

    def things():
        yield LayerFactors(np.ones((3, 2)), np.ones((3, 2)))
        yield LowRankTransform(np.eye(3), np.ones(3))
        yield ProductTransform(np.eye(3))
        yield adapt(problem, solution)

    for one, other in zip(things(), things(), strict=True):
        assert one == one
        assert one != other
        assert len({one, other, one}) == 2
    again = solve(problem)
    assert solution != again
    assert len({solution, again}) == 2
